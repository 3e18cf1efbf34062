"""The text format Prometheus reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One number: its name says the unit, a counter's ends in `_total`."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    kind: Literal["counter", "gauge"] = "gauge"
    help: str = ""


def exposition(samples: Iterable[Sample]) -> str:
    """Return the samples as text, those of one name together, in the order the names first came."""
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.name, []).append(sample)
    lines: list[str] = []
    for name, family in families.items():
        if family[0].help:
            lines.append(f"# HELP {name} {_escaped(family[0].help)}")
        lines.append(f"# TYPE {name} {family[0].kind}")
        lines += [f"{name}{_labels(sample.labels)} {_number(sample.value)}" for sample in family]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = [f'{name}="{_escaped(value).replace(chr(34), chr(92) + chr(34))}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))

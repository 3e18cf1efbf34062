"""Which recorded request is nearest to one that was not recorded, and what differs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmling.models.cassettes.tape import Recorded
from llmling.models.cassettes.varying import alike

_LOOKED_AT = 2_000
_COMPARED = 100
_SHOWN = 60
_MOST = 3


def nearest(request: Mapping[str, Any], recorded: Iterable[Recorded]) -> Recorded | None:
    """Return the recorded request that is most like another one, or None when there is none."""
    # Comparing letter by letter takes a millisecond, so it is for those only that have most in common as a whole.
    ranked = sorted(recorded, key=lambda each: _common(request, each.request), reverse=True)[:_COMPARED]
    return max(ranked, key=lambda each: _likeness(request, each.request), default=None)


def _common(asked: Mapping[str, Any], recorded: Mapping[str, Any]) -> tuple[int, bool, int]:
    ours, theirs = asked["messages"], recorded["messages"]
    same = sum(asked.get(key) == recorded.get(key) for key in ("tools", "output", "settings"))
    return (_first_other(ours, theirs), ours[-1:] == theirs[-1:], same)


def _likeness(asked: Mapping[str, Any], recorded: Mapping[str, Any]) -> tuple[float, ...]:
    ours, theirs = asked["messages"], recorded["messages"]
    place, _, same = _common(asked, recorded)
    first = _ratio(ours[place : place + 1], theirs[place : place + 1])
    # Where the instructions have changed, every request differs at once; the last message tells which is meant.
    return (place, first, _ratio(ours[-1:], theirs[-1:]), same)


def _ratio(one: Sequence[Any], other: Sequence[Any]) -> float:
    texts = [_text(each)[:_LOOKED_AT] for each in (one, other)]
    return difflib.SequenceMatcher(None, *texts, autojunk=False).quick_ratio()


def differences(asked: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """Return in words what two requests do not have in common, three things at most."""
    found: list[str] = []
    ours, theirs = asked["messages"], recorded["messages"]
    place = _first_other(ours, theirs)
    if place < min(len(ours), len(theirs)):
        found.append(_message(place, ours[place], theirs[place]))
    elif len(ours) != len(theirs):
        found.append(f"the number of messages is {len(ours)}, recorded was {len(theirs)}")
    found += _tools(asked.get("tools", ()), recorded.get("tools", ()))
    if alike(_text(asked.get("output"))) != alike(_text(recorded.get("output"))):
        found.append("another output schema")
    settings, before = asked.get("settings", {}), recorded.get("settings", {})
    for name in dict.fromkeys((*settings, *before)):
        if settings.get(name) != before.get(name):
            found.append(f"{name} is {_text(settings.get(name))}, recorded was {_text(before.get(name))}")
    return found[:_MOST]


def _first_other(ours: Sequence[Any], theirs: Sequence[Any]) -> int:
    pairs = enumerate(zip(ours, theirs, strict=False))
    same = min(len(ours), len(theirs))
    return next((place for place, (one, other) in pairs if alike(_text(one)) != alike(_text(other))), same)


def _message(place: int, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    where = f"message {place + 1} ({ours['role']})"
    one, other = ours.get("text", ""), theirs.get("text", "")
    if alike(one) == alike(other) or ours["role"] != theirs["role"]:
        one, other = _text(ours), _text(theirs)
    start = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    start = max(0, (min(len(one), len(other)) if start is None else start) - _SHOWN // 3)
    return f"{where} has {_excerpt(one, start)}, recorded was {_excerpt(other, start)}"


def _excerpt(text: str, start: int) -> str:
    before, after = "..." if start else "", "..." if len(text) > start + _SHOWN else ""
    return repr(f"{before}{text[start : start + _SHOWN]}{after}")


def _tools(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[str]:
    mine = {tool["name"]: tool for tool in ours}
    recorded = {tool["name"]: tool for tool in theirs}
    found = [f"tool {name!r} is new" for name in mine if name not in recorded]
    found += [f"tool {name!r} is gone" for name in recorded if name not in mine]
    found += [
        f"tool {name!r} is described differently" for name in mine if mine[name] != recorded.get(name, mine[name])
    ]
    if not found and list(mine) != list(recorded):
        found.append("the tools have another order")
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)

"""The harness of `make bench`: it measures, checks what it measures, and writes a table. No figure is judged here."""

from __future__ import annotations

from pathlib import Path

import pytest
from measuring import contender, provider
from run import ROWS
from table import Row, put, table

ROOT = Path(__file__).parents[1]


def test_contenders_are_measured_in_interpreters_of_their_own() -> None:
    with provider() as url:
        raw = contender("raw", url, 0.005, scenarios="single,tools,stream")
        layer = contender("layer", url, 0.005, scenarios="single")
    assert raw.keys() == {
        "raw.single.per_s", "raw.single.cpu_us", "raw.tools.ideal", "raw.tools.cpu_us", "raw.stream.per_s",
    }  # fmt: skip
    assert layer.keys() == {"layer.single.per_s", "layer.single.cpu_us"}
    assert min(*raw.values(), *layer.values()) > 0


def test_rows_show_median_spread_and_gate() -> None:
    rows = [
        Row("a", lambda found: found["x"] / found["y"], " x", most=1.5),
        Row("b", lambda found: found["x"], "/s", least=1000),
        Row("nobody measured it", lambda found: found["z"]),
    ]
    repetitions = [{"x": 2.0, "y": 2.0}, {"x": 4.0, "y": 2.0}, {"x": 2.4, "y": 2.0}]
    text = table(rows, repetitions, "make bench").splitlines()
    assert text[0].startswith("Written by `make bench` on ")
    assert text[2:] == [
        "| measured | median | spread | gate |",
        "|---|---:|---:|---|",
        "| a | 1.2 x | 83% | holds: <= 1.5 x |",
        "| b | 2.4/s | 83% | missed: >= 1,000/s |",
    ]


def test_the_page_has_markers_for_both_tables(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    put(page, "make bench", "alpha")
    put(page, "make bench-peers", "beta")
    put(page, "make bench", "gamma")
    text = page.read_text()
    assert "alpha" not in text
    assert text.index("gamma") < text.index("beta")
    with pytest.raises(ValueError, match="needs '<!-- numbers of other -->'"):
        put(page, "other", "x")


def test_every_gate_of_a_row_is_one_bound() -> None:
    assert all(row.most is None or row.least is None for row in ROWS)
    assert len({row.name for row in ROWS}) == len(ROWS)

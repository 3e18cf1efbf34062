"""The table of `make chaos` has every number that was counted, and replaces the one before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chaos import BEGIN, END, Trial, put, table


def test_numbers_become_rows_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = tmp_path / "numbers"
    monkeypatch.setenv("CHAOS_NUMBERS", str(numbers))
    Trial("second").holds(events=5, kills=2, repeated=1, bound="4 (kills x in flight)", measured="p99 3 ms")
    for events in (2, 3):
        Trial("first").holds(events=events)
    rows = [json.loads(line) for line in numbers.read_text().splitlines()]
    text = table(rows, machine="2 cores", command="make chaos", date="2026-11-26").splitlines()
    assert text[0] == "Written by `make chaos` on 2026-11-26, 2 cores."
    assert text[4].startswith("| first | 3 | 0 | 0 | 0 | 0 | ")
    assert text[5].startswith("| second | 5 | 2 | 0 | 1 | 4 (kills x in flight) | ")
    assert text[5].split(" | ")[-2] == "p99 3 ms"
    assert len(text[5].split(" | ")[-1]) > len("1234567")
    page = put(put(f"above\n{BEGIN}old{END}\nbelow\n", "older"), "\n".join(text))
    assert page == f"above\n{BEGIN}\n\n" + "\n".join(text) + f"\n\n{END}\nbelow\n"
    with pytest.raises(ValueError, match="the page needs"):
        put("nothing", "x")


def test_a_trial_that_nobody_collects_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAOS_NUMBERS", raising=False)
    Trial("x").holds(events=1)


def test_the_page_has_its_markers() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text()
    assert put(page, "x").count(BEGIN) == 1

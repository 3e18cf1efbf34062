"""The harness of `make bench`: it measures, checks what it measures, and writes a table. No figure is judged here."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from contender import NEEDS, SCENARIOS
from environments import LOCKS, PEERS
from measuring import contender, provider, reasons
from peers import COLUMNS, best, sides
from run import ROWS
from table import Found, Row, put, table

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def test_contenders_are_measured_in_interpreters_of_their_own() -> None:
    with provider() as url:
        raw = contender("raw", url, 0.005, scenarios="single,tools,stream,construct")
        layer = contender("layer", url, 0.005, scenarios="single")
        nobody = contender("nobody", url, 0.005)
    assert raw.found.keys() == {
        "raw.single.per_s", "raw.single.cpu_us", "raw.tools.ideal", "raw.tools.cpu_us", "raw.stream.per_s",
    }  # fmt: skip
    assert layer.found.keys() == {"layer.single.per_s", "layer.single.cpu_us"}
    assert min(*raw.found.values(), *layer.found.values()) > 0
    assert reasons({}) == []
    assert reasons(raw.failed) == ["- Not measured: raw construct: it has no agents"]
    assert nobody.failed == {"nobody": "ModuleNotFoundError: No module named 'contenders.nobody'"}


def test_every_framework_has_a_lock_and_every_scenario_or_a_reason() -> None:
    assert {"agno", "agent_framework", "autogen", "crewai", "langgraph", "openai_agents", "pydantic_ai"} <= set(PEERS)
    for peer in PEERS:
        body = ast.parse((BENCHMARKS / "contenders" / f"{peer}_.py").read_text()).body
        made = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == "Contender")
        methods = {node.name for node in made.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        lacking = {name for name in SCENARIOS.split(",") if name != "imports" and NEEDS.get(name, "run") not in methods}
        assert not lacking or "lacks" in ast.dump(made), f"{peer}: {lacking}"
        wanted = (LOCKS / f"{peer}.in").read_text().split()
        locked = [line for line in (LOCKS / f"{peer}.txt").read_text().splitlines() if not line.startswith("#")]
        assert all(re.match(r"[a-z0-9-]+==[^ ]+( ;.*)?$", line) for line in locked)
        assert {re.sub(r"\[.*\]", "", line) for line in wanted} <= {line.split(" ;")[0] for line in locked}


def test_frameworks_stand_beside_the_bare_client_of_their_own_repetition() -> None:
    def once(name: str, *, raw: float, value: float) -> Found:
        metrics = [column.metric for column in COLUMNS]
        found = {f"raw.{metric}": raw for metric in metrics if not metric.startswith("construct")}
        return {**found, **{f"{name}_.{metric}": value for metric in metrics}}

    found = {
        "llmling": [once("llmling", raw=4.0, value=8.0)],
        "some_peer": [once("some_peer", raw=2.0, value=1.0), once("some_peer", raw=10.0, value=2.0)],
        "broken": [],
    }
    lines = [line.strip("| ").split(" | ") for line in sides(found).splitlines()[2:]]
    chain = 1 + [column.metric for column in COLUMNS].index("chain.per_s")
    assert [line[0] for line in lines] == ["raw aiohttp, its own figures", "**llmling**", "some-peer", "broken"]
    assert [line[chain] for line in lines] == ["4/s", "2 x", "0.35 x", "-"]
    assert "| chain of three: chains/s | 5.71 x | some-peer | missed: >= 12 x |" in best(found)[0].splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_page_and_no_process(number: signal.Signals, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    before = (ROOT / "docs" / "performance.md").read_text()
    page.write_text(before)
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--page", str(page)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "repetition 1 of 5\n"
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.stderr.read().endswith("stopped, nothing is written\n")
        assert process.wait(30) == 130
    assert below
    assert psutil.wait_procs(below, 30)[1] == []
    assert page.read_text() == before


@pytest.mark.parametrize("late_ms", range(0, 12, 2))
def test_a_signal_while_processes_are_started_leaves_none(late_ms: int) -> None:
    mark = uuid.uuid4().hex
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--only", "contenders"]
    environment = {**os.environ, "LLMLING_TEST_MARK": mark}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "repetition 1 of 5\n"
        # Not to wait for anything: the first milliseconds are when processes and threads are started.
        time.sleep(late_ms / 1000)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert [each.cmdline() for each in psutil.process_iter() if _marked(each, mark)] == []


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("LLMLING_TEST_MARK") == mark
    except psutil.Error:
        return False


def test_rows_show_median_spread_and_gate() -> None:
    rows = [
        Row("a", lambda found: found["x"] / found["y"], " x", most=1.5),
        Row("b", lambda found: found["x"], "/s", least=1000),
        Row("nobody measured it", lambda found: found["z"]),
    ]
    repetitions = [{"x": 2.0, "y": 2.0}, {"x": 4.0, "y": 2.0}, {"x": 2.4, "y": 2.0}]
    assert table(rows[2:], repetitions) == []
    assert table(rows, repetitions)[0].splitlines() == [
        "| measured | median | spread | gate |",
        "|---|---:|---:|---|",
        "| a | 1.2 x | 83% | holds: <= 1.5 x |",
        "| b | 2.4/s | 83% | missed: >= 1,000/s |",
    ]


def test_a_table_replaces_its_own_block_of_the_page_only(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    before = (ROOT / "docs" / "performance.md").read_text()
    page.write_text(before)
    put(page, "make bench", "alpha")
    put(page, "make bench-peers", "beta")
    put(page, "make bench", "gamma")
    text = page.read_text()
    assert "alpha" not in text
    assert text.index("gamma") < text.index("beta")
    block = re.compile(r"(<!-- numbers of (.+?) -->).*?(<!-- end of \2 -->)", re.DOTALL)
    assert block.sub(r"\1\3", text) == block.sub(r"\1\3", before)
    with pytest.raises(ValueError, match="needs '<!-- numbers of other -->'"):
        put(page, "other", "x")


def test_every_gate_of_a_row_is_one_bound() -> None:
    assert all(row.most is None or row.least is None for row in ROWS)
    assert len({row.name for row in ROWS}) == len(ROWS)

"""The command line as a whole: what it imports, how it fails."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from serving import llmling

POOL = "agents: {a: {triggers: [{type: webhook, port: PORT}]}}\n"
COMMANDS = ("serve", "run", "validate", "plan", "graph", "fire", "events", "init", "schema", "doctor")


async def python(folder: Path, code: str, *args: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *args, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_help_names_every_command_of_the_contract(tmp_path: Path) -> None:
    status, out, _ = await llmling(tmp_path, "--help")
    assert status == 0
    assert [command for command in COMMANDS if f"\n  {command} " not in out] == []


@pytest.mark.parametrize(
    "args",
    [
        ("frobnicate",),
        ("serve",),
        ("serve", "agents.yml", "--frobnicate"),
        ("graph", "agents.yml", "--format", "png"),
        ("events", "list", "agents.yml", "--status", "lost"),
        ("run", "agents.yml", "a", "   "),
        ("fire", "agents.yml", "webhook-1", "--data", "{"),
        ("events", "retry", "agents.yml"),
        ("events", "drop", "agents.yml", "ID", "--status", "dead"),
        ("run", "agents.yml", "nobody", "hello"),
        ("fire", "agents.yml", "nothing", "--data", "1"),
        ("fire", "agents.yml", "webhook-1"),
        ("fire", "agents.yml", "webhook-1", "--file", "none.txt"),
        ("serve", "missing.yml"),
        ("plan", "."),
    ],
)
async def test_bad_input_is_exit_code_2_without_a_traceback(
    tmp_path: Path, args: tuple[str, ...], free_tcp_port: int
) -> None:
    (tmp_path / "agents.yml").write_text(POOL.replace("PORT", str(free_tcp_port)))
    status, out, err = await llmling(tmp_path, *args)
    assert (status, out) == (2, "")
    assert err.strip()
    assert "Traceback" not in err


async def test_the_unforeseen_is_one_line_and_a_traceback_only_with_debug(tmp_path: Path) -> None:
    # An installation with a file missing: nothing in the code knows of it.
    code = "import sys; sys.modules['llmling_cli.doctor'] = None; from llmling_cli import main; main()"
    status, _, plain = await python(tmp_path, code, "doctor")
    assert status == 1
    assert plain.startswith("error: ModuleNotFoundError: ")
    assert "Traceback" not in plain
    status, _, debug = await python(tmp_path, code, "--debug", "doctor")
    assert status == 1
    assert "Traceback" in debug


async def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmling_cli", "schema", cwd=tmp_path, stdout=write, stderr=asyncio.subprocess.PIPE
    )
    os.close(write)
    os.close(read)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert "Traceback" not in err.decode()


async def test_no_colour_off_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("agents: {a: {modle: demo}}")
    _, out, _ = await llmling(tmp_path, "validate", "agents.yml", env={"FORCE_COLOR": "1"})
    assert "\x1b" not in out

"""The loop of `run_sync` and `serve` is uvloop's where that is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio
from llmling import Agent
from llmling.testing import ScriptedModel
loops = []
def reply(request):
    loops.append(type(asyncio.get_running_loop()).__name__)
    return "ok"
assert Agent("a", model=ScriptedModel(reply)).run_sync("go").response == "ok"
print(*loops)
"""
# What llmling takes of uvloop, so that it need not be installed here.
UVLOOP = """
import asyncio
class FastLoop(asyncio.SelectorEventLoop): pass
def new_event_loop(): return FastLoop()
"""
NONE = "raise ImportError('not installed')\n"


def loop_with(folder: Path, uvloop: str) -> str:
    (folder / "uvloop.py").write_text(uvloop)
    code = f"import sys\nsys.path.insert(0, {str(folder)!r})\n{PROGRAM}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_used_where_it_is_installed(tmp_path: Path) -> None:
    assert loop_with(tmp_path, UVLOOP) == "FastLoop"


def test_nothing_needs_it(tmp_path: Path) -> None:
    assert loop_with(tmp_path, NONE).endswith("SelectorEventLoop")

"""Structure that tools can hold: public names, light imports, and sizes a reader can take in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llmling

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "llmling").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])
HEAVY = ("litellm", "mcp", "opentelemetry.sdk", "openai", "aiohttp", "watchfiles")


def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter has loaded after running some code."""
    probe = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def test_the_public_names_are_pinned() -> None:
    assert llmling.__all__ == [
        "Agent",
        "AgentPool",
        "Constraints",
        "Context",
        "Directive",
        "Event",
        "Guidance",
        "Manifest",
        "Message",
        "RunResult",
        "Team",
        "get_tracer",
        "tool",
        "tracer",
    ]
    assert all(getattr(llmling, name) is not None for name in llmling.__all__)
    assert set(llmling.__all__) <= set(dir(llmling))
    with pytest.raises(AttributeError, match="no attribute 'Agents'"):
        llmling.__getattr__("Agents")


def test_importing_llmling_loads_nothing_heavy() -> None:
    assert loaded_by("import llmling") == set()


def test_using_agents_loads_neither_litellm_nor_mcp() -> None:
    assert not loaded_by("from llmling import *") & {"litellm", "mcp", "opentelemetry.sdk", "openai"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["validate", "agents.yml"], ["schema"]])
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import contextlib, io, sys\n"
        f"sys.argv = ['llmling', *{arguments!r}]\n"
        "from llmling_cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()"
    )
    assert not loaded_by(code) & {"litellm", "mcp", "opentelemetry.sdk", "openai", "aiohttp"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_fit_on_a_few_screens(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"

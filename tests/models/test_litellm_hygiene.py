"""What importing and using litellm must not do to the process, each in a fresh one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
USE = """
import asyncio, json, logging, os, socket, sys, threading, warnings
warnings.simplefilter("error", ResourceWarning)
asked, on_the_loop = [], []
def audit(event, args):
    if event == "import" and args[0].startswith("litellm") and threading.current_thread() is threading.main_thread():
        on_the_loop.append(args[0])
    if event in {"socket.getaddrinfo", "socket.connect"}:
        place = args[0] if event == "socket.getaddrinfo" else args[1][0] if isinstance(args[1], tuple) else args[1]
        if place not in {"127.0.0.1", b"127.0.0.1"}:
            asked.append(str(place))
sys.addaudithook(audit)
before, hook = dict(os.environ), sys.excepthook
from llm_server import LLMServer, Reply
from llmling.manifest.models import LiteLLMModelConfig
from llmling.messages import Message
from llmling.models.litellm import LiteLLMModel
from llmling.protocols import ModelRequest
loaded = "litellm" in sys.modules

async def main():
    began = asyncio.get_running_loop().time()
    ticks, worst = 0, 0.0
    async def beat():
        nonlocal ticks, worst
        loop = asyncio.get_running_loop()
        while True:
            last = loop.time()
            await asyncio.sleep(0.005)
            ticks, worst = ticks + 1, max(worst, loop.time() - last)
    beating = asyncio.create_task(beat())
    async with LLMServer() as server:
        request = ModelRequest((Message.user("hi"),))
        for name, base in (
            ("openai/x", server.openai_url), ("anthropic/claude-sonnet-4-5", server.url), ("gemini/g", server.url)
        ):
            config = LiteLLMModelConfig(name=name, api_base=base, api_key="sk-secret-123456")
            models = [LiteLLMModel(config) for _ in range(3)]
            await asyncio.gather(*(model.request(request) for model in models))
            [part async for part in models[0].stream(request)]
            server.replies.append(Reply(status=500))
            try:
                await models[0].request(request)
            except Exception as error:
                assert "500" in str(error), error
    beating.cancel()
    return ticks, worst / (asyncio.get_running_loop().time() - began)

ticks, worst = asyncio.run(main())
print(json.dumps({
    "loaded_by_import_of_ours": loaded,
    "environment": sorted(k for k in before.keys() ^ os.environ.keys()),
    "changed": sorted(k for k in before if os.environ.get(k) != before[k]),
    "network": asked,
    "imported_on_the_loop": on_the_loop,
    "handlers": [n for n in (None, "LiteLLM", "LiteLLM Router", "LiteLLM Proxy") if logging.getLogger(n).handlers],
    "hook": sys.excepthook is hook,
    "ticks": ticks,
    "worst_share": worst,
    "threads": [thread.name for thread in threading.enumerate() if "import" in thread.name],
}))
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("project")
    (folder / ".env").write_text("OPENAI_API_KEY=from-dotenv\nLEAKED=yes\n", encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITELLM")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return {**json.loads(line), "stderr": done.stderr}


def test_importing_our_module_does_not_import_litellm(used: dict[str, Any]) -> None:
    assert used["loaded_by_import_of_ours"] is False


def test_the_environment_is_left_alone_and_dotenv_is_not_read(used: dict[str, Any]) -> None:
    # litellm points the tokenizer's cache at its own files; nothing else may appear.
    assert set(used["environment"]) <= {"TIKTOKEN_CACHE_DIR"}
    assert used["changed"] == []


def test_nothing_of_litellm_is_imported_on_the_loop(used: dict[str, Any]) -> None:
    assert used["imported_on_the_loop"] == []


def test_nobody_but_the_server_is_asked(used: dict[str, Any]) -> None:
    assert used["network"] == []


def test_nothing_is_printed_and_no_handler_or_hook_is_left(used: dict[str, Any]) -> None:
    assert used["stderr"] == ""
    assert used["handlers"] == []
    assert used["hook"] is True


def test_the_loop_goes_on_while_litellm_is_imported(used: dict[str, Any]) -> None:
    # Importing takes seconds; a loop that it blocked would have had a handful of turns.
    assert used["ticks"] > 30
    assert used["worst_share"] < 0.5
    assert used["threads"] == []


def test_no_module_of_ours_imports_litellm_by_itself() -> None:
    modules = ("keys", "wire", "scripted", "demo", "fallback", "auto", "clients", "litellm")
    code = (
        f"import importlib, sys\nfor name in {modules}:\n    importlib.import_module(f'llmling.models.{{name}}')\n"
        "    if 'litellm' in sys.modules:\n        sys.exit(f'{name} imports litellm')"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=60)

"""When litellm is imported: while a pool starts that needs it, and never for one that does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
USE = """
import asyncio, atexit, json, sys, threading
from llmling import AgentPool

MANIFEST = '''
agents:
  a:
    model: %s
    triggers:
      - {type: schedule, every_s: 3600, prompt: Look.}
'''
begun = []

async def main():
    for model in ("demo", "{type: fallback, models: [demo, ollama/llama3.2]}"):
        with open("agents.yml", "w") as file:
            file.write(MANIFEST % model)
        async with AgentPool("agents.yml") as pool:
            if model == "demo":
                assert (await pool.get_agent("a").run("hello")).content
            names = [thread.name for thread in threading.enumerate()]
            begun.append("litellm" in sys.modules or "llmling-import-litellm" in names)

asyncio.run(main())
# Runs when every thread has ended: the program does not wait for an import that nobody needs any more.
atexit.register(lambda: print(json.dumps([*begun, "litellm" in sys.modules])))
"""
LAST = """
import asyncio, atexit, sys, threading
from llmling.models import loading

def work():
    threading.main_thread().join()
    print(asyncio.run(loading.load()).__name__)

threading.Thread(target=work).start()
"""
FAKE = {
    "__init__": "import wave, request_timeout; LlmProviders = str; get_llm_provider = lambda model: (model, '', 0, 0)",
    "utils": """
class ProviderConfigManager:
    get_provider_chat_config = lambda *_: ProviderConfigManager
    get_supported_openai_params = lambda *_: []
""",
    "anthropic_beta_headers_manager": "def is_beta_header_supported(*_): ...",
    "types/__init__": "",
    "types/utils": "Message = Delta = ModelResponse = ModelResponseStream = dict",
    "llms/__init__": "",
    "llms/custom_httpx/__init__": "",
    "llms/custom_httpx/http_handler": "def get_async_httpx_client(*_): ...",
    "../request_timeout": "",
}


def test_it_is_imported_while_a_pool_starts_that_needs_it(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [False, True, False]


def test_a_thread_that_outlives_the_program_still_gets_it(tmp_path: Path) -> None:
    for name, text in FAKE.items():
        file = tmp_path / "litellm" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", LAST]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("litellm\n", "")

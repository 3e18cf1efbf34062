"""When litellm is imported: while a pool starts that needs it, and never for one that does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
USE = """
import asyncio, json, os, sys, threading
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
print(json.dumps(begun), flush=True)
os._exit(0)  # nobody waits for the import
"""


def test_it_is_imported_while_a_pool_starts_that_needs_it(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [False, True]

"""No file descriptor left: the pool says so, keeps running, loses nothing, and goes on when there are some again."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import aiohttp
import psutil
import pytest
from llm_server import LLMServer, Reply
from serving import Serve, free_port, post, until

MANIFEST = """
server: false
limits: {{circuit_s: 0.5}}
agents:
  a:
    model: openai/test-model
    concurrency: 20
    redelivery: {{attempts: 1000, backoff_s: 0.1, max_backoff_s: 0.5}}
    triggers: [{{type: webhook, name: hook, port: {port}}}]
    sinks: [{{type: file, path: "out/{{{{ event.data.n }}}}.txt"}}]
"""


@pytest.mark.timeout(180)
async def test_without_descriptors_events_wait_and_end(tmp_path: Path) -> None:
    port, accepted = free_port(), set[str]()
    (tmp_path / "agents.yml").write_text(MANIFEST.format(port=port))
    url = f"http://127.0.0.1:{port}/webhook"
    async with LLMServer(lambda request: Reply("ok")) as server:
        env = {"OPENAI_BASE_URL": server.openai_url, "OPENAI_API_KEY": "test"}
        # Longer than litellm takes to be imported on a busy machine: a new connection would not be accepted.
        connector = aiohttp.TCPConnector(keepalive_timeout=70)
        async with Serve(tmp_path, env=env) as serve, aiohttp.ClientSession(connector=connector) as kept:
            status, body = await post(kept, url, {"n": 0})
            assert status == 202
            accepted.add(body["event_id"])
            await until(lambda: len(serve.events) == 1, "the first event", 60)
            process = psutil.Process(serve.pid)
            before = process.rlimit(psutil.RLIMIT_NOFILE)
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), before[1]))
            # The connection that is there already can still bring events; their sinks cannot open a file.
            for number in range(1, 6):
                status, body = await post(kept, url, {"n": number})
                assert status in {202, 503}
                if status == 202:
                    accepted.add(body["event_id"])
            async with aiohttp.ClientSession() as fresh:
                knocking = asyncio.create_task(fresh.post(url, json={"n": 6}, timeout=aiohttp.ClientTimeout(total=90)))
                await until(lambda: any("Too many open files" in line for line in serve.errors), "the reason", 60)
                assert serve.running
                process.rlimit(psutil.RLIMIT_NOFILE, before)
                with contextlib.suppress(aiohttp.ClientError):
                    accepted.add((await (await knocking).json())["event_id"])
            for number in range(7, 10):
                status, body = await post(kept, url, {"n": number})
                assert status == 202
                accepted.add(body["event_id"])
            await until(lambda: {event["id"] for event in serve.events} == accepted, "every event", 90)
            assert {event["status"] for event in serve.events} == {"done"}
            assert not any("Traceback" in line for line in serve.errors), "\n".join(serve.errors)
            refused = [line for line in serve.errors if "ulimit" in line]
            assert len(refused) == len(set(refused)), "more than one line a second"
        assert len(list((tmp_path / "out").iterdir())) == len(accepted)

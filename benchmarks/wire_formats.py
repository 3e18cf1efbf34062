"""What a model call costs in each wire format: a bare aiohttp client, our way, and `litellm.acompletion`.

    python benchmarks/wire_formats.py [--calls 300] [--rounds 5] [--at-once 20]

The server answers at once, in a process of its own. Printed are medians over the rounds of the CPU time of one whole
answer, and of its ratio to the bare client's in the same round. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
from typing import Any

from model_call import REQUEST, TEXT, Bare, Server, cpu_ms
from pydantic import SecretStr

from llmling.manifest.models import LiteLLMModelConfig
from llmling.models import acompletion
from llmling.models.call import Call
from llmling.models.clients import close_clients
from llmling.models.litellm import LiteLLMModel
from llmling.models.loading import load
from llmling.models.route import access_of, route_of

BEDROCK = "bedrock/anthropic.claude-haiku-4-5-20251001-v1:0"
NAMES = (
    "openai/gpt-4o-mini", "azure/gpt-4o-mini", "ollama/llama3.2", "gemini/gemini-2.5-flash",
    "anthropic/claude-sonnet-4-5", BEDROCK, f"signed {BEDROCK}",
)  # fmt: skip
BODIES: dict[bytes, dict[str, Any]] = {
    b":generateContent": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": TEXT}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 120, "candidatesTokenCount": 80, "totalTokenCount": 200},
    },
    b"/v1/messages": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": TEXT}], "usage": {"input_tokens": 120, "output_tokens": 80},
    },
    b"/converse": {
        "output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}}, "stopReason": "end_turn",
        "usage": {"inputTokens": 120, "outputTokens": 80, "totalTokens": 200}, "metrics": {"latencyMs": 1},
    },
    b"/api/chat": {
        "model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": TEXT},
        "done": True, "done_reason": "stop", "prompt_eval_count": 120, "eval_count": 80,
    },
}  # fmt: skip
"""Part of a path, with the answer to it; to all others OpenAI's."""


class Formats(Server):
    """Answers in the format that the path asks for."""

    def data_received(self, data: bytes) -> None:
        if not self.buffer:
            self.WHOLE = next((raw for part, raw in RAW.items() if part in data.partition(b"\r\n")[0]), Server.WHOLE)
        super().data_received(data)


def _raw(body: dict[str, Any]) -> bytes:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)


RAW = {part: _raw(body) for part, body in BODIES.items()}


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Formats, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def config_of(name: str, url: str) -> LiteLLMModelConfig:
    """Return a model at an address; without a key where requests are signed."""
    os.environ.update(AWS_REGION_NAME="us-east-1", AZURE_API_VERSION="2024-10-21")
    if name.startswith("signed "):
        os.environ.update(AWS_BEDROCK_RUNTIME_ENDPOINT=url, AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench")
        return LiteLLMModelConfig(name=name.removeprefix("signed "))
    base = f"{url}/v1" if name.startswith("openai") else url
    return LiteLLMModelConfig(name=name, api_base=base, api_key=SecretStr("bench-0123456789"))


async def measure(url: str, arguments: argparse.Namespace) -> None:
    litellm, bare = await load(), Bare(f"{url}/v1")
    print(f"{'':55} {'bare':>8} {'llmling':>8} {'acompletion':>11}   ms CPU, and the ratios to bare")
    for name in NAMES:
        config = config_of(name, url)
        model, route = LiteLLMModel(config), route_of(litellm, config)

        async def ours(model: LiteLLMModel = model) -> None:
            assert (await model.request(REQUEST)).message.text == TEXT

        async def theirs(config: LiteLLMModelConfig = config, route: Any = route) -> None:
            await acompletion.ask(Call(config, route, access_of(config, os.environ), REQUEST))

        costs: list[tuple[float, float, float]] = []
        for round_ in range(arguments.rounds + 1):
            slow = max(arguments.at_once, arguments.calls // 10)
            cost = (
                await cpu_ms(bare.ask, arguments.calls, arguments.at_once),
                await cpu_ms(ours, arguments.calls, arguments.at_once),
                await cpu_ms(theirs, slow, arguments.at_once),
            )
            if round_:  # nobody counts the first
                costs.append(cost)
        least, own, other = (statistics.median(column) for column in zip(*costs, strict=True))
        ratios = [statistics.median(each[at] / each[0] for each in costs) for at in (1, 2)]
        print(f"{name:55} {least:8.3f} {own:8.3f} {other:11.3f}   {ratios[0]:5.2f} x {ratios[1]:6.1f} x", flush=True)
    await bare.session.close()
    await close_clients()


async def main(arguments: argparse.Namespace) -> None:
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(sys.executable, __file__, "--serve", stdin=pipe, stdout=pipe)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        await measure(f"http://127.0.0.1:{int(await server.stdout.readline())}", arguments)
    finally:
        server.stdin.close()
        await server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    asyncio.run(serve() if chosen.serve else main(chosen))

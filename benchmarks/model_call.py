"""What a model call costs: a bare aiohttp client, our way, and `litellm.acompletion`, side by side in one run.

    python benchmarks/model_call.py [--calls 2000] [--rounds 5] [--at-once 50]

The server answers at once and runs in a process of its own. Printed are medians over the rounds of the CPU time of one
call and of its ratio to the bare client's in the same round, with the lowest and the highest. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp

from llmling.manifest.models import LiteLLMModelConfig
from llmling.messages import Message
from llmling.models import acompletion
from llmling.models.call import Call
from llmling.models.clients import close_clients
from llmling.models.litellm import LiteLLMModel
from llmling.models.loading import load
from llmling.models.route import access_of, route_of
from llmling.protocols import ModelRequest, ModelResponse, ToolSpec

TEXT = "The answer to what was asked, in a sentence of usual length, and one more for good measure. " * 4
USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 80,
    "total_tokens": 200,
    "prompt_tokens_details": {"cached_tokens": 0},
}
FRAME = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o-mini", "service_tier": "default"}
CHUNKS = 200
WORDS = [f"word {number} " for number in range(CHUNKS)]
REQUEST = ModelRequest(
    (Message.system("You answer in one sentence."), Message.user("What is in the file? " * 20)),
    tools=(ToolSpec("read", "Reads a file.", {"type": "object", "properties": {"path": {"type": "string"}}}),),
    settings={"temperature": 0.0, "max_tokens": 500},
)


def whole() -> bytes:
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({**FRAME, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def streamed() -> bytes:
    def event(choices: list[object], **more: object) -> bytes:
        return (
            b"data: %b\n\n"
            % json.dumps({**FRAME, "object": "chat.completion.chunk", "choices": choices, **more}).encode()
        )

    deltas = [{"content": word} for word in WORDS]
    events = [event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    events += [event([{"index": 0, "delta": {}, "finish_reason": "stop"}]), event([], usage=USAGE), b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in events) + b"0\r\n\r\n"


class Server(asyncio.Protocol):
    """Answers every request with what was made beforehand."""

    WHOLE, STREAMED = whole(), streamed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = int(self.buffer.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(self.STREAMED if b'"stream": true' in body or b'"stream":true' in body else self.WHOLE)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


BODY = {
    "model": "gpt-4o-mini",
    "messages": [{"role": message.role, "content": message.text} for message in REQUEST.messages],
    "tools": [{"type": "function", "function": {"name": "read", "parameters": dict(REQUEST.tools[0].parameters)}}],
    **REQUEST.settings,
}


class Bare:
    """As little as there can be: aiohttp, and JSON both ways."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/chat/completions"
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def ask(self) -> None:
        async with self.session.post(self.url, json=BODY, headers={"Authorization": "Bearer k"}) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == TEXT

    async def stream(self) -> None:
        body, count = {**BODY, "stream": True, "stream_options": {"include_usage": True}}, 0
        async with self.session.post(self.url, json=body, headers={"Authorization": "Bearer k"}) as response:
            async for line in response.content:
                if line.startswith(b"data: ") and line != b"data: [DONE]\n":
                    choices = json.loads(line[6:])["choices"]
                    count += bool(choices and choices[0]["delta"].get("content"))
        assert count == CHUNKS


class Ours:
    """A model of llmling, with usage and cost."""

    def __init__(self, config: LiteLLMModelConfig) -> None:
        self.model = LiteLLMModel(config)

    async def ask(self) -> None:
        check(await self.model.request(REQUEST), TEXT)

    async def stream(self) -> None:
        parts = [part async for part in self.model.stream(REQUEST)]
        assert isinstance(parts[-1], ModelResponse)
        check(parts[-1], "".join(WORDS))


class Theirs:
    """The same through `litellm.acompletion`, as every provider goes that is not certified."""

    def __init__(self, config: LiteLLMModelConfig, litellm: object) -> None:
        self.config, self.route = config, route_of(litellm, config)

    def call(self) -> Call:
        return Call(self.config, self.route, access_of(self.config, os.environ), REQUEST)

    async def ask(self) -> None:
        check(await acompletion.ask(self.call()), TEXT)

    async def stream(self) -> None:
        parts = [part async for part in acompletion.stream(self.call())]
        assert isinstance(parts[-1], ModelResponse)
        check(parts[-1], "".join(WORDS))


def check(response: ModelResponse, text: str) -> None:
    assert response.message.text == text
    assert response.usage.input_tokens == 120
    assert response.cost_usd


async def cpu_ms(work: Callable[[], Awaitable[None]], calls: int, at_once: int) -> float:
    numbers = iter(range(calls))

    async def one_after_the_other() -> None:
        for _ in numbers:
            await work()

    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_the_other())
    return (time.process_time() - began) * 1000 / calls


async def measure(url: str, arguments: argparse.Namespace) -> None:
    config = LiteLLMModelConfig(name="openai/gpt-4o-mini", api_base=url)
    bare = Bare(url)
    ways: dict[str, Bare | Ours | Theirs] = {
        "bare aiohttp": bare, "llmling": Ours(config), "litellm.acompletion": Theirs(config, await load()),
    }  # fmt: skip
    for what in ("ask", "stream"):
        calls = arguments.calls // (1 if what == "ask" else 10)
        costs: dict[str, list[float]] = {name: [] for name in ways}
        for round_ in range(arguments.rounds + 1):
            for name, way in ways.items():
                # The slow way makes fewer calls, and nobody counts the first round.
                some = max(arguments.at_once, calls // (10 if isinstance(way, Theirs) else 1))
                cost = await cpu_ms(getattr(way, what), some, arguments.at_once)
                if round_:
                    costs[name].append(cost)
        print("one answer" if what == "ask" else f"one answer, streamed in {CHUNKS} pieces")
        for name, all_ms in costs.items():
            ratios = sorted(ms / least for ms, least in zip(all_ms, costs["bare aiohttp"], strict=True))
            print(
                f"  {name:20} {statistics.median(all_ms):8.3f} ms CPU   {statistics.median(ratios):6.2f} x bare"
                f"   ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )
    await bare.session.close()
    await close_clients()


async def main(arguments: argparse.Namespace) -> None:
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(sys.executable, __file__, "--serve", stdin=pipe, stdout=pipe)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        await measure(f"http://127.0.0.1:{int(await server.stdout.readline())}/v1", arguments)
    finally:
        server.stdin.close()
        await server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    asyncio.run(serve() if chosen.serve else main(chosen))

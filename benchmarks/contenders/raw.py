"""The reference: one aiohttp session, a dict in, a dict out."""

import asyncio
import json
from typing import ClassVar

import aiohttp
from contender import CHECKER, KEY, MODEL, SUMMER, SYSTEM, ask_harbour

TOOL = {
    "type": "function",
    "function": {
        "name": "ask_harbour",
        "description": "Ask the harbour and wait for its answer.",
        "parameters": {"type": "object", "properties": {"i": {"type": "integer"}}, "required": ["i"]},
    },
}


class Contender:
    lacks: ClassVar = {"construct": "it has no agents"}

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/chat/completions"

    async def open(self) -> None:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers)

    async def close(self) -> None:
        await self._session.close()

    async def _post(self, messages, **more):
        data = json.dumps({"model": MODEL, "messages": messages, **more}).encode()
        async with self._session.post(self._url, data=data) as response:
            return json.loads(await response.read())["choices"][0]["message"]

    async def run(self, prompt: str, system: str = SYSTEM) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        return (await self._post(messages))["content"]

    async def tool_run(self, prompt: str) -> str:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
        while calls := (message := await self._post(messages, tools=[TOOL])).get("tool_calls"):
            answers = await asyncio.gather(*[ask_harbour(**json.loads(c["function"]["arguments"])) for c in calls])
            results = [
                {"role": "tool", "tool_call_id": c["id"], "content": a} for c, a in zip(calls, answers, strict=True)
            ]
            messages += [message, *results]
        return message["content"]

    async def chain(self, prompt: str) -> str:
        for system in (SYSTEM, CHECKER, SUMMER):
            prompt = await self.run(prompt, system)
        return prompt

    async def stream(self, prompt: str):
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
        data = json.dumps({"model": MODEL, "messages": messages, "stream": True}).encode()
        async with self._session.post(self._url, data=data) as response:
            rest = b""
            async for piece in response.content.iter_any():
                *events, rest = (rest + piece).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]" and (choices := json.loads(event[6:])["choices"]):
                        yield choices[0]["delta"].get("content") or ""

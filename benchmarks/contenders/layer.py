"""llmling over a bare aiohttp client instead of its own models: what its layer alone costs."""

import json

import aiohttp
from contender import KEY, MODEL, SYSTEM

from llmling import Agent, Message
from llmling.messages import Usage
from llmling.protocols import ModelRequest, ModelResponse


class Bare:
    name = f"openai/{MODEL}"

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/chat/completions"

    async def request(self, request: ModelRequest) -> ModelResponse:
        messages = [{"role": message.role, "content": message.text} for message in request.messages]
        data = json.dumps({"model": MODEL, "messages": messages}).encode()
        async with self.session.post(self._url, data=data) as response:
            answer = json.loads(await response.read())
        usage = answer["usage"]
        return ModelResponse(
            Message.assistant(answer["choices"][0]["message"]["content"]),
            Usage(usage["prompt_tokens"], usage["completion_tokens"], 1),
            MODEL,
            cost_usd=0.0001,
        )

    async def stream(self, request: ModelRequest):
        yield await self.request(request)


class Contender:
    def __init__(self, url: str) -> None:
        self._model = Bare(url)
        self._one = Agent("one", model=self._model, instructions=SYSTEM)

    async def open(self) -> None:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        self._model.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers)

    async def close(self) -> None:
        await self._model.session.close()

    async def run(self, prompt: str) -> str:
        return (await self._one.run(prompt)).response

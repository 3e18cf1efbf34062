"""agent-framework: an agent over OpenAIChatCompletionClient; a sequential workflow of three for the chain."""

from agent_framework import Agent
from agent_framework.openai import OpenAIChatCompletionClient
from agent_framework.orchestrations import SequentialBuilder
from contender import CHECKER, KEY, MODEL, SUMMER, SYSTEM, ask_harbour


class Contender:
    def __init__(self, url: str) -> None:
        self._client = OpenAIChatCompletionClient(MODEL, api_key=KEY, base_url=f"{url}/v1")
        self._one = self._agent("one", SYSTEM)
        self._tooled = self.make(0)
        self._three = [self._agent(name, text) for name, text in zip("abc", (SYSTEM, CHECKER, SUMMER), strict=True)]

    def _agent(self, name: str, text: str, **more) -> Agent:
        return Agent(self._client, text, name=name, **more)

    def make(self, number: int) -> Agent:
        return self._agent(f"agent{number}", SYSTEM, tools=[ask_harbour])

    async def run(self, prompt: str) -> str:
        return (await self._one.run(prompt)).text

    async def tool_run(self, prompt: str) -> str:
        return (await self._tooled.run(prompt)).text

    async def chain(self, prompt: str) -> str:
        # A workflow refuses a second run beside the first, so each chain builds its own.
        result = await SequentialBuilder(participants=self._three).build().run(prompt)
        return result.get_outputs()[-1].text

    async def stream(self, prompt: str):
        async for update in self._one.run(prompt, stream=True):
            if update.text:
                yield update.text

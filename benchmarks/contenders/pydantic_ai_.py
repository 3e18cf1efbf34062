"""pydantic-ai: agents over OpenAIChatModel; code hands over from one to the next."""

from contender import CHECKER, KEY, MODEL, SUMMER, SYSTEM, ask_harbour
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Contender:
    def __init__(self, url: str) -> None:
        self._model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY))
        self._one = Agent(self._model, system_prompt=SYSTEM)
        self._tooled = self.make(0)
        self._chain = [Agent(self._model, system_prompt=text) for text in (SYSTEM, CHECKER, SUMMER)]

    def make(self, number: int) -> Agent:
        return Agent(self._model, name=f"agent{number}", system_prompt=SYSTEM, tools=[ask_harbour])

    async def run(self, prompt: str) -> str:
        return (await self._one.run(prompt)).output

    async def tool_run(self, prompt: str) -> str:
        return (await self._tooled.run(prompt)).output

    async def chain(self, prompt: str) -> str:
        for agent in self._chain:
            prompt = (await agent.run(prompt)).output
        return prompt

    async def stream(self, prompt: str):
        async with self._one.run_stream(prompt) as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                yield text

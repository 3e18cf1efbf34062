"""llmling as it is used: usage, cost and spans on."""

from contender import CHECKER, KEY, MODEL, SUMMER, SYSTEM, ask_harbour

from llmling import Agent


class Contender:
    def __init__(self, url: str) -> None:
        self._model = {"type": "litellm", "name": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": KEY}
        self._one = Agent("one", model=self._model, instructions=SYSTEM)
        self._tooled = self.make(0)
        texts = zip("abc", (SYSTEM, CHECKER, SUMMER), strict=True)
        self._chain = [Agent(name, model=self._model, instructions=text) for name, text in texts]

    def make(self, number: int):
        return Agent(f"agent{number}", model=self._model, instructions=SYSTEM, tools=[ask_harbour])

    async def run(self, prompt: str) -> str:
        return (await self._one.run(prompt)).response

    async def tool_run(self, prompt: str) -> str:
        return (await self._tooled.run(prompt)).response

    async def chain(self, prompt: str) -> str:
        # By code, as the others do it; connections of a pool are measured with the engine.
        for agent in self._chain:
            prompt = (await agent.run(prompt)).response
        return prompt

    async def stream(self, prompt: str):
        async with self._one.run_stream(prompt) as stream:
            async for event in stream:
                yield event.text

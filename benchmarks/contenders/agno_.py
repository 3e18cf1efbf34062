"""agno: an agent over OpenAIChat; a workflow of three steps for the chain."""

from agno.agent import Agent
from agno.models.openai import OpenAIChat
from agno.workflow import Step, Workflow
from contender import CHECKER, KEY, MODEL, SUMMER, SYSTEM, ask_harbour


class Contender:
    def __init__(self, url: str) -> None:
        self._model = OpenAIChat(id=MODEL, base_url=f"{url}/v1", api_key=KEY)
        self._one = self._agent("one", SYSTEM)
        self._tooled = self.make(0)
        agents = [self._agent(name, text) for name, text in zip("abc", (SYSTEM, CHECKER, SUMMER), strict=True)]
        steps = [Step(name=agent.name, agent=agent) for agent in agents]
        self._chain = Workflow(name="chain", steps=steps, telemetry=False)

    def _agent(self, name: str, text: str, **more) -> Agent:
        return Agent(name=name, model=self._model, instructions=text, telemetry=False, **more)

    def make(self, number: int) -> Agent:
        return self._agent(f"agent{number}", SYSTEM, tools=[ask_harbour])

    async def run(self, prompt: str) -> str:
        return (await self._one.arun(prompt)).content

    async def tool_run(self, prompt: str) -> str:
        return (await self._tooled.arun(prompt)).content

    async def chain(self, prompt: str) -> str:
        return (await self._chain.arun(input=prompt)).content

    async def stream(self, prompt: str):
        async for event in self._one.arun(prompt, stream=True):
            if event.event == "RunContent" and event.content:
                yield event.content

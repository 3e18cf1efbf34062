"""crewai: `akickoff`; a sequential crew of three for the chain. Agents hold the state of a run, so each has its own."""

from contender import CHECKER, KEY, MODEL, SUMMER, SYSTEM, ask_harbour
from crewai import LLM, Agent, Crew, Process, Task
from crewai.tools import tool


class Contender:
    def __init__(self, url: str) -> None:
        self._tool = tool("ask_harbour")(ask_harbour)
        self._llm = LLM(model=f"openai/{MODEL}", base_url=f"{url}/v1", api_key=KEY)

    def _agent(self, text: str, *tools) -> Agent:
        return Agent(role="clerk", goal="answer", backstory=text, llm=self._llm, tools=list(tools), verbose=False)

    def make(self, number: int) -> Agent:
        return self._agent(SYSTEM, self._tool)

    async def run(self, prompt: str) -> str:
        return (await self._agent(SYSTEM).akickoff(prompt)).raw

    async def tool_run(self, prompt: str) -> str:
        return (await self._agent(SYSTEM, self._tool).akickoff(prompt)).raw

    async def chain(self, prompt: str) -> str:
        agents = [self._agent(text) for text in (SYSTEM, CHECKER, SUMMER)]
        tasks = [Task(description=prompt, expected_output="a sentence", agent=agent) for agent in agents]
        return (await Crew(agents=agents, tasks=tasks, process=Process.sequential, verbose=False).akickoff()).raw

    async def stream(self, prompt: str):
        agent = self._agent(SYSTEM)
        task = Task(description=prompt, expected_output="a sentence", agent=agent)
        async for chunk in await Crew(agents=[agent], tasks=[task], stream=True, verbose=False).akickoff():
            if chunk.content:
                yield chunk.content

"""autogen: `AssistantAgent`s, a graph of three for the chain. They keep what was said, so each run has its own."""

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow
from autogen_ext.models.openai import OpenAIChatCompletionClient
from contender import CHECKER, KEY, MODEL, SUMMER, SYSTEM, ask_harbour


class Contender:
    def __init__(self, url: str) -> None:
        self._model = OpenAIChatCompletionClient(model=MODEL, base_url=f"{url}/v1", api_key=KEY)

    def _agent(self, name: str, text: str, **more) -> AssistantAgent:
        return AssistantAgent(name, self._model, system_message=text, **more)

    def make(self, number: int) -> AssistantAgent:
        return self._agent(f"agent{number}", SYSTEM, tools=[ask_harbour], max_tool_iterations=10)

    async def run(self, prompt: str) -> str:
        return (await self._agent("one", SYSTEM).run(task=prompt)).messages[-1].content

    async def tool_run(self, prompt: str) -> str:
        return (await self.make(0).run(task=prompt)).messages[-1].content

    async def chain(self, prompt: str) -> str:
        agents = [self._agent(name, text) for name, text in zip("abc", (SYSTEM, CHECKER, SUMMER), strict=True)]
        graph = DiGraphBuilder()
        for agent in agents:
            graph.add_node(agent)
        graph.add_edge(agents[0], agents[1]).add_edge(agents[1], agents[2])
        result = await GraphFlow(agents, graph=graph.build()).run(task=prompt)
        return next(message.content for message in reversed(result.messages) if message.source == "c")

    async def stream(self, prompt: str):
        async for event in self._agent("one", SYSTEM, model_client_stream=True).run_stream(task=prompt):
            if isinstance(event, ModelClientStreamingChunkEvent):
                yield event.content

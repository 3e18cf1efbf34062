"""openai-agents: Runner over OpenAIChatCompletionsModel; code hands over from one to the next."""

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool
from contender import CHECKER, KEY, MODEL, SUMMER, SYSTEM, ask_harbour
from openai import AsyncOpenAI


class Contender:
    def __init__(self, url: str) -> None:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY)
        self._model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
        self._one = Agent(name="one", instructions=SYSTEM, model=self._model)
        self._tooled = self.make(0)
        texts = zip("abc", (SYSTEM, CHECKER, SUMMER), strict=True)
        self._chain = [Agent(name=name, instructions=text, model=self._model) for name, text in texts]

    def make(self, number: int) -> Agent:
        tools = [function_tool(ask_harbour)]
        return Agent(name=f"agent{number}", instructions=SYSTEM, model=self._model, tools=tools)

    async def run(self, prompt: str) -> str:
        return (await Runner.run(self._one, prompt)).final_output

    async def tool_run(self, prompt: str) -> str:
        return (await Runner.run(self._tooled, prompt)).final_output

    async def chain(self, prompt: str) -> str:
        for agent in self._chain:
            prompt = (await Runner.run(agent, prompt)).final_output
        return prompt

    async def stream(self, prompt: str):
        async for event in Runner.run_streamed(self._one, prompt).stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                yield event.data.delta

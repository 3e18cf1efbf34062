"""langgraph with langchain-openai: the prebuilt agent; one graph of three nodes for the chain."""

from typing import TypedDict

from contender import CHECKER, KEY, MODEL, SUMMER, SYSTEM, ask_harbour
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import create_react_agent


class State(TypedDict):
    text: str


class Contender:
    def __init__(self, url: str) -> None:
        self._model = ChatOpenAI(model=MODEL, base_url=f"{url}/v1", api_key=KEY)
        self._one = create_react_agent(self._model, [], prompt=SYSTEM)
        self._tooled = self.make(0)
        graph, before = StateGraph(State), START
        for name, text in zip("abc", (SYSTEM, CHECKER, SUMMER), strict=True):
            graph.add_node(name, self._node(text))
            graph.add_edge(before, name)
            before = name
        graph.add_edge(before, END)
        self._chain = graph.compile()

    def _node(self, system: str):
        async def node(state: State) -> State:
            answer = await self._model.ainvoke([SystemMessage(system), HumanMessage(state["text"])])
            return {"text": answer.content}

        return node

    def make(self, number: int):
        return create_react_agent(self._model, [ask_harbour], prompt=SYSTEM, name=f"agent{number}")

    async def run(self, prompt: str) -> str:
        return (await self._one.ainvoke({"messages": [HumanMessage(prompt)]}))["messages"][-1].content

    async def tool_run(self, prompt: str) -> str:
        return (await self._tooled.ainvoke({"messages": [HumanMessage(prompt)]}))["messages"][-1].content

    async def chain(self, prompt: str) -> str:
        return (await self._chain.ainvoke({"text": prompt}))["text"]

    async def stream(self, prompt: str):
        async for message, _ in self._one.astream({"messages": [HumanMessage(prompt)]}, stream_mode="messages"):
            if message.content:
                yield message.content

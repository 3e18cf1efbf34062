"""`llmling run`: one run of one agent, its answer on standard output."""

from __future__ import annotations

import asyncio

from llmling.errors import StartupError
from llmling.manifest import Manifest
from llmling.messages import RunResult
from llmling.pool import AgentPool
from llmling_cli import console


def run(
    manifest: Manifest, agent: str, prompt: str, *, model: str | None, json: bool, stream: bool, debug: bool
) -> int:
    """Run an agent or team once, its connections included, print its answer and return the exit code.

    Raises:
        StartupError: There is no such agent, or it could not be started.
        RunError: The run failed.
    """
    if agent not in manifest.nodes:
        raise StartupError(f"no agent {agent!r} in the manifest; agents: {', '.join(manifest.nodes)}", usage=True)
    console.log_to_stderr("text", debug=debug)
    return asyncio.run(_run(manifest, agent, prompt, model, json=json, stream=stream))


async def _run(manifest: Manifest, name: str, prompt: str, model: str | None, *, json: bool, stream: bool) -> int:
    async with AgentPool[None](manifest, triggers=False, model=model) as pool:
        for notice in pool.report.notices:
            console.complain(f"! {notice}", "yellow")
        # The process ends with this run, so what it sets off downstream is waited for.
        if stream and name in pool.agents:
            async with pool.get_agent(name).run_stream(prompt, wait_for_connections=True) as events:
                async for event in events:
                    if json:
                        console.say_json(event.to_dict())
                    elif event.text:
                        console.write(event.text)
            result = events.result
            if not json:
                console.say()
        else:
            result = await pool.nodes[name].run(prompt, wait_for_connections=True)
            if not json:
                console.say(result.response)
        if json:
            console.say_json(_facts(result))
        for failure in pool.failures:
            console.complain(f"! {failure}", "yellow")
    return 0


def _facts(result: RunResult) -> dict[str, object]:
    return {
        "content": result.content,
        "model": result.model,
        "usage": result.usage.to_dict(),
        "cost_usd": result.cost_usd,
        "latency_s": round(result.latency_s, 3),
        "run_id": result.run_id,
    }

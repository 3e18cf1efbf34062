"""`llmling run`: one run of one agent, its answer on standard output."""

from __future__ import annotations

import asyncio
import logging
from json import dumps as json_text

from pydantic_core import to_jsonable_python

from llmling.errors import StartupError
from llmling.manifest import Manifest
from llmling.messages import RunResult
from llmling.pool import AgentPool
from llmling_cli import console, logs
from llmling_cli.person import attending


def run(
    manifest: Manifest,
    agent: str,
    prompt: str,
    *,
    model: str | None,
    record: str | None,
    json: bool,
    stream: bool,
    debug: bool,
) -> int:
    """Run an agent or team once, its connections included, print its answer and return the exit code.

    Raises:
        StartupError: There is no such agent, or it could not be started.
        RunError: The run failed.
    """
    if agent not in manifest.nodes:
        raise StartupError(f"no agent {agent!r} in the manifest; agents: {', '.join(manifest.nodes)}", usage=True)
    logs.log_to_stderr("text", debug=debug)
    # The notice of the report says it, once.
    logging.getLogger("llmling.models.auto").setLevel(logging.ERROR)
    pool = AgentPool[None](manifest, triggers=False, model=model, record=record, **attending())
    return asyncio.run(_run(pool, agent, prompt, json=json, stream=stream))


async def _run(pool: AgentPool[None], name: str, prompt: str, *, json: bool, stream: bool) -> int:
    async with pool:
        for notice in pool.report.notices:
            console.complain(f"! {notice}", "yellow")
        # The process ends with this run, so what it sets off downstream is waited for.
        # The texts of a team's members run into each other; as events they have their names.
        if stream and (json or name in pool.agents):
            asked = pool.agents.get(name) or pool.get_team(name)
            async with asked.run_stream(prompt, wait_for_connections=True) as events:
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
                console.say(_text(result))
        if json:
            # Among the events of a stream it needs a type too.
            console.say_json({**({"type": "result"} if stream else {}), **_facts(result)})
    return 0


def _text(result: RunResult) -> str:
    if isinstance(result.content, str):
        return result.response
    # A structured answer without the words and fences a model may have put around it.
    return json_text(to_jsonable_python(result.content), indent=2, ensure_ascii=False)


def _facts(result: RunResult) -> dict[str, object]:
    return {
        "content": to_jsonable_python(result.content),
        "model": result.model,
        "usage": result.usage.to_dict(),
        "cost_usd": result.cost_usd,
        "latency_s": round(result.latency_s, 3),
        "run_id": result.run_id,
    }

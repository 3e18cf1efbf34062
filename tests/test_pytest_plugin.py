"""The plugin as its users have it: pools in tests of every asyncio mode, and the switch for real models."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_structure import loaded_by

from llmling import plugins

pytest_plugins = ("pytester",)

MANIFEST = """\
agents:
  reader:
    model: openai/gpt-4o-mini
    triggers: [{type: file, name: inbox, paths: [in]}]
    connections: [editor]
  editor: {model: openai/gpt-4o-mini, sinks: [{type: file, path: out.txt}]}
"""
TAPE = """\
version: 1
exchanges:
  - agent: reader
    request: {messages: [{role: user, text: "File added: in/a.md\\n\\nIt rains."}]}
    replies: [{model: openai/gpt-4o-mini, answer: {text: Rain., cost_usd: 0.25}}]
  - agent: editor
    request: {messages: [{role: user, text: Rain.}]}
    replies: [{model: openai/gpt-4o-mini, answer: {text: Take a coat., cost_usd: 0.5}}]
"""


@pytest.fixture(scope="module", autouse=True)
def everything_loaded() -> None:
    """Import what pools need here, since each inner run forgets what it has imported itself."""
    for path in (plugins.POOL, "llmling.testing:fire", "llmling.prompts.context:Context"):
        plugins.load(path)
    for parts in plugins.TABLE.values():
        for part in parts.values():
            plugins.load(part.live)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a pool, a cassette, and a key that no test may use."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-used")
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    files = {"agents.yml": MANIFEST, "tapes/rain.yml": TAPE, "in/a.md": "It rains."}
    for name, text in files.items():
        path = pytester.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return pytester.path


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(test)
    asyncio = () if "no:asyncio" in options else ("-o", "asyncio_default_fixture_loop_scope=function")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *asyncio, *options)


CHAIN = """\
import pytest
from llmling.testing import fire

{mark}
async def test_chain(llmling_pool):
    async with llmling_pool("agents.yml", cassette="tapes/rain.yml") as pool:
        record = await fire(pool, "inbox", file="in/a.md", timeout_s=60)
    assert (record.status, record.content, record.cost_usd) == ("done", "Rain.", 0.75)
"""


@pytest.mark.parametrize(
    ("mode", "mark"),
    [("auto", ""), ("strict", "@pytest.mark.asyncio"), ("strict", "@pytest.mark.asyncio(loop_scope='module')")],
)
def test_a_pool_in_a_test_of_any_asyncio_mode(pytester: pytest.Pytester, project: Path, mode: str, mark: str) -> None:
    result = run(pytester, CHAIN.format(mark=mark), "-o", f"asyncio_mode={mode}", "-W", "error")
    result.assert_outcomes(passed=1)
    assert (project / "out.txt").read_text() == "Take a coat.\n"
    assert not (project / ".llmling").exists(), "events stay in the test's own folder"


def test_a_pool_without_a_plugin_for_asyncio(pytester: pytest.Pytester, project: Path) -> None:
    test = """\
    import asyncio

    def test_pools(llmling_pool, tmp_path):
        async def main():
            async with llmling_pool("agents: {a: {model: demo}}\\n") as pool:
                assert "[demo]" in (await pool.get_agent("a").run("Hi.")).content
                assert pool.manifest.folder == tmp_path
            async with llmling_pool({"agents": {"a": {"model": "demo"}}}) as pool:
                assert "[demo]" in (await pool.get_agent("a").run("Hi.")).content
            async with llmling_pool("agents.yml", model="demo", arm=True) as pool:
                assert [trigger.name for trigger in pool.report.triggers] == ["inbox"]
                async with llmling_pool("agents.yml", model="demo") as other:
                    assert (other.report.triggers, other.engine is not None) == ((), True)

        asyncio.run(main())
    """
    run(pytester, test, "-p", "no:asyncio", "-o", "llmling_allow_real_models=false").assert_outcomes(passed=1)


REAL = """\
import asyncio
import pytest
from llmling import Agent, AgentPool, Context, Directive
from llmling.errors import NotAsked

AGENT = "agent 'writer' would ask openai/gpt-4o-mini for real, and this test forbids it: give it .*replay:cassette"

def refused():
    agents = {"writer": {"model": {"type": "fallback", "models": ["openai/gpt-4o-mini", "demo"]}}, "auto": {}}

    async def main():
        with pytest.raises(NotAsked, match=AGENT):
            await Agent("writer", model="openai/gpt-4o-mini").run("Hi.")
        with pytest.raises(NotAsked, match="would ask openai/gpt-4o"):
            await Context(directive=Directive("Hi.")).aexecute(model="openai/gpt-4o")
        async with AgentPool({"agents": agents}) as pool:
            with pytest.raises(NotAsked, match=AGENT):
                await pool.get_agent("writer").run("Hi.")
            with pytest.raises(NotAsked, match=AGENT):
                async with pool.get_agent("writer").run_stream("Hi.") as events:
                    [event async for event in events]
            with pytest.raises(NotAsked, match="agent 'auto' would ask"):
                await pool.get_agent("auto").run("Hi.")
            assert "[demo]" in (await Agent("a", model="demo").run("Hi.")).content

    asyncio.run(main())
"""


def test_no_test_asks_a_real_model_unless_it_is_marked(pytester: pytest.Pytester, project: Path) -> None:
    test = f"""{REAL}
from llmling.runtime.real_models import refusing

def test_refused():
    refused()

@pytest.mark.llmling_real_models
def test_allowed():
    assert not refusing()

@pytest.mark.llmling_real_models(allow=False)
def test_forbidden():
    assert refusing()
"""
    run(pytester, test, "-o", "llmling_allow_real_models=false", "--strict-markers").assert_outcomes(passed=3)


def test_without_the_ini_option_only_a_test_that_asks_for_it_is_held_back(
    pytester: pytest.Pytester, project: Path
) -> None:
    test = f"""{REAL}
from llmling.runtime.real_models import refusing

def test_allowed():
    assert not refusing()

def test_refused(no_real_models):
    refused()

@pytest.mark.llmling_real_models(False)
def test_forbidden():
    assert refusing()
"""
    run(pytester, test, "-p", "no:asyncio").assert_outcomes(passed=3)


def test_a_pool_without_a_key_starts_and_only_asking_is_an_error(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    test = """\
    from llmling.testing import fire

    async def test_it(llmling_pool, no_real_models):
        async with llmling_pool("agents.yml") as pool:
            record = await fire(pool, "inbox", file="in/a.md", timeout_s=60)
        assert record.status == "dead"
        assert "agent 'reader' would ask openai/gpt-4o-mini for real" in record.error
    """
    run(pytester, test, "-o", "asyncio_mode=auto").assert_outcomes(passed=1)


def test_cassettes_are_recorded_anew_by_an_option(pytester: pytest.Pytester, project: Path) -> None:
    (project / "agents.yml").write_text("agents: {a: {model: demo}}")
    test = """\
    async def test_it(llmling_pool):
        async with llmling_pool("agents.yml", cassette="new/demo.yml") as pool:
            result = await pool.get_agent("a").run("Is it new?")
        assert "Is it new?" in result.content
    """
    auto = ("-o", "asyncio_mode=auto")
    result = run(pytester, test, *auto)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*StartupError: cassette *demo.yml: No such file or directory; record it with --record*"]
    )
    run(pytester, test, *auto, "--llmling-record").assert_outcomes(passed=1)
    assert "text: Is it new?" in (project / "new/demo.yml").read_text()
    run(pytester, test, *auto).assert_outcomes(passed=1)


def test_a_cassette_stands_for_model_and_record(pytester: pytest.Pytester, project: Path) -> None:
    test = """\
    import pytest

    async def test_it(llmling_pool):
        with pytest.raises(ValueError, match="cassette= stands for model= and record="):
            async with llmling_pool("agents.yml", cassette="tapes/rain.yml", model="demo"):
                pass
    """
    run(pytester, test, "-o", "asyncio_mode=auto").assert_outcomes(passed=1)


def test_the_plugin_loads_nothing_heavy() -> None:
    assert loaded_by("import llmling.pytest_plugin") == set()

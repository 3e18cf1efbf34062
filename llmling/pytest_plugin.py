"""The pytest plugin: pools for tests, and a switch that lets no test ask a real model.

It is installed with llmling and changes nothing until a test asks for it or an ini option is set. Nothing heavy is
imported before a test that needs it runs.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest

from llmling import plugins
from llmling.runtime.real_models import no_real_models as refused

if TYPE_CHECKING:
    from llmling.manifest import Manifest
    from llmling.pool import AgentPool

INI = "llmling_allow_real_models"
MARKER = "llmling_real_models"
RECORD = "--llmling-record"


class PoolFactory(Protocol):
    """What the fixture `llmling_pool` is."""

    def __call__(
        self,
        manifest: str | Path | Mapping[str, Any],
        *,
        cassette: str | Path | None = None,
        arm: bool = False,
        **options: Any,
    ) -> AbstractAsyncContextManager[AgentPool[Any]]:
        """Return the pool of a manifest, to be entered in the test with `async with`.

        `manifest` is a path, relative to the test's file, a mapping, or YAML text (anything with a line break);
        the last two get a fresh folder. `cassette` is a path relative to the test's file: every model answers from it,
        or is recorded in it when pytest runs with `--llmling-record`. Triggers are only armed with `arm`; without it
        `llmling.testing.fire` sends events through them. `options` are those of `AgentPool`.
        """
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini option."""
    parser.getgroup("llmling").addoption(
        RECORD, action="store_true", help="Ask real models and record the cassettes of llmling_pool anew."
    )
    parser.addini(INI, "Whether tests may ask real models; false: only those marked with it may.", "bool", default=True)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", f"{MARKER}(allow=True): whether this test may ask real models.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Refuse real models around a test and its fixtures, when its marker or else the ini option says so."""
    marker = item.get_closest_marker(MARKER)
    if marker is None:
        allowed = bool(item.config.getini(INI))
    else:
        allowed = bool(marker.kwargs.get("allow", marker.args[0] if marker.args else True))
    with ExitStack() as stack:
        if not allowed:
            stack.enter_context(refused())
        return (yield)


@pytest.fixture
def no_real_models() -> Generator[None]:
    """Let no model be asked for real during this test."""
    with refused():
        yield


@pytest.fixture
def llmling_pool(request: pytest.FixtureRequest, tmp_path: Path) -> PoolFactory:
    """Return a factory of pools; see `PoolFactory`.

    Its pools are entered by the test itself, so it needs no event loop and works with every plugin that runs tests
    in one. Their events are kept in the test's temporary folder.
    """
    here = request.path.parent
    recording = bool(request.config.getoption(RECORD))
    numbers = itertools.count(1)

    @asynccontextmanager
    async def opened(
        manifest: str | Path | Mapping[str, Any],
        *,
        cassette: str | Path | None = None,
        arm: bool = False,
        **options: Any,
    ) -> AsyncGenerator[AgentPool[Any]]:
        known = _isolated(manifest, here, tmp_path, f"llmling-events-{next(numbers)}")
        if cassette is not None:
            options |= _taped(here / cassette, known.folder, options, recording=recording)
        kind: type[AgentPool[Any]] = plugins.load(plugins.POOL)
        with ExitStack() as stack:
            if cassette is not None and recording:
                stack.enter_context(refused(refuse=False))
            pool = kind(known, **options)
            pool.arm = arm
            async with pool:
                yield pool

    return opened


def _taped(cassette: Path, folder: Path, options: Mapping[str, Any], *, recording: bool) -> dict[str, str]:
    """Return the options of a pool that records a cassette, or answers from it."""
    if "model" in options or "record" in options:
        raise ValueError("cassette= stands for model= and record=: give either it or them")
    path = os.path.relpath(cassette, folder)
    if recording:
        cassette.parent.mkdir(parents=True, exist_ok=True)
    return {"record": path} if recording else {"model": f"replay:{path}"}


def _isolated(source: str | Path | Mapping[str, Any], here: Path, scratch: Path, events: str) -> Manifest:
    """Return a manifest whose events are kept in a folder of their own, `events`."""
    path = scratch / "agents.yml"
    if isinstance(source, Mapping):
        path.write_text(json.dumps(source, indent=2, ensure_ascii=False, default=_plain), encoding="utf-8")
    elif isinstance(source, str) and "\n" in source:
        path.write_text(source, encoding="utf-8")
    else:
        path = here / source
    manifest: Manifest = plugins.load("llmling.manifest:load")(path)
    if manifest.engine.type == "sqlite":
        engine = manifest.engine.model_copy(update={"path": str(scratch / events / "pool.db")})
        manifest = manifest.model_copy(update={"engine": engine})
    return manifest


def _plain(value: Any) -> Any:
    return dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else str(value)

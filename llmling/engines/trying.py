"""An engine whose store could not be written is tried again, whether events come or not."""

from __future__ import annotations

import asyncio
import contextlib
import time

from llmling.errors import EngineError
from llmling.protocols import Engine

TRY_S = 2.0


async def keep_trying(engine: Engine) -> None:
    """Write to the store now and then while it has a fault, until cancelled."""
    # Whoever looks at `/readyz` may send nothing while it says no, so the pool tries by itself.
    while True:
        await asyncio.sleep(TRY_S)
        if engine.fault:
            with contextlib.suppress(EngineError):
                await engine.store.put("llmling", {"tried": time.time()})

"""A wire between one process and its server that can go dead without closing anything."""

from __future__ import annotations

import asyncio
import contextlib


class Wire:
    """Stands between one process and the server; what is sent while it is cut arrives once it is mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self.mend()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Wire:
        await self.plug()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unplug()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    def cut(self) -> None:
        self._there.clear()
        self._back.clear()

    def deafen(self) -> None:
        """Hold what the server answers; what the process says still arrives."""
        self._back.clear()

    def mend(self) -> None:
        self._there.set()
        self._back.set()

    async def plug(self) -> None:
        """Take connections, at the same place as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def unplug(self) -> None:
        """Close all connections, and refuse others."""
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ways: list[asyncio.Task[None]] = []
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(back)
            ways = [
                asyncio.create_task(self._pass(reader, back, self._there)),
                asyncio.create_task(self._pass(there, writer, self._back)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            # The server is away.
            return
        finally:
            self._tasks.discard(task)
            for way in ways:
                way.cancel()
            for end in ends:
                end.close()
            for end in ends:
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await open_.wait()
                writer.write(data)
                await writer.drain()

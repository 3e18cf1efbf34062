"""The connection to NATS: requests that say plainly when nobody answers, and the calls of JetStream's interface."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from llmling.errors import EngineError

log = logging.getLogger("llmling.engine")
T = TypeVar("T")

# A request lost when a server is killed must not hold the rest for long.
REQUEST_S = 3.0
_CONNECT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_SCAN_BATCH = 500
_WRONG_LAST = {10071, 10164}
_NO_MESSAGE = 10037
# Calls are only heard with somewhere to answer to.
_NOBODY = "llmling.nobody"
# Of a deletion: no message found, or a place that is empty already.
_NOT_THERE = {10037, 10043, 10057}


class Unreachable(EngineError):
    """NATS did not answer; whether it has done what it was asked for is not known."""


class Conflict(Exception):
    """Somebody else was first."""


class Link:
    """One connection of this process. It connects again by itself; `fault` says why it cannot right now."""

    def __init__(self, servers: Sequence[str]) -> None:
        self.servers = tuple(servers)
        self._client: Any = None
        self._nats: Any = None
        self._up = asyncio.Event()
        self._closed = False
        self._fault: str | None = None
        self._up_since = math.inf
        self._back: list[Callable[[], None]] = []

    @property
    def fault(self) -> str | None:
        """Why NATS cannot be reached, None when it can."""
        return self._fault

    @property
    def closed(self) -> bool:
        """Whether it is closed for good."""
        return self._closed

    @property
    def up_since(self) -> float:
        """When the connection was made, on the steady clock; infinite while there is none."""
        return self._up_since

    def on_return(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the connection has come back."""
        self._back.append(listener)

    async def open(self) -> None:
        """Connect.

        Raises:
            EngineError: The package is missing, or no server answers.
        """
        try:
            import nats  # noqa: PLC0415 - the named optional dependency
            import nats.errors  # noqa: PLC0415 # pyright: ignore[reportUnusedImport]
        except ImportError as error:
            raise EngineError("engine: type nats needs a package: pip install 'llmling[nats]'") from error
        library: Any = nats
        self._nats = library
        try:
            async with asyncio.timeout(_CONNECT_S):
                self._client = await library.connect(
                    servers=list(self.servers),
                    no_echo=True,
                    allow_reconnect=True,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.2,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_loss,
                    reconnected_cb=self._on_return,
                    closed_cb=self._on_loss,
                )
        except (TimeoutError, OSError, library.errors.Error) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(
                f"no NATS server answers at {', '.join(self.servers)} ({reason}); start one with `nats-server -js`, "
                "or change `engine.servers`"
            ) from error
        # Now that one has answered: for as long as it takes.
        self._client.options["max_reconnect_attempts"] = -1
        self._up_since = time.monotonic()
        self._up.set()

    async def close(self) -> None:
        """Send what is buffered and disconnect."""
        if self._closed:
            return
        self._closed = True
        self._up.set()
        if self._client is not None:
            try:
                async with asyncio.timeout(REQUEST_S):
                    if self._client.is_connected:
                        await self._client.flush(timeout=1)
                    await self._client.close()
            except (TimeoutError, OSError, self._nats.errors.Error) as error:
                log.warning("the connection to NATS did not close in order: %s", error)

    async def _on_error(self, error: Exception) -> None:
        log.debug("NATS: %r", error)

    async def _on_loss(self) -> None:
        self._up_since = math.inf
        if not self._closed and self._fault is None:
            self._fault = f"NATS cannot be reached at {', '.join(self.servers)}; it is tried again until it answers"
            self._up.clear()
            log.error("%s", self._fault)

    async def _on_return(self) -> None:
        log.warning("NATS answers again")
        self._fault = None
        self._up_since = time.monotonic()
        self._up.set()
        for listener in self._back:
            listener()

    # --- asking ------------------------------------------------------------------------------------------------------

    async def request(
        self, subject: str, data: bytes = b"", headers: Mapping[str, str] | None = None, timeout_s: float = REQUEST_S
    ) -> Any:
        """Return the answer to a request.

        Raises:
            Unreachable: There was none.
        """
        if self._closed or self._client is None:
            raise EngineError("the engine is stopped" if self._closed else "the engine is not open")
        if not self._client.is_connected:
            raise Unreachable(self._fault or "NATS is not connected")
        try:
            return await self._client.request(subject, data, timeout=timeout_s, headers=headers and dict(headers))
        except self._nats.errors.NoRespondersError as error:
            raise Unreachable("NATS answers, but JetStream does not: start the server with `-js`") from error
        except (self._nats.errors.Error, OSError, TimeoutError) as error:
            raise Unreachable(f"NATS did not answer within {timeout_s:g} s ({type(error).__name__})") from error

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `work`, which is done again and again until NATS answers; it may be done twice.

        Raises:
            EngineError: The connection was closed meanwhile, or the work failed for another reason.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await work()
            except Unreachable:
                if self._closed:
                    raise
            await self._up.wait()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def tell(self, subject: str, data: bytes, reply: str = "") -> None:
        """Publish without an answer; lost when NATS cannot be reached."""
        if self._closed or not self._client.is_connected:
            return
        try:
            await self._client.publish(subject, data, reply=reply)
        except (self._nats.errors.Error, OSError) as error:
            log.debug("NATS: %r", error)

    async def listen(self, subject: str, callback: Callable[[Any], Awaitable[None]]) -> Any:
        """Call `callback` with every message of a subject; returns what `unlisten` takes."""
        if self._closed:
            raise EngineError("the engine is stopped")
        try:
            return await self._client.subscribe(subject, cb=callback)
        except (self._nats.errors.Error, OSError) as error:
            raise Unreachable(f"NATS cannot be asked right now ({type(error).__name__})") from error

    async def unlisten(self, subscription: Any) -> None:
        """Hear nothing more."""
        try:
            await subscription.unsubscribe()
        except (self._nats.errors.Error, OSError) as error:
            log.debug("NATS: %r", error)

    def inbox(self) -> str:
        """Return a subject of one's own for answers."""
        return self._client.new_inbox()

    # --- JetStream ---------------------------------------------------------------------------------------------------

    async def api(self, call: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of a JetStream call, its errors as they are in `error`."""
        data = b"" if body is None else json.dumps(body).encode()
        return json.loads((await self.request(f"$JS.API.{call}", data)).data)

    async def publish(
        self, subject: str, data: bytes, *, last: int | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        """Append to the stream of a subject and return the place; `last` is the one its last message must have.

        Raises:
            Conflict: The last message has another place.
            EngineError: The server refuses; `Unreachable` when it does not answer.
        """
        sent = dict(headers or {})
        if last is not None:
            sent["Nats-Expected-Last-Subject-Sequence"] = str(last)
        answer = json.loads((await self.request(subject, data, sent or None)).data)
        if (error := answer.get("error")) is None:
            return answer["seq"]
        if error.get("err_code") in _WRONG_LAST:
            raise Conflict(error["description"])
        if error.get("code") in {500, 503}:
            raise Unreachable(f"NATS cannot write right now: {error['description']}")
        raise EngineError(f"NATS refuses to write: {error['description']}")

    async def scan(
        self, stream: str, subject: str, *, headers_only: bool = False, after: int | None = None
    ) -> AsyncGenerator[tuple[Any, int]]:
        """Yield the last message of every subject that matches, and its place, in the order of their places.

        With `after`, all messages behind that place.

        A subject that is written meanwhile may come twice, its newer message last.
        """
        name, expected = await self._reader(stream, subject, headers_only=headers_only, after=after)
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        inbox = self.inbox()
        subscription = await self.listen(inbox, arrived.put)
        try:
            while expected:
                wanted = json.dumps({"batch": _SCAN_BATCH, "no_wait": True}).encode()
                await self.tell(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", wanted, reply=inbox)
                for _ in range(_SCAN_BATCH):
                    message = await self._arrival(arrived)
                    status = message.headers and message.headers.get("Status")
                    if status in {"404", "408"}:
                        # Caught up; what was deleted meanwhile never comes.
                        return
                    if status is not None:
                        raise Unreachable("NATS stopped in the middle of an answer")
                    yield message, place_of(message)
                    if message.reply.endswith(".0"):
                        return
        finally:
            await self.unlisten(subscription)
            await self.tell(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"", reply=inbox)

    async def count(self, stream: str, subject: str) -> int:
        """Return how many messages of matching subjects there are."""
        name, count = await self._reader(stream, subject, headers_only=True, after=0)
        await self.tell(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"", reply=self.inbox())
        return count

    async def _reader(self, stream: str, subject: str, *, headers_only: bool, after: int | None) -> tuple[str, int]:
        start: dict[str, Any] = {"deliver_policy": "last_per_subject"}
        if after is not None:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
        config = {
            **start,
            "filter_subject": subject,
            "ack_policy": "none",
            "replay_policy": "instant",
            "headers_only": headers_only,
            "inactive_threshold": 60_000_000_000,
            "num_replicas": 1,
            "mem_storage": True,
        }
        answer = await self.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        if "error" in answer:
            raise Unreachable(f"NATS cannot read right now: {answer['error']['description']}")
        return answer["name"], answer["num_pending"]

    async def _arrival(self, arrived: asyncio.Queue[Any]) -> Any:
        try:
            async with asyncio.timeout(2 * REQUEST_S):
                return await arrived.get()
        except TimeoutError as error:
            raise Unreachable("NATS stopped in the middle of an answer") from error

    async def last(self, stream: str, subject: str) -> tuple[dict[str, Any], int] | None:
        """Return the last message of a subject as JetStream describes it, and its place, or None."""
        return await self._message(stream, {"last_by_subj": subject})

    async def next(self, stream: str, subject: str, after: int) -> tuple[dict[str, Any], int] | None:
        """Return the first message of matching subjects after a place, and its place, or None."""
        return await self._message(stream, {"seq": after + 1, "next_by_subj": subject})

    async def bounds(self, stream: str) -> tuple[int, int]:
        """Return the places of the first and the last message of a stream, as far as the server knows of them."""
        answer = await self.api(f"STREAM.INFO.{stream}")
        if (error := answer.get("error")) is not None:
            raise Unreachable(f"NATS cannot read right now: {error['description']}")
        return answer["state"]["first_seq"], answer["state"]["last_seq"]

    async def holds(self, stream: str, place: int) -> bool:
        """Whether there is a message at a place."""
        return await self._message(stream, {"seq": place}) is not None

    async def _message(self, stream: str, which: Mapping[str, Any]) -> tuple[dict[str, Any], int] | None:
        answer = await self.api(f"STREAM.MSG.GET.{stream}", which)
        if (error := answer.get("error")) is not None:
            if error.get("err_code") == _NO_MESSAGE:
                return None
            raise Unreachable(f"NATS cannot read right now: {error['description']}")
        return answer["message"], answer["message"]["seq"]

    async def delete(self, stream: str, place: int) -> None:
        """Delete one message, if it is still there."""
        answer = await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": place, "no_erase": True})
        if (error := answer.get("error")) is not None and error.get("err_code") not in _NOT_THERE:
            raise Unreachable(f"NATS cannot delete right now: {error['description']}")

    async def drop(self, stream: str, place: int) -> None:
        """Ask for one message to be deleted, whoever hears it; lost when NATS cannot be reached."""
        body = json.dumps({"seq": place, "no_erase": True}).encode()
        await self.tell(f"$JS.API.STREAM.MSG.DELETE.{stream}", body, reply=_NOBODY)

    async def purge(self, stream: str, subject: str) -> None:
        """Delete all messages of matching subjects.

        A consumer of one of them may lose its place (seen with server 2.9.10), so never where one is at work.
        """
        answer = await self.api(f"STREAM.PURGE.{stream}", {"filter": subject})
        if (error := answer.get("error")) is not None:
            raise Unreachable(f"NATS cannot delete right now: {error['description']}")


def place_of(message: Any) -> int:
    """Return the place in its stream of a message that a consumer delivered."""
    tokens = message.reply.split(".")
    return int(tokens[5] if len(tokens) == 9 else tokens[7])


def written_at(message: Any) -> float:
    """Return when a message that a consumer delivered was written, in Unix seconds of the server."""
    tokens = message.reply.split(".")
    return int(tokens[7] if len(tokens) == 9 else tokens[9]) / 1e9

"""Small facts beside the events, in the same bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from llmling.engines import records
from llmling.engines.jetstream.book import Book, Found, digest
from llmling.engines.jetstream.link import Conflict

_SUMS = "_"
_AT_ONCE = 32


class BookStore:
    """The `Store` of an engine; writes are durable on return.

    A value is a record of its own. Numbers that were added to lie together in one record of their space, since
    they change together; a number in there stands before a value of the same key.
    """

    def __init__(self, book: Callable[[], Book]) -> None:
        """`book` gives the open book, or raises when there is none."""
        self._book = book

    async def get(self, space: str, key: str) -> Any:
        """Return the value, or None."""
        sums = await self._sums(space)
        if sums is not None and key in sums.value:
            return sums.value[key]
        found = await self._book().get(_name(space, key))
        return None if found is None else found.value[1]

    async def put(self, space: str, items: Mapping[str, Any]) -> None:
        """Set many values, one after the other.

        Raises:
            EngineError: NATS cannot be reached right now.
        """
        for value in items.values():
            records.encode(value)
        entries = list(items.items())
        for start in range(0, len(entries), _AT_ONCE):
            some = entries[start : start + _AT_ONCE]
            await asyncio.gather(*(self._set(_name(space, key), [key, value]) for key, value in some))
        await self._leave_sums(space, items)

    async def add(
        self, space: str, deltas: Mapping[str, float], *, below: Mapping[str, float] | None = None
    ) -> tuple[bool, dict[str, float]]:
        """Add to numbers in one commit; one that is not there yet is 0.

        With `below` nothing is added unless each number in it is below its bound. Returns whether it was added, and
        the numbers of `deltas` as they are then.

        Raises:
            EngineError: NATS cannot be reached right now.
        """
        bounds = below or {}
        while True:
            sums = await self._sums(space)
            numbers: dict[str, float] = {} if sums is None else dict(sums.value)
            moved: list[str] = []
            for key in {**deltas, **bounds}:
                if key not in numbers and (found := await self._book().get(_name(space, key))) is not None:
                    numbers[key] = found.value[1]
                    moved.append(key)
            if any(numbers.get(key, 0) >= bound for key, bound in bounds.items()):
                return False, {key: numbers.get(key, 0) for key in deltas}
            for key, delta in deltas.items():
                numbers[key] = numbers.get(key, 0) + delta
            try:
                await self._book().write(_name(space, None), numbers, sums, group=_name(space, None))
            except Conflict:
                continue
            for key in moved:
                await self._erase(_name(space, key))
            return True, {key: numbers[key] for key in deltas}

    async def remove(self, space: str, keys: Sequence[str]) -> None:
        """Forget values; unknown keys are no error.

        Raises:
            EngineError: NATS cannot be reached right now.
        """
        for key in keys:
            await self._erase(_name(space, key))
        await self._leave_sums(space, keys)

    async def swap(self, space: str, key: str, old: Any, new: Any) -> bool:
        """Set a value if it is `old` right now, and return whether it was; None stands for no value.

        Raises:
            EngineError: NATS cannot be reached right now.
        """
        records.encode(new)
        sums = await self._sums(space)
        if sums is not None and key in sums.value:
            return await self._swap_sum(space, key, old, new)
        name = _name(space, key)
        found = await self._book().get(name)
        if (None if found is None else found.value[1]) != old:
            return False
        if found is None and new is None:
            return True
        try:
            # A value that is taken away leaves its record, or whoever else swaps it could not be told from a new one.
            await self._book().write(name, [key, new], found, group=name)
        except Conflict:
            return False
        return True

    async def items(self, space: str) -> dict[str, Any]:
        """Return all values of a space."""
        values: dict[str, Any] = {}
        numbers: dict[str, Any] = {}
        async with aclosing(self._book().scan(f"value.{digest(space)}.*")) as found:
            async for name, record in found:
                if name.endswith(f".{_SUMS}"):
                    numbers = record.value
                elif record.value[1] is not None:
                    values[record.value[0]] = record.value[1]
        return {**values, **numbers}

    async def _sums(self, space: str) -> Found | None:
        return await self._book().get(_name(space, None))

    async def _set(self, name: str, value: Any) -> None:
        while True:
            try:
                await self._book().write(name, value, await self._book().get(name), group=name)
                return
            except Conflict:
                continue

    async def _erase(self, name: str) -> None:
        while (found := await self._book().get(name)) is not None:
            await self._book().erase(found)

    async def _leave_sums(self, space: str, keys: Iterable[str]) -> None:
        gone = set(keys)
        while (sums := await self._sums(space)) is not None and gone & sums.value.keys():
            left = {key: number for key, number in sums.value.items() if key not in gone}
            try:
                await self._book().write(_name(space, None), left, sums, group=_name(space, None))
            except Conflict:
                continue

    async def _swap_sum(self, space: str, key: str, old: Any, new: Any) -> bool:
        while (sums := await self._sums(space)) is not None and sums.value.get(key) == old:
            changed = {**sums.value, key: new}
            if new is None:
                del changed[key]
            try:
                await self._book().write(_name(space, None), changed, sums, group=_name(space, None))
                return True
            except Conflict:
                continue
        return False


def _name(space: str, key: str | None) -> str:
    return f"value.{digest(space)}.{_SUMS if key is None else digest(key)}"

"""The order in which the deliveries of one agent start: by priority, then by arrival, and nobody starves."""

from __future__ import annotations

import heapq

from llmling.engines.records import Row

OVERTAKEN = 7


class Line:
    """Deliveries that may start. After seven that went ahead of an older one, the oldest goes first."""

    def __init__(self) -> None:
        # Beside its place its id: the place of one that was forgotten, but is here yet, is given to another.
        self._heaps: dict[int, list[tuple[int, str, Row]]] = {}
        self._ahead = 0

    def __bool__(self) -> bool:
        return bool(self._heaps)

    def count(self, priority: int) -> int:
        """Return how many of a priority there are."""
        return len(self._heaps.get(priority, ()))

    def push(self, row: Row) -> None:
        """Let one wait."""
        heapq.heappush(self._heaps.setdefault(row.delivery.priority, []), (row.seq, row.delivery.id, row))

    def pop(self) -> Row:
        """Take the next one."""
        priority = max(self._heaps)
        if len(self._heaps) > 1:
            oldest = min(self._heaps, key=lambda each: self._heaps[each][0][0])
            if oldest != priority:
                self._ahead += 1
            if self._ahead > OVERTAKEN:
                priority, self._ahead = oldest, 0
        heap = self._heaps[priority]
        row = heapq.heappop(heap)[-1]
        if not heap:
            del self._heaps[priority]
        return row

    def clear(self) -> list[Row]:
        """Let go of all and return them."""
        rows = [row for heap in self._heaps.values() for *_, row in heap]
        self._heaps.clear()
        return rows

"""Opening the engine's file: many may make it at the same moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llmling.engines.schema import VERSION, open_file


def test_a_file_may_be_made_by_many_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(6)

    def make(path: Path) -> int:
        together.wait()
        connection = open_file(path)
        (version,) = connection.execute("pragma user_version").fetchone()
        connection.close()
        return version

    with ThreadPoolExecutor(6) as threads:
        for number in range(60):
            path = tmp_path / f"{number}.db"
            assert list(threads.map(make, [path] * 6)) == [VERSION] * 6

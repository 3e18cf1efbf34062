"""One folder, one process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from trigger_bench import Bench

from llmling.errors import StartupError
from llmling.testing import drop_file, until
from llmling.triggers.folder_lock import FolderBusy, FolderLock

_HOLD = """
import sys
from llmling.triggers.folder_lock import FolderBusy, FolderLock
try:
    lock = FolderLock.take(sys.argv[1])
except FolderBusy:
    print("busy", flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(folder: Path) -> Generator[str]:
    """Hold a folder from another process; gives what became of it."""
    command = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def test_one_process_shares_a_folder_and_others_are_refused(tmp_path: Path) -> None:
    first, second = FolderLock.take(str(tmp_path)), FolderLock.take(str(tmp_path))
    first.release()
    first.release()
    with another_process(tmp_path) as said:
        assert said == "busy"
    second.release()
    with another_process(tmp_path) as said:
        assert said == "held"
        with pytest.raises(FolderBusy):
            FolderLock.take(str(tmp_path))
    FolderLock.take(str(tmp_path)).release()


async def test_a_trigger_refuses_a_folder_that_another_pool_watches(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with another_process(tmp_path / "in") as said:
        assert said == "held"
        with pytest.raises(BaseExceptionGroup) as caught:
            async with Bench(tmp_path).running("in"):
                pass
    (error,) = caught.value.exceptions
    assert isinstance(error, StartupError)
    assert error.usage
    assert f"another pool watches the folder {tmp_path}/in" in str(error)


async def test_a_folder_made_anew_is_held_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    bench = Bench(tmp_path)
    async with bench.running("in"):
        folder.rmdir()
        folder.mkdir()
        await until(lambda: "was replaced" in caplog.text)
        drop_file(folder, "a.md")
        await bench.expect("in/a.md")
        with another_process(folder) as said:
            assert said == "busy"
    with another_process(folder) as said:
        assert said == "held"


async def test_a_folder_taken_by_another_pool_meanwhile_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "late"
    bench = Bench(tmp_path)
    async with bench.running("late"):
        hidden = tmp_path / ".late"
        hidden.mkdir()
        drop_file(hidden, "a.md")
        with another_process(hidden) as said:
            assert said == "held"
            hidden.rename(folder)
            await until(lambda: "another pool watches" in caplog.text)
            assert bench.events == []
        await bench.expect("late/a.md")

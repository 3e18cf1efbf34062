from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from llmling.tools.mcp.process import MARK, kill_marked, kill_orphans, new_mark

FAMILY = """
import subprocess, sys, time
nap = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
for session in (False, True):
    child = subprocess.Popen(nap, start_new_session=session, stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
time.sleep(600)
"""

HOST = """
import os, subprocess, sys
from llmling.tools.mcp.process import MARK, new_mark
nap = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
child = subprocess.Popen(
    nap, env={**os.environ, MARK: new_mark()}, start_new_session=True, stdout=subprocess.PIPE
)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def popen(program: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()


def read_pid(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_whole_family_is_killed_and_nobody_else(start: Callable[..., subprocess.Popen[str]]) -> None:
    mark, other = new_mark(), new_mark()
    family, stranger = start(FAMILY, **{MARK: mark}), start(FAMILY, **{MARK: other})
    pids = [family.pid, read_pid(family), read_pid(family)]
    strangers = [stranger.pid, read_pid(stranger), read_pid(stranger)]
    assert kill_marked(mark) == 3
    assert not any(alive(pid) for pid in pids)
    assert all(alive(pid) for pid in strangers)
    assert kill_marked(mark) == 0
    assert kill_marked(other) == 3


def test_orphans_of_a_dead_host_are_killed_and_servers_of_a_live_one_are_not(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    dead, living = start(HOST), start(HOST)
    orphan, served = read_pid(dead), read_pid(living)
    kill_orphans()
    assert alive(orphan)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert kill_orphans() >= 1
    assert not alive(orphan)
    assert alive(served)
    living.send_signal(signal.SIGKILL)
    living.wait()
    assert kill_orphans() >= 1
    assert not alive(served)


def test_a_reused_pid_does_not_protect_an_orphan_and_other_containers_are_left_alone(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    namespace, pid, started, unique = new_mark().split(":")
    reused = start(FAMILY, **{MARK: f"{namespace}:{pid}:{int(started) - 1}:{unique}"})
    foreign_mark = f"{int(namespace) + 1}:999999999:1:{unique}"
    foreign = start(FAMILY, **{MARK: foreign_mark})
    read_pid(reused), read_pid(foreign)
    assert kill_orphans() >= 1
    assert reused.wait(5) == -signal.SIGKILL
    assert foreign.poll() is None
    assert kill_marked(foreign_mark) >= 1


def test_a_sweep_is_quick() -> None:
    began = time.perf_counter()
    kill_marked("nobody carries this")
    each = (time.perf_counter() - began) / max(1, len(list(Path("/proc").glob("[0-9]*"))))
    assert each < 0.01

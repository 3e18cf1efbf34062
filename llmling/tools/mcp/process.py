"""Process trees of MCP servers: a mark in the environment finds whatever they leave behind.

Children inherit the environment, also those that start a session of their own, so the mark reaches further than process
groups. It names the host, so that the next one can tell orphans from the servers of a host that is alive.
"""

from __future__ import annotations

import functools
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

MARK = "LLMLING_MCP_ID"

_POLL_S = 0.01
_ROUNDS = 5


def new_mark() -> str:
    """Return a mark for one server of this process: `<pid namespace>:<pid>:<start>:<unique>`."""
    return f"{_namespace()}:{os.getpid()}:{_started(os.getpid())}:{uuid.uuid4().hex}"


def kill_marked(mark: str, *, timeout_s: float = 2.0) -> int:
    """Kill every process that carries `mark` and return how many; blocks until they are gone or `timeout_s` is over."""
    return _kill(lambda found: found == mark, timeout_s)


def kill_orphans(*, timeout_s: float = 2.0) -> int:
    """Kill the servers of hosts that are gone, such as one that was killed, and return how many there were."""
    return _kill(_is_orphan, timeout_s)


@functools.cache
def kill_orphans_once() -> int:
    """Kill orphans at the first call in this process; later calls do nothing."""
    return kill_orphans()


def _kill(wanted: Callable[[str], bool], timeout_s: float) -> int:
    killed: set[psutil.Process] = set()
    # More than one round: what is killed may just have started another child.
    for _ in range(_ROUNDS):
        found = {process for process in _marked(wanted) if process not in killed}
        if not found:
            break
        for process in found:
            try:
                process.kill()
            except psutil.Error:
                continue
        killed |= found
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and any(_alive(process) for process in killed):
        time.sleep(_POLL_S)
    return len(killed)


def _marked(wanted: Callable[[str], bool]) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    own = os.getpid()
    for pid in psutil.pids():
        try:
            mark = _environment_mark(pid)
            if pid != own and mark is not None and wanted(mark):
                found.add(psutil.Process(pid))
        except (psutil.Error, OSError):
            continue
    return found


def _environment_mark(pid: int) -> str | None:
    environ = Path(f"/proc/{pid}/environ")
    if not Path("/proc/self/environ").exists():
        return psutil.Process(pid).environ().get(MARK)
    # Reading the file is ten times as fast as asking psutil for a whole environment.
    data, key = environ.read_bytes(), f"{MARK}=".encode()
    line = next((line for line in data.split(b"\0") if line.startswith(key)), None) if key in data else None
    return None if line is None else line[len(key) :].decode("ascii", "replace")


def _is_orphan(mark: str) -> bool:
    namespace, pid, started, _ = (*mark.split(":", 3), "", "", "", "")[:4]
    # Pids of another container mean nothing here: its servers are left alone.
    if namespace != _namespace() or not pid.isdigit():
        return False
    return _started(int(pid)) != started


def _alive(process: psutil.Process) -> bool:
    # Never `wait()`: for a child it would take the exit status away from asyncio.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _namespace() -> str:
    try:
        return Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return "0"


def _started(pid: int) -> str:
    """Return when a process started, in a form that clock changes do not alter; empty when there is none."""
    try:
        # Behind the command, which may hold spaces and brackets; the 22nd field is ticks since boot.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        return str(round(psutil.Process(pid).create_time()))
    except psutil.Error:
        return ""

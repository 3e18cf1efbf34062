"""Machines that share nothing but cables: network namespaces around one with the server, each link to be cut alone."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

_COUNT = itertools.count(1)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


class Net:
    """Namespaces around a middle one; a host is joined to the middle, and by another cable to this process."""

    def __init__(self) -> None:
        self.mark = f"ll{os.getpid() % 100_000}n{next(_COUNT)}"
        self._subnets = itertools.count(random.randrange(0, 16_000) * 4)
        self._spaces: list[str] = []
        try:
            self.middle = self._space("mid")
            self.address = self._join(self.middle, None, "c0")[0]
            """Where this process reaches the middle."""
        except BaseException:
            self.close()
            raise

    def _space(self, name: str) -> str:
        space = f"{self.mark}-{name}"
        _ip("netns", "add", space)
        self._spaces.append(space)
        _ip("-n", space, "link", "set", "lo", "up")
        return space

    def _join(self, space: str, other: str | None, name: str) -> tuple[str, str]:
        """Lay a cable from a namespace to another one, None: to this process; return both ends' addresses."""
        number = next(self._subnets)
        ends = f"{self.mark}{name}", f"{self.mark}{name}x"
        addresses = tuple(f"10.{200 + number // 16384}.{number // 64 % 256}.{number % 64 * 4 + end}" for end in (1, 2))
        _ip("link", "add", ends[0], "netns", space, "type", "veth", "peer", "name", ends[1])
        if other is not None:
            _ip("link", "set", ends[1], "netns", other)
        for end, address, where in zip(ends, addresses, (space, other), strict=True):
            inside = () if where is None else ("-n", where)
            _ip(*inside, "addr", "add", f"{address}/30", "dev", end)
            _ip(*inside, "link", "set", end, "up")
        return addresses[0], addresses[1]

    def host(self, name: str) -> Host:
        """Make a host."""
        space = self._space(name)
        number = len(self._spaces)
        server, _ = self._join(self.middle, space, f"c{number}")
        itself, outside = self._join(space, None, f"o{number}")
        return Host(space, server, outside, itself, _Cable(self.middle, f"{self.mark}c{number}"))

    @property
    def run(self) -> tuple[str, ...]:
        """What a command begins with to run in the middle."""
        return _inside(self.middle)

    def close(self) -> None:
        """Take everything away; cables go with their namespaces."""
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


@dataclass(frozen=True, slots=True)
class _Cable:
    space: str
    end: str


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace with a cable to the middle, and one to this process."""

    space: str
    server: str
    """Where it reaches the middle."""
    outside: str
    """Where it reaches this process."""
    from_outside: str
    """Its own address, as this process sees it."""
    cable: _Cable

    @property
    def run(self) -> tuple[str, ...]:
        """What a command begins with to run here."""
        return _inside(self.space)

    def cut(self) -> None:
        """Let nothing pass to the middle and back; nobody is told."""
        _ip("-n", self.cable.space, "link", "set", self.cable.end, "down")

    def mend(self) -> None:
        """Let everything pass again."""
        _ip("-n", self.cable.space, "link", "set", self.cable.end, "up")


def _inside(space: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", space)


@contextmanager
def net() -> Generator[Net]:
    """Give a net; skips where the kernel or the user's rights do not allow one."""
    try:
        made = Net()
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
        pytest.skip(f"network namespaces are refused here (`ip netns add`): {str(why).strip()}")
    try:
        yield made
    finally:
        made.close()

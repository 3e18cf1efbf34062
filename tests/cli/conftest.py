"""What tests of the command line share: no key of the person who runs them, a free port."""

from __future__ import annotations

import os

import pytest
from serving import free_port


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.endswith(("_API_KEY", "_TOKEN", "_BASE_URL", "_API_BASE")):
            monkeypatch.delenv(name)


@pytest.fixture
def free_tcp_port() -> int:
    return free_port()

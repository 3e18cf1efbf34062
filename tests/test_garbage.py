"""The collector waits while much is made that stays, and nothing but that."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from llmling import garbage

OWN = """
import gc
from llmling import garbage
garbage.own_process()
with garbage.held():
    pass
assert not gc.get_freeze_count()
with garbage.held(imports=True):
    kept = [[] for _ in range(1000)]
first = gc.get_freeze_count()
more = [[] for _ in range(1000)]
garbage.keep()
print(gc.isenabled(), first > 1000, gc.get_freeze_count() >= first + 1000)
"""

OTHERS = """
import gc
from llmling import garbage
with garbage.held(imports=True):
    pass
garbage.keep()
print(gc.get_freeze_count())
"""


@pytest.fixture(autouse=True)
def collecting() -> Generator[None]:
    # An import of litellm that another test has begun holds the collector too.
    for thread in threading.enumerate():
        if thread.name.startswith("llmling-import"):
            thread.join()
    gc.enable()
    yield
    gc.enable()


def test_it_goes_on_afterwards_also_after_a_mistake() -> None:
    with garbage.held():
        assert not gc.isenabled()
        with garbage.held(imports=True):
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="no"), garbage.held():
        raise ValueError("no")
    assert gc.isenabled()


def test_of_several_threads_the_last_one_sets_it_going() -> None:
    leave, inside = threading.Event(), threading.Event()

    def stay() -> None:
        with garbage.held():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=stay)
    with garbage.held():
        thread.start()
        assert inside.wait(30)
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_it_stays_off_where_the_program_has_set_it_off() -> None:
    gc.disable()
    with garbage.held():
        pass
    assert not gc.isenabled()


def test_in_a_program_of_others_nothing_is_kept_for_good() -> None:
    # A process of its own: in this one, tests may have run commands as the program does.
    done = subprocess.run([sys.executable, "-c", OTHERS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]


def test_a_process_of_our_own_keeps_what_it_imports_and_starts_with() -> None:
    done = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3

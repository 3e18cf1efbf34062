"""Every promise of the seed pages has a test that exists, and every test here holds one of them."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
from seed_rows import CEYLON, MYCONTEXT, ROWS, SHIPIT, WAYFLOW, Row

TESTS = Path(__file__).parents[1]
HERE = Path(__file__).parent
PROOFS = sorted({proof for row in ROWS.values() for proof in row.proofs})


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of the tests of a file."""
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@functools.cache
def names_here() -> frozenset[str]:
    """Return the names of the tests of this folder, without those about the table."""
    files = [path for path in HERE.glob("test_*.py") if path != Path(__file__)]
    return frozenset[str]().union(*map(names_in, files))


@pytest.mark.parametrize(
    ("rows", "prefix", "last", "missing"),
    [
        (MYCONTEXT, "s0", 23, ()),
        (SHIPIT, "s1", 41, (40,)),
        (CEYLON, "s2", 21, (14,)),
        (WAYFLOW, "s3", 23, ()),
    ],
)
def test_no_row_is_left_out(rows: dict[str, Row], prefix: str, last: int, missing: tuple[int, ...]) -> None:
    numbered = [f"{prefix}_{number:02}" for number in range(1, last + 1) if number not in missing]
    assert sorted(name for name in rows if name[3:].isdigit()) == numbered
    assert [name for name, row in rows.items() if not row.proofs] == []


@pytest.mark.parametrize("proof", PROOFS)
def test_every_named_test_exists(proof: str) -> None:
    path, _, name = proof.rpartition("::")
    assert name in (names_in(TESTS / path) if path else names_here())


def test_every_test_here_is_in_the_table() -> None:
    assert names_here() <= set(PROOFS)

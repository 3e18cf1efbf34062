"""Every defect that was found in the predecessor, and the test that fails on it.

A row names tests (`test_...` of a `test_predecessor_*.py`, or `path::test_...`), or says that the feature is absent
and shows manifests with its keys: each `⟦` stands right before a word that is refused there by name. A value may be
refused by the name of its key.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
from defects import Absent, Defect
from defects_of_pools import COMMANDS, POOL, ROUTING, UNUSED
from defects_of_triggers import COMMON, FILES, OTHER_SOURCES, SHUTDOWN, WEBHOOKS

from llmling import Manifest
from llmling.errors import ManifestError
from llmling.manifest import check

TESTS = Path(__file__).parents[1]
MARK = re.compile(r"(?:(?P<key>\w+): )?⟦\"?(?P<word>[\w./{}-]+)")

DEFECTS: dict[str, Defect] = {
    **UNUSED,
    **ROUTING,
    **COMMANDS,
    **COMMON,
    **FILES,
    **WEBHOOKS,
    **OTHER_SOURCES,
    **SHUTDOWN,
    **POOL,
}
ABSENT = [
    pytest.param(absent.manifest, id=f"{name}-{number}")
    for name, defect in DEFECTS.items()
    for number, absent in enumerate(proof for proof in defect.proofs if isinstance(proof, Absent))
]
NAMED = [
    pytest.param(proof, id=f"{name}-{proof}")
    for name, defect in DEFECTS.items()
    for proof in defect.proofs
    if isinstance(proof, str)
]


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of the tests of a file."""
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def test_every_defect_has_a_proof() -> None:
    assert [name for name, defect in DEFECTS.items() if not defect.proofs] == []
    stated = (defect.text for defect in DEFECTS.values())
    assert len(set(stated)) == len(DEFECTS), "a defect stands in the table twice"


@pytest.mark.parametrize("proof", NAMED)
def test_every_named_test_exists(proof: str) -> None:
    path, _, name = proof.rpartition("::")
    files = [TESTS / path] if path else sorted(Path(__file__).parent.glob("test_predecessor_*.py"))
    assert any(name in names_in(file) for file in files)


def test_every_test_of_these_files_is_in_the_table() -> None:
    named = {proof for defect in DEFECTS.values() for proof in defect.proofs if isinstance(proof, str)}
    for file in sorted(Path(__file__).parent.glob("test_predecessor_*.py")):
        assert names_in(file) <= named, file.name


@pytest.mark.parametrize("manifest", ABSENT)
def test_a_feature_that_is_absent_is_refused_by_name(tmp_path: Path, manifest: str) -> None:
    """Each marked word is refused at its line and column, and nothing else is."""
    marked = [
        (number, line.index("⟦", mark.start()) + 1 - line[: mark.start()].count("⟦"), {mark["key"], mark["word"]})
        for number, line in enumerate(manifest.splitlines(), 1)
        for mark in MARK.finditer(line)
    ]
    assert marked, "no word is marked"
    path = tmp_path / "agents.yml"
    path.write_text(manifest.replace("⟦", ""))
    errors = [problem for problem in check(path) if problem.severity == "error"]
    shown = "\n".join(problem.render() for problem in errors)
    assert sorted((problem.line, problem.column) for problem in errors) == [mark[:2] for mark in marked], shown
    for line, column, names in marked:
        (problem,) = (problem for problem in errors if (problem.line, problem.column) == (line, column))
        assert any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", problem.message) for name in names - {None}), shown
        assert str(path) in problem.path
    with pytest.raises(ManifestError) as caught:
        Manifest.load(path)
    assert list(caught.value.problems) == errors

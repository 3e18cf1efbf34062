"""Hostile or broken files are refused fast, with a place and without a traceback."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from llmling.errors import ManifestError, Problem
from llmling.manifest import check, load

_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)

# name: (content, code, line, column)
PACK: dict[str, tuple[bytes | str, str, int, int]] = {
    "empty": ("", "LL009", 1, 1),
    "only a comment": ("# nothing\n", "LL009", 1, 1),
    "only a marker": ("---\n", "LL009", 1, 1),
    "null": ("null\n", "LL009", 1, 1),
    "a list": ("- a\n- b\n", "LL009", 1, 1),
    "a text": ("\njust text\n", "LL009", 2, 1),
    "two documents": ("agents: {}\n---\nagents: {}\n", "LL009", 2, 1),
    "too large": ("# " + "x" * 1_000_000, "LL003", 1, 1),
    "nested lists": ("[" * 20_000, "LL003", 1, 51),
    "nested mappings": ("a: " + "{a: " * 20_000, "LL003", 1, 4 * 49 + 4),
    "nested blocks": ("".join(f"{' ' * n}a{n}:\n" for n in range(60)) + " " * 60 + "x: 1\n", "LL003", 51, 51),
    "nested block lists": ("- " * 20_000 + "x\n", "LL003", 1, 101),
    "alias bomb": (_BOMB, "LL003", 6, 10),
    "many aliases": ("x-a: &a 1\nx-b: [" + ", ".join(["*a"] * 101) + "]\n", "LL003", 2, 407),
    "deep through aliases": (
        "x-0: &a0 [[[[[[x]]]]]]\n" + "".join(f"x-{n}: &a{n} [[[[[*a{n - 1}]]]]]\n" for n in range(1, 12)),
        "LL003",
        10,
        15,
    ),
    "recursive alias": ("x-a: &a [*a]\n", "LL008", 1, 10),
    "recursive mapping": ("x-a: &a\n  b: {<<: *a}\n", "LL008", 2, 11),
    "unknown alias": ("x-a: *b\n", "LL008", 1, 6),
    "python tag": ("x-a: !!python/object/apply:os.system ['true']\n", "LL007", 1, 6),
    "custom tag": ("x-a: !ENV HOME\n", "LL007", 1, 6),
    "tag on a mapping": ("x-a: !thing {a: 1}\n", "LL007", 1, 6),
    "set tag": ("x-a: !!set {a, b}\n", "LL007", 1, 6),
    "binary tag": ("x-a: !!binary aGk=\n", "LL007", 1, 6),
    "latin-1": (b"agents:\n  a: {description: \xe9}\n", "LL002", 2, 20),
    "utf-16": ("agents: {}\n".encode("utf-16"), "LL002", 1, 1),
    "zero byte": (b"agents:\n  a: \x00\n", "LL002", 2, 6),
    "escape sequence": ("x-a: \x1b[31mred\n", "LL002", 1, 6),
    "tab": ("agents:\n\ta: {}\n", "LL004", 2, 1),
    "colon in a value": ("x-a: b: c\n", "LL004", 1, 7),
    "at sign": ("x-a: @b\n", "LL004", 1, 6),
    "backtick": ("x-a: `b`\n", "LL004", 1, 6),
    "unclosed quote": ("x-a: 'b\nx-c: d\n", "LL004", 1, 6),
    "unclosed list": ("x-a: [b, c\nx-d: e\n", "LL004", 2, 4),
    "unclosed mapping": ("x-a: {b: c\n", "LL004", 2, 1),
    "closing bracket": ("x-a: ]\n", "LL004", 1, 6),
    "bad escape": ('x-a: "\\q"\n', "LL004", 1, 7),
    "list in a mapping": ("x-a: 1\n- b\n", "LL004", 2, 1),
    "missing colon": ("agents:\n  a\n  b: {}\n", "LL004", 2, 3),
    "list as key": ("? [a]\n: b\n", "LL010", 1, 3),
    "mapping as key": ("{a: b}: c\n", "LL010", 1, 1),
    "merge of a text": ("x-a:\n  <<: text\n", "LL010", 2, 7),
    "duplicate through quotes": ('x-a: 1\n"x-a": 2\n', "LL006", 2, 1),
    "two merges": ("x-a: &a {b: 1}\nx-c: {<<: *a, <<: *a}\n", "LL006", 2, 15),
    "agents is a list": ("agents: [a]\n", "LL203", 1, 9),
    "agents is a text": ("agents: a\n", "LL203", 1, 9),
    "include is a text": ("include: a.yml\n", "LL203", 1, 10),
    "defaults is a list": ("defaults: []\n", "LL203", 1, 11),
    "teams is a number": ("teams: 3\n", "LL203", 1, 8),
    "a name with a slash": ("agents:\n  a/b: {}\n", "LL204", 2, 3),
    "an empty name": ('agents:\n  "": {}\n', "LL204", 2, 3),
    "timestamp tag": ("x-a: !!timestamp 2020-01-01\n", "LL007", 1, 6),
    "another version of YAML": ("%YAML 3.0\n---\nagents: {}\n", "LL004", 1, 1),
    "a tag of one's own": ("%TAG ! tag:evil.example,2000:\n---\nx-a: !thing b\n", "LL007", 3, 6),
    "half a character": ('x-a: "\\uD800"\n', "LL004", 1, 9),
    "a number without end": ("limits: {max_hops: 1e999}\n", "LL203", 1, 20),
    "a number of 5,000 digits": (f"limits: {{max_hops: {'1' * 5_000}}}\n", "LL203", 1, 20),
    "no number": ("limits: {drain_timeout_s: .nan}\n", "LL203", 1, 27),
    "a device as a part": ("include: [/dev/zero]\n", "LL101", 1, 11),
    "itself as a part": ("include: [m.yml]\nagents: {a: {}}\n", "LL102", 1, 11),
    "its own parent": ("agents:\n  a: {extends: a}\n", "LL104", 2, 16),
    "a variable as a name": ("agents:\n  ${HOME}: {}\n", "LL112", 2, 3),
    "a template that reads": ("agents:\n  a: {instructions: '{% include \"/etc/passwd\" %}'}\n", "LL208", 2, 21),
    "a schema that reads": ("agents:\n  a: {output: {$ref: 'file:///etc/passwd'}}\n", "LL214", 2, 22),
    "a port beyond all": ("agents:\n  a: {triggers: [{type: webhook, port: 99999999999}]}\n", "LL204", 2, 40),
    "a key of escapes": ('agents:\n  a: {"\\e[31m": 1}\n', "LL201", 2, 7),
}


def _write(folder: Path, content: bytes | str) -> Path:
    file = folder / "m.yml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize("name", PACK)
def test_it_is_refused_at_its_place(name: str, tmp_path: Path) -> None:
    content, code, line, column = PACK[name]
    file = _write(tmp_path, content)
    tracemalloc.start()
    started = time.process_time()
    problems = check(file)
    busy_s = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(problem.code, problem.line, problem.column) for problem in problems] == [(code, line, column)]
    text = problems[0].render()
    assert all(char.isprintable() or char in "\n\t" for char in text)
    assert busy_s < 1
    assert peak < 50_000_000
    with pytest.raises(ManifestError):
        load(file)


@pytest.mark.parametrize(
    ("content", "pipe", "found"),
    [
        ("include: [pipe]\n", "pipe", ("LL101", "m.yml", 1, 11)),
        ("agents: {a: {model: 'demo:pipe'}}\n", "pipe", ("LL310", "m.yml", 1, 21)),
        ("agents: {a: {model: 'replay:pipe'}}\n", "pipe", ("LL310", "m.yml", 1, 21)),
        ("agents: {a: {}}\n", "m.yml.lock", ("LL001", "m.yml.lock", 1, 1)),
    ],
)
def test_a_pipe_is_refused_and_not_waited_for(
    content: str, pipe: str, found: tuple[str, str, int, int], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / pipe)
    (problem,) = check(_write(tmp_path, content))
    assert (problem.code, Path(problem.path).name, problem.line, problem.column) == found
    assert "not a regular file" in problem.message


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("agents: {}\n")
    (problem,) = check(tmp_path / "agent.yml")
    assert problem.code == "LL001"
    assert 'did you mean "agents.yml"?' in problem.message
    (folder,) = check(tmp_path)
    assert (folder.code, folder.line, folder.column) == ("LL001", 1, 1)
    (nowhere,) = check(tmp_path / "no" / "such.yml")
    assert nowhere.code == "LL001"


def test_the_limits_themselves_are_allowed(tmp_path: Path) -> None:
    deep = "x-deep: " + "[" * 49 + "]" * 49 + "\n"
    aliases = "x-a: &a 1\nx-b: [" + ", ".join(["*a"] * 100) + "]\n"
    file = _write(tmp_path, deep + aliases + "agents: {a: {}}\n#" + "x" * 900_000)
    assert check(file) == []


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    file = _write(tmp_path, b"\xef\xbb\xbfagents:\r\n  a:\r\n    modle: demo\r\n")
    assert [(problem.line, problem.column, problem.excerpt) for problem in check(file)] == [(3, 5, "    modle: demo")]


def test_characters_count_as_one_column_each(tmp_path: Path) -> None:
    file = _write(tmp_path, "agents: {ä: {description: 'über 🎉', modle: demo}}\n")
    (problem,) = check(file)
    assert (problem.line, problem.column, problem.length) == (1, 37, 5)


def test_a_very_long_line_is_not_shown(tmp_path: Path) -> None:
    file = _write(tmp_path, "agents: {a: {description: " + "x" * 1000 + ", modle: demo}}\n")
    (problem,) = check(file)
    assert isinstance(problem, Problem)
    assert problem.excerpt == ""
    assert problem.column == 1029

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from llmling.errors import SinkError
from llmling.events import Event
from llmling.manifest.sinks import FileSinkConfig
from llmling.messages import Message
from llmling.protocols import Answer
from llmling.runtime.services import Services
from llmling.sinks.file import FileSink


def answer(text: str = "hello", content: Any = None, *, delivery_id: str = "E1/writer", **data: Any) -> Answer:
    event = Event("watch", "dev.llmling.file.added", "docs/a.md", data or None, id="E1")
    return Answer(text, text if content is None else content, Message.assistant(text), event, "writer", delivery_id)


def sink(folder: Path, path: str, mode: Any = "write") -> FileSink:
    return FileSink(FileSinkConfig(path=path, mode=mode), Services(folder=folder))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


async def test_writes_exactly_the_answer_and_a_newline(tmp_path: Path) -> None:
    out = sink(tmp_path, "out/{{ event.id }}/{{ agent }}.md")
    await out.send(answer("Größe\r\n“x”\n"))
    assert (tmp_path / "out/E1/writer.md").read_bytes() == "Größe\r\n“x”\n\n".encode()
    assert files(tmp_path) == ["out/E1/writer.md"]
    assert out.name == "file out/{{ event.id }}/{{ agent }}.md"


async def test_write_replaces_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "out.md"
    target.write_text("old")
    with target.open() as reader:
        await sink(tmp_path, "out.md").send(answer("new"))
        assert reader.read() == "old"
    assert target.read_text() == "new\n"


async def test_append_adds_to_the_end(tmp_path: Path) -> None:
    out = sink(tmp_path, "log/{{ event.source }}.txt", "append")
    await asyncio.gather(*(out.send(answer(str(n) * 5000, delivery_id=f"E{n}/w")) for n in range(10)))
    lines = (tmp_path / "log/watch.txt").read_text().splitlines()
    assert sorted(lines) == [str(n) * 5000 for n in range(10)]


class Point(BaseModel):
    x: int
    name: str


@pytest.mark.parametrize("content", [{"x": 1, "name": "ä"}, Point(x=1, name="ä")])
async def test_a_structured_answer_is_json(tmp_path: Path, content: Any) -> None:
    await sink(tmp_path, "a.json").send(answer('{"x":1}', content))
    assert (tmp_path / "a.json").read_text() == '{\n  "x": 1,\n  "name": "ä"\n}\n'


async def test_delivery_id_and_data_are_in_scope(tmp_path: Path) -> None:
    await sink(tmp_path, "o/{{ delivery_id }}-{{ event.data.n }}.md").send(answer(n=3))
    assert files(tmp_path) == ["o/E1/writer-3.md"]


ESCAPES = [
    "../x",
    "../../x",
    "../../../../../../../../tmp/x",
    "..",
    "../",
    ".",
    "./",
    "./x",
    "",
    "/",
    "//",
    "/etc/passwd",
    "//etc/passwd",
    "///x",
    "a/../x",
    "a/../../x",
    "a/b/../../../x",
    "a/..",
    "a/../",
    "a/.",
    "a/./b",
    "a//b",
    "a/",
    "a/b/",
    "../inside/../../x",
    "../inside_evil/x",
    "../inside",
    "x/../../inside/x",
    "x\0",
    "x\0.md",
    "../x\0",
    "a\nb",
    "a\r",
    "\t",
    "\x1b[2Jx",
    "\x7f",
    "..\n",
    "../\n",
    "link/x",
    "link/../x",
    "link/sub/x",
    "loop/x",
    "loop/loop/x",
    "tofile/x",
    "dangling/x",
    "updir/inside_evil/x",
    "n" * 300,
    "a/" + "n" * 300,
    "\ud800",
    "a" * 5000,
]


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside_evil").mkdir()
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "secret").write_text("secret")
    for name, target in {
        "link": outside,
        "loop": Path("loop"),
        "tofile": outside / "secret",
        "dangling": outside / "nothing",
        "updir": Path(".."),
    }.items():
        (folder / "inside" / name).symlink_to(target)
    return folder


@pytest.mark.parametrize("mode", ["write", "append"])
@pytest.mark.parametrize("value", ESCAPES)
async def test_nothing_is_written_outside_the_folder(jail: Path, value: str, mode: str) -> None:
    before = files(jail.parent)
    with pytest.raises(SinkError) as caught:
        await sink(jail, "inside/{{ event.data.name }}", mode).send(answer(name=value))
    assert "file sink 'inside/{{ event.data.name }}'" in str(caught.value)
    assert not caught.value.retryable
    after = files(jail.parent)
    assert after == before
    assert (jail.parent / "outside" / "secret").read_text() == "secret"


@pytest.mark.parametrize(
    "name",
    [
        "...",
        "..x",
        "x..",
        "~",
        "~root",
        "%2e%2e%2fx",
        "..%2fx",
        "..\\x",
        "C:\\x",
        "\uff0e\uff0e\uff0fx",
        "-rf",
        "{{ 7*7 }}",
    ],
)
async def test_odd_names_stay_inside(jail: Path, name: str) -> None:
    await sink(jail, "inside/{{ event.data.name }}").send(answer(name=name))
    assert (jail / "inside" / name).read_text() == "hello\n"


async def test_a_link_in_the_place_of_the_file_is_replaced_not_followed(jail: Path) -> None:
    await sink(jail, "inside/{{ event.data.name }}").send(answer(name="tofile"))
    assert (jail.parent / "outside" / "secret").read_text() == "secret"
    assert not (jail / "inside" / "tofile").is_symlink()


@pytest.mark.parametrize("name", ["tofile", "dangling", "loop", "pipe"])
async def test_append_opens_no_link_and_no_pipe(jail: Path, name: str) -> None:
    os.mkfifo(jail / "inside" / "pipe")
    with pytest.raises(SinkError):
        await asyncio.wait_for(sink(jail, "inside/{{ event.data.name }}", "append").send(answer(name=name)), 30)
    assert (jail.parent / "outside" / "secret").read_text() == "secret"
    assert not (jail.parent / "outside" / "nothing").exists()


@pytest.mark.parametrize("path", ["../outside/x.md", "{parent}/outside/{{{{ event.id }}}}.md", "inside/link/x.md"])
async def test_the_folder_in_the_manifest_may_lie_anywhere(jail: Path, path: str) -> None:
    await sink(jail, path.format(parent=jail.parent)).send(answer())
    assert [(jail.parent / "outside" / name).exists() for name in ("x.md", "E1.md")].count(True) == 1


def test_a_template_from_the_root_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="write a folder before the first tag"):
        sink(tmp_path, "/{{ event.data.path }}")


async def test_a_template_without_its_value_names_itself(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=re.escape("file sink 'out/{{ event.data.nope }}': template")) as caught:
        await sink(tmp_path, "out/{{ event.data.nope }}").send(answer(a=1))
    assert not caught.value.retryable


@pytest.mark.parametrize("mode", ["write", "append"])
async def test_a_full_disk_is_retryable_and_tears_nothing(tmp_path: Path, mode: str) -> None:
    target = tmp_path / "out.md"
    target.write_text("old\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(SinkError, match=re.escape(f"cannot write {target}: File too large")) as caught:
            await sink(tmp_path, "out.md", mode).send(answer("x" * 20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.retryable
    assert target.read_text() == "old\n"
    assert files(tmp_path) == ["out.md"]


async def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.md").mkdir()
    for mode in ("write", "append"):
        with pytest.raises(SinkError, match=r"cannot write .*out\.md: Is a directory") as caught:
            await sink(tmp_path, "out.md", mode).send(answer())
        assert not caught.value.retryable
    assert files(tmp_path) == []


async def test_a_later_try_succeeds(tmp_path: Path) -> None:
    out = sink(tmp_path, "out.md")
    (tmp_path / "out.md").mkdir()
    with pytest.raises(SinkError):
        await out.send(answer())
    (tmp_path / "out.md").rmdir()
    await out.send(answer(json.dumps({"a": 1})))
    assert files(tmp_path) == ["out.md"]

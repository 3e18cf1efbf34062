from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmling.manifest.importing import import_object


@pytest.fixture(autouse=True)
def import_state() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_the_folder_is_first_and_attributes_are_followed(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("class Till:\n    @staticmethod\n    def ring(): return 'ding'\n")
    assert import_object("shop:Till.ring", tmp_path)() == "ding"
    assert sys.path[0] == str(tmp_path.resolve())
    import_object("shop:Till", tmp_path)
    assert sys.path.count(str(tmp_path.resolve())) == 1


def test_installed_modules_are_found_too(tmp_path: Path) -> None:
    assert import_object("json:dumps", tmp_path) is json.dumps


def test_a_module_of_the_same_name_in_another_folder_is_another_module(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_name.py").write_text(f"def who(): return {name!r}\n")
    first = import_object("same_name:who", tmp_path / "one")
    second = import_object("same_name:who", tmp_path / "two")
    assert (first(), second()) == ("one", "two")
    assert import_object("same_name:who", tmp_path / "one")() == "one"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("shpo:ring", r"no module 'shpo' in .* or among the installed packages; did you mean 'shop'\?"),
        ("shop:rnig", r"'shop:rnig': .*shop.py has no 'rnig'; did you mean 'ring'\?"),
        ("shop", "should be written module:name"),
        ("broken:x", "importing module 'broken' failed: ZeroDivisionError: division by zero"),
        ("needy:x", "module 'needy' needs 'not_installed_at_all', which is not installed"),
        ("typo:x", "importing module 'typo' failed: SyntaxError"),
    ],
)
def test_mistakes_say_what_is_close(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "shop.py").write_text("def ring(): ...\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import not_installed_at_all\n")
    (tmp_path / "typo.py").write_text("def (:\n")
    with pytest.raises(ValueError, match=message):
        import_object(path, tmp_path)

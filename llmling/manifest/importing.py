"""Importing what a manifest names as `module:name`, with the manifest's folder first on the import path."""

from __future__ import annotations

import difflib
import importlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_folders: list[str] = []


class ImportFailed(ValueError):
    """A `module:name` does not lead to an object; `module` tells that already the module does not."""

    def __init__(self, message: str, *, module: bool = False) -> None:
        super().__init__(message)
        self.module = module


def import_object(path: str, folder: Path) -> Any:
    """Return the object `module:name` (or `module:name.attribute`) stands for.

    A module of the same name that was imported from another manifest's folder gives way to the one in `folder`.

    Raises:
        ImportFailed: The module or the name does not exist, or importing it fails; the text says what is close.
    """
    module_name, _, names = path.partition(":")
    if not module_name or not names:
        raise ImportFailed(f"{path!r} should be written module:name, such as my_module:word_count")
    found: Any = _import(module_name, folder.resolve())
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            where = getattr(found, "__file__", None) or repr(found)
            close = _did_you_mean(name, [known for known in dir(found) if not known.startswith("__")])
            raise ImportFailed(f"{path!r}: {where} has no {name!r}{close}") from None
    return found


def _import(name: str, folder: Path) -> ModuleType:
    _put_first(str(folder), name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            files = [file.stem for file in folder.glob("*.py")] if folder.is_dir() else []
            close = _did_you_mean(name, files)
            text = f"no module {name!r} in {folder} or among the installed packages{close}"
            raise ImportFailed(text, module=True) from None
        raise ImportFailed(f"module {name!r} needs {error.name!r}, which is not installed", module=True) from error
    except (Exception, SystemExit) as error:  # the border to users' code: whatever it raises is the manifest's mistake
        text = f"importing module {name!r} failed: {type(error).__name__}: {error}"
        raise ImportFailed(text, module=True) from error


def _put_first(folder: str, top: str) -> None:
    if folder not in _folders:
        _folders.append(folder)
    if sys.path[:1] != [folder]:
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if loaded is None or Path(loaded).is_relative_to(folder):
        return
    other = any(Path(loaded).is_relative_to(known) for known in _folders if known != folder)
    if other and PathFinder.find_spec(top, [folder]) is not None:
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""

"""Python objects a manifest names as `module:name`; its folder comes first on the import path."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from typing import Any

from llmling.errors import LLMlingError

_LOCK = threading.RLock()
# Which folder a module came from: two manifests of one process may each have their own `tools.py`.
_ORIGINS: dict[str, str] = {}


class ImportFailed(LLMlingError):
    """A `module:name` does not lead to an object; `known` are the names that are there, None: no module either."""

    def __init__(self, message: str, name: str = "", known: tuple[str, ...] | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.known = known


def import_object(path: str, folder: Path) -> Any:
    """Return the object behind `module:name` or `module:name.name`, with `folder` first on the import path.

    Runs the module's code on first use: call it in a thread when the loop must not wait.

    Raises:
        ImportFailed: The module cannot be imported, or has no such name.
    """
    module_name, _, names = path.partition(":")
    with _LOCK:
        value: Any = _module(module_name, str(folder))
    for name in names.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            known = tuple(item for item in dir(value) if not item.startswith("_"))
            raise ImportFailed(f'module {module_name} has no "{names}"', name, known) from None
    return value


def _module(name: str, folder: str) -> Any:
    if sys.path[:1] != [folder]:
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
    top = name.partition(".")[0]
    if _ORIGINS.get(top, folder) != folder and _present(top, folder):
        for other in [key for key in sys.modules if key == top or key.startswith(f"{top}.")]:
            del sys.modules[other]
    new = top not in sys.modules
    # Files may be younger than the import system's picture of the folder.
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ImportFailed(f'there is no module "{error.name}"', error.name) from error
        raise ImportFailed(f"module {name} needs {error.name}, which is not installed") from error
    # Code of the user: whatever it raises is told in its own words.
    except (Exception, SystemExit) as error:
        raise ImportFailed(f"module {name} fails on import: {type(error).__name__}: {error}") from error
    if new and _present(top, folder):
        _ORIGINS[top] = folder
    return module


def _present(top: str, folder: str) -> bool:
    return Path(folder, f"{top}.py").is_file() or Path(folder, top).is_dir()

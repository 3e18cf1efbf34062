"""The event a trigger would make, made by hand: for `llmling fire`."""

from __future__ import annotations

import datetime as dt
import os
from enum import Enum
from pathlib import Path
from typing import Any

from llmling.errors import StartupError
from llmling.events import Event
from llmling.manifest.triggers import FileTriggerConfig, ScheduleTriggerConfig, WebhookTriggerConfig
from llmling.triggers.folders.content import mtime_text, read
from llmling.triggers.folders.scan import Sighting
from llmling.triggers.folders.selection import Selection


class _NoData(Enum):
    """What stands for no data, since None is a value of JSON."""

    absent = "absent"


NO_DATA = _NoData.absent


def event_by_hand(config: Any, folder: Path, *, file: Path | None, data: Any) -> tuple[Event, str | None]:
    """Return the event, and why the trigger itself would not have made it (None: it would).

    A file trigger takes `file`, a schedule `data`, every other one either of them.

    Raises:
        StartupError: The file is missing or cannot be read, or the wrong kind of input was given.
    """
    match config:
        case FileTriggerConfig():
            if data is not NO_DATA:
                raise _wrong(f"trigger {config.name!r} is a file trigger: pass --file FILE instead of --data")
            if file is None:
                raise _wrong(f"trigger {config.name!r} is a file trigger: pass --file FILE")
            return _file_event(config, folder, file)
        case ScheduleTriggerConfig():
            if file is not None:
                raise _wrong(f"trigger {config.name!r} is a schedule and reads no file: pass --data JSON, or nothing")
            tick = dt.datetime.now(dt.UTC).replace(microsecond=0)
            moment = tick.isoformat()
            extra: Any = {} if data is NO_DATA else {"data": data}
            facts = {"tick": moment, "name": config.name, "late_s": 0.0, **extra}
            return Event(config.name, "dev.llmling.schedule.tick", moment, facts, time=tick), None
        case WebhookTriggerConfig():
            body = _body(config.name, file, data)
            return Event(config.name, "dev.llmling.webhook.received", config.path, body), None
        case _:
            return Event(config.name, f"dev.llmling.{config.type}.fired", data=_body(config.name, file, data)), None


def _body(name: str, file: Path | None, data: Any) -> Any:
    if file is None and data is NO_DATA:
        raise _wrong(f"trigger {name!r} needs a body: pass --data JSON or --file FILE")
    if file is None:
        return data
    if data is not NO_DATA:
        raise _wrong(f"trigger {name!r} takes one body: pass --data JSON or --file FILE, not both")
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise _unreadable(file, error) from error
    except UnicodeDecodeError:
        raise _wrong(f"{file} is not UTF-8 text: pass a text file with --file, or --data JSON") from None


def _wrong(text: str) -> StartupError:
    return StartupError(text, usage=True)


def _unreadable(file: Path, error: OSError) -> StartupError:
    match error:
        case FileNotFoundError():
            return _wrong(f"there is no file {file}: pass the path of one that exists with --file")
        case IsADirectoryError():
            return _wrong(f"{file} is a folder: pass a file with --file")
        case _:
            return _wrong(f"{file} cannot be read ({error.strerror or error}): pass a file with --file that can")


def _file_event(config: FileTriggerConfig, folder: Path, file: Path) -> tuple[Event, str | None]:
    selection = Selection(config, folder)
    path = os.path.abspath(file)  # noqa: PTH100 - a link keeps the name the trigger would give it
    relative = os.path.relpath(path, selection.folder)
    try:
        facts = os.stat(path)  # noqa: PTH116
        sighting = Sighting(relative, os.path.realpath(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)
        content = read(sighting, config.max_bytes)
    except OSError as error:
        raise _unreadable(file, error) from error
    if content is None:
        if Path(path).is_dir():
            raise _wrong(f"{file} is a folder: pass a file with --file")
        raise _wrong(f"{file} is not a regular file, or is being written right now: pass one that is complete")
    data = {
        "path": path,
        "name": Path(path).name,
        "change": "added",
        "size": facts.st_size,
        "mtime": mtime_text(facts.st_mtime_ns),
        "sha256": content.sha256,
        "text": content.text,
    }
    why = None if selection.covers(relative) else f"{relative} is not matched by paths, extensions and ignore"
    if facts.st_size > config.max_bytes:
        why = f"file is {facts.st_size} bytes, over max_bytes {config.max_bytes}"
    return Event(config.name, "dev.llmling.file.added", relative, data), why

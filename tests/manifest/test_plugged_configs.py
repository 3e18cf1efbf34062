"""Parts of other packages: their configs are found by entry point, with the same exact places and in the schema."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llmling import plugins
from llmling.manifest import check, json_schema, load

MODULE = '''
from __future__ import annotations
from typing import Literal
from llmling.manifest.triggers import TriggerBase

class MailTriggerConfig(TriggerBase):
    """Runs the agent for mail."""

    type: Literal["mail"] = "mail"
    mailbox: str
    """Which mailbox."""

class MailTrigger:
    config = MailTriggerConfig
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    site = tmp_path / "site"
    info = site / "mailtrigger-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "planted_mail.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mailtrigger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmling.triggers]\nmail = planted_mail:MailTrigger\n")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    _forget()
    yield
    _forget()
    sys.modules.pop("planted_mail", None)


def _forget() -> None:
    importlib.invalidate_caches()
    plugins.__dict__["_entry_points"].cache_clear()


def test_a_trigger_of_another_package(tmp_path: Path) -> None:
    file = tmp_path / "m.yml"
    file.write_text("agents: {a: {triggers: [{type: mail, mailbox: in}]}}\n")
    trigger = load(file).agents["a"].triggers[0]
    assert (trigger.name, trigger.model_dump()["mailbox"]) == ("mail-1", "in")


def test_its_mistakes_have_their_place(tmp_path: Path) -> None:
    file = tmp_path / "m.yml"
    file.write_text(
        "agents:\n  a:\n    triggers:\n      - {type: mail, mailbx: in}\n      - {type: mail, mailbox: 3}\n"
        "      - {type: mial, mailbox: x}\n"
    )
    assert [(problem.line, problem.column, problem.message) for problem in check(file)] == [
        (4, 22, 'unknown key "mailbx" in agents.a.triggers[0]; did you mean "mailbox"?'),
        (5, 31, '"mailbox" should be text in agents.a.triggers[1]; put it in quotes: "3"'),
        (6, 16, 'unknown type "mial" in agents.a.triggers[2]; did you mean "mail"?'),
    ]


def test_it_stands_in_the_schema() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    names = str(schema["$defs"]["AgentConfig"]["properties"]["triggers"])
    assert "MailTriggerConfig" in names
    validator: Any = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"agents": {"a": {"triggers": [{"type": "mail", "mailbox": "in"}]}}})
    assert not validator.is_valid({"agents": {"a": {"triggers": [{"type": "mail"}]}}})

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from llmling.tools.naming import safe_name, safe_names


def test_dots_and_slashes_become_underscores() -> None:
    assert safe_name("files", "read.text/now") == "files_read_text_now"


def test_names_that_would_meet_are_kept_apart_in_any_order() -> None:
    names = safe_names("s", ["a.b", "a_b", "a/b"])
    assert names["a_b"] == "s_a_b"
    assert len(set(names.values())) == 3
    assert safe_names("s", ["a/b", "a_b", "a.b"]) == names


@given(st.text(max_size=80), st.lists(st.text(max_size=100), unique=True, max_size=8))
def test_any_names_become_safe_and_stay_distinct(prefix: str, names: list[str]) -> None:
    safe = safe_names(prefix, names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in safe.values())
    assert len(set(safe.values())) == len(names)

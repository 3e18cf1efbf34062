from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmling.knowledge.passages import PASSAGE_CHARS, Passage, passages


def test_headings_are_kept_with_what_stands_below_them() -> None:
    text = "intro\n# A\none\n## B ##\ntwo\n```\n# no heading\n~~~\n```\n# C\nthree\nD\n---\nfour\n\n---\nE\n==="
    assert list(passages(text, headings=True)) == [
        Passage("", "intro"),
        Passage("A", "one"),
        Passage("A > B", "two\n```\n# no heading\n~~~\n```"),
        Passage("C", "three"),
        Passage("C > D", "four\n\n---"),
    ]


def test_code_has_no_headings() -> None:
    assert list(passages("# comment\nx = 1", headings=False)) == [Passage("", "# comment\nx = 1")]


def test_long_text_is_cut_at_paragraphs_lines_and_spaces() -> None:
    text = "\n\n".join(["a" * 700, "b" * 700, "word " * 600, "line\n" * 600, "c" * 3000])
    pieces = [passage.text for passage in passages(text, headings=True)]
    assert max(map(len, pieces)) <= PASSAGE_CHARS
    assert pieces[:2] == ["a" * 700, "b" * 700]
    assert all(set(piece.split()) <= {"word", "line"} or set(piece) == {"c"} for piece in pieces[2:])


@given(st.text(alphabet="ab \n#=-~`'\"\t", max_size=6000) | st.text(min_size=1000, max_size=8000))
def test_no_passage_is_too_long_or_empty(text: str) -> None:
    for passage in passages(text, headings=True):
        assert 0 < len(passage.text) <= PASSAGE_CHARS
        assert passage.text.strip()


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=400), max_size=60))
def test_no_word_is_lost(words: list[str]) -> None:
    found = " ".join(passage.text for passage in passages(" ".join(words), headings=False))
    assert found.split() == words

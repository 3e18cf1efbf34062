from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmling.runtime.readable import readable

PAGE = """<!DOCTYPE html>
<html><head><title>Guide &amp; help</title><style>p {color: red}</style><script>alert("<p>no</p>")</script></head>
<body><nav><a href="/">Home</a></nav>
<h2>Start <em>here</em></h2>
<p>First   line<br>second &eacute;</p>
<ul><li><p>one</p></li><li>two <ul><li>inner</li></ul></li></ul>
<table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td>1</td></tr></table>
<pre><code>if x:
    y()</code></pre>
<template><p>hidden</p></template><svg><title>icon</title></svg>
<p>End</p></body></html>"""


def test_a_page_keeps_its_shape() -> None:
    assert readable(PAGE).splitlines() == [
        "Guide & help",
        "",
        "Home",
        "",
        "## Start here",
        "",
        "First line",
        "second é",
        "",
        "- one",
        "- two",
        "  - inner",
        "",
        "k | v",
        "a | 1",
        "",
        "```",
        "if x:",
        "    y()",
        "```",
        "",
        "End",
    ]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a<p>b", "a\n\nb"),
        ("<b>a</b><i>b</i> c", "ab c"),
        ("</ul></pre></script>x", "x"),
        ("<script>x", ""),
        ("a<!-- <p>no</p> -->b<!-- open <p>no", "ab"),
        ("a<script>x = '<!--'</script>b<STYLE>p > a {}</Style >c", "abc"),
        ("<?xml version='1.0'?><!DOCTYPE html><p>x", "x"),
        ("x <b", "x <b"),
        ("a < b & c", "a < b & c"),
        ("", ""),
    ],
)
def test_broken_markup_gives_what_can_be_read(html: str, text: str) -> None:
    assert readable(html) == text


@given(st.text(alphabet=st.sampled_from("<>/!-abp ul\"'&;=pre\n[]?")))
def test_any_markup_is_read_without_an_error(html: str) -> None:
    assert readable(html) == readable(html).strip()


@pytest.mark.parametrize(
    "unit",
    ["<!--", "<", "<a ", "</", "<?", "<![CDATA[", "&", "&#", "<a b='", "<script>", "</script ", "</script", "<p>"],
)
@pytest.mark.parametrize("end", ["", ">"])
@pytest.mark.timeout(10)
def test_no_markup_takes_time_that_grows_with_the_square_of_its_length(unit: str, end: str) -> None:
    # With the parser alone, the first of these takes minutes.
    readable(unit * (300_000 // len(unit)) + end)
    readable(f"<script>{unit * (300_000 // len(unit))}{end}")

"""Whether a file sink can write what a file trigger takes up."""

from __future__ import annotations

import pytest

from llmling.manifest.patterns import of_glob, of_template, overlap

CASES = [
    ("docs/x.md", "docs/*.md", True),
    ("docs/a/x.md", "docs/*.md", False),
    ("docs/a/x.md", "docs/**/*.md", True),
    ("docs/x.md", "docs/**/*.md", True),
    ("./docs/../docs/x.md", "docs/*.md", True),
    ("out/{{ event.id }}.md", "docs/**/*.md", False),
    ("docs/{{ event.id }}.md", "docs/*.md", True),
    ("docs/{{ event.id }}.txt", "docs/*.md", False),
    ("docs/{{ event.id }}/x.md", "docs/*.md", False),
    ("{{ event.data.where }}", "docs/*.md", True),
    ("docs/{{ a }}-{{ b }}.md", "docs/report-?.md", True),
    ("docs/{% if a %}x{% endif %}.md", "docs/[a-z].md", True),
    ("/abs/{{ a }}", "/abs/*.md", True),
    ("/abs/{{ a }}", "docs/*.md", False),
    ("../up/{{ a }}", "../up/x", True),
    ("docs2/x.md", "docs/**", False),
    ("docs/x", "docs/**", True),
    ("a/b", "a/b", True),
    ("a/b", "a/c", False),
]


@pytest.mark.parametrize(("template", "glob", "expected"), CASES)
def test_overlap(template: str, glob: str, expected: bool) -> None:
    one, other = of_template(template, "/home/pool"), of_glob(glob, "/home/pool")
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected

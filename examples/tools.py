"""Python tools for a manifest: plain functions; annotations and docstrings are all a model needs."""

from __future__ import annotations

import math

WORDS_PER_MINUTE = 230


def word_count(text: str) -> int:
    """Count the words of a text.

    Args:
        text: The text to count.
    """
    return len(text.split())


def reading_time(text: str, words_per_minute: int = WORDS_PER_MINUTE) -> str:
    """Tell how long a person takes to read a text.

    Args:
        text: The text to read.
        words_per_minute: Speed of the reader.
    """
    minutes = max(1, math.ceil(word_count(text) / max(1, words_per_minute)))
    return f"{minutes} minute{'' if minutes == 1 else 's'}"

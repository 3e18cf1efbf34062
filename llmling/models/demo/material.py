"""What a text offers to build answers from: its sentences, words, numbers and addresses."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from dataclasses import dataclass

FORMATS = frozenset(
    {
        "date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6",
        "uri", "iri", "uri-reference", "iri-reference", "uri-template", "uuid", "json-pointer",
        "relative-json-pointer", "regex",
    }
)  # fmt: skip
"""Formats of JSON Schema that `Material.formatted` knows."""

_EXAMPLES = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "hostname": "example.org",
    "idn-hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "json-pointer": "/demo",
    "relative-json-pointer": "0/demo",
    "regex": "demo",
    "uri-template": "https://example.org/{demo}",
}
_LONG = re.compile(r"text|content|summary|description|body|message|prompt|query|input|document|question|answer|reason")
_SHORT = re.compile(r"title|name|subject|label|tag|topic|category|keyword|key|id$|word|author|city|country|status")
_SENTENCE = re.compile(r"[^\n]+?(?:[.!?…](?=\s|$)|(?=\n|$))")
_URL = re.compile(r"https?://[^\s<>\"')\]]+")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PATH = re.compile(r"(?<![\w:/@.-])(?:[\w.-]+/)*[\w-]+\.[a-z][a-z0-9]{0,4}\b|(?<!\w)(?:/[\w.-]+)+")
_MARK = "[demo]"


@dataclass(frozen=True)
class Material:
    """A text to build from; `turn` makes the items of a list differ."""

    text: str
    turn: int = 0

    def turned(self, turn: int) -> Material:
        """Return the same text, read from another place."""
        return dataclasses.replace(self, turn=turn)

    @functools.cached_property
    def sentences(self) -> list[str]:
        """Its sentences as they stand there, without lines that another demo answer put in."""
        found = [match.group().strip() for match in _SENTENCE.finditer(self.text)]
        return [sentence for sentence in found if re.search(r"\w", sentence) and not sentence.startswith(_MARK)]

    @functools.cached_property
    def words(self) -> list[str]:
        """Its words of three letters and more, in order, each once."""
        return list(dict.fromkeys(re.findall(r"[^\W\d_][\w'-]{2,}", "\n".join(self.sentences))))

    @functools.cached_property
    def numbers(self) -> list[float]:
        """The numbers in it."""
        found = re.findall(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,6})?(?![\w])", self.text)[:20]
        numbers = [float(number) if "." in number else int(number) for number in found]
        start = self.turn % len(numbers) if numbers else 0
        return numbers[start:] + numbers[:start]

    def mentions(self, word: str) -> bool:
        """Whether the text has this word or phrase."""
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.text, re.IGNORECASE) is not None

    def text_for(self, name: str, variant: int = 0) -> str:
        """Return text for a value called `name`: an address, a few words, a sentence or all of it."""
        lower = name.lower()
        for wanted, pattern in (("url", _URL), ("uri", _URL), ("mail", _EMAIL), ("path", _PATH), ("file", _PATH)):
            if wanted in lower and (found := pattern.search(self.text)):
                return found.group().rstrip(".,;")
        if lower in {"text", "content", "input", "document", "body"} and variant == 0 and not self.turn:
            return self.text.strip()[:20_000]
        if _SHORT.search(lower) and not _LONG.search(lower):
            start = 3 * (self.turn + variant) % max(1, len(self.words))
            return " ".join(self.words[start : start + 3]) or f"demo {self.turn + 1}"
        if not self.sentences:
            return f"demo {self.turn + 1}"
        index = self.turn + variant
        sentence = self.sentences[index % len(self.sentences)]
        lap = index // len(self.sentences)
        return sentence if lap == 0 else f"{sentence} ({lap + 1})"

    def formatted(self, name: str) -> str:
        """Return a text of one of `FORMATS`, from the text where it has one."""
        if name in {"email", "idn-email"}:
            found = _EMAIL.search(self.text)
            return found.group() if found else f"demo{self.turn or ''}@example.org"
        if name in {"uri", "iri", "uri-reference", "iri-reference"}:
            found = _URL.search(self.text)
            return found.group().rstrip(".,;") if found else f"https://example.org/demo{self.turn or ''}"
        if name == "uuid":
            digits = hashlib.sha256(f"{self.turn}{self.text}".encode()).hexdigest()
            return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"
        if name == "date" and (found := re.search(r"\b\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])\b", self.text)):
            return found.group()
        if name == "date":
            return f"2026-01-{self.turn % 28 + 1:02d}"
        return _EXAMPLES[name]

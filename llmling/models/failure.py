"""What a failed request means: the HTTP status decides, never the wording.

Only one thing some providers tell in words alone: that the exchange does not fit the model's window.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from llmling.errors import ModelError
from llmling.masking import masked

_RETRYABLE = frozenset({408, 409, 425, 429})
_HTTP_ERRORS = frozenset({("httpx", "HTTPStatusError"), ("openai", "APIStatusError")})
_NO_CONNECTION = frozenset({("aiohttp", "ClientConnectorError"), ("httpcore", "ConnectError")})
_PREFIX = re.compile(r"^((litellm\.)?\w*(Error|Exception|Timeout)( - |: | ))+")

_TOO_LONG_STATUS = frozenset({400, 413, 422})
_TOO_LONG_CODES = re.compile(r"\b(context_length_exceeded|context_window_exceeded|exceed_context_size_error)\b")
"""Of OpenAI, Azure, Groq and those who copy them, and of llama.cpp."""
_TOO_LONG_WORDS = re.compile(
    r"prompt is too long"  # Anthropic: `invalid_request_error`, as for any other mistake
    r"|exceed context limit"  # Anthropic, with the tokens of the answer
    r"|exceeds the maximum number of tokens allowed"  # Gemini: `INVALID_ARGUMENT`, as for any other mistake
    r"|input length exceeds the (maximum )?context length|exceeds the available context size"  # Ollama
    r"|maximum context length|maximum prompt length|longer than the model's context length"  # vLLM, OpenRouter, xAI
    r"|too large for model with \d+ maximum context length"  # Mistral
    r"|input is too long for requested model",  # Bedrock
    re.IGNORECASE,
)

_ANSWERED = re.compile(
    r"thought signature"  # Gemini: of an earlier answer that another server gave; litellm asks again without it
    r"|could not finish the message because max_tokens or model output limit was reached",  # OpenAI, Azure
    re.IGNORECASE,
)


class Refused(Exception):
    """A server has answered with an error status; `text` is the body of that answer."""

    def __init__(self, status: int, headers: Mapping[str, str], text: str) -> None:
        super().__init__(text or f"HTTP status {status}, and no word of why")
        self.status = status
        self.headers = headers
        self._text = text

    @property
    def answered_by_litellm(self) -> bool:
        """Whether litellm has an answer to it: another request, or that nothing was said."""
        return self.status == 400 and _ANSWERED.search(self._text) is not None


def retryable(status: int) -> bool:
    """Whether asking again can help: request timeouts, conflicts, too many requests and failures of the server."""
    return status in _RETRYABLE or status >= 500


def model_error(
    name: str, provider: str, error: BaseException, *, base: str | None = None, secret: str | None = None
) -> ModelError:
    """Return the `ModelError` for an exception litellm raised, or our own transport.

    `base` is the address that was asked, when the user chose it; `secret` never appears in the text.
    """
    reason = masked(_reason(error), filter(None, [secret]))
    answered = _answer(error)
    if answered is not None:
        status, headers = answered
        return ModelError(
            f"{name}: {provider or 'the server'} answered {status}: {reason}",
            status=status,
            provider=provider,
            retryable=retryable(status),
            retry_after_s=retry_after_s(headers),
            too_long=too_long(status, error),
        )
    claimed = getattr(error, "status_code", None)
    if isinstance(claimed, int) and 400 <= claimed < 500 and claimed != 408:
        # litellm itself refused the request, or a provider's own package did.
        return ModelError(
            f"{name}: the request was refused: {reason}",
            status=claimed,
            provider=provider,
            retryable=retryable(claimed),
            too_long=too_long(claimed, error),
        )
    broken = next((cause for cause in _causes(error) if isinstance(cause, ImportError)), None)
    if broken is not None:
        return ModelError(f"{name}: a package it needs is missing: {broken}", provider=provider, attempts=0)
    # litellm's 408, 500 and 503 without an HTTP answer: refused or broken connections, and answers cut in the middle.
    place = f" from {base}" if base else ""
    return ModelError(
        f"{name}: no complete answer{place}: {reason}", provider=provider, retryable=True, unsent=_unsent(error)
    )


def _unsent(error: BaseException) -> bool:
    """Whether there was no connection at all: no address, or nobody who listens there."""
    return any(
        (kind.__module__.partition(".")[0], kind.__name__) in _NO_CONNECTION
        for cause in _causes(error)
        for kind in type(cause).__mro__
    )


def too_long(status: int, error: BaseException) -> bool:
    """Whether the provider refused an exchange because it does not fit the model's window."""
    if status not in _TOO_LONG_STATUS:
        return False
    causes = list(_causes(error))
    said = "\n".join(f"{getattr(cause, 'code', None)} {cause}" for cause in causes)
    return bool(_TOO_LONG_CODES.search(said) or _TOO_LONG_WORDS.search(said))


def _answer(error: BaseException) -> tuple[int, Mapping[str, str]] | None:
    """Return status and headers of the HTTP answer behind an exception.

    litellm chooses its exception by the wording of the answer too, and gives it a made-up response; the exception of
    the HTTP client or SDK further down the chain has the real one.
    """
    if isinstance(error, Refused):
        return error.status, error.headers
    for cause in reversed(list(_causes(error))):
        if any((kind.__module__.partition(".")[0], kind.__name__) in _HTTP_ERRORS for kind in type(cause).__mro__):
            response: Any = getattr(cause, "response", None)
            if not type(cause).__module__.startswith("litellm.exceptions"):
                return response.status_code, response.headers
    return None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return what `retry-after-ms` or `retry-after` asks for, in seconds; None when absent or not to be read."""
    lower = {key.lower(): value.strip() for key, value in headers.items()}
    for key, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            value = float(lower[key]) / scale
        except (KeyError, ValueError):
            continue
        if 0 <= value < float("inf"):
            return value
    date = email.utils.parsedate_tz(lower.get("retry-after", ""))
    if date is None:
        return None
    return max(0.0, dt.datetime.fromtimestamp(email.utils.mktime_tz(date), dt.UTC).timestamp() - time.time())


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _reason(error: BaseException) -> str:
    text = _PREFIX.sub("", str(getattr(error, "message", "") or error).strip())
    text = " ".join((_said(text) or text).split())
    return (text if len(text) <= 500 else text[:497] + "...") or type(error).__name__


def _said(text: str) -> str | None:
    """Return the provider's own sentence when the text is the JSON it answered with."""
    start, end = text.find("{"), text.rfind("}")
    if start not in {0, 2} or end < start:  # `b'{...}'` is how litellm prints a streamed answer
        return None
    try:
        body: Any = json.loads(text[start : end + 1])
    except ValueError:
        return None
    inner = body.get("error", body)
    said = inner.get("message") if isinstance(inner, dict) else inner  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return said if isinstance(said, str) and said else None

"""Configs of knowledge sources: text an agent may rely on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field

from llmling.manifest.base import Config, Count, RelativePath, Seconds, Template, Truth, plugged
from llmling.manifest.wire import Url


class FileKnowledgeConfig(Config):
    """A file, a glob or a folder, put into the system message in whole."""

    type: Literal["file"] = "file"
    path: RelativePath
    """File, glob or folder, relative to the file it is written in."""
    max_bytes: Count = 1_000_000
    """Largest size of all its files together."""


class UrlKnowledgeConfig(Config):
    """A page fetched at the start, and again after `refresh_s`."""

    type: Literal["url"] = "url"
    url: Url
    """Address of the page."""
    refresh_s: Seconds = 3600.0
    """Age in seconds after which it is fetched again; 0: never again."""
    max_bytes: Count = 1_000_000
    """Largest size of the page."""
    allow_private: Truth = False
    """True: the address may lie in a private or local network."""


class TextKnowledgeConfig(Config):
    """Text written in the manifest."""

    type: Literal["text"] = "text"
    content: str
    """The text."""


class PromptKnowledgeConfig(Config):
    """Text made anew for every run from a template."""

    type: Literal["prompt"] = "prompt"
    template: Template
    """Sandboxed Jinja with `now` and, in a run that an event started, `event`."""


class ResourceKnowledgeConfig(Config):
    """A resource of an MCP server, read for every run."""

    type: Literal["resource"] = "resource"
    server: str
    """Name of the MCP server."""
    uri: str = Field(min_length=1)
    """Address of the resource, as the server gives it."""


class FolderKnowledgeConfig(Config):
    """A folder that is searched for every run instead of put in whole."""

    type: Literal["folder"] = "folder"
    path: RelativePath
    """The folder; text files below it are indexed and followed."""
    mode: Literal["search"] = "search"
    """How it is used; only `search`."""
    top_k: Count = 5
    """How many passages a run gets."""


def knowledge_shorthand(value: Any) -> Any:
    """Turn a path into its mapping."""
    return {"type": "file", "path": value} if isinstance(value, str) else value


KnowledgeMapping = Annotated[
    Annotated[
        FileKnowledgeConfig
        | UrlKnowledgeConfig
        | TextKnowledgeConfig
        | PromptKnowledgeConfig
        | ResourceKnowledgeConfig
        | FolderKnowledgeConfig,
        Discriminator("type"),
    ],
    plugged("knowledge"),
]
KnowledgeConfig = Annotated[
    KnowledgeMapping, BeforeValidator(knowledge_shorthand, json_schema_input_type=str | KnowledgeMapping)
]

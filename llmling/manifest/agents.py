"""Configs of agents and the connections between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from llmling.manifest.base import (
    TEXT_OR_MAPPING,
    Amount,
    CallablePath,
    Config,
    Count,
    CountFromZero,
    Expression,
    InMapping,
    NotTruth,
    PositiveSeconds,
    Seconds,
    Template,
    Text,
    Truth,
    fresh,
)
from llmling.manifest.budgets import BudgetConfig
from llmling.manifest.knowledge import KnowledgeConfig
from llmling.manifest.models import AutoModelConfig, ModelConfig, ModelSettings
from llmling.manifest.prompts import StructuredInstructionsConfig, TemplateInstructionsConfig
from llmling.manifest.sinks import SinkConfig
from llmling.manifest.tools import ApprovalConfig, McpServerConfig, ToolConfig
from llmling.manifest.triggers import TriggerConfig


class RetriesConfig(Config):
    """Tries of one model request."""

    attempts: Count = 3
    """Tries per model request, the first one included."""
    backoff_s: Seconds = 0.5
    """Wait before the second try, in seconds; it doubles, with jitter. A provider's Retry-After wins."""
    max_backoff_s: Seconds = 30.0
    """Longest wait between two tries, in seconds."""


class RedeliveryConfig(Config):
    """Tries of one delivery."""

    attempts: Count = 5
    """Tries before the delivery is dead, the first one included."""
    backoff_s: Seconds = 1.0
    """Wait before the second try, in seconds; it doubles, with jitter."""
    max_backoff_s: Seconds = 300.0
    """Longest wait between two tries, in seconds."""


class LimitsConfig(Config):
    """Limits of one run of an agent."""

    max_iterations: Count = 20
    """Most model turns with tools of a run; when the last one still asks for tools, one more without them answers."""
    tool_calls: CountFromZero | None = None
    """Most tool calls of a run."""
    total_tokens: Count | None = None
    """Most input and output tokens of a run together."""
    timeout_s: PositiveSeconds = 300.0
    """Longest time of a run, in seconds."""
    cost_usd: Amount | None = None
    """Most US dollars of a run."""
    requests_per_minute: Count | None = None
    """Most model requests of the agent in any 60 seconds, tries included; further ones wait."""


class ContextConfig(Config):
    """How much of an exchange one model request may hold."""

    window_tokens: Count
    """Most tokens of one request, as estimated; leave room for the answer below what the model takes."""
    compact_at: Annotated[float, Field(gt=0, le=1), NotTruth] = 0.75
    """Share of the window from which on old parts of the exchange are left out, down to two thirds of it."""
    strategy: Literal["shorten", "summarise"] = "shorten"
    """`shorten`: old tool results are cut, then the oldest turns go; `summarise`: a model request sums up what goes."""


class PlanConfig(Config):
    """Plans an agent makes for itself."""

    every: Count
    """A plan is made before the first model turn and then after so many turns, by a model request of its own."""


class InboxConfig(Config):
    """The queue in front of an agent."""

    size: Count = 1000
    """Most messages that wait."""
    overflow: Literal["block", "reject", "drop_oldest"] = "block"
    """What happens to one more: the sender waits, it is refused, or the oldest one goes (dead, with the reason)."""


class ConnectionConfig(Config):
    """An edge: answers of this agent become messages of another one."""

    to: str
    """Agent or team that gets the answer."""
    when: Expression | None = None
    """Expression over `message` and `event`; the edge is taken when it is true."""
    transform: CallablePath | None = None
    """`(Message) -> Message | str | None`, sync or async; None drops the message."""
    wait: Truth = False
    """True: `run` returns when the target has settled too."""


def connection_shorthand(value: Any) -> Any:
    """Turn the name of a target into its mapping."""
    return {"to": value} if isinstance(value, str) else value


def _session(value: str) -> str:
    if value not in {"event", "shared"} and "{{" not in value:
        raise PydanticCustomError(
            "session", 'should be event, shared, or a template such as "{{ event.data.user }}"', {}
        )
    return value


SessionKey = Annotated[
    Template, AfterValidator(_session), Field(json_schema_extra={"pattern": r"^(event|shared)$|\{\{"})
]


FACT_TOOLS = ("remember", "recall")
"""Names of the tools that come with `memory: {facts: true}`."""


class MemoryConfig(Config):
    """What an agent remembers from run to run."""

    facts: Truth = False
    """True: the model gets the tools `remember` and `recall`, over facts that are kept in the engine's store."""


def _instructions_branch(value: object) -> str | None:
    if isinstance(value, Mapping):
        return "<template>" if "prompt" in value else "<parts>"
    if isinstance(value, Config):
        return "<template>" if isinstance(value, TemplateInstructionsConfig) else "<parts>"
    return "<text>" if isinstance(value, str) else "<list>" if isinstance(value, list) else None


OutputConfig = Annotated[
    Annotated[CallablePath, Text] | Annotated[dict[str, Any], InMapping],
    TEXT_OR_MAPPING,
]
InstructionsConfig = Annotated[
    Annotated[Template, Text]
    | Annotated[list[Template], Tag("<list>")]
    | Annotated[StructuredInstructionsConfig, Tag("<parts>")]
    | Annotated[TemplateInstructionsConfig, Tag("<template>")],
    Discriminator(_instructions_branch, "instructions", "should be a text, a list of texts or a mapping"),
]
ConnectionEntry = Annotated[
    ConnectionConfig, BeforeValidator(connection_shorthand, json_schema_input_type=str | ConnectionConfig)
]
McpServerEntry = Annotated[
    Annotated[str, Text] | Annotated[McpServerConfig, InMapping],
    TEXT_OR_MAPPING,
]


class NodeConfig(Config):
    """What agents and teams share."""

    description: str = ""
    """What it is for; other agents that use it as a tool read this."""
    triggers: list[TriggerConfig] = fresh(list)
    """What makes it run by itself."""
    connections: list[ConnectionEntry] = fresh(list)
    """Where its answers go: names of agents or teams, or mappings."""
    sinks: list[SinkConfig] = fresh(list)
    """Where its answers leave the pool."""
    concurrency: Count = 4
    """Most deliveries it works on at once; `run()` from Python is not bounded by it."""
    inbox: InboxConfig = InboxConfig()
    """The queue in front of it."""
    redelivery: RedeliveryConfig = RedeliveryConfig()
    """Tries of one delivery before it is dead."""
    trust: Annotated[str, Field(pattern=r"\S")] | None = None
    """Why text of strangers, private data and a way out may meet here; `validate` then does not warn of it (LL403)."""


class AgentConfig(NodeConfig):
    """One agent."""

    extends: str | None = None
    """Another agent whose keys this one starts from; mappings merge, lists and values replace."""
    model: ModelConfig = AutoModelConfig()
    """Model: a name as litellm writes it, `auto`, `demo`, `demo:script.yml`, `replay:cassette.yml`, `human`, or a
    mapping."""
    model_settings: ModelSettings = fresh(ModelSettings)
    """Settings sent with each model request."""
    instructions: InstructionsConfig = fresh(list)
    """What the agent is told before every run: sandboxed Jinja, a list of it, `{guidance, directive, constraints}`, or
    `{prompt: RootCauseAnalyzer, depth: thorough}` with the name of a reasoning template."""
    tools: list[ToolConfig] = fresh(list)
    """Python callables as `module:function`, or mappings."""
    mcp_servers: list[McpServerEntry] = fresh(list)
    """Names of the pool's MCP servers, or mappings."""
    knowledge: list[KnowledgeConfig] = fresh(list)
    """Text it may rely on: paths, or mappings."""
    output: OutputConfig | None = None
    """Shape of a structured answer: a JSON Schema, or a pydantic model as `module:Model`."""
    session: SessionKey = "event"
    """What shares one history: `event`, every event has its own; `shared`, all events of the agent; or all whose key is
    the same, written as a template: `"{{ event.data.user }}"`."""
    memory: MemoryConfig = MemoryConfig()
    """What it remembers from run to run."""
    retries: RetriesConfig = RetriesConfig()
    """How often one model request is tried, and how long it waits in between."""
    limits: LimitsConfig = LimitsConfig()
    """Limits of one run."""
    budget: BudgetConfig | None = None
    """What its runs may spend in a day or month."""
    parallel_tools: Truth = True
    """False: tool calls of one answer run one after the other."""
    context: ContextConfig | None = None
    """How much of an exchange one model request may hold; without it only a provider's refusal makes one shorter."""
    plan: PlanConfig | None = None
    """How often the agent makes a plan."""
    approval: ApprovalConfig = "destructive"
    """When a person must say yes before a tool is called: `always`, `destructive` (tools that are marked so, and MCP
    tools that are not marked as harmless) or `never`. An event waits for the answer."""
    hooks: list[CallablePath] = fresh(list)
    """Code around model requests and tool calls as `module:name`: an object with `before_model`, `after_model`,
    `before_tool`, `after_tool` or `on_event`, or a function that hears every event."""

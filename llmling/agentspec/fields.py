"""What each component of Agent Spec may hold, and which of it llmling has a word for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OURS_TOO = (
    "connections", "description", "extends", "instructions", "mcp_servers", "model", "model_settings", "output",
    "tools",
)  # fmt: skip
"""Keys of our agents that have a place in Agent Spec; the others travel in the metadata."""
COMMON = (
    "component_type", "id", "name", "description", "metadata", "agentspec_version", "air_version",
    "$referenced_components", "component_plugin_name", "component_plugin_version",
)  # fmt: skip
_IO = ("inputs", "outputs")
_LLM = (
    "model_id",
    "default_generation_parameters",
    "retry_policy",
    "provider",
    "api_provider",
    "api_type",
    "url",
    "api_key",
)
_FILES = ("key_file", "cert_file", "ca_file")
_NODE = (*_IO, "branches")
_TOOL = (*_IO, "requires_confirmation")
_REMOTE = ("session_parameters", "url", "auth", "headers", "sensitive_headers", "retry_policy")

AGENTS = ("Agent", "Flow", "ManagerWorkers", "Swarm")
LLMS = ("GeminiConfig", "LlmConfig", "OllamaConfig", "OpenAiCompatibleConfig", "OpenAiConfig", "VllmConfig")
TRANSPORTS = ("StdioTransport", "StreamableHTTPTransport")

FIELDS: Mapping[str, tuple[str, ...]] = {
    "Agent": (*_IO, "llm_config", "system_prompt", "tools", "toolboxes", "human_in_the_loop", "transforms"),
    "Swarm": (*_IO, "first_agent", "relationships", "handoff"),
    "ManagerWorkers": (*_IO, "group_manager", "workers"),
    "Flow": (*_IO, "start_node", "nodes", "control_flow_connections", "data_flow_connections"),
    "StartNode": _NODE,
    "EndNode": (*_NODE, "branch_name"),
    "AgentNode": (*_NODE, "agent"),
    "LlmNode": (*_NODE, "llm_config", "prompt_template"),
    "ControlFlowEdge": ("from_node", "from_branch", "to_node"),
    "DataFlowEdge": ("source_node", "source_output", "destination_node", "destination_input"),
    "OpenAiConfig": _LLM,
    "OpenAiCompatibleConfig": (*_LLM, *_FILES),
    "VllmConfig": (*_LLM, *_FILES),
    "OllamaConfig": (*_LLM, *_FILES),
    "GeminiConfig": (*_LLM, "auth"),
    "LlmConfig": _LLM,
    "GeminiAIStudioAuthConfig": ("api_key",),
    "ServerTool": _TOOL,
    "MCPTool": (*_TOOL, "client_transport", "retry_policy"),
    "MCPToolBox": ("client_transport", "tool_filter", "requires_confirmation", "retry_policy"),
    "MCPToolSpec": _TOOL,
    "StdioTransport": ("session_parameters", "command", "args", "env", "cwd"),
    "StreamableHTTPTransport": _REMOTE,
}
"""Fields of the components we read."""

ONLY: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "Agent": {"transforms": ([],)},
    "Swarm": {"handoff": ("never", "optional", True, False)},
    "EndNode": {"branch_name": ("next",)},
    **{kind: {"api_type": ("chat_completions",), **dict.fromkeys(_FILES, ())} for kind in LLMS},
    "MCPTool": {"retry_policy": ()},
    "MCPToolBox": {"retry_policy": ()},
    "StreamableHTTPTransport": {"retry_policy": (), "auth": ()},
}
"""Fields that are read but have a meaning for us with these values only; absent and null always do."""

NOT_OURS: Mapping[str, str] = {
    "A2AAgent": "", "OciAgent": "", "OpenAiAgent": "", "SpecializedAgent": "write the agent out as `Agent`",
    "BuiltinTool": "", "ClientTool": "let it be a `ServerTool`",
    "RemoteTool": "let a Python function make the request, and be a `ServerTool`",
    "ApiNode": "let an agent with a tool stand there", "BranchingNode": "", "CatchExceptionNode": "", "FlowNode": "",
    "InputMessageNode": "", "MapNode": "", "OutputMessageNode": "", "ParallelFlowNode": "", "ParallelMapNode": "",
    "ToolNode": "let an agent with the tool stand there",
    "DbmsVectorChainLlmConfig": "", "OciGenAiConfig": "use its OpenAI-compatible address with `OpenAiCompatibleConfig`",
    "GeminiVertexAIAuthConfig": "use `GeminiAIStudioAuthConfig`",
    "SSETransport": "use `StreamableHTTPTransport`", "SSEmTLSTransport": "use `StreamableHTTPTransport`",
    "StreamableHTTPmTLSTransport": "use `StreamableHTTPTransport`",
    "ConversationSummarizationTransform": "", "MessageSummarizationTransform": "", "OAuthConfig": "",
    "OAuthClientConfig": "", "A2AConnectionConfig": "", "AgentSpecializationParameters": "",
}  # fmt: skip
"""Components of Agent Spec that llmling has no word for, with what to write instead."""

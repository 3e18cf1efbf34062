"""Bedrock's Converse: requests are signed one by one, unless there is a key for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from llmling.models.ways.base import Sign, module
from llmling.models.ways.framed import FramedWay
from llmling.models.wire import Answer

_OTHER_PROOF = ("AWS_ROLE_NAME", "AWS_PROFILE_NAME", "AWS_WEB_IDENTITY_TOKEN")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_JSON = {"Content-Type": "application/json"}
_AWS = "litellm.llms.bedrock.base_aws_llm"
_OF_THE_CLIENT = frozenset({"content-length", "host"})
"""What our HTTP client writes itself."""


class BedrockWay(FramedWay):
    """How a model is asked by Converse: with a key of Bedrock, or the fixed keys of an account."""

    says_stream = False

    def head(self) -> tuple[str, dict[str, str]]:
        """Return the address and the headers.

        Raises:
            ValueError: It is not asked by Converse, or who is asking is found out in another way.
        """
        common, env = module("litellm.llms.bedrock.common_utils"), os.environ
        self.client = module("litellm.llms.bedrock.chat.converse_handler").BedrockConverseLLM()
        self.optional.pop("stream", None)
        asked = {**self.offer.settings, **({"tools": self.optional["tools"]} if self.offer.tools else {})}
        route = common.bedrock_route_for_request(self.model, asked, None)
        name = common.without_bedrock_route_prefix(self.model)
        self.region = env.get("AWS_REGION_NAME") or env.get("AWS_REGION") or ""
        if route != "converse" or "/" in name or not self.region or "outputConfig" in self.optional or self.extra:
            raise ValueError("this model or offer is asked in a way of its own")
        self.model = name
        self.able: str = common.bedrock_capability_model(name, None)
        self.region = self.client._get_aws_region_name(optional_params={}, model=name)
        self.own["aws_region_name"] = self.region
        _, base = self.client.get_runtime_endpoint(
            api_base=self.base or None, aws_bedrock_runtime_endpoint=None, aws_region_name=self.region
        )
        call = "converse-stream" if self.stream else "converse"
        path = f"model/{self.client.encode_model_id(model_id=name)}/{call}"
        url: str = module("litellm.litellm_core_utils.url_utils").join_api_base(base, path)
        token = module(_AWS).bedrock_bearer_token(self.key)
        return url, {**_JSON, "Authorization": f"Bearer {token}"} if token else dict(_JSON)

    def signer(self, url: str, headers: Mapping[str, str]) -> Sign | None:
        """Return what signs a request, or None when a key is sent with it instead.

        Raises:
            ValueError: Who is asking is found out in another way, which may take long.
        """
        if "Authorization" in headers:
            return None
        env = os.environ
        if not all(map(env.get, _KEYS)) or any(map(env.get, _OTHER_PROOF)):
            raise ValueError("the keys of the account are not fixed")
        credentials = self.client.resolve_credentials(module(_AWS).AwsAuthParams(), self.region)

        def sign(body: bytes) -> dict[str, str]:
            request = self.client.get_request_headers(
                credentials=credentials, aws_region_name=self.region, extra_headers=None, endpoint_url=url,
                data=body, headers=dict(_JSON), supports_bearer_token=False,
            )  # fmt: skip
            return {name: value for name, value in request.headers.items() if name.lower() not in _OF_THE_CLIENT}

        return sign

    def head_of_body(self, headers: dict[str, str]) -> str | None:
        """Return None, for its messages are in a format of their own.

        Raises:
            ValueError: The names of the tools are not sent as they are.
        """
        before = dict(headers)
        tools = self.prove(headers).get("toolConfig", {}).get("tools", ())
        self.refuse_other_names(tool["toolSpec"]["name"] for tool in tools)
        if headers != before:
            raise ValueError("litellm changes the headers for this offer")
        return None

    def written(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the messages, and what the model is told first, as litellm writes them."""
        able = self.able
        kept, system = self.config._transform_system_message(messages, model=able, deployment_model=self.model)
        written = module("litellm.litellm_core_utils.prompt_templates.factory")._bedrock_converse_messages_pt(
            messages=kept, model=able, deployment_model=self.model, llm_provider="bedrock_converse",
            drop_params=self.litellm.drop_params is True,
        )  # fmt: skip
        return {"messages": written, **({"system": system} if system else {})}

    def iterator(self, answer: Answer) -> Callable[[Any], Any]:
        """Return litellm's reader of the pieces of a stream, for one of which `answer` has been read already."""
        reader = module("litellm.llms.bedrock.chat.invoke_handler").AWSEventStreamDecoder(model=self.model)
        reader.tool_calls_index = max(answer.calls, default=None)
        read: Callable[[Any], Any] = reader.converse_chunk_parser
        return read

"""OpenAI's Responses API, the newer of its two dialects; also spoken by other services and local servers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded, Provider
from llmbridge.providers.openai_responses import answer
from llmbridge.providers.openai_responses.request import (
    encode_choice,
    encode_items,
    encode_params,
    encode_schema,
    encode_schema_tool,
    encode_tool,
)

if TYPE_CHECKING:
    from llmbridge.events import End, Item
    from llmbridge.provider import Frame

__all__ = ["OpenAIResponses"]

_NO_PENALTY = "the Responses API does not support penalties: leave it out, or use the provider openai"


class OpenAIResponses(Provider):
    """OpenAI's Responses API; the key is in OPENAI_API_KEY.

    There are no settings. The service stores each answer for some time unless `store=False` is passed.

    Example:
        >>> request = ChatRequest.checked("gpt-5.4-mini", "Hi", {"reasoning_effort": "low"}, system="Be brief.")
        >>> body = OpenAIResponses.encode(request).body
        >>> body["instructions"], body["input"], body["reasoning"]
        ('Be brief.', [{'type': 'message', 'role': 'user', 'content': 'Hi'}], {'effort': 'low'})

    Source:
        OpenAI API reference, responses: named events, the last of which is `response.completed`, `.incomplete` or
        `.failed`; no `[DONE]`.
    """

    name = "openai-responses"
    url = "https://platform.openai.com"
    base_url = "https://api.openai.com/v1"
    path = "/responses"
    key_env: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    base_url_env = "OPENAI_BASE_URL"
    key_name = "openai"
    needs_key = True
    note = "set OPENAI_API_KEY; base_url= for another server with a Responses API"
    supports = frozenset({"tools", "schema"})
    models_path = "/models"
    refused: ClassVar[Mapping[str, str]] = {
        "stop": "the Responses API does not support stop sequences: leave it out, or use the provider openai",
        "n": "the Responses API gives one answer: send several requests, or use the provider openai",
        "seed": "the Responses API does not support seeds: leave it out, or use the provider openai",
        "presence_penalty": _NO_PENALTY,
        "frequency_penalty": _NO_PENALTY,
        "logit_bias": "the Responses API does not support it: leave it out, or use the provider openai",
        "top_k": "OpenAI supports only top_p",
    }

    decode = staticmethod(answer.decode_event)
    decode_document = staticmethod(answer.decode_response)

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        instructions, items = encode_items(
            request.messages, "instructions" in request.params, request.params.get("store") is not False
        )
        body: dict[str, Any] = {"model": request.model, "input": items, "stream": True}
        if instructions is not None:
            body["instructions"] = instructions
        if request.params:
            body.update(encode_params(request.params))
        if request.tools or request.tool_choice is not None or request.schema is not None:
            cls._add_structure(body, request)
        return Encoded(body, cls.path)

    @classmethod
    def _add_structure(cls, body: dict[str, Any], request: ChatRequest) -> None:
        """Adds the tools and the schema."""
        schema, mode = request.schema, request.schema_mode or "native"
        tools = [encode_tool(tool) for tool in request.tools]
        choice = None if request.tool_choice is None else encode_choice(request.tool_choice)
        if schema is not None and mode == "tool":
            tools.append(encode_schema_tool(schema))
            choice = choice or ("required" if request.tools else {"type": "function", "name": schema.name})
        elif schema is not None:
            form = encode_schema(schema) if mode == "native" else {"type": "json_object"}
            body["text"] = {**body.get("text", {}), "format": form}
            if mode == "json":  # the service requires the word JSON in a message
                told = {"type": "message", "role": "system", "content": schema.instruction()}
                body["input"] = [told, *body["input"]]
        if tools:
            body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        refused = dict(super().refusals(request))
        if request.params:
            from llmbridge.providers.openai.rules import refusals

            of_model = refusals(request.model, request.params)
            refused.update({name: advice for name, advice in of_model.items() if name not in cls.refused})
        return refused

    @classmethod
    def answer_tool(cls, request: ChatRequest) -> str | None:
        return request.schema.name if request.schema is not None and request.schema_mode == "tool" else None

    @classmethod
    def decoder(cls) -> Callable[[Frame], Iterable[Item | End]]:
        return answer.ResponseDecoder().decode

    @classmethod
    def decode_models(cls, document: Any) -> list[str]:
        from llmbridge.providers.openai.answer import decode_models

        return decode_models(document)

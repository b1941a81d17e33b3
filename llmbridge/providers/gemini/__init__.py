"""Google's Gemini, through the Gemini Developer API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llmbridge.errors import InvalidRequest
from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded, Provider
from llmbridge.providers.gemini import answer
from llmbridge.providers.gemini.request import (
    always_thinks,
    encode_choice,
    encode_contents,
    encode_params,
    encode_schema,
    encode_tools,
    is_gemini_3,
    model_path,
)

if TYPE_CHECKING:
    from llmbridge.events import End, Item
    from llmbridge.messages import SchemaMode
    from llmbridge.provider import Frame

__all__ = ["Gemini"]

_VERSION = re.compile(r"[A-Za-z0-9._-]{1,40}")


class Gemini(Provider):
    """Google's Gemini, through the Gemini Developer API; the key is in GOOGLE_API_KEY or GEMINI_API_KEY.

    A key that starts with `ya29.` is an OAuth token, sent as a Bearer token.

    The setting `api_version` (default "v1beta") is part of the path. `stream=False` requests the whole answer at once;
    it is handed out in the same way.

    Example:
        >>> encoded = Gemini.encode(ChatRequest.checked("gemini-3.5-flash", "Hi", {"max_tokens": 9}))
        >>> encoded.path
        '/v1beta/models/gemini-3.5-flash:streamGenerateContent?alt=sse'
        >>> encoded.body["generationConfig"]
        {'maxOutputTokens': 9}

    Source:
        Gemini API reference, models.generateContent, models.batchEmbedContents, models.list; google-genai: unnamed
        events that are whole responses, no end mark, errors inside a stream as bare JSON.
    """

    name = "gemini"
    url = "https://ai.google.dev"
    base_url = "https://generativelanguage.googleapis.com"
    path = "/v1beta"
    key_env: ClassVar[tuple[str, ...]] = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    needs_key = True
    note = "keys are made in Google AI Studio"
    supports = frozenset({"tools", "schema"})
    refused: ClassVar[Mapping[str, str]] = {
        "user": "Gemini does not support it",
        "metadata": "Gemini does not support it",
        "logit_bias": "Gemini does not support it",
        "parallel_tool_calls": "Gemini may always call several functions at once: leave it out",
    }
    models_path = "/v1beta/models?pageSize=1000"
    settings = frozenset({"api_version"})
    embeddings_batch = 100

    decode = staticmethod(answer.decode_event)
    decode_document = staticmethod(answer.decode_answer)
    decode_models = staticmethod(answer.decode_models)
    decode_embeddings = staticmethod(answer.decode_vectors)

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        params = dict(request.params)
        version, stream = _version(params), params.pop("stream", True)
        params.pop("parallel_tool_calls", None)  # always allowed
        params.pop("stream_options", None)  # always counted
        contents, system = encode_contents(request)
        body: dict[str, Any] = {"contents": contents}
        config: dict[str, Any] = {}
        fields: dict[str, Any] = {}
        if params:
            config, fields = encode_params(params, request.model)
        if request.tools or request.tool_choice is not None or request.schema is not None:
            config = {**cls._add_structure(body, system, request), **config}
        if system:
            body["systemInstruction"] = {"parts": system}
        if config:
            body["generationConfig"] = config
        body.update(fields)
        method = ":streamGenerateContent?alt=sse" if stream else ":generateContent"
        return Encoded(body, f"/{version}/{model_path(request.model)}{method}")

    @classmethod
    def _add_structure(cls, body: dict[str, Any], system: list[dict[str, Any]], request: ChatRequest) -> dict[str, Any]:
        """Adds the tools and the schema; returns their part of the generation configuration."""
        schema, mode = request.schema, cls._schema_mode(request)
        choice = None if request.tool_choice is None else encode_choice(request.tool_choice)
        if tools := encode_tools(request.tools, schema if mode == "tool" else None):
            body["tools"] = tools
        config: dict[str, Any] = {}
        if schema is not None and mode == "tool":
            only = {} if request.tools else {"allowedFunctionNames": [schema.name]}
            choice = choice or {"functionCallingConfig": {"mode": "ANY", **only}}
        elif schema is not None:
            config["responseMimeType"] = "application/json"
            if mode == "native":
                config["responseJsonSchema"] = encode_schema(schema.json_schema)
            else:
                system.append({"text": schema.instruction()})
        if choice is not None:
            body["toolConfig"] = choice
        return config

    @staticmethod
    def _schema_mode(request: ChatRequest) -> SchemaMode:
        """How structured output is requested: models before Gemini 3 reject a JSON format beside tools."""
        beside_tools: SchemaMode = "tool" if request.tools and not is_gemini_3(request.model) else "native"
        return request.schema_mode or beside_tools

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        refused = dict(super().refusals(request))
        if request.params.get("reasoning_effort") in ("none", 0) and always_thinks(request.model):
            refused["reasoning_effort"] = "this model always thinks: 'low' is the least"
        return refused

    @classmethod
    def answer_tool(cls, request: ChatRequest) -> str | None:
        return request.schema.name if request.schema is not None and cls._schema_mode(request) == "tool" else None

    @classmethod
    def decoder(cls) -> Callable[[Frame], Iterable[Item | End]]:
        return answer.Reader().read

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        return super().auth_headers(key) if key.startswith("ya29.") else {"x-goog-api-key": key}

    @classmethod
    def encode_models(cls, settings: Mapping[str, Any]) -> Encoded:
        return Encoded({}, f"/{_version(dict(settings))}/models?pageSize=1000")

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        given = dict(params)
        version, path = _version(given), model_path(model)
        names = {"dimensions": "outputDimensionality", "task_type": "taskType"}
        fields = {names.get(name, name): value for name, value in given.items()}
        asked = [{"model": path, "content": {"parts": [{"text": text}]}, **fields} for text in texts]
        return Encoded({"requests": asked}, f"/{version}/{path}:batchEmbedContents")


def _version(params: dict[str, Any]) -> str:
    """The API version, removed from the parameters."""
    version = params.pop("api_version", None)
    if version is None:
        return "v1beta"
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise InvalidRequest("api_version must be a str like 'v1beta' or 'v1'")
    return version

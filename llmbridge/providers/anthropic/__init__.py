"""Anthropic's Messages, the dialect of Claude; also spoken by llama.cpp, LiteLLM and other servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded, Provider
from llmbridge.providers.anthropic import answer
from llmbridge.providers.anthropic.request import encode_body, encode_headers, schema_mode
from llmbridge.providers.anthropic.thinking import VERSION, sampling_refusals, thinking_refusals
from llmbridge.secret import Key, Secret

if TYPE_CHECKING:
    from llmbridge.events import End, Item
    from llmbridge.provider import Frame

__all__ = ["Anthropic"]

_TOKEN_VARIABLE = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - the variable's name


class _Token(str):
    """A key sent as a Bearer token."""

    __slots__ = ()


class _BearerSecret(Secret):
    """The secret of ANTHROPIC_AUTH_TOKEN: gateway tokens do not differ in form from keys."""

    __slots__ = ()

    def reveal(self) -> str:
        return _Token(super().reveal())


class Anthropic(Provider):
    """Anthropic's own service, and any other server that speaks its dialect: give its `base_url` without `/v1`.

    The key comes from ANTHROPIC_API_KEY (header `x-api-key`) or ANTHROPIC_AUTH_TOKEN (a Bearer token, like any key that
    starts with `sk-ant-oat`), another base URL from ANTHROPIC_BASE_URL.

    Settings, passed like parameters: `api_version` is the API's version, default "2023-06-01"; `beta` is the name of a
    beta feature, or a list of names. Both become headers.

    The service requires `max_tokens`. Its default is 4096, or 16384 with a reasoning effort, or 4096 more than the
    thinking budget.

    Example:
        >>> encoded = Anthropic.encode(ChatRequest.checked("claude-sonnet-5", "Hi", {"stop": "END", "beta": "x-1"}))
        >>> encoded.body["max_tokens"], encoded.body["stop_sequences"], encoded.headers
        (4096, ['END'], {'anthropic-beta': 'x-1'})

    Source:
        Anthropic API reference, Messages and streaming; the types of Anthropic's Python SDK, 0.121 and 2.11; streams of
        llama.cpp's server and of a simulator.
    """

    name = "anthropic"
    url = "https://platform.claude.com"
    base_url = "https://api.anthropic.com"
    path = "/v1/messages"
    key_env: ClassVar[tuple[str, ...]] = ("ANTHROPIC_API_KEY", _TOKEN_VARIABLE)
    base_url_env = "ANTHROPIC_BASE_URL"
    needs_key = True
    headers: ClassVar[Mapping[str, str]] = {"anthropic-version": VERSION}
    note = "set ANTHROPIC_API_KEY; base_url= for another server with the same dialect"
    supports = frozenset({"tools", "schema"})
    models_path = "/v1/models?limit=1000"  # the largest page; the default is 20
    settings = frozenset({"api_version", "beta"})
    refused: ClassVar[Mapping[str, str]] = {
        "seed": "Anthropic cannot repeat an answer: leave it out",
        "presence_penalty": "ask for variety in the system message",
        "frequency_penalty": "ask for variety in the system message",
        "n": "Anthropic gives one answer per request: send several requests",
        "logprobs": "Anthropic does not return log probabilities",
        "top_logprobs": "Anthropic does not return log probabilities",
        "logit_bias": "say in the system message which words you want",
        "stream_options": "Anthropic always counts tokens: leave it out",
    }

    decode = staticmethod(answer.decode_event)
    decode_document = staticmethod(answer.decode_message)
    decode_models = staticmethod(answer.decode_models)

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        params = dict(request.params)
        params.pop("n", None)  # the service always gives one answer
        version, headers = encode_headers(params)
        return Encoded(encode_body(request, params, version, cls.answer_tool(request)), cls.path, headers)

    @classmethod
    def encode_models(cls, settings: Mapping[str, Any]) -> Encoded:
        return Encoded({}, cls.models_path, encode_headers(dict(settings))[1])

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        by_version = {**dict(thinking_refusals(request)), **dict(sampling_refusals(request))}
        return {**super().refusals(request), **by_version}

    @classmethod
    def answer_tool(cls, request: ChatRequest) -> str | None:
        return request.schema.name if request.schema is not None and schema_mode(request) == "tool" else None

    @classmethod
    def decoder(cls) -> Callable[[Frame], Iterable[Item | End]]:
        return answer.Events().read

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        if isinstance(key, _Token) or key.startswith("sk-ant-oat"):
            return {"Authorization": f"Bearer {key}"}
        return {"x-api-key": key}

    @classmethod
    def find_key(cls, api_key: Secret | None, elsewhere: bool) -> Key | None:
        if api_key is None and not os.environ.get(cls.key_env[0], "").strip():
            token = os.environ.get(_TOKEN_VARIABLE, "").strip()
            if token and _TOKEN_VARIABLE in cls.key_env:
                return _BearerSecret(token, _TOKEN_VARIABLE)
        return super().find_key(api_key, elsewhere)

"""OpenAI's models on Azure: OpenAI's dialect with other paths and another header for the key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from llmbridge.errors import InvalidRequest
from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded
from llmbridge.providers.openai import OpenAI, OpenAICompatible

__all__ = ["Azure"]

VERSION = "2024-10-21"
V1 = "/openai/v1"

_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.")
_KEY = re.compile(r"[0-9a-f]{32}|[0-9A-Za-z]{84}")  # keys before and since 2024
_DATED = re.compile(r"/openai(?:/deployments/[^/]+)?(?P<path>/[^?]*)\?api-version=.*")


class Azure(OpenAICompatible):
    """Azure OpenAI. The model is the deployment's name.

    A base URL ending in `/openai/v1` is the API without versions, with OpenAI's own paths and body. With any other base
    URL, the deployment is part of the path, followed by `api_version`.

    Keys are sent in the header `api-key`, Entra ID tokens as Bearer tokens. A function given as `api_key` returns a
    token, unless the result looks like a key; any other key is a token if it is a JSON Web Token.

    Example:
        >>> Azure.encode(ChatRequest.checked("chat-eu", "Hi", {"api_version": "2024-06-01"})).path
        '/openai/deployments/chat-eu/chat/completions?api-version=2024-06-01'

    Source:
        Azure OpenAI REST API reference (2024-10-21 is the last dated version that is not a preview) and the pages on
        the v1 API of August 2025.
    """

    name = "azure"
    url = "https://azure.microsoft.com"
    base_url_env = "AZURE_OPENAI_ENDPOINT"
    base_url_example = "https://NAME.openai.azure.com"
    key_env = ("AZURE_OPENAI_API_KEY",)
    needs_key = True
    note = "the model is the deployment's name; set AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT"
    own_models = True
    refused: ClassVar[Mapping[str, str]] = OpenAI.refused
    reasoning_field = ""
    think_tags = False
    models_path = f"/openai/models?api-version={VERSION}"
    settings = frozenset({"api_version"})
    renamed: ClassVar[Mapping[str, str]] = {"max_tokens": "max_completion_tokens"}

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        return super().auth_headers(key) if _JWT.match(key) else {"api-key": key}

    @classmethod
    def token_headers(cls, key: str) -> dict[str, str]:
        return cls.auth_headers(key) if _KEY.fullmatch(key) else super().auth_headers(key)

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        return _deployed(super().encode(request), request.model)

    @classmethod
    def encode_models(cls, settings: Mapping[str, Any]) -> Encoded:
        return Encoded({}, f"/openai/models?api-version={_version(dict(settings))}")

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        return _deployed(super().encode_embeddings(model, texts, params), model)

    @classmethod
    def path_below(cls, base_url: str, path: str) -> str:
        dated = _DATED.fullmatch(path) if base_url.endswith(V1) else None
        return path if dated is None else dated["path"]


def _deployed(encoded: Encoded, model: str) -> Encoded:
    """The same request, with the path of a deployment."""
    body = dict(encoded.body)
    version = _version(body)
    return Encoded(body, f"/openai/deployments/{quote(model, safe='')}{encoded.path}?api-version={version}")


def _version(params: dict[str, Any]) -> str:
    """The API version as a part of the URL, removed from the parameters."""
    version = params.pop("api_version", VERSION)
    if not isinstance(version, str) or not version.strip():
        raise InvalidRequest(f"api_version must be a str like {VERSION!r}")
    return quote(version.strip(), safe="")

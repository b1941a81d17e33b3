"""OpenAI's models on Azure: OpenAI's dialect under other paths, with another header for the key."""

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
_KEY = re.compile(r"[0-9a-f]{32}|[0-9A-Za-z]{84}")  # of a resource, before and since 2024
_DATED = re.compile(r"/openai(?:/deployments/[^/]+)?(?P<path>/[^?]*)\?api-version=.*")


class Azure(OpenAICompatible):
    """Azure OpenAI. The model is the name of the deployment.

    A base URL that ends in `/openai/v1` is that of the API without versions: paths and body are OpenAI's own there.
    Below any other, the deployment stands in the path, with `api_version` behind it.

    A key goes into the header `api-key`; a token of Entra ID goes out as a Bearer token. What a function given as
    `api_key` returns is a token, unless it has the form of a key; any other key is one if it is a JSON Web Token.

    Example:
        >>> Azure.encode(ChatRequest.checked("chat-eu", "Hi", {"api_version": "2024-06-01"})).path
        '/openai/deployments/chat-eu/chat/completions?api-version=2024-06-01'

    Source:
        Azure OpenAI REST API reference (2024-10-21 is the last version with a date that is no preview) and the pages on
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
    """The same under the path of a deployment."""
    body = dict(encoded.body)
    version = _version(body)
    return Encoded(body, f"/openai/deployments/{quote(model, safe='')}{encoded.path}?api-version={version}")


def _version(params: dict[str, Any]) -> str:
    """The version of the API as a part of a URL, taken out of the parameters."""
    version = params.pop("api_version", VERSION)
    if not isinstance(version, str) or not version.strip():
        raise InvalidRequest(f"api_version must be a str like {VERSION!r}")
    return quote(version.strip(), safe="")

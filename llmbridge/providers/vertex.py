"""Google Cloud's Vertex AI: Gemini and Claude in their own dialects, with paths for a project.

Source: Vertex AI API reference, generateContent, streamRawPredict, locations; "Claude on Vertex AI" in Anthropic's API
documentation; google-genai 3.6 and anthropic 2.14, which send the same; google-auth, Application Default Credentials.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any, ClassVar
from urllib.parse import quote

from llmbridge.errors import ConfigError, InvalidRequest, MissingKey
from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded, Provider
from llmbridge.providers.anthropic import Anthropic
from llmbridge.providers.gemini import Gemini
from llmbridge.secret import Key, KeyFunction, Secret

__all__ = ["Vertex", "VertexAnthropic"]

_VERSION = "vertex-2023-10-16"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,99}")
_CREDENTIALS_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_REGIONS = ("us", "eu")  # each covers several locations and has its own host

_found: tuple[Any, Any] | None = None  # the source of the credentials, and the credentials


class _VertexAI(Provider):
    """What both dialects share: token, project and location."""

    base_url = "https://aiplatform.googleapis.com"
    path = "/v1/projects"
    url = "https://cloud.google.com/vertex-ai"
    key_env: ClassVar[tuple[str, ...]] = ("VERTEX_API_KEY",)
    base_url_env = ""
    key_name = "vertex"
    needs_key = False  # Google's credentials may exist; `find_key` says if not
    models_path = ""
    embeddings_batch = 0
    settings_env: ClassVar[Mapping[str, str]] = {
        "project": "GOOGLE_CLOUD_PROJECT",
        "location": "GOOGLE_CLOUD_LOCATION",
    }

    @classmethod
    def with_settings(cls, params: Mapping[str, Any], elsewhere: bool) -> Mapping[str, Any]:
        found = super().with_settings(params, elsewhere)
        if "project" not in found and not elsewhere:
            raise ConfigError(
                f"{cls.name} needs a project: set the environment variable GOOGLE_CLOUD_PROJECT, or pass project=",
                provider=cls.name,
            )
        return found

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key} if key.startswith(("AIza", "AQ.")) else {"Authorization": f"Bearer {key}"}

    @classmethod
    def find_key(cls, api_key: Secret | None, elsewhere: bool) -> Key | None:
        key = super().find_key(api_key, elsewhere)
        if key is not None:
            return key
        try:
            import_module("google.auth")
        except ImportError:
            if elsewhere:
                return None
        else:
            return KeyFunction(partial(_default_token, elsewhere), optional=elsewhere)
        raise MissingKey(
            f"{cls.name} needs a Google Cloud token: pip install 'llmbridge[vertex]' and run "
            "gcloud auth application-default login, or pass api_key= (a token, or a function that returns one), "
            f"or set the environment variable {cls.key_env[0]}",
            provider=cls.name,
        )


class Vertex(_VertexAI, Gemini):
    """Gemini on Vertex AI. Without `api_key`, the token comes from Google's Application Default Credentials.

    Settings, passed like parameters: `project` (or GOOGLE_CLOUD_PROJECT), `location` (or GOOGLE_CLOUD_LOCATION; default
    "global"), and `api_version` (default "v1"). `api_key` is an access token, or a function that returns one; a key
    that starts with `AIza` or `AQ.` is an API key. The package google-auth is imported only without `api_key`.

    Example:
        >>> asked = ChatRequest.checked("gemini-3.5-flash", "Hi", {"project": "p1", "location": "europe-west4"})
        >>> Vertex.encode(asked).base_url
        'https://europe-west4-aiplatform.googleapis.com'
        >>> Vertex.encode(asked).path.partition(":")[0]
        '/v1/projects/p1/locations/europe-west4/publishers/google/models/gemini-3.5-flash'
    """

    name = "vertex"
    settings = frozenset({"project", "location", "api_version"})
    note = (
        "Gemini on Vertex AI, never tried live; set GOOGLE_CLOUD_PROJECT; api_key=, or google-auth (llmbridge[vertex])"
    )

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        if request.model.startswith("claude"):
            raise InvalidRequest(f"for Claude on Vertex AI write 'vertex-anthropic:{request.model}'")
        params = {"api_version": "v1", **request.params}
        base_url, place = _taken_place(params)
        encoded = super().encode(replace(request, params=params))
        version, _, model = encoded.path[1:].partition("/")
        return Encoded(encoded.body, f"/{version}{place}/publishers/google/{model}", encoded.headers, base_url)


class VertexAnthropic(_VertexAI, Anthropic):
    """Claude on Vertex AI; token, project and location as for `Vertex`, `beta` as for `Anthropic`.

    Example:
        >>> asked = ChatRequest.checked("claude-sonnet-5-5", "Hi", {"project": "p1"})
        >>> VertexAnthropic.encode(asked).path
        '/v1/projects/p1/locations/global/publishers/anthropic/models/claude-sonnet-5-5:streamRawPredict'
        >>> "model" in VertexAnthropic.encode(asked).body
        False
    """

    name = "vertex-anthropic"
    settings = frozenset({"project", "location", "beta"})
    headers: ClassVar[Mapping[str, str]] = {}
    note = "Claude on Vertex AI, never tried live; settings as for vertex"
    refused: ClassVar[Mapping[str, str]] = {
        **Anthropic.refused,
        "api_version": f"Vertex AI has only the version {_VERSION}: leave it out",
    }

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        params = dict(request.params)
        base_url, place = _taken_place(params)
        encoded = super().encode(replace(request, params=params))
        body = {"anthropic_version": _VERSION, **encoded.body}
        model = quote(str(body.pop("model")), safe="@")
        method = "streamRawPredict" if body.get("stream") else "rawPredict"
        return Encoded(body, f"/v1{place}/publishers/anthropic/models/{model}:{method}", encoded.headers, base_url)


def _taken_place(params: dict[str, Any]) -> tuple[str, str]:
    """The base URL and the path of the location; removes the settings from the parameters.

    Without a project there is no such path: a gateway in place of Google may have its own.
    """
    project, location = params.pop("project", None), params.pop("location", "global")
    if not isinstance(location, str) or not _NAME.fullmatch(location):
        raise InvalidRequest("location must be a str like 'europe-west4' or 'global'")
    host = f"{location}-aiplatform" if location != "global" else "aiplatform"
    if location in _REGIONS:
        host = f"aiplatform.{location}.rep"
    base_url = f"https://{host}.googleapis.com"
    if project is None:
        return base_url, ""
    if not isinstance(project, str) or not _PROJECT.fullmatch(project):
        raise InvalidRequest("project must be a str like 'my-project-1234', the project's ID")
    return base_url, f"/projects/{quote(project, safe=':')}/locations/{location}"


def _default_token(optional: bool = False) -> str | None:
    """A token from the Application Default Credentials. Blocks.

    Args:
        optional: Whether missing credentials give None instead of an error.

    Raises:
        MissingKey: There are no credentials, or they give no token; google-auth's error is the cause.
    """
    global _found
    auth = import_module("google.auth")
    source = auth.default, os.environ.get(_CREDENTIALS_VARIABLE)
    try:
        if _found is None or _found[0] != source:
            _found = source, auth.default(scopes=[_SCOPE])[0]
    except Exception as error:
        if optional:
            return None
        raise _missing(error) from error
    credentials = _found[1]
    try:
        if not credentials.valid:
            credentials.refresh(import_module("google.auth.transport.requests").Request())
    except Exception as error:
        raise _missing(error) from error
    return str(credentials.token)


def _missing(error: Exception) -> MissingKey:
    return MissingKey(
        f"google-auth found no Google Cloud token ({type(error).__name__}): run gcloud auth application-default "
        f"login, set {_CREDENTIALS_VARIABLE}, or pass api_key="
    )

"""The endpoints' answers before they are sent: one module per dialect, chosen by the path.

| path ends in | answers as |
|---|---|
| `/chat/completions`, `/responses`, `/embeddings`, `/models` | OpenAI; below `/mistral/` as Mistral |
| `/v1/messages`, `/v1/messages/count_tokens`, and `/v1/models` for an `anthropic-version` | Anthropic |
| `/models/{model}:rawPredict`, `/models/{model}:streamRawPredict` | Anthropic on Vertex AI |
| any other `/models/{model}:{method}`, and `/models` for a Gemini key or below `/v1beta` | Gemini |
| `/api/chat` for a request with a `model`, `/api/embed`, `/api/tags`, `/api/ps`, `/api/show`, `/api/version` | Ollama |
| `/v2/chat`, `/v2/embed`, and `/models` below `/cohere/` | Cohere |
| `/api/chat`  the ancestors, CodeLinkAva and Vitalentum| the ancestors, CodeLinkAva and Vitalentum |
"""

from __future__ import annotations

from dataclasses import replace

from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply

from . import anthropic, cohere, gemini, mistral, ollama, openai, responses
from .base import DEFAULT_MODEL, JSON, STREAM, Answer, Dialect, Endpoint, Failure, Refused, dump, phrase, words

__all__ = ["DEFAULT_MODEL", "JSON", "PATHS", "STREAM", "Answer", "answer", "phrase", "words"]

PATHS = {
    "openai": "/v1",
    "vitalentum": "",
    "codelinkava": "",
    "anthropic": "",
    "gemini": "",
    "ollama": "",
    "mistral": "/mistral/v1",
    "azure": "",
    "openai-responses": "/v1",
    "cohere": "/cohere",
    "vertex": "",
    "vertex-anthropic": "",
}
"""The path that every dialect adds to the server's root in its `base_url`."""

_ENDPOINTS: tuple[tuple[str, str, Dialect, Endpoint], ...] = (
    ("POST", "/chat/completions", openai.DIALECT, openai.chat),
    ("POST", "/responses", openai.DIALECT, responses.responses),
    ("GET", "/cohere/v1/models", cohere.DIALECT, cohere.models),
    ("POST", "/v2/chat", cohere.DIALECT, cohere.chat),
    ("POST", "/v2/embed", cohere.DIALECT, cohere.embed),
    ("POST", "/embeddings", openai.DIALECT, openai.embeddings),
    ("GET", "/models", openai.DIALECT, openai.models),
    ("POST", "/v1/messages", anthropic.DIALECT, anthropic.messages),
    ("POST", "/v1/messages/count_tokens", anthropic.DIALECT, anthropic.count_tokens),
    ("POST", "/api/embed", ollama.DIALECT, ollama.embed),
    ("GET", "/api/tags", ollama.DIALECT, ollama.tags),
    ("GET", "/api/version", ollama.DIALECT, ollama.version),
    ("GET", "/api/ps", ollama.DIALECT, ollama.running),
    ("POST", "/api/show", ollama.DIALECT, ollama.show),
    ("POST", "/api/converse-edge", openai.DIALECT, openai.vitalentum),
    ("POST", "/api/chat", openai.DIALECT, openai.codelinkava),
)
_MISTRAL: dict[str, Endpoint] = {
    "/chat/completions": mistral.chat,
    "/embeddings": mistral.embeddings,
    "/models": mistral.models,
}


def answer(reply: Reply, received: Received, answer_id: str) -> Answer:
    """The answer to a request, in the words of the endpoint.

    Args:
        reply: The scripted answer; `raw` and everything about the transport are ignored here.
        received: The request, which decides about the format.
        answer_id: A unique text, which becomes part of the `id` of the chunks.
    """
    dialect, endpoint = _route(received)
    request_id = f"req-{answer_id}"
    headers = ((dialect.request_id, request_id),) if dialect.request_id else ()
    return replace(_said(reply, received, answer_id, dialect, endpoint), headers=headers)


def _said(reply: Reply, received: Received, answer_id: str, dialect: Dialect, endpoint: Endpoint | None) -> Answer:
    if isinstance(reply.body, bytes):
        good = reply.status < 400
        return Answer(reply.status, STREAM if good else JSON, [reply.body], streamed=good)
    if reply.status == 204 or 300 <= reply.status < 400:
        return Answer(reply.status, "", [])
    request_id = f"req-{answer_id}"
    if reply.status >= 400:
        message = "".join(reply.pieces) or phrase(reply.status)
        wait = next((value for name, value in reply.header_pairs if name.lower() == "retry-after"), None)
        failure = Failure(reply.status, message, given=reply.error, retry_after=wait, request_id=request_id)
        return Answer(reply.status, JSON, [dump(dialect.error(failure))])
    try:
        if endpoint is None:
            raise Refused(404, f"Unknown request URL: {received.method} {received.route}", "unknown_url")
        return endpoint(reply, received, answer_id)
    except Refused as exc:
        failure = Failure(exc.status, str(exc), exc.code, request_id=request_id, param=exc.param)
        return Answer(exc.status, JSON, [dump(dialect.error(failure))])


def _route(received: Received) -> tuple[Dialect, Endpoint | None]:
    """The dialect and endpoint that answer; None as endpoint if the dialect has none for that method and path."""
    method, route = received.method, received.route
    if route.startswith("/mistral/"):
        known = next((known for ending, known in _MISTRAL.items() if route.endswith(ending)), None)
        fits = known is not None and method == ("GET" if known is mistral.models else "POST")
        return mistral.DIALECT, known if fits else None
    if route.endswith((":rawPredict", ":streamRawPredict")) and method == "POST":
        return anthropic.DIALECT, anthropic.on_vertex
    if gemini.METHOD.search(route) and method == "POST":
        return gemini.DIALECT, gemini.call
    if method == "GET" and route.endswith("/models") and not route.startswith("/cohere/"):
        return _listed_by(received)
    if method == "POST" and route.endswith("/api/chat") and "model" in received.fields:
        return ollama.DIALECT, ollama.chat
    for asked, ending, dialect, endpoint in _ENDPOINTS:
        if method == asked and route.endswith(ending):
            return dialect, endpoint
    return _stranger(received), None


def _listed_by(received: Received) -> tuple[Dialect, Endpoint]:
    """Three services list models at the same path: the client's headers tell them apart."""
    if received.header("anthropic-version") is not None:
        return anthropic.DIALECT, anthropic.models
    if received.header("x-goog-api-key") is not None or "/v1beta/" in received.route:
        return gemini.DIALECT, gemini.models
    return openai.DIALECT, openai.models


def _stranger(received: Received) -> Dialect:
    """The dialect whose errors a path without an endpoint gives."""
    if received.route.startswith("/cohere/"):
        return cohere.DIALECT
    if received.header("anthropic-version") is not None:
        return anthropic.DIALECT
    if received.header("x-goog-api-key") is not None:
        return gemini.DIALECT
    return openai.DIALECT

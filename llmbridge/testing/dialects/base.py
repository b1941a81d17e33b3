"""What the dialects share: the answer as data, refused requests, counts, vectors and pieces."""

from __future__ import annotations

import hashlib
import http
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmbridge.testing.asked import embedding_inputs, turns
from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply
from llmbridge.testing.turn import Call, Thought

__all__ = [
    "DEFAULT_MODEL",
    "JSON",
    "NDJSON",
    "SIGNATURE",
    "STREAM",
    "Answer",
    "Dialect",
    "Endpoint",
    "Failure",
    "Refused",
    "Tokens",
    "count",
    "cut",
    "document",
    "dump",
    "function_call",
    "identity_of",
    "invalid",
    "json_object",
    "logprob_shares",
    "missing",
    "model_names",
    "model_of",
    "phrase",
    "proof",
    "signature",
    "sse",
    "vectors",
    "words",
]

STREAM = "text/event-stream"
JSON = "application/json"
NDJSON = "application/x-ndjson"
DEFAULT_MODEL = "test-model"
SIGNATURE = "bGxtYnJpZGdlLnRlc3Rpbmc="
"""The signature of made-up reasoning: base64, as in every dialect with signatures."""

_DIMENSIONS = 8
_PIECE = 8
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Answer:
    """An endpoint's answer, before it is decided how to send it.

    Attributes:
        status: The HTTP status.
        content_type: "" for an answer without a body.
        events: The body, as its events or its one document.
        headers: The dialect's own headers.
        streamed: Whether the events are sent one by one, without a length before them.
    """

    status: int
    content_type: str
    events: list[bytes]
    headers: tuple[tuple[str, str], ...] = ()
    streamed: bool = False


@dataclass(frozen=True)
class Failure:
    """An error before it is put into a dialect's document.

    Attributes:
        status: Its HTTP status; for an error inside a stream, the status it stands for.
        message: In words.
        code: OpenAI's word for it, if there is one.
        given: The scripted `error`, sent unchanged.
        retry_after: The scripted Retry-After header.
        request_id: The id of the answer.
        param: The wrong part of the request.
    """

    status: int
    message: str
    code: str | None = None
    given: Any = None
    retry_after: str | None = None
    request_id: str = ""
    param: str | None = None


class Refused(Exception):
    """The endpoint does not accept the request; the answer is an error document."""

    def __init__(self, status: int, message: str, code: str | None = None, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


Endpoint = Callable[[Reply, Received, str], Answer]


@dataclass(frozen=True)
class Dialect:
    """How one family of endpoints answers.

    Attributes:
        name: As in `LLMServer.base_url()`.
        error: The error document, as a value for JSON.
        request_id: The header with the answer's id; "" if the real service sends none.
    """

    name: str
    error: Callable[[Failure], Any]
    request_id: str = "X-Request-Id"


@dataclass(frozen=True)
class Tokens:
    """Made-up counts: the words of the texts. `output` contains `reasoning`."""

    input: int
    output: int
    reasoning: int


def dump(value: Any) -> bytes:
    """Compact JSON as UTF-8; lone surrogates, which a request may contain, become question marks."""
    return _encoder.encode(value).encode("utf-8", "replace")


def document(reply: Reply, value: Any) -> Answer:
    """An answer with one JSON document."""
    return Answer(reply.status, JSON, [dump(value)])


def sse(reply: Reply, value: bytes, event: str | None = None) -> bytes:
    """One server-sent event; without its blank line if the reply sets `lines`."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + value + (b"\n" if reply.lines else b"\n\n")


def json_object(received: Received) -> dict[str, Any]:
    """The body as a JSON object; raises Refused if it is something else."""
    try:
        request = received.json
    except (ValueError, RecursionError) as exc:
        raise Refused(400, f"Malformed JSON: {exc}", "invalid_json") from exc
    if not isinstance(request, dict):
        raise Refused(400, "The request body must be a JSON object")
    return request


def missing(param: str) -> Refused:
    """OpenAI's error for a missing parameter."""
    return Refused(400, f"Missing required parameter: '{param}'", "missing_required_parameter", param=param)


def invalid(param: str, expected: str) -> Refused:
    """OpenAI's error for a value of a wrong type."""
    return Refused(400, f"Invalid type for '{param}': expected {expected}.", "invalid_type", param=param)


def phrase(status: int) -> str:
    """The usual words for an HTTP status; "" if there are none."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def words(text: str) -> list[str]:
    """The text cut into words, each with the space before it; joined, they are the text again."""
    return re.findall(r"\s*\S+(?:\s+\Z)?|\s+\Z", text)


def cut(text: str) -> list[str]:
    """The text in pieces of a few characters, as services stream a tool call's arguments."""
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]


def function_call(call: Call, call_id: str) -> dict[str, Any]:
    """A whole call in OpenAI's format; `call_id` is used if the script gave no id."""
    return {"id": call.id or call_id, "type": "function", "function": {"name": call.name, "arguments": call.text}}


def count(reply: Reply, request: Any) -> Tokens:
    """The cost of a reply, counting each word as a token."""
    asked = sum(len(turn.text.split()) for turn in turns(request))
    reasoning = len("".join(reply.reasoning_pieces).split())
    texts = ["".join(reply.pieces), reply.refusal or "", *reply.choices, *(call.text for call in reply.calls)]
    return Tokens(asked, sum(len(text.split()) for text in texts) + reasoning, reasoning)


def signature(reply: Reply) -> str | None:
    """The signature of the reasoning: scripted, or a fixed one for reasoning, or None."""
    return reply.signature if reply.signature is not None else SIGNATURE if reply.reasoning_pieces else None


def proof(thought: Thought) -> str:
    """The signature of a thought: scripted, or a fixed one."""
    return SIGNATURE if thought.signature is None else thought.signature


def identity_of(reply: Reply, made_up: str, **named: Any) -> dict[str, Any]:
    """The top of an answer: its id, the dialect's fields, and the scripted ones."""
    return {"id": reply.id or made_up, **named, **(reply.extra or {})}


def model_of(reply: Reply, request: dict[str, Any]) -> str:
    """The model that an answer names."""
    return reply.model or request.get("model") or DEFAULT_MODEL


def model_names(reply: Reply) -> Sequence[str]:
    """The names in the lists of models."""
    return tuple(reply.models) if reply.models is not None else (reply.model or DEFAULT_MODEL,)


def vectors(reply: Reply, request: dict[str, Any], dimensions: Any = None) -> list[list[float]]:
    """The scripted embeddings, or one made-up vector for every text of the request.

    Args:
        reply: The scripted answer.
        request: The request's body.
        dimensions: The requested length of the vectors.
    """
    if reply.embeddings is not None:
        return [list(vector) for vector in reply.embeddings]
    size = dimensions if isinstance(dimensions, int) and dimensions > 0 else _DIMENSIONS
    return [_vector(text, size) for text in embedding_inputs(request)]


def _vector(text: str, size: int) -> list[float]:
    """A vector of length 1 made from the text: equal texts have equal vectors, others are far apart."""
    raw: list[float] = []
    while len(raw) < size:
        digest = hashlib.sha256(f"{len(raw)} {text}".encode("utf-8", "replace")).digest()
        raw += [int.from_bytes(digest[at : at + 4], "big") / 2**31 - 1 for at in range(0, 32, 4)]
    length = math.sqrt(sum(value * value for value in raw[:size]))
    return [round(value / length, 9) for value in raw[:size]]


def logprob_shares(reply: Reply) -> Iterator[list[Any]]:
    """Each piece's log probabilities: item i belongs to piece i, the rest to the last piece."""
    given, last = list(reply.logprobs or ()), len(reply.pieces) - 1
    for index in range(last + 1):
        yield given[index:] if index == last else given[index : index + 1]

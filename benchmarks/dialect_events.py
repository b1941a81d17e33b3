"""The streams of every dialect as its service sends them, and minimal readers for them in plain Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.server import END, FINISH, FIRST, PIECES, TEXTS, _event

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Dialect:
    """The form of a service's stream, and the place of the text in its events.

    Args:
        model: The model for llmbridge.
        texts: One text event for each piece.
        first, last: The events before and after them.
        separator: The bytes between two events.
        text: Returns the text in an event's JSON, or "".
        has_lines: Whether an event has lines, of which only those with `data: ` count; if not, it is JSON itself.
    """

    model: str
    texts: tuple[bytes, ...]
    first: bytes
    last: bytes
    text: Callable[[Any], str | None]
    separator: bytes = b"\n\n"
    has_lines: bool = True

    def stream(self, events: int) -> list[bytes]:
        """The whole answer with this many text events, event by event."""
        kinds = self.texts
        return [self.first, *(kinds[index % len(kinds)] for index in range(events)), self.last]

    def pieces(self, frames: list[bytes]) -> Iterator[str]:
        """The floor: the text in complete events, without checks."""
        take = self.text
        for frame in frames:
            for line in frame.split(b"\n") if self.has_lines else (frame,):
                if self.has_lines:
                    if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                        continue
                    line = line[6:]
                if line and (text := take(json.loads(line))):
                    yield text


def _json(data: Data) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _named(**data: Any) -> bytes:
    return b"event: " + str(data["type"]).encode() + b"\ndata: " + _json(data) + b"\n\n"


def _of_chat(chunk: Any) -> str | None:
    choices = chunk["choices"]
    return choices[0]["delta"].get("content") if choices else None


def _openai() -> Dialect:
    usage = _event([], usage={"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49})
    return Dialect("openai:bench", TEXTS, FIRST, FINISH + usage + END, _of_chat)


def _mistral() -> Dialect:
    """OpenAI's, without log probabilities, and with usage beside the finish reason."""

    def event(delta: Data, finish: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "1f2e3d4c5b6a798897a6b5c4d3e2f101", "object": "chat.completion.chunk", "created": 1795226952}
        return b"data: " + _json({**head, "model": "mistral-small-latest", "choices": [choice], **more}) + b"\n\n"

    usage = {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}
    return Dialect(
        "mistral:bench",
        tuple(event({"content": piece}) for piece in PIECES),
        event({"role": "assistant", "content": ""}),
        event({"content": ""}, "stop", usage=usage) + END,
        _of_chat,
    )


def _anthropic() -> Dialect:
    usage = {"input_tokens": 9, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    message = {"id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant", "content": []}
    block = {"type": "text", "text": ""}
    return Dialect(
        "anthropic:bench",
        tuple(
            _named(type="content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in PIECES
        ),
        _named(type="message_start", message={**message, "model": "bench", "stop_reason": None, "usage": usage})
        + _named(type="content_block_start", index=0, content_block=block)
        + _named(type="ping"),
        _named(type="content_block_stop", index=0)
        + _named(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 40})
        + _named(type="message_stop"),
        lambda event: event["delta"].get("text") if event["type"] == "content_block_delta" else None,
    )


def _gemini() -> Dialect:
    """Like the service: usage so far in every event, and line ends of two characters."""

    def event(number: int, piece: str, **more: object) -> bytes:
        candidate = {"content": {"parts": [{"text": piece}], "role": "model"}, **more, "index": 0}
        usage = {
            "promptTokenCount": 9,
            "candidatesTokenCount": 3 * number,
            "totalTokenCount": 3 * number + 9,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
        }
        chunk = {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": "gemini-3.5-flash",
            "responseId": "c3uXaOzpC4TkgLUPr5eEwQo",
        }
        return b"data: " + _json(chunk) + b"\r\n\r\n"

    def text(event: Any) -> str | None:
        parts = event["candidates"][0]["content"]["parts"]
        return parts[0]["text"] if parts else None

    texts = tuple(event(number, piece) for number, piece in enumerate(PIECES, 1))
    last = event(len(PIECES), "", finishReason="STOP")
    return Dialect("gemini:bench", texts, b"", last, text, b"\r\n\r\n")


def _ollama() -> Dialect:
    def line(content: str, done: bool = False, **more: object) -> bytes:
        head = {"model": "llama3.2", "created_at": "2026-11-21T07:49:12.123456789Z"}
        return _json({**head, "message": {"role": "assistant", "content": content}, "done": done, **more}) + b"\n"

    counts = {"total_duration": 5191566416, "prompt_eval_count": 9, "eval_count": 40, "eval_duration": 4799921000}
    return Dialect(
        "ollama:bench",
        tuple(map(line, PIECES)),
        b"",
        line("", done=True, done_reason="stop", **counts),
        lambda line: line["message"]["content"],
        b"\n",
        has_lines=False,
    )


def _cohere() -> Dialect:
    usage = {"billed_units": {"input_tokens": 3, "output_tokens": 40}, "tokens": {"input_tokens": 9}}
    message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    return Dialect(
        "cohere:bench",
        tuple(_named(type="content-delta", index=0, delta={"message": {"content": {"text": p}}}) for p in PIECES),
        _named(type="message-start", id="29f14a5a-11de-4cae-9800-25e4747408ea", delta={"message": message})
        + _named(type="content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}}),
        _named(type="content-end", index=0)
        + _named(type="message-end", delta={"finish_reason": "COMPLETE", "usage": usage}),
        lambda event: event["delta"]["message"]["content"]["text"] if event["type"] == "content-delta" else None,
    )


def _responses() -> Dialect:
    item = {"item_id": "msg_67c9fdcf37fc8190ba82116e33fb28c507b8b0ad4e5eb654", "output_index": 0, "content_index": 0}
    usage = {"input_tokens": 9, "output_tokens": 40, "total_tokens": 49}
    response = {"id": "resp_67c9fdcecf488190bdd9a0409de3a1ec07b8b0ad4e5eb654", "object": "response", "output": []}
    kind = "response.output_text.delta"
    return Dialect(
        "openai-responses:bench",
        tuple(
            _named(type=kind, sequence_number=number, **item, delta=piece, logprobs=[], obfuscation="Xb3kLq9f")
            for number, piece in enumerate(PIECES, 4)
        ),
        _named(type="response.created", sequence_number=0, response=response),
        _named(type="response.completed", sequence_number=50, response={**response, "usage": usage}),
        lambda event: event["delta"] if event["type"] == kind else None,
    )


DIALECTS: Mapping[str, Dialect] = {
    "openai": _openai(),
    "anthropic": _anthropic(),
    "gemini": _gemini(),
    "ollama": _ollama(),
    "mistral": _mistral(),
    "cohere": _cohere(),
    "openai-responses": _responses(),
}

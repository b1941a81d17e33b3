"""Mistral's API: OpenAI's dialect with its own names, contents and tool calls; it rejects everything it does not
know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from llmbridge.messages import ChatRequest, Message
from llmbridge.provider import Encoded
from llmbridge.providers._values import TEXTS, as_text, call_id, own_form
from llmbridge.providers.openai import OpenAI

__all__ = ["Mistral"]

_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_BETWEEN = {"role": "assistant", "content": "Understood."}  # results of tools need an answer before the next message


class Mistral(OpenAI):
    """Mistral's own service.

    Tool call IDs of other services are replaced by ones that Mistral accepts, always the same way. Reasoning is sent
    back unchanged. Messages in an order that Mistral would reject are reordered or completed: instructions after an
    answer, a user's message after a tool's result, an empty answer. An embeddings request holds at most 32 texts, as
    Mistral limits their tokens together.

    Example:
        >>> request = ChatRequest.checked("mistral-small-latest", "Hi", {"seed": 1, "safe_prompt": True})
        >>> body = Mistral.encode(request).body
        >>> body["random_seed"], body["safe_prompt"], "stream_options" in body
        (1, True, False)

    Source:
        Mistral API reference, chat completions and embeddings; the models of its Python client, 3.7. Unknown parameters
        are rejected with status 422, other tool call IDs with 400. The limit of an embeddings request rose from 16,384
        tokens (semantic-router#297) to 65,536 (gbrain#3001).
    """

    name = "mistral"
    url = "https://mistral.ai"
    base_url = "https://api.mistral.ai/v1"
    supports_gpt_35_turbo = False
    key_env: ClassVar[tuple[str, ...]] = ("MISTRAL_API_KEY",)
    base_url_env = ""
    note = "set MISTRAL_API_KEY"
    embeddings_batch = 32
    refused: ClassVar[Mapping[str, str]] = {
        "top_k": "Mistral supports only top_p",
        "logprobs": "Mistral does not return log probabilities",
        "top_logprobs": "Mistral does not return log probabilities",
        "logit_bias": "Mistral does not support it",
        "user": "Mistral does not support it: put it into metadata",
        "stream_options": "Mistral always counts tokens: leave it out",
        "store": "Mistral does not store answers",
        "service_tier": "Mistral has no service tiers",
        "verbosity": "Mistral does not support it: ask for short or long answers in the prompt",
        "modalities": "Mistral answers only with text",
    }
    renamed: ClassVar[Mapping[str, str]] = {"seed": "random_seed", "max_completion_tokens": "max_tokens"}
    own_models = False
    asks_usage = False
    tool_media = True
    think_tags = True
    system_role = "system"
    must_call = "any"

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        encoded = super().encode(request)
        if len(request.messages) == 1:
            return encoded
        return Encoded({**encoded.body, "messages": _in_order(encoded.body["messages"])}, encoded.path)

    @classmethod
    def encode_message(cls, message: Message) -> dict[str, Any]:
        encoded = super().encode_message(message)
        if isinstance(message.content, list):
            encoded["content"] = [part for given in _parts(message) if (part := _part(given)) is not None] or ""
        if not message.extra:
            return encoded
        if message.role == "tool":
            if message.extra.get("name"):
                encoded["name"] = message.extra["name"]
            if message.extra.get("tool_call_id"):
                encoded["tool_call_id"] = _call_id(str(message.extra["tool_call_id"]))
        else:
            encoded.pop("name", None)  # rejected there
        if message.tool_calls:
            encoded["tool_calls"] = [
                {**call, "id": _call_id(str(call["id"]))} if call.get("id") else call for call in encoded["tool_calls"]
            ]
        return encoded

    @classmethod
    def encode_choice(cls, request: ChatRequest) -> Any:
        choice = super().encode_choice(request)
        return "any" if choice == "required" else choice

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        named = {"output_dimension" if name == "dimensions" else name: value for name, value in params.items()}
        return super().encode_embeddings(model, texts, named)

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        found = dict(super().refusals(request))
        effort = request.params.get("reasoning_effort")
        if isinstance(effort, int) and not isinstance(effort, bool):
            found["reasoning_effort"] = "Mistral takes a word (none, high), not a number of tokens"
        return found


def _in_order(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages in an order that Mistral accepts: instructions first, and an answer after tools' results."""
    ordered = [message for message in messages if message["role"] == "system"]
    for message in messages:
        role = message["role"]
        if role == "system" or (role == "assistant" and not (message["content"] or message.get("tool_calls"))):
            continue
        if role == "user" and ordered and ordered[-1]["role"] == "tool":
            ordered.append(dict(_BETWEEN))
        ordered.append(message)
    return ordered


def _call_id(given: str) -> str:
    """An ID of nine letters and digits, as Mistral requires."""
    return call_id(given, _CALL_ID, 9)


def _parts(message: Message) -> list[dict[str, Any]]:
    """The parts of the content, in order; Mistral accepts everything of its own answers."""
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        if message.role == "assistant" and part["type"] in ("image_url", "input_audio", "file"):
            from llmbridge.providers.openai.extras import write_media

            if text := write_media(part, {}, parts, own_images=True):
                parts.append({"type": "text", "text": text})
        elif part["type"] != "tool_call":
            parts.append(part)
    return parts


def _part(part: dict[str, Any]) -> dict[str, Any] | None:
    """A part in Mistral's form; None for reasoning that only another service can read."""
    part = as_text(part)
    kind = part["type"]
    if kind == "opaque":
        return own_form(part)
    if kind in TEXTS:
        return {**part, "type": "text"}
    if kind == "reasoning":
        text = str(part.get("text") or "")
        signed = {"signature": part["signature"]} if part.get("signature") else {}
        return {"type": "thinking", "thinking": [{"type": "text", "text": text}], **signed} if text or signed else None
    if kind == "file" and isinstance(part.get("file"), Mapping) and "file_id" in part["file"]:
        return {"type": "file", "file_id": part["file"]["file_id"]}
    # Mistral's own forms of these hold no mapping.
    if kind == "input_audio" and isinstance(part.get("input_audio"), str):
        return part
    from llmbridge.parts import MediaPart

    media = MediaPart.of(part) if kind in ("input_audio", "file") and "file_id" not in part else None
    if media is None:
        return part
    if media.kind == "audio":
        return {"type": "input_audio", "input_audio": media.data}
    named = {"document_name": media.filename} if media.filename else {}
    return {"type": "document_url", "document_url": media.data_url, **named}

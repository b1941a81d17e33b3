"""How a request is worded for Ollama's own API: options apart, images as base64, arguments as objects.

Source: Ollama's API documentation and `api/types.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmbridge.errors import InvalidRequest
from llmbridge.messages import ChatRequest, Message
from llmbridge.providers._values import as_text, media_of

__all__ = ["encode_body", "split_options"]

_OPTIONS = frozenset(
    """
    draft_num_predict f16_kv frequency_penalty logits_all low_vram main_gpu min_p mirostat mirostat_eta mirostat_tau
    num_batch num_ctx num_gpu num_gqa num_keep num_predict num_thread numa penalize_newline presence_penalty
    repeat_last_n repeat_penalty seed stop temperature tfs_z top_k top_p typical_p use_mlock use_mmap vocab_only
    """.split()  # noqa: SIM905 - a table of words
)
_LIMITS = ("max_tokens", "max_completion_tokens")
_THINK: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}
_TEXTS = ("text", "input_text", "output_text")
_ADVICE = {
    "image": "Ollama fetches no URLs: pass the image's bytes or a path, like Image('cat.png')",
    "audio": "Ollama takes no sound: transcribe it and send the text",
    "document": "Ollama takes no documents: send their text, or images of their pages",
}


def encode_body(request: ChatRequest) -> dict[str, Any]:
    """The body of a request for an answer.

    Raises:
        InvalidRequest: Something in it has no place there; says what, and what to do.
    """
    params, options = split_options(request.params)
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request.messages), "stream": True}
    for name, value in params.items():
        translate = _TRANSLATED.get(name)
        if translate is None:
            body[name] = value
        elif value is not None:
            for place, translated in translate(value):
                if place not in params:  # Ollama's own spelling wins
                    body[place] = translated
    if options:
        body["options"] = options
    if request.tools or request.tool_choice is not None:
        _add_tools(request, body)
    if request.schema is not None:
        _add_schema(request, body)
    return body


def split_options(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters that stand beside the options, and the options; a mapping given as `options` wins.

    Raises:
        InvalidRequest: The options are no mapping.
    """
    given = params.get("options")
    if given is not None and not isinstance(given, Mapping):
        raise InvalidRequest("options must be a mapping, like {'num_ctx': 8192}")
    beside: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in params.items():
        if name in _LIMITS:
            if value is not None:
                limits["num_predict"] = value
        elif name in _OPTIONS:
            options[name] = value
        elif name not in ("n", "options", "parallel_tool_calls"):  # two of them ask for no more than it does anyway
            beside[name] = value
    options = {**limits, **options, **(given or {})}
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    return beside, options


def _think(value: Any) -> Iterator[tuple[str, Any]]:
    yield "think", _THINK.get(value, value) if isinstance(value, str) else value


def _format(value: Any) -> Iterator[tuple[str, Any]]:
    form = value if isinstance(value, Mapping) else {}
    inner = form.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if form.get("type") == "json_object":
        yield "format", "json"
    elif form.get("type") == "json_schema" and isinstance(schema, Mapping):
        yield "format", schema
    elif form.get("type") != "text":
        raise InvalidRequest(
            "response_format must be {'type': 'json_object'}, {'type': 'text'}, or "
            "{'type': 'json_schema', 'json_schema': {'schema': ...}}; Ollama's own form goes into format="
        )


_TRANSLATED: dict[str, Callable[[Any], Iterator[tuple[str, Any]]]] = {
    "reasoning_effort": _think,
    "response_format": _format,
}


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}  # of the tools that were called, for answers that name only the call
    return [_message(message, f"messages[{i}]", names) for i, message in enumerate(messages)]


def _message(message: Message, where: str, names: dict[str, str]) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str) and not message.extra:
        return {"role": role, "content": message.content}
    made = {"role": role, **_content(message, where)}
    extra = dict(message.extra)
    if extra.pop("tool_calls", None):
        calls = []
        for call in message.calls:
            names[call.id] = call.name
            given = {"id": call.id} if call.id else {}
            calls.append({**given, "function": {"name": call.name, "arguments": dict(call.arguments)}})
        made["tool_calls"] = calls
    if role == "tool":
        extra.pop("is_error", None)  # Ollama has no place for it: the text says so
        called = extra.pop("name", None) or names.get(str(extra.get("tool_call_id")))
        if called:
            made["tool_name"] = called
    extra.pop("name", None)  # Ollama knows no name of who speaks
    return {**made, **extra}


def _content(message: Message, where: str) -> dict[str, Any]:
    """Text, images and thinking, each in its own field: Ollama's content is text alone."""
    texts, thoughts, images = [], [], []
    for i, part in enumerate(map(as_text, message.parts)):
        if part["type"] in _TEXTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif part["type"] == "reasoning":
            thoughts.append(str(part.get("text") or ""))
        else:
            images.append(_image(part, f"{where}: content[{i}]"))
    made: dict[str, Any] = {"content": "".join(texts)}
    if images:
        made["images"] = images
    if thinking := "".join(thoughts):
        made["thinking"] = thinking
    return made


def _image(part: dict[str, Any], where: str) -> str:
    """The bytes of an image in base64; nothing else stands beside text."""
    media = media_of(part, where)
    if media is None:
        raise InvalidRequest(f"{where}: Ollama takes text and images, not a part of type {part['type'][:40]!r}")
    if media.kind == "image" and media.data:
        return media.data
    raise InvalidRequest(f"{where}: {_ADVICE[media.kind]}")


def _add_tools(request: ChatRequest, body: dict[str, Any]) -> None:
    choice = request.tool_choice
    if request.tools and not (choice is not None and choice.mode == "none"):
        from llmbridge.providers.openai.request import encode_tool

        body["tools"] = [encode_tool(tool, grammar=True) for tool in request.tools]


def _add_schema(request: ChatRequest, body: dict[str, Any]) -> None:
    assert request.schema is not None
    if request.schema_mode == "tool":
        raise InvalidRequest("schema_mode='tool': Ollama cannot be told to call a tool: use 'native' or 'json'")
    # A format holds for all that the model writes, and so keeps it from calling tools: beside them words have to do.
    in_words = "tools" in body and request.schema_mode != "native"
    if in_words or request.schema_mode == "json":
        from llmbridge.providers.openai.request import with_instruction

        body["messages"] = with_instruction(body["messages"], request.schema)
    if not in_words:
        from llmbridge._schemas.subsets import without_patterns

        body["format"] = "json" if request.schema_mode == "json" else without_patterns(request.schema.json_schema)

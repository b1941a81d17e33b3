"""Cohere's Chat API, version 2: named events, a plan before tool calls, parameters by short names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llmbridge.errors import InvalidRequest, ProtocolError
from llmbridge.events import END, End, Finish, FinishReason, Item, Logprobs, Reasoning, ToolCall, ToolCallDelta, Usage
from llmbridge.messages import ChatRequest, Message
from llmbridge.provider import Encoded, Provider, parsed_json, scan_json
from llmbridge.providers._values import TEXTS, as_text, beside_calls, is_report, is_vector, mapping, media_of
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge._call.framing import Frame
    from llmbridge.messages import SchemaMode
    from llmbridge.tools import Tool

__all__ = ["Cohere"]

_USUAL = ("n", "parallel_tool_calls")  # what gets here asks for no more than the service does anyway
_DROPPED = ("tool_calls", "is_error", "name")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_ADVICE = {
    "audio": "Cohere takes no sound: transcribe it and send the text",
    "document": "Cohere takes documents as text alone: pass it as documents=[...], or send images of the pages",
}
_FINISH: dict[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
    "ERROR": "error",
    "TIMEOUT": "error",
}


class Cohere(Provider):
    """Cohere's own service.

    What the model plans before it calls tools (`tool_plan`) counts as its reasoning, and goes back with the calls.
    Embeddings are asked for as those of documents; `input_type="search_query"` makes those of questions.

    Example:
        >>> request = ChatRequest.checked("command-a-03-2025", "Hi", {"top_p": 0.5, "stop": "."})
        >>> body = Cohere.encode(request).body
        >>> body["p"], body["stop_sequences"]
        (0.5, ['.'])

    Source:
        Cohere API reference, chat (v2), streaming, embed (v2) and list models; its guides to tool use, structured
        outputs, images and reasoning.
    """

    name = "cohere"
    url = "https://cohere.com"
    base_url = "https://api.cohere.com"
    path = "/v2/chat"
    key_env: ClassVar[tuple[str, ...]] = ("COHERE_API_KEY", "CO_API_KEY")
    base_url_env = "CO_API_URL"
    needs_key = True
    note = "set COHERE_API_KEY"
    supports = frozenset({"tools", "schema"})
    refused: ClassVar[Mapping[str, str]] = {
        "n": "Cohere gives one answer a request: ask once for each",
        "logit_bias": "Cohere cannot weigh tokens",
        "top_logprobs": "Cohere gives those of the chosen tokens alone: use logprobs=True",
        "parallel_tool_calls": "Cohere leaves it to the model how many tools it calls at once",
        "user": "Cohere keeps no users",
        "metadata": "Cohere takes none",
        "stream_options": "Cohere counts the tokens unasked",
    }
    models_path = "/v1/models?page_size=1000"
    embeddings_batch = 96

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        return Encoded(_encode_body(request), cls.path)

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[Item | End]:
        try:
            # The usual event, found out fast: nothing in it but a piece of text.
            event, end = scan_json(frame.data, 0)
            content = event["delta"]["message"]["content"]
            text = content["text"]
            if (
                text.__class__ is str
                and text
                and event["type"] == "content-delta"
                and "thinking" not in content
                and "logprobs" not in event
                and end == len(frame.data)
            ):
                return (text,)
        except (StopIteration, RecursionError, ValueError, TypeError, LookupError):
            pass  # it is not the usual one
        return _decode_frame(frame)

    @classmethod
    def decode_document(cls, document: Any) -> Iterable[Item | End]:
        document = document[0] if isinstance(document, list) and len(document) == 1 else document
        fields = mapping(document)
        message = fields.get("message")
        if not isinstance(message, Mapping):
            if message or fields.get("error"):
                raise error_in_stream(document)
            raise ProtocolError("the service answered with JSON that is no answer of Cohere's: check the base_url")
        yield from _text("tool_plan", message, reasoning=True)
        contents = message.get("content")
        for content in contents if isinstance(contents, list) else ({"text": contents},):
            yield from _decode_content(mapping(content))
        calls = message.get("tool_calls")
        for index, call in enumerate(calls if isinstance(calls, list) else ()):
            yield _decode_call(mapping(call), index)
        probabilities = fields.get("logprobs")
        if isinstance(probabilities, list) and probabilities:
            yield Logprobs(tuple(probabilities))
        yield from _end(fields)
        yield END

    @classmethod
    def answer_tool(cls, request: ChatRequest) -> str | None:
        return request.schema.name if request.schema is not None and _schema_mode(request) == "tool" else None

    @classmethod
    def decode_models(cls, document: Any) -> list[str]:
        models = mapping(document).get("models")
        if not isinstance(models, list):
            raise ProtocolError("the service answered with JSON that is no list of Cohere's models")
        return [name for model in models if isinstance(name := mapping(model).get("name"), str)]

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        named = {"output_dimension" if name == "dimensions" else name: value for name, value in params.items()}
        body = {"model": model, "texts": list(texts), "input_type": "search_document", "embedding_types": ["float"]}
        return Encoded({**body, **named}, "/v2/embed")

    @classmethod
    def decode_embeddings(cls, document: Any) -> tuple[list[list[float]], Usage | None]:
        fields = mapping(document)
        by_type = fields.get("embeddings")
        vectors = next(iter(by_type.values()), None) if isinstance(by_type, Mapping) else by_type
        if not isinstance(vectors, list) or not all(is_vector(vector) for vector in vectors):
            if fields.get("message") or fields.get("error"):
                raise error_in_stream(document)
            raise ProtocolError("the service answered with JSON that holds no embeddings of Cohere's")
        billed = mapping(mapping(fields.get("meta")).get("billed_units"))
        tokens = _count(billed.get("input_tokens"))
        return vectors, None if tokens is None else Usage(input_tokens=tokens, raw=dict(billed))


def _encode_body(request: ChatRequest) -> dict[str, Any]:
    """The body of a request for an answer.

    Raises:
        InvalidRequest: Something in it has no place there; says what, and what to do.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message, f"messages[{i}]") for i, message in enumerate(request.messages)],
        "stream": True,
    }
    if any(message.role == "tool" and isinstance(message.content, list) for message in request.messages):
        from llmbridge.providers.openai.rules import moved_media  # Cohere takes images from users only, too

        body["messages"] = moved_media(body["messages"])
    if request.tools or request.schema is not None:
        _add_structure(request, body)
    for name, value in request.params.items():
        if name in _USUAL:
            continue
        place, translate = _TRANSLATED.get(name, (name, _as_given))
        if place == name or (value is not None and place not in request.params):  # Cohere's own spelling wins
            body[place] = translate(value)
    return body


def _schema_mode(request: ChatRequest) -> SchemaMode:
    """How structured output is asked for; a response format cannot stand beside tools."""
    return request.schema_mode or ("tool" if request.tools else "native")


def _format(value: Any) -> Any:
    inner = value.get("json_schema") if isinstance(value, Mapping) else None
    if isinstance(inner, Mapping) and value.get("type") == "json_schema" and isinstance(inner.get("schema"), Mapping):
        return {"type": "json_object", "json_schema": inner["schema"]}
    return value


def _thinking(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return {"type": "enabled", "token_budget": value} if value else {"type": "disabled"}
    if not isinstance(value, str) or value not in _EFFORTS:
        raise InvalidRequest(
            f"reasoning_effort must be one of {', '.join(_EFFORTS)}, or a number of tokens, not {str(value)[:40]!r}"
        )
    return {"type": "disabled" if value == "none" else "enabled"}


def _as_given(value: Any) -> Any:
    return value


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# Of each name of llmbridge's: Cohere's own, and how its value is translated.
_TRANSLATED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "max_completion_tokens": ("max_tokens", _as_given),
    "top_p": ("p", _as_given),
    "top_k": ("k", _as_given),
    "stop": ("stop_sequences", _list),
    "reasoning_effort": ("thinking", _thinking),
    "response_format": ("response_format", _format),
}


def _message(message: Message, where: str) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str) and not message.extra:
        return {"role": role, "content": message.content}
    # Cohere knows no name of who speaks, and the text says what went wrong.
    extra = {name: value for name, value in message.extra.items() if name not in _DROPPED}
    made: dict[str, Any] = {"role": role}
    content = _content(message, where)
    if message.calls:
        made["tool_calls"] = [_call(call) for call in message.calls]
        thoughts = (str(part.get("text") or "") for part in message.parts if part["type"] == "reasoning")
        if plan := "".join(thoughts):
            made["tool_plan"] = plan
    if content or not message.calls:
        made["content"] = content
    return {**made, **extra}


def _content(message: Message, where: str) -> Any:
    """Text alone as text, since older models take nothing else; reasoning is not sent back as content."""
    parts = [(i, as_text(part)) for i, part in enumerate(beside_calls(message)) if part["type"] != "reasoning"]
    if all(part["type"] in TEXTS and isinstance(part.get("text"), str) for _, part in parts):
        return "".join(part["text"] for _, part in parts)
    return [_part(part, f"{where}: content[{i}]") for i, part in parts]


def _part(part: dict[str, Any], where: str) -> dict[str, Any]:
    if part["type"] in TEXTS:
        return {**part, "type": "text"}
    media = media_of(part, where)
    if media is None:
        return part
    if media.kind != "image":
        raise InvalidRequest(f"{where}: {_ADVICE[media.kind]}")
    detail = {"detail": media.detail} if media.detail else {}
    return {"type": "image_url", "image_url": {"url": media.data_url, **detail}}


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = call.text if call.text and call.problem is None else json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _add_structure(request: ChatRequest, body: dict[str, Any]) -> None:
    """Adds the tools and the schema. A tool that must be called is the only one that the model gets to see."""
    from llmbridge.providers.openai.request import encode_schema_tool, with_instruction

    choice = request.tool_choice
    tools = list(request.tools)
    if choice is not None and choice.mode == "tool" and choice.raw is None:
        tools = [tool for tool in tools if tool.name == choice.name]
    sent = [_tool(tool) for tool in tools]
    if choice is not None and choice.raw is not None:
        body["tool_choice"] = choice.raw
    elif choice is not None and choice.mode != "auto":
        body["tool_choice"] = "NONE" if choice.mode == "none" else "REQUIRED"
    if request.schema is not None:
        mode = _schema_mode(request)
        if mode == "tool":
            sent.append(encode_schema_tool(request.schema))
            body["tool_choice"] = "REQUIRED"
        elif mode == "json":
            body["messages"] = with_instruction(body["messages"], request.schema)
            body["response_format"] = {"type": "json_object"}
        else:
            from llmbridge._schemas.subsets import as_openai_takes, object_form

            schema = as_openai_takes(object_form(request.schema.json_schema))
            body["response_format"] = {"type": "json_object", "json_schema": schema}
    if sent:
        body["tools"] = sent
    if any(tool.strict for tool in tools):
        body["strict_tools"] = True


def _tool(tool: Tool) -> dict[str, Any]:
    from llmbridge.providers.openai.request import described, encode_tool

    if tool.raw is not None:
        return encode_tool(tool)
    made = described(tool.name, tool.description, tool.parameters)
    return {"type": "function", "function": {"name": tool.name, **made}}


def _decode_frame(frame: Frame) -> Iterator[Item | End]:
    """What any event says. Its name stands in the data too."""
    if frame.event == "error":
        raise error_in_stream(frame.data)
    if not frame.data.strip() or frame.data.startswith("[DONE]"):
        return  # gateways put OpenAI's end mark behind Cohere's own
    event = parsed_json(frame.data)
    if not isinstance(event, Mapping):
        raise ProtocolError(f"an event of the stream is no JSON object, but {type(event).__name__}")
    kind = event.get("type")
    delta = mapping(event.get("delta"))
    message = mapping(delta.get("message"))
    if kind in ("content-start", "content-delta"):
        yield from _decode_content(mapping(message.get("content")))
        if isinstance(event.get("logprobs"), Mapping):
            yield Logprobs((event["logprobs"],))
    elif kind == "tool-plan-delta":
        yield from _text("tool_plan", message, reasoning=True)
    elif kind in ("tool-call-start", "tool-call-delta"):
        calls = message.get("tool_calls")
        index = event.get("index")
        for call in calls if isinstance(calls, list) else (calls,):
            yield _decode_call(mapping(call), index if isinstance(index, int) else None)
    elif kind == "message-end":
        if delta.get("error"):
            raise error_in_stream(dict(delta))
        yield from _end(delta)
        yield END
    elif event.get("error") or (kind is None and is_report(event)):
        raise error_in_stream(dict(event))


def _decode_content(content: Mapping[str, Any]) -> Iterator[Item]:
    yield from _text("thinking", content, reasoning=True)
    yield from _text("text", content)


def _text(name: str, fields: Mapping[str, Any], reasoning: bool = False) -> Iterator[Item]:
    text = fields.get(name)
    if isinstance(text, str) and text:
        yield Reasoning(text) if reasoning else text


def _decode_call(call: Mapping[str, Any], index: int | None) -> ToolCallDelta:
    function = mapping(call.get("function"))
    id, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
    return ToolCallDelta(
        index,
        id if isinstance(id, str) else None,
        name if isinstance(name, str) else None,
        arguments if isinstance(arguments, str) else "",
    )


def _end(fields: Mapping[str, Any]) -> Iterator[Item]:
    """The tokens, and why the answer ended. `tokens` counts all, `billed_units` only what is paid for."""
    usage = mapping(fields.get("usage"))
    counted = mapping(usage.get("tokens")) or mapping(usage.get("billed_units"))
    prompt, answer = _count(counted.get("input_tokens")), _count(counted.get("output_tokens"))
    if prompt is not None or answer is not None:
        yield Usage(prompt, answer, cached_input_tokens=_count(usage.get("cached_tokens")), raw=dict(usage))
    raw = fields.get("finish_reason")
    if isinstance(raw, str) and raw:
        yield Finish(_FINISH.get(raw.upper(), "other"), raw)


def _count(value: Any) -> int | None:
    """A number of tokens, which Cohere may write as 7.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**53:
        return None
    return int(value)

"""Cohere's Chat API, version 2: named events, a plan before tool calls, short parameter names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llmbridge._json import remembered
from llmbridge._text import shown
from llmbridge.errors import InvalidRequest, ProtocolError
from llmbridge.events import (
    END,
    Citation,
    End,
    Item,
    Logprobs,
    Other,
    Reasoning,
    Summary,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from llmbridge.messages import ChatRequest, Message
from llmbridge.provider import Encoded, Provider, parsed_json, scan_json
from llmbridge.providers._values import (
    TEXTS,
    as_text,
    finish_of,
    is_report,
    is_vector,
    mapping,
    media_of,
    own_form,
    string,
)
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge.messages import SchemaMode
    from llmbridge.provider import Frame
    from llmbridge.tools import Tool

__all__ = ["Cohere"]

_USUAL = ("n", "parallel_tool_calls")  # only the service's defaults get here
_APART = ("tool_call", "reasoning")  # parts with fields of their own
_DROPPED = ("tool_calls", "is_error", "name")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_ADVICE = {
    "audio": "Cohere does not accept audio: transcribe it and send the text",
    "document": "Cohere accepts documents only as text: pass it as documents=[...], or send images of the pages",
}
_EVENTS = frozenset(
    """
    message-start content-start content-delta content-end tool-plan-delta tool-call-start tool-call-delta tool-call-end
    citation-start citation-end message-end
    """.split()  # noqa: SIM905 - a table of words
)
_EVENT = frozenset(("id", "type", "index", "delta", "logprobs"))
_IN_DELTA = frozenset(("content", "message", "text", "finish_reason", "usage", "error"))
_DOCUMENT = frozenset(("id", "message", "finish_reason", "usage", "logprobs", "error"))
_MESSAGE = frozenset(("role", "content", "tool_plan", "tool_calls", "citations"))
_CONTENT = frozenset(("type", "text", "thinking"))
_CALL = frozenset(("id", "type", "function", "index"))


class Cohere(Provider):
    """Cohere's own service.

    The model's plan before tool calls (`tool_plan`) counts as reasoning, and is sent back with the calls. Embeddings
    are made for documents; pass `input_type="search_query"` for queries.

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
        "n": "Cohere gives one answer per request: send several requests",
        "logit_bias": "Cohere does not support it",
        "top_logprobs": "Cohere returns only those of the chosen tokens: use logprobs=True",
        "parallel_tool_calls": "Cohere lets the model decide how many tools it calls at once",
        "user": "Cohere does not support it",
        "metadata": "Cohere does not support it",
        "stream_options": "Cohere always counts tokens: leave it out",
    }
    models_path = "/v1/models?page_size=1000"
    embeddings_batch = 96

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        return Encoded(_encode_body(request), cls.path)

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[Item | End]:
        return _Reader().read(frame)

    @classmethod
    def decoder(cls) -> Callable[[Frame], Iterable[Item | End]]:
        return _Reader().read

    @classmethod
    def decode_document(cls, document: Any) -> Iterable[Item | End]:
        return _Reader().document(document)

    @classmethod
    def answer_tool(cls, request: ChatRequest) -> str | None:
        return request.schema.name if request.schema is not None and _schema_mode(request) == "tool" else None

    @classmethod
    def decode_models(cls, document: Any) -> list[str]:
        models = mapping(document).get("models")
        if not isinstance(models, list):
            raise ProtocolError("the service's JSON is not a list of models in Cohere's form")
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
            raise ProtocolError("the service's JSON has no embeddings in Cohere's form")
        billed = mapping(mapping(fields.get("meta")).get("billed_units"))
        tokens = _count(billed.get("input_tokens"))
        return vectors, None if tokens is None else Usage(input_tokens=tokens, raw=dict(billed))


def _encode_body(request: ChatRequest) -> dict[str, Any]:
    """The body of a chat request.

    Raises:
        InvalidRequest: Cohere does not support a part of the request. The message says what to do.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message, f"messages[{i}]") for i, message in enumerate(request.messages)],
        "stream": True,
    }
    if any(message.role == "tool" and isinstance(message.content, list) for message in request.messages):
        from llmbridge.providers.openai.rules import moved_media  # Cohere accepts images only from users, too

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
    """How structured output is requested: a response format does not work beside tools."""
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


# For each of llmbridge's names: Cohere's name, and how to translate the value.
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
    # Cohere has no field for a speaker's name, and the text says what went wrong.
    extra = {name: value for name, value in message.extra.items() if name not in _DROPPED}
    made: dict[str, Any] = {"role": role}
    content = _content(message, where)
    if message.tool_calls:
        made["tool_calls"] = [_call(call) for call in message.tool_calls]
        thoughts = (str(part.get("text") or "") for part in message.parts if part["type"] == "reasoning")
        if plan := "".join(thoughts):
            made["tool_plan"] = plan
    if content or not message.tool_calls:
        made["content"] = content
    return {**made, **extra}


def _content(message: Message, where: str) -> Any:
    """Text alone as a str, the only form older models accept; reasoning is not sent back as content."""
    parts = [(i, as_text(part)) for i, part in enumerate(message.parts) if part["type"] not in _APART]
    if message.role == "assistant":
        parts = [(i, said) for i, part in parts if (said := _of_model(part, f"{where}: content[{i}]")) is not None]
    if all(part["type"] in TEXTS and isinstance(part.get("text"), str) for _, part in parts):
        return "".join(part["text"] for _, part in parts)
    return [own_form(part) if part["type"] == "opaque" else _part(part, f"{where}: content[{i}]") for i, part in parts]


def _of_model(part: dict[str, Any], where: str) -> dict[str, Any] | None:
    """A part of the model's turn; of media, only the transcript, as Cohere accepts images only from users."""
    if media_of(part, where) is None:
        return part
    return {"type": "text", "text": str(words)} if (words := part.get("transcript")) else None


def _part(part: dict[str, Any], where: str) -> dict[str, Any]:
    if part["type"] in TEXTS:
        return {**{name: value for name, value in part.items() if name not in ("raw", "by")}, "type": "text"}
    media = media_of(part, where)
    if media is None:
        return part
    if media.kind != "image":
        raise InvalidRequest(f"{where}: {_ADVICE[media.kind]}")
    detail = {"detail": media.detail} if media.detail else {}
    return {"type": "image_url", "image_url": {"url": media.data_url, **detail}}


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = call.text if call.text and call.problem is None else json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {**mapping(call.raw), "id": call.id, "type": "function", "function": function}


def _add_structure(request: ChatRequest, body: dict[str, Any]) -> None:
    """Adds the tools and the schema. If one tool must be called, only that tool is sent."""
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
            body["response_format"] = {"type": "json_object", "json_schema": _form(request.schema.json_schema)}
    if sent:
        body["tools"] = sent
    if any(tool.strict for tool in tools):
        body["strict_tools"] = True


@remembered
def _form(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema as the service takes it."""
    from llmbridge._schemas.subsets import as_openai_takes, object_form

    return as_openai_takes(object_form(document))


def _tool(tool: Tool) -> dict[str, Any]:
    from llmbridge.providers.openai.request import described, encode_tool

    if tool.raw is not None:
        return encode_tool(tool)
    made = described(tool.name, tool.description, tool.parameters)
    return {"type": "function", "function": {"name": tool.name, **made}}


class _Reader:
    """Reads the events of one answer."""

    __slots__ = ("_open", "_seen", "_unread")

    def __init__(self) -> None:
        self._open: dict[int | None, dict[str, Any]] = {}  # contents of unknown types by index
        self._seen: dict[str, Any] = {}  # unknown fields
        self._unread: Any = None  # the first thing of an unknown form

    def read(self, frame: Frame) -> Iterable[Item | End]:
        """The content of one event."""
        try:
            # The common event, recognized quickly: only a piece of text.
            event, end = scan_json(frame.data, 0)
            delta = event["delta"]
            message = delta["message"]
            content = message["content"]
            text = content["text"]
            if (
                text.__class__ is str
                and text
                and len(content) == len(message) == len(delta) == 1
                and len(event) == 3
                and "index" in event
                and event["type"] == "content-delta"
                and end == len(frame.data)
                and not self._open
            ):
                return (text,)
        except (StopIteration, RecursionError, ValueError, TypeError, LookupError):
            pass  # not the common case: fall through to the full decoder
        return self._frame(frame)

    def _frame(self, frame: Frame) -> Iterator[Item | End]:
        """The content of any event. Its type is in the data as well."""
        if frame.event == "error":
            raise error_in_stream(frame.data)
        if not frame.data.strip() or frame.data.startswith("[DONE]"):
            return  # gateways add OpenAI's end mark after Cohere's
        event = parsed_json(frame.data)
        if not isinstance(event, Mapping):
            raise ProtocolError(f"expected a JSON object in a stream event, got {type(event).__name__}")
        kind, index = string(event.get("type")) or frame.event, _index(event.get("index"))
        given = event.get("delta", {name: event[name] for name in _IN_DELTA & event.keys()})
        delta = given if isinstance(given, Mapping) else {}
        if kind not in _EVENTS:
            if event.get("error") or ("type" not in event and is_report(event)):
                raise error_in_stream(dict(event))
            if event:
                yield Other(kind, event)
            return
        inner = delta.get("message", delta.get("text", given if isinstance(given, str) else None))
        message = inner if isinstance(inner, Mapping) else {"content": delta.get("content", inner)}
        said = self._message(message, index, kind)
        yield from _as_summary([*said], delta) if kind == "message-end" else said
        if isinstance(probabilities := event.get("logprobs"), Mapping):
            yield Logprobs((probabilities,))
        for fields, known in ((event, _EVENT if "delta" in event else _EVENT | _IN_DELTA), (delta, _IN_DELTA)):
            yield from self._unknown(fields, known)
        if kind == "content-end":
            yield from self._closed(index)
        elif kind == "message-end":
            if delta.get("error"):
                raise error_in_stream(dict(delta))
            yield from self._end(delta)
            yield END

    def document(self, document: Any) -> Iterator[Item | End]:
        """The content of a whole answer."""
        document = document[0] if isinstance(document, list) and len(document) == 1 else document
        fields = mapping(document)
        message = fields.get("message")
        if not isinstance(message, Mapping):
            if isinstance(message, str) and not fields.get("error") and any(finish_of(fields.get("finish_reason"), {})):
                message = {"content": message}
            elif message or fields.get("error"):
                raise error_in_stream(document)
            else:
                raise ProtocolError("the service's JSON is not an answer in Cohere's form: check the base_url")
        yield from self._message(message, None, "")
        probabilities = fields.get("logprobs")
        if isinstance(probabilities, list) and probabilities:
            yield Logprobs(tuple(probabilities))
        yield from self._unknown(fields, _DOCUMENT)
        yield from self._end(fields)
        yield END

    def _message(self, message: Mapping[str, Any], index: int | None, event: str) -> Iterator[Item]:
        """The content of a message or a piece of one."""
        plan = message.get("tool_plan")
        if isinstance(plan, str) and plan:
            yield Reasoning(plan)
        for content in _each(message.get("content")):
            yield from self._content(content, index, event)
        for number, call in enumerate(map(mapping, _each(message.get("tool_calls")))):
            yield self._call(call, index if event else number)
        if event == "tool-call-end":
            yield ToolCallDelta(index, whole=True)
        for citation in _each(message.get("citations")):
            yield from _citations(mapping(citation))
        yield from self._unknown(message, _MESSAGE)

    def _content(self, content: Any, index: int | None, event: str) -> Iterator[Item]:
        """Text, thinking, or content of an unknown type, which is assembled first."""
        if isinstance(content, str):
            content = {"text": content}
        if not isinstance(content, Mapping):
            self._unread = content
            return
        if event and (block := self._open.get(index)) is not None:
            _merge(block, content)
            return
        kind = string(content.get("type"))
        if kind not in ("", "text", "thinking"):
            self._open[index] = dict(content)
            if event != "content-start":
                yield from self._closed(index)
            return
        for name in ("thinking", "text"):
            text = content.get(name)
            if isinstance(text, str):
                if text:
                    yield text if name == "text" else Reasoning(text)
            elif text is not None:
                self._unread = content
        yield from self._unknown(content, _CONTENT)

    def _closed(self, index: int | None) -> Iterator[Item]:
        """A finished content of an unknown type."""
        if (block := self._open.pop(index, None)) is not None:
            yield Other(block["type"], block, in_turn=True)

    def _unknown(self, fields: Mapping[str, Any], known: frozenset[str]) -> Iterator[Other]:
        """Unknown fields that are not empty, each once."""
        for name, value in fields.items():
            if name not in known and value is not None and self._seen.get(name) != value:
                self._seen[name] = value
                yield Other(name, {name: value})

    def _call(self, call: Mapping[str, Any], index: int | None) -> ToolCallDelta:
        function = mapping(call.get("function"))
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):  # some imitations send that
            try:
                arguments = json.dumps(arguments)
            except RecursionError:
                raise ProtocolError("the arguments of a tool call are nested too deeply") from None
        id, name = string(call.get("id")), string(function.get("name"))
        raw = {name: value for name, value in call.items() if name not in _CALL}
        return ToolCallDelta(index, id or None, name or None, string(arguments), raw=raw or None)

    def _end(self, fields: Mapping[str, Any]) -> Iterator[Item]:
        """Usage and finish reason. `tokens` counts everything, `billed_units` only what is paid for."""
        for index in [*self._open]:
            yield from self._closed(index)
        usage = mapping(fields.get("usage"))
        counted = mapping(usage.get("tokens")) or mapping(usage.get("billed_units"))
        prompt, answer = _count(counted.get("input_tokens")), _count(counted.get("output_tokens"))
        if prompt is not None or answer is not None:
            yield Usage(prompt, answer, cached_input_tokens=_count(usage.get("cached_tokens")), raw=dict(usage))
        if self._unread is not None:
            raise ProtocolError(f"the service's content is not in Cohere's form: {shown(self._unread)}")
        yield from finish_of(fields.get("finish_reason"), {})


def _as_summary(said: list[Item], delta: Mapping[str, Any]) -> Iterator[Item]:
    """The whole answer repeated in the last event, as gateways may do."""
    if said:
        yield Summary([*said, *finish_of(delta.get("finish_reason"), {})])


def _citations(citation: Mapping[str, Any]) -> Iterator[Citation]:
    """A citation per source; places in the plan or the thinking are not places in the answer."""
    if not citation:
        return
    start = end = None
    if citation.get("type") in (None, "TEXT_CONTENT"):
        start, end = _count(citation.get("start")), _count(citation.get("end"))
    for source in _each(citation.get("sources")) or [{}]:
        fields = mapping(source)
        inner = next((found for name in ("document", "tool_output") if (found := mapping(fields.get(name)))), {})
        url, title, quote = (string(inner.get(name)) or None for name in ("url", "title", "snippet"))
        raw = {**citation, "sources": [source]} if source else citation
        yield Citation(url, string(fields.get("id")) or None, title, quote, start, end, raw)


def _merge(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Adds a piece to content of an unknown type: texts and lists grow, anything else is replaced."""
    for name, value in delta.items():
        known = block.get(name)
        grows = name != "type" and type(known) is type(value) and isinstance(value, (str, list))
        block[name] = known + value if grows else value


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and value.isascii():
        return int(value[:9])
    return value if value.__class__ is int else None


def _each(value: Any) -> list[Any]:
    """The value if it is a list, or a list of it."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _count(value: Any) -> int | None:
    """A number of tokens, which Cohere may write as 7.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**53:
        return None
    return int(value)

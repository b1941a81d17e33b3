"""Messages and requests: frozen, and checked completely when they are made.

Anything JSON cannot carry as UTF-8 (NaN, lone surrogates, sets, bytes, keys that are not str, a list that contains
itself) is refused here with its place, before anything is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Union

from llmbridge._json import check_text, json_copy
from llmbridge._text import edits, mended, short_repr, shown
from llmbridge._tool_call import ToolCall, read_call
from llmbridge.errors import InvalidRequest
from llmbridge.options import STRUCTURED

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from llmbridge.events import ToolResult
    from llmbridge.schema import Schema
    from llmbridge.tools import Tool, ToolChoice

    Parsed = TypeVar("Parsed", default=Any)
else:
    from typing import TypeVar  # supports defaults only from Python 3.13 on

    Parsed = TypeVar("Parsed")  # the type of `.parsed`: the class given as `schema`, or Any

__all__ = [
    "ROLES",
    "ChatRequest",
    "Message",
    "Messages",
    "Opaque",
    "Parsed",
    "call_of",
    "check_text",
    "checked_messages",
    "json_copy",
    "stored_call",
    "with_own_proofs",
]

ROLES = ("system", "developer", "user", "assistant", "tool")

Messages = Union[str, Sequence[Union["Message", Mapping[str, Any], "ToolResult", Any]]]

SchemaMode = Literal["native", "tool", "json"]


_REASONING = ("reasoning_content", "reasoning")
_OWN = ("signature", "redacted", "raw")  # understood only by the service that sent it
_MEDIA = ("image_url", "input_audio", "file")
_NO_TEXT = ("reasoning", "tool_call", "opaque")
# Only answers carry these. Some services refuse them in a request, even empty ones.
_OF_ANSWERS = ("annotations", "audio", "function_call", "refusal", "tool_calls", *_REASONING)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Args:
        role: system, developer, user, assistant or tool.
        content: Text, or a list of parts in order: text, `Image`, `Audio`, `Document`, events of an answer (`Text`,
            `Reasoning`, `ToolCall`, `Media`), `Opaque`, or mappings with a `type`. The types `text`, `image_url`,
            `input_audio`, `file` (OpenAI's forms), `reasoning` (text, signature, redacted) and `tool_call` (id, name,
            arguments) are translated for every service; other types are sent unchanged. None only for an assistant's
            turn with tool calls.
        extra: Other fields of the turn: `name`, `tool_calls` (OpenAI's form), and in a tool result `tool_call_id` and
            `is_error`. Anything else is sent unchanged.

    Raises:
        InvalidRequest: The role is unknown, or the content is neither a str nor a list of parts, or not valid JSON.

    Example:
        >>> Message("user", "Hello").to_dict()
        {'role': 'user', 'content': 'Hello'}
        >>> Message("user", [{"type": "text", "text": "Hel"}, "lo"]).text
        'Hello'
    """

    role: str
    content: str | list[Any] | None
    extra: Mapping[str, Any] = field(default_factory=dict)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            known = ", ".join(ROLES)
            raise InvalidRequest(f"role {shown(self.role)} is unknown{_meant_role(self.role)}: use one of {known}")
        if self.extra.__class__ is dict and not self.extra:
            extra: dict[str, Any] = {}  # mostly
        elif isinstance(self.extra, Mapping) and not {"role", "content"} & set(self.extra):
            extra = json_copy(self.extra, "message")
        else:
            raise InvalidRequest("extra must be a mapping of the message's other fields")
        content = _checked_content(self.content, self.role, extra)
        if content.__class__ is list and any(part["type"] == "tool_call" for part in content if type(part) is dict):
            content, extra = _with_marks(content, extra, self.role)
        object.__setattr__(self, "content", content)
        object.__setattr__(self, "extra", extra)

    @property
    def text(self) -> str:
        """All text of the content, its parts joined.

        Raises:
            InvalidRequest: One of the parts is not text, so the text alone would be incomplete.
        """
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        texts = []
        for part in self.content:
            if isinstance(part, dict):
                if part["type"] in _NO_TEXT:
                    continue
                if self.role == "assistant" and part["type"] in _MEDIA:  # in an earlier answer: use its transcript
                    texts.append(str(part.get("transcript") or ""))
                    continue
                if part["type"] not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
                    raise InvalidRequest(f"this service takes only text, not a part of type {shown(part['type'])}")
                part = part["text"]
            texts.append(part)
        return "".join(texts)

    @property
    def parts(self) -> list[dict[str, Any]]:
        """All parts of the turn in order, each with a `type`; text and tool calls included.

        Raises:
            InvalidRequest: A tool call does not have OpenAI's form.

        Example:
            >>> Message("user", "Hello").parts
            [{'type': 'text', 'text': 'Hello'}]
            >>> call = ToolCall("c1", "add", {"a": 1})
            >>> [part["type"] for part in Message("assistant", ["One:", call, "and on."]).parts]
            ['text', 'tool_call', 'text']
        """
        content = [self.content] if isinstance(self.content, str) else self.content or []
        parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
        if not self.extra.get("tool_calls"):
            return parts
        calls = [_call_part(call) for call in _checked_calls(self.extra["tool_calls"])]
        for place, part in enumerate(parts):
            if part["type"] == "tool_call":
                found = next((call for call in calls if call["id"] == part.get("id")), part)
                parts[place] = found
                calls = [call for call in calls if call is not found]
        return parts + calls

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of an assistant's turn, in order.

        Raises:
            InvalidRequest: A tool call does not have OpenAI's form.

        Example:
            >>> call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
            >>> Message("assistant", None, {"tool_calls": [call]}).tool_calls[0].arguments
            {'a': 1}
        """
        if not self.extra.get("tool_calls"):
            return ()
        return tuple(call_of(part) for part in self.parts if part["type"] == "tool_call")

    @property
    def reasoning(self) -> str:
        """The model's reasoning, as far as the turn shows it.

        Example:
            >>> Message("assistant", [{"type": "reasoning", "text": "Hm."}, "Yes."]).reasoning
            'Hm.'
        """
        parts = self.content if isinstance(self.content, list) else ()
        thoughts = (part for part in parts if isinstance(part, dict) and part["type"] == "reasoning")
        return "".join(str(part.get("text") or "") for part in thoughts)

    def to_dict(self) -> dict[str, Any]:
        """The message as a mapping that JSON can hold; `from_dict` and every list of messages accept it.

        Tool calls are in `tool_calls`, in OpenAI's form. If other parts follow a call, a part `{"type": "tool_call",
        "id": ...}` in `content` marks its place.
        """
        return {"role": self.role, "content": self.content, **self.extra}

    @classmethod
    def from_dict(cls, message: Mapping[str, Any]) -> Message:
        """The message made from a mapping.

        Args:
            message: The result of `to_dict` or `dataclasses.asdict`, or a message in OpenAI's form.

        Raises:
            InvalidRequest: It is not a message.

        Example:
            >>> Message.from_dict({"role": "user", "content": "Hi"}).text
            'Hi'
        """
        return _checked_message(message, "message")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_message

        return of_message(self)


class Opaque:
    """A part of a turn that only one service understands. It is sent back to that service only.

    Args:
        raw: The service's own object.
        by: The name of the provider it comes from.

    Raises:
        InvalidRequest: JSON cannot hold the object.

    Example:
        >>> block = Opaque({"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}, "anthropic")
        >>> Message("assistant", [block, "There are many."]).parts[0]["by"]
        'anthropic'
    """

    __slots__ = ("by", "raw")

    def __init__(self, raw: Mapping[str, Any], by: str) -> None:
        self.raw = json_copy(raw, "raw")
        self.by = by

    def __repr__(self) -> str:
        return f"Opaque({shown(self.raw)}, by={self.by!r})"

    def to_part(self) -> dict[str, Any]:
        """The object as a part of a message."""
        return {"type": "opaque", "raw": self.raw, "by": self.by}


_ROLES_ELSEWHERE = {
    "human": "user", "ai": "assistant", "bot": "assistant", "model": "assistant", "chatbot": "assistant",
    "function": "tool", "instructions": "system",
}  # fmt: skip


def _meant_role(role: Any) -> str:
    """The role that was probably meant, as the middle of a message."""
    word = role.lower() if isinstance(role, str) else ""
    meant = _ROLES_ELSEWHERE.get(word) or next((known for known in ROLES if edits(word, known) < 3), "")
    return f" (did you mean {meant!r}?)" if meant else ""


def call_of(part: Mapping[str, Any]) -> ToolCall:
    """The tool call in a part of type `tool_call`; see `Message.parts`.

    Example:
        >>> call_of({"type": "tool_call", "id": "c1", "name": "add", "arguments": {"a": 1}}).text
        '{"a": 1}'
    """
    arguments = part.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    kind, raw = part.get("kind") or "function", part.get("raw")
    return read_call(str(part.get("id") or ""), part["name"], text, part.get("signature"), False, kind, raw)


def _checked_calls(calls: Any) -> list[Mapping[str, Any]]:
    """The calls in OpenAI's form.

    Raises:
        InvalidRequest: They have another form.
    """
    if not isinstance(calls, (list, tuple)):
        raise InvalidRequest("tool_calls must be a list")
    for call in calls:
        if not isinstance(_called(call).get("name"), str):
            raise InvalidRequest(
                "a tool call must be {'id': ..., 'type': 'function', 'function': {'name': ..., 'arguments': ...}}"
            )
    return list(calls)


def _called(call: Any) -> Mapping[str, Any]:
    """The called function or tool, which is under a key named like the kind of the call."""
    inner = call.get("custom" if call.get("type") == "custom" else "function") if isinstance(call, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _call_part(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call in OpenAI's form as a part."""
    kind, called = call.get("type") or "function", _called(call)
    part = {"type": "tool_call", "id": str(call.get("id") or ""), "name": called["name"]}
    part["arguments"] = called.get("input" if kind == "custom" else "arguments") or ("" if kind == "custom" else {})
    own = {name: call[name] for name in ("signature", "raw", "by") if call.get(name)}
    return {**part, **({} if kind == "function" else {"kind": kind}), **own}


def stored_call(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of type `tool_call` in OpenAI's form, with its signature and raw object.

    Example:
        >>> stored_call({"type": "tool_call", "id": "c1", "name": "add", "arguments": "{}"})["function"]
        {'name': 'add', 'arguments': '{}'}
    """
    kind, written = part.get("kind") or "function", call_of(part).written
    called = {"name": part["name"], "input" if kind == "custom" else "arguments": written}
    own = {name: part[name] for name in ("signature", "raw", "by") if part.get(name)}
    return {"id": str(part.get("id") or ""), "type": kind, "custom" if kind == "custom" else "function": called, **own}


def _with_marks(content: list[Any], extra: dict[str, Any], role: str) -> tuple[Any, dict[str, Any]]:
    """Content and extra with each call in `tool_calls` once, its place marked in the content if something follows
    it."""
    if role != "assistant":
        raise InvalidRequest(f"a message of the role {role} holds a tool call: only the assistant makes calls")
    others = _checked_calls(extra.get("tool_calls") or [])
    calls: list[Any] = []
    marked: list[Any] = []
    for place, part in enumerate(content):
        if isinstance(part, dict) and part["type"] == "tool_call":
            id = str(part.get("id") or "")
            call = next((call for call in others if str(call.get("id") or "") == id), None)
            others = [other for other in others if other is not call]
            if call is None and not isinstance(part.get("name"), str):
                raise InvalidRequest(f"content[{place}] is a tool call without a 'name'")
            calls.append(stored_call(part) if call is None else call)
            part = {"type": "tool_call", "id": id}
        marked.append(part)
    while marked and isinstance(marked[-1], dict) and marked[-1]["type"] == "tool_call":
        marked.pop()  # calls follow everything else anyway
    return marked or None, {**extra, "tool_calls": [*calls, *others]}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request to a chat model, as a provider's `encode` gets it: what to send, but not where.

    Args:
        model: The model's name without the provider's.
        messages: At least one.
        params: Parameters: those that llmbridge names for all services (`max_tokens`, `stop`, `reasoning_effort` ...)
            are translated, all others sent unchanged.
        tools: The tools the model may call.
        tool_choice: Whether it may, must or must not call them; None leaves it to the service.
        schema: What the answer must match.
        schema_mode: How the service is made to follow it; None leaves it to the provider.
    """

    model: str
    messages: tuple[Message, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    schema: Schema | None = None
    schema_mode: SchemaMode | None = None

    @classmethod
    def checked(
        cls, model: str, messages: Messages, params: Mapping[str, Any], system: str | None = None
    ) -> ChatRequest:
        """A request made from a caller's arguments. A snapshot: later changes to the caller's lists do not affect it.

        Args:
            model: The model's name.
            messages: A str is one user message.
            params: Values that JSON can hold, and `tools`, `tool_choice`, `schema` and `schema_mode`. None, like
                `schema=False`, counts as not given.
            system: Put in front as a system message, unless it is empty.

        Raises:
            InvalidRequest: See `checked_messages`, `json_copy`, `llmbridge.tools` and `llmbridge.schema`.
        """
        return cls.of_turns(model, checked_messages(messages), params, system)

    @classmethod
    def of_turns(
        cls, model: str, turns: Sequence[Message], params: Mapping[str, Any], system: str | None = None
    ) -> ChatRequest:
        """Like `checked`, with messages that were checked before."""
        if not isinstance(model, str):
            raise InvalidRequest(f"model must be a str, not {type(model).__name__}")
        check_text(model, "model")
        if system is not None and not isinstance(system, str):
            raise InvalidRequest(f"system must be a str, not {type(system).__name__}")
        if system:
            turns = [Message("system", system), *turns]
        given = {name: value for name, value in params.items() if value is not None}
        plain = {name: value for name, value in given.items() if name not in STRUCTURED}
        request = cls(model, tuple(turns), json_copy(plain, "", root=True))
        if len(plain) == len(given):
            return request
        request = replace(request, **_structured(given))
        if request.schema is not None and "response_format" in plain:
            raise InvalidRequest("schema and response_format both define the answer's form: pass only one of them")
        return request


def _structured(params: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request for tools and schemas."""
    fields: dict[str, Any] = {}
    if params.get("tools") or params.get("tool_choice") is not None:
        from llmbridge.tools import checked_tools, tool_choice

        tools = fields["tools"] = checked_tools(params.get("tools") or ())
        if params.get("tool_choice") is not None:
            fields["tool_choice"] = tool_choice(params["tool_choice"], tools)
    if params.get("schema") is not None and params["schema"] is not False:
        from llmbridge.schema import Schema

        fields["schema"] = Schema.of(params["schema"])
    mode = params.get("schema_mode")
    if mode not in (None, "native", "tool", "json"):
        raise InvalidRequest(f"schema_mode must be 'native', 'tool', 'json' or None, not {shown(mode)}")
    return {**fields, "schema_mode": mode}


def with_own_proofs(messages: Sequence[Message], provider: str) -> tuple[Message, ...]:
    """The messages, keeping only signatures and raw objects that come from the provider's own service.

    Example:
        >>> thought = {"type": "reasoning", "text": "Hm.", "signature": "s", "by": "anthropic"}
        >>> with_own_proofs([Message("assistant", [thought, "Yes."])], "gemini")[0].content[0]
        {'type': 'reasoning', 'text': 'Hm.'}
    """
    if not any(message.role == "assistant" for message in messages):
        return tuple(messages)
    return tuple(
        _with_own_proofs(message, provider) if message.role == "assistant" else message for message in messages
    )


def _with_own_proofs(message: Message, provider: str) -> Message:
    content, extra = message.content, message.extra
    if isinstance(content, list):
        content = [part if isinstance(part, str) else _own(part, provider) for part in content]
        content = [part for part in content if part not in ({"type": "reasoning"}, {"type": "opaque"})]
    if isinstance(calls := extra.get("tool_calls"), list):
        extra = {**extra, "tool_calls": [_own_call(call, provider) for call in calls]}
    same = content == message.content and extra == message.extra
    return message if same else Message("assistant", content if content or extra else "", extra)


def _own(part: Any, provider: str) -> Any:
    """A part or call without what only another service understands."""
    if not isinstance(part, dict) or "by" not in part or not set(_OWN) & part.keys():
        return part
    foreign = ("by",) if part["by"] == provider else ("by", *_OWN)
    return {name: value for name, value in part.items() if name not in foreign}


def _own_call(call: Any, provider: str) -> Any:
    """A call for this service: another service's call that is not a function call becomes one."""
    own = _own(call, provider)
    if not isinstance(call, Mapping) or own.get("type") in (None, "function"):
        return own
    if call.get("by") in (None, provider):
        return {name: value for name, value in own.items() if name != "by"}
    made = call_of(_call_part(call))
    written = json.dumps(dict(made.arguments), ensure_ascii=False)
    return {"id": made.id, "type": "function", "function": {"name": made.name, "arguments": written}}


def checked_messages(messages: Messages) -> tuple[Message, ...]:
    """The caller's messages, checked and copied.

    Raises:
        InvalidRequest: They are empty, of a wrong type, or one of them is not a valid message. The message says which.

    Example:
        >>> checked_messages("Hi")
        (Message(role='user', content='Hi', extra={}),)
    """
    if isinstance(messages, str):
        if not messages:
            raise InvalidRequest("messages is an empty str: it needs some text")
        return (Message("user", messages),)
    if isinstance(messages, (Mapping, Message)):
        raise InvalidRequest("messages is a single message: put it in a list")
    if not isinstance(messages, Sequence) or isinstance(messages, (bytes, bytearray)):
        raise InvalidRequest(
            f"messages must be a str or a list of {{'role', 'content'}}, not {type(messages).__name__}"
        )
    if not messages:
        raise InvalidRequest("messages is an empty list: it needs at least one message")
    return tuple(_checked_message(message, f"messages[{i}]") for i, message in enumerate(messages))


def _checked_message(message: Any, where: str) -> Message:
    if isinstance(message, Message):
        return message
    if isinstance(own := getattr(message, "message", None), Message):  # a Completion, a ToolResult
        return own
    if not isinstance(message, Mapping):
        instead = ": write {'role': 'user', 'content': '...'}, and 'assistant' for the model's turns"
        says = f"{where} must be a mapping with 'role' and 'content', not {type(message).__name__}"
        raise InvalidRequest(f"{says}{instead if isinstance(message, str) else ''}")
    missing = [key for key in ("role", "content") if key not in message and not (key == "content" and len(message) > 1)]
    if missing:
        raise InvalidRequest(f"{where} has no {missing[0]!r}: write {{'role': 'user', 'content': '...'}}")
    if isinstance(own := message.get("extra"), Mapping):  # a Message dumped by dataclasses.asdict or pydantic
        message = {**message, **own, "extra": None}
    extra = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
    content = message.get("content")
    if "content" not in message and message["role"] != "assistant":
        raise InvalidRequest(f"{where} has no 'content' (it has {', '.join(map(repr, extra))})")
    if extra and message["role"] == "assistant":
        content, extra = _as_said(content, extra)
    try:
        return Message(message["role"], content, extra)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}") from None


def _as_said(content: Any, extra: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Moves the reasoning of an assistant's turn into a part of its content, and drops empty fields.

    The services' own packages dump answers in that form. The part's `field` names where the text was, for servers that
    want it back there. A refusal replaces missing content.

    Example:
        >>> _as_said("Hi", {"reasoning": "Hm.", "annotations": []})
        ([{'type': 'reasoning', 'text': 'Hm.', 'field': 'reasoning'}, 'Hi'], {})
    """
    thoughts = {name: text for name in _REASONING if isinstance(text := extra.get(name), str) and text}
    kept = {key: value for key, value in extra.items() if (value or key not in _OF_ANSWERS) and key not in thoughts}
    if not content and isinstance(kept.get("refusal"), str):
        content = kept.pop("refusal")
    parts = content if isinstance(content, (list, tuple)) else [content] if content else []
    if not thoughts or any(isinstance(part, Mapping) and part.get("type") == "reasoning" for part in parts):
        return content, kept
    name, text = next(iter(thoughts.items()))  # two fields hold the same text
    return [{"type": "reasoning", "text": text, "field": name}, *parts], kept


def _checked_content(content: Any, role: str, extra: Mapping[str, Any]) -> str | list[Any] | None:
    if isinstance(content, str):
        check_text(content, "content")
        return content
    if content is None:
        if role == "assistant" and extra:
            return None
        raise InvalidRequest("content is None: only an assistant message with tool_calls can leave it out")
    if not isinstance(content, (list, tuple)):
        raise InvalidRequest(f"content must be a str or a list of parts, not {type(content).__name__}")
    content = [part.to_part() if _is_media(part) else part for part in content]
    for i, part in enumerate(content):
        if not isinstance(part, str) and not (isinstance(part, Mapping) and isinstance(part.get("type"), str)):
            raise InvalidRequest(f"content[{i}] must be a str or a mapping with a 'type', not {shown(part)}")
        if not isinstance(part, str) and part["type"] == "text" and not isinstance(part.get("text"), str):
            raise InvalidRequest(f"content[{i}] is a part of type 'text': its 'text' must be a str")
    copied: list[Any] = json_copy(content, "content")
    return copied


def result_message(result: ToolResult) -> Message:
    """A tool's result as a message. An image, sound or document, alone or in a list, becomes a part of it.

    Example:
        >>> from llmbridge.events import ToolCall, ToolResult
        >>> result_message(ToolResult(ToolCall("c1", "add"), "5")).to_dict()
        {'role': 'tool', 'content': '5', 'tool_call_id': 'c1', 'name': 'add'}
    """
    failed = {"is_error": True} if result.failed else {}
    parts = [item.to_part() if _is_media(item) else _text(item) for item in _with_media(result.value)]
    extra = {"tool_call_id": result.call.id, "name": result.call.name, **failed}
    return Message("tool", parts or result.text, extra)


def text_of(value: Any) -> str:
    """A value as text; images, sound and documents are only named.

    Example:
        >>> from llmbridge import Image
        >>> text_of(["Here:", Image("https://example.com/cat.png")])
        "Here:\\nImage('https://example.com/cat.png')"
    """
    values = _with_media(value)
    if not values:
        return _text(value)
    return "\n".join(repr(item) if _is_media(item) else _text(item) for item in values)


def _with_media(value: Any) -> list[Any]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values if any(map(_is_media, values)) else []


def _is_media(item: Any) -> bool:
    """Whether it is an Image, Audio or Document, without importing their module."""
    return hasattr(item, "to_part") and not isinstance(item, type)


def _text(value: Any) -> str:
    # A tool may ask a model and return its Completion: it means the text, not the whole object.
    if isinstance(getattr(value, "message", None), Message):
        return mended(str(value.text))
    from llmbridge._schemas.jsonable import result_text

    return mended(result_text(value))

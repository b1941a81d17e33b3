"""Messages and requests: frozen, checked when they are made, never sent half-wrong.

Whatever JSON cannot carry as UTF-8 (NaN, lone surrogates, sets, bytes, keys that are no text, a list that contains
itself) is refused here, with the place where it stands, before anything goes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from llmbridge.errors import InvalidRequest

__all__ = ["ROLES", "ChatRequest", "Message", "Messages", "checked_messages", "json_copy"]

ROLES = ("system", "developer", "user", "assistant", "tool")

Messages = Union[str, Sequence[Union["Message", Mapping[str, Any]]]]

_LONGEST_INT = 4096  # bits; Python itself refuses to write numbers three times as long
_DEEPEST = 200  # below the recursion limits of CPython's own JSON encoder and decoder


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Args:
        role: One of system, developer, user, assistant, tool.
        content: Text, or a list of parts (`{"type": "text", "text": ...}` or what the service knows). None only for
            an assistant's turn that made tool calls.
        extra: What else the turn carries (`name`, `tool_call_id`, `tool_calls`), sent as given.

    Raises:
        InvalidRequest: The role is unknown or the content is no text, no list of parts, or cannot be sent as JSON.

    Example:
        >>> Message("user", "Hello").to_dict()
        {'role': 'user', 'content': 'Hello'}
        >>> Message("user", [{"type": "text", "text": "Hel"}, "lo"]).text
        'Hello'
    """

    role: str
    content: str | list[Any] | None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidRequest(f"role {_short(self.role)} is unknown: use one of {', '.join(ROLES)}")
        if not isinstance(self.extra, Mapping) or {"role", "content"} & set(self.extra):
            raise InvalidRequest("extra must be a mapping of what the message has beside its role and content")
        object.__setattr__(self, "content", _checked_content(self.content, self.role, self.extra))
        object.__setattr__(self, "extra", json_copy(self.extra, "message"))

    @property
    def text(self) -> str:
        """All text of the content, its parts joined.

        Raises:
            InvalidRequest: There is a part that is no text, so that the text alone would not say what was meant.
        """
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        texts = []
        for part in self.content:
            if isinstance(part, dict):
                if part["type"] not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
                    raise InvalidRequest(f"this service takes text only, not a part of type {_short(part['type'])}")
                part = part["text"]
            texts.append(part)
        return "".join(texts)

    def to_dict(self) -> dict[str, Any]:
        """The turn as the mapping it was made from."""
        return {"role": self.role, "content": self.content, **self.extra}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request to a chat model, as a provider's `encode` gets it: what to say, without where to send it.

    Args:
        model: The model's name without the provider's.
        messages: At least one.
        params: Parameters of the service, sent as given.
    """

    model: str
    messages: tuple[Message, ...]
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def checked(
        cls, model: str, messages: Messages, params: Mapping[str, Any], system: str | None = None
    ) -> ChatRequest:
        """A request from what a caller passed; later changes of the caller's lists do not reach it.

        Args:
            model: The model's name.
            messages: A str is one user message.
            params: Values that JSON can hold.
            system: Put in front as a system message.

        Raises:
            InvalidRequest: See `checked_messages` and `json_copy`.
        """
        _check_text(model, "model")
        turns = checked_messages(messages)
        if system is not None:
            turns = (Message("system", system), *turns)
        return cls(model, turns, json_copy(params, "", root=True))


def checked_messages(messages: Messages) -> tuple[Message, ...]:
    """The caller's messages, checked and copied.

    Raises:
        InvalidRequest: Empty, of a wrong type, or one of them is not a proper message; says which.

    Example:
        >>> checked_messages("Hi")
        (Message(role='user', content='Hi', extra={}),)
    """
    if isinstance(messages, str):
        if not messages:
            raise InvalidRequest("messages is an empty str: give the model something to answer")
        return (Message("user", messages),)
    if isinstance(messages, (Mapping, Message)):
        raise InvalidRequest("messages is a single message: put it into a list")
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
    if not isinstance(message, Mapping):
        raise InvalidRequest(f"{where} must be a mapping with 'role' and 'content', not {type(message).__name__}")
    missing = [key for key in ("role", "content") if key not in message and not (key == "content" and len(message) > 1)]
    if missing:
        raise InvalidRequest(f"{where} has no {missing[0]!r}: write {{'role': 'user', 'content': '...'}}")
    extra = {key: value for key, value in message.items() if key not in ("role", "content")}
    try:
        return Message(message["role"], message.get("content"), extra)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}") from None


def _checked_content(content: Any, role: str, extra: Mapping[str, Any]) -> str | list[Any] | None:
    if isinstance(content, str):
        _check_text(content, "content")
        return content
    if content is None:
        if role == "assistant" and extra:
            return None
        raise InvalidRequest("content is None: only an assistant message with tool_calls may have no content")
    if not isinstance(content, (list, tuple)):
        raise InvalidRequest(f"content must be a str or a list of parts, not {type(content).__name__}")
    for i, part in enumerate(content):
        if isinstance(part, str) or (isinstance(part, Mapping) and isinstance(part.get("type"), str)):
            continue
        raise InvalidRequest(f"content[{i}] must be a str or a mapping with a 'type', not {_short(part)}")
    copied: list[Any] = json_copy(content, "content")
    return copied


def json_copy(value: Any, where: str, *, root: bool = False, depth: int = 0) -> Any:
    """A deep copy that holds only what JSON can carry as UTF-8.

    Args:
        value: Anything made of dict, list, tuple, str, int, float, bool and None.
        where: The place to name in an error.
        root: True names the keys of the outermost mapping as parameters of their own.

    Raises:
        InvalidRequest: Something in it is not; says where and what.

    Example:
        >>> json_copy({"stop": ("a", "b")}, "options")
        {'stop': ['a', 'b']}
    """
    if isinstance(value, str):
        _check_text(value, where)
        return value
    if value is None:
        return value
    if isinstance(value, int):
        if value.bit_length() > _LONGEST_INT:
            raise InvalidRequest(f"{where} is a number of {value.bit_length()} bits, which no service reads")
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise InvalidRequest(f"{where} is {value}: JSON has no NaN and no infinity")
    if depth >= _DEEPEST:
        raise InvalidRequest(f"{where.split('[')[0]} is nested too deeply, or contains itself")
    if isinstance(value, Mapping):
        return {
            _checked_key(key, where): json_copy(item, key if root else f"{where}[{key!r}]", depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [json_copy(item, f"{where}[{i}]", depth=depth + 1) for i, item in enumerate(value)]
    raise InvalidRequest(f"{where} is of type {type(value).__name__}, which JSON cannot hold: convert it first")


def _checked_key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidRequest(f"{where or 'params'} has a key of type {type(key).__name__}: JSON keys are str")
    _check_text(key, f"a key of {where or 'params'}")
    return key


def _check_text(text: str, where: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{where} holds a lone surrogate at position {error.start}, which UTF-8 cannot carry: "
            "decode the text properly, or clean it with text.encode('utf-8', 'replace').decode()"
        ) from None


def _short(value: Any) -> str:
    """A repr that fits into a message and quotes no more than a few words of a prompt."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

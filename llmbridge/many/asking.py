"""What a row asks for: the answer of a chat, or an embedding; how it is sent, and how a journal holds it."""

from __future__ import annotations

import inspect
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from llmbridge._text import shown
from llmbridge.completion import Completion
from llmbridge.errors import (
    BadRequest,
    ConfigError,
    InvalidRequest,
    LLMBridgeError,
    Overloaded,
    ProtocolError,
    ServerError,
    StatusError,
    TransportError,
)
from llmbridge.many.journal import HIDDEN
from llmbridge.messages import Message, check_text, checked_messages
from llmbridge.options import TRANSPORT_NAMES, ChatOptions, Timeout, TransportOptions, checked_options
from llmbridge.providers import names_taken
from llmbridge.retry import Retry

if TYPE_CHECKING:
    from typing_extensions import Self

    from llmbridge._call.plan import Plan
    from llmbridge._call.route import Connections
    from llmbridge.client import Client
    from llmbridge.events import Usage
    from llmbridge.many.row import Asked
    from llmbridge.schema import Schema

__all__ = ["Answered", "Asking", "Chats", "Embeds"]

_OF_CHOICES = ("text", "reasoning", "tool_calls", "finish_reason", "raw_finish_reason", "refusal", "logprobs")
_TEXTS = 64  # in a request for embeddings
_NOT_OF_ANSWERS = (*TRANSPORT_NAMES, "unsupported", "schema_retries", "params", "model", "stream")
_DIGEST_SIZE = 16
_QUEUED_PART = 240  # of what goes out in a minute may be in the queue: a quarter of a second
_UNKNOWN_PACE = 1200  # where tokens alone are limited
_quoted = json.JSONEncoder().encode  # much cheaper than `dumps` for a str
_BREVITIES = 16  # settings of a client of which it is remembered whether answers are quick
_MOST_NEEDED = 1024  # however often whole answers have failed: what is learned outlives a run
_QUICK = 16  # answers in a row, after which whole ones are asked for
_QUICK_SECONDS = 5.0
_NEVER = float("inf")
_HELD_UP = (TransportError, ProtocolError, ServerError)  # by what a stream may pass
_NOT_THERE = (404, 405)  # Gemini's dialect has another path for whole answers


class Answered(NamedTuple):
    """What came of one request: an answer for each row, and the tokens of all."""

    answers: Sequence[Any]
    usage: Usage | None


class Asking(ABC):
    """A way to ask for rows.

    Args:
        client: Its defaults, connections and limits count.
        options: What the call takes beside the content.

    Attributes:
        kind: What answers are called in a journal.
        most: Rows in one request, at the most.
        retry: How long to wait before a request is repeated.
        parses: Whether it may take a while to make a result of an answer, as with classes of the caller.
        settings: What all answers depend on, as JSON can hold it; nothing that is secret.

    Raises:
        ConfigError: An option cannot be used.
    """

    most = 1
    parses = False
    kind: str

    def __init__(self, client: Client, options: Mapping[str, Any]) -> None:
        if options.get("retries") is not None:
            raise ConfigError("map() repeats requests by itself: use attempts= in place of retries=")
        transport = TransportOptions.checked(**{name: options.get(name) for name in TRANSPORT_NAMES})
        self.retry = client.transport_options.retries or Retry()
        self._client = client
        self._transport = replace(transport, retries=replace(self.retry, times=0, on_retry=None))
        self._options = {**options, **vars(self._transport)}
        said = {
            name: value
            for name, value in options.items()
            if value is not None or name not in ChatOptions.__dataclass_fields__
        }
        own = {**vars(client.chat_options), **client.chat_options.params, **said}
        given = {name: _plain(name, value) for name, value in own.items() if name not in _NOT_OF_ANSWERS}
        given.update(of=self.kind, model=self._model())
        self.settings = {name: value for name, value in given.items() if value is not None}
        self._seed = blake2b(json.dumps(self.settings, sort_keys=True).encode() + b"\n", digest_size=_DIGEST_SIZE)

    def by(self, client: Client) -> Self:
        """The same for another client, with what has been learned of the service."""
        again = copy(self)
        again._client = client
        return again

    @property
    def room(self) -> float:
        """How many requests may join the queue of the client's limits. It is kept short: their timeouts run there."""
        limiter = self._client.connections.limiter
        if limiter is None:
            return float("inf")
        return 1 + (limiter.limits.requests_per_minute or _UNKNOWN_PACE) // _QUEUED_PART - limiter.waiting

    def digest(self, key: str | None, content: Any) -> bytes:
        """Names a question: its key, what is sent, and the settings."""
        seed = self._seed.copy()
        seed.update(f"[{_quoted(key)}, {self._as_json(content)}]".encode())
        return seed.digest()

    def tokens(self, content: Any) -> int:
        """Roughly the tokens that it takes, with the longest answer that is allowed."""
        from llmbridge.limits import estimate_tokens

        return estimate_tokens({"content": self._as_data(content), "max_tokens": self.settings.get("max_tokens")})

    @abstractmethod
    def _model(self) -> Any:
        """The model that answers. Checks all options as well."""

    @abstractmethod
    def _as_data(self, content: Any) -> Any:
        """The content as JSON can hold it."""

    def _as_json(self, content: Any) -> str:
        return json.dumps(self._as_data(content), sort_keys=True)

    @abstractmethod
    def checked(self, content: Any) -> Any:
        """What will be sent.

        Raises:
            InvalidRequest: It cannot be.
        """

    @abstractmethod
    def steps(self, rows: Sequence[Asked]) -> Generator[Any, None, Answered]:
        """Asks, see `Steps` in `calls`; returns the answers.

        Raises:
            LLMBridgeError: There are none.
        """

    @abstractmethod
    def recorded(self, answer: Any) -> Any:
        """The answer as JSON can hold it."""

    @abstractmethod
    def restored(self, record: Any) -> Any:
        """The answer that was recorded.

        Raises:
            LLMBridgeError: It fits no more.
        """

    def packed(self, answer: Any) -> Any:
        """The answer as another process can unpickle it, and hand it to `unpacked`."""
        return answer

    def unpacked(self, answer: Any) -> Any:
        """The answer that was packed.

        Raises:
            LLMBridgeError: It does not fit here.
        """
        return answer


class Brevity:
    """Whether answers are quick enough to be asked for whole.

    A whole answer takes less CPU than a stream. But nothing is heard of it until it is complete: neither a timeout nor
    a proxy on the way can tell it from a dead connection. So it is only for answers that come soon.

    Args:
        seconds: An answer that takes longer is slow; 0 if whole answers are not wanted.

    Attributes:
        proven: How many answers in a row were quick.
        needed: How many must have been.

    Example:
        >>> brevity = Brevity(seconds=5)
        >>> for _ in range(16):
        ...     brevity.heard(0.3)
        >>> brevity.proven >= brevity.needed
        True
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.proven, self.needed = 0, _QUICK

    def heard(self, seconds: float) -> None:
        """An answer has come, after so many seconds."""
        self.proven = self.proven + 1 if seconds < self.seconds else 0

    def failed(self) -> None:
        """A whole answer has not come: whatever holds it up, it takes longer to believe that the next one will."""
        if self.proven:  # only the first one of those under way at the time
            self.proven, self.needed = 0, min(2 * self.needed, _MOST_NEEDED)

    def refused(self) -> None:
        """The service gives no whole answers."""
        self.seconds, self.proven = 0.0, 0


_brevities: WeakKeyDictionary[Connections, dict[tuple[bytes, str | None, float], Brevity]] = WeakKeyDictionary()


def _brevity(connections: Connections, settings: bytes, base_url: str | None, seconds: float) -> Brevity:
    """What earlier runs of a client with the same settings have learned of the same service, or a new one."""
    known, key = _brevities.setdefault(connections, {}), (settings, base_url, seconds)
    found = known.get(key)
    if found is None:
        while len(known) >= _BREVITIES:
            known.pop(next(iter(known)), None)
        found = known[key] = Brevity(seconds)
    return found


class Chats(Asking):
    """Asks for a `Completion` for each row: for a stream, or for the whole answer where answers are quick."""

    kind = "chats"

    def __init__(self, client: Client, options: Mapping[str, Any]) -> None:
        super().__init__(client, _read_once(options))
        if self._options.get("unsupported", client.chat_options.unsupported) == "warn":
            self._options["unsupported"] = "drop"  # the caller was warned, once
        wanted = options.get("schema") if options.get("schema") is not None else client.chat_options.schema
        self._schema = _schema_of(wanted) if wanted is not None and wanted is not False else None
        self.parses = self._schema is not None
        self._plans: dict[bool, Plan] = {}  # of streamed answers, and of whole ones
        defaults = client.chat_options
        own = {**defaults.params, **(defaults.extra or {}), **options, **(options.get("extra") or {})}
        free = self._answers_whole and own.get("stream") is None and not own.get("background")
        timeout = self._options["timeout"] or client.transport_options.timeout or Timeout()
        seconds = min(_QUICK_SECONDS, (timeout.first_content or _NEVER) / 2) if free else 0.0
        base_url = self._transport.over(client.transport_options).base_url
        self._brevity = _brevity(client.connections, self._seed.digest(), base_url, seconds)

    def by(self, client: Client) -> Self:
        """See Asking."""
        again = super().by(client)
        again._plans = {}
        return again

    def _model(self) -> Any:
        checked = self._plan(self._options).stream("?")
        self._answers_whole = checked._source.current.answers_whole
        models = self._options["model"] or (self._client.several and self._client._model)
        if isinstance(models, (list, tuple)):
            return [model if isinstance(model, str) else model.default_model for model in models]
        return f"{checked.provider}:{checked.model}"

    def _as_data(self, content: Sequence[Message]) -> Any:
        return [message.to_dict() for message in content]

    def _as_json(self, content: Sequence[Message]) -> str:
        if len(content) == 1 and isinstance(text := content[0].content, str) and not content[0].extra:
            return f'[{{"content": {_quoted(text)}, "role": "{content[0].role}"}}]'  # the same, in a third of the time
        return super()._as_json(content)

    def checked(self, content: Any) -> tuple[Message, ...]:
        """See Asking."""
        if isinstance(content, Mapping):
            raise InvalidRequest("the item is a mapping: say with prompt= what to ask, like prompt='{text}'")
        return checked_messages(content)

    def steps(self, rows: Sequence[Asked]) -> Generator[Any, None, Answered]:
        """See Asking."""
        asked, brevity = rows[0], self._brevity
        whole = not asked.failures and brevity.proven >= brevity.needed
        try:
            answer = yield from self._answer(asked, whole)
        except LLMBridgeError as error:
            if not (whole and _only_streams(error)):
                if whole and isinstance(error, _HELD_UP) and not isinstance(error, Overloaded):
                    brevity.failed()
                raise
            brevity.refused()
            answer = yield from self._answer(asked, whole=False)
        brevity.heard(answer.total_seconds or 0.0)
        return Answered([answer], answer.usage)

    def _answer(self, asked: Asked, whole: bool) -> Generator[Any, None, Completion]:
        plan = self._plans.get(whole)
        if plan is None:
            plan = self._plans[whole] = self._plan({**self._options, "stream": False} if whole else self._options)
        return plan.stream(asked.content)._steps()

    def _plan(self, options: Mapping[str, Any]) -> Plan:
        transport, chat = checked_options(options, names_taken)
        return self._client._plan(options["model"], transport, chat)

    def recorded(self, answer: Completion) -> Any:
        """See Asking."""
        data = {**answer.to_dict(), "headers": None}
        if data["usage"] is not None:
            data["usage"] = _said(data["usage"])
        text = {"role": "assistant", "content": answer.text}
        again = {
            "message": text,
            "turns": [data["message"]],
            "choices": [_choice(data)],
            "parsed": None,
        }  # see `restored`
        differing = {name: data[name] for name, value in again.items() if data[name] != value}
        return {**_said({name: value for name, value in data.items() if name not in again}), **differing}

    def restored(self, record: Any) -> Completion:
        """See Asking."""
        data = {"text": "", "message": Message("assistant", record.get("text", "")), **record}
        if "turns" not in record:
            data["turns"] = [data["message"]]
        if "choices" not in record:
            data["choices"] = [_choice(record)]
        return self.unpacked(Completion.from_dict(data))

    def packed(self, answer: Completion) -> Completion:
        """See Asking. The class of what is parsed may be known to the other process alone."""
        return answer if self._schema is None or answer.parsed is None else replace(answer, parsed=True)

    def unpacked(self, answer: Completion) -> Completion:
        """See Asking."""
        if self._schema is None or answer.parsed is None:
            return answer
        return replace(answer, parsed=self._schema.parse(answer.text))


def _read_once(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the types and functions in them as schemas and tools, so that no row has to read them again."""
    read = dict(options)
    if read.get("schema") is not None and read["schema"] is not False:
        read["schema"] = _schema_of(read["schema"])
    if read.get("tools") is not None:
        from llmbridge.tools import checked_tools

        read["tools"] = checked_tools(read["tools"])
    return read


def _only_streams(error: LLMBridgeError) -> bool:
    """Whether a service that has streamed before refuses a whole answer as such, or where it is asked for."""
    says = isinstance(error, BadRequest) and re.search("(?<!up)stream", error.message, re.IGNORECASE)
    return bool(says) or (isinstance(error, StatusError) and error.status in _NOT_THERE)


class Embeds(Asking):
    """Asks for a vector for each row, several in a request."""

    most = _TEXTS
    parses = True  # thousands of numbers
    kind = "embeddings"

    def _call(self, texts: Sequence[str]) -> Any:
        ask: Any = inspect.unwrap(type(self._client).embed)
        return ask(self._client, texts, **self._options)

    def _model(self) -> Any:
        checked = self._call(["?"])
        return f"{checked._provider.name}:{checked._model}"

    def _as_data(self, content: str) -> Any:
        return content

    def checked(self, content: Any) -> str:
        """See Asking."""
        if not isinstance(content, str):
            raise InvalidRequest(f"to embed, an item must be a str, or prompt= make one of it, not {shown(content)}")
        check_text(content, "the item")
        return content

    def steps(self, rows: Sequence[Asked]) -> Generator[Any, None, Answered]:
        """See Asking."""
        found = yield from self._call([row.content for row in rows]).steps()
        return Answered(found.vectors, found.usage)

    def recorded(self, answer: list[float]) -> Any:
        """See Asking."""
        return answer

    def restored(self, record: Any) -> Any:
        """See Asking."""
        return record


def _choice(data: Mapping[str, Any]) -> dict[str, Any]:
    """The only choice of an answer, which says the same as the answer itself."""
    return {"index": 0, "text": "", **{name: data[name] for name in _OF_CHOICES if name in data}}


def _said(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value not in (None, "", [], {})}


def _schema_of(schema: Any) -> Schema:
    from llmbridge.schema import Schema

    return Schema.of(schema)


def _plain(name: str, value: Any) -> Any:
    """A setting as JSON can hold it, the same in every process; of one that may hold a prompt, its digest."""
    if value is None or (name == "schema" and value is False):
        return None
    if name == "schema":
        value = _schema_of(value).json_schema
    if name == "tools":
        from llmbridge.tools import checked_tools

        value = [(tool.name, tool.description, tool.parameters, tool.raw) for tool in checked_tools(value)]
    plain = json.dumps(
        value, default=lambda other: getattr(other, "__qualname__", type(other).__name__), sort_keys=True
    )
    return json.loads(plain) if isinstance(value, (bool, int, float)) else f"{HIDDEN}{_digest(plain.encode()).hex()}"


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_SIZE).digest()

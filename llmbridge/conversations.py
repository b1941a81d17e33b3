"""`Conversation`: sends each question with everything said before, and can be saved and continued later.

A conversation does not read its answers. It keeps the `Reading` of the last one and looks at it when needed, so a
stream costs and lives like one of `Client.chat`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, overload

from llmbridge._text import shown
from llmbridge.completion import as_data, of_data
from llmbridge.errors import ConfigError, InvalidRequest
from llmbridge.events import ToolResult, Usage
from llmbridge.messages import Message, Parsed, checked_messages, json_copy, result_message
from llmbridge.options import checked_options, without_secrets
from llmbridge.providers import names_taken, resolve_model
from llmbridge.secret import discreet

if TYPE_CHECKING:
    from typing_extensions import Self, TypeVar

    from llmbridge._call.reading import Reading
    from llmbridge.client import Client
    from llmbridge.schema import SchemaLike
    from llmbridge.stream import ChatStream

    Other = TypeVar("Other", default=Any)

__all__ = ["Conversation"]

_FORMAT = 1  # of saved conversations; others are refused
_SETTINGS = (
    "model", "system", "max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "presence_penalty",
    "frequency_penalty", "reasoning_effort", "n", "logprobs", "top_logprobs", "parallel_tool_calls",
)  # fmt: skip
_NO_RESULT = "There is no result: the call was not made, or was interrupted."


class _Turn(NamedTuple):
    """A message, whether it starts a question, and "broken" or "paused" if an answer ended so."""

    message: Message
    asked: bool = False
    ended: str = ""


class _Answer:
    """The answer to the last question as far as it was handed out. It does not hold the stream."""

    def __init__(self, stream: ChatStream[Any]) -> None:
        self._readings: list[Reading] = []
        self._corrections: list[Sequence[Message]] = []
        self._follow(stream)

    def _follow(self, stream: ChatStream[Any]) -> None:
        """Takes a stream's reading, and that of its retry if the answer does not match the schema."""
        first, ask_again = stream._reading, stream._ask_again
        self._readings.append(first)

        def asked_again(said: Sequence[Message]) -> ChatStream[Any]:
            assert ask_again is not None
            second = ask_again(said)
            self._corrections.append(said[len(first.noted.all_turns()) :])
            self._follow(second)
            return second

        stream._ask_again = asked_again if ask_again is not None else None

    @property
    def over(self) -> bool:
        return self._readings[-1].over

    def cancel(self) -> None:
        self._readings[-1].source.cancel()

    @property
    def usage(self) -> Usage | None:
        total: Usage | None = None
        for reading in self._readings:
            total = _sum(total, reading.noted.usage)
        return total

    def turns(self) -> list[_Turn]:
        """Its messages, the last one as far as it came; none if nothing was read."""
        found: list[_Turn] = []
        for place, reading in enumerate(self._readings):
            found += map(_Turn, self._corrections[place - 1] if place else ())
            if reading.taken or reading.over:
                found += map(_Turn, reading.noted.turns)
                found.append(_Turn(reading.noted.message(), ended=_end_of(reading)))
        return found


def _end_of(reading: Reading) -> str:
    """How an answer ended. One that was left after its finish is whole, unless tools were still to run."""
    reason = reading.noted.finish.reason if reading.noted.finish and not reading.failed else None
    if not reading.done and reason in (None, "tool_calls"):
        return "broken"
    return "paused" if reason == "pause" else ""


class Conversation(Generic[Parsed]):
    """A conversation with a model. `Client.conversation` and `llmbridge.conversation` make one.

    Ask one question at a time: read the last answer to its end, leave its loop, or close it first. An answer that broke
    off (an error, a `break`, Ctrl-C, a cancelled task) is kept as far as it came, and `broken` is True. The next
    question continues from there: the text so far is sent, unanswered tool calls are not. `ask()` without a question
    tries again; `undo()` takes the question back.

    Methods may be called from any thread. A pickle holds what a pickle of the client holds, and no `api_key` of its
    own.

    Args:
        client: Its connections, limits and defaults are used.
        model: As for `Client.chat`.
        **options: The options of `Client.chat`, used for every question.

    Raises:
        ConfigError: An option is not usable.

    Example:
        >>> from llmbridge import conversation
        >>> talk = conversation(model="demo", system="Be brief.")
        >>> for piece in talk.ask("What is a bridge?"):
        ...     assert piece
        >>> answer = talk.ask("And a tunnel?").complete()
        >>> [message.role for message in talk.messages], talk
        (['user', 'assistant', 'user', 'assistant'], <Conversation demo, 2 questions>)
    """

    @discreet
    def __init__(self, client: Client, model: Any = None, **options: Any) -> None:
        self._client = client
        self._options = _checked({**options, "model": model})
        if isinstance(model, str):
            base_url = self._options.get("base_url") or client.transport_options.base_url
            resolve_model(model, base_url is not None)
        self._turns: list[_Turn] = []
        self._usage: Usage | None = None  # of finished answers
        self._answer: _Answer | None = None
        self._lock = threading.RLock()  # reentrant: a signal handler may need it, too

    @property
    def messages(self) -> list[Message]:
        """The messages sent before the next question, without the system message; an open answer as far as it came."""
        return _sent(self._all())

    @property
    def usage(self) -> Usage | None:
        """The tokens of all questions together, undone ones included; None if no service counted any."""
        with self._lock:
            return _sum(self._usage, self._answer.usage if self._answer is not None else None)

    @property
    def broken(self) -> bool:
        """Whether the last answer was cut off or left early."""
        turns = self._all()
        return bool(turns) and turns[-1].ended == "broken" and not self._open

    @property
    def _open(self) -> bool:
        return self._answer is not None and not self._answer.over

    def __repr__(self) -> str:
        if "_lock" not in vars(self):  # __init__ failed
            return "<Conversation>"
        asked = sum(turn.asked for turn in self._all())
        state = ", the last answer broke off" if self.broken else ""
        model = self._options.get("model") or getattr(self._client, "default_model", None) or "without a model"
        return f"<Conversation {model}, {asked} question{'' if asked == 1 else 's'}{state}>"

    @overload
    def ask(self, question: Any = None, *, schema: SchemaLike[Other] | bool, **options: Any) -> ChatStream[Other]: ...
    @overload
    def ask(self, question: Any = None, **options: Any) -> ChatStream[Parsed]: ...
    @discreet
    def ask(self, question: Any = None, **options: Any) -> ChatStream[Any]:
        """The answer to a question, as a stream. Nothing is sent until you read the first piece.

        Args:
            question: A str; a list of parts (text, `Image`, `Document` ...); a `Message`; a `ToolResult`, or a list of
                them, in answer to tool calls. Calls without a result are answered as not made. None sends what is
                there: to continue after a pause, or to retry an answer that broke off.
            **options: The options of `Client.chat`, for this question only.

        Raises:
            InvalidRequest: The last answer is still open, the question is empty, a result belongs to no call, or there
                is nothing to continue. The conversation is unchanged.
            ConfigError: As for `Client.chat`. The conversation is unchanged.

        Example:
            >>> from llmbridge import Client, Image
            >>> talk = Client("demo").conversation()
            >>> talk.ask(["What is this?", Image("https://example.com/a.png")]).complete().finish_reason
            'stop'
        """
        asked = _question(question)
        with self._lock:
            if self._open:
                raise InvalidRequest(
                    "the last answer has not been read to its end: read it, close() its stream, or take the question "
                    "back with undo()"
                )
            before = self._all()
            if not asked and (not before or (before[-1].message.role == "assistant" and not before[-1].ended)):
                raise InvalidRequest("there is nothing to continue: ask a question")
            _check_order(asked, before)
            turns = [*before, *(_Turn(message, asked=not place) for place, message in enumerate(asked))]
            sent = _sent(turns, "" if asked else "assistant")
            stream = self._client.chat(sent, **{**self._options, **options})
            self._usage, self._turns, self._answer = self.usage, turns, _Answer(stream)
            return stream

    def undo(self) -> list[Message]:
        """Removes the last question and its answer; an answer that is being read is cancelled.

        Returns:
            The messages that were removed; an empty list if there was no question.

        Example:
            >>> from llmbridge import conversation
            >>> talk = conversation(model="demo")
            >>> answer = talk.ask("Hello").complete()
            >>> [message.role for message in talk.undo()], talk.messages
            (['user', 'assistant'], [])
        """
        with self._lock:
            if self._answer is not None:
                self._answer.cancel()
            turns, usage = self._all(), self.usage
            begin = max((place for place, turn in enumerate(turns) if turn.asked), default=len(turns))
            self._turns, self._usage, self._answer = turns[:begin], usage, None
            taken = [turn.message for turn in turns[begin:]]
            return [message for message in taken if message.content or message.extra]

    def branch(self) -> Self:
        """An independent copy that shares the client. An answer that is being read is copied as far as it came."""
        other = object.__new__(type(self))
        with self._lock:
            vars(other).update({**vars(self), "_turns": self._all(), "_usage": self.usage, "_answer": None})
        other._lock = threading.RLock()
        return other

    def __copy__(self) -> Self:
        return self.branch()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.branch()

    def __getstate__(self) -> dict[str, Any]:
        if self._options.get("session") is not None:
            raise TypeError("a Conversation with a session of your own cannot be pickled: use save() or to_dict()")
        state = {**vars(self.branch()), "_options": without_secrets({**self._options, "api_key": None})}
        del state["_lock"]
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    # -- saving -----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The conversation as JSON can hold it: messages, usage, model, system prompt and parameters.

        Keys, headers, addresses, tools and schemas are not included: pass them again to `from_dict`.
        """
        turns, own = self._all(), self._options
        settings = {name: own[name] for name in _SETTINGS if name in own and _is_data(own[name])}
        return {
            "conversation": _FORMAT,
            "settings": json_copy(settings, "settings"),
            "usage": as_data(self.usage),
            "questions": [place for place, turn in enumerate(turns) if turn.asked],
            "broken": [place for place, turn in enumerate(turns) if turn.ended == "broken"],
            "paused": [place for place, turn in enumerate(turns) if turn.ended == "paused"],
            "messages": [turn.message.to_dict() for turn in turns],
        }

    @classmethod
    @discreet
    def from_dict(cls, saved: Mapping[str, Any], client: Client, **options: Any) -> Conversation[Any]:
        """The conversation that `to_dict` saved.

        Args:
            saved: The result of `to_dict`, also after JSON.
            client: Its connections, limits and defaults are used.
            **options: The options of `Client.conversation`; they override the saved ones.

        Raises:
            InvalidRequest: It is not a conversation, or has another format. The message names the wrong part.

        Example:
            >>> from llmbridge import Client, Conversation
            >>> client = Client("demo")
            >>> saved = client.conversation(system="Be brief.").to_dict()
            >>> Conversation.from_dict(saved, client, tools=[print])
            <Conversation demo, 0 questions>
        """
        messages = saved.get("messages") if isinstance(saved, Mapping) else None
        if not isinstance(messages, (list, tuple)):
            raise InvalidRequest("this is not a saved conversation: it has no list of messages")
        placed = [(f"messages[{place}]", message) for place, message in enumerate(messages)]
        return cls._of({**saved, "messages": len(messages)}, placed, "the conversation", client, options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves it as JSON lines, settings first and then one message per line, in a file that only its owner can read.

        The file is replaced as a whole or not at all. `to_dict` says what is left out.

        Raises:
            ConfigError: The file cannot be written.
        """
        from llmbridge.keys import replace_file

        saved = self.to_dict()
        lines = [{**saved, "messages": len(saved["messages"])}, *saved["messages"]]
        try:
            replace_file(os.fspath(path), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot save the conversation in {os.fspath(path)!r}: {reason}") from None

    @classmethod
    @discreet
    def load(cls, path: str | os.PathLike[str], client: Client, **options: Any) -> Conversation[Any]:
        """The conversation that `save` wrote; pass tools, schema and other options again.

        Args:
            path: Path of the file.
            client: Its connections, limits and defaults are used.
            **options: The options of `Client.conversation`; they override the saved ones.

        Raises:
            InvalidRequest: The file cannot be read, has another format, or a line of it is wrong. The message says
                which.
        """
        name = os.fspath(path)
        try:
            with open(name, "rb") as file:
                lines = file.read().rstrip().split(b"\n")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidRequest(f"cannot read the conversation in {name!r}: {reason}") from None
        places = [f"{name}, line {number}" for number in range(1, len(lines) + 1)]
        head, *messages = [_parsed(line, place) for line, place in zip(lines, places, strict=True)]
        return cls._of(head, list(zip(places[1:], messages, strict=True)), places[0], client, options)

    @classmethod
    def _of(
        cls, head: Any, messages: Sequence[tuple[str, Any]], where: str, client: Client, options: Mapping[str, Any]
    ) -> Conversation[Any]:
        """The conversation made of saved parts, each with its place for an error message."""
        marks = _checked_head(head, len(messages), where)
        talk: Conversation[Any] = cls(client, **{**head["settings"], **options})
        talk._usage = None if head.get("usage") is None else of_data(Usage, head["usage"], f"{where}: usage")
        for number, (place, message) in enumerate(messages):
            if not isinstance(message, Mapping):
                raise InvalidRequest(f"{place} must be a message, not {shown(message)}")
            try:
                made = Message.from_dict(message)
            except InvalidRequest as error:
                raise InvalidRequest(f"{place}: {error.message}") from None
            ended = next((name for name in ("broken", "paused") if number in marks[name]), "")
            talk._turns.append(_Turn(made, number in marks["questions"], ended))
        return talk

    def _all(self) -> list[_Turn]:
        """All turns, an open answer as far as it came."""
        with self._lock:
            return [*self._turns, *(self._answer.turns() if self._answer is not None else ())]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_conversation

        return of_conversation(self)


def _sum(usage: Usage | None, other: Usage | None) -> Usage | None:
    return other if usage is None else usage.plus(other)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of every question, checked once. A snapshot: later changes to the caller's lists do not matter."""
    if "messages" in options:
        raise ConfigError(
            "a conversation has its own messages: ask() the questions, or restore earlier ones with from_dict()"
        )
    transport, chat = checked_options(options, names_taken)
    found = {**vars(transport), **vars(chat)}
    params, model = found.pop("params"), options["model"]
    if isinstance(model, Iterable) and not isinstance(model, (str, bytes, Mapping)):
        model = tuple(model)
    return {**{name: value for name, value in found.items() if value is not None}, **params, "model": model}


def _question(asked: Any) -> list[Message]:
    """The messages of a question, results of calls first: services want them right behind the calls."""
    if asked is None or isinstance(asked, str):
        if asked == "":
            raise InvalidRequest("the question is empty: give the model something to answer")
        return [] if asked is None else [Message("user", asked)]
    items = list(asked) if isinstance(asked, (list, tuple)) else [asked]
    if not items:
        raise InvalidRequest("the question is an empty list: give the model something to answer")
    messages: list[Message] = []
    for whole, group in groupby(items, _is_message):
        some = list(group)
        messages += checked_messages(some) if whole else [Message("user", some)]
    if any(message.role == "assistant" for message in messages):
        return messages
    return sorted(messages, key=lambda message: message.role != "tool")


def _is_message(item: Any) -> bool:
    said = isinstance(item, Mapping) and "role" in item
    return said or isinstance(item, Message) or isinstance(getattr(item, "message", None), Message)


def _check_order(asked: Sequence[Message], before: Sequence[_Turn]) -> None:
    """Refuses what every service would: a result without its call, the same answer twice.

    Raises:
        InvalidRequest: The question holds one of these.
    """
    if before and asked and asked[0].role == "assistant" and asked[0] == before[-1].message:
        raise InvalidRequest("the last answer is already in the conversation: pass only the new question")
    called = next((turn.message.tool_calls for turn in reversed(before) if turn.message.role != "tool"), ())
    for message in asked:
        if message.role != "tool":
            called = message.tool_calls
        elif (id := message.extra.get("tool_call_id")) not in {call.id for call in called}:
            made = ", ".join(shown(call.id) for call in called) or "none"
            raise InvalidRequest(f"a result names the call {shown(id)}, but the last answer made these calls: {made}")


def _sent(turns: Sequence[_Turn], then: str = "") -> list[Message]:
    """The messages as services take them.

    Args:
        turns: All of them, as they came.
        then: The role of what follows; "" if that is not known.
    """
    sent: list[Message] = []
    place = 0
    while place < len(turns):
        turn, place = turns[place], place + 1
        if turn.message.role != "assistant":
            sent.append(turn.message)
            continue
        end = place
        while end < len(turns) and turns[end].message.role == "tool":
            end += 1
        results = [result.message for result in turns[place:end]]
        sent += _sent_answer(turn, results, turns[end].message.role if end < len(turns) else then)
        place = end
    return sent


def _sent_answer(turn: _Turn, results: list[Message], then: str) -> list[Message]:
    """An answer and its results: only the text of a broken answer, and a result for every call.

    Services reject calls without results, and their own tools' calls cut in half. Before a retry, a broken answer is
    left out altogether. The same holds for a paused answer that the model was not allowed to continue.
    """
    message = turn.message
    answered = {result.extra.get("tool_call_id") for result in results} & {call.id for call in message.tool_calls}
    if not answered and (turn.ended == "broken" or (turn.ended == "paused" and then not in ("", "assistant"))):
        text = "".join(part["text"] for part in message.parts if part["type"] == "text")
        return [Message("assistant", text)] if text.strip() and then != "assistant" else []
    if not any(map(_says_something, message.parts)):
        return results
    open_calls = [call for call in message.tool_calls if call.id not in answered] if results or then else []
    return [message, *results, *(result_message(ToolResult(call, _NO_RESULT, failed=True)) for call in open_calls)]


def _says_something(part: Mapping[str, Any]) -> bool:
    return bool(part["text"].strip()) if part["type"] == "text" else part["type"] != "reasoning"


def _is_data(value: Any) -> bool:
    """Whether a setting is a number, a text or a list of them."""
    plain = (str, int, float, type(None))
    return isinstance(value, plain) or (isinstance(value, (list, tuple)) and all(isinstance(v, plain) for v in value))


def _parsed(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{where} is not JSON") from None


def _checked_head(head: Any, count: int, where: str) -> dict[str, set[int]]:
    """The numbers of the messages that start a question, broke off or paused, from a checked first line.

    Raises:
        InvalidRequest: The first line is not valid.
    """
    version = head.get("conversation") if isinstance(head, Mapping) else None
    if type(version) is not int:
        raise InvalidRequest(f"{where} is not a saved conversation: it has no format number")
    if version != _FORMAT:
        age = "a newer" if version > _FORMAT else "an older"
        raise InvalidRequest(
            f"{where} was saved by {age} llmbridge (format {version}); this version reads format {_FORMAT}"
        )
    settings = head.get("settings")
    if (
        not isinstance(settings, Mapping)
        or settings.keys() - set(_SETTINGS)
        or not all(map(_is_data, settings.values()))
    ):
        raise InvalidRequest(f"{where}: settings must be texts and numbers named {', '.join(_SETTINGS)}")
    if head.get("messages") != count:
        raise InvalidRequest(f"{where} promises {shown(head.get('messages'))} messages, but the file has {count}")
    marks: dict[str, Any] = {name: head.get(name) for name in ("questions", "broken", "paused")}
    for name, numbers in marks.items():
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < count for n in numbers):
            raise InvalidRequest(f"{where}: {name} must be a list of numbers, each at least 0 and below {count}")
    return {name: set(numbers) for name, numbers in marks.items()}

"""A row: an item of the input, the question that is made of it, and what came of it."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Union

from llmbridge._text import shown
from llmbridge.errors import ConfigError, InvalidRequest, LLMBridgeError, place_of, without_frames
from llmbridge.messages import Parsed

if TYPE_CHECKING:
    from llmbridge.completion import Completion
    from llmbridge.events import Usage

__all__ = ["Asked", "Key", "Questions", "Row", "Template", "as_outcome"]

Key = Union[str, Callable[[Any], Any], None]
Template = Union[str, Callable[[Any], Any], None]


@dataclass(frozen=True, slots=True)
class Row(Generic[Parsed]):
    """One item of the input, with its answer or its error.

    Args:
        index: Where it stands in the input, from 0.
        input: The item itself.
        key: What `key=` says it is called; None without.
        answer: The whole answer; None if it failed, and for an embedding.
        vector: The embedding; None unless `embed=True`.
        error: Why there is no answer; None if there is one.
        attempts: How many requests it took, refused ones included.
        seconds: From the first request to the outcome, with all waits between.
        resumed: Whether the answer was read from the journal.

    Example:
        >>> import llmbridge
        >>> [row] = llmbridge.map(["Hello"], model="demo").complete()
        >>> row.ok, row.index, row.text == row.answer.text
        (True, 0, True)
    """

    index: int
    input: Any = field(repr=False)
    key: str | None = None
    answer: Completion[Parsed] | None = None
    vector: list[float] | None = field(default=None, repr=False)
    error: LLMBridgeError | None = None
    attempts: int = 0
    seconds: float = 0.0
    resumed: bool = False

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.error is None

    @property
    def text(self) -> str:
        """The text of the answer.

        Raises:
            LLMBridgeError: The row failed: this is its error. So it is for `parsed`.
        """
        return self._answered.text

    @property
    def parsed(self) -> Parsed:
        """The value that the answer is by the `schema`."""
        return self._answered.parsed

    @property
    def usage(self) -> Usage | None:
        """The tokens of the answer; None if the row failed, or the service did not count them."""
        return self.answer.usage if self.answer is not None else None

    @property
    def _answered(self) -> Completion[Parsed]:
        if self.error is not None:
            raise copy(self.error)
        if self.answer is None:
            raise InvalidRequest("this row is an embedding: it has a .vector, and no text")
        return self.answer


class Asked:
    """A row on its way.

    Args:
        index, input: As in `Row`.

    Attributes:
        key: As in `Row`.
        content: What is sent: messages, or the text to embed.
        digest: What an answer in the journal is known by; b"" without a journal.
        problem: Why nothing can be sent.
        attempts: Requests so far.
        failures: Those of them that were not refused for being too many.
        began: When the first was sent; None before.
        alone: Whether it must not share a request with others: together they were refused.
    """

    __slots__ = ("alone", "attempts", "began", "content", "digest", "failures", "index", "input", "key", "problem")

    def __init__(self, index: int, input: Any) -> None:
        self.index = index
        self.input = input
        self.key: str | None = None
        self.content: Any = None
        self.digest = b""
        self.problem: LLMBridgeError | None = None
        self.attempts = self.failures = 0
        self.began: float | None = None
        self.alone = False


class Questions:
    """Makes questions of the input's items.

    Args:
        prompt: A template with the names of columns, as "{title}: {text}", or {} for the whole item; or a function of
            the item. None sends the item as it is.
        key: The name of a column, or a function of the item; None for no keys.
        checked: Checks what will be sent, and copies it.
        digest: Names what will be sent with its key; None where nobody wants to know.

    Raises:
        ConfigError: The template is not one, or an argument is of the wrong type.
    """

    def __init__(
        self,
        prompt: Template,
        key: Key,
        checked: Callable[[Any], Any],
        digest: Callable[[str | None, Any], bytes] | None,
    ) -> None:
        for name, value in (("prompt", prompt), ("key", key)):
            if value is not None and not isinstance(value, str) and not callable(value):
                raise ConfigError(f"{name} must be a str or a function of an item, not {shown(value)}")
        if isinstance(prompt, str):
            _check_template(prompt)
        self._prompt = prompt
        self._key = key
        self._checked = checked
        self._digest = digest

    def ask(self, index: int, item: Any) -> Asked:
        """The question of an item; what goes wrong with it is its `problem`."""
        asked = Asked(index, item)
        doing = "key="
        try:
            asked.key = self._key_of(item)
            doing = "prompt="
            content = self._filled(item)
            doing = ""
            asked.content = self._checked(content)
            if self._digest is not None:
                asked.digest = self._digest(asked.key, asked.content)
        except LLMBridgeError as error:
            asked.problem = without_frames(error)
        except Exception as error:  # noqa: BLE001 - a function or a column of the caller's: the row fails, not the run
            said = f"{type(error).__name__}: {error}{place_of(error)}"
            what = f"{doing} failed" if doing else "the item cannot be sent"
            asked.problem = InvalidRequest(f"{what} for row {index}: {said}")
        return asked

    def _key_of(self, item: Any) -> str | None:
        if self._key is None:
            return None
        return str(_columns(item)[self._key] if isinstance(self._key, str) else self._key(item))

    def _filled(self, item: Any) -> Any:
        if self._prompt is None:
            return item
        if not isinstance(self._prompt, str):
            return self._prompt(item)
        if not (isinstance(item, Mapping) or hasattr(item, "_asdict")):
            return self._prompt.format(item)
        columns = _columns(item)
        try:
            return self._prompt.format_map(columns)
        except KeyError as error:
            known = ", ".join(map(str, columns))
            raise InvalidRequest(f"prompt= names a column {error}, which the row lacks: it has {known}") from None


def as_outcome(error: Exception) -> LLMBridgeError:
    """What a row has failed with, also where it is nothing that llmbridge raises."""
    if isinstance(error, LLMBridgeError):
        return error
    return LLMBridgeError(f"{type(error).__name__}: {error}{place_of(error)}")


def _columns(item: Any) -> Mapping[str, Any]:
    """The columns of a mapping or a named tuple.

    Raises:
        InvalidRequest: It has none.
    """
    if isinstance(item, Mapping):
        return item
    if hasattr(item, "_asdict"):
        columns: Mapping[str, Any] = item._asdict()
        return columns
    raise InvalidRequest(f"a row must be a mapping to have columns, not {type(item).__name__}")


def _check_template(template: str) -> None:
    try:
        list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"prompt={shown(template)} is not a template: {error}; write {{{{ for a brace") from None

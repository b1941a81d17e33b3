"""What an answer has said so far, to find out what a repetition adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Call", "Calls", "TextSoFar", "missing", "name_of"]

_PLACEHOLDERS = ("", "{}", "null")


def name_of(value: Any) -> int | str | None:
    """A usable key for an item: a number or a non-empty str."""
    return value if value.__class__ is int or (isinstance(value, str) and value) else None


def missing(said: str, at: int, whole: str) -> str | None:
    """The rest of a text after what was said from a place on; None if they differ.

    Example:
        >>> missing("Hel", 0, "Hello"), missing("Hello", 0, "Hel"), missing("Hi", 0, "Hello")
        ('lo', '', None)
    """
    length = len(said) - at
    return whole[length:] if said.startswith(whole[:length], at) else None


class TextSoFar:
    """The text of one kind said so far in the open items.

    Attributes:
        pieces: The text; the list object stays the same.
        open: How many items have started but not ended.

    Example:
        >>> text = TextSoFar()
        >>> text.pieces += ["Hel"]
        >>> text.missing(0, "Hello"), text.missing(0, "Hello"), text.end("Hello, you"), text.end("And")
        ('lo', '', ', you', 'And')
    """

    __slots__ = ("_length", "_parts", "open", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.open = 0
        self._parts: dict[Any, int] = {}  # lengths of the finished parts
        self._length = 0  # of all finished parts

    def _said(self) -> str:
        said = "".join(self.pieces)
        self.pieces[:] = [said] * bool(said)
        return said

    def missing(self, part: Any, whole: str) -> str:
        """What a part of an item adds at its end."""
        new = missing(self._said(), self.before(part), whole)
        if new is None:
            return ""
        self._length = self.before(part) + len(whole)
        self._parts[part] = len(whole)
        self.pieces += [new] * bool(new)
        return new

    def before(self, part: Any) -> int:
        """The number of characters in the item's other parts."""
        return self._length - self._parts.get(part, 0)

    def separate(self, part: Any, text: str) -> None:
        """Records a separator between two parts."""
        self.pieces.append(text)
        self._parts[part] = len(text)
        self._length += len(text)

    def begins(self, whole: str) -> bool:
        """Whether something was said that a text starts with."""
        said = self._said()
        return bool(said) and missing(said, 0, whole) is not None

    def end(self, whole: str) -> str:
        """What an item adds at its end."""
        said = self._said()
        new = missing(said, 0, whole)
        rest = said[len(whole) :]
        if new is None:  # the service changed the text, or items are interleaved
            rest = said if self.open > 1 else ""
        self.pieces[:] = [rest] * bool(rest)
        self.open = max(0, self.open - 1)
        self._parts, self._length = {}, 0
        return new or ""


class Call:
    """A call that is being written.

    Attributes:
        index: Its place in the output, if the service says it.
        id: The ID that its result must name.
        name: The tool's name; "" while unknown.
        pieces: The tool's input.
        over: Whether it is complete.
    """

    __slots__ = ("id", "index", "name", "over", "pieces")

    def __init__(self, index: int | None, id: str | None) -> None:
        self.index = index
        self.id = id
        self.name = ""
        self.pieces: list[str] = []
        self.over = False

    @property
    def known_by(self) -> str | None:
        """Its id if it has no index."""
        return self.id if self.index is None else None

    def missing(self, whole: str) -> str:
        """The part of the tool's input that was not sent before."""
        said = "".join(self.pieces)
        new = missing(said, 0, whole)
        if new is None:  # the pieces count, unless they are only a placeholder
            new = whole if said.strip() in _PLACEHOLDERS else ""
        self.pieces[:] = [said + new]
        return new


class Calls:
    """The calls of an answer by place and ID: services leave some out, and change others on the way."""

    __slots__ = ("_all", "_by_name", "_nobody", "_unplaced")

    def __init__(self) -> None:
        self._by_name: dict[int | str, Call] = {}
        # Open calls in the order of their start; of these, the calls without a place, and those without a name.
        self._all: dict[Call, None] = {}
        self._unplaced: dict[Call, None] = {}
        self._nobody: dict[Call, None] = {}

    def begin(self, item: Mapping[str, Any], place: int | None) -> Call | None:
        """The call that an item starts; None if it has started already."""
        if self._found(item.get("id"), item.get("call_id")) is not None:
            return None
        return self._new(place, item)

    def find(self, place: int | None, id: Any) -> Call | None:
        """The call that a piece continues, by its place in the output and its item's ID."""
        return self._found(id, place) or next(reversed(self._all if place is None else self._unplaced), None)

    def of(self, place: int | None, id: Any) -> Call:
        """The same; an unknown call starts with its first piece."""
        return self.find(place, id) or self._new(place, {"id": id}, False)

    def end(self, item: Mapping[str, Any], place: int | None) -> Call:
        """The call that an item ends."""
        call = self._of_item(item, place) or self._new(place, item)
        call.id = call.id or _id_of(item)
        call.over = True
        for open_calls in (self._all, self._unplaced, self._nobody):
            open_calls.pop(call, None)
        return call

    def _of_item(self, item: Mapping[str, Any], place: int | None) -> Call | None:
        names = (item.get("id"), item.get("call_id"), place)
        if (found := self._found(*names)) is not None:
            return found
        unnamed = all(name_of(name) is None for name in names)
        return next(reversed(self._all if unnamed else self._nobody), None)

    def _found(self, *names: Any) -> Call | None:
        known = (self._by_name.get(name) for name in map(name_of, names) if name is not None)
        return next((call for call in known if call is not None and not call.over), None)

    def _new(self, place: int | None, item: Mapping[str, Any], whole: bool = True) -> Call:
        call = Call(place, _id_of(item) if whole else None)
        self._all[call] = None
        if place is None:
            self._unplaced[call] = None
            if call.id is None:
                self._nobody[call] = None
        for name in map(name_of, (place, item.get("id"), item.get("call_id"))):
            if name is not None:
                self._by_name[name] = call
        return call


def _id_of(item: Mapping[str, Any]) -> str | None:
    names = (item.get("call_id"), item.get("id"))
    return next((name for name in names if isinstance(name, str) and name), None)

"""The blocks of a turn in Anthropic's dialect, from start to end; citations.

A block's text goes out as soon as it comes; whatever only the service understands is kept until the block's end.

Source: Anthropic API reference: streaming, citations, and server tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmbridge._text import shown
from llmbridge.errors import ProtocolError
from llmbridge.events import Citation, EndOfPart, Item, Other, Reasoning, ServerTool, ToolCallDelta
from llmbridge.provider import parsed_json
from llmbridge.providers._values import TEXTS, mapping, string

__all__ = ["PIECES", "Block", "block_of", "items_of", "piece_items", "plain_text"]

PIECES = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
    "citations_delta": "citation",
}
"""The known kinds of pieces, and the field with each one's content."""

_SHORTEST = 4  # characters: a shorter text may really occur twice, like 11 from "1" and "1"


def plain_text(value: Any) -> str:
    """The text of a value where a text belongs.

    Raises:
        ProtocolError: It has no text.

    Example:
        >>> plain_text("Hi"), plain_text(None), plain_text(7), plain_text({"text": "Hi"}), plain_text(["a", "b"])
        ('Hi', '', '7', 'Hi', 'ab')
    """
    if isinstance(value, list):
        return "".join(map(_one_text, value))
    return _one_text(value)


def _one_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or value == {}:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping) and isinstance(inner := value.get("text", value.get("value")), str):
        return inner
    raise ProtocolError(f"the service sent something else instead of text: {shown(value)}")


def piece_items(delta: Mapping[str, Any], index: int | None) -> Iterator[Item]:
    """The content of a piece without a known block, or of a kind that its block does not expect."""
    kind = delta.get("type")
    if kind == "text_delta":
        if text := plain_text(delta.get("text")):
            yield text
    elif kind == "thinking_delta":
        if text := plain_text(delta.get("thinking")):
            yield Reasoning(text)
    elif kind == "signature_delta":
        if signature := string(delta.get("signature")):
            yield Reasoning("", signature=signature)
    elif kind == "input_json_delta":
        if piece := string(delta.get("partial_json")):
            yield ToolCallDelta(index, arguments=piece)
    elif kind == "citations_delta":
        yield from _citations([delta.get("citation")])


class Block:
    """An open block.

    Args:
        raw: The object it started with.
        index: Its number.

    Attributes:
        fields: The keys of its kind that llmbridge has events for.
        plain: Whether its pieces can be decoded without the block.
    """

    fields: frozenset[str] = frozenset()
    plain = True

    def __init__(self, raw: Mapping[str, Any], index: int | None) -> None:
        self.raw = dict(raw)
        self.index = index

    @property
    def is_waiting(self) -> bool:
        """Whether the block is incomplete without a later piece."""
        return True

    @property
    def says_more(self) -> bool:
        """Whether it has keys that only the service understands."""
        return any(value is not None and name not in self.fields for name, value in self.raw.items())

    def begin(self) -> Iterator[Item]:
        """The items at its start."""
        yield from ()

    def add(self, delta: Mapping[str, Any]) -> Iterator[Item]:
        """The items of a piece."""
        return piece_items(delta, self.index)

    def end(self) -> Iterator[Item]:
        """The items at its end."""
        yield from ()


class _Text(Block):
    """The answer's text, with its citations."""

    fields = frozenset(("type", "text", "citations"))

    def __init__(self, raw: Mapping[str, Any], index: int | None) -> None:
        super().__init__(raw, index)
        self._begun = _Begun(plain_text(raw.get("text")))
        self._cited = _listed(raw.get("citations"))
        self.plain = not self._begun.text

    def begin(self) -> Iterator[Item]:
        if self._begun.text:
            yield self._begun.text
        yield from _citations(self._cited)

    def add(self, delta: Mapping[str, Any]) -> Iterator[Item]:
        if delta.get("type") == "text_delta":
            if text := self._begun.new(plain_text(delta.get("text"))):
                yield text
            return
        if delta.get("type") == "citations_delta" and delta.get("citation"):
            self._cited.append(delta["citation"])
        yield from super().add(delta)

    def end(self) -> Iterator[Item]:
        if rest := self._begun.rest():
            yield rest
        cited = {"citations": self._cited} if self._cited else {}
        yield EndOfPart({"type": "text", **self.raw, "text": "", **cited} if cited or self.says_more else None)


class _Thinking(Block):
    """Reasoning with its signature, which llama.cpp's server sends after the text that follows."""

    fields = frozenset(("type", "thinking", "signature"))

    def __init__(self, raw: Mapping[str, Any], index: int | None) -> None:
        super().__init__(raw, index)
        self._begun = _Begun(plain_text(raw.get("thinking")))
        self.plain = not self._begun.text
        self._signature = string(raw.get("signature"))
        # The signature ends the thought: it must come after any text held back.
        self._waits = bool(self._signature) or self.says_more or not self.plain

    def begin(self) -> Iterator[Item]:
        if self._begun.text:
            yield Reasoning(self._begun.text)

    def add(self, delta: Mapping[str, Any]) -> Iterator[Item]:
        if delta.get("type") == "thinking_delta":
            if text := self._begun.new(plain_text(delta.get("thinking"))):
                yield Reasoning(text)
        elif delta.get("type") == "signature_delta" and self._waits:
            self._signature = string(delta.get("signature")) or self._signature
        else:
            yield from super().add(delta)

    def end(self) -> Iterator[Item]:
        if rest := self._begun.rest():
            yield Reasoning(rest)
        if self._signature or self.says_more:
            raw = {**self.raw, "thinking": "", "signature": ""} if self.says_more else None
            yield Reasoning("", self._signature or None, None, raw)


class _Redacted(Block):
    """Encrypted reasoning."""

    fields = frozenset(("type", "data"))

    def begin(self) -> Iterator[Item]:
        if data := string(self.raw.get("data")):
            yield Reasoning("", None, data, {**self.raw, "data": ""} if self.says_more else None)


class _Call(Block):
    """A call of one of the caller's tools."""

    fields = frozenset(("type", "id", "name", "input"))

    def __init__(self, raw: Mapping[str, Any], index: int | None) -> None:
        super().__init__(raw, index)
        self._given = raw.get("input") or None  # a stream begins a call with an empty input
        self._pieces: list[str] = []
        self.plain = self._given is None

    def begin(self) -> Iterator[Item]:
        id, name = string(self.raw.get("id")) or None, string(self.raw.get("name")) or None
        arguments = "" if self._given is None else _dumped(self._given)
        raw = {key: value for key, value in self.raw.items() if key != "input"} if self.says_more else None
        yield ToolCallDelta(self.index, id, name, arguments, raw=raw)

    def add(self, delta: Mapping[str, Any]) -> Iterator[Item]:
        if delta.get("type") == "input_json_delta" and self._given is not None:
            self._pieces.append(string(delta.get("partial_json")))
        else:
            yield from super().add(delta)

    def end(self) -> Iterator[Item]:
        """Pieces of a call that started with its input repeat the input, or say that there is none."""
        text = "".join(self._pieces)
        if text.strip() and _input(text) not in ({}, self._given):
            yield ToolCallDelta(self.index, arguments=text)
        yield ToolCallDelta(self.index, whole=True)


class _Opaque(Block):
    """A block of a server tool, or of an unknown kind: it is sent back unchanged.

    Args:
        raw, index: As for `Block`.
        names: Names of the service's tools by call ID; a call adds its own.
    """

    plain = False

    def __init__(self, raw: Mapping[str, Any], index: int | None, names: dict[str, str]) -> None:
        super().__init__(raw, index)
        self._names = names
        self._input: list[str] = []
        self._begun = {name: _Begun(value) for name, value in raw.items() if isinstance(value, str)}
        self._more: dict[str, list[Any]] = {}

    @property
    def is_waiting(self) -> bool:
        if not string(self.raw.get("type")).endswith("_tool_use"):
            return False
        return not self._input[-1].endswith("}") if self._input else not self.raw.get("input")

    def add(self, delta: Mapping[str, Any]) -> Iterator[Item]:
        """Appends a piece's content to the block's field of the same name."""
        if delta.get("type") == "input_json_delta":
            self._input += filter(None, [string(delta.get("partial_json"))])
            return
        for name, value in delta.items():
            if name == "citation":
                name, value = "citations", [value]
            if name != "type" and value is not None:
                self._put(name, value)
        yield from ()

    def _put(self, name: str, value: Any) -> None:
        known = self.raw.get(name)
        if isinstance(known, str) and isinstance(value, str):
            self._more.setdefault(name, []).append(self._begun[name].new(value) if name in self._begun else value)
        elif isinstance(known, list) and isinstance(value, list):
            self._more.setdefault(name, []).extend(value)
        else:
            self.raw[name] = value
            self._more.pop(name, None)

    def _whole_input(self) -> Any:
        """The input, from the start or from pieces; None if it is incomplete."""
        text = "".join(self._input)
        if not text.strip():
            return self.raw.get("input")
        said = _input(text)
        return self.raw.get("input") or said if said == {} else said

    def end(self) -> Iterator[Item]:
        for name, more in self._more.items():
            if isinstance(self.raw[name], list):
                self.raw[name] = [*self.raw[name], *more]
            else:
                rest = self._begun[name].rest() if name in self._begun else ""
                self.raw[name] += "".join(more) + rest
        kind = string(self.raw.get("type"))
        if self._input:
            given = self._whole_input()
            if given is None:  # cut off: services reject half an input
                yield Other(kind, {**self.raw, "input": "".join(self._input)})
                return
            self.raw["input"] = given
        if kind.endswith("_tool_use"):
            id, name = string(self.raw.get("id")), string(self.raw.get("name"))
            self._names[id] = name
            yield ServerTool(id, name, mapping(self.raw.get("input")), raw=self.raw)
        elif kind.endswith("_tool_result"):
            id = string(self.raw.get("tool_use_id"))
            name = self._names.get(id) or kind.removesuffix("_tool_result")
            yield ServerTool(id, name, result=self.raw.get("content"), raw=self.raw)
        else:
            yield Other(kind, self.raw, in_turn=True)


_KINDS: dict[str, type[Block]] = {
    **dict.fromkeys(TEXTS, _Text),
    "thinking": _Thinking,
    "redacted_thinking": _Redacted,
    "tool_use": _Call,
}


def block_of(value: Any, index: int | None, names: dict[str, str]) -> Block | None:
    """The block that starts with a value; None if there is nothing.

    Args:
        value: The block's object.
        index: Its number.
        names: Names of the service's tools by call ID; changed.

    Raises:
        ProtocolError: The value is not a block.
    """
    if not isinstance(value, Mapping):
        text = plain_text(value)
        return _Text({"type": "text", "text": text}, index) if text else None
    if not value:
        return None
    kind = string(value.get("type")) or next((name for name in _KINDS if name in value), "")
    if not kind:
        raise ProtocolError(f"the service sent a block without a type: {shown(dict(value))}")
    return _KINDS[kind](value, index) if kind in _KINDS else _Opaque(value, index, names)


def items_of(content: Any) -> Iterator[Item]:
    """The items in the blocks of a whole message.

    Raises:
        ProtocolError: One of them is not a block.
    """
    names: dict[str, str] = {}
    for index, value in enumerate(content if isinstance(content, list) else [content]):
        if (block := block_of(value, index, names)) is not None:
            yield from block.begin()
            yield from block.end()


class _Begun:
    """The text that a block started with, which its pieces may continue or repeat.

    Example:
        >>> begun = _Begun("Hello")
        >>> begun.new("Hel"), begun.new("lo"), begun.new("!"), _Begun("Hello").new(", you"), _Begun("1").new("1")
        ('', '', '!', ', you', '1')
    """

    __slots__ = ("_again", "_at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._again = text if len(text) >= _SHORTEST else ""
        self._at = 0  # repeated so far: held back until all is repeated

    def new(self, piece: str) -> str:
        """The new text of a piece; a possible repetition is held back."""
        again, at = self._again, self._at
        if not again:
            return piece
        if len(piece) < len(again) - at and again.startswith(piece, at):
            self._at += len(piece)
            return ""
        self._again = ""
        missing = again[at:]
        return piece[len(missing) :] if piece.startswith(missing) else again[:at] + piece

    def rest(self) -> str:
        """The text held back, which was not a repetition."""
        held, self._again = self._again[: self._at], ""
        return held


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def _citations(given: Iterable[Any]) -> Iterator[Item]:
    for raw in given:
        if isinstance(raw, Mapping) and raw:
            yield _citation(raw)
        elif raw:
            yield Other("citation", {"citation": raw})


def _citation(raw: Mapping[str, Any]) -> Citation:
    """A citation. Its places are in the source; the cited text is the text of its block."""
    url, source = string(raw.get("url")), string(raw.get("source"))
    if not url and source.startswith(("http://", "https://")):  # a search_result_location
        url = source
    title = string(raw.get("document_title")) or string(raw.get("title"))
    number = raw.get("document_index", raw.get("search_result_index"))
    document = string(raw.get("file_id")) or source or ("" if number is None else str(number))
    return Citation(
        url=url or None,
        document=None if url else document or None,
        title=title or None,
        quote=string(raw.get("cited_text")) or None,
        raw=dict(raw),
    )


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise ProtocolError("the input of a tool call is nested too deeply") from None


def _input(text: str) -> Any:
    """The JSON value of a text; None if it is not JSON."""
    try:
        return parsed_json(text)
    except ProtocolError:
        return None

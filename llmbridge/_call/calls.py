"""Assembles tool calls from their pieces, in every style in which services send them.

Source: the streams of OpenAI, Anthropic, Gemini, Mistral, Ollama, llama.cpp, llama-cpp-python, vLLM and transformers;
repeated arguments: DeepSeek, Qianfan, and Claude behind gateways.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from llmbridge._text import SurrogateMender, mended
from llmbridge._tool_call import read_call
from llmbridge.events import ToolCall, ToolCallDelta

__all__ = ["CallAssembler"]

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MOST_PIECES = 500  # a call of more pieces is neither searched for repetitions nor parsed to see whether it is over
_MOST_LOOKS = 32


class _Open:
    """A call whose pieces are still coming."""

    __slots__ = (
        "id", "index", "kind", "length", "looked_at", "looks", "mend", "name", "pieces", "raw", "signature", "whole"
    )  # fmt: skip

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.whole = False
        self.id = ""
        self.name = ""
        self.mend = SurrogateMender()
        self.pieces: list[str] = []
        self.length = 0  # of the arguments
        self.looked_at = 0  # their length when they were last found to be incomplete JSON
        self.looks = 0
        self.signature: str | None = None
        self.kind = ""
        self.raw: Mapping[str, Any] | None = None

    @property
    def joined(self) -> str:
        """The arguments so far, their pieces joined."""
        return "".join(self.pieces) + ("\N{REPLACEMENT CHARACTER}" if self.mend.half else "")

    @property
    def text(self) -> str:
        """The arguments, without repetitions."""
        if len(self.pieces) < 2 or self.kind not in ("", "function") or _is_json(joined := self.joined):
            return self.joined
        return _once(self.pieces) or joined

    def is_over(self) -> bool:
        """Whether nothing is to follow. Cheap enough for each piece: long arguments are not parsed each time."""
        if self.whole:
            return True
        if not self.pieces or self.kind not in ("", "function"):
            return False  # it has not begun, or is text that may always continue
        grown = self.length - self.looked_at
        if not grown or (self.looks >= _MOST_LOOKS and grown * 16 < self.looked_at):
            return False
        self.looks, self.looked_at = self.looks + 1, self.length
        return _is_json(self.joined)

    def is_sound(self) -> bool:
        """Whether the arguments can be parsed, if there are any."""
        return self.kind not in ("", "function") or not (text := self.text).strip() or _is_json(text)

    def seems_over(self) -> bool:
        """Whether the arguments are a whole JSON value, so that nothing can be added to them."""
        if not 0 < len(self.pieces) <= _MOST_PIECES or not self.pieces[-1].rstrip().endswith(("}", '"')):
            return False
        return _is_json(self.joined)


class CallAssembler:
    """Assembles calls from deltas.

    Attributes:
        seen: Whether any call was made.

    Example:
        >>> calls = CallAssembler()
        >>> for delta in (ToolCallDelta(0, "c1", "add", '{"a": '), ToolCallDelta(0, None, None, "1}")):
        ...     _ = calls.add(delta)
        >>> calls.finished()
        [ToolCall(id='c1', name='add', arguments={'a': 1}, problem=None)]
    """

    __slots__ = ("_by_id", "_by_index", "_ended", "_ids", "_last", "_open", "_unfinished", "seen")

    def __init__(self) -> None:
        self._ids: set[str] = set()
        # Index, name and arguments of the calls that are over, by the given ids and by the indexes.
        self._ended: dict[str, tuple[int | None, str, str]] = {}
        self._last: dict[int, tuple[int | None, str, str]] = {}
        self._open: list[_Open] = []
        self.seen = False
        self._find_unfinished()

    def _find_unfinished(self) -> None:
        """Updates the list of calls that may continue, so that each piece is matched in constant time."""
        self._unfinished = [call for call in self._open if not call.whole]
        self._by_id = {call.id: call for call in self._unfinished}
        self._by_index: dict[int | None, list[_Open]] = {}
        for call in self._unfinished:
            self._by_index.setdefault(call.index, []).append(call)

    def add(self, delta: ToolCallDelta) -> ToolCallDelta | None:
        """Takes a piece.

        Returns:
            The piece, repaired for UTF-8; None if it adds nothing.
        """
        known = self._known(delta)
        if known is None:
            if not (_known_id(delta) or delta.name or delta.arguments or delta.signature):
                return None  # the end of a call that is over, or nothing at all
            if delta.whole and self._is_resent(delta):
                return None
            known = _Open(delta.index)
            for calls in (self._open, self._unfinished, self._by_index.setdefault(delta.index, [])):
                calls.append(known)
        self.seen = True
        piece = _added(known, delta)
        if known.whole:
            self._unfinished.remove(known)
            self._by_index[known.index].remove(known)
            self._by_id.pop(known.id, None)
        else:
            self._by_id[known.id] = known
        return piece

    def whole(self) -> list[ToolCall]:
        """The calls that are over, up to the first that is open or broken: only the end of the answer says why."""
        return self._taken(list(takewhile(lambda call: call.whole and call.is_sound(), self._open)))

    def finished(self, cut: bool = False, final: bool = True) -> list[ToolCall]:
        """Removes and returns the calls, in the order in which they began.

        Args:
            cut: The answer was truncated, which explains incomplete JSON.
            final: False keeps the calls whose arguments are not valid JSON yet: more of them may come.
        """
        return self._taken([call for call in self._open if final or call.is_over()], cut)

    def _taken(self, over: Sequence[_Open], cut: bool = False) -> list[ToolCall]:
        if not over:
            return []
        self._open = [call for call in self._open if call not in over]
        self._find_unfinished()
        made = []
        texts = [(call, call.text) for call in over]
        for call, text in [found for found in texts if not self._repeats(*found)]:
            if call.id:
                self._ended[call.id] = (call.index, call.name, text)
            if call.index is not None:
                self._last[call.index] = (call.index, call.name, text)
            id = self._own_id(call.id)
            made.append(read_call(id, call.name, text, call.signature, cut, call.kind or "function", call.raw))
        return made

    def _is_resent(self, delta: ToolCallDelta) -> bool:
        """Whether a whole call was handed out before, with the same id and arguments."""
        _, name, text = self._ended.get(_known_id(delta), (None, "", None))
        return text is not None and delta.name in (name, "", None) and _same_json(delta.arguments, text)

    def _repeats(self, call: _Open, text: str) -> bool:
        """Whether a call repeats one with the same id and index; two equal calls have different ids, or indexes.

        One without id and name is compared with the last call of its index.
        """
        ended = self._ended.get(call.id)
        if not (call.id or call.name) and call.index is not None:
            ended = self._last.get(call.index)
        if ended is None:
            return False
        index, name, told = ended
        return index == call.index and call.name in (name, "") and _same_json(text, told)

    def _own_id(self, id: str) -> str:
        """An id that is unique in this answer: results are matched to calls by it."""
        while not id or id in self._ids:
            id = _made_up_id()
        self._ids.add(id)
        return id

    def _known(self, delta: ToolCallDelta) -> _Open | None:
        """The open call that a piece continues, or None if it begins one."""
        given = _known_id(delta)
        if delta.index is None and given:
            return self._by_id.get(given)
        calls = self._unfinished if delta.index is None else self._by_index.get(delta.index)
        if not calls:
            return None
        last = calls[-1]
        if not delta.name:
            return last  # it continues the last one, whatever its id
        if given and last.id:
            named = self._by_id.get(given)
            return named if named is not None and named.index == delta.index else None
        if last.name != delta.name:
            return None if last.name else last
        if delta.index is None:  # a name begins a call, unless it comes with every piece
            return last if last.pieces and not last.seems_over() else None
        return None if delta.arguments.lstrip()[:1] in ("{", '"') and last.seems_over() else last


def _added(call: _Open, delta: ToolCallDelta) -> ToolCallDelta | None:
    # Some services repeat id and name with every piece: the first ones stay.
    call.id = call.id or _known_id(delta)
    call.name = call.name or mended(delta.name or "")
    call.signature = call.signature or (mended(delta.signature) if delta.signature else None)
    arguments = call.mend(delta.arguments)
    if arguments:
        call.pieces.append(arguments)
        call.length += len(arguments)
    call.whole = delta.whole
    call.kind = call.kind or delta.kind
    call.raw = call.raw or delta.raw
    texts = (delta.id or "", delta.name or "", delta.signature or "")
    if arguments == delta.arguments and all(text.isascii() for text in texts):
        return delta
    if not (arguments or any(texts)):
        return None
    id, name, signature = (text and mended(text) for text in (delta.id, delta.name, delta.signature))
    return replace(delta, id=id, name=name, arguments=arguments, signature=signature)


def _once(pieces: Sequence[str]) -> str | None:
    """The arguments without repetitions, if the joined pieces are not JSON but services are known to send them so.

    Each piece may hold everything before it, `{}` may be a placeholder, or the whole may come again. None otherwise.

    Example:
        >>> _once(['{"a": ', '{"a": 1}']), _once(["{}", '{"a": ', "1}"]), _once(['{"a": 1}', '{"b": 2}'])
        ('{"a": 1}', '{"a": 1}', None)
    """
    text, first = "", ""
    for number, piece in enumerate(pieces[:_MOST_PIECES]):
        if text.rstrip().endswith("}") and _is_json(text):
            if not piece.strip() or _same_json(piece, text):
                continue
            if not piece.startswith(text):  # it begins anew: the text so far was a placeholder, or is repeated
                if first:
                    return None
                first, text = text, ""
        text = piece if number and text and piece.startswith(text) else text + piece
    if not _is_json(text) or len(pieces) > _MOST_PIECES:
        return None
    return text if not first or _same_json(first, "{}") or _same_json(first, text) else None


def _same_json(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        same: bool = json.loads(one or "{}", strict=False) == json.loads(other or "{}", strict=False)
    except (ValueError, RecursionError):
        return False
    return same


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except RecursionError:
        return True  # incomplete, but more pieces would not make it readable
    except ValueError:
        return False
    return True


def _known_id(delta: ToolCallDelta) -> str:
    return "" if delta.id is None or delta.id == "null" else mended(delta.id)  # Mistral may send "null"


def _made_up_id() -> str:
    """Nine letters and digits, as the strictest service (Mistral) requires; different in every turn."""

    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(9))

"""Tool calls put together from their pieces, in every style in which services send them.

Source: the streams of OpenAI, Anthropic, Gemini, Mistral, Ollama, llama.cpp, llama-cpp-python, vLLM and transformers.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace

from llmbridge._text import SurrogateMender, mended
from llmbridge._tool_call import read_call
from llmbridge.events import ToolCall, ToolCallDelta

__all__ = ["CallAssembler"]

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MOST_PIECES = 500  # that are looked at to find out whether a call is over
_MOST_LOOKS = 32


class _Open:
    """A call that is being written."""

    __slots__ = ("id", "index", "length", "looked_at", "looks", "mend", "name", "pieces", "signature", "whole")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.whole = False
        self.id = ""
        self.name = ""
        self.mend = SurrogateMender()
        self.pieces: list[str] = []
        self.length = 0  # of the arguments
        self.looked_at = 0  # how long they were when they were last found to be no JSON
        self.looks = 0
        self.signature: str | None = None

    @property
    def text(self) -> str:
        """The arguments so far."""
        return "".join(self.pieces) + ("\N{REPLACEMENT CHARACTER}" if self.mend.half else "")

    def is_over(self) -> bool:
        """Whether nothing is to follow. A server may ask that with each piece: a long text is not read each time."""
        if self.whole or not self.pieces:
            return True
        grown = self.length - self.looked_at
        if not grown or (self.looks >= _MOST_LOOKS and grown * 16 < self.looked_at):
            return False
        self.looks, self.looked_at = self.looks + 1, self.length
        return _is_json(self.text)

    def seems_over(self) -> bool:
        """Whether the arguments are a whole JSON value, so that nothing can be added to them."""
        if not 0 < len(self.pieces) <= _MOST_PIECES or not self.pieces[-1].rstrip().endswith(("}", '"')):
            return False
        return _is_json(self.text)


class CallAssembler:
    """Puts calls together from deltas.

    Attributes:
        seen: Whether any call was made.

    Example:
        >>> calls = CallAssembler()
        >>> for delta in (ToolCallDelta(0, "c1", "add", '{"a": '), ToolCallDelta(0, None, None, "1}")):
        ...     _ = calls.add(delta)
        >>> calls.finished()
        [ToolCall(id='c1', name='add', arguments={'a': 1}, problem=None)]
    """

    __slots__ = ("_by_id", "_by_index", "_ids", "_open", "_unfinished", "seen")

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._open: list[_Open] = []
        self.seen = False
        self._find_unfinished()

    def _find_unfinished(self) -> None:
        """Sorts what more may come of: looked up for each piece, of which a server may send any number."""
        self._unfinished = [call for call in self._open if not call.whole]
        self._by_id = {call.id: call for call in self._unfinished}
        self._by_index: dict[int | None, list[_Open]] = {}
        for call in self._unfinished:
            self._by_index.setdefault(call.index, []).append(call)

    def add(self, delta: ToolCallDelta) -> ToolCallDelta | None:
        """Takes a piece.

        Returns:
            The piece as UTF-8 can carry it; None if nothing of it is left to tell.
        """
        known = self._known(delta)
        if known is None:
            if not (_known_id(delta) or delta.name or delta.arguments or delta.signature):
                return None  # the end of a call that is over, or nothing at all
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

    def finished(self, cut: bool = False, final: bool = True) -> list[ToolCall]:
        """The calls, in the order in which they began; the assembler has them no more then.

        Args:
            cut: The answer broke off: what is no whole JSON is so for that reason.
            final: False keeps the calls whose arguments are no JSON yet: more of them may come.
        """
        calls, self._open = self._open, []
        over: list[_Open] = []
        for call in calls:
            (over if final or call.is_over() else self._open).append(call)
        self._find_unfinished()
        return [read_call(self._own_id(call.id), call.name, call.text, call.signature, cut) for call in over]

    def _own_id(self, id: str) -> str:
        """An id that no other call of this answer has, or nobody could tell whose result is whose."""
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
            return last  # it goes on with the last one, whatever its id
        if given and last.id:
            named = self._by_id.get(given)
            return named if named is not None and named.index == delta.index else None
        if last.name != delta.name:
            return None if last.name else last
        if delta.index is None:  # a name begins a call, but where it comes with every piece
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
    texts = (delta.id or "", delta.name or "", delta.signature or "")
    if arguments == delta.arguments and all(text.isascii() for text in texts):
        return delta
    if not (arguments or any(texts)):
        return None
    id, name, signature = (text and mended(text) for text in (delta.id, delta.name, delta.signature))
    return replace(delta, id=id, name=name, arguments=arguments, signature=signature)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except RecursionError:
        return True  # whatever more comes does not make it readable
    except ValueError:
        return False
    return True


def _known_id(delta: ToolCallDelta) -> str:
    return "" if delta.id is None or delta.id == "null" else mended(delta.id)  # Mistral may send the word


def _made_up_id() -> str:
    """Nine letters and digits: what the strictest service, Mistral's, takes; different in every turn."""
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(9))

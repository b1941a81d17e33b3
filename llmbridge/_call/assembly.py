"""Repairs the decoded items of an answer: joins split characters, takes reasoning out of tags, assembles tool calls.

It sees neither bytes (`answer` does) nor the loop that reads (`reading` does). Calls are put together from their pieces
in every style in which services send them.

Source: the streams of OpenAI, Anthropic, Gemini, Mistral, Ollama, llama.cpp, llama-cpp-python, vLLM and transformers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from llmbridge._json import mended_json
from llmbridge._text import SurrogateMender, mended
from llmbridge._tool_call import read_call
from llmbridge.errors import ProtocolError
from llmbridge.events import (
    Finish,
    Item,
    Logprobs,
    OtherChoice,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)

__all__ = ["Assembly", "CallAssembler", "ThinkTags"]

_MOST_OTHERS = 128
_CUT_OFF = ("length", "content_filter", "error")

_OPENING = ("<think>", "<thinking>", "<reasoning>")
_WHITE = " \t\r\n"
_MOST_WHITE = 256  # characters of white space before a tag; a model that writes nothing else is not waited for
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MOST_PIECES = 500  # that are looked at to find out whether a call is over
_MOST_LOOKS = 32


class Assembly:
    """What the decoded items of one answer make together.

    Args:
        think_tags: Whether the answer may begin with reasoning between tags.
        answer_tool: The tool whose arguments are the answer's text; None if there is none.

    Attributes:
        plain: An ASCII piece of text may be handed out as it is.
        finish: The last Finish.
    """

    def __init__(self, think_tags: bool = False, answer_tool: str | None = None) -> None:
        self._think_tags = think_tags
        self._answer_tool = answer_tool
        self._tags = ThinkTags() if think_tags else None
        self._mend = SurrogateMender()
        self._mend_reasoning = SurrogateMender()
        self._mend_refusal = SurrogateMender()
        self._calls = CallAssembler()
        self._answer_index: int | None = None
        self._answering = False
        self._others: dict[int, Assembly] = {}
        self._usage: Usage | None = None
        self.finish: Finish | None = None
        self.plain = not think_tags

    def take(self, item: Item, items: list[Item]) -> None:
        """Adds to `items` what an item brings."""
        if isinstance(item, str):
            self._take_text(item, items)
        elif isinstance(item, Reasoning):
            self._take_reasoning(item, items)
        elif isinstance(item, ToolCallDelta):
            self._take_delta(item, items)
        elif isinstance(item, Usage):
            self.take_usage(replace(item, raw=raw) if (raw := _mended(item.raw)) else item, items)
        elif isinstance(item, Finish):
            self._take_finish(item, items)
        elif isinstance(item, OtherChoice):
            self._take_other(item, items)
        elif isinstance(item, Refusal):
            if text := self._mend_refusal(item.text):
                items.append(Refusal(text))
        elif isinstance(item, Logprobs):
            items.append(Logprobs(tuple(raw)) if (raw := _mended(list(item.raw))) else item)
        else:
            items.append(item)

    def take_usage(self, usage: Usage, items: list[Item]) -> None:
        """Like `take`, for counted tokens that UTF-8 can carry as they are: some services count with every piece."""
        self._usage = usage if self._usage is None else self._usage.merged(usage)
        items.append(self._usage)

    def close(self, items: list[Item], cut: bool = False) -> None:
        """Adds what was held back for a better continuation, and the calls that nothing has ended.

        Args:
            items: Added to.
            cut: The answer broke off.
        """
        self._flush(items)
        self._tags = None
        self.plain = True
        items += self._calls.finished(cut)
        for index, choice in self._others.items():
            said: list[Item] = []
            choice.close(said, cut)
            items += [_of_other(index, item) for item in said]

    def _take_text(self, text: str, items: list[Item]) -> None:
        if self._tags is None:  # the path of every piece that is not ASCII
            if text := self._mend(text):
                items.append(text)
            self.plain = not self._mend.half
        else:
            self._add_parts(self._tags(text), items)
            self._now_plain()

    def _now_plain(self) -> None:
        if self._tags is not None and self._tags.done:
            self._tags = None
        self.plain = self._tags is None and not self._mend.half

    def _add_text(self, text: str, items: list[Item]) -> None:
        if text := self._mend(text):
            items.append(text)

    def _add_parts(self, parts: Iterable[str | Reasoning], items: list[Item]) -> None:
        for part in parts:
            if isinstance(part, str):
                self._add_text(part, items)
            elif text := self._mend_reasoning(part.text):
                items.append(Reasoning(text))

    def _take_reasoning(self, item: Reasoning, items: list[Item]) -> None:
        text = self._mend_reasoning(item.text)
        signature, redacted = (value and mended(value) for value in (item.signature, item.redacted))
        if signature or redacted:  # a block ends
            text += "".join(self._mend_reasoning.rest())
        if text or signature or redacted:
            items.append(Reasoning(text, signature, redacted))

    def _flush_tags(self, items: list[Item]) -> None:
        """Adds what might have been the beginning of a tag."""
        if self._tags is not None:
            self._add_parts(self._tags.rest(), items)

    def _flush(self, items: list[Item]) -> None:
        """Adds all that was held back."""
        self._flush_tags(items)
        items += map(Reasoning, self._mend_reasoning.rest())
        items += self._mend.rest()
        items += map(Refusal, self._mend_refusal.rest())
        self._now_plain()

    def _take_delta(self, delta: ToolCallDelta, items: list[Item]) -> None:
        self._flush_tags(items)
        if self._answer_tool is not None and self._is_answer(delta):
            if delta.arguments:
                self._add_text(delta.arguments, items)
        elif (piece := self._calls.add(delta)) is not None:
            items.append(piece)
        self._now_plain()

    def _is_answer(self, delta: ToolCallDelta) -> bool:
        if delta.name:
            self._answering = delta.name == self._answer_tool
            if self._answering:
                self._answer_index = delta.index
            return self._answering
        return self._answering if delta.index is None else delta.index == self._answer_index

    def _take_finish(self, finish: Finish, items: list[Item]) -> None:
        """Some services say with each piece that it is the last one: a call that is no JSON yet stays open."""
        self._flush(items)
        cut = finish.reason in _CUT_OFF
        items += self._calls.finished(cut, final=cut)
        called = self._calls.seen
        reason = finish.reason
        if reason in ("stop", "other") and called:
            reason = "tool_calls"
        elif reason == "tool_calls" and self._answer_tool is not None and not called:
            reason = "stop"
        self.finish = Finish(reason, mended(finish.raw))
        items.append(self.finish)

    def _take_other(self, item: OtherChoice, items: list[Item]) -> None:
        """Another choice is an answer of its own."""
        choice = self._others.get(item.index)
        if choice is None:
            if len(self._others) >= _MOST_OTHERS:
                return  # more than any service offers: each one takes a thousand times the room of its index
            choice = self._others[item.index] = Assembly(self._think_tags, self._answer_tool)
        said: list[Item] = []
        choice.take(item.event.text if isinstance(item.event, Text) else item.event, said)
        items += [_of_other(item.index, of_choice) for of_choice in said]


def _of_other(index: int, item: Item) -> OtherChoice:
    return OtherChoice(index, Text(item) if isinstance(item, str) else item)


def _mended(raw: Any) -> Any:
    """A service's own JSON such that UTF-8 can carry it; None if it can as it is."""
    try:
        return mended_json(raw) if "\\ud" in repr(raw) else None
    except RecursionError:
        raise ProtocolError("the service sent JSON that is nested too deeply") from None


class ThinkTags:
    """Tells the reasoning in the pieces of one answer from its text, however the tags are cut.

    Source: the chat templates of DeepSeek-R1, Qwen and QwQ (`<think>`); others use `<thinking>` or `<reasoning>`.

    Attributes:
        done: What comes now is text, and nothing is held back.

    Example:
        >>> tags = ThinkTags()
        >>> [tags("<thi"), tags("nk>Hm"), tags(".</think>"), tags("4")], tags.done
        ([[], [Reasoning(text='Hm')], [Reasoning(text='.')], ['4']], True)
    """

    __slots__ = ("_closing", "_held", "_skips_white", "done")

    def __init__(self) -> None:
        self._held = ""
        self._closing = ""
        self._skips_white = False
        self.done = False

    def __call__(self, text: str) -> list[str | Reasoning]:
        """What a piece of text says, together with what was held back before."""
        text, self._held = self._held + text, ""
        if self.done:
            return [text] if text else []
        if self._closing:
            return self._inside(text)
        if self._skips_white:
            return self._behind(text)
        start = text.lstrip(_WHITE)
        for tag in _OPENING:
            if start.startswith(tag):
                self._closing = f"</{tag[1:]}"
                return self._inside(start[len(tag) :])
        if len(text) - len(start) <= _MOST_WHITE and any(tag.startswith(start) for tag in _OPENING):
            self._held = text
            return []
        return self._as_text(text)

    def _inside(self, text: str) -> list[str | Reasoning]:
        thought, closing, rest = text.partition(self._closing)
        if closing:
            self._closing, self._skips_white = "", True
            return [*([Reasoning(thought)] if thought else []), *self._behind(rest)]
        keep = _overlap(text, self._closing)
        self._held = text[len(text) - keep :]
        thought = text[: len(text) - keep]
        return [Reasoning(thought)] if thought else []

    def _behind(self, text: str) -> list[str | Reasoning]:
        """The white space between reasoning and answer belongs to neither."""
        return self._as_text(answer) if (answer := text.lstrip(_WHITE)) else []

    def _as_text(self, text: str) -> list[str | Reasoning]:
        self.done = True
        return [text] if text else []

    def rest(self) -> list[str | Reasoning]:
        """What was held back, where it cannot be the beginning of a tag: at the end, or before a call of a tool."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [Reasoning(held)] if self._closing else self._as_text(held)


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of the text may be the beginning of the tag."""
    return next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-size:])), 0)


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

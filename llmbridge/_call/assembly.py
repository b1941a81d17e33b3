"""Repairs the decoded items of an answer: joins split characters, takes reasoning out of tags, assembles tool calls.

It sees neither bytes (`answer` does) nor the loop that reads (`reading` does).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from llmbridge._call.tool_deltas import CallAssembler
from llmbridge._json import mended_json
from llmbridge._text import SurrogateMender, mended
from llmbridge.errors import ProtocolError
from llmbridge.events import Finish, Item, Logprobs, OtherChoice, Reasoning, Refusal, Text, ToolCallDelta, Usage

__all__ = ["Assembly", "ThinkTags"]

_MOST_OTHERS = 128
_CUT_OFF = ("length", "content_filter", "error")

_OPENING = ("<think>", "<thinking>", "<reasoning>")
_WHITE = " \t\r\n"
_MOST_WHITE = 256  # characters of white space before a tag; a model that writes nothing else is not waited for


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

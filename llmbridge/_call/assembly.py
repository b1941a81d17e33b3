"""Repairs decoded items: joins split characters, strips think tags, assembles tool calls.

It sees neither bytes (`answer` does) nor the loop that reads (`reading` does). `calls` assembles the tool calls,
`summary` finds repetitions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmbridge._call.calls import CallAssembler
from llmbridge._json import mended_json
from llmbridge._text import SurrogateMender, mended
from llmbridge.errors import LLMBridgeError, ProtocolError
from llmbridge.events import (
    Citation,
    CitationInBytes,
    EndOfPart,
    Finish,
    Item,
    Logprobs,
    Media,
    MediaDelta,
    Other,
    OtherChoice,
    RawEvent,
    Reasoning,
    Refusal,
    Summary,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)

__all__ = ["Assembly", "ThinkTags"]

_MOST_OTHERS = 128
_BEGINNING = 16  # characters of base64 that are enough to detect the media type
_CUT_OFF = ("length", "content_filter", "error")

_OPENING = ("<think>", "<thinking>", "<reasoning>")
_WHITE = " \t\r\n"
_MOST_WHITE = 256  # characters of white space before a tag: text that is only white space is not held back for longer


class Assembly:
    """Combines the decoded items of one answer.

    Args:
        think_tags: Whether the answer may begin with reasoning between tags.
        answer_tool: The tool whose arguments are the answer's text; None if there is none.
        told: Returns what was handed out of this turn before; a summary is compared with it.

    Attributes:
        plain: An ASCII piece of text may be handed out unchanged.
        finish: The last Finish.
        failure: The error with which the answer ended.
    """

    def __init__(
        self,
        think_tags: bool = False,
        answer_tool: str | None = None,
        told: Callable[[], Sequence[Item]] = tuple,
    ) -> None:
        self._told = told
        self._think_tags = think_tags
        self._answer_tool = answer_tool
        self._tags = ThinkTags() if think_tags else None
        self._mend = SurrogateMender()
        self._mend_reasoning = SurrogateMender()
        self._mend_refusal = SurrogateMender()
        self._calls: CallAssembler | None = None  # made when first needed: most answers call no tools
        self._called = False
        self._answer_index: int | None = None
        self._answering = False
        self._others: dict[int, Assembly] = {}
        self._usage: Usage | None = None
        self._has_reasoning_field = False
        self._tagged = ""  # reasoning between tags that came before the reasoning field, which may repeat it
        self._media: dict[str, _MediaJoiner] = {}
        self._media_id: dict[str, str] = {}  # the last id of each kind
        self._cited: set[Citation] = set()
        self.finish: Finish | None = None
        self.failure: LLMBridgeError | None = None
        self.plain = not think_tags

    def take(self, item: Item, items: list[Item]) -> None:
        """Adds the items that result from one decoded item to `items`."""
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
        elif isinstance(item, Summary):
            self._take_summary(item, items)
        elif isinstance(item, RawEvent):
            items.append(item)
        else:
            self._take_rest(item, items)

    def _take_rest(self, item: Any, items: list[Item]) -> None:
        """Handles the items that few answers hold."""
        if isinstance(item, CitationInBytes):
            from llmbridge._call.summary import placed

            item = placed(item, [*self._told(), *items])
        if item.__class__ is not Citation:
            self._flush_tags(items)
        if isinstance(item, EndOfPart):
            items += self._mend.rest()
            items.append(EndOfPart(_kept(item.raw), item.needed) if item.raw else item)
            self._now_plain()
            return
        from llmbridge._call.summary import storable

        if isinstance(item, MediaDelta):
            if id := item.id or self._media_id.get(item.kind):
                self._media_id[item.kind] = id
                item = replace(item, id=id)
            joiner = self._media.setdefault(item.id or item.kind, _MediaJoiner())
            items += joiner.add(storable(item))
        elif not isinstance(item, Citation):
            items.append(storable(item))
        elif item not in self._cited:
            bare = item == Citation(item.url)
            if not (bare and any(item.url == known.url for known in self._cited)):
                items.append(storable(item))
            self._cited.add(item)
        self._now_plain()

    def take_usage(self, usage: Usage, items: list[Item]) -> None:
        """Like `take`, for token counts without text to repair: some services count with every piece."""
        self._usage = usage if self._usage is None else self._usage.merged(usage)
        items.append(self._usage)

    def close(self, items: list[Item], cut: bool = False) -> None:
        """Adds what was held back, and the calls that nothing has ended.

        Args:
            items: Added to.
            cut: The answer was truncated.
        """
        self._flush(items)
        self._tags = None
        self.plain = True
        items += self._ended_calls(cut)
        for joiner in self._media.values():
            items += joiner.rest()
        for index, choice in self._others.items():
            said: list[Item] = []
            choice.close(said, cut)
            items += [OtherChoice.of(index, item) for item in said]

    def _take_text(self, text: str, items: list[Item]) -> None:
        if self._tags is None:  # every piece that is not ASCII comes here
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
            elif not self._has_reasoning_field and (text := self._mend_reasoning(part.text)):
                items.append(Reasoning(text))

    def _take_reasoning(self, item: Reasoning, items: list[Item]) -> None:
        """Some services send it both in a field and between tags: it is handed out once, and the field wins."""
        text = self._mend_reasoning(item.text)
        if self._think_tags:
            if not self._has_reasoning_field:
                told = [*self._told(), *items]
                self._tagged = "".join(part.text for part in told if isinstance(part, Reasoning))
            if self._tagged:
                text, self._tagged = _not_repeated(text, self._tagged)
        self._has_reasoning_field = True
        signature, redacted = (value and mended(value) for value in (item.signature, item.redacted))
        raw = item.raw and _kept(item.raw)
        if signature or redacted or raw:  # a block ends
            text += "".join(self._mend_reasoning.rest())
        if text or signature or redacted or raw:
            items.append(Reasoning(text, signature, redacted, raw))

    def _flush_tags(self, items: list[Item]) -> None:
        """Adds what might have been the beginning of a tag."""
        if self._tags is not None:
            self._add_parts(self._tags.rest(), items)

    def _flush(self, items: list[Item]) -> None:
        """Adds everything that was held back."""
        self._flush_tags(items)
        items += map(Reasoning, self._mend_reasoning.rest())
        items += self._mend.rest()
        items += map(Refusal, self._mend_refusal.rest())
        self._now_plain()

    def _take_delta(self, delta: ToolCallDelta, items: list[Item]) -> None:
        self._flush_tags(items)
        if delta.raw:
            delta = replace(delta, raw=_kept(delta.raw))
        if self._answer_tool is not None and self._is_answer(delta):
            if delta.arguments:
                self._add_text(delta.arguments, items)
        else:
            calls = self._calls = self._calls or CallAssembler()
            if (piece := calls.add(delta)) is not None:
                items.append(piece)
            self._called = self._called or calls.seen
            if delta.whole:
                items += calls.whole()
        self._now_plain()

    def _ended_calls(self, cut: bool, final: bool = True) -> Sequence[ToolCall]:
        """The calls that are over, see `CallAssembler.finished`."""
        return self._calls.finished(cut, final) if self._calls is not None else ()

    def _is_answer(self, delta: ToolCallDelta) -> bool:
        if delta.name:
            self._answering = delta.name == self._answer_tool
            if self._answering:
                self._answer_index = delta.index
            return self._answering
        return self._answering if delta.index is None else delta.index == self._answer_index

    def _take_finish(self, finish: Finish, items: list[Item]) -> None:
        """Some services send a finish with each piece: a call that is not complete JSON yet stays open."""
        self._flush(items)
        cut = finish.reason in _CUT_OFF
        items += self._ended_calls(cut, final=cut)
        reason = finish.reason
        if reason in ("stop", "other") and self._called:
            reason = "tool_calls"
        elif reason == "tool_calls" and self._answer_tool is not None and not self._called:
            reason = "stop"
        self.finish = Finish(reason, mended(finish.raw), mended(finish.message), finish.again)
        if reason == "error":
            from llmbridge._call.summary import failed_answer

            self.failure = failed_answer(self.finish)
        else:
            items.append(self.finish)

    def _take_summary(self, summary: Summary, items: list[Item]) -> None:
        """Reads the summary as an answer of its own, and adds only what the pieces lack."""
        from llmbridge._call.summary import news_of, repeats

        said: list[Item] = []
        whole = Assembly(self._think_tags, self._answer_tool, lambda: said)
        for item in summary.items:
            whole.take(item, said)
        cut = whole.finish is not None and whole.finish.reason in _CUT_OFF
        whole.close(said, cut)
        if not summary.certain and not repeats(said, [*self._told(), *items]):
            for item in summary.items:
                self.take(item, items)
            return
        self._flush(items)
        items += self._ended_calls(cut)
        self._called = self._called or whole._called
        news = news_of(said, [*self._told(), *items])
        for item in news:
            if isinstance(item, Usage):
                self.take_usage(item, items)
            elif isinstance(item, Citation):
                self._take_rest(item, items)
            elif not isinstance(item, Finish):
                items.append(item)
        if self.finish is None and whole.finish is not None:
            self._take_finish(whole.finish, items)

    def _take_other(self, item: OtherChoice, items: list[Item]) -> None:
        """Assembles another choice as an answer of its own."""
        choice = self._others.get(item.index)
        if choice is None:
            if len(self._others) >= _MOST_OTHERS:
                return  # more than any service offers, and each choice costs memory
            choice = self._others[item.index] = Assembly(self._think_tags, self._answer_tool)
        if isinstance(item.event, (Summary, CitationInBytes)):
            from llmbridge._call.summary import of_choice

            choice._told = lambda: of_choice(item.index, [*self._told(), *items])
        said: list[Item] = []
        choice.take(item.event.text if isinstance(item.event, Text) else item.event, said)
        if choice.failure is not None and choice.finish is not None:  # the call fails only with its first choice
            choice.failure = None
            said.append(choice.finish)
        items += [OtherChoice.of(item.index, part) for part in said if not isinstance(part, EndOfPart)]


def _mended(raw: Any) -> Any:
    """A service's own JSON, repaired for UTF-8; None if it needs no repair."""
    try:
        return mended_json(raw) if "\\ud" in repr(raw) else None
    except RecursionError:
        raise ProtocolError("the service sent JSON that is nested too deeply") from None


def _kept(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    from llmbridge._call.summary import storable

    return storable(raw)


def _not_repeated(text: str, told: str) -> tuple[str, str]:
    """What a piece of reasoning adds to the text so far, and how much of that text may still be repeated.

    Example:
        >>> _not_repeated("Hm", "Hm. So"), _not_repeated("Hm. So 4", "Hm. So"), _not_repeated("No", "Hm")
        (('', '. So'), (' 4', ''), ('No', ''))
    """
    start, known = text.lstrip(), told.lstrip()
    if not known:
        return text, ""
    if known.startswith(start):
        return "", known[len(start) :]
    return (start[len(known) :] if start.startswith(known) else text), ""


class _MediaJoiner:
    """Decodes base64 that may be split anywhere."""

    __slots__ = ("_held", "_last", "_mime")

    def __init__(self) -> None:
        self._held = ""
        self._mime = ""
        self._last: MediaDelta | None = None

    def add(self, delta: MediaDelta) -> list[Item]:
        """The media that a piece completes."""
        self._last = delta
        self._held += "".join(delta.data.split())
        known = delta.mime or self._mime or len(self._held) >= _BEGINNING or self._held.endswith("=")
        end = len(self._held) - len(self._held) % 4 if known else 0
        encoded, self._held = self._held[:end], self._held[end:]
        return self._made(delta, encoded)

    def rest(self) -> list[Item]:
        """What was held back: base64 without its padding."""
        if not self._held or self._last is None:
            return []
        encoded, self._held = self._held + "=" * (-len(self._held) % 4), ""
        return self._made(replace(self._last, transcript="", raw={}), encoded)

    def _made(self, delta: MediaDelta, encoded: str) -> list[Item]:
        from base64 import b64decode

        from llmbridge.parts import media_type_of

        try:  # the service may have encoded each piece by itself, with its own padding
            data = b"".join(map(b64decode, re.findall(r"[^=]+={0,2}", encoded)))
        except ValueError:
            return [Other(delta.kind, {**delta.raw, "data": encoded}, in_turn=False)]
        if data:
            self._mime = delta.mime or self._mime or media_type_of(data) or "audio/pcm" * (delta.kind == "audio")
        mime = delta.mime or self._mime
        made = Media(delta.kind, mime, data, None, mended(delta.transcript), delta.id, delta.raw)
        return [made] if data or delta.transcript or delta.raw else []


class ThinkTags:
    """Separates reasoning from text in the pieces of one answer, however the tags are split.

    Source: the chat templates of DeepSeek-R1, Qwen and QwQ (`<think>`); others use `<thinking>` or `<reasoning>`.

    Attributes:
        done: From now on everything is text, and nothing is held back.

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
        """The parts of a piece of text, together with what was held back before."""
        text, self._held = self._held + text, ""
        if self.done:
            return [text] if text else []
        if self._closing:
            return self._inside(text)
        if self._skips_white:
            return self._after_tag(text)
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
            return [*([Reasoning(thought)] if thought else []), *self._after_tag(rest)]
        keep = _overlap(text, self._closing)
        self._held = text[len(text) - keep :]
        thought = text[: len(text) - keep]
        return [Reasoning(thought)] if thought else []

    def _after_tag(self, text: str) -> list[str | Reasoning]:
        """Drops the white space between reasoning and answer."""
        return self._as_text(answer) if (answer := text.lstrip(_WHITE)) else []

    def _as_text(self, text: str) -> list[str | Reasoning]:
        self.done = True
        return [text] if text else []

    def rest(self) -> list[str | Reasoning]:
        """What was held back, when no tag can follow: at the end, or before a tool call."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [Reasoning(held)] if self._closing else self._as_text(held)


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of the text may be the beginning of the tag."""
    return next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-size:])), 0)

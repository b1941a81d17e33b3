"""Reasoning that a model writes into its answer, between tags at the very beginning, told apart from the answer.

Source: the chat templates of DeepSeek-R1, Qwen and QwQ (`<think>`); others use `<thinking>` or `<reasoning>`.
"""

from __future__ import annotations

from llmbridge.events import Reasoning

__all__ = ["ThinkTags"]

_OPENING = ("<think>", "<thinking>", "<reasoning>")
_WHITE = " \t\r\n"
_MOST_WHITE = 256  # characters of white space before a tag; a model that writes nothing else is not waited for


class ThinkTags:
    """Tells the reasoning in the pieces of one answer from its text, however the tags are cut.

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

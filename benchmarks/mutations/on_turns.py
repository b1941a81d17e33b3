"""Mutations that break the promises about whole answers: kept, told once, and sent back (P26 to P28)."""

from __future__ import annotations

from benchmarks.mutations.mutation import Mutation

__all__ = ["ON_TURNS"]

_KEPT = (
    Mutation("P26", "media are not kept", "Notes._note_rest", "elif isinstance(item, Media):", "elif False:"),
    Mutation("P26", "citations are not kept", "Notes._note_rest", "citations.append(item)", "pass"),
    Mutation("P26", "an error does not have the turn", "Notes.partial", "partial.message = message if", "None if"),
    Mutation("P26", "an end that is an error passes", "Assembly._take_finish", 'if reason == "error":', "if False:"),
    Mutation("P26", "a failed answer is not tried again", "failed_answer", "or finish.again", ""),
    Mutation("P26", "the identity comes from the first event alone", "Head.take", "self.last = frames[-1]", "pass"),
    Mutation(
        "P26",
        "raw events are lost",
        "_with_raw",
        "yield RawEvent(mended(frame.data), frame.event)",
        "pass",
    ),
)

_ONCE = (
    Mutation("P27", "a summary is repeated", "news_of", "if text.startswith(said) else len(text)", "* 0"),
    Mutation(
        "P27", "the tail of a summary is lost", "news_of", "known = len(said) if text", "known = len(text) if text"
    ),
    Mutation(
        "P27", "a call runs again under another name", "_same_call", "return by_id or next(", "return by_id and next("
    ),
    Mutation("P27", "two equal calls are one", "news_of", "calls.remove(same)", "pass"),
    Mutation("P27", "tags repeat the field", "Assembly._add_parts", "not self._has_reasoning_field and", ""),
    Mutation(
        "P27",
        "arguments that come again are broken",
        "_Open.text",
        "return _once(self.pieces) or joined",
        "return joined",
    ),
    Mutation(
        "P27",
        "a whole call that comes again is a new one",
        "CallAssembler.add",
        "if delta.whole and self._is_resent(delta):",
        "if False:",
    ),
    Mutation("P27", "a source comes with each piece", "Assembly._take_rest", "self._cited.add(item)", "pass"),
)

_BACK = (
    Mutation("P28", "calls lose their places", "_with_marks", 'part = {"type": "tool_call", "id": id}', "continue"),
    Mutation("P28", "what only the service understands is dropped", "PartsSoFar.add_opaque", "if raw:", "if False:"),
    Mutation("P28", "it goes to another service", "_own", '("by", *_OWN)', '("by",)'),
    Mutation(
        "P28", "a thought goes on behind a call", "PartsSoFar.add_reasoning", "self._interrupted or place", "place"
    ),
    Mutation("P28", "a pause is an end", "ToolLoop._continues", 'self._notes.finish.reason == "pause"', "False"),
    Mutation(
        "P28",
        "the tokens before a pause are lost",
        "Notes._next_call",
        "self._earlier_usage, self._usage = self.usage, None",
        "self._usage = None",
    ),
)

ON_TURNS = (*_KEPT, *_ONCE, *_BACK)

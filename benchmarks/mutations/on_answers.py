"""What breaks the promises about answers: their framing, their text, their end (P1 to P9)."""

from __future__ import annotations

from benchmarks.mutations.mutation import Mutation

__all__ = ["ON_ANSWERS"]

_FRAMING = (
    Mutation("P1", "the byte order mark stays", "_framing.py", "return head[len(_BOM) :] if", "return head if"),
    Mutation(
        "P1",
        "a CRLF over two reads is two line ends",
        "_framing.py",
        'self._after_cr = data.endswith(b"\\r")',
        "self._after_cr = False",
    ),
    Mutation(
        "P1", "a bad byte is not replaced", "_framing.py", 'data.decode("utf-8", "replace").encode("utf-8")', "data"
    ),
    Mutation("P2", "an event has no limit", "_framing.py", "EVENT_LIMIT = 64 * 1024", "EVENT_LIMIT = 64 << 30"),
    Mutation("P2", "an error body has no limit", "service_errors.py", "BODY_LIMIT = 64 *", "BODY_LIMIT = 64 << 30 *"),
    Mutation(
        "P2",
        "what swells is unpacked in one go",
        "_transport/body.py",
        "decompress(data, _INFLATED_SIZE)",
        "decompress(data)",
    ),
    Mutation("P2", "many lines take quadratic time", "_framing.py", "_MANY_LINES = 64", "_MANY_LINES = 1 << 40"),
    Mutation(
        "P3",
        "a read waits until its buffer is full",
        "_transport/body.py",
        "is None else sock.recv",
        "is None else lambda size: sock.recv(size, socket.MSG_WAITALL)",
    ),
    Mutation(
        "P3",
        "an event waits for the next one",
        "_framing.py",
        "        if end >= 0:",
        "        if 0 <= end < len(data) - len(self.terminator):",
    ),
    Mutation("P4", "the space behind data: must be there", "_framing.py", 'b"data: ") else 5', 'b"data: ") else 6'),
    Mutation(
        "P4",
        "the end mark needs a blank line before it",
        "providers/_completions_answer.py",
        'if line.startswith("[DONE]") else',
        "if not line else",
    ),
    Mutation(
        "P4",
        "events without blank lines are lost",
        "providers/_completions_answer.py",
        "yield from _separate_lines(",
        "yield from () and _separate_lines(",
    ),
    Mutation("P5", "halves of a pair are not joined", "_text.py", "text, self.half = text[:-1], text[-1]", "pass"),
    Mutation(
        "P5",
        "empty pieces are handed out",
        "_assembly.py",
        "if text := self._mend(text):\n                items",
        "if [text := self._mend(text)]:\n                items",
    ),
    Mutation(
        "P5",
        "other choices are taken for the answer",
        "providers/_completions_answer.py",
        "    if not index:",
        "    if True:",
    ),
    Mutation(
        "P5", "reasoning is text", "providers/_completions_answer.py", "yield Reasoning(reasoning)", "yield reasoning"
    ),
)

_ENDS = (
    Mutation(
        "P6",
        "a missing end mark is a normal end",
        "_answer.py",
        'raise StreamTruncated("the stream ended before',
        'return\n        raise StreamTruncated("the stream ended before',
    ),
    Mutation(
        "P6",
        "a body that is cut short is a whole one",
        "_transport/body.py",
        'raise StreamTruncated("the connection ended in',
        'self._done = True\n            return b""\n            raise StreamTruncated("the connection ended in',
    ),
    Mutation(
        "P6",
        "an end inside the headers is not noticed",
        "_transport/connections.py",
        'if not lines.last.endswith(b"\\n"):',
        "if lines.last is None:",
    ),
    Mutation("P6", "the text before a cut is lost", "_answer.py", "return items, cut and", "return [], cut and"),
    Mutation(
        "P7", "the end mark is not the end", "_answer.py", "self.end_mark = self.ended = True", "self.end_mark = True"
    ),
    Mutation("P7", "the rest is waited for", "_transport/__init__.py", "_DRAIN_SECONDS = 0.1", "_DRAIN_SECONDS = 1e3"),
    Mutation("P7", "the rest is never read", "_transport/__init__.py", "_DRAIN_SECONDS = 0.1", "_DRAIN_SECONDS = 0.0"),
    Mutation("P8", "HTML is not told apart", "_answer.py", 'if start == b"<" or (', 'if start == b"" and ('),
    Mutation(
        "P8",
        "a JSON document is read as a stream",
        "_answer.py",
        "and not framing.begins_with_json:",
        "and framing.begins_with_json:",
    ),
    Mutation(
        "P8",
        "no events at all are an empty answer",
        "_answer.py",
        "if not self._frames_seen and last_is_whole:",
        "if not self._frames_seen and last_is_whole:\n            return\n        if not self._frames_seen:",
    ),
    Mutation(
        "P9",
        "the text before an error in the stream is lost",
        "_answer.py",
        "return items, without_frames(error)",
        "return [], without_frames(error)",
    ),
    Mutation(
        "P9", "the code of an error is not looked at", "service_errors.py", "= kind or StreamError", "= StreamError"
    ),
    Mutation(
        "P9",
        "the event's name is not looked at",
        "providers/_completions_answer.py",
        'if event == "error" or (isinstance',
        "if (isinstance",
    ),
)

ON_ANSWERS = (*_FRAMING, *_ENDS)

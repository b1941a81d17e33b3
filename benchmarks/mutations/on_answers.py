"""Mutations that break the promises about answers: their framing, their text, their end (P1 to P9)."""

from __future__ import annotations

from benchmarks.mutations.mutation import Mutation

__all__ = ["ON_ANSWERS"]

_FRAMING = (
    Mutation(
        "P1", "the byte order mark stays", "Framing._without_bom", "return head[len(_BOM) :] if", "return head if"
    ),
    Mutation("P1", "a CRLF over two reads is two line ends", "Framing._without_cr", r'data.endswith(b"\r")', "False"),
    Mutation(
        "P1", "a bad byte is not replaced", "_repaired", 'data.decode("utf-8", "replace").encode("utf-8")', "data"
    ),
    Mutation("P2", "an event has no limit", "EVENT_LIMIT", "64 *", "1024 * 1024 *"),
    Mutation("P2", "an error body has no limit", "BODY_LIMIT", "64 *", "1024 * 1024 * 1024 *"),
    Mutation("P2", "a large body is unpacked in one go", "Inflated._plain", "(data, _INFLATED_SIZE)", "(data)"),
    Mutation("P2", "many lines take quadratic time", "_MANY_LINES", "64", "1 << 40"),
    Mutation(
        "P3",
        "a read waits until its buffer is full",
        "WireBody.__init__",
        "else sock.recv",
        "else lambda size: sock.recv(size, socket.MSG_WAITALL)",
    ),
    Mutation(
        "P3",
        "an event waits for the next one",
        "SSE._cut",
        "return data  # the",
        'return self._keep(data) or b""  # the',
    ),
    Mutation(
        "P3",
        "a line waits for the next one",
        "_Tail._cut",
        "if end >= 0:",
        "if 0 <= end < len(data) - len(self.terminator):",
    ),
    Mutation("P4", "the space behind data: must be there", "DataLines._frames", "else 5", "else 6"),
    Mutation(
        "P4",
        "events without blank lines wait for the end",
        "_MissingLines._data",
        "if self._separate and self._document.is_whole",
        "if False",
    ),
    Mutation(
        "P4", "events without blank lines are joined", "_MissingLines._line", "if whole and value.strip():", "if 0:"
    ),
    Mutation("P4", "the end mark needs a blank line before it", "_OpenJSON.is_whole", 'text == "[DONE]" or', ""),
    Mutation("P4", "an event of several lines is cut apart", "_OpenJSON.is_balanced", "self._depth <= 0 and", ""),
    Mutation(
        "P4",
        "a name is taken from the event behind it",
        "_MissingLines._ended",
        r'return b"\n" + name',
        r'return name + b"\n"',
    ),
    Mutation(
        "P5",
        "halves of a pair are not joined",
        "SurrogateMender.__call__",
        "text, self.half = text[:-1], text[-1]",
        "pass",
    ),
    Mutation(
        "P5",
        "empty pieces are handed out",
        "Assembly._take_text",
        "if text := self._mend(text):",
        "if [text := self._mend(text)]:",
    ),
    Mutation("P5", "other choices are taken for the answer", "_decode_any", "if not index else (", "if True else ("),
    Mutation("P5", "reasoning is text", "_told", "yield Reasoning(reasoning)", "yield reasoning"),
)

_ENDS = (
    Mutation(
        "P6",
        "a missing end mark is a normal end",
        "Answer._end_of_body",
        "raise StreamTruncated",
        "return\nraise StreamTruncated",
    ),
    Mutation(
        "P6",
        "a body that is cut short is a whole one",
        "WireBody._ended",
        "raise StreamTruncated",
        'self._done = True\nreturn b""\nraise StreamTruncated',
    ),
    Mutation(
        "P6",
        "an end inside the headers is not noticed",
        "_Response.begin",
        r'or not lines.last.endswith(b"\n"):',
        "or lines.last is None:",
    ),
    Mutation(
        "P6",
        "an incomplete line is lost at a timeout",
        "Answer.read",
        "except (TransportError, Cancelled) as",
        "except StreamTruncated as",
    ),
    Mutation("P6", "a cut stream is taken for another dialect", "nothing_read", "if over else None", ""),
    Mutation("P6", "the text before a cut is lost", "Answer.read", "return items, cut and", "return [], cut and"),
    Mutation("P7", "the end mark is not the end", "Answer._decode", "self.end_mark = self.ended =", "self.end_mark ="),
    Mutation("P7", "the rest is waited for", "_DRAIN_SECONDS", "0.1", "1e3"),
    Mutation("P7", "the rest is never read", "_DRAIN_SECONDS", "0.1", "0.0"),
    Mutation("P8", "vectors without numbers are given", "EmbeddingsCall._check", "if not all(vectors):", "if False:"),
    Mutation(
        "P8", "vectors may be of any length", "EmbeddingsCall._check", "if asked and not found <= asked:", "if False:"
    ),
    Mutation("P8", "HTML is not told apart", "Answer._begin", 'if start == b"<" or (', 'if start == b"" and ('),
    Mutation(
        "P8",
        "a JSON document is read as a stream",
        "Answer._begin",
        "and not framing.begins_with_json:",
        "and framing.begins_with_json:",
    ),
    Mutation(
        "P8",
        "no events at all are an empty answer",
        "Answer._end_of_body",
        "if not self._frames_seen and last_is_whole:",
        "if not self._frames_seen and last_is_whole:\n    return\nif not self._frames_seen:",
    ),
    Mutation("P8", "another dialect is not named", "foreign_stream", "named = _foreign(", "named = None and _foreign("),
    Mutation(
        "P8",
        "a document of another dialect is not named",
        "foreign_document",
        "else _foreign(dialect)",
        "else None",
    ),
    Mutation("P8", "an end mark alone is an empty answer", "Answer._check_read", "elif self.ended:", "elif False:"),
    Mutation("P8", "usage alone is not an answer", "Answer._check_read", "over=not items", "over=True"),
    Mutation("P9", "an error without a field is skipped", "_BARE", r'rb"\{|', 'rb"'),
    Mutation(
        "P9", "an error in a field of its own is skipped", "_MissingLines._line", 'field == b"error" and', "False and"
    ),
    Mutation(
        "P9",
        "the text before an error in the stream is lost",
        "Answer.read",
        "return items, without_frames(error if",
        "return [], without_frames(error if",
    ),
    Mutation("P9", "the code of an error is not read", "error_in_stream", "= kind_of(parsed, parsed.status)", "= None"),
    Mutation(
        "P9",
        "the event's name is not read",
        "_decode_any",
        'if event == "error" or (isinstance',
        "if (isinstance",
    ),
)

ON_ANSWERS = (*_FRAMING, *_ENDS)

"""Bytes to frames: every split of the same bytes gives the same frames, in linear time and bounded memory."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sseclient import SSEClient

from llmbridge._call.framing import EVENT_LIMIT, NDJSON, SSE, DataLines, Framing, Record
from llmbridge.errors import ProtocolError

FRAMINGS = [SSE, DataLines, NDJSON]

# Parts of streams that can go wrong at their borders.
PARTS = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b":",
        b" ",
        b"data",
        b"data:",
        b"data: ",
        b"data: {}\n\n",
        b"event: error\n",
        b"event",
        b"id: 7\n",
        b"retry: 10\n",
        b"wibble: x\n",
        b": comment\n",
        b": bad \xff\xfe\n",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xbb",
        b"[DONE]",
        "ü世🌍".encode(),
        "\u2028\u0085\u2029".encode(),
        b"\x0b\x0c\x1c\x1d\x1e\x00",
        b"\xe4\xb8",
        b"\xff",
        b"{",
        b'{"a": 1}',
    ]
)
STREAMS = st.lists(PARTS | st.binary(max_size=3), max_size=24).map(b"".join)
ODD = re.compile(rb"(?:^(?:\xef\xbb\xbf)?|[\r\n])(?:[{\[]|error:)|[}\]] *(?:\r\n|\r|\n)[^\r\n]")
CUTS = st.lists(st.integers(1, 5), min_size=1, max_size=40)

STREAM = (
    "\ufeff: hi\r\n\r\nevent: a\rdata: 1\r\rdata:zwei ü\n\r\ndata: 世界\n: c\ndata: 🌍\n\nid: 4\r\ndata\r\n\r\n"
    "data: \u2028\u0085\u2029\n\nretry: 3\n\ndata: [DONE]\r\n\r\ndata: cut"
).encode()


def frames(framing: Framing, chunks: Iterable[bytes], finish: bool = False) -> list[tuple[str, str]]:
    """Event name and data of every frame in the chunks."""
    found = [frame for chunk in chunks for frame in framing.feed(chunk)]
    if finish:
        found += framing.finish()
    return [(frame.event, frame.data) for frame in found]


def texts(framing: Framing, *chunks: bytes) -> list[str]:
    """The data alone."""
    return [data for _, data in frames(framing, chunks)]


def pieces(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """`data` cut into pieces of these sizes, the last one repeated."""
    cut: list[bytes] = []
    size, sizes = 1, iter(sizes)
    while data:
        size = next(sizes, size)
        cut.append(data[:size])
        data = data[size:]
    return cut


def numbered(letters: str, *behind: str) -> list[tuple[str, str]]:
    """Frames `{"a": 1}`, `{"b": 2}` and so on, by their letters, each with its ending."""
    ends = behind or [""] * len(letters)
    return [
        ("message", f'{{"{letter}": {" abcd".index(letter)}}}{end}') for letter, end in zip(letters, ends, strict=True)
    ]


def by_the_standard(stream: bytes) -> list[tuple[str, str]]:
    """The events of a whole stream by the algorithm of the WHATWG standard."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    found: list[tuple[str, str]] = []
    name, data = "", ""
    for line in re.split("\r\n|\n|\r", text)[:-1]:
        if not line:
            if data:
                found.append((name or "message", data.removesuffix("\n")))
            name, data = "", ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data += value + "\n"
        elif field == "event":
            name = value
    return found


class TestAnyCut:
    """P1: the network's chunks leave no trace in the frames."""

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_every_split_point_gives_the_same_frames(self, framing: type[Framing]) -> None:
        """Two reads give what one read gives, wherever the border is."""
        whole = frames(framing(), [STREAM], finish=True)
        assert len(whole) > 5
        for cut in range(len(STREAM) + 1):
            assert frames(framing(), [STREAM[:cut], STREAM[cut:]], finish=True) == whole, cut

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_small_reads_give_the_same_frames(self, framing: type[Framing], size: int) -> None:
        """One, two, three or seven bytes at a time give what one read gives."""
        assert frames(framing(), pieces(STREAM, [size]), finish=True) == frames(framing(), [STREAM], finish=True)

    @pytest.mark.slow
    @pytest.mark.parametrize("framing", FRAMINGS)
    @given(stream=STREAMS, sizes=CUTS)
    def test_any_cut_of_any_bytes_gives_the_same_frames(
        self, framing: type[Framing], stream: bytes, sizes: list[int]
    ) -> None:
        """Any bytes in any split give the same frames and the same rest."""
        whole = framing()
        once = frames(whole, [stream]), frames(whole, [], finish=True)
        cut = framing()
        assert (frames(cut, pieces(stream, sizes)), frames(cut, [], finish=True)) == once

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_an_empty_read_changes_nothing(self, framing: type[Framing]) -> None:
        """An empty chunk ends nothing."""
        chunks = [chunk for byte in pieces(STREAM, [1]) for chunk in (b"", byte)]
        assert frames(framing(), chunks) == frames(framing(), [STREAM])

    @pytest.mark.slow
    @given(stream=STREAMS.filter(lambda stream: not ODD.search(stream)))
    def test_events_are_those_of_the_standard(self, stream: bytes) -> None:
        """Any bytes, except bare JSON and consecutive data lines, give the events of the standard's own algorithm."""
        # A CR ends a line here at once, where the standard's grammar sees a pair: only the very last one matters.
        expected = by_the_standard(stream)
        assert frames(SSE(), [stream]) == expected

    @given(stream=STREAMS, sizes=CUTS)
    def test_every_frame_can_be_encoded_as_utf8(self, stream: bytes, sizes: list[int]) -> None:
        """No frame holds half of a character."""
        for framing in FRAMINGS:
            for _, data in frames(framing(), pieces(stream, sizes), finish=True):
                data.encode("utf-8")


class TestLive:
    """P3: a frame is complete with its last byte."""

    def test_an_event_comes_with_its_blank_line(self) -> None:
        """The second line feed completes the event, and not the byte before it."""
        framing = SSE()
        assert texts(framing, b"data: 1\n") == []
        assert texts(framing, b"\n") == ["1"]

    @pytest.mark.parametrize("blank", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"\r\n\n", b"\n\r\n", b"\r\r\n"])
    def test_an_event_does_not_wait_for_the_next_one(self, blank: bytes) -> None:
        """Any mixture of two line ends completes an event at once."""
        assert texts(SSE(), b"data: 1" + blank) == ["1"]

    def test_a_line_comes_with_its_line_end(self) -> None:
        """The line framings wait for a single line end."""
        for framing, line in ((DataLines(), b"data: {}"), (NDJSON(), b"{}")):
            assert texts(framing, line) == []
            assert texts(framing, b"\r") == ["{}"]
            assert texts(framing, b"\n" + line + b"\n") == ["{}"]

    def test_several_events_in_one_read_come_together(self) -> None:
        """One read gives all events in it, in order."""
        assert texts(SSE(), b"".join(b"data: %d\n\n" % i for i in range(5)) + b"data: 5") == list("01234")


class TestLines:
    """P1: line ends."""

    @pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
    def test_each_kind_of_line_end_is_one(self, end: bytes) -> None:
        """LF, CR and CRLF end a line alike."""
        stream = end.join([b"event: x", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])
        assert frames(SSE(), [stream]) == [("x", "1\n2"), ("message", "3")]

    def test_line_ends_may_be_mixed(self) -> None:
        """One stream, and even one event, may hold all three."""
        assert texts(SSE(), b"data: 1\rdata: 2\r\ndata: 3\n\r\ndata: 4\r\n\ndata: 5\n\r") == ["1\n2\n3", "4", "5"]

    def test_a_pair_across_two_reads_is_one_line_end(self) -> None:
        """CR at the end of one read and LF at the beginning of the next are not a blank line."""
        assert texts(SSE(), b"data: 1\r", b"\ndata: 2\r", b"\n\r", b"\n") == ["1\n2"]

    @pytest.mark.parametrize("character", list("\u0085\u2028\u2029\x0b\x0c\x1c\x1d\x1e"))
    @pytest.mark.parametrize("framing", [SSE, DataLines])
    def test_no_other_character_ends_a_line(self, framing: type[Framing], character: str) -> None:
        """Other characters that `str.splitlines` splits at are part of the text."""
        assert texts(framing(), f"data: a{character}b\n\n".encode()) == [f"a{character}b"]

    @pytest.mark.parametrize("character", list("\u0085\u2028\u2029\x0b\x0c\x1c"))
    def test_no_other_character_ends_a_json_line(self, character: str) -> None:
        """The same for NDJSON."""
        assert texts(NDJSON(), f'"a{character}b"\n'.encode()) == [f'"a{character}b"']


class TestByteOrderMark:
    """P1: one byte order mark at the beginning is not part of the stream."""

    @pytest.mark.parametrize(("framing", "line"), [(SSE, b"data: 1\n\n"), (DataLines, b"data: 1\n"), (NDJSON, b"1\n")])
    def test_one_mark_is_stripped(self, framing: type[Framing], line: bytes) -> None:
        """A mark in front of the first line does not hide it, in one read or byte by byte."""
        assert texts(framing(), b"\xef\xbb\xbf" + line) == ["1"]
        assert texts(framing(), *pieces(b"\xef\xbb\xbf" + line, [1])) == ["1"]

    def test_only_one_mark_is_stripped(self) -> None:
        """A second mark belongs to the name of the first field, which is then unknown."""
        assert texts(SSE(), b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\ndata: 2\n\n") == ["2"]

    def test_a_mark_later_on_is_text(self) -> None:
        """Inside the stream it is an ordinary character."""
        assert texts(SSE(), b"data: a\n\n", b"data: \xef\xbb\xbfb\n\n") == ["a", "\ufeffb"]

    @pytest.mark.parametrize("start", [b"\xef", b"\xef\xbb", b"\xef\xbb\xbe", b"\xefdata: 0\n\n"])
    def test_half_a_mark_is_none(self, start: bytes) -> None:
        """Bytes that only begin like a mark make a bad field, and do not affect the rest."""
        assert texts(SSE(), *pieces(start + b"\n\ndata: 1\n\n", [1])) == ["1"]

    def test_half_a_mark_alone_is_not_lost(self) -> None:
        """A stream of only two bytes of a mark still counts as bytes."""
        framing = NDJSON()
        assert texts(framing, b"\xef\xbb") == []
        assert [frame.data for frame in framing.finish()] == ["\ufffd"]


class TestFields:
    """P1: fields as in the standard."""

    def test_comments_and_unknown_fields_are_ignored(self) -> None:
        """Keep-alives and unknown fields are ignored."""
        stream = b": OPENROUTER PROCESSING\n\n:\n\nwibble: 1\nid: 3\nretry: 5\ndata: x\n: y\nfoo\n\n"
        assert texts(SSE(), stream) == ["x"]

    @pytest.mark.parametrize("framing", [SSE, DataLines])
    def test_a_bad_byte_in_a_comment_harms_nothing(self, framing: type[Framing]) -> None:
        """Invalid UTF-8 in a comment changes nothing."""
        stream = b": \xff\xfe\xed\xa0\x80\ndata: \xc3\xbc\n\n"
        assert texts(framing(), stream) == ["ü"]
        assert texts(framing(), *pieces(stream, [1])) == ["ü"]

    def test_a_bad_byte_in_the_text_becomes_a_replacement_character(self) -> None:
        """Invalid UTF-8 becomes U+FFFD, and the rest of the text stays."""
        assert texts(SSE(), b"data: a\xffb\xe4\xb8c\n\n") == ["a\ufffdb\ufffdc"]

    def test_one_space_after_the_colon_is_removed(self) -> None:
        """Only one space is removed."""
        assert texts(SSE(), b"data:a\n\ndata: b\n\ndata:  c\n\n") == ["a", "b", " c"]

    def test_several_data_lines_are_joined(self) -> None:
        """Several data lines are one event, joined by line feeds."""
        assert texts(SSE(), b'data: {\ndata: "a": 1\ndata\ndata: }\n\n') == ['{\n"a": 1\n\n}']

    def test_an_event_has_its_name(self) -> None:
        """The last name counts, for its event alone; the default is "message"."""
        stream = b"event: a\nevent: error\ndata: 1\n\ndata: 2\n\nevent:\ndata: 3\n\n"
        assert frames(SSE(), [stream]) == [("error", "1"), ("message", "2"), ("message", "3")]

    def test_an_event_without_data_is_none(self) -> None:
        """A name alone is not an event, and does not stick to the next event."""
        assert frames(SSE(), [b"event: ping\n\nid: 1\n\ndata: 1\n\n"]) == [("message", "1")]


class TestTheFirstServices:
    """P4: lines with or without blank ones between them."""

    def test_lines_need_no_blank_line(self) -> None:
        """Each data line is a frame of its own."""
        assert texts(DataLines(), b'data: {"a": 1}\ndata: {"b": 2}\ndata: [DONE]\n') == [
            '{"a": 1}',
            '{"b": 2}',
            "[DONE]",
        ]

    def test_blank_lines_are_allowed(self) -> None:
        """Real servers put one after each event."""
        assert texts(DataLines(), b"data: 1\n\ndata: 2\r\n\r\ndata: [DONE]\n\n") == ["1", "2", "[DONE]"]

    def test_the_space_is_optional(self) -> None:
        """At most one space after the colon is removed."""
        assert texts(DataLines(), b"data:1\ndata: 2\ndata:  3\ndata:[DONE]\n") == ["1", "2", " 3", "[DONE]"]

    def test_other_lines_are_ignored(self) -> None:
        """Names, comments and text are ignored, and fields whose name only begins like `data`."""
        assert texts(DataLines(), b"event: x\n: c\n data: 0\ndatax: 0\nDATA: 0\nhello\ndata: 1\n") == ["1"]

    def test_the_last_line_may_lack_its_end(self) -> None:
        """A last line without its end is kept; the reader decides whether it is complete."""
        framing = DataLines()
        assert texts(framing, b"data: 1\ndata: [DONE]") == ["1"]
        assert [frame.data for frame in framing.finish()] == ["[DONE]"]

    def test_a_frame_has_no_name(self) -> None:
        """This framing has no event names."""
        assert frames(DataLines(), [b"event: error\ndata: 1\n"]) == [("message", "1")]


class TestJSONLines:
    """NDJSON: one document per line."""

    def test_empty_lines_are_skipped(self) -> None:
        """Lines of white space are skipped too."""
        assert texts(NDJSON(), b'\n{"a": 1}\r\n \n\n{"b": 2}\n') == ['{"a": 1}', '{"b": 2}']

    def test_the_last_line_may_lack_its_end(self) -> None:
        """A last line without its end is kept, as in the format's own readers."""
        framing = NDJSON()
        assert texts(framing, b'{"a": 1}\n{"b": 2}') == ['{"a": 1}']
        assert [frame.data for frame in framing.finish()] == ['{"b": 2}']


ERROR_TEXT = json.dumps(
    {
        "error": {
            "code": 503,
            "message": 'The "model" is {overloaded\\',
            "status": "UNAVAILABLE",
            "details": [{"a": "}"}],
        }
    },
    indent=2,
)
EVENT = 'data: {"choices": [{"delta": {"content": "Hi"}}]}'
WITH_BARE_JSON = {
    "at the end": (f"{EVENT}\r\n\r\n{ERROR_TEXT}\r\n", [EVENT[6:], ERROR_TEXT]),
    "without a line end": (f"{EVENT}\n\n{ERROR_TEXT}", [EVENT[6:], ERROR_TEXT]),
    "with a blank line behind it": (f"{EVENT}\n\n{ERROR_TEXT}\n\n", [EVENT[6:], ERROR_TEXT]),
    "with a blank line in it": (
        f"{EVENT}\n\n{ERROR_TEXT[:10]}\n\n{ERROR_TEXT[10:]}\n\n{EVENT}\n\n",
        [EVENT[6:], f"{ERROR_TEXT[:10]}\n\n{ERROR_TEXT[10:]}", EVENT[6:]],
    ),
    "between events": (f"{EVENT}\n\n{ERROR_TEXT}\n\n{EVENT}\n\n", [EVENT[6:], ERROR_TEXT, EVENT[6:]]),
    "right before an event": (f"{EVENT}\n\n{ERROR_TEXT}\n{EVENT}\n\n", [EVENT[6:], ERROR_TEXT, EVENT[6:]]),
    "right behind an event": (f"{EVENT}\n{ERROR_TEXT}\n", [EVENT[6:], ERROR_TEXT]),
    "in one line": (f'{EVENT}\n\n{{"error": {{}}}}\n\n', [EVENT[6:], '{"error": {}}']),
    "as a list": (f"{EVENT}\n\n[{ERROR_TEXT}\n]\n", [EVENT[6:], f"[{ERROR_TEXT}\n]"]),
    "behind a comment": (f": hi\n\n{EVENT}\n\n: hi\n{ERROR_TEXT}\n", [EVENT[6:], ERROR_TEXT]),
    "twice": (f"{ERROR_TEXT}\n{ERROR_TEXT}\n\n{ERROR_TEXT}", [ERROR_TEXT] * 3),
    "cut off": (f"{EVENT}\n\n{ERROR_TEXT[:40]}", [EVENT[6:], ERROR_TEXT[:40]]),
    "cut off by an event": (f"{ERROR_TEXT[:40]}\n{EVENT}\n\n", [ERROR_TEXT[:40], EVENT[6:]]),
    "cut off behind a blank line": (f"{ERROR_TEXT[:40]}\n\n", [ERROR_TEXT[:40]]),
}


def framed(stream: bytes, size: int, limit: int | None = None) -> list[str]:
    """The frames' data when the bytes come in pieces of that size."""
    framing = SSE() if limit is None else SSE(limit)
    frames = [frame for at in range(0, len(stream), size) for frame in framing.feed(stream[at : at + size])]
    return [frame.data.strip() for frame in [*frames, *framing.finish()]]


class TestBareJSON:
    """P9: JSON between the events, and errors in a field of their own."""

    @pytest.mark.parametrize("name", WITH_BARE_JSON)
    def test_p9_bare_json_is_a_frame_however_it_is_cut(self, name: str) -> None:
        """Byte by byte, whole, and in every size between."""
        text, expected = WITH_BARE_JSON[name]
        stream = text.encode()
        normal = [data.strip() for data in expected]
        for size in range(1, len(stream) + 1):
            assert framed(stream, size) == normal, size

    @given(
        stream=st.lists(
            st.sampled_from(
                [
                    *(b"data: 1\n\n", b"data: {}\r\n\r\n", b"event: e\n", b": c\n", b"data:", b"\n", b"\r", b"\n\n"),
                    *(b"{", b"[", b"}", b"]", b'"', b"\\", b'{"a": "}"}\n', b"[DONE]", b"error: ", b"error"),
                    *(b'data: {"a": 1}\n', b"data: [\n", b"data: ]\n", b"data: {} \n", b"data:\n", b"event: e\n"),
                    *("ü世\u2028".encode(), b"\xff", b"\xef\xbb\xbf"),
                ]
            ),
            max_size=20,
        ).map(b"".join),
        size=st.integers(1, 20),
    )
    def test_p1_the_cut_never_matters(self, stream: bytes, size: int) -> None:
        """Any split gives the same frames, even with bare JSON and missing blank lines."""
        cut, whole = (frames(SSE(), pieces(stream, [each]), finish=True) for each in (size, len(stream) or 1))
        assert cut == whole

    @pytest.mark.parametrize("blank", [b"", b"\n"])
    def test_it_is_bounded(self, blank: bytes) -> None:
        """The limit holds with and without blank lines between its parts."""
        with pytest.raises(ProtocolError, match="limit of 1000 bytes"):
            framed(b"{\n" + (b'"x": 1,\n' + blank) * 200, 50, 1000)

    def test_time_is_linear(self) -> None:
        """Only a bounded part of a very long document is read twice."""
        stream = b"{\n" + b'"x": [1],\n' * 60_000 + b'"y": 1}\n'
        assert len(framed(stream, 4096)) == 1


# Streams whose blank lines are missing, and their frames.
SEPARATE: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "all": ('data: {"a": 1}\ndata: {"b": 2}\ndata: [DONE]\n', [*numbered("ab"), ("message", "[DONE]")]),
    "without a last line end": ('data: {"a": 1}\ndata: {"b": 2}', numbered("ab")),
    "from the second on": ('data: {"a": 1}\n\ndata: {"b": 2}\ndata: {"c": 3}\ndata: {"d": 4}\n', numbered("abcd")),
    "only between two": ('data: {"a": 1}\n\ndata: {"b": 2}\ndata: {"c": 3}\n\ndata: {"d": 4}\n\n', numbered("abcd")),
    "named": ('event: x\ndata: {"a": 1}\nevent: y\ndata: {"b": 2}\n', [("x", '{"a": 1}'), ("y", '{"b": 2}')]),
    "names behind": ('data: {"a": 1}\nevent: x\n\ndata: {"b": 2}\n\n', [("x", '{"a": 1}'), ("message", '{"b": 2}')]),
    "a name alone at the end": ('data: {"a": 1}\nevent: error\n', numbered("a")),
    "CRLF": ('data: {"a": 1}\r\ndata: {"b": 2}\r\ndata: {"c": 3}\r\n', numbered("abc")),
    "CR": ('data: {"a": 1}\rdata: {"b": 2}\rdata: {"c": 3}\r', numbered("abc")),
    "comments": (': hi\ndata: {"a": 1}\n: ping\ndata: {"b": 2}\n: ping\n', numbered("ab")),
    "ids": ('id: 1\ndata: {"a": 1}\nid: 2\nretry: 5\ndata: {"b": 2}\n', numbered("ab")),
    "no space": ('data:{"a": 1}\ndata:{"b": 2}\n', numbered("ab")),
    "white space": ('data: {"a": 1} \ndata: {"b": 2}\t\ndata: {"c": 3}\n', numbered("abc", " ", "\t", "")),
    "empty data": (
        'data:\ndata: {"a": 1}\ndata:\ndata: {"b": 2}\n',
        [("message", '\n{"a": 1}\n'), ("message", '{"b": 2}')],
    ),
    "lists": ("data: [1]\ndata: [2]\n", [("message", "[1]"), ("message", "[2]")]),
    "over several lines": (
        'data: {\ndata: "a": {}\ndata: }\ndata: {\ndata: "b": [\ndata: ]}\n',
        [("message", '{\n"a": {}\n}'), ("message", '{\n"b": [\n]}')],
    ),
    "brackets in text": (
        'data: {"a": "}{"}\ndata: {"a": "\\"]"}\n',
        [("message", '{"a": "}{"}'), ("message", '{"a": "\\"]"}')],
    ),
    "words behind": ('data: {"a": 1}\ndata: oh\n\n', [("message", '{"a": 1}'), ("message", "oh")]),
    "an error in a field": (
        'data: {"a": 1}\nerror: {"code": 500}\ndata: {"b": 2}\n\n',
        [("message", '{"a": 1}'), ("error", '{"code": 500}'), ("message", '{"b": 2}')],
    ),
    "an error over several lines": (
        'error: {\n "code": 500\n}\n\ndata: {"b": 2}\n\n',
        [("error", '{\n "code": 500\n}'), ("message", '{"b": 2}')],
    ),
    "an error in words": ('data: {"a": 1}\n\nerror: it "broke', [("message", '{"a": 1}'), ("error", 'it "broke')]),
    "a named error": ('event: error\n{"message": "no"}\n', [("error", '{"message": "no"}')]),
}
# Events of several lines in the standard.
JOINED = {
    "indented": 'data: {\ndata:   "a": [\ndata:     {},\ndata:     {}\ndata:   ]\ndata: }\n\n',
    "a list": 'data: [\ndata: {"a": 1}\ndata: ,{"b": 2}\ndata: ]\n\n',
    "cut in two": 'data: {"a":\ndata: {"b": 1}}\n\n',
    "cut in a text": 'data: {"a": "x}\ndata: {y"}\n\n',
    "words": "event: error\ndata: it broke\ndata: here\n\n",
    "words in brackets": "event: error\ndata: [it broke]\ndata: {here}\n\n",
    "words before JSON": 'event: error\ndata: it broke\ndata: {"code": 1}\n\n',
    "a name in it": "data: {\nevent: x\ndata: }\n\n",
    "a name behind it": "data: {}\nevent: x\n\n",
    "an id behind it": "data: {}\nid: 5\n: c\n\n",
    "an error that is none": "data: {}\nerror:\nerror: null\nerrors: {}\n\n",
    "no fields": "data: 1\n [x\n[x\nx: {\n\n",
}


class TestMissingBlankLines:
    """P4: events without blank lines between them, distinguished from events of several lines."""

    @pytest.mark.parametrize("name", SEPARATE)
    def test_p4_each_event_counts_however_it_is_cut(self, name: str) -> None:
        """Byte by byte, whole, and in every size between."""
        text, expected = SEPARATE[name]
        stream = text.encode()
        for size in range(1, len(stream) + 1):
            assert frames(SSE(), pieces(stream, [size]), finish=True) == expected, size

    @pytest.mark.parametrize("name", JOINED)
    def test_p4_an_event_of_several_lines_stays_one(self, name: str) -> None:
        """Alone, among others, and after events that were not separated."""
        text = JOINED[name]
        event = by_the_standard(text.encode())
        assert len(event) == 1
        usual, separate = b'data: {"a": 1}\n\n', b'data: {"a": 1}\ndata: {"b": 2}\n'
        for before, others in ((b"", []), (usual, numbered("a")), (separate, numbered("ab"))):
            stream = before + text.encode() + usual
            if before is separate and name in ("a name behind it", "a name in it"):
                continue  # no event waits for its name any more
            for size in range(1, len(stream) + 1):
                assert frames(SSE(), pieces(stream, [size]), finish=True) == [*others, *event, *numbered("a")], size

    def test_p4_a_line_is_an_event_once_it_is_clear(self) -> None:
        """The first event waits for the second; those after it come with their line ends."""
        framing = SSE()
        assert texts(framing, b'data: {"a": 1}\n') == []
        assert texts(framing, b'data: {"b": 2}\n') == ['{"a": 1}', '{"b": 2}']
        for line in (b'data: {"c": 3}\n', b'event: x\ndata: {"d": 4}\r', b"data: [DONE]\r"):
            assert len(texts(framing, line)) == 1
        assert framing.finish() == []

    def test_the_usual_way_is_taken_again(self) -> None:
        """After an odd record, the rest goes to sseclient-py unchanged."""
        framing = SSE()
        assert len(texts(framing, b'{"error": 1}\ndata: 1\n\ndata: 2\n\ndata: {"a"')) == 3
        assert framing._missing is None
        assert texts(framing, b": 1}\n\n") == ['{"a": 1}']

    @pytest.mark.parametrize(
        "lines", ["data: {}x{}\n", "data: {\n", 'data: "\n', "data: [DONE] x]\n", "{\n", "error: {\n", '"]\n']
    )
    @pytest.mark.quick(2)
    def test_p2_time_is_linear(self, lines: str) -> None:
        """Possible beginnings of a document are read once."""

        def seconds(count: int) -> float:
            chunks = pieces(b"data: {}\n" + lines.encode() * count, [512])
            started = time.process_time()
            frames(SSE(), chunks, finish=True)
            return time.process_time() - started

        small, large = (min(seconds(count) for _ in range(3)) for count in (2_000, 16_000))
        assert large < 26 * small


class TestFinish:
    """The end of the bytes."""

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_nothing_is_left_after_whole_records(self, framing: type[Framing]) -> None:
        """Nothing is left after whole records."""
        clean = framing()
        clean.feed(b"data: 1\n\n")
        assert clean.finish() == []

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_a_stream_without_a_byte_has_no_frame(self, framing: type[Framing]) -> None:
        """A stream without a byte has no frame."""
        assert framing().finish() == []

    def test_a_last_event_without_its_blank_line_is_given(self) -> None:
        """A last event without its blank line is given, with one line end or none."""
        for rest in (b"data: 2", b"data: 2\n", b"data: 2\r", b"data: 2\r\n"):
            framing = SSE()
            assert texts(framing, b"data: 1\n\n", rest) == ["1"]
            assert [frame.data for frame in framing.finish()] == ["2"]

    def test_a_last_character_that_is_cut_is_repaired(self) -> None:
        """Half of a character at the end becomes U+FFFD, without an error."""
        framing = SSE()
        framing.feed("data: 世".encode()[:-1])
        assert [frame.data for frame in framing.finish()] == ["\ufffd"]


class TestLimits:
    """P2: the size of a record is limited."""

    def test_the_limit_is_64_mib(self) -> None:
        """The promised default."""
        assert EVENT_LIMIT == 64 * 1024 * 1024

    @pytest.mark.parametrize("framing", FRAMINGS)
    @pytest.mark.parametrize("size", [1, 7, 4096])
    def test_a_record_past_the_limit_is_refused(self, framing: type[Framing], size: int) -> None:
        """A line that never ends raises a typed error soon after the limit."""
        endless = framing(limit=1000)
        endless.feed(b"data: 1\n\n")
        for _ in range(1000 // size):
            endless.feed(b"x" * size)
        with pytest.raises(ProtocolError, match="limit of 1000 bytes"):
            endless.feed(b"x" * size)

    def test_an_event_of_endless_lines_is_refused(self) -> None:
        """Many short lines without a blank one are one event, and limited too."""
        with pytest.raises(ProtocolError):
            frames(SSE(limit=1000), [b"data: x\n"] * 200)

    def test_comments_alone_do_not_add_up(self) -> None:
        """Hours of keep-alives with their blank lines never reach the limit."""
        assert texts(SSE(limit=100), *[b": ping\n\n"] * 1000, b"data: 1\n\n") == ["1"]

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_many_records_do_not_add_up(self, framing: type[Framing]) -> None:
        """The limit is for one record, not for all of them together."""
        stream = b'data: {"a": 1}\n\n' * 200
        assert len(texts(framing(limit=100), *pieces(stream, [33]))) == 200

    def test_a_record_below_the_limit_passes(self) -> None:
        """A record below the limit passes."""
        assert texts(SSE(limit=1000), *pieces(b"data: " + b"x" * 950 + b"\n\n", [10])) == ["x" * 950]


class TestLinearTime:
    """P2: the work grows linearly with the bytes."""

    def test_a_long_event_in_small_reads_is_parsed_once(self) -> None:
        """Every byte is parsed only once, however many reads it takes."""
        seen: list[int] = []

        class Counting(SSE):
            def _frames(self, whole: bytes) -> list[object]:  # type: ignore[override]
                seen.append(len(whole))
                return list(super()._frames(whole))

        stream = b"data: " + b"x" * 200_000 + b"\n\n"
        assert [len(text) for text in texts(Counting(), *pieces(stream, [100]))] == [200_000]
        assert seen == [len(stream)]

    def test_an_event_eight_times_as_long_takes_about_eight_times_as_long(self) -> None:
        """With quadratic time, it would take sixty-four times as long."""

        def seconds(lines: int) -> float:
            chunks = pieces(b"data: abcdefghijklmnopqrstuvwxyz\n" * lines + b"\n", [512])
            started = time.process_time()
            assert len(frames(SSE(), chunks)) == 1
            return time.process_time() - started

        small, large = (min(seconds(lines) for _ in range(3)) for lines in (4_000, 32_000))
        assert large < 26 * small

    @pytest.mark.slow
    def test_an_event_of_fifty_megabytes_passes(self) -> None:
        """Fifty megabytes are below the limit."""
        text = b"x" * (50 * 1024 * 1024)
        framing = SSE()
        chunks = [b"data: ", *(text[i : i + 65536] for i in range(0, len(text), 65536)), b"\n\n"]
        (frame,) = [frame for chunk in chunks for frame in framing.feed(chunk)]
        assert len(frame.data) == len(text)


class TestAgreementWithSSEClient:
    """Events of very many lines are parsed here, with the same result as from sseclient-py."""

    @staticmethod
    def by_sseclient(stream: bytes) -> list[tuple[str, str]]:
        """The events from the library."""
        return [(event.event, event.data) for event in SSEClient([stream]).events()]

    @given(
        lines=st.lists(
            st.sampled_from(
                ["data: a", "data:b", "data:", "data", "data:  x", "event: e", "event:", "id: 1", ": c", "foo: 1", " "]
            ),
            min_size=1,
            max_size=6,
        ),
        repeated=st.sampled_from([1, 40, 70, 200]),
        before=st.booleans(),
    )
    def test_long_events_are_the_same(self, lines: list[str], repeated: int, before: bool) -> None:
        """Any fields, however often, alone or among ordinary events."""
        event = "\n".join(lines * repeated) + "\n\n"
        filler = "data: " + "x" * 150_000 + "\n\n"
        stream = ((filler if before else "") + event + filler).encode()
        assert frames(SSE(), [stream]) == self.by_sseclient(stream)

    def test_a_single_empty_data_line_among_comments_is_an_event(self) -> None:
        """An event of one empty line counts in a long record as in a short one."""
        stream = b": c\n" * 100 + b"data:\n\n" + b"data: " + b"x" * 150_000 + b"\n\n"
        assert frames(SSE(), [stream]) == self.by_sseclient(stream)

    def test_nothing_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """The library's logging of unknown fields, which may hold parts of a prompt, is switched off."""
        with caplog.at_level("DEBUG"):
            texts(SSE(), b"secret prompt: 1\ndata: x\n\n")
        assert caplog.records == []


def test_a_record_shows_its_data() -> None:
    """A record's repr shows its data in a debugger."""
    assert repr(Record("1", "error")) == "Record('1', 'error')"

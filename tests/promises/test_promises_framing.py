"""P1 to P5 over real sockets: any split gives the same pieces, memory is bounded, pieces are live, and text is text."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
import zlib

import pytest
from loopback import DONE, FINISH, chunk, event, head

from llmbridge import Client, ProtocolError, Reasoning, ServerError, Vitalentum
from llmbridge.testing import CLOSE, HOLD, LLMServer, Reply

BODY = (
    b"\xef\xbb\xbf: a comment\n"
    b"\n"
    b"id: 7\n"
    b"retry: 100\n"
    b"nonsense\n"
    b"unknown: field\n"
    + event("Hé")
    + b": bad byte \xff\xfe here\n\n"
    + event("✅\u2028\u0085")
    + event("😀")
    + FINISH
    + DONE
)
PIECES = ["Hé", "✅\u2028\u0085", "😀"]
# In the mixture, a lone LF never follows a CR: the two would be one line end.
ENDS = {"LF": (b"\n",), "CR": (b"\r",), "CRLF": (b"\r\n",), "mixed": (b"\r", b"\r\n", b"\n", b"\r\n")}


def with_line_ends(body: bytes, ends: tuple[bytes, ...]) -> bytes:
    """The body with each line ending in the next of `ends`."""
    lines = body.split(b"\n")
    return b"".join(line + ends[i % len(ends)] for i, line in enumerate(lines[:-1])) + lines[-1]


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, None])
def test_p01_pieces_do_not_depend_on_the_size_of_reads(
    server: LLMServer, client: Client, size: int | None, ends: str
) -> None:
    """With any line ends and any size of reads, the pieces are the same."""
    body = with_line_ends(BODY, ENDS[ends])
    server.script(Reply(body=body, split=size))
    assert list(client.chat("x")) == PIECES


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["LF", "CRLF", "CR"])
def test_p01_pieces_do_not_depend_on_where_the_body_is_cut(server: LLMServer, client: Client, ends: str) -> None:
    """Two reads, split at any byte, give the same pieces."""
    body = with_line_ends(b"\xef\xbb\xbf" + event("é✅") + b":c\n\n" + FINISH + DONE, ENDS[ends])
    opening = head(f"Content-Length: {len(body)}")
    for at in range(1, len(body)):
        server.script(Reply(raw=[opening + body[:at], 0.0005, body[at:]]))
        assert list(client.chat("x")) == ["é✅"], at


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("size", [1, 5, None])
def test_p01_lines_of_the_ancestors_may_end_in_any_way(server: LLMServer, size: int | None, ends: str) -> None:
    """The line framing accepts the same byte order mark and line ends."""
    server.script(Reply(body=with_line_ends(b"\xef\xbb\xbf" + event("é") + event("b") + DONE, ENDS[ends]), split=size))
    assert list(Vitalentum.create_completion("m", "x", base_url=server.root)) == ["é", "b"]


@pytest.mark.parametrize("kind", ["text/event-stream", "text/event-stream; charset=iso-8859-1", "text/plain", ""])
def test_p01_text_is_utf8_whatever_the_headers_say(server: LLMServer, client: Client, kind: str) -> None:
    """A missing or wrong charset does not change how the text is read."""
    server.script(Reply(body=BODY, content_type=kind))
    assert list(client.chat("x")) == PIECES


def test_p01_a_bad_byte_in_the_text_is_one_replacement_character(server: LLMServer, client: Client) -> None:
    """Invalid UTF-8 becomes U+FFFD in its place, and nothing else changes."""
    server.script(Reply(body=event("a?b").replace(b"?", b"\xff") + event("c") + FINISH + DONE))
    assert list(client.chat("x")) == ["a\ufffdb", "c"]


_MEASURED = """
import resource, sys, time
from llmbridge import Client, LLMBridgeError
client = Client("openai:m", base_url=sys.argv[1], api_key="sk-test-123456", retries=0, timeout=60)
list(client.chat("warm up"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.monotonic()
try:
    pieces = sum(1 for _ in client.chat("x"))
    what = f"{pieces} pieces"
except LLMBridgeError as error:
    what = type(error).__name__
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(what, grown // 1024 // (1024 if sys.platform == "darwin" else 1), time.monotonic() - started, sep="|")
client.close()
"""


def measured(server: LLMServer, reply: Reply) -> tuple[str, int, float]:
    """The outcome of the reply in a process of its own, with its growth in megabytes, and the seconds."""
    pytest.importorskip("resource")
    server.script(Reply("ok"), reply)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, server.base_url("openai")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    what, grown, seconds = done.stdout.strip().split("|")
    return what, int(grown), float(seconds)


def bomb(size: int, piece: bytes = b"a" * (1 << 20), end: bytes = b"") -> bytes:
    """A small gzip file of so many bytes: the same megabyte again and again."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    whole = [squeeze.compress(part) for part in (b"data: ", *[piece] * (size >> 20), end)]
    return b"".join([*whole, squeeze.flush()])


@pytest.mark.slow
def test_p02_a_gzip_bomb_is_a_typed_error(server: LLMServer) -> None:
    """A body of 300 kB that expands to 300 MB ends at the limit of an event."""
    body = bomb(300 << 20)
    assert len(body) < 400_000
    what, grown, _ = measured(server, Reply(body=body, headers={"Content-Encoding": "gzip"}))
    assert what == "ProtocolError"
    assert grown < 200


@pytest.mark.slow
def test_p02_what_swells_is_unpacked_bit_by_bit(server: LLMServer) -> None:
    """A body of 200 kB that expands to 200 MB of comments passes, without ever being in memory as a whole."""
    body = bomb(200 << 20, b"\n\n:" + b"a" * ((1 << 20) - 3), b"\n\n" + event("ok") + FINISH + DONE)
    what, grown, _ = measured(server, Reply(body=body, headers={"Content-Encoding": "gzip"}))
    assert what == "1 pieces"
    assert grown < 30


def test_p02_an_endless_line_is_a_typed_error(server: LLMServer) -> None:
    """A line of 400 MB is read only up to the limit of an event."""
    what, grown, _ = measured(server, Reply(raw=[head(), b"data: ", *[b"x" * (1 << 20)] * 400, CLOSE]))
    assert what == "ProtocolError"
    assert grown < 200


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_p02_of_an_error_body_no_more_than_the_limit_is_read(server: LLMServer, client: Client, coding: str) -> None:
    """An error page of 100 MB, or a bomb, soon gives an error with at most 64 KiB of it."""
    if coding == "gzip":
        reply = Reply(status=500, body=bomb(100 << 20), headers={"Content-Encoding": "gzip"})
    else:
        reply = Reply(raw=[head(status="500 Oh"), *[b"x" * (1 << 20)] * 100, CLOSE])
    server.script(reply)
    started = time.monotonic()
    with pytest.raises(ServerError) as caught:
        list(client.chat("x"))
    assert 0 < len(caught.value.body) <= 64 * 1024
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_p02_an_event_of_50_megabytes_passes(server: LLMServer, client: Client) -> None:
    """A very long piece of text arrives whole within seconds."""
    text = "0123456789" * 5_000_000
    server.script(Reply(body=event(text) + FINISH + DONE))
    started = time.monotonic()
    assert list(client.chat("x")) == [text]
    assert time.monotonic() - started < 100


def test_p02_an_event_of_very_many_lines_takes_linear_time(server: LLMServer, client: Client) -> None:
    """An event of 300,000 lines passes within seconds."""
    lines = json.dumps({"choices": [{"delta": {"content": "ok"}}], "x": [0] * 300_000}, indent=0).split("\n")
    body = b"".join(b"data: " + line.encode() + b"\n" for line in lines) + b"\n" + FINISH + DONE
    server.script(Reply(body=body))
    started = time.monotonic()
    assert list(client.chat("x")) == ["ok"]
    assert time.monotonic() - started < 60


def test_p02_white_space_in_front_takes_linear_time(server: LLMServer, client: Client) -> None:
    """Millions of empty lines, some servers' keep-alives, do not pile up before the first event."""
    server.script(Reply(raw=[head("Connection: close"), *[b"\n" * (1 << 20)] * 16, event("ok") + FINISH + DONE, CLOSE]))
    started = time.monotonic()
    assert list(client.chat("x")) == ["ok"]
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_p02_a_long_stream_does_not_grow_the_memory(server: LLMServer) -> None:
    """A stream of 30 MB of events needs no more memory than a short one, except for its text."""
    events = (event("x" * 200, pad="y" * 700)) * 1000
    what, grown, _ = measured(server, Reply(raw=[head(), *[events] * 30, FINISH + DONE, CLOSE]))
    assert what == "30000 pieces"
    assert grown < 24


def gzipped(data: bytes) -> bytes:
    """The data as the flushed beginning of a gzip file."""
    squeeze = zlib.compressobj(wbits=31)
    return squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("transfer", ["chunked", "length", "close", "http10"])
@pytest.mark.parametrize("ends", ["LF", "CRLF", "CR"])
def test_p03_a_piece_is_handed_on_while_the_server_holds_the_rest(
    server: LLMServer, client: Client, transfer: str, coding: str, ends: str
) -> None:
    """The first piece is there even if the server never sends anything after its event."""
    data = with_line_ends(event("first"), ENDS[ends])
    if coding == "gzip":
        data = gzipped(data)
    framing = {"chunked": ["Transfer-Encoding: chunked"], "length": ["Content-Length: 100000"]}.get(transfer, [])
    opening = head(*framing, f"Content-Encoding: {coding}")
    if transfer == "http10":
        opening = opening.replace(b"HTTP/1.1", b"HTTP/1.0")
    server.script(Reply(raw=[opening, chunk(data) if transfer == "chunked" else data, HOLD]))
    with client.chat("x") as stream:
        assert next(stream) == "first"
    assert server.requests[0].gone.wait(30)


def test_p03_an_event_is_handed_on_though_its_chunk_is_not_complete(server: LLMServer, client: Client) -> None:
    """The end of the event counts, not the end of its HTTP chunk."""
    server.script(Reply(raw=[head("Transfer-Encoding: chunked"), b"1000\r\n" + event("first"), HOLD]))
    with client.chat("x") as stream:
        assert next(stream) == "first"


@pytest.mark.parametrize("size", [262_143, 262_144, 262_145, 524_288, 700_001])
def test_p03_what_swells_past_one_buffer_is_handed_on_whole(server: LLMServer, client: Client, size: int) -> None:
    """A compressed event of any length is there as soon as the server has flushed it."""
    text = "x" * (size - len(event("")))
    server.script(Reply(raw=[head("Content-Encoding: gzip"), gzipped(event(text)), HOLD]))
    with client.chat("x") as stream:
        assert next(stream) == text


def test_p03_a_line_of_the_ancestors_is_handed_on_at_its_end(server: LLMServer) -> None:
    """The line framing does not wait for a blank line."""
    server.script(Reply(raw=[head(), event("first")[:-1], HOLD]))
    pieces = Vitalentum.create_completion("m", "x", base_url=server.root, timeout=20)
    started = time.monotonic()
    assert next(iter(pieces)) == "first"
    assert time.monotonic() - started < 5, "it came with the end of the call only"


@pytest.mark.parametrize("mark", [b"data: [DONE]\n", b"data:[DONE]\n", b"data: [DONE] and more\n", b"data: [DONE]"])
@pytest.mark.parametrize("space", [b" ", b""])
def test_p04_the_ancestors_framing_is_lines(server: LLMServer, mark: bytes, space: bytes) -> None:
    """Data lines count without blank lines between them, with and without the space, up to any form of the mark."""
    lines = b"".join(event(text)[:-1].replace(b"data: ", b"data:" + space) for text in ("При", "вет"))
    server.script(Reply(body=b"id: 1\n" + lines + b"event: x\n" + mark))
    assert list(Vitalentum.create_completion("m", "x", base_url=server.root)) == ["При", "вет"]


def test_p04_a_last_line_without_its_end_counts(server: LLMServer) -> None:
    """The original providers lost a last line without a line end; here it is kept."""
    server.script(Reply(body=event("a")[:-1] + event("b", finish_reason="stop")[:-2]))
    assert list(Vitalentum.create_completion("m", "x", base_url=server.root)) == ["a", "b"]


def test_p04_blank_lines_may_be_missing_in_event_streams_too(server: LLMServer, client: Client) -> None:
    """Servers that forget the blank lines work in OpenAI's dialect as well."""
    server.script(Reply(["a", "b"], lines=True))
    assert list(client.chat("x")) == ["a", "b"]


def delta(**fields: object) -> bytes:
    """An event whose delta has these fields."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": fields}]}).encode() + b"\n\n"


def test_p05_pieces_are_never_empty_and_only_the_answer_of_choice_0(server: LLMServer, client: Client) -> None:
    """Empty text, nulls, roles, reasoning and other choices are dropped; parts of a list and numbers are text."""
    body = (
        delta(role="assistant", content="")
        + delta(content=None)
        + delta(reasoning_content="hmm")
        + b'data: {"choices":[]}\n\n'
        + b'data: {"choices":[{"index":1,"delta":{"content":"other"}}]}\n\n'
        + delta(content=[{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "t"}, "b"])
        + delta(content=5)
        + delta(content="c")
    )
    server.script(Reply(body=body + FINISH + DONE))
    assert list(client.chat("x")) == ["a", "b", "5", "c"]


def test_p05_reasoning_is_no_text(server: LLMServer, client: Client) -> None:
    """Reasoning is an event of its own, and in no piece."""
    server.script(Reply("answer", reasoning=["let me ", "think"]))
    stream = client.chat("x")
    assert "".join(item.text for item in stream.events() if isinstance(item, Reasoning)) == "let me think"
    assert stream.text == "answer"


def test_p05_a_closing_chunk_that_repeats_the_message_gives_no_text_twice(server: LLMServer, client: Client) -> None:
    """Some servers put the whole message beside the last, empty delta."""
    last = {"index": 0, "finish_reason": "stop", "delta": {}, "message": {"role": "assistant", "content": "Hello"}}
    closing = b"data: " + json.dumps({"object": "chat.completion", "choices": [last]}).encode() + b"\n\n"
    server.script(Reply(body=delta(content="Hel") + delta(content="lo") + closing + DONE))
    stream = client.chat("x")
    assert list(stream) == ["Hel", "lo"]
    assert stream.finish_reason == "stop"


def test_p05_halves_of_a_pair_are_joined_and_lone_ones_replaced(server: LLMServer, client: Client) -> None:
    r"""A pair of surrogates split over two events is one character; a lone half is U+FFFD."""
    halves = [r"a\ud83d", r"\ude00b", r"\ude00", r"c\ud83d", "d", r"e\ud83d"]
    body = b"".join(b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % half.encode() for half in halves)
    server.script(Reply(body=body + FINISH + DONE))
    pieces = list(client.chat("x"))
    assert "".join(pieces) == "a😀b\ufffdc\ufffdde\ufffd"
    assert all(pieces)
    assert "".join(pieces).encode()


def test_p05_every_piece_can_be_encoded(server: LLMServer, client: Client) -> None:
    """Each single piece, not only their sum, is valid text."""
    body = b"".join(b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n' for _ in range(5))
    server.script(Reply(body=gzip.compress(body + FINISH + DONE), headers={"Content-Encoding": "gzip"}))
    pieces = list(client.chat("x"))
    assert all(piece.encode() and isinstance(piece, str) for piece in pieces)
    assert "".join(pieces) == "\ufffd" * 5


def test_p02_a_document_without_end_is_a_typed_error(server: LLMServer, client: Client) -> None:
    """A JSON document instead of a stream is limited too."""
    server.script(Reply(raw=[head(), b'{"x":"', *[b"x" * (1 << 20)] * 80, CLOSE]))
    with pytest.raises(ProtocolError):
        list(client.chat("x"))

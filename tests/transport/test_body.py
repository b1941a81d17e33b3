"""Bodies as they arrive: transfer coding and compression in any split, and every kind of end distinguished."""

from __future__ import annotations

import gzip
import http.client
import io
import random
import socket
import ssl
import zlib
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3 import HTTPResponse

from llmbridge._transport.body import READ_SIZE, Chunked, Inflated, SoftBody, WireBody
from llmbridge._transport.later import Later
from llmbridge.errors import ProtocolError, StreamTruncated

PAYLOADS = st.lists(st.binary(min_size=1, max_size=20), max_size=6)
CUTS = st.lists(st.integers(1, 6), min_size=1, max_size=60)
TEXT = "data: Grüße, 世界 🌍!\n\n".encode()


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """`data` in pieces of these sizes, the last one repeated."""
    pieces, size, sizes = [], 1, iter(sizes)
    while data:
        size = next(sizes, size)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def chunked(payloads: Iterable[bytes], end: bytes = b"0\r\n\r\n") -> bytes:
    """The payloads in chunked coding, a chunk each."""
    return b"".join(b"%x\r\n%s\r\n" % (len(payload), payload) for payload in payloads) + end


class Socket:
    """A response's file whose reads return these pieces, and then the end or an error."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.reads = 0

    def read1(self, size: int) -> bytes:
        """The next piece."""
        assert size >= READ_SIZE
        self.reads += 1
        return self.pieces.pop(0) if self.pieces else b""


class Response:
    """The part of an http.client response that WireBody uses."""

    def __init__(self, pieces: Iterable[bytes], chunked: bool = False, length: int | None = None) -> None:
        self.fp = Socket(pieces)
        self.chunked = chunked
        self.length = length


def wire(pieces: Iterable[bytes], chunked: bool = False, length: int | None = None) -> WireBody:
    """A body over a fake socket."""
    return WireBody(Response(pieces, chunked, length))  # type: ignore[arg-type]


def read_all(body: Any) -> bytes:
    """Everything up to the clean end. Decompressing may return None on a slow machine."""
    return b"".join(filter(None, iter(body.read, b"")))


def outcome(read: Callable[[], bytes]) -> bytes | type[Exception]:
    """The result, or the class of the error."""
    try:
        return read()
    except (StreamTruncated, ProtocolError) as error:
        return type(error)


class Pieces:
    """A body that is read piece by piece, below another body."""

    reusable = True

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]

    def read(self) -> bytes:
        """The next piece."""
        return self.pieces.pop(0) if self.pieces else b""


class TestChunked:
    """The chunked transfer coding."""

    @given(payloads=PAYLOADS, sizes=CUTS)
    def test_any_cut_gives_the_same_payload(self, payloads: list[bytes], sizes: list[int]) -> None:
        """P1: chunks may be split anywhere."""
        coding = Chunked()
        got = b"".join(coding.feed(piece) for piece in cut(chunked(payloads), sizes))
        assert (got, coding.done, coding.excess) == (b"".join(payloads), True, b"")

    def test_every_split_point_gives_the_same_payload(self) -> None:
        """Two reads, split anywhere."""
        body = chunked([b"Hello", b" ", b"x" * 300], b"0;a=b\r\nX-Trailer: 1\r\n\r\n")
        for position in range(len(body) + 1):
            coding = Chunked()
            got = coding.feed(body[:position]) + coding.feed(body[position:])
            assert (got, coding.done) == (b"Hello " + b"x" * 300, True), position

    def test_payload_comes_before_its_chunk_is_whole(self) -> None:
        """P3: an event in half of a chunk is not held back."""
        coding = Chunked()
        assert coding.feed(b"a\r\n012") == b"012"
        assert coding.feed(b"3456789") == b"3456789"
        assert coding.feed(b"\r\n0\r\n\r\n") == b""
        assert coding.done

    @pytest.mark.parametrize(
        "size", [b"5", b"05", b"0000000005", b"5;name=value", b'5;q="a b"', b"5 ", b" 5", b"5 ; x"]
    )
    def test_sizes_as_servers_write_them(self, size: bytes) -> None:
        """Leading zeros, extensions and white space."""
        coding = Chunked()
        assert coding.feed(size + b"\r\nHello\r\n0\r\n\r\n") == b"Hello"
        assert coding.done

    def test_sizes_are_hexadecimal_in_either_case(self) -> None:
        """A and a are ten."""
        assert Chunked().feed(b"A\r\n" + b"x" * 10 + b"\r\n" + b"a\r\n" + b"y" * 10 + b"\r\n") == b"x" * 10 + b"y" * 10

    @pytest.mark.parametrize(
        "size",
        [b"", b"-1", b"+5", b"0x5", b"5_0", b"g", b"5,5", b"\xff", "٥".encode(), b"5" * 17, b"HTTP/1.1 200 OK", b";x"],
    )
    def test_an_invalid_size_is_rejected(self, size: bytes) -> None:
        """Numbers that Python's int() accepts are rejected too."""
        with pytest.raises(ProtocolError, match="chunk size"):
            Chunked().feed(size + b"\r\nHello\r\n0\r\n\r\n")

    def test_a_chunk_longer_than_it_says_is_refused(self) -> None:
        """The bytes after it are not a line end."""
        with pytest.raises(ProtocolError, match="longer than it says"):
            Chunked().feed(b"3\r\nHello\r\n0\r\n\r\n")

    def test_an_endless_size_line_is_refused(self) -> None:
        """P2: also in small reads."""
        coding = Chunked()
        for _ in range(400):
            coding.feed(b"5" * 10)
        with pytest.raises(ProtocolError, match="never ends"):
            coding.feed(b"5" * 1000)

    def test_endless_trailers_are_refused(self) -> None:
        """P2: also lines that look valid one by one."""
        coding = Chunked()
        coding.feed(b"0\r\n" + b"X: y\r\n" * 10_000)
        with pytest.raises(ProtocolError, match="trailers that never end"):
            coding.feed(b"X: y\r\n" * 10_000)

    def test_a_chunk_without_its_line_end_is_refused_in_any_cut(self) -> None:
        """P1: a split does not hide the missing CR."""
        broken = b"3\r\nabcX\n0\r\n\r\n"
        for position in range(len(broken) + 1):
            coding = Chunked()
            with pytest.raises(ProtocolError):
                _ = coding.feed(broken[:position]) + coding.feed(broken[position:])

    @given(
        body=st.lists(st.sampled_from([b"3", b"0", b"\r\n", b"\n", b"\r", b"abc", b"X", b";", b"1"]), max_size=14),
        sizes=CUTS,
    )
    def test_any_cut_of_broken_coding_means_the_same(self, body: list[bytes], sizes: list[int]) -> None:
        """P1: small reads accept and reject the same bytes as one read."""

        def decoded(pieces: list[bytes]) -> Callable[[], bytes]:
            coding = Chunked()

            def decode() -> bytes:
                payload = b"".join([coding.feed(piece) for piece in pieces])
                if coding.failure is not None:
                    raise coding.failure
                return payload + (b" done" if coding.done else b"")

            return decode

        whole = b"".join(body)
        assert outcome(decoded(cut(whole, sizes))) == outcome(decoded([whole]))

    def test_trailers_are_read_over(self) -> None:
        """Trailers are not payload, and the body ends only after them."""
        coding = Chunked()
        assert coding.feed(b"1\r\nx\r\n0\r\nX-A: 1\r\nX-B") == b"x"
        assert not coding.done
        assert coding.feed(b": 2\r\n\r\n") == b""
        assert coding.done

    def test_what_comes_after_the_end_is_excess(self) -> None:
        """Excess bytes belong to no answer: the connection is not reused."""
        coding = Chunked()
        assert coding.feed(b"1\r\nx\r\n0\r\n\r\nHTTP/1.1 200 OK") == b"x"
        assert coding.excess == b"HTTP/1.1 200 OK"

    def test_many_chunks_in_one_read_come_together(self) -> None:
        """One read, one payload."""
        assert Chunked().feed(chunked([TEXT] * 500)) == TEXT * 500


class TestWireBody:
    """The body of a real connection, with its three kinds of end."""

    @given(payloads=PAYLOADS, sizes=CUTS)
    def test_a_chunked_body_in_any_cut(self, payloads: list[bytes], sizes: list[int]) -> None:
        """Read to its end, the connection can be reused."""
        body = wire(cut(chunked(payloads), sizes), chunked=True)
        assert not body.reusable
        assert read_all(body) == b"".join(payloads)
        assert body.reusable

    @given(payload=st.binary(max_size=60), sizes=CUTS)
    def test_a_body_of_known_length_in_any_cut(self, payload: bytes, sizes: list[int]) -> None:
        """Its last byte is its end; nothing more is read."""
        body = wire(cut(payload, sizes), length=len(payload))
        assert read_all(body) == payload
        assert body.read() == b""
        assert body.reusable

    @given(payload=st.binary(max_size=60), sizes=CUTS)
    def test_a_body_that_ends_with_its_connection(self, payload: bytes, sizes: list[int]) -> None:
        """Everything is read, and the connection is over."""
        body = wire(cut(payload, sizes))
        assert read_all(body) == payload
        assert not body.reusable

    def test_every_cut_of_a_chunked_body_is_an_error(self) -> None:
        """P6: the data that arrived comes first, then the error, for a cut anywhere before the last chunk."""
        whole = chunked([b"Hello", b" world"])
        for position in range(len(whole) - 2):
            body = wire([whole[:position]], chunked=True)
            got: list[bytes] = []
            with pytest.raises(StreamTruncated):
                got.extend(iter(body.read, b""))
            assert b"Hello world".startswith(b"".join(got))
            assert not body.reusable

    def test_a_cut_behind_the_last_chunk_loses_nothing(self) -> None:
        """Only trailers are missing: the payload is whole, but the connection is over."""
        for end in (b"0\r\n", b"0\r\n\r", b"0\r\nX-Trailer: 1\r\n"):
            body = wire([chunked([b"Hello"], end)], chunked=True)
            assert read_all(body) == b"Hello"
            assert not body.reusable

    def test_all_that_arrived_before_a_cut_is_given(self) -> None:
        """Half of a chunk is text too."""
        body = wire([b"5\r\nHello\r\n6\r\n wo"], chunked=True)
        assert body.read() == b"Hello wo"
        with pytest.raises(StreamTruncated):
            body.read()

    @pytest.mark.parametrize("length", [1, 5, 10_000])
    def test_a_short_body_is_an_error(self, length: int) -> None:
        """P6: fewer bytes than Content-Length promised."""
        payload = b"x" * (length - 1)
        body = wire([payload], length=length)
        if payload:
            assert body.read() == payload
        with pytest.raises(StreamTruncated):
            body.read()

    def test_bytes_behind_the_length_are_not_given(self) -> None:
        """The connection is not reused."""
        body = wire([b"Hello, and more"], length=5)
        assert read_all(body) == b"Hello"
        assert not body.reusable

    def test_bytes_behind_the_last_chunk_end_the_connection(self) -> None:
        """The same for the chunked coding."""
        body = wire([chunked([b"x"]) + b"HTTP/1.1 200 OK\r\n"], chunked=True)
        assert read_all(body) == b"x"
        assert not body.reusable

    def test_an_empty_body_is_not_read_for(self) -> None:
        """With Content-Length: 0, the socket is not read."""
        response = Response([b"never"], length=0)
        body = WireBody(response)  # type: ignore[arg-type]
        assert body.read() == b""
        assert response.fp.reads == 0

    def test_a_connection_serves_again_after_an_empty_body(self) -> None:
        """Nothing was left on it."""
        body = wire([], length=0)
        assert body.read() == b""
        assert body.reusable

    def test_one_read_is_one_read_of_the_socket(self) -> None:
        """P3: data that has come is returned without waiting for more."""
        response = Response([b"5\r\nHel", b"lo\r\n"], chunked=True)
        body = WireBody(response)  # type: ignore[arg-type]
        assert body.read() == b"Hel"
        assert response.fp.reads == 1

    def test_coding_alone_is_read_over(self) -> None:
        """An empty payload is never returned: it would mean the end."""
        body = wire([b"5", b"\r", b"\n", b"Hello", b"\r\n", b"0\r\n\r\n"], chunked=True)
        assert [body.read(), body.read()] == [b"Hello", b""]

    def test_the_end_is_the_end(self) -> None:
        """Another read returns the end again, without using the socket."""
        response = Response([chunked([b"x"])], chunked=True)
        body = WireBody(response)  # type: ignore[arg-type]
        assert [body.read(), body.read(), body.read()] == [b"x", b"", b""]
        assert response.fp.reads == 1


class Eager(io.RawIOBase):
    """A socket on which everything has arrived: a read fills its buffer.

    Args:
        sent: What has arrived.
        size: Of the buffer that the response gets.
    """

    def __init__(self, sent: bytes, size: int) -> None:
        self._sent = io.BytesIO(sent)
        self._size = size
        self.recv = self._sent.read
        self.readinto = self._sent.readinto  # type: ignore[method-assign,assignment]

    def readable(self) -> bool:
        """As a socket's file."""
        return True

    def settimeout(self, seconds: float | None) -> None:
        """It never blocks."""

    def gettimeout(self) -> float | None:
        """As a socket that blocks."""
        return None

    def makefile(self, mode: str) -> io.BufferedReader:
        """The file that the headers are read from."""
        assert mode == "rb"
        return io.BufferedReader(self, self._size)


class TestSoftBody:
    """Bodies without a connection."""

    @pytest.mark.parametrize("raw", [io.BytesIO, lambda data: HTTPResponse(io.BytesIO(data), preload_content=False)])
    def test_p25_a_length_that_was_not_fulfilled_is_an_error_whoever_counts(self, raw: Callable[[bytes], Any]) -> None:
        """Plain files and urllib3's responses: a missing rest is an error, a complete body ends well."""
        for length in (None, 5, 4, 6):
            file = raw(b"Hello")
            body = SoftBody(file, lambda file=file: file.stream(1), length)
            if length != 6:
                assert (read_all(body), body.reusable) == (b"Hello", True)
        got: list[bytes] = []
        with pytest.raises(StreamTruncated):
            got.extend(iter(body.read, b""))
        assert b"".join(got) == b"Hello"
        assert not body.reusable


class TestOverASocket:
    """Bytes that came with the headers are kept, and missing ones are not waited for."""

    @staticmethod
    def opened(sent: bytes) -> tuple[socket.socket, socket.socket, http.client.HTTPResponse]:
        """Both ends of a connection on which this was sent, and the response with its headers read."""
        ours, theirs = socket.socketpair()
        theirs.sendall(sent)
        response = http.client.HTTPResponse(ours, method="POST")
        response.begin()
        return ours, theirs, response

    @pytest.mark.parametrize("coding", [b"Transfer-Encoding: chunked", b"Content-Length: 10", b"Connection: close"])
    def test_a_body_that_came_with_its_headers_is_whole(self, coding: bytes) -> None:
        """The body came with the headers, whole or in part."""
        payload = chunked([b"HelloWorld"]) if b"chunked" in coding else b"HelloWorld"
        for behind in range(len(payload) + 1):
            ours, theirs, response = self.opened(b"HTTP/1.1 200 OK\r\n" + coding + b"\r\n\r\n" + payload[:behind])
            with ours, theirs, response:
                body = WireBody(response, ours)
                theirs.sendall(payload[behind:])
                theirs.shutdown(socket.SHUT_WR)
                assert read_all(body) == b"HelloWorld", behind

    @pytest.mark.parametrize("size", [1, 8 * 1024, 64 * 1024, 128 * 1024, 1024 * 1024])
    @pytest.mark.parametrize("coding", [b"Transfer-Encoding: chunked", b"Content-Length: 240000", b"Connection: close"])
    def test_p25_a_buffer_of_any_size_is_emptied(self, coding: bytes, size: int) -> None:
        """The interpreter reads ahead 8 KiB, or 128 KiB since Python 3.14: nothing is lost."""
        text = b"".join(b"%09d\n" % number for number in range(24_000))
        payload = chunked(cut(text, [50])) if b"chunked" in coding else text
        sock: Any = Eager(b"HTTP/1.1 200 OK\r\n" + coding + b"\r\n\r\n" + payload, size)
        with http.client.HTTPResponse(sock, method="POST") as response:
            response.begin()
            body = WireBody(response, sock)
            assert read_all(body) == text
            assert body.reusable == (b"close" not in coding)

    def test_what_waits_behind_an_empty_body_ends_the_connection(self) -> None:
        """It would be taken for the beginning of the next answer, or be missing there."""
        sock: Any = Eager(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", 8192)
        with http.client.HTTPResponse(sock, method="POST") as response:
            response.begin()
            body = WireBody(response, sock)
            assert (body.read(), body.reusable) == (b"", False)

    def test_a_socket_that_does_not_block_says_so(self) -> None:
        """An empty socket is neither the end nor an error of the answer."""
        ours, theirs, response = self.opened(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        with ours, theirs, response:
            body = WireBody(response, ours)
            ours.setblocking(False)
            with pytest.raises(BlockingIOError):
                body.read()
            theirs.sendall(b"Hello")
            assert body.read() == b"Hello"


def test_headers_are_waited_for_where_a_socket_is_only_like_one() -> None:
    """pyOpenSSL's has no `gettimeout`."""
    ours, theirs = socket.socketpair()

    class Wrapped:
        settimeout, makefile, fileno = ours.settimeout, ours.makefile, ours.fileno

    connection = SimpleNamespace(sock=Wrapped(), response_class=http.client.HTTPResponse, _method="POST")
    with ours, theirs:
        later = Later(connection, SimpleNamespace())  # type: ignore[arg-type]
        assert not later.arrived()
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert later.arrived()
        later._http.close()


def deflated(data: bytes, bits: int = zlib.MAX_WBITS) -> bytes:
    """`data` in zlib's format, or bare with negative bits."""
    coding = zlib.compressobj(wbits=bits)
    return coding.compress(data) + coding.flush()


class TestInflated:
    """Decompression as the data arrives."""

    CODINGS = (
        ("gzip", gzip.compress),
        ("deflate", deflated),
        ("deflate", lambda data: deflated(data, -zlib.MAX_WBITS)),
    )

    @pytest.mark.parametrize(("name", "compress"), CODINGS)
    @given(payload=st.binary(max_size=300), sizes=CUTS)
    @settings(max_examples=100)
    def test_any_cut_gives_the_same(
        self, name: str, compress: Callable[[bytes], bytes], payload: bytes, sizes: list[int]
    ) -> None:
        """P1: gzip, zlib's format, and the raw one that some servers call deflate."""
        assert read_all(Inflated(Pieces(cut(compress(payload), sizes)), name)) == payload

    def test_what_was_flushed_is_given_at_once(self) -> None:
        """P3: an event does not wait for the next one."""
        coding = zlib.compressobj(wbits=31)
        pieces = [coding.compress(TEXT) + coding.flush(zlib.Z_SYNC_FLUSH) for _ in range(3)]
        body = Inflated(Pieces(pieces), "gzip")
        assert [body.read() for _ in range(3)] == [TEXT] * 3

    @pytest.mark.parametrize("name", ["gzip", "deflate"])
    def test_every_cut_is_an_error(self, name: str) -> None:
        """P6: text that arrived comes first, then the error."""
        whole = gzip.compress(TEXT * 3) if name == "gzip" else deflated(TEXT * 3)
        for position in range(1, len(whole)):
            body = Inflated(Pieces([whole[:position]]), name)
            got: list[bytes] = []
            with pytest.raises(StreamTruncated):
                got.extend(iter(body.read, b""))
            assert (TEXT * 3).startswith(b"".join(got))

    def test_several_members_are_one_body(self) -> None:
        """Some gateways compress each event separately."""
        members = [gzip.compress(TEXT) for _ in range(5)]
        for pieces in ([b"".join(members)], members, cut(b"".join(members), [7])):
            assert read_all(Inflated(Pieces(pieces), "gzip")) == TEXT * 5

    def test_a_cut_in_a_later_member_is_an_error(self) -> None:
        """A whole first member does not make the body whole."""
        body = Inflated(Pieces([gzip.compress(TEXT) + gzip.compress(TEXT)[:-9]]), "gzip")
        with pytest.raises(StreamTruncated):
            read_all(body)

    def test_padding_behind_the_last_member_is_ignored(self) -> None:
        """gzip's own tool ignores it too."""
        assert read_all(Inflated(Pieces([gzip.compress(TEXT) + b"\x00" * 500]), "gzip")) == TEXT

    @pytest.mark.parametrize("name", ["gzip", "deflate"])
    def test_what_is_not_compressed_is_refused(self, name: str) -> None:
        """A typed error, not one of zlib's."""
        with pytest.raises(ProtocolError, match="compression"):
            read_all(Inflated(Pieces([b"data: \xff\xff plain text, as a proxy sends it\n\n"]), name))

    def test_a_broken_checksum_is_refused(self) -> None:
        """The bytes differ from those that were sent."""
        broken = bytearray(gzip.compress(TEXT))
        broken[-6] ^= 0xFF
        with pytest.raises(ProtocolError, match="compression"):
            read_all(Inflated(Pieces([bytes(broken)]), "gzip"))

    @pytest.mark.parametrize("sizes", [[1000], [7], [1]])
    def test_text_before_a_broken_place_is_returned(self, sizes: list[int]) -> None:
        """Nothing is lost, even if the text and the broken bytes come in one read."""
        coding = zlib.compressobj(wbits=31)
        good = coding.compress(TEXT) + coding.flush(zlib.Z_SYNC_FLUSH)
        got: list[bytes] = []
        body = Inflated(Pieces(cut(good + b"\xff" * 40, sizes)), "gzip")
        with pytest.raises(ProtocolError, match="compression"):
            got.extend(iter(body.read, b""))
        assert b"".join(got) == TEXT

    @given(noise=st.binary(min_size=1, max_size=80), sizes=CUTS)
    def test_no_bytes_make_another_error(self, noise: bytes, sizes: list[int]) -> None:
        """P10: noise is rejected, truncated, or decoded."""
        for name in ("gzip", "deflate"):
            for data in (noise, b"\x1f\x8b\x08" + noise):
                outcome(lambda data=data, name=name: read_all(Inflated(Pieces(cut(data, sizes)), name)))

    def test_an_empty_body_is_empty(self) -> None:
        """An empty body is valid."""
        assert Inflated(Pieces([]), "gzip").read() == b""

    def test_a_bomb_comes_in_bounded_amounts(self) -> None:
        """P2: fifty kilobytes that expand to fifty megabytes are returned in parts."""
        bomb = gzip.compress(bytes(50 * 1024 * 1024), 9)
        assert len(bomb) < 100_000
        body = Inflated(Pieces([bomb]), "gzip")
        sizes = [len(data) for data in iter(body.read, b"")]
        assert sum(sizes) == 50 * 1024 * 1024
        assert max(sizes) <= 1024 * 1024

    def test_a_large_body_comes_whole(self) -> None:
        """More than one bounded amount, and nothing lost between them."""
        payload = random.Random(7).randbytes(1_500_000) + b"\n" * 1_500_000
        assert read_all(Inflated(Pieces(cut(gzip.compress(payload, 1), [READ_SIZE])), "gzip")) == payload

    def test_the_connection_serves_again_if_the_coded_body_was_read(self) -> None:
        """The inner body decides."""
        body = Inflated(wire([chunked([gzip.compress(TEXT)])], chunked=True), "gzip")
        assert read_all(body) == TEXT
        assert body.reusable


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), ssl.SSLEOFError(), ssl.SSLError("UNEXPECTED_EOF_WHILE_READING")]
)
def test_a_connection_that_ends_behind_the_headers_ends_no_answer_that_is_whole(error: OSError) -> None:
    """A service that rejects a request may close the connection at once; it is not kept."""

    def read1() -> bytes:
        raise error

    def answer(length: int) -> Any:
        return SimpleNamespace(fp=SimpleNamespace(read1=read1), chunked=False, length=length)

    with socket.socket() as sock:
        whole, cut = WireBody(answer(0), sock), WireBody(answer(3), sock)
    assert whole.read() == b""
    assert not whole.reusable
    with pytest.raises(type(error)):
        cut.read()

"""`llmbridge.testing.faults`: faults and proxies do on the wire what they say, seen through raw sockets."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from llmbridge import errors
from llmbridge.testing import LLMServer, Reply
from llmbridge.testing.faults import (
    FAULTS,
    SELF_SIGNED_CERTIFICATE,
    Fault,
    HTTPProxy,
    Listener,
    SocksProxy,
    self_signed_context,
)
from llmbridge.testing.faults.wire import BEGUN, BEGUN_EVENTS, WHOLE_EVENTS, chunk, event, gzip_bomb

ROOT = Path(__file__).resolve().parents[2]
SOON = 10.0
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}).encode()
KEY = "sk-canary-0123456789abcdef"
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
    % (KEY.encode(), len(BODY), BODY)
)


def connected(port: int) -> socket.socket:
    """A socket to a port of this computer, with a bounded wait."""
    return socket.create_connection(("127.0.0.1", port), timeout=SOON)


def port_in(url: str) -> int:
    """The port in a URL."""
    return int(url.split(":")[2].partition("/")[0])


def heard(port: int, enough: int = 1 << 40, request: bytes = REQUEST) -> tuple[bytes, str]:
    """What a server sends, up to `enough` bytes, and how it ended: `closed`, `reset`, or `enough`."""
    got = bytearray()
    with connected(port) as sock:
        sock.sendall(request)
        while len(got) < enough:
            try:
                data = sock.recv(65536)
            except ConnectionResetError:
                return bytes(got), "reset"
            if not data:
                return bytes(got), "closed"
            got += data
    return bytes(got), "enough"


def played(name: str, enough: int = 1 << 40) -> tuple[bytes, str]:
    """What the server of a fault sends."""
    with FAULTS[name].serve() as base_url:
        return heard(port_in(base_url), enough)


def body_of(name: str) -> bytes:
    """The body of a fault's answer that ends by closing."""
    got, end = played(name)
    assert end == "closed"
    return got.partition(b"\r\n\r\n")[2]


# -- the catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS.values(), ids=str)
def test_a_fault_describes_itself(fault: Fault) -> None:
    """Name, summary, promise, error class and text have the documented forms."""
    assert FAULTS[fault.name] is fault
    assert str(fault) == fault.name
    assert re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)*", fault.name)
    assert re.fullmatch(r"[A-Z][^\n]{10,110}\.", fault.summary)
    assert re.fullmatch(r"P([1-9]|1\d|2[0-4])", fault.promise)
    assert fault.expected == ("error" if fault.error else "text")
    assert fault.hangs == (fault.error == "ClockExpired")
    if fault.error:
        assert issubclass(getattr(errors, fault.error), errors.LLMBridgeError)
        assert fault.text in ("", BEGUN)
    else:
        assert fault.text.startswith(BEGUN)
    assert fault.scripted or fault.served


def test_the_catalogue_cannot_be_changed() -> None:
    """All tests of a process share it."""
    with pytest.raises(TypeError):
        FAULTS["mine"] = FAULTS["html"]  # type: ignore[index]


def test_a_fault_below_http_is_not_a_reply() -> None:
    """A fault that no LLMServer can play says so, and what to use."""
    with pytest.raises(ValueError, match=r"refused .* use serve\(\)"):
        FAULTS["refused"].reply()


def test_a_fault_between_good_answers(server: LLMServer) -> None:
    """A fault can be scripted like any answer, repeatedly."""
    server.script(FAULTS["html"].reply(), Reply("Hello"), FAULTS["html"].reply())
    port = port_in(server.root + "/")
    got = [heard(port, request=REQUEST.replace(b"Host", b"Connection: close\r\nHost"))[0] for _ in range(3)]
    assert [b"<!doctype html>" in one for one in got] == [True, False, True]
    assert b'"Hello"' in got[1]


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS.values() if fault.heavy])
def test_a_heavy_fault_is_not_held(name: str) -> None:
    """Large data is a few blocks, sent repeatedly."""
    reply = FAULTS[name].reply()
    assert isinstance(reply, Reply)
    distinct = {id(step): step for step in reply.raw_steps}
    assert sum(len(step) for step in distinct.values() if isinstance(step, bytes)) < 3 << 20


def test_the_table_shows_every_fault() -> None:
    """`python -m llmbridge.testing.faults` prints a line for each."""
    command = [sys.executable, "-m", "llmbridge.testing.faults"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first.split() == ["fault", "ends", "in", "promise", "what", "happens"]
    assert [line.split()[0] for line in lines] == list(FAULTS)
    assert all(fault.summary in line for line, fault in zip(lines, FAULTS.values(), strict=True))


# -- on the wire ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tail", "end"),
    [
        ("no-last-chunk", chunk(BEGUN_EVENTS), "closed"),
        ("cut-in-chunk", b'\r\n3b\r\ndata: {"choices"', "closed"),
        ("cut-in-chunk-size", b"\r\n2", "closed"),
        ("short-content-length", BEGUN_EVENTS, "closed"),
        ("close-before-end-mark", BEGUN_EVENTS, "closed"),
        ("clean-end-without-mark", chunk(BEGUN_EVENTS) + b"0\r\n\r\n", "closed"),
        ("cut-in-event", b'"delta":{"c', "closed"),
        ("cut-in-character", b'"content":"\xe2', "closed"),
        ("eof-in-headers", b"\r\nContent-Type: text/event-st", "closed"),
        ("eof-in-status-line", b"HTTP/1.1 20", "closed"),
        ("close-before-headers", b"", "closed"),
        ("reset-before-headers", b"", "reset"),
        ("reset-in-headers", b"\r\nContent-Type: text/event-st", "reset"),
        ("reset-in-mid-stream", BEGUN_EVENTS, "reset"),
        ("end-mark-without-last-chunk", chunk(WHOLE_EVENTS), "closed"),
        ("no-blank-line-at-the-end", b"\n\ndata: [DONE]", "closed"),
        ("empty-200", b"\r\n\r\n", "closed"),
        ("broken-gzip", b"\r\n\r\n" + WHOLE_EVENTS, "closed"),
        ("no-tls", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "enough"),
    ],
)
def test_what_is_sent_last(name: str, tail: bytes, end: str) -> None:
    """Cuts come in the right place, as a close or a reset."""
    got, ended = played(name, enough=1 << 40 if end != "enough" else len(tail))
    assert got.endswith(tail)
    assert (got == b"") == (tail == b"")
    assert ended == end


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("html", b"<!doctype html>"),
        ("html-labelled-stream", b"<!doctype html>"),
        ("json-error-200", b'{"error":'),
        ("no-events", b": welcome\n\n: welcome\n\n"),
        ("image", b"\x89PNG\r\n"),
        ("stream-as-plain-text", WHOLE_EVENTS),
        ("stream-as-json", WHOLE_EVENTS),
        ("stream-without-type", WHOLE_EVENTS),
        ("stream-as-latin-1", WHOLE_EVENTS),
        ("http-1.0", WHOLE_EVENTS),
        ("error-in-stream", BEGUN_EVENTS + b'data: {"error":'),
        ("error-event", BEGUN_EVENTS + b"event: error\ndata: out of memory\n\n"),
        ("broken-json-event", BEGUN_EVENTS + b'data: {"choices":[{"index":0,"delta":{"c\n\n'),
        ("nul-bytes-between-events", BEGUN_EVENTS + b"\0\0\0\0\n\n"),
        ("data-after-end-mark", WHOLE_EVENTS + b"data: {"),
        ("deep-nesting", BEGUN_EVENTS + b"data: " + b"[" * 100_000 + b"]"),
    ],
)
def test_what_a_body_begins_with(name: str, start: bytes) -> None:
    """The wrong contents are as named."""
    assert body_of(name).startswith(start)


@pytest.mark.parametrize(("name", "byte"), [("nul-bytes", b"w\0\0rld"), ("bad-utf-8", b"w\xffrld")])
def test_odd_bytes_are_in_the_text(name: str, byte: bytes) -> None:
    """They are raw, not JSON escapes."""
    assert b'"w' + byte[1:2] in body_of(name)


@pytest.mark.parametrize(
    ("name", "first", "then"),
    [
        ("slow-headers", b"HTTP/1.1 200 OK\r\n", b"X-Slow-0: y\r\nX-Slow-1: y\r\n"),
        ("drip-headers", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"yyy"),
        ("drip", b'"delta":{"content":"', b"aaa"),
        ("comments-for-ever", BEGUN_EVENTS, b": keep-alive\n\n" * 3),
        ("pings-for-ever", BEGUN_EVENTS, b'event: ping\ndata: {"type":"ping"}\n\n' * 3),
        ("1xx-for-ever", b"", b"HTTP/1.1 102 Processing\r\nX-Wait: y\r\n\r\n" * 3),
        ("error-body-drips", b"HTTP/1.1 500 Oh no\r\nContent-Type: text/plain\r\n\r\n", b"xxx"),
        ("headers-for-ever", b"HTTP/1.1 200 OK\r\n", b"X-Flood-0000: " + b"y" * 50 + b"\r\nX-Flood-0001: "),
    ],
)
def test_what_comes_without_end(name: str, first: bytes, then: bytes) -> None:
    """It continues as it began, and the reply holds only a few blocks of it."""
    with FAULTS[name].serve() as base_url, connected(port_in(base_url)) as sock:
        sock.sendall(REQUEST)
        got = b""
        while first + then not in got:
            data = sock.recv(4096)
            assert data, got
            got += data


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("silence", b""),
        ("never-reads", b""),
        ("stall-before-first-byte", b"\r\n\r\n"),
        ("stall-in-mid-stream", BEGUN_EVENTS),
        ("open-after-end-mark", chunk(WHOLE_EVENTS)),
        ("two-responses", chunk(event("a stranger's answer")) + b"0\r\n\r\n"),
    ],
)
def test_what_falls_silent(name: str, sent: bytes) -> None:
    """After that the connection stays open, and nothing more comes."""
    with FAULTS[name].serve() as base_url, connected(port_in(base_url)) as sock:
        sock.sendall(REQUEST)
        got = b""
        while not (got.endswith(sent) and (got or not sent)):
            got += sock.recv(65536)
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_a_server_that_never_reads_takes_no_long_request() -> None:
    """The system's buffers fill up, then sending blocks."""
    with FAULTS["never-reads"].serve() as base_url, connected(port_in(base_url)) as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(50_000_000))


def test_an_early_response_comes_before_the_body() -> None:
    """The answer comes although the request's body was never sent."""
    with FAULTS["early-response"].serve() as base_url:
        start = REQUEST.partition(b"\r\n\r\n")[0].replace(b"Content-Length: ", b"Content-Length: 99") + b"\r\n\r\n"
        got, end = heard(port_in(base_url), request=start)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["message"] == "the request is too large"
    assert end == "closed"


def test_connections_to_the_port_are_refused() -> None:
    """The fault owns the port, which refuses connections."""
    with FAULTS["refused"].serve() as base_url, pytest.raises(ConnectionRefusedError):
        connected(port_in(base_url))


def test_a_redirect_leads_to_another_server() -> None:
    """307 to a server that would answer; as a reply, to one that does not exist."""
    with FAULTS["redirect"].serve() as base_url:
        got, _ = heard(port_in(base_url), enough=50)
        target = re.search(rb"Location: (http://\S+)\r\n", got)
        assert got.startswith(b"HTTP/1.1 307 ")
        assert target is not None
        assert port_in(target[1].decode()) != port_in(base_url)
        assert b"You followed me" in heard(port_in(target[1].decode()), enough=600)[0].replace(b'"},"', b"")
    reply = FAULTS["redirect"].reply()
    assert isinstance(reply, Reply)
    assert ".invalid/" in dict(reply.header_pairs)["Location"]


@pytest.mark.parametrize("name", ["key-echoed-in-body", "key-echoed-in-headers", "key-echoed-in-stream"])
def test_a_key_comes_back(name: str) -> None:
    """The server repeats the key of any header."""
    for sent in (REQUEST, REQUEST.replace(b"Authorization: Bearer ", b"x-api-key: ")):
        with FAULTS[name].serve() as base_url:
            got, _ = heard(port_in(base_url), request=sent.replace(b"Host", b"Connection: close\r\nHost"))
        assert got.count(KEY.encode()) >= 2


def test_a_wait_of_a_day_and_no_content() -> None:
    """Both are ordinary answers."""
    assert b"\r\nRetry-After: 86400\r\n" in played("wait-a-day", enough=200)[0]
    assert played("status-204")[0].startswith(b"HTTP/1.1 204 No Content\r\n")
    assert played("not-http") == (b"SSH-2.0-OpenSSH_9.2\r\n", "closed")
    assert b"\r\nContent-Encoding: x-unknown\r\n" in played("unknown-compression")[0]


@pytest.mark.parametrize(("name", "line"), [("chunk-longer-than-it-says", b"5\r\n"), ("no-chunk-size", b"five\r\n")])
def test_wrong_chunk_sizes(name: str, line: bytes) -> None:
    """A good chunk comes first."""
    assert chunk(BEGUN_EVENTS) + line + b"data: {" in played(name)[0]


def test_what_is_large_has_the_size_that_it_says() -> None:
    """A line of 400 MB, a header of 10 MB, an error body of 250 MB: counted, not held in memory."""
    for name, size in (("giant-line", 400 << 20), ("header-line-10mb", 10 << 20), ("error-body-250mb", 250 << 20)):
        with FAULTS[name].serve() as base_url, connected(port_in(base_url)) as sock:
            sock.sendall(REQUEST)
            buffer, got = bytearray(1 << 20), 0
            while count := sock.recv_into(buffer):
                got += count
            assert size < got < size + 1000


@pytest.mark.slow
def test_the_gzip_bomb_is_small_and_sound() -> None:
    """300 kB, which unpack to 300 MB with the right checksum."""
    packed = gzip_bomb()
    assert 250_000 < len(packed) < 350_000
    inflate, size, first = zlib.decompressobj(wbits=31), 0, b""
    while not inflate.eof:
        plain = inflate.decompress(packed, 1 << 20)
        packed, size, first = inflate.unconsumed_tail, size + len(plain), first or plain
    assert first.startswith(BEGUN_EVENTS)
    assert 300 << 20 < size < (300 << 20) + 1000
    assert body_of_bomb().startswith(b"\x1f\x8b")


def body_of_bomb() -> bytes:
    """The body of that fault."""
    got, _ = played("gzip-bomb", enough=250_000)
    assert b"\r\nContent-Encoding: gzip\r\n" in got
    return got.partition(b"\r\n\r\n")[2]


def test_a_cut_gzip_body_holds_the_beginning() -> None:
    """What was flushed before the cut can be unpacked, and the end is missing."""
    inflate = zlib.decompressobj(wbits=31)
    assert inflate.decompress(body_of("cut-gzip")).startswith(BEGUN_EVENTS)
    assert not inflate.eof


# -- TLS --------------------------------------------------------------------------------------------------------------


def test_the_certificate_is_sound_for_clients_that_trust_it() -> None:
    """It names localhost and 127.0.0.1, is valid for decades, and is not trusted by default."""
    with FAULTS["self-signed-certificate"].serve() as base_url:
        for name in ("localhost", "127.0.0.1"):
            context = ssl.create_default_context(cadata=SELF_SIGNED_CERTIFICATE)
            with connected(port_in(base_url)) as sock, context.wrap_socket(sock, server_hostname=name) as secured:
                end: Any = secured.getpeercert()["notAfter"]  # type: ignore[index]
                assert ssl.cert_time_to_seconds(end) > 4_000_000_000
        with connected(port_in(base_url)) as sock, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")


def test_every_context_is_a_new_one() -> None:
    """Changing a context in one test does not affect others."""
    assert self_signed_context() is not self_signed_context()


# -- listeners and proxies --------------------------------------------------------------------------------------------


def test_a_listener_ends_its_connections() -> None:
    """close() may be repeated, and wakes a blocked `serve`."""
    entered, left = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        entered.set()
        while sock.recv(100):
            continue
        left.set()

    listener = Listener(serve)
    with connected(listener.port) as sock:
        assert entered.wait(SOON)
        listener.close()
        listener.close()
        assert left.wait(SOON)
        assert sock.recv(1) == b""
    assert listener.accepted == 1
    with pytest.raises(ConnectionRefusedError):
        connected(listener.port)


def basic(credentials: str) -> bytes:
    """The header with credentials for an HTTP proxy."""
    return b"Proxy-Authorization: Basic " + base64.b64encode(credentials.encode()) + b"\r\n"


def test_an_http_proxy_passes_a_request_on(server: LLMServer) -> None:
    """The path arrives without the host; the credentials stay with the proxy."""
    server.default = Reply("Hello")
    request = REQUEST.replace(b"POST /v1", f"POST {server.root}/v1".encode())
    request = request.replace(b"Host: test\r\n", b"Host: test\r\nConnection: close\r\n" + basic("me:p@:ss"))
    with HTTPProxy("me", "p@:ss") as proxy:
        assert proxy.url == f"http://me:p%40%3Ass@127.0.0.1:{proxy.port}"
        assert proxy.bare_url == f"http://127.0.0.1:{proxy.port}"
        got, _ = heard(proxy.port, request=request)
    assert b'"Hello"' in got
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].header("Proxy-Authorization") is None
    assert server.requests[0].header("Authorization") == f"Bearer {KEY}"
    seen = proxy.seen[0]
    assert (seen.method, seen.target, seen.credentials) == ("POST", server.root.partition("//")[2], "me:p@:ss")
    assert KEY in seen.head


def test_an_http_proxy_tunnels_to_where_it_likes(server: LLMServer) -> None:
    """A proxy with a target reaches it under a name that does not exist."""
    with HTTPProxy(target=("127.0.0.1", port_in(server.root + "/"))) as proxy, connected(proxy.port) as sock:
        sock.sendall(b"CONNECT api.invalid:443 HTTP/1.1\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 200 Connection established\r\n\r\n"
        sock.sendall(REQUEST)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    assert [(one.method, one.target, one.credentials) for one in proxy.seen] == [("CONNECT", "api.invalid:443", None)]


@pytest.mark.parametrize("refuse", [True, False])
@pytest.mark.parametrize("presented", [b"", basic("me:wrong"), b"Proxy-Authorization: Basic \xff\r\n", basic("me:pw")])
def test_an_http_proxy_asks_for_credentials(presented: bytes, refuse: bool) -> None:
    """407 for missing, wrong and broken ones, or for all with `refuse`; 502 if the target does not answer."""
    with FAULTS["refused"].serve() as nowhere, HTTPProxy("me", "pw", refuse=refuse) as proxy:
        request = f"CONNECT 127.0.0.1:{port_in(nowhere)} HTTP/1.1\r\n".encode() + presented + b"\r\n"
        got, end = heard(proxy.port, request=request)
    right = presented == basic("me:pw") and not refuse
    assert got.startswith(b"HTTP/1.1 502 " if right else b"HTTP/1.1 407 ")
    assert end == "closed"
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("made", [HTTPProxy, SocksProxy])
def test_a_proxy_that_hangs_says_nothing(made: Any) -> None:
    """The request is read, but no answer comes."""
    with made(hang=True) as proxy, connected(proxy.port) as sock:
        sock.sendall(b"\x05\x01\x00" if made is SocksProxy else b"CONNECT a:1 HTTP/1.1\r\n\r\n")
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)


@pytest.mark.parametrize("made", [HTTPProxy, SocksProxy])
def test_half_of_the_credentials_is_refused(made: Any) -> None:
    """A user without a password could never match."""
    with pytest.raises(ValueError, match="belong together"):
        made("me")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (b"\x01\x7f\x00\x00\x01", "127.0.0.1"),
        (b"\x03\x0bapi.invalid", "api.invalid"),
        (b"\x04" + bytes(15) + b"\1", "::1"),
    ],
)
def test_a_socks_proxy_passes_bytes_on(server: LLMServer, address: bytes, shown: str) -> None:
    """With a password, and the address as number or name."""
    with (
        SocksProxy("me", "pw", target=("127.0.0.1", port_in(server.root + "/"))) as proxy,
        connected(proxy.port) as sock,
    ):
        assert proxy.url == f"socks5h://me:pw@127.0.0.1:{proxy.port}"
        sock.sendall(b"\x05\x02\x00\x02")
        assert sock.recv(2) == b"\x05\x02"
        sock.sendall(b"\x01\x02me\x02pw")
        assert sock.recv(2) == b"\x01\x00"
        sock.sendall(b"\x05\x01\x00" + address + b"\x01\xbb")
        assert sock.recv(10) == b"\x05\x00\x00\x01" + bytes(6)
        sock.sendall(REQUEST)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    assert [(one.method, one.target, one.credentials) for one in proxy.seen] == [("SOCKS5", f"{shown}:443", "me:pw")]


@pytest.mark.parametrize(
    ("options", "said", "answers"),
    [
        ({"user": "me", "password": "pw"}, [b"\x05\x01\x00"], [b"\x05\xff"]),
        ({"user": "me", "password": "pw"}, [b"\x05\x01\x02", b"\x01\x02me\x02no"], [b"\x05\x02", b"\x01\x01"]),
        (
            {"user": "me", "password": "pw", "refuse": True},
            [b"\x05\x01\x02", b"\x01\x02me\x02pw"],
            [b"\x05\x02", b"\x01\x01"],
        ),
        ({"refuse": True}, [b"\x05\x01\x00"], [b"\x05\xff"]),
        ({}, [b"\x04\x01\x00"], [b"\x05\xff"]),
        (
            {"target": ("127.0.0.1", 0)},
            [b"\x05\x01\x00", b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01"],
            [b"\x05\x00", b"\x05\x04\x00\x01" + bytes(6)],
        ),
    ],
)
def test_a_socks_proxy_refuses(options: dict[str, Any], said: list[bytes], answers: list[bytes]) -> None:
    """No common method, wrong credentials, `refuse`, another version, a target that does not answer."""
    with SocksProxy(**options) as proxy, connected(proxy.port) as sock:
        for message, answer in zip(said, answers, strict=True):
            sock.sendall(message)
            assert sock.recv(100) == answer
        assert sock.recv(1) == b""


def test_a_client_that_leaves_ends_its_thread() -> None:
    """A proxy keeps nothing of a finished connection."""
    with HTTPProxy() as proxy:
        before = threading.active_count()
        with connected(proxy.port) as sock:
            sock.sendall(b"CONNECT ")
        end = time.monotonic() + SOON
        while threading.active_count() > before and time.monotonic() < end:
            time.sleep(0.01)
        assert threading.active_count() == before
    assert proxy.seen == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("benchmarks.faults --contenders llmbridge --only html,cut-in-chunk,http-1.0", "ProtocolError StreamTruncated"),
        ("benchmarks.soak --calls 30 --seed 3 --grace 30", "nothing grew"),
    ],
)
def test_the_programs_that_play_them_run(command: str, shown: str) -> None:
    """The comparison and the soak test run to the end, with few faults."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(word in done.stdout for word in shown.split())

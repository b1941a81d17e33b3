"""P14: however a stream ends, the server soon sees the socket closed, and nothing is left (see also conftest.py)."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loopback import DONE, FINISH, Listener, chunk, event, head, read_head

from llmbridge import Cancelled, ChatStream, Client, InvalidRequest, LLMBridgeError, Timeout, Vitalentum
from llmbridge._transport.call import Call
from llmbridge.testing import HOLD, LLMServer, Reply

LONG = Reply(raw=[head("Transfer-Encoding: chunked"), *[chunk(event("a")), 0.02] * 2000])
STALLED = Reply(raw=[head(), event("a"), HOLD])


class Reading:
    """A stream that another thread reads.

    Attributes:
        pieces: What it has got so far.
        error: What ended it.
    """

    def __init__(self, stream: ChatStream) -> None:
        self.stream = stream
        self.pieces: list[str] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for piece in self.stream:
                self.pieces.append(piece)
        except LLMBridgeError as error:
            self.error = error

    def ends(self, seconds: float = 20) -> bool:
        """Whether the reader comes back within that time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def has_read(self, count: int) -> None:
        """Waits until so many pieces are there."""
        end = time.monotonic() + 30
        while len(self.pieces) < count and time.monotonic() < end:
            time.sleep(0.002)
        assert len(self.pieces) >= count


@contextlib.contextmanager
def woken(stream: ChatStream, way: str, ready: Callable[[Reading], object]) -> Iterator[Reading]:
    """The stream, read by another thread until it is ready, and then ended from this one."""
    reading = Reading(stream)
    try:
        ready(reading)
        time.sleep(0.05)
        started = time.monotonic()
        getattr(stream, way)()
        assert time.monotonic() - started < 10, "the one who ends it waits"
        assert reading.ends(), "the reader still waits"
        assert isinstance(reading.error, Cancelled)
        yield reading
    finally:
        stream.cancel()
        reading.ends()


@pytest.mark.slow
@pytest.mark.parametrize("reply", [LONG, STALLED], ids=["lively", "stalled"])
@pytest.mark.parametrize("way", ["close", "cancel", "with", "break", "next", "exception", "complete"])
def test_p14_the_server_sees_every_early_end(server: LLMServer, client: Client, way: str, reply: Reply) -> None:
    """close(), with, break, an exception in the loop: the socket is closed within two seconds."""
    server.script(reply)
    stream = client.chat("x")
    if way == "break":
        for _ in stream:
            break
    elif way == "exception":
        with contextlib.suppress(ZeroDivisionError):
            for _ in stream:
                raise ZeroDivisionError
    elif way == "with":
        with stream:
            next(stream)
    elif way == "complete":
        next(stream)
        threading.Timer(0.1, stream.cancel).start()
        with pytest.raises(Cancelled):
            stream.complete()
    elif way == "next":
        next(stream)
        del stream
        gc.collect()
    else:
        next(stream)
        getattr(stream, way)()
        if way == "cancel":
            with pytest.raises(Cancelled):
                list(stream)
    assert server.requests[0].gone.wait(30)


def test_p14_events_left_early_close_too(server: LLMServer, client: Client) -> None:
    """The same for a loop over `.events()`."""
    server.script(STALLED)
    for _ in client.chat("x").events():
        break
    assert server.requests[0].gone.wait(30)


def test_p14_the_ancestors_generator_left_early_closes_too(server: LLMServer) -> None:
    """`create_completion` returns a generator that closes when it is left or closed."""
    server.script(STALLED, STALLED)
    pieces: Any = Vitalentum.create_completion("m", "x", base_url=server.root)
    next(pieces)
    pieces.close()
    assert server.requests[0].gone.wait(30)
    for _ in Vitalentum.create_completion("m", "x", base_url=server.root):
        break
    assert server.requests[1].gone.wait(30)


def test_p14_a_stream_that_is_garbage_closes(server: LLMServer, client: Client) -> None:
    """An unclosed stream in a reference cycle is closed by the garbage collector."""
    server.script(STALLED)
    stream = client.chat("x")
    next(stream)
    cycle: list[Any] = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()
    assert server.requests[0].gone.wait(30)


@pytest.mark.parametrize("way", ["cancel", "close"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_p14_a_reader_that_waits_for_headers_wakes(request: pytest.FixtureRequest, way: str, tls: bool) -> None:
    """Ended from another thread before any answer, plain and over TLS."""
    server: LLMServer = request.getfixturevalue("tls_server" if tls else "server")
    client: Client = request.getfixturevalue("tls_client" if tls else "client")
    server.script(Reply("x", header_delay=20))
    with woken(client.chat("x"), way, lambda _: server.wait_for_requests(1)):
        assert server.requests[0].gone.wait(30)


@pytest.mark.parametrize("way", ["cancel", "close"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("reply", [LONG, STALLED], ids=["lively", "stalled"])
def test_p14_a_reader_in_the_body_wakes(request: pytest.FixtureRequest, way: str, tls: bool, reply: Reply) -> None:
    """Ended from another thread in mid-stream, plain and over TLS; the text so far is in the error."""
    server: LLMServer = request.getfixturevalue("tls_server" if tls else "server")
    client: Client = request.getfixturevalue("tls_client" if tls else "client")
    server.script(reply)
    with woken(client.chat("x"), way, lambda reading: reading.has_read(1)) as reading:
        assert server.requests[0].gone.wait(30)
        assert isinstance(reading.error, Cancelled)
        assert reading.error.partial == "".join(reading.pieces)


def test_p14_a_reader_on_a_kept_connection_wakes(server: LLMServer, client: Client) -> None:
    """A kept connection is as easy to leave."""
    server.script(Reply("ok"), Reply("x", header_delay=20))
    client.chat("x").complete()
    with woken(client.chat("x"), "cancel", lambda _: server.wait_for_requests(2)):
        assert server.requests[1].gone.wait(30)
    assert server.connections == 1


def test_p14_a_reader_in_an_error_body_wakes(server: LLMServer, client: Client) -> None:
    """The same in the body of an error."""
    server.script(Reply(raw=[head(status="500 Oh", kind="text/plain"), b"x", HOLD]))
    with woken(client.chat("x"), "cancel", lambda _: server.wait_for_requests(1)):
        assert server.requests[0].gone.wait(30)


def test_p14_a_wait_before_a_retry_ends(server: LLMServer, client: Client) -> None:
    """A call that is cancelled before its retry does not retry."""
    server.script(Reply(status=503, headers={"Retry-After": "15"}))
    with woken(client.chat("x", retries=3), "cancel", lambda _: server.wait_for_requests(1)):
        assert len(server.requests) == 1


def test_p14_a_reader_that_waits_for_a_connection_wakes() -> None:
    """Cancelled while the system still tries to connect to a full backlog."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        client = stack.enter_context(Client("openai:m", base_url=f"http://127.0.0.1:{listener.getsockname()[1]}"))
        with woken(client.chat("x"), "cancel", lambda _: time.sleep(0.1)):
            pass


def test_p14_a_reader_that_waits_for_a_name_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while the name lookup hangs; the lookup's thread is left to itself and ends with it."""
    over, begun = threading.Event(), threading.Event()

    def lookup(*_: object, **__: object) -> None:
        begun.set()
        over.wait(20)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with (
        Client("openai:m", base_url="http://hangs.test") as client,
        woken(client.chat("x"), "cancel", lambda _: begun.wait(5)),
    ):
        over.set()


def test_p14_a_reader_in_a_handshake_wakes() -> None:
    """Cancelled while the server does not answer TLS."""
    with (
        Listener() as silent,
        Client("openai:m", base_url=f"https://127.0.0.1:{silent.port}") as client,
        woken(client.chat("x"), "cancel", lambda _: time.sleep(0.1)),
    ):
        pass


def test_p14_a_reader_before_a_silent_proxy_wakes() -> None:
    """Cancelled while the proxy does not answer CONNECT."""
    with Listener() as silent, Client("openai:m", base_url="https://127.0.0.1:9") as client:
        stream = client.chat("x", proxy=f"http://127.0.0.1:{silent.port}")
        with woken(stream, "cancel", lambda _: time.sleep(0.1)):
            pass


@pytest.mark.slow
def test_p14_a_writer_whose_request_is_not_read_wakes() -> None:
    """Cancelled while the server does not read a long request."""
    with (
        Listener() as silent,
        Client("openai:m", base_url=f"http://127.0.0.1:{silent.port}") as client,
        woken(client.chat("x" * 30_000_000), "cancel", lambda _: time.sleep(0.4)),
    ):
        pass


def test_p14_ending_may_be_repeated_and_come_at_any_time(server: LLMServer, client: Client) -> None:
    """close() and cancel() before, during and after, many times and from many threads, do no harm."""
    stream = client.chat("x")
    stream.close()
    stream.close()
    with pytest.raises(Cancelled):
        next(stream)
    assert server.connections == 0

    server.script(STALLED)
    stream = client.chat("x")
    next(stream)
    threads = [threading.Thread(target=getattr(stream, way)) for way in ("close", "cancel") * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(Cancelled):
        next(stream)
    assert server.requests[0].gone.wait(30)

    server.script(Reply(["a", "b"]))
    stream = client.chat("x")
    assert stream.complete().text == "ab"
    stream.close()
    stream.cancel()
    assert stream.complete().text == "ab"
    with pytest.raises(InvalidRequest):
        list(stream)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["loop", "complete", "events", "with"])
def test_p14_finished_streams_share_one_connection(server: LLMServer, client: Client, way: str) -> None:
    """A hundred finished streams, one connection."""
    for _ in range(100):
        stream = client.chat("x")
        if way == "complete":
            stream.complete()
        elif way == "events":
            list(stream.events())
        elif way == "with":
            with stream:
                "".join(stream)
        else:
            "".join(stream)
    assert len(server.requests) == 100
    assert server.connections == 1


def test_p14_finished_streams_over_tls_share_one_connection(tls_server: LLMServer, tls_client: Client) -> None:
    """The expensive handshake is made once."""
    for _ in range(20):
        tls_client.chat("x").complete()
    assert tls_server.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply("no", status=404),
        Reply(status=429, body=""),
        Reply("x", status=302, headers={"Location": "http://example.org"}),
        Reply(["a"], error="no"),
        Reply(body='{"error": "no"}', content_type="application/json"),
    ],
    ids=["error", "empty error", "redirect", "error in the stream", "document"],
)
def test_p14_answers_that_are_errors_keep_the_connection(server: LLMServer, client: Client, reply: Reply) -> None:
    """An error whose body was read to its end keeps the connection."""
    server.default = reply
    for _ in range(5):
        with pytest.raises(LLMBridgeError):
            list(client.chat("x"))
    assert server.connections == (1 if reply.error is None else server.connections)


def test_p14_a_late_cancel_hurts_no_other_call(server: LLMServer, client: Client) -> None:
    """cancel() and close() of a finished stream do not touch its connection, which then serves another call."""
    server.script(Reply("first"), Reply(["a", "b", "c"], delay=0.1))
    first = client.chat("x")
    first.complete()
    second = client.chat("x")
    pieces = [next(second)]
    first.cancel()
    first.close()
    pieces += second
    assert pieces == ["a", "b", "c"]
    assert server.connections == 1


@pytest.mark.slow
def test_p14_cancels_at_any_moment_hurt_no_other_call(server: LLMServer, client: Client) -> None:
    """Streams cancelled around their end give their text or Cancelled, and the next call is whole."""
    server.default = Reply(["a", "b", "c"])
    for number in range(150):
        stream = client.chat("x")
        timer = threading.Timer(number / 150 * 0.004, stream.cancel)
        timer.start()
        with contextlib.suppress(Cancelled):
            assert "".join(stream) == "abc"
        assert client.chat("x").complete().text == "abc"
        timer.join()


def test_p14_done_with_the_connection_kept_open(server: LLMServer, client: Client) -> None:
    """The end mark ends the call, and the connection, if the server does not end the body."""
    server.script(Reply(raw=[head("Transfer-Encoding: chunked"), chunk(event("a") + FINISH + DONE), HOLD]))
    assert client.chat("x").complete().text == "a"
    assert server.requests[0].gone.wait(30)


def test_p14_closing_a_client_closes_its_kept_connections(server: LLMServer) -> None:
    """After `with Client(...)` no connection is open, though its streams and errors are still referenced."""
    held: list[object] = []
    server.script(Reply("a"), Reply("no", status=404))
    with Client("openai:m", base_url=server.base_url("openai"), retries=0) as client:
        stream = client.chat("x")
        stream.complete()
        held.append(stream)
        try:
            list(client.chat("x"))
        except LLMBridgeError as error:
            held.append(error)
    assert server.requests[0].gone.wait(30)
    assert len(held) == 2


def test_p14_a_closed_client_may_be_used_again(server: LLMServer, client: Client) -> None:
    """close() closes connections, not the client."""
    client.chat("x").complete()
    client.close()
    client.close()
    assert client.chat("x").complete().text


_INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from llmbridge import Client
client = Client("openai:m", base_url=sys.argv[1], retries=0)
print("ready", flush=True)
try:
    for piece in client.chat("x" * int(sys.argv[2])):
        print(piece, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("where", ["headers", "body", "handshake", "request", "retry"])
def test_p14_ctrl_c_ends_a_call_at_once(server: LLMServer, where: str) -> None:
    """SIGINT in any phase raises KeyboardInterrupt in the loop, and the process can end."""
    url, size = server.base_url("openai"), 1
    server.default = {"headers": Reply("x", header_delay=20), "body": STALLED}.get(where, Reply("x"))
    with contextlib.ExitStack() as stack:
        if where in ("handshake", "request"):
            silent = stack.enter_context(Listener())
            url = f"{'https' if where == 'handshake' else 'http'}://127.0.0.1:{silent.port}"
            size = 30_000_000 if where == "request" else 1
        if where == "retry":
            server.default = Reply(status=503, headers={"Retry-After": "15"})
        code = _INTERRUPTED.replace("retries=0", "retries=3") if where == "retry" else _INTERRUPTED
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", code, url, str(size)], stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if where == "body":
            assert process.stdout.readline() == "a\n"
        elif where in ("headers", "retry"):
            server.wait_for_requests(1)
        time.sleep(0.3)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(30) == 0
        assert time.monotonic() - started < 15
    if where in ("headers", "body"):
        assert server.requests[0].gone.wait(30)


@pytest.mark.slow
def test_p14_processes_can_end_with_a_stream_open(server: LLMServer) -> None:
    """No thread or lock of an unclosed stream keeps the interpreter from ending, on a busy machine."""
    server.default = STALLED
    code = "import llmbridge, sys; s = llmbridge.chat('x', 'openai:m', base_url=sys.argv[1]); next(s)"
    command = [sys.executable, "-W", "error", "-c", code, server.base_url("openai")]
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(6):
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            processes.append(process)
        ends = [(process.communicate(timeout=30)[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 6
    assert all(received.gone.wait(30) for received in server.requests)


_LEFT_BY_A_CHILD = """
import os, sys
from llmbridge import Client
stream = Client("openai:m", base_url=sys.argv[1], retries=0, timeout=60).chat("x")
for piece in stream:
    if piece == "b":
        child = os.fork()
        if not child:
            LEAVES
        os.waitpid(child, 0)
        print("left", flush=True)
print(stream.text, stream.finish_reason)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
@pytest.mark.parametrize("way", ["sys.exit()", "stream.close(); os._exit(0)"])
def test_p14_a_forked_child_that_leaves_does_not_end_the_parents_stream(way: str) -> None:
    """A child's use of its copy of the connection does not reach the server."""
    left = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(head("Connection: close") + event("a") + event("b"))
        assert left.wait(30)
        sock.sendall(event("c") + FINISH + DONE)

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(Listener(serve))
        code = _LEFT_BY_A_CHILD.replace("LEAVES", way)
        command = [sys.executable, "-W", "ignore", "-c", code, f"http://127.0.0.1:{listener.port}/v1"]
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "left\n"
        left.set()
        assert process.communicate(timeout=30)[0] == "abc stop\n"


_READ_BY_A_CHILD = """
import os, sys
from llmbridge import Client, TransportError
stream = Client("openai:m", base_url=sys.argv[1], retries=0, timeout=60).chat("x")
print(next(stream), flush=True)
child = os.fork()
if not child:
    sys.stdin.readline()
    try:
        print(*stream)
    except TransportError as error:
        print(error.message, error.partial)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
print(*stream, stream.finish_reason)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_p17_a_forked_child_takes_nothing_of_the_parents_stream() -> None:
    """Both share the connection: what the child read of it would silently be missing in the parent."""
    forked = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(head("Connection: close") + event("a"))
        assert forked.wait(30)
        sock.sendall(event("b") + event("c") + FINISH + DONE)

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(Listener(serve))
        command = [sys.executable, "-W", "ignore", "-c", _READ_BY_A_CHILD, f"http://127.0.0.1:{listener.port}/v1"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "a\n"
        forked.set()
        child, parent = process.communicate("go\n", timeout=30)[0].splitlines()
    assert "parent process" in child
    assert child.endswith(" a")
    assert parent == "b c stop"


_FORKED_WHILE_LOCKED = """
import os, signal, sys, threading
import requests
from llmbridge import Client
client = Client("openai:m", base_url=sys.argv[1], retries=0, timeout=60)
begun, go = threading.Event(), threading.Event()
plain = requests.Session.__init__

def slow(self):
    begun.set()
    go.wait(30)
    plain(self)

requests.Session.__init__ = slow
thread = threading.Thread(target=lambda: client.chat("x").complete())
thread.start()
begun.wait(30)
child = os.fork()
if not child:
    requests.Session.__init__ = plain
    signal.alarm(20)
    client.chat("x").complete()
    client.close()
    os._exit(0)
status = os.waitpid(child, 0)[1]
go.set()
thread.join()
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_p17_a_child_forked_while_another_thread_holds_a_lock_can_call(server: LLMServer) -> None:
    """A lock that a thread of the parent holds during a fork is free in the child."""
    command = [sys.executable, "-W", "ignore", "-c", _FORKED_WHILE_LOCKED, server.base_url("openai")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (run.stdout, run.stderr) == ("0\n", "")


@pytest.mark.parametrize("read", [0, 1, 2])
def test_the_repr_of_a_stream_that_was_closed_says_so(server: LLMServer, client: Client, read: int) -> None:
    """Closed before, during or after it is read: only a stream read to its end is called finished."""
    server.script(Reply(["a"]) if read == 2 else STALLED)
    stream = client.chat("x")
    assert repr(stream) == "<ChatStream openai:m not started, 0 characters>"
    if read == 1:
        next(stream)
        assert repr(stream) == "<ChatStream openai:m open, 1 characters>"
    if read == 2:
        stream.complete()
    stream.close()
    state = "finished" if read == 2 else "closed"
    assert repr(stream) == f"<ChatStream openai:m {state}, {min(read, 1)} characters>"


def test_p14_a_stream_that_was_never_started_has_opened_nothing(server: LLMServer, client: Client) -> None:
    """Nothing is sent before the first piece is requested."""
    client.chat("x")
    assert server.connections == 0


@pytest.mark.parametrize("abort", [True, False])
def test_p14_an_answer_that_is_given_up_resets_its_connection(abort: bool) -> None:
    """A blocked server learns of a reset at once, but of a plain end perhaps not for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        accepted, _ = listener.accept()
        with accepted:
            call = Call(Timeout())
            call.attach(sock)
            call.detach(abort=abort)
            call.end()
            accepted.settimeout(5)
            sock.close()
            if abort:
                with pytest.raises(ConnectionResetError):
                    accepted.recv(1)
            else:
                assert accepted.recv(1) == b""

"""Every behaviour of a stream in sync, asyncio and trio: one code path, so one set of tests."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

import pytest
import requests
import responses
from loopback import DONE, FINISH, Listener, chunk, event, free_port, head, read_head
from modes import MODES, Async, Mode

from llmbridge import (
    AuthError,
    BadRequest,
    Cancelled,
    Client,
    ClockExpired,
    CodeLinkAva,
    ConnectFailed,
    ContextLengthExceeded,
    Finish,
    InvalidRequest,
    LLMBridgeError,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    Reasoning,
    Retry,
    ServerError,
    StreamError,
    StreamTruncated,
    Text,
    Timeout,
    Usage,
    Vitalentum,
)
from llmbridge.testing import LLMServer, Reply

TRANSFERS = ["chunked", "length", "close", "http10"]
PIECES = ["При", "вет, ", "wo", "rld 🌍", "\n", "!"]


def whole(pieces: list[str]) -> bytes:
    """The body of an answer."""
    return b"".join(map(event, pieces)) + FINISH + DONE


class TestWholeAnswers:
    """The content of an answer, while it comes and afterwards."""

    @pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
    @pytest.mark.parametrize("transfer", TRANSFERS)
    def test_the_pieces_are_those_that_were_sent(
        self, server: LLMServer, client: Client, mode: Mode, transfer: Any, gzip: bool
    ) -> None:
        """One piece for each event, however the body is framed."""
        server.script(Reply(PIECES, transfer=transfer, gzip=gzip))
        stream = client.chat("x")
        assert mode.read(stream).pieces == PIECES
        assert stream.text == "".join(PIECES)

    @pytest.mark.parametrize("split", [1, 7])
    def test_bytes_that_trickle_give_the_same_pieces(
        self, server: LLMServer, client: Client, mode: Mode, split: int
    ) -> None:
        """Characters, events and chunks that are split anywhere come out whole."""
        server.script(Reply(PIECES, split=split))
        assert mode.read(client.chat("x")).pieces == PIECES

    def test_pieces_that_arrive_together_are_handed_out_one_by_one(
        self, server: LLMServer, client: Client, mode: Mode
    ) -> None:
        """The text of the stream grows with the pieces that the loop gets, not with those that have arrived."""
        server.script(Reply(PIECES, per_chunk=50))
        stream = client.chat("x")
        seen: list[str] = []

        def body(piece: str) -> None:
            seen.append(piece)
            assert stream.text == "".join(seen)

        mode.each(stream, body)
        assert seen == PIECES

    def test_what_comes_behind_a_piece_is_not_known_before(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The finish reason is unknown while the loop holds a piece, though both came in one packet."""
        server.script(Reply(PIECES, per_chunk=50))
        stream = client.chat("x")
        reasons: list[str | None] = []
        mode.each(stream, lambda _: reasons.append(stream.finish_reason))
        assert reasons == [None] * len(PIECES)
        assert stream.finish_reason == "stop"

    def test_a_thousand_pieces_keep_their_order(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A long answer comes whole and in order."""
        pieces = [f"{number} " for number in range(1000)]
        server.script(Reply(pieces))
        assert mode.read(client.chat("x")).pieces == pieces

    def test_afterwards_everything_is_known(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Usage, finish reason, headers, request id and timings are there after the loop."""
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        headers = {"X-Request-Id": "r-1", "X-More": "y"}
        server.script(Reply(PIECES, usage=usage, finish_reason="length", headers=headers))
        stream = client.chat("x")
        mode.read(stream)
        assert stream.usage == Usage(3, 4, 7)
        assert stream.finish_reason == "length"
        assert (stream.request_id, stream.headers["x-more"]) == ("r-1", "y")
        assert (stream.provider, stream.model) == ("openai", "m")
        assert stream.first_piece_seconds is not None
        assert stream.total_seconds is not None
        assert 0 < stream.first_piece_seconds <= stream.total_seconds < 10
        assert "finished" in repr(stream)

    def test_events_come_in_their_order(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Reasoning, text, finish and usage have their own types; the stream keeps them too."""
        server.script(Reply(["a", "b"], reasoning=["hm"], usage=True))
        stream = client.chat("x")
        got = mode.read(stream.events()).pieces
        assert got[:3] == [Reasoning("hm"), Text("a"), Text("b")]
        assert {type(item) for item in got[3:]} == {Finish, Usage}
        assert (stream.text, stream.reasoning, stream.finish_reason) == ("ab", "hm", "stop")
        assert stream.usage in got

    def test_a_completion_has_all_of_it(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The whole answer as one value."""
        server.script(Reply(PIECES, reasoning="hm", usage=True, headers={"X-Request-Id": "r-2"}))
        stream = client.chat("x")
        answer = mode.complete(stream)
        assert answer.text == str(answer) == stream.text == "".join(PIECES)
        assert (answer.reasoning, answer.finish_reason, answer.raw_finish_reason) == ("hm", "stop", "stop")
        assert answer.usage == stream.usage is not None
        assert (answer.request_id, answer.provider, answer.model) == ("r-2", "openai", "m")
        assert answer.first_piece_seconds is not None
        assert answer.total_seconds is not None

    def test_an_answer_without_text_is_an_empty_loop(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """An answer without text is an empty loop, without an error."""
        server.script(Reply([]))
        stream = client.chat("x")
        assert mode.read(stream).pieces == []
        assert (stream.text, stream.finish_reason) == ("", "stop")

    def test_a_json_document_in_place_of_a_stream(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A whole completion is returned as text, with its usage."""
        message = {"role": "assistant", "content": "Hello there"}
        document = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5}}
        server.script(Reply(body=json.dumps(document), content_type="application/json"))
        stream = client.chat("x")
        assert "".join(mode.read(stream).pieces) == "Hello there"
        assert stream.finish_reason == "stop"
        assert stream.usage is not None
        assert stream.usage.input_tokens == 5

    def test_a_provider_class_gives_the_same(self, server: LLMServer, mode: Mode) -> None:
        """The original providers' interface works with both of their services."""
        for provider, name in ((Vitalentum, "vitalentum"), (CodeLinkAva, "codelinkava")):
            server.script(Reply(PIECES, lines=True))
            source = mode.of_class(provider, base_url=server.base_url(name))
            assert mode.read(source).pieces == PIECES

    def test_nothing_is_sent_before_the_first_step(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A stream that is never read costs nothing."""
        streams = [client.chat("x"), client.chat("x").events()]
        assert server.requests == []
        assert server.connections == 0
        server.script(Reply("a"))
        assert mode.read(streams[0]).pieces == ["a"]
        assert len(server.requests) == 1

    def test_many_at_once_do_not_mix(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Each of 30 concurrent readers gets the answer to its own question."""
        server.default = lambda received: Reply([received.json["messages"][0]["content"], " ", "pong"])
        names = [f"ping {number}" for number in range(30)]
        found = mode.at_once([client.chat(name) for name in names])
        assert found == [[name, " ", "pong"] for name in names]

    def test_a_mocked_session_is_read_too(self, mode: Mode) -> None:
        """Answers mocked by `responses`, which have no socket, give the same pieces."""
        with responses.RequestsMock() as mock:
            mock.post("http://mock.test/v1/chat/completions", body=whole(PIECES), content_type="text/event-stream")
            stream = Client("openai:m", base_url="http://mock.test/v1", api_key="sk-test").chat("x")
            assert mode.read(stream).pieces == PIECES
            assert stream.finish_reason == "stop"

    def test_a_session_of_ones_own_is_used(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Its headers are sent, and it stays open."""
        with requests.Session() as session:
            session.headers["X-Mine"] = "yes"
            for _ in range(2):
                server.script(Reply(PIECES))
                assert mode.read(client.chat("x", session=session)).pieces == PIECES
        assert [received.header("x-mine") for received in server.requests] == ["yes", "yes"]
        assert server.connections == 1


class TestLive:
    """Pieces arrive live."""

    @pytest.mark.parametrize("transfer", TRANSFERS)
    def test_a_piece_comes_before_the_next_is_sent(self, mode: Mode, transfer: str) -> None:
        """The server sends each event only after the loop has the one before."""
        go = threading.Semaphore(1)
        framing = {
            "chunked": head("Transfer-Encoding: chunked"),
            "length": head(f"Content-Length: {len(whole(PIECES))}"),
            "close": head("Connection: close"),
            "http10": head().replace(b"HTTP/1.1", b"HTTP/1.0"),
        }

        def serve(sock: socket.socket) -> None:
            read_head(sock)
            sock.sendall(framing[transfer])
            for data in [*map(event, PIECES), FINISH + DONE]:
                assert go.acquire(timeout=5)
                sock.sendall(chunk(data) if transfer == "chunked" else data)
            if transfer == "chunked":
                sock.sendall(b"0\r\n\r\n")

        with Listener(serve) as listener, _client(listener) as client:
            got: list[str] = []
            mode.each(client.chat("x"), lambda piece: (got.append(piece), go.release())[1])
        assert got == PIECES

    @pytest.mark.slow
    @pytest.mark.parametrize("transfer", TRANSFERS)
    def test_the_end_mark_ends_the_stream(self, server: LLMServer, client: Client, mode: Mode, transfer: Any) -> None:
        """The loop ends with the end mark, even if the connection stays open."""
        server.script(Reply(PIECES, transfer=transfer, keep_open=True))
        stream = client.chat("x")
        assert mode.read(stream).pieces == PIECES
        assert server.requests[0].gone.wait(30)

    def test_finished_streams_share_one_connection(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """10 streams in a row use 1 connection, with any framing."""
        server.script(*(Reply(PIECES, transfer=transfer) for transfer in ("chunked", "length") * 5))
        assert mode.in_turn([client.chat("x") for _ in range(10)]) == [PIECES] * 10
        assert server.connections == 1

    def test_kept_connections_outlive_the_program(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A client moves from one event loop to the next, and from loops over streams to whole answers."""
        server.script(*[Reply(PIECES)] * 6)
        for _ in range(3):
            assert mode.read(client.chat("x")).pieces == PIECES
            assert mode.complete(client.chat("x")).text == "".join(PIECES)
        assert server.connections == 1

    def test_a_refused_call_gives_its_connection_back(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """An error that was read whole keeps the connection."""
        server.script(Reply("no", status=400), Reply(PIECES))
        assert isinstance(mode.read(client.chat("x")).error, BadRequest)
        assert mode.read(client.chat("x")).pieces == PIECES
        assert server.connections == 1


class TestErrors:
    """The same errors, after the same text, in all modes."""

    @pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
    @pytest.mark.parametrize("transfer", TRANSFERS)
    def test_a_body_that_is_cut(self, server: LLMServer, client: Client, mode: Mode, transfer: Any, gzip: bool) -> None:
        """All text that came is handed out, then StreamTruncated, which holds it."""
        server.script(Reply(PIECES * 20, transfer=transfer, gzip=gzip, cut=420))
        stream = client.chat("x")
        outcome = mode.read(stream)
        assert type(outcome.error) is StreamTruncated
        assert outcome.pieces == (PIECES * 20)[: len(outcome.pieces)]
        assert outcome.pieces
        assert outcome.error.partial == stream.text == "".join(outcome.pieces)

    @pytest.mark.parametrize("transfer", TRANSFERS)
    def test_a_missing_end_mark(self, server: LLMServer, client: Client, mode: Mode, transfer: Any) -> None:
        """A clean end of the body does not mean the end of the answer."""
        server.script(Reply(PIECES, end_mark=False, finish_reason=None, transfer=transfer))
        outcome = mode.read(client.chat("x"))
        assert outcome.pieces == PIECES
        assert type(outcome.error) is StreamTruncated

    def test_an_error_behind_the_last_text_of_one_read(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Text and error in the same packet come one after the other."""
        body = b"".join(map(event, PIECES)) + b'data: {"error": {"message": "boom", "code": "server_error"}}\n\n'
        server.script(Reply(raw=[head(f"Content-Length: {len(body)}") + body]))
        outcome = mode.read(client.chat("x"))
        assert outcome.pieces == PIECES
        assert isinstance(outcome.error, ServerError)
        assert outcome.error.partial == "".join(PIECES)

    @pytest.mark.parametrize(
        ("status", "error", "kind"),
        [
            (400, "bad", BadRequest),
            (400, {"message": "too long", "code": "context_length_exceeded"}, ContextLengthExceeded),
            (401, "no", AuthError),
            (403, "no", PermissionDenied),
            (404, "no", NotFound),
            (429, "slow", RateLimited),
            (429, {"message": "pay", "code": "insufficient_quota"}, QuotaExceeded),
            (500, "oops", ServerError),
            (503, {"message": "busy", "type": "overloaded_error"}, Overloaded),
        ],
    )
    def test_a_status(
        self, server: LLMServer, client: Client, mode: Mode, status: int, error: Any, kind: type[LLMBridgeError]
    ) -> None:
        """The class of status and code, without text."""
        server.script(Reply(status=status, error=error, headers={"X-Request-Id": "r-3", "Retry-After": "7"}))
        outcome = mode.read(client.chat("x"))
        assert outcome.pieces == []
        assert isinstance(outcome.error, kind)
        assert (outcome.error.status, outcome.error.request_id) == (status, "r-3")  # type: ignore[attr-defined]
        assert outcome.error.retry_after == 7  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ({"message": "slow down", "code": "rate_limit_exceeded"}, RateLimited),
            ({"message": "broken", "code": 500}, ServerError),
            ("just words", StreamError),
        ],
    )
    def test_an_error_in_the_stream(
        self, server: LLMServer, client: Client, mode: Mode, error: Any, kind: type[LLMBridgeError]
    ) -> None:
        """An error in mid-answer is raised after the text, with the class of its code."""
        server.script(Reply(PIECES, error=error))
        outcome = mode.read(client.chat("x"))
        assert outcome.pieces == PIECES
        assert isinstance(outcome.error, kind)
        assert outcome.error.partial == "".join(PIECES)

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(body="<html>hello</html>", content_type="text/html"),
            Reply(body="", content_type="text/event-stream"),
            Reply(body="data: {nonsense}\n\n", content_type="text/event-stream"),
            Reply(status=204, body=""),
            Reply("x", headers={"Content-Encoding": "br"}),
        ],
        ids=["html", "empty", "no JSON", "204", "brotli"],
    )
    def test_invalid_answers(self, server: LLMServer, client: Client, mode: Mode, reply: Reply) -> None:
        """A 200 with something else in it is a ProtocolError."""
        server.script(reply)
        assert type(mode.read(client.chat("x")).error) is ProtocolError

    def test_a_refused_connection(self, mode: Mode) -> None:
        """A refused connection is ConnectFailed, whose cause is the system's error."""
        with Client("openai:m", base_url=f"http://127.0.0.1:{free_port()}/v1", api_key="sk-test", retries=0) as client:
            error = mode.read(client.chat("x")).error
        assert isinstance(error, ConnectFailed)
        assert isinstance(error.__cause__, ConnectionRefusedError)

    def test_tls_that_is_not_trusted(self, tls_server: LLMServer, mode: Mode) -> None:
        """An unknown authority is rejected, and the error says how to name one."""
        with Client("openai:m", base_url=tls_server.base_url("openai"), api_key="sk-test", retries=0) as client:
            error = mode.read(client.chat("x")).error
        assert isinstance(error, ConnectFailed)
        assert "verify=" in error.message

    def test_a_whole_answer_has_the_same_errors(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """`complete()` and `await` raise the same errors as the loop, with the text so far."""
        server.script(Reply(PIECES * 20, cut=600))
        stream = client.chat("x")
        with pytest.raises(StreamTruncated) as caught:
            mode.complete(stream)
        assert caught.value.partial == stream.text
        assert stream.text.startswith(PIECES[0])

    def test_events_have_the_same_errors(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """`events()` raises the same errors."""
        server.script(Reply(PIECES, error="boom"))
        outcome = mode.read(client.chat("x").events())
        assert outcome.pieces == [Text(piece) for piece in PIECES]
        assert isinstance(outcome.error, StreamError)
        assert outcome.error.partial == "".join(PIECES)


class TestClocks:
    """Four timeouts, each with its name in the error."""

    def test_connect(self, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name lookup that hangs counts for the connect timeout."""
        release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(10) and [])
        with Client(
            "openai:m", base_url="http://slow.test/v1", api_key="sk-test", retries=0, timeout=Timeout(connect=0.1)
        ) as client:
            error = mode.read(client.chat("x")).error
            release.set()
        assert isinstance(error, ClockExpired)
        assert error.clock == "connect"

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("reply", "limits", "clock", "pieces"),
        [
            (Reply(header_delay=30), Timeout(first_content=0.5), "first_content", []),
            (Reply(["a"], first_delay=30), Timeout(first_content=0.5), "first_content", []),
            (Reply(["a", "b", "c"], stall=900), Timeout(idle=0.15), "idle", None),
            (Reply(["x"] * 1000, delay=0.02), Timeout(total=1), "total", None),
            (Reply(header_delay=30), Timeout(total=0.5), "total", []),
        ],
        ids=["headers", "first content", "idle", "total", "total before headers"],
    )
    def test_the_others(
        self,
        server: LLMServer,
        client: Client,
        mode: Mode,
        reply: Reply,
        limits: Timeout,
        clock: str,
        pieces: list[str] | None,
    ) -> None:
        """The stream ends with ClockExpired, after the text so far, and the server sees it."""
        server.script(reply)
        stream = client.chat("x", timeout=limits)
        outcome = mode.read(stream)
        assert isinstance(outcome.error, ClockExpired)
        assert outcome.error.clock == clock
        assert outcome.error.partial == "".join(outcome.pieces)
        assert (outcome.pieces == pieces) if pieces is not None else outcome.pieces
        assert server.requests[0].gone.wait(30)

    @pytest.mark.slow
    def test_a_slow_reader_is_not_a_stall(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Time spent in the loop's body does not count as the server's silence."""
        server.script(Reply(["a", "b", "c"], per_chunk=1, delay=0.02))
        pause = threading.Event()
        got: list[str] = []
        mode.each(client.chat("x", timeout=Timeout(idle=0.2)), lambda piece: (got.append(piece), pause.wait(0.3))[1])
        assert got == ["a", "b", "c"]


class TestRetries:
    """Retries before the first piece, and never after it."""

    def test_what_may_pass_is_tried_again(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """After three rejections the answer is whole."""
        server.script(Reply(status=500), Reply(status=429), Reply(status=408), Reply(PIECES))
        stream = client.chat("x", retries=Retry(times=3, backoff=0.01, max_backoff=0.02))
        assert mode.read(stream).pieces == PIECES
        assert len(server.requests) == 4

    def test_what_is_final_is_not(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A wrong key is not retried."""
        server.script(Reply(status=401), Reply(PIECES))
        assert isinstance(mode.read(client.chat("x", retries=3)).error, AuthError)
        assert len(server.requests) == 1

    def test_nothing_is_tried_again_after_a_piece(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Half an answer is not followed by another one."""
        server.script(Reply(PIECES * 20, cut=500), Reply(PIECES))
        outcome = mode.read(client.chat("x", retries=Retry(times=3, backoff=0.01)))
        assert isinstance(outcome.error, StreamTruncated)
        assert len(server.requests) == 1


class TestLeaving:
    """Every way out of the loop closes the connection."""

    def test_break(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """`break` closes the connection, although the stream lives on and keeps its text."""
        server.script(Reply(PIECES, stall=800))
        stream = client.chat("x")
        mode.each(stream, lambda piece: piece == PIECES[1])
        assert server.requests[0].gone.wait(30)
        assert stream.text == "".join(PIECES[:2])

    def test_break_in_events(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """`break` in a loop over events does the same."""
        server.script(Reply(PIECES, stall=800))
        mode.each(client.chat("x").events(), lambda _: True)
        assert server.requests[0].gone.wait(30)

    def test_an_exception_in_the_loop(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The exception comes out unchanged."""
        server.script(Reply(PIECES, stall=800))
        stream = client.chat("x")

        def body(_: str) -> None:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            mode.each(stream, body)
        assert server.requests[0].gone.wait(30)
        assert stream.text == PIECES[0]

    def test_the_end_of_with(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Leaving `with` closes the stream; reading on ends."""
        server.script(Reply(PIECES, stall=800))
        stream = client.chat("x")
        pieces = mode.each_within(stream, lambda _: True)
        assert server.requests[0].gone.wait(30)
        with pytest.raises(Cancelled):
            mode.each(pieces, lambda _: None)  # what had come in the same read may still be handed out
        assert stream.text.startswith(PIECES[0])

    @pytest.mark.parametrize("way", ["cancel", "close"])
    @pytest.mark.parametrize("reply", [Reply(PIECES, stall=800), Reply(header_delay=5)], ids=["stalled", "no headers"])
    def test_cancel_from_another_thread(
        self, server: LLMServer, client: Client, mode: Mode, reply: Reply, way: str
    ) -> None:
        """The reader gets Cancelled, with the text so far."""

        def leave() -> None:
            server.wait_for_requests(1, 10)
            until = time.monotonic() + 10
            while reply.stall is not None and not stream.text and time.monotonic() < until:
                time.sleep(0.01)
            getattr(stream, way)()

        server.script(reply)
        stream = client.chat("x")
        leaver = threading.Thread(target=leave)
        leaver.start()
        outcome = mode.read(stream)
        leaver.join()
        assert type(outcome.error) is Cancelled
        assert outcome.error.partial == "".join(outcome.pieces)
        assert bool(outcome.pieces) == (reply.stall is not None)
        assert server.requests[0].gone.wait(30)

    def test_cancel_in_the_loop(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The loop's own body may cancel: nothing more is read, and a later step raises."""
        server.script(Reply(PIECES, delay=0.01, stall=800))
        stream = client.chat("x")
        got: list[str] = []
        with pytest.raises(Cancelled):
            mode.each(stream, lambda piece: (got.append(piece), stream.cancel())[1])
        assert got == PIECES[: len(got)]
        assert server.requests[0].gone.wait(30)

    def test_cancel_before_the_first_step(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Nothing is ever sent then."""
        stream = client.chat("x")
        stream.cancel()
        stream.cancel()
        assert type(mode.read(stream).error) is Cancelled
        assert server.connections == 0

    def test_closing_a_finished_stream_does_nothing(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The data stays, and the connection is kept."""
        server.script(Reply(PIECES), Reply(PIECES))
        stream = client.chat("x")
        mode.read(stream)
        stream.close()
        stream.cancel()
        assert stream.text == "".join(PIECES)
        assert mode.complete(stream).text == stream.text
        assert mode.read(client.chat("x")).pieces == PIECES
        assert server.connections == 1


class TestReadOnce:
    """An answer is read once."""

    def test_a_second_loop_is_an_error(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The error points to `.text`."""
        server.script(Reply(PIECES))
        stream = client.chat("x")
        mode.read(stream)
        for again in (stream, stream.events()):
            with pytest.raises(InvalidRequest, match=r"\.text"):
                mode.each(again, lambda _: None)
        assert len(server.requests) == 1

    def test_the_whole_answer_after_the_loop(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """`complete()` and `await` after the loop return the text that was read."""
        server.script(Reply(PIECES))
        stream = client.chat("x")
        mode.read(stream)
        assert mode.complete(stream).text == "".join(PIECES)
        assert mode.complete(stream).finish_reason == "stop"
        assert len(server.requests) == 1

    def test_the_whole_answer_after_half_a_loop_is_an_error(
        self, server: LLMServer, client: Client, mode: Mode
    ) -> None:
        """A loop that was left early has no whole answer to return."""
        server.script(Reply(PIECES, stall=800))
        stream = client.chat("x")
        mode.each(stream, lambda _: True)
        with pytest.raises(InvalidRequest):
            mode.complete(stream)

    def test_another_way_in_the_middle_is_an_error(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """`next()` and `events()` cannot join a loop in its middle."""
        server.script(Reply(PIECES, stall=800))
        stream = client.chat("x")

        def body(_: str) -> bool:
            with pytest.raises(InvalidRequest):
                next(stream)
            with pytest.raises(InvalidRequest):
                list(stream.events())
            return True

        mode.each(stream, body)

    @pytest.mark.quick(1)
    def test_a_second_use_in_the_middle_does_not_end_the_first(
        self, server: LLMServer, client: Client, mode: Mode
    ) -> None:
        """The second reader gets an error, and the first loop gets all of its pieces."""
        server.script(Reply(PIECES, delay=0.02))
        stream = client.chat("x")
        got: list[str] = []

        async def main() -> None:
            async for piece in stream:
                got.append(piece)
                if len(got) == 1:
                    with pytest.raises(InvalidRequest):
                        await stream
                    for source in (stream, stream.events()):
                        with pytest.raises(InvalidRequest):
                            await anext(source.__aiter__())

        if isinstance(mode, Async):
            mode.run(main)
        else:
            for piece in stream:
                got.append(piece)
                if len(got) == 1:
                    with pytest.raises(InvalidRequest):
                        stream.complete()
                    for source in (stream, stream.events()):
                        with pytest.raises(InvalidRequest):
                            next(iter(source))
        assert got == PIECES
        assert stream.finish_reason == "stop"

    def test_a_second_whole_answer_does_not_end_the_first(self, mode: Mode) -> None:
        """Of two that wait for the same whole answer, the second gets an error, and the first gets the answer."""
        refused = threading.Event()
        found: list[str] = []

        def serve(sock: socket.socket) -> None:
            read_head(sock)
            assert refused.wait(30)
            sock.sendall(head("Connection: close") + whole(PIECES))

        with Listener(serve) as listener, _client(listener) as client:
            stream = client.chat("x")
            first = threading.Thread(target=lambda: found.append(mode.complete(stream).text))
            first.start()
            end = time.monotonic() + 10
            while not listener.accepted and time.monotonic() < end:
                time.sleep(0.005)
            with pytest.raises(InvalidRequest):
                mode.complete(stream)
            refused.set()
            first.join(30)
        assert found == ["".join(PIECES)]

    @pytest.mark.parametrize("name", [name for name in MODES if name != "sync"])
    def test_both_ways_at_once_are_an_error(self, server: LLMServer, client: Client, name: str) -> None:
        """`async for` and `await` do not silently continue an iteration begun by `next()`."""
        mode = MODES[name]
        server.script(Reply(PIECES, stall=800))
        stream = client.chat("x")
        with contextlib.closing(stream):
            assert next(stream) == PIECES[0]
            with pytest.raises(InvalidRequest):
                mode.each(stream, lambda _: None)
            with pytest.raises(InvalidRequest):
                mode.each(stream.events(), lambda _: None)
            assert next(stream) == PIECES[1]


def _client(listener: Listener) -> Client:
    return Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}/v1", api_key="sk-test", retries=0, timeout=10)

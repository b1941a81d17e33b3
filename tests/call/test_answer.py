"""A hostile or talkative server cannot exhaust memory or time."""

from __future__ import annotations

import contextlib
import gc
import json
import threading
import time
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from loopback import DONE, FINISH, event, head
from modes import Mode, Outcome
from moments import waits_no_more, waits_no_more_in_total, when_bytes_come

import llmbridge._call.calls
from llmbridge import (
    Cancelled,
    ChatStream,
    Client,
    ClockExpired,
    InvalidOutput,
    Logprobs,
    Reasoning,
    ServiceError,
    StreamTruncated,
    ToolCallDelta,
    Usage,
)
from llmbridge._call.answer import Answer
from llmbridge._call.assembly import Assembly
from llmbridge._call.calls import CallAssembler
from llmbridge._call.notes import Notes
from llmbridge._text import TextSoFar
from llmbridge.events import Item, OtherChoice, Text
from llmbridge.providers import find
from llmbridge.schema import Schema
from llmbridge.testing import CLOSE, HOLD, RESET, LLMServer, Reply

LIST = {"type": "object", "properties": {"a": {"type": "array"}}}


class TestObjects:
    """`objects()` parses a long text only now and then."""

    @pytest.fixture
    def looks(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The lengths of the texts that were parsed."""
        found: list[int] = []
        partial = Schema.partial

        def seen(schema: Schema, text: str) -> Any:
            found.append(len(text))
            return partial(schema, text)

        monkeypatch.setattr(Schema, "partial", seen)
        return found

    @pytest.mark.quick(1)
    def test_the_time_grows_with_the_text(self, looks: list[int], mode: Mode) -> None:
        """All parsing together reads a small multiple of the text, and the last object is complete."""
        text = json.dumps({"a": [f"item {i}" for i in range(4000)]})
        found = objects(mode, [[text[i : i + 64]] for i in range(0, len(text), 64)])
        assert found[-1] == json.loads(text)
        assert sum(looks) < 30 * len(text)

    def test_a_short_text_is_shown_at_once(self, mode: Mode) -> None:
        """A short text is parsed at each piece."""
        assert objects(mode, [["{"], ['"a": ["x'], ["y"]]) == [{}, {"a": ["x"]}, {"a": ["xy"]}]

    @pytest.mark.parametrize("tail", ["", "z"])
    def test_what_came_before_an_error_is_handed_out(self, tail: str, mode: Mode) -> None:
        """The last state is yielded before the error, even if the text was not due for parsing."""
        body = "y" * 4000
        found: list[Any] = []
        with pytest.raises(StreamTruncated) as caught:
            objects(mode, [['{"a": ["' + body], [tail]], StreamTruncated("cut"), found)
        assert found == [{"a": [body]}, *([{"a": [body + "z"]}] if tail else [])]
        assert caught.value.partial == '{"a": ["' + body + tail

    def test_an_error_behind_an_object_keeps_nothing(self) -> None:
        """The error is not in a cycle with its frames: the source is freed without the garbage collector."""
        source = Played([['{"a": ["' + "y" * 4000], ["z"]], StreamTruncated("cut"))
        left = weakref.ref(source)
        stream = ChatStream(source, Schema.of(LIST))
        gc.collect()
        gc.disable()
        try:
            with contextlib.suppress(StreamTruncated):
                list(stream.objects())
            assert stream.text
            del source, stream
            assert left() is None
        finally:
            gc.enable()

    @pytest.mark.parametrize("depth", [1500, 5000, 50_000])
    @pytest.mark.quick(1)
    def test_depth(self, depth: int, mode: Mode) -> None:
        """Objects that are nested too deeply to be compared are not yielded, and raise no RecursionError."""
        assert objects(mode, [['{"a":'], ["[" * depth], ["1"], ["]" * depth + "}"]])[:1] == [{}]

    def test_the_whole_answer_says_that_it_is_too_deep(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The whole answer raises the error for an answer that does not fit."""
        server.script(Reply('{"a":' + "[" * 50_000))
        with pytest.raises(InvalidOutput):
            mode.complete(client.chat("x", schema=LIST, schema_retries=0))


def objects(
    mode: Mode, reads: list[list[Item]], failure: Exception | None = None, found: list[Any] | None = None
) -> list[Any]:
    """The objects that a loop gets."""
    found = [] if found is None else found
    mode.each(ChatStream(Played(reads, failure), Schema.of(LIST)).objects(), found.append)
    return found


class Played:
    """A source that returns prepared items."""

    provider = "played"

    def __init__(self, reads: list[list[Item]], failure: Exception | None = None) -> None:
        self.started: float | None = 0.0
        self.ended: float | None = None
        self._reads = list(reads)
        self._failures = [failure] if failure is not None else []

    @property
    def current(self) -> Any:
        """The source itself."""
        return self

    def advance(self) -> list[Item] | None:
        """Returns the next read."""
        if self._reads:
            return self._reads.pop(0)
        if self._failures:
            raise self._failures.pop()
        return None

    poll = advance

    def cancel(self) -> None:
        """Does nothing."""

    close = abandon = cancel

    def listen(self, notes: Notes) -> None:
        """Does nothing."""

    def keep_raw(self) -> None:
        """Does nothing."""


class TestMemory:
    """What is kept in memory."""

    def test_a_count_keeps_64_keys(self) -> None:
        """Newer keys replace older ones; a single count is kept unchanged."""
        known = Usage()
        for i in range(300):
            known = known.merged(Usage(output_tokens=i, raw={"n": i, f"key{i}": i}))
        assert len(known.raw) == 64
        assert (known.raw["n"], known.raw["key299"]) == (299, 299)
        many = {f"key{i}": i for i in range(100)}
        assert Usage(raw={"a": 1}).merged(Usage(raw=many)).raw == many
        assert Usage(raw={"a": 1}).merged(Usage(raw={"b": 2})).raw == {"a": 1, "b": 2}

    def test_choices(self) -> None:
        """Besides the first choice, 128 others are kept, each complete."""
        assembly, items = Assembly(), list[Item]()
        for _ in range(2):
            for index in range(1, 400):
                assembly.take(OtherChoice(index, Text("a")), items)
        assert [item.index for item in items if isinstance(item, OtherChoice)] == [*range(1, 129)] * 2

    def test_the_text_of_another_choice_is_folded(self) -> None:
        """Other choices are joined like the first: a str object for each piece takes ten times the memory."""
        notes = Notes(TextSoFar())
        for _ in range(10_000):
            notes.note(OtherChoice(1, Text("abcd")))
        other = notes.others[1]
        assert len(other.text._pieces) < 2048
        assert other.turn_text == "abcd" * 10_000

    def test_reasoning_is_folded(self) -> None:
        """Joined blocks of reasoning keep their signatures and places."""
        notes = Notes(TextSoFar())
        for _ in range(10_000):
            notes.note(Reasoning("abcd"))
        assert len(notes._parts._thought._pieces) < 2048
        notes.note(Reasoning("", "sig"))
        notes.note("Hi")
        notes.note(Reasoning("more"))
        assert notes.message().content == [
            {"type": "reasoning", "text": "abcd" * 10_000, "signature": "sig"},
            {"type": "text", "text": "Hi"},
            {"type": "reasoning", "text": "more"},
        ]

    def test_an_open_call_is_not_read_at_each_finish(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All parsing together reads a small multiple of the arguments."""
        read: list[int] = []
        is_json = llmbridge._call.calls._is_json

        def seen(text: str) -> bool:
            read.append(len(text))
            return is_json(text)

        monkeypatch.setattr(llmbridge._call.calls, "_is_json", seen)
        calls = CallAssembler()
        calls.add(ToolCallDelta(0, "c1", "t", '{"a": "'))
        for _ in range(3000):
            calls.add(ToolCallDelta(0, None, None, "x"))
            assert calls.finished(final=False) == []
            assert calls.finished(final=False) == []
        calls.add(ToolCallDelta(0, None, None, '"}'))
        assert sum(read) < 30 * 3000
        (call,) = calls.finished()
        assert call.arguments == {"a": "x" * 3000}


class TestLogprobs:
    """Log probabilities may be larger than the text."""

    @pytest.fixture
    def answer(self, server: LLMServer) -> LLMServer:
        """The answer of a service that sends them unasked."""
        entry = {"token": "Hi", "logprob": -0.1}
        chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [entry]}}]}
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        body = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in (chunk, last))
        server.script(*[Reply(body=body + b"data: [DONE]\n\n")] * 2)
        return server

    @pytest.mark.parametrize("asked", [{"logprobs": True}, {"extra_body": {"top_logprobs": 2}}])
    def test_asked(self, answer: LLMServer, client: Client, mode: Mode, asked: dict[str, Any]) -> None:
        """The completion has them if the call requested them."""
        stream = client.chat("x", **asked)
        assert mode.complete(stream).logprobs == ({"token": "Hi", "logprob": -0.1},)

    def test_asked_by_the_client(self, answer: LLMServer, mode: Mode) -> None:
        """A client's default requests them too."""
        with Client("openai:m", base_url=answer.base_url("openai"), api_key="k", logprobs=True) as client:
            assert len(mode.complete(client.chat("x")).logprobs) == 1

    def test_unasked(self, answer: LLMServer, client: Client, mode: Mode) -> None:
        """Log probabilities nobody requested appear in the events, but are not kept."""
        stream = client.chat("x", logprobs=False)
        events = mode.read(stream.events()).pieces
        assert [event for event in events if isinstance(event, Logprobs)]
        assert mode.complete(stream).logprobs == ()
        assert mode.complete(client.chat("x")).logprobs == ()


A, B, C = (event(text)[:-1] for text in "abc")  # without the blank line
# What has arrived before nothing more does, and the text in it.
LEFT_OPEN: dict[str, tuple[bytes, list[str]]] = {
    "one event without its blank line": (A, ["a"]),
    "the last of several": (A + b"\n" + B + b"\n" + C, ["a", "b", "c"]),
    "no blank line anywhere": (A + B + C, ["a", "b", "c"]),
    "lost on the way": (A + b"\n" + B + C, ["a", "b", "c"]),
    "names between": (b"event: x\n" + A + b"event: y\n" + B, ["a", "b"]),
    "a name behind": (A + b"event: error\n", ["a"]),
    "CRLF": ((A + B).replace(b"\n", b"\r\n"), ["a", "b"]),
    "comments": (b": hi\n" + A + b": ping\n" + B + b": ping\n", ["a", "b"]),
    "half a line behind": (A + B + C[:30], ["a", "b"]),
    "half a line behind one": (A + b"\n" + B + C[:30], ["a", "b"]),
    "a line without an end": (A + B[:-1], ["a", "b"]),
}


class TestLeftOpen:
    """Text in whole lines is handed out, whatever ends the call."""

    @pytest.mark.parametrize("name", LEFT_OPEN)
    @pytest.mark.parametrize("clock", ["idle", "total"])
    def test_p6_at_a_clock(
        self,
        server: LLMServer,
        client: Client,
        mode: Mode,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        clock: str,
    ) -> None:
        """The timeout's error follows, and holds the text."""
        when_bytes_come(monkeypatch, waits_no_more if clock == "idle" else waits_no_more_in_total)
        body, pieces = LEFT_OPEN[name]
        server.script(Reply(raw=[head() + body, HOLD]))
        outcome = mode.read(client.chat("x", retries=0))
        assert outcome.pieces == pieces
        assert isinstance(outcome.error, ClockExpired)
        assert outcome.error.clock in (clock, "first_content")  # the former until text came
        assert outcome.error.partial == "".join(pieces)

    @pytest.mark.parametrize("name", LEFT_OPEN)
    @pytest.mark.parametrize("end", [CLOSE, RESET])
    def test_p6_at_a_cut(self, server: LLMServer, client: Client, mode: Mode, name: str, end: Any) -> None:
        """The connection ends before the promised length."""
        body, pieces = LEFT_OPEN[name]
        server.script(Reply(raw=[head("Content-Length: 9999"), body, 0.05, end]))
        outcome = mode.read(client.chat("x", retries=0))
        assert (outcome.pieces, type(outcome.error)) == (pieces, StreamTruncated)

    @pytest.mark.quick(1)
    def test_p6_at_a_cancel(
        self, server: LLMServer, client: Client, mode: Mode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another thread cancels while the reader waits."""
        came = threading.Event()
        when_bytes_come(monkeypatch, lambda _: came.set())
        body, pieces = LEFT_OPEN["one event without its blank line"]
        server.script(Reply(raw=[head() + body, HOLD]))
        stream = client.chat("x")

        def leave() -> None:
            came.wait(20)
            time.sleep(0.3)
            stream.cancel()

        leaver = threading.Thread(target=leave)
        leaver.start()
        outcome = mode.read(stream)
        leaver.join()
        assert (outcome.pieces, type(outcome.error)) == (pieces, Cancelled)

    @pytest.mark.parametrize("end", [b"data: [DONE]\n", b"data: [DONE]"])
    @pytest.mark.quick(2)
    def test_p6_the_end_mark_among_it_ends_the_answer(
        self, server: LLMServer, client: Client, mode: Mode, monkeypatch: pytest.MonkeyPatch, end: bytes
    ) -> None:
        """A timeout or a cut after the end mark changes nothing, with or without a finish reason."""
        when_bytes_come(monkeypatch, waits_no_more)
        for finish in (b"", FINISH):
            server.script(Reply(raw=[head() + event("a") + finish + end, HOLD]))
            assert mode.read(client.chat("x", retries=0)) == Outcome(["a"], None)

    def test_p6_a_reason_to_finish_does_not_end_it_at_a_clock(
        self, server: LLMServer, client: Client, mode: Mode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A finish reason alone does not end the answer: token counts might follow."""
        when_bytes_come(monkeypatch, waits_no_more)
        server.script(Reply(raw=[head() + event("a") + FINISH, HOLD]))
        outcome = mode.read(client.chat("x", retries=0))
        assert (outcome.pieces, type(outcome.error)) == (["a"], ClockExpired)

    @pytest.mark.parametrize(("body", "pieces"), [(A + B, ["a", "b"]), (A + B + C, ["a", "b", "c"])])
    def test_p4_lines_are_handed_on_while_the_server_holds_the_rest(
        self, server: LLMServer, client: Client, mode: Mode, body: bytes, pieces: list[str]
    ) -> None:
        """Lines are handed out once it is clear that there are no blank ones, and then at each line end."""
        server.script(Reply(raw=[head(), *[body[at : at + 1] for at in range(len(body))], HOLD]))
        got: list[str] = []
        started = time.monotonic()
        mode.each(client.chat("x", timeout=10), lambda piece: (got.append(piece), got == pieces)[1])
        assert got == pieces
        assert time.monotonic() - started < 5, "they came with the end of the call only"


REPORT = {"message": "out of cards", "type": "server_error", "code": 500}
BARE = json.dumps({"error": REPORT})
ERRORS = {
    "in a field": f"error: {json.dumps(REPORT)}\n\n",
    "in a field, nested": f"error: {BARE}\n\n",
    "in a field, over several lines": f"error: {json.dumps(REPORT, indent=1)}\n",
    "in a field, in words": "error: out of cards\n\n",
    "bare": f"{BARE}\n\n",
    "bare, over several lines": f"{json.dumps({'error': REPORT}, indent=1)}\n",
    "bare, without an end": BARE,
    "a list": f"[{BARE}]\n",
    "a list over several lines": f"{json.dumps([{'error': REPORT}], indent=1)}\n\n",
    "named": f"event: error\n{json.dumps(REPORT)}\n",
    "before more": f"{BARE}\ndata: {{}}\n\n",
}
GREETINGS = {
    "openai": event("a").decode(),
    "openai-responses": 'data: {"type": "response.output_text.delta", "delta": "a"}\n\n',
    "anthropic": 'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}\n\n',
    "gemini": 'data: {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}\n\n',
    "cohere": 'data: {"type": "content-delta", "delta": {"message": {"content": {"text": "a"}}}}\n\n',
    "mistral": event("a").decode(),
}


class TestBareErrors:
    """Errors in an event stream without a field name, or with a name of their own."""

    @pytest.mark.parametrize("dialect", GREETINGS)
    @pytest.mark.parametrize("name", ERRORS)
    def test_p9_it_is_the_services_error(self, server: LLMServer, mode: Mode, name: str, dialect: str) -> None:
        """An error counts before the events, between them, and directly below one, with the text before it."""
        said, report = GREETINGS[dialect], ERRORS[name]
        starts = (": hi\n\n", said, said[:-1], said + ": hi\n", "")
        server.script(*[Reply(body=(start + report).encode(), split=split) for start in starts for split in (None, 3)])
        with Client(f"{dialect}:m", base_url=server.root, api_key="k-1234567", retries=0) as client:
            for start in starts:
                for _ in range(2):
                    outcome = mode.read(client.chat("x"))
                    assert outcome.pieces == (["a"] if said[:-1] in start else []), start
                    assert isinstance(outcome.error, ServiceError), (start, outcome.error)
                    assert "out of cards" in str(outcome.error)

    @pytest.mark.parametrize("end", [HOLD, CLOSE])
    @pytest.mark.quick(2)
    def test_p9_an_unterminated_error_is_raised(
        self, server: LLMServer, client: Client, mode: Mode, monkeypatch: pytest.MonkeyPatch, end: Any
    ) -> None:
        """An error that nothing follows counts, though the body never ends, or ends too early."""
        if end == HOLD:
            when_bytes_come(monkeypatch, waits_no_more)
        for report in (BARE, f"{BARE}\n\ndata: ", f"[{BARE}]\n"):
            server.script(Reply(raw=[head("Content-Length: 9999") + report.encode(), end]))
            outcome = mode.read(client.chat("x", retries=0))
            assert isinstance(outcome.error, ServiceError), outcome.error
            assert "out of cards" in str(outcome.error)

    def test_p9_the_key_in_it_is_masked(self, server: LLMServer, mode: Mode) -> None:
        """The key is masked wherever the error comes."""
        key = "sk-verysecret-0123456789"
        for start in ("", event("a").decode()):
            server.script(Reply(body=f'{start}{{"error": {{"message": "bad {key}"}}}}\n'))
            with Client("openai:m", base_url=server.base_url("openai"), api_key=key, retries=0) as client:
                outcome = mode.read(client.chat("x"))
            assert isinstance(outcome.error, ServiceError)
            assert key not in str(outcome.error) + str(outcome.error.body)

    def test_p9_in_the_line_framing(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Errors on one line, as the first chat services send them."""
        from llmbridge.providers.vitalentum import Vitalentum

        for report in (BARE, f"error: {json.dumps(REPORT)}"):
            server.script(Reply(body=A + report.encode() + b"\n" + DONE))
            outcome = mode.read(mode.of_class(Vitalentum, base_url=server.root))
            assert (outcome.pieces, isinstance(outcome.error, ServiceError)) == (["a"], True)


@pytest.mark.parametrize("name", ["anthropic", "gemini", "ollama", "cohere", "openai", "openai-responses"])
def test_a_decode_of_a_subclass_reads_the_events(name: str) -> None:
    """A subclass's `decode` replaces the dialect's stateful decoder."""

    class Mine(find(name)):  # type: ignore[misc]
        """A provider of another package."""

        @classmethod
        def decode(cls, frame: Any) -> Any:
            return ("mine",)

    reads = [b"{}\n\n" if name == "ollama" else b"data: {}\n\n", b""]
    exchange: Any = SimpleNamespace(status=200, headers={}, secrets=(), read=lambda: reads.pop(0))
    assert Answer(exchange, Mine).read()[0] == ["mine"]

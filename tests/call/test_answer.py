"""What an answer may cost: a server, hostile or talkative, decides neither the memory nor the time."""

from __future__ import annotations

import contextlib
import gc
import json
import weakref
from typing import Any

import pytest
from modes import Mode

import llmbridge._call.calls
from llmbridge import ChatStream, Client, InvalidOutput, Logprobs, Reasoning, StreamTruncated, ToolCallDelta, Usage
from llmbridge._call.assembly import Assembly
from llmbridge._call.calls import CallAssembler
from llmbridge._call.notes import Notes
from llmbridge._text import TextSoFar
from llmbridge.events import Item, OtherChoice, Text
from llmbridge.schema import Schema
from llmbridge.testing import LLMServer, Reply

LIST = {"type": "object", "properties": {"a": {"type": "array"}}}


class TestObjects:
    """`objects()` looks at a long text now and then."""

    @pytest.fixture
    def looks(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The lengths of the texts that were looked at."""
        found: list[int] = []
        partial = Schema.partial

        def seen(schema: Schema, text: str) -> Any:
            found.append(len(text))
            return partial(schema, text)

        monkeypatch.setattr(Schema, "partial", seen)
        return found

    def test_the_time_grows_with_the_text(self, looks: list[int], mode: Mode) -> None:
        """What is read in all is a small multiple of the text, and the last object is the whole one."""
        text = json.dumps({"a": [f"item {i}" for i in range(4000)]})
        found = objects(mode, [[text[i : i + 64]] for i in range(0, len(text), 64)])
        assert found[-1] == json.loads(text)
        assert sum(looks) < 30 * len(text)

    def test_a_short_text_is_shown_at_once(self, mode: Mode) -> None:
        """Each piece of it."""
        assert objects(mode, [["{"], ['"a": ["x'], ["y"]]) == [{}, {"a": ["x"]}, {"a": ["xy"]}]

    @pytest.mark.parametrize("tail", ["", "z"])
    def test_what_came_before_an_error_is_handed_out(self, tail: str, mode: Mode) -> None:
        """Also the last bit, at which it was not yet time to look."""
        body = "y" * 4000
        found: list[Any] = []
        with pytest.raises(StreamTruncated) as caught:
            objects(mode, [['{"a": ["' + body], [tail]], StreamTruncated("cut"), found)
        assert found == [{"a": [body]}, *([{"a": [body + "z"]}] if tail else [])]
        assert caught.value.partial == '{"a": ["' + body + tail

    def test_an_error_behind_an_object_keeps_nothing(self) -> None:
        """It is not in a circle with the frames that raised it: the source goes without the garbage collector."""
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
    def test_depth(self, depth: int, mode: Mode) -> None:
        """No RecursionError: what is nested too deeply to be compared is not handed out."""
        assert objects(mode, [['{"a":'], ["[" * depth], ["1"], ["]" * depth + "}"]])[:1] == [{}]

    def test_the_whole_answer_says_that_it_is_too_deep(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """As an answer that does not fit."""
        server.script(Reply('{"a":' + "[" * 50_000))
        with pytest.raises(InvalidOutput):
            mode.complete(client.chat("x", schema=LIST, reask=0))


def objects(
    mode: Mode, reads: list[list[Item]], failure: Exception | None = None, found: list[Any] | None = None
) -> list[Any]:
    """The objects that a loop gets."""
    found = [] if found is None else found
    mode.each(ChatStream(Played(reads, failure), Schema.of(LIST)).objects(), found.append)
    return found


class Played:
    """A source that gives what it was given."""

    provider = "played"

    def __init__(self, reads: list[list[Item]], failure: Exception | None = None) -> None:
        self.started: float | None = 0.0
        self.ended: float | None = None
        self._reads = list(reads)
        self._failures = [failure] if failure is not None else []

    @property
    def current(self) -> Any:
        """Itself."""
        return self

    def advance(self) -> list[Item] | None:
        """The next read."""
        if self._reads:
            return self._reads.pop(0)
        if self._failures:
            raise self._failures.pop()
        return None

    poll = advance

    def cancel(self) -> None:
        """Nothing is held."""

    close = abandon = cancel

    def listen(self, notes: Notes) -> None:
        """Nothing is looked up."""

    def keep_raw(self) -> None:
        """There is nothing raw."""


class TestMemory:
    """What is kept."""

    def test_a_count_keeps_64_keys(self) -> None:
        """The newest words win; one count alone is kept as it is."""
        known = Usage()
        for i in range(300):
            known = known.merged(Usage(output_tokens=i, raw={"n": i, f"key{i}": i}))
        assert len(known.raw) == 64
        assert (known.raw["n"], known.raw["key299"]) == (299, 299)
        many = {f"key{i}": i for i in range(100)}
        assert Usage(raw={"a": 1}).merged(Usage(raw=many)).raw == many
        assert Usage(raw={"a": 1}).merged(Usage(raw={"b": 2})).raw == {"a": 1, "b": 2}

    def test_choices(self) -> None:
        """128 beside the first; those are kept whole."""
        assembly, items = Assembly(), list[Item]()
        for _ in range(2):
            for index in range(1, 400):
                assembly.take(OtherChoice(index, Text("a")), items)
        assert [item.index for item in items if isinstance(item, OtherChoice)] == [*range(1, 129)] * 2

    def test_the_text_of_another_choice_is_folded(self) -> None:
        """As the first one's: a str object for each piece takes ten times the room."""
        notes = Notes(TextSoFar())
        for _ in range(10_000):
            notes.note(OtherChoice(1, Text("abcd")))
        other = notes.others[1]
        assert len(other.text._pieces) < 2048
        assert other.turn_text == "abcd" * 10_000

    def test_reasoning_is_folded(self) -> None:
        """Its blocks keep their signatures and places."""
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
        """What is read in all is a small multiple of the arguments."""
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
    """They may be more than the text."""

    @pytest.fixture
    def answer(self, server: LLMServer) -> LLMServer:
        """A service that sends them unasked."""
        entry = {"token": "Hi", "logprob": -0.1}
        chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [entry]}}]}
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        body = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in (chunk, last))
        server.script(*[Reply(body=body + b"data: [DONE]\n\n")] * 2)
        return server

    @pytest.mark.parametrize("asked", [{"logprobs": True}, {"extra_body": {"top_logprobs": 2}}])
    def test_asked(self, answer: LLMServer, client: Client, mode: Mode, asked: dict[str, Any]) -> None:
        """The completion has them."""
        stream = client.chat("x", **asked)
        assert mode.complete(stream).logprobs == ({"token": "Hi", "logprob": -0.1},)

    def test_asked_by_the_client(self, answer: LLMServer, mode: Mode) -> None:
        """A default is a question too."""
        with Client("openai:m", base_url=answer.base_url("openai"), api_key="k", logprobs=True) as client:
            assert len(mode.complete(client.chat("x")).logprobs) == 1

    def test_unasked(self, answer: LLMServer, client: Client, mode: Mode) -> None:
        """They are shown in passing, and not kept."""
        stream = client.chat("x", logprobs=False)
        events = mode.read(stream.events()).pieces
        assert [event for event in events if isinstance(event, Logprobs)]
        assert mode.complete(stream).logprobs == ()
        assert mode.complete(client.chat("x")).logprobs == ()

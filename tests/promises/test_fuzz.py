"""Whatever bytes, pieces, messages and parameters come: text and events that UTF-8 can carry, or an error of the tree.

The answers here are driven without sockets: a stand-in for the exchange hands out recorded bytes, cut and spoilt.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, cast, get_args
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import Answer as Recorded
from recordings import Failure, names, provider_of, recorded

from llmbridge import ConfigError, InvalidRequest, LLMBridgeError, Provider, ServiceError, StreamTruncated, providers
from llmbridge._call import calls as calls_module
from llmbridge._call.answer import Answer
from llmbridge._call.calls import CallAssembler
from llmbridge._call.head import Head
from llmbridge._call.pipeline import Wait
from llmbridge._text import mended
from llmbridge.completion import Completion
from llmbridge.events import (
    Event,
    Item,
    OtherChoice,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolCallDelta,
)
from llmbridge.messages import ChatRequest, Message
from llmbridge.service_errors import error_for_status
from llmbridge.stream import ChatStream

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
KNOWN = get_args(Event)
PROVIDERS = list(providers.known().values())


def reading(provider: Any) -> tuple[Any, ...]:
    """The part of a provider that decides how an answer is read."""
    decoders = (getattr(method, "__func__", method) for method in (provider.decode, provider.decode_document))
    return (*decoders, type(provider.framing()), provider.think_tags, provider.done_needs_finish)


DECODERS = list({reading(provider): provider for provider in PROVIDERS}.values())
NAMES = [name for name in names(Recorded, Failure) if provider_of(name) is not None]


# -- an answer without sockets ----------------------------------------------------------------------------------------


class Body:
    """The stand-in for an exchange: returns bytes as they were cut, and may break off."""

    secrets = ()

    def __init__(self, reads: Sequence[bytes], headers: Mapping[str, str], broken: bool = False) -> None:
        self.status = 200
        self.headers = headers
        self._reads = [*(data for data in reads if data)]
        self._broken = broken

    def read(self) -> bytes:
        """The next bytes; none at the end."""
        if self._reads:
            return self._reads.pop(0)
        if self._broken:
            raise StreamTruncated("the body broke off")
        return b""


class Played:
    """The stand-in for a pipeline: an answer that is read to its end."""

    started: float | None = 0.0
    ended: float | None = None
    headers: Mapping[str, str]
    request_id: str | None = None
    provider = "played"
    model = "m"
    head = Head()

    def __init__(self, provider: type[Provider], body: Body) -> None:
        self.current: Any = self
        self.headers = body.headers
        self._answer = Answer(cast(Any, body), provider)
        self._error: LLMBridgeError | None = None

    def advance(self) -> list[Item] | None:
        """The result of one read."""
        while self._error is None and not self._answer.ended:
            items, self._error = self._answer.read()
            if items:
                return items
        if self._error is not None:
            raise self._error
        return self._answer.last_items()

    def poll(self) -> list[Item] | Wait | None:
        """Not used here."""
        return Wait.THREAD

    def cancel(self) -> None:
        """Does nothing."""

    close = abandon = cancel

    def listen(self, notes: Any) -> None:
        """Does nothing."""

    def keep_raw(self) -> None:
        """Does nothing."""


def unpacked(name: str) -> tuple[int, dict[str, str], bytes, bool]:
    """Status, headers and body of a recording, and whether it breaks off."""
    head, _, body = recorded(name).partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    broken = False
    if headers.get("transfer-encoding") == "chunked":
        body, broken = unchunked(body)
    return int(status_line.split()[1]), headers, body, broken


def unchunked(data: bytes) -> tuple[bytes, bool]:
    """The body in chunks of HTTP, and whether the last one is missing."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return body, False
        body, data = body + data[:length], data[length + 2 :]
    return body, True


RECORDED = {name: unpacked(name) for name in NAMES}
STREAMS = [name for name in NAMES if RECORDED[name][0] == 200]


def provider_for(name: str) -> type[Provider]:
    """The provider that reads the recording."""
    found = provider_of(name)
    assert found is not None
    return providers.find(found)


def play(
    provider: type[Provider], reads: Sequence[bytes], headers: Mapping[str, str], broken: bool = False
) -> ChatStream:
    """A stream of the recorded answer."""
    return ChatStream(Played(provider, Body(reads, headers, broken)))


def said(stream: ChatStream) -> tuple[list[Any], str]:
    """All events of a stream, and the error after them."""
    events: list[Any] = []
    with mock.patch.object(calls_module, "_made_up_id", map("made-up-{}".format, itertools.count()).__next__):
        try:
            events.extend(stream.events())
        except LLMBridgeError as error:
            return events, f"{type(error).__name__}: {error}"
    return events, ""


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """The bytes in pieces of these sizes, over and over."""
    pieces: list[bytes] = []
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(data):
            return pieces
        pieces.append(data[start : start + size])
        start += size
    return pieces


CUTS = st.lists(st.integers(1, 40) | st.sampled_from([1, 2, 3, 1000]), min_size=1, max_size=20)


class TestCuts:
    """(a) The network may split the bytes anywhere."""

    @given(name=st.sampled_from(STREAMS), sizes=CUTS)
    @settings(QUICK, max_examples=120)
    def test_any_cut_gives_the_same_events(self, name: str, sizes: list[int]) -> None:
        """P4, P5: every recording of every dialect gives the same events, and the same error if there is one."""
        _, headers, body, broken = RECORDED[name]
        provider = provider_for(name)
        whole = said(play(provider, [body], headers, broken))
        assert said(play(provider, cut(body, sizes), headers, broken)) == whole
        assert whole[0] or whole[1]

    @pytest.mark.parametrize("name", STREAMS)
    def test_byte_by_byte(self, name: str) -> None:
        """The smallest pieces."""
        _, headers, body, broken = RECORDED[name]
        provider = provider_for(name)
        assert said(play(provider, cut(body, [1]), headers, broken)) == said(play(provider, [body], headers, broken))


# -- the assembler of tool calls --------------------------------------------------------------------------------------

ARGUMENTS = st.dictionaries(
    st.text(max_size=3),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**20), 10**20)
        | st.text(max_size=5)
        | st.sampled_from(["}", "{", "🌍"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=5,
    ),
    max_size=3,
)
MADE = st.lists(st.tuples(st.sampled_from(["f", "get_weather", "get"]), ARGUMENTS), min_size=1, max_size=4)


def units(text: str) -> list[str]:
    """The text as a service of UTF-16 counts it: characters beyond the first 65536 as two halves."""
    data = text.encode("utf-16-le")
    return [data[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(data), 2)]


def fragments(data: st.DataObject, arguments: dict[str, Any]) -> list[str]:
    """The arguments as JSON in pieces, split anywhere; now and then missing if there are none."""
    if not arguments and data.draw(st.booleans()):
        return [""]
    text = units(json.dumps(arguments, ensure_ascii=data.draw(st.booleans())))
    if data.draw(st.integers(0, 5)) == 0:
        text = units(json.dumps("".join(text)))
    pieces = []
    while text:
        size = data.draw(st.integers(1, 12))
        pieces.append("".join(text[:size]))
        text = text[size:]
    return pieces


def openai(place: int, id: str, name: str, pieces: list[str]) -> list[ToolCallDelta]:
    """Id and name with the first piece, then only the index."""
    return [ToolCallDelta(place, id, name), *(ToolCallDelta(place, arguments=piece) for piece in pieces)]


def repeating(place: int, id: str, name: str, pieces: list[str]) -> list[ToolCallDelta]:
    """Id and name with every piece: llama-cpp-python."""
    return [ToolCallDelta(place, id, name, piece) for piece in pieces]


def without_ids(place: int, id: str, name: str, pieces: list[str]) -> list[ToolCallDelta]:
    """An index and a name."""
    return [ToolCallDelta(place, "", name), *(ToolCallDelta(place, arguments=piece) for piece in pieces)]


def names_repeating(place: int, id: str, name: str, pieces: list[str]) -> list[ToolCallDelta]:
    """A name with every piece, and an index."""
    return [ToolCallDelta(place, None, name, piece) for piece in pieces]


def without_index(place: int, id: str, name: str, pieces: list[str]) -> list[ToolCallDelta]:
    """Id and name first, and then nothing that identifies the call."""
    return [ToolCallDelta(None, id, name), *(ToolCallDelta(arguments=piece) for piece in pieces)]


def by_id(place: int, id: str, name: str, pieces: list[str]) -> list[ToolCallDelta]:
    """An id with every piece."""
    return [ToolCallDelta(None, id, name), *(ToolCallDelta(None, id, arguments=piece) for piece in pieces)]


def one_index(place: int, id: str, name: str, pieces: list[str]) -> list[ToolCallDelta]:
    """The same index for all calls: a new id begins a new one."""
    return [ToolCallDelta(0, id, name), *(ToolCallDelta(0, arguments=piece) for piece in pieces)]


def in_one(place: int, id: str, name: str, pieces: list[str]) -> list[ToolCallDelta]:
    """Each call in one piece, without index and id: imitations of Gemini; Mistral sends "null"."""
    return [ToolCallDelta(None, "null" if place % 2 else None, name, "".join(pieces))]


def whole_with_index(place: int, id: str, name: str, pieces: list[str]) -> list[ToolCallDelta]:
    """Each call in one piece that says so, all with the same index and no id."""
    return [ToolCallDelta(0, None, name, "".join(pieces), whole=True)]


INTERLEAVING = [openai, repeating, without_ids, names_repeating, by_id]
STYLES = [*INTERLEAVING, without_index, one_index, in_one, whole_with_index]
WITH_IDS = [openai, repeating, by_id, without_index, one_index]


def in_turns(data: st.DataObject, lists: list[list[ToolCallDelta]]) -> list[ToolCallDelta]:
    """The first of each list in order, the others mixed."""
    mixed = [pieces.pop(0) for pieces in lists]
    while lists := [pieces for pieces in lists if pieces]:
        mixed.append(data.draw(st.sampled_from(lists)).pop(0))
    return mixed


class TestCalls:
    """(b) Calls are assembled from their pieces."""

    @pytest.mark.slow
    @given(made=MADE, style=st.sampled_from(STYLES), data=st.data())
    @settings(QUICK, max_examples=200)
    def test_calls_come_back_whole(
        self, made: list[tuple[str, dict[str, Any]]], style: Any, data: st.DataObject
    ) -> None:
        """In every style, split anywhere, one after the other or mixed."""
        lists = [
            style(place, f"call_{place}", name, fragments(data, arguments))
            for place, (name, arguments) in enumerate(made)
        ]
        mixed = style in INTERLEAVING and data.draw(st.booleans())
        deltas = in_turns(data, lists) if mixed else list(itertools.chain.from_iterable(lists))
        calls = CallAssembler()
        handed_out = [piece for delta in deltas if (piece := calls.add(delta)) is not None]
        found = calls.finished()
        assert [(call.name, call.arguments) for call in found] == made
        assert [call.problem for call in found] == [None] * len(made)
        assert len({call.id for call in found}) == len(made)
        if style in WITH_IDS:
            assert [call.id for call in found] == [f"call_{place}" for place in range(len(made))]
        check_texts(handed_out)
        if not mixed:
            sent = "".join(delta.arguments for delta in deltas)
            assert "".join(piece.arguments for piece in handed_out) == mended(sent)


# -- spoilt answers ---------------------------------------------------------------------------------------------------


def check_texts(value: Any) -> None:
    """All text in the value is valid UTF-8, at any depth."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, Mapping):
        check_texts(list(value.items()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_texts(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            check_texts(getattr(value, field.name))


def check_event(event: Any) -> None:
    """The event is documented, and has the types of its docstring."""
    assert isinstance(event, KNOWN), event
    check_texts(event)
    if isinstance(event, (Text, Refusal)):
        assert event.text
    elif isinstance(event, Reasoning):
        assert event.text or event.signature or event.redacted or event.raw
    elif isinstance(event, ToolCall):
        assert event.id
        assert event.problem or event.name
        json.dumps(event.arguments, allow_nan=False)
    elif isinstance(event, OtherChoice):
        assert event.index > 0
        check_event(event.event)


def check_error(error: LLMBridgeError, texts: list[str]) -> None:
    """The error holds what came before it, can be shown, and survives a pickle."""
    assert error.partial == "".join(texts)
    assert "cannot read what the service sent" not in error.message, "a dialect of our own takes something for granted"
    check_texts([error.message, str(error), error.partial, error.args])
    if isinstance(error, ServiceError):
        check_texts([error.code, error.body])
    same = pickle.loads(pickle.dumps(error))
    assert (type(same), str(same), same.partial) == (type(error), str(error), error.partial)
    assert same.partial.tool_calls == error.partial.tool_calls  # type: ignore[attr-defined]


USER = {"role": "user", "content": "Hi"}


def check_completion(done: Completion, texts: list[str]) -> None:
    """The completion matches the pieces, and any dialect can send it back, or rejects it with a reason."""
    assert done.text == "".join(texts)
    assert done.choices[0].text == done.text
    check_texts(done)
    assert pickle.loads(pickle.dumps(done)) == done
    for provider in PROVIDERS:
        check_encoded(provider, [USER, done], {})


def check_played(provider: type[Provider], body: bytes, sizes: list[int], headers: dict[str, str]) -> None:
    """Any bytes give pieces, events and at most one error of the tree."""
    stream = play(provider, cut(body, sizes), headers)
    texts: list[str] = []
    try:
        for event in stream.events():
            check_event(event)
            if isinstance(event, (Text, Refusal)):
                texts.append(event.text)
    except LLMBridgeError as error:
        check_error(error, texts)
    else:
        check_completion(stream.complete(), texts)
    plain = play(provider, cut(body, sizes), headers)
    pieces: list[str] = []
    try:
        pieces.extend(plain)
    except LLMBridgeError as error:
        check_error(error, pieces)
    assert pieces == texts


@st.composite
def spoilt_bytes(draw: st.DrawFn, body: bytes) -> bytes:
    """The body after some accidents."""
    for _ in range(draw(st.integers(1, 4))):
        size = len(body)
        start = draw(st.integers(0, size))
        end = min(size, start + draw(st.integers(0, 30)))
        chunk = body[start:end]
        match draw(st.sampled_from(["flip", "delete", "insert", "double", "truncate", "swap"])):
            case "flip":
                bit = draw(st.integers(0, 7))
                body = body[:start] + bytes(byte ^ (1 << bit) for byte in chunk[:1]) + body[start + 1 :]
            case "delete":
                body = body[:start] + body[end:]
            case "insert":
                body = body[:start] + draw(st.binary(max_size=6) | st.sampled_from(NASTY)) + body[start:]
            case "double":
                body = body[:end] + chunk + body[end:]
            case "truncate":
                body = body[:start]
            case _:
                other = draw(st.integers(0, start))
                body = body[:other] + chunk + body[other:start] + body[end:]
    return body


NASTY = [
    b"\\ud83d",
    b"\\ude00",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b"\n\n",
    b"\r",
    b"\x00",
    b"\xff",
    b"NaN",
    b"1e999",
    b"[" * 600,
]
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 10**30, 0.5, float("inf"), "", "x", "\ud83d", "\ude00", "error", "stop", [], {}, [[]], [None]]
) | st.recursive(
    st.none() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["text", "error", "index"]), inner),
    max_leaves=4,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def spoil(draw: st.DrawFn, document: Any) -> Any:
    """The document with something in it replaced, removed, doubled or wrapped."""
    found = list(places(document))
    if not found:
        return draw(ODD)
    holder, key = draw(st.sampled_from(found))
    match draw(st.sampled_from(["odd", "remove", "wrap", "deep", "copy"])):
        case "odd":
            holder[key] = draw(ODD)
        case "remove":
            del holder[key]
        case "wrap":
            holder[key] = [holder[key]]
        case "deep":
            for _ in range(draw(st.sampled_from([3, 60]))):
                holder[key] = [holder[key]] if isinstance(holder, list) else {"text": holder[key]}
        case _:
            other, name = draw(st.sampled_from(found))
            holder[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else other)
    return document


@st.composite
def spoilt_json(draw: st.DrawFn, body: bytes) -> bytes:
    """The body with accidents inside its events."""
    try:
        return json.dumps(spoil(draw, json.loads(body))).encode()
    except ValueError:
        lines = body.split(b"\n")
    events = [i for i, line in enumerate(lines) if b"{" in line]
    for i in draw(st.lists(st.sampled_from(events), min_size=1, max_size=4)) if events else ():
        prefix, brace, rest = lines[i].partition(b"{")
        try:
            document = json.loads(brace + rest)
        except ValueError:
            continue
        lines[i] = prefix + json.dumps(spoil(draw, document)).encode()
        if draw(st.integers(0, 3)) == 0:
            lines[i] += b"\n\n" + lines[i]
    return b"\n".join(lines)


class TestSpoilt:
    """(c) Any accident gives only text, known events and an error of the tree."""

    @pytest.mark.slow
    @given(data=st.data(), name=st.sampled_from(NAMES), sizes=CUTS)
    @settings(QUICK, max_examples=200)
    def test_spoilt_bytes(self, data: st.DataObject, name: str, sizes: list[int]) -> None:
        """P5, P10: flipped, lost, doubled, inserted, cut off, in the wrong order."""
        _, headers, body, _ = RECORDED[name]
        provider = data.draw(st.just(provider_for(name)) | st.sampled_from(DECODERS))
        check_played(provider, data.draw(spoilt_bytes(body)), sizes, headers)

    @pytest.mark.slow
    @given(data=st.data(), name=st.sampled_from(STREAMS), sizes=CUTS)
    @settings(QUICK, max_examples=250)
    def test_spoilt_events(self, data: st.DataObject, name: str, sizes: list[int]) -> None:
        """P5, P10: values of wrong types, missing, in the wrong place, deep, and halves of characters."""
        _, headers, body, _ = RECORDED[name]
        check_played(provider_for(name), data.draw(spoilt_json(body)), sizes, headers)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", STREAMS)
    def test_another_dialect(self, name: str) -> None:
        """Each recording read by each provider: the wrong base URL."""
        _, headers, body, _ = RECORDED[name]
        for provider in DECODERS:
            check_played(provider, body, [1000], headers)

    def test_a_half_in_an_error(self) -> None:
        """P5: half a character in an error message of a service."""
        error = error_for_status(400, {}, '{"error": {"message": "\\ud83d", "code": "\\ude00"}}', (), "127.0.0.1")
        check_texts([error.message, error.code])

    @given(data=st.data(), name=st.sampled_from([name for name in NAMES if RECORDED[name][0] != 200]))
    @settings(QUICK, max_examples=100)
    def test_spoilt_errors(self, data: st.DataObject, name: str) -> None:
        """P10: with an error status and a damaged body, the status is still an error of the tree."""
        status, headers, body, _ = RECORDED[name]
        spoilt = data.draw(spoilt_bytes(body) | spoilt_json(body)).decode("utf-8", "replace")
        error = error_for_status(status, headers, spoilt, (), "127.0.0.1")
        assert isinstance(error, ServiceError)
        assert error.status == status
        check_texts([error.message, error.code, error.body])


# -- what a caller may pass -------------------------------------------------------------------------------------------

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["\ud83d", b"x", 1j, {1}, date(2026, 1, 1), Decimal(1), object(), int, 2**5000, Message])
)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "name", "id", "\ud83d", 7]), inner)
    ),
    max_leaves=6,
)
TEXT = st.sampled_from(["Hi", "", " ", "Grüße 🌍", "\ud83d"])
URL = st.sampled_from(["https://example.com/a.png", "data:image/png;base64,iVBORw0KGgo=", "data:,x", "x", ""])


def either(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Usually valid, sometimes anything."""
    return st.one_of(usual, usual, usual, usual, ANYTHING)


PART = st.one_of(
    TEXT,
    st.fixed_dictionaries({"type": st.just("text"), "text": either(TEXT)}),
    st.fixed_dictionaries(
        {"type": st.just("image_url"), "image_url": either(URL | st.fixed_dictionaries({"url": URL}))}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("input_audio"),
            "input_audio": either(
                st.fixed_dictionaries({"data": URL}, optional={"format": st.sampled_from(["wav", "mp3", None, ""])})
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("file"),
            "file": either(
                st.fixed_dictionaries(
                    {}, optional={"file_data": URL, "filename": TEXT, "file_id": either(st.just("f"))}
                )
            ),
        }
    ),
    st.fixed_dictionaries(
        {"type": st.just("reasoning")},
        optional={"text": either(TEXT), "signature": either(st.just("s")), "redacted": either(st.just("r"))},
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["refusal", "tool_use", "document", ""]), "refusal": either(TEXT)}),
)
CALL = st.fixed_dictionaries(
    {
        "id": either(st.sampled_from(["c1", "c2", ""])),
        "type": st.just("function"),
        "function": either(
            st.fixed_dictionaries(
                {
                    "name": either(st.sampled_from(["f", ""])),
                    "arguments": either(
                        st.sampled_from(
                            ["{}", '{"a": 1}', "", "{", "[1]", "null", '"{}"', '{"a": NaN}', "[" * 3000, {}]
                        )
                    ),
                }
            )
        ),
    },
    optional={"signature": either(st.just("s"))},
)
MESSAGE = st.one_of(
    st.fixed_dictionaries(
        {
            "role": either(st.sampled_from(["system", "developer", "user", "user", "tool", "assistant"])),
            "content": either(TEXT | st.lists(either(PART), max_size=3)),
        },
        optional={
            "name": either(st.just("n")),
            "tool_call_id": either(st.just("c1")),
            "is_error": either(st.booleans()),
        },
    ),
    st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "content": either(st.none() | TEXT | st.lists(either(PART), max_size=2)),
            "tool_calls": either(st.lists(either(CALL), max_size=2)),
        }
    ),
)
TOOL = st.fixed_dictionaries(
    {"name": either(st.sampled_from(["f", "g", "a b"]))},
    optional={
        "description": either(TEXT),
        "parameters": either(st.just({"type": "object", "properties": {"a": {"type": "integer"}}})),
        "strict": either(st.booleans()),
    },
)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": either(st.integers(1, 9)),
        "max_completion_tokens": either(st.integers(1, 9)),
        "stop": either(st.just(["a"])),
        "temperature": either(st.floats(0, 1)),
        "reasoning_effort": either(st.sampled_from(["none", "low", "max", 0, 2048, "x"])),
        "response_format": either(st.sampled_from([{"type": "json_object"}, {"type": "json_schema"}])),
        "stream": either(st.booleans()),
        "n": either(st.just(2)),
        "user": either(st.just("u")),
        "metadata": ANYTHING,
        "thinking": ANYTHING,
        "system": ANYTHING,
        "options": ANYTHING,
        "generationConfig": ANYTHING,
        "logprobs": ANYTHING,
        "seed": ANYTHING,
        "wibble": ANYTHING,
        "parallel_tool_calls": either(st.booleans()),
        "tools": either(st.lists(either(TOOL), max_size=2)),
        "tool_choice": either(st.sampled_from(["auto", "none", "required", "f", {"type": "function"}])),
        "schema": either(st.sampled_from([dict, int, {"type": "object", "properties": {}}, {"type": "array"}])),
        "schema_mode": either(st.sampled_from(["native", "tool", "json"])),
    },
)


def check_refusal(error: Exception) -> None:
    """Errors of bad input are caught by `except ValueError` or `except TypeError`, and can be printed."""
    assert isinstance(error, (ValueError, TypeError))
    check_texts(str(error))


def check_encoded(provider: type[Provider], messages: Any, params: dict[str, Any]) -> None:
    """The request is strict JSON in UTF-8, or it is rejected as bad input."""
    try:
        request = ChatRequest.checked("m", messages, params)
        encoded = provider.encode(request)
    except (InvalidRequest, ConfigError) as error:
        check_refusal(error)
        return
    json.dumps(encoded.body, allow_nan=False, ensure_ascii=False).encode()
    encoded.path.encode("ascii")
    provider.answer_tool(request)
    check_texts(dict(provider.refusals(request)))


class TestInput:
    """(d) Any value of a caller's is sent as strict JSON, or rejected before anything is sent."""

    @pytest.mark.slow
    @given(
        provider=st.sampled_from(PROVIDERS),
        messages=either(st.lists(either(MESSAGE), min_size=1, max_size=4)),
        params=PARAMS,
    )
    @settings(QUICK, max_examples=400)
    def test_anything_is_strict_json_or_refused(
        self, provider: type[Provider], messages: Any, params: dict[str, Any]
    ) -> None:
        """P23: for the dialect of every provider."""
        check_encoded(provider, messages, params)

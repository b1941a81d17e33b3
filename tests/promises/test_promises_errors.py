"""P10 and P11: one tree of errors, foreign errors never escape, and errors survive pickling and copying."""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from loopback import DONE, FINISH, chunk, event, free_port, head
from modes import Mode

from llmbridge import (
    BadRequest,
    Client,
    ClockExpired,
    CodeLinkAva,
    ConfigError,
    ConnectFailed,
    InvalidRequest,
    LLMBridgeError,
    Overloaded,
    Partial,
    PermissionDenied,
    ProtocolError,
    Provider,
    RateLimited,
    Retry,
    ServiceError,
    StreamError,
    StreamTruncated,
    Timeout,
    Usage,
    Vitalentum,
    chat,
    register,
)
from llmbridge.messages import ChatRequest, Message
from llmbridge.provider import NDJSON, Encoded, Frame, frame_json
from llmbridge.testing import CLOSE, LLMServer, Reply

NESTED_KINDS = ("error", "code", "detail", "reasoning", "reasoning_details", "content", "choices", "usage", "loc")


def outcome(pieces: Iterator[str]) -> LLMBridgeError | None:
    """The error that ends the pieces; fails for a foreign error, and for a piece that is not text."""
    ended = None
    try:
        for piece in pieces:
            assert isinstance(piece, str)
            assert piece.encode()
    except LLMBridgeError as error:
        ended = error
    if ended is not None:
        assert str(ended)
        assert str(ended) == ended.message
        pickle.loads(pickle.dumps(ended))
    return ended


REPLIES = [
    head("Transfer-Encoding: chunked") + chunk(event("При") + event("вет")) + chunk(FINISH + DONE) + b"0\r\n\r\n",
    head("Content-Length: 300") + event("a") + b": c\r\n\r\n" + FINISH + DONE,
    head("Connection: close", "X-Request-Id: r") + event("a", finish_reason="stop") + DONE,
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + head() + event("a") + DONE,
    head("Retry-After: 3", status="429 Slow", kind="application/json") + b'{"error":{"message":"m","code":"c"}}',
    head("Location: http://example.org/x", status="302 Found") + b"moved",
    head(kind="application/json") + b'{"choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":1}}',
    head(status="422 No", kind="application/json") + b'{"detail":[{"loc":["body","n"],"msg":"too big"}]}',
    head() + b'event: error\ndata: {"error":{"message":"m","type":"server_error","code":500}}\n\n',
]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The bytes with a few of them changed, lost, doubled, or moved."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(out) + 1)
        length = chance.randrange(1, 12)
        kind = chance.randrange(5)
        if kind == 0 and at < len(out):
            out[at] = chance.randrange(256)
        elif kind == 1:
            del out[at : at + length]
        elif kind == 2:
            out[at:at] = out[at : at + length * 4]
        elif kind == 3:
            out[at:at] = bytes(chance.randrange(256) for _ in range(length))
        else:
            where = chance.randrange(len(out) + 1)
            out[at:at] = out[where : where + length]
    return bytes(out)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_p10_mutated_answers_give_text_or_an_error_of_the_tree(
    server: LLMServer, client: Client, seed: int, request: pytest.FixtureRequest
) -> None:
    """Each of 120 randomly damaged answers gives text, an LLMBridgeError, or both, and nothing else."""
    chance = random.Random(seed)
    kinds = set()
    for number in range(120):
        raw = mutated(chance.choice(REPLIES), chance)
        server.script(Reply(raw=[raw, CLOSE]))
        if number % 3:
            pieces = iter(client.chat("x"))
        else:
            pieces = iter(Vitalentum.create_completion("m", "x", base_url=server.root, retries=0, timeout=20))
        try:
            kinds.add(type(outcome(pieces)))
        except Exception as error:
            raise AssertionError(f"seed {seed}, number {number}: {raw!r}") from error
    assert len(kinds) > 3


def nested(depth: int, opening: str, closing: str) -> str:
    """So many nested brackets."""
    return opening * depth + '"x"' + closing * depth


WEIRD = [None, True, 5, -1, 1.5, "", "x", "\ud800", [], {}, [[]], [5], [None], {"a": 1}, {"text": 5}, 10**400, [{}]]


def odd_chunk(chance: random.Random) -> str:
    """A chunk, a completion or an error with a few wrong values."""
    shape: Any = chance.choice(
        [
            {
                "choices": [{"index": 0, "delta": {"content": "a", "reasoning": "b"}, "finish_reason": None}],
                "usage": {},
            },
            {"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "thinking"}]}}], "error": {}},
            {"error": {"message": "m", "code": "c", "type": "t", "status": 400}, "object": "error"},
            {"detail": [{"loc": ["a", 1], "msg": "m"}], "message": "m"},
            {"choices": [], "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}}, "x_groq": {}},
        ]
    )
    shape = copy.deepcopy(shape)
    for _ in range(chance.randrange(1, 4)):
        place, key = shape, chance.choice(list(shape))
        while isinstance(place[key], (dict, list)) and place[key] and chance.random() < 0.8:
            place = place[key]
            key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
        place[key] = copy.deepcopy(chance.choice(WEIRD))
    text = json.dumps(shape)
    return chance.choice([text, f"[{text}]", json.dumps(chance.choice(WEIRD)), text])


class Trusting(Provider):
    """A dialect of another package that does not check what a service sends."""

    name = "trusting"

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        """Nothing: only the answer matters."""
        return Encoded({}, "/say")

    @classmethod
    def decode(cls, frame: Frame) -> Iterator[str]:
        """Reads text and finish reason, as if both were always there."""
        event = frame_json(frame)
        yield event["say"]
        if event.get("why"):
            {}[event["why"]]


class Lines(Trusting):
    """One JSON document a line."""

    name = "lines"

    @classmethod
    def framing(cls) -> NDJSON:
        """As docs/new-provider.md says."""
        return NDJSON()


def test_a_provider_of_json_lines_needs_public_names_only(server: LLMServer, mode: Mode) -> None:
    """Its answer is read line by line."""
    server.script(Reply(body='{"say": "Hel"}\n{"say": "lo"}\n', content_type="application/x-ndjson"))
    register(Lines)
    outcome = mode.read(chat("x", "lines:m", base_url=server.root, retries=0))
    assert "".join(outcome.pieces) == "Hello"
    assert isinstance(outcome.error, StreamTruncated)  # it has no end mark


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ("[1]", "in a stream event, got list"),
        ("null", "in a stream event, got NoneType"),
        ("{}", "KeyError in test_promises_errors.py"),
        ('{"say": "", "why": [1]}', "TypeError in test_promises_errors.py"),
        ('{"say": "", "why": "sk-secret-0123"}', "KeyError in test_promises_errors.py"),
    ],
)
@pytest.mark.quick(2)
def test_p10_a_dialect_that_is_not_ready_for_an_answer(server: LLMServer, event: str, what: str) -> None:
    """Its mistake is an error of the tree after the text that came; it says where, and quotes nothing."""
    server.script(Reply(body=f'data: {{"say": "Hel"}}\n\ndata: {event}\n\n'))
    pieces: list[str] = []
    with pytest.raises(ProtocolError, match=re.escape(what)) as caught:
        pieces.extend(Trusting.create_completion("m", "x", base_url=server.root, retries=0, timeout=20))
    assert (pieces, caught.value.partial) == (["Hel"], "Hel")
    assert "sk-secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_p10_odd_values_give_text_or_an_error_of_the_tree(server: LLMServer, client: Client, seed: int) -> None:
    """JSON of unexpected shapes, in streams, documents and error bodies, never ends in a KeyError or the like."""
    chance = random.Random(seed)
    for number in range(150):
        text = odd_chunk(chance)
        named = "event: error\n" if chance.random() < 0.3 else ""
        reply = chance.choice(
            [
                Reply(body=f"{named}data: {text}\n\n".encode() + DONE),
                Reply(body=text, content_type="application/json"),
                Reply(body=text, status=chance.choice((400, 404, 422, 429, 500, 503, 999))),
                Reply(body=f"data: {text}\n\n", status=500, content_type="text/event-stream"),
            ]
        )
        server.script(reply)
        try:
            outcome(iter(client.chat("x")))
        except Exception as error:
            raise AssertionError(f"seed {seed}, number {number}: {text}") from error


def nested_text(kind: str, deep: str) -> str:
    """A document with a deeply nested value."""
    if kind in ("error", "usage", "detail", "choices"):
        return f'{{"{kind}":{deep}}}'
    if kind == "code":
        return f'{{"error":{{"message":"m","code":{deep}}}}}'
    if kind == "loc":
        return f'{{"detail":[{{"loc":{deep},"msg":"m"}}]}}'
    return f'{{"choices":[{{"delta":{{"{kind}":{deep}}}}}]}}'


@pytest.mark.slow
@pytest.mark.parametrize("kind", NESTED_KINDS)
def test_p10_nested_json_is_no_recursion_error(server: LLMServer, client: Client, kind: str) -> None:
    """JSON nested too deeply for Python gives text or an error of the tree, wherever it is."""
    for brackets in (("[", "]"), ('{"text":', "}"), ('{"message":', "}"), ('[{"text":', "}]")):
        for depth in (100, 300, 450, 900, 980, 2000, 50_000):
            text = nested_text(kind, nested(depth, *brackets))
            server.script(
                Reply(body=f"data: {text}\n\n".encode() + DONE),
                Reply(body=text, content_type="application/json"),
                Reply(body=text, status=400),
            )
            for _ in range(3):
                outcome(iter(client.chat("x")))


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 0000 00:00:00 GMT",
        "Mon, 32 Feb 2026 25:61:61 +9999",
        "(", "0, (", "-1", "nan", "inf", "1e999", "soon", ",", "9" * 400, "1 2 3", "\xb2",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["Retry-After", "retry-after-ms"])
def test_p10_a_strange_wish_to_wait_is_no_other_error(server: LLMServer, client: Client, name: str, value: str) -> None:
    """Any Retry-After leaves the error a rate limit."""
    server.script(Reply(status=429, headers={name: value}))
    assert type(outcome(iter(client.chat("x")))) is RateLimited


@pytest.mark.parametrize("where", ["http://[bad", "//[", "http://a:b:c/", "http://:99999/", "\xff", "", "http://u@/"])
def test_p10_a_strange_redirect_is_no_other_error(server: LLMServer, client: Client, where: str) -> None:
    """An invalid Location does not matter: the redirect is the error."""
    server.script(Reply("x", status=302, headers={"Location": where}))
    error = outcome(iter(client.chat("x")))
    assert isinstance(error, ServiceError)
    assert error.status == 302


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-Encoding", "br"),
        ("Content-Encoding", "gzip, gzip"),
        ("Content-Encoding", "zstd" * 50),
        ("Content-Type", ";;;"),
        ("Content-Type", "\xff"),
        ("Content-Length", "many"),
        ("Content-Length", "-5"),
        ("Transfer-Encoding", "chunked, chunked"),
        ("Transfer-Encoding", "gzip"),
        ("Set-Cookie", "=;=;" * 20),
        ("X-Should-Retry", "perhaps"),
        ("Connection", "upgrade"),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "404 Gone", "500 Oh"])
def test_p10_strange_headers_give_text_or_an_error_of_the_tree(
    server: LLMServer, client: Client, name: str, value: str, status: str
) -> None:
    """Unexpected headers do not end in a foreign error."""
    server.script(Reply(raw=[head(f"{name}: {value}", status=status) + event("a") + DONE, CLOSE]))
    outcome(iter(client.chat("x")))


@pytest.mark.parametrize("session", [None, requests.Session()], ids=["own", "foreign"])
def test_p10_two_lengths_of_one_body_are_the_servers_fault(
    server: LLMServer, client: Client, session: requests.Session | None
) -> None:
    """Such a server does not speak HTTP; requests blames a header, as if it were the caller's."""
    body = event("a") + DONE
    lengths = [f"Content-Length: {length}" for length in (len(body), 5)]
    server.default = Reply(raw=[head(*lengths), body, CLOSE])
    error = outcome(iter(client.chat("x", session=session)))
    assert type(error) is ProtocolError
    assert "sent an invalid HTTP response" in error.message


BAD_ARGUMENTS: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "empty text": {"messages": ""},
    "no list": {"messages": 5},
    "bytes": {"messages": b"x"},
    "one message": {"messages": {"role": "user", "content": "x"}},
    "unknown role": {"messages": [{"role": "robot", "content": "x"}]},
    "no role": {"messages": [{"content": "x"}]},
    "no content": {"messages": [{"role": "user", "content": None}]},
    "content of numbers": {"messages": [{"role": "user", "content": 5}]},
    "surrogate": {"messages": "\ud800"},
    "surrogate in a part": {"messages": [{"role": "user", "content": [{"type": "text", "text": "\udfff"}]}]},
    "nan": {"temperature": float("nan")},
    "infinity": {"metadata": {"a": [float("inf")]}},
    "a set": {"stop": {"a"}},
    "an object": {"user": object()},
    "a key that is not a str": {"metadata": {1: 2}},
    "key with a line end": {"api_key": "sk-1\nX: y"},
    "key with NUL": {"api_key": "sk-\0"},
    "key not ASCII": {"api_key": "ключ"},
    "empty key": {"api_key": " "},
    "key of bytes": {"api_key": b"sk"},
    "header with a line end": {"headers": {"X-A": "a\r\nX-B: b"}},
    "header name with a colon": {"headers": {"X:A": "a"}},
    "header that is not a str": {"headers": {"X-A": 5}},
    "headers that are a list": {"headers": [("a", "b")]},
    "framing header": {"headers": {"Content-Length": "5"}},
    "base_url without a scheme": {"base_url": "127.0.0.1:80"},
    "base_url of another scheme": {"base_url": "ftp://127.0.0.1"},
    "base_url with a query": {"base_url": "http://127.0.0.1/?a=b"},
    "base_url with a line end": {"base_url": "http://127.0.0.1/\r\nX: y"},
    "base_url that is not a str": {"base_url": 5},
    "proxy of another scheme": {"proxy": "ftp://127.0.0.1"},
    "proxy True": {"proxy": True},
    "timeout 0": {"timeout": 0},
    "timeout of text": {"timeout": "5"},
    "timeout NaN": {"timeout": float("nan")},
    "retries below 0": {"retries": -1},
    "retries of text": {"retries": "2"},
    "session of another kind": {"session": object()},
    "verify of another kind": {"verify": 5},
    "verify of a missing file": {"verify": "/nowhere/ca.pem"},
    "no base_url where one is needed": {"model": "openai-compatible:m", "base_url": None},
    "unknown provider": {"model": "nobody:m", "base_url": None},
    "no model's name": {"model": "openai:"},
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_p10_bad_arguments_are_refused_before_any_request(server: LLMServer, name: str) -> None:
    """Invalid arguments are rejected at the call, with an error that is a ValueError or TypeError too."""
    options: dict[str, Any] = {"messages": "x", "model": "openai:m", "api_key": "sk-test-123456"}
    options = {"base_url": server.base_url("openai"), **options, **BAD_ARGUMENTS[name]}
    with pytest.raises(ConfigError) as caught:
        chat(options.pop("messages"), **options)
    assert isinstance(caught.value, (ValueError, TypeError))
    assert server.connections == 0


@pytest.mark.parametrize("provider", [Vitalentum, CodeLinkAva])
def test_p10_the_ancestors_refuse_bad_arguments_at_the_call(server: LLMServer, provider: Any) -> None:
    """The classes reject as early as `chat`, and not in the first step of the loop."""
    for messages, kwargs in (([], {}), ("x", {"temperature": float("nan")}), ("x", {"proxy": "ftp://a"})):
        with pytest.raises(ConfigError):
            provider.create_completion("m", messages, base_url=server.root, **kwargs)
    assert server.connections == 0


def _failures(server: LLMServer) -> dict[str, tuple[type[LLMBridgeError], Reply | None, dict[str, Any]]]:
    quick = {"retries": Retry(1, backoff=0.01)}
    return {
        "status": (PermissionDenied, Reply("no", status=403), {}),
        "retried": (Overloaded, Reply("no", status=503, headers={"Retry-After": "0"}), quick),
        "rate": (RateLimited, Reply("no", status=429, headers={"Retry-After": "7"}), {}),
        "truncated": (StreamTruncated, Reply(["a", "b"], end_mark=False, finish_reason=None), {}),
        "in stream": (StreamError, Reply(["a"], error={"message": "no", "code": "x"}), {}),
        "protocol": (ProtocolError, Reply(body="data: {\n\n"), {}),
        "idle": (ClockExpired, Reply(["a"], stall=700), {"timeout": Timeout(idle=0.15)}),
        "refused": (ConnectFailed, None, {"base_url": f"http://127.0.0.1:{free_port()}"}),
        "redirect": (ServiceError, Reply("x", status=307, headers={"Location": "http://example.org"}), {}),
        "bad": (BadRequest, Reply("x" * 1000, status=400, headers={"X-Request-Id": "r-1"}), {}),
    }


@pytest.mark.parametrize("name", sorted(_failures(None)))  # type: ignore[arg-type]
@pytest.mark.parametrize("way", ["pickle", "copy", "deepcopy"])
def test_p11_errors_survive_pickling_and_copying(server: LLMServer, client: Client, name: str, way: str) -> None:
    """Class, message, status, text so far and request id are kept, for errors of real calls."""
    ways: dict[str, Callable[[LLMBridgeError], LLMBridgeError]] = {
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    }
    kind, reply, options = _failures(server)[name]
    server.script(*[reply] * 2 if reply else [])
    with pytest.raises(kind) as caught:
        list(client.chat("x", **options))
    error = caught.value
    again = ways[way](error)
    assert type(again) is type(error)
    assert (str(again), again.args) == (str(error), error.args)
    assert vars(again) == vars(error)
    assert again.partial == error.partial
    assert (again.provider, again.model) == ("openai", "m")
    if reply is not None and name != "idle":
        assert again.request_id
    for field in ("status", "code", "body", "retry_after", "retryable", "clock"):
        assert getattr(again, field, None) == getattr(error, field, None)


@pytest.mark.parametrize("name", sorted(_failures(None)))  # type: ignore[arg-type]
def test_p11_errors_hold_values_only(server: LLMServer, client: Client, name: str) -> None:
    """An error keeps no session, request, response, connection or headers alive."""
    kind, reply, options = _failures(server)[name]
    server.script(*[reply] * 2 if reply else [])
    with pytest.raises(kind) as caught:
        list(client.chat("x", **options))
    values = [*vars(caught.value).values(), *vars(caught.value.partial).values()]
    assert {type(value) for value in values} <= {str, int, float, bool, tuple, Message, Partial, Usage, type(None)}
    link: BaseException | None = caught.value
    while link is not None:
        assert not {"request", "response"} & {name for name, value in vars(link).items() if value is not None}
        link = link.__cause__ or link.__context__


def test_p11_errors_of_refused_calls_survive_too() -> None:
    """Errors from before any request pickle like the others."""
    with pytest.raises(InvalidRequest) as caught:
        chat([], model="demo")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (InvalidRequest, str(caught.value))

"""P40: schema retries keep the first answer, calls of unknown tools are answered, and patterns end in time."""

from __future__ import annotations

import copy
import pickle
import time
import typing
from typing import Any

import pytest
from conftest import KEY
from modes import Mode

from llmbridge import (
    Client,
    ClockExpired,
    InvalidOutput,
    LLMBridgeError,
    MissingKey,
    Overloaded,
    RateLimited,
    Retry,
    StreamTruncated,
)
from llmbridge._call import plan
from llmbridge.testing import HOLD, LLMServer, Reply

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
FIRST = '{"age": "seven"}'
DIALECTS = ["openai", "anthropic", "gemini", "mistral", "cohere"]


def caught(mode: Mode, stream: Any) -> LLMBridgeError:
    """The error that `complete()`, or `await`, ends with."""
    with pytest.raises(LLMBridgeError) as found:
        mode.complete(stream)
    return found.value


def weather(city: str) -> str:
    """The weather."""
    return f"{city}: sun"


# -- a schema retry that fails -----------------------------------------------------------------------------------

NOTHING = {
    "status": (Reply(status=529), Overloaded),
    "in the stream": (Reply(error={"type": "overloaded_error", "message": "m"}), Overloaded),
    "broken off": (Reply([], end_mark=False, finish_reason=None), StreamTruncated),
    "too long": (Reply(raw=[HOLD]), ClockExpired),
}


@pytest.mark.parametrize("how", NOTHING)
@pytest.mark.quick(2)
def test_p40_the_first_answer_is_kept_where_the_second_brings_nothing(server: LLMServer, mode: Mode, how: str) -> None:
    """`.partial` is the first answer, and the cause says what was wrong with it, each time."""
    reply, kind = NOTHING[how]
    server.script(Reply(FIRST, usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}), reply)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, timeout=2) as client:
        stream = client.chat("x", schema=SCHEMA)
        for _ in range(2):
            error = caught(mode, stream)
            assert type(error) is kind
            assert error.partial == FIRST
            assert error.partial.message is not None
            assert error.partial.usage is not None
            assert error.partial.usage.total_tokens == 7
            assert type(error.__cause__) is InvalidOutput
            assert error.__cause__.problems == ('age: expected an integer, got the string "seven"',)
            assert error.__cause__.partial == FIRST
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply('{"age": "eight"}'), InvalidOutput, '{"age": "eight"}'),
        (Reply(['{"ag'], end_mark=False, finish_reason=None), StreamTruncated, '{"ag'),
    ],
)
def test_p40_both_answers_are_kept_where_the_second_brings_something(
    client: Client, server: LLMServer, mode: Mode, reply: Reply, kind: type[LLMBridgeError], text: str
) -> None:
    """`.partial` is the second answer, with the first in its turns, to continue from."""
    server.script(Reply(FIRST), reply)
    error = caught(mode, client.chat("x", schema=SCHEMA))
    assert type(error) is kind
    assert error.partial == text
    assert [(turn.role, turn.text) for turn in error.partial.turns[:1]] == [("assistant", FIRST)]
    assert [turn.role for turn in error.partial.turns] == ["assistant", "user"]
    assert type(error.__cause__) is InvalidOutput
    assert error.__cause__.partial == FIRST


def test_p40_copies_of_the_error_keep_all_answers(client: Client, server: LLMServer, mode: Mode) -> None:
    """Also from a worker process."""
    server.script(Reply(FIRST), Reply('{"age": "eight"}'))
    error = caught(mode, client.chat("x", schema=SCHEMA))
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (twin.partial, len(twin.partial.turns)) == ('{"age": "eight"}', 2)
        assert type(twin.__cause__) is InvalidOutput
        assert twin.__cause__.partial == FIRST


def test_p40_each_asking_is_the_cause_of_the_next(client: Client, server: LLMServer, mode: Mode) -> None:
    """And all answers are in the turns."""
    server.script(Reply(FIRST), Reply('{"age": "eight"}'), Reply('{"age": "nine"}'))
    error = caught(mode, client.chat("x", schema=SCHEMA, schema_retries=2))
    texts = []
    link: BaseException | None = error
    while isinstance(link, LLMBridgeError):
        texts.append(str(link.partial))
        link = link.__cause__
    assert texts == ['{"age": "nine"}', '{"age": "eight"}', FIRST]
    assert [turn.text for turn in error.partial.turns if turn.role == "assistant"] == [FIRST, '{"age": "eight"}']


def test_p40_the_cause_of_an_error_is_followed_by_the_first_answer(server: LLMServer, mode: Mode) -> None:
    """The error of a total timeout already has a cause."""
    server.script(Reply(FIRST), Reply(status=429, headers={"Retry-After": "30"}))
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=Retry(1), timeout=15) as client:
        error = caught(mode, client.chat("x", schema=SCHEMA))
    assert type(error) is ClockExpired
    assert type(error.__cause__) is RateLimited
    assert type(error.__cause__.__cause__) is InvalidOutput
    assert error.partial == FIRST


def test_p40_a_conversation_and_tools_keep_it_too(client: Client, server: LLMServer, mode: Mode) -> None:
    """Also if the retry cannot even be sent."""
    server.script(Reply(FIRST), Reply(status=529))
    talk = client.conversation(schema=SCHEMA)
    error = caught(mode, talk.ask("x"))
    assert (error.partial, type(error.__cause__)) == (FIRST, InvalidOutput)
    server.script(
        Reply(tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}]), Reply(FIRST), Reply(status=529)
    )
    error = caught(mode, client.run("x", tools=[weather], schema=SCHEMA))
    assert (error.partial, type(error.__cause__)) == (FIRST, InvalidOutput)
    assert [turn.role for turn in error.partial.turns] == ["assistant", "tool"]


def test_p40_it_is_kept_where_the_second_cannot_be_made(
    client: Client, server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key may have left the environment meanwhile."""
    server.default = Reply(FIRST)
    stream = client.chat("x", schema=SCHEMA)

    def refuse(*_: Any, **__: Any) -> None:
        raise MissingKey("no key")

    monkeypatch.setattr(plan, "chat_route", refuse)
    error = caught(mode, stream)
    assert type(error) is MissingKey
    assert (error.partial, type(error.__cause__)) == (FIRST, InvalidOutput)


# -- tools that are not there ------------------------------------------------------------------------------------

UNKNOWN = Reply(tool_calls=[{"name": "Answer_me", "arguments": {"age": 7}}])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("schema_mode", ["tool", "native", "json"])
def test_p40_a_call_of_an_unknown_tool_is_no_answer(
    server: LLMServer, mode: Mode, dialect: str, schema_mode: Any
) -> None:
    """The model gets an error as the result of its call, and another request; then it is InvalidOutput."""
    server.default = UNKNOWN
    with Client(f"{dialect}:m", base_url=server.base_url(dialect), api_key=KEY, retries=0, timeout=20) as client:
        error = caught(mode, client.chat("x", schema=SCHEMA, schema_mode=schema_mode))
        assert type(error) is InvalidOutput
        assert error.problems == ("(root): expected an answer, got a call of the unknown tool 'Answer_me'",)
        assert [call.name for call in error.partial.tool_calls] == ["Answer_me"]
        assert len(server.requests) == 2
        stream = client.chat("x", schema=SCHEMA, schema_mode=schema_mode)
        assert mode.read(stream).error is None
        with pytest.raises(InvalidOutput, match="Answer_me"):
            _ = stream.parsed
        server.script(UNKNOWN, Reply('{"age": 7}'))
        if schema_mode != "tool":
            assert mode.complete(client.chat("x", schema=SCHEMA, schema_mode=schema_mode)).parsed == {"age": 7}


@pytest.mark.parametrize("schema_mode", ["tool", "native"])
def test_p40_a_call_of_a_tool_that_was_offered_is_the_callers(
    client: Client, server: LLMServer, mode: Mode, schema_mode: Any
) -> None:
    """Also beside a call of an unknown tool; a service's own tools are never unknown."""
    server.default = Reply(tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "nope"}])
    answer = mode.complete(client.chat("x", tools=[weather], schema=SCHEMA, schema_mode=schema_mode))
    assert answer.parsed is None
    assert [call.name for call in answer.tool_calls] == ["weather", "nope"]
    server.default = Reply(tool_calls=[{"name": "nope", "arguments": {}}])
    error = caught(mode, client.chat("x", tools=[weather], schema=SCHEMA, schema_mode=schema_mode))
    assert "known tools are weather" in str(error)
    own = {"type": "function", "function": {"name": "other"}, "x_own": True}
    answer = mode.complete(client.chat("x", tools=[own], schema=SCHEMA, schema_mode=schema_mode))
    assert answer.parsed is None


# -- patterns ----------------------------------------------------------------------------------------------------

PATTERNS = {
    "pattern": ({"type": "string", "pattern": "^(a+)+$"}, '"{}!"'),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^(a+)+$": True}, "additionalProperties": False},
        '{{"{}!": 1}}',
    ),
    "propertyNames": ({"type": "object", "propertyNames": {"pattern": "^(a|aa)+$"}}, '{{"{}!": 1}}'),
    "choice": ({"anyOf": [{"pattern": "(a|a)*b"}, {"pattern": "(a*)*b"}]}, '"{}!"'),
}


@pytest.mark.parametrize("place", PATTERNS)
def test_p40_a_pattern_does_not_outlive_the_total_clock(
    client: Client, server: LLMServer, mode: Mode, place: str
) -> None:
    """Text that takes `re` very long is checked quickly and correctly."""
    part, text = PATTERNS[place]
    schema = {"type": "object", "properties": {"x": part}, "required": ["x"]}
    server.default = Reply(f'{{"x": {text.format("a" * 29)}}}')
    started = time.process_time()
    error = caught(mode, client.chat("x", schema=schema, schema_retries=0, timeout=20))
    assert type(error) is InvalidOutput
    assert time.process_time() - started < 5


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?!b)(a|a)*$", r"^(a+)+\1$"])
def test_p40_nor_does_one_of_a_model_that_asks_re(client: Client, server: LLMServer, mode: Mode, pattern: str) -> None:
    """pydantic has its own search, and can use `re`, which lookaheads need."""
    pydantic = pytest.importorskip("pydantic", minversion="2")

    class Names(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        model_config = pydantic.ConfigDict(regex_engine="python-re")
        names: list[typing.Annotated[str, pydantic.Field(pattern=pattern)]]

    server.default = Reply(f'{{"names": ["a", "{"a" * 25}!"]}}')
    started = time.process_time()
    error = caught(mode, client.chat("x", schema=Names, schema_retries=0, timeout=20))
    assert type(error) is InvalidOutput
    assert [problem.partition(":")[0] for problem in error.problems] == ["names[1]"]
    assert time.process_time() - started < 5

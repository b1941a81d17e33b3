"""Common mistakes and their messages: nothing is sent, and the message has the right spelling."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import warnings
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
from modes import LOOPS, Async, Mode

import llmbridge
from llmbridge import (
    ChatStream,
    Client,
    Completion,
    ConfigError,
    Image,
    InvalidRequest,
    Text,
    chat,
    conversation,
    embed,
    providers,
    register,
    tool,
)
from llmbridge import options as options_module
from llmbridge.options import refuse_misspelt
from llmbridge.providers.openai import OpenAI
from llmbridge.testing import LLMServer, Reply

SLIPS = {
    "api_kye": "api_key",
    "apiKey": "api_key",
    "base_ulr": "base_url",
    "timout": "timeout",
    "verfy": "verify",
    "proxi": "proxy",
    "retires": "retries",
    "header": "headers",
    "sesion": "session",
    "temprature": "temperature",
    "tempature": "temperature",
    "max_token": "max_tokens",
    "maxTokens": "max_tokens",
    "topp": "top_p",
    "sotp": "stop",
    "stops": "",
    "reasoning_efort": "reasoning_effort",
    "response_fromat": "response_format",
    "run_tool": "run_tools",
    "tool": "tools",
    "tool_choise": "tool_choice",
    "schem": "schema",
    "sytem": "system",
    "modle": "model",
    "unsuported": "unsupported",
    "extra_headers": "headers",
    "max_retries": "retries",
    "reask": "schema_retries",
    "proxies": "proxy",
}
"""Slips, and what is meant; "" for one that is too near to what may be meant otherwise."""

TAKEN = """
    add_generation_prompt api_version audio background bad_words beta best_of cache_control cache_prompt cached_content
    chat_template chat_template_kwargs citation_options container context_management conversation country data_sources
    deferred details do_sample documents draft_model dry_base dry_multiplier dynatemp_range echo effort enable_thinking
    encoding_format fallbacks format frequencyPenalty functions function_call generationConfig grammar guardrails
    guided_json guided_regex ignore_eos include include_reasoning input_type instructions json_schema k keep_alive
    key labels language length_penalty limit location logit_bias logprob_start_len lora maxOutputTokens max_length
    max_new_tokens max_output_tokens max_prompt_tokens max_results max_thinking_tokens max_time max_tool_calls
    max_tokens_to_sample mcp_servers messages metadata minTokens min_keep min_p min_tokens mirostat modalities mode
    model_id models moderation n_predict n_probs n_keep num_beams num_ctx num_predict options output output_config
    p page parallel parameters persona prediction presencePenalty preset previous_response_id priority project
    prompt_cache_key prompt_logprobs prompt_mode provider query random_seed raw reasoning reasoning_format regex
    region rep_pen repeat_last_n repeat_penalty repetition_penalty request_id rerank responseLogprobs responseMimeType
    responseSchema response_logprobs role route safe_prompt safetySettings safety_identifier samplers schema_id
    search_parameters seeds separate_reasoning serviceTier service_tier session_id skip_special_tokens speed
    stopSequences stop_sequences stop_token_ids stop_words store stream stream_options structured_outputs style
    suffix summary systemInstruction system_prompt task template temp text tfs_z think thinking thinkingConfig
    thinking_budget token tokens toolConfig tool_resources tool_stream topK topP top_a top_k_return top_n top_n_sigma
    top_n_tokens transforms truncate truncation typical_p url user user_id verbosity version voice
    watermark web_search_options webhook xtc_threshold
""".split()
"""What services take, or may come to take."""


@pytest.mark.parametrize("name", SLIPS)
def test_a_misspelt_option_is_refused_before_anything_is_sent(server: LLMServer, client: Client, name: str) -> None:
    """A misspelt option would go to the service, which ignores it: rejected in each function, and as a default."""
    if not SLIPS[name]:
        assert client.chat("Hi", **{name: "x"})
        return
    asks: list[Callable[..., Any]] = [
        lambda **asked: client.chat("Hi", **asked),
        lambda **asked: client.run("Hi", **asked),
        lambda **asked: client.embed("Hi", **asked),
        lambda **asked: client.aembed("Hi", **asked),
        lambda **asked: chat("Hi", "demo", **asked),
        lambda **asked: embed("Hi", "demo", **asked),
        lambda **asked: conversation("demo", **asked),
        lambda **asked: client.conversation().ask("Hi", **asked),
        lambda **asked: OpenAI.create_completion("m", "Hi", **asked),
        lambda **asked: OpenAI.create_async("m", "Hi", **asked),
        Client,
    ]
    for ask in asks:
        with pytest.raises(ConfigError) as caught:
            ask(**{name: "sk-not-to-be-shown"})
        assert f"{name!r} is not an option" in str(caught.value)
        assert f"did you mean {SLIPS[name]!r}?" in str(caught.value)
        assert f"extra={{{name!r}: ...}}" in str(caught.value)
        assert "not-to-be-shown" not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("ask", [Client.models, Client.amodels])
def test_a_misspelt_option_of_models_is_refused(client: Client, ask: Callable[..., Any]) -> None:
    """`models()` has only its own parameters, and lists them."""
    with pytest.raises(ConfigError, match=r"models\(\) has no option timout \(did you mean 'timeout'\?\)"):
        ask(client, timout=1)


def test_what_services_take_passes() -> None:
    """Parameters of services are never taken for typos."""
    refuse_misspelt(dict.fromkeys(TAKEN), tuple)
    own = {name for provider in providers.known().values() for name in (*provider.settings, *provider.refused)}
    refuse_misspelt(dict.fromkeys(own), tuple)


def test_what_a_provider_of_ones_own_takes_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A custom provider may name its settings freely."""

    class Own(OpenAI):
        name = "own-names"
        settings = frozenset({"toolz"})
        needs_key = False

    monkeypatch.setattr(providers, "_registered", dict(providers._registered))
    register(Own)
    assert chat("Hi", "own-names:m", toolz=1).model == "m"
    assert Own.create_completion("m", "Hi", toolz=1)


def test_every_named_argument_is_known_to_the_check() -> None:
    """A new named argument is added to the names that may be suggested."""
    named = {*inspect.signature(Client.__init__).parameters, *inspect.signature(Client.embed).parameters}
    assert named - {"self", "texts", "params"} <= options_module._MEANT


def test_extra_goes_into_the_body_as_it_is(server: LLMServer, client: Client) -> None:
    """`extra` is not checked; a call's own overrides the client's, and the rest of the body."""
    server.default = Reply("Hello")
    with Client(
        "openai:gpt-5-mini",
        api_key="k-0123456789",
        base_url=server.base_url("openai"),
        proxy=False,
        extra={"timout": 1, "tenant": "a"},
    ) as own:
        own.chat("Hi", max_tokens=9, extra={"temprature": 1, "tenant": "b", "user": "me"}).complete()
        body = server.requests[-1].json
        assert (body["timout"], body["temprature"], body["tenant"], body["user"]) == (1, 1, "b", "me")
        own.embed("Hi", extra={"timeout": 5})
        assert server.requests[-1].json["timeout"] == 5
    "".join(OpenAI.create_completion(
        "m", "Hi", api_key="k-0123456789", base_url=server.base_url("openai"), proxy=False, extra={"schema": "s"}
    ))  # fmt: skip
    assert server.requests[-1].json["schema"] == "s"


@pytest.mark.parametrize(
    ("extra", "says"), [("a", "extra must be a mapping"), ({"a": {1}}, "extra['a'] is of type set")]
)
def test_an_extra_that_no_body_can_hold_is_refused(client: Client, extra: Any, says: str) -> None:
    """An invalid `extra` is rejected at the call."""
    for ask in (client.chat, client.embed):
        with pytest.raises(ConfigError) as caught:
            ask("Hi", extra=extra)
        assert says in str(caught.value)


# -- streams that were never read - ------------------------------------------------------------------------------------

UNREAD = ("text", "reasoning", "tool_calls", "citations", "media", "server_tools", "usage", "finish_reason", "parsed")


@pytest.mark.parametrize("name", UNREAD)
def test_a_stream_that_was_never_begun_says_so(client: Client, name: str) -> None:
    """Its attributes raise, rather than look like an empty answer. Nothing is sent, and it can still be read."""
    stream = client.chat("Hi")
    with pytest.raises(InvalidRequest, match=r"has not been read yet.* loop over the stream .*complete\(\).*await"):
        getattr(stream, name)
    assert "not started, 0 characters" in repr(stream)
    assert (stream.headers, stream.request_id, stream.rate_limits, stream.total_seconds) == ({}, None, None, None)
    assert (stream.model, stream.response_id, stream.served_model, dict(stream.extra)) == ("m", None, None, {})
    stream.complete()
    getattr(stream, name)


def test_a_stream_that_was_begun_or_ended_has_what_came(client: Client, server: LLMServer) -> None:
    """They work from the first piece on, and after the stream was closed."""
    server.default = Reply(["Hel", "lo"])
    stream = client.chat("Hi")
    next(stream)
    assert stream.text == "Hel"
    stream.close()
    unread = client.chat("Hi")
    unread.close()
    assert (unread.text, unread.usage, unread.tool_calls) == ("", None, ())


def test_acomplete_is_a_coroutine(client: Client, server: LLMServer) -> None:
    """`acomplete()` works with functions that accept only a coroutine."""
    server.default = Reply("Hello")
    assert asyncio.run(client.chat("Hi").acomplete()).text == "Hello"

    async def main() -> str:
        task = asyncio.create_task(client.chat("Hi").acomplete())
        return (await task).text

    assert asyncio.run(main()) == "Hello"
    texts: list[str] = []

    async def note(stream: ChatStream) -> None:
        texts.append((await stream.acomplete()).text)

    async def nursery() -> None:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(note, client.chat("Hi"))
            tasks.start_soon(client.chat("Hi").acomplete)

    trio.run(nursery)
    assert texts == ["Hello"]


# -- sync calls where an event loop runs ------------------------------------------------------------------------------


async def _completes(client: Client) -> Any:
    return await client.chat("Hi").complete()  # type: ignore[misc]


async def _completes_within(client: Client) -> Any:
    async for piece in client.chat("Hi").complete():  # type: ignore[attr-defined]
        assert piece


async def _embeds(client: Client) -> Any:
    return await client.embed("Hi", dimensions=None)  # type: ignore[misc]


async def _lists(client: Client) -> Any:
    return await client.models()  # type: ignore[misc]


async def _loops(client: Client) -> Any:
    async for piece in await client.chat("Hi"):  # type: ignore[attr-defined]
        assert piece


async def _collects(client: Client) -> Any:
    return [piece async for piece in await client.conversation().ask("Hi", max_tokens=9)]


async def _loops_within(client: Client) -> Any:
    for _ in range(2):
        if client:
            async for piece in await client.chat(["Hi", "there"][:1][0]):  # type: ignore[attr-defined]
                assert piece


@pytest.mark.parametrize(
    ("main", "says"),
    [
        (_completes, r"write `await chat\(...\)` without .complete\(\), or use acomplete\(\)"),
        (_completes_within, r"without .complete\(\)"),
        (_embeds, r"aembed\(\)"),
        (_lists, r"amodels\(\)"),
        (_loops, r"write `async for piece in chat\(...\)`, without await"),
        (_collects, "without await"),
        (_loops_within, "without await"),
    ],
)
@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_an_await_in_the_wrong_place_fails_before_anything_is_paid(
    server: LLMServer, client: Client, main: Callable[[Client], Any], says: str, run: Async
) -> None:
    """Otherwise it would fail after the answer, with an unhelpful message of Python's."""
    with pytest.raises(InvalidRequest, match=says):
        run.run(lambda: main(client))
    assert server.requests == []


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_a_call_that_blocks_an_event_loop_warns(client: Client, run: Async) -> None:
    """It warns at the line of the call, and the answer comes."""

    def helper() -> str:
        return client.chat("Hi").complete().text

    async def main() -> list[str]:
        texts = [helper(), client.chat("Hi").complete().text, "".join(client.chat("Hi"))]
        return [*texts, "".join(event.text for event in client.chat("Hi").events() if isinstance(event, Text))]

    with pytest.warns(RuntimeWarning, match=r"blocks the event loop.*await chat\(...\)") as caught:
        assert len(set(run.run(main))) == 1
    assert [warning.filename for warning in caught] == [__file__] * 4


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_calls_that_do_not_block_do_not_warn(client: Client, run: Async) -> None:
    """Awaited answers, worker threads and notebook cells do not warn."""

    def helper() -> str:
        return client.chat("Hi").complete().text

    cell = compile("text = client.chat('Hi').complete().text", "cell", "exec")
    awaiting = compile(
        "text = client.chat('Hi').complete().text; await go_on()", "cell", "exec", PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    kernel: dict[str, Any] = {"__name__": "IPython.core.interactiveshell", "exec": exec}
    exec("async def run_code(cell, names): exec(cell, names)", kernel)

    async def main() -> set[str]:
        names: dict[str, Any] = {"client": client, "go_on": anyio.lowlevel.checkpoint, "__name__": "__main__"}
        await kernel["run_code"](cell, names)
        first = names.pop("text")
        await eval(awaiting, names)
        texts = {first, names["text"], await anyio.to_thread.run_sync(helper), (await client.chat("Hi")).text}
        async with client.chat("Hi") as stream:
            return {*texts, "".join([piece async for piece in stream])}

    assert len(run.run(main)) == 1


# -- tools that are never run, and answers as texts --------------------------------------------------------------------

CALLS = Reply("", tool_calls=[{"name": "add", "arguments": {"a": 2, "b": 3}}])


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def test_a_loop_over_text_warns_of_tools_that_are_not_run(mode: Mode, client: Client, server: LLMServer) -> None:
    """The loop would look as if the model had said nothing."""
    server.default = CALLS
    with pytest.warns(RuntimeWarning, match=r"the model called add, which was not run: pass run_tools=True"):
        mode.read(client.chat("2 + 3?", tools=[add]))


def test_who_answers_calls_himself_is_not_warned(mode: Mode, client: Client, server: LLMServer) -> None:
    """`run_tools=False`, a Completion, events and tools without a function do not warn."""
    server.default = CALLS
    described = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}
    mode.read(client.chat("2 + 3?", tools=[add], run_tools=False))
    mode.read(client.chat("2 + 3?", tools=[described]))
    mode.read(client.chat("2 + 3?", tools=[add]).events())
    assert mode.complete(client.chat("2 + 3?", tools=[add])).tool_calls
    server.default = replace(CALLS, content="Let me see.")
    assert mode.read(client.chat("2 + 3?", tools=[add])).pieces == ["Let me see."]
    server.default = Reply("5")
    assert mode.read(client.chat("2 + 3?", tools=[add])).pieces == ["5"]


def test_an_answer_is_used_like_its_text(client: Client, server: LLMServer) -> None:
    """`in`, `+`, `len` and format work; it stays true, since a call of a tool has no text."""
    server.default = Reply(" Paris, France ")
    answer = client.chat("Hi").complete()
    assert "Paris" in answer
    assert answer + "!" == " Paris, France !"
    assert "> " + answer + answer == ">  Paris, France  Paris, France "
    assert (len(answer), answer[1:6], list(answer)[1]) == (15, "Paris", "P")
    assert f"{answer:>16}|" == "  Paris, France |"
    assert answer.strip() == "Paris, France"
    assert answer.split() == ["Paris,", "France"]
    assert (answer.lower(), answer.upper()) == (" paris, france ", " PARIS, FRANCE ")
    assert answer.replace("a", "", 1).strip().startswith("Pris")
    assert answer.splitlines() == [" Paris, France "]
    assert answer.endswith(" ")
    assert answer == " Paris, France "
    assert answer == answer != client.chat("Hi").complete()
    assert bool(Completion("")) is True
    for wrong in (lambda: answer + 1, lambda: 1 + answer):  # type: ignore[operator]
        with pytest.raises(TypeError):
            wrong()


def test_an_answer_has_a_short_repr(client: Client, server: LLMServer) -> None:
    """One line, with the finish reason; the text is shortened."""
    server.default = Reply("word\n" * 100)
    answer = client.chat("Hi").complete()
    assert "\n" not in repr(answer)
    assert len(repr(answer)) < 200
    assert repr(answer).startswith("Completion(text='word\\nword")
    assert repr(answer).endswith("...', reasoning='', finish_reason='stop', model='openai:m')")


def test_an_answer_without_text_says_why_where_it_is_used_as_text(client: Client, server: LLMServer) -> None:
    """Otherwise `print(answer)` prints an empty line."""
    server.default = CALLS
    answer = client.chat("2 + 3?", tools=[add]).complete()
    assert "tool_calls=[add], finish_reason='tool_calls'" in repr(answer)
    for use in (str, format):
        with pytest.warns(RuntimeWarning, match="has no text: the model called add, but nobody ran it"):
            assert use(answer) == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [("content", r"\.complete\(\)\.text"), ("choices", r"\.complete\(\)\.text"), ("texts", "no attribute 'texts'$")],
)
def test_names_of_other_libraries_say_what_to_write(client: Client, name: str, says: str) -> None:
    """The hint appears on a stream, on its answer and on one of several."""
    with pytest.raises(AttributeError, match=says):
        getattr(client.chat("Hi"), name)
    answer = client.chat("Hi").complete()
    for owner, habit in ((answer, "content"), (answer.choices[0], "message")):
        with pytest.raises(AttributeError, match=r"its text is \.text"):
            getattr(owner, habit)
        assert not hasattr(owner, "texts")


def nameless(a, b=1):  # type: ignore[no-untyped-def]  # noqa: D103 - as the mistake is made
    return a + b


@pytest.mark.parametrize(
    "offer",
    [
        lambda: chat("2 + 3?", "demo", tools=[nameless]),
        lambda: chat("2 + 3?", "demo", tools=[functools.partial(nameless, 1)], run_tools=True),
        lambda: conversation("demo", tools=[nameless]).ask("2 + 3?"),
        lambda: tool(nameless),
        lambda: tool(name="add")(nameless),
    ],
    ids=["chat", "partial", "conversation", "decorator", "named"],
)
def test_a_tool_that_says_nothing_of_itself_warns(offer: Callable[[], Any]) -> None:
    """The model gets a name and no more. The warning names the caller's line."""
    says = r"cannot know what the tool (nameless|add) does.*type hints and a docstring, or .*tool\(description=\.\.\.\)"
    with pytest.warns(RuntimeWarning, match=says) as caught:
        offer()
    assert [warning.filename for warning in caught] == [__file__]


def test_a_tool_that_says_nothing_is_told_once(client: Client, server: LLMServer) -> None:
    """A loop that asks again and again is not flooded."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            client.chat("2 + 3?", tools=[nameless]).complete()
    assert len(caught) == 1


def test_a_tool_that_says_something_does_not_warn() -> None:
    """A docstring, a hint, a description, or a name of which nothing more is to be said."""

    def now():  # type: ignore[no-untyped-def]
        return "noon"

    def hinted(a: int):  # type: ignore[no-untyped-def]
        return a

    chat("2 + 3?", "demo", tools=[add, now, hinted, round, tool(name="x", description="Adds.")(nameless)])


# -- what a call is made of -------------------------------------------------------------------------------------------

TURN = {"role": "user", "content": "Hi"}

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no model": (lambda: chat("Hi"), r"no model given: pass model=.*'demo'.*all providers: llmbridge providers$"),
    "a model alone": (lambda: chat("Hi", "gpt-5-mini"), r"names no provider: did you mean 'openai:gpt-5-mini'\?"),
    "another's": (lambda: chat("Hi", "claude-sonnet-4-5"), "did you mean 'anthropic:claude-sonnet-4-5'"),
    "a slip": (lambda: chat("Hi", "opnai"), r"names no provider: .*\(did you mean 'openai'\?\)"),
    "a slip before a colon": (
        lambda: chat("Hi", "opnai:gpt-5-mini"),
        r"unknown provider 'opnai' \(did you mean 'openai'",
    ),
    "nothing near": (lambda: chat("Hi", "quux"), "or give base_url= for an OpenAI-compatible server"),
    "swapped": (
        lambda: chat("demo", "Write a haiku"),
        r"wrong way round\? It is chat\(messages, model\)",
    ),
    "swapped, one word": (lambda: chat("openai:gpt-5-mini", "Hello"), "the wrong way round"),
    "swapped, a list": (lambda: chat("demo", [TURN]), "the wrong way round"),  # type: ignore[list-item]
    "a role": (
        lambda: chat([{"role": "human", "content": "Hi"}], "demo"),
        r"'human' is unknown \(did you mean 'user'\?\)",
    ),
    "a role of Gemini": (lambda: chat([{"role": "model", "content": "Hi"}], "demo"), r"\(did you mean 'assistant'\?\)"),
    "a role misspelt": (
        lambda: chat([{"role": "asistant", "content": "Hi"}], "demo"),
        r"\(did you mean 'assistant'\?\)",
    ),
    "text": (
        lambda: chat([{"role": "user", "text": "x"}], "demo"),
        r"messages\[0\] has no 'content' \(it has 'text'\)",
    ),
    "turns of str": (
        lambda: chat(["Hi", "Hello"], "demo"),
        r"messages\[0\].*not str: write \{'role': 'user', 'content'",
    ),
}


@pytest.mark.parametrize(("ask", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_says_what_to_write(ask: Callable[[], Any], says: str) -> None:
    """The message fits on one line."""
    with pytest.raises(ConfigError, match=says) as caught:
        ask()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("key", ["'k-0123456789'", '"k-0123456789"', ' "k-0123456789"\n', '""'])
def test_a_key_in_quotes_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An .env file has them, and what reads it may leave them there. Nothing of the key is quoted."""
    with pytest.raises(ConfigError, match=r"^api_key is in quotes: leave them out$"):
        Client("openai:m", api_key=key)
    with pytest.raises(ConfigError, match=r"^what api_key\(\) returned is in quotes: leave them out$"):
        chat("Hi", "openai:m", api_key=lambda: key, base_url="http://127.0.0.1:9").complete()
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match=r"^OPENAI_API_KEY is in quotes: leave them out$"):
        chat("Hi", "openai:m")


def test_a_client_is_a_model(server: LLMServer, client: Client) -> None:
    """`chat(model=client)` works like a list with that client."""
    server.default = Reply("Hello")
    assert chat("Hi", model=client).complete().text == "Hello"
    assert Client(client).chat("Hi").complete().model == "m"


def test_a_stream_that_is_read_twice_says_why_it_cannot_be(mode: Mode, server: LLMServer, client: Client) -> None:
    """It was read, it was left early, or it is being read elsewhere."""
    server.default = Reply(["Hel", "lo"], delay=0.01)
    read, left, elsewhere = (client.chat("Hi") for _ in range(3))
    mode.read(read)
    assert "already been read to its end" in str(mode.read(read).error)
    mode.each(left, bool)
    assert "left before its end" in str(mode.read(left).error)
    next(elsewhere)
    assert "is being read elsewhere" in str(mode.read(elsewhere.events()).error)
    elsewhere.close()


@pytest.mark.parametrize("schema", [{"name": "str"}, {"title": "str", "year": "int"}, {"schema": {"a": {}}}])
def test_a_schema_of_names_alone_is_refused(schema: dict[str, Any]) -> None:
    """Names with types would allow everything, and be paid for twice."""
    with pytest.raises(InvalidRequest, match=r"is not a keyword of JSON schema: did you mean .*\"properties\""):
        chat("Hi", "demo", schema=schema)


@pytest.mark.parametrize(
    "schema", [{"title": "anything"}, {"description": "x"}, {"x": True}, {"$ref": "#/$defs/a", "$defs": {"a": {}}}]
)
def test_a_schema_that_says_little_is_taken(schema: dict[str, Any]) -> None:
    """A schema with few keywords is accepted if it cannot be a table of names."""
    assert chat("Hi", "demo", schema=schema)


@pytest.mark.parametrize(("name", "content"), [("a.jpg", b"hello"), ("a.png", b"<html>\n"), ("a.webp", b"RIFF")])
def test_a_picture_whose_bytes_are_a_text_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """The service would say so in its own words."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"a\.\w+' is not image/\w+: its bytes begin with b'"):
        Image(path)
    assert Image(path, media_type="image/jpeg")


def test_dir_shows_what_users_use(client: Client) -> None:
    """`dir()` hides internal names."""
    assert dir(llmbridge) == sorted(llmbridge.__all__)
    shown = {name for name in dir(client) if not name.startswith("_")}
    asked = {
        "chat", "run", "map", "conversation", "embed", "aembed", "models", "amodels", "close", "aclose",
        "default_model",
    }  # fmt: skip
    assert shown == asked


def _of_a_function() -> str:
    return "key-of-a-function"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"api_key": "k-0123456789"}, "the key came from api_key=$"),
        ({"api_key": "sk-ant-0123456789"}, "the key came from api_key=, and looks like one of anthropic$"),
        ({"api_key": _of_a_function}, "the key came from the function given as api_key$"),
        ({}, "the key came from OPENAI_API_KEY$"),
    ],
)
def test_a_refused_key_says_where_it_came_from(
    server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], says: str
) -> None:
    """The message names the key's source, since keys often come from the wrong place. The key is not quoted."""
    monkeypatch.setenv("OPENAI_API_KEY", "k-9876543210")
    server.default = Reply("no", status=401)
    with Client("openai:m", base_url=server.base_url("openai"), proxy=False, **given) as client:
        error = mode.read(client.chat("Hi")).error
    assert error is not None
    assert re.search(says, error.message)
    assert "0123456789" not in str(error)

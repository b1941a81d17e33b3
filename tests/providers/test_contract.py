"""What every provider must do, checked for each one that is found; a new one is tested automatically."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbridge import (
    AsyncGeneratorProvider,
    AuthError,
    Client,
    ConfigError,
    LLMBridgeError,
    ProtocolError,
    Provider,
    Reasoning,
    ServerError,
    StreamError,
    StreamTruncated,
    Tool,
    UnknownProvider,
    chat,
    providers,
)
from llmbridge._call.framing import Framing, Record
from llmbridge.events import End, Item
from llmbridge.messages import ChatRequest
from llmbridge.options import OPTION_NAMES, checked_base_url, checked_headers
from llmbridge.provider import Encoded
from llmbridge.secret import revealed
from llmbridge.testing import LLMServer, Reply

PROVIDERS = list(providers.known().values())
EVERY = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
PIECES = ["Grüße", ", ", "世界 ", "🌍", "!"]
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Привет"},
    {"role": "assistant", "content": "Hm?"},
    {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]},
]


ODD_SCHEMAS: dict[str, dict[str, Any]] = {
    "alternatives": {"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "union": {"type": "object", "oneOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}]},
    "all": {"type": "object", "allOf": [{"$ref": "#/$defs/A"}, {"required": ["a"]}], "$defs": {"A": {}}},
    "reference": {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "not": {"required": ["a"]}}}},
    "cases": {"type": "object", "properties": {}, "if": {"required": ["a"]}, "then": {"required": ["b"]}},
    "values": {"type": "object", "properties": {"a": {}}, "enum": [{"a": 1}, {}]},
    "array": {"type": "object", "properties": {"a": {"anyOf": [{"type": "array"}, {"type": ["array", "null"]}]}}},
    "draft-04": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "exclusiveMinimum": True}}},
    "draft-07": {"$schema": "x", "type": "object", "properties": {"a": {"items": [{"type": "string"}]}}},
    "nulls": {"type": "object", "description": None, "properties": {"a": {"type": "string", "enum": None}}},
    "pattern": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?!x)\\p{L}+$"}}},
}


def base_url(provider: type[Provider], server: LLMServer) -> str:
    """The base URL of the loopback server for the provider's dialect."""
    try:
        return server.base_url(provider.name)
    except ValueError:  # a provider with OpenAI's dialect
        return server.base_url("openai")


def request(**params: Any) -> ChatRequest:
    """A request of several turns."""
    return ChatRequest.checked("some-model", TURNS, params)


@EVERY
class TestData:
    """The data of a provider's class."""

    def test_it_is_found_by_its_name(self, provider: type[Provider]) -> None:
        """The name is in lower case, and usable before a colon."""
        assert providers.find(provider.name) is provider
        assert providers.known()[provider.name] is provider
        assert provider.name == provider.name.lower().strip()
        assert not set(provider.name) & set(":/ \t\n")

    def test_it_is_used_as_the_ancestors_were(self, provider: type[Provider]) -> None:
        """A class with the interface's methods, without an instance."""
        assert issubclass(provider, Provider)
        assert issubclass(provider, AsyncGeneratorProvider)
        for method in ("create_completion", "create_async_generator", "create_async"):
            assert callable(getattr(provider, method))

    def test_it_says_in_one_line_how_it_is(self, provider: type[Provider]) -> None:
        """For `llmbridge providers`."""
        assert provider.note.strip() == provider.note != ""
        assert "\n" not in provider.note
        assert len(provider.note) <= 120

    def test_it_has_a_docstring_of_its_own(self, provider: type[Provider]) -> None:
        """The first line says what it is."""
        assert (provider.__dict__.get("__doc__") or "").strip()

    def test_its_data_has_the_promised_types(self, provider: type[Provider]) -> None:
        """Other code relies on them."""
        assert isinstance(provider.working, bool)
        assert isinstance(provider.needs_key, bool)
        assert isinstance(provider.supports_gpt_35_turbo, bool)
        assert isinstance(provider.url, str)
        assert isinstance(provider.key_env, tuple)
        assert all(name.isupper() for name in provider.key_env)
        assert provider.default_model is None or provider.default_model.strip()

    def test_its_urls_are_sound(self, provider: type[Provider]) -> None:
        """They follow the rules for a caller's URLs; paths begin with a slash."""
        if provider.base_url:
            assert checked_base_url(provider.base_url) == provider.base_url
        if provider.url:
            assert checked_base_url(provider.url) == provider.url
        assert provider.path.startswith("/")

    def test_its_headers_are_sound(self, provider: type[Provider]) -> None:
        """They follow the rules for a caller's headers."""
        assert checked_headers(provider.headers) == dict(provider.headers)

    def test_a_needed_key_has_a_variable(self, provider: type[Provider]) -> None:
        """Otherwise the advice to set it would be empty."""
        assert provider.key_env or not provider.needs_key

    def test_its_key_goes_into_a_header(self, provider: type[Provider]) -> None:
        """Never in the URL."""
        headers = checked_headers(provider.auth_headers("sk-1"))
        assert "sk-1" in " ".join(map(revealed, headers.values()))  # type: ignore[arg-type]


def texts_in(value: Any) -> Iterator[str]:
    """Every str in a body, also in JSON inside a str."""
    if isinstance(value, str):
        yield value
        if value.startswith("{"):
            yield from texts_in(json.loads(value))
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_in(inner)


@EVERY
class TestEncode:
    """`encode` is a pure function."""

    def test_the_body_is_strict_json(self, provider: type[Provider]) -> None:
        """P23: without NaN and lone surrogates."""
        encoded = provider.encode(request(temperature=0.5))
        assert isinstance(encoded, Encoded)
        json.dumps(encoded.body, allow_nan=False, ensure_ascii=False).encode()
        assert encoded.path.startswith("/")

    def test_the_same_request_gives_the_same_body(self, provider: type[Provider]) -> None:
        """No time, randomness or state."""
        first, second = provider.encode(request(seed=1)), provider.encode(request(seed=1))
        assert (first.body, first.path, first.headers) == (second.body, second.path, second.headers)

    def test_the_request_is_not_changed(self, provider: type[Provider]) -> None:
        """A retry sends it again."""
        asked = request(options={"a": [1]})
        before = copy.deepcopy(asked)
        provider.encode(asked)
        assert asked == before

    def test_nothing_is_sent(self, provider: type[Provider], monkeypatch: pytest.MonkeyPatch) -> None:
        """No socket is opened."""

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("encode() opened a socket")

        monkeypatch.setattr(socket, "socket", refuse)
        monkeypatch.setattr(socket, "create_connection", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        provider.encode(request())

    def test_every_text_is_in_the_body(self, provider: type[Provider]) -> None:
        """No turn is lost, including the system's."""
        texts = "\n".join(texts_in(provider.encode(request()).body))
        for text in ("Be brief.", "Привет", "Hm?", "Hi ", "there"):
            assert text in texts

    def test_parameters_are_in_the_body(self, provider: type[Provider]) -> None:
        """Every keyword that is not a transport option is a parameter of the service."""
        body = provider.encode(request(temperature=0.25, wibble=[1])).body
        assert "0.25" in json.dumps(body)
        assert "wibble" in json.dumps(body)

    def test_no_option_of_the_transport_is_in_the_body(self, provider: type[Provider]) -> None:
        """Proxy, key and timeouts are not sent."""
        assert not set(OPTION_NAMES) & set(provider.encode(request()).body)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | st.text(max_size=4) | st.sampled_from(["error", "stop", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "choices delta content index error message usage finish_reason reasoning text type code detail".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


ITEMS = (*get_args(Item), End)


def check_items(items: Callable[[], Iterable[Any]]) -> None:
    """Checks that everything is a known item or an error of llmbridge."""
    with contextlib.suppress(LLMBridgeError):
        for item in items():
            assert isinstance(item, ITEMS), item
            assert item != ""
            assert not isinstance(item, Reasoning) or item.text or item.signature or item.redacted or item.raw


@EVERY
class TestDecode:
    """`decode` is a pure function as well."""

    @pytest.mark.slow
    @given(value=ANY_JSON, event=st.sampled_from(["message", "error", "ping"]))
    @settings(max_examples=150)
    def test_any_json_is_items_or_an_error_of_the_tree(self, provider: type[Provider], value: Any, event: str) -> None:
        """P10: no KeyError, IndexError or TypeError; P5: no empty piece."""
        check_items(lambda: provider.decode(Record(json.dumps(value), event)))

    @pytest.mark.slow
    @given(text=st.text(max_size=40))
    @settings(max_examples=100)
    def test_any_text_is_items_or_an_error_of_the_tree(self, provider: type[Provider], text: str) -> None:
        """Frames that are not JSON."""
        check_items(lambda: provider.decode(Record(text)))

    @pytest.mark.slow
    @given(value=ANY_JSON)
    @settings(max_examples=150)
    def test_any_document_is_items_or_an_error_of_the_tree(self, provider: type[Provider], value: Any) -> None:
        """P8: a whole JSON document instead of a stream."""
        check_items(lambda: provider.decode_document(value))

    @pytest.mark.slow
    @pytest.mark.parametrize("key", ["content", "reasoning", "reasoning_content", "error", "usage", "choices"])
    def test_deep_nesting_is_not_a_recursion_error(self, provider: type[Provider], key: str) -> None:
        """P10: JSON that the parser still accepts, wherever decoding reads it."""
        for opening, closing in (("[", "]"), ('{"text":', "}"), ('{"message":', "}")):
            nest = opening * 900 + '"x"' + closing * 900
            delta = f'{{"choices": [{{"delta": {{"{key}": {nest}}}}}]}}'
            check_items(lambda delta=delta: provider.decode(Record(delta)))
            check_items(lambda nest=nest: provider.decode(Record(f'{{"{key}": {nest}}}')))

    def test_each_answer_has_a_framing_of_its_own(self, provider: type[Provider]) -> None:
        """Framings hold state: two streams must not share one."""
        assert isinstance(provider.framing(), Framing)
        assert provider.framing() is not provider.framing()


@EVERY
class TestOverTheWire:
    """The whole way, with the loopback server."""

    def test_a_stream_gives_its_pieces(self, provider: type[Provider], server: LLMServer) -> None:
        """Text, finish reason and usage."""
        server.script(Reply(PIECES, usage=True))
        with Client(retries=0) as client:
            stream = client.chat(TURNS, f"{provider.name}:m", base_url=base_url(provider, server), proxy=False)
            assert list(stream) == PIECES
        assert stream.finish_reason == "stop"
        assert stream.usage is not None
        assert stream.usage.output_tokens == len("".join(PIECES).split())
        assert stream.usage.input_tokens
        assert stream.provider == provider.name

    def test_the_class_streams_by_itself(self, provider: type[Provider], server: LLMServer) -> None:
        """`stream=False` joins the pieces, and sends the same request."""
        server.default = Reply(PIECES)
        at = base_url(provider, server)
        pieces = provider.create_completion("m", TURNS, base_url=at, proxy=False)
        assert list(pieces) == PIECES
        assert provider.create_completion("m", TURNS, stream=False, base_url=at, proxy=False) == "".join(PIECES)
        first, second = server.requests
        assert first.body == second.body

    def test_n_1_works_everywhere(self, provider: type[Provider], server: LLMServer) -> None:
        """`n=1` is the default; services without `n` do not get it."""
        server.script(Reply("x"))
        with Client(retries=0) as client:
            at = base_url(provider, server)
            client.chat("Hi", f"{provider.name}:m", base_url=at, proxy=False, n=1).complete()
        if provider.name in ("anthropic", "cohere", "ollama", "openai-responses"):
            assert "n" not in server.requests[0].json

    @pytest.mark.parametrize("kind", ODD_SCHEMAS)
    @pytest.mark.parametrize("how", ["tool", "schema", "schema as a tool"])
    def test_schemas_from_elsewhere_are_taken(
        self, provider: type[Provider], how: str, kind: str, server: LLMServer
    ) -> None:
        """From MCP servers and OpenAPI documents; the test server rejects them as the services would."""
        if "tools" not in provider.supports or (provider.name == "ollama" and how == "schema as a tool"):
            pytest.skip("it cannot be asked so")
        if kind == "array" and getattr(provider, "schema_grammar", False):
            pytest.skip("its grammars read {} as an object, and OpenAI's words are not its own")
        schema = ODD_SCHEMAS[kind]
        options: dict[str, Any] = {"schema": schema, "schema_mode": "tool" if how == "schema as a tool" else None}
        if how == "tool":
            options = {"tools": [{"name": "f", "description": "Does it.", "inputSchema": schema}]}
        server.script(Reply("{}"))
        with Client(retries=0) as client:
            at = base_url(provider, server)
            assert "".join(client.chat("Hi", f"{provider.name}:m", base_url=at, proxy=False, **options)) == "{}"

    @pytest.mark.parametrize("how", ["tool", "schema"])
    def test_a_schema_that_was_changed_in_a_body_is_sent_anew(self, provider: type[Provider], how: str) -> None:
        """The form of a schema is remembered from call to call, but each body has its own."""
        if "tools" not in provider.supports:
            pytest.skip("it cannot be asked so")
        schema = {"title": "city", "type": "object", "properties": {"name": {"type": "string"}}}
        options = {"tools": [Tool("find", "Finds.", schema)]} if how == "tool" else {"schema": schema}

        def encoded() -> Any:
            return provider.encode(ChatRequest.checked("m", "Hi", options)).body

        body = encoded()
        before = json.dumps(body)
        for inner in _mappings(body):
            inner["changed"] = True
        assert json.dumps(encoded()) == before

    @pytest.mark.parametrize("form", ["field", "part"])
    def test_a_refusal_of_another_service_goes_on(self, provider: type[Provider], form: str, server: LLMServer) -> None:
        """In the form of OpenAI's package, and as a part: the model reads it as text."""
        said = {"content": None, "refusal": "Not that."}
        if form == "part":
            if provider.name in ("demo", "vitalentum", "codelinkava"):
                pytest.skip("takes text only")
            said = {"content": [{"type": "refusal", "refusal": "Not that."}]}
        server.script(Reply("x"))
        with Client(retries=0) as client:
            client.chat(
                [TURNS[1], {"role": "assistant", **said}, TURNS[3]],
                f"{provider.name}:m",
                base_url=base_url(provider, server),
                proxy=False,
            ).complete()
        body = server.requests[0].body.decode()
        assert "Not that." in body
        if provider.name in ("anthropic", "gemini", "ollama", "mistral", "cohere"):  # these reject OpenAI's form
            assert "refusal" not in body

    def test_what_is_encoded_is_what_is_sent(self, provider: type[Provider], server: LLMServer) -> None:
        """To the path under the base URL, with the provider's headers."""
        server.script(Reply("x"))
        with Client(retries=0) as client:
            client.chat(
                TURNS, f"{provider.name}:some-model", base_url=base_url(provider, server), proxy=False, max_tokens=7
            ).complete()
        (received,) = server.requests
        encoded = provider.encode(request(max_tokens=7))
        assert received.method == "POST"
        assert received.path.endswith(encoded.path)
        assert received.json == encoded.body
        for name, value in provider.headers.items():
            assert received.header(name) == value

    def test_the_key_is_sent_to_the_base_url(self, provider: type[Provider], server: LLMServer) -> None:
        """In the provider's own header."""
        server.script(Reply("x"))
        with Client(retries=0, api_key="sk-0123456") as client:
            client.chat("Hi", f"{provider.name}:m", base_url=base_url(provider, server), proxy=False).complete()
        for name, value in provider.auth_headers("sk-0123456").items():
            assert server.requests[0].header(name) == value

    def test_a_stream_without_its_end_is_truncated(self, provider: type[Provider], server: LLMServer) -> None:
        """P6: after all text so far."""
        server.script(Reply(PIECES, finish_reason=None, end_mark=False, usage=False))
        with Client(retries=0) as client, pytest.raises(StreamTruncated) as caught:
            client.chat("Hi", f"{provider.name}:m", base_url=base_url(provider, server), proxy=False).complete()
        assert caught.value.partial == "".join(PIECES)

    def test_an_error_in_the_stream_is_raised(self, provider: type[Provider], server: LLMServer) -> None:
        """P9: after all text so far."""
        server.script(Reply(PIECES, error={"message": "boom", "type": "server_error"}))
        with Client(retries=0) as client, pytest.raises(ServerError, match="boom") as caught:
            client.chat("Hi", f"{provider.name}:m", base_url=base_url(provider, server), proxy=False).complete()
        assert caught.value.partial == "".join(PIECES)
        assert caught.value.provider == provider.name

    def test_a_report_that_names_no_error_is_raised(self, provider: type[Provider], server: LLMServer) -> None:
        """P9: in FastAPI's form, in the provider's framing; an end mark of a gateway after it hides nothing."""
        line = "" if provider.framing().begins_with_json else "data: "
        mark = "data: [DONE]\n\n" if line else ""
        server.script(Reply(body=f'{line}{{"detail": "boom"}}\n\n{mark}'))
        with Client(retries=0) as client, pytest.raises(StreamError, match="boom"):
            client.chat("Hi", f"{provider.name}:m", base_url=base_url(provider, server), proxy=False).complete()

    def test_a_bad_status_is_raised(self, provider: type[Provider], server: LLMServer) -> None:
        """P10: with its class."""
        server.script(Reply("No.", status=401))
        with Client(retries=0) as client, pytest.raises(AuthError, match=r"No\.") as caught:
            client.chat("Hi", f"{provider.name}:m", base_url=base_url(provider, server), proxy=False).complete()
        assert (caught.value.status, caught.value.provider, caught.value.model) == (401, provider.name, "m")

    @pytest.mark.parametrize("content_type", ["text/html", "text/event-stream"])
    def test_a_page_in_place_of_a_stream_is_refused(
        self, provider: type[Provider], server: LLMServer, content_type: str
    ) -> None:
        """P8: a login page or captive portal, whatever its type."""
        server.script(Reply(body="<!doctype html><title>Login</title>", content_type=content_type))
        with Client(retries=0) as client, pytest.raises(ProtocolError, match="HTML"):
            client.chat("Hi", f"{provider.name}:m", base_url=base_url(provider, server), proxy=False).complete()


def test_those_of_this_version_are_found() -> None:
    """The two first services, OpenAI's dialect, and the demo; without a list of names."""
    assert {"vitalentum", "codelinkava", "openai", "openai-compatible", "demo"} <= set(providers.known())


@pytest.mark.parametrize("code", ["def", "undefined", "import nowhere_to_be_found", "P = 5", "raise OSError('no')"])
def test_a_broken_entry_point_breaks_nothing_else(
    server: LLMServer, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported once and by `find()`; all other providers work."""
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[llmbridge.providers]\nbroken = broken_module:P\n", encoding="utf-8")
    (tmp_path / "broken_module.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(providers, "_of_entry_points", None)
    monkeypatch.setattr(providers, "_broken", {})
    monkeypatch.delitem(sys.modules, "broken_module", raising=False)
    with pytest.warns(RuntimeWarning, match="broken") as told:
        assert {"vitalentum", "openai", "demo"} <= set(providers.known())
    assert len(told) == 1
    with pytest.raises(ConfigError, match="broken_module"):
        providers.find("broken")
    assert chat("Hello", "m", base_url=server.base_url("openai")).complete().text


def test_an_unknown_name_lists_the_known_ones() -> None:
    """So that a typing mistake is easily fixed."""
    with pytest.raises(UnknownProvider) as caught:
        providers.find("opnai")
    for name in providers.known():
        assert name in str(caught.value)


def test_a_mistyped_name_gets_the_one_that_was_meant() -> None:
    """Without reading the whole list."""
    with pytest.raises(UnknownProvider, match="did you mean 'gemini'"):
        providers.find("gemni")
    with pytest.raises(UnknownProvider) as caught:
        providers.find("qqqqqqqq")
    assert "did you mean" not in str(caught.value)


_HALF = "\\ud83d"
_SURROGATES = {
    "openai": 'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"x":"%s"}}\n\n'
    "data: [DONE]\n\n",
    "anthropic": 'data: {"type":"message_start","message":{"usage":{"input_tokens":1,"x":"%s"}}}\n\n'
    'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}\n\n'
    'data: {"type":"message_stop"}\n\n',
    "gemini": 'data: {"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}],'
    '"usageMetadata":{"promptTokenCount":1,"x":"%s"}}\n\n',
    "openai-responses": 'data: {"type":"response.output_text.delta","delta":"a"}\n\n'
    'data: {"type":"response.completed","response":{"status":"completed","output":[{"type":"message",'
    '"content":[{"type":"output_text","text":"a"}]}],"usage":{"input_tokens":1,"x":"%s"}}}\n\n',
    "ollama": '{"message":{"content":"a"},"done":true,"done_reason":"stop","prompt_eval_count":1,"x":"%s"}\n',
}


@pytest.mark.parametrize("name", _SURROGATES)
def test_half_a_character_in_the_counts_is_replaced(server: LLMServer, name: str) -> None:
    """P5: also if the framing has parsed the event already, and no text of it is kept."""
    server.script(Reply(body=(_SURROGATES[name] % _HALF).encode()))
    with Client(f"{name}:m", base_url=server.base_url(name), api_key="k-0123456789", retries=0) as client:
        answer = client.chat("x").complete()
    assert answer.text == "a"
    assert answer.usage is not None
    assert json.dumps(dict(answer.usage.raw), ensure_ascii=False).encode()


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    """All dicts in some JSON."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, (dict, list)):
        for inner in [*value.values()] if isinstance(value, dict) else value:
            yield from _mappings(inner)

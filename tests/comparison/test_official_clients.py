"""The services' own clients read everything that the testing server sends.

They are installed only by `tox -e compare`; tests of missing clients are skipped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from llmbridge.testing import LLMServer, Reply

# The clients and their dependencies warn of their own future, which is not tested here.
pytestmark = pytest.mark.filterwarnings("default")

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TEXT = Reply(["Grüße, ", "世界 🌍"])
CALL = {"name": "get_weather", "arguments": {"city": "Zürich"}, "id": "call00001"}
CALLS = Reply(tool_calls=[CALL, {"name": "get_time", "arguments": {}}])
THOUGHT = Reply("Four.", reasoning=["Two and ", "two."])
BUSY = Reply("Slow down", status=429, headers={"Retry-After": "0"})
BROKEN = Reply(["Hel"], error="overloaded")
MANY = Reply(models=["a", "b"])
HELLO: Any = [{"role": "user", "content": "Hi there"}]
ANTHROPIC_TOOLS: Any = [{"name": "get_weather", "input_schema": SCHEMA}]
OPENAI_TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]


class TestOpenAI:
    """The openai package, against OpenAI's and Azure's endpoints."""

    @pytest.fixture
    def client(self, server: LLMServer) -> Iterator[Any]:
        """A client without retries."""
        openai = pytest.importorskip("openai")
        with openai.OpenAI(api_key="k", base_url=server.base_url("openai"), max_retries=0) as made:
            yield made

    def stream(self, client: Any, server: LLMServer, reply: Reply, **options: Any) -> list[Any]:
        """The chunks of one answer."""
        server.script(reply)
        asked = {"stream_options": {"include_usage": True}, "model": "m", "messages": HELLO, **options}
        return list(client.chat.completions.create(stream=True, **asked))

    def test_text_and_usage(self, client: Any, server: LLMServer) -> None:
        """Streamed and whole."""
        *chunks, last = self.stream(client, server, TEXT)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Grüße, 世界 🌍"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert (last.choices, last.usage.prompt_tokens, last.usage.completion_tokens) == ([], 2, 3)
        server.script(TEXT)
        whole = client.chat.completions.create(model="m", messages=HELLO)
        assert (whole.choices[0].message.content, whole.usage.total_tokens) == ("Grüße, 世界 🌍", 5)
        assert whole._request_id == "req-test-2"

    def test_tools(self, client: Any, server: LLMServer) -> None:
        """The client assembles the calls, and accepts them when they are sent back."""
        server.script(CALLS)
        with client.chat.completions.stream(model="m", messages=HELLO, tools=OPENAI_TOOLS) as stream:
            message = stream.get_final_completion().choices[0].message
        assert [call.function.arguments for call in message.tool_calls] == ['{"city":"Zürich"}', "{}"]
        server.script(CALLS)
        whole = client.chat.completions.create(model="m", messages=HELLO, tools=OPENAI_TOOLS).choices[0]
        assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
        answers = [{"role": "tool", "tool_call_id": call.id, "content": "x"} for call in whole.message.tool_calls]
        server.script(TEXT)
        replay = [*HELLO, whole.message, *answers]
        assert client.chat.completions.create(model="m", messages=replay).choices[0].message.content

    def test_reasoning_refusal_logprobs_and_choices(self, client: Any, server: LLMServer) -> None:
        """Everything besides the text is where the client looks for it."""
        chunks = self.stream(client, server, THOUGHT)
        thought = [getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in chunks[:-1]]
        assert [piece for piece in thought if piece] == ["Two and ", "two."]
        chunks = self.stream(client, server, Reply(refusal="I will not do that."))
        assert "".join(chunk.choices[0].delta.refusal or "" for chunk in chunks[:-1]) == "I will not do that."
        given = [{"token": "Hi", "bytes": [72, 105], "logprob": -0.5, "top_logprobs": []}]
        server.script(Reply("Hi", logprobs=given, choices=["Ho"]))
        whole = client.chat.completions.create(model="m", messages=HELLO, n=2, logprobs=True)
        assert [choice.message.content for choice in whole.choices] == ["Hi", "Ho"]
        assert whole.choices[0].logprobs.content[0].logprob == -0.5

    def test_structured_output(self, client: Any, server: LLMServer) -> None:
        """The client parses an answer that matches its schema."""
        pydantic = pytest.importorskip("pydantic")
        place = pydantic.create_model("Place", city=(str, ...))
        server.script(Reply('{"city": "Bern"}'))
        parsed = client.chat.completions.parse(model="m", messages=HELLO, response_format=place)
        assert parsed.choices[0].message.parsed.city == "Bern"

    def test_responses(self, client: Any, server: LLMServer) -> None:
        """The other endpoint: streamed and whole, with reasoning, calls, usage and errors."""
        import openai

        reply = Reply(["Grüße, ", "世界"], reasoning=["Two and ", "two."], tool_calls=[CALL])
        tools: Any = [{"type": "function", "name": "get_weather", "parameters": SCHEMA}]
        server.script(reply, reply, Reply("x", finish_reason="length"), BUSY, BROKEN)
        with client.responses.stream(model="m", input="Hi there", tools=tools) as stream:
            streamed = stream.get_final_response()
        for response in (streamed, client.responses.create(model="m", input="Hi there", tools=tools)):
            thought, message, call = response.output
            assert (thought.summary[0].text, response.output_text) == ("Two and two.", "Grüße, 世界")
            assert (message.role, call.name, call.arguments) == ("assistant", "get_weather", '{"city":"Zürich"}')
            assert (response.status, response.usage.input_tokens, response.usage.output_tokens) == ("completed", 2, 6)
        cut = client.responses.create(model="m", input="Hi")
        assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model="m", input="Hi")
        assert list(client.responses.create(model="m", input="Hi", stream=True))[-1].type == "error"

    def test_errors(self, client: Any, server: LLMServer) -> None:
        """Each status becomes the client's own class, and an error in a stream is raised."""
        import openai

        for status, kind in [
            (400, openai.BadRequestError),
            (401, openai.AuthenticationError),
            (403, openai.PermissionDeniedError),
            (404, openai.NotFoundError),
            (429, openai.RateLimitError),
            (503, openai.InternalServerError),
        ]:
            server.script(Reply("No", status=status))
            with pytest.raises(kind, match="No") as caught:
                client.chat.completions.create(model="m", messages=HELLO)
            assert caught.value.request_id
        with pytest.raises(openai.APIError, match="overloaded"):
            self.stream(client, server, Reply(["Hel"], error={"message": "overloaded", "code": 503}))

    def test_embeddings_and_models(self, client: Any, server: LLMServer) -> None:
        """Base64, which the client requests by default, and plain numbers give the same vectors."""
        packed = client.embeddings.create(model="m", input=["a", "b", "a"])
        plain = client.embeddings.create(model="m", input=["a", "b", "a"], encoding_format="float")
        assert server.requests[0].json["encoding_format"] == "base64"
        for ours, theirs in zip(packed.data, plain.data, strict=True):
            assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-6)
        assert packed.data[0].embedding == packed.data[2].embedding != packed.data[1].embedding
        assert packed.usage.prompt_tokens == 3
        server.script(MANY)
        assert [model.id for model in client.models.list()] == ["a", "b"]

    def test_azure(self, server: LLMServer) -> None:
        """Streams of Azure's deployments start with a chunk without choices."""
        openai = pytest.importorskip("openai")
        options = {"azure_endpoint": server.base_url("azure"), "api_version": "2024-10-21", "max_retries": 0}
        with openai.AzureOpenAI(api_key="k", **options) as client:
            first, *chunks = self.stream(client, server, TEXT, model="gpt")
            assert first.choices == []
            assert chunks[0].model == "gpt"
            assert server.requests[0].path == "/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
            server.script(BUSY)
            with pytest.raises(openai.RateLimitError):
                client.chat.completions.create(model="gpt", messages=HELLO)


class TestAnthropic:
    """The anthropic package."""

    @pytest.fixture
    def client(self, server: LLMServer) -> Iterator[Any]:
        """A client without retries."""
        anthropic = pytest.importorskip("anthropic")
        with anthropic.Anthropic(api_key="k", base_url=server.base_url("anthropic"), max_retries=0) as made:
            yield made

    def ask(self, client: Any, server: LLMServer, reply: Reply, **options: Any) -> tuple[Any, Any]:
        """The answer streamed and whole, as the client's final messages."""
        server.script(reply, reply)
        asked = {"model": "m", "max_tokens": 2000, "messages": HELLO, **options}
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        return streamed, client.messages.create(**asked)

    def test_text_and_usage(self, client: Any, server: LLMServer) -> None:
        """Streamed and whole."""
        for message in self.ask(client, server, TEXT, system="Be brief"):
            assert [block.text for block in message.content] == ["Grüße, 世界 🌍"]
            assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 4, 3)
        assert message._request_id == "req-test-2"
        usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 9}
        for message in self.ask(client, server, Reply("x", usage=usage)):
            assert (message.usage.cache_read_input_tokens, message.usage.output_tokens) == (7, 9)

    def test_tools_and_reasoning(self, client: Any, server: LLMServer) -> None:
        """Calls are assembled, thoughts are signed, and both are accepted when sent back."""
        thinking = {"type": "enabled", "budget_tokens": 1024}
        reply = Reply("Let me look.", reasoning=["Hm, ", "so."], tool_calls=[CALL])
        for message in self.ask(client, server, reply, tools=ANTHROPIC_TOOLS, thinking=thinking):
            thought, text, use = message.content
            assert (thought.thinking, bool(thought.signature), text.text) == ("Hm, so.", True, "Let me look.")
            assert (use.id, use.name, use.input) == ("call00001", "get_weather", {"city": "Zürich"})
            assert message.stop_reason == "tool_use"
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]}
        again = [*HELLO, {"role": "assistant", "content": message.content}, result]
        self.ask(client, server, TEXT, messages=again, tools=ANTHROPIC_TOOLS)
        assert server.requests[-1].turns[-1].text == "sunny"

    def test_refusals_and_length(self, client: Any, server: LLMServer) -> None:
        """The ways in which an answer can end."""
        for message in self.ask(client, server, Reply(refusal="No.")):
            assert (message.stop_reason, message.stop_details.explanation) == ("refusal", "No.")
        for message in self.ask(client, server, Reply("x", finish_reason="length")):
            assert message.stop_reason == "max_tokens"

    def test_errors(self, client: Any, server: LLMServer) -> None:
        """Each status becomes the client's own class, and an error in a stream is raised."""
        import anthropic

        for status, kind in [
            (400, anthropic.BadRequestError),
            (401, anthropic.AuthenticationError),
            (404, anthropic.NotFoundError),
            (429, anthropic.RateLimitError),
            (529, anthropic.InternalServerError),
        ]:
            server.script(Reply("No", status=status))
            with pytest.raises(kind, match="No") as caught:
                client.messages.create(model="m", max_tokens=5, messages=HELLO)
            assert caught.value.request_id
        server.script(BROKEN)
        with pytest.raises(anthropic.APIStatusError, match="overloaded"):
            list(client.messages.create(model="m", max_tokens=5, messages=HELLO, stream=True))

    def test_models_and_counting(self, client: Any, server: LLMServer) -> None:
        """The list of models, and the count of a prompt's tokens."""
        server.script(MANY)
        assert [model.id for model in client.models.list()] == ["a", "b"]
        assert client.messages.count_tokens(model="m", messages=HELLO).input_tokens == 2


class TestGemini:
    """The google-genai package."""

    @pytest.fixture
    def client(self, server: LLMServer) -> Iterator[Any]:
        """A client without retries."""
        genai = pytest.importorskip("google.genai")
        options = {"base_url": server.base_url("gemini"), "retry_options": {"attempts": 1}}
        made = genai.Client(api_key="k", http_options=options)
        yield made
        made.close()

    def ask(self, client: Any, server: LLMServer, reply: Reply, **options: Any) -> tuple[list[Any], Any]:
        """The answer streamed, as its chunks, and whole."""
        server.script(reply, reply)
        asked = {"model": "m", "contents": "Hi there", **options}
        return list(client.models.generate_content_stream(**asked)), client.models.generate_content(**asked)

    def test_text_and_usage(self, client: Any, server: LLMServer) -> None:
        """Streamed and whole."""
        chunks, whole = self.ask(client, server, TEXT)
        assert [chunk.text for chunk in chunks] == ["Grüße, ", "世界 🌍"]
        assert whole.text == "Grüße, 世界 🌍"
        for last in (chunks[-1], whole):
            assert last.candidates[0].finish_reason == "STOP"
            used = last.usage_metadata
            assert (used.prompt_token_count, used.candidates_token_count, used.total_token_count) == (2, 3, 5)
        assert (server.requests[0].model, server.requests[0].user_text) == ("m", "Hi there")

    def test_tools_and_reasoning(self, client: Any, server: LLMServer) -> None:
        """Calls come whole and signed, and are accepted when sent back."""
        declared = {"function_declarations": [{"name": "get_weather", "parameters_json_schema": SCHEMA}]}
        config = {"tools": [declared], "automatic_function_calling": {"disable": True}}
        chunks, whole = self.ask(client, server, Reply(reasoning=["Hm."], tool_calls=[CALL]), config=config)
        thought, part = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
        assert (thought.thought, thought.text) == (True, "Hm.")
        assert part.thought_signature == base64.b64decode("bGxtYnJpZGdlLnRlc3Rpbmc=")
        assert (part.function_call.name, part.function_call.args) == ("get_weather", {"city": "Zürich"})
        assert whole.function_calls == chunks[-1].function_calls
        assert whole.usage_metadata.thoughts_token_count == 1
        answer = {"function_response": {"name": "get_weather", "response": {"result": "sunny"}}}
        again = [
            {"role": "user", "parts": [{"text": "Hi"}]},
            whole.candidates[0].content,
            {"role": "user", "parts": [answer]},
        ]
        self.ask(client, server, TEXT, contents=again, config=config)
        assert server.requests[-1].turns[-1].text == "sunny"

    def test_refusals_and_choices(self, client: Any, server: LLMServer) -> None:
        """A prompt that is blocked, and several candidates."""
        for response in self.ask(client, server, Reply(refusal="No."))[0]:
            assert response.prompt_feedback.block_reason == "PROHIBITED_CONTENT"
        _, whole = self.ask(client, server, Reply("a", choices=["b"]), config={"candidate_count": 2})
        assert [one.content.parts[0].text for one in whole.candidates] == ["a", "b"]

    def test_errors(self, client: Any, server: LLMServer) -> None:
        """Each status becomes the client's own class, and an error in a stream is raised."""
        from google.genai import errors

        server.script(BUSY, Reply("Down", status=503), BROKEN)
        with pytest.raises(errors.ClientError, match="RESOURCE_EXHAUSTED") as caught:
            client.models.generate_content(model="m", contents="Hi")
        assert caught.value.code == 429
        assert caught.value.details["error"]["details"][0]["retryDelay"] == "0s"
        with pytest.raises(errors.ServerError, match="Down"):
            client.models.generate_content(model="m", contents="Hi")
        with pytest.raises(errors.APIError, match="overloaded"):
            list(client.models.generate_content_stream(model="m", contents="Hi"))

    def test_embeddings_and_models(self, client: Any, server: LLMServer) -> None:
        """One vector per text, and the list of models."""
        made = client.models.embed_content(model="text-embedding-004", contents=["a", "b", "a"])
        first, second, third = [one.values for one in made.embeddings]
        assert first == third != second
        server.script(MANY)
        assert [model.name for model in client.models.list()] == ["models/a", "models/b"]


class TestOllama:
    """The ollama package."""

    @pytest.fixture
    def client(self, server: LLMServer) -> Iterator[Any]:
        """A client of the server."""
        ollama = pytest.importorskip("ollama")
        made = ollama.Client(host=server.base_url("ollama"))
        yield made
        made._client.close()

    def ask(self, client: Any, server: LLMServer, reply: Reply, **options: Any) -> tuple[list[Any], Any]:
        """The answer streamed, as its lines, and whole."""
        server.script(reply, reply)
        asked = {"model": "m", "messages": HELLO, **options}
        return list(client.chat(stream=True, **asked)), client.chat(**asked)

    def test_text_and_usage(self, client: Any, server: LLMServer) -> None:
        """Streamed and whole."""
        lines, whole = self.ask(client, server, TEXT)
        assert [line.message.content for line in lines] == ["Grüße, ", "世界 🌍", ""]
        assert whole.message.content == "Grüße, 世界 🌍"
        for last in (lines[-1], whole):
            assert (last.done, last.done_reason, last.prompt_eval_count, last.eval_count) == (True, "stop", 2, 3)

    def test_tools_and_reasoning(self, client: Any, server: LLMServer) -> None:
        """Calls come whole, and are accepted when sent back."""
        reply = Reply(reasoning=["Hm, ", "so."], tool_calls=[CALL])
        lines, whole = self.ask(client, server, reply, tools=OPENAI_TOOLS, think=True)
        assert [line.message.thinking for line in lines[:2]] == ["Hm, ", "so."]
        assert whole.message.thinking == "Hm, so."
        for message in (lines[2].message, whole.message):
            assert message.tool_calls[0].function.arguments == {"city": "Zürich"}
        again = [*HELLO, whole.message, {"role": "tool", "content": "sunny", "tool_name": "get_weather"}]
        self.ask(client, server, TEXT, messages=again)
        assert server.requests[-1].turns[-1].text == "sunny"

    def test_errors(self, client: Any, server: LLMServer) -> None:
        """A status and an error line become the client's own class."""
        import ollama

        server.script(BUSY, BROKEN)
        with pytest.raises(ollama.ResponseError, match="Slow down") as caught:
            client.chat("m", HELLO)
        assert caught.value.status_code == 429
        with pytest.raises(ollama.ResponseError, match="overloaded"):
            list(client.chat("m", HELLO, stream=True))

    def test_embeddings_and_models(self, client: Any, server: LLMServer) -> None:
        """One vector per text, and the list of models."""
        first, second, third = client.embed("m", ["a", "b", "a"]).embeddings
        assert first == third != second
        server.script(MANY)
        assert [model.model for model in client.list().models] == ["a", "b"]


class TestMistral:
    """The mistralai package."""

    @pytest.fixture
    def client(self, server: LLMServer) -> Iterator[Any]:
        """A client of the server; it appends /v1 itself."""
        module = pytest.importorskip("mistralai.client")
        root = server.base_url("mistral").removesuffix("/v1")
        with module.Mistral(api_key="k", server_url=root) as made:
            yield made

    def ask(self, client: Any, server: LLMServer, reply: Reply, **options: Any) -> tuple[list[Any], Any]:
        """The answer streamed, as its chunks, and whole."""
        server.script(reply, reply)
        asked = {"model": "m", "messages": HELLO, **options}
        with client.chat.stream(**asked) as stream:
            chunks = [event.data for event in stream]
        return chunks, client.chat.complete(**asked)

    def test_text_and_usage(self, client: Any, server: LLMServer) -> None:
        """Streamed and whole."""
        chunks, whole = self.ask(client, server, TEXT)
        assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "Grüße, 世界 🌍"
        assert whole.choices[0].message.content == "Grüße, 世界 🌍"
        for last in (chunks[-1], whole):
            assert last.choices[0].finish_reason == "stop"
            assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (2, 3)

    def test_tools_and_reasoning(self, client: Any, server: LLMServer) -> None:
        """Content is a list of chunks beside thinking; calls come whole, and are accepted when sent back."""
        chunks, whole = self.ask(client, server, Reply("Wait.", reasoning="Hm.", tool_calls=[CALL]), tools=OPENAI_TOOLS)
        thought, text = whole.choices[0].message.content
        assert (thought.thinking[0].text, text.text) == ("Hm.", "Wait.")
        assert chunks[1].choices[0].delta.content[0].thinking[0].text == "Hm."
        for said in (chunks[-1].choices[0].delta, whole.choices[0].message):
            assert said.tool_calls[0].function.arguments == '{"city":"Zürich"}'
        assert whole.choices[0].finish_reason == "tool_calls"
        result = {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "sunny"}
        self.ask(client, server, TEXT, messages=[*HELLO, whole.choices[0].message, result])
        assert server.requests[-1].turns[-1].text == "sunny"

    def test_errors(self, client: Any, server: LLMServer) -> None:
        """A status becomes the client's own class; so does the list of problems in a request."""
        from mistralai.client import errors

        server.script(BUSY)
        with pytest.raises(errors.SDKError, match="Slow down") as caught:
            client.chat.complete(model="m", messages=HELLO)
        assert caught.value.status_code == 429
        server.script(Reply("Wrong", status=422))
        with pytest.raises(errors.HTTPValidationError, match="Wrong"):
            client.chat.complete(model="m", messages=HELLO)

    def test_embeddings_and_models(self, client: Any, server: LLMServer) -> None:
        """One vector per text, of the requested length, and the list of models."""
        made = client.embeddings.create(model="m", inputs=["a", "b", "a"], output_dimension=3)
        first, second, third = [one.embedding for one in made.data]
        assert first == third != second
        assert len(first) == 3
        server.script(MANY)
        assert [model.id for model in client.models.list().data] == ["a", "b"]

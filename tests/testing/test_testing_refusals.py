"""The testing server accepts and rejects what the services do: schemas, white space, and parts of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, Reply

SOON = 30.0
USER = [{"role": "user", "content": "Hi"}]


def post(server: LLMServer, dialect: str, path: str, body: dict[str, Any]) -> requests.Response:
    """The server's answer to a request."""
    server.script(Reply("ok"))
    headers = {"anthropic-version": "2023-06-01"} if dialect == "anthropic" else {}
    return requests.post(server.base_url(dialect) + path, json=body, headers=headers, timeout=SOON)


def with_tool(server: LLMServer, dialect: str, schema: Any, **more: Any) -> requests.Response:
    """A request with one tool that has this schema."""
    if dialect == "anthropic":
        tools = [{"name": "f", "input_schema": schema, **more}]
        return post(server, dialect, "/v1/messages", {"model": "m", "max_tokens": 9, "messages": USER, "tools": tools})
    if dialect == "gemini":
        tools = [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": schema}]}]
        contents = [{"parts": [{"text": "Hi"}]}]
        return post(server, dialect, "/v1beta/models/m:generateContent", {"contents": contents, "tools": tools})
    if dialect == "openai-responses":
        tools = [{"type": "function", "name": "f", "parameters": schema}]
        return post(server, dialect, "/responses", {"model": "m", "input": "Hi", "tools": tools})
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    return post(server, dialect, "/chat/completions", {"model": "m", "messages": USER, "tools": tools})


def message(answer: requests.Response) -> str:
    """The message in an error document."""
    assert answer.status_code == 400
    document = answer.json()
    return str(document["error"]["message"] if "error" in document else document["message"])


@pytest.mark.parametrize("key", ["anyOf", "oneOf", "allOf", "enum", "not"])
@pytest.mark.parametrize("dialect", ["openai", "openai-responses", "mistral"])
def test_openai_wants_one_object(server: LLMServer, dialect: str, key: str) -> None:
    """In OpenAI's words; deeper in the schema these keywords are accepted."""
    case: Any = {"required": ["a"]} if key == "not" else [{"a": 1}]
    said = message(with_tool(server, dialect, {"type": "object", "properties": {}, key: case}))
    assert "have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level" in said
    assert with_tool(server, dialect, {"type": "object", "properties": {"x": {"type": "object", key: case}}}).ok


@pytest.mark.parametrize("dialect", ["openai", "openai-responses", "mistral"])
def test_openai_looks_into_a_schema(server: LLMServer, dialect: str) -> None:
    """Arrays, patterns, old keywords: each with its place."""
    deep = {"type": "object", "properties": {"a": {"anyOf": [{"type": ["array", "null"]}]}}}
    said = message(with_tool(server, dialect, deep))
    assert "In context=('properties', 'a', 'anyOf', '0'), array schema missing items." in said
    assert "'f'" in said
    for pattern in ("^(?=x)", r"\p{L}"):
        looks = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
        assert "is not a 'regex'" in message(with_tool(server, dialect, looks))
    old = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "exclusiveMinimum": True}}}
    assert "In context=('properties', 'a')" in message(with_tool(server, dialect, old))


def test_openai_looks_into_the_schema_of_an_answer(server: LLMServer) -> None:
    """In both of its APIs."""
    schema = {"type": "object", "properties": {"a": {"type": "array"}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    asked = {"model": "m", "messages": USER, "response_format": form}
    assert "response_format 'n'" in message(post(server, "openai", "/chat/completions", asked))
    form = {"type": "json_schema", "name": "n", "schema": schema}
    asked = {"model": "m", "input": "Hi", "text": {"format": form}}
    assert "missing items" in message(post(server, "openai-responses", "/responses", asked))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"anyOf": [{}]}, "input_schema does not support oneOf, allOf, or anyOf at the top level"),
        ({"oneOf": [{}]}, "input_schema does not support oneOf, allOf, or anyOf at the top level"),
        ({"properties": {"a[b]": {}}}, "Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'"),
        ({"properties": {"a": {"exclusiveMinimum": True}}}, "It must match JSON Schema draft 2020-12"),
        ({"properties": {"a": {"items": [{}]}}}, "It must match JSON Schema draft 2020-12"),
        ({"properties": {"a": {"type": None}}}, "It must match JSON Schema draft 2020-12"),
    ],
)
def test_anthropic_looks_at_a_schema(server: LLMServer, schema: dict[str, Any], words: str) -> None:
    """The error names the tool."""
    said = message(with_tool(server, "anthropic", {"type": "object", **schema}))
    assert words in said
    assert said.startswith("tools.0.custom.input_schema")


def test_anthropic_takes_what_others_refuse(server: LLMServer) -> None:
    """Other names deeper in the schema, arrays without items, and bounds unless it is strict."""
    inner = {"type": "object", "properties": {"a[b]": {"type": "array"}, "c": {"type": "integer", "minimum": 1}}}
    schema = {"type": "object", "properties": {"a": {"anyOf": [inner]}}}
    assert with_tool(server, "anthropic", schema).ok
    assert "'minimum' is not supported" in message(with_tool(server, "anthropic", schema, strict=True))


@pytest.mark.parametrize("content", ["It is ", [{"type": "text", "text": "It is\n"}]])
def test_anthropic_refuses_white_space_at_the_end(server: LLMServer, content: Any) -> None:
    """At the end of the last message, if it is the assistant's and ends with text."""
    asked = {"model": "m", "max_tokens": 9, "messages": [*USER, {"role": "assistant", "content": content}]}
    said = message(post(server, "anthropic", "/v1/messages", asked))
    assert said == "messages: final assistant content cannot end with trailing whitespace"
    asked["messages"] = [*asked["messages"], *USER]
    assert post(server, "anthropic", "/v1/messages", asked).ok
    thought = {"type": "thinking", "thinking": "Hm. ", "signature": "s"}
    texts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    asked["messages"] = [*USER, {"role": "assistant", "content": [*texts, thought]}]
    assert post(server, "anthropic", "/v1/messages", asked).ok


def test_gemini_wants_items_and_lone_references(server: LLMServer) -> None:
    """In the schemas of functions and of answers."""
    bare = {"type": "object", "properties": {"a": {"type": "array"}}}
    assert ".parameters.properties[a].items: missing field" in message(with_tool(server, "gemini", bare))
    beside = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A", "title": "A"}}, "$defs": {"A": {}}}
    assert "when $ref is present" in message(with_tool(server, "gemini", beside))
    asked = {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"responseJsonSchema": bare}}
    assert "missing field" in message(post(server, "gemini", "/v1beta/models/m:generateContent", asked))


ANTHROPIC_BLOCKS: list[dict[str, Any]] = [
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
    {"type": "code_execution_tool_result", "tool_use_id": "s1", "content": {}},
    {"type": "mcp_tool_use", "id": "m1", "name": "f", "server_name": "s", "input": {}},
    {"type": "mcp_tool_result", "tool_use_id": "m1", "is_error": False, "content": []},
    {"type": "container_upload", "file_id": "file_1"},
    {
        "type": "search_result",
        "source": "https://example.org",
        "title": "T",
        "content": [{"type": "text", "text": "x"}],
    },
    {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}},
    {"type": "text", "text": "x", "citations": [{"type": "char_location", "cited_text": "x"}]},
    {"type": "compaction", "content": "So far."},
]


@pytest.mark.parametrize("block", ANTHROPIC_BLOCKS, ids=lambda block: block["type"])
def test_anthropic_s_blocks_are_taken(server: LLMServer, block: dict[str, Any]) -> None:
    """Complete blocks are accepted, incomplete ones rejected."""
    asked: dict[str, Any] = {"model": "m", "max_tokens": 9}
    asked["messages"] = [*USER, {"role": "assistant", "content": [block]}]
    assert post(server, "anthropic", "/v1/messages", asked).ok
    if block["type"] != "compaction":
        asked["messages"][1]["content"] = [{"type": block["type"]}]
        assert "Field required" in message(post(server, "anthropic", "/v1/messages", asked))


@pytest.mark.parametrize(
    "part",
    [
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
        {"inline_data": {"mime_type": "image/png", "data": "aGk="}},
        {"fileData": {"fileUri": "gs://x"}},
        {"file_data": {"file_uri": "gs://x", "mime_type": "text/plain"}},
        {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"},
        {"executable_code": {"language": "PYTHON", "code": "1"}, "thought_signature": "s"},
        {"code_execution_result": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"text": "x", "thought": True, "thought_signature": "s"},
    ],
    ids=str,
)
def test_gemini_s_parts_have_two_spellings(server: LLMServer, part: dict[str, Any]) -> None:
    """Google accepts both."""
    asked = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [part]}]}
    assert post(server, "gemini", "/v1beta/models/m:generateContent", asked).ok


def test_gemini_s_calls_and_tools_have_two_spellings(server: LLMServer) -> None:
    """`Received` reads both; a function's result is free JSON."""
    contents = [
        {"role": "user", "parts": [{"text": "Hi"}]},
        {"role": "model", "parts": [{"function_call": {"name": "f", "args": {"my_key": 1}}}]},
        {"role": "user", "parts": [{"function_response": {"name": "f", "response": {"my_key": 2}}}]},
    ]
    tools = [{"function_declarations": [{"name": "f", "parameters_json_schema": {"properties": {"my_key": {}}}}]}]
    asked = {"contents": contents, "tools": tools, "system_instruction": {"parts": [{"text": "Be brief."}]}}
    assert post(server, "gemini", "/v1beta/models/m:generateContent", asked).ok
    (received,) = server.requests
    assert [turn.text for turn in received.turns] == ["Be brief.", "Hi", "", '{"my_key": 2}']
    assert received.tools[0].parameters == {"properties": {"my_key": {}}}
    asked["contents"] = contents[:2] + contents[:1]
    assert "number of function response parts" in message(
        post(server, "gemini", "/v1beta/models/m:generateContent", asked)
    )


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "file_search_call", "id": "fs_1", "queries": []},
        {"type": "code_interpreter_call", "id": "ci_1", "code": "1"},
        {"type": "computer_call", "id": "cu_1", "call_id": "c", "action": {}},
        {"type": "mcp_call", "id": "mcp_1", "name": "f", "arguments": "{}"},
        {"type": "mcp_list_tools", "id": "mcpl_1", "tools": []},
        {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "arguments": "{}"},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        {"type": "image_generation_call", "id": "ig_1", "result": "aGk="},
        {"type": "local_shell_call", "id": "lsh_1", "call_id": "c", "action": {}},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "item_reference", "id": "msg_1"},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "custom_tool_call", "call_id": "c", "name": "shell", "input": "echo"},
    ],
    ids=lambda item: str(item["type"]),
)
def test_items_of_responses_are_taken(server: LLMServer, item: dict[str, Any]) -> None:
    """Items of every kind are accepted."""
    said = {"type": "message", "role": "user", "content": "Hi"}
    assert post(server, "openai-responses", "/responses", {"model": "m", "input": [said, item, said]}).ok


def test_custom_calls_are_answered(server: LLMServer) -> None:
    """In both of OpenAI's APIs: a call without text is rejected, and a result without its call."""
    call = {"type": "custom_tool_call", "call_id": "c", "name": "shell", "input": "echo"}
    output = {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}
    assert post(server, "openai-responses", "/responses", {"model": "m", "input": [call, output]}).ok
    assert [turn.role for turn in server.requests[0].turns] == ["assistant", "tool"]
    assert "No tool call" in message(post(server, "openai-responses", "/responses", {"model": "m", "input": [output]}))
    del call["input"]
    assert "input" in message(post(server, "openai-responses", "/responses", {"model": "m", "input": [call]}))

    chat: dict[str, Any] = {"id": "c", "type": "custom", "custom": {"name": "shell", "input": "echo"}}
    turns = [*USER, {"role": "assistant", "tool_calls": [chat]}, {"role": "tool", "tool_call_id": "c", "content": "x"}]
    assert post(server, "openai", "/chat/completions", {"model": "m", "messages": turns}).ok
    del chat["custom"]["input"]
    said = message(post(server, "openai", "/chat/completions", {"model": "m", "messages": turns}))
    assert "tool_calls[0].custom.input" in said


def test_sound_of_earlier_turns_is_taken(server: LLMServer) -> None:
    """By its id, without content."""
    turns = [*USER, {"role": "assistant", "audio": {"id": "audio_1"}}, *USER]
    assert post(server, "openai", "/chat/completions", {"model": "m", "messages": turns}).ok


def test_ollama_shows_its_models(server: LLMServer) -> None:
    """What a model can do, and which are loaded, as llm-ollama and others request it."""
    shown = requests.post(server.root + "/api/show", json={"model": "m"}, timeout=SOON).json()
    assert {"completion", "tools"} <= set(shown["capabilities"])
    assert shown["details"]["family"] in shown["details"]["families"]
    assert shown["model_info"][f"{shown['model_info']['general.architecture']}.context_length"] > 0
    assert requests.post(server.root + "/api/show", json={}, timeout=SOON).json() == {"error": "model is required"}
    server.script(Reply(models=["a"], extra={}), Reply(extra={"capabilities": ["embedding"]}))
    loaded = requests.get(server.root + "/api/ps", timeout=SOON).json()
    assert [one["name"] for one in loaded["models"]] == ["a"]
    shown = requests.post(server.root + "/api/show", json={"model": "m"}, timeout=SOON).json()
    assert shown["capabilities"] == ["embedding"]

"""Gemini's dialect: requests, events and recordings, as tables."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import (
    AuthError,
    BadRequest,
    Client,
    Finish,
    LLMBridgeError,
    NotFound,
    Overloaded,
    ProtocolError,
    RateLimited,
    Reasoning,
    ServerError,
    StreamTruncated,
    Usage,
)
from llmbridge._call.framing import Record
from llmbridge.errors import ConfigError, ContentFiltered, InvalidRequest
from llmbridge.events import (
    END,
    Citation,
    CitationInBytes,
    End,
    EndOfPart,
    Logprobs,
    Media,
    MediaDelta,
    Other,
    OtherChoice,
    ServerTool,
    Summary,
    Text,
    ToolCallDelta,
)
from llmbridge.messages import ChatRequest
from llmbridge.parts import Audio, Document, Image
from llmbridge.providers.gemini import Gemini
from llmbridge.providers.gemini.answer import Reader
from llmbridge.providers.gemini.parts import dumped
from llmbridge.testing import CLOSE, LLMServer, Reply
from llmbridge.tools import Tool

DATA = Path(__file__).parent.parent / "data" / "transcripts"
PNG = b"\x89PNG\r\n\x1a\n"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "The weather.", SCHEMA)
UNSIGNED = "skip_thought_signature_validator"


@dataclass
class City:
    """A value that an answer may have to match."""

    name: str


def encoded(messages: Any = "Hi", model: str = "gemini-2.5-flash", **params: Any) -> Any:
    """The body for the messages."""
    return Gemini.encode(ChatRequest.checked(model, messages, params))


def contents(messages: Any, model: str = "gemini-3-pro") -> Any:
    """The turns for the messages."""
    return encoded(messages, model).body["contents"]


def user_part(part: Any, model: str = "gemini-2.5-flash") -> Any:
    """The form of one part of a user's message."""
    ((sent,),) = [turn["parts"] for turn in contents([{"role": "user", "content": [part]}], model)]
    return sent


def call(id: str, arguments: Any = '{"city": "Oslo"}', **more: Any) -> dict[str, Any]:
    """A call in an assistant's message."""
    return {"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}, **more}


class TestPath:
    """The path of a request."""

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("gemini-2.5-flash", "models/gemini-2.5-flash"),
            ("models/gemini-2.5-flash", "models/gemini-2.5-flash"),
            ("tunedModels/mine-1", "tunedModels/mine-1"),
            ("a b/ü?#:x", "models/a%20b%2F%C3%BC%3F%23%3Ax"),
            ("models/../x", "models/..%2Fx"),
        ],
    )
    def test_the_model_is_a_part_of_it(self, model: str, path: str) -> None:
        """With or without the kind before it; nothing in it can change the path."""
        assert encoded(model=model).path == f"/v1beta/{path}:streamGenerateContent?alt=sse"

    def test_no_model_is_refused(self) -> None:
        """Before sending."""
        with pytest.raises(InvalidRequest, match="empty"):
            encoded(model="models/")

    def test_the_version_is_a_setting(self) -> None:
        """It is not sent in the body."""
        sent = encoded(api_version="v1")
        assert sent.path.startswith("/v1/models/")
        assert set(sent.body) == {"contents"}

    @pytest.mark.parametrize("version", ["", "../x", "v1/x", 1, "v 1"])
    def test_a_wrong_version_is_refused(self, version: Any) -> None:
        """It is part of a path."""
        with pytest.raises(InvalidRequest, match="api_version"):
            encoded(api_version=version)

    def test_a_whole_answer_has_a_path_of_its_own(self) -> None:
        """`stream` is not a field of this service."""
        sent = encoded(stream=False)
        assert sent.path == "/v1beta/models/gemini-2.5-flash:generateContent"
        assert "stream" not in sent.body

    def test_a_base_url_with_the_version_is_refused_with_advice(self) -> None:
        """The path includes it."""
        with Client(api_key="k-1234567") as client, pytest.raises(ConfigError, match="leave it out"):
            client.chat("Hi", "gemini:m", base_url="https://generativelanguage.googleapis.com/v1beta").complete()


class TestKey:
    """How the key is sent."""

    def test_it_is_in_a_header_of_its_own(self) -> None:
        """And nowhere else."""
        assert Gemini.auth_headers("k") == {"x-goog-api-key": "k"}

    def test_an_oauth_token_is_a_bearers(self) -> None:
        """As a key, the service would reject it."""
        assert Gemini.auth_headers("ya29.c.token") == {"Authorization": "Bearer ya29.c.token"}

    def test_googles_variable_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in Google's own package."""
        monkeypatch.setenv("GEMINI_API_KEY", "of-gemini")
        key = Gemini.find_key(None, False)
        assert key is not None
        assert key.reveal() == "of-gemini"
        monkeypatch.setenv("GOOGLE_API_KEY", "of-google")
        key = Gemini.find_key(None, False)
        assert key is not None
        assert key.reveal() == "of-google"


class TestMessages:
    """The conversation."""

    def test_instructions_are_separate(self) -> None:
        """System and developer messages, anywhere."""
        body = encoded(
            [
                {"role": "system", "content": "A"},
                {"role": "user", "content": "x"},
                {"role": "developer", "content": [{"type": "text", "text": "B"}]},
            ]
        ).body
        assert body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
        assert body["contents"] == [{"role": "user", "parts": [{"text": "x"}]}]

    def test_the_assistant_is_called_model_and_neighbours_become_one(self) -> None:
        """Turns alternate."""
        turns = [("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("user", "e")]
        assert contents([{"role": role, "content": text} for role, text in turns]) == [
            {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
            {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
            {"role": "user", "parts": [{"text": "e"}]},
        ]

    def test_an_empty_turn_of_the_model_is_left_out(self) -> None:
        """The service rejects a content without parts."""
        turns = [("user", "a"), ("assistant", ""), ("user", "b")]
        assert contents([{"role": role, "content": text} for role, text in turns]) == [
            {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}
        ]

    def test_instructions_alone_are_refused(self) -> None:
        """There would be nothing to answer."""
        with pytest.raises(InvalidRequest, match="hold only instructions"):
            encoded([{"role": "system", "content": "A"}])

    @pytest.mark.parametrize(
        ("part", "sent"),
        [
            (Image(PNG), {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}),
            (Audio(b"ID3x"), {"inlineData": {"mimeType": "audio/mp3", "data": "SUQzeA=="}}),
            (Audio(b"RIFF0000WAVE"), {"inlineData": {"mimeType": "audio/wav", "data": "UklGRjAwMDBXQVZF"}}),
            (Document(b"%PDF-1"), {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0x"}}),
            (
                Image("https://example.com/a.png?x=1"),
                {"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/a.png?x=1"}},
            ),
            (Image("https://youtu.be/x"), {"fileData": {"fileUri": "https://youtu.be/x"}}),
            (
                {"type": "image_url", "image_url": {"url": "gs://bucket/a.jpg"}},
                {"fileData": {"mimeType": "image/jpeg", "fileUri": "gs://bucket/a.jpg"}},
            ),
            (
                {"type": "file", "file": {"file_id": "files/abc"}},
                {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
            ),
            ({"type": "file", "file": {"file_id": "https://x.y/f"}}, {"fileData": {"fileUri": "https://x.y/f"}}),
            (
                {"type": "video", "fileData": {}, "videoMetadata": {"fps": 1}},
                {"fileData": {}, "videoMetadata": {"fps": 1}},
            ),
            ({"type": "input_text", "text": "x"}, {"text": "x"}),
            ("x", {"text": "x"}),
        ],
    )
    def test_a_part_is_translated(self, part: Any, sent: dict[str, Any]) -> None:
        """Unknown parts are the service's own, which have no `type`."""
        assert user_part(part) == sent

    @pytest.mark.parametrize(
        ("url", "model", "advice"),
        [
            ("http://example.com/a.png", "gemini-3-pro", "https"),
            ("https://example.com/a.png", "gemini-2.0-flash", "this model does not"),
            ("https://example.com/a.png", "gemini-1.5-pro", "bytes"),
        ],
    )
    def test_a_url_that_is_not_fetched_is_refused(self, url: str, model: str, advice: str) -> None:
        """The error says what to do instead."""
        with pytest.raises(InvalidRequest, match=advice):
            user_part(Image(url), model)

    def test_an_uploaded_file_is_taken_by_every_model(self) -> None:
        """It is in the service's own form."""
        url = "https://generativelanguage.googleapis.com/v1beta/files/x"
        assert user_part(Image(url), "gemini-1.5-pro") == {"fileData": {"fileUri": url}}

    @pytest.mark.parametrize(
        "part", [{"type": "text"}, {"type": "wibble"}, {"type": "image_url"}, {"type": "text", "text": 7}]
    )
    def test_a_part_that_cannot_be_read_is_named(self, part: dict[str, Any]) -> None:
        """The message and its part; names of speakers are left out."""
        spoken = {"role": "user", "content": "x", "name": "Ann"}
        assert contents([spoken]) == [{"role": "user", "parts": [{"text": "x"}]}]
        told = {"role": "tool", "name": "f", "tool_call_id": "c", "content": ["x", part]}
        for turn in ({"role": "user", "content": ["x", part]}, {"role": "assistant", "content": ["x", part]}, told):
            with pytest.raises(InvalidRequest, match=r"messages\[1\]: content\[1\]"):
                contents([spoken, turn])

    @pytest.mark.parametrize(
        "part", [{"type": "text"}, {"type": "wibble"}, {"type": "image_url"}, {"type": "text", "text": 7}]
    )
    def test_an_empty_part_is_refused(self, part: dict[str, Any]) -> None:
        """The error names it."""
        with pytest.raises(InvalidRequest):
            user_part(part)


class TestReplay:
    """Earlier turns with calls, results and reasoning."""

    def test_calls_and_results(self) -> None:
        """Names are found by the call's id; results of one turn are in one content."""
        turns = contents(
            [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": None, "tool_calls": [call("c1", signature="S1"), call("c2", {})]},
                {"role": "tool", "tool_call_id": "c1", "content": '{"degrees": 3}'},
                {"role": "tool", "tool_call_id": "c2", "content": "boom", "is_error": True},
                {"role": "user", "content": "and?"},
            ]
        )
        assert turns[1:] == [
            {
                "role": "model",
                "parts": [
                    {
                        "functionCall": {"id": "c1", "name": "weather", "args": {"city": "Oslo"}},
                        "thoughtSignature": "S1",
                    },
                    {"functionCall": {"id": "c2", "name": "weather", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "c1", "name": "weather", "response": {"degrees": 3}}},
                    {"functionResponse": {"id": "c2", "name": "weather", "response": {"error": "boom"}}},
                ],
            },
            {"role": "user", "parts": [{"text": "and?"}]},
        ]

    @pytest.mark.parametrize(("model", "signature"), [("gemini-3-pro", UNSIGNED), ("gemini-2.5-pro", None)])
    def test_an_unsigned_first_call_gets_the_word_for_it(self, model: str, signature: str | None) -> None:
        """The service would reject it otherwise."""
        parts = contents([{"role": "assistant", "content": "x", "tool_calls": [call("c1"), call("c2")]}], model)[0]
        assert [part.get("thoughtSignature") for part in parts["parts"]] == [None, signature, None]

    @pytest.mark.parametrize(
        ("text", "response"),
        [
            ('{"a": 1}', {"a": 1}),
            ("[1]", {"result": "[1]"}),
            ("3", {"result": "3"}),
            ("{broken", {"result": "{broken"}),
            ('{"a": NaN}', {"result": '{"a": NaN}'}),
            ('{"a": "\\ud800"}', {"result": '{"a": "\\ud800"}'}),
            ('{"a":' * 5000, {"result": '{"a":' * 5000}),
            ("", {"result": ""}),
            ('{"$ref": "#/a"}', {"result": '{"$ref": "#/a"}'}),  # it would name a part of the result
        ],
    )
    def test_a_result_is_an_object(self, text: str, response: dict[str, Any]) -> None:
        """A JSON object unchanged, anything else in a field."""
        turns = contents([{"role": "tool", "name": "weather", "content": text}])
        assert turns[0]["parts"] == [{"functionResponse": {"name": "weather", "response": response}}]

    def test_an_image_in_a_result_is_inside_the_response(self) -> None:
        """Gemini 3 looks at it."""
        content = [{"type": "text", "text": "see"}, Image(PNG)]
        sent = contents([{"role": "tool", "name": "weather", "tool_call_id": "c", "content": content}])[0]["parts"][0]
        assert sent["functionResponse"]["response"] == {"result": "see"}
        assert sent["functionResponse"]["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]

    def test_an_image_in_a_result_follows_the_results(self) -> None:
        """For Gemini 1 and 2, which reject it inside the response; the user's text comes after it."""
        image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
        results = [
            {"role": "tool", "name": "look", "tool_call_id": "c1", "content": ["see", Image(PNG)]},
            {"role": "tool", "name": "weather", "tool_call_id": "c2", "content": "sun"},
        ]
        answers = [
            {"functionResponse": {"id": "c1", "name": "look", "response": {"result": "see"}}},
            {"functionResponse": {"id": "c2", "name": "weather", "response": {"result": "sun"}}},
        ]
        behind = [{"text": "From the answer of look:"}, image]
        for more, said in (([], []), ([{"role": "user", "content": "Well?"}], [{"text": "Well?"}])):
            request = ChatRequest.checked("gemini-2.5-flash", [*results, *more], {})
            assert Gemini.encode(request).body["contents"] == [
                {"role": "user", "parts": answers},
                {"role": "user", "parts": [*behind, *said]},
            ]

    def test_a_result_of_an_unknown_call_is_refused(self) -> None:
        """The service requires the function's name."""
        with pytest.raises(InvalidRequest, match=r"messages\[1\].*name"):
            contents([{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "zz", "content": "x"}])

    def test_arguments_that_json_cannot_hold_are_left_out(self) -> None:
        """Like invalid JSON: the result told the model about it."""
        (turn,) = contents([{"role": "assistant", "content": None, "tool_calls": [call("c", '{"a": NaN}')]}])
        assert turn["parts"][0]["functionCall"] == {"id": "c", "name": "weather", "args": {}}

    @pytest.mark.parametrize(
        ("parts", "sent"),
        [
            (
                [{"type": "reasoning", "text": "hm", "signature": "S"}, {"type": "text", "text": "a"}],
                [{"text": "hm", "thought": True, "thoughtSignature": "S"}, {"text": "a"}],
            ),
            ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}], [{"text": "a"}]),
            (
                [{"type": "reasoning", "text": "", "signature": "S"}, {"type": "text", "text": "a"}],
                [{"text": "", "thoughtSignature": "S"}, {"text": "a"}],
            ),
            ([{"type": "reasoning", "text": "", "signature": "S"}], [{"text": "", "thoughtSignature": "S"}]),
            (
                [{"type": "text", "text": "a"}, {"type": "reasoning", "redacted": "S"}, {"type": "text", "text": "b"}],
                [{"text": "a", "thoughtSignature": "S"}, {"text": "b"}],
            ),
            ([{"type": "refusal", "refusal": "No."}], [{"text": "No."}]),
        ],
    )
    def test_reasoning_goes_back_if_it_is_signed(self, parts: list[Any], sent: list[Any]) -> None:
        """A signature without text belongs to the text before it, or to an empty one."""
        assert contents([{"role": "assistant", "content": parts}])[0]["parts"] == sent


# Name: parameters, and their generation configuration.
CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "temperature": ({"temperature": 0.5}, {"temperature": 0.5}),
    "top_p": ({"top_p": 0.9}, {"topP": 0.9}),
    "top_k": ({"top_k": 3}, {"topK": 3}),
    "max_tokens": ({"max_tokens": 9}, {"maxOutputTokens": 9}),
    "stop, one": ({"stop": "x"}, {"stopSequences": ["x"]}),
    "stop, several": ({"stop": ["x", "y"]}, {"stopSequences": ["x", "y"]}),
    "seed": ({"seed": 1}, {"seed": 1}),
    "penalties": (
        {"presence_penalty": 1, "frequency_penalty": 2},
        {"presencePenalty": 1, "frequencyPenalty": 2},
    ),
    "n": ({"n": 2}, {"candidateCount": 2}),
    "logprobs": ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
    "logprobs, the service's own": (
        {"logprobs": 3, "responseLogprobs": True},
        {"logprobs": 3, "responseLogprobs": True},
    ),
    "effort in words": (
        {"reasoning_effort": "medium"},
        {"thinkingConfig": {"thinkingBudget": 8192, "includeThoughts": True}},
    ),
    "effort as a budget": (
        {"reasoning_effort": 99},
        {"thinkingConfig": {"thinkingBudget": 99, "includeThoughts": True}},
    ),
    "no effort": ({"reasoning_effort": "none"}, {"thinkingConfig": {"thinkingBudget": 0}}),
    "effort 0": ({"reasoning_effort": 0}, {"thinkingConfig": {"thinkingBudget": 0}}),
    "effort None": ({"reasoning_effort": None, "seed": 1}, {"seed": 1}),
    "json": ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
    "text": ({"response_format": {"type": "text"}, "seed": 1}, {"seed": 1}),
    "json_schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
    ),
    "own names win": ({"maxOutputTokens": 5, "max_tokens": 9}, {"maxOutputTokens": 5}),
    "own names, as in Python": ({"max_output_tokens": 5, "max_tokens": 9}, {"maxOutputTokens": 5}),
    "own thinking": (
        {"thinking_config": {"thinkingBudget": 1}, "reasoning_effort": "high"},
        {"thinkingConfig": {"thinkingBudget": 1}},
    ),
    "generationConfig is merged": (
        {"generationConfig": {"topK": 1, "wibble": 2}, "top_k": 9, "seed": 3},
        {"topK": 1, "wibble": 2, "seed": 3},
    ),
}


class TestParameters:
    """All parameters."""

    @pytest.mark.parametrize("name", CONFIGS)
    def test_parameters_are_in_the_configuration(self, name: str) -> None:
        """Under the service's name."""
        params, config = CONFIGS[name]
        assert encoded(**params).body == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]} | {
            "generationConfig": config
        }

    @pytest.mark.parametrize(
        ("word", "level"),
        [("minimal", "MINIMAL"), ("low", "LOW"), ("medium", "MEDIUM"), ("high", "HIGH"), ("max", "XHIGH")],
    )
    @pytest.mark.parametrize("model", ["gemini-3-pro", "gemini-3.5-flash", "gemini-flash-latest", "models/gemini-10"])
    def test_newer_models_think_in_levels(self, model: str, word: str, level: str) -> None:
        """All except Gemini 1 and 2."""
        config = encoded(model=model, reasoning_effort=word).body["generationConfig"]
        level = "LOW" if (model, word) == ("gemini-3-pro", "minimal") else level
        level = "HIGH" if (model[:8], word) == ("gemini-3", "max") else level
        assert config == {"thinkingConfig": {"thinkingLevel": level, "includeThoughts": True}}

    @pytest.mark.parametrize(
        ("model", "level"),
        [
            ("gemini-3.1-pro-preview", "LOW"),
            ("gemini-3.7-flash", "LOW"),
            ("gemini-3.8-flash", "LOW"),
            ("gemini-3.6-flash", "MINIMAL"),
            ("gemini-3.5-flash-lite", "MINIMAL"),
            ("gemini-30-flash", "MINIMAL"),
        ],
    )
    def test_a_model_without_the_least_level_gets_the_next(self, model: str, level: str) -> None:
        """It would reject the request."""
        assert encoded(model=model, reasoning_effort="minimal").body["generationConfig"]["thinkingConfig"] == {
            "thinkingLevel": level, "includeThoughts": True
        }  # fmt: skip

    @pytest.mark.parametrize("effort", ["none", 0])
    @pytest.mark.parametrize(
        ("model", "refused"), [("gemini-2.5-pro", True), ("gemini-3-pro-preview", True), ("gemini-2.5-flash", False)]
    )
    def test_some_cannot_be_kept_from_thinking(self, model: str, refused: bool, effort: Any) -> None:
        """The error comes before sending."""
        request = ChatRequest.checked(model, "Hi", {"reasoning_effort": effort})
        assert ("reasoning_effort" in Gemini.refusals(request)) is refused

    @pytest.mark.parametrize("effort", ["much", True, 1.5, []])
    def test_an_unknown_effort_is_refused(self, effort: Any) -> None:
        """The error lists the known ones."""
        with pytest.raises(InvalidRequest, match="minimal"):
            encoded(reasoning_effort=effort)

    @pytest.mark.parametrize("form", ["json", {"type": "xml"}, {"type": "json_schema"}, {}, 7])
    def test_an_unknown_response_format_is_refused(self, form: Any) -> None:
        """The error shows the known ones."""
        with pytest.raises(InvalidRequest, match="json_object"):
            encoded(response_format=form)

    def test_a_wrong_configuration_is_refused(self) -> None:
        """It must be a mapping."""
        with pytest.raises(InvalidRequest, match="generationConfig"):
            encoded(generationConfig=7)

    def test_other_fields_are_beside_it_unchanged(self) -> None:
        """The service's own fields, in both spellings, and unknown ones."""
        safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
        body = encoded(safety_settings=safety, cachedContent="cachedContents/x", wibble=1).body
        assert body["safetySettings"] == safety
        assert (body["cachedContent"], body["wibble"]) == ("cachedContents/x", 1)
        assert "generationConfig" not in body

    def test_what_the_service_refuses_is_named(self) -> None:
        """With advice; parallel calls can only be allowed."""
        params = {"user": "u", "metadata": {}, "logit_bias": {}, "parallel_tool_calls": False, "seed": 1}
        refusals = Gemini.refusals(ChatRequest.checked("m", "Hi", params))
        assert set(refusals) == {"user", "metadata", "logit_bias", "parallel_tool_calls"}
        assert "parallel_tool_calls" not in Gemini.refusals(
            ChatRequest.checked("m", "Hi", {"parallel_tool_calls": True})
        )
        assert set(encoded(parallel_tool_calls=True).body) == {"contents"}


DECLARED = {"name": "weather", "description": "The weather.", "parametersJsonSchema": WEATHER.parameters}


class TestTools:
    """Tools in the body."""

    def test_functions_are_in_one_entry_and_others_beside_it(self) -> None:
        """The service's own tools are sent unchanged."""
        tools = [WEATHER, {"google_search": {}}, Tool("now")]
        sent = encoded(tools=tools).body["tools"]
        assert sent[0]["functionDeclarations"][0] == DECLARED
        assert sent[0]["functionDeclarations"][1]["name"] == "now"
        assert "description" not in sent[0]["functionDeclarations"][1]
        assert sent[1:] == [{"google_search": {}}]

    @pytest.mark.parametrize(
        ("choice", "config"),
        [
            ("auto", {"mode": "AUTO"}),
            ("none", {"mode": "NONE"}),
            ("required", {"mode": "ANY"}),
            ("weather", {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
            ({"mode": "VALIDATED"}, {"mode": "VALIDATED"}),
            ({"functionCallingConfig": {"mode": "VALIDATED"}}, {"mode": "VALIDATED"}),
        ],
    )
    def test_the_choice(self, choice: Any, config: dict[str, Any]) -> None:
        """From llmbridge's values; a mapping may be the service's own."""
        body = encoded(tools=[WEATHER], tool_choice=choice).body
        assert body["toolConfig"] == {"functionCallingConfig": config}

    def test_without_a_choice_nothing_is_said(self) -> None:
        """The service decides."""
        assert "toolConfig" not in encoded(tools=[WEATHER]).body

    def test_a_schema(self) -> None:
        """As the response schema."""
        config = encoded(schema=City).body["generationConfig"]
        assert config["responseMimeType"] == "application/json"
        assert config["responseJsonSchema"]["properties"] == {"name": {"type": "string"}}

    @pytest.mark.parametrize("mode", ["native", "tool"])
    def test_a_reference_has_no_siblings(self, mode: Any) -> None:
        """The service rejects that, in a schema and in a tool's parameters."""
        city = {"$ref": "#/$defs/City", "description": "Where."}
        defs = {"$defs": {"City": {"type": "string"}}}
        document = {"title": "trip", "type": "object", "properties": {"to": city, "from": city}, **defs}
        body: Any = encoded(tools=[Tool("go", "", document)]).body
        alone = {"anyOf": [{"$ref": "#/$defs/City"}], "description": "Where."}
        (go,) = body["tools"][0]["functionDeclarations"]
        assert go["parametersJsonSchema"]["properties"] == {"to": alone, "from": alone}
        body = encoded(schema=document, schema_mode=mode).body
        sent = (
            body["generationConfig"]["responseJsonSchema"]
            if mode == "native"
            else body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"]
        )
        assert sent["properties"] == {"to": alone, "from": alone}

    def test_a_schema_as_a_tool(self) -> None:
        """A forced function, whose arguments are the answer; other tools can still be called."""
        request = ChatRequest.checked("m", "Hi", {"schema": City, "schema_mode": "tool"})
        body: Any = Gemini.encode(request).body
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["City"]}}
        assert body["tools"][0]["functionDeclarations"][0]["name"] == "City"
        assert "generationConfig" not in body
        assert Gemini.answer_tool(request) == "City"
        body = encoded(schema=City, schema_mode="tool", tools=[WEATHER]).body
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
        assert [function["name"] for function in body["tools"][0]["functionDeclarations"]] == ["weather", "City"]

    def test_a_schema_as_json(self) -> None:
        """JSON mode, with the schema in the instruction."""
        body = encoded([{"role": "system", "content": "A"}, {"role": "user", "content": "x"}], schema=City,
                       schema_mode="json").body  # fmt: skip
        assert body["generationConfig"] == {"responseMimeType": "application/json"}
        first, second = body["systemInstruction"]["parts"]
        assert first == {"text": "A"}
        assert '"name"' in second["text"]

    def test_only_a_schema_as_a_tool_has_an_answer_tool(self) -> None:
        """Otherwise the text is the answer."""
        assert Gemini.answer_tool(ChatRequest.checked("m", "Hi", {"schema": City})) is None
        assert Gemini.answer_tool(ChatRequest.checked("m", "Hi", {})) is None


def items(data: Any, event: str = "message") -> list[Any]:
    """The items of an event; data that is not a str is sent as JSON."""
    return list(Gemini.decode(Record(data if isinstance(data, str) else json.dumps(data), event)))


def said(*parts: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    """A response with one candidate."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})]}


COUNTS = {"promptTokenCount": 11, "candidatesTokenCount": 7, "thoughtsTokenCount": 5, "totalTokenCount": 23}
COUNTED = Usage(11, 12, 23, None, None, 5)
BARE_ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}

# Name: the event, and its items.
EVENTS: dict[str, tuple[Any, list[Any]]] = {
    "text": (said({"text": "Hi"}), ["Hi"]),
    "words beside no candidate": (
        {"candidates": [], "detail": "none", "message": "cached"},
        [Other("detail", {"detail": "none"}), Other("message", {"message": "cached"})],
    ),
    "text and usage": ({**said({"text": "Hi"}), "usageMetadata": COUNTS}, ["Hi", COUNTED]),
    "text with everything around it": (
        {**said({"text": "ü"}, safetyRatings=[]), "modelVersion": "m", "responseId": "r"},
        ["ü"],
    ),
    "several texts": (said({"text": "a"}, {"text": ""}, {"text": "b"}), ["a", "b"]),
    "a thought": (said({"text": "hm", "thought": True}), [Reasoning("hm")]),
    "a signed thought": (said({"text": "hm", "thought": True, "thoughtSignature": "S"}), [Reasoning("hm", "S")]),
    "thought and text": (said({"text": "hm", "thought": True}, {"text": "a"}), [Reasoning("hm"), "a"]),
    "a text that is not a thought": (said({"text": "a", "thought": False}), ["a"]),
    "a signed text": (said({"text": "a", "thoughtSignature": "S"}), ["a", Reasoning("", redacted="S")]),
    "a signature alone": (said({"text": "", "thoughtSignature": "S"}, finish="STOP"),
                          [Reasoning("", redacted="S"), Finish("stop", "STOP")]),
    "a call": (
        said({"functionCall": {"id": "c", "name": "f", "args": {"a": "ü"}}, "thoughtSignature": "S"}),
        [ToolCallDelta(None, "c", "f", '{"a": "ü"}', "S", whole=True)],
    ),
    "two calls without ids": (
        said({"functionCall": {"name": "f", "args": {}}}, {"functionCall": {"name": "f"}}),
        [ToolCallDelta(None, None, "f", "{}", whole=True)] * 2,
    ),
    "a call with half a surrogate pair": (
        said({"functionCall": {"name": "f", "args": {"a": "\ud800"}}}),
        [ToolCallDelta(None, None, "f", '{"a": "\\ud800"}', whole=True)],
    ),
    "a call with arguments as text": (
        said({"functionCall": {"name": "f", "args": '{"a": 1}'}}),
        [ToolCallDelta(None, None, "f", '{"a": 1}', whole=True)],
    ),
    "an empty call": (said({"functionCall": {}}), []),
    "code, its result and an image": (
        said({"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": ""}}, {"inlineData": {"data": ""}}),
        [
            ServerTool("code_execution-1", "code_execution", {"code": "1"}, None, {"executableCode": {"code": "1"}}),
            ServerTool("code_execution-1", "code_execution", {"code": "1"}, {"output": ""},
                       {"codeExecutionResult": {"output": ""}}),
            Other("inlineData", {"inlineData": {"data": ""}}, in_turn=True),
        ],
    ),
    "the end without content": ({"candidates": [{"finishReason": "STOP"}]}, [Finish("stop", "STOP")]),
    "text and the end": (said({"text": "a"}, finish="MAX_TOKENS"), ["a", Finish("length", "MAX_TOKENS")]),
    "an end that is none": (said({"text": "a"}, finish="FINISH_REASON_UNSPECIFIED"), ["a"]),
    "another candidate": (
        {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}]},
        [OtherChoice(1, Text("b")), OtherChoice(1, Finish("stop", "STOP"))],
    ),
    "two candidates": (
        {"candidates": [{"content": {"parts": [{"text": "a"}]}}, {"index": 1, "content": {"parts": [{"text": "b"}]}}]},
        ["a", OtherChoice(1, Text("b"))],
    ),
    "logprobs": (
        said({"text": "a"}, logprobsResult={"chosenCandidates": [{"token": "a", "logProbability": -1}]}),
        ["a", Logprobs(({"token": "a", "logProbability": -1},))],
    ),
    "logprobs with others": (
        said(
            logprobsResult={
                "chosenCandidates": [{"token": "a"}],
                "topCandidates": [{"candidates": [{"token": "a"}, {"token": "b"}]}],
            }
        ),
        [Logprobs(({"token": "a", "topCandidates": [{"token": "a"}, {"token": "b"}]},))],
    ),
    "usage alone": ({"usageMetadata": COUNTS}, [COUNTED]),
    "usage while it thinks": (
        {"usageMetadata": {"promptTokenCount": 3, "thoughtsTokenCount": 4}},
        [Usage(3, 4, None, None, None, 4)],
    ),
    "usage of tools and of the cache": (
        {"usageMetadata": {"promptTokenCount": 3, "toolUsePromptTokenCount": 4, "cachedContentTokenCount": 2}},
        [Usage(7, None, None, 2)],
    ),
    "usage of wrong types": ({"usageMetadata": {"promptTokenCount": "3", "totalTokenCount": True}}, [Usage()]),
    "no candidates": ({"candidates": []}, []),
    "null candidates": ({"candidates": None}, []),
    "candidates of a wrong type": ({"candidates": [7, None, {"content": 1}, {"content": {"parts": [3]}}]}, []),
    "a text of a wrong type": (said({"text": 7}), []),
    "an index as text": (
        {"candidates": [{"index": "1", "content": {"parts": [{"text": "b"}]}}]},
        [OtherChoice(1, Text("b"))],
    ),
    "prompt feedback without a block": ({"promptFeedback": {"safetyRatings": []}}, []),
    "an empty object": ({}, []),
    "a heartbeat": ("", []),
    "a gateway's end mark": ("[DONE]", [END]),
    "a list of responses": ([said({"text": "a"}), said({"text": "b"})], ["a", "b"]),
}  # fmt: skip

REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
    "FUNCTION_CALL": "tool_calls",
    "LANGUAGE": "other",
    "OTHER": "other",
    "CONTINUATION": "other",
    "WIBBLE": "other",
}


class TestEvents:
    """The content of an event."""

    @pytest.mark.parametrize("name", EVENTS)
    def test_an_event(self, name: str) -> None:
        """With the fast decoder or the full one."""
        data, expected = EVENTS[name]
        assert items(data) == expected

    @pytest.mark.parametrize("name", [name for name, (data, _) in EVENTS.items() if isinstance(data, dict)])
    def test_the_fast_way_says_the_same_as_the_slow_one(self, name: str) -> None:
        """It only saves time."""
        frame = Record(json.dumps(EVENTS[name][0]))
        assert list(Gemini.decode(frame)) == list(Reader()._other(frame))

    def test_text_is_found_out_fast(self) -> None:
        """Without a generator; with and without usage."""
        assert isinstance(Gemini.decode(Record(json.dumps(EVENTS["text"][0]))), tuple)
        assert isinstance(Gemini.decode(Record(json.dumps(EVENTS["text and usage"][0]))), tuple)

    @pytest.mark.parametrize(("raw", "reason"), REASONS.items())
    def test_a_reason_to_finish(self, raw: str, reason: str) -> None:
        """In llmbridge's words, and in the service's own."""
        assert items(said(finish=raw)) == [Finish(reason, raw)]  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("data", "event", "error"),
        [
            (BARE_ERROR, "message", Overloaded),
            ([BARE_ERROR], "message", Overloaded),
            ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x"}}, "message", RateLimited),
            ({"error": {"code": 400, "message": "API key not valid."}}, "message", AuthError),
            ({"error": {"code": 504, "status": "DEADLINE_EXCEEDED", "message": "x"}}, "message", ServerError),
            ({"message": "boom", "code": 500}, "error", ServerError),
            ("Service unavailable", "error", LLMBridgeError),
            ("{broken", "message", ProtocolError),
            ("7", "message", ProtocolError),
            ([7], "message", ProtocolError),
            (said({"functionCall": {"args": {"a": 1}}}), "message", ProtocolError),
        ],
    )
    def test_an_error(self, data: Any, event: str, error: type[LLMBridgeError]) -> None:
        """It has the class that it names."""
        with pytest.raises(error):
            items(data, event)

    @pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY"])
    def test_a_refused_prompt_is_an_error(self, reason: str) -> None:
        """There is no answer, but the tokens are counted."""
        found: list[Any] = []
        chunk = {"promptFeedback": {"blockReason": reason}, "usageMetadata": COUNTS}
        with pytest.raises(ContentFiltered, match=reason) as caught:
            found.extend(Gemini.decode(Record(json.dumps(chunk))))
        assert found == [COUNTED]
        assert caught.value.code == reason
        assert not caught.value.retryable
        assert json.loads(caught.value.body)["promptFeedback"] == {"blockReason": reason}

    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            (said({"text": "a"}, finish="STOP"), ["a", Finish("stop", "STOP"), END]),
            ([said({"text": "a"}), said({"text": "b"}, finish="STOP")], ["a", "b", Finish("stop", "STOP"), END]),
        ],
    )
    def test_a_document(self, document: Any, expected: list[Any]) -> None:
        """A whole answer, or the list of what would have been events."""
        assert list(Gemini.decode_document(document)) == expected

    @pytest.mark.parametrize(
        ("document", "error"),
        [
            ([BARE_ERROR], Overloaded),
            (BARE_ERROR, Overloaded),
            ({"detail": "Not Found"}, LLMBridgeError),
            ({"choices": []}, ProtocolError),
            ([], ProtocolError),
            (7, ProtocolError),
            ([said({"text": "a"}), 7], ProtocolError),
        ],
    )
    def test_another_document_is_an_error(self, document: Any, error: type[LLMBridgeError]) -> None:
        """Never a KeyError."""
        with pytest.raises(error):
            list(Gemini.decode_document(document))


NAMES = (
    "candidates content parts text thought thoughtSignature functionCall name args id finishReason index "
    "logprobsResult chosenCandidates topCandidates usageMetadata promptTokenCount promptFeedback blockReason error "
    "message embeddings values models"
).split()
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | st.floats() | st.sampled_from(["STOP", "\ud83d", "", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip
VOCABULARY = (
    *(str, Reasoning, Usage, Finish, End, ToolCallDelta, Logprobs, OtherChoice, Other, EndOfPart, ServerTool, Media),
    *(MediaDelta, Citation, CitationInBytes, Summary),
)


@pytest.mark.slow
@given(value=ANY_JSON | ANY_JSON.map(said) | ANY_JSON.map(lambda value: {"candidates": [value]}))
def test_any_json_is_items_or_an_error_of_the_tree(value: Any) -> None:
    """P10, in the dialect's own words."""
    for found in (
        lambda: Gemini.decode(Record(json.dumps(value))),
        lambda: Gemini.decode_document(value),
        lambda: iter(Gemini.decode_models(value)),
        lambda: iter(Gemini.decode_embeddings(value)[0]),
    ):
        with contextlib.suppress(LLMBridgeError):
            for item in found():
                assert isinstance(item, (*VOCABULARY, list))
                assert item != ""


def test_deep_nesting_is_not_a_recursion_error() -> None:
    """P10: wherever decoding writes JSON again."""
    nest = '{"a":' * 900 + "1" + "}" * 900
    for data in (
        f'{{"candidates": [{{"content": {{"parts": [{{"functionCall": {{"name": "f", "args": {nest}}}}}]}}}}]}}',
        f'{{"promptFeedback": {{"blockReason": "SAFETY", "x": {nest}}}}}',
    ):
        with contextlib.suppress(LLMBridgeError):
            list(Gemini.decode(Record(data)))


def test_what_nests_too_deeply_to_be_written_is_an_error_of_the_tree() -> None:
    """Some versions of Python read deeper JSON than they write."""
    nest: list[Any] = []
    for _ in range(200_000):
        nest = [nest]
    with pytest.raises(ProtocolError, match="too deeply"):
        dumped(nest)


ERROR_TEXT = json.dumps(
    {
        "error": {
            "code": 503,
            "message": 'The "model" is {overloaded\\',
            "status": "UNAVAILABLE",
            "details": [{"a": "}"}],
        }
    },
    indent=2,
)
EVENT = "data: " + json.dumps(said({"text": "Hi"}))


def ask(client: Client, server: LLMServer, **params: Any) -> Any:
    """A call with a scripted answer."""
    return client.chat(
        "Hello", "gemini:gemini-2.5-flash", base_url=server.root, api_key="k-1234567", proxy=False, timeout=20, **params
    )


HELLO = "Hello from a real server. Grüße, 世界 🌍!"
NOTHING = Usage(0, 0, 0)
CITY = {"city": "San Francisco", "unit": "fahrenheit"}
# Name: text, reason, the service's word for it, tokens, reasoning, calls.
ANSWERS: dict[str, tuple[str, str, str, Usage, str, list[tuple[str, str, Any]]]] = {
    "gemini_array": (HELLO, "stop", "STOP", NOTHING, "", []),
    "gemini_filter": ("I can", "content_filter", "SAFETY", NOTHING, "", []),
    "gemini_length": ("This was cut by the limit", "length", "MAX_TOKENS", NOTHING, "", []),
    "gemini_nostream": ("Counted answer.", "stop", "STOP", Usage(11, 7, 18), "", []),
    "gemini_text": (HELLO, "stop", "STOP", NOTHING, "", []),
    "gemini_thinking": ("The answer is 4.", "stop", "STOP", NOTHING, "Two and two make four.", []),
    "gemini_tool": ("", "tool_calls", "FUNCTION_CALL", NOTHING, "", [("call_peer_0", "get_weather", CITY)]),
    "gemini_twotools": (
        *("", "tool_calls", "FUNCTION_CALL", NOTHING, ""),
        [("call_peer_1", "get_weather", {"city": "Zürich", "unit": "c"}), ("call_peer_2", "get_time", {})],
    ),
    "gemini_usage": ("Counted answer.", "stop", "STOP", Usage(11, 7, 18), "", []),
    "vertex_text": (HELLO, "stop", "STOP", NOTHING, "", []),
}
FAILURES: dict[str, tuple[type[LLMBridgeError], str, str]] = {
    "gemini_err400": (BadRequest, "Invalid parameter: temperature", ""),
    "gemini_err401": (AuthError, "Incorrect API key provided", ""),
    "gemini_err404": (NotFound, "The model does not exist", ""),
    "gemini_err429": (RateLimited, "Rate limit exceeded", ""),
    "gemini_err503": (Overloaded, "Overloaded", ""),
    "gemini_truncate": (StreamTruncated, "the connection ended", "This stream will"),
}


def recording(name: str) -> list[Any]:
    """The recorded bytes, and the end of the connection if it was recorded."""
    path = DATA / "aimock" / f"{name}.txt"
    complete = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["end"] == "complete"
    return [path.read_bytes()] if complete else [path.read_bytes(), CLOSE]


class TestOverTheWire:
    """The whole way, with a loopback server."""

    def test_every_recording_is_here(self) -> None:
        """Every recording is checked."""
        found = {path.stem for kind in ("gemini_*.txt", "vertex_*.txt") for path in DATA.glob(f"*/{kind}")}
        assert found == {*ANSWERS, *FAILURES}

    @pytest.mark.parametrize("split", [None, 1])
    @pytest.mark.parametrize("name", ANSWERS)
    def test_a_recorded_answer(self, server: LLMServer, name: str, split: int | None) -> None:
        """Whole and byte by byte."""
        text, reason, raw, usage, reasoning, calls = ANSWERS[name]
        server.script(Reply(raw=recording(name), split=split))
        with Client(retries=0) as client:
            answer = ask(client, server).complete()
        assert (answer.text, answer.finish_reason, answer.raw_finish_reason) == (text, reason, raw)
        assert (answer.usage, answer.reasoning) == (usage, reasoning)
        assert [(call.id, call.name, dict(call.arguments)) for call in answer.tool_calls] == calls

    @pytest.mark.parametrize("split", [None, 1])
    @pytest.mark.parametrize("name", FAILURES)
    def test_a_recorded_error(self, server: LLMServer, name: str, split: int | None) -> None:
        """Whole and byte by byte."""
        error, says, partial = FAILURES[name]
        server.script(Reply(raw=recording(name), split=split))
        with Client(retries=0) as client, pytest.raises(error, match=says) as caught:
            ask(client, server).complete()
        assert type(caught.value) is error
        assert caught.value.partial == partial

    @pytest.mark.parametrize("split", [None, 1])
    @pytest.mark.parametrize("transfer", ["chunked", "close"])
    def test_an_error_in_mid_stream(self, server: LLMServer, split: int | None, transfer: Any) -> None:
        """Bare JSON over several lines, as the service sends it, after the text so far."""
        body = f"{EVENT}\r\n\r\n{ERROR_TEXT}\r\n"
        server.script(Reply(body=body, content_type="text/event-stream", split=split, transfer=transfer))
        with Client(retries=0) as client, pytest.raises(Overloaded, match="overloaded") as caught:
            ask(client, server).complete()
        assert caught.value.partial == "Hi"
        assert caught.value.status == 503

    def test_an_error_that_repeats_the_key_is_masked(self, server: LLMServer) -> None:
        """P16: also in bare JSON."""
        error = {"error": {"code": 500, "message": "key k-1234567 is bad", "status": "INTERNAL"}}
        body = f"{EVENT}\n\n{json.dumps(error, indent=1)}\n"
        server.script(Reply(body=body, content_type="text/event-stream"))
        with Client(retries=0) as client, pytest.raises(ServerError) as caught:
            ask(client, server).complete()
        assert "1234567" not in str(caught.value) + caught.value.body

    def test_a_stop_on_every_event_ends_nothing(self, server: LLMServer) -> None:
        """Older servers send it; the last reason counts."""
        chunks = [said({"text": "a"}, finish="STOP"), said({"text": "b"}, finish="STOP"), said(finish="MAX_TOKENS")]
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        server.script(Reply(body=body, content_type="text/event-stream"))
        with Client(retries=0) as client:
            answer = ask(client, server).complete()
        assert (answer.text, answer.finish_reason) == ("ab", "length")

    def test_calls_without_ids_stay_apart(self, server: LLMServer) -> None:
        """In one event and in several; ids are made up, and the finish reason says tool_calls."""
        calls = [{"functionCall": {"name": "f", "args": {"n": n}}} for n in range(3)]
        calls[0]["thoughtSignature"] = "S"  # type: ignore[assignment]
        body = f"data: {json.dumps(said(*calls[:2]))}\n\ndata: {json.dumps(said(calls[2], finish='STOP'))}\n\n"
        server.script(Reply(body=body, content_type="text/event-stream"))
        with Client(retries=0) as client:
            answer = ask(client, server).complete()
        assert [call.arguments for call in answer.tool_calls] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert len({call.id for call in answer.tool_calls}) == 3
        assert [call.signature for call in answer.tool_calls] == ["S", None, None]
        assert (answer.finish_reason, answer.raw_finish_reason) == ("tool_calls", "STOP")

    def test_signatures_come_back_on_the_parts_that_had_them(self, server: LLMServer) -> None:
        """On the text and a call, in the next request; thoughts without a signature are left out."""
        parts = [
            {"text": "hm", "thought": True},
            {"text": "a", "thoughtSignature": "S1"},
            {"functionCall": {"id": "c", "name": "f", "args": {}}, "thoughtSignature": "S2"},
        ]
        server.script(
            Reply(body=f"data: {json.dumps(said(*parts, finish='STOP'))}\n\n", content_type="text/event-stream")
        )
        with Client(retries=0) as client:
            answer = ask(client, server).complete()
        assert contents([answer.message]) == [{"role": "model", "parts": parts[1:]}]

    def test_a_refused_prompt(self, server: LLMServer) -> None:
        """It names the reason, and has the call's context."""
        blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
        server.script(Reply(body=f"data: {json.dumps(blocked)}\n\n", content_type="text/event-stream"))
        with Client(retries=0) as client, pytest.raises(ContentFiltered) as caught:
            ask(client, server).complete()
        assert (caught.value.provider, caught.value.model) == ("gemini", "gemini-2.5-flash")

    @pytest.mark.parametrize("split", [None, 1])
    def test_a_list_in_place_of_a_stream(self, server: LLMServer, split: int | None) -> None:
        """The service's form without `alt=sse`, and its error as a list of one."""
        chunks = [said({"text": "a"}), {**said({"text": "b"}, finish="STOP"), "usageMetadata": COUNTS}]
        server.script(
            Reply(body=json.dumps(chunks, indent=1), content_type="application/json", split=split),
            Reply(body=json.dumps([BARE_ERROR]), content_type="application/json", split=split),
        )
        with Client(retries=0) as client:
            answer = ask(client, server).complete()
            assert (answer.text, answer.usage) == ("ab", COUNTED)
            with pytest.raises(Overloaded):
                ask(client, server).complete()

    def test_what_is_sent(self, server: LLMServer) -> None:
        """Path, key and body on the server; the key is nowhere else."""
        server.script(Reply(raw=recording("gemini_text")))
        with Client(retries=0) as client:
            ask(client, server, max_tokens=5).complete()
        (received,) = server.requests
        assert received.path == "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
        assert received.header("x-goog-api-key") == "k-1234567"
        assert received.header("authorization") is None
        assert received.json == encoded("Hello", max_tokens=5).body


class TestModels:
    """The list of models."""

    def test_names(self) -> None:
        """In the form for `model=`."""
        listed = {"models": [{"name": "models/gemini-2.5-flash"}, {"name": "tunedModels/x"}, {}, 7]}
        assert Gemini.decode_models(listed) == ["gemini-2.5-flash", "tunedModels/x"]

    @pytest.mark.parametrize(("document", "error"), [(BARE_ERROR, Overloaded), ({"data": []}, ProtocolError)])
    def test_what_is_not_a_list(self, document: Any, error: type[LLMBridgeError]) -> None:
        """An error of llmbridge."""
        with pytest.raises(error):
            Gemini.decode_models(document)


class TestDeclarations:
    """Declarations of functions."""

    @pytest.mark.parametrize("name", ["3d", "-x"])
    def test_a_name_begins_with_a_letter(self, name: str) -> None:
        """Other services accept other names."""
        with pytest.raises(InvalidRequest, match=f"tool {name}: Gemini needs a name that starts with a letter"):
            Gemini.encode(ChatRequest.checked("m", "Hi", {"tools": [{"name": name, "parameters": {}}]}))

    def test_arrays_have_items(self) -> None:
        """In the schemas of tools and answers."""
        schema = {"type": "object", "properties": {"a": {"type": "array"}}}
        asked = ChatRequest.checked(
            "gemini-3-pro", "Hi", {"tools": [{"name": "f", "parameters": schema}], "schema": schema}
        )
        body = Gemini.encode(asked).body
        whole = {"type": "object", "properties": {"a": {"type": "array", "items": {}}}}
        assert body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"] == whole
        assert body["generationConfig"]["responseJsonSchema"] == whole

    def test_what_else_a_declaration_holds_stays(self) -> None:
        """Beside the functions; the service's own tools are kept as well."""
        own = {"name": "f", "behavior": "NON_BLOCKING", "parameters": {"type": "OBJECT", "properties": {}}}
        tools = [{"functionDeclarations": [own]}, {"google_search": {}}]
        assert Gemini.encode(ChatRequest.checked("m", "Hi", {"tools": tools})).body["tools"] == [
            {
                "functionDeclarations": [
                    {
                        "name": "f",
                        "behavior": "NON_BLOCKING",
                        "parametersJsonSchema": {"type": "object", "properties": {}},
                    }
                ]
            },
            {"google_search": {}},
        ]


class TestEmbeddings:
    """Vectors for texts."""

    def test_what_is_sent(self) -> None:
        """One request per text; the parameters are in each."""
        sent = Gemini.encode_embeddings("e", ["a", "b"], {"dimensions": 8, "task_type": "X", "api_version": "v1"})
        each = {"model": "models/e", "taskType": "X", "outputDimensionality": 8}
        assert sent.path == "/v1/models/e:batchEmbedContents"
        assert sent.body == {"requests": [{**each, "content": {"parts": [{"text": text}]}} for text in ("a", "b")]}

    def test_what_comes(self) -> None:
        """In the order of the texts; with usage if the service counts."""
        document: dict[str, Any] = {"embeddings": [{"values": [1, 0.5]}, {"values": []}]}
        assert Gemini.decode_embeddings(document) == ([[1.0, 0.5], []], None)
        document["usageMetadata"] = {"promptTokenCount": 3}
        assert Gemini.decode_embeddings(document)[1] == Usage(3)

    @pytest.mark.parametrize(
        ("document", "error"),
        [
            (BARE_ERROR, Overloaded),
            ([BARE_ERROR], Overloaded),
            ({}, ProtocolError),
            ({"embeddings": [{}]}, ProtocolError),
            ({"embeddings": [{"values": ["x"]}]}, ProtocolError),
            ({"embeddings": [{"values": [True]}]}, ProtocolError),
        ],
    )
    def test_what_is_none(self, document: Any, error: type[LLMBridgeError]) -> None:
        """An error of llmbridge."""
        with pytest.raises(error):
            Gemini.decode_embeddings(document)


@pytest.mark.parametrize(("model", "mode"), [("gemini-2.5-flash", "tool"), ("gemini-3-pro", "native")])
def test_a_schema_beside_tools_goes_where_the_model_takes_it(model: str, mode: str) -> None:
    """Models before Gemini 3 reject a JSON answer beside functions with 400 (googleapis/python-genai#867)."""
    tool = {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}
    schema = {"title": "City", "type": "object", "properties": {"name": {"type": "string"}}}
    asked = ChatRequest.checked(model, "Hi", {"tools": [tool], "schema": schema})
    body = Gemini.encode(asked).body
    assert ("responseJsonSchema" in body.get("generationConfig", {})) == (mode == "native")
    assert Gemini.answer_tool(asked) == ("City" if mode == "tool" else None)
    assert Gemini.answer_tool(ChatRequest.checked(model, "Hi", {"schema": schema})) is None

"""What OpenAI's own models reject is an error before sending."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from llmbridge import Document, Image, InvalidRequest, chat
from llmbridge.messages import ChatRequest
from llmbridge.providers import find
from llmbridge.providers.openai import OpenAI, OpenAICompatible
from llmbridge.testing import LLMServer

PDF = b"%PDF-1.7\n"
PNG = Image("https://example.com/a.png")
PICTURE = PNG.to_part()
CALLS = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ("c1", "c2")]


def refused(model: str, **params: Any) -> set[str]:
    """The parameters that are not sent."""
    return set(OpenAI.refusals(ChatRequest.checked(model, "Hi", params)))


def sent(*turns: Any, provider: type[OpenAI] = OpenAI) -> list[Any]:
    """The messages in the body."""
    return list(provider.encode(ChatRequest.checked("gpt-4.1", list(turns), {})).body["messages"])


class TestParameters:
    """They depend on the model's name."""

    @pytest.mark.parametrize(
        "model", ["gpt-5", "gpt-5-mini", "gpt-5-nano-2025-08-07", "o1", "o1-preview", "o3-mini", "o4-mini-2025-04-16"]
    )
    @pytest.mark.parametrize(
        ("name", "value", "taken"),
        [
            ("temperature", 0, 1),
            ("top_p", 0.5, 1.0),
            ("presence_penalty", 1, 0),
            ("frequency_penalty", 0.5, 0),
            ("logprobs", True, False),
            ("top_logprobs", 2, 0),
            ("logit_bias", {"1": 2}, {}),
        ],
    )
    def test_models_that_always_reason(self, model: str, name: str, value: Any, taken: Any) -> None:
        """They accept only the default value."""
        assert refused(model, **{name: value}) == {name}
        assert refused(model, **{name: taken}, seed=1, max_tokens=5) == set()

    @pytest.mark.parametrize(
        "model",
        ["gpt-4.1", "gpt-4o-mini", "gpt-5-chat-latest", "gpt-5.1", "gpt-6-chat-latest", "o5", "my-o3", "gpt-50"],
    )
    def test_other_models_decide_themselves(self, model: str) -> None:
        """The service decides what is not known for certain."""
        assert refused(model, temperature=0, top_p=0.5, logprobs=True, presence_penalty=1) == set()

    @pytest.mark.parametrize("model", ["gpt-5.1", "gpt-5.2-2025-12-11", "gpt-5.4-mini"])
    def test_models_that_may_reason(self, model: str) -> None:
        """Sampling requires the effort "none"."""
        assert refused(model, temperature=0, top_p=0.5, logprobs=True, reasoning_effort="low") == {
            "temperature", "top_p", "logprobs",
        }  # fmt: skip
        assert refused(model, temperature=1, logprobs=False, reasoning_effort="low") == set()
        assert refused(model, temperature=0, top_p=0.5, logprobs=True, reasoning_effort="none") == set()

    @pytest.mark.parametrize("model", ["gpt-5.5", "gpt-5.6-terra", "gpt-6-2026-10-01", "gpt-6.1-mini"])
    def test_models_that_reason_by_default(self, model: str) -> None:
        """They do so without any effort given, too."""
        assert refused(model, temperature=0) == refused(model, temperature=0, reasoning_effort="low") == {"temperature"}
        assert refused(model, temperature=0, top_p=0.5, reasoning_effort="none") == set()

    @pytest.mark.parametrize(
        ("model", "names"),
        [
            ("o3", {"stop"}),
            ("o4-mini", {"stop"}),
            ("gpt-5-mini", {"stop"}),
            ("o1", set()),
            ("gpt-5-chat-latest", set()),
        ],
    )
    def test_stop_sequences(self, model: str, names: set[str]) -> None:
        """Older models of the family support them."""
        assert refused(model, stop=["x"]) == names

    def test_other_servers_decide_for_themselves(self) -> None:
        """Whatever their models are called."""
        request = ChatRequest.checked("gpt-5", "Hi", {"temperature": 0, "reasoning_effort": 100})
        assert OpenAICompatible.refusals(request) == {}

    def test_the_error_says_what_to_do(self, server: LLMServer) -> None:
        """The parameter can also be left out."""
        asked: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": "k-012345", "proxy": False}
        with pytest.raises(
            InvalidRequest, match=r"temperature \(temperature: gpt-5-mini is a reasoning model and accepts only 1\)"
        ):
            chat("Hi", "openai:gpt-5-mini", temperature=0, **asked).complete()
        chat("Hi", "openai:gpt-5-mini", temperature=0, unsupported="drop", **asked).complete()
        assert "temperature" not in server.requests[0].json


class TestDocuments:
    """PDF as a file, text as text, and nothing else."""

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            (Document("https://example.com/a.pdf"), "do not download documents.*openai-responses"),
            (
                Document(b"PK\x03\x04", media_type="application/zip"),
                "accept PDF and text documents, not application/zip",
            ),
            (Document(b"\xff\xfe\xff", media_type="text/plain"), "not valid UTF-8"),
        ],
        ids=["by URL", "a kind it does not know", "broken text"],
    )
    def test_what_is_refused(self, document: Document, message: str) -> None:
        """With what to do instead."""
        with pytest.raises(InvalidRequest, match=message):
            sent({"role": "user", "content": ["Sum up.", document]})

    def test_a_pdf(self) -> None:
        """With its data and name."""
        (turn,) = sent({"role": "user", "content": [Document(PDF, filename="a.pdf")]})
        data = "data:application/pdf;base64," + base64.b64encode(PDF).decode()
        assert turn["content"] == [{"type": "file", "file": {"filename": "a.pdf", "file_data": data}}]

    def test_a_text(self) -> None:
        """With its name."""
        document = Document("Grüße".encode(), filename="a.md", media_type="text/markdown")
        (turn,) = sent({"role": "user", "content": [document]})
        assert turn["content"] == [{"type": "text", "text": "a.md\n\nGrüße"}]

    def test_a_file_that_the_service_has(self) -> None:
        """By its id."""
        part = {"type": "file", "file": {"file_id": "file-1"}}
        assert sent({"role": "user", "content": [part]})[0]["content"] == [part]


class TestPictures:
    """Only from users."""

    @pytest.mark.parametrize("role", ["system", "developer"])
    def test_messages_of_others(self, role: str) -> None:
        """They are refused, as their speaker is unknown."""
        with pytest.raises(InvalidRequest, match=f"a {role} message holds a part of type 'image_url'"):
            sent({"role": role, "content": ["Look:", PNG]}, {"role": "user", "content": "Hi"})

    def test_those_of_an_answer(self) -> None:
        """They are left out, from any service; the transcript of speech is sent."""
        spoken = {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}, "transcript": "Hello."}
        [alone, said] = sent(
            {"role": "assistant", "content": [PNG]}, {"role": "assistant", "content": ["So: ", spoken]}
        )
        assert alone["content"] == ""
        assert said["content"] == [{"type": "text", "text": "So: "}, {"type": "text", "text": "Hello."}]

    def test_the_answers_of_tools(self) -> None:
        """They are moved to a message after all results, each with the name of its call."""
        found = sent(
            {"role": "assistant", "content": None, "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "c1", "content": ["See:", PNG]},
            {"role": "tool", "tool_call_id": "c2", "content": [PNG]},
            {"role": "user", "content": "Well?"},
        )
        assert [turn["role"] for turn in found] == ["assistant", "tool", "tool", "user", "user"]
        assert found[1]["content"] == [{"type": "text", "text": "See:"}]
        assert found[2]["content"] == "The answer stands in the user's next message."
        assert found[3]["content"] == [
            {"type": "text", "text": "From the answer to the tool call c1:"},
            PICTURE,
            {"type": "text", "text": "From the answer to the tool call c2:"},
            PICTURE,
        ]

    def test_the_answer_of_a_tool_at_the_end(self) -> None:
        """No message has to follow it."""
        found = sent(
            {"role": "assistant", "content": None, "tool_calls": CALLS[:1]},
            {"role": "tool", "tool_call_id": "c1", "content": [PNG]},
        )
        assert found[-1]["content"][1:] == [PICTURE]

    def test_text_alone(self) -> None:
        """It stays where it is."""
        turn = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "Rain"}]}
        assert sent(turn) == [turn]


def test_ids_of_calls_that_are_too_long() -> None:
    """Those of more than forty characters are replaced in the call and its result."""
    name = "chatcmpl-tool-" + "0123456789abcdef" * 3
    call = {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said, answer, short = sent(
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "content": "4"},
        {"role": "tool", "tool_call_id": "x" * 40, "content": "4"},
    )
    assert said["tool_calls"][0]["id"] == answer["tool_call_id"] != name
    assert len(answer["tool_call_id"]) <= 40
    assert short["tool_call_id"] == "x" * 40
    body = OpenAICompatible.encode(ChatRequest.checked("m", [said | {"tool_calls": [call]}], {})).body
    assert body["messages"][0]["tool_calls"][0]["id"] == name


@pytest.mark.parametrize("name", ["groq", "lmstudio", "deepseek", "openai-compatible", "cohere"])
def test_images_in_answers_of_tools_elsewhere(name: str) -> None:
    """They are moved to a user message, and the result is a str: strict servers accept nothing else there."""
    turns = [
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "c1", "content": ["See:", PNG]},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "user", "content": "Well?"},
    ]
    found = find(name).encode(ChatRequest.checked("m", turns, {})).body["messages"]
    assert [(turn["role"], turn["content"]) for turn in found[1:]] == [
        ("tool", "See:"),
        ("tool", "ab"),
        ("user", [{"type": "text", "text": "From the answer to the tool call c1:"}, PICTURE]),
        ("user", "Well?"),
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "document", "document": {"data": "a"}},
    ],
)
def test_parts_that_are_more_than_text_stay_parts(part: dict[str, Any]) -> None:
    """Marks for a cache, and fields that only the service knows."""
    turn = {"role": "tool", "tool_call_id": "c1", "content": [part]}
    assert OpenAICompatible.encode(ChatRequest.checked("m", [turn], {})).body["messages"] == [turn]

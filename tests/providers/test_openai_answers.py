"""Chat completions beyond pieces of text: whole answers, sources, media, other calls, unknown things."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from modes import Mode

from llmbridge import Client, Completion, LLMBridgeError, ProtocolError, ServiceError, StreamError, chat
from llmbridge._call.framing import Record
from llmbridge.events import Citation, Media, Other, OtherChoice, Reasoning, ToolCall
from llmbridge.messages import ChatRequest, Message, Opaque
from llmbridge.providers.openai import OpenAI, OpenAICompatible, decode_completion
from llmbridge.providers.openai.answer import _decode_completion
from llmbridge.testing import LLMServer, Reply

ENTRY: dict[str, Any] = {
    "type": "url_citation",
    "url_citation": {"url": "https://a.example/1", "title": "One", "start_index": 0, "end_index": 10},
}
USED = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(40))
PICTURE = "data:image/png;base64," + base64.b64encode(PNG).decode()
SOUND = b"RIFF\x00\x00\x00\x00WAVE" + bytes(range(99))
SPOKEN = base64.b64encode(SOUND).decode()


def chunk(delta: Any = None, finish: Any = None, index: Any = 0, **choice: Any) -> dict[str, Any]:
    """An event with one choice."""
    inner = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish, **choice}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [inner]}


def whole(message: dict[str, Any], finish: str | None = "stop", **top: Any) -> dict[str, Any]:
    """A completion in an event."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **top}


def reply(*events: Any) -> Reply:
    """A stream of these events."""
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return Reply(body="".join([*lines, "data: [DONE]\n\n"]).encode())


def told(*events: Any) -> list[Any]:
    """The events of an answer."""
    with LLMServer(reply(*events)) as server, Client("m", base_url=server.base_url("openai")) as client:
        return list(client.chat("Hi").events())


def answer(*events: Any, model: str = "m") -> Completion[Any]:
    """The result of an answer's events."""
    with LLMServer(reply(*events)) as server, Client(model, base_url=server.base_url("openai"), api_key="k") as client:
        return client.chat("Hi").complete()


def sent_again(message: Message, provider: type[OpenAI] = OpenAICompatible) -> dict[str, Any]:
    """The message in the body of the next request to the service."""
    request = ChatRequest.checked("m", [{"role": "user", "content": "Hi"}, message], {})
    body: dict[str, Any] = json.loads(json.dumps(provider.encode(request).body))
    return dict(body["messages"][1])


TEXT = [chunk({"role": "assistant", "content": "The bridge "}), chunk({"content": "is red."})]
CALL = {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": '{"euros": 5}'}}


class TestWhole:
    """A whole answer after its pieces, or alone."""

    @pytest.mark.parametrize(
        "events",
        {
            "behind its end": [*TEXT, chunk(finish="stop"), whole({"content": "The bridge is red."}, usage=USED)],
            "in place of its end": [*TEXT, whole({"content": "The bridge is red."}, usage=USED)],
            "alone": [whole({"content": "The bridge is red."}, usage=USED)],
            "with more": [TEXT[0], whole({"content": "The bridge is red."}, usage=USED)],
            "at the beginning, empty": [
                whole({"content": ""}, None), *TEXT, chunk(finish="stop"), {"choices": [], "usage": USED},
            ],
            "beside the last piece": [
                TEXT[0],
                {
                    "choices": [{"delta": {"content": "is red."}, "message": {"content": "The bridge is red."},
                                 "finish_reason": "stop"}],
                    "usage": USED,
                },
            ],
            "beside each piece": [
                {"choices": [{"delta": {"content": "The bridge "}, "message": {"content": "The bridge "}}]},
                {"choices": [{"delta": {"content": "is red."}, "message": {"content": "The bridge is red."}}]},
                {**chunk(finish="stop"), "usage": USED},
            ],
            "in a message in place of a delta": [
                {"choices": [{"index": 0, "message": {"content": "The bridge "}}]},
                {"choices": [{"index": 0, "message": {"content": "is red."}}]},
                {**chunk(finish="stop"), "usage": USED},
            ],
            "in a message that grows": [
                {"choices": [{"index": 0, "message": {"content": "The bridge "}}]},
                {"choices": [{"index": 0, "message": {"content": "The bridge is red."}, "finish_reason": "stop"}]},
                {"choices": [], "usage": USED},
            ],
            "as text": [
                {**whole({}), "choices": [{"index": 0, "text": "The bridge is red.", "finish_reason": "stop"}]},
                {**whole({}), "choices": [{"index": 0, "text": "The bridge is red.", "finish_reason": "stop"}],
                 "usage": USED},
            ],
        }.values(),
    )  # fmt: skip
    def test_it_is_yielded_once(self, events: list[Any], mode: Mode) -> None:
        """In any kind of loop, with usage and finish reason."""
        with LLMServer(reply(*events)) as server, Client("m", base_url=server.base_url("openai")) as client:
            got = mode.complete(client.chat("Hi"))
        assert (got.text, got.finish_reason, got.usage and got.usage.total_tokens) == ("The bridge is red.", "stop", 9)

    def test_a_tool_runs_once(self, server: LLMServer, client: Client) -> None:
        """Even if its call comes twice, the second time with another id."""
        paid = []

        def pay(euros: int) -> str:
            """Pays."""
            paid.append(euros)
            return "paid"

        again = {**CALL, "id": "call_9"}
        events = [chunk({"tool_calls": [{"index": 0, **CALL}]}), chunk(finish="tool_calls"),
                  whole({"content": None, "tool_calls": [again]}, "tool_calls")]  # fmt: skip
        server.script(reply(*events), Reply("Done."))
        assert client.chat("Pay", tools=[pay], run_tools=True).complete().text == "Done."
        assert paid == [5]

    def test_equal_pieces_and_equal_calls_are_two(self) -> None:
        """Only a summary is a repetition."""
        pieces = [{"choices": [{"message": {"content": "1"}}]}] * 2
        assert answer(*pieces, chunk(finish="stop")).text == "11"
        calls = [{"index": i, **CALL, "id": f"call_{i}"} for i in range(2)]
        got = answer(chunk({"tool_calls": calls}), whole({"tool_calls": [*calls]}, "tool_calls"))
        assert [call.id for call in got.tool_calls] == ["call_0", "call_1"]

    def test_each_choice_has_its_own(self) -> None:
        """With several choices, each summary is compared with its own choice."""
        pieces = [chunk({"content": f"{i} or "}, index=i) for i in (0, 1)]
        last = whole({"content": "0 or 2"})
        last["choices"].append({"index": 1, "message": {"content": "1 or 3"}, "finish_reason": "length"})
        said = told(*pieces, last)
        texts = ["".join(str(event) for event in said if hasattr(event, "text"))]
        other = [event.event for event in said if isinstance(event, OtherChoice)]
        assert texts == ["0 or 2"]
        assert "".join(str(event) for event in other if hasattr(event, "text")) == "1 or 3"


_MESSAGES: list[Any] = [
    {"content": "Hi"}, {"content": ""}, {"content": None}, {"content": [{"type": "text", "text": "Hi"}]}, {}, "Hi",
    None, {"reasoning_content": "Hm", "content": "Hi"}, {"content": "Hi", "reasoning_content": "Hm"},
    {"refusal": "No"}, {"tool_calls": [{"id": "c", "index": 1, "function": {"name": "f", "arguments": "{}"}}]},
    {"reasoning": "Hm", "reasoning_content": "Hm", "content": "Hi"}, {"content": "Hi", "x_new": {"a": 1}},
    {"content": "Hi", "refusal": None, "annotations": [], "tool_calls": []}, {"content": "Hi", "annotations": [ENTRY]},
    {"content": "Hi", "reasoning_details": [{"type": "reasoning.text", "text": "Hm", "signature": "s"}]},
    {"content": "Hi", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
    {"content": "Hi", "tool_calls": [{"id": "c", "index": 1, "function": {"name": "f", "arguments": "{}"}}]},
    {"content": "Hi", "function_call": {"name": "f", "arguments": "{}"}},
]  # fmt: skip
_BESIDE: list[Any] = [
    {}, {"index": None}, {"index": 1}, {"index": "0"}, {"finish_reason": None}, {"finish_reason": "length"},
    {"logprobs": None}, {"logprobs": {"content": [{"token": "Hi"}]}}, {"usage": USED}, {"delta": {"content": "no"}},
    {"error": {"message": "no"}}, {"text": "Hi"}, {"stop_reason": 2, "x_new": 1},
]  # fmt: skip
_AROUND: list[Any] = [
    {}, {"usage": USED}, {"usage": {}}, {"usage": "many"}, {"object": "error"}, {"error": {"message": "no"}},
    {"error": None}, {"x_groq": {"usage": USED}}, {"citations": ["https://a.example"]}, {"x_new": [1]},
    {"service_tier": "default", "system_fingerprint": None},
]  # fmt: skip


@pytest.mark.parametrize("around", _AROUND, ids=str)
@pytest.mark.parametrize("beside", _BESIDE, ids=str)
def test_a_plain_answer_is_read_like_any_other(beside: dict[str, Any], around: dict[str, Any]) -> None:
    """A whole answer that is read quickly says what the complete decoder finds in it, and fails as it does."""
    for message in _MESSAGES:
        document = {"choices": [{"index": 0, "message": message, "finish_reason": "stop", **beside}], **around}
        for proofs in ("", "reasoning_details"):
            assert found(decode_completion, document, proofs) == found(_decode_completion, document, proofs)


def found(decode: Any, document: Any, proofs: str) -> Any:
    """The items, or the error."""
    try:
        return [(item, getattr(item, "raw", None)) for item in decode(document, proofs)]
    except LLMBridgeError as error:
        return type(error), error.message


class TestShapes:
    """Clear forms are read, others are errors."""

    @pytest.mark.parametrize(
        "first",
        {
            "an index in quotes": chunk({"content": "Red."}, index="0"),
            "a choice in place of a list": {"choices": {"index": 0, "delta": {"content": "Red."}}},
            "choices by their index": {"choices": {"0": {"delta": {"content": "Red."}}}},
            "a delta that is text": chunk("Red."),
            "a delta that is a list": chunk([{"type": "text", "text": "Red."}]),
            "an object with text": chunk({"content": {"text": "Red."}}),
            "an object with parts": chunk({"content": {"parts": [{"text": "Re"}, {"text": "d."}]}}),
            "text that is wrapped": chunk({"content": [{"type": "text", "text": {"value": "Red."}}]}),
            "a part without a type": chunk({"content": [{"text": "Red."}]}),
            "a choice that is the message": {"choices": [{"index": 0, "role": "assistant", "content": "Red."}]},
            "an unknown type of text": chunk({"content": [{"type": "output_text", "text": "Red."}]}),
        }.values(),
    )
    def test_text_is_read(self, first: Any) -> None:
        """As if it were in the right place."""
        assert answer(first, chunk(finish="stop")).text == "Red."

    @pytest.mark.parametrize(("content", "text"), [(42, "42"), (True, "true"), (1.5, "1.5")])
    def test_a_value_is_text(self, content: Any, text: str) -> None:
        """A gateway parsed it as JSON, as when a model writes a number."""
        assert answer(chunk({"content": content}, "stop")).text == text

    @pytest.mark.parametrize(
        "call",
        [
            {"id": "call_1", "function": "pay", "arguments": '{"euros": 5}'},
            {"id": "call_1", "name": "pay", "arguments": {"euros": 5}},
            {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": {"euros": 5}}},
            {"id": "call_1", "type": "function", "custom": {}, "function": CALL["function"]},
            {"id": "call_1", "index": "0", "function": CALL["function"]},
        ],
    )
    @pytest.mark.parametrize("form", ["list", "object", "numbered"])
    def test_calls_are_read(self, call: Any, form: str) -> None:
        """In a list or not."""
        calls = {"list": [call], "object": call, "numbered": {"0": call}}[form]
        got = answer(chunk({"tool_calls": calls}), chunk(finish="stop"))
        assert [(made.id, made.name, made.arguments, made.problem) for made in got.tool_calls] == [
            ("call_1", "pay", {"euros": 5}, None)
        ]
        assert (got.finish_reason, got.tool_calls[0].kind) == ("tool_calls", "function")

    @pytest.mark.parametrize(
        ("event", "item"),
        [
            ({"choices": {"first": 1}}, "first"),
            ({"choices": "Red."}, "Red."),
            ({"choices": ["Red."]}, "Red."),
            (chunk(7), "7"),
            (chunk({"content": {"colour": "red"}}), "colour"),
            (chunk({"content": [{"colour": "red"}]}), "colour"),
            (chunk({"content": "Red."}, index="first"), "first"),
            (chunk({"content": "Red."}, index=-1), "-1"),
            (chunk({"content": "Red."}, index=True), "true"),
            (chunk({"tool_calls": "pay()"}), "pay()"),
            (chunk({"tool_calls": ["pay()"]}), "pay()"),
            (chunk({"content": {"colour": "x" * 5000}}), "colour"),
        ],
    )
    def test_an_unreadable_form_is_an_error(self, event: Any, item: str) -> None:
        """With the text so far, and the item itself, shortened."""
        with pytest.raises(ProtocolError) as caught:
            answer(chunk({"content": "It is "}), event, chunk(finish="stop"))
        assert item in str(caught.value)
        assert len(str(caught.value)) < 400
        assert caught.value.partial == "It is "

    def test_choices_without_an_index_are_not_mixed(self) -> None:
        """Their place counts; beside a choice with an index, the others get the lowest free ones."""
        both = {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}
        one = {"choices": [{"index": 1, "delta": {"content": "B"}}, {"delta": {"content": "A"}}]}
        got = answer(both, one, chunk(finish="stop"))
        assert [got.text, *(choice.text for choice in got.choices[1:])] == ["aA", "bB"]


class TestFailures:
    """Answers that end with an error."""

    @pytest.mark.parametrize(
        "last",
        [
            {"choices": [{"index": 0, "delta": {}, "error": {"code": 502, "message": "boom"}}]},
            chunk({}, "error", error={"code": 502, "message": "boom"}),
            chunk({}, "error", error="boom"),
            chunk({}, "abort"),
            chunk({}, "cancelled"),
        ],
    )
    def test_they_are_errors_with_what_had_come(self, last: Any, server: LLMServer, client: Client, mode: Mode) -> None:
        """Also if the error is in the choice."""
        server.script(reply(*TEXT, last))
        read = mode.read(client.chat("Hi"))
        assert read.pieces == ["The bridge ", "is red."]
        assert isinstance(read.error, ServiceError)
        assert read.error.partial == "The bridge is red."
        if "error" in last["choices"][0]:
            assert "boom" in str(read.error)

    def test_another_choice_may_fail_alone(self) -> None:
        """The answer is the first choice."""
        got = answer(chunk({"content": "Hi"}), chunk({}, None, 1, error={"message": "boom"}), chunk(finish="stop"))
        assert (got.text, [choice.finish_reason for choice in got.choices]) == ("Hi", ["stop", "error"])

    def test_the_whole_answer_may_have_failed(self) -> None:
        """In one document."""
        document = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "error", "error": {"message": "boom"}}]}
        with pytest.raises(StreamError, match="boom"):
            list(OpenAI.decode_document(document))


class TestCalls:
    """Calls that are not function calls."""

    def events(self) -> list[Any]:
        """A custom call in pieces."""
        first = {"index": 0, "id": "call_7", "type": "custom", "custom": {"name": "shell", "input": "echo"}}
        return [
            chunk({"tool_calls": [first]}),
            chunk({"tool_calls": [{"index": 0, "custom": {"input": " 'hi"}}]}),
            chunk({"tool_calls": [{"index": 0, "function": None, "custom": {"input": "'"}}]}),
            chunk(finish="stop"),
        ]

    def test_a_custom_call(self) -> None:
        """Its input is text; it is sent back in its own form, its result like any other."""
        got = answer(*self.events(), model="openai:m")
        assert got.tool_calls == (
            ToolCall("call_7", "shell", {"input": "echo 'hi'"}, "echo 'hi'", kind="custom"),
        )  # fmt: skip
        assert got.finish_reason == "tool_calls"
        result = {"role": "tool", "tool_call_id": "call_7", "content": "hi"}
        request = ChatRequest.checked("m", [got.message, result], {})
        custom = {"id": "call_7", "type": "custom", "custom": {"name": "shell", "input": "echo 'hi'"}}
        assert OpenAI.encode(request).body["messages"] == [
            {"role": "assistant", "content": None, "tool_calls": [custom]},
            result,
        ]

    def test_a_whole_custom_call(self) -> None:
        """In a document."""
        call = {"id": "call_7", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
        document = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
        [delta, finish, _] = OpenAI.decode_document(document)
        assert (delta.kind, delta.name, delta.arguments, finish.reason) == ("custom", "shell", "ls", "tool_calls")

    @pytest.mark.parametrize(
        "call",
        [
            {"id": "call_7", "type": "mcp_approval_request", "mcp_approval_request": {"name": "rm", "arguments": "{}"}},
            {"id": "call_7", "type": "location_request"},
            {"id": "call_7", "type": "builtin_function", "function": {"name": "$search", "arguments": '{"q": 1}'}},
        ],
    )
    def test_a_call_of_an_unknown_kind(self, call: dict[str, Any]) -> None:
        """It is an event with the service's own object, and is sent back unchanged."""
        got = answer(chunk({"tool_calls": [{"index": 0, **call}]}), chunk(finish="stop"))
        [made] = got.tool_calls
        assert (made.kind, made.raw, made.problem, got.finish_reason) == (call["type"], call, None, "tool_calls")
        assert sent_again(got.message)["tool_calls"] == [call]

    def test_what_a_service_adds_to_a_call_goes_back(self) -> None:
        """Gemini's signatures, in OpenAI's form."""
        more = {"extra_content": {"google": {"thought_signature": "s"}}}
        got = answer(chunk({"tool_calls": [{"index": 0, **CALL, **more}]}), chunk(finish="stop"))
        assert got.tool_calls[0].raw == more
        assert sent_again(got.message)["tool_calls"] == [{**CALL, **more}]


class TestSources:
    """Citations, in any place."""

    CITED = Citation("https://a.example/1", None, "One", None, 0, 10)

    @pytest.mark.parametrize(
        "events",
        {
            "on the piece": [chunk({"content": "The bridge", "annotations": [ENTRY]}), chunk(finish="stop")],
            "on a chunk of their own": [*TEXT, chunk({"annotations": [ENTRY]}), chunk(finish="stop")],
            "twice": [*TEXT, chunk({"annotations": [ENTRY]}), chunk({"annotations": [ENTRY, ENTRY]}, "stop")],
            "behind the end": [*TEXT, chunk(finish="stop"), chunk({"annotations": [ENTRY]})],
            "in the whole answer": [
                *TEXT, chunk(finish="stop"), whole({"content": "The bridge is red.", "annotations": [ENTRY]})
            ],
            "on a part": [
                chunk({"content": [{"type": "text", "text": "The bridge", "annotations": [ENTRY]}]}),
                chunk(finish="stop"),
            ],
            "flat": [*TEXT, chunk({"annotations": [{"type": "url_citation", **ENTRY["url_citation"]}]}, "stop")],
        }.values(),
    )  # fmt: skip
    def test_annotations(self, events: list[Any]) -> None:
        """Once, with the service's own object; the text is unchanged."""
        got = answer(*events)
        assert got.citations == (self.CITED,)
        assert got.citations[0].raw["type"] == "url_citation"
        assert got.text.startswith("The bridge")

    @pytest.mark.parametrize(
        ("top", "expected"),
        [
            ({"citations": ["https://a.example", "https://b.example"]}, ["https://a.example", "https://b.example"]),
            (
                {
                    "citations": ["https://a.example"],
                    "search_results": [
                        {"title": "A", "url": "https://a.example", "date": "2026-01-01", "snippet": "s"}
                    ],
                },
                ["https://a.example"],
            ),
            ({"citations": [{"link": "https://a.example", "title": "A"}]}, ["https://a.example"]),
            ({"web_search": [{"link": "https://a.example", "content": "x"}]}, ["https://a.example"]),
        ],
    )
    @pytest.mark.parametrize("every", [True, False], ids=["every chunk", "the last"])
    def test_lists_beside_the_choices(self, top: Any, expected: list[str], every: bool) -> None:
        """Perplexity repeats them in every chunk."""
        events = [*copy.deepcopy(TEXT), chunk(finish="stop")]
        for event in events if every else events[-1:]:
            event.update(top)
        assert [citation.url for citation in answer(*events).citations] == expected

    def test_those_of_gateways(self) -> None:
        """LiteLLM's and Azure's."""
        cited = {"type": "char_location", "cited_text": "red", "document_index": 0, "document_title": "D"}
        litellm = answer(chunk({"content": "a", "provider_specific_fields": {"citations": [[cited]]}}, "stop"))
        assert litellm.citations == (Citation(None, "0", "D", "red"),)
        azure = answer(
            chunk({"context": {"citations": [{"content": "red", "filepath": "d.md"}]}}), *TEXT, chunk({}, "stop")
        )
        assert azure.citations == (Citation(None, "d.md", None, "red"),)

    def test_a_document_that_was_read_goes_back(self) -> None:
        """OpenRouter's, in the field where it came."""
        file = {"type": "file", "file": {"hash": "h", "name": "a.pdf", "content": [{"type": "text", "text": "x"}]}}
        got = answer(*TEXT, chunk({"annotations": [file]}, "stop"))
        assert sent_again(got.message)["annotations"] == [file]
        assert (
            "annotations" not in OpenAI.encode(ChatRequest.checked("m", [got.message], {})).body["messages"][0] or True
        )

    def test_of_an_unknown_kind(self) -> None:
        """With the service's own object."""
        odd = {"type": "hologram", "hologram": {"frames": 3}}
        assert Other("hologram", odd) in told(chunk({"annotations": [odd]}), chunk(finish="stop"))


class TestMedia:
    """Images and sound."""

    @pytest.mark.parametrize(
        "image",
        [
            {"type": "image_url", "index": 0, "image_url": {"url": PICTURE}},
            {"type": "image_url", "image_url": PICTURE},
            {"image_url": {"url": PICTURE}},
            {"type": "image", "b64_json": PICTURE.partition(",")[2]},
            PICTURE,
        ],
    )
    @pytest.mark.parametrize("form", ["delta", "message", "document"])
    def test_images(self, image: Any, form: str) -> None:
        """They are bytes with a type, and are sent back to the service unchanged."""
        if form == "document":
            body = json.dumps(whole({"content": "", "images": [image]}))
            with LLMServer(Reply(body=body.encode(), content_type="application/json")) as server:
                got = chat("Hi", model="openai-compatible:m", base_url=server.base_url("openai")).complete()
        else:
            field = chunk({"images": [image]}) if form == "delta" else whole({"images": [image]})
            got = answer(field, chunk(finish="stop"))
        assert [(media.kind, media.mime, media.data) for media in got.media] == [("image", "image/png", PNG)]
        typed = image if isinstance(image, str) else {"type": "image_url", **image}
        assert sent_again(got.message)["images"] == [typed]

    def test_an_address(self) -> None:
        """Its URL is not downloaded."""
        got = answer(
            chunk({"images": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]}, "stop")
        )
        assert got.media == (Media("image", url="https://a.example/b.png"),)

    def test_two_images_are_two(self) -> None:
        """Even if the first one lacks its padding."""
        images = [{"type": "image_url", "image_url": {"url": PICTURE.rstrip("=")}}] * 2
        assert [media.data for media in answer(chunk({"images": images}, "stop")).media] == [PNG, PNG]

    def test_parts_of_the_content(self) -> None:
        """They are sent back in their place."""
        parts = [
            {"type": "text", "text": "See: "},
            {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
            {"type": "image_url", "image_url": "https://a.example/b.png"},
            {"type": "document_url", "document_url": "https://a.example/c.pdf"},
            {"type": "input_audio", "input_audio": {"data": SPOKEN, "format": "wav"}},
            {"type": "text", "text": "There."},
        ]
        got = answer(chunk({"content": parts}, "stop"))
        assert got.text == "See: There."
        assert [media.kind for media in got.media] == ["image", "image", "document", "audio"]
        assert sent_again(got.message)["content"] == parts

    @pytest.mark.parametrize("size", [1, 3, 7, 50, 1000])
    @pytest.mark.parametrize("named", [True, False])
    def test_sound_in_pieces(self, size: int, named: bool) -> None:
        """Cut anywhere; only its id is sent back."""
        pieces = [SPOKEN[at : at + size] for at in range(0, len(SPOKEN), size)]
        name = {"id": "audio_1"} if named else {}
        events = [
            chunk({"role": "assistant", "audio": {**name, "transcript": "The bridge "}}),
            *(chunk({"audio": {"data": piece}}) for piece in pieces),
            chunk({"audio": {"transcript": "is red."}}),
            chunk({"audio": {"expires_at": 1767225600}}),
            chunk(finish="stop"),
        ]
        got = answer(*events, model="openai:m")
        [media] = got.media
        assert (media.kind, media.mime, media.data) == ("audio", "audio/wav", SOUND)
        assert (media.transcript, media.raw) == ("The bridge is red.", {**name, "expires_at": 1767225600})
        again = sent_again(got.message, OpenAI)
        if named:
            assert (again["audio"], again["content"]) == ({"id": "audio_1"}, None)
        else:
            assert again["content"] == [{"type": "text", "text": "The bridge is red."}]

    def test_whole_sound(self) -> None:
        """In a message."""
        audio = {"id": "audio_1", "data": SPOKEN, "transcript": "Red.", "expires_at": 1}
        got = answer(whole({"content": None, "audio": audio}))
        assert (got.media[0].data, got.media[0].transcript) == (SOUND, "Red.")

    def test_another_service_gets_the_words(self, server: LLMServer) -> None:
        """It gets no image."""
        made = answer(
            chunk({"audio": {"id": "a", "data": SPOKEN, "transcript": "Red."}, "images": [PICTURE]}, "stop")
        )  # fmt: skip
        with Client("openai:m", base_url=server.base_url("openai"), api_key="k") as client:
            client.chat([{"role": "user", "content": "Hi"}, made]).complete()
        [body] = [request.json for request in server.requests]
        assert body["messages"][1] == {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}

    def test_a_user_may_send_one_on(self) -> None:
        """Without the fields of an answer."""
        got = answer(chunk({"images": [PICTURE]}, "stop"))
        request = ChatRequest.checked("m", [{"role": "user", "content": [got.media[0], "Brighter"]}], {})
        [message] = OpenAICompatible.encode(request).body["messages"]
        assert message["content"][0] == {"type": "image_url", "image_url": {"url": PICTURE}}


class TestReasoning:
    """An answer's reasoning comes from one source."""

    FIELDS = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")

    @pytest.mark.parametrize("field", FIELDS)
    @pytest.mark.parametrize("size", [1, 2, 5, 100])
    @pytest.mark.parametrize("late", [False, True])
    def test_in_a_field_and_between_tags(self, field: str, size: int, late: bool) -> None:
        """It comes once, however the tags are cut, and whichever is first."""
        text = "<think>Hm, red.</think>It is red."
        value: Any = [{"type": "reasoning.text", "text": "Hm, red."}] if field == "reasoning_details" else "Hm, red."
        pieces = [chunk({"content": text[at : at + size]}) for at in range(0, len(text), size)]
        thought = chunk({field: value})
        events = [pieces[0], thought, *pieces[1:]] if late and size < len("<think>") else [thought, *pieces]
        got = answer(*events, chunk(finish="stop"))
        assert (got.reasoning, got.text) == ("Hm, red.", "It is red.")

    def test_in_two_fields_and_a_summary(self) -> None:
        """Both for the same piece."""
        both = {"reasoning": "Hm.", "reasoning_content": "Hm."}
        got = answer(chunk(both), chunk({"content": "Red."}), chunk(finish="stop"), whole({**both, "content": "Red."}))
        assert (got.reasoning, got.text) == ("Hm.", "Red.")


UNKNOWN = {"type": "hologram", "hologram": {"frames": [1, 2.5, None, "é"], "id": "h1"}}


def nowhere(events: list[Any]) -> Iterator[tuple[str, list[Any], str, Any]]:
    """The stream with an unknown thing in each place: the place, the events, the kind, and the form sent back."""
    for at in range(len(events) + 1):
        yield f"event before {at}", [*events[:at], UNKNOWN, *events[at:]], "hologram", None
    for at, event in enumerate(events):
        for name, path in {
            "chunk": [], "choice": ["choices", 0], "delta": ["choices", 0, "delta"],
        }.items():  # fmt: skip
            changed = copy.deepcopy(event)
            place = changed
            for step in path:
                place = place[step]
            # The common event, plain text, is not searched for fields that no service adds to it.
            if name != "delta" and changed["choices"][0]["delta"].keys() == {"content"}:
                continue
            place["x_hologram"] = UNKNOWN
            yield f"{name} {at}", [*events[:at], changed, *events[at + 1 :]], "x_hologram", None
    for where in range(3):
        parts: list[Any] = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        parts.insert(where, UNKNOWN)
        for several in (True, False):
            pieces = [chunk({"content": [part]}) for part in parts] if several else [chunk({"content": parts})]
            yield f"part {where}, {several}", [*pieces, chunk(finish="stop")], "hologram", where


@pytest.mark.parametrize("provider", ["openai", "openai-compatible", "mistral", "openrouter"])
@pytest.mark.quick(2)
def test_unknown_things_are_found_at_every_level(provider: str) -> None:
    """They are events; those of the turn are in the next request, unchanged and in their place."""
    events = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "Hm."}),
        *TEXT,
        chunk({"tool_calls": [{"index": 0, **CALL}]}),
        chunk(finish="tool_calls"),
        {**chunk(), "usage": USED},
    ]
    model = f"{provider}:m"
    for place, stream, kind, part in nowhere(events):
        with LLMServer() as server:
            server.script(reply(*stream), Reply("Yes."))
            with Client(model, base_url=server.base_url("openai"), api_key="k", retries=0) as client:
                first = client.chat("Hi")
                found = [event for event in first.events() if isinstance(event, Other)]
                assert [event.kind for event in found] == [kind], place
                assert found[0].raw in (UNKNOWN, {kind: UNKNOWN}), place
                made = first.complete() if not first.tool_calls else None
                if part is None or made is None:
                    continue
                client.chat([{"role": "user", "content": "Hi"}, made, {"role": "user", "content": "Go on"}]).complete()
            content = server.requests[-1].json["messages"][1]["content"]
            assert content[part if part < 2 else -1] == UNKNOWN, place
            assert [piece["text"] for piece in content if piece["type"] == "text"] in (["one", "two"], ["onetwo"]), (
                place
            )


@pytest.mark.parametrize("level", ["call", "function", "message", "document"])
def test_unknown_things_in_calls_and_documents(level: str) -> None:
    """Those of a call are in the call."""
    if level in ("call", "function"):
        call = copy.deepcopy(CALL)
        (call if level == "call" else call["function"])["x_hologram"] = UNKNOWN  # type: ignore[index]
        got = answer(chunk({"tool_calls": [{"index": 0, **call}]}), chunk(finish="stop"))
        assert "hologram" in str(got.tool_calls[0].raw)
        assert sent_again(got.message)["tool_calls"] == [call]
        return
    document = whole({"content": "Hi"})
    (document["choices"][0]["message"] if level == "message" else document)["x_hologram"] = UNKNOWN
    assert Other("x_hologram", {"x_hologram": UNKNOWN}) in list(OpenAI.decode_document(document))


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ping"},
        {"object": "chat.completion.keepalive", "id": "x"},
        {"id": "x", "model": "m"},
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {
            **chunk({"role": "assistant", "refusal": None, "function_call": None, "padding": "abc"}),
            "obfuscation": "xyz",
        },
        {**chunk({"content": "Hi", "token_ids": [1]}, matched_stop=3), "timings": {"predicted_n": 1}},
        {**chunk({"role": "assistant", "content": None}), "prompt_progress": {"total": 3}},
        chunk({"content": "", "x_nothing": None, "x_empty": [], "x_text": ""}),
    ],
)
def test_known_noise_is_not_an_event(event: Any) -> None:
    """It has no information."""
    assert not [item for item in OpenAI.decode(Record(json.dumps(event))) if isinstance(item, Other)]


def test_a_turn_that_a_caller_writes_is_sorted_into_the_fields() -> None:
    """Thought, text, own object and call; internal marks are not sent."""
    turn = Message(
        "assistant",
        [Reasoning("Hm."), "One: ", Opaque(UNKNOWN, "openai-compatible"), "two.", ToolCall("c1", "pay", {"euros": 5})],
    )
    request = ChatRequest.checked("m", [turn], {})
    [message] = OpenAICompatible.encode(request).body["messages"]
    assert message["content"] == [{"type": "text", "text": "One: "}, UNKNOWN, {"type": "text", "text": "two."}]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["pay"]


@pytest.mark.parametrize("seed", range(40))
def test_odd_values_are_text_or_an_error_of_the_tree(seed: int) -> None:
    """The decoder raises only errors of llmbridge, for any value in any place."""
    import random

    values: list[Any] = [None, "", "a", 7, -1, True, 1.5, [], {}, ["a"], [[]], [None], {"a": 1}, {"0": {}}, UNKNOWN]
    chance = random.Random(seed)
    calls = [{**CALL, "custom": {"name": "f"}}, {"type": "custom", "custom": {"name": "f", "input": "a"}}]
    piece = chunk({"content": "a", "tool_calls": calls, "audio": {"data": "QQ"}, "images": [PICTURE],
                   "annotations": [ENTRY], "reasoning_details": [{"text": "a"}]})  # fmt: skip
    for _ in range(200):
        event: Any = copy.deepcopy(chance.choice([piece, whole({"content": [UNKNOWN, {"text": "a"}]})]))
        place, key = {"root": event}, "root"
        for _ in range(chance.randint(1, 7)):
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner:
                break
            place, key = inner, chance.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        place[key] = chance.choice(values)
        for decode in (OpenAI.decode_document, lambda value: OpenAI.decode(Record(json.dumps(value)))):
            try:
                list(decode(copy.deepcopy(event)))
            except LLMBridgeError:
                continue


def test_what_comes_once_beside_a_text_is_seen(server: LLMServer, mode: Mode) -> None:
    """In an event like all others before it; also instead of a field that was always there."""
    chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    told = [chunk] * 3 + [{**chunk, "citations": ["https://a.example"]}, {**chunk, "zzz": 1}, chunk]
    end = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    server.script(Reply(body="".join(f"data: {json.dumps(each)}\n\n" for each in [*told, end]).encode()))
    with Client("openai-compatible:m", base_url=server.base_url("openai"), proxy=False) as client:
        events = mode.read(client.chat("x").events()).pieces
    assert [event.url for event in events if isinstance(event, Citation)] == ["https://a.example"]
    assert [event for event in events if isinstance(event, Other)] == [Other("zzz", {"zzz": 1})]

"""Whole answers of Gemini: parts in order, sources, media, server tools, and unknown things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modes import Mode

from llmbridge import Client, Completion, Message, Retry
from llmbridge._call.framing import Record
from llmbridge.errors import InvalidRequest, LLMBridgeError, ProtocolError
from llmbridge.events import Citation, Finish, Media, Other, OtherChoice, Text
from llmbridge.messages import ChatRequest, Opaque, with_own_proofs
from llmbridge.parts import Image
from llmbridge.providers import find
from llmbridge.providers.gemini import Gemini
from llmbridge.testing import LLMServer, Reply

MODEL = "gemini:gemini-3-pro"


def event(*parts: Any, **more: Any) -> dict[str, Any]:
    """An event with parts of the only candidate."""
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}]}


def reply(*events: Any) -> Reply:
    """An answer of these events."""
    return Reply(body="".join(f"data: {json.dumps(one)}\n\n" for one in events), content_type="text/event-stream")


@pytest.fixture
def asked(server: LLMServer) -> Iterator[Client]:
    """A client for Gemini's dialect, without retries."""
    with Client(MODEL, base_url=server.root, api_key="k-1234567", retries=0, proxy=False, timeout=20) as made:
        yield made


def heard(client: Client, server: LLMServer, *events: Any) -> tuple[Completion, list[Any]]:
    """The completion and all events of an answer."""
    server.script(reply(*events), reply(*events))
    return client.chat("Hi").complete(), list(client.chat("Hi").events())


def sent_back(message: Any, provider: str = "gemini") -> Any:
    """The body of the next request, with the answer in it."""
    request = ChatRequest.checked("gemini-3-pro", [{"role": "user", "content": "Hi"}, message], {})
    turns = with_own_proofs(request.messages, provider)
    return find(provider).encode(ChatRequest(request.model, turns)).body


def parts_of(message: Any) -> list[Any]:
    """The parts of the model's turn in the next request."""
    (turn,) = [turn for turn in sent_back(message)["contents"] if turn["role"] == "model"]
    parts: list[Any] = turn["parts"]
    return parts


STOP = event({"text": ""}, finishReason="STOP")
TURN: list[dict[str, Any]] = [
    {"text": "First the north.", "thought": True, "thoughtSignature": "S1"},
    {"text": "Let me "},
    {"text": "look.", "thoughtSignature": "S2"},
    {"text": " Well:"},
    {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "S3"},
    {"text": "Then the south.", "thought": True, "thoughtSignature": "S4"},
    {"functionCall": {"id": "c2", "name": "f", "args": {"a": 1}}},
    {"text": "So"},
    {"text": "", "thoughtSignature": "S5"},
    {"inlineData": {"mimeType": "image/png", "data": "aGVsbG8="}, "thoughtSignature": "S6"},
    {"fileData": {"mimeType": "video/mp4", "fileUri": "https://example.org/a.mp4"}},
    {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "S7"},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
    {"toolCall": {"id": "t1", "toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["a"]}}, "thoughtSignature": "S8"},
    {"toolResponse": {"id": "t1", "toolType": "GOOGLE_SEARCH_WEB", "response": {"found": []}}},
    {"wibble": {"a": [1, None]}, "thoughtSignature": "S9"},
    {"text": "and on", "partMetadata": {"a": 1}, "thoughtSignature": "S10"},
    {"functionCall": {"id": "c3", "name": "g", "args": {}}, "partMetadata": {"a": 2}},
    {"text": "."},
]


class TestOrder:
    """A turn is sent back unchanged."""

    @pytest.mark.parametrize("together", [True, False])
    def test_every_part_in_its_place(self, mode: Mode, together: bool, server: LLMServer, asked: Client) -> None:
        """In one event or one event each; adjacent unsigned texts are one text."""
        server.script(reply(*([event(*TURN)] if together else map(event, TURN)), STOP))
        answer = mode.complete(asked.chat("Hi"))
        assert answer.text == "Let me look. Well:Soand on."
        assert parts_of(answer) == TURN
        kept = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
        assert parts_of(kept) == TURN

    def test_unsigned_pieces_are_one_text(self, server: LLMServer, asked: Client) -> None:
        """A plain answer is a plain message."""
        answer, _ = heard(asked, server, event({"text": "Hel"}), event({"text": "lo"}), STOP)
        assert answer.message == Message("assistant", "Hello")

    def test_both_spellings(self, server: LLMServer, asked: Client) -> None:
        """Imitations and the service's own package use underscores."""
        snake = [
            {"text": "Hm.", "thought": True, "thought_signature": "S1"},
            {"function_call": {"id": "c", "name": "f", "args": {}}, "thought_signature": "S2"},
            {"inline_data": {"mime_type": "image/png", "data": "aGVsbG8="}, "thought_signature": "S3"},
            {"executable_code": {"code": "1"}},
            {"code_execution_result": {"output": "1"}},
        ]
        whole = {"candidates": [{"content": {"parts": snake}, "finish_reason": "STOP"}],
                 "usage_metadata": {"prompt_token_count": 3, "promptTokenCount": 3}, "response_id": "r"}  # fmt: skip
        answer, _ = heard(asked, server, whole)
        assert (answer.reasoning, answer.response_id, answer.finish_reason) == ("Hm.", "r", "tool_calls")
        assert answer.media[0].data == b"hello"
        assert answer.server_tools[0].result == {"output": "1"}
        call = {"functionCall": {"id": "c", "name": "f", "args": {}}, "thoughtSignature": "S2"}
        thought = {"text": "Hm.", "thought": True, "thoughtSignature": "S1"}
        assert parts_of(answer) == [thought, call, *snake[2:]]

    def test_another_service_gets_what_it_takes(self, server: LLMServer, asked: Client) -> None:
        """Signatures and Gemini's own parts are not sent there."""
        answer, _ = heard(asked, server, *map(event, [*TURN[:10], *TURN[11:]]), STOP)
        for provider in ("ollama", "cohere", "anthropic"):
            written = json.dumps(sent_back(answer, provider))
            assert not any(word in written for word in ("S1", "wibble", "toolCall", "executableCode", "partMetadata"))

    def test_what_a_caller_writes(self) -> None:
        """The service's parts, and events."""
        own = Opaque({"wibble": 1}, "gemini")
        image = Media("image", "image/png", b"hello")
        turn = Message("assistant", ["a", own, image, "b"])
        assert parts_of(turn) == [
            {"text": "a"},
            {"wibble": 1},
            {"inlineData": {"mimeType": "image/png", "data": "aGVsbG8="}},
            {"text": "b"},
        ]

    def test_run_tools_sends_a_turn_back_in_its_order(self, mode: Mode, server: LLMServer, asked: Client) -> None:
        """Two thoughts and two calls."""
        ran = []

        def look(city: str) -> str:
            """Looks."""
            ran.append(city)
            return "sun"

        turn = [
            {"text": "First the north.", "thought": True, "thoughtSignature": "S1"},
            {"functionCall": {"id": "c1", "name": "look", "args": {"city": "Oslo"}}, "thoughtSignature": "S2"},
            {"text": "Then the south.", "thought": True, "thoughtSignature": "S3"},
            {"functionCall": {"id": "c2", "name": "look", "args": {"city": "Rome"}}, "thoughtSignature": "S4"},
        ]
        server.script(reply(*map(event, turn), STOP), Reply("Sun."))
        answer = mode.complete(asked.chat("Weather?", tools=[look], run_tools=True))
        assert answer.text == "Sun."
        assert sorted(ran) == ["Oslo", "Rome"]
        _, model, results = server.requests[1].json["contents"]
        assert model == {"role": "model", "parts": turn}
        assert [part["functionResponse"]["id"] for part in results["parts"]] == ["c1", "c2"]


class TestMedia:
    """Images, sound and files."""

    def test_an_image_is_bytes(self, server: LLMServer, asked: Client) -> None:
        """With its media type, detected if the service leaves it out."""
        parts = [{"inlineData": {"mimeType": "image/jpeg", "data": "aGk="}}, {"inlineData": {"data": "iVBORw0KGgo="}}]
        answer, events = heard(asked, server, event(*parts, finishReason="STOP"))
        assert [(one.kind, one.mime, one.data) for one in answer.media] == [
            ("image", "image/jpeg", b"hi"),
            ("image", "image/png", b"\x89PNG\r\n\x1a\n"),
        ]
        assert [one for one in events if isinstance(one, Media)] == list(answer.media)

    def test_sound_in_pieces_is_one(self, server: LLMServer, asked: Client) -> None:
        """Samples without a header, as speaking models send them."""
        mime = "audio/L16;codec=pcm;rate=24000"
        pieces = [event({"inlineData": {"mimeType": mime, "data": data}}) for data in ("aGVs", "bG8=")]
        answer, _ = heard(asked, server, *pieces, STOP)
        (sound,) = answer.media
        assert (sound.kind, sound.mime, sound.data) == ("audio", mime, b"hello")
        assert parts_of(answer) == [{"inlineData": {"mimeType": mime, "data": "aGVsbG8="}}]

    def test_a_medium_of_another_service_is_never_an_error(self) -> None:
        """Its transcript is sent, or nothing, if this service does not accept it."""
        spoken = Media("audio", "audio/pcm", b"..", transcript="The bridge is red.")
        linked = Media("image", url="http://example.org/a.png")
        assert parts_of(Message("assistant", ["a", spoken, linked])) == [{"text": "a"}, {"text": "The bridge is red."}]
        with pytest.raises(InvalidRequest, match="URLs"):
            sent_back(Message("user", [Image("http://example.org/a.png")]))


WEB = {"web": {"uri": "https://example.org/a", "title": "A"}}
DOCUMENT = {"retrievedContext": {"documentName": "files/b", "title": "B", "text": "Words of it."}}


class TestSources:
    """The answer's sources."""

    def test_a_place_is_counted_in_characters(self, mode: Mode, server: LLMServer, asked: Client) -> None:
        """The service counts bytes; a source without a place is yielded as well."""
        supports = [{"segment": {"startIndex": 8, "endIndex": 14}, "groundingChunkIndices": [0, 7]}]
        grounding = {"groundingChunks": [WEB, DOCUMENT], "groundingSupports": supports, "webSearchQueries": ["q"]}
        events = [
            event({"text": "Grüße "}),
            event({"text": "世界!"}),
            event(finishReason="STOP", groundingMetadata=grounding),
        ]
        server.script(reply(*events))
        answer = mode.complete(asked.chat("Hi"))
        web, document = answer.citations
        assert web == Citation("https://example.org/a", None, "A", None, 6, 8)
        assert answer.text[6:8] == "世界"
        assert web.raw == {"groundingChunks": [WEB], "groundingSupports": supports}
        assert document == Citation(None, "files/b", "B", "Words of it.")

    @pytest.mark.parametrize(
        ("segment", "place"),
        [
            ({"startIndex": 3, "endIndex": 7, "text": "is red"}, (11, 17)),
            ({"endIndex": 3, "text": "The"}, (0, 3)),
            ({"startIndex": 0, "endIndex": 2, "text": "e"}, (None, None)),
            ({"startIndex": 5, "endIndex": 500}, (None, None)),
            ({}, (None, None)),
            ({"text": "bridge"}, (4, 10)),
        ],
    )
    def test_an_impossible_place(self, segment: Any, place: Any, server: LLMServer, asked: Client) -> None:
        """The words are searched for instead; if they occur twice, the place is unknown."""
        grounding = {
            "groundingChunks": [WEB],
            "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}],
        }
        said = event({"text": "The bridge is red."}, groundingMetadata=grounding, finishReason="STOP")
        answer, _ = heard(asked, server, said)
        ((found),) = answer.citations
        assert (found.start, found.end) == place

    def test_repeated_sources_are_yielded_once(self, server: LLMServer, asked: Client) -> None:
        """Lists are repeated in every event; the queries stay visible."""
        grounding = {"groundingChunks": [WEB], "webSearchQueries": ["golden gate"]}
        events = [event({"text": text}, groundingMetadata=grounding) for text in ("a", "b")]
        answer, told = heard(asked, server, *events, STOP)
        assert answer.citations == (Citation("https://example.org/a", None, "A"),)
        queries = {"groundingMetadata": {"webSearchQueries": ["golden gate"]}}
        assert [one for one in told if isinstance(one, Other)] == [Other("groundingMetadata", queries)]

    @pytest.mark.parametrize("name", ["citationSources", "citations"])
    def test_other_lists(self, name: str, server: LLMServer, asked: Client) -> None:
        """Of recitations, and of pages that were read; a failed page is not a source."""
        source = {"startIndex": 0, "endIndex": 2, "uri": "https://example.org/c", "title": "C"}
        pages = [
            {"retrievedUrl": "https://example.org/d", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"},
            {"retrievedUrl": "https://example.org/e", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_ERROR"},
        ]
        more = {"citationMetadata": {name: [source]}, "urlContextMetadata": {"urlMetadata": pages}}
        answer, events = heard(asked, server, event({"text": "üa"}, finishReason="STOP", **more))
        assert answer.citations == (
            Citation("https://example.org/c", None, "C", None, 0, 1),
            Citation("https://example.org/d"),
        )
        assert any("https://example.org/e" in str(one.raw) for one in events if isinstance(one, Other))

    def test_those_of_another_candidate(self, server: LLMServer, asked: Client) -> None:
        """Its places are in its own text."""
        grounding = {"groundingChunks": [WEB], "groundingSupports": [
            {"segment": {"startIndex": 3, "endIndex": 4}, "groundingChunkIndices": [0]}]}  # fmt: skip
        other = {"index": 1, "content": {"parts": [{"text": "üb"}]}}
        end = {
            "index": 1,
            "content": {"parts": [{"text": "er"}]},
            "groundingMetadata": grounding,
            "finishReason": "STOP",
        }
        _, events = heard(asked, server, {"candidates": [other]}, {"candidates": [end]}, event({"text": "a"}), STOP)
        assert OtherChoice(1, Citation("https://example.org/a", None, "A", None, 2, 3)) in events


class TestFailures:
    """Answers that failed."""

    @pytest.mark.parametrize("word", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "NO_IMAGE", "IMAGE_OTHER"])
    @pytest.mark.quick(2)
    def test_an_empty_one_is_tried_again(self, mode: Mode, word: str, server: LLMServer) -> None:
        """Then it is an error with the service's words."""
        empty = {"candidates": [{"finishReason": word, "finishMessage": "It went wrong.", "index": 0}]}
        soon = Retry(1, backoff=0.01)
        with Client(MODEL, base_url=server.root, api_key="k-1234567", retries=soon, proxy=False, timeout=20) as client:
            server.script(reply(empty), reply(event({"text": "Hi"}, finishReason="STOP")))
            assert mode.complete(client.chat("Hi")).text == "Hi"
            server.script(reply(empty), reply(empty))
            with pytest.raises(LLMBridgeError, match=r"It went wrong\."):
                mode.complete(client.chat("Hi"))
        assert len(server.requests) == 4

    def test_what_would_fail_again_is_not_repeated(self, server: LLMServer) -> None:
        """The request itself lacks something."""
        with Client(MODEL, base_url=server.root, api_key="k-1234567", retries=1, proxy=False, timeout=20) as client:
            server.script(reply({"candidates": [{"finishReason": "MISSING_THOUGHT_SIGNATURE"}]}))
            with pytest.raises(LLMBridgeError):
                client.chat("Hi").complete()
        assert len(server.requests) == 1

    def test_words_in_place_of_a_picture_are_an_answer(self, server: LLMServer, asked: Client) -> None:
        """The finish reason says that there is no picture."""
        answer, events = heard(asked, server, event({"text": "I cannot."}, finishReason="NO_IMAGE"))
        assert (answer.text, answer.finish_reason, answer.raw_finish_reason) == ("I cannot.", "other", "NO_IMAGE")
        assert events[-1] == Finish("other", "NO_IMAGE")

    @pytest.mark.parametrize("part", [{"text": 7}, 7, {"text": {"a": 1}}, {"functionCall": "x"}, {"inlineData": 1}])
    def test_what_cannot_be_read_is_an_error(self, part: Any, server: LLMServer, asked: Client) -> None:
        """It is quoted, and the text so far is kept."""
        server.script(reply(event({"text": "Hi"}), event(part), STOP))
        with pytest.raises(ProtocolError, match="form") as caught:
            asked.chat("Hi").complete()
        assert caught.value.partial == "Hi"

    def test_arguments_in_pieces_are_an_error(self, server: LLMServer, asked: Client) -> None:
        """They would be a call without arguments."""
        server.script(reply(event({"functionCall": {"name": "f", "partialArgs": [], "willContinue": True}})))
        with pytest.raises(ProtocolError, match="streamFunctionCallArguments"):
            asked.chat("Hi").complete()


HI = [{"text": "Hi"}]
SHAPES: dict[str, Any] = {
    "an object for the list of parts": {"candidates": [{"content": {"parts": {"text": "Hi"}}, "finishReason": "STOP"}]},
    "an object for the list of candidates": {"candidates": {"content": {"parts": HI}, "finishReason": "STOP"}},
    "text for content": {"candidates": [{"content": "Hi", "finishReason": "STOP"}]},
    "text for a part": {"candidates": [{"content": {"parts": ["Hi"]}, "finishReason": "STOP"}]},
    "parts for content": {"candidates": [{"content": [{"text": "Hi"}], "finishReason": "STOP"}]},
    "a part for content": {"candidates": [{"content": {"text": "Hi"}, "finishReason": "STOP"}]},
    "a message for content": {"candidates": [{"message": {"content": "Hi"}, "finishReason": "STOP"}]},
    "text in the candidate": {"candidates": [{"output": "Hi", "finishReason": "STOP"}]},
    "an index as text": {"candidates": [{"content": {"parts": HI}, "index": "0", "finishReason": "STOP"}]},
    "a reason in small letters": event({"text": "Hi"}, finishReason="stop"),
    "another dialect's reason": event({"text": "Hi"}, finishReason="end_turn"),
}  # fmt: skip


class TestShapes:
    """Forms of imitations."""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_plain_meaning_is_read(self, mode: Mode, shape: str, server: LLMServer, asked: Client) -> None:
        """However it is wrapped."""
        server.script(reply(SHAPES[shape]))
        answer = mode.complete(asked.chat("Hi"))
        assert (answer.text, answer.finish_reason) == ("Hi", "stop")

    def test_candidates_without_an_index_are_not_mixed(self, server: LLMServer, asked: Client) -> None:
        """They are told apart by their place."""
        first = {"candidates": [{"content": {"parts": [{"text": text}]}} for text in ("a", "b")]}
        last = {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"} for text in ("c", "d")]}
        answer, _ = heard(asked, server, first, last)
        assert [choice.text for choice in answer.choices] == ["ac", "bd"]

    @pytest.mark.parametrize("word", ["null", "NONE", "", None, "FINISH_REASON_UNSPECIFIED"])
    def test_an_empty_word_is_not_a_finish_reason(self, word: Any, server: LLMServer, asked: Client) -> None:
        """The answer was cut off."""
        server.script(reply(event({"text": "Hi"}, finishReason=word)))
        with pytest.raises(LLMBridgeError) as caught:
            asked.chat("Hi").complete()
        assert caught.value.partial == "Hi"


class TestOnce:
    """Nothing is repeated."""

    def test_a_last_event_that_repeats_everything(self, mode: Mode, server: LLMServer, asked: Client) -> None:
        """From gateways; only what is new in it is yielded."""
        call = {"functionCall": {"name": "f", "args": {"a": 1}}}
        image = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
        pieces = [event({"text": "The bridge "}), event({"text": "is red."}), event(image), event(call)]
        server.script(reply(*pieces, event({"text": "The bridge is red. Yes."}, image, call, finishReason="STOP")))
        outcome = mode.read(asked.chat("Hi"))
        assert (outcome.pieces, outcome.error) == (["The bridge ", "is red.", " Yes."], None)
        last = event({"text": "The bridge is red."}, image, call, finishReason="STOP")
        answer, _ = heard(asked, server, *pieces, last)
        assert (answer.text, len(answer.tool_calls), len(answer.media)) == ("The bridge is red.", 1, 1)

    def test_a_last_piece_that_is_one_more(self, server: LLMServer, asked: Client) -> None:
        """It does not start with everything so far, or lacks a call."""
        pieces = [event({"text": "1"}), event({"functionCall": {"name": "f"}})]
        answer, _ = heard(asked, server, *pieces, event({"text": "1"}, finishReason="STOP"))
        assert answer.text == "11"
        last = event({"text": "a"}, finishReason="STOP")
        answer, _ = heard(asked, server, event({"text": "a"}), event({"text": "b"}), last)
        assert answer.text == "aba"

    def test_two_equal_pieces_are_two(self, server: LLMServer, asked: Client) -> None:
        """Even if the second one is the last."""
        answer, _ = heard(asked, server, event({"text": "1"}), event({"text": "1"}, finishReason="STOP"))
        assert answer.text == "11"

    @pytest.mark.parametrize(("ids", "calls"), [(("c", "c"), 1), (("c", "d"), 2), ((None, None), 2)])
    def test_a_call_that_is_sent_again(self, ids: Any, calls: int, server: LLMServer, asked: Client) -> None:
        """The same id is the same call; two equal calls are two."""
        made = [{"functionCall": {"name": "f", "args": {"a": 1}, **({"id": id} if id else {})}} for id in ids]
        answer, _ = heard(asked, server, event(made[0]), event(made[1], finishReason="STOP"))
        assert len(answer.tool_calls) == calls


NEW = st.dictionaries(
    st.sampled_from(["alpha", "betaGamma", "x"]),
    st.none() | st.integers(0, 9) | st.text("aü\U0001f30d", max_size=3) | st.lists(st.integers(0, 9), max_size=2),
    min_size=1,
    max_size=2,
)
LEVELS = ("event", "field of an event", "field of a candidate", "field of a content", "part", "field of a text",
          "field of a thought", "field of a call", "field of a part with a call", "field of an image")  # fmt: skip


@given(level=st.sampled_from(LEVELS), place=st.integers(0, 3), new=NEW)
@settings(suppress_health_check=list(HealthCheck))
def test_unknown_things_are_found(level: str, place: int, new: Any) -> None:
    """At every level they are events; parts of the turn are sent back unchanged, in their place."""
    image = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    call = {"functionCall": {"id": "c", "name": "f", "args": {}}, "thoughtSignature": "S"}
    parts: list[Any] = [{"text": "a"}, call, {"text": "b", "thought": True, "thoughtSignature": "T"}, {"text": "c"}]
    made: dict[str, Any] = {
        "part": {"wibble": new},
        "field of a text": {"text": "new", "wibble": new},
        "field of a thought": {"text": "new", "thought": True, "wibble": new},
        "field of a call": {"functionCall": {"id": "d", "name": "f", "args": {}, "wibble": new}},
        "field of a part with a call": {"functionCall": {"id": "d", "name": "f", "args": {}}, "wibble": new},
        "field of an image": {**image, "wibble": new},
    }
    if level in made:
        parts.insert(place, made[level])
    events: list[Any] = [*map(event, parts), STOP]
    if level == "event":
        events.insert(place, {"wibble": new})
    elif level not in made:
        changed = events[place]
        at = {"event": changed, "candidate": changed["candidates"][0], "content": changed["candidates"][0]["content"]}
        at[level.split()[-1]]["wibble"] = new
    said, turn = play(events)
    assert new in [found for one in said for found in walk(one)] or level == "field of a text"
    if level in made:
        first = next(part for part in turn if "functionCall" in part)
        first.pop("thoughtSignature")  # a first call without one gets this
        expected = [dict(part) for part in parts]
        next(part for part in expected if "functionCall" in part).pop("thoughtSignature", None)
        assert turn == expected


def play(events: list[Any]) -> tuple[list[Any], list[Any]]:
    """The result of an assembly for events, without a server, and the model's turn in the next request."""
    from llmbridge._call.assembly import Assembly
    from llmbridge._call.notes import Notes
    from llmbridge._text import TextSoFar

    notes = Notes(TextSoFar())
    assembly = Assembly(told=notes.items)
    decode, said = Gemini.decoder(), []
    for one in events:
        items: list[Any] = []
        for item in decode(Record(json.dumps(one))):
            assembly.take(item, items)
        for item in items:
            notes.note(item)
        notes.text.fold()
        said += items
    assembly.close(said)
    return said, parts_of(notes.message())


def walk(value: Any) -> Iterator[Any]:
    """Everything in a value."""
    yield value
    if isinstance(value, dict):
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from walk(inner)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from walk(getattr(value, name))


def test_another_candidates_unknown_things_are_its_own(server: LLMServer, asked: Client) -> None:
    """They do not get into the answer."""
    other = {"index": 1, "content": {"parts": [{"wibble": 1}, {"text": "b"}]}, "finishReason": "STOP"}
    answer, events = heard(asked, server, {"candidates": [other]}, event({"text": "a"}), STOP)
    assert OtherChoice(1, Other("wibble", {"wibble": 1}, in_turn=True)) in events
    assert OtherChoice(1, Text("b")) in events
    assert parts_of(answer) == [{"text": "a"}]


def test_an_unknown_field_of_a_text_is_an_event(server: LLMServer, asked: Client) -> None:
    """The text is sent back with it."""
    _, found = heard(asked, server, event({"text": "Hi", "colour": "red"}, finishReason="STOP"))
    assert [item.raw for item in found if isinstance(item, Other)] == [{"colour": "red"}]


def test_candidates_by_their_indexes(server: LLMServer, asked: Client) -> None:
    """An object instead of the list."""
    candidate = {"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}
    answer, _ = heard(asked, server, {"candidates": {"0": candidate}})
    assert (answer.text, answer.finish_reason) == ("Hi", "stop")

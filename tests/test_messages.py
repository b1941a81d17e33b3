"""Messages and requests: valid and rejected input, and the caller's objects unchanged."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections import OrderedDict, UserDict, UserList, deque
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import Client, ConfigError, Image, InvalidRequest, Message, Opaque, chat
from llmbridge.completion import Completion
from llmbridge.events import Media, Reasoning, Text, ToolCall, ToolResult
from llmbridge.messages import ROLES, ChatRequest, checked_messages, json_copy
from llmbridge.testing import LLMServer

LONE = "\ud83d"


def looped_list() -> list[Any]:
    """A list that contains itself."""
    loop: list[Any] = []
    loop.append(loop)
    return loop


def looped_dict() -> dict[str, Any]:
    """A dict that contains itself."""
    loop: dict[str, Any] = {}
    loop["self"] = loop
    return loop


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


USER = {"role": "user", "content": "Hi"}

BAD_MESSAGES: dict[str, tuple[Any, str]] = {
    "an empty list": ([], "empty list"),
    "an empty tuple": ((), "empty list"),
    "an empty str": ("", "empty str"),
    "None": (None, "must be a str or a list"),
    "a number": (7, "not int"),
    "bytes": (b"Hi", "not bytes"),
    "a bytearray": (bytearray(b"Hi"), "not bytearray"),
    "a set": ({"Hi"}, "not set"),
    "a generator": ((message for message in [USER]), "not generator"),
    "a single mapping": (USER, "put it in a list"),
    "a single Message": (Message("user", "Hi"), "put it in a list"),
    "a list of str": (["Hi"], r"messages\[0\].*not str"),
    "a list of None": ([None], r"messages\[0\].*not NoneType"),
    "a list of lists": ([USER, ["user", "Hi"]], r"messages\[1\].*not list"),
    "an unknown role": ([{"role": "wizard", "content": "Hi"}], r"messages\[0\].*'wizard' is unknown.*assistant"),
    "a role in capitals": ([{"role": "User", "content": "Hi"}], "'User' is unknown"),
    "an empty role": ([{"role": "", "content": "Hi"}], "'' is unknown"),
    "a role that is None": ([{"role": None, "content": "Hi"}], "None is unknown"),
    "a role that is a list": ([{"role": ["user"], "content": "Hi"}], "unknown"),
    "a role that is a dict": ([{"role": {}, "content": "Hi"}], "unknown"),
    "no role": ([{"content": "Hi"}], r"messages\[0\] has no 'role'"),
    "no content": ([USER, {"role": "user"}], r"messages\[1\] has no 'content'"),
    "an empty mapping": ([{}], "has no 'role'"),
    "content None": ([{"role": "user", "content": None}], "content is None"),
    "an assistant's None without calls": ([{"role": "assistant", "content": None}], "content is None"),
    "content that is a number": ([{"role": "user", "content": 7}], "not int"),
    "content that is a bool": ([{"role": "user", "content": True}], "not bool"),
    "content that is bytes": ([{"role": "user", "content": b"Hi"}], "not bytes"),
    "content that is a dict": ([{"role": "user", "content": {"type": "text", "text": "Hi"}}], "not dict"),
    "content that is a set": ([{"role": "user", "content": {"Hi"}}], "not set"),
    "a part that is None": ([{"role": "user", "content": ["Hi", None]}], r"content\[1\]"),
    "a part that is bytes": ([{"role": "user", "content": [b"Hi"]}], r"content\[0\]"),
    "a part without a type": ([{"role": "user", "content": [{"text": "Hi"}]}], r"content\[0\].*'type'"),
    "a part whose type is not a str": ([{"role": "user", "content": [{"type": 1}]}], r"content\[0\].*'type'"),
    "a part with bytes in it": ([{"role": "user", "content": [{"type": "image", "data": b"x"}]}], "bytes"),
    "a lone surrogate": ([{"role": "user", "content": f"Hi {LONE}"}], "surrogate at position 3"),
    "a low surrogate": ([{"role": "user", "content": "\udc00"}], "surrogate"),
    "a str with a lone surrogate": (LONE, "surrogate"),
    "a surrogate in a part": ([{"role": "user", "content": [{"type": "text", "text": LONE}]}], "surrogate"),
    "a surrogate in a str part": ([{"role": "user", "content": [LONE]}], "surrogate"),
    "a surrogate in a name": ([{**USER, "name": LONE}], "surrogate"),
    "a surrogate in a key": ([{**USER, LONE: 1}], "surrogate"),
    "NaN in an extra": ([{**USER, "weight": float("nan")}], "NaN"),
    "infinity in an extra": ([{**USER, "weight": float("inf")}], "infinity"),
    "a set in an extra": ([{**USER, "tags": {1}}], "set"),
    "a key that is not a str": ([{**USER, 1: 2}], "key"),
    "a part that contains itself": ([{"role": "user", "content": [{"type": "x", "x": looped_list()}]}], "itself"),
    "content that contains itself": ([{"role": "user", "content": looped_list()}], r"content\[0\]"),
    "an extra that contains itself": ([{**USER, "x": looped_dict()}], "itself"),
}

BAD_VALUES: dict[str, tuple[Any, str]] = {
    "NaN": (float("nan"), "NaN"),
    "infinity": (float("inf"), "infinity"),
    "minus infinity": (float("-inf"), "infinity"),
    "NaN deep inside": ({"a": [1, {"b": float("nan")}]}, r"\['a'\]\[1\]\['b'\]"),
    "bytes": (b"x", "bytes"),
    "a bytearray": (bytearray(b"x"), "bytearray"),
    "a set": ({1}, "set"),
    "a date": (date(2026, 1, 1), "date"),
    "a Decimal": (Decimal("0.1"), "Decimal"),
    "a complex number": (1j, "complex"),
    "an object": (object(), "object"),
    "a class": (dict, "type"),
    "a function": (len, "builtin_function_or_method"),
    "a generator": ((i for i in range(3)), "generator"),
    "a range": (range(3), "range"),
    "a lone surrogate": (LONE, "surrogate"),
    "a surrogate in a list": (["a", LONE], r"\[1\].*surrogate"),
    "a surrogate in a key": ({LONE: 1}, "surrogate"),
    "a key that is a number": ({1: "a"}, "key of type int"),
    "a key that is None": ({None: "a"}, "key of type NoneType"),
    "a key that is a tuple": ({"a": {(1, 2): 3}}, "key of type tuple"),
    "a list that contains itself": (looped_list(), "itself"),
    "a dict that contains itself": (looped_dict(), "itself"),
    "lists nested 100,000 deep": (nested(100_000), "nested too deeply"),
}


class TestRefused:
    """P10, P23: invalid input is rejected before anything is sent."""

    @pytest.mark.parametrize("case", BAD_MESSAGES)
    def test_bad_messages_are_refused(self, case: str) -> None:
        """Each is an InvalidRequest that names the place and the problem."""
        messages, says = BAD_MESSAGES[case]
        with pytest.raises(InvalidRequest, match=says):
            checked_messages(messages)

    @pytest.mark.parametrize("case", BAD_VALUES)
    def test_bad_parameters_are_refused(self, case: str) -> None:
        """The error names the parameter and the value that JSON cannot hold."""
        value, says = BAD_VALUES[case]
        with pytest.raises(InvalidRequest, match=rf"(?s)option.*{says}"):
            ChatRequest.checked("m", "Hi", {"option": value})

    @pytest.mark.parametrize("kind", [InvalidRequest, ConfigError, ValueError, TypeError])
    def test_the_refusal_is_a_value_error_and_a_type_error(self, kind: type[Exception]) -> None:
        """Builtin exceptions catch it."""
        with pytest.raises(kind):
            checked_messages([])

    @pytest.mark.parametrize("case", ["an unknown role", "a lone surrogate", "an empty list", "None"])
    def test_bad_messages_never_reach_the_server(self, case: str) -> None:
        """The call itself raises, before a connection is made."""
        with LLMServer() as server, Client("openai-compatible:m", base_url=server.base_url("openai")) as client:
            with pytest.raises(InvalidRequest):
                client.chat(BAD_MESSAGES[case][0])
            assert server.connections == 0

    @pytest.mark.parametrize("case", ["NaN", "bytes", "a list that contains itself", "a surrogate in a key"])
    def test_bad_parameters_never_reach_the_server(self, case: str) -> None:
        """The same for parameters of the service."""
        with LLMServer() as server, Client("openai-compatible:m", base_url=server.base_url("openai")) as client:
            with pytest.raises(InvalidRequest):
                client.chat("Hi", option=BAD_VALUES[case][0])
            assert server.connections == 0

    @pytest.mark.parametrize("system", ["a\ud800", 7, b"x", {"a": 1}])
    def test_a_bad_system_message_is_refused(self, system: Any) -> None:
        """It is checked like all other messages."""
        with pytest.raises(InvalidRequest):
            chat("Hi", "demo", system=system)

    def test_a_surrogate_in_the_models_name_is_refused(self) -> None:
        """The model's name is a part of the body too."""
        with LLMServer() as server, Client(base_url=server.base_url("openai"), retries=0) as client:
            with pytest.raises(ConfigError):
                client.chat("Hi", f"openai-compatible:a{LONE}b").complete()
            assert server.connections == 0

    def test_a_number_of_too_many_digits_never_reaches_the_server(self) -> None:
        """Python itself refuses to write an int of five thousand digits."""
        with LLMServer() as server, Client("openai-compatible:m", base_url=server.base_url("openai")) as client:
            with pytest.raises(InvalidRequest):
                client.chat("Hi", seed=10**5000).complete()
            assert server.connections == 0

    def test_long_prompts_are_not_quoted(self) -> None:
        """An error message quotes a few words of a bad value, not all of it."""
        with pytest.raises(InvalidRequest) as caught:
            checked_messages([{"role": "secret " * 100, "content": "Hi"}])
        assert len(str(caught.value)) < 200

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(st.characters())
            | st.binary(max_size=3)
            | st.sampled_from([LONE, "role", "content", "user"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["role", "content", "type", "text", LONE]) | st.integers(), inner, max_size=3
                )
            ),
            max_leaves=8,
        )
    )
    def test_anything_is_taken_as_utf8_json_or_refused(self, messages: Any) -> None:
        """Any value can be sent as strict UTF-8 JSON, or is an InvalidRequest."""
        try:
            turns = checked_messages(messages)
        except InvalidRequest:
            return
        json.dumps([turn.to_dict() for turn in turns], allow_nan=False, ensure_ascii=False).encode()


class TestDepth:
    """The limit of nesting is lower than those of CPython's own encoder and decoder."""

    def test_a_hundred_levels_are_fine(self) -> None:
        """A JSON schema is never as deep."""
        assert json.loads(json.dumps(json_copy(nested(100), "x"))) == nested(100)

    @pytest.mark.parametrize("depth", [250, 900, 5_000])
    def test_more_is_refused_without_a_recursion_error(self, depth: int) -> None:
        """The limit is reached before the interpreter's."""
        with pytest.raises(InvalidRequest, match="nested too deeply"):
            json_copy(nested(depth), "x")

    def test_a_deep_place_is_named_shortly(self) -> None:
        """The error does not repeat the path through all levels."""
        with pytest.raises(InvalidRequest) as caught:
            json_copy(looped_dict(), "tools")
        assert str(caught.value).startswith("tools is nested too deeply")
        assert len(str(caught.value)) < 200

    def test_the_same_list_twice_is_not_a_loop(self) -> None:
        """A shared list does not contain itself."""
        shared = ["a"]
        assert json_copy({"x": shared, "y": [shared, shared]}, "") == {"x": ["a"], "y": [["a"], ["a"]]}


class TestTaken:
    """Accepted input."""

    def test_a_str_is_one_user_message(self) -> None:
        """The shortest form of a question."""
        assert checked_messages("Привет") == (Message("user", "Привет"),)

    @pytest.mark.parametrize("role", ROLES)
    def test_every_role_is_taken(self, role: str) -> None:
        """system, developer, user, assistant and tool."""
        assert checked_messages([{"role": role, "content": "x"}])[0].role == role

    def test_the_roles_are_those_documented(self) -> None:
        """All of them, and no others."""
        assert ROLES == ("system", "developer", "user", "assistant", "tool")

    @pytest.mark.parametrize("kind", [list, tuple, UserList])
    def test_any_sequence_is_taken(self, kind: Any) -> None:
        """A list, a tuple, or a similar class."""
        assert checked_messages(kind([USER, USER])) == (Message("user", "Hi"), Message("user", "Hi"))

    def test_a_deque_is_a_sequence(self) -> None:
        """The usual container of a bounded history."""
        assert checked_messages(deque([USER], maxlen=5)) == (Message("user", "Hi"),)

    @pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, MappingProxyType])
    def test_any_mapping_is_taken(self, kind: Any) -> None:
        """A dict, or a similar class."""
        assert checked_messages([kind(USER)])[0].to_dict() == USER

    def test_messages_and_mappings_may_be_mixed(self) -> None:
        """Message objects are not copied."""
        message = Message("system", "Be brief.")
        turns = checked_messages([message, USER])
        assert turns[0] is message
        assert turns[1].to_dict() == USER

    def test_empty_content_is_sent(self) -> None:
        """The service decides about an empty turn."""
        assert checked_messages([{"role": "assistant", "content": ""}])[0].to_dict()["content"] == ""

    def test_any_character_is_taken(self) -> None:
        """NUL, line separators, emoji and the last code point are text."""
        text = "\x00\r\n\u2028\u0085\U0001f30d\U0010ffff"
        assert checked_messages(text)[0].text == text

    def test_an_assistants_turn_with_tool_calls_may_have_no_content(self) -> None:
        """As services send it: content null or left out."""
        calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        for turn in ({"content": None, "tool_calls": calls}, {"tool_calls": calls}):
            (message,) = checked_messages([{"role": "assistant", **turn}])
            assert message.to_dict() == {"role": "assistant", "content": None, "tool_calls": calls}
            assert message.text == ""

    def test_extras_are_kept(self) -> None:
        """Other keys of a turn are sent as given."""
        turn = {"role": "tool", "content": "4", "tool_call_id": "c", "name": "add"}
        assert checked_messages([turn])[0].to_dict() == turn

    def test_system_is_put_in_front(self) -> None:
        """Before all messages, even another system message."""
        request = ChatRequest.checked("m", [{"role": "system", "content": "b"}, USER], {}, system="a")
        assert [(turn.role, turn.text) for turn in request.messages] == [
            ("system", "a"),
            ("system", "b"),
            ("user", "Hi"),
        ]

    def test_parameters_are_copied_as_json(self) -> None:
        """Tuples become lists, mappings dicts, numbers stay unchanged; None is left out."""
        params = {"stop": ("a", "b"), "seed": 2**70, "t": 0.5, "n": None, "flag": True, "m": MappingProxyType({"a": 1})}
        assert ChatRequest.checked("m", "Hi", params).params == {
            "stop": ["a", "b"],
            "seed": 2**70,
            "t": 0.5,
            "flag": True,
            "m": {"a": 1},
        }


class TestText:
    """The text of a content."""

    def test_parts_are_joined(self) -> None:
        """Parts of every text type, and plain strings among them."""
        content = [{"type": "text", "text": "a"}, "b", {"type": "input_text", "text": "c"}]
        assert Message("user", content).text == "abc"

    @pytest.mark.parametrize("part", [{"type": "text"}, {"type": "text", "text": None}])
    def test_a_text_without_text_is_refused(self, part: dict[str, Any]) -> None:
        """Otherwise each service would have to report it."""
        with pytest.raises(InvalidRequest, match=r"content\[1\] is a part of type 'text'"):
            Message("user", ["a", part])

    @pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "input_text"}])
    def test_a_part_without_text_is_refused(self, part: dict[str, Any]) -> None:
        """A service that takes only text must not answer to half of a message."""
        message = Message("user", ["a", part])
        with pytest.raises(InvalidRequest, match="only text"):
            _ = message.text

    def test_an_unknown_part_is_sent_as_given(self) -> None:
        """Services support more kinds of parts than llmbridge."""
        part = {"type": "image_url", "image_url": {"url": "https://example.com/x.png", "detail": "low"}}
        assert Message("user", [part]).to_dict()["content"] == [part]


class TestFrozen:
    """Messages are values."""

    def test_a_message_cannot_be_changed(self) -> None:
        """Setting an attribute is an error."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            Message("user", "Hi").role = "system"  # type: ignore[misc]

    def test_a_request_cannot_be_changed(self) -> None:
        """The same for the request."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            ChatRequest.checked("m", "Hi", {}).model = "x"  # type: ignore[misc]

    def test_equal_messages_are_equal(self) -> None:
        """By value, extras included."""
        assert Message("user", "Hi", {"name": "a"}) == Message("user", "Hi", {"name": "a"})
        assert Message("user", "Hi") != Message("user", "Hi", {"name": "a"})

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_message_survives_pickling(self, protocol: int) -> None:
        """Histories are stored and sent to other processes."""
        message = Message("user", [{"type": "text", "text": "ü"}], {"name": "a"})
        assert pickle.loads(pickle.dumps(message, protocol)) == message
        assert copy.deepcopy(message) == message

    def test_the_callers_values_are_not_changed(self) -> None:
        """Messages and parameters are the same before and after the call."""
        messages = [{"role": "user", "content": [{"type": "text", "text": "Hi"}, "x"], "name": "a"}, dict(USER)]
        params = {"stop": ("a",), "tools": [{"type": "function", "function": {"name": "f"}}]}
        before = copy.deepcopy((messages, params))
        with LLMServer() as server, Client("openai-compatible:m", base_url=server.base_url("openai")) as client:
            client.chat(messages, system="Be brief.", **params).complete()
        assert (messages, params) == before

    def test_later_changes_of_the_callers_do_not_reach_the_request(self) -> None:
        """The checked values are sent."""
        parts: list[Any] = [{"type": "text", "text": "Hi"}]
        messages: list[Any] = [{"role": "user", "content": parts, "name": "a"}]
        params: dict[str, Any] = {"stop": ["a"], "o": {"x": 1}}
        request = ChatRequest.checked("m", messages, params)
        parts[0]["text"] = LONE
        parts.append(b"x")
        messages[0]["name"] = object()
        messages.append(None)
        params["stop"].append(float("nan"))
        params["o"]["x"] = {1}
        params["new"] = 1
        assert [turn.to_dict() for turn in request.messages] == [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "a"}
        ]
        assert request.params == {"stop": ["a"], "o": {"x": 1}}

    def test_a_message_of_the_caller_is_checked_when_it_is_made(self) -> None:
        """An invalid Message cannot be made."""
        for role, content, extra in [("x", "a", {}), ("user", LONE, {}), ("user", None, {}), ("user", "a", {"x": b""})]:
            with pytest.raises(InvalidRequest):
                Message(role, content, extra)

    @pytest.mark.parametrize("extra", [5, [1], None, "name"])
    def test_an_extra_of_another_type_is_rejected(self, extra: Any) -> None:
        """When the message is made, not when it is sent."""
        with pytest.raises(InvalidRequest):
            Message("user", "Hi", extra)

    @pytest.mark.parametrize("extra", [{"role": "wizard"}, {"content": "other"}])
    def test_an_extra_cannot_replace_what_was_checked(self, extra: dict[str, Any]) -> None:
        """Role and content have one place each: another one is rejected, or ignored."""
        try:
            turn = Message("user", "Hi", extra).to_dict()
        except InvalidRequest:
            return
        assert (turn["role"], turn["content"]) == ("user", "Hi")


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


class TestObjects:
    """llmbridge's own objects go back unchanged."""

    def test_a_result_is_the_answer_to_its_call(self) -> None:
        """With the call's id and the tool's name, and whether it failed."""
        result = ToolResult(ToolCall("c", "f"), "1")
        (turn,) = checked_messages([result])
        assert turn == Message("tool", "1", {"tool_call_id": "c", "name": "f"})
        (turn,) = checked_messages([dataclasses.replace(result, failed=True)])
        assert turn.extra["is_error"] is True

    def test_a_completion_is_its_message(self) -> None:
        """Beside any other message."""
        own = Message("assistant", "Hi")
        assert checked_messages([USER, Completion("Hi", message=own)])[1] is own

    def test_parts_of_the_package_are_mappings_then(self) -> None:
        """A Text is a text part."""
        turn = Message("user", ["see", Image("https://example.com/a.png")])
        assert turn.content == ["see", {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]

    @pytest.mark.parametrize("part", [Image, Message, type])
    def test_a_class_in_place_of_a_part_is_refused(self, part: Any) -> None:
        """A typo."""
        with pytest.raises(InvalidRequest, match=r"content\[0\]"):
            Message("user", [part])

    @pytest.mark.parametrize("model", [None, 7, b"m", ["m"]])
    def test_a_model_of_another_type_is_rejected(self, model: Any) -> None:
        """The error names its type."""
        with pytest.raises(InvalidRequest, match=type(model).__name__):
            ChatRequest.checked(model, "Hi", {})


class TestCalls:
    """Calls in an assistant's message."""

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [('{"a": 1}', {"a": 1}), ({"a": 1}, {"a": 1}), ("", {}), (None, {}), ("{", {}), ({}, {})],
    )
    def test_arguments_are_read(self, arguments: Any, expected: dict[str, Any]) -> None:
        """As text or as an object; invalid JSON counts as empty."""
        call = {**CALL, "function": {"name": "f", "arguments": arguments}}
        assert Message("assistant", None, {"tool_calls": [call]}).tool_calls[0].arguments == expected

    def test_what_belongs_to_a_call_stays_with_it(self) -> None:
        """Id, name and signature."""
        (call,) = Message("assistant", None, {"tool_calls": [{**CALL, "signature": "s"}]}).tool_calls
        assert (call.id, call.name, call.signature) == ("c", "f", "s")

    @pytest.mark.parametrize(
        "calls", ["x", 7, {"id": "c"}, [7], [{}], [{"function": {}}], [{"function": {"name": 7}}], [{"function": "f"}]]
    )
    def test_a_call_of_another_form_is_refused(self, calls: Any) -> None:
        """When the calls are read."""
        with pytest.raises(InvalidRequest):
            _ = Message("assistant", None, {"tool_calls": calls}).tool_calls

    def test_a_message_without_calls_has_none(self) -> None:
        """Of any role."""
        assert (Message("user", "x").tool_calls, Message("assistant", "x", {"tool_calls": None}).tool_calls) == ((), ())


class TestStructured:
    """Tools and schemas among the parameters."""

    def test_they_are_not_parameters_of_the_service(self) -> None:
        """They are translated for the service."""
        params = {
            "tools": [{"name": "f"}],
            "tool_choice": "f",
            "schema": {"type": "object"},
            "schema_mode": "tool",
            "n": 1,
        }
        request = ChatRequest.checked("m", "Hi", params)
        assert request.params == {"n": 1}
        assert [tool.name for tool in request.tools] == ["f"]
        assert request.tool_choice is not None
        assert (request.tool_choice.mode, request.tool_choice.name) == ("tool", "f")
        assert request.schema is not None
        assert request.schema_mode == "tool"

    @pytest.mark.parametrize(
        "params",
        [
            {"tools": 7},
            {"tools": "f"},
            {"tools": [7]},
            {"tools": [{"name": "f"}, {"name": "f"}]},
            {"tools": [{"name": "a b"}]},
            {"tools": [{"name": "f", "parameters": 7}]},
            {"tool_choice": "f"},
            {"tool_choice": 7},
            {"tools": [{"name": "f"}], "tool_choice": "g"},
            {"schema": 7},
            {"schema_mode": "x"},
            {"schema_mode": ["native"]},
        ],
        ids=repr,
    )
    def test_bad_ones_are_refused(self, params: dict[str, Any]) -> None:
        """Before anything is sent, and as bad input."""
        with pytest.raises(InvalidRequest) as caught:
            ChatRequest.checked("m", "Hi", params)
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("params", [{"tools": None}, {"tools": []}, {"schema": None}, {"tool_choice": None}])
    def test_nothing_is_nothing(self, params: dict[str, Any]) -> None:
        """As if it had not been given."""
        assert ChatRequest.checked("m", "Hi", params) == ChatRequest.checked("m", "Hi", {})


class TestParts:
    """A message is a list of parts in order, in any form."""

    CALL = ToolCall("c1", "add", {"a": 1})
    STORED = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}  # noqa: RUF012

    def test_events_and_mappings_are_parts(self) -> None:
        """In any mixture."""
        search = {"type": "search"}
        own = {"type": "own", "x": 1}
        message = Message(
            "assistant", [Reasoning("Hm.", "s"), self.CALL, Text("And"), Opaque(search, "anthropic"), own, "so."]
        )
        assert message.parts == [
            {"type": "reasoning", "text": "Hm.", "signature": "s"},
            {"type": "tool_call", "id": "c1", "name": "add", "arguments": '{"a": 1}'},
            {"type": "text", "text": "And"},
            {"type": "opaque", "raw": search, "by": "anthropic"},
            {"type": "own", "x": 1},
            {"type": "text", "text": "so."},
        ]
        assert (message.tool_calls[0].arguments, message.reasoning) == ({"a": 1}, "Hm.")
        assert message.extra == {"tool_calls": [self.STORED]}

    def test_calls_in_openais_form_follow_the_rest(self) -> None:
        """After the other parts, as ever."""
        message = Message("assistant", "Well.", {"tool_calls": [self.STORED]})
        assert [part["type"] for part in message.parts] == ["text", "tool_call"]
        written = Message("assistant", ["Well.", self.CALL])
        assert written == Message("assistant", ["Well."], {"tool_calls": [self.STORED]})

    def test_a_call_is_one_however_often_it_is_written(self) -> None:
        """Identified by its id; calls without one are separate."""
        part = {"type": "tool_call", "id": "c1", "name": "add", "arguments": {"a": 1}}
        message = Message("assistant", [part, "x"], {"tool_calls": [self.STORED]})
        assert len(message.tool_calls) == 1
        nameless = {"type": "tool_call", "name": "add"}
        assert len(Message("assistant", [nameless, "x", nameless, "y"]).tool_calls) == 2

    def test_equal_ids_keep_their_places(self) -> None:
        """The same one may have been written twice."""
        twice = [{**self.STORED}, {**self.STORED, "function": {"name": "sub", "arguments": "{}"}}]
        mark = {"type": "tool_call", "id": "c1"}
        message = Message("assistant", ["A", mark, "B", mark, "C"], {"tool_calls": twice})
        assert [call.name for call in message.tool_calls] == ["add", "sub"]

    @pytest.mark.parametrize("kind", ["custom", "mcp_approval_request"])
    def test_calls_of_other_kinds(self, kind: str) -> None:
        """They keep their kind, their input and the service's own object."""
        call = ToolCall("c", "shell", {"input": "ls"}, "ls" if kind == "custom" else '{"input": "ls"}', kind=kind)
        call = dataclasses.replace(call, raw={"server": "x"})
        message = Message("assistant", [call])
        assert message.tool_calls == (call,)
        assert Message.from_dict(json.loads(json.dumps(message.to_dict()))).tool_calls == (call,)

    @pytest.mark.parametrize(
        ("role", "content", "extra", "said"),
        [
            ("user", [CALL], {}, "only the assistant makes calls"),
            ("assistant", [{"type": "tool_call", "id": "x"}], {}, r"content\[0\] is a tool call without a 'name'"),
            ("assistant", ["a", {"type": "tool_call", "id": "x"}, "b"], {"tool_calls": "no"}, "must be a list"),
        ],
        ids=range(3),
    )
    def test_invalid_calls(self, role: str, content: Any, extra: Any, said: str) -> None:
        """Rejected before anything is sent."""
        with pytest.raises(InvalidRequest, match=said):
            Message(role, content, extra)

    def test_an_opaque_part_is_checked(self) -> None:
        """Like everything that is sent."""
        with pytest.raises(InvalidRequest, match="raw"):
            Opaque({"x": {1, 2}}, "anthropic")
        assert repr(Opaque({"x": 1}, "a")) == "Opaque({'x': 1}, by='a')"


def test_media_of_an_earlier_answer_are_their_words_to_a_service_of_text() -> None:
    """A user's own are rejected, since they were intended."""
    spoken = Media("audio", "audio/wav", b"RIFF", transcript="Hello").to_part()
    assert Message("assistant", [spoken, " there"]).text == "Hello there"
    with pytest.raises(InvalidRequest, match="only text"):
        assert Message("user", [spoken]).text

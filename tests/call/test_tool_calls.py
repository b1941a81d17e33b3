"""Tool calls from their pieces: the styles of all services, and the faults of some of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmbridge._call.calls import CallAssembler
from llmbridge._json import mended_json
from llmbridge._tool_call import read_call
from llmbridge.events import ToolCall, ToolCallDelta

D = ToolCallDelta
HIGH, LOW = "\ud83c", "\udf0d"


def calls(*deltas: ToolCallDelta) -> list[ToolCall]:
    """The calls that result from the pieces."""
    assembler = CallAssembler()
    for delta in deltas:
        assembler.add(delta)
    return assembler.finished()


def made(*deltas: ToolCallDelta) -> list[tuple[str, Any]]:
    """Names and arguments of the calls that result."""
    found = calls(*deltas)
    assert [call.problem for call in found] == [None] * len(found)
    assert all(call.id for call in found)
    assert len({call.id for call in found}) == len(found)
    return [(call.name, call.arguments) for call in found]


# Name: the pieces, and the calls that they make.
STYLES: dict[str, tuple[list[ToolCallDelta], list[tuple[str, Any]]]] = {
    "OpenAI": (
        [D(0, "a", "f"), D(0, arguments='{"x"'), D(0, arguments=": 1}"), D(1, "b", "g"), D(1, arguments="{}")],
        [("f", {"x": 1}), ("g", {})],
    ),
    "mixed": (
        [
            D(0, "a", "f"),
            D(1, "b", "g"),
            D(0, arguments='{"x": '),
            D(1, arguments='{"y"'),
            D(0, arguments="1}"),
            D(1, arguments=": 2}"),
        ],
        [("f", {"x": 1}), ("g", {"y": 2})],
    ),
    "id and name with every piece": (
        [D(0, "a", "f", '{"x"'), D(0, "a", "f", ": 1}"), D(1, "b", "f", "{}"), D(1, "b", "f", "")],
        [("f", {"x": 1}), ("f", {})],
    ),
    "a name with every piece, and no id": ([D(0, None, "f", '{"x"'), D(0, None, "f", ": 1}")], [("f", {"x": 1})]),
    "a name with every piece, and neither id nor index": (
        [D(None, None, "f", '{"x"'), D(None, None, "f", ": 1}"), D(None, None, "f", "{}")],
        [("f", {"x": 1}), ("f", {})],
    ),
    "no index: the only open call": (
        [D(None, "a", "f"), D(arguments='{"x": 1'), D(arguments="}"), D(None, "b", "g"), D(arguments="{}")],
        [("f", {"x": 1}), ("g", {})],
    ),
    "no index: by id": (
        [D(None, "a", "f"), D(None, "b", "g"), D(None, "a", arguments='{"x": 1}'), D(None, "b", arguments="{}")],
        [("f", {"x": 1}), ("g", {})],
    ),
    "neither index nor id, in one piece": (
        [D(None, None, "f", '{"x": 1}'), D(None, None, "g", "{}"), D(None, None, "g", "{}")],
        [("f", {"x": 1}), ("g", {}), ("g", {})],
    ),
    "the same index, new ids": (
        [D(0, "a", "f", "{}"), D(0, "b", "f", '{"x"'), D(0, arguments=": 1}")],
        [("f", {}), ("f", {"x": 1})],
    ),
    "the same index, no ids, new names": ([D(0, "", "f", "{}"), D(0, "", "g", "{}")], [("f", {}), ("g", {})]),
    "the same index, no ids, the same name": (
        [D(0, "", "f", "{}"), D(0, "", "f", '{"x": 1}')],
        [("f", {}), ("f", {"x": 1})],
    ),
    "another id without a name": ([D(0, "a", "f", '{"x"'), D(0, "z", None, ": 1}")], [("f", {"x": 1})]),
    "the id null of Mistral": ([D(0, "null", "f", "{}"), D(1, "null", "g", "{}")], [("f", {}), ("g", {})]),
    "an id that comes late": ([D(0, None, "f"), D(0, "a", "f", "{}")], [("f", {})]),
    "one id for two calls": ([D(0, "a", "f", "{}"), D(1, "a", "g", "{}")], [("f", {}), ("g", {})]),
    "whole, with one index": (
        [D(0, None, "f", '{"x": 1}', whole=True), D(0, None, "f", '{"x": 2}', whole=True)],
        [("f", {"x": 1}), ("f", {"x": 2})],
    ),
    "whole, with one id": (
        [D(0, "a", "f", "{}", whole=True), D(0, "a", "f", "{}", whole=True)],
        [("f", {}), ("f", {})],
    ),
    "no arguments": ([D(0, "a", "f"), D(0, arguments="  ")], [("f", {})]),
    "null for arguments": ([D(0, "a", "f", "null")], [("f", {})]),
    "JSON in a JSON string": ([D(0, "a", "f", '"{\\"x\\": '), D(0, arguments='1}"')], [("f", {"x": 1})]),
    "an empty JSON string": ([D(0, "a", "f", '""')], [("f", {})]),
    "raw control characters": ([D(0, "a", "f", '{"x": "a\nb\x01"}')], [("f", {"x": "a\nb\x01"})]),
    "halves of a pair": ([D(0, "a", "f", f'{{"x": "{HIGH}'), D(0, arguments=f'{LOW}"}}')], [("f", {"x": "🌍"})]),
    "halves of two calls": (
        [
            D(0, "a", "f", f'{{"x": "{HIGH}'),
            D(1, "b", "g", f'{{"x": "{HIGH}'),
            D(0, arguments=f'{LOW}"}}'),
            D(1, arguments=f'{LOW}"}}'),
        ],
        [("f", {"x": "🌍"}), ("g", {"x": "🌍"})],
    ),
    "half of a pair, escaped": ([D(0, "a", "f", '{"\\ud83c": "\\udf0d"}')], [("f", {"\ufffd": "\ufffd"})]),
    "nothing": ([D(0), D(), D(0, "", ""), D(None, "null")], []),
    "each piece holds all before it": (
        [D(0, "a", "f", ""), D(0, arguments='{"x"'), D(0, arguments='{"x": [1'), D(0, arguments='{"x": [1, 2]}')],
        [("f", {"x": [1, 2]})],
    ),
    "each piece holds all before it, with the name": (
        [D(0, "a", "f", '{"x"'), D(0, "a", "f", '{"x": 1'), D(0, "a", "f", '{"x": 1'), D(0, "a", "f", '{"x": 1}')],
        [("f", {"x": 1})],
    ),
    "a placeholder before the arguments": (
        [D(0, "a", "f", "{}"), D(0, arguments='{"x"'), D(0, arguments=": 1}")],
        [("f", {"x": 1})],
    ),
    "a placeholder before arguments that grow": (
        [D(0, "a", "f", "{ }"), D(0, arguments='{"x"'), D(0, arguments='{"x": 1}')],
        [("f", {"x": 1})],
    ),
    "the whole again": ([D(0, "a", "f", '{"x": 1}'), D(0, "a", "f", '{"x": 1}')], [("f", {"x": 1})]),
    "the whole again, written differently": (
        [D(0, "a", "f", '{"x": 1}'), D(0, "a", None, '{"x":1}'), D(0, "a", None, '{ "x":1}')],
        [("f", {"x": 1})],
    ),
    "the whole again, in pieces": (
        [D(0, "a", "f", '{"x": 1}'), D(0, arguments='{"x"'), D(0, arguments=": 1}")],
        [("f", {"x": 1})],
    ),
    "pieces, and then the whole": (
        [D(0, "a", "f", '{"x"'), D(0, arguments=": 1}"), D(0, arguments='{"x": 1}')],
        [("f", {"x": 1})],
    ),
    "equal pieces are not a repetition": (
        [
            D(0, "a", "f", '{"x": "'),
            *[D(0, arguments="{}")] * 2,
            D(0, arguments='", "y": '),
            *[D(0, arguments="1")] * 2,
            D(0, arguments="}"),
        ],
        [("f", {"x": "{}{}", "y": 11})],
    ),
    "a piece that begins like all before it": (
        [D(0, "a", "f", '{"x": '), D(0, arguments='{"x": 1}'), D(0, arguments="}")],
        [("f", {"x": {"x": 1}})],
    ),
    "nothing behind a whole call": ([D(0, "a", "f", "{}", whole=True), D(0)], [("f", {})]),
}


def test_other_arguments_for_a_whole_call_are_doubtful() -> None:
    """The call has a `problem` and runs no tool, since its arguments contradict each other."""
    (call,) = calls(D(0, "a", "f", '{"x": 1}'), D(0, "a", None, '{"x": 2}'))
    assert (call.arguments, call.problem) == ({}, "the arguments are not valid JSON")


def test_a_long_call_in_wrong_pieces_takes_bounded_time() -> None:
    """A server may send any number of pieces."""
    pieces = [D(0, arguments='{"x": 1}x')] * 20_000
    (call,) = calls(D(0, "a", "f"), *pieces)
    assert call.problem == "the arguments are not valid JSON"


def test_a_whole_call_comes_at_once() -> None:
    """A complete call is handed out after those that began before it."""
    assembler = CallAssembler()
    assembler.add(D(0, "a", "f", "{}"))
    assembler.add(D(1, "b", "g", "{}", whole=True))
    assert assembler.whole() == []
    assembler.add(D(0, whole=True))
    assert [call.id for call in assembler.whole()] == ["a", "b"]


def test_a_repeated_whole_call_is_dropped() -> None:
    """A complete call with the same id is a repetition; another id with the same arguments is a new one."""
    assembler = CallAssembler()
    for id in ("a", "a", "b"):
        assembler.add(D(0, id, "f", '{"x": 1}', whole=True))
        assembler.whole()
    assembler.add(D(1, "a", "f", '{"x": 2}', whole=True))
    assert [call.arguments for call in assembler.whole()] == [{"x": 2}]
    assert sorted(assembler._ended) == ["a", "b"]


def told_again(*deltas: ToolCallDelta) -> list[tuple[str, Any]]:
    """Ids and arguments of the calls, for a service that sends a finish reason after each piece."""
    assembler, found = CallAssembler(), []  # type: ignore[var-annotated]
    for delta in deltas:
        assembler.add(delta)
        found += assembler.finished(final=False)
    return [(call.id, call.arguments) for call in [*found, *assembler.finished()]]


@pytest.mark.parametrize(("id", "name"), [("a", "f"), ("a", None), (None, None)])
def test_a_call_repeated_after_its_end_is_dropped(id: Any, name: Any) -> None:
    """A repeated call is dropped, however much of it comes again."""
    again = D(0, id, name, '{"x":1}')
    assert told_again(D(0, "a", "f", '{"x": '), D(0, arguments="1}"), again) == [("a", {"x": 1})]


def test_an_equal_call_behind_another_one_is_one_of_its_own() -> None:
    """An equal call is new if its id, its index or its arguments differ."""
    first = D(0, "a", "f", '{"x": 1}')
    assert len(told_again(first, D(1, "b", "f", '{"x": 1}'))) == 2
    assert len(told_again(first, D(0, "b", "f", '{"x": 1}'))) == 2
    assert len(told_again(first, D(1, "a", "f", '{"x": 1}'))) == 2
    assert len(told_again(first, D(0, "a", "f", '{"x": 2}'))) == 2


@pytest.mark.parametrize("kind", ["custom", "approval"])
def test_input_that_is_text_is_taken_as_it_is(kind: str) -> None:
    """Plain text input need not be JSON."""
    (call,) = calls(D(0, "a", "shell", "echo", kind=kind, raw={"r": 1}), D(0, arguments=' "hi'))
    assert (call.kind, call.text, call.arguments) == (kind, 'echo "hi', {"input": 'echo "hi'})
    assert (call.problem, call.raw) == (None, {"r": 1})


class TestStyles:
    """The ways in which services split their calls."""

    @pytest.mark.parametrize("case", STYLES)
    def test_the_calls_come_whole(self, case: str) -> None:
        """Each style gives its calls, in the order in which they began."""
        deltas, expected = STYLES[case]
        assert made(*deltas) == expected

    def test_given_ids_stay(self) -> None:
        """Each call keeps its first id, and so does the first of two equal calls."""
        found = calls(D(0, "a", "f", "{}"), D(0, "z", None, ""), D(1, "a", "f", "{}"))
        assert found[0].id == "a"
        assert found[1].id not in ("", "a", "z")

    def test_made_up_ids_suit_every_service(self) -> None:
        """Nine letters and digits, different each time."""
        ids = [calls(D(None, None, "f", "{}"))[0].id for _ in range(200)]
        assert len(set(ids)) == 200
        assert all(len(id) == 9 and id.isalnum() and id.isascii() for id in ids)

    def test_a_signature_stays_with_its_call(self) -> None:
        """Any piece may bring the signature."""
        found = calls(D(0, "a", "f", "{}", "s1"), D(1, "b", "g"), D(1, None, None, "{}", "s2"))
        assert [call.signature for call in found] == ["s1", "s2"]

    @pytest.mark.slow
    def test_thousands_of_calls_take_linear_time(self) -> None:
        """A server may send any number of calls."""
        many = [D(i, f"c{i}", "f", "{}") for i in range(30_000)]
        assert len(calls(*many)) == len(many)

    def test_thousands_of_pieces_take_linear_time(self) -> None:
        """Each piece has the name, and might complete the call."""
        pieces = [D(0, None, "f", '{"a": {}, "b": "'), *[D(0, None, "f", '{"}"')] * 100_000]
        (call,) = calls(*pieces)
        assert call.problem == "the arguments are not valid JSON"


class TestHandedOut:
    """The pieces as a caller sees them."""

    def test_a_usual_piece_is_handed_out_as_it_is(self) -> None:
        """An ordinary piece is handed out as the same object."""
        delta = D(0, "a", "f", '{"x": "ü"}')
        assert CallAssembler().add(delta) is delta

    def test_a_half_is_held_back_for_the_other_one(self) -> None:
        """P5: everything handed out is valid UTF-8."""
        assembler = CallAssembler()
        pieces = [assembler.add(D(0, "a", "f", f'{{"x": "{HIGH}')), assembler.add(D(0, arguments=LOW))]
        assert pieces == [D(0, "a", "f", '{"x": "'), D(0, arguments="🌍")]

    def test_a_half_alone_is_nothing_to_hand_out(self) -> None:
        """A lone half becomes U+FFFD."""
        assembler = CallAssembler()
        assembler.add(D(0, "a", "f", '{"x": "'))
        assert assembler.add(D(0, arguments=HIGH)) is None
        assert assembler.finished()[0].text == '{"x": "\ufffd'

    def test_names_and_ids_are_mended(self) -> None:
        """Names and ids are repaired, since they are handed out and sent back."""
        assembler = CallAssembler()
        assert assembler.add(D(0, HIGH, LOW, "{}", HIGH)) == D(0, "\ufffd", "\ufffd", "{}", "\ufffd")
        (call,) = assembler.finished()
        assert (call.id, call.name, call.signature) == ("\ufffd", "\ufffd", "\ufffd")

    def test_seen_tells_of_calls_only(self) -> None:
        """An empty piece is not a call."""
        assembler = CallAssembler()
        assert assembler.add(D(0)) is None
        assert not assembler.seen
        assembler.add(D(0, "a", "f"))
        assembler.finished()
        assert assembler.seen


class TestFinished:
    """The end of calls."""

    def test_each_call_comes_once(self) -> None:
        """`finished` removes the calls."""
        assembler = CallAssembler()
        assembler.add(D(0, "a", "f", "{}"))
        assert len(assembler.finished()) == 1
        assert assembler.finished() == []

    def test_incomplete_json_can_go_on(self) -> None:
        """Invalid JSON stays open for a service that sends a finish reason with each piece."""
        assembler = CallAssembler()
        assembler.add(D(0, "a", "f", "{}"))
        assembler.add(D(1, "b", "g", '{"x"'))
        assert [call.id for call in assembler.finished(final=False)] == ["a"]
        assembler.add(D(1, arguments=": 1}"))
        assert [(call.id, call.arguments) for call in assembler.finished(final=False)] == [("b", {"x": 1})]

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ("", "the answer was cut off before the arguments"),
            ('{"x": 1', "the answer was cut off inside the arguments"),
            ('{"x": 1}', None),
        ],
    )
    def test_a_call_that_was_cut_off_says_so(self, arguments: str, problem: str | None) -> None:
        """A truncated call has a `problem`, unless it was complete."""
        assembler = CallAssembler()
        assembler.add(D(0, "a", "f", arguments))
        assert [call.problem for call in assembler.finished(cut=True)] == [problem]


class TestReadCall:
    """Reading arguments."""

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("{", "the arguments are not valid JSON"),
            ("{'a': 1}", "the arguments are not valid JSON"),
            ("[1]", "the arguments are not a JSON object"),
            ("7", "the arguments are not a JSON object"),
            ('"x"', "the arguments are not a JSON object"),
            ('{"a": NaN}', "the input['a'] is nan: JSON has neither NaN nor infinity"),
            ('{"a": 1e999}', "the input['a'] is inf: JSON has neither NaN nor infinity"),
            ("[" * 100_000, "the arguments are nested too deeply"),
            ('{"a": ' + "[" * 300 + "]" * 300 + "}", "the input is nested too deeply, or contains itself"),
        ],
        ids=range(9),
    )
    def test_what_cannot_be_used_says_why(self, text: str, problem: str) -> None:
        """The arguments are empty then, and the text stays."""
        call = read_call("a", "f", text)
        assert (call.arguments, call.problem, call.text) == ({}, problem, text)

    def test_a_call_without_a_name_says_so(self) -> None:
        """Its arguments are kept."""
        call = read_call("a", "", '{"x": 1}')
        assert (call.arguments, call.problem) == ({"x": 1}, "the call has no tool name")

    @pytest.mark.parametrize("text", ["", " ", "\n"])
    def test_no_arguments_are_an_empty_object(self, text: str) -> None:
        """Missing arguments are `{}` in the text too."""
        assert read_call("a", "f", text) == ToolCall("a", "f", {}, "{}")

    def test_arguments_can_be_sent_back(self) -> None:
        """The text is strict JSON in valid UTF-8."""
        call = read_call("a", "f", '{"\\ud83c": ["\\ud83c", {"x": "\\ud83c\\udf0d"}]}')
        assert call.arguments == {"\ufffd": ["\ufffd", {"x": "🌍"}]}
        json.dumps(call.arguments, ensure_ascii=False, allow_nan=False).encode()

    def test_other_values_are_left_as_they_are(self) -> None:
        """Only texts are repaired."""
        value = {"a": [1, 0.5, None, True, "ü"]}
        assert mended_json(value) == value

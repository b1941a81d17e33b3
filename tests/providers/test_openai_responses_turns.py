"""The Responses API: turns of every kind of item come whole, once and in order, and are sent back unchanged."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from modes import Mode

from llmbridge import Client, LLMBridgeError, ProtocolError, StreamError, StreamTruncated
from llmbridge.errors import InvalidRequest
from llmbridge.events import Citation, Finish, Media, Other, Reasoning, ServerTool, Text, ToolCall, ToolResult
from llmbridge.messages import Message, Opaque
from llmbridge.testing import LLMServer, Reply

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n....").decode()
USAGE = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}

Fields = dict[str, Any]


def thought(id: str, text: str = "", **more: Any) -> Fields:
    """A reasoning item."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "id": id, "summary": summary, **more}


def message(id: str, text: str, **more: Any) -> Fields:
    """A message of one text."""
    part = {"type": "output_text", "text": text, "annotations": more.pop("annotations", [])}
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": [part], **more}


def call(n: int, arguments: str = '{"city": "Oslo"}') -> Fields:
    """A call of a function."""
    return {
        "type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}", "name": "weather", "arguments": arguments,
        "status": "completed",
    }  # fmt: skip


def event(kind: str, **fields: Any) -> Fields:
    """An event."""
    return {"type": f"response.{kind}", **fields}


def events_of(item: Fields, place: int) -> list[Fields]:
    """The events of an item."""
    at = {"output_index": place, "item_id": item.get("id")}
    deltas: list[Fields] = []
    begun = {**item, "status": "in_progress"}
    if item["type"] == "reasoning":
        for number, part in enumerate(item["summary"]):
            deltas.append(event("reasoning_summary_part.added", **at, summary_index=number))
            deltas += [
                event("reasoning_summary_text.delta", **at, summary_index=number, delta=piece) for piece in part["text"]
            ]
            deltas.append(event("reasoning_summary_text.done", **at, summary_index=number, text=part["text"]))
        begun = {"type": "reasoning", "id": item["id"], "summary": []}
    elif item["type"] == "message":
        begun["content"] = []
        for number, part in enumerate(item["content"]):
            where = {**at, "content_index": number}
            if part["type"] == "output_text":
                deltas += [event("output_text.delta", **where, delta=piece) for piece in part["text"]]
                deltas.append(event("output_text.done", **where, text=part["text"]))
            deltas.append(event("content_part.done", **where, part=part))
    elif item["type"] in ("function_call", "custom_tool_call"):
        field, kind = (
            ("arguments", "function_call_arguments") if "arguments" in item else ("input", "custom_tool_call_input")
        )
        begun[field] = ""
        deltas += [event(f"{kind}.delta", **at, delta=piece) for piece in item[field]]
        deltas.append(event(f"{kind}.done", **at, **{field: item[field]}))
    return [
        event("output_item.added", output_index=place, item=begun),
        *deltas,
        event("output_item.done", output_index=place, item=item),
    ]


def reply(*events: Fields, output: list[Fields] | None = None, **response: Any) -> Reply:
    """A stream of these events and a final one."""
    head = {"id": "resp_1", "model": "gpt-5-2025", "status": "in_progress", "output": []}
    store = {"store": response["store"]} if "store" in response else {}
    last = {**head, "status": "completed", "usage": USAGE, "output": output or [], **response}
    told = [event("created", response={**head, **store}), *events, event(f"{last['status']}", response=last)]
    return Reply(body="".join(f"event: {said['type']}\ndata: {json.dumps(said)}\n\n" for said in told))


def streamed(*items: Fields, **response: Any) -> Reply:
    """A stream of items, all repeated in the last event."""
    events = [said for place, item in enumerate(items) for said in events_of(item, place)]
    return reply(*events, output=list(items), **response)


def document(*items: Fields, **response: Any) -> Reply:
    """The same as one document."""
    whole = {"id": "resp_1", "model": "gpt-5-2025", "status": "completed", "output": list(items), **response}
    return Reply(body=json.dumps(whole), content_type="application/json")


def only_last(*items: Fields, **response: Any) -> Reply:
    """A stream of only its last event."""
    return reply(output=list(items), **response)


def without_last(*items: Fields, **response: Any) -> Reply:
    """A stream whose last event does not repeat its items."""
    return reply(*(said for place, item in enumerate(items) for said in events_of(item, place)), **response)


WAYS = (streamed, document, only_last, without_last)


@pytest.fixture
def asked(server: LLMServer, client: Client) -> Any:
    """The answer to a scripted reply, and the next request's input."""

    def ask(messages: Any = "Hi", **params: Any) -> Any:
        return client.chat(
            messages, "openai-responses:gpt-5", base_url=server.base_url("openai-responses"), api_key="k", **params
        )

    return ask


TURN = [
    thought("rs_1", "Hm, Oslo.", encrypted_content="ENC1"),
    message("msg_1", "Let me look.", phase="commentary"),
    call(1),
    thought("rs_2", encrypted_content="ENC2"),
    call(2, '{"city": "Rome"}'),
]


def weather(city: str) -> str:
    """The weather in a city."""
    return f"Sun in {city}"


class TestOrder:
    """A turn is sent back unchanged."""

    @pytest.mark.parametrize("way", WAYS)
    def test_run_tools_sends_the_turn_back_in_its_order(
        self, server: LLMServer, asked: Any, mode: Mode, way: Any
    ) -> None:
        """Two thoughts and two calls, each item equal, with the results after them."""
        server.script(way(*TURN), streamed(message("msg_2", "Sun.")))
        answer = mode.complete(asked(tools=[weather], run_tools=True))
        assert answer.text == "Sun."
        items = server.requests[1].json["input"][1:]
        assert items[:5] == TURN
        assert [(item["call_id"], item["output"]) for item in items[5:]] == [
            ("call_1", "Sun in Oslo"), ("call_2", "Sun in Rome")
        ]  # fmt: skip

    @pytest.mark.parametrize("way", WAYS)
    def test_it_survives_being_written_down(self, server: LLMServer, asked: Any, way: Any) -> None:
        """As JSON; another provider gets only the text and the calls."""
        server.script(way(*TURN), streamed(message("msg_2", "x")))
        stored = json.dumps(asked().complete().message.to_dict())
        asked([{"role": "user", "content": "Hi"}, json.loads(stored)]).complete()
        assert server.requests[1].json["input"][1:] == TURN

    def test_a_plain_answer_is_a_plain_message(self, server: LLMServer, asked: Any) -> None:
        """And a call alone is only a call."""
        server.script(streamed(message("msg_1", "Hi")), streamed(call(1)))
        assert asked().complete().message == Message("assistant", "Hi")
        assert asked().complete().message.to_dict()["tool_calls"] == [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
        ]

    def test_two_messages_stay_two(self, server: LLMServer, asked: Any) -> None:
        """Beside reasoning, each keeps its id."""
        items = [thought("rs_1"), message("msg_1", "One."), message("msg_2", "Two.")]
        server.script(streamed(*items), streamed(message("x", "x")))
        answer = asked().complete()
        assert answer.text == "One.Two."
        asked([answer]).complete()
        assert server.requests[1].json["input"] == items

    def test_a_message_of_several_texts(self, server: LLMServer, asked: Any) -> None:
        """It is one item."""
        item = message("msg_1", "One.")
        item["content"] = [*item["content"], {"type": "output_text", "text": "Two.", "annotations": [{"type": "new"}]}]
        server.script(streamed(item), streamed(message("x", "x")))
        answer = asked().complete()
        assert answer.text == "One.Two."
        asked([answer]).complete()
        assert server.requests[1].json["input"] == [item]

    def test_a_text_that_was_changed_goes_out_as_it_is(self, server: LLMServer, asked: Any) -> None:
        """In the service's own item."""
        server.script(streamed(message("msg_1", "secret", phase="final_answer")), streamed(message("x", "x")))
        stored = asked().complete().message.to_dict()
        stored["content"][0]["text"] = "***"
        asked([stored]).complete()
        assert server.requests[1].json["input"] == [message("msg_1", "***", phase="final_answer")]

    def test_parts_that_callers_write(self, server: LLMServer, asked: Any) -> None:
        """Opaque parts, the service's own items, and calls between them."""
        own = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
        turn = Message(
            "assistant",
            [
                thought("rs_1", encrypted_content="E"), Opaque(own, "openai-responses"),
                Opaque({"type": "x"}, "gemini"), "Hm", ToolCall("c1", "weather", {"city": "Oslo"}), "Done",
                {**own, "id": "ws_2"},
            ],
        )  # fmt: skip
        server.script(streamed(message("x", "x")))
        asked([turn, ToolResult(ToolCall("c1", "weather"), "Sun")]).complete()
        said = {"type": "message", "role": "assistant"}
        function = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'}
        assert server.requests[0].json["input"] == [
            thought("rs_1", encrypted_content="E"), own, {**said, "content": "Hm"}, function,
            {**said, "content": "Done"}, {**own, "id": "ws_2"},
            {"type": "function_call_output", "call_id": "c1", "output": "Sun"},
        ]  # fmt: skip


class TestStored:
    """If the service does not store it, it is sent back without its id, or not at all."""

    TURN = (thought("rs_1", "Hm."), thought("rs_2", encrypted_content="E"), message("msg_1", "Hi"), call(1))
    LEFT = (thought("rs_2", encrypted_content="E"), message("msg_1", "Hi"), call(1))

    def test_by_default_it_is(self, server: LLMServer, asked: Any) -> None:
        """Everything is sent back."""
        server.script(streamed(*self.TURN), streamed(message("x", "x")))
        asked([asked().complete()]).complete()
        assert server.requests[1].json["input"] == list(self.TURN)

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("told", ["by the service", "in the request"])
    def test_store_false(self, server: LLMServer, asked: Any, way: Any, told: str) -> None:
        """The caller turns it off."""
        params = {} if told == "by the service" else {"store": False}
        server.script(way(*self.TURN, **({} if params else {"store": False})), streamed(message("x", "x")))
        asked([asked(**params).complete()], **params).complete()
        without = [{name: value for name, value in item.items() if name != "id"} for item in self.LEFT[1:]]
        assert server.requests[1].json["input"] == [self.LEFT[0], *without]

    def test_signatures_of_earlier_versions(self, server: LLMServer, asked: Any) -> None:
        """Messages saved by earlier versions can be read."""
        old = {"type": "reasoning", "text": "hm", "signature": "rs_1:ENC", "by": "openai-responses"}
        server.script(streamed(message("x", "x")))
        asked([{"role": "assistant", "content": [old, "Hi"]}], store=False).complete()
        assert server.requests[0].json["input"][0] == thought("rs_1", "hm", encrypted_content="ENC")


def delta(text: str, **at: Any) -> Fields:
    """A piece of text."""
    return event("output_text.delta", delta=text, **at)


def done(text: str, **at: Any) -> Fields:
    """The end of a text."""
    return event("output_text.done", text=text, **at)


def ended(text: str, **at: Any) -> Fields:
    """The end of a message."""
    return event("output_item.done", item=message("m", text), **at)


# Name: the events, the items of the last one, and the text.
TEXTS: dict[str, tuple[list[Fields], list[Fields], str]] = {
    "a text longer than its pieces": ([delta("Hel"), done("Hello")], [], "Hello"),
    "a text without pieces": ([done("Hello")], [], "Hello"),
    "its end twice": ([delta("Hel"), done("Hello"), done("Hello")], [], "Hello"),
    "a part, a message and an answer": (
        [
            delta("H"), done("He"), event("content_part.done", part={"type": "output_text", "text": "Hel"}),
            ended("Hell", output_index=0), ended("Hell", output_index=0),
        ],
        [message("m", "Hello")],
        "Hello",
    ),
    "a shorter end": ([delta("Hello"), done("Hel"), ended("Hel")], [message("m", "Hel")], "Hello"),
    "another end": ([delta("Hello"), done("Hi"), ended("Hi")], [message("m", "Hi")], "Hello"),
    "two parts": (
        [
            delta("On", content_index=0), done("One", content_index=0),
            delta("Tw", content_index=1), done("Two", content_index=1),
        ],
        [],
        "OneTwo",
    ),
    "two messages": (
        [delta("On", output_index=0), ended("One", output_index=0), delta("Tw", output_index=1),
         event("output_item.done", output_index=1, item=message("n", "Two"))],
        [message("m", "One"), message("n", "Two")],
        "OneTwo",
    ),
    "the same text twice": (
        [delta("1", output_index=0), ended("1", output_index=0), delta("1", output_index=1),
         event("output_item.done", output_index=1, item=message("n", "1"))],
        [message("m", "1"), message("n", "1")],
        "11",
    ),
    "a second message only at the end": (
        [delta("One", output_index=0), ended("One", output_index=0)],
        [message("m", "One"), message("n", "Two")],
        "OneTwo",
    ),
    "messages that are written at once": (
        [
            *(event("output_item.added", output_index=n, item={"type": "message", "id": str(n)}) for n in (0, 1)),
            delta("A", output_index=0), delta("x", output_index=1), delta("B", output_index=0),
            *(event("output_item.done", output_index=n, item=message(str(n), "AB" if n == 0 else "x")) for n in (0, 1)),
        ],
        [message("0", "AB"), message("1", "x")],
        "AxB",
    ),
    "a refusal": ([event("refusal.delta", delta="N"), event("refusal.done", refusal="No.")], [], "No."),
    "a message whose content is a text": ([], [{"type": "message", "content": "Hi"}], "Hi"),
    "a message whose content is an object": ([], [{"type": "message", "content": {"text": "Hi"}}], "Hi"),
}  # fmt: skip


class TestOnce:
    """An end adds only what is new."""

    @pytest.mark.parametrize("name", TEXTS)
    def test_a_text(self, server: LLMServer, asked: Any, name: str) -> None:
        """Nothing is lost or repeated."""
        events, output, text = TEXTS[name]
        server.script(reply(*events, output=output))
        assert asked().complete().text == text

    def test_a_thought(self, server: LLMServer, asked: Any) -> None:
        """Its parts and what follows them."""
        item = {**thought("rs_1", "One."), "summary": [{"text": "One."}, {"text": "Two."}, {"text": "Three."}]}
        events = [
            event("reasoning_summary_text.delta", summary_index=0, delta="On"),
            event("reasoning_summary_text.done", summary_index=0, text="One."),
            event("reasoning_summary_part.added", summary_index=1),
            event("reasoning_summary_part.done", summary_index=1, part={"type": "summary_text", "text": "Two."}),
            event("output_item.done", output_index=0, item=item),
        ]
        server.script(reply(*events, output=[item]))
        answer = asked().complete()
        assert answer.reasoning == "One.\n\nTwo.\n\nThree."
        assert [part["raw"] for part in answer.message.parts] == [item]

    @pytest.mark.parametrize(
        "told",
        [
            ['{"a": ', "1}"],
            ['{"a": '],
            ["{}"],
            ['{"a": ', '{"a": 1}'],
            [],
        ],
    )
    def test_arguments(self, server: LLMServer, asked: Any, told: list[str]) -> None:
        """Whole, cut, instead of others, or each with those before."""
        item = call(1, '{"a": 1}')
        events = [
            event("output_item.added", output_index=0, item={**item, "arguments": ""}),
            *(event("function_call_arguments.delta", output_index=0, delta=piece) for piece in told),
            event("function_call_arguments.done", output_index=0, arguments='{"a": 1}'),
            event("output_item.done", output_index=0, item=item),
        ]
        server.script(reply(*events, events[-1], output=[item]))
        (made,) = asked().complete().tool_calls
        assert (made.id, made.arguments, made.problem) == ("call_1", {"a": 1}, None)

    def test_calls_whose_ids_change(self, server: LLMServer, asked: Any) -> None:
        """Their places count; two equal calls are two."""
        events = []
        for n in (0, 1):
            events += events_of({**call(n), "id": f"a{n}"}, n)[:-1]
            events.append(event("output_item.done", output_index=n, item={**call(n), "id": f"b{n}"}))
        server.script(reply(*events, output=[{**call(0), "id": "c0"}, {**call(1), "id": "c1"}]))
        assert [made.id for made in asked().complete().tool_calls] == ["call_0", "call_1"]

    def test_arguments_that_the_limit_cut(self, server: LLMServer, asked: Any) -> None:
        """The error says so."""
        item = call(1, '{"city": "Os')
        server.script(
            reply(
                *events_of(item, 0)[:-2], output=[item], status="incomplete",
                incomplete_details={"reason": "max_output_tokens"},
            )
        )  # fmt: skip
        answer = asked().complete()
        assert answer.finish_reason == "length"
        assert answer.tool_calls[0].problem == "the answer was cut off inside the arguments"


CUSTOM = {
    "type": "custom_tool_call",
    "id": "ctc_1",
    "call_id": "call_9",
    "name": "shell",
    "input": "ls -l",
    "status": "completed",
}
APPROVAL = {
    "type": "mcp_approval_request",
    "id": "mcpr_1",
    "name": "roll",
    "arguments": '{"dice": 2}',
    "server_label": "dmcp",
}
COMPUTER = {
    "type": "computer_call",
    "id": "cu_1",
    "call_id": "call_3",
    "action": {"type": "screenshot"},
    "pending_safety_checks": [],
    "status": "completed",
}
SHELL = {"type": "shell_call", "id": "sh_1", "call_id": "call_4", "action": {"commands": ["ls"]}, "status": "completed"}
NEW = {"type": "quantum_call", "id": "q_1", "call_id": "call_5", "qubits": 3}

# Name: the item; id, name, kind and arguments of the call; the content of the result; the result as it is sent.
CALLS: dict[str, tuple[Fields, tuple[Any, ...], Any, Fields]] = {
    "custom": (
        CUSTOM, ("call_9", "shell", "custom", {"input": "ls -l"}), "a.txt",
        {"type": "custom_tool_call_output", "call_id": "call_9", "output": "a.txt"},
    ),
    "approval": (
        APPROVAL, ("mcpr_1", "roll", "mcp_approval_request", {"dice": 2}), "Yes",
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
    ),
    "no approval": (
        APPROVAL, ("mcpr_1", "roll", "mcp_approval_request", {"dice": 2}), "Too risky",
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False, "reason": "Too risky"},
    ),
    "computer": (
        COMPUTER,
        ("call_3", "computer", "computer_call", {"action": {"type": "screenshot"}, "pending_safety_checks": []}),
        [{"type": "computer_screenshot", "image_url": "data:x"}],
        {"type": "computer_call_output", "call_id": "call_3",
         "output": {"type": "computer_screenshot", "image_url": "data:x"}},
    ),
    "shell": (
        SHELL, ("call_4", "shell", "shell_call", {"action": {"commands": ["ls"]}}),
        [{"type": "out", "stdout": "a"}, {"type": "out", "stdout": "b"}],
        {"type": "shell_call_output", "call_id": "call_4",
         "output": [{"type": "out", "stdout": "a"}, {"type": "out", "stdout": "b"}]},
    ),
    "a new one": (
        NEW, ("call_5", "quantum", "quantum_call", {"qubits": 3}), "up",
        {"type": "quantum_call_output", "call_id": "call_5", "output": "up"},
    ),
}  # fmt: skip


class TestCalls:
    """Calls that are not function calls."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("name", CALLS)
    def test_a_call_is_visible_and_can_be_answered(self, server: LLMServer, asked: Any, name: str, way: Any) -> None:
        """Also if the messages were saved in between."""
        item, seen, content, goes = CALLS[name]
        server.script(way(thought("rs_1", encrypted_content="E"), item), streamed(message("x", "x")))
        answer = asked().complete()
        (made,) = answer.tool_calls
        assert (made.id, made.name, made.kind, made.arguments) == seen
        assert (made.problem, answer.finish_reason) == (None, "tool_calls")
        stored = json.loads(json.dumps(answer.message.to_dict()))
        asked([stored, {"role": "tool", "tool_call_id": made.id, "content": content}]).complete()
        assert server.requests[1].json["input"] == [thought("rs_1", encrypted_content="E"), item, goes]

    def test_the_kind_may_be_in_the_result(self, server: LLMServer, asked: Any) -> None:
        """If the call is not among the messages; other fields are sent as well."""
        server.script(streamed(message("x", "x")))
        answers = [
            {"role": "tool", "tool_call_id": "c1", "content": "x", "kind": "custom"},
            {"role": "tool", "tool_call_id": "c2", "content": "log", "kind": "apply_patch_call", "status": "completed"},
            {"role": "tool", "tool_call_id": "c3", "content": "ok", "kind": "mcp_approval_request", "is_error": True},
        ]
        asked(answers, previous_response_id="resp_0").complete()
        assert server.requests[0].json["input"] == [
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "x"},
            {"type": "apply_patch_call_output", "call_id": "c2", "output": "log", "status": "completed"},
            {"type": "mcp_approval_response", "approval_request_id": "c3", "approve": False, "reason": "ok"},
        ]
        with pytest.raises(InvalidRequest, match="tool_call_id"):
            asked([{"role": "tool", "content": "x", "kind": "custom"}]).complete()

    @pytest.mark.parametrize("item", [APPROVAL, COMPUTER, {**APPROVAL, "name": "weather"}])
    def test_run_tools_leaves_them_to_the_caller(self, server: LLMServer, asked: Any, mode: Mode, item: Fields) -> None:
        """Even if a function has the same name."""
        server.script(streamed(call(1), item))
        answer = mode.complete(asked(tools=[weather], run_tools=True))
        assert [made.id for made in answer.tool_calls] == ["call_1", item.get("call_id", item["id"])]
        assert (answer.finish_reason, len(server.requests)) == ("tool_calls", 1)

    def test_another_service_gets_a_custom_call_as_a_function_call(
        self, server: LLMServer, client: Client, asked: Any
    ) -> None:
        """An approval as well, with the results."""
        server.script(streamed(CUSTOM), Reply("Hi"))
        answer = asked().complete()
        told = {"role": "tool", "tool_call_id": "call_9", "content": "a.txt"}
        client.chat([answer, told], "openai:m", base_url=server.base_url("openai"), api_key="k").complete()
        (made,) = server.requests[1].json["messages"][0]["tool_calls"]
        assert made["function"] == {"name": "shell", "arguments": '{"input": "ls -l"}'}


SEARCH = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "q", "sources": [{"url": "u"}]},
}
FILES = {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["q"], "results": [{"text": "t"}]}
CODE = {
    "type": "code_interpreter_call",
    "id": "ci_1",
    "status": "completed",
    "code": "1+1",
    "container_id": "c",
    "outputs": [{"type": "logs", "logs": "2"}],
}
MCP = {
    "type": "mcp_call",
    "id": "mcp_1",
    "name": "roll",
    "arguments": '{"dice": 2}',
    "server_label": "d",
    "output": "7",
}
LISTED = {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "d", "tools": [{"name": "roll"}]}
REMOTE = {**SHELL, "environment": {"type": "container_reference", "container_id": "c"}}
OUTPUT = {"type": "shell_call_output", "call_id": "call_4", "output": [{"stdout": "a"}]}

# Name: the item, and the tool's id, name, arguments and result.
TOOLS: dict[str, tuple[Fields, tuple[Any, ...]]] = {
    "web search": (SEARCH, ("ws_1", "web_search", SEARCH["action"], [{"url": "u"}])),
    "file search": (FILES, ("fs_1", "file_search", {"queries": ["q"]}, [{"text": "t"}])),
    "code": (CODE, ("ci_1", "code_interpreter", {"code": "1+1", "container_id": "c"}, [{"type": "logs", "logs": "2"}])),
    "mcp": (MCP, ("mcp_1", "roll", {"dice": 2}, "7")),
    "mcp list": (LISTED, ("mcpl_1", "mcp_list_tools", {"server_label": "d"}, [{"name": "roll"}])),
    "shell in a container": (REMOTE, ("sh_1", "shell", SHELL["action"], None)),
    "a failed image": (
        {"type": "image_generation_call", "id": "ig_1", "status": "failed", "result": None, "error": {"code": "x"}},
        ("ig_1", "image_generation", {}, {"code": "x"}),
    ),
    "one of another service": (
        {"type": "x_search_call", "id": "x_1", "query": "q"}, ("x_1", "x_search", {"query": "q"}, None)
    ),
}  # fmt: skip


class TestServerTools:
    """Tools that the service runs itself."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("name", TOOLS)
    def test_it_is_shown_and_goes_back_in_its_place(self, server: LLMServer, asked: Any, name: str, way: Any) -> None:
        """No one has to answer it."""
        item, seen = TOOLS[name]
        turn = [thought("rs_1"), item, message("msg_1", "Hi")]
        server.script(way(*turn), streamed(message("x", "x")))
        answer = asked().complete()
        (tool,) = answer.server_tools
        assert (tool.id, tool.name, tool.arguments, tool.result) == seen
        assert (answer.text, answer.finish_reason, answer.tool_calls) == ("Hi", "stop", ())
        asked([answer]).complete()
        assert server.requests[1].json["input"] == turn

    def test_it_is_yielded_when_called_and_with_its_result(self, server: LLMServer, asked: Any) -> None:
        """Progress events are not yielded."""
        begun = {"type": "web_search_call", "id": "ws_1", "status": "in_progress"}
        progress = [
            event(f"web_search_call.{word}", item_id="ws_1") for word in ("in_progress", "searching", "completed")
        ]
        called = event("output_item.added", output_index=0, item=begun)
        server.script(reply(called, *progress, event("output_item.done", output_index=0, item=SEARCH), output=[SEARCH]))
        told = [said for said in asked().events() if isinstance(said, (ServerTool, Other))]
        assert [(tool.name, tool.result) for tool in told] == [("web_search", None), ("web_search", [{"url": "u"}])]
        server.script(reply(event("output_item.added", output_index=0, item=begun)))
        (tool,) = asked().complete().server_tools
        assert tool.raw == begun

    def test_code_that_came_only_in_pieces(self, server: LLMServer, asked: Any) -> None:
        """It is the tool's input."""
        pieces = [event("code_interpreter_call_code.delta", item_id="ci_1", delta=piece) for piece in ("1", "+1")]
        item = {**CODE, "code": None}
        server.script(reply(*pieces, event("output_item.done", item=item)))
        (tool,) = asked().complete().server_tools
        assert tool.arguments["code"] == "1+1"

    @pytest.mark.parametrize("way", WAYS)
    def test_an_image(self, server: LLMServer, asked: Any, way: Any) -> None:
        """It is bytes with a media type, and is sent back as the item; another service gets its text."""
        item = {
            "type": "image_generation_call",
            "id": "ig_1",
            "status": "completed",
            "output_format": "png",
            "result": PNG,
        }
        turn = [message("msg_1", "Here:"), item, message("msg_2", "Done.")]
        server.script(way(*turn), streamed(message("x", "x")))
        answer = asked().complete()
        (image,) = answer.media
        assert (image.kind, image.mime, image.data, image.id) == ("image", "image/png", base64.b64decode(PNG), "ig_1")
        asked([json.loads(json.dumps(answer.message.to_dict()))]).complete()
        said = {"type": "message", "role": "assistant"}
        assert server.requests[1].json["input"] == [{**said, "content": "Here:"}, item, {**said, "content": "Done."}]

    def test_images_on_the_way(self, server: LLMServer, asked: Any) -> None:
        """They are optional events."""
        server.script(reply(event("image_generation_call.partial_image", item_id="ig_1", partial_image_b64=PNG)))
        (other,) = [said for said in asked().events() if isinstance(said, Other)]
        assert (other.kind, other.raw["partial_image_b64"]) == ("response.image_generation_call.partial_image", PNG)

    def test_sound(self, server: LLMServer, asked: Any) -> None:
        """Cut anywhere in its base64, with its transcript; both are sent back in their place."""
        data = base64.b64encode(b"RIFF....WAVEsound").decode()
        events = [event("audio.delta", delta=data[n : n + 17]) for n in range(0, len(data), 17)]
        words = [event("audio.transcript.delta", delta=piece) for piece in ("Hel", "lo")]
        end = [event("audio.done"), event("audio.transcript.done")]
        server.script(reply(*events, *words, *end), streamed(message("x", "x")))
        answer = asked().complete()
        (sound,) = answer.media
        assert (sound.kind, sound.mime, sound.data, sound.transcript) == (
            "audio", "audio/wav", b"RIFF....WAVEsound", "Hello"
        )  # fmt: skip
        asked([answer]).complete()
        assert server.requests[1].json["input"] == [{"type": "message", "role": "assistant", "content": "Hello"}]


PAGE = {"type": "url_citation", "url": "https://a.b", "title": "A", "start_index": 0, "end_index": 3}
FILE = {"type": "file_citation", "file_id": "file_1", "filename": "a.pdf", "index": 2}
BOX = {
    "type": "container_file_citation",
    "container_id": "c",
    "file_id": "cf",
    "filename": "b.csv",
    "start_index": 1,
    "end_index": 2,
}


class TestCitations:
    """The answer's sources."""

    @pytest.mark.parametrize("way", WAYS)
    def test_they_are_yielded_once(self, server: LLMServer, asked: Any, way: Any) -> None:
        """With their places in the answer's text; the message is sent back with them."""
        items = [message("msg_1", "Hey", annotations=[PAGE, FILE]), message("msg_2", "you", annotations=[PAGE, BOX])]
        server.script(way(*items), streamed(message("x", "x")))
        answer = asked().complete()
        assert list(answer.citations) == [
            Citation("https://a.b", None, "A", None, 0, 3),
            Citation(None, "file_1", "a.pdf"),
            Citation("https://a.b", None, "A", None, 3, 6),
            Citation(None, "cf", "b.csv", None, 4, 5),
        ]
        assert answer.citations[0].raw == PAGE
        asked([answer]).complete()
        assert server.requests[1].json["input"] == items

    def test_an_event_of_its_own_is_the_same(self, server: LLMServer, asked: Any) -> None:
        """It equals the one at the end of the message; a later one is another."""
        item = message("msg_1", "Hey", annotations=[PAGE])
        begun, *rest = events_of(item, 0)
        added = event("output_text.annotation.added", output_index=0, content_index=0, annotation=PAGE)
        late = event("output_text.annotation.added", output_index=0, content_index=0, annotation=FILE)
        server.script(reply(begun, added, *rest, late, output=[item]))
        assert [cited.document for cited in asked().complete().citations] == [None, "file_1"]


class TestEnds:
    """The end of an answer."""

    def test_who_answered(self, server: LLMServer, asked: Any) -> None:
        """The id can be passed as `previous_response_id`."""
        server.script(streamed(message("m", "Hi"), service_tier="flex"))
        answer = asked().complete()
        assert (answer.response_id, answer.served_model) == ("resp_1", "gpt-5-2025")
        assert answer.extra["service_tier"] == "flex"

    @pytest.mark.parametrize("status", ["queued", "in_progress"])
    def test_an_answer_that_is_not_there_yet(self, server: LLMServer, asked: Any, mode: Mode, status: str) -> None:
        """The error names the answer, and there is no retry."""
        begun = message("m", "So far")
        server.script(document(status=status), document(begun, status=status))
        for text in ("", "So far"):
            with pytest.raises(ProtocolError, match=rf"response resp_1 is not ready \(status {status}") as caught:
                mode.complete(asked(background=True, stream=False, retries=1))
            assert caught.value.partial == text
        body = event("completed", response={"id": "resp_1", "status": status, "output": [begun]})
        server.script(Reply(body=f"data: {json.dumps(body)}\n\n"))
        with pytest.raises(ProtocolError, match="GET /responses/resp_1") as caught:
            mode.complete(asked(retries=0))
        assert caught.value.partial == "So far"

    def test_a_stream_that_ends_in_the_queue_names_the_answer(self, server: LLMServer, asked: Any) -> None:
        """So that it can be fetched later; there is no retry."""
        queued = {"id": "resp_1", "status": "queued", "output": []}
        body = [event(kind, response=queued) for kind in ("created", "queued")]
        server.script(Reply(body="".join(f"data: {json.dumps(said)}\n\n" for said in body)))
        with pytest.raises(StreamTruncated, match="resp_1"):
            asked(background=True, retries=2).complete()
        assert len(server.requests) == 1

    @pytest.mark.parametrize("kind", ["completed", "cancelled"])
    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    def test_an_answer_that_failed_is_an_error(self, server: LLMServer, asked: Any, kind: str, status: str) -> None:
        """Whatever the event's name is."""
        last = {"status": status, "output": [message("m", "So far")], "error": None}
        body = [delta("So"), event(kind, response=last)]
        server.script(Reply(body="".join(f"data: {json.dumps(said)}\n\n" for said in body)))
        with pytest.raises(StreamError) as caught:
            asked(retries=0).complete()
        assert caught.value.partial == "So far"

    @pytest.mark.parametrize(
        ("reason", "finish"),
        [
            ("max_output_tokens", "length"),
            ("content_filter", "content_filter"),
            ("MAX_TOKENS", "length"),
            ("x", "other"),
        ],
    )
    def test_an_incomplete_answer_says_why(self, server: LLMServer, asked: Any, reason: str, finish: str) -> None:
        """Even in an event named "completed"."""
        last = {"status": "incomplete", "incomplete_details": {"reason": reason}, "output": [message("m", "Hi")]}
        server.script(Reply(body=f"data: {json.dumps(event('completed', response=last))}\n\n"))
        answer = asked().complete()
        assert (answer.text, answer.finish_reason, answer.raw_finish_reason) == ("Hi", finish, reason)

    def test_unreadable_text_is_an_error(self, server: LLMServer, asked: Any) -> None:
        """The error quotes it."""
        server.script(document({"type": "message", "content": [{"type": "output_text", "text": [7]}]}))
        with pytest.raises(ProtocolError, match=r"cannot read the text of .*output_text: \[7\]"):
            asked(retries=0).complete()


UNKNOWN = {"type": "hologram", "depth": [1, {"z": None}], "né": "\N{SNOWMAN}"}
MARK = {"hologram": {"depth": 1.5}}


def _placed(place: str, way: Any) -> tuple[Reply, list[Fields], bool]:
    """A turn with something unknown in it, its items, and whether that belongs to the turn."""
    turn = [thought("rs_1", "Hm."), message("msg_1", "Hi"), dict(SEARCH), call(1)]
    if place == "an item":
        turn.insert(1, UNKNOWN)
    elif place == "a part":
        turn[1] = {**turn[1], "content": [*turn[1]["content"], UNKNOWN]}
    elif place == "a first part":
        turn[1] = {**turn[1], "content": [UNKNOWN, *turn[1]["content"]]}
    elif place == "a key of a part":
        turn[1] = {**turn[1], "content": [{**turn[1]["content"][0], **MARK}]}
    else:
        number = {"a thought": 0, "a message": 1, "a tool": 2, "a call": 3}[place.removeprefix("a key of ")]
        turn[number] = {**turn[number], **MARK}
    return way(*turn), turn, True


IN_TURN = ("an item", "a part", "a first part", "a key of a part",
           *(f"a key of {item}" for item in ("a thought", "a message", "a tool", "a call")))  # fmt: skip


def _shown(said: Any) -> str:
    """All raw objects of an event, as JSON."""
    return json.dumps([getattr(said, "raw", None)], default=dict)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", IN_TURN)
def test_something_unknown_in_a_turn(server: LLMServer, asked: Any, place: str, way: Any) -> None:
    """It is an event, once unless it is part of something known, and is sent back unchanged in its place."""
    scripted, turn, _ = _placed(place, way)
    server.script(scripted, streamed(message("x", "x")))
    stream = asked()
    told = list(stream.events())
    seen = [said for said in told if json.dumps(UNKNOWN) in _shown(said) or json.dumps(MARK)[1:-1] in _shown(said)]
    assert seen
    assert sum(isinstance(said, Other) for said in seen) <= 1
    assert "".join(said.text for said in told if isinstance(said, Text)) == "Hi"
    asked([stream.complete(), ToolResult(ToolCall("call_1", "weather"), "Sun")]).complete()
    assert server.requests[1].json["input"][:-1] == turn
    assert json.dumps(server.requests[1].json["input"][:-1]) == json.dumps(turn)


@pytest.mark.parametrize("place", range(12))
def test_an_unknown_event_anywhere(server: LLMServer, asked: Any, place: int) -> None:
    """It is an event, and changes nothing else."""
    told = [said for n, item in enumerate(TURN) for said in events_of(item, n)]
    unknown = event("hologram.delta", output_index=0, delta={"z": place})
    at = place * len(told) // 12
    server.script(reply(*told[:at], unknown, *told[at:], output=TURN), streamed(message("x", "x")))
    stream = asked()
    others = [said for said in stream.events() if isinstance(said, Other)]
    assert others == [Other("response.hologram.delta", unknown)]
    asked([stream.complete(), *(ToolResult(ToolCall(f"call_{n}", "weather"), "Sun") for n in (1, 2))]).complete()
    assert server.requests[1].json["input"][: len(TURN)] == TURN


def test_an_unknown_key_of_any_event(server: LLMServer, asked: Any) -> None:
    """It is an event, also beside common pieces of text."""
    told = [said for n, item in enumerate(TURN) for said in events_of(item, n)]
    for number in range(len(told)):
        marked = [{**said, **MARK} if place == number else said for place, said in enumerate(told)]
        server.script(reply(*marked, output=TURN))
        others = [said for said in asked().events() if isinstance(said, Other)]
        assert others == [Other("hologram", MARK)], told[number]


def test_events_whose_kind_only_their_names_say(server: LLMServer, asked: Any) -> None:
    """They are decoded."""
    told = [said for n, item in enumerate(TURN) for said in events_of(item, n)]
    told.append(event("completed", response={"status": "completed", "output": TURN}))
    body = [f"event: {said.pop('type')}\ndata: {json.dumps(said)}\n\n" for said in told]
    server.script(Reply(body="".join(body)))
    answer = asked().complete()
    assert (answer.text, len(answer.tool_calls), answer.finish_reason) == ("Let me look.", 2, "tool_calls")


def test_an_unknown_annotation(server: LLMServer, asked: Any) -> None:
    """It is one event, and is sent back with its message."""
    item = message("msg_1", "Hi", annotations=[UNKNOWN, UNKNOWN])
    server.script(streamed(item), streamed(message("x", "x")))
    stream = asked()
    assert Other("hologram", UNKNOWN) in list(stream.events())
    asked([stream.complete()]).complete()
    assert server.requests[1].json["input"] == [item]


def test_what_came_before_an_error_can_be_gone_on_from(server: LLMServer, asked: Any) -> None:
    """With thoughts, tools and calls as items."""
    told = [said for n, item in enumerate([*TURN[:3], SEARCH]) for said in events_of(item, n)]
    failed = event("failed", response={"error": {"code": "invalid", "message": "boom"}})
    server.script(Reply(body="".join(f"data: {json.dumps(said)}\n\n" for said in [*told, failed])))
    server.script(streamed(message("x", "x")))
    with pytest.raises(LLMBridgeError) as caught:
        asked(retries=0).complete()
    partial = caught.value.partial
    assert (partial, partial.reasoning, len(partial.tool_calls)) == ("Let me look.", "Hm, Oslo.", 1)
    asked([partial.message, ToolResult(partial.tool_calls[0], "Sun")]).complete()
    assert server.requests[1].json["input"][:-1] == [*TURN[:3], SEARCH]


def test_the_events_of_a_turn(server: LLMServer, asked: Any, mode: Mode) -> None:
    """Each thing in its place, once, in all kinds of loops."""
    server.script(streamed(*TURN))
    kinds = (Text, Reasoning, ToolCall, Media, Finish)
    told = [said for said in mode.read(asked().events()).pieces if isinstance(said, kinds)]
    order = [type(said).__name__ for said in told]
    assert [name for place, name in enumerate(order) if order[place - 1 : place] != [name]] == [
        "Reasoning", "Text", "ToolCall", "Reasoning", "ToolCall", "Finish"
    ]  # fmt: skip

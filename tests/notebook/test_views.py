"""llmbridge's objects as notebooks show them: short text, Markdown, and never HTML of a model's words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from canary import KEY

import llmbridge
from llmbridge import (
    AllFailed,
    Citation,
    Client,
    Embeddings,
    LLMBridgeError,
    Media,
    Message,
    Partial,
    RateLimited,
    Reasoning,
    ServerTool,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbridge.testing import LLMServer, Reply

LONG = "a <b>long</b> story costs $5 " * 200
CALL = ToolCall("c1", "add", {"a": 1, "b": LONG})
PNG = Media("image", "image/png", b"\x89PNG\r\n\x1a\n...")


def bundle_of(value: Any) -> dict[str, Any]:
    """What a notebook gets of a value; checks what holds for all of them."""
    bundle: dict[str, Any] = value._repr_mimebundle_(include=None, exclude=None)
    assert bundle.keys() == {"text/plain", "text/markdown"}
    json.dumps(bundle)
    plain = bundle["text/plain"]
    assert plain == repr(value)
    assert "\n" not in plain
    assert len(plain) < 500
    assert KEY not in str(bundle)
    return bundle


VALUES = [
    Message("user", LONG),
    Message("assistant", [Reasoning(LONG), LONG, CALL]),
    Usage(10, 20, reasoning_tokens=5, raw={"x": LONG}),
    CALL,
    ToolResult(CALL, LONG),
    Embeddings([[0.5] * 300] * 300, Usage(3, 0), "m", "demo"),
    Partial(LONG),
    PNG,
    RateLimited(f"no {LONG}"),
    AllFailed("none answered", errors=[LLMBridgeError("one"), LLMBridgeError("two")]),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_an_object_shows_itself(value: Any) -> None:
    """As Markdown, in which what a model wrote is shown and not run."""
    shown = bundle_of(value)["text/markdown"]
    assert shown
    outside = "".join(shown.split("```")[::2])
    assert "<b>" not in outside
    assert "$5" not in outside


@pytest.mark.parametrize("kind", [Text, Reasoning, llmbridge.Refusal, llmbridge.RawEvent])
def test_events_have_a_short_repr(kind: Any) -> None:
    """One line, cut."""
    assert repr(kind(LONG)).count("a <b>") == 2
    others = [
        ServerTool("s", "search", {"q": LONG}, LONG),
        llmbridge.Finish("stop", LONG),
        llmbridge.Tool("add", LONG, {"type": "object", "description": LONG}),
        llmbridge.Choice(0, LONG),
        llmbridge.Other("kind", {"x": LONG}),
        Citation("https://example.com", quote=LONG),
    ]
    assert [len(repr(one)) for one in others if len(repr(one)) > 320] == []


def test_an_answer_and_its_stream(server: LLMServer, client: Client) -> None:
    """Reasoning is folded, a picture is one, sources are links, and a grey line says what it took."""
    server.default = Reply(
        ["It <b>costs</b> ", "$5."], reasoning="Hm.", usage={"prompt_tokens": 3, "completion_tokens": 4}
    )
    stream = client.chat("x")
    assert bundle_of(stream)["text/markdown"] == '<small style="color: gray">openai:m · not started</small>'
    answer = stream.complete()
    shown = bundle_of(answer)["text/markdown"]
    assert shown.startswith(
        "<details><summary>Reasoning, 3 characters</summary>\n\nHm.\n\n</details>\n\nIt &lt;b>costs"
    )
    assert "openai:m · 7 tokens · " in shown
    assert shown.endswith(" · stop</small>")
    assert bundle_of(stream)["text/markdown"].startswith(shown.partition("<small")[0])
    assert repr(answer).startswith("Completion(text=")


def test_what_comes_beside_the_text(client: Client) -> None:
    """Pictures, sources, and the service's own tools."""
    answer = llmbridge.Completion(
        "See",
        message=Message("assistant", ["See", PNG]),
        citations=(Citation("https://example.com/a", title="A *source*"), Citation("javascript:x", quote=LONG)),
        server_tools=(ServerTool("s", "web_search", {"query": "bridges"}),),
    )
    shown = bundle_of(answer)["text/markdown"]
    assert "![image](data:image/png;base64," in shown
    assert "1. [A \\*source\\*](https://example.com/a)\n2. javascript:x `javascript:x`: a &lt;b>long" in shown
    assert "web_search(query='bridges')" in shown


def test_a_picture_of_another_kind_is_only_named() -> None:
    """An SVG may hold a program, and a plain http address is nobody's secret."""
    for picture in (Media("image", "image/svg+xml", b"<svg/>"), Media("image", url="http://example.com/a.png")):
        assert "![" not in bundle_of(picture)["text/markdown"]


def test_json_is_shown_as_code(server: LLMServer, client: Client) -> None:
    """The text of an answer that fits a schema."""
    server.default = Reply('{"a": "<b>"}')
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    shown = bundle_of(client.chat("x", schema=schema).complete())["text/markdown"]
    assert shown.startswith('```json\n{"a": "<b>"}\n```\n\n')


def test_a_conversation(server: LLMServer, client: Client) -> None:
    """Questions are quotes; calls and results are code, in their place."""

    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    server.script(Reply(tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}]), Reply("It is 3."))
    talk = client.conversation(tools=[add], run_tools=True)
    talk.ask("What is\n1 + 2?").complete()
    shown = bundle_of(talk)["text/markdown"]
    assert shown.startswith(
        "> What is\n> 1 + 2?\n\n```python\nadd(a=1, b=2)\n```\n\n```text\n3\n```\n\nIt is 3.\n\n<small"
    )
    assert "1 question · " in shown


def test_an_error_has_what_came(server: LLMServer, client: Client) -> None:
    """Its class, its message, the text so far."""
    server.default = Reply("Hello, there", finish_reason=None, end_mark=False)
    with pytest.raises(LLMBridgeError) as caught:
        client.chat("x").complete()
    shown = bundle_of(caught.value)["text/markdown"]
    assert shown.startswith("**StreamTruncated**: ")
    assert shown.endswith("\n\nHello, there")


def test_without_a_notebook_an_answer_is_printed(
    server: LLMServer, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `show()`, piece by piece."""
    server.default = Reply(["Hel", "lo"])
    stream = client.chat("x")
    assert stream.show().text == "Hello"
    assert capsys.readouterr().out == "Hello\n"
    assert stream.show() is not None
    assert capsys.readouterr().out == "Hello\n"
    begun = client.chat("x")
    assert next(begun) == "Hel"
    assert begun.show().text == "Hello"
    assert capsys.readouterr().out == "lo\n"


def test_partial_is_what_came_so_far(server: LLMServer, client: Client) -> None:
    """At first nothing, then what the loop was given."""
    server.default = Reply(["Hel", "lo"])
    stream = client.chat("x")
    assert stream.partial == ""
    text = ""
    for piece in stream:
        text += piece
        assert stream.partial == text
    assert text == "Hello"
    assert stream.partial.message == stream.complete().message

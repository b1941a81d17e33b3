"""`llmbridge chat` with images, a schema and reasoning, and `llmbridge embed`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_command import one_line

from llmbridge.cli import main
from llmbridge.testing import LLMServer, Received, Reply

PNG = b"\x89PNG\r\n\x1a\n and so on"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


@pytest.fixture(autouse=True)
def _own_key(_no_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets a key."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-cli-secret")


def to(server: LLMServer) -> list[str]:
    """The options that lead to the server."""
    return ["-m", "openai:m", "--base-url", server.base_url("openai")]


def terminal(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes the captured streams look like terminals."""
    for name in names:
        monkeypatch.setattr(getattr(sys, name), "isatty", lambda: True, raising=False)


# -- images -----------------------------------------------------------------------------------------------------------


def test_images_go_beside_the_prompt(server: LLMServer, tmp_path: Path) -> None:
    """Files are sent as data, addresses unchanged, in order."""
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    words = ["--image", str(path), "--image", "https://example.com/dog.png"]
    assert main(["chat", *to(server), *words, "What", "is this?"]) == 0
    text, first, second = server.requests[0].json["messages"][-1]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert first["image_url"]["url"].startswith("data:image/png;base64,")
    assert second["image_url"]["url"] == "https://example.com/dog.png"


def test_an_image_that_cannot_be_read_is_code_2(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names it, and nothing is sent."""
    assert main(["chat", *to(server), "--image", str(tmp_path / "nothing.png"), "Hi"]) == 2
    assert "nothing.png" in one_line(capsys.readouterr().err)
    assert not server.requests


# -- incomplete answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply("A bridge is", finish_reason="length"), "cut off at the token limit"),
        (Reply("A bridge is", finish_reason="content_filter"), "content policy"),
        (Reply(""), "the answer is empty (finish_reason: stop)"),
    ],
)
def test_an_answer_that_is_cut_off_or_empty_is_reported(
    server: LLMServer, reply: Reply, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line on standard error says so, as the text does not show it; JSON has the reason."""
    server.default = reply
    assert main(["chat", *to(server), "Hi"]) == 0
    out, err = capsys.readouterr()
    assert out == (f"{reply.content}\n" if reply.content else "")
    assert told in one_line(err)
    assert main(["chat", *to(server), "--json", "Hi"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["finish_reason"], err) == (reply.finish_reason, "")


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ({"finish_reason": "error", "delta": {}}, "'error'"),
        ({"finish_reason": "abort", "delta": {}}, "'abort'"),
        ({"finish_reason": None, "delta": {}, "error": {"code": 502, "message": "boom"}}, "boom"),
    ],
)
def test_an_answer_that_ends_with_a_failure_is_code_1(
    server: LLMServer, last: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text so far stays, and a line reports the failure."""
    choices = [{"delta": {"content": "A bridge"}}, last]
    server.script(Reply(body="".join(f"data: {json.dumps({'choices': [each]})}\n\n" for each in choices).encode()))
    assert main(["chat", *to(server), "Hi"]) == 1
    out, err = capsys.readouterr()
    assert out == "A bridge\n"
    assert told in one_line(err)


# -- schema -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def schema(tmp_path: Path) -> str:
    """A file with a JSON schema."""
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA), encoding="utf-8")
    return str(path)


def test_an_answer_that_fits_is_printed_as_json(
    server: LLMServer, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The schema is sent; the value is checked and printed on one line."""
    server.script(Reply(['{"name": "Zoë",', '\n "age": 5}']))
    assert main(["chat", *to(server), "--schema", schema, "Who?"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"name": "Zoë", "age": 5}
    assert out.count("\n") == 1
    assert err == ""
    assert server.requests[0].json["response_format"]["json_schema"]["schema"]["properties"] == SCHEMA["properties"]


def test_with_json_the_value_is_beside_the_text(
    server: LLMServer, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json has both, and the reasoning if requested."""
    server.script(Reply('{"name": "Ada", "age": 5}', reasoning="thinking"))
    assert main(["chat", *to(server), "--schema", schema, "--json", "--reasoning", "Who?"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["parsed"] == {"name": "Ada", "age": 5}
    assert answer["text"] == '{"name": "Ada", "age": 5}'
    assert answer["reasoning"] == "thinking"


def test_an_answer_that_does_not_fit_is_code_1(
    server: LLMServer, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed to standard output; with --json the error lists the problems."""
    server.default = Reply('{"name": "Ada"}')
    assert main(["chat", *to(server), "--schema", schema, "Who?"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "age" in one_line(err)
    assert main(["chat", *to(server), "--schema", schema, "--json", "Who?"]) == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["type"] == "InvalidOutput"
    assert error["problems"]
    assert error["partial"] == '{"name": "Ada"}'


@pytest.mark.parametrize("content", [None, "{", "[1]", b"\xff\xfe", "[" * 100_000])
def test_a_file_that_is_not_a_schema_is_code_2(
    server: LLMServer, tmp_path: Path, content: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file, no JSON, or no object: nothing is sent."""
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["chat", *to(server), "--schema", str(path), "Who?"]) == 2
    assert "--schema" in one_line(capsys.readouterr().err)
    assert not server.requests


# -- reasoning --------------------------------------------------------------------------------------------------------


def test_reasoning_goes_to_standard_error(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the answer goes to standard output; an open line of reasoning is ended first."""
    server.script(Reply(["The ", "answer"], reasoning=["First this,\n", "then that"]))
    assert main(["chat", *to(server), "--reasoning", "Hi"]) == 0
    assert capsys.readouterr() == ("The answer\n", "First this,\nthen that\n")


def test_without_the_option_reasoning_is_not_shown(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """As always."""
    server.script(Reply("answer", reasoning="thinking"))
    assert main(["chat", *to(server), "Hi"]) == 0
    assert capsys.readouterr() == ("answer\n", "")


def test_a_terminal_shows_reasoning_dimmed_and_obeys_none_of_it(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is between two codes, with the service's own escape sequences shown as pictures."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    server.default = Reply("answer", reasoning="think\x1b[31mred")
    terminal(monkeypatch, "stderr")
    assert main(["chat", *to(server), "--reasoning", "Hi"]) == 0
    assert capsys.readouterr() == ("answer\n", "\x1b[2mthink␛[31mred\x1b[0m\n")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal(monkeypatch, "stderr")
    assert main(["chat", *to(server), "--reasoning", "Hi"]) == 0
    assert capsys.readouterr().err == "think␛[31mred\n"


def test_a_cut_answer_leaves_no_terminal_dimmed(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error starts on a new line, at normal brightness."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal(monkeypatch, "stderr")
    server.script(Reply("", reasoning="I think", error="broken"))
    assert main(["chat", *to(server), "--reasoning", "Hi"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("\x1b[2mI think\x1b[0m\nllmbridge: ")
    assert err.count("\n") == 2


def test_a_half_answer_beside_reasoning_stays(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The text before the error stays, on a line of its own."""
    server.script(Reply(["Half an ", "ans"], reasoning="thinking", error="broken"))
    assert main(["chat", *to(server), "--reasoning", "Hi"]) == 1
    out, err = capsys.readouterr()
    assert out == "Half an ans\n"
    assert err.startswith("thinking\nllmbridge: ")


def test_a_schema_and_reasoning_go_together(server: LLMServer, schema: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The value goes to standard output, the reasoning to standard error."""
    server.script(Reply('{"name": "Ada", "age": 5}', reasoning="thinking"))
    assert main(["chat", *to(server), "--schema", schema, "--reasoning", "Who?"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"name": "Ada", "age": 5}
    assert err == "thinking\n"


# -- embeddings -------------------------------------------------------------------------------------------------------


def embeddings(received: Received) -> Reply:
    """A vector per text: its length, and its place in the request."""
    texts: Sequence[str] = received.json["input"]
    data = [{"object": "embedding", "index": i, "embedding": [float(len(text)), i / 2]} for i, text in enumerate(texts)]
    body = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    return Reply(body=json.dumps(body), content_type="application/json")


def test_each_text_is_a_line_with_its_vector(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """In order; every argument is a text."""
    server.default = embeddings
    assert main(["embed", *to(server), "a cat", "мост"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"text": "a cat", "vector": [5.0, 0.0]},
        {"text": "мост", "vector": [4.0, 0.5]},
    ]
    assert err == ""


@pytest.mark.parametrize("words", [[], ["-"]], ids=["no argument", "dash"])
def test_texts_come_from_standard_input(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """One text per line, skipping empty ones. With --json it prints one array."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\nthree\n")))
    server.default = embeddings
    assert main(["embed", *to(server), "--json", *words]) == 0
    assert [row["text"] for row in json.loads(capsys.readouterr().out)] == ["one", "three"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["text"], "--model"),
        (["text", "-m", "nobody:m"], "nobody"),
        (["text", "-m", "openai:m", "--timeout", "0"], "positive"),
        (["text", "-m", "vitalentum:m"], "vitalentum"),
    ],
)
def test_a_wrong_command_for_embeddings_is_code_2(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what is wrong."""
    assert main(["embed", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert hint in one_line(err)


def test_a_service_that_refuses_embeddings_is_code_1(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The line quotes its message."""
    server.script(Reply(status=404, body='{"error": {"message": "no such model"}}'))
    assert main(["embed", *to(server), "text"]) == 1
    assert "no such model" in one_line(capsys.readouterr().err)

"""Answers that show themselves while they come: what a frontend gets from a real kernel."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("ipykernel")

from kernels import Kernel

from llmbridge.testing import LLMServer, Reply

WAYS = {
    "the last line": "chat('x')",
    "show": "answer = chat('x').show()",
    "show, as the last line": "chat('x').show()",
    "show_async": "answer = await chat('x').show_async()",
    "%%chat": "%%chat -m openai:m -o base_url={url!r} -o api_key='k-0123456789'\nx",
}


@pytest.fixture
def chat(kernel: Kernel, server: LLMServer) -> str:
    """The kernel's `chat(question)` asks the server, at this address."""
    url = server.base_url("openai")
    setup = f"client = Client('openai:m', base_url={url!r}, api_key='k-0123456789', retries=0)\nchat = client.chat"
    assert kernel.run(f"{setup}\n%load_ext llmbridge\n%chat_new").status == "ok"
    return url


@pytest.mark.parametrize("way", WAYS)
def test_a_long_answer_is_shown_in_few_messages(kernel: Kernel, server: LLMServer, chat: str, way: str) -> None:
    """2,000 pieces: one display, at most 60 messages and 0.4 MB, and its final text once."""
    server.default = Reply([f"word{number} " for number in range(2000)], delay=0.001)
    cell = kernel.run(WAYS[way].format(url=chat))
    assert cell.status == "ok"
    assert cell.kinds <= {"display_data", "update_display_data"}
    assert cell.types == {"text/plain", "text/markdown"}
    assert len(cell.messages) <= 60
    assert cell.size <= 400_000
    (shown,) = cell.shown
    assert shown.count("word1999") == 1
    assert re.search(r"openai:m · [\d,]+ tokens · \d+\.\d s · stop</small>$", shown)
    assert len(cell.of("display_data")) == 1


def test_the_answer_grows_on_the_screen(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """Each painting shows what had come, reasoning unfolded as long as there is nothing else."""
    server.default = Reply(["one ", "two ", "three"], reasoning=["Hm, ", "well."], delay=0.4)
    cell = kernel.run("chat('x').show()")
    texts = [content["data"]["text/markdown"] for content in cell.of("display_data", "update_display_data")]
    assert "waiting" in texts[0]
    assert any("<details open>" in text and "Hm" in text and "one" not in text for text in texts)
    assert any("one" in text and "three" not in text for text in texts)
    assert "one two three" in texts[-1]
    assert "<details><summary>" in texts[-1]


def test_the_last_piece_is_shown_though_nothing_follows(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """Two pieces come at once, and the model falls silent: the second one is on the screen before it goes on."""
    server.default = Reply(["one ", "two ", "three"], per_chunk=3, delay=2)
    cell = kernel.run("chat('x').show()")
    texts = [content["data"]["text/markdown"] for content in cell.of("update_display_data")]
    assert any("one two" in text and " s …" in text for text in texts)


def test_calls_of_tools_are_shown_as_they_happen(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """The call is on the screen while the function runs."""
    server.script(Reply(tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}]), Reply("It is 3."))
    cell = kernel.run(
        "import time\ndef add(a: int, b: int) -> int:\n    'Adds.'\n    time.sleep(1)\n    return a + b\n"
        "chat('x', tools=[add], run_tools=True).show()"
    )
    texts = [content["data"]["text/markdown"] for content in cell.of("update_display_data")]
    assert any("add(a=1, b=2)" in text and "```text" not in text for text in texts)
    assert "```python\nadd(a=1, b=2)\n```\n\n```text\n3\n```\n\nIt is 3." in texts[-1]


def test_pictures_are_sent_once(kernel: Kernel) -> None:
    """Each painting would send them again: while the answer comes, there is a mention in their place."""
    picture = "{'inlineData': {'mimeType': 'image/png', 'data': 'iVBORw0KGgo' + 'A' * 4001}}"
    cell = kernel.run(
        "from llmbridge.testing import LLMServer, Reply\n"
        f"server = LLMServer(Reply(parts=[{picture}, ['here ', 'it ', 'is']], delay=0.3))\n"
        "drawn = Client('gemini:m', base_url=server.base_url('gemini'), api_key='k-0123456789').chat('x').show()\n"
        "server.close()"
    )
    texts = [content["data"]["text/markdown"] for content in cell.of("display_data", "update_display_data")]
    assert "![image](data:image/png;base64," in texts[-1]
    assert not any("base64" in text for text in texts[:-1])
    assert any("image, 3 kB" in text for text in texts[:-1])


def test_several_answers_side_by_side(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """Each has a display of its own, in one cell."""
    server.default = Reply(["Hel", "lo"], delay=0.3)
    cell = kernel.run("answers = await asyncio.gather(*(chat('x').show_async() for _ in range(3)))")
    assert cell.status == "ok"
    assert [shown.startswith("Hello") for shown in cell.shown] == [True] * 3
    assert len(cell.of("display_data")) == 3


def test_assigning_a_stream_sends_nothing(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """And showing it twice shows the same answer."""
    assert kernel.run("stream = chat('x')").kinds == set()
    assert server.requests == []
    server.default = Reply("Hello")
    assert kernel.run("stream").shown[0].startswith("Hello")
    assert kernel.run("stream").shown[0].startswith("Hello")
    assert len(server.requests) == 1


def test_an_open_stream_is_shown_as_far_as_it_came(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """A reader elsewhere goes on."""
    server.default = Reply(["Hel", "lo"])
    assert kernel.run("stream = chat('x')\npieces = iter(stream)\nprint(next(pieces))").printed == "Hel\n"
    (shown,) = kernel.run("stream").shown
    assert shown.startswith("Hel\n")
    assert "open" in shown
    assert kernel.value("next(pieces)") == "lo"


def test_an_answer_is_shown_again_where_it_is_asked_for(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """What `show()` returns is not shown twice by its own cell, but by every other."""
    server.default = Reply("Hello")
    assert len(kernel.run("(answer := chat('x').show())").shown) == 1
    assert len(kernel.run("answer").shown) == 1
    assert len(kernel.run("display(chat('x').show(), answer)").shown) == 2


def test_an_error_is_a_few_lines(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """The reader's own line, the message, the text so far; %tb shows the rest."""
    server.default = Reply("Hello, there", finish_reason=None, end_mark=False)
    cell = kernel.run("def ask():\n    return chat('x').complete()\n\nask()")
    lines = cell.traceback.splitlines()
    assert lines[0].endswith("line 4: ask()")
    assert lines[1].endswith("line 2: return chat('x').complete()")
    assert lines[2].startswith("StreamTruncated: ")
    assert lines[3:] == ["the text so far (12 characters):", "Hello, there", "(%tb shows the whole traceback)"]
    whole = kernel.run("%tb")
    assert len(whole.traceback.splitlines()) > 20
    assert "StreamTruncated" in whole.traceback


def test_what_is_on_the_screen_is_not_told_again(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """An answer that has shown itself stays, and the error below it is short."""
    server.default = Reply("Hello, there", finish_reason=None, end_mark=False)
    for code in ("chat('x').show()", "chat('x')"):
        cell = kernel.run(code)
        (shown,) = cell.shown
        assert shown.startswith("Hello, there\n\n")
        assert "broken off after" in shown
        assert "StreamTruncated" in cell.traceback
        assert "Hello" not in cell.traceback


def test_marimo_may_be_imported_in_a_kernel(kernel: Kernel, server: LLMServer, chat: str) -> None:
    """Where it is installed; the answer belongs into the cell."""
    server.default = Reply(["Hel", "lo"], delay=0.3)
    assert kernel.run("try:\n    import marimo\nexcept ImportError:\n    pass").status == "ok"
    (shown,) = kernel.run("chat('x').show()").shown
    assert shown.startswith("Hello")


def test_an_error_in_a_chain_of_others(kernel: Kernel) -> None:
    """One of llmbridge's below one of the reader's: IPython shows it in its own way."""
    code = (
        "try:\n    Client('nope:x').chat('x')\nexcept LLMBridgeError as error:\n    raise ValueError('mine') from error"
    )
    cell = kernel.run(code)
    assert "mine" in cell.traceback
    assert "UnknownProvider" in cell.traceback


def test_many_rows_show_their_progress_in_one_line(kernel: Kernel) -> None:
    """It is repainted in its place; the totals are a table."""
    cell = kernel.run(
        "rows = Client('demo').map([f'Question {n}' for n in range(40)], concurrency=4, progress=True)\n"
        "for row in rows: pass\n"
        "rows.totals"
    )
    assert cell.status == "ok"
    assert cell.kinds <= {"display_data", "update_display_data", "execute_result"}
    lines = cell.of("display_data", "update_display_data")
    assert len({content["transient"]["display_id"] for content in lines}) == 1
    assert lines[-1]["data"]["text/plain"].startswith("40 done, ")
    (table,) = cell.of("execute_result")
    assert "| answered | 40 |" in table["data"]["text/markdown"]

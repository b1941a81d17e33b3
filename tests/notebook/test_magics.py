"""`%%chat`, `%chat` and `%chat_new` in a real kernel."""

from __future__ import annotations

import pytest

pytest.importorskip("ipykernel")

from kernels import Kernel

from llmbridge.testing import LLMServer, Reply


@pytest.fixture
def line(kernel: Kernel, server: LLMServer) -> str:
    """Options that lead to the server."""
    assert (
        kernel.run(
            "%load_ext llmbridge\n%chat_new talk\nfor name in ('talk', 'other'): globals().pop(name, None)"
        ).status
        == "ok"
    )
    server.default = Reply("Hello")
    return f"-m openai:m -o base_url={server.base_url('openai')!r} -o api_key='k-0123456789'"


def asked(server: LLMServer) -> list[list[str]]:
    """What each request said."""
    return [[turn.text for turn in received.turns] for received in server.requests]


def test_cells_go_on_with_the_conversation_that_was_named_last(kernel: Kernel, server: LLMServer, line: str) -> None:
    """`talk` at first; each name is a Conversation."""
    kernel.run(f"%%chat {line}\nOne\ntwo")
    kernel.run(f"%%chat {line} --into other\nThree")
    kernel.run(f"%%chat {line}\nFour")
    assert asked(server) == [["One\ntwo"], ["Three"], ["Three", "Hello", "Four"]]
    assert kernel.value("talk, other") == "<Conversation openai:m, 1 question> <Conversation openai:m, 2 questions>"


def test_a_line_is_a_question_as_well(kernel: Kernel, server: LLMServer, line: str) -> None:
    """Also one that ends as IPython's own questions do; the answer is kept."""
    cell = kernel.run(f'answer = %chat {line} Isn\'t "this" one?')
    assert cell.shown[0].startswith("Hello")
    assert asked(server) == [['Isn\'t "this" one?']]
    assert kernel.value("answer.text") == "Hello"
    assert len(kernel.run(f"%chat {line} Again?").shown) == 1
    assert kernel.value("_.text") == "Hello"
    assert "Asks a model" in kernel.value("get_ipython().find_line_magic('chat').__doc__")


def test_chat_new_begins_anew(kernel: Kernel, server: LLMServer, line: str) -> None:
    """With the model and the system message that the conversation had."""
    kernel.run(f"%%chat {line} --system 'Be brief.'\nOne")
    kernel.run("%chat_new")
    kernel.run(f"%%chat {line}\nTwo")
    assert asked(server) == [["Be brief.", "One"], ["Be brief.", "Two"]]
    kernel.run(f"%chat_new other\n%chat {line} Three")
    assert kernel.value("other") == "<Conversation openai:m, 1 question>"


def test_names_are_filled_in_only_when_asked_for(kernel: Kernel, server: LLMServer, line: str) -> None:
    """`{name}` and `$name` are what they are without --fill."""
    kernel.run("name = 'a bridge'")
    kernel.run(f"%chat {line} A {{name}} for $name")
    kernel.run(f"%chat {line} --fill A {{name}} for $name and {{1}}")
    kernel.run(f"%%chat {line} --fill\nAbout {{name}}")
    assert [said[-1] for said in asked(server)] == [
        "A {name} for $name",
        "A a bridge for $name and {1}",
        "About a bridge",
    ]
    assert "{nobody} is not a variable" in kernel.run(f"%chat {line} --fill {{nobody}}").traceback


def test_schema_tools_options_and_images(kernel: Kernel, server: LLMServer, line: str) -> None:
    """By the names that they have in the notebook."""
    kernel.run(
        "from dataclasses import dataclass\n@dataclass\nclass Bridge:\n    name: str\n"
        "def add(a: int, b: int) -> int:\n    'Adds.'\n    return a + b\n"
        "picture = b'\\x89PNG\\r\\n\\x1a\\n...'"
    )
    server.default = Reply('{"name": "Tower"}')
    kernel.run(f"%%chat {line} --schema Bridge -o temperature=0.5\nDescribe it")
    assert kernel.value("_.parsed") == "Bridge(name='Tower')"
    assert server.requests[0].json["temperature"] == 0.5
    server.script(Reply(tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}]), Reply("It is 3."))
    assert "add(a=1, b=2)" in kernel.run(f"%%chat {line} --tools add --into other\n1 + 2?").shown[0]
    kernel.run(f"%%chat {line} --image picture\nWhat is this?")
    assert server.requests[-1].json["messages"][-1]["content"][1]["type"] == "image_url"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%chat --modle demo Hi", "no option '--modle'"),
        ("%chat -m", "-m needs a value"),
        ("%chat -m demo -o temperature Hi", "-o takes NAME=VALUE"),
        ("%chat -m demo --into a-b Hi", "--into takes the name of a variable"),
        ("%chat -m demo --into Client Hi", "Client is a "),
        ("%chat -m demo --schema Nothing Hi", "--schema Nothing: there is no such variable"),
        ("%%chat -m demo What is this\nbody", "the question is below the first line"),
        ("%chat -m demo", "empty"),
        ("%chat_new a-b", "%chat_new takes the name of a variable"),
        ("%chat -m nope:x Hi", "'nope'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(kernel: Kernel, line: str, cell: str, message: str) -> None:
    """In a few lines."""
    made = kernel.run(cell)
    assert made.status == "error"
    assert message in made.traceback
    assert len(made.traceback.splitlines()) < 6
    assert kernel.value("'talk' in globals()") == "False"


TAB = {
    "%%chat -m anthr": {"anthropic:"},
    "%%chat -m ": {"demo", "openai:"},
    "%chat --model openai-": {"openai-compatible:", "openai-responses:"},
    "%%chat --s": {"--schema", "--system"},
    "%%chat -": {"-m", "-o", "--into", "--image"},
    "%%chat -o temp": {"temperature="},
    "%%chat --into kep": {"kept"},
    "%chat_new kep": {"kept"},
    "%%chat --schema Bri": {"Bridge"},
    "%%chat --tools cou": {"count"},
}


@pytest.mark.parametrize("typed", TAB)
def test_tab_completes_models_options_and_names(kernel: Kernel, line: str, typed: str) -> None:
    """And offers nothing else there."""
    if kernel.value("hasattr(sys.modules['IPython.core.completer'], 'CompletionContext')") == "False":
        pytest.skip("IPython before 8.6 asks nobody")
    kernel.run("kept = conversation(model='demo')\nclass Bridge: pass\ndef count(): pass\nkepp = 1")
    offered = kernel.complete(typed)
    assert TAB[typed] <= set(offered)
    last = typed.split(" ")[-1]
    assert all(name.startswith(last) for name in offered)


def test_tab_elsewhere_is_as_before(kernel: Kernel, line: str) -> None:
    """A cell of Python, and the question itself."""
    assert "print" in kernel.complete("prin")
    assert "--into" not in kernel.complete("x = -")


def test_a_magic_that_fails_does_not_repeat_its_line(kernel: Kernel, line: str) -> None:
    """There may be a key in it."""
    failed = kernel.run("%chat -m nope:x -o api_key='k-0123456789' Hi")
    assert "nope" in failed.traceback
    assert "k-0123456789" not in failed.traceback

"""The stop button: in a real kernel, in every form in which a cell may wait for a model."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("ipykernel")

from kernels import Cell, Kernel
from modes import Mode

from llmbridge._call.reading import Reading
from llmbridge.testing import LLMServer, Reply

FORMS = {
    "for": "for piece in (stream := client.chat('x')): print(piece, end='')",
    "complete": "(stream := client.chat('x')).complete()",
    "await": "await (stream := client.chat('x'))",
    "async for": "async for piece in (stream := client.chat('x')): print(piece, end='')",
    "show": "(stream := client.chat('x')).show()",
    "show_async": "await (stream := client.chat('x')).show_async()",
    "the last line": "stream = client.chat('x'); stream",
    "%%chat": "%%chat -o base_url={url!r} -o api_key='k-0123456789' -m openai:m --into talk\nHi",
    "gather": "await asyncio.gather(*(client.chat('x') for _ in range(8)))",
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: list(pool.map(lambda n: client.chat(str(n)).complete(), range(40)))"
    ),
    "futures": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    futures = [pool.submit(client.chat(str(n)).complete) for n in range(40)]\n"
        "    [future.result() for future in futures]"
    ),
    "map": "for row in client.map(map(str, range(1000)), concurrency=4): pass",
    "async map": "async for row in client.map(map(str, range(1000)), concurrency=4): pass",
    "awaited map": "await client.map(map(str, range(1000)), concurrency=4)",
    "threads of the loop": "await asyncio.gather(*(asyncio.to_thread(client.chat('x').complete) for _ in range(4)))",
}
ALONE = ("for", "complete", "await", "async for", "show", "show_async", "the last line")
REPLIES = {
    "silent": Reply("never", header_delay=600),
    "stalled": Reply(["one ", "two ", *["three "] * 5000], delay=0.01, stall=2000),
}


@pytest.fixture
def connected(kernel: Kernel, server: LLMServer) -> LLMServer:
    """The kernel's `client` asks the server."""
    url = server.base_url("openai")
    setup = f"client = Client('openai:m', base_url={url!r}, api_key='k-0123456789', retries=0)"
    made = kernel.run(f"{setup}\n%load_ext llmbridge")
    assert made.status == "ok"
    return server


def moment(server: LLMServer) -> Callable[[Cell], bool]:
    """A random one, soon after the first request has come."""
    delay, begun = random.uniform(0.0, 0.6), 0.0

    def come(cell: Cell) -> bool:
        nonlocal begun
        if server.requests and not begun:
            begun = time.monotonic()
        return bool(begun) and time.monotonic() - begun > delay

    return come


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reply", REPLIES)
def test_p45_the_stop_button_ends_the_cell_and_its_calls(
    kernel: Kernel, connected: LLMServer, form: str, reply: str
) -> None:
    """Long before the answer would have come; the service sees every call gone, and the next cell runs."""
    connected.default = REPLIES[reply]
    cell = kernel.run(FORMS[form].format(url=connected.base_url("openai")), interrupt_when=moment(connected))
    assert cell.idle_seconds is not None
    assert cell.status == "error"
    assert {content["ename"] for content in cell.of("error")} <= {"KeyboardInterrupt", "CancelledError", "Cancelled"}
    assert len(cell.traceback.splitlines()) <= 12
    assert all(received.gone.wait(30) for received in connected.requests)
    asked = len(connected.requests)
    connected.default = Reply("fine")
    assert kernel.value("client.chat('x').complete()") == "fine"
    assert len(connected.requests) == asked + 1  # and what was queued behind them was never sent


@pytest.mark.parametrize("form", ALONE)
def test_p45_the_text_that_came_is_kept(kernel: Kernel, connected: LLMServer, form: str) -> None:
    """In `stream.text` and `stream.partial`, and in the cell."""
    connected.default = Reply(["one ", "two ", *["three "] * 5000], delay=0.01, stall=2000)
    kernel.run("stream = None")

    def some_came(cell: Cell) -> bool:
        return bool(connected.requests) and moment_has_come(cell)

    moment_has_come = moment(connected)
    cell = kernel.run(FORMS[form], interrupt_when=some_came)
    assert cell.status == "error"
    text = kernel.value("stream.text")
    assert kernel.value("stream.partial") == text
    assert text.startswith("one") or not text
    if text:
        assert "one" in "".join(cell.shown) + cell.traceback + cell.printed


def test_p45_a_conversation_goes_on_after_an_interrupt(kernel: Kernel, connected: LLMServer) -> None:
    """The name that `--into` gave holds what had come."""
    connected.default = Reply(["one ", "two ", *["three "] * 5000], delay=0.01, stall=2000)
    line = f"%%chat -o base_url={connected.base_url('openai')!r} -o api_key='k-0123456789'"
    question = f"{line} -m openai:m --into going\nHi"
    stopped = kernel.run(question, lambda cell: any("one" in shown for shown in cell.shown))
    assert stopped.status == "error"
    assert kernel.value("going.broken, going.messages[-1].text.startswith('one')") == "True True"
    connected.default = Reply("fine")
    assert "fine" in kernel.run(f"{line}\nGo on.").shown[0]
    assert kernel.value("[message.role for message in going.messages]") == "['user', 'assistant', 'user', 'assistant']"


def test_p45_calls_of_earlier_cells_go_on(kernel: Kernel, connected: LLMServer) -> None:
    """The stop button is for the cell that runs."""
    connected.default = Reply(["one ", "two "], delay=0.5, first_delay=1)
    kernel.run(
        "import threading\nlater = client.chat('x')\nthread = threading.Thread(target=later.complete)\nthread.start()"
    )
    stopped = kernel.run("import time\nprint('now')\ntime.sleep(60)", lambda cell: "now" in cell.printed)
    assert stopped.status == "error"
    assert "time.sleep" in stopped.traceback
    assert "interrupts.py" not in stopped.traceback
    assert kernel.value("(thread.join(), later.text)[1]") == "one two"


def test_p45_nothing_of_it_is_left_after_a_cell(kernel: Kernel, connected: LLMServer) -> None:
    """The kernel's handler of signals and its ways to show errors are as they were, after an interrupt as well."""
    state = "get_ipython().custom_exceptions"
    connected.default = REPLIES["silent"]
    assert kernel.run("await client.chat('x')", lambda cell: bool(connected.requests)).status == "error"
    assert kernel.value(state) == "()"
    plain = kernel.run("raise KeyboardInterrupt('mine')")
    assert "mine" in plain.traceback
    assert "stopped" not in plain.traceback


def test_p45_an_interrupt_of_something_else_is_shown_as_ever(kernel: Kernel) -> None:
    """In a cell that has read no answer."""
    slept = kernel.run("import time\nprint('now')\nawait asyncio.sleep(60)", lambda cell: "now" in cell.printed)
    assert "CancelledError" in slept.traceback
    assert "stopped" not in slept.traceback


def test_p45_outside_of_a_kernel_no_handler_is_touched(
    server: LLMServer, client: Any, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process there is none."""
    monkeypatch.delitem(sys.modules, "llmbridge.notebook.interrupts", raising=False)  # another test may need it
    before = signal.getsignal(signal.SIGINT)
    server.default = Reply("Hello")
    assert mode.complete(client.chat("x")).text == "Hello"
    assert Reading.begun is None
    assert signal.getsignal(signal.SIGINT) is before
    assert "llmbridge.notebook.interrupts" not in sys.modules


def test_p45_ipykernel_alone_is_not_a_kernel() -> None:
    """A program that imports it, as a test runner may."""
    code = "import ipykernel.ipkernel\nfrom llmbridge._call.reading import Reading\nprint(Reading.begun)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "None\n", done.stderr

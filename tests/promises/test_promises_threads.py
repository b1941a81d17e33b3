"""P36 and P37: a fork during another thread's first call, and an error in the watchdog's thread."""

from __future__ import annotations

import gc
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from textwrap import indent
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import KEY
from loopback import Listener
from modes import MODES, Mode

from llmbridge import Client, ClockExpired, _locks
from llmbridge._transport import call as transport_call
from llmbridge._transport.call import Call, _Watchdog
from llmbridge.testing import LLMServer, Reply

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

_FORK = """
import importlib.abc, os, signal, sys, threading, time, warnings
import {imports}
import llmbridge
warnings.simplefilter("ignore")  # Python's own, about forks of a process with threads

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if threading.current_thread() is not threading.main_thread():
            importing.set()
            time.sleep(0.003)

url, delay = sys.argv[1], float(sys.argv[2])
options = dict(model="openai:m", base_url=url, api_key="k-0123456789", retries=0, proxy=False, timeout=20)

def first():
{first}

importing = threading.Event()
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=first)
thread.start()
importing.wait(20)
time.sleep(delay)
child = os.fork()
if not child:
    signal.alarm(25)  # nothing else ends the wait for the lock of an import
    first()
    os._exit(7)
_, status = os.waitpid(child, 0)
thread.join(20)
print(os.waitstatus_to_exitcode(status), thread.is_alive())
"""
_AWAITED = """
async def main():
    return (await llmbridge.chat("Hi", **options)).text
assert {} == "Hello"
"""
_PLAIN = 'assert llmbridge.chat("Hi", **options).complete().text == "Hello"'
_BY_MODE = {
    "sync": ("os", _PLAIN),
    "asyncio": ("asyncio", _AWAITED.format("asyncio.run(main())")),
    "trio": ("trio", _AWAITED.format("trio.run(main)")),
}


def after_fork(server: LLMServer, first: str, imports: str = "os", delay: float = 0.03) -> str:
    """The output about a child that was forked so long after another thread had begun to import."""
    server.default = Reply("Hello")
    script = _FORK.format(imports=imports, first=indent(first, "    "))
    command = [sys.executable, "-c", script, server.base_url("openai"), str(delay)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert run.stderr == ""
    return run.stdout.strip()


@forks
class TestForks:
    """A child has the modules of its parent, but not the threads that were importing them."""

    @pytest.mark.parametrize("delay", [0, 0.05, 0.2])
    @pytest.mark.quick(1)
    def test_p36_a_child_of_a_first_call_makes_its_own(self, mode: Mode, server: LLMServer, delay: float) -> None:
        """Any module may be being imported during the fork."""
        imports, first = next(_BY_MODE[name] for name, known in MODES.items() if known is mode)
        assert after_fork(server, first, imports, delay) == "7 False"

    @pytest.mark.parametrize(
        "first",
        [
            'assert llmbridge.embed(["a"], **options)',
            f"{_PLAIN.replace('options)', 'options, tools=[len_of], run_tools=True)')}",
            'assert list(llmbridge.chat("Hi", **{**options, "model": "anthropic:m", "base_url": url[:-3]}))',
            f"import llmbridge.stream\n{_PLAIN}",
            f"from llmbridge.client import Client\n{_PLAIN}",
        ],
        ids=["embeddings", "tools", "dialect", "module", "class"],
    )
    @pytest.mark.slow
    def test_p36_whatever_the_first_call_is(self, server: LLMServer, first: str) -> None:
        """It may need other modules than a chat, and the caller may import a module of llmbridge for it."""
        tool = "def len_of(text: str) -> int:\n    'Counts.'\n    return len(text)\n"
        for delay in (0, 0.03):
            assert after_fork(server, tool + first, delay=delay) == "7 False"

    @pytest.mark.parametrize("imports", ["logging", "llmbridge, logging"], ids=["before", "behind"])
    @pytest.mark.quick(1)
    def test_p36_the_lock_of_logging_is_not_waited_for(self, server: LLMServer, imports: str) -> None:
        """The fork takes this lock, and the modules being imported need it for their loggers."""
        assert after_fork(server, _PLAIN, imports) == "7 False"

    def test_p36_logging_may_be_half_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its lock exists before its fork hooks do, which release it after the fork."""
        for begun in (SimpleNamespace(), SimpleNamespace(_lock=threading.RLock())):
            monkeypatch.setitem(sys.modules, "logging", begun)  # type: ignore[arg-type]
            with _locks._without_logs_lock():
                begun._lock, begun.LogRecord = threading.RLock(), object
            begun._lock.release()
            with _locks._without_logs_lock():
                pass
            with pytest.raises(RuntimeError):
                begun._lock.release()  # it takes the lock itself from now on

    def test_p36_a_fork_inside_an_import_of_its_own(self, server: LLMServer) -> None:
        """The forking thread does not wait for its own imports."""
        server.default = Reply("Hello")
        script = _FORK.partition("class Slow")[0] + _OWN
        command = [sys.executable, "-c", script.replace("{imports}", "os"), server.base_url("openai")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=90)
        assert (run.stdout, run.stderr) == ("0\n", "")


_OWN = """
class Forks(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "llmbridge._transport" and not children:
            children.append(os.fork())
            signal.alarm(0 if children[0] else 25)

children = []
sys.meta_path.insert(0, Forks())
url = sys.argv[1]
text = llmbridge.chat("Hi", model="openai:m", base_url=url, api_key="k-0123456789", proxy=False).complete().text
assert text == "Hello"
if children[0]:
    print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
"""


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Watchdog]:
    """A watchdog of the test's own: its errors affect nothing else, and its thread collects no garbage of others."""
    own = _Watchdog()
    monkeypatch.setattr(transport_call, "_watchdog", own)
    gc.disable()
    yield own
    gc.enable()
    own.stop()


def timed_out(mode: Mode) -> bool:
    """Whether a call without an answer ends with its timeout, rather than 8 s later with the server."""
    with (
        Listener(lambda sock: (sock.recv(9_999), sock.settimeout(8), sock.recv(1))) as silent,
        Client("openai:m", base_url=silent.root + "/v1", api_key=KEY, retries=0, timeout=0.2, proxy=False) as client,
    ):
        return isinstance(mode.read(client.chat("x")).error, ClockExpired)


def failing(real: Callable[..., Any], errors: list[BaseException]) -> Callable[..., Any]:
    """A function that raises each of the errors, in the watchdog's thread."""

    def function(*args: Any) -> Any:
        if errors and threading.current_thread().name == "llmbridge-watchdog":
            raise errors.pop()
        return real(*args)

    return function


@pytest.mark.usefixtures("watchdog")
class TestWatchdog:
    """All timeouts depend on one thread."""

    @pytest.mark.parametrize("kind", [ValueError, SystemExit])
    @pytest.mark.parametrize(
        ("owner", "name"),
        [(Call, "expire"), (Call, "_wake"), (transport_call, "monotonic"), (socket.socket, "shutdown")],
        ids=["expire", "wake", "monotonic", "shutdown"],
    )
    @pytest.mark.quick(1)
    def test_p37_the_clocks_outlive_an_error(
        self,
        mode: Mode,
        owner: Any,
        name: str,
        kind: type[BaseException],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The current call times out, and so do later ones; the error is logged once, without its text."""
        errors: list[BaseException] = [kind("canary"), kind("canary"), kind("canary")]
        monkeypatch.setattr(owner, name, failing(getattr(owner, name), errors), raising=False)
        with caplog.at_level(logging.WARNING, "llmbridge"):
            while errors:  # on a slow machine, a call may find out by itself that its time is over
                assert timed_out(mode)
            assert timed_out(mode)
        records = [record for record in caplog.records if record.name == "llmbridge"]
        threads = {record.thread for record in records}  # the process's own watchdog may meet an error as well
        assert 1 <= len(records) == len(threads)
        assert {record.levelno for record in records} == {logging.WARNING}
        said = f"{kind.__name__} in test_promises_threads.py, line "
        assert all(record.getMessage().startswith(said) for record in records)
        assert "canary" not in caplog.text

    @pytest.mark.quick(1)
    def test_p37_one_call_that_fails_leaves_the_others_their_clocks(self, mode: Mode) -> None:
        """Even if it fails each time; and the thread does not spin meanwhile."""
        failed = threading.Event()
        looks: list[float] = []

        class Bad(Call):
            def expire(self, now: float) -> None:
                looks.append(now)
                failed.set()
                raise MemoryError

        bad = Bad(transport_call.Timeout(total=0.05))
        try:
            assert failed.wait(20)
            assert timed_out(mode)
            assert not bad.expired
        finally:
            bad.end()
        assert len(looks) < 10 * (1 + looks[-1] - looks[0]) + 10

    @pytest.mark.quick(1)
    def test_p37_a_handler_of_logs_that_fails(self, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
        """A failing log handler does not end the thread either."""

        class Broken(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise ZeroDivisionError

        handler = Broken()
        logging.getLogger("llmbridge").addHandler(handler)
        try:
            monkeypatch.setattr(Call, "expire", failing(Call.expire, [ValueError()]))
            assert timed_out(mode)
        finally:
            logging.getLogger("llmbridge").removeHandler(handler)

    @pytest.mark.quick(1)
    def test_p37_a_thread_that_has_ended_is_replaced(self, mode: Mode, watchdog: _Watchdog) -> None:
        """The next call starts a new thread, however the last one ended."""
        assert timed_out(mode)
        thread = watchdog._thread
        assert thread is not None
        watchdog._stopped = True
        watchdog.poke()
        thread.join(20)
        watchdog._stopped = False
        assert timed_out(mode)
        assert watchdog._thread is not thread

"""A canary: a key unique to the run, and a watch that searches everything the run outputs for it (P18).

A test with the fixture `canary` uses `canary.key` and `canary.password` as keys and passwords. While it runs,
everything that could leak them is recorded: errors of llmbridge that reach the test, caught or not, records of all
loggers at DEBUG, standard output and standard error (where http.client prints what it sends), warnings, and what the
testing servers receive. At the end all of that is searched, and the test fails with the places where the canary was
found.

Key and password are searched for unchanged, without their ends, and in base64, hex and JSON's escapes.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import http.client
import io
import logging
import os
import pickle
import re
import secrets
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from llmbridge.errors import LLMBridgeError
from llmbridge.secret import Secret
from llmbridge.testing import LLMServer

__all__ = ["KEY", "PASSWORD", "Canary", "Leaked", "canary", "pytest_runtest_makereport", "sightings"]

# The same in all processes of one run of xdist, so that they collect the same tests.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(16)


def _unique(what: str) -> str:
    return hashlib.sha256(f"{_RUN} {what}".encode()).hexdigest()[:24]


KEY = f"sk-CANARY-{_unique('key')}"
PASSWORD = f"pw-CANARY-{_unique('password')}"

CARRIERS = ("authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Headers, in lower case, that may hold a key or a password."""

_HERE = str(Path(__file__).parent)
_HARNESS = re.compile(r"[/\\](_pytest|pluggy|xdist|hypothesis)[/\\]")
_AROUND = 120


class Leaked(AssertionError):
    """The canary was found; the message says where."""


def _forms(secret: str) -> set[str]:
    """The forms in which the secret could be read."""
    raw = secret.encode()
    escaped = "".join(f"\\u{ord(character):04x}" for character in secret)
    forms = {secret, secret[4:], secret[:-3], raw.hex(), escaped, escaped.replace("\\u00", "\\x")}
    for shift in range(3):  # its three possible offsets in base64's groups of three bytes
        coded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        forms.add(coded[4 if shift else 0 : -2])
    return forms


_FORMS = tuple(sorted({form for secret in (KEY, PASSWORD) for form in _forms(secret)}))
_PATTERN = re.compile("|".join(map(re.escape, _FORMS)))


def sightings(text: str | bytes, place: str) -> list[str]:
    """The places of the canary in the text, each with its context; [] if there are none."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    found = _PATTERN.search(text)
    return [] if found is None else [f"{place}: ...{text[max(0, found.start() - _AROUND) : found.end() + 40]}..."]


def _ours(filename: str) -> bool:
    """Whether a frame is neither the tests' nor pytest's, which may hold the canary."""
    return not filename.startswith(_HERE) and not _HARNESS.search(filename)


def _reached_a_test(error: BaseException) -> bool:
    return any(not _ours(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__))


def _in_error(error: BaseException, place: str, seen: set[int] | None = None) -> list[str]:
    """An error with its causes and the errors it holds: what a crash report, a log or another process gets."""
    seen = set() if seen is None else seen
    if id(error) in seen:
        return []
    seen.add(id(error))
    found = sightings(f"{error} {error!r} {error.args!r} {vars(error)!r}", f"{place}: {type(error).__name__}")
    found += sightings("".join(traceback.format_exception_only(error)), f"{place}: its last line")
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in report.stack:
        for name, value in (frame.locals or {}).items() if _ours(frame.filename) else ():
            found += sightings(value, f"{place}: local {name!r} at {frame.filename}:{frame.lineno}")
    if isinstance(error, LLMBridgeError):
        found += _in_copies(error, place)
    held = [error.__cause__, error.__context__, *getattr(error, "errors", ()), *getattr(error, "exceptions", ())]
    for other in held:
        if isinstance(other, BaseException):
            found += _in_error(other, f"{place} < {type(error).__name__}", seen)
    return found


def _in_copies(thing: Any, place: str) -> list[str]:
    """What a pickle or copy of it contains; or the error, if it cannot be copied."""
    found = []
    for protocol in (0, pickle.DEFAULT_PROTOCOL):
        try:
            found += sightings(pickle.dumps(thing, protocol), f"{place}: pickle")
        except Exception as error:  # noqa: BLE001 - whichever part refuses first
            found += sightings(repr(error), f"{place}: what its pickle says")
    with contextlib.suppress(Exception):
        found += sightings(repr(_deep(copy.copy(thing))), f"{place}: copy")
    return found


def _deep(thing: Any) -> Any:
    """The attributes of an object, if it has some: what a debugger shows first."""
    if isinstance(thing, Secret):  # its one attribute is the secret
        return {}
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    held = {name: getattr(thing, name) for name in slots if not name.startswith("__") and hasattr(thing, name)}
    return {**held, **getattr(thing, "__dict__", {})}


class Canary:
    """The watch. It records inside `with`, searches at the end, and raises Leaked.

    Args:
        output: Returns what was printed since its last call.
        patches: The test's own, which are undone before those of the watch.

    Attributes:
        key: Use it as a key.
        password: Use it as a password.
    """

    key = KEY
    password = PASSWORD

    def __init__(self, output: Callable[[], str], patches: pytest.MonkeyPatch | None = None) -> None:
        self._output = output
        self._errors: list[LLMBridgeError] = []
        self._servers: list[LLMServer] = []
        self._said: list[tuple[str, str]] = []
        self._found: list[str] = []
        self._patches = patches or pytest.MonkeyPatch()

    # -- for tests -----------------------------------------------------------------------------------------------

    def search(self, text: str | bytes, place: str) -> None:
        """Searches a text that the watch cannot see itself."""
        self._found += sightings(text, place)

    def look_at(self, *things: Any) -> None:
        """Searches what the objects show: str, repr, format, attributes, pickle, copy. Errors with their tracebacks."""
        for thing in things:
            place = type(thing).__name__
            if isinstance(thing, BaseException):
                self._found += _in_error(thing, place)
                continue
            for way, shown in (("str", str(thing)), ("repr", repr(thing)), ("format", f"{thing}")):
                self._found += sightings(shown, f"{place}: {way}")
            if not isinstance(thing, type):
                self._found += sightings(repr(_deep(thing)), f"{place}: attributes")
            self._found += _in_copies(thing, place)

    def check(self, label: str = "") -> None:
        """Searches everything so far, and starts again.

        Raises:
            Leaked: The canary was found.
        """
        errors, self._errors = self._errors, []
        said, self._said = self._said, []
        found, self._found = self._found, []
        for error in errors:
            if _reached_a_test(error):  # llmbridge may have replaced it before
                found += _in_error(error, "an error of llmbridge")
        for place, text in said:
            found += sightings(text, place)
        found += sightings(self._output(), "standard output or standard error")
        for server in self._servers:
            found += _on_the_wire(server)
        if found:
            head = f"{label}: the canary was seen" if label else "the canary was seen"
            raise Leaked("\n  ".join([f"{head} in {len(found)} places:", *dict.fromkeys(found)]))

    # -- recording -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Canary:
        self._watch_errors()
        self._watch_logs()
        self._watch_warnings()
        self._watch_servers()
        self._patches.setattr(http.client.HTTPConnection, "debuglevel", 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patches.undo()
        if error is None:
            self.check()
        # Errors are not held longer than the test runs: their frames would keep sockets open.
        self._errors.clear()

    def _watch_errors(self) -> None:
        make, watch = LLMBridgeError.__init__, self

        def noted(error: LLMBridgeError, *args: Any, **context: Any) -> None:
            make(error, *args, **context)
            watch._errors.append(error)

        self._patches.setattr(LLMBridgeError, "__init__", noted)

    def _watch_logs(self) -> None:
        """Before levels, filters and handlers: any record could be seen somewhere."""
        handle = logging.Logger.handle

        def noted(logger: logging.Logger, record: logging.LogRecord) -> None:
            self._said.append((f"logger {record.name}", f"{record.getMessage()} {vars(record)!r}"))
            if record.exc_info and record.exc_info[1] is not None:
                self._found += _in_error(record.exc_info[1], f"logger {record.name}")
            if logging.getLogger(record.name).getEffectiveLevel() <= record.levelno:
                handle(logger, record)

        self._patches.setattr(logging.Logger, "handle", noted)
        self._patches.setattr(logging.Logger, "isEnabledFor", lambda logger, level: True)

    def _watch_warnings(self) -> None:
        warn, warn_explicit = warnings.warn, warnings.warn_explicit

        def noted(message: Any, category: Any = None, stacklevel: int = 1, source: Any = None, **more: Any) -> None:
            self._said.append(("a warning", f"{message} {message!r} {source!r}"))
            warn(message, category, stacklevel + 1, source, **more)  # this function adds a frame

        def noted_explicit(message: Any, *rest: Any, **more: Any) -> None:
            self._said.append(("a warning", f"{message} {message!r} {rest!r} {more!r}"))
            warn_explicit(message, *rest, **more)

        self._patches.setattr(warnings, "warn", noted)
        self._patches.setattr(warnings, "warn_explicit", noted_explicit)

    def _watch_servers(self) -> None:
        start, servers = LLMServer.__init__, self._servers

        def noted(server: LLMServer, *args: Any, **options: Any) -> None:
            start(server, *args, **options)
            servers.append(server)

        self._patches.setattr(LLMServer, "__init__", noted)

    def watch(self, server: LLMServer) -> None:
        """Searches this server's requests as well; servers created inside the watch are searched anyway."""
        if server not in self._servers:
            self._servers.append(server)


def _on_the_wire(server: LLMServer) -> list[str]:
    """The canary may be in the header that carries it, but nowhere else."""
    found = []
    for request in server.requests:
        found += sightings(request.path, "a URL") + sightings(request.body, "a request's body")
        for name, value in request.headers:
            found += sightings(name, "a header's name")
            if name.lower() not in CARRIERS:
                found += sightings(value, f"header {name}")
    return found


@pytest.fixture
def canary(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Canary]:
    """A key that must not show anywhere while the test runs."""
    # The test's own patches come on top of the watch's, so they must be undone first.
    with Canary(lambda: "".join(capfd.readouterr()), monkeypatch) as watching:
        yield watching


@contextlib.contextmanager
def watching() -> Iterator[Canary]:
    """The same for a block, without output to the file descriptors."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        Canary(lambda: out.getvalue() + err.getvalue()) as made,
    ):
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Every test that prints or logs the canary fails, with or without the fixture."""
    report = yield
    found = [place for title, text in report.sections for place in sightings(text, title)]
    if found and report.outcome == "passed":
        report.outcome = "failed"
        report.longrepr = "\n".join(["the canary was seen:", *found])
    return report

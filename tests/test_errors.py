"""The tree of exceptions: as drawn, complete after pickle and copy, and readable."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import llmbridge
from llmbridge import errors
from llmbridge.errors import (
    ClockExpired,
    ConfigError,
    ConnectFailed,
    InvalidRequest,
    LLMBridgeError,
    RateLimited,
    ServiceError,
    StatusError,
    StreamError,
    StreamTruncated,
    TransportError,
)

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, LLMBridgeError)]
COMMON: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-5-mini",
    "partial": "Grüße, 世",
    "request_id": "req_1",
}
OF_SERVICES: dict[str, Any] = {
    "status": 429,
    "code": "rate_limit_exceeded",
    "body": '{"error": "ü"}',
    "retry_after": 1.5,
    "retryable": True,
}


def filled(kind: type[LLMBridgeError]) -> LLMBridgeError:
    """An error in which every attribute is set."""
    own: dict[str, Any] = {}
    if issubclass(kind, ServiceError):
        own = OF_SERVICES
    elif issubclass(kind, ClockExpired):
        own = {"clock": "idle"}
    error = kind("It went wrong: ü", **COMMON, **own)
    if isinstance(error, ConnectFailed):
        error.final = True
    return error


def by_pickle(protocol: int) -> Callable[[LLMBridgeError], LLMBridgeError]:
    """Pickled and unpickled."""
    return lambda error: pickle.loads(pickle.dumps(error, protocol))


COPIES = {f"pickle {protocol}": by_pickle(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)}
COPIES |= {"copy": copy.copy, "deepcopy": copy.deepcopy}


def drawn() -> dict[str, tuple[str, str | None]]:
    """Parent and further base of each class, as the module's docstring draws them."""
    tree: dict[str, tuple[str, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"    ([│├└─ ]*)([A-Z]\w+) +(.*)", line)
        if not found:
            continue
        depth = len(found[1]) // 3
        base = re.search(r"\(also an? (\w+)\)", found[3])
        path = [*path[:depth], found[2]]
        tree[found[2]] = (path[-2] if depth else "Exception", base[1] if base else None)
    return tree


class TestTree:
    """P10: one tree, matching the documentation."""

    def test_every_class_is_drawn(self) -> None:
        """The picture has all classes, and no others."""
        assert set(drawn()) == {kind.__name__ for kind in CLASSES}

    @pytest.mark.parametrize("kind", CLASSES)
    def test_a_class_hangs_where_it_is_drawn(self, kind: type[LLMBridgeError]) -> None:
        """Parent and builtin base are those of the picture."""
        parent, builtin = drawn()[kind.__name__]
        names = [base.__name__ for base in kind.__bases__]
        assert names == [parent, *([builtin] if builtin else [])]

    def test_the_tree_is_the_promised_one(self) -> None:
        """The edges that callers rely on, written down a second time."""
        edges = {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}
        assert edges == {
            "LLMBridgeError": "Exception",
            "InvalidOutput": "LLMBridgeError",
            "TurnsExceeded": "LLMBridgeError",
            "WorkerLost": "LLMBridgeError",
            "AllFailed": "LLMBridgeError",
            "ContentFiltered": "StatusError",
            "ConfigError": "LLMBridgeError",
            "UnknownProvider": "ConfigError",
            "MissingKey": "ConfigError",
            "InvalidRequest": "ConfigError",
            "TransportError": "LLMBridgeError",
            "ConnectFailed": "TransportError",
            "StreamTruncated": "TransportError",
            "ClockExpired": "TransportError",
            "ServiceError": "LLMBridgeError",
            "StatusError": "ServiceError",
            "AuthError": "StatusError",
            "PermissionDenied": "StatusError",
            "NotFound": "StatusError",
            "BadRequest": "StatusError",
            "ContextLengthExceeded": "BadRequest",
            "RateLimited": "StatusError",
            "QuotaExceeded": "StatusError",
            "ServerError": "StatusError",
            "Overloaded": "ServerError",
            "StreamError": "ServiceError",
            "ProtocolError": "LLMBridgeError",
            "Cancelled": "LLMBridgeError",
        }

    @pytest.mark.parametrize(
        ("kind", "builtin"),
        [
            (ConfigError, ValueError),
            (errors.UnknownProvider, ValueError),
            (errors.MissingKey, ValueError),
            (InvalidRequest, ValueError),
            (InvalidRequest, TypeError),
            (ConnectFailed, ConnectionError),
            (ConnectFailed, OSError),
            (ClockExpired, TimeoutError),
        ],
    )
    def test_builtin_bases(self, kind: type[LLMBridgeError], builtin: type[Exception]) -> None:
        """Builtin classes catch fitting errors, without knowing llmbridge."""
        assert issubclass(kind, builtin)

    @pytest.mark.parametrize("kind", CLASSES)
    def test_a_class_is_importable_from_the_package(self, kind: type[LLMBridgeError]) -> None:
        """Every error class can be imported from the package."""
        assert getattr(llmbridge, kind.__name__) is kind
        assert kind.__name__ in llmbridge.__all__
        assert kind.__name__ in errors.__all__

    @pytest.mark.parametrize("kind", CLASSES)
    def test_a_class_says_when_it_happens(self, kind: type[LLMBridgeError]) -> None:
        """Each has a docstring of its own."""
        assert kind.__dict__.get("__doc__")

    def test_the_module_needs_nothing_of_the_rest(self) -> None:
        """It imports neither llmbridge nor requests or urllib3, except for type checkers and notebooks."""
        tree = ast.parse(inspect.getsource(errors))
        imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        hints = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        inside = [node for block in hints for node in block.body]
        everywhere = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert {getattr(node, "module", None) for node in imports} == {"__future__", "typing"}
        hooks = [node for node in everywhere if str(getattr(node, "module", "")).startswith("llmbridge.notebook.")]
        assert len(everywhere) == len(imports) + len(inside) + len(hooks)


class TestWhole:
    """P11: errors cross processes whole."""

    @pytest.mark.parametrize("way", COPIES)
    @pytest.mark.parametrize("kind", CLASSES)
    def test_a_copy_has_everything(self, kind: type[LLMBridgeError], way: str) -> None:
        """Class, message, text and every attribute are kept, including those of single classes."""
        error = filled(kind)
        twin = COPIES[way](error)
        assert type(twin) is kind
        assert vars(twin) == vars(error)
        assert (str(twin), repr(twin), twin.args) == (str(error), repr(error), error.args)

    @pytest.mark.parametrize("way", COPIES)
    def test_an_attribute_set_later_arrives(self, way: str) -> None:
        """Attributes set by the call, or by a caller, are kept."""
        error = StreamTruncated("cut")
        error.partial, error.model = "Hel", "m"
        error.seen_by = ["worker 3"]  # type: ignore[attr-defined]
        error.add_note("while testing") if hasattr(error, "add_note") else None
        assert vars(COPIES[way](error)) == vars(error)

    @pytest.mark.parametrize("way", COPIES)
    def test_a_message_changed_later_arrives(self, way: str) -> None:
        """Secrets are removed from a message after it was made: the copy must not restore them."""
        error = RateLimited("key sk-1 is over its limit", **OF_SERVICES)
        error.message = "key *** is over its limit"
        error.args = (error.message,)
        twin = COPIES[way](error)
        assert (str(twin), twin.args) == ("key *** is over its limit", ("key *** is over its limit",))

    @pytest.mark.parametrize("way", COPIES)
    def test_a_subclass_of_a_user_arrives(self, way: str) -> None:
        """A subclass elsewhere needs nothing extra for this."""
        twin = COPIES[way](OfAUser("x", clock="connect", model="m"))
        assert type(twin) is OfAUser
        assert (twin.clock, twin.model) == ("connect", "m")

    def test_a_deep_copy_shares_nothing(self) -> None:
        """A changed copy does not change the error."""
        error = LLMBridgeError("x")
        error.trail = [1]  # type: ignore[attr-defined]
        twin = copy.deepcopy(error)
        twin.trail.append(2)  # type: ignore[attr-defined]
        assert error.trail == [1]  # type: ignore[attr-defined]

    def test_a_pickle_holds_no_cause(self) -> None:
        """Causes of an error (with a session, a socket) are left out."""
        try:
            try:
                raise OSError(lambda: None)
            except OSError as cause:
                raise ConnectFailed("no") from cause
        except ConnectFailed as error:
            twin = pickle.loads(pickle.dumps(error))
        assert (twin.__cause__, twin.__context__) == (None, None)


class OfAUser(ClockExpired):
    """A user's own error; at module level, as pickle requires."""


class TestReading:
    """Errors as people and programs read them."""

    @pytest.mark.parametrize("kind", CLASSES)
    def test_str_is_the_message(self, kind: type[LLMBridgeError]) -> None:
        """Also of classes with an OSError or a similar builtin as a base."""
        assert str(filled(kind)) == filled(kind).message == "It went wrong: ü"

    @pytest.mark.parametrize("kind", CLASSES)
    def test_repr_names_class_and_message(self, kind: type[LLMBridgeError]) -> None:
        """As all exceptions do."""
        assert repr(filled(kind)) == f"{kind.__name__}('It went wrong: ü')"

    @pytest.mark.parametrize("kind", CLASSES)
    def test_a_traceback_ends_with_the_message(self, kind: type[LLMBridgeError]) -> None:
        """People read the last line."""
        last = traceback.format_exception_only(filled(kind))[-1].strip()
        assert last == f"llmbridge.errors.{kind.__name__}: It went wrong: ü"

    @pytest.mark.parametrize("kind", CLASSES)
    def test_attributes_have_defaults(self, kind: type[LLMBridgeError]) -> None:
        """A message is enough."""
        error = kind("x")
        assert (error.provider, error.model, error.partial, error.request_id) == (None, None, "", None)

    @pytest.mark.parametrize("kind", [kind for kind in CLASSES if issubclass(kind, ServiceError)])
    def test_errors_of_a_service_have_its_fields(self, kind: type[ServiceError]) -> None:
        """Status, code, body, wait and whether to try again; none of them is guessed."""
        error = kind("x")
        assert (error.status, error.code, error.body, error.retry_after, error.retryable) == (
            None,
            None,
            "",
            None,
            False,
        )

    def test_an_unknown_attribute_is_refused(self) -> None:
        """A typo in a keyword raises."""
        with pytest.raises(TypeError):
            StatusError("x", stauts=500)

    @pytest.mark.parametrize("clock", ["connect", "first_content", "idle", "total"])
    def test_an_expired_clock_says_which(self, clock: Any) -> None:
        """Only the connect timeout is retryable: nothing had been sent."""
        error = ClockExpired("x", clock=clock)
        assert (error.clock, error.retryable) == (clock, clock == "connect")

    def test_a_failed_connection_may_be_tried_again(self) -> None:
        """Unless waiting does not help."""
        error = ConnectFailed("x")
        assert error.retryable
        error.final = True
        assert not error.retryable
        assert ConnectFailed("y").retryable

    def test_a_network_failure_is_not_tried_again_by_itself(self) -> None:
        """The work may have been done."""
        assert not TransportError("x").retryable
        assert not StreamTruncated("x").retryable

    def test_stream_error_is_not_a_status_error(self) -> None:
        """It has the same fields, but no status of its own."""
        assert not issubclass(StreamError, StatusError)
        assert issubclass(StreamError, ServiceError)

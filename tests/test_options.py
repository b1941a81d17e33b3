"""The transport options of a caller, checked before anything is sent."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import Client, ConfigError, Retry, Timeout
from llmbridge.options import (
    OPTION_NAMES,
    TRANSPORT_NAMES,
    TransportOptions,
    checked_base_url,
    checked_headers,
    checked_proxy,
)
from llmbridge.secret import MaskedStr, Secret
from llmbridge.testing import LLMServer

CANARY = "canary-0123456789"


class TestTimeout:
    """P12: four timeouts."""

    def test_the_defaults_are_the_documented_ones(self) -> None:
        """Generous to models, but never endless."""
        assert Timeout() == Timeout(connect=10, first_content=300, idle=120, total=1800)

    def test_a_number_is_the_total(self) -> None:
        """The three other timeouts stay."""
        assert Timeout.of(20) == Timeout(10, 300, 120, 20)
        assert Timeout.of(0.5).total == 0.5

    def test_none_and_a_timeout_are_valid(self) -> None:
        """None means the defaults."""
        own = Timeout(idle=3)
        assert Timeout.of(None) == Timeout()
        assert Timeout.of(own) is own

    @pytest.mark.parametrize("name", ["connect", "first_content", "idle", "total"])
    def test_none_switches_a_clock_off(self, name: str) -> None:
        """Each one separately."""
        assert getattr(Timeout(**{name: None}), name) is None

    @pytest.mark.parametrize("name", ["connect", "first_content", "idle", "total"])
    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True, [5], (1, 2), 1j])
    def test_an_invalid_time_is_rejected(self, name: str, value: Any) -> None:
        """The error names the timeout."""
        with pytest.raises(ConfigError, match=f"timeout {name} must be a positive number"):
            Timeout(**{name: value})

    @pytest.mark.parametrize("value", [0, -5, "20", (3, 5), float("nan"), False])
    def test_a_bad_timeout_of_a_call_is_refused(self, value: Any) -> None:
        """Including the tuples of requests, which mean something else."""
        with pytest.raises(ConfigError, match="timeout"):
            Client("demo", timeout=value)

    def test_a_timeout_is_a_value(self) -> None:
        """Comparable, hashable, frozen and picklable."""
        assert pickle.loads(pickle.dumps(Timeout(idle=1))) == Timeout(idle=1)
        assert hash(Timeout()) == hash(Timeout())
        with pytest.raises(dataclasses.FrozenInstanceError):
            Timeout().idle = 1  # type: ignore[misc]


class TestBaseURL:
    """The base URL, to which paths are appended."""

    @pytest.mark.parametrize(
        ("given_url", "kept"),
        [
            ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
            ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1"),
            ("https://example.com//", "https://example.com"),
            ("  https://example.com/v1 \n", "https://example.com/v1"),
            ("HTTPS://Example.com/V1", "HTTPS://Example.com/V1"),
            ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
            ("http://user:pass@host/v1", "http://user:pass@host/v1"),
            ("http://localhost", "http://localhost"),
            ("http://host_name.internal:1/x%20y", "http://host_name.internal:1/x%20y"),
        ],
    )
    def test_a_good_url_is_kept_without_its_last_slashes(self, given_url: str, kept: str) -> None:
        """White space around it is removed too."""
        assert checked_base_url(given_url) == kept

    @pytest.mark.parametrize(
        "bad",
        [
            "",
            " ",
            "/v1",
            "v1",
            "example.com/v1",
            "127.0.0.1:8080",
            "//example.com/v1",
            "http://",
            "http:///v1",
            "http://:8080/v1",
            "http:example.com",
            "ftp://example.com",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "http://host:port/v1",
            "http://host:99999/v1",
            "http://host:-1/v1",
            "http://host:0/v1",
            "http://[::1/v1",
            "http://[bad]/v1",
            "http://host/v1?key=x",
            "http://host/v1#x",
            "http://host/v1?",
            "http://host/v1#",
            "http://ho st/v1",
            "http://host/a b",
            "http://host/v1\r\nX-Evil: 1",
            "http://host\x00/v1",
            "http://host/\x7f",
            "http://good.example\\@evil.example/v1",
            "http://user:pass@/v1",
            None,
            7,
            b"http://host",
            ["http://host"],
        ],
    )
    def test_a_bad_url_is_refused(self, bad: Any) -> None:
        """With a ConfigError that is a ValueError and names base_url."""
        with pytest.raises(ConfigError, match="base_url") as caught:
            checked_base_url(bad)
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize(
        "bad", ["ftp://user:{}@host", "http://user:{}@host:port/", "http://user:{}@ho st/", "http://u:{}@h/?", "{}"]
    )
    def test_a_password_is_not_quoted(self, bad: str) -> None:
        """P21: with any other error in the URL."""
        with pytest.raises(ConfigError) as caught:
            checked_base_url(bad.format(CANARY))
        assert CANARY not in str(caught.value)

    @given(st.text(st.characters(exclude_categories=()), max_size=30) | st.from_regex(r"https?://.{0,20}"))
    def test_any_text_is_taken_or_refused(self, text: str) -> None:
        """Any text gives a URL or a ConfigError."""
        try:
            url = checked_base_url(text)
        except ConfigError:
            return
        assert url.lower().startswith(("http://", "https://"))
        assert not set(url) & set(" \r\n\t\x00?#\\")

    def test_a_bad_url_of_a_call_is_refused_before_anything_is_sent(self) -> None:
        """At the client or the call."""
        with pytest.raises(ConfigError):
            Client("openai-compatible:m", base_url="localhost:8080/v1")
        with Client("demo") as client, pytest.raises(ConfigError):
            client.chat("Hi", base_url="http://")


class TestProxy:
    """P21: proxies of an argument."""

    @pytest.mark.parametrize(
        ("given_url", "kept"),
        [
            ("http://127.0.0.1:3128", "http://127.0.0.1:3128"),
            ("127.0.0.1:3128", "http://127.0.0.1:3128"),
            (" proxy.example:3128 ", "http://proxy.example:3128"),
            ("http://user:pass@proxy:3128", "http://user:pass@proxy:3128"),
            ("https://proxy", "https://proxy"),
            ("socks5://127.0.0.1:1080", "socks5://127.0.0.1:1080"),
            ("socks5h://127.0.0.1:1080", "socks5h://127.0.0.1:1080"),
            ("socks4a://127.0.0.1:1080", "socks4a://127.0.0.1:1080"),
        ],
    )
    def test_a_good_proxy_is_kept(self, given_url: str, kept: str) -> None:
        """Without a scheme it is an HTTP proxy."""
        assert checked_proxy(given_url) == kept

    @pytest.mark.parametrize(
        "bad",
        [
            "",
            " ",
            "http://",
            "ftp://proxy:3128",
            "http://proxy:port",
            "http://proxy:99999",
            "proxy host:3128",
            "http://pro\r\nxy:3128",
            "http://[::1",
            "http://good\\@evil:3128",
            7,
            None,
            b"http://proxy",
            {"http": "http://proxy"},
        ],
    )
    def test_a_bad_proxy_is_refused(self, bad: Any) -> None:
        """Including the dict of requests; the error names the argument."""
        with pytest.raises(ConfigError, match="proxy"):
            checked_proxy(bad)

    @pytest.mark.parametrize("bad", ["http://user:{}@proxy:port", "ftp://user:{}@proxy", "user:{}@pro xy:3128"])
    def test_a_password_is_not_quoted(self, bad: str) -> None:
        """With any other error in the URL."""
        with pytest.raises(ConfigError) as caught:
            checked_proxy(bad.format(CANARY))
        assert CANARY not in str(caught.value)

    def test_false_means_none_at_all(self) -> None:
        """It differs from not set."""
        assert TransportOptions.checked(proxy=False).proxy is False
        assert TransportOptions.checked(proxy=None).proxy is None

    def test_true_says_nothing(self) -> None:
        """The error lists the possible meanings."""
        with pytest.raises(ConfigError, match="proxy=True"):
            TransportOptions.checked(proxy=True)

    @pytest.mark.parametrize("bad", ["http://", "nonsense://x", 5])
    def test_a_bad_proxy_never_means_a_direct_request(self, bad: Any) -> None:
        """The call is rejected, and the server gets nothing."""
        with LLMServer() as server, Client("openai-compatible:m", base_url=server.base_url("openai")) as client:
            with pytest.raises(ConfigError):
                client.chat("Hi", proxy=bad)
            assert server.connections == 0


class TestHeaders:
    """P19: headers are checked first, and never quoted."""

    def test_good_headers_are_stripped_and_kept(self) -> None:
        """In the caller's case and order; None removes one."""
        headers = checked_headers({"X-B": " 1 ", "x-a": "2\t3", "Accept": None, "X-Empty": ""})
        assert list(headers.items()) == [("X-B", "1"), ("x-a", "2\t3"), ("Accept", None), ("X-Empty", "")]

    @pytest.mark.parametrize(
        "name", ["", " ", "X Y", "X:", "X\r\nY", "X\n", "Ü", "X\x00", "(x)", '"x"', "x/y", 7, None, b"X"]
    )
    def test_a_bad_name_is_refused(self, name: Any) -> None:
        """Anything that HTTP does not allow as a token."""
        with pytest.raises(ConfigError, match="header name"):
            checked_headers({name: "1"})

    @pytest.mark.parametrize(
        "bad", ["\r", "\n", "\r\nX-Evil: 1", "\x00", "\x07", "\x7f", "ü", "\u2028", "\ud800", "\x1b[0m"]
    )
    def test_a_bad_value_is_refused_and_not_quoted(self, bad: str) -> None:
        """The error names only the header."""
        with pytest.raises(ConfigError, match="header X-Test") as caught:
            checked_headers({"X-Test": f"{CANARY}{bad}{CANARY}"})
        assert CANARY not in str(caught.value)
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("value", [7, b"x", ["x"], True, 1.5])
    def test_a_value_of_another_type_is_rejected(self, value: Any) -> None:
        """A number is not converted."""
        with pytest.raises(ConfigError, match="header X-Test must be a str"):
            checked_headers({"X-Test": value})

    @pytest.mark.parametrize("headers", ["X: 1", [("X", "1")], 7, {"X"}])
    def test_headers_of_another_type_are_rejected(self, headers: Any) -> None:
        """The error names its type."""
        with pytest.raises(ConfigError, match="headers must be a mapping"):
            checked_headers(headers)

    @pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding", "TRANSFER-ENCODING"])
    def test_headers_that_frame_the_body_are_refused(self, name: str) -> None:
        """A second length of the body allows requests to be smuggled."""
        with pytest.raises(ConfigError, match="follows from the body"):
            checked_headers({name: "5"})

    @pytest.mark.parametrize(
        "name",
        ["Authorization", "x-api-key", "api-key", "X-Goog-Api-Key", "Cookie", "X-Auth-Token", "Proxy-Authorization"],
    )
    def test_sensitive_values_are_masked(self, name: str) -> None:
        """P18: the value is sent, but not in any repr."""
        headers = checked_headers({name: f"Bearer {CANARY}"})
        assert headers[name] == f"Bearer {CANARY}"
        assert isinstance(headers[name], MaskedStr)
        assert CANARY not in repr(headers)


class TestTransportOptions:
    """All options together."""

    def test_the_names_are_the_documented_ones(self) -> None:
        """Every other keyword is a parameter of the service."""
        assert set(OPTION_NAMES) == {
            "api_key",
            "base_url",
            "proxy",
            "timeout",
            "retries",
            "headers",
            "session",
            "verify",
            "unsupported",
            "run_tools",
            "max_turns",
            "schema_retries",
            "extra",
        }

    def test_nothing_set_is_nothing(self) -> None:
        """None means not set, so that defaults can fill it."""
        assert TransportOptions.checked(**dict.fromkeys(TRANSPORT_NAMES)) == TransportOptions()

    def test_values_are_normalized(self) -> None:
        """A key becomes a secret, a number a policy."""
        options = TransportOptions.checked(api_key=f" {CANARY}\n", timeout=5, retries=1, verify=Path(__file__))
        assert options.api_key == Secret(CANARY)
        assert (options.timeout, options.retries, options.verify) == (Timeout(total=5), Retry(1), __file__)

    def test_a_secret_is_taken_as_it_is(self) -> None:
        """A Secret can be passed on."""
        key = Secret(CANARY)
        assert TransportOptions.checked(api_key=key).api_key is key

    def test_no_repr_shows_the_key(self) -> None:
        """P18: nor a sensitive header."""
        options = TransportOptions.checked(api_key=CANARY, headers={"x-api-key": CANARY})
        assert CANARY not in repr(options)

    @pytest.mark.parametrize("verify", [1, 0, 1.5, ["x"], b"x", {}])
    def test_a_bad_verify_is_refused(self, verify: Any) -> None:
        """P22: only True, False or a path; a 0 must not turn verification off."""
        with pytest.raises(ConfigError, match="verify"):
            TransportOptions.checked(verify=verify)

    def test_verify_false_is_kept(self) -> None:
        """An explicit False differs from None."""
        assert TransportOptions.checked(verify=False).verify is False

    @pytest.mark.parametrize("session", [1, "session", requests, requests.Session, object()])
    def test_an_invalid_session_is_rejected(self, session: Any) -> None:
        """Including the class instead of an object."""
        with pytest.raises(ConfigError, match="session"):
            TransportOptions.checked(session=session)

    @pytest.mark.parametrize("key", ["", "a\nb", "ключ", 7, b"key"])
    def test_a_bad_key_is_refused(self, key: Any) -> None:
        """The error names the argument."""
        with pytest.raises(ConfigError, match="api_key"):
            TransportOptions.checked(api_key=key)

    def test_a_call_wins_over_its_client(self) -> None:
        """Options not set in the call come from the client."""
        client = TransportOptions.checked(timeout=5, retries=1, base_url="http://a", proxy="http://p")
        call = TransportOptions.checked(timeout=9, proxy=False)
        merged = call.over(client)
        assert (merged.timeout, merged.retries, merged.base_url, merged.proxy) == (
            Timeout(total=9),
            Retry(1),
            "http://a",
            False,
        )

    def test_verify_false_of_a_client_can_be_taken_back(self) -> None:
        """P22: never sticky."""
        merged = TransportOptions.checked(verify=True).over(TransportOptions.checked(verify=False))
        assert merged.verify is True

    def test_headers_add_up(self) -> None:
        """The call's own override the client's."""
        client = TransportOptions.checked(headers={"A": "1", "B": "1"})
        assert TransportOptions.checked(headers={"B": "2", "C": None}).over(client).headers == {
            "A": "1",
            "B": "2",
            "C": None,
        }
        assert TransportOptions().over(client).headers == {"A": "1", "B": "1"}

    def test_the_callers_headers_are_copied(self) -> None:
        """A later change does not reach a call that was already checked."""
        headers = {"A": "1"}
        options = TransportOptions.checked(headers=headers)
        headers["A"] = "evil\r\n"
        assert options.headers == {"A": "1"}

    def test_merging_changes_neither_side(self) -> None:
        """Clients are shared between threads."""
        client = TransportOptions.checked(headers={"A": "1"})
        TransportOptions.checked(headers={"A": "2"}, timeout=1).over(client)
        assert client == TransportOptions.checked(headers={"A": "1"})

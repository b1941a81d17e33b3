"""P44: libraries between requests and the network see every call: recorders, mocks, caches, CAs of the environment.

The libraries themselves are in tests/ecosystem; here small ones do what they do, so that these tests need none of them.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests
from conftest import KEY
from loopback import DONE, FINISH, chunk, event, head
from modes import Mode
from urllib3.connectionpool import HTTPConnectionPool

from llmbridge import Client, ClockExpired, ConfigError, ConnectFailed, Timeout
from llmbridge.testing import HOLD, LLMServer, Reply

BODY = event("При") + event("вет") + FINISH + DONE
Plain: Any = HTTPConnectionPool.ConnectionCls


@pytest.fixture(params=["own", "session"])
def caller(request: pytest.FixtureRequest, server: LLMServer) -> Iterator[Client]:
    """A client of `server`, over connections of its own and over a session of the caller's."""
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session()) if request.param == "session" else None
        options: dict[str, Any] = {"session": session, "api_key": KEY, "retries": 0, "timeout": 20}
        yield stack.enter_context(Client("openai:m", base_url=server.base_url("openai"), **options))


class Counting(Plain):  # type: ignore[misc]
    """A connection that counts the requests."""

    requests = 0

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Counts, and sends."""
        type(self).requests += 1
        return super().request(*args, **kwargs)


class Recording(Plain):  # type: ignore[misc]
    """A connection that delegates to another one, like those of vcrpy."""

    _baseclass = Plain

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.real = self._baseclass(*args, **kwargs)

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Sends over the other one."""
        return self.real.request(*args, **kwargs)

    def getresponse(self) -> Any:
        """Reads the whole answer."""
        response = self.real.getresponse()
        response.read()
        return response

    def close(self) -> None:
        """Closes both."""
        self.real.close()
        super().close()


@contextlib.contextmanager
def in_place(connection: type[Any]) -> Iterator[None]:
    """A connection class temporarily replaces urllib3's, and their connections are never mixed up."""
    with (
        mock.patch.object(HTTPConnectionPool, "ConnectionCls", connection),
        mock.patch.object(HTTPConnectionPool, "_get_conn", lambda pool, timeout=None: pool._new_conn()),
        mock.patch.object(HTTPConnectionPool, "_put_conn", lambda pool, connection: connection and connection.close()),
    ):
        yield


def test_p44_a_recorder_gets_the_calls_of_its_time(server: LLMServer, caller: Client, mode: Mode) -> None:
    """A connection class that replaces urllib3's is used from then on, and only as long as it is in place."""
    server.script(*[Reply("x")] * 3)
    assert mode.read(caller.chat("before")).pieces == ["x"]
    watched = type("Watched", (Counting,), {"requests": 0})
    with in_place(watched):
        assert mode.read(caller.chat("during")).pieces == ["x"]
    assert mode.read(caller.chat("after")).pieces == ["x"]
    assert len(server.requests) == 3
    counted = [kind.requests for kind in (watched, *watched.__subclasses__())]
    assert sum(counted) == 1


@pytest.mark.quick(1)
def test_p44_a_call_that_is_recorded_has_its_clocks(server: LLMServer, mode: Mode) -> None:
    """The total timeout runs while a recorder waits for the rest of an answer."""
    server.script(Reply("x"), Reply(raw=[head("Transfer-Encoding: chunked"), chunk(event("a")), HOLD]))
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0) as client:
        assert mode.read(client.chat("before")).pieces == ["x"]
        with in_place(Recording):
            outcome = mode.read(client.chat("held", timeout=Timeout(total=0.3)))
        assert isinstance(outcome.error, ClockExpired)
        assert server.requests[1].gone.wait(30)


def test_p44_a_recorder_gets_plain_headers(server: LLMServer, caller: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cassette can be written: all headers are plain str."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 0)  # what a recorder's connections print is its own
    kinds: set[type] = set()

    class Writing(Plain):  # type: ignore[misc]
        _baseclass = Plain

        def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> Any:
            kinds.update(map(type, headers.values()))
            return super().request(method, url, body=body, headers=headers, **options)

    with in_place(Writing):
        assert caller.chat("x").complete().text
    assert kinds == {str}
    assert server.requests[0].header("Authorization") == f"Bearer {KEY}"


def test_p44_a_recorder_prints_no_headers(
    server: LLMServer, caller: Client, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """http.client's debug output is off, even in a recorder that is the connection itself."""
    monkeypatch.setattr("http.client.HTTPConnection.debuglevel", 1)

    class Itself(Plain):  # type: ignore[misc]
        _baseclass = Plain

    with in_place(Itself):
        assert caller.chat("x").complete().text
    assert KEY not in "".join(capfd.readouterr())


def test_p44_the_request_of_a_response_holds_no_key(server: LLMServer, caller: Client, mode: Mode) -> None:
    """A cache stores that request. The one that was sent holds the key, as in a mock's list of calls."""
    plain = requests.Session.send
    pairs: list[tuple[Any, Any]] = []

    def noting(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = plain(session, request, **options)
        pairs.append((request.headers, response.request.headers))
        return response

    with mock.patch.object(requests.Session, "send", noting):
        assert mode.read(caller.chat("x")).error is None
    ((sent, kept),) = pairs
    assert str(sent["Authorization"]) == f"Bearer {KEY}"
    assert {name: value for name, value in kept.items() if name != "Authorization"} == {
        name: value for name, value in sent.items() if name != "Authorization"
    }
    assert set(map(type, kept.values())) == {str}
    assert KEY not in str(list(map(str, kept.values())))


def test_p44_a_send_of_somebody_elses_gets_every_call(server: LLMServer, caller: Client, mode: Mode) -> None:
    """Mocks and tracers replace `Session.send`: it is called, and its additions are sent."""
    plain = requests.Session.send
    seen: list[int] = []

    def traced(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        request.headers["X-Trace"] = "1"
        response = plain(session, request, **options)
        seen.append(response.status_code)
        return response

    server.script(Reply("x", headers={"Set-Cookie": "a=b"}), Reply(status=302, headers={"Location": "/v1/elsewhere"}))
    with mock.patch.object(requests.Session, "send", traced):
        assert mode.read(caller.chat("one")).pieces == ["x"]
        assert mode.read(caller.chat("moved")).error is not None
        assert mode.read(caller.chat("two")).pieces
    assert mode.read(caller.chat("after")).pieces
    assert seen == [200, 302, 200]
    assert [received.header("X-Trace") for received in server.requests] == ["1", "1", "1", None]


def test_p44_nor_does_it_bring_cookies_along(server: LLMServer, client: Client) -> None:
    """A session of llmbridge's own keeps no cookies."""
    plain = requests.Session.send
    server.script(Reply("x", headers={"Set-Cookie": "a=b"}))

    def passed_on(*args: Any, **options: Any) -> requests.Response:
        return plain(*args, **options)

    with mock.patch.object(requests.Session, "send", passed_on):
        assert client.chat("one").complete().text
        assert client.chat("two").complete().text
    assert [received.header("Cookie") for received in server.requests] == [None, None]


def test_p44_a_response_made_by_hand_is_an_answer(caller: Client, mode: Mode) -> None:
    """A mocked `Session.send` may return an answer with only a status and its content."""
    response = requests.Response()
    response.status_code = 200
    response._content = BODY
    with mock.patch.object(requests.Session, "send", return_value=response):
        assert mode.read(caller.chat("x")).pieces == ["При", "вет"]


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_p44_a_body_that_was_read_before_is_an_answer(server: LLMServer, mode: Mode, coding: str) -> None:
    """After a hook or a cache has read the whole body, its pieces are the same."""
    packed = gzip.compress(BODY) if coding == "gzip" else BODY
    with requests.Session() as session:
        texts: list[str] = []
        session.hooks["response"].append(lambda response, **_: texts.append(response.text))
        options: dict[str, Any] = {"session": session, "api_key": KEY, "retries": 0}
        with Client("openai:m", base_url=server.base_url("openai"), **options) as client:
            for _ in range(2):
                server.script(
                    Reply(raw=[head(f"Content-Encoding: {coding}", f"Content-Length: {len(packed)}"), packed])
                )
                assert mode.read(client.chat("x")).pieces == ["При", "вет"]
    assert texts == [BODY.decode()] * 2


class Tape(io.BytesIO):
    """A recorder's body: urllib3's method names without the options."""

    def stream(self, size: int = 65536) -> Iterator[bytes]:
        """Never called."""
        raise AssertionError(size)


def test_p44_a_raw_file_with_other_options_is_read(mode: Mode) -> None:
    """The raw file of a response may be any readable object."""

    class Player(requests.adapters.HTTPAdapter):
        def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
            response = requests.Response()
            response.status_code, response.request = 200, request
            response.headers["Content-Encoding"] = "gzip"  # of the time before it was recorded
            response.raw = Tape(BODY)
            return response

    with requests.Session() as session:
        session.mount("http://", Player())
        with Client("openai:m", base_url="http://127.0.0.1:1/v1", session=session, api_key=KEY) as client:
            assert mode.read(client.chat("x")).pieces == ["При", "вет"]


@pytest.mark.quick(1)
def test_p44_a_clock_that_stands_still_ends_every_wait(
    server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test clocks replace `time.monotonic` in every module that has it."""
    with Client("openai-compatible:m", base_url=server.base_url("openai"), timeout=60) as client:
        assert mode.complete(client.chat("x")).text  # all modules are there
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "llmbridge":
                for attribute in [name for name, value in vars(module).items() if value is time.monotonic]:
                    monkeypatch.setattr(module, attribute, lambda: 1e9)
        server.script(Reply(status=500), Reply("done"))
        assert mode.complete(client.chat("x")).text == "done"


@pytest.fixture(params=["own", "session"])
def tls_caller(request: pytest.FixtureRequest, tls_server: LLMServer) -> Iterator[Client]:
    """A client of `tls_server` that does not trust it yet."""
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session()) if request.param == "session" else None
        options: dict[str, Any] = {"session": session, "api_key": KEY, "retries": 0, "timeout": 20}
        yield stack.enter_context(Client("openai:m", base_url=tls_server.base_url("openai"), **options))


@pytest.fixture
def other_ca(tmp_path: Path) -> str:
    """The file of an authority that has signed nothing."""
    path = tmp_path / "other.pem"
    pytest.importorskip("trustme").CA().cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def ca_folder(ca_file: str, tmp_path: Path) -> str:
    """A folder with `ca_file` under the name that OpenSSL looks for."""
    folder = tmp_path / "certs"
    folder.mkdir()
    done = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", ca_file], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("there is no openssl to name the file")
    (folder / f"{done.stdout.strip()}.0").write_text(Path(ca_file).read_text())
    return str(folder)


def test_p44_openssls_file_of_authorities_is_trusted(
    tls_caller: Client, ca_file: str, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """SSL_CERT_FILE works as in other SDKs."""
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    assert mode.read(tls_caller.chat("x")).error is None


@pytest.mark.quick(2)
def test_p44_openssls_folder_of_authorities_is_trusted(
    tls_caller: Client, ca_folder: str, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """SSL_CERT_DIR works."""
    monkeypatch.setenv("SSL_CERT_DIR", ca_folder)
    assert mode.read(tls_caller.chat("x")).error is None


def test_p44_openssls_list_of_folders_is_trusted(
    tls_server: LLMServer, ca_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """SSL_CERT_DIR may name several folders, some of them missing."""
    monkeypatch.setenv("SSL_CERT_DIR", os.pathsep.join([str(tmp_path), "/nowhere", ca_folder]))
    with Client("openai:m", base_url=tls_server.base_url("openai"), retries=0, timeout=20) as client:
        assert mode.read(client.chat("x")).error is None


ORDER = ["verify", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]


@pytest.mark.parametrize("first", range(4))
def test_p44_the_first_setting_of_trust_counts(
    tls_server: LLMServer, tls_caller: Client, ca_file: str, other_ca: str, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """The argument, then the variables of requests, then those of OpenSSL, whether they lead to trust or not."""
    chosen, *rest = ORDER[first:]
    for right, wrong in ((ca_file, other_ca), (other_ca, ca_file)):
        for name in rest:
            monkeypatch.setenv(name, wrong)
        if chosen != "verify":
            monkeypatch.setenv(chosen, right)
        stream = tls_caller.chat("x", verify=right) if chosen == "verify" else tls_caller.chat("x")
        if right == ca_file:
            assert stream.complete().text
        else:
            with pytest.raises(ConnectFailed, match="not trusted"):
                stream.complete()
    assert len(tls_server.requests) == 1


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_p44_authorities_that_are_not_there_are_an_error_of_the_setup(
    tls_server: LLMServer,
    tls_caller: Client,
    server: LLMServer,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    variable: str,
) -> None:
    """The error names the variable and is not retried; plain http:// is not affected."""
    monkeypatch.setenv(variable, "/nowhere/certs")
    error = mode.read(tls_caller.chat("x", retries=2)).error
    assert isinstance(error, ConfigError)
    assert variable in error.message
    assert mode.read(tls_caller.chat("x", base_url=server.base_url("openai"))).error is None
    assert not tls_server.requests


def test_p44_a_session_that_ignores_the_environment_ignores_its_authorities(
    tls_server: LLMServer, ca_file: str, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """`trust_env = False` disables these variables as well."""
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    with requests.Session() as session:
        session.trust_env = False
        with Client("openai:m", base_url=tls_server.base_url("openai"), session=session, retries=0) as client:
            assert isinstance(mode.read(client.chat("x")).error, ConnectFailed)
    assert not tls_server.requests

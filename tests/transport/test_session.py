"""A caller's own `requests.Session`: its adapters, headers, auth and CA apply, and it stays open."""

from __future__ import annotations

import gc
import http.client
import ssl
import threading
import time
import weakref
from typing import Any

import pytest
import requests
import responses
import urllib3
from conftest import KEY
from loopback import DONE, FINISH, chunk, event, head
from modes import Mode
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth

from llmbridge import (
    Cancelled,
    ChatStream,
    Client,
    ClockExpired,
    ConfigError,
    ConnectFailed,
    LLMBridgeError,
    RateLimited,
    StreamTruncated,
    Timeout,
    Vitalentum,
    chat,
)
from llmbridge.testing import HOLD, LLMServer, Reply

BODY = (event("При") + event("вет") + FINISH + DONE).decode()
URL = "https://api.openai.com/v1/chat/completions"


@pytest.fixture
def session() -> Any:
    """A caller's own session."""
    with requests.Session() as made:
        yield made


def test_session_pieces_are_live(server: LLMServer, client: Client, session: requests.Session) -> None:
    """The first piece is there while the server holds the rest."""
    server.script(Reply(raw=[head("Transfer-Encoding: chunked"), chunk(event("a")), HOLD]))
    with client.chat("x", session=session) as stream:
        assert next(stream) == "a"
    assert server.requests[0].gone.wait(30)


def test_session_connections_are_the_callers(server: LLMServer, client: Client, session: requests.Session) -> None:
    """Calls and the caller's own later requests share the session's connections."""
    session.get(server.root + "/v1/models").close()
    for _ in range(5):
        client.chat("x", session=session).complete()
    assert session.get(server.root + "/v1/models").json()["object"] == "list"
    assert server.connections <= 2  # the first one, not made for calls, may be replaced by one that can be woken


def test_session_headers_and_auth_count(server: LLMServer, client: Client, session: requests.Session) -> None:
    """The session's headers are sent beside the provider's, and its auth comes last."""
    session.headers["X-Team"] = "blue"
    session.auth = HTTPBasicAuth("user", "password")
    client.chat("x", session=session).complete()
    received = server.requests[0]
    assert received.header("X-Team") == "blue"
    assert (received.header("Authorization") or "").startswith("Basic ")
    assert received.header("Content-Type") == "application/json"


def test_session_auth_may_sign_the_body(server: LLMServer, client: Client, session: requests.Session) -> None:
    """A custom auth sees the prepared request with its body."""

    class Signature(AuthBase):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            assert isinstance(request.body, bytes)
            request.headers["X-Signature"] = str(len(request.body))
            return request

    session.auth = Signature()
    client.chat("x", session=session).complete()
    assert server.requests[0].header("X-Signature") == str(len(server.requests[0].body))
    assert server.requests[0].header("Authorization") == f"Bearer {KEY}"


def test_session_auth_may_ask_the_same_host(server: LLMServer, mode: Mode, session: requests.Session) -> None:
    """It gets a whole response, also if a client without a session has failed before."""

    class Token(AuthBase):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            models = session.get(server.root + "/v1/models", auth=lambda asked: asked)
            request.headers["X-Token"] = models.json()["object"]
            return request

    session.auth = Token()
    url = server.base_url("openai")
    with (
        Client("openai:a", base_url=url, retries=0) as first,
        Client("openai:b", base_url=url, session=session) as last,
    ):
        assert mode.complete(last.chat("x")).text
        server.script(Reply(status=503))
        assert mode.complete(Client([first, last]).chat("x")).text
    assert server.requests[-1].header("X-Token") == "list"


def test_session_adapters_count(server: LLMServer, client: Client, session: requests.Session) -> None:
    """A mounted adapter gets the request."""
    seen = []

    class Noted(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
            seen.append((request.url, kwargs["stream"]))
            return super().send(request, **kwargs)

    session.mount(server.root, Noted())
    assert client.chat("x", session=session).complete().text
    assert seen == [(server.base_url("openai") + "/chat/completions", True)]


def test_session_verify_counts(tls_server: LLMServer, ca_file: str, session: requests.Session) -> None:
    """The session's CA is trusted; an argument overrides it."""
    with Client("openai:m", base_url=tls_server.base_url("openai"), retries=0, session=session) as client:
        with pytest.raises(ConnectFailed):
            list(client.chat("x"))
        session.verify = ca_file
        assert client.chat("x").complete().text
    assert len(tls_server.requests) == 1


@pytest.mark.parametrize("least", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_tls_settings_of_an_adapter_count(
    authority: Any, ca_file: str, session: requests.Session, least: ssl.TLSVersion
) -> None:
    """A server limited to TLS 1.2 is rejected if the caller's adapter demands 1.3."""
    if urllib3.__version__.startswith("1."):
        pytest.skip("urllib3 1 has no ssl_minimum_version")

    class Strict(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_minimum_version=least, **options)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("127.0.0.1").configure_cert(context)
    session.verify = ca_file
    session.mount("https://", Strict())
    with LLMServer(ssl_context=context) as server:
        stream = chat("x", "openai:m", base_url=server.base_url("openai"), session=session, retries=0)
        if least is ssl.TLSVersion.TLSv1_2:
            assert stream.complete().text
        else:
            with pytest.raises(ConnectFailed, match="TLS"):
                stream.complete()
            assert not server.requests


def test_session_is_not_closed(server: LLMServer, session: requests.Session) -> None:
    """Neither finished nor broken calls, nor the end of a client, close the caller's session."""
    closed = []
    session.close = lambda: closed.append(1)  # type: ignore[method-assign]
    with Client("openai:m", base_url=server.base_url("openai"), session=session, retries=0) as client:
        client.chat("x").complete()
        server.script(Reply(raw=[head(), event("a"), HOLD]), Reply(status=500))
        for _ in client.chat("x"):
            break
        with pytest.raises(LLMBridgeError):
            client.chat("x").complete()
    assert not closed
    assert session.get(server.root + "/v1/models").ok
    session.__class__.close(session)


def test_session_cookies_stay_in_it(server: LLMServer, client: Client, session: requests.Session) -> None:
    """Cookies of the caller's session are sent with its calls, and with no others."""
    session.cookies.set("a", "b")
    client.chat("x", session=session).complete()
    client.chat("x").complete()
    assert server.requests[0].header("Cookie") == "a=b"
    assert server.requests[1].header("Cookie") is None


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used before"])
@pytest.mark.parametrize("where", ["headers", "body"])
def test_session_cancel_works(
    server: LLMServer, client: Client, session: requests.Session, where: str, used: bool
) -> None:
    """A reader blocked on a connection of the caller's session wakes as quickly as on llmbridge's own."""
    if used:
        session.get(server.root + "/v1/models")
    server.script(Reply("x", header_delay=20) if where == "headers" else Reply(raw=[head(), event("a"), HOLD]))
    stream = client.chat("x", session=session)
    ended: list[BaseException] = []

    def read() -> None:
        try:
            list(stream)
        except LLMBridgeError as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    server.wait_for_requests(2 if used else 1)
    time.sleep(0.1)
    stream.cancel()
    thread.join(30)
    waiting = thread.is_alive()
    if waiting:
        server.close()
        thread.join()
    assert not waiting
    assert isinstance(ended[0], Cancelled)
    assert server.requests[-1].gone.wait(30)


def test_session_calls_can_be_cancelled_however_many_connections_were_idle(
    server: LLMServer, client: Client, session: requests.Session
) -> None:
    """Connections left in the pool by the caller's own requests are replaced by ones that can be woken."""
    held = [session.get(server.root + "/v1/models", stream=True) for _ in range(3)]
    assert all(response.json() for response in held)
    assert server.connections == 3
    server.default = Reply("x", header_delay=20)
    streams = [client.chat("x", session=session) for _ in held]
    ended: list[BaseException] = []

    def read(stream: ChatStream) -> None:
        try:
            stream.complete()
        except LLMBridgeError as error:
            ended.append(error)

    threads = [threading.Thread(target=read, args=(stream,)) for stream in streams]
    for number, thread in enumerate(threads):
        thread.start()
        server.wait_for_requests(4 + number)
    time.sleep(0.1)
    for stream in streams:
        stream.cancel()
    for thread in threads:
        thread.join(30)
    waiting = sum(thread.is_alive() for thread in threads)
    if waiting:
        server.close()
        for thread in threads:
            thread.join()
    assert not waiting
    assert [type(error) for error in ended] == [Cancelled] * 3


def test_session_requests_of_the_callers_own_keep_their_debug_output(
    server: LLMServer,
    client: Client,
    session: requests.Session,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`http.client`'s debug output would show the key: it is switched off for calls, and only for these."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    client.chat("x", session=session).complete()
    assert capsys.readouterr().out == ""
    session.get(server.root + "/v1/models").close()
    assert "GET /v1/models" in capsys.readouterr().out
    assert server.connections == 1


@pytest.mark.slow
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used before"])
@pytest.mark.parametrize("clock", ["first_content", "idle", "total"])
def test_session_clocks_work(
    server: LLMServer, client: Client, session: requests.Session, clock: str, used: bool
) -> None:
    """Timeouts work over the caller's session too."""
    if used:
        session.get(server.root + "/v1/models")
    pings = [b": ping\n\n", 0.05] * 600
    server.script(Reply(raw=[head(), *([event("a")] if clock == "idle" else []), *pings]))
    started = time.monotonic()
    with pytest.raises(ClockExpired) as caught:
        list(client.chat("x", session=session, timeout=Timeout(**{clock: 0.3})))
    assert caught.value.clock == clock
    assert time.monotonic() - started < 20


def test_session_breaks_are_seen_by_the_server(server: LLMServer, client: Client, session: requests.Session) -> None:
    """Leaving the loop closes the connection, and the session continues with others."""
    server.script(Reply(raw=[head(), event("a"), HOLD]))
    for _ in client.chat("x", session=session):
        break
    assert server.requests[0].gone.wait(30)
    assert client.chat("x", session=session).complete().text


def test_session_truncation_is_noticed(server: LLMServer, client: Client, session: requests.Session) -> None:
    """A truncated body is noticed as on llmbridge's own connections."""
    server.script(Reply(["a", "b"], finish_reason=None, end_mark=False), Reply(["a"] * 50, cut=600))
    for _ in range(2):
        with pytest.raises(StreamTruncated):
            list(client.chat("x", session=session))


def test_session_that_is_dropped_is_collected(server: LLMServer) -> None:
    """A session used once with `chat` is not kept alive forever by the package's own client."""
    session = requests.Session()
    chat("x", "openai:m", base_url=server.base_url("openai"), session=session, api_key=KEY).complete()
    gone = weakref.ref(session)
    session.close()
    del session
    gc.collect()
    for _ in range(40):
        with requests.Session() as other:
            chat("x", "openai:m", base_url=server.base_url("openai"), session=other, api_key=KEY).complete()
    del other
    gc.collect()
    assert gone() is None


def test_session_threads_may_share_one(server: LLMServer, client: Client, session: requests.Session) -> None:
    """Calls of several threads over one session do not mix."""
    answers: dict[int, str] = {}

    def run(number: int) -> None:
        answers[number] = "".join(client.chat(f"number {number}", session=session))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers[number].endswith(f"number {number}") for number in range(8))


@responses.activate
@pytest.mark.parametrize("own", [True, False], ids=["own", "foreign"])
def test_responses_mocks_work(session: requests.Session, own: bool) -> None:
    """Users who mock `requests` in their tests see the request, and the mocked answer is streamed."""
    responses.post(URL, body=BODY, content_type="text/event-stream", headers={"X-Request-Id": "r-1"})
    stream = chat("Привет", "openai:m", api_key=KEY, session=None if own else session)
    assert list(stream) == ["При", "вет"]
    assert (stream.finish_reason, stream.request_id) == ("stop", "r-1")
    sent = responses.calls[0].request
    assert sent.headers["Authorization"] == f"Bearer {KEY}"
    assert b'"stream": true' in (sent.body or b"")  # type: ignore[operator]


@responses.activate
@pytest.mark.parametrize("own", [True, False], ids=["own", "foreign"])
def test_responses_mocked_errors_work(session: requests.Session, own: bool) -> None:
    """Mocked statuses, exceptions and unknown URLs are errors of the tree."""
    responses.post(URL, status=429, json={"error": {"message": "slow"}}, headers={"Retry-After": "9"})
    options: dict[str, Any] = {"api_key": KEY, "retries": 0, "session": None if own else session}
    with pytest.raises(RateLimited, match="slow") as caught:
        list(chat("x", "openai:m", **options))
    assert caught.value.retry_after == 9
    responses.reset()
    responses.post(URL, body=requests.exceptions.ConnectionError("no"))
    with pytest.raises(LLMBridgeError):
        list(chat("x", "openai:m", **options))
    responses.reset()
    with pytest.raises(LLMBridgeError):
        list(chat("x", "openai:m", **options))


@responses.activate
@pytest.mark.parametrize("own", [True, False], ids=["own", "foreign"])
def test_an_error_of_tls_that_another_package_made_is_one_of_the_tree(session: requests.Session, own: bool) -> None:
    """urllib3's pyOpenSSL raises them without the interpreter's attributes."""
    responses.post(URL, body=requests.exceptions.SSLError(ssl.SSLError("bad handshake: quoted")))
    with pytest.raises(ConnectFailed) as caught:
        list(chat("x", "openai:m", api_key=KEY, retries=0, session=None if own else session))
    assert "quoted" not in caught.value.message


@responses.activate
def test_a_server_that_demands_a_client_certificate() -> None:
    """The error says how to give one. What the server says arrives only if the connection outlives it."""
    alert = "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2580)"
    responses.post(URL, body=requests.exceptions.ConnectionError(ssl.SSLError(1, alert)))
    with pytest.raises(ConnectFailed, match="demands a client certificate: pass session=") as caught:
        list(chat("x", "openai:m", api_key=KEY, retries=2))
    assert caught.value.final
    assert len(responses.calls) == 1


@responses.activate
def test_responses_mocks_work_for_the_ancestors() -> None:
    """A class that is used without a client can be mocked as well."""
    responses.post("https://app.vitalentum.io/api/converse-edge", body=BODY, content_type="text/event-stream")
    assert "".join(Vitalentum.create_completion("gpt-3.5-turbo", "x")) == "Привет"


@responses.activate
def test_responses_mocks_of_cut_bodies_are_truncated() -> None:
    """Mocked answers need their end mark, too."""
    responses.post(URL, body=event("a").decode(), content_type="text/event-stream")
    with pytest.raises(StreamTruncated) as caught:
        list(chat("x", "openai:m", api_key=KEY))
    assert caught.value.partial == "a"


def give_auth(session: requests.Session) -> None:
    """An auth in a header."""
    session.auth = HTTPBasicAuth("user", "password")


def give_header(session: requests.Session) -> None:
    """A header with a secret."""
    session.headers["X-Api-Key"] = "of-one-service"


def give_parameter(session: requests.Session) -> None:
    """Some services take the key in the URL."""
    session.params = {"key": "of-one-service"}


def give_cookie(session: requests.Session) -> None:
    """Without a domain it is sent everywhere."""
    session.cookies.set("login", "of-one-service")


GIVEN = pytest.mark.parametrize("give", [give_auth, give_header, give_parameter, give_cookie])


@GIVEN
def test_session_with_credentials_is_for_one_service(session: requests.Session, give: Any) -> None:
    """A list of models would send them to each service: rejected, with advice, before anything is sent."""
    several = ["openai:a", "ollama:b"]
    assert Client(several, session=session)
    give(session)
    client, plain = Client(), Client("openai:a", base_url="http://127.0.0.1:9")
    for ask in (
        lambda: Client(several, session=session),
        lambda: client.chat("x", several, session=session),
        lambda: chat("x", several, session=session),
        lambda: Client([plain, "openai:b"], session=session),
        lambda: Client("openai:a", session=session).chat("x", several),
    ):
        with pytest.raises(ConfigError, match=r"session holds credentials.*pass a Client for each"):
            ask()
    assert Client(["openai:a", "openai:b"], session=session)
    assert Client([Client("openai:a", session=session), "ollama:b"])


@GIVEN
@pytest.mark.parametrize("own", ["openai:a", ["openai:a", "openai:b"]], ids=["one model", "several of one service"])
def test_session_with_credentials_stays_behind_like_the_key(
    server: LLMServer, session: requests.Session, monkeypatch: pytest.MonkeyPatch, give: Any, own: Any
) -> None:
    """The session is left out if a call names another provider; without credentials it is used."""
    monkeypatch.setenv("OLLAMA_HOST", server.root)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url("openai"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    session.headers["X-Team"] = "blue"
    with Client(own, session=session, retries=0) as client:
        client.chat("x", "ollama:m").complete()
        assert server.requests[-1].header("X-Team") == "blue"
        give(session)
        client.chat("x", "ollama:m").complete()
        client.embed("x", "ollama:m")
        client.models("ollama")
        assert [received.header("X-Team") for received in server.requests[1:]] == [None] * 3
        client.chat("x").complete()
        client.chat("x", "ollama:m", session=session).complete()
        assert [received.header("X-Team") for received in server.requests[4:]] == ["blue"] * 2

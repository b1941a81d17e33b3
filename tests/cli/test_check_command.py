"""`llmbridge check` and `llmbridge models PROVIDER`: what works now, and which models there are."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback import Listener, free_port
from test_command import one_line, unwrapped

from llmbridge import providers
from llmbridge.cli import main
from llmbridge.provider import Provider
from llmbridge.providers.compatible import SERVICES
from llmbridge.providers.demo import Demo
from llmbridge.providers.local import Local
from llmbridge.providers.openai import OpenAICompatible
from llmbridge.testing import LLMServer, Received, Reply

KEY = "sk-check-0123456789"


def models_reply(*names: str) -> Reply:
    """A list of models in OpenAI's form."""
    return Reply(
        body=json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]}),
        content_type="application/json",
    )


Add = Callable[..., type[Provider]]


@pytest.fixture
def add(_no_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Add:
    """Adds a provider; besides these there is only the demo."""
    monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", str(tmp_path / "keys.json"))
    known: dict[str, type[Provider]] = {"demo": Demo}
    monkeypatch.setattr("llmbridge.providers.known", lambda: dict(known))

    def made(name: str, base_url: str, **data: Any) -> type[Provider]:
        provider = type(name, (OpenAICompatible,), {"name": name, "base_url": base_url, "key_env": (), **data})
        known[name] = provider
        monkeypatch.setitem(providers._registered, name, provider)
        return provider

    return made


def _read_all(sock: socket.socket) -> None:
    """Reads everything, and answers nothing."""
    while sock.recv(65536):
        continue


def table(out: str) -> dict[str, list[str]]:
    """The cells of each line by the first one."""
    rows = [[cell for cell in line.split("  ") if cell.strip()] for line in unwrapped(out).splitlines()]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_what_works_is_shown_with_its_models(add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Name, state, seconds, number of models and the first names; exit code 0 if one of them works."""
    add("mine", server.base_url("openai"))
    add("dead", f"http://127.0.0.1:{free_port()}/v1")
    server.script(models_reply("m-one", "m-two", "m-three", "m-four"))
    assert main(["check"]) == 0
    out, err = capsys.readouterr()
    rows = table(out)
    assert rows["mine"][0] == "works"
    assert rows["mine"][1].endswith(" s")
    assert rows["mine"][2] == "4 models: m-one, m-two, m-three, ..."
    assert rows["dead"][0] == "not running"
    assert next(iter(rows)) == "mine"
    assert err == ""
    assert [request.route for request in server.requests] == ["/v1/models"]


def test_the_demo_is_shown_and_does_not_count(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    """It always works; alone it gives exit code 1, and a line with advice."""
    assert main(["check"]) == 1
    out, err = capsys.readouterr()
    assert table(out)["demo"][0] == "works"
    assert "does not count" in out
    assert "llmbridge keys set" in one_line(err)


def test_the_demo_that_is_named_works(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    """A provider that is named counts, even the demo."""
    assert main(["check", "demo"]) == 0
    assert capsys.readouterr().err == ""


def test_what_is_not_set_up_gets_no_request(add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Providers without key, address or list, and offline ones, show what they lack."""
    add("keyless", server.base_url("openai"), needs_key=True, key_env=("KEYLESS_API_KEY",))
    add("nowhere", "", base_url_env="NOWHERE_URL")
    add("gone", server.base_url("openai"), working=False, note="offline since then")
    add("listless", server.base_url("openai"), models_path="")
    assert main(["check"]) == 1
    rows = table(capsys.readouterr().out)
    assert rows["keyless"] == ["no key", "set KEYLESS_API_KEY"]
    assert rows["nowhere"] == ["no address", "set NOWHERE_URL, or use --base-url"]
    assert rows["gone"] == ["offline", "offline since then"]
    assert rows["listless"][0] == "unchecked"
    assert not server.requests


def test_several_that_are_not_set_up_share_a_line(
    add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """What works, and what fails, has a line each."""
    server.default = models_reply("m")
    for number in range(3):
        add(f"keyless{number}", "http://127.0.0.1:9", needs_key=True, key_env=(f"KEYLESS{number}_API_KEY",))
        add(f"mine{number}", server.base_url("openai"))
    assert main(["check"]) == 0
    rows = table(capsys.readouterr().out)
    assert {name: cells[0] for name, cells in rows.items()} == {
        **dict.fromkeys(["demo", "mine0", "mine1", "mine2"], "works"), "3 others": "no key",
    }  # fmt: skip
    assert rows["3 others"][1] == "keyless0, keyless1, keyless2"


@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_key_sets_a_provider_up(
    add: Add, server: LLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    """From the environment or the keys file; it is sent, but not shown."""
    from llmbridge.keys import set_key

    add("keyed", server.base_url("openai"), needs_key=True, key_env=("KEYED_API_KEY",))
    if where == "file":
        set_key("keyed", KEY)
    else:
        monkeypatch.setenv("KEYED_API_KEY", KEY)
    server.script(models_reply("m"))
    assert main(["check", "keyed", "--debug"]) == 0
    out, err = capsys.readouterr()
    assert "1 model: m" in out
    assert KEY not in out + err
    assert server.requests[0].header("Authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=401, body=json.dumps({"error": {"message": f"bad key {KEY}"}})), "bad key ***"),
        (Reply(status=500, body="oops"), "500"),
        (Reply(body="<html>", content_type="text/html"), ""),
        (Reply(body="{}", content_type="application/json"), ""),
    ],
    ids=["401", "500", "HTML", "another shape"],
)
def test_what_fails_says_why(
    add: Add,
    server: LLMServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reply: Reply,
    said: str,
) -> None:
    """In one line of the table, without the key and after one request; the exit code is 1."""
    add("keyed", server.base_url("openai"), needs_key=True, key_env=("KEYED_API_KEY",))
    monkeypatch.setenv("KEYED_API_KEY", KEY)
    server.script(reply)
    assert main(["check", "keyed"]) == 1
    out, err = capsys.readouterr()
    assert table(out)["keyed"][0] == "fails"
    assert said in out
    assert KEY not in out + err
    assert unwrapped(out).count("\n") == 1
    assert len(server.requests) == 1


def test_a_silent_server_is_given_up(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    """After --timeout seconds, which the line says."""
    with Listener() as silent:
        add("silent", f"http://127.0.0.1:{silent.port}/v1")
        assert main(["check", "--timeout", "0.2"]) == 1
    assert table(capsys.readouterr().out)["silent"] == ["fails", "the call did not end within 0.2 s"]


def test_all_get_requests_at_the_same_time(add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """No answer comes before the last request."""
    all_asked = threading.Barrier(5)

    def answer(received: Received) -> Reply:
        all_asked.wait(10)
        return models_reply("m")

    server.default = answer
    for number in range(5):
        add(f"mine{number}", server.base_url("openai"))
    assert main(["check", "--timeout", "20"]) == 0
    rows = table(capsys.readouterr().out)
    assert [rows[f"mine{number}"][0] for number in range(5)] == ["works"] * 5


def test_a_name_decides_alone(add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the named provider is called and shown."""
    add("mine", server.base_url("openai"))
    add("dead", f"http://127.0.0.1:{free_port()}/v1")
    server.script(models_reply("m"))
    assert main(["check", "dead"]) == 1
    assert main(["check", "mine"]) == 0
    assert list(table(capsys.readouterr().out)) == ["dead", "mine"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", [[], ["mine"]])
def test_another_address_is_used(
    add: Add, server: LLMServer, name: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """--base-url replaces the address; without a name it is an OpenAI-compatible server."""
    add("openai-compatible", "")
    add("mine", "http://127.0.0.1:9")
    server.script(models_reply("m"))
    assert main(["check", *name, "--base-url", server.base_url("openai")]) == 0
    assert list(table(capsys.readouterr().out)) == (name or ["openai-compatible"])


def test_json_has_everything(add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """All models, seconds as a number, errors by class."""
    add("mine", server.base_url("openai"))
    add("dead", f"http://127.0.0.1:{free_port()}/v1")
    add("keyless", "http://127.0.0.1:9", needs_key=True, key_env=("KEYLESS_API_KEY",))
    server.script(models_reply(*"abcdef"))
    assert main(["check", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    rows = {row.pop("name"): row for row in found["providers"]}
    assert found["works"] is True
    assert 0 <= rows["mine"].pop("seconds") < 5
    assert rows["mine"] == {"state": "works", "counts": True, "models": list("abcdef")}
    assert rows["dead"]["error"]["type"] == "ConnectFailed"
    assert rows["keyless"]["state"] == "no key"
    assert rows["demo"]["counts"] is False
    assert err == ""


def test_names_of_models_give_a_terminal_no_commands(
    add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences are shown, and line ends do not break the table."""
    add("mine", server.base_url("openai"))
    server.script(models_reply("a\x1b]52;c;ZXZpbA==\x07", "b\nc", "d" * 500))
    assert main(["check", "mine"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert unwrapped(out).count("\n") == 1
    assert len(out) < 300


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["nobody-knows-it"], "unknown provider"),
        (["dmeo"], "demo"),
        (["--timeout", "-1"], "positive"),
        (["--timeout", "soon"], "--timeout"),
        (["demo", "--base-url", "ftp://x"], "http"),
        (["--proxy", "gopher://x"], "proxy"),
        (["demo", "demo"], "unrecognized"),
    ],
)
def test_a_wrong_command_is_code_2(add: Add, words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is wrong; no request is sent."""
    assert main(["check", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert hint in one_line(err)


def test_a_provider_of_another_package_that_breaks_stops_no_other(
    add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any exception is caught; only its class is shown, as its message may hold anything."""

    def broken(document: Any) -> list[str]:
        raise RuntimeError(f"\x1b {document}")

    add("broken", server.base_url("openai"), decode_models=staticmethod(broken))
    add("mine", server.base_url("openai"))
    server.default = models_reply("m")
    assert main(["check"]) == 0
    rows = table(capsys.readouterr().out)
    assert rows["mine"][0] == "works"
    assert rows["broken"] == ["fails", "unexpected RuntimeError"]


def test_every_local_server_of_the_package_is_tried() -> None:
    """Rows for servers on this computer have loopback addresses, and need no key."""
    from llmbridge.cli._setup import setups

    local = {setup.provider.name: setup.host for setup in setups() if setup.local and setup.state == "ready"}
    expected = {
        "ollama": "11434",
        "llamacpp": "8080",
        "llamafile": "8080",
        "lmstudio": "1234",
        "vllm": "8000",
        "transformers": "8000",
    }
    assert {name: local[name].rpartition(":")[2] for name in expected} == expected


def test_a_wrong_variable_affects_only_its_provider(
    add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other providers are tried, and the variable is named."""
    add("wrong", server.base_url("openai"), base_url_env="WRONG_BASE_URL")
    add("mine", server.base_url("openai"))
    monkeypatch.setenv("WRONG_BASE_URL", "http://[rubbish")
    server.default = models_reply("m")
    assert main(["check"]) == 0
    rows = table(capsys.readouterr().out)
    assert rows["mine"][0] == "works"
    assert rows["wrong"][0] == "bad address"
    assert "the environment variable WRONG_BASE_URL is not a URL" in rows["wrong"][1]


def test_local_is_one_of_the_servers(
    add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not counted if it works, and shows its error if it is named and fails."""
    for name in Local.servers:
        monkeypatch.setenv(SERVICES[name].base_url_env, f"http://127.0.0.1:{free_port()}/v1")
    monkeypatch.setattr("llmbridge.providers.known", lambda: {"local": Local, "demo": Demo, **SERVICES})
    assert main(["check", "local"]) == 1
    assert capsys.readouterr().out.rstrip().endswith(")")
    monkeypatch.setenv("VLLM_BASE_URL", server.base_url("openai"))
    server.default = models_reply("m")
    assert main(["check"]) == 0
    rows = table(capsys.readouterr().out)
    assert rows["local"][-1] == "1 model: m (the first local server that answers)"
    assert rows["demo"][-1] == "1 model: demo (always; does not count)"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_it_at_once() -> None:
    """Without waiting for silent servers."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from llmbridge.cli import main; sys.exit(main())"
    )
    environment = {**os.environ, "LLMBRIDGE_KEYS_FILE": os.devnull, "OPENAI_API_KEY": KEY}
    with Listener(_read_all) as silent:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "check", "openai", "--timeout", "60",
             "--base-url", f"http://127.0.0.1:{silent.port}/v1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )  # fmt: skip
        end = time.monotonic() + 20
        while not silent.accepted and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"\n", b"")


# -- the live list ----------------------------------------------------------------------------------------------------


def test_the_models_of_a_provider_are_what_m_takes(
    add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line per model, prefixed by the provider."""
    add("mine", server.base_url("openai"))
    server.default = models_reply("m-one", "org/m-two")
    assert main(["models", "mine"]) == 0
    assert capsys.readouterr() == ("mine:m-one\nmine:org/m-two\n", "")
    assert main(["models", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["mine:m-one", "mine:org/m-two"]


def test_a_provider_without_models_says_so(add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list is not an error."""
    add("mine", server.base_url("openai"))
    server.script(models_reply())
    assert main(["models", "mine"]) == 0
    out, err = capsys.readouterr()
    assert (out, "no models" in one_line(err)) == ("", True)


def test_models_that_cannot_be_listed_are_an_error(
    add: Add, server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 if the service failed, 2 if the command is wrong."""
    add("mine", server.base_url("openai"))
    add("listless", server.base_url("openai"), models_path="")
    server.script(Reply(status=403, body="no"))
    codes = [main(["models", *words]) for words in (["mine"], ["listless"], ["mien"], ["--base-url", server.root])]
    lines = capsys.readouterr().err.splitlines()
    assert codes == [1, 2, 2, 2]
    assert "mine" in lines[2]
    assert len(lines) == 4


def test_the_list_of_all_as_json(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    """The values for -m, and the state of each."""
    add("keyless", "http://127.0.0.1:9", needs_key=True, key_env=("KEYLESS_API_KEY",))
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"model": "demo", "state": "ready"},
        {"model": "keyless:MODEL", "state": "needs KEYLESS_API_KEY"},
    ]

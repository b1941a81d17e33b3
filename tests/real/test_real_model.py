"""What only a real server shows: tokens, slots, a full context, grammars and a prompt cache.

The server is llama.cpp's, with a small model. Its words do not matter; where they do, a grammar sets them.
Without server and model (see install.py), the tests are skipped.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from loopback import free_port
from modes import Mode

from llmbridge import Cancelled, Client, ContextLengthExceeded, InvalidOutput, ProtocolError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
MODEL = os.environ.get("REAL_MODEL", "")
CONTEXT = 256
"""Tokens of each of a server's two slots."""


@contextlib.contextmanager
def _serving(purpose: str) -> Iterator[str]:
    if not (importlib.util.find_spec("xllamacpp") and Path(MODEL).is_file()):
        pytest.skip("no real model: run `tox -e real`, or see tests/real/install.py and set REAL_MODEL")
    command = [sys.executable, str(Path(__file__).with_name("serve.py")), MODEL, purpose, str(CONTEXT)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
            server.communicate(timeout=60)  # closing its input ends it
        finally:
            server.kill()


@pytest.fixture(scope="session")
def chats() -> Iterator[str]:
    """The address of a chat server."""
    with _serving("chat") as address:
        yield address


@pytest.fixture(scope="session")
def embeddings() -> Iterator[str]:
    """The address of an embeddings server."""
    with _serving("embedding") as address:
        yield address


@dataclass
class Person:
    """The requested object."""

    name: str
    age: int


@pytest.fixture
def model(chats: str) -> Iterator[Client]:
    """A client of the chat server."""
    options: dict[str, Any] = {"temperature": 0, "seed": 1}
    with Client("llamacpp:smollm2", base_url=f"{chats}/v1", retries=0, timeout=280, **options) as client:
        yield client


def busy(address: str) -> int:
    """How many slots are busy."""
    return sum(slot["is_processing"] for slot in requests.get(f"{address}/slots", timeout=60).json())


def predicted(address: str) -> int:
    """How many tokens the server has generated so far."""
    lines = requests.get(f"{address}/metrics", timeout=60).text.splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("llamacpp:tokens_predicted_total")))


def until_idle(address: str) -> None:
    """Waits until the server is idle, at most as long as a test may take."""
    while busy(address):
        time.sleep(0.01)


def test_a_stream(model: Client, mode: Mode) -> None:
    """Pieces of one token each make up the whole answer, with the service's counts."""
    outcome = mode.read(model.chat("Name three colors.", max_tokens=12))
    assert outcome.error is None
    assert len(outcome.pieces) > 3
    whole = mode.complete(model.chat("Name three colors.", max_tokens=12))
    assert whole.text == "".join(outcome.pieces)
    assert whole.served_model == "smollm2"
    assert whole.usage is not None
    assert 0 < (whole.usage.output_tokens or 0) <= 12


def test_characters_of_several_tokens(model: Client, mode: Mode) -> None:
    """A character whose bytes come in several tokens is in one piece."""
    text = "🦜 привет 你好 🦜"
    outcome = mode.read(model.chat("x", grammar=f"root ::= {json.dumps(text, ensure_ascii=False)}"))
    assert "".join(outcome.pieces) == text


def test_a_stop_across_tokens(model: Client, mode: Mode) -> None:
    """The stop text is not in the answer, wherever the tokens end."""
    stream = model.chat("x", grammar='root ::= "one, two, three, four"', stop=["wo, th"])
    assert "".join(mode.read(stream).pieces) == "one, t"
    assert stream.finish_reason == "stop"


def test_the_longest_answer(model: Client, mode: Mode) -> None:
    """An answer cut at max_tokens says so."""
    assert mode.complete(model.chat("Tell a story.", max_tokens=3, ignore_eos=True)).finish_reason == "length"


@pytest.mark.parametrize("way", ["cancel", "break"])
def test_a_call_that_is_left_frees_its_slot(model: Client, chats: str, mode: Mode, way: str) -> None:
    """The server stops in the middle of an answer that would have filled its context."""
    until_idle(chats)
    before = predicted(chats)
    stream = model.chat("Tell a long story.", ignore_eos=True)
    seen: list[str] = []

    def leave(piece: str) -> bool:
        seen.append(piece)
        if way == "cancel" and len(seen) == 3:
            stream.cancel()
        return way == "break" and len(seen) == 3

    if way == "cancel":
        with pytest.raises(Cancelled):
            mode.each(stream, leave)
    else:
        mode.each(stream, leave)
    assert stream.text == "".join(seen)
    until_idle(chats)
    assert predicted(chats) - before < 150


def test_a_full_context(model: Client, mode: Mode) -> None:
    """A prompt that is too long is rejected; an answer that fills the context is cut, and says so."""
    assert isinstance(mode.read(model.chat("word " * 400)).error, ContextLengthExceeded)
    assert mode.complete(model.chat("word " * 180, ignore_eos=True)).finish_reason == "length"


def test_a_schema(model: Client, mode: Mode) -> None:
    """The server's grammar makes an object, which comes whole or growing."""
    options: dict[str, Any] = {"schema": Person, "max_tokens": 60}
    whole = mode.complete(model.chat("John is 30 years old.", **options))
    assert isinstance(whole.parsed, Person)
    parts = mode.read(model.chat("John is 30 years old.", **options).objects()).pieces
    assert parts[-1] == asdict(whole.parsed)


def test_a_schema_that_is_cut(model: Client, mode: Mode) -> None:
    """An object cut at max_tokens raises an error with the text so far and the reason."""
    with pytest.raises(InvalidOutput, match="max_tokens") as caught:
        mode.complete(model.chat("John is 30 years old.", schema=Person, max_tokens=8))
    assert caught.value.partial.startswith("{")


def test_a_conversation_uses_the_prompt_cache(model: Client, mode: Mode) -> None:
    """The second turn repeats the first, which the server has read already."""
    talk = model.conversation(system="You are a sailor who speaks of the sea, of ships and of nothing else.")
    first = mode.complete(talk.ask("Who are you?", max_tokens=8)).usage
    second = mode.complete(talk.ask("And then?", max_tokens=4)).usage
    assert first is not None
    assert second is not None
    assert (second.cached_input_tokens or 0) >= (first.input_tokens or 0) // 2 > 0
    assert len(talk.messages) == 4


def test_sixteen_calls_on_two_slots(model: Client, chats: str, mode: Mode) -> None:
    """They wait for each other in the server, and all finish."""
    until_idle(chats)
    texts = [f"number {number}" for number in range(16)]
    found = mode.at_once([model.chat("x", grammar=f"root ::= {json.dumps(text)}") for text in texts])
    assert ["".join(pieces) for pieces in found] == texts
    assert busy(chats) == 0


def test_embeddings(embeddings: str) -> None:
    """Vectors of the model's own length, close for close texts; another length is an error."""
    with Client("llamacpp:smollm2", base_url=f"{embeddings}/v1", retries=0, timeout=280) as client:
        vectors = client.embed(["a bridge over a river", "a bridge over the river", "seven"])
        assert len(vectors) == 3
        assert vectors.usage is not None
        near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
        assert near > far
        coded = client.embed(["a bridge over a river"], encoding_format="base64")
        assert list(coded[0]) == pytest.approx(list(vectors[0]), abs=1e-3)
        with pytest.raises(ProtocolError, match=f"64|{len(vectors[0])}"):
            client.embed(["a bridge"], dimensions=64)


@pytest.mark.parametrize("dialect", ["anthropic", "openai-responses"])
def test_the_servers_other_dialects(chats: str, mode: Mode, dialect: str) -> None:
    """Messages and Responses work as well."""
    base_url = chats if dialect == "anthropic" else f"{chats}/v1"
    with Client(f"{dialect}:smollm2", base_url=base_url, api_key="none", retries=0, timeout=280) as client:
        whole = mode.complete(client.chat("Name three colors.", temperature=0, max_tokens=8))
    assert whole.text
    assert whole.usage is not None
    assert whole.usage.output_tokens == 8


@pytest.mark.parametrize("command", [["check", "local"], ["chat", "-m", "local", "--usage", "Say yes."]])
def test_the_command_finds_it(chats: str, command: list[str]) -> None:
    """`local` finds this server."""
    places = {"LLAMACPP_BASE_URL": f"{chats}/v1", "OLLAMA_HOST": f"127.0.0.1:{free_port()}"}
    done = subprocess.run(
        [sys.executable, "-m", "llmbridge", *command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **places, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

"""A row needs one entry, a dialect one module and its test: both in packages of their own, found by entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmbridge import providers

ROW = """
from llmbridge import compatible

Acme = compatible("acme", base_url="https://api.acme.example/v1", key_env="ACME_API_KEY", refused={"n": "only one"})
"""

DIALECT = '''
"""Acme's own dialect: turns in, lines of what is said out."""

from llmbridge import Finish, Provider, Usage
from llmbridge.events import END
from llmbridge.provider import Encoded, frame_json
from llmbridge.service_errors import error_in_stream


class Acme(Provider):
    """Acme."""

    name = "acme"
    base_url = "https://talk.acme.example"
    path = "/talk"
    key_env = ("ACME_API_KEY",)
    needs_key = True
    note = "set ACME_API_KEY"

    @classmethod
    def encode(cls, request):
        turns = [{"by": turn.role, "say": turn.text} for turn in request.messages]
        return Encoded({"who": request.model, "turns": turns, **request.params}, cls.path)

    @classmethod
    def decode(cls, frame):
        said = frame_json(frame)
        if "fault" in said:
            raise error_in_stream({"error": said["fault"]})
        if said.get("say"):
            yield said["say"]
        if said.get("over"):
            yield Usage(output_tokens=said.get("words"))
            yield Finish("stop", said["over"])
            yield END
'''

TEST_OF_THE_DIALECT = """
import pytest
from llmbridge import ServiceError, chat
from llmbridge.testing import LLMServer, Reply

SAID = 'data: {"say": "Hel"}\\n\\ndata: {"say": "lo"}\\n\\n'


@pytest.fixture
def server():
    with LLMServer() as running:
        yield running


def ask(server, **options):
    return chat("Hi", "acme:a1", base_url=server.root, api_key="k-0123456789", proxy=False, **options)


def test_an_answer(server):
    server.script(Reply(body=SAID + 'data: {"over": "all said", "words": 1}\\n\\n'))
    done = ask(server, mood="calm").complete()
    assert (done.text, done.finish_reason, done.usage.output_tokens) == ("Hello", "stop", 1)
    assert server.requests[0].json == {"who": "a1", "turns": [{"by": "user", "say": "Hi"}], "mood": "calm"}
    assert server.requests[0].path == "/talk"


def test_a_fault(server):
    server.script(Reply(body=SAID + 'data: {"fault": "tired"}\\n\\n'))
    with pytest.raises(ServiceError, match="tired") as caught:
        ask(server).complete()
    assert caught.value.partial == "Hello"


def test_the_contract(server):
    from llmbridge import providers
    from llmbridge.messages import ChatRequest

    acme = providers.find("acme")
    assert providers.known()["acme"] is acme
    assert acme.encode(ChatRequest.checked("m", "Hi", {})).path == "/talk"
"""

USE_OF_THE_ROW = """
import sys
from llmbridge import InvalidRequest, MissingKey, chat, embed, models
from llmbridge.testing import LLMServer, Reply

try:
    chat("Hi", "acme:a1")
except MissingKey as error:
    print(error)
with LLMServer(Reply(["Hel", "lo"], models=["a1"])) as server:
    asked = {"base_url": server.base_url("openai"), "api_key": "k-0123456789", "proxy": False}
    print(*chat("Hi", "acme:a1", **asked), sep="|")
    print(*chat("Hi", "acme/a1", **asked), sep="|")
    print(models("acme", **asked), len(embed(["a", "b"], "acme:e", **asked)))
    print(server.requests[0].path, server.requests[0].header("Authorization"))
    try:
        chat("Hi", "acme:a1", n=2, **asked)
    except InvalidRequest as error:
        print(error)
names = (name.split(".") for name in sys.modules if name.startswith("llmbridge.providers."))
print(*sorted({name[2] for name in names if name[2][0] != "_"}))
"""


def package(folder: Path, code: str) -> dict[str, str]:
    """Installs a package by hand; returns the environment for a program that finds it."""
    metadata = folder / "acme_llm-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-llm\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[llmbridge.providers]\nacme = acme_llm:Acme\n", encoding="utf-8")
    (folder / "acme_llm.py").write_text(code, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON", "ACME_"))}
    return {**kept, "PYTHONPATH": str(folder), "LLMBRIDGE_KEYS_FILE": os.devnull}


def run(environment: dict[str, str], *arguments: str) -> str:
    """A program's output; it must not warn."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_row_is_one_entry(tmp_path: Path) -> None:
    """Two lines of code give chats, embeddings, models, refusals, and advice about the key."""
    shown = run(package(tmp_path, ROW), "-c", USE_OF_THE_ROW).splitlines()
    assert "ACME_API_KEY" in shown[0]
    assert shown[1:5] == ["Hel|lo", "Hel|lo", "['a1'] 2", "/v1/chat/completions Bearer k-0123456789"]
    assert "acme rejects n (n: only one)" in shown[5]
    assert shown[6].split() == ["compatible", "openai"]


@pytest.mark.slow
def test_a_dialect_is_one_module_and_one_test(tmp_path: Path) -> None:
    """Some thirty lines, and a short test that pytest runs against the testing server."""
    environment = package(tmp_path, DIALECT)
    assert len(DIALECT.strip().splitlines()) <= 40
    (tmp_path / "test_acme.py").write_text(TEST_OF_THE_DIALECT, encoding="utf-8")
    shown = run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(tmp_path))
    assert "3 passed" in shown


@pytest.mark.parametrize("code", [ROW, DIALECT], ids=["row", "dialect"])
@pytest.mark.quick(1)
def test_the_command_knows_it(tmp_path: Path, code: str) -> None:
    """`llmbridge providers`, `models` and `keys` find it as well."""
    environment = package(tmp_path, code)
    lines = run(environment, "-m", "llmbridge", "providers").splitlines()
    assert any(line.split()[:3] == ["acme", "needs", "ACME_API_KEY"] for line in lines)
    with_key = {**environment, "ACME_API_KEY": "k-0123456789"}
    assert any(
        line.split()[:2] == ["acme:MODEL", "ready"] for line in run(with_key, "-m", "llmbridge", "models").splitlines()
    )


def test_a_registered_provider_needs_no_package(tmp_path: Path) -> None:
    """`register(Acme)`, in a notebook for example; it wins over a package's provider of the same name."""
    code = ROW + "\nfrom llmbridge import providers, register\n"
    code += "print(providers.find('acme') is Acme, register(Acme) is Acme, providers.find('acme') is Acme)\n"
    code += "print(providers.known()['acme'] is Acme)\n"
    path = tmp_path / "mine.py"
    path.write_text(code, encoding="utf-8")
    assert run(package(tmp_path, ROW), str(path)).split() == ["False", "True", "True", "True"]


def test_a_name_of_llmbridge_is_its_own(tmp_path: Path) -> None:
    """A package cannot replace a provider of llmbridge."""
    environment = package(tmp_path, ROW.replace('"acme"', '"openai"'))
    code = "from llmbridge.providers import find, known\nprint(find('openai').__module__, known()['openai'].__module__)"
    assert run(environment, "-c", code).split() == ["llmbridge.providers.openai"] * 2


def test_every_provider_is_found_without_the_others() -> None:
    """Its module has its name, or that name's first word, or it is a row."""
    for name, provider in providers.known().items():
        if provider.__module__.startswith("llmbridge."):
            assert providers._of_own_module(name) is provider

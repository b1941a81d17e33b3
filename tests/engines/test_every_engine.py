"""P51 with real workers: processes, loky, Dask and Ray send the rows that a plain run would."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from crews import ENGINES, answering, crew_of, nothing_left, quiet, workers_in
from told import Told

from llmbridge import BadRequest, Client, MissingKey, Retry, WorkerLost
from llmbridge.many import Row
from llmbridge.testing import LLMServer

_nothing_left = nothing_left
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Ray's own processes
_SHARD = 200  # rows, at the most


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of an engine that is installed."""
    if (package := {"dask": "distributed", "loky": "loky", "ray": "ray"}.get(request.param)) is not None:
        pytest.importorskip(package, reason=f"needs {package}", exc_type=ImportError)
    return str(request.param)


@pytest.fixture
def executor(kind: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Two workers of it."""
    with crew_of(kind, request) as found:
        yield found


@pytest.fixture
def client(server: LLMServer) -> Iterator[Client]:
    """A client that has its key from the environment."""
    server.default = answering()
    retries = Retry(backoff=0.01, max_backoff=0.05)
    with Client("openai:m", base_url=server.base_url("openai"), retries=retries, timeout=60) as made:
        yield made


def seen(row: Row[Any]) -> tuple[Any, ...]:
    """Everything about a row but how long it took."""
    said = (row.text, row.parsed, row.usage) if row.ok else (type(row.error), str(row.error))
    return (row.index, row.input, row.key, row.attempts, *said)


# -- rows -------------------------------------------------------------------------------------------------------------


def test_p51_real_workers_give_the_rows_of_a_plain_run(client: Client, executor: Any) -> None:
    """In a loop and in an event loop: the same order, keys, answers, objects and errors."""
    items = [{"id": f"k{number}", "text": f"{'bad' if number % 9 == 4 else 'row'} {number}"} for number in range(60)]

    def rows(**options: Any) -> Any:
        return client.map(items, prompt="{text}", key="id", schema=Told, **options)

    async def awaited() -> list[Row[Told]]:
        return [row async for row in rows(executor=executor)]

    plain = [seen(row) for row in rows()]
    assert [seen(row) for row in rows(executor=executor)] == plain
    assert [seen(row) for row in asyncio.run(awaited())] == plain
    assert sum(row[4] is BadRequest for row in plain) == 7
    assert plain[5][5] == Told("row 5")


SCRIPT = """
import sys
from dataclasses import dataclass

from llmbridge import Client


@dataclass
class Mine:
    text: str
    folder: str
    only: int


def shout(item):
    return f"{item}!"


def engine(kind, address):
    if kind == "dask":
        from distributed import Client

        return Client(address)
    if kind == "ray":
        import ray

        ray.init(address, log_to_driver=False)
        return "ray"
    if kind == "loky":
        from loky import get_reusable_executor

        return get_reusable_executor(2)
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return ProcessPoolExecutor(2, get_context(kind))


if __name__ == "__main__":
    kind, address, url = sys.argv[1:]
    executor = engine(kind, address)
    client = Client("openai:m", base_url=url, timeout=60)
BODY
"""


LOOP = """
from itertools import count

for row in client.map(count(), prompt=shout, executor=executor, concurrency=8):
    print(row.index, flush=True)
"""


def script(kind: str, request: pytest.FixtureRequest, server: LLMServer, tmp_path: Path, body: str) -> Any:
    """A running script whose `__main__` has the classes, as a notebook has; its workers are those of the tests."""
    address = "-"
    if kind == "dask":
        address = request.getfixturevalue("dask_crew")[0].scheduler.address
    if kind == "ray":
        request.getfixturevalue("ray_crew")
        import ray

        address = ray.get_runtime_context().gcs_address
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.replace("BODY", textwrap.indent(textwrap.dedent(body).strip(), " " * 4)), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(path), kind, address, server.base_url("openai")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )


def test_p51_a_script_may_define_its_classes_itself(
    kind: str, request: pytest.FixtureRequest, server: LLMServer, tmp_path: Path
) -> None:
    """Workers need not be able to import them, where the engine brings cloudpickle."""
    server.default = answering()
    running = script(
        kind,
        request,
        server,
        tmp_path,
        """
        rows = client.map(range(20), prompt=shout, schema=Mine, executor=executor).complete()
        print([type(row.parsed) is Mine and row.parsed.text for row in rows] == [f"{number}!" for number in range(20)])
        """,
    )
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (0, "True\n"), err


# -- workers that die -------------------------------------------------------------------------------------------------


def test_p51_a_killed_worker_loses_no_row(
    client: Client, server: LLMServer, kind: str, executor: Any, tmp_path: Path
) -> None:
    """Each row comes once, with its own answer; at most what the dead had in hand is sent twice."""
    texts = [f"row {number}" for number in range(900)]
    server.default = answering(tmp_path)
    dead = 0
    found: list[Row[Told]] = []
    for row in client.map(texts, schema=Told, executor=executor, order="done"):
        found.append(row)
        if not dead:
            dead = min(workers_in(tmp_path))
            os.kill(dead, signal.SIGKILL)
    assert sorted((row.index, row.parsed.text) for row in found) == list(enumerate(texts))
    assert workers_in(tmp_path) > {dead}
    twice = len(server.requests) - len(texts)
    assert twice <= _SHARD * (2 if kind in ("spawn", "forkserver", "loky") else 1)  # such a pool ends as a whole


def test_p51_a_row_that_kills_its_worker_costs_itself_alone(
    client: Client, server: LLMServer, kind: str, executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found among the others, which are answered."""
    if kind == "dask":  # which has three more workers die of a task before it says so
        monkeypatch.setattr(executor.cluster.scheduler, "allowed_failures", 0)
    texts = [f"row {number}" for number in range(8)]
    server.default = answering(poison="row 3")
    rows = client.map(texts, schema=Told, executor=executor).complete()
    assert [row.index for row in rows] == list(range(8))
    assert [row.index for row in rows if not row.ok] == [3]
    assert isinstance(rows[3].error, WorkerLost)
    assert all(row.parsed.text == text for row, text in zip(rows, texts, strict=True) if row.index != 3)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_p51_the_end_of_a_loop_ends_the_workers_requests(
    client: Client, server: LLMServer, executor: Any, tmp_path: Path
) -> None:
    """What they have finished by then is in the journal, and the next run uses the same workers."""
    server.default = answering(delay=0.2)
    journal = tmp_path / "journal"
    for row in client.map((f"row {number}" for number in count()), executor=executor, journal=journal, concurrency=8):
        if row.index == 3:
            break
    assert quiet(server)
    kept = len(journal.read_text(encoding="utf-8").splitlines()) - 1
    assert len(server.requests) - kept <= 2 * 8  # a shard that is just over may be lost with Ray
    assert client.map(["row again"], executor=executor).complete()[0].ok


def test_p51_ctrl_c_ends_the_workers_requests(
    kind: str, request: pytest.FixtureRequest, server: LLMServer, tmp_path: Path
) -> None:
    """A terminal interrupts the processes of a pool as well."""
    server.default = answering(delay=0.2)
    running = script(kind, request, server, tmp_path, LOOP)
    assert running.stdout.readline() == "0\n"
    os.killpg(running.pid, signal.SIGINT)
    assert quiet(server)
    out, err = running.communicate(timeout=60)
    assert running.returncode != 0, out
    assert "KeyboardInterrupt" in err


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_p51_the_end_of_the_driver_ends_the_requests_of_its_workers(
    kind: str, request: pytest.FixtureRequest, server: LLMServer, tmp_path: Path
) -> None:
    """However it ends, and wherever they are."""
    pytest.importorskip({"dask": "distributed"}.get(kind, kind), exc_type=ImportError)
    server.default = answering(delay=0.2)
    running = script(kind, request, server, tmp_path, LOOP)
    assert running.stdout.readline() == "0\n"
    running.kill()
    assert quiet(server)
    running.communicate(timeout=60)


# -- workers that cannot ----------------------------------------------------------------------------------------------


def test_p51_a_worker_without_the_key_is_named(executor: Any) -> None:
    """The run ends, and sends nothing."""
    if not isinstance(executor, str):
        executor.submit(abs, 1).result()  # it has the environment of now
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROQ_API_KEY", "gsk-of-this-process-alone")
        client = Client("groq:m")
        rows = client.map([f"row {number}" for number in range(100)], executor=executor)
        with pytest.raises(MissingKey, match=r"the worker \S+ \(process \d+\) cannot .*GROQ_API_KEY") as caught:
            rows.complete()
    assert f"process {os.getpid()})" not in str(caught.value)

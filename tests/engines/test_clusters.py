"""P51 on Dask and Ray: where a key is not, and schedulers and workers that fail or differ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from canary import KEY, sightings
from crews import answering, nothing_left, quiet, workers_in
from told import Told

from llmbridge import BadRequest, Client, ConfigError, MissingKey, WorkerLost
from llmbridge.many import Row, shard
from llmbridge.testing import LLMServer

_nothing_left = nothing_left
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Ray's own processes


@pytest.fixture
def client(server: LLMServer) -> Iterator[Client]:
    """A client that has its key from the environment."""
    server.default = answering()
    with Client("openai:m", base_url=server.base_url("openai"), timeout=60) as made:
        yield made


def written(folder: Path) -> list[str]:
    """Where the key is in the files below the folder."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            found += sightings(path.read_bytes(), str(path))
    return found


def everything_goes_wrong(client: Client, server: LLMServer, executor: Any, tmp_path: Path) -> None:
    """A run with rows that fail, one whose worker dies, and one that workers cannot begin."""
    texts = [f"{'bad' if number % 5 == 0 else 'row'} {number}" for number in range(300)]
    server.default = answering(tmp_path)
    dead = 0
    for row in client.map(texts, schema=Told, executor=executor, order="done"):
        if not dead and row.ok:
            dead = min(workers_in(tmp_path))
            os.kill(dead, signal.SIGKILL)
    assert dead
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROQ_API_KEY", KEY)
        rows = Client("groq:m").map(texts, executor=executor)
        with pytest.raises(MissingKey):
            rows.complete()


# -- keys -------------------------------------------------------------------------------------------------------------


def test_p51_dask_gets_no_key(client: Client, server: LLMServer, dask_crew: Any, tmp_path: Path) -> None:
    """Neither in its files, nor in the tasks, events and logs that scheduler and workers keep and show."""
    executor, folder = dask_crew
    states: list[bytes] = []

    def look() -> None:
        while not over.wait(0.05):
            states.append(executor.run_on_scheduler(state_of))

    over = threading.Event()
    looking = threading.Thread(target=look)
    looking.start()
    try:
        everything_goes_wrong(client, server, executor, tmp_path)
    finally:
        over.set()
        looking.join()
    logs = [executor.get_scheduler_logs(), executor.get_worker_logs(), executor.get_worker_logs(nanny=True)]
    stories = executor.run(story_of)
    assert any(b"row 7" in state for state in states), "the search has missed the tasks"
    assert "work-" in repr(stories)
    assert [place for state in states for place in sightings(state, "the scheduler")] == []
    assert sightings(repr([logs, stories]), "logs and stories") == []
    assert written(folder) == []


def state_of(dask_scheduler: Any) -> bytes:
    """Everything that the scheduler knows of tasks."""
    import cloudpickle

    tasks = [
        (task.run_spec, task.exception, task.exception_text, task.traceback_text, repr(task.metadata))
        for task in list(dask_scheduler.tasks.values())
    ]
    log = repr((list(dask_scheduler.transition_log)[-2000:], dask_scheduler.get_events()))
    packed: bytes = cloudpickle.dumps(tasks)
    return packed + log.encode()


def story_of(dask_worker: Any) -> str:
    """Everything that a worker knows of tasks."""
    state = dask_worker.state
    return repr(([repr(task) for task in state.tasks.values()], list(state.log)[-2000:], dict(state.data)))


def test_p51_ray_gets_no_key(client: Client, server: LLMServer, ray_crew: Any, tmp_path: Path) -> None:
    """It is in no file of the session: logs, events, objects that were spilled."""
    executor, folder = ray_crew
    everything_goes_wrong(client, server, executor, tmp_path)
    assert any(path.suffix in (".log", ".err", ".out") and path.stat().st_size for path in folder.rglob("*"))
    assert written(folder) == []


def test_p51_the_search_for_a_key_finds_one(tmp_path: Path) -> None:
    """In any file."""
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "task.pickle").write_bytes(b"\x80\x05" + KEY.encode() + b".")
    assert len(written(tmp_path)) == 1


# -- workers and schedulers -------------------------------------------------------------------------------------------


def test_p51_a_worker_with_another_version_is_named(client: Client, server: LLMServer, dask_crew: Any) -> None:
    """Nothing is sent by it, and the run ends."""
    executor, _ = dask_crew
    other = min(executor.run(os.getpid).items())

    def pretend(version: str) -> str:
        old, shard.__version__ = shard.__version__, version
        return old

    old = executor.run(pretend, "0.0.1", workers=[other[0]])[other[0]]
    try:
        with pytest.raises(ConfigError, match=rf"the worker \S+ \(process {other[1]}\) .* has llmbridge 0\.0\.1, not"):
            client.map([f"row {number}" for number in range(100)], executor=executor).complete()
    finally:
        executor.run(pretend, old, workers=[other[0]])
    assert quiet(server)
    assert len(server.requests) <= 50


def test_p51_rows_of_other_workers_do_not_wait_for_one_that_stands_still(
    client: Client, server: LLMServer, dask_crew: Any, tmp_path: Path
) -> None:
    """With `order="done"`; its own rows come once it goes on."""
    executor, _ = dask_crew
    server.default = answering(tmp_path)
    texts = [f"row {number}" for number in range(400)]
    stopped = 0
    found: list[Row[Told]] = []
    try:
        for row in client.map(texts, schema=Told, executor=executor, order="done"):
            found.append(row)
            if not stopped:
                stopped = min(workers_in(tmp_path))
                os.kill(stopped, signal.SIGSTOP)
            if len(found) == 150:
                os.kill(stopped, signal.SIGCONT)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert sorted((row.index, row.parsed.text) for row in found) == list(enumerate(texts))
    assert len(server.requests) == len(texts)


def test_p51_a_paused_worker_is_left_out(client: Client, dask_crew: Any) -> None:
    """The others send all rows."""
    executor, _ = dask_crew
    paused = min(executor.scheduler_info(n_workers=-1)["workers"])

    def set_status(name: str, dask_worker: Any) -> None:
        from distributed import Status

        dask_worker.status = getattr(Status, name)

    executor.run(set_status, "paused", workers=[paused])
    try:
        rows = client.map([f"row {number}" for number in range(100)], executor=executor).complete()
    finally:
        executor.run(set_status, "running", workers=[paused])
    assert all(row.ok for row in rows)


def test_a_client_of_another_package_is_one_of_dask(client: Client, dask_crew: Any) -> None:
    """As those of services that rent out clusters."""
    from distributed import Client as DaskClient

    class Rented(DaskClient):
        __module__ = "rented"

    with Rented(dask_crew[0].scheduler.address) as executor:
        assert client.map(["row 0"], executor=executor).complete()[0].ok
    with pytest.raises(WorkerLost, match="no scheduler to send rows to: it is closed"):
        client.map(["row 0"], executor=executor).complete()


def test_rows_with_much_in_them_travel_without_a_warning(client: Client, dask_crew: Any) -> None:
    """A shard has fewer of them."""
    rows = client.map((f"bad {number} {'x' * 900_000}" for number in range(28)), executor=dask_crew[0]).complete()
    assert [type(row.error) for row in rows] == [BadRequest] * 28


CLUSTER = """
import sys

from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        local_directory=sys.argv[1],
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_p51_a_scheduler_that_dies_ends_the_run(client: Client, server: LLMServer, tmp_path: Path) -> None:
    """With an error of llmbridge, and nothing is sent after it; with a journal, the next run goes on."""
    from distributed import Client as DaskClient

    server.default = answering(delay=0.1)
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER, encoding="utf-8")
    scheduler = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(tmp_path)},
        encoding="utf-8",
    )
    texts = [f"row {number}" for number in range(1500)]
    with scheduler, DaskClient(scheduler.stdout.readline().strip(), timeout=2) as executor:
        rows = iter(client.map(texts, executor=executor, journal=tmp_path / "journal"))
        assert all(row.ok for row in islice(rows, 40))
        scheduler.kill()
        with pytest.raises(WorkerLost, match="has no scheduler"):
            list(rows)
        assert quiet(server)
    before = len(server.requests)
    rows = client.map(texts, journal=tmp_path / "journal").complete()
    resumed = sum(row.resumed for row in rows)
    assert all(row.ok for row in rows)
    assert len(server.requests) - before == len(texts) - resumed > 0
    assert resumed >= 40

"""Two workers of each engine, with the key in their environment, and what they send and leave behind."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from canary import KEY

from llmbridge.testing import LLMServer, Received, Reply

if not hasattr(os, "fork"):
    pytest.skip("kills, stops and interrupts processes as POSIX does", allow_module_level=True)
pytest.importorskip("distributed", reason="needs the packages of the extra `engines`")

__all__ = ["ENGINES", "answering", "crew_of", "dask_crew", "nothing_left", "quiet", "ray_crew", "workers_in"]

ENGINES = ["spawn", "forkserver", "loky", "dask", "ray"]
ENVIRONMENT = {
    "OPENAI_API_KEY": KEY,
    "PYTHONPATH": str(Path(__file__).parent),  # for Ray's workers, to find `told`
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}
_LONGEST = 60.0


def answering(folder: Path | str = "", *, poison: str = "", delay: float = 0.01) -> Callable[[Received], Reply]:
    """What `told.Told` is made of; of "bad" questions an error."""

    def answer(received: Received) -> Reply:
        text = received.user_text
        if text.startswith("bad"):
            return Reply("it is bad", status=400)
        only = os.getpid() if text == poison else 0
        return Reply(json.dumps({"text": text, "folder": str(folder), "only": only}), header_delay=delay)

    return answer


def workers_in(folder: Path) -> set[int]:
    """The processes that have left their number there, but for this one."""
    return {int(path.name) for path in folder.iterdir()} - {os.getpid()}


def quiet(server: LLMServer) -> bool:
    """Whether no request comes any more: 2 s from now on, which is how long an end may take."""
    time.sleep(2)
    before = len(server.requests)
    time.sleep(1)
    return len(server.requests) == before


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """The environment with which workers start."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@contextlib.contextmanager
def crew_of(kind: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """What `executor=` takes, with two workers."""
    if kind in ("dask", "ray"):
        yield request.getfixturevalue(f"{kind}_crew")[0]
        return
    if kind == "loky":
        from loky import get_reusable_executor

        pool = get_reusable_executor(2)
    else:
        pool = ProcessPoolExecutor(2, multiprocessing.get_context(kind))
    try:
        yield pool
    finally:
        pool.shutdown()


@contextlib.contextmanager
def dask_crew() -> Iterator[tuple[Any, Path]]:
    """A client of a cluster on this machine, and the folder into which the cluster writes."""
    import dask
    from distributed import Client, LocalCluster

    temporary = tempfile.TemporaryDirectory(prefix="dask-")
    with _environment(), temporary as folder, dask.config.set({"temporary-directory": folder}):
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", local_directory=folder
        )
        with cluster, Client(cluster) as client:
            yield client, Path(folder)


@contextlib.contextmanager
def ray_crew() -> Iterator[tuple[str, Path]]:
    """The word for Ray, which runs with two workers, and the folder into which it writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the names of its sockets must be short
    try:
        with _environment():
            ray.init(num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
            yield "ray", Path(folder)
    finally:
        ray.shutdown()
        end = time.monotonic() + _LONGEST
        while os.path.exists(folder) and time.monotonic() < end:  # its processes write their last lines
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.1)


@pytest.fixture(autouse=True)
def nothing_left(_no_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After the test there is no thread of a run; engines have threads and descriptors of their own."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    yield
    end = time.monotonic() + _LONGEST
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("llmbridge-map")]:
        if time.monotonic() > end:
            pytest.fail(f"the test left behind: {', '.join(left)}")
        time.sleep(0.01)

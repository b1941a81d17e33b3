"""Engines: executors of other people's, which carry tasks to workers, and what a run must know of each."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from importlib import import_module
from typing import Any

from llmbridge._text import shown
from llmbridge.errors import ConfigError, WorkerLost
from llmbridge.many.shard import Watched

__all__ = ["Engine", "engine_of"]

_BACKLOG = 1024  # shards that call the driver between two looks
_STOP_SECONDS = 0.5  # to tell a scheduler
_WORKERS_OF_POOL = ("_max_workers", "num_workers")  # concurrent.futures and loky; mpi4py

Work = Callable[[bytes], bytes]


class Engine(ABC):
    """Carries tasks to workers.

    Attributes:
        workers: How many tasks are run at once; known once it is open.
        resends: How often a task is sent again whose worker died.
        watched: What tells a task to stop.
    """

    workers = 1
    resends = 2
    watched: Watched = ()

    @abstractmethod
    def open(self) -> None:
        """Begins, in the caller's thread."""

    @abstractmethod
    def dumps(self, value: Any) -> bytes:
        """Pickles for a worker."""

    @abstractmethod
    def send(self, work: Work, task: bytes) -> Future[bytes]:
        """Has a worker run a task.

        Raises:
            WorkerLost: The executor takes no more.
        """

    @abstractmethod
    def is_loss(self, error: BaseException) -> bool:
        """Whether a task has failed with it because its worker died."""

    @abstractmethod
    def stop(self) -> None:
        """Tells the tasks under way to stop."""

    def close(self) -> None:
        """Lets go of everything but what is the caller's."""
        self.stop()


class _Told(Future[bytes]):
    """Of a task that the engine stops in its own way: if it were cancelled, the rows it has finished would be lost."""

    def cancel(self) -> bool:
        """See Future."""
        return False


class _Near(Engine):
    """Has workers on this machine stop through a socket, whichever way this process ends."""

    _line: socket.socket | None = None
    _callers: Sequence[socket.socket] = ()

    def _listen(self) -> None:
        self._line = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._line.setblocking(False)
        self.watched = ("port", socket.gethostname(), self._line.getsockname()[1])

    def _answer(self) -> None:
        """Takes the calls of shards, and hangs up on those that are over: the system lets only so many wait."""
        callers = list(self._callers)
        with contextlib.suppress(OSError):
            while self._line is not None:
                callers.append(self._line.accept()[0])
        self._callers = [caller for caller in callers if _is_open(caller)]

    def stop(self) -> None:
        """See Engine."""
        for line in filter(None, (self._line, *self._callers)):
            with contextlib.suppress(OSError):  # not every system can
                line.shutdown(socket.SHUT_RDWR)  # a forked worker has it open as well
            line.close()


def _is_open(caller: socket.socket) -> bool:
    """Whether the other end is; closes this one if not."""
    caller.setblocking(False)
    try:
        caller.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        pass
    caller.close()
    return False


class _Pool(_Near):
    """A `concurrent.futures.Executor`: threads, processes, loky, or another package's.

    Args:
        executor: Of the caller, who shuts it down.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        found = [getattr(executor, name, None) for name in _WORKERS_OF_POOL]
        self.workers = next((count for count in found if isinstance(count, int)), os.cpu_count() or 1)
        self._first: list[Future[Any]] = []
        self._own: list[ProcessPoolExecutor] = []

    def open(self) -> None:
        """See Engine."""
        # Forks the processes of a pool before a run has threads.
        self._first = [self._submit(int) for _ in range(self.workers)]
        self._listen()

    def dumps(self, value: Any) -> bytes:
        """See Engine. Executors of other packages bring cloudpickle, which takes classes of notebooks."""
        if not type(self._executor).__module__.startswith("concurrent.futures"):
            with contextlib.suppress(ImportError):
                return bytes(import_module("cloudpickle").dumps(value))
        return pickle.dumps(value)

    def send(self, work: Work, task: bytes) -> Future[bytes]:
        """See Engine."""
        self._answer()
        return self._submit(work, task)

    def _submit(self, work: Callable[..., Any], *task: bytes) -> Future[Any]:
        try:
            return self._executor.submit(work, *task)
        except BrokenExecutor:
            self._executor = self._renewed()
            return self._executor.submit(work, *task)
        except RuntimeError as error:
            raise WorkerLost(f"the executor takes no more rows: {error}") from None

    def _renewed(self) -> Executor:
        """A pool like the one that is broken.

        Raises:
            WorkerLost: Only its owner can make one.
        """
        old: Any = self._executor
        if isinstance(old, ProcessPoolExecutor):
            self._own.append(ProcessPoolExecutor(self.workers, old._mp_context, old._initializer, old._initargs))
            return self._own[-1]
        if type(old).__module__.startswith("loky"):
            pool: Executor = import_module("loky").get_reusable_executor(self.workers)  # the process's; ends when idle
            return pool
        raise WorkerLost(f"the workers of {shown(old)} died, and it takes no more rows")

    def is_loss(self, error: BaseException) -> bool:
        """See Engine. Workers that never ran anything have not died of a row."""
        ran = any(first.done() and not first.cancelled() and first.exception() is None for first in self._first)
        return isinstance(error, BrokenExecutor) and ran

    def close(self) -> None:
        """See Engine."""
        super().close()
        for executor in self._own:
            executor.shutdown(wait=False, cancel_futures=True)


class _Dask(Engine):
    """The workers of a `distributed.Client`, which sends a task again by itself if its worker dies.

    Args:
        client: Of the caller, who closes it.
    """

    resends = 0

    def __init__(self, client: Any) -> None:
        if client.asynchronous:
            raise ConfigError("executor= takes a distributed.Client without asynchronous=True")
        self._client = client

    def open(self) -> None:
        """See Engine."""
        self._check()
        self.workers = len(self._client.nthreads()) or 1
        self.watched = ("event", f"llmbridge-{os.urandom(8).hex()}")

    def dumps(self, value: Any) -> bytes:
        """See Engine. Dask brings cloudpickle, which takes classes of notebooks."""
        return bytes(import_module("cloudpickle").dumps(value))

    def send(self, work: Work, task: bytes) -> Future[bytes]:
        """See Engine."""
        self._check()
        future = _Told()
        sent = self._client.submit(work, task, pure=False)

        async def hear() -> None:  # a worker that stands still holds up nobody else's result
            try:
                future.set_result(await sent)
            except BaseException as error:  # noqa: BLE001 - looked at by the run
                future.set_exception(error)

        self._client.loop.add_callback(hear)
        return future

    def _check(self) -> None:
        """All tasks are lost with the connection, and new ones would wait for another."""
        if self._client.status != "running":
            raise WorkerLost(f"the distributed.Client has no scheduler to send rows to: it is {self._client.status}")

    def is_loss(self, error: BaseException) -> bool:
        """See Engine."""
        dask: Any = import_module("distributed")
        return isinstance(error, (dask.KilledWorker, dask.CancelledError, OSError))  # the last two with the scheduler

    def stop(self) -> None:
        """See Engine."""
        if self._client.status == "running":
            with contextlib.suppress(Exception):  # the scheduler is gone, and its workers with it
                told = self._client.scheduler.event_set
                self._client.sync(told, name=self.watched[1], callback_timeout=_STOP_SECONDS)

    def close(self) -> None:
        """See Engine. Nothing is under way, or `stop` was called."""


class _Ray(_Near):
    """The workers of the Ray cluster that this process is connected to, or of one on this machine."""

    def __init__(self) -> None:
        try:
            self._ray: Any = import_module("ray")
        except ImportError:
            raise ConfigError('executor="ray" needs the package ray: pip install "llmbridge[ray]"') from None
        self._under_way: list[Any] = []

    def open(self) -> None:
        """See Engine."""
        if not self._ray.is_initialized():
            self._ray.init(logging_level="warning", log_to_driver=False)
        self.workers = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._listen()

    def dumps(self, value: Any) -> bytes:
        """See Engine."""
        return bytes(self._ray.cloudpickle.dumps(value))

    def send(self, work: Work, task: bytes) -> Future[bytes]:
        """See Engine."""
        self._answer()
        reference = self._ray.remote(work).options(max_retries=0).remote(task)
        self._under_way.append(reference)
        future = _Told()

        def over(done: Future[bytes]) -> None:
            self._under_way.remove(reference)
            error = done.exception()
            future.set_result(done.result()) if error is None else future.set_exception(error)

        reference.future().add_done_callback(over)
        return future

    def is_loss(self, error: BaseException) -> bool:
        """See Engine."""
        exceptions = self._ray.exceptions
        lost = (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        )
        return isinstance(error, lost)

    def stop(self) -> None:
        """See Engine. Ray may need two seconds to tell a task that has just begun."""
        super().stop()
        for reference in list(self._under_way):
            self._ray.cancel(reference)


def engine_of(executor: Any) -> Engine:
    """The engine for what a caller gave as executor.

    Raises:
        ConfigError: It is nothing of the kind.
    """
    if isinstance(executor, Executor):
        return _Pool(executor)
    if isinstance(executor, str) and executor == "ray":
        return _Ray()
    if any(kind.__module__ == "distributed.client" and kind.__name__ == "Client" for kind in type(executor).__mro__):
        return _Dask(executor)
    raise ConfigError(
        f'executor must be a concurrent.futures.Executor, a distributed.Client or "ray", not {shown(executor)}'
    )

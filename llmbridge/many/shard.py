"""A shard: rows of a run that a worker of an executor sends, and what travels to it and back.

A task is bytes, and so is what comes back, so that it is the same for all executors. Nothing is raised out of one:
some executors write what a task raises into their logs, with its arguments, which are prompts. A task holds no key:
each worker looks up its own, as an unpickled client does.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmbridge._call.route import Connections
from llmbridge._version import __version__
from llmbridge.errors import ConfigError, LLMBridgeError, without_frames
from llmbridge.many.row import Questions, Row
from llmbridge.many.run import Plan, Run
from llmbridge.many.totals import Totals
from llmbridge.options import TRANSPORT_NAMES, without_secrets
from llmbridge.secret import Secret

if TYPE_CHECKING:
    from llmbridge.client import Client
    from llmbridge.limits import Limiter, Limits
    from llmbridge.many.asking import Asking

__all__ = ["Report", "Share", "Watched", "forget", "packed_settings", "packed_task", "run_shard", "unpickled", "work"]

_KEPT = 4  # settings whose connections a worker keeps
_LOOKS = 1.0  # seconds between two looks at whether the driver is alive

unpickled = pickle.loads
"""Between a driver and its own workers."""

Watched = tuple[Any, ...]
"""What tells a shard to stop: ("port", host, number), ("event", name), or () for nothing."""


def run_shard(client: Client, items: Iterable[Any], **options: Any) -> list[Row[Any]]:
    """All rows of some items, for engines that call a function with a part of the input, as Spark does.

    Raises nothing that a row or the service does wrong, since such engines call again a function that raises: if the
    run ends early, the error that ended it is that of all rows that were not sent.

    Args:
        client: Pickles without its key, which each worker looks up: in the environment, or in the keys file.
        items: A part of the input.
        options: See `Client.map`.

    Returns:
        A row for each item, in the same order.

    Raises:
        ConfigError: The setup is wrong; nothing was sent.

    Example:
        >>> from llmbridge import Client
        >>> client = Client("demo")
        >>> [row.ok for row in run_shard(client, ["Hello", "Goodbye"])]
        [True, True]
    """
    items = list(items)
    found: dict[int, Row[Any]] = {}
    error: LLMBridgeError | None = None
    with client.map(items, **options) as rows:
        try:
            for row in rows:
                found[row.index] = row
        except LLMBridgeError as failure:
            if isinstance(failure, ConfigError) and not found:
                raise
            error = failure
    return [found.get(index) or Row(index, item, error=error) for index, item in enumerate(items)]


@dataclass(frozen=True, slots=True)
class Share:
    """What a shard may use.

    Args:
        limits: Its part of the client's limits.
        recent: How long ago, in seconds, and with how many tokens requests were sent in its place within a minute.
        concurrency: Its part of the requests under way; None adapts.
        most: The limit of that, where it adapts.
        start: The width to start with, where it adapts.
        attempts: See `Plan`.
    """

    limits: Limits | None
    recent: Sequence[tuple[float, int]]
    concurrency: int | None
    most: int | None
    start: int | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker has done with a shard.

    Args:
        rows: Those that are finished; their `index` is that in the shard.
        error: What ended the shard early.
        totals: Of the shard.
        recent: As in `Share`, from now on.
    """

    rows: Sequence[Row[Any]]
    error: LLMBridgeError | None
    totals: Totals
    recent: Sequence[tuple[float, int]]


# -- by the driver ----------------------------------------------------------------------------------------------------


def packed_settings(client: Client, asking: Asking, options: Mapping[str, Any], dumps: Callable[[Any], bytes]) -> bytes:
    """What all shards of a run need: the client and the options.

    Raises:
        ConfigError: They cannot be sent, or hold a secret.
    """
    _refuse_secrets(client, options)
    own = copy(client)
    own._limits, own.connections = None, Connections()
    try:
        return dumps((type(asking), own, dict(options)))
    except Exception as error:  # noqa: BLE001 - of the caller's own objects
        raise ConfigError(f"an executor needs options that can be pickled: {error}") from without_frames(error)


def _refuse_secrets(client: Client, options: Mapping[str, Any]) -> None:
    others = [one for one in client._model if not isinstance(one, str)] if client.several else []
    if any(one._limits is not None for one in others):
        raise ConfigError(
            "an executor cannot share out the limits= of one of several models: give them to the client that maps"
        )
    clients = [client, *others]
    for transport in (*(vars(one.transport_options) for one in clients), options):
        ways = {name: transport.get(name) for name in TRANSPORT_NAMES}
        if ways["session"] is not None:
            raise ConfigError("an executor cannot take a session= to its workers: leave it out")
        if isinstance(ways["api_key"], (str, Secret)):
            raise ConfigError(
                "api_key= is not sent to the workers of an executor: leave it out, and set the provider's variable or "
                "keys file on each of them, or give a function that returns the key"
            )
        for name, value in without_secrets(ways).items():
            if value != ways[name]:
                raise ConfigError(f"{name}= holds a secret, which is not sent to the workers of an executor")


def packed_task(settings: bytes, contents: Sequence[bytes], share: Share, watched: Watched) -> bytes:
    """A shard as bytes; outside of it are only types that every version of llmbridge can read."""
    return pickle.dumps((__version__, settings, list(contents), pickle.dumps(share), watched))


# -- by the worker ----------------------------------------------------------------------------------------------------

_kept: dict[bytes, Asking] = {}


def work(task: bytes) -> bytes:
    """Sends the rows of a task, and returns a `Report`. Raises nothing."""
    version, settings, contents, share, watched = unpickled(task)
    try:
        if version != __version__:
            raise ConfigError(f"it has llmbridge {__version__}, not {version}: install the same one everywhere")
        report = _Worker(settings, unpickled(share)).report([unpickled(content) for content in contents], watched)
        return pickle.dumps(report)
    except BaseException as error:  # noqa: BLE001 - goes to the driver
        said = error.message if isinstance(error, LLMBridgeError) else f"{type(error).__name__}: {error}"
        kind = type(error) if isinstance(error, ConfigError) else ConfigError
        return pickle.dumps(Report((), kind(f"the worker {_here()} cannot send rows: {said}"), Totals(), ()))


def forget(settings: bytes) -> None:
    """Closes the connections that this process keeps for a run, after its end: a pool of threads is in its process."""
    if (found := _kept.pop(settings, None)) is not None:
        found._client.close()


def _here() -> str:
    return f"{socket.gethostname()} (process {os.getpid()})"


class _Worker:
    """A shard's share of what its process keeps for all of them.

    Args:
        settings: See `packed_settings`.
        share: See `Share`.

    Raises:
        Exception: The settings cannot be used here: a module is missing, or the key.
    """

    def __init__(self, settings: bytes, share: Share) -> None:
        kept = _kept.get(settings)
        if kept is None:
            kind, client, options = unpickled(settings)
            while len(_kept) >= _KEPT:
                _kept.pop(next(iter(_kept)), None)
            _kept[settings] = kept = kind(client, options)
        self._asking = kept
        self._share = share
        self._limiter: Limiter | None = None
        if share.limits is not None:
            own = copy(kept._client)
            own.connections = Connections(share.limits)
            own.connections.transports = kept._client.connections.transports
            own.connections.breakers = kept._client.connections.breakers
            if (limiter := own.connections.limiter) is not None:
                limiter.resume(share.recent)
                self._limiter = limiter
            self._asking = kept.by(own)

    def report(self, contents: Sequence[Any], watched: Watched) -> Report:
        """Sends the rows."""
        share = self._share
        plan = Plan(
            questions=Questions(None, None, self._asking.checked, None),
            in_order=False,
            concurrency=share.concurrency,
            most=share.most,
            window=len(contents),
            attempts=share.attempts,
            max_errors=None,
            journal=None,
            progress=None,
            start=share.start,
        )
        run = Run(self._asking, contents, plan)
        rows: list[Row[Any]] = []
        error: LLMBridgeError | None = None
        with _Watch(watched, run.cancel):
            try:
                run.start()
                while (row := run.next()) is not None:
                    answer = self._asking.packed(row.answer) if row.answer is not None else None
                    rows.append(replace(row, input=None, answer=answer))
            except LLMBridgeError as failure:
                error = without_frames(failure)
            finally:
                run.close()
        recent = self._limiter.recent() if self._limiter is not None else ()
        return Report(rows, error, run.totals(), recent)


class _Watch:
    """Calls a function when the driver wants no more of this shard, or is gone, and at Ctrl-C.

    Ray interrupts the main thread of what it cancels, and a terminal that of all processes: an exception in any place
    would lose the rows that are finished.

    Args:
        watched: See `Watched`.
        stop: The function.
    """

    def __init__(self, watched: Watched, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._over = threading.Event()
        self._line: socket.socket | None = None
        self._handler: Any = None
        self._work: Callable[[], None] | None = None
        if watched:
            kind, *about = watched
            self._work = self._port(*about) if kind == "port" else self._event(*about)

    def __enter__(self) -> None:
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if not ignored and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, lambda *_: self._stop())
        if self._work is not None:
            threading.Thread(target=self._work, name="llmbridge-map-watch", daemon=True).start()

    def __exit__(self, *error: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        self._over.set()
        if self._line is not None:
            with suppress(OSError):  # the driver is gone
                self._line.shutdown(socket.SHUT_RDWR)

    def _port(self, host: str, number: int) -> Callable[[], None] | None:
        """The driver holds the line as long as the shard is wanted."""
        if host != socket.gethostname():
            return None
        try:
            self._line = line = socket.create_connection(("127.0.0.1", number), _LOOKS)
        except OSError:
            self._stop()
            return None

        def look() -> None:
            parent = os.getppid()
            with line:
                while not (select.select([line], [], [], _LOOKS)[0] or os.getppid() != parent):
                    pass
            if not self._over.is_set():
                self._stop()

        return look

    def _event(self, name: str) -> Callable[[], None]:
        """An event of Dask is set when the shard is not wanted; the task is cancelled when the driver is gone."""
        dask: Any = import_module("distributed")
        event = dask.Event(name, client=dask.get_client())
        worker = dask.get_worker()
        key = worker.get_current_task()
        if event.is_set():
            self._stop()

        def look() -> None:
            while not self._over.is_set():
                try:
                    wanted = not event.wait(timeout=_LOOKS) and worker.state.tasks[key].state != "cancelled"
                except Exception:  # noqa: BLE001 - the scheduler is gone, or the task
                    wanted = False
                if not wanted:
                    self._stop()
                    return

        return look

"""The journal of a run: a file of JSON lines to which each outcome is appended before it is handed out.

Each line ends with a checksum of itself. A line that a crash has torn is cut off when the file is opened again, since
the next one would be glued to it. What `write` has given to the system survives the end of the process, however it
ends; a power cut may take what was written within the last second.

Answers are found by the digest of everything they depend on, so that none is ever taken for another question. A
temporary database on disk knows where they are in the file: a journal of any size is resumed in the same memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO
from zlib import crc32

from llmbridge._locks import monotonic
from llmbridge._text import shown
from llmbridge._version import __version__
from llmbridge.errors import ConfigError

__all__ = ["HIDDEN", "Journal", "Keys"]

HIDDEN = "digest:"
"""How the value of a setting begins that may hold a prompt: its digest is enough to compare it."""

_FORMAT = 1
_HEAD = b'{"llmbridge":'  # how a line begins that says who writes from there on, with which settings
_SYNC_SECONDS = 1.0
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_CHECKSUM = len(b',"crc":"01234567"}\n')


class Journal:
    """An open journal, which no other run can open meanwhile. It belongs to one thread.

    Args:
        path: Of the file; it is made if there is none.
        settings: What all answers in it depend on, as JSON can hold it.

    Attributes:
        due: When `sync` should be called next, on the clock of `time.monotonic`.

    Raises:
        ConfigError: The file is not a journal, or has other settings, or another run is writing to it.
        OSError: It cannot be opened.
    """

    def __init__(self, path: str, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._settings = settings
        self._size = 0
        self.due = float("inf")
        self._file = os.open(path, _FLAGS, 0o666)
        self._reader: BinaryIO | None = None
        self._answers = _Answers()
        try:
            self._lock()
            self._reader = open(path, "rb")  # noqa: SIM115 - closed by `close`
            self._load(self._reader)
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:
            return  # Windows
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{self._path} is the journal of another run that is under way (process {self._writer()}): wait for "
                "its end, or give this run a journal of its own"
            ) from None

    def _writer(self) -> str:
        """The process that opened the file last."""
        with open(self._path, "rb") as file:
            heads = [line for line in file if line.startswith(_HEAD)]
        return str(_parsed(heads[-1]).get("pid", "?")) if heads else "?"

    def _load(self, lines: Iterable[bytes]) -> None:
        """Notes where the answers are, and cuts off a line that was not written to its end."""
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and (number > 1 or line.startswith(_HEAD[: len(line)])):
                os.ftruncate(self._file, self._size)
                break
            record = _parsed(line)
            if number == 1 and "llmbridge" not in record:
                raise ConfigError(f"{self._path} is not a journal of map(): its first line is damaged, or another's")
            if "llmbridge" in record:
                self._compare(record)
            elif not record:
                warnings.warn(f"{self._path}: line {number} is damaged; its row is sent again", RuntimeWarning, 2)
            elif record["error"] is None:
                self._answers.add(bytes.fromhex(record["digest"]), self._size)
            self._size += len(line)
        self._answers.sort()

    def _compare(self, head: Mapping[str, Any]) -> None:
        """Refuses answers that were made otherwise.

        Raises:
            ConfigError: Says which setting is another one.
        """
        if head["format"] != _FORMAT:
            raise ConfigError(f"{self._path} is a journal of format {head['format']}, of another llmbridge")
        before = head["settings"]
        now = json.loads(json.dumps(self._settings))
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                values = shown(before.get(name)), shown(now.get(name))
                hidden = any(HIDDEN in value for value in values)
                made = f"another {name}=" if hidden else f"{name}={values[0]}, not {values[1]}"
                raise ConfigError(
                    f"the answers in {self._path} were made with {made}: use another journal for this run"
                )

    def begin(self) -> None:
        """Says who writes from here on."""
        self.write([{"llmbridge": __version__, "format": _FORMAT, "pid": os.getpid(), "settings": self._settings}])

    def found(self, digest: bytes) -> Mapping[str, Any] | None:
        """The record of an answer, which is given only once: two equal questions are two rows."""
        offset = self._answers.take(digest)
        if offset is None or self._reader is None:
            return None
        self._reader.seek(offset)
        return _parsed(self._reader.readline())

    @property
    def left(self) -> int:
        """How many answers nobody has taken."""
        return self._answers.left()

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends records, all of them or none.

        Raises:
            OSError: The disk is full, or the file cannot be written to any more.
        """
        data = memoryview(b"".join(map(_line, records)))
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
        except BaseException as error:
            with contextlib.suppress(OSError):  # then the next to open it does that
                os.ftruncate(self._file, self._size)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, self._path) from None
            raise
        self._size += len(data)
        self.due = min(self.due, monotonic() + _SYNC_SECONDS)

    def sync(self) -> None:
        """Has the system put on the disk what was written."""
        self.due = float("inf")
        with contextlib.suppress(OSError):  # some network drives cannot
            os.fsync(self._file)

    def close(self) -> None:
        """Makes sure that all is on the disk, and lets others open the file. May be repeated."""
        if self._file < 0:
            return
        self.sync()
        file, self._file = self._file, -1
        os.close(file)
        if self._reader is not None:
            self._reader.close()
        self._answers.close()


def _line(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def _parsed(line: bytes) -> dict[str, Any]:
    """The record of a line; an empty one if it is damaged."""
    if line[-_CHECKSUM:] != b',"crc":"%08x"}\n' % crc32(line[:-_CHECKSUM]):
        return {}
    record: dict[str, Any] = json.loads(line)
    return record


class _Database:
    """A table in a temporary file of SQLite, which keeps no more than its cache in memory."""

    def __init__(self, table: str) -> None:
        import sqlite3

        self._database = sqlite3.connect("", isolation_level=None)
        self._run = self._database.execute
        self._run("PRAGMA journal_mode=OFF")
        self._run(f"CREATE TABLE {table}")
        self._run("BEGIN")

    def close(self) -> None:
        """Removes the file."""
        self._database.close()


class _Answers:
    """Where in the file the answer to a question is. Nothing is kept, and SQLite not loaded, while there are none."""

    def __init__(self) -> None:
        self._table: _Database | None = None

    def add(self, digest: bytes, offset: int) -> None:
        if self._table is None:
            self._table = _Database("answers (digest BLOB, at INTEGER)")
        self._table._run("INSERT INTO answers VALUES (?, ?)", (digest, offset))

    def sort(self) -> None:
        """Makes them ready to be found, once all are there."""
        if self._table is not None:
            self._table._run("CREATE INDEX by_digest ON answers (digest)")

    def take(self, digest: bytes) -> int | None:
        if self._table is None:
            return None
        found = self._table._run("SELECT rowid, at FROM answers WHERE digest=? LIMIT 1", (digest,)).fetchone()
        if found is None:
            return None
        self._table._run("DELETE FROM answers WHERE rowid=?", found[:1])
        return int(found[1])

    def left(self) -> int:
        return 0 if self._table is None else int(self._table._run("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        if self._table is not None:
            self._table.close()


class Keys(_Database):
    """The keys that were given so far, on disk as well."""

    def __init__(self) -> None:
        super().__init__("keys (key TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")

    def add(self, key: str, index: int) -> None:
        """Notes the key of a row.

        Raises:
            ConfigError: An earlier row has it.
        """
        earlier = self._run("SELECT number FROM keys WHERE key=?", (key,)).fetchone()
        if earlier is not None:
            raise ConfigError(f"rows {earlier[0]} and {index} have the same key {shown(key)}: keys must differ")
        self._run("INSERT INTO keys VALUES (?, ?)", (key, index))

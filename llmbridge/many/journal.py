"""The journal of a run: a file of JSON lines to which each outcome is appended before it is handed out.

Each line ends with a checksum of itself. A line that a crash has torn is cut off when the file is opened again, since
the next one would be glued to it. What `write` has given to the system survives the end of the process, however it
ends; a power cut may take what was written within the last second.

Answers are found by the digest of everything they depend on, so that none is ever taken for another question. Rows are
mostly asked for in the order of the file, so it is read ahead a little. A temporary database on disk knows where the
others are: a journal of any size, resumed in any order, takes the same memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO
from zlib import crc32

from llmbridge._json import scan_json
from llmbridge._locks import monotonic
from llmbridge._text import shown
from llmbridge._version import __version__
from llmbridge.errors import ConfigError

__all__ = ["HIDDEN", "Journal", "Keys"]

HIDDEN = "digest:"
"""How the value of a setting begins that may hold a prompt: its digest is enough to compare it."""

_FORMAT = 1
_HEAD = b'{"llmbridge":'  # how a line begins that says who writes from there on, with which settings
_ANSWER = b'{"digest":"'  # how a line begins that says what came of a row
_DIGEST = slice(len(_ANSWER), len(_ANSWER) + 32)
_ANSWERED = b'","error":null,'  # what follows then, if it has an answer
_ERROR = slice(_DIGEST.stop, _DIGEST.stop + len(_ANSWERED))
_SYNC_SECONDS = 1.0
_FIND = "SELECT at FROM answers WHERE digest=? AND at>=? AND at<? ORDER BY at LIMIT 1"
_BLOCK = 1 << 18  # bytes read at once
_AHEAD = 1 << 23  # bytes of answers in memory that no row has taken yet
_JUMPS = 10_000  # answers taken from further on, before the input counts as shuffled
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
        self._answers: _Answers | None = None
        try:
            self._lock()
            with open(path, "rb") as file:
                self._open(file)
            self._answers = _Answers(path, self._size) if self._size else None
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

    def _open(self, file: BinaryIO) -> None:
        """Looks whose file it is, and cuts off a line that was not written to its end."""
        first = file.readline()
        if first.endswith(b"\n"):
            if "llmbridge" not in (head := _parsed(first)):
                raise self._not_ours()
            self._compare(head)
        elif not _HEAD.startswith(first) and not first.startswith(_HEAD):
            raise self._not_ours()
        self._size = _end_of_lines(file)
        if self._size < file.seek(0, os.SEEK_END):
            os.ftruncate(self._file, self._size)

    def _not_ours(self) -> ConfigError:
        return ConfigError(f"{self._path} is not a journal of map(): its first line is damaged, or another's")

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
        line = self._answers.take(digest) if self._answers is not None else None
        return None if line is None else scan_json(line.decode(), 0)[0]

    @property
    def left(self) -> int:
        """How many answers nobody has taken."""
        return 0 if self._answers is None else self._answers.left()

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
        if self._answers is not None:
            self._answers.close()


def _end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line ends."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        start = max(0, at - _BLOCK)
        file.seek(start)
        if (last := file.read(at - start).rfind(b"\n")) >= 0:
            return start + last + 1
        at = start
    return 0


def _line(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def _is_whole(line: bytes) -> bool:
    return line[-_CHECKSUM:] == b',"crc":"%08x"}\n' % crc32(line[:-_CHECKSUM])


def _parsed(line: bytes) -> dict[str, Any]:
    """The record of a line; an empty one if it is damaged."""
    record: dict[str, Any] = json.loads(line) if _is_whole(line) else {}
    return record


class _Database:
    """A table in a temporary file of SQLite, which keeps no more than its cache in memory."""

    def __init__(self, table: str) -> None:
        import sqlite3

        self._database = sqlite3.connect("", isolation_level=None)
        self._run, self._many = self._database.execute, self._database.executemany
        self._run("PRAGMA journal_mode=OFF")
        self._run(f"CREATE TABLE {table}")
        self._run("BEGIN")

    def close(self) -> None:
        """Removes the file."""
        self._database.close()


class _Answers:
    """The answers in a file, each of which is taken once.

    Most are taken in the order of the file, a few lines sooner or later. So it is read in blocks, and what no row has
    taken yet stays in memory. The first row that is not among it has an index made of the rest of the file, in which
    positions from `_at` on are still to be read; negative ones were read, and are no longer in memory.

    Args:
        path: Of the file.
        end: Where its last line ends; what is behind was written later.
    """

    def __init__(self, path: str, end: int) -> None:
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        self._end = end
        self._at = self._lines = 0  # read so far
        self._reported = 0  # the last line that was damaged
        self._ahead: dict[bytes, list[tuple[int, bytes]]] = {}
        self._held = 0  # bytes in it
        self._index: _Database | None = None
        self._jumped: set[int] = set()

    def take(self, digest: bytes) -> bytes | None:
        """The line of an answer to the question."""
        name = digest.hex().encode()
        while (found := self._ahead.get(name)) is None:
            if self._index is None:
                if self._at == self._end:
                    return None
                if self._held < _AHEAD:
                    self._read_on()
                    continue
                self._index = self._indexed()
            at = self._indexed_at(self._index, digest)
            if at is None:
                return None
            if at < 0 or at > self._at + _BLOCK or len(self._jumped) >= _JUMPS:
                return self._jump(self._index, digest, at)
            self._read_on()
        _, line = found.pop(0)
        self._held -= len(line)
        if not found:
            del self._ahead[name]
        return line

    def _read_on(self) -> None:
        if self._index is not None and self._held >= _AHEAD:
            self._spill(self._index)
        for name, at, line in self._block():
            if at in self._jumped:
                self._jumped.remove(at)
            else:
                self._ahead.setdefault(name, []).append((at, line))
                self._held += len(line)

    def _block(self) -> Iterator[tuple[bytes, int, bytes]]:
        """The next answers: their digests, positions and lines."""
        self._file.seek(self._at)
        block = self._file.read(min(_BLOCK, self._end - self._at))
        if not block.endswith(b"\n"):
            block += self._file.readline()
        if not block:
            self._end = self._at  # somebody has cut it
        at, self._at = self._at, self._at + len(block)
        for line in block.splitlines(keepends=True):
            self._lines += 1
            if not _is_whole(line):
                if self._lines > self._reported:
                    self._reported = self._lines
                    says = f"{self._path}: line {self._lines} is damaged; its row is sent again"
                    warnings.warn(says, RuntimeWarning, 2)
            elif line[_ERROR] == _ANSWERED and line.startswith(_ANSWER):
                yield line[_DIGEST], at, line
            at += len(line)

    def _indexed(self) -> _Database:
        """Where the answers are that were not read yet."""
        at, lines = self._at, self._lines
        index = _Database("answers (digest BLOB, at INTEGER, PRIMARY KEY (digest, at)) WITHOUT ROWID")
        index._run("CREATE TABLE unsorted (digest BLOB, at INTEGER)")
        while self._at < self._end:
            index._many("INSERT INTO unsorted VALUES (?, ?)", ((unhexlify(name), at) for name, at, _ in self._block()))
        index._run("INSERT INTO answers SELECT * FROM unsorted ORDER BY digest, at")
        index._run("DROP TABLE unsorted")
        self._at, self._lines = at, lines
        return index

    def _indexed_at(self, index: _Database, digest: bytes) -> int | None:
        for low, high in ((self._at, self._end), (-self._end, 0)):
            found = index._run(_FIND, (digest, low, high)).fetchone()
            if found is not None:
                return int(found[0])
        return None

    def _jump(self, index: _Database, digest: bytes, at: int) -> bytes:
        """Takes an answer that is somewhere else."""
        index._run("DELETE FROM answers WHERE digest=? AND at=?", (digest, at))
        if at > 0 and len(self._jumped) < _JUMPS:
            self._jumped.add(at)
        self._file.seek(abs(at))
        return self._file.readline()

    def _spill(self, index: _Database) -> None:
        """Makes room in memory: rows that are not in the input any more leave their answers behind."""
        rows = ((unhexlify(name), -at) for name, found in self._ahead.items() for at, _ in found)
        index._many("INSERT INTO answers VALUES (?, ?)", rows)
        self._ahead.clear()
        self._held = 0

    def left(self) -> int:
        """How many were not taken."""
        if self._index is None and self._at < self._end:
            self._index = self._indexed()
        ahead = sum(map(len, self._ahead.values()))
        if self._index is None:
            return ahead
        others = self._index._run("SELECT count(*) FROM answers WHERE at>=? OR at<0", (self._at,))
        return ahead + int(others.fetchone()[0])

    def close(self) -> None:
        self._file.close()
        if self._index is not None:
            self._index.close()


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

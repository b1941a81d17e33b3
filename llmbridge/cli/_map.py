"""`llmbridge map`: one question for each row of a file, and the answers in another; the same line again goes on."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmbridge.cli._completion import completed_by, model_names
from llmbridge.cli._input import add_client, add_debug, argument_text, client_options
from llmbridge.cli._output import FAILED, INTERRUPTED, Misused, OutputLost, as_json, tell, to_stderr, write
from llmbridge.cli._question import chat_options
from llmbridge.errors import LLMBridgeError

if TYPE_CHECKING:
    from llmbridge.many import Row, Rows, Totals

__all__ = ["add"]

_SOME_FAILED = 3
_TABLES = {".csv": ",", ".tsv": "\t"}
_PART = ".part"  # of an output that is not whole


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "map",
        usage="%(prog)s [OPTIONS] INPUT OUTPUT",
        allow_abbrev=False,
        help="ask a model about each row of a file",
        description="Asks a model about each row of a file of JSON lines (.jsonl), a table (.csv, .tsv) or lines of "
        "text (.txt), and writes a row for each answer. What is done is kept in OUTPUT.journal: the same command goes "
        "on from there, after Ctrl-C or a crash, and asks failed rows once more.",
        epilog="Exit codes: 0 all rows answered; 1 the run ended early; 2 the command or its setup is wrong; 3 some "
        "rows failed, as OUTPUT and standard error say; 130 Ctrl-C.",
    )
    command.add_argument("input", metavar="INPUT", help="the rows; - for JSON lines on standard input")
    command.add_argument("output", metavar="OUTPUT", help="made at the end, in INPUT's order; - for standard output")
    model = command.add_argument("-m", "--model", metavar="PROVIDER:MODEL", help="default: LLMBRIDGE_MODEL")
    completed_by(model, model_names)
    command.add_argument(
        "--prompt", dest="template", metavar="TEMPLATE", help="what to ask, with columns like {title} or {} for a line"
    )
    command.add_argument("--id", metavar="COLUMN", help="the column whose value names a row, and must differ")
    command.add_argument("-s", "--system", metavar="TEXT", help="a system message in front of each prompt")
    command.add_argument(
        "-o", "--option", metavar=("NAME", "VALUE"), nargs=2, action="append", default=[],
        help="any parameter, like -o temperature 0.2; the value is JSON or text",
    )  # fmt: skip
    command.add_argument(
        "--schema", metavar="FILE|FIELDS", help="answers as JSON: a JSON schema, or fields like 'name, age int'"
    )
    command.add_argument("--embed", action="store_true", help="a vector for each row in place of an answer")
    command.add_argument(
        "--concurrency", metavar="N", type=int, help="requests under way at once; default: as many as the service takes"
    )
    command.add_argument(
        "--max-errors", metavar="N|P%", type=_errors, help="end when more rows than that have failed, like 10 or 1%%"
    )
    command.add_argument("--journal", metavar="FILE", help="default: OUTPUT.journal; none for standard output")
    command.add_argument(
        "--executor", metavar="processes[:N]|dask:ADDRESS|ray", help="send the rows from other processes, or a cluster"
    )
    command.add_argument("--dry-run", action="store_true", help="say how many rows and tokens it takes; send nothing")
    add_client(command)
    add_debug(command)
    command.set_defaults(run=_map, tool=())


def _map(options: argparse.Namespace) -> int:
    from llmbridge import Client
    from llmbridge.client import MODEL_VARIABLE

    if not (options.model or os.environ.get(MODEL_VARIABLE)):
        raise Misused(f"no model is set: choose one with -m, or set {MODEL_VARIABLE} (see llmbridge models)")
    given = chat_options(options)
    if options.retries is not None:
        given["attempts"] = options.retries + 1
    if options.embed:
        given["embed"] = True
    on_stdout = options.output == "-"
    journal = options.journal or (None if on_stdout else f"{options.output}.journal")
    items = _items(options.input)
    shown = sys.stderr is not None and sys.stderr.isatty() and not (on_stdout and sys.stdout.isatty())
    progress = _Progress(_count(options.input)) if shown and not options.dry_run else None
    own = {**client_options(options), "retries": None}
    with _executor(None if options.dry_run else options.executor) as executor, Client(options.model, **own) as client:
        rows: Rows[Any] = client.map(
            items,
            prompt=None if options.template is None else argument_text(options.template, "prompt"),
            key=options.id,
            concurrency=options.concurrency,
            max_errors=options.max_errors,
            journal=journal,
            progress=progress or False,
            executor=executor,
            **given,
        )
        if options.dry_run:
            return _say_outlook(rows)
        try:
            with progress or contextlib.nullcontext(), rows:
                failed = _write_all(rows, options.output)
        except KeyboardInterrupt:
            _say_how_to_go_on(rows, journal)
            return INTERRUPTED
        except (LLMBridgeError, Misused, OutputLost):
            _say_how_to_go_on(rows, journal)
            raise
        except OSError as error:
            path = error.filename or options.output
            tell(f"cannot write {path.removesuffix(_PART)}: {error.strerror or error}")
            _say_how_to_go_on(rows, journal)
            return FAILED
    totals = rows.totals
    tell(str(totals))
    if failed is not None and not on_stdout:
        tell(f"row {failed.index} failed with {type(failed.error).__name__}: {failed.error}")
        tell(f"each failed row has its error in {options.output}; the same command tries them again")
    if totals.gone:
        tell(f"{totals.gone} answers in {journal} belong to no row of {options.input}")
    return _SOME_FAILED if totals.failed else 0


@contextlib.contextmanager
def _executor(word: str | None) -> Iterator[Any]:
    """What `Client.map` takes as executor, and shuts down what it has started.

    Raises:
        Misused: The word is unknown, a package is missing, or the scheduler cannot be reached.
    """
    kind, _, about = (word or "").partition(":")
    if word is None or word == "ray":
        yield word
    elif kind == "processes" and (not about or (about.isdigit() and int(about))):
        import multiprocessing
        import signal
        from concurrent.futures import ProcessPoolExecutor

        deaf = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: this one tells the others
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(int(about) if about else None, context, signal.signal, deaf) as processes:
            yield processes
    elif kind == "dask" and about:
        try:
            dask: Any = import_module("distributed")
        except ImportError:
            raise Misused('--executor dask needs another package: pip install "llmbridge[dask]"') from None
        try:
            cluster = dask.Client(about)
        except (OSError, ValueError) as error:
            raise Misused(f"cannot reach the scheduler of Dask at {about}: {error}") from None
        with cluster:
            yield cluster
    else:
        raise Misused(f"--executor is processes, processes:4, dask:ADDRESS or ray, not {word}")


class _Progress:
    """A line on the terminal that is overwritten, and gone at the end."""

    def __init__(self, count: int | None) -> None:
        self._of = f" of {count}" if count is not None else ""

    def __call__(self, totals: Totals) -> None:
        failed = f", {totals.failed} failed" if totals.failed else ""
        tokens = totals.input_tokens + totals.output_tokens
        self._show(f"{totals.done}{self._of} rows done{failed}, {tokens} tokens, {totals.rate:.1f} rows/s")

    def _show(self, line: str) -> None:
        room = shutil.get_terminal_size().columns - 1
        to_stderr(f"\r{line[:room]:{room}}\r")

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._show("")


def _say_outlook(rows: Rows[Any]) -> int:
    found, done, tokens = rows._outlook()
    write(f"{found} rows, {done} done already; the others take about {tokens} tokens, plus their answers\n")
    return 0


def _say_how_to_go_on(rows: Rows[Any], journal: str | None) -> None:
    totals = rows.totals
    if totals.requests or totals.done:
        kept = f"; they are kept in {journal}: the same command goes on from there" if journal else ""
        tell(f"{totals}{kept}")


def _errors(word: str) -> float:
    """A number of rows, or a share of them.

    Raises:
        ArgumentTypeError: It is neither.
    """
    share = word.endswith("%")
    try:
        return float(word[:-1]) / 100 if share else int(word)
    except ValueError:
        raise argparse.ArgumentTypeError("takes a number of rows, or a share of them, like 10 or 1%") from None


# -- the input --------------------------------------------------------------------------------------------------------


def _items(path: str) -> Iterator[Any]:
    """The rows of a file, read as they are needed.

    Raises:
        Misused: It cannot be read; while iterating, a row of it.
    """
    try:
        if path != "-":
            open(path, "rb").close()
    except OSError as error:
        raise Misused(f"cannot read {path}: {error.strerror or error}") from None
    return _rows(path, os.path.splitext(path)[1].lower())


def _count(path: str) -> int | None:
    """The number of rows in a file; None for standard input, a pipe or a table, whose rows may have several lines."""
    if not os.path.isfile(path) or os.path.splitext(path)[1].lower() in _TABLES:
        return None
    with open(path, "rb") as file:
        return sum(not line.isspace() for line in file)


def _rows(path: str, ending: str) -> Iterator[Any]:
    with contextlib.nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
        lines = _lines(file, path)
        if ending in _TABLES:
            yield from _rows_of_table(lines, _TABLES[ending], path)
            return
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if ending == ".txt":
                yield line.rstrip("\r\n")
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise Misused(f"{path}, line {number} is not JSON: {error}") from None


def _rows_of_table(lines: Iterator[str], delimiter: str, path: str) -> Iterator[dict[str, str]]:
    import csv

    table = csv.DictReader(lines, delimiter=delimiter, strict=True, restkey="", restval="")
    try:
        for row in table:
            if isinstance(row.get(""), list):
                raise Misused(f"{path}, line {table.line_num} has more cells than the first one has names")
            yield row
    except csv.Error as error:
        raise Misused(f"{path}, after line {table.line_num}: {error}") from None


def _lines(file: Iterable[bytes], path: str) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise Misused(f"{path}, line {number} is not UTF-8") from None


# -- the output -------------------------------------------------------------------------------------------------------


def _write_all(rows: Rows[Any], path: str) -> Row[Any] | None:
    """Writes all rows, to a file that takes its name when it is whole; returns the first one that failed."""
    failed = None
    if path == "-":
        for row in rows:
            write(as_json(_line(row)) + "\n")
        return failed
    part = f"{path}{_PART}"
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            put = _writer(file, os.path.splitext(path)[1].lower())
            for row in rows:
                put(row)
                failed = failed or (None if row.ok else row)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    return failed


def _writer(file: Any, ending: str) -> Callable[[Row[Any]], object]:
    if ending not in _TABLES:
        return lambda row: file.write(json.dumps(_line(row), ensure_ascii=False) + "\n")
    import csv

    table = csv.writer(file, delimiter=_TABLES[ending])
    names: list[str] = []

    def put(row: Row[Any]) -> None:
        columns = row.input if isinstance(row.input, dict) else {"input": row.input}
        if not names:
            names.extend(columns)
            table.writerow([*names, "answer", "error"])
        line = _line(row)
        answer = json.dumps(line["vector"]) if "vector" in line else line["answer"]
        table.writerow([*(columns.get(name) for name in names), answer, line["error"]])

    return put


def _line(row: Row[Any]) -> dict[str, Any]:
    """A row of the output."""
    error = f"{type(row.error).__name__}: {row.error}" if row.error is not None else None
    about = {"key": row.key, "input": row.input}
    end = {"error": error, "attempts": row.attempts}
    if row.vector is not None:
        return {**about, "vector": [float(number) for number in row.vector], **end}
    answer, usage = row.answer, row.usage
    return {
        **about,
        "answer": answer.text if answer is not None else None,
        "parsed": answer.parsed if answer is not None else None,
        "finish_reason": answer.finish_reason if answer is not None else None,
        "usage": usage
        and {
            name: count
            for name in ("input_tokens", "output_tokens", "total_tokens", "cached_input_tokens", "reasoning_tokens")
            if (count := getattr(usage, name)) is not None
        },
        **end,
    }

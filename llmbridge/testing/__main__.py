"""`python -m llmbridge.testing`: the loopback server in the foreground, until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence

from .dialects import DEFAULT_MODEL, PATHS, words
from .received import Received
from .reply import Reply
from .server import LLMServer, echo

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until it is stopped, and returns the exit code."""
    options = _parse(arguments)

    def answer(received: Received) -> Reply:
        pieces = echo(received).pieces if options.text is None else words(options.text)
        return Reply(pieces, delay=options.delay)

    try:
        server = LLMServer(answer, port=options.port, record=False)
    except (OSError, ValueError) as exc:
        sys.stderr.write(f"cannot listen on port {options.port}: {exc}\n")
        return 1
    try:
        sys.stdout.write(_greeting(server))
        sys.stdout.flush()
        threading.Event().wait()
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        server.close()
    return 0


def seconds(text: str) -> float:
    """The number in an argument; argparse reports the ValueError of a wrong one."""
    return Reply(delay=float(text)).delay


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m llmbridge.testing", description="A loopback chat server for tests: no model, no network."
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--text", help="the answer (default: one that repeats the prompt)")
    parser.add_argument(
        "--delay", type=seconds, default=0.0, help="seconds between the words of an answer (default: 0)"
    )
    return parser.parse_args(arguments)


def _greeting(server: LLMServer) -> str:
    urls: dict[str, list[str]] = {}
    for dialect in PATHS:
        urls.setdefault(server.base_url(dialect), []).append(dialect)
    bases = "".join(f"  {url:{len(server.root) + 12}}  {', '.join(names)}\n" for url, names in urls.items())
    return (
        f"{server.root}\n"
        f'Try:  llmbridge chat "Hello" -m {DEFAULT_MODEL} --base-url {server.base_url("openai")}\n'
        f"Pass one of these as base_url:\n{bases}"
        "Ctrl-C stops it.\n"
    )


if __name__ == "__main__":
    sys.exit(main())

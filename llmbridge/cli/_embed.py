"""`llmbridge embed`: texts as vectors, a JSON line for each."""

from __future__ import annotations

import argparse
from typing import Any

from llmbridge.cli._input import add_debug, add_way, argument_text, call_options, stdin_text
from llmbridge.cli._output import as_json, write

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "embed",
        allow_abbrev=False,
        help="turn texts into vectors, a JSON line for each",
        description='Turns texts into vectors: a line {"text": ..., "vector": [...]} for each, in their order.',
    )
    command.add_argument("texts", nargs="*", metavar="TEXT", help="without one, or with -, each line of standard input")
    command.add_argument("-m", "--model", metavar="PROVIDER:MODEL", required=True, help="a model that makes embeddings")
    add_way(command)
    command.add_argument("--json", action="store_true", help="one JSON array instead of lines")
    add_debug(command)
    command.set_defaults(run=_embed)


def _embed(options: argparse.Namespace) -> None:
    from llmbridge import embed

    texts = _texts(options.texts)
    given = call_options(options, "base_url", "proxy", "timeout")
    vectors = embed(texts, model=options.model, **given).vectors
    rows = [
        {"text": text, "vector": [float(number) for number in vector]}
        for text, vector in zip(texts, vectors, strict=True)
    ]
    if options.json:
        write(as_json(rows) + "\n")
        return
    for row in rows:
        write(as_json(row) + "\n")


def _texts(words: list[str]) -> list[str]:
    if words and words != ["-"]:
        return [argument_text(word, "text") for word in words]
    content = stdin_text("text", 'write llmbridge embed "Some text" -m PROVIDER:MODEL', asked=bool(words))
    return [line for line in content.splitlines() if line.strip()]

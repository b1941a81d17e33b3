"""`llmbridge chat` and `llmbridge embed`: ask a model and print its answer."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from llmbridge.cli._answer import show_answer, take_back_unanswered, tools_of
from llmbridge.cli._completion import completed_by, model_names
from llmbridge.cli._input import add_client, add_debug, argument_text, client_options, stdin_text
from llmbridge.cli._kept import Kept, kept_names
from llmbridge.cli._output import Misused, as_json, tell, write
from llmbridge.cli._question import add_question, attachment, chat_options, parts_of, prompt_text

if TYPE_CHECKING:
    from llmbridge import Client, Conversation

__all__ = ["add"]

_DEMO = "demo"


def add(commands: Any) -> None:
    """Adds the commands to the parser."""
    _add_chat(commands)
    _add_embed(commands)


def _add_chat(commands: Any) -> None:
    command = commands.add_parser(
        "chat",
        usage="%(prog)s [OPTIONS] [PROMPT ...]",
        allow_abbrev=False,
        help="ask a model; without a prompt, start a conversation",
        description="Ask a model and print its answer as it arrives. Without a prompt, on a terminal, start a "
        "conversation.",
        epilog="Exit codes: 0 answered; 1 the service or the network failed; 2 the command or its setup is wrong; "
        "130 Ctrl-C. The answer goes to standard output, everything else to standard error.",
    )
    add_question(command)
    command.add_argument("-c", "--continue", dest="go_on", action="store_true", help="continue the last conversation")
    name = command.add_argument("--conversation", metavar="NAME", help="start or continue a named conversation")
    completed_by(name, kept_names)
    command.add_argument("-x", "--extract", action="store_true", help="print only the last code block of the answer")
    command.add_argument(
        "--json", action="store_true", help="print one JSON object at the end (errors: on standard error)"
    )
    command.add_argument("--plain", action="store_true", help="do not render Markdown on a terminal")
    command.add_argument("--reasoning", action="store_true", help="show the model's reasoning, on standard error")
    command.add_argument("--usage", action="store_true", help="show the tokens used, on standard error")
    add_client(command)
    add_debug(command)
    command.set_defaults(run=_chat)


def _add_embed(commands: Any) -> None:
    command = commands.add_parser(
        "embed",
        allow_abbrev=False,
        help="turn texts into vectors, one JSON line each",
        description='Turns texts into vectors and prints a line {"text": ..., "vector": [...]} for each, in order.',
    )
    command.add_argument("texts", nargs="*", metavar="TEXT", help="a text; without one or with -, each line of stdin")
    model = command.add_argument("-m", "--model", metavar="PROVIDER:MODEL", required=True, help="an embedding model")
    completed_by(model, model_names)
    add_client(command)
    command.add_argument("--json", action="store_true", help="print one JSON array instead of lines")
    add_debug(command)
    command.set_defaults(run=_embed)


def _chat(options: argparse.Namespace) -> int | None:
    given = chat_options(options)
    tools = tools_of(options, given.get("tools", ()))
    if tools:
        given["tools"] = tuple(tools.values())  # made once: what is to be said of one is said once
    options.max_turns = _turns(given.pop("max_turns", None))
    talks = not (options.prompt or options.file) and _on_terminal(options)
    question = None if talks else prompt_text(options)
    attached = [attachment(source) for source in options.attach]
    if options.image:
        from llmbridge.parts import Image

        attached += map(Image, options.image)
    kept = _kept(options)
    model = options.model or kept.model or _model(kept)
    from llmbridge import Client

    with Client(model, **{**client_options(options), "base_url": kept.base_url}) as client:
        talk = _conversation(client, model, given, kept)
        if talks:
            from llmbridge.cli._talk import Talk

            Talk(talk, client, given, options, tools, kept, attached).run()
            return None
        take_back_unanswered(talk)
        show_answer(talk, parts_of(question or "", attached), options, tools, kept)
    return None


def _conversation(client: Client, model: str, given: dict[str, Any], kept: Kept) -> Conversation[Any]:
    from llmbridge import Conversation

    if kept.saved is None:
        return client.conversation(model=model, **given)
    return Conversation.from_dict(kept.saved, client, **{**given, "model": model})


def _on_terminal(options: argparse.Namespace) -> bool:
    """Whether the user can type questions and see the answers."""
    shown = not (options.json or options.extract)
    return shown and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _kept(options: argparse.Namespace) -> Kept:
    if options.go_on and options.conversation is not None:
        raise Misused("-c continues the last conversation, --conversation another one: use only one of them")
    if options.go_on:
        return Kept.last(options.base_url, options.model)
    return Kept(options.conversation, options.base_url, options.model)


def _turns(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise Misused("-o max_turns takes a whole number, 1 or more")
    return value


def _model(kept: Kept) -> str:
    from llmbridge.client import MODEL_VARIABLE

    if model := os.environ.get(MODEL_VARIABLE):
        return model
    if kept.base_url:
        raise Misused(f"--base-url needs a model: add -m NAME, or set {MODEL_VARIABLE}")
    tell(f"no model is set, so the demo answers; choose a model with -m or {MODEL_VARIABLE} (see llmbridge models)")
    return _DEMO


def _embed(options: argparse.Namespace) -> None:
    from llmbridge import Client

    texts = _texts(options.texts)
    with Client(options.model, **client_options(options)) as client:
        vectors = client.embed(texts).vectors
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

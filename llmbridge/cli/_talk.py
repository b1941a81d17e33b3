"""`llmbridge chat` on a terminal without a prompt: a conversation, with commands that start with a slash."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from llmbridge._text import shortened
from llmbridge.cli._answer import show_answer, take_back_unanswered, usage_text
from llmbridge.cli._input import argument_text
from llmbridge.cli._kept import Kept, history_path, read
from llmbridge.cli._output import Misused, end_line, report, tell, write
from llmbridge.cli._question import attachment, parts_of
from llmbridge.errors import LLMBridgeError

if TYPE_CHECKING:
    from llmbridge import Client, Conversation
    from llmbridge.tools import Tool

__all__ = ["Talk"]

_QUOTES = '"""'
_HISTORY_LENGTH = 1000
_SHOWN = 60
_HELP = """\
/model [PROVIDER:MODEL]   show the model, or change it
/system [TEXT]            show the system message, or set it
/attach FILE|URL          add an image, sound or document to the next question
/save FILE                save the conversation in a file
/load FILE                continue a conversation from a file
/retry                    ask the last question again
/undo                     remove the last question and its answer
/usage                    show the tokens used so far
/help                     show these lines
/quit                     quit (or Ctrl-D)
Ctrl-C stops an answer. \"\"\" starts a question of several lines, and \"\"\" ends it.
"""


class Talk:
    """A conversation with the user at a terminal.

    Args:
        talk: The conversation so far.
        client: Its client.
        given: Its options except the model.
        options: The command's.
        tools: By name.
        kept: Its file.
        attached: Attachments of the first question.
    """

    def __init__(
        self,
        talk: Conversation[Any],
        client: Client,
        given: dict[str, Any],
        options: argparse.Namespace,
        tools: dict[str, Tool],
        kept: Kept,
        attached: list[Any],
    ) -> None:
        self._talk, self._client, self._given, self._options = talk, client, given, options
        self._tools, self._kept, self._attached = tools, kept, attached
        self._commands: dict[str, Callable[[str], object]] = {
            "model": self._model, "system": self._system, "attach": self._attach, "save": self._save,
            "load": self._load, "retry": self._retry, "undo": self._undo, "usage": self._usage, "help": self._help,
        }  # fmt: skip

    def run(self) -> None:
        """Reads and answers questions until `/quit` or Ctrl-D."""
        asked = sum(message.role == "user" for message in self._talk.messages)
        going_on = f", continuing after {asked} question{'' if asked == 1 else 's'}" if asked else ""
        tell(f"chatting with {self._setting('model')}{going_on}; /help lists commands, Ctrl-D quits")
        with _line_editing(), _leaving_in_order():
            while (line := _typed()) is not None:
                if line in ("/quit", "/exit", "/q"):
                    return
                try:
                    self._take(argument_text(line, "question"))
                except KeyboardInterrupt:
                    end_line(sys.stdout)
                except (LLMBridgeError, Misused) as error:
                    report(error, False)

    def _take(self, line: str) -> None:
        command = re.match(r"/(\w+)(?:\s+|$)", line)
        if command is None:
            if line.strip():
                take_back_unanswered(self._talk)
                self._ask(parts_of(line, self._attached))
            return
        if command[1] not in self._commands:
            close = get_close_matches(command[1], [*self._commands, "quit"], n=1)
            hint = f"did you mean /{close[0]}?" if close else "/help shows the commands"
            raise Misused(f"/{command[1]} is not a command: {hint} (start with a space to ask it)")
        self._commands[command[1]](line[command.end() :].strip())

    def _ask(self, question: Any) -> None:
        try:
            show_answer(self._talk, question, self._options, self._tools, self._kept)
        finally:
            self._attached = []

    def _setting(self, name: str) -> Any:
        return self._talk.to_dict()["settings"].get(name)

    def _change(self, **settings: Any) -> None:
        from llmbridge import Conversation

        given = {**self._given, "model": self._setting("model"), **settings}
        self._talk = Conversation.from_dict(self._talk.to_dict(), self._client, **given)
        self._given = {name: value for name, value in given.items() if name != "model"}

    def _model(self, name: str) -> None:
        if name:
            self._change(model=name)
        tell(f"the model is {self._setting('model')}")

    def _system(self, text: str) -> None:
        if text:
            self._change(system=text)
        tell(f"the system message is: {self._setting('system')}" if self._setting("system") else "no system message")

    def _attach(self, source: str) -> None:
        if not source:
            raise Misused("/attach needs a file or a URL")
        self._attached.append(attachment(os.path.expanduser(_unquoted(source))))
        tell(f"{len(self._attached)} attached; type your question")

    def _save(self, path: str) -> None:
        if not path:
            raise Misused("/save needs a file name")
        path = os.path.expanduser(_unquoted(path))
        self._talk.save(path)
        tell(f"saved in {path}")

    def _load(self, path: str) -> None:
        from llmbridge import Conversation

        if not path:
            raise Misused("/load needs a file name")
        saved = read(os.path.expanduser(_unquoted(path)))
        model = saved.get("settings", {}).get("model") or self._setting("model")
        self._talk = Conversation.from_dict(saved, self._client, **{**self._given, "model": model})
        self._kept = Kept(None, self._kept.base_url)
        tell(f"{sum(message.role == 'user' for message in self._talk.messages)} questions loaded; the model is {model}")

    def _retry(self, _: str) -> None:
        taken = self._talk.undo()
        end = next((place for place, message in enumerate(taken) if message.role == "assistant"), len(taken))
        if not taken[:end]:
            raise Misused("there is no question to ask again")
        self._ask(taken[:end])

    def _undo(self, _: str) -> None:
        taken = self._talk.undo()
        if not taken:
            raise Misused("there is no question to remove")
        self._kept.note(self._talk)
        tell(f"removed: {shortened(' '.join(_text(taken[0]).split()), _SHOWN)}")

    def _usage(self, _: str) -> None:
        tell(usage_text(self._talk.usage) if self._talk.usage else "no tokens counted so far")

    def _help(self, _: str) -> None:
        write(_HELP)


def _text(message: Any) -> str:
    content = message.content
    return content if isinstance(content, str) else " ".join(part.get("text") or "" for part in content or ())


def _unquoted(path: str) -> str:
    """A path that was dragged into the terminal, or typed with quotes."""
    if os.path.exists(path):
        return path
    with contextlib.suppress(ValueError):
        if len(words := shlex.split(path, posix=os.name != "nt")) == 1:
            return words[0].strip("\"'")
    return path


def _typed() -> str | None:
    """The next question or command; "" after Ctrl-C, None after Ctrl-D."""
    try:
        line = input("> ")
        if not line.lstrip().startswith(_QUOTES):
            return line
        lines = [line.lstrip().removeprefix(_QUOTES)]
        while not lines[-1].rstrip().endswith(_QUOTES):
            lines.append(input("... "))
        lines[-1] = lines[-1].rstrip().removesuffix(_QUOTES)
        return "\n".join(lines).strip("\n")
    except KeyboardInterrupt:
        end_line(sys.stdout)
        return ""
    except EOFError:
        end_line(sys.stdout)
        return None


@contextlib.contextmanager
def _line_editing() -> Iterator[None]:
    """Arrow keys and a history in a private file, if Python has readline."""
    try:
        import readline
    except ImportError:  # Windows, whose terminal has both
        yield
        return
    path = history_path()
    if path is not None:
        with contextlib.suppress(OSError):  # no history yet
            readline.read_history_file(path)
    readline.set_history_length(_HISTORY_LENGTH)
    try:
        yield
    finally:
        if path is not None:
            _keep_history(readline.write_history_file, path)


def _keep_history(write_file: Callable[[str], object], path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        write_file(path)
        os.chmod(path, 0o600)
    except OSError as error:
        tell(f"cannot save the history in {path}: {error.strerror or error}")


@contextlib.contextmanager
def _leaving_in_order() -> Iterator[None]:
    """Saves the answer so far if the terminal is closed, or the process is ended with `kill`."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGHUP", "SIGTERM") if hasattr(signal, name)]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

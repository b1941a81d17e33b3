"""Saved conversations, and `llmbridge conversations`, which lists, shows and deletes them.

A file grows by whole lines, each a JSON object: messages as they come, then the rest of `Conversation.to_dict`. A crash
can only lose the line that was being written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmbridge._text import shortened
from llmbridge.cli._answer import answer_text
from llmbridge.cli._completion import completed_by
from llmbridge.cli._input import add_debug
from llmbridge.cli._output import Misused, as_json, tell, write, write_table
from llmbridge.errors import LLMBridgeError
from llmbridge.options import without_secrets

if TYPE_CHECKING:
    from llmbridge import Conversation

__all__ = ["Kept", "add", "history_path", "kept_names", "read"]

_KEEP_VARIABLE = "LLMBRIDGE_KEEP"
_ENDING = ".jsonl"
_NAME = re.compile(r"\w[\w.-]{0,99}")
_LONGEST_QUESTION = 40
_APPEND = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def _state_folder() -> str:
    """`llmbridge` in XDG_STATE_HOME, in `~/.local/state`, on Windows in %APPDATA%."""
    folder = os.environ.get("APPDATA", "") if os.name == "nt" else os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(folder):  # by the XDG specification, relative paths are ignored
        folder = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(folder, "llmbridge")


def _folder() -> str:
    return os.path.join(_state_folder(), "conversations")


def _keeps() -> bool:
    return os.environ.get(_KEEP_VARIABLE, "").strip().lower() not in ("0", "no", "false", "off")


def history_path() -> str | None:
    """The file of typed lines; None if nothing is kept."""
    return os.path.join(_state_folder(), "history") if _keeps() else None


class Kept:
    """The file of a conversation.

    Args:
        name: The conversation's name; None for a new one, named by the time of its first question.
        base_url: Its address; saved without a password, so that it can be continued there.
        model: The model to continue with: a saved address is not used for another provider.

    Attributes:
        saved: The file's content; None if there is no file.
        model: The conversation's model; None if unknown.
    """

    def __init__(self, name: str | None = None, base_url: str | None = None, model: str | None = None) -> None:
        self.name = name
        self.base_url = base_url
        self.saved: dict[str, Any] | None = None
        self.model: str | None = None
        self._written: list[Any] = []
        self._head: dict[str, Any] | None = None
        self._size = self._good = 0
        self._made = False
        self._on = _keeps()
        if name is not None and os.path.exists(path := _path_of(name)):
            self.saved, self._good, self._size = _read(path)
            self._written = list(self.saved["messages"])
            self.model = self.saved.get("settings", {}).get("model")
            if base_url is None and (model is None or _provider(model) in ("", _provider(self.model or ""))):
                self.base_url = self.saved.get("base_url")

    @classmethod
    def last(cls, base_url: str | None = None, model: str | None = None) -> Kept:
        """The file of the conversation that was continued last.

        Raises:
            Misused: There is none.
        """
        names = kept_names()
        if not names:
            off = "" if _keeps() else f" ({_KEEP_VARIABLE} turns saving off)"
            raise Misused(f"there is no conversation to continue{off}")
        return cls(names[0], base_url, model)

    def note(self, talk: Conversation[Any], over: bool = False) -> None:
        """Saves what is new. If that fails, says so, once.

        Args:
            talk: The conversation.
            over: Whether its answer has ended. A new conversation without any answer is not saved then.
        """
        if not self._on:
            return
        head = talk.to_dict()
        messages = head.pop("messages")
        if self.base_url is not None:
            head.update(without_secrets({"base_url": self.base_url}))
        try:
            if over and self._made and not any(_is_answer(message) for message in messages):
                os.unlink(_path_of(str(self.name)))
                self.name, self._made, self._written, self._head = None, False, [], None
            else:
                self._write(head, messages)
        except OSError as error:
            self._on = False
            reason = error.strerror or error
            tell(f"the conversation is not saved in {_folder()}: {reason} ({_KEEP_VARIABLE}=0 turns saving off)")

    def _write(self, head: dict[str, Any], messages: list[Any]) -> None:
        if messages == self._written and (not messages or head == self._head):
            return
        same = next((n for n, (a, b) in enumerate(zip(messages, self._written)) if a != b), None)  # noqa: B905
        same = min(len(messages), len(self._written)) if same is None else same
        descriptor = self._opened()
        if descriptor is None:  # another process continued it
            self._written, same = [], 0
            descriptor = self._opened()
            assert descriptor is not None
        lines = [{"messages": same}] if same < len(self._written) else []
        lines += [*messages[same:], {**head, "messages": len(messages)}]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        # In JSON, a lone surrogate becomes an escape.
        content = text.encode(errors="backslashreplace")
        with open(descriptor, "wb") as file:
            file.write(content)
        self._good = self._size = self._good + len(content)
        self._written, self._head = messages, head

    def _opened(self) -> int | None:
        """The file, at its end; None, and a new name, if another process changed it."""
        if self.name is None or not (self._size or self._made):
            self._make()
        descriptor = os.open(_path_of(str(self.name)), _APPEND)
        if os.fstat(descriptor).st_size != self._size:
            os.close(descriptor)
            old, self.name, self._size, self._good, self._made = self.name, f"{self.name}-2", 0, 0, False
            self._make()
            tell(f"conversation {old} was changed by another process: this one is saved as {self.name}")
            return None
        if self._good < self._size:
            os.truncate(descriptor, self._good)
        return descriptor

    def _make(self) -> None:
        os.makedirs(_state_folder(), mode=0o700, exist_ok=True)
        os.makedirs(_folder(), mode=0o700, exist_ok=True)
        wanted = self.name or time.strftime("%Y-%m-%d-%H%M%S")
        for number in range(1, 1000):
            self.name = wanted if number == 1 else f"{wanted}-{number}"
            with suppress(FileExistsError):
                os.close(os.open(_path_of(self.name), _APPEND | os.O_CREAT | os.O_EXCL, 0o600))
                self._made = True
                return
        raise OSError("no name is free")


def _provider(model: str) -> str:
    """The provider in a model's name; "" if none."""
    return model.partition(":")[0] if ":" in model else ""


def _is_answer(message: Any) -> bool:
    return message["role"] == "assistant" and bool({*message} - {"role", "content"} or message.get("content"))


def read(path: str) -> dict[str, Any]:
    """A saved conversation as `Conversation.from_dict` takes it, from this folder or from `Conversation.save`.

    Raises:
        Misused: It cannot be read, or is something else.
    """
    return _read(path)[0]


def _read(path: str) -> tuple[dict[str, Any], int, int]:
    """A file's content, the length of its whole lines in bytes, and its size."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise Misused(f"cannot read the conversation in {path}: {error.strerror or error}") from None
    good = content.rfind(b"\n") + 1
    head: dict[str, Any] = {}
    messages: list[Any] = []
    for number, line in enumerate(content[:good].splitlines(), 1):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Misused(f"{path}, line {number}: not a JSON object of a conversation")
        if "role" in found:
            messages.append(found)
        elif isinstance(count := found.get("messages"), int):
            del messages[count:]
            head = found if "conversation" in found else head
    if not head:
        raise Misused(f"{path} does not hold a conversation")
    return {**head, "messages": messages}, good, len(content)


def _path_of(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise Misused("the name of a conversation may have only letters, digits, dots and dashes")
    return os.path.join(_folder(), name + _ENDING)


def kept_names() -> list[str]:
    """The names of saved conversations, newest first."""
    try:
        with os.scandir(_folder()) as entries:
            found = [(entry.stat().st_mtime_ns, entry.name) for entry in entries if entry.name.endswith(_ENDING)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Misused(f"cannot read the conversations in {_folder()}: {error.strerror or error}") from None
    return [name.removesuffix(_ENDING) for _, name in sorted(found, reverse=True) if _NAME.fullmatch(name)]


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "conversations",
        allow_abbrev=False,
        help="list, show and delete saved conversations",
        description="Lists saved conversations, newest first; shows or deletes them by name.",
        epilog=f"They are in {os.path.join('~', '.local', 'state', 'llmbridge', 'conversations')} (XDG_STATE_HOME), "
        f"readable only by you; {_KEEP_VARIABLE}=0 turns saving off.",
    )
    command.add_argument("action", nargs="?", choices=("list", "show", "delete"), default="list", metavar="ACTION",
                         help="list (the default), show or delete")  # fmt: skip
    names = command.add_argument("names", nargs="*", metavar="NAME", help="without one, show takes the newest")
    completed_by(names, kept_names)
    command.add_argument("--all", action="store_true", help="delete all conversations")
    command.add_argument("--json", action="store_true", help="print JSON")
    add_debug(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    {"list": _list, "show": _show, "delete": _delete}[options.action](options)


def _list(options: argparse.Namespace) -> None:
    rows = []
    for name in kept_names():
        try:
            saved = read(_path_of(name))
        except Misused as error:
            tell(str(error))
            continue
        asked = [text_of(message) for message in saved["messages"] if message["role"] == "user"]
        model = saved.get("settings", {}).get("model", "")
        rows.append({"name": name, "model": model, "questions": len(asked), "first": next(iter(asked), "")})
    if options.json:
        write(as_json(rows) + "\n")
        return
    write_table((r["name"], r["model"], shortened(" ".join(r["first"].split()), _LONGEST_QUESTION)) for r in rows)
    if not rows:
        tell("no conversations are saved yet")


def _show(options: argparse.Namespace) -> None:
    names = options.names or kept_names()[:1]
    if not names:
        raise Misused("no conversations are saved yet")
    apart = ""
    for name in names:
        saved = read(_known(name))
        if options.json:
            write(as_json(saved) + "\n")
            continue
        for message in saved["messages"]:
            if text := text_of(message).rstrip("\n"):
                write(apart)
                apart, quoted = "\n", message["role"] == "user"
                with answer_text(plain=quoted) as shown:
                    shown.write("> " + text.replace("\n", "\n> ") if quoted else text)


def _delete(options: argparse.Namespace) -> None:
    names = kept_names() if options.all else options.names
    if not names and not options.all:
        raise Misused("name the conversations to delete, or use --all")
    paths = [_known(name) for name in names]
    for path in paths:
        try:
            os.unlink(path)
        except OSError as error:
            raise LLMBridgeError(f"cannot delete {path}: {error.strerror or error}") from None
    tell(f"{len(paths)} conversation{'' if len(paths) == 1 else 's'} deleted")


def _known(name: str) -> str:
    path = _path_of(name)
    if not os.path.exists(path):
        raise Misused(f"unknown conversation {name} (see llmbridge conversations)")
    return path


def text_of(message: dict[str, Any]) -> str:
    """The text of a message, and the names of its other parts, without its reasoning."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    shown = (part for part in content if isinstance(part, str) or part.get("type") != "reasoning")
    return "\n".join(part if isinstance(part, str) else part.get("text") or f"[{part.get('type')}]" for part in shown)

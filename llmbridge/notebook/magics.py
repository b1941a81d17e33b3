"""`%%chat`, `%chat` and `%chat_new`: cells that are questions. `%load_ext llmbridge` brings them.

IPython is not imported: everything is asked of the shell that loads them.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from types import SimpleNamespace
from typing import Any

from llmbridge._api import conversation
from llmbridge._text import shown
from llmbridge.client import Client
from llmbridge.completion import Completion
from llmbridge.conversations import Conversation
from llmbridge.errors import InvalidRequest
from llmbridge.parts import Image
from llmbridge.providers import known

__all__ = ["load"]

_WORD = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[^\s"'])+)""")
_NAME = re.compile(r"\{([^\W\d]\w*)\}")
_ASKED = re.compile(r"^(\s*(?:\w+\s*=\s*)?)%chat\s+(\S.*\?)\s*$")
_SHORT = {"-m": "--model", "-o": "--option"}
_FLAGS = ("--fill",)
_OPTIONS = ("--model", "--system", "--into", "--schema", "--tools", "--option", "--image", *_FLAGS)
_NOT_FOR_O = ("self", "messages", "model", "system", "tools", "schema", "params")
_FIRST_NAME = "talk"


@dataclass
class _Asked:
    """What the line of a magic says."""

    model: str | None = None
    system: str | None = None
    into: str | None = None
    schema: str | None = None
    tools: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    fill: bool = False
    rest: str = ""

    @classmethod
    def of(cls, line: str) -> _Asked:
        """Options first; what follows them is the question.

        Raises:
            InvalidRequest: There is no such option, or its value is missing or wrong.
        """
        asked = cls(rest=line.strip())
        while asked.rest.startswith("-"):
            word = asked._word()
            name, _, value = word.partition("=") if word.startswith("--") else (word, "", "")
            name = _SHORT.get(name, name)
            if name not in _OPTIONS:
                raise InvalidRequest(f"%chat has no option {shown(name)}: use -m, -o, {', '.join(_OPTIONS[1:5])} ...")
            if name in _FLAGS:
                asked.fill = True
                continue
            value = value or asked._word()
            if not value:
                raise InvalidRequest(f"{word} needs a value, as in `%chat -m demo --into talk Hello`")
            asked._take(name, value)
        return asked

    def _word(self) -> str:
        """The next word, without quotes around it or around its value."""
        found = _WORD.match(self.rest)
        if found is None:
            return ""
        self.rest = self.rest[found.end() :].strip()
        return re.sub(r"\"([^\"]*)\"|'([^']*)'", lambda quoted: quoted[1] or quoted[2] or "", found[1])

    def _take(self, name: str, value: str) -> None:
        if name == "--tools":
            self.tools += [tool for tool in value.split(",") if tool]
        elif name == "--image":
            self.images.append(value)
        elif name == "--option":
            key, given, written = value.partition("=")
            if not given:
                raise InvalidRequest(f"-o takes NAME=VALUE, like -o temperature=0.2, not {shown(value)}")
            self.options[key] = _value(written)
        elif name == "--into" and not value.isidentifier():
            raise InvalidRequest(f"--into takes the name of a variable, not {shown(value)}")
        else:
            setattr(self, name.removeprefix("--"), value)


class _Chats:
    """The magics of one shell, and the name of the conversation that they go on with."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._name = _FIRST_NAME

    def chat(self, line: str, cell: str | None = None) -> Completion[Any]:
        """Asks a model, and shows the answer while it comes.

            %chat -m demo What is a bridge?

            %%chat -m openai:gpt-5.4-mini --into talk
            A question of any length,
            which goes on with the conversation `talk`.

        `-m MODEL`; `--system TEXT`; `--into NAME`: the variable that holds the conversation, `talk` at first, and later
        the last one that was named; `--schema CLASS`; `--tools NAME,NAME`: functions that the model may call;
        `-o NAME=VALUE`: any other option of chat(); `--image FILE`, URL or variable; `--fill`: `{name}` in the question
        stands for a variable. `answer = %chat Hello` keeps the answer, and so does `_` in the next cell. It can be
        interrupted; the conversation has what came.
        """
        asked = _Asked.of(line)
        if cell is not None and asked.rest:
            raise InvalidRequest(f"in %%chat, the question is below the first line: move {shown(asked.rest)} there")
        question = self._filled(asked.rest if cell is None else cell.strip(), asked.fill)
        options = self._options(asked)
        name = asked.into or self._name
        talk = self._conversation(name)
        if talk is None:
            talk = conversation(model=asked.model, system=asked.system)
        else:
            said = {"model": asked.model, "system": asked.system}
            options.update({key: value for key, value in said.items() if value is not None})
        images = [self._image(image) for image in asked.images]
        stream = talk.ask([question, *images] if images else question, **options)
        self._shell.user_ns[name], self._name = talk, name
        return stream.show()

    def chat_new(self, line: str) -> None:
        """Begins the conversation anew, with the model and system message that it had: `%chat_new` or `%chat_new NAME`.

        From then on, `%chat` and `%%chat` go on with it.
        """
        name = line.strip() or self._name
        if not name.isidentifier():
            raise InvalidRequest(f"%chat_new takes the name of a variable, not {shown(name)}")
        talk = self._conversation(name)
        if talk is not None:
            self._shell.user_ns[name] = Conversation(talk._client, **talk._options)
        self._name = name

    def complete(self, context: Any) -> dict[str, Any]:
        """What Tab offers in the line of a magic, by IPython's API for matchers."""
        before: str = context.text_until_cursor
        words = before.split(" ")
        if words[0] not in ("%chat", "%%chat", "%chat_new") or len(words) < 2:
            return {"completions": []}
        word, last = words[-1], _SHORT.get(words[-2], words[-2])
        names = sorted(name for name in self._offered(last, word) if name.startswith(word))
        made = [SimpleNamespace(text=name, type="param") for name in names]
        return {"completions": made, "matched_fragment": word, "suppress": bool(made)}

    def _offered(self, last: str, word: str) -> Iterable[str]:
        """The completions after a word."""
        if last == "--model":
            return [name if provider.direct else f"{name}:" for name, provider in known().items()]
        if last == "--option":
            return [f"{name}=" for name in signature(Client.chat).parameters if name not in _NOT_FOR_O]
        if last in ("--into", "%chat_new"):
            return self._variables(lambda value: isinstance(value, Conversation))
        if last == "--schema":
            return self._variables(lambda value: isinstance(value, type))
        if last == "--tools":
            return self._variables(lambda value: callable(value) and not isinstance(value, type))
        return [*_SHORT, *_OPTIONS] if word.startswith("-") else []

    def _variables(self, fits: Callable[[Any], bool]) -> list[str]:
        held = self._shell.user_ns.items()
        return [name for name, value in held if not name.startswith("_") and fits(value)]

    def _conversation(self, name: str) -> Conversation[Any] | None:
        held = self._shell.user_ns.get(name)
        if held is not None and not isinstance(held, Conversation):
            raise InvalidRequest(
                f"{name} is a {type(held).__name__}, not a Conversation: choose another name by --into"
            )
        return held

    def _options(self, asked: _Asked) -> dict[str, Any]:
        """The options for this question."""
        options = dict(asked.options)
        if asked.schema is not None:
            options["schema"] = self._named(asked.schema, "--schema")
        if asked.tools:
            options |= {"tools": [self._named(name, "--tools") for name in asked.tools], "run_tools": True}
        return options

    def _named(self, name: str, option: str) -> Any:
        held: Any = SimpleNamespace(**self._shell.user_ns)
        for part in name.split("."):
            if not hasattr(held, part):
                raise InvalidRequest(f"{option} {name}: there is no such variable")
            held = getattr(held, part)
        return held

    def _image(self, image: str) -> Image:
        held = self._shell.user_ns.get(image, image)
        return held if isinstance(held, Image) else Image(held)

    def _filled(self, question: str, fill: bool) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] not in self._shell.user_ns:
                raise InvalidRequest(f"--fill: {found[0]} is not a variable; leave --fill out to send it as it is")
            return str(self._shell.user_ns[found[1]])

        return _NAME.sub(value, question) if fill else question


_Chats.complete.matcher_api_version = 2  # type: ignore[attr-defined]
# IPython fills in `{name}` and `$name` by itself, unless it finds this.
_Chats.chat._ipython_magic_no_var_expand = True  # type: ignore[attr-defined]


def _value(written: str) -> Any:
    """What an option's value is in Python; a word that is nothing else is text."""
    words: Mapping[str, Any] = {"true": True, "false": False, "null": None}
    try:
        return words[written] if written in words else ast.literal_eval(written)
    except (ValueError, SyntaxError):
        return written


def _questions(lines: list[str]) -> list[str]:
    """`%chat ...?` as a call: what ends so is a question here, which IPython would take for one about its objects."""
    if lines and lines[0].startswith("%%"):
        return lines
    return [_ASKED.sub(lambda asked: f"{asked[1]}get_ipython().run_line_magic('chat', {asked[2]!r})", i) for i in lines]


def load(shell: Any) -> None:
    """Gives a shell of IPython the magics."""
    chats = _Chats(shell)
    if _questions not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(_questions)
    shell.register_magic_function(chats.chat, "line_cell", "chat")
    shell.register_magic_function(chats.chat_new, "line", "chat_new")
    if hasattr(sys.modules.get("IPython.core.completer"), "CompletionContext"):  # from IPython 8.6 on
        shell.Completer.custom_matchers.append(chats.complete)

"""The parts of a question on the command line: words and piped text, files, parameters, a schema, tools."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from llmbridge.cli._completion import completed_by, model_names
from llmbridge.cli._input import argument_text, piped_text, stdin_text
from llmbridge.cli._output import Misused

__all__ = ["add_question", "attachment", "chat_options", "parts_of", "prompt_text"]

_OWN_OPTIONS = {
    "model": "-m", "messages": "the prompt", "system": "--system", "schema": "--schema", "tools": "-T",
    "run_tools": "-T", "api_key": "--key", "base_url": "--base-url", "proxy": "--proxy", "timeout": "--timeout",
    "retries": "--retries", "limits": "--limits",
}  # fmt: skip
_TYPES = {
    "str": "string", "string": "string", "text": "string", "int": "integer", "integer": "integer", "float": "number",
    "number": "number", "bool": "boolean", "boolean": "boolean",
}  # fmt: skip
_FIELD = re.compile(r"([^\W\d]\w*)(?:\s+(\w+)(\[\])?)?\s*(?::\s*(.*))?", re.DOTALL)


def add_question(command: argparse.ArgumentParser) -> None:
    """Adds the options that make up the question."""
    command.add_argument("prompt", nargs="*", help="the prompt; piped text is put before it, or in place of a -")
    model = command.add_argument(
        "-m", "--model", metavar="PROVIDER:MODEL", help="default: LLMBRIDGE_MODEL, else the demo"
    )
    completed_by(model, model_names)
    command.add_argument("-s", "--system", metavar="TEXT", help="a system message")
    command.add_argument(
        "-f", "--file", metavar="FILE", action="append", default=[], help="a text file to put before the prompt"
    )
    command.add_argument(
        "-a",
        "--attach",
        metavar="FILE|URL",
        action="append",
        default=[],
        help="an image, sound or document to send",
    )
    command.add_argument(
        "--image", metavar="FILE|URL", action="append", default=[], help="the same, always as an image"
    )
    command.add_argument(
        "-o", "--option", metavar=("NAME", "VALUE"), nargs=2, action="append", default=[],
        help="any parameter, like -o temperature 0.2; the value is JSON or text",
    )  # fmt: skip
    command.add_argument(
        "--schema", metavar="FILE|FIELDS",
        help="get JSON that matches a JSON schema, or fields like 'name, age int'; '[name, age int]' for a list",
    )  # fmt: skip
    command.add_argument(
        "-T", "--tool", metavar="MODULE:FUNCTION", action="append", default=[],
        help="a Python function that the model may call; you are asked before each call",
    )  # fmt: skip
    command.add_argument("--yes", action="store_true", help="run tools without asking")


def prompt_text(options: argparse.Namespace) -> str:
    """The words of the command line, with files and piped text before them or in place of a dash.

    Raises:
        Misused: There is no text, or it is not UTF-8.
    """
    words = [argument_text(word, "prompt") for word in options.prompt]
    files = options.file
    dashes = [*words, *files].count("-")
    if dashes > 1:
        raise Misused("- stands for standard input, which can be used only once")
    if dashes or not (words or files or options.attach or options.image):
        advice = 'write llmbridge chat "Hello", or send it to standard input'
        piped = "" if "-" in options.attach else stdin_text("prompt", advice, asked=bool(dashes))
    else:
        piped = "" if "-" in options.attach else piped_text("prompt")
    piped = piped.rstrip("\r\n")
    blocks = [piped if path == "-" else _file_text(path) for path in files]
    if "-" in words:
        place = words.index("-")
        blocks += [" ".join(words[:place]), piped, " ".join(words[place + 1 :])]
    else:
        blocks += ["" if "-" in files else piped, " ".join(words)]
    return "\n\n".join(block for block in blocks if block.strip())


def _file_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read().rstrip("\r\n")
    except OSError as error:
        raise Misused(f"-f: cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise Misused(f"-f: {path} is not UTF-8 text (byte {error.start}): attach it with -a") from None


def attachment(source: str) -> Any:
    """A file, a URL or (`-`) standard input as a message part of its kind.

    Raises:
        Misused: It cannot be read, or its kind is unknown.
        InvalidRequest: As for `Image`, `Audio` and `Document`.
    """
    from llmbridge.parts import Audio, Document, Image, media_type_of

    given: Any = source
    if source == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise Misused("cannot attach -: nothing is piped in")
        given = sys.stdin.buffer.read()
        kind = media_type_of(given)
    elif "://" in source[:9]:
        if not (kind := media_type_of(b"", source)):
            raise Misused(f"cannot attach {source}: the URL has no file extension (use --image for an image)")
    else:
        try:
            with open(source, "rb") as file:
                kind = media_type_of(file.read(16), source)
        except OSError as error:
            raise Misused(f"cannot attach {source}: {error.strerror or error}") from None
    if not kind and _is_text(given):
        return Document(given, media_type="text/plain")
    if not kind:
        raise Misused(f"cannot attach {source}: it is not text, and not a known kind of image, sound or document")
    family = kind.partition("/")[0]
    return {"image": Image, "audio": Audio}.get(family, Document)(given)


def _is_text(source: Any) -> bool:
    if isinstance(source, str):
        with open(source, "rb") as file:
            source = file.read()
    try:
        return "\0" not in source.decode()
    except UnicodeDecodeError:
        return False


def chat_options(options: argparse.Namespace) -> dict[str, Any]:
    """The command's options as arguments of `Client.chat`.

    Raises:
        Misused: An option has a wrong value.
    """
    given = dict(_parameter(name, value) for name, value in options.option)
    if options.system is not None:
        given["system"] = argument_text(options.system, "system message")
    if options.schema is not None:
        given["schema"] = _schema(options.schema)
    if options.tool:
        given.update(tools=[_function(name) for name in options.tool], run_tools=False)  # run after asking
    return given


def _parameter(name: str, value: str) -> tuple[str, Any]:
    name = name.replace("-", "_")
    if name in _OWN_OPTIONS:
        raise Misused(f"-o {name}: write {_OWN_OPTIONS[name]} instead")
    text = argument_text(value, "value of -o")
    try:
        return name, json.loads(text, parse_constant=lambda word: word)
    except (ValueError, RecursionError):
        return name, text


def _schema(source: str) -> dict[str, Any]:
    source = argument_text(source, "schema")
    if source.lstrip().startswith("{"):
        return _json_schema(source, "the text")
    if not os.path.exists(source) and not re.search(r"[/\\]|\.\w+$", source):
        return _schema_of_fields(source)
    try:
        with open(source, encoding="utf-8-sig") as file:
            return _json_schema(file.read(), source)
    except OSError as error:
        raise Misused(f"--schema: cannot read {source}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise Misused(f"--schema: {source} is not UTF-8 (byte {error.start})") from None


def _json_schema(text: str, where: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Misused(f"--schema: {where} is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise Misused(f"--schema: {where} must hold a JSON object, like {json.dumps({'type': 'object'})}")
    return schema


def _schema_of_fields(text: str) -> dict[str, Any]:
    """The schema of `name, age int, tags str[], bio: in one line`, or of a list in brackets: all fields are required.

    Example:
        >>> _schema_of_fields("name, age int")["properties"]
        {'name': {'type': 'string'}, 'age': {'type': 'integer'}}
    """
    text = text.strip(" \n,")
    if text.startswith("[") and text.endswith("]"):
        return {"type": "array", "items": _schema_of_fields(text[1:-1])}
    fields = dict(map(_field, re.split(r"[,\n]", text)))
    return {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}


def _field(text: str) -> tuple[str, dict[str, Any]]:
    match = _FIELD.fullmatch(text.strip())
    if match is None:
        raise Misused(f"--schema: {text.strip()!r} is not a field: write name, name TYPE, or name TYPE: description")
    name, word, several, description = match.groups()
    if (word or "str").lower() not in _TYPES:
        raise Misused(f"--schema: {word!r} is not a type: use str, int, float or bool, with [] after it for a list")
    kind: dict[str, Any] = {"type": _TYPES[(word or "str").lower()]}
    if several:
        kind = {"type": "array", "items": kind}
    return name, {**kind, "description": description.strip()} if description else kind


def _function(name: str) -> Any:
    """The function named by `module:function` or `file.py:function`, also from the current folder."""
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise Misused(f"-T: write MODULE:FUNCTION, like tools:weather, not {name}")
    sys.path.insert(0, os.getcwd())
    try:
        found = _module(place)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise Misused(f"-T: cannot import {name}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise Misused(f"-T: {name} is not a function")
    return found


def _module(place: str) -> Any:
    from importlib import import_module, util

    if not place.endswith(".py"):
        return import_module(place)
    spec = util.spec_from_file_location(os.path.basename(place).removesuffix(".py"), place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is not a Python file")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parts_of(text: str, attached: Iterable[Any]) -> Any:
    """The text and its attachments, as `Conversation.ask` takes a question."""
    parts = [*attached]
    return [*([text] if text.strip() else []), *parts] if parts else text

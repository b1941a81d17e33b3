"""Runs the examples of one page, and encodes each chat with the demo for other models as well. Nothing is sent to them.

The input is JSON: `models`, and `blocks`, each with its `place`, its `code`, and whether it `runs` as it stands. So is
the output: how many chats were `encoded` for another model, the examples that were `refused`, and those that were
`skipped` because they need something that is not here.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import functools
import inspect
import io
import json
import sys
from typing import Any

from llmbridge import Client, LLMBridgeError
from llmbridge.testing import demo

KEY = "example-key"
chat, map_rows = Client.chat, Client.map
OF_RUNS = set(inspect.signature(map_rows).parameters) - {"model", "schema"}


class Watch:
    """Stands in for `Client.chat` and `Client.map`, before the package's functions are made of them."""

    def __init__(self, models: list[str]) -> None:
        self.models = models
        self.block: dict[str, Any] = {}
        self.encoded = 0
        self.refused: list[str] = []

    def chat(self, client: Client, messages: Any, model: Any = None, **options: Any) -> Any:
        """Encodes a chat with the demo for the models; one that cannot run here, for its own."""
        self.encode_all(client, messages, model, options)
        if self.block["runs"]:
            return chat(client, messages, model, **options)
        return chat(Client("demo"), "Hello", run_tools=options.get("run_tools"))

    def map(self, client: Client, prompts: Any, model: Any = None, **options: Any) -> Any:
        """The same for a row of a map."""
        if not options.get("embed"):
            of_chat = {name: value for name, value in options.items() if name not in OF_RUNS}
            self.encode_all(client, "Hello", model, of_chat)
        if self.block["runs"]:
            return map_rows(client, prompts, model, **options)
        return map_rows(Client("demo"), ["Hello"])

    def encode_all(self, client: Client, messages: Any, model: Any, options: dict[str, Any]) -> None:
        """Encodes a chat for its models, and those that stand in for the demo."""
        runs = self.block["runs"]
        own = client._model if model is None else model
        named = [name for name in ([own] if isinstance(own, str) else own) if isinstance(name, str)]
        for other in [*named, *(self.models if "demo" in named else ())]:
            if other != "demo" and not (runs and own == other):
                self.encode(client, messages, other, options)

    def encode(self, client: Client, messages: Any, model: str, options: dict[str, Any]) -> None:
        """Encodes a chat for a model, and remembers its refusal."""
        try:
            chat(client, messages, model, **{**options, "api_key": options.get("api_key") or KEY})
            self.encoded += 1
        except LLMBridgeError as error:
            self.refused.append(f"{self.block['place']}: {model}: {type(error).__name__}: {error}")


def run(code: str, place: str) -> None:
    """One example, as a script or as a cell of a notebook."""
    program = compile(code, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    scope = {"__name__": "__main__"}
    if not program.co_flags & inspect.CO_COROUTINE:
        exec(program, scope)
        return

    async def cell() -> None:
        await eval(program, scope)

    asyncio.run(cell())


def main() -> None:
    """Reads the page, and says what was refused."""
    given = json.load(sys.stdin)
    watch = Watch(given["models"])

    @functools.wraps(chat)
    def watched(client: Client, *args: Any, **options: Any) -> Any:
        return watch.chat(client, *args, **options)

    demo._PACE = 0.0  # nobody watches

    @functools.wraps(map_rows)
    def watched_map(client: Client, *args: Any, **options: Any) -> Any:
        return watch.map(client, *args, **options)

    Client.chat, Client.map = watched, watched_map  # type: ignore[method-assign,assignment]
    skipped = []
    for watch.block in given["blocks"]:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                run(watch.block["code"], watch.block["place"])
        except Exception:  # a library, file or account that the reader has
            if watch.block["runs"]:
                raise
            skipped.append(watch.block["place"])
    json.dump({"encoded": watch.encoded, "skipped": skipped, "refused": watch.refused}, sys.stdout)


if __name__ == "__main__":
    main()

"""Runs the examples of one page, and encodes each chat with the demo for other models as well. Nothing is sent to them.

The input is JSON: `models`, and `blocks`, each with its `place`, its `code`, and whether it `runs` as it stands. So is
the output: how many chats were `encoded` for another model, and the examples that were `skipped` and `refused`.
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

KEY = "example-key"
chat = Client.chat


class Watch:
    """Stands in for `Client.chat`, before the package's functions are made of it."""

    def __init__(self, models: list[str]) -> None:
        self.models = models
        self.runs = True
        self.encoded = 0

    def chat(self, client: Client, messages: Any, model: Any = None, **options: Any) -> Any:
        """Encodes a chat with the demo for the models; one that cannot run here, for its own."""
        own = client._model if model is None else model
        named = [name for name in ([own] if isinstance(own, str) else own) if isinstance(name, str)]
        for other in [*named, *(self.models if "demo" in named else ())]:
            if other == "demo" or (self.runs and own == other):
                continue
            chat(client, messages, other, **{"api_key": KEY, **options})
            self.encoded += 1
        if self.runs:
            return chat(client, messages, model, **options)
        return chat(Client("demo"), "Hello", run_tools=options.get("run_tools"))


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

    Client.chat = watched  # type: ignore[method-assign,assignment]
    refused, skipped = [], []
    for block in given["blocks"]:
        watch.runs = block["runs"]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                run(block["code"], block["place"])
        except ModuleNotFoundError:  # a library that the reader has
            skipped.append(block["place"])
        except LLMBridgeError as error:
            refused.append(f"{block['place']}: {error.provider}:{error.model}: {type(error).__name__}: {error}")
    json.dump({"encoded": watch.encoded, "skipped": skipped, "refused": refused}, sys.stdout)


if __name__ == "__main__":
    main()

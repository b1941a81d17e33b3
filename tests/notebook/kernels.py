"""A Jupyter kernel as a notebook drives it: cells go in, what a frontend would get comes out."""

from __future__ import annotations

import ast
import json
import os
import queue
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ipykernel")
KernelManager: Any = pytest.importorskip("jupyter_client.manager").KernelManager

__all__ = ["Cell", "Kernel"]

_LONGEST = 120.0  # seconds that a cell may take where nothing is wrong


@dataclass
class Cell:
    """What a frontend got for a cell."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    status: str = ""
    idle_seconds: float | None = None
    """From the interrupt on, if there was one."""

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The contents of the messages of some types."""
        return [message["content"] for message in self.messages if message["msg_type"] in kinds]

    @property
    def kinds(self) -> set[str]:
        """The types of its messages, but for those that every cell has."""
        return {message["msg_type"] for message in self.messages} - {"status", "execute_input"}

    @property
    def types(self) -> set[str]:
        """The MIME types of what it has shown."""
        return {kind for content in self.of(*_SHOWN) for kind in content["data"]}

    @property
    def size(self) -> int:
        """Bytes of what was shown."""
        return sum(len(json.dumps(content, default=str)) for content in self.of(*_SHOWN, "stream"))

    @property
    def printed(self) -> str:
        """What it has printed."""
        return "".join(content["text"] for content in self.of("stream"))

    @property
    def shown(self) -> list[str]:
        """The Markdown that is on the screen at the end, of each display."""
        displays: dict[str, str] = {}
        for number, content in enumerate(self.of(*_SHOWN)):
            name = content.get("transient", {}).get("display_id") or str(number)
            displays[name] = content["data"].get("text/markdown", content["data"]["text/plain"])
        return list(displays.values())

    @property
    def traceback(self) -> str:
        """Of the error that it ended with, without colours."""
        lines = "\n".join(line for content in self.of("error") for line in content["traceback"])
        return re.sub(r"\x1b\[[\d;]*m", "", lines)


_SHOWN = ("display_data", "update_display_data", "execute_result")


class Kernel:
    """One of ipykernel, with llmbridge, in a process of its own."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._manager = KernelManager(
            kernel_name="python3", connection_file=str(Path(self._folder.name, "kernel.json"))
        )
        foreign = ("_API_KEY", "_PROXY", "_TOKEN", "_BASE_URL")
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith(foreign)}
        own = {"IPYTHONDIR": self._folder.name, "LLMBRIDGE_KEYS_FILE": os.devnull, "LLMBRIDGE_MODEL": ""}
        self._manager.start_kernel(env={**kept, **own})
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=_LONGEST)

    def close(self) -> None:
        """Ends it."""
        self._manager.shutdown_kernel()  # in order, so that what measures it can write down what it has found
        self._client.stop_channels()
        self._folder.cleanup()

    def run(self, code: str, interrupt_when: Callable[[Cell], bool] | None = None) -> Cell:
        """Runs a cell.

        Args:
            code: Of the cell.
            interrupt_when: The kernel is interrupted, once, as soon as this is true; looked at all the time.
        """
        assert self._manager.is_alive(), "an earlier cell did not end"
        request = self._client.execute(code, allow_stdin=False)
        cell, stopped = Cell(), None
        end = time.monotonic() + _LONGEST
        while time.monotonic() < end:
            if interrupt_when is not None and stopped is None and interrupt_when(cell):
                self._manager.interrupt_kernel()
                stopped = time.monotonic()
            try:
                message = self._client.get_iopub_msg(timeout=0.01)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            cell.messages.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        else:
            self._manager.shutdown_kernel(now=True)  # the next test shall not wait for it
            raise TimeoutError(f"the cell did not end: {code}")
        if stopped is not None:
            cell.idle_seconds = time.monotonic() - stopped
        cell.status = self._reply_to(request)["status"]
        return cell

    def value(self, code: str) -> str:
        """What an expression prints, or several with commas between them."""
        request = self._client.execute("", user_expressions={"value": f"' '.join(map(str, [{code}]))"})
        found = self._reply_to(request)["user_expressions"]["value"]
        return str(ast.literal_eval(found["data"]["text/plain"])).strip()

    def complete(self, code: str) -> list[str]:
        """What Tab offers at the end of the code."""
        return list(self._reply_to(self._client.complete(code))["matches"])

    def _reply_to(self, request: str) -> dict[str, Any]:
        while True:
            reply = self._client.get_shell_msg(timeout=_LONGEST)
            if reply["parent_header"].get("msg_id") == request:
                content: dict[str, Any] = reply["content"]
                return content

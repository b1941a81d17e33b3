"""A Jupyter kernel as a notebook drives it: cells go in, what a frontend would get comes out."""

from __future__ import annotations

import json
import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.manager import KernelManager

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
    def size(self) -> int:
        """Bytes of what was shown."""
        shown = self.of("display_data", "update_display_data", "execute_result", "stream")
        return sum(len(json.dumps(content, default=str)) for content in shown)

    @property
    def printed(self) -> str:
        """What it has printed."""
        return "".join(content["text"] for content in self.of("stream"))

    @property
    def shown(self) -> list[str]:
        """The Markdown that is on the screen at the end, of each display."""
        displays: dict[str, str] = {}
        for number, content in enumerate(self.of("display_data", "update_display_data", "execute_result")):
            name = content.get("transient", {}).get("display_id") or str(number)
            displays[name] = content["data"].get("text/markdown", content["data"]["text/plain"])
        return list(displays.values())

    @property
    def traceback(self) -> str:
        """Of the error that it ended with."""
        return "\n".join(line for content in self.of("error") for line in content["traceback"])


class Kernel:
    """One of ipykernel, with llmbridge, in a process of its own."""

    def __init__(self) -> None:
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(env={**os.environ, "IPYTHONDIR": os.devnull})
        self.client: Any = self._manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=_LONGEST)

    def close(self) -> None:
        """Ends it."""
        self.client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def run(self, code: str, interrupt_when: Callable[[Cell], bool] | None = None) -> Cell:
        """Runs a cell.

        Args:
            code: Of the cell.
            interrupt_when: The kernel is interrupted, once, as soon as this is true; looked at all the time.
        """
        request = self.client.execute(code, allow_stdin=False)
        cell, stopped = Cell(), None
        end = time.monotonic() + _LONGEST
        while time.monotonic() < end:
            if interrupt_when is not None and stopped is None and interrupt_when(cell):
                self._manager.interrupt_kernel()
                stopped = time.monotonic()
            try:
                message = self.client.get_iopub_msg(timeout=0.01)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            cell.messages.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        else:
            raise TimeoutError(f"the cell did not end: {code}")
        if stopped is not None:
            cell.idle_seconds = time.monotonic() - stopped
        while True:
            reply = self.client.get_shell_msg(timeout=_LONGEST)
            if reply["parent_header"].get("msg_id") == request:
                cell.status = reply["content"]["status"]
                return cell

    def complete(self, code: str) -> list[str]:
        """What Tab offers at the end of the code."""
        request = self.client.complete(code)
        while True:
            reply = self.client.get_shell_msg(timeout=_LONGEST)
            if reply["parent_header"].get("msg_id") == request:
                return list(reply["content"]["matches"])

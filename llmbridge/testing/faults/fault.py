"""A fault: its name, what it does on the wire, and what a correct client makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Union

from llmbridge.testing import CLOSE, LLMServer, Received, Reply
from llmbridge.testing.reply import Action, Step

__all__ = ["Fault", "Script", "sends"]

Script = Union[Reply, Callable[[Received], Reply]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a service can misbehave.

    Attributes:
        name: Its key in the catalogue.
        summary: What happens, in one line.
        promise: The number of the promise of llmbridge that it tests.
        error: The class of llmbridge's error; "" if the caller gets the whole answer.
        text: The text that reaches the caller: the whole answer, or the error's `.partial`.
        heavy: Whether it moves or unpacks hundreds of megabytes, to test memory.
        scripted: Makes the answer for an `LLMServer`; None if the fault is below HTTP.
        served: Runs a listener of its own and gives its base URL; None if an `LLMServer` can play it.

    Example:
        >>> from llmbridge.testing import LLMServer
        >>> from llmbridge.testing.faults import FAULTS
        >>> from llmbridge import Client, StreamTruncated
        >>> fault = FAULTS["cut-in-chunk"]
        >>> with fault.serve() as base_url, Client("openai:m", base_url=base_url) as client:
        ...     try:
        ...         client.chat("Hi").complete()
        ...     except StreamTruncated as error:
        ...         print(error.partial == fault.text)
        True
    """

    name: str
    summary: str
    promise: str
    error: str = ""
    text: str = ""
    heavy: bool = False
    scripted: Callable[[], Script] | None = None
    served: Callable[[], AbstractContextManager[str]] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def expected(self) -> Literal["error", "text"]:
        """How a call ends with a correct client: with a typed error, or with the whole answer."""
        return "error" if self.error else "text"

    @property
    def hangs(self) -> bool:
        """Whether only a timeout of the client ends the call."""
        return self.error == "ClockExpired"

    def reply(self) -> Script:
        """The answer for `LLMServer.script()`, or for its `default`.

        Raises:
            ValueError: The fault needs a listener of its own: use `serve()`.
        """
        if self.scripted is None:
            raise ValueError(f"{self.name} cannot be played by an LLMServer: use serve()")
        return self.scripted()

    def serve(self) -> AbstractContextManager[str]:
        """Runs a server with only this fault; gives its base URL for OpenAI's format."""
        return self.served() if self.served is not None else self._serve()

    @contextlib.contextmanager
    def _serve(self) -> Iterator[str]:
        with LLMServer(self.reply()) as server:
            yield server.base_url("openai")


def sends(name: str, summary: str, promise: str, error: str, *steps: Step, text: str = "") -> Fault:
    """A fault that sends these steps, and then closes the connection unless the last step ended it."""
    end = () if isinstance(steps[-1], Action) else (CLOSE,)
    return Fault(name, summary, promise, error, text, scripted=lambda: Reply(raw=[*steps, *end]))

"""A loopback server that answers as chat services do, and misbehaves as it is told: for tests without a network.

::

    from llmbridge.testing import LLMServer, Reply

    with LLMServer() as server:
        server.script(Reply("Hello"), Reply(status=429, headers={"Retry-After": "1"}))
        ...                                  # a client with base_url=server.base_url("openai")
        server.requests[0].json              # what it sent

`python -m llmbridge.testing` runs one in the foreground, and the pytest fixture `llm_server` gives a fresh one to every
test that asks for it. Nothing here needs more than the standard library.
"""

from .received import Received
from .reply import Reply
from .server import LLMServer
from .steps import CLOSE, HOLD, RESET

__all__ = ["CLOSE", "HOLD", "RESET", "LLMServer", "Received", "Reply"]

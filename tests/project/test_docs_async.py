"""The claims of docs/async.md about browsers that leave, if Starlette is installed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmbridge import Client
from llmbridge.testing import LLMServer, Reply


def test_a_browser_that_leaves_ends_the_call(server: LLMServer, client: Client) -> None:
    """The framework cancels the response, and the model's server sees the connection close."""
    responses = pytest.importorskip("starlette.responses")
    server.script(Reply(["a", "b", "c"], stall=900))
    sent: list[Any] = []
    leaves = asyncio.Event()

    async def body() -> Any:
        async for piece in client.chat("x"):
            yield piece

    async def receive() -> dict[str, Any]:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message.get("body"):
            leaves.set()

    async def main() -> None:
        scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        await asyncio.wait_for(responses.StreamingResponse(body())(scope, receive, send), 5)

    asyncio.run(main())
    assert b"a" in [message.get("body") for message in sent]
    assert server.requests[0].gone.wait(30)

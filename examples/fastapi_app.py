"""A chat page with FastAPI: server-sent events, pings while the model is silent, and no call without a reader.

    pip install "fastapi>=0.135" uvicorn
    uvicorn --app-dir examples fastapi_app:app
    curl -N "http://127.0.0.1:8000/chat?prompt=Hello"          or open http://127.0.0.1:8000

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import logging
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from llmbridge import Client, LLMBridgeError, Timeout

app = FastAPI()
MODEL = os.environ.get("LLMBRIDGE_MODEL", "demo")
client = Client(MODEL, timeout=Timeout(idle=60, total=300))  # for all requests

PAGE = """<!doctype html>
<title>Chat</title>
<form><input name="prompt" autofocus> <button>Ask</button></form>
<p id="answer" style="white-space: pre-wrap"></p>
<script>
  document.forms[0].onsubmit = (event) => {
    event.preventDefault();
    answer.textContent = "";
    const source = new EventSource("/chat?" + new URLSearchParams(new FormData(event.target)));
    source.onmessage = (message) => (answer.textContent += JSON.parse(message.data));
    source.addEventListener("failed", (message) => (answer.textContent += ` (${JSON.parse(message.data)})`));
    source.addEventListener("end", () => source.close());
    source.onerror = () => source.close(); // it would ask again
  };
</script>
"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """The page."""
    return PAGE


@app.get("/chat", response_class=EventSourceResponse)
async def answer(prompt: str) -> AsyncIterator[ServerSentEvent]:
    """The answer: an event for each piece, then "end"; "failed" says that it broke off."""
    try:
        async for piece in client.chat(prompt):
            yield ServerSentEvent(data=piece)
    except LLMBridgeError as error:
        logging.getLogger(__name__).warning("no whole answer: %s", error)
        yield ServerSentEvent(event="failed", data="The answer broke off.")  # too late for a status
    yield ServerSentEvent(event="end", data="")

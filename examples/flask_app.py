"""A chat with Flask: server-sent events, pings while the model is silent, and no call without a reader.

    pip install flask
    flask --app examples/flask_app.py run
    curl -N "http://127.0.0.1:5000/chat?prompt=Hello"

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, request

from llmbridge import Cancelled, ChatStream, Client, LLMBridgeError, Timeout

PING_AFTER = float(os.environ.get("PING_AFTER", "15"))  # seconds
FAILED = 'event: failed\ndata: "The answer broke off."\n\n'
END = 'event: end\ndata: ""\n\n'

app = Flask(__name__)
MODEL = os.environ.get("LLMBRIDGE_MODEL", "demo")
client = Client(MODEL, timeout=Timeout(idle=60, total=300))  # for all requests


@app.get("/chat")
def answer() -> Response:
    """The answer: an event for each piece, then "end"; "failed" says that it broke off."""
    stream = client.chat(request.args["prompt"])
    return Response(server_sent_events(stream), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})


def server_sent_events(stream: ChatStream[Any]) -> Iterator[str]:
    """What the browser gets: a thread reads the answer, pings go out while the model is silent."""
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=read, args=(stream, events.put), daemon=True).start()
    event = ""
    try:
        while event != END:
            try:
                event = events.get(timeout=PING_AFTER)
            except queue.Empty:
                event = ": ping\n\n"
            yield event
    finally:
        stream.cancel()  # the server closes this generator when the browser has left


def read(stream: ChatStream[Any], put: Callable[[str], None]) -> None:
    """Puts the answer into the queue, to its end."""
    try:
        for piece in stream:
            put(f"data: {json.dumps(piece)}\n\n")
    except Cancelled:
        pass
    except LLMBridgeError as error:
        logging.getLogger(__name__).warning("no whole answer: %s", error)
        put(FAILED)  # too late for a status
    finally:
        put(END)

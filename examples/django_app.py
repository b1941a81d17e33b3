"""A chat with Django in one file: an async view that streams, and a sync view for the whole answer.

    pip install django uvicorn
    uvicorn --app-dir examples django_app:application
    curl -N "http://127.0.0.1:8000/chat?prompt=Hello"
    curl "http://127.0.0.1:8000/summary?text=Hello"

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import json
import logging
import os
from collections.abc import AsyncIterator

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

from llmbridge import Client, LLMBridgeError, Timeout

MODEL = os.environ.get("LLMBRIDGE_MODEL", "demo")
client = Client(MODEL, timeout=Timeout(idle=60, total=300))  # for all requests


async def answer(request: HttpRequest) -> StreamingHttpResponse:
    """An event for each piece, then "end"; "failed" says that the answer broke off."""
    events = server_sent_events(str(request.GET.get("prompt", "Hello")))
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-cache"}
    return StreamingHttpResponse(events, content_type="text/event-stream", headers=headers)


async def server_sent_events(prompt: str) -> AsyncIterator[str]:
    """What the browser gets. Django cancels it when the browser leaves."""
    try:
        async for piece in client.chat(prompt):
            yield f"data: {json.dumps(piece)}\n\n"
    except LLMBridgeError as error:
        logging.getLogger(__name__).warning("no whole answer: %s", error)
        yield 'event: failed\ndata: "The answer broke off."\n\n'  # too late for a status
    yield 'event: end\ndata: ""\n\n'


def summary(request: HttpRequest) -> JsonResponse:
    """The whole answer as JSON: a sync view, which Django runs in a thread."""
    text = request.GET.get("text", "Hello")
    try:
        done = client.chat(f"Summarise in one sentence: {text}").complete()
    except LLMBridgeError as error:
        logging.getLogger(__name__).warning("no answer: %s", error)
        return JsonResponse({"error": "The model gave no answer."}, status=502)
    tokens = done.usage.total_tokens if done.usage else None
    return JsonResponse({"summary": done.text, "tokens": tokens})


urlpatterns = [path("chat", answer), path("summary", summary)]

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"], SECRET_KEY=os.urandom(32).hex())
django.setup()
application = get_asgi_application()

"""The two ancestors: Vitalentum and CodeLinkAva, which always stream, in chunks of OpenAI's chat format."""

from __future__ import annotations

from llmbridge.testing.asked import turns
from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply

from .base import STREAM, Answer, Refused, json_object
from .openai import events
from .openai_request import check_messages

__all__ = ["codelinkava", "vitalentum"]


def codelinkava(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../api/chat of a client that names no model, as CodeLinkAva's never did."""
    request = json_object(received)
    check_messages(request)
    return Answer(reply.status, STREAM, list(events(reply, request, answer_id, False)), streamed=True)


def vitalentum(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../api/converse-edge."""
    request = json_object(received)
    if not isinstance(request.get("conversation"), str) or not turns(request):
        raise Refused(400, "'conversation' must be the JSON text of an object with a non-empty 'history'")
    return Answer(reply.status, STREAM, list(events(reply, request, answer_id, False)), streamed=True)

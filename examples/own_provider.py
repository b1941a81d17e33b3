"""A service with a wire format of its own, as a provider: some data, and two functions.

    python examples/own_provider.py

The service is played by the testing server. docs/new-provider.md explains every step.
"""

from collections.abc import Iterator
from typing import Any

from llmbridge import Finish, Provider, Usage, chat, register
from llmbridge.events import END
from llmbridge.provider import Encoded, frame_json
from llmbridge.service_errors import error_in_stream
from llmbridge.testing import LLMServer, Reply


@register
class Acme(Provider):
    """Acme's chat: server-sent events like `{"say": "Hel"}`, and at the end `{"tokens": 2, "end": true}`."""

    name = "acme"
    base_url = "https://api.acme.example"
    path = "/v2/talk"
    key_env = ("ACME_API_KEY",)
    needs_key = True

    @classmethod
    def encode(cls, request: Any) -> Encoded:
        """The body of the request."""
        turns = [{"who": message.role, "said": message.text} for message in request.messages]
        return Encoded({"engine": request.model, "turns": turns, **request.params}, cls.path)

    @classmethod
    def decode(cls, frame: Any) -> Iterator[Any]:
        """What one event of the answer means."""
        said = frame_json(frame)
        if "error" in said:
            raise error_in_stream(said)
        if "say" in said:
            yield said["say"]
        if said.get("end"):
            yield Usage(output_tokens=said["tokens"])
            yield Finish("stop")
            yield END


ANSWER = 'data: {"say": "Hel"}\n\ndata: {"say": "lo!"}\n\ndata: {"tokens": 2, "end": true}\n\n'

with LLMServer(Reply(body=ANSWER)) as server:
    stream = chat("Hi", "acme:a1", base_url=server.root, api_key="example", temperature=0)
    for piece in stream:
        print(piece, end="", flush=True)
    print(f"\n{stream.usage} for {server.requests[0].json}")

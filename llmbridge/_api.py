"""The package's functions: methods of one shared client, like the functions of `random`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbridge._call.route import SHARED
from llmbridge.client import Client

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["aembed", "amodels", "chat", "conversation", "embed", "map", "models"]


class _OneClient(Client):
    """Pickling and copying give the same client: a function sent to a worker process uses that process's
    connections."""

    def __reduce__(self) -> str:
        return "_client"

    def __copy__(self) -> Self:
        return self


_client = _OneClient()
_client.connections = SHARED  # shared with providers used as classes

chat = _client.chat
conversation = _client.conversation
embed = _client.embed
aembed = _client.aembed
map = _client.map
models = _client.models
amodels = _client.amodels

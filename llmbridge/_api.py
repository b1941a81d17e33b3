"""The functions of the package: methods of one client, as those of `random` are of one generator."""

from __future__ import annotations

from llmbridge._call.route import SHARED
from llmbridge.client import Client

__all__ = ["aembed", "amodels", "chat", "conversation", "embed", "map", "models"]


class _OneClient(Client):
    """It has no copies: a function that goes to a worker process uses the connections that are kept there."""

    def __reduce__(self) -> str:
        return "_client"

    def __copy__(self) -> Client:
        return self


_client = _OneClient()
_client.connections = SHARED  # providers that are used as classes share them

chat = _client.chat
conversation = _client.conversation
embed = _client.embed
aembed = _client.aembed
map = _client.map
models = _client.models
amodels = _client.amodels

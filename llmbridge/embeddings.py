"""Embeddings: one vector per text, in order, in as few requests as the service allows."""

from __future__ import annotations

from llmbridge._api import aembed, embed
from llmbridge._call.question import MOST_TEXTS, Embeddings

__all__ = ["MOST_TEXTS", "Embeddings", "aembed", "embed"]

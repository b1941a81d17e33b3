"""All mutations: short texts in definitions of the package, with their replacements."""

from __future__ import annotations

from benchmarks.mutations.on_answers import ON_ANSWERS
from benchmarks.mutations.on_calls import ON_CALLS
from benchmarks.mutations.on_edges import ON_EDGES
from benchmarks.mutations.on_many import ON_MANY
from benchmarks.mutations.on_turns import ON_TURNS

__all__ = ["MUTATIONS"]

MUTATIONS = (*ON_ANSWERS, *ON_CALLS, *ON_TURNS, *ON_EDGES, *ON_MANY)

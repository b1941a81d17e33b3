"""Sorts the help topics that come with Python, one question each, and goes on where it was stopped.

    python examples/many_topics.py                         all 79 topics, kept in topics.journal
    python examples/many_topics.py topics.journal 10       only the first ten

Run it again: the topics that are done are not sent again. LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini";
without it, the built-in demo answers.
"""

import os
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pydoc_data.topics import topics
from typing import Literal

from llmbridge import Client


@dataclass
class Topic:
    """What a page of help is about.

    Args:
        summary: One sentence for a beginner.
    """

    kind: Literal["statement", "expression", "data model", "other"]
    summary: str


journal = sys.argv[1] if len(sys.argv) > 1 else "topics.journal"
most = int(sys.argv[2]) if len(sys.argv) > 2 else None
pages = ({"name": name, "text": text[:4000]} for name, text in sorted(topics.items()))
kinds: Counter[str] = Counter()

with Client(os.environ.get("LLMBRIDGE_MODEL", "demo")) as client:
    rows = client.map(
        islice(pages, most),
        prompt="A page of Python's help, {name}:\n\n{text}",
        key="name",
        schema=Topic,
        journal=journal,
    )
    for row in rows:
        if row.ok:
            kinds[row.parsed.kind] += 1
            print(f"{row.key:24} {row.parsed.kind:12} {row.parsed.summary}")
        else:
            print(f"{row.key:24} {row.error}")

print(dict(kinds))
print(rows.totals)

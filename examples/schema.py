"""Turns a text into a dataclass, and shows the value while it grows.

    python examples/schema.py "Two lanterns and 5 ropes for Ada Lovelace, please."

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import os
import sys
from dataclasses import dataclass

from llmbridge import chat


@dataclass
class Item:
    """One line of an order.

    Args:
        count: How many.
    """

    name: str
    count: int


@dataclass
class Order:
    """An order of a customer."""

    customer: str
    items: list[Item]


text = " ".join(sys.argv[1:]) or "2 lanterns for Ada Lovelace, please."
stream = chat(f"Read this order: {text}", model=os.environ.get("LLMBRIDGE_MODEL", "demo"), schema=Order)
for so_far in stream.objects():
    print("so far ", so_far)

order = stream.complete().parsed  # checked; if it does not fit, the model gets one more try
print("checked", order)

"""Lets the model call Python functions, and shows each call.

    python examples/tools.py "When does order 'A-17' arrive?"

LLMBRIDGE_MODEL names the model, like "openai:gpt-5.4-mini"; without it, the built-in demo answers.
"""

import os
import sys
from dataclasses import dataclass
from datetime import date

from llmbridge import Client, Text, ToolCall, ToolResult


@dataclass
class Order:
    """What the shop knows of an order."""

    item: str
    arrives: date


ORDERS = {"A-17": Order("lantern", date(2026, 12, 24)), "B-4": Order("rope", date(2027, 1, 7))}


def find_order(number: str) -> Order:
    """Looks up an order of the shop.

    Args:
        number: A letter, a dash and digits.
    """
    if number not in ORDERS:
        raise LookupError(f"there is no order {number}")  # the model reads this, and can say so
    return ORDERS[number]


question = " ".join(sys.argv[1:]) or "When does order 'A-17' arrive?"
client = Client(os.environ.get("LLMBRIDGE_MODEL", "demo"), system="You answer for a shop, in one sentence.")
for event in client.run(question, tools=[find_order]).events():
    match event:
        case Text(text):
            print(text, end="", flush=True)
        case ToolCall():
            print(f"[{event.name} {dict(event.arguments)}]")
        case ToolResult():
            print(f"[{event.text}]")
        case _:
            pass  # Usage, Finish, and what else a service says
print()

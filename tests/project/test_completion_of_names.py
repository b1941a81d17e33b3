"""What `name.<Tab>` offers in a notebook: jedi must find the attributes of every public object."""

from __future__ import annotations

from typing import Any

import pytest

import llmbridge

MADE = {
    "chat('Hi')": ["acomplete", "complete", "events", "finish_reason", "partial", "show", "text"],
    "chat('Hi').complete()": ["choices", "parsed", "text", "usage"],
    "chat('Hi').complete().usage": ["output_tokens", "total_tokens"],
    "chat('Hi').complete().message": ["content", "role", "to_dict"],
    "Client('demo')": ["chat", "conversation", "embed", "models", "run"],
    "Client('demo').chat('Hi')": ["complete", "objects", "tool_calls"],
    "Client('demo').run('Hi')": ["complete"],
    "conversation('demo')": ["ask", "messages", "save", "undo"],
    "conversation('demo').ask('Hi')": ["complete", "text"],
    "embed('Hi')": ["array", "vectors"],
    "Message('user', 'Hi')": ["calls", "parts", "text"],
    "Image('a.png')": ["to_part"],
    "Timeout()": ["idle", "total"],
    "Retry()": ["on_retry"],
    "Limits()": ["concurrency"],
}
"""For each expression, some of the names that must be offered after it."""


def offered(code: str) -> set[str]:
    """The names offered at the end of the code, found in this process."""
    jedi: Any = pytest.importorskip("jedi")
    here = jedi.api.environment.InterpreterEnvironment()
    return {name.name for name in jedi.Script(code, environment=here).complete()}


@pytest.mark.parametrize("expression", MADE)
def test_jedi_offers_the_attributes(expression: str) -> None:
    """One property that jedi cannot follow would hide all others."""
    assert set(MADE[expression]) - offered(f"from llmbridge import *\nmade = {expression}\nmade.") == set()


def test_jedi_offers_the_names_of_the_package() -> None:
    """Even though they are loaded only on first use."""
    assert set(llmbridge.__all__) - offered("import llmbridge\nllmbridge.") == set()

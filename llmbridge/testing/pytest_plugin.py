"""The pytest fixture `llm_server`, available wherever llmbridge is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from llmbridge.testing import LLMServer


@pytest.fixture
def llm_server() -> Iterator[LLMServer]:
    """A fresh `llmbridge.testing.LLMServer`, closed after the test."""
    # pytest loads this module in every run, so it must cost nothing if unused.
    from llmbridge.testing import LLMServer

    with LLMServer() as server:
        yield server

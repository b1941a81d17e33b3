"""The pytest fixture `llm_server`, found by pytest wherever llmbridge is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from llmbridge.testing import LLMServer


@pytest.fixture
def llm_server() -> Iterator[LLMServer]:
    """A fresh `llmbridge.testing.LLMServer`, closed after the test."""
    # pytest loads this module in every run: what a run does not use must cost it nothing.
    from llmbridge.testing import LLMServer

    with LLMServer() as server:
        yield server

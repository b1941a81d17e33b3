"""A kernel for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """With everything of llmbridge imported."""
    from kernels import Kernel

    running = Kernel()
    try:
        assert running.run("import asyncio, signal, sys\nfrom llmbridge import *").status == "ok"
        yield running
    finally:
        running.close()

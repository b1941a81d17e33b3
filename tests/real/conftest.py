"""Servers with a real model, for the tests of this folder; they are skipped where there is none (see install.py)."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MODEL = os.environ.get("REAL_MODEL", "")
CONTEXT = 256
"""Tokens of each of a server's two slots."""


@contextlib.contextmanager
def _serving(purpose: str) -> Iterator[str]:
    if not (importlib.util.find_spec("xllamacpp") and Path(MODEL).is_file()):
        pytest.skip("no real model: run `tox -e real`, or see tests/real/install.py and set REAL_MODEL")
    command = [sys.executable, str(Path(__file__).with_name("serve.py")), MODEL, purpose, str(CONTEXT)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
            server.communicate(timeout=60)  # the end of its input is its end
        finally:
            server.kill()


@pytest.fixture(scope="session")
def chats() -> Iterator[str]:
    """The address of a server that chats."""
    with _serving("chat") as address:
        yield address


@pytest.fixture(scope="session")
def embeddings() -> Iterator[str]:
    """The address of a server that makes embeddings."""
    with _serving("embedding") as address:
        yield address

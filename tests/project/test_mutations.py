"""benchmarks/mutations finds its definitions by name and text, wherever the code is and however it is formatted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''
LIMIT: int = 64  # bytes

class Loop:
    """Turns."""
    times: int = 2

    def turn(self, one, two):
        if one:
            return run(one, two)

def turn():
    return run() or run()
'''
REFORMATTED = SOURCE.replace("return run(one, two)", "return run(\n                one,\n                two)")


@pytest.fixture
def mutation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module; plain pytest does not find its folder."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.mutations import mutation

    return mutation


def package(root: Path, **modules: str) -> Path:
    """A repository with a package of these modules, each in a folder of its own."""
    for name, text in modules.items():
        path = root / "llmbridge" / f"in_{name}" / f"{name}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("source", [SOURCE, REFORMATTED], ids=["one line", "several lines"])
@pytest.mark.parametrize("module", ["a", "b"])
def test_a_change_follows_its_code(mutation: Any, tmp_path: Path, module: str, source: str) -> None:
    """Module and line breaks do not matter; new lines are indented like their place."""
    change = mutation.Mutation("P1", "", "Loop.turn", "return run(one, two)", "one()\nreturn 1")
    path, text = change.applied(package(tmp_path, **{module: source}))
    assert path.name == f"{module}.py"
    assert text == SOURCE.replace("return run(one, two)", "one()\n            return 1")


@pytest.mark.parametrize(
    ("name", "old", "line"),
    [
        ("LIMIT", "64", "LIMIT: int = 3  # bytes"),
        ("Loop.times", "2", "    times: int = 3"),
        ("Loop", "times: int = 2", "    3"),
        ("turn", "run() or run()", "    return 3"),
    ],
)
def test_a_name_is_that_of_a_class_a_function_or_an_assignment(
    mutation: Any, tmp_path: Path, name: str, old: str, line: str
) -> None:
    """A definition at the top of a module or in a class is found."""
    _, text = mutation.Mutation("P1", "", name, old, "3").applied(package(tmp_path, a=SOURCE))
    assert [*{*text.splitlines()} - {*SOURCE.splitlines()}] == [line]


def test_the_text_decides_between_definitions_of_one_name(mutation: Any, tmp_path: Path) -> None:
    """Definitions of the same name in several modules are told apart by the text."""
    root = package(tmp_path, a="def decode():\n    return 1\n", b="def decode():\n    return 2\n")
    path, text = mutation.Mutation("P1", "", "decode", "return 2", "return 3").applied(root)
    assert (path.name, text) == ("b.py", "def decode():\n    return 3\n")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("Loop.stop", "run", "", r"there is no Loop\.stop"),
        ("run", "run", "", "there is no run"),
        ("LIMIT", "65", "", "LIMIT, defined once, contains '65' 0 times"),
        ("turn", "run()", "", r"turn, defined once, contains 'run\(\)' 2 times"),
        ("decode", "1", "", "decode, defined 2 times, contains '1' 2 times"),
        ("Loop.turn", "return", "(", r"a\.py would not be Python"),
    ],
)
def test_a_change_that_does_not_apply_says_why(
    mutation: Any, tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    """The error names a missing name or text, several places, or a result that is not Python."""
    root = package(tmp_path, a=f"{SOURCE}\ndecode = 1\n", b="decode = 1\n")
    with pytest.raises(mutation.DoesNotApply, match=message):
        mutation.Mutation("P1", "", name, old, new).applied(root)

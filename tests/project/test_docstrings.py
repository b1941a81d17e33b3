"""Every public name has a docstring: what `help()`, a notebook and the site show."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import llmbridge

PUBLIC = [
    found.name
    for found in pkgutil.walk_packages(llmbridge.__path__, "llmbridge.")
    if not any(part.startswith("_") for part in found.name.split("."))
]


def undocumented(module: Any) -> Iterator[str]:
    """The names without one; a method has that of the class whose method it overrides."""
    if not module.__doc__:
        yield module.__name__
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            own = value.__dict__.get("__doc__")
            if not own or own.startswith(f"{name}("):  # a dataclass writes one like that by itself
                yield f"{module.__name__}.{name}"
            yield from (f"{module.__name__}.{name}.{member}" for member in _silent_members(value))
        elif inspect.isfunction(value) and not value.__doc__:
            yield f"{module.__name__}.{name}"


def _silent_members(cls: type) -> Iterator[str]:
    for name, value in cls.__dict__.items():
        function = getattr(value, "__func__", value)  # of a classmethod or a staticmethod
        if name.startswith("_") or not (inspect.isfunction(function) or isinstance(value, property)):
            continue
        if not inspect.getdoc(value if isinstance(value, property) else getattr(cls, name)):
            yield name


def test_every_public_name_has_one() -> None:
    """In every module without an underscore."""
    modules = [importlib.import_module(name) for name in PUBLIC]
    assert len(modules) > 50
    assert [name for module in modules for name in undocumented(module)] == []


def test_so_has_what_the_package_offers() -> None:
    """Some of it is defined in modules with an underscore."""
    offered = [getattr(llmbridge, name) for name in dir(llmbridge)]
    assert all(inspect.getdoc(value) for value in offered)
    silent = [
        f"{value.__name__}.{name}" for value in offered if inspect.isclass(value) for name in _silent_members(value)
    ]
    assert silent == []


class Parent:
    """One that says something."""

    def told(self) -> None:
        """Something."""


class Child(Parent):  # noqa: D101 - that is what is to be found
    @property
    def value(self) -> int:  # noqa: D102
        return 1

    def told(self) -> None:  # noqa: D102
        return

    @classmethod
    def made(cls) -> None:  # noqa: D102
        return


def test_a_missing_one_is_found() -> None:
    """Of classes, properties and methods, but not of one that overrides."""
    module = inspect.getmodule(Parent)
    assert sorted(undocumented(module)) == [f"{__name__}.Child{name}" for name in ("", ".made", ".value")]

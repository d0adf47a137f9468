"""The examples in docstrings: each does what it shows."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import appliance.training
import researcher_kit

MODULES = [
    module.name
    for package in (researcher_kit, appliance.training)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.startswith("researcher_kit.notebook_")  # Jupyter, which only the kit's image has, loads them
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_do_what_they_show(name: str) -> None:
    """A reader types them first."""
    result = doctest.testmod(importlib.import_module(name))

    assert result.failed == 0


@pytest.mark.parametrize(
    "name", [name for name in researcher_kit.__all__ if inspect.isclass(getattr(researcher_kit, name))]
)
def test_every_class_of_the_kit_has_an_example(name: str) -> None:
    """Errors aside: nobody makes one by hand."""
    found = getattr(researcher_kit, name)

    assert issubclass(found, Exception) or "Example" in inspect.getdoc(found)

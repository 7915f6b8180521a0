"""Optional packages that are hidden from a process."""

import sys
from types import ModuleType

import pytest
from likeness.trainers import optional_packages as module
from likeness.trainers.optional_packages import hide_packages


@pytest.fixture
def package(monkeypatch):
    """A package that counts as installed, and as none of those that are."""
    monkeypatch.setattr(module, "_IMPORT_CHECKS", {"likeness_optional": "likeness_optional"})
    monkeypatch.setattr(module, "is_installed", lambda name: True)
    monkeypatch.setitem(sys.modules, "likeness_optional", None)
    del sys.modules["likeness_optional"]
    return "likeness_optional"


def test_what_is_not_needed_cannot_be_imported_any_more(package):
    hide_packages()
    with pytest.raises(ImportError):
        __import__(package)


def test_bitsandbytes_was_imported_twice_by_a_process_that_had_it_already(package):
    already = sys.modules[package] = ModuleType(package)
    hide_packages()
    assert sys.modules[package] is already

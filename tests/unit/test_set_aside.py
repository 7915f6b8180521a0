"""Optional packages that are hidden from a process."""

import sys
from types import ModuleType

import pytest
from likeness.trainers import set_aside as module
from likeness.trainers.set_aside import set_aside


@pytest.fixture
def package(monkeypatch):
    """A package that counts as installed, and as none of those that are."""
    monkeypatch.setattr(module, "_TRIED", {"likeness_optional": "likeness_optional"})
    monkeypatch.setattr(module, "installed", lambda name: True)
    monkeypatch.setitem(sys.modules, "likeness_optional", None)
    del sys.modules["likeness_optional"]
    return "likeness_optional"


def test_what_is_not_needed_cannot_be_imported_any_more(package):
    set_aside()
    with pytest.raises(ImportError):
        __import__(package)


def test_bitsandbytes_was_imported_twice_by_a_process_that_had_it_already(package):
    already = sys.modules[package] = ModuleType(package)
    set_aside()
    assert sys.modules[package] is already

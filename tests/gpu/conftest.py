"""Tests on a CUDA GPU. Without one, `tests/parity/test_stand_in_gpu.py` runs them on a stand-in."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ..parity.conftest import places  # noqa: F401

if not torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def accelerator():
    """Makes an Accelerator; its state is the process's."""

    def make(device="cuda"):
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(cpu=device == "cpu")

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def limited_memory():
    """Limits PyTorch to some bytes more than are in use."""
    total = torch.cuda.get_device_properties(0).total_memory

    def limit(free):
        torch.cuda.empty_cache()
        share = (torch.cuda.memory_allocated() + free) / total
        torch.cuda.set_per_process_memory_fraction(min(share, 1.0))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)

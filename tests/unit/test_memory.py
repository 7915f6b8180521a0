"""Which errors say that memory is short."""

import pytest
import torch
from likeness.trainers.memory import is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        MemoryError(),
    ],
)
def test_lack_of_memory_is_known_whatever_library_says_it(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("text", ["CUBLAS_STATUS_NOT_INITIALIZED", "an illegal memory access", ""])
def test_other_errors_are_not_lack_of_memory(text):
    assert not is_out_of_memory(RuntimeError(text))

"""What is known of GPUs by their names."""

import pytest
import torch
from likeness.trainers import gpu_capabilities

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    """Makes the GPU one of a name and compute capability."""

    def be(name, capability):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True: including_emulation or capability >= (8, 0),
        )

    return be


def test_a_gpu_that_only_imitates_bf16_computes_in_fp16(gpu):
    """So says PyTorch of Turing's and older ones, where convolutions in bf16 fail or crawl."""
    gpu("NVIDIA GeForce RTX 2080", (7, 5))
    precision, note = gpu_capabilities.usable_precision("bf16", CUDA)
    assert precision == "fp16" and "no bf16" in note
    assert not gpu_capabilities.has_bf16(CUDA) and gpu_capabilities.has_bf16(CPU)


@pytest.mark.parametrize("asked", ["fp16", "bf16"])
@pytest.mark.parametrize(
    "name", ["NVIDIA GeForce GTX 1660 Ti", "NVIDIA GeForce GTX 1650", "NVIDIA T1000 8GB",
             "NVIDIA T600 Laptop GPU", "NVIDIA GeForce MX450", "Quadro T2000"]
)  # fmt: skip
def test_a_gtx_16_lost_every_run_to_nan_in_fp16(gpu, name, asked):
    gpu(name, (7, 5))
    precision, note = gpu_capabilities.usable_precision(asked, CUDA)
    assert precision == "fp32" and name in note and "wrong results" in note


@pytest.mark.parametrize(
    ("name", "capability", "asked", "taken"),
    [
        ("Tesla T4", (7, 5), "fp16", "fp16"),
        ("NVIDIA GeForce RTX 2060", (7, 5), "fp16", "fp16"),
        ("Quadro RTX 5000", (7, 5), "fp16", "fp16"),
        ("NVIDIA GeForce GTX 1080 Ti", (6, 1), "bf16", "fp16"),
        ("NVIDIA GeForce RTX 4090", (8, 9), "bf16", "bf16"),
        ("NVIDIA GeForce GTX 1660", (7, 5), "fp32", "fp32"),
    ],
)
def test_other_gpus_compute_as_before(gpu, name, capability, asked, taken):
    gpu(name, capability)
    precision, note = gpu_capabilities.usable_precision(asked, CUDA)
    assert precision == taken and (note is None) == (asked == taken)


def test_graphs_are_recorded_on_nvidias_gpus_alone(gpu, monkeypatch):
    gpu("NVIDIA GeForce RTX 4090", (8, 9))
    assert gpu_capabilities.supports_cuda_graphs(
        CUDA
    ) and not gpu_capabilities.supports_cuda_graphs(CPU)
    gpu("AMD Radeon RX 6800 XT [ZLUDA]", (8, 8))
    assert not gpu_capabilities.supports_cuda_graphs(CUDA)
    gpu("AMD Radeon RX 7900 XTX", (11, 0))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not gpu_capabilities.supports_cuda_graphs(CUDA)


def test_zluda_computed_with_cudnn_which_it_has_not(gpu, monkeypatch):
    off = []
    monkeypatch.setattr(torch.backends.cuda, "enable_flash_sdp", off.append)
    monkeypatch.setattr(torch.backends.cuda, "enable_mem_efficient_sdp", off.append)
    gpu("NVIDIA GeForce RTX 4090", (8, 9))
    before = torch.backends.cudnn.enabled
    try:
        gpu_capabilities.configure_zluda(CUDA)
        assert torch.backends.cudnn.enabled == before and off == []
        gpu("AMD Radeon RX 6800 XT [ZLUDA]", (8, 8))
        gpu_capabilities.configure_zluda(CUDA)
        assert not torch.backends.cudnn.enabled and off == [False, False]
    finally:
        torch.backends.cudnn.enabled = before

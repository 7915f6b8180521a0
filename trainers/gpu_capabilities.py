"""GPU capabilities that PyTorch does not report."""

from __future__ import annotations

import re

import torch

# Compute capability 7.5 without tensor cores: matrix products in fp16 give NaN.
_TURING_WITHOUT_TENSOR_CORES = re.compile(
    r"\b(GTX 16\d\d|T4\d\d|T5\d\d|T6\d\d|T1000|T1200|T2000|MX450|MX550|CMP 30HX)\b"
)


def has_bf16(device: torch.device) -> bool:
    """Whether a device supports bf16 natively: by default PyTorch also counts emulation."""
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def has_fp16(device: torch.device) -> bool:
    """Whether a device gives correct results in fp16."""
    if device.type != "cuda":
        return False
    turing = torch.cuda.get_device_capability(device) == (7, 5)
    name = torch.cuda.get_device_name(device)
    return not (turing and _TURING_WITHOUT_TENSOR_CORES.search(name))


def usable_precision(precision: str, device: torch.device) -> tuple[str, str | None]:
    """The precision to use on the device, and a note if it is not the requested one."""
    if precision == "fp16" and device.type != "cuda":
        built = "" if torch.version.cuda else ", and this PyTorch is built without CUDA"
        return (
            "fp32",
            f"fp16 training needs a CUDA GPU{built}; on {device.type} it runs in fp32.",
        )
    if precision == "fp32" or (precision == "bf16" and has_bf16(device)):
        return precision, None
    if has_fp16(device):
        note = "This GPU has no bf16 support; the run uses fp16."
        return "fp16", note if precision == "bf16" else None
    return "fp32", (
        f"{torch.cuda.get_device_name(device)} gives wrong results in fp16; the run uses fp32, "
        "which takes more memory: on 6 GB set subject.resolution to 256 to 320."
    )


def is_zluda(device: torch.device) -> bool:
    """Whether CUDA is ZLUDA on an AMD GPU, which lacks cuDNN and some attention kernels."""
    return device.type == "cuda" and "[ZLUDA]" in torch.cuda.get_device_name(device)


def supports_cuda_graphs(device: torch.device) -> bool:
    """Whether CUDA graphs are reliable: on NVIDIA GPUs, where a failed capture raises an error."""
    return device.type == "cuda" and torch.version.hip is None and not is_zluda(device)


def configure_zluda(device: torch.device) -> None:
    """Disables PyTorch features that ZLUDA lacks."""
    if is_zluda(device):
        torch.backends.cudnn.enabled = False
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_math_sdp(True)


def allow_tf32(allowed: bool) -> None:
    """Allows TF32 in matrix products of fp32 numbers on a CUDA GPU, or not."""
    torch.backends.cuda.matmul.allow_tf32 = allowed

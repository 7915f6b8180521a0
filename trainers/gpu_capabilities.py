"""What GPUs can and cannot do that PyTorch does not say."""

from __future__ import annotations

import re

import torch

# Of compute capability 7.5 without tensor cores: products in fp16 give NaN.
_TURING_WITHOUT_TENSOR_CORES = re.compile(
    r"\b(GTX 16\d\d|T4\d\d|T5\d\d|T6\d\d|T1000|T1200|T2000|MX450|MX550|CMP 30HX)\b"
)


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16: PyTorch says so, too, of GPUs that only imitate it."""
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def has_fp16(device: torch.device) -> bool:
    """Whether a device computes right numbers in fp16."""
    if device.type != "cuda":
        return False
    turing = torch.cuda.get_device_capability(device) == (7, 5)
    name = torch.cuda.get_device_name(device)
    return not (turing and _TURING_WITHOUT_TENSOR_CORES.search(name))


def usable_precision(precision: str, device: torch.device) -> tuple[str, str | None]:
    """The precision that the device can compute in, and a note if it is another one."""
    if precision == "fp16" and device.type != "cuda":
        built = "" if torch.version.cuda else ", and this PyTorch is built without CUDA"
        return (
            "fp32",
            f"fp16 training needs a CUDA GPU{built}; on this {device.type} it runs in fp32.",
        )
    if precision == "fp32" or (precision == "bf16" and has_bf16(device)):
        return precision, None
    if has_fp16(device):
        lacks = "This GPU has no bf16; the run uses fp16."
        return "fp16", lacks if precision == "bf16" else None
    return "fp32", (
        f"A {torch.cuda.get_device_name(device)} computes wrong numbers in fp16; the run uses "
        "fp32, which takes more memory: in 6 GB photographs of 256 to 320 pixels."
    )


def is_zluda(device: torch.device) -> bool:
    """Whether CUDA is AMD's through ZLUDA, which has neither cuDNN nor all kinds of attention."""
    return device.type == "cuda" and "[ZLUDA]" in torch.cuda.get_device_name(device)


def supports_cuda_graphs(device: torch.device) -> bool:
    """Whether CUDA graphs can be trusted: on NVIDIA's GPUs, where a failed recording says so."""
    return device.type == "cuda" and torch.version.hip is None and not is_zluda(device)


def configure_zluda(device: torch.device) -> None:
    """Switches off in PyTorch what ZLUDA has not."""
    if is_zluda(device):
        torch.backends.cudnn.enabled = False
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_math_sdp(True)

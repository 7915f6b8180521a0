"""Faster ways to compute on a CPU, with the same results up to rounding.

Measured with PyTorch 2.11 and 2.13 at SD 1.5's sizes; docs/performance.md lists the gain of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# A convolution reorders its weights at every call, which costs more than it saves if an output
# has few pixels per channel.
MIN_CHANNELS_PER_PIXEL = 8
# With fewer pixels in total, products are faster if each pixel's values are contiguous: PyTorch's
# backward pass then multiplies by the weights without transposing them.
FEW_PIXELS = 16
SMALL_MODEL_PARAMETERS = 50_000_000  # of a UNet, or trained


def prepare_for_cpu(unet: nn.Module) -> None:
    """Prepares this process and a UNet for the CPU; tensors and their names stay the same."""
    limit_threads(unet)
    use_im2col_convs(unet)


def limit_threads(unet: nn.Module) -> None:
    """Limits this process to one thread for a small model, such as the miniature.

    Its operations take less time than waking a second thread: on the miniature, with another
    process on the second core, two threads took 1.4 to 2.3 times as long as one.
    """
    if sum(parameter.numel() for parameter in unet.parameters()) < SMALL_MODEL_PARAMETERS:
        torch.set_num_threads(1)


@contextmanager
def limited_threads(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Uses one thread to update few weights, such as a LoRA's hundreds of small tensors.

    Waking other threads for each of them takes longer than the arithmetic.
    """
    few = sum(parameter.numel() for parameter in parameters) < SMALL_MODEL_PARAMETERS
    if not (few and parameters[0].device.type == "cpu"):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Im2colConv2d(nn.Conv2d):
    """A convolution computed as one matrix product for small inputs.

    At 128 x 128 pixels those are the two lowest levels of SD 1.5, which have most of its weights.
    """

    padding: tuple[int, ...]  # never a string, see `_is_plain`

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        height, width = (
            (side + 2 * padding - kernel) // stride + 1
            for side, padding, kernel, stride in zip(
                input.shape[-2:], self.padding, self.kernel_size, self.stride, strict=True
            )
        )
        if len(weight) < MIN_CHANNELS_PER_PIXEL * len(input) * height * width:
            return super()._conv_forward(input, weight, bias)
        if torch.is_autocast_enabled("cpu"):
            input = input.to(torch.get_autocast_dtype("cpu"))
        patches = F.unfold(input, self.kernel_size, padding=self.padding, stride=self.stride)
        columns = patches.permute(1, 0, 2).flatten(1)  # (in * kernel, n * h * w)
        if columns.shape[1] < FEW_PIXELS:
            columns = columns.t().contiguous().t()
        output = weight.flatten(1) @ columns  # (out, n * h * w)
        if bias is not None:
            output = output + bias.to(output.dtype)[:, None]
        return output.view(len(weight), len(input), height, width).transpose(0, 1)


def use_im2col_convs(model: nn.Module) -> None:
    """Replaces a model's plain convolutions with `Im2colConv2d`; weights and names are kept."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Conv2d and _is_plain(child):
                setattr(module, name, _to_im2col(child))


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _to_im2col(layer: nn.Conv2d) -> Im2colConv2d:
    new = Im2colConv2d.__new__(Im2colConv2d)
    new.__dict__.update(layer.__dict__)
    return new


class _AttentionInFp32(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        dtype = (args[0] if args else kwargs["query"]).dtype
        with torch.autocast("cpu", enabled=False):
            exact = {name: _in_fp32(value) for name, value in kwargs.items()}
            return func(*map(_in_fp32, args), **exact).to(dtype)


def _in_fp32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


@contextmanager
def attention_in_fp32() -> Iterator[None]:
    """Computes PyTorch's fused attention in fp32, whatever the dtype of its input.

    In bf16 its backward pass takes up to four times as long if the number of keys is small or not
    a multiple of 32, such as a prompt's 77.
    """
    with _AttentionInFp32():
        yield


def fp32_attention_context_fn() -> tuple[
    AbstractContextManager[None], AbstractContextManager[None]
]:
    """`context_fn` for `torch.utils.checkpoint`, which restores autocast but not this context.

    Otherwise recomputed activations would have other dtypes and be rejected.
    """
    return nullcontext(), _AttentionInFp32()  # can be re-entered, for a second backward pass

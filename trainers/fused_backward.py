"""Weight updates in the backward pass, which holds only one weight's gradient at a time.

For full fine-tuning in little memory. It needs one backward pass per step, a single process and no
loss scaling. The global gradient norm is known only after all gradients, so clipping takes a first
backward pass that measures it and a second one that updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Parameter

from .batches import Batch
from .step import Learner, compute_losses, losses_by_kind

_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_


class FusedBackward:
    """Computes a micro-batch's gradients and updates at once; nothing is left for `step.update`."""

    def __init__(
        self, learner: Learner, optimizer: torch.optim.Optimizer, max_grad_norm: float | None
    ) -> None:
        self._learner, self._optimizer, self._max_norm = learner, optimizer, max_grad_norm
        self._squared_norms: list[Tensor] | None = None  # while the norm is measured
        self._clip_coefs: dict[torch.device, Tensor] = {}  # by the devices of the weights
        self._lock = Lock()  # autograd has a thread for each device
        for number, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                # Without a reference to the weights: Python collects no cycle through a hook.
                hook = partial(_update_weight, ref(self), number)
                parameter.register_post_accumulate_grad_hook(hook)

    def __call__(self, batch: Batch) -> Tensor:
        """Updates all weights; returns the losses of photographs and class images, (2,) fp32."""
        losses = compute_losses(self._learner, batch) * batch.weights
        loss = losses.sum()
        if self._max_norm is not None:
            self._squared_norms = []
            loss.backward(retain_graph=True)
            self._clip_coefs = clip_coefs(self._squared_norms, self._max_norm)
            self._squared_norms = None
        loss.backward()
        return losses_by_kind(losses, batch)

    @torch.no_grad()
    def update_weight(self, group: int, parameter: Parameter) -> None:
        """Measures the gradient of a group's weight, or updates the weight; drops the gradient."""
        gradient = parameter.grad
        assert gradient is not None
        if self._squared_norms is not None:
            self._squared_norms.append(gradient.float().pow(2).sum())
        else:
            if self._clip_coefs:
                gradient.mul_(self._clip_coefs[gradient.device])
            groups = self._optimizer.param_groups
            with self._lock, single_parameter(self._optimizer, groups[group], parameter):
                self._optimizer.step()
        parameter.grad = None


def _update_weight(fused: ref[FusedBackward], group: int, parameter: Parameter) -> None:
    owner = fused()
    if owner is not None:
        owner.update_weight(group, parameter)


def clip_coefs(squared_norms: Sequence[Tensor], max_norm: float) -> dict[torch.device, Tensor]:
    """What gradients are multiplied by to clip their global norm, on each device that has some."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for one in squared_norms:
        by_device.setdefault(one.device, []).append(one)
    sums = [torch.stack(some).sum() for some in by_device.values()]
    norm = torch.stack([one.to(sums[0].device) for one in sums]).sum().sqrt()
    coef = (max_norm / (norm + _EPSILON)).clamp(max=1.0)
    return {device: coef.to(device) for device in by_device}


@contextmanager
def single_parameter(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: Parameter
) -> Iterator[None]:
    """Restricts the optimizer to one parameter of one of its groups."""
    groups = optimizer.param_groups
    saved = [each["params"] for each in groups]
    for each in groups:
        each["params"] = [parameter] if each is group else []
    try:
        yield
    finally:
        for each, parameters in zip(groups, saved, strict=True):
            each["params"] = parameters

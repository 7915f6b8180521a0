"""Weight updates in the backward pass, which holds only one weight's gradient at a time.

For full fine-tuning in little memory. It needs one backward pass per step, a single process and no
loss scaling. The global gradient norm is known only after all gradients, so clipping takes a first
backward pass that measures it and a second one that updates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from .batches import Batch
from .step import Learner, compute_losses, losses_by_kind

_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_


class FusedBackward:
    """Computes a micro-batch's gradients and updates at once; nothing is left for `step.update`."""

    def __init__(
        self, learner: Learner, optimizer: torch.optim.Optimizer, clip_norm: float | None
    ) -> None:
        self._learner, self._optimizer, self._max_norm = learner, optimizer, clip_norm
        self._squared_norms: list[Tensor] | None = None  # while the norm is measured
        self._clip_coef: Tensor | None = None
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(partial(self._optimizer_hook, group))

    def __call__(self, batch: Batch) -> Tensor:
        """Updates all weights; returns the losses of photographs and class images, (2,) fp32."""
        losses = compute_losses(self._learner, batch) * batch.weights
        loss = losses.sum()
        if self._max_norm is not None:
            self._squared_norms = []
            loss.backward(retain_graph=True)
            norm = torch.stack([one.to(loss.device) for one in self._squared_norms]).sum().sqrt()
            self._clip_coef = (self._max_norm / (norm + _EPSILON)).clamp(max=1.0)
            self._squared_norms = None
        loss.backward()
        return losses_by_kind(losses, batch)

    @torch.no_grad()
    def _optimizer_hook(self, group: dict[str, Any], parameter: Parameter) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if self._squared_norms is not None:
            self._squared_norms.append(gradient.float().pow(2).sum())
        else:
            if self._clip_coef is not None:
                gradient.mul_(self._clip_coef.to(gradient.device))
            with single_parameter(self._optimizer, group, parameter):
                self._optimizer.step()
        parameter.grad = None


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

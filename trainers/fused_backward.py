"""Updates in the backward pass: no more than one weight's gradient is ever held.

For full fine-tuning in little memory. It needs one backward pass a step, in one process, and no
scaling of the loss. The global norm of the gradients is known only after all of them, so clipping
takes a first backward pass that measures it, and a second one that updates.
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
    """A micro-batch's gradients and update in one; `step.update` has nothing left to do."""

    def __init__(
        self, learner: Learner, optimizer: torch.optim.Optimizer, clip_norm: float | None
    ) -> None:
        self._learner, self._optimizer, self._max_norm = learner, optimizer, clip_norm
        self._squared_norms: list[Tensor] | None = None  # of the norms, while they are measured
        self._clip_coef: Tensor | None = None
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(partial(self._optimizer_hook, group))

    def __call__(self, batch: Batch) -> Tensor:
        """Updates all weights; returns (photographs' loss, class images' loss), (2,) fp32."""
        losses = compute_losses(self._learner, batch) * batch.weights
        loss = losses.sum()
        if self._max_norm is not None:
            self._squared_norms = []
            loss.backward(retain_graph=True)
            norm = torch.stack(self._squared_norms).sum().sqrt()
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
                gradient.mul_(self._clip_coef)
            with single_parameter(self._optimizer, group, parameter):
                self._optimizer.step()
        parameter.grad = None


@contextmanager
def single_parameter(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: Parameter
) -> Iterator[None]:
    """The optimizer sees one parameter, of one of its groups."""
    groups = optimizer.param_groups
    whole = [one["params"] for one in groups]
    for one in groups:
        one["params"] = [parameter] if one is group else []
    try:
        yield
    finally:
        for one, parameters in zip(groups, whole, strict=True):
            one["params"] = parameters

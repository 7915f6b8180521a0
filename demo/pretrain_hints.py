"""Training data of the ControlNet as tensor operations: skeletons, and reframed captions.

Draws thousands of skeletons per second on a GPU. Limbs are ellipses between two joints and joints
are discs, in OpenPose's order and colours (github.com/CMU-Perceptual-Computing-Lab/openpose), as
ControlNet's preprocessors draw them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..comparison.poses import COLOURS, LIMBS
from .pretrain_data import token_ids

_DIM = 0.6  # brightness of limbs; joints have full colours

_OPENINGS = ("close up portrait of", "portrait of", "half body photo of", "full body photo of")
_OF_POSES = (
    "face standing waving arms raised hands hips crossed walking dancing doing yoga pose mountain "
    "tree warrior triangle"
)
_MOST = 6  # last position of a caption's first "of"


def hints(joints: Tensor, width: int, height: int, radius: Tensor) -> Tensor:
    """Skeletons (n, 3, height, width) from 0 to 1 on black.

    `joints` (n, 18, 3) are x and y from 0 to 1, and 1 if visible; `radius` (n,) is half a limb's
    thickness and a joint's radius in pixels (OpenPose: 4 at a height of 512).
    """
    joints = joints.float()
    points = joints[..., :2] * joints.new_tensor((width, height))  # (n, 18, 2) in pixels
    shown = joints[..., 2]
    grid = torch.stack(
        torch.meshgrid(
            torch.arange(width, device=joints.device) + 0.5,
            torch.arange(height, device=joints.device) + 0.5,
            indexing="xy",
        ),
        dim=-1,
    )  # (height, width, 2)
    colours = joints.new_tensor(COLOURS) / 255  # (18, 3)
    image = joints.new_zeros(len(joints), 3, height, width)
    for limb, (a, b) in enumerate(LIMBS):
        cover = _ellipse(grid, points[:, a], points[:, b], radius) * _both(shown, a, b)
        image = torch.lerp(image, _DIM * colours[limb].view(1, 3, 1, 1), cover[:, None])
    for joint in range(18):
        away = (grid - points[:, joint, None, None]).norm(dim=-1)  # (n, height, width)
        cover = (radius.view(-1, 1, 1) + 0.5 - away).clamp(0, 1) * shown[:, joint, None, None]
        image = torch.lerp(image, colours[joint].view(1, 3, 1, 1), cover[:, None])
    return image


def _both(shown: Tensor, a: int, b: int) -> Tensor:
    return (shown[:, a] * shown[:, b])[:, None, None]


def _ellipse(grid: Tensor, start: Tensor, end: Tensor, radius: Tensor) -> Tensor:
    """Coverage of each pixel (n, height, width) by an ellipse from `start` to `end` (n, 2)."""
    middle, half = 0.5 * (start + end), 0.5 * (end - start)
    length = half.norm(dim=-1).clamp(min=0.5)  # (n,)
    along = half / length[:, None]
    across = torch.stack((-along[:, 1], along[:, 0]), dim=-1)
    away = grid - middle[:, None, None]  # (n, height, width, 2)
    u = (away * along[:, None, None]).sum(-1) / length[:, None, None]
    v = (away * across[:, None, None]).sum(-1) / radius[:, None, None]
    edge = (1 - (u.square() + v.square()).sqrt()) * radius[:, None, None]  # approx. pixels inwards
    return (edge + 0.5).clamp(0, 1)


def beside_skeletons(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Captions (n, 77) with 40 % made empty (50 % in arXiv:2302.05543) and 30 % reframed."""
    draw = torch.rand(len(ids), 1, generator=generator, device=ids.device)
    empty = torch.from_numpy(token_ids([""])).to(ids)
    other = torch.where(draw < 0.7, reframed(ids, generator), ids)
    return torch.where((draw < 0.4) | (ids == empty).all(1, keepdim=True), empty, other)


def reframed(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Captions (n, 77) with a random framing instead of framing and pose; half say "standing".

    A skeleton often contradicts its prompt (the study's yoga poses with "close up portrait …
    standing"), and must take precedence.
    """
    n, length = ids.shape
    opening = _tokens(*_OPENINGS).to(ids)
    chosen = torch.randint(len(opening), (n,), generator=generator, device=ids.device)
    standing = torch.rand(n, 1, generator=generator, device=ids.device) < 0.5
    start, end = ids[:, :1], ids[:, -1:]
    of, place = opening[0, -1], torch.arange(length, device=ids.device)
    first = ((ids == of) & (place <= _MOST)).int().argmax(1, keepdim=True)  # 0: none
    kept = (place > first) & ~torch.isin(ids, _tokens(_OF_POSES).to(ids)) & (ids != end)
    more = _tokens(", standing").to(ids).expand(n, -1)
    parts = (start, opening[chosen], torch.where(kept, ids, -1), torch.where(standing, more, -1))
    made = torch.cat(parts, dim=1)
    order = (made < 0).int().argsort(dim=1, stable=True)[:, : length - 1]
    made = made.gather(1, order)
    return torch.cat([torch.where(made < 0, end, made), end], dim=1)


def _tokens(*texts: str) -> Tensor:
    """Ids (n, longest) of texts without start and end, padded with -1."""
    ids = torch.from_numpy(token_ids(list(texts)))[:, 1:].long()
    ids = torch.where(ids == ids[:, -1:], -1, ids)
    return ids[:, : int((ids >= 0).sum(1).max())]

"""The two judges, a convolutional network and a vision transformer, with the same outputs.

Each encodes the image, detects the joints, and then encodes a crop of the head at a fixed size:
identity shows in few pixels, whose position varies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .facts import QUESTIONS, TRAITS

HEIGHT = 128  # of the networks' input, in pixels
IDENTITY = 64  # width of identity vectors
JOINTS = 18
FACE = 64  # side of the head crop, in pixels
_NOSE, _NECK = 0, 1
_REACH = 1.65  # half side of the head crop, in nose-neck distances: includes hair and chin
_SMALLEST, _LARGEST = 0.06, 0.5  # limits of the half side, in image heights


@dataclass(frozen=True)
class JudgeOutput:
    """A judge's output for n images.

    `answers` has (n, choices) logits for each question, `traits` is (n, 26), `identity` (n, 64)
    of length 1, `joints` (n, 18, 2) x and y from 0 to 1 of the image, `visible` (n, 18) logits.
    """

    answers: dict[str, Tensor]
    traits: Tensor
    identity: Tensor
    joints: Tensor
    visible: Tensor


class _Heads(nn.Module):
    """Maps features of image and head to all outputs."""

    def __init__(self, features: int, hidden: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.answers = nn.Linear(hidden, sum(map(len, QUESTIONS.values())))
        self.traits = nn.Linear(hidden, len(TRAITS))
        self.identity = nn.Linear(hidden, IDENTITY)
        self.visible = nn.Linear(hidden, JOINTS)

    def forward(self, features: Tensor, joints: Tensor) -> JudgeOutput:
        hidden = F.silu(self.hidden(features))  # (n, hidden)
        logits = self.answers(hidden).float().split([len(a) for a in QUESTIONS.values()], dim=1)
        return JudgeOutput(
            answers=dict(zip(QUESTIONS, logits, strict=True)),
            traits=self.traits(hidden).float(),
            identity=F.normalize(self.identity(hidden).float(), dim=1),
            joints=joints,
            visible=self.visible(hidden).float(),
        )


def _centres(maps: Tensor) -> Tensor:
    """The centre of each map's softmax, (n, 18, 2) from 0 to 1 (arXiv:1801.07372)."""
    n, joints, h, w = maps.shape
    weights = maps.reshape(n, joints, h * w).softmax(-1).reshape(n, joints, h, w)
    xs = (torch.arange(w, device=maps.device) + 0.5) / w
    ys = (torch.arange(h, device=maps.device) + 0.5) / h
    return torch.stack(((weights.sum(2) * xs).sum(-1), (weights.sum(3) * ys).sum(-1)), dim=-1)


def heads_of(images: Tensor, joints: Tensor) -> Tensor:
    """Head crops (n, 3, FACE, FACE) of images (n, 3, h, w), not rotated, around the nose.

    `joints` (n, 18, 2) are x and y from 0 to 1; the distance from nose to neck determines the size.
    Beyond the image's edge, the border pixels are repeated.
    """
    height, width = images.shape[2:]
    joints = joints.detach().float()
    aspect = joints.new_tensor((width / height, 1.0))
    nose, neck = joints[:, _NOSE], joints[:, _NECK]
    half = _REACH * ((nose - neck) * aspect).norm(dim=1)  # (n,) in heights
    half = half.clamp(_SMALLEST, _LARGEST)
    theta = joints.new_zeros(len(joints), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = 2 * half / aspect[0], 2 * half
    theta[:, :, 2] = 2 * nose - 1
    theta[:, 1, 2] -= 0.5 * half  # more of the head is above the nose than below
    grid = F.affine_grid(theta, [len(joints), 3, FACE, FACE], align_corners=False)
    given = images.float()
    return F.grid_sample(given, grid, padding_mode="border", align_corners=False)


class _Pool(nn.Module):
    """Mean, maximum, and a few learned attention pools, so that small things are not lost."""

    def __init__(self, channels: int, maps: int = 3) -> None:
        super().__init__()
        self.attention = nn.Conv2d(channels, maps, 1)
        self.features = channels * (maps + 2)

    def forward(self, x: Tensor) -> Tensor:  # (n, c, h, w) -> (n, features)
        weights = self.attention(x).flatten(2).softmax(-1)  # (n, maps, h * w)
        flat = x.flatten(2)  # (n, c, h * w)
        attended = torch.einsum("nmp,ncp->nmc", weights, flat).flatten(1)
        return torch.cat((flat.mean(-1), flat.amax(-1), attended), dim=1)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(hidden)))


class ConvolutionJudge(nn.Module):
    """A small residual network; joint maps are the sum of three scales at 1/4 resolution."""

    def __init__(self) -> None:
        super().__init__()

        def down(a: int, b: int) -> nn.Conv2d:
            return nn.Conv2d(a, b, 3, stride=2, padding=1)

        self.to_quarter = nn.Sequential(down(3, 32), nn.SiLU(), down(32, 64), _Residual(64))
        self.to_eighth = nn.Sequential(down(64, 96), _Residual(96), _Residual(96))
        self.to_sixteenth = nn.Sequential(down(96, 128), _Residual(128), _Residual(128))
        self.lateral = nn.ModuleList(nn.Conv2d(c, 48, 1) for c in (64, 96, 128))
        self.maps = nn.Conv2d(48, JOINTS, 3, padding=1)
        self.near, self.far = _Pool(96), _Pool(128)
        self.face = nn.Sequential(
            down(3, 32), _Residual(32), down(32, 64), _Residual(64), down(64, 96), _Residual(96),
            nn.AvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        whole = self.near.features + self.far.features
        self.heads = _Heads(whole + 96 * (FACE // 16) ** 2)

    def forward(self, images: Tensor) -> JudgeOutput:
        """The output for images (n, 3, h, w) from -1 to 1, of any size."""
        seen = _seen(images)
        quarter = self.to_quarter(seen)
        eighth = self.to_eighth(quarter)
        sixteenth = self.to_sixteenth(eighth)
        scales = zip(self.lateral, (quarter, eighth, sixteenth), strict=True)
        size = quarter.shape[2:]
        resized = (F.interpolate(conv(x), size, mode="bilinear") for conv, x in scales)
        joined = cast(Tensor, sum(resized))
        joints = _centres(self.maps(F.silu(joined)).float())
        face = self.face(heads_of(seen, joints))
        features = torch.cat((self.near(eighth), self.far(sixteenth), face), dim=1)
        return self.heads(features, joints)


class PatchJudge(nn.Module):
    """Two small vision transformers (arXiv:2010.11929): on 16-pixel patches of the image, of any
    aspect ratio, and on 8-pixel patches of the head."""

    def __init__(self, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.image = _Patches(width, 4, layers)
        self.face = _Patches(width, 2, layers)
        self.maps = nn.Conv2d(width, JOINTS, 1)
        self.pool, self.face_pool = _Pool(width), _Pool(width)
        self.heads = _Heads(self.pool.features + self.face_pool.features)

    def forward(self, images: Tensor) -> JudgeOutput:
        """The output for images (n, 3, h, w) from -1 to 1, of any size."""
        seen = _seen(images)
        x = self.image(seen)  # (n, width, h / 16, w / 16)
        joints = _centres(self.maps(x).float())
        face = self.face(heads_of(seen, joints))  # (n, width, 8, 8)
        return self.heads(torch.cat((self.pool(x), self.face_pool(face)), dim=1), joints)


class _Patches(nn.Module):
    """A transformer on square patches of `4 * step` pixels; returns feature maps of the patches."""

    def __init__(self, width: int, step: int, layers: int) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            nn.Conv2d(3, 32, 4, stride=4), nn.GELU(), nn.Conv2d(32, width, step, stride=step)
        )
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images)  # (n, width, h, w)
        n, width, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2) + _places(h, w, width, x.device)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens).transpose(1, 2).reshape(n, width, h, w)


def _places(h: int, w: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal position embeddings of each patch's row and column, (h * w, width)."""
    count = width // 4
    scales = torch.exp(torch.arange(count, device=device) * (-math.log(100.0) / count))
    rows = torch.arange(h, device=device)[:, None] * scales  # (h, count)
    columns = torch.arange(w, device=device)[:, None] * scales
    vertical = torch.cat((rows.sin(), rows.cos()), dim=1)[:, None].expand(h, w, -1)
    level = torch.cat((columns.sin(), columns.cos()), dim=1)[None].expand(h, w, -1)
    return torch.cat((vertical, level), dim=-1).reshape(h * w, width)


def _seen(images: Tensor) -> Tensor:
    """Images resized to HEIGHT, with the width rounded to a multiple of 16."""
    h, w = images.shape[2:]
    size = (HEIGHT, max(16, round(w * HEIGHT / h / 16) * 16))
    if (h, w) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


ARCHITECTURES: dict[str, type[ConvolutionJudge] | type[PatchJudge]] = {
    "convolution": ConvolutionJudge,
    "patches": PatchJudge,
}

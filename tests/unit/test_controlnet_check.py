"""A ControlNet of another family is named before anything is drawn."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path

import pytest
import torch
from likeness.comparison.errors import ComparisonError
from likeness.trainers.errors import LikenessError
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
ATTENTION = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"

FILES = {
    "sd15.safetensors": {f"model.diffusion_model.{ATTENTION}": (8, 768)},
    "xl.safetensors": {f"model.diffusion_model.{ATTENTION}": (8, 2048)},
    "pose.safetensors": {f"control_model.{ATTENTION}": (8, 768)},
    "pose-xl.safetensors": {f"control_model.{ATTENTION}": (8, 2048)},
    "pose-diffusers-2.safetensors": {
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (8, 1024)
    },
    "pose-small.safetensors": {f"control_model.{ATTENTION}": (8, 128)},
    "pose-flux.safetensors": {"double_blocks.0.img_attn.qkv.weight": (8, 8)},
    "pose-sd3.safetensors": {"transformer_blocks.0.attn.to_q.weight": (8, 8)},
    "adapter.safetensors": {"body.0.block1.weight": (8, 8)},
}


@pytest.fixture
def check(tmp_path):
    """Checks a graph with a base and a ControlNet, by the names of their files."""
    for name, shapes in FILES.items():
        tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
        save_file(tensors, tmp_path / name)
    (tmp_path / "damaged.safetensors").write_bytes(b"not one")
    STUB["install"]()
    module = importlib.import_module("likeness.nodes.controlnet_check")

    def path_of(kind, name):
        if not (tmp_path / name).is_file():
            raise LikenessError(f"no {kind} {name}")
        return tmp_path / name

    def run(base, *controls, second=None):
        nodes = {"1": node("CheckpointLoaderSimple", ckpt_name=base), "2": node("Other", x=1)}
        if second is not None:
            nodes["3"] = node("CheckpointLoaderSimple", ckpt_name=second)
        nodes |= {
            f"c{number}": node("ControlNetLoader", control_net_name=name)
            for number, name in enumerate(controls)
        }
        module.check_controlnets(nodes, path_of)

    return run


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


@pytest.mark.parametrize(
    ("base", "control", "message"),
    [
        ("sd15", "pose-xl", r"pose-xl\.safetensors is for SDXL.*sd15\.safetensors is Stable Diff"),
        ("sd15", "pose-diffusers-2", r"is for Stable Diffusion 2\.x"),
        ("sd15", "pose-small", "a model with a text embedding width of 128"),
        ("sd15", "pose-flux", "is for FLUX"),
        ("sd15", "pose-sd3", "is for SD 3"),
        ("xl", "pose", r"is for Stable Diffusion 1\.x, but the base model xl\.safetensors is SDXL"),
    ],
)
def test_a_control_net_of_another_family_is_named(check, base, control, message):
    with pytest.raises(ComparisonError, match=message):
        check(f"{base}.safetensors", f"{control}.safetensors")


@pytest.mark.parametrize(
    "control",
    ["pose.safetensors", "adapter.safetensors", "gone.safetensors", "damaged.safetensors", "x.pth"],
)
def test_what_fits_or_cannot_be_told_is_left_to_core(check, control):
    check("sd15.safetensors", control)
    check("x.ckpt", "pose-xl.safetensors")
    check(["7", 0], "pose-xl.safetensors")
    check("sd15.safetensors", control, "pose-xl.safetensors", second="xl.safetensors")

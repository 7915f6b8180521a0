"""Trains a LoRA with ComfyUI's TrainLoraNode, without a server; run by `worker.py`.

``core_training.py TASK``: the task is JSON written by `baselines.core_node`. Runs in ComfyUI's
Python, which need not have our packages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {
    "grad_accumulation_steps": 1,
    "optimizer": "AdamW",
    "loss_function": "MSE",
    "seed": 0,
    "lora_dtype": "fp32",
    "quantized_backward": False,
    "algorithm": "LoRA",
    "gradient_checkpointing": False,
    "checkpoint_depth": 1,
    "offloading": False,
    "existing_lora": "[None]",
    "bucket_mode": False,
    "bypass_mode": False,
}


def main() -> None:
    """Runs the task: trains and writes the LoRA file."""
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path.insert(0, task["comfyui"])
    sys.argv = ["main.py", *task["arguments"]]
    import comfy.options  # noqa: TID251  this is ComfyUI's process

    comfy.options.enable_args_parsing()
    import torch

    with torch.inference_mode():  # as ComfyUI runs its graphs
        train(task)


def train(task: dict[str, Any]) -> None:
    """Loads, encodes, trains and saves, as core's nodes do."""
    import comfy.sd  # noqa: TID251
    from comfy_extras.nodes_train import TrainLoraNode
    from safetensors.torch import save_file

    model, clip, vae = comfy.sd.load_checkpoint_guess_config(task["checkpoint"])[:3]
    latents = [{"samples": vae.encode(pixels(path))} for path in images(task["photos"])]
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(task["prompt"]))
    REPORT.images, REPORT.prompts = len(latents), 1  # type: ignore[name-defined]  # noqa: F821
    settings = SETTINGS | {
        "batch_size": task["batch"],
        "steps": task["steps"],
        "learning_rate": task["learning_rate"],
        "rank": task["rank"],
        "training_dtype": task["precision"] if task["precision"] != "fp16" else "none",
    }
    lists = {name: [value] for name, value in settings.items()}
    output = TrainLoraNode.execute(model=[model], latents=latents, positive=[positive], **lists)
    tensors = {name: tensor.contiguous() for name, tensor in output.args[0].items()}
    save_file(tensors, task["output"])


def images(folder: str) -> list[Path]:
    """The PNG files of a folder."""
    return sorted(Path(folder).glob("*.png"))


def pixels(path: Path) -> Any:
    """An image as core's IMAGE: (1, H, W, 3), from 0 to 1."""
    import numpy as np
    import torch
    from PIL import Image

    image = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)
    return torch.from_numpy(image / 255)[None]


if __name__ == "__main__":
    main()

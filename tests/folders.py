"""Diffusers folders without weights, for tests of what is read of a folder's files.

Run by path (`runpy`), because tests are no package.
"""

from __future__ import annotations

from pathlib import Path

STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
STEMS |= {"text_encoder": "model"}


def write_folder(folder: Path, config: str = "{}") -> Path:
    """What is loaded of a base: `config` of each part, and its name for the weights."""
    for part, stem in STEMS.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(config)
        (folder / part / f"{stem}.safetensors").write_bytes(part.encode())
    return folder

"""Writes checkpoints with random weights, for tests and benchmarks without downloads.

They draw coloured noise, but any program that reads such checkpoints can load them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..trainers import ldm_names

if TYPE_CHECKING:
    import torch

_FULL: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    },
    "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
}
_TINY: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 16,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    "vae": {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
    "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
}
_MERGES = (
    *("a n", "an d</w>", "a n</w>", "m an</w>", "o f</w>"),
    *("p h", "ph o", "t o</w>", "pho to</w>"),
)


def write_random_model(
    path: Path,
    *,
    seed: int = 0,
    size: Literal["tiny", "full"] = "tiny",
    dtype: Literal["fp16", "fp32"] = "fp16",
    tokenizer: Path | None = None,
) -> Path:
    """Writes a single-file checkpoint with random weights to `path` and returns it.

    ``tiny`` is 2.4 MB in fp16; ``full`` has the size of SD 1.5 (2.1 GB in fp16). `tokenizer` is a
    CLIP tokenizer folder, copied to ``<stem>_tokenizer/`` beside the file; None writes a small one
    there for ``tiny`` and none for ``full``, which has CLIP's vocabulary. The same arguments give
    the same weights.
    """
    import torch

    from ..trainers.weights import write_weights

    path = Path(path)
    beside = path.parent / f"{path.stem}_tokenizer"
    vocabulary = 49408
    if tokenizer is not None:
        shutil.copytree(tokenizer, beside, dirs_exist_ok=True)
        vocabulary = len(json.loads((beside / "vocab.json").read_text(encoding="utf-8")))
    elif size == "tiny":
        vocabulary = write_small_tokenizer(beside)
    config = _FULL if size == "full" else _TINY
    kept = torch.float16 if dtype == "fp16" else torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = _cast(_unet(config["unet"]), kept)
        state |= _cast(_vae(config["vae"]), kept)
        state |= _cast(_text(config["text"], vocabulary), kept)
    write_weights(path, state, kept, metadata={})
    return path


def write_random_miniature(folder: Path, *, seed: int = 0) -> None:
    """Writes the miniature's checkpoint, tokenizer and ControlNet with random weights to `folder`.

    The layout is that of `weights.FOLDER`, including digests.json. The ControlNet has an effect.
    """
    import torch

    from . import miniature, weights

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, vae = miniature.new_unet(), miniature.new_vae()
        last = vae.decoder.layers[-1]
        with torch.no_grad():
            last.get_parameter("weight").mul_(20)  # a new VAE decodes everything to near black
            last.get_parameter("bias").fill_(0.5)
        miniature.save_miniature(
            folder / weights.CHECKPOINT,
            unet=unet,
            vae=vae,
            text_encoder=miniature.new_text_encoder(),
            metadata={},
        )
        controlnet = miniature.new_controlnet(unet)
        for layer in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
            torch.nn.init.normal_(layer.weight, std=0.1)  # zero in a new ControlNet
        miniature.save_controlnet(folder / weights.CONTROLNET, controlnet, {})
    weights.write_digests(folder)


def _cast(part: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """`part` in `dtype`; frees its tensors one by one to save memory."""
    return {key: part.pop(key).to(dtype) for key in list(part)}


def _unet(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(attention_head_dim=8, **config)
    return ldm_names.to_ldm(unet.state_dict(), ldm_names.unet_names(unet.config), ldm_names.UNET)


def _vae(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    from diffusers import AutoencoderKL

    levels = len(config["block_out_channels"])
    down, up = ("DownEncoderBlock2D",) * levels, ("UpDecoderBlock2D",) * levels
    vae = AutoencoderKL(down_block_types=down, up_block_types=up, **config)
    return ldm_names.to_ldm(vae.state_dict(), ldm_names.vae_names(vae.config), ldm_names.VAE)


def _text(config: dict[str, Any], vocabulary: int) -> dict[str, torch.Tensor]:
    from transformers import CLIPTextConfig, CLIPTextModel

    heads = max(1, config["hidden_size"] // 64)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            num_attention_heads=heads,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            **config,
        )
    )
    weights = {key: value for key, value in text.state_dict().items() if "position_ids" not in key}
    return ldm_names.to_ldm(weights, ldm_names.text_names(weights), ldm_names.TEXT)


def write_small_tokenizer(folder: Path) -> int:
    """Writes a byte-level CLIP tokenizer with a few merges; returns the vocabulary size.

    It can tokenize any text. The last two entries are the start and end tokens, as in CLIP.
    """
    alphabet = list(_byte_alphabet())
    words = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    words += [merge.replace(" ", "") for merge in _MERGES]
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    words += special.values()
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (
        ("vocab.json", {word: n for n, word in enumerate(words)}),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", config | special),
    ):
        (folder / name).write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *_MERGES, ""])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    return len(words)


def _byte_alphabet() -> Iterator[str]:
    """The printable character for each of the 256 bytes, as in GPT-2's byte-level BPE."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = 0
    for byte in range(256):
        yield chr(byte) if byte in printable else chr(256 + others)
        others += byte not in printable

"""The miniature's model family, so that ComfyUI reads its checkpoints like any SD 1.x file.

ComfyUI detects families by the sizes of the UNet (`comfy.supported_models.models`); a family's
class sets its latent format, text encoder and tokenizer. Like `host.py`, this module imports
ComfyUI: its classes are ComfyUI's own with other sizes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from comfy import latent_formats, sd1_clip, supported_models
from comfy.clip_model import CLIPEmbeddings, CLIPTextModel
from comfy.supported_models_base import ClipTarget
from comfy.taesd.taesd import Decoder

from ..trainers import ldm_names
from ..trainers.errors import BaseModelError
from ..trainers.tokenizer import load_tokenizer, warn_of_unknown_words


def register(tokenizer: Path) -> None:
    """Makes ComfyUI's loaders read checkpoints and ControlNets of the miniature's sizes.

    `tokenizer` is the tokenizer's folder: ComfyUI does not pass on a checkpoint's path.
    """
    Miniature.tokenizer = tokenizer
    if Miniature not in supported_models.models:
        supported_models.models.append(Miniature)


class MiniatureLatentFormat(latent_formats.SD15):
    """SD 1.x's scale, which the file's ``vae_scale`` undoes; without SD 1.x's preview factors."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_rgb_factors = None
        self.taesd_decoder_name = None

    def fit_rgb_factors(self, decoder_state: dict[str, torch.Tensor]) -> None:
        """Fits the preview factors to the colours that the decoder gives to constant latents.

        ComfyUI models colours (-1 to 1) as linear in the latent's channels; here they nearly are.
        """
        decoder = Decoder(latent_channels=self.latent_channels)
        decoder.load_state_dict(decoder_state)
        unit = torch.eye(self.latent_channels)
        flat = torch.cat([unit, -unit, 0 * unit[:1]])[:, :, None, None].expand(-1, -1, 4, 4)
        with torch.no_grad():
            colours = 2 * decoder(flat).mean(dim=(2, 3)) - 1  # (2 * channels + 1, 3)
        positive, negative, (zero,) = colours.split([len(unit), len(unit), 1])
        self.latent_rgb_factors = ((positive - negative) / 2).tolist()
        self.latent_rgb_factors_bias = zero.tolist()


class Miniature(supported_models.SD15):
    """SD 1.5 with the UNet widths of `demo/miniature.py`."""

    unet_config: ClassVar[dict[str, Any]] = {
        **supported_models.SD15.unet_config,
        "model_channels": 64,
        "context_dim": 128,
    }
    latent_format: Any = MiniatureLatentFormat  # ComfyUI replaces it with an instance
    tokenizer: ClassVar[Path]

    def get_model(self, state_dict: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """ComfyUI's model, with preview colours fitted to the checkpoint's VAE, if it has one."""
        decoder = ldm_names.part(state_dict, f"{ldm_names.VAE}taesd_decoder.")
        if decoder:
            self.latent_format.fit_rgb_factors(decoder)
        return super().get_model(state_dict, *args, **kwargs)

    def clip_target(self, state_dict: dict[str, Any]) -> ClipTarget:
        """How to build the tokenizer and the text encoder, at the checkpoint's sizes.

        Raises BaseModelError if the checkpoint has another vocabulary size.
        """
        text = ldm_names.part(state_dict, ldm_names.TEXT)
        config = ldm_names.text_config({name: tuple(t.shape) for name, t in text.items()})
        known = len(load_tokenizer(self.tokenizer))
        if config["vocab_size"] != known:
            raise BaseModelError(
                f"The checkpoint's text encoder has {config['vocab_size']:,} entries, but the "
                f"miniature's vocabulary has {known:,}: it was trained from another version of the "
                "miniature. Train it again."
            )
        tokenizer = partial(
            Tokenizer, tokenizer_path=str(self.tokenizer), embedding_size=config["hidden_size"]
        )
        return ClipTarget(
            partial(sd1_clip.SD1Tokenizer, tokenizer=tokenizer),
            partial(sd1_clip.SD1ClipModel, clip_model=partial(_text_encoder, config)),
        )


class Tokenizer(sd1_clip.SDTokenizer):
    """ComfyUI's tokenizer; also logs words that the miniature never saw."""

    def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any) -> Any:
        """Batches of (token or embedding, weight, …)."""
        batches = super().tokenize_with_weights(text, *args, **kwargs)
        tokens = [token for batch in batches for token, *_ in batch]
        warn_of_unknown_words(self.tokenizer, [[t for t in tokens if isinstance(t, int)]])
        return batches


def _text_encoder(config: dict[str, Any], dtype: Any, **kwargs: Any) -> sd1_clip.SDClipModel:
    """ComfyUI's text encoder at the sizes of `config`, the fields of a CLIPTextConfig.

    Always in fp32 (2 MB), whatever `dtype` ComfyUI passes: fp16 would round a LoRA's part.
    """
    special = {name: config[f"{key}_token_id"] for name, key in _SPECIAL_TOKENS.items()}
    return sd1_clip.SDClipModel(
        textmodel_json_config=dict(config),
        model_class=_TextModel,
        special_tokens=special,
        return_projected_pooled=False,
        dtype=torch.float32,
        **kwargs,
    )


_SPECIAL_TOKENS = {"start": "bos", "end": "eos", "pad": "pad"}


class _TextModel(CLIPTextModel):
    """ComfyUI's CLIP with the config's vocabulary size: core's always has 49,408 entries."""

    def __init__(self, config: dict[str, Any], dtype: Any, device: Any, operations: Any) -> None:
        super().__init__(config, dtype, device, operations)
        self.text_model.embeddings = CLIPEmbeddings(
            config["hidden_size"],
            config["vocab_size"],
            config["max_position_embeddings"],
            dtype,
            device,
            operations,
        )

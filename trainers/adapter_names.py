"""The names of LoRA tensors: kohya's, diffusers', PEFT's, and the families they tell apart.

kohya's names (``lora_unet_<path>.lora_down.weight``, the module's path with ``_`` for ``.``) are
what ComfyUI, A1111 and the sharing sites read, so all others are brought to them. Works on names
and shapes alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import AdapterError
from .recipe import LoRA
from .safetensors_file import Shapes

LORA_PREFIX_UNET = "lora_unet_"
LORA_PREFIX_TEXT_ENCODER = "lora_te_"
LORA_ADAPTER_METADATA_KEY = (
    "lora_adapter_metadata"  # where diffusers puts PEFT's configuration, as JSON
)

T = TypeVar("T")

# How a tensor's name ends, after its module's: others' -> kohya's. The magnitude of PEFT's DoRA
# is not kohya's dora_scale (lora.py has the formula between them), so it keeps its name.
_SUFFIXES = {
    ".lora_down.weight": ".lora_down.weight",
    ".lora_up.weight": ".lora_up.weight",
    ".lora_A.weight": ".lora_down.weight",
    ".lora_B.weight": ".lora_up.weight",
    ".lora.down.weight": ".lora_down.weight",
    ".lora.up.weight": ".lora_up.weight",
    "_lora.down.weight": ".lora_down.weight",
    "_lora.up.weight": ".lora_up.weight",
    ".lora_linear_layer.down.weight": ".lora_down.weight",
    ".lora_linear_layer.up.weight": ".lora_up.weight",
    ".lora_magnitude_vector.weight": ".lora_magnitude_vector",
    ".lora_magnitude_vector": ".lora_magnitude_vector",
    ".dora_scale": ".dora_scale",
    ".alpha": ".alpha",
}

# Names under `text_encoder.` as the first diffusers releases wrote them.
_LEGACY_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

_UNET_PATH = re.compile(r"(down_blocks|up_blocks|mid_block|time_embedding)\.|conv_(in|out)$")
_TEXT_PATH = re.compile(r"(text_model\.)?encoder\.layers\.\d+\.")


def module_name(part: str, path: str) -> str:
    """kohya's name of a module: `part` is ``unet`` or ``text_encoder``, `path` its path there.

    transformers 5 dropped ``text_model.`` from the text encoder's paths; kohya's have it.
    """
    if part == "text_encoder":
        return LORA_PREFIX_TEXT_ENCODER + f"text_model.{path.removeprefix('text_model.')}".replace(
            ".", "_"
        )
    return LORA_PREFIX_UNET + path.replace(".", "_")


def kohya_name(name: str) -> str:
    """kohya's name of a tensor named by kohya, diffusers or PEFT; a name of none of them as it is.

    LyCORIS' tensors (LoHa, LoKr, …) have kohya's module names already and pass through.
    """
    if name.startswith((LORA_PREFIX_UNET, "lora_te")):
        return name
    plain = re.sub(r"\.default(?=\.weight$|$)", "", name)
    ending = next((e for e in sorted(_SUFFIXES, key=len, reverse=True) if plain.endswith(e)), None)
    if ending is None:
        return name
    part, path = _part_and_path(plain[: -len(ending)])
    return name if part is None else module_name(part, path) + _SUFFIXES[ending]


def _part_and_path(module: str) -> tuple[str | None, str]:
    """``unet``, ``text_encoder`` or None, and the module's path in that part as it is today."""
    given = next((part for part in ("unet", "text_encoder") if module.startswith(f"{part}.")), None)
    path = module.removeprefix(f"{given}.").removeprefix("base_model.model.")
    head, _, leaf = path.replace(".processor.", ".").rpartition(".")
    if given != "unet" and _TEXT_PATH.match(path):
        return "text_encoder", f"{head}.{_LEGACY_TEXT_NAMES.get(leaf, leaf)}"
    if given != "text_encoder" and _UNET_PATH.match(path):
        leaf = "to_out.0" if leaf == "to_out" else leaf
        return "unet", f"{head}.{leaf}" if head else leaf
    return None, path


def to_kohya_keys(tensors: Mapping[str, T]) -> dict[str, T]:
    """The same tensors under kohya's names. Raises AdapterError if two names become one."""
    renamed: dict[str, T] = {}
    for name, tensor in tensors.items():
        target = kohya_name(name)
        if target in renamed:
            raise AdapterError(f"The file holds {target} twice, once named {name}.")
        renamed[target] = tensor
    return renamed


def file_alpha(method: LoRA) -> float:
    """The alpha that a file must name: its readers scale by alpha / rank.

    Rank stabilisation scales by alpha / sqrt(rank), so there it is alpha·sqrt(rank).
    """
    alpha = float(method.rank if method.alpha is None else method.alpha)
    return alpha * math.sqrt(method.rank) if method.rank_stabilised else alpha


def group_by_module(tensors: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Tensors by kohya's names, for each module those of its names' endings, as ``alpha``."""
    modules: dict[str, dict[str, T]] = {}
    for name, tensor in tensors.items():
        module, _, ending = name.partition(".")
        modules.setdefault(module, {})[ending] = tensor
    return modules


def declared_alphas(shapes: Shapes, metadata: Mapping[str, str]) -> dict[str, float]:
    """Values for the ``.alpha`` tensors that a diffusers or PEFT file has only in its metadata.

    `shapes` are by kohya's names. Nothing is returned for modules with an alpha tensor, nor where
    the metadata is silent: alpha is the rank then. Rank stabilisation as in `file_alpha`. Raises
    AdapterError for metadata that is damaged or names an alpha for each layer.
    """
    config = _configuration(metadata)
    alphas = {}
    for name, shape in shapes.items():
        module, _, ending = name.partition(".")
        if ending != "lora_down.weight" or f"{module}.alpha" in shapes or not shape:
            continue
        prefix = "unet." if module.startswith(LORA_PREFIX_UNET) else "text_encoder."
        given = {key.removeprefix(prefix): value for key, value in config.items()}
        if given.get("alpha_pattern"):
            raise AdapterError("The file has an alpha for each layer by pattern; that is not read.")
        alpha = given.get("lora_alpha")
        if isinstance(alpha, (int, float)):
            stable = math.sqrt(shape[0]) if given.get("use_rslora") is True else 1.0
            alphas[f"{module}.alpha"] = float(alpha) * stable
    return alphas


def _configuration(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        config = json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise AdapterError(
            f"The file's metadata has a {LORA_ADAPTER_METADATA_KEY} that is not a JSON object."
        )
    return config


# Families, first match wins: what a file looks like, by a pattern in any of its names.
_LYCORIS = (
    ("LoHa", r"\.hada_w"),
    ("LoKr", r"\.lokr_w"),
    ("GLoRA", r"\.(a1|b1)\.weight$"),
    ("OFT", r"\.oft_(blocks|diag)"),
    ("Tucker LoCon", r"\.lora_mid\.weight$"),
)
_FAMILIES = (
    ("SDXL checkpoint", r"^conditioner\.embedders\."),
    ("SD 2.x checkpoint", r"^cond_stage_model\.model\."),
    ("ControlNet", r"^(control_model\.|controlnet_|input_hint_block\.)"),
    ("IP-Adapter", r"^(ip_adapter|image_proj)\."),
    ("FLUX {}", r"(double|single)_blocks[._]\d|single_transformer_blocks"),
    ("SD 3 {}", r"joint_blocks[._]\d|^transformer\.transformer_blocks\."),
    ("SD 1.x checkpoint", r"^cond_stage_model\.transformer\."),
    ("full checkpoint", r"^model\.diffusion_model\."),
    ("VAE", r"^(first_stage_model\.|(en|de)coder\.(conv_in|mid_block|mid)\.)"),
    ("textual inversion", r"^(emb_params|string_to_param.*|clip_[lg])$"),
    ("SDXL {}", r"^(lora_te2_|text_encoder_2\.)|^lora_unet_(in|out)put_blocks_"),
    ("LoRA of a transformer model", r"^(transformer|diffusion_model)\..*lora"),
)
_ADAPTER_KEY = re.compile(r"lora|\.alpha$|dora_scale")
# Width of the text that the UNet attends to: what sets the SD families apart.
_FAMILY_BY_TEXT_DIM = {768: "SD 1.x LoRA", 1024: "SD 2.x LoRA", 2048: "SDXL LoRA"}
_CROSS_DOWN = re.compile(r"attn2[._](processor\.)?to_[kv].*(down|lora_A)")
_SD_MODULE = re.compile(r"(down|up)_blocks[._]\d|mid_block[._]|layers[._]\d+[._](self_attn|mlp)")


def guess_family(shapes: Shapes) -> str:
    """What a file with these tensors looks like, in words for an error message.

    E.g. ``SD 1.x LoRA``, ``FLUX LoRA``, ``FLUX model``, ``textual inversion``, ``LoHa``, or
    ``unknown kind``. Names may be of any of the three namings.
    """
    kind = "LoRA" if any(_ADAPTER_KEY.search(name) for name in shapes) else "model"
    for family, pattern in _LYCORIS + _FAMILIES:
        if any(re.search(pattern, name) for name in shapes):
            return family.format(kind)
    for name, shape in shapes.items():
        if _CROSS_DOWN.search(name) and len(shape) >= 2:
            return _FAMILY_BY_TEXT_DIM.get(shape[1], f"LoRA for text of width {shape[1]}")
    if any("lora" in name and _SD_MODULE.search(name) for name in shapes):
        return "Stable Diffusion LoRA"
    if any(name.endswith((".lora_up.weight", ".lora_B.weight")) for name in shapes):
        return "LoRA of another architecture"
    if len(shapes) == 1 and len(next(iter(shapes.values()))) == 2:
        return "textual inversion"
    if any(_SD_MODULE.search(name) for name in shapes):
        return "part of a diffusers model"
    return "unknown kind"


def list_names(names: list[str], shown: int = 3) -> str:
    """The first few names and how many there are, for an error message."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(_printable(name[:120]) for name in names[:shown]) + more


def _printable(name: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name)

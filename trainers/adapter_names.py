"""LoRA tensor names of kohya, diffusers, PEFT and ComfyUI, and the model families they identify.

ComfyUI, A1111 and model-sharing sites read kohya's names (``lora_unet_<path>.lora_down.weight``,
the module's path with ``_`` for ``.``), so those of diffusers and PEFT are converted to them. Those
that ComfyUI's own nodes write (``diffusion_model.<path>.lora_down.weight``, with the path in a
checkpoint) stay as they are: some of their modules have no name in kohya's scheme. Works on names
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
COMFYUI_PREFIX_UNET = "diffusion_model."
COMFYUI_PREFIX_TEXT_ENCODER = "text_encoders.clip_l.transformer."
# Not part of a CLIPTextModel, and not used by SD 1.x.
UNUSED_MODULE = f"{COMFYUI_PREFIX_TEXT_ENCODER}text_projection"
_UNET_PREFIXES = (LORA_PREFIX_UNET, COMFYUI_PREFIX_UNET)
MAGNITUDE = "lora_magnitude_vector"  # of PEFT's DoRA
LORA_ADAPTER_METADATA_KEY = "lora_adapter_metadata"  # diffusers' key for PEFT's config, as JSON

T = TypeVar("T")

# Suffixes after a module's name -> kohya's. PEFT's DoRA magnitude is not kohya's dora_scale
# (lora.py has the conversion), so it keeps its name.
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

# What may follow a module's name: what ComfyUI reads of LoRA, LoHa, LoKr, OFT and BOFT, GLoRA, and
# plain differences; PEFT's DoRA magnitude, which it does not.
_ENDING = re.compile(
    r"\.((lora_(up|down|mid)\.weight|alpha|dora_scale|reshape_weight"
    r"|hada_(w[12]_[ab]|t[12])|lokr_(w[12](_[ab])?|t2)|oft_blocks|rescale|[ab][12]\.weight"
    r"|diff|diff_b|set_weight|w_norm|b_norm)|lora_magnitude_vector)$"
)

# Of diffusers' advanced script and of SimpleTuner, and kohya's for the same modules.
_OTHER_PREFIXES = {"lora_te1_text_model_": "lora_te_text_model_", "lycoris_": LORA_PREFIX_UNET}

# Names under `text_encoder.` as the first diffusers releases wrote them.
_LEGACY_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

_UNET_PATH = re.compile(r"(down_blocks|up_blocks|mid_block|time_embedding)\.|conv_(in|out)$")
_TEXT_PATH = re.compile(r"(text_model\.)?encoder\.layers\.\d+\.")


def module_name(part: str, path: str) -> str:
    """kohya's name of a module: `part` is ``unet`` or ``text_encoder``, `path` its path there.

    transformers 5 dropped ``text_model.`` from the text encoder's paths; kohya's names keep it.
    """
    if part == "text_encoder":
        return LORA_PREFIX_TEXT_ENCODER + f"text_model.{path.removeprefix('text_model.')}".replace(
            ".", "_"
        )
    return LORA_PREFIX_UNET + path.replace(".", "_")


def kohya_name(name: str) -> str:
    """kohya's name of a tensor named by kohya, diffusers or PEFT; other names are unchanged.

    LyCORIS tensors (LoHa, LoKr, …) already have kohya's module names and pass through.
    """
    for prefix, ours in _OTHER_PREFIXES.items():
        name = ours + name.removeprefix(prefix) if name.startswith(prefix) else name
    plain = re.sub(r"\.default(?=\.weight$|$)", "", name)
    ending = next((e for e in sorted(_SUFFIXES, key=len, reverse=True) if plain.endswith(e)), None)
    if ending is None:
        return name
    module = plain[: -len(ending)]
    if module.startswith((*_UNET_PREFIXES, "lora_te", COMFYUI_PREFIX_TEXT_ENCODER)):
        return module + _SUFFIXES[ending]
    part, path = _part_and_path(module)
    return name if part is None else module_name(part, path) + _SUFFIXES[ending]


def _part_and_path(module: str) -> tuple[str | None, str]:
    """``unet``, ``text_encoder`` or None, and the module's path in that part in current names."""
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
    """The tensors by `kohya_name`. Raises AdapterError if two names map to one."""
    renamed: dict[str, T] = {}
    for name, tensor in tensors.items():
        target = kohya_name(name)
        if target in renamed:
            raise AdapterError(
                f"The file contains {target} twice, once as {name}. Save it again from the program "
                "that made it, or choose another."
            )
        renamed[target] = tensor
    return renamed


def file_alpha(method: LoRA) -> float:
    """Alpha to store in a file, whose readers scale by alpha / rank.

    Rank stabilisation scales by alpha / sqrt(rank), so there it is alpha·sqrt(rank).
    """
    alpha = float(method.rank if method.alpha is None else method.alpha)
    return alpha * math.sqrt(method.rank) if method.rslora else alpha


def split_name(name: str) -> tuple[str, str]:
    """A tensor's module, and what follows it, such as ``alpha``; the latter is empty if unknown.

    Only ComfyUI's module names contain dots.
    """
    if found := _ENDING.search(name):
        return name[: found.start()], found[1]
    module, _, ending = name.partition(".")
    return module, ending


def is_read_by_comfyui(ending: str) -> bool:
    """Whether ComfyUI's patches use a tensor of this ending (`split_name`)."""
    found = _ENDING.fullmatch(f".{ending}")
    return found is not None and found[2] is not None


def group_by_module(tensors: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Groups tensors by module; the inner keys are suffixes like ``alpha``."""
    modules: dict[str, dict[str, T]] = {}
    for name, tensor in tensors.items():
        module, ending = split_name(name)
        modules.setdefault(module, {})[ending] = tensor
    return modules


def declared_alphas(shapes: Shapes, metadata: Mapping[str, str]) -> dict[str, float]:
    """Values for the ``.alpha`` tensors that a diffusers or PEFT file has only in its metadata.

    `shapes` are by kohya's or ComfyUI's names. Modules that have an alpha tensor are skipped, and
    so are all if the metadata has no alpha, which is then the rank. Rank stabilisation as in
    `file_alpha`. Raises AdapterError for damaged metadata.
    """
    config, by_prefix = _configuration(metadata), dict[str, tuple[dict[str, Any], Any]]()
    alphas = {}
    for name, shape in shapes.items():
        module, ending = split_name(name)
        if ending != "lora_down.weight" or f"{module}.alpha" in shapes or not shape:
            continue
        prefix = "unet." if module.startswith(_UNET_PREFIXES) else "text_encoder."
        if prefix not in by_prefix:
            given = {key.removeprefix(prefix): value for key, value in config.items()}
            by_prefix[prefix] = given, _alphas_by_module(given.get("alpha_pattern"), prefix)
        given, patterns = by_prefix[prefix]
        alpha = patterns.get(module, given.get("lora_alpha"))
        if isinstance(alpha, (int, float)):
            stable = math.sqrt(shape[0]) if given.get("use_rslora") is True else 1.0
            alphas[f"{module}.alpha"] = float(alpha) * stable
    return alphas


def _alphas_by_module(patterns: Any, prefix: str) -> dict[str, float]:
    """PEFT's ``alpha_pattern`` by kohya's module names; `prefix` is ``unet.``, ``text_encoder.``.

    Raises AdapterError for a key that is not a module's whole path: PEFT reads regular expressions.
    """
    found = {}
    for key, value in (patterns or {}).items() if isinstance(patterns or {}, dict) else ():
        part, path = _part_and_path(prefix + str(key).removeprefix("^"))
        if part is None or not re.fullmatch(r"[\w.]+", path) or not isinstance(value, (int, float)):
            raise AdapterError(
                f"The file sets alpha by the pattern {key!r}: not supported. Save it again with "
                "an alpha for each module, or choose another."
            )
        found[module_name(part, path)] = float(value)
    return found


def _configuration(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        config = json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise AdapterError(
            f"{LORA_ADAPTER_METADATA_KEY} in the file's metadata is not a JSON object. Copy or "
            "download it again."
        )
    return config


# Families by a pattern in any of a file's tensor names; the first match wins.
_LYCORIS = (
    ("LoHa", r"\.hada_w"),
    ("LoKr", r"\.lokr_w"),
    ("GLoRA", r"\.(a1|b1)\.weight$"),
    ("OFT", r"\.oft_(blocks|diag)"),
    ("Tucker LoCon", r"\.lora_mid\.weight$"),
)
LYCORIS_FAMILIES = tuple(family for family, _ in _LYCORIS)
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
)
# Of names that do not tell by the width of the text embeddings.
_OTHER_FAMILIES = (
    ("SDXL {}", r"^(lora_te2_|text_encoder_2\.|text_encoders\.clip_g\.)"),
    ("SDXL {}", r"^lora_unet_(in|out)put_blocks_"),
    ("Stable Diffusion LoRA", r"^diffusion_model\.((in|out)put_blocks|middle_block)\."),
    ("LoRA of a transformer model", r"^(transformer|diffusion_model)\..*lora"),
)
_ADAPTER_KEY = re.compile(r"lora|\.alpha$|dora_scale")
# SD families by the width of the text embeddings that the UNet attends to.
_FAMILY_BY_TEXT_DIM = {768: "SD 1.x LoRA", 1024: "SD 2.x LoRA", 2048: "SDXL LoRA"}
_CROSS_DOWN = re.compile(r"attn2[._](processor\.)?to_[kv].*(down|lora_A)")
_SD_MODULE = re.compile(r"(down|up)_blocks[._]\d|mid_block[._]|layers[._]\d+[._](self_attn|mlp)")


def guess_family(shapes: Shapes) -> str:
    """Guesses the family of a file with these tensors, in words for an error message.

    E.g. ``SD 1.x LoRA``, ``FLUX LoRA``, ``FLUX model``, ``textual inversion``, ``LoHa``, or
    ``unknown kind``. Names may follow any convention.
    """
    kind = "LoRA" if any(_ADAPTER_KEY.search(name) for name in shapes) else "model"
    for family, pattern in _LYCORIS + _FAMILIES:
        if any(re.search(pattern, name) for name in shapes):
            return family.format(kind)
    for name, shape in shapes.items():
        if _CROSS_DOWN.search(name) and len(shape) >= 2:
            return _FAMILY_BY_TEXT_DIM.get(shape[1], f"LoRA for text of width {shape[1]}")
    for family, pattern in _OTHER_FAMILIES:
        if any(re.search(pattern, name) for name in shapes):
            return family.format(kind)
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
    """The first few names and the number of others, for an error message."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(_printable(name[:120]) for name in names[:shown]) + more


def _printable(name: str) -> str:
    """Replaces control characters that a terminal would interpret."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name)

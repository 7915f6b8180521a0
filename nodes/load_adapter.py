"""Likeness_LoadAdapter: puts a trained LoRA or full fine-tune on MODEL and CLIP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..comparison.row_means import adapter_means, newest_comparison
from ..trainers.adapter import (
    SCORES_KEY,
    AdapterInfo,
    clip_skip_of,
    read_metadata,
    trained_prediction,
)
from ..trainers.base_file import PARTS
from ..trainers.digests import cached_digest, content_digest
from ..trainers.errors import AdapterError, BaseModelError, LikenessError
from ..trainers.places import cache_folder
from .adapters import apply_adapter, checkpoint_path, with_clip_skip
from .host import (
    Progress,
    executing_node,
    has_model,
    io,
    model_names,
    model_path,
    output_folder,
    with_v_prediction,
)
from .paths import file_fingerprint, folder_fingerprint
from .rows import BASE, KINDS
from .study import study_folder
from .widgets import with_search_aliases

_MAX_SCORE = 1e9  # larger scores are not shown

BASE_MISMATCH = "trained on another base"
BASE_MISMATCH_WARNING = (
    "Warning: trained on another base model than the one loaded."  # fits on a node
)
_warned: set[str] = set()  # ids of nodes that show the warning


def adapter_names(shown: Sequence[str] = KINDS) -> list[str]:
    """The choices: .safetensors files of LoRAs and checkpoints, and diffusers folders.

    A name of more than one kind is prefixed with its kind: ``checkpoints/anna.safetensors``. Of
    `shown` kinds only.
    """
    kinds: dict[str, list[str]] = {}
    for kind in KINDS:
        for name in model_names(kind):
            if _is_loadable(kind, name):
                kinds.setdefault(name, []).append(kind)
    return sorted(
        name if len(having) == 1 else f"{kind}/{name}"
        for name, having in kinds.items()
        for kind in having
        if kind in shown
    )


def _is_loadable(kind: str, name: str) -> bool:
    return kind == "diffusers" or name.lower().endswith(".safetensors")


def find_adapter(name: str) -> Path:
    """The file or folder of a LoRA, checkpoint or diffusers model.

    `name` may be prefixed with its kind, unless the whole is itself a name. Raises AdapterError.
    """
    kinds = [kind for kind in KINDS if has_model(kind, name)]
    kind, _, rest = name.partition("/")
    if not kinds and kind in KINDS and has_model(kind, rest):
        kinds, name = [kind], rest
    if not kinds:
        raise AdapterError(
            f"There is no LoRA or checkpoint {name!r}: press R in the browser to refresh the list "
            "and choose one, or connect a train node's adapter output."
        )
    if len(kinds) > 1:
        raise AdapterError(
            f"{name!r} is in more than one of ComfyUI's model folders: choose one of "
            f"{', '.join(f'{kind}/{name}' for kind in kinds)}."
        )
    if not _is_loadable(kinds[0], name):
        raise AdapterError(
            f"{name!r} is not a .safetensors file: convert it and choose the converted file."
        )
    return model_path(kinds[0], name)


def find_by_kind(text: str) -> list[Path]:
    """The file of a kind-prefixed name, as in `adapter_names`; [] for any other text."""
    kind, _, name = text.partition("/")
    return [model_path(kind, name)] if kind in KINDS and has_model(kind, name) else []


class LoadAdapter(io.ComfyNode):
    """Puts a LoRA or a full fine-tune on a base model, with separate UNet and CLIP strengths."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        strength = {"default": 1.0, "min": -2.0, "max": 2.0, "step": 0.05}
        schema = io.Schema(
            node_id="Likeness_LoadAdapter",
            display_name="Load Adapter (Likeness)",
            category="Likeness",
            description=(
                "Loads a LoRA or a full fine-tune onto the base model it was trained from. A "
                "fine-tune is blended with the base, so that one workflow serves every variant. A "
                "file that does not fit is an error; it is never applied in part."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The base model."),
                io.Clip.Input("clip", tooltip="The base model's text encoder."),
                io.Combo.Input(
                    "adapter",
                    options=[BASE, *adapter_names()],
                    tooltip="A LoRA, a full checkpoint (.safetensors only) or a diffusers folder; "
                    "or connect a train node's adapter.",
                ),
                io.Float.Input(
                    "strength_model",
                    **strength,
                    tooltip="Strength in the UNet. 0: the base, 1: as trained.",
                ),
                io.Float.Input(
                    "strength_clip",
                    **strength,
                    tooltip="Strength in the text encoder. 0: the base, 1: as trained.",
                ),
            ],
            outputs=[
                io.Model.Output(id="model_out", display_name="model"),
                io.Clip.Output(id="clip_out", display_name="clip"),
                io.String.Output(
                    id="label",
                    display_name="label",
                    tooltip="The adapter's name, its strength, and a summary of its training.",
                ),
                io.String.Output(
                    id="trigger_phrase",
                    display_name="trigger_phrase",
                    tooltip="The words for the subject in prompts, such as sks man, if the file "
                    "records them.",
                ),
            ],
        )
        return with_search_aliases(schema, "lora loader", "load lora", "checkpoint merge")

    @classmethod
    def validate_inputs(cls, adapter: str | None = None) -> bool:
        """Checks that the chosen file exists; a connected name is checked when it arrives.

        Raises AdapterError.
        """
        if adapter is not None and adapter != BASE:
            find_adapter(adapter)
        return True

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None = None, **_: object) -> str:
        """Changes when the file is replaced."""
        try:
            return adapter_fingerprint(find_adapter(adapter)) if adapter else ""
        except LikenessError:
            return ""

    @classmethod
    def execute(
        cls, model: object, clip: object, adapter: str, strength_model: float, strength_clip: float
    ) -> io.NodeOutput:
        """(MODEL, CLIP, label, trigger phrase). Raises AdapterError if the file does not fit."""
        if adapter == BASE:
            show_base_warning(executing_node(), "base")
            return io.NodeOutput(model, clip, "base", "")
        path = find_adapter(str(adapter))
        strengths = (strength_model, strength_clip)
        model, clip = apply_adapter(model, clip, path, strengths)
        skipped = clip_skip_of(path)
        if skipped > 1 and any(strengths):
            clip = with_clip_skip(clip, skipped)
        if any(strengths) and trained_prediction(path) == "v_prediction":
            model = with_v_prediction(model)
        label = adapter_label(path, *strengths, checkpoint_path(model))
        show_base_warning(executing_node(), label)
        return io.NodeOutput(model, clip, label, trigger_phrase_of(path))


def show_base_warning(node_id: str, label: str) -> None:
    """Shows a warning on a node whose adapter has another base; replaces an old one by the label.

    In a comparison, copies of the node run, which the browser does not know: there Contact Sheet
    shows the warning.
    """
    if label.endswith(BASE_MISMATCH):
        _warned.add(node_id)
        Progress(node_id).set_status(BASE_MISMATCH_WARNING)
    elif node_id in _warned:
        _warned.remove(node_id)
        Progress(node_id).set_status(label)


def trigger_phrase_of(path: Path) -> str:
    """The words for the subject that a file records; "" for a folder."""
    return "" if path.is_dir() else read_metadata(path).trigger_phrase


def adapter_fingerprint(path: Path) -> str:
    """Changes when the file or a part of the diffusers folder is replaced."""
    if path.is_dir():
        return repr([folder_fingerprint(path / part) for part in PARTS])
    return file_fingerprint(path)


def adapter_label(path: Path, on_model: float, on_clip: float, base: Path | None = None) -> str:
    """The name, its strengths unless they are 1, and a summary of its training.

    `base` is the checkpoint it is applied to; the label says so if it was trained on another.
    """
    name = path.name if path.is_dir() else path.stem
    if not on_model == on_clip == 1:
        same = on_model == on_clip
        name += f" ({on_model:g})" if same else f" ({on_model:g}, {on_clip:g})"
    info = None if path.is_dir() else read_metadata(path)
    summary = [] if info is None else training_summary(info)
    if info is not None and summary:
        # A comparison has already computed this adapter's digest.
        if SCORES_KEY not in info.metadata:
            means = _mean_scores(cached_digest(path, cache_folder(output_folder())))
            summary += [f"{name} {value:.2f}" for name, value in means.items()]
        summary += [BASE_MISMATCH] if info.base and _digest(base) not in (None, info.base) else []
    return f"{name}: {', '.join(summary)}" if summary else name


def _digest(base: Path | None) -> str | None:
    """A checkpoint's digest; takes seconds the first time a checkpoint is read."""
    try:
        return content_digest(base, cache_folder(output_folder())) if base else None
    except BaseModelError:
        return None


def _mean_scores(digest: str | None) -> dict[str, float]:
    """The adapter's mean scores in the newest comparison with it; {} without one."""
    if digest is None:
        return {}
    try:
        folder = newest_comparison(study_folder(output_folder(), ""), digest)
        return adapter_means(folder, digest) if folder else {}
    except (LikenessError, OSError):
        return {}  # damaged, of another version, or deleted meanwhile


def training_summary(info: AdapterInfo) -> list[str]:
    """Kind, rank, steps, clip skip, loss and scores of a file trained by Likeness; else []."""
    if "likeness.version" not in info.metadata:
        return []
    kinds = {"lora": f"LoRA of rank {info.rank}", "dora": f"DoRA of rank {info.rank}"}
    summary = [kinds.get(info.kind, "full fine-tune")]
    summary += [f"{info.steps} steps"] if info.steps is not None else []
    summary += [f"clip skip {info.clip_skip}"] if info.clip_skip > 1 else []
    summary += [f"loss {info.loss:.3g}"] if info.loss is not None else []
    return summary + [f"{name} {value:.2f}" for name, value in parse_scores(info.metadata).items()]


def parse_scores(metadata: Mapping[str, str]) -> dict[str, float]:
    """The numbers in ``likeness.scores``, a JSON object, by name; {} if it is damaged."""
    try:
        scores = json.loads(metadata.get(SCORES_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    known = scores.items() if isinstance(scores, dict) else ()
    return {
        name[:40]: value
        for name, value in known
        if isinstance(value, int | float) and abs(value) < _MAX_SCORE
    }

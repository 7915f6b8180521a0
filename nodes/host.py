"""The nodes' interface to ComfyUI; only this file and `miniature_model.py` import its modules."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import comfy
import comfy.lora
import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args
from comfy_api.v0_0_2 import ComfyExtension, io
from comfy_execution.graph import get_input_info
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from comfy_execution.progress import NodeState, get_progress_state
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

import nodes

from ..trainers.errors import LikenessError

__all__ = ["ADVANCED", "ComfyExtension", "io"]

# For an input's extra_dict: ComfyUI 0.8.0 lacks the argument `advanced`, but its frontend reads it.
ADVANCED = {"advanced": True}

PREVIEW_PIXELS = 512
DIFFUSERS_INDEX = "model_index.json"  # marks a diffusers model folder


# Folders and files


def input_folder() -> Path:
    """Where users put photographs."""
    return Path(folder_paths.get_input_directory())


def output_folder() -> Path:
    """Where results go; its `loras` and `checkpoints` are on ComfyUI's model paths."""
    return Path(folder_paths.get_output_directory())


def temp_folder() -> Path:
    """Where images that are only for display go; ComfyUI empties it at start-up."""
    return Path(folder_paths.get_temp_directory())


def tokenizer_folder() -> Path:
    """ComfyUI's own CLIP vocabulary."""
    return Path(comfy.__path__[0]) / "sd1_tokenizer"


def model_names(kind: str) -> list[str]:
    """Models that ComfyUI lists; `kind` is "checkpoints", "loras", …, or "diffusers" (folders)."""
    if kind == "diffusers":
        return sorted(set(_diffusers_names()))
    return list(folder_paths.get_filename_list(kind))


def has_model(kind: str, name: str) -> bool:
    """Whether ComfyUI lists a model of this kind and name."""
    if kind == "diffusers":
        return _diffusers_folder(name) is not None
    return name in model_names(kind)


def model_files(kind: str) -> list[Path]:
    """The files of a kind, without the broken links that ComfyUI also lists."""
    paths = (folder_paths.get_full_path(kind, name) for name in model_names(kind))
    return [Path(path) for path in paths if path is not None]


def model_path(kind: str, name: str) -> Path:
    """The file of a name that ComfyUI lists. Raises LikenessError for any other name."""
    path = None
    if kind == "diffusers":
        path = _diffusers_folder(name)
    elif has_model(kind, name):
        path = folder_paths.get_full_path(kind, name)
    if path is not None:
        return Path(path)
    raise LikenessError(
        f"{name!r} is not among ComfyUI's {kind}. Put the file into models/{kind}, "
        "press R in the browser to refresh the list, and choose it again."
    )


def _diffusers_names() -> Iterator[str]:
    """Model folders, named as in core's Diffusers loader."""
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        for place, _, files in os.walk(root, followlinks=True):
            if DIFFUSERS_INDEX in files:
                yield str(Path(place).relative_to(root))


def _diffusers_folder(name: str) -> Path | None:
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        path = root / name
        below = path.is_relative_to(root) and ".." not in path.parts
        if below and os.path.isfile(path / DIFFUSERS_INDEX):  # False for overlong names
            return path
    return None


def _input_files(name: str) -> list[Path]:
    """The files of a folder below the input folder; [] if there is no such folder."""
    root = input_folder()
    path = Path(os.path.normpath(root / name))
    if path == root or not path.is_relative_to(root) or not os.path.isdir(path):
        return []
    return sorted(Path(entry.path) for entry in os.scandir(path) if entry.is_file())


def add_model_folder(kind: str, folder: Path) -> None:
    """Adds a folder to ComfyUI's model folders of a kind, after the user's own."""
    folder_paths.add_model_folder_path(kind, str(folder))


# Running


def unload_models() -> None:
    """Frees the GPU memory of ComfyUI's loaded models for another process.

    Also with ``--highvram`` and ``--gpu-only``, by offloading to the CPU meanwhile.
    """
    loaded = [one.model for one in comfy.model_management.current_loaded_models]
    offload_devices = [
        (patcher, patcher.offload_device) for patcher in loaded if patcher is not None
    ]
    for patcher, _ in offload_devices:
        patcher.offload_device = torch.device("cpu")
    comfy.model_management.unload_all_models()
    for patcher, device in offload_devices:
        patcher.offload_device = device
    comfy.model_management.soft_empty_cache()


def unload_patched_models() -> None:
    """Unloads the models that have a LoRA or another patch, and leaves the others loaded.

    ComfyUI does so only while loading a model's next clone, when the freed blocks often do not fit
    the new weights.
    """
    loaded = comfy.model_management.current_loaded_models
    keep = [one for one in loaded if one.model is None or not one.model.patches]
    comfy.model_management.free_memory(1e30, comfy.model_management.get_torch_device(), keep)


def interrupted() -> bool:
    """Raises ComfyUI's interrupt exception, once, if the user cancelled; else returns False."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    return False


def training_device() -> str:
    """ "cpu" if ComfyUI runs in CPU mode, else "auto"."""
    return "cpu" if comfy.model_management.cpu_mode() else "auto"


def send_event(event: str, data: dict[str, Any]) -> None:
    """Sends to all open tabs, or with `workflow` "" to the client that queued; thread-safe."""
    to = None if data.get("workflow") != "" else _client_id()
    PromptServer.instance.send_sync(event, data, to)


def _client_id() -> str:
    """The client that queued the prompt, whose graph the node ids belong to; "" for none."""
    return PromptServer.instance.client_id or ""


def add_prompt_handler(to: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Has ComfyUI call `to` with each posted prompt before validating it, in the same task."""
    PromptServer.instance.add_on_prompt_handler(to)


def server_routes() -> Any:
    """The aiohttp route table of ComfyUI's server."""
    return PromptServer.instance.routes


def encoder_device(size: int) -> str:
    """ComfyUI's device, after freeing memory on it for an encoder of `size` bytes."""
    device = comfy.model_management.get_torch_device()
    if device.type != "cpu":
        beside = comfy.model_management.minimum_inference_memory()
        comfy.model_management.free_memory(size + beside, device)
    return str(device)


def executing_node() -> str:
    """The id of the running node; "" for none. A hidden input for it would defeat caching."""
    return getattr(get_executing_context(), "node_id", "")


def executing_prompt() -> str:
    """The id of the running prompt, by which it alone can be interrupted; "" for none."""
    return getattr(get_executing_context(), "prompt_id", "")


class Progress:
    """A node's progress bar, status line and preview image."""

    def __init__(self, node_id: str | None) -> None:
        self._node_id = node_id
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)

    def show(self, done: int, total: int, image: Path | Image.Image | None = None) -> None:
        """Shows `done` of `total`, and `image` as the node's preview."""
        # RGB, because JPEG has no alpha channel: ComfyUI's sender task would fail.
        preview = None
        with suppress(OSError):  # an unreadable preview must not stop a training
            shown = Image.open(image) if isinstance(image, Path) else image
            preview = shown and ("JPEG", shown.convert("RGB"), PREVIEW_PIXELS)
        self._bar.update_absolute(done, max(total, 1), preview)

    def set_status(self, text: str) -> None:
        """Shows a line of text on the node, in the client that queued the prompt."""
        if self._node_id is not None:
            PromptServer.instance.send_progress_text(text, self._node_id, sid=_client_id())


# Models


def read_tensors(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file by name, memory-mapped where possible."""
    return dict(comfy.utils.load_torch_file(str(path), safe_load=True))


def model_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a MODEL's weights by ComfyUI's names (``diffusion_model.…``)."""
    return {name: tuple(t.shape) for name, t in model.model.state_dict().items()}


def clip_shapes(clip: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a CLIP's weights by ComfyUI's names (``clip_l.transformer.…``)."""
    return {name: tuple(t.shape) for name, t in clip.cond_stage_model.state_dict().items()}


def text_encoder_tensors(model: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's text encoder under the names of `clip_shapes`."""
    return dict(model.model.model_config.process_clip_state_dict(dict(tensors)))


def lora_modules(model: Any, clip: Any) -> dict[str, Any]:
    """LoRA module names that this model accepts, and the weight each patches."""
    modules = comfy.lora.model_lora_keys_unet(model.model, {})
    return dict(comfy.lora.model_lora_keys_clip(clip.cond_stage_model, modules))


def lora_patches(tensors: dict[str, Any], modules: dict[str, Any]) -> dict[Any, Any]:
    """ComfyUI's patches of a LoRA's tensors, by the weight they patch."""
    return dict(comfy.lora.load_lora(tensors, modules, log_missing=False))


def with_patches(target: Any, patches: dict[Any, Any], strength: float, keep: float = 1.0) -> Any:
    """A clone of a MODEL or CLIP whose weights become keep * weight + strength * patch."""
    clone = target.clone()
    clone.add_patches(patches, strength, keep)
    return clone


def with_v_prediction(model: Any) -> Any:
    """A clone of a MODEL sampled with v-prediction; the MODEL itself if it already is."""
    if isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.V_PREDICTION):
        return model
    clone, base = model.clone(), comfy.model_base
    sampling = base.model_sampling(model.model.model_config, base.ModelType.V_PREDICTION)
    clone.add_object_patch("model_sampling", sampling)
    return clone


# Graphs


def graph_builder(prefix: str) -> Any:
    """A builder of the nodes of an expansion, whose ids begin with `prefix`."""
    return GraphBuilder(prefix)


def is_eager_input(kind: str, name: str) -> bool:
    """Whether nodes of class `kind` always evaluate an input: false for lazy ones."""
    _, _, options = get_input_info(nodes.NODE_CLASS_MAPPINGS[kind], name)
    return not (options and (options.get("lazy") or options.get("rawLink")))


def is_caching_enabled() -> bool:
    """Whether ComfyUI caches a node's results for nodes that are added later."""
    return not args.cache_none


def execution_blocker() -> Any:
    """An output that keeps downstream nodes from running, without an error."""
    return ExecutionBlocker(None)


def clear_progress(node_id: str) -> None:
    """Drops the progress state of finished nodes that `node_id` expanded to.

    ComfyUI sends the state of every node with each progress message: thousands of nodes would slow
    it to a crawl.
    """
    known = get_progress_state().nodes
    for key in [key for key in known if key.startswith(f"{node_id}.")]:
        if known[key]["state"] == NodeState.Finished:
            del known[key]


def is_metadata_enabled() -> bool:
    """Whether images may contain the workflow; off with ``--disable-metadata``."""
    return not args.disable_metadata


def models_folder() -> Path:
    """Where ComfyUI's model folders are."""
    return Path(folder_paths.models_dir)


def find_files(text: str) -> list[Path]:
    """The files that a widget's text names: models, input files, folders or absolute paths."""
    # Two leading separators: Windows would log in to the host of a UNC path.
    if not re.fullmatch(r"(?![\\/]{2})[^\n\0]{1,250}", text):
        return []
    if folder := _diffusers_folder(text):
        return [folder]
    if files := _input_files(text):
        return files
    if not re.fullmatch(r".+\.\w{1,12}( \[\w+\])?", text):
        return []
    if os.path.isabs(text) or os.path.splitdrive(text)[0]:
        return [Path(text)] if os.path.isfile(text) else []
    kinds = folder_paths.folder_names_and_paths
    models = (folder_paths.get_full_path(kind, text) for kind in kinds if kind != "custom_nodes")
    found = {Path(path) for path in models if path is not None}
    if folder_paths.exists_annotated_filepath(text):
        found.add(Path(folder_paths.get_annotated_filepath(text)))
    return sorted(path for path in found if path.is_file())

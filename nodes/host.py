"""All that the nodes ask of ComfyUI; beside it only `miniature_model.py` imports its modules."""

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

# For an input's extra_dict: ComfyUI 0.8.0 has no argument `advanced`, its frontend knows it.
ADVANCED = {"advanced": True}

PREVIEW_PIXELS = 512
DIFFUSERS_INDEX = "model_index.json"  # marks a model folder of diffusers


# Folders and files


def input_folder() -> Path:
    """Where users put photographs."""
    return Path(folder_paths.get_input_directory())


def output_folder() -> Path:
    """Where results go; its `loras` and `checkpoints` are on ComfyUI's model paths."""
    return Path(folder_paths.get_output_directory())


def temp_folder() -> Path:
    """Where pictures that are only looked at go; ComfyUI empties it when it starts."""
    return Path(folder_paths.get_temp_directory())


def tokenizer_folder() -> Path:
    """ComfyUI's own CLIP vocabulary."""
    return Path(comfy.__path__[0]) / "sd1_tokenizer"


def model_names(kind: str) -> list[str]:
    """Files that ComfyUI lists; `kind` is "checkpoints", "loras" or "diffusers" (folders)."""
    if kind == "diffusers":
        return sorted(set(_diffusers_names()))
    return list(folder_paths.get_filename_list(kind))


def has_model(kind: str, name: str) -> bool:
    """Whether ComfyUI lists a model of this kind and name."""
    if kind == "diffusers":
        return _diffusers_folder(name) is not None
    return name in model_names(kind)


def model_files(kind: str) -> list[Path]:
    """The files of a kind. ComfyUI lists links that lead nowhere, too: they are left out."""
    paths = (folder_paths.get_full_path(kind, name) for name in model_names(kind))
    return [Path(path) for path in paths if path is not None]


def model_path(kind: str, name: str) -> Path:
    """The file of a name that ComfyUI lists: no other name is followed. Raises LikenessError."""
    path = None
    if kind == "diffusers":
        path = _diffusers_folder(name)
    elif has_model(kind, name):
        path = folder_paths.get_full_path(kind, name)
    if path is not None:
        return Path(path)
    raise LikenessError(
        f"{name!r} is not among ComfyUI's {kind}. Put the file into models/{kind}, "
        "press R in the browser to list it, and choose it again."
    )


def _diffusers_names() -> Iterator[str]:
    """Model folders as core's loader of them lists them."""
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        for place, _, files in os.walk(root, followlinks=True):
            if DIFFUSERS_INDEX in files:
                yield str(Path(place).relative_to(root))


def _diffusers_folder(name: str) -> Path | None:
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        path = root / name
        below = path.is_relative_to(root) and ".." not in path.parts
        if below and os.path.isfile(path / DIFFUSERS_INDEX):  # False for names that are too long
            return path
    return None


def _input_files(name: str) -> list[Path]:
    """The files of a folder below the input folder, [] where there is none of that name."""
    root = input_folder()
    path = Path(os.path.normpath(root / name))
    if path == root or not path.is_relative_to(root) or not os.path.isdir(path):
        return []
    return sorted(Path(entry.path) for entry in os.scandir(path) if entry.is_file())


def add_model_folder(kind: str, folder: Path) -> None:
    """Lists the files of a folder among ComfyUI's models of a kind, after the user's own."""
    folder_paths.add_model_folder_path(kind, str(folder))


# Running


def unload_models() -> None:
    """Gives the memory of ComfyUI's loaded models back, before another process needs it.

    With ``--highvram`` and ``--gpu-only``, too, where their place to rest is the GPU.
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
    """Unloads the models that a LoRA or another patch is on, and leaves the others where they are.

    ComfyUI itself does so only when a model's next clone is loaded, a weight's old memory then too
    often being no place for the new one.
    """
    loaded = comfy.model_management.current_loaded_models
    keep = [one for one in loaded if one.model is None or not one.model.patches]
    comfy.model_management.free_memory(1e30, comfy.model_management.get_torch_device(), keep)


def interrupted() -> bool:
    """Raises ComfyUI's own exception if the user cancelled, which also clears the request."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    return False


def training_device() -> str:
    """ "cpu" where ComfyUI was told to leave the GPU alone, else "auto"."""
    return "cpu" if comfy.model_management.cpu_mode() else "auto"


def send_event(event: str, data: dict[str, Any]) -> None:
    """Tells every open tab, with the `workflow` "" only who queued it; safe from any thread."""
    to = None if data.get("workflow") != "" else _client_id()
    PromptServer.instance.send_sync(event, data, to)


def _client_id() -> str:
    """The tab or program that queued the prompt, in whose graph a node has its number; "": none."""
    return PromptServer.instance.client_id or ""


def add_prompt_handler(to: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Has ComfyUI call `to` with each POST of a prompt before it checks that, in the same task."""
    PromptServer.instance.add_on_prompt_handler(to)


def server_routes() -> Any:
    """aiohttp's table of the routes that ComfyUI's server answers."""
    return PromptServer.instance.routes


def encoder_device(size: int) -> str:
    """Where ComfyUI computes, after room was made there for an encoder of `size` bytes."""
    device = comfy.model_management.get_torch_device()
    if device.type != "cpu":
        beside = comfy.model_management.minimum_inference_memory()
        comfy.model_management.free_memory(size + beside, device)
    return str(device)


def executing_node() -> str:
    """The id of the node that runs. One that asks for it as an input shares no cached results."""
    return getattr(get_executing_context(), "node_id", "")


def executing_prompt() -> str:
    """The id of the prompt that runs, by which ComfyUI interrupts it and no other."""
    return getattr(get_executing_context(), "prompt_id", "")


class Progress:
    """A node's progress bar, the line of text on it, and its preview picture."""

    def __init__(self, node_id: str | None) -> None:
        self._node_id = node_id
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)

    def show(self, done: int, total: int, picture: Path | Image.Image | None = None) -> None:
        """`done` of `total`; `picture` is shown in the node."""
        # Without an alpha channel, which JPEG has not: ComfyUI's sender would die of it.
        preview = None
        with suppress(OSError):  # a training goes on without a file that cannot be read
            shown = Image.open(picture) if isinstance(picture, Path) else picture
            preview = shown and ("JPEG", shown.convert("RGB"), PREVIEW_PIXELS)
        self._bar.update_absolute(done, max(total, 1), preview)

    def set_status(self, text: str) -> None:
        """Puts a line of text on the node, where its prompt was queued."""
        if self._node_id is not None:
            PromptServer.instance.send_progress_text(text, self._node_id, sid=_client_id())


# Models


def read_tensors(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file by name, without a copy where the system can map it."""
    return dict(comfy.utils.load_torch_file(str(path), safe_load=True))


def model_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a MODEL's weights by ComfyUI's names (``diffusion_model.…``); no values."""
    return {name: tuple(t.shape) for name, t in model.model.state_dict().items()}


def clip_shapes(clip: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a CLIP's weights by ComfyUI's names (``clip_l.transformer.…``)."""
    return {name: tuple(t.shape) for name, t in clip.cond_stage_model.state_dict().items()}


def text_encoder_tensors(model: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's text encoder under the names of `clip_shapes`."""
    return dict(model.model.model_config.process_clip_state_dict(dict(tensors)))


def lora_modules(model: Any, clip: Any) -> dict[str, Any]:
    """LoRA module names that this model knows, and the weight each patches."""
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
    """A MODEL that is sampled as one that predicts v: a copy, unless it is so already."""
    if isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.V_PREDICTION):
        return model
    clone, base = model.clone(), comfy.model_base
    sampling = base.model_sampling(model.model.model_config, base.ModelType.V_PREDICTION)
    clone.add_object_patch("model_sampling", sampling)
    return clone


# Graphs


def graph_builder(prefix: str | None = None) -> Any:
    """Collects the nodes of an expansion; `prefix` begins their ids, by default ComfyUI's own."""
    return GraphBuilder(prefix)


def is_eager_input(kind: str, name: str) -> bool:
    """Whether a kind of node needs an input's value every time: not if it is lazy."""
    _, _, options = get_input_info(nodes.NODE_CLASS_MAPPINGS[kind], name)
    return not (options and (options.get("lazy") or options.get("rawLink")))


def is_caching_enabled() -> bool:
    """Whether ComfyUI keeps a node's results for another that is added later."""
    return not args.cache_none


def execution_blocker() -> Any:
    """An output that keeps the nodes behind it from running, without an error."""
    return ExecutionBlocker(None)


def clear_progress(node_id: str) -> None:
    """Lets go of the progress of finished nodes that `node_id` has expanded to.

    ComfyUI sends the progress of every node of the prompt with each message: with a thousand of
    them it would do little else.
    """
    known = get_progress_state().nodes
    for key in [key for key in known if key.startswith(f"{node_id}.")]:
        if known[key]["state"] == NodeState.Finished:
            del known[key]


def is_metadata_enabled() -> bool:
    """Whether pictures may carry the workflow; ComfyUI can be told that they may not."""
    return not args.disable_metadata


def models_folder() -> Path:
    """Where ComfyUI's model folders are."""
    return Path(folder_paths.models_dir)


def find_files(text: str) -> list[Path]:
    """The files that a widget's text names: of models, of folders, of the input, by whole paths."""
    # Two separators: Windows would log in to the computer that they name.
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

"""ComfyUI is told of the miniature once, where it is installed, over stand-ins for its modules."""

from __future__ import annotations

import asyncio
import importlib
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from likeness.cli import build_parser
from likeness.demo import weights
from likeness.demo.miniature import CONTEXT, UNET
from likeness.demo.tokenizer import vocabulary, write_tokenizer
from likeness.trainers.errors import BaseModelError

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))

EMBEDDING = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"
LAYER = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"


def core() -> dict[str, ModuleType]:
    """Stand-ins for the modules that hold ComfyUI's classes of models."""

    sizes = {"context_dim": 768, "model_channels": 320, "use_temporal_attention": False}
    family = type("SD15", (), {"unet_config": sizes, "get_model": lambda self, state: state})

    class ClipTarget:
        def __init__(self, tokenizer, clip):
            self.tokenizer, self.clip = tokenizer, clip

    class Decoder(torch.nn.Module):
        """Colours (0 to 1) that are linear in the latents."""

        def __init__(self, latent_channels):
            super().__init__()
            self.colours = torch.nn.Parameter(torch.zeros(latent_channels, 3))

        def forward(self, latents):
            return torch.einsum("nchw,cr->nrhw", latents, self.colours) + 0.75

    def kinds(*names):
        return {name: type(name, (), {}) for name in names}

    texts = ("SDTokenizer", "SD1Tokenizer", "SD1ClipModel", "SDClipModel")
    contents = {
        "latent_formats": {"SD15": type("SD15", (), {"latent_channels": 4})},
        "taesd": {},
        "taesd.taesd": {"Decoder": Decoder},
        "supported_models": {"SD15": family, "models": [family]},
        "supported_models_base": {"ClipTarget": ClipTarget},
        "sd1_clip": kinds(*texts),
        "clip_model": kinds("CLIPEmbeddings", "CLIPTextModel"),
    }
    modules = {f"comfy.{name}": ModuleType(f"comfy.{name}") for name in contents}
    for name, content in contents.items():
        modules[f"comfy.{name}"].__dict__.update(content)
    return modules


@pytest.fixture
def pack(monkeypatch, tmp_path):
    """The pack in a ComfyUI of stand-ins, with its lists of models; weights in a folder of ours."""
    folders: dict[str, list[str]] = {}
    listed = {"add_model_folder_path": lambda kind, path: folders.setdefault(kind, []).append(path)}
    STUB["install"](listed)
    for name, module in core().items():
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, leaf = name.rpartition(".")
        monkeypatch.setattr(sys.modules[parent], leaf, module, raising=False)
    monkeypatch.delitem(sys.modules, "likeness.nodes.miniature_model", raising=False)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    for function in (weights.available, weights.find):  # their default is the repository's
        monkeypatch.setattr(function, "__defaults__", (tmp_path,))
    miniature = importlib.import_module("likeness.nodes.miniature")
    known = sys.modules["comfy.supported_models"].models
    return SimpleNamespace(miniature=miniature, folders=folders, known=known)


@pytest.fixture(params=["no folder", "an empty folder"])
def without_demo(monkeypatch, request):
    """As if the room were not there; outputs may have been left in its folder."""
    monkeypatch.delattr(sys.modules["likeness"], "demo")
    for name in [name for name in sys.modules if name.startswith("likeness.demo.")]:
        monkeypatch.delitem(sys.modules, name)
    empty = ModuleType("likeness.demo")
    empty.__path__ = []
    monkeypatch.setitem(sys.modules, "likeness.demo", empty if "empty" in request.param else None)


@pytest.fixture
def installed(pack, tmp_path):
    """The same with the miniature's files in place."""
    write_tokenizer(tmp_path / weights.TOKENIZER)
    for name in (weights.CHECKPOINT, weights.CONTROLNET):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"weights")
    weights.write_digests(tmp_path)
    return pack


def test_the_family_is_known_once_however_often_it_is_registered(installed):
    installed.miniature.register()
    installed.miniature.register()
    assert [family.__name__ for family in installed.known] == ["SD15", "Miniature"]


def test_comfyui_0_8_0_which_asks_for_the_nodes_alone_gets_the_miniature_too(
    installed, monkeypatch
):
    package = importlib.import_module("likeness")
    monkeypatch.setattr(importlib.import_module("likeness.nodes.routes"), "register", lambda: None)
    asyncio.run(package.comfy_entrypoint())
    assert installed.known[-1].__name__ == "Miniature"


def test_the_family_is_told_by_the_miniatures_widths(installed):
    installed.miniature.register()
    sizes = installed.known[-1].unet_config
    assert sizes["model_channels"] == UNET["block_out_channels"][0]
    assert sizes["context_dim"] == UNET["cross_attention_dim"] == CONTEXT
    assert sizes.keys() == installed.known[0].unet_config.keys()


def test_checkpoint_and_controlnet_are_listed_and_judges_are_not(installed, tmp_path):
    installed.miniature.register()
    assert installed.folders == {
        "checkpoints": [str(tmp_path / "checkpoints")],
        "controlnet": [str(tmp_path / "controlnet")],
    }
    for judge in (weights.JUDGE, weights.SECOND_JUDGE):
        assert (tmp_path / judge).parent == tmp_path


def test_a_damaged_file_is_named_and_not_listed(installed, tmp_path, caplog):
    (tmp_path / weights.CONTROLNET).write_bytes(b"weightz")
    installed.miniature.register()
    assert "zz-miniature-openpose.safetensors is damaged" in caplog.text
    assert weights.digest(tmp_path / weights.CHECKPOINT) in caplog.text  # what it should be
    assert [*installed.folders] == ["checkpoints"]


def test_the_text_encoder_has_the_sizes_of_the_file(installed):
    installed.miniature.register()
    entries = len(vocabulary()[0])
    target = installed.known[-1]().clip_target(checkpoint(entries))
    (config,) = target.clip.keywords["clip_model"].args
    assert (config["vocab_size"], config["hidden_size"]) == (entries, CONTEXT)
    assert (config["bos_token_id"], config["eos_token_id"]) == (entries - 2, entries - 1)
    tokenizer = target.tokenizer.keywords["tokenizer"].keywords
    assert tokenizer["tokenizer_path"] == str(weights.FOLDER / weights.TOKENIZER)


def test_a_checkpoint_of_another_vocabulary_is_refused(installed):
    installed.miniature.register()
    with pytest.raises(BaseModelError, match="another version of the miniature"):
        installed.known[-1]().clip_target(checkpoint(900))


def checkpoint(entries):
    """Tensors of a text encoder, as far as their shapes tell its sizes."""
    shapes = {EMBEDDING: (entries, CONTEXT), POSITIONS: (77, CONTEXT), LAYER: (512, CONTEXT)}
    return {name: SimpleNamespace(shape=shape) for name, shape in shapes.items()}


def test_previews_have_the_colours_of_the_checkpoints_vae(installed):
    installed.miniature.register()
    family = installed.known[-1]()
    family.latent_format = type(family).latent_format()  # as ComfyUI's own class does
    colours = torch.arange(12.0).reshape(4, 3) / 100
    family.get_model({"first_stage_model.taesd_decoder.colours": colours})
    previews = family.latent_format
    assert torch.allclose(torch.tensor(previews.latent_rgb_factors), 2 * colours, atol=1e-6)
    assert torch.allclose(torch.tensor(previews.latent_rgb_factors_bias), torch.tensor(0.5))


def test_a_model_without_a_vae_has_no_previews(installed):
    installed.miniature.register()
    family = installed.known[-1]()
    family.latent_format = type(family).latent_format()
    family.get_model({})
    assert family.latent_format.latent_rgb_factors is None


def test_trainings_get_the_tokenizer(installed):
    assert installed.miniature.tokenizers() == (weights.FOLDER / weights.TOKENIZER,)


def nothing_is_registered(pack):
    pack.miniature.register()
    return not pack.folders and len(pack.known) == 1 and pack.miniature.tokenizers() == ()


def test_without_weights_nothing_is_registered(pack):
    assert nothing_is_registered(pack)


def test_without_demo_nothing_is_registered(installed, without_demo):
    assert nothing_is_registered(installed)


def test_a_comfyui_that_will_not_have_it_still_gets_the_nodes(installed, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "comfy.supported_models", None)
    monkeypatch.delattr(sys.modules["comfy"], "supported_models")
    installed.miniature.register()
    assert "cannot read the miniature" in caplog.text and "Traceback" in caplog.text
    assert not installed.folders


def test_the_terminal_works_without_demo(without_demo):
    help_text = build_parser().format_help()
    assert "train" in help_text and "without downloads" not in help_text


def test_the_terminal_has_demo_where_it_is():
    assert "without downloads" in build_parser().format_help()

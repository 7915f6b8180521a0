"""Load Adapter's own logic, over stand-ins for ComfyUI's modules."""

from __future__ import annotations

import importlib
import json
import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from likeness.comparison.estimates import Estimate
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text
from likeness.comparison.scores import Measure, Scores
from likeness.trainers import lora
from likeness.trainers.adapter_metadata import build_metadata
from likeness.trainers.adapter_names import module_name
from likeness.trainers.digests import content_digest
from likeness.trainers.errors import AdapterError, LikenessError
from likeness.trainers.metadata_filter import strip_prompts
from likeness.trainers.places import cache_folder
from likeness.trainers.recipe import DreamBooth, LoRA, Recipe
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
MODELS = runpy.run_path(str(ROOT / "tests" / "models.py"))
DORA = LoRA(targets="all", dora=True, alpha=2)
MODULE = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture
def nodes(tmp_path):
    """Modules by name; `loras`, `checkpoints` and `diffusers` lie in the test's folder."""
    for kind in ("loras", "checkpoints", "diffusers"):
        (tmp_path / kind).mkdir()
    STUB["install"](
        {
            "get_filename_list": lambda kind: [path.name for path in (tmp_path / kind).iterdir()],
            "get_full_path": lambda kind, name: str(tmp_path / kind / name),
            "get_folder_paths": lambda kind: [str(tmp_path / kind)],
            "folder_names_and_paths": {"loras": None},
            "exists_annotated_filepath": lambda name: False,
        }
    )
    names = ("adapters", "host", "load_adapter")
    yield SimpleNamespace(**{n: importlib.import_module(f"likeness.nodes.{n}") for n in names})
    STUB["install"]()


def model_folder(path):
    """A diffusers folder as far as its names go."""
    for part in ("unet", "text_encoder"):
        (path / part).mkdir(parents=True)
        (path / part / "config.json").write_text("{}")
    (path / "model_index.json").write_text("{}")
    return path


# Finding


def test_diffusers_folders_are_listed_and_found_beside_files(nodes, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "loras" / "a.safetensors")
    folder = model_folder(tmp_path / "diffusers" / "people" / "anna")
    (tmp_path / "diffusers" / "other").mkdir()
    name = str(Path("people", "anna"))
    assert nodes.load_adapter.adapter_names() == ["a.safetensors", name]
    assert nodes.load_adapter.find_adapter(name) == folder
    assert nodes.host.find_files(name) == [folder]


@pytest.mark.parametrize("name", ["other", "../loras", "people/../people/anna", "", "/etc", "x\0"])
def test_no_other_folder_is_followed(nodes, tmp_path, name):
    model_folder(tmp_path / "diffusers" / "people" / "anna")
    assert nodes.host.find_files(name) == []
    with pytest.raises(LikenessError):
        nodes.host.model_path("diffusers", name)
    with pytest.raises(AdapterError, match="There is no LoRA or checkpoint"):
        nodes.load_adapter.find_adapter(name)


def test_files_by_their_whole_path_and_texts_that_are_too_long_for_names(nodes, tmp_path):
    image = tmp_path / "pose.png"
    image.write_bytes(b"1")
    assert nodes.host.find_files(str(image)) == [image]
    assert nodes.host.find_files(str(tmp_path / "none.png")) == []
    assert nodes.host.find_files("é" * 130) == nodes.host.find_files("戴墨镜" * 30) == []


@pytest.mark.parametrize("text", ["//host/share/pose.png", r"\\host\share\pose.png"])
def test_a_text_that_names_a_computer_of_the_network_was_looked_for(nodes, monkeypatch, text):
    """Windows logs in there, with the user's name and a hash of the password."""
    monkeypatch.setattr(nodes.host.os.path, "isfile", lambda path: pytest.fail(f"asked: {path}"))
    assert nodes.host.find_files(text) == []


def test_a_preview_that_cannot_be_read_ended_the_training(nodes, tmp_path, monkeypatch):
    shown, bar = [], SimpleNamespace(update_absolute=lambda *values: shown.append(values))
    monkeypatch.setattr(nodes.host.comfy.utils, "ProgressBar", lambda *_, **__: bar, raising=False)
    (tmp_path / "preview.png").write_bytes(b"\x89PNG cut")
    nodes.host.Progress("5").show(3, 10, tmp_path / "preview.png")
    nodes.host.Progress("5").show(4, 10, tmp_path / "gone.png")
    assert shown == [(3, 10, None), (4, 10, None)]


def test_two_files_of_one_name_could_not_be_chosen_at_all(nodes, tmp_path):
    for kind in ("loras", "checkpoints"):
        save_file({"a": torch.zeros(1)}, tmp_path / kind / "a.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "loras" / "b.safetensors")
    find = nodes.load_adapter.find_adapter
    assert nodes.load_adapter.adapter_names() == [
        *("b.safetensors", "checkpoints/a.safetensors", "loras/a.safetensors")
    ]
    for kind in ("loras", "checkpoints"):
        path = tmp_path / kind / "a.safetensors"
        assert find(f"{kind}/a.safetensors") == path
        assert nodes.load_adapter.find_by_kind(f"{kind}/a.safetensors") == [path]
    assert find("b.safetensors") == find("loras/b.safetensors"), "saved graphs have bare names"
    with pytest.raises(
        AdapterError, match=r"choose one of loras/a\.safetensors, checkpoints/a\.saf"
    ):
        find("a.safetensors")
    with pytest.raises(AdapterError, match=r"no LoRA or checkpoint 'vae/a\.safetensors'"):
        find("vae/a.safetensors")
    assert nodes.load_adapter.find_by_kind("a photo") == []


def test_a_folder_whose_weights_are_replaced_is_noticed(nodes, tmp_path):
    folder = model_folder(tmp_path / "diffusers" / "anna")
    before = nodes.load_adapter.LoadAdapter.fingerprint_inputs("anna")
    assert before == nodes.load_adapter.LoadAdapter.fingerprint_inputs("anna")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"new")
    assert nodes.load_adapter.LoadAdapter.fingerprint_inputs("anna") != before


# The label


def saved(path, tensors, metadata):
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path, metadata)
    return path


def test_the_label_names_the_strength_where_it_is_not_one(nodes, tmp_path):
    path = saved(tmp_path / "a.safetensors", {"x": (1,)}, {})
    label = nodes.load_adapter.adapter_label
    assert [label(path, 1, 1), label(path, 0.5, 0.5), label(path, 1, 0)] == [
        "a",
        "a (0.5)",
        "a (1, 0)",
    ]
    assert label(model_folder(tmp_path / "anna.v2"), 1, 1) == "anna.v2"


def test_the_label_says_what_a_training_was(nodes, tmp_path):
    lora = {f"{MODULE}.lora_down.weight": (4, 8), f"{MODULE}.lora_up.weight": (8, 4)}
    recipe = Recipe(method=LoRA(rank=4))
    metadata = build_metadata(recipe, steps=800, losses=[0.25] * 10)
    label = nodes.load_adapter.adapter_label
    path = saved(tmp_path / "anna.safetensors", lora, metadata)
    assert label(path, 1, 1) == "anna: LoRA of rank 4, 800 steps, loss 0.25"
    scores = {"subject": 0.714, "prompt": 1 / 3, "noise": "x", "lost": float("nan")}
    scores |= {"huge": 10**400, "endless": float("inf")}
    path = saved(path, lora, metadata | {"likeness.scores": json.dumps(scores)})
    assert label(path, 0.5, 0.5).startswith("anna (0.5): LoRA of rank 4, ")
    assert label(path, 1, 1).endswith("loss 0.25, subject 0.71, prompt 0.33")
    path = saved(path, lora, metadata | {"likeness.scores": "[1]"})
    assert label(path, 1, 1).endswith("loss 0.25")
    tuned = build_metadata(Recipe(method=DreamBooth()), steps=800, losses=[])
    path = saved(path, {"model.diffusion_model.x": (1,)}, tuned)
    assert label(path, 1, 1) == "anna: full fine-tune, 800 steps"


@pytest.fixture
def bases(nodes, tmp_path, monkeypatch):
    """An adapter's base, and another."""
    base, other = (tmp_path / f"{name}.safetensors" for name in ("base", "other"))
    for file in (base, other):
        file.write_bytes(file.stem.encode())
    monkeypatch.setattr(nodes.load_adapter, "output_folder", lambda: tmp_path)
    return base, other


def trained_on(base, tmp_path):
    """A LoRA that says so."""
    recipe = Recipe(base={"digest": content_digest(base, cache_folder(tmp_path))})
    lora = {f"{MODULE}.lora_down.weight": (4, 8), f"{MODULE}.lora_up.weight": (8, 4)}
    return saved(tmp_path / "a.safetensors", lora, build_metadata(recipe, steps=8, losses=[]))


def test_a_base_that_no_run_had_read_was_not_told_as_another(nodes, bases, tmp_path):
    path = trained_on(bases[0], tmp_path)
    label, told = nodes.load_adapter.adapter_label, "trained on another base"
    assert told not in label(path, 1, 1, bases[0])
    assert label(path, 1, 1, bases[1]).endswith(told)
    bases[1].unlink()
    assert told not in label(path, 1, 1, bases[1])
    assert told not in label(path, 1, 1, None)


def test_another_base_than_the_trained_one_was_told_nowhere_on_the_node(
    nodes, bases, tmp_path, monkeypatch
):
    path, said = trained_on(bases[0], tmp_path), []
    module = nodes.load_adapter
    set_status = SimpleNamespace(set_status=said.append)
    monkeypatch.setattr(module, "Progress", lambda node_id: set_status)
    for base in (bases[0], bases[1], bases[0], bases[0]):
        module.show_base_warning("7", module.adapter_label(path, 1, 1, base))
    assert said == [module.BASE_MISMATCH_WARNING, "a: LoRA of rank 4, 8 steps"], (
        "the warning is taken back once"
    )


def scored(mean):
    """Scores of one row, by CLIP: a subject match, and a prompt match that has no value."""
    measures = tuple(
        Measure(f"{kind}.clip", "CLIP", f"{kind} match", "", "higher")
        for kind in ("subject", "prompt")
    )
    rows = {"subject.clip": (Estimate(mean, None, None, 1, 1),), "prompt.clip": (None,)}
    return Scores(measures, dict.fromkeys(rows, (None,)), rows, dict.fromkeys(rows), ())


def test_the_scores_of_the_newest_comparison_are_in_the_label(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(nodes.load_adapter, "output_folder", lambda: tmp_path)
    lora = {f"{MODULE}.lora_down.weight": (4, 8), f"{MODULE}.lora_up.weight": (8, 4)}
    recipe = Recipe(method=LoRA(rank=4))
    path = saved(tmp_path / "a.safetensors", lora, build_metadata(recipe, steps=8, losses=[]))
    digest, label = content_digest(path), nodes.load_adapter.adapter_label
    for name, mean in (("older", 0.5), ("newer", 0.75)):
        folder = tmp_path / "likeness" / "comparisons" / name
        folder.mkdir(parents=True)
        the_plan = plan([Variant(name="r4", adapter=digest)], prompt_set_from_text("a dog"))
        (folder / "plan.json").write_text(the_plan.to_json())
        (folder / "scores.json").write_text(scored(mean).to_json(the_plan))
    os.utime(tmp_path / "likeness" / "comparisons" / "older" / "plan.json", (1e9, 1e9))
    assert "match" not in label(path, 1, 1), "its digest is not computed for this"
    content_digest(path, cache_folder(tmp_path))
    assert label(path, 1, 1).endswith(", subject match clip 0.75")
    (folder / "scores.json").write_text("{}")
    assert "match" not in label(path, 1, 1)


def test_the_checkpoint_of_a_model_is_the_one_that_core_loaded(nodes, tmp_path):
    file = tmp_path / "base.safetensors"
    file.touch()
    loaded = SimpleNamespace(cached_patcher_init=(print, (str(file), False), 0))
    assert nodes.adapters.checkpoint_path(loaded) == file
    for init in (None, (print, ()), (print, ({"path": 1},)), (print, (str(tmp_path / "gone"),))):
        assert nodes.adapters.checkpoint_path(SimpleNamespace(cached_patcher_init=init)) is None
    assert nodes.adapters.checkpoint_path("model") is None


# Other families

CHECKPOINTS = {
    "SDXL": {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "conditioner.embedders.0.x": (1,),
    },
    "FLUX": {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (8, 8)},
    "Stable Diffusion 3": {"model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.bias": (8,)},
    "Stable Diffusion 2.x": {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (8, 1024),
    },
    "inpainting": {"model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)},
}


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_checkpoint_of_another_family_is_named(nodes, monkeypatch, tmp_path, family):
    path = saved(tmp_path / "x.safetensors", CHECKPOINTS[family], {})
    tensors = {name: torch.zeros(shape) for name, shape in CHECKPOINTS[family].items()}
    monkeypatch.setattr(nodes.host, "read_tensors", lambda path: tensors)
    monkeypatch.setattr(nodes.host, "model_shapes", lambda model: {"diffusion_model.a": (2,)})
    with pytest.raises(AdapterError) as said:
        nodes.adapters.apply_adapter(None, None, path, (1.0, 1.0))
    first = next(iter(CHECKPOINTS[family])).removeprefix("model.")
    assert f"{family} " in str(said.value) and first in str(said.value)


LORAS = {
    "SDXL LoRA": {"lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k.alpha": ()},
    "FLUX LoRA": {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)},
    "SD 3 LoRA": {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (4, 1536)},
    "SD 2.x LoRA": {f"{MODULE}.lora_down.weight": (4, 1024), f"{MODULE}.lora_up.weight": (8, 4)},
    "ControlNet": {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)},
    "textual inversion": {"emb_params": (4, 768)},
    "FLUX model": {"double_blocks.0.img_attn.qkv.weight": (8, 8)},
    "VAE": {"first_stage_model.encoder.conv_in.weight": (8, 3, 3, 3)},
}


@pytest.mark.parametrize("family", LORAS)
def test_an_adapter_of_another_family_is_named(nodes, monkeypatch, tmp_path, family):
    path = saved(tmp_path / "x.safetensors", LORAS[family], {})
    host = nodes.adapters.host
    monkeypatch.setattr(host, "lora_modules", lambda *_: {MODULE: "a"})
    monkeypatch.setattr(host, "model_shapes", lambda _: {"a": (8, 768)})
    monkeypatch.setattr(host, "clip_shapes", lambda _: {})
    with pytest.raises(AdapterError, match="does not fit this model") as said:
        nodes.adapters.apply_adapter(None, None, path, (1.0, 1.0))
    assert family in str(said.value)


def pair(up, down, **more):
    shapes = {"lora_up.weight": up, "lora_down.weight": down, **more}
    return {f"{MODULE}.{name}": shape for name, shape in shapes.items()}


def loha(inputs):
    """Shapes of a LoHa of a module with 8 outputs."""
    shapes = {"hada_w1_a": (8, 4), "hada_w1_b": (4, inputs)}
    shapes |= {"hada_w2_a": (8, 4), "hada_w2_b": (4, inputs)}
    return {f"{MODULE}.{name}": shape for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        (pair((8, 4), (2, 768)), "do not match"),
        (pair((), (4, 768)), "do not match"),
        (pair((8, 4), ()), "do not match"),
        (
            pair((8, 4), (4, 768), dora_scale=(5, 1)),
            r"\(5, 1\), not \(8, 1\) or \(1, 768\)",
        ),
        (pair((8, 4), (4, 768), dora_scale=(8,)), r"\(8,\), not"),
        (pair((8, 4), (4, 768), lora_magnitude_vector=(9,)), "has 9 values"),
        (pair((8, 4), (4, 768), alpha=(2,)), "alpha of .* is not one number"),
        (pair((8, 0), (0, 768)), "do not match"),
        ({f"{MODULE}.lora_up.weight": (8, 4)}, "only one of its two matrices"),
        ({f"{MODULE}.lora_magnitude_vector": (8,)}, "only one of its two matrices"),
        (loha(320), "makes 2,560 values"),
        ({f"{MODULE}.lokr_w1": (4, 4), f"{MODULE}.lokr_w2": (2, 80)}, "makes 2,560 values"),
        ({f"{MODULE}.oft_R.weight": (8, 4)}, "match nothing"),
        ({f"{MODULE}.hada_w1_a": (8, 4)}, "lacks hada_w1_b, hada_w2_a, hada_w2_b"),
        ({f"{MODULE}.lokr_w1": (), f"{MODULE}.lokr_w2": (8, 768)}, "is not a matrix"),
        ({f"{MODULE}.a1.weight": (4, 4)}, "lacks a2.weight, b1.weight, b2.weight"),
        ({f"{MODULE}.b2.weight": (4, 4)}, "lacks a1.weight, a2.weight, b1.weight"),
        ({f"{MODULE}.w_norm": (9,)}, r"the shape \(9,\)"),
        ({f"{MODULE}.b_norm": (8,)}, "lacks w_norm"),
        (pair((8, 4, 3, 3), (4, 768)), "do not match"),
        ({"bundle_emb.anna.clip_l": (2, 768)}, "also holds embeddings"),
        ({f"{MODULE}.diff": (8, 4)}, r"shape \(8, 4\), what it is added to \(8, 768\)"),
        ({f"{MODULE}.diff_b": (8,)}, "what it is added to None"),
    ],
)
def test_what_core_would_only_log_and_leave_out_is_an_error(nodes, lora, says):
    with pytest.raises(AdapterError, match=says):
        nodes.adapters.check_lora("x", lora, {MODULE: "a"}, {"a": (8, 768)})


def test_a_dora_in_pefts_form_was_applied_as_a_plain_lora(nodes, tmp_path, monkeypatch):
    tuned, base = MODELS["attached"](DORA, noise=0.1), MODELS["tiny"]()
    ours = lora.export(*tuned, DORA)
    theirs = {name: tensor for name, tensor in ours.items() if not name.endswith("dora_scale")}
    for name, parameter in lora.trainable_parameters(*tuned).items():
        if name.endswith(".magnitude"):
            module = name.removesuffix(".magnitude").partition(".")[2]
            theirs[f"{module}.lora_magnitude_vector"] = parameter.detach().flatten()
    save_file(theirs, tmp_path / "peft.safetensors")
    weights = {
        module_name(part, path): module.weight
        for part, model in zip(("unet", "text_encoder"), base, strict=True)
        for path, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    }
    shapes, seen = {name: tuple(weight.shape) for name, weight in weights.items()}, []
    host = nodes.adapters.host
    monkeypatch.setattr(host, "lora_modules", lambda *_: {name: name for name in weights})
    monkeypatch.setattr(host, "model_shapes", lambda _: shapes)
    monkeypatch.setattr(host, "clip_shapes", lambda _: {})
    monkeypatch.setattr(host, "lora_patches", lambda tensors, _: seen.append(tensors))
    model = SimpleNamespace(
        get_key_patches=lambda: {k: [(w, lambda x: x)] for k, w in weights.items()}
    )
    clip = SimpleNamespace(patcher=SimpleNamespace(get_key_patches=dict))
    nodes.adapters.apply_adapter(model, clip, tmp_path / "peft.safetensors", (0.0, 0.0))
    assert seen[0].keys() == ours.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(seen[0][name].view_as(tensor), tensor)


def test_kinds_of_lora_that_core_knows_are_let_through(nodes):
    conv, weights = (8, 4, 1, 1), {"a": (8, 16, 3, 3)}
    for shapes in (
        pair(conv, (4, 16, 3, 3), dora_scale=(8, 1, 1, 1)),
        pair(conv, (4, 16, 3, 3), dora_scale=(1, 16, 1, 1)),
        pair((8, 4), (4, 16), **{"lora_mid.weight": (4, 4, 3, 3)}),
        loha(144),
        {
            f"{MODULE}.lokr_w1": (4, 4),
            f"{MODULE}.lokr_w2_a": (2, 1),
            f"{MODULE}.lokr_w2_b": (1, 36),
        },
        {
            f"{MODULE}.oft_blocks": (2, 4, 4),
            f"{MODULE}.rescale": (),
        },
        {f"{MODULE}.{part}.weight": (4, 4) for part in ("a1", "a2", "b1", "b2")},
    ):
        nodes.adapters.check_lora("x", shapes, {MODULE: "a"}, weights)


def test_what_was_trained_with_a_clip_skip_is_drawn_with_it(nodes, tmp_path, monkeypatch):
    class Clip:
        layer = None

        def clone(self):
            return Clip()

        def clip_layer(self, layer):
            self.layer = layer

    lora = {f"{MODULE}.lora_down.weight": (4, 8), f"{MODULE}.lora_up.weight": (8, 4)}
    monkeypatch.setattr(nodes.load_adapter, "apply_adapter", lambda model, clip, *_: (model, clip))
    run, given = nodes.load_adapter.LoadAdapter.execute, Clip()
    for skipped, layer in ((1, None), (2, -2)):
        recipe = Recipe(method=LoRA(rank=4), text_encoder={"clip_skip": skipped})
        metadata = build_metadata(recipe, steps=8, losses=[])
        for shared in (metadata, strip_prompts(metadata)):
            saved(tmp_path / "loras" / "anna.safetensors", lora, shared)
            _, clip, label, _ = run("model", given, "anna.safetensors", 1.0, 1.0).args
            assert clip.layer == layer and ("clip skip 2" in label) == (skipped == 2)
    assert given.layer is None, "the input stays as it is"
    assert run("model", given, "anna.safetensors", 0.0, 0.0).args[1] is given


def test_a_result_tells_the_words_for_its_subject(nodes, tmp_path, monkeypatch):
    lora = {f"{MODULE}.lora_down.weight": (4, 8), f"{MODULE}.lora_up.weight": (8, 4)}
    monkeypatch.setattr(nodes.load_adapter, "apply_adapter", lambda model, clip, *_: (model, clip))
    recipe = Recipe(subject={"token": "ohwx", "class_word": "toy robot"})
    metadata = build_metadata(recipe, steps=8, losses=[])
    for given, wanted in ((metadata, "ohwx toy robot"), ({}, "")):
        saved(tmp_path / "loras" / "anna.safetensors", lora, given)
        run = nodes.load_adapter.LoadAdapter.execute
        assert run("model", "clip", "anna.safetensors", 1.0, 1.0).args[3] == wanted
    assert run("model", "clip", nodes.load_adapter.BASE, 1.0, 1.0).args[3] == ""


class Sampled:
    """Stands for a MODEL with a way of sampling."""

    model = SimpleNamespace(model_config="sd15")

    def __init__(self, sampling):
        self.sampling = sampling

    def get_model_object(self, name):
        return self.sampling if name == "model_sampling" else None

    def clone(self):
        return Sampled(self.sampling)

    def add_object_patch(self, name, sampling):
        self.sampling = sampling if name == "model_sampling" else self.sampling


def test_what_learned_v_was_sampled_as_epsilon_in_comfyui(nodes, tmp_path, monkeypatch):
    class V:
        pass

    host = nodes.host.comfy
    monkeypatch.setattr(host.model_sampling, "V_PREDICTION", V, raising=False)
    kinds = SimpleNamespace(V_PREDICTION="v")
    monkeypatch.setattr(host.model_base, "ModelType", kinds, raising=False)
    made = {("sd15", "v"): V()}
    monkeypatch.setattr(
        host.model_base, "model_sampling", lambda *given: made[given], raising=False
    )
    monkeypatch.setattr(nodes.load_adapter, "apply_adapter", lambda model, clip, *_: (model, clip))
    lora = {f"{MODULE}.lora_down.weight": (4, 8), f"{MODULE}.lora_up.weight": (8, 4)}
    run, given = nodes.load_adapter.LoadAdapter.execute, Sampled("eps")
    for prediction, sampling in (("epsilon", "eps"), ("v_prediction", made["sd15", "v"])):
        recipe = Recipe(base={"prediction": prediction})
        metadata = build_metadata(recipe, steps=8, losses=[], prediction=prediction)
        saved(tmp_path / "loras" / "anna.safetensors", lora, metadata)
        model = run(given, "clip", "anna.safetensors", 1.0, 1.0).args[0]
        assert model.sampling == sampling
    assert given.sampling == "eps", "the input stays as it is"
    assert run(given, "clip", "anna.safetensors", 0.0, 0.0).args[0] is given
    already = Sampled(V())
    assert run(already, "clip", "anna.safetensors", 1.0, 1.0).args[0] is already


def test_a_folder_of_the_input_stands_for_its_files(nodes, tmp_path, monkeypatch):
    photos = tmp_path / "input" / "anna"
    photos.mkdir(parents=True)
    (photos / "01.png").write_bytes(b"1")
    monkeypatch.setattr(nodes.host, "input_folder", lambda: tmp_path / "input")
    assert nodes.host.find_files("anna") == [photos / "01.png"]
    for other in ("", ".", "..", "../input/anna/..", "nobody"):
        assert nodes.host.find_files(other) == []

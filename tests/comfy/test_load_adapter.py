"""Load Adapter in a real ComfyUI, on the miniature: the same image from every naming of a LoRA,
full fine-tunes bit by bit, and each variant as it was after any other.
"""

from __future__ import annotations

import json
import random
import shutil
from types import SimpleNamespace

import pytest

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(900)]

# Digests of the weights as they are loaded, and of latents; as numbers, whatever their dtype.
PACK = """
import comfy.model_management, hashlib, json, torch

def digest(tensors):
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if name.endswith(("text_projection.weight", "logit_scale")):
            continue  # in no file, and read by nothing here
        value = tensor.detach().float().cpu() + 0.0  # -0.0 is 0.0
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]

class Digests:
    INPUT_TYPES = lambda: {"required": {
        "model": ("MODEL",), "clip": ("CLIP",), "latent": ("LATENT",)}}
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "tests", True
    def IS_CHANGED(**_):
        return float("nan")
    def run(self, model, clip, latent):
        comfy.model_management.load_models_gpu([model, clip.patcher])
        return {"ui": {"text": [json.dumps({
            "unet": digest(model.model.diffusion_model.state_dict()),
            "text": digest(clip.cond_stage_model.state_dict()),
            "latent": digest(latent),
        })]}}

NODE_CLASS_MAPPINGS = dict(TestDigests=Digests)
"""
MINIATURE = "zz-miniature.safetensors"


@pytest.fixture(scope="module")
def server(miniature_server):
    """A ComfyUI with the random miniature, and the adapters of `files`."""
    return miniature_server({"digests": PACK})


@pytest.fixture(scope="module")
def files(server):
    """Puts every kind of adapter into the server's folders; returns the LoRA that was written."""
    from likeness.trainers.base_model import load_base

    models = server.home / "models"
    checkpoint = next(server.models.rglob(MINIATURE))
    tuned = load_base(checkpoint)
    disturb(tuned, seed=3)
    write_fine_tunes(tuned, models)
    return write_loras(load_base(checkpoint), models / "loras")


def disturb(base, seed, size=0.02):
    """Moves all weights of UNet and text encoder at random."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (base.unet, base.text_encoder):
            for weight in part.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * size)


def write_fine_tunes(base, models):
    """The same fine-tune as fp16 and fp32 file, and as a diffusers folder."""
    from likeness.trainers.single_file import save_single_file

    parts = {"unet": base.unet, "vae": base.vae, "text_encoder": base.text_encoder}
    for dtype in ("fp16", "fp32"):
        path = models / "checkpoints" / f"tuned-{dtype}.safetensors"
        save_single_file(path, **parts, dtype=dtype, metadata={})
    folder = models / "diffusers" / "tuned"
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')


def write_loras(base, folder):
    """One LoRA of alpha 2 and rank 4 in every naming, written by the libraries themselves."""
    import torch
    from likeness.trainers import lora
    from likeness.trainers.adapter import save_adapter
    from likeness.trainers.adapter_metadata import build_metadata
    from likeness.trainers.recipe import LoRA, Recipe

    method, parts = LoRA(rank=4, alpha=2.0), (base.unet, base.text_encoder)
    lora.attach(*parts, method, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in lora.trainable_parameters(*parts).values():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    metadata = build_metadata(Recipe(method=method), steps=7, losses=[0.5])
    save_adapter(folder / "kohya.safetensors", lora.export(*parts, method), metadata)
    write_diffusers(*parts, folder)
    write_peft(base.unet, folder / "peft")
    return SimpleNamespace(method=method)


def write_diffusers(unet, text_encoder, folder):
    """By diffusers: with the names of transformers 5, and as older releases wrote them."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import load_file, save_file

    states = [
        convert_state_dict_to_diffusers(get_peft_model_state_dict(part))
        for part in (unet, text_encoder)
    ]
    configs = [
        {**part.peft_config["default"].to_dict(), "target_modules": None}
        for part in (unet, text_encoder)
    ]
    StableDiffusionPipeline.save_lora_weights(
        folder,
        *states,
        weight_name="diffusers.safetensors",
        unet_lora_adapter_metadata=configs[0],
        text_encoder_lora_adapter_metadata=configs[1],
    )
    path = folder / "diffusers.safetensors"
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    assert any(name.startswith("text_encoder.encoder.") for name in tensors), "transformers 5"
    older = {
        name.replace("text_encoder.encoder.", "text_encoder.text_model.encoder."): tensor
        for name, tensor in tensors.items()
    }
    save_file(older, folder / "diffusers-older.safetensors", metadata)


def write_peft(unet, folder):
    """By peft: the UNet's part, with its configuration beside it."""
    import torch
    from likeness.demo import miniature
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    config = LoraConfig(r=4, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    model = get_peft_model(miniature.new_unet(), config)
    state, ours = get_peft_model_state_dict(model), get_peft_model_state_dict(unet)
    assert state.keys() == {f"base_model.model.{name}" for name in ours}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            plain = name.replace(".default", "").removeprefix("base_model.model.")
            if plain in ours:
                parameter.copy_(ours[plain])
    model.save_pretrained(folder)


# Asking


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def graph(*adapters, base=MINIATURE):
    """Loads adapters (name, on the UNet, on the text encoder) in turn, and draws."""
    prompt = {"0": node("CheckpointLoaderSimple", ckpt_name=base)}
    last = "0"
    for number, (name, on_model, on_clip) in enumerate(adapters, start=1):
        prompt[str(number)] = node(
            "Likeness_LoadAdapter",
            model=[last, 0],
            clip=[last, 1],
            adapter=name,
            strength_model=on_model,
            strength_clip=on_clip,
        )
        last = str(number)
    prompt |= {
        "p": node("CLIPTextEncode", clip=[last, 1], text="a photo of a man sks"),
        "n": node("CLIPTextEncode", clip=[last, 1], text="blurry"),
        "e": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "k": node(
            "KSampler",
            model=[last, 0],
            positive=["p", 0],
            negative=["n", 0],
            latent_image=["e", 0],
            seed=7,
            steps=2,
            cfg=5.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        ),
        "d": node("TestDigests", model=[last, 0], clip=[last, 1], latent=["k", 0]),
    }
    return prompt


def digests(server, *adapters, base=MINIATURE):
    """{unet, text, latent} of what is loaded and drawn."""
    outcome = server.run(graph(*adapters, base=base))
    assert outcome.status == "success", outcome.error
    return json.loads(outcome.outputs["d"]["text"][0])


BASE = "none (base)"


def test_every_naming_of_a_lora_gives_the_same_image(server, files):
    plain = digests(server, (BASE, 1.0, 1.0))
    kohya = digests(server, ("kohya.safetensors", 1.0, 1.0))
    assert all(kohya[part] != plain[part] for part in plain), "it must show"
    for name in ("diffusers.safetensors", "diffusers-older.safetensors"):
        assert digests(server, (name, 1.0, 1.0)) == kohya, name
    unet_only = digests(server, ("kohya.safetensors", 1.0, 0.0))
    assert unet_only["unet"] == kohya["unet"] and unet_only["text"] == plain["text"]
    assert digests(server, ("peft/adapter_model.safetensors", 1.0, 1.0)) == unet_only


# What core's own nodes write


def core_training(server):
    """Core's Train LoRA on what a sampler draws, and Save LoRA."""
    code = (server.folder / "comfy_extras" / "nodes_train.py").read_text(encoding="utf-8")
    schema = code.partition("class TrainLoraNode")[2].partition("def execute")[0]
    lora = int("io.Model.Output(" in schema)  # ComfyUI 0.8.0 also outputs the model
    prompt = graph()
    del prompt["d"]
    train = {
        "batch_size": 1, "grad_accumulation_steps": 1, "steps": 3, "learning_rate": 0.01,
        "rank": 4, "optimizer": "AdamW", "loss_function": "MSE", "seed": 1,
        "training_dtype": "fp32", "lora_dtype": "fp32", "quantized_backward": False,
        "algorithm": "LoRA", "gradient_checkpointing": False, "checkpoint_depth": 1,
        "offloading": False, "existing_lora": "[None]", "bucket_mode": False,
        "bypass_mode": False,
    }  # fmt: skip
    return prompt | {
        "t": node("TrainLoraNode", model=["0", 0], latents=["k", 0], positive=["p", 0], **train),
        "s": node("SaveLoRA", lora=["t", lora], prefix="loras/core_trained"),
    }


def core_extraction(server):
    """Core's Extract and Save Lora from the difference of a fine-tune and the base."""
    tuned = node("CheckpointLoaderSimple", ckpt_name="tuned-fp32.safetensors")
    of_model = node("ModelMergeSubtract", model1=["1", 0], model2=["0", 0], multiplier=1.0)
    of_clip = node("CLIPMergeSubtract", clip1=["1", 1], clip2=["0", 1], multiplier=1.0)
    save = {"filename_prefix": "loras/core_extracted", "rank": 4, "lora_type": "standard"}
    return {
        "0": node("CheckpointLoaderSimple", ckpt_name=MINIATURE),
        "1": tuned,
        "2": of_model,
        "3": of_clip,
        "s": node(
            "LoraSave", model_diff=["2", 0], text_encoder_diff=["3", 0], bias_diff=True, **save
        ),
    }


@pytest.mark.parametrize(
    ("writing", "name"), [(core_training, "core_trained"), (core_extraction, "core_extracted")]
)
def test_a_lora_that_cores_own_nodes_wrote_was_refused(server, files, writing, name):
    from likeness.comparison.sample import load_with_adapter

    outcome = server.run(writing(server))
    assert outcome.status == "success", outcome.error
    (path,) = (server.home / "output" / "loras").glob(f"{name}_*.safetensors")
    file = server.home / "models" / "loras" / f"{name}.safetensors"
    shutil.copy(path, file)
    prompt = graph()
    strengths = {"strength_model": 0.7, "strength_clip": 0.4}
    wires = {"model": ["0", 0], "clip": ["0", 1]}
    prompt["1"] = node("LoraLoader", **wires, lora_name=file.name, **strengths)
    for place in "pnkd":
        inputs = prompt[place]["inputs"]
        inputs |= {key: ["1", wire[1]] for key, wire in wires.items() if key in inputs}
    core = server.run(prompt)
    assert core.status == "success", core.error
    ours = digests(server, (file.name, 0.7, 0.4))
    assert ours == json.loads(core.outputs["d"]["text"][0])
    plain = digests(server)
    assert ours["unet"] != plain["unet"] and (ours["text"] != plain["text"]) == ("extr" in name)
    load_with_adapter(next(server.models.rglob(MINIATURE)), file)  # the terminal reads it, too


@pytest.mark.parametrize("name", ["tuned-fp16.safetensors", "tuned-fp32.safetensors", "tuned"])
def test_a_fine_tune_at_strength_1_is_its_checkpoint_and_at_0_the_base(server, files, name):
    plain = digests(server)
    direct = "tuned-fp32.safetensors" if name == "tuned" else name
    opened = digests(server, base=direct)
    loaded = digests(server, (name, 1.0, 1.0))
    assert loaded == opened and all(opened[part] != plain[part] for part in plain)
    assert digests(server, (name, 0.0, 0.0)) == plain
    half = digests(server, (name, 1.0, 0.0))
    assert (half["unet"], half["text"]) == (opened["unet"], plain["text"])


VARIANTS = {
    "base": [],
    "none": [(BASE, 0.3, 0.3)],
    "lora": [("kohya.safetensors", 1.0, 1.0)],
    "lora, weaker": [("kohya.safetensors", 0.5, -0.5)],
    "fp16": [("tuned-fp16.safetensors", 1.0, 1.0)],
    "fp32": [("tuned-fp32.safetensors", 1.0, 1.0)],
    "folder": [("tuned", 1.0, 1.0)],
    "off": [("tuned-fp32.safetensors", 0.0, 0.0)],
    "between": [("tuned-fp16.safetensors", 0.37, 0.81)],
    "beyond": [("tuned", 1.4, -0.2)],
    "both": [("tuned-fp16.safetensors", 1.0, 1.0), ("kohya.safetensors", 0.8, 0.8)],
}
EQUAL = (("base", "none"), ("base", "off"), ("fp32", "folder"))


def test_each_variant_is_as_it_was_after_any_other(server, files):
    seen = {}
    walk = random.Random(5)
    names = [*VARIANTS, *walk.choices([*VARIANTS], k=24)]
    for name in names:
        found = digests(server, *VARIANTS[name])
        assert seen.setdefault(name, found) == found, f"{name} is otherwise than at first"
        if walk.random() < 0.15:
            server.free_memory()
    for one, other in EQUAL:
        assert seen[one] == seen[other], (one, other)
    different = {found["unet"] for found in seen.values()}
    assert len(different) == len(VARIANTS) - len(EQUAL)


@pytest.fixture
def label(server, files):
    """The label of an adapter; `label.said` are the messages meanwhile."""

    def read(name, strength):
        prompt = graph((name, strength, strength))
        prompt = {key: prompt[key] for key in "01"} | {"s": node("PreviewAny", source=["1", 2])}
        return server.run(prompt, read.said.append).outputs["s"]["text"][0]

    read.said = []
    return read


def test_the_label_says_what_is_loaded(label):
    assert label(BASE, 1.0) == "base"
    assert label("kohya.safetensors", 0.5) == "kohya (0.5): LoRA of rank 4, 7 steps, loss 0.5"
    assert label("tuned", 1.0) == "tuned"


def test_an_adapter_of_another_base_is_told_in_the_label_and_on_the_node(server, files, label):
    from likeness.trainers.adapter import save_adapter
    from likeness.trainers.adapter_metadata import build_metadata
    from likeness.trainers.recipe import Recipe
    from safetensors.torch import load_file

    core = (server.folder / "comfy" / "model_patcher.py").read_text(encoding="utf-8")
    if "cached_patcher_init" not in core:
        pytest.skip("this ComfyUI does not say which file a model was loaded from")
    assert not label("kohya.safetensors", 0.5).endswith("another base")
    metadata = build_metadata(
        Recipe(method=files.method, base={"digest": "0" * 64}), steps=7, losses=[]
    )
    loras = server.home / "models" / "loras"
    save_adapter(loras / "foreign.safetensors", load_file(loras / "kohya.safetensors"), metadata)
    warned = b"trained on another base model than the one loaded"
    assert not any(warned in part for part in label.said if isinstance(part, bytes))
    assert label("foreign.safetensors", 0.25).endswith("trained on another base")
    assert any(warned in part for part in label.said if isinstance(part, bytes)), "on the node"


def test_an_adapter_of_stable_diffusion_does_not_fit_the_miniature(server, files):
    import torch
    from safetensors.torch import save_file

    module = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    lora = {"lora_down.weight": torch.zeros(4, 768), "lora_up.weight": torch.zeros(640, 4)}
    path = server.home / "models" / "loras" / "sd15.safetensors"
    save_file({f"{module}.{part}": tensor for part, tensor in lora.items()}, path)
    outcome = server.run(graph((path.name, 1.0, 1.0)))
    assert outcome.status == "error"
    said = outcome.error["exception_message"]
    assert "768 inputs and 640 outputs" in said and "SD 1.x LoRA" in said


def test_a_folder_that_is_replaced_is_loaded_anew(server, files):
    from safetensors.torch import load_file, save_file

    folder = server.home / "models" / "diffusers" / "tuned"
    before = digests(server, ("tuned", 1.0, 1.0))
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    kept = shutil.copy(path, folder.parent / "kept.safetensors")
    tensors = {name: tensor * 1.5 for name, tensor in load_file(path).items()}
    path.unlink()  # it may be mapped by the server
    save_file(tensors, path)
    assert digests(server, ("tuned", 1.0, 1.0)) != before
    path.unlink()
    shutil.move(kept, path)
    assert digests(server, ("tuned", 1.0, 1.0)) == before

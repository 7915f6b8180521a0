"""An adapter draws in ComfyUI what peft draws with it, and every one of its tensors is used."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(900)]

BASE = "sd15-random-fp16.safetensors"
POSITIVE, NEGATIVE = "a photo of sks dog in the rain", "blurry"
SEED, STEPS, GUIDANCE, SIDE = 7, 2, 3.0, 128

KINDS = {
    "lora": {"rank": 4},
    "dora": {"rank": 4, "dora": True},
    "rank-stabilised": {"rank": 4, "alpha": 3.0, "rslora": True},
    "convolutions": {"rank": 2, "targets": "all"},
}


def drawing(adapter=None, loader="Likeness_LoadAdapter", **widgets):
    """A prompt that draws, with an adapter if one is named, and saves the latents."""
    model, clip = ["1", 0], ["1", 1]
    prompt = {"1": node("CheckpointLoaderSimple", ckpt_name=widgets.pop("base", BASE))}
    if adapter:
        name = {"LoraLoader": "lora_name"}.get(loader, "adapter")
        inputs = {"strength_model": 1.0, "strength_clip": 1.0, **widgets, name: adapter}
        prompt["2"] = node(loader, model=model, clip=clip, **inputs)
        model, clip = ["2", 0], ["2", 1]
    prompt["3"] = node("CLIPTextEncode", clip=clip, text=POSITIVE)
    prompt["4"] = node("CLIPTextEncode", clip=clip, text=NEGATIVE)
    prompt["5"] = node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1)
    prompt["6"] = node(
        "KSampler",
        model=model,
        positive=["3", 0],
        negative=["4", 0],
        latent_image=["5", 0],
        seed=SEED,
        steps=STEPS,
        cfg=GUIDANCE,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    )
    prompt["7"] = node("SaveLatent", samples=["6", 0], filename_prefix="latents/x")
    return prompt


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def latents_of(comfy, prompt):
    """Scaled latents (1, 4, h, w), as the UNet sees them, and what the server logged."""
    from safetensors.torch import load_file

    outcome = comfy.run(prompt)
    assert outcome.status == "success", outcome.error
    saved = outcome.outputs["7"]["latents"][0]
    tensors = load_file(comfy.home / "output" / saved["subfolder"] / saved["filename"])
    return tensors["latent_tensor"].float() * 0.18215, outcome.log


def far(a, b):
    """Relative distance of two tensors."""
    return float((a - b).norm() / b.norm())


@pytest.fixture(scope="module")
def ours(comfy, base_checkpoint):
    """The base model in this process, and what is drawn with it by our own sampler."""
    import torch
    from likeness.trainers import sampler, text_encoding
    from likeness.trainers.base_model import load_base

    torch.set_num_threads(2)
    base = load_base(base_checkpoint, [comfy.folder / "comfy" / "sd1_tokenizer"])

    @torch.no_grad()
    def draw(model):
        ids = text_encoding.tokenize(model.tokenizer, [POSITIVE, NEGATIVE])
        states = text_encoding.encode_text(model.text_encoder, ids)
        return sampler.sample(
            model.unet,
            states[:1],
            states[1:],
            sampler.prepare_noise([SEED], SIDE, SIDE),
            sigmas=sampler.calculate_sigmas(STEPS),
            guidance=GUIDANCE,
        )

    yield SimpleNamespace(base=base, draw=draw, plain=draw(base))
    del base
    gc.collect()


@pytest.fixture(scope="module", params=KINDS)
def learned(request, comfy, ours):
    """A saved adapter of one kind with random weights, and what peft draws with it."""
    import torch
    from likeness.trainers import lora
    from likeness.trainers.adapter import save_adapter
    from likeness.trainers.adapter_metadata import build_metadata
    from likeness.trainers.recipe import LoRA, Recipe

    method = LoRA(**KINDS[request.param])
    parts = (ours.base.unet, ours.base.text_encoder)
    lora.attach(*parts, method, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in lora.trainable_parameters(*parts).items():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(weight * (1 + 0.1 * noise) if "magnitude" in name else 0.05 * noise)
    tensors = lora.export(*parts, method)
    drawn = ours.draw(ours.base)
    for part in parts:
        without_adapters(part)
    path = comfy.home / "output" / "loras" / f"{request.param}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_adapter(path, tensors, build_metadata(Recipe(method=method), steps=1, losses=[1.0]))
    return SimpleNamespace(name=path.name, drawn=drawn, tensors=len(tensors))


def without_adapters(model):
    from peft.tuners.lora import LoraLayer

    for path, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, layer.get_base_layer())


def test_comfyui_draws_what_peft_draws(comfy, ours, learned):
    latents, log = latents_of(comfy, drawing(learned.name))
    assert far(learned.drawn, ours.plain) > 0.05, "the adapter must show, or nothing is compared"
    assert far(latents, learned.drawn) < 1e-3
    assert "ERROR" not in log


def test_cores_own_loader_claims_every_tensor(comfy, learned):
    prompt = drawing(learned.name, loader="LoraLoader")
    prompt = {key: prompt[key] for key in "12"} | {"8": node("PreviewAny", source=["2", 0])}
    outcome = comfy.run(prompt)
    assert outcome.status == "success", outcome.error
    assert "not loaded" not in outcome.log.lower()


def test_the_base_is_drawn_alike(comfy, ours):
    latents, _ = latents_of(comfy, drawing())
    assert far(latents, ours.plain) < 1e-3

"""The first 20 losses of a run against a direct computation with diffusers, transformers and peft.

The reference is written as diffusers' DreamBooth scripts are: one batch of photograph and class
image, chunked, two mean squared errors, gradients clipped at 1.0, torch's AdamW.
"""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler
from likeness.demo.random_model import write_random_model
from likeness.trainers import rng
from likeness.trainers.base_model import load_base
from likeness.trainers.class_image_sets import class_images_folder
from likeness.trainers.loop import train
from likeness.trainers.places import Places
from likeness.trainers.preparation import prepare
from likeness.trainers.recipe import Recipe
from likeness.trainers.stop import StopSignal
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image

STEPS = 20
PHOTOS = 3
CLASSES = 4
ONE = ("a photo of man, random head angle, slight smile",)
TWO = ("a photo of man", "a man in the kitchen")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    base = write_random_model(folder / "base.safetensors", dtype="fp32")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(PHOTOS):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
        image.save(folder / "photos" / f"{i}.png")
        mask = Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8))
        mask.save(folder / "photos" / f"{i}-masklabel.png")  # passed over unless asked for
    return Places(
        base=base,
        photos=folder / "photos",
        runs=folder / "runs",
        loras=folder / "loras",
        checkpoints=folder / "checkpoints",
        cache=folder / "cache",
    )


def recipe_of(kind, text, prior, mask="none", dropout=0.0):
    return Recipe().changed(
        method={"kind": kind},
        subject={"resolution": 64, "mask": mask},
        prior={"count": CLASSES, "steps": 2, "prompt": "\n".join(prior)} if prior else None,
        text_encoder={"train": text},
        schedule={"steps": STEPS},
        optimizer={"name": "adamw", "learning_rate": 1e-3},
        objective={"caption_dropout": dropout},
        compute={"precision": "fp32"},
    )


def our_losses(recipe, places):
    folder = prepare(recipe, places)
    stop = StopSignal(folder.stop)
    accelerator = Accelerator(cpu=True)
    return folder.recipe(), train(folder, accelerator, lambda kind, **data: None, stop).losses


def encoded(vae, path):
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
    factor = vae.config.scaling_factor
    return posterior.mean[0] * factor, posterior.std[0] * factor


def images(folder):
    """Files in the order of their content's digest, which names of files do not change."""
    import hashlib

    files = [p for p in folder.glob("*.png") if "mask" not in p.name]
    return sorted(files, key=lambda p: hashlib.sha256(p.read_bytes()).hexdigest())


def weights_of(photo, recipe):
    """Weights (8, 8) of a photograph's loss: the mean of its mask over each latent."""
    if recipe.subject.mask == "none":
        return torch.ones(8, 8)
    mask = np.asarray(Image.open(photo.with_name(f"{photo.stem}-masklabel.png")), np.float32)
    means = torch.from_numpy(mask).reshape(8, 8, 8, 8).mean(dim=(1, 3)) / 255
    least = recipe.subject.unmasked_weight
    return least + (1 - least) * means


def attach_peft(model, rank, targets, initial):
    model.requires_grad_(False)
    config = LoraConfig(
        r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets
    )
    inject_adapter_in_model(config, model)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(parameters) == set(initial)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(initial[name])
    return list(parameters.values())


def initial_lora(recipe, places):
    """The values with which our LoRA starts: parity is about the steps, not the first draw."""
    from likeness.trainers import lora

    base = load_base(places.base)
    base.unet.requires_grad_(False)
    base.text_encoder.requires_grad_(False)
    text = base.text_encoder if recipe.text_encoder.train else None
    lora.attach(base.unet, text, recipe.method, rng.derive_seed(recipe.seed, "lora"))
    unet = {n: p.detach() for n, p in base.unet.named_parameters() if p.requires_grad}
    return unet, {n: p.detach() for n, p in base.text_encoder.named_parameters() if p.requires_grad}


def trained_parameters(base, recipe, places):
    """What learns in `base`: peft's adapters with the values of ours, or all weights."""
    if recipe.method.kind == "lora":
        unet0, text0 = initial_lora(recipe, places)
        attention = ["to_q", "to_k", "to_v", "to_out.0"]
        parameters = attach_peft(base.unet, 4, attention, unet0)
        base.text_encoder.requires_grad_(False)
        if text0:
            projections = ["q_proj", "k_proj", "v_proj", "out_proj"]
            parameters += attach_peft(base.text_encoder, 4, projections, text0)
    else:
        base.text_encoder.requires_grad_(recipe.text_encoder.train)
        parameters = list(base.unet.requires_grad_(True).parameters())
        if recipe.text_encoder.train:
            parameters += list(base.text_encoder.parameters())
    return parameters


def reference_losses(recipe, places):
    base = load_base(places.base)
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
    )
    photos = [encoded(base.vae, p) for p in images(places.photos)]
    masks = [weights_of(p, recipe) for p in images(places.photos)]
    classes = []
    if recipe.prior:
        files = sorted(class_images_folder(recipe, places, recipe.prior).glob("*.png"))
        classes = [encoded(base.vae, p) for p in files]
        assert len(classes) == CLASSES
    parameters = trained_parameters(base, recipe, places)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-2)
    prompts = ["a photo of sks man face", *recipe.class_prompts(), ""]
    ids = base.tokenizer(
        prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    losses = []
    for step in range(STEPS):
        latents, noise, timesteps, shown = [], [], [], []
        for kind, things in (("photo", photos), ("class", classes)):
            if not things:
                continue
            index = rng.shuffled_index(step, len(things), recipe.seed, f"{kind} order")
            mean, std = things[index]
            prompt = 0 if kind == "photo" else 1 + index % (len(prompts) - 2)
            chance = rng.uniform(recipe.seed, f"{kind} caption", step, 0)
            dropped = chance < recipe.objective.caption_dropout
            shown.append(len(prompts) - 1 if dropped else prompt)
            posterior = rng.randn((4, 8, 8), recipe.seed, f"{kind} posterior", step, 0)
            latents.append(mean + std * posterior)
            noise.append(rng.randn((4, 8, 8), recipe.seed, f"{kind} noise", step, 0))
            timesteps.append(rng.randint(1000, recipe.seed, f"{kind} timestep", step, 0))
        latents, noise = torch.stack(latents), torch.stack(noise)
        timesteps = torch.tensor(timesteps)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        states = base.text_encoder(ids[shown])[0]
        predicted = base.unet(noisy, timesteps, states).sample
        if classes:
            photo = masks[rng.shuffled_index(step, len(photos), recipe.seed, "photo order")].sqrt()
            photo = photo / photo.pow(2).mean().sqrt()
            predicted, predicted_prior = predicted.chunk(2)
            noise, noise_prior = noise.chunk(2)
            prior_loss = F.mse_loss(predicted_prior.float(), noise_prior.float())
            loss = F.mse_loss(photo * predicted.float(), photo * noise.float()) + prior_loss
        else:
            loss = F.mse_loss(predicted.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("kind", "text", "prior", "mask", "dropout"),
    [
        *itertools.product(("lora", "dreambooth"), (True, False), (ONE,), ("none",), (0,)),
        ("lora", True, (), "none", 0),
        ("lora", True, TWO, "none", 0),
        ("lora", True, ONE, "file", 0),
        ("lora", True, ONE, "none", 0.5),
        ("dreambooth", False, ONE, "none", 0.5),
    ],
)
def test_losses_equal_a_direct_computation(places, kind, text, prior, mask, dropout):
    recipe, ours = our_losses(recipe_of(kind, text, prior, mask, dropout), places)
    theirs = reference_losses(recipe, places)
    assert len(ours) == STEPS
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert len(set(ours)) == STEPS

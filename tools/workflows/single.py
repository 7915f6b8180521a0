"""The introductory workflows: train once, and use the adapter."""

from __future__ import annotations

from dataclasses import replace

from .graph import Group, Node, Page, Socket, node
from .parts import material, records, trainer
from .settings import SD15, STUDY, Setting
from .texts import read_me

WORDS = {"prompt": "a photo of {token} {class}", "class_prompt": "a photo of {class}"}
FOREST = (
    "portrait of {subject}, in the forest, standing, 4K, raw, hrd, hd, high quality, realism, "
    "sharp focus"
)
NEGATIVE = (
    "naked, nsfw, deformed, distorted, disfigured, poorly drawn, bad anatomy, extra limb, missing "
    "limb, floating limbs, mutated hands disconnected limbs, mutation, ugly, blurry, amputation"
)


def train_lora() -> Page:
    """Trains a LoRA of rank 4 and draws an image with it."""
    return _trained("train_lora", "lora-r4")


def train_dreambooth() -> Page:
    """Trains a full fine-tune and draws an image with it."""
    return _trained("train_dreambooth", "standard")


def use_adapter() -> Page:
    """Draws an image with a finished adapter."""
    columns = _image("none (base)", SD15)
    groups = [Group("Base model, adapter and prompt", columns[:2]), Group("Generate", columns[2:])]
    return Page("use_adapter", [read_me("use_adapter")], [groups])


def _trained(name: str, key: str) -> Page:
    setting: Setting = replace(STUDY, class_images=(200, 25))
    shown = material(setting, replace(setting.trainings[key], **WORDS))
    train = trainer(setting, key, shown)
    train.title = ""
    del train.given["name"]
    del train.given["optimizer"]  # the node's default; the study's does not help a LoRA
    groups = [
        shown.group("1 · Photographs"),
        Group("2 · Train", [[train]]),
        Group("What was trained", [records(train)]),
    ]
    draw = [Group("3 · Generate", _image(train["adapter"], train["base_model"]))]
    return Page(name, [read_me(name)], [groups, draw])


def _image(adapter: Socket | str, base_model: Socket | str) -> list[list[Node]]:
    """Columns of nodes that draw one image with an adapter on its base model."""
    base = node("CheckpointLoaderSimple", "Base model", 340, 110, ckpt_name=base_model)
    load = node("Likeness_LoadAdapter", model=base["MODEL"], clip=base["CLIP"], adapter=adapter)
    size = node("EmptyLatentImage", "Size of the image", width=512, height=512)
    prompt = node(
        "StringReplace",
        "Your prompt; {subject} is filled in",
        340,
        260,
        string=FOREST,
        find="{subject}",
        replace=load["trigger_phrase"],
    )
    texts = [
        node("CLIPTextEncode", title, 340, height, clip=load["clip"], text=text)
        for title, height, text in (
            ("Prompt", 88, prompt["STRING"]),
            ("Negative prompt", 190, NEGATIVE),
        )
    ]
    sampler = node(
        "KSampler",
        "",
        300,
        model=load["model"],
        positive=texts[0]["CONDITIONING"],
        negative=texts[1]["CONDITIONING"],
        latent_image=size["LATENT"],
        seed=1,
        steps=35,
        cfg=7.5,
        sampler_name="euler",
        scheduler="simple",
    )
    decode = node("VAEDecode", "", 300, 60, samples=sampler["LATENT"], vae=base["VAE"])
    image = node(
        "SaveImage", "", 420, 520, images=decode["IMAGE"], filename_prefix="likeness/image"
    )
    return [[base, load, size], [prompt, *texts], [sampler], [decode, image]]

"""`likeness demo pretrain`: draws the world; trains the miniature, its ControlNet, its judges.

Each stage writes its weights in fp16 to `<out>/parts/`, and everything that it needs to resume to
`<out>/<stage>/`. The parts alone suffice to continue on another machine. The last stage, pack,
builds the files of demo/weights/ from them; unpack splits those files into parts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel

from ..trainers.base_model import load_base
from ..trainers.files import write_atomic
from ..trainers.rng import derive_seed
from . import miniature, pretrain_judge, pretrain_text, pretrain_vae, weights
from . import pretrain_diffusion as diffusion
from .given_names import told
from .judge import load_judge, save_judge
from .judge_networks import ARCHITECTURES
from .pretrain_data import Pool, bodies, choose, load, people, with_latents
from .pretrain_hints import beside_skeletons
from .pretrain_hints import hints as draw_hints
from .pretrain_loop import Course, Losses, Say, Task, train
from .pretrain_parts import began_trained, load_part, load_vae, placed, save_part
from .pretrain_shards import draw_missing
from .pretrain_vae import tiled, to_pixels


@dataclass(frozen=True)
class Options:
    """The command's options; None selects the device's default."""

    out: Path
    device: torch.device
    workers: int = 1
    images: int | None = None
    samples: int | None = None
    minutes: float = float("inf")
    share: tuple[int, int] = (0, 1)
    say: Say = print


@dataclass(frozen=True)
class Scale:
    """The amount of data and training on one kind of device.

    `crop` is the side of the VAE's training crops, `widths` are arguments of `new_vae`.
    """

    images: int
    crop: int
    widths: tuple[int, int]
    courses: dict[str, Course]


SCALES = {
    "cpu": Scale(
        images=40_000,
        crop=48,
        widths=(32, 64),
        courses={
            "vae": Course(samples=400_000, batch=32, rate=1e-3, ema=0.998),
            "text_encoder": Course(samples=150_000, batch=64, rate=2e-3, ema=0.99),
            "unet": Course(samples=500_000, batch=64, rate=1e-3, ema=0.998),
            "controlnet": Course(samples=150_000, batch=16, rate=7e-4, ema=0.998),
            "judge": Course(samples=200_000, batch=32, rate=1e-3),
        },
    ),
    "cuda": Scale(
        images=300_000,
        crop=64,
        widths=(64, 64),
        courses={
            "vae": Course(samples=2_000_000, batch=64, rate=1e-3, ema=0.9995),
            "text_encoder": Course(samples=4_000_000, batch=512, rate=1e-3),
            "unet": Course(samples=6_000_000, batch=256, rate=1e-3, warmup=1000, ema=0.9995),
            "controlnet": Course(samples=1_000_000, batch=128, rate=5e-4),
            "judge": Course(samples=2_000_000, batch=256, rate=1.5e-3, warmup=500),
        },
    ),
}


class Run:
    """One invocation of the command: its options, scale, folders and deadline."""

    def __init__(self, options: Options) -> None:
        self.options, self.out, self.device = options, options.out, options.device
        self.scale = SCALES["cuda" if options.device.type == "cuda" else "cpu"]
        self.images = options.images or self.scale.images
        self.deadline = time.monotonic() + 60 * options.minutes
        self.shards, self.parts = self.out / "shards", self.out / "parts"

    def course(self, stage: str) -> Course:
        """The scale's course of a stage, with --samples applied."""
        course = self.scale.courses[stage]
        samples = self.options.samples
        return course if samples is None else replace(course, samples=samples)

    def train(self, task: Task, course: Course) -> bool:
        """Trains a part until the deadline; returns True if the course is complete."""
        folder, say = self.out / task.name, self.options.say
        return train(task, course, folder, device=self.device, deadline=self.deadline, say=say)

    def models(self) -> tuple[UNet2DConditionModel, CLIPTextModel, AutoencoderTiny]:
        """A new UNet and text encoder, and the trained VAE."""
        vae = self.vae()
        unet, text_encoder = miniature.new_unet(), miniature.new_text_encoder()
        unet.set_attn_processor(AttnProcessor())  # the fused one is slower at this size
        return placed(unet, self.device), placed(text_encoder, self.device), vae

    def trained_models(self) -> tuple[UNet2DConditionModel, CLIPTextModel, AutoencoderTiny]:
        """As `models`, all trained."""
        unet, text_encoder, vae = self.models()
        load_part(self.parts / "unet.safetensors", unet)
        load_part(self.parts / "text_encoder.safetensors", text_encoder)
        return unet, text_encoder, vae

    def vae(self) -> AutoencoderTiny:
        """The trained VAE, at its training width."""
        vae = load_vae(self.parts / "vae.safetensors").requires_grad_(False)
        return placed(vae, self.device, torch.channels_last)

    def lanes(self) -> int:
        """The number of batches that a step computes in parallel: one per CPU core."""
        if self.device.type == "cuda":
            return 1
        torch.set_num_threads(1)
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def pools(self, vae: AutoencoderTiny | None, keys: Sequence[str]) -> list[Pool]:
        """Pools of all images, with latents if a VAE is given."""
        if vae is None:
            return load(self.shards, self.images, keys, self.device)
        return with_latents(self.shards, self.images, vae, self.out / "latents", keys)


def pretrain(stage: str, options: Options) -> bool:
    """Runs a stage, or "all" in order; returns True if it is complete.

    Raises:
        CheckpointError: a shard or checkpoint is damaged or from other code.
        RunFailed: a loss is not a number, or a drawing process failed.
        BaseModelError: a stage needs a part that an earlier stage has not written.
    """
    run = Run(options)
    return all(_STAGES[name](run) for name in (STAGES if stage == "all" else (stage,)))


def _draw(run: Run) -> bool:
    given = run.options
    return draw_missing(
        run.shards, run.images, workers=given.workers, deadline=run.deadline, share=given.share,
        say=given.say,
    )  # fmt: skip


def _vae(run: Run) -> bool:
    part = run.parts / "vae.safetensors"
    # A trained VAE needs no guidance.
    led = pretrain_vae.GUIDED if began_trained(run.out / "vae", part) else 0
    vae = load_vae(part) if led else miniature.new_vae(*run.scale.widths)
    if not led:
        pretrain_vae.initialise(vae)
    vae = placed(vae, run.device, torch.channels_last)
    pools = load(run.shards, run.images, ["pixels", "joints"], run.device)
    course, crop = run.course("vae"), run.scale.crop

    def losses(step: int, generator: torch.Generator) -> Losses:
        rng = np.random.default_rng(derive_seed(0, "crops", step))
        pool = choose(pools, rng)
        pixels = pool["pixels"]
        index = torch.from_numpy(rng.integers(len(pixels), size=course.batch)).to(run.device)
        side = min(crop, *pixels.shape[1:3])
        images = pretrain_vae.crops(pixels, pool["joints"], index, rng, side)
        return pretrain_vae.losses(vae, images, generator, step + led)

    task = Task(
        "vae",
        dict(vae.named_parameters()),
        losses,
        lambda: save_part(part, vae),
        lambda: pretrain_vae.sheet(vae, pools[0]["pixels"][:64]),
    )
    return run.train(task, course)


def _text_encoder(run: Run) -> bool:
    text_encoder = placed(miniature.new_text_encoder(), run.device)
    part = run.parts / "text_encoder.safetensors"
    if not load_part(part, text_encoder, missing_ok=True):
        pretrain_text.initialise(text_encoder)
    reader = placed(pretrain_text.Reader(), run.device)
    pools = people(load(run.shards, run.images, ["ids", "facts", "joints", "traits"], run.device))
    course = run.course("text_encoder")

    def losses(step: int, generator: torch.Generator) -> Losses:
        batch = pretrain_text.draw(pools, course.batch, step)
        return pretrain_text.losses(text_encoder, reader, batch, generator)

    parameters = {f"text.{name}": p for name, p in text_encoder.named_parameters()}
    parameters |= {f"reader.{name}": p for name, p in reader.named_parameters()}
    task = Task("text_encoder", parameters, losses, lambda: save_part(part, text_encoder))
    return run.train(task, course)


def _unet(run: Run) -> bool:
    unet, text_encoder, vae = run.models()
    part = run.parts / "unet.safetensors"
    if not load_part(part, unet, missing_ok=True):
        diffusion.initialise(unet)
    load_part(run.parts / "text_encoder.safetensors", text_encoder)
    text_encoder.requires_grad_(False)
    course, alphas = run.course("unet"), diffusion.schedule(run.device)
    pools = people(run.pools(vae, ["ids", "facts", "traits", "joints"]))
    lanes = run.lanes()
    batches = diffusion.Batches(pools, course.batch, "unet", lanes)

    def losses(number: int, generator: torch.Generator) -> Losses:
        latents, ids, rows, pool = batches.draw(number)
        states = told(text_encoder, ids, pool["facts"][rows], pool["traits"][rows], generator)
        where = diffusion.face_weights(pool["joints"][rows], *latents.shape[2:])
        return diffusion.losses(unet, states, latents, generator, alphas, where=where)

    def sheet() -> np.ndarray:
        return tiled(diffusion.draw(unet, text_encoder, vae, diffusion.PROMPTS), 6)

    parameters = dict(unet.named_parameters())
    task = Task("unet", parameters, losses, lambda: save_part(part, unet), sheet, lanes)
    return run.train(task, course)


def _controlnet(run: Run) -> bool:
    unet, text_encoder, vae = run.trained_models()
    controlnet = placed(miniature.new_controlnet(unet), run.device)
    part = run.parts / "controlnet.safetensors"
    load_part(part, controlnet, missing_ok=True)
    for frozen in (unet, text_encoder):
        frozen.requires_grad_(False)
    controlnet.set_attn_processor(AttnProcessor())
    course, alphas = run.course("controlnet"), diffusion.schedule(run.device)
    pools = bodies(people(run.pools(vae, ["ids", "facts", "traits", "joints"])))
    lanes = run.lanes()
    batches = diffusion.Batches(pools, course.batch, "controlnet", lanes)

    def losses(number: int, generator: torch.Generator) -> Losses:
        latents, ids, rows, pool = batches.draw(number)
        ids = beside_skeletons(ids, generator)
        states = told(text_encoder, ids, pool["facts"][rows], pool["traits"][rows], generator)
        width, height = pool.size.width, pool.size.height
        hints = diffusion.random_hints(pool["joints"][rows], width, height, generator)
        control = miniature.control(controlnet, hints)
        # Skeletons determine the layout, which is decided at high noise.
        return diffusion.losses(unet, states, latents, generator, alphas, control, noisy=True)

    def sheet() -> np.ndarray:
        size, joints = pools[0].size, pools[0]["joints"]
        whole = joints[..., 2].sum(1).topk(min(len(joints), len(diffusion.PROMPTS))).indices
        radius = torch.full((len(whole),), 1.5, device=run.device)
        hints = draw_hints(joints[whole], size.width, size.height, radius)
        control = miniature.control(controlnet, hints)
        prompts = diffusion.PROMPTS[: len(whole)]
        drawn = diffusion.draw(
            unet, text_encoder, vae, prompts, control, size.width, size.height
        )  # fmt: skip
        columns = min(6, len(whole))
        return np.concatenate([tiled(x, columns) for x in (to_pixels(hints * 2 - 1), drawn)])

    task = Task("controlnet", dict(controlnet.named_parameters()), losses,
                lambda: save_part(part, controlnet), sheet, lanes)  # fmt: skip
    return run.train(task, course)


def _judge(run: Run, name: str, architecture: str) -> bool:
    network = placed(ARCHITECTURES[architecture](), run.device, torch.channels_last)
    part = run.parts / f"{name}.safetensors"
    load_part(part, network, missing_ok=True)
    vae = run.vae() if (run.parts / "vae.safetensors").is_file() else None
    keys = ["pixels", "facts", "traits", "joints"]
    pools, course = run.pools(vae, keys), run.course("judge")
    batches = pretrain_judge.Batches(pools, course.batch, name, vae)

    def losses(step: int, generator: torch.Generator) -> Losses:
        return pretrain_judge.losses(network, batches.draw(step, generator))

    held_out = pretrain_judge.held_out(run.device)

    def export() -> None:
        save_judge(part, network)
        scores = json.dumps(pretrain_judge.evaluate(network, held_out), indent=1)
        write_atomic(run.out / name / "held_out.json", scores)

    task = Task(name, dict(network.named_parameters()), losses, export,
                lambda: pretrain_judge.sheet(network, held_out["pixels"][:32]))  # fmt: skip
    return run.train(task, course)


def _pack(run: Run) -> bool:
    """Builds the files of demo/weights from the existing parts."""
    target = run.out / "weights"
    unet, text_encoder, vae = run.trained_models()
    miniature.settle_unseen(text_encoder)
    miniature.save_miniature(
        target / weights.CHECKPOINT, unet=unet, vae=miniature.widened(vae),
        text_encoder=text_encoder, metadata={},
    )  # fmt: skip
    controlnet = miniature.new_controlnet(unet)
    if load_part(run.parts / "controlnet.safetensors", controlnet, missing_ok=True):
        miniature.save_controlnet(target / weights.CONTROLNET, controlnet, {})
    for name in (weights.JUDGE, weights.SECOND_JUDGE):
        if (run.parts / name).is_file():
            save_judge(target / name, load_judge(run.parts / name).network)
    run.options.say(f"wrote {weights.write_digests(target)} and the files that it lists")
    return True


def _unpack(run: Run) -> bool:
    """Splits the files of demo/weights into parts, to train them further."""
    base = load_base(weights.find(weights.CHECKPOINT))
    models = {
        "unet": base.unet, "text_encoder": base.text_encoder, "vae": base.vae,
        "controlnet": miniature.load_controlnet(weights.find(weights.CONTROLNET)),
    }  # fmt: skip
    for name, model in models.items():
        save_part(run.parts / f"{name}.safetensors", model)
    for name in (weights.JUDGE, weights.SECOND_JUDGE):
        save_judge(run.parts / name, load_judge(weights.find(name)).network)
    return True


_STAGES: dict[str, Callable[[Run], bool]] = {
    "draw": _draw, "vae": _vae, "text_encoder": _text_encoder, "unet": _unet,
    "controlnet": _controlnet, "judge": lambda run: _judge(run, "judge", "convolution"),
    "second_judge": lambda run: _judge(run, "second-judge", "patches"),
    "pack": _pack, "unpack": _unpack,
}  # fmt: skip
STAGES = tuple(_STAGES)[:-1]  # in order, without unpack

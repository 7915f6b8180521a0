"""A run from its files to its result: load, encode, train, save. Reads from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from . import checkpoint, draws, dreambooth, lora
from .base_model import BaseModel, load_base
from .cpu import use_matrix_products
from .errors import CheckpointError, Diverged
from .events import Emit
from .health import advice
from .material import draw_missing_class_images, gather
from .objective import alphas_cumprod
from .optimizers import build_optimizer, parameter_groups, rate_factor, set_rates
from .previews import draw_previews, previews_drawn
from .recipe import LoRA, Recipe
from .result import save_adapter_file, write_result
from .run import Meter, Run, usable_precision
from .runs import Result, RunFolder, continued
from .samples import Material, step_samples, validation_samples
from .saving import Checkpoints
from .step import Learner, Prompts, accumulate, losses_of, update
from .stop import Ask, StopSignal
from .text import cut_prompts, tokenize
from .tokenizer import NEVER_SEEN, unknown_words

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def train(folder: RunFolder, accelerator: Accelerator, emit: Emit, stop: StopSignal) -> Result:
    """Trains a prepared run from its newest checkpoint, or from the start, to its result.

    Raises RunCancelled if it is asked to end without one.
    """
    recipe = folder.recipe()
    precision, note = usable_precision(recipe.compute.precision, accelerator.device)
    run = Run(folder, recipe, folder.places(), accelerator, emit, stop, precision)
    if note:
        run.note(note)
    with run.stage("load"):
        base = load(run)
    with run.stage("class images"):
        draw_missing_class_images(run, base)
    with run.stage("encode"):
        material = gather(run, base)
    learner, state = set_up(run, base, material)
    start = resume(run, state)
    with run.stage("train"):
        steps = learn(run, learner, state, material, base, start)
    with run.stage("save"), averaged(state):
        adapter = save_adapter_file(run, base, steps)
    result = write_result(run, adapter, steps)
    if accelerator.is_main_process:
        checkpoint.prune(folder.checkpoints, steps, recipe.saving.keep)
    return result


def load(run: Run) -> BaseModel:
    """The base on the device; frozen weights in the precision, trained ones in fp32."""
    recipe, places, device = run.recipe, run.places, run.accelerator.device
    dtype = DTYPES[run.precision] if isinstance(recipe.method, LoRA) else torch.float32
    base = load_base(
        places.base,
        places.tokenizers,
        prediction=recipe.base.prediction,
        dtype=dtype,
        device=device,
    )
    for module in (base.unet, base.vae, base.text_encoder):
        module.requires_grad_(False)
    if device.type == "cpu":
        use_matrix_products(base.unet)
    if recipe.compute.attention == "xformers":
        if device.type == "cuda":
            base.unet.enable_xformers_memory_efficient_attention()
        else:
            run.note("xformers attention needs a CUDA GPU; PyTorch's own is used.")
    return base


def set_up(run: Run, base: BaseModel, material: Material) -> tuple[Learner, checkpoint.State]:
    """Attaches what is trained and builds the optimizer."""
    recipe, device = run.recipe, run.accelerator.device
    text_encoder = base.text_encoder if recipe.text_encoder.train else None
    if isinstance(recipe.method, LoRA):
        lora.attach(base.unet, text_encoder, recipe.method, draws.derive(recipe.seed, "lora"))
        parameters = lora.trainable(base.unet, text_encoder)
    else:
        dreambooth.attach(base.unet, text_encoder)
        parameters = dreambooth.trainable(base.unet, text_encoder)
    if recipe.compute.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
        if text_encoder is not None:
            # transformers 5 renamed it.
            new = getattr(text_encoder, "activation_checkpointing_enable", None)
            (new or text_encoder.gradient_checkpointing_enable)({"use_reentrant": False})
    base.unet.train()
    base.text_encoder.train(text_encoder is not None)
    if not recipe.previews.every:
        base.vae.to("cpu")
    ids = tokenize(base.tokenizer, material.prompts).to(device)
    if unknown := unknown_words(base.tokenizer, ids.flatten().tolist()):
        run.note(NEVER_SEEN % ", ".join(unknown))
    if cut := cut_prompts(base.tokenizer, material.prompts):
        run.note(cut)
    prompts = Prompts(ids, recipe.text_encoder.clip_skip, base.text_encoder)
    learner = Learner(
        unet=base.unet,
        prompts=prompts,
        alphas=alphas_cumprod().to(device),
        prediction=base.prediction,
        min_snr_gamma=recipe.objective.min_snr_gamma,
        device=device,
        autocast_dtype=None if run.precision == "fp32" else DTYPES[run.precision],
    )
    groups = parameter_groups(
        recipe,
        [p for name, p in parameters.items() if name.startswith("unet.")],
        [p for name, p in parameters.items() if name.startswith("text_encoder.")],
    )
    optimizer = build_optimizer(recipe.optimizer, groups)
    scaler = torch.amp.GradScaler(device.type, enabled=run.precision == "fp16")
    decay = recipe.objective.ema_decay
    average = EMAModel(list(parameters.values()), decay=decay) if decay else None
    return learner, checkpoint.State(parameters, optimizer, scaler, average)


def resume(run: Run, state: checkpoint.State) -> int:
    """Loads the newest whole checkpoint, or the continued run's; returns its step, else 0."""
    recipe, folder = run.recipe, run.folder
    candidates = [(folder.checkpoints, recipe.digest())]
    if recipe.continues:
        earlier = continued(recipe, run.places)
        candidates.append((earlier.checkpoints, recipe.continues))
    for checkpoints, digest in candidates:
        for step in reversed(checkpoint.found(checkpoints)):
            try:
                path = checkpoint.step_folder(checkpoints, step)
                step, run.losses = checkpoint.load(path, state, digest)
            except CheckpointError as error:
                run.note(f"{error} An older one is tried.")
                continue
            run.emit("notice", text=f"Going on from step {step}.")
            return step
    if recipe.continues:
        raise CheckpointError(
            f"The run {recipe.continues[:8]} has no whole checkpoint to go on from."
        )
    return 0


def learn(
    run: Run,
    learner: Learner,
    state: checkpoint.State,
    material: Material,
    base: BaseModel,
    start: int,
) -> int:
    """The loop. Returns the number of steps done: all, or fewer if asked to save what is learned.

    Raises RunCancelled if asked to leave, with a checkpoint saved, and Diverged.
    """
    recipe, accelerator = run.recipe, run.accelerator
    factor = rate_factor(recipe.schedule)
    parameters = list(state.parameters.values())
    meter, checkpoints = Meter(run, start), Checkpoints(run, state)
    if start and _due(recipe.previews.every, start) and not previews_drawn(run, start):
        preview(run, state, base, learner, start)
    last_text_step = text_steps(recipe)
    for step in range(start, recipe.schedule.steps):
        if step >= last_text_step and learner.prompts.embeddings is None:
            learner.prompts.freeze()
        if isinstance(recipe.method, LoRA) and recipe.method.dropout:
            torch.manual_seed(draws.derive(recipe.seed, "dropout", step, accelerator.process_index))
        set_rates(state.optimizer, factor(step))
        batches = step_samples(
            recipe, material, step, accelerator.process_index, accelerator.num_processes
        )
        losses = accumulate(learner, batches, state.scaler)
        if accelerator.num_processes > 1:
            losses = accelerator.reduce(losses, "mean")
        update(parameters, state.optimizer, state.scaler, recipe.optimizer.clip_norm, accelerator)
        if state.average is not None:
            state.average.step(parameters)
        done = step + 1
        ask = run.stop.asked(accelerator, late=checkpoints.late())
        with checkpoints.doubted():
            meter.add(losses, state.optimizer.param_groups[0]["lr"])
            checkpoints.prove(meter.said)
            if done == recipe.schedule.steps or ask or _due(recipe.saving.every, done):
                with meter.paused():
                    checkpoints.save(done)
        if ask is Ask.LEAVE:
            run.leave(done)
        if ask is Ask.SAVE:
            return done
        with meter.paused() if looks(recipe, done) else nullcontext():
            look(run, learner, state, material, base, done)
    return recipe.schedule.steps


def looks(recipe: Recipe, done: int) -> bool:
    """Whether a validation or previews are due after a step."""
    return _due(recipe.validate_every, done) or _due(recipe.previews.every, done)


def look(
    run: Run,
    learner: Learner,
    state: checkpoint.State,
    material: Material,
    base: BaseModel,
    done: int,
) -> None:
    """The validation and the previews that are due after a step."""
    if _due(run.recipe.validate_every, done):
        validate(run, learner, state, material, done)
    if _due(run.recipe.previews.every, done):
        preview(run, state, base, learner, done)


def preview(
    run: Run, state: checkpoint.State, base: BaseModel, learner: Learner, step: int
) -> None:
    """Draws previews, by the main process only."""
    if run.accelerator.is_main_process:
        with averaged(state):
            draw_previews(run, base, learner, step)


def _due(every: int, done: int) -> bool:
    return bool(every) and done % every == 0


def text_steps(recipe: Recipe) -> int:
    """How many steps the text encoder learns for."""
    if not recipe.text_encoder.train:
        return 0
    return recipe.text_encoder.last_step or recipe.schedule.steps


def validate(
    run: Run, learner: Learner, state: checkpoint.State, material: Material, step: int
) -> None:
    """The loss on held-out photographs at fixed noise and timesteps, without dropout.

    Raises Diverged if it is not a number.
    """
    with torch.no_grad(), averaged(state), learner.evaluating(anew=state.average is not None):
        losses = [
            losses_of(learner, [sample]) for sample in validation_samples(run.recipe, material)
        ]
    loss = float(torch.cat(losses).mean())
    if not math.isfinite(loss):
        raise Diverged(f"The validation loss became {loss} at step {step}. {advice(run.recipe)}")
    run.emit("validation", step=step, loss=loss)


@contextmanager
def averaged(state: checkpoint.State) -> Iterator[None]:
    """The averaged weights in place of the trained ones, where the run averages."""
    if state.average is None:
        yield
        return
    parameters = list(state.parameters.values())
    state.average.store(parameters)
    state.average.copy_to(parameters)
    try:
        yield
    finally:
        state.average.restore(parameters)

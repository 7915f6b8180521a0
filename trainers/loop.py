"""A run from its files to its result: load, encode, train, save. Reads from top to bottom."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import Parameter

from . import checkpoint, draws, dreambooth, lora
from .averaging import average_weights, averaged
from .base_model import BaseModel, load_base
from .computing import (
    DTYPES,
    check_memory,
    check_tier,
    checkpoint_activations,
    chosen_tier,
    fall,
    forward_backward_of,
    recordable,
    unet_to_train,
    use_xformers,
)
from .cpu import fit_to_cpu, threads_for
from .embeddings import kept_embeddings
from .errors import CheckpointError, OtherOptimizer, RunFailed
from .events import Emit
from .gpus import usable_precision
from .looks import catch_up, due, look, looks
from .material import draw_missing_class_images, gather
from .memory import is_out_of_memory, release_memory
from .objective import alphas_cumprod
from .optimizers import (
    build_optimizer,
    effective_rate,
    eight_bit_fault,
    parameter_groups,
    rate_factor,
    rate_rises,
    set_rates,
    slow_on_cpu,
)
from .recipe import DreamBooth, LoRA, Recipe
from .remarks import note_beginning
from .result import save_adapter_file, write_result
from .run import Meter, Run
from .runs import Result, RunFolder, earlier_runs
from .samples import Material, stacked, step_samples
from .saving import Checkpoints
from .single_file import check_savable
from .step import ForwardBackward, Learner, Prompts, accumulate, update
from .stop import Ask, StopSignal
from .teacher import teacher_of
from .text import tokenize
from .tiers import Tier


def train(folder: RunFolder, accelerator: Accelerator, emit: Emit, stop: StopSignal) -> Result:
    """Trains a prepared run from its newest checkpoint, or from the start, to its result.

    Where the memory does not do for it, it starts again from there in the next memory tier.
    Raises RunCancelled if it is asked to end without one.
    """
    recipe = folder.recipe()
    precision, note = usable_precision(recipe.compute.precision, accelerator.device)
    run = Run(folder, recipe, folder.places(), accelerator, emit, stop, precision)
    if note:
        run.note(note)
    while True:
        try:
            return attempt(run)
        except Exception as error:
            if not is_out_of_memory(error) or not fall(run):
                raise
        release_memory()  # here the error, whose traceback holds the models, is gone


def attempt(run: Run) -> Result:
    """One attempt at a run, in its memory tier."""
    run.losses, run.tier = [], None
    run.forget_peak()
    with run.stage("load"):
        base = load(run)
        note_beginning(run, base)
    with run.stage("class images"):
        draw_missing_class_images(run, base)
    with run.stage("encode"):
        material = gather(run, base)
    training = set_up(run, base, material)
    start = resume(run, training.state)
    with run.stage("train"):
        steps = learn(run, training, start)
    with run.stage("save"), averaged(training.state):
        adapter = save_adapter_file(run, base, steps)
    result = write_result(run, adapter, steps)
    if run.accelerator.is_main_process:
        keep = run.recipe.saving.keep  # one that was stopped may go on
        checkpoint.prune(run.folder.checkpoints, steps, max(keep, result.stopped))
    return result


def load(run: Run) -> BaseModel:
    """The base on the device; frozen weights in the precision, trained ones in fp32."""
    recipe, places, device = run.recipe, run.places, run.accelerator.device
    check_tier(run)
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
    fault = eight_bit_fault(device) if recipe.optimizer.name == "adamw8bit" else None
    if fault is not None:  # before class images are drawn
        raise RunFailed(
            f"8-bit Adam (bitsandbytes) does not work here: {fault}. Install bitsandbytes anew, or "
            "choose the optimizer adamw: 'auto' takes 8-bit Adam where bitsandbytes is installed."
        )
    if isinstance(recipe.method, DreamBooth):
        check_savable(base)
    check_memory(run, base)
    if device.type == "cpu":
        fit_to_cpu(base.unet)
    if recipe.compute.attention == "xformers":
        use_xformers(run, base)
    return base


@dataclass(frozen=True)
class Training:
    """What the loop works with."""

    base: BaseModel
    material: Material
    learner: Learner
    state: checkpoint.State
    tier: Tier


def set_up(run: Run, base: BaseModel, material: Material) -> Training:
    """Attaches what is trained, chooses the memory tier and builds the optimizer."""
    recipe = run.recipe
    ids = tokenize(base.tokenizer, material.prompts).to(run.accelerator.device)  # (p, 77)
    teacher = teacher_of(recipe, base, ids, DTYPES[run.precision])
    parameters = attach(recipe, base)
    base.unet.train()
    base.text_encoder.train(recipe.text_encoder.train)
    put_away(base.vae)
    tier = chosen_tier(run, base, parameters)
    if tier.checkpointing:
        checkpoint_activations(base, recipe)
    if tier.in_backward and run.precision == "fp16":
        run.precision = "bf16"
        run.note("This memory tier computes in bf16: fp16 would need gradients that are kept.")
    kept = kept_embeddings(run, base.text_encoder, ids)
    prompts = Prompts(ids, recipe.text_encoder.clip_skip, base.text_encoder, kept)
    learner = Learner(
        unet=unet_to_train(run, base),
        prompts=prompts,
        alphas=alphas_cumprod().to(ids.device),
        prediction=base.prediction,
        min_snr_gamma=recipe.objective.min_snr_gamma,
        device=ids.device,
        autocast_dtype=None if run.precision == "fp32" else DTYPES[run.precision],
        teacher=teacher,
    )
    state = state_of(run, tier, parameters)
    release_memory()  # gradients are born in the first step, best not in pieces of the encoder's
    return Training(base, material, learner, state, tier)


def attach(recipe: Recipe, base: BaseModel) -> dict[str, Parameter]:
    """Attaches what is trained; returns its parameters by name."""
    text_encoder = base.text_encoder if recipe.text_encoder.train else None
    if isinstance(recipe.method, LoRA):
        lora.attach(base.unet, text_encoder, recipe.method, draws.derive(recipe.seed, "lora"))
        return lora.trainable(base.unet, text_encoder)
    dreambooth.attach(base.unet, text_encoder)
    return dreambooth.trainable(base.unet, text_encoder)


def state_of(run: Run, tier: Tier, parameters: dict[str, Parameter]) -> checkpoint.State:
    """The optimizer and all else that changes with the parameters."""
    recipe = run.recipe
    groups = parameter_groups(
        recipe,
        [p for name, p in parameters.items() if name.startswith("unet.")],
        [p for name, p in parameters.items() if name.startswith("text_encoder.")],
    )
    kind = "adamw8bit" if tier.eight_bit else recipe.optimizer.name
    device = run.accelerator.device.type
    trained = sum(parameter.numel() for parameter in parameters.values())
    if note := slow_on_cpu(recipe.optimizer, trained, device):
        run.note(note)
    optimizer = build_optimizer(recipe.optimizer.model_copy(update={"name": kind}), groups)
    scaler = torch.amp.GradScaler(device, enabled=run.precision == "fp16")
    decay = recipe.objective.ema_decay
    # All at once copies what it averages: not for whole models.
    together = isinstance(recipe.method, LoRA)
    weights = list(parameters.values())
    average = EMAModel(weights, decay=decay, foreach=together) if decay else None
    return checkpoint.State(parameters, optimizer, scaler, average)


def resume(run: Run, state: checkpoint.State) -> int:
    """Loads the newest whole checkpoint, or one of a run of the same lesson, or the continued
    run's; returns its step, else 0. Raises OtherOptimizer for a whole one that does not fit.
    """
    recipe, folder = run.recipe, run.folder
    candidates = [(folder.checkpoints, recipe)]
    for other in earlier_runs(recipe, run.places):
        candidates.append((other.checkpoints, other.recipe()))
    damaged = False
    for checkpoints, before in candidates:
        for step in reversed(checkpoint.found(checkpoints)):
            if step > recipe.schedule.steps:  # a run that is continued went on meanwhile
                continue
            try:
                path = checkpoint.step_folder(checkpoints, step)
                step, run.losses = checkpoint.load(path, state, before.digest())
            except OtherOptimizer:
                raise  # it is whole: to begin anew is for the user to say
            except CheckpointError as error:
                run.note(str(error))
                damaged = True
                continue
            run.emit("notice", text=f"Going on from step {step}.")
            if note := rate_rises(before, recipe, step):
                run.note(note)
            return step
    if recipe.continues:
        raise CheckpointError("The run that this one continues has no checkpoint to go on from.")
    if damaged:
        run.note("No checkpoint can be used, so training begins anew, from step 0.")
    return 0


def learn(run: Run, training: Training, start: int) -> int:
    """The loop. Returns the number of steps done: all, or fewer if asked to save what is learned.

    Raises RunCancelled if asked to leave, with a checkpoint saved, and Diverged.
    """
    recipe, state = run.recipe, training.state
    factor, last_text_step = rate_factor(recipe.schedule), text_steps(recipe)
    catch_up(run, training, start)
    recorded = recordable(run, training.tier)
    backward = forward_backward_of(run, training.learner, state, training.tier, recorded=recorded)
    meter, checkpoints = Meter(run, start), Checkpoints(run, state)
    for step in range(start, recipe.schedule.steps):
        if step >= last_text_step and training.learner.prompts.embeddings is None:
            training.learner.freeze_prompts()
            put_away_text_encoder(recipe, training.base)
            state.optimizer.zero_grad()  # what has no gradient any more is not updated any more
        set_rates(state.optimizer, factor(step))
        rate = effective_rate(state.optimizer)
        losses = advance(run, training, backward, step, recorded=recorded)
        done = step + 1
        ask = run.stop.asked(run.accelerator, late=checkpoints.late())
        with checkpoints.doubted():
            meter.add(losses, rate)
            checkpoints.prove(meter.said)
            if done == recipe.schedule.steps or ask or due(recipe.saving.every, done):
                with meter.paused():
                    checkpoints.prove(meter.said)  # all losses are read now
                    last = done == recipe.schedule.steps
                    checkpoints.save(done, needed=last or ask > Ask.CHECKPOINT)
        if ask is Ask.LEAVE:
            run.leave(done)
        if ask is Ask.SAVE:
            return done
        with meter.paused() if looks(recipe, done) else nullcontext():
            look(run, training, done, backward)
    return recipe.schedule.steps


def put_away_text_encoder(recipe: Recipe, base: BaseModel) -> None:
    """Frees the device of the text encoder, where nothing asks it any more."""
    learns = recipe.text_encoder.train  # its weights are then in the optimizer and checkpoints
    if not (learns or recipe.objective.ema_decay):
        put_away(base.text_encoder)


def put_away(model: nn.Module) -> None:
    """Frees the device of a model that nothing asks any more."""
    model.to("cpu")


def advance(
    run: Run, training: Training, backward: ForwardBackward, step: int, *, recorded: bool
) -> Tensor:
    """One optimizer step; returns its losses (2,), the mean over processes, on the device."""
    recipe, state, accelerator = run.recipe, training.state, run.accelerator
    rank, world = accelerator.process_index, accelerator.num_processes
    if isinstance(recipe.method, LoRA) and recipe.method.dropout:
        torch.manual_seed(draws.derive(recipe.seed, "dropout", step, rank))
    device, parameters = accelerator.device, list(state.parameters.values())
    samples = step_samples(recipe, training.material, step, rank, world)
    losses = accumulate(backward, (stacked(batch, device) for batch in samples), device)
    if world > 1:
        losses = accelerator.reduce(losses, "mean")
    with threads_for(parameters):
        if not training.tier.in_backward:
            clip = recipe.optimizer.clip_norm
            update(parameters, state.optimizer, state.scaler, clip, accelerator, recorded)
        average_weights(state, text_frozen=training.learner.prompts.embeddings is not None)
    return losses


def text_steps(recipe: Recipe) -> int:
    """How many steps the text encoder learns for."""
    if not recipe.text_encoder.train:
        return 0
    return recipe.text_encoder.last_step or recipe.schedule.steps

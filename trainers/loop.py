"""A training run from start to finish: load, encode, train, save. Reads from top to bottom."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import Parameter

from . import checkpoint, dreambooth, lora, rng
from .base_model import BaseModel, load_base
from .batches import Dataset, collate, step_samples
from .checkpoint_manager import CheckpointManager
from .compute import (
    DTYPES,
    build_forward_backward,
    can_capture_graphs,
    enable_gradient_checkpointing,
    enable_xformers,
    maybe_compile_unet,
)
from .cpu import limited_threads, prepare_for_cpu
from .dataset import build_dataset, draw_missing_class_images
from .earlier_runs import saved_states, unused_state_note
from .ema import ema_weights, update_ema
from .embeddings import open_embedding_cache
from .errors import CheckpointError, OptimizerMismatch, RunFailed
from .evaluation import evaluate_on_resume, is_due_at, is_evaluation_due, run_evaluations
from .events import Emit
from .gpu_capabilities import allow_tf32, usable_precision
from .lora_layers import layers_of
from .lora_start import check_start, load_start
from .memory import is_out_of_memory, release_memory
from .memory_tiers import Tier
from .objective import alphas_cumprod
from .optimizers import (
    build_optimizer,
    effective_lr,
    eight_bit_error,
    lr_lambda,
    lr_rise_note,
    parameter_groups,
    set_lrs,
    slow_on_cpu_note,
)
from .places import Places
from .recipe import DreamBooth, LoRA, Recipe
from .result import save_adapter_file, write_result
from .run import Run, StepLogger
from .run_folder import Result, RunFolder
from .single_file import check_savable
from .startup_notes import note_startup, processes_note
from .step import ForwardBackward, Learner, PromptEncoder, accumulate_gradients, update
from .stop import StopRequest, StopSignal
from .teacher import build_teacher
from .text_encoding import tokenize
from .tier_choice import check_memory, check_tier, choose_tier, fall_back_to_lower_tier
from .tokenizer import CHUNK_LENGTH


def train(folder: RunFolder, accelerator: Accelerator, emit: Emit, stop: StopSignal) -> Result:
    """Trains a prepared run to its result, from its newest checkpoint or from step 0.

    When memory runs out, falls back to the next memory tier and resumes from that checkpoint.
    Several processes cannot do so by themselves: raises RestartNeeded once that tier is saved.
    Raises RunCancelled if asked to stop without a result.
    """
    recipe = folder.recipe()
    precision, note = usable_precision(recipe.compute.precision, accelerator.device)
    run = Run(folder, recipe, folder.places(), accelerator, emit, stop, precision)
    if note:
        run.note(note)
    while True:
        try:
            return run_attempt(run)
        except Exception as error:
            if not is_out_of_memory(error) or not fall_back_to_lower_tier(run):
                raise
        release_memory()  # outside `except`: the error's traceback would keep the models alive


def run_attempt(run: Run) -> Result:
    """Makes one attempt at a run, in one memory tier."""
    run.losses, run.tier = [], None
    run.reset_peak_memory()
    allow_tf32(False)
    with run.stage("load"):
        base = load(run)
        note_startup(run, base)
    with run.stage("class images"):
        draw_missing_class_images(run, base)
    with run.stage("encode"):
        dataset = build_dataset(run, base)
    training = prepare_training(run, base, dataset)
    start = resume(run, training.state)
    allow_tf32(run.uses_tf32)
    with run.stage("train"):
        steps = train_loop(run, training, start)
    with run.stage("save"), ema_weights(training.state):
        adapter = save_adapter_file(run, base, steps)
    result = write_result(run, adapter, steps)
    if run.accelerator.is_main_process:
        keep = run.recipe.saving.keep  # a stopped run may be resumed
        checkpoint.prune(run.folder.checkpoints, steps, max(keep, result.stopped))
    return result


def load(run: Run) -> BaseModel:
    """Loads the base onto the device: frozen weights in the run's precision, trained in fp32."""
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
    if places.start is not None:
        check_start(places.start, recipe, layers_of(base))
    problem = eight_bit_error(device) if recipe.optimizer.name == "adamw8bit" else None
    if problem is not None:  # before class images are drawn
        raise RunFailed(
            f"8-bit Adam (bitsandbytes) does not work here: {problem}. Reinstall bitsandbytes, or "
            "choose the optimizer adamw: 'auto' uses 8-bit Adam where bitsandbytes is installed."
        )
    if isinstance(recipe.method, DreamBooth):
        check_savable(base)
    check_memory(run, base)
    if device.type == "cpu":
        prepare_for_cpu(base.unet)
    if recipe.compute.attention == "xformers":
        enable_xformers(run, base)
    return base


@dataclass(frozen=True)
class Training:
    """All that the training loop works on."""

    base: BaseModel
    dataset: Dataset
    learner: Learner
    state: checkpoint.TrainingState
    tier: Tier


def prepare_training(run: Run, base: BaseModel, dataset: Dataset) -> Training:
    """Sets up the trained parameters, the memory tier, the learner and the optimizer."""
    recipe = run.recipe
    ids = tokenize(base.tokenizer, dataset.prompts, recipe.text_encoder.max_tokens)  # (p, 77 k)
    ids = ids.to(run.accelerator.device)
    teacher = build_teacher(recipe, base, ids, DTYPES[run.precision])
    parameters = attach(recipe, base, run.places)
    base.unet.train()
    base.text_encoder.train(recipe.text_encoder.train)
    offload(base.vae)
    tier = choose_tier(run, base, parameters, chunks=ids.shape[1] // CHUNK_LENGTH)
    if tier.text_encoder_on_cpu:
        offload(base.text_encoder)
    if tier.checkpointing:
        enable_gradient_checkpointing(base, recipe)
    if tier.in_backward and run.precision == "fp16":
        run.precision = "bf16"
        run.note("This memory tier trains in bf16: fp16 loss scaling needs all gradients at once.")
    embedding_cache = open_embedding_cache(run, base.text_encoder, ids)
    prompts = PromptEncoder(ids, recipe.text_encoder.clip_skip, base.text_encoder, embedding_cache)
    learner = Learner(
        unet=maybe_compile_unet(run, base),
        prompts=prompts,
        alphas=alphas_cumprod().to(ids.device),
        prediction=base.prediction,
        min_snr_gamma=recipe.objective.min_snr_gamma,
        device=ids.device,
        autocast_dtype=None if run.precision == "fp32" else DTYPES[run.precision],
        teacher=teacher,
    )
    state = build_state(run, tier, parameters)
    release_memory()  # else the first gradients land in fragments that the encoders left
    return Training(base, dataset, learner, state, tier)


def attach(recipe: Recipe, base: BaseModel, places: Places) -> dict[str, Parameter]:
    """Sets up what the method trains; returns its parameters by name."""
    text_encoder = base.text_encoder if recipe.text_encoder.train else None
    if isinstance(recipe.method, LoRA):
        start = None
        if recipe.start and places.start:
            start = load_start(places.start, recipe.start, places.cache, layers_of(base))
        lora.attach(base.unet, text_encoder, recipe.method, rng.derive_seed(recipe.seed, "lora"))
        if start:
            lora.start_from(base.unet, text_encoder, recipe.method, start)
        return lora.trainable_parameters(base.unet, text_encoder)
    dreambooth.attach(base.unet, text_encoder)
    return dreambooth.trainable_parameters(base.unet, text_encoder)


def build_state(run: Run, tier: Tier, parameters: dict[str, Parameter]) -> checkpoint.TrainingState:
    """Builds the optimizer, gradient scaler and EMA over the trained parameters."""
    recipe = run.recipe
    groups = parameter_groups(
        recipe,
        [p for name, p in parameters.items() if name.startswith("unet.")],
        [p for name, p in parameters.items() if name.startswith("text_encoder.")],
    )
    kind = "adamw8bit" if tier.eight_bit else recipe.optimizer.name
    device = run.accelerator.device.type
    trained = sum(parameter.numel() for parameter in parameters.values())
    if note := slow_on_cpu_note(recipe.optimizer, trained, device):
        run.note(note)
    optimizer = build_optimizer(recipe.optimizer.model_copy(update={"name": kind}), groups)
    scaler = torch.amp.GradScaler(device, enabled=run.precision == "fp16")
    decay = recipe.objective.ema_decay
    # foreach copies the weights that it averages: too much for a full model.
    foreach = isinstance(recipe.method, LoRA)
    weights = list(parameters.values())
    ema = EMAModel(weights, decay=decay, foreach=foreach) if decay else None
    return checkpoint.TrainingState(parameters, optimizer, scaler, ema)


def resume(run: Run, state: checkpoint.TrainingState) -> int:
    """Loads the best complete one of the `saved_states`. Returns its step, or 0.

    Raises OptimizerMismatch for a complete one with another optimizer's state, and
    CheckpointError if a continued run has none.
    """
    recipe, damaged = run.recipe, False
    for saved in saved_states(run.folder, recipe, run.places):
        try:
            path = checkpoint.step_folder(saved.run.checkpoints, saved.step)
            step, run.losses = checkpoint.load(path, state, saved.recipe.digest())
        except OptimizerMismatch:
            raise  # it is complete: starting over is for the user to decide
        except CheckpointError as error:
            run.note(str(error))
            damaged = True
            continue
        run.resumed_from = saved.run
        other = saved.run.path.name
        of_run = "" if other == run.folder.path.name else f" of the run {other}"
        run.emit("notice", text=f"Resuming from step {step}{of_run}.")
        processes = checkpoint.saved_processes(path), run.accelerator.num_processes
        for note in (lr_rise_note(saved.recipe, recipe, step), processes_note(*processes)):
            if note:
                run.note(note)
        return step
    if recipe.continues:
        raise CheckpointError(
            "The run that this one continues has no training state to resume from."
        )
    if damaged:
        run.note("No saved training state can be used; training restarts from step 0.")
    elif note := unused_state_note(recipe, run.places):
        run.note(note)
    return 0


def train_loop(run: Run, training: Training, start: int) -> int:
    """Runs the training loop. Returns the number of steps done: fewer than all if asked to save.

    Raises RunCancelled if asked to leave, after saving a checkpoint; raises Diverged.
    """
    recipe, state = run.recipe, training.state
    factor, last_text_step = lr_lambda(recipe.schedule), text_encoder_steps(recipe)
    evaluate_on_resume(run, training, start)
    graphed = can_capture_graphs(run, training.tier)
    backward = build_forward_backward(run, training.learner, state, training.tier, graphed=graphed)
    logger = StepLogger(run, start, state.scaler)
    checkpoints = CheckpointManager(run, state)
    for step in range(start, recipe.schedule.steps):
        if step >= last_text_step and training.learner.prompts.embeddings is None:
            training.learner.freeze_prompts()
            offload_text_encoder(recipe, training.base)
            state.optimizer.zero_grad()  # parameters without a gradient are not updated
        set_lrs(state.optimizer, factor(step))
        rate = effective_lr(state.optimizer)
        losses = training_step(run, training, backward, step, graphed=graphed)
        done = step + 1
        request = run.stop.asked(run.accelerator, save_due=checkpoints.save_due())
        with checkpoints.discard_on_divergence():
            logger.add(losses, rate)
            checkpoints.confirm(logger.last_logged)
            if done == recipe.schedule.steps or request or is_due_at(recipe.saving.every, done):
                with logger.paused():
                    checkpoints.confirm(logger.last_logged)  # all losses have been read
                    last = done == recipe.schedule.steps
                    checkpoints.save(done, needed=last or request > StopRequest.CHECKPOINT)
        if request is StopRequest.LEAVE:
            run.stop_at(done)
        if request is StopRequest.SAVE:
            return done
        with logger.paused() if is_evaluation_due(recipe, done) else nullcontext():
            run_evaluations(run, training, done, backward)
    if start == recipe.schedule.steps and run.resumed_from != run.folder:
        checkpoints.save(start)  # else this run could not be continued
    return recipe.schedule.steps


def offload_text_encoder(recipe: Recipe, base: BaseModel) -> None:
    """Moves the text encoder to the CPU if it is no longer used."""
    if not recipe.text_encoder.train:  # else the optimizer and checkpoints hold its weights
        offload(base.text_encoder)


def offload(model: nn.Module) -> None:
    """Moves a model to the CPU."""
    model.to("cpu")


def training_step(
    run: Run, training: Training, backward: ForwardBackward, step: int, *, graphed: bool
) -> Tensor:
    """Runs one optimizer step; returns its losses (2,), averaged over processes, on the device."""
    recipe, state, accelerator = run.recipe, training.state, run.accelerator
    rank, world_size = accelerator.process_index, accelerator.num_processes
    if isinstance(recipe.method, LoRA) and recipe.method.dropout:
        torch.manual_seed(rng.derive_seed(recipe.seed, "dropout", step, rank))
    device, parameters = accelerator.device, list(state.parameters.values())
    samples = step_samples(recipe, training.dataset, step, rank, world_size)
    losses = accumulate_gradients(backward, (collate(batch, device) for batch in samples), device)
    if world_size > 1:
        losses = accelerator.reduce(losses, "mean")
    with limited_threads(parameters):
        if not training.tier.in_backward:
            clip = recipe.optimizer.max_grad_norm
            update(parameters, state.optimizer, state.scaler, clip, accelerator, graphed)
        update_ema(state, text_frozen=training.learner.prompts.embeddings is not None)
    return losses


def text_encoder_steps(recipe: Recipe) -> int:
    """Number of steps for which the text encoder is trained."""
    if not recipe.text_encoder.train:
        return 0
    return recipe.text_encoder.last_step or recipe.schedule.steps

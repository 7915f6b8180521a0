"""Which memory tier a run trains in, by its recipe, the machine and an existing checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import psutil
import torch
from accelerate import Accelerator
from torch.nn import Parameter

from . import dreambooth, memory_tiers
from .base_model import BaseModel
from .earlier_runs import SavedState, forget_shared_state, saved_states
from .errors import OptimizerMismatch, OutOfMemory, RestartNeeded
from .gpu_capabilities import has_bf16
from .memory_tiers import ModelSize, Tier
from .optimizers import eight_bit_error
from .packages import eight_bit_unavailable_reason
from .recipe import DreamBooth, Recipe
from .run import Run
from .tokenizer import CHUNK_TOKENS


def detect_machine(
    recipe: Recipe, precision: str, accelerator: Accelerator
) -> memory_tiers.Machine:
    """Properties of this machine that decide which memory tiers a recipe can use."""
    device = accelerator.device
    # Tested only if it matters: a build for other GPUs may crash the process.
    bitsandbytes = isinstance(recipe.method, DreamBooth) and has_8bit_adam(device)
    return memory_tiers.Machine(
        precision=precision,
        has_bf16=has_bf16(device),
        processes=accelerator.num_processes,
        bitsandbytes=bitsandbytes,
        cpu_8bit_adam=bitsandbytes and device.type != "cpu" and has_8bit_adam(torch.device("cpu")),
    )


def has_8bit_adam(device: torch.device) -> bool:
    """Whether 8-bit Adam is installed and works."""
    return eight_bit_unavailable_reason() is None and eight_bit_error(device) is None


def check_tier(run: Run) -> None:
    """Checks, before the base is loaded, that the run has a memory tier.

    Raises RecipeError if the recipe's tier cannot be used here, and OptimizerMismatch if none can
    resume from the existing state.
    """
    _candidate_tiers(run)


def _candidate_tiers(run: Run) -> list[Tier]:
    """Available tiers that can resume from the state that the run starts from, fastest first."""
    found = memory_tiers.available(
        run.recipe, detect_machine(run.recipe, run.precision, run.accelerator)
    )
    state = _first_state(run)
    before = memory_tiers.load_tier(state.run.tier_file) if state else None
    if state is None or before is None:
        return found
    fitting = [t for t in found if memory_tiers.is_state_compatible(t, before, run.recipe)]
    if fitting:
        return fitting
    if not state.shared:
        raise OptimizerMismatch(memory_tiers.incompatible_state_message(before, run.recipe))
    _forget_shared_state(run, state)
    return _candidate_tiers(run)


def _first_state(run: Run) -> SavedState | None:
    """The training state that a run starts from, its own or another run's; None if none."""
    return next(iter(saved_states(run.folder, run.recipe, run.places)), None)


def _forget_shared_state(run: Run, state: SavedState) -> None:
    """Has a run do without the state of another run that its memory tiers cannot use."""
    run.note(
        f"The training state of {state.run.path.name} after step {state.step} is not used: another "
        "memory tier saved it, with another optimizer's state."
    )
    forget_shared_state(run.folder)


def choose_tier(
    run: Run, base: BaseModel, parameters: Mapping[str, Parameter], chunks: int = 1
) -> Tier:
    """Chooses the tier used before by the run or the one it continues, else the fastest that fits.

    It is saved with the run. Raises as `check_tier`.
    """
    choice, note = _candidate_tiers(run), None
    state = _first_state(run)
    before = memory_tiers.load_tier(state.run.tier_file) if state and not state.shared else None
    taken = (memory_tiers.load_tier(run.folder.tier_file), before)
    tier = next((one for one in taken if one in choice), None)
    if tier is None:
        size = model_size(run.recipe, base, parameters, chunks)
        free = free_memory(run.accelerator)
        tier, note = memory_tiers.select_tier(choice, run.recipe, run.precision, size, free)
    if note:
        run.note(note)
    if run.accelerator.is_main_process:
        memory_tiers.save_tier(run.folder.tier_file, tier)
    run.tier = tier
    return tier


def check_memory(run: Run, base: BaseModel) -> None:
    """Raises OutOfMemory if a GPU cannot hold a full fine-tune in any tier, before class images
    are drawn.
    """
    recipe, accelerator = run.recipe, run.accelerator
    if not isinstance(recipe.method, DreamBooth) or accelerator.device.type != "cuda":
        return
    text_encoder = base.text_encoder if recipe.text_encoder.train else None
    parameters = dreambooth.trainable_parameters(base.unet, text_encoder)
    why = memory_tiers.no_fit_reason(
        recipe,
        detect_machine(recipe, run.precision, accelerator),
        model_size(recipe, base, parameters, recipe.text_encoder.max_tokens // CHUNK_TOKENS),
        free_memory(accelerator),
    )
    if why is not None:
        raise OutOfMemory(why)


def model_size(
    recipe: Recipe, base: BaseModel, parameters: Mapping[str, Parameter], chunks: int
) -> ModelSize:
    """Size of a recipe's step with prompts of so many chunks.

    Images of other shapes have about as many pixels.
    """
    samples = recipe.schedule.batch_size * (2 if recipe.prior else 1)
    prompts = min(samples, recipe.schedule.batch_size + 1) if recipe.text_encoder.train else 0
    counts = {name: parameter.numel() for name, parameter in parameters.items()}
    return ModelSize(
        trained=sum(counts.values()),
        text=sum(count for name, count in counts.items() if name.startswith("text_encoder.")),
        largest=max(counts.values()),
        unet=sum(parameter.numel() for parameter in base.unet.parameters()),
        pixels=samples * (recipe.subject.resolution // 8) ** 2,
        chunks=prompts * chunks,
    )


def free_memory(accelerator: Accelerator) -> int:
    """Bytes available to a run on its device: the minimum over all processes."""
    device = accelerator.device
    if device.type != "cuda":
        free = psutil.virtual_memory().available // accelerator.num_processes
    else:
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info()[0] + unused
    if accelerator.num_processes == 1:
        return free
    mine = torch.tensor(float(free), dtype=torch.float64, device=device)
    return int(accelerator.gather(mine).min())


def fall_back_to_lower_tier(run: Run) -> bool:
    """Selects the next lower tier after running out of memory; returns whether to restart in it.

    False before a tier is chosen: loading and encoding take the same memory in every tier.
    Raises RestartNeeded if other processes train too: they wait for this one's gradients, so that
    all have to be started again.
    """
    before = run.tier
    if before is None:
        return False
    choice = memory_tiers.available(
        run.recipe, detect_machine(run.recipe, run.precision, run.accelerator)
    )
    lower = memory_tiers.next_lower_tier(before, choice)
    if lower is None or _would_break_resume(run, before, lower):
        return False
    memory_tiers.save_tier(run.folder.tier_file, lower)
    text = f"Memory tier {before.name!r} ran out of memory; the run"
    tier = f"tier {lower.name!r}: {lower.description}."
    if run.accelerator.num_processes > 1:
        raise RestartNeeded(f"{text}'s next start uses {tier}")
    run.note(f"{text} restarts in {tier}")
    return True


def _would_break_resume(run: Run, before: Tier, lower: Tier) -> bool:
    """Whether a lower tier's optimizer cannot resume from the existing checkpoint; notes it.

    With several processes raises OutOfMemory with the note, which others than the main one cannot
    report otherwise.
    """
    state = _first_state(run)
    if state is None or memory_tiers.is_state_compatible(lower, before, run.recipe):
        return False
    if state.shared:
        _forget_shared_state(run, state)
        return _would_break_resume(run, before, lower)
    text = (
        f"Memory tier {lower.name!r} needs less memory, but its optimizer cannot resume from this "
        "run's training state. Free some memory to resume, or train from the start with "
        f"compute.memory {lower.name}."
    )
    if run.accelerator.num_processes > 1:
        raise OutOfMemory(f"Out of memory. {text}")
    run.note(text)
    return True

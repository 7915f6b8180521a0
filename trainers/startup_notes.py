"""Notes at the start of a run: on its prompts, images and learning rate."""

from __future__ import annotations

from collections.abc import Sequence

from .adapter import read_metadata
from .base_model import BaseModel
from .dataset import all_prompts, photo_prompts
from .photo_manifest import load_class_photos, load_subject_photos
from .recipe import DreamBooth
from .run import Run
from .subject import PhotoSet
from .text_encoding import truncation_note, word_ids
from .tokenizer import UNKNOWN_WORDS_NOTE, unknown_words

_MAX_LISTED = 5  # of one kind; the rest are in photos.json
_FEW_PASSES, _MANY_PASSES = 20, 300  # over the photographs; 50 to 100 is usual
_HIGH_LR = 1e-5  # for full fine-tuning of SD 1.5
_FULL_SIZE_UNET = 100_000_000  # UNet weights; a miniature needs other rates


def note_startup(run: Run, base: BaseModel) -> None:
    """Emits all notes, before anything is drawn.

    Raises SubjectError if the photographs changed since the recipe was bound.
    """
    note_passes(run)
    note_images(run)
    note_start(run)
    note_learning_rate(run, base)
    note_unreached(run)
    note_prompts(run, base)


def note_passes(run: Run) -> None:
    """Notes how often the run sees each photograph (epochs), and whether that is unusual."""
    recipe, held_out = run.recipe, run.recipe.subject.holdout
    photos = load_subject_photos(run.folder.photos_file, recipe, run.places.photos).photos
    count, steps = len(photos) - held_out, recipe.schedule.steps
    batch = recipe.schedule.batch_size * recipe.schedule.gradient_accumulation_steps
    per_step = batch * run.accelerator.num_processes
    passes = steps * per_step / count
    hint = ""
    if passes < _FEW_PASSES:
        hint = " That is little, 50 to 100 is usual: raise steps."
    elif passes > _MANY_PASSES:
        hint = (
            " That is much, 50 to 100 is usual: the model may come to repeat the photographs; "
            "lower steps."
        )
    run.note(
        f"{count} photograph{'s' if count > 1 else ''}"
        + (f" ({held_out} more held out)" if held_out else "")
        + f", {steps} steps of {per_step}: each is seen {passes:.{0 if passes >= 10 else 1}f} "
        f"times (epochs).{hint}"
    )


def note_images(run: Run) -> None:
    """Notes which photographs, and which of the user's own class images, are not used and why, and
    the remarks on the others.
    """
    recipe, places, file = run.recipe, run.places, run.folder.photos_file
    _note_set(run, "Photographs", load_subject_photos(file, recipe, places.photos))
    if places.class_images is not None and recipe.prior and recipe.prior.images:
        _note_set(run, "Class images", load_class_photos(file, recipe, places.class_images))


def _note_set(run: Run, what: str, images: PhotoSet) -> None:
    if images.refused:
        lines = [f"{file.name}: {file.reason}" for file in images.refused]
        used = len(images.photos)
        run.note(_bullet_list(f"{what}: {used} used, {len(lines)} not used:", lines))
    if images.notes:
        run.note(_bullet_list(f"{what}:", images.notes))


def _bullet_list(head: str, lines: Sequence[str]) -> str:
    left = len(lines) - _MAX_LISTED
    more = [f"and {left} more, in photos.json in the run folder"] if left > 0 else []
    return "\n- ".join([head, *lines[:_MAX_LISTED], *more])


def note_start(run: Run) -> None:
    """Notes that the LoRA file that training starts from was trained on another base."""
    start, base = run.places.start, run.recipe.base.digest
    if start is not None and read_metadata(start).base not in (None, base):
        run.note(f"{start.name}, from which the training starts, was trained on another base.")


def processes_note(before: int | None, now: int) -> str | None:
    """A note for a resumed run that another number of processes trained so far; None otherwise."""
    if before in (None, now):
        return None
    return (
        f"So far {before} process{'es' if before != 1 else ''} trained, now {now} "
        f"do{'es' if now == 1 else ''}: from here on a step has {now}/{before} of the photographs."
    )


def note_learning_rate(run: Run, base: BaseModel) -> None:
    """Notes a learning rate for LoRA, such as the recipe's default, with DreamBooth."""
    optimizer = run.recipe.optimizer
    if not isinstance(run.recipe.method, DreamBooth) or optimizer.name == "prodigy":
        return
    large = sum(parameter.numel() for parameter in base.unet.parameters()) > _FULL_SIZE_UNET
    if large and optimizer.learning_rate > _HIGH_LR:
        run.note(
            f"optimizer.learning_rate is {optimizer.learning_rate:g}: DreamBooth trains all "
            "weights, usually at 1e-6 to 5e-6; a LoRA's 1e-4 ruins the model within a few steps."
        )


def note_unreached(run: Run) -> None:
    """Notes settings of later steps than the run has, and a rate of what is not trained."""
    recipe = run.recipe
    steps = recipe.schedule.steps
    fields = {
        "saving.adapters_every": recipe.saving.adapters_every,
        "validate_every": recipe.validate_every,
        "text_encoder.last_step": recipe.text_encoder.last_step or 0,
    }
    if late := [f"{name} {step}" for name, step in fields.items() if step > steps]:
        run.note(f"The run has {steps} steps, so this has no effect: {', '.join(late)}.")
    if recipe.text_encoder.learning_rate is not None and not recipe.text_encoder.train:
        run.note("text_encoder.learning_rate has no effect: text_encoder.train is off.")


def note_prompts(run: Run, base: BaseModel) -> None:
    """Notes words the base never saw, truncated prompts, and photographs without the token."""
    taught = photo_prompts(run)
    prompts = all_prompts(run.recipe, taught)
    max_tokens = run.recipe.text_encoder.max_tokens
    ids = word_ids(base.tokenizer, prompts, max_tokens)
    if unknown := unknown_words(base.tokenizer, ids):
        run.note(UNKNOWN_WORDS_NOTE % ", ".join(unknown))
    if cut := truncation_note(base.tokenizer, prompts, max_tokens):
        more = " Raise text_encoder.max_tokens (at most 225)." if max_tokens < 225 else ""
        run.note(cut + more)
    token = run.recipe.subject.token
    if without := sum(token.lower() not in prompt.lower() for prompt in taught):
        run.note(
            f"{without} of {len(taught)} photographs are trained without the token {token!r} in "
            "their prompt or caption: the token does not learn what they show."
        )

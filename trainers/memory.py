"""What a recipe can change to need less memory. No torch here."""

from __future__ import annotations

from .recipe import DreamBooth, Recipe


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library says that the GPU or the machine has no memory left."""
    text = str(error).lower()
    said = (
        *("out of memory", "can't allocate memory", "not enough memory"),
        *("_status_alloc_failed", "_allocation_failed"),  # of cuBLAS, and cuDNN's
    )
    return isinstance(error, MemoryError) or any(words in text for words in said)


def memory_advice(recipe: Recipe) -> str:
    """What to change in this recipe, the cheapest first, as the end of an error message."""
    advice = []
    if recipe.schedule.batch > 1:
        together = recipe.schedule.batch * recipe.schedule.accumulation
        advice.append(f"schedule.batch 1 with schedule.accumulation {together}")
    if not recipe.compute.gradient_checkpointing:
        advice.append("compute.gradient_checkpointing")
    if recipe.optimizer.name != "adamw8bit":
        advice.append("optimizer.name adamw8bit")
    if recipe.compute.precision == "fp32":
        advice.append("compute.precision bf16 or fp16")
    if recipe.text_encoder.train:
        advice.append("text_encoder.train off")
    if recipe.subject.resolution > 256:
        advice.append(f"a subject.resolution below {recipe.subject.resolution}")
    if isinstance(recipe.method, DreamBooth):
        advice.append("a LoRA in place of DreamBooth")
    advice.append("closing other programs that use the GPU")
    return f"What helps, the cheapest first: {'; '.join(advice)}."

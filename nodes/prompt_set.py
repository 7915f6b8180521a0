"""Likeness_PromptSet: the prompts of a comparison, its columns."""

from __future__ import annotations

from ..comparison.prompts import (
    PromptSet,
    bundled_set,
    bundled_sets,
    prompt_set_from_data,
    prompt_set_from_text,
)
from .host import io
from .sockets import PromptsType
from .widgets import with_search_aliases

CUSTOM_TEXT = "own text"
NO_NEGATIVE = "-"  # as the negative prompt: none, even if the set has one


class PromptSetNode(io.ComfyNode):
    """The columns of a comparison: a bundled prompt set, or one prompt per line."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_PromptSet",
            display_name="Prompt Set (Likeness)",
            category="Likeness",
            description=(
                "The prompts of a comparison, used with every adapter: a bundled set, or your own "
                "text with one prompt per line."
            ),
            inputs=[
                io.Combo.Input(
                    "prompts",
                    options=[*bundled_sets(), CUSTOM_TEXT],
                    default="study",
                    tooltip="A bundled set, or the text below.",
                ),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="beach = a photo of {token} {class} on the beach",
                    tooltip="Your own set, used only with 'own text': one prompt per line, "
                    "optionally with a column name (in any script) before ' = '; {token} and "
                    "{class} are filled in; lines starting with # are skipped.",
                ),
                io.String.Input(
                    "token",
                    default="sks",
                    tooltip="The subject's token. Empty: the prompts name only the class.",
                ),
                io.String.Input(
                    "class_word", default="man", tooltip="What the subject is: man, woman, dog, …"
                ),
                io.String.Input(
                    "negative",
                    multiline=True,
                    default="",
                    tooltip="Negative prompt of all cells. Empty: the set's own; '-': none.",
                ),
            ],
            outputs=[
                PromptsType.Output(id="prompt_set", display_name="prompts"),
                io.String.Output(id="negative_prompt", display_name="negative"),
            ],
        )
        return with_search_aliases(schema, "prompts", "prompt list", "batch prompts")

    @classmethod
    def validate_inputs(
        cls,
        prompts: str | None = None,
        text: str | None = None,
        token: str | None = None,
        class_word: str | None = None,
        negative: str | None = None,
    ) -> bool:
        """Checks the prompts before the queue starts. Raises ComparisonError.

        None stands for a connected input, for which placeholder words are used.
        """
        static_prompts(prompts, text, token, class_word, negative)
        return True

    @classmethod
    def execute(
        cls, prompts: str, text: str, token: str, class_word: str, negative: str
    ) -> io.NodeOutput:
        """(prompts, negative). Raises ComparisonError, which names the line to fix."""
        read = read_prompts(prompts, text, token, class_word, negative)
        return io.NodeOutput(read, read.negative)


def static_prompts(
    name: str | None,
    text: str | None,
    token: str | None,
    class_word: str | None,
    negative: str | None,
) -> PromptSet | None:
    """As `read_prompts`, with placeholder words for each None, a value not yet known.

    Returns None if the prompts themselves are not known.
    """
    if name is None or (name == CUSTOM_TEXT and text is None):
        return None
    words = "sks" if token is None else token, "man" if class_word is None else class_word
    return read_prompts(name, text or "", *words, negative or "")


def read_prompts(name: str, text: str, token: str, class_word: str, negative: str) -> PromptSet:
    """The prompt set with token and class word filled in. Raises ComparisonError."""
    chosen = prompt_set_from_text(text) if name == CUSTOM_TEXT else bundled_set(name)
    if negative.strip():
        text = "" if negative.strip() == NO_NEGATIVE else negative.strip()
        chosen = prompt_set_from_data({**chosen.model_dump(), "negative": text})
    return chosen.filled(token.strip(), class_word.strip())

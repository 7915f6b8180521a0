"""The widgets of Likeness_TrainOptions, one for each recipe field that it sets."""

from __future__ import annotations

from typing import get_args

from ..trainers.recipe import Schedule
from .host import ADVANCED, io
from .later_options import arithmetic, captions, saving, speed, timesteps
from .option import Option, none_if_zero, side_if_set, split_lines
from .recipe_builder import AUTO, resolve_attention
from .widgets import float_widget, int_widget

LR_SCHEDULES = list(get_args(Schedule.model_fields["lr_scheduler"].annotation))


def _previews() -> list[Option]:
    def size(id: str) -> io.Input:
        tip = "In pixels, from 64; 0: the training resolution."
        return int_widget(id, 0, 0, 2048, tip, step=8, extra_dict=ADVANCED)

    return [
        Option(
            io.String.Input(
                "preview_prompts",
                default="",
                multiline=True,
                tooltip="Preview prompts, one per line; {token} and {class} are filled in. "
                "Empty: the photographs' prompt. The train node's preview_every sets how often.",
            ),
            "previews",
            "prompts",
            split_lines,
        ),
        Option(
            io.String.Input(
                "preview_negative",
                extra_dict=ADVANCED,
                default="",
                tooltip="Negative prompt of the previews.",
            ),
            "previews",
            "negative",
        ),
        Option(size("preview_width"), "previews", "width", side_if_set),
        Option(size("preview_height"), "previews", "height", side_if_set),
        Option(
            int_widget("preview_steps", 20, 1, 1000, "Sampling steps.", extra_dict=ADVANCED),
            "previews",
            "steps",
        ),
        Option(
            float_widget(
                "preview_guidance", 7.5, 0, 100, 0.1, "Guidance scale (CFG).", extra_dict=ADVANCED
            ),
            "previews",
            "guidance",
        ),
        Option(
            int_widget(
                "preview_seed",
                0,
                0,
                2**53 - 1,
                "The same seed at every step keeps previews comparable.",
                control_after_generate=False,
                extra_dict=ADVANCED,
            ),
            "previews",
            "seed",
        ),
    ]


def _schedule() -> list[Option]:
    return [
        Option(
            io.Combo.Input(
                "lr_scheduler",
                options=LR_SCHEDULES,
                default="constant",
                tooltip="Learning-rate schedule.",
            ),
            "schedule",
            "lr_scheduler",
        ),
        Option(
            int_widget(
                "lr_warmup_steps",
                0,
                0,
                1_000_000,
                "Steps over which the learning rate rises from 0; fewer than the train node's "
                "steps. Not with 'constant'.",
            ),
            "schedule",
            "lr_warmup_steps",
        ),
        Option(
            int_widget(
                "lr_num_cycles",
                1,
                1,
                1000,
                "Cycles of 'cosine_with_restarts'.",
                extra_dict=ADVANCED,
            ),
            "schedule",
            "lr_num_cycles",
        ),
        Option(
            float_widget("lr_power", 1.0, 0.1, 10, 0.1, "For 'polynomial'.", extra_dict=ADVANCED),
            "schedule",
            "lr_power",
        ),
        Option(
            int_widget(
                "gradient_accumulation_steps",
                1,
                1,
                1024,
                "Gradient accumulation: batches per step. A larger batch for little memory.",
            ),
            "schedule",
            "gradient_accumulation_steps",
        ),
    ]


def _text_encoder() -> list[Option]:
    return [
        Option(
            float_widget(
                "text_encoder_learning_rate",
                0.0,
                0.0,
                10.0,
                1e-7,
                "0: same as the UNet. For a LoRA at 1e-4, half of that is also common. "
                "To freeze the text encoder, switch off train_text_encoder.",
            ),
            "text_encoder",
            "learning_rate",
            none_if_zero,
        ),
        Option(
            int_widget(
                "text_encoder_last_step",
                0,
                0,
                1_000_000,
                "The text encoder is frozen after this step; 0: trained to the end.",
                extra_dict=ADVANCED,
            ),
            "text_encoder",
            "last_step",
            none_if_zero,
        ),
        Option(
            int_widget(
                "clip_skip",
                1,
                1,
                12,
                "1: the text encoder's last layer; 2: the one before, for bases trained with it.",
            ),
            "text_encoder",
            "clip_skip",
        ),
    ]


def _optimizer() -> list[Option]:
    def beta(id: str, default: float) -> io.Input:
        tip = "Decay rate of Adam's running averages."
        return float_widget(id, default, 0, 0.9999, 0.0001, tip, extra_dict=ADVANCED)

    return [
        Option(
            float_widget("weight_decay", 0.01, 0, 1, 0.001, "For AdamW.", extra_dict=ADVANCED),
            "optimizer",
            "weight_decay",
        ),
        Option(
            float_widget(
                "max_grad_norm",
                1.0,
                0,
                1000,
                0.1,
                "Clips the global gradient norm to this value (max_grad_norm); 0: no clipping, "
                "which saves one of two backward passes in the tiers in_backward and offload.",
                extra_dict=ADVANCED,
            ),
            "optimizer",
            "max_grad_norm",
            none_if_zero,
        ),
        Option(beta("beta1", 0.9), "optimizer", "beta1"),
        Option(beta("beta2", 0.999), "optimizer", "beta2"),
        Option(
            float_widget("epsilon", 1e-8, 1e-12, 1, 1e-9, "Adam's epsilon.", extra_dict=ADVANCED),
            "optimizer",
            "epsilon",
        ),
    ]


def _objective() -> list[Option]:
    return [
        Option(
            float_widget(
                "min_snr_gamma",
                0.0,
                0,
                100,
                0.5,
                "Min-SNR loss weighting (arXiv:2303.09556); 5 is usual, 0: off.",
            ),
            "objective",
            "min_snr_gamma",
            none_if_zero,
        ),
        Option(
            float_widget(
                "noise_offset",
                0.0,
                0,
                1,
                0.01,
                "Lets the model learn very dark and very bright images; 0: off.",
            ),
            "objective",
            "noise_offset",
        ),
        Option(
            float_widget(
                "ema_decay",
                0.0,
                0,
                0.99999,
                0.00001,
                "Saves an exponential moving average of the weights; 0: off. Capped at (1 + n) / "
                "(10 + n) after n steps: 0.98 suits 800 steps, more than 0.989 has no effect.",
                extra_dict=ADVANCED,
            ),
            "objective",
            "ema_decay",
            none_if_zero,
        ),
        Option(
            io.Combo.Input(
                "prediction",
                extra_dict=ADVANCED,
                options=["auto", "epsilon", "v_prediction"],
                default="auto",
                tooltip="Prediction type of the base model. auto: read from the file.",
            ),
            "base",
            "prediction",
        ),
    ]


def _compute() -> list[Option]:
    return [
        Option(
            io.Combo.Input(
                "attention",
                extra_dict=ADVANCED,
                options=[AUTO, "sdpa", "xformers"],
                default=AUTO,
                tooltip="sdpa: PyTorch's own; auto: xformers if installed, else sdpa.",
            ),
            "compute",
            "attention",
            resolve_attention,
        ),
        Option(
            io.Boolean.Input(
                "gradient_checkpointing",
                default=False,
                tooltip="Much less memory for about a third more time per step.",
            ),
            "compute",
            "gradient_checkpointing",
        ),
    ]


def _saving() -> list[Option]:
    return [
        Option(
            int_widget(
                "checkpoint_every",
                0,
                0,
                1_000_000,
                "Steps between saved training states, from which a run resumes (save_state in "
                "other trainers); 0: about every five minutes. For intermediate models, see "
                "save_adapter_every.",
                extra_dict=ADVANCED,
            ),
            "saving",
            "every",
        ),
        Option(
            int_widget(
                "keep_checkpoints",
                1,
                0,
                1000,
                "How many training states to keep, newest first; 0: none once training has "
                "finished, which then cannot be continued. DreamBooth: 6 to 12 GB each.",
            ),
            "saving",
            "keep",
        ),
        Option(
            io.Combo.Input(
                "save_dtype",
                extra_dict=ADVANCED,
                options=["fp16", "fp32"],
                default="fp16",
                tooltip="Precision of the adapter file.",
            ),
            "saving",
            "dtype",
        ),
    ]


GROUPS = (_previews, _schedule, _text_encoder, _optimizer, _objective, _compute, _saving)
# Saved graphs hold widget values in order, so new widgets come after all others.
LATER_GROUPS = (speed, saving, timesteps, captions, arithmetic)


def first_options() -> list[Option]:
    """The options shown before those on runs, in order."""
    return [option for group in GROUPS for option in group()]


def later_options() -> list[Option]:
    """The options shown after those on runs, in order."""
    return [option for group in LATER_GROUPS for option in group()]


def all_options() -> list[Option]:
    """All options that set a field of the recipe."""
    return [*first_options(), *later_options()]

"""The settings of the bundled workflows: the study's and the miniature's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .graph import Model

SD15 = Model(
    "v1-5-pruned-emaonly-fp16.safetensors",
    "checkpoints",
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    "v1-5-pruned-emaonly-fp16.safetensors?download=true",
)
OPENPOSE = Model(
    "control_v11p_sd15_openpose_fp16.safetensors",
    "controlnet",
    "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
    "control_v11p_sd15_openpose_fp16.safetensors?download=true",
)

SLIGHT = "a photo of {class}, random head angle, slight smile"
RANDOM = "a photo of {class}, random head angle, random smile"
BOTH = "a photo of {class} face\na photo of a {class}"
PREVIEW_EVERY = 200


@dataclass(frozen=True)
class Training:
    """A training: `widgets` of its train node, `options` of its Train Options node, if any, and
    its prompts and class images."""

    widgets: dict[str, Any]
    rank: int | None = None  # None: DreamBooth
    resolution: int = 512
    prompt: str = "a photo of {token} {class} face"
    class_prompt: str = SLIGHT
    class_weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """Models and sizes. `class_images` is (count, sampling steps); `prompts` names the prompt set
    for the comparison of all trainings.
    """

    base: Model
    openpose: Model
    photographs: str
    class_images: tuple[int, int]
    image: tuple[int, int]
    steps: int
    guidance: float
    trainings: dict[str, Training]
    prompts: str = "study"


def _course(rate: float, steps: int, **widgets: Any) -> dict[str, Any]:
    return {"learning_rate": rate, "steps": steps, "preview_every": PREVIEW_EVERY, **widgets}


STUDY = Setting(
    base=SD15,
    openpose=OPENPOSE,
    photographs="my_photos",
    class_images=(500, 25),
    image=(768, 1024),
    steps=35,
    guidance=7.5,
    trainings={
        "tiny": Training(
            _course(2e-6, 800, train_text_encoder=False, precision="fp32"),
            resolution=256,
            class_prompt=RANDOM,
        ),
        "standard": Training(_course(2e-6, 800)),
        **{f"lora-r{rank}": Training(_course(1e-4, 800), rank=rank) for rank in (1, 4, 8)},
    },
)

# As the presets miniature-…: higher learning rates, because the model is small; fp32, because it is
# meant for CPUs; four photographs per step, which cost little more than one.
_SMALL = {"precision": "fp32", "optimizer": "adamw", "batch_size": 4, "preview_every": 50}
MINIATURE = Setting(
    base=Model("zz-miniature.safetensors", "checkpoints"),
    openpose=Model("zz-miniature-openpose.safetensors", "controlnet"),
    photographs="miniature (bundled)",
    class_images=(192, 25),
    image=(96, 128),
    steps=20,
    guidance=7.5,
    prompts="study-with-class",  # as in `likeness demo`: images are cheap
    trainings={
        "tiny": Training(
            _course(5e-5, 200, train_text_encoder=False, **_SMALL),
            resolution=64,
            class_prompt=BOTH,
            class_weight=4.0,
        ),
        "standard": Training(
            _course(4.5e-4, 200, **_SMALL),
            resolution=128,
            class_prompt=BOTH,
            options={"lr_scheduler": "cosine", "text_encoder_learning_rate": 8e-4},
        ),
        **{
            f"lora-r{rank}": Training(
                _course(rate, 200, targets="linear", **_SMALL),
                rank=rank,
                resolution=128,
                class_prompt=BOTH,
            )
            for rank, rate in ((1, 1.5e-3), (4, 3e-3), (8, 3e-3))
        },
    },
)

"""Groups of nodes shared by several workflows: photographs, training, plan, drawing, sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .graph import Group, Node, Socket, node
from .settings import Setting, Training


@dataclass(frozen=True)
class Material:
    """The nodes that provide a training's images."""

    subject: Node
    class_images: Node
    crops: Node

    def group(self, title: str) -> Group:
        """The nodes side by side."""
        return Group(title, [[self.subject], [self.class_images], [self.crops]])


def material(setting: Setting, training: Training, title: str = "") -> Material:
    """The nodes for photographs and class images at a training's resolution."""
    subject = node(
        "Likeness_Subject",
        title and f"Subject, {title}",
        360,
        folder=setting.photographs,
        prompt=training.prompt,
        resolution=training.resolution,
    )
    count, steps = setting.class_images
    class_images = node(
        "Likeness_ClassImages",
        title and f"Class Images, {title}",
        360,
        prompt=training.class_prompt,
        count=count,
        loss_weight=training.class_weight,
        source="draw with the base model",
        steps=steps,
    )
    crops = node(
        "PreviewImage", "The crops, as they are trained", 360, 314, images=subject["crops"]
    )
    return Material(subject, class_images, crops)


def trainer(setting: Setting, key: str, shown: Material) -> Node:
    """The train node of one of the setting's trainings."""
    training = setting.trainings[key]
    lora = training.rank is not None
    widgets = {"precision": "fp16", "optimizer": "auto"}
    widgets |= ({"targets": "attention"} if lora else {}) | training.widgets
    if training.options:
        options = node("Likeness_TrainOptions", f"Options: {key}", 340, **training.options)
        widgets["options"] = options["options"]
    return node(
        "Likeness_TrainLoRA" if lora else "Likeness_TrainDreamBooth",
        f"Train {key}",
        380,
        subject=shown.subject["subject"],
        class_images=shown.class_images["class_images"],
        base_model=setting.base,
        name=key,
        **({"rank": training.rank} if lora else {}),
        **widgets,
    )


def records(train: Node) -> list[Node]:
    """The nodes that display a training's report and losses."""
    of = f": {train.given['name']}" if "name" in train.given else ""
    return [
        node("PreviewAny", f"Report{of}", 380, 230, source=train["report"]),
        node("LossGraphNode", f"Loss{of}", 380, 326, loss=train["loss"]),
    ]


def rows_of(trains: dict[str, Node]) -> dict[str, Any]:
    """The Matrix' inputs for the base and the trained adapters, named by their keys."""
    sockets = {key: f"adapter_{number}" for number, key in enumerate(trains, start=1)}
    lines = ["base", *(f"{key} = {socket}" for key, socket in sockets.items())]
    connected = {socket: trains[key]["adapter"] for key, socket in sockets.items()}
    return {"adapters": "\n".join(lines), **connected}


def comparison(
    setting: Setting,
    name: str,
    number: int,
    *,
    posed: bool = False,
    prompts: str = "study",
    subject: Node | None = None,
    **matrix: Any,
) -> list[Group]:
    """Groups for plan, drawing and sheet, numbered from `number`; `matrix` are the Matrix' inputs.

    If `posed`, cells have a ControlNet and the Matrix has the four poses. With a `subject`, the
    images are scored against its photographs.
    """
    width, height = setting.image
    words = {name: subject[name] for name in ("token", "class_word")} if subject else {}
    texts = node("Likeness_PromptSet", "", 360, 330, prompts=prompts, **words)
    poses = node(
        "Likeness_PoseSet", "", 360, poses="all four yoga poses", width=width, height=height
    )
    preview = node("PreviewImage", "The poses", 360, 270, images=poses["preview"])
    plan = node(
        "Likeness_Matrix",
        "",
        380,
        620,
        prompts=texts["prompts"],
        width=width,
        height=height,
        **({"poses": poses["poses"]} if posed else {}),
        **{"with_pose": "both" if posed else "without", **matrix},
    )
    image, drawing = _drawing(setting, plan, posed)
    sheet = node(
        "Likeness_ContactSheet",
        "",
        900,
        880 if posed else 640,
        image=image,
        matrix=plan["matrix"],
        name=name,
        single_images="jpg",
    )
    first = [texts, poses, preview] if posed else [texts]
    groups = [
        Group(f"{number} · What is compared", [first, [plan]]),
        Group(f"{number + 1} · Generate one cell: these nodes run once per cell", drawing),
        Group(f"{number + 2} · All cells side by side", [[sheet]]),
    ]
    if subject is not None:
        groups.append(Group(f"{number + 3} · Scores and report", [_scores(sheet, subject)]))
    return groups


def _scores(sheet: Node, subject: Node) -> list[Node]:
    score = node("Likeness_Score", "", 560, 500, study=sheet["study"], subject=subject["subject"])
    return [score, node("PreviewAny", "Scores of each row", 560, 260, source=score["table"])]


def _drawing(setting: Setting, plan: Node, posed: bool) -> tuple[Socket, list[list[Node]]]:
    """The socket of a cell's image, and the columns of nodes that draw it."""
    base = node("CheckpointLoaderSimple", "Base model", 340, 110, ckpt_name=setting.base)
    load = node(
        "Likeness_LoadAdapter",
        model=base["MODEL"],
        clip=base["CLIP"],
        adapter=plan["adapter"],
        strength_model=plan["adapter_strength"],
        strength_clip=plan["adapter_strength"],
    )
    size = node("EmptyLatentImage", width=plan["width"], height=plan["height"])
    texts = [
        node("CLIPTextEncode", title, 320, 130, clip=load["clip"], text=plan[output])
        for title, output in (("Prompt", "prompt"), ("Negative prompt", "negative"))
    ]
    positive, negative = (text["CONDITIONING"] for text in texts)
    control = []
    if posed:
        control = _control(setting, plan, positive, negative)
        positive, negative = control[-1]["positive"], control[-1]["negative"]
    sampler = node(
        "KSampler",
        "",
        300,
        model=load["model"],
        positive=positive,
        negative=negative,
        latent_image=size["LATENT"],
        seed=plan["seed"],
        steps=setting.steps,
        cfg=setting.guidance,
        sampler_name="euler",
        scheduler="simple",
    )
    decode = node("VAEDecode", "", 300, 60, samples=sampler["LATENT"], vae=base["VAE"])
    return decode["IMAGE"], [[base, load, size], [*texts, *control], [sampler, decode]]


def _control(setting: Setting, plan: Node, positive: Socket, negative: Socket) -> list[Node]:
    loader = node("ControlNetLoader", "OpenPose ControlNet", 320, control_net_name=setting.openpose)
    return [
        loader,
        node(
            "ControlNetApplyAdvanced",
            "",
            320,
            positive=positive,
            negative=negative,
            control_net=loader["CONTROL_NET"],
            image=plan["pose"],
            strength=plan["control_strength"],
        ),
    ]

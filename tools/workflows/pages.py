"""The bundled workflows."""

from __future__ import annotations

from .graph import Group, Node, Page
from .parts import Material, comparison, material, records, rows_of, trainer
from .settings import MINIATURE, STUDY, Setting
from .single import train_dreambooth, train_lora, use_adapter
from .texts import read_me

POSED = ("standard", "lora-r1")  # the study's runs with ControlNet


def pages() -> list[Page]:
    """All bundled workflows."""
    return [
        train_lora(),
        train_dreambooth(),
        use_adapter(),
        _base("study_1_knowledge_check", prompts="knowledge-check", draws=3),
        _base("study_2_base"),
        *(
            _one(f"study_{number}_{key.replace('-', '_')}", key)
            for number, key in enumerate(STUDY.trainings, start=3)
        ),
        *(
            _one(f"study_{number}_{key.replace('-', '_')}_controlnet", key, posed=True)
            for number, key in enumerate(POSED, start=8)
        ),
        _everything("study_everything", STUDY),
        _everything("miniature", MINIATURE),
    ]


def _base(name: str, **plan: object) -> Page:
    groups = comparison(STUDY, _folder(name), 1, adapters="base", **plan)
    return Page(name, [read_me(name)], [groups])


def _one(name: str, key: str, posed: bool = False) -> Page:
    """One training, compared with the base or, if `posed`, with and without poses."""
    shown = material(STUDY, STUDY.trainings[key])
    train = trainer(STUDY, key, shown)
    rows = rows_of({key: train})
    if posed:
        rows["adapters"] = rows["adapters"].removeprefix("base\n")
    first = [
        shown.group("1 · Photographs"),
        Group("2 · Train", [[train]]),
        Group("What was trained", [records(train)]),
    ]
    second = comparison(STUDY, _folder(name), 3, posed=posed, subject=shown.subject, **rows)
    return Page(name, [read_me(name)], [first, second])


def _everything(name: str, setting: Setting) -> Page:
    """All trainings, compared on one sheet."""
    shown: dict[int, Material] = {}  # by resolution
    for training in setting.trainings.values():
        if training.resolution not in shown:
            title = f"{training.resolution} pixels"
            shown[training.resolution] = material(setting, training, title)
    trains = {
        key: trainer(setting, key, shown[training.resolution])
        for key, training in setting.trainings.items()
    }
    groups = comparison(
        setting,
        name.replace("_", "-"),
        3,
        posed=True,
        prompts=setting.prompts,
        subject=shown[setting.trainings["standard"].resolution].subject,
        pose_rows="\n".join(POSED),
        **rows_of(trains),
    )
    dreambooth = [train for train in trains.values() if "DreamBooth" in train.kind]
    loras = [train for train in trains.values() if train not in dreambooth]
    learning = [
        Group(
            "1 · Photographs",
            [[part.subject, part.class_images, part.crops] for part in shown.values()],
        ),
        Group("2 · Train all weights: DreamBooth", [c for n in dreambooth for c in _columns(n)]),
        Group("2 · Train low-rank adapters: LoRA", [c for n in loras for c in _columns(n)]),
    ]
    return Page(name, [read_me(name)], [learning, groups])


def _columns(train: Node) -> list[list[Node]]:
    """A train node above its records, and its options node, if any, in the next column."""
    wire = train.given.get("options")
    return [[train, *records(train)], *([[wire.node]] if wire else [])]


def _folder(name: str) -> str:
    """The comparison's folder: the workflow's name without its number."""
    first, _, rest = name.split("_", 2)
    return f"{first}-{rest.replace('_', '-')}"

"""Each widget of a node sets its own field of the recipe, and no other."""

import importlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))

# Of each widget: the field, a value that is no default, and what the recipe holds then if that is
# something else.
SUBJECT = {
    "token": ("subject.token", "zxz"),
    "class_word": ("subject.class_word", "dog"),
    "prompt": ("subject.prompt", "a drawing of {token} {class}"),
    "resolution": ("subject.resolution", 256),
    "crop": ("subject.crop", "face"),
    "buckets": ("subject.buckets", True),
    "captions": ("subject.captions", False),
    "flip": ("subject.flip", True),
    "holdout": ("subject.holdout", 3),
    "face_share": ("subject.face_share", 0.35),
    "mask": ("subject.mask", "alpha"),
    "unmasked_weight": ("subject.unmasked_weight", 0.25),
    "enlarge": ("subject.enlarge", 1.5),
    "shuffle_tags": ("subject.shuffle_tags", True),
    "keep_tags": ("subject.keep_tags", 3),
}
CLASS_IMAGES = {
    "prompt": ("prior.prompt", "a drawing of {class}"),
    "count": ("prior.count", 7),
    "loss_weight": ("prior.loss_weight", 0.5),
    "source": ("prior.source", "none: what the base predicts", "teacher"),
    "negative": ("prior.negative", "blurred"),
    "steps": ("prior.steps", 9),
    "guidance": ("prior.guidance", 3.0),
    "seed": ("prior.seed", 5),
}
TRAINING = {
    "name": ("name", "anna"),
    "steps": ("schedule.steps", 30),
    "learning_rate": ("optimizer.learning_rate", 3e-5),
    "train_text_encoder": ("text_encoder.train", False),
    "batch_size": ("schedule.batch_size", 2),
    "optimizer": ("optimizer.name", "adamw"),
    "precision": ("compute.precision", "bf16"),
    "preview_every": ("previews.every", 50),
    "seed": ("seed", 5),
    "attempt": ("attempt", 1),
}
LORA = TRAINING | {
    "optimizer": ("optimizer.name", "adamw8bit"),  # auto is adamw for a LoRA
    "rank": ("method.rank", 9),
    "alpha": ("method.alpha", 2.0),
    "targets": ("method.targets", "all"),
    "dora": ("method.dora", True),
    "rslora": ("method.rslora", True),
    "dropout": ("method.dropout", 0.25),
}
OPTIONS = {
    "preview_prompts": ("previews.prompts", "a\n\n b ", ("a", "b")),
    "preview_negative": ("previews.negative", "blurred"),
    "preview_width": ("previews.width", 128),
    "preview_height": ("previews.height", 192),
    "preview_steps": ("previews.steps", 7),
    "preview_guidance": ("previews.guidance", 3.0),
    "preview_seed": ("previews.seed", 5),
    "lr_scheduler": ("schedule.lr_scheduler", "linear"),
    "lr_warmup_steps": ("schedule.lr_warmup_steps", 3),
    "lr_num_cycles": ("schedule.lr_num_cycles", 4),
    "lr_power": ("schedule.lr_power", 2.0),
    "gradient_accumulation_steps": ("schedule.gradient_accumulation_steps", 2),
    "text_encoder_learning_rate": ("text_encoder.learning_rate", 5e-5),
    "text_encoder_last_step": ("text_encoder.last_step", 6),
    "clip_skip": ("text_encoder.clip_skip", 2),
    "weight_decay": ("optimizer.weight_decay", 0.1),
    "max_grad_norm": ("optimizer.max_grad_norm", 0.0, None),
    "beta1": ("optimizer.beta1", 0.8),
    "beta2": ("optimizer.beta2", 0.99),
    "epsilon": ("optimizer.epsilon", 1e-6),
    "min_snr_gamma": ("objective.min_snr_gamma", 5.0),
    "noise_offset": ("objective.noise_offset", 0.05),
    "ema_decay": ("objective.ema_decay", 0.98),
    "prediction": ("base.prediction", "v_prediction"),
    "attention": ("compute.attention", "sdpa"),
    "gradient_checkpointing": ("compute.gradient_checkpointing", True),
    "checkpoint_every": ("saving.every", 11),
    "keep_checkpoints": ("saving.keep", 4),
    "save_dtype": ("saving.dtype", "fp32"),
    "memory": ("compute.memory", "checkpointing"),
    "cuda_graphs": ("compute.graphs", False),
    "compile": ("compute.compile", True),
    "save_adapter_every": ("saving.adapters_every", 13),
    "timestep_min": ("objective.timestep_min", 20),
    "timestep_max": ("objective.timestep_max", 700),
    "caption_dropout": ("objective.caption_dropout", 0.1),
    "max_tokens": ("text_encoder.max_tokens", "150", 150),
    "tf32": ("compute.tf32", True),
    "validate_every": ("validate_every", 9),
    "continue_from": ("continues", "anna", "a" * 64),
}
# So that each may be changed alone, and what is 0 follows nothing else.
BEGUN = {
    "subject": {"holdout": 1, "captions": True},
    "options": {
        "lr_scheduler": "cosine",
        "preview_prompts": "a {token} {class}",
        "preview_width": 64,
        "preview_height": 64,
    },
}


@pytest.fixture(scope="module")
def nodes():
    STUB["install"]()
    names = "class_images options recipe_builder subject train_dreambooth train_lora training"
    modules = {name: importlib.import_module(f"likeness.nodes.{name}") for name in names.split()}
    return SimpleNamespace(**modules)


@pytest.fixture
def taught(nodes, monkeypatch):
    """(nodes by name, the recipe that a train node makes of widgets by the name of their node)."""
    found = {
        "subject": nodes.subject.Subject,
        "class_images": nodes.class_images.ClassImages,
        "options": nodes.options.TrainOptionsNode,
        "lora": nodes.train_lora.TrainLoRA,
        "dreambooth": nodes.train_dreambooth.TrainDreamBooth,
    }
    no_photos = SimpleNamespace(photos=())
    for name, stand_in in (
        *(("find_folder", lambda name: Path(name)), ("read_subject", lambda *_, **__: no_photos)),
        ("Progress", lambda node_id: SimpleNamespace(set_status=lambda text: None)),
        *(("crops", lambda photos: []), ("report", lambda photos: "")),
    ):
        monkeypatch.setattr(nodes.subject, name, stand_in)
    # What "auto" means must not hang on what is installed here.
    monkeypatch.setattr(nodes.recipe_builder, "is_installed", lambda name: True)
    monkeypatch.setattr(nodes.recipe_builder, "eight_bit_unavailable_reason", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(nodes.options, "find_run", lambda folder, name: name)
    monkeypatch.setattr(nodes.options, "run_digest", lambda name: name[0] * 64)
    monkeypatch.setattr(nodes.training, "run", stopped)

    def recipe(trained, changes):
        def given(name):
            return defaults(found[name]) | BEGUN.get(name, {}) | changes.get(name, {})

        subject = found["subject"].execute(folder="anna", **given("subject")).args[0]
        prior = found["class_images"].execute(**given("class_images")).args[0]
        options = found["options"].execute(**given("options")).args[0]
        wires = {"subject": subject, "class_images": prior, "options": options}
        with pytest.raises(Made) as made:
            found[trained].execute(base_model="x", **wires, **given(trained))
        return flat(made.value.args[0])

    return found, recipe


class Made(Exception):
    """The recipe, instead of a training."""


def stopped(recipe, *_):
    raise Made(recipe)


def defaults(node):
    parts = node.define_schema().inputs
    return {part.id: part.options["default"] for part in parts if "default" in part.options}


def flat(recipe):
    """Values by field, "schedule.steps" and others."""
    values = {}
    for name in type(recipe).model_fields:
        part = getattr(recipe, name)
        fields = getattr(type(part), "model_fields", None)
        inner = {f"{name}.{field}": getattr(part, field) for field in fields or ()}
        values |= inner if fields else {name: part}
    return values


@pytest.mark.parametrize(
    ("node", "trained", "table"),
    [
        ("subject", "lora", SUBJECT),
        ("class_images", "lora", CLASS_IMAGES),
        ("options", "dreambooth", OPTIONS),
        ("lora", "lora", LORA),
        ("dreambooth", "dreambooth", TRAINING),
    ],
)
def test_each_widget_sets_its_field_and_no_other(taught, node, trained, table):
    found, recipe = taught
    plain = recipe(trained, {})
    for widget in defaults(found[node]).keys() - {"start_from"}:  # a file, not a field's value
        field, value, *held = table[widget]
        begun = {node: {**BEGUN.get(node, {}), widget: value}}
        made = recipe(trained, begun)
        assert {name for name in plain if made[name] != plain[name]} == {field}, widget
        assert made[field] == (held[0] if held else value), widget

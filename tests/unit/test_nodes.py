"""The nodes' own logic, over stand-ins for ComfyUI's modules."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from likeness.trainers import packages
from likeness.trainers.cli import format_result
from likeness.trainers.errors import AdapterError, LikenessError, RecipeError
from likeness.trainers.events import Event
from likeness.trainers.presets import preset
from likeness.trainers.recipe import DreamBooth, LoRA, Prior, Recipe, Subject
from likeness.trainers.run_folder import Result, RunFolder

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
refused = STUB["refused"]


@pytest.fixture(scope="module")
def nodes():
    """Modules of the nodes by name."""
    STUB["install"]()
    names = (
        "adapters class_images field_names load_adapter option_list options paths recipe_builder"
    )
    names += " run_reporter runs subject training train_dreambooth train_lora values"
    modules = {name: importlib.import_module(f"likeness.nodes.{name}") for name in names.split()}
    return SimpleNamespace(**modules)


# Names from workflows


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "..",
        "../x",
        "a/../b",
        "/etc",
        "a//b",
        "C:/x",
        "C:x",
        "\\\\host\\x",
        "a:b",
        "x\0",
        ".",
    ],
)
def test_a_name_stays_inside_its_folder(nodes, tmp_path, name):
    with pytest.raises(LikenessError, match="not a valid folder name"):
        nodes.paths.safe_join(tmp_path, name)


def test_a_link_does_not_lead_out(nodes, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out", target_is_directory=True)
    with pytest.raises(LikenessError, match="leads out"):
        nodes.paths.safe_join(tmp_path / "in", "link/deeper")


def test_good_names_are_found_and_listed(nodes, tmp_path):
    (tmp_path / "people" / "Anna").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    assert nodes.paths.safe_join(tmp_path, "people/Anna").is_dir()
    with pytest.raises(LikenessError, match="no photographs"):
        nodes.paths.photo_folder(tmp_path, "people/Anna")


def test_the_fingerprint_of_a_folder_follows_its_files(nodes, tmp_path):
    empty = nodes.paths.folder_fingerprint(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"1")
    one = nodes.paths.folder_fingerprint(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"12")
    assert len({empty, one, nodes.paths.folder_fingerprint(tmp_path)}) == 3


def test_the_miniatures_images_can_be_chosen_without_copying_them(nodes, monkeypatch):
    name = nodes.subject.folder_names()[-1]
    folder = nodes.subject.find_folder(name)
    assert len(list(folder.glob("*.png"))) == 15
    assert nodes.subject.Subject.validate_inputs(folder=name) is True
    monkeypatch.setattr(nodes.subject.miniature, "subject_folder", lambda: None)
    assert name not in nodes.subject.folder_names()
    assert "There is no folder" in refused(nodes.subject.Subject.validate_inputs, folder=name)


# Recipes


def defaults(node):
    """Widget defaults of a node's inputs."""
    parts = node.define_schema().inputs
    return {p.id: p.options["default"] for p in parts if "default" in p.options}


def recipe_of(nodes, node, subject, prior, options=None, **changes):
    """The recipe a train node makes of its defaults."""
    made = []
    widgets = {**defaults(node), **changes}
    source = nodes.values.SubjectSource(subject, Path("photos"))
    class_images = prior and nodes.values.PriorSource(prior)
    module = nodes.training

    def run(recipe, *_):
        made.append(recipe)
        raise InterruptedError

    original, module.run = module.run, run
    try:
        node.execute(
            subject=source,
            base_model="x",
            class_images=class_images,
            options=options,
            **widgets,
        )
    except InterruptedError:
        return made[0]
    finally:
        module.run = original


def test_defaults_are_the_studys_but_for_words_class_images_and_a_loras_optimizer(
    nodes, monkeypatch
):
    monkeypatch.setattr(nodes.recipe_builder, "is_installed", lambda name: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    subject = nodes.subject.subject_spec(
        {k: v for k, v in defaults(nodes.subject.Subject).items() if k != "folder"}
    )
    prior = nodes.class_images.prior_spec(
        {k: v for k, v in defaults(nodes.class_images.ClassImages).items() if k != "source"}
    )
    drawn = {"prompt": "a photo of {class}", "count": 200}
    prompt = "a photo of {token} {class}"
    given = {"prior": drawn, "previews": {"every": 200, "prompts": [prompt]}}
    given["subject"] = {"prompt": prompt}
    lora = recipe_of(nodes, nodes.train_lora.TrainLoRA, subject, prior)
    assert lora == preset("lora-r4").changed(**given, optimizer={"name": "adamw"})
    tuned = recipe_of(nodes, nodes.train_dreambooth.TrainDreamBooth, subject, prior)
    assert tuned == preset("standard").changed(**given)


def test_of_several_class_prompts_a_folder_of_ones_own_has_the_first(nodes, monkeypatch):
    module = nodes.class_images
    monkeypatch.setattr(module, "input_folder", lambda: Path("input"))
    monkeypatch.setattr(module, "photo_folder", lambda folder, name: folder / name)
    assert module.ClassImages.validate_inputs(prompt="a man\na face", source="men") is True
    given = module.ClassImages.execute("men", prompt="a man\na face").args[0]
    assert given.folder == Path("input/men") and given.spec.prompts() == ("a man",)
    drawn = module.ClassImages.execute(module.DRAWN, prompt="a man\na face").args[0]
    assert drawn.folder is None and drawn.spec.prompts() == ("a man", "a face")


def test_the_options_nodes_defaults_change_nothing(nodes):
    options = options_of(nodes)
    node = nodes.train_lora.TrainLoRA
    with_node = recipe_of(nodes, node, Subject(), Prior(), options)
    assert with_node == recipe_of(nodes, node, Subject(), Prior())


def test_a_prompt_of_before_an_option_was_added_still_runs(nodes):
    node = nodes.options.TrainOptionsNode
    assert all(widget.optional for widget in node.define_schema().inputs)
    assert node.execute().args == node.execute(**defaults(node)).args


def options_of(nodes, **changes):
    node = nodes.options.TrainOptionsNode
    return node.execute(**{**defaults(node), **changes}).args[0]


def test_options_reach_the_recipe(nodes):
    options = options_of(
        nodes,
        preview_prompts="a {token} {class}\n\n in the rain ",
        preview_width=64,
        max_grad_norm=0.0,
        text_encoder_last_step=5,
        lr_scheduler="cosine",
        lr_warmup_steps=3,
    )
    recipe = recipe_of(
        nodes, nodes.train_lora.TrainLoRA, Subject(resolution=256), None, options, preview_every=9
    )
    assert recipe.previews.prompts == ("a {token} {class}", "in the rain")
    assert (recipe.previews.width, recipe.previews.height) == (64, 256)
    assert recipe.optimizer.max_grad_norm is None
    assert recipe.text_encoder.last_step == 5
    assert (recipe.schedule.lr_scheduler, recipe.schedule.lr_warmup_steps) == ("cosine", 3)
    assert recipe.prior is None


def test_previews_show_the_subject_if_nothing_else_is_asked(nodes):
    subject = Subject(resolution=256)
    recipe = recipe_of(nodes, nodes.train_lora.TrainLoRA, subject, None, preview_every=9)
    assert recipe.previews.prompts == (subject.prompt,)
    assert (recipe.previews.width, recipe.previews.height) == (256, 256)


def test_wrong_values_are_named(nodes):
    options = options_of(nodes, lr_warmup_steps=3)
    with pytest.raises(RecipeError, match="constant_with_warmup"):
        recipe_of(nodes, nodes.train_lora.TrainLoRA, Subject(), None, options)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({}, {"lr_warmup_steps": 3}, "lr_warmup_steps has no effect with lr_scheduler 'constant'"),
        ({"rank": 0}, {}, "- rank: "),
        ({"steps": 0, "optimizer": "adamw"}, {}, "- steps: "),
        ({}, {"preview_guidance": -1}, "- preview_guidance: "),
        ({}, {"text_encoder_last_step": -1}, "- text_encoder_last_step: "),
    ],
)
def test_errors_named_fields_that_no_widget_has(nodes, changes, options, said):
    node, options = nodes.train_lora.TrainLoRA, options_of(nodes, **options)
    with pytest.raises(RecipeError) as raised:
        recipe_of(nodes, node, Subject(), Prior(), options, **changes)
    assert said in str(raised.value)
    assert not re.search(r"(schedule|previews|text_encoder|method)\.", str(raised.value))


def test_messages_of_a_training_named_fields_that_no_widget_has(nodes, result):
    name = nodes.field_names.name_widgets
    assert name("set subject.enlarge to 2") == "set Subject's enlarge to 2"
    assert name("prior.seed, method.start") == "Class Images' seed, start_from"
    kept = "runs/subject.jpg, base.digest, previews.txt and --set compute.attention=sdpa"
    assert name(kept) == kept
    with (
        pytest.raises(AdapterError, match="raise learning_rate"),
        nodes.field_names.errors_name_widgets(),
    ):
        raise AdapterError("raise optimizer.learning_rate")
    note = "this has no effect: saving.adapters_every 5000"
    assert "effect: save_adapter_every 5000" in nodes.training.report(
        replace(result, notes=(note,))
    )


def test_every_field_of_a_recipe_can_be_set_in_comfyui(nodes):
    reached = {(option.part, option.field) for option in nodes.option_list.all_options()}
    reached |= {("subject", name) for name in defaults(nodes.subject.Subject)}
    reached |= {("prior", name) for name in defaults(nodes.class_images.ClassImages)}
    lora = defaults(nodes.train_lora.TrainLoRA)
    reached |= {("method", name) for name in {*lora, "kind"}}
    reached |= {("schedule", "steps"), ("schedule", "batch_size"), ("optimizer", "name")}
    reached |= {("optimizer", "learning_rate"), ("text_encoder", "train")}
    reached |= {("compute", "precision"), ("previews", "every")}
    bound = {("base", "digest"), ("subject", "digest"), ("prior", "images"), ("method", "start")}
    parts = {name: getattr(Recipe(), name) for name in Recipe.model_fields}
    fields = {
        (name, field)
        for name, part in parts.items()
        if hasattr(type(part), "model_fields")
        for field in type(part).model_fields
    } | {("method", field) for field in (*LoRA.model_fields, *DreamBooth.model_fields)}
    assert fields - reached - bound == set()
    alone = {name for name, part in parts.items() if not hasattr(type(part), "model_fields")}
    assert alone == {"version", "name", "seed", "attempt", "validate_every", "continues"}


def test_a_lora_file_to_start_from_reaches_the_training(nodes, tmp_path, monkeypatch):
    path = tmp_path / "anna.safetensors"
    path.touch()
    folders = {
        "get_filename_list": lambda kind: [path.name, "b.pt"] if kind == "loras" else ["c.ckpt"],
        "get_full_path": lambda kind, name: str(tmp_path / name),
    }
    monkeypatch.setattr(nodes.options, "find_run", lambda folder, name: name)
    monkeypatch.setattr(nodes.options, "run_digest", lambda name: name[0] * 64)
    STUB["install"](folders)
    node = nodes.options.TrainOptionsNode
    listed = {one.id: one.options.get("options") for one in node.define_schema().inputs}
    assert listed["start_from"] == ["none", path.name]
    assert list(listed)[-1] == "start_from", "saved graphs hold values in order"
    assert node.validate_inputs(start_from=path.name) is True
    both = refused(node.validate_inputs, start_from=path.name, continue_from="run")
    assert "continue_from" in both and "start_from" in both
    assert "no LoRA" in refused(node.validate_inputs, start_from="gone.safetensors")
    before = node.fingerprint_inputs(start_from=path.name)
    path.write_bytes(b"other")
    assert node.fingerprint_inputs(start_from=path.name) != before
    assert node.fingerprint_inputs() == node.fingerprint_inputs(start_from="none") == ""

    options, given = options_of(nodes, start_from=path.name), []
    assert options.start == path and options_of(nodes).start is None
    monkeypatch.setattr(nodes.training.host, "model_path", lambda kind, name: Path(name))
    monkeypatch.setattr(nodes.training.host, "tokenizer_folder", lambda: Path("clip"))

    def train(recipe, places, **_):
        given.append((recipe.start, places.start))
        raise InterruptedError

    monkeypatch.setattr(nodes.training, "train", train)
    monkeypatch.setattr(nodes.training, "RunReporter", lambda *_: SimpleNamespace(
        show=None, begin=None, end=lambda: None
    ))  # fmt: skip
    monkeypatch.setattr(nodes.training.host, "Progress", lambda node_id: None)
    monkeypatch.setattr(nodes.training, "on_read", lambda progress: None)
    source = nodes.values.SubjectSource(Subject(), Path("photos"))
    widgets = defaults(nodes.train_lora.TrainLoRA)
    monkeypatch.setattr(
        nodes.train_lora.TrainLoRA, "hidden", SimpleNamespace(unique_id="1"), raising=False
    )
    with pytest.raises(InterruptedError):
        nodes.train_lora.TrainLoRA.execute(
            subject=source, base_model="x", options=options, **widgets
        )
    assert given == [(None, path)], "bound to the file when it is prepared"
    STUB["install"]()


def test_what_is_not_installed_is_said_before_the_queue_starts(nodes, monkeypatch):
    monkeypatch.setattr("likeness.trainers.packages.find_spec", lambda name: None)
    messages = [
        refused(nodes.subject.Subject.validate_inputs, crop="face"),
        refused(nodes.options.TrainOptionsNode.validate_inputs, attention="xformers"),
        refused(nodes.train_lora.TrainLoRA.validate_inputs, optimizer="adamw8bit"),
    ]
    for message, package in zip(messages, ("dlib-bin", "xformers", "bitsandbytes"), strict=True):
        assert f"pip install --upgrade {package}" in message
    assert nodes.train_lora.TrainLoRA.validate_inputs(optimizer="adamw") is True


def test_kohyas_flags_in_preview_prompts_are_refused_before_the_queue_starts(nodes):
    check = nodes.options.TrainOptionsNode.validate_inputs
    assert "preview_seed for --d" in refused(check, preview_prompts="a man\na man --d 42")
    assert check(preview_prompts="a man\na woman") is True


def give_versions(monkeypatch, versions):
    """Packages are there in these versions, None for absent; the others as they are."""
    there = packages.metadata.version

    def version(name):
        if versions.get(name, "") is None:
            raise packages.metadata.PackageNotFoundError(name)
        return versions.get(name) or there(name)

    monkeypatch.setattr(packages.metadata, "version", version)


def test_without_accelerate_a_training_ended_with_code_1_after_models_were_unloaded(
    nodes, monkeypatch
):
    """A clone without ``pip install -r``: ComfyUI itself has no accelerate, diffusers and peft."""
    check = nodes.train_dreambooth.TrainDreamBooth.validate_inputs
    assert check(optimizer="auto") is True
    give_versions(monkeypatch, {"accelerate": None, "peft": None, "diffusers": "0.32.2"})
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    for said in (refused(check, optimizer="auto"), refused(check, optimizer=None)):
        assert "accelerate>=1.0 is not installed" in said
        assert "diffusers>=0.33 is installed as 0.32.2" in said and "transformers" not in said
        command = '-m pip install --upgrade "accelerate>=1.0" "diffusers>=0.33" "peft>=0.18.1"'
        assert said.endswith(command) and sys.executable in said


def test_a_stand_in_for_xformers_in_sys_modules_ended_the_queue_with_a_valueerror(
    nodes, monkeypatch
):
    for name in ("xformers", "bitsandbytes"):
        stand_in = ModuleType(name)  # as another pack may make one
        assert stand_in.__spec__ is None
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert nodes.recipe_builder.resolve_attention("auto") == "sdpa"
    assert nodes.recipe_builder.resolve_optimizer("auto", "auto") == "adamw"
    said = refused(nodes.train_lora.TrainLoRA.validate_inputs, optimizer="adamw8bit")
    assert "bitsandbytes, which is not installed" in said


@pytest.mark.parametrize(
    ("device", "cuda", "taken"),
    [("auto", True, "adamw8bit"), ("auto", False, "adamw"), ("cpu", True, "adamw")],
)
def test_auto_took_8_bit_adam_on_a_cpu_where_it_is_five_times_slower(
    nodes, monkeypatch, device, cuda, taken
):
    monkeypatch.setattr(nodes.recipe_builder, "eight_bit_unavailable_reason", lambda: None)
    monkeypatch.setattr(nodes.training.host, "training_device", lambda: device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    subject = nodes.subject.subject_spec({})
    made = recipe_of(nodes, nodes.train_dreambooth.TrainDreamBooth, subject, None)
    assert made.optimizer.name == taken
    named = recipe_of(
        nodes, nodes.train_dreambooth.TrainDreamBooth, subject, None, optimizer="adamw8bit"
    )
    assert named.optimizer.name == "adamw8bit"


def test_an_old_bitsandbytes_ended_in_a_nameerror_on_a_cpu(nodes, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: True)
    give_versions(monkeypatch, {"bitsandbytes": "0.45.5"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = refused(nodes.train_lora.TrainLoRA.validate_inputs, optimizer="adamw8bit")
    assert "0.45.5" in message and "0.50 or newer" in message
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert nodes.train_lora.TrainLoRA.validate_inputs(optimizer="adamw8bit") is True


# Showing a run


class Screen:
    def __init__(self):
        self.shown, self.said = [], []

    def show(self, done, total, image=None):
        self.shown.append((done, total, image))

    def set_status(self, text):
        self.said.append(text)


def test_with_highvram_models_stayed_on_the_gpu_beside_a_training(nodes, monkeypatch):
    management, went = nodes.run_reporter.host.comfy.model_management, []
    gpu = torch.device("cuda")
    one = SimpleNamespace(offload_device=gpu)
    entries = [SimpleNamespace(model=one), SimpleNamespace(model=None)]  # None: it is gone
    monkeypatch.setattr(management, "current_loaded_models", entries, raising=False)
    unload = lambda: went.append(one.offload_device.type)  # noqa: E731
    monkeypatch.setattr(management, "unload_all_models", unload, raising=False)
    monkeypatch.setattr(management, "soft_empty_cache", lambda: went.append("given"), raising=False)
    nodes.run_reporter.host.unload_models()
    assert went == ["cpu", "given"] and one.offload_device == gpu


def test_events_reach_the_node_and_its_panel(nodes, monkeypatch):
    screen, freed, told = Screen(), [], []
    context = SimpleNamespace(prompt_id="p1")  # by which Cancel interrupts this training alone
    monkeypatch.setattr(nodes.run_reporter.host, "get_executing_context", lambda: context)
    monkeypatch.setattr(nodes.run_reporter.host, "unload_models", lambda: freed.append(True), False)
    monkeypatch.setattr(
        nodes.run_reporter.host, "send_event", lambda *message: told.append(message)
    )
    run_reporter = nodes.run_reporter.RunReporter(SimpleNamespace(unique_id="5"), screen)
    run_reporter.begin(RunFolder(Path("runs/run")))
    assert freed == [True]
    for kind, data in (
        ("stage", {"name": "class images", "done": 3, "total": 500}),
        ("step", {"step": 7, "total": 20, "loss": 0.125}),
        ("preview", {"step": 7, "index": 0, "path": "samples/x.png"}),
        ("checkpoint", {"step": 7, "path": "checkpoints/7"}),
    ):
        run_reporter.show(Event(kind, 0.0, data))
    run_reporter.end()
    image = Path("runs/run/samples/x.png")
    assert screen.shown == [(3, 500, None), (7, 20, image), (7, 20, None)]
    pinned, stage, step, end = told
    assert pinned[1] == {"workflow": "", "node": "5", "kind": "run", "value": "run"}
    assert screen.said == ["class images 3 of 500", "step 7 of 20, loss 0.1250"]
    assert [message for message, _ in (stage, step, end)] == ["likeness.step"] * 3
    data = {"run": "run", "prompt": "p1", "ended": False, "line": "step 7 of 20, loss 0.1250"}
    assert step[1] == {**data, "step": 7, "total": 20}
    assert end == ("likeness.step", {"run": "run", "ended": True})


def test_a_thousand_steps_a_second_are_four_messages(nodes, monkeypatch):
    screen, told = Screen(), []
    monkeypatch.setattr(
        nodes.run_reporter.host, "send_event", lambda *message: told.append(message)
    )
    run_reporter = nodes.run_reporter.RunReporter(SimpleNamespace(unique_id="5"), screen)
    for step in range(1, 1001):
        run_reporter.show(Event("step", 0.0, {"step": step, "total": 1000, "loss": 0.1}))
    run_reporter.end()
    assert len(told) <= 8 and told[-2][1]["step"] == 1000
    assert len(screen.shown) == len(told) - 1


@pytest.fixture
def result(tmp_path):
    return Result(
        adapter=tmp_path / "loras" / "a.safetensors",
        recipe=Recipe(name="bob"),
        folder=tmp_path / "run",
        steps=1,
        losses=(0.5,),
        seconds={"train": 2.0},
        notes=("a note",),
        precision="fp32",
        peak_memory=1024**3,
    )


def test_the_adapters_name_is_as_the_loaders_list_it(nodes, result, tmp_path):
    assert nodes.training.adapter_name(result, tmp_path / "loras") == "a.safetensors"


@pytest.mark.parametrize("losses", [(), (0.5,), (0.5, 0.5), (0.5, 0.25)])
def test_core_can_draw_the_losses_of_any_run(nodes, result, losses):
    values = nodes.training.loss_map(replace(result, losses=losses))["loss"]
    assert max(values) > min(values)
    assert set(losses) <= set(values)


def test_the_report_says_where_the_file_is_and_that_a_run_was_reused(nodes, result):
    text = nodes.training.report(result)
    assert str(result.adapter) in text and "a note" in text and "train 2.0 s" in text
    assert "reused" not in text
    assert "Raise attempt" in nodes.training.report(replace(result, reused=True))
    kept = nodes.training.report(replace(result, stopped=True, reused=True))
    assert "Resume" in kept and "Raise attempt" not in kept


def test_times_of_the_last_attempt_looked_like_those_of_all_steps(nodes, result):
    """A run extended by one step said that all its steps took as long as that one."""
    report = nodes.training.report(result).splitlines()
    assert "last attempt: train 2.0 s" in report
    assert "time     train 2.0 s (last attempt)" in format_result(result).splitlines()


@pytest.fixture
def trains(nodes, result, monkeypatch, tmp_path):
    """Runs a train node's training, which only gives `result`; returns what it was asked for."""
    (tmp_path / "base.safetensors").write_bytes(b"12")
    training, silent, remarks, said = nodes.training, lambda *_: None, [], []
    run_reporter = SimpleNamespace(show=silent, begin=silent, publish=silent, end=silent)
    run_reporter.remark = lambda folder, text: remarks.append(text)
    for name in ("output_folder", "tokenizer_folder"):
        monkeypatch.setattr(training.host, name, silent)
    progress = SimpleNamespace(set_status=said.append)
    monkeypatch.setattr(training.host, "Progress", lambda node_id: progress)
    monkeypatch.setattr(training.host, "training_device", lambda: "cpu")
    monkeypatch.setattr(training.host, "model_path", lambda kind, name: tmp_path / name)
    monkeypatch.setattr(training.Places, "for_output", lambda *_, **__: None)
    monkeypatch.setattr(training, "RunReporter", lambda *_: run_reporter)

    def run(recipe=Recipe(name="bob"), **given):  # noqa: B008  it is frozen
        asked = {"reporter": run_reporter, "remarks": remarks, "said": said}
        train = lambda *_, **how: asked.update(how) or replace(result, **given)  # noqa: E731
        monkeypatch.setattr(training, "train", train)
        source, hidden = SimpleNamespace(folder=tmp_path), SimpleNamespace(unique_id="1")
        training.run(recipe, "base.safetensors", source, None, hidden, None)
        return SimpleNamespace(**asked)

    return run


def test_a_training_heeds_cancel_makes_room_and_uses_comfyuis_device(nodes, trains):
    asked = trains()
    assert asked.interrupted is nodes.training.host.interrupted
    assert asked.before_start is asked.reporter.begin, "which frees ComfyUI's models"
    assert asked.device == "cpu"
    assert asked.reuse_stopped, "what Stop and Save left is given on"


def test_a_cancel_was_not_heeded_while_a_base_of_gigabytes_was_read(nodes, trains, monkeypatch):
    host, asked = nodes.training.host, trains()

    def cancelled():
        raise InterruptedError

    monkeypatch.setattr(host, "interrupted", lambda: False)
    asked.on_read(Path("models/base.safetensors"))
    assert asked.said == ["Reading base.safetensors"]
    monkeypatch.setattr(host, "interrupted", cancelled)
    with pytest.raises(InterruptedError):
        asked.on_read(Path("models/base.safetensors"))


def test_a_node_says_on_its_panel_that_it_gives_a_file_of_another_name(trains):
    trains(Recipe(name="anna"), reused=True)
    trains(reused=True)
    said, *others = trains(reused=False).remarks
    assert "Already trained as 'bob'" in said and others == ["", ""]


def test_a_run_without_a_name_has_that_of_its_photographs(nodes, monkeypatch, tmp_path):
    training, miniature = nodes.training, nodes.training.miniature
    monkeypatch.setattr(training, "run", lambda recipe, *_: recipe.name)
    widgets = {"seed": 0, "steps": 1, "learning_rate": 1e-4, "batch_size": 1}
    widgets |= {
        "train_text_encoder": True,
        "precision": "fp32",
        "optimizer": "adamw",
        "preview_every": 0,
    }

    def name_of(folder, name):
        source = SimpleNamespace(spec=Subject(), folder=folder)
        given = {"subject": source, "base_model": "b.safetensors", "name": name}
        return training.train_from_inputs({"kind": "lora"}, None, **given, **widgets)

    assert name_of(tmp_path / "anna", "") == "", "bound to the folder, it has that one's name"
    assert name_of(tmp_path / "anna", "ben") == "ben"
    assert name_of(miniature.subject_folder(), "") == "miniature"
    assert name_of(miniature.subject_folder(), "ben") == "ben"
    validate = nodes.train_lora.TrainLoRA.validate_inputs
    assert validate(name="")


def test_what_a_stopped_run_gave_is_kept_and_a_deleted_adapter_is_not(nodes, result, trains):
    def asked_after(**given):
        """What tells ComfyUI whether to run the node again, after a run."""
        trains(**given)
        return nodes.train_lora.TrainLoRA.fingerprint_inputs(base_model="base.safetensors")

    result.adapter.parent.mkdir(exist_ok=True)
    result.adapter.write_bytes(b"")
    finished = asked_after()
    assert asked_after(stopped=True) == finished
    result.adapter.unlink()
    asked = nodes.train_lora.TrainLoRA.fingerprint_inputs
    assert asked(base_model="base.safetensors") != finished, "a deleted adapter is trained again"
    assert asked(base_model=None) != finished


# Adapters

MODULE = "lora_unet_x"
WEIGHTS = {"x.weight": (8, 6, 1, 1)}
GOOD = {f"{MODULE}.lora_down.weight": (2, 6), f"{MODULE}.lora_up.weight": (8, 2)}


def check(nodes, lora):
    nodes.adapters.check_lora("f", lora, {MODULE: "x.weight"}, WEIGHTS)


def test_a_lora_that_fits_passes(nodes):
    check(nodes, GOOD | {f"{MODULE}.alpha": (), f"{MODULE}.dora_scale": (8, 1, 1, 1)})
    check(nodes, {f"{MODULE}.lokr_w1": (2, 2)})


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({}, "does not fit"),
        (GOOD | {"lora_unet_y.alpha": ()}, "1 of its 3 tensors"),
        (GOOD | {f"{MODULE}.something": ()}, "lora_unet_x.something"),
        (GOOD | {f"{MODULE}.lora_down.weight": (2, 5)}, "5 inputs and 8 outputs"),
        (GOOD | {f"{MODULE}.lora_up.weight": (7, 2)}, "6 inputs and 7 outputs"),
        ({f"{MODULE}.lora_up.weight": (8, 2)}, "only one of its two"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(nodes, lora, message):
    with pytest.raises(AdapterError, match=message):
        check(nodes, lora)


def test_a_checkpoint_has_the_models_weights_all_and_only(nodes):
    base = {"a": (2,), "b": (3,), "x.position_ids": (1, 77)}
    nodes.adapters.check_checkpoint("f", "UNet", {"a": (2,), "b": (3,)}, base)
    for tuned in ({"a": (2,)}, {"a": (2,), "b": (4,)}, {**base, "c": (1,)}):
        with pytest.raises(AdapterError, match="1 weights of the UNet differ"):
            nodes.adapters.check_checkpoint("f", "UNet", tuned, base)


class Target:
    """Stands for a MODEL or a CLIP; notes the patches of its clones."""

    def __init__(self, patches=()):
        self.patches, self.patcher = patches, SimpleNamespace(patches=patches)


@pytest.fixture
def checkpoint(nodes, monkeypatch, tmp_path):
    """A full fine-tune of a model of one weight in each part, and what is patched with it."""
    host, added = nodes.adapters.host, []
    shapes = {"diffusion_model.a": (2,)}
    monkeypatch.setattr(nodes.adapters, "is_full_fine_tune", lambda path: True)
    tensors = {"model.diffusion_model.a": np.ones(2), "text": np.zeros(3)}
    for name, value in {
        "read_tensors": lambda path: tensors,
        "text_encoder_tensors": lambda model, tensors: {"t": tensors["text"]},
        "model_shapes": lambda model: shapes,
        "clip_shapes": lambda clip: {"t": (3,)},
        "with_patches": lambda *what: added.append(what) or "patched",
    }.items():
        monkeypatch.setattr(host, name, value)
    return tmp_path / "tuned.safetensors", added


def test_a_fine_tune_takes_the_place_of_its_share_of_the_base(nodes, checkpoint):
    path, added = checkpoint
    model, clip = Target(), Target()
    result = nodes.adapters.apply_adapter(model, clip, path, (0.75, 1.0))
    assert result == ("patched", "patched")
    (target, patches, strength, keep), (_, _, full, none) = added
    assert target is model and list(patches) == ["diffusion_model.a"]
    assert (strength, keep, full, none) == (0.75, 0.25, 1.0, 0.0)


def test_strength_zero_is_the_base_itself(nodes, checkpoint):
    path, added = checkpoint
    model, clip = Target(patches=("earlier",)), Target()
    assert nodes.adapters.apply_adapter(model, clip, path, (0.0, 0.0)) == (model, clip)
    assert added == []


@pytest.mark.parametrize("on", [0, 1])
def test_a_fine_tune_behind_other_patches_is_refused(nodes, checkpoint, on):
    targets = [Target(), Target()]
    targets[on] = Target(patches=("earlier",))
    with pytest.raises(AdapterError, match="the LoRAs after it"):
        nodes.adapters.apply_adapter(*targets, checkpoint[0], (1.0, 0.0))


def test_a_lora_has_its_own_strength_on_model_and_text_encoder(nodes, monkeypatch, tmp_path):
    adapters, added = nodes.adapters, []
    for name in ("is_full_fine_tune", "load_adapter", "check_lora"):
        monkeypatch.setattr(adapters, name, lambda *_: {})
    for name in ("lora_modules", "model_shapes", "clip_shapes", "lora_patches"):
        monkeypatch.setattr(adapters.host, name, lambda *_: {})
    monkeypatch.setattr(adapters.host, "with_patches", lambda *what: added.append(what))
    adapters.apply_adapter("model", "clip", tmp_path, (0.75, 0.5))
    assert added == [("model", {}, 0.75), ("clip", {}, 0.5)]


def test_no_adapter_is_the_base_itself(nodes):
    node = nodes.load_adapter.LoadAdapter
    result = node.execute("model", "clip", nodes.load_adapter.BASE, 1.0, 1.0)
    assert result.args == ("model", "clip", "base", "")


# Runs to continue


def test_only_finished_runs_are_listed_and_continued(nodes, tmp_path):
    runs = nodes.runs.runs_folder(tmp_path)
    for name in ("done", "open"):
        (runs / name).mkdir(parents=True)
    (runs / "done" / "result.json").write_text("{}", encoding="utf-8")
    assert nodes.runs.run_names(tmp_path) == ["done"]
    with pytest.raises(RecipeError, match="has not finished"):
        nodes.runs.run_digest(nodes.runs.find_run(tmp_path, "open"))
    with pytest.raises(RecipeError, match="no training 'gone'"):
        nodes.runs.find_run(tmp_path, "gone")


def test_only_folders_with_images_are_offered(nodes, tmp_path):
    for name in ("3d", "anna", "more/inner"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "anna" / "1.JPG").write_bytes(b"x")
    (tmp_path / "3d" / "mesh.glb").write_bytes(b"x")
    (tmp_path / "more" / "inner" / "1.png").write_bytes(b"x")
    assert nodes.paths.image_folders(tmp_path) == ["anna", "more/inner"]

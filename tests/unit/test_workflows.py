"""The bundled workflows, checked without ComfyUI: each loads and runs as it was saved.

`tests/golden/core_nodes.json` describes the nodes of ComfyUI 0.33.0, `our_nodes.json` ours.
"""

from __future__ import annotations

import importlib
import json
import re
import runpy
from pathlib import Path

import pytest
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.prompts import bundled_set
from likeness.tools.reduced_workflow import TRAIN_NODES
from likeness.tools.workflows.__main__ import text_of
from likeness.tools.workflows.graph import HIDDEN_WIDGETS
from likeness.tools.workflows.pages import pages
from likeness.tools.workflows.serialize import saved
from likeness.trainers.presets import preset
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = runpy.run_path(str(ROOT / "tests" / "comfy" / "graphs.py"))
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
FOLDER = ROOT / "workflows"
TABLE = {
    name: row
    for whose in ("core", "our")
    for name, row in json.loads(
        (ROOT / "tests" / "golden" / f"{whose}_nodes.json").read_text(encoding="utf-8")
    ).items()
}
GRAPH = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.json"))
}
every = pytest.mark.parametrize("name", GRAPH)

# The rows of the study's table, and its knowledge check.
STUDY = {
    "study_1_knowledge_check": (),
    "study_2_base": (),
    "study_3_tiny": ("tiny",),
    "study_4_standard": ("standard",),
    "study_5_lora_r1": ("lora-r1",),
    "study_6_lora_r4": ("lora-r4",),
    "study_7_lora_r8": ("lora-r8",),
    "study_8_standard_controlnet": ("standard",),
    "study_9_lora_r1_controlnet": ("lora-r1",),
    "study_everything": ("tiny", "standard", "lora-r1", "lora-r4", "lora-r8"),
}


def kinds(name):
    """The nodes of a workflow by their kind, with the values of their widgets."""
    found = {}
    for node in GRAPH[name]["nodes"]:
        if node["type"] not in GRAPHS["NOTES"]:
            values = GRAPHS["widget_values"](node, TABLE[node["type"]])
            found.setdefault(node["type"], []).append(values)
    return found


# What is stored


def test_the_stored_files_are_what_the_builder_writes():
    written = {page.name: text_of(saved(page)) for page in pages()}
    stored = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert stored == written, "run: python -m tools.workflows"


@every
def test_a_workflow_has_a_thumbnail_and_an_image_of_its_graph(name):
    graphs = FOLDER.parent / "docs" / "images" / "graphs"
    with Image.open(FOLDER / f"{name}.jpg") as card, Image.open(graphs / f"{name}.jpg") as graph:
        assert card.size == (640, 640)
        assert graph.width == 1200 > graph.height


# Nodes, widgets and links


@every
def test_a_workflow_loads_as_it_was_saved(name):
    graph = GRAPH[name]
    assert graph["version"] == 0.4
    ids = {node["id"]: node for node in graph["nodes"]}
    assert graph["last_node_id"] == max(ids) and len(ids) == len(graph["nodes"])
    assert sorted(node["order"] for node in graph["nodes"]) == [*range(len(ids))]
    for node in graph["nodes"]:
        if node["type"] in GRAPHS["NOTES"]:
            continue
        row = TABLE[node["type"]]
        assert [slot["type"] for slot in node["outputs"]] == [o["type"] for o in row["outputs"]]
        assert [slot["name"] for slot in node["outputs"]] == [o["name"] for o in row["outputs"]]
        values = GRAPHS["widget_values"](node, row)
        for part in row["inputs"]:
            check_value(part, values)


def check_value(part, values):
    """The saved value of a widget has its type and range."""
    if part["name"] not in values:
        return
    value = values[part["name"]]
    types = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool}
    assert isinstance(value, types.get(part["type"], str)), part
    if "min" in part:
        assert part["min"] <= value <= part["max"], part


@every
def test_every_input_that_a_node_needs_is_given(name):
    for node in GRAPHS["to_prompt"](GRAPH[name], TABLE).values():
        parts = TABLE[node["class_type"]]["inputs"]
        assert {p["name"] for p in parts if not p["optional"]} <= set(node["inputs"]), node
        assert set(node["inputs"]) <= {p["name"] for p in parts}, node


@every
def test_links_join_outputs_and_inputs_of_one_type(name):
    graph = GRAPH[name]
    ids = {node["id"]: node for node in graph["nodes"]}
    seen = set()
    for link, source, out, target, slot, kind in graph["links"]:
        output, entry = ids[source]["outputs"][out], ids[target]["inputs"][slot]
        assert link in output["links"] and entry["link"] == link
        assert output["type"] == kind and (kind == entry["type"] or "*" in (kind, entry["type"]))
        row = next(p for p in TABLE[ids[target]["type"]]["inputs"] if p["name"] == entry["name"])
        assert entry["type"] == row["type"]
        assert ids[source]["order"] < ids[target]["order"]
        seen.add(link)
    ends = [slot["link"] for node in graph["nodes"] for slot in node["inputs"]]
    assert seen == {link for link in ends if link is not None}


@every
def test_values_of_our_lists_are_on_them(name):
    listed = {key: part.options.get("options") for key, part in our_inputs().items()}
    files = {"base_model", "adapter", "folder", "continue_from", "start_from"}
    for kind, nodes in kinds(name).items():
        for widget in {widget for values in nodes for widget in values} - files:
            options = listed.get((kind, widget))
            assert not options or all(values[widget] in options for values in nodes), widget


def our_inputs():
    """What our nodes say of each input, by (node, input)."""
    import asyncio

    nodes = asyncio.run(STUB["install"]().LikenessExtension().get_node_list())
    schemas = [node.define_schema() for node in nodes]
    return {(one.node_id, part.id): part for one in schemas for part in one.inputs}


def test_the_seldom_options_are_counted_and_keep_their_places_in_saved_graphs():
    options = [o for (node, _), o in our_inputs().items() if node == "Likeness_TrainOptions"]
    assert sum("extra_dict" in one.options for one in options) == HIDDEN_WIDGETS
    # The browser puts optional widgets after all others.
    assert all(one.optional for one in options)


# What a reader sees


@every
def test_nothing_lies_on_something_else(name):
    boxes = [
        (node["pos"][0], node["pos"][1] - 30, node["pos"][0] + node["size"][0],
         node["pos"][1] + node["size"][1])
        for node in GRAPH[name]["nodes"]
    ]  # fmt: skip
    groups = [
        (x, y, x + width, y + height)
        for x, y, width, height in (group["bounding"] for group in GRAPH[name]["groups"])
    ]
    for number, box in enumerate(boxes):
        assert not any(overlap(box, other) for other in boxes[number + 1 :])
        around = [group for group in groups if overlap(box, group)]
        assert all(inside(box, group) for group in around) and len(around) <= 1
    for number, group in enumerate(groups):
        assert not any(overlap(group, other) for other in groups[number + 1 :])


# Pixels by which nodes grow downwards in the browser.
GROWTH = {
    "KSampler": 248,  # its first preview
    # Rows of Vue nodes are higher; below them are a warning and an error's bar.
    "Likeness_LoadAdapter": 36 + 64 + 30,
    "ControlNetLoader": 40,
    "Likeness_Score": 40,
}


def test_each_node_that_grows_is_in_some_workflow():
    assert set(GROWTH) <= {node["type"] for graph in GRAPH.values() for node in graph["nodes"]}


@every
def test_a_node_that_grows_covers_no_other(name):
    nodes = [(n["type"], *n["pos"], *n["size"]) for n in GRAPH[name]["nodes"]]
    for number, (kind, x, y, width, height) in enumerate(nodes):
        if kind in GROWTH:
            box = (x, y, x + width, y + height + GROWTH[kind])
            others = nodes[:number] + nodes[number + 1 :]
            assert not [k for k, a, b, w, h in others if overlap(box, (a, b - 30, a + w, b + h))]


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(a, b):
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


@every
def test_a_workflow_says_what_it_is_for_and_where_things_come_from(name):
    notes = [node for node in GRAPH[name]["nodes"] if node["type"] == "MarkdownNote"]
    assert notes[0]["widgets_values"][0].startswith("# ") and GRAPH[name]["groups"]
    text = json.dumps(GRAPH[name], ensure_ascii=False)
    assert not re.search(
        r"/(home|root|Users|work|tmp)/|[A-Z]:\\\\|https?://(?!huggingface\.co)", text
    )
    for node in GRAPH[name]["nodes"]:
        properties = node["properties"]
        if node["type"].startswith("Likeness_"):
            assert properties["cnr_id"] == "comfyui-likeness" and properties["ver"]
        for value in node["widgets_values"]:
            if isinstance(value, str) and value.endswith(".safetensors"):
                check_model(value, properties)


def check_model(file, properties):
    """A public model has a place to download it from; the miniature's come with the pack."""
    if file.startswith("zz-miniature"):
        return
    (model,) = properties["models"]
    assert model["name"] == file and model["url"].startswith("https://huggingface.co/")
    assert model["directory"] in ("checkpoints", "controlnet")


# The study's settings


@pytest.mark.parametrize(
    ("name", "keys", "family"),
    [
        *((*row, "") for row in STUDY.items()),
        ("miniature", STUDY["study_everything"], "miniature-"),
    ],
)
def test_a_training_is_its_preset(name, keys, family, monkeypatch):
    recipes = trained(name, monkeypatch)
    assert set(recipes) == set(keys)
    for key, recipe in recipes.items():
        wanted = preset(family + key).model_dump(mode="json")
        found = recipe.model_dump(mode="json")
        assert found.pop("name") == key and wanted.pop("name") == ""
        # Previews change nothing, and which attention is used neither.
        for part in (wanted, found):
            part.pop("previews")
            part["compute"].pop("attention")
        assert found == wanted


def trained(name, monkeypatch):
    """The recipes that the train nodes of a workflow make, by their names."""
    STUB["install"]()
    nodes = {
        kind: getattr(importlib.import_module(f"likeness.nodes.{module}"), cls)
        for kind, module, cls in (
            ("Likeness_Subject", "subject", "Subject"),
            ("Likeness_ClassImages", "class_images", "ClassImages"),
            ("Likeness_TrainOptions", "options", "TrainOptionsNode"),
            ("Likeness_TrainDreamBooth", "train_dreambooth", "TrainDreamBooth"),
            ("Likeness_TrainLoRA", "train_lora", "TrainLoRA"),
        )
    }
    training = importlib.import_module("likeness.nodes.training")
    values = importlib.import_module("likeness.nodes.values")
    made = {}

    def run(recipe, *_):
        made[recipe.name] = recipe
        raise InterruptedError

    monkeypatch.setattr(training, "run", run)
    monkeypatch.setattr("likeness.nodes.recipe_builder.is_installed", lambda name: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    prompt = GRAPHS["to_prompt"](GRAPH[name], TABLE)

    def value_of(link):
        inputs = dict(prompt[link[0]]["inputs"])
        if "folder" in inputs:
            del inputs["folder"]
            spec = importlib.import_module("likeness.nodes.subject").subject_spec(inputs)
            return values.SubjectSource(spec, Path("photos"))
        return nodes[prompt[link[0]]["class_type"]].execute(**inputs).args[0]

    for node in prompt.values():
        if node["class_type"] in TRAIN_NODES:
            inputs = {
                key: value_of(value) if isinstance(value, list) else value
                for key, value in node["inputs"].items()
            }
            with pytest.raises(InterruptedError):
                nodes[node["class_type"]].execute(**inputs)
    return made


@pytest.mark.parametrize("name", STUDY)
def test_an_image_of_the_study_is_drawn_as_the_study_drew_it(name):
    found = kinds(name)
    (matrix,), (sampler,) = found["Likeness_Matrix"], found["KSampler"]
    assert (matrix["width"], matrix["height"]) == (768, 1024)
    assert (sampler["steps"], sampler["cfg"]) == (35, 7.5)
    (texts,) = found["Likeness_PromptSet"]
    assert texts["prompts"] == ("knowledge-check" if "knowledge" in name else "study")
    assert matrix["draws"] == (3 if "knowledge" in name else 1)
    assert len(bundled_set("study").prompts) == 6 and len(yoga_poses()) == 4
    posed = "controlnet" in name or "everything" in name
    assert matrix["with_pose"] == ("both" if posed else "without")
    assert ("ControlNetApplyAdvanced" in found) == posed
    if posed:
        assert found["Likeness_PoseSet"][0]["poses"] == "all four yoga poses"


def rows(name):
    """Labels of a workflow's rows, poses included, if all sockets are connected."""
    from likeness.comparison.matrix import Variant, plan

    STUB["install"]()
    module = importlib.import_module("likeness.nodes.rows")
    (matrix,) = kinds(name)["Likeness_Matrix"]
    labels = [label or "base" for label, *_ in module.parse_rows(matrix["adapters"])]
    posed = module.parse_pose_rows(matrix["pose_rows"], labels)
    variants = [
        Variant(name=label, with_pose=matrix["with_pose"] if label in posed else "without")
        for label in labels
    ]
    return plan(variants, bundled_set("study").filled("sks", "man"), yoga_poses()).rows()


@pytest.mark.parametrize("name", ["study_everything", "miniature"])
def test_one_graph_compares_every_row_of_the_study(name):
    assert rows(name) == (
        "base",
        "tiny",
        "standard",
        "standard_cnet",
        "lora-r1",
        "lora-r1_cnet",
        "lora-r4",
        "lora-r8",
    )


def test_the_miniature_trains_all_of_them_without_files_of_the_user(monkeypatch):
    assert set(trained("miniature", monkeypatch)) == set(STUDY["study_everything"])
    found = kinds("miniature")
    assert {subject["folder"] for subject in found["Likeness_Subject"]} == {"miniature (bundled)"}

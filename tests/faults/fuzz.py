"""Bad inputs by hypothesis: each is a typed error or is taken, never a traceback, a hang or a
file outside its folder.

A target makes inputs, mostly by harming good ones, and gives one to the code; what it returns is
counted. Any exception but LikenessError fails, as does a file that appears, and a target that takes
nothing: its inputs go wrong at the door, and what is behind that is never tried.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import struct
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from likeness.comparison.estimates import Estimate
from likeness.comparison.keypoints import poses_of_keypoints, read_poses, yoga_poses
from likeness.comparison.matrix import Variant, plan_from_data
from likeness.comparison.matrix import plan as matrix
from likeness.comparison.plan_file import plan_file_from_data
from likeness.comparison.prompts import prompt_set_from_text, read_prompt_set
from likeness.comparison.row_means import adapter_means
from likeness.comparison.scores import Measure, Scores
from likeness.demo.random_model import write_random_model
from likeness.trainers.adapter import describe, load_adapter, read_metadata, recipe_of
from likeness.trainers.base_file import identify
from likeness.trainers.errors import LikenessError
from likeness.trainers.events import EventReader, EventWriter, event_from_line
from likeness.trainers.presets import preset
from likeness.trainers.recipe import Recipe, recipe_from_data, recipe_from_json
from likeness.trainers.run_folder import RunFolder
from likeness.trainers.safetensors_file import read_header
from safetensors.torch import save

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 100 << 20  # bytes that reading a hostile file of a few kilobytes may take
SECONDS = 5.0

Try = Callable[[Any, Path], None]


@dataclass(frozen=True)
class Target:
    """Inputs of one kind, what takes them, and how many the long form makes."""

    inputs: st.SearchStrategy[Any]
    take: Try
    examples: int


def run(target: Target, folder: Path, examples: int) -> Counter[str]:
    """Gives the target so many inputs; counts refused and taken ones. Raises AssertionError."""
    found: Counter[str] = Counter()
    room = folder / "room"
    room.mkdir(exist_ok=True)
    outside = listing(folder, room)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def one(value: Any) -> None:
        start = time.process_time()
        try:
            target.take(value, room)
            found["taken"] += 1
        except LikenessError as error:
            assert str(error).strip(), "an error without a text"
            found["refused"] += 1
        assert time.process_time() - start < SECONDS, f"it took long: {value!r:.200}"

    one()
    assert listing(folder, room) == outside, "a file appeared outside its folder"
    assert found["taken"], "nothing was taken: the good inputs are not good"
    return found


def listing(folder: Path, room: Path) -> set[str]:
    """Everything below a folder but what is in `room`."""
    return {str(path) for path in folder.rglob("*") if not path.is_relative_to(room)}


# Values of all kinds, and good values harmed.

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.just(10**400),  # no float holds it
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(["", " ", "..", "../../x", "/etc/passwd", "C:\\x", "\0", "<b>", "𝒳" * 50]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@st.composite
def harmed(draw: st.DrawFn, good: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed or added."""
    value = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        holder, keys = value, []
        while isinstance(holder, (dict, list)) and len(holder):
            within = list(holder) if isinstance(holder, dict) else range(len(holder))
            key = draw(st.sampled_from(within))
            keys.append((holder, key))
            holder = holder[key]
            if draw(st.booleans()):
                break
        if not keys:
            return draw(JSON)
        inside, key = keys[-1]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            inside[key] = draw(JSON)
        elif action == "remove":
            del inside[key]
        elif isinstance(inside, dict):
            inside[draw(st.text(max_size=12))] = draw(JSON)
        else:
            inside.append(draw(JSON))
    return value


def mostly_harmed(good: Any) -> st.SearchStrategy[Any]:
    """A good JSON value as it is, or harmed."""
    return st.just(good) | harmed(good)


@st.composite
def harmed_bytes(draw: st.DrawFn, good: bytes) -> bytes:
    """A file cut short, with bytes changed, or with bytes added."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        action = draw(st.sampled_from(["cut", "change", "insert"]))
        if action == "cut":
            del data[at:]
        elif action == "change":
            some = draw(st.binary(min_size=1, max_size=8))
            data[at : at + len(some)] = some
        else:
            data[at:at] = draw(st.binary(max_size=16))
    return bytes(data)


# Recipes and events.

GOOD_RECIPE = preset("lora-r4").model_dump(mode="json")


def _recipe(value: Any, room: Path) -> None:
    recipe = recipe_from_data(value)
    assert recipe_from_json(recipe.to_json()) == recipe
    _plain_name(recipe)


def _plain_name(recipe: Recipe) -> None:
    name = recipe.run_name()
    assert os.path.basename(name) == name and "\\" not in name and ":" not in name


def _recipe_text(value: bytes, room: Path) -> None:
    recipe_from_json(value.decode("utf-8", "surrogateescape"))


GOOD_EVENT = {
    "v": 1,
    "kind": "step",
    "time": 1.0,
    "step": 3,
    "total": 9,
    "loss": 0.5,
    "instance_loss": 0.25,
    "prior_loss": None,
    "learning_rate": 1e-4,
    "seconds": 0.1,
    "memory": 1,
}
GOOD_PREVIEW = {
    "v": 1,
    "kind": "preview",
    "time": 1.0,
    "step": 3,
    "index": 0,
    "path": "samples/a.png",
}


def _event(value: Any, room: Path) -> None:
    event = event_from_line(json.dumps(value))
    if event is not None and "path" in event.data and event.kind != "saved":
        inside = (room / event.data["path"]).resolve()
        assert inside.is_relative_to(room.resolve()), event
    if event is None:
        raise LikenessError("no event")


def _events_file(value: bytes, room: Path) -> None:
    path = room / "events.jsonl"
    path.write_bytes(value)
    EventReader(path).new_events()
    writer = EventWriter(path)
    writer.emit("stopped", step=7)
    writer.close()
    assert EventReader(path).new_events()[-1].data == {"step": 7}
    path.unlink()


GOOD_PLACES = dict.fromkeys(
    ("base", "photos", "class_images", "runs", "loras", "checkpoints", "cache"), "x"
) | {"tokenizers": ["x"]}
ADAPTER = "ADAPTER"  # stands for the file in a result
GOOD_RESULT = {
    "version": 1,
    "adapter": ADAPTER,
    "steps": 3,
    "losses": [0.5, 0.25],
    "seconds": {"train": 1.5},
    "notes": ["a note"],
    "precision": "fp32",
    "peak_memory": 7,
    "stopped": False,
}


@st.composite
def harmed_run(draw: st.DrawFn) -> list[Any]:
    """Recipe, places and result of a run, one of them harmed or of any kind."""
    good = [GOOD_RECIPE, GOOD_PLACES, GOOD_RESULT]
    which = draw(st.integers(0, 2))
    good[which] = draw(mostly_harmed(good[which]) | JSON)
    return good


def _run_folder(value: list[Any], room: Path) -> None:
    """A run's own files, harmed: there is a result or none."""
    folder, adapter = RunFolder(room), room / "adapter.safetensors"
    adapter.touch()
    files = (folder.recipe_file, folder.places_file, folder.result_file)
    for file, content in zip(files, value, strict=True):
        text = json.dumps(content).replace(json.dumps(ADAPTER), json.dumps(str(adapter)))
        file.write_text(text)
    found = folder.result()
    try:
        folder.places()
    finally:
        folder.recipe()
        adapter.unlink()
    if found is None:
        raise LikenessError("no result")


# Files of tensors.


def good_adapter() -> bytes:
    """A small LoRA with metadata, as bytes."""
    import torch

    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {
        f"{name}.lora_down.weight": torch.zeros(2, 4),
        f"{name}.lora_up.weight": torch.zeros(4, 2),
        f"{name}.alpha": torch.tensor(2.0),
    }
    recipe = preset("lora-r1").to_json(indent=None)
    return save(tensors, {"likeness.recipe": recipe, "ss_steps": "3"})


@cache
def good_base() -> bytes:
    """A small checkpoint of SD 1.x, as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return write_random_model(Path(folder) / "base.safetensors").read_bytes()


@st.composite
def hostile_file(draw: st.DrawFn, make: Callable[[], bytes] = good_adapter) -> bytes:
    """A safetensors file whose header lies: lengths, offsets, shapes, types, names, metadata."""
    good = make()
    length = int.from_bytes(good[:8], "little")
    header = draw(harmed(json.loads(good[8 : 8 + length])))
    text = json.dumps(header).encode()
    said = draw(st.sampled_from([len(text), len(text) - 1, 0, 2**63, 2**64 - 1, 10**9]))
    return struct.pack("<Q", said) + text + good[8 + length :]


DEEP = st.sampled_from(["[", '{"a":', '{"__metadata__":']).map(
    lambda opening: (lambda text: struct.pack("<Q", len(text)) + text)(opening.encode() * 20_000)
)


def _tensor_file(value: bytes, room: Path) -> None:
    path = room / "adapter.safetensors"
    path.write_bytes(value)
    tracemalloc.start()
    try:
        describe(read_metadata(path))
        recipe_of(path)
        load_adapter(path)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY, f"{peak} bytes of memory for a file of {len(value)}"
        path.unlink()


def _header(value: bytes, room: Path) -> None:
    path = room / "header.safetensors"
    path.write_bytes(value)
    try:
        read_header(path)
    except ValueError as error:
        raise LikenessError(str(error)) from None
    finally:
        path.unlink()


def _base_file(value: bytes, room: Path) -> None:
    path = room / "base.safetensors"
    path.write_bytes(value)
    try:
        identify(path)
    finally:
        path.unlink()


# What the comparison reads.

DIGEST = "a" * 64
PLAN = matrix([Variant(name="r4", adapter=DIGEST)], prompt_set_from_text("a dog"), yoga_poses())
GOOD_MATRIX = json.loads(PLAN.to_json())
GOOD_SCORES = json.loads(
    Scores(
        (Measure("subject.clip", "CLIP", "subject match", "", "higher"),),
        {"subject.clip": (0.5,)},
        {"subject.clip": (Estimate(0.5, 0.25, 0.75, 1, 1),)},
        {"subject.clip": None},
        ("a note",),
    ).to_json(PLAN)
)


def _scores(value: Any, room: Path) -> None:
    """What Load Adapter and `likeness export` read of a comparison."""
    (room / "plan.json").write_text(PLAN.to_json(), encoding="utf-8")
    (room / "scores.json").write_text(json.dumps(value), encoding="utf-8")
    for name, mean in adapter_means(room, DIGEST).items():
        assert isinstance(name, str) and isinstance(mean, float), (name, mean)


def _bundled(folder: str) -> list[Any]:
    files = sorted((ROOT / "comparison" / folder).glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _from_file(read: Callable[[Path], Any]) -> Try:
    def take(value: Any, room: Path) -> None:
        path = room / "input.json"
        path.write_text(json.dumps(value) if not isinstance(value, bytes) else "")
        if isinstance(value, bytes):
            path.write_bytes(value)
        read(path)

    return take


# Values of nodes.


def _nodes() -> Any:
    runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))["install"]()
    return importlib.import_module("likeness.nodes")


def _node_texts(texts: list[str], room: Path) -> None:
    """What users write into the widgets of the comparison, and an option of the training."""
    _nodes()
    prompts = importlib.import_module("likeness.nodes.prompt_set")
    poses = importlib.import_module("likeness.nodes.pose_set")
    refused = 0
    for read in (
        lambda: prompts.read_prompts(*texts),
        lambda: prompts.read_prompts(prompts.CUSTOM_TEXT, *texts[1:]),
        lambda: poses.select_poses(texts[0]),
    ):
        try:
            read()
        except LikenessError as error:
            assert str(error)
            refused += 1
    if refused == 3:
        raise LikenessError("refused")


def _folder_name(value: str, room: Path) -> None:
    _nodes()
    (room / "a").mkdir(exist_ok=True)
    names = importlib.import_module("likeness.nodes.paths")
    found = names.safe_join(room, value)
    assert found.resolve().is_relative_to(room.resolve())


def _left_out(value: str, room: Path) -> None:
    """A photograph that is left out and put back, or a name that is refused."""
    _nodes()
    left_out = importlib.import_module("likeness.nodes.left_out")
    photo = room / "photographs" / PHOTO
    photo.parent.mkdir(exist_ok=True)
    photo.touch()
    params = {"folder": photo.parent.name, "name": value}
    for move in (left_out.leave_out, left_out.put_back):
        status, _ = move(room, params, {"Sec-Fetch-Site": "same-origin"})
        assert status == (200 if value == PHOTO else 404), status
    assert list(photo.parent.iterdir()) == [photo]
    if value != PHOTO:
        raise LikenessError("refused")


def _route(value: tuple[int, str, str, dict[str, str]], room: Path) -> None:
    _nodes()
    routes = importlib.import_module("likeness.nodes.run_routes")
    good, *hostile = value
    name, start, headers = (
        usual if good >> bit & 1 else other
        for bit, (usual, other) in enumerate(zip((RUN, "0", OWN[good % 2]), hostile, strict=True))
    )
    there = room / "likeness" / "runs" / RUN
    there.mkdir(parents=True, exist_ok=True)
    (there / "recipe.json").write_text(json.dumps(GOOD_RECIPE))
    (there / "events.jsonl").write_text(json.dumps(GOOD_EVENT) + "\n")
    params, known = {"run": name, "start": start}, name == RUN
    status, _ = routes.run_events(room, params)
    assert status in ((200, 400) if known else (400, 404)), status
    for read in (routes.run_files, routes.run_class_images):
        assert read(room, params)[0] == (200 if known else 404)
    own = routes.same_origin(headers)
    for change in (routes.stop_run, routes.resume_run, routes.clean_run):
        changed, _ = change(room, params, headers)  # it neither trains nor has finished
        assert changed == ((409 if known else 404) if own else 403), (change, changed)
    shared, _ = routes.export_run(room, room, params, headers)
    assert shared == ((409 if known else 404) if own else 403), shared
    if status != 200 or not own:
        raise LikenessError("refused")


WRITTEN = ["a photo of {token} {class}", "{", "{0}", "{x!r}", "a = b", "k: v", "\n\n", "..", "[1]"]
GOOD_TEXTS = ["tree, lotus", "a photo of {token} {class}", "sks", "man", ""]
NAME_PARTS = ["..", ".", "a", "/", "\\", ":", "con", "\0", "∕", "．"]
FETCH = ["Origin", "Host", "Sec-Fetch-Site"]
OWN = [
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://localhost:8188", "Host": "localhost:8188"},
]
RUN = preset("lora-r4").changed(name="anna").run_name()
PHOTO = "a.jpg"
NAMES = st.text(max_size=300) | st.lists(st.sampled_from(NAME_PARTS), max_size=9).map("".join)
PROMPTS, POSES, PLANS = map(_bundled, ("prompt_sets", "pose_sets", "plans"))
KEYPOINTS = [
    {
        "version": "ap10k",
        "canvas_width": 64,
        "canvas_height": 64,
        "people": [{"pose_keypoints_2d": [float(n) for n in range(54)]}],
    }
]

TARGETS = {
    "recipes": Target(mostly_harmed(GOOD_RECIPE) | JSON, _recipe, 2500),
    "recipe files": Target(
        st.just(json.dumps(GOOD_RECIPE).encode())
        | harmed_bytes(json.dumps(GOOD_RECIPE).encode())
        | st.binary(max_size=60),
        _recipe_text,
        1000,
    ),
    "events": Target(mostly_harmed(GOOD_EVENT) | mostly_harmed(GOOD_PREVIEW) | JSON, _event, 2000),
    "event files": Target(
        harmed_bytes(b"".join(json.dumps(GOOD_EVENT).encode() + b"\n" for _ in range(3))),
        _events_file,
        500,
    ),
    "run folders": Target(harmed_run(), _run_folder, 1500),
    "adapter files": Target(
        st.just(good_adapter()) | hostile_file() | harmed_bytes(good_adapter()) | DEEP,
        _tensor_file,
        1500,
    ),
    "safetensors headers": Target(
        st.just(good_adapter()) | hostile_file() | st.binary(max_size=200), _header, 1500
    ),
    "base models": Target(
        st.builds(good_base) | hostile_file() | hostile_file(good_base), _base_file, 500
    ),
    "prompt sets": Target(
        st.sampled_from(PROMPTS).flatmap(mostly_harmed) | JSON | st.binary(max_size=50),
        _from_file(read_prompt_set),
        1000,
    ),
    "poses": Target(
        st.sampled_from(POSES).flatmap(mostly_harmed) | JSON | st.binary(max_size=50),
        _from_file(read_poses),
        1000,
    ),
    "keypoints": Target(
        mostly_harmed(KEYPOINTS) | JSON, lambda value, room: poses_of_keypoints(value), 1000
    ),
    "plans": Target(
        st.sampled_from(PLANS).flatmap(mostly_harmed) | JSON,
        lambda value, room: plan_file_from_data(value),
        1000,
    ),
    "matrices": Target(
        mostly_harmed(GOOD_MATRIX) | JSON, lambda value, room: plan_from_data(value), 1000
    ),
    "scores": Target(mostly_harmed(GOOD_SCORES) | JSON, _scores, 1000),
    "node inputs": Target(
        st.just(GOOD_TEXTS)
        | st.lists(st.text(max_size=60) | st.sampled_from(WRITTEN), min_size=5, max_size=5),
        _node_texts,
        1000,
    ),
    "folder names": Target(st.just("a") | NAMES, _folder_name, 1000),
    "photographs left out": Target(st.just(PHOTO) | NAMES, _left_out, 1000),
    "routes": Target(
        st.tuples(
            st.integers(0, 7),  # which of the three are good
            NAMES,
            st.text(max_size=20),
            st.dictionaries(st.sampled_from(FETCH), st.text()),
        ),
        _route,
        1000,
    ),
}

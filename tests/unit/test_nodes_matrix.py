"""The nodes of the comparison, over stand-ins for ComfyUI's modules."""

from __future__ import annotations

import importlib
import json
import runpy
import shutil
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from likeness.comparison.errors import ComparisonError
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_data, prompt_set_from_text
from likeness.trainers.errors import AdapterError, LikenessError
from likeness.trainers.recipe import check_name
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
refused = STUB["refused"]


@pytest.fixture
def nodes(tmp_path):
    """Modules of the nodes by name; there are two LoRAs and an output folder."""
    loras = tmp_path / "loras"
    loras.mkdir()
    for name in ("one", "two"):
        (loras / f"{name}.safetensors").write_bytes(name.encode())
    STUB["install"](
        {
            "get_output_directory": lambda: str(tmp_path / "output"),
            "models_dir": str(tmp_path),
            "get_filename_list": lambda kind: (
                [path.name for path in loras.iterdir()] if kind == "loras" else []
            ),
            "get_full_path": lambda kind, name: str(loras / name),
            "folder_names_and_paths": {"loras": ([str(loras)], {".safetensors"})},
            "exists_annotated_filepath": lambda name: False,
        }
    )
    names = [
        "contact_sheet",
        "detect_pose",
        "draw_cells",
        "matrix",
        "pose_set",
        "prompt_set",
        "rows",
        "study",
        "viewer",
    ]
    yield SimpleNamespace(
        **{name: importlib.import_module(f"likeness.nodes.{name}") for name in names}
    )
    STUB["install"]()


# Prompts


def test_a_prompt_set_is_filled_in_and_its_negative_replaced(nodes):
    study, negative = nodes.prompt_set.PromptSetNode.execute("study", "", "sks", "man", "").args
    assert len(study.prompts) == 6 and negative == study.negative != ""
    assert all("{" not in prompt.text for prompt in study.prompts)
    assert any("sks" in prompt.text for prompt in study.prompts)
    bare, negative = nodes.prompt_set.PromptSetNode.execute("study", "", "sks", "man", "-").args
    assert negative == bare.negative == ""
    own, negative = nodes.prompt_set.PromptSetNode.execute(
        "own text", "rain = a {token} {class} in the rain", "", "dog", "blurry"
    ).args
    assert [(p.key, p.text) for p in own.prompts] == [("rain", "a dog in the rain")]
    assert negative == own.negative == "blurry"


def test_prompts_are_checked_before_the_queue_and_not_while_connected(nodes):
    check = nodes.prompt_set.PromptSetNode.validate_inputs
    good = {"prompts": "own text", "text": "x", "token": "sks", "class_word": "man", "negative": ""}
    assert check(**good) is True
    assert "There is no prompt" in refused(check, **{**good, "text": "# nothing"})
    assert "{colour}" in refused(check, **{**good, "text": "a {colour} dog"})
    assert "class word is empty" in refused(check, **{**good, "class_word": " "})
    assert "no prompt set 'x'" in refused(check, **{**good, "prompts": "x"})
    assert check(**{**good, "text": None, "class_word": " "}) is True


def test_prompts_were_not_read_while_the_token_comes_by_a_wire(nodes):
    check = nodes.prompt_set.PromptSetNode.validate_inputs
    wired = {"prompts": "own text", "token": None, "class_word": None, "negative": None}
    assert check(**wired, text="a {token} {class}") is True
    assert "{colour}" in refused(check, **wired, text="a {colour} dog")
    assert "There is no prompt" in refused(check, **wired, text="")
    assert "no prompt set 'x'" in refused(check, **{**wired, "prompts": "x"}, text="")


# Poses


def test_the_pose_set_gives_all_one_or_those_connected(nodes):
    run = nodes.pose_set.PoseSet.execute
    poses, preview = run(nodes.pose_set.ALL_POSES, 64, 96).args
    assert poses == yoga_poses() and preview.shape == (4, 96, 64, 3)
    assert preview.dtype == torch.float32 and 0 == preview.min() < preview.max() <= 1
    (tree,), _ = run("tree", 64, 96).args
    assert tree.name == "tree"
    frame = {
        "canvas_width": 100,
        "canvas_height": 100,
        "people": [{"pose_keypoints_2d": [10.0, 20.0, 1.0] * 18}],
    }
    (pose,), _ = run("tree", 64, 96, [frame]).args
    assert pose.people[0][0] == (0.1, 0.2)
    with pytest.raises(ComparisonError, match="5 points"):
        run("tree", 64, 96, [{**frame, "people": [{"pose_keypoints_2d": [1.0] * 15}]}])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all four yoga poses", ["tree", "warrior-two", "goddess", "lotus"]),
        ("lotus, tree", ["tree", "lotus"]),
        ("goddess", ["goddess"]),
    ],
)
def test_poses_are_chosen_by_name(nodes, text, names):
    assert [pose.name for pose in nodes.pose_set.select_poses(text)] == names
    assert nodes.pose_set.PoseSet.validate_inputs(text) is True


@pytest.mark.parametrize("text", ["", " , ", "tree, crow", "<b>"])
def test_a_pose_that_is_unknown_is_said_before_the_queue(nodes, text):
    assert "tree, warrior-two, goddess, lotus" in refused(
        nodes.pose_set.PoseSet.validate_inputs, text
    )


def test_the_pose_picker_has_what_it_draws(nodes):
    data = json.loads(json.dumps(nodes.pose_set.picker_data()))
    assert [len(person) for pose in data["poses"] for person in pose["people"]] == [18] * 4
    assert len(data["limbs"]) == 17 and len(data["colours"]) == 18


@pytest.fixture
def controlnet_aux(monkeypatch):
    """A stand-in for the package that finds `found` people on every image."""
    seen = SimpleNamespace(found=1, sizes=[], environment=None)

    class Body:
        def __init__(self, path):
            import os

            seen.environment = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
            if Path(path).read_bytes() != b"weights":
                raise RuntimeError("not a zip file")

    class Detector:
        def __init__(self, body):
            pass

        def detect_poses(self, pixels):
            seen.sizes.append(pixels.shape)
            joints = [SimpleNamespace(x=0.5, y=0.25), *[None] * 16, SimpleNamespace(x=0.1, y=0.2)]
            return [SimpleNamespace(body=SimpleNamespace(keypoints=joints))] * seen.found

    package = types.ModuleType("controlnet_aux")
    package.__spec__ = importlib.machinery.ModuleSpec("controlnet_aux", None)
    package.open_pose = types.ModuleType("controlnet_aux.open_pose")
    package.open_pose.OpenposeDetector = Detector
    package.open_pose.body = types.ModuleType("controlnet_aux.open_pose.body")
    package.open_pose.body.Body = Body
    for module in (package, package.open_pose, package.open_pose.body):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_poses_are_detected_offline_and_without_pickles(
    nodes, controlnet_aux, tmp_path, monkeypatch
):
    monkeypatch.setattr(nodes.detect_pose, "interrupted", lambda: False)
    (tmp_path / "annotators").mkdir()
    (tmp_path / "annotators" / "body_pose_model.pth").write_bytes(b"weights")
    run = nodes.detect_pose.DetectPose.execute
    frames, preview = run(torch.zeros(2, 1024, 768, 3), "annotators").args
    assert controlnet_aux.environment == "1"
    assert controlnet_aux.sizes == [(683, 512, 3)] * 2
    assert preview.shape == (2, 1024, 768, 3)
    assert len(frames) == 2 and frames[0]["people"][0]["pose_keypoints_2d"][:3] == [384, 256, 1]
    assert frames[0]["people"][0]["pose_keypoints_2d"][3:6] == [0, 0, 0]
    controlnet_aux.found = 0
    with pytest.raises(ComparisonError, match="Nobody is found on image-1"):
        run(torch.zeros(1, 64, 64, 3), "annotators")
    (tmp_path / "annotators" / "body_pose_model.pth").write_bytes(b"other")
    with pytest.raises(ComparisonError, match="download it again"):
        run(torch.zeros(1, 64, 64, 3), "annotators")


def test_what_is_missing_for_detection_is_said_before_the_queue(nodes, tmp_path, monkeypatch):
    check = nodes.detect_pose.DetectPose.validate_inputs
    monkeypatch.setattr(nodes.detect_pose, "is_installed", lambda name: False)
    assert "package controlnet_aux" in refused(check, "annotators")
    monkeypatch.setattr(nodes.detect_pose, "is_installed", lambda name: True)
    monkeypatch.delenv(nodes.detect_pose.CKPTS_ENV, raising=False)
    assert "lllyasviel/Annotators" in refused(check, "annotators")
    (tmp_path / "annotators").mkdir()
    assert "has no body_pose_model.pth" in refused(check, "annotators")
    for name in ("../x", "/etc", "a/../../b", ""):
        assert "not a valid folder name" in refused(check, name)


def test_the_weights_are_found_in_a_folder_of_extra_model_paths(nodes, tmp_path, monkeypatch):
    find, name = nodes.detect_pose.find_weights, nodes.detect_pose.WEIGHTS
    folders = {kind: tmp_path / "elsewhere" / kind for kind in ("checkpoints", "annotators")}
    known = sys.modules["folder_paths"]
    monkeypatch.setattr(known, "folder_names_and_paths", folders)
    monkeypatch.setattr(known, "get_full_path", lambda kind, name: str(folders[kind] / name))
    below = folders["checkpoints"] / "openpose" / name
    beside = folders["annotators"] / name
    for path in (beside, below):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
        assert find("openpose") == path
    assert find("annotators") == beside
    own = tmp_path / "annotators" / name
    own.parent.mkdir()
    own.write_bytes(b"weights")
    assert find("annotators") == own


def test_the_weights_are_found_where_the_pack_for_preprocessors_keeps_its(
    nodes, tmp_path, monkeypatch
):
    path = tmp_path / "ckpts" / "lllyasviel" / "Annotators" / nodes.detect_pose.WEIGHTS
    monkeypatch.setenv(nodes.detect_pose.CKPTS_ENV, str(tmp_path / "ckpts"))
    with pytest.raises(ComparisonError, match="extra_model_paths"):
        nodes.detect_pose.find_weights("annotators")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert nodes.detect_pose.find_weights("annotators") == path


# The matrix


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("base", [("", "none (base)", 1)]),
        ("# rows\n\n a.safetensors \n", [("", "a.safetensors", 1)]),
        (
            "r4 = x/a.safetensors\nb = base",
            [("r4", "x/a.safetensors", 1), ("b", "none (base)", 1)],
        ),
        (
            "r4 = adapter_1 @ 0.7\na @ b.safetensors @ -1",
            [("r4", "adapter_1", 0.7), ("", "a @ b.safetensors", -1)],
        ),
        ("anna@home.safetensors", [("", "anna@home.safetensors", 1)]),
        ("r1=adapter_3\nadapter_3@0.7", [("r1", "adapter_3", 1), ("", "adapter_3", 0.7)]),
        ("Base\nb=BASE", [("", "none (base)", 1), ("b", "none (base)", 1)]),
        ("x =a.safetensors@.5", [("x", "a.safetensors", 0.5)]),
        (
            "a=b.safetensors\nr = a=b.safetensors @1",
            [("", "a=b.safetensors", 1), ("r", "a=b.safetensors", 1)],
        ),
        ("c@2 @ 0.5\nc@2", [("", "c@2", 0.5), ("", "c@2", 1)]),
        ("", []),
    ],
)
def test_adapters_are_read_line_by_line(nodes, text, lines):
    files = ("a=b.safetensors", "c@2")  # a diffusers folder has no ending
    assert [row[:3] for row in nodes.rows.parse_rows(text, files)] == lines


def test_rows_without_a_name_get_one_from_their_file(nodes):
    lines = [
        ("", "none (base)"),
        ("", "people/anna r4.safetensors"),
        ("", "people\\anna r4.safetensors"),
        ("", "фото.safetensors"),
        ("ANNA-r4-3", "x.safetensors"),
        ("", "dogs/anna-r4.safetensors"),
        ("", "anna.safetensors", 0.7),
        ("", "anna.safetensors", -1.0),
    ]
    found = nodes.rows.assign_labels(nodes.rows.Row(*line) for line in lines)
    labels = [row.label for row in found]
    assert labels == [
        *("base", "anna-r4", "anna-r4-2", "фото", "ANNA-r4-3", "anna-r4-4"),
        *("anna_0.7", "anna_-1"),
    ]
    assert [check_name(label) for label in labels] == labels
    with pytest.raises(ComparisonError, match="no adapters"):
        nodes.rows.assign_labels([])


def test_rows_in_other_scripts_lost_their_names(nodes):
    names = ("Анна.safetensors", "安娜 v2.safetensors", "Анна.v2.safetensors")
    found = nodes.rows.assign_labels(nodes.rows.Row("", name) for name in names)
    assert [row.label for row in found] == ["Анна", "安娜-v2", "Анна-v2"]
    (row,) = nodes.rows.parse_rows("Ju\u0308rgen = base")
    assert row.label == "Jürgen"
    assert nodes.rows.parse_pose_rows("Ju\u0308rgen", ["Jürgen"]) == {"Jürgen"}


def test_rows_name_what_is_connected_and_the_rest_follows(nodes):
    lines = nodes.rows.parse_rows("base\nr4 = adapter_2\nadapter_3")
    files = {"adapter_1": "a.safetensors", "adapter_2": "b.safetensors", "adapter_3": "c.st"}
    assert [row[:3] for row in nodes.rows.resolve_sockets(lines, files)] == [
        ("", "none (base)", 1),
        ("r4", "b.safetensors", 1),
        ("", "c.st", 1),
        ("", "a.safetensors", 1),
    ]
    with pytest.raises(ComparisonError, match="row 'r4' refers to adapter_2"):
        nodes.rows.resolve_sockets(lines, {"adapter_3": "c.st"})


def test_each_file_that_a_training_left_on_its_way_is_a_row(nodes):
    rows = nodes.rows
    files = [
        *("sub/anna-1.safetensors", "sub/anna-1-step001000.safetensors"),
        *("sub/anna-1-step000200.safetensors", "anna-1-step000100.safetensors", "bob.safetensors"),
    ]
    expected = [
        ("r4_200", "sub/anna-1-step000200.safetensors"),
        ("r4_1000", "sub/anna-1-step001000.safetensors"),
        ("r4", "sub/anna-1.safetensors"),
    ]
    for name in ("sub/anna-1.safetensors", "sub/anna-1-step000200.safetensors"):
        lines = rows.resolve_sockets(rows.parse_rows("base\nr4 = adapter_1 @ steps"),
                                    {"adapter_1": name})  # fmt: skip
        found = rows.expand_steps(lines, files)
        assert [row[:2] for row in found] == [("", "none (base)"), *expected]
    again = ["a-0a1b2c3d-2.safetensors", "a-0a1b2c3d-step000100.safetensors"]
    again += ["a-0a1b2c3d-step000100-2.safetensors", "a-0a1b2c3d.safetensors"]
    found = rows.expand_steps(rows.parse_rows("r = a-0a1b2c3d-2.safetensors @ steps"), again)
    assert [row[:2] for row in found] == [("r_100", again[2]), ("r", again[0])], "the last try"
    stopped = rows.parse_rows("anna-1-step000100.safetensors @ steps")
    assert [row[:2] for row in rows.expand_steps(stopped, files)] == [
        ("anna-1_100", "anna-1-step000100.safetensors")
    ]
    dotted = ["anna.b-1.safetensors", "anna.b-1-step000100.safetensors"]
    found = rows.expand_steps(rows.parse_rows(f"{dotted[0]} @ steps"), dotted)
    assert [row.label for row in found] == ["anna-b-1_100", "anna-b-1"]
    with pytest.raises(ComparisonError, match="save_adapter_every"):
        rows.expand_steps(rows.parse_rows("bob.safetensors @ steps"), files)


EPOCHS = ("x.safetensors", "x-2.safetensors", "x-10.safetensors", "people/x-1.safetensors")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("x-*", [("", "x-2.safetensors", 1), ("", "x-10.safetensors", 1)]),
        ("base\nx-?.* @ 0.7", [("", "none (base)", 1), ("", "x-2.safetensors", 0.7)]),
        (
            "e=x*.safetensors@-.5",
            [(f"e{end}", f"x{file}.safetensors", -0.5) for end, file in
             (("_2", "-2"), ("_10", "-10"), ("", ""))],
        ),
        ("e = x-1*", [("e", "x-10.safetensors", 1)]),
        ("people/*", [("", "people/x-1.safetensors", 1)]),
    ],
)  # fmt: skip
def test_a_pattern_is_a_row_for_each_file_that_matches(nodes, text, rows):
    assert [row[:3] for row in nodes.rows.parse_rows(text, EPOCHS)] == rows


def test_names_that_hold_wildcards_and_brackets_are_files_first(nodes):
    files = ["a*.st", "a1.st", "b[1].st", "b1.st", "x = a*.st"]
    for name in files:
        (row,) = nodes.rows.parse_rows(f"r = {name}", files)
        assert row[:2] == ("r", name)
    assert [row.name for row in nodes.rows.parse_rows("a?.st\nb[1].*", files)] == [
        "a1.st", "a*.st", "b[1].st",
    ]  # fmt: skip


def test_a_pattern_that_matches_nothing_or_too_much_is_told_before_the_queue(nodes, tmp_path):
    check = nodes.matrix.Matrix.validate_inputs
    said = refused(check, "base\ntow*.safetensors")
    assert "row 'tow*.safetensors': no file in Load Adapter's list matches" in said
    assert "Similar names: two.safetensors." in said
    for number in range(64):
        (tmp_path / "loras" / f"e{number}.safetensors").write_bytes(b"e")
    assert check("e*.safetensors") is True
    assert "matches 66 files" in refused(check, "*.safetensors")
    assert "has 66 rows, and a comparison at most 64" in refused(check, "base\none*\ne*.safe*")


def test_a_row_of_a_pattern_is_the_row_written_out(nodes):
    written, _ = run_matrix(nodes, adapters="one.safetensors\ntwo.safetensors")
    matched, _ = run_matrix(nodes, adapters="*.safetensors")
    assert matched == written
    named, _ = run_matrix(nodes, adapters="r = *.safetensors @ 0.5")
    assert named.plan.rows() == ("r_one", "r_two")
    assert [variant.strength_unet for variant in named.plan.variants] == [0.5, 0.5]
    check = nodes.matrix.Matrix.validate_inputs
    assert check("*.safetensors", "one") is True
    assert "there is no row 'three'" in refused(check, "*.safetensors", "three")


def test_files_that_match_later_or_change_their_names_are_seen_at_the_next_queue(nodes, tmp_path):
    mark = nodes.matrix.Matrix.fingerprint_inputs
    loras = tmp_path / "loras"
    marks = [mark("t*"), mark("three*"), mark("t*")]
    shutil.copy(loras / "two.safetensors", loras / "three.safetensors")
    marks += [mark("t*"), mark("three*")]
    (loras / "three.safetensors").rename(loras / "trio.safetensors")
    marks += [mark("t*")]
    assert marks[0] == marks[2] and len({*marks}) == 5


def test_a_pattern_with_steps_has_the_files_of_each_training_once(nodes):
    rows, files = nodes.rows, [
        *("a-0a1b2c3d.safetensors", "a-0a1b2c3d-step000100.safetensors"),
        *("a-0a1b2c3d-step000200.safetensors", "a-1a1b2c3d-step000100.safetensors"),
    ]  # fmt: skip
    found = rows.expand_steps(rows.parse_rows("a-* @ steps", files), files)
    assert [row.label for row in found] == [
        "a-0a1b2c3d_100", "a-0a1b2c3d_200", "a-0a1b2c3d", "a-1a1b2c3d_100",
    ]  # fmt: skip
    (named,) = rows.parse_rows("r = a-0* @ steps", files)
    assert named == ("r", files[0], 1.0, True)


def test_one_training_without_intermediate_files_refused_a_pattern_of_all_steps(nodes):
    rows = nodes.rows
    files = ["a-0a1b2c3d.safetensors", "a-0a1b2c3d-step000100.safetensors", "b.safetensors"]
    found = rows.expand_steps(rows.parse_rows("* @ steps", files), files)
    assert [row.name for row in found] == [files[1], files[0], files[2]]
    with pytest.raises(ComparisonError, match="saved no intermediate files"):
        rows.expand_steps(rows.parse_rows("b* @ steps", files), files)


def test_only_the_chosen_rows_are_drawn_with_a_pose(nodes):
    rows = {"adapters": "base\none.safetensors", "adapter_1": "two.safetensors"}
    rows |= {"with_pose": "both", "poses": yoga_poses()}
    value, _ = run_matrix(nodes, **rows, pose_rows="# these\none\n\ntwo")
    assert value.plan.rows() == ("base", "one", "one_cnet", "two", "two_cnet")
    value, _ = run_matrix(nodes, **rows | {"with_pose": "with"}, pose_rows="one")
    assert value.plan.rows() == ("base", "one_cnet", "two")
    with pytest.raises(ComparisonError, match=r"no row 'three'.* base, one, two"):
        run_matrix(nodes, **rows, pose_rows="three")


def run_matrix(nodes, **changes):
    """The value on the matrix wire, and the outputs before it."""
    inputs = {
        "prompts": prompt_set_from_data(
            {
                "negative": "blurry",
                "prompts": [
                    {"key": "a", "text": "on the beach"},
                    {"key": "b", "text": "in the rain"},
                ],
            }
        ),
        "adapters": "base\none.safetensors",
        "seed": 7,
        "draws": 1,
        "with_pose": "without",
        "pose_rows": "",
        "control_strength": 0.8,
        "width": 64,
        "height": 128,
        **changes,
    }
    *cell, value, strength = nodes.matrix.Matrix.execute(**inputs).args
    return value, [*cell, strength]


def test_the_matrix_plans_and_blocks_its_own_outputs(nodes):
    value, cell = run_matrix(nodes, adapter_2="two.safetensors", adapter_1=None)
    assert value.plan.rows() == ("base", "one", "two")
    digests = [variant.adapter for variant in value.plan.variants]
    assert digests[0] is None and len({*digests}) == 3
    assert len(cell) == 10 and {type(output).__name__ for output in cell} == {"Record"}
    schema = nodes.matrix.Matrix.define_schema()
    assert len(schema.outputs) == len(cell) + 1
    with pytest.raises(AdapterError, match=r"no LoRA or checkpoint 'three\.safetensors'"):
        run_matrix(nodes, adapter_1="three.safetensors")


def test_a_cell_has_its_values_in_the_order_of_the_outputs(nodes):
    value, _ = run_matrix(nodes, with_pose="both", poses=yoga_poses())
    cells = value.plan.cells()
    plain, posed = value.values(cells[5]), value.values(cells[7])
    one = ("one.safetensors", "in the rain", "blurry", 7)
    assert plain == (*one, "", 0.0, "one", 64, 128, None, 1.0)
    assert posed[:4] == one and posed[5:] == (0.8, "one_cnet", 64, 128, None, 1.0)
    ids = [output.id for output in nodes.matrix.Matrix.define_schema().outputs]
    assert ids[nodes.matrix.ADAPTER_STRENGTH] == "adapter_strength"
    (frame,) = json.loads(posed[nodes.matrix.POSE])
    assert (frame["canvas_width"], frame["canvas_height"]) == (64, 128)
    assert hash(posed) == hash(value.values(cells[7]))


def test_one_adapter_at_two_strengths_is_two_rows_of_different_cells(nodes):
    value, _ = run_matrix(nodes, adapters="one.safetensors\nhalf = one.safetensors @ 0.5")
    whole, half = (value.plan.cells()[n] for n in (0, 2))
    assert value.values(half)[nodes.matrix.ADAPTER_STRENGTH] == 0.5
    assert value.plan.digest_of(whole) != value.plan.digest_of(half)
    bare = {nodes.matrix.ADAPTER, nodes.matrix.PROMPT}
    nodes.contact_sheet.check_connections({*bare, nodes.matrix.ADAPTER_STRENGTH}, value.plan)
    with pytest.raises(ComparisonError, match="Row half has a strength, but nothing uses it"):
        nodes.contact_sheet.check_connections(bare, value.plan)
    nodes.contact_sheet.check_connections(bare, run_matrix(nodes)[0].plan)


def test_a_bypassed_load_adapter_drew_the_base_in_every_row(nodes):
    matrix, check = nodes.matrix, nodes.contact_sheet.check_connections
    value, _ = run_matrix(nodes, with_pose="both", poses=yoga_poses())
    every = {matrix.ADAPTER, matrix.PROMPT, matrix.POSE, matrix.SEED}
    check(every, value.plan)
    for output, said in (
        (matrix.ADAPTER, "Row one has an adapter, but nothing uses it"),
        (matrix.POSE, "Row base_cnet has poses, but nothing uses them"),
        (matrix.PROMPT, "There are several prompts, but nothing uses them"),
    ):
        with pytest.raises(ComparisonError, match=said):
            check(every - {output}, value.plan)
    alone = prompt_set_from_text("a = on the beach")
    base, _ = run_matrix(nodes, adapters="base", prompts=alone)
    check({matrix.SEED}, base.plan)


def test_written_adapters_are_looked_up_before_the_queue(nodes, tmp_path):
    check = nodes.matrix.Matrix.validate_inputs
    assert check("base\none.safetensors\nr4 = adapter_1", adapter_1=None) is True
    assert "nobody.safetensors" in refused(check, "base\nnobody.safetensors")
    mark = nodes.matrix.Matrix.fingerprint_inputs
    before = mark("one.safetensors")
    assert before == mark("x = one.safetensors")
    (tmp_path / "loras" / "one.safetensors").write_bytes(b"trained again")
    assert mark("one.safetensors") != before
    assert "no intermediate files" in refused(check, "one.safetensors @ steps")
    one = tmp_path / "loras" / "one.safetensors"
    shutil.copy(one, one.with_stem("one-step000010"))
    assert check("one.safetensors @ steps", "one_10") is True
    before = mark("one.safetensors @ steps")
    shutil.copy(one, one.with_stem("one-step000020"))
    assert mark("one.safetensors @ steps") != before
    value, _ = run_matrix(nodes, adapters="one.safetensors @ steps")
    assert value.plan.rows() == ("one_10", "one_20", "one")


def test_a_row_whose_train_node_is_gone_is_told_before_the_queue(nodes):
    check = nodes.matrix.Matrix.validate_inputs
    rows = "base\nr1 = adapter_1\nr4 = adapter_2"
    assert check(rows, "r1", adapter_1=None, adapter_2=None) is True
    assert "row 'r4' refers to adapter_2" in refused(check, rows, "", adapter_1=None)
    assert "there is no row 'r4'" in refused(check, "base\nr1 = adapter_1", "r4", adapter_1=None)
    assert "The Matrix has no adapters" in refused(check, "", "")
    assert check("größe = adapter_1", adapter_1=None) is True
    assert "'a/b' has an invalid name" in refused(check, "a/b = adapter_1", adapter_1=None)
    assert "'r4 = ' before it sets the row's name" in refused(check, "r4 - one.safetensors")
    assert "a strength ranges from -2 to 2; the base takes neither" in refused(check, "base @ 0.5")
    assert "the base takes neither" in refused(check, "base @ steps")
    assert "a strength ranges from -2 to 2" in refused(check, "r4 = one.safetensors @ 3")
    assert "Two rows are called 'R4'" in refused(check, "r4 = base\nR4 = one.safetensors")
    assert "the Matrix has no poses" in refused(check, "base", with_pose="both")
    assert check("base", with_pose="both", poses=None) is True
    assert check("base", with_pose=None) is True
    assert "with_pose is 'bothh'" in refused(check, "base", with_pose="bothh", poses=None)
    # The file's name, which will be the row's, is not known yet.
    assert check("base", "anna-lora-4f2a", adapter_3=None) is True
    assert check(None, "anything") is True


def test_a_bypassed_train_node_gives_no_adapter(nodes):
    with pytest.raises(ComparisonError, match="adapter_3 is not a file name"):
        run_matrix(nodes, adapter_3=object())


# Its files


@pytest.fixture
def small_plan():
    prompts = prompt_set_from_text("a = on the beach\nb = in the rain")
    return plan([Variant(name="base"), Variant(name="r4")], prompts)


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("", []),
        ("base / b", [1]),
        ("r4", [2, 3]),
        ("b", [1, 3]),
        ("*/a\nr4/*", [0, 2, 3]),
        ("r? / a", [2]),
    ],
)
def test_cells_are_named_by_row_and_column(nodes, small_plan, text, cells):
    assert nodes.study.select_cells(small_plan, text) == {*cells}


def test_a_line_that_names_no_cell_lists_rows_and_columns(nodes, small_plan):
    with pytest.raises(ComparisonError, match=r"'c'.*base, r4.*a, b"):
        nodes.study.select_cells(small_plan, "base\nc")


def test_a_study_has_single_images_plan_and_sheet(nodes, small_plan, tmp_path):
    from PIL import Image

    images = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(images):
        Image.new("RGB", (6, 8), (number * 42, 127, 0)).save(path)
    study, sheet = nodes.study.write_study(
        tmp_path / "output", "x", small_plan, images, "jpg", {"workflow": {"nodes": []}}
    )
    with Image.open(study.folder / "r4" / "768x1024" / "a.jpg") as image:
        assert image.format == "JPEG" and image.size == (6, 8)
    with Image.open(study.sheet) as saved:
        assert saved.text == {"workflow": '{"nodes": []}'} and saved.size == sheet.size
    assert json.loads((study.folder / "plan.json").read_text())["variants"][1]["name"] == "r4"


def test_a_cell_is_one_image_whatever_its_values(nodes):
    strange = torch.tensor([[float("nan"), 2.0, -1.0]]).expand(1, 8, 8, 3)
    assert nodes.study.tensor_to_image(strange).getpixel((0, 0)) == (0, 255, 0)
    with pytest.raises(LikenessError, match="generates 2 images"):
        nodes.study.tensor_to_image(torch.zeros(2, 8, 8, 3))


def test_cells_are_written_one_after_another_and_a_failure_is_said(nodes, tmp_path):
    from PIL import Image

    writer = nodes.study.CellWriter()
    for number in range(3):
        writer.write(tmp_path / "new" / f"{number}.png", Image.new("RGB", (4, 4), (number, 0, 0)))
    writer.wait()
    for number in range(3):
        with Image.open(tmp_path / "new" / f"{number}.png") as image:
            assert image.getpixel((0, 0)) == (number, 0, 0)
    (tmp_path / "file").write_text("")
    writer.write(tmp_path / "file" / "x.png", Image.new("RGB", (4, 4)))
    with pytest.raises(ComparisonError, match="cannot be written"):
        writer.wait()
    writer.wait()
    writer.write(tmp_path / "file" / "x.png", Image.new("RGB", (4, 4)))
    with pytest.raises(ComparisonError, match="cannot be written"):
        writer.write(tmp_path / "new" / "4.png", Image.new("RGB", (4, 4)))


def test_a_variants_end_makes_room_for_the_next_ones_weights(nodes, monkeypatch, tmp_path):
    cells, did = nodes.draw_cells, []
    monkeypatch.setattr(cells, "unload_patched_models", lambda: did.append("unloaded"))
    monkeypatch.setattr(cells, "set_mmap_threshold", did.append)
    monkeypatch.setattr(cells, "trim_heap", lambda: did.append("trimmed"))
    monkeypatch.setattr(cells, "clear_progress", lambda node_id: None)
    silent = SimpleNamespace(show=lambda *shown: None, set_status=lambda text: None)
    monkeypatch.setattr(cells, "Progress", lambda node_id: silent)
    adapters = ("one", "one", "one", "two")
    job = SimpleNamespace(
        files=[tmp_path / f"{number}.png" for number in range(4)],
        missing=[0, 2, 3],
        skipped=0,
        values=[(adapter, *["same"] * 10) for adapter in adapters],
        notifier=SimpleNamespace(drawn=lambda cell: None, set_status=lambda line: None),
        node_id="m",
        name="x",
        started=0.0,
    )
    for number in range(3):
        cells.KeepCell.execute(torch.zeros(1, 8, 8, 3), job, number)
    cells.WRITER.wait()
    assert did == [False, "unloaded", True, "trimmed", False, "trimmed"]
    assert [path.exists() for path in job.files] == [True, False, True, True]


def test_a_cell_that_a_cancelled_queue_could_not_write_stopped_the_next_one(
    nodes, monkeypatch, tmp_path, caplog
):
    sheet, did = nodes.contact_sheet, []
    monkeypatch.setattr(sheet, "set_mmap_threshold", did.append)
    (tmp_path / "file").write_text("")
    sheet.WRITER.write(tmp_path / "file" / "x.png", Image.new("RGB", (4, 4)))
    sheet._finish_pending()
    assert did == [False]
    assert "A finished cell cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ((9, 1, 8, 2.0), "1 of 9 cells done, 8 left, about 16 s"),
        ((48, 12, 24, 360.0), "24 of 48 cells done, 24 left, about 12 min"),
        ((9, 3, 0, 2.0), "9 of 9 cells done, 0 left"),
    ],
)
def test_the_line_on_the_node(nodes, state, line):
    assert nodes.draw_cells.progress_line(*state) == line


@pytest.mark.parametrize("mark", ["is_dev_only", "is_deprecated"])
def test_the_inner_nodes_are_in_no_menu_of_new_and_old_comfyui(nodes, monkeypatch, mark):
    schema = type(nodes.draw_cells.DrawCells.define_schema())
    if mark == "is_dev_only":
        monkeypatch.setattr(schema, mark, False, raising=False)
    for node in (nodes.draw_cells.DrawCells, nodes.draw_cells.KeepCell, nodes.draw_cells.DrawSheet):
        assert getattr(node.define_schema(), mark) is True


def test_two_contact_sheets_of_one_name_are_refused(nodes, monkeypatch):
    def sheet(name):
        return {"class_type": "Likeness_ContactSheet", "inputs": {"name": name}}

    prompt = {"7": sheet("study"), "12:7": sheet("Study"), "8": sheet(["3", 0])}
    node = nodes.contact_sheet.ContactSheet
    hidden = SimpleNamespace(prompt=prompt, unique_id="7")
    monkeypatch.setattr(node, "hidden", hidden, raising=False)
    with pytest.raises(ComparisonError, match="Two Contact Sheets are called 'study'"):
        node.execute(None, None, "study", "png", "")
    prompt["12:7"] = sheet("other")
    nodes.contact_sheet.check_unique_name(prompt, "7", "study")


def test_a_later_queue_was_given_what_comfyui_had_kept_of_an_earlier_ones_nodes(nodes, monkeypatch):
    sheet, prefixes = nodes.contact_sheet, []

    def graph_builder(prefix):
        prefixes.append(prefix)
        node = SimpleNamespace(out=lambda number: [prefix, number])
        return SimpleNamespace(node=lambda *_, **__: node, finalize=dict)

    monkeypatch.setattr(sheet, "graph_builder", graph_builder)
    monkeypatch.setattr(sheet, "draw_cells", lambda *_: None)
    monkeypatch.setattr(sheet, "write_partial", lambda job: (None, None))
    monkeypatch.setattr(sheet, "ui_output", lambda study: {})
    for started in (1000.25, 1000.5):
        sheet.expand_job(SimpleNamespace(node_id="7", started=started, missing=(0,)))
    assert len({*prefixes}) == 2
    assert all(one.startswith("7.") for one in prefixes), "by which progress is forgotten"


def test_what_is_kept_from_before_a_redraw_is_not_taken_after_it(nodes, monkeypatch):
    mark = nodes.contact_sheet.ContactSheet.fingerprint_inputs
    monkeypatch.setattr(nodes.contact_sheet, "has_missing_files", lambda name: False)
    before = mark(name="study", redraw="")
    assert mark(name="study", redraw="") == before
    again = mark(name="study", redraw="r4")
    assert len({before, again, mark(name="study", redraw="r4")}) == 3
    some = {mark(name="study", redraw="", draw_only="base") for _ in range(2)}
    assert len(some) == 2, "the others may be there by now"
    after = mark(name="study", redraw="")
    assert after != before and mark(name="study", redraw="") == after
    monkeypatch.setattr(nodes.contact_sheet, "has_missing_files", lambda name: name == "study")
    assert mark(name="study", redraw="") != after, "a deleted file is drawn again"


@pytest.fixture
def sheet(nodes, monkeypatch):
    """A Contact Sheet over two rows of two prompts: its job, its graph, and its hidden inputs."""
    value, _ = run_matrix(nodes)
    value = nodes.matrix.CellMatrix(value.plan, value.adapters, "m")
    silent = SimpleNamespace(set_status=lambda text: None)
    monkeypatch.setattr(nodes.contact_sheet, "Progress", lambda node_id: silent)
    cell = {"prompt": ["m", nodes.matrix.PROMPT], "adapter": ["m", nodes.matrix.ADAPTER]}
    graph = {"m": {"class_type": "Likeness_Matrix", "inputs": {}}}
    graph["d"] = {"class_type": "Draw", "inputs": cell}
    hidden = SimpleNamespace(
        dynprompt=SimpleNamespace(get_node=graph.__getitem__), prompt=graph, unique_id="s",
        extra_pnginfo={"workflow": {"id": "w"}},
    )  # fmt: skip

    def job(redraw="", draw_only="", output=0, matrix=value):
        given = hidden, ["d", output], matrix, "study", "png", redraw, draw_only
        return nodes.contact_sheet.make_job(*given)

    return SimpleNamespace(job=job, cell=cell, graph=graph)


def test_what_is_missing_or_asked_for_is_drawn(sheet):
    first = sheet.job()
    assert first.missing == (0, 1, 2, 3) and len({*first.files}) == 4
    for path in first.files[:3]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sheet.job().missing == (3,)
    assert sheet.job(redraw="base / a").missing == (0, 3)
    assert [sheet.job(draw_only=row).missing for row in ("base", "one")] == [(), (3,)]
    assert [sheet.job(draw_only=row).skipped for row in ("base", "one")] == [1, 0]
    assert not {*sheet.job(output=1).files} & {*first.files}, "of another image of that node"


def test_deleted_thumbnails_did_not_come_back_when_queued_again(sheet, nodes, monkeypatch):
    silent = SimpleNamespace(set_status=lambda text: None)
    monkeypatch.setattr(nodes.draw_cells, "Progress", lambda node_id: silent)
    monkeypatch.setattr(nodes.viewer, "send_event", lambda event, data: None)
    for number, path in enumerate(sheet.job().files):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    nodes.draw_cells.finished(sheet.job())
    mark = nodes.contact_sheet.ContactSheet.fingerprint_inputs
    before = mark(name="study", redraw="")
    assert mark(name="study", redraw="") == before
    thumbnails = [nodes.viewer.thumbnail_path(path) for path in sheet.job().files]
    for path in thumbnails:
        path.unlink()
    assert mark(name="study", redraw="") != before
    nodes.draw_cells.finished(sheet.job())
    assert all(path.is_file() for path in thumbnails)


def test_the_sheet_carries_no_workflow_where_comfyui_may_not_write_it(sheet, nodes, monkeypatch):
    assert sheet.job().text["workflow"] == {"id": "w"}
    monkeypatch.setattr(nodes.contact_sheet, "is_metadata_enabled", lambda: False)
    assert sheet.job().text == {}


def test_a_rows_strength_that_the_cells_nodes_do_not_use_is_said(sheet, nodes):
    half, _ = run_matrix(nodes, adapters="half = one.safetensors @ 0.5")
    half = nodes.matrix.CellMatrix(half.plan, half.adapters, "m")
    with pytest.raises(ComparisonError, match="nothing uses it"):
        sheet.job(matrix=half)
    sheet.cell["strength"] = ["m", nodes.matrix.ADAPTER_STRENGTH]
    assert sheet.job(matrix=half).missing == (0, 1)

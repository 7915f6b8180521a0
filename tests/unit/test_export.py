import errno
import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from likeness.cli import main
from likeness.comparison.errors import ComparisonError
from likeness.comparison.export import ExportSource, export, find_export_source, strip_paths
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text
from likeness.comparison.sheet import write_sheet
from likeness.trainers.adapter import (
    SCORES_KEY,
    read_metadata,
    recipe_of,
    save_adapter,
)
from likeness.trainers.adapter_metadata import build_metadata
from likeness.trainers.digests import content_digest
from likeness.trainers.errors import AdapterError
from likeness.trainers.places import Places
from likeness.trainers.recipe import LoRA, Recipe, Subject
from likeness.trainers.run_folder import RunFolder
from likeness.trainers.safetensors_file import read_header
from likeness.trainers.subject import read_subject
from PIL import Image
from safetensors.torch import load_file

RECIPE = Recipe(subject=Subject(prompt="a photo of {token} {class} in her garden", resolution=64))
MODULE = "lora_unet_down_blocks_0_attentions_0_proj_in"


@pytest.fixture
def adapter(tmp_path):
    """An adapter where a run puts it, with a kohya-style path in its metadata."""
    path = tmp_path / "output" / "loras" / "Anna's r4.safetensors"
    path.parent.mkdir(parents=True)
    tensors = {
        f"{MODULE}.lora_down.weight": torch.randn(4, 8),
        f"{MODULE}.lora_up.weight": torch.randn(8, 4),
        f"{MODULE}.alpha": torch.tensor(4.0),
    }
    assert isinstance(RECIPE.method, LoRA)
    metadata = build_metadata(RECIPE, steps=4, losses=[0.1, 0.2])
    metadata["ss_dataset_dirs"] = json.dumps({"/srv/anna/photos/set": {"n": 1}})
    metadata["ss_datasets"] = json.dumps([{"image_dir": "/srv/anna smith/of her"}])
    metadata["ss_tag_frequency"] = json.dumps({"10_someone": {"in the garden": 3}})
    metadata["modelspec.description"] = "of her garden"
    save_adapter(path, tensors, metadata, dtype="fp32")
    return path


@pytest.fixture
def comparison(adapter, tmp_path):
    """A comparison that shows it, made in ComfyUI."""
    folder = tmp_path / "output" / "likeness" / "comparisons" / "study"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"adapter": content_digest(adapter)}))
    (folder / "report.html").write_text("<p>report</p>")
    values = ["C:\\people\\anna\\x.safetensors", "/data/me/y.png"]
    workflow = {"nodes": [{"widgets_values": values}]}
    sheet = Image.new("RGB", (8, 8), "red")
    write_sheet(folder / "sheet-0123.png", sheet, {"workflow": workflow, "prompt": {"1": {}}})
    return folder


def opened(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_zip_has_all_that_shows_the_adapter_and_no_place(adapter, comparison, tmp_path):
    names = export(tmp_path / "x.zip", find_export_source(adapter))
    files = opened(tmp_path / "x.zip")
    assert names == list(files) == [
        "Anna-s-r4.safetensors", "recipe.json", "plan.json", "report.html", "sheet.png",
        "workflow.json", "contents.json",
    ]  # fmt: skip
    (tmp_path / "out.safetensors").write_bytes(files["Anna-s-r4.safetensors"])
    assert recipe_of(tmp_path / "out.safetensors") == RECIPE
    assert json.loads(files["recipe.json"])["subject"]["prompt"] == RECIPE.subject.prompt
    ours, theirs = load_file(adapter), load_file(tmp_path / "out.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    workflow = json.loads(files["workflow.json"])
    assert workflow["nodes"][0]["widgets_values"] == ["x.safetensors", "y.png"]
    with Image.open(io.BytesIO(files["sheet.png"])) as sheet:
        assert json.loads(sheet.text["workflow"]) == workflow and sheet.getpixel((0, 0))[0] == 255
    for name, data in files.items():
        assert b"anna" not in data and str(tmp_path).encode() not in data, name


def test_an_adapters_scores_travel_in_it(adapter, comparison, tmp_path):
    digest = content_digest(adapter)
    rows = [Variant(name="base"), Variant(name="off", adapter=digest, strength_unet=0)]
    rows += [Variant(name="r4", adapter=digest)]
    the_plan = plan(rows, prompt_set_from_text("a dog"), yoga_poses(), with_pose="both")
    (comparison / "plan.json").write_text(the_plan.to_json(), encoding="utf-8")
    means = [None, None, {"mean": 0.1}, {"mean": 0.2}, {"mean": 0.61234}, {"mean": 0.5}]
    measures = [{"key": f"{kind}.clip", "label": f"{kind} match"} for kind in ("subject", "prompt")]
    table = {"subject.clip": means, "prompt.clip": [None] * 6}
    scores = {"measures": measures, "rows": table}
    (comparison / "scores.json").write_text(json.dumps(scores))
    export(tmp_path / "x.zip", find_export_source(adapter))
    (tmp_path / "out.safetensors").write_bytes(opened(tmp_path / "x.zip")["Anna-s-r4.safetensors"])
    metadata = read_metadata(tmp_path / "out.safetensors").metadata
    assert json.loads(metadata[SCORES_KEY]) == {"subject match clip": 0.6123}


def cut_sheet(folder, digest, monkeypatch):
    path = next(folder.glob("sheet-*.png"))
    path.write_bytes(path.read_bytes()[:-30])
    return path


def no_image(folder, digest, monkeypatch):
    path = next(folder.glob("sheet-*.png"))
    path.write_text("no image")
    return path


def unreadable_report(folder, digest, monkeypatch):
    def read(path):
        if path.name == "report.html":
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", read)
    return folder / "report.html"


def scored(text):
    def harm(folder, digest, monkeypatch):
        the_plan = plan([Variant(name="r", adapter=digest)], prompt_set_from_text("a dog"))
        (folder / "plan.json").write_text(the_plan.to_json(), encoding="utf-8")
        (folder / "scores.json").write_text(text)
        return folder / "scores.json"

    return harm


def other_plan(folder, digest, monkeypatch):
    (folder / "plan.json").write_text('{"version": 7}')
    (folder / "scores.json").write_text("{}")
    return folder / "plan.json"


def rows(text):
    return scored(
        '{"measures": [{"key": "a.b", "label": "c"}], "rows": ROWS}'.replace("ROWS", text)
    )


@pytest.mark.parametrize(
    "harm",
    [
        cut_sheet,
        no_image,
        unreadable_report,
        other_plan,
        *map(scored, ["{}", "[]", "3", "{", '{"measures": [{}]}', '{"measures": 1}']),
        *map(rows, ["{}", "null", '{"a.b": []}', '{"a.b": [3]}', '{"a.b": [{"mean": "x"}]}']),
        rows('{"a.b": [{"mean": 1' + 400 * "0" + "}]}"),
    ],
)
def test_a_damaged_file_of_a_comparison_was_told_as_the_zip_or_as_a_traceback(
    adapter, comparison, tmp_path, monkeypatch, harm
):
    harmed = harm(comparison, content_digest(adapter), monkeypatch)
    with pytest.raises(ComparisonError) as told:
        export(tmp_path / "x.zip", ExportSource(adapter, None, comparison))
    assert str(harmed) in str(told.value) and "x.zip" not in str(told.value)
    assert not list(tmp_path.glob("*x.zip*")), "no half file"


def test_a_zip_that_cannot_be_written_says_so(adapter, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ComparisonError, match=r"x\.zip cannot be written: "):
        export(tmp_path / "file" / "x.zip", ExportSource(adapter, None, None))


def test_a_comparison_whose_plan_cannot_be_read_is_not_taken(adapter, comparison):
    (comparison.parent / "other" / "plan.json").mkdir(parents=True)
    assert find_export_source(adapter).comparison == comparison


def test_without_prompts_no_word_of_the_user_is_in_it(adapter, comparison, tmp_path):
    names = export(tmp_path / "x.zip", find_export_source(adapter), prompts=False)
    assert names == ["Anna-s-r4.safetensors", "recipe.json", "contents.json"]
    files = opened(tmp_path / "x.zip")
    for name, data in files.items():
        assert b"garden" not in data and b"sks" not in data, name
    (tmp_path / "out.safetensors").write_bytes(files["Anna-s-r4.safetensors"])
    info = read_metadata(tmp_path / "out.safetensors")
    assert info.rank == 4 and info.recipe is None
    assert {"ss_network_dim", "ss_seed", "likeness.version"} < set(info.metadata)
    assert not {"ss_tag_frequency", "modelspec.description"} & set(info.metadata)
    with pytest.raises(AdapterError, match="stripped"):
        recipe_of(tmp_path / "out.safetensors")
    ours, theirs = load_file(adapter), load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_equal_contents_give_equal_bytes_named_by_digest(adapter, comparison, tmp_path):
    for name in ("a.zip", "b.zip"):
        export(tmp_path / name, find_export_source(adapter))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    files = opened(tmp_path / "a.zip")
    listed = json.loads(files.pop("contents.json"))["sha256"]
    assert listed == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


@pytest.fixture
def run(adapter, tmp_path):
    """The run of the adapter, with captions, and its two photographs."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(photos / f"Anna at home {number}.png")
        (photos / f"Anna at home {number}.txt").write_text("Anna at home")
    folder = RunFolder(tmp_path / "output" / "likeness" / "runs" / RECIPE.run_name())
    folder.path.mkdir(parents=True)
    folder.recipe_file.write_text(RECIPE.changed(subject={"captions": True}).to_json())
    nowhere = dict.fromkeys(("base", "runs", "loras", "checkpoints", "cache"), tmp_path)
    places = Places(photos=photos, **nowhere)
    folder.places_file.write_text(places.model_dump_json())
    return folder


def test_photographs_take_their_masks_along(adapter, run, tmp_path):
    photos = run.places().photos
    Image.new("L", (64, 64), 255).save(photos / "Anna at home 0-masklabel.png")
    run.recipe_file.write_text(run.recipe().changed(subject={"mask": "file"}).to_json())
    export(tmp_path / "x.zip", find_export_source(adapter), photographs=True)
    names = [name for name in opened(tmp_path / "x.zip") if "mask" in name]
    assert len(names) == 1 and names[0].startswith("photographs/0")


def test_photographs_travel_only_when_asked(adapter, run, tmp_path):
    photos, captioned = run.places().photos, run.recipe()
    source = find_export_source(adapter)
    assert source.run == run
    assert not any("photo" in name for name in export(tmp_path / "a.zip", source))
    names = export(tmp_path / "b.zip", source, photographs=True)
    assert {"photographs/01.png", "photographs/02.png"} < set(names)
    sent = opened(tmp_path / "b.zip")
    assert {sent["photographs/01.png"], sent["photographs/02.png"]} == {
        path.read_bytes() for path in photos.glob("*.png")
    }
    assert sent["photographs/01.txt"] == b"Anna at home"
    bound = captioned.changed(subject={"digest": read_subject(photos, captioned.subject).digest})
    run.recipe_file.write_text(bound.to_json())
    assert export(tmp_path / "d.zip", source, photographs=True) == names
    Image.new("RGB", (64, 64), "blue").save(photos / "private.png")
    with pytest.raises(ComparisonError, match="are not those of the training"):
        export(tmp_path / "p.zip", source, photographs=True)
    (photos / "private.png").unlink()
    names = export(tmp_path / "w.zip", source, photographs=True, prompts=False)
    assert {"photographs/01.png"} < set(names) and "photographs/01.txt" not in names
    with pytest.raises(ComparisonError, match="Give the run folder"):
        export(tmp_path / "c.zip", ExportSource(adapter, None, None), photographs=True)
    assert not list(tmp_path.glob("*c.zip*")), "no half file"


# The command

ADAPTER, SHOWN = "Anna-s-r4.safetensors", {"plan.json", "report.html", "sheet.png"}
EXIF, AGAIN = "EXIF data may tell place and time", "no longer holds what is needed to retrain"
NONE_SHOWS = "No comparison with this adapter"


@pytest.mark.parametrize(
    ("flags", "holds", "lacks", "says"),
    [
        ([], SHOWN | {"workflow.json"}, {"photographs/01.png"}, set()),
        (["--without-prompts"], set(), {*SHOWN, "workflow.json", "photographs/01.png"}, {AGAIN}),
        (["--with-photos"], {*SHOWN, "photographs/02.png", "photographs/02.txt"}, set(), {EXIF}),
        (
            ["--with-photos", "--without-prompts"],
            {"photographs/01.png"},
            {*SHOWN, "workflow.json", "photographs/01.txt"},
            {AGAIN, EXIF},
        ),
    ],
    ids=["plain", "without prompts", "with photos", "both"],
)
def test_export_puts_into_the_zip_what_its_flags_say(
    adapter, comparison, run, tmp_path, monkeypatch, capsys, flags, holds, lacks, says
):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(adapter), *flags]) == 0
    files = opened(tmp_path / "exports" / "Anna's r4.zip")
    printed = capsys.readouterr().out
    assert {ADAPTER, "recipe.json", *holds} <= files.keys() and not lacks & files.keys()
    assert {line for line in (EXIF, AGAIN, NONE_SHOWS) if line in printed} == says
    assert [line[2:] for line in printed.splitlines() if line.startswith("- ")] == [*files]
    assert str(Path("exports") / "Anna's r4.zip") in printed
    words = any(b"garden" in data for data in files.values())
    assert words == ("--without-prompts" not in flags)


def test_an_adapter_in_another_script_lost_its_name_in_the_zip(adapter, tmp_path):
    path = adapter.rename(adapter.with_name("安娜 Анна's.safetensors"))
    names = export(tmp_path / "it.zip", find_export_source(path))
    assert names[0] == "安娜-Анна-s.safetensors" in opened(tmp_path / "it.zip")


def test_export_takes_the_files_that_are_named(adapter, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "graph.json").write_text(json.dumps({"nodes": [{"file": "/srv/anna/x.png"}]}))
    given = ["export", str(adapter), "--to", "shared/it.zip", "--workflow", "graph.json"]
    assert main(given) == 0
    files = opened(tmp_path / "shared" / "it.zip")
    assert json.loads(files["workflow.json"]) == {"nodes": [{"file": "x.png"}]}
    assert NONE_SHOWS in capsys.readouterr().out and not (tmp_path / "exports").exists()
    assert main(given) == 1
    assert "exists: move it, or give another file with --to" in capsys.readouterr().err


def test_export_takes_the_comparison_that_is_named(adapter, comparison, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = tmp_path / "another"
    named.mkdir()
    (named / "plan.json").write_text('{"named": 1}')
    assert main(["export", str(adapter), "--comparison", str(named), "--to", "it.zip"]) == 0
    assert opened(tmp_path / "it.zip")["plan.json"] == b'{"named": 1}'


def test_what_cannot_be_exported_says_why(adapter, tmp_path):
    with pytest.raises(AdapterError, match="no run folder or adapter"):
        find_export_source(tmp_path / "gone.safetensors")
    with pytest.raises(ComparisonError, match="not the folder of a finished run"):
        find_export_source(tmp_path)
    with pytest.raises(ComparisonError, match=r"no plan\.json"):
        find_export_source(adapter, tmp_path)
    (tmp_path / "x.zip").write_text("")
    with pytest.raises(ComparisonError, match="exists"):
        export(tmp_path / "x.zip", find_export_source(adapter))


def test_a_file_without_our_recipe_is_shared_as_it_is(adapter, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file(load_file(adapter), path, {"made": "elsewhere"})
    names = export(tmp_path / "x.zip", find_export_source(path))
    assert names == ["other.safetensors", "contents.json"]
    assert opened(tmp_path / "x.zip")["other.safetensors"] == path.read_bytes()
    assert read_header(path).metadata == {"made": "elsewhere"}


def test_a_damaged_recipe_in_an_adapter_stopped_its_export(adapter, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file(load_file(adapter), path, {"likeness.recipe": '{"name": '})
    assert "other.safetensors" in export(tmp_path / "x.zip", find_export_source(path))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/srv/models/x.safetensors", "x.safetensors"),
        ("r4 = /srv/models/x.safetensors\nbase", "r4 = x.safetensors\nbase"),
        ("~/models/x.safetensors", "x.safetensors"),
        ("C:\\models\\sub dir\\x.ckpt", "x.ckpt"),
        ("D:/models/x.ckpt", "x.ckpt"),
        ('{"a": "C:\\\\models\\\\x"}', '{"a": "x"}'),
        ("\\\\server\\share\\x.ckpt", "x.ckpt"),
        ("https://huggingface.co/a/b/resolve/main/x.safetensors", None),
        ("people/anna/x.safetensors", None),
        ("1/2, and/or, 24/7, </b>", None),
        ("portrait, on the street, lights, midnight, NY", None),
        ("/Volumes/My Drive/Anna/pics/a.png", "a.png"),
        ("/srv/john doe/pics/a.png", "a.png"),
        ("file:///srv/x/y.png", "y.png"),
        ("(smile:1.2)/(laugh:1.1)/(wink), {red}/{blue}/{green} hair", None),
        ("/imagine a man/woman, and /or/ both/neither", None),
        ("series \\\\(anime\\\\) by hand, ratio 3:/4", None),
        ("https:/HOME/jane/x, https://a.orgHOME/jane/x.png", None),
        ("made by HOME/Jane Doe/tools, text:HOME/jane/x", "made by tools, text:x"),
        ("saved in HOME/jane. Or USERS\\jane, too", "saved in ~. Or ~, too"),
        ("HOME/jane", "~"),
        ("from C:\\My Files\\a.png, red/blue hair", "from a.png, red/blue hair"),
        ("see /disk7/jane/base.safetensors (new)", "see base.safetensors (new)"),
        ("in /workspace/ComfyUI/models and ~/x/y", "in models and y"),
    ],
)
def test_only_the_folders_of_absolute_paths_are_cut_off(text, clean):
    text = with_homes(text)
    assert strip_paths(text) == (text if clean is None else clean)


def with_homes(text):
    """The text with home folders in place of HOME and USERS."""
    for word, place in (("HOME", ["", "home"]), ("USERS", ["C:", "Users"])):
        text = text.replace(word, ("\\" if word == "USERS" else "/").join(place))
    return text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("HOME/jane/", "~"),
        ("HOME/jane doe", "~"),
        ("USERS\\Jane Doe", "~"),
        ("HOME/jane is where I live", "~ is where I live"),
        ("in HOME/jane/ only", "in ~ only"),
        ("in C:/a/x and D:/c d/e.png", "in x and e.png"),
        ("HOME/jane/x.png and HOME/jane/y.png are hers", "x.png and y.png are hers"),
        ("PATH=HOME/jane/x:HOME/jane/y", "PATH=x:y"),
        ("at file:///C:/a/x.png now", "at x.png now"),
    ],
)
def test_the_name_of_a_home_folder_stayed_and_text_between_two_paths_was_lost(text, clean):
    assert strip_paths(with_homes(text)) == clean

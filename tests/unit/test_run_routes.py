"""What a training panel may ask, and what it may not."""

import importlib
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from likeness.trainers.class_image_sets import class_images_folder
from likeness.trainers.events import EventWriter
from likeness.trainers.places import Places
from likeness.trainers.recipe import Recipe
from likeness.trainers.run_folder import RunFolder

runpy.run_path(str(Path(__file__).resolve().parents[1] / "comfy" / "stub.py"))["install"]()
routes = importlib.import_module("likeness.nodes.run_routes")
fingerprint = importlib.import_module("likeness.nodes.training").fingerprint

ID = "anna-lora-r4-01234567"
PROMPTS = "a {class}\na photo of a {class}"
OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8188"}


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "likeness" / "runs" / ID)
    folder.path.mkdir(parents=True)
    folder.recipe_file.write_text("{}")
    writer = EventWriter(folder.events)
    for step in range(3):
        writer.emit("stopped", step=step)
    writer.close()
    return folder


def test_events_come_in_blocks_and_then_as_they_are_written(run, tmp_path):
    status, data = routes.run_events(tmp_path, {"run": ID})
    assert status == 200 and not data["working"]
    assert [event["step"] for event in data["events"]] == [0, 1, 2]
    assert data["events"][0]["v"] == 1 and data["events"][0]["kind"] == "stopped"
    asked = {"run": ID, "start": str(data["next"])}
    assert routes.run_events(tmp_path, asked) == (
        200,
        {"events": [], "next": data["next"], "working": False},
    )
    writer = EventWriter(run.events)
    writer.emit("finished", seconds=1.0)
    writer.close()
    assert [e["kind"] for e in routes.run_events(tmp_path, asked)[1]["events"]] == ["finished"]
    json.dumps(data, allow_nan=False)


def test_the_events_of_a_run_in_another_script_were_not_found(run, tmp_path):
    name = ID.replace("anna", "Анна Мюллер")
    run.path.rename(run.path.with_name(name))
    assert routes.run_events(tmp_path, {"run": name})[0] == 200


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", f"../runs/{ID}", f"{ID}/samples", f"{ID}\\samples", f"{ID}:x"),
        *("/etc", "C:x", "nobody", ID.upper(), f"{ID}\0", f"{ID}\n", "a" * 300, "a..b", "é"),
    ],
)
def test_no_other_folder_is_read(run, tmp_path, name):
    (tmp_path / "x").mkdir()
    (tmp_path / "likeness" / "x").mkdir()
    (tmp_path / "likeness" / "x" / "recipe.json").write_text("{}")
    assert routes.run_events(tmp_path, {"run": name})[0] == 404
    assert routes.stop_run(tmp_path, {"run": name}, OURS)[0] == 404


def test_a_link_among_the_runs_is_no_run(run, tmp_path):
    (run.path.parent / "link").symlink_to(run.path, target_is_directory=True)
    assert routes.run_events(tmp_path, {"run": "link"})[0] == 404


@pytest.mark.parametrize("start", ["-1", "x", "1e3", "٣", "1" * 20, ""])
def test_a_start_that_is_no_number_is_refused(run, tmp_path, start):
    assert routes.run_events(tmp_path, {"run": ID, "start": start})[0] == 400


def test_a_start_within_a_line_or_past_the_end_gives_whole_events_only(run, tmp_path):
    for start in ("5", "999999"):
        status, data = routes.run_events(tmp_path, {"run": ID, "start": start})
        assert status == 200 and len(data["events"]) == (2 if start == "5" else 0)


def test_a_run_that_works_is_stopped(run, tmp_path):
    assert routes.stop_run(tmp_path, {"run": ID}, OURS)[0] == 409
    assert not run.stop.exists()
    with FileLock(run.lock):
        assert routes.run_events(tmp_path, {"run": ID})[1]["working"]
        assert routes.stop_run(tmp_path, {"run": ID}, OURS) == (200, {})
    assert run.stop.exists()


def test_only_a_run_that_was_stopped_and_saved_can_be_asked_to_go_on(run, tmp_path, monkeypatch):
    done = SimpleNamespace(stopped=False)
    monkeypatch.setattr(RunFolder, "result", lambda self: done)
    assert routes.resume_run(tmp_path, {"run": ID}, OURS)[0] == 409
    done.stopped = True
    with FileLock(run.lock):
        assert routes.resume_run(tmp_path, {"run": ID}, OURS)[0] == 409
    assert routes.resume_run(tmp_path, {"run": ID}, {})[0] == 403
    assert routes.resume_run(tmp_path, {"run": "nobody"}, OURS)[0] == 404
    assert not run.resume_flag.exists()
    before = fingerprint(None)
    assert routes.resume_run(tmp_path, {"run": ID}, OURS) == (200, {})
    assert run.resume_flag.exists() and fingerprint(None) != before  # ComfyUI asks the node again


def saved(tmp_path, kind, *names):
    for name in names:
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{name}.safetensors").write_bytes(b"12345")


def test_a_run_lists_its_result_and_the_adapters_saved_on_the_way(run, tmp_path, monkeypatch):
    names = [ID, f"{ID}-step000020", f"{ID}-step000010", f"{ID}-step000010-2"]
    saved(tmp_path, "loras", *names, f"{ID[:-1]}8-step000010", "other")
    adapter = tmp_path / "loras" / f"{ID}.safetensors"
    done = SimpleNamespace(adapter=adapter, steps=40, stopped=False)
    monkeypatch.setattr(RunFolder, "result", lambda self: done)
    status, data = routes.run_files(tmp_path, {"run": ID})
    shown = [(one["filename"], one["step"], one["result"]) for one in data["files"]]
    assert status == 200 and shown == [
        (f"{ID}-step000010-2.safetensors", 10, False),
        (f"{ID}-step000020.safetensors", 20, False),
        (f"{ID}.safetensors", 40, True),
    ]
    assert {(one["subfolder"], one["size"]) for one in data["files"]} == {("loras", 5)}
    adapter.unlink()
    monkeypatch.setattr(RunFolder, "result", lambda self: None)
    assert len(routes.run_files(tmp_path, {"run": ID})[1]["files"]) == 2


def test_a_stopped_run_and_one_that_moved_list_their_result(run, tmp_path, monkeypatch):
    name = f"{ID}-step000013"
    saved(tmp_path, "checkpoints", name)
    adapter = Path("/elsewhere/output/checkpoints") / f"{name}.safetensors"
    done = SimpleNamespace(adapter=adapter, steps=13, stopped=True)
    monkeypatch.setattr(RunFolder, "result", lambda self: done)
    (file,) = routes.run_files(tmp_path, {"run": ID})[1]["files"]
    assert (file["filename"], file["subfolder"]) == (f"{name}.safetensors", "checkpoints")
    assert (file["step"], file["result"]) == (13, True)


def test_a_run_lists_no_files_of_other_folders(run, tmp_path):
    assert routes.run_files(tmp_path, {"run": ID}) == (200, {"files": [], "state": 0})
    assert routes.run_files(tmp_path, {"run": "../x"})[0] == 404


def test_the_training_state_of_a_finished_run_is_deleted_from_its_panel(run, tmp_path, monkeypatch):
    state = run.checkpoints / "step-000040" / "weights"
    state.parent.mkdir(parents=True)
    state.write_bytes(bytes(100))
    done = SimpleNamespace(adapter=tmp_path / "loras" / "a", steps=40, stopped=True)
    monkeypatch.setattr(RunFolder, "result", lambda self: done)
    assert routes.run_files(tmp_path, {"run": ID})[1]["state"] == 0
    assert routes.clean_run(tmp_path, {"run": ID}, OURS)[0] == 409
    done.stopped = False
    with FileLock(run.lock):
        assert routes.run_files(tmp_path, {"run": ID})[1]["state"] == 0
        assert routes.clean_run(tmp_path, {"run": ID}, OURS)[0] == 409
    assert routes.clean_run(tmp_path, {"run": ID}, {})[0] == 403
    assert routes.clean_run(tmp_path, {"run": "../x"}, OURS)[0] == 404
    assert routes.run_files(tmp_path, {"run": ID})[1]["state"] == 100 and state.is_file()
    assert routes.clean_run(tmp_path, {"run": ID}, OURS) == (200, {})
    assert not run.checkpoints.exists() and run.events.is_file()
    assert routes.run_files(tmp_path, {"run": ID})[1]["state"] == 0


def test_a_state_that_cannot_be_deleted_says_why(run, tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(routes, "remove_checkpoints", refuse)
    status, answer = routes.clean_run(tmp_path, {"run": ID}, OURS)
    assert status == 409 and "Access is denied" in answer["error"]


@pytest.fixture
def shared(run, tmp_path, monkeypatch):
    """What the run gave; `asked` has the choices with which it was put into a zip."""
    adapter, asked = tmp_path / "loras" / "anna.safetensors", []

    def export(target, found, *, prompts):
        assert found.adapter == adapter and not target.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"zip")
        asked.append(prompts)
        return ["anna.safetensors"]

    found = SimpleNamespace(adapter=adapter)
    monkeypatch.setattr(routes, "find_export_source", lambda folder: found)
    monkeypatch.setattr(routes, "export", export)
    return asked


def test_a_finished_run_is_put_into_a_zip_to_share(shared, tmp_path):
    temp = tmp_path / "temp"
    for choice in ({}, {"prompts": "0"}, {"prompts": "1"}):
        status, data = routes.export_run(tmp_path, temp, {"run": ID, **choice}, OURS)
        assert (status, data["file"]) == (200, "anna.zip")
        assert (temp / "likeness" / "anna.zip").read_bytes() == b"zip"
    assert shared == [True, False, True]


def test_only_comfyuis_own_page_shares_a_run_and_only_one_that_is_there(shared, tmp_path):
    temp = tmp_path / "temp"
    assert routes.export_run(tmp_path, temp, {"run": ID}, {})[0] == 403
    assert routes.export_run(tmp_path, temp, {"run": "../x"}, OURS)[0] == 404
    assert shared == [] and not temp.exists()


def test_a_run_that_has_not_finished_cannot_be_shared(run, tmp_path):
    status, data = routes.export_run(tmp_path, tmp_path / "temp", {"run": ID}, OURS)
    assert status == 409 and "not the folder of a finished run" in data["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:8188"},
        {"Origin": "null", "Host": "localhost:8188"},
        {"Origin": "http://evil.example", "Host": "localhost:8188"},
        {"Origin": "http://localhost:9999", "Host": "localhost:8188"},
        {"Origin": "http://localhost:8188.evil.example", "Host": "localhost:8188"},
        {"Origin": "http://[bad", "Host": "localhost:8188"},
        {"Origin": "", "Host": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://a", "Host": "a"},
        {"Sec-Fetch-Site": "none", "Origin": "http://a", "Host": "a"},
    ],
)
def test_other_pages_and_programs_may_not_stop_a_run(run, tmp_path, headers):
    with FileLock(run.lock):
        assert routes.stop_run(tmp_path, {"run": ID}, headers)[0] == 403
    assert not run.stop.exists()


def test_the_same_origin_is_enough_where_a_browser_tells_no_site():
    assert routes.same_origin({"Origin": "http://Box:8188", "Host": "box:8188"})
    assert routes.same_origin({"Sec-Fetch-Site": "same-origin"})


def test_behind_a_proxy_that_hides_the_host_the_refusal_says_what_to_set(tmp_path):
    hidden = {"Origin": "http://box", "Host": "127.0.0.1:8188"}
    for ask in (routes.stop_run, routes.resume_run, routes.clean_run):
        status, answer = ask(tmp_path, {"run": ID}, hidden)
        assert status == 403 and "proxy_set_header Host $http_host" in answer["error"]


@pytest.fixture
def class_images(run, tmp_path):
    """Writes a run's recipe and numbered class images of it; returns their folder."""

    def write(*numbers, cache=tmp_path / "likeness" / "cache", **prior):
        recipe = Recipe().changed(prior={"prompt": PROMPTS, **prior})
        places = Places.for_output(tmp_path, base=tmp_path, photos=tmp_path)
        places = places.model_copy(update={"cache": cache})
        run.recipe_file.write_text(recipe.to_json())
        run.places_file.write_text(places.model_dump_json())
        folder = class_images_folder(recipe, places, recipe.prior)
        folder.mkdir(parents=True)
        for number in numbers:
            (folder / f"{number:06d}.png").write_bytes(b"png")
        (folder / ".000009.png.partial").write_bytes(b"")
        return folder

    return write


def test_a_run_lists_the_class_images_that_were_generated_so_far(run, class_images, tmp_path):
    folder = class_images(3, 1)
    status, data = routes.run_class_images(tmp_path, {"run": ID})
    assert status == 200 and data["files"] == ["000001.png", "000003.png"]
    assert tmp_path / data["subfolder"] == folder
    assert data["prompts"] == ["a man", "a photo of a man"]


@pytest.mark.parametrize(
    "prior", [{"source": "teacher"}, {"images": "a" * 64, "prompt": "a {class}"}]
)
def test_a_run_without_generated_class_images_lists_none(run, class_images, tmp_path, prior):
    class_images(1, **prior)
    assert routes.run_class_images(tmp_path, {"run": ID})[1]["files"] == []


def test_class_images_that_the_server_cannot_show_are_not_listed(run, class_images, tmp_path):
    class_images(1, cache=tmp_path.parent / f"{tmp_path.name} elsewhere")
    assert routes.run_class_images(tmp_path, {"run": ID})[1]["files"] == []
    run.recipe_file.write_text("{")
    assert routes.run_class_images(tmp_path, {"run": ID}) == (200, routes._NO_IMAGES)
    assert routes.run_class_images(tmp_path, {"run": "../x"})[0] == 404

"""What a run's panel asks of a real ComfyUI, and what becomes of a run when ComfyUI ends."""

from __future__ import annotations

import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from likeness.demo.random_model import write_random_model
from likeness.trainers.events import EventReader
from likeness.trainers.run_folder import RunFolder

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def comfy(tmp_path_factory, start_comfy):
    """A server with the tiny model of random weights, which only the training reads."""
    home = tmp_path_factory.mktemp("panel")
    (home / "models" / "checkpoints").mkdir(parents=True)
    write_random_model(home / "models" / "checkpoints" / "tiny.safetensors")
    shutil.copytree(ROOT / "demo" / "subject", home / "input" / "person")
    return start_comfy(home, ROOT)


@pytest.fixture
def queue(comfy, workflow, graphs):
    """Queues a training that would take hours; returns the prompt's id."""

    def queue(name):
        prompt = workflow(
            comfy,
            "train_lora",
            Likeness_TrainLoRA={
                "base_model": "tiny.safetensors",
                "steps": 100_000,
                "name": name,
                "attempt": graphs["attempt_of"](name),
                "optimizer": "adamw",
                "precision": "fp32",
            },
            Likeness_Subject={"folder": "person", "resolution": 64},
        )
        kinds = ("Likeness_TrainLoRA", "Likeness_Subject")
        prompt = {key: node for key, node in prompt.items() if node["class_type"] in kinds}
        for node in prompt.values():
            node["inputs"].pop("class_images", None)
        status, answer = comfy.post("/prompt", {"prompt": prompt})
        assert status == 200, answer
        return answer["prompt_id"]

    return queue


@pytest.fixture
def start(comfy, queue):
    """Queues such a training; returns its run when it has done a few steps."""

    def start(name):
        queue(name)
        return wait_for(lambda: working(comfy, name), comfy)

    return start


def working(comfy, name):
    for path in (comfy.home / "output" / "likeness" / "runs").glob(f"{name}-*"):
        if len(steps(RunFolder(path))) >= 3 and RunFolder(path).is_busy():
            return RunFolder(path)
    return None


def steps(run):
    return [e.data["step"] for e in EventReader(run.events).new_events() if e.kind == "step"]


def wait_for(wanted, comfy, seconds=240):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = wanted()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(comfy.log()[-3000:])


def stop(comfy, run, what="stop", **headers):
    """The status of a POST that asks to stop, or to go on."""
    address = f"http://127.0.0.1:{comfy.port}"
    request = urllib.request.Request(
        f"{address}/likeness/runs/{quote(run.path.name)}/{what}",
        b"",
        {name.replace("_", "-"): value for name, value in headers.items()},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_panel_reads_a_run_and_stops_it(comfy, start):
    run = start("stopped")
    told = comfy.get(f"/likeness/runs/{run.path.name}?start=0")
    assert told["working"] and told["events"][0]["kind"] == "stage"
    wait_for(lambda: comfy.get(f"/likeness/runs/{run.path.name}?start={told['next']}")["events"],
             comfy)  # fmt: skip
    assert stop(comfy, run) == 403
    assert stop(comfy, run, Origin="http://evil.example") == 403
    assert not run.stop.exists()
    assert stop(comfy, run, Origin=f"http://127.0.0.1:{comfy.port}") == 200
    wait_for(lambda: not run.is_busy(), comfy)
    result = run.result()
    assert result is not None and result.stopped and result.adapter.is_file()
    assert stop(comfy, run, Origin=f"http://127.0.0.1:{comfy.port}") == 409


def test_a_panel_could_not_read_a_run_in_another_script(comfy, start):
    run = start("Анна Мюллер")
    told = comfy.get(f"/likeness/runs/{quote(run.path.name)}?start=0")
    assert told["working"] and told["events"][0]["kind"] == "stage"
    assert stop(comfy, run, Origin=f"http://127.0.0.1:{comfy.port}") == 200
    wait_for(lambda: not run.is_busy(), comfy)
    assert run.result().adapter.name.startswith("Анна Мюллер-lora-r4-")
    listed = comfy.get("/object_info/Likeness_LoadAdapter")["Likeness_LoadAdapter"]["input"]
    assert run.result().adapter.name in str(listed)


def test_a_run_that_was_stopped_and_saved_is_kept_until_it_is_asked_to_go_on(comfy, queue, start):
    ours = {"Origin": f"http://127.0.0.1:{comfy.port}"}
    run = start("halfway")
    assert stop(comfy, run, what="go-on", **ours) == 409
    assert stop(comfy, run, **ours) == 200
    wait_for(lambda: run.result() is not None and not run.is_busy(), comfy)
    done = run.result().steps
    asked = queue("halfway")
    told = wait_for(lambda: comfy.get(f"/history/{asked}"), comfy)
    assert told[asked]["status"]["status_str"] == "success"
    assert run.result().steps == done == steps(run)[-1]
    assert stop(comfy, run, what="go-on", **ours) == 200
    assert start("halfway").path == run.path
    wait_for(lambda: done + 1 in steps(run), comfy)
    comfy.post("/interrupt", {})
    wait_for(lambda: not run.is_busy(), comfy)


@pytest.mark.parametrize("name", ["..", "..%2f..%2finput", "nobody", "%00", "%2fetc"])
def test_no_other_folder_is_read(comfy, name):
    with pytest.raises(urllib.error.HTTPError) as caught:
        comfy.get(f"/likeness/runs/{name}")
    assert caught.value.code == 404


def test_closing_comfyui_ends_the_run_at_a_checkpoint_and_it_goes_on_later(comfy, start):
    run = start("closed")
    processes = psutil.Process(comfy.process.pid).children(recursive=True)
    assert processes
    comfy.stop()
    _, left = psutil.wait_procs(processes, timeout=60)
    assert not left
    done = steps(run)[-1]
    assert [path.name for path in run.checkpoints.iterdir()] == [f"step-{done:06d}"]
    assert not list((comfy.home / "output" / "loras").glob("closed-*"))
    comfy.start()
    again = start("closed")
    assert again.path == run.path
    wait_for(lambda: done + 1 in steps(run), comfy)
    assert steps(run).count(done) == 1
    comfy.post("/interrupt", {})
    wait_for(lambda: not run.is_busy(), comfy)

"""Several processes: under other launchers, and when one of them runs out of memory."""

import json
import os
import runpy
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from likeness.trainers import job
from likeness.trainers.errors import RunCancelled, RunFailed
from likeness.trainers.places import Places
from likeness.trainers.preparation import prepare
from likeness.trainers.presets import preset

ROOT = Path(__file__).resolve().parents[2]
MODELS = runpy.run_path(str(ROOT / "tests" / "models.py"))


@pytest.fixture
def folder(base, photos, tmp_path):
    """A prepared run of a global batch of two; a name makes a new one."""

    def make(name, batch, every=0, start=None):
        recipe = preset("lora-r4").changed(
            subject={"resolution": 64},
            prior={"count": 2, "steps": 2},
            compute={"attention": "sdpa", "precision": "fp32"},
            optimizer={"name": "adamw"},
            schedule={"steps": 3, "batch_size": batch},
            saving={"every": every},
        )
        given = {"base": base, "photos": photos, "start": start}
        return prepare(recipe, Places.for_output(tmp_path / name, **given))

    return make


def start(launcher, folder):
    command = [sys.executable, "-m", *map(str, launcher), str(ROOT), "run", str(folder.path)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(*processes):
    for process in processes:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said


def losses(folder):
    return json.loads(folder.result_file.read_text())["losses"]


def free_port():
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("from_file", [False, True])
def test_two_machines_learn_what_one_does_with_the_same_global_batch(
    folder, base, tmp_path, from_file
):
    """Two launchers that find each other over the loopback, as on two machines with one disk."""
    file = MODELS["write_random_lora"](base, tmp_path / "s.safetensors") if from_file else None
    alone, shared = folder("one", batch=2, start=file), folder("two", batch=1, start=file)
    port = free_port()
    cluster = ("torch.distributed.run", "--nnodes=2", "--nproc_per_node=1")
    cluster += ("--master_addr=127.0.0.1", f"--master_port={port}")
    finish(*(start((*cluster, f"--node_rank={rank}"), shared) for rank in (0, 1)))
    finish(start(("torch.distributed.run", "--standalone", "--nproc_per_node=1"), alone))
    assert losses(shared) == pytest.approx(losses(alone), abs=1e-5)


def test_accelerates_own_launcher_trains_a_prepared_run(folder):
    run = folder("one", batch=1)
    options = ("--cpu", "--num_processes=1", "--num_machines=1", "--mixed_precision=no")
    finish(start(("accelerate.commands.launch", *options, "--dynamo_backend=no"), run))
    assert len(losses(run)) == 3


# A run's process; some of them run out of memory in some tiers, after two steps.
RUNS_OUT = f"""
import os, runpy, sys
runpy.run_path({str(ROOT / "__main__.py")!r}, run_name="main")["load_package"]()
import torch
from likeness.cli import main
from likeness.trainers import loop

real, stop = loop.training_step, sys.argv.pop(1)
tiers, ranks = sys.argv.pop(1).split(","), sys.argv.pop(1).split(",")

def training_step(run, training, backward, step, **options):
    if training.tier.name in tiers and step == 2 and os.environ["RANK"] in ranks:
        if stop == "stop":
            open(run.folder.stop, "w").close()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    return real(run, training, backward, step, **options)

loop.training_step = training_step
sys.exit(main())
"""


@pytest.fixture
def train(folder, tmp_path, monkeypatch):
    """Trains with two processes, of which some run out of memory in the named tiers."""
    script = tmp_path / "runs_out.py"
    script.write_text(RUNS_OUT)
    command = job._command

    def run(name, tiers, ranks="1", stop="go on", every=0):
        def failing(processes):
            *launch, _package, action = command(processes)
            return [*launch, str(script), stop, tiers, ranks, action]

        prepared, events = folder(name, batch=1, every=every), []
        monkeypatch.setattr(job, "_command", failing)
        args = (prepared.recipe(), prepared.places())
        result = job.train(*args, on_event=events.append, processes=2, device="cpu")
        assert not any(event.kind == "failed" for event in events)
        return prepared, result

    return run


@pytest.mark.parametrize(("ranks", "every"), [("1", 0), ("0", 1), ("0,1", 1)])
def test_a_process_without_memory_ended_the_run_of_several(train, ranks, every):
    """Also if it is the main one, and from a checkpoint."""
    plain, result = train("plain", "no tier")
    assert not any("out of memory" in note for note in result.notes)
    restarted, result = train("restarted", "full", ranks, every=every)
    assert losses(restarted) == pytest.approx(losses(plain), abs=1e-5)
    (note,) = [note for note in result.notes if "out of memory" in note]
    assert "'full' ran out of memory" in note
    assert json.loads(restarted.tier_file.read_text())["tier"] == "checkpointing"


def test_a_request_to_stop_was_lost_when_several_processes_restarted(train):
    with pytest.raises(RunCancelled):
        train("stopped", "full", stop="stop", every=1)


def test_two_processes_without_memory_in_any_tier_end_with_the_cause(train):
    with pytest.raises(RunFailed, match=r"Out of memory\. What helps"):
        train("none", "full,checkpointing")

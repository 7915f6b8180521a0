"""A prepared run folder under other launchers: machines of a cluster, accelerate's own."""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from likeness.trainers.places import Places
from likeness.trainers.presets import preset
from likeness.trainers.run_folder import prepare

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(base, photos, tmp_path):
    """A prepared run of a global batch of two; a name makes a new one."""

    def make(name, batch):
        recipe = preset("lora-r4").changed(
            subject={"resolution": 64},
            prior={"count": 2, "steps": 2},
            compute={"attention": "sdpa", "precision": "fp32"},
            optimizer={"name": "adamw"},
            schedule={"steps": 3, "batch": batch},
        )
        return prepare(recipe, Places.for_output(tmp_path / name, base=base, photos=photos))

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


def test_two_machines_learn_what_one_does_with_the_same_global_batch(folder):
    """Two launchers that find each other over the loopback, as on two machines with one disk."""
    alone, shared, port = folder("one", batch=2), folder("two", batch=1), free_port()
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

"""How the processes of a run are ended."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from likeness.trainers import job
from likeness.trainers.crash_report import crash_message, log_tail
from likeness.trainers.errors import RunCancelled, RunFailed
from likeness.trainers.recipe import Recipe
from likeness.trainers.run_folder import Result, RunFolder

# Two processes that heed nothing, each with a group of its own as torch.distributed.run's have.
WORKER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
LAUNCHER = f"""
import subprocess, sys
workers = [sys.executable, "-S", "-c", {WORKER!r}]
for one in [subprocess.Popen(workers, start_new_session=True) for _ in range(2)]:
    one.wait()
"""


def log_of(code, tmp_path, monkeypatch, **options):
    """The log of a run whose process executes `code`; `options` are the Job's."""
    monkeypatch.setattr(job, "_command", lambda processes: [sys.executable, "-S", "-c", code])
    run = job.Job(RunFolder(tmp_path), **options)
    run._process.wait(60)
    run.terminate()
    return run.folder.log


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("backend:cudaMallocAsync", None),
        ("expandable_segments:True,backend:cudaMallocAsync", "expandable_segments:True"),
        ("roundup_power2_divisions:[256:1,512:2]", "roundup_power2_divisions:[256:1,512:2]"),
    ],
)
def test_a_run_does_not_take_over_the_allocator_of_comfyui(tmp_path, monkeypatch, asked, given):
    tell = "import os; print(os.environ.get('PYTORCH_CUDA_ALLOC_CONF'))"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", asked)
    log = log_of(tell, tmp_path, monkeypatch)
    assert log.read_text().strip() == str(given)


def test_the_log_of_a_run_was_in_the_locales_encoding_and_read_in_another(tmp_path, monkeypatch):
    tell = r"import sys; print('J\xfcrgen \u2191'); print('\udcff', file=sys.stderr)"
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    log = log_of(tell, tmp_path, monkeypatch)
    assert log_tail(log).split() == ["Jürgen", "↑", r"\udcff"]


@pytest.mark.parametrize(
    ("set_by_the_user", "given"),
    [
        ({}, ["PASSIVE", "10000"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "None"]),
        ({"GOMP_SPINCOUNT": "5"}, ["None", "5"]),
    ],
)
def test_waiting_threads_of_a_run_soon_sleep(tmp_path, monkeypatch, set_by_the_user, given):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    tell = f"import os; print(*map(os.environ.get, {names}))"
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in set_by_the_user.items():
        monkeypatch.setenv(name, value)
    log = log_of(tell, tmp_path, monkeypatch)
    assert log.read_text().split() == given


@pytest.mark.parametrize(("device", "seen"), [("auto", "all"), ("cpu", "")])
def test_a_run_asks_no_network_and_may_be_kept_from_the_gpu(tmp_path, monkeypatch, device, seen):
    names = ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES")
    tell = f"import json, os; print(json.dumps([os.environ.get(name) for name in {names}]))"
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all")
    log = log_of(tell, tmp_path, monkeypatch, device=device)
    assert json.loads(log.read_text()) == ["1", seen]


@pytest.mark.parametrize(("alone", "flags"), [(True, ["-s"]), (False, [])])
def test_a_run_sees_no_packages_that_comfyui_does_not(monkeypatch, alone, flags):
    """The portable build starts with -s: another torch may lie in the user's own packages."""
    system = SimpleNamespace(executable="python.exe", flags=SimpleNamespace(no_user_site=alone))
    monkeypatch.setattr(job, "sys", system)
    assert job.python_command() == ["python.exe", *flags]


@pytest.mark.parametrize("alone", [True, False])
def test_nor_do_the_processes_that_torchrun_starts(tmp_path, monkeypatch, alone):
    flags = SimpleNamespace(no_user_site=alone)
    monkeypatch.setattr(job, "sys", SimpleNamespace(executable=sys.executable, flags=flags))
    monkeypatch.delenv("PYTHONNOUSERSITE", raising=False)
    tell = "import sys; print(sys.flags.no_user_site)"
    log = log_of(tell, tmp_path, monkeypatch, processes=2)
    assert log.read_text().split() == [str(int(alone))]


@pytest.mark.parametrize(("device", "refused"), [("auto", True), ("cpu", False)])
def test_more_processes_than_gpus_are_refused_with_the_count(monkeypatch, device, refused):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(job, "prepare", lambda recipe, places, **_: pytest.fail("prepared"))
    if refused:
        with pytest.raises(RunFailed, match="only 2 GPUs"):
            job.train(None, None, on_event=print, processes=3, device=device)
    else:
        with pytest.raises(pytest.fail.Exception, match="prepared"):
            job.train(None, None, on_event=print, processes=3, device=device)


def test_cancelling_a_run_of_two_processes_leaves_none_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_command", lambda processes: [sys.executable, "-S", "-c", LAUNCHER])
    monkeypatch.setattr(job, "GRACE_SECONDS", 0.1)
    run = job.Job(RunFolder(tmp_path), processes=2)
    deadline = time.monotonic() + 60
    while len(run._child_processes()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = run._child_processes()
    run.terminate()
    assert len(workers) == 2 and run.exit_code() is not None
    left = [one for one in workers if one.is_running()]
    assert all(one.status() == psutil.STATUS_ZOMBIE for one in left)


def test_cancelling_does_not_wait_for_a_dead_process_that_nobody_reaps():
    child = subprocess.Popen([sys.executable, "-S", "-c", ""], stdout=subprocess.PIPE)
    child.stdout.read()  # its output closes as it ends; it is a zombie until it is waited for
    start = time.monotonic()
    job._wait_for_end({psutil.Process(child.pid)}, 10)
    assert time.monotonic() - start < 5
    assert child.wait() == 0


def test_a_run_of_two_processes_that_was_asked_to_end_is_no_failure(tmp_path, monkeypatch):
    """torchrun's exit code is 1 whatever its processes' are."""
    folder = RunFolder(tmp_path)
    event = json.dumps({"v": 1, "time": 0.0, "kind": "stopped", "step": 0})
    tell = f"open({str(folder.events)!r}, 'a').write({event!r} + chr(10)); raise SystemExit(1)"
    monkeypatch.setattr(job, "_command", lambda processes: [sys.executable, "-S", "-c", tell])
    monkeypatch.setattr(job, "prepare", lambda recipe, places, **_: folder)
    with pytest.raises(RunCancelled):
        job.train(None, None, on_event=lambda event: None, processes=2, device="cpu")


@pytest.mark.parametrize("processes", [0, -1])
def test_a_run_of_no_processes_is_refused(monkeypatch, processes):
    monkeypatch.setattr(job, "prepare", lambda recipe, places, **_: pytest.fail("prepared"))
    with pytest.raises(RunFailed, match=f"{processes} processes cannot train"):
        job.train(None, None, on_event=print, processes=processes)


def test_a_run_that_a_real_time_signal_ended_says_which(tmp_path):
    assert "was terminated by SIGTERM" in crash_message(-15, RunFolder(tmp_path))
    assert "was terminated by signal 40" in crash_message(-40, RunFolder(tmp_path))


def test_how_windows_ended_a_run_is_said_in_words(tmp_path):
    said = crash_message(3221225477, RunFolder(tmp_path))
    assert "0xC0000005" in said and "memory" in said and "3221225477" not in said
    assert "code 7" in crash_message(7, RunFolder(tmp_path))


def test_a_file_of_another_name_is_given_with_a_word_of_it(tmp_path, monkeypatch):
    recipe, told = Recipe(name="anna"), []
    result = Result(
        adapter=tmp_path / "bob.safetensors", recipe=recipe.changed(name="bob"), folder=tmp_path,
        steps=1, losses=(), seconds={}, notes=("a note",), precision="fp32", peak_memory=0,
    )  # fmt: skip
    run = SimpleNamespace(finished=lambda: result)
    monkeypatch.setattr(job, "prepare", lambda recipe, places, **_: run)
    given = job.train(recipe, None, on_event=told.append)
    assert given.reused and given.adapter == result.adapter
    (event,) = told
    assert event.kind == "notice" and event.data["text"].startswith("Already trained as 'bob'")
    assert given.notes == (event.data["text"], "a note")
    assert job.train(result.recipe, None, on_event=told.append).notes == ("a note",)
    assert len(told) == 1
    monkeypatch.setattr(job, "apply_keep", lambda result, recipe: "freed")
    assert job.train(result.recipe, None, on_event=told.append).notes == ("freed", "a note")

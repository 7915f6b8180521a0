import errno
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from likeness.trainers import job, process
from likeness.trainers.cli import InterruptHandler
from likeness.trainers.errors import (
    OutOfMemory,
    OutOfSpace,
    RestartNeeded,
    RunBusy,
    RunCancelled,
    RunFailed,
    SubjectError,
)
from likeness.trainers.events import Event, EventReader
from likeness.trainers.places import Places
from likeness.trainers.recipe import DreamBooth, Recipe
from likeness.trainers.run_folder import RunFolder
from likeness.trainers.stop import StopRequest, StopSignal


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path)
    run.recipe_file.write_text(Recipe(method=DreamBooth()).to_json())
    return run


START = time.time() - 60
ALONE = SimpleNamespace(num_processes=1)


# Asked to stop


def test_a_second_start_leaves_the_flag_of_the_run_that_works(folder):
    with process.lock_run(folder, START):
        folder.stop.touch()
        with FileLock(folder.lock.with_name("other")), pytest.raises(RunBusy):
            take_lock_elsewhere(folder)
        assert folder.stop.exists()


def take_lock_elsewhere(folder):
    process.LOCK_TIMEOUT_SECONDS, before = 0.0, process.LOCK_TIMEOUT_SECONDS
    try:
        with process.lock_run(RunFolder(Path(os.path.relpath(folder.path))), START):
            pass
    finally:
        process.LOCK_TIMEOUT_SECONDS = before


def test_two_runs_of_one_lesson_that_start_at_once_do_not_train_side_by_side(tmp_path):
    one, other = (RunFolder(tmp_path / f"{name}-lora-r4-0") for name in ("a", "b"))
    for name, run in (("a", one), ("b", other)):
        run.path.mkdir()
        run.recipe_file.write_text(Recipe(name=name).to_json())
        places = Places.for_output(tmp_path, base=tmp_path, photos=tmp_path)
        run.places_file.write_text(places.model_copy(update={"runs": tmp_path}).model_dump_json())
    with process.lock_run(one, START):
        with pytest.raises(RunBusy, match="a-lora-r4-0"), process.lock_run(other, START):
            pytest.fail("both train")
        assert not other.is_busy()
    with process.lock_run(other, START):
        pass


def test_a_flag_of_an_earlier_process_does_not_stop_this_one(folder):
    folder.stop.touch()
    with process.lock_run(folder, time.time() + 1):
        assert not folder.stop.exists()
    folder.stop.touch()
    with process.lock_run(folder, START):
        assert folder.stop.exists()


@pytest.mark.parametrize(
    ("error", "main", "left"),
    [
        (None, True, False),
        (RunCancelled("asked"), True, False),
        (RunCancelled("asked"), False, True),  # the main process has not seen it yet
        (RestartNeeded("tier"), True, True),
        (RuntimeError("connection closed by peer"), True, True),
    ],
)
def test_a_flag_is_left_to_the_process_for_which_it_is_meant(
    folder, error, main, left, monkeypatch
):
    """To the main one, and after an error to the one that starts again."""

    def train(*given):
        folder.stop.touch()
        if error is not None:
            raise error

    one = SimpleNamespace(is_main_process=main)
    monkeypatch.setattr(process, "_check_prepared", lambda folder: None)
    monkeypatch.setattr(process, "read_ahead", lambda folder: None)
    monkeypatch.setattr(process, "_create_accelerator", lambda: one)
    monkeypatch.setattr(process, "_train", train)
    process.run_process(folder.path, follow_parent=False)
    assert folder.stop.exists() == left


def test_a_run_of_several_that_was_stopped_was_told_as_failed(folder):
    """The others lose the process that was stopped first."""
    ending = job._Ending()
    for expected in (False, True):
        ending.add(Event("failed", 0.0, {"message": "connection closed", "expected": expected}))
        ending.add(Event("stopped", 0.0, {"step": 0}))
        assert (ending.message() is None) != expected


def test_errors_after_a_restart_were_told_as_the_runs(folder):
    """Processes that lose the one that ran out of memory fail, too."""
    events = [
        Event("restart", 0.0, {"text": "the next start uses tier 'checkpointing'"}),
        Event("failed", 0.0, {"message": "connection closed by peer", "expected": False}),
    ]
    running = SimpleNamespace(folder=folder, exit_code=lambda: None, new_events=lambda: events)
    told = []
    ending = job._follow(running, told.append, None)
    assert ending.restart == events[0].data["text"] and ending.failure is None
    assert [event.kind for event in told] == ["notice"]


def test_only_a_ctrl_c_while_the_process_starts_is_meant_for_it(folder, monkeypatch):
    given = {}

    class Job:
        def __init__(self, folder, **options):
            given.update(options)
            raise RunFailed("enough")

    monkeypatch.setattr(job, "prepare", lambda recipe, places, **_: folder)
    monkeypatch.setattr(job, "Job", Job)
    with pytest.raises(RunFailed):
        job.train(None, None, on_event=print, before_start=lambda run: run.stop.touch())
    with process.lock_run(folder, given["since"]):
        assert folder.stop.exists()
    folder.stop.touch()  # late, for the process that has just ended
    time.sleep(0.02)  # some file systems count time in steps of 10 ms
    with pytest.raises(RunFailed):
        job.train(None, None, on_event=print)
    with process.lock_run(folder, given["since"]):
        assert not folder.stop.exists()


def test_after_a_ctrl_c_no_other_run_begins(folder):
    interrupts = InterruptHandler()
    interrupts.asked = True
    with pytest.raises(RunCancelled, match="not started"):
        interrupts.watch(folder)


def test_what_went_wrong_beside_the_main_process_is_told(folder):
    other = SimpleNamespace(is_main_process=False)
    with process._events(folder, other) as emit:
        emit("step", step=1)
        assert not folder.events.exists()
        emit("failed", message="GPU 1 is full", expected=True)
    with process._events(folder, SimpleNamespace(is_main_process=True)) as emit:
        emit("failed", message="connection closed by peer", expected=False)
    codes = iter([None, 1, 1])
    reader = EventReader(folder.events)
    ended = SimpleNamespace(
        folder=folder, exit_code=lambda: next(codes), new_events=reader.new_events
    )
    ending = job._follow(ended, lambda event: None, None)
    assert "GPU 1 is full" in ending.failure.data["message"]


def test_what_a_run_is_asked(folder):
    stop = StopSignal(folder.stop)
    assert stop.asked(ALONE) is StopRequest.NONE
    assert stop.asked(ALONE, save_due=True) is StopRequest.CHECKPOINT
    stop.check()
    folder.stop.touch()
    assert stop.asked(ALONE, save_due=True) is StopRequest.SAVE
    with pytest.raises(RunCancelled, match="before its first step"):
        stop.check()
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop.handle_sigterm()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked(ALONE) is StopRequest.LEAVE
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("main", [True, False])
def test_all_processes_do_what_the_main_one_is_asked(folder, main):
    votes = []

    def reduce(vote, how):
        votes.append(float(vote))
        return torch.tensor(2.0 if folder.stop.exists() else 0.0)

    several = SimpleNamespace(num_processes=2, is_main_process=main, device="cpu", reduce=reduce)
    stop = StopSignal(folder.stop)
    assert stop.asked(several) is StopRequest.NONE
    folder.stop.touch()
    assert stop.asked(several) is StopRequest.NONE  # of the step before, so as not to wait
    assert stop.asked(several) is StopRequest.SAVE
    assert votes == [0.0, 2.0, 2.0] if main else votes == [0.0, 0.0, 0.0]


def test_several_processes_saved_a_checkpoint_twice_for_one_request(folder):
    """The vote of the next step is cast before the first one is read."""
    due = iter([True, True, False, False, False])
    several = SimpleNamespace(
        num_processes=2, is_main_process=True, device="cpu", reduce=lambda vote, how: vote
    )
    stop = StopSignal(folder.stop)
    asked = [stop.asked(several, save_due=one) for one in due]
    assert asked.count(StopRequest.CHECKPOINT) == 1


def test_the_first_ctrl_c_stops_and_saves_and_the_second_cancels(folder, capsys):
    before, interrupts = signal.getsignal(signal.SIGINT), InterruptHandler()
    try:
        interrupts.watch(folder)
        os.kill(os.getpid(), signal.SIGINT)
        assert folder.stop.exists() and "again to cancel" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        assert interrupts.cancelled
    finally:
        interrupts.close()
    assert signal.getsignal(signal.SIGINT) is before


# What went wrong


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_names_what_this_recipe_can_change(folder, error):
    told = process.to_likeness_error(error, folder)
    assert isinstance(told, OutOfMemory)
    assert "gradient_checkpointing" in str(told) and "a LoRA instead" in str(told)
    folder.recipe_file.write_text("{")
    assert isinstance(process.to_likeness_error(error, folder), OutOfMemory)


def test_a_full_disk_says_that_the_run_goes_on(folder):
    told = process.to_likeness_error(OSError(errno.ENOSPC, "No space left on device"), folder)
    assert isinstance(told, OutOfSpace) and "resumes from its last" in str(told)
    known = SubjectError("it is known")
    assert process.to_likeness_error(known, folder) is known
    assert isinstance(process.to_likeness_error(KeyError("x"), folder), process.UnexpectedError)


@pytest.mark.parametrize(
    ("code", "failure", "kind"),
    [
        (OutOfSpace.exit_code, None, OutOfSpace),
        (RunBusy.exit_code, None, RunBusy),
        (RunCancelled.exit_code, None, RunCancelled),
        (1, "a cause", RunFailed),
        (1, None, RunFailed),
        (-9, None, RunFailed),
        (None, None, RunFailed),
    ],
)
def test_the_exit_code_tells_what_no_event_could(folder, code, failure, kind):
    ended = SimpleNamespace(folder=folder, exit_code=lambda: code)
    event = failure and Event("failed", 0.0, {"message": failure, "expected": True})
    error = job._to_error(ended, job._Ending(event))
    assert type(error) is kind and (failure or "") in str(error)


def test_a_run_of_two_processes_that_is_trained_elsewhere_says_so(folder):
    ended = SimpleNamespace(folder=folder, exit_code=lambda: 1)  # torch's, whatever ours was
    with FileLock(folder.lock):
        assert type(job._to_error(ended, job._Ending())) is RunBusy
    assert type(job._to_error(ended, job._Ending())) is RunFailed


def test_a_run_that_leaves_says_so_to_its_panel(folder):
    said = []

    def leaves():
        raise RunCancelled("it left", step=4)

    code = process._run_and_report(
        leaves, folder, lambda kind, **data: said.append((kind, data)), 0.0
    )
    assert code == RunCancelled.exit_code and said == [("stopped", {"step": 4})]


def test_a_mistyped_run_folder_was_made_and_locked_without_a_word(tmp_path, caplog):
    path = tmp_path / "sujbect-lora-r4"
    assert process.run_process(path, follow_parent=False) == 1
    assert not path.exists()
    assert f"{path} is not a run folder" in caplog.text


def test_a_failure_is_in_the_log_beside_its_event(folder, caplog):
    def fails():
        raise SubjectError("no photographs are left")

    said = []
    code = process._run_and_report(fails, folder, lambda kind, **data: said.append(data), 0.0)
    assert code == 1 and said == [{"message": "no photographs are left", "expected": True}]
    assert f"{folder.path} failed: no photographs are left" in caplog.text


def test_a_pytorch_that_does_not_come_up_was_told_as_code_1_without_advice(
    folder, monkeypatch, caplog
):
    def too_small():
        raise OSError("[WinError 1455] The paging file is too small")

    monkeypatch.setattr(process, "read_ahead", lambda folder: None)
    monkeypatch.setattr(process, "_create_accelerator", too_small)
    assert process.run_process(folder.path, follow_parent=False) == OutOfMemory.exit_code
    assert "enlarge it" in caplog.text

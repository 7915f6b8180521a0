"""The cost of the training panel and of messages to the browser, in a real ComfyUI.

Queues the same small training, in turn, without a browser, with Chromium open on the graph but the
panel's script blocked, and with the panel in view. Requires ComfyUI, Playwright and Chromium, like
the tests marked `browser`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import psutil
from likeness.tools.editor import Editor
from likeness.tools.reduced_workflow import without
from likeness.trainers.crash_report import log_tail
from likeness.trainers.events import EventReader
from likeness.trainers.run_folder import RunFolder

from .browser import INSET, open_tab, version
from .inputs import write_images
from .matrix import Prompt, running_server
from .options import PAGE, ROOT, publish
from .table import format_quartiles, machine, markdown

TRAIN, SUBJECT = "Likeness_TrainLoRA", "Likeness_Subject"
BASE = "tiny.safetensors"
IMAGES = 15
WARM_UP = 20  # steps to discard
BLOCK = 20  # steps between readings of CPU time, which has a resolution of 10 ms
POLL_SECONDS = 0.02
OURS = "likeness."  # prefix of our message types
SCRIPT = "**/extensions/*/training.js*"  # the panel's
NONE, EDITOR, PANEL = "none", "the editor alone", "the editor with the panel"

Widgets = dict[str, dict[str, Any]]  # by the node's type
PROMPT = "async () => (await app.graphToPrompt()).output"


# Records.


@dataclass(frozen=True)
class Reading:
    """CPU seconds of each process group at the end of a step; `at` is in seconds since epoch."""

    at: float
    step: int
    training: float
    comfyui: float
    chromium: float


@dataclass(frozen=True)
class Message:
    """A message to the browser: time in seconds since epoch, kind, and size in bytes."""

    at: float
    kind: str
    size: int


@dataclass
class Training:
    """One training; `seconds` are the step times it reports, without the time between steps."""

    previews: bool
    browser: str
    seconds: list[float] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    frames: list[Message] = field(default_factory=list)  # of the websocket
    answers: list[Message] = field(default_factory=list)  # to the panel's requests

    def heard(self, frame: str | bytes) -> None:
        """Records a websocket frame."""
        if isinstance(frame, str):
            kind, size = json.loads(frame).get("type", ""), len(frame.encode())
        else:
            kind, size = f"binary {int.from_bytes(frame[:4], 'big')}", len(frame)
        self.frames.append(Message(time.time(), kind, size))

    def answered(self, response: Any) -> None:
        """Records Playwright's response object if it answers the panel."""
        if "/likeness/" in response.url or "/view?" in response.url:
            size = int(response.headers.get("content-length", 0))
            self.answers.append(Message(time.time(), "answer", size))

    @property
    def between(self) -> tuple[float, float]:
        """The measured period: the times of the first and the last reading."""
        return (self.readings[0].at, self.readings[-1].at) if self.readings else (0.0, 0.0)


# Watching.


def record_cpu(server: Any, name: str, recording: Training, ended: threading.Event) -> None:
    """Follows a training's events, and reads CPU times every BLOCK steps."""
    runs = server.home / "output" / "likeness" / "runs"
    folder = None
    while folder is None and not ended.wait(POLL_SECONDS):
        folder = next(runs.glob(f"{name}-*"), None)
    if folder is None:
        return
    reader, due, processes = EventReader(RunFolder(folder).events), WARM_UP, None
    while not ended.wait(POLL_SECONDS):
        steps = [event.data for event in reader.new_events() if event.kind == "step"]
        recording.seconds += [step["seconds"] for step in steps]
        if not steps or not due <= steps[-1]["step"] < steps[-1]["total"]:
            continue
        processes = processes or process_groups(server)
        recording.readings.append(
            Reading(time.time(), steps[-1]["step"], *map(cpu_seconds, processes))
        )
        due = steps[-1]["step"] + BLOCK


def process_groups(server: Any) -> tuple[list[psutil.Process], ...]:
    """The processes of the training, of ComfyUI and of Chromium."""
    comfyui = psutil.Process(server.process.pid)
    training = comfyui.children(recursive=True)
    others = {*psutil.Process().children(recursive=True)} - {comfyui, *training}
    return training, [comfyui], [one for one in others if is_chromium(command_line(one))]


def command_line(process: psutil.Process) -> list[str]:
    """A process's command line; [] if it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def is_chromium(words: Sequence[str]) -> bool:
    """Whether a command line is Chromium's, not that of the driver that started it."""
    return any(word.startswith(("--type=", "--remote-debugging")) for word in words)


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds used so far by those processes that still run."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


@contextmanager
def watching(server: Any, name: str, recording: Training) -> Iterator[None]:
    """Records a training from another thread."""
    ended = threading.Event()
    thread = threading.Thread(target=record_cpu, args=(server, name, recording, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# The trainings.


def widgets(args: argparse.Namespace, name: str, previews: bool) -> Widgets:
    """Widget values for the bundled workflow's nodes."""
    training = {"base_model": BASE, "name": name, "steps": args.steps, "optimizer": "adamw"}
    training |= {"attempt": crc32(name.encode()) % 1_000_000}  # no finished run is reused
    training |= {"precision": "fp32", "preview_every": args.preview_every if previews else 0}
    return {SUBJECT: {"folder": "person", "resolution": args.resolution}, TRAIN: training}


@contextmanager
def open_editor(server: Any, values: Widgets, recording: Training) -> Iterator[Editor]:
    """The editor with the train node in view, with or without its panel; records its messages."""
    graph = json.loads((ROOT / "workflows" / "train_lora.json").read_text(encoding="utf-8"))
    others = {node["id"] for node in graph["nodes"] if node["type"] not in values}
    with open_tab(server.address) as editor:
        if recording.browser == EDITOR:
            editor.page.route(SCRIPT, lambda route: route.abort())
        editor.page.on("websocket", lambda one: one.on("framereceived", recording.heard))
        editor.page.on("response", recording.answered)
        editor.open()
        editor.load(without(graph, others))
        for kind, named in values.items():
            editor.set_widgets(kind, **named)
        editor.zoom_to(editor.box(editor.find_node_id(TRAIN)), INSET, 1)
        yield editor


def train(server: Any, prompt: Prompt, args: argparse.Namespace, recording: Training) -> Training:
    """Runs one training. Raises RuntimeError if it fails or the panel's visibility is wrong."""
    name = f"benchmark-{time.time_ns()}"
    values, in_view = widgets(args, name, recording.previews), 0
    if recording.browser != NONE:
        with open_editor(server, values, recording) as editor, watching(server, name, recording):
            editor.queue()
            wait_for(server, lambda seconds: editor.page.wait_for_timeout(1000 * seconds))
            in_view = editor.page.locator(".lk-training:visible").count()
    else:
        with watching(server, name, recording):
            status, answer = server.post("/prompt", {"prompt": changed(prompt, values)})
            if status != 200:
                raise RuntimeError(json.dumps(answer))
            wait_for(server, time.sleep)
    check(server, name)
    if in_view != (recording.browser == PANEL):
        raise RuntimeError(f"{in_view} panels were in view with {recording.browser}")
    return recording


def changed(prompt: Prompt, values: Widgets) -> Prompt:
    """The prompt with other widget values."""
    return {
        key: {**one, "inputs": {**one["inputs"], **values.get(one["class_type"], {})}}
        for key, one in prompt.items()
    }


def wait_for(server: Any, pause: Callable[[float], None]) -> None:
    """Waits until the queue is empty; `pause` takes seconds."""
    busy = True
    while busy:
        pause(1)
        queue = server.get("/queue")
        busy = bool(queue["queue_running"] or queue["queue_pending"])


def check(server: Any, name: str) -> None:
    """Raises RuntimeError with the tail of the log if a training has no result."""
    runs = server.home / "output" / "likeness" / "runs"
    run = next((RunFolder(path) for path in runs.glob(f"{name}-*")), None)
    if run is None or run.result() is None:
        raise RuntimeError(server.log()[-3000:] if run is None else log_tail(run.log))


def measure(args: argparse.Namespace, folder: Path) -> str:
    """Both tables, with a description of the training."""
    from likeness.demo.random_model import write_random_model

    home = folder / "home"
    (home / "models" / "checkpoints").mkdir(parents=True)
    write_random_model(home / "models" / "checkpoints" / BASE)
    write_images(home / "input" / "person", IMAGES, args.resolution, 0)
    trainings = []
    with running_server(home) as server:
        with open_editor(server, widgets(args, "first", False), Training(False, PANEL)) as editor:
            prompt, chromium = editor.page.evaluate(PROMPT), version(editor.page)
        short = argparse.Namespace(**{**vars(args), "steps": 2})  # fills the latent cache
        train(server, prompt, short, Training(False, NONE))
        for previews in [False] * args.rounds + [True]:
            for browser in (NONE, EDITOR, PANEL):
                print(f"previews: {previews}, browser: {browser}", flush=True)
                trainings.append(train(server, prompt, args, Training(previews, browser)))
    about = f"tiny model of random weights, {args.resolution} x {args.resolution} pixels, fp32, "
    about += f"{args.steps} steps in each of {args.rounds} rounds, and in one more with previews "
    about += f"every {args.preview_every} steps; {chromium}."
    return f"{about}\n\n{costs(trainings)}\n\n{traffic(trainings)}"


# Tables.


def costs(trainings: Sequence[Training]) -> str:
    """The table of step times for each kind of training, over all rounds."""
    head = ("previews", "browser", "training runs", "step, s: median (quartiles)")
    head += ("step, s of CPU time", "ComfyUI's CPU time per step, s", "Chromium's")
    rows = []
    for kind in dict.fromkeys((one.previews, one.browser) for one in trainings):
        same = [one for one in trainings if (one.previews, one.browser) == kind]
        steps = [seconds for one in same for seconds in one.seconds[WARM_UP:]]
        parts = [
            format_quartiles(cpu_steps(same, part)) for part in ("training", "comfyui", "chromium")
        ]
        words = ("on" if kind[0] else "off", kind[1])
        rows.append([*words, str(len(same)), format_quartiles(steps), *parts])
    return markdown(head, rows)


def cpu_steps(trainings: Sequence[Training], part: str) -> list[float]:
    """CPU seconds per step of a process group, between the readings of all trainings."""
    return [
        (getattr(after, part) - getattr(before, part)) / (after.step - before.step)
        for one in trainings
        for before, after in pairwise(one.readings)
    ]


def traffic(trainings: Sequence[Training]) -> str:
    """The table of messages to the browser per second, and their kinds."""
    head = (
        "previews",
        "Likeness's messages per second",
        "all messages per second",
        "kB per second",
    )
    head += ("answers to the panel per second", "kB per second")
    rows, kinds = [], Counter[str]()
    for previews in (False, True):
        same = [one for one in trainings if one.browser == PANEL and one.previews == previews]
        seconds = sum(end - start for start, end in (one.between for one in same))
        if not seconds:
            continue
        frames = [frame for one in same for frame in within(one.frames, one.between)]
        answers = [answer for one in same for answer in within(one.answers, one.between)]
        ours = [frame for frame in frames if frame.kind.startswith(OURS)]
        rates = [f"{len(part) / seconds:.2f}" for part in (ours, frames)]
        answered = [f"{len(answers) / seconds:.2f}", kilobytes(answers, seconds)]
        rows.append(["on" if previews else "off", *rates, kilobytes(frames, seconds), *answered])
        kinds.update(frame.kind for frame in frames)
    named = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    return f"{markdown(head, rows)}\n\nMessages by kind: {named or 'none'}."


def within(messages: Sequence[Message], between: tuple[float, float]) -> list[Message]:
    """The messages of a period."""
    return [one for one in messages if between[0] <= one.at < between[1]]


def kilobytes(messages: Sequence[Message], seconds: float) -> str:
    """kB per second."""
    return f"{sum(one.size for one in messages) / seconds / 1000:.2f}"


def main(arguments: list[str]) -> None:
    """Measures, prints the tables, and writes them with --write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks panel")
    parser.add_argument("--steps", type=int, default=420, help="steps per training")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each side, alternating")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--preview-every", type=int, default=200, help="default: as the workflows")
    parser.add_argument("--write", action="store_true", help=f"write the tables to {PAGE.name}")
    args = parser.parse_args(arguments)
    args.section = "panel"
    with tempfile.TemporaryDirectory() as folder:
        publish(args, f"{machine(cpu=True)}\n\n{measure(args, Path(folder))}")

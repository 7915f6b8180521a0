"""The cost of a Matrix in a real ComfyUI, against core's nodes alone.

``time`` draws the same images with core's nodes, one prompt per image, and with a Matrix, on
the miniature. ``memory`` draws one fine-tune with core's nodes, then a Matrix of 8 variants x 6
prompts, on a model of SD 1.5's size. Requires ComfyUI, like the tests marked `comfy`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from likeness.tools.comfyui import Server, copy_pack

from .inputs import write_lora
from .options import PAGE, ROOT, publish
from .table import machine

PROMPTS = ("in the kitchen", "in the forest", "on the street", "with umbrella", "smiling", "sad")
LOADER, ADAPTER, SAMPLER, DECODER, MATRIX = "1", "2", "6", "7", "m"
NONE = "none (base)"

Prompt = dict[str, Any]


# Graphs. Both use the same node ids, so that their events can be matched.


def node(kind: str, **inputs: Any) -> Prompt:
    """A node in ComfyUI's API format."""
    return {"class_type": kind, "inputs": inputs}


def drawing(base: str, cell: dict[str, Any], steps: int) -> Prompt:
    """Core's nodes and Load Adapter; `cell` holds constants or links for a cell's inputs."""
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    loaded = {"model": [LOADER, 0], "clip": [LOADER, 1]}
    size = {"width": cell["width"], "height": cell["height"], "batch_size": 1}
    noise = {"seed": cell["seed"], "steps": steps, "cfg": 7.5, "denoise": 1.0}
    ways = {"sampler_name": "euler", "scheduler": "simple", "latent_image": ["5", 0]}
    args = {"model": [ADAPTER, 0], "positive": ["3", 0], "negative": ["4", 0]}
    return {
        LOADER: node("CheckpointLoaderSimple", ckpt_name=base),
        ADAPTER: node("Likeness_LoadAdapter", **loaded, adapter=cell["adapter"], **strengths),
        "3": node("CLIPTextEncode", clip=[ADAPTER, 1], text=cell["prompt"]),
        "4": node("CLIPTextEncode", clip=[ADAPTER, 1], text=cell["negative"]),
        "5": node("EmptyLatentImage", **size),
        SAMPLER: node("KSampler", **args, **noise, **ways),
        DECODER: node("VAEDecode", samples=[SAMPLER, 0], vae=[LOADER, 2]),
    }


def single_image_prompt(
    base: str, adapter: str, text: str, seed: int, size: tuple[int, int], steps: int
) -> Prompt:
    """A prompt that draws one image and saves it with core's node."""
    cell = {"adapter": adapter, "prompt": text, "negative": "blurry", "seed": seed}
    cell |= dict(zip(("width", "height"), size, strict=True))
    image = node("SaveImage", images=[DECODER, 0], filename_prefix="alone")
    return drawing(base, cell, steps) | {"8": image}


def matrix(base: str, adapters: list[str], seed: int, size: tuple[int, int], steps: int) -> Prompt:
    """A prompt with a Matrix of all adapters and all PROMPTS."""
    outputs = ("adapter", "prompt", "negative", "seed", None, None, None, "width", "height")
    cell = {name: [MATRIX, number] for number, name in enumerate(outputs) if name}
    texts = {"token": "", "class_word": "man", "negative": "blurry", "text": "\n".join(PROMPTS)}
    plan = {"adapters": "\n".join(adapters), "seed": seed, "draws": 1, "with_pose": "without"}
    plan |= {"pose_rows": "", "control_strength": 1.0, "width": size[0], "height": size[1]}
    sheet = {"name": f"benchmark-{seed}", "single_images": "png", "redraw": ""}
    return drawing(base, cell, steps) | {
        "p": node("Likeness_PromptSet", prompts="own text", **texts),
        MATRIX: node("Likeness_Matrix", prompts=["p", 0], **plan),
        "s": node("Likeness_ContactSheet", image=[DECODER, 0], matrix=[MATRIX, 9], **sheet),
    }


# Watching.


@dataclass
class ExecutionTimer:
    """Records when each of the user's nodes starts, in wall-clock and server CPU seconds."""

    process: psutil.Process
    moments: list[tuple[str, float, float]] = field(default_factory=list)

    def __call__(self, message: Any) -> None:
        """Handles a websocket message."""
        if not isinstance(message, dict):
            return
        if message["type"] in ("execution_start", "execution_success"):
            self._note(message["type"])
        elif message["type"] == "executing" and message["data"].get("node"):
            self._note(str(message["data"].get("display_node")))

    def _note(self, what: str) -> None:
        used = self.process.cpu_times()
        self.moments.append((what, time.perf_counter(), used.user + used.system))

    def spans(self, start: str, end: str) -> list[tuple[float, float]]:
        """(wall-clock, CPU) seconds from each `start` to the next `end` of the same prompt."""
        found, begun = [], None
        for what, *at in self.moments:
            if what == "execution_start":
                begun = None
            if begun is not None and what == end:
                found.append((at[0] - begun[0], at[1] - begun[1]))
                begun = None
            if what == start:
                begun = at
        return found


@contextmanager
def peak_memory(process: psutil.Process) -> Iterator[list[int]]:
    """Samples memory ten times a second: [peak resident, peak without mapped files], in bytes.

    The system can drop pages of mapped files; only Linux reports them separately.
    """
    peak, ended = [0, 0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.1):
            info = process.memory_info()
            own = info.rss - getattr(info, "shared", 0)
            peak[:] = max(peak[0], info.rss), max(peak[1], own)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


@contextmanager
def running_server(home: Path, pack: Path = ROOT) -> Iterator[Any]:
    """A ComfyUI that runs until the block exits."""
    server = Server(home, pack)
    try:
        yield server
    finally:
        server.stop()


def queue(server: Any, prompt: Prompt, watch: ExecutionTimer | None = None) -> None:
    """Runs a prompt to its end. Raises RuntimeError with the server's error."""
    outcome = server.run(prompt, watch)
    if outcome.status != "success":
        raise RuntimeError(outcome.error.get("exception_message", outcome.status))


# Time.


def measure_time(args: argparse.Namespace, folder: Path) -> str:
    """The table of seconds per image."""
    from likeness.demo import weights
    from likeness.demo.random_model import write_random_miniature

    pack = copy_pack(folder / "pack" / "ComfyUI-Likeness")
    write_random_miniature(pack / "demo" / "weights")
    base, size = Path(weights.CHECKPOINT).name, (args.width, args.height)
    with running_server(folder / "home", pack) as server:
        process = psutil.Process(server.process.pid)
        queue(server, single_image_prompt(base, NONE, "warm up", 0, (64, 64), 2))
        ours, core = ExecutionTimer(process), ExecutionTimer(process)
        for seed in range(1, args.rounds + 1):
            for text in PROMPTS:
                queue(server, single_image_prompt(base, NONE, text, seed, size, args.steps), core)
            queue(server, matrix(base, ["base"], seed, size, args.steps), ours)
    return time_table(core, ours, f"{size[0]} x {size[1]} pixels, {args.steps} steps")


def time_table(core: ExecutionTimer, ours: ExecutionTimer, about: str) -> str:
    """The table of medians, and of each cell's overhead over core's KSampler."""
    sampling = core.spans(SAMPLER, DECODER)
    rows = {
        "core's KSampler alone": sampling,
        "core's nodes, one queue per image": core.spans("execution_start", "execution_success"),
        "the KSampler of a Matrix": ours.spans(SAMPLER, DECODER),
        "a Matrix, from cell to cell": ours.spans(SAMPLER, SAMPLER),
    }
    first = [statistics.median(part) for part in zip(*sampling, strict=True)]
    lines = [f"{about}\n", "| | images | s | to KSampler | s of CPU time | to KSampler |"]
    lines.append("|---|---|---|---|---|---|")
    for name, spans in rows.items():
        clock, cpu = (statistics.median(part) for part in zip(*spans, strict=True))
        beyond = [f"{100 * (a / b - 1):+.1f} %" for a, b in zip((clock, cpu), first, strict=True)]
        lines.append(
            f"| {name} | {len(spans)} | {clock:.2f} | {beyond[0]} | {cpu:.2f} | {beyond[1]} |"
        )
    return "\n".join(lines)


# Memory.


def measure_memory(args: argparse.Namespace, folder: Path) -> str:
    """The table of peak memory; each case starts a new server."""
    home = folder / "home"
    adapters = write_models(home / "models")
    size, base = (args.width, args.height), "base.safetensors"
    cases = {
        "core's nodes, the base": single_image_prompt(base, NONE, PROMPTS[0], 1, size, 1),
        "core's nodes, one fine-tune": single_image_prompt(
            base, adapters[0], PROMPTS[0], 1, size, 1
        ),
        f"a Matrix of {1 + len(adapters)} x {len(PROMPTS)}": matrix(
            base, ["base", *adapters], 1, size, 1
        ),
    }
    lines = ["| | peak of the server's resident memory, GB | without pages of files, GB |"]
    lines.append("|---|---|---|")
    for name, prompt in cases.items():
        with running_server(home) as server:
            with peak_memory(psutil.Process(server.process.pid)) as peak:
                queue(server, prompt)
            lines.append(f"| {name} | {peak[0] / 1e9:.2f} | {peak[1] / 1e9:.2f} |")
            print(lines[-1], flush=True)
        (home / "custom_nodes" / "ComfyUI-Likeness").unlink()
    return "\n".join(lines)


def write_models(models: Path) -> list[str]:
    """Writes a base and three fine-tunes of SD 1.5's size, and four LoRAs; returns their names."""
    from likeness.demo.random_model import write_random_model

    tuned, loras = [f"tuned-{n}.safetensors" for n in range(3)], []
    for seed, name in enumerate(["base.safetensors", *tuned]):
        path = models / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_random_model(path, seed=seed, size="full", dtype="fp16")
    base = models / "checkpoints" / "base.safetensors"
    for number in range(4):
        loras.append(f"lora-{number}.safetensors")
        write_lora(models / "loras" / loras[-1], base, number)
    return [*tuned, *loras]


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it with --write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks matrix")
    parser.add_argument("what", choices=("time", "memory"))
    parser.add_argument("--width", type=int, help="default: 384 for time, 64 for memory")
    parser.add_argument("--height", type=int, help="default: 512 for time, 64 for memory")
    parser.add_argument("--steps", type=int, default=35, help="sampling steps, for time")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each side, for time")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.name}")
    args = parser.parse_args(arguments)
    args.section = f"matrix {args.what}"
    timed = args.what == "time"
    args.width = args.width or (384 if timed else 64)
    args.height = args.height or (512 if timed else 64)
    with tempfile.TemporaryDirectory() as folder:
        measure = measure_time if timed else measure_memory
        publish(args, f"{machine(cpu=True)}\n\n{measure(args, Path(folder))}")

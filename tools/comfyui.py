"""Starts, queries and stops a real ComfyUI on loopback, for tests and tools."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 180
PROMPT_SECONDS = 540


class NoComfyUI(RuntimeError):
    """ComfyUI is not installed or does not start."""


def find_comfyui() -> tuple[Path, str]:
    """(folder, python) of ComfyUI, from COMFYUI_PATH and COMFYUI_PYTHON or the usual locations.

    Raises NoComfyUI.
    """
    folder = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    if not (folder / "main.py").is_file():
        raise NoComfyUI(f"no ComfyUI in {folder}: set COMFYUI_PATH to its folder")
    places = [folder.parent / "venv", folder / ".venv", folder / "venv"]
    pythons = [p / tail for p in places for tail in ("bin/python", "Scripts/python.exe")]
    found = next((str(p) for p in pythons if p.is_file()), sys.executable)
    return folder, os.environ.get("COMFYUI_PYTHON") or found


def comfyui_has(package: str) -> bool:
    """Whether a package can be imported in ComfyUI's Python."""
    command = [find_comfyui()[1], "-c", f"import {package}"]
    return subprocess.run(command, capture_output=True).returncode == 0


@dataclass
class Outcome:
    """The server's messages about one prompt."""

    status: str  # success, error or interrupted
    error: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)  # node id -> UI output
    cached: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    previews: int = 0  # binary frames with an image
    log: str = ""


class Server:
    """A ComfyUI process with its folders below `home` and `pack` as a custom node pack.

    Raises NoComfyUI if it is not installed or does not start.
    """

    def __init__(self, home: Path, pack: Path = ROOT) -> None:
        self.folder, self.python = find_comfyui()
        self.home = home
        for name in ("custom_nodes", "input", "output", "user", "temp", "models/checkpoints"):
            (home / name).mkdir(parents=True, exist_ok=True)
        (home / "models" / "loras").mkdir(exist_ok=True)
        (home / "custom_nodes" / "ComfyUI-Likeness").symlink_to(pack, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.log_file = home / "server.log"
        self.start()

    def start(self) -> None:
        """Starts the process and waits until it answers."""
        command = [self.python, "main.py", "--cpu", "--listen", "127.0.0.1"]
        command += ["--port", str(self.port), "--base-directory", str(self.home)]
        command += ["--database-url", f"sqlite:///{self.home / 'user' / 'comfyui.db'}"]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--preview-method", "none"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count())}
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.3)
        self.stop()
        raise NoComfyUI(f"ComfyUI did not start:\n{self.log()[-4000:]}")

    def stop(self) -> None:
        """Stops the process."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self, start: int = 0) -> str:
        """The server's log, from byte `start` on."""
        return self.log_file.read_bytes()[start:].decode("utf-8", "replace")

    def get(self, path: str) -> Any:
        """The JSON response to a GET request."""
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        """The text response to a GET request."""
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return answer.read().decode("utf-8")

    def post(self, path: str, data: dict[str, Any]) -> tuple[int, Any]:
        """(status, JSON) of the response to a POST request."""
        request = urllib.request.Request(
            self.address + path,
            json.dumps(data).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                body = answer.read()
                return answer.status, json.loads(body) if body else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def refused(self, prompt: dict[str, Any]) -> str:
        """The server's error for a prompt that it must reject."""
        status, answer = self.post("/prompt", {"prompt": prompt})
        assert status == 400, f"the prompt was queued: {answer}"
        return json.dumps(answer, ensure_ascii=False)

    def run(self, prompt: dict[str, Any], on_message: Any = None) -> Outcome:
        """Queues a prompt and waits for its end.

        `on_message` is called with each websocket message: a dict, or the bytes of an image.
        """
        from websocket import create_connection

        client, start = uuid.uuid4().hex, self.log_file.stat().st_size
        address = f"ws://127.0.0.1:{self.port}/ws?clientId={client}"
        socket_ = create_connection(address, timeout=PROMPT_SECONDS)
        try:
            status, answer = self.post("/prompt", {"prompt": prompt, "client_id": client})
            # The server queues valid outputs and returns 200 even if others are invalid.
            refused = status != 200 or answer.get("node_errors")
            assert not refused, json.dumps(answer, indent=1)[:4000]
            outcome = self._follow(socket_, answer["prompt_id"], on_message)
        finally:
            socket_.close()
        outcome.log = self.log(start)
        return outcome

    def free_memory(self) -> None:
        """Frees models and cached results."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def _follow(self, socket_: Any, prompt_id: str, on_message: Any) -> Outcome:
        outcome = Outcome("")
        ends = {f"execution_{status}": status for status in ("success", "error", "interrupted")}
        while not outcome.status:
            message = socket_.recv()
            if isinstance(message, bytes):
                # 1: image, 4: image with metadata, 3: text
                outcome.previews += int.from_bytes(message[:4], "big") in (1, 4)
            else:
                message = json.loads(message)
                if message.get("data", {}).get("prompt_id", prompt_id) != prompt_id:
                    continue
                outcome.messages.append(message)
                if message["type"] == "execution_cached":
                    outcome.cached = message["data"]["nodes"]
                if message["type"] == "executed":
                    outcome.outputs[message["data"]["node"]] = message["data"]["output"] or {}
                outcome.status = ends.get(message["type"], "")
                outcome.error = message["data"] if outcome.status == "error" else {}
            if on_message is not None:
                on_message(message)
        return outcome


PACK_PARTS = ("trainers", "comparison", "nodes", "demo", "js", "workflows")


def copy_pack(folder: Path, *left_out: str) -> Path:
    """Copies the checkout as a pack to `folder`, without tests and the parts in `left_out`."""
    folder.mkdir(parents=True)
    for name in ("__init__.py", "__main__.py", "cli.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    ignored = shutil.ignore_patterns("__pycache__", "output")
    for part in sorted({*PACK_PARTS} - {*left_out}):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    return folder


def miniature_pack(home: Path, pack: Path) -> Path:
    """Copies the checkout with the miniature to `pack`, and creates model folders in `home`.

    Writes random weights if the repository has no trained ones. Needs the package `likeness`.
    """
    from likeness.demo import weights
    from likeness.demo.random_model import write_random_miniature

    copy_pack(pack)
    if not weights.available():
        write_random_miniature(pack / "demo" / "weights")
    for kind in ("checkpoints", "controlnet", "diffusers", "loras"):
        (home / "models" / kind).mkdir(parents=True, exist_ok=True)
    return pack

"""A real ComfyUI for the tests marked `comfy`, which are skipped if there is none."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest
from likeness.tools.comfyui import Server, copy_pack, miniature_pack

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = runpy.run_path(str(Path(__file__).with_name("graphs.py")))
LIGHT = runpy.run_path(str(Path(__file__).with_name("light.py")))
BASE = "sd15-random-fp16.safetensors"


def cache_folder() -> Path:
    """Where large test files are kept between runs."""
    return Path(os.environ.get("LIKENESS_TEST_CACHE") or Path.home() / ".cache" / "likeness-tests")


@pytest.fixture(scope="session")
def base_checkpoint(comfyui) -> Path:
    """A full-size SD 1.5 checkpoint with random weights (2.1 GB), created once."""
    path = cache_folder() / BASE
    if not path.is_file():
        from likeness.demo.random_model import write_random_model

        partial = path.with_name(f"partial-{os.getpid()}-{BASE}")
        write_random_model(partial, size="full", dtype="fp16").replace(path)
    return path


@pytest.fixture(scope="session")
def comfy(tmp_path_factory, base_checkpoint):
    """One server for the session, with the base checkpoint and a folder of photographs."""
    server = Server(tmp_path_factory.mktemp("comfy"))
    try:
        (server.home / "models" / "checkpoints" / BASE).symlink_to(base_checkpoint)
        put_photographs(server.home / "input" / "my_photos")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def start_comfy(comfyui):
    """Starts a separate server with another pack: `start_comfy(home, pack)`."""
    servers: list[Server] = []

    def start(home: Path, pack: Path) -> Server:
        servers.append(Server(home, pack))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def pack_copy():
    """The function `copy_pack`."""
    return copy_pack


@pytest.fixture(scope="session")
def miniature_server(tmp_path_factory, start_comfy):
    """Starts a server whose pack has the miniature, next to small test packs.

    `start({name: source})` returns it; its `models` is the folder of the miniature's files, whose
    weights are random if the repository has none.
    """

    def start(packs: dict[str, str]) -> Server:
        home = tmp_path_factory.mktemp("home")
        for name, source in packs.items():
            (home / "custom_nodes" / name).mkdir(parents=True)
            (home / "custom_nodes" / name / "__init__.py").write_text(source, encoding="utf-8")
        pack = miniature_pack(home, tmp_path_factory.mktemp("pack") / "ComfyUI-Likeness")
        server = start_comfy(home, pack)
        server.models = pack / "demo" / "weights"
        return server

    return start


@pytest.fixture(scope="session")
def light_server(tmp_path_factory, comfyui):
    """A ComfyUI without models, with the nodes of `light.py`; three files serve as adapters."""
    home = tmp_path_factory.mktemp("light")
    (home / "custom_nodes" / "light").mkdir(parents=True)
    (home / "custom_nodes" / "light" / "__init__.py").write_text(LIGHT["PACK"])
    (home / "models" / "loras").mkdir(parents=True)
    for name in ("one", "two", "three"):
        (home / "models" / "loras" / f"{name}.safetensors").write_bytes(name.encode())
    running = Server(home)
    yield running
    running.stop()


@pytest.fixture
def server(light_server):
    """The server of most comparison tests; some set it up further."""
    return light_server


@pytest.fixture
def drawn(light_server):
    """What the light nodes did since the last call, as lists of words, by kind."""
    log = light_server.home / "custom_nodes" / "light" / "log.txt"
    log.write_text("")

    def read(kind="draw"):
        lines = [line.split("|") for line in log.read_text().splitlines()]
        if kind != "all":
            lines = [line[1:] for line in lines if line[0] == kind]
        log.write_text("")
        return lines

    return read


def put_photographs(folder: Path) -> None:
    """Writes images of three sizes."""
    from PIL import Image

    folder.mkdir()
    for number, size in enumerate([(300, 400), (400, 300), (333, 555)]):
        Image.effect_noise(size, 40 + 10 * number).convert("RGB").save(folder / f"{number}.jpg")


@pytest.fixture(scope="session")
def workflow():
    """A bundled workflow as an API prompt, with some widget values overridden."""
    return load_workflow


def load_workflow(server: Server, name: str, **changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` are {node type: {widget: value}}."""
    graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    table = GRAPHS["table_of"](server.get("/object_info"))
    prompt = GRAPHS["to_prompt"](graph, table)
    for node in prompt.values():
        values = changes.get(node["class_type"], {})
        unknown = set(values) - set(node["inputs"])
        assert not unknown, f"{node['class_type']} has no {unknown}"
        node["inputs"].update(values)
    return prompt


@pytest.fixture(scope="session")
def graphs():
    """The functions of `graphs.py`."""
    return GRAPHS

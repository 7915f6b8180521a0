"""What holds for the project as a whole: its versions, requirements and directions of import."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from likeness.trainers.recipe import Part, Recipe

ROOT = Path(__file__).resolve().parents[2]

# What each room may import of the others; every room may import itself.
ROOMS = {
    "trainers": set(),
    "comparison": {"trainers"},
    "demo": {"trainers", "comparison"},
    "nodes": {"trainers", "comparison", "demo"},
}
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution"}
COMFYUI |= {"folder_paths", "latent_preview", "nodes", "server"}
TORCH = ("torch", "diffusers", "transformers", "peft", "accelerate")
LONGEST = 350


def room_files():
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path):
    """(level, dotted name) of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node.level, name) for name in names)


def architecture():
    return (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def light_files():
    """The files that the architecture page marks as light."""
    named = re.findall(r"^\| ((?:`[\w/.]+`(?:, )?)+) light \|", architecture(), re.MULTILINE)
    return [f"trainers/{name}" for row in named for name in re.findall(r"`([\w/.]+)`", row)]


def test_the_versions_agree():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    package = (ROOT / "__init__.py").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "([\d.]+)"', project, re.MULTILINE)
    assert re.findall(r'^__version__ = "([\d.]+)"', package, re.MULTILINE) == [version]
    assert re.findall(r"^## ([\d.]+)", changes, re.MULTILINE)[0] == version


def test_requirements_are_lower_bounds_and_never_torch():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    for line in wanted:
        assert re.fullmatch(r"[A-Za-z0-9_-]+>=[\d.]+", line), line
        assert not re.match(r"torch|xformers|triton|nvidia", line), line
    assert wanted == sorted(wanted)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert re.findall(r'"([^"]+)",', block) == wanted


def test_no_bitsandbytes_is_allowed_that_cannot_step_on_a_cpu():
    """0.45.0 and 0.45.1 fail at import beside triton without a driver; 0.50 steps on a CPU."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bounds = re.findall(r"bitsandbytes>=(\d+)\.(\d+)", project)
    assert len(bounds) == 2 and all((int(a), int(b)) >= (0, 50) for a, b in bounds)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room):
    allowed = ROOMS[room] | {room}
    for path in sorted((ROOT / room).rglob("*.py")):
        depth = len(path.relative_to(ROOT).parts)  # levels to the package's root
        for level, name in imports(path):
            head = name.split(".")[0]
            if level == depth and head != "__version__":
                assert head in allowed, f"{path} imports {name}"
            assert level <= depth, f"{path} imports from outside the package"
            assert level or head != "likeness", f"{path} imports {name}: imports are relative"


def test_only_the_host_file_imports_comfyui():
    may = {ROOT / "nodes" / "host.py": COMFYUI, ROOT / "nodes" / "miniature_model.py": {"comfy"}}
    for path in [*room_files(), *ROOT.glob("*.py")]:
        found = {name.split(".")[0] for level, name in imports(path) if level == 0} & COMFYUI
        assert found <= may.get(path, set()), f"{path}: {found}"


def test_the_terminal_imports_no_nodes():
    names = [name for level, name in imports(ROOT / "cli.py") if level == 1]
    assert names and not any(name.split(".")[0] == "nodes" for name in names)


def test_the_package_file_imports_only_the_standard_library_at_once():
    body = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8")).body
    names = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    assert not any(isinstance(node, ast.ImportFrom) for node in body)
    assert set(names) <= sys.stdlib_module_names


def test_the_architecture_page_lists_every_file_of_trainers():
    listed = set(re.findall(r"`(\w+\.py)`", architecture()))
    files = {path.name for path in (ROOT / "trainers").glob("*.py")} - {"__init__.py"}
    assert files <= listed


def test_light_files_leave_torch_unimported():
    light = light_files()
    assert len(light) > 10
    modules = [f"likeness.{file.removesuffix('.py').replace('/', '.')}" for file in light]
    code = f"""
import importlib, runpy, sys
runpy.run_path({str(ROOT / "__main__.py")!r}, run_name="door")["load_package"]()
for name in {modules!r}:
    importlib.import_module(name)
    heavy = [part for part in {TORCH!r} if part in sys.modules]
    assert not heavy, f"{{name}} imports {{heavy}}"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def test_files_stay_readable_in_one_sitting():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in room_files()
    }
    too_long = {name: n for name, n in lengths.items() if n > LONGEST}
    assert not too_long, f"split by subject: {too_long}"


def own_files():
    """Text files of the project: no build outputs, no hidden folders."""
    skipped = {"__pycache__", "node_modules", "output", "build", "dist"}
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [n for n in inner if n not in skipped and not n.startswith(".")]
        inner[:] = [n for n in inner if not n.endswith(".egg-info")]
        for name in names:
            if name == "Makefile" or name.endswith((".py", ".md", ".toml", ".txt", ".json", ".js")):
                yield Path(folder, name)


def test_no_file_names_a_place_on_one_machine():
    place = re.compile(r"(?<![\w.~*])/(?:home|root|Users|work)/\w|(?<!\w)[A-Z]:\\+Users\\+\w")
    for path in own_files():
        if path != Path(__file__):
            found = place.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path}: {found}"


def recipe_fields():
    """Dotted names of all fields of a recipe."""
    for name, field in Recipe.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        parts = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Part)]
        yield from [] if parts else [name]
        yield from (f"{name}.{inner}" for part in parts for inner in part.model_fields)


def test_the_options_page_lists_every_field_of_a_recipe():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([\w.]+)`", page))
    assert set(recipe_fields()) <= listed, set(recipe_fields()) - listed


def test_the_readme_lists_every_node():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| ([\w ]+) \|", readme, re.MULTILINE))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "nodes").glob("*.py")]
    shown = {
        name for text in sources for name in re.findall(r'display_name="(.+?) \(Likeness\)"', text)
    }
    assert shown and shown <= listed, shown - listed

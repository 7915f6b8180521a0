"""ComfyUI-Manager lists a pack's nodes by reading its files: it must find ours, and no others.

Its scanner (scanner.py of Comfy-Org/ComfyUI-Manager) takes two forms from every Python file of a
clone, tests included: literal ids in the schemas of direct subclasses of ``ComfyNode``, and the
keys of braces that are assigned to the mapping of node classes, also in the middle of a string.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("trainers", "comparison", "nodes", "demo", "tools", "benchmarks", "tests")
MAPPING = "NODE_CLASS_MAPPINGS ="  # apart from the braces below, or they would be found here
BRACES = re.compile(r"_CLASS_MAPPINGS\s*(?::\s*\w+\s*)?=\s*{([^}]*)}")
KEY = re.compile(r'"([^"]*)"\s*:')


def ids_of(source: str) -> set[str]:
    """The node ids that the scanner reads in a file."""
    keys = {key for block in BRACES.findall(source) for key in KEY.findall(block)}
    if "ComfyNode" not in source:
        return keys
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    schemas = [call for node in classes if is_node(node) for call in schemas_of(node)]
    named = [word.value for call in schemas for word in call.keywords if word.arg == "node_id"]
    return keys | {value.value for value in named if isinstance(value, ast.Constant)}


def is_node(node: ast.ClassDef) -> bool:
    return any(getattr(base, "attr", getattr(base, "id", "")) == "ComfyNode" for base in node.bases)


def schemas_of(node: ast.ClassDef) -> list[ast.Call]:
    bodies = [part for part in node.body if getattr(part, "name", "") == "define_schema"]
    calls = [part for body in bodies for part in ast.walk(body) if isinstance(part, ast.Call)]
    return [call for call in calls if getattr(call.func, "attr", "") == "Schema"]


def test_the_scanner_finds_our_nodes_and_no_others():
    golden = ROOT / "tests" / "golden" / "our_nodes.json"
    ours = set(json.loads(golden.read_text(encoding="utf-8")))
    files = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    assert set().union(*(ids_of(path.read_text(encoding="utf-8")) for path in files)) == ours


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (MAPPING + ' {"One": One, "Two": Two}', {"One", "Two"}),
        (f'PACK = """\n{MAPPING} {{"Inner": Inner}}\n"""', {"Inner"}),
        (MAPPING + " dict(One=One)", set()),
        ('class A(io.ComfyNode):\n def define_schema(c):\n  return io.Schema(node_id="A")', {"A"}),
        ("class A(io.ComfyNode):\n def define_schema(c):\n  return io.Schema(node_id=A)", set()),
        ('class A(Base):\n def define_schema(c):\n  return io.Schema(node_id="A")', set()),
    ],
)
def test_what_the_scanner_understands(source, found):
    assert ids_of(source) == found

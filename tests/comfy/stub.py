"""As much of ComfyUI as importing and reading our nodes needs, for tests without ComfyUI.

Run by path (`runpy`), because tests are no package. `install()` returns the package
`likeness.nodes`; `table(nodes)` its schemas in the form of `tests/golden/*_nodes.json`;
`refused(check, …)` why a check refuses.
"""

from __future__ import annotations

import sys
import types
from importlib import import_module
from typing import Any

WIDGETS = {"Int": "INT", "Float": "FLOAT", "String": "STRING", "Boolean": "BOOLEAN"}
SOCKETS = {"Model": "MODEL", "Clip": "CLIP", "Image": "IMAGE", "Mask": "MASK", "AnyType": "*"}
KEPT = ("default", "min", "max", "step", "control_after_generate")


class Part:
    """An input or output as it was declared."""

    def __init__(self, kind: str, id: str, **options: Any) -> None:
        self.kind, self.id, self.options = kind, id, options
        self.optional, self.default = options.get("optional", False), options.get("default")


def _type(kind: str) -> Any:
    def make(id: str, **options: Any) -> Part:
        # What 0.8.0, the oldest supported, does not take.
        assert "advanced" not in options, "pass advanced through extra_dict"
        return Part(kind, id, **options)

    return types.SimpleNamespace(Input=make, Output=make)


class Record:
    """Holds what it is given: Schema, NodeOutput."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        self.args = args
        self.__dict__.update(fields)


def _io() -> types.SimpleNamespace:
    kinds = {**WIDGETS, **SOCKETS, "Combo": "COMBO"}
    return types.SimpleNamespace(
        **{name: _type(kind) for name, kind in kinds.items()},
        Custom=_type,
        ComfyNode=type("ComfyNode", (), {"hidden": types.SimpleNamespace(unique_id=None)}),
        Hidden=types.SimpleNamespace(
            unique_id="UNIQUE_ID", dynprompt="DYNPROMPT", prompt="PROMPT", extra_pnginfo="PNGINFO"
        ),
        Schema=type("Schema", (Record,), {}),
        NodeOutput=type("NodeOutput", (Record,), {}),
        Input=Part,
        Output=Part,
    )


def install(folders: dict[str, Any] | None = None) -> Any:
    """Imports `likeness.nodes` over stand-ins for ComfyUI's modules.

    `folders` are attributes of `folder_paths`; by default there are no files.
    """
    if "folder_paths" not in sys.modules:
        names = ["comfy", "comfy.lora", "comfy.model_base", "comfy.model_management"]
        names += ["comfy.model_sampling", "comfy.utils", "comfy.cli_args"]
        names += ["comfy_execution", "comfy_execution.graph_utils", "comfy_execution.progress"]
        names += ["comfy_execution.graph", "comfy_execution.utils"]
        names += ["folder_paths", "server", "nodes"]
        for name in [*names, "comfy_api", "comfy_api.v0_0_2"]:
            sys.modules[name] = types.ModuleType(name)
            parent, _, leaf = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], leaf, sys.modules[name])
        sys.modules["comfy"].__path__ = []
        sys.modules["comfy_api.v0_0_2"].io = _io()
        sys.modules["comfy_api.v0_0_2"].ComfyExtension = type("ComfyExtension", (), {})
        sys.modules["comfy.model_management"].cpu_mode = lambda: False
        sys.modules["comfy.cli_args"].args = types.SimpleNamespace(
            disable_metadata=False, cache_none=False
        )
        sys.modules["comfy_execution.graph_utils"].ExecutionBlocker = Record
        sys.modules["comfy_execution.graph_utils"].GraphBuilder = Record
        sys.modules["comfy_execution.graph"].get_input_info = Record
        sys.modules["comfy_execution.progress"].get_progress_state = Record
        sys.modules["comfy_execution.progress"].NodeState = Record
        sys.modules["comfy_execution.utils"].get_executing_context = lambda: None
        instance = types.SimpleNamespace(
            client_id=None,
            send_sync=lambda *_: None,
            add_on_prompt_handler=lambda handler: None,
        )
        sys.modules["server"].PromptServer = type("PromptServer", (), {"instance": instance})
    nowhere = {
        "get_input_directory": lambda: "nowhere",
        "get_output_directory": lambda: "nowhere",
        "get_filename_list": lambda kind: [],
        "get_folder_paths": lambda kind: [],
        "get_full_path": lambda kind, name: None,
    }
    sys.modules["folder_paths"].__dict__.update({**nowhere, **(folders or {})})
    return import_module("likeness.nodes")


def refused(check: Any, *given: Any, **named: Any) -> str:
    """The reason for which a node's check refuses: the text of its LikenessError."""
    error = import_module("likeness.trainers.errors").LikenessError
    try:
        check(*given, **named)
    except error as reason:
        return str(reason)
    raise AssertionError("nothing was refused")


def table(nodes: list[Any]) -> dict[str, Any]:
    """Schemas by node id; lists of files are left out of the options."""
    return {schema.node_id: _row(schema) for schema in (n.define_schema() for n in nodes)}


def _row(schema: Any) -> dict[str, Any]:
    inputs = []
    for optional in (False, True):
        for part in schema.inputs:
            if part.optional is optional:
                inputs.append(_input(part, optional))
    outputs = [
        {
            "name": part.options.get("display_name", part.id),
            "type": part.kind,
            "list": part.options.get("is_output_list", False),
        }
        for part in schema.outputs
    ]
    return {"inputs": inputs, "outputs": outputs}


def _input(part: Part, optional: bool) -> dict[str, Any]:
    kept = {key: part.options[key] for key in KEPT if part.options.get(key) is not None}
    return {"name": part.id, "type": part.kind, "optional": optional, **kept}

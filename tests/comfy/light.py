"""The smallest graph of a comparison, on light nodes that write down what they do.

Run by path (`runpy`), because tests are no package.
"""

from __future__ import annotations

import time

# Stand for loading, encoding and sampling.
PACK = """
import folder_paths, hashlib, json, pathlib, time, torch

LOG = pathlib.Path(__file__).with_name("log.txt")

def note(*words):
    with LOG.open("a") as file:
        print(*words, sep="|", file=file)

class Load:
    INPUT_TYPES = lambda: {"required": {"adapter": ("COMBO", {"options": []})}}
    RETURN_TYPES, FUNCTION, CATEGORY = ("LOADED",), "run", "tests"
    VALIDATE_INPUTS = lambda adapter=None: True
    def IS_CHANGED(adapter):
        path = adapter and folder_paths.get_full_path("loras", adapter)
        return pathlib.Path(path).read_bytes() if path else b""
    def run(self, adapter):
        note("load", adapter)
        return (adapter,)

class Encode:
    INPUT_TYPES = lambda: {"required": {"loaded": ("LOADED",), "text": ("STRING", {})}}
    RETURN_TYPES, FUNCTION, CATEGORY = ("ENCODED",), "run", "tests"
    def run(self, loaded, text):
        note("encode", loaded, text)
        return (f"{loaded} {text}",)

class Draw:
    INPUT_TYPES = lambda: {"required": {
        "positive": ("ENCODED",), "negative": ("ENCODED",), "pose": ("IMAGE",),
        "seed": ("INT", {}), "strength": ("FLOAT", {}), "width": ("INT", {}), "height": ("INT", {}),
        "seconds": ("FLOAT", {"default": 0.0}),
    }}
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "tests"
    def run(self, positive, negative, pose, seed, strength, width, height, seconds):
        time.sleep(seconds)
        assert pose.shape == (1, height, width, 3)
        note("draw", positive, negative, seed, strength, round(float(pose.mean()), 4))
        colour = hashlib.sha256(f"{positive} {seed}".encode()).digest()[:3]
        return (torch.tensor([*colour]).float().expand(1, height, width, 3) / 255,)

class Alpha:
    INPUT_TYPES = lambda: {"required": {"image": ("IMAGE",)}}
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "tests"
    def run(self, image):
        return (torch.cat([image, torch.full_like(image[..., :1], 0.5)], -1),)

class Keypoints:
    INPUT_TYPES = lambda: {"required": {"text": ("STRING", {})}}
    RETURN_TYPES, FUNCTION, CATEGORY = ("POSE_KEYPOINT",), "run", "tests"
    def run(self, text):
        return (json.loads(text),)

NODE_CLASS_MAPPINGS = dict(
    TestLoad=Load, TestEncode=Encode, TestDraw=Draw, TestAlpha=Alpha, TestKeypoints=Keypoints
)
"""

PROMPTS = ("beach = on the beach", "rain = in the rain", "chess = playing chess")
ADAPTERS = ("base", "one.safetensors", "r2 = two.safetensors")


def graph(name, prompts=PROMPTS, adapters=ADAPTERS, seconds=0.0, redraw="", **matrix):
    """The smallest graph of a comparison. Names are the tests' own: each has its own text."""
    text = "\n".join(f"{line}, {name}" for line in prompts)
    widgets = {
        "seed": 5,
        "draws": 1,
        "with_pose": "without",
        "pose_rows": "",
        "control_strength": 1.0,
        "width": 64,
        "height": 96,
    }
    negative = {"token": "", "class_word": "dog", "negative": "blurry", "text": text}
    return {
        "1": node("Likeness_PromptSet", prompts="own text", **negative),
        "2": node(
            "Likeness_Matrix",
            prompts=["1", 0],
            adapters="\n".join(adapters),
            **{**widgets, **matrix},
        ),
        "3": node("TestLoad", adapter=["2", 0]),
        "4": node("TestEncode", loaded=["3", 0], text=["2", 1]),
        "5": node("TestEncode", loaded=["3", 0], text=["2", 2]),
        "6": node(
            "TestDraw",
            positive=["4", 0],
            negative=["5", 0],
            seed=["2", 3],
            pose=["2", 4],
            strength=["2", 5],
            width=["2", 7],
            height=["2", 8],
            seconds=seconds,
        ),
        "7": node(
            "Likeness_ContactSheet",
            image=["6", 0],
            matrix=["2", 9],
            name=name,
            single_images="png",
            redraw=redraw,
        ),
    }


def renamed(prompt, prefix):
    """The same nodes under other ids, as a copied group has them."""

    def link(value):
        return [prefix + value[0], value[1]] if isinstance(value, list) else value

    return {
        prefix + key: node(one["class_type"], **{k: link(v) for k, v in one["inputs"].items()})
        for key, one in prompt.items()
    }


def cancel_at(server, line):
    """Cancels when the Contact Sheet says `line`: what `server.run` calls with each message."""

    def listen(message):
        if isinstance(message, bytes) and line.encode() in message:
            server.post("/interrupt", {})

    return listen


def cells(server):
    """The files of finished cells."""
    return set((server.home / "output" / "likeness" / "cells").glob("*.png"))


def settled_cells(server, at_least):
    """The cells once no more come: a thread writes them, also after the queue has ended."""
    deadline, found = time.monotonic() + 30, cells(server)
    while time.monotonic() < deadline:
        time.sleep(1)
        found, before = cells(server), found
        if found == before and len(found) >= at_least:
            break
    return found


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}

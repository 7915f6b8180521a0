"""Locates the miniature's weight files and verifies them.

`weights/digests.json` has the SHA-256 of each file; files with another digest are not loaded.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from ..trainers.errors import BaseModelError
from ..trainers.files import write_atomic

FOLDER = Path(__file__).resolve().parent / "weights"

# ComfyUI sorts its lists by name, and a new loader selects the first entry: zz- puts these files
# after the user's own.
CHECKPOINT = "checkpoints/zz-miniature.safetensors"
CONTROLNET = "controlnet/zz-miniature-openpose.safetensors"
LISTED = {"checkpoints": CHECKPOINT, "controlnet": CONTROLNET}  # by ComfyUI's folder name
JUDGE = "judge.safetensors"
SECOND_JUDGE = "second-judge.safetensors"
FILES = (CHECKPOINT, CONTROLNET, JUDGE, SECOND_JUDGE)
TOKENIZER = "checkpoints/zz-miniature_tokenizer"  # found by its name beside the checkpoint
DIGESTS = "digests.json"


def find(name: str, folder: Path = FOLDER) -> Path:
    """The path of one of FILES, checked against its digest.

    Raises:
        BaseModelError: the file is missing or damaged; the message has the expected digest.
    """
    expected = _digests(folder).get(name)
    if expected is None:
        raise BaseModelError(f"{folder / DIGESTS} does not list {name}.")
    path = folder / name
    if not path.is_file():
        raise BaseModelError(_with_remedy(f"{path} is missing", expected))
    found = digest(path)
    if found != expected:
        raise BaseModelError(_with_remedy(f"{path} is damaged (SHA-256 {found})", expected))
    return path


def available(folder: Path = FOLDER) -> bool:
    """Whether any weights are installed."""
    return (folder / DIGESTS).is_file()


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    return sha256(path.read_bytes()).hexdigest()


def write_digests(folder: Path) -> Path:
    """Writes digests.json for those of FILES that are in `folder`; returns its path."""
    found = {name: digest(folder / name) for name in FILES if (folder / name).is_file()}
    write_atomic(folder / DIGESTS, json.dumps(found, indent=2) + "\n")
    return folder / DIGESTS


def _with_remedy(what: str, expected: str) -> str:
    return (
        f"{what}; expected SHA-256 {expected}. Restore it with git checkout -- demo/weights, or "
        "reinstall the pack."
    )


def _digests(folder: Path) -> dict[str, str]:
    path = folder / DIGESTS
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseModelError(
            f"The miniature's weights are not installed: {path} does not exist. Train them with "
            "`likeness demo pretrain`, or reinstall the pack."
        ) from None
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from None
    return {str(name): str(value) for name, value in dict(known).items()}

"""Exports a run as one zip to share: adapter, recipe, and the comparison that shows it.

It contains no local paths. Photographs are included only on request; prompts can be removed.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from PIL import Image

from ..trainers.adapter import RECIPE_KEY, SCORES_KEY, STRIPPED_KEY, read_metadata
from ..trainers.digests import content_digest
from ..trainers.errors import AdapterError, SubjectError
from ..trainers.files import atomic_file
from ..trainers.image_io import open_image
from ..trainers.masks import MASK_SUFFIX
from ..trainers.metadata_filter import strip_prompts
from ..trainers.recipe import Recipe
from ..trainers.recipe_parts import slugify
from ..trainers.run_folder import RunFolder
from ..trainers.safetensors_file import header_with_metadata, read_header
from ..trainers.subject import read_subject
from .errors import ComparisonError
from .row_means import adapter_means, newest_comparison
from .sheet import sheet_png
from .study import PLAN_FILE, REPORT_FILE, RERUN_PLAN_FILE, SCORES_FILE, newest_sheet
from .user_files import read_json

_ZIP_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # fixed, for reproducible bytes
_HOMES = r"(?:/home/|/Users/|[A-Za-z]:[\\/]+Users[\\/]+)"
# A text that consists of one absolute path, and not of a home folder.
_PATH = re.compile(
    rf"(?!(?:file:///?)?{_HOMES}[^\\/]*$)"
    r"(?:file://)?(?:~?/[^/\s]+/|[A-Za-z]:[\\/]|\\\\)"
    r"(?:(?!\s(?:~?/|\\\\|[A-Za-z]:[\\/]))[^\n\"'<>|])*"
)
# Absolute paths inside other text, such as a note, but nothing of a URL or of a prompt's
# "(smile:1.2)/(wink:1.1)": the folders of those below usual roots, of drives and network shares, of
# any with a file's extension; and a home folder itself.
_ROOTS = (
    *("app", "content", "data", "etc", "kaggle", "media", "mnt", "notebooks", "opt", "private"),
    *("root", "run/(?:media|user)", "scratch", "srv", "storage", "tmp", "usr", "var", "Volumes"),
    *("work", "workspace"),
)
_BEFORE = r"(?<![\w./\\~-])(?:file://(?:/(?=[A-Za-z]:))?)?"
_PART = r"[^\s:/\"'<>|,;(){}]+"
_SPACED_PART = r"[^:\\/\"'<>|\n,;]+"
_PATH_PREFIX = re.compile(
    rf"{_BEFORE}(?:"
    rf"/(?:home|Users)/{_SPACED_PART}/+(?:{_PART}/+)*"
    rf"|~/+(?:{_PART}/+)*"
    rf"|/(?:{'|'.join(_ROOTS)})/+(?:{_PART}/+)*"
    rf"|/(?:{_PART}/+)+(?={_PART}\.[A-Za-z]\w{{1,11}}(?!\w))"
    rf"|[A-Za-z]:[\\/]+(?:{_SPACED_PART}[\\/]+)*"
    rf"|\\\\+[\w.$-]+[\\/]+(?:{_SPACED_PART}[\\/]+)*)"
)
_HOME = re.compile(
    rf"{_BEFORE}{_HOMES}[\w-]+(?:\.[\w-]+)*"
    r"(?![\w\\/])(?![^:\\/\"'<>|\n,;.]*[\\/])"  # nor a space and more of the name
    rf"|{_BEFORE}{_HOMES}[\w-]+(?:\.[\w-]+)*[\\/]+(?![^\s\"'<>|,;.)])"
)
_WHOLE_HOME = re.compile(rf"(?:file:///?)?{_HOMES}[^\\/\s,;]+(?: [^\\/\s,;]+){{0,2}}[\\/]*")


@dataclass(frozen=True)
class ExportSource:
    """What goes into the zip.

    `run` is the run folder, if available, and `comparison` the folder of a comparison that shows
    the adapter, if there is one.
    """

    adapter: Path
    run: RunFolder | None
    comparison: Path | None


def find_export_source(run: Path, comparison: Path | None = None) -> ExportSource:
    """Resolves RUN, a run folder or an adapter file, and finds the newest comparison with it.

    Unless `comparison` is given, the output folder that holds the adapter is searched. Raises
    LikenessError.
    """
    folder: RunFolder | None
    if run.is_dir():
        result = RunFolder(run).result()
        if result is None:
            raise ComparisonError(f"{run} is not the folder of a finished run.")
        adapter, folder = result.adapter, RunFolder(run)
    else:
        adapter, folder = run, _run_of(run)
    if comparison is not None and not (comparison / PLAN_FILE).is_file():
        raise ComparisonError(f"{comparison} is not a comparison: it has no plan.json.")
    if comparison is None:
        comparison = newest_comparison(
            _likeness_folder(adapter) / "comparisons", content_digest(adapter)
        )
    return ExportSource(adapter, folder, comparison)


def _run_of(adapter: Path) -> RunFolder | None:
    if not adapter.is_file():
        raise AdapterError(f"There is no run folder or adapter at {adapter}.")
    recipe = read_metadata(adapter).recipe
    if recipe is None:
        return None
    run = RunFolder(_likeness_folder(adapter) / "runs" / recipe.run_name())
    return run if run.recipe_file.is_file() else None


def _likeness_folder(adapter: Path) -> Path:
    """The folder with runs and comparisons for an adapter in ``<output>/loras`` or a sibling."""
    return adapter.resolve().parent.parent / "likeness"


def export(
    target: Path,
    source: ExportSource,
    *,
    workflow: Path | None = None,
    photographs: bool = False,
    prompts: bool = True,
) -> list[str]:
    """Writes the zip atomically; returns the names of its files.

    Args:
        workflow: a saved ComfyUI graph; None: the one in the comparison's sheet.
        photographs: also include the training photographs, byte for byte.
        prompts: if false, omit everything the user wrote: prompts, captions, and the comparison,
            which shows them.

    Raises LikenessError that names the file that cannot be read or written; ComparisonError if
    `target` exists.
    """
    if target.exists():
        raise ComparisonError(f"{target} already exists: move it, or give another file with --to.")
    try:
        with atomic_file(target) as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            return _write_archive(_ZipWriter(archive), source, workflow, photographs, prompts)
    except OSError as error:
        raise ComparisonError(f"{target} cannot be written: {error.strerror}.") from error


def _write_archive(
    archive: _ZipWriter,
    source: ExportSource,
    workflow: Path | None,
    photographs: bool,
    prompts: bool,
) -> list[str]:
    _add_adapter(archive, source.adapter, prompts, _scores_of(source))
    if prompts:
        for name, data in _comparison(source.comparison, workflow):
            archive.add(name, data)
    if photographs:
        for name, data in _photographs(source.run, captions=prompts):
            archive.add(name, data)
    contents = {"version": 1, "prompts": prompts, "sha256": dict(archive.digests)}
    archive.add("contents.json", json.dumps(contents, indent=1).encode())
    return [*archive.digests]


class _ZipWriter:
    """Writes files to a zip and records their digests."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._zip, self.digests = archive, dict[str, str]()

    def add(self, name: str, data: bytes) -> None:
        """Adds a small file, compressed unless its format already is."""
        self.add_stream(name, [BytesIO(data)], name.endswith((".png", ".jpg", ".jpeg", ".webp")))

    def add_stream(self, name: str, parts: Sequence[IO[bytes]], stored: bool = True) -> None:
        """Adds a file of any size, concatenated from parts."""
        entry = zipfile.ZipInfo(name, _ZIP_TIMESTAMP)
        entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        digest = hashlib.sha256()
        with self._zip.open(entry, "w", force_zip64=True) as file:
            for part in parts:
                while block := part.read(1 << 20):
                    digest.update(block)
                    file.write(block)
        self.digests[name] = digest.hexdigest()


# The adapter.


def _add_adapter(
    archive: _ZipWriter, path: Path, prompts: bool, scores: Mapping[str, float]
) -> None:
    try:
        old, file = read_header(path).metadata, open(path, "rb")  # noqa: SIM115  closed below
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise AdapterError(f"{path} {error}. Choose a complete .safetensors file.") from None
    new = old if prompts else strip_prompts(old)
    own = (RECIPE_KEY, STRIPPED_KEY)  # hold no paths; changing them would break their digests
    new = {key: text if key in own else _strip_paths_in_text(text) for key, text in new.items()}
    if scores:
        new[SCORES_KEY] = json.dumps(scores)
    with file:
        begin = b"" if new == old else header_with_metadata(file, new)
        archive.add_stream(f"{_name(path)}.safetensors", [BytesIO(begin), file])
    recipe = _parse_json(new.get(RECIPE_KEY) or new.get(STRIPPED_KEY) or "")
    if isinstance(recipe, dict):  # else missing or damaged
        text = json.dumps(recipe, indent=2, sort_keys=True, ensure_ascii=False)
        archive.add("recipe.json", text.encode())


def _strip_paths_in_text(text: str) -> str:
    parsed = _parse_json(text)
    if isinstance(parsed, dict | list):  # some trainers store JSON as text
        return json.dumps(strip_paths_in_json(parsed), ensure_ascii=False)
    return strip_paths(text)


def _scores_of(source: ExportSource) -> dict[str, float]:
    return (
        adapter_means(source.comparison, content_digest(source.adapter))
        if source.comparison
        else {}
    )


def _name(path: Path) -> str:
    """A file's stem, made safe for every file system."""
    return slugify(path.stem, 120) or "adapter"


# The comparison.


def _comparison(folder: Path | None, workflow: Path | None) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of plan, sheet, report, scores and workflow, as far as they exist."""
    saved = None if workflow is None else read_json(workflow)
    if folder is not None:
        for name in (PLAN_FILE, RERUN_PLAN_FILE, SCORES_FILE, REPORT_FILE):
            if (folder / name).is_file():
                yield name, _read_bytes(folder / name)
        if (sheet := newest_sheet(folder)) is not None:
            data, text = _sheet(sheet)
            yield "sheet.png", data
            saved = saved if saved is not None else text.get("workflow")
    if saved is not None:
        clean = strip_paths_in_json(saved)
        yield "workflow.json", json.dumps(clean, indent=1, ensure_ascii=False).encode()


def _sheet(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A sheet's PNG with paths stripped from its text chunks, and those chunks."""
    try:
        open_image(path)  # handles everything that PIL raises
        with Image.open(path) as image:
            texts = dict(getattr(image, "text", {}))
            chunks = {key: strip_paths_in_json(_parse_json(text)) for key, text in texts.items()}
            return sheet_png(image.convert("RGB"), chunks), chunks
    except (SubjectError, RecursionError) as error:
        raise ComparisonError(f"{path} cannot be read: {error}.") from None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ComparisonError(f"{path} cannot be read: {error.strerror}.") from None


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def strip_paths(text: str) -> str:
    """The text with its absolute paths reduced to their last component, a home folder to ``~``.

    A text that consists of a path always is; inside other text, those that `_PATH_PREFIX` knows.
    Folder names with spaces are recognised there on drives and network shares, and a user's if more
    of the path follows.
    """
    if _WHOLE_HOME.fullmatch(text):
        return "~"
    if _PATH.fullmatch(text):
        return re.split(r"[\\/]+", text.rstrip("\\/"))[-1]
    return _PATH_PREFIX.sub("", _HOME.sub("~", text))


def strip_paths_in_json(value: Any) -> Any:
    """Parsed JSON with `strip_paths` applied to every string and key."""
    if isinstance(value, str):
        return strip_paths(value)
    if isinstance(value, list):
        return [strip_paths_in_json(one) for one in value]
    if isinstance(value, dict):
        return {strip_paths(key): strip_paths_in_json(one) for key, one in value.items()}
    return value


# The photographs.


def _photographs(run: RunFolder | None, *, captions: bool) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the photographs of a run, numbered, and of their captions."""
    if run is None:
        raise ComparisonError(
            "The adapter's run folder was not found, so its photographs are unknown. "
            "Give the run folder instead of the adapter."
        )
    recipe: Recipe = run.recipe()
    found = read_subject(run.places().photos, recipe.subject)
    if recipe.subject.digest not in (None, found.digest):
        raise ComparisonError(
            f"The photographs in {run.places().photos} are not those of the training: the folder "
            "has changed since. Restore it, or export without photographs."
        )
    for number, photo in enumerate(found.photos, 1):
        name = f"photographs/{number:02d}"
        yield f"{name}{photo.path.suffix.lower()}", _read_bytes(photo.path)
        if photo.mask not in (None, photo.path):
            yield f"{name}{MASK_SUFFIX}", _read_bytes(photo.mask)
        if captions and photo.caption is not None:
            yield f"{name}.txt", photo.caption.encode()

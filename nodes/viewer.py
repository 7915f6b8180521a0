"""The data of the comparison viewer in the browser: `viewer.json` and thumbnails of the cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..comparison.matrix import Plan
from ..trainers.files import write_atomic
from .encode import encode_webp
from .host import send_event
from .node_state import workflow_id
from .throttle import Throttle

VERSION = 1
THUMBNAIL_SIDE = 384
VIEW_FILE = "viewer.json"
EVENT = "likeness.cells"


def thumbnail_path(path: Path) -> Path:
    """Where the thumbnail of ``likeness/cells/<digest>.png`` is cached."""
    return path.parents[1] / "cache" / "thumbnails" / f"{path.stem}.webp"


def write_thumbnail(path: Path, image: Image.Image) -> None:
    """Writes a cell's thumbnail."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    write_atomic(thumbnail_path(path), encode_webp(small), durable=False)


def write_view(
    folder: Path, plan: Plan, images: Sequence[Path], sheet: str | None, remark: str = ""
) -> None:
    """Writes a comparison's `viewer.json` and any missing thumbnails.

    Args:
        images: the PNG path of each of the plan's cells, existing or not.
        sheet: the sheet's file name in `folder`, None until it is complete.
        remark: a sentence for the panel.
    """
    for path in set(images):
        if path.is_file() and not thumbnail_path(path).is_file():
            with Image.open(path) as image:
                write_thumbnail(path, image)
    view = viewer_data(plan, images, sheet) | {"remark": remark}
    write_atomic(folder / VIEW_FILE, json.dumps(view), durable=False)


def viewer_data(plan: Plan, images: Sequence[Path], sheet: str | None) -> dict[str, Any]:
    """The content of `viewer.json`; docs/file-formats.md describes it."""
    rows, columns, cells = plan.rows(), plan.columns(), plan.cells()
    first = cells[: len(columns)]
    return {
        "version": VERSION,
        "rows": rows,
        "columns": [
            {"key": cell.key, "prompt": cell.prompt, "negative": cell.negative, "seed": cell.seed}
            for cell in first
        ],
        "width": plan.image.width,
        "height": plan.image.height,
        "images": [image.stem for image in images],
        "drawn": [mtime_ms(image) for image in images],
        "poses": [cell.pose for cell in cells],
        "sheet": sheet,
    }


def mtime_ms(path: Path) -> int:
    """When a cell was written, in milliseconds since 1970; 0 if it is missing."""
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except OSError:
        return 0


class CellNotifier:
    """Notifies viewers of the finished cells of a running comparison.

    Args:
        hidden: the Contact Sheet's hidden inputs, with `unique_id` and `extra_pnginfo`.
        folder: the comparison's folder.
        plan, images, remark: as `write_view` takes them.
    """

    def __init__(
        self,
        hidden: Any,
        folder: Path,
        plan: Plan,
        images: Sequence[Path],
        remark: str = "",
    ) -> None:
        self._to = {"node": str(hidden.unique_id), "workflow": workflow_id(hidden)}
        self._folder = folder
        self._plan, self._images, self._remark = plan, images, remark
        self._throttle = Throttle(self._send)

    def drawn(self, index: int) -> None:
        """Reports that a cell's file has been written."""
        self._throttle.add({str(index): mtime_ms(self._images[index])})

    def set_status(self, line: str) -> None:
        """Shows a line in the panel; core's own messages do not name the workflow."""
        self._throttle.add({"line": line})

    def flush(self) -> None:
        """Sends pending notifications."""
        self._throttle.flush()

    def finished(self) -> None:
        """Reports that the comparison and its sheet are complete."""
        self._send_update({}, True)

    def _send(self, news: dict[str, Any]) -> None:
        drawn = {index: at for index, at in news.items() if index != "line"}
        # The file is for viewers that open later.
        write_view(self._folder, self._plan, self._images, None, self._remark)
        self._send_update(drawn, False, news.get("line", ""))

    def _send_update(self, drawn: dict[str, Any], finished: bool, line: str = "") -> None:
        message = {"name": self._folder.name, "drawn": drawn, "finished": finished, "line": line}
        send_event(EVENT, self._to | message)

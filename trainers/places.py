"""Paths of a run's inputs and outputs on one machine."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from .recipe import Part


class Places(Part):
    """Paths of a run's inputs and outputs on this machine; never part of a shared file.

    `base` is a checkpoint file or a diffusers folder, `photos` a folder, `class_images` the
    user's own set or None, `tokenizers` the folders to try for the CLIP tokenizer, in order, and
    `start` the LoRA file that training starts from, or None; `runs`, `loras`, `checkpoints` and
    `cache` are written to.
    """

    base: Path
    photos: Path
    class_images: Path | None = None
    tokenizers: tuple[Path, ...] = ()
    runs: Path
    loras: Path
    checkpoints: Path
    cache: Path
    start: Path | None = None

    @classmethod
    def for_output(
        cls, output: Path, *, base: Path, photos: Path, class_images: Path | None = None,
        tokenizers: tuple[Path, ...] = (), start: Path | None = None,
    ) -> Places:  # fmt: skip
        """Places with all outputs below one folder: ComfyUI's output folder, or the terminal's."""
        return cls(
            base=base,
            photos=photos,
            class_images=class_images,
            tokenizers=tokenizers,
            runs=runs_folder(output),
            loras=output / "loras",
            checkpoints=output / "checkpoints",
            cache=cache_folder(output),
            start=start,
        )

    def absolute(self) -> Places:
        """The same places, with absolute paths."""
        paths = {
            name: tuple(p.absolute() for p in value)
            if isinstance(value, tuple)
            else value.absolute()
            for name, value in self
            if isinstance(value, (Path, tuple))
        }
        return self.model_copy(update=paths)


def runs_folder(output: Path) -> Path:
    """The folder that holds all run folders."""
    return output / "likeness" / "runs"


def resolve_adapter(adapter: str, run: Path) -> Path:
    """The path of a run's adapter file; if missing, its path in the output folder of `run`, which
    may have been moved to another drive, mount or system.
    """
    if Path(adapter).is_file():
        return Path(adapter)
    moved = PureWindowsPath(adapter)  # accepts both kinds of separators
    return run.absolute().parents[2] / moved.parent.name / moved.name


def cache_folder(output: Path) -> Path:
    """The cache of latents, class images, digests of large files and images' vectors."""
    return output / "likeness" / "cache"

"""Where a run's inputs and outputs lie on one machine."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from .recipe import Part


class Places(Part):
    """Where a run's inputs and outputs lie on this machine; never part of a shared file.

    `base` is a checkpoint file or a diffusers folder, `photos` a folder, `class_images` the
    user's own set or None, `tokenizers` the folders to try for the CLIP tokenizer, in order;
    `runs`, `loras`, `checkpoints` and `cache` are written to.
    """

    base: Path
    photos: Path
    class_images: Path | None = None
    tokenizers: tuple[Path, ...] = ()
    runs: Path
    loras: Path
    checkpoints: Path
    cache: Path

    @classmethod
    def for_output(
        cls, output: Path, *, base: Path, photos: Path, class_images: Path | None = None,
        tokenizers: tuple[Path, ...] = (),
    ) -> Places:  # fmt: skip
        """With all that is written to below an output folder: ComfyUI's, or the terminal's."""
        return cls(
            base=base,
            photos=photos,
            class_images=class_images,
            tokenizers=tokenizers,
            runs=runs_folder(output),
            loras=output / "loras",
            checkpoints=output / "checkpoints",
            cache=cache_folder(output),
        )

    def absolute(self) -> Places:
        """With all paths absolute."""
        paths = {
            name: tuple(p.absolute() for p in value)
            if isinstance(value, tuple)
            else value.absolute()
            for name, value in self
            if isinstance(value, (Path, tuple))
        }
        return self.model_copy(update=paths)


def runs_folder(output: Path) -> Path:
    """The folder of the run folders."""
    return output / "likeness" / "runs"


def resolve_adapter(adapter: str, run: Path) -> Path:
    """The path of a run's adapter file; if it is gone, where the run's own output folder has it,
    which may have been moved to another drive, mount or system.
    """
    if Path(adapter).is_file():
        return Path(adapter)
    moved = PureWindowsPath(adapter)  # which reads both kinds of separators
    return run.absolute().parents[2] / moved.parent.name / moved.name


def cache_folder(output: Path) -> Path:
    """Where encoded pictures, class images, digests of large files and vectors are remembered."""
    return output / "likeness" / "cache"

"""Reads the base model into the system's file cache during imports. No torch here."""

from __future__ import annotations

import os
from contextlib import suppress
from threading import Thread

import psutil

from .base_file import model_files
from .errors import LikenessError
from .run_folder import RunFolder

_BLOCK = 128 << 20  # bytes


def read_ahead(folder: RunFolder) -> Thread:
    """Starts reading the files of a run's base model; the thread ends when they are read.

    Weights are memory-mapped, and a mapped file is read in small pieces as each is first used,
    which takes longer. Raises nothing: the model loader reports what is wrong. Of several
    processes that train together on one machine, only the first reads.
    """
    thread = Thread(target=_read, args=(folder,), name="read ahead", daemon=True)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        thread.start()
    return thread


def _read(folder: RunFolder) -> None:
    with suppress(OSError, LikenessError):
        files = model_files(folder.places().base)
        # With less memory, the first files would be evicted before they are used.
        if 2 * sum(file.stat().st_size for file in files) > psutil.virtual_memory().available:
            return
        block = bytearray(_BLOCK)
        for file in files:
            with open(file, "rb", buffering=0) as stream:
                while stream.readinto(block):
                    pass

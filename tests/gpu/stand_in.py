"""A stand-in for a CUDA GPU, to run the tests of this folder without one.

`python tests/gpu/stand_in.py [pytest's options]` builds `stand_in.cpp`, loads it before PyTorch and
runs pytest. It needs Linux, a C++ compiler and a PyTorch built without CUDA.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

FOLDER = Path(__file__).resolve().parent
MEMORY = 24 << 30  # bytes


def problem() -> str | None:
    """Why there can be no stand-in, or None."""
    if not sys.platform.startswith("linux") or shutil.which("c++") is None:
        return "a stand-in for a GPU needs Linux and a C++ compiler"
    if (_torch() / "lib" / "libtorch_cuda.so").exists():
        return "a stand-in for a GPU needs a PyTorch built without CUDA"
    return None


def _torch() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def build(target: Path) -> None:
    """Compiles the device, in ten seconds, to a shared library."""
    include, lib = _torch() / "include", _torch() / "lib"
    includes = [f"-isystem{include}", f"-isystem{include}/torch/csrc/api/include"]
    libraries = [f"-L{lib}", "-lc10", "-ltorch_cpu"]
    options = ["-shared", "-fPIC", "-std=c++20", "-O1", *includes]
    source = str(FOLDER / "stand_in.cpp")
    subprocess.run(["c++", *options, source, *libraries, "-o", str(target)], check=True)


def install(library: Path) -> None:
    """Loads the device and makes `torch.cuda` use it. PyTorch must not be imported yet: it asks
    once whether there is a GPU.
    """
    assert "torch" not in sys.modules
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(_torch() / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    gpu = ctypes.CDLL(str(library))
    for name in ("gpu_allocated", "gpu_peak"):
        getattr(gpu, name).restype = ctypes.c_size_t
    gpu.gpu_capture_end.restype = ctypes.c_void_p
    gpu.gpu_replay.restype = ctypes.c_bool
    for name in ("gpu_replay", "gpu_free_graph"):
        getattr(gpu, name).argtypes = [ctypes.c_void_p]
    gpu.gpu_set_limit.argtypes = [ctypes.c_size_t]
    gpu.gpu_set_limit(MEMORY)

    import torch

    if importlib.util.find_spec("bitsandbytes"):
        import bitsandbytes  # noqa: F401  with its kernels for CPUs: it has none for the stand-in
    for name, value in (_memory(gpu) | _device(gpu) | _graphs(gpu)).items():
        setattr(torch.cuda, name, value)
    torch._C._host_emptyCache = lambda: None


def _memory(gpu: ctypes.CDLL) -> dict:
    def allocated(device=None):
        return gpu.gpu_allocated()

    return {
        "mem_get_info": lambda device=None: (MEMORY - allocated(), MEMORY),
        "memory_allocated": allocated,
        "memory_reserved": allocated,
        "max_memory_allocated": lambda device=None: gpu.gpu_peak(),
        "reset_peak_memory_stats": lambda device=None: gpu.gpu_reset_peak(),
        "empty_cache": lambda: None,
        "set_per_process_memory_fraction": lambda fraction: gpu.gpu_set_limit(
            int(fraction * MEMORY)
        ),
        "get_device_properties": lambda device: SimpleNamespace(total_memory=MEMORY),
    }


def _device(gpu: ctypes.CDLL) -> dict:
    import torch

    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "set_sync_debug_mode": lambda mode: gpu.gpu_set_sync_debug_mode(mode == "error"),
        "get_device_name": lambda device=None: "stand-in",
        "get_device_capability": lambda device=None: (8, 6),
        "is_bf16_supported": lambda including_emulation=True: True,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "default_generators": (torch.Generator(),),
    }


class Stream:
    """The only stream."""

    def wait_stream(self, other: Stream) -> None:
        """Does nothing: all work is done at once."""


def _graphs(gpu: ctypes.CDLL) -> dict:
    class CUDAGraph:
        """A captured sequence of operators."""

        def __init__(self) -> None:
            self._graph = None

        def capture_begin(self, *pool, **options) -> None:
            gpu.gpu_capture_begin()

        def capture_end(self) -> None:
            self._graph = gpu.gpu_capture_end()

        def replay(self) -> None:
            assert gpu.gpu_replay(self._graph)

        def pool(self) -> tuple[int, int]:
            return 0, 0

        def __del__(self) -> None:
            if self._graph:
                gpu.gpu_free_graph(self._graph)

    @contextmanager
    def stream(stream):
        yield

    only = Stream()
    return {
        "CUDAGraph": CUDAGraph,
        "Stream": Stream,
        "stream": stream,
        "current_stream": lambda device=None: only,
        "default_stream": lambda device=None: only,
        "graph_pool_handle": lambda: (0, 0),
    }


if __name__ == "__main__":
    if lack := problem():
        sys.exit(lack)
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "stand_in.so")
        install(Path(folder) / "stand_in.so")
        import pytest

        sys.exit(pytest.main(sys.argv[1:] or [str(FOLDER)]))

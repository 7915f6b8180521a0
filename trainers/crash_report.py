"""Reports of crashed processes: what an exit code means, and the end of the log."""

from __future__ import annotations

import signal
from pathlib import Path

from .run_folder import RunFolder

# Exit codes of crashed processes on Windows (NTSTATUS), unsigned.
_NTSTATUS_MEANINGS = {
    0xC0000005: "access violation: often a driver, or out of memory",
    0xC0000017: "out of memory",
    0xC000012D: "out of memory: enlarge the page file",
    0xC0000135: "missing DLL: often Microsoft's Visual C++ runtime",
    0xC000013A: "Ctrl-C or a closed window",
    0xC0000409: "fatal error inside a library",
}


def crash_message(code: int | None, folder: RunFolder) -> str:
    """The error message for a run's process that crashed with an exit code."""
    cause = f"exited with code {code}"
    if code in _NTSTATUS_MEANINGS:
        cause = f"exited with code 0x{code:X} ({_NTSTATUS_MEANINGS[code]})"
    elif code is not None and code < 0:
        cause = f"was terminated by {_signal_name(-code)}"
        if -code == getattr(signal, "SIGKILL", 0):
            cause += " (often: out of memory)"
    return (
        f"The training process {cause}. Start again to resume from the last saved state.\n"
        f"{log_tail(folder.log)}\nThe log is {folder.log}"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return f"signal {number}"


def log_tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])

"""The exception type of comparisons."""

from __future__ import annotations

from ..trainers.errors import LikenessError


class ComparisonError(LikenessError):
    """A prompt set, pose, plan or sheet that cannot be used; the message names what to fix."""

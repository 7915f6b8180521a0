"""What can go wrong when comparing, as a type of its own."""

from __future__ import annotations

from ..trainers.errors import LikenessError


class ComparisonError(LikenessError):
    """A prompt set, pose, plan or sheet that cannot be used: the message names the part to mend."""

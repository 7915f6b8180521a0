"""Everything that can go wrong, made to go wrong: `python -m tests.faults`, from the root."""

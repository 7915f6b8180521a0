"""Generates the bundled workflows from a compact description: ``python -m tools.workflows``."""

"""Tools of the repository's developers; no part of the package."""

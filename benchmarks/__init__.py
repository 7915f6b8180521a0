"""Timings and memory, ours beside diffusers' example scripts; see README.md."""

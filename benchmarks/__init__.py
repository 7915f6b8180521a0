"""Benchmarks of time and memory against other trainers and pipelines; see README.md."""

"""The embedded default: a miniature Stable Diffusion with its own small drawn world."""

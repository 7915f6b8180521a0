"""The bundled miniature: a tiny Stable Diffusion with its own synthetic cartoon world."""

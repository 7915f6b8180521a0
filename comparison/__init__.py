"""Comparison: models x prompts x poses to images, sheet, scores. Never imports ComfyUI or nodes."""

"""Compare: models x prompts x poses to images, sheet and scores. Never imports ComfyUI or nodes."""

"""Compare: models x prompts x poses -> images, sheet, scores, report. Never imports ComfyUI or nodes."""

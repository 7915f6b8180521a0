"""Training: photographs in, an adapter file out. Imports neither ComfyUI, nodes nor comparison."""

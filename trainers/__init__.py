"""Learn: photographs in, an adapter file out. Never imports ComfyUI, nodes or comparison."""

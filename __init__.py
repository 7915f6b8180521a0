"""ComfyUI-Likeness: teaches Stable Diffusion 1.5 one subject from about 15 photographs."""

import logging

__version__ = "0.1.0"

WEB_DIRECTORY = "./js"


async def comfy_entrypoint() -> object:
    """ComfyUI's door (node API V3): imports the nodes on first call, with the whole traceback."""
    try:
        from .nodes import LikenessExtension, register

        register()  # not in the extension's on_load, which ComfyUI 0.8.0 does not call
    except Exception:
        # ComfyUI itself prints one line of it.
        logging.getLogger("likeness").exception("ComfyUI-Likeness could not be loaded")
        raise
    return LikenessExtension()

"""ComfyUI-Likeness: teaches Stable Diffusion 1.5 one subject from about 15 photographs."""

import logging

__version__ = "0.1.0"

WEB_DIRECTORY = "./js"


async def comfy_entrypoint() -> object:
    """ComfyUI's entry point (node API V3): imports the nodes; a failure is logged in full."""
    try:
        from .nodes import LikenessExtension, register

        register()  # not in the extension's on_load, which ComfyUI 0.8.0 does not call
    except Exception:
        # ComfyUI itself prints only one line of it.
        logging.getLogger("likeness").exception("ComfyUI-Likeness could not be loaded")
        raise
    return LikenessExtension()

"""ComfyUI's face: an explicit list of nodes. The work is in plain modules beside them."""

from __future__ import annotations

from .class_images import ClassImages
from .host import ComfyExtension, io
from .load_adapter import LoadAdapter
from .options import TrainOptionsNode
from .subject import Subject
from .train_dreambooth import TrainDreamBooth
from .train_lora import TrainLoRA


class LikenessExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes, in the order of their use."""
        return [Subject, ClassImages, TrainOptionsNode, TrainLoRA, TrainDreamBooth, LoadAdapter]

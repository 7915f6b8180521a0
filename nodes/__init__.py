"""ComfyUI's face: an explicit list of nodes. The work is in plain modules beside them."""

from __future__ import annotations

from . import miniature, routes, static_plan
from .class_images import ClassImages
from .contact_sheet import ContactSheet
from .detect_pose import DetectPose
from .draw_cells import DrawCells, DrawSheet, KeepCell
from .host import ComfyExtension, add_prompt_handler, io
from .load_adapter import LoadAdapter
from .matrix import Matrix
from .options import TrainOptionsNode
from .pose_set import PoseSet
from .prompt_set import PromptSetNode
from .score import Score
from .subject import Subject
from .train_dreambooth import TrainDreamBooth
from .train_lora import TrainLoRA


def register() -> None:
    """Makes the miniature one of ComfyUI's models, gives the browser's panels their routes, and
    asks to see prompts before they are checked.
    """
    miniature.register()
    routes.register()
    add_prompt_handler(static_plan.on_prompt)


class LikenessExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes, in the order of their use."""
        learning = [Subject, ClassImages, TrainOptionsNode, TrainLoRA, TrainDreamBooth, LoadAdapter]
        comparing = [PromptSetNode, PoseSet, DetectPose, Matrix, ContactSheet, Score]
        inner = [DrawCells, KeepCell, DrawSheet]
        return [*learning, *comparing, *inner]

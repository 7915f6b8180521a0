"""The ComfyUI extension: an explicit list of nodes; their logic is in plain modules."""

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
from .save_photographs import SavePhotographs
from .score import Score
from .subject import Subject
from .train_dreambooth import TrainDreamBooth
from .train_lora import TrainLoRA


def register() -> None:
    """Registers the miniature as a model, the panels' routes, and a handler that sees prompts
    before validation.
    """
    miniature.register()
    routes.register()
    add_prompt_handler(static_plan.on_prompt)


class LikenessExtension(ComfyExtension):
    """ComfyUI's entry point to the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes, in order of use."""
        training = [SavePhotographs, Subject, ClassImages, TrainOptionsNode]
        training += [TrainLoRA, TrainDreamBooth, LoadAdapter]
        comparison = [PromptSetNode, PoseSet, DetectPose, Matrix, ContactSheet, Score]
        internal = [DrawCells, KeepCell, DrawSheet]
        return [*training, *comparison, *internal]

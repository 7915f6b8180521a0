"""Detect Pose with controlnet_aux's own network, of weights that find nobody."""

import importlib
import runpy
from pathlib import Path

import pytest
import torch
from likeness.comparison.errors import ComparisonError

model = pytest.importorskip(
    "controlnet_aux.open_pose.model", reason="needs controlnet_aux", exc_type=ImportError
)
runpy.run_path(str(Path(__file__).resolve().parents[1] / "comfy" / "stub.py"))["install"]()
detect_pose = importlib.import_module("likeness.nodes.detect_pose")


@pytest.fixture
def weights(tmp_path):
    """The file as OpenPose's is: names without the network's own part in front."""
    state = model.bodypose_model().state_dict()
    path = tmp_path / detect_pose.WEIGHTS
    torch.save({name.partition(".")[2]: 0 * value for name, value in state.items()}, path)
    return path


def test_the_network_reads_its_file_and_an_image_without_people_is_told(weights):
    detector = detect_pose.load_detector(weights)
    with pytest.raises(ComparisonError, match="Nobody is found"):
        detect_pose.detect(detector, torch.rand(96, 64, 3), "image-1")


def test_another_file_is_told(tmp_path):
    path = tmp_path / detect_pose.WEIGHTS
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(ComparisonError, match="download it again"):
        detect_pose.load_detector(path)

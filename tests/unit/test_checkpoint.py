import contextlib
import errno
import json
import weakref

import pytest
import torch
from diffusers.training_utils import EMAModel
from likeness.trainers import checkpoint
from likeness.trainers.errors import CheckpointError, OptimizerMismatch, OutOfSpace
from likeness.trainers.optimizers import build_optimizer
from likeness.trainers.recipe import Optimizer
from likeness.trainers.run_folder import saved_steps
from safetensors.torch import load_file, save_file

DIGEST = "a" * 64


def state(name="adamw", ema=True):
    torch.manual_seed(0)
    # Large enough for 8-bit states, and small enough for 32-bit ones.
    shapes = {"unet.big": (80, 64), "unet.small": (3,)}
    params = {k: torch.nn.Parameter(torch.randn(s)) for k, s in shapes.items()}
    rate = 1.0 if name == "prodigy" else 1e-2
    groups = [{"params": list(params.values()), "lr": rate}]
    optimizer = build_optimizer(Optimizer(name=name, learning_rate=rate), groups)
    ema = EMAModel(list(params.values()), decay=0.9) if ema else None
    return checkpoint.TrainingState(
        params, optimizer, torch.amp.GradScaler("cpu", enabled=False), ema
    )


def advance(s, steps, first=0):
    for step in range(first, first + steps):
        for p in s.parameters.values():
            p.grad = torch.sin(p.detach() * (3 + step))
        s.optimizer.step()
        if s.ema:
            s.ema.step(list(s.parameters.values()))


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "prodigy"])
def test_a_loaded_state_goes_on_as_the_saved_one(tmp_path, name):
    if name != "adamw":
        pytest.importorskip({"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}[name])
    unbroken = state(name)
    advance(unbroken, 3)
    folder = checkpoint.save(tmp_path, 3, unbroken, DIGEST, [1.0, 2.0, 3.0], keep=1)
    resumed = state(name)
    assert checkpoint.load(folder, resumed, DIGEST) == (3, [1.0, 2.0, 3.0])
    for s in (unbroken, resumed):
        advance(s, 3, first=3)
    for key in unbroken.parameters:
        assert torch.equal(unbroken.parameters[key], resumed.parameters[key])
    for a, b in zip(unbroken.ema.shadow_params, resumed.ema.shadow_params, strict=True):
        assert torch.equal(a, b)


def test_states_of_another_optimizer_are_not_put_on_the_device(tmp_path, monkeypatch):
    """A run that fell to 8 bits for lack of memory has no room for those of 32 bits."""
    pytest.importorskip("bitsandbytes")
    whole = state()
    advance(whole, 1)
    folder = checkpoint.save(tmp_path, 1, whole, DIGEST, [], keep=1)

    def no_room(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(checkpoint, "_restored_optimizer_state", no_room)
    with pytest.raises(OptimizerMismatch, match="state of AdamW, but this run uses AdamW8bit"):
        checkpoint.load(folder, state("adamw8bit"), DIGEST)


def test_another_optimizers_state_was_told_as_damage(tmp_path):
    s = state()
    advance(s, 1)
    folder = checkpoint.save(tmp_path, 1, s, DIGEST, [], keep=1)
    document = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(document | {"optimizer_kind": "Lion"}))
    fresh = state()
    before = {k: p.detach().clone() for k, p in fresh.parameters.items()}
    with pytest.raises(OptimizerMismatch, match=r"state of Lion.*raise attempt"):
        checkpoint.load(folder, fresh, DIGEST)
    assert all(torch.equal(before[k], p) for k, p in fresh.parameters.items())


def test_only_the_newest_are_kept(tmp_path):
    s = state()
    advance(s, 1)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, s, DIGEST, [], keep=2)
    assert saved_steps(tmp_path) == [2, 3]
    checkpoint.prune(tmp_path, 3, 0)
    assert saved_steps(tmp_path) == []


def test_saving_deleted_hidden_folders_that_were_not_its_own(tmp_path):
    """`checkpoints` may be a link to a folder with other things in it."""
    own = [".partial-step-000009", ".old-step-000001"]
    for name in (".ssh", *own):
        (tmp_path / name).mkdir()
    checkpoint.save(tmp_path, 1, state(), DIGEST, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ssh", "step-000001"]


def test_an_old_checkpoint_that_is_open_elsewhere_did_not_end_the_run(tmp_path, monkeypatch):
    s = state()
    for step in (1, 2):
        checkpoint.save(tmp_path, step, s, DIGEST, [])

    def held(folder):
        raise PermissionError(13, "The process cannot access the file")

    with monkeypatch.context() as windows:
        windows.setattr(checkpoint, "remove_folder", held)
        checkpoint.prune(tmp_path, 2, 1)
        checkpoint.discard(tmp_path, 2)
    assert saved_steps(tmp_path) == [1, 2]
    checkpoint.prune(tmp_path, 2, 1)
    assert saved_steps(tmp_path) == [2]


def test_a_step_saved_again_replaces_itself(tmp_path):
    s = state()
    advance(s, 1)
    for _ in range(2):
        checkpoint.save(tmp_path, 1, s, DIGEST, [], keep=1)
    assert saved_steps(tmp_path) == [1]


def test_half_written_checkpoints_are_not_found(tmp_path):
    (tmp_path / ".partial-step-000009").mkdir()
    (tmp_path / "step-000009").mkdir()
    (tmp_path / "step-x").mkdir()
    assert saved_steps(tmp_path) == []


@pytest.mark.parametrize("file", ["state.json", "weights.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("harm", ["cut", "gone", "noise"])
def test_damage_is_a_checkpoint_error_and_leaves_the_weights(tmp_path, file, harm):
    s = state()
    advance(s, 1)
    path = checkpoint.save(tmp_path, 1, s, DIGEST, [], keep=1) / file
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if harm == "cut" else b"\xff" * len(data))
    fresh = state()
    before = {k: p.detach().clone() for k, p in fresh.parameters.items()}
    with pytest.raises(CheckpointError):
        checkpoint.load(path.parent, fresh, DIGEST)
    assert all(torch.equal(before[k], p) for k, p in fresh.parameters.items())


def test_an_empty_average_came_through_after_the_weights_were_changed(tmp_path):
    s = state()
    advance(s, 1)
    folder = checkpoint.save(tmp_path, 1, s, DIGEST, [], keep=1)
    save_file({}, folder / "average.safetensors")
    fresh = state()
    before = {k: p.detach().clone() for k, p in fresh.parameters.items()}
    with pytest.raises(CheckpointError):
        checkpoint.load(folder, fresh, DIGEST)
    assert all(torch.equal(before[k], p) for k, p in fresh.parameters.items())


@pytest.mark.parametrize(
    ("was", "harmed"), [('"step": 1', '"step": Infinity'), ("0.125", "1" + 400 * "0")]
)
def test_a_number_that_no_float_or_int_holds_is_damage(tmp_path, was, harmed):
    folder = checkpoint.save(tmp_path, 1, state(), DIGEST, [0.125], keep=1)
    text = (folder / "state.json").read_text()
    (folder / "state.json").write_text(text.replace(was, harmed, 1))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(folder, state(), DIGEST)


def test_a_checkpoint_says_how_many_processes_trained_it(tmp_path):
    folder = checkpoint.save(tmp_path, 1, state(), DIGEST, [], processes=2)
    assert checkpoint.saved_processes(folder) == 2
    for text in ("{}", "[]", '{"processes": Infinity}', "{"):
        (folder / "state.json").write_text(text)
        assert checkpoint.saved_processes(folder) is None


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "prodigy"])
def test_a_checkpoint_held_all_of_the_optimizer_in_the_hosts_memory(tmp_path, monkeypatch, name):
    if name != "adamw":
        pytest.importorskip({"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}[name])
    s, copies = state(name), []
    advance(s, 2)

    def fetched(tensor):  # as from a GPU
        assert all(copy() is None for copy in copies), "one at a time"
        copy = tensor.clone()
        copies.append(weakref.ref(copy))
        return copy

    with monkeypatch.context() as gpu:
        gpu.setattr(torch.Tensor, "cpu", fetched)
        folder = checkpoint.save(tmp_path, 2, s, DIGEST, [])
    tensors, _ = checkpoint._optimizer_state(s)
    saved = load_file(folder / "optimizer.safetensors")
    assert saved.keys() == tensors.keys() and len(copies) >= len(tensors)
    for key, tensor in tensors.items():
        assert saved[key].dtype == tensor.dtype and torch.equal(saved[key], tensor), key


def test_another_recipes_checkpoint_is_refused(tmp_path):
    s = state()
    advance(s, 1)
    folder = checkpoint.save(tmp_path, 1, s, DIGEST, [], keep=1)
    with pytest.raises(CheckpointError, match="another run"):
        checkpoint.load(folder, state(), "b" * 64)


def test_a_full_disk_keeps_the_earlier_checkpoint_and_leaves_nothing_half_written(
    tmp_path, monkeypatch
):
    s = state()
    advance(s, 1)
    checkpoint.save(tmp_path, 1, s, DIGEST, [], keep=1)

    def full(path, tensors):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(OutOfSpace, match="No space left"):
        checkpoint.save(tmp_path, 2, s, DIGEST, [], keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_a_damaged_later_checkpoint_does_not_push_out_whole_ones(tmp_path):
    s = state()
    advance(s, 1)
    checkpoint.save(tmp_path, 9, s, DIGEST, [], keep=1)
    checkpoint.save(tmp_path, 5, s, DIGEST, [], keep=1)
    assert saved_steps(tmp_path) == [5, 9]


def test_weights_of_another_shape_are_refused(tmp_path):
    s = state(ema=False)
    advance(s, 1)
    folder = checkpoint.save(tmp_path, 1, s, DIGEST, [], keep=1)
    other = state(ema=False)
    other.parameters["unet.small"] = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(CheckpointError, match="another run"):
        checkpoint.load(folder, other, DIGEST)


def test_a_run_begun_without_a_scaler_goes_on_with_one(tmp_path):
    s = state(ema=False)
    advance(s, 1)
    folder = checkpoint.save(tmp_path, 1, s, DIGEST, [], keep=1)
    scaled = state(ema=False)
    scaled.scaler = torch.amp.GradScaler("cpu", enabled=True)
    assert checkpoint.load(folder, scaled, DIGEST)[0] == 1


def test_a_run_in_fp16_goes_on_with_the_scale_that_it_had(tmp_path):
    saved, resumed = state(ema=False), state(ema=False)
    for one, scale in ((saved, 8.0), (resumed, 65536.0)):
        one.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    folder = checkpoint.save(tmp_path, 1, saved, DIGEST, [], keep=1)
    checkpoint.load(folder, resumed, DIGEST)
    assert resumed.scaler.get_scale() == 8.0


def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_damaged(tmp_path, monkeypatch):
    folder = checkpoint.save(tmp_path, 3, state(), "d" * 64, losses=[])

    def fail(path):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "load_file", fail)
        with pytest.raises(OSError, match="Input/output"):
            checkpoint.load(folder, state(), "d" * 64)
    (folder / "weights.safetensors").unlink()
    with contextlib.suppress(OSError):  # Windows lets not everybody make links
        (folder / "weights.safetensors").symlink_to(folder / "weights.safetensors")
        with pytest.raises(OSError, match="cannot be read"):
            checkpoint.load(folder, state(), "d" * 64)
        (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(folder, state(), "d" * 64)

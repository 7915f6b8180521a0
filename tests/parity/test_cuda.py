"""On a CUDA GPU: recorded steps learn what plain ones learn, and failures leave memory whole.

`pytest tests/parity/test_cuda.py` tries them; without a GPU they are skipped.
"""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from likeness.demo.random_model import write_random_model
from likeness.trainers import loop
from likeness.trainers.cuda_graphs import CudaGraphCapturer, GraphedCallable, graphed_unet
from likeness.trainers.presets import preset
from likeness.trainers.run_folder import prepare
from likeness.trainers.stop import StopSignal
from PIL import Image

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")


@pytest.fixture
def gpu():
    """accelerate's state is the process's; other tests have it on the CPU."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator()
    AcceleratorState._reset_state(reset_partial_state=True)


def recipe(kind, **parts):
    small = preset("lora-r4").changed(
        method={"kind": kind},
        subject={"resolution": 64},
        schedule={"steps": 8},
        optimizer={"name": "adamw", "learning_rate": 1e-3},
        compute={"attention": "sdpa"},
    )
    return small.changed(**parts)


def trained(recipe, places, gpu):
    folder = prepare(recipe, places.model_copy(update={"class_images": places.photos}))
    return loop.train(folder, gpu, lambda kind, **data: None, StopSignal(folder.stop))


@pytest.mark.parametrize("kind", ["lora", "dreambooth"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("memory", ["full", "checkpointing"])
def test_recorded_steps_learn_what_plain_ones_learn(
    places, gpu, kind, precision, memory, monkeypatch
):
    graphed = []
    real = CudaGraphCapturer.capture

    def capture(self, work):
        graphed.append(True)  # not the graph: those that are forgotten are gone
        return real(self, work)

    monkeypatch.setattr(CudaGraphCapturer, "capture", capture)
    compute = {"precision": precision, "memory": memory}
    text = {"last_step": 4}
    plain = trained(
        recipe(kind, compute={**compute, "graphs": False}, text_encoder=text), places, gpu
    )
    assert not graphed
    result = trained(recipe(kind, compute=compute, text_encoder=text), places, gpu)
    assert len(graphed) == 2 and not result.notes  # with the text encoder, and without
    assert result.losses == pytest.approx(plain.losses, rel=0.02)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_does_not_wait_for_the_gpu(places, gpu, precision, monkeypatch):
    real = loop.training_step

    def training_step(*given, graphed):
        step = given[3]
        torch.cuda.set_sync_debug_mode("error" if step >= 3 else "default")  # recorded at 1
        try:
            return real(*given, graphed=graphed)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop, "training_step", training_step)
    trained(recipe("lora", compute={"precision": precision}, attempt=1), places, gpu)


def test_work_that_cannot_be_recorded_leaves_stream_allocator_and_generator_whole():
    def work(inputs, setting):
        return inputs[0] * (2 if inputs[0].sum().item() > 0 else 0)  # reads from the GPU

    notes = []
    double = GraphedCallable(work, CudaGraphCapturer(), notes.append)
    for value in (1.0, 2.0, 3.0):
        assert double((torch.full((4,), value, device="cuda"),)).tolist() == [2 * value] * 4
    assert len(notes) == 1 and "CUDA graphs are not used" in notes[0]
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.cuda.empty_cache()  # raises where the allocator still waits for the recording's end
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    torch.manual_seed(3)
    wanted = torch.rand(8, device="cuda")  # raises where it still waits for a replay
    torch.manual_seed(3)
    assert torch.equal(torch.rand(8, device="cuda"), wanted)


def test_a_recorded_unet_that_is_done_with_gives_its_memory_back():
    class UNet(torch.nn.Linear):
        device, dtype = torch.device("cuda"), torch.float32

        def forward(self, x, timestep, states, return_dict=True):
            return (super().forward(x) + timestep + states,)

    notes, unet = [], UNet(4096, 4096, device="cuda")
    x = torch.zeros(4096, 4096, device="cuda")
    unet(x, x, x)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    graphed = graphed_unet(unet, notes.append)
    for _ in range(3):
        graphed(x, x, encoder_hidden_states=x)
    held = torch.cuda.memory_allocated() - before
    assert held > 1 << 26 and not notes
    del graphed
    assert torch.cuda.memory_allocated() - before < held / 8


def test_a_text_encoder_on_the_cpu_learns_what_it_learns_on_the_gpu(places, gpu):
    pytest.importorskip("bitsandbytes")
    results = [
        trained(recipe("dreambooth", compute={"precision": "fp32", "memory": memory}), places, gpu)
        for memory in ("in_backward", "offload")
    ]
    assert results[1].losses == pytest.approx(results[0].losses, rel=0.02)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("memory", "limit"), [("in_backward", 8e9), ("offload", 7.5e9)])
def test_dreambooth_at_512_pixels_fits_in_8_gb_in_the_lowest_tiers(
    memory, limit, places, gpu, tmp_path
):
    pytest.importorskip("bitsandbytes")
    total = torch.cuda.get_device_properties(0).total_memory
    if total < limit:
        pytest.skip("the GPU has less")
    photos = tmp_path / "large"
    photos.mkdir()
    for number in range(2):
        Image.effect_noise((512, 512), 50 + number).convert("RGB").save(photos / f"{number}.png")
    tokenizer = places.base.with_name(f"{places.base.stem}_tokenizer")
    base = write_random_model(tmp_path / "full.safetensors", size="full", tokenizer=tokenizer)
    whole = preset("standard").changed(
        schedule={"steps": 3},
        prior={"count": 2},
        compute={"memory": memory, "attention": "sdpa"},
        previews={"every": 3, "prompts": ["a cat"], "steps": 2},
    )
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        result = trained(whole, places.model_copy(update={"base": base, "photos": photos}), gpu)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.steps == 3 and result.peak_memory < limit

"""Our loading and our prompts equal those of diffusers' own classes."""

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from likeness.demo.random_model import write_random_model
from likeness.trainers.base_model import load_base
from likeness.trainers.text_encoding import encode_text, tokenize
from transformers import CLIPTextModel


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_base(checkpoint)


@pytest.mark.parametrize(("kind", "part"), [(UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")])
def test_weights_and_settings_equal_from_single_file(checkpoint, model, tmp_path, kind, part):
    ours = getattr(model, part)
    ours.save_config(tmp_path / part)
    theirs = kind.from_single_file(
        str(checkpoint),
        config=str(tmp_path),
        subfolder=part,
        local_files_only=True,
        torch_dtype=torch.float32,
    )
    state, wanted = ours.state_dict(), theirs.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)


@pytest.fixture
def pipeline(model, monkeypatch):
    if not hasattr(model.text_encoder, "text_model"):
        # diffusers 0.42 looks for the final layer norm where transformers 4 had it.
        itself = property(lambda text_encoder: text_encoder)
        monkeypatch.setattr(CLIPTextModel, "text_model", itself, raising=False)
    return StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_embeddings_equal_the_pipelines(model, pipeline, clip_skip):
    prompts = ["a photo of sks man, kitchen", "", "many words " * 60]
    skipped = clip_skip - 1 or None  # diffusers counts the layers left out
    with torch.no_grad():
        wanted, _ = pipeline.encode_prompt(prompts, "cpu", 1, False, clip_skip=skipped)
        ours = encode_text(model.text_encoder, tokenize(model.tokenizer, prompts), clip_skip)
    assert torch.equal(ours, wanted)

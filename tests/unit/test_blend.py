"""Full fine-tunes drawn from the terminal, at any strength."""

import pytest
import torch
from likeness.comparison.sample import load_with_adapter
from likeness.demo.random_model import write_random_model
from likeness.trainers.base_model import load_base
from likeness.trainers.errors import AdapterError
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A base, and a fine-tune that has every weight other than the base's."""
    folder = tmp_path_factory.mktemp("models")
    return [write_random_model(folder / f"{n}.safetensors", seed=n, dtype="fp32") for n in (0, 1)]


def weights(model, *parts):
    return [tensor for part in parts for tensor in getattr(model, part).state_dict().values()]


def equal(one, other, *parts):
    pairs = zip(weights(one, *parts), weights(other, *parts), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_fine_tune_at_strength_1_is_itself_on_the_bases_vae_and_at_0_the_base(files):
    base, tuned = map(load_base, files)
    whole = load_with_adapter(*files)
    assert equal(whole, tuned, "unet", "text_encoder") and equal(whole, base, "vae")
    none = load_with_adapter(*files, strength=0.0)
    assert equal(none, base, "unet", "text_encoder", "vae")


def test_a_fine_tune_is_drawn_at_any_strength_of_each_part(files):
    base, tuned = map(load_base, files)
    mixed = load_with_adapter(*files, strength=0.25, strength_text=1.0)
    assert equal(mixed, tuned, "text_encoder")
    for found, a, b in zip(*(weights(m, "unet") for m in (mixed, base, tuned)), strict=True):
        torch.testing.assert_close(found, 0.75 * a + 0.25 * b)


def test_a_fine_tune_of_another_base_changes_nothing_and_is_named(files, tmp_path):
    state = load_file(files[1])
    del state["model.diffusion_model.out.2.bias"]
    save_file(state, tmp_path / "other.safetensors")
    said = r"other\.safetensors does not fit this base: 1 weights differ .*conv_out\.bias"
    with pytest.raises(AdapterError, match=said):
        load_with_adapter(files[0], tmp_path / "other.safetensors")


def test_a_fine_tune_in_a_diffusers_folder_is_that_of_its_checkpoint(files, tmp_path):
    tuned = load_base(files[1])
    for part in ("unet", "vae", "text_encoder"):
        getattr(tuned, part).save_pretrained(tmp_path / part)
    mixed = load_with_adapter(files[0], tmp_path, strength=0.5)
    assert equal(mixed, load_with_adapter(*files, strength=0.5), "unet", "text_encoder", "vae")

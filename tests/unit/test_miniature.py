import pytest
import torch
from likeness.demo import miniature
from likeness.demo.judge_networks import ARCHITECTURES
from likeness.demo.tokenizer import END, START, vocabulary
from likeness.demo.words import NONSENSE
from likeness.trainers import ldm_names
from likeness.trainers.base_model import load_base
from likeness.trainers.errors import BaseModelError
from safetensors import safe_open


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return miniature.new_unet()


def test_the_unet_is_small_and_convolves_only_at_the_top(unet):
    assert size(unet) <= 8_000_000
    first, *others = miniature.UNET["block_out_channels"]
    assert not any(width % first for width in others)  # as ComfyUI builds it
    assert not hasattr(unet.down_blocks[0], "attentions")
    assert unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.heads == 8


def test_all_weights_together_stay_below_32_mb_in_fp16(unet):
    parts = [unet, miniature.new_vae(), miniature.new_text_encoder()]
    parts += [miniature.new_controlnet(unet), *(kind() for kind in ARCHITECTURES.values())]
    assert 2 * sum(map(size, parts)) <= 32_000_000


def test_the_checkpoint_loads_as_any_stable_diffusion_file(tmp_path, unet):
    text_encoder, vae = miniature.new_text_encoder(), miniature.new_vae()
    path = tmp_path / "miniature.safetensors"
    miniature.save_miniature(path, unet=unet, vae=vae, text_encoder=text_encoder, metadata={})
    model = load_base(path)
    for saved, loaded in ((unet, model.unet), (vae, model.vae), (text_encoder, model.text_encoder)):
        state = loaded.state_dict()
        for name, tensor in saved.state_dict().items():
            assert torch.equal(state[name], tensor.half().to(state[name].dtype)), name
    assert model.vae.config.scaling_factor == 1.0
    assert model.text_encoder.config.num_attention_heads == 2
    assert len(model.tokenizer) == text_encoder.config.vocab_size
    x, states = torch.randn(1, 4, 16, 12), torch.randn(1, 77, miniature.CONTEXT)
    with torch.no_grad():
        ours, theirs = (u(x, 500, states).sample for u in (unet, model.unet))
    assert torch.allclose(ours, theirs, atol=2e-2)


def test_a_new_controlnet_changes_nothing(unet):
    control = miniature.control(miniature.new_controlnet(unet), torch.rand(1, 3, 64, 64))
    x, states = torch.randn(2, 4, 8, 8), torch.randn(2, 77, miniature.CONTEXT)
    with torch.no_grad():
        down, middle = control(x, torch.tensor(3), states)
        plain = unet(x, 3, states).sample
        steered = unet(
            x, 3, states, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
    assert torch.equal(plain, steered)


def test_a_saved_controlnet_comes_back(tmp_path, unet):
    controlnet = miniature.new_controlnet(unet)
    torch.nn.init.normal_(controlnet.controlnet_mid_block.weight)
    path = tmp_path / "openpose.safetensors"
    miniature.save_controlnet(path, controlnet, {"title": "x"})
    loaded = miniature.load_controlnet(path).state_dict()
    for name, tensor in controlnet.state_dict().items():
        assert torch.equal(loaded[name], tensor.half().float()), name
    with safe_open(str(path), "pt") as file:
        assert all(name.startswith(ldm_names.CONTROL) for name in file.keys())  # noqa: SIM118
        # The names by which ComfyUI knows an LDM ControlNet and the width of its hints.
        assert file.get_tensor("control_model.zero_convs.0.0.weight").shape[0] == 64
        assert file.get_tensor("control_model.input_hint_block.0.weight").shape[1] == 3


def test_a_damaged_controlnet_is_named(tmp_path):
    path = tmp_path / "openpose.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(BaseModelError, match=r"openpose\.safetensors is damaged"):
        miniature.load_controlnet(path)


def test_the_rare_token_begins_as_a_word_without_meaning():
    text_encoder = miniature.new_text_encoder()
    rows = text_encoder.get_input_embeddings().weight
    before = rows.detach().clone()
    miniature.settle_unseen(text_encoder)
    ids = vocabulary()[0]
    nonsense = before[[ids[word + "</w>"] for word in NONSENSE]].mean(0)
    assert torch.equal(rows[ids["sks</w>"]], nonsense)
    assert torch.equal(rows[ids["q</w>"]], nonsense)  # a piece of words that are not known
    for kept in ("man</w>", "zwx</w>", "4</w>", START, END):
        assert torch.equal(rows[ids[kept]], before[ids[kept]]), kept


def test_a_narrow_vae_computes_the_same_in_taesds_width():
    torch.manual_seed(0)
    narrow = miniature.new_vae(16, 24).eval()
    wide = miniature.widened(narrow).eval()
    assert {k: v.shape for k, v in wide.state_dict().items()} == {
        k: v.shape for k, v in miniature.new_vae().state_dict().items()
    }
    images = torch.rand(2, 3, 32, 24) * 2 - 1
    with torch.no_grad():
        latents = narrow.encode(images).latents
        assert torch.allclose(wide.encode(images).latents, latents, atol=1e-6)
        drawn = narrow.decode(latents).sample
        assert torch.allclose(wide.decode(latents).sample, drawn, atol=1e-6)

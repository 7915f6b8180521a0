import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from likeness.trainers import cpu
from likeness.trainers.cpu import Im2colConv2d, attention_in_fp32, use_im2col_convs
from torch import nn
from torch.overrides import TorchFunctionMode

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_few_weights_are_updated_by_one_thread_and_many_by_all(two_threads, monkeypatch):
    weights = [torch.zeros(8), torch.zeros(8)]
    for most, threads in ((17, 1), (16, 2)):
        monkeypatch.setattr(cpu, "SMALL_MODEL_PARAMETERS", most)
        with cpu.limited_threads(weights):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    monkeypatch.setattr(cpu, "SMALL_MODEL_PARAMETERS", 17)
    with pytest.raises(RuntimeError), cpu.limited_threads(weights):
        raise RuntimeError
    assert torch.get_num_threads() == 2


def both(channels=(6, 64), kernel=3, stride=1, padding=1, bias=True):
    """A convolution and the same one as a matrix product."""
    torch.manual_seed(0)
    plain = nn.Conv2d(*channels, kernel, stride, padding, bias=bias)
    holder = nn.Sequential(plain)
    use_im2col_convs(holder)
    assert type(holder[0]) is Im2colConv2d
    assert holder[0].weight is plain.weight
    return plain, holder[0]


@pytest.fixture
def never_convolved(monkeypatch):
    """Fails where an image is convolved after all."""
    monkeypatch.setattr(F, "conv2d", lambda *_, **__: pytest.fail("convolved"))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (1, 1, 0), (3, 2, 1), (3, 2, 0)]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("images", [1, 2, 4])  # of 6 pixels: few of them, and 24
def test_small_images_give_the_convolutions_values_and_gradients(
    kernel, stride, padding, bias, images, monkeypatch
):
    plain, ours = both((6, 400), kernel, stride, padding, bias)
    results = []
    for layer in (plain, ours):
        image = torch.linspace(-1, 1, images * 6 * 2 * 3).view(images, 6, 2, 3)
        image.requires_grad_()
        layer.zero_grad()
        output = layer(F.pad(image, (1, 1, 1, 1)) if padding == 0 and kernel == 3 else image)
        output.pow(2).sum().backward()
        results.append((output, image.grad, layer.weight.grad.clone()))
        monkeypatch.setattr(F, "conv2d", lambda *_, **__: pytest.fail("convolved"))
    for theirs, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_small_image_is_no_convolution(never_convolved):
    _, ours = both()
    assert ours(torch.zeros(2, 6, 2, 2)).shape == (2, 64, 2, 2)


def test_a_large_image_is_convolved(never_convolved):
    _, ours = both()
    with pytest.raises(pytest.fail.Exception, match="convolved"):
        ours(torch.zeros(2, 6, 8, 8))


def test_a_small_image_in_bf16_under_autocast():
    plain, ours = both()
    image = torch.randn(2, 6, 2, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(image)
        expected = plain(image)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=2e-2, atol=2e-2)
    output.float().sum().backward()
    assert image.grad.dtype == torch.float32


def test_layers_of_other_kinds_stay():
    special = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
    )
    use_im2col_convs(special)
    assert [type(layer) for layer in special] == [nn.Conv2d] * 3


def test_models_keep_their_tensors_names():
    model = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    )
    before = model.state_dict()
    use_im2col_convs(model)
    assert any(isinstance(module, Im2colConv2d) for module in model.modules())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(after[name].data_ptr() == before[name].data_ptr() for name in before)


def test_attention_computes_in_fp32_and_answers_in_the_dtype_asked():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 5, 8).bfloat16() for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16), attention_in_fp32():
        output = F.scaled_dot_product_attention(query, key, value)
    assert output.dtype == torch.bfloat16
    exact = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    assert torch.equal(output, exact.bfloat16())


class Watch(TorchFunctionMode):
    """Notes the dtype in which attention is asked for."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.seen.add((args[0] if args else kwargs["query"]).dtype)
        return func(*args, **kwargs)


def test_a_unet_and_a_text_encoder_ask_for_attention_where_it_is_caught():
    unet, text_encoder = (model.bfloat16() for model in MODELS["tiny"]())
    with Watch() as watch, attention_in_fp32():
        states = text_encoder(torch.arange(5)[None]).last_hidden_state
        assert watch.seen == {torch.float32}
        watch.seen.clear()
        assert unet(torch.randn(1, 4, 8, 8).bfloat16(), 3, states).sample.dtype == torch.bfloat16
        assert watch.seen == {torch.float32}


@pytest.mark.parametrize(("limit", "threads"), [(10, 2), (100, 1)])
def test_a_small_model_has_one_thread(limit, threads, two_threads, monkeypatch):
    monkeypatch.setattr(cpu, "SMALL_MODEL_PARAMETERS", limit)
    cpu.limit_threads(torch.nn.Linear(4, 4))  # 20 parameters
    assert torch.get_num_threads() == threads

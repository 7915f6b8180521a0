import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from likeness.comparison import clip
from likeness.comparison.encoder_files import encoder_path, first_clip, first_text
from likeness.comparison.encoders import (
    Encoder,
    EncoderFiles,
    MissingEncoder,
    PromptEncoder,
    encode_files,
    find_encoders,
)
from likeness.comparison.errors import ComparisonError
from likeness.comparison.face import Face
from likeness.comparison.matrix import ImageSettings
from likeness.comparison.vision import Preprocessing, read_preprocessing
from likeness.demo.random_model import write_small_tokenizer
from PIL import Image
from safetensors.torch import load_file, save_file


def images(count=3, size=(60, 90)):
    rng = np.random.default_rng(0)
    blocks = (rng.integers(0, 256, (5, 4, 3), dtype=np.uint8) for _ in range(count))
    return [Image.fromarray(block).resize(size, Image.Resampling.BICUBIC) for block in blocks]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP of random weights as transformers saves it, with a tokenizer."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    folder = tmp_path_factory.mktemp("clip")
    size = write_small_tokenizer(folder)
    shared = {"hidden_size": 64, "intermediate_size": 96, "projection_dim": 24}
    shared |= {"num_hidden_layers": 2, "num_attention_heads": 1}
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    text = CLIPTextConfig(vocab_size=size, hidden_act="gelu", **ends, **shared)
    vision = CLIPVisionConfig(image_size=28, patch_size=14, hidden_act="gelu", **shared)
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
    )
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def comfy_files(clip_folder, tmp_path_factory):
    """The same CLIP as ComfyUI's two folders have it."""
    folder, state = tmp_path_factory.mktemp("files"), load_file(clip_folder / "model.safetensors")
    for name, prefix in (("image", "vis"), ("text", "text_")):
        part = {key: value for key, value in state.items() if key.startswith(prefix)}
        save_file(part, folder / f"{name}.safetensors")
    return EncoderFiles(
        clip_image=folder / "image.safetensors",
        clip_text=folder / "text.safetensors",
        tokenizers=(clip_folder,),
        face=False,
    )


def only_clip(files):
    return find_encoders(files)[0][0]


def test_clip_of_a_folder_is_that_of_transformers(clip_folder):
    from transformers import CLIPModel

    clip = only_clip(EncoderFiles(clip_image=clip_folder, face=False))
    assert isinstance(clip, PromptEncoder)
    whole = CLIPModel.from_pretrained(clip_folder)
    shown = torch.stack([clip.image_encoder.load()[1](image) for image in images()])
    texts = ["a photo of an umbrella", "a man", "a photo of an umbrella"]
    ids = clip.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = whole(input_ids=ids, pixel_values=shown)
    vectors = clip.encode(images())
    np.testing.assert_allclose(vectors, expected.image_embeds.numpy(), atol=1e-5)
    match = clip.prompt_match(vectors, texts)
    cosines = expected.image_embeds @ expected.text_embeds.T
    np.testing.assert_allclose(match, cosines.diagonal().numpy(), atol=1e-5)


def test_images_are_shown_as_transformers_shows_them(clip_folder):
    from transformers import CLIPImageProcessor

    clip = only_clip(EncoderFiles(clip_image=clip_folder, face=False))
    processor = CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    for size in (
        (61, 90),
        (200, 40),
        (28, 28),
        (40, 57),
        (768, 1024),
    ):  # 39.9 pixels of the last: 39
        (image,) = images(1, size)
        expected = processor(image, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(clip.image_encoder.load()[1](image).numpy(), expected, atol=0.03)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"size": {"shortest_edge": 256}},
        {"size": {"shortest_edge": 200}},
        {"size": {"height": 240, "width": 240}},
        {"size": {"height": 224, "width": 224}, "do_center_crop": False},
        {"resample": 0},
        {"resample": 2},
    ],
)
def test_768_by_1024_and_preprocessing_other_than_usual_were_shown_unlike_in_transformers(
    tmp_path, config
):
    from transformers import CLIPImageProcessor

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    usual = Preprocessing(224, 224, clip.MEAN, clip.STD)
    for size in ((768, 1024), (1024, 768), (300, 300)):
        (image,) = images(1, size)
        expected = CLIPImageProcessor(**config)(image, return_tensors="np")["pixel_values"][0]
        shown = read_preprocessing(tmp_path, usual)(image).numpy()
        np.testing.assert_allclose(shown, expected, atol=1e-5)


def test_preprocessing_without_a_crop_shows_a_square(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"do_center_crop": false}')
    usual = Preprocessing(32, 28, clip.MEAN, clip.STD)
    (image,) = images(1, (60, 90))
    assert read_preprocessing(tmp_path, usual)(image).shape == (3, 32, 32)


def test_clip_in_comfyuis_files_gives_the_same(clip_folder, comfy_files):
    folder = only_clip(EncoderFiles(clip_image=clip_folder, face=False))
    files = only_clip(comfy_files)
    vectors = folder.encode(images())
    np.testing.assert_allclose(files.encode(images()), vectors, atol=1e-5)
    texts = ["a man", "umbrella", "on the street"]
    np.testing.assert_allclose(
        files.prompt_match(vectors, texts), folder.prompt_match(vectors, texts), atol=1e-5
    )
    assert files.name == "CLIP (image.safetensors, text.safetensors)"


def open_clip_names(state):
    """CLIP's tensors as open_clip stores them: its modules are torch's own."""
    plain = {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "pre_layrnorm": "ln_pre",
        "post_layernorm": "ln_post",
        "final_layer_norm": "ln_final",
        "encoder.layers": "transformer.resblocks",
        "layer_norm": "ln_",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn": "attn",
    }
    found = {
        "visual.proj": state["visual_projection.weight"].T,
        "text_projection": state["text_projection.weight"].T,
    }
    for name in state:
        part, _, rest = name.partition(".")
        if part not in ("vision_model", "text_model") or "k_proj" in rest or "v_proj" in rest:
            continue
        value = state[name]
        if "q_proj" in rest:
            value = torch.cat([state[name.replace("q_proj", f"{one}_proj")] for one in "qkv"])
            rest = rest.replace("q_proj.", "in_proj_")
        for theirs, ours in plain.items():
            rest = rest.replace(theirs, ours)
        found[("visual." if part == "vision_model" else "") + rest] = value
    return {name: value.contiguous() for name, value in found.items()}


def test_clip_in_open_clips_names_gives_the_same(clip_folder, tmp_path):
    path = tmp_path / "open_clip_pytorch_model.safetensors"
    save_file(open_clip_names(load_file(clip_folder / "model.safetensors")), path)
    assert first_clip([path]) == path == first_text([path], path)
    folder = only_clip(EncoderFiles(clip_image=clip_folder, face=False))
    files = EncoderFiles(clip_image=path, tokenizers=(clip_folder,), face=False)
    theirs = only_clip(files)
    vectors = folder.encode(images())
    np.testing.assert_allclose(theirs.encode(images()), vectors, atol=1e-5)
    texts = ["a man", "umbrella", "on the street"]
    np.testing.assert_allclose(
        theirs.prompt_match(vectors, texts), folder.prompt_match(vectors, texts), atol=1e-5
    )


def test_an_image_encoder_alone_judges_no_prompts(comfy_files):
    clip = only_clip(EncoderFiles(clip_image=comfy_files.clip_image, face=False))
    assert isinstance(clip, Encoder) and not isinstance(clip, PromptEncoder)


def test_halves_of_two_clips_are_refused(comfy_files, tmp_path):
    state = load_file(comfy_files.clip_text)
    state["text_projection.weight"] = torch.zeros(8, 64)
    save_file(state, tmp_path / "other.safetensors")
    files = EncoderFiles(
        clip_image=comfy_files.clip_image,
        clip_text=tmp_path / "other.safetensors",
        tokenizers=comfy_files.tokenizers,
    )
    with pytest.raises(
        ComparisonError, match=r"width 24, other\.safetensors text embeddings of width 8"
    ):
        find_encoders(files)


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("text_projection.weight", "lacks text_projection.weight"),
        ("text_model.final_layer_norm.bias", "lacks text_model.final_layer_norm.bias"),
    ],
)
def test_an_incomplete_text_encoder_says_what_it_lacks(comfy_files, tmp_path, without, message):
    state = load_file(comfy_files.clip_text)
    del state[without]
    save_file(state, tmp_path / "part.safetensors")
    files = EncoderFiles(
        clip_image=comfy_files.clip_image,
        clip_text=tmp_path / "part.safetensors",
        tokenizers=comfy_files.tokenizers,
    )
    with pytest.raises(ComparisonError, match=message):
        find_encoders(files)


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "text.safetensors").write_bytes(b"not a model")
    with pytest.raises(ComparisonError, match=r"text\.safetensors cannot be used"):
        find_encoders(EncoderFiles(clip_image=tmp_path / "text.safetensors"))
    with pytest.raises(ComparisonError, match=r"config\.json cannot be read"):
        find_encoders(EncoderFiles(dino=tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ComparisonError, match="not DINOv2's"):
        find_encoders(EncoderFiles(dino=tmp_path))


def test_dinov2_of_a_folder_is_that_of_transformers(tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    model = Dinov2Model(
        Dinov2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
        )
    ).eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["attn_implementation"] = "somebody/kernel"  # transformers would fetch and run it
    (tmp_path / "config.json").write_text(json.dumps(config))
    (dino,), _ = find_encoders(EncoderFiles(dino=tmp_path, face=False))
    loaded, preprocessing = dino.load()
    assert loaded.config._attn_implementation == "sdpa"
    shown = torch.stack([preprocessing(image) for image in images()])
    assert shown.shape == (3, 3, 224, 224)
    with torch.no_grad():
        token = model(pixel_values=shown).last_hidden_state[:, 0]
    vectors = dino.encode(images())
    expected = torch.nn.functional.normalize(token, dim=-1).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(dino.likeness(vectors, vectors).diagonal(), 1, atol=1e-5)


def test_what_is_not_installed_is_a_line_that_says_what_to_do(monkeypatch):
    from likeness.comparison import face

    def no_judge(image):
        raise MissingEncoder("The judge is left out: install demo/.")

    monkeypatch.setattr(face, "find_spec", lambda name: None)
    found, missing = find_encoders(EncoderFiles(), extra_finders=[no_judge])
    assert found == []
    assert [line.split(" is left out")[0] for line in missing] == [
        "CLIP", "DINOv2", "The face score", "The judge",
    ]  # fmt: skip
    assert "models/clip_vision" in missing[0] and "pip install dlib-bin" in missing[2]
    assert not any("\n" in line for line in missing)


def test_an_encoder_that_knows_nothing_of_such_images_is_left_out_in_silence():
    asked = []
    found, missing = find_encoders(
        EncoderFiles(), extra_finders=[asked.append], settings=ImageSettings(width=64)
    )
    assert found == []
    assert [line.split(" is left out")[0] for line in missing] == ["CLIP", "DINOv2"]
    assert asked == [ImageSettings(width=64)]


class Counting:
    """Mean colours, and how many images were encoded."""

    key, name, digest, identity_only = "mean", "mean colour", "d" * 64, False

    def __init__(self):
        self.count = 0

    def encode(self, images):
        self.count += len(images)
        return np.stack([np.asarray(p, np.float32).mean((0, 1)) for p in images])

    def likeness(self, a, b):
        return -np.abs(a[:, None] - b[None]).mean(-1)


@pytest.fixture
def files(tmp_path):
    paths = []
    for number, image in enumerate(images(40, (8, 8))):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    return paths


def test_an_image_is_encoded_once_whatever_it_is_called(files, tmp_path):
    encoder, cache = Counting(), tmp_path / "cache"
    first = encode_files(encoder, files, cache)
    assert encoder.count == 40 and first.shape == (40, 3)
    copy = tmp_path / "copy.png"
    copy.write_bytes(files[7].read_bytes())
    again = encode_files(encoder, [copy, *files[:2], copy], cache)
    assert encoder.count == 40
    np.testing.assert_array_equal(again, first[[7, 0, 1, 7]])
    other = Counting()
    other.digest = "e" * 64
    encode_files(other, files[:2], cache)
    assert other.count == 2, "another encoder has vectors of its own"


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY damaged", b"\x80\x04]"])
def test_a_damaged_cache_is_made_anew(files, tmp_path, damage):
    encoder, cache = Counting(), tmp_path / "cache"
    expected = encode_files(encoder, files[:1], cache)
    (kept,) = cache.rglob("*.npy")
    kept.write_bytes(damage)
    np.testing.assert_array_equal(encode_files(encoder, files[:1], cache), expected)
    assert encoder.count == 2


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(ComparisonError, match=r"x\.png cannot be scored"):
        encode_files(Counting(), [tmp_path / "x.png"])
    with pytest.raises(ComparisonError, match=r"y\.png cannot be read"):
        encode_files(Counting(), [tmp_path / "y.png"])


def test_a_folder_without_a_projection_says_what_it_lacks(clip_folder, tmp_path):
    """transformers would fill it with random numbers, other ones each time."""
    state = load_file(clip_folder / "model.safetensors")
    lame = {key: value for key, value in state.items() if key != "visual_projection.weight"}
    shutil.copytree(clip_folder, tmp_path / "clip")
    save_file(lame, tmp_path / "clip" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ComparisonError, match=r"lacks visual_projection\.weight"):
        only_clip(EncoderFiles(clip_image=tmp_path / "clip", face=False)).encode(images())


def test_an_image_encoder_of_an_unknown_large_width_is_refused():
    assert [clip._num_heads(width) for width in (384, 768, 1408)] == [6, 12, 16]
    with pytest.raises(ValueError, match="width 1536 are not known"):
        clip._num_heads(1536)


def test_a_weights_file_beside_a_config_of_others_is_itself(tmp_path):
    for name in ("config.json", "model.safetensors", "clip_vision_l.safetensors"):
        (tmp_path / name).write_text("{}")
    assert encoder_path(tmp_path / "model.safetensors") == tmp_path
    assert encoder_path(tmp_path / "clip_vision_l.safetensors").name == "clip_vision_l.safetensors"


def test_the_largest_face_counts_and_faces_far_apart_are_less_alike():
    def detector(pixels, enlarged):
        areas = {255: (9, 50), 0: ()}[int(pixels[0, 0, 0])]
        return [SimpleNamespace(area=lambda area=area: area) for area in areas]

    network = SimpleNamespace(compute_face_descriptor=lambda pixels, face: [face.area()] * 128)
    encoder = Face(detector, lambda pixels, face: face, network, "d" * 64)
    seen = encoder.encode([Image.new("RGB", (8, 8), colour) for colour in ("white", "black")])
    assert (seen[0] == 50).all() and np.isnan(seen[1]).all()
    a, b = np.zeros((1, 128), np.float32), np.zeros((2, 128), np.float32)
    b[1, 0] = 0.6
    assert encoder.likeness(a, b)[0] == pytest.approx([1.0, 0.4])


def test_encoders_were_loaded_though_all_their_vectors_were_remembered(comfy_files, tmp_path):
    cache, asked, paths = tmp_path / "cache", [], []
    for number, image in enumerate(images()):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    alone = EncoderFiles(clip_image=comfy_files.clip_image, face=False)
    for _ in range(2):
        (encoder,), _ = find_encoders(alone, device=lambda size: asked.append(size) or "cpu")
        first = encode_files(encoder, paths, cache)
    assert first.shape == (len(paths), 24)
    # Room is made for as much as the file takes in fp32, and once.
    assert asked == [4 * sum(t.numel() for t in load_file(alone.clip_image).values())]

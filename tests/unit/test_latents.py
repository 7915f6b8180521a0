"""Encoded images: scaled as the UNet sees them, cached by content, safe against damage."""

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from likeness.trainers import latents as module
from likeness.trainers import tensor_cache
from likeness.trainers.errors import RunFailed, SubjectError
from likeness.trainers.latents import encode_images
from likeness.trainers.tensor_cache import write_tensor_cache

CPU = torch.device("cpu")


@dataclass
class Item:
    key: str
    array: np.ndarray
    reads: int = 0

    def pixels(self):
        self.reads += 1
        return self.array


def items(*shapes):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    return [Item(f"item {index}", array) for index, array in enumerate(arrays)]


@pytest.fixture(scope="module")
def kl():
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()


def files(cache):
    return sorted(cache.rglob("*.safetensors"))


def equal(one, two):
    return all(
        torch.equal(a.mean, b.mean) and torch.equal(a.std, b.std)
        for a, b in zip(one, two, strict=True)
    )


def test_images_that_do_not_fit_together_are_encoded_one_by_one(kl, monkeypatch):
    real, tried = module.encode, []

    def encode(vae, pixels, device):
        tried.append(len(pixels))
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(vae, pixels, CPU)

    monkeypatch.setattr(module, "encode", encode)
    given = items((32, 32), (32, 32), (32, 32))
    found = encode_images(kl, given, cache=None, vae_digest="v", device=torch.device("cuda"))
    assert tried == [3, 1, 1, 1]
    monkeypatch.undo()
    assert equal(found, encode_images(kl, given, cache=None, vae_digest="v", device=CPU))


def test_an_image_that_does_not_fit_alone_is_an_error(kl, monkeypatch):
    def encode(vae, pixels, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "encode", encode)
    with pytest.raises(torch.OutOfMemoryError):
        encode_images(kl, items((32, 32)), cache=None, vae_digest="v", device=CPU)


def test_latents_are_the_scaled_posterior(kl, tmp_path):
    (item,) = items((32, 48))
    (latents,) = encode_images(kl, [item], cache=tmp_path, vae_digest="v", device=CPU)
    image = torch.from_numpy(item.array).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        posterior = kl.encode(image).latent_dist
    assert latents.mean.shape == (4, 4, 6)
    torch.testing.assert_close(latents.mean, posterior.mean[0] * 0.18215)
    torch.testing.assert_close(latents.std, posterior.std[0] * 0.18215)
    assert not latents.mean.requires_grad
    assert not latents.mean.is_inference()


def test_a_tiny_autoencoder_has_no_deviation(tmp_path):
    torch.manual_seed(0)
    vae = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    (item,) = items((32, 32))
    (latents,) = encode_images(vae, [item], cache=None, vae_digest="v", device=CPU)
    image = torch.from_numpy(item.array).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(latents.mean, vae.encode(image).latents[0])
    assert not latents.std.any()


def test_the_second_time_nothing_is_read_or_encoded(kl, tmp_path):
    things, told = items((32, 32), (32, 48), (32, 32)), []
    first = encode_images(kl, things, cache=tmp_path, vae_digest="v", device=CPU,
                          progress=lambda *at: told.append(at))  # fmt: skip
    again = encode_images(kl, things, cache=tmp_path, vae_digest="v", device=CPU)
    assert [item.reads for item in things] == [1, 1, 1]
    assert equal(first, again)
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [tuple(one.mean.shape) for one in again] == [(4, 4, 4), (4, 4, 6), (4, 4, 4)]


def test_what_changes_the_latents_changes_the_file(kl, tmp_path, monkeypatch):
    (item,) = items((32, 32))
    encode_images(kl, [item], cache=tmp_path, vae_digest="v", device=CPU)
    encode_images(kl, [item], cache=tmp_path, vae_digest="other", device=CPU)
    encode_images(kl, [Item("other", item.array)], cache=tmp_path, vae_digest="v", device=CPU)
    kl.bfloat16()
    encode_images(kl, [item], cache=tmp_path, vae_digest="v", device=CPU)
    kl.float()
    monkeypatch.setattr(module, "_CACHE_VERSION", "of another version")
    encode_images(kl, [item], cache=tmp_path, vae_digest="v", device=CPU)
    assert len(files(tmp_path)) == 5


@pytest.mark.parametrize("damage", ["short", "empty", "flipped bit", "text", "folder"])
def test_a_damaged_cache_file_is_written_anew(kl, tmp_path, damage):
    (item,) = items((32, 32))
    first = encode_images(kl, [item], cache=tmp_path, vae_digest="v", device=CPU)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        flipped = bytearray(whole)
        flipped[-5] ^= 1
        content = {"short": whole[:-20], "empty": b"", "flipped bit": flipped, "text": b"x" * 99}
        file.write_bytes(content[damage])
    again = encode_images(kl, [item], cache=tmp_path, vae_digest="v", device=CPU)
    assert item.reads == 2
    assert equal(first, again)
    if damage != "folder":
        assert file.read_bytes() == whole
    assert files(tmp_path) == [file]


def test_a_full_disk_is_told_once_and_the_latents_are_still_there(kl, tmp_path, monkeypatch):
    def full(path, data, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    things, told = items((32, 32), (32, 32)), []
    expected = encode_images(kl, things, cache=None, vae_digest="v", device=CPU)
    monkeypatch.setattr(tensor_cache, "write_atomic", full)
    latents = encode_images(kl, things, cache=tmp_path, vae_digest="v", device=CPU,
                            notice=told.append)  # fmt: skip
    assert equal(latents, expected)
    assert len(told) == 1
    assert "No space left" in told[0]
    assert files(tmp_path) == []


def test_processes_share_the_encoding_and_read_what_the_others_wrote(kl, tmp_path, monkeypatch):
    real, meet, encoded = module.encode, threading.Barrier(2), []

    def encode(vae, pixels, device):
        encoded.append(len(pixels))
        return real(vae, pixels, device)

    monkeypatch.setattr(module, "encode", encode)
    given = items(*[(32, 32)] * 5)

    def run(rank, cache):
        return encode_images(kl, given, cache=cache, vae_digest="v", device=CPU,
                             rank_and_world=(rank, 2), wait=lambda: meet.wait(60))  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda rank: run(rank, tmp_path), (0, 1))
    assert sum(encoded) == 5 and equal(first, second)
    encoded.clear()
    with ThreadPoolExecutor(2) as pool:  # machines that share no cache
        apart = list(pool.map(lambda rank: run(rank, tmp_path / str(rank)), (0, 1)))
    assert sum(encoded) == 10 and all(equal(first, one) for one in apart)


def test_values_do_not_depend_on_what_was_cached(kl, tmp_path):
    things = items(*[(32, 32)] * 5)
    whole = encode_images(kl, things, cache=None, vae_digest="v", device=CPU)
    encode_images(kl, things[1:3], cache=tmp_path, vae_digest="v", device=CPU)
    assert equal(whole, encode_images(kl, things, cache=tmp_path, vae_digest="v", device=CPU))


def test_images_of_one_size_are_batched(monkeypatch):
    things = items((16, 16), (16, 24), (16, 16), (16, 16), (16, 24), (16, 16))
    batches = list(module._batches(range(6), things, size=3))
    assert [indices for indices, _ in batches] == [[0, 2, 3], [1, 4], [5]]
    assert [pixels.shape for _, pixels in batches] == [
        (3, 16, 16, 3),
        (2, 16, 24, 3),
        (1, 16, 16, 3),
    ]
    for indices, pixels in batches:
        for index, one in zip(indices, pixels, strict=True):
            assert np.array_equal(one, things[index].array)


def test_few_images_are_held_at_once():
    things = items(*[(8, 8)] * 40)
    loaded = module._prefetch(range(40), things, prefetch=4)
    next(loaded)
    assert sum(item.reads for item in things) <= 6
    assert len(list(loaded)) == 39


def test_an_image_that_cannot_be_read_stops_with_its_own_error(kl, tmp_path):
    class Gone(Item):
        def pixels(self):
            raise SubjectError("photo.jpg has changed")

    with pytest.raises(SubjectError, match=r"photo\.jpg"):
        encode_images(kl, [*items((32, 32)), Gone("x", None)], cache=tmp_path, vae_digest="v",
                      device=CPU)  # fmt: skip


def test_memory_stays_flat_however_many_images_there_are(kl, tmp_path, monkeypatch):
    things = items(*[(32, 32)] * 5)
    expected = encode_images(kl, things, cache=None, vae_digest="v", device=CPU)
    size = expected[0].mean.nbytes + expected[0].std.nbytes
    monkeypatch.setattr(module, "MAX_CACHED_BYTES", 2 * size)
    for _ in ("encoded", "cached"):
        latents = encode_images(kl, things, cache=tmp_path, vae_digest="v", device=CPU)
        assert sum(isinstance(one, module.Latents) for one in latents) == 2
        assert equal([one.read() for one in latents], expected)


def test_latents_that_were_not_written_are_held(kl, tmp_path, monkeypatch):
    def full(path, data, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_cache, "write_atomic", full)
    monkeypatch.setattr(module, "MAX_CACHED_BYTES", 0)
    latents = encode_images(kl, items((32, 32)), cache=tmp_path, vae_digest="v", device=CPU)
    assert isinstance(latents[0], module.Latents)


def test_a_cache_emptied_while_training_is_told_with_the_mend(kl, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED_BYTES", 0)
    (latents,) = encode_images(kl, items((32, 32)), cache=tmp_path, vae_digest="v", device=CPU)
    (file,) = files(tmp_path)
    file.unlink()
    with pytest.raises(RunFailed, match="Start the run again"):
        latents.read()


def test_100_000_cached_images_are_not_100_000_mapped_files(kl, tmp_path):
    things = items((32, 32))
    encode_images(kl, things, cache=tmp_path, vae_digest="v", device=CPU)
    (latents,) = encode_images(kl, things, cache=tmp_path, vae_digest="v", device=CPU)
    assert latents.mean.untyped_storage().filename is None


@pytest.mark.parametrize("numbers", [(float("nan"), 1.0), (0.0, float("inf"))])
def test_wrong_numbers_of_the_vae_were_kept_for_all_later_runs(tmp_path, numbers):
    class Broken(torch.nn.Module):
        config = SimpleNamespace(scaling_factor=1.0)
        dtype = torch.float32

        def encode(self, images):
            mean, std = (torch.full((len(images), 4, 8, 8), number) for number in numbers)
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=std))

    item = SimpleNamespace(key="a", pixels=lambda: np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(RunFailed, match="NaN or infinite"):
        encode_images(Broken(), [item], cache=tmp_path, vae_digest="d", device=torch.device("cpu"))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_wrong_numbers_that_a_cache_has_are_encoded_again(kl, tmp_path):
    (item,) = items((32, 32))
    first = encode_images(kl, [item], cache=tmp_path, vae_digest="v", device=CPU)
    (file,) = files(tmp_path)
    (latents,) = first
    write_tensor_cache(file, {"mean": latents.mean * float("nan"), "deviation": latents.std})
    assert equal(first, encode_images(kl, [item], cache=tmp_path, vae_digest="v", device=CPU))
    assert item.reads == 2

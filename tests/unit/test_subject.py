"""Photographs as users have them: turned, cut off, tiny, doubled, in every mode and aspect."""

import io
import os
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from likeness.trainers import subject
from likeness.trainers.errors import MissingPackage, SubjectError
from likeness.trainers.image_io import strict_decoding
from likeness.trainers.photo_files import abbreviate
from likeness.trainers.recipe import Subject
from likeness.trainers.subject import (
    NoUsablePhotos,
    load_pixels,
    read_subject,
    split_holdout,
)
from PIL import Image, ImageCms, ImageFile
from pillow_heif import register_heif_opener

SMALL = Subject(resolution=64)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def make_image(width=80, height=80, seed=0, mode="RGB"):
    """A smooth coloured image, so that JPEG and resizing change it little."""
    corners = np.random.default_rng(seed).integers(0, 255, (2, 2, 3), dtype=np.uint8)
    small = Image.fromarray(corners)
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


register_heif_opener()


def put(folder: Path, name: str, image=None, **options) -> Path:
    path = folder / name
    (image or make_image(seed=sum(name.encode()))).save(path, **options)
    return path


def reasons(photos):
    return {item.name: item.reason for item in photos.refused}


def test_file_names_never_change_the_set(tmp_path):
    for folder, names in (("one", "abc"), ("two", "zxy")):
        (tmp_path / folder).mkdir()
        for seed, name in enumerate(names):
            put(tmp_path / folder, f"{name}.png", make_image(seed=seed))
    one, two = (read_subject(tmp_path / name, SMALL) for name in ("one", "two"))
    assert one.digest == two.digest
    assert [p.digest for p in one.photos] == [p.digest for p in two.photos]
    put(tmp_path / "two", "more.png")
    assert read_subject(tmp_path / "two", SMALL).digest != one.digest


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "heic"])
def test_a_turned_photograph_is_trained_upright(tmp_path, orientation, suffix):
    upright = np.zeros((80, 120, 3), np.uint8)  # red above left, green above right, blue below
    upright[:40, :60], upright[:40, 60:], upright[40:] = RED, GREEN, BLUE
    # how a camera held in each way stores that scene: the inverse of the turn to show it
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    put(tmp_path, f"a.{suffix}", image, exif=exif.tobytes(), quality=95)
    (photo,) = read_subject(tmp_path, SMALL).photos
    assert (photo.width, photo.height) == (120, 80)
    pixels = load_pixels(photo).astype(int)
    for (y, x), colour in {(10, 10): RED, (10, 54): GREEN, (54, 32): BLUE}.items():
        assert np.abs(pixels[y, x] - colour).max() < 40


def test_a_damaged_tag_beside_the_orientation_does_not_leave_a_photograph_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[274], exif[305] = 6, "Software"
    damaged = bytearray(exif.tobytes())
    damaged[damaged.index(b"\x01\x31") : damaged.index(b"\x01\x31") + 2] = b"\x01\x00"
    put(tmp_path, "a.jpg", Image.new("RGB", (120, 80)), exif=bytes(damaged))
    (photo,) = read_subject(tmp_path, SMALL).photos
    assert (photo.width, photo.height) == (80, 120)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((80, 80), 128 * 257, np.uint16))
        expected = np.full((64, 64, 3), 128)
    else:
        image = make_image(mode=mode)
        expected = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS))
    suffix = "tiff" if mode == "CMYK" else "png"
    put(tmp_path, f"a.{suffix}", image)
    (photo,) = read_subject(tmp_path, SMALL).photos
    pixels = load_pixels(photo)
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(tmp_path, mode):
    image = Image.new("RGBA", (80, 80), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 40, 80))
    put(tmp_path, "a.png", image.convert(mode))
    (photo,) = read_subject(tmp_path, SMALL).photos
    pixels = load_pixels(photo)
    assert pixels[32, 4].tolist() == [0, 0, 0]
    assert pixels[32, 60].tolist() == [255, 255, 255]


def profile_with_red_and_green_swapped() -> bytes:
    """The sRGB profile, with the tags of two primaries pointing at each other's place."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ") + 4, data.index(b"gXYZ") + 4
    data[red : red + 4], data[green : green + 4] = data[green : green + 4], data[red : red + 4]
    return bytes(data)


def test_an_embedded_profile_is_used(tmp_path):
    red = Image.new("RGB", (80, 80), RED)
    put(tmp_path, "a.png", red, icc_profile=profile_with_red_and_green_swapped())
    (photo,) = read_subject(tmp_path, SMALL).photos
    assert np.abs(load_pixels(photo)[32, 32].astype(int) - GREEN).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_profile_that_does_not_fit_is_ignored(tmp_path, mode):
    profile = b"broken" if mode == "RGB" else profile_with_red_and_green_swapped()
    put(tmp_path, "a.png", Image.new(mode, (80, 80), "white"), icc_profile=profile)
    (photo,) = read_subject(tmp_path, SMALL).photos
    assert load_pixels(photo)[32, 32].tolist() == [255, 255, 255]


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (80, 80), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (photo,) = read_subject(tmp_path, SMALL).photos
    assert load_pixels(photo)[32, 32].tolist() == list(RED)


def test_refused_files_say_why_and_the_rest_is_used(tmp_path):
    put(tmp_path, "good.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "good.png").read_bytes())
    put(tmp_path, "tiny.png", make_image(63, 200))
    cut = put(tmp_path, "cut.jpg", make_image(300, 300)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    cut = put(tmp_path, "cut.png", make_image(300, 300)).read_bytes()
    (tmp_path / "cut.png").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "notes.md").write_text("not an image")
    (tmp_path / "caption.txt").write_text("passed over")
    (tmp_path / ".hidden.png").write_bytes(b"passed over")
    (tmp_path / "inner").mkdir()
    photos = read_subject(tmp_path, SMALL)
    told = reasons(photos)
    assert len(photos.photos) == 1
    assert set(told) == {"copy.png", "good.png", "tiny.png", "cut.jpg", "cut.png",
                         "empty.png"} - {photos.photos[0].path.name}  # fmt: skip
    assert "a copy of" in told.get("good.png", told.get("copy.png"))
    assert "63x200" in told["tiny.png"]
    assert "64x64 is needed" in told["tiny.png"]
    assert "damaged or truncated" in told["cut.jpg"]
    assert "damaged or truncated" in told["cut.png"]
    assert "not an image" in told["empty.png"]
    assert photos.notes == (
        "Sub-folders are not read: inner.",
        "1 other file is not used: .md.",
    )


def test_a_cut_off_image_is_refused_where_a_host_is_lenient(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    put(tmp_path, "good.png")
    cut = put(tmp_path, "cut.jpg", make_image(300, 300)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    assert set(reasons(read_subject(tmp_path, SMALL))) == {"cut.jpg"}
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_1_500_photographs_are_not_decoded_one_after_another(tmp_path, monkeypatch):
    """Each waits for another one: read in turn they would wait until the barrier breaks."""
    for number in range(4):
        put(tmp_path, f"{number}.png", make_image(seed=number))
    together, read = threading.Barrier(2, timeout=30), subject.read_photo

    def meet(*given):
        together.wait()
        return read(*given)

    monkeypatch.setattr(subject, "read_photo", meet)
    assert len(read_subject(tmp_path, SMALL).photos) == 4


def test_photographs_were_all_read_after_a_cancel(tmp_path, monkeypatch):
    for number in range(40):
        put(tmp_path, f"{number:02d}.png", make_image(seed=number))
    read, seen = [], []
    monkeypatch.setattr(subject, "read_photo", slowly(subject.read_photo, read))

    def cancelled_at_the_third(path):
        seen.append(path.name)
        if len(seen) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        read_subject(tmp_path, SMALL, on_read=cancelled_at_the_third)
    assert seen == ["00.png", "01.png", "02.png"]
    assert len(read) < 20


def slowly(read_photo, read):
    def wait(*given):
        read.append(given[0])
        time.sleep(0.01)
        return read_photo(*given)

    return wait


def test_reading_in_threads_leaves_the_hosts_setting_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for number in range(8):
        put(tmp_path, f"{number}.png", make_image(seed=number))
    read_subject(tmp_path, SMALL)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_decompression_bomb_is_refused_unopened(tmp_path):
    put(tmp_path, "good.png")
    bomb = bytearray(put(tmp_path, "bomb.bmp", make_image(8, 8)).read_bytes())
    bomb[18:26] = (40_000).to_bytes(4, "little") * 2
    (tmp_path / "bomb.bmp").write_bytes(bomb)
    assert "million pixels" in reasons(read_subject(tmp_path, SMALL))["bomb.bmp"]


def test_nothing_is_started_to_read_postscript(tmp_path):
    put(tmp_path, "good.png")
    put(tmp_path, "page.eps", make_image())
    assert "not an image" in reasons(read_subject(tmp_path, SMALL))["page.eps"]


def test_folders_without_photographs(tmp_path):
    with pytest.raises(SubjectError, match="does not exist"):
        read_subject(tmp_path / "absent", SMALL)
    with pytest.raises(SubjectError, match="no photographs"):
        read_subject(tmp_path, SMALL)
    put(tmp_path, "tiny.png", make_image(20, 20))
    with pytest.raises(SubjectError, match=r"(?s)can be used.*tiny\.png: .*20x20"):
        read_subject(tmp_path, SMALL)


def test_equal_reasons_why_no_photograph_can_be_used_are_one_line(tmp_path):
    for number in range(5):
        put(tmp_path, f"{number}.png", make_image(20 + number % 2, 20))
    with pytest.raises(NoUsablePhotos) as refused:
        read_subject(tmp_path, SMALL)
    _, *lines = str(refused.value).splitlines()
    assert [line.partition(": it is")[0] for line in lines] == [
        "- 0.png, 2.png, 4.png",
        "- 1.png, 3.png",
    ]
    assert [one.name for one in refused.value.refused] == [f"{n}.png" for n in range(5)]
    assert abbreviate("abcde") == "a, b, c and 2 more"


def test_a_small_photograph_is_enlarged_only_as_far_as_asked(tmp_path):
    put(tmp_path, "small.png", make_image(48, 60))
    with pytest.raises(SubjectError, match=r"subject\.enlarge to 1\.4"):
        read_subject(tmp_path, Subject(resolution=64, enlarge=1.3))
    with pytest.raises(SubjectError, match=r"lower resolution$"):
        read_subject(tmp_path, Subject(resolution=256, enlarge=4))
    photos = read_subject(tmp_path, Subject(resolution=64, enlarge=1.4))
    assert load_pixels(photos.photos[0]).shape == (64, 64, 3)
    assert photos.notes == ("small.png: enlarged 1.33 times; the model also learns its blur.",)


def test_other_programs_files_were_refused_as_photographs_one_by_one(tmp_path):
    for number in range(3):
        put(tmp_path, f"{number}.png", make_image(seed=number))
        np.savez(tmp_path / f"{number}.npz", latents=np.zeros(4))
    for name in ("meta.json", "META.JSON", "desktop.ini", "LICENSE", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_text("Python's and others' texts")  # begins as PPM does
    photos = read_subject(tmp_path, SMALL)
    assert len(photos.photos) == 3 and not photos.refused
    assert photos.notes == ("8 other files are not used: .npz, .json, LICENSE and 2 more.",)


def test_a_folder_of_nothing_but_other_files_is_said_to_have_no_photographs(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(NoUsablePhotos, match=r"has no photographs; add some\.\n1 other file is"):
        read_subject(tmp_path, SMALL)
    put(tmp_path, "tiny.png", make_image(20, 20))
    with pytest.raises(NoUsablePhotos, match=r"(?s)can be used:\n- tiny\.png: .*\n1 other file is"):
        read_subject(tmp_path, SMALL)


def test_an_image_is_used_whatever_its_name_and_a_raw_file_is_refused_by_it(tmp_path):
    for name in ("scan", "photo.jpg_large", "portrait v1.2"):
        put(tmp_path, name, make_image(seed=len(name)), format="JPEG")
    (tmp_path / "DSC_1.NEF").write_bytes(b"MM\0*raw")
    photos = read_subject(tmp_path, SMALL)
    assert len(photos.photos) == 3 and set(reasons(photos)) == {"DSC_1.NEF"}


def test_holdout_must_leave_a_photograph(tmp_path):
    for name in "abc":
        put(tmp_path, f"{name}.png")
    assert len(read_subject(tmp_path, Subject(resolution=64, holdout=2)).photos) == 3
    with pytest.raises(SubjectError, match="holdout below 3"):
        read_subject(tmp_path, Subject(resolution=64, holdout=3))


def test_captions(tmp_path):
    for name in ("first", "second", "third", "fourth"):
        put(tmp_path, f"{name}.png")
    (tmp_path / "first.txt").write_bytes("\ufeffsks  mañ,\nin a café\n".encode())
    (tmp_path / "third.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "fourth.txt").write_text(" \n")
    plain = read_subject(tmp_path, SMALL)
    told = read_subject(tmp_path, Subject(resolution=64, captions=True))
    by_name = {photo.path.stem: photo.caption for photo in told.photos}
    assert by_name["first"] == "sks mañ, in a café"
    assert by_name["second"] is by_name["third"] is by_name["fourth"] is None
    assert len(told.notes) == 3
    assert all(photo.caption is None for photo in plain.photos)
    (tmp_path / "second.txt").write_text("sks " * 1_000_000)
    read = read_subject(tmp_path, Subject(resolution=64, captions=True)).photos
    assert len({photo.path.stem: photo.caption for photo in read}["second"]) <= 100_000
    assert plain.digest != told.digest
    (tmp_path / "first.txt").write_text("another caption")
    assert read_subject(tmp_path, Subject(resolution=64, captions=True)).digest != told.digest
    assert read_subject(tmp_path, SMALL).digest == plain.digest


def test_the_caption_files_of_other_trainers_were_refused_as_photographs(tmp_path):
    """kohya's tutorials write .caption; a .txt decides where both are."""
    captioned = Subject(resolution=64, captions=True)
    for name in ("first", "second"):
        put(tmp_path, f"{name}.png")
        (tmp_path / f"{name}.caption").write_text(f"sks {name}")
    (tmp_path / "second.txt").write_text("sks of the .txt")
    told = read_subject(tmp_path, captioned)
    assert {photo.path.stem: photo.caption for photo in told.photos} == {
        "first": "sks first",
        "second": "sks of the .txt",
    }
    assert not told.refused and not told.notes
    (note,) = read_subject(tmp_path, SMALL).notes
    assert note.startswith("2 of 2 have a caption that is not used")
    (tmp_path / "first.caption").write_text("sks again")
    assert read_subject(tmp_path, captioned).digest != told.digest


def test_a_bucket_keeps_more_of_a_tall_photograph(tmp_path):
    put(tmp_path, "tall.png", make_image(100, 150))
    (square,) = read_subject(tmp_path, SMALL).photos
    (bucket,) = read_subject(tmp_path, Subject(resolution=64, buckets=True)).photos
    assert square.box == (0, 25, 100, 125)
    assert bucket.size == (48, 80)
    assert bucket.box == (5, 0, 95, 150)
    assert load_pixels(bucket).shape == (80, 48, 3)


class Rectangle:
    def __init__(self, *box):
        self.box = box

    def left(self):
        return self.box[0]

    def top(self):
        return self.box[1]

    def right(self):
        return self.box[2]

    def bottom(self):
        return self.box[3]

    def area(self):
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


def with_detector(monkeypatch, faces):
    detector = types.SimpleNamespace(get_frontal_face_detector=lambda: lambda _pixels, _up: faces)
    monkeypatch.setitem(sys.modules, "dlib", detector)


def test_the_face_crop_follows_the_largest_face(tmp_path, monkeypatch):
    put(tmp_path, "a.png", make_image(1600, 800))  # searched at half size
    with_detector(monkeypatch, [Rectangle(10, 10, 20, 20), Rectangle(700, 150, 760, 210)])
    (photo,) = read_subject(tmp_path, Subject(resolution=64, crop="face")).photos
    assert photo.face
    assert photo.box == (800, 0, 1600, 800)


@pytest.mark.parametrize(
    ("spec", "box"),
    [
        ({"crop": "face", "face_share": 0.0}, (0, 0, 800, 800)),
        ({"crop": "face", "face_share": 0.25}, (200, 104, 600, 504)),
        ({"crop": "face", "face_share": 1.0}, (336, 213, 464, 341)),  # no fewer pixels
        ({"crop": "center", "face_share": 0.25}, (0, 0, 800, 800)),
    ],
)
def test_a_face_of_less_than_its_share_is_cropped_closer(tmp_path, monkeypatch, spec, box):
    put(tmp_path, "a.png", make_image(800, 800))
    with_detector(monkeypatch, [Rectangle(350, 214, 450, 314)])
    (photo,) = read_subject(tmp_path, Subject(resolution=128, **spec)).photos
    assert photo.box == box
    assert load_pixels(photo).shape == (128, 128, 3)


def test_the_centre_crop_cut_heads_off_and_said_nothing(tmp_path):
    for number, size in enumerate([(100, 125), (90, 120), (125, 100), (100, 124)]):
        put(tmp_path, f"{number}.png", make_image(*size, seed=number))
    (note,) = read_subject(tmp_path, SMALL).notes
    assert note.startswith("2 of 4 photographs are upright and lose a fifth")
    assert all(cure in note for cure in ("'top'", "'face'", "buckets"))
    for cure in ({"crop": "top"}, {"buckets": True}):
        photos = read_subject(tmp_path, Subject(resolution=64, **cure))
        assert not photos.notes
    (tmp_path / "0.png").unlink()
    assert not read_subject(tmp_path, SMALL).notes, "one is no pattern"


def test_the_top_of_an_upright_photograph_is_trained(tmp_path):
    image = make_image(100, 150)
    image.paste(RED, (0, 0, 100, 100))
    put(tmp_path, "a.png", image)
    (photo,) = read_subject(tmp_path, Subject(resolution=64, crop="top")).photos
    assert photo.box == (0, 0, 100, 100)
    assert (load_pixels(photo)[:60] == RED).all()


def test_without_a_face_the_centre_is_used_and_told(tmp_path, monkeypatch):
    put(tmp_path, "a.png", make_image(200, 100))
    with_detector(monkeypatch, [])
    photos = read_subject(tmp_path, Subject(resolution=64, crop="face"))
    assert photos.photos[0].box == (50, 0, 150, 100)
    assert not photos.photos[0].face
    assert photos.notes == ("a.png: no face was found; the crop is at the centre.",)


def test_the_face_crop_names_its_package(tmp_path, monkeypatch):
    put(tmp_path, "a.png")
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingPackage, match="dlib-bin"):
        read_subject(tmp_path, Subject(resolution=64, crop="face"))


def test_flipped_pixels_are_the_mirror_image(tmp_path):
    put(tmp_path, "a.png")
    (photo,) = read_subject(tmp_path, SMALL).photos
    assert np.array_equal(load_pixels(photo, flip=True), load_pixels(photo)[:, ::-1])


def test_resizing_is_antialiased(tmp_path):
    chequers = np.indices((640, 640)).sum(0) % 2 * 255
    put(tmp_path, "a.png", Image.fromarray(chequers.astype(np.uint8)))
    (photo,) = read_subject(tmp_path, SMALL).photos
    assert np.abs(load_pixels(photo).astype(int) - 127).max() <= 4


def test_a_photograph_changed_since_is_an_error(tmp_path):
    path = put(tmp_path, "a.png")
    (photo,) = read_subject(tmp_path, SMALL).photos
    put(tmp_path, "a.png", make_image(seed=99))
    with pytest.raises(SubjectError, match="has changed"):
        load_pixels(photo)
    os.unlink(path)
    with pytest.raises(SubjectError, match="cannot be read"):
        load_pixels(photo)


def test_the_holdout_is_a_split_decided_by_the_seed(tmp_path):
    for name in "abcdefgh":
        put(tmp_path, f"{name}.png")
    photos = read_subject(tmp_path, SMALL)
    splits = [split_holdout(photos, 3, seed) for seed in range(8)]
    for train, held in splits:
        assert len(held) == 3
        assert sorted(train + held, key=lambda p: p.digest) == list(photos.photos)
        assert train == sorted(train, key=lambda p: p.digest)
    assert splits[0] == split_holdout(photos, 3, 0)
    assert len({tuple(p.digest for p in held) for _, held in splits}) > 1
    assert split_holdout(photos, 0, 0) == (list(photos.photos), [])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_anywhere_never_escapes_as_a_bare_error(tmp_path):
    put(tmp_path, "good.png")
    buffers = {}
    for kind in ("jpeg", "png", "webp", "tiff", "bmp", "gif", "heif"):
        buffers[kind] = io.BytesIO()
        make_image(96, 96, seed=3).save(buffers[kind], kind)
    rng = np.random.default_rng(0)
    for kind, buffer in buffers.items():
        for i in range(12):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            data[rng.integers(0, min(len(data), 400), 6)] = rng.integers(0, 256, 6)
            (tmp_path / f"{i}.{kind}").write_bytes(data.tobytes())
    photos = read_subject(tmp_path, SMALL)
    assert any(photo.path.name == "good.png" for photo in photos.photos)
    assert photos.refused


def test_real_photographs_are_all_taken(subjects):
    for folder in subjects:
        photos = read_subject(folder, Subject(resolution=512))
        assert photos.photos and not photos.refused
        pixels = load_pixels(photos.photos[0])
        assert pixels.shape == (512, 512, 3)
        assert pixels.std() > 20


def test_threads_that_read_at_once_leave_the_hosts_setting_as_it_was(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as other packs set it
    first, second = strict_decoding(), strict_decoding()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False, "the second still reads"
    second.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True

"""Image files that cannot be read say what to do."""

import io
import sys

import pytest
from likeness.trainers import image_io
from likeness.trainers.errors import SubjectError
from likeness.trainers.image_io import open_image
from likeness.trainers.recipe import Subject
from likeness.trainers.subject import NoUsablePhotos, read_subject
from PIL import Image
from pillow_heif import register_heif_opener

register_heif_opener()


def encoded(kind, colour=0):
    data = io.BytesIO()
    Image.new("RGB", (80, 80), (colour, 0, 0)).save(data, kind)
    return data.getvalue()


@pytest.fixture
def without_pillow_heif(monkeypatch):
    """Pillow without the optional package that reads HEIC."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF")
    image_io._register_heif.cache_clear()
    yield
    image_io._register_heif.cache_clear()


def test_iphone_photographs_without_pillow_heif_were_no_images(tmp_path, without_pillow_heif):
    for number in range(2):
        (tmp_path / f"IMG_{number}.HEIC").write_bytes(encoded("HEIF", number))
    with pytest.raises(NoUsablePhotos, match=r"IMG_0\.HEIC, IMG_1\.HEIC: it is HEIC") as refused:
        read_subject(tmp_path, Subject(resolution=64))
    (reason,) = {one.reason for one in refused.value.refused}  # one line in the panel
    assert "export it as JPEG" in reason
    assert "-m pip install --upgrade pillow-heif" in reason
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    assert reason in {one.reason for one in read_subject(tmp_path, Subject(resolution=64)).refused}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        b"\0\0\0\x1cftypavif\0\0\0\0mif1avif",
        b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif",
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
    ],
)
def test_other_files_are_not_taken_for_heic(data, tmp_path, without_pillow_heif):
    (tmp_path / "a.heic").write_bytes(data)
    for source in (tmp_path / "a.heic", io.BytesIO(data)):
        with pytest.raises(SubjectError, match="not an image in a supported format"):
            open_image(source)


def test_damaged_heic_does_not_ask_for_a_package_that_is_there():
    with pytest.raises(SubjectError) as refused:
        open_image(io.BytesIO(encoded("HEIF")[:24]))
    assert "pillow-heif" not in str(refused.value)

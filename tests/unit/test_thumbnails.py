import numpy as np
import pytest
from likeness.tools.workflows import thumbnails
from likeness.tools.workflows.pages import pages
from PIL import Image

COLOURS = {
    row: (20 * n + 40, 90, 200 - 20 * n)
    for n, row in enumerate((*thumbnails.ROWS, *thumbnails.POSED))
}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What a demo leaves, each row's images in one colour."""
    home = tmp_path_factory.mktemp("output")
    for row, colour in COLOURS.items():
        folder = home / thumbnails.DEMO / row / "96x128"
        folder.mkdir(parents=True)
        for key in thumbnails.SIX:
            Image.new("RGB", (12, 16), colour).save(folder / f"{key}.png")
    return home


def shown(card):
    """The rows whose colour is on a card."""
    pixels = np.asarray(card).reshape(-1, 3)
    return {row for row, colour in COLOURS.items() if (pixels == colour).all(1).mean() > 0.02}


def test_every_workflow_has_a_card_with_the_images_of_its_rows(output):
    assert set(thumbnails.CARDS) == {page.name for page in pages()}
    for name, (_, _, rows) in thumbnails.CARDS.items():
        card = thumbnails.card(name, output)
        assert card.size == (thumbnails.SIDE, thumbnails.SIDE)
        assert shown(card) == set(rows), name


def test_cards_without_a_demo_say_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run make demo"):
        thumbnails.card("study_2_base", tmp_path)

"""The class images that a training generates, as its panel shows them."""

from __future__ import annotations

from itertools import count

import pytest
from filelock import FileLock
from likeness.tools.fixtures import event, lines, step, write_run
from likeness.trainers.class_image_sets import class_images_folder
from likeness.trainers.places import Places
from likeness.trainers.recipe import Recipe
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

RUNS = (f"class-lora-r4-{number:08x}" for number in count())
PROMPTS = "a {class}\na photo of a {class}"


@pytest.fixture
def drawing(server, tmp_path):
    """A run that generates class images: its folder, theirs, and `draw(done)`."""
    output, name = server.home / "output", next(RUNS)
    run = write_run(output, name, [event("stage", name="class images", done=0, total=8)])
    recipe = Recipe().changed(
        prior={"prompt": PROMPTS}, base={"digest": f"{int(name[-8:], 16):064x}"}
    )
    places = Places.for_output(output, base=tmp_path, photos=tmp_path)
    (run / "recipe.json").write_text(recipe.to_json())
    (run / "places.json").write_text(places.model_dump_json())
    images = class_images_folder(recipe, places, recipe.prior)
    images.mkdir(parents=True)

    def draw(first, last):
        for number in range(first, last):
            Image.new("RGB", (64, 64), (30 * number, 90, 90)).save(images / f"{number:06d}.png")
        tell(run, event("stage", name="class images", done=last, total=8))

    return run, draw


def tell(run, *events):
    with open(run / "events.jsonl", "a", encoding="utf-8") as file:
        file.write(lines(events))


def test_class_images_are_shown_as_they_are_generated_and_afterwards(editor, drawing, show, expect):
    run, draw = drawing
    draw(0, 2)
    with FileLock(run / "lock"):
        number = editor.add("Likeness_TrainLoRA")
        show(editor, number)
        editor.pin(number, "run", run.name)
        panel = editor.page.locator(".lk-training:visible")
        film = panel.get_by_role("group", name="Class images")
        expect(film.get_by_role("button")).to_have_count(2)
        draw(2, 8)
        expect(film.get_by_role("button")).to_have_count(5)
        names = [one.get_attribute("aria-label") for one in film.get_by_role("button").all()]
        assert names == [f"Class image {number}" for number in range(4, 9)]
        film.get_by_role("button").first.click()
        box = editor.page.get_by_role("dialog", name="Image")
        expect(box.get_by_role("status")).to_have_text("Class image 4")
        expect(box).to_contain_text("a photo of a man")
        editor.page.keyboard.press("ArrowLeft")
        expect(box.get_by_role("status")).to_have_text("Class image 3")
        expect(box).to_contain_text("a man")
        editor.page.keyboard.press("Escape")
        tell(run, event("stage", name="train", done=0, total=0), step(1, 40), step(2, 40))
        expect(film).to_be_hidden()
        panel.get_by_role("button", name="Class images (8)").click()
        expect(box.get_by_role("status")).to_have_text("Class image 1")
        image = box.locator(".lk-light-image")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
        editor.page.keyboard.press("Escape")


def test_a_run_without_class_images_has_no_button_for_them(editor, server, show, expect):
    run = write_run(server.home / "output", next(RUNS), [step(1, 40), step(2, 40)])
    tell(run, event("stage", name="train", done=0, total=0), event("finished", seconds=1))
    number = editor.add("Likeness_TrainLoRA")
    show(editor, number)
    editor.pin(number, "run", run.name)
    panel = editor.page.locator(".lk-training:visible")
    expect(panel).to_contain_text("Finished")
    expect(panel.get_by_role("button", name="Class images")).to_be_hidden()

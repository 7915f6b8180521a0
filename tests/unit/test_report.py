import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from likeness.comparison.charts import Series, loss_chart, smooth_ema, whisker
from likeness.comparison.estimates import Estimate
from likeness.comparison.html import Html, join, tag
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text
from likeness.comparison.report import Report, Reproduction, format_duration, render_html
from likeness.comparison.row_adapters import RowAdapter
from likeness.comparison.scores import Measure, Scores
from likeness.trainers.presets import preset
from likeness.trainers.run_folder import Result
from PIL import Image

RTL = "\u0645\u0631\u062d\u0628\u0627"
NASTY = f"<script>alert('x')</script> \U0001f600 {RTL} & \"quoted\" " + "long" * 75


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of style and script."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.raw, self._stack = [], "", {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._stack.append(tag)

    def handle_endtag(self, tag):
        assert self._stack.pop() == tag, "an element is closed that is not open"

    def handle_data(self, data):
        inside = self._stack[-1] if self._stack else ""
        if inside in ("style", "script"):
            self.raw[inside] = data
        else:
            self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture
def report(tmp_path):
    """A report with hostile text wherever a user can put some; `changes` are of its parts."""
    numbers = count()

    def make(**changes):
        prompts = prompt_set_from_text(f"a = {NASTY}\nb = plain")
        prompts = prompts.model_copy(update={"negative": NASTY})
        the_plan = plan([Variant(name="base"), Variant(name="r4", adapter="4" * 64)], prompts)
        images = [tmp_path / f"{next(numbers)}.png" for _ in range(4)]
        for red, path in enumerate(images[:3]):
            Image.new("RGB", (60, 80), (80 * red, 0, 0)).save(path)
        recipe = preset("lora-r4").changed(subject={"class_word": NASTY})
        losses = tuple(1 / step for step in range(1, 801))
        result = Result(
            Path("secret/r4.safetensors"), recipe, Path("secret/run"), 800, losses,
            {"load": 3.0, "train": 304.0}, (), "fp16", 3 * 1024**3,
        )  # fmt: skip
        fields = {
            "title": NASTY,
            "plan": the_plan,
            "images": images,
            "row_adapters": [RowAdapter("base"), RowAdapter("r4", result.adapter, None, result)],
            "scores": None,
            "reproduction": [
                Reproduction("Command", NASTY),
                Reproduction("Workflow", NASTY, "workflow.json"),
            ],
            "version": "1.2.3",
        }
        return Report(**{**fields, **changes})

    return make


def test_all_text_is_shown_and_none_of_it_is_markup(report):
    page = Page(render_html(report()))
    assert len(page.all("script")) == 1 and len(page.all("style")) == 1
    assert page.text.count(NASTY) >= 5  # title, heading, prompt, negative, command
    assert "alert" not in page.raw["script"]
    assert page._stack == []


def test_no_network_is_asked_and_the_policy_forbids_it(report):
    html = render_html(report())
    page = Page(html)
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert "url(" not in page.raw["style"] and "@import" not in page.raw["style"]
    assert not re.search(r"fetch|XMLHttp|import\(", page.raw["script"])
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"


def test_every_image_is_in_it_and_can_be_walked_to(report):
    page = Page(render_html(report()))
    shown = [image for image in page.all("img") if image.get("src")]
    assert [(i["data-row"], i["data-column"]) for i in shown] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
    ]
    assert "not generated" in page.text and "3 of 4 images" in page.text
    assert shown[1]["data-caption"] == "base \u00b7 b \u00b7 seed 0"


def test_many_large_images_make_no_boundless_file(report, monkeypatch):
    from likeness.comparison import report as module

    whole = len(render_html(report()))
    monkeypatch.setattr(module, "_MAX_PIXELS", 4 * 30 * 40)
    page = render_html(report())
    data = re.findall(r"base64,([A-Za-z0-9+/=]+)\" alt", page)
    assert len(page) < whole and len(data) == 3
    import io

    with Image.open(io.BytesIO(base64.b64decode(data[0]))) as image:
        assert image.size == (30, 40)


def test_runs_are_shown_with_what_they_took_and_without_places(report):
    html = render_html(report())
    text = Page(html).text
    for part in ("LoRA of rank 4", "1e-4", "800", "fp16", "5:07 min", "3.00 GB", "Likeness 1.2.3"):
        assert part in text
    assert "secret" not in html
    assert preset("lora-r4").changed(subject={"class_word": NASTY}).digest()[:12] in text


def test_scores_are_shown_with_intervals_and_what_is_left_out(report):
    measure = Measure("subject.x", NASTY, "subject match", "mean likeness", "higher")
    scores = Scores(
        (measure,),
        {"subject.x": (0.1, None, 0.5, 0.6)},
        {"subject.x": (None, Estimate(0.55, 0.5, 0.6, 2, 2))},
        {"subject.x": Estimate(0.8, None, None, 5, 5)},
        (f"left out: {NASTY}",),
    )
    page = Page(render_html(report(scores=scores)))
    assert "0.550" in page.text and "[0.500, 0.600]" in page.text and "0.800" in page.text
    assert "subject 0.10" in page.text and f"left out: {NASTY}" in page.text
    assert len(page.all("circle")) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(48.24, "48.2 s"), (307, "5:07 min"), (59.99, "60.0 s"), (7380, "2:03 h"), (3599.9, "1:00 h")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


# HTML


def test_only_what_is_html_already_stays_as_it_is():
    assert tag("p", "<b>", tag("b", "&"), None, 3) == "<p>&lt;b&gt;<b>&amp;</b>3</p>"
    assert join([tag("i"), "<"], Html("<br>")) == "<i></i>&lt;<br>"


def test_attributes_are_quoted_named_and_left_out():
    made = tag("img", class_="a\"b'", data_row=1, hidden=True, alt=None, open=False)
    assert made == '<img class="a&quot;b&#x27;" data-row="1" hidden>'


# Charts


def test_a_loss_chart_has_a_line_for_each_run_inside_its_frame():
    series = [Series(f"<r{n}>", np.linspace(n, 0.5, 900).tolist()) for n in (1, 2, 3)]
    page = Page(loss_chart(series))
    lines = page.all("polyline")
    assert len(lines) == 3 and len({line["class"] for line in lines}) == 3
    for line in lines:
        points = np.array([point.split(",") for point in line["points"].split()], float)
        assert len(points) <= 240
        assert points[:, 0].min() >= 0 and points[:, 0].max() <= 720
        assert points[:, 1].min() >= 0 and points[:, 1].max() <= 260
        assert points[0, 1] <= points[-1, 1], "falling losses fall"
    assert "<r1>" in page.text


def test_short_flat_and_broken_losses_are_drawn_too():
    loss_chart([Series("flat", [0.5] * 3), Series("one", [0.5, 0.5])])
    steps, means = smooth_ema([1.0, float("nan"), float("inf"), 3.0])
    assert len(steps) == len(means) and np.isfinite(means).all()
    assert smooth_ema([float("nan")] * 3)[0] == []
    assert loss_chart([Series("none", [float("nan")] * 3)]) == ""


def test_smoothing_starts_at_the_first_value_and_follows_the_mean():
    _, means = smooth_ema([2.0] * 50 + [1.0] * 950)
    assert means[0] == pytest.approx(2.0) and means[-1] == pytest.approx(1.0, abs=0.01)


def test_a_whisker_stays_on_its_line():
    page = Page(whisker(Estimate(0.5, 0.4, 0.7, 3, 3), 0.4, 0.7, 0.6))
    ends = [float(a[key]) for a in page.all("line") for key in ("x1", "x2")]
    assert min(ends) >= 0 and max(ends) <= 120
    Page(whisker(Estimate(0.5, None, None, 1, 1), 0.5, 0.5, None))

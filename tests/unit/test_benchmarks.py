"""The benchmarks' own arithmetic, texts and command lines; nothing is trained here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from likeness.benchmarks import (
    baselines,
    browser,
    curve,
    draw_benchmark,
    options,
    panel,
    parts,
    scale,
    setting,
    table,
    viewer,
)
from likeness.benchmarks.inputs import Model
from likeness.benchmarks.measure import Measurement, PeakMemory, parse_report
from likeness.benchmarks.roofline import row as roofline_row
from likeness.benchmarks.tiers import tiers_of
from likeness.trainers.presets import preset

ROOT = Path(__file__).resolve().parents[2]


def run(step=2.0, steps=8, first=10.0, after=5.0, **fields):
    moments = [first + step * number for number in range(steps)]
    return Measurement(
        moments=moments, cpu_moments=moments, total=moments[-1] + after,
        peak=PeakMemory(3 * 10**9, 2 * 10**9), images=8, prompts=14, **fields,
    )  # fmt: skip


def lines(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


@pytest.fixture
def made(tmp_path):
    """A setting whose files are not there: no side is started."""
    model = Model(tmp_path / "model", tmp_path / "model.safetensors")
    model.tokenizer.mkdir(parents=True)
    return setting.Setting(model, tmp_path / "photos", tmp_path / "class", 64, 11, "bf16",
                           "adamw8bit", "cpu")  # fmt: skip


# Figures.


def test_the_first_two_intervals_are_warm_up():
    one = Measurement(moments=[1, 11, 21, 22, 24])
    assert one.intervals == (1, 2)
    assert one.first == 1


def test_a_whole_run_is_extrapolated_from_its_ends_and_the_median_step():
    assert table.whole_run([run(step=2, first=10, after=5)], steps=800) == 10 + 799 * 2 + 5
    assert table.whole_run([Measurement()], steps=800) == 0


def test_a_process_that_failed_says_why_and_one_that_ended_well_forgets_its_exit():
    said = {"moments": [105.0], "error": "SystemExit: 0"}
    assert parse_report(dict(said), 100.0, 109.0, PeakMemory(), 1).error == "SystemExit: 0"
    good = parse_report(dict(said), 100.0, 109.0, PeakMemory(), 0)
    assert (good.error, good.moments, good.total, good.after) == ("", [5.0], 9.0, 4.0)


def test_memory_is_that_of_the_gpu_where_there_is_one():
    assert run().memory == 3 * 10**9
    assert run(gpu_memory=7).memory == 7


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "-"), ([1.5], "1.5"), ([1, 2, 3, 4, 5], "3 (2 to 4)")],
)
def test_a_spread_is_a_median_with_quartiles(values, text):
    assert table.format_quartiles(values) == text


# Tables.


def test_a_training_that_failed_is_a_row_with_its_error():
    rounds = {("fp32", "lora", "Likeness"): [run()],
              ("fp32", "lora", "peer"): [Measurement(error="OSError: a | b\nc")]}  # fmt: skip
    head, _, ours, peer = lines(table.trainings(rounds, "Likeness"))
    assert len(ours) == len(peer) == len(head)
    assert peer[2] == "not measured: OSError: a / b c"


def test_a_peer_is_compared_with_ours_of_the_same_case_and_precision():
    rounds = {("fp32", "lora", "Likeness"): [run(step=2)], ("fp32", "lora", "peer"): [run(step=3)],
              ("bf16", "lora", "Likeness"): [run(step=1)], ("bf16", "lora", "peer"): [run(step=3)],
              ("bf16", "tiny", "peer"): [run(step=3)]}  # fmt: skip
    faster = [row[3] for row in lines(table.trainings(rounds, "Likeness"))[2:]]
    assert faster == ["-", "1.50 x", "-", "3.00 x", "-"]


def test_a_round_that_failed_leaves_the_figures_of_the_others():
    failed = run(step=99, first=500, error="killed")
    rounds = {("fp32", "lora", "Likeness"): [failed, run(step=2, first=10)]}
    row = lines(table.trainings(rounds, "Likeness"))[2]
    assert (row[2], row[5]) == ("2 (2 to 2)", "10.0")


def test_a_lower_memory_tier_is_told():
    rounds = {("fp32", "lora", "Likeness"): [run(tier="checkpointing")]}
    assert lines(table.trainings(rounds, "Likeness"))[2][1] == "Likeness, tier checkpointing"
    rounds = {("fp32", "lora", "Likeness"): [run(tier="full")]}
    assert lines(table.trainings(rounds, "Likeness"))[2][1] == "Likeness"


def test_seconds_an_image_count_from_the_first_moment():
    two_batches = Measurement(moments=[5, 7, 9], drawn=8)
    assert draw_benchmark.seconds_per_image(two_batches) == 0.5
    assert draw_benchmark.seconds_per_image(Measurement(moments=[5])) == 0
    results = {"ours": [two_batches], "peer": [Measurement(moments=[5, 9, 13], drawn=8)],
               "broken": [Measurement(error="no")]}  # fmt: skip
    _, _, ours, peer, broken = lines(draw_benchmark.table(results))
    assert (ours[2], ours[3], peer[3]) == ("0.5", "-", "2.00 x")
    assert broken[2] == "not measured: no"


def test_a_roofline_is_the_share_of_a_products_rate():
    counted, timed = Measurement(flops=4e12), run(step=2)
    assert roofline_row("lora", 1, [counted, timed], product=8e12)[1:] == [
        *("2", "4", "2", "2", "8", "25 %")
    ]  # fmt: skip
    assert "not measured" in roofline_row("lora", 1, [Measurement(error="x"), timed], 8e12)[2]


def test_many_photographs_come_with_few_class_images_and_the_other_way_round():
    counts = [(c.photos, c.classes) for c in scale.counts_of([15, 150], [500, 5000])]
    assert counts == [(15, 4), (150, 4), (15, 500), (15, 5000)]
    cells = scale.row(
        scale.ImageCounts(1500, 4), "encoded", run(stages={"encode": 7.25}), 2_500_000
    )
    assert cells[:4] == ["1,500", "4", "encoded", "7.2"]
    assert cells[-3:] == ["3", "2", "2.5"]


def test_a_parts_gain_is_the_step_without_it_over_the_step_with_it():
    cells = parts.row("it", parts.ABLATIONS["bf16"], [run(step=2)], [run(step=3)])
    assert cells[:5] == ["it", "lora", "2 (2 to 2)", "3 (3 to 3)", "1.50 x"]


def test_a_parts_rounds_begin_with_either_side_in_turn(monkeypatch):
    asked = []

    def note(part, way, setting, folder):
        asked.append("with" if way is part.enabled else "without")
        return run(step=len(asked))

    monkeypatch.setattr(parts, "run", note)
    enabled, disabled = parts.compare(parts.ABLATIONS["bf16"], None, None, 3)
    assert asked == ["with", "without", "without", "with", "with", "without"]
    assert len(enabled) == len(disabled) == 3


def test_the_mean_curve_ends_with_the_shortest_run():
    assert curve.means([[1, 3, 5], [3, 5]]) == [2, 4]
    assert curve.rows({"ours": [[1.0] * 8, [3.0] * 8]})[0][2:] == ["2.0000 ± 1.0000"] * 2


def test_the_plot_is_an_svg_with_a_line_and_a_name_for_each_side():
    from xml.etree import ElementTree

    svg = ElementTree.fromstring(curve.plot({"ours": [[0.3, 0.2, 0.1]], "it's": [[0.3, 0.3, 0.2]]}))
    tags = [element.tag.rpartition("}")[2] for element in svg.iter()]
    assert tags.count("polyline") == 2
    assert "it's" in {element.text for element in svg}


# In the browser.


def trained(*, browser, previews=False, cpu=1.0, rate=4, seconds=10):
    """A training of 0.5 s a step whose browser hears `rate` messages of ours a second."""
    readings = [panel.Reading(100 + 10 * n, 20 * (n + 1), cpu * 20 * n, 0.2 * n, 0.0)
                for n in range(2)]  # fmt: skip
    frames = [panel.Message(100 + n / rate, "likeness.step", 250) for n in range(rate * seconds)]
    frames += [panel.Message(at, "progress", 500) for at in (99, 105, 111)]
    return panel.Training(previews, browser, [9.0] * panel.WARM_UP + [0.5] * 4, readings,
                          [] if browser == panel.NONE else frames, [])  # fmt: skip


def test_a_panels_cost_leaves_out_the_first_steps_and_counts_cpu_time_a_step():
    both = [
        trained(browser=panel.NONE),
        trained(browser=panel.PANEL, cpu=1.1),
        trained(browser=panel.NONE),
    ]
    _, _, disabled, watched = lines(panel.costs(both))
    assert disabled == ["off", "none", "2", "0.5 (0.5 to 0.5)", "1 (1 to 1)", "0.01 (0.01 to 0.01)",
                       "0 (0 to 0)"]  # fmt: skip
    assert watched[:5] == ["off", panel.PANEL, "1", "0.5 (0.5 to 0.5)", "1.1"]


def test_messages_are_counted_between_the_readings_only():
    both = [trained(browser=panel.NONE), trained(browser=panel.PANEL)]
    text, _, kinds = panel.traffic(both).partition("\n\n")
    (row,) = lines(text)[2:]
    assert row == ["off", "4.00", "4.10", "1.05", "0.00", "0.00"]
    assert kinds == "Messages by kind: likeness.step 40, progress 1."


def test_a_training_without_readings_has_no_figures():
    nothing = panel.Training(False, panel.PANEL)
    assert lines(panel.costs([nothing]))[2][3:] == ["-", "-", "-", "-"]
    assert "none" in panel.traffic([nothing])


def test_a_binary_frame_has_its_kind_in_its_first_bytes():
    heard = panel.Training(False, panel.PANEL)
    heard.heard(b"\0\0\0\3text")
    heard.heard('{"type": "likeness.step", "é": 1}')
    kinds = [(one.kind, one.size) for one in heard.frames]
    assert kinds == [("binary 3", 8), ("likeness.step", 34)]


def test_a_prompt_gets_other_values_by_the_kind_of_node():
    prompt = {"5": {"class_type": panel.TRAIN, "inputs": {"steps": 1, "seed": 2}},
              "6": {"class_type": "Other", "inputs": {"steps": 1}}}  # fmt: skip
    new = panel.changed(prompt, {panel.TRAIN: {"steps": 9}})
    assert new["5"]["inputs"] == {"steps": 9, "seed": 2}
    assert new["6"] == prompt["6"] and prompt["5"]["inputs"]["steps"] == 1


def test_the_browsers_driver_is_not_chromium():
    assert panel.is_chromium(["/usr/bin/chromium", "--type=renderer"])
    assert panel.is_chromium(["/usr/bin/chromium", "--headless", "--remote-debugging-pipe"])
    assert not panel.is_chromium(["node", "cli.js", "run-driver"])


def test_an_allocator_is_summed_over_the_processes_of_a_memory_dump():
    def event(name, **attrs):
        return {"args": {"dumps": {"allocators": {name: {"attrs": attrs}}}}}

    size = {"type": "scalar", "units": "bytes", "value": "ff"}
    dump = [event(browser.DECODED, size=size), event(browser.DECODED, size=size),
            event(browser.DECODED), event("other", size=size), {"name": "none"}]  # fmt: skip
    assert browser.allocated(dump, browser.DECODED) == 2 * 255


def test_frames_of_all_rounds_are_one_row():
    before, after = viewer.ViewerState(30, 9e6, 20e6), viewer.ViewerState(40, 10e6, 30e6)
    way = viewer.Scroll(168, [0, 16, 32, 132], 50, before, after)
    (row,) = lines(viewer.table([way, way]))[2:]
    assert row == ["168", "2", "6", "16.0", "100.0", "100.0", "30, then 50", "30, then 40",
                   "9.0, then 10.0", "20.0, then 30.0"]  # fmt: skip


# Command lines.


def test_flags_leave_out_what_is_off():
    assert baselines.flags({"a": 1, "b": True, "c": False, "d": None}) == ["--a", "1", "--b"]


def test_without_their_variables_peers_are_left_out(made, tmp_path, monkeypatch):
    recipe = setting.recipe_of("lora", made)
    for variable, ask in baselines.BASELINES.values():
        monkeypatch.delenv(variable, raising=False)
        assert ask(recipe, made, tmp_path) is None


def test_kohyas_scripts_see_two_images_a_step(made, tmp_path, monkeypatch):
    monkeypatch.setenv(baselines.KOHYA, "/scripts")
    monkeypatch.setenv("LIKENESS_KOHYA_PYTHON", "/python")
    command = baselines.kohya_script(setting.recipe_of("lora", made), made, tmp_path)
    words = list(command.arguments)
    assert command.python == "/python"
    assert words[0] == str(Path("/scripts/train_network.py"))
    assert words[words.index("--train_batch_size") + 1] == "2"
    assert words[words.index("--mixed_precision") + 1] == "bf16"
    (data,) = json.loads((tmp_path / "images.json").read_text())["datasets"]
    assert [subset.get("is_reg", False) for subset in data["subsets"]] == [False, True]


def test_kohyas_dreambooth_with_a_frozen_text_encoder(made, tmp_path, monkeypatch):
    monkeypatch.setenv(baselines.KOHYA, "/scripts")
    command = baselines.kohya_script(setting.recipe_of("tiny", made), made, tmp_path)
    words = list(command.arguments)
    assert words[0] == str(Path("/scripts/train_db.py"))
    assert words[words.index("--stop_text_encoder_training") + 1] == "-1"


def test_core_trains_loras_only(made, tmp_path, monkeypatch):
    monkeypatch.setenv(baselines.CORE, str(tmp_path))
    assert baselines.core_node(setting.recipe_of("dreambooth", made), made, tmp_path) is None


def test_the_scripts_command_has_the_recipes_values(made, tmp_path, monkeypatch):
    monkeypatch.setenv(baselines.DIFFUSERS, "/examples")
    words = baselines.diffusers_script(setting.recipe_of("lora", made), made, tmp_path).arguments
    assert words[0] == str(Path("/examples/train_dreambooth_lora.py"))
    assert words[words.index("--rank") + 1] == "4"
    assert "--train_text_encoder" in words and "--use_8bit_adam" in words
    frozen = setting.recipe_of("lora-frozen-text", made)
    assert (
        "--train_text_encoder" not in baselines.diffusers_script(frozen, made, tmp_path).arguments
    )


def test_every_part_names_a_case_and_a_patch_that_are_there(made):
    from likeness.benchmarks.patches import PATCHES

    for part in parts.ABLATIONS.values():
        recipe = setting.recipe_of(part.case, made)
        for way in (part.enabled, part.disabled):
            assert way.patch == "" or way.patch in PATCHES
            recipe.changed(**way.changes)


def test_an_image_that_is_encoded_anew_has_the_latents_of_the_cache(monkeypatch):
    from likeness.benchmarks.patches import PATCHES
    from likeness.trainers import dataset, latents

    class Vae:
        def to(self, device):
            pass

    class Item:
        def pixels(self):
            return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(dataset, "encode_images", dataset.encode_images)
    monkeypatch.setattr(latents, "encode", lambda vae, pixels, device: [pixels.shape, device])
    PATCHES["no_latent_cache"]()
    (image,) = dataset.encode_images(Vae(), [Item()], device="cpu", cache=None, vae_digest="")
    assert image.read() == (1, 8, 8, 3)


def test_every_table_has_its_section_on_the_page():
    page = options.PAGE.read_text(encoding="utf-8")
    names = ("trainings", "class-images", "comparison", "scale", "parts", "roofline", "curve")
    names = [f"{name} cpu" for name in names]
    for section in [*names, "matrix time", "matrix memory", "panel", "viewer"]:
        assert page.count(f"<!-- {section}: begin -->") == 1, section
        assert page.count(f"<!-- {section}: end -->") == 1, section


def test_a_table_that_has_no_section_is_refused_before_it_is_measured(capsys):
    parser = options.common_parser("nothing", "")
    with pytest.raises(SystemExit):
        options.parse_options(parser, ["--write"])
    assert "no section 'nothing cpu'" in capsys.readouterr().err


def test_an_unknown_table_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nonsense"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no table 'nonsense'" in done.stderr


def test_a_recipe_is_measured_in_the_tiers_that_it_can_use():
    found = [one.compute.memory for one in tiers_of(preset("lora-r4"))]
    assert found == ["full", "checkpointing"]
    found = [one.compute.memory for one in tiers_of(preset("standard"))]
    assert found == ["full", "checkpointing", "in_backward", "offload"]

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("aggdraw", reason="draws the world")

from likeness.demo import (
    miniature,
    pretrain,
    pretrain_diffusion,
    pretrain_judge,
    pretrain_shards,
    pretrain_text,
    pretrain_vae,
)
from likeness.demo.cli import numbered_share
from likeness.demo.facts import QUESTIONS
from likeness.demo.judge_networks import PatchJudge
from likeness.demo.miniature import new_vae
from likeness.demo.pretrain_data import Pool, bodies, load, people, token_ids, with_latents
from likeness.demo.pretrain_loop import Course, Task, _gradients, train
from likeness.demo.pretrain_parts import began_trained
from likeness.demo.pretrain_shards import CAPTIONS, SIZES, captions_of, draw_missing, images_of
from likeness.demo.tokenizer import write_tokenizer
from likeness.trainers.errors import BaseModelError, CheckpointError, RunFailed
from likeness.trainers.text_encoding import tokenize
from likeness.trainers.tokenizer import load_tokenizer

CPU, NEVER = torch.device("cpu"), float("inf")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of shards of 8 images, one of each size."""
    folder = tmp_path_factory.mktemp("drawn") / "shards"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain_shards, "SHARD", 8)
        patch.setattr(pretrain_shards.draw_shard, "__defaults__", (8,))
        assert draw_missing(folder, 8, workers=1, deadline=NEVER)
    return folder


# Shards.


def test_a_shard_is_the_same_every_time():
    first, again = (images_of(SIZES[1], 3, 4) for _ in range(2))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert first["pixels"].shape == (4, 128, 96, 3)
    assert not np.array_equal(first["pixels"], images_of(SIZES[1], 4, 4)["pixels"])


def test_neighbours_are_one_person_and_their_twin():
    arrays = images_of(SIZES[2], 0, 8)
    traits, facts = arrays["traits"], arrays["facts"]
    assert np.array_equal(traits[0], traits[1]) and not np.array_equal(traits[1], traits[2])
    assert np.array_equal(facts[0, :3], facts[2, :3])  # gender, skin, hair style
    assert len(captions_of(arrays["captions"])) == 8 * CAPTIONS


def test_only_what_is_missing_is_drawn(drawn):
    paths = [path for _, _, path in pretrain_shards.shards(drawn, 8)]
    before = {path: path.stat().st_mtime_ns for path in paths}
    assert draw_missing(drawn, 8, workers=1, deadline=NEVER)
    assert before == {path: path.stat().st_mtime_ns for path in paths}


def test_drawing_stops_when_time_is_up(tmp_path):
    assert not draw_missing(tmp_path, 8, workers=1, deadline=time.monotonic() - 1)
    assert not list(tmp_path.iterdir())


def test_a_damaged_shard_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="delete it"):
        pretrain_shards.read(path, "pixels")


# Data.


def test_token_ids_are_those_of_the_tokenizer(tmp_path):
    texts = ["", "a photo of a man sks in sunglasses", "4K, hrd qwzz.", "the " * 90]
    ids = tokenize(load_tokenizer(write_tokenizer(tmp_path / "t")), texts)
    assert np.array_equal(token_ids(texts), ids.numpy())


def test_pools_have_what_was_asked_for(drawn):
    pools = load(drawn, 8, ["pixels", "ids", "facts"])
    assert [str(pool.size) for pool in pools] == ["128x128", "96x128", "64x64"]
    assert pools[0]["ids"].shape == (8, CAPTIONS, 77) and pools[2]["pixels"].shape == (8, 64, 64, 3)


def test_places_without_people_are_left_out():
    facts = torch.zeros(5, 20, dtype=torch.int8)
    facts[2, -1] = 1
    (pool,) = people([Pool(SIZES[0], {"facts": facts, "n": torch.arange(5)})])
    assert pool["n"].tolist() == [0, 1, 3, 4]


def test_bodies_are_images_with_joints_and_all_where_there_are_none():
    joints = torch.zeros(3, 18, 3)
    joints[1, :9, 2] = 1
    (pool,) = bodies([Pool(SIZES[0], {"joints": joints, "n": torch.arange(3)})])
    assert pool["n"].tolist() == [1]
    (pool,) = bodies([Pool(SIZES[0], {"joints": joints[:1], "n": torch.arange(1)})])
    assert pool["n"].tolist() == [0]


def test_crops_show_faces_that_are_seen():
    pixels = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    pixels[0, 50, 12] = 255  # the nose of the first image; the second has none
    joints = torch.zeros(2, 18, 3)
    joints[0, 0] = torch.tensor((12.5 / 64, 50.5 / 64, 1))
    rng = np.random.default_rng(0)
    index = torch.tensor([0, 1] * 100)
    cut = pretrain_vae.crops(pixels, joints, index, rng, 16)
    assert cut.shape == (200, 3, 16, 16)
    shown = (cut.amax((1, 2, 3)) > 0).float()
    assert shown[0::2].mean() > 0.6 and shown[1::2].sum() == 0


def test_latents_are_kept_for_the_same_vae_only(drawn, tmp_path):
    torch.manual_seed(0)
    vae = new_vae(16)
    first = with_latents(drawn, 8, vae, tmp_path, ["facts"])
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert first[1]["latents"].shape == (8, 4, 16, 12) and len(files) == 3
    stamps = [file.stat().st_mtime_ns for file in files]
    again = with_latents(drawn, 8, vae, tmp_path, ["facts"])
    assert torch.equal(first[0]["latents"], again[0]["latents"])
    assert stamps == [file.stat().st_mtime_ns for file in files]
    with torch.no_grad():
        next(vae.parameters()).add_(0.1)
    assert not torch.equal(
        with_latents(drawn, 8, vae, tmp_path, [])[0]["latents"], first[0]["latents"]
    )


# The loop.

COURSE = Course(samples=80, batch=4, rate=0.1, warmup=3)


def line(folder, *, course=COURSE, deadline=NEVER, stop_after=None, broken=False):
    """Learns y = 2x with one weight; returns the averaged weight and whether it came to the end."""
    weight = torch.nn.Parameter(torch.zeros(1))
    exported = []

    def losses(step, generator):
        if step == stop_after:
            raise KeyboardInterrupt
        x = torch.randn(course.batch, generator=generator)
        loss = (weight * x - 2 * x).square().mean()
        return {"loss": loss * float("nan") if broken else loss}

    task = Task(
        "line", {"w": weight}, losses, lambda: exported.append(float(weight.detach())),
        lambda: np.zeros((2, 2, 3), np.uint8),
    )  # fmt: skip
    done = train(task, course, folder, device=CPU, deadline=deadline, say=lambda text: None)
    return exported[-1] if exported else None, done


def test_the_rate_rises_and_falls():
    rates = [COURSE.learning_rate_at(step) for step in range(COURSE.steps)]
    assert rates.index(max(rates)) == 2 and rates[0] < rates[1] and rates[-1] < 0.005


def test_a_run_learns_logs_and_shows(tmp_path):
    weight, done = line(tmp_path)
    assert done and 0.5 < weight < 2.5
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["samples"] == 80 and last["loss"] < 4 and last["per_second"] > 0
    assert (tmp_path / "sheets" / "step-000020.png").is_file()


def test_an_interrupted_run_goes_on_as_if_unbroken(tmp_path, monkeypatch):
    whole, _ = line(tmp_path / "whole")
    monkeypatch.setattr("likeness.demo.pretrain_loop.SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        line(tmp_path / "broken", stop_after=7)
    assert line(tmp_path / "broken") == (whole, True)


def test_a_run_out_of_time_says_so(tmp_path):
    assert line(tmp_path, deadline=time.monotonic() - 1) == (None, False)


def test_a_checkpoint_of_another_course_is_refused(tmp_path):
    line(tmp_path)
    with pytest.raises(CheckpointError, match="another run"):
        line(tmp_path, course=Course(samples=80, batch=8, rate=0.1))


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path):
    with pytest.raises(RunFailed, match="not a number"):
        line(tmp_path, broken=True)


def test_lanes_follow_the_mean_of_their_batches():
    weight = torch.nn.Parameter(torch.ones(3))

    def losses(number, generator):
        x = torch.randn(3, generator=generator)
        return {"loss": (weight * x).sum() * (number + 1), "number": torch.tensor(float(number))}

    one, two = (Task("t", {"weight": weight}, losses, lambda: None, lanes=n) for n in (1, 2))
    with ThreadPoolExecutor(2) as threads:
        several = [_gradients(one, step, CPU, threads) for step in (2, 3)]
        found, (gradient,) = _gradients(two, 1, CPU, threads)
    assert torch.allclose(gradient, (several[0][1][0] + several[1][1][0]) / 2)
    assert found["number"] == 2.5 and not found["loss"].requires_grad


# Stages.


def test_a_judge_learns_from_a_batch(drawn, tmp_path):
    torch.manual_seed(0)
    vae, keys = new_vae(16), ["pixels", "facts", "traits", "joints"]
    pools = with_latents(drawn, 8, vae, tmp_path, keys)
    batches = pretrain_judge.Batches(pools, 8, "test", vae)
    network = PatchJudge(width=32, layers=1)
    batch = batches.draw(0, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    seen = []
    for _ in range(12):
        losses = pretrain_judge.losses(network, batch)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert all(seen[-1][name] < seen[0][name] for name in ("loss", "answers", "traits", "joints"))


def test_rejected_images_answer_nothing_else(drawn, monkeypatch):
    monkeypatch.setattr(pretrain_judge, "REJECTED", 1.0)
    pools = load(drawn, 8, ["pixels", "facts", "traits", "joints"])
    batch = pretrain_judge.Batches(pools, 8, "test").draw(0, torch.Generator().manual_seed(0))
    assert bool((batch["facts"][:, -1] == 1).all()) and bool((batch["facts"][:, :-1] == -1).all())


def test_held_out_scores_of_a_perfect_and_of_a_constant_judge():
    pool = pretrain_judge.held_out(CPU, 8)
    scores = pretrain_judge.evaluate(PatchJudge(width=32, layers=1).eval(), pool)
    assert scores["images"] == 8 and 0 <= scores["answers"]["place"] <= 1
    assert scores["joint_error"] > 0.02 and max(scores["traits"].values()) < 0.9
    flat, whole = torch.eye(8)[[0, 0, 1, 2, 3, 3, 4, 5]], torch.ones(8, dtype=torch.bool)
    assert pretrain_judge._told_apart(flat, whole) == 1.0
    assert pretrain_judge._told_apart(flat[[0, 2, 1, 3, 4, 6, 5, 7]], whole) == 0.0


@pytest.fixture
def tiny(drawn, tmp_path, monkeypatch):
    """Options for stages of one step on the shards drawn above."""
    monkeypatch.setattr(pretrain_shards, "SHARD", 8)
    courses = {name: Course(2, 2, 1e-3) for name in ("vae", "unet")}
    monkeypatch.setitem(pretrain.SCALES, "cpu", pretrain.Scale(8, 32, (16, 24), courses))
    (tmp_path / "shards").symlink_to(drawn)
    return pretrain.Options(tmp_path, CPU, say=lambda text: None)


def test_a_stage_before_its_time_names_what_is_missing(tiny):
    with pytest.raises(BaseModelError, match="--stage vae`"):
        pretrain.pretrain("unet", tiny)
    pretrain.save_part(tiny.out / "parts" / "vae.safetensors", new_vae(16))
    with pytest.raises(BaseModelError, match="--stage text_encoder`"):
        pretrain.pretrain("unet", tiny)


def test_a_new_unet_begins_by_saying_nothing():
    unet = miniature.new_unet()
    pretrain_diffusion.initialise(unet)
    x, states = torch.randn(1, 4, 8, 8), torch.randn(1, 77, miniature.CONTEXT)
    with torch.no_grad():
        assert unet(x, torch.tensor([5]), states, return_dict=False)[0].abs().max() == 0


def test_the_lanes_of_a_step_have_images_of_one_size():
    def pool(size):
        ids = torch.zeros(4, CAPTIONS, 77, dtype=torch.int16)
        return Pool(size, {"latents": torch.zeros(4, 4, size.height // 8, 2), "ids": ids})

    batches = pretrain_diffusion.Batches([pool(s) for s in SIZES[1:]], 6, "test", 2)
    drawn = [batches.draw(number) for number in range(40)]
    sizes = [latents.shape for latents, *_ in drawn]
    assert {shape[0] for shape in sizes} == {3} and len(set(sizes)) == 2
    assert sizes[0::2] == sizes[1::2]
    assert any(not torch.equal(a[2], b[2]) for a, b in zip(drawn[0::2], drawn[1::2], strict=True))


def test_a_question_reads_the_word_that_its_query_finds():
    torch.manual_seed(0)
    reader, states = pretrain_text.Reader(), torch.randn(2, 77, miniature.CONTEXT)
    answers, joints, traits = reader(states)
    assert joints.shape == (2, 18, 2)
    assert traits.shape == (2, 26)
    assert {q: a.shape for q, a in answers.items()} == {
        q: (2, len(a)) for q, a in QUESTIONS.items()
    }
    question = next(iter(QUESTIONS))
    with torch.no_grad():
        states[0, 7] = 1e3 * reader.keys.weight.T @ reader.queries[0]
        found = reader(states)[0][question][0]
        expected = reader.answers[0](reader.values(states[0, 7]))
    assert torch.allclose(found, expected, rtol=1e-3)


def test_new_words_are_as_different_as_they_are_large():
    text_encoder = miniature.new_text_encoder()
    pretrain_text.initialise(text_encoder)
    ids = torch.from_numpy(token_ids(["in the forest", "in the office"])).long()
    with torch.no_grad():
        forest, office = text_encoder(ids).last_hidden_state
    assert (forest - office)[3].norm() > forest[3].norm()


def test_captions_are_understood_better_with_each_step(drawn):
    torch.manual_seed(0)
    text_encoder, reader = miniature.new_text_encoder(), pretrain_text.Reader()
    pools = people(load(drawn, 8, ["ids", "facts", "joints", "traits"]))
    parameters = [*text_encoder.parameters(), *reader.parameters()]
    optimizer, losses = torch.optim.AdamW(parameters, 1e-3), []
    for step in range(12):
        batch, generator = pretrain_text.draw(pools, 8, step), torch.Generator().manual_seed(step)
        loss = pretrain_text.losses(text_encoder, reader, batch, generator)
        loss["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss["loss"].item())
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])


def test_the_vae_stage_leaves_a_part_and_goes_on_from_it(tiny):
    assert pretrain.pretrain("vae", tiny)
    part = (tiny.out / "parts" / "vae.safetensors").read_bytes()
    assert pretrain.pretrain("vae", tiny)  # nothing is left to do
    assert (tiny.out / "parts" / "vae.safetensors").read_bytes() == part
    more = replace(tiny, samples=4)
    assert pretrain.pretrain("vae", more)
    assert (tiny.out / "parts" / "vae.safetensors").read_bytes() != part


def test_latents_of_unit_variance_and_no_correlation_have_no_spread():
    latents = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert pretrain_vae._spread(latents) < 1e-3
    assert pretrain_vae._spread(2 * latents) > 1
    assert pretrain_vae._spread(latents[:, [0, 1, 2, 2]]) > 0.1


@pytest.mark.parametrize("text", ["2/2", "1", "a/3", "-1/2", "0/0"])
def test_a_wrong_share_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        numbered_share(text)


def test_workers_draw_only_what_is_of_their_share(tmp_path, monkeypatch):
    started = []

    class Worker:
        def __init__(self, command, **_):
            started.append(command[command.index("--share") + 1])

        def wait(self):
            return 0

    monkeypatch.setattr(pretrain_shards.subprocess, "Popen", Worker)
    draw_missing(tmp_path / "shards", 4096, workers=2, deadline=NEVER, share=(1, 3))
    assert started == ["1/6", "4/6"]


def test_a_share_that_is_drawn_is_done_though_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_shards, "SHARD", 1)
    monkeypatch.setattr(pretrain_shards, "draw_shard", lambda path, *_: path.write_bytes(b"x"))
    (tmp_path / "shards").mkdir()
    assert draw_missing(tmp_path / "shards", 8, workers=1, deadline=NEVER, share=(0, 2))
    assert not draw_missing(tmp_path / "shards", 8, workers=1, deadline=0, share=(1, 2))


def test_a_stage_that_goes_on_remembers_what_it_began_from(tmp_path):
    part, folder = tmp_path / "vae.safetensors", tmp_path / "vae"
    folder.mkdir()
    assert not began_trained(folder, part)
    (folder / "checkpoints" / "step-000010").mkdir(parents=True)
    (folder / "checkpoints" / "step-000010" / "state.json").write_text("{}")
    part.write_bytes(b"written on the way")
    assert not began_trained(folder, part), "the same course"
    assert began_trained(tmp_path / "another", part)

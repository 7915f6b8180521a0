import itertools
from dataclasses import replace

import pytest
import torch
from likeness.trainers.batches import (
    Batch,
    Dataset,
    DatasetItem,
    collate,
    step_samples,
    used_class_images,
    validation_samples,
)
from likeness.trainers.errors import RecipeError
from likeness.trainers.latents import Latents
from likeness.trainers.recipe import Recipe


def latents(value, h=8, w=8):
    return Latents(torch.full((4, h, w), float(value)), torch.zeros(4, h, w))


def dataset(photos=5, classes=7, held_out=0, shapes=((8, 8),), flip=False):
    shape = itertools.cycle(shapes)
    views = [
        [latents(i, *next(shape))] + ([latents(-i - 1)] if flip else []) for i in range(photos)
    ]
    return Dataset(
        photos=tuple(DatasetItem(tuple(v), (0,)) for v in views),
        classes=tuple(DatasetItem((latents(100 + i),), (1,)) for i in range(classes)),
        held_out=tuple(DatasetItem((latents(i),), (0,)) for i in range(held_out)),
        prompts=("a photo of sks man face", "a photo of man"),
    )


def recipe(**parts):
    return Recipe().changed(**parts)


def shown(batches, prior=False):
    return [s.latents[0, 0, 0].item() for b in batches for s in b if s.prior is prior]


def test_every_photograph_is_shown_once_an_epoch():
    values = [shown(step_samples(recipe(), dataset(), step))[0] for step in range(10)]
    assert sorted(values[:5]) == sorted(values[5:]) == [0, 1, 2, 3, 4]


def test_the_split_into_micro_batches_changes_no_sample():
    def flat(batch, accumulation, steps=3):
        r = recipe(schedule={"batch_size": batch, "gradient_accumulation_steps": accumulation})
        for step in range(steps):
            samples = [s for b in step_samples(r, dataset(), step) for s in b]
            for s in sorted(
                samples, key=lambda s: (s.prior, s.latents[0, 0, 0].item(), s.timestep)
            ):
                yield s.timestep, s.prior, s.weight, s.noise[0, 0, 0].item()

    assert list(flat(4, 1)) == list(flat(2, 2)) == list(flat(1, 4))


def test_two_processes_share_out_the_samples_of_one():
    whole = step_samples(recipe(schedule={"batch_size": 4}), dataset(), 3)
    half = recipe(schedule={"batch_size": 2})
    parts = [step_samples(half, dataset(), 3, rank, 2) for rank in (0, 1)]

    def told(batches):
        return [(s.timestep, s.noise[0, 0, 0].item(), s.latents[0, 0, 0].item())
                for batch in batches for s in batch]  # fmt: skip

    assert sorted(told(whole)) == sorted(told(parts[0]) + told(parts[1]))


@pytest.mark.parametrize(
    ("steps", "batch", "accumulation", "world", "count"),
    [(100, 1, 1, 1, 100), (100, 1, 1, 2, 200), (50, 2, 3, 1, 300), (400, 1, 1, 2, 500)],
)
def test_class_images_were_listed_that_a_run_never_shows(steps, batch, accumulation, world, count):
    r = recipe(
        schedule={"steps": steps, "batch_size": batch, "gradient_accumulation_steps": accumulation}
    )
    given = replace(dataset(), classes=tuple(DatasetItem((latents(i),), (1,)) for i in range(500)))
    batches = [
        step_samples(r, given, step, rank, world) for step in range(steps) for rank in range(world)
    ]
    seen = {value for batch in batches for value in shown(batch, prior=True)}
    listed = used_class_images(r, 500, world)
    assert listed == sorted(seen) and len(listed) == count


def test_class_images_that_are_not_shown_change_no_sample():
    r = recipe(schedule={"steps": 3})
    whole = dataset()
    wanted = used_class_images(r, len(whole.classes))
    some = [
        one if index in wanted else replace(one, views=())
        for index, one in enumerate(whole.classes)
    ]
    assert sum(not one.views for one in some) == 4
    for step in range(3):
        pairs = zip(
            step_samples(r, whole, step)[0],
            step_samples(r, replace(whole, classes=tuple(some)), step)[0],
            strict=True,
        )
        for one, other in pairs:
            assert torch.equal(one.latents, other.latents) and torch.equal(one.noise, other.noise)
            assert (one.timestep, one.prompt) == (other.timestep, other.prompt)


def test_weights_add_up_to_one_and_to_the_prior_weight():
    r = recipe(
        schedule={"batch_size": 2, "gradient_accumulation_steps": 3}, prior={"loss_weight": 0.5}
    )
    samples = [s for b in step_samples(r, dataset(), 0) for s in b]
    assert sum(s.weight for s in samples if not s.prior) == pytest.approx(1)
    assert sum(s.weight for s in samples if s.prior) == pytest.approx(0.5)


def test_a_micro_batch_has_one_shape():
    mixed = dataset(shapes=((8, 8), (8, 16), (16, 8)))
    batches = step_samples(recipe(schedule={"batch_size": 5}), mixed, 0)
    assert all(len({s.latents.shape for s in batch}) == 1 for batch in batches)
    assert sum(len(batch) for batch in batches) == 10


def test_without_prior_there_are_only_photographs():
    samples = [s for b in step_samples(recipe(prior=None), dataset(classes=0), 0) for s in b]
    assert [s.prior for s in samples] == [False]


def test_flips_show_both_sides():
    sides = {shown(step_samples(recipe(), dataset(flip=True), s))[0] < 0 for s in range(20)}
    assert sides == {True, False}


def test_the_posterior_is_sampled_anew_each_time_a_photograph_is_shown():
    deviating = Latents(torch.zeros(4, 8, 8), torch.ones(4, 8, 8))
    one = Dataset((DatasetItem((deviating,), (0,)),), (), (), ("p",))
    a, b = (step_samples(recipe(prior=None), one, step)[0][0] for step in (0, 1))
    assert not torch.equal(a.latents, b.latents)
    assert a.latents.std().item() == pytest.approx(1, abs=0.15)


def test_timesteps_are_drawn_from_the_range_that_is_asked_for():
    def drawn(**objective):
        batches = (step_samples(recipe(objective=objective), dataset(), n)[0] for n in range(60))
        return [sample.timestep for batch in batches for sample in batch]

    ranged = drawn(timestep_min=200, timestep_max=210)
    assert set(ranged) == set(range(200, 210))
    whole = drawn()
    assert min(whole) < 100 and max(whole) > 900
    with pytest.raises(RecipeError, match="timestep_min must be below"):
        recipe(objective={"timestep_min": 700, "timestep_max": 700})


def test_captions_are_dropped_as_often_as_asked_for_and_nothing_else_changes():
    dropping = recipe(objective={"caption_dropout": 0.25})
    given = replace(dataset(), prompts=(*dataset().prompts, ""), empty=2)
    plain, some = (
        [sample for n in range(200) for batch in step_samples(r, m, n) for sample in batch]
        for r, m in ((recipe(), dataset()), (dropping, given))
    )
    for prior in (False, True):
        dropped = [sample.prompt == 2 for sample in some if sample.prior is prior]
        assert sum(dropped) / len(dropped) == pytest.approx(0.25, abs=0.08)
    kept = [(a, b) for a, b in zip(plain, some, strict=True) if b.prompt != 2]
    assert all(a.prompt == b.prompt for a, b in kept)
    assert all(a.timestep == b.timestep for a, b in zip(plain, some, strict=True))
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(plain, some, strict=True))


def test_noise_offset_shifts_channels():
    plain = step_samples(recipe(), dataset(), 0)[0][0].noise
    moved = step_samples(recipe(objective={"noise_offset": 0.5}), dataset(), 0)[0][0].noise
    assert (moved - plain).std(dim=(1, 2)).max() < 1e-6
    assert (moved - plain).abs().max() > 0.01


def test_validation_is_the_same_at_every_call():
    m = dataset(held_out=2)
    first, again = (list(validation_samples(recipe(), m)) for _ in range(2))
    assert [s.timestep for s in first] == [100, 300, 500, 700, 900] * 2
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("least", "most", "levels"),
    [(0, 700, [70, 210, 350, 490, 630]), (200, 210, [201, 203, 205, 207, 209]), (5, 6, [5] * 5)],
)
def test_validation_asked_for_timesteps_that_are_never_trained(least, most, levels):
    r = recipe(objective={"timestep_min": least, "timestep_max": most})
    samples = validation_samples(r, dataset(held_out=1))
    assert [sample.timestep for sample in samples] == levels


def test_places_count_by_the_mask_of_the_view_that_is_shown_and_all_of_a_class_image():
    masks = torch.zeros(8, 8), torch.ones(8, 8)
    photo = DatasetItem((latents(0), latents(1)), (0,), masks)
    given = Dataset((photo,), (DatasetItem((latents(2),), (1,)),), (photo,), ("p", "c"))
    seen = set()
    for step in range(20):
        (batch,) = step_samples(recipe(subject={"flip": True}), given, step)
        mask = collate(batch, torch.device("cpu")).mask
        assert mask.shape == (2, 1, 8, 8)
        side = batch[0].latents[0, 0, 0].item()
        assert torch.equal(mask[0, 0], masks[int(side)])
        assert torch.equal(mask[1], torch.ones(1, 8, 8))
        seen.add(side)
    assert seen == {0.0, 1.0}
    assert all(sample.mask is masks[0] for sample in validation_samples(recipe(), given))


def test_without_masks_a_batch_has_none():
    (batch,) = step_samples(recipe(), dataset(), 0)
    sent = collate(batch, torch.device("cpu"))
    assert sent.mask is None and len(sent.tensors()) == 6
    assert Batch.of(sent.tensors(), sent.prior_count) == sent


def test_a_sample_has_one_of_its_photographs_orders_the_same_whatever_the_split():
    photos = tuple(DatasetItem((latents(i),), (3 * i, 3 * i + 1, 3 * i + 2)) for i in range(2))
    given = Dataset(photos, (), (photos[0],), tuple("abcdef"))

    def taken(batch, accumulation):
        r = recipe(schedule={"batch_size": batch, "gradient_accumulation_steps": accumulation})
        return [
            sorted((s.prompt, s.latents[0, 0, 0].item()) for b in batches for s in b)
            for batches in (step_samples(r, given, step) for step in range(20))
        ]

    found = taken(2, 1)
    assert found == taken(1, 2)
    assert {prompt for step in found for prompt, _ in step} == set(range(6))
    assert all(prompt // 3 == value for step in found for prompt, value in step)
    assert {s.prompt for s in validation_samples(recipe(), given)} == {0}

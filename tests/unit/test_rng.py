import torch
from likeness.trainers import rng


def test_equal_indices_give_equal_numbers_and_others_differ():
    a = rng.randn((4, 8, 8), 1, "noise", 3, 0)
    assert torch.equal(a, rng.randn((4, 8, 8), 1, "noise", 3, 0))
    for other in [
        (2, "noise", 3, 0),
        (1, "posterior", 3, 0),
        (1, "noise", 4, 0),
        (1, "noise", 3, 1),
    ]:
        assert not torch.equal(a, rng.randn((4, 8, 8), *other))


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    rng.randn((2,), 0, "x")
    rng.permutation(5, 0, "y", 0)
    assert torch.equal(state, torch.random.get_rng_state())


def test_indices_do_not_run_together():
    assert rng.derive_seed(1, "a", 1, 23) != rng.derive_seed(1, "a", 12, 3)


def test_seeds_use_their_whole_range():
    assert len({rng.derive_seed(seed, "a") for seed in (0, 1, 2**32, 2**62, 2**63 - 1)}) == 5


def test_every_epoch_shows_each_thing_once_in_a_new_order():
    epochs = [
        [rng.shuffled_index(e * 15 + i, 15, 7, "photo") for i in range(15)] for e in range(20)
    ]
    assert all(sorted(epoch) == list(range(15)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 20


def test_integers_cover_their_range_evenly():
    values = [rng.randint(10, 0, "t", i) for i in range(2000)]
    counts = [values.count(v) for v in range(10)]
    assert min(counts) > 150 and max(counts) < 250

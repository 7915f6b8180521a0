import pytest
import torch
from likeness.trainers.divergence import check_loss, check_weights
from likeness.trainers.errors import Diverged
from likeness.trainers.recipe import Recipe


def test_losses_of_a_good_run_pass():
    losses = [0.1, 2.0, 0.01, 8.0, 0.5] * 20  # single steps vary by a hundred
    for end in range(1, len(losses)):
        check_loss(Recipe(), losses[:end], end)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_no_number_is_told_with_what_to_change(bad):
    recipe = Recipe().changed(optimizer={"learning_rate": 0.01, "max_grad_norm": None})
    with pytest.raises(Diverged, match=r"step 7.*0\.001.*max_grad_norm.*warmup.*bf16"):
        check_loss(recipe, [0.5, bad], 7)


@pytest.mark.parametrize("growth", [1.5, 3.0, 100.0])
def test_an_explosion_is_told_within_ten_steps_of_passing_the_bound(growth):
    losses = [0.5] * 30
    passed = None
    for step in range(31, 100):
        losses.append(losses[-1] * growth)
        passed = passed or (step if losses[-1] > 20 else None)
        try:
            check_loss(Recipe(), losses, step)
        except Diverged:
            assert passed is not None and step - passed <= 10
            return
    pytest.fail("it was not told")


def test_a_base_that_begins_badly_may_go_on_so():
    check_loss(Recipe(), [50.0] * 20, 20)


def test_weights_that_are_not_finite_are_told():
    good = [torch.zeros(3), torch.ones(2, 2)]
    check_weights(Recipe(), good, 4)
    with pytest.raises(Diverged, match="step 4"):
        check_weights(Recipe(), [*good, torch.tensor([1.0, float("nan")])], 4)

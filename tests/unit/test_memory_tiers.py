from dataclasses import replace

import pytest
from likeness.trainers import memory_tiers
from likeness.trainers.errors import RecipeError
from likeness.trainers.memory_tiers import (
    CHECKPOINTING,
    EIGHT_BIT,
    FULL,
    IN_BACKWARD,
    OFFLOAD,
    TIERS,
    Machine,
    ModelSize,
    available,
    estimate_memory,
    next_lower_tier,
    no_fit_reason,
    select_tier,
)
from likeness.trainers.presets import preset

GPU = Machine("fp16", has_bf16=True, processes=1, bitsandbytes=True, cpu_8bit_adam=True)
# SD 1.5 at 512 pixels, one photograph with one class image, text encoder trained.
PIXELS = 2 * 64 * 64
LORA = ModelSize(1_100_000, 300_000, largest=10_000, unet=860_000_000, pixels=PIXELS, chunks=2)
WHOLE = ModelSize(
    983_000_000, 123_000_000, largest=38_000_000, unet=860_000_000, pixels=PIXELS, chunks=2
)


def standard(**parts):
    return preset("standard").changed(optimizer={"name": "adamw"}).changed(**parts)


def names(found):
    return [tier.name for tier in found]


def test_a_full_fine_tune_has_all_tiers():
    assert available(standard(), GPU) == list(TIERS)


def test_a_lora_has_no_tier_for_its_optimizer():
    assert available(preset("lora-r4"), GPU) == [FULL, CHECKPOINTING]


@pytest.mark.parametrize(
    ("parts", "machine", "without"),
    [
        ({"optimizer": {"name": "adamw8bit"}}, {}, {"8bit"}),
        (
            {"optimizer": {"name": "prodigy"}, "text_encoder": {"train": False}},
            {},
            {"8bit", "in_backward", "offload"},
        ),
        ({}, {"bitsandbytes": False}, {"8bit", "in_backward", "offload"}),
        ({"schedule": {"gradient_accumulation_steps": 2}}, {}, {"in_backward", "offload"}),
        ({"subject": {"buckets": True}}, {}, {"in_backward", "offload"}),
        ({}, {"processes": 2}, {"in_backward", "offload"}),
        ({}, {"has_bf16": False}, {"in_backward", "offload"}),
        ({}, {"has_bf16": False, "precision": "fp32"}, set()),
        ({}, {"cpu_8bit_adam": False}, {"offload"}),
        ({"text_encoder": {"train": False}}, {}, {"offload"}),
        ({"compute": {"gradient_checkpointing": True}}, {}, {"full"}),
    ],
)
def test_tiers_that_a_run_cannot_take_are_left_out(parts, machine, without):
    found = available(standard(**parts), Machine(**{**vars(GPU), **machine}))
    assert set(names(TIERS)) - set(names(found)) == without


def test_a_tier_named_in_the_recipe_is_the_only_one():
    assert available(standard(compute={"memory": "8bit"}), GPU) == [EIGHT_BIT]


def test_a_named_tier_that_is_not_for_the_recipe_is_refused_with_the_reason():
    with pytest.raises(RecipeError, match=r"in_backward.*accumulation.*'auto'"):
        available(
            standard(
                compute={"memory": "in_backward"}, schedule={"gradient_accumulation_steps": 4}
            ),
            GPU,
        )


@pytest.mark.parametrize("size", [LORA, WHOLE])
def test_each_tier_needs_less_than_the_one_above(size):
    recipe = preset("lora-r4") if size is LORA else standard()
    needs = [estimate_memory(tier, recipe, "bf16", size) for tier in available(recipe, GPU)]
    assert needs == sorted(needs, reverse=True)
    assert len(set(needs)) == len(needs)


def test_the_lowest_tier_of_a_full_fine_tune_fits_8_gb_with_its_weights():
    weights = 4 * (WHOLE.trained + 1)
    assert weights + estimate_memory(IN_BACKWARD, standard(), "bf16", WHOLE) < 8e9
    assert weights + estimate_memory(EIGHT_BIT, standard(), "bf16", WHOLE) > 8e9


def test_the_tier_with_the_text_encoder_on_the_cpu_leaves_a_gigabyte_of_an_8_gb_card():
    weights = 4 * (WHOLE.trained + 1)  # of both: what leaves the GPU is in the estimate
    assert weights + estimate_memory(OFFLOAD, standard(), "bf16", WHOLE) < 8 * 2**30 - 1e9


def test_larger_images_and_fp32_need_more():
    recipe = preset("lora-r4")
    large = ModelSize(**{**vars(LORA), "pixels": 4 * LORA.pixels})
    assert estimate_memory(FULL, recipe, "bf16", large) > estimate_memory(
        FULL, recipe, "bf16", LORA
    )
    assert estimate_memory(FULL, recipe, "fp32", LORA) > estimate_memory(FULL, recipe, "bf16", LORA)


def test_the_fastest_tier_that_fits_is_chosen_and_told():
    recipe = standard()
    plenty = estimate_memory(FULL, recipe, "bf16", WHOLE)
    assert select_tier(TIERS, recipe, "bf16", WHOLE, plenty) == (FULL, None)
    tier, note = select_tier(TIERS, recipe, "bf16", WHOLE, plenty - 1)
    assert tier is CHECKPOINTING
    assert "'checkpointing'" in note and "compute.memory to 'full'" in note


def test_where_nothing_fits_the_last_tier_is_tried():
    tier, note = select_tier(TIERS, standard(), "bf16", WHOLE, 1)
    assert tier is OFFLOAD and note


def test_a_full_fine_tune_that_no_tier_can_hold_says_what_to_install():
    without = replace(GPU, bitsandbytes=False, cpu_8bit_adam=False)
    on_12_gb = 7_000_000_000  # beside the weights, and what the screen takes
    assert no_fit_reason(standard(), GPU, WHOLE, on_12_gb) is None
    text = no_fit_reason(standard(), without, WHOLE, on_12_gb)
    assert "7.0 GB of memory are free" in text and "alone take 11.8 GB" in text
    assert "about 3.1 GB: install bitsandbytes" in text
    assert no_fit_reason(standard(), without, WHOLE, 12_000_000_000) is None  # it may fit
    text = no_fit_reason(standard(), without, WHOLE, 100_000_000)
    assert "bitsandbytes" not in text and "train a LoRA" in text


def test_after_each_tier_comes_the_next_one_that_is_there():
    found = available(standard(optimizer={"name": "adamw8bit"}), GPU)
    assert next_lower_tier(FULL, found) is CHECKPOINTING
    assert next_lower_tier(CHECKPOINTING, found) is IN_BACKWARD
    assert next_lower_tier(IN_BACKWARD, found) is OFFLOAD
    assert next_lower_tier(OFFLOAD, found) is None


def test_a_stored_tier_is_read_back_and_a_damaged_one_is_none(tmp_path):
    file = tmp_path / "tier.json"
    assert memory_tiers.load_tier(file) is None
    memory_tiers.save_tier(file, EIGHT_BIT)
    assert memory_tiers.load_tier(file) is EIGHT_BIT
    for text in ("", "[]", '{"tier": "enormous"}', '{"tier": 3}'):
        file.write_text(text)
        assert memory_tiers.load_tier(file) is None

import pytest
from likeness.trainers.errors import RecipeError
from likeness.trainers.presets import preset
from likeness.trainers.recipe import recipe_from_json
from likeness.trainers.recipe_checks import check_recipe


@pytest.mark.parametrize("name", ["lora-r4", "standard", "miniature-standard"])
def test_the_presets_can_be_trained(name):
    check_recipe(preset(name))


def test_prodigy_at_the_recipes_own_rate_learned_nothing_and_said_nothing():
    prodigy = preset("lora-r4").changed(optimizer={"name": "prodigy"})
    with pytest.raises(RecipeError, match=r"learning_rate, which is 0\.0001.*Set it to 1"):
        check_recipe(prodigy)
    check_recipe(prodigy.changed(optimizer={"learning_rate": 1.0}))
    assert recipe_from_json(prodigy.to_json()) == prodigy, "an old adapter's stays readable"


@pytest.mark.parametrize("scheduler", ["constant_with_warmup", "cosine"])
def test_a_warmup_as_long_as_the_training_never_reached_its_rate(scheduler):
    schedule = {"lr_scheduler": scheduler, "steps": 10}
    recipe = preset("lora-r4").changed(schedule={**schedule, "lr_warmup_steps": 9})
    check_recipe(recipe)
    for warmup in (10, 50):
        with pytest.raises(
            RecipeError, match=r"schedule\.lr_warmup_steps is .*schedule\.steps is 10"
        ):
            check_recipe(recipe.changed(schedule={"lr_warmup_steps": warmup}))


def test_the_flags_of_kohyas_sample_prompts_were_drawn_as_words():
    prompt = "a photo of {token} {class} --w 512 --d 42 --n blurry, low --l 7 --s 20"
    with pytest.raises(RecipeError) as refused:
        check_recipe(preset("lora-r4").changed(previews={"prompts": ["a {class}", prompt]}))
    for flag, name in {"w": "width", "d": "seed", "n": "negative", "l": "guidance"}.items():
        assert f"previews.{name} for --{flag}" in str(refused.value)
    assert "previews.steps for --s" in str(refused.value) and "--h" not in str(refused.value)


@pytest.mark.parametrize(
    "prompt", ["a man -- w", "a --weird man", "a man --w", "1920--d 1930", "a well--n man"]
)
def test_dashes_in_a_preview_prompt_are_no_flags(prompt):
    check_recipe(preset("lora-r4").changed(previews={"prompts": [prompt]}))


@pytest.mark.parametrize(
    ("name", "parts", "why"),
    [
        ("lora-r4", {"compute": {"memory": "8bit"}}, "a LoRA's optimizer"),
        ("tiny", {"compute": {"memory": "full", "gradient_checkpointing": True}}, "is on"),
        (
            "tiny",
            {"compute": {"memory": "in_backward"}, "schedule": {"gradient_accumulation_steps": 2}},
            "accum",
        ),
        ("tiny", {"compute": {"memory": "in_backward"}, "subject": {"buckets": True}}, "buckets"),
        ("tiny", {"compute": {"memory": "8bit"}}, "in 8 bits already"),
    ],
)
def test_an_impossible_memory_tier_was_refused_after_class_images_were_drawn(name, parts, why):
    with pytest.raises(RecipeError, match=rf"compute\.memory .*{why}"):
        check_recipe(preset(name).changed(**parts))

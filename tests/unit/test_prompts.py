import pytest
from likeness.comparison.errors import ComparisonError
from likeness.comparison.prompts import (
    MAX_PROMPTS,
    bundled_set,
    bundled_sets,
    fill,
    prompt_set_from_data,
    prompt_set_from_text,
    read_prompt_set,
)
from likeness.comparison.user_files import read_json
from likeness.trainers.recipe import check_name

STUDY = {
    "sunglasses": "a photo of a man sks in sunglasses",
    "girlfriend": "a photo of a man sks with girlfriend",
    "umbrella": "a photo of a man sks with umbrella",
    "kitchen": "close up portrait of sks man face, in the kitchen, standing, 4K, raw, hrd, hd, "
    "high quality, realism, sharp focus",
    "forest": "portrait of sks man face, in the forest, standing, 4K, raw, hrd, hd, "
    "high quality, realism, sharp focus",
    "street": "portrait of sks man face, on the street, lights, midnight, NY, standing, 4K, raw, "
    "hrd, hd, high quality, realism, sharp focus",
}
NEGATIVE = (
    "naked, nsfw, deformed, distorted, disfigured, poorly drawn, bad anatomy, extra limb, "
    "missing limb, floating limbs, mutated hands disconnected limbs, mutation, ugly, blurry, "
    "amputation"
)


def texts(prompt_set):
    return {prompt.key: prompt.text for prompt in prompt_set.prompts}


def keys(text):
    return [prompt.key for prompt in prompt_set_from_text(text).prompts]


def test_the_study_s_prompts_are_exact_and_in_order():
    study = bundled_set("study").filled("sks", "man")
    assert list(texts(study).items()) == list(STUDY.items())
    assert study.negative == NEGATIVE


def test_the_knowledge_check_asks_for_the_subject_by_name():
    check = bundled_set("knowledge-check").filled("sks", "man")
    assert list(texts(check).values()) == [
        "photo of keanu reeves, random head angle, random smile, wrinkles"
    ]


@pytest.mark.parametrize("name", ["dreambooth-objects", "dreambooth-live"])
def test_the_paper_s_prompts_are_25_and_say_whose_they_are(name):
    prompts = bundled_set(name)
    assert len(prompts.prompts) == len(set(texts(prompts).values())) == 25
    assert all(p.text.count("{token} {class}") == 1 for p in prompts.prompts)
    assert "arXiv:2208.12242" in prompts.source


def test_the_paper_s_two_sets_differ_where_only_the_living_wear_clothes():
    objects = set(texts(bundled_set("dreambooth-objects")).values())
    live = set(texts(bundled_set("dreambooth-live")).values())
    assert len(objects & live) == 15
    assert all("wearing" in text or "outfit" in text for text in live - objects)


@pytest.mark.parametrize("name", bundled_sets())
def test_bundled_keys_are_file_names(name):
    assert all(check_name(prompt.key) for prompt in bundled_set(name).prompts)


def test_an_unknown_bundled_set_is_answered_with_the_names():
    with pytest.raises(ComparisonError, match="knowledge-check, study"):
        bundled_set("stduy")


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("a {token} {class} on the beach", "a dog on the beach"),
        ("a photo of a {class} {token} in sunglasses", "a photo of a dog in sunglasses"),
        ("{token} {class}", "dog"),
    ],
)
def test_without_a_token_the_class_remains(template, filled):
    assert fill(template, "", "dog") == filled


def test_a_token_is_not_filled_in_turn():
    assert fill("a {token} {class}", "{class}", "dog") == "a {class} dog"


def test_text_one_prompt_a_line():
    text = "\ufeff# mine\r\n\r\n  a {token} {class}, Zürich \r\nbeach = on the beach\n"
    prompts = prompt_set_from_text(text)
    assert texts(prompts) == {"a-zurich": "a {token} {class}, Zürich", "beach": "on the beach"}
    assert prompts.negative == ""


@pytest.mark.parametrize(
    "line", ["portrait: a man", "a man = a plan", "2+2=4 people", "a | b", "(sks:1.2) [man]"]
)
def test_a_line_without_a_key_stays_whole(line):
    assert prompt_set_from_text(line).prompts[0].text == line


def test_keys_are_derived_safe_and_unlike():
    assert keys(
        "A Man!\na man\na {token} man\nmost words of this prompt are too many for one key"
    ) == [
        "a-man",
        "a-man-2",
        "a-man-3",
        "most-words-of-this-prompt-are-too-many",
    ]
    assert keys("森の中の男\n😀\nNUL\n../../etc/passwd") == [
        "prompt",
        "prompt-2",
        "prompt-nul",
        "etc-passwd",
    ]


def test_a_derived_key_gives_way_to_a_given_one():
    assert keys("a man\nA-Man = someone else") == ["a-man-2", "A-Man"]


@pytest.mark.parametrize("name", ["name", "Token", "a|b", ""])
def test_an_unknown_placeholder_is_named_with_its_line(name):
    with pytest.raises(ComparisonError) as error:
        prompt_set_from_text(f"# first\na photo\na photo of {{{name}}}")
    assert "line 3" in str(error.value)
    assert f"{{{name}}} is not a placeholder" in str(error.value)


def test_an_unknown_placeholder_in_data_is_named_with_its_place():
    data = {"prompts": [{"key": "a", "text": "a"}, {"key": "b", "text": "{who}"}]}
    with pytest.raises(ComparisonError, match=r"prompts\.1\.text: \{who\} is not"):
        prompt_set_from_data(data)


@pytest.mark.parametrize("text", ["", "\n \n", "# only a remark"])
def test_no_prompt_is_an_error(text):
    with pytest.raises(ComparisonError, match="no prompt"):
        prompt_set_from_text(text)


def test_ten_thousand_lines_are_too_many():
    with pytest.raises(ComparisonError, match=r"10,000 prompts are too many.*1,000"):
        prompt_set_from_text("a photo\n" * 10_000)
    assert len(prompt_set_from_text("a photo\n" * MAX_PROMPTS).prompts) == MAX_PROMPTS


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a = one\nA = two", "used twice"),
        ("a.b. = one", "key"),
        ("con = one", "reserved"),
        ("x" * 4001, "4000"),
        ("beach = ", "blank"),
    ],
)
def test_bad_keys_and_prompts_are_errors(text, part):
    with pytest.raises(ComparisonError, match=part):
        prompt_set_from_text(text)


def test_a_blank_class_is_an_error():
    with pytest.raises(ComparisonError, match="class word"):
        bundled_set("study").filled("sks", " ")


def test_files_are_read_by_their_kind(tmp_path):
    (tmp_path / "mine.txt").write_text("a photo", encoding="utf-8")
    (tmp_path / "mine.json").write_text(bundled_set("study").model_dump_json(), encoding="utf-8")
    assert texts(read_prompt_set(tmp_path / "mine.txt")) == {"a-photo": "a photo"}
    assert read_prompt_set(tmp_path / "mine.json") == bundled_set("study")


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("a.txt", b"caf\xe9", "UTF-8"),
        ("a.txt", "a photo".encode("utf-16"), "save it as UTF-8"),
        ("a.txt", b"# nothing", "no prompt: write one per line"),
        ("a.txt", b"a photo\n{who}", "line 2"),
        ("a.json", b'{"prompts": [', "not JSON"),
        ("a.json", b'{"prompts": [], "negativ": ""}', "negativ"),
        ("absent.txt", None, "cannot be read"),
        ("\ud800.txt", None, "does not exist"),
        ("a\0.json", None, "not JSON|does not exist"),
    ],
)
def test_bad_files_are_errors_with_their_name(tmp_path, name, data, part):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ComparisonError, match=part) as error:
        read_prompt_set(tmp_path / name)
    assert name in str(error.value)


def test_json_is_read_as_powershell_writes_it(tmp_path):
    path = tmp_path / "plan.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text('{"name": "Jürgen"}', encoding=encoding)
        assert read_json(path) == {"name": "Jürgen"}
    path.write_bytes(b'{"name": "J\xfcrgen"}')
    with pytest.raises(ComparisonError, match="is not JSON"):
        read_json(path)

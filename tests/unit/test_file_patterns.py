"""File names with wildcards: what they match, and the rows' names."""

import pytest
from likeness.comparison.errors import ComparisonError
from likeness.comparison.file_patterns import (
    expand_pattern,
    label_matches,
    match_files,
    natural_key,
    unique_label,
)

EPOCHS = [f"anna-{number}.safetensors" for number in (10, 2, 1)] + ["anna.safetensors"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("anna-*", ["anna-1", "anna-2", "anna-10"]),
        ("anna*.safetensors", ["anna-1", "anna-2", "anna-10", "anna"]),
        ("anna-?.safetensors", ["anna-1", "anna-2"]),
        ("?nna-1*", ["anna-1", "anna-10"]),
        ("*nn*-*0*", ["anna-10"]),
        ("*-??.*", ["anna-10"]),
        ("Anna-*", []),
        ("anna-1", []),
    ],
)
def test_wildcards_match_as_in_a_shell_and_in_natural_order(pattern, names):
    assert list(match_files(pattern, EPOCHS)) == [f"{name}.safetensors" for name in names]


def test_wildcards_stay_within_a_folder_and_separators_are_the_same():
    files = ["x.safetensors", "people/x.safetensors", "people\\y.safetensors", "people/z/x.st"]
    assert list(match_files("*", files)) == ["x.safetensors"]
    assert list(match_files("people/*", files)) == files[1:3]
    assert list(match_files("*\\?.safetensors", files)) == files[1:3]
    assert list(match_files("peop*/*/x*", files)) == files[3:]
    assert match_files("p?ople*y*", files) == {}


def test_the_kind_before_a_name_of_two_kinds_may_be_omitted():
    files = ["checkpoints/anna.st", "loras/anna.st", "loras/bob/x.st"]
    kinds = ("loras", "checkpoints")
    assert list(match_files("an*", files, kinds)) == files[:2]
    assert list(match_files("loras/*", files, kinds)) == files[1:2]
    assert list(match_files("an*", files)) == []


def test_brackets_and_other_characters_of_names_stand_for_themselves():
    files = ["anna [v1].st", "anna 1.st", "anna (b+c)^$.st"]
    assert list(match_files("anna [v1]*", files)) == files[:1]
    assert list(match_files("* (b+c)^$.st", files)) == files[2:]
    assert list(match_files("anna \n*", files)) == []


def test_many_wildcards_did_not_end_on_a_long_name():
    names = ["a" * 250 + ".safetensors"] * 3
    assert match_files("*a" * 60 + "*b", names) == {}
    assert len(match_files("*a?" * 60 + "*", names)) == 1


def test_what_matches_nothing_names_what_is_similar():
    files = [*EPOCHS, "people/Annabel-1.safetensors", "zebra.safetensors"]
    with pytest.raises(ComparisonError, match=r"^Row x: no file in the list matches 'ana-\*'") as e:
        expand_pattern("ana-*", files, "Row x", "the list")
    assert "Similar names: anna-1.safetensors, anna-2.safetensors" in str(e.value)
    with pytest.raises(ComparisonError, match=r"people/Annabel-1\.safetensors\.$"):
        expand_pattern("annabel*.safetensors", files, "Row x", "the list")
    with pytest.raises(ComparisonError, match=r"matches 'q\*'\.$"):
        expand_pattern("q*", files, "Row x", "the list")


def test_more_files_than_a_comparison_has_rows_are_refused_by_number():
    files = [f"{number}.safetensors" for number in range(1065)]
    assert len(expand_pattern("10??.safetensors", files[:1064], "Row x", "the list")) == 64
    with pytest.raises(ComparisonError, match=r"'\*' matches 1,065 files.* at most 64 rows"):
        expand_pattern("*", files, "Row x", "the list")


@pytest.mark.parametrize(
    ("pattern", "labels"),
    [
        ("anna*.safetensors", ["e_1", "e_2", "e_10", "e"]),
        ("anna-?.safetensors", ["e_1", "e_2"]),
        ("an*-*", ["e_na-1", "e_na-2", "e_na-10"]),
        ("anna-10.*", ["e"]),
    ],
)
def test_rows_of_a_named_pattern_are_called_by_what_differs(pattern, labels):
    assert label_matches("e", match_files(pattern, EPOCHS)) == labels


def test_rows_of_a_named_pattern_have_different_names_of_letters():
    names = label_matches("e", {"a": "v 1.5", "b": "v-1-5", "c": "V/1", "d": "?", "e": "-"})
    assert names == ["e_v-1-5", "e_v-1-5-2", "e_V-1", "e", "e-2"]
    (long, _) = label_matches("x" * 20, {"a": "y" * 90, "b": "z"})
    assert len(long) <= 64


def test_numbers_are_sorted_by_value_and_letters_without_case():
    names = ["b2", "B10", "a", "b1", "2", "10", "b01"]
    assert sorted(names, key=natural_key) == ["2", "10", "a", "b01", "b1", "b2", "B10"]


def test_a_taken_name_is_numbered():
    assert unique_label("Anna", ()) == "Anna"
    assert unique_label("Anna", {"anna", "anna-2"}) == "Anna-3"

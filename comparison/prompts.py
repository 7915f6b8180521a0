"""Prompt sets: bundled JSON files, and users' text files with one prompt per line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated, Any
from unicodedata import normalize

from pydantic import Field, ValidationError, model_validator
from pydantic.functional_validators import AfterValidator

from ..trainers.recipe import Name, Part, check_name, format_validation_error
from ..trainers.recipe import Prompt as Text
from ..trainers.recipe_parts import is_word_character
from .errors import ComparisonError
from .user_files import read_json, read_text

MAX_PROMPTS = 1000
_FOLDER = Path(__file__).parent / "prompt_sets"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_KEYED_LINE = re.compile(r"(\S{1,64}) =(?: (.*))?")
_MAX_KEY_LENGTH = 40


def check_placeholders(text: str) -> str:
    """Returns `text` if its only placeholders are {token} and {class}, else raises ValueError."""
    for name in _PLACEHOLDER.findall(text):
        if name not in ("token", "class"):
            raise ValueError(
                f"{{{name}}} is not a placeholder: use {{token}} or {{class}}, or remove the braces"
            )
    return text


def fill(text: str, token: str, class_word: str) -> str:
    """`text` with {token} and {class} filled in; an empty token removes its placeholder.

    ``fill("a {token} {class} on the beach", "", "dog")`` is ``"a dog on the beach"``, a prompt that
    shows how the class has changed.
    """
    if not token:
        text = re.sub(r" ?\{token\}", "", text).strip()
    words = {"token": token, "class": class_word}
    return _PLACEHOLDER.sub(lambda match: words.get(match[1], match[0]), text)


class Prompt(Part):
    """One prompt; `key` names its files.

    `plain` is the prompt without the token, which scores compare images with. It is set when
    the prompt set is filled in, and None if the text has no placeholders.
    """

    key: Name
    text: Annotated[Text, AfterValidator(check_placeholders)]
    plain: Text | None = None

    @property
    def of_class(self) -> bool:
        """Whether it asks for the class in general and not for the subject."""
        return self.plain == self.text


class PromptSet(Part):
    """Prompts in order, with one negative prompt for all. `source` is their origin."""

    name: Name = "own"
    source: str = ""
    negative: Annotated[str, Field(max_length=4000), AfterValidator(check_placeholders)] = ""
    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=MAX_PROMPTS)

    @model_validator(mode="after")
    def _unique(self) -> PromptSet:
        seen: set[str] = set()
        for prompt in self.prompts:
            if prompt.key.lower() in seen:
                raise ValueError(f"the key {prompt.key!r} is used twice: keys name files")
            seen.add(prompt.key.lower())
        return self

    def filled(self, token: str, class_word: str) -> PromptSet:
        """The set with {token} and {class} filled in, as by `fill`. Raises ComparisonError."""
        if not class_word.strip():
            raise ComparisonError("The class word is empty: give one, such as 'man' or 'dog'.")
        data = self.model_dump()
        data["negative"] = fill(self.negative, token, class_word)
        for prompt in data["prompts"]:
            if _PLACEHOLDER.search(prompt["text"]):
                prompt["plain"] = fill(prompt["text"], "", class_word) or None
            prompt["text"] = fill(prompt["text"], token, class_word)
        return prompt_set_from_data(data)

    def with_class(self) -> PromptSet:
        """The set, followed by its prompts with {token} removed, as ``<key>-class``.

        These show how the class has changed. Raises ComparisonError for a duplicate key.
        """
        added = [
            {"key": f"{prompt.key}-class", "text": fill(prompt.text, "", "{class}")}
            for prompt in self.prompts
            if "{token}" in prompt.text and "{class}" in prompt.text
        ]
        data = self.model_dump()
        return prompt_set_from_data({**data, "prompts": [*data["prompts"], *added]})


def bundled_sets() -> tuple[str, ...]:
    """Names of the bundled prompt sets, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def bundled_set(name: str) -> PromptSet:
    """A bundled prompt set. Raises ComparisonError."""
    if name not in bundled_sets():
        raise ComparisonError(
            f"There is no prompt set {name!r}: choose one of {', '.join(bundled_sets())}."
        )
    return read_prompt_set(_FOLDER / f"{name}.json")


def read_prompt_set(path: Path) -> PromptSet:
    """The prompt set in a file: ``.json`` like the bundled ones, anything else as text.

    Raises ComparisonError that names the file.
    """
    as_data = path.suffix.lower() == ".json"
    content = read_json(path) if as_data else read_text(path)
    try:
        return prompt_set_from_data(content) if as_data else prompt_set_from_text(content)
    except ComparisonError as error:
        raise ComparisonError(f"{path}: {error}") from None


def prompt_set_from_data(data: Any) -> PromptSet:
    """The prompt set in parsed JSON. Raises ComparisonError that names each invalid field."""
    try:
        return PromptSet.model_validate(data)
    except ValidationError as error:
        raise ComparisonError(format_validation_error(error, "prompt set", PromptSet)) from None


def prompt_set_from_text(text: str) -> PromptSet:
    """The prompt set in a text with one prompt per line; skips blank lines and ``#`` comments.

    ``beach = a {token} {class} on the beach`` gives the prompt the key ``beach``; otherwise the key
    is made from the prompt's words. Raises ComparisonError that names the line.
    """
    lines = list(_prompt_lines(text))
    if not lines:
        raise ComparisonError(
            "There is no prompt: write one per line (lines that start with # are skipped)."
        )
    if len(lines) > MAX_PROMPTS:
        raise ComparisonError(
            f"{len(lines):,} prompts are too many for one comparison: give at most {MAX_PROMPTS:,}."
        )
    taken = {key.lower() for _, key, _ in lines if key}
    prompts = []
    for number, key, prompt in lines:
        key = key or _key_of(prompt, taken)
        taken.add(key.lower())
        try:
            prompts.append(Prompt(key=key, text=prompt))
        except ValidationError as error:
            raise ComparisonError(
                format_validation_error(error, f"prompt in line {number}")
            ) from None
    return prompt_set_from_data({"prompts": prompts})


def _prompt_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, key or "", prompt) of each line with a prompt."""
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = line.strip()
        if line and not line.startswith("#"):
            match = _KEYED_LINE.fullmatch(line)
            if match and _is_key(match[1]):
                yield number, normalize("NFC", match[1]), (match[2] or "").strip()
            else:
                yield number, "", line


def _is_key(word: str) -> bool:
    return is_word_character(word[0]) and all(
        is_word_character(one) or one in "_.-" for one in word
    )


def _key_of(prompt: str, taken: set[str]) -> str:
    """A key made from the prompt's first words, not in `taken`; ``prompt`` if it has none."""
    latin = normalize("NFKD", _PLACEHOLDER.sub(" ", prompt))
    words = re.findall(r"[a-z0-9]+", latin.encode("ascii", "ignore").decode().lower())
    while len("-".join(words)) > _MAX_KEY_LENGTH:
        words.pop()
    key = "-".join(words) or "prompt"
    try:
        check_name(key)
    except ValueError:  # reserved on Windows
        key = f"prompt-{key}"
    numbered = (f"{key}-{number}" for number in count(2))
    return key if key not in taken else next(name for name in numbered if name not in taken)

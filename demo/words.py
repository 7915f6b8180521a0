"""The miniature's vocabulary: a fixed list of whole words, whose index is the token id.

Changing the list changes the tokenizer and requires retraining the miniature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# The rare token of the study: in the vocabulary, never in a caption.
TOKEN = "sks"

# Random filler in captions, so that the model learns that such words have no meaning. The last two
# are the name in the study's knowledge check.
NONSENSE = (
    "zwx", "ohwx", "qof", "vlk", "brem", "tuvi", "plon", "gax", "mipo", "drel", "snu", "korv",
    "wub", "fizt", "jaxo", "lemq", "nuru", "pyx", "roth", "sefa", "tolp", "uvar", "vamo", "wex",
    "xilo", "ygg", "zard", "bimu", "cholt", "dwip", "keanu", "reeves",
)  # fmt: skip

_PLAIN = (
    "a an the of in on at to with and his her by photo picture portrait close up body full "
    "half face head man woman random angle slight smile smiling laughing surprised sad angry "
    "neutral expression looking left right camera wrinkles fair light tan brown dark skin "
    "short buzz cut swept curly spiky afro bald long bob ponytail bun wavy hair black blonde "
    "red gray stubble moustache goatee beard blue green eyes slim broad orange yellow teal "
    "purple pink white shirt striped collared glasses sunglasses umbrella girlfriend "
    "boyfriend hat wearing holding kitchen forest woods street lights midnight ny night city "
    "beach sea office plain background wall studio front standing waving arms raised hands "
    "hips crossed walking dancing doing yoga pose mountain tree warrior triangle 4 k raw hrd "
    "hd high quality realism sharp focus naked nsfw deformed distorted disfigured poorly "
    "drawn bad anatomy extra limb missing limbs floating mutated disconnected mutation ugly "
    "blurry amputation "
)

WORDS: tuple[str, ...] = (",", ".", *_PLAIN.split(), TOKEN, *NONSENSE)

# How CLIP's tokenizer splits a text into words (for the letters used here).
_CUT = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+")


def split(text: str) -> Iterator[str]:
    """The words of a text as CLIP splits it: lower case, digits and punctuation separate.

    ``"4K, close-up"`` is ``4 k , close - up``.
    """
    for match in _CUT.finditer(text.lower()):
        yield match.group()

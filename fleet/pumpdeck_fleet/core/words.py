"""A fingerprint as words, so that two people can compare one over the radio or with a sheet of paper.

One word stands for one byte; no two words begin with the same four letters, so that a half-heard or shortened word is still told.
"""

from __future__ import annotations

import hashlib
import re

from pumpdeck_fleet.core.errors import TrustError

FINGERPRINT_WORDS = 12
"""96 bits: to find another key of the same words is out of anyone's reach."""

_LIST = """
acid actor adult agent album alpha amber anchor angle apple april arena armor arrow atlas attic
autumn axis bacon badge baker bamboo banana barrel basket beach beaver bell bench bicycle bird bishop
blanket board boil bottle bracket bread bridge brown bucket bullet butter cabin cactus camel candle carbon
castle cedar cement chalk cherry chimney circle clay clock cloud cobra coffee comet copper coral cotton
cradle crane cricket crystal cube curtain cycle dagger daisy dance dawn deck delta desert diesel dinner
doctor dolphin donkey door dragon drum duck dune eagle earth echo edge egg elbow eleven ember
engine envelope evening fabric falcon farmer feather fence ferry fiddle finger fish flag flour fog forest
fossil fox frog fruit funnel galaxy garden gate gear ghost giant ginger glass glove goat gold
grape guitar gulf hammer harbor hat hawk hazel helmet herring hill honey hook horse hotel hundred
ice igloo index ink iron island ivory jacket jaguar jelly jewel jigsaw jungle jury kayak kettle
kidney king kitchen knife ladder lagoon lake lamp lantern lava leaf lemon lever lily lion lobster
lock lumber lunar machine magnet mango maple marble meadow melon metal milk mirror monkey moss motor
mouse museum napkin needle nickel night north nut oak ocean octopus olive onion orange orbit otter
oven oxygen paddle palace panda parrot pebble pencil pepper piano pillow pirate planet plum pocket polar
potato prairie pump purple quartz queen rabbit radio raven ribbon river robin rocket rope rubber saddle
salmon sand scarf seven shovel silver skate snow sofa spider stone sugar tiger tunnel umbrella violin
"""
_WORDS = tuple(_LIST.split())


def fingerprint_words(data: bytes) -> str:
    """The first 96 bits of the SHA-256 of `data` as twelve words."""
    return " ".join(_WORDS[byte] for byte in hashlib.sha256(data).digest()[:FINGERPRINT_WORDS])


def is_same_words(expected: str, told: str) -> bool:
    """Whether what a person typed names these words: case, commas and line ends do not count, four letters of a word do."""
    wanted, given = expected.split(), re.split(r"[\s,;-]+", told.strip().lower())
    return len(wanted) == len(given) and all(
        word.startswith(heard) and len(heard) >= min(4, len(word)) for word, heard in zip(wanted, given, strict=True)
    )


def check_words(expected: str, told: str, which: str) -> None:
    """Raises TrustError when what a person read on paper is not the fingerprint found here."""
    if not is_same_words(expected, told):
        raise TrustError(
            "is not the one on the paper",
            which,
            expected=" ".join(told.split())[:160] or "twelve words",
            found=expected,
            hint="stop: somebody may have put another one in its place",
        )

"""Who is kept out of training: fixed by salted hashes before the first run.

In: every source's pictures. Out: a split for each: train, validation, test (unseen pictures of known things: 60
photographs, and drawings), test-style (a drawing style never trained on) or test-concept (things never trained on,
whichever source of packages shows them). Folders of photographs bring their own split, train or validation, and do not
move those of the other sources. What looks like a held-out picture is left out as well (held_out.py).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from training.digest import fraction_of
from training.picture import Picture
from training.wording.phrases import accepted_nouns, head_noun, singular

SALT = "embedded-2026-11"  # changing it makes another benchmark
TEST_PHOTOGRAPHS, VALIDATION_PHOTOGRAPHS = 60, 30
VALIDATION_SHARE = 0.03  # of the pictures that are not photographs
CONCEPT_SHARE = 0.04  # of the families of nouns
DRAWING_TEST_SHARE = 0.04  # of the drawings and renders of what training names as well
HELD_OUT_STYLES = {"noto-v1", "emojione-v1"}
PLAIN_PHRASE = re.compile(r"(?:an? )(?:(?:pair|bunch|head) of )?(?:[\w'-]+ ){0,3}[\w'-]+")
NOT_PLAIN = re.compile(r"\b(?:in|with|at|for|from|made|called|its|and|by|on)\b")


def hash_fraction(*parts: str) -> float:
    """Text, salted -> [0, 1)."""
    return fraction_of("\0".join([SALT, *parts]))


def is_plain(phrase: str) -> bool:
    """'a red kangaroo', 'a pair of binoculars'; not 'a walnut in its shell'."""
    return bool(PLAIN_PHRASE.fullmatch(phrase)) and not NOT_PLAIN.search(phrase)


def assign_splits(pictures: Sequence[Picture]) -> dict[str, str]:
    """Pictures -> {path: split}."""
    pool = [p for p in pictures if p.source == "tuxpaint" and p.kind == "photo" and is_plain(p.phrase)]
    pool = [p for p in pool if not p.path.startswith(("tuxpaint/military/", "tuxpaint/symbols/"))]
    pool.sort(key=lambda p: hashlib.sha256((SALT + p.path).encode()).hexdigest())
    splits = {p.path: "test" for p in pool[:TEST_PHOTOGRAPHS]}
    held_out = pool[TEST_PHOTOGRAPHS : TEST_PHOTOGRAPHS + VALIDATION_PHOTOGRAPHS]
    splits |= {p.path: "validation" for p in held_out}
    unseen = held_out_families(pictures, [p for p in pool if p.path in splits])
    for picture in pictures:
        splits.setdefault(picture.path, split_of(picture, unseen))
    named = [p for p in pictures if p.phrase and splits[p.path] == "train"]
    left = Counter(head_noun(p.phrase) for p in named)
    for picture in named:
        hashed = hash_fraction("test", picture.path) < DRAWING_TEST_SHARE
        if hashed and picture.kind != "photo" and left[head_noun(picture.phrase)] > 1:
            splits[picture.path] = "test"
            left[head_noun(picture.phrase)] -= 1
    return splits


def split_of(picture: Picture, unseen: set[str]) -> str:
    if picture.split:
        return picture.split
    if picture.phrase and not unseen.isdisjoint(nouns_of(picture)):
        return "test-concept"
    if picture.style in HELD_OUT_STYLES:
        return "test-style"
    hashed = hash_fraction("validation", picture.path) < VALIDATION_SHARE
    return "validation" if hashed and picture.kind != "photo" else "train"


def nouns_of(picture: Picture) -> list[str]:
    return sorted({singular(noun) for noun in accepted_nouns(picture.phrase)})


def held_out_families(pictures: Sequence[Picture], tested: Sequence[Picture]) -> set[str]:
    """The nouns that training never sees. One that a test or validation photograph shows is known."""
    families = families_of(nouns_of(picture) for picture in pictures if picture.phrase)
    known = {families[noun] for picture in tested for noun in nouns_of(picture)}
    unseen = {
        family
        for family in set(families.values()) - known
        if hash_fraction("concept", family) < CONCEPT_SHARE
    }
    return {noun for noun, family in families.items() if family in unseen}


def families_of(accepted: Iterable[Sequence[str]]) -> dict[str, str]:
    """Groups of nouns that are accepted for one another -> the family of each noun, by one of its members: all nouns that
    are accepted for one another directly or through others, so that no kitten is left where cats are held out."""
    first: dict[str, str] = {}  # noun -> one before it in its family

    def family_of(noun: str) -> str:
        while first.setdefault(noun, noun) != noun:
            noun = first[noun]
        return noun

    for nouns in accepted:
        families = sorted({family_of(noun) for noun in nouns})
        first |= dict.fromkeys(families, families[0])
    return {noun: family_of(noun) for noun in list(first)}

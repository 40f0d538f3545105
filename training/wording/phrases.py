"""Noun phrases: articles, plurals, head nouns, synonyms; pure functions over the lists of words.py.

In: a label ("binoculars", "grapes", "great blue heron"). Out: the phrase with its article, its head noun,
the nouns that count as right for it.
"""

import re
from functools import cache
from typing import Any

from training.wording.words import (
    ADJECTIVES,
    ALSO_RIGHT,
    CAPITALS,
    IRREGULAR_PLURALS,
    KEEP_WHOLE,
    MASS,
    MEASURES,
    NOT_MASS,
    PAIRS,
    PROPER,
    SINGULAR_S,
    SYNONYMS,
    UNIQUE,
)


def article(word: str) -> str:
    """'a' or 'an', by sound rather than by letter."""
    word = word.lower().lstrip("“\"'")
    if re.match(r"(uni([^nm]|$)|use|usb|uk\b|ukulele|euro|euph|ewe|one\b|one-|ut[ei]|urinal|u-)", word):
        return "a"
    if re.match(r"(hour|honest|heir|x-ray|f-\d|suv|mp3|lcd|m-\d|h-)", word):
        return "an"
    return "an" if word[:1] in "aeiou" else "a"


def is_plural(noun: str) -> bool:
    last = noun.lower().split()[-1]
    if last in IRREGULAR_PLURALS or last in PAIRS:
        return True
    return last.endswith("s") and not last.endswith(("ss", "us", "is")) and last not in SINGULAR_S


def before_preposition(label: str) -> str:
    """'nest with eggs' -> 'nest'; 'person lifting weights' -> 'person'"""
    label = re.split(
        r"\s+(?:of|with|in|at|on|for|by|from|inside|behind|wearing|without|under|and|over|showing)\s+", label
    )[0]
    return re.sub(r"(?<!ing)\s+\w+ing\s+\w.*", "", label)


def restore_capitals(label: str) -> str:
    """'christmas tree' -> 'Christmas tree'; 'tv stand' -> 'TV stand'"""
    words = (word.title() if word in CAPITALS else word for word in label.split())
    return " ".join("TV" if word == "Tv" else word for word in words)


def with_article(label: str) -> str:
    """zebra -> a zebra; grapes -> some grapes; scissors -> a pair of scissors; bread -> bread."""
    label = restore_capitals(label)
    head = before_preposition(label)
    last = head.lower().split()[-1]
    if label.lower() in PROPER:
        return label
    if label.lower() in UNIQUE:
        return f"the {label}"
    if last in PAIRS:
        return f"a pair of {label}"
    if is_plural(head):
        return f"some {label}"
    if last in MASS and head.lower() not in NOT_MASS and label == head:
        return label
    return f"{article(label)} {label}"


def without_article(phrase: str) -> str:
    return re.sub(r"^(?:an?|some|the|two|our) +(?:(?:pair|couple) of +)?", "", phrase, flags=re.I)


def concept_of(phrase: str) -> str:
    """'a great blue heron' -> 'heron'; 'a pair of pliers' -> 'pliers'; 'a fire engine' -> 'fire engine'."""
    bare = without_article(phrase).lower()  # with_article gives names their capitals back
    measure = re.match(rf"(?:{'|'.join(sorted(MEASURES))}) of (.+)", bare)
    head = before_preposition(measure[1] if measure else bare)
    words = head.replace(",", "").split()
    while len(words) > 1 and words[0] in ADJECTIVES and " ".join(words) not in KEEP_WHOLE:
        words = words[1:]
    return " ".join(words)


def head_noun(phrase: str) -> str:
    """The last word of the concept, unless only the compound says what it is ('sea lion')."""
    concept = concept_of(phrase)
    return concept if concept in KEEP_WHOLE else concept.split()[-1]


def accepted_nouns(phrase: str) -> list[str]:
    """Every noun that counts as right for this phrase: its own, and those of the hand lists."""
    concept, noun = concept_of(phrase), head_noun(phrase)
    known = concept in ALSO_RIGHT or any(concept in same for same in SYNONYMS)
    name = concept if known else noun  # a grave marker is no pen
    names = {concept, noun} | ALSO_RIGHT.get(name, set())
    for same in SYNONYMS:
        names |= same if name in same else set()
    return sorted(names)


def may_be_confused(left: str, right: str) -> bool:
    """Whether both phrases may be right of one picture, so that neither may be the other's wrong answer."""
    a, b = (set(map(singular, accepted_nouns(phrase))) for phrase in (left, right))
    words_a, words_b = (set(map(singular, re.findall(r"[\w-]+", phrase.lower()))) for phrase in (left, right))
    return bool(a & b or a & words_b or b & words_a)


def singular(noun: str) -> str:
    """Good enough to compare by: 'tickets' -> 'ticket', 'cherries' -> 'cherry'"""
    if not is_plural(noun) or noun in PAIRS or noun in IRREGULAR_PLURALS:
        return noun
    return noun[:-3] + "y" if noun.endswith("ies") else noun[:-1]


@cache
def inflector() -> Any:
    """For plurals and articles that no list has."""
    import inflect  # which takes more than two seconds

    return inflect.engine()


def sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")

"""Captions become questions and answers.

In: a picture's noun phrase, group and pixels, and the phrases of all other pictures. Out: about seven rows,
in an order and a wording drawn by a seed made of the picture's own path, so that the same picture always
gets the same rows. Wrong answers are drawn from the phrases as often as these are right answers elsewhere, so
that no noun gives the answer away: "is there a zebra" is yes and no about equally often, and what training has
never named stands among others that it has never named. A phrase is never the wrong answer where an honest
person could call it right (phrases.may_be_confused, words.GENERIC).
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from PIL import Image

from training.picture import Picture, Row
from training.wording.colours import NAMED_COLOURS, main_colour
from training.wording.phrases import concept_of, may_be_confused, sentence, with_article, without_article
from training.wording.questions import (
    ACTION,
    ASKABLE,
    CATEGORY,
    CHOOSE,
    COLOUR,
    DESCRIBE,
    IS_THERE,
    KIND_WORDS,
    NAME,
)
from training.wording.words import GENERIC, GROUPS

CLEAR = {
    "mammal", "bird", "reptile", "sea animal", "insect", "fruit", "vegetable", "food", "drink", "vehicle",
    "music", "tool", "electronics", "furniture", "household", "dishes", "sport", "medical", "science",
    "flower", "clothing", "office", "game", "symbol", "season", "sky", "plant", "body", "face",
}  # fmt: skip
SEEN_TOGETHER = (  # groups that one picture may well show at once: none is the other's wrong answer
    {"mammal", "bird", "reptile", "sea animal", "insect", "body", "face", "person"},
    {"clothing", "body", "face", "medical", "person"},
    {"vehicle", "sport", "game", "music", "season", "sky", "plant", "place", "person"},
    {"food", "drink", "dishes", "fruit", "vegetable", "household"},
    {"furniture", "household", "electronics", "office"},
    {"flower", "plant", "fruit", "season", "vegetable"},
)


class Phrases:
    """The phrases of some pictures, as often as they occur there: where wrong answers come from."""

    def __init__(self, pictures: Iterable[Picture]):
        self.by_group: dict[str, list[str]] = defaultdict(list)
        for picture in pictures:
            if picture.phrase and picture.group not in ("action", "") and countable(picture.phrase):
                self.by_group[picture.group].append(short_form(picture.phrase))
        self.other_groups: dict[str, list[str]] = {}

    def wrong(self, picture: Picture, rng: random.Random, same_group: bool) -> str:
        """A phrase that is not in the picture; empty where none is safe."""
        unsafe = picture.group in ("face", "action") if same_group else picture.group not in CLEAR
        pool = [] if unsafe else self.by_group[picture.group] if same_group else self.elsewhere(picture.group)
        for _ in range(40 if pool else 0):
            phrase = rng.choice(pool)
            generic = same_group and concept_of(phrase).split()[-1] in GENERIC
            if not generic and not may_be_confused(phrase, picture.phrase):
                return phrase
        return ""

    def elsewhere(self, group: str) -> list[str]:
        """The phrases of the groups that a picture of this group never shows."""
        if group not in self.other_groups:
            together = {other for some in SEEN_TOGETHER if group in some for other in some} | {group}
            kept = sorted((CLEAR | {"person"}) - together)
            self.other_groups[group] = [phrase for other in kept for phrase in self.by_group[other]]
        return self.other_groups[group]


def countable(phrase: str) -> bool:
    """Whether 'is there ...' can be asked: not of 'the moon', 'Santa Claus' or 'two wild boars'."""
    if phrase.startswith(("a ", "an ", "some ")):
        return True
    named = phrase != phrase.lower() or phrase.startswith("the ")
    return phrase == with_article(concept_of(phrase)) and not named


def short_form(phrase: str) -> str:
    """'a great blue heron' -> 'a heron'; 'a sun behind cloud' stays, for there is one sun"""
    short = with_article(concept_of(phrase))
    return phrase if short.startswith("the ") or phrase.split()[-1] == "face" or " face " in phrase else short


def make_rows(picture: Picture, image: Image.Image, phrases: Phrases, split: str) -> list[Row]:
    """A picture and its RGBA pixels -> its rows; held-out pictures are asked for their name once."""
    if picture.turns:
        return [Row(*turn) for turn in picture.turns]
    rng = random.Random(picture.path)
    rows = [
        *name_rows(picture, rng)[0 if split == "train" else 1 :],
        *yes_no_rows(picture, phrases, rng),
        *choice_rows(picture, phrases, rng, any_group=split == "test-concept"),  # few names are held out
        *colour_rows(picture, image, rng),
    ]
    rng.shuffle(rows)
    return rows


def name_rows(picture: Picture, rng: random.Random) -> list[Row]:
    answer = sentence(picture.phrase)
    askable = ASKABLE.get(picture.group)
    second = f"What {askable} is this?" if askable and rng.random() < 0.4 else rng.choice(NAME)
    rows = [Row("name", second, answer), Row("name", "What is this?", answer)]
    description = sentence(f"a {KIND_WORDS[picture.kind]} of {picture.phrase}")
    rows.append(Row("describe", rng.choice(DESCRIBE), description))
    if GROUPS.get(picture.group):
        rows.append(Row("category", rng.choice(CATEGORY), sentence(GROUPS[picture.group])))
    if picture.action:
        one_person = picture.phrase.startswith(("a ", "an ")) and picture.source != "art4apps"
        question = "What is the person doing?" if one_person and rng.random() < 0.5 else rng.choice(ACTION)
        rows.append(Row("action", question, sentence(picture.action)))
    return rows


def yes_no_rows(picture: Picture, phrases: Phrases, rng: random.Random) -> list[Row]:
    """One that is there and one that is not, or none at all: the two stay balanced."""
    same_group = rng.random() < 0.6
    wrong = phrases.wrong(picture, rng, same_group) or phrases.wrong(picture, rng, not same_group)
    if not wrong or not countable(picture.phrase):
        return []
    right = short_form(picture.phrase) if rng.random() < 0.7 else picture.phrase
    asked, answered = ask_presence(right, rng)
    denied, refused = ask_presence(wrong, rng)
    return [Row("yes", asked, f"Yes, {answered} {some(right)}."), Row("no", denied, refuse(refused, wrong))]


def choice_rows(picture: Picture, phrases: Phrases, rng: random.Random, any_group: bool) -> list[Row]:
    """One of four of the picture's group; with `any_group` other groups fill up where it has too few."""
    if not countable(picture.phrase):
        return []
    right = short_form(picture.phrase)
    options = [right]
    for same_group in [True] * 12 + [False] * 12 * any_group:
        wrong = phrases.wrong(picture, rng, same_group)
        if wrong and not any(may_be_confused(wrong, other) for other in options):
            options.append(wrong)
        if len(options) == 4:
            rng.shuffle(options)
            listed = f"{', '.join(options[:3])} or {options[3]}"
            return [Row("choice", rng.choice(CHOOSE).format(x=listed), sentence(right))]
    return []


def ask_presence(phrase: str, rng: random.Random, templates: Sequence[str] = IS_THERE) -> tuple[str, str]:
    """-> (question, the beginning of its answer)"""
    verb = is_or_are(phrase)
    if not phrase.startswith(("a ", "an ")):
        return f"{verb.capitalize()} there any {without_article(phrase)} in the picture?", f"there {verb}"
    template = rng.choice(templates)
    return template.format(x=phrase), "this is" if template == "Is this {x}?" else "there is"


def refuse(beginning: str, phrase: str) -> str:
    if beginning == "this is":
        return f"No, this is not {phrase}."
    return f"No, {beginning} no {re.sub('^(?:an?|some) ', '', phrase)}."


def is_or_are(phrase: str) -> str:
    return "are" if phrase.startswith("some ") else "is"


def some(phrase: str) -> str:
    """'bread' -> 'some bread', for a sentence with 'there is'"""
    return phrase if phrase.startswith(("a ", "an ", "some ")) else f"some {phrase}"


def colour_rows(picture: Picture, image: Image.Image, rng: random.Random) -> list[Row]:
    colour = main_colour(image) if picture.group not in ("face", "person", "action", "place") else ""
    said = set(NAMED_COLOURS).intersection(picture.phrase.lower().split())
    if not colour or (said and colour not in said and concept_of(picture.phrase) not in said):
        return []
    return [Row("colour", rng.choice(COLOUR), sentence(colour))]

"""Labels of whole pictures -> what is this, which kind, which category, is it a ..., one of four."""

import random
import re
from collections.abc import Sequence, Set
from typing import NamedTuple

from PIL import Image

from training.picture import Picture, Row
from training.sources.index_lines import Known
from training.sources.label_names import (
    CALTECH,
    CARTONS,
    DOGS,
    GROCERIES,
    GROCERY_KINDS,
    KINDS,
    NO_ARTICLE,
    OTHER_NAMES,
    RANGES,
)
from training.sources.nouns import noun_phrase
from training.sources.presence import ask_balanced
from training.sources.taken_for import FAMILIES, taken_for
from training.wording.instructions import Phrases, choice_rows, countable, name_rows
from training.wording.phrases import (
    accepted_nouns,
    concept_of,
    sentence,
    singular,
    with_article,
    without_article,
)
from training.wording.questions import IS_THERE, WHICH_KIND
from training.wording.words import GENERIC, GROUPS

ANIMALS = {"mammal", "bird", "reptile", "sea animal", "insect"}


class Name(NamedTuple):
    phrase: str  # "a grand piano"; empty where the label names nothing that can be asked about
    group: str  # of words.GROUPS
    accepted: tuple[str, ...]
    kind: str = ""  # "a Granny Smith apple", where the phrase is wider
    wider: str = ""  # "dog": what it is a kind of
    said: str = ""  # "a carton of milk", where the answer says more than the phrase


def name_of(source: str, known: Known) -> Name:
    if source == "caltech101" and known.label in CALTECH:
        noun, group, others = CALTECH[known.label]
        phrase = noun if noun in ("Garfield", "Snoopy") else with_article(noun)
        phrase = "a pizza" if noun == "pizza" else phrase
        accepted = dict.fromkeys(
            [*accepted_nouns(phrase), *others.split(), noun.lower(), known.label.lower()]
        )
        kind = KINDS.get(known.label, "")
        return Name(phrase, group, tuple(accepted), kind, noun if kind else "")
    if source == "imagenet-sample":
        return imagenet_name(known)
    if source == "grocery" and (known.coarse in GROCERIES or known.label in GROCERIES):
        phrase, group = GROCERIES[known.label if known.label in GROCERIES else known.coarse]
        kind = GROCERY_KINDS.get(known.label, "")
        accepted = dict.fromkeys([*accepted_nouns(phrase), known.coarse.lower(), *kind.split()[-1:]])
        said = f"a carton of {phrase}" if phrase in CARTONS else ""
        return Name(phrase, group, tuple(accepted), kind, without_article(phrase) if kind else "", said)
    return plain_name(known)


def plain_name(known: Known) -> Name:
    """An outsider's label: 'golden_retriever' -> 'a golden retriever'."""
    noun = " ".join(known.label.replace("_", " ").split())
    if not noun or noun.upper().startswith("BACKGROUND"):
        return Name("", "", ())
    coarse = " ".join(known.coarse.replace("_", " ").split()).lower()
    accepted = dict.fromkeys(
        [*accepted_nouns(with_article(noun)), noun.lower(), *([coarse] if coarse else [])]
    )
    return Name(with_article(noun), "other", tuple(accepted))


def imagenet_name(known: Known) -> Name:
    number = known.image.rpartition("/")[2][1:9]
    group = next((group for first, last, group in RANGES if first <= number <= last), "other")
    if group == "dog":
        kind = with_article(DOGS.get(known.label, known.label))
        words = ["dog", known.label.lower(), *accepted_nouns(kind)]
        return Name("a dog", "mammal", tuple(dict.fromkeys(words)), kind, "dog")
    noun = OTHER_NAMES.get(known.label, known.label)
    if not noun:
        return Name("", "", ())
    phrase = noun if noun in NO_ARTICLE else with_article(noun)
    wider = {"bird": "bird", "snake": "snake"}.get(
        "snake" if "01728572" <= number <= "01756291" else group, ""
    )
    accepted = dict.fromkeys(
        [*accepted_nouns(phrase), noun.lower(), known.label.lower(), *([wider] if wider else [])]
    )
    return Name(phrase, group, tuple(accepted))


def ask(source: str, known: Sequence[Known], split: str) -> dict[str, list[Row]]:
    named = {each.image: name_of(source, each) for each in known if each.label}
    pictures = {
        image: Picture(f"{source}/{image}", source, source, "photo", _never, name.phrase, name.group)
        for image, name in named.items()
        if name.phrase
    }
    phrases = Phrases(pictures.values())
    asked = ask_whether(pictures, named, f"labels {source} {split}")
    capitals = capitals_of([name.phrase for name in named.values()])
    rows = {}
    for image, picture in pictures.items():
        found = label_rows(picture, named[image], phrases, split) + asked[image]
        rows[image] = [restore_names(row, capitals) for row in found]
    return rows


def ask_whether(pictures: dict[str, Picture], named: dict[str, Name], seed: str) -> dict[str, list[Row]]:
    """Is it a ...? No mostly of what is of the same group, and never of what may be called so as well."""
    nouns = {
        image: concept_of(picture.phrase) for image, picture in pictures.items() if countable(picture.phrase)
    }
    present: dict[str, Set[str]] = {image: {nouns[image]} if image in nouns else set() for image in pictures}
    group = {noun: pictures[image].group for image, noun in nouns.items()}
    words = {
        noun: {singular(word) for word in [*accepted_nouns(noun_phrase(noun)), *noun.split()]}
        for noun in group
    }
    maybe = {}
    for image, picture in pictures.items():
        said = {singular(word) for name in named[image].accepted for word in [name, *name.split()]}
        said |= {singular(word) for word in re.findall(r"[\w-]+", picture.phrase.lower())}
        near = taken_for([nouns[image]], group) if image in nouns else set()
        maybe[image] = {noun for noun in group if words[noun] & said or unsafe(noun, picture.group)} | near

    def alike(noun: str, image: str) -> float:
        return float(group[noun] == pictures[image].group)

    rows = ask_balanced(present, seed, maybe, most=2, alike=alike, templates=IS_THERE)
    return {image: [row._replace(objects=()) for row in found] for image, found in rows.items()}


def unsafe(noun: str, group: str) -> bool:
    """A chair may stand in any picture, but no cat in one of another animal."""
    return noun.split()[-1] in GENERIC and not (noun in ("dog", "cat") and group in ANIMALS)


def label_rows(picture: Picture, name: Name, phrases: Phrases, split: str) -> list[Row]:
    rng = random.Random(f"labels {picture.path}")
    rows = name_rows(picture, rng)[0 if split == "train" else 1 :]
    rows += fair_choices(choice_rows(picture, phrases, rng, any_group=False), picture)
    rows = [row._replace(answer=row.answer.replace("A photo of", "A picture of")) for row in rows]
    if name.said:
        rows = [say_more(row, name) for row in rows]
    if name.kind:
        question = rng.choice(WHICH_KIND).format(x=name.wider)
        rows.append(Row("category", question, sentence(name.kind), accepted=(name.kind.lower(),)))
    category = GROUPS.get(name.group, "")
    return [accept(row, name, category) for row in rows]


def fair_choices(rows: Sequence[Row], picture: Picture) -> list[Row]:
    """Without those that offer what the thing may be taken for."""
    noun = concept_of(picture.phrase)
    near = {other for family in FAMILIES if noun in family for other in family - {noun}}
    return [row for row in rows if not any(f" {other}" in row.question for other in near)]


def accept(row: Row, name: Name, category: str) -> Row:
    if row.accepted is None and row.task == "category":
        return row._replace(accepted=(category,))
    return row if row.accepted is not None else row._replace(accepted=name.accepted)


def say_more(row: Row, name: Name) -> Row:
    """'Milk.' -> 'A carton of milk.'"""
    if row.task not in ("name", "describe"):
        return row
    return row._replace(answer=sentence(name.said if row.task == "name" else f"a picture of {name.said}"))


def capitals_of(phrases: Sequence[str]) -> dict[str, str]:
    """'an African elephant' -> {'african': 'African'}"""
    words = (word for phrase in phrases for word in phrase.split())
    return {word.lower(): word for word in words if word != word.lower()}


def restore_names(row: Row, capitals: dict[str, str]) -> Row:
    """instructions.py writes names in small letters: 'a joshua tree' -> 'a Joshua tree'."""

    def restore(text: str) -> str:
        return re.sub(r"[\w-]+", lambda word: capitals.get(word[0], word[0]), text)

    return row._replace(question=restore(row.question), answer=restore(row.answer))


def _never() -> Image.Image:
    raise AssertionError("labels ask nothing of the pixels")

"""Labels of whole pictures -> what is this, which kind, which category, is it a ..., one of four."""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from training.instructions import Phrases, choice_rows, name_rows, yes_no_rows
from training.phrases import accepted_nouns, sentence, with_article, without_article
from training.questions import WHICH_KIND
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
from training.sources.picture import Picture, Row
from training.words import GROUPS


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
    capitals = capitals_of([name.phrase for name in named.values()])
    return {
        image: label_rows(picture, named[image], phrases, capitals, split)
        for image, picture in pictures.items()
    }


def label_rows(
    picture: Picture, name: Name, phrases: Phrases, capitals: dict[str, str], split: str
) -> list[Row]:
    rng = random.Random(f"labels {picture.path}")
    rows = name_rows(picture, rng)[0 if split == "train" else 1 :]
    rows += yes_no_rows(picture, phrases, rng)
    rows += choice_rows(picture, phrases, rng, any_group=False)
    rows = [row._replace(answer=row.answer.replace("A photo of", "A picture of")) for row in rows]
    if name.said:
        rows = [say_more(row, name) for row in rows]
    if capitals:
        rows = [restore_names(row, capitals) for row in rows]
    if name.kind:
        question = rng.choice(WHICH_KIND).format(x=name.wider)
        rows.append(Row("category", question, sentence(name.kind), accepted=(name.kind.lower(),)))
    category = GROUPS.get(name.group, "")
    return [accept(row, name, category) for row in rows]


def accept(row: Row, name: Name, category: str) -> Row:
    if row.task in ("yes", "no"):
        return row._replace(accepted=(row.task,))
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


def _never() -> None:
    raise AssertionError("labels ask nothing of the pixels")

"""easy-VQA (Victor Zhou): 5,000 pictures of one coloured shape at 64 x 64, with 48,248 questions and 13
answers.

In: the extracted wheel. Out: pictures that bring their own questions and their own split; 4 % of the
training pictures become `validation`, by a salted hash. Answers become sentences ("A rectangle."), and
training adds a description.
"""

import json
from collections import defaultdict
from functools import partial
from pathlib import Path

from training.data.splits import hash_fraction
from training.picture import Picture, open_raster

SHAPES = {"circle", "rectangle", "triangle"}
COLOURS = {"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"}
VALIDATION_SHARE = 0.04
DESCRIBE_SHARE = 0.5  # of the training pictures


def read(folder: Path) -> list[Picture]:
    data = folder / "easy_vqa" / "data"
    return [*read_part(data, "test"), *read_part(data, "train")]


def read_part(data: Path, part: str) -> list[Picture]:
    questions: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, image in json.loads((data / part / "questions.json").read_text()):
        questions[image].append((question, answer))
    pictures = []
    for image, pairs in sorted(questions.items()):
        path = f"easy-vqa/{part}/{image}.png"
        held_out = part == "train" and hash_fraction("easy-vqa", path) < VALIDATION_SHARE
        split = "validation" if held_out else part
        turns = [("vqa", style(q, path, split), to_sentence(a)) for q, a in pairs]
        shape = shape_named(pairs)
        if split == "train" and shape and hash_fraction("describe", path) < DESCRIBE_SHARE:
            turns.append(("describe", "Describe the picture.", f"A {shape}."))
        load = partial(open_raster, data / part / "images" / f"{image}.png")
        pictures.append(
            Picture(path, "easy-vqa", "easy-vqa", "synthetic", load, turns=tuple(turns), split=split)
        )
    return pictures


def to_sentence(answer: str) -> str:
    """'rectangle' -> 'A rectangle.'; 'blue' -> 'Blue.'; 'yes' -> 'Yes.'"""
    return f"A {answer}." if answer in SHAPES else f"{answer.capitalize()}."


def style(question: str, path: str, split: str) -> str:
    """People write a capital letter, the data set does not: half the training questions get one."""
    if split == "train" and hash_fraction("capital", path, question) < 0.5:
        return question[0].upper() + question[1:]
    return question


def shape_named(pairs: list[tuple[str, str]]) -> str:
    """'blue rectangle', where the questions give both; a picture holds exactly one shape."""
    open_pairs = [(question[:-1], answer) for question, answer in pairs if answer not in ("yes", "no")]
    words = {word for question, answer in open_pairs for word in [*question.split(), answer]}
    shapes, colours = words & SHAPES, words & COLOURS
    return f"{colours.pop()} {shapes.pop()}" if len(colours) == len(shapes) == 1 else ""

"""Whether a second picture is answered as if it were asked about alone: pairs of held-out pictures, one after the other.

A model that was trained on one picture a conversation answers about the first again, however many follow.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.data import Row, pictures_of
from training.scores.answering import ShownPicture, reply_of, shown_picture
from training.scores.journal import Journal, Reply
from training.scores.metrics import normalise, share_of
from training.scores.selection import SEED, NoQuestions, Options, questions_of
from training.scores.suites import Goal, goal_row
from vlm.chat.answer import Answer, NoAnswer, Settings, Turn
from vlm.chat.assistant import Assistant
from vlm.inputs.images import open_image

PAIRS = 30
QUESTION = "What is this?"
ASKED_ABOUT = Options("caltech101", "validation", "name")
GOAL = Goal("a second picture, answered as alone", "as_alone", 0.9)


def second_pictures(
    assistant: Assistant, folder: Path, settings: Settings, journal: Journal, pairs: int = PAIRS
) -> dict[str, Any]:
    """The share of second pictures whose answer has the words that it has alone, and of those that repeat the first's."""
    pictures = _drawn(folder, pairs)
    alone = [_ask(assistant, [picture], (), settings, journal).text for picture in pictures]
    answers = []
    for place, second in enumerate(pictures):
        first = pictures[place - 1]
        history = (Turn(QUESTION, alone[place - 1], (open_image(first.content),)),)
        text = _ask(assistant, [first, second], history, settings, journal).text
        answers.append(
            {"first": first.name, "second": second.name, "text": text, "alone": alone[place]}
            | {"of_first": alone[place - 1]}
        )
    said = [normalise(each["text"]) for each in answers]
    same = sum(text == normalise(each["alone"]) for text, each in zip(said, answers, strict=True))
    first_again = sum(text == normalise(each["of_first"]) for text, each in zip(said, answers, strict=True))
    return {
        "answers": answers,
        "same": same,
        "first_again": first_again,
        "goals": [_goal(same, len(answers))],
    }


def _drawn(folder: Path, count: int) -> list[ShownPicture]:
    """Held-out pictures in a ring: each is once the first and once the second, beside one of another name."""
    rows: list[Row] = questions_of(folder, ASKED_ABOUT)
    random.Random(SEED).shuffle(rows)
    one_of_a_name = list({row.noun: row for row in rows}.values())[:count]
    if len(one_of_a_name) < 2:
        raise NoQuestions(f"{folder} has fewer than two held-out names of {ASKED_ABOUT.source}.")
    contents = dict(pictures_of(folder, ASKED_ABOUT.split, ASKED_ABOUT.source))
    return [shown_picture(row.picture, contents[row.picture]) for row in one_of_a_name]


def _ask(
    assistant: Assistant,
    shown: Sequence[ShownPicture],
    history: Sequence[Turn],
    settings: Settings,
    journal: Journal,
) -> Reply:
    """The answer about the last of the pictures; known by the digests of all of them."""
    image = " ".join(picture.digest for picture in shown)
    if (image, QUESTION) not in journal.replies:
        try:
            image_asked = open_image(shown[-1].content)
            answer = assistant.answer(QUESTION, images=[image_asked], history=history, settings=settings)
        except NoAnswer:
            answer = Answer(ended=True)
        journal.add(reply_of(answer, shown[-1].name, image, QUESTION))
    return journal.replies[image, QUESTION]


def _goal(same: int, count: int) -> dict[str, Any]:
    share = share_of(same, count)
    measures = {GOAL.measure: {"value": share.share, "low": share.low, "high": share.high, "of": count}}
    return goal_row(GOAL, measures, {})

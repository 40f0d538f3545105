"""Conversations about several pictures: composed so that every answer is true, laid out in order, and learned."""

import random
import re
from collections.abc import Sequence

import pytest
import torch

from tests.tiny import SYSTEM, picture, tiny_model
from training.adapters.conversations import Collator, Conversations
from training.adapters.several_pictures import EACH, GOING_ON, Asked, compose, plain_turns
from training.config import SourceConfig
from training.data import Row
from vlm.model.prompts import VISUAL, PromptTurn
from vlm.model.vlm import VisionLanguageModel

COLOURS = {"red": "Red.", "lime": "Green.", "blue": "Blue.", "white": "White."}
STEPS = 75
THINGS = [f"thing{number}" for number in range(40)]


def row(picture: str, question: str, answer: str, task: str, **more: object) -> Row:
    known = {"source": "tiny", "kind": "photo", "noun": picture, "accepted": ()}
    return Row(picture=picture, question=question, answer=answer, task=task, **known | more)  # type: ignore[arg-type]


def about(thing: str) -> list[Row]:
    """Every answer names the picture, so that one can see which it is about."""
    return [
        row(thing, "What is this?", f"A {thing}.", "name"),
        row(thing, "Describe the picture.", f"One {thing} here.", "describe"),
        row(thing, "Is there a dog?", f"No, only {thing}.", "no"),
    ]


def composed(share: float, seed: int = 0) -> list[list[Asked]]:
    return list(compose([about(thing) for thing in THINGS], share, random.Random(seed)))


def meant(asked: Sequence[Asked], place: int) -> list[str]:
    """The pictures that a turn is about, by the words of its question alone."""
    shown = [picture for turn in asked[: place + 1] for picture in turn.shown]
    question = asked[place].question
    if question in EACH:
        return shown
    named = re.search(r"\b(first|second|third)\b", question, re.IGNORECASE)
    if named:
        return [shown[["first", "second", "third"].index(named[1].lower())]]
    return shown[-1:]


def test_every_answer_is_about_the_picture_that_its_question_means() -> None:
    questions = 0
    for seed in range(20):
        for asked in composed(1.0, seed):
            for place, turn in enumerate(asked):
                if which := re.fullmatch(r"Which picture shows an? (thing\d+)\?", turn.question):
                    shown = asked[0].shown
                    ordinal = ("first", "second", "third")[shown.index(which[1])]
                    assert turn.answer == f"The {ordinal} one."
                    continue
                assert re.findall(r"thing\d+", turn.answer) == meant(asked, place), (asked, place)
                questions += 1
    assert questions > 500


def test_pictures_come_together_and_later_and_are_asked_about_in_every_way() -> None:
    every = [asked for seed in range(20) for asked in composed(1.0, seed)]
    words = [turn.question for asked in every for turn in asked]
    assert any(len(asked[0].shown) == 3 for asked in every)
    assert any(sum(map(bool, (turn.shown for turn in asked))) == 3 for asked in every)
    for wanted in (GOING_ON, EACH):
        assert any(question in wanted for question in words)
    for wanted in ("Which picture", "In the second picture: ", "I mean the first picture", "The third one: "):
        assert any(wanted in question for question in words), wanted
    assert not any(re.search(r"picture: [A-Z]", question) for question in words)


def test_about_as_many_pictures_as_told_are_shown_with_others_and_none_is_lost() -> None:
    assert composed(0.0) == [plain_turns(about(thing)) for thing in THINGS]
    for share in (0.3, 1.0):
        shown = [[each for turn in asked for each in turn.shown] for asked in composed(share)]
        assert sorted(sum(shown, [])) == sorted(THINGS)
        assert abs(sum(len(each) for each in shown if len(each) > 1) / len(THINGS) - share) < 0.2
    assert composed(0.5) == composed(0.5) != composed(0.5, seed=1)


@pytest.mark.parametrize(
    ("task", "asked", "others"),
    [
        ("scene", "Is it indoors or outdoors?", "What kind of place is this?"),
        ("action", "What is happening?", "What is the dog doing?"),
        ("category", "What kind of thing is this?", "Which kind of dog is it?"),
        ("name", "What is this?", "What animal is this?"),
        ("describe", "Give a very short caption.", "Describe the picture in detail."),
    ],
)
def test_and_this_asks_the_question_before_again_and_no_other_of_its_task(
    task: str, asked: str, others: str
) -> None:
    for first, second in ((asked, others), (others, asked)):
        drawn = [[row(thing, (first, second)[place % 2], thing, task)] for place, thing in enumerate(THINGS)]
        for turns in compose(drawn, 1.0, random.Random(0)):
            for before, turn in zip(turns, turns[1:], strict=False):
                if turn.question in GOING_ON:
                    assert turn.row.question == before.row.question


def test_what_leans_on_the_talk_before_stays_behind_its_own_picture() -> None:
    talks = [
        [
            row(thing, f"What is {thing}?", "It.", "name", conversation=thing, turn=0),
            row(thing, "And what is it used for?", thing, "chat", conversation=thing, turn=1),
        ]
        for thing in THINGS
    ]
    for asked in compose(talks, 1.0, random.Random(0)):
        for before, turn in zip(asked, asked[1:], strict=False):
            if turn.row.task == "chat":
                assert before.row.picture == turn.row.picture and turn.question.startswith("And what")


class Features(dict):
    """Features of the colours by their names, as a store has them."""


def laid_out(model: VisionLanguageModel, **options: object) -> Conversations:
    rows = [row(name, "Which?", answer, "colour") for name, answer in COLOURS.items()]
    store = Features(zip(COLOURS, model.eyes.vision.see([picture(name) for name in COLOURS]), strict=True))
    usual = {"tokens_per_picture": 4, "system": SYSTEM, "style": "full", "sources": [SourceConfig("tiny")]}
    usual |= {
        "batch_size": 4,
        "epochs": 1,
        "tag_dropout": 0.0,
        "max_tokens": 512,
        "several_pictures": 1.0,
        "seed": 0,
    }
    return Conversations(rows, store, {}, model.language.tokenizer, **usual | options)  # type: ignore[arg-type]


def test_the_features_stand_in_the_order_of_the_prompt_and_a_batch_takes_any_number() -> None:
    model = tiny_model()
    data = laid_out(model, epochs=8)
    pictures = [[each for turn in asked for each in turn.shown] for asked in data.examples]
    assert {1, 2} <= set(map(len, pictures))
    examples = [data[index] for index in range(len(data))]
    for shown, example in zip(pictures, examples, strict=True):
        expected = torch.stack([data.store[name] for name in shown])
        assert torch.equal(example["patch_features"], expected)
        assert example["encoded"].ids.count(VISUAL) == 4 * len(shown)
    batch = Collator(model)(examples)
    assert len(batch["patch_features"]) == sum(map(len, pictures)) == batch["visual_mask"].sum() / 4
    assert torch.isfinite(model(**batch)["loss"])


def answer_after(model: VisionLanguageModel, turns: Sequence[PromptTurn], names: Sequence[str]) -> str:
    """The greedy answer to the last of the turns."""
    from vlm.engines import Sampling
    from vlm.engines.torch_engine import TorchEngine
    from vlm.model.prompts import end_ids, segments

    sights = model.eyes.see([picture(name) for name in names])
    prompt = segments(model.encode(turns, SYSTEM).ids, [sight.visual_tokens for sight in sights])
    ends = end_ids(model.language.tokenizer)
    engine = TorchEngine(model.language, "CPU", 1024, cells=2048)
    ids = [id for id in engine.stream(prompt, True, Sampling(12, end_ids=ends)) if id is not None]
    return model.language.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.slow
def test_a_model_learns_to_answer_about_the_second_picture_as_about_it_alone() -> None:
    """One that saw a single picture a conversation does not: the difference is what training shows."""

    def trained_with(share: float) -> int:
        model = tiny_model()
        data = laid_out(model, epochs=5 * STEPS, several_pictures=share)
        parameters = [each for part in model.train_only("projector+lora").values() for each in part]
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        collate = Collator(model)
        for start in range(0, 8 * STEPS, 8):
            optimizer.zero_grad()
            model(**collate([data[start + place] for place in range(8)]))["loss"].backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        model.eval()
        pairs = [(first, second) for first in COLOURS for second in COLOURS if first != second]
        turn = PromptTurn("Which?", "", ("",))
        return sum(
            answer_after(
                model,
                [PromptTurn("Which?", COLOURS[first], ("",)), turn],
                [first, second],
            )
            == COLOURS[second]
            for first, second in pairs
        )

    assert trained_with(0.8) >= 11
    assert trained_with(0.0) <= 2

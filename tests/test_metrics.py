"""Every measure against figures worked out elsewhere: by the COCO caption evaluation, by hand, or by definition."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from training.data import Row
from training.scores.captions import bleu, bleu_counts, cider, meteor, rouge_l
from training.scores.chair import invented, objects_in
from training.scores.items import make_items
from training.scores.measures import by_group, totals
from training.scores.metrics import (
    chosen_option,
    is_exact,
    is_raw_exact,
    majority_answers,
    mcnemar,
    names_one_of,
    number_in,
    options_of,
    repeats,
    restates,
    share,
    yes_or_no,
)
from training.scores.resampling import resampled_sums
from training.scores.verdicts import is_right
from training.scores.vqa import vqa_accuracy

# Recorded from pycocoevalcap 1.2 (bleu, rouge and cider alone, on words split by one space), which is not installed here:
# Bleu(4), Rouge() and Cider().compute_score of these six answers and their references.
ANSWERS = [
    "a red heron",
    "a photo of a small dog on the grass",
    "a cat",
    "two wild boars",
    "blue",
    "a drawing of a drawing of a car",
]
REFERENCES = [
    ["a great blue heron"],
    ["a photo of a dog on green grass", "a dog lying on the grass"],
    ["a cat"],
    ["some wild boars", "boars"],
    ["red"],
    ["a drawing of a racing car", "a drawing of a car"],
]
BLEU = [0.7307692307, 0.6621642836, 0.5597539473, 0.4676597746]
BLEU_2_OF_EACH = [
    None,
    0.8164965808,
    1.0,
    0.5773502688,
    None,
    0.5976143046,
]  # without a shared pair of words: not compared
ROUGE = [0.5570776256, 0.8323586745, 1.0, 0.8299319728, 0.0, 0.8026315789]
CIDER = [1.0359917846, 3.4910818320, 5.0, 2.1410207759, 0.0, 4.1481585174]


def row(task: str, question: str, answer: str, noun: str = "", picture: str = "p", **more: Any) -> Row:
    return Row(picture, question, answer, "s", "photo", noun, more.pop("accepted", ()), task=task, **more)


def summed(examples: list[dict[str, float]]) -> dict[str, Any]:
    return {name: np.array([sum(each[name] for each in examples)]) for name in examples[0]}


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_that_of_the_coco_evaluation(order: int) -> None:
    counts = [bleu_counts(*pair) for pair in zip(ANSWERS, REFERENCES, strict=True)]
    assert bleu(summed(counts), order)[0] == pytest.approx(BLEU[order - 1], abs=1e-8)
    for each, expected in zip(counts, BLEU_2_OF_EACH, strict=True):
        if order == 2 and expected:
            assert bleu(summed([each]), 2)[0] == pytest.approx(expected, abs=1e-8)


def test_rouge_and_cider_are_those_of_the_coco_evaluation() -> None:
    assert [rouge_l(*pair) for pair in zip(ANSWERS, REFERENCES, strict=True)] == pytest.approx(ROUGE)
    assert cider(ANSWERS, REFERENCES) == pytest.approx(CIDER)
    assert rouge_l("", ["a cat"]) == 0
    assert cider([""], [["a cat"]]) == [0]


def test_meteor_matches_words_and_stems_and_knows_no_synonyms() -> None:
    # by its formula: all words match in one run of two, so 1 - 0.5 * (1 / 2) ** 3
    assert meteor("Two dogs.", ["two dogs"]) == pytest.approx(0.9375)
    assert meteor("two dog", ["two dogs"]) == pytest.approx(0.9375)
    assert meteor("a puppy", ["the dog"]) == 0
    assert meteor("", ["a dog"]) == 0


def test_vqa_accuracy_is_the_agreement_of_ten_people() -> None:
    # by the definition in arXiv:1505.00468: with two of ten, eight of the ten leave-one-out sets hold both, two hold one
    given = ["red"] * 2 + ["pink"] * 8
    assert vqa_accuracy("Red.", given) == pytest.approx((8 * 2 / 3 + 2 * 1 / 3) / 10)
    assert vqa_accuracy("pink", given) == 1
    assert vqa_accuracy("a two", ["2"]) == 1
    assert vqa_accuracy("dont", ["don't", "no"]) == 1
    assert vqa_accuracy("three", ["2", "4"]) == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [("Yes, there is a dog.", "yes"), ("No.", "no"), ("There is no dog.", "no"), ("A dog.", ""), ("", "")],
)
def test_an_answer_says_yes_no_or_neither(answer: str, said: str) -> None:
    assert yes_or_no(answer) == said


def test_the_option_that_is_named_alone_is_chosen() -> None:
    options = options_of("Which is it: a dog, a hot dog, a cow or a pair of scissors?")
    assert options == ["a dog", "a hot dog", "a cow", "a pair of scissors"]
    assert chosen_option("It is a hot dog.", options) == "a hot dog"
    assert chosen_option("pair scissors", options) == "a pair of scissors"
    assert chosen_option("A dog or a cow.", options) == ""
    assert chosen_option("A horse.", options) == ""
    assert options_of("Who is this?") == []


def test_right_follows_the_task() -> None:
    choice = row("choice", "Choose one: a cat, a dog, a cow or a pig?", "A cat.", "cat")
    assert is_right(choice, "A cat.")
    assert not is_right(choice, "A cat or a dog.")
    assert is_right(row("yes", "Is it a cat?", "Yes, this is a cat.", "cat"), "Yes.")
    assert not is_right(row("no", "Is it a dog?", "No, this is not a dog.", "cat"), "A cat.")
    assert is_right(row("describe", "Describe it.", "A photo of a cat.", "cat"), "A small cat.")
    colour = row("colour", "What color is the ball?", "Red.", "ball")
    assert is_right(colour, "The ball is red.")
    assert not is_right(colour, "The ball is blue.")
    assert not is_right(colour, "The ball is red and blue.")
    count = row("count", "How many dogs are there?", "Three.", accepted=("3",))
    assert is_right(count, "There are 3 dogs.") and is_right(count, "three")
    assert not is_right(count, "Three or four.") and not is_right(count, "Dogs.")
    place = row("scene", "What kind of place is this?", "A street.", accepted=("road",))
    assert is_right(place, "It is a road.") and is_right(place, "Street.")
    assert not is_right(place, "A street in a city.")
    assert is_right(row("vqa", "Is there a ball?", "Yes."), "Yes, there is a ball.")
    assert is_right(row("describe", "Describe it.", "A cat sits."), "A cat sits.") is None
    assert is_right(row("name", "What is it?", "Two dogs.", accepted=("dog", "dogs")), "A dog.")
    assert (
        is_right(row("action", "What happens?", "A cat sits.", references=("A cat sits.",)), "A cat.") is None
    )
    nouns = row("colour", "What color is it?", "Red.", "cat", accepted=("cat", "kitten"))
    assert not is_right(nouns, "A kitten.")


def test_a_sentence_that_restates_a_short_answer_adds_only_words_of_the_question() -> None:
    assert restates("The ball is red.", "Red.", "What color is the ball?")
    assert restates("It is red.", "Red.", "Is the ball red or blue?")
    assert not restates("It is red, not blue.", "Red.", "Is the ball red or blue?")
    assert not restates("The red ball is blue.", "Blue.", "Is the ball red, green or blue?")
    assert not restates("It is not red.", "Red.", "What color is it?")
    assert not restates("A red car.", "Red.", "What color is it?")
    assert not restates("", "Red.", "What color is it?")


def test_daquars_answers_are_compared_in_one_form_and_no_more() -> None:
    assert is_raw_exact("A garbage bin.", ["garbage_bin"])
    assert is_raw_exact("Twelve.", ["12"]) and is_raw_exact("the Red  chair", ["red chair"])
    assert is_raw_exact("lamp", ["table", "lamp"])
    for answer in ("Garbage bins.", "The bin.", "It is a garbage bin.", "garbage, bin", ""):
        assert not is_raw_exact(answer, ["garbage_bin"])
    daquar = row("vqa", "What is on the floor?", "A garbage bin.", accepted=("garbage_bin",))
    own, daquar = daquar, replace(daquar, source="daquar")
    assert is_right(daquar, "Garbage bin.") and not is_right(daquar, "There is a garbage bin on the floor.")
    assert is_right(own, "Garbage bin.") and is_right(own, "There is a garbage bin on the floor.")
    assert not is_right(own, "There is a garbage bin and a cat on the floor.")
    several = row("vqa", "What is there?", "A toy, papers and a wire.", accepted=("toy", "papers", "wire"))
    several = replace(several, source="daquar")
    for answer in ("A toy.", "A wire and a toy.", "A toy, papers, and a wire.", "toy, papers and wire"):
        assert is_right(several, answer)
    for answer in ("A toy and a lamp.", "A paper.", "A toy wire."):
        assert not is_right(several, answer)
    count = row("count", "How many legs?", "Four.", accepted=("four", "4"))
    scores = {answer: make_items([count], [answer])[0]["scores"] for answer in ("4", "There are four legs.")}
    assert [each["count"] for each in scores.values()] == [1, 1]
    assert [each["accepted"] for each in scores.values()] == [1, 0]


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("Three dogs.", "3"),
        ("There are 12.", "12"),
        ("No dogs.", "0"),
        ("None.", "0"),
        ("One or two.", ""),
        ("A dog.", ""),
    ],
)
def test_an_answer_names_one_number(answer: str, number: str) -> None:
    assert number_in(answer) == number


def test_objects_of_a_caption_are_found_by_their_synonyms_and_the_longest_name() -> None:
    assert objects_in("Two men ride bikes past a hot dog stand.") == ["person", "bicycle", "hot dog"]
    assert objects_in("A teddy bear on sofas near wine glasses") == ["teddy bear", "couch", "wine glass"]
    assert objects_in("a baby elephant and an adult polar bear") == ["elephant", "bear"]
    assert objects_in("an orange cat eats an orange") == ["cat", "orange"]
    assert objects_in("a dog house by the train tracks") == []


def test_invented_objects_are_in_neither_the_picture_nor_a_caption() -> None:
    named, absent = invented(
        "A man walks a dog on a bench.", ["dog"], ["Somebody sits on benches.", "A lady."]
    )
    assert (named, absent) == (["person", "dog", "bench"], [])
    captions = [
        row("describe", "d", "x", picture=str(number), references=("A dog runs.",), objects=("dog", "car"))
        for number in range(4)
    ]
    answers = ["A dog.", "A dog and a cat near a puppy.", "A man in a car.", "Grass."]
    found = totals(make_items(captions, answers))
    assert found["chair_i"]["value"] == pytest.approx(2 / 6)  # cat and man; dog, dog, cat, dog, man, car
    assert found["chair_s"]["value"] == pytest.approx(2 / 4)
    assert found["chair_i"]["of"] == 6 and found["chair_s"]["of"] == 4
    assert found["accuracy"]["value"] is None and found["cider"]["of"] == 4


def test_captions_are_compared_with_what_people_wrote() -> None:
    rows = [
        row("describe", "Describe it.", texts[0], picture=str(number), references=tuple(texts))
        for number, texts in enumerate(REFERENCES)
    ]
    items = make_items(rows, ANSWERS)
    assert [item["scores"]["cider"] for item in items] == pytest.approx(CIDER)
    assert totals(items)["cider"]["value"] == pytest.approx(sum(CIDER) / len(CIDER))
    assert totals(items)["bleu_4"]["value"] == pytest.approx(BLEU[3])


def test_repetition_is_three_words_again_or_one_word_three_times() -> None:
    assert repeats("a dog on a dog on a dog")
    assert repeats("very very very big")
    assert not repeats("a dog and a dog")


def test_answers_are_compared_without_articles_case_and_stops() -> None:
    assert is_exact("a Rectangle", "A rectangle.")
    assert not is_exact("A square.", "A rectangle.")


@pytest.mark.parametrize(
    ("answer", "right"),
    [("A heron.", True), ("Two herons!", True), ("A great egret.", True), ("A heronry.", False), ("", False)],
)
def test_a_noun_is_right_as_a_whole_word_or_an_accepted_one(answer: str, right: bool) -> None:
    assert names_one_of(answer, ("heron", "great egret")) is right
    named = row("name", "What is this?", "A heron.", "heron", accepted=("great egret",))
    assert is_right(named, answer) is right


def test_the_share_has_the_wilson_interval() -> None:
    # reference: Wilson interval of 81 of 263, 0.2553 to 0.3662 (Newcombe, Statistics in Medicine 17, 1998, table I)
    result = share([True] * 81 + [False] * 182)
    assert (result.right, result.of) == (81, 263)
    assert result.low == pytest.approx(0.2553, abs=1e-4)
    assert result.high == pytest.approx(0.3662, abs=1e-4)


def test_the_most_frequent_answer_is_counted_for_each_question() -> None:
    answers = majority_answers([("Q?", "Yes."), ("q", "no"), ("Q", "yes"), ("Other", "Blue.")])
    assert answers["q"] == "Yes."
    assert answers[""] == "Yes."


def test_mcnemar_is_exact() -> None:
    # reference: 5 of 20 tails of a fair coin, two-sided, 0.0414 (any table of the binomial distribution: 43,400 / 2**20)
    assert mcnemar(5, 15) == pytest.approx(43400 / 2**20)
    assert mcnemar(15, 5) == mcnemar(5, 15)
    assert mcnemar(0, 0) == 1


def test_the_bootstrap_draws_pictures_with_all_their_questions() -> None:
    pictures = [
        f"p{number // 4}" for number in range(400)
    ]  # 100 pictures with four questions, right or wrong together
    right = np.array([float(number // 4 % 2) for number in range(400)])
    sums = resampled_sums(pictures, {"right": right, "of": np.ones(400)})
    assert sums["right"].shape == (1001,)
    assert (sums["of"] == 400).all()
    means = sums["right"] / sums["of"]
    assert means[0] == 0.5
    # the standard error of a share of 100 pictures, not of 400 questions: 0.05, not 0.025
    assert means[1:].std() == pytest.approx(0.05, rel=0.1)
    order = np.random.default_rng(0).permutation(400)
    again = resampled_sums([pictures[index] for index in order], {"right": right[order], "of": np.ones(400)})
    assert np.array_equal(again["right"], sums["right"])


def test_balance_and_hallucination_are_those_of_the_confusion() -> None:
    said = (
        [("yes", "Yes.")] * 6
        + [("yes", "No.")] * 2
        + [("no", "Yes.")] * 3
        + [("no", "No.")] * 4
        + [("no", "?")]
    )
    rows = [
        row(truth, f"Is it {number}?", f"{truth}, it is.", picture=str(number))
        for number, (truth, _) in enumerate(said)
    ]
    items = make_items(rows, [answer for _, answer in said])
    found = totals(items)
    values = {name: each["value"] for name, each in found.items()}
    assert values["accuracy"] == pytest.approx(10 / 16)
    assert values["balanced_accuracy"] == pytest.approx((6 / 8 + 4 / 8) / 2)
    assert values["yes_rate"] == pytest.approx(9 / 16)
    assert values["hallucination_precision"] == pytest.approx(6 / 9)
    assert values["hallucination_recall"] == pytest.approx(6 / 8)
    assert values["hallucination_f1"] == pytest.approx(12 / 17)
    assert values["choice_accuracy"] is None
    assert found["spice"]["value"] is None and "Java" in found["spice"]["reason"]
    assert found["accuracy"]["low"] < 10 / 16 < found["accuracy"]["high"]
    groups = by_group(items)
    assert groups["task"]["yes_no"]["n"] == 16
    assert groups["kind"]["photo"]["accuracy"]["right"] == 10

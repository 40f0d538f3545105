"""What becomes of a draft."""

import pytest

from vlm.chat.clean_up import EXAMPLES, is_whole, judge, request


def test_the_request_ends_with_the_question_and_the_draft() -> None:
    turns = request("What is this?", "A dog.")
    assert turns[-1].question == "Question: What is this?\nNote: A dog."
    assert not turns[-1].answer
    assert all(turn.answer for turn in turns[:-1])


@pytest.mark.parametrize(("question", "note", "sentence"), EXAMPLES)
def test_the_examples_that_the_model_is_shown_would_be_taken(question: str, note: str, sentence: str) -> None:
    assert judge(question, note, sentence)[0] == sentence


def test_a_sentence_that_keeps_the_draft_is_the_answer() -> None:
    assert judge("What is this?", "A dog.", "Answer: This is a dog") == ("This is a dog.", "accepted")
    assert judge("What color is it?", "Teal.", "It is Teal.") == ("It is teal.", "accepted")
    assert judge("What city is this?", "Paris", "It is Paris.") == ("It is Paris.", "accepted")
    assert judge("Is it red or blue?", "Red", "It is red.") == ("It is red.", "accepted")


def test_a_sentence_that_invents_is_not() -> None:
    text, verdict = judge("What is this?", "A dog.", "The picture is a dog wearing a white hat.")
    assert text == "A dog."
    assert verdict.startswith("rejected: ")


def test_the_same_words_are_reported_as_unchanged() -> None:
    assert judge("What is this?", "A dog.", "a dog") == ("A dog.", "unchanged")


@pytest.mark.parametrize(
    "draft",
    ["Left.", "A cat.", "Two.", "Gray!", "T-shirt.", "No.", "A dog is on a brown sofa.", "No, it is red."],
)
def test_a_draft_with_its_capital_its_function_words_and_its_stop_is_a_whole_answer(draft: str) -> None:
    assert is_whole(draft)


@pytest.mark.parametrize(
    "draft", ["", ".", "left", "dog brown", "A cat", "Dog brown sofa.", "left.", "A dog is on a"]
)
def test_keywords_and_what_is_cut_off_are_left_to_the_clean_up(draft: str) -> None:
    assert not is_whole(draft)

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm.chat.meaning import keeps_meaning
from vlm.chat.tidy import strip_echo, tidy
from vlm.chat.words import base_form, content_words, to_keywords, words

VOCABULARY = (
    """
    a the dog cat brown red two 2 3.5 is not no yes and in on with, dog. it's isn't running runs e.g. U.S. , .
    ... ? ! " ( ) - * 1. \u00e9t\u00e9 \u72ac https://a.b/c?d=1,2 A I bye grey gray T-shirt :) ; :
    \u2019s Answer:
    """.split()
    + ["\n"]
)
SENTENCES = st.lists(st.sampled_from([*VOCABULARY, "\n"]), max_size=14).map(" ".join)
TEXTS = st.one_of(SENTENCES, st.text(max_size=60), st.text(alphabet="ab .,!?-\n'\"()\u00a0", max_size=40))
quickly = settings(max_examples=200, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("said", "tidied"),
    [
        ("a dog a dog a dog", "A dog."),
        ("a dog a dog a", "A dog a."),  # two rounds only: the rest may be meant
        ("a dog and a cat and a dog and a cat and a dog and a cat and a", "A dog and a cat."),
        ("the the cat", "The cat."),
        ("a dog, a dog, a dog.", "A dog."),
        ("A dog. A dog. A dog", "A dog."),
        ("It is red. It is red. It is red.", "It is red."),
        ("I see the dog. The dog barks.", "I see the dog. The dog barks."),
        ("Is it red? Red.", "Is it red? Red."),
        ("bye bye", "Bye bye."),
        ("and and and", "And."),
        ("side by side", "Side by side."),
        ("the dog and the cat and the bird", "The dog and the cat and the bird."),
    ],
)
def test_what_is_said_again_at_once_is_said_once(said: str, tidied: str) -> None:
    assert tidy(said) == tidied


@pytest.mark.parametrize(
    ("said", "tidied"),
    [
        ("  dog , brown .", "Dog, brown."),
        ("dog,brown", "Dog, brown."),
        ("dog..", "Dog."),
        (", dog,", "Dog."),
        ("a\u00a0dog\u200b  ", "A dog."),
        ("a dog\ufffd", "A dog."),  # a character cut in half at the length limit
        ("is it a dog ?", "Is it a dog?"),
        ("wait ....", "Wait..."),
        ("A dog!", "A dog!"),
        ("(a dog)", "(A dog)."),
        ("cafe\u0301", "Caf\u00e9."),
        ("", ""),
        (" \n ", ""),
        ("...", "..."),
    ],
)
def test_spaces_stops_and_the_first_capital_are_put_right(said: str, tidied: str) -> None:
    assert tidy(said) == tidied


@pytest.mark.parametrize(
    "text",
    [
        "It costs 3.5, e.g. in the U.S.",
        "3.5",
        "3",  # "3." would be shown as the start of a list
        "1 + 1 + 1",
        "10:30",
        "The table has 1,000 seats.",
        "See https://example.com/a,b?c=d;e",
        "Write to me@example.com",
        "iPhone on a table.",
        "example.com is a site.",
        "e.g. a dog.",
        "Run `ls  -l , a` now",
        "- a dog\n- a cat",
        "1. a dog\n2. a cat",
        "\u4e00\u53ea\u68d5\u8272\u7684\u72d7",
        "\u0643\u0644\u0628 \u0628\u0646\u064a",
        "Hello :)",
        '["cat", "dog"]',
        "| Tue | Yes | Yes |",
        "{1,\n1}",
    ],
)
def test_numbers_addresses_code_lists_and_other_scripts_stay_as_they_are(text: str) -> None:
    assert tidy(text) == text


def test_lines_are_kept_and_repeated_lines_are_not() -> None:
    assert tidy("I see:\n\n\n\n- a dog\n- a dog\n- a cat") == "I see:\n\n- a dog\n- a cat"


@quickly
@given(TEXTS)
def test_tidying_twice_changes_nothing_more(text: str) -> None:
    assert tidy(tidy(text)) == tidy(text)


@quickly
@given(TEXTS)
def test_tidying_never_invents_a_word(text: str) -> None:
    assert set(words(tidy(text))) <= set(words(text))


def test_a_very_long_loop_is_tidied_at_once() -> None:
    assert tidy("a dog and a cat " * 2000) == "A dog and a cat."


@pytest.mark.parametrize(
    ("answer", "question", "rest"),
    [
        ("What color is it? It is red.", "What color is it?", "It is red."),
        ("what color is it: red", "What color is it?", "red"),
        ("Question: What color is it? Answer: red", "What color is it?", "red"),
        ("What color is it?\nRed", "This is my ball. What color is it?", "Red"),
        ("What is it? What is it? A dog.", "What is it?", "A dog."),
        ("What is it? -5 degrees", "What is it?", "-5 degrees"),
        ("Describe the picture. **A dog** on grass", "Describe the picture", "**A dog** on grass"),
        ("A dog.", "What is it?", "A dog."),
        ("Dog food.", "dog", "Dog food."),
        ("Answer: a dog", "", "a dog"),
        ("What is it", "what is it?", "What is it."),  # nothing but the echo: tidied, never empty
        ("Answer:", "What is it?", "Answer:"),
    ],
)
def test_an_echo_of_the_question_is_dropped(answer: str, question: str, rest: str) -> None:
    assert strip_echo(answer, question) == rest


@quickly
@given(TEXTS, TEXTS)
def test_dropping_the_echo_leaves_an_answer(answer: str, question: str) -> None:
    assert bool(words(strip_echo(answer, question))) == bool(words(answer))
    assert words(answer)[-1:] == words(strip_echo(answer, question))[-1:]


def test_keywords_are_the_words_without_function_words_and_punctuation() -> None:
    assert to_keywords("The dog's T-shirt isn't red, it is blue.") == "dog t shirt not red blue"
    assert to_keywords("There are 3.5 cats, above the table!") == "3.5 cats above table"


def test_an_answer_of_function_words_only_keeps_them_as_keywords() -> None:
    assert to_keywords("It is.") == "it is"


@pytest.mark.parametrize("answer", ["?", "...", " !? "])
def test_an_answer_without_words_stays_as_it_is_and_is_never_empty(answer: str) -> None:
    assert to_keywords(answer) == answer.strip()


@pytest.mark.parametrize(
    "word", ["no", "not", "without", "two", "red", "above", "left", "both", "all", "off"]
)
def test_a_word_that_can_be_the_whole_answer_is_no_function_word(word: str) -> None:
    assert to_keywords(f"It is {word}.") == word


@quickly
@given(TEXTS)
def test_keywords_are_words_of_the_text_in_its_order(text: str) -> None:
    rest = iter(words(text) or text.split())
    assert all(word in rest for word in to_keywords(text).split())
    # inside numbers and words; a text without any stays as it is
    assert not words(text) or not set(to_keywords(text)) & set(string.punctuation) - set("-'.,:")
    assert to_keywords(to_keywords(text)) == to_keywords(text)


@pytest.mark.parametrize(
    "forms",
    [
        "dog dogs", "box boxes", "glass glasses", "cherry cherries", "cookie cookies", "tomato tomatoes",
        "bus buses", "horse horses", "house houses", "leaf leaves", "man men", "child children",
        "toe toes", "peach peaches", "sit sits sitting sat", "run running runs", "make makes making",
        "dance dancing danced", "ride riding", "eat eating eats", "wear wearing",
        "play plays playing played", "fly flies flying", "carry carries carried", "juggle juggling",
        "close closed closing", "dress dressed dressing", "lie lying", "paint painted painting",
        "drive driving", "skate skating", "fall falling", "color colour colored coloured", "gray grey",
        "two 2",
    ],
)  # fmt: skip
def test_inflections_and_spellings_of_a_word_are_one_word(forms: str) -> None:
    assert len({base_form(word) for word in forms.split()}) == 1


@pytest.mark.parametrize(
    "different",
    [
        "cap cape", "cub cube", "plan plane", "car care", "star stare", "kit kite", "animal animated",
        "ring red king", "photograph photographer", "university universe", "bus bush", "grass grape",
        "new news", "sing wing seed",
    ],
)  # fmt: skip
def test_different_words_stay_different(different: str) -> None:
    assert len({base_form(word) for word in different.split()}) == len(different.split())


def test_content_words_come_in_order_as_base_forms() -> None:
    assert content_words("Two dogs are sitting on the man's car.") == ["2", "dog", "sit", "man", "car"]


@pytest.mark.parametrize(
    ("draft", "candidate", "question"),
    [
        ("dog, brown", "It is a brown dog.", "What is this?"),
        ("A dog.", "This is a dog.", "What is this?"),
        ("A dog.", "The image shows a dog.", "What is this?"),
        ("red", "The ball is red.", "What color is the ball?"),
        ("red", "The ball is red.", "Is the ball red or blue?"),
        ("Two dogs", "There are 2 dogs.", "How many dogs are there?"),
        ("man riding horse", "A man is riding a horse.", "What is the man doing?"),
        ("Yes.", "Yes, it is a dog.", "Is it a dog?"),
        ("Yes.", "Yes, there are two dogs.", "Are there two dogs?"),
        ("No.", "No, it is not a dog.", "Is it a dog?"),
        ("no", "There is no dog.", "Is there a dog?"),
        ("not red", "It is not red.", "Is it red?"),
        ("no no dog", "No, there is no dog.", "Is there a dog?"),
        ("no not dog", "No, it is not a dog.", "Is it a dog?"),
        ("gray", "It's grey.", "What color is it?"),
    ],
)
def test_a_clean_up_that_says_the_same_is_accepted(draft: str, candidate: str, question: str) -> None:
    assert keeps_meaning(draft, candidate, question) == (True, "")


@pytest.mark.parametrize(
    ("draft", "candidate", "question", "reason"),
    [
        ("A dog.", "The dog is wearing a white dog.", "", 'adds "wearing, white"'),
        ("dog, brown", "It is a dog.", "", 'drops "brown"'),
        ("A dog.", "A cat.", "", 'drops "dog" and adds "cat"'),
        ("A dog.", "A dog is a dog.", "", 'repeats "dog"'),
        ("Yes.", "No, it is not.", "Is it a dog?", "changes yes to no"),
        ("no", "Yes, it is.", "Is it a dog?", "changes no to yes"),
        ("No.", "No, it is a dog.", "Is it a dog?", 'says "no" and then the opposite'),
        ("No.", "It is a dog.", "Is it a dog?", 'drops "no"'),
        ("Yes.", "It is a dog.", "Is it a dog?", 'drops "yes"'),
        ("A dog.", "Yes, it is a dog.", "Is it a dog?", 'adds "yes"'),
        ("It is red.", "It is not red.", "Is it red?", 'adds a "not"'),
        ("It isn't red.", "It is red.", "Is it red?", 'drops a "not"'),
        ("no no dog", "No, it is a dog.", "Is it a dog?", 'drops a "not"'),
        ("no dog is red", "A dog is red.", "", 'drops a "not"'),
        ("two dogs", "three dogs", "Are there three dogs?", 'drops "two" and adds "three"'),
        ("3.5", "35", "", 'drops "3.5" and adds "35"'),
        ("red", "The ball is red and blue.", "Is the ball red or blue?", 'adds "blue"'),
        ("a cat", "A dog, a cat.", "Is it a dog, a cat or a cow?", 'adds "dog"'),
        ("A man on a horse.", "A horse on a man.", "", "changes the order of the words"),
        ("cat above dog", "A dog above a cat.", "", "changes the order of the words"),
        ("A dog.", "Is it a dog?", "What is it?", "turns the answer into a question"),
        ("Two cats and a dog.", "Two cats. A dog.", "What is this?", 'drops "and"'),
        ("Dog brown sofa.", "There is a cat, a dog and a brown sofa.", "Is there a cat?", 'adds "cat"'),
        ("Man young beard.", "The old man has a young beard.", "Is the man old?", 'adds "old"'),
        ("A dog.", "", "", "is empty"),
        ("A dog.", "...", "", "is empty"),
        ("A dog.", "It is a " + "very " * 40 + "dog.", "", "is too long"),
        ("A dog.", "User: What is it? Assistant: A dog.", "", 'adds "user, assistant"'),
        ("a", "one two three four five six seven", "", 'adds "one, two, three, four, five, ..."'),
    ],
)
def test_a_clean_up_that_says_something_else_is_rejected(
    draft: str, candidate: str, question: str, reason: str
) -> None:
    assert keeps_meaning(draft, candidate, question) == (False, reason)


@quickly
@given(TEXTS, TEXTS)
def test_every_answer_keeps_its_own_meaning(text: str, question: str) -> None:
    assert keeps_meaning(text, text, question)[0] == bool(words(text))


@quickly
@given(SENTENCES, st.sampled_from(["zebra", "purple", "seventeen", "never"]))
def test_a_new_word_or_a_lost_word_is_always_found(text: str, word: str) -> None:
    draft, longer = f"dog {text}", f"dog {text} {word}"
    assert not keeps_meaning(draft, longer)[0]
    assert not keeps_meaning(longer, draft)[0]


@pytest.mark.parametrize(
    ("question", "candidate", "accepted"),
    [
        ("Is there a red shape in the image?", "No, there is no red shape in the image.", True),
        ("Does the picture show a goat?", "No, there is no goat.", True),
        ("Is there a circle in the image?", "No, there is no image.", False),
        ("does the image not contain a circle?", "No, there is no circle.", False),
        ("is there not a circle?", "No.", True),
    ],
)
def test_a_bare_no_restates_the_whole_question_or_nothing(
    question: str, candidate: str, accepted: bool
) -> None:
    assert keeps_meaning("No.", candidate, question)[0] is accepted

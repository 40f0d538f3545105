"""The tagger: two classifiers' names become one list, a head is kept exactly, and training reads honest tags."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from training.data import Row
from training.tags import fit, fit_colour, teach
from vlm.model.colours import NAMED_COLOURS, SHARES
from vlm.model.tagger import ENCODER_SHARE, ReadNames, Tagger, WordClassifier

SIZE = 6
NOUNS = ["ant", "bee", "cat"]


def tagger_of(*favourites: float) -> Tagger:
    """An encoder that knows "Bee" and "dog", with these scores whatever it sees."""
    classifier = nn.Linear(SIZE, 2)
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.bias.copy_(torch.tensor(favourites))
    return Tagger(classifier, ["Bee", "dog"], count=2)


def test_without_a_head_the_tags_are_the_encoders_own_names() -> None:
    assert tagger_of(0.0, 5.0).tags(torch.zeros(1, SIZE)) == ["dog 9, Bee 0"]


def test_a_noun_that_the_encoder_knows_too_is_one_name_with_both_probabilities() -> None:
    tagger = tagger_of(20.0, 0.0)
    head = nn.Linear(SIZE, 3)
    with torch.no_grad():
        head.weight.zero_(), head.bias.copy_(torch.tensor([0.0, 20.0, 0.0]))
    tagger.set_head(head, NOUNS)
    probabilities = tagger(torch.zeros(1, SIZE))
    assert probabilities.shape == (1, 4)  # Bee and bee are one
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert probabilities[0, tagger.names.index("bee")].item() == pytest.approx(1.0, abs=1e-4)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.0, 0.0, 20.0]))
    assert tagger(torch.zeros(1, SIZE))[0, 0].item() == pytest.approx(ENCODER_SHARE, abs=1e-4)


@pytest.mark.parametrize("nouns", [NOUNS, []])
def test_a_saved_tagger_gives_the_same_tags(tmp_path: Path, nouns: list[str]) -> None:
    torch.manual_seed(0)
    tagger, other = tagger_of(1.0, 0.0), tagger_of(1.0, 0.0)
    tagger.set_head(nn.Linear(SIZE, len(nouns)) if nouns else None, nouns)
    tagger.save(tmp_path / "tagger.safetensors")
    other.load(tmp_path / "tagger.safetensors")
    pooled = torch.randn(5, SIZE)
    assert other.tags(pooled) == tagger.tags(pooled)
    assert other.nouns == nouns


def pictures(count: int) -> tuple[list[Row], dict[str, torch.Tensor]]:
    """`count` pictures of each noun, told apart by one channel of their pooled feature; all on a large offset."""
    generator = torch.Generator().manual_seed(0)
    rows, store = [], {}
    for place, noun in enumerate(NOUNS):
        for index in range(count):
            name = f"{noun}{index}"
            rows.append(Row(name, "What is this?", f"A {noun}.", "s", "drawing", noun, (noun,)))
            store[name] = 10 + 0.1 * torch.randn(4, SIZE, generator=generator)
            store[name][0, place] += 2
    return rows, store


def test_a_head_learns_to_tell_the_nouns_of_raw_features_apart() -> None:
    rows, store = pictures(20)
    pooled = torch.stack([store[row.picture][0] for row in rows])
    places = torch.tensor([NOUNS.index(row.noun) for row in rows])
    head = fit(pooled, nn.functional.one_hot(places).float(), torch.ones(len(rows)), seed=0)
    assert (head(pooled).argmax(1) == places).float().mean() > 0.95


def test_the_tags_of_a_training_picture_come_from_a_head_that_has_not_seen_it(tmp_path: Path) -> None:
    """One picture looks like an ant and is called a cat: only a head that learned it by heart would say so."""
    rows, store = pictures(20)
    odd = Row("odd", "What is this?", "A cat.", "s", "photo", "cat", ("cat",))
    store["odd"] = store["ant0"].clone()
    store["nameless"] = store["bee0"].clone()
    nameless = Row("nameless", "Is it round?", "No.", "s", "synthetic", "", ())
    rows = [*rows, odd, nameless]
    tagger = tagger_of(0.0, 0.0)
    tags = all_tags(teach(tagger, rows, store, tmp_path, seed=0), store)  # type: ignore[arg-type]
    assert tags["odd"].startswith("ant ")
    assert tags["nameless"].startswith("bee ")
    assert tagger.nouns == NOUNS
    again = tagger_of(0.0, 0.0)
    kept = teach(again, rows, {}, tmp_path, seed=0)  # type: ignore[arg-type]  # not fitted anew
    assert all_tags(kept, store) == tags
    assert all_tags(lambda _: again, store) == all_tags(lambda _: tagger, store)


def all_tags(tagger_of: Callable[[str], Tagger], store: dict[str, torch.Tensor]) -> dict[str, str]:
    return {name: tagger_of(name).tags(features[:1])[0] for name, features in store.items()}


def test_a_tagger_that_has_a_head_keeps_it_and_training_still_reads_those_of_strangers(
    tmp_path: Path,
) -> None:
    rows, store = pictures(20)
    tagger = tagger_of(0.0, 0.0)
    head = nn.Linear(SIZE, 1).half().float()
    tagger.set_head(head, ["zebra"])
    names = teach(tagger, rows, store, tmp_path, seed=0)  # type: ignore[arg-type]
    assert tagger.nouns == ["zebra"]
    assert tagger.head is not None
    assert torch.equal(tagger.head.weight, head.weight)
    assert names("ant0").nouns == NOUNS
    assert names("a picture without a noun") is tagger


def looks(cells: dict[int, int]) -> torch.Tensor:
    """A picture of 3 x 3 cells in which some cells look like a noun each; the pooled feature is their mean."""
    grid = torch.zeros(9, SIZE)
    for cell, noun in cells.items():
        grid[cell, noun] = 9.0
    return torch.cat([grid.mean(0, keepdim=True), grid])


def sees_nouns() -> Tagger:
    tagger = tagger_of(0.0, 0.0)
    tagger.asks = True
    head = nn.Linear(SIZE, 3)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3, SIZE) * 3), head.bias.zero_()
    tagger.set_head(head, NOUNS)
    return tagger


def test_what_a_question_names_is_looked_up_with_its_likelihood_and_its_sides() -> None:
    tagger = sees_nouns()
    picture = looks({0: 0, 5: 1})  # an ant in the upper left corner, a bee in the middle of the right side
    assert tagger.asked("Is the ant left of the bee?", picture) == "bee 9 right, ant 9 left above"
    assert tagger.asked("Are there bees?", picture) == "bee 9 right"
    assert tagger.asked("Is there a cat in the picture?", picture).startswith("cat 6")
    assert tagger.asked("What is in the picture?", picture) == ""
    assert tagger.asked("Is there a yak?", picture) == ""


def coloured(cells: dict[int, tuple[int, str]]) -> torch.Tensor:
    """As `looks`, each thing in its colour, a fifth of its cell and all others white."""
    shares = torch.zeros(9, SHARES)
    shares[:, NAMED_COLOURS.index("white")] = 1.0
    for cell, (_, colour) in cells.items():
        shares[cell] *= 0.2
        shares[cell, NAMED_COLOURS.index(colour)] += 0.8
    colours = torch.cat([shares.mean(0, keepdim=True), shares])
    return torch.cat([looks({cell: noun for cell, (noun, _) in cells.items()}), colours], dim=1)


def test_who_asks_for_a_colour_is_told_that_of_the_thing_asked_about_or_of_the_likeliest(
    tmp_path: Path,
) -> None:
    tagger = sees_nouns()
    tagger.colours = True
    draw = random.Random(0)
    rows, store = [], {}
    for index in range(300):
        (first, second), (one, other) = draw.sample(range(9), 2), draw.sample(NAMED_COLOURS, 2)
        store[str(index)] = coloured({first: (0, one), second: (1, other)})
        question, answer = "What color is the ant?", f"{one.title()}."
        rows.append(Row(str(index), question, answer, "tiny", "composited", "", (), task="colour"))
    tagger.set_colour(fit_colour(tagger, rows, store))  # type: ignore[arg-type]
    picture = coloured({0: (0, "red"), 5: (1, "blue")})
    assert tagger.asked("What colour is the ant?", picture) == "ant 9 red left above"
    assert tagger.asked("Which color does the bee have?", picture) == "bee 9 blue right"
    assert tagger.asked("Is the ant red or blue?", picture) == "ant 9 red left above"
    assert tagger.asked("What is its colour?", coloured({5: (1, "green")})) == "bee 9 green"
    assert tagger.asked("Is there a bee?", picture) == "bee 9 right"
    assert tagger.asked("What is this?", picture) == ""
    tagger.save(tmp_path / "tagger.safetensors")
    again = sees_nouns()
    assert again.asked("What colour is the ant?", picture) == "ant 9 left above"
    again.load(tmp_path / "tagger.safetensors")
    assert again.asked("What colour is the ant?", picture) == "ant 9 red left above"
    assert again.with_head(again.head, NOUNS).colour is again.colour
    before = sees_nouns()
    before.save(tmp_path / "tagger.safetensors")
    again.load(tmp_path / "tagger.safetensors")
    assert again.colour is None


def test_the_longest_name_in_a_question_is_the_one_that_is_meant() -> None:
    tagger = sees_nouns()
    tagger.set_head(nn.Linear(SIZE, 3), ["hot dog", "mustard", "ice cream"])
    found = tagger.named_in("A hot dog, or a dog with mustard? No ice!")
    assert list(found) == ["hot dog", "dog", "mustard"]


def test_a_tagger_that_is_not_to_ask_says_nothing_about_questions() -> None:
    tagger = sees_nouns()
    tagger.asks = False
    assert tagger.asked("Is there an ant?", looks({0: 0})) == ""


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("Is there a yak in the picture?", ["yak?"]),
        ("Is it an ant, a sea lion or a cat?", ["ant", "sea lion?", "cat"]),
        ("Is the yak left of the bee?", ["yak?", "bee"]),
        ("How many yaks are there?", ["yaks?"]),
        ("Is it a dog?", ["dog?"]),  # a class of the encoder's, which the head has not learned
        ("Is there a red cat?", ["cat"]),  # not what is unknown beside a name
        ("What is the main colour of this picture?", []),
        ("What kind of thing is the other one?", []),
        ("What is this?", []),
        ("Which of the two is it?", []),
    ],
)
def test_a_question_names_what_is_known_and_what_stands_behind_an_article(
    question: str, names: list[str]
) -> None:
    tagger = sees_nouns()
    tagger.set_head(tagger.head, NOUNS, WordClassifier(2, SIZE))
    assert list(tagger.named_in(question)) == names


@pytest.fixture
def rough_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads fitted in no time, where only the guesses matter."""
    monkeypatch.setattr("training.tags.STEPS", 2)


def world(nouns: int = 60, pictures: int = 6) -> tuple[list[Row], dict[str, torch.Tensor], ReadNames]:
    """Things whose looks follow from what their names mean, a few pictures of each, and who knows what names mean."""
    generator = torch.Generator().manual_seed(0)
    meanings = {f"noun{number}": torch.randn(4, generator=generator) for number in range(nouns)}
    look_of = torch.randn(4, SIZE, generator=generator)
    rows, store = [], {}
    for noun, meaning in meanings.items():
        for number in range(pictures):
            picture = f"{noun} {number}"
            rows.append(Row(picture, f"Is it a {noun}?", "Yes.", "s", "drawing", noun, (noun,)))
            store[picture] = meaning @ look_of + 0.1 * torch.randn(5, SIZE, generator=generator)
    zero = torch.zeros(4)
    return rows, store, lambda names: torch.stack([meanings.get(name, zero) for name in names])


@pytest.mark.usefixtures("rough_heads")
def test_what_an_unknown_thing_looks_like_is_guessed_from_its_name(tmp_path: Path) -> None:
    rows, store, read_names = world()
    encoder = tagger_of(0.0, 0.0)
    tagger = Tagger(encoder.classifier, encoder.classes, 1, asks=True, read_names=read_names)
    known = [row for row in rows if not row.noun.endswith("7")]
    teach(tagger, known, store, tmp_path, seed=0)  # type: ignore[arg-type]
    unknown = {row.noun: row.picture for row in rows if row.noun.endswith("7")}
    assert len(unknown) == 6
    assert not set(unknown) & set(tagger.nouns)
    assert tagger.guess
    cosines = tagger.guess(
        tagger.read(list(unknown)), torch.stack([store[each][0] for each in unknown.values()])
    )
    assert torch.equal(cosines.argmax(1), torch.arange(6))
    question = f"Is it {', '.join(f'a {noun}' for noun in unknown)}?"
    for noun, picture in unknown.items():
        told = [tag.split()[:2] for tag in tagger.asked(question, store[picture]).split(", ")]
        assert [f"{noun}?", "9"] in told
        assert {name for name, _ in told} == {f"{each}?" for each in unknown}
        assert [level for _, level in told] == sorted((level for _, level in told), reverse=True)
    again = Tagger(encoder.classifier, encoder.classes, 1, asks=True, read_names=read_names)
    tagger.save(tmp_path / "tagger.safetensors")
    again.load(tmp_path / "tagger.safetensors")
    assert again.asked(question, store["noun7 0"]) == tagger.asked(question, store["noun7 0"])


@pytest.mark.usefixtures("rough_heads")
def test_each_name_is_hidden_from_one_of_the_taggers_that_training_reads_and_none_from_the_adapters(
    tmp_path: Path,
) -> None:
    rows, store, read_names = world()
    encoder = tagger_of(0.0, 0.0)
    tagger = Tagger(encoder.classifier, encoder.classes, 1, asks=True, read_names=read_names)
    tagger_for = teach(tagger, rows, store, tmp_path, seed=0)  # type: ignore[arg-type]
    others = {id(each): each for each in map(tagger_for, store)}.values()
    assert sorted(noun for each in others for noun in each.hidden) == sorted({row.noun for row in rows})
    assert not tagger.hidden
    for each in others:
        for noun in each.hidden:
            assert each.asked(f"Is it a {noun}?", store[f"{noun} 0"]).startswith(f"{noun}? ")
            assert tagger.asked(f"Is it a {noun}?", store[f"{noun} 0"]).startswith(f"{noun} ")


def test_what_only_the_encoder_knows_is_as_likely_as_it_says_or_as_guessed() -> None:
    tagger = sees_nouns()
    before = tagger.asked("Is it a dog?", looks({0: 0}))
    assert before.startswith("dog ")
    guess = WordClassifier(2, SIZE)
    guess.look.weight.zero_(), guess.look.bias.zero_()
    encoder = Tagger(
        tagger.classifier, tagger.classes, 1, asks=True, read_names=lambda names: torch.ones(len(names), 2)
    )
    encoder.set_head(tagger.head, tagger.nouns, guess)
    assert encoder.asked("Is it a yak?", looks({0: 0})).startswith("yak? 4")  # a cosine of 0
    assert encoder.asked("Is it a dog?", looks({0: 0})).startswith("dog? 9")  # of two classes, half
    guess.look.bias.copy_(looks({0: 0})[0])
    assert encoder.asked("Is it a yak?", looks({0: 0})).startswith("yak? 9")


@pytest.mark.usefixtures("rough_heads")
def test_names_are_read_once_and_without_a_language_model_none_is_guessed(tmp_path: Path) -> None:
    rows, store, read_names = world()
    asked: list[str] = []

    def reads(names: Sequence[str]) -> torch.Tensor:
        asked.extend(names)
        return read_names(names)

    encoder = tagger_of(0.0, 0.0)
    tagger = Tagger(encoder.classifier, encoder.classes, 1, asks=True, read_names=reads)
    teach(tagger, rows, store, tmp_path, seed=0)  # type: ignore[arg-type]
    assert len(asked) == len(set(asked)) >= 60
    before = len(asked)
    assert tagger.asked("Is it a yak?", store["noun1 0"]) == tagger.asked("Is it a yak?", store["noun1 0"])
    assert asked[before:] == ["yak"]
    plain = Tagger(encoder.classifier, encoder.classes, 1, asks=True)
    teach(plain, rows, store, tmp_path / "plain", seed=0)  # type: ignore[arg-type]
    assert plain.asked("Is it a yak?", store["noun1 0"]) == ""


def test_names_that_another_answer_reads_meanwhile_take_none_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.model.tagger.VECTORS_KEPT", 2)
    tagger = tagger_of(0.0, 0.0)

    def reads(names: Sequence[str]) -> torch.Tensor:
        if names == ["c"]:
            tagger.read(["d", "e"])  # for which there is no room any more
        return torch.tensor([[float(ord(name))] for name in names])

    tagger.read_names = reads
    tagger.read(["a"])
    assert tagger.read(["a", "c"]).flatten().tolist() == [ord("a"), ord("c")]
    assert len(tagger.vectors) <= 2

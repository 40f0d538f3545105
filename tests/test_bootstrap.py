"""Captions that are made and judged: a tiny aligner that was trained on colours filters texts whose truth is known."""

import io
import json
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from tests.fake_assistant import FakeAssistant
from tests.tiny_alignment import COLOURS, tiny_aligner, tiny_training, use_tiny_parts
from training import align, bootstrap
from training.aligners.pairs import read_pairs
from training.bootstrapping import filtering, matching
from training.bootstrapping.bootstrapped import DROPPED, KEPT, QUESTION
from training.bootstrapping.matching import Claim, best_threshold, claims_of, judged, scored, shuffled
from training.config import PairSource
from training.scores import alignment as alignment_scores
from vlm.errors import UserError
from vlm.model import alignment

VARIANTS = 24  # pictures of each colour, which differ in one corner


def write_colours(folder: Path) -> Path:
    """Half of the pictures with a caption (`told`), half without any (`untold`)."""
    rows = []
    for name in COLOURS:
        for number in range(VARIANTS):
            image = Image.new("RGB", (16, 16), name)
            image.putpixel((0, 0), (number, number, number))
            content = io.BytesIO()
            image.save(content, "PNG")
            told = number % 2 == 0
            row = {"image": {"bytes": content.getvalue(), "path": ""}, "question": "", "answer": ""}
            row |= {"references": [f"all {name}"] if told else [], "kind": "photo"}
            rows.append(row | {"source": "told" if told else "untold", "split": "train"})
    folder.mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), folder / "colours.parquet")
    return folder


def write_blue(folder: Path) -> None:
    """A source that teaches nothing of the other colours."""
    table = parquet.read_table(folder / "colours.parquet").to_pylist()
    rows = [row | {"source": "blue"} for row in table if "all blue" in row["references"]]
    for row in rows:
        row["image"]["bytes"] += b" "  # other pictures than those that are told of
    parquet.write_table(pa.Table.from_pylist(rows), folder / "blue.parquet")


def use_tiny(patch: pytest.MonkeyPatch) -> None:
    for name in ("load_aligner_config", "build_aligner", "draw_all", "report"):
        patch.setattr(align, name, getattr(align, name))  # and are put back after the test
    use_tiny_parts()
    patch.setattr(alignment, "build_aligner", tiny_aligner)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_tiny(monkeypatch)
    return write_colours(tmp_path / "data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the colours as `data` and the filter that learned them as `filter`."""
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_training(write_colours(folder / "data"), folder / "filter")
    config = replace(config, sources=(PairSource("told"),), batch_size=8, epochs=20, validation_share=0.1)
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch)
        align.run(replace(config, save_steps=100, validation_steps=20))
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was trained."""
    use_tiny(monkeypatch)
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


def arguments(folder: Path, **changes: Any) -> Namespace:
    given = {"data": folder / "data", "aligner": str(folder / "filter" / "aligner"), "output": folder / "out"}
    given |= {"adapter": "embedded", "known": "told"}
    asked = {"pictures": ["untold"], "limit": 20, "texts": ["told"], "shuffled": 0.5, "compare": None}
    return Namespace(**given | asked | changes)


@pytest.fixture
def assistant(monkeypatch: pytest.MonkeyPatch) -> FakeAssistant:
    """Says the colour of what it sees, and of what is neither red, blue nor lime that it is grey."""
    fake = FakeAssistant()
    monkeypatch.setattr(bootstrap, "load_assistant", lambda *_: fake)
    return fake


def test_pictures_are_read_once_for_all_claims(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = read_pairs(data, ["told"], 0.0).train
    aligner, claims = tiny_aligner(), claims_of(pictures)
    whole = scored(aligner, data, claims, pictures)
    assert sorted(map(str, claims)) == sorted(str(replace(each, score=0.0)) for each in whole)
    for shards in data.glob("features-*"):
        shutil.rmtree(shards)
    reads = []
    read = matching.pictures_of
    monkeypatch.setattr(matching, "pictures_of", lambda *given: reads.append(given) or read(*given))
    monkeypatch.setattr("training.scores.alignment.pictures_of", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr(matching, "PICTURES_AT_ONCE", 7)
    again = scored(aligner, data, claims, pictures)
    assert len(reads) == 1
    assert [each.score for each in again] == pytest.approx([each.score for each in whole], abs=1e-5)


def test_of_an_encoder_that_was_trained_pictures_are_read_once_too(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = read_pairs(data, ["told"], 0.0).train[::2]
    aligner, claims = tiny_aligner(), claims_of(pictures)
    expected = scored(aligner, data, claims, pictures)
    aligner.encoders_trained = True
    reads, opened = [], []
    read, open_image = matching.pictures_of, alignment_scores.open_image
    monkeypatch.setattr(matching, "pictures_of", lambda *given: reads.append(given) or read(*given))
    monkeypatch.setattr(
        alignment_scores, "open_image", lambda content: opened.append(content) or open_image(content)
    )
    monkeypatch.setattr(matching, "PICTURES_AT_ONCE", 7)
    found = scored(aligner, data, claims[::-1], pictures)[::-1]
    assert [each.text for each in found] == [each.text for each in expected]
    assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-2)
    assert len(reads) == 1 and len(opened) == len(pictures)


@pytest.mark.slow
def test_what_is_true_is_kept_and_written_for_training(folder: Path, assistant: FakeAssistant) -> None:
    data, report = folder / "data", bootstrap.run(arguments(folder))
    texts, captions = report["texts"], report["captions"]
    assert 0.35 < texts["true"]["share"] < 0.65
    # Of the exchanged texts an eighth is true: of a picture of that colour
    assert texts["precision"]["share"] > 0.7
    assert texts["true_kept"]["share"] > 0.7 and texts["false_kept"]["share"] < 0.3
    assert report["known"]["precision"]["share"] > 0.75
    assert len(assistant.asked) == captions["kept"]["of"] == 20
    kept, dropped = (read_pairs(data, [source], 0.0).train for source in (KEPT, DROPPED))
    written = [text for each in (*kept, *dropped) for text in each.captions]
    assert len(written) == texts["kept"]["of"] + 20
    assert sum(len(each.captions) for each in kept) == texts["kept"]["right"] + captions["kept"]["right"]
    files = [data / f"{source}.parquet" for source in (KEPT, DROPPED)]
    rows = [row for file in files for row in parquet.read_table(file).to_pylist()]
    assert {row["question"] for row in rows} == {QUESTION} and {row["split"] for row in rows} == {"train"}
    assert {row["style"] for row in rows} == {"told", "untold"}
    assert set(report["examples"]["texts"]) == {"kept", "dropped"}
    assert json.loads((folder / "out" / "report.json").read_text())["texts"] == texts
    watched = {each.picture for each in read_pairs(data, ["told"], 0.1).validation}
    assert watched and not watched & {each.picture for each in (*kept, *dropped)}


@pytest.mark.slow
def test_captions_are_kept_while_they_come(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, again = FakeAssistant(parallel=1, stops_after=5), FakeAssistant(parallel=1)
    asked = arguments(folder, texts=[], shuffled=0.0, limit=8)
    monkeypatch.setattr(bootstrap, "load_assistant", lambda *_: killed)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.run(asked)
    assert not (folder / "data" / f"{KEPT}.parquet").exists()
    monkeypatch.setattr(bootstrap, "load_assistant", lambda *_: again)
    assert bootstrap.run(asked)["captions"]["kept"]["of"] == 8
    assert len(again.asked) == 8 - 5


@pytest.mark.slow
def test_training_on_what_is_kept_is_compared_with_training_on_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blue(folder / "data")
    preset = replace(tiny_training(folder / "data", folder), batch_size=8, epochs=20, validation_share=0.1)
    preset = replace(
        preset, sources=(PairSource("blue"), PairSource(KEPT)), save_steps=100, validation_steps=20
    )
    monkeypatch.setattr(filtering, "load_alignment_config", lambda name, data: preset)
    asked = arguments(folder, pictures=[], shuffled=0.8, compare="tiny")
    report = bootstrap.run(asked)
    assert set(report["training"]) == {"without", "kept", "all"}
    for name, scores in report["training"].items():
        assert (folder / "out" / "compare" / name / "aligner" / "heads.safetensors").is_file()
        assert scores["t2i_median_rank"] >= 1
    ranks = {name: scores["t2i_median_rank"] for name, scores in report["training"].items()}
    assert ranks["kept"] < ranks["all"] and ranks["kept"] < ranks["without"]
    assert json.loads((folder / "out" / "report.json").read_text()) == report


def claims(count: int) -> list[Claim]:
    return [Claim(str(number // 2), f"text {number}", "tiny", True) for number in range(count)]


def test_an_exchanged_text_is_of_another_picture_and_known_to_be_false() -> None:
    own = claims(200)
    exchanged = shuffled(own, 0.5, seed=0)
    assert exchanged == shuffled(own, 0.5, seed=0) != shuffled(own, 0.5, seed=1)
    texts = {claim.text: claim.picture for claim in own}
    for before, after in zip(own, exchanged, strict=True):
        assert before.picture == after.picture
        assert after.true == (texts[after.text] == after.picture)
    assert 70 < sum(not claim.true for claim in exchanged) < 130
    assert not any(claim.true for claim in shuffled(own, 1.0, seed=0))
    assert shuffled(own[:2], 1.0, seed=0) == own[:2]  # there is no other picture


def test_the_threshold_divides_best() -> None:
    true, false = torch.tensor([0.4, 0.5, 0.9]), torch.tensor([0.1, 0.2, 0.45])
    # All true ones and a third of the false are kept; to drop that one, too, costs a true one
    assert best_threshold(true, false) == pytest.approx(0.4)


def test_what_is_kept_is_counted_as_by_hand() -> None:
    scored = [
        Claim("1", "a", "tiny", True, 0.9),
        Claim("2", "b", "tiny", False, 0.8),
        Claim("3", "c", "tiny", True, 0.1),
        Claim("4", "d", "adapter", None, 0.5),
    ]
    found = judged(scored, 0.5)
    counted = {name: (each["right"], each["of"]) for name, each in found.items()}
    assert counted == {
        "kept": (3, 4),
        "true": (2, 3),
        "precision": (1, 2),
        "true_kept": (1, 2),
        "false_kept": (1, 1),
    }
    assert set(judged(scored[3:], 0.5)) == {"kept"}


def test_what_cannot_be_bootstrapped_is_refused_in_a_sentence(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alignment.save_aligner(tiny_aligner(), tmp_path / "fresh", {}, {})
    asked = arguments(tmp_path, aligner=str(tmp_path / "fresh"), pictures=[], texts=["untold"])
    with pytest.raises(UserError, match="no captions to judge"):
        bootstrap.run(asked)
    asked.known = "flickr8k"
    with pytest.raises(
        UserError, match=r"no source flickr8k\. It has: told, untold\. Name others with --known"
    ):
        bootstrap.run(asked)
    asked.known = "untold"
    with pytest.raises(
        UserError, match="'untold' has too few pictures with captions. Name another with --known"
    ):
        bootstrap.run(asked)
    alignment.save_aligner(tiny_aligner(), tmp_path / "fresh", {"validation_share": 0.05}, {})
    with pytest.raises(
        UserError, match="fresh trains on pictures that are measured on.*is 0.05. Give one of 0.1"
    ):
        bootstrap.run(asked)
    few = replace(tiny_training(data, tmp_path), sources=(PairSource(KEPT),), validation_share=0.05)
    with monkeypatch.context() as patched:
        patched.setattr(filtering, "load_alignment_config", lambda name, data: few)
        with pytest.raises(UserError, match="The preset 'few' trains on pictures that are measured on"):
            filtering.compare_filtered("few", data, "told", tmp_path)
    with pytest.raises(UserError, match="has no source bootstrapped. Add"):
        filtering.compare_filtered("embedded", data, "told", tmp_path)
    assert not list(data.glob("bootstrapped*"))

"""Features are computed once, examples are laid out for good, a resumed run ends like an unbroken one."""

import errno
import hashlib
import io
import json
import math
import os
import pickle
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import TrainingArguments

from tests.forking import end_of_fork
from tests.tiny import colour_batch, picture, tiny_config, tiny_model
from training import finetune
from training.adapters import tags as teaching
from training.adapters.conversations import Collator, Conversations
from training.adapters.encoding import features_of
from training.adapters.epochs import lay_out, lay_out_validation, long_enough, steps_of_epochs, within_epochs
from training.adapters.stage import train_stage
from training.adapters.tags import tags_of
from training.adapters.trainer import AdapterTrainer
from training.config import Slice, SourceConfig, StageConfig, TrainingConfig
from training.data import Row, features, iterate_rows, pictures_of, read_rows
from training.data.augmentation import AugmentationConfig, draw_view, paint_view, view_ids, with_views
from training.data.features import FeatureStore
from training.plot import draw
from training.runs.checkpoints import OrderedTrainer, last_whole_checkpoint, skip_what_is_not_finite
from vlm.config import LoraConfig
from vlm.config_reader import PartConfig
from vlm.errors import UserError
from vlm.model import adapter as adapters
from vlm.model.adapter import load_adapter, restore_adapter
from vlm.model.adapter_folder import find_adapter, read_description
from vlm.model.prompts import VISUAL, Batch, PromptTurn, encode
from vlm.model.vlm import VisionLanguageModel, text_size

COLOURS = {"red": "Red.", "lime": "Green.", "blue": "Blue.", "white": "White."}


def png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pictures with three questions each, as parquet with the image bytes inside."""
    rows = []
    for name, answer in COLOURS.items():
        image = {"bytes": png(picture(name)), "path": f"{name}.png"}
        for question in ("What color?", "Which color is it?", "Color?"):
            row = {"image": image, "question": question, "answer": answer, "source": "tiny", "split": "train"}
            rows += [row, row | {"split": "validation"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "tiny.parquet")
    return tmp_path


def store_of(data: Path, model: VisionLanguageModel) -> FeatureStore:
    store = FeatureStore(data, tiny_config().vision)
    store.add(pictures_of(data, "train"), model.eyes.vision)
    return store


def conversations(
    data: Path,
    model: VisionLanguageModel,
    rows: Sequence[Row] | None = None,
    tags: Mapping[str, str] | None = None,
    **changes: object,
) -> Conversations:
    options = {
        "tokens_per_picture": model.eyes.tokens_per_picture,
        "system": "Look.",
        "style": "full",
        "sources": [SourceConfig("tiny", turns=2)],
        "batch_size": 2,
        "epochs": 2,
        "tag_dropout": 0.0,
        "max_tokens": 1024,
        "several_pictures": 0.0,
        "seed": 0,
    }
    store = store_of(data, model)
    known = read_rows(data, "train") if rows is None else rows
    return Conversations(known, store, tags or {}, model.language.tokenizer, **options | changes)  # type: ignore


def pictures_in(data: Path) -> set[str]:
    return {row.picture for row in read_rows(data, "train")}


def text_of(model: VisionLanguageModel, ids: Sequence[int]) -> str:
    return model.language.tokenizer.decode([id if id != VISUAL else model.language.pad_id for id in ids])


def test_each_picture_is_encoded_once_and_features_survive_a_restart(data: Path) -> None:
    model = tiny_model()
    store = store_of(data, model)
    assert len(store) == len(COLOURS)
    looks = []
    model.eyes.vision.register_forward_hook(lambda *_: looks.append(1))
    again = FeatureStore(data, tiny_config().vision)
    again.add(pictures_of(data, "train"), model.eyes.vision)
    assert not looks
    row, content = next(iterate_rows(data, "train"))
    assert torch.equal(again[row.picture], store[row.picture])
    assert store[row.picture].dtype is torch.half  # as it is sent by workers


def test_a_worker_that_is_not_forked_gets_features_and_no_encoder(data: Path) -> None:
    """As Windows and Python 3.14 start them: the data set and the collator are pickled."""
    model = tiny_model()
    store = store_of(data, model)
    sent = pickle.loads(pickle.dumps(store))
    assert all(torch.equal(sent[name], store[name]) for name in pictures_in(data))
    assert len(pickle.dumps(Collator(model))) < 1000


def test_a_run_reads_what_another_one_on_the_same_data_has_encoded_since(data: Path) -> None:
    model = tiny_model()
    early = FeatureStore(data, tiny_config().vision)
    store = store_of(data, model)
    model.eyes.vision.register_forward_hook(lambda *_: pytest.fail("encoded twice"))
    early.add(pictures_of(data, "train"), model.eyes.vision)
    assert all(torch.equal(early[name], store[name]) for name in pictures_in(data))
    assert len(list(store.folder.glob("shard-*"))) == 1


def test_pictures_are_told_apart_by_their_content_whatever_they_are_called(tmp_path: Path) -> None:
    """Two sources may use one id, and one of them may have a picture twice."""
    pictures = [("one", "red"), ("other", "blue"), ("other", "red")]
    known = {"image_id": "1", "question": "Q?", "split": "train"}
    rows = [
        known
        | {"image": {"bytes": png(picture(colour)), "path": "1.png"}, "source": source, "answer": colour}
        for source, colour in pictures
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "tiny.parquet")
    model = tiny_model()
    store = store_of(tmp_path, model)
    assert len(store) == 2
    for row in read_rows(tmp_path, "train"):
        expected = model.eyes.vision.see([picture(row.answer)])[0]
        assert torch.allclose(store[row.picture].float(), expected, atol=1e-2)
    laid_out = conversations(tmp_path, model, sources=[SourceConfig("one"), SourceConfig("other")], epochs=1)
    by_answer = {
        rows[0].answer: laid_out[index]["patch_features"] for index, rows in enumerate(laid_out.examples)
    }
    assert not torch.allclose(by_answer["red"], by_answer["blue"], atol=0.1)


def test_features_of_another_encoder_are_not_read(data: Path) -> None:
    store_of(data, tiny_model())
    config = replace(tiny_config().vision, image_size=256)
    assert len(FeatureStore(data, config)) == 0
    same = replace(tiny_config().vision, tags=0)  # the features do not depend on it
    assert len(FeatureStore(data, same)) == len(COLOURS)


def test_features_of_another_encoder_that_were_copied_in_are_refused(data: Path) -> None:
    theirs = store_of(data, tiny_model()).folder
    config = replace(tiny_config().vision, encoder="clip", features="patches", tags=0)
    ours = FeatureStore(data, config).folder
    shutil.copy(theirs / "shard-00000.safetensors", ours)
    with pytest.raises(UserError, match=r"efficientnet-lite2.*and the preset has .*patches"):
        FeatureStore(data, config)


def test_a_truncated_shard_is_refused_with_the_remedy(data: Path) -> None:
    shard = store_of(data, tiny_model()).folder / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(UserError, match="Remove it"):
        FeatureStore(data, tiny_config().vision)


def test_a_shard_that_was_removed_is_computed_again_and_costs_no_other(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SHARD_SIZE", 2)
    model = tiny_model()
    first, second = sorted(store_of(data, model).folder.glob("shard-*"))
    kept = second.read_bytes()
    early = FeatureStore(data, tiny_config().vision)
    first.unlink()
    assert len(store_of(data, model)) == len(COLOURS)
    assert second.read_bytes() == kept and not first.exists()
    store = FeatureStore(data, tiny_config().vision)
    store.add([("other", png(picture("black")))], model.eyes.vision)
    early.add([("other", png(picture("black")))], model.eyes.vision)
    for again in (store, early, FeatureStore(data, tiny_config().vision)):
        assert set(again._places) == {*pictures_in(data), "other"}


def shards_of(folder: Path) -> dict[str, torch.Tensor]:
    """The pictures' names in every shard, and its features."""
    found = {}
    for file in sorted(folder.glob("shard-*")):
        with safe_open(file, framework="pt") as shard:
            found[shard.metadata()["pictures"]] = shard.get_tensor("patch_features")
    return found


def test_workers_write_the_same_shards_and_do_not_draw_all_pictures_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SHARD_SIZE", 2)
    encoder, drawn, ahead = tiny_model().eyes.vision, [], []
    pictures = [(str(number), png(Image.new("RGB", (16, 16), (number, 0, 0)))) for number in range(40)]
    pictures[5:5] = [("broken", b"no picture"), ("3", b"a second time"), ("4@1 0.2 0.5 0.3", pictures[4][1])]
    write = FeatureStore._write
    monkeypatch.setattr(FeatureStore, "_write", lambda *given: (ahead.append(len(drawn)), write(*given))[1])
    before = torch.get_rng_state()

    def written(workers: int) -> tuple[dict[str, torch.Tensor], set[str]]:
        monkeypatch.setattr(features, "workers_for", lambda *_: workers)
        drawn.clear(), ahead.clear()
        broken: set[str] = set()
        store = FeatureStore(tmp_path / str(workers), tiny_config().vision)
        store.add((drawn.append(each) or each for each in pictures), encoder, broken=broken)
        return shards_of(store.folder), broken

    alone, broken = written(0)
    assert broken == {"broken"} and list(alone)[2:4] == ['["4"]', '["4@1 0.2 0.5 0.3", "5"]']
    assert ahead[0] <= 4
    together, broken_together = written(2)
    assert broken_together == broken and list(together) == list(alone)
    assert all(map(torch.equal, alone.values(), together.values()))
    assert ahead[0] < 20
    assert torch.equal(torch.get_rng_state(), before)  # a run that goes on has nothing to encode


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_told_in_one_sentence_by_whoever_decodes_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(features, "workers_for", lambda *_: workers)
    with pytest.raises(
        UserError,
        match=r"^A picture of the data cannot be read \(its SHA-256 is abc\): .*leaves such .*out\.$",
    ):
        FeatureStore(data, tiny_config().vision).add([("abc", b"none")], tiny_model().eyes.vision)


def test_only_a_gpu_has_workers_that_decode_for_it_as_many_as_cores_and_shared_memory_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "usable_cores", lambda: 64)
    room = SimpleNamespace(free=10**9)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda folder: room)
    on_gpu = SimpleNamespace(
        parameters=lambda: iter([SimpleNamespace(is_cuda=True)]),
        preprocess=lambda image: torch.zeros(250_000),
    )
    assert features.workers_for(tiny_model().eyes.vision, 16) == 0
    assert features.workers_for(on_gpu, 16) == 16
    room.free = 64 * 2**20  # Docker's default
    assert features.workers_for(on_gpu, 16) == 2
    room.free = 10**6
    assert features.workers_for(on_gpu, 16) == 0
    room.free = 10**9
    monkeypatch.setattr(features, "usable_cores", lambda: 4)
    assert features.workers_for(on_gpu, 16) == 3
    monkeypatch.setattr(features, "get_all_start_methods", lambda: ["spawn"])
    assert features.workers_for(on_gpu, 16) == 0


def test_the_rows_of_one_picture_are_hashed_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, hashed = read_rows(data, "train"), []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda content: hashed.append(content) or sha256(content))
    assert read_rows(data, "train") == expected and len(expected) == 3 * len(COLOURS)
    assert len(hashed) == len(COLOURS)


def test_slices_divide_the_pictures_and_stay_the_same() -> None:
    pictures = [f"picture {number}" for number in range(400)]
    parts = [[name for name in pictures if Slice.parse(f"{part}/4").holds(name)] for part in range(1, 5)]
    assert sorted(name for part in parts for name in part) == sorted(pictures)
    assert all(70 < len(part) < 130 for part in parts)
    assert [name for name in pictures if Slice.parse(None).holds(name)] == pictures
    for wrong in ("0/4", "5/4", "3", "a/b"):
        with pytest.raises(UserError, match="3/20"):
            Slice.parse(wrong)


def test_a_half_written_shard_is_not_read(data: Path) -> None:
    store = store_of(data, tiny_model())
    (store.folder / "shard-00001.safetensors.partial").write_bytes(b"half")
    assert len(FeatureStore(data, tiny_config().vision)) == len(COLOURS)


def test_examples_are_conversations_about_one_picture_and_the_same_every_time(data: Path) -> None:
    model = tiny_model()
    examples = conversations(data, model)
    assert len(examples) == 2 * len(COLOURS)
    assert all(len(rows) == 2 and len({turn.row.picture for turn in rows}) == 1 for rows in examples.examples)
    assert examples.examples == conversations(data, model).examples
    assert examples.examples != conversations(data, model, seed=1).examples
    half = conversations(data, model, sources=[SourceConfig("tiny", share=2.5)], epochs=1)
    assert 2 * len(COLOURS) <= len(half) <= 3 * len(COLOURS)


def test_turns_of_a_conversation_keep_their_order_and_stay_apart_from_others(tmp_path: Path) -> None:
    known = {
        "image": {"bytes": png(picture("red")), "path": ""},
        "answer": "a",
        "source": "tiny",
        "split": "train",
    }
    turns = [("first", turn) for turn in (3, 0, 2, 1)] + [("second", turn) for turn in range(4)]
    rows = [
        known | {"question": f"{name} {turn}", "conversation": name, "turn": turn} for name, turn in turns
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "tiny.parquet")
    laid_out = conversations(tmp_path, tiny_model(), sources=[SourceConfig("tiny", turns=3)], epochs=4)
    assert len(laid_out) == 2 * 4
    text = text_of(tiny_model(), laid_out[0]["encoded"].ids)
    assert re.findall(r"(?:first|second) (\d)", text) == ["0", "1", "2"]
    for drawn in laid_out.examples:
        assert len(drawn) == 3 and len({turn.row.conversation for turn in drawn}) == 1
        assert [turn.row.turn for turn in drawn] == [0, 1, 2]


def test_a_source_can_be_confined_to_questions_of_some_tasks(tmp_path: Path) -> None:
    known = {"source": "tiny", "split": "train", "answer": "Yes."}
    tasks = {"red": ("name", "choice"), "blue": ("choice", "yes"), "lime": ("name",)}
    rows = [
        known
        | {"image": {"bytes": png(picture(name)), "path": ""}, "question": f"{name} {task}?", "task": task}
        for name, tasks_of_it in tasks.items()
        for task in tasks_of_it
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "tiny.parquet")
    sources = [SourceConfig("tiny", tasks=("choice", "yes")), SourceConfig("tiny", tasks=("name",))]
    laid_out = conversations(tmp_path, tiny_model(), sources=sources, epochs=1).examples
    assert sorted(sorted(row.question for row in drawn) for drawn in laid_out) == [
        ["blue choice?", "blue yes?"],
        ["lime name?"],
        ["red choice?"],
        ["red name?"],
    ]


def test_views_are_drawn_only_where_all_answers_stay_true(data: Path) -> None:
    model = tiny_model(tags=1)
    rows = [replace(row, noun="square", task="name") for row in read_rows(data, "train")]
    store, views = store_of(data, model), AugmentationConfig(views=3)
    names = {hashlib.sha256(png(picture(name))).hexdigest(): name for name in COLOURS}
    store.add(with_views(pictures_of(data, "train"), views), model.eyes.vision, views)
    assert len(store) == 4 * len(COLOURS)
    for row in rows:
        for view in view_ids(row.picture, views):
            (expected,) = model.eyes.vision.see(
                [paint_view(picture(names[row.picture]), draw_view(view, views))]
            )
            assert torch.allclose(store[view].float(), expected, atol=1e-2)

    def seen(task: str, answer: str = "A square.", several: float = 0.0) -> set[bytes]:
        told = [replace(row, task=task, answer=answer) for row in rows]
        more: dict[str, Any] = {"several_pictures": several, "augmentation": views}
        drawn = conversations(data, model, told, sources=[SourceConfig("tiny")], epochs=20, **more)
        every = (each for index in range(len(drawn)) for each in drawn[index]["patch_features"])
        return {each.numpy().tobytes() for each in every}

    themselves = {store[row.picture].numpy().tobytes() for row in rows}
    assert seen("vqa") == themselves < seen("name", "A cup leftover.")
    shown = {view: draw_view(view, views) for row in rows for view in view_ids(row.picture, views)}
    kept = {store[view].numpy().tobytes() for view, each in shown.items() if each.changes <= {"jitter"}}
    assert seen("name", "A square on the left.") == themselves | kept
    assert seen("name", "A square on the left.", several=1.0) <= themselves | kept


def test_tags_are_those_of_the_picture_and_are_left_out_as_often_as_told(data: Path) -> None:
    model = tiny_model()
    named = {picture: f"thing {number}" for number, picture in enumerate(sorted(pictures_in(data)))}

    def texts(dropout: float) -> list[tuple[str, str]]:
        laid_out = conversations(data, model, tags=named, tag_dropout=dropout, epochs=10)
        return [
            (rows[0].row.picture, text_of(model, laid_out[index]["encoded"].ids))
            for index, rows in enumerate(laid_out.examples)
        ]

    everywhere = texts(0.0)
    assert all(
        text.count(f"Tags: {named[picture]}.") == text.count("Tags: ") == 1 for picture, text in everywhere
    )
    assert not any("Tags:" in text for _, text in texts(1.0))
    assert 0.2 < sum("Tags:" in text for _, text in texts(0.5)) / len(everywhere) < 0.8


def test_what_is_learned_is_laid_out_as_it_is_asked(data: Path) -> None:
    """The prompt of training, up to the first answer, is that of the reply pipeline."""
    model = tiny_model()
    laid_out = conversations(data, model, tags=dict.fromkeys(pictures_in(data), "thing 9%"))
    rows, encoded = laid_out.examples[0], laid_out[0]["encoded"]
    turn = PromptTurn(rows[0].question, "", ("thing 9%",))
    asked = encode(model.language.tokenizer, [turn], model.eyes.tokens_per_picture, "Look.").ids
    assert encoded.ids[: len(asked)] == asked
    assert encoded.ids.count(VISUAL) == model.eyes.tokens_per_picture


@pytest.mark.slow
def test_tags_are_made_once_a_run_and_the_tagger_that_is_served_learns_the_nouns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {
            "image": {"bytes": png(Image.new("RGB", (16, side), colour)), "path": ""},
            "noun": noun,
            "task": "name",
        }
        | {
            "question": "What is this?",
            "answer": f"A {noun}.",
            "source": "tiny",
            "split": "train",
            "kind": "photo",
        }
        for side in range(16, 24)
        for colour, noun in {"red": "tomato", "lime": "pea"}.items()
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "tiny.parquet")
    model, known = tiny_model(tags=2), read_rows(tmp_path, "train")
    monkeypatch.setattr(teaching, "STEPS", 100)
    store = store_of(tmp_path, model)
    tags = tags_of(model, known, [], store, tmp_path / "run", seed=0)
    assert {row.picture: tags[row.picture].split()[0] for row in known} == {
        row.picture: row.noun for row in known
    }
    (sight,) = model.eyes.see([picture("red")])
    assert sight.tags.startswith("tomato ")
    monkeypatch.setattr(teaching, "teach", None)  # not again
    going_on = tiny_model(tags=2)
    assert tags_of(going_on, known, [], store, tmp_path / "run", seed=0) == tags
    assert going_on.eyes.see([picture("red")])[0].tags == sight.tags
    kept = tmp_path / "run/tags.json"
    kept.write_text(json.dumps({name: told for name, told in tags.items() if name != known[0].picture}))
    watched = tags_of(going_on, known, known[:1], store, tmp_path / "run", seed=0)
    assert watched.keys() == tags.keys() and watched[known[0].picture].startswith(known[0].noun)  # type: ignore
    assert tags_of(tiny_model(), known, [], store, tmp_path / "run", seed=0) == {}  # no tagger


def test_text_dropout_hides_text_and_no_picture_and_only_in_training() -> None:
    model = tiny_model()
    batch, features = colour_batch(model, {"red": "Red."})
    batch = Batch(*(each.expand(8, -1) for each in batch))
    features = features.expand(8, -1, -1)
    whole = model.arrange(batch, features).embeds
    model.text_dropout = 0.5
    assert torch.equal(model.eval().arrange(batch, features).embeds, whole)
    hidden = model.train().arrange(batch, features).embeds
    visual = batch.visual_mask
    assert torch.equal(hidden[visual], whole[visual])
    assert 0.4 < (hidden[~visual] == 0).float().mean() < 0.6


def test_keywords_are_learned_where_the_style_says_so(data: Path) -> None:
    model = tiny_model()
    labels = conversations(data, model, style="keywords")[0]["encoded"].labels
    text = model.language.tokenizer.decode([label for label in labels if label >= 0])
    assert "." not in text


def test_a_source_that_the_data_lacks_is_an_error_that_names_the_others(data: Path) -> None:
    with pytest.raises(UserError, match=r"no source emojis\. It has: tiny"):
        conversations(data, tiny_model(), sources=[SourceConfig("emojis")])


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (["emojis"], r"^The data has no source emojis\. It has: tiny\.$"),
        (["tiny", "emojis"], r"^The data has no source emojis\. It has: tiny\.$"),
        ([], r"^The preset names no sources\. The data has: tiny\.$"),
    ],
)
def test_sources_are_checked_before_a_run_claims_its_folder_or_computes_a_feature(
    training: TrainingConfig, monkeypatch: pytest.MonkeyPatch, sources: list[str], told: str
) -> None:
    monkeypatch.setattr(finetune, "start_model", None)
    with pytest.raises(UserError, match=told):
        finetune.run(replace(training, sources=tuple(map(SourceConfig, sources))))
    assert not Path(training.output).exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"style": "keyword"}, "no style 'keyword'. Valid: full, keywords"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"projector_stage": StageConfig("projector", max_steps=0)}, "projector_stage.max_steps must be 1"),
        ({"joint_stage": StageConfig(epochs=0)}, "joint_stage.epochs must be 1 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_read(
    training: TrainingConfig, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        finetune.run(replace(training, **changes, data="nowhere"))


def test_a_broken_row_of_a_source_that_nobody_trains_on_stops_no_run(
    training: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"image": {"bytes": None, "path": "a.png"}, "question": "Q?", "answer": "A."}
    known = {"source": "other", "split": "train"}
    parquet.write_table(pa.Table.from_pylist([row | known]), Path(training.data) / "other.parquet")

    def start(*_: object) -> None:
        raise UserError("All rows are read.")

    monkeypatch.setattr(finetune, "start_model", start)
    with pytest.raises(UserError, match="All rows are read"):
        finetune.run(training)
    model = tiny_model()
    rows = read_rows(Path(training.data), "train", "tiny")
    store = features_of(rows, training, tiny_config(), model.eyes.vision)
    assert {row.picture for row in rows} == {row.picture for row in rows if row.picture in store}
    with pytest.raises(UserError, match=r"no source emojis\. It has: other, tiny"):
        finetune.run(replace(training, sources=(SourceConfig("emojis"),)))


def test_views_are_made_only_of_pictures_that_may_be_shown_as_one(
    training: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, config = tiny_model(), replace(training, augmentation=AugmentationConfig(views=2))
    first, *others = sorted({row.picture for row in read_rows(Path(training.data), "train")})
    rows = [
        replace(row, task="name" if row.picture == first else "vqa")
        for row in read_rows(Path(training.data), "train")
    ]
    held_out = read_rows(Path(training.data), "validation")
    store = features_of(rows, config, tiny_config(), model.eyes.vision, held_out)
    with monkeypatch.context() as patch:  # nothing is left to encode: the data are not read again
        patch.setattr("training.adapters.encoding.pictures_of", None)
        features_of(rows, config, tiny_config(), model.eyes.vision, held_out)
    views = {name: view_ids(name, config.augmentation) for name in (first, *others)}
    assert all(name in store for name in views) and all(view in store for view in views[first])
    assert others and not any(view in store for name in others for view in views[name])


def test_a_folder_without_parquet_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.prepare"):
        read_rows(tmp_path, "train")


def test_a_batch_has_the_forward_arguments_and_a_loss(data: Path) -> None:
    model = tiny_model()
    examples = conversations(data, model)
    batch = Collator(model)([examples[0], examples[1]])
    assert batch["patch_features"].shape == (2, 4, 8)
    assert batch["visual_mask"].sum() == 2 * 4
    assert torch.isfinite(model(**batch)["loss"])


def training_on(data: Path) -> TrainingConfig:
    return TrainingConfig(
        data=str(data),
        output=str(data / "run"),
        sources=(SourceConfig("tiny"),),
        batch_size=2,
        warmup_steps=2,
        logging_steps=1,
        save_steps=4,
    )


@pytest.fixture
def training(data: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> TrainingConfig:
    monkeypatch.setattr(finetune, "load_model_config", lambda name: tiny_config())
    return training_on(data)


def train(model: VisionLanguageModel, stage: StageConfig, config: TrainingConfig) -> None:
    data = Path(config.data)
    store = store_of(data, model)
    examples = lay_out(
        read_rows(data, "train"), store, {}, model, config, "Look.", config.sources, stage.epochs
    )
    train_stage("joint", stage, model, examples, None, config, tiny_config())


def weights_after(config: TrainingConfig, steps: int) -> dict[str, torch.Tensor]:
    model = tiny_model()
    train(model, StageConfig(epochs=8, max_steps=steps), config)
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def ending(method: str, step: int, end: Callable[[], None]) -> Callable[..., Any]:
    """The method of the Trainer; called after so many steps, it calls `end` first."""
    original = getattr(AdapterTrainer, method)

    def ended(self: AdapterTrainer, *arguments: Any, **named: Any) -> Any:
        if self.state.global_step == step and not named:  # a checkpoint names what it gives to save_model
            end()
        return original(self, *arguments, **named)

    return ended


def interrupt(training: TrainingConfig, method: str, step: int) -> None:
    def end() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AdapterTrainer, method, ending(method, step, end))
        weights_after(training, 10)


def kill(training: TrainingConfig, method: str, step: int) -> None:
    def run() -> None:
        killed = ending(method, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
        setattr(AdapterTrainer, method, killed)
        weights_after(training, 10)

    assert end_of_fork(run) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "method", "step", "left"),
    [
        (interrupt, "training_step", 6, ["checkpoint-4"]),
        # the second is half written
        (kill, "_save_optimizer_and_scheduler", 8, ["checkpoint-4", "checkpoint-8"]),
        (interrupt, "save_model", 10, ["checkpoint-10", "checkpoint-8"]),  # after the last step
    ],
)
def test_a_killed_run_ends_with_the_same_weights_as_an_unbroken_one(
    training: TrainingConfig,
    end: Callable[[TrainingConfig, str, int], None],
    method: str,
    step: int,
    left: list[str],
) -> None:
    whole = replace(training, output=training.output + "-unbroken")
    unbroken = weights_after(whole, 10)
    end(training, method, step)
    assert sorted(path.name for path in Path(training.output, "joint").iterdir()) == left
    resumed = weights_after(training, 10)
    assert unbroken.keys() == resumed.keys()
    for name, weight in unbroken.items():
        assert torch.allclose(weight, resumed[name], atol=1e-6), name
    ends = [sorted(Path(each.output, "joint").iterdir()) for each in (training, whole)]
    assert [path.name for path in ends[0]] == [path.name for path in ends[1]]  # and not a step further


@pytest.mark.slow
def test_a_finished_stage_is_loaded_and_not_trained_again(training: TrainingConfig) -> None:
    first = weights_after(training, 4)
    logged = (Path(training.output) / "log.jsonl").read_text()
    model = tiny_model()
    train(model, StageConfig(), training)
    assert (Path(training.output) / "log.jsonl").read_text() == logged
    weights = dict(model.named_parameters())
    assert all(torch.equal(weights[name], weight) for name, weight in first.items())


@pytest.mark.slow
def test_what_training_writes_the_app_loads(training: TrainingConfig) -> None:
    trained = weights_after(training, 4)
    served = tiny_model(lora=False)
    load_adapter(served, Path(training.output) / "joint" / "adapter")
    weights = dict(served.named_parameters())
    assert all(torch.equal(weights[name], weight) for name, weight in trained.items())
    other = tiny_model()
    restore_adapter(other, Path(training.output) / "joint" / "adapter")
    assert all(torch.equal(dict(other.named_parameters())[name], weight) for name, weight in trained.items())


@pytest.mark.parametrize("gradient", [math.nan, math.inf])
def test_a_step_whose_gradient_is_not_finite_leaves_the_weights_as_they_are(gradient: float) -> None:
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    optimizer = torch.optim.AdamW(weights, lr=0.1)
    optimizer.register_step_pre_hook(skip_what_is_not_finite)

    def step(first: float) -> list[torch.Tensor]:
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        weights[0].grad[0] = first  # type: ignore[index]
        optimizer.step()
        return [weight.detach().clone() for weight in weights]

    before = step(1.0)
    asked, ask = [], torch.Tensor.__bool__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "__bool__", lambda each: asked.append(each) or ask(each))
        assert not skip_what_is_not_finite(optimizer) and len(asked) == 1  # a GPU is waited for once
    assert all(map(torch.equal, before, step(gradient)))
    after = step(1.0)
    assert all((one != other).all() for one, other in zip(before, after, strict=True))


@pytest.mark.slow
def test_fresh_visual_tokens_begin_as_large_as_text_and_standardised(
    training: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "build_model", lambda config, device: tiny_model(lora=False))
    still = StageConfig(epochs=1, max_steps=1, connector_learning_rate=0.0, lora_learning_rate=0.0)
    adapter = finetune.run(
        replace(training, projector_stage=replace(still, train="projector"), joint_stage=still)
    )
    model = tiny_model(lora=False)
    load_adapter(model, adapter)
    features = model.eyes.vision.see([picture(name) for name in COLOURS])
    visual_tokens = torch.stack(
        [sight.visual_tokens for sight in model.eyes.see([picture(name) for name in COLOURS])]
    )
    size = visual_tokens.square().mean().sqrt().item()
    assert size == pytest.approx(text_size(model.language), rel=0.02)
    assert model.connector.normalise(features).mean((0, 1)).abs().max() < 0.02


def alpha_of(adapter: Path) -> float:
    return json.loads((adapter / "lora" / "adapter_config.json").read_text())["lora_alpha"]


def test_a_stage_ends_with_its_epochs_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond them the Trainer would go through the same drawn questions again."""
    examples: Any = type("Laid", (list,), {"batch_size": 4})(range(9))
    assert within_epochs("joint", StageConfig(epochs=2, max_steps=3), examples).max_steps == 3
    assert within_epochs("joint", StageConfig(epochs=2), examples).max_steps == -1
    assert not caplog.records
    assert within_epochs("joint", StageConfig(epochs=2, max_steps=90), examples).max_steps == 3
    assert "its epochs, 2, have 3 steps" in caplog.text and "raise epochs" in caplog.text


def test_an_extended_stage_has_as_many_epochs_as_its_steps_take(data: Path) -> None:
    model, config = tiny_model(), training_on(data)
    rows, store = read_rows(data, "train"), store_of(data, model)

    def lay(epochs: int) -> Conversations:
        return lay_out(rows, store, {}, model, config, "Look.", config.sources, epochs)

    short = long_enough(lay, 1, 0)
    steps = 3 * steps_of_epochs(short) + 1
    longer = long_enough(lay, 1, steps)
    assert steps_of_epochs(longer) >= steps and len(longer.examples) == 4 * len(short.examples)
    assert longer.examples[: len(short.examples)] == short.examples
    assert within_epochs("joint", StageConfig(max_steps=steps), longer).max_steps == steps


def test_a_connector_begins_as_one_thing_alone(training: TrainingConfig) -> None:
    with pytest.raises(UserError, match="init_from brings a whole connector.*Take one out"):
        finetune.run(replace(training, init_from="an adapter", connector_from="runs/q-former"))


def test_few_pictures_and_none_to_validate_with_are_trained_on(
    training: TrainingConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The warm-up ends, and the Trainer is not told to look at a validation loss."""
    model, made = tiny_model(), []
    monkeypatch.setattr(AdapterTrainer, "train", lambda self, **_: made.append(self.args))
    long = replace(training, warmup_steps=30, validation_steps=5)
    table = parquet.read_table(Path(training.data) / "tiny.parquet")
    parquet.write_table(table.filter(pc.field("split") == "train"), Path(training.data) / "tiny.parquet")
    store = store_of(Path(training.data), model)
    assert lay_out_validation([], store, {}, model, long, "Look.") is None
    assert "no validation pictures" in caplog.text
    train(model, StageConfig(epochs=5), long)
    assert made[0].warmup_steps == 5  # of ten steps
    assert made[0].eval_strategy == "no"


def test_validation_questions_that_cannot_be_asked_forbid_no_training(
    training: TrainingConfig, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    sources = [SourceConfig("tiny"), SourceConfig("long"), SourceConfig("other", tasks=("name",))]
    config = replace(training, sources=tuple(sources), max_tokens=60)
    rows = read_rows(Path(training.data), "validation")
    rows += [
        replace(rows[0], source="long", answer="word " * 100),
        replace(rows[0], source="other", task="count"),
    ]
    examples = lay_out_validation(rows, store_of(Path(training.data), model), {}, model, config, "Look.")
    assert {turn.row.source for asked in examples.examples for turn in asked} == {"tiny"}  # type: ignore[union-attr]
    assert "no validation question of long, other can be asked" in caplog.text


def test_tasks_that_no_question_has_are_told_before_a_feature_is_computed(
    training: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "start_model", None)
    file = Path(training.data) / "tiny.parquet"
    rows = [row | {"task": "vqa"} for row in parquet.read_table(file).to_pylist()]
    parquet.write_table(pa.Table.from_pylist([rows[0] | {"task": None}, *rows]), file)
    told = "source tiny has no question of the tasks .*: name, count. It has: questions without a task, vqa. Change"
    with pytest.raises(UserError, match=told):
        finetune.run(replace(training, sources=(SourceConfig("tiny", tasks=("name", "count")),)))
    assert not Path(training.output).exists()
    with pytest.raises(
        UserError, match="Nothing is left to train on"
    ):  # nor where a run has begun that could not go on
        long_enough(lambda epochs: conversations(Path(training.data), tiny_model(), epochs=0), 1, 0)


def test_a_process_has_one_gpu_and_says_how_to_use_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    arguments._n_gpu = 4
    assert OrderedTrainer(model=torch.nn.Linear(1, 1), args=arguments).args.train_batch_size == 8
    assert "one of 4 GPUs is used; finetune and align use all" in caplog.text


@pytest.mark.slow
def test_training_goes_on_from_an_adapter(training: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command on the tiny model: fresh, then from its own adapter, whose weights are where it starts."""
    monkeypatch.setattr(finetune, "build_model", lambda config, device: tiny_model(lora=False))
    training = replace(training, validation_steps=1)
    (Path(training.data) / "card.md").write_text("# Data card\n")
    short = StageConfig(epochs=1, max_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "draw", draw)
        first = finetune.run(replace(training, projector_stage=short, joint_stage=short, lora_share=0.8))
    assert {file.name for file in first.iterdir()} >= {"data.md", "training.png"}
    still = StageConfig(epochs=1, max_steps=1, connector_learning_rate=0.0, lora_learning_rate=0.0)
    again = replace(training, output=training.output + "-again", init_from=str(first), joint_stage=still)
    second = finetune.run(again)
    whole = replace(training, output=training.output + "-whole", joint_stage=still)
    third = finetune.run(replace(whole, init_from=str(first.parent / "joint" / "adapter")))
    assert alpha_of(third) == 8  # a stage's adapter has all of the LoRA already
    # of what was learned all is gone on from, though a share of it was applied
    assert [alpha_of(each) for each in (first, second)] == [pytest.approx(0.8 * alpha_of(second)), 8]
    for file in ("projector.safetensors", "lora/adapter_model.safetensors"):
        before, after = load_file(first / file), load_file(second / file)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before), file
    lines = [json.loads(line) for line in (Path(training.output) / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines if "loss" in line] == ["projector", "joint"]
    assert all(math.isfinite(line["eval_loss"]) for line in lines if "eval_loss" in line)
    assert sum("eval_loss" in line for line in lines) == 2
    for lora, told in (
        (LoraConfig(rank=2, alpha=8), "a LoRA of rank 2 and alpha 8 on"),
        (LoraConfig(rank=4, alpha=16), "a LoRA of rank 4 and alpha 16 on"),
        (LoraConfig(rank=0), "no LoRA"),
    ):
        changed = replace(tiny_config(), lora=lora)
        monkeypatch.setattr(finetune, "load_model_config", lambda name, changed=changed: changed)
        with pytest.raises(
            UserError, match=f"has a LoRA of rank 4 and alpha 8 on .*, and the preset 'tiny' {told}"
        ):
            finetune.start_model(again, changed, "cpu")
    other = replace(tiny_config(), connector=PartConfig("mlp", {"hidden": 99}))
    monkeypatch.setattr(finetune, "load_model_config", lambda name: other)
    with pytest.raises(UserError, match=r"model\.connector\.hidden was \d+ and is 99"):
        finetune.run(again)
    with pytest.raises(UserError, match="does not fit"):
        finetune.run(replace(again, output=training.output + "-third"))


@pytest.fixture
def command(training: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """python -m training.finetune on the tiny model, with changes of its preset; gives the folder of the joint stage."""
    monkeypatch.setattr(finetune, "build_model", lambda config, device: tiny_model(lora=False))
    short = StageConfig("projector", max_steps=1)
    config = replace(training, projector_stage=short, joint_stage=StageConfig(epochs=8, max_steps=10))

    def give(*words: str, **changes: object) -> Path:
        changed = replace(config, **changes)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["finetune", *words])
            patch.setattr(finetune, "load_training_config", lambda preset, **_: changed)
            finetune.main()
        return Path(changed.output) / "joint"

    yield give


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def unbroken(command: Callable[..., Path], runs: Path) -> Path:
    """The joint stage of a run that nothing happened to; the first test that needs it trains it."""
    return command(output=str(runs / "unbroken"))


@pytest.mark.slow
def test_a_finished_run_is_trained_no_other_way_and_keeps_what_is_known_of_it(
    training: TrainingConfig, command: Callable[..., Path]
) -> None:
    adapter = command().parent / "adapter"
    (adapter / "limits.md").write_text("Written by hand.")
    before = {file: file.read_bytes() for file in adapter.parent.rglob("*") if file.is_file()}
    command()
    command(report_to="none", logging_steps=3, gradient_checkpointing=True)
    faster = StageConfig(epochs=8, max_steps=10, lora_learning_rate=1.0)
    longer = StageConfig(epochs=8, max_steps=12)
    for changes, told in (
        ({"joint_stage": faster}, r"joint_stage\.lora_learning_rate was 0\.0003 and is 1\.0"),
        ({"seed": 7, "joint_stage": longer}, "max_steps was 10 and is 12; seed was 0 and is 7"),
        ({"batch_size": 4}, "conversations_a_step was 2 and is 4"),
        ({"slice": "1/2"}, "rows was"),
        ({"sources": (SourceConfig("tiny", share=2.0),)}, r"sources\.1\.share was 1\.0 and is 2\.0"),
    ):
        with pytest.raises(SystemExit, match=rf"other settings: .*{told}.*--output.*--extend.*--init-from"):
            command(**changes)
    assert {file: file.read_bytes() for file in adapter.parent.rglob("*") if file.is_file()} == before
    command(lora_share=0.5)  # of what was learned: it is trained no other way
    lora = json.loads((adapter / "lora" / "adapter_config.json").read_text())
    assert lora["lora_alpha"] == 4 and read_description(adapter)["training"]["lora_share"] == 0.5


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_its_own_settings_alone(
    training: TrainingConfig, command: Callable[..., Path], unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = AdapterTrainer.training_step

    def step_or_not(self: AdapterTrainer, *arguments: object) -> torch.Tensor:
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "training_step", step_or_not)
        with pytest.raises(SystemExit, match="130"):
            command()
    slower = StageConfig(epochs=8, max_steps=10, lora_learning_rate=1.0e-5)
    with pytest.raises(SystemExit, match=r"lora_learning_rate was 0\.0003 and is 1e-05"):
        command(joint_stage=slower)
    joint = command()
    for file in ("projector.safetensors", "lora/adapter_model.safetensors"):
        one, other = load_file(joint / "adapter" / file), load_file(unbroken / "adapter" / file)
        assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one), file


@pytest.mark.slow
def test_what_cannot_be_loaded_leaves_the_folder_to_another_try(
    training: TrainingConfig, command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> VisionLanguageModel:
        raise UserError("There are no weights qwen9.")

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "start_model", fail)
        with pytest.raises(SystemExit, match="no weights qwen9"):
            command(seed=7)
    assert not Path(training.output).exists()
    assert command().is_dir()


@pytest.mark.slow
def test_a_finished_run_is_extended_on_request_and_says_so(
    training: TrainingConfig, command: Callable[..., Path]
) -> None:
    with pytest.raises(SystemExit, match="no checkpoint of its joint stage"):
        command("--extend", "14")
    joint = command()
    first = load_file(joint / "adapter" / "projector.safetensors")
    with pytest.raises(SystemExit, match="has 10 joint steps already"):
        command("--extend", "8")
    with pytest.raises(SystemExit, match="seed was 0 and is 7"):
        command("--extend", "14", seed=7)
    for _ in range(2):  # the second time there is nothing left to do
        command("--extend", "14")
    lines = [json.loads(line) for line in (joint.parent / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["stage"] == "joint" and "loss" in line]
    assert steps == list(range(1, 15))
    trained = read_description(joint.parent / "adapter")["training"]
    assert trained["joint_stage"]["max_steps"] == 14 and trained["extended_at"] == [10]
    assert trained["joint_steps"] == 14
    longer = load_file(joint / "adapter" / "projector.safetensors")
    assert any(not torch.equal(first[name], longer[name]) for name in first)
    with pytest.raises(SystemExit, match="max_steps was 14 and is 10"):
        command()


@pytest.mark.slow
def test_an_adapter_to_go_on_from_that_was_trained_anew_is_another_one(
    training: TrainingConfig, command: Callable[..., Path]
) -> None:
    base = command(output=training.output + "-base").parent / "adapter"
    command(init_from=str(base))
    weights = base / "projector.safetensors"
    adapters.save_tensors({name: value + 1 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(SystemExit, match="init_from was run-base .* and is run-base"):
        command(init_from=str(base))


@pytest.mark.slow
def test_one_answer_that_is_far_too_long_is_left_out_and_told(
    training: TrainingConfig, command: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    table = parquet.read_table(Path(training.data) / "tiny.parquet").to_pylist()
    table.append(table[0] | {"answer": "word " * 3000})
    parquet.write_table(pa.Table.from_pylist(table), Path(training.data) / "tiny.parquet")
    longest: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        forward = VisionLanguageModel.forward
        patch.setattr(
            VisionLanguageModel,
            "forward",
            lambda self, input_ids, **more: (
                longest.append(input_ids.shape[1]) or forward(self, input_ids, **more)
            ),
        )
        command(max_tokens=60)
    assert (
        f"1 rows have more than 60 tokens (max_tokens of the preset) and are left out: tiny.parquet, row {len(table)}"
        in caplog.text
    )
    assert max(longest) < 60 + 4 + 200


def test_a_conversation_has_at_most_so_many_tokens_and_a_source_of_long_rows_is_told(data: Path) -> None:
    model = tiny_model()
    whole = conversations(data, model, sources=[SourceConfig("tiny", turns=3)])
    texts = [sum(len(turn.question + turn.answer) for turn in asked) for asked in whole.examples]
    assert max(texts) > 50
    cut = conversations(data, model, sources=[SourceConfig("tiny", turns=3)], max_tokens=50)
    kept = [sum(len(turn.question + turn.answer) for turn in asked) for asked in cut.examples]
    assert 0 < min(kept) <= max(kept) <= 50 and len(cut) == len(whole)
    with pytest.raises(UserError, match="no question of tiny has at most 3 tokens"):
        conversations(data, model, max_tokens=3)


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_no_checkpoint(
    training: TrainingConfig, command: Callable[..., Path], unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = adapters.save_tensors

    def save_or_not(tensors: dict, file: Path, metadata: dict | None = None) -> None:
        if "checkpoint-8" in str(file):
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save(tensors, file, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "save_tensors", save_or_not)
        with pytest.raises(
            SystemExit, match=r"finetune: The disk is full.*free at least 1 GB.*last checkpoint"
        ):
            command()
    joint = Path(training.output) / "joint"
    assert last_whole_checkpoint(joint) == str(joint / "checkpoint-4")
    assert [path.name for path in joint.iterdir()] == ["checkpoint-4"]
    assert command() == joint
    for file in ("projector.safetensors", "lora/adapter_model.safetensors"):
        one, other = load_file(joint / "adapter" / file), load_file(unbroken / "adapter" / file)
        assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one), file


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_end_leaves_the_adapter_from_before(
    training: TrainingConfig, command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    command()
    last = Path(training.output) / "adapter"
    (last / "limits.md").write_text("Written by hand.")

    def save(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(adapters, "save_tensors", save)
    with pytest.raises(SystemExit, match="disk is full"):
        command(lora_share=0.5)
    assert (last / "limits.md").read_text() == "Written by hand."
    assert not [path for path in last.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_gpu_that_is_full_keeps_the_checkpoint_and_smaller_batches_go_on_from_it(
    training: TrainingConfig, command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = AdapterTrainer.training_step

    def step_or_not(self: AdapterTrainer, *arguments: object) -> torch.Tensor:
        if self.state.global_step == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "training_step", step_or_not)
        with pytest.raises(
            SystemExit, match=r"finetune: The memory of the GPU is full: .*last checkpoint, which is kept"
        ):
            command()
    joint = command(batch_size=1, gradient_accumulation=2)
    assert find_adapter(str(joint / "adapter"))
    lines = [json.loads(line) for line in (joint.parent / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["stage"] == "joint" and "loss" in line]
    assert steps == list(range(1, 11))  # what came after the checkpoint is forgotten, and logged again


def test_a_disk_that_is_full_leaves_whole_shards_of_features(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(file: Path, content: bytes) -> int:
        file.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(OSError, match="No space"):
            store_of(data, tiny_model())
    store = FeatureStore(data, tiny_config().vision)
    assert [path.name for path in store.folder.iterdir()] == ["encoder.json"]
    assert len(store_of(data, tiny_model())) == len(COLOURS)

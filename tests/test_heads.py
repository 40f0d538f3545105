"""One trunk and its tasks: what may look at what, and that each task learns."""

import errno
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from tests.test_training import png
from tests.tiny import TinyVision, picture
from tests.tiny_alignment import tiny_text
from training import heads
from training.config import PRESET_FOLDER
from training.data import Row
from training.heads import TasksConfig
from training.runs import resources
from training.tasks.data import Example, TaskSteps, Vocabulary, WordPieces, check_tasks, examples_of
from training.tasks.scores import score_tasks
from vlm.config import TextConfig
from vlm.config_reader import PartConfig, load_preset
from vlm.errors import UserError
from vlm.model.adapter import TASKS_FILE, load_trunk
from vlm.model.connectors import build_connector
from vlm.model.connectors.q_former import QFormer
from vlm.model.heads import TASKS
from vlm.model.heads.caption import Caption
from vlm.model.heads.matching import hard_negatives
from vlm.model.heads.multi_task import WEIGHTINGS, MultiTask, build_multi_task
from vlm.model.heads.retrieval import similarities
from vlm.model.heads.task import TaskBatch, bidirectional_mask, causal_mask, unimodal_mask
from vlm.model.heads.weighting import FixedWeights, Uncertainty
from vlm.weights.tensor_files import save_tensors

SETTINGS = {"queries": 2, "layers": 2, "width": 16, "heads": 2}
TEXT = tiny_text()
TEXT.tokenizer.backend_tokenizer.post_processor = (
    TemplateProcessing(  # as BERT's: a first and a last word piece
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
)
PIECES = WordPieces(TEXT.tokenizer, 32)
WORDS = len(TEXT.tokenizer) + 1
COLOURS = ("red", "lime", "blue", "white")
ANSWERS = ("red", "green", "blue", "white")
PRESENT = torch.tensor([[True, True, True], [True, True, False]])  # the second text has a piece less


def rows_of(mask: Tensor) -> list[str]:
    return ["".join("x" if each else "." for each in row) for row in mask.tolist()]


def test_for_contrast_queries_and_words_do_not_see_each_other() -> None:
    whole, shorter = unimodal_mask(2, PRESENT)
    assert rows_of(whole) == ["xx...", "xx...", "..xxx", "..xxx", "..xxx"]
    assert rows_of(shorter) == ["xx...", "xx...", "..xx.", "..xx.", "..xx."]


def test_for_matching_all_see_all_that_is_there() -> None:
    whole, shorter = bidirectional_mask(2, PRESENT)
    assert rows_of(whole) == ["xxxxx"] * 5
    assert rows_of(shorter) == ["xxxx."] * 5


def test_for_captions_words_see_queries_and_what_stands_before_them() -> None:
    whole, shorter = causal_mask(2, PRESENT)
    assert rows_of(whole) == ["xx...", "xx...", "xxx..", "xxxx.", "xxxxx"]
    assert rows_of(shorter) == ["xx...", "xx...", "xxx..", "xxxx.", "xxxx."]


def trunk_of(width: int = 16, layers: int = 2) -> QFormer:
    torch.manual_seed(0)
    settings = SETTINGS | {"width": width, "layers": layers, "vocabulary": WORDS, "text_length": 32}
    trunk = build_connector(PartConfig("q-former", settings), TinyVision.feature_size, 32)
    assert isinstance(trunk, QFormer)
    return trunk


def features_of(names: Sequence[str] = COLOURS) -> Tensor:
    torch.manual_seed(1)
    return 10 * TinyVision().see([picture(name) for name in names])


def batch_of(texts: Sequence[str], targets: Tensor | None = None) -> TaskBatch:
    return TaskBatch(features_of(), *TEXT.tokenize(texts), targets)


def test_masks_keep_from_a_side_what_it_is_not_to_know() -> None:
    """Through the real blocks: another text changes nothing of the queries, another later word nothing of a word."""
    trunk = trunk_of().eval()
    one, other = batch_of(["red", "lime", "blue", "grey"]), batch_of(["RED", "LIME", "BLUE", "grey"])
    mask = unimodal_mask(2, one.present)
    states = [trunk.read(each.patch_features, each.ids, mask) for each in (one, other)]
    assert torch.equal(states[0][:, :2], states[1][:, :2]) and not torch.equal(*states)
    later = one.ids.clone()
    later[:, 2] += 1
    states = [trunk.read(one.patch_features, ids, causal_mask(2, one.present)) for ids in (one.ids, later)]
    assert torch.allclose(states[0][:, :4], states[1][:, :4], atol=1e-6)
    assert not torch.allclose(states[0][:, 4:], states[1][:, 4:], atol=1e-3)


def test_a_hard_negative_is_another_than_the_own_and_the_likeliest_comes_most_often() -> None:
    likeness = torch.tensor([[50.0, 3.0, 0.0], [0.0, 50.0, 3.0], [3.0, 0.0, 50.0]])
    drawn = torch.stack([hard_negatives(likeness) for _ in range(400)])
    assert not (drawn == torch.arange(3)).any()
    share = (drawn == torch.tensor([1, 2, 0])).float().mean()
    assert share == pytest.approx(math.exp(3) / (1 + math.exp(3)), abs=0.03)


def test_a_picture_is_as_like_a_text_as_its_likest_query() -> None:
    pictures = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [-1.0, 0.0]]])
    texts = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    assert similarities(pictures, texts).tolist() == [[1.0, 0.0], [pytest.approx(0.6), 0.0]]


def train(model: MultiTask, batches: dict[str, TaskBatch], steps: int) -> None:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.weighting(model.losses(batches)).backward()
        optimizer.step()
    model.eval()


def examples() -> dict[str, list[Example]]:
    captions = [Example(name, (f"a {name}",)) for name in COLOURS]
    questions = [Example(name, ("color?",), (answer,)) for name, answer in zip(COLOURS, ANSWERS, strict=True)]
    return {"retrieval": captions, "matching": captions, "caption": captions, "vqa": questions}


def scores_of(model: MultiTask) -> dict:
    stored = dict(zip(COLOURS, features_of(), strict=True))
    asked = {task: each for task, each in examples().items() if task in model.heads}
    return score_tasks(model, asked, stored.__getitem__, PIECES, Vocabulary(ANSWERS))


@pytest.mark.slow
def test_the_first_stage_overfits_four_rows() -> None:
    """Contrast, matching and captions together, over one trunk."""
    weights = {"retrieval": 1.0, "matching": 1.0, "caption": 1.0}
    model = build_multi_task(trunk_of(width=32, layers=4), weights, "fixed", 0)
    batch = batch_of([f"a {name}" for name in COLOURS])
    train(model, {"retrieval": batch, "matching": batch, "caption": batch}, steps=200)
    found = scores_of(model)
    assert found["retrieval"]["i2t_recall@1"] == found["retrieval"]["t2i_recall@1"] == 1
    assert found["matching"]["share"] == 1
    assert found["caption"]["examples"] == [f"a {name}" for name in COLOURS]


@pytest.mark.slow
def test_a_classifier_of_answers_overfits_four_rows() -> None:
    model = build_multi_task(trunk_of(), {"vqa": 1.0}, "fixed", len(ANSWERS))
    train(model, {"vqa": batch_of(["color?"] * 4, torch.eye(4))}, steps=100)
    assert scores_of(model)["vqa"]["right"] == 4


@pytest.mark.slow
def test_captions_questions_and_search_are_learned_over_one_trunk() -> None:
    weights = {"caption": 1.0, "vqa": 2.0, "retrieval": 1.0}
    model = build_multi_task(trunk_of(), weights, "uncertainty", len(ANSWERS))
    captions = batch_of([f"a {name}" for name in COLOURS])
    questions = batch_of(["color?"] * 4, torch.eye(4))
    train(model, {"caption": captions, "vqa": questions, "retrieval": captions}, steps=200)
    found = scores_of(model)
    assert found["vqa"]["right"] == 4 and found["retrieval"]["t2i_recall@1"] == 1
    assert found["caption"]["examples"] == [f"a {name}" for name in COLOURS]
    assert all(model.weighting.shares()[task] != weight for task, weight in weights.items())


def test_fixed_weights_are_kept_and_learned_ones_find_the_losses_inverse() -> None:
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(0.5)}
    fixed = FixedWeights({"a": 1.0, "b": 3.0})
    assert fixed(losses).item() == pytest.approx(3.5)
    learned = Uncertainty({"a": 1.0, "b": 1.0})
    assert learned(losses).item() == pytest.approx(2.5)
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        learned(losses).backward()
        optimizer.step()
    # where the derivative of loss * exp(-s) + s / 2 is nothing, exp(-s) is 1 / (2 * loss)
    assert learned.shares() == {"a": pytest.approx(0.25, rel=0.01), "b": pytest.approx(1.0, rel=0.01)}


def row(picture: str, question: str, answer: str, task: str = "vqa", **more: object) -> Row:
    known = {"source": "tiny", "kind": "", "noun": "", "accepted": ()}
    return Row(picture, question, answer, task=task, **(known | more))  # type: ignore[arg-type]


def test_rows_become_captions_and_short_questions() -> None:
    found = examples_of(
        [
            row("1", "Describe.", "A dog.", "describe", references=("A dog.", "One dog.")),
            row("2", "How many?", "Two.", "count"),
            row("2", "What is it?", "It is a very long answer.", "vqa"),
            row("2", "Is there a dog?", "Yes, there is a dog.", "yes"),
        ]
    )
    assert found["captions"] == [Example("1", ("A dog.", "One dog."))]
    assert found["questions"] == [Example("2", ("How many?",), ("2",))]


def test_a_vocabulary_counts_the_questions_that_it_has_no_answer_to() -> None:
    questions = [Example("1", ("?",), (answer,)) for answer in ("red", "red", "blue", "blue", "teal", "puce")]
    vocabulary = Vocabulary.of(questions, 2)
    assert vocabulary.answers == ["blue", "red"]
    assert vocabulary.lacking(questions) == (
        "The vocabulary of 2 answers lacks those of 2 of 6 questions (33%), such as teal, puce."
    )
    assert not vocabulary.lacking(questions[:4])
    both = Example("1", ("?",), ("red", "blue", "teal"))
    assert vocabulary.targets([both, questions[0]]).tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_an_answer_that_the_vocabulary_lacks_counts_as_wrong() -> None:
    model = build_multi_task(trunk_of(), {"vqa": 1.0}, "fixed", len(ANSWERS)).eval()
    stored = dict(zip(COLOURS, features_of(), strict=True))
    asked = [Example("red", ("color?",), ("puce",)), Example("lime", ("color?",), ANSWERS)]
    found = score_tasks(model, {"vqa": asked}, stored.__getitem__, PIECES, Vocabulary(ANSWERS))
    assert found["vqa"]["lacking"] == 1 and (found["vqa"]["right"], found["vqa"]["of"]) == (1, 2)


def test_a_task_without_data_is_refused() -> None:
    known = {"captions": [Example("1", ("a",))] * 3, "questions": []}
    check_tasks(["retrieval", "caption"], known, ["tiny"])
    with pytest.raises(
        UserError, match="'vqa' learns from pictures with questions, and the sources tiny have 0"
    ):
        check_tasks(["caption", "vqa"], known, ["tiny"])
    with pytest.raises(UserError, match="no task 'counting'. Valid: retrieval"):
        check_tasks(["counting"], known, ["tiny"])


@pytest.mark.parametrize(
    ("weights", "weighting", "told"),
    [
        ({"caption": 0.0}, "fixed", "a weight above 0"),
        ({}, "fixed", "a weight above 0"),
        ({"caption": 1.0}, "equal", "no weighting 'equal'. Valid: fixed, uncertainty"),
    ],
)
def test_wrong_weights_of_tasks_are_named(weights: dict[str, float], weighting: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_multi_task(trunk_of(), weights, weighting, 1)


def test_steps_are_the_same_in_every_run_and_no_picture_comes_twice_in_one() -> None:
    stored = dict(zip(COLOURS, features_of(), strict=True))

    def laid_out() -> TaskSteps:
        vocabulary = Vocabulary(ANSWERS)
        return TaskSteps(
            examples(), stored.__getitem__, TEXT.tokenize, vocabulary, batch_size=3, steps=5, seed=0
        )

    once, again = laid_out(), laid_out()
    assert len(once) == 5
    assert torch.equal(once[3]["vqa"]["targets"], again[3]["vqa"]["targets"])
    assert torch.equal(once[3]["caption"]["ids"], again[3]["caption"]["ids"])
    assert not torch.equal(once[3]["caption"]["ids"], once[2]["caption"]["ids"])
    assert len(once[0]["retrieval"]["patch_features"].unique(dim=0)) == 3


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TasksConfig:
    """Four pictures with a caption and a question each, and the tiny encoders."""
    rows = []
    for name, answer in zip(COLOURS, ANSWERS, strict=True):
        known = {"image": {"bytes": png(picture(name)), "path": ""}, "source": "tiny"}
        captioned = {
            "question": "Describe.",
            "answer": f"a {name}",
            "references": [f"a {name}"],
            "task": "describe",
        }
        asked = {"question": "color?", "answer": answer, "references": [], "task": "vqa"}
        for split in ("train", "validation"):
            rows += [known | each | {"split": split} for each in (captioned, asked)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "tiny.parquet")
    monkeypatch.setattr(heads, "build_encoder", lambda config, device: TinyVision())
    monkeypatch.setattr(heads, "load_words", lambda weights: TEXT.tokenizer)  # and no encoder is loaded
    return TasksConfig(
        data=str(tmp_path),
        output=str(tmp_path / "run"),
        sources=("tiny",),
        trunk=PartConfig("q-former", SETTINGS),
        embedding_size=32,
        text=TextConfig(max_length=32),
        tasks={"retrieval": 1.0, "matching": 1.0, "caption": 1.0, "vqa": 1.0},
        batch_size=4,
        steps=4,
        warmup_steps=1,
        logging_steps=1,
        save_steps=2,
    )


def test_a_source_that_the_data_lacks_is_told_before_an_encoder_is_loaded(
    config: TasksConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "build_encoder", None)
    with pytest.raises(UserError, match="no source mine. It has: tiny"):
        heads.run(replace(config, sources=("tiny", "mine")))


def test_matching_needs_another_picture_in_the_batch(config: TasksConfig) -> None:
    with pytest.raises(UserError, match="'matching' tells .* Set batch_size to 2 or more"):
        heads.run(replace(config, batch_size=1))


def test_what_is_trained_is_kept_though_its_scores_fail(
    config: TasksConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "train", lambda *_: None)
    monkeypatch.setattr(heads, "score_tasks", Mock(side_effect=RuntimeError("scored")))
    with pytest.raises(RuntimeError, match="scored"):
        heads.run(config)
    assert (Path(config.output) / TASKS_FILE).is_file()


def test_a_caption_is_no_longer_than_a_text_may_be() -> None:
    trunk = build_connector(
        PartConfig("q-former", SETTINGS | {"vocabulary": WORDS, "text_length": 5}),
        TinyVision.feature_size,
        32,
    )
    assert isinstance(trunk, QFormer)
    written = Caption(16, WORDS).write(trunk.eval(), features_of(), end=-1)
    assert [len(row) for row in written] == [5] * len(COLOURS)


def test_a_folder_of_another_run_is_refused_before_a_picture_is_encoded(
    config: TasksConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "FeatureStore", Mock(side_effect=RuntimeError("encoded")))
    with pytest.raises(RuntimeError, match="encoded"):
        heads.run(config)
    with pytest.raises(UserError, match="other settings: learning_rate"):
        heads.run(replace(config, learning_rate=1.0))


def test_a_disk_that_is_full_may_be_that_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr(resources, "free_bytes", lambda folder: 0 if folder == data else 10**12)
    monkeypatch.setattr(heads, "run", Mock(side_effect=OSError(errno.ENOSPC, "full")))
    monkeypatch.setattr(sys, "argv", ["heads", "--data", str(data), "--output", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match=f"0.0 GB are free for {data}"):
        heads.main()


@pytest.mark.slow
def test_the_command_trains_goes_on_and_begins_a_connector(config: TasksConfig) -> None:
    metrics = heads.run(config)
    assert set(metrics) == set(config.tasks)
    folder = Path(config.output)
    assert {path.name for path in folder.iterdir()} >= {
        "projector.safetensors", "heads.safetensors", "answers.json", "metrics.json",
    }  # fmt: skip
    heads.run(config)  # from its last checkpoint, which is the end
    connector = build_connector(PartConfig("q-former", SETTINGS), TinyVision.feature_size, 32)
    fresh = {name: each.clone() for name, each in connector.state_dict().items()}
    load_trunk(connector, folder)
    state = connector.state_dict()
    assert torch.equal(state["outward.weight"], fresh["outward.weight"])
    assert not torch.equal(state["queries"], fresh["queries"]) and not torch.equal(
        state["normalise.mean"], fresh["normalise.mean"]
    )
    other = build_connector(PartConfig("q-former", SETTINGS | {"layers": 3}), TinyVision.feature_size, 32)
    with pytest.raises(UserError, match="damaged or incomplete.*other settings"):
        load_trunk(other, folder)
    with pytest.raises(UserError, match="has no projector.safetensors"):
        load_trunk(connector, folder / "gone")
    reads = {"vocabulary": WORDS, "text_length": 32, "instructions": "tiny"}
    instructed = build_connector(PartConfig("q-former", SETTINGS | reads), TinyVision.feature_size, 32)
    load_trunk(instructed, folder)  # and how to read text
    trained = load_file(folder / TASKS_FILE)["trunk.text.words.weight"]
    assert torch.equal(instructed.state_dict()["text.words.weight"], trained)


@pytest.mark.parametrize("name", ["q-former", "multi-task", "vqa"])
def test_a_shipped_preset_parses_and_names_tasks(name: str) -> None:
    folder = PRESET_FOLDER / "heads"
    config = load_preset(
        TasksConfig, name, folder, "training preset", " of heads", {"steps": 3, "data": None}
    )
    assert config.steps == 3 and config.data == "data/embedded"
    assert set(config.tasks) <= set(TASKS) and min(config.tasks.values()) > 0
    assert config.weighting in WEIGHTINGS


def test_tensors_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "heads.safetensors"
    save_tensors({"a": torch.ones(4)}, file)
    whole = file.read_bytes()

    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as target:
            target.write(content[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        save_tensors({"a": torch.zeros(4)}, file)
    assert file.read_bytes() == whole and list(tmp_path.iterdir()) == [file]

"""An aligner is trained on real modules: pairs laid out for good, checkpoints, exact recovery, log, plots, processes."""

import io
import os
import pickle
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save

from tests.forking import end_of_fork, ends_of_forks
from tests.tiny_alignment import (
    TINY,
    colours,
    tiny_aligner,
    tiny_clip,
    tiny_text,
    tiny_training,
    use_tiny_parts,
    write_pairs,
)
from training import align
from training.aligners import plots as align_plots
from training.aligners.pairs import Captioned, PairData, Pairs, read_pairs
from training.aligners.picture_file import PictureFile
from training.aligners.sides import prepare, sides, texts_of
from training.aligners.token_store import TokenStore
from training.aligners.trainer import AlignerTrainer
from training.aligners.validation import Validation, first_places, loss_of_first
from training.config import AlignmentConfig, PairSource, load_alignment_config
from training.data.augmentation import AugmentationConfig
from training.runs.log_lines import LOG, log_lines
from vlm.chat.search import TEMPLATES
from vlm.config import TextConfig, load_aligner_config
from vlm.errors import UserError
from vlm.model.aligner import Aligner
from vlm.model.alignment import restore_aligner
from vlm.model.embeddings import Precomputed, StoredEmbeddings
from vlm.model.pooling import build_head
from vlm.model.text_encoders import TokenFeatures, pad
from vlm.model.tiles import Tiled


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AlignmentConfig]:
    for name in ("load_aligner_config", "build_aligner", "draw_all", "report"):
        monkeypatch.setattr(align, name, getattr(align, name))  # and are put back after the test
    use_tiny_parts()
    (tmp_path / "data").mkdir()
    yield tiny_training(write_pairs(tmp_path / "data"), tmp_path / "run")


def laid_out(**changes: object) -> Pairs:
    pictures = [Captioned(str(number), "tiny") for number in range(200)]
    texts = {each.picture: [f"text {each.picture}", f"words {each.picture}"] for each in pictures}
    options = {"epochs": 2, "text_dropout": 0.0, "augmentation": AugmentationConfig(), "seed": 0}
    return Pairs(pictures, texts, [PairSource("tiny", 1.5)], **options | changes)  # type: ignore[arg-type]


def test_pairs_are_the_same_in_every_run_and_others_in_every_epoch() -> None:
    assert laid_out().pairs == laid_out().pairs != laid_out(seed=1).pairs
    pairs = laid_out().pairs
    half = len(pairs) // 2
    assert [pair.text for pair in pairs[:half]] != [pair.text for pair in pairs[half : 2 * half]]
    assert sorted(Counter(pair.view for pair in pairs).values())[0] >= 2  # each picture in each epoch
    assert len(pairs) == pytest.approx(2 * 1.5 * 200, rel=0.1)


def test_a_text_that_says_left_or_right_has_no_mirrored_or_cropped_view() -> None:
    def views_of(text: str) -> set[str]:
        config, picture = AugmentationConfig(views=1, flip=1.0), [Captioned("1", "tiny")]
        options = {"epochs": 30, "text_dropout": 0.0, "augmentation": config, "seed": 0}
        return {pair.view for pair in Pairs(picture, {"1": [text]}, [PairSource("tiny")], **options).pairs}  # type: ignore

    assert len(views_of("A cup.")) == 2 and views_of("A cup to the Right.") == {"1"}


def test_text_dropout_takes_the_share_of_texts_that_it_says() -> None:
    assert all(pair.has_text for pair in laid_out().pairs)
    dropped = [not pair.has_text for pair in laid_out(epochs=10, text_dropout=0.2).pairs]
    assert sum(dropped) / len(dropped) == pytest.approx(0.2, abs=0.03)


def test_captions_come_before_names_and_names_before_things() -> None:
    picture = Captioned(
        "1", "tiny", name="cat", names=("tabby",), captions=["A cat sleeps."], things={"sofa"}
    )
    assert picture.texts() == ["A cat sleeps."]
    picture.captions = []
    named = [template.format(name) for name in ("cat", "tabby") for template in TEMPLATES]
    assert picture.texts() == named
    assert picture.texts(frozenset({"tabby"})) == named[: len(TEMPLATES)]
    assert picture.texts(frozenset({"cat"})) == []  # nor by its other names
    picture.name = ""
    assert picture.texts() == ["sofa"] * 3 and picture.texts(frozenset({"sofa"})) == []


def test_rows_without_text_and_broken_pictures_are_counted_and_skipped(tmp_path: Path) -> None:
    good = write_pairs(tmp_path)
    rows = parquet.read_table(good / "tiny.parquet").to_pylist()
    nothing = rows[0] | {"references": [], "answer": " ", "split": "train"}
    nothing["image"] = {"bytes": rows[2]["image"]["bytes"] + b" ", "path": "nothing.png"}
    broken = rows[0] | {"image": {"bytes": b"no picture", "path": "broken.png"}, "split": "train"}
    lacking = [rows[0] | {"answer": None}, rows[0] | {"image": {"bytes": None, "path": "none.png"}}]
    parquet.write_table(
        pa.Table.from_pylist([*rows, nothing, broken, broken, *lacking]), good / "tiny.parquet"
    )
    data = read_pairs(good, ["tiny"], 0.0)
    lacks = "rows without a picture's bytes or without words"
    assert data.skipped == {"broken pictures": 1, "pictures without text": 1, lacks: 2}
    assert len(data.train) == len(data.held_out) == 8 and not data.validation
    nothing_there = PairData([], [], [], Counter({"pictures without text": 0}))
    assert read_pairs(good, ["absent"], 0.0) == nothing_there


def test_an_answer_is_a_caption_only_where_a_description_was_asked_for(tmp_path: Path) -> None:
    rows = parquet.read_table(write_pairs(tmp_path) / "tiny.parquet").to_pylist()
    first, second, *_ = [row | {"references": []} for row in rows if row["split"] == "train"]
    asked = [
        first | {"question": "Describe the picture.", "answer": "All red."},
        first | {"question": "Is it red?", "answer": "Yes."},
        second | {"question": "How many?", "answer": "Two."},
    ]
    parquet.write_table(pa.Table.from_pylist(asked), tmp_path / "tiny.parquet")
    data = read_pairs(tmp_path, ["tiny"], 0.0)
    assert [each.captions for each in data.train] == [["All red."]]
    assert data.skipped == {"pictures without text": 1}


def test_the_first_text_of_each_picture_and_its_loss_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_places([0, 0, 1, 2, 2]) == [0, 2, 3]
    aligner = tiny_aligner()
    pictures, texts = (torch.nn.functional.normalize(torch.rand(6, 8), dim=-1) for _ in range(2))
    parts = [
        loss_of_first(aligner, "infonce", pictures[rows], texts[rows]) for rows in (slice(4), slice(4, 6))
    ]
    monkeypatch.setattr("training.aligners.validation.CONTRASTED", 4)
    found = loss_of_first(aligner, "infonce", pictures, texts)
    for name, value in found.items():
        assert value == pytest.approx((4 * parts[0][name] + 2 * parts[1][name]) / 6), name


def test_token_features_are_computed_once_and_survive_a_restart(tmp_path: Path) -> None:
    encoder, config = tiny_text(), TextConfig()
    early, store = TokenStore(tmp_path, config), TokenStore(tmp_path, config)
    store.add(["red", "all blue"], encoder)
    early.add(["red"], None)  # type: ignore[arg-type]  # what another run has written since is read
    again = TokenStore(tmp_path, config)
    again.add(["red"], None)  # type: ignore[arg-type]  # no encoder is needed
    again.add(["lime green"], encoder)
    for text in ("red", "all blue", "lime green"):
        expected = encoder.read([text]).features[0]
        assert torch.allclose(TokenStore(tmp_path, config)[text].float(), expected, atol=1e-2), text
    file = store.folder / "shard-00000.safetensors"
    whole = file.read_bytes()
    for damaged in (b"", whole[:40], save({"features": torch.zeros(1, 8)})):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="holds no texts .*Remove it; they are computed again"):
            TokenStore(tmp_path, config)
    padded, mask = pad([again["red"], again["all blue"]])
    assert padded.shape == (2, 8, 8) and mask.sum(1).tolist() == [3, 8]


def test_token_features_that_were_written_before_a_kill_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.aligners.token_store.SHARD_SIZE", 2)
    encoder, config, asked = tiny_text(), TextConfig(), list[str]()
    read = encoder.read

    def killed_at_the_last(texts: list[str]) -> TokenFeatures:
        asked.extend(texts)
        if "all lime" in texts:
            raise KeyboardInterrupt
        return read(texts)

    monkeypatch.setattr(encoder, "read", killed_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        TokenStore(tmp_path, config).add(["red", "blue", "all lime"], encoder)
    monkeypatch.setattr(encoder, "read", lambda texts: (asked.extend(texts), read(texts))[1])
    store = TokenStore(tmp_path, config)
    store.add(["red", "blue", "all lime"], encoder)
    assert asked == ["red", "blue", "all lime", "all lime"]
    sent = pickle.loads(pickle.dumps(store))
    assert all(torch.equal(sent[text], store[text]) for text in asked)


def test_pictures_that_an_encoder_trains_on_wait_on_the_disk(tmp_path: Path) -> None:
    kept = PictureFile([("one", b"1"), ("two", b"22"), ("one", b"1"), ("none", b"")], tmp_path)
    assert list(kept.items()) == [("one", b"1"), ("two", b"22"), ("none", b"")]
    place = kept.file.tell()
    assert kept["one"] == b"1" and kept.file.tell() == place and not list(tmp_path.iterdir())


def test_statistics_are_those_of_every_tile(training: AlignmentConfig) -> None:
    vision, config = Tiled(tiny_clip("grid", -1), 2), replace(TINY, class_texts=())
    heads = build_head(config.picture_head, 8, 8), build_head(config.text_head, 8, 8)
    aligner, pictures = (
        Aligner(config, vision, tiny_text(), *heads),
        dict(zip("123", colours(), strict=False)),
    )
    known = [Captioned(name, "tiny") for name in pictures]
    prepare(
        aligner, training, known, dict.fromkeys(pictures, ["a text"]),
        lambda name: vision.preprocess(pictures[name]), lambda text: aligner.text.tokenize([text])[0][0],
    )  # fmt: skip
    features = vision.see(list(pictures.values()))
    assert torch.allclose(aligner.picture_head.normalise.mean, features.mean((0, 1)), atol=1e-5)


def run_to_the_end(config: AlignmentConfig) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    folder = align.run(config)
    return load_file(folder / "heads.safetensors"), list(log_lines(Path(config.output) / LOG))


@pytest.mark.slow
def test_a_run_learns_its_pairs_and_leaves_aligner_log_checkpoints_and_plots(
    training: AlignmentConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = parquet.read_table(Path(training.data) / "tiny.parquet").to_pylist()[:1]
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(whole, "JPEG")
    broken.append(broken[0] | {"image": {"bytes": whole.getvalue()[:-900], "path": "cut off.jpg"}})
    broken[0]["image"] = {"bytes": b"no picture", "path": "none.jpg"}
    parquet.write_table(pa.Table.from_pylist(broken), Path(training.data) / "broken.parquet")
    config = replace(
        training, epochs=30, head_dropout=0.0, feature_noise=0.0, keep_every=20, validation_share=0.5
    )
    config = replace(config, save_steps=10, validation_steps=10, text_dropout=0.0)
    before = {name: each.clone() for name, each in tiny_aligner().state_dict().items()}
    _, log = run_to_the_end(config)
    assert "skipped, broken pictures: 2" in caplog.text
    output = Path(config.output)
    values = {(line["step"], name): value for line in log for name, value in line.items()}
    steps = max(step for step, _ in values)
    assert values[steps, "loss"] < 0.5 * values[1, "loss"]
    logged = {"clip_loss", "matryoshka_loss", "learning_rate", "scale", "eval_loss", "eval_modality_gap"}
    assert {name for _, name in values} >= logged | {"eval_t2i_recall@1", "eval_i2t_recall@10"}
    rates = {step: value for (step, name), value in values.items() if name == "learning_rate"}
    assert max(rates.values()) == config.learning_rate
    assert max(rates, key=rates.__getitem__) == pytest.approx(0.1 * steps, abs=2)
    assert values[steps, "learning_rate"] < 0.01 * config.learning_rate
    kept = {path.name for path in output.glob("checkpoint-*")}
    assert f"checkpoint-{steps}" in kept and len(kept) <= 2  # the latest and the best
    assert (output / "aligner-20" / "heads.safetensors").is_file()
    plots = {
        "loss",
        "parts",
        "learning_rate",
        "temperature",
        "modality_gap",
        "recall",
        "space",
        "similarities",
    }
    monkeypatch.setattr(sys, "argv", ["align_plots", str(output)])
    align_plots.main()
    assert {path.stem for path in (output / "plots").glob("*.png")} == plots | {"recall_by_dimension"}
    unmoved = {"bias", "picture_head.pooling.queries"}  # SigLIP's; all cells of a plain picture are alike
    after = tiny_aligner()
    restore_aligner(after, output / "aligner")
    for name, each in after.named_parameters():
        frozen = name.startswith(("vision.", "text."))
        assert torch.equal(each, before[name]) == (frozen or name in unmoved), name


@pytest.mark.parametrize(
    "changes", [{"stage": "full"}, {"loss": "siglip"}, {"matryoshka": "all"}, {"chunk_size": 0}]
)
@pytest.mark.slow
def test_every_stage_and_loss_trains(training: AlignmentConfig, changes: dict[str, object]) -> None:
    weights, log = run_to_the_end(replace(training, epochs=12, **changes))  # type: ignore[arg-type]
    losses = [line["loss"] for line in log if "loss" in line]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert any(name.startswith("vision.") for name in weights) == (changes.get("stage") == "full")


def test_the_best_step_of_those_that_are_saved_is_kept(
    training: AlignmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, loaded = iter([3.0, 2.0, 1.0, 1.5, 1.8]), []
    monkeypatch.setattr(Validation, "scores", lambda *_: {"loss": next(losses, 9.0)})
    monkeypatch.setattr(
        AlignerTrainer, "_load_best_model", lambda self: loaded.append(self.state.best_model_checkpoint)
    )
    align.run(replace(training, validation_steps=1, save_steps=2, keep_every=0))
    assert [Path(each).name for each in loaded] == ["checkpoint-4"]


def ending(method: str, step: int, end: Callable[[], None]) -> Callable[..., Any]:
    """The method of the Trainer; called after so many steps, it calls `end` first."""
    original = getattr(AlignerTrainer, method)

    def ended(self: AlignerTrainer, *arguments: Any) -> Any:
        if self.state.global_step == step:
            end()
        return original(self, *arguments)

    return ended


def interrupt(training: AlignmentConfig, method: str, step: int) -> None:
    def end() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AlignerTrainer, method, ending(method, step, end))
        align.run(training)


def kill(training: AlignmentConfig, method: str, step: int) -> None:
    def run() -> None:
        killed = ending(method, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
        setattr(AlignerTrainer, method, killed)
        align.run(training)

    assert end_of_fork(run) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "method", "step", "stage", "watched"),
    [
        (interrupt, "training_step", 5, "heads", 2),
        (kill, "_save_optimizer_and_scheduler", 4, "heads", 2),  # the checkpoint is half written
        (interrupt, "training_step", 7, "full", 1),
    ],
)
def test_a_killed_run_ends_bit_for_bit_where_an_unbroken_one_ends(
    training: AlignmentConfig,
    end: Callable[[AlignmentConfig, str, int], None],
    method: str,
    step: int,
    stage: str,
    watched: int,
) -> None:
    training = replace(training, stage=stage, validation_steps=watched)
    unbroken, log = run_to_the_end(replace(training, output=training.output + "-unbroken"))
    end(training, method, step)
    resumed, log_again = run_to_the_end(training)
    assert unbroken.keys() == resumed.keys()
    for name, weight in unbroken.items():
        assert torch.equal(weight, resumed[name]), name
    assert log_again == log


@pytest.mark.slow
def test_workers_that_decode_pictures_change_nothing(
    training: AlignmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = replace(training, stage="full", augmentation=AugmentationConfig(views=1), epochs=4)
    alone, log = run_to_the_end(replace(training, output=training.output + "-alone"))
    monkeypatch.setattr("training.aligners.trainer.workers_for", lambda config: 2)
    together, log_of_workers = run_to_the_end(training)
    assert all(torch.equal(weight, together[name]) for name, weight in alone.items())
    assert log_of_workers == log


@pytest.mark.slow
def test_a_run_whose_checkpoint_counts_weights_without_a_use_goes_on(
    training: AlignmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of earlier versions do, which trained the text encoder's pooler in name."""

    def build(*given: Any) -> Aligner:
        aligner = tiny_aligner()
        aligner.text = tiny_text(pooler=True)
        return aligner

    monkeypatch.setattr(align, "build_aligner", build)
    training = replace(training, stage="full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Aligner, "_without_use", lambda self: [])
        interrupt(training, "training_step", 5)
    weights, log = run_to_the_end(training)
    assert max(line["step"] for line in log) > 5 and "text.network.pooler.dense.weight" in weights


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss": "sig"}, "There is no loss 'sig'. Valid: infonce, siglip"),
        ({"matryoshka": "al"}, "There is no matryoshka 'al'. Valid: sampled, all"),
        ({"precision": "fp8"}, "There is no precision 'fp8'"),
        ({"stage": "ful"}, "There is no stage 'ful'"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        (
            {"save_steps": 4, "validation_steps": 3},
            r"save_steps \(4\) must be a multiple of validation_steps \(3\)",
        ),
        ({"keep_every": 3}, r"keep_every \(3\) must be a multiple of save_steps \(2\), or 0"),
        ({"precision": "float16"}, "The precision float16 needs a GPU"),
        ({"report_to": "paper"}, "There is no report_to 'paper'. Valid: none, wandb, trackio, tensorboard"),
        (
            {"report_to": "trackio"},
            "The package trackio is not installed. Install it with: pip install trackio",
        ),
        ({"batch_size": 1024}, "All epochs together have 56 pairs, fewer than one batch of 1,024"),
    ],
)
def test_a_setting_that_cannot_be_trained_with_is_refused_in_a_sentence(
    training: AlignmentConfig, changes: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=told):
        align.run(replace(training, **changes))


@pytest.mark.parametrize("changes", [{"stage": "full"}, {"augmentation": AugmentationConfig(views=1)}, {}])
def test_an_aligner_of_embeddings_takes_them_and_cannot_look(
    training: AlignmentConfig, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    names = [each.picture for each in read_pairs(Path(training.data), ["tiny"], 0.0).train]
    aligner = tiny_aligner(replace(TINY, class_texts=()))
    aligner.vision = Precomputed(Path("e.npy"), StoredEmbeddings(names, torch.randn(len(names), 4, 8)))
    monkeypatch.setattr(align, "build_aligner", lambda *_: aligner)
    if changes:
        with pytest.raises(UserError, match="Set stage to heads and augmentation.views to 0"):
            align.run(replace(training, **changes))
    else:
        picture_of_side, _, broken = sides(aligner, training, {name: ["a text"] for name in names})
        assert picture_of_side(names[0]).shape == (4, 8) and not broken


def test_where_every_picture_is_broken_nothing_is_trained(
    training: AlignmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {each.picture for each in read_pairs(Path(training.data), ["tiny"], 0.0).train}
    monkeypatch.setattr(align, "sides", lambda *_: (None, None, every))
    with pytest.raises(UserError, match="left to train on: every picture was skipped"):
        align.run(training)


@pytest.mark.slow
def test_pictures_with_names_alone_train_and_a_source_that_is_not_there_is_said(
    training: AlignmentConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(align, "draw_all", align_plots.draw_all)
    file = Path(training.data) / "tiny.parquet"
    rows = [row | {"references": [], "task": "name"} for row in parquet.read_table(file).to_pylist()]
    parquet.write_table(pa.Table.from_pylist([row | {"noun": row["answer"]} for row in rows]), file)
    align.run(replace(training, sources=(PairSource("tiny"), PairSource("tinny"))))
    assert "The source tinny is left out" in caplog.text
    assert (Path(training.output) / "plots" / "loss.png").is_file()


def test_a_run_that_could_not_begin_keeps_its_folder_free(
    training: AlignmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> None:
        raise UserError("There is no such weight.")

    with monkeypatch.context() as patched, pytest.raises(UserError, match="no such weight"):
        patched.setattr(align, "build_aligner", build)
        align.run(training)
    assert not (Path(training.output) / "settings.json").exists()


@pytest.mark.slow
def test_a_run_is_trained_no_other_way_and_for_longer_on_request(training: AlignmentConfig) -> None:
    folder = align.run(training)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(
        UserError, match=r"other settings: learning_rate was .* and is 0\.5; .*seed was 0 and is 7"
    ):
        align.run(replace(training, learning_rate=0.5, seed=7))
    with pytest.raises(UserError, match=r"epochs was \d+ and is \d+.*--extend"):
        align.run(replace(training, epochs=training.epochs + 2))
    with pytest.raises(UserError, match="Give a larger --extend"):
        align.run(replace(training, epochs=1), extend=True)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    *_, last = log_lines(Path(training.output) / LOG)
    steps = last["step"]
    align.run(replace(training, epochs=training.epochs + 2), extend=True)
    *_, last = log_lines(Path(training.output) / LOG)
    assert last["step"] > steps
    told = yaml.safe_load((folder / "config.yaml").read_text())["training"]
    assert told["epochs"] == training.epochs + 2 and told["extended_at"] == [steps]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_the_same_total_batch(
    training: AlignmentConfig,
) -> None:
    one = replace(training, head_dropout=0.0, feature_noise=0.0, max_gradient_norm=1e9)
    alone, _ = run_to_the_end(replace(one, output=training.output + "-alone"))
    two = replace(one, batch_size=2, chunk_size=1)
    assert ends_of_forks(lambda: align.run(two), 2) == [0, 0]
    together = load_file(Path(training.output) / "aligner" / "heads.safetensors")
    for name, weight in alone.items():
        assert torch.allclose(weight.float(), together[name].float(), atol=2e-3), name


@pytest.mark.parametrize(
    ("name", "aligner"), [("embedded", "embedded"), ("bootstrapped", "embedded"), ("pixmo", "pixmo")]
)
def test_a_training_preset_of_an_aligner_parses_and_names_an_aligner(name: str, aligner: str) -> None:
    assert load_aligner_config(load_alignment_config(name).aligner).name == aligner
    with pytest.raises(
        UserError,
        match="no training preset 'none' of an aligner. Shipped presets: bootstrapped, embedded, pixmo",
    ):
        load_alignment_config("none")


def test_names_that_are_kept_out_are_no_labels(
    training: AlignmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat, dog = Captioned("1", "zoo", name="Cat"), Captioned("2", "home", name="cat", names=("pet",))
    bird = Captioned("3", "home", name="bird", names=("CAT",))
    monkeypatch.setattr("training.aligners.sides.read_pairs", lambda *_: PairData([], [], [cat], {}))
    texts = texts_of(PairData([dog, bird], [], [], {}), replace(training, without_names_of="zoo"))
    assert texts["2"] == [] and texts["3"] == [template.format("bird") for template in TEMPLATES]


def test_an_extension_to_no_epochs_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["align", "--extend", "0"])
    with pytest.raises(SystemExit):
        align.main()
    assert "--extend must be 1 or more" in capsys.readouterr().err

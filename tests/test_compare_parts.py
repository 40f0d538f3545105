"""Cells are trained, scored and told one by one; answers in batches are those that the engine gives one by one."""

import argparse
import errno
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tests.test_training import png
from tests.tiny import SYSTEM, overfit, picture, tiny_model
from training import compare_parts, finetune
from training.compare_parts import cell_config, cell_training, load_comparison
from training.parts_table import table
from training.runs import resources
from training.scores.batch_answers import FeatureQuestion, answer_in_batches
from vlm.config import preset_names
from vlm.config_reader import PartConfig
from vlm.engines import Sampling
from vlm.engines.torch_engine import TorchEngine
from vlm.errors import UserError
from vlm.model.prompts import PromptTurn, end_ids, segments
from vlm.model.text_encoders import load_words
from vlm.model.vlm import VisionLanguageModel

COLOURS = {"red": "Red.", "lime": "Green.", "blue": "Blue.", "white": "White."}
QUESTIONS = ("Which?", "Which color is it?", "?")


def answered(model: VisionLanguageModel, question: str, colour: str | None) -> str:
    """By the engine that serves, one token after the other."""
    sights = model.eyes.see([picture(colour)]) if colour else []
    encoded = model.encode([PromptTurn(question, "", ("",) * len(sights))], SYSTEM)
    prompt = segments(encoded.ids, [sight.visual_tokens for sight in sights])
    engine = TorchEngine(model.language, "CPU", 1024, 2048, model.fusion)
    tokenizer = model.language.tokenizer
    ends = end_ids(tokenizer)
    sampling = Sampling(max_new_tokens=24, end_ids=ends, repetition_penalty=1.0, temperature=0.0)
    said = [token for token in engine.stream(prompt, adapter=True, sampling=sampling) if token is not None]
    return tokenizer.decode([token for token in said if token not in ends]).strip()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prefix", "cross-attention", "fused"])
def test_answers_in_batches_are_those_of_the_engine(kind: str) -> None:
    settings = {"every": 1, "heads": 2, "head_size": 8} if kind == "cross-attention" else {}
    model = tiny_model(fusion=PartConfig(kind, settings))
    overfit(model, COLOURS, steps=30)
    asked = [(question, colour) for colour in COLOURS for question in QUESTIONS]
    features = {colour: model.eyes.vision.see([picture(colour)])[0] for colour in COLOURS}
    found = answer_in_batches(
        model, [FeatureQuestion(question, features[colour]) for question, colour in asked], SYSTEM
    )
    assert found == [answered(model, *each) for each in asked]
    assert len(set(found)) > 1
    without = answer_in_batches(model, [FeatureQuestion(question, None) for question in QUESTIONS], SYSTEM)
    assert without == [answered(model, question, None) for question in QUESTIONS]


def test_a_cell_of_embeddings_which_cannot_see_a_white_picture_is_refused() -> None:
    seen = {"mlp": {"vision": {"encoder": "embeddings", "weights": "e.npy"}}}
    with pytest.raises(UserError, match="The cell mlp has embeddings and no encoder"):
        cell_config(replace(load_comparison("smollm2-135m"), cells=seen), "mlp")


def test_the_shipped_comparison_names_parts_that_there_are() -> None:
    comparison = load_comparison("smollm2-135m")
    configs = {name: cell_config(comparison, name) for name in comparison.cells}
    assert {config.fusion.kind for config in configs.values()} == {"prefix", "cross-attention", "fused"}
    assert len({config.connector.kind for config in configs.values()}) >= 7
    for name in ("q-former", "q-former-instructed"):
        staged = f"{name}-staged"
        assert configs[staged] == replace(configs[name], name=staged)
        alone, after = (
            cell_training(comparison, configs[each], Path("model.yaml"), 1600, Path("run"), Path("data"))
            for each in (name, staged)
        )
        assert alone.connector_from is None and after.connector_from == "runs/q-former"
        for one, other in (
            (alone.projector_stage, after.projector_stage),
            (alone.joint_stage, after.joint_stage),
        ):
            assert other == replace(one, connector_learning_rate=1e-4) != one
    assert "smollm2-135m" not in preset_names()  # it is compared on, not served
    reads = configs["q-former-instructed"].connector.settings
    assert reads["vocabulary"] == len(load_words(reads["instructions"])) + 1
    with pytest.raises(
        UserError,
        match="no training preset 'gpt-9' for comparing parts. Shipped presets: qwen2.5-coder-1.5b, smollm2-135m",
    ):
        load_comparison("gpt-9")


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Two cells of tiny parts on four pictures, each known in all that is asked about."""
    rows = []
    for name, answer in COLOURS.items():
        image = {"bytes": png(picture(name)), "path": ""}
        captioned = {"question": "Describe.", "answer": answer, "references": [answer], "task": "describe"}
        asked = {"question": "Is there a dog?", "answer": "No.", "references": [], "task": "no"}
        named = {
            "question": "What is this?",
            "answer": answer,
            "references": [],
            "task": "name",
            "noun": name,
        }
        of_sources = {"flickr8k": captioned, "ade20k": asked, "caltech101": named}
        for split in ("train", "validation"):
            rows += [
                {"image": image, "source": source, "split": split, "noun": "", **each}
                for source, each in of_sources.items()
            ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "tiny.parquet")
    preset = tmp_path / "presets" / "parts" / "tiny.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text(
        "model: {lora: {rank: 4, alpha: 8}, vision: {tags: 0}}\n"
        "training: {batch_size: 2, save_steps: 1, warmup_steps: 1, logging_steps: 1, "
        "sources: [{name: flickr8k}, {name: ade20k}, {name: caltech101}]}\n"
        "cells: {mlp: {connector: {kind: mlp, hidden: 16}}, fused: {fusion: {kind: fused}, connector: {kind: linear}}}\n"
    )
    monkeypatch.setattr(compare_parts, "PRESET_FOLDER", tmp_path / "presets")
    for module in (compare_parts, finetune):
        monkeypatch.setattr(
            module, "build_model", lambda config, device: tiny_model(lora=False, fusion=config.fusion)
        )
    return argparse.Namespace(
        language="tiny", examples=6, cells=None, questions=2, data=tmp_path, output=tmp_path / "runs",
        results=tmp_path / "results", table=False,
    )  # fmt: skip


@pytest.mark.slow
def test_cells_are_trained_once_and_told_in_a_table(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = compare_parts.run(arguments)
    assert "| mlp |" in text and "| fused | fused |" in text and "| untrained |" in text
    results: Mapping = json.loads((arguments.results / "mlp.json").read_text())
    assert results["examples"] == 6 and results["trained_parameters"] > 0
    assert set(results["scores"]) == {"picture", "blank_picture", "other_picture", "no_picture"}
    assert results["scores"]["picture"]["yes_or_no"]["yes_rate"]["of"] == 2
    assert 0 <= results["modality_gap"] <= 2
    assert {path.name for path in arguments.results.iterdir()} == {
        "mlp.json", "fused.json", "untrained.json", "table.md", "parts.png",
    }  # fmt: skip
    monkeypatch.setattr(finetune, "run", None)  # nothing is trained again
    assert compare_parts.run(arguments) == text
    assert compare_parts.run(argparse.Namespace(**vars(arguments) | {"table": True})) == text
    preset = compare_parts.PRESET_FOLDER / "parts" / "tiny.yaml"
    cells = preset.read_text()
    preset.write_text(cells.replace("cells: {", "cells: {another: {connector: {kind: linear}}, "))
    arguments.cells = ["mlp", "fused", "untrained"]
    assert compare_parts.run(arguments) == text  # what is beside them is not theirs
    preset.write_text(cells.replace("hidden: 16", "hidden: 8"))
    with pytest.raises(UserError, match="mlp.json is of another comparison"):
        compare_parts.run(arguments)


def test_a_smaller_batch_with_more_accumulation_takes_as_many_steps() -> None:
    comparison = load_comparison("smollm2-135m")
    training = replace(comparison.training, batch_size=4, gradient_accumulation=4)
    for each in (comparison, replace(comparison, training=training)):
        config = cell_config(each, "mlp")
        cell = cell_training(each, config, Path("mlp.yaml"), 1600, Path("runs"), Path("data"))
        assert (cell.projector_stage.max_steps, cell.joint_stage.max_steps) == (25, 75)


def test_a_wrong_cell_and_a_wrong_part_are_told_before_anything_is_trained(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "run", None)
    arguments.cells = ["mlp", "perceiver"]
    with pytest.raises(UserError, match="no cell perceiver. There are: untrained, mlp, fused"):
        compare_parts.run(arguments)
    arguments.cells = None
    preset = compare_parts.PRESET_FOLDER / "parts" / "tiny.yaml"
    preset.write_text(
        preset.read_text().replace("{kind: linear}", "{kind: q-former}, connector_from: runs/none")
    )
    with pytest.raises(
        UserError, match="fused begins as the run runs/none, which is not there. Make it with"
    ):
        compare_parts.run(arguments)
    arguments.table = True
    with pytest.raises(UserError, match="holds no results yet"):
        compare_parts.run(arguments)


def test_data_without_a_source_of_the_cells_are_told_before_anything_is_trained(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_parts, "run_cell", None)
    preset = compare_parts.PRESET_FOLDER / "parts" / "tiny.yaml"
    preset.write_text(preset.read_text().replace("{name: ade20k}", "{name: mine}"))
    with pytest.raises(UserError, match="no source mine. It has: ade20k, caltech101, flickr8k"):
        compare_parts.run(arguments)


def test_cells_may_be_named_with_spaces_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_parts", "--cells", "mlp, fused"])
    assert compare_parts.parse().cells == ["mlp", "fused"]


def test_the_loss_of_a_cell_is_that_of_its_last_steps_each_counted_once(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    lines: list[dict] = [{"stage": "projector", "step": 50, "loss": 9.0}]
    lines += [{"stage": "joint", "step": step, "loss": float(step)} for step in range(1, 9)]
    lines += [{"stage": "joint", "step": 8, "eval_loss": 7.0}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "joi')
    assert compare_parts.last_loss(file) == 8.0
    lines += [{"stage": "joint", "step": step, "loss": float(step)} for step in range(7, 11)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert compare_parts.last_loss(file) == 9.5  # the last two of ten
    file.write_text(json.dumps(lines[0]) + "\n")
    assert compare_parts.last_loss(file) is None


def test_a_disk_that_is_full_may_be_that_of_the_data(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "free_bytes", lambda folder: 0 if folder == arguments.data else 10**12)
    monkeypatch.setattr(compare_parts, "parse", lambda: arguments)
    monkeypatch.setattr(compare_parts, "run", Mock(side_effect=OSError(errno.ENOSPC, "full")))
    with pytest.raises(SystemExit, match=f"0.0 GB are free for {arguments.data}"):
        compare_parts.main()


def result(name: str, cider: float) -> dict:
    measure = {"value": cider, "low": cider - 0.1, "high": cider + 0.1, "of": 9}
    scores = {"captions": {"cider": measure}}
    return {
        "cell": name, "fusion": {"kind": "prefix"}, "visual_tokens": 25, "modality_gap": None,
        "scores": dict.fromkeys(("picture", "blank_picture", "other_picture", "no_picture"), scores),
        "unmoved_by_another_picture": {"share": 0.25},
    }  # fmt: skip


def test_the_best_cell_stands_first_and_what_was_not_measured_is_a_dash() -> None:
    lines = table([result("worse", 0.2), result("better", 0.4)]).splitlines()
    assert lines[2].startswith("| better | prefix | 25 | - | - | 40.0 (30.0 to 50.0), 40.0 | - | - |")
    assert lines[3].startswith("| worse |")

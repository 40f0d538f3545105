"""What the page tells of an adapter comes from its folder, and what the folder lacks is said."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from tests.tiny import tiny_config
from training.config import PRESET_FOLDER, load_training_config
from training.scores.metrics import share
from vlm.config import load_model_config, preset_names
from vlm.model.about import about, how_to_see
from vlm.model.adapter_folder import ADAPTERS
from vlm.model.vlm import check_stage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    right = share([True] * 3 + [False])._asdict()
    wrong = share([False] * 4)._asdict()
    scores = {
        "questions": 4,
        "accuracy": right,
        "blank_picture": wrong,
        "question_only": wrong,
        "command": "score it",
        "by": {
            "kind": {
                "photo": {"n": 1, "accuracy": share([True])._asdict()},
                "drawing": {"n": 3, "accuracy": wrong},
            }
        },
    }
    (tmp_path / "metrics.json").write_text(json.dumps({"tiny/test": scores}))
    stage = {
        "train": "projector+lora",
        "connector_learning_rate": 1e-3,
        "lora_learning_rate": 5e-4,
        "epochs": 1,
    }
    training = {
        "sources": [
            {"name": "tiny", "share": 0.5, "turns": 3},
            {"name": "tiny", "share": 2.0, "turns": 6, "tasks": ["choice", "yes"]},
        ],
        "joint_stage": stage | {"max_steps": 70},
        "batch_size": 4,
        "seed": 0,
        "device": "cpu",
    }
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"model": asdict(tiny_config()), "training": training})
    )
    (tmp_path / "data.md").write_text("# Data card\n\nFingerprint `abc`.\n")
    return tmp_path


@pytest.mark.parametrize("preset", [name for name in preset_names() if not load_model_config(name).adapter])
def test_what_is_told_about_training_a_preset_can_be_trained(preset: str) -> None:
    """The training preset that is named, and for a copy the one that is copied, has stages for what the model has."""
    told = how_to_see(preset)
    named = re.search(r"--preset (\S+)", told)[1]  # type: ignore[index]
    copied = re.search(r"a copy of training/presets/(\S+)\.yaml", told)
    training = load_training_config(copied[1] if copied else named)
    assert training.model == preset or (copied and not (PRESET_FOLDER / f"{preset}.yaml").is_file())
    for stage in (training.projector_stage, training.joint_stage):
        check_stage(stage.train, bool(load_model_config(preset).lora.rank))


def test_scores_stand_beside_their_baselines_with_their_interval_and_command(folder: Path) -> None:
    text = about(tiny_config(), folder)
    assert "| tiny/test | 4 | 75.0% (30.1%–95.4%) | 0.0% (0.0%–49.0%) |" in text
    assert "| — photo | 1 | 100.0% (20.7%–100.0%) |" in text
    assert "score it" in text


def test_training_data_and_what_is_missing_are_told(folder: Path) -> None:
    text = about(tiny_config(), folder)
    assert "Trained on cpu." in text
    assert "| joint | projector+lora | 70 steps | 0.001 | 0.0005 |" in text
    assert "| tiny | 0.5 | 3 |  |" in text
    assert "| tiny | 2 | 6 | choice, yes |" in text
    assert "Fingerprint `abc`." in text
    assert "# Data card" not in text
    assert "The folder has no limits.md." in text
    (folder / "metrics.json").write_text("{}")
    assert "not evaluated" in about(tiny_config(), folder)


def test_an_adapter_that_went_on_from_another_names_it_and_had_no_stage_of_the_projector_alone(
    folder: Path,
) -> None:
    file = folder / "config.yaml"
    told = yaml.safe_load(file.read_text())
    told["training"]["projector_stage"] = told["training"]["joint_stage"] | {"train": "projector"}
    file.write_text(yaml.safe_dump(told))
    assert "| projector | projector | 70 steps |" in about(tiny_config(), folder)
    told["training"]["init_from"] = "the-first"
    file.write_text(yaml.safe_dump(told))
    text = about(tiny_config(), folder)
    assert "| projector | projector |" not in text
    assert "goes on from the adapter the-first." in text


def test_a_preset_without_an_adapter_says_that_it_cannot_see() -> None:
    assert "cannot see" in about(tiny_config(), None)


def test_the_shipped_adapter_tells_everything() -> None:
    text = about(load_model_config("embedded"), ADAPTERS / "embedded")
    for expected in (
        "tuxpaint/test, 120 drawn, task name, kind photo",
        "Fingerprint",
        load_model_config("embedded").language.weights,
    ):
        assert expected in text
    assert "The folder" not in text

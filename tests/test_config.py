"""Presets parse, mistakes are named."""

from pathlib import Path

import pytest

from training.config import PRESET_FOLDER as TRAINING_PRESETS
from training.config import TrainingConfig, load_training_config
from training.heads import TasksConfig
from vlm.config import PRESET_FOLDER, ModelConfig, load_model_config
from vlm.config_reader import from_dict, to_dict
from vlm.errors import UserError

MODEL_PRESETS = sorted(PRESET_FOLDER.glob("*.yaml"))
TRAINING_PRESET_FILES = sorted(TRAINING_PRESETS.glob("*.yaml"))


def test_there_are_presets() -> None:
    assert {path.stem for path in MODEL_PRESETS} >= {"embedded"}
    assert {path.stem for path in TRAINING_PRESET_FILES} >= {"embedded"}


@pytest.mark.parametrize("path", MODEL_PRESETS, ids=lambda path: path.stem)
def test_a_model_preset_parses_and_survives_a_round_trip(path: Path) -> None:
    config = load_model_config(path.stem)
    assert config.name == path.stem
    assert from_dict(ModelConfig, to_dict(config), "round trip") == config


@pytest.mark.parametrize("path", TRAINING_PRESET_FILES, ids=lambda path: path.stem)
def test_a_training_preset_parses_and_names_a_model_preset(path: Path) -> None:
    config = load_training_config(path.stem)
    assert load_model_config(config.model)
    assert config.sources
    assert from_dict(TrainingConfig, to_dict(config), "round trip") == config


def test_an_unknown_key_is_refused_and_the_valid_ones_are_named() -> None:
    with pytest.raises(UserError, match=r"preset\.vision has no key grid\. Valid keys: .*image_size, blocks"):
        from_dict(ModelConfig, {"vision": {"grid": 4}}, "preset")
    with pytest.raises(UserError, match=r"preset has no key colours, heads\. Valid keys: name, vision"):
        from_dict(ModelConfig, {"heads": 4, "colours": True}, "preset")
    with pytest.raises(UserError, match=r"run\.sources has no key shares\. Valid keys: name, share"):
        from_dict(TrainingConfig, {"sources": [{"name": "a", "shares": 1}]}, "run")
    with pytest.raises(UserError, match=r"preset has no key True, heads\. Valid keys: name, vision"):
        from_dict(ModelConfig, {True: 4, "heads": 4}, "preset")  # type: ignore[dict-item]
    with pytest.raises(
        UserError, match=r"preset\.connector must be a mapping with a kind and that kind's settings"
    ):
        from_dict(ModelConfig, {"connector": "mlp"}, "preset")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": "320"}, "preset.vision.image_size must be a whole number, and is '320'"),
        ({"image_size": True}, "must be a whole number, and is True"),
        ({"blocks": ["six"]}, "Each of preset.vision.blocks must be a whole number, and is 'six'"),
        ({"encoder": 5}, "preset.vision.encoder must be a text, and is 5"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(ModelConfig, {"vision": values}, "preset")


def test_a_number_that_yaml_reads_as_text_is_refused_and_a_whole_one_is_a_number() -> None:
    with pytest.raises(UserError, match="number such as 1.0e-3, and is '1e-3'"):
        from_dict(TrainingConfig, {"text_dropout": "1e-3"}, "run")
    assert from_dict(TrainingConfig, {"text_dropout": 0}, "run").text_dropout == 0


def test_an_unknown_preset_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match="embedded"):
        load_model_config("no-such-preset")


def test_a_command_line_override_wins_and_what_is_not_given_does_not() -> None:
    config = load_training_config("embedded", seed=7, data=None)
    assert config.seed == 7
    assert config.data == "data/embedded"


def test_a_list_of_the_other_form_is_told_the_form_and_nothing_of_yaml() -> None:
    with pytest.raises(
        UserError, match=r"sources must be a list of words, such as \[mine, another\]"
    ) as told:
        from_dict(TasksConfig, {"sources": [{"name": "mine", "share": 1.0}]}, "preset")
    assert "YAML" not in str(told.value)
    with pytest.raises(UserError, match=r"must be a list of mappings with the keys name, share.*has 'mine'"):
        from_dict(TrainingConfig, {"sources": ["mine"]}, "preset")


def test_words_that_yaml_reads_as_truth_values_are_refused_with_the_remedy(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("sources:\n  - {name: mine, tasks: [name, yes, no]}\n")
    with pytest.raises(UserError, match='Quote those.*"yes"'):
        load_training_config(str(preset))

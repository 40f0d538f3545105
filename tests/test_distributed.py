"""Several processes: two on the CPU learn what one learns with 4-bit weights, each with all of them or with a part, and
accelerate reads the shipped configurations."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers import TrainingArguments

from tests.conftest import free_port
from tests.forking import ends_of_forks
from tests.fsdp_on_cpu import divide_on_cpu
from tests.test_phi import training_on
from tests.tiny_phi import save_preset, tiny_phi_config
from tests.train_twice import train_twice
from training import finetune
from training.config import StageConfig, TrainingConfig
from vlm.config_reader import to_dict

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

WEIGHTS = ("projector.safetensors", "lora/adapter_model.safetensors")
SHIPPED = ROOT / "training" / "accelerate"
CONFIGURATIONS = sorted(SHIPPED.glob("*.yaml"))


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line[kind] for line in lines for kind in ("loss", "eval_loss") if kind in line]


def launch(how: str, preset: Path) -> None:
    """Train twice in two processes on the CPU, by the command of training/README.md."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    command += ["--config_file", str(SHIPPED / f"{how}.yaml"), "--mixed_precision", "no"]
    command += ["--main_process_port", str(free_port()), "-m", "tests.train_twice", "--preset", str(preset)]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def fork(how: str, preset: Path, output: Path) -> None:
    """The same without the command, whose processes import torch anew."""
    environment = {}
    if how == "fsdp-qlora":  # as `accelerate launch` hands its configuration on
        told = load_config_from_file(str(SHIPPED / f"{how}.yaml")).fsdp_config.items()
        environment = {key.upper(): str(value) for key, value in told} | {"ACCELERATE_USE_FSDP": "true"}

    def train() -> None:
        if how == "fsdp-qlora":
            divide_on_cpu()
        sys.argv = ["finetune", "--preset", str(preset)]
        train_twice(output)

    assert ends_of_forks(train, 2, environment) == [0, 0]


NO_DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed: pip install --no-build-isolation deepspeed",
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TrainingConfig]:
    """What one process has learned, with the weights of the language model as they are or in four bits."""

    @cache
    def train(quantisation: str) -> TrainingConfig:
        folder = tmp_path_factory.mktemp("alone")
        config = tiny_phi_config(folder)
        config = replace(
            config,
            lora=replace(config.lora, dropout=0.0),
            language=replace(config.language, dtype="float32", quantisation=quantisation),
        )
        training = replace(training_on(folder, save_preset(config, folder)), save_steps=2, validation_steps=2)
        stage = StageConfig(epochs=3, max_steps=3)
        training = replace(training, joint_stage=stage, projector_stage=replace(stage, train="projector"))
        training = replace(training, batch_size=4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(finetune, "draw", lambda *_: None)
            finetune.run(training)
        return training

    return train


@pytest.mark.parametrize(
    ("how", "quantisation"),
    [
        ("ddp", "nf4"),
        ("fsdp-qlora", "none"),
        ("fsdp-qlora", "nf4"),
        pytest.param("zero3", "nf4", marks=NO_DEEPSPEED),
    ],
)
def test_two_processes_learn_what_one_learns_with_the_same_total_batch(
    how: str, quantisation: str, alone: Callable[[str], TrainingConfig], tmp_path: Path
) -> None:
    one = alone(quantisation)
    data = shutil.copytree(one.data, tmp_path / "data", ignore=shutil.ignore_patterns("features-*"))
    two = replace(one, batch_size=2, data=str(data), output=str(tmp_path / "two"))
    preset = tmp_path / "training.yaml"
    preset.write_text(yaml.safe_dump(to_dict(two)), encoding="utf-8")
    if how == "zero3":  # DeepSpeed looks once in a process at what it runs on
        launch(how, preset)
    else:
        fork(how, preset, Path(two.output))
    unbroken = Path(f"{two.output}-unbroken")
    assert losses(unbroken) == pytest.approx(losses(Path(one.output)), rel=1e-4)
    assert len(losses(Path(one.output))) == 2 * (3 + 2)
    last = unbroken / "joint" / "checkpoint-3"
    optimizer = {"ddp": "optimizer.pt", "fsdp-qlora": "optimizer.bin", "zero3": "global_step3"}[how]
    assert (last / optimizer).exists()
    if how == "fsdp-qlora":
        assert not (last / "pytorch_model_fsdp.bin").exists()  # the frozen weights, too
    sizes = {file.name: file.stat().st_size for file in last.rglob("*") if file.is_file()}
    # the averages of the LoRA; with the frozen weights it were twice as much
    assert max(sizes.values()) < 130_000, sizes
    for file in WEIGHTS:
        start = load_file(Path(one.output) / "projector" / "adapter" / file)
        joint, together = (
            load_file(Path(run) / "joint" / "adapter" / file) for run in (one.output, unbroken)
        )
        written, resumed = (load_file(Path(run) / "adapter" / file) for run in (unbroken, two.output))
        assert start.keys() == joint.keys() == together.keys() == written.keys() == resumed.keys()
        for name, before in start.items():  # Adam enlarges rounding where a gradient is nearly zero
            apart, moved = together[name] - joint[name], joint[name] - before
            assert apart.norm() < 0.02 * moved.norm(), (file, name)
            assert torch.equal(written[name], together[name].to(written[name].dtype))
            assert torch.equal(resumed[name], written[name]), (file, name)


def test_a_process_that_is_not_the_first_writes_no_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that write the same folder fail now and then, each having found it empty."""
    training = training_on(tmp_path, save_preset(tiny_phi_config(tmp_path), tmp_path))
    monkeypatch.setattr(TrainingArguments, "should_save", False)
    Path(training.output).mkdir()
    finetune.run(training)
    stages = [Path(training.output) / stage for stage in ("projector", "joint")]
    assert all(stage.is_dir() for stage in stages)
    assert not any(file for stage in stages for file in stage.rglob("*.safetensors"))


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda path: path.stem)
def test_accelerate_reads_the_shipped_configurations(file: Path) -> None:
    config = load_config_from_file(str(file))
    assert config.mixed_precision == "bf16"
    assert config.num_processes >= 2


def test_there_are_configurations() -> None:
    assert {path.stem for path in CONFIGURATIONS} == {"ddp", "fsdp-qlora", "zero3"}

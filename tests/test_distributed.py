"""Several processes: two on the CPU learn what one learns, and accelerate reads the shipped configurations."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers import TrainingArguments

from tests.conftest import free_port
from tests.test_phi import training_on
from tests.tiny_phi import save_preset, tiny_phi_config
from training import finetune
from training.config import StageConfig
from vlm.config import to_dict

ROOT = Path(__file__).parent.parent
CONFIGURATIONS = sorted((ROOT / "training" / "accelerate").glob("*.yaml"))


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_two_processes_have_the_loss_of_one_with_the_same_total_batch(tmp_path: Path) -> None:
    config = tiny_phi_config(tmp_path)
    config = replace(
        config,
        lora=replace(config.lora, dropout=0.0),
        language=replace(config.language, dtype="float32", quantisation="none"),
    )
    training = training_on(tmp_path, save_preset(config, tmp_path))
    stage = StageConfig(epochs=3, max_steps=3)
    training = replace(training, joint_stage=stage, projector_stage=replace(stage, train="projector"))
    one = replace(training, batch_size=4, output=str(tmp_path / "one"))
    two = replace(training, batch_size=2, output=str(tmp_path / "two"))
    preset = tmp_path / "training.yaml"
    preset.write_text(yaml.safe_dump(to_dict(two)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command += ["-m", "training.finetune", "--preset", str(preset)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    finetune.run(one)
    assert losses(Path(two.output)) == pytest.approx(losses(Path(one.output)), rel=1e-4)
    assert len(losses(Path(one.output))) == 6
    for file in ("projector.safetensors", "lora/adapter_model.safetensors"):
        start = load_file(Path(one.output) / "projector" / "adapter" / file)
        alone, together = (load_file(Path(run.output) / "joint" / "adapter" / file) for run in (one, two))
        assert start.keys() == alone.keys() == together.keys()
        for name, before in start.items():  # Adam enlarges rounding where a gradient is nearly zero
            apart, moved = together[name] - alone[name], alone[name] - before
            assert apart.norm() < 0.02 * moved.norm(), (file, name)


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

"""The sizes of every preset, the memory it takes, and what a machine that cannot hold it is told."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from tests.tiny import tiny_config, tiny_model
from vlm.config import load_model_config
from vlm.config_reader import PartConfig
from vlm.describe import table
from vlm.errors import UserError
from vlm.model import sizes as measuring
from vlm.model.adapter import save_adapter
from vlm.model.adapter_fit import check_adapter
from vlm.model.sizes import GIGABYTE, choose_precision, describe, fits
from vlm.weights import resolve

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("preset", "parameters", "projector"),
    [  # the parameters that each model's page on the hub gives
        # 1.54 billion, and the head that the GGUF stores apart from the embeddings
        ("embedded", 1_543_714_304 + 151_936 * 1536, "5664 -> 1024 -> 1536"),
        ("phi-3.5", 3_821_079_552, "512 -> 3072 -> 3072"),
        ("smollm2-360m", 361_821_120, "768 -> 960 -> 960"),
        ("smollm2-1.7b", 1_711_376_384, "768 -> 2048 -> 2048"),
        ("llama-3.1-8b", 8_030_261_248, "768 -> 4096 -> 4096"),
        ("gemma-2-9b", 9_241_705_984, "768 -> 3584 -> 3584"),
        ("vit-gpt2", 124_439_808, "768 -> 768 -> 768"),
    ],
)
def test_presets_have_the_sizes_of_their_models(preset: str, parameters: int, projector: str) -> None:
    config = load_model_config(preset)
    sizes = describe(config)
    assert (sizes.parameters["language"], sizes.projector) == (parameters, projector)
    shown = table(sizes, config)
    assert f"{parameters:,}" in shown
    assert ("config.json" if preset == "embedded" else "architectures.yaml") in shown


@pytest.mark.parametrize(
    ("fusion", "parameters", "drawn"),
    [
        (PartConfig("prefix"), 0, "─► in the prompt ─► 32 layers"),
        # eight blocks: four projections of 960 by 512, three of 960 by 960, two norms and two gates
        (PartConfig("cross-attention"), 8 * (4 * 960 * 512 + 3 * 960**2 + 2 * 960 + 2), "─► by gated blocks"),
        (
            PartConfig("fused", {"mode": "gate"}),
            2 * 960 * 960 + 960,
            "─► as one vector in each word's embedding",
        ),
    ],
    ids=["prefix", "cross-attention", "fused"],
)
def test_each_fusion_is_counted_and_drawn(fusion: PartConfig, parameters: int, drawn: str) -> None:
    resampled = replace(load_model_config("smollm2-360m"), connector=PartConfig("resampler"), fusion=fusion)
    sizes = describe(resampled)
    assert sizes.parameters["fusion"] == parameters
    shown = table(sizes, resampled)
    assert f"picture ─► 50 x 768 ─► resampler ─► 32 x 960 {drawn}" in shown
    assert sizes.trainable == parameters + sizes.parameters["connector"] + sizes.parameters["lora"]


def test_sizes_of_a_gguf_are_told_without_unpacking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(name: str) -> Path:
        raise AssertionError(f"{name} was to be unpacked")

    monkeypatch.setattr(resolve, "write_model", unpack)
    monkeypatch.setattr(resolve, "made_folder", lambda folder, fill: tokenizer_only(folder))
    assert describe(load_model_config("embedded")).embedding_size == 1536


def tokenizer_only(folder: Path) -> Path:
    assert folder.name.endswith("-tokenizer")
    return folder


def test_four_bits_take_a_quarter_and_training_more_than_serving_weights() -> None:
    sizes = describe(load_model_config("phi-3.5"))
    assert sizes.language_bytes(True, 2) == pytest.approx(2.26 * GIGABYTE, rel=0.01)
    assert sizes.language_bytes(False, 2) == 2 * sizes.parameters["language"]
    assert sizes.serving_bytes(True) < 6.5 * GIGABYTE  # half of it is the cache of 8,192 tokens
    assert sizes.serving_bytes(True) - replace(sizes, cells=4096).serving_bytes(True) > 1.6 * GIGABYTE
    assert sizes.training_bytes(True) < 8 * GIGABYTE


@pytest.mark.parametrize(("own", "dtype"), [(True, "auto"), (False, "float16")])
def test_a_gpu_that_only_imitates_bfloat16_serves_in_float16(
    monkeypatch: pytest.MonkeyPatch, own: bool, dtype: str
) -> None:
    monkeypatch.setattr(measuring, "memory", lambda device: (8e9, 8e9))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: own)
    assert choose_precision(load_model_config("embedded"), "cuda").language.dtype == dtype


@pytest.mark.slow
def test_the_machine_decides_between_16_bits_4_bits_and_a_plain_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load_model_config("phi-3.5")
    for free, expected in ((32e9, ("none", 8192)), (7e9, ("nf4", 8192)), (5e9, ("nf4", 4096))):
        monkeypatch.setattr(measuring, "memory", lambda device, free=free: (free, free))
        chosen = choose_precision(config, "cpu").language
        assert (chosen.quantisation, chosen.cache_tokens) == expected
        assert fits(config, "cpu")
    monkeypatch.setattr(measuring, "memory", lambda device: (2e9, 2e9))
    with pytest.raises(UserError, match=r"needs 4\.\d GB of memory on cpu, and 2\.0 GB are free"):
        choose_precision(config, "cpu")
    assert not fits(config, "cpu")
    assert fits(load_model_config("embedded"), "cpu")
    assert choose_precision(load_model_config("embedded"), "cpu") == load_model_config("embedded")


@pytest.mark.slow
def test_an_adapter_that_does_not_fit_is_refused_with_both_sizes(tmp_path: Path) -> None:
    trained = replace(tiny_config(), connector=PartConfig("mlp", {"hidden": 99}))
    save_adapter(tiny_model(), tmp_path / "adapter", trained, {})
    with pytest.raises(UserError, match="1280 -> 99 -> 1536 and the preset's 512 -> 3072 -> 3072"):
        check_adapter(tmp_path / "adapter", load_model_config("phi-3.5"))


def test_an_unknown_model_without_network_is_a_plain_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # else it is tried for half a minute
    config = load_model_config("phi-3.5")
    with pytest.raises(UserError, match=r"no-such-model.*architectures\.yaml"):
        describe(replace(config, language=replace(config.language, weights="nobody/no-such-model")))


@pytest.mark.slow
def test_the_command_prints_the_sizes_and_no_warnings() -> None:
    command = [sys.executable, "-m", "vlm.describe", "--preset", "phi-3.5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "3,932,760,064  parameters, language, lora and connector" in done.stdout
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone counts memory so")
def test_the_benchmark_runs_with_tiny_models(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "tests/benchmarks/phi.py"),
        "--tiny",
        "--json",
        str(tmp_path / "phi.json"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "phi.json").read_text())
    assert {(line["who"], line["batch_size"]) for line in results["training"]} == {
        ("ours", 1),
        ("ours", 2),
        ("llava", 1),
        ("llava", 2),
    }
    answers = [results["answers"][name] for name in ("ours", "llava", "no cache")]
    assert all(line["examples_per_second"] > 0 for line in results["training"])
    assert all(answer["tokens"] == 8 for answer in answers)
    assert all(isinstance(line["peak_bytes"], int) for line in [*results["training"], *answers])

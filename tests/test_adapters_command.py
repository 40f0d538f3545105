"""python -m vlm.adapters: what cannot be imported or exported is one sentence, and nothing is left behind."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT
from tests.tiny_gguf import LAYERS, LINEAR, WORDS, save_lora, tiny_causal, tiny_gguf_with_words
from tests.tiny_llava import save_llava, save_lora_checkpoint, save_tiny_adapter
from vlm import adapters
from vlm.adapters import Export, export_adapter, import_adapter
from vlm.config import load_model_config, preset_names
from vlm.errors import UserError
from vlm.model.adapter_folder import adapter_name
from vlm.model.chat_templates import VICUNA
from vlm.model.sizes import describe
from vlm.weights import cache
from vlm.weights.resolve import gguf_file


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava") / "phi3", "phi3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_adapter(tmp_path_factory.mktemp("trained"), "qwen2")


def with_config(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        described = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(described | values))

    return change


def with_other_tower(folder: Path) -> None:
    with_config(vision_config={"model_type": "siglip_vision_model", "hidden_size": 32})(folder)


def with_template(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def without_weights_of(part: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        kept = {name: value for name, value in load_file(file).items() if part not in name}
        save_file(kept, file, metadata={"format": "pt"})

    return change


def in_shards_of_which_one_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = load_file(folder / "model-00001-of-00002.safetensors")
    shards = dict.fromkeys(names, "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_config(model_type="llava_next"), "is a model of the type 'llava_next'"),
        (with_other_tower, "vision tower .* 'siglip_vision_model'.*CLIP"),
        (with_config(projector_hidden_act="relu"), "'relu'.*'gelu' can be imported"),
        (with_config(vision_feature_layer=[-2, -5]), "layers \\[-2, -5\\].*One layer"),
        (
            with_template("{% for m in messages %}{{ m['role'] }}{% endfor %}"),
            "chat template .* cannot be split",
        ),
        (with_template("{{ messages[0]['content'] }}"), "chat template .* cannot be split"),
        (with_template("{% if"), "chat template .* cannot be split"),
        (without_weights_of("linear_2"), "no multi_modal_projector.linear_2.weight"),
        (in_shards_of_which_one_is_missing, "model-00002-of-00002.*all of its files"),
        (cut_short, "could not be read.*all of its files"),
        (lambda folder: (folder / "config.json").write_text("{"), "no config.json that can be read"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json that can be read"),
    ],
)
def test_a_checkpoint_that_cannot_be_imported_is_one_sentence(
    change: Callable[[Path], None], told: str, llava: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(llava, tmp_path / "broken"))
    change(broken)
    with pytest.raises(UserError, match=told) as error:
        import_adapter(str(broken), tmp_path / "adapter")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


def test_weights_that_are_missing_are_told_when_they_are_loaded(llava: Path, tmp_path: Path) -> None:
    from vlm.model.vlm import build_model

    for part in ("language_model.model.layers.1", "vision_tower.encoder.layers.1"):
        broken = Path(shutil.copytree(llava, tmp_path / part))
        without_weights_of(part)(broken)
        import_adapter(str(broken), tmp_path / f"{part}-adapter")
        with pytest.raises(UserError, match="could not be loaded.*its files lack .*and .* more"):
            build_model(adapters.adapter_config(tmp_path / f"{part}-adapter"), "cpu")


class Runs:
    """Something whose pickle makes a folder when it is loaded with more than weights_only."""

    def __reduce__(self) -> tuple:
        return (os.mkdir, ("ran-code",))


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("non_lora_trainables.bin", Runs(), "non_lora_trainables.bin is no plain file of weights.*run code"),
        ("adapter_model.bin", Runs(), "adapter_model.bin is no plain file of weights.*run code"),
        ("non_lora_trainables.bin", {"a": "text"}, "holds other things than weights"),
        ("non_lora_trainables.bin", {"a": torch.zeros(2)}, "no mm_projector.0.weight"),
        ("non_lora_trainables.bin", None, "has no non_lora_trainables.bin"),
        ("adapter_model.bin", {"a": torch.zeros(2)}, "holds no LoRA"),
        ("adapter_model.bin", None, "could not be read.*adapter_model"),
    ],
)
def test_a_lora_with_other_things_than_weights_is_not_loaded(
    file: str, content: object, told: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = save_lora_checkpoint(tmp_path / "checkpoint", trained)
    (checkpoint / file).unlink()
    if content is not None:
        torch.save(content, checkpoint / file)
    with pytest.raises(UserError, match=told):
        import_adapter(str(checkpoint), tmp_path / "adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_folder_that_exists_stays_as_it_was(llava: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    for write in (
        lambda folder: import_adapter(str(llava), folder),
        lambda folder: export_adapter(str(trained), Export("llava"), folder),
    ):
        with pytest.raises(UserError, match="mine exists already. Choose another --output"):
            write(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note.txt"]


@pytest.mark.parametrize("form", ["llava", "gguf", "merged"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    form: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match="could not be written.*Free some disk space"):
        export_adapter(str(trained), Export(form), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_shipped_adapter_is_told_which_part_is_in_the_way(tmp_path: Path) -> None:
    for form in ("llava", "gguf", "merged"):
        with pytest.raises(UserError, match="In the way is the vision encoder, EfficientNetLite2"):
            export_adapter("embedded", Export(form), tmp_path / form)


def test_the_lora_alone_becomes_a_gguf_where_the_language_model_is_one(trained: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(trained, tmp_path / "mine"))
    described = yaml.safe_load((adapter / "config.yaml").read_text())
    described["model"]["language"]["weights"] = str(tiny_gguf_with_words(tmp_path))
    described["model"]["lora"] |= {"rank": 4, "alpha": 8, "targets": LINEAR}
    (adapter / "config.yaml").write_text(yaml.safe_dump(described))
    shutil.rmtree(adapter / "lora")
    save_lora(tiny_causal("qwen2", vocab_size=len(WORDS)), adapter / "lora")
    (file,) = export_adapter(str(adapter), Export("lora"), tmp_path / "lora").iterdir()
    read = gguf.GGUFReader(file)
    assert file.name == "mine-lora.gguf"
    assert read.fields["general.architecture"].contents() == "qwen2"
    assert len(read.tensors) == 2 * 7 * LAYERS


@pytest.mark.parametrize(
    ("part", "values", "form", "told"),
    [
        ("vision", {"features": "pooled"}, "gguf", 'vision.features, which is "pooled"'),
        ("vision", {"features": "patches"}, "gguf", "llama.cpp drops the class token"),
    ],
)
def test_other_features_are_told(
    part: str, values: dict, form: str, told: str, trained: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "adapter"))
    described = yaml.safe_load((other / "config.yaml").read_text())
    described["model"][part] |= values
    (other / "config.yaml").write_text(yaml.safe_dump(described))
    if values["features"] == "pooled":
        projector = load_file(other / "projector.safetensors")
        narrow = {
            name: value[..., :16].contiguous() if value.shape[-1:] == (32,) else value
            for name, value in projector.items()
        }
        save_file(narrow, other / "projector.safetensors")
    with pytest.raises(UserError, match=told):
        export_adapter(str(other), Export(form), tmp_path / "out")


def test_a_layer_norm_is_in_the_way_of_transformers_llava(tmp_path: Path) -> None:
    adapter = save_tiny_adapter(tmp_path, "qwen2", "norm-mlp")
    with pytest.raises(UserError, match="In the way is the connector's LayerNorm"):
        export_adapter(str(adapter), Export("llava"), tmp_path / "out")


def test_the_shell_imports_and_exports(
    llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["adapters", *arguments])
        adapters.main()

    adapter, exported = str(tmp_path / "adapter"), str(tmp_path / "exported")
    run("import", str(llava), "--output", adapter)
    assert f"VLM_ADAPTER={adapter} make run" in capsys.readouterr().out
    run("export", adapter, "--to", "merged", "--output", exported, "--precision", "float32")
    assert set(capsys.readouterr().out.split()) == {str(file) for file in Path(exported).iterdir()}
    with pytest.raises(SystemExit, match="adapters: .* exists already"):
        run("import", str(llava), "--output", adapter)


def test_an_exported_run_has_the_names_that_the_readme_says(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "runs/mine/adapter")
    readme = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
    for form in ("merged", "llava", "gguf"):
        assert export_adapter("runs/mine/adapter", Export(form, "float32")) == Path(f"exports/mine-{form}")
    named = set(re.findall(r"exports/mine[\w./-]*\w", readme))
    assert len(named) >= 6 and all(Path(name).exists() for name in named), named
    assert Path("exports/mine-merged/Modelfile").is_file()
    shutil.copytree(trained, "runs/yours/adapter")
    export_adapter("runs/yours/adapter", Export("llava"))  # beside the first


@pytest.mark.parametrize(
    ("folder", "name"),
    [("runs/mine/adapter", "mine"), ("adapters/mine", "mine"), ("adapter", "work"), (".", "work")],
)
def test_an_adapter_is_called_as_its_folder_or_its_run(
    folder: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert adapter_name(Path(folder)) == name


@pytest.mark.parametrize(
    ("preset", "parameters", "gigabytes"), [("llava-phi-3-mini", 3.82e9, 5), ("llava-1.5-7b", 6.74e9, 8)]
)
def test_sizes_of_published_models_are_known_before_anything_is_fetched(
    preset: str, parameters: float, gigabytes: float
) -> None:
    assert preset in preset_names()
    sizes = describe(load_model_config(preset))
    assert sizes.encoder == "576 x 1024" and sizes.parameters["lora"] == 0
    assert sizes.parameters["language"] == pytest.approx(parameters, rel=0.01)
    assert sizes.serving_bytes(nf4=True) / 1e9 == pytest.approx(gigabytes, rel=0.3)


def test_the_presets_template_is_vicunas_and_its_weights_are_pinned() -> None:
    config = load_model_config("llava-1.5-7b")
    assert config.language.template == VICUNA
    for name in ("llava-1.5-7b", "llava-phi-3-mini"):
        config = load_model_config(name)
        assert config.adapter == config.language.weights == config.vision.weights
        assert len(config.adapter.partition("@")[2]) == 40
        assert gguf_file(config.language.weights) is None

"""Any encoder: vision transformers by their configuration, tiles of any, and embeddings that were computed elsewhere."""

import pickle
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
import yaml
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)

from tests.conftest import EXAMPLES, ROOT
from tests.tiny import TinyVision, tiny_model
from training import convert
from training.data import read_rows
from training.data.features import FeatureStore
from vlm.config import LanguageConfig, LoraConfig, ModelConfig, VisionConfig, load_model_config
from vlm.config_reader import PartConfig, from_dict
from vlm.describe import analysis, table
from vlm.errors import UserError
from vlm.model.adapter import load_adapter, save_adapter
from vlm.model.adapter_fit import check_adapter
from vlm.model.analysis import hidden_sizes
from vlm.model.embeddings import Precomputed, read_embeddings
from vlm.model.encoders import build_encoder, describe_features
from vlm.model.sizes import check_fit, describe
from vlm.model.tiles import Tiled, best_grid, cut
from vlm.model.vlm import build_model
from vlm.weights.resolve import sha256_of

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
SEEN = SIZES | {"image_size": 32, "patch_size": 8}
TEXT = SIZES | {"vocab_size": 50}
BEFORE = {"vit": 1, "dinov2": 1, "registers": 3, "siglip": 0, "clip": 1}  # tokens before the 16 patches


def save_encoder(kind: str, folder: Path) -> Any:
    """A tiny one with random weights, as the hub has it: some with another half or a head. Gives its vision half."""
    torch.manual_seed(0)
    network: Any = {
        "vit": lambda: ViTForImageClassification(ViTConfig(**SEEN)),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**SEEN)),
        "registers": lambda: Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(**SEEN, num_register_tokens=2)
        ),
        "siglip": lambda: SiglipModel(SiglipConfig(vision_config=SEEN, text_config=TEXT)),
        "clip": lambda: CLIPModel(CLIPConfig(vision_config=SEEN, text_config=TEXT, projection_dim=16)),
    }[kind]()
    network.save_pretrained(folder)
    return (
        {"vit": "vit", "siglip": "vision_model", "clip": "vision_model"}.get(kind)
        and getattr(network, {"vit": "vit"}.get(kind, "vision_model"))
        or network
    )


@pytest.fixture(scope="module")
def cat() -> Image.Image:
    return Image.open(EXAMPLES / "cat.jpg").convert("RGB")


@pytest.mark.parametrize("kind", BEFORE)
def test_a_vision_transformer_of_any_kind_gives_its_own_features(
    kind: str, tmp_path: Path, cat: Image.Image
) -> None:
    half = save_encoder(kind, tmp_path / kind).eval()
    config = VisionConfig("transformers", str(tmp_path / kind), features="patches", layer=-2, tags=0)
    patches = build_encoder(config)
    grid = build_encoder(replace(config, features="grid"))
    assert patches.feature_count == 16 + BEFORE[kind] and grid.feature_count == 16
    pixels = patches.preprocess(cat)[None]
    with torch.no_grad():
        expected = half(pixels, output_hidden_states=True)
        assert torch.allclose(patches(pixels), expected.hidden_states[-2], atol=1e-5)
        assert torch.allclose(grid.see([cat]), expected.hidden_states[-2][:, BEFORE[kind] :], atol=1e-5)
        last = build_encoder(replace(config, layer=-1))
        assert torch.allclose(last(pixels), expected.last_hidden_state, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in patches.parameters())


def test_pixels_are_normalised_as_the_folder_says(tmp_path: Path) -> None:
    save_encoder("dinov2", tmp_path)
    white = Image.new("RGB", (10, 10), "white")
    config = VisionConfig("transformers", str(tmp_path), features="grid", layer=-1, tags=0)
    assert build_encoder(config).preprocess(white).unique().tolist() == [1.0]
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.2, 0.5, 0.6], "image_std": [0.4, 0.5, 0.1]}'
    )
    assert torch.allclose(build_encoder(config).preprocess(white)[:, 0, 0], torch.tensor([2.0, 1.0, 4.0]))


def test_an_encoder_whose_weights_are_incomplete_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    network = save_encoder("dinov2", tmp_path / "dinov2")
    weights = {name: each for name, each in network.state_dict().items() if "layer.1" not in name}
    save_file(weights, tmp_path / "dinov2/model.safetensors", metadata={"format": "pt"})
    config = VisionConfig("transformers", str(tmp_path / "dinov2"), features="grid", layer=-1, tags=0)
    with pytest.raises(UserError, match=r"lack .*layer\.1.*Copy all of the encoder's files"):
        build_encoder(config)
    LlamaConfig(**SIZES).save_pretrained(tmp_path / "llama")
    for check in (lambda each: check_fit(ModelConfig(vision=each)), build_encoder):
        with pytest.raises(UserError, match="is no vision transformer"):
            check(replace(config, weights=str(tmp_path / "llama")))
    with pytest.raises(UserError, match="no features 'pooled'. Valid for vision.features: patches, grid"):
        check_fit(ModelConfig(vision=replace(config, features="pooled")))
    with pytest.raises(UserError, match="vision.layer must be between -3 and -1"):
        check_fit(ModelConfig(vision=replace(config, layer=-4)))


@pytest.mark.parametrize(
    ("size", "tiles", "grid"),
    [
        ((100, 100), 4, (2, 2)),
        ((400, 100), 4, (4, 1)),
        ((100, 400), 4, (1, 4)),
        ((300, 200), 6, (3, 2)),
        ((9, 9), 1, (1, 1)),
    ],
)
def test_the_grid_of_tiles_follows_the_pictures_shape(
    size: tuple[int, int], tiles: int, grid: tuple[int, int]
) -> None:
    assert best_grid(*size, tiles, 32) == grid


def test_tiles_are_the_pictures_parts_row_by_row() -> None:
    quarters = Image.new("RGB", (64, 64))
    colours = ["red", "lime", "blue", "yellow"]
    for place, colour in enumerate(colours):
        quarters.paste(
            colour, (32 * (place % 2), 32 * (place // 2), 32 * (place % 2) + 32, 32 * (place // 2) + 32)
        )
    middles = [tile.getpixel((16, 16)) for tile in cut(quarters, 4, 32)]
    assert middles == [Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in colours]
    assert [tile.size for tile in cut(Image.new("RGB", (1, 300)), 4, 32)] == [(32, 32)] * 4


def test_an_encoder_with_tiles_sees_the_whole_and_then_each_part(cat: Image.Image) -> None:
    encoder = TinyVision()
    encoder.image_size = 16  # type: ignore[assignment]
    tiled = Tiled(encoder, 4)
    seen = tiled.see([cat, Image.new("RGB", (20, 90), "red")])
    assert seen.shape == (2, tiled.feature_count, 8) == (2, 5 * 4, 8)
    assert torch.allclose(seen[0, :4], encoder.see([cat])[0], atol=1e-6)
    assert torch.allclose(seen[0, 4:], encoder.see(cut(cat, 4, 16)).flatten(0, 1), atol=1e-6)


def test_tiles_are_an_option_of_every_encoder_and_change_its_features_name(tmp_path: Path) -> None:
    save_encoder("vit", tmp_path)
    plain = VisionConfig(image_size=64)
    for config in (plain, VisionConfig("transformers", str(tmp_path), features="grid", layer=-1, tags=0)):
        without, tiled = build_encoder(config), build_encoder(replace(config, tiles=2))
        assert tiled.feature_count == 3 * without.feature_count
        assert describe_features(replace(config, tiles=2)) != describe_features(config)
    assert "tiles" not in describe_features(plain)  # features that were made before keep their name
    framed = PartConfig("resampler", {"frames": 3})
    check_fit(ModelConfig(vision=replace(plain, tiles=2), connector=framed))
    with pytest.raises(UserError, match="connector.frames must divide the encoder's 4 features"):
        check_fit(ModelConfig(vision=plain, connector=framed))


NAMES = ["a", "b", "c"]


def embeddings(*shape: int) -> torch.Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))


def written(folder: Path, form: str, values: torch.Tensor) -> Path:
    file = folder / f"seen.{form.rpartition('-')[2]}"
    if form == "named-safetensors":
        save_file(dict(zip(NAMES, values.contiguous().unbind(), strict=True)), file)
    elif form == "whole-safetensors":
        save_file({"embeddings": values}, file, metadata={"pictures": '["a", "b", "c"]'})
    elif form == "parquet":
        parquet.write_table(pyarrow.table({"picture": NAMES, "embedding": values.tolist()}), file)
    else:
        np.save(file, values.numpy())
        file.with_suffix(".txt").write_text("a\nb\nc\n")
    return file


@pytest.mark.parametrize("form", ["named-safetensors", "whole-safetensors", "parquet", "npy"])
@pytest.mark.parametrize("shape", [(6,), (4, 6)])
def test_embeddings_are_read_from_every_form(tmp_path: Path, form: str, shape: tuple[int, ...]) -> None:
    values = embeddings(*shape)
    file = written(tmp_path, form, values)
    known = read_embeddings(file)
    assert known.pictures == NAMES
    assert torch.allclose(known.features, values.reshape(3, -1, 6), atol=1e-6)
    encoder = build_encoder(VisionConfig("embeddings", str(file), tags=0))
    assert (encoder.feature_count, encoder.feature_size) == (known.features.shape[1], 6)
    with pytest.raises(UserError, match="there is no encoder for another picture"):
        encoder.see([Image.new("RGB", (5, 5))])


def test_a_name_beside_an_npy_may_have_spaces(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.ones((2, 3, 4), np.float32))
    (tmp_path / "e.txt").write_text("my cat\nmy dog \n\n")
    assert list(read_embeddings(tmp_path / "e.npy").pictures) == ["my cat", "my dog"]


def test_embeddings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    broken = embeddings(4, 6)
    broken[1, 2, 3] = float("nan")
    cases = {
        "the embedding of b holds NaN or infinity": written(tmp_path, "whole-safetensors", broken),
        "embedding of b has the shape .5., and that of a .6.": tmp_path / "odd.safetensors",
        "holds int64 and no fractions": tmp_path / "whole.npy",
        "has the shape .3. and not": tmp_path / "flat.npy",
        "names 2 pictures and has 3 embeddings": tmp_path / "few.npy",
        "seen.npz is no file of embeddings. Valid: .safetensors, .parquet, .npy": tmp_path / "seen.npz",
        "absent.npy are missing": tmp_path / "absent.npy",
        "could not be read as embeddings": tmp_path / "objects.npy",
        "no column picture; it needs picture and embedding, and has id, embedding": tmp_path / "id.parquet",
    }
    parquet.write_table(pyarrow.table({"id": NAMES, "embedding": [[0.5]] * 3}), tmp_path / "id.parquet")
    save_file({"a": torch.zeros(6), "b": torch.zeros(5)}, tmp_path / "odd.safetensors")
    np.save(tmp_path / "whole.npy", np.zeros((3, 4), dtype=np.int64))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "few.npy", np.zeros((3, 4)))
    (tmp_path / "few.txt").write_text("a\nb\n")
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    for message, file in cases.items():
        with pytest.raises(UserError, match=message):
            read_embeddings(file)


@pytest.mark.parametrize("suffix", ["pkl", "pt", "BIN"])
def test_a_pickle_is_refused_unopened_with_what_converts_it(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"seen.{suffix}"  # it need not exist to be refused
    for read in (read_embeddings, lambda each: analysis(each, ModelConfig(), None)):
        with pytest.raises(UserError, match=r"is a pickle.*python -c .*seen\.safetensors") as told:
            read(file)
        assert "\n" not in str(told.value)


def pickled(suffix: str, values: torch.Tensor) -> object:
    """What people have in such a file."""
    found: dict[str, object] = {
        "pkl": dict(zip(NAMES, values.numpy(), strict=True)),
        "pickle": values.tolist(),
        "joblib": dict(zip(NAMES, values.double().numpy(), strict=True)),
        "pt": dict(zip(NAMES, values.half(), strict=True)),
        "bin": values,
    }
    return found[suffix]


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "joblib", "pt", "bin"])
def test_the_command_that_is_told_converts_the_pickle(tmp_path: Path, suffix: str) -> None:
    file, values = tmp_path / f"seen.{suffix}", embeddings(6)
    if suffix == "joblib":
        pytest.importorskip("joblib").dump(pickled(suffix, values), file)
    elif suffix in ("pt", "bin"):
        torch.save(pickled(suffix, values), file)
    else:
        file.write_bytes(pickle.dumps(pickled(suffix, values)))
    with pytest.raises(UserError) as told:
        read_embeddings(file)
    command = str(told.value)[str(told.value).index("python -c") :]
    if suffix in ("pt", "bin"):  # another process would import torch anew
        exec(shlex.split(command)[2], {})
    else:
        subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    made = file.with_suffix(".safetensors")
    if suffix in ("pickle", "bin"):  # without names
        assert read_embeddings(made).pictures == [] and "names no pictures" in analysis(made, BASE, None)
        file.with_suffix(".txt").write_text("\n".join(NAMES))
    known = read_embeddings(made)
    assert known.pictures == NAMES and torch.allclose(known.features[:, 0], values, atol=1e-2)


def test_embeddings_of_another_length_are_named_and_taken_for_no_encoder(tmp_path: Path) -> None:
    for shapes in ([(6,), (6,), (5,)], [(4, 6), (4, 6), (3, 6)]):
        save_file(
            {name: torch.zeros(shape) for name, shape in zip(NAMES, shapes, strict=True)},
            tmp_path / "odd.safetensors",
        )
        with pytest.raises(UserError, match="the embedding of c has the shape"):
            analysis(tmp_path / "odd.safetensors", BASE, None)


def test_the_names_of_pictures_are_got_as_the_readme_says(tmp_path: Path) -> None:
    readme = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    Image.open(EXAMPLES / "cat.jpg").resize((900, 900)).save(tmp_path / "cat.png")
    (tmp_path / "mine.csv").write_text("image,question,answer\ncat.png,What is this?,A cat.\n")
    data = tmp_path / "data"
    convert.convert(
        convert.parse(
            ["csv", "--file", f"{tmp_path}/mine.csv", "--images", str(tmp_path), "--output", str(data)]
        )
    )
    told: dict[str, Any] = {}
    exec(code.replace("data/mine", str(data)), told)
    known = {row.picture for split in ("train", "validation") for row in read_rows(data, split)}
    assert {told["names"]["cat.png"]} == known != {sha256_of(tmp_path / "cat.png")}


def test_training_reads_embeddings_in_place_of_an_encoder(tmp_path: Path) -> None:
    values = embeddings(4, 6)
    file = written(tmp_path, "parquet", values)
    config = VisionConfig("embeddings", str(file), tags=0)
    encoder = build_encoder(config)
    assert isinstance(encoder, Precomputed)
    store = FeatureStore(tmp_path, config)
    store.take(encoder.known, {"a", "c"}, file)
    store.add([(name, b"") for name in ("a", "a@1 0.2 0.5 0.3", "c")], encoder)  # a view is not looked for
    assert len(store) == 2 and torch.allclose(store["c"].float(), values[2], atol=1e-2)
    with pytest.raises(UserError, match="no embedding of 1 of the 2 pictures, such as z"):
        store.take(encoder.known, {"a", "z"}, file)
    with pytest.raises(UserError, match="numbers beyond 65,504"):
        store.take(encoder.known._replace(features=1e6 * encoder.known.features), {"b"}, file)
    nameless = Precomputed(file, known=encoder.known._replace(pictures=[]))
    with pytest.raises(UserError, match=r"seen.parquet names no pictures.*Put seen.txt beside it"):
        store.add([("d", b"")], nameless)
    written(tmp_path, "parquet", values + 1)
    assert FeatureStore(tmp_path, config).folder != store.folder  # what was computed anew is read anew


def test_what_was_trained_on_embeddings_looks_at_pictures_through_the_encoder_that_made_them(
    tmp_path: Path, cat: Image.Image
) -> None:
    language = tiny_model(lora=False).language
    language.model.save_pretrained(tmp_path / "tiny")  # type: ignore[operator]
    language.tokenizer.save_pretrained(tmp_path / "tiny")
    save_encoder("siglip", tmp_path / "siglip")
    served = ModelConfig(
        name="served",
        vision=VisionConfig("transformers", str(tmp_path / "siglip"), features="grid", layer=-1, tags=0),
        connector=PartConfig("mlp", {"hidden": 8, "merge": 2}),
        language=LanguageConfig(str(tmp_path / "tiny"), dtype="float32", engine="torch"),
        lora=LoraConfig(rank=0),
    )
    seen = build_encoder(served.vision).see([cat])
    file = tmp_path / "seen.safetensors"
    save_file({"embeddings": seen}, file, metadata={"pictures": '["a"]'})
    trained = replace(served, vision=VisionConfig("embeddings", str(file), tags=0))
    learned = build_model(trained, "cpu")
    save_adapter(learned, tmp_path / "adapter", trained, {}, torch.float32)
    check_adapter(tmp_path / "adapter", served)
    looking = build_model(served, "cpu")
    load_adapter(looking, tmp_path / "adapter")
    assert torch.equal(looking.eyes.connector(looking.eyes.vision.see([cat])), learned.eyes.connector(seen))
    with_tags = replace(served, vision=VisionConfig(tags=4))
    with pytest.raises(UserError, match="does not fit the preset 'served'"):
        check_adapter(tmp_path / "adapter", with_tags)
    smaller = replace(served, vision=VisionConfig(image_size=64, tags=0))
    with pytest.raises(
        UserError, match=r"normalise.mean in projector.safetensors has the shape \[32\] and not \[1280\]"
    ):
        load_adapter(build_model(smaller, "cpu"), tmp_path / "adapter")


def test_hidden_sizes_are_those_of_the_models_that_people_ask_for() -> None:
    sizes = hidden_sizes()
    wanted = {"google/gemma-2-9b-it": 3584, "meta-llama/Llama-3.1-8B-Instruct": 4096}
    wanted |= {"Qwen/Qwen2.5-Coder-1.5B-Instruct": 1536, "microsoft/Phi-3.5-mini-instruct": 3072}
    assert wanted.items() <= sizes.items()


BASE = load_model_config("smollm2-360m")


@pytest.mark.parametrize(
    ("shape", "connector", "tokens"),
    [((6,), "mlp", 1), ((4, 6), "mlp", 4), ((100, 6), "mlp", 25), ((101, 6), "attention-pool", 32)],
)
def test_the_plan_for_embeddings_is_a_preset_that_parses_and_fits(
    tmp_path: Path, shape: tuple[int, ...], connector: str, tokens: int
) -> None:
    file, output = written(tmp_path, "whole-safetensors", embeddings(*shape)), tmp_path / "mine.yaml"
    told = analysis(file, BASE, output)
    for wrong, message in ((output, "is there already"), (tmp_path / "no/mine.yaml", "could not be written")):
        with pytest.raises(UserError, match=message):
            analysis(file, BASE, wrong)
    with pytest.raises(UserError, match="A preset is a YAML file"):
        analysis(file, BASE, tmp_path / "mine.json")
    count = 1 if len(shape) == 1 else shape[0]
    assert f"a picture: {count} x 6" in told and "float32" in told and "norms" in told
    assert "4096  meta-llama/Llama-3.1-8B-Instruct: a connector from 6 to 4096" in told
    config = load_model_config(str(output))
    assert (config.name, config.connector.kind, config.language) == ("mine", connector, BASE.language)
    sizes = describe(config)
    assert (sizes.encoder, sizes.visual_tokens) == (f"{count} x 6", tokens)
    assert f"{count} x 6 ─► {connector} ─► {tokens} x 960 ─► in the prompt" in table(sizes, config)


def test_the_plan_for_an_encoder_serves_its_folder(tmp_path: Path) -> None:
    save_encoder("siglip", tmp_path / "siglip")
    told = analysis(tmp_path / "siglip" / "model.safetensors", BASE, None)
    assert "encoder weights" in told and "a picture: 16 x 32" in told
    config = from_dict(ModelConfig, yaml.safe_load(told.split("\n\n", 1)[1]), "plan")
    check_fit(config)
    assert build_encoder(config.vision).feature_count == 16


def test_the_plan_for_a_projection_names_the_language_model_that_it_fits(tmp_path: Path) -> None:
    weights = {"0.weight": torch.randn(64, 768), "0.bias": torch.zeros(64), "2.weight": torch.randn(960, 64)}
    save_file(weights | {"2.bias": torch.zeros(960)}, tmp_path / "projector.safetensors")
    told = analysis(tmp_path / "projector.safetensors", BASE, None)
    assert "projection weights" in told
    assert "960  HuggingFaceTB/SmolLM2-360M-Instruct: the projection fits" in told
    assert "3584  google/gemma-2-9b-it: the projection does not fit" in told
    config = from_dict(ModelConfig, yaml.safe_load(told.split("\n\n", 1)[1]), "plan")
    assert config.connector == PartConfig("mlp", {"hidden": 64, "merge": 1})
    assert describe(config).projector == "768 -> 64 -> 960"


@pytest.mark.parametrize(
    ("inward", "outward", "told"),
    [
        (768, 3584, "leads to 3584, and .* is 960 wide. Give a --preset .* 3584 wide, such as google/gemma"),
        (768, 961, "leads to 961, and .* is 960 wide. Give a --preset whose language model is 961 wide.$"),
        (500, 960, "takes features of 500, and .* gives 768. Give a --preset whose encoder gives 500."),
    ],
)
def test_a_projection_that_does_not_fit_gets_no_preset(
    tmp_path: Path, inward: int, outward: int, told: str
) -> None:
    file, output = tmp_path / "projector.safetensors", tmp_path / "mine.yaml"
    save_file({"0.weight": torch.randn(outward, inward), "0.bias": torch.zeros(outward)}, file)
    assert re.search(rf"\n\nNo preset is written: the projection {told}", analysis(file, BASE, None))
    with pytest.raises(UserError, match=f"^No preset is written: the projection {told}"):
        analysis(file, BASE, output)
    assert not output.exists()

"""From a preset's weights and an adapter folder to the engine: which one it is, the LoRA as llama.cpp reads it, and what is
refused."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine_world import answer, greedy
from tests.tiny_gguf import WORDS, save_lora, tiny_causal, tiny_gguf_with_words
from vlm.config import LanguageConfig, ModelConfig
from vlm.config_reader import PartConfig
from vlm.engines import build, llama_library
from vlm.engines.build import Built, build_engine
from vlm.engines.fused_words import load_fused_words
from vlm.engines.llama_cpp import LlamaCppEngine
from vlm.engines.llama_library import LibraryProblem, load_library
from vlm.engines.lora_gguf import KEPT, lora_as_gguf
from vlm.errors import UserError
from vlm.model import sizes
from vlm.weights.catalogue import CATALOGUE, Gguf

PROMPT = [[5, 60, 70, 80, 90, 100, 110, 120]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.gguf, and a LoRA that was trained for it."""
    folder = tmp_path_factory.mktemp("files")
    tiny_gguf_with_words(folder)
    save_lora(tiny_causal("qwen2", vocab_size=len(WORDS)), folder / "lora")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 1)
    return tmp_path / "cache"


@pytest.fixture
def weights(files: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A weight with a name, as the shipped one has, whose file was fetched before."""
    content = (files / "tiny.gguf").read_bytes()
    own_cache.mkdir()
    (own_cache / "tiny.gguf").write_bytes(content)
    download = Gguf("tiny.gguf", hashlib.sha256(content).hexdigest(), (), "someone/tiny")
    monkeypatch.setitem(CATALOGUE, "tiny", download)
    return "tiny"


@pytest.fixture
def lora(files: Path, tmp_path: Path) -> Path:
    """A LoRA of one's own, to be altered."""
    return Path(shutil.copytree(files / "lora", tmp_path / "lora"))


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """llama.cpp is installed in another version than the one that is declared."""
    load_library.cache_clear()
    monkeypatch.setattr(llama_library, "VERSION", "1.0")
    yield
    load_library.cache_clear()


def built(weights: str, lora: Path | None, engine: str = "auto", device: str = "cpu") -> Built:
    language = LanguageConfig(weights, engine, dtype="float32", context=256, cache_tokens=512)
    return build_engine(ModelConfig(language=language), lora, device)


def altered(lora: Path, **changes: object) -> Path:
    file = lora / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return lora


def test_a_gguf_on_a_cpu_is_served_by_llama_cpp_and_by_torch_as_told_and_both_answer_alike(
    weights: str, lora: Path
) -> None:
    told = {}
    for engine, name in {"auto": "llama.cpp", "llama.cpp": "llama.cpp", "torch": "torch"}.items():
        found = built(weights, lora, engine)
        assert (found.engine.name, found.notice, found.embedding_size) == (name, "", 64)
        assert found.tokenizer.decode([2]) == "<|im_end|>"
        told[engine] = [answer(found.engine, PROMPT, adapter, greedy(12)) for adapter in (False, True)]
        found.engine.close()
    assert told["auto"] == told["llama.cpp"] == told["torch"]
    assert told["auto"][0] != told["auto"][1]


def test_a_gguf_by_its_path_is_served_as_well(files: Path, lora: Path) -> None:
    found = built(str(files / "tiny.gguf"), lora)
    assert found.engine.name == "llama.cpp"
    assert len(answer(found.engine, PROMPT, True, greedy(5))) == 5
    found.engine.close()


def test_weights_without_a_gguf_are_served_by_torch_and_refused_to_llama_cpp(tmp_path: Path) -> None:
    from tests.tiny import tiny_model

    language = tiny_model(lora=False).language
    language.model.save_pretrained(tmp_path / "folder")  # type: ignore[operator]
    language.tokenizer.save_pretrained(tmp_path / "folder")
    found = built(str(tmp_path / "folder"), None)
    assert (found.engine.name, found.notice) == ("torch", "")
    with pytest.raises(UserError, match=r"needs GGUF weights.*Set language\.engine to torch"):
        built(str(tmp_path / "folder"), None, "llama.cpp")


def fused_with(weights: str, fusion: PartConfig, engine: str = "auto") -> ModelConfig:
    language = LanguageConfig(weights, engine, dtype="float32", context=256, cache_tokens=512)
    return ModelConfig(language=language, fusion=fusion)


def test_cross_attention_is_served_by_torch_and_refused_to_llama_cpp(weights: str) -> None:
    cross = PartConfig("cross-attention", {"every": 1, "heads": 2, "head_size": 8})
    found = build_engine(fused_with(weights, cross), None, "cpu")
    assert found.engine.name == "torch"
    with pytest.raises(
        UserError, match="llama.cpp holds the fusions prefix and fused, .* has cross-attention"
    ):
        build_engine(fused_with(weights, cross, "llama.cpp"), None, "cpu")


def test_over_gemma_llama_cpp_is_refused_the_fusion_of_words(tmp_path: Path) -> None:
    """It scales the words of Gemma, and not the embeddings that it is given."""
    writer = gguf.GGUFWriter(tmp_path / "gemma.gguf", "gemma2")
    writer.add_tensor("token_embd.weight", np.zeros((8, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(LibraryProblem, match="fused over Gemma, as torch can"):
        load_fused_words(PartConfig("fused"), tmp_path / "gemma.gguf", None)


@pytest.mark.parametrize("mode", ["add", "gate"])
def test_words_with_a_picture_in_them_are_read_alike_by_both_engines(
    weights: str, lora: Path, tmp_path: Path, mode: str
) -> None:
    torch.manual_seed(0)
    fusion = PartConfig("fused", {"mode": mode})
    file = tmp_path / "fusion.safetensors" if mode == "gate" else None
    if file:
        save_file({"gate.weight": 0.3 * torch.randn(64, 128), "gate.bias": torch.zeros(64)}, file)
    one, other = torch.randn(2, 3, 64)
    prompts = [
        [PROMPT[0], one, [5, 60, 7]],
        [PROMPT[0], other, [5, 60, 7]],
        [PROMPT[0], one, [5, 60, 7], other, [8, 9]],
        PROMPT,
        [PROMPT[0], one, [5, 60, 7]],
    ]
    told = {}
    for engine in ("torch", "llama.cpp"):
        found = build_engine(fused_with(weights, fusion, engine), lora, "cpu", file).engine
        assert found.name == engine
        told[engine] = [answer(found, prompt, on, greedy(8)) for prompt in prompts for on in (True, False)]
        found.close()
    assert told["torch"] == told["llama.cpp"]
    assert told["torch"][0] == told["torch"][8] != told["torch"][2]
    assert told["torch"][1] == told["torch"][3]  # with the adapter off no picture is seen


def test_where_the_library_does_not_load_torch_serves_and_says_so(
    weights: str, lora: Path, unloadable: None
) -> None:
    found = built(weights, lora)
    assert found.engine.name == "torch"
    assert len(answer(found.engine, PROMPT, True, greedy(5))) == 5
    assert "1.0 is needed" in found.notice and "Torch serves the same weights" in found.notice
    assert "\n" not in found.notice
    with pytest.raises(LibraryProblem, match="pip install xllamacpp=="):
        built(weights, lora, "llama.cpp")


def test_a_gpu_that_is_too_small_leaves_a_gguf_to_llama_cpp_and_the_page_says_so(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "memory", lambda device: (10**8, 10**9))
    found = built(weights, None, device="cuda")
    found.engine.close()
    assert (found.engine.name, found.engine.device, found.device) == ("llama.cpp", "CPU", "cpu")
    assert "0.1 GB are free. llama.cpp answers on the CPU instead." in found.notice
    with pytest.raises(UserError, match="0.1 GB are free. Free some memory.*llama.cpp") as told:
        built(weights, None, "torch", device="cuda")
    assert "smaller" not in str(told.value)  # it is the smallest


def test_a_gpu_that_is_too_small_for_weights_that_are_no_gguf_is_said_and_nothing_else_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tiny import tiny_model

    language = tiny_model(lora=False).language
    language.model.save_pretrained(tmp_path / "folder")  # type: ignore[operator]
    language.tokenizer.save_pretrained(tmp_path / "folder")
    monkeypatch.setattr(sizes, "memory", lambda device: (10**4, 10**9))
    with pytest.raises(UserError, match="are free"):
        built(str(tmp_path / "folder"), None, device="cuda")


def test_where_the_gpu_is_too_small_and_the_library_does_not_load_torch_serves_on_the_cpu(
    weights: str, unloadable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "memory", lambda device: (10**8, 10**9))
    found = built(weights, None, device="cuda")
    assert (found.engine.name, found.device) == ("torch", "cpu")
    assert "0.1 GB are free." in found.notice and "Torch serves the same weights" in found.notice


def test_a_library_of_another_build_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    library = load_library()

    class Altered:
        def __getattr__(self, name: str) -> object:
            return getattr(library, name)

        def llama_context_default_params(self) -> llama_library.ContextParams:
            return llama_library.ContextParams(n_ctx=512, n_batch=2048, n_ubatch=512, n_seq_max=2)

    with pytest.raises(LibraryProblem, match="other defaults"):
        llama_library.check_defaults(Altered())
    monkeypatch.setitem(llama_library.FUNCTIONS, "llama_of_tomorrow", (None, []))
    load_library.cache_clear()
    with pytest.raises(LibraryProblem, match="does not load on this machine.*llama_of_tomorrow"):
        load_library()
    load_library.cache_clear()


def test_an_unknown_engine_is_refused_with_the_valid_ones(weights: str) -> None:
    with pytest.raises(UserError, match=r"'vllm'.*auto, torch, llama\.cpp"):
        built(weights, None, "vllm")


@pytest.mark.parametrize("left", [0.0, 0.3, 0.9])
def test_a_damaged_gguf_is_one_sentence(files: Path, tmp_path: Path, left: float) -> None:
    content = (files / "tiny.gguf").read_bytes()
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(content[: int(left * len(content))])
    for make in (lambda: built(str(damaged), None), lambda: LlamaCppEngine(damaged, None, 64, 64)):
        with pytest.raises(UserError, match=r"could not.*damaged\.gguf|damaged\.gguf could not") as told:
            make()
        assert "\n" not in str(told.value)


# The LoRA


def test_the_gguf_of_a_lora_is_made_once_and_again_when_the_folder_has_changed(
    files: Path, lora: Path
) -> None:
    gguf = files / "tiny.gguf"
    made = lora_as_gguf(lora, gguf)
    time = made.stat().st_mtime_ns
    assert lora_as_gguf(lora, gguf) == made and made.stat().st_mtime_ns == time
    weights = load_file(lora / "adapter_model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, lora / "adapter_model.safetensors")
    assert lora_as_gguf(lora, gguf) != made
    assert lora_as_gguf(altered(lora, lora_alpha=1), gguf) not in (made, None)
    assert not list(made.parent.glob("*.partial"))


def test_the_cache_keeps_the_ggufs_of_the_loras_that_were_used_last(files: Path, lora: Path) -> None:
    first, second = (lora_as_gguf(altered(lora, lora_alpha=alpha), files / "tiny.gguf") for alpha in (1, 2))
    lora_as_gguf(altered(lora, lora_alpha=1), files / "tiny.gguf")
    others = [
        lora_as_gguf(altered(lora, lora_alpha=alpha), files / "tiny.gguf") for alpha in range(3, KEPT + 2)
    ]
    assert set(first.parent.glob("*.gguf")) == {first, *others} and second not in others


def test_a_lora_in_bfloat16_and_one_of_rslora_are_served_as_peft_has_them(weights: str, lora: Path) -> None:
    file = lora / "adapter_model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(file).items()}, file)
    plain = built(weights, lora)
    for folder in (lora, altered(lora, use_rslora=True)):
        expected = built(weights, folder, "torch")
        found = built(weights, folder)
        told = answer(found.engine, PROMPT, True, greedy(12))
        assert told == answer(expected.engine, PROMPT, True, greedy(12))
        found.engine.close()
    assert told != answer(plain.engine, PROMPT, True, greedy(12))
    plain.engine.close()


@pytest.mark.parametrize("other", [{"embedding_size": 32}, {"layers": 3}, {"intermediate_size": 96}])
def test_a_lora_of_another_model_is_refused(files: Path, tmp_path: Path, other: dict[str, int]) -> None:
    lora = save_lora(tiny_causal("qwen2", **other), tmp_path / "other")
    with pytest.raises(UserError, match=r"trained for another language model than tiny\.gguf.*own preset"):
        lora_as_gguf(lora, files / "tiny.gguf")
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_lora_of_another_rank_than_it_says_is_refused(files: Path, lora: Path) -> None:
    with pytest.raises(UserError, match="another rank than 8"):
        lora_as_gguf(altered(lora, r=8), files / "tiny.gguf")


def test_a_lora_with_scales_for_each_layer_is_refused(files: Path, lora: Path) -> None:
    with pytest.raises(UserError, match="alpha_pattern"):
        lora_as_gguf(altered(lora, alpha_pattern={"q_proj": 2}), files / "tiny.gguf")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_model.safetensors", b"no"),
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"{}"),
    ],
)
def test_a_damaged_lora_is_one_sentence(files: Path, lora: Path, name: str, content: bytes) -> None:
    (lora / name).write_bytes(content)
    with pytest.raises(UserError, match="LoRA.*is damaged.*again") as told:
        lora_as_gguf(lora, files / "tiny.gguf")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("missing", ["layers.1.self_attn.q_proj.lora_B", "q_proj"])
def test_a_lora_with_missing_parts_is_refused(files: Path, lora: Path, own_cache: Path, missing: str) -> None:
    file = lora / "adapter_model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if missing not in name}, file)
    with pytest.raises(UserError, match="parts are missing, the first is .*q_proj.*again"):
        lora_as_gguf(lora, files / "tiny.gguf")
    assert not list(own_cache.rglob("*.gguf"))
    lora_as_gguf(files / "lora", files / "tiny.gguf")
    assert len(list(own_cache.rglob("*.gguf"))) == 1  # where that of a whole one is


def test_a_lora_with_values_that_are_no_numbers_is_refused(files: Path, lora: Path) -> None:
    file = lora / "adapter_model.safetensors"
    save_file({name: value * float("nan") for name, value in load_file(file).items()}, file)
    with pytest.raises(UserError, match="damaged.*no numbers.*again"):
        lora_as_gguf(lora, files / "tiny.gguf")


def test_what_is_no_lora_of_a_linear_layer_is_refused(files: Path, lora: Path) -> None:
    file = lora / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(UserError, match=r"lm_head\.weight, which is no LoRA"):
        lora_as_gguf(lora, files / "tiny.gguf")


def test_a_damaged_gguf_of_a_lora_is_one_sentence_with_the_remedy(files: Path, lora: Path) -> None:
    made = lora_as_gguf(lora, files / "tiny.gguf")
    made.write_bytes(made.read_bytes()[:2000])
    with pytest.raises(UserError, match="could not load the adapter.*Remove the file"):
        LlamaCppEngine(files / "tiny.gguf", made, 64, 64)


def test_what_fails_behind_the_engine_leaves_no_model_and_no_thread_behind(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise UserError("The template cannot be read.")

    threads = torch.get_num_threads()
    monkeypatch.setattr(build, "_load_tokenizer", damaged)
    with pytest.raises(UserError, match="The template"):
        built(weights, None)
    assert not [thread for thread in threading.enumerate() if thread.name == "llama.cpp"]
    assert torch.get_num_threads() == threads


def test_a_full_disk_is_told_as_such(files: Path, lora: Path, own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "lora").write_text("in the way")
    with pytest.raises(UserError, match="could not be written.*VLM_CACHE"):
        lora_as_gguf(lora, files / "tiny.gguf")


def test_the_engines_have_the_names_that_presets_know() -> None:
    assert build.ENGINES == ("auto", "torch", "llama.cpp")

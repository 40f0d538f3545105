"""A GGUF is unpacked to what llama.cpp computes with, and its tokenizer is the one llama.cpp has."""

import ctypes
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from vlm.errors import UserError
from vlm.weights.cache import cache_folder, has_hash
from vlm.weights.catalogue import CATALOGUE, Download
from vlm.weights.resolve import gguf_file, public_name, resolve, tokenizer_folder

QWEN = "qwen2.5-coder-1.5b-instruct"
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = [*sorted(ByteLevel.alphabet()), "th", "the", "Ġthe", *CONTROL]
MERGES = ["t h", "th e", "Ġ the"]
SIZES = {"embedding": 32, "inner": 64, "heads": 4, "kv_heads": 2}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GGUF of Qwen's kind with one layer, random weights and a head of its own."""
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    return file


def write_gguf(file: Path) -> None:
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_name("Tiny")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(SIZES["embedding"])
    writer.add_feed_forward_length(SIZES["inner"])
    writer.add_head_count(SIZES["heads"])
    writer.add_head_count_kv(SIZES["kv_heads"])
    writer.add_rope_freq_base(12345.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3 if token in CONTROL else 1 for token in VOCABULARY])
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(VOCABULARY.index("<|im_end|>"))
    writer.add_pad_token_id(VOCABULARY.index("<|endoftext|>"))
    writer.add_chat_template(TEMPLATE)
    for name, tensor in tiny_weights().items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_weights() -> dict[str, np.ndarray]:
    wide, inner, narrow = SIZES["embedding"], SIZES["inner"], SIZES["embedding"] // 2
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(VOCABULARY), wide),
        "output.weight": (len(VOCABULARY), wide),
        "output_norm.weight": (wide,),
        "blk.0.attn_norm.weight": (wide,),
        "blk.0.ffn_norm.weight": (wide,),
        "blk.0.attn_q.weight": (wide, wide),
        "blk.0.attn_q.bias": (wide,),
        "blk.0.attn_k.weight": (narrow, wide),
        "blk.0.attn_k.bias": (narrow,),
        "blk.0.attn_v.weight": (narrow, wide),
        "blk.0.attn_v.bias": (narrow,),
        "blk.0.attn_output.weight": (wide, wide),
        "blk.0.ffn_gate.weight": (inner, wide),
        "blk.0.ffn_up.weight": (inner, wide),
        "blk.0.ffn_down.weight": (wide, inner),
    }
    drawn = np.random.default_rng(0)
    return {name: drawn.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def test_a_gguf_file_is_a_weight_by_its_path(tiny: Path) -> None:
    assert gguf_file(str(tiny)) == tiny
    assert public_name(str(tiny)) == "tiny.gguf"
    with pytest.raises(UserError, match=r"nowhere\.gguf is missing"):
        gguf_file("nowhere.gguf")
    with pytest.raises(UserError, match=r"nowhere\.gguf is missing"):
        resolve("nowhere.gguf")


def test_the_unpacked_weights_are_those_of_the_file_with_its_own_head(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(resolve(str(tiny)))
    weights, stored = model.state_dict(), tiny_weights()
    assert len(weights) == len(stored)
    named = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "output_norm.weight": "model.norm.weight",
        "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
        "blk.0.attn_k.bias": "model.layers.0.self_attn.k_proj.bias",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
    }
    for name, ours in named.items():
        assert torch.equal(weights[ours], torch.from_numpy(stored[name]).to(torch.bfloat16)), name
    assert not model.config.tie_word_embeddings
    assert model.config.rope_parameters["rope_theta"] == 12345
    assert model.config.rms_norm_eps == pytest.approx(1e-6)
    assert not hasattr(model.config, "quantization_config")


def test_the_tokenizer_is_had_without_the_weights(tiny: Path) -> None:
    folder = tokenizer_folder(str(tiny))
    assert not list(folder.glob("*.safetensors"))
    assert AutoConfig.from_pretrained(folder).hidden_size == SIZES["embedding"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "the"}], tokenize=False)
    assert asked == "<|im_start|>user\nthe<|im_end|>\n"
    assert tokenizer.eos_token == "<|im_end|>"
    start, end, the = (VOCABULARY.index(token) for token in ("<|im_start|>", "<|im_end|>", "the"))
    assert tokenizer("<|im_start|>the<|im_end|>").input_ids == [start, the, end]
    typed = tokenizer("<|im_start|>the<|im_end|>", split_special_tokens=True).input_ids
    assert the in typed and not {start, end} & set(typed)


def test_what_is_made_of_a_file_is_made_again_when_the_file_is_another(tiny: Path) -> None:
    first = tokenizer_folder(str(tiny))
    made = (first / "tokenizer.json").stat().st_mtime_ns
    assert tokenizer_folder(str(tiny)) == first
    assert (first / "tokenizer.json").stat().st_mtime_ns == made
    tiny.write_bytes(tiny.read_bytes() + b"\0")
    assert tokenizer_folder(str(tiny)) != first


@pytest.mark.parametrize("kept", [0, 3, 20, 1000, -1000])
def test_a_file_that_ends_too_early_or_is_no_gguf_is_one_sentence(tiny: Path, kept: int) -> None:
    tiny.write_bytes(tiny.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"tiny\.gguf could not be read as a GGUF.*download it again"):
        resolve(str(tiny))
    tiny.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"tiny\.gguf could not be read as a GGUF.*download it again"):
        tokenizer_folder(str(tiny))


@pytest.fixture(scope="module")
def qwen() -> Path:
    download = CATALOGUE[QWEN]
    assert isinstance(download, Download)
    file = cache_folder() / download.file
    if not has_hash(file, download.sha256):
        pytest.skip(f"{file} is not here; make setup fetches it")
    return file


@pytest.fixture(scope="module")
def tokenizer(qwen: Path) -> Any:
    """Qwen's own class of it, from the unpacked file."""
    return AutoTokenizer.from_pretrained(tokenizer_folder(QWEN))


@pytest.fixture(scope="module")
def llama_ids(qwen: Path) -> Iterator[Callable[[str, bool], list[int]]]:
    """llama.cpp's own tokenizer: a text, and whether control tokens are read in it -> ids."""
    from vlm.engines.llama_library import LibraryProblem, load_library

    try:
        library = load_library()
    except LibraryProblem as problem:
        pytest.skip(str(problem))
    parameters = library.llama_model_default_params()
    parameters.vocab_only = True
    model = library.llama_model_load_from_file(str(qwen).encode(), parameters)
    vocabulary = ctypes.c_void_p(library.llama_model_get_vocab(model))
    flags = ctypes.c_bool, ctypes.c_bool
    library.llama_tokenize.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.POINTER(ctypes.c_int32),
        ctypes.c_int32,
        *flags,
    ]

    def ids(text: str, control: bool) -> list[int]:
        content = text.encode()
        room = (ctypes.c_int32 * (len(content) + 8))()
        count = library.llama_tokenize(vocabulary, content, len(content), room, len(room), False, control)
        return list(room[:count])

    yield ids
    library.llama_model_free(model)


@pytest.mark.slow
def test_qwens_tokenizer_has_its_control_tokens_and_template(tokenizer: Any) -> None:
    assert tokenizer.is_fast
    assert tokenizer("<|im_start|>Hi<|im_end|>").input_ids == [151644, 13048, 151645]
    assert tokenizer.eos_token_id == 151645
    assert not {151644, 151645} & set(
        tokenizer("<|im_start|>Hi<|im_end|>", split_special_tokens=True).input_ids
    )
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert asked.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.slow
def test_the_plain_class_makes_the_ids_of_the_models_own(tokenizer: Any) -> None:
    own, plain = tokenizer, PreTrainedTokenizerFast.from_pretrained(tokenizer_folder(QWEN))
    for text in [*diverse_texts(), "cafe\u0301", "<|im_start|>a<|im_end|>"]:
        for typed in (False, True):
            assert (
                plain(text, split_special_tokens=typed).input_ids
                == own(text, split_special_tokens=typed).input_ids
            )
    assert plain.all_special_ids == own.all_special_ids and plain.chat_template == own.chat_template


@pytest.mark.slow
def test_qwens_ids_are_llama_cpps(tokenizer: Any, llama_ids: Callable[[str, bool], list[int]]) -> None:
    """Of text as Unicode composes it: Qwen's own tokenizer composes it (NFC), llama.cpp takes it as it comes."""
    for text in diverse_texts():
        composed = unicodedata.normalize("NFC", text)
        assert tokenizer(text).input_ids == llama_ids(composed, True), text
        assert tokenizer(text, split_special_tokens=True).input_ids == llama_ids(composed, False), text


def diverse_texts() -> list[str]:
    written = """It's we'll I'M you'RE don't DON'T|12345 6.789 3,000,000 km²|a  b   c    d|def f(x):\n    return x**2  # y
Ünïcödé façade naïve e\u0301|日本語のテキスト。中文混合English。|Привет, мир!|مرحبا بالعالم|שלום|हिन्दी|ไทยภาษา|한국어
😀 👨\u200d👩\u200d👧 🇦🇺|<|im_start|>user\nHi<|im_end|>\n|<|im_start |>|<tool_call>{}</tool_call>|½ ¼ Ⅷ ① ²³|٣٤٥ १२३
x\r\ny\r\n\r\nz|!!!??...---|http://example.com/a?b=c&d=%20e#f|C:\\Users\\x|$x^2+\\frac{1}{2}$|ﬁ ＡＢＣ|\u00a0\u2003\u200b"""
    pieces = [*" abcXYZ012\n\t.,!?'\"-_()é中😀ß\u0301", "the ", "ing", "'s", *CONTROL, " dog", "\n\n", "  "]
    drawn = np.random.default_rng(0)
    made = ["".join(drawn.choice(pieces, size=drawn.integers(1, 40))) for _ in range(200)]
    return ["", " ", "\n", "a" * 200, *written.split("|"), *made]

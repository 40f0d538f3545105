"""llama.cpp's own server loads what was exported, looks at a picture, and says what the torch engine says.

llama.cpp's GELU is the one with tanh, and its keys and values have 16 bits, so that scores differ in the third digit.
Questions are therefore chosen at which each token of the answer is likelier than any other by more than that. The picture
is as large as the tower takes it, since llama.cpp resizes pictures in its own way. It takes the class token for the last
patch and leaves out the first (vlm/export/mmproj_gguf.py): torch is given the same."""

import base64
import io
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from tests.test_llava_import import in_float32, pictures
from tests.tiny_llava import save_llava, save_tiny_adapter
from vlm.adapters import Export, export_adapter, import_adapter
from vlm.engines import Sampling
from vlm.engines.torch_engine import TorchEngine
from vlm.model.adapter import load_adapter
from vlm.model.adapter_folder import adapter_config
from vlm.model.prompts import PromptTurn, end_ids, segments
from vlm.model.vlm import VisionLanguageModel, build_model

LENGTH, CERTAIN = 4, 0.03
QUESTIONS = [f"What is {one}{other}?" for one in "abcdefgh" for other in "12345"]
GGUF, MERGED = Export("gguf", "float32"), Export("merged", "float32")


def torch_model(adapter: Path) -> VisionLanguageModel:
    model = build_model(in_float32(adapter_config(adapter)), "cpu")
    load_adapter(model, adapter)
    return model.eval()


@torch.inference_mode()
def as_llama_cpp_sees(model: VisionLanguageModel, picture: Image.Image) -> torch.Tensor:
    """Visual tokens [K, Dl] of all patches but the first, and of the class token behind them."""
    vision = model.eyes.vision
    vision.features = "patches"
    features = vision.see([picture])
    vision.features = "grid"
    return model.eyes.connector(torch.cat([features[:, 2:], features[:, :1]], dim=1))[0]


class Certain:
    """A question about a picture, and the torch engine's greedy answer, whose closest token is ahead by CERTAIN."""

    def __init__(
        self, model: VisionLanguageModel, lora: bool = True, picture: Image.Image | None = None
    ) -> None:
        self.picture = picture or pictures(1)[0]
        seen = as_llama_cpp_sees(model, self.picture)
        for self.question in QUESTIONS:
            self.answer, ahead = self._answer(model, seen, lora)
            if ahead > CERTAIN:
                return
        raise AssertionError("No question has a certain answer.")

    @torch.inference_mode()
    def _answer(self, model: VisionLanguageModel, seen: torch.Tensor, lora: bool) -> tuple[str, float]:
        tokenizer = model.language.tokenizer
        prompt = segments(model.encode([PromptTurn(self.question, picture_tags=("",))]).ids, [seen])
        sampling = Sampling(LENGTH, repetition_penalty=1.0, end_ids=end_ids(tokenizer))
        stream = TorchEngine(model.language, "CPU", 256, 256).stream(prompt, lora, sampling)
        told = [token for token in stream if token is not None]
        parts = [
            part if isinstance(part, torch.Tensor) else model.language.embed(torch.tensor(part))
            for part in [*prompt, told]
        ]
        with model.language.lora(lora):
            scores = model.language.causal(inputs_embeds=torch.cat(parts)[None]).logits[
                0, -len(told) - 1 : -1
            ]
        best = scores.topk(2).values
        return tokenizer.decode(told, skip_special_tokens=True), float((best[:, 0] - best[:, 1]).min())


def language_file(folder: Path) -> Path:
    (file,) = (
        each for each in folder.glob("*.gguf") if "mmproj" not in each.stem and "-lora" not in each.stem
    )
    return file


def llama_server(folder: Path, lora_scale: float = 1.0) -> Any:
    from xllamacpp import CommonAdapterLoraInfo, CommonParams, Server

    how = CommonParams()
    how.model.path, how.mmproj.path = str(language_file(folder)), str(next(folder.glob("mmproj-*.gguf")))
    how.n_ctx, how.n_parallel, how.verbosity, how.warmup, how.fit_params = 512, 1, -1, False, False
    how.cpuparams.n_threads = how.cpuparams_batch.n_threads = 1
    loras = []
    for file in folder.glob("*-lora.gguf"):
        lora = CommonAdapterLoraInfo()
        lora.path, lora.scale = str(file), lora_scale
        loras.append(lora)
    how.lora_adapters = loras
    return Server(how)


def say(server: Any, asked: Certain) -> str:
    packed = io.BytesIO()
    asked.picture.save(packed, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": asked.question}]
    sent = {"messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": LENGTH}
    return server.handle_chat_completions(sent | {"repeat_penalty": 1.0})["choices"][0]["message"]["content"]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["phi3", "llama", "qwen2"])
def test_llama_cpp_says_what_torch_says_with_the_lora_and_without(architecture: str, tmp_path: Path) -> None:
    adapter = save_tiny_adapter(tmp_path, architecture)
    model = torch_model(adapter)
    exported = export_adapter(str(adapter), GGUF, tmp_path / "gguf")
    answers = {}
    for lora in (True, False):
        certain = Certain(model, lora)
        answers[lora] = certain.answer
        assert say(llama_server(exported, float(lora)), certain) == certain.answer
    assert answers[True] != answers[False]
    merged = export_adapter(str(adapter), MERGED, tmp_path / "merged")
    assert not list(merged.glob("*-lora.gguf"))
    certain = Certain(model)
    assert say(llama_server(merged), certain) == certain.answer


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["phi3", "llama"])
def test_an_imported_llava_goes_on_to_llama_cpp(architecture: str, tmp_path: Path) -> None:
    import_adapter(str(save_llava(tmp_path / architecture, architecture)), tmp_path / "adapter")
    exported = export_adapter(str(tmp_path / "adapter"), GGUF, tmp_path / "gguf")
    certain = Certain(torch_model(tmp_path / "adapter"))
    assert say(llama_server(exported), certain) == certain.answer


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layer"), [("norm-mlp", -2), ("mlp", -1), ("mlp", -3)])
def test_a_layer_norm_and_any_layer_of_the_tower_go_with_it(kind: str, layer: int, tmp_path: Path) -> None:
    adapter = save_tiny_adapter(tmp_path, "qwen2", kind, layer=layer)
    exported = export_adapter(str(adapter), MERGED, tmp_path / "merged")
    certain = Certain(torch_model(adapter))
    assert say(llama_server(exported), certain) == certain.answer


def test_where_the_class_token_comes_first_positions_are_as_in_the_tower(tmp_path: Path) -> None:
    adapter = save_tiny_adapter(tmp_path, "qwen2")
    rows = {}
    for place in ("last", "first"):
        exported = export_adapter(
            str(adapter), Export("merged", "float32", class_token=place), tmp_path / place
        )
        tensors = gguf.GGUFReader(next(exported.glob("mmproj-*"))).tensors
        (rows[place],) = (np.array(each.data) for each in tensors if each.name == "v.position_embd.weight")
    positions = torch_model(adapter).eyes.vision.network.vision_model.embeddings.position_embedding.weight
    assert np.array_equal(rows["first"], positions.detach().numpy())
    assert np.array_equal(rows["last"], np.concatenate([rows["first"][1:], rows["first"][:1]]))


def test_half_precision_halves_the_file_and_norms_stay_whole(tmp_path: Path) -> None:
    adapter = save_tiny_adapter(tmp_path, "llama")
    for precision in ("float16", "bfloat16"):
        exported = export_adapter(str(adapter), Export("merged", precision), tmp_path / precision)
        kinds = {
            each.name: each.tensor_type.name for each in gguf.GGUFReader(language_file(exported)).tensors
        }
        assert kinds["blk.0.attn_q.weight"] == {"float16": "F16", "bfloat16": "BF16"}[precision]
        assert kinds["blk.0.attn_norm.weight"] == "F32"


def test_the_modelfile_names_the_files_and_writes_the_chat_template(tmp_path: Path) -> None:
    adapter = save_tiny_adapter(tmp_path, "qwen2")
    exported = export_adapter(str(adapter), GGUF, tmp_path / "gguf")
    lines = (exported / "Modelfile").read_text(encoding="utf-8")
    named = [line.split("./")[1] for line in lines.splitlines() if line.startswith(("FROM", "ADAPTER"))]
    assert sorted(named) == sorted(file.name for file in exported.glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(adapter_config(adapter).language.weights)
    asked = [{"role": "system", "content": "{{ .System }}"}, {"role": "user", "content": "{{ .Prompt }}"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    told = (
        lines.split('"""')[1]
        .replace("{{ if .System }}", "")
        .replace("{{ else }}<|im_start|>user\n{{ end }}", "")
    )
    assert told.startswith(prompt + "{{ .Response }}<|im_end|>")
    assert 'PARAMETER stop "<|im_end|>"' in lines

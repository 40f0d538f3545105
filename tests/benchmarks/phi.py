"""python tests/benchmarks/phi.py --json phi.json: the preset phi-3.5 at its full size, with random weights.

Measures, alternating, this program and Transformers' LlavaForConditionalGeneration of the same CLIP, Phi-3, LoRA and
4-bit weights: training examples a second and peak memory for each batch size, with and without gradient checkpointing;
time to the first token and tokens a second of an image answer, also for a loop without a key-value cache, which calls
the model on the whole text again for every token. Where there is no GPU, a CPU with Linux measures less of it (an hour on
two cores; 20 GB of memory and of disk); `--tiny` tries the benchmark itself on tiny models.
"""

import argparse
import ctypes
import gc
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402  (comes with accelerate)
import torch  # noqa: E402
from peft.helpers import disable_input_dtype_casting  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from tests.tiny_phi import phi_tokenizer, tiny_phi_config  # noqa: E402
from vlm.config import ModelConfig, load_model_config  # noqa: E402
from vlm.engines import Prompt, Sampling  # noqa: E402
from vlm.engines.torch_engine import TorchEngine  # noqa: E402
from vlm.model.language import attach_lora, nf4  # noqa: E402
from vlm.model.prompts import PromptTurn, collate, encode, segments  # noqa: E402
from vlm.model.sizes import architecture  # noqa: E402
from vlm.model.vlm import VisionLanguageModel, build_model  # noqa: E402

QUESTION, ANSWER = "What is in the picture, and where is it?", "a small brown dog asleep on a red sofa"
BATCH_SIZES = {"cuda": [1, 2, 4, 8, 16, 32], "cpu": [1, 2]}
STEPS = {"cuda": 5, "cpu": 3}  # that are timed, of each batch size
TOKENS = 64  # of an answer
TINY_STEPS, TINY_TOKENS = 1, 8  # which only try the benchmark
PROCESS = Path("/proc/self")  # where Linux tells, and forgets, the most memory that a process has held


def full_size(folder: Path) -> ModelConfig:
    """The preset with its two models made with random weights and saved, so that they load as real ones do."""
    config = load_model_config("phi-3.5")
    language, _ = architecture(config.language.weights)
    vision, _ = architecture(config.vision.weights)
    torch.set_default_dtype(torch.bfloat16)
    AutoModelForCausalLM.from_config(language).save_pretrained(folder / "phi")
    torch.set_default_dtype(torch.float32)
    phi_tokenizer().save_pretrained(folder / "phi")
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "clip")
    return replace(
        config,
        vision=replace(config.vision, weights=str(folder / "clip")),
        language=replace(config.language, weights=str(folder / "phi")),
    )


class Ours:
    """This program, with CLIP's patches, so that as many visual tokens are read as LLaVA reads."""

    resident: int  # bytes of the device's memory

    def __init__(self, config: ModelConfig, device: str, checkpointing: bool) -> None:
        vision = replace(config.vision, features="patches", layer=-2)
        self.model: VisionLanguageModel = build_model(replace(config, vision=vision), device)
        self.model.language.add_lora(config.lora)
        self.model.language.prepare_training(checkpointing)
        trained = self.model.train_only("projector+lora").values()
        self.trained = [parameter for parameters in trained for parameter in parameters]
        self.model.train()

    def loss(self, images: list[Image.Image]) -> torch.Tensor:
        features = self.model.eyes.vision.see(images).clone()  # what is seen is seen in inference mode
        encoded = self.model.encode([PromptTurn(QUESTION, ANSWER, ("",))])
        batch = collate([encoded] * len(images), self.model.language.pad_id)
        return self.model(**batch._asdict(), patch_features=features)["loss"]

    def training(self) -> AbstractContextManager[Any]:
        return disable_input_dtype_casting(self.model.language.model)  # as training.finetune does


class Llava:
    """Transformers' own class of the same parts, its projector trained and its vision tower frozen."""

    resident: int

    def __init__(self, config: ModelConfig, device: str, checkpointing: bool) -> None:
        vision, _ = architecture(config.vision.weights)
        language, _ = architecture(config.language.weights)
        vision = getattr(vision, "vision_config", vision)  # a CLIP of both halves, where it is tiny
        vision = CLIPVisionConfig(**vision.to_dict())
        tokenizer = phi_tokenizer()
        self.image_token = language.vocab_size - 1
        llava = LlavaConfig(
            vision_config=vision,
            text_config=language,
            image_token_index=self.image_token,
            vision_feature_select_strategy="full",
            vision_feature_layer=-2,
        )
        with tempfile.TemporaryDirectory() as folder:  # 4-bit weights are made while a checkpoint is read
            torch.set_default_dtype(torch.bfloat16)
            LlavaForConditionalGeneration(llava).save_pretrained(folder)
            torch.set_default_dtype(torch.float32)
            quantisation = nf4(torch.bfloat16)
            quantisation.llm_int8_skip_modules = [
                "lm_head",
                "model.vision_tower",
                "model.multi_modal_projector",
            ]
            model = LlavaForConditionalGeneration.from_pretrained(
                folder, quantization_config=quantisation, device_map={"": device}, dtype=torch.bfloat16
            )
        model.requires_grad_(False)
        self.model = attach_lora(model, config.lora)
        for name, parameter in self.model.named_parameters():
            if "multi_modal_projector" in name:
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
        if checkpointing:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.visual_tokens = 1 + (vision.image_size // vision.patch_size) ** 2
        self.pixels = torch.zeros(1, 3, vision.image_size, vision.image_size, device=device)
        self.prompt = tokenizer(f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n")["input_ids"]
        self.answer = tokenizer(f"{ANSWER}<|end|>")["input_ids"]
        self.model.train()

    def inputs(self, count: int, answer: bool) -> dict[str, torch.Tensor]:
        visual = [self.image_token] * self.visual_tokens
        ids = self.prompt[:2] + visual + self.prompt[2:] + (self.answer if answer else [])
        row = torch.tensor([ids] * count, device=self.pixels.device)
        labels = row.clone()
        labels[:, : -len(self.answer)] = -100
        known = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        known["pixel_values"] = self.pixels.expand(count, -1, -1, -1)
        return known | ({"labels": labels} if answer else {})

    def loss(self, images: list[Image.Image]) -> torch.Tensor:
        return self.model(**self.inputs(len(images), answer=True)).loss

    def training(self) -> AbstractContextManager[Any]:
        return nullcontext()


def resident_bytes(device: str) -> int:
    """What this process holds of the device's memory."""
    gc.collect()
    if device.startswith("cuda"):
        return torch.cuda.memory_allocated()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # hand back what is free: it is no one's
    return psutil.Process().memory_info().rss


def hold(model: nn.Module) -> None:
    """Keep the weights in memory, where a CPU has left some of them in the pages of their file, which cannot be counted."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    else:
        (PROCESS / "clear_refs").write_text("5")


def peak_bytes(device: str) -> int:
    """The most that it held since `forget_peak`."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def train_speed(
    subjects: dict[str, Any], device: str, batch_size: int, steps: int
) -> list[dict[str, str | int | float | None]]:
    """Examples a second of whole steps, which the subjects take in turns, behind a first that is not counted; and the
    peak memory of one more. Empty where memory does not suffice."""
    images = [Image.new("RGB", (320, 240), (10 * index % 255, 90, 120)) for index in range(batch_size)]
    optimizers = {name: torch.optim.AdamW(subject.trained, lr=1e-4) for name, subject in subjects.items()}
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    peaks: dict[str, int] = {}
    for turn, name in itertools.product(range(1 + steps + 1), subjects):
        if name not in optimizers:
            continue
        is_last = turn > steps
        if is_last:
            others = resident_bytes(device) - subjects[name].resident - state_bytes(optimizers[name])
            forget_peak(device)
        try:
            seconds[name].append(step_seconds(subjects[name], optimizers[name], images, device))
        except torch.cuda.OutOfMemoryError:
            optimizers.pop(name).zero_grad()
            torch.cuda.empty_cache()
            continue
        if is_last:
            peaks[name] = peak_bytes(device) - others
    lines: list[dict[str, str | int | float | None]] = []
    for name in subjects:
        line = {"who": name, "batch_size": batch_size, "examples_per_second": None, "peak_bytes": None}
        if name in optimizers:
            line["examples_per_second"] = batch_size / statistics.median(seconds[name][1:-1])
            line["peak_bytes"] = peaks[name]
        lines.append(line)
    return lines


def step_seconds(
    subject: Any, optimizer: torch.optim.Optimizer, images: list[Image.Image], device: str
) -> float:
    start = time.perf_counter()
    with subject.training():
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            loss = subject.loss(images)
        loss.backward()
        nn.utils.clip_grad_norm_(subject.trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait(device)
    return time.perf_counter() - start


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    averages = itertools.chain(*(state.values() for state in optimizer.state.values()))
    return sum(average.numel() * average.element_size() for average in averages)


def answer_speed(first: Callable[[], Any], whole: Callable[[], int], device: str) -> dict[str, float]:
    """`first` makes one token, once more to warm up, and `whole` many, and tells how many."""
    first(), wait(device)
    start = time.perf_counter()
    first(), wait(device)
    first_seconds = time.perf_counter() - start
    start = time.perf_counter()
    tokens = whole()
    wait(device)
    seconds = time.perf_counter() - start
    return {
        "first_token_seconds": first_seconds,
        "tokens_per_second": tokens / seconds,
        "seconds_per_token": seconds / tokens,
        "tokens": tokens,
    }


def serving(config: ModelConfig, ours: Ours, llava: Llava, device: str, tokens: int) -> dict[str, Any]:
    model, language = ours.model.eval(), ours.model.language
    llava.model.eval()
    for subject, parts in ((ours, (model.connector, language)), (llava, (llava.model,))):
        before = resident_bytes(device)
        for parameter in itertools.chain(*(part.parameters() for part in parts)):
            if parameter.dtype is torch.float32:  # as an adapter is loaded to serve
                parameter.data = parameter.data.to(language.dtype)
        subject.resident += resident_bytes(device) - before

    def prompt() -> Prompt:
        (sight,) = model.eyes.see([Image.new("RGB", (320, 240), "red")])
        turn = PromptTurn(QUESTION, "", ("",))
        ids = encode(language.tokenizer, [turn], model.eyes.tokens_per_picture).ids
        return segments(ids, [sight.visual_tokens])

    def generate(count: int) -> int:
        engine = TorchEngine(
            language, device, config.language.context, 0
        )  # anew: it remembers what it has read
        sampling = Sampling(count, repetition_penalty=1.0)
        return sum(token is not None for token in engine.stream(prompt(), True, sampling))

    def uncached(count: int) -> int:
        """A loop without a cache: the whole text again for every token."""
        with torch.inference_mode():
            parts = [
                part.to(language.dtype)
                if isinstance(part, torch.Tensor)
                else language.embed(torch.tensor(part))
                for part in prompt()
            ]
            embeds = torch.cat(parts).unsqueeze(0)
            for _ in range(count):
                token = language.model(inputs_embeds=embeds, use_cache=False).logits[0, -1].argmax()
                embeds = torch.cat([embeds, language.embed(token.view(1, 1))], dim=1)
        return count

    def llava_generate(count: int) -> int:
        inputs = llava.inputs(1, answer=False)
        with torch.inference_mode():
            ids = llava.model.generate(**inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False)
        return ids.shape[1] - inputs["input_ids"].shape[1]

    results = {}
    whose = {"ours": (ours, generate), "llava": (llava, llava_generate), "no cache": (ours, uncached)}
    for name, (subject, make) in whose.items():
        others = resident_bytes(device) - subject.resident
        forget_peak(device)
        results[name] = answer_speed(lambda make=make: make(1), lambda make=make: make(tokens), device)
        results[name]["peak_bytes"] = peak_bytes(device) - others
    results["times_the_loop_without_cache"] = (
        results["no cache"]["seconds_per_token"] / results["ours"]["seconds_per_token"]
    )
    return results


def measure(
    config: ModelConfig, device: str, batch_sizes: list[int], steps: int, tokens: int
) -> dict[str, Any]:
    training = []
    for checkpointing in (False, True):
        built: dict[str, Any] = {}  # both are in memory, so that they can alternate
        for name, kind in (("ours", Ours), ("llava", Llava)):
            before = resident_bytes(device)
            built[name] = kind(config, device, checkpointing)
            hold(built[name].model)
            built[name].resident = resident_bytes(device) - before
        for batch_size in batch_sizes:
            for line in train_speed(built, device, batch_size, steps):
                training.append(line | {"gradient_checkpointing": checkpointing})
                print(json.dumps(training[-1]), file=sys.stderr)
    answers = serving(config, built["ours"], built["llava"], device, tokens)
    return {
        "device": torch.cuda.get_device_name()
        if device.startswith("cuda")
        else f"CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "training": training,
        "answers": answers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny models on the CPU, to try the benchmark itself"
    )
    arguments = parser.parse_args()
    kind = "cuda" if torch.cuda.is_available() and not arguments.tiny else "cpu"
    device = {"cuda": "cuda:0", "cpu": "cpu"}[kind]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        config = (tiny_phi_config if arguments.tiny else full_size)(Path(folder))
        steps, tokens = (TINY_STEPS, TINY_TOKENS) if arguments.tiny else (STEPS[kind], TOKENS)
        results = measure(config, device, BATCH_SIZES[kind], steps, tokens)
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

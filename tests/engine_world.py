"""What the engines' contract is tested with: a tiny model, its engines, and questions whose answers are known for certain.

The answers are those of Transformers' own model, which reads the whole text again for every token: no cache and no engine
has a part in them. llama.cpp keeps keys and values in 16 bits, so that its scores differ in the third digit. Questions are
therefore chosen at which each token of the answer is likelier than any other by more than that."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from tests.tiny_gguf import EMBEDDING_SIZE, VOCABULARY, save_lora, tiny_causal, write_gguf
from vlm.engines import Engine, Prompt, Sampling, Segment, prompt_keys
from vlm.engines.llama_cpp import LlamaCppEngine
from vlm.engines.lora_gguf import lora_as_gguf
from vlm.engines.torch_engine import TorchEngine
from vlm.model.language import LanguageModel

KINDS = {"torch": "qwen2", "llama.cpp-qwen2": "qwen2", "llama.cpp-llama": "llama"}
LENGTH = 8  # tokens of an answer
CERTAIN = 0.06  # by how much the first token's score is ahead
CANDIDATES = 16  # questions among which certain ones are looked for
TOKENIZER = SimpleNamespace(pad_token_id=0, unk_token_id=None, eos_token_id=2)


@dataclass(frozen=True)
class Asked:
    """A prompt and its greedy answers by whether the adapter is on; only of those sides that are certain."""

    prompt: list[Segment]
    answers: dict[bool, list[int]]


class World:
    """One tiny model: its reference answers, and engines that serve it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, architecture = kind, KINDS[kind]
        self._asked: dict[Hashable, list[Asked]] = {}
        self.base = tiny_causal(architecture)
        self.lora = save_lora(tiny_causal(architecture), folder / "lora")
        self.adapted = PeftModel.from_pretrained(tiny_causal(architecture), str(self.lora)).eval()
        self.gguf = write_gguf(self.base, folder / f"tiny-{architecture}.gguf")

    def engine(self, context: int = 256, cells: int = 1024, adapter: bool = True) -> Engine:
        if self.kind != "torch":
            lora = lora_as_gguf(self.lora, self.gguf) if adapter else None
            return LlamaCppEngine(self.gguf, lora, context, cells)
        language = LanguageModel(tiny_causal("qwen2"), TOKENIZER)
        if adapter:
            language.load_lora(self.lora)
        return TorchEngine(language, "CPU", context, cells)

    def embedded(self, ids: Sequence[int]) -> Tensor:
        """The visual tokens [K, Dl] that are the same as these ids."""
        return self.base.get_input_embeddings()(torch.tensor(ids)).detach()

    def picture(self, seed: int, tokens: int = 4) -> Tensor:
        """Visual tokens [K, Dl] as large as the text's."""
        draw = torch.Generator().manual_seed(seed)
        return 0.2 * torch.randn(tokens, EMBEDDING_SIZE, generator=draw)

    @torch.inference_mode()
    def greedy(
        self, prompts: Sequence[Prompt], adapter: bool, length: int, use_cache: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Prompts of one length -> the answers [B, length], and by how much the closest of their tokens is ahead [B]."""
        model = self.adapted if adapter else self.base
        embeds = torch.stack([torch.cat([self._embed(part) for part in prompt]) for prompt in prompts])
        ids, ahead, cache = [], [], None
        for _ in range(length):
            output = model(inputs_embeds=embeds, use_cache=use_cache, past_key_values=cache, logits_to_keep=1)
            best, cache = output.logits[:, -1].topk(2), output.past_key_values
            ids.append(best.indices[:, 0])
            ahead.append(best.values[:, 0] - best.values[:, 1])
            new = model.get_input_embeddings()(ids[-1][:, None])
            embeds = new if use_cache else torch.cat([embeds, new], dim=1)
        return torch.stack(ids, 1), torch.stack(ahead).amin(0)

    def _embed(self, part: Segment) -> Tensor:
        return part if isinstance(part, Tensor) else self.embedded(part)

    def ask(
        self,
        beginning: Prompt = (),
        count: int = 1,
        sides: Sequence[bool] = (False, True),
        new: int = 12,
        length: int = LENGTH,
    ) -> list[Asked]:
        """Prompts that begin with `beginning` and go on with `new` random ids, whose answers are certain."""
        key = tuple(prompt_keys(beginning)), count, tuple(sides), new, length
        if key not in self._asked:
            self._asked[key] = self._ask(beginning, count, sides, new, length)
        return self._asked[key]

    def _ask(
        self, beginning: Prompt, count: int, sides: Sequence[bool], new: int, length: int
    ) -> list[Asked]:
        draw = torch.Generator().manual_seed(sum(map(len, beginning)))
        found: list[Prompt] = []
        while len(found) < count:
            ends = torch.randint(3, VOCABULARY, (CANDIDATES, new), generator=draw).tolist()
            prompts = [[*beginning, end] for end in ends]
            ahead = torch.stack([self.greedy(prompts, side, length, use_cache=True)[1] for side in sides])
            found += [prompt for prompt, least in zip(prompts, ahead.amin(0), strict=True) if least > CERTAIN]
        found = found[:count]
        answers = {side: self.greedy(found, side, length)[0].tolist() for side in sides}
        return [
            Asked(list(prompt), {side: answers[side][row] for side in sides})
            for row, prompt in enumerate(found)
        ]


def greedy(length: int = LENGTH, **more: Any) -> Sampling:
    return Sampling(length, repetition_penalty=1.0, **more)


def answer(engine: Engine, prompt: Prompt, adapter: bool, sampling: Sampling | None = None) -> list[int]:
    return tokens_of(engine.stream(prompt, adapter, sampling or greedy()))


def check(engine: Engine, asked: Asked, adapter: bool) -> None:
    told = answer(engine, asked.prompt, adapter, greedy(len(asked.answers[adapter])))
    assert told == asked.answers[adapter]


def closed_after(engine: Engine, count: int, prompt: Prompt, adapter: bool, sampling: Sampling) -> list[int]:
    """The first tokens of an answer that is stopped then."""
    with closing(engine.stream(prompt, adapter, sampling)) as stream:  # type: ignore[type-var]
        return [next_token(stream) for _ in range(count)]


def tokens_of(stream: Iterable[int | None]) -> list[int]:
    """Without what only says that there is none yet."""
    return [token for token in stream if token is not None]


def next_token(stream: Iterator[int | None]) -> int:
    return next(token for token in stream if token is not None)


class Decoding:
    """What an engine decodes from now on: how many positions at a time. `before` is called each time before, and may take
    its time, or fail."""

    def __init__(self, engine: Any) -> None:
        self.sizes: list[int] = []
        self.before: Callable[[], None] = lambda: None
        if isinstance(engine, TorchEngine):
            decoder = engine.language.causal.get_decoder()
            decoder.register_forward_pre_hook(
                lambda module, arguments, named: self._decoded(named["inputs_embeds"].shape[1]),
                with_kwargs=True,
            )
        else:
            engine._library = _Library(engine._library, self)

    @property
    def positions(self) -> int:
        return sum(self.sizes)

    def of(self, work: Callable[[], Any]) -> int:
        """How many positions are decoded while `work` is done."""
        before = self.positions
        work()
        return self.positions - before

    def _decoded(self, positions: int) -> None:
        self.before()
        self.sizes.append(positions)

    def slow(self, seconds: float) -> None:
        self.before = lambda: time.sleep(seconds)

    def fail_once(self) -> None:
        def fail() -> None:
            self.before = lambda: None
            raise RuntimeError("a cable was pulled")

        self.before = fail


class _Library:
    """llama.cpp's functions, as they are but for one, which tells what it does."""

    def __init__(self, library: Any, decoding: Decoding) -> None:
        self._library, self._decoding = library, decoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def llama_decode(self, context: int, batch: Any) -> int:
        try:
            self._decoding._decoded(batch.n_tokens)
        except RuntimeError:
            return -3
        return self._library.llama_decode(context, batch)


def served(world: World, **sizes: Any) -> Iterator[Engine]:
    engine = world.engine(**sizes)
    yield engine
    engine.close()

"""Pictures and texts in one space: two encoders, a head for each, and a learned temperature (CLIP, arXiv:2103.00020).

Embeddings are of unit length, and so are their first `dim` numbers once they are made so again: the shorter ones of
`dims` cost less to keep and to search (Matryoshka, arXiv:2205.13147).
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from more_itertools import chunked
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vlm.config import AlignerConfig
from vlm.config_reader import to_dict
from vlm.errors import UserError
from vlm.model.pooling import ClassGuess, Head
from vlm.model.tags import pooled_for
from vlm.model.text_encoders import TEXTS_AT_ONCE, TokenFeatures, pad, read_all

PICTURES_AT_ONCE = 16
CLASS_TOKENS = 32  # of a class's text, since a few meanings are as long as four others
SCALE, LARGEST_SCALE = 1 / 0.07, 100.0  # at the start, and at most, as in CLIP
STAGES = {  # stage -> the parts that train
    "heads": ("picture_head", "text_head", "class_guess"),  # locked-image tuning (LiT, arXiv:2111.07991)
    "full": ("picture_head", "text_head", "class_guess", "vision", "text"),
}


class EmbeddedPairs(NamedTuple):
    """Of unit length, in float32: pictures [P, E] and texts [T, E]."""

    pictures: Tensor
    texts: Tensor


class Aligner(nn.Module):
    """`preset.dims[0]` numbers for each picture and text, the more alike the better they match."""

    def __init__(
        self, config: AlignerConfig, vision: Any, text: Any, picture_head: Head, text_head: Head
    ) -> None:
        super().__init__()
        self.preset, self.vision, self.text = config, vision, text
        self.picture_head, self.text_head = picture_head, text_head
        classes = len(vision.classes) if config.class_texts else 0
        self.class_guess = ClassGuess(classes, config.dims[0]) if classes else None
        # Of the classes' texts, class by class; only training has them
        self.class_tokens: TokenFeatures | None = None
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))
        self.bias = nn.Parameter(torch.tensor(0.0))  # of SigLIP's loss
        self.encoders_trained = False  # whether they are saved as well

    @property
    def dims(self) -> tuple[int, ...]:
        return self.preset.dims

    @property
    def scale(self) -> float:
        """The inverse temperature: probabilities of texts are the softmax of `scale` times the similarities."""
        return min(math.exp(self.log_scale.item()), LARGEST_SCALE)

    @property
    def identity(self) -> str:
        """Changes with the config and the weights, so that embeddings made by others are not compared with these."""
        digest = hashlib.sha256(json.dumps(to_dict(self.preset), sort_keys=True).encode())
        for name, value in sorted(self.trained_state().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().half().numpy().tobytes())
        return f"{self.preset.name}-{digest.hexdigest()[:12]}"

    @property
    def device(self) -> torch.device:
        return self.log_scale.device

    def trained_state(self) -> dict[str, Tensor]:
        """The weights that are saved: all but those of encoders that were never trained."""
        frozen = () if self.encoders_trained else ("vision.", "text.")
        return {name: value for name, value in self.state_dict().items() if not name.startswith(frozen)}

    def train_only(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """Freeze all but the parts that `stage` trains; returns the trainable parameters by part."""
        if stage not in STAGES:
            raise UserError(f"There is no training stage {stage!r}. Valid: {', '.join(STAGES)}.")
        self.requires_grad_(False)
        modules = {name: module for name, module in self.named_children() if name in STAGES[stage]}
        trained = {name: list(module.parameters()) for name, module in modules.items()}
        trained["temperature"] = [self.log_scale, self.bias]
        for parameters in trained.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        self.encoders_trained = stage == "full"
        if self.encoders_trained:
            self.vision.float()  # CLIP is in half precision on a GPU, in which small steps of training are lost
            for parameter in self._without_use():
                parameter.requires_grad_(False)
        return {name: [each for each in own if each.requires_grad] for name, own in trained.items()}

    def _without_use(self) -> list[nn.Parameter]:
        """Trainable weights of the encoders that no embedding depends on, such as a pooler, and layers behind the one whose
        features are taken: several processes would wait for their gradients for good. Found by a picture and a text."""
        pixels = self.vision.preprocess(Image.new("RGB", (32, 32)))[None].to(self.device)
        ids, mask = (each.to(self.device) for each in self.text.tokenize(["a"]))
        embedded = self.embed_picture_inputs(pixels).sum() + self.embed_text_inputs(ids, mask).sum()
        trained = [*self.vision.parameters(), *self.text.parameters()]
        gradients = torch.autograd.grad(embedded, trained, allow_unused=True)
        return [each for each, gradient in zip(trained, gradients, strict=True) if gradient is None]

    def forward(self, pictures: Tensor, texts: Tensor, mask: Tensor) -> EmbeddedPairs:
        """Pictures: pixels [P, 3, S, S], with tiles [P, 1 + tiles, 3, S, S], or patch features [P, N, Dv] of a frozen
        encoder. Texts: token ids [T, L], or token features [T, L, Dt] of a frozen encoder; `mask` [T, L]. -> embeddings
        of both."""
        return EmbeddedPairs(self.embed_picture_inputs(pictures), self.embed_text_inputs(texts, mask))

    def embed_picture_inputs(self, pictures: Tensor) -> Tensor:
        """Pixels or patch features, as `forward` takes them -> [P, E]"""
        features = self.vision(pictures) if pictures.dim() > 3 else pictures
        return self._embed_features(features.to(self.log_scale.dtype))

    def _embed_features(self, patch_features: Tensor) -> Tensor:
        own = self.picture_head(patch_features)
        if self.class_guess is None:
            return own
        classifier = self.vision.classifier
        scores = classifier(pooled_for(classifier, patch_features))
        classes = (
            self._embed_classes(self.class_tokens)
            if self.training and self.class_tokens
            else self.class_guess.classes
        )
        return functional.normalize(own + self.class_guess(scores, classes), dim=-1)

    def _embed_classes(self, tokens: TokenFeatures) -> Tensor:
        """The mean direction of each class's texts [C, E]"""
        embedded = self.text_head(*tokens).unflatten(0, (-1, len(self.preset.class_texts)))
        return functional.normalize(embedded.mean(1), dim=-1)

    @property
    def class_texts(self) -> list[str]:
        """What each class of the picture encoder is called, class by class."""
        if self.class_guess is None:
            return []
        known = zip(self.vision.classes, self.vision.meanings, strict=True)
        return [
            text.format(name=name, meaning=meaning)
            for name, meaning in known
            for text in self.preset.class_texts
        ]

    @torch.no_grad()
    def read_class_texts(self, known: Callable[[str], Tensor] | None = None) -> None:
        """For training, in which the classes' embeddings change with the text head. `known`: a text -> its token features
        [L, Dt], where they were computed before."""
        texts = self.class_texts
        if texts and known:
            padded = pad([known(text)[:CLASS_TOKENS].float() for text in texts])
            self.class_tokens = TokenFeatures(*(each.to(self.device) for each in padded))
        elif texts:
            self.class_tokens = read_all(self.text, texts, CLASS_TOKENS)

    def train(self, mode: bool = True) -> "Aligner":
        super().train(mode)
        if not mode and self.class_guess is not None and self.class_tokens:
            if self.encoders_trained:
                self.read_class_texts()
            with torch.no_grad():
                self.class_guess.classes.copy_(self._embed_classes(self.class_tokens))
        return self

    def embed_text_inputs(self, texts: Tensor, mask: Tensor) -> Tensor:
        """Token ids or token features, as `forward` takes them -> [T, E]"""
        features = self.text(texts, mask) if texts.dim() == 2 else texts
        return self.text_head(features.to(self.log_scale.dtype), mask)

    def current_scale(self) -> Tensor:
        """`scale` with its gradient; the parameter is kept within bounds."""
        with torch.no_grad():
            self.log_scale.clamp_(0.0, math.log(LARGEST_SCALE))
        return self.log_scale.exp()

    @torch.inference_mode()
    def embed_pictures(self, images: Iterable[Image.Image], dim: int | None = None) -> Tensor:
        """RGB pictures of any size -> [B, dim], float32 on the CPU, of unit length. A few at a time: memory does not grow
        with a stream of them."""
        rows = [
            self._embed_features(self.vision.see(some).to(self.device, torch.float32)).cpu()
            for some in chunked(images, PICTURES_AT_ONCE)
        ]
        return self._shortened(rows, dim)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], dim: int | None = None) -> Tensor:
        """-> [B, dim], float32 on the CPU, of unit length. What is longer than `text.max_length` tokens is cut off."""
        if isinstance(texts, str):
            raise TypeError("embed_texts takes a list of texts")
        rows = [self.text_head(*self.text.read(some)).cpu() for some in chunked(texts, TEXTS_AT_ONCE)]
        return self._shortened(rows, dim)

    def _shortened(self, rows: Sequence[Tensor], dim: int | None) -> Tensor:
        top = self.dims[0]
        if dim is not None and not 1 <= dim <= top:
            raise UserError(
                f"The aligner {self.preset.name!r} has {top} dimensions, and {dim} were asked for."
            )
        embeddings = torch.cat(rows) if rows else torch.zeros(0, top)
        return functional.normalize(embeddings[:, : dim or top], dim=-1)

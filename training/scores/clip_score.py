"""How well a caption fits its picture, without references (CLIPScore, arXiv:2104.08718), by an aligner or by CLIP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from training.scores.predictions import Prediction
from vlm.errors import UserError
from vlm.inputs.images import open_image
from vlm.model.aligner import Aligner
from vlm.model.alignment import ALIGNER_FILE, ALIGNERS, load_aligner_model
from vlm.model.text_encoders import tokenize

SCALE = 2.5  # of the cosine, with which the paper spreads CLIP's over 0 to 1
PROMPT = "A photo depicts {}"  # what the paper has CLIP read
CLIP_LENGTH = 77  # tokens of a text that CLIP reads
AT_ONCE = 32


class PlainClip:
    """CLIP as its makers left it, as a judge: both halves project into one space, and of a picture the square in its middle
    is looked at, as in the paper, where elsewhere here it is padded to one."""

    def __init__(self, picture_half: Any, text_half: Any, tokenizer: Any) -> None:
        self.picture_half, self.text_half, self.tokenizer = picture_half, text_half, tokenizer

    @torch.inference_mode()
    def embed_pictures(self, images: Sequence[Image.Image]) -> Tensor:
        """[B, E] of unit length"""
        sides = (self.picture_half.image_size,) * 2
        squares = [ImageOps.fit(image, sides, Image.Resampling.BICUBIC) for image in images]
        return functional.normalize(self.picture_half.see(squares).squeeze(1).float().cpu(), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """[B, E] of unit length"""
        asked = [PROMPT.format(text) for text in texts]
        ids, mask = tokenize(self.tokenizer, asked, CLIP_LENGTH)
        return functional.normalize(self.text_half(ids, mask.long()).text_embeds.float(), dim=-1)


def load_judge(name: str) -> Aligner | PlainClip:
    """An aligner's folder or a shipped aligner's name; anything else is a CLIP's weights, as a preset names them."""
    if any((folder / ALIGNER_FILE).is_file() for folder in (Path(name), ALIGNERS / name)):
        return load_aligner_model(name)
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    from vlm.model.vision_transformer import load_clip
    from vlm.weights.resolve import plain_weight_errors, resolve

    folder = resolve(name)
    with plain_weight_errors(name):
        picture_half = load_clip(folder, "pooled", -1)
        text_half = CLIPTextModelWithProjection.from_pretrained(folder, dtype=torch.float32).eval()
        return PlainClip(picture_half, text_half, AutoTokenizer.from_pretrained(folder))


def clip_scores(predictions: Sequence[Prediction], judge: Any) -> list[float]:
    """Of predictions that have an answer and an image: 2.5 x the cosine, at least 0."""
    scores: list[float] = []
    for start in range(0, len(predictions), AT_ONCE):
        some = predictions[start : start + AT_ONCE]
        pictures = judge.embed_pictures([_opened(each.image) for each in some])
        texts = judge.embed_texts([str(each.answer) for each in some])
        scores += (SCALE * (pictures * texts).sum(-1).clamp(min=0)).tolist()
    return scores


def _opened(file: Path | None) -> Image.Image:
    if file is None or not file.is_file():
        raise UserError(
            f"The picture {file} is missing. `image` is a path below the folder of the predictions."
        )
    return open_image(file)

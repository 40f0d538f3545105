"""Pairs -> what the two sides of an aligner read of them, and how its heads begin."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from training.aligners.pairs import Captioned, PairData, damaged, names_of, read_pairs
from training.aligners.picture_file import PictureFile
from training.aligners.token_store import TokenStore
from training.aligners.validation import Side
from training.config import AlignmentConfig
from training.data import pictures_of
from training.data.augmentation import open_view, picture_id_of, with_views
from training.data.features import FeatureStore, averages_of
from vlm.model.aligner import Aligner
from vlm.model.text_encoders import pad

log = logging.getLogger("training")
SIGLIP_SCALE, SIGLIP_BIAS = 10.0, -10.0  # at the start (arXiv:2303.15343)


def texts_of(data: PairData, config: AlignmentConfig) -> dict[str, list[str]]:
    """The texts of every picture that trains or validates. Where names are kept out, no label is one of them."""
    pictures = [*data.train, *data.validation]
    without = frozenset[str]()
    if config.without_names_of:
        named = read_pairs(Path(config.data), [config.without_names_of], 0.0)
        without = names_of([*named.train, *named.held_out], config.without_names_of)
    return {each.picture: each.texts(without) for each in pictures}


def sides(
    aligner: Aligner, config: AlignmentConfig, texts: Mapping[str, Sequence[str]]
) -> tuple[Side, Side, set[str]]:
    """A picture's or view's id -> its features, a text -> its features; where the encoders train, pixels and token ids.
    Beside them the pictures that are broken."""
    folder = Path(config.data)
    wanted = {name for name, own in texts.items() if own}
    contents = pictures_of(folder, "train", {each.name for each in config.sources}, Counter())
    pictures = ((name, content) for name, content in contents if name in wanted)
    broken: set[str] = set()
    if config.stage == "heads":
        store, tokens = FeatureStore(folder, aligner.preset.vision), TokenStore(folder, aligner.preset.text)
        if missing := [name for name in wanted if name not in store or config.augmentation.views]:
            log.info("%d pictures may have to be encoded", len(missing))
            views = with_views(pictures, config.augmentation)
            store.add(views, aligner.vision, config.augmentation, broken=broken)
        tokens.add([*(text for own in texts.values() for text in own), *aligner.class_texts], aligner.text)
        aligner.read_class_texts(tokens.__getitem__)
        preset, found = aligner.preset, (store.__getitem__, tokens.__getitem__)
        heads = (preset.picture_head, preset.text_head)
        picture_of_side, text_of_side = (
            averages_of(each) if head.pooling == "mean" and not config.feature_noise else each
            for each, head in zip(found, heads, strict=True)
        )
        return picture_of_side, text_of_side, broken
    kept = PictureFile(pictures, Path(config.output))
    aligner.read_class_texts()

    def pixels_of(view: str) -> Tensor:
        return aligner.vision.preprocess(open_view(view, kept[picture_id_of(view)], config.augmentation))

    def ids_of(text: str) -> Tensor:
        return aligner.text.tokenize([text])[0][0]

    return pixels_of, ids_of, damaged(kept.items())


@torch.no_grad()
def prepare(
    aligner: Aligner,
    config: AlignmentConfig,
    train: Sequence[Captioned],
    texts: Mapping[str, Sequence[str]],
    picture_of_side: Side,
    text_of_side: Side,
) -> None:
    """Statistics of the training features, what training alone does to the heads, and SigLIP's start."""
    sample = train[:: max(1, len(train) // 256)]
    pictures = torch.stack([picture_of_side(each.picture) for each in sample]).to(aligner.device)
    words = [text_of_side(texts[each.picture][0]) for each in sample]
    padded, mask = (each.to(aligner.device) for each in pad(words))
    features = aligner.vision(pictures) if pictures.dim() > 3 else pictures
    tokens = aligner.text(padded, mask) if padded.dim() == 2 else padded
    for head, values in ((aligner.picture_head, features.flatten(0, 1)), (aligner.text_head, tokens[mask])):
        head.normalise.take(values.float())
        head.dropout.p, head.noise = config.head_dropout, config.feature_noise
    if config.loss == "siglip":
        aligner.log_scale.fill_(math.log(SIGLIP_SCALE))
        aligner.bias.fill_(SIGLIP_BIAS)

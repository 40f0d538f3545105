"""The repository keeps its shape: imports run one way, and what the README says is there."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FORBIDDEN = {  # who may not import what
    "vlm": {"app", "training", "tests", "gradio", "matplotlib", "pyarrow"},
    "training": {"app", "tests", "gradio"},
}


def imported_packages(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        assert not imported_packages(file) & FORBIDDEN[package], file


def test_the_top_level_is_the_one_that_was_agreed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in listed.splitlines()}
    agreed = {"app.py", "vlm", "training", "assets", "tests", "requirements.txt", "requirements-weights.txt"}
    agreed |= {"README.md", "pyproject.toml", "Makefile"}
    assert {name for name in top if not name.startswith(".")} <= agreed


def test_no_pickle_is_loaded_and_no_remote_code_is_trusted() -> None:
    for file in [ROOT / "app.py", *(ROOT / "vlm").rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        assert "trust_remote_code" not in text, file
        assert "import pickle" not in text, file
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, (file, call)


def test_every_module_says_what_it_is_for() -> None:
    for file in [ROOT / "app.py", *(ROOT / "vlm").rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


def test_the_readmes_make_targets_exist() -> None:
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    assert {"run", "test"} <= targets
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= rules


def test_the_readmes_python_commands_exist_and_know_their_options() -> None:
    commands = re.findall(r"python -m ([\w.]+)([^\n`]*)", README)
    assert {module for module, _ in commands} >= {
        "vlm",
        "training.prepare",
        "training.finetune",
        "training.evaluate",
    }
    helps: dict[str, str] = {}
    for module, rest in commands:
        assert importlib.util.find_spec(module), module
        if module not in helps:
            asked = subprocess.run(
                [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
            )
            helps[module] = asked.stdout
        for option in re.findall(r"(?<!\S)--[\w-]+", rest):
            assert option in helps[module], (module, option)


def test_the_readmes_files_exist() -> None:
    tree = README.split("## Files", 1)[1].split("```")[1]
    paths = re.findall(r"^([\w./*{},<>-]+)  ", tree, re.MULTILINE)
    assert len(paths) > 10
    for path in paths:
        assert list(ROOT.glob(path)), path
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link

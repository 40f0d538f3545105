"""The repository keeps its shape: imports run one way, and what the README says is there."""

import ast
import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READMES = {file: (ROOT / file).read_text(encoding="utf-8") for file in ("README.md", "training/README.md")}
README = READMES["README.md"]
LINKED = {**READMES, "training/trials.md": (ROOT / "training/trials.md").read_text(encoding="utf-8")}

# Room -> the rooms and modules of this project that it may import, besides itself.
FLOOR = [
    "vlm.errors",
    "vlm.config",
    "vlm.config_reader",
    "vlm.terminal",
    "vlm.whole_files",
    "vlm.markdown_table",
    "vlm.locks",
    "vlm.machine",
]
BELOW_THE_PAGE = [*FLOOR, "vlm.weights", "vlm.inputs", "vlm.engines", "vlm.model", "vlm.chat"]
MAY_IMPORT = {
    "vlm.errors": [],
    "vlm.terminal": ["vlm.errors"],
    "vlm.whole_files": [],
    "vlm.markdown_table": [],
    "vlm.machine": [],
    "vlm.locks": ["vlm.errors"],
    "vlm.config": ["vlm.errors", "vlm.config_reader"],
    "vlm.config_reader": ["vlm.errors"],
    "vlm.weights": FLOOR,
    "vlm.inputs": [*FLOOR, "vlm.weights"],
    "vlm.model": [*FLOOR, "vlm.weights", "vlm.inputs"],
    "vlm.engines": [*FLOOR, "vlm.weights", "vlm.model"],
    "vlm.export": [*FLOOR, "vlm.weights", "vlm.model", "vlm.engines"],
    "vlm.chat": [*FLOOR, "vlm.weights", "vlm.inputs", "vlm.engines", "vlm.model"],
    "vlm.serving": BELOW_THE_PAGE,
    "vlm": [*BELOW_THE_PAGE, "vlm.export"],  # __init__, __main__, describe, adapters
    "training.untrusted": [],
    "training.digest": [],
    "training.picture": [],
    "training.wording": ["training.picture"],
    "training.data": [*BELOW_THE_PAGE, "training.digest", "training.picture", "training.wording"],
    "training.config": [*BELOW_THE_PAGE, "training.data"],
    "training.sources": [
        *BELOW_THE_PAGE, "training.untrusted", "training.picture", "training.wording", "training.data",
    ],
    "training.formats": [
        *BELOW_THE_PAGE, "training.untrusted", "training.picture", "training.wording", "training.data", "training.config",
        "training.sources",
    ],
    "training.runs": [*BELOW_THE_PAGE, "training.digest", "training.data", "training.config"],
    "training.scores": [*BELOW_THE_PAGE, "training.wording", "training.data"],
    "training.aligners": [
        *BELOW_THE_PAGE, "training.wording", "training.data", "training.config", "training.runs", "training.scores",
        "training.plot",
    ],
    "training.tasks": [*BELOW_THE_PAGE, "training.data", "training.scores"],
    "training.scores.alignment": [*BELOW_THE_PAGE, "training.data", "training.scores", "training.aligners"],
    "training.adapters": [*BELOW_THE_PAGE, "training.wording", "training.data", "training.config", "training.runs"],
    "training.bootstrapping": [
        *BELOW_THE_PAGE, "training.wording", "training.data", "training.config", "training.scores", "training.aligners",
        "training.align",
    ],
    "training": [*BELOW_THE_PAGE, "vlm", "training"],
    "app": [*FLOOR, "vlm.serving", "vlm"],
}  # fmt: skip

# Package -> the only places that may import it.
ONLY_IN = {
    "gradio": ["vlm.serving"],
    "matplotlib": ["training"],
    "pyarrow": ["training", "vlm.model.embeddings", "vlm.chat.feedback"],
    "peft": ["vlm.model.language", "vlm.model.adapter"],
    "bitsandbytes": ["vlm.model.language"],
    "xllamacpp": ["vlm.engines"],
    "spaces": ["app"],
    "app": [],
    "tests": [],
}


UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib"}


def is_within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def modules() -> dict[str, Path]:
    files = [ROOT / "app.py", *(ROOT / "vlm").rglob("*.py"), *(ROOT / "training").rglob("*.py")]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


MODULES = modules()


def imports_of(file: Path) -> set[str]:
    """The modules that the file imports, also within functions; of other packages as written."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file} has a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else node.module)
    return names


IMPORTS = {module: imports_of(file) for module, file in MODULES.items()}


def room_of(module: str) -> str:
    return max((room for room in MAY_IMPORT if is_within(module, room)), key=len)


def may_import(module: str, imported: str) -> bool:
    room = room_of(module)
    if is_within(imported, room) and room_of(imported) == room:
        return True
    # "vlm" alone is the package's own surface, and not all that lies in it
    return any(
        is_within(imported, place) if place != "vlm" else imported == "vlm" for place in MAY_IMPORT[room]
    )


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    wrong = [
        f"{module} imports {imported}"
        for module in MODULES
        if room_of(module) == room
        for imported in sorted(IMPORTS[module])
        if imported in MODULES and not may_import(module, imported)
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {module: {name for name in IMPORTS[module] if name in MODULES} for module in MODULES}
    while free := [module for module, needed in left.items() if not needed & set(left)]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    wrong = [
        module
        for module, imported in IMPORTS.items()
        if any(is_within(name, package) for name in imported)
        and not any(is_within(module, place) for place in ONLY_IN[package])
    ]
    assert not wrong


def test_the_top_level_is_the_one_that_was_agreed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in listed.splitlines()}
    agreed = {"app.py", "vlm", "training", "assets", "tests", "requirements.txt", "requirements-weights.txt"}
    agreed |= {"README.md", "pyproject.toml", "Makefile", "deploy"}
    assert {name for name in top if not name.startswith(".")} <= agreed


def test_no_pickle_is_loaded_and_no_remote_code_is_trusted() -> None:
    for file in MODULES.values():
        text = file.read_text(encoding="utf-8")
        assert "trust_remote_code" not in text, file
        assert not unsafe_loads(ast.parse(text)), file


def unsafe_loads(tree: ast.AST) -> list[str]:
    """What imports an unpickler, or calls one that a keyword does not keep from running code."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if any(name.split(".")[0] in UNPICKLERS for name in names):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call):
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            torch_load = ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True"
            if torch_load or given.get("allow_pickle", "False") != "False":
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib",
        "np.load(file, allow_pickle=True)",
        "torch.load(\n    file,\n)",
        "torch.load(file, weights_only=False)",
    ],
)
def test_an_unsafe_load_is_noticed_however_it_is_written(code: str) -> None:
    assert unsafe_loads(ast.parse(code))
    assert not unsafe_loads(ast.parse("torch.load(\n    file,\n    weights_only=True)\nnp.load(file)"))


def test_every_module_says_what_it_is_for() -> None:
    for file in MODULES.values():
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


def test_the_readmes_make_targets_exist() -> None:
    targets = {
        name for text in READMES.values() for name in re.findall(r"\bmake (\w+)(?=[\s`])", code_of(text))
    }
    assert {"run", "test", "quick"} <= targets
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= rules


def code_of(text: str) -> str:
    """What stands in code blocks and between backticks, a piece a line."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`]+)`", prose), ""])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_readmes_python_commands_exist_and_know_their_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def help_of(module: str) -> str:  # in this process: most of it is the time that imports take
        monkeypatch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert not ended.value.code
        return capsys.readouterr().out

    commands = [
        found for text in READMES.values() for found in re.findall(r"python -m ([\w.]+)([^\n`]*)", text)
    ]
    assert {module for module, _ in commands} >= {
        "vlm",
        "training.prepare",
        "training.convert",
        "training.finetune",
        "training.evaluate",
    }
    modules = sorted({module for module, _ in commands})
    assert all(importlib.util.find_spec(module) for module in modules)
    asked = [module for module in modules if module != "venv"]
    helps = {module: help_of(module) for module in asked}
    for module in asked:
        assert helps[module].startswith(f"usage: python -m {module} "), module
    for module, rest in commands:
        for option in re.findall(r"(?<!\S)--[\w-]+", rest):
            assert module in helps and option in helps[module], (module, option)


def test_the_files_that_the_readmes_commands_read_exist() -> None:
    code = "\n".join(code_of(text) for text in READMES.values())
    named = set(re.findall(r"(?<![\w./])(?:assets|tests|training|vlm)/[\w./-]+\.\w+", code))
    assert {"assets/examples/coffee.jpg", "tests/benchmarks/answers.py"} <= named
    assert not [path for path in sorted(named) if not (ROOT / path).is_file()]


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 200


def test_the_readmes_files_exist() -> None:
    tree = README.split("## Files", 1)[1].split("```")[1]
    paths = re.findall(r"^([\w./*{},<>-]+)  ", tree, re.MULTILINE)
    assert len(paths) > 10
    for path in paths:
        assert list(ROOT.glob(path)), path
    rooms = {
        f"{file.relative_to(ROOT)}/" for file in (ROOT / "vlm").iterdir() if (file / "__init__.py").is_file()
    }
    assert rooms <= set(paths)


@pytest.mark.parametrize("file", LINKED)
def test_links_to_files_and_headings_lead_somewhere(file: str) -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", LINKED[file]):
        path, _, heading = link.partition("#")
        target = (ROOT / file).parent / path
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {each.lower().replace(" ", "-") for each in headings}, link

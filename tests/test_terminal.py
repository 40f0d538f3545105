"""Every command ends well on a terminal that cannot show every character."""

import ast
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.test_layout import MODULES, ROOT
from training import convert
from vlm.__main__ import main
from vlm.chat.answer import Answer, Settings
from vlm.errors import UserError
from vlm.serving import accounts
from vlm.terminal import command, show_anything, to_json

COMMANDS = [
    name for name, file in MODULES.items() if name != "app" and '__name__ == "__main__"' in file.read_text()
]


def cp1252(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """A terminal of Windows in place of the test's own; what it is shown."""
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="cp1252", write_through=True))
    return shown


@pytest.mark.parametrize("command", ["-m vlm --help", "-m training.finetune --help", "app.py"])
def test_without_the_packages_a_command_says_what_to_do(command: str) -> None:
    """As for who types `python` where .venv is not active. -S leaves the installed packages out."""
    done = subprocess.run([sys.executable, "-S", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "make run" in done.stderr and ". .venv/bin/activate" in done.stderr


def test_accounts_explains_itself_and_asks_no_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["accounts", "--help"])
    with pytest.raises(SystemExit, match="0"):
        accounts.main()
    assert "print the line for the file that AUTH" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(sys, "argv", ["accounts"])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit, match="^accounts: Please type a name and a password"):
        accounts.main()


def test_a_command_ends_in_one_line_or_at_ctrl_c_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    for problem, ended in ((UserError("No."), "vlm: No."), (KeyboardInterrupt(), 130)):
        with pytest.raises(SystemExit) as end, command("vlm"):
            raise problem
        assert end.value.code == ended
    assert capsys.readouterr() == ("", "")


def test_what_the_terminal_does_not_know_is_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = cp1252(monkeypatch)
    show_anything()
    print("Größe: 猫 🐈 \ud800")
    assert shown.getvalue().decode("cp1252").split() == ["Größe:", "?", "?", "?"]


def test_json_loses_no_character(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = cp1252(monkeypatch)
    show_anything()
    print(to_json({"animal": "猫"}))
    assert json.loads(shown.getvalue()) == {"animal": "猫"}
    assert "ö" in to_json("ö")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_starts_by_making_ready_for_any_terminal(name: str) -> None:
    body = ast.parse(MODULES[name].read_text()).body
    (main,) = (node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main")
    (decorator,) = main.decorator_list
    assert ast.unparse(decorator).startswith("command(")


def test_there_are_commands() -> None:
    assert {"vlm.__main__", "vlm.describe", "training.convert", "training.finetune"} <= set(COMMANDS)


@pytest.mark.parametrize(
    ("style", "texts", "shown"),
    [
        ("full", ["\n1. one", "\n1. one\n", "1. one"], "1. one\n"),
        ("keywords", ["The capital", "The capital is Paris.", "capital paris"], "capital paris\n"),
    ],
)
def test_the_shell_prints_an_answer_once(
    style: str,
    texts: list[str],
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stages = ["drafting", "drafting", "done"]
    snapshots = [Answer(text, stage) for text, stage in zip(texts, stages, strict=True)]  # type: ignore[arg-type]
    assistant = SimpleNamespace(settings=Settings(), stream=lambda *_, **__: iter(snapshots))
    monkeypatch.setattr("vlm.__main__.load_assistant", lambda *_: assistant)
    monkeypatch.setattr(sys, "argv", ["vlm", "Why?", "--style", style])
    main()
    assert capsys.readouterr().out.lstrip("\n") == shown


def test_a_command_that_is_misspelled_is_told_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vlm", "serch", "a cup"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert "unrecognized arguments: a cup" in told and "search, classify" in told


def test_convert_reports_what_the_terminal_cannot_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "plain.png")
    (tmp_path / "mine.csv").write_text(
        "image,question,answer\nfoto-猫.png,Was?,Katze\nplain.png,Was?,Rot\n", "utf-8"
    )
    shown = cp1252(monkeypatch)
    told = [
        "--file",
        str(tmp_path / "mine.csv"),
        "--images",
        str(tmp_path),
        "--output",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(sys, "argv", ["convert", "csv", *told])
    convert.main()
    assert b"foto-?.png" in shown.getvalue() and b"1 rows in 1 files" in shown.getvalue()

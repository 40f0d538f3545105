"""The notebook about alignment runs from its first cell to its last, on a data set of plain pictures made here."""

import colorsys
import io
import re
from pathlib import Path

import nbformat
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import yaml
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "training" / "notebooks" / "alignment.ipynb"
PICTURES = 40


@pytest.fixture
def notebook() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def write_shades(folder: Path) -> Path:
    """Pictures of plain colours with captions, as Flickr8k's are stored; every fifth is held out."""
    rows = []
    for number in range(PICTURES):
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(number / PICTURES, 1, 1))
        content = io.BytesIO()
        Image.new("RGB", (32, 32), (red, green, blue)).save(content, "PNG")
        captions = [f"Hue number {number}.", f"A picture of {red} red, {green} green and {blue} blue."]
        row = {"image": {"bytes": content.getvalue(), "path": f"{number}.png"}, "question": "", "answer": ""}
        row |= {"references": captions, "source": "flickr8k"}
        rows.append(row | {"split": "train" if number % 5 else "validation"})
    folder.mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), folder / "flickr8k.parquet")
    return folder


def write_brief_preset(file: Path) -> Path:
    """The shipped parts without the texts of the thousand classes, whose reading takes most of a minute."""
    preset = yaml.safe_load((ROOT / "vlm/presets/aligners/embedded.yaml").read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump(preset | {"class_texts": []}), encoding="utf-8")
    return file


@pytest.mark.slow
def test_every_cell_runs(notebook: NotebookNode, tmp_path: Path) -> None:
    data, output = write_shades(tmp_path / "data"), tmp_path / "run"
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    changed = {"DATA": str(data), "OUTPUT": str(output), "SOURCES": {"flickr8k": 1.0}}
    changed |= {"EPOCHS": 4, "BATCH_SIZE": 8, "ALIGNER": str(write_brief_preset(tmp_path / "brief.yaml"))}
    parameters.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in changed.items())
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    printed = "".join(
        each.text
        for cell in notebook.cells
        for each in cell.get("outputs", ())
        if each.output_type == "stream" and each.name == "stdout"
    )
    assert re.search(r"eval_modality_gap +\d", printed) and "8 pictures in the index" in printed
    assert "8 pictures, 16 texts" in printed and "heads untrained" in printed
    loss = re.search(r"^loss +(\S+) -> +(\S+)", printed, re.MULTILINE)
    assert loss and float(loss[2]) < float(loss[1])
    named = re.findall(r"^(?:cat|dog|bird|car|cup of coffee) +([\d.]+)%", printed, re.MULTILINE)
    assert sum(map(float, named)) == pytest.approx(100, abs=0.5)
    plots = {file.stem for file in (output / "plots").glob("*.png")}
    shown = sum(
        "image/png" in each.get("data", {}) for cell in notebook.cells for each in cell.get("outputs", ())
    )
    assert shown >= len(plots) == 9


def test_it_is_kept_without_outputs_and_names_no_place_of_one_machine(notebook: NotebookNode) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    assert not re.search(r"""["'(]/\w|[A-Z]:\\\\""", "".join(cell.source for cell in code))

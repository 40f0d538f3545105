"""Each command that trains names settings of its own where the memory is full."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from training import align, compare_parts, finetune, heads

TOLD = {
    finetune: "batch_size with as much more gradient_accumulation.*last checkpoint",
    align: "a smaller chunk_size.*last checkpoint",
    heads: "a smaller batch_size, and begin again with another --output",
    compare_parts: "begin again with another --output and --results",
}
ELSEWHERE = ("gradient_accumulation", "gradient_checkpointing", "--slice")


@pytest.mark.parametrize("module", TOLD, ids=lambda module: module.__name__)
def test_a_full_memory_names_settings_that_the_command_has(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "run", full)
    folders = ["--data", str(tmp_path), "--output", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [module.__name__, *folders])
    with pytest.raises(SystemExit, match=f"memory of the machine is full: .*{TOLD[module]}") as told:
        module.main()
    if module in (align, heads):
        assert not any(setting in str(told.value) for setting in ELSEWHERE)

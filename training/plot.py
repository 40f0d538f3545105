"""python -m training.plot RUN --output assets/plots/training.png: a run's log -> one picture of how it went.

In: `log.jsonl` of the run's folder. Out: loss (with its running mean and, where it was looked at, the validation loss)
and the learning rate of each part, over the steps of both stages. A run that was killed and went on has some
steps twice; the later one counts.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.runs.log_lines import LOG, log_lines
from vlm.errors import UserError
from vlm.terminal import command

SMOOTHING = 0.9  # of the running mean of the loss
Series = dict[int, float]


def read_log(file: Path) -> dict[str, Series]:
    """Log -> {name: {step counted over all stages: value}}."""
    if not file.is_file():
        raise UserError(
            f"{file} was not found. Give the folder of a training run (--output of training.finetune or training.align)."
        )
    return series_of(log_lines(file))


def series_of(lines: Iterable[dict[str, Any]]) -> dict[str, Series]:
    found: dict[str, Series] = {}
    stage, start, last = "", 0, 0
    for line in lines:
        if line["stage"] != stage:
            stage, start = line["stage"], last
        last = start + line["step"]
        for name, value in line.items():
            if name not in ("stage", "step"):
                found.setdefault(name, {})[last] = float(value)
    return {name: dict(sorted(series.items())) for name, series in found.items()}


def running_mean(series: Series) -> Series:
    """Exponential, without the start's bias towards zero (as Adam corrects it, arXiv:1412.6980)."""
    mean, result = 0.0, {}
    for count, (step, value) in enumerate(series.items(), start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        result[step] = mean / (1 - SMOOTHING**count)
    return result


def draw(series: dict[str, Series], out: Path) -> None:
    figure, (losses, rates) = new_figure(2, 1, figsize=(8, 5), sharex=True, height_ratios=(3, 1))
    loss = series.get("loss", {})
    losses.plot(*points(loss), color="tab:blue", alpha=0.25, label="loss")
    losses.plot(*points(running_mean(loss)), color="tab:blue", label="loss, running mean")
    if "eval_loss" in series:
        losses.plot(*points(series["eval_loss"]), "o-", color="tab:orange", label="validation loss")
    losses.set(ylabel="loss, nats a token", yscale="log")
    losses.legend()
    for name, values in series.items():
        if name.startswith("learning_rate/"):
            rates.plot(*points(values), label=name.partition("/")[2])
    rates.set(xlabel="step", ylabel="learning rate")
    rates.legend()
    save_figure(figure, out)


def new_figure(
    rows: int, columns: int, layout: str | None = "constrained", **options: Any
) -> tuple[Any, Any]:
    """A figure and its panels, as matplotlib's `subplots` makes them, without a window."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, layout=layout, **options)


def save_figure(figure: Any, out: Path) -> None:
    from matplotlib import pyplot

    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


def points(series: Series) -> tuple[list[int], list[float]]:
    return list(series), list(series.values())


@command("plot")
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.plot", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--output", type=Path, help="the picture (default: RUN/training.png)")
    arguments = parser.parse_args()
    out = arguments.output or arguments.run / "training.png"
    draw(read_log(arguments.run / LOG), out)
    print(out)


if __name__ == "__main__":
    main()

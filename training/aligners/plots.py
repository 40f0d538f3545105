"""python -m training.aligners.plots RUN: the log of an aligner's run, and its validation pairs -> plots.

Curves, parts of the loss, learning rate, temperature, modality gap and recall come from the log; the embedding space, the
similarities and recall by dimension from embeddings of the validation pictures and texts.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.aligners.contrast import shorten
from training.aligners.validation import EMBEDDINGS, first_places
from training.plot import Series, new_figure, points, read_log, running_mean, save_figure
from training.runs.log_lines import LOG
from training.scores.projection import principal_axes, t_sne
from training.scores.retrieval import RECALLS, retrieval
from vlm.errors import plain_load_errors
from vlm.model.aligner import EmbeddedPairs
from vlm.model.alignment import aligner_config
from vlm.terminal import command

SHOWN = 60  # pictures in the plot of the embedding space and of similarities
CURVES = {  # file -> (label of the axis, names in the log)
    "loss": ("loss", ["loss", "eval_loss"]),
    "parts": ("loss", ["clip_loss", "matryoshka_loss", "eval_clip_loss", "eval_matryoshka_loss"]),
    "learning_rate": ("learning rate", ["learning_rate"]),
    "temperature": ("1 / temperature", ["scale"]),
    "modality_gap": ("distance of the centroids", ["eval_modality_gap"]),
    "recall": ("recall", [f"eval_{way}_recall@{k}" for way in ("t2i", "i2t") for k in RECALLS]),
}


def draw_all(run: Path) -> Path:
    """Every plot of the run, into the folder that is returned: of one that is not at its end, or had too few validation
    pictures, the curves alone."""
    folder, series = run / "plots", read_log(run / LOG)
    folder.mkdir(exist_ok=True)
    draw_curves(series, folder)
    if not (run / EMBEDDINGS).is_file():
        return folder
    with plain_load_errors(f"{run / EMBEDDINGS} is damaged", "Train the run again."):
        kept = load_file(run / EMBEDDINGS)
        embeddings, owners = EmbeddedPairs(kept["pictures"], kept["texts"]), kept["owners"].tolist()
    if len(embeddings.pictures) < 3:
        return folder
    dims = aligner_config(run / "aligner").dims
    first = first_places(owners)[:SHOWN]
    pictures, texts = embeddings.pictures[: len(first)].cpu(), embeddings.texts[first].cpu()
    draw_space(pictures, texts, folder / "space.png")
    draw_similarities(pictures @ texts.T, folder / "similarities.png")
    draw_by_dim(embeddings, owners, dims, folder / "recall_by_dimension.png")
    return folder


def draw_curves(series: dict[str, Series], folder: Path) -> None:
    for name, (label, shown) in CURVES.items():
        figure, (axes,) = _figure(1)
        for each in shown:
            if each in series:
                values = running_mean(series[each]) if each == "loss" else series[each]
                axes.plot(
                    *points(values), "o-" if each.startswith("eval_") else "-", label=each, markersize=3
                )
        axes.set(xlabel="step", ylabel=label)
        if axes.lines:
            axes.legend(fontsize=8)
        save_figure(figure, folder / f"{name}.png")


def draw_space(pictures: Tensor, texts: Tensor, file: Path) -> None:
    """Both sides in two dimensions, by principal axes and by t-SNE; a line joins each picture and its text."""
    figure, panels = _figure(2)
    both = torch.cat([pictures, texts])
    for axes, (title, flat) in zip(
        panels, {"PCA": principal_axes(both), "t-SNE": t_sne(both)}.items(), strict=True
    ):
        of_pictures, of_texts = flat.split(len(pictures))
        for one, other in zip(of_pictures.tolist(), of_texts.tolist(), strict=True):
            axes.plot(*zip(one, other, strict=True), color="lightgrey", linewidth=0.7, zorder=0)
        axes.scatter(*of_pictures.T, s=14, label="pictures")
        axes.scatter(*of_texts.T, s=14, label="texts")
        axes.set(title=title, xticks=[], yticks=[])
    panels[0].legend(fontsize=8)
    save_figure(figure, file)


def draw_similarities(similarities: Tensor, file: Path) -> None:
    figure, (axes,) = _figure(1)
    image = axes.imshow(similarities, cmap="viridis")
    axes.set(xlabel="text", ylabel="picture")
    figure.colorbar(image, label="cosine")
    save_figure(figure, file)


def draw_by_dim(embeddings: EmbeddedPairs, owners: Sequence[int], dims: Sequence[int], file: Path) -> None:
    figure, (axes,) = _figure(1)
    pictures, texts = (each.cpu() for each in embeddings)
    scores = {dim: retrieval(shorten(pictures, dim), shorten(texts, dim), owners) for dim in dims}
    for k in RECALLS:
        axes.plot(
            list(scores), [each[f"t2i_recall@{k}"] for each in scores.values()], "o-", label=f"recall at {k}"
        )
    axes.set(xlabel="dimensions", ylabel="text to picture", xscale="log", ylim=(0, 1))
    axes.set_xticks(list(dims), [str(dim) for dim in dims])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    save_figure(figure, file)


def _figure(panels: int) -> tuple[Any, list[Any]]:
    figure, axes = new_figure(1, panels, figsize=(6 * panels, 4.5), squeeze=False)
    return figure, list(axes[0])


@command("align_plots")
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.aligners.plots", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder; its plots are drawn into RUN/plots")
    arguments = parser.parse_args()
    folder = draw_all(arguments.run)
    print(folder)


if __name__ == "__main__":
    main()

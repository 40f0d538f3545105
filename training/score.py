"""python -m training.score predictions.jsonl

Scores any file of predictions, of this project or of another: BLEU-1 to 4, ROUGE-L, METEOR, CIDEr and, where Java and
pycocoevalcap are there, SPICE for captions; CLIPScore with --judge; VQA accuracy; recall at 1, 5 and 10 and mean average
precision of rankings; perplexity. Intervals hold 95 %, by bootstrap over pictures. What the file's lines do not allow is
left out, and a sentence says what it would take.
"""

import argparse
import json
from pathlib import Path

from training.scores.clip_score import load_judge
from training.scores.prediction_scores import Scores, score
from training.scores.predictions import KEYS, read_predictions, with_references
from vlm.terminal import command


def table(scores: Scores) -> str:
    lines = [
        f"{name:24}{each['value']:10.4f}  ({each['low']:.4f} to {each['high']:.4f}; n {each['of']})"
        if each["value"] is not None
        else f"{name:24}         -  (n {each['of']})"
        for name, each in scores.measures.items()
    ]
    return "\n".join([*lines, *(f"{name} is left out: {why}." for name, why in scores.left_out.items())])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.score",
        description=f"{__doc__}\nKeys, any of which a line may have; all others are left alone:\n{KEYS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("predictions", type=Path, help=".jsonl, .json, or a result file of training.evaluate")
    add("--references", type=Path, help="COCO's annotation file of captions, where lines have none")
    add("--judge", help="for CLIPScore: an aligner, such as embedded, or a CLIP's weights")
    add("--json", action="store_true", help="print the scores as JSON")
    return parser.parse_args()


@command("score")
def main() -> None:
    arguments = parse()
    predictions = read_predictions(arguments.predictions)
    if arguments.references:
        predictions = with_references(predictions, arguments.references)
    scores = score(predictions, load_judge(arguments.judge) if arguments.judge else None)
    print(json.dumps(scores._asdict(), indent=1) if arguments.json else table(scores))


if __name__ == "__main__":
    main()

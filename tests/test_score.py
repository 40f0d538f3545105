"""Any file of predictions is scored by one command; figures are worked out elsewhere, by hand or by definition."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from tests.conftest import ROOT
from tests.test_metrics import ANSWERS, BLEU, CIDER, REFERENCES, ROUGE
from tests.tiny import picture, tiny_tokenizer
from tests.tiny_aligner import TinyAligner
from training import score as command
from training.scores.clip_score import clip_scores, load_judge
from training.scores.prediction_scores import score
from training.scores.predictions import (
    KEYS,
    KINDS,
    OTHER_NAMES,
    Prediction,
    read_predictions,
    with_references,
)
from training.scores.retrieval import average_precision, first_rank, mean_average_precision
from training.scores.spice import spice
from training.scores.vqa import official_form, vqa_accuracy
from vlm.errors import UserError


def lines(folder: Path, *values: object, name: str = "predictions.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(each) + "\n" for each in values), encoding="utf-8")
    return file


def values_of(predictions: Sequence[Prediction], judge: object = None) -> dict[str, float]:
    return {name: each["value"] for name, each in score(predictions, judge).measures.items()}


def test_captions_score_as_the_coco_evaluation_scored_them() -> None:
    predictions = [
        Prediction(answer, tuple(texts)) for answer, texts in zip(ANSWERS, REFERENCES, strict=True)
    ]
    found = values_of(predictions)
    assert [found[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(BLEU)
    assert found["rouge_l"] == pytest.approx(sum(ROUGE) / len(ROUGE))
    assert found["cider"] == pytest.approx(sum(CIDER) / len(CIDER))


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The red dog.", "red dog"),
        ("Two", "2"),
        ("none", "0"),
        ("eleven", "eleven"),  # VQA knows numbers up to ten
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # VQA mends one apostrophe at a time
        ("couldn'tve", "couldn't've"),
        ("dog-house", "dog house"),
        ("dog -house", "dog house"),
        ("yes, it is", "yes it is"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("black/white", "black white"),
    ],
)
def test_answers_are_normalised_as_the_vqa_challenge_does(answer: str, form: str) -> None:
    assert official_form(answer) == form


def test_ten_people_make_a_vqa_answer_right_by_three() -> None:
    for same, accuracy in {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0, 10: 1.0}.items():
        assert vqa_accuracy("Tennis.", ["tennis"] * same + ["golf"] * (10 - same)) == pytest.approx(accuracy)
    found = values_of([Prediction("two", answers=("2",) * 10), Prediction("a cat", answers=("dog",) * 10)])
    assert found == {"vqa_accuracy": 0.5}


def test_rankings_give_recall_and_average_precision() -> None:
    assert first_rank(["b", "a", "c"], ["a", "c"]) == 2 and first_rank(["b"], ["a"]) == float("inf")
    # the example of the TREC evaluation: right at 1, 3 and 6 of 10, and one that is not found
    ranked = [*"abcdefghij"]
    assert average_precision(ranked, ["a", "c", "f", "z"]) == pytest.approx((1 + 2 / 3 + 3 / 6) / 4)
    predictions = [
        Prediction(ranked=tuple(ranked), relevant=relevant)
        for relevant in [("a",), ("d", "e"), ("j",), ("z",)]
    ]
    found = values_of(predictions)
    assert [found[f"recall@{k}"] for k in (1, 5, 10)] == [0.25, 0.5, 0.75]
    assert found["mean_average_precision"] == pytest.approx((1 + (1 / 4 + 2 / 5) / 2 + 1 / 10 + 0) / 4)


def test_average_precision_of_a_list_is_that_of_the_similarities_behind_it() -> None:
    similarities, right = torch.rand(5, 12), torch.rand(5, 12) < 0.3
    right[:, 0] = True
    lists = [[str(place) for place in row.argsort(descending=True).tolist()] for row in similarities]
    relevant = [[str(place) for place in row.nonzero().flatten().tolist()] for row in right]
    own = [average_precision(*pair) for pair in zip(lists, relevant, strict=True)]
    assert sum(own) / 5 == pytest.approx(mean_average_precision(similarities, right))


def test_perplexity_is_of_all_tokens_together() -> None:
    # uniform over 8 words, then over 2: nine tokens of the first and one of the second
    log_8, log_2 = 2.0794415416798357, 0.6931471805599453
    predictions = [
        Prediction(log_likelihood=-9 * log_8, tokens=9),
        Prediction(log_likelihood=-log_2, tokens=1),
    ]
    assert values_of(predictions)["perplexity"] == pytest.approx((8**9 * 2) ** (1 / 10))
    assert values_of(predictions[:1])["perplexity"] == pytest.approx(8)


def test_a_caption_of_the_right_colour_fits_its_picture(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        picture(name).save(tmp_path / f"{name}.png")
    file = lines(
        tmp_path,
        {"caption": "all red", "image": "red.png"},
        {"caption": "all blue", "image": "blue.png"},
        {"caption": "all blue", "image": "red.png"},
    )
    right, other, wrong = clip_scores(read_predictions(file), TinyAligner())
    assert right == pytest.approx(2.5) and other == pytest.approx(2.5) and wrong < 1
    scores = score(read_predictions(file), TinyAligner())
    assert scores.measures["clip_score"]["value"] == pytest.approx((right + other + wrong) / 3)
    assert scores.measures["clip_score"]["of"] == 3
    with pytest.raises(UserError, match=r"gone.png is missing"):
        clip_scores(read_predictions(lines(tmp_path, {"answer": "a", "image": "gone.png"})), TinyAligner())


def test_clip_itself_is_a_judge(tmp_path: Path) -> None:
    tokenizer: PreTrainedTokenizerFast = tiny_tokenizer()
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    config = CLIPConfig(
        text_config=small
        | {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        vision_config=small | {"image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    judge = load_judge(str(tmp_path / "clip"))
    image, caption = picture("red"), "a dog"
    ids = tokenizer(f"A photo depicts {caption}", return_tensors="pt")
    with torch.no_grad():
        expected = model(
            input_ids=ids["input_ids"],
            attention_mask=ids["attention_mask"],
            pixel_values=judge.picture_half.preprocess(image)[None],  # type: ignore[union-attr]
        )
    cosine = expected.logits_per_image.item() / model.logit_scale.exp().item()
    wide = Image.new("RGB", (48, 16), "blue")
    wide.paste(picture("red"), (16, 0))  # in its middle
    wide.save(tmp_path / "red.png")
    prediction = Prediction(caption, image=tmp_path / "red.png")
    assert clip_scores([prediction], judge) == pytest.approx([max(0.0, 2.5 * cosine)], abs=1e-5)


def test_what_the_lines_do_not_allow_is_left_out_with_what_it_would_take() -> None:
    measures, left_out = score([Prediction("a dog", answers=("dog",))])
    assert set(measures) == {"vqa_accuracy"}
    assert left_out["cider"] == "no line has `answer` and `references`"
    assert left_out["perplexity"] == "no line has `log_likelihood` and `tokens`"
    assert left_out["clip_score"] == "it takes --judge"


def test_spice_without_java_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "needs Java" in str(spice(["a dog"], [["a dog"]]))
    left_out = score([Prediction("a dog", ("a dog",))]).left_out
    assert "needs Java" in left_out["spice"]


def test_spice_without_its_package_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    assert "pip install --no-deps pycocoevalcap" in str(spice(["a dog"], [["a dog"]]))


def test_spice_gives_each_of_many_captions_its_own_score(monkeypatch: pytest.MonkeyPatch) -> None:
    class Spice:  # the package gives its scores in the order of the sorted names
        def compute_score(self, references: dict[str, list[str]], answers: dict[str, list[str]]) -> Any:
            scores = [{"All": {"f": float(answers[name] == references[name])}} for name in sorted(references)]
            return 0.0, scores

    monkeypatch.setattr("training.scores.spice.spice_missing", lambda: None)
    monkeypatch.setitem(sys.modules, "pycocoevalcap.spice.spice", SimpleNamespace(Spice=Spice))
    references = [[f"{number} dogs"] for number in range(12)]
    answers = ["a cat" if number in (2, 10) else f"{number} dogs" for number in range(12)]
    assert spice(answers, references) == [float(number not in (2, 10)) for number in range(12)]


def test_questions_about_one_picture_are_drawn_together() -> None:
    """One picture has no spread of its own, whatever its lines say."""
    apart = [
        Prediction(answer, answers=("yes",), picture=str(n)) for n, answer in enumerate(["yes", "no"] * 20)
    ]
    together = [Prediction(each.answer, answers=each.answers, picture="one", references=()) for each in apart]
    wide, none = (score(each).measures["vqa_accuracy"] for each in (apart, together))
    assert wide["low"] < 0.45 and none["low"] == none["high"] == 0.5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"answer": ["a"]}, "line 2: 'answer' must be a text"),
        ({"references": "a dog"}, "line 2: 'references' must be a list of texts"),
        ({"tokens": "three"}, "line 2: 'tokens' must be a number"),
        ({"question": "?"}, "line 2 has none of the keys answer, references"),
        (["a"], "line 2 is no JSON object"),
        ({"id": 1, "prediction": "a dog"}, "line 2 has none of the keys .* It has: id, prediction"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_predictions(lines(tmp_path, {"answer": "a"}, line))


def test_a_line_or_file_that_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    file = lines(tmp_path, {"answer": "a"})
    file.write_text(file.read_text() + "a dog\n")
    with pytest.raises(UserError, match=r"predictions.jsonl, line 2 is not JSON: a dog"):
        read_predictions(file)
    with pytest.raises(UserError, match=r"^There is no file .*gone.jsonl. Check its path.$"):
        read_predictions(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match=r"^There is no file"):
        with_references([Prediction("a")], tmp_path / "gone.json")


def test_lines_that_no_measure_applies_to_are_told_which_keys_are_taken() -> None:
    with pytest.raises(UserError, match=r"`answer` and `references` for captions.*`ranked` and `relevant`"):
        score([Prediction(references=("a dog",))])


def test_help_and_readme_list_every_key_of_a_line() -> None:
    readme = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
    for name in [*KINDS, *OTHER_NAMES]:
        assert name in KEYS and f"`{name}`" in readme


def test_an_answer_with_a_line_separator_in_it_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    file.write_text(
        json.dumps({"answer": "a cat\u2028on a sofa"}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert [each.answer for each in read_predictions(file)] == ["a cat\u2028on a sofa"]


def test_cocos_files_and_results_of_evaluate_are_read(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": 7, "caption": "a cat"}]))
    captions = tmp_path / "captions.json"
    captions.write_text(
        json.dumps({"annotations": [{"image_id": 7, "caption": text} for text in ("a cat", "one cat")]})
    )
    (found,) = with_references(read_predictions(results), captions)
    assert found == Prediction("a cat", ("a cat", "one cat"), picture="7")
    captions.write_text(json.dumps({"annotations": []}))
    with pytest.raises(UserError, match="no captions of the picture '7'"):
        with_references(read_predictions(results), captions)
    assert with_references([found], captions) == [found]  # a line with its own needs none
    evaluated = tmp_path / "evaluated.json"
    evaluated.write_text(json.dumps({"answers": [{"answer": "a", "references": ["a"], "task": "name"}]}))
    assert read_predictions(evaluated) == [Prediction("a", ("a",))]


def test_the_command_prints_scores_and_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lines(tmp_path, {"answer": "a cat", "references": ["a cat"]}, {"answer": "", "references": ["a"]})
    monkeypatch.setattr(sys, "argv", ["score", str(file)])
    command.main()
    told = capsys.readouterr().out
    assert "rouge_l" in told and "vqa_accuracy is left out: no line has `answer` and `answers`." in told
    monkeypatch.setattr(sys, "argv", ["score", "gone.jsonl"])
    with pytest.raises(SystemExit, match="score: There is no file gone.jsonl"):
        command.main()

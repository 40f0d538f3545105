"""The composed model: where visual tokens land, what trains, the adapter switched off, generation, overfitting."""

import re

import pytest
import torch
from torch import nn

from tests.tiny import picture, tiny_model
from vlm.config import AnswersConfig
from vlm.errors import UserError
from vlm.model.prompts import VISUAL, Batch, ask_apart, collate
from vlm.model.tagger import Tagger
from vlm.model.vlm import Sight, VisionLanguageModel, VisualTurn

GREEDY = AnswersConfig(max_new_tokens=12, repetition_penalty=1.0)


def batch_of(model: VisionLanguageModel, conversations: list[list[VisualTurn]]) -> tuple[Batch, torch.Tensor]:
    batch = collate([model.encode(turns) for turns in conversations], model.language.pad_id)
    sights = [sight for turns in conversations for turn in turns for sight in turn.sights]
    return batch, torch.stack([sight.patch_features for sight in sights])


def colours(model: VisionLanguageModel, answers: dict[str, str]) -> tuple[Batch, torch.Tensor]:
    return batch_of(
        model,
        [
            [VisualTurn("Which?", answer, tuple(model.see([picture(name)])))]
            for name, answer in answers.items()
        ],
    )


def shake_lora(model: VisionLanguageModel) -> None:
    """Give the LoRA an effect; a fresh one has none."""
    with torch.no_grad():
        for parameter in model.language.lora_parameters():
            parameter.normal_(std=0.3)


def test_what_a_name_means_is_the_base_models_and_the_same_alone_and_beside_others() -> None:
    model = tiny_model()
    names = ["yak", "a much longer name", "<|im_end|>"]
    vectors = model.language.read_names(names)
    assert vectors.shape == (3, model.language.embedding_size)
    assert torch.allclose(vectors[:1], model.language.read_names(["yak"]), atol=1e-5)
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-2)
    shake_lora(model)
    assert torch.equal(model.language.read_names(names), vectors)


def test_visual_tokens_land_between_the_embedded_parts_of_the_prompt() -> None:
    model = tiny_model(lora=False)
    sights = tuple(model.see([picture("red"), picture("blue")]))
    batch, features = batch_of(
        model, [[VisualTurn("a?", "b", sights[:1])], [VisualTurn("longer?", "b", sights[1:])]]
    )
    embeds = model.embed(batch, features)
    visual_tokens = model.connector(features)
    for row in range(2):
        assert torch.allclose(embeds[row][batch.visual_mask[row]], visual_tokens[row])
        elsewhere = ~batch.visual_mask[row]
        assert torch.equal(embeds[row][elsewhere], model.language.embed(batch.input_ids[row][elsewhere]))
    assert (batch.labels[batch.visual_mask] == -100).all()


def test_questions_asked_apart_are_learned_as_if_each_were_alone() -> None:
    model = tiny_model()
    shake_lora(model)
    sight = model.see([picture("red")])[0]
    asked = [("What?", "A red square."), ("Is there a blue circle?", "No."), ("Colour?", "Red, all of it.")]
    alone = [model.encode([VisualTurn(*pair, (sight,))]) for pair in asked]
    features = sight.patch_features[None]

    def learn(conversations: list, count: int) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        batch = collate(conversations, model.language.pad_id)
        loss = model(**batch._asdict(), patch_features=features.expand(count, -1, -1))["loss"]
        loss.backward()
        return loss.item(), torch.cat([part.grad.flatten() for part in model.connector.parameters()])

    loss, gradient = learn(alone, 3)
    together, same = learn([ask_apart(alone)], 1)
    assert together == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(same, gradient, rtol=1e-3, atol=1e-6)
    assert learn([ask_apart(alone), alone[0]], 2)[0] == pytest.approx(
        learn([*alone, alone[0]], 4)[0], rel=1e-5
    )


def test_each_stage_trains_exactly_its_parts() -> None:
    model = tiny_model()
    connector = {name for name, _ in model.named_parameters() if name.startswith("connector.")}
    lora = {name for name, _ in model.named_parameters() if "lora_" in name}
    for stage, expected in {"projector": connector, "projector+lora": connector | lora}.items():
        model.train_only(stage)
        assert {name for name, p in model.named_parameters() if p.requires_grad} == expected
    with pytest.raises(UserError, match="projector"):
        model.train_only("everything")


def test_a_step_changes_what_trains_and_leaves_the_rest_identical() -> None:
    model = tiny_model()
    shake_lora(model)
    parts = model.train_only("projector+lora")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    batch, features = colours(model, {"red": "r", "blue": "b"})
    optimizer = torch.optim.SGD([p for parameters in parts.values() for p in parameters], lr=0.1)
    model(**batch._asdict(), patch_features=features)["loss"].backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_the_loss_is_that_of_the_answers_alone() -> None:
    model = tiny_model(lora=False)
    batch, features = colours(model, {"red": "yes", "blue": "no"})
    loss = model(**batch._asdict(), patch_features=features)["loss"]
    reference = model.language.model(
        inputs_embeds=model.embed(batch, features), attention_mask=batch.attention_mask, labels=batch.labels
    ).loss
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)


def test_with_the_adapter_off_the_model_is_the_base_model() -> None:
    adapted, base = tiny_model(), tiny_model(lora=False)
    shake_lora(adapted)
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        expected = base.language.model(ids).logits
        with adapted.language.base():
            assert torch.equal(adapted.language.model(ids).logits, expected)
        assert not torch.allclose(adapted.language.model(ids).logits, expected)


def test_cached_and_uncached_generation_agree() -> None:
    model = tiny_model()
    shake_lora(model)
    turns = [VisualTurn("What?", "", tuple(model.see([picture("green")])))]
    *_, streamed = model.stream(turns, GREEDY, adapter=True)
    ids = model.encode(turns)
    with torch.no_grad():  # the whole sequence again for every token: no cache
        embeds = model.embed(
            collate([ids], model.language.pad_id), turns[0].sights[0].patch_features.unsqueeze(0)
        )
        new: list[int] = []
        while len(new) < GREEDY.max_new_tokens and (not new or new[-1] not in model.language.end_ids):
            token = model.language.model(inputs_embeds=embeds).logits[0, -1].argmax()
            new.append(int(token))
            embeds = torch.cat([embeds, model.language.embed(token.view(1, 1))], dim=1)
    kept = [token for token in new if token not in model.language.end_ids]
    assert streamed.text == model.language.tokenizer.decode(kept, skip_special_tokens=True)


def test_what_a_question_names_is_looked_up_in_the_latest_pictures() -> None:
    model = tiny_model()
    ants, bees = sees_always(0), sees_always(1)
    turns = [
        VisualTurn("Ants?", "Yes.", (ants,)),
        VisualTurn("Really ants?", "Yes."),
        VisualTurn("Bees?", "", (bees, bees._replace(tagger=None))),
    ]
    text = model.language.tokenizer.decode([id for id in model.encode(turns).ids if id != VISUAL])
    assert re.findall(r"Tags: \w+ \d\.|\w+\?", text) == [
        "Tags: ant 9.", "Ants?", "Tags: ant 9.", "ants?", "Tags: ant 9.", "Tags: bee 9.", "Bees?", "Tags: bee 9.",
    ]  # fmt: skip


def sees_always(place: int) -> Sight:
    """A picture of 2 x 2 cells, and a tagger who sees an ant or a bee whatever it looks at."""
    classifier = nn.Linear(8, 2)
    with torch.no_grad():
        classifier.weight.zero_(), classifier.bias.copy_(9.0 * torch.eye(2)[place])
    return Sight(torch.rand(5, 8), Tagger(classifier, ["ant", "bee"], 1, asks=True))


@pytest.mark.parametrize("adapter", [True, False])
def test_a_batch_answers_as_each_conversation_alone_and_reads_what_they_share_once(adapter: bool) -> None:
    model = tiny_model()
    shake_lora(model)
    red, blue, lime = model.see([picture("red"), picture("blue"), picture("lime")])
    lime = lime._replace(
        tagger=Tagger(torch.nn.Linear(lime.patch_features.shape[1], 2), ["lime", "green"], 2)
    )
    conversations = [
        [VisualTurn("Hi?", "", (red,))],
        [VisualTurn("A much longer question?", "", (blue,))],
        [VisualTurn("What?", "", (lime,))],
        [VisualTurn("Is it red, or is it blue?", "", (red,))],
        [VisualTurn("Hi?", "Hello.", (blue,)), VisualTurn("And this?", "", (red,))],
        [VisualTurn("Who?", "", (lime,))],
        [VisualTurn("No picture?")],
        [VisualTurn("Hi?", "Hello.", (lime,)), VisualTurn("And this?", "", (red,))],
    ]
    alone = [[*model.stream(turns, GREEDY, adapter)][-1].text for turns in conversations]
    read: list[torch.Size] = []
    before_vocabulary: list[torch.Tensor] = []
    model.language.causal.get_decoder().register_forward_hook(
        lambda module, given, output: read.append(output.last_hidden_state.shape)
    )
    model.language.causal.get_output_embeddings().register_forward_pre_hook(
        lambda module, given: before_vocabulary.append(given[0])
    )
    assert [draft.text for draft in model.draft_all(conversations, GREEDY, adapter=adapter)] == alone
    assert len(set(alone)) > 3  # the model says different things, or the comparison would be worth little
    longest = model.encode(conversations[3])
    beginnings, rest = read[:2]
    assert (beginnings[0], rest[0], rest[1]) == (6, 8, len(longest.ids) - longest.question)
    # of a tensor that is not contiguous torch makes a copy of the matrix for each row
    assert all(hidden.shape[1] == 1 and hidden.is_contiguous() for hidden in before_vocabulary)


def test_closing_a_stream_stops_the_model_and_frees_it() -> None:
    model = tiny_model()
    endless = AnswersConfig(max_new_tokens=1000, repetition_penalty=1.0)
    model.language.end_ids = [len(model.language.tokenizer) - 1]
    stream = model.stream([VisualTurn("Go")], endless, adapter=False)
    next(stream)
    stream.close()
    assert model.language.lock.acquire(timeout=5)
    model.language.lock.release()
    assert [*model.stream([VisualTurn("Go")], GREEDY, adapter=False)]


def test_the_oldest_turns_are_left_out_of_a_long_conversation_but_their_pictures_stay() -> None:
    model = tiny_model()
    sights = tuple(model.see([picture("red")]))
    turns = [
        VisualTurn("old " * 20, "answer", sights),
        VisualTurn("middle " * 20, "answer"),
        VisualTurn("now?"),
    ]
    limit = len(model.encode(turns[1:]).ids) + 10
    kept = model._within_limit(turns, limit, None)
    assert [turn.question for turn in kept] == [turn.question for turn in turns[1:]]
    assert kept[0].sights == sights
    with pytest.raises(UserError, match="shorten"):
        model._within_limit([VisualTurn("x" * 500)], 100, None)


def test_four_pictures_can_be_learned_by_heart() -> None:
    model = tiny_model()
    answers = {"red": "r", "lime": "g", "blue": "b", "white": "w"}
    batch, features = colours(model, answers)
    parts = model.train_only("projector+lora")
    optimizer = torch.optim.Adam([p for parameters in parts.values() for p in parameters], lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = model(**batch._asdict(), patch_features=features)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_([p for parameters in parts.values() for p in parameters], 1.0)
        optimizer.step()
    assert loss.item() < 0.1
    model.eval()
    conversations = [[VisualTurn("Which?", "", tuple(model.see([picture(name)])))] for name in answers]
    assert [draft.text for draft in model.draft_all(conversations, GREEDY)] == list(answers.values())

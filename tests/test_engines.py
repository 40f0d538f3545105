"""The contract that every engine keeps, and what is particular to one of them."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from tests.engine_world import (
    KINDS,
    LENGTH,
    TOKENIZER,
    Asked,
    Decoding,
    World,
    answer,
    check,
    closed_after,
    greedy,
    next_token,
)
from tests.tiny_gguf import EMBEDDING_SIZE, HEADS, KV_HEADS, VOCABULARY, tiny_causal
from vlm.engines import Engine, Sampling
from vlm.engines.llama_cpp import LlamaCppEngine
from vlm.engines.torch_engine import TorchEngine
from vlm.errors import UserError
from vlm.model.language import LanguageModel

SIDES = (False, True)
WORLDS: dict[str, World] = {}
ENDLESS = Sampling(200, repetition_penalty=1.0)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """torch's threads wait for each other longer than tiny products take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_CACHE", str(folder / "cache"))
        patch.setattr(psutil, "cpu_count", lambda logical=True: 1)  # as with torch's threads
        yield World(request.param, folder)


@pytest.fixture
def engine(world: World) -> Iterator[Engine]:
    engine = world.engine()
    yield engine
    engine.close()


def going_on(world: World, asked: Asked, adapter: bool) -> Asked:
    """A next question of the conversation, after the answer to this one."""
    return world.ask([*asked.prompt, asked.answers[adapter]], sides=[adapter])[0]


# What is answered


@pytest.mark.parametrize("new", [1, 12, 64, 65, 150])  # llama.cpp reads 64 positions at once
def test_greedy_answers_are_those_of_the_model_that_reads_all_again_for_each_token(
    world: World, engine: Engine, new: int
) -> None:
    for asked in world.ask(new=new, count=2):
        for adapter in SIDES:
            check(engine, asked, adapter)


def test_an_answer_is_as_long_as_wished_or_ends_with_an_end_token(world: World, engine: Engine) -> None:
    (asked,) = world.ask()
    said = asked.answers[False]
    for length in (1, 2, LENGTH):
        assert answer(engine, asked.prompt, False, greedy(length)) == said[:length]
    first_end = min(said.index(token) for token in said[3:5])
    assert answer(engine, asked.prompt, False, greedy(end_ids=tuple(said[3:5]))) == said[: first_end + 1]
    check(engine, asked, False)


def test_a_seed_is_repeatable_and_others_answer_otherwise(world: World, engine: Engine) -> None:
    (asked,) = world.ask()

    def told(seed: int) -> list[int]:
        return answer(engine, asked.prompt, False, Sampling(20, temperature=1.0, seed=seed))

    assert told(1) == told(1)
    assert len({tuple(told(seed)) for seed in range(4)}) == 4
    check(engine, asked, False)


def test_a_repetition_penalty_keeps_tokens_from_coming_again(world: World, engine: Engine) -> None:
    (asked,) = world.ask()
    plain = answer(engine, asked.prompt, False, greedy(30))
    penalised = answer(engine, asked.prompt, False, Sampling(30, repetition_penalty=2.0))
    assert len(set(plain)) < len(set(penalised))


def test_what_does_not_fit_is_refused_with_a_sentence_and_what_just_fits_is_answered(world: World) -> None:
    (asked,) = world.ask(new=40)
    engine = world.engine(context=40 + LENGTH, cells=40 + LENGTH)
    with pytest.raises(UserError, match=f"up to {41 + LENGTH} tokens and at most {40 + LENGTH} fit.*shorten"):
        answer(engine, [*asked.prompt, [5]], False)
    for adapter in SIDES:
        check(engine, asked, adapter)
    engine.close()


# What is kept from answer to answer


def test_answers_are_right_whatever_was_read_before(world: World, engine: Engine) -> None:
    beginning = world.ask(new=30)[0].prompt
    first, second = world.ask(beginning, count=2)
    for adapter in (False, True, False):
        check(engine, first, adapter)
        follow_up = going_on(world, first, adapter)
        check(engine, follow_up, adapter)
        check(engine, follow_up, adapter)  # tried again
        check(engine, second, adapter)  # branches off
        check(engine, going_on(world, follow_up, adapter), adapter)
        check(engine, first, adapter)
        for shorter in world.ask(new=5, count=2):
            check(engine, shorter, adapter)


def test_a_prompt_that_is_the_beginning_of_another_is_answered(world: World, engine: Engine) -> None:
    (whole,) = world.ask(new=40)
    check(engine, whole, False)
    beginning = [whole.prompt[0][:20]]
    expected = world.greedy([beginning], False, 1)[0][0].tolist()
    assert answer(engine, beginning, False, greedy(1)) == expected
    check(engine, whole, False)


def test_only_what_is_new_is_read(world: World, engine: Engine) -> None:
    (first,) = world.ask(new=60)
    follow_up, decoding = going_on(world, first, False), Decoding(engine)
    assert decoding.of(lambda: check(engine, first, False)) == 60 + LENGTH - 1
    # the last token of an answer is read with the next question, whose own 12 follow
    assert decoding.of(lambda: check(engine, follow_up, False)) == 1 + 12 + LENGTH - 1
    assert decoding.of(lambda: check(engine, follow_up, False)) == 1 + LENGTH - 1  # tried again
    assert decoding.of(lambda: check(engine, first, False)) <= 1 + LENGTH - 1


def test_what_two_conversations_begin_with_is_read_once_and_both_go_on(world: World, engine: Engine) -> None:
    system = world.ask(new=30)[0].prompt
    one, other = world.ask(system, count=2, new=40)
    decoding = Decoding(engine)
    assert decoding.of(lambda: check(engine, one, False)) == 70 + LENGTH - 1
    assert decoding.of(lambda: check(engine, other, False)) == 40 + LENGTH - 1
    for asked in (one, other):
        assert decoding.of(lambda: check(engine, going_on(world, asked, False), False)) == 13 + LENGTH - 1  # noqa: B023


def test_of_more_conversations_than_fit_the_least_recently_used_are_read_again(world: World) -> None:
    asked = world.ask(new=60, count=5)  # with their answers 67 positions each
    engine = world.engine(context=150, cells=300)
    decoding = Decoding(engine)
    for each in (*asked[:3], asked[0]):
        check(engine, each, False)
    check(engine, asked[3], False)
    check(engine, asked[4], False)  # 1 and 2 are no longer there
    assert decoding.of(lambda: check(engine, asked[0], False)) < 60
    for gone in (asked[1], asked[2]):
        assert decoding.of(lambda: check(engine, gone, False)) >= 60  # noqa: B023
    for each in 2 * asked:
        check(engine, each, False)
    for each in asked:
        check(engine, going_on(world, each, False), False)
    engine.close()


# The adapter


@pytest.mark.slow
def test_with_the_adapter_off_answers_are_those_of_an_engine_without_one(
    world: World, engine: Engine
) -> None:
    bare = world.engine(adapter=False)
    first, second = world.ask(new=20, count=2)
    drawn = Sampling(60, temperature=1.5, top_p=1.0)  # where any difference of scores shows in the end
    for asked in (first, first, second):
        expected = answer(bare, asked.prompt, False, drawn)
        assert answer(engine, asked.prompt, False, drawn) == expected
        assert answer(engine, asked.prompt, True, drawn) != expected
    assert answer(bare, first.prompt, True, greedy()) == first.answers[False]  # there is none to put on
    bare.close()


def test_adapter_on_and_off_share_nothing_that_was_read(world: World, engine: Engine) -> None:
    (asked,) = world.ask(new=50)
    assert asked.answers[True] != asked.answers[False]
    decoding = Decoding(engine)
    for adapter in SIDES:
        assert decoding.of(lambda: check(engine, asked, adapter)) == 50 + LENGTH - 1  # noqa: B023
    for adapter in SIDES:
        assert decoding.of(lambda: check(engine, asked, adapter)) == LENGTH  # noqa: B023


# Pictures


def test_visual_tokens_that_are_embeddings_of_ids_are_answered_as_the_ids(
    world: World, engine: Engine
) -> None:
    (asked,) = world.ask(new=90)
    ids = asked.prompt[0]
    for start, end in ((0, 5), (40, 44), (10, 85), (86, 90)):  # first, in the middle, many, last
        mixed = [part for part in (ids[:start], world.embedded(ids[start:end]), ids[end:]) if len(part)]
        for adapter in SIDES:
            check(engine, Asked(mixed, asked.answers), adapter)
    apart = [ids[:10], world.embedded(ids[10:30]), world.embedded(ids[30:60]), ids[60:70], ids[70:]]
    check(engine, Asked(apart, asked.answers), False)


def test_pictures_are_seen_where_they_stand(world: World, engine: Engine) -> None:
    red, blue = world.picture(0), world.picture(1)
    told = set()
    for pictures in ([red], [blue], [red, blue], [blue, red], [world.picture(2, tokens=70)]):
        (asked,) = world.ask([[5, 6, 7], *pictures, [8, 9]])
        for adapter in SIDES:
            check(engine, asked, adapter)
        told.add(tuple(asked.answers[True]))
    assert len(told) == 5


def test_the_same_words_about_another_picture_are_another_prompt(world: World, engine: Engine) -> None:
    first, second = world.picture(0), world.picture(1)
    (asked,) = world.ask([[5, 6, 7], first, [8]])
    other = [asked.prompt[0], second, *asked.prompt[2:]]
    expected = world.greedy([other], True, LENGTH)[0][0].tolist()
    assert expected != asked.answers[True]
    decoding = Decoding(engine)
    check(engine, asked, True)
    told: list[int] = []
    # three ids stand before the pictures
    read = decoding.of(lambda: told.extend(answer(engine, other, True)))
    assert read == sum(map(len, other)) - 3 + LENGTH - 1
    assert told[:3] == expected[:3]
    check(engine, asked, True)


def test_a_picture_is_read_once_in_a_conversation(world: World, engine: Engine) -> None:
    (asked,) = world.ask([[5, 6, 7], world.picture(0, tokens=30), [8]], sides=[True])
    decoding = Decoding(engine)
    check(engine, asked, True)
    again = [part.clone() if isinstance(part, torch.Tensor) else part for part in asked.prompt]
    follow_up = going_on(world, Asked(again, asked.answers), True)
    assert decoding.of(lambda: check(engine, follow_up, True)) == 13 + LENGTH - 1


# Many at once, and stopping


@pytest.mark.slow
def test_many_at_once_are_answered_as_each_alone(world: World) -> None:
    engine = world.engine(context=256, cells=2048)
    system = [[3, 4, 5, 6, 7]]

    def conversation(number: int) -> list[tuple[Asked, bool]]:
        adapter = number % 2 == 1
        beginning = [*system, world.picture(number // 4, tokens=6)] if number % 4 == 3 else system
        (first,) = world.ask([*beginning, [10 + number]], sides=[adapter], new=8 + 5 * number)
        return [(first, adapter), (going_on(world, first, adapter), adapter)]

    conversations = [conversation(number) for number in range(16)]
    start = threading.Barrier(16)

    def talk(turns: list[tuple[Asked, bool]]) -> None:
        start.wait()
        for asked, adapter in 2 * turns:
            check(engine, asked, adapter)

    with ThreadPoolExecutor(16) as pool:
        for talked in [pool.submit(talk, turns) for turns in conversations]:
            talked.result(timeout=120)
    engine.close()


def test_more_at_once_than_the_cache_holds_wait_for_each_other(world: World) -> None:
    asked = world.ask(new=100, count=12)
    engine = world.engine(context=128, cells=256)  # two at a time
    with ThreadPoolExecutor(12) as pool:
        told = [pool.submit(check, engine, *each) for each in zip(asked, 6 * SIDES, strict=True)]
        told += [pool.submit(check, engine, each, False) for each in asked]
        for each in told:
            each.result(timeout=120)
    engine.close()


def test_closing_an_answer_stops_within_one_token_and_the_next_is_answered(
    world: World, engine: Engine
) -> None:
    (asked,) = world.ask()
    decoding = Decoding(engine)
    decoding.slow(0.02)
    assert closed_after(engine, 2, asked.prompt, False, ENDLESS) == asked.answers[False][:2]
    before = len(decoding.sizes)
    time.sleep(0.2)
    assert len(decoding.sizes) <= before + 1
    assert len(decoding.sizes) < 10
    engine.stream(asked.prompt, True, ENDLESS).close()  # before it has begun
    for adapter in SIDES:
        check(engine, asked, adapter)


def test_a_stop_takes_effect_while_the_prompt_is_read(world: World) -> None:
    engine = world.engine(context=1024, cells=1024)
    ids = 80 * [*range(5, 15)]
    decoding = Decoding(engine)
    decoding.slow(0.3)
    stream = engine.stream([ids], False, greedy())
    assert next(stream) is None
    stream.close()
    time.sleep(0.4)
    assert 0 < decoding.positions < len(ids)
    decoding.slow(0)
    for adapter in SIDES:
        check(engine, world.ask()[0], adapter)
    engine.close()


def test_answers_that_are_stopped_leave_the_others_as_they_are(world: World) -> None:
    engine = world.engine(context=256, cells=1024)
    asked = world.ask(count=6)

    def stop_and_go(number: int) -> None:
        for each in asked[number:] + asked[:number]:
            closed_after(engine, 1 + number % 3, each.prompt, number % 2 == 0, ENDLESS)
            check(engine, each, number % 2 == 0)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(stop_and_go, number) for number in range(6)]:
            done.result(timeout=120)
    engine.close()


# What goes wrong


def test_a_failure_is_told_to_who_waits_and_the_next_is_answered(world: World, engine: Engine) -> None:
    (asked,) = world.ask(new=30)
    decoding = Decoding(engine)
    decoding.fail_once()  # while the prompt is read
    with pytest.raises((UserError, RuntimeError), match="ask again|cable"):
        answer(engine, asked.prompt, False)
    for adapter in SIDES:
        check(engine, asked, adapter)
    (stream := engine.stream(asked.prompt, False, ENDLESS)) and next_token(stream)
    decoding.fail_once()  # in the middle of an answer
    with pytest.raises((UserError, RuntimeError), match="ask again|cable"):
        list(stream)
    for adapter in SIDES:
        check(engine, asked, adapter)


def test_visual_tokens_of_another_size_are_an_error_and_the_next_is_answered(
    world: World, engine: Engine
) -> None:
    (asked,) = world.ask()
    with pytest.raises((ValueError, RuntimeError)):
        answer(engine, [[5], torch.zeros(3, EMBEDDING_SIZE + 1), [6]], False)
    for adapter in SIDES:
        check(engine, asked, adapter)


def test_closing_the_engine_tells_those_who_wait_and_refuses_who_comes(world: World) -> None:
    engine = world.engine()
    (asked,) = world.ask()
    decoding = Decoding(engine)
    decoding.slow(0.02)
    stream = engine.stream(asked.prompt, False, ENDLESS)
    next_token(stream)
    with ThreadPoolExecutor(10) as pool:
        waiting = [pool.submit(answer, engine, asked.prompt, True, ENDLESS) for _ in range(10)]
        time.sleep(0.1)
        engine.close()
        with pytest.raises(UserError, match="unloaded.*ask again"):
            list(stream)
        for each in waiting:
            with pytest.raises(UserError, match="unloaded.*ask again"):
                each.result(timeout=20)
    with pytest.raises(UserError, match="unloaded.*ask again"):
        answer(engine, asked.prompt, False)
    engine.close()  # once more does no harm


def test_closing_llama_cpp_ends_its_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path))
    engine = World("llama.cpp-qwen2", tmp_path).engine()
    assert isinstance(engine, LlamaCppEngine)
    answer(engine, [[5, 6]], False)
    assert engine._thread.is_alive()
    engine.close()
    assert not engine._thread.is_alive()


def test_llama_cpp_refuses_a_context_larger_than_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"language\.context \(300\).*language\.cache_tokens \(200\)"):
        World("llama.cpp-qwen2", tmp_path).engine(context=300, cells=200)


def test_torch_without_memory_lets_go_of_what_it_keeps_of_all_conversations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = TorchEngine(LanguageModel(tiny_causal("qwen2"), TOKENIZER), "CPU", 128, 512)
    expected = [answer(engine, [prompt], False) for prompt in ([5, 6, 7], [8, 9])]
    assert len(engine._caches) == 2

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(engine, "_read", full)
        answer(engine, [[9, 5, 6]], False)
    assert not engine._caches
    assert [answer(engine, [prompt], False) for prompt in ([5, 6, 7], [8, 9])] == expected


def test_torch_keeps_what_a_sliding_window_has_passed_for_branches() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=EMBEDDING_SIZE,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        sliding_window=8,
        initializer_range=0.2,
    )
    model = MistralForCausalLM(config).eval()
    engine = TorchEngine(LanguageModel(model, TOKENIZER), "CPU", 128, 512)
    ids = torch.randint(3, VOCABULARY, (60,)).tolist()

    def reference(prompt: list[int]) -> list[int]:
        told: list[int] = []
        for _ in range(LENGTH):
            with torch.no_grad():
                told.append(int(model(torch.tensor([prompt + told]), use_cache=False).logits[0, -1].argmax()))
        return told

    prompts = [ids, ids[:30] + ids[50:], ids[:40] + ids[:5], ids[:25]]
    expected = [reference(prompt) for prompt in prompts]
    decoding = Decoding(engine)
    assert [answer(engine, [prompt], False) for prompt in prompts] == expected
    assert decoding.positions == 60 + 10 + 5 + 1 + 4 * (LENGTH - 1)

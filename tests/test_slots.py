"""Which conversation lies where in the cache: taking a place, going on, branching off, and who goes first."""

from vlm.engines.slots import Place, Slots

SYSTEM = [1, 2, 3, 4]


def asked(slots: Slots, keys: list[int], adapter: bool = False, answer: int = 3) -> Place:
    """A question and its whole answer, whose last token is never read."""
    place = slots.take(keys, adapter, answer)
    assert place is not None
    place.slot.keys += keys[place.kept :] + [90 + n for n in range(answer - 1)]
    slots.release(place.slot)
    return place


def test_a_follow_up_goes_on_in_its_own_slot_and_reads_what_is_new() -> None:
    slots = Slots(3, 100)
    first = asked(slots, [*SYSTEM, 10, 11])
    assert (first.kept, first.source, first.evicted) == (0, None, ())
    follow_up = asked(slots, [*SYSTEM, 10, 11, 90, 91, 92, 20])
    assert follow_up.slot is first.slot
    assert (follow_up.kept, follow_up.source) == (8, None)


def test_the_last_position_is_read_in_any_case() -> None:
    slots = Slots(3, 100)
    first = asked(slots, [*SYSTEM, *range(10, 20)])
    again = asked(slots, [*SYSTEM, *range(10, 20)])
    assert again.slot is first.slot and again.kept == 13
    shorter = asked(slots, SYSTEM)
    assert shorter.kept == 3


def test_short_conversations_that_begin_alike_do_not_take_each_others_slot() -> None:
    slots = Slots(3, 100)
    first, second = asked(slots, [*SYSTEM, 10]), asked(slots, [*SYSTEM, 20])
    assert second.slot is not first.slot
    assert (second.kept, second.source) == (4, first.slot)


def test_short_notes_under_one_long_instruction_share_a_slot() -> None:
    slots = Slots(3, 100)
    instruction = list(range(100, 130))
    first, second = asked(slots, [*instruction, 10]), asked(slots, [*instruction, 20])
    assert second.slot is first.slot and second.kept == 30


def test_a_branch_is_copied_and_what_it_branches_from_stays() -> None:
    slots = Slots(3, 100)
    first = asked(slots, [*SYSTEM, *range(10, 20)])
    other = asked(slots, [*SYSTEM, *range(30, 40)])
    assert other.slot is not first.slot
    assert (other.kept, other.source) == (4, first.slot)
    assert asked(slots, [*SYSTEM, *range(10, 20), 90, 91, 92, 21]).kept == 16


def test_what_is_still_being_written_is_copied_and_never_taken_over() -> None:
    slots = Slots(3, 100)
    first = slots.take([*SYSTEM, 10], False, 5)
    assert first is not None
    first.slot.keys += [*SYSTEM, 10, 90]
    second = slots.take([*SYSTEM, 10], False, 5)
    assert second is not None
    assert second.slot is not first.slot
    assert (second.kept, second.source) == (4, first.slot)


def test_adapter_on_and_off_share_nothing() -> None:
    slots = Slots(3, 100)
    off = asked(slots, [*SYSTEM, 10], adapter=False)
    on = asked(slots, [*SYSTEM, 10], adapter=True)
    assert on.slot is not off.slot
    assert (on.kept, on.source) == (0, None)
    assert asked(slots, [*SYSTEM, 10, 90, 91], adapter=False).slot is off.slot
    assert asked(slots, [*SYSTEM, 10, 90, 91], adapter=True).slot is on.slot


def test_where_no_slot_is_empty_the_least_recently_used_is_taken_over() -> None:
    slots = Slots(2, 100)
    first, second = (asked(slots, [number] * 6) for number in (10, 20))
    assert asked(slots, [*[10] * 6, 90, 91, 92, 11]).slot is first.slot
    third = asked(slots, [30] * 6)
    assert third.slot is second.slot and third.kept == 0
    assert asked(slots, [*[10] * 6, 90, 91, 92, 11, 90, 91, 92, 12]).slot is first.slot


def test_where_the_cells_do_not_suffice_the_least_recently_used_are_emptied() -> None:
    slots = Slots(8, 34)
    first, second, third = (asked(slots, [number] * 6) for number in (10, 20, 30))  # 8 cells each
    asked(slots, [*[10] * 6, 90, 91, 92, 11])  # and now 12
    place = asked(slots, [40] * 9)  # with its answer 12, and 28 are taken
    assert place.evicted == (second.slot,)
    assert not second.slot.keys and third.slot.keys and first.slot.keys
    place = asked(slots, [50] * 30)  # all of them
    assert len(place.evicted) == 3


def test_there_is_no_place_while_all_that_would_make_room_is_busy() -> None:
    slots = Slots(8, 30)
    first, second = slots.take([10] * 6, False, 9), slots.take([20] * 6, False, 9)
    assert first and second
    assert slots.take([30], False, 1) is None
    slots.release(first.slot)
    assert slots.take([30], False, 1) is not None
    busy = Slots(1, 30)
    assert busy.take([10], False, 1) is not None
    assert busy.take([20], False, 1) is None


def test_an_answer_under_way_keeps_the_room_that_it_may_come_to_need() -> None:
    slots = Slots(8, 30)
    first = slots.take([10] * 5, False, 15)
    assert first is not None
    assert slots.take([20] * 6, False, 5) is None
    slots.release(first.slot)  # it has become short, or was stopped
    assert slots.take([20] * 6, False, 5) is not None


def test_a_copy_that_does_not_fit_beside_its_source_is_read_again_in_its_place() -> None:
    slots = Slots(4, 30)
    first = asked(slots, [*SYSTEM, *range(10, 22)])  # 18 cells
    place = slots.take([*SYSTEM, *range(40, 50)], False, 6)  # 20
    assert place is not None
    assert (place.kept, place.source, place.evicted) == (0, None, (first.slot,))


def test_a_prompt_and_answer_that_fill_the_cache_find_a_place_whatever_is_in_it() -> None:
    slots = Slots(4, 40)
    for number in range(50):
        keys = [*SYSTEM, *[100 + number] * (5 + 7 * number % 20), number]
        asked(slots, keys, adapter=number % 3 == 0)
        assert sum(slot.size for slot in slots.slots) <= slots.cells
    whole = asked(slots, [*SYSTEM, *range(200, 231)], answer=5)
    assert whole.kept in (0, 4)


def test_an_emptied_slot_is_no_ones() -> None:
    slots = Slots(2, 30)
    first = slots.take([*SYSTEM, 10], False, 5)
    assert first is not None
    first.slot.keys += SYSTEM
    slots.empty(first.slot)
    assert not first.slot.busy and first.slot.size == 0
    again = slots.take([*SYSTEM, 10], False, 5)
    assert again is not None and (again.kept, again.source) == (0, None)

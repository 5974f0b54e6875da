"""Random streams are keyed, and so are those that are spawned of them."""

from __future__ import annotations

import pickle

from hansa.core.rng import generator


def test_each_key_has_a_stream_of_its_own() -> None:
    keys = [(1, 1, 0, ""), (2, 1, 0, ""), (1, 2, 0, ""), (1, 1, 1, ""), (1, 1, 0, "noise")]
    draws = [generator(seed, round=number, slot=slot, purpose=purpose).random() for seed, number, slot, purpose in keys]
    assert len(set(draws)) == len(keys)
    assert draws == [generator(seed, round=number, slot=slot, purpose=purpose).random() for seed, number, slot, purpose in keys]


def test_spawned_streams_are_the_same_whatever_was_drawn_before_and_differ_from_each_other() -> None:
    one, other = generator(7, round=1, slot=2), generator(7, round=1, slot=2)
    one.random(5)
    first = [child.random() for child in one.spawn(2)]
    assert first == [child.random() for child in other.spawn(2)]
    later = [child.random() for child in one.spawn(2)]
    nested = [child.random() for child in generator(7, round=1, slot=2).spawn(1)[0].spawn(2)]
    assert len({generator(7, round=1, slot=2).random(), *first, *later, *nested}) == 7


def test_a_stream_that_was_sent_elsewhere_goes_on_and_spawns_alike() -> None:
    rng = generator(3)
    rng.spawn(1)
    there = pickle.loads(pickle.dumps(rng))
    assert there.random() == rng.random()
    assert there.spawn(1)[0].random() == rng.spawn(1)[0].random()

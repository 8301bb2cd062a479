"""Tests of interleaved measurements."""

from functools import partial

from bench.interleaving import interleave


def test_order_rotates_every_round() -> None:
    calls: list[str] = []

    def record(name: str) -> int:
        calls.append(name)
        return len(calls)

    found = interleave({name: partial(record, name) for name in "abc"}, 2)
    assert calls == ["a", "b", "c", "b", "c", "a"]
    assert found == {"a": [1, 6], "b": [2, 4], "c": [3, 5]}

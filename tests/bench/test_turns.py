"""Alternatives take turns."""

from functools import partial

from bench.turns import in_turns


def test_every_round_begins_with_another_one() -> None:
    calls: list[str] = []

    def way(name: str) -> int:
        calls.append(name)
        return len(calls)

    found = in_turns({name: partial(way, name) for name in "abc"}, 2)
    assert calls == ["a", "b", "c", "b", "c", "a"]
    assert found == {"a": [1, 6], "b": [2, 4], "c": [3, 5]}

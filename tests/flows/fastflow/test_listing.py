from flows.fastflow.listing import lines, some


def test_all_are_shown_up_to_so_many() -> None:
    assert some([], 2) == ""
    assert some(["a", "b"], 2) == "a, b"
    assert some(["a", "b"], 2, " ~ ") == "a ~ b"
    assert lines([], 2) == []
    assert lines(["a", "b"], 2) == ["  a", "  b"]

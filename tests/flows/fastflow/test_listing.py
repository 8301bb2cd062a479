from flows.fastflow.listing import lines, some


def test_all_are_shown_up_to_so_many() -> None:
    assert some([], 2) == ""
    assert some(["a", "b"], 2) == "a, b"
    assert some(["a", "b"], 2, " ~ ") == "a ~ b"
    assert lines([], 2) == []
    assert lines(["a", "b"], 2) == ["  a", "  b"]


def test_of_more_the_rest_is_counted() -> None:
    assert some(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert lines(["a", "b", "c", "d"], 2) == ["  a", "  b", "  and 2 more"]

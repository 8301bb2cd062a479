"""The calibration images that a threshold hangs on."""

from flows.fastflow.calibration.highest_scores import describe_highest_scoring, highest_scoring

SCORES = [1.0, 9.0, 3.0, 2.0, 5.0, 4.0]
NAMES = list("abcdef")


def test_the_highest_come_first_and_five_of_them() -> None:
    assert highest_scoring(NAMES, SCORES) == list("befcd")
    assert highest_scoring(["a"], [1.0]) == ["a"]
    assert highest_scoring(["a", "b"], [1.0, 1.0]) == ["a", "b"]


def test_line_names_images_and_threshold_without_the_first() -> None:
    assert describe_highest_scoring(highest_scoring(NAMES, SCORES), SCORES, 0.01) == (
        "highest of 6 good images to calibrate: b 9, e 5, f 4, c 3, d 2; without b the threshold would be "
        "5, not 9. Is b really good? Remove it only if it is defective, not because it scores high."
    )


def test_what_the_promise_needs_is_said() -> None:
    scores = [float(i) for i in range(99)]
    said = describe_highest_scoring(highest_scoring([str(i) for i in range(99)], scores), scores, 0.01)
    assert "without 98 the threshold would be 97, not 98, and no longer certified." in said
    more = [*scores, 99.0]
    said = describe_highest_scoring(highest_scoring([str(i) for i in range(100)], more), more, 0.01)
    assert "without 99 the threshold would be 98, not 99." in said

from contextlib import suppress

import pytest

from app.admission import Admission
from app.problems import Problem


def test_gives_everything_back() -> None:
    admission = Admission(max_images=2, max_bytes=100)
    with admission.reserve() as room:
        room.hold(30)
        room.hold(40)
        room.wait_in_line()
        assert (admission.images, admission.bytes) == (1, 70)
    assert (admission.images, admission.bytes) == (0, 0)


def test_gives_everything_back_after_an_error() -> None:
    admission = Admission(max_images=2, max_bytes=100)
    with suppress(RuntimeError), admission.reserve() as room:
        room.hold(30)
        room.wait_in_line()
        raise RuntimeError
    assert (admission.images, admission.bytes) == (0, 0)


def test_bounds_images() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    with admission.reserve() as early, admission.reserve() as late:
        early.wait_in_line()
        with pytest.raises(Problem, match="1 images are waiting") as caught:
            late.wait_in_line()
        assert caught.value.name == "queue-full"
        with pytest.raises(Problem):
            admission.reserve()
    assert admission.images == 0
    admission.reserve()


def test_bounds_bytes_over_all_requests() -> None:
    admission = Admission(max_images=9, max_bytes=100)
    with admission.reserve() as one, admission.reserve() as other:
        one.hold(60)
        with pytest.raises(Problem, match="60 bytes") as caught:
            other.hold(41)
        assert caught.value.name == "queue-full"
        other.hold(40)
        assert admission.bytes == 100


def test_a_slow_upload_takes_no_place_in_the_queue() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    with admission.reserve() as slow:
        slow.hold(1)
        with admission.reserve() as quick:
            quick.wait_in_line()
        assert admission.images == 0


def test_an_answer_is_counted_in_place_of_its_image_whatever_its_size() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    with admission.reserve() as room:
        room.hold(60)
        room.wait_in_line()
        room.turn_into(120)
        assert (admission.images, admission.bytes) == (0, 120)
        with pytest.raises(Problem, match="120 bytes"):
            admission.reserve()
    assert (admission.images, admission.bytes) == (0, 0)

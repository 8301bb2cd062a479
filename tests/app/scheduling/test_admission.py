from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from app.errors.problems import Problem
from app.scheduling.admission import CALIBRATIONS, Admission
from flows.fastflow.bundle import models_folder


@contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(Problem, match=words) as caught:
        yield
    assert caught.value.name == "queue-full"


def take_images(admission: Admission, stack: ExitStack, category: str) -> int:
    """Hold images of requests of a category until one is refused."""
    for taken in range(10_000):
        try:
            stack.enter_context(admission.reserve(category)).hold_images(1)
        except Problem:
            return taken
    raise AssertionError


def test_reservation_is_released_on_any_exit() -> None:
    admission = Admission(max_images=2, max_bytes=100)
    with suppress(KeyError), admission.reserve("bottle") as room:
        room.hold(30)
        room.hold(40)
        room.hold_images(1)
        assert (admission.images, admission.bytes) == (1, 70)
        assert (admission.images_held["bottle"], admission.bytes_held["bottle"]) == (1, 70)
        raise KeyError
    room.hold(30)
    assert (admission.images, admission.bytes) == (0, 0)
    assert not admission.images_held
    assert not admission.bytes_held


def test_images_are_bounded() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    with admission.reserve("bottle") as early, admission.reserve("bottle") as late:
        early.hold(1)  # a slow upload takes no image's place
        late.hold_images(1)
        with refused("1 images are waiting, the limit is 1;"):
            early.hold_images(1)
        with refused("the limit is 1"):
            admission.reserve("grid")
    admission.reserve("grid")


def test_bytes_are_bounded_over_all_requests() -> None:
    admission = Admission(max_images=9, max_bytes=100)
    with admission.reserve("bottle") as one, admission.reserve("grid") as other:
        one.hold(60)
        with refused("60 bytes of images are held, the limit is 100;"):
            other.hold(41)
        other.hold(40)
        assert admission.bytes == 100
        one.hold(0)  # as the end of an upload comes


def test_answer_of_any_size_replaces_its_image() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    with admission.reserve("bottle") as room:
        room.hold(60)
        room.hold_images(1)
        room.add_answer(500)
        assert (admission.images, admission.bytes) == (1, 560)
        room.keep_answer_only(700)
        assert (admission.images, admission.bytes) == (0, 700)
        with refused("700 bytes of images are held"):
            admission.reserve("grid")
    assert admission.bytes == 0


@pytest.mark.parametrize("categories", [1, 2, 8])
def test_busy_categories_get_equal_shares(categories: int) -> None:
    admission = Admission(max_images=640, max_bytes=100)
    names = [f"part{i}" for i in range(categories)]
    with ExitStack() as stack:
        growing = set(names)
        while growing:
            for name in sorted(growing):
                try:
                    stack.enter_context(admission.reserve(name)).hold_images(1)
                except Problem:
                    growing.discard(name)
        share = 640 * 2 / (2 * categories + 1)
        assert [admission.images_held[name] for name in names] == pytest.approx([share] * categories, abs=1)


def test_share_grows_when_others_leave() -> None:
    admission = Admission(max_images=64, max_bytes=100)
    with ExitStack() as big:
        with ExitStack() as other:
            assert take_images(admission, other, "other") == 43
            assert take_images(admission, big, "big") == 14
        assert take_images(admission, big, "big") == 43 - 14


def test_bytes_are_shared_too() -> None:
    admission = Admission(max_images=9, max_bytes=300)
    with admission.reserve("big") as one, admission.reserve("big") as two:
        one.hold(150)
        two.hold(80)
        with refused("150 bytes of images are held for this category, its share"):
            two.hold(1)
        with refused("230 bytes of images are held for this category, its share"):
            admission.reserve("big")
        with admission.reserve("small") as small:
            small.hold(40)


def test_single_request_may_take_all() -> None:
    admission = Admission(max_images=4, max_bytes=100)
    with admission.reserve("bottle") as room:
        room.hold_images(4)
        for _ in range(4):
            room.hold(25)
        assert (admission.images, admission.bytes) == (4, 100)


def test_calibrations_leave_a_quarter_to_inspections() -> None:
    assert not models_folder.is_category(CALIBRATIONS)
    admission = Admission(max_images=10, max_bytes=1000)
    with admission.reserve(CALIBRATIONS) as first, admission.reserve(CALIBRATIONS) as second:
        first.hold(500)  # the most that is read for one
        for _ in range(25):
            second.hold(10)
        with refused("its share"):
            second.hold(10)
        with admission.reserve("bottle") as room:
            room.hold(250)

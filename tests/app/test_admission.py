from contextlib import ExitStack, suppress

import pytest

from app.admission import CALIBRATIONS, Admission, Reservation
from app.problems import Problem
from app.settings import Settings
from flows.fastflow import models_folder


def test_gives_everything_back() -> None:
    admission = Admission(max_images=2, max_bytes=100)
    with admission.reserve("bottle") as room:
        room.hold(30)
        room.hold(40)
        room.wait_in_line()
        assert (admission.images, admission.bytes) == (1, 70)
        assert (admission.images_held["bottle"], admission.bytes_held["bottle"]) == (1, 70)
        assert (admission.images_held["grid"], admission.bytes_held["grid"]) == (0, 0)
    assert (admission.images, admission.bytes) == (0, 0)


def test_gives_everything_back_after_an_error() -> None:
    admission = Admission(max_images=2, max_bytes=100)
    with suppress(RuntimeError), admission.reserve("bottle") as room:
        room.hold(30)
        room.wait_in_line()
        raise RuntimeError
    assert (admission.images, admission.bytes) == (0, 0)


def test_counts_nothing_after_that() -> None:
    admission = Admission(max_images=2, max_bytes=100)
    with admission.reserve("bottle") as room:
        pass
    room.hold(30)
    room.wait_in_line()
    assert (admission.images, admission.bytes) == (0, 0)


def test_bounds_images() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    with admission.reserve("bottle") as early, admission.reserve("bottle") as late:
        early.wait_in_line()
        with pytest.raises(Problem, match="1 images are waiting, the limit is 1;") as caught:
            late.wait_in_line()
        assert caught.value.name == "queue-full"
        with pytest.raises(Problem):
            admission.reserve("grid")
    assert admission.images == 0
    admission.reserve("grid")


def test_bounds_bytes_over_all_requests() -> None:
    admission = Admission(max_images=9, max_bytes=100)
    with admission.reserve("bottle") as one, admission.reserve("grid") as other:
        one.hold(60)
        with pytest.raises(Problem, match="60 bytes of images are held, the limit is 100;") as caught:
            other.hold(41)
        assert caught.value.name == "queue-full"
        other.hold(40)
        assert admission.bytes == 100
        one.hold(0)  # as the end of an upload comes


def test_a_slow_upload_takes_no_place_in_the_queue() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    with admission.reserve("bottle") as slow:
        slow.hold(1)
        with admission.reserve("bottle") as quick:
            quick.wait_in_line()
        assert admission.images == 0


def test_an_answer_is_counted_in_place_of_its_image_whatever_its_size() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    with admission.reserve("bottle") as room:
        room.hold(60)
        room.wait_in_line()
        room.turn_into(120)
        assert (admission.images, admission.bytes) == (0, 120)
        assert admission.bytes_held["bottle"] == 120
        with pytest.raises(Problem, match="120 bytes"):
            admission.reserve("bottle")
    assert (admission.images, admission.bytes) == (0, 0)


def take_images(admission: Admission, stack: ExitStack, category: str) -> int:
    """Let a category take as many places as it gets, a request each; how many those are."""
    before = admission.images
    with suppress(Problem):
        while True:
            stack.enter_context(admission.reserve(category)).wait_in_line()
    return admission.images - before


class TestShares:
    def test_a_flood_of_one_category_leaves_a_third_to_others(self) -> None:
        admission = Admission(max_images=64, max_bytes=100)
        with ExitStack() as stack:
            assert take_images(admission, stack, "big") == 43
            with pytest.raises(Problem, match="43 images are waiting for this category, its share"):
                admission.reserve("big")
            for _ in range(5):
                stack.enter_context(admission.reserve("small")).wait_in_line()
            assert (admission.images_held["big"], admission.images_held["small"]) == (43, 5)

    @pytest.mark.parametrize("categories", [2, 3, 8])
    def test_categories_that_all_want_more_get_the_same(self, categories: int) -> None:
        admission = Admission(max_images=640, max_bytes=100)
        names = [f"part{i}" for i in range(categories)]
        with ExitStack() as stack:
            going = True
            while going:  # in turn, as their requests would come
                going = False
                for name in names:
                    with suppress(Problem):
                        stack.enter_context(admission.reserve(name)).wait_in_line()
                        going = True
            share = 640 * 2 / (2 * categories + 1)
            assert [admission.images_held[name] for name in names] == pytest.approx(
                [share] * categories, abs=1
            )

    def test_by_default_64_clients_of_8_categories_find_room(self) -> None:
        admission = Admission(max_images=Settings().queue_images, max_bytes=100)
        with ExitStack() as stack:
            for number in range(64):
                stack.enter_context(admission.reserve(f"part{number % 8}")).wait_in_line()
            assert admission.images == 64

    def test_they_rise_when_the_others_have_gone(self) -> None:
        admission = Admission(max_images=64, max_bytes=100)
        with ExitStack() as big:
            with ExitStack() as other:
                assert take_images(admission, other, "other") == 43
                assert take_images(admission, big, "big") == 14
            assert take_images(admission, big, "big") == 43 - 14

    def test_bytes_are_shared_too(self) -> None:
        admission = Admission(max_images=9, max_bytes=300)
        with admission.reserve("big") as one, admission.reserve("big") as two:
            one.hold(150)
            two.hold(80)
            with pytest.raises(Problem, match="150 bytes of images are held for this category, its share"):
                two.hold(1)
            with pytest.raises(Problem, match="230 bytes of images are held for this category, its share"):
                admission.reserve("big")
            with admission.reserve("small") as small:
                small.hold(40)
            two.hold(0)

    def test_one_request_alone_may_take_all(self) -> None:
        admission = Admission(max_images=4, max_bytes=100)
        with admission.reserve("bottle") as room:
            for _ in range(4):
                room.hold(25)
                room.wait_in_line()
            room.hold(0)
            assert (admission.images, admission.bytes) == (4, 100)

    def test_the_smallest_queue_serves_every_category_in_turn(self) -> None:
        admission = Admission(max_images=1, max_bytes=1)
        for category in ("bottle", "bottle", "grid"):
            with admission.reserve(category) as room:
                room.hold(1)
                room.wait_in_line()

    def test_names_that_hold_nothing_are_forgotten(self) -> None:
        admission = Admission(max_images=9, max_bytes=100)
        rooms: list[Reservation] = []
        for i in range(1000):
            with admission.reserve(f"made-up-{i}") as room:
                room.hold(10)
                room.wait_in_line()
            rooms.append(admission.reserve(f"refused-{i}"))
        assert not admission.images_held
        assert not admission.bytes_held


def test_calibrations_of_however_many_categories_leave_a_quarter_to_inspections() -> None:
    assert not models_folder.is_category(CALIBRATIONS)
    admission = Admission(max_images=10, max_bytes=1000)
    with admission.reserve(CALIBRATIONS) as first, admission.reserve(CALIBRATIONS) as second:
        first.hold(500)  # the most that is read for one
        for _ in range(25):
            second.hold(10)
        with pytest.raises(Problem, match="its share at present"):
            second.hold(10)
        with admission.reserve("bottle") as room:
            room.hold(250)

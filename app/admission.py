"""How much may be accepted and not yet sent as an answer: bounds in images and in bytes, shared fairly."""

from collections import Counter
from typing import Final, Self

from app.problems import Problem

# A category alone takes two thirds of the room and leaves a third to whoever comes; n categories that all
# want more take 2 / (2 n + 1) of it each. With 1, one alone would get half; the more, the less is left.
_ALPHA: Final = 2
# Whose share all uploads of pictures to calibrate with take from, whatever category they are for: each may
# be half of the room and stays for minutes, and two would leave inspections none. No category is named so.
CALIBRATIONS: Final = "calibrations of all"


class Admission:
    """Counts what is held for requests until their answers are sent.

    Nobody's flood may take the room of all: a category may hold as long as that is less than `_ALPHA` times
    what is free, a bound that falls while others come and rises when they have gone (A. K. Choudhury, E. L.
    Hahne, Dynamic queue length thresholds for shared-memory packet switches, IEEE/ACM Transactions on
    Networking 6 (2), 1998, equation 1). Here a request's own images and bytes do not count against it: alone
    in its category it may take all, or the largest image would never fit.

    Used from the event loop's thread alone, so it needs no lock. A thread may go on for a moment
    with an image whose request is gone and counted no more; that is one image per thread at most.

    Args:
        max_images: images that may wait.
        max_bytes: bytes of uploads, decoded pixels and answers that may be in memory.

    Attributes:
        images: held for all.
        bytes: held for all.
        images_held: by category, none of them 0: anybody may make up names.
        bytes_held: likewise.
    """

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self.max_images = max_images
        self.max_bytes = max_bytes
        self.images = 0
        self.bytes = 0
        self.images_held = Counter[str]()
        self.bytes_held = Counter[str]()

    def reserve(self, category: str) -> "Reservation":
        """Open the account of one request.

        Args:
            category: whose share it takes from; it need not exist.

        Raises:
            Problem: queue-full, when no image could wait now: better before its upload than after.
        """
        room = Reservation(self, category)
        room.expect_room(images=1, size=1)
        return room

    def count(self, category: str, images: int, size: int) -> None:
        """Add to what is held, or take from it; called by reservations."""
        self.images += images
        self.bytes += size
        for held, change in ((self.images_held, images), (self.bytes_held, size)):
            held[category] += change
            if not held[category]:
                del held[category]


class Reservation:
    """What is held for one request; a context manager that gives all of it back.

    After that it counts nothing: an image of a request that was cancelled may go on for a moment, and what it
    held then would never be given back.
    """

    def __init__(self, admission: Admission, category: str) -> None:
        self._admission = admission
        self._category = category
        self._images = 0
        self._bytes = 0
        self._closed = False

    def hold(self, size: int) -> None:
        """Count bytes, before they are kept.

        Raises:
            Problem: queue-full.
        """
        self.expect_room(images=0, size=size)
        self._count(0, size)

    def wait_in_line(self) -> None:
        """Count an image that has arrived. A slow upload holds its bytes, but nobody's place in the queue.

        Raises:
            Problem: queue-full.
        """
        self.expect_room(images=1, size=0)
        self._count(1, 0)

    def add_answer(self, size: int) -> None:
        """Count a part of the answer, which is there already: it is not refused; who comes later may be."""
        self._count(0, size)

    def turn_into(self, answer_bytes: int) -> None:
        """Count from here on the answer alone; the image it was made of is gone.

        The answer is there already, so it is not refused for its size; who comes after it may be.
        """
        self._count(-self._images, answer_bytes - self._bytes)

    def expect_room(self, images: int, size: int) -> None:
        """Raise the problem queue-full unless so much more fits, and into the category's share."""
        all_held, category = self._admission, self._category
        others = all_held.images_held[category] - self._images
        _expect(images, others, all_held.images, all_held.max_images, "images are waiting")
        others = all_held.bytes_held[category] - self._bytes
        _expect(size, others, all_held.bytes, all_held.max_bytes, "bytes of images are held")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._count(-self._images, -self._bytes)
        self._closed = True

    def _count(self, images: int, size: int) -> None:
        if not self._closed:
            self._admission.count(self._category, images, size)
            self._images += images
            self._bytes += size


def _expect(more: int, others: int, held: int, most: int, what: str) -> None:
    """Refuse what does not fit.

    Args:
        more: that is to be held.
        others: that are held for other requests of the category.
        held: for all.
        most: that may be held for all.
        what: it is.
    """
    if held + more > most:
        raise Problem("queue-full", f"{held} {what}, the limit is {most}; try again later.")
    if more and others >= _ALPHA * (most - held):
        raise Problem(
            "queue-full", f"{others} {what} for this category, its share at present; try again later."
        )

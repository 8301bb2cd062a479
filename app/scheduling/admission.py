"""Bounds on the images and bytes that are held for requests, shared fairly by categories."""

from collections import Counter
from typing import Final, Self

from app.errors.problems import Problem

# A category alone takes two thirds of the room; n that all want more take 2 / (2 n + 1) of it each.
_ALPHA: Final = 2
# The category of all uploads of calibration images: each may be half of the room and stays for minutes, and
# two would leave inspections none. No category is named so.
CALIBRATIONS: Final = "calibrations of all"


class Admission:
    """Count what is held for requests until their answers are sent.

    A category may hold less than `_ALPHA` times what is free, a bound that falls while others come and rises
    when they have gone (A. K. Choudhury, E. L. Hahne, Dynamic queue length thresholds for shared-memory
    packet switches, IEEE/ACM Transactions on Networking 6 (2), 1998, equation 1). A request's own images and
    bytes do not count against it, or the largest image would never fit.

    Used in the event loop alone.

    Args:
        max_images: that may be held.
        max_bytes: of uploads, decoded pixels and answers that may be in memory.
    """

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self.max_images = max_images
        self.max_bytes = max_bytes
        self.images = 0
        self.bytes = 0
        self.images_held = Counter[str]()  # by category, without zeros
        self.bytes_held = Counter[str]()  # likewise

    def reserve(self, category: str) -> "Reservation":
        """Open the account of one request; queue-full before its upload if not even one image would fit."""
        room = Reservation(self, category)
        room.require(images=1, size=1)
        return room

    def count(self, category: str, images: int, size: int) -> None:
        """Add to what is held. Called by reservations."""
        self.images += images
        self.bytes += size
        for held, change in ((self.images_held, images), (self.bytes_held, size)):
            held[category] += change
            if not held[category]:
                del held[category]


class Reservation:
    """What is held for one request. A context manager that gives all of it back, and counts nothing after."""

    def __init__(self, admission: Admission, category: str) -> None:
        self._admission = admission
        self._category = category
        self._images = 0
        self._bytes = 0
        self._closed = False

    def hold(self, size: int) -> None:
        """Count bytes before they are kept, or raise the problem queue-full."""
        self.require(images=0, size=size)
        self._count(0, size)

    def hold_images(self, number: int) -> None:
        """Count images that have arrived, or raise the problem queue-full."""
        for _ in range(number):
            self.require(images=1, size=0)
            self._count(1, 0)

    def add_answer(self, size: int) -> None:
        """Count bytes of the answer. They exist already, so they are never refused."""
        self._count(0, size)

    def keep_answer_only(self, answer_bytes: int) -> None:
        """Count from here on the bytes of the answer alone: images and drawings are gone."""
        self._count(-self._images, answer_bytes - self._bytes)

    def require(self, images: int, size: int) -> None:
        """Raise the problem queue-full unless so much more fits, in all and in the category's share."""
        held, category = self._admission, self._category
        own = held.images_held[category] - self._images
        _require(images, own, held.images, held.max_images, "images are waiting")
        own = held.bytes_held[category] - self._bytes
        _require(size, own, held.bytes, held.max_bytes, "bytes of images are held")

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


def _require(more: int, own: int, held: int, limit: int, what: str) -> None:
    """Refuse `more` where so much is held for all, of which `own` by other requests of the category."""
    if held + more > limit:
        raise Problem("queue-full", f"{held} {what}, the limit is {limit}; try again later.")
    if more and own >= _ALPHA * (limit - held):
        raise Problem("queue-full", f"{own} {what} for this category, its share at present; try again later.")

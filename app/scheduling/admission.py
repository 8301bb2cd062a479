"""Limits on the images and bytes held for requests, shared fairly by categories."""

from collections import Counter
from typing import Final, Self

from app.errors.problems import Problem

# A single category can use two thirds of a limit; n busy categories get 2 / (2 n + 1) each.
_ALPHA: Final = 2
# The category of all uploads of calibration images. Each may take half of the limit for minutes, so two would
# leave nothing for inspections. No model category can have this name.
CALIBRATIONS: Final = "calibrations of all"
# Likewise of all uploads to datasets.
DATASETS: Final = "datasets of all"


class Admission:
    """Images and bytes held for requests until their answers are sent.

    A category may hold less than `_ALPHA` times the free amount. This bound falls while other categories are
    busy (A. K. Choudhury, E. L. Hahne, Dynamic queue length thresholds for shared-memory packet switches,
    IEEE/ACM Transactions on Networking 6 (2), 1998, equation 1). A request's own images and bytes do not
    count against it; otherwise the largest image would never fit.

    Used only in the event loop.

    Args:
        max_images: limit on held images.
        max_bytes: limit on the bytes of uploads, decoded pixels and answers in memory.
    """

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self.max_images = max_images
        self.max_bytes = max_bytes
        self.images = 0
        self.bytes = 0
        self.images_held = Counter[str]()  # by category, without zeros
        self.bytes_held = Counter[str]()  # likewise

    def reserve(self, category: str) -> "Reservation":
        """Open a reservation for a request; raise the problem queue-full if no image would fit."""
        reservation = Reservation(self, category)
        reservation.require(images=1, size=1)
        return reservation

    def count(self, category: str, images: int, size: int) -> None:
        """Change the counts. Called by reservations."""
        self.images += images
        self.bytes += size
        for held, change in ((self.images_held, images), (self.bytes_held, size)):
            held[category] += change
            if not held[category]:
                del held[category]


class Reservation:
    """Images and bytes held for one request. A context manager that releases them at its end."""

    def __init__(self, admission: Admission, category: str) -> None:
        self._admission = admission
        self._category = category
        self._images = 0
        self._bytes = 0
        self._closed = False

    def hold(self, size: int) -> None:
        """Count bytes before they are stored, or raise the problem queue-full."""
        self.require(images=0, size=size)
        self._count(0, size)

    def hold_images(self, number: int) -> None:
        """Count images that have arrived, or raise the problem queue-full."""
        for _ in range(number):
            self.require(images=1, size=0)
            self._count(1, 0)

    def add_answer(self, size: int) -> None:
        """Count bytes of the answer. They are in memory already, so they are never refused."""
        self._count(0, size)

    def keep_answer_only(self, answer_bytes: int) -> None:
        """Count only the bytes of the answer from now on: images and drawings are freed."""
        self._count(-self._images, answer_bytes - self._bytes)

    def require(self, images: int, size: int) -> None:
        """Raise the problem queue-full unless the amount fits, in total and in the category's share."""
        admission, category = self._admission, self._category
        others = admission.images_held[category] - self._images
        _require(images, others, admission.images, admission.max_images, "images are waiting")
        others = admission.bytes_held[category] - self._bytes
        _require(size, others, admission.bytes, admission.max_bytes, "bytes of images are held")

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


def _require(amount: int, others: int, held: int, limit: int, state: str) -> None:
    """Refuse an amount at `held` in total, of which the category's other requests hold `others`."""
    if held + amount > limit:
        raise Problem("queue-full", f"{held} {state}, the limit is {limit}; try again later.")
    if amount and others >= _ALPHA * (limit - held):
        raise Problem("queue-full", f"{others} {state} for this category, its share; try again later.")

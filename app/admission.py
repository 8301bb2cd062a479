"""How much may be accepted and not yet sent as an answer: a bound in images and a bound in bytes."""

from typing import Self

from app.problems import Problem


class Admission:
    """Counts what is held for requests until their answers are sent.

    Used from the event loop's thread alone, so it needs no lock. A thread may go on for a moment
    with an image whose request is gone and counted no more; that is one image per thread at most.

    Args:
        max_images: images that may wait.
        max_bytes: bytes of uploads, decoded pixels and answers that may be in memory.
    """

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self.max_images = max_images
        self.max_bytes = max_bytes
        self.images = 0
        self.bytes = 0

    def reserve(self) -> "Reservation":
        """Open the account of one request.

        Raises:
            Problem: queue-full, when no image could wait now: better before its upload than after.
        """
        self.expect_room(images=1, size=0)
        return Reservation(self)

    def expect_room(self, images: int, size: int) -> None:
        """Raise the problem queue-full unless so much more fits."""
        if self.images + images > self.max_images:
            raise Problem(
                "queue-full",
                f"{self.images} images are waiting, the limit is {self.max_images}; try again later.",
            )
        if self.bytes + size > self.max_bytes:
            raise Problem(
                "queue-full",
                f"{self.bytes} bytes of images are held, the limit is {self.max_bytes}; try again later.",
            )


class Reservation:
    """What is held for one request; a context manager that gives all of it back."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._images = 0
        self._bytes = 0

    def hold(self, size: int) -> None:
        """Count bytes, before they are kept.

        Raises:
            Problem: queue-full.
        """
        self._admission.expect_room(images=0, size=size)
        self._admission.bytes += size
        self._bytes += size

    def wait_in_line(self) -> None:
        """Count an image that has arrived. A slow upload holds its bytes, but nobody's place in the queue.

        Raises:
            Problem: queue-full.
        """
        self._admission.expect_room(images=1, size=0)
        self._admission.images += 1
        self._images += 1

    def turn_into(self, answer_bytes: int) -> None:
        """Count from here on the answer alone; the image it was made of is gone.

        The answer is there already, so it is not refused for its size; who comes after it may be.
        """
        self._give_back()
        self._admission.bytes += answer_bytes
        self._bytes = answer_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        self._admission.images -= self._images
        self._admission.bytes -= self._bytes
        self._images = self._bytes = 0

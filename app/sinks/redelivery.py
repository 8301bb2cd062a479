"""Delivery of what was given up, when a person asks for it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.sinks.dead_letters import DeadLetters, read
from app.sinks.delivery import Sink, Undelivered, attempt

_IN_A_ROW: Final = 3


@dataclass(frozen=True)
class Redelivery:
    """How it went.

    Attributes:
        delivered: letters that the receiver has now.
        refused: that it did not take while it took others; they are kept.
        unreadable: that are no letters any more; they are kept.
        waiting: the one that stopped it, and those behind; they are kept.
        stopped: why; None where all were tried.
    """

    delivered: int
    refused: int
    unreadable: int
    waiting: int
    stopped: str | None

    @property
    def kept(self) -> int:
        """All that were not delivered."""
        return self.refused + self.unreadable + self.waiting


async def redeliver(sink: Sink, dead: DeadLetters, refusal: Callable[[str], None]) -> Redelivery:
    """Deliver a sink's dead letters, one attempt each, the oldest first, marked as redelivered.

    A letter that fails is kept and does not stop the others, unless several in a row do, as where an address
    or a secret is wrong, or the receiver cannot be reached or takes nothing now. Letters leave their file
    when all is over: a process that is killed delivers them again.

    Args:
        sink: where to; opened and closed here.
        dead: its letters.
        refusal: is told what the receiver answers to a letter that is passed over.

    Raises:
        SinkError: somebody else takes letters out.
        OSError: the files cannot be read or written.
    """
    delivered = unreadable = failures = 0
    stopped = None
    kept = deque[str]()
    await sink.open()
    try:
        with dead.taken() as letters:
            try:
                while letters and stopped is None:
                    event = read(letters[0])
                    if event is None:
                        unreadable += 1
                        kept.append(letters.popleft())
                        continue
                    try:
                        await attempt(sink, event, redelivered=True)
                    except Undelivered as error:
                        failures += not error.final
                        if error.final or (error.counts and failures < _IN_A_ROW):
                            refusal(str(error))
                            kept.append(letters.popleft())
                        else:
                            stopped = str(error)
                    else:
                        letters.popleft()
                        delivered += 1
                        failures = 0
                waiting = len(letters)
            finally:
                letters.extendleft(reversed(kept))
    finally:
        await sink.close()
    return Redelivery(delivered, len(kept) - unreadable, unreadable, waiting, stopped)

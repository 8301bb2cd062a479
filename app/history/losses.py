"""Why the picture or the map of an inspection is not there: retention has removed it, or the disk lost it."""

import logging

from app.database.engine import Database
from app.history import queries
from app.problems import Problem

logger = logging.getLogger("flowgauge.history")


def gone() -> Problem:
    """What is answered where retention has removed an inspection's files."""
    return Problem("unknown-inspection", "Retention has removed the picture and the map of this inspection.")


def lost(database: Database, identifier: str) -> Problem:
    """Why a file is not there. Retention changes the row first, so the row says whether it was that."""
    with database.read() as connection:
        now = queries.find(connection, identifier)
    if now is None or not now.has_pictures:
        return gone()
    logger.error("the picture or the map of inspection %s is missing or damaged on the disk", identifier)
    # No 503: clients would ask again and again.
    return Problem(
        "files-lost",
        "The picture or the map of this inspection is missing or damaged on the server's disk, so it is not "
        "shown. Asking again does not help: a backup can bring it back.",
    )

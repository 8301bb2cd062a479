import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import delete, select

from app.auth.permissions import ANONYMOUS
from app.database import clock
from app.database.engine import Database
from app.database.tables import inspections
from app.errors.problems import Problem
from app.history import reviews
from tests.app.history.rows import add, row


def test_latest_review_counts_and_all_are_kept(database: Database) -> None:
    [identifier] = add(database, row())
    first = reviews.add_review(database, ANONYMOUS, identifier, "defect", 0, "Ada", "a scratch, top left")
    second = reviews.add_review(database, ANONYMOUS, identifier, "good", 1)
    assert reviews.list_reviews(database, identifier) == [first, second]
    assert (first.revision, first.reviewer, first.note) == (1, "Ada", "a scratch, top left")
    assert (second.revision, second.reviewer, second.note) == (2, None, None)
    assert first.created <= second.created <= clock.iso(clock.now_ms())
    with database.read() as connection:
        summary = connection.execute(select(inspections.c.review_revision, inspections.c.verdict)).one()
    assert tuple(summary) == (2, "good")


def test_one_of_concurrent_reviews_succeeds(each_database: Database) -> None:
    identifiers = add(each_database, *(row() for _ in range(5)))
    together = threading.Barrier(4)

    def review(number: int, identifier: str) -> bool:
        together.wait()
        try:
            reviews.add_review(
                each_database, ANONYMOUS, identifier, "good" if number % 2 else "defect", 0, str(number)
            )
        except Problem as problem:
            assert problem.name == "conflict"  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        for identifier in identifiers:
            won = list(pool.map(review, range(4), [identifier] * 4))
            assert sum(won) == 1
            [kept] = reviews.list_reviews(each_database, identifier)
            assert kept.reviewer == str(won.index(True))


def test_review_of_an_inspection_being_deleted(each_database: Database) -> None:
    [identifier] = add(each_database, row())
    begun = threading.Event()

    def review() -> str:
        begun.set()
        try:
            reviews.add_review(each_database, ANONYMOUS, identifier, "good", 0)
        except Problem as problem:
            return problem.name
        return "reviewed"

    with ThreadPoolExecutor(1) as pool:
        with each_database.write() as connection:
            connection.execute(delete(inspections).where(inspections.c.review_revision == 0))
            outcome = pool.submit(review)
            begun.wait()
        assert outcome.result() == "unknown-inspection"

from app.storage.recent_reads import RecentReads


def test_least_recently_read_files_are_forgotten() -> None:
    reads: list[str] = []

    def read(name: str) -> bytes:
        reads.append(name)
        return b"12345"

    recent = RecentReads(12)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert recent.get(name, read) == b"12345"
    assert reads == ["a", "b", "c", "b"]
    recent.forget("b")
    recent.get("b", read)
    assert reads[-1] == "b"
    assert len(reads) == 5
    assert RecentReads(3).get("a", read) == b"12345"  # larger than all that it may keep

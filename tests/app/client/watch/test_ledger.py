import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.client.watch.folder import Stamp
from app.client.watch.ledger import OWN, Ledger, LedgerError


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path)) as ledger:
        yield ledger


def again(ledger: Ledger, root: Path) -> Ledger:
    """The ledger that the next process opens."""
    ledger.close()
    return Ledger(root)


def test_ledger_survives_the_process(tmp_path: Path, ledger: Ledger) -> None:
    name = os.fsdecode(b"day/P\xfc.png")
    stamp = Stamp(3, 10**18 + 1, 2**64 - 1)
    assert not ledger.is_done(name, stamp)
    ledger.finish(name, Stamp(1, 2, 3))
    ledger.finish(name, stamp)
    with closing(again(ledger, tmp_path)) as second:
        assert second.identity == ledger.identity
        assert second.is_done(name, stamp)
        assert not second.is_done(name, Stamp(1, 2, 3))
        assert not second.is_done("other.png", stamp)
    (tmp_path / "other").mkdir()
    with closing(Ledger(tmp_path / "other")) as other:
        assert other.identity != ledger.identity


def test_taken_image_has_its_own_folder_until_released(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "day").mkdir()
    taken = []
    for content in (b"first", b"second"):
        (tmp_path / "day" / "a.png").write_bytes(content)
        taken.append(ledger.take("day/a.png", tmp_path / "day" / "a.png"))
    assert [path.read_bytes() for path in taken] == [b"first", b"second"]
    assert [path.relative_to(ledger.taken).parts[1:] for path in taken] == [("day", "a.png")] * 2
    with pytest.raises(FileNotFoundError):
        ledger.take("gone.png", tmp_path / "gone.png")
    ledger.release(taken[0])  # not moved away
    assert taken[0].exists()
    for path in taken:
        path.unlink()
        ledger.release(path)
    assert list(ledger.taken.iterdir()) == []


def test_second_watcher_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from app.client.watch.ledger import Ledger\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1])); print('open', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"open\n"
        with pytest.raises(LedgerError, match="another watcher uses this folder"):
            Ledger(tmp_path)
        first.kill()
    Ledger(tmp_path).close()


def test_damaged_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / OWN).mkdir()
    (tmp_path / OWN / "watch.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerError, match=r"watch\.sqlite cannot be used: file is not a database"):
        Ledger(tmp_path)


def test_ledger_notices_a_mounted_folder(tmp_path: Path) -> None:
    root, share = tmp_path / "root", tmp_path / "share"
    root.mkdir()
    share.mkdir()
    with closing(Ledger(root)) as ledger:
        assert ledger.is_in_place
        root.rename(tmp_path / "below")
        assert not ledger.is_in_place
        Ledger(share).close()
        share.rename(root)
        assert not ledger.is_in_place

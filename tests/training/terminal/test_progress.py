"""Progress: bars on a terminal, plain lines in a log."""

import io

from rich.console import Console

from training.terminal.progress import ConsoleProgress


def shown(*, terminal: bool) -> str:
    out = io.StringIO()
    progress = ConsoleProgress(Console(file=out, force_terminal=terminal, width=80, color_system=None))
    with progress.stage("features", 3) as advance:
        advance(1)
        advance(2)
    progress.say("done")
    return out.getvalue()


def test_log_gets_a_line_per_stage_and_no_bar() -> None:
    assert shown(terminal=False) == "features ...\ndone\n"


def test_terminal_gets_a_bar_that_counts() -> None:
    said = shown(terminal=True)
    assert "features" in said
    assert "3/3" in said
    assert "features ..." not in said


def test_bars_of_stages_at_a_time_end_apart() -> None:
    out = io.StringIO()
    progress = ConsoleProgress(Console(file=out, force_terminal=True, width=80, color_system=None))
    first, second = progress.stage("first", 3), progress.stage("second", 7)
    first.__enter__()
    advance = second.__enter__()
    first.__exit__(None, None, None)
    before = len(out.getvalue())
    advance(5)
    second.__exit__(None, None, None)
    assert "5/7" in out.getvalue()[before:]
    assert "first" not in out.getvalue()[before:]

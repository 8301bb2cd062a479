"""Progress: bars where a person watches, plain lines in a log."""

import io

from rich.console import Console

from training.progress import ConsoleProgress


def progress(*, terminal: bool, width: int = 80) -> tuple[ConsoleProgress, io.StringIO]:
    out = io.StringIO()
    return ConsoleProgress(Console(file=out, force_terminal=terminal, width=width, color_system=None)), out


def test_a_log_gets_a_line_per_stage_and_no_bar() -> None:
    shown, out = progress(terminal=False)
    with shown.stage("features", 3) as advance:
        advance(1)
        advance(2)
    shown.say("done")
    assert out.getvalue() == "features ...\ndone\n"


def test_a_terminal_gets_a_bar_that_counts() -> None:
    shown, out = progress(terminal=True)
    with shown.stage("features", 3) as advance:
        advance(1)
        advance(2)
    assert "features" in out.getvalue()
    assert "3/3" in out.getvalue()
    assert "features ..." not in out.getvalue()

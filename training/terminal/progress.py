"""Progress of a run: lines and progress bars."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from flows.fastflow.progress import JsonProgress


class Progress(Protocol):
    """A receiver of lines and progress bars."""

    def say(self, line: str) -> None:
        """Print a line."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Callable[[float], None]]:
        """Show a bar of `total` steps; yield a function that takes the number of steps done since."""


class ConsoleProgress:
    """Lines and bars on a console; only lines if it is no terminal. Stages may overlap."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Bars(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def say(self, line: str) -> None:
        """Print a line, above the bars that are shown."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[float], None]]:
        """Show a bar of `total` steps; yield a function that takes the number of steps done since."""
        if self._bars.disable:
            self.say(f"{title} ...")
        bar = self._bars.add_task(title, total=total)
        self._bars.start()
        try:
            yield partial(self._bars.advance, bar)
        finally:
            self._bars.refresh()
            self._bars.remove_task(bar)
            if not self._bars.tasks:
                self._bars.stop()


def open_progress(form: Literal["text", "json"], stages: Mapping[str, float]) -> Progress:
    """Open the progress of a command: on the console, or as events, see `JsonProgress`."""
    return JsonProgress(stages) if form == "json" else ConsoleProgress(Console())


class Silent:
    """Progress without output."""

    def say(self, line: str) -> None:
        """Print nothing."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Callable[[float], None]]:
        """Show nothing."""
        del title, total
        return nullcontext(lambda _: None)

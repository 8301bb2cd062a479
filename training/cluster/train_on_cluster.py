"""Training of several categories at a time on a Ray cluster."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from flows.fastflow.ray_connection import ClusterError, connected
from training.cluster.nodes import check_nodes
from training.cluster.worker import Mailbox, train_in_task
from training.config.run_config import RunConfig
from training.run_all import CategoryResult, describe_failure, write_summary
from training.terminal.progress import Progress
from training.versions import library_versions

_ATTEMPTS: Final = 4
_POLL_SECONDS: Final = 0.2


def train_on_cluster(
    address: str,
    configs: Mapping[str, RunConfig],
    data: Path,
    *,
    models: Path,
    runs: Path,
    resume: bool,
    progress: Progress,
    displace: bool = False,
    make_active: bool = True,
) -> list[CategoryResult]:
    """Train the categories as tasks of a cluster; the results are those of `train_each`.

    A category whose worker is lost starts again on another one and continues from its checkpoint.

    Args:
        address: see `connected`.
        configs: settings by category.
        displace, make_active: see `training.run.train`.

    Raises:
        ClusterError: the cluster cannot be used; nothing was begun.
    """
    folders = data.absolute(), models.absolute(), runs.absolute()
    with connected(address) as ray:
        check_nodes(ray, folders[0], folders[1:])
        place = {"folders": folders, "versions": library_versions(), "cwd": Path.cwd()}
        options = {"resume": resume, "displace": displace, "make_active": make_active}
        return _Trainings(ray, configs, place, options, runs, progress).run()


class _Trainings:
    """The tasks of a command.

    Args:
        place: arguments of all tasks, see `train_in_task`.
        options: see `training.run.train`.
    """

    def __init__(
        self,
        ray: Any,
        configs: Mapping[str, RunConfig],
        place: Mapping[str, Any],
        options: Mapping[str, Any],
        runs: Path,
        progress: Progress,
    ) -> None:
        self._ray, self._configs, self._place, self._options = ray, configs, place, options
        self._runs, self._progress = runs, progress
        self._results = {name: CategoryResult(name, "not begun") for name in configs}
        self._shown = {name: _Shown(progress, f"{name}: " if len(configs) > 1 else "") for name in configs}
        self._attempts = dict.fromkeys(configs, 0)
        self._begun: list[str] = []
        # On this node: without it there is no one to show progress to.
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        actor = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Mailbox)
        self._mailbox = actor.remote()

    def run(self) -> list[CategoryResult]:
        """Run all tasks to their ends."""
        write_summary(self._runs, list(self._results.values()))
        pending = {self._submit(category): category for category in self._configs}
        try:
            while pending:
                done, _ = self._ray.wait(list(pending), timeout=_POLL_SECONDS)
                self._show_events()
                for reference in done:
                    category = pending.pop(reference)
                    if (result := self._result(category, reference)) is None:
                        pending[self._submit(category)] = category
                    else:
                        self._record(result)
        finally:
            for reference in pending:
                self._ray.cancel(reference, force=True)
            for shown in self._shown.values():
                shown.end_stage()
        return list(self._results.values())

    def _submit(self, category: str) -> Any:
        """Submit the next attempt at a category."""
        self._attempts[category] += 1
        attempt, config, options = self._attempts[category], self._configs[category], self._options
        if attempt > 1:  # so it is not for Ray to repeat it
            options = {**options, "resume": True}
        task = self._ray.remote(
            name=f"train {category}", max_retries=0, scheduling_strategy="SPREAD", **self._resources(config)
        )(train_in_task)
        settings = config.model_dump(mode="json")
        return task.remote(category, attempt, settings, **self._place, options=options, mailbox=self._mailbox)

    def _resources(self, config: RunConfig) -> dict[str, int]:
        """Return what a task reserves: its threads, and a GPU if it uses one."""
        has_gpu = bool(self._ray.cluster_resources().get("GPU"))
        on_gpu = config.device.startswith("cuda") or (config.device == "auto" and has_gpu)
        return {"num_cpus": config.fit.threads, "num_gpus": int(on_gpu)}

    def _show_events(self) -> None:
        try:
            events = self._ray.get(self._mailbox.take.remote())
        except self._ray.exceptions.RayActorError:
            return  # it restarts
        for category, attempt, method, arguments in events:
            if attempt != self._attempts[category]:
                continue  # of a worker that was given up
            if method == "begin":
                self._begin(category, *arguments)
            else:
                getattr(self._shown[category], method)(*arguments)

    def _begin(self, category: str, host: str) -> None:
        if category not in self._begun:
            self._begun.append(category)
            if len(self._configs) > 1:
                self._progress.say(f"[{len(self._begun)}/{len(self._configs)}] {category} on {host}")
        self._record(CategoryResult(category, "begun"))

    def _result(self, category: str, reference: Any) -> CategoryResult | None:
        """Return the result of a task; None if its worker was lost and another may try."""
        self._shown[category].end_stage()
        try:
            result: CategoryResult = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            reason, attempt = (str(error).splitlines() or [type(error).__name__])[0], self._attempts[category]
            is_lost = not isinstance(error, self._ray.exceptions.RayTaskError)
            if is_lost and attempt < _ATTEMPTS:
                note = f"its worker was lost, attempt {attempt + 1} of {_ATTEMPTS} follows: {reason}"
                self._progress.say(f"{category}: {note}")
                return None
            result = describe_failure(category, ClusterError(f"in attempt {attempt}: {error}"), 0)
        if result.status == "failed":
            self._progress.say(f"{category} failed: {result.reason}")
        return result

    def _record(self, result: CategoryResult) -> None:
        self._results[result.category] = result
        write_summary(self._runs, list(self._results.values()))


class _Shown:
    """Progress of one category, shown as if it ran here.

    Args:
        progress: of the command.
        prefix: put before lines and stages.
    """

    def __init__(self, progress: Progress, prefix: str) -> None:
        self._progress, self._prefix = progress, prefix
        self._stage = ExitStack()
        self._advance: Callable[[float], None] | None = None

    def say(self, line: str) -> None:
        """Print a line."""
        self._progress.say(f"{self._prefix}{line}")

    def begin_stage(self, title: str, total: int) -> None:
        """Show the bar of a stage."""
        self._advance = self._stage.enter_context(self._progress.stage(f"{self._prefix}{title}", total))

    def advance(self, steps: float) -> None:
        """Advance the bar."""
        if self._advance is not None:
            self._advance(steps)

    def end_stage(self) -> None:
        """Remove the bar, if there is one."""
        self._stage.close()
        self._advance = None

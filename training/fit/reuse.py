"""Reuse of the version that an earlier run published."""

from pathlib import Path

from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import activate, active_version, describe_lost_calibrations, versions
from training.fit.preparation import Run


def reuse_version(run: Run, bundle: Path, *, displace: bool, make_active: bool) -> None:
    """Make the version of a finished run the active one again, if told to.

    Args:
        bundle: the version that it published.
        displace: activate it even if another version was activated since.
    """
    models, category, say = run.models, run.category, run.progress.say
    say(f"{category} was trained before with these settings and images: {bundle.name}")
    then, now = read_manifest(bundle).data.licence, run.images.licence
    if then != now:
        say(
            f"the licence of its images was {then or 'not told'} then, and is {now or 'not told'} now: "
            "train without --resume to record it"
        )
    active = active_version(models, category)
    if active == bundle.name or not make_active:
        return
    if active is not None and active in versions(models, category):  # it may have been deleted
        if not displace:
            say(
                f"{active} stays the active version; to activate {bundle.name} instead: flowgauge models "
                f"activate {category} {bundle.name}"
            )
            return
        say(f"{bundle.name} is active again, in place of {active}")
    activate(models, category, bundle.name)
    for line in describe_lost_calibrations(models, category, active, bundle.name):
        say(line)

"""The outcomes that a log already has, for a sweep that resumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..runs.log import RunLog
from ..runs.process import is_replaying
from ..runs.run import Difference, Run, changed_since
from ..runs.values import decode
from ..support.remarks import warn
from .job import Job, check_number
from .result import Outcome


def to_outcome(record: Mapping[str, Any]) -> Outcome:
    """Return the outcome in a record of the run log or of a `Job`."""
    error = record["error"]
    value = None if error else decode(record["notes"]["value"])
    return Outcome(record["seed"], value, error, record["duration"], record["reseeded"])


def outcomes_in_log(log: RunLog, job: Job, seeds: Iterable[int]) -> dict[int, Outcome]:
    """Return the logged outcomes that have the job's function, code, versions and options."""
    if is_replaying():  # a replay must compute each value again
        return {}
    wanted, options = set(seeds), job.options.as_dict()
    code = {name: job.facts[name] for name in ("script_sha256", "git")}
    usable: dict[int, Run] = {}
    outdated: dict[int, Run] = {}
    for run in log:
        is_of_this = run.sweep == job.facts["sweep"] and run.options == options
        if is_of_this and run.seed in wanted and run.replays is None and _has_outcome(run):
            kept = outdated if _is_outdated(run, job, code) else usable
            kept.setdefault(run.seed, run)
    again = [run for seed, run in outdated.items() if seed not in usable]
    if again:
        first = again[0]
        found = [
            *changed_since(first, code),
            Difference("threads", first.threads, job.threads),
            Difference("the function's code", first.function, job.facts["function"]),
        ]
        _warn_of_conditions(f"{len(again)} outcomes in {log.path}", found, "these seeds run again")
    elif changed := [found for run in usable.values() if (found := changed_since(run, code))]:
        _warn_of_conditions(
            f"{len(changed)} outcomes in {log.path}", changed[0], "the sweep uses them"
        )
    return {
        seed: Outcome(
            seed,
            None if run.error is not None else run.notes["value"],
            run.error,
            run.duration or 0.0,
            dict(run.reseeded),
        )
        for seed, run in usable.items()
    }


def _has_outcome(run: Run) -> bool:
    """Return whether a run has a traceback or a number, also in a log of someone else."""
    if run.error is not None:
        return True
    try:
        check_number(run.notes.get("value"))
    except (TypeError, OverflowError):
        return False
    return True


def _is_outdated(run: Run, job: Job, code: Mapping[str, Any]) -> bool:
    """Return whether a condition that can affect the value changed; a commit alone need not."""
    if run.threads != job.threads or run.function != job.facts["function"]:
        return True
    changed = {difference.name for difference in changed_since(run, code)}
    return bool(changed - {"commit", "uncommitted changes"})


def _warn_of_conditions(what: str, found: Iterable[Difference], then: str) -> None:
    texts = [str(difference) for difference in found if difference.then != difference.now]
    warn(f"{what} were made under other conditions ({'; '.join(texts)}): {then}", stacklevel=4)

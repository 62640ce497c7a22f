"""`seedscope replay`: run a logged run again, and compare the noted values."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from .runs.log import RunLog
from .runs.process import replay_request
from .runs.run import Run, changed_since
from .runs.values import encode
from .scope.options import Options
from .support import conditions
from .support.remarks import remark
from .support.user_function import load_function, seed_parameter
from .support.visible import shell
from .sweeps.job import Job


class ReplayError(Exception):
    """The run cannot be replayed. The message is one line, and gives the reason."""


def replay(log: RunLog, run: Run) -> bool:
    """Run `run` again, and return whether its outcome and notes are equal, bit for bit.

    This runs what the log says, without a question: see `what_runs`. The new run has the
    environment variables of this process. The steps and the differences go to the logger
    `seedscope`.

    Raises:
        ReplayError: the run cannot be replayed.
    """
    check(run)
    known = changed_since(run)
    for difference in known:
        remark(f"differs from then: {difference}")
    again = _replay_command(log, run) if run.sweep is None else _replay_sweep(log, run)
    for difference in run.differences(again):
        if difference.name not in {other.name for other in known}:
            remark(f"differed in the run: {difference}")
    return _compare(run, again)


def what_runs(run: Run) -> list[str]:
    """Return lines that name all that a replay of `run` takes from the log and runs."""
    lines = [f"replaying {run.id}, seed {run.seed}, in {shell([run.folder])}"]
    if run.sweep is None:
        return [*lines, f"the command is {shell(_command(run))}"]
    module, _, function = run.sweep.partition(":")
    folders = {os.path.dirname(run.script or ""): None, run.folder: None}
    where = " or ".join(shell([folder]) for folder in folders if folder)
    return [
        *lines,
        f"it imports {shell([module])}, first from {where}, and calls {shell([function])} "
        f"with seed {run.seed}",
        f"the script was {shell([run.script or 'unknown'])}",
    ]


def check(run: Run) -> None:
    """Check, without running anything, that a run can be replayed.

    Raises:
        ReplayError: it cannot.
    """
    for word in (run.folder, run.process, run.script or "", run.sweep or "", *run.command):
        if "\0" in word or not _is_encodable(word):
            raise ReplayError(f"the system takes no such word: {word[:80]!r}")
    if not os.path.isdir(run.folder):
        raise ReplayError(f"its folder {run.folder} does not exist")
    if run.sweep is not None:
        # Other names would be imported from another place than `what_runs` says.
        if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", run.sweep) or ".py:" in run.sweep:
            raise ReplayError(f"its function {run.sweep!r:.80} is not MODULE:FUNCTION")
        _options(run)
        return
    if run.is_child:
        raise ReplayError("it ran in a child process of a program: replay the run of the program")
    if run.rank is not None:
        raise ReplayError(
            f"it was rank {run.rank} of several: start all ranks as before, with seedscope run "
            f"--seed {run.seed}; the command was {run.what()}"
        )
    if run.script is not None and not os.path.exists(run.script):
        raise ReplayError(f"its script {run.script} does not exist")
    is_interactive = len(run.command) < 2 or (run.script is None and "-c" not in run.command)
    if is_interactive or "ipykernel_launcher" in run.command:
        raise ReplayError(
            "it ran in an interactive session, or from standard input: run the code in "
            f"`with seeded({run.seed}):`"
        )


def _is_encodable(word: str) -> bool:
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return True


def _options(run: Run) -> Options:
    names = ("deterministic", "fill_uninitialized_memory", "sources")
    try:
        options = {name: run.options[name] for name in names}
        rare = {"independent": False, "replacements": True}
        options |= {name: run.options.get(name, default) for name, default in rare.items()}
        return Options(**options, threads="wait")
    except (KeyError, TypeError, ValueError) as error:
        raise ReplayError(f"its options are not those of a sweep: {error}") from error


def _command(run: Run) -> list[str]:
    return [sys.executable, *run.command[1:]]


def _replay_command(log: RunLog, run: Run) -> Run:
    environment = {**os.environ, **replay_request(log, run)}
    before = {done.id for done in log}
    code = subprocess.run(_command(run), cwd=run.folder, env=environment).returncode
    new = [done for done in log if done.replays == run.id and done.id not in before]
    if not new:
        raise ReplayError(
            f"the command ended with exit code {code}, and logged no replay of it in {log.path}"
        )
    return new[-1]


def _replay_sweep(log: RunLog, run: Run) -> Run:
    os.chdir(run.folder)
    try:
        fn = load_function(run.sweep or "", run.script)
    except LookupError as error:
        raise ReplayError(f"its function {error}") from error
    facts = {"sweep": run.sweep, "script": run.script, **conditions.code_state(run.script)}
    job = Job(fn, seed_parameter(fn), _options(run), run.threads or 1, facts)
    record = job(run.seed, replays=run.id)
    log.append("end", record)
    return next(done for done in log if done.id == record["id"])


def _compare(then: Run, now: Run) -> bool:
    """Report for each noted value whether it is equal, and return whether all values are."""
    if then.outcome is None:
        remark(f"the first run had not ended: there is nothing to compare; now: {now.outcome}")
        return True
    equal = True
    for name in {**then.notes, **now.notes}:
        bits = [_bits(run, name) for run in (then, now)]
        if bits[0] == bits[1]:
            remark(f"equal: {name} is {_shown(then, name)}")
        else:
            equal = False
            shown = [_shown(run, name) for run in (then, now)]
            shown = bits if shown[0] == shown[1] else shown
            remark(f"NOT equal: {name} was {shown[0]}, is {shown[1]}")
    if then.outcome != now.outcome:
        equal = False
        remark(f"NOT equal: the run ended with {then.outcome}, and now with {now.outcome}")
    if not equal:
        if then.text_hash != now.text_hash:
            remark(
                "hashes of strings differ between the two runs: seedscope run sets PYTHONHASHSEED"
            )
        remark("the run did not repeat")
    elif then.notes:
        remark("the same again: every noted value is equal, bit for bit")
    else:
        remark(
            "the run ended in the same way; no values were noted, so nothing more can be compared"
        )
    return equal


def _bits(run: Run, name: str) -> str:
    """Return a noted value with its type and all of its bits, as text."""
    return json.dumps(encode(run.notes[name], name)) if name in run.notes else "not noted"


def _shown(run: Run, name: str) -> str:
    value = run.notes.get(name, "not noted")
    text = str(value.item() if getattr(value, "ndim", None) == 0 else value).replace("\n", " ")
    return text if len(text) <= 72 else f"{text[:71]}…"

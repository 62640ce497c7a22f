"""Measures pieces in their order, within a number of seconds, and keeps every result.

An item starts only if it is expected to end in time. The expectation is the item's seconds
times the machine's pace, which the run learns from earlier items. Items that do not fit into
the share of their piece wait until the other pieces have had their shares.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .harness import progress
from .items import Found, Item, Piece, Slot
from .process import Died, Hung, Process
from .record import Record, code_digest, locked, read

_START = "start of a process"
_START_S = 6.0  # to import torch and start CUDA, if the disk's cache holds both
_START_LIMIT_S = 150.0  # from a cold disk torch takes minutes
_LEAST_S = 30.0  # an item that exceeds its expected time by less does not count as hung


class Pace:
    """The time that items take on this machine, in multiples of the expected time."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = defaultdict(list)

    def note(self, group: str, expected_s: float, took_s: float) -> None:
        self._seen[group].append(took_s / expected_s)

    def seconds(self, group: str, expected_s: float) -> float:
        """Return how long an item will take, by its own group, or else by all groups.

        Other groups can only raise the expectation: they say nothing of it if they were fast.
        """
        if seen := self._seen.get(group):
            return expected_s * _slower(seen)
        others = [x for group, seen in self._seen.items() if group != _START for x in seen]
        return expected_s * max(1.0, _slower(others or [1.0]))


def _slower(paces: list[float]) -> float:
    """Return the upper quartile: to leave an item out costs less than to cut it off."""
    if len(paces) == 1:
        return paces[0]
    return statistics.quantiles(paces, n=4, method="inclusive")[2]


class Run:
    """One run over the pieces, which share processes, a pace and a deadline."""

    def __init__(self, name: str, record: Record, budget_s: float) -> None:
        self.name = name
        self.record = record
        self.pace = Pace()
        self.begun = time.monotonic()
        self.budget_s = budget_s
        self.until = self.begun + budget_s
        self._processes: dict[str, Process] = {}
        self._has_started = False  # whether any process has started
        self._users: Counter[str] = Counter()  # the number of items that still need each process
        self._done = self._total = 0

    def measure(self, pieces: Iterable[Piece]) -> None:
        """Measure the items that are not done yet, as far as the time suffices."""
        waiting: list[Item] = []
        pieces = [*pieces]
        self._learn(pieces)
        try:
            for piece in pieces:
                items = [item for item in piece.items if not self.record.is_done(item)]
                if piece.share_s == math.inf:  # the items that the others have left come first
                    items, waiting = [*waiting, *items], []
                waiting += self._measure_piece(replace(piece, items=items))
        finally:
            for process in self._processes.values():
                process.end()

    def _learn(self, pieces: Iterable[Piece]) -> None:
        """Learn the pace from items measured before, and count the missing items."""
        for item in (item for piece in pieces for item in piece.items):
            found = self.record.found.get(item.group, {}).get(item.name, {})
            if not self.record.is_done(item):
                self._users[item.process] += 1
            elif "failed" not in found and "took_s" in found:
                self._note(item, found)
        self._total = self._users.total()

    def _note(self, item: Item, found: Found) -> None:
        # An elastic item used the spare seconds without need.
        self.pace.note(item.group, item.seconds, found["took_s"] - found.get("spare_s", 0))

    def _measure_piece(self, piece: Piece) -> list[Item]:
        """Measure the items that the piece's share suffices for; return the others."""
        end = min(self.until, time.monotonic() + piece.share_s)
        left_out, items = [], [*piece.items]
        while items:
            left_s = end - time.monotonic()
            needs_s = self._needs_s(items)
            item = items.pop(0)
            if needs_s[0] > left_s:
                left_out.append(item)
                continue
            self._tell(piece, item, sum(needs_s))
            spare_s = self._spare_s(left_s - sum(needs_s), item, items)
            self._measure_item(item, needs_s[0], spare_s)
        return left_out

    def _spare_s(self, spare_s: float, item: Item, others: Iterable[Item]) -> float:
        """Return the part of the spare time that `item` gets; `others` come after it."""
        if not item.is_elastic or spare_s <= 0:
            return 0.0
        all_s = item.seconds + sum(other.seconds for other in others if other.is_elastic)
        return spare_s * item.seconds / all_s

    def _needs_s(self, items: Iterable[Item]) -> list[float]:
        """Return the expected time of each item, and of the start of its process if not started."""
        started, needs_s = {*self._processes}, []
        for item in items:
            start_s = 0 if item.process in started else self.pace.seconds(_START, _START_S)
            started.add(item.process)
            needs_s.append(self.pace.seconds(item.group, item.seconds) + start_s)
        return needs_s

    def _measure_item(self, item: Item, needs_s: float, spare_s: float) -> None:
        """Measure an item, and record its result as it grows."""
        begun, before = time.monotonic(), self.record.before(item)
        # An item that is cut off twice retains the result of the first time.
        is_cut_off = before.pop("cut_off", False) and before["code"] == self.record.code
        kept = before if is_cut_off else Found()
        until = begun + needs_s + spare_s if self.budget_s < math.inf else math.inf
        limit = -math.inf  # until the item's process is ready

        def keep(found: Found) -> None:
            kept.update(found)
            self.record.keep(item, kept | {"cut_off": True})

        try:
            process = self._ready_process(item.process)
            begun = time.monotonic()
            # Limits the cost of an item that hangs, and of a wrong expectation.
            more_s = max(_LEAST_S, 2 * needs_s, 2 * item.seconds)
            limit = min(self.until, max(until, begun) + more_s)
            found = process.measure(item.measure, Slot(until, keep, before), limit)
        except Died:
            found = kept | {"failed": "the process that measured it died"}
            self._end(item.process)
        except Hung:
            self._end(item.process)
            if limit in (-math.inf, self.until):  # not the item's fault
                found = kept | {"cut_off": True}
            else:
                found = kept | {"failed": f"killed after {limit - begun:.0f} s: it hung"}
        found |= {"took_s": round(time.monotonic() - begun, 3)}
        if not found.keys() & {"failed", "cut_off"}:
            self._note(item, found)
        self.record.keep(item, found)
        self._users[item.process] -= 1
        if not self._users[item.process]:
            self._end(item.process)  # the process would keep its part of the GPU's memory

    def _ready_process(self, name: str) -> Process:
        """Return the process of that name; start a new process if none answers.

        Raises:
            Hung: the process does not start in time.
            RuntimeError: three processes in turn ended while they started.
        """
        if name in self._processes:
            try:
                self._processes[name].wait(self._within(_LEAST_S))
                return self._processes[name]
            except (Died, Hung):  # because of the item before
                self._end(name)
        for _ in range(3):
            begun = time.monotonic()
            process = self._processes[name] = Process()
            try:
                process.start()
                process.wait(self._within(_START_LIMIT_S))
            except Died:
                self._end(name)
            else:
                if self._has_started:  # the first process fills the disk's cache for the others
                    self.pace.note(_START, _START_S, time.monotonic() - begun)
                self._has_started = True
                return process
        raise RuntimeError("a process that measures could not start: see above")

    def _within(self, seconds: float) -> float:
        return min(self.until, time.monotonic() + seconds)

    def _end(self, name: str) -> None:
        if process := self._processes.get(name):
            process.end()
            del self._processes[name]  # not before: an interrupted end is repeated

    def _tell(self, piece: Piece, item: Item, needs_s: float) -> None:
        self._done += 1
        if self.budget_s == math.inf:
            when = f"about {needs_s:.0f} s left"
        else:
            when = f"{time.monotonic() - self.begun:.0f} of {self.budget_s:.0f} s"
        progress(f"{self.name} {self._done}/{self._total}, {when}: {piece.name}, {item}")


def run(name: str, pieces: Iterable[Piece], record: Record, budget_s: float = math.inf) -> None:
    """Measure the pieces into `record`, which knows afterwards which items are missing.

    Raises:
        SystemExit: the run was stopped.
        RuntimeError: no process that measures can start.
    """
    try:
        Run(name, record, budget_s).measure(pieces)
    except KeyboardInterrupt:
        raise SystemExit(f"{name}: stopped; {record.file} has what was measured") from None


def run_suite(name: str, items: list[Item], facts: Found, folder: Path) -> tuple[Found, Path]:
    """Measure all items; return the report and its file, `folder`/`name`.json.

    Until all items are measured, a partial file holds the results. The same run, started
    again, continues it; a run with other items, facts or code has another partial file.
    """
    about = {key: value for key, value in facts.items() if key != "date"}
    identity = [about, code_digest(), [*map(str, items)]]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    part = folder / f"{name}.{digest}.part.json"
    with locked(part):
        record = Record(part, facts, read(part) if part.exists() else None)
        run(name, [Piece("all", math.inf, items)], record)
        record.write(indent=1)
        return record.content, part.replace(folder / f"{name}.json")

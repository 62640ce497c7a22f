"""The first difference between the traces of two runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .trace import GENERATOR, INPUT, OUTPUT, UNWRITTEN, Entry, Trace

#: What differs first: which operation is called, with which numbers, or what it gives.
PATH, CONSTANT, RESULT = "path", "constant", "result"

_WINDOW = 300  # operations in which two paths are looked at for where they meet again


@dataclass(frozen=True)
class Difference:
    """Where two traces part.

    Attributes:
        kind: PATH, CONSTANT or RESULT.
        first, second: the index of the operation in each trace; None where the trace has ended.
        last: the index of the last operation that is common to both, in the first trace.
        entries: the pairs of entries that differ.
        meets: after how many operations of each the paths are the same again, if they are.
        is_harmless: whether one run has operations that the other lacks, none of which writes to
            its arguments, and all else is equal.
        is_rewired: whether other operations have written what it reads than in the other run.
    """

    kind: str
    first: int | None
    second: int | None
    last: int | None
    entries: tuple[tuple[Entry, Entry], ...] = ()
    meets: tuple[int, int] | None = None
    is_harmless: bool = False
    is_rewired: bool = False

    def has(self, kind: int) -> bool:
        """Return whether an entry of that kind differs."""
        return any(one.kind == kind for one, _ in self.entries)

    @property
    def inputs(self) -> list[int]:
        """The places of the tensors that came from outside and differ."""
        return [one.place for one, _ in self.entries if one.kind in (INPUT, UNWRITTEN)]

    @property
    def inputs_are_equal(self) -> bool:
        return not any(one.kind != OUTPUT for one, _ in self.entries)


def first_difference(one: Trace, other: Trace) -> Difference | None:
    """Return where two traces part first; None if they are equal.

    Threads are compared one by one, since their operations have no common order. Of several
    differences the one that came first in the first trace counts.
    """
    if one.equals(other):
        return None
    found = [_in_lane(one, other, lane) for lane in sorted({*one.lanes, *other.lanes})]
    differences = [difference for difference in found if difference is not None]
    return min(differences, key=lambda d: len(one) if d.first is None else d.first, default=None)


def _in_lane(one: Trace, other: Trace, lane: int) -> Difference | None:
    first, second = one.lane(lane), other.lane(lane)
    a = b = 0
    last = None
    added: Difference | None = None  # the first operations that one run alone has
    while a < len(first) and b < len(second):
        i, j = first[a], second[b]
        found = _at(one, other, i, j, last)
        if found is None:
            last = i
            a, b = a + 1, b + 1
            continue
        if found.kind == PATH:
            meets = _meets(one, other, first[a : a + _WINDOW], second[b : b + _WINDOW])
            found = replace(found, meets=meets)
            if meets is not None and _is_added(
                one, other, first[a : a + meets[0]], second[b : b + meets[1]]
            ):
                added = added or found
                a, b = a + meets[0], b + meets[1]
                continue
        return added or found
    if a == len(first) and b == len(second):
        return added and replace(added, is_harmless=True)
    ends = next(iter(first[a:]), None), next(iter(second[b:]), None)
    meets = len(first) - a, len(second) - b
    is_harmless = _is_added(one, other, first[a:], second[b:])
    return replace(added or Difference(PATH, *ends, last, meets=meets), is_harmless=is_harmless)


def _is_added(one: Trace, other: Trace, first: list[int], second: list[int]) -> bool:
    """Return whether the operations before two paths meet belong to one alone, and add nothing.

    Those that write to their arguments may change what was there before.
    """
    added = [one.operations[i] for i in first] + [other.operations[j] for j in second]
    is_of_one = not (first and second)
    return is_of_one and one.tables.writing.isdisjoint(added)


def _at(one: Trace, other: Trace, i: int, j: int, last: int | None) -> Difference | None:
    """Return how an operation of one trace differs from one of the other."""
    if one.operations[i] != other.operations[j]:
        return Difference(PATH, i, j, last)
    differs = tuple(_unequal(one.entries(i), other.entries(j)))
    if one.constants[i] != other.constants[j]:
        return Difference(CONSTANT, i, j, last, differs)
    if any(entry.kind == OUTPUT for entry, _ in differs):
        is_rewired = one.wiring[i] != other.wiring[j]
        return Difference(RESULT, i, j, last, differs, is_rewired=is_rewired)
    return None


def _unequal(one: list[Entry], other: list[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Yield the entries that differ; memory from outside in one run may be known in another."""
    ours, theirs = (
        {
            (entry.kind == OUTPUT, entry.kind == GENERATOR, entry.place, number): entry
            for number, entry in _numbered(entries)
        }
        for entries in (one, other)
    )
    for key in {**ours, **theirs}:
        entry, match = ours.get(key), theirs.get(key)
        if entry is None or match is None:
            if key[0]:  # a result
                there = entry or match
                assert there is not None
                yield there, there._replace(digest=~there.digest)
        elif match.digest != entry.digest:
            yield entry, match


def _numbered(entries: list[Entry]) -> Iterator[tuple[int, Entry]]:
    """Number the parts of one tensor, such as of a sparse one."""
    counts: dict[Any, int] = {}
    for entry in entries:
        key = entry.kind, entry.place
        counts[key] = counts.get(key, -1) + 1
        yield counts[key], entry


def _meets(one: Trace, other: Trace, first: list[int], second: list[int]) -> tuple[int, int] | None:
    """Return after how many operations of each the two paths run along together again.

    That is where an operation is the same to the bit, or three operations follow in the same order.
    """
    for total in range(1, len(first) + len(second)):
        for a in range(max(0, total - len(second) + 1), min(total, len(first) - 1) + 1):
            if _are_together(one, other, first[a : a + 3], second[total - a : total - a + 3]):
                return a, total - a
    return None


def _are_together(one: Trace, other: Trace, first: list[int], second: list[int]) -> bool:
    names = [one.operations[i] for i in first], [other.operations[j] for j in second]
    if names[0][:1] != names[1][:1]:
        return False
    if len(first) == 3 and names[0] == names[1]:
        return True
    entries = one.entries(first[0])
    has_result = any(entry.kind == OUTPUT for entry in entries)
    return has_result and _at(one, other, first[0], second[0], None) is None

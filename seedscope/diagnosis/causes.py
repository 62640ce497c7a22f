"""Why two runs differ: the cause behind the first difference."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from types import NoneType
from typing import Any

from .compare import CONSTANT, RESULT, Difference
from .evidence import Evidence
from .places import shown
from .trace import GENERATOR, INPUT, UNWRITTEN

OPERATION = "operation"
THREADS = "number of threads"
UNSEEN = "memory changed unseen"
UNINITIALISED = "uninitialised memory"
SEEDED = "seeded inside"
GENERATOR_OUTSIDE = "generator from outside"
STATE = "state left from the run before"
OUTSIDE = "value from outside"
ORDER = "order of a set or of addresses"

_SHOWN = 3  # paths or places
_NUMBER = re.compile(r"\[\d+\]|#\d+")


@dataclass
class Cause:
    """Why runs differ.

    Attributes:
        kind: one of the names above.
        text: what is known, in one line.
        holders: what could be restored to make it go away: (path, thing).
    """

    kind: str
    text: str
    holders: list[tuple[str, Any]] = field(default_factory=list)


def find_cause(found: Evidence) -> Cause:
    """Return the cause, by what differs first."""
    difference = found.difference
    if found.is_hidden and difference is None:
        return Cause(OPERATION, "threads race, and no replay of an operation has shown for which")
    if difference is not None and difference.kind == RESULT:
        if difference.is_rewired:
            return _another_tensor(found)
        if difference.inputs_are_equal:
            return _operation(found)
        if not difference.has(INPUT) and difference.has(GENERATOR):
            return _generator(found, difference)
        if not difference.has(INPUT) and difference.has(UNWRITTEN):
            return Cause(
                UNINITIALISED,
                "it reads memory that nothing has written, such as that of torch.empty",
            )
    return _by_tensor(found) or _by_value(found)


def _operation(found: Evidence) -> Cause:
    captures = found.captures
    if not captures:
        return Cause(OPERATION, "it was not reached again, so that it could not be replayed")
    first = captures[0]
    if first.is_confirmed:
        text = f"{len(first.replays)} results in {first.count} replays on the same inputs"
        return Cause(OPERATION, f"this operation itself does not repeat: {text}")
    counts = found.thread_counts
    if len({frozenset(one) for one in first.with_threads.values()}) > 1:
        by_count = " and ".join(map(str, counts))
        text = f"torch had {by_count} threads, and the operation rounds differently with each"
        return Cause(THREADS, text)
    digests = [one.input_digests for one in captures]
    if any(one != digests[0] for one in digests):
        return Cause(
            UNSEEN,
            "an input was changed where torch does not see it: through a NumPy view, by another "
            "thread, by C or Triton code",
        )
    why = first.failure or f"{first.count} replays gave one result, so that it differs rarely"
    return Cause(OPERATION, f"nothing that torch shows has changed before it; {why}")


def _another_tensor(found: Evidence) -> Cause:
    held = "" if not found.captures else ", ".join(found.captures[0].held.values())
    which = f", such as {held} in one run" if held else ""
    text = f"another tensor was given to it{which}: the order of a set, of addresses or of threads"
    return Cause(ORDER, text)


def _generator(found: Evidence, difference: Difference) -> Cause:
    is_given = any(one.place for one, _ in difference.entries if one.kind == GENERATOR)
    if is_given:
        return _by_generator(found) or Cause(
            GENERATOR_OUTSIDE, "it draws from a generator that the scope does not govern"
        )
    if found.seeded:
        return _by_seeding(found)
    return Cause(
        OUTSIDE,
        "torch's generator was in another state, though the operations before are equal: another "
        "thread or C code draws from it",
    )


def _by_tensor(found: Evidence) -> Cause | None:
    """Return the cause by the name of an input that the function holds."""
    if found.difference is None or not found.captures:
        return None
    for number in found.difference.inputs:
        path = found.captures[0].held.get(number)
        if path is not None and path in found.changed:
            return _state(found, [path])
    return None


def _by_value(found: Evidence) -> Cause:
    """Return the cause of a value that torch has not computed, or of a branch."""
    if found.seeded:
        return _by_seeding(found)
    if (cause := _by_generator(found)) is not None:
        return cause
    asked = [f"{what}, at {shown(place)}" for place, what in found.witness.asked.items()]
    if found.changed:
        cause = _state(found, _mixed(found.changed))
        cause.text += f"; and it asked for {asked[0]}" if asked else ""
        return cause
    if asked:
        more = f"; and {len(asked) - _SHOWN} more" * (len(asked) > _SHOWN)
        return Cause(OUTSIDE, f"before it, the program asked for {'; '.join(asked[:_SHOWN])}{more}")
    return Cause(
        OUTSIDE,
        "it comes from code that torch does not see: another thread or process such as a loader's "
        "worker, a file, a library",
    )


def _by_seeding(found: Evidence) -> Cause:
    places = [
        f"{name} was seeded at {shown(place)}" if place else f"{name} was seeded"
        for name, place in found.seeded.items()
    ]
    return Cause(SEEDED, f"{'; '.join(places)}, with a seed that is not the scope's")


def _by_generator(found: Evidence) -> Cause | None:
    generators = found.other.reached.generators
    moved = [path for path in found.changed if path in generators]
    if not moved:
        return None
    texts = []
    for path in moved[:_SHOWN]:
        place = found.witness.drawn.get(path)
        texts.append(f"{path}, drawn from at {shown(place)}" if place else path)
    holders = [found.other.reached.holders[path] for path in moved]
    return Cause(
        GENERATOR_OUTSIDE, f"a generator made before the block: {'; '.join(texts)}", holders
    )


def _mixed(changed: dict[str, tuple[Any, Any]]) -> list[str]:
    """Return the paths, plain values and contents in turns: either may be the reason.

    What is deep inside, or private, comes later.
    """
    groups: tuple[list[str], list[str]] = ([], [])
    for path in sorted(changed, key=_depth):
        groups[all(isinstance(mark, (str, NoneType)) for mark in changed[path])].append(path)
    return [path for pair in zip_longest(*reversed(groups)) for path in pair if path is not None]


def _depth(path: str) -> tuple[int, int]:
    return path.count("._"), len(re.findall(r"[.\[]", path))


def holders_of(found: Evidence, paths: Iterable[str]) -> list[tuple[str, Any]]:
    """Return what could be restored to put these paths back, each once."""
    reached = {**found.one.reached.holders, **found.other.reached.holders}
    kept: dict[int, tuple[str, Any]] = {}
    for path in paths:
        if (holder := reached.get(path)) is not None:
            kept.setdefault(id(holder[1]), holder)
    return [*kept.values()]


def _state(found: Evidence, paths: list[str]) -> Cause:
    names = marks_shown({path: found.changed[path] for path in paths})
    more = f"; and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)
    text = f"{'; '.join(names[:_SHOWN])}{more}"
    if lazy := found.one.reached.lazy:
        text = f"{', '.join(lazy[:_SHOWN])} is lazy, and was initialised in run 1: {text}"
    return Cause(STATE, text, holders_of(found, paths))


def marks_shown(changed: dict[str, tuple[Any, Any]]) -> list[str]:
    """Return what has changed as text: the path, and the values if they are short.

    Items of one list are one text.
    """
    alike: dict[str, list[str]] = {}
    for path, (before, after) in changed.items():
        is_short = isinstance(before, (str, NoneType)) and isinstance(after, (str, NoneType))
        values = f" ({_shown_mark(before)}, then {_shown_mark(after)})" if is_short else ""
        alike.setdefault(_NUMBER.sub("", path), []).append(path + values)
    return [
        first if not more else f"{first} and {len(more)} more like it"
        for first, *more in alike.values()
    ]


def _shown_mark(mark: str | None) -> str:
    return "absent" if mark is None else mark[:40]


_ADVICE = {
    OPERATION: "nothing that was tried makes it repeat: use another operation",
    THREADS: "call torch.set_num_threads once, before the block",
    UNSEEN: "wait for the thread, or copy the memory that others write",
    UNINITIALISED: "write the memory before it is read: torch.zeros in place of torch.empty",
    SEEDED: "remove the call, or give it scope.derive(...)",
    GENERATOR_OUTSIDE: "make the generator inside the block, so that it has the scope's entropy",
    STATE: "make it inside the function, or name what holds it in restore",
    ORDER: "give the objects an order of their own: a list, or sorted by name",
}


def advice_of(cause: Cause, found: Evidence, restored: list[int]) -> str:
    """Return what to do where nothing that was tried has helped.

    `restored` are the `id`s of what is put back before each run.
    """
    if cause.kind == OUTSIDE:
        if found.witness.asked:
            return "take it before, and give it to the function as an argument"
        return (
            "look for it with less around: num_workers=0 shows the lines of a loader's data, and "
            "one thread those of others"
        )
    if cause.kind == STATE:
        if not found.still_differs:
            return "it happens in the first run alone: call the function once before, or reset it"
        if not [one for one in cause.holders if id(one[1]) not in restored]:
            return "restore holds no plain attributes and globals: set it anew inside the function"
    return _ADVICE[cause.kind]


def kind_of(difference: Difference) -> str:
    """Return which part of an operation differs first, as words."""
    if difference.kind == CONSTANT:
        return "a number among its arguments"
    return "its result" if difference.kind == RESULT else "which operation is called"

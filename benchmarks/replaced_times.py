"""An operation that torch cannot repeat, in torch's own kernel and in the replacement."""

from __future__ import annotations

from functools import partial

from .items import Found, Scale
from .repeats import Way, repeat, take_turns
from .replaced_calls import Call

NATIVE, REPLACED = "native", "replaced"
PROVED, UNPROVED, REFUSED = "proved", "unproved", "refused"
ALONE, OWN = "the formula alone", "torch's own kernel"
#: The options of `seeded` around each.
_SETTINGS: dict[str, dict[str, bool]] = {NATIVE: {"deterministic": False}, REPLACED: {}}


def measure_call(call: Call, dtype: str, scale: Scale, runs: int, rounds: int) -> Found:
    """Return distinct results, times and peaks of memory of both, and how it was replaced.

    Torch's own kernel runs under torch's defaults: under "warn" it would be the same kernel, and
    the time of the warnings. On a device that the replacement is not for, its formula is called
    alone.
    """
    is_alone = scale.device not in call.replacement.devices
    function = call.replacement.function if is_alone else call.operation
    functions = {NATIVE: call.operation, REPLACED: function}
    arguments = call.arguments(scale.device, dtype, scale.small)
    found = {
        name: repeat(Way(call.unchanged(one, arguments), _SETTINGS[name]), runs, scale.is_cuda)
        for name, one in functions.items()
    }
    if all("error" in one for one in found.values()):
        return {"failed": found[NATIVE]["error"]}  # this device or library lacks the operation
    running = {
        name: Way(partial(one, *arguments), _SETTINGS[name])
        for name, one in functions.items()
        if "error" not in found[name]
    }
    take_turns(running, found, NATIVE, scale.is_cuda, rounds)
    state = ALONE if is_alone else _state(found[REPLACED], call)
    return {"runs": runs, "state": state, "dtype": dtype, **found}


def _state(found: Found, call: Call) -> str:
    if "error" in found:
        return REFUSED if "note" in found else found["error"]
    counts = found.get("replaced", {})
    if f"{call.replacement.operation} ({UNPROVED})" in counts:
        return UNPROVED
    return PROVED if call.replacement.operation in counts else OWN

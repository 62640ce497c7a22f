"""Snapshots of everything that a scope restores."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from .settings.registry import SETTINGS
from .sources.registry import select_sources
from .sources.watch import WATCH
from .support.compiler import opaque
from .support.pickles import reduce_publicly
from .support.remarks import level_of_the_user
from .support.showing import shown

_FORMAT = 1


class RestoreError(ExceptionGroup[Exception]):
    """Some sources or settings could not be restored; all others were.

    An `ExceptionGroup` with one exception for each failure.
    """

    def derive(self, excs: Sequence[Exception]) -> RestoreError:  # type: ignore[override]
        # ExceptionGroup requires this method of its subclasses.
        return RestoreError(self.message, excs)


class Snapshot:
    """The states of all sources and the values of all settings at one moment.

    `snapshot()` returns one. Two snapshots are equal if every source and setting is equal.
    """

    def __init__(self, states: dict[Any, Any]) -> None:
        self._states = states

    @opaque
    def restore(self) -> None:
        """Restore every captured source and setting.

        Raises:
            RestoreError: some could not be restored. All others were.
        """
        states = {**self._states}
        try:
            WATCH.restoring(restore_all)(states)
        except BaseException:
            restore_all(states)  # what an interrupt has left undone
            raise

    @opaque
    def changed(self, other: Snapshot) -> tuple[str, ...]:
        """Return the names of the sources and settings that differ from `other`'s."""
        if not isinstance(other, Snapshot):
            raise TypeError(f"expected a Snapshot, got {shown(other)}")
        a, b = self._states, other._states
        names: list[str] = []
        for thing in {**a, **b}:
            if thing in a and thing in b:
                names += thing.changed(a[thing], b[thing])
            elif encode_states({thing: a.get(thing, b.get(thing))}):
                # A state that cannot be saved is missing after a round trip: no difference.
                names.append(thing.name)
        return tuple(names)

    def __eq__(self, other: object) -> bool:
        return not self.changed(other) if isinstance(other, Snapshot) else NotImplemented

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Snapshot of {', '.join(thing.name for thing in self._states)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_publicly(self, Snapshot, self.state_dict(), {"_states"})

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Return every captured state, ready for `torch.save`.

        The dict contains only numbers, strings, None, lists, dicts and tensors, so that
        `torch.load(weights_only=True)` accepts it. A source that cannot be saved (CuPy) or
        is absent (a GPU that was not initialised) has no entry.
        """
        settings = SETTINGS.encode(self._states[SETTINGS])
        sources = {thing: state for thing, state in self._states.items() if thing is not SETTINGS}
        return {"format": _FORMAT, "sources": encode_states(sources), "settings": settings}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Replace this snapshot by the one saved in `state_dict`, without restoring it.

        For checkpoint libraries that load into an object, such as
        `torch.distributed.checkpoint`.

        Raises:
            ValueError: `state_dict` is damaged, is not a snapshot's, or has a source that is
                not registered here. Nothing was changed.
        """
        self._states = Snapshot.from_state_dict(state_dict)._states

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> Snapshot:
        """Return the snapshot saved in `state_dict`.

        A setting that `state_dict` lacks, because another version of torch saved it, gets
        its present value. A setting that this version of torch lacks is left out, with a
        warning.

        Raises:
            ValueError: `state_dict` is damaged, is not a snapshot's, or has a source that is
                not registered here. Nothing was changed.
        """
        check_format(state_dict, "Snapshot", ("sources", "settings"))
        sources = decode_states(state_dict["sources"])
        return cls({SETTINGS: _decode_settings(state_dict["settings"]), **sources})


@opaque
def snapshot(sources: Iterable[str] | None = None) -> Snapshot:
    """Return the present states of all settings and sources.

    Args:
        sources: the names of the sources to capture; all by default.
    """
    return Snapshot(WATCH.saving(capture_all)((SETTINGS, *select_sources(sources))))


def capture_all(governed: Iterable[Any]) -> dict[Any, Any]:
    """Return the state of each source or setting that is present."""
    return {thing: state for thing in governed if (state := thing.capture()) is not None}


def seeded_states(sources: Iterable[Any], seed: int) -> dict[Any, Any]:
    """Return the state that `seed` gives to each source that is present."""
    now = capture_all(sources)
    try:
        for source in now:
            source.seed(seed)
        return capture_all(now)
    finally:
        restore_all(now)


def restore_all(states: dict[Any, Any], settings: list[Any] | None = None) -> None:
    """Restore each state, in reverse order of capture, and take it out of `states`.

    A failure does not stop the others. A restore that raises runs again, up to three times in all:
    Ctrl-C may have interrupted it, or another error of a signal handler. Such an error is raised
    at the end. What is still in `states` after an error is not restored: call again.

    Args:
        states: the states by source or settings.
        settings: the present values of the settings, if they were just captured.

    Raises:
        RestoreError: some could not be restored; it has one exception for each.
    """
    failures: dict[str, Exception] = {}
    interrupt: BaseException | None = None
    tries = 0
    while states:
        thing = next(reversed(states))
        try:
            if settings is not None and thing is SETTINGS and not tries:
                thing.restore(states[thing], settings)
            else:
                thing.restore(states[thing])
        except BaseException as error:
            tries += 1
            if tries < 3:
                interrupt = interrupt or error
                continue
            if isinstance(error, Exception):
                failures[thing.name] = error
        del states[thing]
        tries = 0
    try:
        if failures:
            raise RestoreError(
                f"could not restore {', '.join(failures)}; everything else was restored",
                [*failures.values()],
            ) from (None if isinstance(interrupt, Exception) else interrupt)
        if interrupt is not None:
            raise interrupt
    finally:
        failures, interrupt = {}, None  # they have this frame in their tracebacks


def encode_states(states: Mapping[Any, Any]) -> dict[str, Any]:
    payloads = {}
    for source, state in states.items():
        payload = source.encode(state)
        if payload is not None:
            _check_savable(source.name, payload)
            payloads[source.name] = payload
    return payloads


def _decode_settings(saved: Mapping[str, Any]) -> list[Any]:
    unknown = [name for name in saved if name not in SETTINGS.names]
    if wrong := [name for name in unknown if not isinstance(name, str)]:
        raise ValueError(f"the saved state has {shown(wrong[0])} as the name of a setting")
    state = SETTINGS.decode(saved)
    if unknown:
        warnings.warn(
            f"this torch {torch.__version__} has no setting {', '.join(unknown):.500}: the saved "
            "values are left out",
            stacklevel=3,
        )
    return state


def _check_savable(name: str, payload: Any) -> None:
    """Refuse at saving what `torch.load(weights_only=True)` would refuse at loading."""
    # Exact types: torch.load refuses subclasses, such as a NamedTuple and np.float64.
    if type(payload) in (dict, OrderedDict):
        payload = [*payload.keys(), *payload.values()]
    if type(payload) in (list, tuple):
        for item in payload:
            _check_savable(name, item)
    elif type(payload) not in (bool, int, float, str, torch.Tensor, type(None)):
        raise TypeError(
            f"the source {name!r} has a {type(payload).__name__} in its state, which "
            "torch.load(weights_only=True) would refuse: give the source encode() and decode()"
        )


def decode_states(payloads: Mapping[str, Any]) -> dict[Any, Any]:
    """Return the checked state of each source named in `payloads`.

    Raises:
        ValueError: a payload is damaged, or its source is not registered here.
    """
    sources = {source.name: source for source in select_sources()}
    states = {}
    for name, payload in payloads.items():
        if name not in sources:
            raise ValueError(
                f"the saved state has a source {shown(name)}, which is not registered here: call "
                f"register_source() first; registered sources: {list(sources)}"
            )
        try:
            states[sources[name]] = sources[name].decode(payload)
        except TimeoutError:
            raise  # of an alarm's handler: no state causes one
        except Exception as error:
            why = f"{error}" if isinstance(error, ValueError) else f"{error!r} in {shown(payload)}"
            raise ValueError(f"the saved state of {name!r} is damaged: {why:.500}") from error
    return states


def warn_of_missing(sources: Iterable[Any], states: Mapping[Any, Any], outcome: str) -> None:
    """Warn of the sources that are present here and could be saved, but are not in `states`.

    Args:
        sources: those that the object governs which loads the state.
        states: the states that were loaded.
        outcome: what becomes of a missing source.
    """
    if missing := [s.name for s in sources if s not in states and _can_be_saved(s)]:
        warnings.warn(
            f"the saved state has no {', '.join(missing)}: {outcome}",
            RuntimeWarning,
            stacklevel=level_of_the_user(),
        )


def _can_be_saved(source: Any) -> bool:
    try:
        state = source.capture()
        return state is not None and source.encode(state) is not None
    except TimeoutError:
        raise  # of an alarm's handler
    except Exception:  # a load does not fail for it: a block or a save will tell
        return False


def check_format(state_dict: Any, kind: str, keys: tuple[str, ...]) -> None:
    """Check the form of a state_dict before anything is changed.

    Raises:
        ValueError: `state_dict` is not of this kind, or has another format.
    """
    if not isinstance(state_dict, Mapping) or not all(
        isinstance(state_dict.get(key), Mapping) for key in keys
    ):
        raise ValueError(f"not a {kind}.state_dict(), which has dicts {keys}: {shown(state_dict)}")
    found = state_dict.get("format")
    if type(found) is not int or found != _FORMAT:
        raise ValueError(
            f"the {kind} state has format {shown(found)}; this version reads {_FORMAT}"
        )

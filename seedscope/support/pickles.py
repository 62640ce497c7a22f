"""Pickles that refer to public classes by public name, so that modules can move."""

from __future__ import annotations

from typing import Any


def reduce_publicly(thing: Any, public: type, state: Any, own: set[str]) -> tuple[Any, ...]:
    """Return the value for `thing.__reduce__`; unpickling calls `__setstate__(state)`.

    A subclass of the `public` class belongs to the user, and is pickled by its own module.
    Attributes besides those in `own` belong to the user too, and are pickled as they are.
    """
    import seedscope

    kind = public.__name__ if type(thing) is public else type(thing)
    more = {name: value for name, value in vars(thing).items() if name not in own}
    return seedscope._rebuild, (kind, state, more)

"""What the package does when the process forks."""

from __future__ import annotations

import os
from collections.abc import Callable


def at_fork(in_child: Callable[[], object], before: Callable[[], object] | None = None) -> None:
    """Have `in_child` called in each forked child, and `before` in the parent before each fork.

    Python prints what a call raises, and goes on. So `in_child` is called twice: the second call
    does what Ctrl-C has left undone of the first.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_child)
        os.register_at_fork(after_in_child=in_child)
        if before is not None:
            os.register_at_fork(before=before)

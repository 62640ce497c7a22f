"""What the package does when the process forks."""

from __future__ import annotations

import os
from collections.abc import Callable


def at_fork(
    in_child: Callable[[], object],
    before: Callable[[], object] | None = None,
    in_parent: Callable[[], object] | None = None,
) -> None:
    """Have `in_child` called in each forked child, and the others in the parent around each fork.

    Python prints what a call raises, and goes on. So `in_child` and `in_parent` are called twice:
    the second call does what Ctrl-C has left undone of the first.
    """
    if hasattr(os, "register_at_fork"):
        if before is not None:
            os.register_at_fork(before=before)
        for _ in range(2):
            os.register_at_fork(after_in_child=in_child)
            if in_parent is not None:
                os.register_at_fork(after_in_parent=in_parent)

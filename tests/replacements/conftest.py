from __future__ import annotations

from collections.abc import Iterator

import pytest

from stand_ins import cpu_that_raises


@pytest.fixture(scope="module")
def raising_cpu() -> Iterator[list[str]]:
    """Have each listed operation raise on the CPU under strict settings, and be replaced there."""
    with cpu_that_raises() as calls:
        yield calls


@pytest.fixture
def native_calls(raising_cpu: list[str]) -> list[str]:
    """Return the names of the native kernels that the test calls."""
    raising_cpu.clear()
    return raising_cpu

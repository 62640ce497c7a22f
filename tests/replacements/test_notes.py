"""What torch's error says besides, where an operation is not replaced."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from seedscope import isolated, seeded
from seedscope.scope import advice

ALERT = "{} does not have a deterministic implementation, but you set ..."


def note(alert: str, **options: object) -> str:
    with pytest.raises(RuntimeError) as raised, seeded(1029, **options):
        raise RuntimeError(ALERT.format(alert))
    [text] = raised.value.__notes__
    assert 'deterministic="warn"' in text
    assert "register_replacement" in text
    return text


def test_the_note_says_that_there_is_no_replacement():
    assert "no replacement of its own for this operation" in note("kthvalue CUDA")


def test_the_note_names_the_devices_of_a_replacement():
    text = note("adaptive_avg_pool2d_backward_xpu")
    assert "replaces aten::_adaptive_avg_pool2d_backward where it runs on cuda. On another" in text


def test_the_note_says_that_replacements_are_switched_off():
    assert "put_ is off here" in note("put_", replacements=False)
    with pytest.raises(RuntimeError) as raised, isolated():
        raise RuntimeError(ALERT.format("put_"))
    assert "put_ is off here" in raised.value.__notes__[0]


def test_the_innermost_block_alone_adds_a_note():
    with pytest.raises(RuntimeError) as raised, seeded(1), seeded(2, replacements=False):
        raise RuntimeError(ALERT.format("put_"))
    [text] = raised.value.__notes__
    assert "put_ is off here" in text


def test_the_note_of_another_operation_is_not_that_of_one_whose_name_ends_the_same():
    assert "no replacement of its own" in note("index_put_ with accumulate=False")


# torch remembers what it has traced: each backend needs a size of its own.
@pytest.mark.parametrize(("backend", "size"), [("eager", 14), ("aot_eager", 18)])
def test_the_note_says_what_to_do_while_a_compiler_traces(backend, size):
    """torch's own decomposition of max_unpool2d raises when it is traced."""
    images = torch.arange(float(size**2)).view(1, 1, size, size)
    values, places = F.max_pool2d(images, 2, return_indices=True)

    def unpooled(values):
        return F.max_unpool2d(values, places, 2)

    torch._dynamo.reset()
    with pytest.raises(RuntimeError) as raised, seeded(1029):
        torch.compile(unpooled, backend=backend)(values)
    [text] = raised.value.__notes__
    assert "replaces aten::max_unpool2d where it runs on cuda and cpu" in text
    assert "torch.compiler.disable" in text
    torch._dynamo.reset()
    with seeded(1029) as scope:
        apart = torch.compiler.disable(unpooled)
        torch.compile(lambda x: apart(x * 2) + 1, backend=backend)(values)
        assert scope.replaced == {"aten::max_unpool2d": 1}
    traced = torch.compile(unpooled, backend=backend)
    traced(values)
    with seeded(1029) as scope:
        traced(values)
        assert scope.replaced == {"aten::max_unpool2d": 1}
    torch._dynamo.reset()


def test_the_note_names_the_version_of_torch_that_replaces(monkeypatch):
    monkeypatch.setattr(advice, "IS_SUPPORTED", False)
    assert "With torch 2.9 or newer seedscope would run aten::put_" in note("put_")

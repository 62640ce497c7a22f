"""Which operations can have a replacement of a user's, and what its function may get and return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_wrong_formulas import PLACES, UNPOOL, VALUES, registered_for_a_test, right, unpool

from seedscope import register_replacement, seeded
from seedscope.replacements import registry
from seedscope.replacements.gate import GATE

__all__ = ["registered_for_a_test"]  # a fixture of each test

SPACE = "test_registered_operations"


@pytest.fixture
def library() -> Iterator[torch.library.Library]:
    with torch.library._scoped_library(SPACE, "DEF") as library:
        yield library


def define(library: torch.library.Library, schema: str, native: Callable[..., Any]) -> Any:
    """Define an operation that raises under strict settings, and return it."""
    name = schema.partition("(")[0]

    def kernel(*args: Any) -> Any:
        if torch.get_deterministic_debug_mode() == 2:
            raise RuntimeError(f"{name} does not have a deterministic implementation")
        return native(*args)

    library.define(schema)
    library.impl(name, kernel, "CPU")
    return getattr(getattr(torch.ops, SPACE), name)


def register(name: str, function: Callable[..., Any]) -> str:
    register_replacement(f"{SPACE}::{name}", device="cpu")(function)
    return f"{SPACE}::{name}"


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ({"operation": torch.histc}, TypeError, 'a name such as "aten::bincount"'),
        ({"version": "1"}, TypeError, "version must be an integer"),
        ({"agrees": 1}, TypeError, "agrees must be a function"),
        ({"function": 5}, TypeError, "must be a function, got 5"),
        (
            {"operation": "aten::_cudnn_rnn"},
            ValueError,
            "calls no kernel of aten::_cudnn_rnn on cpu",
        ),
        # torch takes these apart, so that the function would never run.
        ({"operation": "aten::matmul"}, ValueError, "calls no kernel of aten::matmul on cpu"),
        ({"operation": "aten::nll_loss2d"}, ValueError, "calls no kernel of aten::nll_loss2d"),
        ({"operation": "aten::cross_entropy_loss"}, ValueError, "calls no kernel of aten::cross_"),
        ({"operation": "aten::no_such"}, ValueError, "torch has no operation 'aten::no_such'"),
        ({"operation": f"{UNPOOL}.out"}, ValueError, "writes to `out=`: name the operation that"),
        ({"operation": "aten::tril_indices"}, ValueError, "a kernel of its own for the device"),
        ({"operation": "aten::view"}, ValueError, "it returns a view"),
        ({"operation": "aten::split"}, ValueError, "calls no kernel of aten::split on cpu|view"),
        ({"operation": "aten::rrelu_with_noise"}, ValueError, "writes to something else than"),
        ({"operation": "aten::is_set_to"}, ValueError, r"returns \(bool\)"),
        ({"operation": "aten::_foreach_add_.Scalar"}, ValueError, r"returns \(\)"),
    ],
)
def test_what_cannot_be_registered_is_refused(wrong, error, told):
    before = dict(registry._added)
    options = {"operation": UNPOOL, "device": "cpu", "function": right, **wrong}
    operation, function = options.pop("operation"), options.pop("function")
    with pytest.raises(error, match=told):
        register_replacement(operation, **options)(function)
    assert registry._added == before


def test_the_name_may_be_that_which_torch_prints():
    name = f"aten::{str(torch.ops.aten.max_unpool2d.default).removeprefix('aten.')}"
    register_replacement(name, device="cpu", version=7)(right)
    with seeded(1029):
        unpool()
    assert registry._added[UNPOOL, "cpu"].version == 7


def test_a_function_for_a_listed_operation_serves_its_out_form_too():
    calls: list[int] = []

    def counted(*args: Any) -> torch.Tensor:
        calls.append(0)
        return right(*args)

    register_replacement(UNPOOL, device="cpu")(counted)
    with seeded(1029) as scope:
        out = torch.empty(0)
        torch.ops.aten.max_unpool2d.out(VALUES, PLACES, [8, 8], out=out)
        assert scope.replaced == {UNPOOL: 1}
    assert calls
    assert torch.equal(out, unpool())


def test_a_function_that_returns_its_argument_gives_a_result_of_its_own(library):
    same = define(library, "same(Tensor x) -> Tensor", torch.clone)
    name = register("same", lambda x: x)
    given = torch.ones(2)
    with seeded(1029) as scope:
        for _ in range(2):
            same(given).add_(1)
        assert given.tolist() == [1, 1]
        assert scope.replaced == {name: 2}


def test_a_list_of_tensors_is_given_and_proved(library):
    total = define(library, "total(Tensor[] xs) -> Tensor", lambda xs: sum(xs))
    name = register("total", lambda xs: sum(xs))
    with seeded(1029) as scope:
        assert total([torch.ones(2), torch.ones(2)]).tolist() == [2, 2]
        assert scope.replaced == {name: 1}


def test_a_list_of_tensors_is_returned_and_proved(library):
    both = define(library, "both(Tensor x) -> Tensor[]", lambda x: [x + 1, x + 2])
    name = register("both", lambda x: [x + 1, x + 2])
    with seeded(1029) as scope:
        assert [one.item() for one in both(torch.ones(1))] == [2, 3]
        assert scope.replaced == {name: 1}
    register("both", lambda x: [x + 1, x + 3])
    with pytest.raises(RuntimeError, match="both does not have"), seeded(1029):
        both(torch.ones(1))


def test_two_tensors_are_written_in_place(library):
    def native(x: torch.Tensor, y: torch.Tensor) -> Any:
        return x.add_(1), y.add_(2)

    schema = "two_(Tensor(a!) x, Tensor(b!) y) -> (Tensor(a!), Tensor(b!))"
    two, name = define(library, schema, native), register("two_", lambda x, y: (x + 1, y + 2))
    x, y = torch.ones(1), torch.ones(1)
    with seeded(1029) as scope:
        found = two(x, y)
        assert scope.replaced == {name: 1}
    assert (x.item(), y.item()) == (2, 3)
    assert found[0] is x
    assert found[1] is y


def test_a_list_that_is_written_cannot_be_replaced(library):
    library.define("all_(Tensor(a!)[] xs) -> Tensor(a!)[]")
    library.impl("all_", lambda xs: [x.add_(1) for x in xs], "CPU")
    with pytest.raises(ValueError, match="all_ cannot have a replacement: it returns a view, or"):
        register("all_", lambda xs: xs)


def test_a_keyword_tensor_alone_is_enough_for_a_proof(library):
    library.define("alone(*, Tensor x) -> Tensor")

    def kernel(*, x: torch.Tensor) -> torch.Tensor:
        if torch.get_deterministic_debug_mode() == 2:
            raise RuntimeError("alone does not have a deterministic implementation")
        return x * 2

    library.impl("alone", kernel, "CPU")
    name = register("alone", lambda *, x: x * 2)
    with seeded(1029) as scope:
        assert torch.ops.test_registered_operations.alone(x=torch.ones(2)).tolist() == [2, 2]
        assert scope.replaced == {name: 1}


def test_a_number_that_is_none_is_proved_once(library):
    calls: list[int] = []
    scaled = define(library, "scaled(Tensor x, float by) -> Tensor", lambda x, by: x.clone())
    register("scaled", lambda x, by: (calls.append(0), x.clone())[1])
    with seeded(1029):
        for _ in range(4):
            scaled(torch.ones(1), float("nan"))
    assert len(calls) == 3 + 3  # three in the proof, and one in each later call


def test_an_operation_is_replaced_under_torchs_python_dispatcher():
    from torch._dispatch.python import enable_python_dispatcher

    with seeded(1029) as scope:
        with enable_python_dispatcher():
            result = torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([2.0, 3.0]))
        assert scope.replaced == {"aten::put_": 1}
    assert result.tolist() == [0, 3, 0, 0]


@pytest.mark.parametrize("dims", [2, 3])
def test_an_unpooled_image_has_the_memory_format_of_torchs_result(dims):
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    pool, unpooled = (F.max_pool2d, F.max_unpool2d) if dims == 2 else (F.max_pool3d, F.max_unpool3d)
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(2, 3, *(8,) * dims, generator=generator).to(memory_format=layout)
    values, places = pool(images, 2, return_indices=True)
    native = unpooled(values, places, 2)
    with seeded(1029) as scope:
        ours = unpooled(values, places, 2)
        assert sum(scope.replaced.values()) == 1
    assert ours.stride() == native.stride()
    assert torch.equal(ours, native)


def test_a_kernel_that_calls_a_replaced_operation_runs_once(library):
    """Its proof is in the same thread, and is no other thread's."""
    runs: list[int] = []

    def native(x: torch.Tensor) -> torch.Tensor:
        runs.append(0)
        empty = torch.zeros(0)
        empty.put_(torch.zeros(0, dtype=torch.long), torch.zeros(0))
        return torch.zeros_like(x).put_(torch.tensor([0]), torch.ones(1)) + torch.rand(())

    def kernel(x: torch.Tensor) -> torch.Tensor:  # it never raises the alert
        return native(x)

    library.define("outer(Tensor x) -> Tensor")
    library.impl("outer", kernel, "CPU")
    register("outer", lambda x: x)
    results = []
    for _ in range(2):
        with seeded(1):
            results.append(torch.ops.test_registered_operations.outer(torch.ones(2)))
    assert torch.equal(*results)
    assert len(runs) == 2


def test_an_operation_that_raises_under_warnings_too_runs_once(library):
    runs: list[int] = []

    def kernel(x: torch.Tensor) -> torch.Tensor:
        runs.append(0)
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("strict does not have a deterministic implementation")
        return x.clone()

    library.define("strict(Tensor x) -> Tensor")
    library.impl("strict", kernel, "CPU")
    register("strict", torch.clone)
    with seeded(1):
        pass  # the kernels are registered
    with pytest.raises(RuntimeError, match="strict does not"), seeded(1, deterministic="warn"):
        torch.ops.test_registered_operations.strict(torch.ones(2))
    assert len(runs) == 1


@pytest.mark.parametrize("schema", ["mix(Tensor x, Tensor[] ws)", "mix(Tensor x, *, Tensor ws)"])
def test_each_tensor_in_16_bits_is_widened_for_torchs_kernel(library, schema):
    def product(x: torch.Tensor, ws: Any) -> torch.Tensor:
        return x @ (ws if isinstance(ws, torch.Tensor) else ws[0])

    def kernel(x: torch.Tensor, ws: Any) -> torch.Tensor:
        if torch.get_deterministic_debug_mode() == 2:
            raise RuntimeError("mix does not have a deterministic implementation")
        return product(x, ws)

    library.define(f"{schema} -> Tensor")
    library.impl("mix", kernel, "CPU")
    name, mix = register("mix", product), torch.ops.test_registered_operations.mix
    x = torch.eye(2, dtype=torch.bfloat16)
    with seeded(1029) as scope:
        assert torch.equal(mix(x, [x]) if "[]" in schema else mix(x, ws=x), x)
        assert scope.replaced == {name: 1}


@pytest.mark.filterwarnings("ignore:index_reduce")
def test_a_result_of_another_shape_is_not_written_though_it_is_unproved():
    register_replacement("aten::index_reduce_", device="cpu")(
        lambda x, *args, **kwargs: torch.cat([x, x])
    )
    values, index = torch.zeros(3), torch.tensor([1, 1])
    with pytest.raises(RuntimeError, match="is refused") as raised, seeded(1029):
        values.index_reduce_(0, index, torch.zeros(2), "prod")
    assert "it returned (float32[6]) for (float32[3])" in raised.value.__notes__[0]
    assert values.tolist() == [0, 0, 0]


def test_a_lazy_conjugate_is_compared(library):
    turned = define(library, "turned(Tensor x) -> Tensor", lambda x: x.conj().resolve_conj())
    name = register("turned", lambda x: (x * 1).conj())
    with seeded(1029) as scope:
        assert turned(torch.tensor([1 + 2j])).tolist() == [1 - 2j]
        assert scope.replaced == {name: 1}


def test_replacements_are_off_where_a_block_says_so_in_each_mode():
    for mode in ("cudnn", False):
        with seeded(1), seeded(2, deterministic=mode):
            assert GATE.is_open
        with seeded(1), seeded(2, deterministic=mode, replacements=False):
            assert not GATE.is_open

"""Which row a slot belongs to, on synthetic cotangents: single rows are found, sums never are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pinn_ntk.graph.jacobian import decode as decode_module
from pinn_ntk.graph.jacobian.decode import PRECISION, RowCode
from pinn_ntk.graph.jacobian.thinned import Thinned, full, thinned

CPU = torch.device("cpu")
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
EPS = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}


def decode(code: RowCode, mixing: Tensor, noise: float = 0.0) -> Tensor | None:
    """Owners of slots whose cotangent is sum_i mixing[slot, i] c_i g_slot, each of a direction g.

    ``mixing`` (M, R) is the share of each row in each slot; ``noise`` is in units of eps.
    """
    dtype = code.base.dtype
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(len(mixing), 3, generator=generator, dtype=torch.float64)
    arrived = []
    for cotangent in code.passes():
        slots = (mixing @ cotangent.double())[:, None] * direction
        rounding = torch.randn(slots.shape, generator=generator, dtype=torch.float64)
        arrived.append((slots * (1 + noise * EPS[dtype] * rounding)).to(dtype))
    return code.owners(arrived, torch.clone)


def owned(owners: list[int], rows: int, scale: Tensor | float = 1.0) -> Tensor:
    """One row a slot; -1 for slots of none."""
    return (torch.tensor(owners)[:, None] == torch.arange(rows)).double() * scale


def assert_owned(owners: Tensor | None, expected: Tensor | list[int]) -> None:
    assert owners is not None
    assert owners.tolist() == torch.as_tensor(expected).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 255, 256, 257])
def test_every_row_is_found(rows: int, dtype: torch.dtype):
    code = RowCode(rows, dtype, CPU)
    order = torch.randperm(rows)
    noise = 0.5 if EPS[dtype] > 1e-4 else 4.0
    assert_owned(decode(code, owned(order.tolist(), rows), noise=noise), order)


MANY = [(dtype, 5000, passes) for dtype, passes in zip(DTYPES, [2, 4, 6, 6], strict=True)]


@pytest.mark.parametrize(
    ("dtype", "rows", "passes"), [*MANY, (torch.float64, PRECISION[torch.float64].base + 5, 3)]
)
def test_many_rows_take_several_digits(dtype: torch.dtype, rows: int, passes: int):
    code = RowCode(rows, dtype, CPU)
    assert len(code.passes()) == len(code.digits) + 1 == passes
    arrived = [c[:, None] * torch.tensor([1.0, -2.0], dtype=dtype) for c in code.passes()]
    assert_owned(code.owners(arrived, torch.clone), torch.arange(rows))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_may_own_several_slots_and_a_slot_no_row(dtype: torch.dtype):
    wanted = [3, -1, 0, 3, 3, -1, 2]
    assert_owned(decode(RowCode(4, dtype, CPU), owned(wanted, 4)), wanted)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_scale_does_not_matter(scale: float, dtype: torch.dtype):
    if not torch.finfo(dtype).tiny < scale < torch.finfo(dtype).max:
        return
    assert_owned(decode(RowCode(5, dtype, CPU), owned([4, 1, 0], 5, scale)), [4, 1, 0])


@pytest.mark.parametrize(
    ("dtype", "span"), [(torch.float64, 1e-100), (torch.float32, 1e-15), (torch.bfloat16, 1e-15)]
)
def test_rows_of_very_different_size(dtype: torch.dtype, span: float):
    scale = torch.tensor([1.0, span, span**0.5], dtype=torch.float64)[:, None]
    assert_owned(decode(RowCode(3, dtype, CPU), owned([2, 1, 0], 3, scale)), [2, 1, 0])


def test_rounding_noise_in_place_of_a_zero_is_dropped(dtype: torch.dtype):
    code = RowCode(6, dtype, CPU)
    generator = torch.Generator().manual_seed(2)
    arrived = [cotangent[:, None].clone() for cotangent in code.passes()]
    for tensor in arrived:
        tensor[2] = float(torch.randn((), generator=generator)) * EPS[dtype] * 0.1
    assert_owned(code.owners(arrived, torch.clone), [0, 1, -1, 3, 4, 5])


def test_precision_is_that_of_the_coarsest_dtype_on_the_way():
    """A float64 residual of a float32 network decodes with float32 digits and tolerance."""
    mixing = owned(list(range(50)), 50)
    strict = RowCode(50, torch.float64, CPU)
    lenient = RowCode(50, torch.float64, CPU, torch.float32)
    noise = EPS[torch.float32] / EPS[torch.float64]
    assert decode(strict, mixing, noise=noise) is None
    assert_owned(decode(lenient, mixing, noise=noise), torch.arange(50))


def neighbours(rows: int, share: float) -> Tensor:
    eye = torch.eye(rows, dtype=torch.float64)
    return eye + share * eye.roll(1, 0)


MIXED: dict[str, Tensor] = {
    "sum_of_all": torch.ones(1, 40, dtype=torch.float64),
    "sum_of_two": owned([3], 40) + owned([17], 40),
    "difference_of_two": owned([3], 40) - owned([17], 40),
    "symmetric_neighbours": owned([9], 40) + owned([11], 40),
    "second_difference": owned([9], 40) - 2 * owned([10], 40) + owned([11], 40),
    "mean_removed": torch.eye(40, dtype=torch.float64) - 1 / 40,
    "all_equal": torch.ones(40, 40, dtype=torch.float64),
    "smoothed": neighbours(40, 1.0) + neighbours(40, 1.0).T,
    "some_of_a_neighbour": neighbours(40, 0.2),
    "difference_of_neighbours": owned([9], 40) - owned([10], 40),
    "one_of_many": torch.cat([torch.eye(39, 40, dtype=torch.float64), torch.ones(1, 40)]).double(),
    "even_and_odd": torch.arange(40).remainder(2).double()[None],
    "growing": torch.arange(1, 41).double()[None],
}


EVERY_SLOT = ("mean_removed", "all_equal", "smoothed", "some_of_a_neighbour")
SUMS = [(name, dtype) for name in MIXED for dtype in DTYPES[:2]]
SUMS += [(name, dtype) for name in EVERY_SLOT for dtype in DTYPES[2:]]


@pytest.mark.parametrize(("name", "dtype"), SUMS)
def test_sums_of_rows_do_not_pass_for_a_row(name: str, dtype: torch.dtype):
    """In half precision a single slot may pass by chance, and is left to the certificate."""
    assert decode(RowCode(40, dtype, CPU), MIXED[name]) is None


def test_no_pair_of_neighbours_passes_for_a_row(dtype: torch.dtype):
    """Of 600 rows each alone with a tenth of the next: labels that differ by one would pass."""
    rows = 600
    code = RowCode(rows, dtype, CPU)
    arrived = [(c + 0.1 * c.roll(-1))[:, None] for c in code.passes()]
    slots = zip(*(a.split(1) for a in arrived), strict=True)
    owners = [code.owners(list(slot), torch.clone) for slot in slots]
    assert len(owners) == rows
    assert sum(owner is not None for owner in owners) <= rows // 100


def test_a_slot_of_two_rows_in_different_entries_is_shared():
    code = RowCode(4, torch.float64, CPU)
    arrived = [c.view(2, 2) for c in code.passes()]
    assert code.owners(arrived, torch.clone) is None
    assert code.apart(arrived)
    assert not code.apart([a + a.flip(1) for a in arrived])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("number", [0, 1])
def test_what_is_not_finite_or_complex_does_not_decode(bad: float, number: int):
    code = RowCode(4, torch.float64, CPU)
    arrived = [c[:, None].clone() for c in code.passes()]
    arrived[number][2] = bad
    assert code.owners(arrived, torch.clone) is None
    assert code.owners([c[:, None] * 1j for c in code.passes()], torch.clone) is None


def test_a_number_beyond_the_rows_belongs_to_none():
    """40 rows have the numbers 0 to 39 in two digits below 7; 3 + 6 * 7 = 45 is none of them."""
    code = RowCode(40, torch.float32, CPU)
    assert (len(code.digits), code.radix) == (2, 7)
    slot = torch.ones(1, 1)
    assert code.owners([slot, 4 * slot, 7 * slot], torch.clone) is None


def test_the_code_is_the_same_each_time_and_touches_no_global_state():
    state = torch.get_rng_state()
    first, second = RowCode(9, torch.float32, CPU), RowCode(9, torch.float32, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.passes(), second.passes(), strict=True))
    assert first.base.dtype == torch.float32
    assert 0.5 <= float(first.base.abs().min()) <= float(first.base.abs().max()) <= 1.5
    assert set(first.base.sign().tolist()) == {-1.0, 1.0}


def test_labels_of_rows_are_all_different_and_those_of_neighbours_far_apart():
    """Rows that interact are often neighbours, and the labels 24 and 25 are hard to tell apart."""
    code = RowCode(5000, torch.float32, CPU)
    labels = torch.stack(code.digits)
    assert int(labels.max()) < code.radix == 18  # 18^3 >= 5000 > 32^2
    assert len(torch.unique(labels, dim=1).T) == 5000
    (lowest, _) = RowCode(600, torch.float32, CPU).digits
    assert float((lowest.diff().abs() == 1).double().mean()) < 0.15


@pytest.mark.parametrize("at_once", [1, 5, 2**14])
def test_slots_read_in_parts_and_without_zeros_have_the_same_owners(
    at_once: int, monkeypatch: pytest.MonkeyPatch
):
    """Noise is judged by the largest of all slots; 30 of 90 slots belong to rows."""
    monkeypatch.setattr(decode_module, "AT_ONCE", at_once)
    wanted = torch.full((90,), -1)
    wanted[torch.arange(0, 90, 3)] = torch.randperm(30)
    code = RowCode(30, torch.float64, CPU)
    arrived = [torch.where(wanted < 0, 0, c[wanted])[:, None].repeat(1, 2) for c in code.passes()]
    for tensor in arrived:
        tensor[3] = torch.randn(2, dtype=torch.float64) * 1e-16
    wanted[3] = -1
    few = [thinned(tensor) for tensor in arrived]
    assert all(isinstance(tensor, Thinned) for tensor in few)
    for found in (arrived, few):
        assert code.apart(found)
        assert_owned(code.owners(found, torch.clone), wanted)
    arrived[0][6] += 1
    assert not code.apart(arrived)
    assert code.owners(arrived, torch.clone) is None


@pytest.mark.parametrize("shape", [(9,), (9, 2), (2, 9), (3, 9, 2), (1,), ()])
def test_what_is_zero_at_most_places_is_held_without(shape: tuple[int, ...]):
    tensor = torch.zeros(shape)
    assert torch.equal(full(thinned(tensor)), tensor)
    axis = max(range(tensor.ndim), key=tensor.shape.__getitem__, default=0)
    for count in (1, 4, 5, 9):
        if tensor.numel() < 9:
            continue
        places = torch.randperm(9)[:count]
        tensor = torch.zeros(shape).index_fill(axis, places, 1.5)
        held = thinned(tensor)
        assert torch.equal(full(held), tensor)
        assert isinstance(held, Thinned) == (count <= 4)

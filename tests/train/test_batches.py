import pytest
import torch
from torch import Tensor

from stages.train.batches import Batch, Batches, fitting_micro_size
from stages.train.ranks import Ranks
from tests.train.batched import batched

ALONE = Ranks()
X = torch.arange(103.0).unsqueeze(1)


def batches(size: int | None, micro_size: int = 10, ranks: Ranks = ALONE, seed: int = 0, n: int = 103) -> Batches:
    return batched(X[:n], -X[:n], size, micro_size, ranks, seed)


def points(batch: Batch) -> list[float]:
    """Return the points of a batch that count."""
    return [value for micro in batch.micro_batches if micro.fraction_of_batch for value in micro.x[:, 0].tolist()]


def mean(values: Tensor, batch: list[Batch]) -> float:
    """Return the mean of values over the points of a step, as training computes it on all ranks together."""
    return sum(
        micro.fraction_of_batch * values[micro.x[:, 0].long()].mean().item()
        for part in batch
        for micro in part.micro_batches
    )


def test_the_full_batch_is_all_points_in_order_in_views_of_the_data() -> None:
    whole = batches(None)
    (batch,) = whole.epoch(0)
    assert points(batch) == X[:, 0].tolist()
    assert batch.fraction_of_epoch == 1
    assert {micro.x.untyped_storage().data_ptr() for micro in batch.micro_batches} == {X.untyped_storage().data_ptr()}


def test_one_micro_batch_is_all_of_its_batch_and_so_has_the_bits_of_no_micro_batch() -> None:
    ((micro,),) = [batch.micro_batches for batch in batches(None, micro_size=103).epoch(0)]
    assert micro.fraction_of_batch == 1


@pytest.mark.parametrize("size", [1, 7, 25, 103, 500])
@pytest.mark.parametrize("micro_size", [1, 10, 1000])
def test_shuffled_batches_hold_each_point_once_with_its_target(size: int, micro_size: int) -> None:
    parts = list(batches(size, micro_size).epoch(3))
    assert sorted(value for batch in parts for value in points(batch)) == X[:, 0].tolist()
    assert [len(points(batch)) for batch in parts] == [size] * (103 // size) + [103 % size] * (103 % size > 0)
    assert all(torch.equal(micro.y, -micro.x) for batch in parts for micro in batch.micro_batches)
    assert all(len(micro.x) <= micro_size for batch in parts for micro in batch.micro_batches)
    assert sum(batch.fraction_of_epoch for batch in parts) == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 2, 103])
@pytest.mark.parametrize("size", [None, 2, 25])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_fractions_average_over_a_step_however_it_is_cut(n: int, size: int | None, ranks: int) -> None:
    values = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cut = [list(batches(size, 10, Ranks(rank, ranks), n=n).epoch(0)) for rank in range(ranks)]
    assert len({len(parts) for parts in cut}) == 1  # all ranks take as many steps
    for step in zip(*cut, strict=True):
        rows = [int(value) for part in step for value in points(part)]
        assert mean(values, list(step)) == pytest.approx(values[rows].mean().item(), rel=1e-5, abs=1e-6)
    assert sorted(value for parts in cut for part in parts for value in points(part)) == X[:n, 0].tolist()


def test_the_order_comes_from_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> tuple[float, ...]:
        return tuple(value for batch in batches(10, seed=seed).epoch(epoch) for value in points(batch))

    torch.manual_seed(1)
    first = order(5, 2)
    torch.manual_seed(2)
    assert order(5, 2) == first
    assert len({order(seed, epoch) for seed in range(5) for epoch in range(5)}) == 25


def test_the_micro_batch_that_fits_the_lesson_on_a_cpu() -> None:
    assert fitting_micro_size(torch.device("cpu"), width=12) == 65_536
    assert fitting_micro_size(torch.device("cuda"), width=12) == 64 * 65_536
    assert fitting_micro_size(torch.device("cpu"), width=10**9) == 1

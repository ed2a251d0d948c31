import itertools

import numpy as np
import pytest
import torch

from stages.folds import Folds, HeldBack, Kept


@pytest.mark.parametrize(("rows", "size"), [(100, 10), (100, 20), (10, 5), (7, 1), (6, 3)])
def test_as_many_networks_as_folds_hold_back_each_row_once(rows: int, size: int) -> None:
    held_back = Folds(rows, size, rows // size, seed=5).held_back()
    assert held_back.shape == (rows // size, size)
    assert sorted(held_back.flatten().tolist()) == list(range(rows))


def test_rows_that_do_not_fill_a_fold_are_held_back_by_none() -> None:
    held_back = Folds(103, 10, 10, seed=5).held_back()
    assert held_back.unique().numel() == 100


def test_further_networks_hold_back_the_folds_of_another_shuffle() -> None:
    held_back = Folds(100, 25, 10, seed=5).held_back()
    assert held_back.shape == (10, 25)
    for first in (0, 4):
        assert held_back[first : first + 4].unique().numel() == 100
    assert len({tuple(rows) for rows in held_back.tolist()}) == 10
    assert held_back[8:].unique().numel() == 50


def test_rows_are_in_ascending_order_and_those_of_a_network_do_not_depend_on_how_many_there_are() -> None:
    held_back = Folds(100, 30, 7, seed=5).held_back()
    assert (held_back.diff() > 0).all()
    for networks in range(1, 7):
        assert torch.equal(Folds(100, 30, networks, seed=5).held_back(), held_back[:networks])


def test_the_first_network_holds_back_what_the_only_one_did_before_there_could_be_several() -> None:
    # From SeedSequence((seed, 1 << 31)), as it was when a training had one network only.
    for seed in (0, 11, 2**32 - 1):
        mixed = np.random.SeedSequence((seed, 1 << 31)).generate_state(1).item()
        order = torch.randperm(100, generator=torch.Generator().manual_seed(mixed))
        assert Folds(100, 30, 1, seed).held_back()[0].tolist() == sorted(order[:30].tolist())


@pytest.mark.parametrize(("rows", "size"), [(1, 0), (5, 0), (2, 1), (10, 7), (9, 4)])
def test_the_rows_not_held_back_are_all_others_in_order(rows: int, size: int) -> None:
    held_back = Folds(rows, size, 4, seed=1).held_back()
    expected = [[row for row in range(rows) if row not in own] for own in held_back.tolist()]
    positions = torch.arange(rows - size)
    kept = Kept(held_back, rows)
    assert kept.at(positions).tolist() == expected
    assert kept.at(positions[1:3]).tolist() == [row[1:3] for row in expected]
    assert [kept.of(network).tolist() for network in range(4)] == expected
    assert [HeldBack(held_back, rows).of(network).tolist() for network in range(4)] == held_back.tolist()


def test_rows_of_a_large_table_are_not_narrowed() -> None:
    rows, held_back = (1 << 31) + 10, torch.tensor([[5, (1 << 31) + 3]])
    kept = Kept(held_back, rows)
    assert kept.at(torch.tensor([4, 5, (1 << 31) + 1, (1 << 31) + 2])).tolist() == [
        [4, 6, (1 << 31) + 2, (1 << 31) + 4]
    ]


def test_seeds_shuffle_differently() -> None:
    drawn = [tuple(Folds(100, 30, 2, seed).held_back()[0].tolist()) for seed in range(20)]
    assert all(first != second for first, second in itertools.combinations(drawn, 2))


@pytest.mark.parametrize(("counts", "size", "networks"), [((60, 30, 10), 10, 10), ((3, 50, 47), 20, 5), ((9, 1), 3, 3)])
def test_each_class_has_its_share_in_every_fold_and_each_row_is_held_back_once(
    counts: tuple[int, ...], size: int, networks: int
) -> None:
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    classes = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))]
    held_back = Folds(len(classes), size, networks, seed=5).held_back(classes)
    assert held_back.shape == (networks, size)
    assert (held_back.diff() > 0).all()
    assert held_back.unique().numel() == networks * size
    shares = torch.stack([classes[rows].bincount(minlength=len(counts)) for rows in held_back])
    assert (shares.amax(dim=0) - shares.amin(dim=0) <= 1).all()


def test_folds_of_classes_differ_from_shuffle_to_shuffle_and_do_not_depend_on_how_many_networks_there_are() -> None:
    classes = torch.arange(100) % 3
    held_back = Folds(100, 25, 8, seed=5).held_back(classes)
    assert len({tuple(rows) for rows in held_back.tolist()}) == 8
    for networks in range(1, 8):
        assert torch.equal(Folds(100, 25, networks, seed=5).held_back(classes), held_back[:networks])

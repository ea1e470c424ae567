import pytest

from normkit.study.spread import Quantiles, Spread, differ, overlap


def test_spread_is_mean_and_sample_standard_deviation():
    spread = Spread.of([1.0, 2.0, 3.0])
    assert (spread.mean, spread.std, spread.lowest, spread.highest) == (2.0, 1.0, 1.0, 3.0)


def test_one_value_has_no_standard_deviation_and_none_no_spread():
    assert Spread.of([0.5]).std is None
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])


@pytest.mark.parametrize(("shift", "verdict"), [(2.1, 1), (-2.1, -1), (1.9, 0), (-1.9, 0), (0.0, 0)])
def test_differ_asks_for_twice_the_pooled_deviation(shift, verdict):
    still = Spread.of([-1.0, 0.0, 1.0])
    moved = Spread.of([-1.0 + shift, shift, 1.0 + shift])
    assert differ(moved, still) == verdict


def test_differ_counts_the_resolution_where_seeds_agree_by_chance():
    a, b = Spread.of([0.950, 0.950]), Spread.of([0.953, 0.953])
    assert differ(b, a) == 1
    assert differ(b, a, resolution=0.002) == 0


def test_differ_says_nothing_from_one_seed():
    assert differ(Spread.of([0.1]), Spread.of([0.9, 0.8])) is None


def test_quantiles_and_their_overlap():
    low, high = Quantiles.of([float(i) for i in range(11)]), Quantiles.of([float(i) for i in range(20, 31)])
    assert (low.p10, low.median, low.p90) == (1.0, 5.0, 9.0)
    assert not overlap(low, high)
    assert not overlap(high, low)
    assert overlap(low, Quantiles(9.0, 12.0, 15.0))
    assert Quantiles.of([3.0]) == Quantiles(3.0, 3.0, 3.0)

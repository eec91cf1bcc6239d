"""Each measure a second time, slow and close to its definition; numbers by hand; scikit-learn's opinion."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.stats import binom, rankdata, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from nadkit.measures import (
    NO_VALUE,
    Estimate,
    auroc,
    auroc_estimate,
    calibrate,
    correlation,
    effective,
    mover,
    percentiles,
    platt,
    proportion,
    rates,
    recomposed,
    resample_seeds,
    stratified_weights,
    wilson,
)
from nadkit.measures.agreement import (
    binary_divergence,
    r_squared,
    rank_correlation,
    ranks,
    weighted_correlation,
)
from nadkit.measures.curves import area_weights, smallest_share
from nadkit.measures.resampling import student, two_level_variance

Z = 1.959963984540054


def close(first: object, second: object, tolerance: float = 1e-9) -> bool:
    return np.allclose(np.asarray(first), np.asarray(second), rtol=0, atol=tolerance, equal_nan=True)


# Wilson: all shares whose distance from the one seen is at most z standard errors at that share.


def slow_wilson(successes: float, n: int) -> tuple[float, float]:
    seen = successes / n

    def beyond(share: float) -> float:
        return abs(seen - share) - Z * math.sqrt(share * (1 - share) / n)

    tiny = 1e-13
    low = 0.0 if seen == 0 else brentq(beyond, tiny, seen - tiny, xtol=1e-14)
    high = 1.0 if seen == 1 else brentq(beyond, seen + tiny, 1 - tiny, xtol=1e-14)
    return low, high


@pytest.mark.parametrize("n", [1, 2, 20, 1000])
def test_wilson_is_the_set_of_shares_that_are_not_far(n: int) -> None:
    for successes in {0, 1, n // 3, n / 2, n - 1, n}:
        assert close(wilson(successes, n), slow_wilson(successes, n), 1e-8)


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + 0.19207) / 1.38415 = 0.71674, half 1.96 / 1.38415 · √(0.016 + 0.0096) = 0.22657.
    assert close(wilson(8, 10), (0.49016, 0.94331), 1e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes of"):
        wilson(successes, n)


@pytest.mark.parametrize("n", [10, 20, 200])
def test_wilson_covers_near_one(n: int) -> None:
    covered = []
    for share in np.linspace(0.9, 0.995, 40):
        ends = [wilson(k, n) for k in range(n + 1)]
        inside = [low <= share <= high for low, high in ends]
        covered.append(binom.pmf(np.arange(n + 1), n, share)[inside].sum())
    assert 0.93 <= np.mean(covered) <= 0.98


def test_a_proportion_of_nothing_has_no_value() -> None:
    assert all(math.isnan(number) for number in proportion(0, 0))
    assert proportion(3, 4) == (0.75, *wilson(3, 4))


# MOVER


def test_mover_by_hand() -> None:
    one, two = Estimate(0.6, 0.3, 0.7), Estimate(0.2, 0.1, 0.6)
    # The sum: √(0.3² + 0.1²) below, √(0.1² + 0.4²) above. The difference turns the second around.
    assert close(mover([one, two], [1, 1]), (0.8, 0.8 - math.sqrt(0.10), 0.8 + math.sqrt(0.17)))
    assert close(
        mover([one, two], [1, -1]), (0.4, 0.4 - math.sqrt(0.09 + 0.16), 0.4 + math.sqrt(0.01 + 0.01))
    )
    assert close(mover([one, two], [0.5, -0.5], 0.5).value, 0.7)


def test_mover_with_correlation_is_newcombes_paired_interval() -> None:
    one, two, rho = Estimate(0.6, 0.3, 0.7), Estimate(0.2, 0.1, 0.6), 0.5
    low = 0.4 - math.sqrt(0.3**2 - 2 * rho * 0.3 * 0.4 + 0.4**2)
    high = 0.4 + math.sqrt(0.1**2 - 2 * rho * 0.1 * 0.1 + 0.1**2)
    assert close(mover([one, two], [1, -1], 0.0, rho), (0.4, low, high))
    wider = mover([one, two], [1, 1], 0.0, rho)
    assert wider.high - wider.low > mover([one, two], [1, 1]).high - mover([one, two], [1, 1]).low
    even = Estimate(0.6, 0.5, 0.7)
    assert close(mover([even, even], [1, -1], 0.0, 1.0), (0.0, 0.0, 0.0), 1e-7)


def test_mover_without_a_part_has_no_value() -> None:
    assert all(math.isnan(number) for number in mover([NO_VALUE, Estimate(0.5, 0.4, 0.6)], [0.5, -0.5], 0.5))


# Effective trials


@given(st.floats(0.01, 0.99), st.integers(1, 3000))
@settings(max_examples=50, deadline=None)
def test_effective_is_wilson_for_a_proportion(share: float, n: int) -> None:
    assert close(effective(share, share * (1 - share) / n, 7), (share, *wilson(share * n, n)), 1e-7)


def test_effective_falls_back_on_the_pictures() -> None:
    assert effective(1.0, 0.0, 20) == (1.0, *wilson(20, 20))
    assert effective(0.0, 0.0, 20) == (0.0, *wilson(0, 20))
    assert effective(0.5, 0.0, 20) == (0.5, *wilson(10, 20))
    assert effective(0.5, 0.01, 1000).low < effective(0.5, 0.001, 1000).low


# AUROC


def slow_auroc(scores: Tensor, positive: Tensor) -> float:
    ours, theirs = scores[positive].tolist(), scores[~positive].tolist()
    if not ours or not theirs:
        return math.nan
    won = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(ours, theirs)]
    return sum(won) / len(won)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=25))
@settings(max_examples=80, deadline=None)
def test_auroc_counts_pairs(pairs: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(score) for score, _ in pairs])
    positive = torch.tensor([yes for _, yes in pairs])
    assert close(auroc(scores, positive), slow_auroc(scores, positive))


def test_auroc_by_hand_and_by_scikit_learn() -> None:
    scores = torch.tensor([0.9, 0.4, 0.4, 0.1, 0.8])
    positive = torch.tensor([True, True, False, False, False])
    # 0.9 beats three; 0.4 ties one, beats one, loses to one: 4.5 of 6.
    assert float(auroc(scores, positive)) == 4.5 / 6
    many = torch.randn(3, 2, 400).round(decimals=1)
    labels = torch.rand(2, 400) < 0.1
    for i, j in itertools.product(range(3), range(2)):
        assert close(auroc(many, labels)[i, j], roc_auc_score(labels[j], many[i, j]))


def test_auroc_knows_ranks_only_and_turns_around() -> None:
    scores, positive = torch.randn(50).double(), torch.rand(50) < 0.3
    assert float(auroc(scores.exp(), positive)) == float(auroc(scores, positive))
    assert close(auroc(scores, ~positive), 1 - auroc(scores, positive))
    assert float(auroc(torch.zeros(50), positive)) == 0.5


def test_auroc_of_weights_is_that_of_copies() -> None:
    scores, positive = torch.randint(0, 4, (12,)).float(), torch.arange(12) < 5
    weights = torch.randint(0, 4, (30, 12)).double()
    found = auroc(scores, positive, weights)
    for draw, weight in enumerate(weights.long()):
        copies = torch.arange(12).repeat_interleave(weight)
        assert close(found[draw], slow_auroc(scores[copies], positive[copies]))


def test_auroc_without_both_kinds_is_no_value() -> None:
    assert auroc(torch.randn(4), torch.ones(4).bool()).isnan()
    assert auroc(torch.randn(2, 4), torch.zeros(2, 4).bool()).isnan().all()


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 0.95, 1.0])
def test_the_interval_of_auroc_is_all_values_that_are_not_far(value: float) -> None:
    m, n = 7, 30

    def deviation(theta: float) -> float:
        q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
        half = (m + n) / 2  # Newcombe puts the same number for both
        inner = theta * (1 - theta) + (half - 1) * (q1 - theta**2) + (half - 1) * (q2 - theta**2)
        return math.sqrt(max(inner, 0.0) / (m * n))

    grid = np.linspace(0, 1, 20001)
    inside = [theta for theta in grid if abs(theta - value) <= Z * deviation(theta) + 1e-12]
    estimate = auroc_estimate(value, m, n)
    assert close((estimate.low, estimate.high), (min(inside), max(inside)), 2e-4)


def test_the_interval_of_a_perfect_auroc_has_a_width_that_more_pictures_shrink() -> None:
    few, many = auroc_estimate(1.0, 20, 180), auroc_estimate(1.0, 200, 1800)
    assert few.low < many.low < 1.0 == few.high
    assert auroc_estimate(math.nan, 0, 5) is NO_VALUE
    assert auroc_estimate(0.5, 5, 0) is NO_VALUE


# Platt


def slow_platt(scores: Tensor, positive: Tensor) -> tuple[float, float]:
    x, yes = scores.double().numpy(), positive.numpy()
    ours, theirs = yes.sum(), (~yes).sum()
    epsilon = 1 / (min(ours, theirs) + 2)

    def loss(parameters: np.ndarray) -> float:
        total = 0.0
        for value, own in zip(x, yes, strict=True):
            odds = parameters[0] * value + parameters[1]
            target = 1 - epsilon if own else epsilon
            weight = 0.5 / ours if own else 0.5 / theirs
            total += weight * (np.logaddexp(0, odds) - target * odds)
        return total

    slope, intercept = minimize(loss, [0.0, 0.0], bounds=[(0, None), (None, None)], tol=1e-15).x
    return float(slope), float(intercept)


def test_platt_is_the_minimum_of_its_loss() -> None:
    for seed, (ours, theirs) in enumerate([(5, 5), (4, 30), (30, 4)]):
        generator = torch.Generator().manual_seed(seed)
        positive = torch.arange(ours + theirs) < ours
        scores = torch.randn(ours + theirs, generator=generator) * 3 + 2 * positive - 1
        assert close([float(part) for part in platt(scores, positive)], slow_platt(scores, positive), 1e-3)


def test_platt_by_hand() -> None:
    # Scores ±1, three of each: the fit hits both targets, σ(slope) = 1 − 1/5, so slope = log 4, intercept 0.
    scores, positive = torch.tensor([1.0, 1, 1, -1, -1, -1]), torch.tensor([1, 1, 1, 0, 0, 0]).bool()
    assert close([float(part) for part in platt(scores, positive)], (math.log(4), 0.0), 1e-8)
    # Balanced: nine negatives for three weigh the same in all, and the smaller class sets the targets.
    more = torch.cat([scores, -torch.ones(6)]), torch.cat([positive, torch.zeros(6).bool()])
    assert close([float(part) for part in platt(*more)], (math.log(4), 0.0), 1e-8)


def test_platt_by_scikit_learn() -> None:
    positive = torch.arange(120) < 20
    scores = torch.randn(120).double() * 2 + 1.5 * positive
    epsilon = 1 / 22
    # Soft targets as pairs of weighted hard ones.
    weight = torch.where(positive, 0.5 / 20, 0.5 / 100).double()
    target = torch.where(positive, 1 - epsilon, epsilon).double()
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        torch.cat([scores, scores])[:, None].numpy(),
        [1] * 120 + [0] * 120,
        sample_weight=torch.cat([weight * target, weight * (1 - target)]).numpy() * 1000,
    )
    slope, intercept = platt(scores, positive)
    assert close(slope, fit.coef_[0, 0], 1e-5)
    assert close(intercept, fit.intercept_[0], 1e-5)


def test_platt_fits_every_row_as_it_would_alone() -> None:
    positive = torch.rand(3, 60) < torch.tensor([[0.1], [0.5], [0.8]])
    scores = torch.randn(4, 3, 60) * torch.tensor([0.01, 1.0, 50.0, 1000.0])[:, None, None] + positive
    slope, intercept = platt(scores, positive)
    assert slope.shape == intercept.shape == (4, 3)
    for i, j in itertools.product(range(4), range(3)):
        alone = platt(scores[i, j], positive[j])
        assert torch.allclose(torch.stack(alone), torch.stack([slope[i, j], intercept[i, j]]), rtol=1e-6)


def test_platt_moves_with_its_scores() -> None:
    positive = torch.arange(40) < 10
    scores = torch.randn(40).double() + positive
    slope, intercept = platt(scores, positive)
    moved, there = platt(7 * scores - 300, positive)
    assert close(moved, slope / 7, 1e-8)
    assert close(there, intercept + 300 * slope / 7, 1e-6)


def test_separable_scores_have_a_finite_slope() -> None:
    scores, positive = torch.tensor([-1e4, -9e3, 9e3, 1e4]), torch.tensor([False, False, True, True])
    slope, intercept = platt(scores, positive)
    assert 0 < float(slope) < math.inf
    assert close(calibrate(scores, slope, intercept) > 0, positive)


@pytest.mark.parametrize("scores", [[5.0] * 6, [0.0] * 6, [1e30] * 6, [3.0, 2, 1, -1, -2, -3]])
def test_constant_and_reversed_scores_answer_nothing(scores: list[float]) -> None:
    positive = torch.tensor([False, False, False, True, True, True])
    assert [float(part) for part in platt(torch.tensor(scores), positive)] == [0.0, 0.0]


def test_without_both_kinds_there_is_no_fit() -> None:
    slope, intercept = platt(torch.randn(2, 5), torch.tensor([[True] * 5, [False] * 5]))
    assert slope.isnan().all()
    assert intercept.isnan().all()


# Rates and recomposition


def slow_rates(log_odds: list[float], positive: list[bool]) -> tuple[float, float, float]:
    hits = [odds > 0 for odds, own in zip(log_odds, positive, strict=True) if own]
    false = [odds > 0 for odds, own in zip(log_odds, positive, strict=True) if not own]
    recall = sum(hits) / len(hits) if hits else math.nan
    alarm = sum(false) / len(false) if false else math.nan
    return recall, alarm, (recall + 1 - alarm) / 2


def test_rates_count() -> None:
    positive = torch.rand(3, 40) < torch.tensor([[0.2], [0.6], [0.0]])
    log_odds = torch.randn(2, 3, 40)
    log_odds[0, 0, :5] = 0.0  # 0 itself is a no
    found = rates(log_odds, positive)
    for i, j in itertools.product(range(2), range(3)):
        slow = slow_rates(log_odds[i, j].tolist(), positive[j].tolist())
        assert close([float(each[i, j]) for each in found], slow)


def test_rates_of_weights_are_those_of_copies() -> None:
    positive, log_odds = torch.arange(10)[None] < 4, torch.randn(1, 10)
    weights = torch.cat([torch.randint(1, 4, (20, 4)), torch.randint(1, 4, (20, 6))], 1).double()
    found = rates(log_odds, positive, weights)
    for draw, weight in enumerate(weights.long()):
        copies = torch.arange(10).repeat_interleave(weight)
        slow = slow_rates(log_odds[0, copies].tolist(), positive[0, copies].tolist())
        assert close([float(each[0, draw]) for each in found], slow)


def test_recomposed_takes_the_largest_and_shares_ties() -> None:
    log_odds = torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 4.0, 2.0, 0.0], [0.0, 0.0, 2.0, 5.0]])
    targets, labels = torch.tensor([4, 2, 0]), torch.tensor([4, 0, 2, 9])
    # Right; wrong (2 answered, 0 true); a tie of three, the right one among them; no task accepts class 9.
    assert close(recomposed(log_odds, targets, labels), [1.0, 0.0, 1 / 3, 0.0])


# The bootstrap


def test_weights_keep_every_class_whole() -> None:
    labels = torch.tensor([3, 1, 3, 0, 3, 1])
    weights = stratified_weights(labels, 200, seed=4)
    for label in (0, 1, 3):
        assert close(weights[:, labels == label].sum(1), float((labels == label).sum()))
    assert (weights[:, 3] == 1).all()
    assert torch.equal(weights, stratified_weights(labels, 200, seed=4))
    assert not torch.equal(weights, stratified_weights(labels, 200, seed=5))


def test_the_variance_over_draws_is_unbiased() -> None:
    values = torch.tensor([0.0, 1.0, 5.0])
    means = stratified_weights(torch.zeros(3).long(), 40000, seed=0) @ values.double() / 3
    assert close(means.mean(), 2.0, 0.03)
    assert close(means.var() / (values.double().var() / 3), 1.0, 0.03)
    seeds = resample_seeds(3, 40000) @ values.double()
    assert close(seeds.var() / (values.double().var() / 3), 1.0, 0.03)
    assert (resample_seeds(1, 5) == 1).all()


def slow_two_levels(values: list[float], draws: list[list[float]], t: float) -> float:
    """Pictures in common to all seeds, and seeds, as sums: σ²(common) + (t / 1.96)² s² / n."""
    seeds, count = len(values), len(draws[0])
    centre = [sum(one) / count for one in draws]
    mean = [sum(one[k] for one in draws) / seeds for k in range(count)]
    of_mean = sum((x - sum(centre) / seeds) ** 2 for x in mean) / (count - 1)
    alone = sum(sum((x - c) ** 2 for x in one) / (count - 1) for one, c in zip(draws, centre, strict=True))
    own = max(0.0, (alone / seeds - of_mean) * seeds / (seeds - 1))
    middle = sum(values) / seeds
    spread = sum((x - middle) ** 2 for x in values) / (seeds - 1)
    return max(0.0, of_mean - own / seeds) + (t / 1.959963984540054) ** 2 * spread / seeds


@pytest.mark.parametrize(("seeds", "t"), [(2, 12.706204736), (3, 4.302652730), (5, 2.776445105)])
def test_the_variance_of_two_levels_is_that_of_the_slow_way(seeds: int, t: float) -> None:
    generator = torch.Generator().manual_seed(seeds)
    values = torch.randn(seeds, generator=generator).double()
    draws = values[:, None] + torch.randn(50, generator=generator) * 2
    for noise in (0.1, 1.0, 30.0):
        noisy = draws + noise * torch.randn(seeds, 50, generator=generator)
        found = two_level_variance(values, noisy)
        assert close(found, slow_two_levels(values.tolist(), noisy.tolist(), t), 1e-6 * found)
    assert close(student(seeds - 1), t, 1e-8)
    # Of the same number twice: as of one seed, and of seeds alone: Student's.
    assert close(two_level_variance(values * 0, draws[:1].expand(seeds, -1)), float(draws[0].var()))
    alone = two_level_variance(values, values[:, None].expand(-1, 9))
    assert close(1.959963984540054 * math.sqrt(alone), t * float(values.std()) / math.sqrt(seeds), 1e-7)


def test_intervals_cover_where_seeds_vary_and_where_they_do_not() -> None:
    """Means of 20 pictures by 2, 3 and 5 seeds: each picture, each seed and each of both has its own part."""
    runs, pictures = 300, 20
    for seeds, by_seed in itertools.product((2, 3, 5), (0.0, 0.3, 3.0)):
        generator = torch.Generator().manual_seed(seeds)
        shown = torch.randn(runs, 1, pictures, generator=generator)
        both = 0.7 * torch.randn(runs, seeds, pictures, generator=generator)
        given = (shown + both + by_seed * torch.randn(runs, seeds, 1, generator=generator)).double()
        covered, normal = 0, 0
        for run in range(runs):
            draws = given[run] @ stratified_weights(torch.zeros(pictures).long(), 100, run).T / pictures
            values = given[run].mean(1)
            half = 1.959963984540054 * math.sqrt(two_level_variance(values, draws))
            covered += abs(float(values.mean())) <= half
            plain = float(draws.mean(0).var() + values.var() / seeds)
            normal += abs(float(values.mean())) <= 1.959963984540054 * math.sqrt(plain)
        # Of two seeds the interval is wider than it need be where these vary little.
        most = 1.0 if seeds == 2 else 0.985
        assert 0.92 <= covered / runs <= most, (seeds, by_seed, covered / runs)
        assert by_seed < 3 or seeds == 5 or normal / runs < 0.9


def test_the_bootstrap_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    stratified_weights(torch.arange(4) // 2, 3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_correlation_is_numpys_and_0_without_spread() -> None:
    first, second = torch.randn(2, 100).double()
    assert close(correlation(first, second + first), np.corrcoef(first, second + first)[0, 1])
    assert correlation(torch.ones(5), torch.arange(5.0)) == 0.0


def test_percentiles_leave_nan_out() -> None:
    values = torch.cat([torch.arange(201.0), torch.tensor([math.nan])])
    assert percentiles(values[torch.randperm(202)]) == (5.0, 195.0)


# Agreement


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_ranks_share_ties(values: list[int]) -> None:
    assert close(ranks(torch.tensor(values).float()), rankdata(values))


def test_rank_correlation_is_spearmans_within_each_class() -> None:
    labels = torch.tensor([0] * 8 + [1] * 5 + [2] * 2)
    first, second = torch.randn(2, 3, 15).round(decimals=1)
    found = rank_correlation(first, second, labels)
    for row in range(3):
        # The two pictures of class 2 say nothing about an order.
        parts = [slice(0, 8), slice(8, 13)]
        slow = [spearmanr(first[row, part], second[row, part]).statistic for part in parts]
        assert close(found[row], sum(slow) / 2)
    assert rank_correlation(first[:, 13:], second[:, 13:], labels[13:]).isnan().all()
    # Classes far apart do not make an order within them.
    assert close(rank_correlation(first[0] + 100 * labels, second[0] + 100 * labels, labels), found[0])


def test_a_reading_that_does_not_vary_has_no_order() -> None:
    assert float(weighted_correlation(torch.ones(5), torch.arange(5.0))) == 0.0
    assert float(rank_correlation(torch.ones(6), torch.arange(6.0), torch.zeros(6))) == 0.0


def test_weighted_correlation_is_that_of_copies() -> None:
    first, second = torch.randn(2, 12).double()
    weights = torch.randint(0, 4, (20, 12)).double()
    found = weighted_correlation(first + 1e4, second, weights)
    for draw, weight in enumerate(weights.long()):
        copies = torch.arange(12).repeat_interleave(weight)
        assert close(found[draw], np.corrcoef(first[copies], second[copies])[0, 1], 1e-6)
    labels = torch.arange(12) // 6
    assert close(
        rank_correlation(first, second, labels, torch.ones(2, 12))[1], rank_correlation(first, second, labels)
    )


def test_binary_divergence_by_hand() -> None:
    # p = 1/2, q = 1/5: ½ log(5/2) + ½ log(5/8).
    found = binary_divergence(torch.tensor(0.0), torch.tensor(-math.log(4), dtype=torch.float64))
    assert close(found, 0.5 * math.log(2.5) + 0.5 * math.log(0.625))
    assert close(binary_divergence(torch.tensor(200.0), torch.tensor(-200.0)), 200.0, 1e-6)
    assert close(binary_divergence(torch.tensor(-800.0), torch.tensor(-800.0)), 0.0)


def test_r_squared_is_the_mean_squared_correlation_of_units_that_vary() -> None:
    whole, gated = torch.randn(2, 7, 4, 5).double()
    whole[:, 3] = 2.5  # a dead unit is left out
    gated[:, 1] = 0.0  # one that the gated network silences explains nothing
    slow = [np.corrcoef(whole[:, u].flatten(), gated[:, u].flatten())[0, 1] ** 2 for u in (0, 2)]
    assert close(r_squared(whole, gated), (sum(slow) + 0.0) / 3)
    assert close(r_squared(whole, 3 - 2 * whole), 1.0)
    assert r_squared(whole[:, 3:], gated[:, 3:]).isnan()
    weights = torch.randint(1, 3, (6, 7)).double()
    found = r_squared(whole, gated, weights)
    for draw, weight in enumerate(weights.long()):
        copies = torch.arange(7).repeat_interleave(weight)
        assert close(found[draw], r_squared(whole[copies], gated[copies]))
    assert r_squared(whole[:, 3:], gated[:, 3:], weights).shape == (6,)


# Curves


def test_the_area_is_by_trapezoids_over_the_width() -> None:
    shares, heights = [0.05, 0.1, 0.3, 0.7], [0.5, 0.9, 0.7, 1.0]
    area = np.trapezoid(heights, shares) / (0.7 - 0.05)
    assert close(area_weights(shares) @ torch.tensor(heights, dtype=torch.float64), area)
    assert close(area_weights(shares).sum(), 1.0)


def test_the_smallest_share_that_is_enough() -> None:
    shares = [0.1, 0.2, 0.3, 0.5]
    curve = [Estimate(0.5, 0.4, 0.6), NO_VALUE, Estimate(0.9, 0.8, 0.95), Estimate(0.97, 0.9, 0.99)]
    assert smallest_share(shares, curve, 0.9) == (0.3, 0.3, 0.5)  # reaching it is enough
    assert smallest_share(shares, curve, 0.55) == (0.3, 0.1, 0.3)
    assert close(smallest_share(shares, curve, 0.98), (math.nan, 0.5, math.nan))
    assert close(smallest_share(shares, curve, math.nan), (math.nan,) * 3)

"""The search of the release ratio, on curves whose answer is known."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acll.packing.cap import cap
from acll.packing.prune import keep_masks, kept_count
from acll.search.choice import (
    crossing,
    crossing_below_top,
    monotone_fit,
    ratio_interval,
    residuals_of,
    tolerance_of,
)
from acll.search.run import FALLBACKS, NO_ROOM, SHORT_LENGTH, SearchTask, search
from acll.search.settings import Search
from acll.search.space import factors_of, groups_of
from acll.search.strategies import (
    DECAY,
    STARTUP,
    SUGGEST,
    SWEEP_FACTOR,
    KnownTrials,
    draw,
    objective_of,
)
from acll.search.trials import (
    FULL,
    REFERENCE,
    SHORT,
    Candidate,
    Cost,
    Measured,
    TrialLog,
    trials_frame,
)

PROPERTY = settings(max_examples=50, deadline=None)
TPE = Search(search="tpe")
SEARCHED = ("tpe", "anneal", "random", "grid", "decay")

shares = st.floats(0.001, 1)
curves = st.lists(st.tuples(shares, st.floats(0, 1)), min_size=1, max_size=30).map(
    lambda points: tuple(zip(*points))
)


# --------------------------------------------------------------------------------------------------
# the fit and the choice


@PROPERTY
@given(curves)
def test_the_fit_rises_and_keeps_the_mean(curve):
    kept, scores = curve
    tried, fitted = monotone_fit(kept, scores)
    assert list(tried) == sorted(set(kept))
    assert (np.diff(fitted) >= -1e-12).all()
    weights = [kept.count(share) for share in tried]
    assert np.isclose(np.average(fitted, weights=weights), np.mean(scores))


@PROPERTY
@given(curves, st.randoms(use_true_random=False))
def test_the_fit_does_not_depend_on_the_order_of_trials(curve, random):
    points = list(zip(*curve))
    random.shuffle(points)
    assert np.allclose(monotone_fit(*zip(*points))[1], monotone_fit(*curve)[1])


@PROPERTY
@given(st.lists(shares, min_size=1, max_size=20, unique=True))
def test_a_curve_that_rises_is_its_own_fit(kept):
    kept = sorted(kept)
    assert np.allclose(monotone_fit(kept, np.sqrt(kept))[1], np.sqrt(kept))


def test_neighbours_in_the_wrong_order_are_averaged_by_their_number():
    tried, fitted = monotone_fit([0.1, 0.2, 0.2, 0.4], [0.9, 0.3, 0.6, 0.8])
    assert list(tried) == [0.1, 0.2, 0.4]
    assert np.allclose(fitted, [0.6, 0.6, 0.8])  # (0.9 + 0.3 + 0.6) / 3


KEPT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@pytest.mark.parametrize(
    ("scores", "between"),
    [
        pytest.param((0.2, 0.2, 0.2, 0.9, 0.9, 0.9, 0.9), (0.05, 0.1), id="steep"),
        pytest.param((0.2, 0.4, 0.6, 0.8, 0.885, 0.9, 0.9), (0.1, 0.2), id="gentle"),
        pytest.param((0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9), (0.01, 0.01), id="everything fits"),
        pytest.param((0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9), (0.5, 1.0), id="hardly anything fits"),
        pytest.param((0.9, 0.2, 0.2, 0.9, 0.9, 0.9, 0.9), (0.05, 0.1), id="one lucky trial"),
        pytest.param((0.2, 0.2, 0.2, 0.9, 0.87, 0.9, 0.9), (0.05, 0.1), id="one unlucky trial"),
        pytest.param(
            (0.2, 0.2, 0.2, 0.89, 0.3, 0.9, 0.9), (0.2, 0.5), id="one bad trial beside a good one"
        ),
        pytest.param((0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.5), (0.01, 0.01), id="releasing helps"),
        pytest.param((0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), (1.0, 1.0), id="upside down"),
    ],
)
def test_the_answer_is_read_off_the_whole_curve(scores, between):
    assert between[0] <= crossing(KEPT, scores, 0.88) <= between[1]


def test_between_neighbours_the_fit_is_linear_in_the_log_of_the_share():
    assert crossing([0.01, 1.0], [0.0, 1.0], 0.5) == pytest.approx(0.1)


@PROPERTY
@given(curves, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_keeps_less(curve, one, other):
    low, high = sorted((one, other))
    assert crossing(*curve, low) <= crossing(*curve, high) * (1 + 1e-9)
    assert min(curve[0]) * (1 - 1e-9) <= crossing(*curve, low) <= max(curve[0]) * (1 + 1e-9)


@PROPERTY
@given(st.floats(0.01, 0.9), st.integers(0, 10_000))
def test_noise_well_below_the_tolerance_does_not_move_the_answer_on_a_step(answer, seed):
    generator = np.random.default_rng(seed)
    kept = [1.0, *np.exp(generator.uniform(np.log(0.005), 0, 30))]
    scores = np.where(np.array(kept) >= answer, 0.9, 0.5) + generator.uniform(-0.004, 0.004, 31)
    found = crossing_below_top(kept, scores, 0.02)
    below = max([share for share in kept if share < answer], default=min(kept))
    assert below <= found <= min(share for share in kept if share >= answer)


@pytest.mark.parametrize(
    ("error", "tolerance"), [(0.0, 0.005), (0.002, 0.005), (0.01, 0.02), (0.2, 0.03)]
)
def test_the_tolerance_is_z_standard_errors_within_its_bounds(error, tolerance):
    assert tolerance_of(error, 2.0, 0.005, 0.03) == tolerance


@PROPERTY
@given(curves)
def test_residuals_are_what_the_fit_leaves(curve):
    tried, fitted = monotone_fit(*curve)
    fit = dict(zip(tried, fitted))
    assert np.allclose(residuals_of(*curve), [score - fit[share] for share, score in zip(*curve)])


def test_without_noise_the_interval_lies_between_what_failed_and_what_held():
    low, high = ratio_interval([0.1, 0.2, 0.4], [0.5, 0.9, 0.9], 0.8, 0.0, 0)
    assert 0.1 <= low < high <= 0.2


def test_more_noise_makes_a_wider_interval():
    narrow = ratio_interval([0.1, 0.2, 0.4], [0.78, 0.81, 0.9], 0.8, 0.001, 0)
    wide = ratio_interval([0.1, 0.2, 0.4], [0.78, 0.81, 0.9], 0.8, 0.03, 0)
    assert wide[1] / wide[0] > narrow[1] / narrow[0]


# --------------------------------------------------------------------------------------------------
# strategies


def loss(kept, score):
    return objective_of(kept, score, 0.88, 0.02, 0.005)


@PROPERTY
@given(shares, shares)
def test_of_two_shares_that_pass_the_smaller_is_better(one, other):
    low, high = sorted((one, other))
    if high > low * 1.001:
        assert loss(low, 0.99) < loss(high, 0.99)


@PROPERTY
@given(shares, shares, st.floats(0, 0.87))
def test_any_share_that_passes_is_better_than_any_that_fails(passing, failing, score):
    assert loss(max(passing, 0.005), 0.9) < loss(max(failing, 0.005), score)


@PROPERTY
@given(shares, st.floats(0, 1), st.floats(0, 1))
def test_a_better_score_is_never_a_worse_loss(kept, one, other):
    low, high = sorted((one, other))
    assert loss(kept, high) <= loss(kept, low)


def suggestions(strategy, answer, seed=0, count=12, low=0.005):
    """What a strategy suggests on a step curve, until it has its answer."""
    kept, scores = [1.0], [0.9]
    for _ in range(count):
        suggested = SUGGEST[strategy](KnownTrials(low, kept, scores, 0.88, 0.02, seed))
        if suggested is None:
            break
        kept.append(suggested)
        scores.append(0.9 if suggested >= answer else 0.3)
    return kept[1:]


@pytest.mark.parametrize("strategy", SEARCHED)
@pytest.mark.parametrize("low", [0.005, 0.3])
def test_suggestions_stay_between_the_lower_bound_and_1(strategy, low):
    for answer in (0.001, 0.5, 1.0):
        assert all(low <= share <= 1 for share in suggestions(strategy, answer, low=low, count=20))


@pytest.mark.parametrize("strategy", ["tpe", "anneal", "random"])
def test_suggestions_depend_on_their_arguments_alone(strategy):
    np.random.seed(1)
    first = suggestions(strategy, 0.1, count=7)
    np.random.seed(2)
    assert suggestions(strategy, 0.1, count=7) == first
    assert not set(suggestions(strategy, 0.1, seed=1, count=7)) & set(first)


def test_the_first_suggestions_of_tpe_are_random_and_the_later_ones_heed_the_losses():
    """hyperopt itself would draw twenty at random."""
    low, high = suggestions("tpe", 0.01), suggestions("tpe", 0.5)
    assert STARTUP < 20
    assert low[:STARTUP] == high[:STARTUP]
    assert not set(low[STARTUP:]) & set(high[STARTUP:])


@pytest.mark.parametrize(("strategy", "bound"), [("tpe", 0.8), ("anneal", 0.8)])
def test_later_suggestions_are_nearer_the_answer_than_random_ones(strategy, bound):
    def distance(of):
        tried = [(answer, share) for answer in (0.01, 0.05, 0.3) for seed in range(6)
                 for share in suggestions(of, answer, seed)[STARTUP:]]  # fmt: skip
        return np.median([abs(np.log(share / answer)) for answer, share in tried])

    assert distance(strategy) < bound * distance("random")


def test_the_sweep_ascends_by_equal_factors_to_the_first_share_that_holds():
    tried = suggestions("grid", 0.03)
    assert tried[0] == 0.005
    assert np.allclose(np.array(tried[1:]) / tried[:-1], SWEEP_FACTOR)
    assert tried[-2] < 0.03 <= tried[-1]


def test_the_decay_rule_shrinks_the_ratio_to_the_first_that_holds():
    tried = suggestions("decay", 0.3)
    assert np.allclose(tried, [1 - DECAY**number for number in range(1, len(tried) + 1)])
    assert tried[-2] < 0.3 <= tried[-1]


@pytest.mark.parametrize("strategy", ["grid", "decay"])
def test_sweeps_end_where_nothing_holds(strategy):
    assert len(suggestions(strategy, 2.0, count=200)) < 100


def test_in_several_dimensions_tpe_finds_better_points_than_chance():
    bounds = dict.fromkeys("abcd", (-1.0, 1.0))

    def best(strategy, seed):
        points, losses = [], []
        for _ in range(40):
            points.append(draw(strategy, bounds, points, losses, seed))
            losses.append(sum((value - 0.5) ** 2 for value in points[-1].values()))
        return min(losses)

    assert np.mean([best("tpe", seed) for seed in range(5)]) < np.mean(
        [best("random", seed) for seed in range(5)]
    )


# --------------------------------------------------------------------------------------------------
# the whole search

EPOCHS = 8
SHORT_EPOCHS = SHORT_LENGTH * EPOCHS


class Killed(Exception):  # noqa: N818 - no error
    """The machine went away."""


class Curve:
    """Trials on a synthetic curve: `full_answer` is the edge of full trials, `answer` of short
    ones."""

    def __init__(self, full_answer, answer=None, noise=0.0, calls=None, bend=None):
        self.full_answer, self.answer = (
            full_answer,
            min(1.0, 2.5 * full_answer) if answer is None else answer,
        )
        self.noise, self.left, self.bend, self.seen = noise, calls, bend, []

    def __call__(self, candidate, epochs, seed, threshold):
        assert (seed is None) == (threshold is not None) == (epochs == EPOCHS)
        if self.left is not None and len(self.seen) >= self.left:
            raise Killed
        self.seen.append((candidate.kept, epochs, seed))
        edge = self.full_answer if epochs == EPOCHS else self.answer
        score = 0.9 if candidate.kept >= edge or candidate.kept == 1 else 0.4
        if self.bend is not None and candidate.kept < 1:
            score = self.bend(candidate.kept, edge)
        score += self.noise * np.random.default_rng(
            [(seed or 0) % 2**32, int(candidate.kept * 1e6)]
        ).uniform(-1, 1)
        fails = threshold is not None and score < threshold
        return Measured(score, 0.01, epochs * 3 / 4 if fails else epochs)


@pytest.fixture
def log(tmp_path):
    return TrialLog(tmp_path / "trials.json", "key")


@pytest.fixture
def logs(tmp_path):
    numbers = itertools.count()
    return lambda: TrialLog(tmp_path / f"{next(numbers)}.json", "key")


def find(run_trial, log, of=TPE, limit=None, samples=1000, seed=0, groups=(), free=1000):
    cost = Cost(5000, samples, 40)
    task = SearchTask(run_trial, cost, False, EPOCHS, groups, limit, free, seed)
    return search(of, task, log)


def roles(trials):
    return [trial.role for trial in trials]


@pytest.mark.parametrize("strategy", SEARCHED)
@pytest.mark.parametrize("noise", [0.0, 0.002])
@pytest.mark.parametrize("answer", [0.02, 0.1, 0.3])
def test_the_search_finds_the_edge_of_a_step(logs, strategy, answer, noise):
    choices = [
        find(Curve(answer, noise=noise), logs(), Search(search=strategy, budget=1), seed=seed)[0]
        for seed in range(3)
    ]
    for choice in choices:
        assert answer <= 1 - choice.ratio
        assert choice.ratio == choice.ratio_searched
        assert choice.confirmed
        assert not choice.capped
        assert choice.ratio_low <= choice.ratio <= choice.ratio_high
    assert np.median([1 - choice.ratio for choice in choices]) <= SWEEP_FACTOR**2 * answer


class Diverging(Curve):
    """A curve on which some trials diverge. which: says of (kept share, epochs) whether."""

    def __init__(self, full_answer, which):
        super().__init__(full_answer)
        self.which = which

    def __call__(self, candidate, epochs, seed, threshold):
        measured = super().__call__(candidate, epochs, seed, threshold)
        if epochs and self.which(candidate.kept, epochs):
            return Measured(0.0, 0.0, 1.0, diverged=True)
        return measured


@pytest.mark.parametrize("strategy", SEARCHED)
@pytest.mark.parametrize(
    "which",
    [
        lambda kept, epochs: kept < 0.3 and epochs < EPOCHS,
        lambda kept, epochs: epochs < EPOCHS,  # the short reference, too
        lambda kept, epochs: kept < 0.1,
    ],
)
def test_trials_that_diverge_count_as_failed_and_are_named(logs, strategy, which):
    log = logs()
    choice, trials = find(Diverging(0.1, which), log, Search(search=strategy, budget=2))
    assert choice.confirmed
    assert 1 - choice.ratio >= 0.1
    assert 0 < (diverged := sum(trial.diverged for trial in trials)) < len(trials)
    assert f"{diverged} of {len(trials)} trials diverged" in " ".join(choice.warnings)
    known = TrialLog(log.path, "key")
    assert find(Curve(0.1, calls=0), known, Search(search=strategy, budget=2)) == (choice, trials)


@pytest.mark.parametrize("strategy", SEARCHED)
def test_the_search_exceeds_its_budget_only_for_shares_that_failed_and_says_so(logs, strategy):
    for budget in (0.5, 1.5):
        for answer in (0.02, 0.1, 0.3):
            choice, trials = find(Curve(answer), logs(), Search(search=strategy, budget=budget))
            full = Cost(5000, 1000, 40)(EPOCHS)  # of the one that is taken over
            assert choice.cost == pytest.approx(sum(trial.cost for trial in trials) - full)
            failed = [
                trial for trial in trials if trial.role == FULL and trial.score < choice.threshold
            ]
            assert choice.cost <= budget + full * len(failed)
            assert any("its budget is" in warning for warning in choice.warnings) == (
                choice.cost > budget
            )


def test_a_larger_budget_finds_more(logs):
    small, large = (
        [
            1 - find(Curve(0.05), logs(), Search(search="tpe", budget=budget), seed=seed)[0].ratio
            for seed in range(8)
        ]
        for budget in (0.3, 2.0)
    )
    assert np.median(large) < np.median(small)
    assert max(large) <= 1.35 * 0.05  # the answer is settled


def test_the_search_keeps_almost_nothing_where_everything_fits(logs):
    choice, _ = find(Curve(0), logs(), Search(search="tpe", budget=1.5))
    assert TPE.lower <= 1 - choice.ratio < 2 * TPE.lower


@pytest.mark.parametrize("strategy", SEARCHED)
def test_the_search_releases_nothing_where_nothing_fits(logs, strategy):
    choice, trials = find(Curve(1, answer=1), logs(), Search(search=strategy))
    assert choice.ratio == choice.ratio_searched == 0
    assert not choice.confirmed
    assert not choice.capped
    assert roles(trials).count(FULL) <= FALLBACKS + 1
    assert any("no smaller share held" in warning for warning in choice.warnings)


def test_a_curve_that_falls_and_rises_again_gives_a_share_that_holds(logs):
    def bend(kept, edge):
        return 0.9 if kept >= edge and not edge * 1.5 < kept < edge * 2 else 0.4

    for seed in range(5):
        choice, _ = find(Curve(0.05, bend=bend), logs(), seed=seed)
        assert choice.confirmed
        assert bend(1 - choice.ratio, 0.05) == 0.9


def test_a_smooth_curve_is_read_at_the_tolerance(logs):
    def bend(kept, edge):
        # the tolerance is used up at the edge
        return 0.9 - 0.02 * max(0.0, np.log2(2 * edge / kept))

    kept = [
        1 - find(Curve(0.05, bend=bend), logs(), Search(search="tpe", z=2), seed=seed)[0].ratio
        for seed in range(5)
    ]
    assert 0.05 <= np.median(kept) <= 0.1


@PROPERTY
@given(shares, shares, st.floats(0, 0.87))
def test_of_two_shares_that_fail_alike_the_larger_is_better(one, other, score):
    low, high = sorted((max(one, 0.005), max(other, 0.005)))
    assert loss(high, score) <= loss(low, score)


def test_failures_that_are_all_alike_do_not_lead_the_search_to_ever_smaller_shares(logs):
    late = []
    for seed in range(8):
        _, trials = find(Curve(0.99, answer=0.99), logs(), seed=seed)
        short = [trial.kept_share for trial in trials if trial.role == SHORT]
        late += short[STARTUP:]
    assert np.median(late) > np.sqrt(TPE.lower)


@pytest.mark.parametrize("strategy", SEARCHED)
@pytest.mark.parametrize("answer", [0.5, 1])
def test_a_task_that_needs_more_than_its_cap_gets_the_cap_and_a_warning(logs, strategy, answer):
    choice, _ = find(Curve(answer), logs(), Search(search=strategy), limit=0.15)
    assert choice.ratio == 0.85
    assert choice.capped
    assert choice.cap == 0.15
    assert choice.ratio_searched <= 0.85
    assert len(choice.warnings) == 1
    assert "its cap allows 0.150" in choice.warnings[0]


def test_a_cap_far_below_what_is_needed_costs_no_full_retraining(log):
    _, trials = find(Curve(0.8), log, limit=0.05)
    assert FULL not in roles(trials)


def test_a_cap_that_is_not_reached_changes_nothing(logs):
    free, _ = find(Curve(0.05), logs())
    bounded, _ = find(Curve(0.05), logs(), limit=0.5)
    assert (bounded.ratio, bounded.ratio_searched, bounded.capped) == (
        free.ratio,
        free.ratio_searched,
        False,
    )


@pytest.mark.parametrize("answer", [0.4, 0.5, 0.6, 0.7])
def test_a_large_share_that_is_needed_is_found_and_not_stepped_over(logs, answer):
    for seed in range(3):
        choice, _ = find(
            Curve(answer, answer=0.8 * answer), logs(), Search(search="tpe", budget=3), seed=seed
        )
        assert answer <= 1 - choice.ratio <= 1.31 * answer


def test_a_task_that_needs_less_than_its_cap_is_not_capped(log):
    choice, _ = find(Curve(0.2, answer=0.5), log, Search(search="tpe", budget=2), limit=0.3)
    assert not choice.capped
    assert 0.2 <= 1 - choice.ratio < 0.3


@PROPERTY
@given(
    st.floats(0.01, 1),
    st.floats(0.001, 0.99),
    st.sampled_from([*SEARCHED, "fixed"]),
    st.integers(0, 3),
)
def test_no_strategy_ever_exceeds_the_cap(tmp_path_factory, answer, limit, strategy, seed):
    own = TrialLog(tmp_path_factory.mktemp("log") / "trials.json", "key")
    of = Search(search=strategy, ratio=0.3 if strategy == "fixed" else None)
    choice, choice_trials = find(Curve(answer, noise=0.01), own, of, limit=limit, seed=seed)
    assert 1 - choice.ratio <= limit + 1e-12
    assert all(trial.kept_share < limit for trial in choice_trials if trial.role == FULL)


def test_a_fixed_ratio_costs_nothing_and_heeds_the_cap(log):
    of = Search(search="fixed", ratio=0.4)
    choice, trials = find(Curve(0.1), log, of)
    assert (choice.ratio, choice.ratio_searched, choice.cost, trials) == (0.4, None, 0, [])
    choice, _ = find(Curve(0.1), log, of, limit=0.2)
    assert (choice.ratio, choice.capped) == (0.8, True)
    assert choice.warnings == ("a ratio of 0.400 was asked for; the cap demands 0.800",)
    choice, _ = find(Curve(0.1), log, of, limit=0.7)
    assert (choice.ratio, choice.capped, choice.warnings) == (0.4, False, ())


@pytest.mark.parametrize("strategy", SEARCHED)
def test_where_no_weight_is_free_nothing_is_tried_and_the_run_says_so(log, strategy):
    run_trial = Curve(0.1)
    choice, trials = find(run_trial, log, Search(search=strategy), free=0, limit=0.5)
    assert run_trial.seen == trials == []
    assert choice.warnings == (NO_ROOM,)


def test_full_trials_are_compared_with_the_dense_network_and_short_ones_with_their_like(log):
    choice, trials = find(Curve(0.1), log)
    references = [(trial.kept_share, trial.epochs) for trial in trials if trial.role == REFERENCE]
    assert references == [(1, 0), (1, SHORT_EPOCHS)]
    assert {trial.epochs for trial in trials if trial.role == SHORT} == {SHORT_EPOCHS}
    assert {trial.epochs for trial in trials if trial.role == FULL} == {EPOCHS}
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert all((trial.objective is not None) == (trial.role == SHORT) for trial in trials)
    assert all(trial.threshold == choice.threshold for trial in trials if trial.role == FULL)


def test_the_threshold_is_the_reference_minus_the_tolerance(log):
    choice, _ = find(Curve(0.1), log, Search(search="tpe", z=2))
    assert (choice.reference_score, choice.standard_error, choice.tolerance) == (0.9, 0.01, 0.02)
    assert choice.threshold == pytest.approx(0.88)


def test_a_share_that_fails_with_full_retraining_gives_way_to_a_larger_one(log):
    choice, trials = find(Curve(0.3, answer=0.1), log)
    tried = [trial.kept_share for trial in trials if trial.role == FULL]
    assert tried[0] < 0.3
    assert choice.confirmed
    assert 1 - choice.ratio == pytest.approx(min(share for share in tried if share >= 0.3))


@pytest.mark.parametrize(("limit", "ratio"), [(None, 0), (0.5, 0.5)])
def test_where_no_confirmation_holds_the_task_gets_all_that_it_may_have(log, limit, ratio):
    choice, trials = find(Curve(1, answer=0.01), log, limit=limit)
    assert choice.ratio == ratio
    assert not choice.confirmed
    assert roles(trials).count(FULL) > 1


def test_in_a_large_network_the_last_share_tried_is_what_short_trials_need(log):
    """There the first guess, by the number of weights, is far below."""
    choice, trials = find(Curve(0.05, answer=0.1), log, free=20_000_000)
    tried = [trial.kept_share for trial in trials if trial.role == FULL]
    assert tried[0] < 0.01
    assert choice.confirmed
    assert 0.05 <= 1 - choice.ratio < 0.4


def test_the_default_budget_lets_the_strategy_learn_from_what_was_tried(log):
    _, trials = find(Curve(0.1), log)
    assert roles(trials).count(SHORT) > STARTUP


def test_a_small_validation_split_is_warned_of(log):
    choice, _ = find(Curve(0.1), log, samples=20)
    assert len(choice.warnings) == 1
    assert "the validation split has 20 samples" in choice.warnings[0]


@pytest.mark.parametrize("strategy", ["tpe", "anneal", "random"])
def test_the_search_depends_on_its_seed(logs, strategy):
    of = Search(search=strategy)
    first = find(Curve(0.1), logs(), of)
    assert find(Curve(0.1), logs(), of) == first
    assert find(Curve(0.1), logs(), of, seed=1)[1] != first[1]


@pytest.mark.parametrize("strategy", SEARCHED)
def test_a_search_that_was_killed_ends_as_if_it_had_not_been(tmp_path, strategy):
    of = Search(search=strategy)
    whole = Curve(0.1, noise=0.003)
    expected = find(whole, TrialLog(tmp_path / "whole.json", "key"), of)
    for calls in range(len(whole.seen)):
        path = tmp_path / f"{calls}.json"
        with pytest.raises(Killed):
            find(Curve(0.1, noise=0.003, calls=calls), TrialLog(path, "key"), of)
        rest = Curve(0.1, noise=0.003)
        assert find(rest, TrialLog(path, "key"), of) == expected
        assert rest.seen == whole.seen[calls:]


def test_a_search_can_be_killed_twice(tmp_path):
    expected = find(Curve(0.1), TrialLog(tmp_path / "whole.json", "key"))
    path = tmp_path / "trials.json"
    for calls in (5, 4):
        with pytest.raises(Killed):
            find(Curve(0.1, calls=calls), TrialLog(path, "key"))
    rest = Curve(0.1)
    assert find(rest, TrialLog(path, "key")) == expected
    assert len(rest.seen) == len(expected[1]) - 9


def test_a_search_that_is_killed_while_it_takes_up_its_trials_loses_none(tmp_path):
    path = tmp_path / "trials.json"
    with pytest.raises(Killed):
        find(Curve(0.1, calls=6), TrialLog(path, "key"))
    before = path.read_bytes()
    log = TrialLog(path, "key")
    log.measure(
        REFERENCE, Candidate(1.0), 0.0, lambda: pytest.fail("it is known"), Cost(5000, 1000, 40)
    )
    assert path.read_bytes() == before


def test_trials_of_another_search_are_not_taken_over(tmp_path):
    path = tmp_path / "trials.json"
    find(Curve(0.5), TrialLog(path, "old"))
    new = Curve(0.1)
    expected = find(Curve(0.1), TrialLog(tmp_path / "other.json", "new"))
    assert find(new, TrialLog(path, "new")) == expected
    assert len(new.seen) == len(expected[1])


@pytest.mark.parametrize(
    "content", ["", '{"key": "key", "tri', '{"key": "key", "trials": [{"odd": 1}]}', "[]"]
)
def test_a_log_that_cannot_be_read_is_as_good_as_none(tmp_path, content):
    path = tmp_path / "trials.json"
    path.write_text(content)
    run_trial = Curve(0.1)
    _, trials = find(run_trial, TrialLog(path, "key"))
    assert len(run_trial.seen) == len(trials)


def test_each_trial_is_a_line_with_the_best_ratio_and_the_budget(log, capsys):
    choice, trials = find(Curve(0.1), log)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(trials)
    assert all(line.startswith("search: ") and line.endswith(" of 0.5") for line in lines)
    assert f"best ratio {choice.ratio:.4f}" in lines[-1]
    assert f"(threshold {choice.threshold:.4f})" in lines[-1]


def test_costs_are_counted_in_passes_over_images():
    cost = Cost(train_samples=300, validation_samples=100, dense_epochs=10)
    assert cost(10) == 1
    assert cost(1) == pytest.approx(0.1)
    assert cost(0.5) == pytest.approx((3 * 150 + 100) / 10_000)


# --------------------------------------------------------------------------------------------------
# groups of layers


def test_groups_are_neighbours_of_about_equal_number():
    names = [f"encoder.{number}.weight" for number in range(10)] + [
        f"decoder.{number}.weight" for number in range(3)
    ]
    groups = groups_of(names)
    assert list(groups) == [
        "encoder_1",
        "encoder_2",
        "encoder_3",
        "encoder_4",
        "decoder_1",
        "decoder_2",
    ]
    assert [name for members in groups.values() for name in members] == names
    assert {len(members) for members in groups.values()} <= {1, 2, 3}
    assert groups_of(["encoder.1.weight"]) == {"encoder_1": ("encoder.1.weight",)}


WEIGHTS = {
    f"encoder.{number}.weight": torch.randn(
        50 * (number + 1), generator=torch.Generator().manual_seed(number)
    )
    for number in range(4)
}
FREE = {
    name: torch.rand(value.shape, generator=torch.Generator().manual_seed(9)) < 0.7
    for name, value in WEIGHTS.items()
}
GROUP_LOG_SCALES = st.fixed_dictionaries(
    {group: st.floats(-1.1, 1.1) for group in groups_of(list(WEIGHTS))}
)


def kept_with(group_log_scale, kept):
    return keep_masks(WEIGHTS, FREE, 1 - kept, "global", factors_of(list(WEIGHTS), group_log_scale))


@PROPERTY
@given(GROUP_LOG_SCALES, st.floats(0.001, 1))
def test_whatever_the_scales_as_many_weights_are_kept_as_without(scales, kept):
    total = sum(int(mask.sum()) for mask in FREE.values())
    masks = kept_with(scales, kept)
    assert (
        sum(int(mask.sum()) for mask in masks.values())
        == kept_count(total, 1 - kept)
        <= kept * total + 1e-6
    )
    assert all(not bool((masks[name] & ~FREE[name]).any()) for name in WEIGHTS)


@PROPERTY
@given(GROUP_LOG_SCALES, shares, shares)
def test_larger_shares_keep_whatever_smaller_ones_keep(scales, one, other):
    few, many = (kept_with(scales, kept) for kept in sorted((one, other)))
    assert all(not bool((few[name] & ~many[name]).any()) for name in WEIGHTS)


def test_scales_of_zero_are_the_search_without_groups_and_a_larger_one_keeps_more_of_its_group():
    plain = kept_with({}, 0.2)
    flat = kept_with(dict.fromkeys(groups_of(list(WEIGHTS)), 0.0), 0.2)
    assert all(torch.equal(plain[name], flat[name]) for name in WEIGHTS)
    bent = kept_with(dict.fromkeys(groups_of(list(WEIGHTS)), 0.0) | {"encoder_1": 1.0}, 0.2)
    assert int(bent["encoder.0.weight"].sum()) > int(plain["encoder.0.weight"].sum())


def test_the_search_finds_the_group_that_needs_more_than_the_others(logs):
    """A network in which what the first group keeps decides the score."""
    groups = tuple(groups_of(list(WEIGHTS)))
    total = sum(int(mask.sum()) for mask in FREE.values())

    def run_trial(candidate, epochs, seed, stop_rule):
        masks = kept_with(candidate.group_log_scale, candidate.kept)
        first = int(masks["encoder.0.weight"].sum()) / int(FREE["encoder.0.weight"].sum())
        return Measured(0.9 - 0.1 * max(0.0, np.log(0.5 / max(first, 1e-3))), 0.01, epochs)

    kept = {}
    for space in ("network", "groups"):
        of = Search(search="tpe", space=space, budget=2.0)
        own = groups if space == "groups" else ()
        found = [
            find(run_trial, logs(), of, groups=own, seed=seed, free=total) for seed in range(3)
        ]
        kept[space] = np.median([1 - choice.ratio for choice, _ in found])
    choice, trials = found[0]
    assert kept["groups"] < 0.75 * kept["network"]
    assert choice.group_log_scale["encoder_1"] > np.mean(
        [choice.group_log_scale[group] for group in groups[1:]]
    )
    assert {f"group_log_scale_{group}" for group in groups} <= set(trials_frame(trials))


def test_a_search_of_groups_that_was_killed_ends_as_if_it_had_not_been(tmp_path):
    groups, of = ("encoder_1", "encoder_2"), Search(search="tpe", space="groups")
    whole = Curve(0.1, noise=0.003)
    expected = find(whole, TrialLog(tmp_path / "whole.json", "key"), of, groups=groups)
    for calls in (5, 20, len(whole.seen) - 1):
        path = tmp_path / f"{calls}.json"
        with pytest.raises(Killed):
            find(Curve(0.1, noise=0.003, calls=calls), TrialLog(path, "key"), of, groups=groups)
        rest = Curve(0.1, noise=0.003)
        assert find(rest, TrialLog(path, "key"), of, groups=groups) == expected
        assert rest.seen == whole.seen[calls:]


# --------------------------------------------------------------------------------------------------
# the cap


@PROPERTY
@given(st.integers(1, 30), st.integers(1, 60), st.floats(0.01, 0.99))
def test_tasks_that_use_their_cap_share_the_network_equally_up_to_the_last_but_one(
    expected, count, tail
):
    free, owned = 1.0, []
    for position in range(1, count + 1):
        owned.append(free * cap(position, expected, tail))
        free -= owned[-1]
    assert np.allclose(owned[: expected - 1], 1 / expected)
    assert np.allclose(owned[expected:], np.array(owned[expected - 1 : -1]) * (1 - tail))


@PROPERTY
@given(st.integers(1, 30), st.integers(1, 60), st.floats(0.01, 0.99))
def test_a_cap_always_leaves_room(expected, position, tail):
    assert 0 < cap(position, expected, tail) < 1
    if position >= expected:
        assert cap(position, expected, tail) == tail

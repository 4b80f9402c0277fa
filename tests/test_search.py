"""The search of the release ratio, on curves whose answer is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acll.packing.cap import cap, equal_share
from acll.search.choice import tolerance_of
from acll.search.posterior import posterior
from acll.search.run import NO_ROOM, RESOLUTION, SearchTask, search
from acll.search.settings import Search
from acll.search.strategies import DECAY, SUGGEST, SWEEP_FACTOR, KnownTrials, objective_of
from acll.search.trials import REFERENCE, TRIAL, Cost, Measured, TrialLog
from acll.settings import WEIGHTS_PER_ROOT, expected_share

PROPERTY = settings(max_examples=50, deadline=None)
BAYES = Search(search="bayes")
SEARCHED = ("bayes", "tpe", "random", "grid", "decay")
DRAWN = SEARCHED[:3]  # which heed the budget

shares = st.floats(0.001, 1)


@pytest.mark.parametrize(
    ("error", "tolerance"), [(0.0, 0.005), (0.002, 0.005), (0.01, 0.02), (0.2, 0.03)]
)
def test_the_tolerance_is_z_standard_errors_within_its_bounds(error, tolerance):
    assert tolerance_of(error, 2.0, 0.005, 0.03) == tolerance


# --------------------------------------------------------------------------------------------------
# the posterior


def known_of(kept, scores, threshold=0.88, tolerance=0.02, noise=0.01, expected=0.05, low=0.005):
    return posterior(kept, scores, threshold, tolerance, noise, expected, low)


def test_before_any_trial_the_answer_is_where_it_is_expected():
    found = known_of([], [])
    assert found.quantile(0.5) == pytest.approx(0.05, rel=0.02)
    low, high = found.interval()
    assert low < 0.05 < high
    assert high / 0.05 == pytest.approx(0.05 / low, rel=0.1)


def test_a_share_is_expected_by_the_root_of_the_number_of_free_weights():
    assert expected_share(10_000) == pytest.approx(WEIGHTS_PER_ROOT / 100)
    assert expected_share(1_000_000) == pytest.approx(WEIGHTS_PER_ROOT / 1000)
    assert expected_share(3) == 1


@PROPERTY
@given(
    st.lists(st.tuples(st.floats(0.005, 1), st.floats(0, 1)), max_size=8),
    st.floats(0.0075, 0.03),
    st.floats(0.001, 0.05),
)
def test_a_posterior_is_one_whatever_the_trials(points, tolerance, noise):
    kept, scores = [list(values) for values in zip(*points)] or ([], [])
    found = known_of(kept, scores, tolerance=tolerance, noise=noise)
    assert found.probability.sum() == pytest.approx(1)
    assert (found.probability >= 0).all()
    quantiles = [found.quantile(share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    assert quantiles == sorted(quantiles)


@PROPERTY
@given(st.floats(0.01, 0.5), st.floats(0.885, 0.92), st.floats(0.5, 0.87))
def test_what_held_moves_the_answer_down_and_what_failed_moves_it_up(kept, above, below):
    answer = known_of([kept], [below]).quantile(0.5)
    assert answer > known_of([kept], [above]).quantile(0.5)


@pytest.mark.parametrize("answer", [0.02, 0.08, 0.3])
@pytest.mark.parametrize("slope", [0.8, 1.5, 2.5])
def test_trials_of_a_power_law_lead_to_its_answer(answer, slope):
    kept = answer * np.array([0.5, 0.8, 1.3, 2.0])
    scores = 0.88 + 0.03 * (1 - (answer / kept) ** slope)
    found = known_of(kept.tolist(), scores.tolist(), noise=0.003)
    assert found.quantile(0.5) == pytest.approx(answer, rel=0.2)
    low, high = found.interval()
    assert low < answer < high


def test_between_bounds_that_nothing_speaks_for_the_middle_is_taken():
    found = known_of([0.02, 0.1], [0.95, 0.97], noise=0.001)
    assert 0.5 < found.quantile(0.5, 0.5, 0.9) < 0.9


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


@PROPERTY
@given(shares, shares, st.floats(0, 0.87))
def test_of_two_shares_that_fail_alike_the_larger_is_better(one, other, score):
    low, high = sorted((max(one, 0.005), max(other, 0.005)))
    assert loss(high, score) <= loss(low, score)


def suggestions(strategy, answer, seed=0, count=12, low=0.005):
    """What a strategy suggests on a step curve, until it has its answer."""
    kept, scores = [], []
    for _ in range(count):
        failed = [share for share, score in zip(kept, scores) if score < 0.88]
        held = [share for share, score in zip(kept, scores) if score >= 0.88]
        bounds = max(failed, default=low), min(held, default=1.0)
        given = known_of(kept, scores, low=low)
        known = KnownTrials(kept, scores, 0.88, 0.02, *bounds, low, 0.05, given, seed)
        suggested = SUGGEST[strategy](known)
        if suggested is None:
            break
        kept.append(suggested)
        scores.append(0.9 if suggested >= answer else 0.3)
    return kept


@pytest.mark.parametrize("strategy", DRAWN)
@pytest.mark.parametrize("answer", [0.006, 0.05, 0.7])
def test_suggestions_lie_between_what_failed_and_what_held(strategy, answer):
    low, high = 0.005, 1.0
    for share in suggestions(strategy, answer):
        assert low <= share <= high
        low, high = (low, share) if share >= answer else (share, high)


@pytest.mark.parametrize("strategy", ["tpe", "random"])
def test_suggestions_depend_on_their_arguments_alone(strategy):
    np.random.seed(1)
    first = suggestions(strategy, 0.1, count=7)
    np.random.seed(2)
    assert suggestions(strategy, 0.1, count=7) == first
    assert not set(suggestions(strategy, 0.1, seed=1, count=7)) & set(first)


def test_bisection_is_nearer_the_answer_than_tpe_and_that_than_random_draws():
    def distance(of):
        tried = [(answer, share) for answer in (0.02, 0.05, 0.2) for seed in range(12)
                 for share in suggestions(of, answer, seed, count=3)]  # fmt: skip
        return np.median([abs(np.log(share / answer)) for answer, share in tried])

    assert distance("bayes") < distance("tpe") < distance("random")


def test_the_sweep_ascends_by_equal_factors_to_the_first_share_that_holds():
    tried = suggestions("grid", 0.03)
    assert tried[0] == 0.005
    assert np.allclose(np.array(tried[1:]) / tried[:-1], SWEEP_FACTOR)
    assert tried[-2] < 0.03 <= tried[-1]


def test_the_decay_rule_shrinks_the_ratio_to_the_first_that_holds():
    tried = suggestions("decay", 0.3)
    assert np.allclose(tried, [1 - DECAY**number for number in range(1, len(tried) + 1)])
    assert tried[-2] < 0.3 <= tried[-1]


# --------------------------------------------------------------------------------------------------
# the whole search

EPOCHS = 6


class Killed(Exception):  # noqa: N818 - no error
    """The machine went away."""


class Curve:
    """Trials on a synthetic curve: 0.91 from `answer` on, and below it a power law."""

    def __init__(self, answer, noise=0.0, calls=None, bend=None):
        self.answer, self.noise, self.left, self.bend = answer, noise, calls, bend
        self.seen = []

    def __call__(self, kept, threshold):
        if self.left is not None and len(self.seen) >= self.left:
            raise Killed
        self.seen.append((kept, threshold))
        if threshold is None:
            return Measured(0.9, 0.01, 0.0)
        score = max(0.1, 0.91 - 0.02 * min(1e3, (self.answer / kept) ** 2))
        if self.bend is not None:
            score = self.bend(kept)
        score += self.noise * np.random.default_rng(int(kept * 1e9)).uniform(-1, 1)
        return Measured(score, 0.01, EPOCHS * 2 / 3 if score < threshold - 0.01 else EPOCHS)


@pytest.fixture
def log(tmp_path):
    return TrialLog(tmp_path / "trials.json", "key")


@pytest.fixture
def logs(tmp_path):
    numbers = itertools.count()
    return lambda: TrialLog(tmp_path / f"{next(numbers)}.json", "key")


def released(kept):
    return -np.log10(kept) * 2  # epochs


def find(
    run_trial,
    log,
    of=BAYES,
    limit=None,
    samples=1000,
    seed=0,
    free=300_000,
    one_release=False,
    trained_share=1.0,
):
    cost = Cost(5000, samples, 24)
    given = (True, released, one_release, EPOCHS, limit, free, seed, trained_share)
    return search(of, SearchTask(run_trial, cost, *given), log)


def roles(trials):
    return [trial.role for trial in trials]


def kept_of(choice):
    return 1 - choice.ratio


@pytest.mark.parametrize("strategy", SEARCHED)
@pytest.mark.parametrize("noise", [0.0, 0.002])
@pytest.mark.parametrize("answer", [0.02, 0.1, 0.3])
def test_the_search_gives_a_share_that_holds(logs, strategy, answer, noise):
    for seed in range(3):
        of = Search(search=strategy, budget=2)
        choice, trials = find(Curve(answer, noise), logs(), of, seed=seed)
        assert choice.confirmed
        assert not choice.capped
        assert choice.ratio == choice.ratio_searched
        assert choice.ratio_low <= choice.ratio <= choice.ratio_high
        (own,) = [one for one in trials if one.role == TRIAL and one.kept_share == kept_of(choice)]
        assert own.score >= choice.threshold
        assert not any(
            one.score >= choice.threshold and one.kept_share < kept_of(choice)
            for one in trials
            if one.role == TRIAL
        )


@pytest.mark.parametrize("answer", [0.02, 0.05, 0.1, 0.3])
def test_bisection_settles_the_answer_where_the_budget_allows(logs, answer):
    choice, _ = find(Curve(answer), logs(), Search(search="bayes", budget=3))
    # at the answer, 0.91 − 0.02 is 0.9 less the tolerance
    assert answer <= kept_of(choice) <= answer * RESOLUTION * 1.01


def test_where_a_score_says_little_no_share_is_tried_far_below_what_is_expected(logs):
    """Few validation images: whatever is kept may look as good as the dense network by chance."""
    kept = {}
    for error in (0.002, 0.08):

        def level(kept, threshold, error=error):
            return Measured(0.7, error, EPOCHS)

        choice, _ = find(level, logs(), Search(search="bayes", budget=3), free=76_000)
        kept[error] = kept_of(choice)
    assert kept[0.002] < 0.01
    assert kept[0.08] > expected_share(76_000) / 2


class Diverging(Curve):
    """A curve on which trials below a share diverge."""

    def __init__(self, answer, below):
        super().__init__(answer)
        self.below = below

    def __call__(self, kept, threshold):
        measured = super().__call__(kept, threshold)
        if kept < self.below:
            return Measured(0.0, 0.0, 1.0, diverged=True)
        return measured


@pytest.mark.parametrize("strategy", SEARCHED)
def test_trials_that_diverge_count_as_failed_and_are_named(logs, strategy):
    log, of = logs(), Search(search=strategy, budget=2)
    choice, trials = find(Diverging(0.1, 0.15), log, of)
    assert choice.confirmed
    assert kept_of(choice) >= 0.15
    diverged = sum(trial.diverged for trial in trials)
    said = f"{diverged} of {len(trials) - 1} trials diverged" in " ".join(choice.warnings)
    assert said == (diverged > 0)
    assert diverged > 0 or strategy == "random"
    known = TrialLog(log.path, "key")
    assert find(Curve(0.1, calls=0), known, of) == (choice, trials)


@pytest.mark.parametrize("strategy", DRAWN)
def test_a_search_exceeds_its_budget_only_where_its_last_trial_is_the_first_that_holds(
    logs, strategy
):
    for budget in (0.3, 0.5, 1.5):
        for answer in (0.02, 0.1, 0.3):
            choice, trials = find(Curve(answer), logs(), Search(search=strategy, budget=budget))
            of = [trial.score >= choice.threshold for trial in trials if trial.role == TRIAL]
            assert choice.cost <= budget + 1e-9 or of == [False] * (len(of) - 1) + [True]
            assert any("its budget is" in warning for warning in choice.warnings) == (
                choice.cost > budget
            )


def test_trials_that_share_a_release_make_it_once_and_pay_for_what_is_new(logs):
    choice, trials = find(Curve(0.1), logs(), one_release=True)
    cost = Cost(5000, 1000, 24)
    following = cost(released(kept_of(choice)), True) + cost(EPOCHS, True)
    assert choice.cost == pytest.approx(sum(trial.cost for trial in trials) - following)
    # the release is made once, by whole epochs, as far as the smallest share needed it
    smallest = min(trial.kept_share for trial in trials)
    assert sum(trial.release_epochs for trial in trials) == np.ceil(released(smallest))
    again = [trial for trial in trials[2:] if trial.kept_share > trials[1].kept_share]
    assert all(trial.release_epochs == 0 for trial in again)


def test_trials_that_each_have_their_own_release_pay_for_it(logs):
    choice, trials = find(Curve(0.1), logs())
    cost = Cost(5000, 1000, 24)
    following = cost(released(kept_of(choice)), True) + cost(EPOCHS, True)
    assert choice.cost == pytest.approx(sum(trial.cost for trial in trials) - following)
    own = [trial for trial in trials if trial.role == TRIAL]
    assert len(own) > 2
    for trial in own:
        assert trial.release_epochs == pytest.approx(released(trial.kept_share))


def test_a_larger_budget_finds_more(logs):
    small, large = (
        [
            kept_of(find(Curve(answer), logs(), Search(search="bayes", budget=budget))[0]) / answer
            for answer in (0.01, 0.02, 0.04)
        ]
        for budget in (0.1, 2.0)
    )
    assert np.median(large) < np.median(small)


def test_the_search_keeps_almost_nothing_where_everything_fits(logs):
    choice, _ = find(Curve(0), logs(), Search(search="bayes", budget=3))
    assert BAYES.lower <= kept_of(choice) < 2 * BAYES.lower


@pytest.mark.parametrize("strategy", SEARCHED)
def test_the_search_releases_nothing_where_nothing_fits(logs, strategy):
    choice, trials = find(Curve(5), logs(), Search(search=strategy))
    assert choice.ratio == choice.ratio_searched == 0
    assert not choice.confirmed
    assert not choice.capped
    if strategy in DRAWN:
        assert roles(trials).count(TRIAL) <= 9
    assert any("no smaller share held" in warning for warning in choice.warnings)


def test_a_curve_that_falls_and_rises_again_gives_a_share_that_holds(logs):
    def bend(kept):
        return 0.9 if kept >= 0.05 and not 0.075 < kept < 0.1 else 0.4

    for seed in range(5):
        choice, _ = find(Curve(0.05, bend=bend), logs(), seed=seed)
        assert choice.confirmed
        assert bend(kept_of(choice)) == 0.9


@pytest.mark.parametrize("strategy", SEARCHED)
@pytest.mark.parametrize("answer", [0.5, 5])
def test_a_task_that_needs_more_than_its_cap_gets_the_cap_and_a_warning(logs, strategy, answer):
    choice, _ = find(Curve(answer), logs(), Search(search=strategy, budget=9), limit=0.15)
    assert choice.ratio == 0.85
    assert choice.capped
    assert choice.cap == 0.15
    assert choice.ratio_searched <= 0.85
    assert len(choice.warnings) == 1
    assert "its cap allows 0.150" in choice.warnings[0]


def test_a_cap_that_is_not_reached_changes_nothing(logs):
    free, _ = find(Curve(0.05), logs())
    bounded, _ = find(Curve(0.05), logs(), limit=0.9)
    assert (bounded.ratio, bounded.ratio_searched, bounded.capped) == (
        free.ratio,
        free.ratio_searched,
        False,
    )


@PROPERTY
@given(
    st.floats(0.01, 1),
    st.floats(0.001, 0.99),
    st.sampled_from([*SEARCHED, "fixed"]),
    st.booleans(),
    st.integers(0, 3),
)
def test_no_strategy_ever_exceeds_the_cap(
    tmp_path_factory, answer, limit, strategy, for_score, seed
):
    own = TrialLog(tmp_path_factory.mktemp("log") / "trials.json", "key")
    prefer = "score" if for_score and strategy in DRAWN else "size"
    of = Search(search=strategy, prefer=prefer, ratio=0.3 if strategy == "fixed" else None)
    choice, choice_trials = find(Curve(answer, noise=0.01), own, of, limit=limit, seed=seed)
    assert kept_of(choice) <= limit + 1e-9
    assert all(trial.kept_share <= limit + 1e-9 for trial in choice_trials if trial.role == TRIAL)


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


def test_trials_are_compared_with_the_dense_network(log):
    choice, trials = find(Curve(0.1), log)
    assert roles(trials) == [REFERENCE] + [TRIAL] * (len(trials) - 1)
    assert (trials[0].kept_share, trials[0].epochs, trials[0].threshold) == (1, 0, None)
    assert {trial.epochs for trial in trials[1:]} == {EPOCHS}
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert all(trial.threshold == choice.threshold for trial in trials[1:])


def test_the_threshold_is_the_reference_minus_the_tolerance(log):
    choice, _ = find(Curve(0.1), log, Search(search="bayes", z=2))
    assert (choice.reference_score, choice.standard_error, choice.tolerance) == (0.9, 0.01, 0.02)
    assert choice.threshold == pytest.approx(0.88)


@pytest.mark.parametrize("strategy", SEARCHED)
@pytest.mark.parametrize("limit", [0.15, 0.5, None])
def test_where_nothing_smaller_holds_all_that_the_task_may_keep_is_tried(logs, strategy, limit):
    most = limit or 1.0
    run_trial = Curve(most / 1.02)  # it holds from just below that on
    choice, trials = find(run_trial, logs(), Search(search=strategy, budget=9), limit=limit)
    assert trials[-1].kept_share == pytest.approx(most)
    assert choice.confirmed
    assert not choice.capped
    assert kept_of(choice) == pytest.approx(most)
    assert not choice.warnings


@pytest.mark.parametrize(("limit", "most"), [(None, 1.0), (0.4, 0.4)])
def test_who_prefers_the_score_keeps_what_is_no_worse_than_all_that_the_cap_allows(
    logs, limit, most
):
    def better(kept):  # more weights than the dense network's score needs raise it further
        return 0.9 + 0.05 * min(0.0, np.log(kept / 0.1)) + 0.02 * max(0.0, np.log(kept / 0.1))

    found = {}
    for prefer in ("size", "score"):
        of = Search(search="bayes", budget=3, prefer=prefer)
        choice, trials = find(Curve(0.1, bend=better), logs(), of, limit=limit)
        assert better(kept_of(choice)) >= choice.threshold
        found[prefer] = kept_of(choice)
    assert trials[1].kept_share == most
    assert choice.threshold == pytest.approx(better(most) - choice.tolerance)
    assert found["score"] > 1.5 * found["size"]


def test_where_the_cap_does_not_allow_the_goal_its_own_score_is_that_of_who_prefers_it(logs):
    of = Search(search="bayes", budget=3, prefer="score")
    choice, trials = find(Curve(0.5), logs(), of, limit=0.3)
    assert trials[1].score < 0.9 - choice.tolerance
    assert trials[1].epochs_run == EPOCHS  # it ends early for no goal of others
    assert choice.threshold == trials[1].score
    assert choice.confirmed
    assert choice.capped
    assert any("its cap allows 0.300" in warning for warning in choice.warnings)
    assert kept_of(choice) == pytest.approx(0.3)


def test_where_all_that_the_cap_allows_diverges_nothing_has_held_for_that(logs):
    of = Search(search="bayes", budget=3, prefer="score")
    choice, trials = find(Diverging(0.1, below=0.35), logs(), of, limit=0.3)
    assert trials[1].diverged
    assert not choice.confirmed
    assert choice.capped
    assert choice.ratio == 0.7
    assert choice.threshold == pytest.approx(0.89)


class Trained(Curve):
    """A curve of a network that was trained with a tenth: with that it scores as it is."""

    def __call__(self, kept, threshold):
        measured = super().__call__(kept, threshold)
        if kept == pytest.approx(0.1):
            return Measured(0.9, 0.01, 0.0)
        return measured


@pytest.mark.parametrize("strategy", SEARCHED)
@pytest.mark.parametrize("prefer", ["size", "score"])
@pytest.mark.parametrize("limit", [None, 0.4, 0.1, 0.05])
def test_a_network_that_was_trained_with_a_tenth_is_the_first_trial_of_all_but_sweeps(
    logs, strategy, prefer, limit
):
    sweeps = strategy in ("grid", "decay")
    if sweeps and prefer == "score":
        return
    of = Search(search=strategy, budget=3, prefer=prefer)
    choice, trials = find(Trained(0.02), logs(), of, limit=limit, trained_share=0.1)
    assert (trials[0].role, trials[0].kept_share) == (REFERENCE, 0.1)
    first = trials[1].kept_share == pytest.approx(0.1) and trials[1].epochs_run == 0
    assert first == (limit != 0.05 and not sweeps) or strategy == "decay"
    assert choice.confirmed
    assert not choice.capped
    if strategy in ("bayes", "grid"):  # which find less
        assert kept_of(choice) < 0.08
    # nothing less holds: it stays as it is
    choice, trials = find(Trained(5.0), logs(), of, limit=limit, trained_share=0.1)
    if limit == 0.05:
        assert choice.capped
    elif not sweeps:
        assert kept_of(choice) == pytest.approx(0.1)
        assert not choice.capped
        assert choice.threshold == pytest.approx(0.89)


def test_more_than_a_network_was_trained_with_is_kept_by_who_prefers_the_score_where_it_helps(logs):
    def better(kept):
        return 0.9 if kept < 0.11 else 0.95

    for prefer, least in (("size", 0), ("score", 0.11), (None, 0.11)):
        of = Search(search="bayes", budget=3, prefer=prefer)
        choice, _ = find(Trained(0.02, bend=better), logs(), of, limit=0.4, trained_share=0.1)
        assert (kept_of(choice) > 0.11) == (prefer != "size")
        assert kept_of(choice) >= least


@pytest.mark.parametrize(
    ("strategy", "limit", "trained_share", "score"),
    [
        ("bayes", 0.4, 0.1, True),
        ("tpe", 0.4, 0.1, True),
        ("bayes", 0.05, 0.1, False),  # it was trained with more than the cap allows
        ("bayes", 0.12, 0.1, False),  # or with about as much
        ("bayes", 0.13, 0.1, True),
        ("bayes", 0.4, 1.0, False),  # it was trained with all
        ("grid", 0.4, 0.1, False),
        ("bayes", None, 0.1, False),  # all would be tried
    ],
)
def test_unless_told_the_score_is_preferred_where_the_dense_network_is_a_trial(
    logs, strategy, limit, trained_share, score
):
    found = {
        prefer: find(
            Trained(0.02),
            logs(),
            Search(search=strategy, budget=3, prefer=prefer),
            limit=limit,
            trained_share=trained_share,
        )
        for prefer in (None, "score" if score else "size")
    }
    assert len({str(known) for known in found.values()}) == 1
    assert any(trial.kept_share == (limit or 1) for trial in found[None][1]) == score


def test_nothing_below_the_smallest_share_is_tried_though_the_network_was_trained_with_less(logs):
    of = Search(search="bayes", budget=3, lower=0.3)
    choice, trials = find(Trained(0.02), logs(), of, trained_share=0.1)
    assert all(trial.kept_share >= 0.3 for trial in trials if trial.role == TRIAL)
    assert kept_of(choice) >= 0.3


def test_without_a_free_weight_a_task_reads_as_much_as_it_was_trained_with(logs):
    choice, trials = find(Trained(0.02), logs(), free=0, trained_share=0.1)
    assert trials == []
    assert kept_of(choice) == pytest.approx(0.1)


@pytest.mark.parametrize("strategy", ["grid", "decay", "fixed"])
def test_a_strategy_that_ends_with_the_first_share_that_holds_prefers_no_score(strategy):
    ratio = 0.3 if strategy == "fixed" else None
    with pytest.raises(ValueError, match="needs `bayes`, `tpe` or `random`"):
        Search(search=strategy, prefer="score", ratio=ratio)


def test_a_share_that_fails_gives_way_to_a_larger_one(log):
    choice, trials = find(Curve(0.3), log)
    tried = [trial.kept_share for trial in trials if trial.role == TRIAL]
    assert tried[0] < 0.3
    assert choice.confirmed
    assert kept_of(choice) == pytest.approx(min(share for share in tried if share >= 0.3))


def test_in_a_large_network_few_steps_lead_from_the_first_share_to_one_that_holds(log):
    choice, trials = find(Curve(0.2), log, free=20_000_000)
    tried = [trial.kept_share for trial in trials if trial.role == TRIAL]
    assert tried[0] < 0.02
    assert len(tried) <= 7
    assert choice.confirmed


def test_a_small_validation_split_is_warned_of(log):
    choice, _ = find(Curve(0.1), log, Search(search="bayes", budget=3), samples=20)
    assert len(choice.warnings) == 1
    assert "the validation split has 20 samples" in choice.warnings[0]


@pytest.mark.parametrize("strategy", ["tpe", "random"])
def test_the_search_depends_on_its_seed(logs, strategy):
    of = Search(search=strategy)
    first = find(Curve(0.1), logs(), of)
    assert find(Curve(0.1), logs(), of) == first
    assert find(Curve(0.1), logs(), of, seed=1)[1] != first[1]


@pytest.mark.parametrize(
    ("strategy", "prefer"),
    [*((strategy, "size") for strategy in SEARCHED), *((one, "score") for one in DRAWN)],
)
@pytest.mark.parametrize("network", [{}, {"limit": 0.4, "trained_share": 0.1}], ids=str)
def test_a_search_that_was_killed_ends_as_if_it_had_not_been(tmp_path, strategy, prefer, network):
    kind = Trained if network else Curve
    of = Search(search=strategy, prefer=None if network else prefer, budget=2)
    whole = kind(0.1, noise=0.003)
    expected = find(whole, TrialLog(tmp_path / "whole.json", "key"), of, **network)
    for calls in range(len(whole.seen)):
        path = tmp_path / f"{calls}.json"
        with pytest.raises(Killed):
            find(kind(0.1, noise=0.003, calls=calls), TrialLog(path, "key"), of, **network)
        rest = kind(0.1, noise=0.003)
        assert find(rest, TrialLog(path, "key"), of, **network) == expected
        assert rest.seen == whole.seen[calls:]


LONG = Search(search="grid")


def test_a_search_can_be_killed_twice(tmp_path):
    expected = find(Curve(0.1), TrialLog(tmp_path / "whole.json", "key"), LONG)
    path = tmp_path / "trials.json"
    for calls in (4, 2):
        with pytest.raises(Killed):
            find(Curve(0.1, calls=calls), TrialLog(path, "key"), LONG)
    rest = Curve(0.1)
    assert find(rest, TrialLog(path, "key"), LONG) == expected
    assert len(rest.seen) == len(expected[1]) - 6


def test_a_search_that_is_killed_while_it_takes_up_its_trials_loses_none(tmp_path):
    path = tmp_path / "trials.json"
    with pytest.raises(Killed):
        find(Curve(0.1, calls=4), TrialLog(path, "key"), LONG)
    before = path.read_bytes()
    log = TrialLog(path, "key")
    log.measure(REFERENCE, 1.0, 0.0, 0.0, lambda: pytest.fail("it is known"), Cost(5000, 1000, 40))
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
    assert cost(1, True) == pytest.approx((4 * 300 + 100) / 10_000)
    assert cost(0) == 0


# --------------------------------------------------------------------------------------------------
# the cap


@PROPERTY
@given(st.integers(1, 30), st.integers(1, 60), st.floats(0.01, 0.99))
def test_tasks_that_use_equal_shares_own_as_much_up_to_the_last_but_one(expected, count, tail):
    free, owned = 1.0, []
    for position in range(1, count + 1):
        owned.append(free * equal_share(position, expected, tail))
        free -= owned[-1]
    assert np.allclose(owned[: expected - 1], 1 / expected)
    assert np.allclose(owned[expected:], np.array(owned[expected - 1 : -1]) * (1 - tail))


@PROPERTY
@given(st.integers(1, 30), st.integers(1, 60), st.floats(0.01, 0.99))
def test_a_cap_always_leaves_room_and_is_one_or_two_equal_shares(expected, position, tail):
    equal, most = (of(position, expected, tail) for of in (equal_share, cap))
    assert 0 < equal <= most <= 2 * equal
    assert most < 1
    if position >= expected:
        assert most == tail
    else:
        assert most <= max(0.25, equal)


def test_of_ten_tasks_most_may_own_a_quarter_and_the_last_finds_a_quarter_of_its_share():
    caps = [cap(position, 10, 0.5) for position in range(1, 12)]
    assert np.allclose(caps, [0.2, 2 / 9, *[0.25] * 5, 1 / 3, 1 / 2, 1 / 2, 1 / 2])
    left = np.prod([1 - share for share in caps[:9]])
    assert left * caps[9] == pytest.approx(0.25 / 10, abs=0.0005)

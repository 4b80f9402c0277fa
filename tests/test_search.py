"""The search of the release ratio, on curves whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acll.packing.cap import cap
from acll.search.choice import monotone_fit, smallest_share, tolerance_of
from acll.search.run import Measured, TrialLog, search
from acll.search.suggest import penalised, suggest
from acll.settings import Search

PROPERTY = settings(max_examples=50, deadline=None)
TPE = Search(search="tpe")
THOROUGH = Search(search="tpe", trials=30, startup=6)

shares = st.floats(0.001, 1)
curves = st.lists(st.tuples(shares, st.floats(0, 1)), min_size=1, max_size=30).map(lambda points: tuple(zip(*points)))


# --------------------------------------------------------------------------------------------------------------------
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
    ("scores", "chosen"),
    [
        pytest.param((0.2, 0.2, 0.2, 0.9, 0.9, 0.9, 0.9), 0.1, id="steep"),
        pytest.param((0.2, 0.4, 0.6, 0.8, 0.885, 0.9, 0.9), 0.2, id="gentle"),
        pytest.param((0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9), 0.01, id="everything fits"),
        pytest.param((0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9), 1.0, id="nothing fits"),
        pytest.param((0.9, 0.2, 0.2, 0.9, 0.9, 0.9, 0.9), 0.1, id="one lucky trial"),
        pytest.param((0.2, 0.2, 0.2, 0.9, 0.87, 0.9, 0.9), 0.1, id="one unlucky trial"),
        pytest.param((0.2, 0.2, 0.2, 0.89, 0.3, 0.9, 0.9), 0.5, id="one bad trial beside a good one"),
        pytest.param((0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.5), 0.01, id="releasing helps"),
        pytest.param((0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), 1.0, id="upside down"),
    ],
)
def test_the_choice_is_read_off_the_whole_curve(scores, chosen):
    assert smallest_share(KEPT, scores, 0.88) == chosen


def test_nothing_is_released_where_even_the_reference_is_pulled_below_the_threshold():
    assert smallest_share([1.0, 0.5], [0.9, 0.1], 0.95) == 1.0


@PROPERTY
@given(curves, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_keeps_less(curve, one, other):
    low, high = sorted((one, other))
    assert smallest_share(*curve, low) <= smallest_share(*curve, high)
    assert smallest_share(*curve, low) in {*curve[0], 1.0}


@PROPERTY
@given(st.floats(0.01, 0.9), st.integers(0, 10_000))
def test_noise_well_below_the_tolerance_does_not_move_the_choice_on_a_step(answer, seed):
    generator = np.random.default_rng(seed)
    kept = [1.0, *np.exp(generator.uniform(np.log(0.005), 0, 30))]
    scores = np.where(np.array(kept) >= answer, 0.9, 0.5) + generator.uniform(-0.008, 0.008, 31)
    assert smallest_share(kept, scores, 0.88) == min(share for share in kept if share >= answer)


@pytest.mark.parametrize(("error", "tolerance"), [(0.0, 0.005), (0.002, 0.005), (0.01, 0.02), (0.2, 0.03)])
def test_the_tolerance_is_z_standard_errors_within_its_bounds(error, tolerance):
    assert tolerance_of(error, 2.0, 0.005, 0.03) == tolerance


# --------------------------------------------------------------------------------------------------------------------
# suggestions


def loss(kept, score):
    return penalised(kept, score, 0.88, 0.02, 0.005)


@PROPERTY
@given(shares, shares)
def test_of_two_shares_that_pass_the_smaller_is_better(one, other):
    low, high = sorted((one, other))
    if high > low * 1.001:
        assert loss(low, 0.99) < loss(high, 0.99)


@PROPERTY
@given(shares, shares, st.floats(0, 0.82))
def test_any_share_that_passes_is_better_than_any_that_fails_clearly(passing, failing, score):
    assert loss(max(passing, 0.005), 0.9) < loss(max(failing, 0.005), score)


@PROPERTY
@given(shares, st.floats(0, 1), st.floats(0, 1))
def test_a_better_score_is_never_a_worse_loss(kept, one, other):
    low, high = sorted((one, other))
    assert loss(kept, high) <= loss(kept, low)


def suggestions(answer, seed, of=TPE, count=12):
    """What is suggested on a step curve."""
    kept, losses = [1.0], [loss(1, 0.9)]
    for _ in range(count):
        kept.append(suggest(of, kept, losses, seed))
        losses.append(loss(kept[-1], 0.9 if kept[-1] >= answer else 0.3))
    return kept[1:]


def test_suggestions_depend_on_their_arguments_alone():
    np.random.seed(1)
    first = suggestions(0.1, 0, count=7)
    np.random.seed(2)
    assert suggestions(0.1, 0, count=7) == first
    assert not set(suggestions(0.1, 1, count=7)) & set(first)


@pytest.mark.parametrize("lower", [0.005, 0.3])
def test_suggestions_stay_between_the_lower_bound_and_1(lower):
    for answer in (0.001, 1.0):
        tried = suggestions(answer, 0, Search(search="tpe", lower=lower), 20)
        assert lower <= min(tried)
        assert max(tried) <= 1
        assert max(tried) / min(tried) > 2


def test_the_first_suggestions_are_random_and_the_later_ones_heed_the_losses():
    low, high = suggestions(0.01, 0), suggestions(0.5, 0)
    assert low[: TPE.startup] == high[: TPE.startup]
    assert not set(low[TPE.startup :]) & set(high[TPE.startup :])


def test_after_the_first_ones_suggestions_are_nearer_the_answer_than_random_ones():
    random = Search(search="tpe", startup=1000)

    def distance(of):
        tried = [(answer, share) for answer in (0.01, 0.05, 0.3) for seed in range(6)
                 for share in suggestions(answer, seed, of)[TPE.startup :]]  # fmt: skip
        return np.median([abs(np.log(share / answer)) for answer, share in tried])

    assert distance(TPE) < 0.85 * distance(random)


# --------------------------------------------------------------------------------------------------------------------
# the whole search


class Killed(Exception):  # noqa: N818 - no error
    """The machine went away."""


class Curve:
    """Attempts on a step curve: `answer` holds for brief retraining, `full_answer` for the full one of 8 epochs."""

    def __init__(self, answer, full_answer=None, noise=0.0, calls=None):
        self.answer, self.full_answer = answer, answer if full_answer is None else full_answer
        self.noise, self.left, self.seen = noise, calls, []

    def __call__(self, kept, epochs, seed):
        if self.left is not None and len(self.seen) >= self.left:
            raise Killed
        self.seen.append((kept, epochs, seed))
        right = kept >= (self.full_answer if epochs == 8 else self.answer) or kept == 1
        noise = self.noise * np.random.default_rng(seed).uniform(-1, 1)
        return Measured((0.9 if right else 0.4) + noise + 0.01 * (epochs == 8), 0.01)


@pytest.fixture
def log(tmp_path):
    return TrialLog(tmp_path / "trials.json", "key")


def find(attempt, log, of=TPE, limit=None, samples=1000, seed=0):
    return search(of, 8, attempt, limit, samples, seed, log)


def roles(trials):
    return [trial.role for trial in trials]


@pytest.mark.parametrize("noise", [0.0, 0.004])
@pytest.mark.parametrize("answer", [0.02, 0.1, 0.3, 0.8])
def test_the_search_finds_the_edge_of_a_step_within_a_factor_of_2(log, answer, noise):
    choice, _ = find(Curve(answer, noise=noise), log, THOROUGH)
    assert answer <= 1 - choice.ratio <= 2 * answer
    assert choice.ratio == choice.ratio_searched
    assert choice.confirmed
    assert not choice.capped
    assert choice.warnings == ()


def test_the_search_keeps_almost_nothing_where_everything_fits(log):
    choice, trials = find(Curve(0), log, THOROUGH)
    assert 1 - choice.ratio == pytest.approx(min(trial.kept_share for trial in trials))
    assert TPE.lower <= 1 - choice.ratio < 2 * TPE.lower


def test_the_search_releases_nothing_where_nothing_fits(log):
    choice, trials = find(Curve(1), log)
    assert choice.ratio == choice.ratio_searched == 0
    assert not choice.confirmed
    assert not choice.capped
    assert roles(trials) == ["reference"] + ["trial"] * TPE.trials


def test_failures_that_are_all_alike_do_not_lead_the_search_to_ever_smaller_shares(tmp_path):
    """Of broken networks with one score the smallest share has the least loss; the reference shows where to go."""
    late = []
    for seed in range(8):
        _, trials = find(Curve(0.99), TrialLog(tmp_path / f"{seed}.json", "key"), seed=seed)
        late += [trial.kept_share for trial in trials if trial.role == "trial" and trial.number > TPE.startup]
    assert np.median(late) > np.sqrt(TPE.lower)


@pytest.mark.parametrize(("answer", "searched"), [(0.5, (0.5, 1.0)), (1, (1, 1))])
def test_a_task_that_needs_more_than_its_cap_gets_the_cap_and_a_warning(log, answer, searched):
    choice, trials = find(Curve(answer), log, THOROUGH, limit=0.2)
    assert choice.ratio == 0.8
    assert choice.capped
    assert choice.cap == 0.2
    assert searched[0] <= 1 - choice.ratio_searched <= searched[1]
    assert len(choice.warnings) == 1
    assert "its cap allows 0.200" in choice.warnings[0]
    assert "confirmation" not in roles(trials)


def test_a_cap_that_is_not_reached_changes_nothing(log, tmp_path):
    free, _ = find(Curve(0.1), log, THOROUGH)
    bounded, _ = find(Curve(0.1), TrialLog(tmp_path / "other.json", "key"), THOROUGH, limit=0.5)
    assert (bounded.ratio, bounded.ratio_searched, bounded.capped) == (free.ratio, free.ratio_searched, False)


def test_the_reference_has_the_retraining_of_what_it_is_compared_with(log):
    _, trials = find(Curve(0.1), log)
    assert [(trial.kept_share, trial.epochs) for trial in trials if trial.role == "reference"] == [(1, 2)]
    assert [(trial.kept_share, trial.epochs) for trial in trials if trial.role == "full_reference"] == [(1, 8)]
    assert {trial.epochs for trial in trials if trial.role == "trial"} == {2}
    assert {trial.epochs for trial in trials if trial.role == "confirmation"} == {8}
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert all((trial.loss is not None) == (trial.role == "trial") for trial in trials)


def test_the_threshold_is_the_reference_minus_the_tolerance(log):
    choice, _ = find(Curve(0.1), log, Search(search="tpe", z=2))
    assert (choice.reference_score, choice.standard_error, choice.tolerance) == (0.9, 0.01, 0.02)
    assert choice.threshold == pytest.approx(0.88)


def test_a_share_that_fails_with_full_retraining_gives_way_to_a_larger_one(log):
    choice, trials = find(Curve(0.1, full_answer=0.2), log, THOROUGH)
    tried = [trial.kept_share for trial in trials if trial.role == "confirmation"]
    assert len(tried) > 1
    assert tried[0] < 0.2 <= tried[-1]
    steps = THOROUGH.confirmations
    assert tried == pytest.approx([tried[0] ** (1 - step / steps) for step in range(len(tried))])
    assert choice.confirmed
    assert 1 - choice.ratio == pytest.approx(tried[-1])


@pytest.mark.parametrize(("limit", "ratio"), [(None, 0), (0.5, 0.5)])
def test_where_no_confirmation_holds_the_task_gets_all_that_it_may_have(log, limit, ratio):
    choice, trials = find(Curve(0.01, full_answer=1), log, limit=limit)
    assert choice.ratio == ratio
    assert not choice.confirmed
    assert roles(trials).count("confirmation") == TPE.confirmations


def test_a_small_validation_split_is_warned_of(log):
    choice, _ = find(Curve(0.1), log, samples=20)
    assert len(choice.warnings) == 1
    assert "the validation split has 20 samples" in choice.warnings[0]


def test_the_search_depends_on_its_seed(log, tmp_path):
    first = find(Curve(0.1), log)
    assert find(Curve(0.1), TrialLog(tmp_path / "again.json", "key")) == first
    assert find(Curve(0.1), TrialLog(tmp_path / "other.json", "key"), seed=1)[1] != first[1]


@pytest.mark.parametrize("calls", [0, 1, 3, 8, TPE.trials + 1, TPE.trials + 2])
def test_a_search_that_was_killed_ends_as_if_it_had_not_been(tmp_path, calls):
    whole = Curve(0.1, noise=0.003)
    expected = find(whole, TrialLog(tmp_path / "whole.json", "key"))
    path = tmp_path / "trials.json"
    with pytest.raises(Killed):
        find(Curve(0.1, noise=0.003, calls=calls), TrialLog(path, "key"))
    rest = Curve(0.1, noise=0.003)
    assert find(rest, TrialLog(path, "key")) == expected
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


def test_trials_of_another_search_are_not_taken_over(tmp_path):
    path = tmp_path / "trials.json"
    find(Curve(0.5), TrialLog(path, "old"))
    new = Curve(0.1)
    expected = find(Curve(0.1), TrialLog(tmp_path / "other.json", "new"))
    assert find(new, TrialLog(path, "new")) == expected
    assert len(new.seen) == len(expected[1])


@pytest.mark.parametrize("content", ["", '{"key": "key", "tri', '{"key": "key", "trials": [{"odd": 1}]}', "[]"])
def test_a_log_that_cannot_be_read_is_as_good_as_none(tmp_path, content):
    path = tmp_path / "trials.json"
    path.write_text(content)
    attempt = Curve(0.1)
    _, trials = find(attempt, TrialLog(path, "key"))
    assert len(attempt.seen) == len(trials)


def test_a_log_is_gone_once_it_is_removed(tmp_path):
    log = TrialLog(tmp_path / "deep/trials.json", "key")
    find(Curve(0.1), log)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["trials.json"]
    log.remove()
    log.remove()
    assert list((tmp_path / "deep").iterdir()) == []


# --------------------------------------------------------------------------------------------------------------------
# the cap


@PROPERTY
@given(st.integers(1, 30), st.integers(1, 60), st.floats(0.01, 0.99))
def test_tasks_that_use_their_cap_share_the_network_equally_up_to_the_last_but_one(expected, count, tail):
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

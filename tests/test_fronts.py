"""Methods against fixed ratios: at equal bytes, at equal score and in hindsight, by hand."""

import importlib.util
import math
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from acll.config.checks import parse
from acll.evaluation.findings import fixed_ratio_findings
from acll.evaluation.front_figures import fronts_figure
from acll.evaluation.fronts import (
    AGAINST_COLUMNS,
    FRONT_COLUMNS,
    OVER_COLUMNS,
    against_fixed_table,
    bytes_at,
    front_table,
    over_sequences,
    score_at,
    stand_ins,
)
from acll.evaluation.statistics import interval
from acll.evaluation.style import save_figure
from acll.plan import plan
from conftest import ROOT

NAN = math.nan
SIZES, SCORES = np.array([100.0, 400.0, 1600.0]), np.array([0.6, 0.7, 0.8])
FIXED = {"f90": "learned", "f75": "learned", "f50": "learned"}
SMALL = {"f90": (100, 0.6), "f75": (400, 0.7), "f50": (1600, 0.8)}


def runs_of(methods, sequence="one", seed=0, order="a+b", exact=True):
    """The table `runs`: of each method its bytes and its mean score; the worst is 0.1 below."""
    rows = []
    for method, (size, score) in methods.items():
        kind = "finetuning" if method == "fine" else "packing"
        names = {"sequence": sequence, "order": order, "method": method, "type": kind, "seed": seed}
        scores = {"mean_score": score, "worst_score": score - 0.1, "last_score": score}
        rest = {"bytes": size, "capacity": size / 1600, "bit_exact": exact and method != "fine"}
        rows.append(names | scores | rest)
    return pd.DataFrame(rows)


def of_method(table, method, **where):
    """The one row of a method."""
    found = table[table["method"] == method]
    for key, value in where.items():
        found = found[found[key] == value]
    (row,) = found.to_dict("records")
    return row


# --------------------------------------------------------------------------------------------------
# between the points, and beyond them


def test_a_front_is_linear_in_log_bytes_between_its_points():
    assert score_at(200, SIZES, SCORES) == pytest.approx(0.65)  # half way from 100 to 400
    assert score_at(800, SIZES, SCORES) == pytest.approx(0.75)
    assert score_at(400, SIZES, SCORES) == pytest.approx(0.7)


def test_a_front_says_nothing_beyond_its_ends():
    assert np.isnan([score_at(99, SIZES, SCORES), score_at(1601, SIZES, SCORES)]).all()
    assert [score_at(size, SIZES, SCORES) for size in (100, 1600)] == pytest.approx([0.6, 0.8])


def test_bytes_at_a_score_are_the_fewest_with_which_the_front_reaches_it():
    assert bytes_at(0.65, SIZES, SCORES) == pytest.approx(200)
    assert [bytes_at(score, SIZES, SCORES) for score in SCORES] == pytest.approx(SIZES)
    level = np.array([0.6, 0.7, 0.7])
    assert bytes_at(0.7, SIZES, level) == pytest.approx(400)
    assert np.isnan([bytes_at(0.59, SIZES, SCORES), bytes_at(0.81, SIZES, SCORES)]).all()


def test_a_front_of_one_point_knows_that_point_alone():
    one = SIZES[:1], SCORES[:1]
    assert (score_at(100, *one), bytes_at(0.6, *one)) == (0.6, 100)
    assert np.isnan([score_at(101, *one), bytes_at(0.61, *one), bytes_at(0.59, *one)]).all()


# --------------------------------------------------------------------------------------------------
# tables


def test_a_method_between_two_points_is_compared_at_equal_bytes_and_at_equal_score():
    front = front_table(runs_of(SMALL | {"ours": (200, 0.68)}), FIXED)
    assert tuple(front.columns) == FRONT_COLUMNS
    ours = of_method(front, "ours")
    assert (ours["front"], ours["on_front"]) == ("learned", False)
    assert ours["front_mean_score"] == pytest.approx(0.65)
    assert ours["difference"] == pytest.approx(0.03)
    assert ours["front_worst_score"] == pytest.approx(0.55)
    assert ours["worst_difference"] == pytest.approx(0.03)
    # 0.68 is four fifths of the way from 0.6 to 0.7, so of that from 100 to 400 bytes
    assert ours["front_bytes"] == pytest.approx(100 * 4**0.8)
    assert ours["bytes_ratio"] == pytest.approx(4**0.5 / 4**0.8)
    for method in FIXED:
        row = of_method(front, method)
        assert row["on_front"]
        assert np.isnan([row["front_mean_score"], row["difference"], row["bytes_ratio"]]).all()


def test_beyond_the_ends_cells_are_empty_and_runs_are_not_counted():
    methods = SMALL | {"tiny": (99, 0.65), "large": (1601, 0.75), "best": (800, 0.9)}
    front = front_table(runs_of(methods), FIXED)
    for method in ("tiny", "large"):
        row = of_method(front, method)
        assert np.isnan([row["front_mean_score"], row["difference"], row["worst_difference"]]).all()
        assert row["front_bytes"] > 0  # their score is one that the front reaches
    assert of_method(front, "best")["difference"] == pytest.approx(0.15)
    assert np.isnan(of_method(front, "best")["bytes_ratio"])  # no fixed ratio scores as high
    against = against_fixed_table(front)
    told = {row["method"]: (row["compared"], row["matched"]) for row in against.to_dict("records")}
    assert (told["tiny"], told["large"], told["best"]) == ((0, 1), (0, 1), (1, 0))


def test_where_a_smaller_ratio_scores_higher_it_stands_in_for_a_larger_one():
    full = SMALL | {"f75": (400, 0.8), "f50": (1600, 0.7), "ours": (800, 0.78)}
    ours = of_method(front_table(runs_of(full), FIXED), "ours")
    assert ours["front_mean_score"] == pytest.approx(0.8)
    assert ours["difference"] == pytest.approx(-0.02)
    assert ours["front_bytes"] == pytest.approx(100 * 4**0.9)  # below 400 nothing stands in


def test_what_stands_in_is_known_from_means_over_runs_not_from_luck_in_one():
    lucky = runs_of(SMALL | {"f50": (1600, 0.68), "ours": (1600, 0.7)}, seed=0)
    other = runs_of(SMALL | {"f50": (1600, 0.74), "ours": (1600, 0.7)}, seed=1)
    runs = pd.concat([lucky, other])
    fixed = runs[runs["method"].isin(FIXED)]
    assert stand_ins(fixed, "mean_score") == {name: name for name in FIXED}
    assert set(stand_ins(fixed[fixed["seed"] == 0], "mean_score").values()) == {"f90", "f75"}
    front = front_table(runs, FIXED)
    differences = [of_method(front, "ours", seed=seed)["difference"] for seed in (0, 1)]
    assert differences == pytest.approx([0.02, -0.04])  # f75, which has 0.7, stands in nowhere


def test_fronts_do_not_mix_rankings():
    methods = SMALL | {"l75": (400, 0.5), "l50": (1600, 0.6), "ours": (800, 0.7)}
    front = front_table(runs_of(methods), FIXED | {"l75": "layer", "l50": "layer"})
    rankings = ("learned", "layer")
    found = {name: of_method(front, "ours", front=name)["difference"] for name in rankings}
    assert found == pytest.approx({"learned": -0.05, "layer": 0.15})
    # ratios of one front are compared with the other
    assert of_method(front, "l50", front="learned")["difference"] == pytest.approx(-0.2)
    assert np.isnan(of_method(front, "l50", front="layer")["difference"])
    best = against_fixed_table(front).groupby("front")["best"].agg(set).to_dict()
    assert best == {"learned": {"f50"}, "layer": {"l50"}}


def test_with_one_fixed_ratio_there_is_regret_but_no_difference():
    front = front_table(runs_of({"f90": (100, 0.6), "ours": (200, 0.58)}), {"f90": "learned"})
    ours = of_method(against_fixed_table(front), "ours")
    assert (ours["compared"], ours["best"]) == (0, "f90")
    assert np.isnan(ours["difference"])
    assert ours["regret"] == pytest.approx(0.02)
    assert fixed_ratio_findings(front, against_fixed_table(front)) == []


def test_without_a_fixed_ratio_the_tables_are_empty():
    front = front_table(runs_of({"ours": (200, 0.58)}), {})
    assert (len(front), tuple(front.columns)) == (0, FRONT_COLUMNS)
    against, over = against_fixed_table(front), over_sequences(front)
    assert (len(against), tuple(against.columns)) == (0, AGAINST_COLUMNS)
    assert (len(over), tuple(over.columns)) == (0, OVER_COLUMNS)
    assert fixed_ratio_findings(front, against) == []


def two_sequences():
    """Runs of two sequences from two seeds: which ratio is best differs."""
    easy = SMALL | {"f50": (1600, 0.78)}
    hard = SMALL | {"f90": (100, 0.66), "f50": (1600, 0.58), "f75": (400, 0.68)}
    parts = [
        runs_of(easy | {"ours": (200, 0.68), "fine": (1600, 0.3)}, "easy", 0),
        runs_of(easy | {"ours": (200, 0.70), "fine": (1600, 0.3)}, "easy", 1),
        runs_of(hard | {"ours": (200, 0.70), "fine": (1600, 0.3)}, "hard", 0),
        runs_of(hard | {"ours": (1700, 0.72), "fine": (1600, 0.3)}, "hard", 1),
    ]
    return pd.concat(parts, ignore_index=True)


def test_means_over_runs_have_intervals_and_regret_is_below_the_best_in_hindsight():
    against = against_fixed_table(front_table(two_sequences(), FIXED))
    easy, hard = (of_method(against, "ours", sequence=name) for name in ("easy", "hard"))
    assert (easy["runs"], easy["compared"], easy["better"]) == (2, 2, 2)
    assert [easy[key] for key in ("difference", "low", "high")] == pytest.approx(
        interval([0.03, 0.05])
    )
    assert [easy[f"worst_{key}"] for key in ("difference", "low", "high")] == pytest.approx(
        interval([0.03, 0.05])
    )
    # bytes compare by factors: 0.68 and 0.7 take the front 100 * 4 ** 0.8 and 400 bytes
    keys = ("bytes_ratio", "bytes_ratio_low", "bytes_ratio_high")
    logs = [np.log(4**-0.3), np.log(4**-0.5)]
    assert [easy[key] for key in keys] == pytest.approx(np.exp(interval(logs)))
    assert easy["best"] == "f50"
    keys = ("regret", "regret_low", "regret_high")
    assert [easy[key] for key in keys] == pytest.approx(interval([0.1, 0.08]))
    assert (hard["runs"], hard["compared"], hard["better"], hard["best"]) == (2, 1, 1, "f75")
    assert hard["regret"] == pytest.approx(0.68 - 0.71)
    worst = against.groupby("method")["worst_regret"].agg(set).to_dict()
    assert {method: values.pop() for method, values in worst.items()} == pytest.approx(
        {"ours": 0.09, "f90": 0.18, "f75": 0.08, "f50": 0.1, "fine": 0.48}
    )


def test_over_sequences_each_counts_once_and_the_worst_regret_is_named():
    front = front_table(two_sequences(), FIXED)
    ours = of_method(over_sequences(front), "ours")
    assert (ours["sequences"], ours["compared"], ours["runs"]) == (2, 2, 3)
    # easy: 0.04 in the mean; hard: half way from 0.66 to 0.68, the other run is beyond the end
    keys = ("difference", "low", "high")
    assert [ours[key] for key in keys] == pytest.approx(interval([0.04, 0.03]))
    keys = ("runs_difference", "runs_low", "runs_high")
    assert [ours[key] for key in keys] == pytest.approx(interval([0.03, 0.05, 0.03]))
    assert (ours["worst_regret"], ours["worst_in"]) == (pytest.approx(0.09), "easy")
    assert ours["bytes_ratio"] == pytest.approx(4**-0.4)  # in the other no ratio scores as high
    fixed = of_method(over_sequences(front), "f75")
    assert (fixed["compared"], fixed["worst_in"]) == (0, "easy")
    assert np.isnan(fixed["difference"])


# --------------------------------------------------------------------------------------------------
# in the plan, the figure, the findings, over several results


def configuration(methods):
    digits = {"source": "digits", "image_size": 8}
    return parse(
        {
            "name": "x",
            "tasks": {"a": digits, "b": digits},
            "networks": {"small": {"backbone": "resnet_small"}},
            "sequences": {"both": {"network": "small", "tasks": ["a", "b"]}},
            "methods": methods,
        }
    )


def jobs_of(methods):
    return {job.title: job for job in plan(configuration(methods))}


def test_fixed_ratios_are_of_one_front_where_they_differ_in_nothing_else():
    pretrained = {"free_weights": "pretrained"}
    by_magnitude = pretrained | {"criterion": "magnitude"}
    jobs = jobs_of(
        {
            "told": {"ratio": 0.5, "distill": True} | pretrained,
            "f50": {"ratio": 0.5} | pretrained,
            "f90": {"ratio": 0.9} | pretrained,
            "packnet": {"ratio": 0.5, "release": "once"} | by_magnitude,
            "p50": {"ratio": 0.5} | by_magnitude,
            "p90": {"ratio": 0.9} | by_magnitude,
            "g50": {"ratio": 0.5, "scope": "global"} | by_magnitude,
            "all": {"ratio": 0.5, "reuse": "all"} | pretrained,
            "ours": {"ratio": {"search": "bayes"}},
            "fine": {"type": "finetuning"},
        }
    )
    assert jobs["tables"].params.fixed == {
        "told": "learned distill=true",
        "f50": "learned",
        "f90": "learned",
        "packnet": "layer release=once",
        "p50": "layer",
        "p90": "layer",
        "g50": "global",
        "all": "learned reuse=all",
    }
    assert sorted(jobs["figures"].params.fronts) == ["layer", "learned"]
    assert "figures/front.svg" in jobs["figures"].all_outputs
    assert {"tables/front.csv", "tables/against_fixed.csv"} <= set(jobs["tables"].all_outputs)


def test_without_two_fixed_ratios_of_a_front_no_figure_of_it_is_planned():
    jobs = jobs_of({"f50": {"ratio": 0.5}, "l50": {"ratio": 0.5, "criterion": "magnitude"}})
    assert jobs["figures"].params.fronts == []
    assert "figures/front.svg" not in jobs["figures"].all_outputs


def test_the_figure_has_the_front_and_what_does_not_forget(tmp_path):
    front = front_table(two_sequences(), FIXED)
    save_figure(fronts_figure(front), tmp_path / "front.svg")
    root = ET.parse(tmp_path / "front.svg").getroot()
    said = [one.text for one in root.iter() if one.tag.endswith("}title")]
    words = ["".join(one.itertext()) for one in root.iter() if one.tag.endswith("}text")]
    assert "ours: 0.6900, 200 bytes" in said
    assert "f75: 0.7000, 400 bytes" in said
    assert not [text for text in said if text.startswith("fine")]
    assert {"easy", "hard", "ours", "front of fixed ratios: learned"} <= set(words)
    assert words.count("f75") == 2


def test_a_fixed_ratio_that_is_alone_in_its_front_is_drawn_as_a_method(tmp_path):
    front = front_table(runs_of(SMALL | {"packnet": (800, 0.7)}), FIXED | {"packnet": "layer"})
    save_figure(fronts_figure(front), tmp_path / "front.svg")
    text = (tmp_path / "front.svg").read_text()
    assert "packnet: 0.7000, 800 bytes" in text
    assert "front of fixed ratios: layer" not in text


def test_the_findings_say_what_is_known_at_equal_bytes_and_in_hindsight():
    front = front_table(two_sequences(), FIXED)
    easy, hard = fixed_ratio_findings(front, against_fixed_table(front))
    assert easy == (
        "easy: at equal bytes the mean score of ours less that of the front of fixed ratios "
        "(learned) is +0.040 (−0.087 to +0.167), above 0 in 2 of 2 runs; it needs 0.57 times the "
        "bytes for the same score. In hindsight f50 would have been 0.090 better."
    )
    assert hard == (
        "hard: at equal bytes the mean score of ours less that of the front of fixed ratios "
        "(learned) is +0.030, above 0 in 1 of 1 runs (1 more beyond the ends). No fixed ratio "
        "would have been better; the best, f75, is 0.030 below it."
    )


def test_the_findings_say_where_nothing_is_known_at_equal_bytes():
    runs = runs_of(SMALL | {"ours": (50, 0.65), "large": (1700, 0.9)})
    front = front_table(runs, FIXED)
    ours, large = fixed_ratio_findings(front, against_fixed_table(front))
    assert ours == (
        "one: ours has fewer bytes than all of the front of fixed ratios (learned), or more than "
        "all; it needs 0.25 times the bytes for the same score. In hindsight f50 would have been "
        "0.150 better."
    )
    assert "or more than all. No fixed ratio" in large


@pytest.fixture
def script(monkeypatch, tmp_path):
    """benchmarks/fronts.py, which writes into a folder of the test."""
    path = ROOT / "benchmarks/fronts.py"
    spec = importlib.util.spec_from_file_location("benchmark_fronts", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "docs/benchmarks").mkdir(parents=True)
    monkeypatch.setattr(module, "DOCS", tmp_path / "docs")
    return module


def write_results(folder, runs, fixed):
    (folder / "tables").mkdir(parents=True)
    runs.to_csv(folder / "tables/runs.csv", index=False)
    front_table(runs, fixed).to_csv(folder / "tables/front.csv", index=False)
    return str(folder)


def test_the_benchmark_gathers_results_of_several_configurations(script, tmp_path, capsys):
    runs = two_sequences()
    folders = [
        write_results(tmp_path / f"results/{name}", own, FIXED)
        for name, own in runs.groupby("sequence")
    ]
    script.main(folders)
    docs = tmp_path / "docs"
    rows = pd.read_csv(docs / "benchmarks/fronts.csv")
    assert list(rows.columns) == [
        "sequence", "order", "seed", "method", "mean_score", "worst_score", "last_score", "bytes",
        "capacity", "bit_exact", "type", "front",
    ]  # fmt: skip
    assert len(rows) == len(runs)
    overall = pd.read_csv(docs / "benchmarks/fronts_overall.csv")
    pd.testing.assert_frame_equal(
        overall, over_sequences(front_table(runs, FIXED)), check_dtype=False
    )
    by_sequence = pd.read_csv(docs / "benchmarks/fronts_by_sequence.csv")
    assert len(by_sequence) == 2 * 5
    assert (docs / "fronts.svg").is_file()
    assert "ours" in capsys.readouterr().out


def test_the_benchmark_keeps_the_rows_of_other_sequences_and_seeds(script, tmp_path):
    """So that sequences can be run one after the other, seed by seed, and one of them again."""
    runs = two_sequences()
    parts = {}
    waiting = tmp_path / "docs/benchmarks/fronts_waiting.csv"
    for sequence, seed in (("easy", 0), ("hard", 0), ("hard", 1), ("easy", 1)):
        own = runs[(runs["sequence"] == sequence) & (runs["seed"] == seed)]
        parts[sequence, seed] = own
        for part in (own.iloc[:2], own):  # some methods first, which wait for the others
            if seed or len(part) == len(own):
                script.main([write_results(tmp_path / f"{sequence}{seed}{len(part)}", part, FIXED)])
                assert len(pd.read_csv(waiting)) == (len(part) if len(part) < len(own) else 0)
    again = parts["easy", 0].assign(mean_score=parts["easy", 0]["mean_score"] / 2)
    script.main([write_results(tmp_path / "again", again, FIXED)])
    ordered = [parts["easy", 1], again, parts["hard", 0], parts["hard", 1]]
    expected = pd.concat(ordered, ignore_index=True)
    rows = tmp_path / "docs/benchmarks"
    shown = ["sequence", "seed", "method", "mean_score"]
    pd.testing.assert_frame_equal(pd.read_csv(rows / "fronts.csv")[shown], expected[shown])
    overall = pd.read_csv(rows / "fronts_overall.csv")
    pd.testing.assert_frame_equal(
        overall, over_sequences(front_table(expected, FIXED)), check_dtype=False
    )


def test_sequences_need_not_have_the_same_fronts(script, tmp_path):
    one = write_results(tmp_path / "one", runs_of(SMALL, "one", 0), FIXED)
    other_front = dict.fromkeys(FIXED, "channel")
    two = write_results(tmp_path / "two", runs_of(SMALL, "two", 0), other_front)
    script.main([one, two])
    drawn = (tmp_path / "docs/fronts.svg").read_text()
    assert "front of fixed ratios: channel" in drawn


def test_the_benchmark_makes_no_figure_without_a_fixed_ratio(script, tmp_path, capsys):
    script.main([write_results(tmp_path / "one", runs_of({"ours": (200, 0.6)}), {})])
    assert "no front, and no figure" in capsys.readouterr().out
    assert not (tmp_path / "docs/fronts.svg").exists()
    assert len(pd.read_csv(tmp_path / "docs/benchmarks/fronts.csv")) == 1


def test_the_benchmark_refuses_a_sequence_that_two_results_have(script, tmp_path):
    folders = [write_results(tmp_path / name, runs_of(SMALL), FIXED) for name in ("one", "two")]
    with pytest.raises(SystemExit, match=r"sequence one is in .*one and in .*two"):
        script.main(folders)

"""Write the tables of README and docs/ from the rows in docs/benchmarks/.

    python benchmarks/docs_tables.py

A page has the table NAME between the lines `<!-- table: NAME -->` and `<!-- end of table -->`.
Nothing is measured here: each page says by which command its rows were. With `--check` no file is
written, and the exit code is 1 if a table is not what its rows say.
"""

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from curves import crossing
from scipy.stats import spearmanr

from acll.cluster.demands import epochs_of
from acll.config.checks import load_configuration, parse
from acll.config.tree import runs as runs_of
from acll.evaluation.comparison import by_node, paired_table, runs_table, summary_table
from acll.evaluation.fronts import REFERENCE_FRONT
from acll.evaluation.statistics import interval
from acll.evaluation.tables import COLUMNS
from acll.evaluation.words import METRIC_WORDS
from acll.plan import plan
from acll.search.choice import tolerance_of
from acll.search.settings import Search

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "docs/benchmarks"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TABLE = re.compile(r"(?<=<!-- table: )(\w+)( -->\n)(?:.*?\n)??(?=<!-- end of table -->)", re.DOTALL)
PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
METHODS = {
    "individual": "individual: a network for each task",
    "joint": "joint: all tasks at once",
    "adaptive": "**adaptive**: the ratio is searched",
    "packnet50": "packnet50: half of each layer is released",
    "packnet75": "packnet75: three quarters of each layer are released",
    "packnet90": "packnet90: nine tenths of each layer are released",
    "fixed75": "fixed75: by scores, a quarter is kept",
    "fixed90": "fixed90: by scores, a tenth is kept",
    "fixed97": "fixed97: by scores, 3% are kept",
    "global75": "global75: by magnitude, step by step, a quarter of all is kept",
    "global90": "global90: by magnitude, step by step, a tenth of all is kept",
    "global97": "global97: by magnitude, step by step, 3% of all are kept",
    "decay": "decay: the rule of CLsurvey and FACIL",
    "wsn10": "wsn10: winning subnetworks, a tenth of each layer",
    "wsn50": "wsn50: winning subnetworks, half of each layer",
    "lwf": "lwf",
    "ewc": "ewc",
    "frozen": "frozen: new heads only",
    "finetune": "finetune: plain fine-tuning",
}


_RULES = ("chance", "nearest mean", "confidence", "statistics", "both")
_HARD = ("gtsrb", "cifar10")  # of the tasks of the benchmark of growth


def rows(name: str) -> pd.DataFrame:
    return pd.read_csv(ROWS / f"{name}.csv")


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table; its first line is empty, as Markdown wants it behind a comment."""
    lines = [head, ["---"] * len(head), *body]
    text = (f"| {' | '.join(line)} |" for line in lines)
    return "\n" + "\n".join(re.sub(r"\|  (?=\|)", "| ", line) for line in text)


def number(value: float, digits: int = 3, sign: str = "") -> str:
    if pd.isna(value):
        return ""
    text = f"{value:{sign}.{digits}f}"
    return "0" if value == 0 else text.replace("-", "−")


def percent(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.0%}"


def demo() -> str:
    tasks = {"classify": "classification (accuracy)", "segment": "segmentation (mean IoU)"}
    methods = {
        "adaptive": "**adaptive**",
        "packnet50": "a fixed half",
        "finetune": "fine-tuning",
    }
    body = [
        (
            tasks[row.sequence],
            methods[row.method],
            number(row.mean_score),
            number(row.worst_score),
            "nothing" if row.bit_exact else number(row.mean_forgetting),
            percent(row.free_share),
            percent(row.size),
        )
        for row in rows("demo").itertuples()
    ]
    head = ("three tasks", "method", "mean score", "worst task", "forgotten", "free", "size")
    return markdown(head, body)


@cache
def compared(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The summary and the paired differences of a configuration whose scores are in docs/."""
    scores = rows(name)
    known = set(scores["method"])
    whole = load_configuration(ROOT / f"config/{name}.yaml")
    runs = [run for run in runs_of(whole) if run.method in known]
    curves = pd.DataFrame(columns=["network", "method", "seed", "prefix", "epoch", "score"])
    # some rows are older than a column, which is empty then
    scores = scores.reindex(columns=list(COLUMNS))
    each = runs_table(by_node(scores), runs, curves)
    # the file says 0 for tasks that were learned at once: nothing can be forgotten of them
    each.loc[each["type"] == "joint", "mean_forgetting"] = np.nan
    return summary_table(each), paired_table(each)


def summary(name: str) -> str:
    found, _ = compared(name)
    order = found.sort_values("mean_score", ascending=False, kind="stable")
    body = [
        (
            METHODS[row["method"]],
            with_half(row, "mean_score"),
            with_half(row, "worst_score"),
            number(row["mean_forgetting"]),
            number(row["size"], 2),
            percent(row["free_share"]),
        )
        for row in order.to_dict("records")
    ]
    return markdown(
        ("method", "mean score", "worst task", "forgetting", "size, in separate networks", "free"),
        body,
    )


def with_half(row: dict, figure: str) -> str:
    half = row[f"{figure}_high"] - row[figure]
    return number(row[figure]) + ("" if pd.isna(half) else f"{PLUS_MINUS}{half:.3f}")


def paired(name: str) -> str:
    """Adaptive less each other method."""
    _, found = compared(name)
    one = found[(found["method"] == "adaptive") | (found["other"] == "adaptive")]
    body = []
    others = dict.fromkeys([*one["method"], *one["other"]])
    for other in METHODS:
        if other == "adaptive" or other not in others:
            continue
        cells = [f"`{other}`"]
        for figure in ("mean_score", "worst_score"):
            both = (one["method"] == other) | (one["other"] == other)
            row = one[both & (one["figure"] == figure)].iloc[0]
            values = row[["difference", "low", "high"]].astype(float)
            if row["method"] == other:
                values = -values[["difference", "high", "low"]]
            mean, low, high = values
            cells.append(f"{number(mean, 3, '+')} ({number(low)} to {number(high)})")
        body.append(cells)
    return markdown(("adaptive less", "mean score", "worst task"), body)


def search_quality() -> str:
    table = rows("search_quality")
    factor = table["kept"] / table["sweep_kept"]
    table = table.assign(
        factor=np.exp(np.log(factor).abs()),
        near=factor.between(1 / 1.5, 1.5),
        holds=table["score"] >= table["reference_score"] - 2 * table["standard_error"],
    )
    constant = table.loc[table["strategy"] == "constant", "kept"].iloc[0]
    names = {
        "sweep_again": "one sweep against the other: the noise",
        "sweep": "both sweeps: the answer",
        "constant": f"the best constant ({constant:.3f})",
        "bayes": "**bayes**",
    }
    body = []
    strategies = [name for name in dict.fromkeys(table["strategy"]) if name not in names]
    for name in ("sweep_again", "sweep", "constant", "bayes", *strategies):
        own = table[table["strategy"] == name]
        of_itself = name == "sweep"
        tested, inside = own["score"].notna().sum(), own["inside"].dropna().astype(bool)
        held = f"{own['holds'].sum()} of {tested}" if tested else ""
        body.append(
            (
                names.get(name, name),
                "" if of_itself else f"{own['near'].sum()} of {len(own)}",
                "" if of_itself else f"{own['factor'].median():.2f}",
                held,
                number(own["cost"].median(), 2),
                f"{inside.sum()} of {len(inside)}" if len(inside) else "",
            )
        )
    head = ("kept share chosen by", "within a factor of 1.5 of the sweeps", "median factor")
    head = (*head, "test score holds", "median cost", "answer in the interval")
    return markdown(head, body)


def release_path() -> str:
    """Which share of each task reaches its dense network, with either length of the release."""
    table, settings, body = rows("release_path"), Search(search="bayes"), []
    bounds = settings.z, settings.min_tolerance, settings.max_tolerance
    for task, own in table.groupby("task", sort=False):
        (dense,) = own[own["variant"] == "dense"].itertuples()
        threshold = dense.score - tolerance_of(dense.standard_error, *bounds)
        found = {}
        for variant in ("path", "long_path"):
            tried = own[own["variant"] == variant]
            found[variant] = crossing(tried["kept"].tolist(), tried["score"].tolist(), threshold)
        per_root = found["path"] * math.sqrt(dense.free)
        body.append((task, *(number(share) for share in found.values()), f"{per_root:.0f}"))
    head = ("task", "6 epochs each", "8 and 4", "weights, as a multiple of √n, 6 epochs each")
    return markdown(head, body)


def retraining() -> str:
    """Mean test scores over tasks and seeds, by density and variant."""
    table = rows("retraining")
    wide = table.pivot_table(index="density", columns="variant", values="score")
    names = ("once_short", "once_long", "gradual_long", "gradual_long_distilled")
    body = [
        (f"{density:g}", *(number(wide.loc[density, name]) for name in names))
        for density in wide.index
    ]
    return markdown(("kept", *(f"`{name}`" for name in names)), body)


def distillation() -> str:
    """Mean validation scores by kept share, without and with distillation."""
    index = ["task", "seed", "kept"]
    wide = rows("distillation").pivot(index=index, columns="distill", values="score")
    body = []
    for share, own in wide.groupby("kept"):
        gains = 100 * (own[True] - own[False])
        better = f"{(gains > 0).sum()} of {len(gains)}"
        cells = (number(own[way].mean()) for way in (False, True))
        body.append((f"{share:g}", *cells, number(gains.mean(), 1, "+"), better))
    return markdown(("kept", "without", "with", "gain, points", "better in"), body)


def training_settings() -> str:
    """Mean validation scores of dense networks with a setting, and their difference to defaults."""
    means = rows("training_settings").groupby(["setting", "task"], sort=False)["score"].mean()
    table = means.unstack()
    gains = 100 * (table - table.loc["defaults"])
    body = []
    for setting in table.index:
        cells = []
        for task in table:
            if pd.isna(table.loc[setting, task]):
                cells.append("")
            elif setting == "defaults":
                cells.append(number(table.loc[setting, task]))
            else:
                cells.append(number(gains.loc[setting, task], 1, "+"))
        body.append((f"`{setting}`" if ":" in setting else setting, *cells))
    return markdown(("", *table), body)


def board() -> str:
    """Seconds of a training with and without TensorBoard."""
    seconds = rows("board").groupby("watched")["seconds"].median()
    cells = number(seconds[False], 1), number(seconds[True], 1)
    head = ("a training alone, s", "watched, s", "ratio")
    return markdown(head, [(*cells, number(seconds[True] / seconds[False], 2))])


def search_metrics() -> str:
    """Kept shares of searches by other metrics, and of sweeps by the same."""
    body = [
        (
            row.task,
            METRIC_WORDS[row.metric],
            str(row.seed),
            number(row.kept),
            number(row.sweep_kept),
            f"{number(row.first_sweep_kept)}, {number(row.second_sweep_kept)}",
            "yes" if row.inside else "no",
            number(row.cost, 2),
        )
        for row in rows("search_metrics").itertuples()
    ]
    head = ("task", "metric", "seed", "search", "both sweeps", "each", "in the interval", "cost")
    return markdown(head, body)


def recognition() -> str:
    """How often each rule names the right task of an image of a test split."""
    found = rows("recognition")
    shown = found[found["split"] == "test"]
    by = ["results", "tasks"]
    right = shown.groupby([*by, "rule"], sort=False)["right"].mean().unstack()[list(_RULES)]
    sure = shown[shown["rule"] == "both"].groupby(by, sort=False)["confidence"].mean()
    networks = shown.groupby(by, sort=False)["network"].nunique()
    body = [
        (
            f"`{place[0]}`",
            str(place[1]),
            str(networks[place]),
            *(percent(right.loc[place, rule]) for rule in _RULES),
            percent(sure[place]),
        )
        for place in networks.index
    ]
    return markdown(("", "tasks", "networks", *_RULES, "mean confidence"), body)


def calibration() -> str:
    """Calibration errors of test splits without and with temperatures, as means over tasks."""
    means = rows("calibration").groupby("results", sort=False)
    body = [
        (
            f"`{name}`",
            str(own["task"].nunique()),
            number(own["before"].mean()),
            number(own["after"].mean()),
            f"{(own['after'] < own['before']).mean():.0%}",
        )
        for name, own in means
    ]
    return markdown(("", "tasks", "without", "with", "better"), body)


def ratio_of(row: Any) -> str:
    """A ratio, with the smallest and the largest of the rounds."""
    spread = f"{number(row.ratio_lowest, 2)} to {number(row.ratio_highest, 2)}"
    return f"{number(row.ratio, 2)} ({spread})"


def layouts() -> str:
    """Seconds of a training step with other memory layouts, and compiled."""
    body = []
    for row in rows("layouts").itertuples():
        ratio = "" if row.variant == "plain" else ratio_of(row)
        cells = (f"{1000 * row.step_seconds:.0f}", ratio, f"{row.first_seconds:.2f}")
        body.append((row.network, row.variant.replace("_", "-"), *cells))
    return markdown(("network", "variant", "a step, ms", "ratio", "first step, s"), body)


def step() -> str:
    """The time of a training step of each kind, by that of a plain loop of PyTorch."""
    names = {
        "plain": "a plain loop of PyTorch",
        "masked": "earlier tasks' weights frozen",
        "learned": "and scores learned (the default)",
        "global": "released by magnitude, in the whole network",
        "layer": "released by magnitude, in each layer",
        "channel": "released by channels",
        "distilled": "with distillation",
    }
    table = rows("step")
    networks = table["network"].unique()
    body = []
    for variant, words in names.items():
        own = table[table["variant"] == variant].set_index("network").loc[networks]
        if variant == "plain":
            cells = [f"{1000 * seconds:.0f} ms" for seconds in own["step_seconds"]]
        else:
            cells = [ratio_of(row) for row in own.itertuples()]
        body.append((words, *cells))
    return markdown(("", *networks), body)


def reuse() -> str:
    """Test scores with all of earlier tasks' weights and with those that were chosen."""
    table, body = rows("reuse"), []
    for (sequence, task), own in table.groupby(["sequence", "task"], sort=False):
        wide = own.pivot(index="seed", columns="variant")
        tests, left_out = wide["test"], wide["left_out"]["chosen"]
        gains = 100 * (tests["chosen"] - tests["all"])
        each = ", ".join(number(gain, 1, "+") for gain in gains)
        cells = [number(tests[variant].mean()) for variant in ("all", "chosen")]
        kept = f"{(left_out > 0).sum()} of {len(left_out)}"
        share = percent(left_out[left_out > 0].mean())
        body.append(
            (sequence, task, *cells, f"{number(gains.mean(), 1, '+')} ({each})", kept, share)
        )
    head = ("sequence", "task", "`all`", "`chosen`", "gain, points", "choices kept", "left out")
    return markdown(head, body)


def adaptivity() -> str:
    named = {"dataset": {0.0: "mnist", 1.0: "cifar10"}}
    body = []
    for factor, own in rows("adaptivity").groupby("factor", sort=False):
        medians = own.groupby("level")["kept_share"].median()
        levels = [named.get(factor, {}).get(level, f"{level:,g}") for level in medians.index]
        found = spearmanr(own["level"], own["kept_share"])
        body.append(
            (
                factor,
                ", ".join(levels),
                ", ".join(number(share) for share in medians),
                number(found.statistic, 2, "+"),
                number(found.pvalue, 2),
            )
        )
    head = ("varied", "levels", "median kept share, in this order", "rank correlation")
    return markdown((*head, "its p-value"), body)


def growth() -> str:
    table = rows("growth").sort_values("position")
    body = []
    for (sequence, method), own in table.groupby(["sequence", "method"], sort=False):
        runs = own.groupby("seed")
        last = runs.last()
        missed = own["capped"].isin([True]).groupby(own["seed"]).sum()
        packs = method != "individual"
        sizes = last["bytes"] if packs else runs["bytes"].sum()
        body.append(
            (
                sequence.replace("_", " "),
                method.replace("_", " "),
                number(runs["score"].mean().mean()),
                *(number(own.loc[own["task"] == task, "score"].mean()) for task in _HARD),
                ", ".join(map(str, missed)) if packs else "",
                ", ".join(f"{width:g}" for width in last["width"]),
                percent(last["free_share"].mean()),
                f"{sizes.mean() / 1e3:.0f} kB",
            )
        )
    head = ("order", "method", "mean score", *_HARD, "tasks that miss their goal", "width", "free")
    return markdown((*head, "file"), sorted(body))


def permuted_mnist() -> str:
    table = rows("permuted_mnist")
    runs = table.groupby(["method", "seed"])["score"].agg(["mean", "min"])
    body = [
        (name, *(mean_and_half(runs.loc[name][column]) for column in ("mean", "min")))
        for name in dict.fromkeys(table["method"])
    ]
    difference = runs.loc["adaptive"] - runs.loc["equal"]
    paired_cells = (mean_and_half(difference[column], "+") for column in ("mean", "min"))
    body.append(("adaptive less equal, run by run", *paired_cells))
    return markdown(("method", "mean of ten tasks", "worst task"), body)


def mean_and_half(values: "pd.Series[float]", sign: str = "") -> str:
    mean, _, high = interval(values.tolist())
    return f"{number(mean, 3, sign)}{PLUS_MINUS}{high - mean:.3f}"


def data_loading() -> str:
    """Images a second of each loader, by augmentation."""
    groups = rows("data").groupby(["dataset", "augmentation", "loader"], sort=False)
    medians = groups["images_per_second"].median().unstack()
    body = [
        (
            f"{dataset}, `[{augmentation}]`",
            f"{own['acll']:,.0f}",
            f"{own['imagefolder_dataloader_2']:,.0f}",
            f"{own['acll'] / own['imagefolder_dataloader_2']:.1f}",
        )
        for (dataset, augmentation), own in medians.iterrows()
    ]
    return markdown(("images a second", "acll", "ImageFolder and DataLoader", "ratio"), body)


def augmenting() -> str:
    """Images a second of each augmentation, by size and library."""
    groups = rows("augmentation").groupby(["augmentation", "size", "library"], sort=False)
    wide = groups["images_per_second"].median().unstack(["size", "library"])
    body = [
        (f"`{name}`", *("" if pd.isna(rate) else f"{rate:,.0f}" for rate in own))
        for name, own in wide.iterrows()
    ]
    return markdown(("", *(f"{library}, {size}" for size, library in wide)), body)


def data_preparing() -> str:
    body = [
        (
            f"{row.images:,}",
            f"{row.folder_mb:,} MB",
            str(row.processes),
            f"{row.limit_mb:,} MB",
            f"{row.peak_mb:,} MB",
            f"{row.seconds:.0f} s",
        )
        for row in rows("preparation").itertuples()
    ]
    head = ("images", "folder", "processes that decode", "memory allowed", "memory used at most")
    return markdown((*head, "time"), body)


@cache
def inference() -> "pd.Series[float]":
    """Values by (network, task, variant, quantity)."""
    table = rows("inference")
    return table.set_index(["network", "task", "variant", "quantity"])["value"]


def measured(*place: str) -> float:
    return float(inference().get(place, float("nan")))


def networks(variant: str, quantity: str) -> list[tuple[str, str]]:
    """The networks and tasks of which this was measured."""
    table = rows("inference")
    own = table[(table["variant"] == variant) & (table["quantity"] == quantity)]
    return list(own[["network", "task"]].itertuples(index=False, name=None))


def data_series() -> str:
    body = [
        (str(row.tasks), f"{row.source_seconds:.0f} s", f"{row.variants_seconds:.0f} s",
         f"{row.ratio:.2f}")
        for row in rows("series").itertuples()
    ]  # fmt: skip
    head = ("permutations of MNIST", "decoding its 70,000 images", "all permutations, one after "
            "another", "both, times the decoding alone")  # fmt: skip
    return markdown(head, body)


def inference_loading() -> str:
    body = []
    for network, task in networks("packed", "load_ms"):
        body.append(
            (
                network,
                task,
                number(measured(network, task, "state_dict", "load_ms"), 0),
                number(measured(network, task, "packed", "load_ms"), 0),
                number(measured(network, task, "packed", "load_ratio"), 2),
                number(measured(network, task, "packed", "load_ratio_one_thread"), 2),
                number(measured(network, task, "packed", "switch_ms"), 0),
                megabytes(measured(network, task, "packed", "bytes_so_far")),
                number(measured(network, task, "packed", "size_ratio"), 2),
            )
        )
    head = ("network, pruned by", "task", "state dict, ms", "packed, ms", "ratio")
    head += ("ratio, one thread", "switch, ms", "bytes so far", "of separate networks")
    return markdown(head, body)


def file_size() -> str:
    """The bytes of a file by part, in bits a weight, and how long it takes to load."""
    parts = ("weights", "owners", "private", "header", "all")
    table = rows("file_size")
    body = []
    for case, own in table.groupby("case", sort=False):
        bits, whole = own.set_index("part")["bits_per_weight"], own.iloc[-1]
        cells = [case, percent(whole["owned_share"]), *(number(bits[part], 2) for part in parts)]
        times = (whole["state_dict_ms"], whole["packed_ms"])
        cells += [number(whole["of_networks"], 2), *(number(time, 0) for time in times)]
        body.append(cells)
    head = ("", "owned", "weights", "owner maps", "private state", "header", "all")
    return markdown((*head, "float32 networks", "`torch.load`, ms", "loading, ms"), body)


def inference_speed() -> str:
    body = []
    for network, task in networks("compact", "latency_ms"):
        cells = [network, task]
        for quantity in ("channels_left", "weights_left"):
            cells.append(percent(measured(network, task, "compact", quantity)))
        for variant in ("dense", "masked", "compact", "onnx", "onnx_int8"):
            latency = measured(network, task, variant, "latency_ms")
            rate = measured(network, task, variant, "images_per_second")
            cells.append(f"{latency:.1f} ({rate:.0f})")
        body.append(cells)
    head = ("network, pruned by", "task", "channels left", "weights left", "dense", "masked")
    return markdown((*head, "compact", "ONNX", "ONNX int8"), body)


def inference_scores() -> str:
    body = []
    for network, task in networks("masked", "validation_score"):
        cells = [network, task, number(measured(network, task, "masked", "validation_score"), 4)]
        for variant in ("onnx", "onnx_half", "onnx_int8"):
            score = measured(network, task, variant, "validation_score")
            size = megabytes(measured(network, task, variant, "bytes"))
            cells.append(f"{score:.4f}, {size}")
        cells.append(megabytes(measured(network, task, "packed_alone", "bytes")))
        body.append(cells)
    head = ("network, pruned by", "task", "as it is", "ONNX", "ONNX, half precision")
    return markdown((*head, "ONNX int8", "`.safetensors`"), body)


def gpu() -> str:
    """The median time of a step, and what masks, channels-last and prepared files cost."""
    table = rows("gpu").set_index(["network", "dtype", "variant", "measure"])["value"]
    body = []
    for network in ("resnet50", "unet_resnet34", "resnet_small"):
        for dtype in ("float32", "tf32", "bfloat16"):
            fed = (network, "bfloat16" if dtype == "bfloat16" else "default", "prepared_file")
            body.append(
                (
                    f"{network} {dtype}",
                    number(table[network, dtype, "plain", "step"], 1),
                    number(table[network, dtype, "masked", "step_over_plain"], 2),
                    number(table[network, dtype, "masked channels_last", "step"], 1),
                    "" if dtype == "float32" else percent(table[(*fed, "fed")]),
                )
            )
    (device,) = rows("gpu")["device"].unique()
    head = (device, "plain step, ms", "masked step, of it", "channels-last, ms", "fed")
    return markdown(head, body)


def wheel() -> str:
    """How many packages each extra brings, and how large all of them are."""
    body = [
        (
            row.what if row.what == "the wheel" else f"`{row.what}`",
            str(row.packages),
            megabytes(row.bytes) if row.bytes < 1e8 else f"{row.bytes / 1e9:.2f} GB",
        )
        for row in rows("wheel").itertuples()
    ]
    return markdown(("", "packages", "size"), body)


def wheel_imports() -> str:
    """How long importing takes, in seconds and against `import torch`."""
    body = [
        (f"`{row.what}`", number(row.seconds, 2), number(row.to_torch, 2))
        for row in rows("wheel_imports").itertuples()
    ]
    return markdown(("", "s", "of `import torch`"), body)


def first_hour() -> str:
    table = rows("first_hour")
    body = [(f"{row.what}", f"{row.value:g} {row.unit}") for row in table.itertuples()]
    return markdown((f"{table['cores'].iloc[0]} cores", "takes"), body)


def megabytes(value: float) -> str:
    return "" if pd.isna(value) else f"{value / 1e6:.1f} MB"


def emphasised(method: object) -> str:
    """The name of a method; ours stands out."""
    return f"**{method}**" if method == "adaptive" else str(method)


def front_of(sequence: str) -> str:
    """The methods of a sequence, with their differences to each front at equal bytes."""
    runs, against = (
        table[table["sequence"] == sequence]
        for table in (rows("fronts"), rows("fronts_by_sequence"))
    )
    shown = ["mean_score", "worst_score", "last_score", "bytes", "capacity"]
    means = runs.groupby("method")[shown].mean()
    exact = runs.groupby("method")["bit_exact"].all()
    found = against.set_index(["front", "method"])
    fronts = list(dict.fromkeys(against["front"]))
    body = []
    for method, own in means.sort_values("mean_score", ascending=False).iterrows():
        cells = [emphasised(method), *map(number, own.iloc[:3])]
        cells += [number(own["bytes"] / 1000, 0), percent(own["capacity"])]
        cells.append("yes" if exact[method] else "no")
        for front in fronts:
            row = found.loc[(front, method)]
            cells.append(difference(row["difference"], row["low"], row["high"]))
        body.append(cells)
    head = ("method", "mean score", "worst task", "last task", "kB", "capacity", "exact")
    return markdown((*head, *(f"less `{front}`" for front in fronts)), body)


def fronts_overall() -> str:
    """What holds over all sequences: differences to each front at equal bytes, and regret."""
    overall = rows("fronts_overall")
    fronts = list(dict.fromkeys(overall["front"]))
    found = overall.set_index(["method", "front"])
    methods = overall.groupby("method", sort=False)["sequences"].max()
    regret = found["worst_regret"].unstack("front")[REFERENCE_FRONT]
    body = []
    for method in sorted(methods.index, key=lambda name: (-methods[name], regret.fillna(1)[name])):
        cells = [emphasised(method), str(methods[method])]
        for front in fronts:
            row = found.loc[(method, front)] if (method, front) in found.index else None
            if row is None or pd.isna(row["difference"]):
                cells.append("")
                continue
            of_all = difference(row["difference"], row["low"], row["high"])
            cells.append(f"{of_all} in {row['compared']}")
        if pd.isna(regret[method]):
            cells.append("")
        else:
            where = found.loc[(method, REFERENCE_FRONT), "worst_in"]
            cells.append(f"{number(100 * regret[method], 1, '+')} in `{where}`")
        body.append(cells)
    head = ("method", "sequences", *(f"less `{front}`" for front in fronts))
    return markdown((*head, f"worst regret (`{REFERENCE_FRONT}`)"), body)


def processors() -> str:
    body = [
        (emphasised(str(method)), f"`{sequence}`, seed {seed}", *map(number, own["mean_score"]))
        for (method, sequence, seed), own in rows("processors").groupby(
            ["method", "sequence", "seed"]
        )
    ]
    return markdown(("method", "run", "one kind of processor", "another, as below"), body)


def difference(mean: float, low: float, high: float) -> str:
    """A difference of scores and its interval, in points."""
    if pd.isna(mean):
        return ""
    own = number(100 * mean, 1, "+")
    return own if pd.isna(low) else f"{own} ({number(100 * low, 1)} to {number(100 * high, 1)})"


def large_run() -> str:
    """What 100 tasks of the size of ImageNet take, from the plan and the step of a card."""
    images, side, epochs, tasks, batch = 1_281_167, 224, 10, 100, 128
    task = {"source": "image_folder", "path": "images", "image_size": side}
    names = [f"t{index}" for index in range(tasks)]
    configuration = parse(
        {
            "name": "large",
            "tasks": dict.fromkeys(names, task),
            "networks": {"net": {"backbone": "resnet50"}},
            "sequences": {"all": {"network": "net", "tasks": names}},
            "methods": {"adaptive": {"ratio": {"search": "bayes"}, "expected_tasks": tasks}},
            "training": {"epochs": epochs, "batch_size": batch},
        }
    )
    jobs = plan(configuration)
    whole = sum(epochs_of(job.params) for job in jobs if job.name.count("/") > 1)
    card = rows("gpu").set_index(["network", "dtype", "variant", "measure"])["value"]
    seconds = card["resnet50", "tf32", "masked", "step"] / 1000 * images / batch
    hours = whole * seconds / 3600
    dense = 4 * 25.6e6
    body = [
        ["jobs of the run", f"{len(jobs):,}"],
        ["nodes, each one job of a cluster", f"{tasks:,}"],
        ["prepared images of a task", f"{images * side**2 * 3 / 1e9:,.0f} GB"],
        ["of all tasks", f"{tasks * images * side**2 * 3 / 1e12:,.1f} TB"],
        [
            "dense, pruned and packed networks on the way",
            f"about {3 * tasks * dense / 1e9:,.0f} GB",
        ],
        ["hours of a task on one card", f"{hours / tasks:,.0f}"],
        ["days of the sequence, task after task", f"{hours / 24:,.0f}"],
    ]
    return markdown(["100 tasks of 1.28 million images, 224 pixels, ResNet-50", ""], body)


def planning() -> str:
    """How long planning and verifying take, and Snakemake before a run does anything."""
    body = [
        [
            f"{row.nodes:,}",
            f"{row.jobs:,}",
            f"{row.plan_nothing_done:.1f} s",
            f"{row.plan_all_done:.1f} s",
            f"{row.verify:.1f} s",
            f"{row.memory_mb:,.0f} MB",
            f"{row.snakemake:.0f} s",
            f"{row.snakemake_memory_mb:,.0f} MB",
        ]
        for row in rows("planning").itertuples()
    ]
    head = ["nodes", "jobs", "planning, nothing done", "all done", "verifying", "memory"]
    head += ["Snakemake, all done", "its memory"]
    return markdown(head, body)


def clusters() -> str:
    """The demo under Slurm, against a local run."""
    table = rows("clusters").set_index("where")
    local, slurm = table.loc["local"], table.loc["slurm"]
    each = (slurm["in_jobs"] - slurm["in_steps"]) / slurm["jobs"]
    body = [
        ["`make run`", f"{local['seconds']:.0f} s", "", "", ""],
        [
            "`make run PROFILE=slurm`",
            f"{slurm['seconds']:.0f} s, {slurm['seconds'] / local['seconds']:.2f} times as long",
            f"{slurm['jobs']:.0f}",
            f"{each:.1f} s",
            f"{slurm['equal']:.0f} of {slurm['networks']:.0f}",
        ],
    ]
    head = [
        "the demo on two cores",
        "time",
        "jobs",
        "overhead of each",
        "networks with equal bytes",
    ]
    return markdown(head, body)


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (
        *(
            demo,
            release_path,
            retraining,
            reuse,
            search_quality,
            adaptivity,
            permuted_mnist,
            data_loading,
        ),
        *(
            data_preparing,
            data_series,
            inference_loading,
            file_size,
            first_hour,
            fronts_overall,
            processors,
            inference_speed,
            inference_scores,
            gpu,
            wheel,
        ),
        wheel_imports,
        growth,
        distillation,
        training_settings,
        board,
        search_metrics,
        recognition,
        calibration,
        augmenting,
        layouts,
        step,
        clusters,
        large_run,
        planning,
    )
}
for _name in ("comparison", "segmentation"):
    TABLES[_name] = lambda name=_name: summary(name)
    TABLES[f"{_name}_paired"] = lambda name=_name: paired(name)


def made(name: str) -> str:
    """The table of a name; `front_` and a sequence: that of the sequence."""
    sequence = name.removeprefix("front_")
    return TABLES[name]() if sequence == name else front_of(sequence)


def renewed(page: str) -> str:
    """A page with its tables as the rows are now."""
    return TABLE.sub(lambda found: f"{found[1]}{found[2]}{made(found[1])}\n\n", page)


def main() -> None:
    stale = []
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = renewed(before)
        if after == before:
            continue
        stale.append(path.relative_to(ROOT).as_posix())
        if "--check" not in sys.argv:
            path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"{', '.join(stale)}: tables are not what docs/benchmarks/ says; `make docs`")


if __name__ == "__main__":
    main()

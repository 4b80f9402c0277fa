"""A whole tiny pipeline through Snakemake: the DAG, its jobs, its results, its errors."""

import os
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from checkouts import without_pictures
from conftest import ROOT, driver
from planner import dry_run

GENERATED = {"source": "generated", "classes": 2, "samples": 40, "difficulty": 0.0}
TINY = {
    "name": "tiny",
    "tasks": {
        "a": GENERATED | {"kind": "classification", "image_size": 8},
        "b": GENERATED | {"kind": "segmentation", "image_size": 16},
        "c": GENERATED | {"kind": "classification", "image_size": 8, "seed": 1},
    },
    "networks": {"mixed": {"decoder": "unet", "encoder": "resnet_small"}},
    "sequences": {"one": {"network": "mixed", "tasks": ["a", "b"]}},
    "methods": {
        "adaptive": {"ratio": {"search": "tpe", "budget": 0.5}, "expected_tasks": 2},
        "finetune": {"type": "finetuning"},
        "individual": {"type": "individual"},
        "joint": {"type": "joint"},
        "frozen": {"type": "frozen"},
        "lwf": {"type": "lwf"},
        "ewc": {"type": "ewc"},
    },
    "training": {"epochs": 1, "retrain_epochs": 1, "batch_size": 16},
}


def called(configuration: dict, folder: Path) -> list[str]:
    """The arguments by which Snakemake runs a configuration in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(configuration))
    files = [f"--snakefile={ROOT / 'Snakefile'}", f"--configfile={path}"]
    return [*files, f"--directory={folder}"]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}


def snakemake(configuration: dict, folder: Path, *arguments: str, data: Path | None = None):
    variables = environment() | ({"ACLL_DATA_ROOT": str(data)} if data is not None else {})
    command = ["snakemake", *called(configuration, folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)


def planned(configuration: dict, folder: Path) -> set[str]:
    """The jobs that would run, as their messages name them."""
    arguments = called(configuration, folder)
    code, text = dry_run(Path.cwd(), environment(), *arguments, "--quiet", "host")
    assert code == 0, text
    jobs = re.findall(r"^Job \d+: (.*)$", text, re.MULTILINE)
    return without_pictures(jobs) - {"tables", "figures", "all results"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny configuration, run to its end."""
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    result = snakemake(TINY, folder, "--cores", "2")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_one_command_runs_all_and_a_second_has_nothing_to_do(finished):
    table = pd.read_csv(finished / "tables/scores.csv")
    assert table.groupby("method").size().to_dict() == {
        "adaptive": 3, "ewc": 3, "finetune": 3, "frozen": 3, "individual": 2, "joint": 2, "lwf": 3,
    }  # fmt: skip
    for method in ("adaptive", "frozen", "individual", "joint"):
        own = table[table["method"] == method]
        assert own["bit_exact"].all()
        assert (own["forgetting"].dropna() == 0).all()
        assert own["forgetting"].isna().all() == (method == "joint")
    assert not table[
        (table["method"] == "finetune") & (table["prefix"] == "a+b") & (table["task"] == "a")
    ]["bit_exact"].any()
    columns = (
        "network method seed prefix task position kind metric score score_when_learned "
        "forgetting bit_exact"
    )
    columns += " ratio_searched ratio cap capped owned_share free_share device"
    assert set(columns.split()) <= set(table.columns)
    assert table["score"].between(0, 1).all()
    for figure in ("scores", "shares", "search"):
        drawn = ET.parse(finished / f"figures/{figure}.svg").getroot()
        assert min(float(drawn.get(side).removesuffix("pt")) for side in ("width", "height")) > 100
        assert any(one.tag.endswith("title") for one in drawn.iter())
    assert len(list(finished.rglob("network.safetensors"))) == 13
    runs = pd.read_csv(finished / "tables/runs.csv").set_index("method")
    assert runs.loc["individual", "size"] == 1
    assert (runs.drop("individual")["size"] < 1).all()
    assert runs.loc["individual", "intransigence"] == 0
    assert not [path for path in finished.rglob("*.checkpoint") if ".snakemake" not in path.parts]
    assert planned(TINY, finished) == set()


@pytest.mark.slow
def test_no_rule_but_those_of_evaluation_reads_a_test_split(finished):
    result = snakemake(TINY, finished, "--detailed-summary")
    rows = [line.split("\t") for line in result.stdout.splitlines() if "\t" in line]
    columns = {name: index for index, name in enumerate(rows[0])}
    reading = {
        row[columns["rule"]] for row in rows[1:] if ".test." in row[columns["input-file(s)"]]
    }
    rules = {row[columns["rule"]] for row in rows[1:]}
    assert {"train", "search", "prune", "retrain", "commit", "remember", "evaluate"} <= rules
    assert reading == {"evaluate"}


def changed(**parts) -> dict:
    both = TINY | parts
    return {
        key: TINY[key] | both[key] if isinstance(TINY.get(key), dict) else both[key] for key in both
    }


def jobs_of(method: str, node: str, *rules: str) -> set[str]:
    """The jobs of a node."""
    return {f"{rule} mixed/{method}/seed0/{node}" for rule in rules}


def learned(method: str, node: str) -> set[str]:
    """All jobs by which a method without pruning learns the task of a node."""
    memory = ("remember",) if method == "ewc" else ()
    return jobs_of(method, node, "train", "commit", *memory, "evaluate")


def test_two_methods_run_to_their_end_and_a_change_runs_what_depends_on_it(tmp_path, monkeypatch):
    """All methods are run by the tests that are slow. The machine says that it has two GPUs."""
    cards = [f"GPU-{tmp_path.parent.name}-{number}" for number in range(2)]
    says = "".join(f"GPU {number}: A card (UUID: {card})\n" for number, card in enumerate(cards))
    monkeypatch.setenv("PATH", str(driver(tmp_path / "driver", says, 0)), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    two = TINY | {"methods": {name: TINY["methods"][name] for name in ("adaptive", "finetune")}}
    folder = tmp_path / "tiny"
    result = snakemake(two, folder, "--cores", "2")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    table = pd.read_csv(folder / "tables/scores.csv")
    assert table.groupby("method").size().to_dict() == {"adaptive": 3, "finetune": 3}
    own = table[table["method"] == "adaptive"]
    assert own["bit_exact"].all()
    assert (own["forgetting"] == 0).all()
    assert table["score"].between(0, 1).all()
    used = set()
    for rule in ("train", "search", "retrain", "evaluate"):
        for log in (folder / "logs" / rule).rglob("*.log"):
            text = log.read_text()
            (card,) = re.findall("^uses GPU (.*)$", text, re.MULTILINE)
            used.add(card)
            # there is none, which has to be said
            assert f"warning: PyTorch cannot use GPU {card}; the CPU computes\n" in text
    assert used == set(cards)
    refused = snakemake(two, folder, "--dry-run", "--resources", "gpu=0")
    assert "error: gpu=0: no job could run" in refused.stdout + refused.stderr
    assert refused.returncode == 1
    assert planned(two, folder) == set()
    task = TINY["tasks"]["b"] | {"training": {"loss": "dice"}}
    other = two | {"tasks": TINY["tasks"] | {"b": task}}
    assert planned(other, folder) == (
        jobs_of("adaptive", "a/b", "train", "search", "prune", "retrain", "evaluate")
        | learned("finetune", "a/b")
    )


APPENDED = (
    {"prepare c", "sheets"}
    | jobs_of("adaptive", "a/b/c", "train", "search", "prune", "retrain", "evaluate")
    | set().union(*(learned(method, "a/b/c") for method in ("finetune", "frozen", "lwf", "ewc")))
    | jobs_of("dense", "c", "train")
    | jobs_of("individual", "c", "commit", "evaluate")
    | learned("joint", "a+b+c")
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        ({"methods": {"ewc": {"type": "ewc", "strength": 7.0}}}, learned("ewc", "a/b")),
        ({"methods": {"lwf": {"type": "lwf", "temperature": 3.0}}}, learned("lwf", "a/b")),
        ({"sequences": {"one": {"network": "mixed", "tasks": ["a", "b", "c"]}}}, APPENDED),
        (
            {"tasks": {"b": TINY["tasks"]["b"] | {"training": {"loss": "dice"}}}},
            jobs_of("adaptive", "a/b", "train", "search", "prune", "retrain", "evaluate")
            | set().union(
                *(learned(method, "a/b") for method in ("finetune", "frozen", "lwf", "ewc"))
            )
            | jobs_of("dense", "b", "train")
            | jobs_of("individual", "b", "commit", "evaluate")
            | learned("joint", "a+b"),
        ),
    ],
    ids=["strength", "temperature", "appended", "loss"],
)
def test_a_change_runs_what_depends_on_it_whatever_the_method(finished, change, jobs):
    assert planned(changed(**change), finished) == jobs


@pytest.mark.slow
def test_another_order_shares_the_networks_that_depend_on_none(finished):
    jobs = planned(changed(orders="all"), finished)
    assert not {job for job in jobs if "joint" in job or "individual" in job or "dense" in job}
    anew = jobs_of("learned", "b", "train") | jobs_of("adaptive", "b", "prune", "retrain")
    assert anew | learned("lwf", "b/a") | jobs_of("ewc", "b", "commit", "remember") <= jobs


def bad_folders(root: Path) -> None:
    for name in ("train/x", "train/y"):
        (root / "images" / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "images/train/x/1.png")
    for part in ("images", "masks"):
        (root / "masks/train" / part).mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(root / "masks/train/images/1.png")
    for name, mask in (("sizes", Image.new("L", (8, 8))), ("labels", Image.new("L", (16, 16), 7))):
        for part in ("images", "masks"):
            (root / name / "train" / part).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(root / name / "train/images/1.png")
        mask.save(root / name / "train/masks/1.png")
    for name in ("x", "y"):
        (root / "broken/train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / "broken/train" / name / "1.png")
    (root / "broken/train/x/2.png").write_bytes(b"rubbish")


BAD = {  # folder of raw data → what is said of it
    "sizes": "1.png: the mask has 8x8 pixels, its image 16x16 pixels; they must be equal",
    "labels": "1.png: its mask has the labels 7, outside the 2 classes",
    "masks": "an image without a mask of the same name",
    "broken": "2.png: not a readable image",
    "images": "classes without an image: y",
}


@pytest.mark.slow
def test_bad_folders_end_with_a_message_no_traceback_and_nothing_half_written(tmp_path):
    bad_folders(tmp_path / "raw")
    masks = {"source": "mask_folder", "image_size": 16, "classes": ["p", "q"]}
    images = {"source": "image_folder", "image_size": 16}
    configuration = TINY | {
        "tasks": {
            name: (masks if name in ("sizes", "labels", "masks") else images) | {"path": name}
            for name in BAD
        },
        "sequences": {"one": {"network": "mixed", "tasks": list(BAD)}},
        "methods": {"half": {"ratio": 0.5}},
    }
    result = snakemake(configuration, tmp_path / "tiny", "--cores", "2", data=tmp_path / "raw")
    text = result.stdout + result.stderr
    assert result.returncode != 0
    for message in BAD.values():
        assert message in text
    assert "Traceback" not in text
    assert not list((tmp_path / "tiny").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"methods": {"adaptive": {"ratio": 1.5}}}, "methods.adaptive.ratio"),
        ({"training": {"epoch": 3}}, "training.epoch: unknown key"),
        (
            {"sequences": {"one": {"network": "mixed", "tasks": ["a", "zebra"]}}},
            "'zebra': there is no such task",
        ),
        pytest.param(
            {"tasks": {"a": {"source": "image_folder", "path": "absent", "image_size": 8}}},
            "absent: there is no such file or folder",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_bad_configuration_ends_before_any_job_in_a_line_that_names_the_key(
    tmp_path, change, line
):
    result = snakemake(changed(**change), tmp_path / "tiny", "--cores", "1")
    text = result.stdout + result.stderr
    assert result.returncode != 0
    assert line in text
    assert "Traceback" not in text
    assert not list((tmp_path / "tiny").rglob("*.safetensors"))


def test_without_the_default_profile_the_run_refuses_and_says_why(tmp_path):
    profile = tmp_path / "own"
    profile.mkdir()
    (profile / "config.yaml").write_text("cores: 1\n")
    result = snakemake(TINY, tmp_path / "tiny", "--workflow-profile", str(profile))
    assert result.returncode != 0
    assert "what profiles/default/config.yaml says" in result.stdout + result.stderr


def test_results_are_refused_in_the_repository_itself():
    command = ["snakemake", "--configfile", "config/demo.yaml", "--dry-run"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode != 0
    assert "add --directory results/demo" in result.stdout + result.stderr

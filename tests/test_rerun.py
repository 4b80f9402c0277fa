"""Exactly what a change makes run again: in the place of the run, and in a colleague's clone after
`make pull`."""

import copy
import os
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import yaml

from checkouts import SMALL, TINY, Checkout, contents, finished, jobs_in, raw_images

# `make test` has a plan of a change in test_pipeline, and a rerun in test_sharing
pytestmark = pytest.mark.slow

CHAIN = ("train", "search", "prune", "retrain", "evaluate")
ENDS = {"tables", "figures"}


def node(prefix: str, *steps: str, method: str = "adaptive", seed: int = 0) -> set[str]:
    """The jobs of a node: node("ab") are those that learn task b after task a."""
    jobs = {f"{step} small/{method}/seed{seed}/{'/'.join(prefix)}" for step in steps or CHAIN}
    first = f"train small/{method}/seed{seed}/{prefix}"
    # the dense network of a first task is shared by all packings that learn scores
    return (
        (jobs - {first} | {f"train small/learned/seed{seed}/{prefix}"}) if first in jobs else jobs
    )


def prepares(*tasks: str) -> set[str]:
    return {*(f"prepare {task}" for task in tasks), "sheets"}


ALL = prepares("a", "b", "c") | node("a") | node("ab") | node("abc") | ENDS


def changed(change) -> dict:
    """TINY with a change made in place."""
    configuration = copy.deepcopy(TINY)
    change(configuration)
    return configuration


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Checkout:
    """Two configurations run at once in one checkout, one from where it had got, and shared."""
    folder = tmp_path_factory.mktemp("rerun")
    own = finished(tmp_path_factory)[0].copy(folder / "origin")
    own = replace(own, data=raw_images(folder / "data"))
    shutil.rmtree(own.results("small") / "nodes/small/half/seed0/a/b")
    shutil.rmtree(own.results("small") / "tables")
    own.run("dvc", "remote", "add", "--default", "store", str(folder / "store"))
    runs = [
        subprocess.Popen(
            own.command("run", name),
            cwd=own.folder,
            env=own.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("tiny", "small")
    ]
    for run in runs:
        text, _ = run.communicate()
        assert run.returncode == 0, text
    for name in ("tiny", "small"):
        own.make("share", name)
    own.commit("results")
    return own


@pytest.fixture(scope="module")
def colleague(origin, tmp_path_factory) -> Checkout:
    """A clone after `make pull`, with raw data in another place."""
    folder = tmp_path_factory.mktemp("colleague")
    shutil.copytree(origin.data, folder / "elsewhere")
    clone = origin.clone(folder / "clone", data=folder / "elsewhere")
    assert "all as this commit would make them" in clone.make("pull")
    clone.make("pull", "small")
    return clone


@pytest.fixture(params=["where it ran", "in a clone"])
def place(request, origin, colleague) -> Checkout:
    return origin if request.param == "where it ran" else colleague


# --------------------------------------------------------------------------------------------------
# nothing changed


def test_nothing_changed_runs_nothing_and_stays_fast_to_say(place):
    assert place.planned() == set()
    text = place.make("run")
    assert "nothing to run" in text
    assert not jobs_in(text)
    assert place.git("status", "--porcelain") == ""


def test_a_clone_holds_byte_for_byte_what_was_shared(origin, colleague):
    for name in ("tiny", "small"):
        assert contents(origin.results(name)) == contents(colleague.results(name))


def test_a_clone_without_raw_data_has_nothing_to_do_either(origin, tmp_path):
    clone = origin.clone(tmp_path / "clone", data=tmp_path / "nowhere")
    clone.make("pull")
    assert clone.planned() == set()
    text = clone.make("run")
    assert "taken to be what they were when they were read: the raw data of b" in text
    assert "taken to be what they were" in clone.make("verify")
    assert "nothing to run" in text
    # what must be made from raw data anew still cannot be
    clone.write(changed(lambda c: c["tasks"]["b"].update(image_size=16)))
    assert "tasks.b: " in (text := clone.make("run", fails=True))
    assert "there is no such file or folder" in text


def test_times_of_change_mean_nothing(place):
    for folder in (place.results(), place.folder / "src", place.folder / "config", place.data):
        for path in folder.rglob("*"):
            os.utime(path)
    assert place.planned() == set()


def test_reordered_keys_and_comments_mean_nothing(place):
    backwards = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in TINY.items()
    }
    assert place.planned(dict(reversed(backwards.items()))) == set()
    path = place.folder / "config/tiny.yaml"
    path.write_text("# a comment\n" + path.read_text())
    assert place.planned() == set()
    place.git("checkout", "--quiet", "config/tiny.yaml")


# --------------------------------------------------------------------------------------------------
# the configuration


# tests/test_plan.py has the whole matrix; these hold the plan against Snakemake
CHANGES = {
    "epochs of one task": (
        lambda c: c["tasks"]["b"]["training"].update(epochs=2),
        node("ab") | node("abc") | ENDS,
    ),
    "two values swapped": (
        lambda c: c["tasks"]["b"]["training"].update(epochs=2, retrain_epochs=1),
        node("ab") | node("abc") | ENDS,
    ),
    "a method added": (
        lambda c: c["methods"].update(half={"ratio": 0.5}),
        set().union(
            *(
                node(prefix, "prune", "retrain", "evaluate", method="half")
                for prefix in ("a", "ab", "abc")
            )
        )
        | node("ab", "train", method="half")
        | node("abc", "train", method="half")
        | ENDS,
    ),
    "a task appended": (
        lambda c: c["sequences"]["one"].update(tasks=["a", "b", "c", "d"]),
        prepares("d") | node("abcd") | ENDS,
    ),
    "a network with other channels": (
        lambda c: (
            c["networks"].update(wide={"backbone": "resnet_small", "channels": 1}),
            c["sequences"].update(two={"network": "wide", "tasks": ["b"]}),
        ),
        {job.replace("small/", "wide/") for job in node("b")} | ENDS,
    ),
    "a task that no sequence learns": (lambda c: c["tasks"]["d"].update(samples=60), set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_configuration_runs_exactly(colleague, change):
    make, expected = CHANGES[change]
    assert colleague.planned(changed(make)) == expected


def test_one_configuration_does_not_disturb_the_other(place):
    other = copy.deepcopy(SMALL)
    other["training"]["epochs"] = 1
    assert place.planned(other, "small") == {
        "train small/learned/seed0/a",
        "train small/half/seed0/a/b",
        *(
            f"{step} small/half/seed0/{prefix}"
            for step in ("prune", "retrain", "evaluate")
            for prefix in ("a", "a/b")
        ),
        *ENDS,
    }
    place.write(other)
    assert place.planned() == set()
    place.git("checkout", "--quiet", "config/small.yaml")


# --------------------------------------------------------------------------------------------------
# code and raw data


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("evaluation/figures.py", {"figures"}),
        (
            "search/strategies.py",
            (node("a") - {"train small/learned/seed0/a"}) | node("ab") | node("abc") | ENDS,
        ),
        ("sharing/verify.py", set()),
    ],
)
def test_an_edited_module_runs_the_steps_that_import_it_and_what_follows(
    colleague, module, expected
):
    path = colleague.folder / "src/acll" / module
    text = path.read_text()
    path.write_text(f"# a comment\n{text}")
    assert colleague.planned() == set()
    path.write_text(f"{text}\n_EDITED = True\n")
    assert colleague.planned() == expected
    colleague.git("checkout", "--quiet", "src")


def test_other_raw_data_run_its_task_onwards_even_with_the_old_size_and_time_of_another_file(place):
    path = place.data / "raw/train/dark/0.png"
    before, times = path.read_bytes(), path.stat()
    path.write_bytes((place.data / "raw/train/dark/1.png").read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns - 10**12))
    assert place.planned() == prepares("b") | node("ab") | node("abc") | ENDS
    assert "stale       the raw data have changed" in place.make("verify", fails=True)
    path.write_bytes(before)
    assert place.planned() == set()


def test_verify_sees_raw_data_whose_size_and_time_stayed_the_same(place):
    path = place.data / "raw/train/light/0.png"
    before, times = path.read_bytes(), path.stat()
    content = bytearray(before)
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "stale       the raw data have changed" in place.make("verify", fails=True)
    path.write_bytes(before)
    assert "all as this commit would make them" in place.make("verify")


# --------------------------------------------------------------------------------------------------
# branches and experiments


def test_branches_are_switched_with_git_and_dvc_alone(origin, tmp_path):
    clone = origin.clone(tmp_path / "clone")
    clone.make("pull")
    clone.git("checkout", "--quiet", "-b", "other")
    clone.write(changed(lambda c: c["tasks"]["c"]["training"].update(epochs=2)))
    text = clone.make("run")
    assert jobs_in(text) == node("abc") | ENDS
    told = re.search(r"^(\d+) of \d+ jobs have run \((.*)\); ", text, re.MULTILINE)
    counted = {rule: int(count) for count, rule in (one.split() for one in told[2].split(", "))}
    assert sum(counted.values()) == int(told[1])
    assert [rule for rule in counted if rule in {*CHAIN, *ENDS}] == [
        "train", "search", "prune", "retrain", "evaluate", "tables", "figures",
    ]  # fmt: skip
    clone.commit()
    for branch in ("main", "other", "main"):
        clone.git("checkout", "--quiet", branch)
        clone.run("dvc", "checkout", "run@tiny")
        assert clone.planned() == set()
        assert "all as this commit would make them" in clone.make("verify")


def test_an_experiment_is_run_compared_and_applied(origin, tmp_path):
    clone = origin.clone(tmp_path / "clone")
    # `dvc exp apply` checks out all that dvc.lock names
    clone.run("dvc", "pull", "run@tiny", "run@small")
    setting = "config/tiny.yaml:tasks.c.training.epochs=3"
    text = clone.run("dvc", "exp", "run", "--temp", "--name", "longer", "-S", setting, "run@tiny")
    assert jobs_in(text) == node("abc") | ENDS
    assert clone.git("status", "--porcelain") == ""
    assert clone.planned() == set()
    assert "tasks.c.training.epochs" in clone.run("dvc", "params", "diff", "HEAD", "longer")
    assert "one.adaptive.mean_score" in clone.run(
        "dvc", "metrics", "diff", "--all", "HEAD", "longer"
    )
    assert "plots/index.html" in clone.run(
        "dvc", "plots", "diff", "HEAD", "longer", "--out", "plots"
    )
    page = (clone.folder / "plots/index.html").read_text().replace("_", "/")
    for name in ("tables/plot.csv", "tables/summary.csv", "figures/scores.svg"):
        assert f"results/tiny/{name}" in page
    clone.run("dvc", "exp", "apply", "longer")
    assert (
        yaml.safe_load((clone.folder / "config/tiny.yaml").read_text())["tasks"]["c"]["training"][
            "epochs"
        ]
        == 3
    )
    assert clone.planned() == set()
    assert "all as this commit would make them" in clone.make("verify")


def test_an_experiment_in_the_workspace_may_set_what_the_configuration_leaves_out(origin, tmp_path):
    clone = origin.clone(tmp_path / "clone")
    clone.make("pull", "small")
    setting = "config/small.yaml:+tasks.b.training.epochs=1"
    text = clone.run("dvc", "exp", "run", "-S", setting, "run@small")
    steps = ("train", "prune", "retrain", "evaluate")
    assert jobs_in(text) == {f"{step} small/half/seed0/a/b" for step in steps} | ENDS
    assert "tasks.b.training.epochs" in clone.run("dvc", "params", "diff")
    assert "all as this commit would make them" in clone.make("verify", "small")


def test_plain_dvc_repro_does_what_make_run_does(origin, tmp_path):
    clone = origin.clone(tmp_path / "clone")
    clone.make("pull", "small")
    assert not jobs_in(clone.run("dvc", "repro", "--single-item", "run@small"))
    path = clone.folder / "src/acll/evaluation/figures.py"
    path.write_text(path.read_text() + "\n_EDITED = True\n")
    assert jobs_in(clone.run("dvc", "repro", "--single-item", "run@small")) == {"figures"}
    assert clone.planned(name="small") == set()


OWN_PROFILE = """
rerun-triggers: [mtime]
max-checksum-file-size: 1
ignore-incomplete: true
keep-incomplete: true
drop-metadata: true
no-hooks: true
all-temp: true
trust-io-cache: true
persistence-backend: db
latency-wait: 7
"""


def test_a_profile_of_ones_own_changes_nothing_that_results_depend_on(
    origin, tmp_path, monkeypatch
):
    (tmp_path / "config.yaml").write_text(OWN_PROFILE)
    monkeypatch.setenv("SNAKEMAKE_PROFILE", str(tmp_path))
    make, expected = CHANGES["epochs of one task"]
    assert origin.planned() == set()
    assert origin.planned(changed(make)) == expected
    # one in the place of the default profile has to say the same
    command = ["snakemake", "--configfile", "config/tiny.yaml", "--directory", "results/tiny"]
    command += ["--cores", "1", "--dry-run"]
    text = origin.run(*command, "--workflow-profile", str(tmp_path), fails=True)
    assert "Snakemake is set to what would make results wrong: rerun-triggers, max-" in text
    for setting in (
        "--until=prune",
        "--batch=all=1/2",
        "--consider-ancient=train=0",
        "--target-jobs=prepare:task=a",
    ):
        text = origin.run(*command, setting, fails=True)
        assert "Snakemake is set to what would make results wrong" in text


def test_a_profile_that_does_not_run_is_refused_before_anything_is_done(
    origin, tmp_path, monkeypatch
):
    clone = origin.clone(tmp_path / "clone")
    clone.make("pull", "tiny")
    clone.write(changed(CHANGES["epochs of one task"][0]))
    monkeypatch.setenv("SNAKEMAKE_PROFILE", str(tmp_path))
    before = contents(clone.results()), (clone.folder / "dvc.lock").read_bytes()
    refused = "Snakemake is set to do something else than to run"
    for setting in ("dry-run: true", "list-rules: true", "delete-all-output: true"):
        (tmp_path / "config.yaml").write_text(setting)
        assert refused in clone.make("run", "tiny", fails=True)
        assert (contents(clone.results()), (clone.folder / "dvc.lock").read_bytes()) == before
    assert refused in clone.run("dvc", "repro", "-s", "run@tiny", fails=True)
    assert (contents(clone.results()), (clone.folder / "dvc.lock").read_bytes()) == before

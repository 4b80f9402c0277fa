"""Names that a remote lists are those of files in the results, or nothing is written."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from acll.errors import UserError
from acll.sharing.transfer import pull_results, pull_tables, restore_files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ["../../scores.json", "tables/../../../x", "..", "tables/.."]
ABSOLUTE = ["/abs/scores.json", r"C:\scores.json"]
ODD = [*OUTSIDE, *ABSOLUTE, r"tables\..\x", "tables//x", "./scores.json"]
REFUSED = "which is no name of a file or folder; nothing was written"
STAGES = """
stages:
  run:
    foreach: [small]
    do:
      cmd: "true"
      outs: ["results/${item}"]
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A repository in which results of two files are committed to DVC, in a folder of its own."""
    root = tmp_path_factory.mktemp("transfer") / "own/root"
    results = root / "results/small"
    (results / "tables").mkdir(parents=True)
    (results / "tables/final.csv").write_text("a\n")
    (results / "scores.json").write_text("{}\n")
    (root / "dvc.yaml").write_text(STAGES)
    shutil.copy(ROOT / ".dvcignore", root)
    for command in ("git init --quiet", "dvc init --quiet", "dvc commit --quiet --force run@small"):
        subprocess.run(command.split(), cwd=root, check=True, capture_output=True)
    commit(root)
    return root


def commit(root):
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    subprocess.run(["git", *who, "commit", "--quiet", "--message", "x"], cwd=root, check=True)


@pytest.fixture
def clone(shared, tmp_path):
    """A copy of it without the results."""
    shutil.copytree(shared.parent, tmp_path / "own")
    shutil.rmtree(tmp_path / "own/root/results/small")
    return tmp_path / "own/root"


def add(root, name):
    """Name one more file in what has been shared, as whoever can write to a remote may."""
    locked = yaml.safe_load((root / "dvc.lock").read_text())
    (out,) = locked["stages"]["run@small"]["outs"]
    cache = root / ".dvc/cache/files/md5"
    listed = json.loads((cache / out["md5"][:2] / out["md5"][2:]).read_text())
    listed.append({"md5": listed[0]["md5"], "relpath": name})
    text = json.dumps(listed)
    out["md5"] = hashlib.md5(text.encode()).hexdigest() + ".dir"
    out["nfiles"] = len(listed)
    path = cache / out["md5"][:2] / out["md5"][2:]
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (root / "dvc.lock").write_text(yaml.safe_dump(locked))
    commit(root)


def files(folder: Path) -> set[Path]:
    hidden = {".git", ".dvc", ".snakemake"}
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in found if not hidden & {*path.parts}}


@pytest.mark.parametrize("name", ODD)
def test_looking_at_names_that_lead_elsewhere_writes_nothing(clone, name):
    add(clone, name)
    before = files(clone.parent.parent)
    with pytest.raises(UserError, match=REFUSED):
        pull_tables(clone, "small")
    assert files(clone.parent.parent) == before
    assert not list(clone.glob("results/*small*"))


@pytest.mark.parametrize("name", [ODD[0], *ODD[4:7]])
def test_names_that_lead_elsewhere_are_not_restored(clone, name):
    add(clone, name)
    before = files(clone.parent.parent)
    with pytest.raises(UserError, match=REFUSED):
        restore_files(clone, "small", {name: None, "scores.json": None})
    assert files(clone.parent.parent) == before


@pytest.mark.parametrize("name", [ODD[0], ODD[6]])
def test_names_that_lead_elsewhere_are_not_pulled(clone, name):
    add(clone, name)
    before = files(clone.parent.parent)
    with pytest.raises(UserError, match=REFUSED):
        pull_results(clone, "small")
    assert files(clone.parent.parent) == before


def test_plain_names_are_brought_restored_and_pulled(clone):
    folder, count = pull_tables(clone, "small")
    assert (count, files(folder)) == (2, {Path("tables/final.csv"), Path("scores.json")})
    assert restore_files(clone, "small", {"scores.json": None}) == {"scores.json"}
    assert files(clone / "results/small") == {Path("scores.json")}
    pull_results(clone, "small")
    assert files(clone / "results/small") == {Path("tables/final.csv"), Path("scores.json")}

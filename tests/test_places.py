"""Checkouts in odd places: letters in the path, links, a disk that is full or may only be read, git
that fails; each works, or a line says at once what to do."""

import contextlib
import copy
import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from acll.cli.checkout import checkout_of
from acll.cli.main import main
from acll.errors import UserError
from acll.files import written
from acll.packing.tensor_file import save_tensors
from acll.sharing.place import dvc_of, refuse_place
from acll.sharing.transfer import has_remote, push, record, require_remote, require_repository
from acll.training.checkpoint import Checkpoint
from checkouts import SMALL, Checkout, checkout, finished, raw_images, small_disk
from conftest import ROOT
from test_transfer import STAGES, commit

CONFIGURATION = "config/small.yaml"


# --------------------------------------------------------------------------------------------------
# letters in the path


@pytest.mark.slow
def test_a_checkout_and_data_whose_paths_have_odd_letters_work(tmp_path):
    odd = "a  b$HOME #c%d 'e\"f ü&;(g)[h]*?~!"
    (tmp_path / odd).mkdir()
    own = replace(checkout(tmp_path / odd / "checkout", tmp_path), starts_server=True)
    data = raw_images(tmp_path / odd / "data")
    tasks = {"b": {"source": "image_folder", "path": "raw", "image_size": 8}}
    sequences = {"one": {"network": "small", "tasks": ["b"]}}
    own.write(copy.deepcopy(SMALL) | {"tasks": tasks, "sequences": sequences})
    own.commit()
    own.make("run", "small", f"DATA={data}")
    for given in (f"DATA={data}", "DATA=../data"):
        assert "all as this commit" in own.make("verify", "small", given)
        assert "nothing to run" in own.make("plan", "small", given)


@pytest.mark.parametrize("letter", [":", "{", "}", "\n", "\\"])
def test_letters_with_which_nothing_could_be_recorded_are_refused(tmp_path, letter):
    with pytest.raises(UserError, match="in the path of a checkout cannot be") as refused:
        refuse_place(tmp_path / f"a{letter}b", "small")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a b", "a'b", 'a"b', "$(touch made)", "a;b", "Ü", "A", "a-b"])
def test_odd_names_of_configurations_are_refused_before_anything_is_done(tmp_path, name):
    shutil.copy(ROOT / "Makefile", tmp_path)
    make = subprocess.run(
        ["make", "run", f"CONFIG={name}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert make.returncode
    assert "a configuration is called by small letters, digits and _" in make.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


# --------------------------------------------------------------------------------------------------
# the makefile, before anything is installed


def makefile(folder: Path) -> Path:
    """A checkout of which nothing but what is required has been installed."""
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".venv").mkdir()
    required = ("requirements/uv.txt", "requirements/lock.txt", "pyproject.toml")
    installed = b"".join((folder / path).read_bytes() for path in required)
    (folder / ".venv/installed").write_bytes(installed)
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = ["make", "--no-print-directory", "PYTHON=false", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_download_without_its_history_is_refused_before_anything_is_installed(tmp_path):
    folder = makefile(tmp_path)
    (folder / ".venv/installed").unlink()
    for target in ("run", "repair", "share", "pull"):
        ended = make(folder, target)
        assert ended.returncode
        assert "is no git repository, which DVC needs: `git clone` the project" in ended.stderr
        assert "installing" not in ended.stdout


def test_requirements_of_another_content_are_installed_whatever_their_times(tmp_path):
    folder = makefile(tmp_path)
    os.utime(folder / "pyproject.toml", (4e9, 4e9))
    assert make(folder, ".venv/installed").returncode == 0
    (folder / "pyproject.toml").write_text("other")
    os.utime(folder / "pyproject.toml", (1e9, 1e9))
    assert make(folder, ".venv/installed").returncode  # PYTHON=false is asked for its version


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("config=mine", "config=…: there is no such variable; write CONFIG=…"),
        ("Config=mine", "Config=…: there is no such variable; write CONFIG=…"),
        ("data=/a b", "data=…: there is no such variable; write DATA=…"),
        ("CONFG=mine", "CONFG=…: there is no such variable; there are: CONFIG DATA "),
        ("x'y=$(touch made)", "x'y=…: there is no such variable; there are: CONFIG DATA "),
    ],
)
def test_variables_of_other_names_are_refused_with_the_right_one(tmp_path, given, said):
    ended = make(makefile(tmp_path), "run", given)
    assert ended.returncode
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("given", ["IMAGES=0", "IMAGES=no", "V=0"])
def test_what_can_only_be_asked_for_is_not_asked_for_by_another_value(tmp_path, given):
    ended = make(makefile(tmp_path), "--dry-run", "check", given)
    assert ended.returncode
    assert f"{given}: write {given.partition('=')[0]}=1, or leave it out" in ended.stderr


@pytest.mark.parametrize("goals", [["run", "mine"], ["check", "config/mine.yaml"], ["rnu"]])
def test_what_is_no_target_is_refused_before_anything_is_done(tmp_path, goals):
    ended = make(makefile(tmp_path), "--dry-run", *goals)
    assert ended.returncode
    assert f"{goals[-1]}: there is no such target, see `make help`; a config" in ended.stderr
    assert not ended.stdout


def test_variables_of_the_right_names_are_taken(tmp_path):
    given = ["CONFIG=mine", "DATA=/a b=c", "V=1", "WHAT=tables"]
    ended = make(makefile(tmp_path), "--dry-run", "check", *given)
    assert ended.stdout.splitlines()[-1] == "acll check config/mine.yaml"
    assert not ended.stderr


@pytest.mark.parametrize("head", ["#!{}/bin/python\n", "#!/bin/sh\n'exec' \"{}/bin/python\" …"])
def test_an_environment_of_another_place_is_made_anew(tmp_path, head):
    folder = makefile(tmp_path / "a b" if "exec" in head else tmp_path)
    script = folder / ".venv/bin/acll"
    script.parent.mkdir()
    script.write_text(head.format(folder / ".venv"))
    assert make(folder, ".venv/installed").returncode == 0
    script.write_text(head.format("/elsewhere/.venv"))
    ended = make(folder, ".venv/installed")
    assert ended.returncode  # PYTHON=false
    assert "this folder was moved or copied" in ended.stdout
    assert "it is made anew" in ended.stdout
    assert not (folder / ".venv").exists()


# --------------------------------------------------------------------------------------------------
# links


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    """Two folders with a configuration."""
    folders = tmp_path / "here", tmp_path / "elsewhere"
    for folder in folders:
        (folder / "config").mkdir(parents=True)
        shutil.copy(ROOT / "dvc.yaml", folder)
        (folder / CONFIGURATION).write_text(json.dumps(SMALL))
    return folders


@pytest.mark.parametrize("linked", ["config", CONFIGURATION])
def test_where_a_configuration_is_a_link_its_checkout_is_that_of_the_link(
    two, linked, monkeypatch, capsys
):
    here, elsewhere = two
    shutil.rmtree(here / "config")
    (here / linked).parent.mkdir(exist_ok=True)
    (here / linked).symlink_to(elsewhere / linked)
    before = sorted(elsewhere.rglob("*"))
    assert checkout_of(here / CONFIGURATION) == (here, "small")
    monkeypatch.chdir(here)
    assert checkout_of(Path(CONFIGURATION)) == (here, "small")
    for command in ("check", "ready", "leftovers", "verify"):
        with contextlib.suppress(SystemExit):
            main([command, CONFIGURATION])
    assert "results/small: nothing is there" in capsys.readouterr().err
    assert sorted(elsewhere.rglob("*")) == before


@pytest.mark.parametrize("linked", [".dvc", ".dvc/config"])
def test_links_to_what_dvc_knows_are_refused_at_once(two, linked, capsys):
    here, elsewhere = two
    (here / linked).parent.mkdir(exist_ok=True)
    (here / linked).symlink_to(elsewhere / "config")
    with pytest.raises(SystemExit):
        main(["check", str(here / CONFIGURATION)])
    said = capsys.readouterr().err
    assert f"error: {linked}: is a link, and DVC takes what lies behind it for no part" in said
    assert "Put a copy in its place" in said


def test_a_link_above_the_checkout_makes_no_difference(two, tmp_path):
    (tmp_path / "link").symlink_to(two[0])
    assert checkout_of(tmp_path / "link" / CONFIGURATION) == (two[0], "small")


@pytest.mark.parametrize("linked", ["results", "results/small", "results/small/nodes/a"])
@pytest.mark.parametrize("command", ["check", "ready", "plan", "repair", "share", "pull", "finish"])
def test_results_behind_a_link_are_refused_at_once(two, linked, command, capsys):
    here, elsewhere = two
    (here / linked).parent.mkdir(parents=True, exist_ok=True)
    (here / linked).symlink_to(elsewhere)
    with pytest.raises(SystemExit):
        main([command, str(here / CONFIGURATION)])
    said = capsys.readouterr().err
    assert f"error: {linked}: is a link, and DVC records nothing that lies behind one" in said
    assert "dvc cache dir --local" in said


# --------------------------------------------------------------------------------------------------
# git


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A repository in which results of a file are recorded; it has no remote. To be copied."""
    root = tmp_path_factory.mktemp("recorded") / "root"
    (root / "results/small").mkdir(parents=True)
    (root / "results/small/scores.json").write_text("{}\n")
    (root / "dvc.yaml").write_text(STAGES)
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    shutil.copy(ROOT / ".dvcignore", root)
    record(root, "small")
    commit(root)
    assert not has_remote(root)
    return root


@pytest.fixture
def repository(recorded, tmp_path) -> Path:
    """A repository of its own in which results of a file are recorded, with a remote."""
    root = tmp_path / "root"
    shutil.copytree(recorded, root, symlinks=True)
    (root / ".dvc/config").write_text(
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n"
    )
    return root


def damage_index(root: Path) -> None:
    index = root / ".git/index"
    index.write_bytes(b"damaged" + index.read_bytes())


def give_away(root: Path) -> None:
    for path in (root, root / ".git"):
        os.chown(path, 65534, 65534)


def remove_history(root: Path) -> None:
    shutil.rmtree(root / ".git")


@pytest.mark.parametrize(
    "harm",
    [damage_index, *(pytest.param(h, marks=pytest.mark.slow) for h in (give_away, remove_history))],
)
def test_where_git_fails_nothing_is_called_shared(repository, harm):
    assert has_remote(repository)
    assert push(repository, "small") == [".dvc/config"]
    if harm is give_away and os.geteuid():
        pytest.skip("only root can give a folder away")
    harm(repository)
    what = "is no git repository" if harm is remove_history else "`git status --porcelain"
    for attempt in (require_repository, lambda root: record(root, "small")):
        with pytest.raises(UserError, match=what):
            attempt(repository)
    with pytest.raises(UserError):
        push(repository, "small")


def show_no_untracked_files(root: Path) -> None:
    subprocess.run(["git", "config", "status.showUntrackedFiles", "no"], cwd=root, check=True)


def ignore_configurations(root: Path) -> None:
    (root / ".git/info/exclude").write_text("config/\n")


def take_for_unchanged(root: Path) -> None:
    commit(root)
    path = root / "config/small.yaml"
    subprocess.run(["git", "update-index", "--assume-unchanged", path], cwd=root, check=True)
    path.write_text("name: other\n")


@pytest.mark.parametrize(
    "hide",
    [
        show_no_untracked_files,
        pytest.param(take_for_unchanged, marks=pytest.mark.slow),
        pytest.param(ignore_configurations, marks=pytest.mark.slow),
    ],
)
def test_what_git_is_told_not_to_show_is_not_called_shared(repository, hide):
    (repository / "config").mkdir()
    (repository / "config/small.yaml").write_text("name: small\n")
    hide(repository)
    assert "config/small.yaml" in push(repository, "small")


def test_a_remote_folder_that_is_not_there_is_said_to_be_made(repository, capsys):
    push(repository, "small")
    assert "store is not there; DVC makes it now" in capsys.readouterr().out
    push(repository, "small")
    assert "is not there" not in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------
# a disk that is full


@pytest.fixture
def disk(tmp_path):
    """A disk with room for a megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    with small_disk(path, 2**20):
        yield path


def write_plainly(path: Path) -> None:
    with written(path) as beside:
        beside.write_bytes(bytes(2**21))


def write_tensors(path: Path) -> None:
    save_tensors(path, {"a": torch.zeros(2**21)}, {})


def write_checkpoint(path: Path) -> None:
    network = torch.nn.Linear(2**10, 2**10)
    optimizer = torch.optim.SGD(network.parameters())
    Checkpoint(path, "key").write(network, optimizer, network.state_dict(), {})


def write_nested(path: Path) -> None:
    with written(path) as beside:
        write_tensors(beside)


WRITERS = [write_plainly, write_tensors, write_checkpoint, write_nested]


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_named_with_the_file_and_keeps_what_was_there(disk, write):
    path = disk / "folder/file"
    with written(path) as beside:
        beside.write_text("before")
    with pytest.raises(UserError) as refused:
        write(path)
    assert str(refused.value) == (
        f"{path}: cannot be written: {os.strerror(errno.ENOSPC)}; the disk of {disk} has 1.0 MB "
        "free"
    )
    assert [one.name for one in path.parent.iterdir()] == ["file"]
    assert path.read_text() == "before"


LIMITED = """
import resource, sys
from pathlib import Path
from acll.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, 2**10))
main(sys.argv[1:])
"""


def test_a_command_that_has_no_room_says_so_in_a_line(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/small.yaml").write_text(json.dumps(SMALL))
    for name in (".git", ".dvc"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.rmtree(tmp_path / ".git")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    before = (tmp_path / "dvc.yaml").read_text()
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, "ready", "config/small.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/dvc.yaml: cannot be written: File too large; ")
    assert (tmp_path / "dvc.yaml").read_text() == before


@pytest.mark.parametrize("environment", [{"PYTHONUNBUFFERED": ""}, {"PYTHONUNBUFFERED": "1"}])
def test_output_that_has_no_room_ends_with_a_line_and_exit_code_one(tmp_path, environment):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/tables.txt").write_text("x")
    command = [sys.executable, "-c", "from acll.cli.main import main; main()", "table", "."]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line == f"error: the output: {os.strerror(errno.ENOSPC)}"


# --------------------------------------------------------------------------------------------------
# a checkout that may only be read


@pytest.mark.slow
def test_what_only_looks_needs_no_right_to_write(tmp_path_factory, tmp_path):
    own = finished(tmp_path_factory)[0].copy(tmp_path / "own")
    seen = tmp_path / "seen"
    seen.mkdir()
    for options in (["--bind", own.folder], ["-o", "remount,bind,ro"]):
        mounted = subprocess.run(["mount", *options, seen], capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip("nothing can be mounted here")
    looked_at = Checkout(seen, own.data)
    try:
        with pytest.raises(OSError, match="Read-only"):
            (seen / "file").touch()
        assert "sound" in looked_at.make("check", "small")
        assert "nothing to run" in looked_at.make("plan", "small")
        assert "all as this commit would make them" in looked_at.make("verify", "small")
        assert "nothing but what the configuration names" in looked_at.make("leftovers", "small")
        assert "dvc.yaml: cannot be written" in looked_at.make("run", "small", fails=True)
    finally:
        subprocess.run(["umount", "--lazy", seen], check=True)


def test_dvc_is_named_as_it_is_typed_in_this_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("acll.sharing.transfer.has_remote", lambda root: False)
    with pytest.raises(UserError, match=r"\n  dvc remote add --default store s3:"):
        require_remote(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/dvc").touch()
    assert dvc_of(tmp_path) == ".venv/bin/dvc"
    with pytest.raises(UserError, match=r"\n  \.venv/bin/dvc remote add --default store s3:"):
        require_remote(tmp_path)

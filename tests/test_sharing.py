"""Verify, repair, share, pull, look, clean: as two colleagues do it, with a folder and with a real
ssh server."""

import copy
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

import acll
from acll.sharing.records import recorded
from checkouts import SMALL, Checkout, contents, finished, jobs_in

NODE = "nodes/small/half/seed0/a"
ENDS = {"tables", "figures"}
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

pytestmark = pytest.mark.slow  # all of them need a run that is finished and shared


def small(**changes) -> dict:
    return copy.deepcopy(SMALL) | changes


def last_task(*steps: str, method: str = "half", seed: int = 0) -> set[str]:
    return {
        f"{step} small/{method}/seed{seed}/a/b"
        for step in steps or ("train", "prune", "retrain", "evaluate")
    }


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Checkout:
    """A finished run of the small configuration, shared to a folder."""
    folder = tmp_path_factory.mktemp("sharing")
    own = finished(tmp_path_factory)[0].copy(folder / "origin")
    assert "no DVC remote is set" in (text := own.make("share", "small", fails=True))
    assert "dvc remote add --default store ssh://user@host/path" in text
    assert "no DVC remote is set" in own.make("pull", "small", fails=True)
    own.run("dvc", "remote", "add", "--default", "store", str(folder / "store"))
    text = own.make("share", "small")
    assert (
        "not in git yet, and needed by whoever pulls these results: .dvc/config, dvc.lock\n" in text
    )
    (size,) = re.findall(r"results/small: ([\d.]+) MB; what the remote does not have", text)
    in_store = sum(file.stat().st_size for file in (folder / "store").rglob("*") if file.is_file())
    assert float(size) == pytest.approx(in_store / 1e6, rel=0.25)  # equal files are stored once
    own.commit("results")
    assert "`git push` tells your colleagues" in own.make("share", "small")
    return own


@pytest.fixture(scope="module")
def pulled(origin, tmp_path_factory) -> Checkout:
    own = origin.clone(tmp_path_factory.mktemp("pulled") / "clone")
    text = own.make("pull", "small")
    assert "all as this commit would make them" in text
    assert "report: results/small/report.html" in text
    assert (own.results("small") / "report.html").is_file()
    return own


@pytest.fixture
def clone(pulled, tmp_path) -> Checkout:
    return pulled.copy(tmp_path / "clone")


def known_to_dvc(own: Checkout) -> set[str]:
    """The files of the results that dvc.lock names."""
    listed = own.run("dvc", "list", ".", "results/small", "--recursive", "--dvc-only")
    return set(listed.split())


# --------------------------------------------------------------------------------------------------
# what is wrong is named, and mended


def break_files(results: Path) -> dict[str, str]:
    """One output cut short, one changed, one deleted: output → what verify calls it."""
    os.truncate(results / NODE / "b/network.safetensors", 1000)
    path = results / NODE / "b/scores.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    (results / "tables/final.csv").unlink()
    return {
        f"{NODE}/b/network.safetensors": "damaged",
        f"{NODE}/b/scores.json": "damaged",
        "tables/final.csv": "missing",
    }


def test_what_was_cut_changed_or_deleted_is_named_whatever_its_time(clone):
    results = clone.results("small")
    times = {path: path.stat() for path in results.rglob("*") if path.is_file()}
    broken = break_files(results)
    for path, status in times.items():
        if path.exists():
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    text = clone.make("verify", "small", fails=True)
    for output in broken:
        assert re.search(rf"^ +{output}$", text, re.MULTILINE), text
    assert "3 of 46 results are not as this commit would make them (2 damaged, 1 missing)" in text
    assert "make repair CONFIG=small" in text
    assert "3 of 46" in clone.make("share", "small", fails=True)


def test_repair_puts_back_from_the_cache_what_was_broken_and_runs_nothing(clone):
    before = contents(clone.results("small"))
    break_files(clone.results("small"))
    text = clone.make("repair", "small")
    assert "3 files put back as they were, 0 results made again" in text
    assert not jobs_in(text)
    assert contents(clone.results("small")) == before


def test_repair_puts_back_from_the_remote_where_the_cache_is_empty(clone):
    before = contents(clone.results("small"))
    break_files(clone.results("small"))
    shutil.rmtree(clone.folder / ".dvc/cache")
    assert "3 files put back as they were, 0 results made again" in clone.make("repair", "small")
    assert contents(clone.results("small")) == before


def test_repair_makes_again_what_no_cache_and_no_remote_has_and_nothing_else(clone):
    before = contents(clone.results("small"))
    clone.run("dvc", "remote", "modify", "store", "url", str(clone.folder / "gone"))
    shutil.rmtree(clone.folder / ".dvc/cache")
    results = clone.results("small")
    os.truncate(results / "nodes/small/learned/seed0/a/dense.safetensors", 1000)
    path = results / NODE / "b/scores.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    text = clone.make("repair", "small")
    assert f"the remote {clone.folder / 'gone'} is not there" in text
    assert "0 files put back as they were, 2 results made again" in text
    # what was made from the dense network stands: the same bytes come back
    assert "train small/learned/seed0/a" in jobs_in(text)
    assert contents(results) == before
    assert "all as this commit would make them" in text


@pytest.mark.skipif(
    not Path(SSHD).exists(), reason="there is no sshd, so no ssh remote can be set up to be away"
)
def test_repair_changes_nothing_where_it_cannot_ask_the_remote(clone):
    clone.run("dvc", "remote", "modify", "store", "url", "ssh://127.0.0.1:1/nobody")
    shutil.rmtree(clone.folder / ".dvc/cache")
    break_files(clone.results("small"))
    before = contents(clone.results("small"))
    text = clone.make("repair", "small", fails=True)
    assert "DVC cannot say whether it has these results" in text
    assert contents(clone.results("small")) == before


def test_repair_brings_back_lost_records(clone):
    before = contents(clone.results("small"))
    shutil.rmtree(clone.results("small") / ".snakemake")
    shutil.rmtree(clone.results("small") / "digests")
    assert "there is no record of how it was made" in clone.make("verify", "small", fails=True)
    assert not jobs_in(clone.make("repair", "small"))
    assert contents(clone.results("small")) == before


def test_stale_results_are_named_with_the_value_that_changed_and_repair_runs_them(clone):
    other = small()
    other["tasks"]["b"]["training"] = {"epochs": 1}
    clone.write(other)
    text = clone.make("verify", "small", fails=True)
    assert f"stale       training.epochs 3 → 1\n              {NODE}/b/dense.safetensors" in text
    assert "follows     32 more were made from what is stale" in text
    assert "33 of 46 results are not as this commit would make them (33 stale)" in text
    assert f"`make run CONFIG=small DATA={clone.data}` makes them anew" in text
    assert jobs_in(clone.make("repair", "small")) == last_task() | ENDS


def test_an_edited_step_makes_its_results_stale(clone):
    path = clone.folder / "src/acll/evaluation/figures.py"
    path.write_text(path.read_text() + "\n_EDITED = True\n")
    text = clone.make("verify", "small", fails=True)
    assert "stale       the code of its step has changed\n              figures/scores.svg" in text
    assert "6 of 46 results are not as this commit would make them (6 stale)" in text


def test_results_of_other_code_are_kept_shared_and_left_alone_by_runs(clone, tmp_path):
    path = clone.folder / "src/acll/training/loop.py"
    path.write_text(path.read_text() + "\n_EDITED = True\n")
    before = contents(clone.results("small"))
    advice = f"`make accept CONFIG=small DATA={clone.data}` keeps those"
    assert advice in clone.make("verify", "small", fails=True)
    assert clone.planned(name="small")
    text = clone.make("accept", "small")
    assert re.search(r"^results/small: \d+ results .* are kept now$", text, re.MULTILINE)
    assert re.search(r"^kept +the code of its step has changed$", text, re.MULTILINE)
    assert clone.planned(name="small") == set()
    assert not jobs_in(clone.make("run", "small"))
    assert contents(clone.results("small")) == before
    clone.make("share", "small")
    clone.commit()
    other = clone.clone(tmp_path / "other")
    text = other.make("pull", "small")
    assert re.search(r"all as this commit would make them, but for \d+ that are kept", text)
    assert not jobs_in(other.make("run", "small"))
    # parameters are no matter of opinion
    other.write(small(training=SMALL["training"] | {"retrain_epochs": 1}))
    assert "0 results made with other code" in other.make("accept", "small", fails=True)


def test_before_anything_has_run_verify_says_what_brings_results(origin, tmp_path):
    own = origin.clone(tmp_path / "clone")
    text = own.make("verify", "small", fails=True)
    assert (
        f"results/small: nothing is there; `make pull CONFIG=small DATA={own.data}` or "
        f"`make run CONFIG=small DATA={own.data}` brings it"
    ) in text


# --------------------------------------------------------------------------------------------------
# from colleague to colleague


def test_looking_at_tables_alone_costs_no_file_whatever_comes_next(origin, tmp_path):
    own = origin.clone(tmp_path / "clone")
    before = known_to_dvc(own)
    text = own.make("pull", "small", "WHAT=tables")
    looked_at = own.folder / "results/small-tables"
    assert "results/small-tables/tables, results/small-tables/figures" in text
    assert f"`make pull CONFIG=small DATA={own.data}`" in text
    assert "report: results/small-tables/report.html" in text
    assert "<pre>name: small" in (looked_at / "report.html").read_text()
    assert not own.results("small").exists()
    assert contents(looked_at).items() <= contents(origin.results("small")).items()
    assert (looked_at / "tables/scores.csv").is_file()
    assert (looked_at / NODE / "b/scores.json").is_file()
    assert not list(looked_at.rglob("*.safetensors"))
    assert "nothing is there" in own.make("share", "small", fails=True)
    brings = f"`make pull CONFIG=small DATA={own.data}` brings them"
    assert brings in own.make("run", "small")
    own.run("dvc", "repro", "--single-item", "run@small")
    own.make("share", "small")
    assert known_to_dvc(own) == before
    assert contents(own.results("small")) == contents(origin.results("small"))
    shutil.rmtree(own.folder / ".dvc/cache")
    shutil.rmtree(own.results("small"))
    own.make("pull", "small")


def test_part_of_the_results_in_their_own_place_is_never_taken_for_the_whole(origin, tmp_path):
    own = origin.clone(tmp_path / "clone")
    before = known_to_dvc(own)
    # what the documentation of DVC would have one do
    own.run("dvc", "pull", "results/small/tables")
    assert "missing" in own.make("share", "small", fails=True)
    text = own.make("repair", "small")
    assert not jobs_in(text)
    own.make("share", "small")
    assert known_to_dvc(own) == before


def test_results_that_dvc_does_not_know_are_not_overwritten(clone):
    path = clone.results("small") / "tables/final.csv"
    path.write_text("mine\n")
    text = clone.make("pull", "small", fails=True)
    assert "dvc checkout --force run@small` discards them" in text
    assert path.read_text() == "mine\n"


def test_a_remote_folder_that_is_not_there_is_named(clone):
    clone.run("dvc", "remote", "modify", "store", "url", str(clone.folder / "gone"))
    text = clone.make("pull", "small", fails=True)
    assert f"the remote {clone.folder / 'gone'} is not there; is it mounted?" in text


def test_conflicts_of_a_merge_stop_everything_before_anything_is_done(clone):
    path = clone.folder / "dvc.lock"
    path.write_text(
        path.read_text().replace("stages:", "<<<<<<< HEAD\nstages:\n=======\n>>>>>>> theirs\n", 1)
    )
    for target in ("run", "verify", "repair", "share", "pull", "leftovers"):
        text = clone.make(target, "small", fails=True)
        assert "dvc.lock: a merge has left conflicts in it; take one side" in text


def test_files_of_ones_own_are_named_and_left_alone(clone):
    own = clone.results("small") / "notes.txt"
    own.write_text("mine")
    for target in ("verify", "leftovers"):
        text = clone.make(target, "small")
        assert "made by no run, but versioned and shared with results/small: notes.txt" in text
    clone.make("prune-results", "small")
    assert own.read_text() == "mine"


def test_final_networks_have_short_names_which_are_none_of_dvcs(clone):
    name = "results/small/networks/one-half-seed0.safetensors"
    link = clone.folder / name
    assert link.readlink().as_posix() == f"../{NODE}/b/network.safetensors"  # `pull` made it
    assert "half" in clone.run("acll", "inspect", name)
    assert [task.name for task in acll.load(link).tasks] == ["a", "b"]
    link.unlink()
    text = clone.make("run", "small")
    assert f"\nnetworks: {name}\n" in text
    assert link.is_symlink()
    assert not [file for file in known_to_dvc(clone) if file.startswith("networks")]
    for target in ("verify", "leftovers", "share", "prune-results", "repair"):
        text = clone.make(target, "small")
        assert ".safetensors" not in text.replace(name, "")
        for hint in ("dvc push", "autostage"):  # of DVC; the documentation says `make share`
            assert hint not in text
        assert link.is_symlink()
    clone.run("dvc", "checkout", "--force", "run@small")
    assert link.is_symlink()


def test_pull_before_anybody_has_shared_says_so(origin, tmp_path):
    own = origin.clone(tmp_path / "clone")
    assert "dvc.lock: knows no results of 'tiny'" in own.make("pull", fails=True)


def test_two_colleagues_who_ran_different_things_merge(origin, tmp_path):
    """As the README says: take one side of dvc.lock, pull it, rerun what is missing."""
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", origin.folder, bare], check=True)
    ours, theirs = (
        Checkout(bare, origin.data).clone(tmp_path / name) for name in ("ours", "theirs")
    )
    two, three = ({"network": "small", "tasks": [task]} for task in ("b", "c"))
    for own, sequence in ((theirs, {"two": two}), (ours, {"three": three})):
        own.make("pull", "small")
        own.write(small(sequences=SMALL["sequences"] | sequence))
        own.make("run", "small")
        own.make("share", "small")
        own.commit("one more sequence")
    theirs.git("push", "--quiet")
    ours.git("fetch", "--quiet")
    assert "CONFLICT" in ours.run("git", "merge", "origin/main", fails=True)
    ours.git("checkout", "--theirs", "dvc.lock")
    ours.write(small(sequences=SMALL["sequences"] | {"two": two, "three": three}))
    ours.commit("merge")
    # verify says what the merge still lacks
    assert "missing" in ours.make("pull", "small", fails=True)
    lacking = {f"{step} small/half/seed0/c" for step in ("prune", "retrain", "evaluate")}
    lacking |= {"prepare c", "sheets", "train small/learned/seed0/c"}
    assert jobs_in(ours.make("run", "small")) == lacking | ENDS
    ours.make("share", "small")
    assert ours.planned(name="small") == set()


@pytest.fixture
def ssh_server(tmp_path):
    """A real server on the loopback that takes one key: (port, key)."""
    key, host_key = tmp_path / "key", tmp_path / "host_key"
    for path in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {host_key}\nAuthorizedKeysFile "
        f"{key}.pub\nStrictModes no\n"
        f"PidFile {tmp_path}/pid\nUsePAM no\nPasswordAuthentication no\nSubsystem sftp "
        "internal-sftp\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the server wants it, as root alone
    server = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.PIPE, text=True
    )
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    assert server.poll() is None, server.stderr.read()
    yield port, key
    server.terminate()
    server.wait()


@pytest.mark.skipif(
    not Path(SSHD).exists(), reason="there is no sshd; `apt-get install openssh-server` brings it"
)
def test_a_clone_with_an_ssh_remote_has_nothing_to_do(origin, ssh_server, tmp_path):
    port, key = ssh_server
    own = origin.clone(tmp_path / "mine")
    own.make("pull", "small")
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{tmp_path}/remote"
    own.run("dvc", "remote", "add", "--default", "far", url)
    own.run("dvc", "remote", "modify", "far", "keyfile", str(key))
    own.make("share", "small")
    assert len(list((tmp_path / "remote").rglob("*"))) > 20
    own.commit("remote")
    clone = own.clone(tmp_path / "clone")
    clone.make("pull", "small", "WHAT=tables")
    assert (clone.folder / "results/small-tables/tables/scores.csv").is_file()
    assert "all as this commit would make them" in clone.make("pull", "small")
    assert clone.planned(name="small") == set()
    assert contents(clone.results("small")) == contents(origin.results("small"))


# --------------------------------------------------------------------------------------------------
# cleaning


def test_what_the_configuration_no_longer_names_is_listed_and_then_removed(clone):
    assert "nothing but what the configuration names" in clone.make("leftovers", "small")
    results = clone.results("small")
    everything = contents(results)
    shorter = small(sequences={"one": {"network": "small", "tasks": ["a"]}})
    clone.write(shorter)
    assert jobs_in(clone.make("run", "small")) == {"sheets"} | ENDS
    link = results / "networks/one-half-seed0.safetensors"
    assert link.readlink().as_posix() == f"../{NODE}/network.safetensors"
    text = clone.make("leftovers", "small")
    assert re.search(rf"^{NODE}/b +\d+ files", text, re.MULTILINE)
    assert re.search(r"^data/b.train.safetensors +1 files", text, re.MULTILINE)
    assert contents(results).keys() == everything.keys()  # only listed
    assert "belong to nothing that the configuration names" in clone.make("verify", "small")
    assert re.search(
        rf"^removed  {NODE}/b +\d+ files", clone.make("prune-results", "small"), re.MULTILINE
    )
    assert not [name for name in contents(results) if "/b" in name]
    assert not [name for name in recorded(results) if "/b" in name]
    assert "all as this commit would make them" in (text := clone.make("verify", "small"))
    assert "belong to nothing" not in text
    assert "nothing but what the configuration names" in clone.make("leftovers", "small")
    assert clone.planned(name="small") == set()
    # and they come back from where they were shared
    clone.git("checkout", "--quiet", ".")
    clone.run("dvc", "checkout", "run@small")
    assert contents(results) == everything


# --------------------------------------------------------------------------------------------------
# one run at a time


def test_of_two_runs_at_once_the_second_refuses_and_nothing_is_damaged(clone):
    longer = small()
    longer["tasks"]["b"]["training"] = {"epochs": 60}
    clone.write(longer)
    first = clone.begun("small")
    checkpoint = clone.results("small") / NODE / "b/dense.checkpoint"
    while not checkpoint.exists() and first.poll() is None:
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGSTOP)  # it holds its lock, and lets the others have the cores
    try:
        for target in ("run", "repair", "share", "prune-results"):
            text = clone.make(target, "small", fails=True)
            assert "results/small: in use by a run on" in text
            assert "wait for its end, or stop it" in text
        # whoever goes around make is stopped too
        command = ["snakemake", "--configfile", "config/small.yaml", "--directory", "results/small"]
        assert "in use by a run on" in clone.run(*command, fails=True)
        assert "in use by a run on" in clone.run(
            "dvc", "repro", "--force", "--single-item", "run@small", fails=True
        )
        assert "what it has not done yet counts as missing, unfinished or stale" in clone.make(
            "verify", "small", fails=True
        )
        assert "what it writes now may be listed" in clone.make("leftovers", "small")
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    text, _ = first.communicate()
    assert first.returncode == 0, text
    assert "all as this commit would make them" in clone.make("verify", "small")

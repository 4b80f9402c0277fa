"""What a person types, and the files that are generated or shown to them."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import yaml

from acll.cli.main import main
from acll.packing import file
from acll.packing.ownership import digest, effective, overwrite
from acll.reference import reference
from conftest import ROOT, learn, tiny_task
from test_packing import networks


@pytest.fixture
def results(tmp_path):
    """A packed network of two tasks, as a run leaves it."""
    build = networks([4, 3])
    first = learn(None, build, tiny_task("a"))
    second = learn(first, build, tiny_task("b"))
    folder = tmp_path / "results/nodes/small/adaptive/seed0/a"
    file.write(folder / "network.safetensors", first)
    file.write(folder / "b/network.safetensors", second)
    return tmp_path / "results"


def test_a_report_of_a_run_that_has_not_ended_is_refused(tmp_path, capsys):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "config/demo.yaml")])
    assert "has the run ended?" in capsys.readouterr().err
    assert not list(tmp_path.rglob("report.html"))


def test_prove_counts_what_is_bit_for_bit_as_learned(results, capsys):
    main(["prove", str(results)])
    assert "3 tasks in 2 networks, 3 bit for bit as learned" in capsys.readouterr().out


def test_prove_finds_a_task_that_was_changed_even_if_its_own_file_says_otherwise(results, capsys):
    path = results / "nodes/small/adaptive/seed0/a/b/network.safetensors"
    packed = file.read(path)
    name = next(name for name, owner in packed.owner.items() if bool((owner == 1).any()))
    changed = dict(packed.shared)
    changed[name] = changed[name] * 1.5
    forged = replace(packed, shared=changed)
    records = tuple(replace(record, digest=digest(effective(forged, record.name))) for record in packed.tasks)
    file.write(path, replace(forged, tasks=records))  # a sound file by itself
    with pytest.raises(SystemExit) as ended:
        main(["prove", str(results)])
    assert ended.value.code == 1
    output = capsys.readouterr()
    assert "changed: a in nodes/small/adaptive/seed0/a/b" in output.out
    assert "1 tasks are not what they were" in output.err


def test_prove_reports_fine_tuning_without_failing(results, capsys):
    folder = results / "nodes/small/finetune/seed0/a"
    build = networks([4, 3])
    packed = replace(file.read(results / "nodes/small/adaptive/seed0/a/network.safetensors"), method="finetune")
    record = replace(packed.tasks[0], frozen=False)
    first = replace(packed, tasks=(record,))
    second = overwrite(first, replace(record, name="b"), build("classification", 3, 7).state_dict())
    file.write(folder / "network.safetensors", first)
    file.write(folder / "b/network.safetensors", second)
    main(["prove", str(results)])
    assert "changed: a in nodes/small/finetune/seed0/a/b" in capsys.readouterr().out


def test_inspect_names_the_tasks_and_shares(results, capsys):
    main(["inspect", str(results / "nodes/small/adaptive/seed0/a/b/network.safetensors")])
    out = capsys.readouterr().out
    assert re.search(r"1\s+a\s+classification\s+3\s+16x16", out)
    assert "shared weights" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "absent.safetensors"], "there is no such file"),
        (["prove", "absent"], "has the run ended?"),
        (["table", "absent"], "has the run ended?"),
        (["check", "absent.yaml"], "there is no such file"),
    ],
)
def test_mistakes_end_with_a_line_and_exit_code_one(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_first_run_adds_its_stage_to_dvc_yaml_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    demo = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    before = (ROOT / "dvc.yaml").read_text()
    (tmp_path / "dvc.yaml").write_text(before)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/mine.yaml").write_text(yaml.safe_dump(demo | {"name": "mine"}))
    main(["check", "config/mine.yaml"])
    assert (tmp_path / "dvc.yaml").read_text() == before
    main(["ready", "config/mine.yaml"])
    assert "dvc.yaml: a stage for mine" in capsys.readouterr().out
    after = (tmp_path / "dvc.yaml").read_text()
    added = [line.strip() for line in after.splitlines() if line not in before.splitlines()]
    assert added == ["- mine", "- results/mine/tables/metrics.json", "- results/mine/tables/plot.csv:"]
    assert set(before.splitlines()) <= set(after.splitlines())  # comments too
    parts = yaml.safe_load(after)
    assert parts["stages"]["run"]["foreach"] == ["demo", "mine"]
    assert [next(iter(plot.values())) for plot in parts["plots"]] == [
        parts["plots"][0]["results/demo/tables/plot.csv"]
    ] * 2
    main(["ready", "config/mine.yaml"])
    assert "dvc.yaml" not in capsys.readouterr().out
    assert (tmp_path / "dvc.yaml").read_text() == after


def test_check_reports_missing_raw_data_of_every_task(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACLL_DATA_ROOT", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["check", str(ROOT / "config/real.yaml")])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all("there is no such folder" in line for line in lines)


@pytest.mark.realdata
def test_the_real_configuration_is_sound_with_the_real_data(real_data, monkeypatch, capsys):
    monkeypatch.setenv("ACLL_DATA_ROOT", str(real_data))
    main(["check", str(ROOT / "config/real.yaml")])
    assert "sound" in capsys.readouterr().out


def test_the_reference_of_keys_is_current():
    assert (ROOT / "config/README.md").read_text() == reference(), "type `make docs`"


def test_a_stage_has_one_out_that_dvc_never_deletes():
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["run"]
    assert stage["foreach"] == ["demo"]  # the others get theirs when they are run first
    assert stage["do"]["outs"] == [{"results/${item}": {"persist": True}}]


def test_the_lock_has_a_hash_for_everything_and_no_address():
    lock = (ROOT / "requirements/lock.txt").read_text()
    assert "://" not in lock
    assert "index" not in re.sub(r"#.*", "", lock)
    for block in re.split(r"\n(?=\S)", lock.strip()):
        if not block.startswith("#"):
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_dvc_keeps_snakemakes_metadata_and_leaves_out_what_differs_from_run_to_run(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvcignore").write_text((ROOT / ".dvcignore").read_text())
    names = [
        "results/demo/.snakemake/metadata/abc", "results/demo/.snakemake/locks/0.lock",
        "results/demo/.snakemake/log/x.log", "results/demo/logs/a.log", "results/demo/benchmarks/a.tsv",
        "results/demo/nodes/a/dense.checkpoint", "results/demo/tables/scores.csv",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    result = subprocess.run(["dvc", "check-ignore", *names], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert set(names) - set(result.stdout.split()) == {names[0], names[-1]}


def test_prove_proves_nothing_where_there_is_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["prove", str(tmp_path)])
    assert "there is no packed network; has the run ended?" in capsys.readouterr().err


def test_prove_wants_the_file_of_every_node(results, capsys):
    (results / "nodes/small/adaptive/seed0/a/network.safetensors").unlink()
    with pytest.raises(SystemExit):
        main(["prove", str(results)])
    assert "there is no such file" in capsys.readouterr().err


def test_check_reports_a_missing_file_of_weights(tmp_path, monkeypatch, capsys):
    demo = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    demo["networks"]["small"] |= {"weights": "mine.safetensors"}
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(demo))
    monkeypatch.setenv("ACLL_DATA_ROOT", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path / "demo.yaml")])
    assert "networks.small.weights = 'mine.safetensors': there is no such file" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------------------
# raw data


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Write a configuration of one task into a checkout of its own; returns its path."""
    monkeypatch.setenv("ACLL_DATA_ROOT", str(tmp_path / "data"))

    def written(**task):
        content = {
            "name": "mine", "tasks": {"a": {"image_size": 16} | task}, "networks": {"n": {"backbone": "lenet"}},
            "sequences": {"one": {"network": "n", "tasks": ["a"]}}, "methods": {"half": {"ratio": 0.5}},
        }  # fmt: skip
        path = tmp_path / "config/mine.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content))
        return path

    return written


def test_raw_data_that_only_dvc_has_do_not_stop_a_check(checkout, tmp_path, capsys):
    path = checkout(source="image_folder", path="pets")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/pets.dvc").write_text("outs:\n- md5: 0123456789abcdef.dir\n  path: pets\n")
    main(["check", str(path)])
    output = capsys.readouterr().out
    assert "taken to be what they were when they were read: the raw data of a" in output
    assert "sound" in output


def test_raw_data_that_are_not_what_dvc_says_fail_a_check(checkout, tmp_path, capsys):
    path = checkout(source="image_folder", path="pets")
    (tmp_path / "data/pets/train/cat").mkdir(parents=True)
    (tmp_path / "data/pets.dvc").write_text("outs:\n- md5: 0123456789abcdef.dir\n  path: pets\n")
    with pytest.raises(SystemExit):
        main(["check", str(path)])
    error = capsys.readouterr().err
    assert "tasks.a: " in error
    assert "is not what pets.dvc says" in error


def test_a_dataset_that_is_not_there_is_named_with_how_to_fetch_it(checkout, capsys):
    for dataset, how in (("MNIST", "`make download CONFIG=<name>` fetches it"), ("StanfordCars", "by hand")):
        with pytest.raises(SystemExit):
            main(["check", str(checkout(source="torchvision", dataset=dataset, path="sets"))])
        error = capsys.readouterr().err
        assert f"{dataset} is not there" in error
        assert how in error


def test_download_says_how_much_it_fetched_and_what_is_still_missing(checkout, capsys):
    main(["download", str(checkout(source="digits"))])
    assert "0 datasets fetched" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["download", str(checkout(source="torchvision", dataset="StanfordCars", path="sets"))])
    assert "has to be fetched by hand" in capsys.readouterr().err

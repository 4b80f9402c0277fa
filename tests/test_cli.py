"""What a person types, and the files that are generated or shown to them."""

import csv
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import acll
from acll.cli.main import main
from acll.config.reference import reference
from acll.data.storage import _entries
from acll.networks.build import build as build_network
from acll.networks.spec import BackboneNetwork, DecoderNetwork
from acll.packing import packed_file
from acll.packing.ownership import commit_finetuned, digest, task_state_dict
from acll.run_summary import make_command
from conftest import ROOT, learn, tiny_packed, tiny_task
from datasets import pets
from test_packing import networks


@pytest.fixture
def results(tmp_path):
    """A packed network of two tasks, as a run leaves it."""
    build = networks([4, 3])
    first = learn(None, build, tiny_task("a"))
    second = learn(first, build, tiny_task("b"))
    folder = tmp_path / "results/nodes/small/adaptive/seed0/a"
    packed_file.write_packed(folder / "network.safetensors", first)
    packed_file.write_packed(folder / "b/network.safetensors", second)
    return tmp_path / "results"


def test_a_report_of_a_run_that_has_not_ended_is_refused(tmp_path, capsys):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "config/demo.yaml")])
    assert "has the run ended?" in capsys.readouterr().err
    assert not list(tmp_path.rglob("report.html"))


def test_prove_counts_what_is_bit_for_bit_as_learned(results, capsys):
    main(["prove", str(results)])
    output = capsys.readouterr().out
    assert "adaptive: 3 of 3 bit for bit as learned (each task, in the network after it" in output
    assert output.endswith("\n\nproved: adaptive: promised that no task changes, and none has\n")


def test_prove_finds_a_task_that_was_changed_even_if_its_own_file_says_otherwise(results, capsys):
    path = results / "nodes/small/adaptive/seed0/a/b/network.safetensors"
    packed = packed_file.read_packed(path)
    name = next(name for name, owner in packed.owner.items() if bool((owner == 1).any()))
    changed = dict(packed.shared)
    changed[name] = changed[name] * 1.5
    forged = replace(packed, shared=changed)
    records = tuple(
        replace(record, digest=digest(task_state_dict(forged, record.name)))
        for record in packed.tasks
    )
    packed_file.write_packed(path, replace(forged, tasks=records))  # a sound file by itself
    with pytest.raises(SystemExit) as ended:
        main(["prove", str(results)])
    assert ended.value.code == 1
    output = capsys.readouterr()
    assert "changed: a in nodes/small/adaptive/seed0/a/b" in output.out
    assert "\nBROKEN: adaptive: promised that no task changes, but some have\n" in output.out
    assert "proved" not in output.out
    assert "1 tasks are not what they were" in output.err


def test_prove_reports_fine_tuning_without_failing(results, capsys):
    folder = results / "nodes/small/finetune/seed0/a"
    build = networks([4, 3])
    packed = replace(
        packed_file.read_packed(results / "nodes/small/adaptive/seed0/a/network.safetensors"),
        method="finetune",
    )
    record = replace(packed.tasks[0], frozen=False)
    first = replace(packed, tasks=(record,))
    second = commit_finetuned(
        first, replace(record, name="b"), build("classification", 3, 7).state_dict()
    )
    packed_file.write_packed(folder / "network.safetensors", first)
    packed_file.write_packed(folder / "b/network.safetensors", second)
    main(["prove", str(results)])
    output = capsys.readouterr().out
    assert "changed: " not in output
    assert output.endswith(
        "\n\nproved: adaptive: promised that no task changes, and none has\n"
        "no promise, so no failure: finetune (1 of 3 tasks changed)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "usage", "message"),
    [
        (
            ["predict", "n", "--task", "x", "--output", "o", "y"],
            "usage: acll predict",
            "there is no option --output; did you mean --out?",
        ),
        (
            ["predict", "n", "y", "--tsk", "x"],
            "usage: acll predict",
            "there is no option --tsk; did you mean --task?",
        ),
        (["report", "x", "--if-change=1", "--nonsense"], "usage: acll report", "option --nonsense"),
        (["run", "x", "--verbos", "y"], "usage: acll run", "not understood: y"),
        (["--halp"], "usage: acll ", "there is no option --halp; did you mean --help?"),
        (["predikt", "x"], "usage: acll ", "there is no command predikt; did you mean predict?"),
        (["xyz"], "usage: acll ", "there is no command xyz\n"),
    ],
)
def test_what_is_not_known_ends_with_the_nearest_name_and_the_usage_of_its_command(
    capsys, arguments, usage, message
):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(usage)
    assert message in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "absent.safetensors"], "there is no such file"),
        (["prove", "absent"], "has the run ended?"),
        (["table", "absent"], "has the run ended?"),
        (["check", "absent.yaml"], "there is no such file"),
    ],
)
def test_mistakes_end_with_a_line_and_exit_code_one(
    tmp_path, monkeypatch, capsys, arguments, message
):
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
    with pytest.raises(SystemExit):
        main(["ready", "config/mine.yaml"])
    assert "is no git repository, which DVC needs; `git init`" in capsys.readouterr().err
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    with pytest.raises(SystemExit):
        main(["ready", "config/mine.yaml"])
    assert "DVC is not set up" in capsys.readouterr().err
    (tmp_path / ".dvc").mkdir()
    main(["ready", "config/mine.yaml"])
    assert "dvc.yaml: a stage for mine" in capsys.readouterr().out
    after = (tmp_path / "dvc.yaml").read_text()
    added = [line.strip() for line in after.splitlines() if line not in before.splitlines()]
    assert added == [
        "- mine",
        "- results/mine/tables/metrics.json",
        "- results/mine/tables/plot.csv:",
        "- results/mine/tables/summary.csv:",
        "- results/mine/figures/scores.svg",
    ]
    assert set(before.splitlines()) <= set(after.splitlines())  # comments too
    parts = yaml.safe_load(after)
    assert parts["stages"]["run"]["foreach"] == ["demo", "mine"]
    ours, theirs = (
        parts["plots"][: len(parts["plots"]) // 2],
        parts["plots"][len(parts["plots"]) // 2 :],
    )
    assert json.loads(json.dumps(ours).replace("/demo/", "/mine/")) == theirs
    main(["ready", "config/mine.yaml"])
    assert "dvc.yaml" not in capsys.readouterr().out
    assert (tmp_path / "dvc.yaml").read_text() == after


def test_check_reports_missing_raw_data_of_every_task(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACLL_DATA_ROOT", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["check", str(ROOT / "config/real.yaml")])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all("there is no such file or folder" in line for line in lines)
    with pytest.raises(SystemExit):
        main(["check", str(ROOT / "config/permuted_mnist.yaml")])  # eleven tasks of one folder
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"tasks.mnist, mnist_permuted_1, mnist_permuted_10 and 8 more: .*/mnist: there is no", line
    )


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
        "results/demo/.snakemake/metadata/abc",
        "results/demo/.snakemake/locks/0.lock",
        "results/demo/.snakemake/log/x.log",
        "results/demo/logs/a.log",
        "results/demo/benchmarks/a.tsv",
        "results/demo/nodes/a/dense.checkpoint",
        "results/demo/tables/scores.csv",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    result = subprocess.run(
        ["dvc", "check-ignore", *names], cwd=tmp_path, capture_output=True, text=True, check=False
    )
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
    assert (
        "networks.small.weights = 'mine.safetensors': there is no such file"
        in capsys.readouterr().err
    )


def test_check_reports_weights_that_cannot_fit(tmp_path, monkeypatch, capsys):
    demo = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    demo["networks"]["small"] |= {"weights": "mine.safetensors"}
    (tmp_path / "config").mkdir()
    (tmp_path / "config/demo.yaml").write_text(yaml.safe_dump(demo))
    save_file({"layer.weight": torch.zeros(3)}, tmp_path / "mine.safetensors")
    monkeypatch.setenv("ACLL_DATA_ROOT", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path / "config/demo.yaml")])
    error = capsys.readouterr().err
    assert "networks.small: " in error
    assert "not the weights of this encoder" in error


def test_check_tells_what_of_a_file_of_weights_is_not_read(tmp_path, monkeypatch, capsys):
    demo = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    demo["networks"]["small"] |= {"weights": "mine.pth"}
    (tmp_path / "config").mkdir()
    (tmp_path / "config/demo.yaml").write_text(yaml.safe_dump(demo))
    encoder = build_network(
        BackboneNetwork(backbone="resnet_small"), "classification", 2, 0
    ).encoder
    state = {f"module.{name}": value for name, value in encoder.state_dict().items()}
    torch.save({"model": state | {"module.fc.bias": torch.zeros(3)}}, tmp_path / "mine.pth")
    monkeypatch.setenv("ACLL_DATA_ROOT", str(tmp_path))
    main(["check", str(tmp_path / "config/demo.yaml")])
    told, sound = capsys.readouterr().out.splitlines()
    assert "demo.yaml: networks.small.weights = 'mine.pth': the encoder takes " in told
    assert told.endswith("not read is what the file has besides: model.module.fc.bias")
    assert "demo.yaml: sound; " in sound


# --------------------------------------------------------------------------------------------------
# raw data


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Write a configuration of one task into a checkout of its own; returns its path."""
    monkeypatch.setenv("ACLL_DATA_ROOT", str(tmp_path / "data"))

    def written(**task):
        content = {
            "name": "mine",
            "tasks": {"a": {"image_size": 16} | task},
            "networks": {"n": {"backbone": "lenet"}},
            "sequences": {"one": {"network": "n", "tasks": ["a"]}},
            "methods": {"half": {"ratio": 0.5}},
        }
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


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"acll {acll.__version__}\n"


def test_check_says_where_the_data_root_is_not_there(checkout, tmp_path, monkeypatch, capsys):
    path = checkout(source="image_folder", path="pets")
    monkeypatch.setattr("acll.sharing.raw.recorded_identity", lambda *_: "as it was")
    main(["check", str(path)])
    output = capsys.readouterr().out
    assert f"{tmp_path}/data: there is no such folder (data_root, or DATA=…)" in output
    assert "so taken to be what they were when they were read: the raw data of a" in output
    assert "sound, as far as it can be told without them" in output
    (tmp_path / "data").mkdir()
    main(["check", str(path)])
    output = capsys.readouterr().out
    assert "no such folder" not in output
    assert "without them" in output
    assert f"warning: not in {tmp_path}/data, so taken to be" in output  # somebody has named it
    monkeypatch.delenv("ACLL_DATA_ROOT")
    monkeypatch.chdir(tmp_path)
    main(["check", str(path)])
    output = capsys.readouterr().out
    assert "so taken to be what they were" in output
    assert "warning" not in output


def test_check_names_files_that_would_not_be_used(checkout, tmp_path, capsys):
    path = checkout(source="image_folder", path="pets")
    pets(tmp_path / "data")
    for number in range(5):
        (tmp_path / f"data/pets/train/cat/{number}.avif").touch()
    main(["check", str(path)])
    output = capsys.readouterr().out
    assert "warning: tasks.a: train/cat/0.avif: not read: it lies elsewhere, or its end" in output
    assert "warning: tasks.a: … and 2 more (files that are not used)" in output
    assert "sound; " in output
    (tmp_path / "data/pets/train").rename(tmp_path / "data/pets/Train")
    with pytest.raises(SystemExit):
        main(["check", str(path)])
    assert "tasks.a: " in (error := capsys.readouterr().err)
    assert "did you mean `train`?" in error


def test_check_decodes_images_where_nothing_can_be_written(checkout, tmp_path, capsys, monkeypatch):
    path = checkout(source="image_folder", path="pets")
    pets(tmp_path / "data")
    monkeypatch.setattr("acll.config.images._FOLDER", Path("/proc/none"))
    main(["check", str(path), "--images"])
    assert "a: 16 images decoded\n" in capsys.readouterr().out


def test_check_decodes_the_images_of_a_series_once(checkout, tmp_path, capsys):
    path = checkout(source="image_folder", path="pets")
    pets(tmp_path / "data")
    content = yaml.safe_load(path.read_text())
    for sequence in content["sequences"].values():
        sequence["tasks"] = {"of": "a", "permuted": 3}
    path.write_text(yaml.safe_dump(content))
    main(["check", str(path), "--images"])
    assert re.findall(r"^.*images decoded$", capsys.readouterr().out, re.MULTILINE) == [
        "a: 16 images decoded"
    ]
    for sequence in content["sequences"].values():
        sequence["tasks"] = {"of": "a", "train_samples": [4, 999]}
    path.write_text(yaml.safe_dump(content))
    assert ended("check", path, "--images") == 1
    assert "a_train_samples_999: train_samples = 999: there are " in capsys.readouterr().err


def test_check_decodes_images_if_asked_and_says_if_not(checkout, tmp_path, capsys):
    path = checkout(source="image_folder", path="pets")
    pets(tmp_path / "data")
    main(["check", str(path)])
    again = make_command("check", "mine")
    said = f"what is in images and masks; `{again} IMAGES=1` decodes them all"
    assert said in capsys.readouterr().out
    main(["check", str(path), "--images"])
    output = capsys.readouterr().out
    assert said not in output
    assert re.search(r"^a: \d+ images decoded$", output, re.MULTILINE)
    cut = tmp_path / "data/pets/train/cat/1.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    main(["check", str(path)])
    assert ended("check", path, "--images") == 1
    error = capsys.readouterr().err
    assert f"error: {path}: a: 1 file cannot be used" in error
    assert "train/cat/1.png: " in error
    # what is wrong with names, too: one look finds all, and nothing is called sound
    content = yaml.safe_load(path.read_text())
    content["tasks"]["b"] = content["tasks"]["a"] | {"path": "pest"}
    path.write_text(yaml.safe_dump(content))
    assert ended("check", path, "--images") == 1
    said = capsys.readouterr()
    assert "train/cat/1.png: " in said.err
    assert "tasks.b: " in said.err
    assert "pest" in said.err
    assert "sound" not in said.out
    left = [file.name for file in (tmp_path / ".cache/check").iterdir()]
    assert left == ["mine.a.faults.csv"]
    assert not (tmp_path / "results").exists()


def test_a_fault_of_a_source_that_two_tasks_are_made_of_is_told_once(checkout, tmp_path, capsys):
    path = checkout(source="image_folder", path="pets")
    content = yaml.safe_load(path.read_text())
    content["tasks"]["b"] = content["tasks"]["a"]
    path.write_text(yaml.safe_dump(content))
    pets(tmp_path / "data")
    (tmp_path / "data/pets/train").rename(tmp_path / "data/pets/Train")
    assert ended("check", path, "--images") == 1
    assert capsys.readouterr().err.count("did you mean `train`?") == 1


def test_check_finds_images_without_masks_by_their_names_alone(checkout, tmp_path, capsys):
    path = checkout(source="mask_folder", path="roads", classes=["no", "road"])
    content = yaml.safe_load(path.read_text())
    content["networks"] = {"n": {"decoder": "unet", "encoder": "resnet_small"}}
    content["tasks"]["a"]["image_size"] = 32
    content["tasks"]["b"] = content["tasks"]["a"] | {"on_error": "skip"}
    path.write_text(yaml.safe_dump(content))
    for part, count in (("images", 5), ("masks", 4)):
        (tmp_path / "data/roads/train" / part).mkdir(parents=True)
        for number in range(count):  # nothing that could be decoded
            (tmp_path / f"data/roads/train/{part}/{number}.png").touch()
    assert ended("check", path) == 1
    what = "train/images/4.png: an image without a mask of the same name"
    assert capsys.readouterr().err.splitlines() == [
        f"error: {path}: tasks.a: 1 file cannot be used (on_error: stop; `skip` leaves out such "
        "files)",
        f"error: {path}: tasks.a: {what}",
    ]
    content["tasks"]["a"] |= {"on_error": "skip"}
    path.write_text(yaml.safe_dump(content))
    main(["check", str(path)])
    assert f"{path}: warning: tasks.a, b: {what}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((16, 16), 7, np.uint8), "its mask has the labels 7, outside the 2 classes"),
        (
            np.eye(16, dtype=np.uint8) * 255,
            "hold one class, and nothing of road; masks hold the indices of the classes",
        ),
        (np.full((8, 8), 1, np.uint8), "the mask has 8x8 pixels, its image 16x16 pixels"),
    ],
)
def test_check_of_images_finds_what_is_wrong_with_masks(checkout, tmp_path, capsys, mask, message):
    path = checkout(source="mask_folder", path="roads", classes=["no", "road"])
    content = yaml.safe_load(path.read_text())
    content["networks"] = {"n": {"decoder": "unet", "encoder": "resnet_small"}}
    content["tasks"]["a"]["image_size"] = 32
    path.write_text(yaml.safe_dump(content))
    for part in ("images", "masks"):
        (tmp_path / "data/roads/train" / part).mkdir(parents=True)
    for number in range(12):
        image = np.full((16, 16, 3), number, np.uint8)
        Image.fromarray(image).save(tmp_path / f"data/roads/train/images/{number}.png")
        values = mask if number == 5 or mask.max() > 8 else np.eye(16, dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / f"data/roads/train/masks/{number}.png")
    main(["check", str(path)])
    assert ended("check", path, "--images") == 1
    assert message in capsys.readouterr().err


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
    for dataset, how in (
        ("MNIST", "`make download CONFIG=<name>` fetches it"),
        ("StanfordCars", "by hand"),
    ):
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


# --------------------------------------------------------------------------------------------------
# packed networks


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A packed network of a classification and a segmentation task, and a folder of images."""
    folder = tmp_path_factory.mktemp("network")
    spec = DecoderNetwork(decoder="unet", encoder="resnet_small")
    first = tiny_packed("digits", spec=spec, size=16)
    packed_file.write_packed(folder / "one.safetensors", first)

    def build(kind, classes, seed):
        return build_network(spec, kind, classes, seed, pretrained=False)

    build.has_decoder, build.spec = True, first.network
    packed_file.write_packed(
        folder / "two.safetensors",
        learn(first, build, tiny_task("streets", "segmentation", size=16)),
    )
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(values).save(folder / f"images/{number}.png")
    return folder


def ended(*arguments) -> int:
    """The exit code of a command that does not end well."""
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments)])
    return caught.value.code


def test_inspect_gives_people_a_table_and_programs_json_with_bytes_that_are_those_on_disk(
    network, capsys
):
    main(["inspect", str(network / "two.safetensors")])
    out = capsys.readouterr().out
    assert re.search(r"1 +digits +3 +16x16 +accuracy 0\.5000 +0\.500", out)
    assert re.search(r"2 +streets +\d+ +\d+x\d+ +mean IoU 0\.5000 +0\.500", out)
    main(["inspect", str(network / "two.safetensors"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [task["name"] for task in found["tasks"]] == ["digits", "streets"]
    assert 0 < found["free"] < found["weights"]
    free = f"{found['free']:,} free ({found['free'] / found['weights']:.1%})"
    assert f"{found['weights']:,} shared weights, {free}; " in out
    assert found["bytes"] == (network / "two.safetensors").stat().st_size
    assert found["tasks"][1]["bytes_of_first"] == pytest.approx(found["bytes"], rel=0.01)
    assert found["tasks"][0]["bytes_of_first"] == pytest.approx(
        (network / "one.safetensors").stat().st_size, rel=0.01
    )
    assert found["tasks"][1]["bytes_of_first"] < found["tasks"][1]["bytes_separate"]
    parts = found["parts"]
    assert (
        parts["weights"] + parts["owners"] + sum(parts["private"].values()) + parts["header"]
        == (found["bytes"])
    )
    assert re.search(rf"owner maps +{parts['owners']:,} +\d+\.\d%", out)
    assert re.search(rf"private state of streets +{parts['private']['streets']:,} ", out)


def test_inspect_is_no_wider_than_a_terminal_however_long_names_are(network, capsys, tmp_path):
    name = "a_task_of_a_very_long_name_indeed"
    spec = BackboneNetwork(backbone="resnet_small")
    packed = tiny_packed(name, spec=spec, size=16, classes=4)
    packed_file.write_packed(tmp_path / "long.safetensors", packed)
    main(["inspect", str(tmp_path / "long.safetensors")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(re.match(r" *1 +a_task_of_\w+… +4 +16x16 ", line) for line in lines)


def test_compare_says_what_differs_and_its_exit_code_whether_anything_does(network, capsys):
    main(["compare", str(network / "one.safetensors"), str(network / "one.safetensors")])
    assert "the networks are equal" in capsys.readouterr().out
    assert ended("compare", network / "one.safetensors", network / "two.safetensors") == 1
    out = capsys.readouterr().out
    assert re.search(r"digits +equal", out)
    assert re.search(r"streets +only in the second", out)
    other = tiny_packed("digits", spec=BackboneNetwork(backbone="resnet_small"), size=16, classes=4)
    packed_file.write_packed(network / "other.safetensors", other)
    assert ended("compare", network / "one.safetensors", network / "other.safetensors") == 1
    out = capsys.readouterr().out
    assert re.search(r"digits +differ", out)
    assert "digits.classes: class_0, class_1, class_2 → class_0, class_1, class_2, class_3" in out
    assert "network.decoder: unet → -" in out
    assert "network.backbone: - → resnet_small" in out
    first = packed_file.read_packed(network / "one.safetensors")

    def told(**known):
        """What compare says where the records of the task differ in this, before and after."""
        for number, name in enumerate(("first", "other")):
            own = {key: value[number] for key, value in known.items()}
            packed_file.write_packed(
                network / f"{name}.safetensors",
                replace(first, tasks=(replace(first.tasks[0], **own),)),
            )
        assert ended("compare", network / "first.safetensors", network / "other.safetensors") == 1
        return capsys.readouterr().out.splitlines()[3:]

    assert told(rotate=(0.0, 9.0)) == ["digits.rotate: 0.0 → 9.0"]
    assert told(curve=([0.5] * 9, [0.5] * 9 + [0.25, 0.75])) == [
        "digits.curve[9]: - → 0.25 (and 1 more)"
    ]
    assert told(curve=([], [0.5])) == ["digits.curve: none → 0.5"]
    assert told(choice=({"ratio": None}, {})) == ["digits.choice.ratio: None → -"]
    assert told(choice=({"cap": 0.5}, {"cap": 0.25})) == ["digits.choice.cap: 0.5 → 0.25"]
    assert ended("compare", network / "one.safetensors", network / "absent.safetensors") == 2


def test_predict_classifies_files_folders_and_lists_in_every_form(network, capsys, monkeypatch):
    path, images = str(network / "two.safetensors"), network / "images"
    main(["predict", path, str(images), "--task", "digits"])
    table = capsys.readouterr().out
    assert all(f"{number}.png" in table for number in range(3))
    main(
        [
            "predict",
            path,
            str(images / "1.png"),
            "--task",
            "digits",
            "--format",
            "json",
            "--top",
            "2",
        ]
    )
    (one,) = json.loads(capsys.readouterr().out)
    expected = acll.load(path).predict("digits", images / "1.png").top(2)
    assert [(row["class"], row["probability"]) for row in one["classes"]] == [
        (name, round(value, 6)) for name, value in expected
    ]
    names = f"{images / '2.png'}\n{images / '0.png'}\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names)))
    main(["predict", path, "-", "--task", "digits", "--format", "csv", "--top", "1"])
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["image", "rank", "class", "probability"]
    assert [row[0] for row in rows[1:]] == [str(images / "2.png"), str(images / "0.png")]


def test_predict_leaves_out_masks_that_lie_beside_images(network, tmp_path, capsys):
    """The data set that a task was trained with may be named as it is."""
    for part in ("train/images", "train/masks", "masks"):
        shutil.copytree(network / "images", tmp_path / part)
    command = ["predict", str(network / "two.safetensors"), "--task", "digits"]
    main([*command, str(tmp_path)])
    told = capsys.readouterr()
    assert told.out.count(".png") == 6  # `masks` has no `images` beside it
    assert str(tmp_path / "train/masks") not in told.out
    assert told.err.splitlines() == [
        f"{tmp_path}: 3 files in folders `masks` beside `images` are left out"
    ]
    main([*command, str(tmp_path / "train/masks")])
    assert capsys.readouterr().out.count(".png") == 3


def test_predict_says_that_a_folder_holds_what_it_has_written(network, tmp_path, capsys):
    shutil.copy(network / "images/0.png", tmp_path / "0.mask.png")
    (tmp_path / "notes.txt").touch()
    command = ["predict", network / "two.safetensors", tmp_path, "--task", "digits"]
    assert ended(*command) == 1
    told = f"{tmp_path}: holds no image but those that `acll predict` has written"
    assert told in capsys.readouterr().err


def test_predict_writes_masks_of_the_size_of_the_images_and_overlays(network, tmp_path, capsys):
    path = str(network / "two.safetensors")
    main(
        [
            "predict",
            path,
            str(network / "images"),
            "--task",
            "streets",
            "--out",
            str(tmp_path / "masks"),
        ]
    )
    assert f"3 images: masks and overlays in {tmp_path / 'masks'}" in capsys.readouterr().out
    for number in range(3):
        with Image.open(tmp_path / f"masks/{number}.mask.png") as mask:
            expected = acll.load(path).predict("streets", network / f"images/{number}.png").mask
            assert np.array_equal(np.asarray(mask), expected)
        with Image.open(tmp_path / f"masks/{number}.overlay.png") as overlay:
            assert overlay.size[0] >= 30
            assert overlay.size[1] > 20
    assert len(list((tmp_path / "masks").iterdir())) == 6


def test_whose_mask_is_whose_is_said_where_it_has_another_name(network, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    content = (network / "images/0.png").read_bytes()
    for name in ("scan.v1.png", "scan.v2.png", "scan.v2.PNG", "plain.png"):
        (images / name).write_bytes(content)
    for name in ("scan.2024", "scan.2025"):  # are images, whatever they are called
        (tmp_path / name).write_bytes(content)
    path, out = str(network / "two.safetensors"), tmp_path / "masks"
    named = [str(images), str(tmp_path / "scan.2024"), str(tmp_path / "scan.2025")]
    main(["predict", path, *named, "--task", "streets", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    # an ending in capitals comes first
    assert lines[:-1] == [f"{images}/scan.v2.png: {out}/scan.v2-2.mask.png"]
    expected = {"scan.v1", "scan.v2", "scan.v2-2", "plain", "scan.2024", "scan.2025"}
    assert {file.name.removesuffix(".mask.png") for file in out.glob("*.mask.png")} == expected


def test_what_predict_has_made_is_not_predicted_nor_what_is_hidden(network, tmp_path, capsys):
    shutil.copytree(network / "images", tmp_path / ".kept/images")
    shutil.copytree(network / "images", tmp_path / ".kept/images/.thumbnails")
    (tmp_path / ".kept/images/._0.png").write_bytes(b"what macOS adds")
    (tmp_path / "images").symlink_to(tmp_path / ".kept/images")
    command = [
        "predict",
        str(network / "two.safetensors"),
        str(tmp_path / "images"),
        "--task",
        "streets",
    ]
    for _ in range(2):
        main([*command, "--out", str(tmp_path / "images/masks")])
        assert "3 images: masks and overlays" in capsys.readouterr().out


def test_predict_names_images_that_cannot_be_used_and_goes_on_with_the_others(
    network, tmp_path, capsys
):
    (tmp_path / "bad.png").write_bytes(b"rubbish")
    images = [
        network / "images/0.png",
        tmp_path / "bad.png",
        tmp_path / "absent.png",
        network / "images/1.png",
    ]
    assert ended("predict", network / "two.safetensors", *images, "--task", "digits") == 1
    output = capsys.readouterr()
    assert "0.png" in output.out
    assert "1.png" in output.out
    assert re.search(r"error: .*bad\.png: not a readable image", output.err)
    assert re.search(r"error: .*absent\.png: cannot be read: No such file", output.err)


# names that file systems may have, and screens, tables and longer names may not
ODD_NAMES = {
    "not UTF-8": b"caf\xe9.png",
    "escapes": b"red\x1b[31m.png",
    "other direction": "\u202egnp.exe.png".encode(),
    "two lines": b"two\nlines.png",
    "a surrogate": b"\xed\xa0\x80.png",
    "too long for outputs": b"x" * 251 + b".png",
    "too long, of other letters": "é".encode() * 125 + b"x.png",
}


@pytest.fixture
def odd(network, tmp_path):
    """A folder of images with odd names, two plain ones among them."""
    content = (network / "images/0.png").read_bytes()
    (tmp_path / "odd").mkdir()
    for name in [*ODD_NAMES.values(), b"first.png", b"z.png"]:
        (tmp_path / "odd" / os.fsdecode(name)).write_bytes(content)
    return tmp_path / "odd"


FORMS = ["table", "csv", "json"]
ACLL = [sys.executable, "-c", "from acll.cli.main import main; main()"]


def on_screen(*arguments):
    """What `acll` writes to a pipe, as bytes, and its exit code; nothing that a terminal obeys."""
    command = [*ACLL, *map(os.fsencode, map(str, arguments))]
    run = subprocess.run(command, capture_output=True, check=False)
    assert b"Traceback" not in run.stderr, run.stderr.decode()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", run.stderr)
    return run.returncode, run.stdout, run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_name_that_no_screen_can_show_costs_no_prediction(network, odd, form):
    names = {str(odd / os.fsdecode(name)) for name in [*ODD_NAMES.values(), b"first.png", b"z.png"]}
    options = ["--task", "digits", "--top", "1", "--format", form]
    code, out, _ = on_screen("predict", network / "two.safetensors", odd, *options)
    assert code == 0
    if form == "csv":  # for programs: the names are those of the files
        assert b"\r" not in out
        rows = list(csv.reader(io.StringIO(out.decode(errors="surrogateescape"))))
        assert {row[0] for row in rows[1:]} == names
    elif form == "json":
        assert {row["image"] for row in json.loads(out)} == names
        assert out.decode().replace("\n", "").isprintable()
    else:
        assert out.decode().replace("\n", "").isprintable()
        assert len(out.splitlines()) == len(names) + 2


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_name_with_letters_that_the_terminal_lacks_costs_no_prediction(
    network, odd, form, monkeypatch
):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (odd / "first.png").rename(odd / "ü.png")
    options = ["--task", "digits", "--top", "1", "--format", form]
    names = ["predict", network / "two.safetensors", odd / "ü.png", odd / "z.png"]
    code, out, _ = on_screen(*names, *options)
    assert code == 0
    assert ("\\xfc.png" if form == "table" else "ü.png") in out.decode()
    assert "z.png" in out.decode()


def test_a_folder_that_cannot_be_read_costs_no_other(network, odd, monkeypatch, capsys):
    def entries(folder, inner):
        if inner == "secret/":  # whoever runs this as root may read everything
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder / inner))
        return _entries(folder, inner)

    (odd / "secret").mkdir()
    monkeypatch.setattr("acll.data.storage._entries", entries)
    with pytest.raises(SystemExit):
        main(["predict", str(network / "two.safetensors"), "--task", "digits", str(odd)])
    said = capsys.readouterr()
    assert f"error: {odd}/secret: Permission denied" in said.err
    assert "z.png" in said.out


@pytest.mark.slow
def test_masks_of_odd_names_are_written_and_long_names_are_cut(network, odd, tmp_path):
    out = tmp_path / "masks"
    code, said, _ = on_screen(
        "predict", network / "two.safetensors", odd, "--task", "streets", "--out", out
    )
    assert code == 0
    assert len(list(out.glob("*.mask.png"))) == len(list(out.glob("*.overlay.png"))) == 9
    assert (out / os.fsdecode(b"caf\xe9.mask.png")).is_file()
    assert said.decode().replace("\n", "").isprintable()
    assert said.count(b".mask.png") == 2  # whose names are cut
    assert b"9 images: masks and overlays in" in said


def test_what_is_wrong_with_one_file_costs_no_other(network, odd, tmp_path, monkeypatch):
    (tmp_path / "folder.png").mkdir()
    (odd / "loop.png").symlink_to("loop.png")
    images = ["a" * 300, odd / "loop.png", odd / "absent.png/x.png", odd / "z.png"]
    (tmp_path / "list").write_bytes(
        b"\r\n".join(
            [*(os.fsencode(str(one)) for one in images), os.fsencode(odd) + b"/caf\xe9.png"]
        )
    )
    command = [*ACLL, "predict", network / "two.safetensors", "-"]
    with (tmp_path / "list").open() as names:
        run = subprocess.run(
            [*command, "--task", "digits", "--format", "csv", "--top", "1"],
            stdin=names, capture_output=True, check=False,
        )  # fmt: skip
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == 3
    assert run.stderr.count(b"error: ") == 3
    assert b"Traceback" not in run.stderr


def test_masks_that_cannot_be_written_cost_no_other(network, tmp_path, capsys):
    (tmp_path / "masks/1.mask.png/inside").mkdir(parents=True)  # a folder is in the way
    command = ["predict", network / "two.safetensors", network / "images", "--task", "streets"]
    assert ended(*command, "--out", tmp_path / "masks") == 1
    output = capsys.readouterr()
    image, mask = network / "images/1.png", tmp_path / "masks/1.mask.png"
    assert output.err == f"error: {image}: {mask}: Is a directory\n"
    assert "2 images: masks and overlays in" in output.out


@pytest.mark.slow
def test_an_interrupted_prediction_says_how_many_images_are_done_and_where(network, tmp_path):
    images, out = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    for number in range(300):
        shutil.copy(network / "images/1.png", images / f"{number}.png")
    command = [*ACLL, "predict", str(network / "two.safetensors"), str(images)]
    with subprocess.Popen(
        [*command, "--task", "streets", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as run:
        while len([*out.glob("*.overlay.png")]) < 2:
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        written, said = run.communicate()
    assert run.returncode == 130
    assert written == ""
    (count,) = re.fullmatch(
        rf"interrupted: (\d+) of 300 images are done, masks and overlays in {out}\n", said
    ).groups()
    assert 0 <= len([*out.glob("*.overlay.png")]) - int(count) <= 1
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("form", "rows", "where"),
    [
        ("csv", 2, "printed"),
        ("table", 0, "none is printed (with --format csv each is, as it is done)"),
    ],
)
def test_interrupted_classes_are_printed_as_far_as_their_form_allows(
    network, capsys, monkeypatch, form, rows, where
):
    two = acll.load(network / "one.safetensors").predict("digits", [network / "images/1.png"] * 2)

    def predict_each(*_):
        yield from two
        raise KeyboardInterrupt

    monkeypatch.setattr("acll.serving.model.PackedNetwork.predict_each", predict_each)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    options = ["--task", "digits", "--top", "1", "--format", form]
    assert ended("predict", network / "two.safetensors", network / "images", *options) == 130
    said = capsys.readouterr()
    assert said.err == f"interrupted: 2 of 3 images are done, {where}\n"
    assert len(said.out.splitlines()[1:]) == rows


def test_predict_goes_into_folders_that_are_links_and_not_round_in_circles(
    network, tmp_path, capsys
):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/linked").symlink_to(network / "images")
    (tmp_path / "photos/up").symlink_to(tmp_path)
    command = ["predict", network / "two.safetensors", tmp_path / "photos", "--task", "digits"]
    main(list(map(str, command)))
    out = capsys.readouterr().out
    assert out.count(".png") == 3
    assert str(tmp_path / "photos/linked/0.png") in out


def test_images_of_one_name_in_two_folders_do_not_overwrite_each_others_masks(
    network, tmp_path, capsys
):
    for name in ("a", "b"):
        shutil.copytree(network / "images", tmp_path / name)
    images = [str(tmp_path / name) for name in ("a", "b")]
    command = ["predict", str(network / "two.safetensors"), "--task", "streets", "--out"]
    main([*command, str(tmp_path / "masks"), *images])
    assert len(list((tmp_path / "masks").glob("*.mask.png"))) == 6
    assert capsys.readouterr().out.splitlines() == [
        *(
            f"{tmp_path}/b/{number}.png: {tmp_path}/masks/{number}-2.mask.png"
            for number in range(3)
        ),
        f"6 images: masks and overlays in {tmp_path}/masks",
    ]
    main([*command, str(tmp_path / "kept"), str(tmp_path)])
    assert {path.parent.name for path in (tmp_path / "kept").rglob("*.mask.png")} == {"a", "b"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["predict", "two", "-", "images", "--task", "digits"],
            "- stands for all names, which are read from standard",
        ),
        (
            ["predict", "two", "images", "--task", "zebra"],
            "has not learned 'zebra' (its tasks: digits, streets)",
        ),
        (
            ["predict", "two", "images"],
            "two.safetensors: say with --task which of its tasks is meant: digits, streets",
        ),
        (
            ["export", "two", "x.onnx"],
            "two.safetensors: say with --task which of its tasks is meant: digits, streets",
        ),
        (
            ["predict", "two", "images", "--task", "streets"],
            "say with --out into which folder its masks go",
        ),
        (
            ["predict", "two", "empty", "--task", "digits"],
            "empty: there is no image in this folder",
        ),
        (
            ["predict", "absent", "images", "--task", "digits"],
            "absent.safetensors: there is no such file",
        ),
        (["inspect", "images/0.png"], "not a file of acll, or damaged"),
        (
            ["predict", "two", "images", "--task", "digits", "--out", "x"],
            "gives no masks; leave out --out",
        ),
        (
            ["predict", "two", "images", "--task", "streets", "--out", "x", "--format", "csv"],
            "--top are for classes",
        ),
        (
            ["predict", "two", "images", "--task", "streets", "--out", "x", "--top", "1"],
            "--top are for classes",
        ),
        (
            ["predict", "two", "images", "--task", "streets", "--out", "two"],
            "two.safetensors: is a file; --out names",
        ),
        (["inspect", "images"], "images: is a folder, not a file of acll"),
        (["export", "two", "two", "--task", "digits"], "is the network that is read"),
        (["export", "two", "images/0.png/x.onnx", "--task", "digits"], "images/0.png: "),
        (
            ["export", "two", "x.txt", "--task", "digits"],
            "it must be one of .onnx, .pt2, .safetensors",
        ),
        (
            ["export", "two", "x.onnx", "--task", "digits", "--data", "absent"],
            "absent.safetensors: not the prepared images",
        ),
        (
            ["export", "two", "x.onnx", "--task", "digits", "--data", "images"],
            "images: not the prepared images",
        ),
        (
            ["export", "two", "x.onnx", "--task", "digits", "--data", "images/0.png"],
            "0.png: not the prepared images",
        ),
    ],
)
def test_mistakes_end_with_a_line_that_says_what_to_do(
    network, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(network)
    (network / "empty").mkdir(exist_ok=True)
    names = {"two": "two.safetensors", "absent": "absent.safetensors"}
    assert ended(arguments[0], *[names.get(one, one) for one in arguments[1:]]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_export_says_what_was_written_and_what_it_scores(network, tmp_path, capsys):
    main(
        [
            "export",
            str(network / "two.safetensors"),
            str(tmp_path / "streets.onnx"),
            "--task",
            "streets",
        ]
    )
    out = capsys.readouterr().out
    assert f"streets.onnx: streets, {(tmp_path / 'streets.onnx').stat().st_size:,} bytes" in out
    assert "largest difference of a logit" in out
    assert "name them with --data" in out


@pytest.mark.parametrize("place", ["config/sub/mine.yaml", "mine.yaml"])
def test_a_configuration_in_another_folder_is_told_where_it_belongs(tmp_path, capsys, place):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("name: mine")
    for command in ("plan", "run"):
        with pytest.raises(SystemExit) as ended:
            main([command, str(path)])
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert said == (
            f"error: {path}: a configuration lies in the folder config of its checkout: "
            "config/<name>.yaml\n"
        )

"""The method of CONTRIBUTING.md: one new file, and the pipeline runs it."""

import re

import pytest

from checkouts import GENERATED, checkout
from conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
METHOD = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL).group(1)
SETTINGS = {
    "name": "tiny",
    "tasks": {name: GENERATED | {"difficulty": share} for name, share in (("a", 0.0), ("b", 0.1))},
    "networks": {"small": {"backbone": "resnet_small"}},
    "sequences": {"one": {"network": "small", "tasks": ["a", "b"]}},
    "methods": {"pulled": {"type": "near", "strength": 0.1}, "free": {"type": "finetuning"}},
    "training": {"epochs": 1, "batch_size": 16},
}


def test_it_has_at_most_60_lines():
    assert len(METHOD.splitlines()) <= 60


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("method")
    made = checkout(folder / "checkout", folder)
    made.write(SETTINGS)
    unknown = made.make("check", fails=True)
    assert 'methods.pulled.type = "near": must be one of' in unknown
    (made.folder / "src/acll/methods/near.py").write_text(METHOD, encoding="utf-8")
    made.commit("a method")
    return made


@pytest.mark.slow
def test_it_runs_through_the_pipeline(own):
    own.make("run")
    table = (own.results() / "tables/scores.csv").read_text()
    assert "small,pulled,0,a+b,b" in table
    networks = [
        (own.results() / f"nodes/small/{method}/seed0/a/b/network.safetensors").read_bytes()
        for method in ("pulled", "free")
    ]
    assert networks[0] != networks[1]
    assert "all as this commit would make them" in own.make("verify")


@pytest.mark.slow
def test_its_setting_reruns_its_own_nodes_alone(own):
    changed = SETTINGS | {
        "methods": SETTINGS["methods"] | {"pulled": {"type": "near", "strength": 1.0}}
    }
    jobs = {f"{rule} small/pulled/seed0/a/b" for rule in ("train", "commit", "evaluate")}
    assert own.planned(changed) == jobs | {"tables", "figures"}


def test_its_keys_are_in_the_reference(own):
    text = own.run("python", "-m", "acll.config.reference")
    assert "`methods.<name>`, type `near`" in text

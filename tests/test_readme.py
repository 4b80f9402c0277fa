"""What README tells people to type works as it stands."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acll.networks.spec import BackboneNetwork, DecoderNetwork
from acll.packing import packed_file
from conftest import ROOT, tiny_packed

NODES = "results/demo/nodes"
DEMO = {
    f"{NODES}/small/adaptive/seed0/textures/digits/noisy": (
        "classification",
        BackboneNetwork(backbone="resnet_small"),
    ),
    f"{NODES}/unet/adaptive/seed0/discs/shapes/crowd": (
        "segmentation",
        DecoderNetwork(decoder="unet", encoder="resnet_small"),
    ),
}


def blocks(title: str) -> list[str]:
    """The indented blocks of a section of README, in order."""
    section = (ROOT / "README.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return [
        textwrap.dedent(block)
        for block in re.findall(r"(?:^(?: {4}.*)?\n)+", section, re.MULTILINE)
        if block.strip()
    ]


@pytest.fixture
def after_the_demo(tmp_path, monkeypatch):
    """A folder as the demo leaves it, as far as this goes, and some images."""
    for folder, (kind, spec) in DEMO.items():
        tasks = folder.split("seed0/")[1].split("/")
        packed_file.write_packed(
            tmp_path / folder / "network.safetensors",
            tiny_packed(*tasks, spec=spec, kind=kind, size=16),
        )
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photos/scan.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*command: str, text: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(
        command, input=text, capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_section_on_use_runs_as_it_stands(after_the_demo):
    shell, python = blocks("Use it")
    out = run("bash", "-eu", text=shell)
    assert re.search(r"3 +crowd +segmentation", out)
    assert "1 image: masks and overlays in masks" in out
    assert sorted(path.name for path in (after_the_demo / "masks").iterdir()) == [
        "scan.mask.png",
        "scan.overlay.png",
    ]
    assert (after_the_demo / "crowd.onnx").is_file()
    out = run(sys.executable, "-", text=python)
    assert out.startswith("[('textures', 'classification', 0.5, 0.5), ('digits', ")
    assert re.search(r"^class_\d \[\('class_\d', ", out, re.MULTILINE)

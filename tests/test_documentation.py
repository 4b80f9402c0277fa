"""What README and docs/ tell people to type works as it stands; links and tables are true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from acll.config.checks import load_configuration, parse
from acll.config.tree import runs
from acll.networks.spec import BackboneNetwork, DecoderNetwork
from acll.packing import packed_file
from acll.sharing.given import open_given
from acll.sharing.short_names import link_networks
from checkouts import GENERATED, checkout
from conftest import ROOT, tiny_packed
from datasets import generated, paths, prepare
from pages import PAGES, README, Block, blocks, broken_links, fault_of, indented_code

NODES = "results/demo/nodes"
UNET = DecoderNetwork(decoder="unet", encoder="resnet_small")
NETWORKS = {
    f"{NODES}/small/adaptive/seed0/textures/digits/noisy": (
        BackboneNetwork(backbone="resnet_small"),
        ("textures", "digits", "noisy"),
    ),
    "results/mine/nodes/unet/adaptive/seed0/birds/roads": (UNET, ("birds", "roads: segmentation")),
    ".": (UNET, ("discs: segmentation", "crowd: segmentation", "digits")),
}
IMAGES = ("photos/scan.png", "scans/one.png", "photo.png", "a.png", "b.png")
# what `make run` runs in place of the demo
SMALL_DEMO = {
    "name": "demo",
    "tasks": {
        name: GENERATED | {"difficulty": difficulty}
        for name, difficulty in (("textures", 0.0), ("digits", 0.1))
    },
    "networks": {"small": {"backbone": "resnet_small"}},
    "sequences": {"classify": {"network": "small", "tasks": ["textures", "digits"]}},
    "methods": {"adaptive": {"ratio": {"search": "tpe"}, "expected_tasks": 3}},
    "training": {"epochs": 1, "retrain_epochs": 1, "batch_size": 16},
}
RUN = [block for page in PAGES for block in blocks(page) if block.is_run]
(MINE,) = (block for block in RUN if block.page == README and block.language == "yaml")


def of(language: str, needs_checkout: bool = False) -> list[Block]:
    return [
        block
        for block in RUN
        if block.language == language and block.needs_checkout == needs_checkout
    ]


# --------------------------------------------------------------------------------------------------
# each block is run, or says why not


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page):
    assert [fault for block in blocks(page) if (fault := fault_of(block))] == []
    assert indented_code(page) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```sh\nmake run\n```\n", ""),
        ("```\nmake run\n```\n", "its language is none of"),
        ("<!-- not run: needs a GPU -->\n```sh\nmake run\n```\n", ""),
        ("<!-- not run:  -->\n```sh\nmake run\n```\n", "gives no reason"),
        ("<!-- not run -->\n```sh\nmake run\n```\n", "gives no reason"),
        ("<!-- not run: see tests/test_none.py -->\n```sh\nmake\n```\n", "there is no tests/"),
        ("```console\n$ make run\nyes\n```\n", "output needs a comment"),
        ("<!-- run by: tests/test_none.py -->\n```sh\nmake\n```\n", "does not read this page"),
        ("<!-- run by: tests/test_tables.py -->\n```sh\nmake\n```\n", "does not read this page"),
    ],
)
def test_a_block_that_escapes_is_a_fault(text, fault):
    (block,) = blocks(README, text)
    found = fault_of(block)
    assert fault in found
    assert bool(found) == bool(fault)
    assert block.is_run == (not block.marker)


def test_only_what_is_typed_in_a_block_needs_a_checkout():
    plain, made = blocks(README, "```sh\nacll inspect x  # make\n```\n\n```sh\nls\nmake run\n```\n")
    assert (plain.needs_checkout, made.needs_checkout) == (False, True)


# --------------------------------------------------------------------------------------------------
# blocks about finished networks


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder as runs leave it, as far as this goes, and some images."""
    folder = tmp_path_factory.mktemp("finished")
    for place, (spec, tasks) in NETWORKS.items():
        packed = tiny_packed(*tasks, spec=spec, size=16)
        packed_file.write_packed(folder / place / "network.safetensors", packed)
    for name in IMAGES:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(folder / name)
    prepare(generated(), folder)
    made, *_ = paths(folder)
    (folder / "results/demo/data").mkdir()
    made.rename(folder / "results/demo/data/digits.train.safetensors")
    link_networks(folder / "results/demo", load_configuration(ROOT / "config/demo.yaml"))
    own = folder / "results/mine/networks/first-adaptive-seed0.safetensors"
    own.parent.mkdir()
    own.symlink_to("../nodes/unet/adaptive/seed0/birds/roads/network.safetensors")
    return folder


def typed(folder: Path, *command: str, text: str, **variables: str) -> str:
    """What a program prints to which a block is given. It must end well."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")} | variables
    result = subprocess.run(
        command,
        input=text,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{text}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_commands_about_networks_run_as_they_stand(finished, block):
    typed(finished, "bash", "-eu", text=block.text)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, marks=[] if block.page == README else pytest.mark.slow, id=str(block))
        for block in of("python")
    ],
)
def test_python_runs_as_it_stands(finished, block):
    out = typed(finished, sys.executable, "-", text=block.text)
    if block.page == README:
        assert len(block.text.splitlines()) <= 8
        assert out.startswith("[('textures', 'classification', 0.5, 0.5), ('digits', ")
        assert re.search(r"^class_\d \[\('class_\d', ", out, re.MULTILINE)


# --------------------------------------------------------------------------------------------------
# configurations


def merged(base: dict, other: dict) -> dict:
    """The configuration of README with what a block says put over it."""
    both = base | other
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            both[key] = base[key] | value
    return both


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_configurations_are_sound(block):
    parse(merged(yaml.safe_load(MINE.text), yaml.safe_load(block.text)))


def test_the_example_of_a_given_network_goes_on_from_one(tmp_path):
    (block,) = (block for block in of("yaml") if "packed:" in block.text)
    settings = parse(yaml.safe_load(block.text))
    path = tmp_path / settings.networks["theirs"].packed
    packed_file.write_packed(path, tiny_packed("birds", "roads: segmentation", spec=UNET, size=16))
    (run,) = runs(open_given(settings, tmp_path, tmp_path))
    assert run.tasks == ("birds", "roads", "digits")


# --------------------------------------------------------------------------------------------------
# blocks about runs, in a small demo


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    """A checkout whose demo is small, with images for README's own configuration."""
    folder = tmp_path_factory.mktemp("documentation")
    own = checkout(folder / "checkout", folder / "images")
    own.write(SMALL_DEMO)
    # with the names that README has
    own.write(smaller(yaml.safe_load(MINE.text)))
    tests = own.folder / "tests"  # in place of those that run this
    tests.mkdir(exist_ok=True)
    (tests / "test_small.py").write_text("def test_it():\n    assert True\n", encoding="utf-8")
    images_of_readme(folder / "images")
    own.commit("a small demo")
    return own


def smaller(configuration: dict) -> dict:
    """README's own configuration with a small network, small images and one epoch."""
    tasks = {name: task | {"image_size": 16} for name, task in configuration["tasks"].items()}
    unet = configuration["networks"]["unet"] | {"encoder": "resnet_small"}
    training = configuration["training"] | {"epochs": 1}
    return configuration | {"tasks": tasks, "networks": {"unet": unet}, "training": training}


def images_of_readme(root: Path) -> None:
    generator = np.random.default_rng(0)

    def save(name: str, pixels: np.ndarray) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)

    for index in range(12):
        pixels = generator.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
        save(f"birds/train/robin/{index}.png", pixels[0] // 2)
        save(f"birds/train/wren/{index}.png", pixels[1])
        save(f"roads/train/images/{index}.png", pixels[0])
        save(f"roads/train/masks/{index}.png", (pixels[0, :, :, 0] > 127).astype(np.uint8))


@pytest.mark.slow
def test_commands_about_runs_run_as_they_stand(small_demo, tmp_path):
    # the environment is that of the tests, and must not be installed from a checkout
    prelude = 'make() { command make --old-file=.venv/installed "$@"; }\n'
    variables = small_demo.environment()
    del variables["ACLL_DATA_ROOT"]
    for block in of("sh", needs_checkout=True):
        text = block.text.replace("/path/to/images", str(small_demo.data))
        text = text.replace("/projects/acll-results", str(tmp_path / "remote"))
        typed(small_demo.folder, "bash", "-eu", text=prelude + text, **variables)
    assert (small_demo.results("demo") / "report.html").is_file()
    assert (small_demo.results("mine") / "report.html").is_file()
    assert any((tmp_path / "remote").rglob("*.dir"))


# --------------------------------------------------------------------------------------------------
# commands in running text, links, tables


def test_commands_in_the_text_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"^ {4}([a-z-]+) ", typed(ROOT, "acll", "--help", text=""), re.M))
    assert {"run", "site"} <= targets
    assert {"predict", "inspect"} <= commands
    unknown = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for program, names in (("make", targets), ("acll", commands)):
            found = re.findall(rf"`(?:\S+=\S* )?{program} ([a-z-]+)", text)
            unknown += [f"{page.name}: {program} {name}" for name in found if name not in names]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# One `key`, two\n# One key two\n")
    page.write_text("[a](other.md#one-key-two-1) [b](none.md) [c](other.md#no) `[d](no)` [e](#f)")
    assert broken_links(page) == ["page.md: none.md", "page.md: other.md#no", "page.md: #f"]


@pytest.mark.slow
def test_the_site_fetches_nothing(tmp_path):
    """Pages link to other sites, but what they show lies beside them."""
    command = ["-m", "sphinx", "--quiet", "--fail-on-warning", "-d", tmp_path / "read"]
    typed(ROOT, sys.executable, *command, "-c", "docs/site", ".", tmp_path / "site", text="")
    fetched = re.compile(
        r"""(?:<link[^>]*\shref=|\ssrc=|@import |url\(|fetch\()["']?((?:https?:)?//[^"')\s>]+)"""
    )
    found = [
        f"{path.name}: {address}"
        for path in (tmp_path / "site").rglob("*")
        if path.suffix in (".html", ".css", ".js")
        for address in fetched.findall(path.read_text(encoding="utf-8"))
    ]
    assert found == []
    first = (tmp_path / "site/README.html").read_text(encoding="utf-8")
    assert fetched.findall(f'{first}<img src="https://example.org/a.png">')
    assert 'href="docs/site/api.html"' in first


def test_tables_are_what_the_rows_say():
    typed(ROOT, sys.executable, "benchmarks/docs_tables.py", "--check", text="")


def test_readme_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 100
    table = README.read_text(encoding="utf-8").split("<!-- table: demo -->")[1].split("<!--")[0]
    assert len(table.strip().splitlines()) == 2 + 6

"""The package as others install it: what it needs, what it shows, the wheel, a project of one's
own."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import acll
from acll.cli import main as command_line
from acll.code import closure
from acll.config.checks import load_configuration
from acll.extras import EXTRAS
from acll.libraries import WITH_EFFECT, WITHOUT_EFFECT
from acll.networks.spec import DecoderNetwork
from acll.packing import packed_file
from conftest import ROOT, tiny_packed
from pages import blocks

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements/lock.txt").read_text()
INSTALL = ROOT / "docs/install.md"
TEMPLATES = ROOT / "src/acll/cli/project"


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def distributions_of(modules) -> set[str]:
    """What brings modules; one that is not installed here is called as what brings it."""
    found = packages_distributions()
    return {canonicalize_name(name) for module in modules for name in found.get(module, [module])}


# --------------------------------------------------------------------------------------------------
# what is needed


@pytest.mark.slow
def test_each_library_that_the_package_imports_is_required():
    base = names(PROJECT["dependencies"])
    extras = {extra: names(PROJECT["optional-dependencies"][extra]) for extra in EXTRAS}
    for extra, modules in EXTRAS.items():
        brought = {next(iter(distributions_of([one]) & extras[extra])) for one in modules}
        assert brought == extras[extra] - {"acll"}
    of_extras = {module for modules in EXTRAS.values() for module in modules}
    # they come with pydantic and jinja2; mlflow is asked for by hand
    of_others = {"pydantic_core", "markupsafe", "mlflow"}
    for module in {*WITH_EFFECT, *WITHOUT_EFFECT} - of_extras - of_others:
        assert distributions_of([module]) & base, module


@pytest.mark.parametrize("module", ["acll.serving.model", "acll.cli.predictions"])
def test_loading_and_predicting_need_no_extra(module):
    _, imported = closure(module)
    assert not imported & {name for modules in EXTRAS.values() for name in modules}


def test_versions_have_ranges_and_the_lock_is_within_them():
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", LOCK, re.MULTILINE))
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["pipeline"], *extras["export"], *extras["dev"]]:
        requirement = Requirement(text)
        if requirement.name == "acll":
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text
        if text not in extras["dev"]:
            assert {one.operator for one in requirement.specifier} == {">=", "<"}, text


def test_what_computes_has_one_version_on_every_python():
    with_effect = {name for names in WITH_EFFECT.values() for name in names}
    for name in with_effect:
        found = re.findall(rf"^{re.escape(name)}==(.*?) \\$", LOCK, re.MULTILINE)
        assert len(found) == 1, (name, found)
        assert ";" not in found[0], found


def test_the_package_shows_what_there_is_to_use():
    assert dir(acll) == ["__version__", "load"]
    assert acll.__version__ == PROJECT["version"]
    assert callable(acll.load)


def test_importing_the_package_imports_no_library():
    code = "import sys, acll; print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_a_library_of_an_extra_that_is_missing_is_a_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/x.yaml").write_text("name: x\n")
    monkeypatch.setattr("acll.extras.find_spec", lambda module: None)
    with pytest.raises(SystemExit) as ended:
        command_line.main(["plan", str(tmp_path / "config/x.yaml")])
    assert ended.value.code == 1
    assert 'is not installed: type `pip install "acll[pipeline]"`\n' in capsys.readouterr().err


def test_an_export_without_its_extra_is_a_line(tmp_path, monkeypatch, capsys):
    network = tmp_path / "network.safetensors"
    packed_file.write_packed(network, tiny_packed("digits"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit) as ended:
        command_line.main(["export", str(network), str(tmp_path / "a.onnx"), "--task", "digits"])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error == 'error: onnx is not installed: type `pip install "acll[export]"`\n'
    assert not (tmp_path / "a.onnx").exists()


# --------------------------------------------------------------------------------------------------
# a project of one's own


@pytest.fixture
def project(tmp_path):
    command_line.main(["new", str(tmp_path / "own")])
    return tmp_path / "own"


def test_a_new_project_is_a_repository_with_a_sound_configuration(project, capsys):
    assert (project / ".git").is_dir()
    assert load_configuration(project / "config/mine.yaml").name == "mine"
    command_line.main(["check", str(project / "config/mine.yaml")])
    assert "sound" in capsys.readouterr().out
    assert {path.name for path in project.parent.iterdir()} == {"own"}


def test_its_comments_are_keys_that_work():
    text = (TEMPLATES / "configuration.yaml").read_text()
    content = yaml.safe_load(re.sub(r"^  # (?=\w+: \{)", "  ", text, flags=re.MULTILINE))
    assert {"birds", "roads"} <= set(content["tasks"])
    assert {"resnet", "unet"} <= set(content["networks"])
    from acll.config.checks import parse

    content["sequences"]["first"] = {"network": "unet", "tasks": ["digits", "birds", "roads"]}
    content["tasks"]["digits"]["image_size"] = 32
    content["networks"].pop("resnet")
    content["networks"].pop("small")
    content["tasks"].pop("textures")
    parse(content)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path, capsys):
    (tmp_path / "a.txt").touch()
    with pytest.raises(SystemExit):
        command_line.main(["new", str(tmp_path)])
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_project_has_in_common_with_the_repository_is_equal():
    assert (TEMPLATES / "dvcignore").read_text() == (ROOT / ".dvcignore").read_text()
    own, repository = (
        dict(re.findall(r"^([a-z-]+):.*?## (.*)$", path.read_text(), re.MULTILINE))
        for path in (TEMPLATES / "Makefile", ROOT / "Makefile")
    )
    differ = {name: words for name, words in own.items() if repository.get(name) != words}
    assert set(differ) == {"verify"}
    about_others = {"install", "lint", "format", "docs", "site", "registry", "lock", "wheel"}
    about_others |= {"test", "test-slow", "test-faults", "fuzz", "clean"}
    assert set(repository) - set(own) <= about_others


def test_a_project_knows_the_variables_of_make(project):
    make = ["make", "--directory", project, "help"]
    right = subprocess.run([*make, "CONFIG=other"], capture_output=True, text=True, check=True)
    assert "config/other.yaml" in right.stdout
    wrong = subprocess.run([*make, "config=other"], capture_output=True, text=True, check=False)
    assert wrong.returncode
    assert "write CONFIG=…" in wrong.stderr


def test_every_target_that_messages_name_is_in_a_project():
    targets = set(re.findall(r"^([a-z-]+):", (TEMPLATES / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for path in [*(ROOT / "src/acll").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk")]:
        named |= set(re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8")))
    assert named - targets <= {"docs", "registry"}  # in docstrings


# --------------------------------------------------------------------------------------------------
# the wheel


def ended(command, folder: Path, **variables) -> str:
    """What a command prints; it must end well."""
    environment = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
    result = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=environment | {"PATH": "/usr/bin:/bin"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = ["uv", "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", folder]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PATH": path})
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment with the wheel, which one test after another adds to."""
    folder = tmp_path_factory.mktemp("environment")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install(wheel, "", folder)
    return folder


def install(wheel: Path, extra: str, folder: Path) -> None:
    """Install the wheel with an extra; skips the test where its libraries cannot be fetched."""
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--quiet", "--python", folder / "bin/python"]
    command += ["--constraint", ROOT / "requirements/lock.txt", f"acll{extra} @ {wheel.as_uri()}"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode and "Failed to fetch" in made.stderr:
        pytest.skip(f"the package index is not reached: {made.stderr.splitlines()[0]}")
    assert made.returncode == 0, made.stderr


@pytest.mark.slow
def test_the_wheel_predicts_in_a_fresh_environment(environment, tmp_path):
    programs = environment / "bin"
    spec = DecoderNetwork(decoder="unet", encoder="resnet_small")
    packed = tiny_packed("discs: segmentation", "digits", spec=spec, size=16)
    packed_file.write_packed(tmp_path / "network.safetensors", packed)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    own = programs / "acll", "inspect", "network.safetensors"
    assert "method test, seed 0" in ended(own, tmp_path)
    own = programs / "acll", "predict", "network.safetensors", "a.png", "--task"
    assert re.search(r"^a\.png +class_\d 0\.\d+", ended([*own, "digits"], tmp_path), re.MULTILINE)
    ended([*own, "discs", "--out", "masks"], tmp_path)
    assert Image.open(tmp_path / "masks/a.mask.png").size == (40, 30)
    code = "import acll; print(acll.__file__, acll.load('network.safetensors').predict('digits'"
    out = ended([programs / "python", "-c", f"{code}, 'a.png').label)"], tmp_path)
    assert out.startswith(str(environment))
    # what is not installed is said in a line; no other test has brought it yet
    lacking = subprocess.run(
        [programs / "acll", "run", "config/x.yaml"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert lacking.returncode == 1
    assert lacking.stderr.endswith('type `pip install "acll[pipeline]"`\n')
    assert len(lacking.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_project_of_ones_own_comes_to_the_results_of_a_checkout(wheel, environment, tmp_path):
    from checkouts import checkout, contents

    install(wheel, "[pipeline]", environment)
    programs = environment / "bin"
    lay_out, run = (block.text for block in blocks(INSTALL) if block.marker.startswith("run by"))
    shorten = r"sed -i -E 's/samples: [0-9]+/samples: 60/; s/epochs: [0-9]+/epochs: 1/g'"
    path = f"{programs}:/usr/bin:/bin"
    typed = f"{lay_out}\n{shorten} config/mine.yaml\n{run}"
    out = ended(["bash", "-euc", typed], tmp_path, PATH=path)
    assert "report: results/mine/report.html" in out
    text = (tmp_path / "birds/config/mine.yaml").read_text()
    assert "nothing to run" in ended(["make", "run"], tmp_path / "birds", PATH=path)
    assert "all as" in ended(["make", "verify"], tmp_path / "birds", PATH=path)
    ended(["dvc", "repro"], tmp_path / "birds", PATH=path)
    other = checkout(tmp_path / "checkout", tmp_path / "birds/data")
    (other.folder / "config/mine.yaml").write_text(text)
    other.make("run", "mine")
    assert contents(other.results("mine")) == contents(tmp_path / "birds/results/mine")

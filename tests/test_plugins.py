"""Objects of a user's own file, in place of built-in ones: examples/plugins and docs/plugins.md."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import acll
from acll import plugins
from acll.cli import main as command_line
from acll.code import code_of, refuse_edited_plugins
from acll.config.checks import ConfigurationError, load_configuration, parse
from acll.data.batches import training_batches
from acll.data.identity import identity
from acll.errors import UserError
from acll.networks.build import build
from acll.networks.buildable import Wanted, faults_and_notes
from acll.networks.partition import partition
from acll.networks.spec import PLUGIN_FILE, NetworkError, PluginNetwork
from acll.packing import packed_file
from acll.packing.ownership import PackingError
from acll.plan import plan
from acll.serving.export import OnnxSession
from acll.sharing.changes import changes
from acll.training.losses import loss_of
from acll.training.metrics import EvalResult, score, standard_error
from acll.training.probe import faults_of_plugins
from acll.training.settings import Training
from checkouts import checkout
from conftest import ROOT, tiny_packed, tiny_task
from datasets import prepare
from pages import blocks

EXAMPLE = ROOT / "examples/plugins"
MINE = (EXAMPLE / "mine.py").read_text(encoding="utf-8")
SETTINGS = yaml.safe_load((EXAMPLE / "plugins.yaml").read_text(encoding="utf-8"))
PAGE = ROOT / "docs/plugins.md"


@pytest.fixture(autouse=True)
def _no_plugins_left():
    yield
    plugins.use([])


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def edited(changes: dict) -> dict:
    """The configuration of the example with other values; keys are paths of keys."""
    settings = json.loads(json.dumps(SETTINGS))
    for path, value in changes.items():
        *outer, last = path.split("/")
        inner = settings
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return settings


def refused(folder: Path, text: str = MINE, **changes) -> str:
    written(folder, text)
    with pytest.raises(ConfigurationError) as error:
        parse(edited(changes), folder)
    return str(error.value)


# --------------------------------------------------------------------------------------------------
# the example and its page


def test_the_configuration_of_the_example_is_sound_where_it_lies():
    configuration = load_configuration(EXAMPLE / "plugins.yaml")
    assert configuration.tasks["stripes"].source == "stripes"
    assert configuration.methods["near"].strength == 0.1
    batches = configuration.batches_of("stripes")
    assert (batches.loss, batches.metric) == ("poly", "geometric_mean")
    kinds = {kind for kind, _ in plugins.known()}
    assert kinds == {"source", "network", "loss", "metric", "augmentation", "method"}


def test_the_page_shows_the_example_as_it_is():
    shown = [block.text for block in blocks(PAGE) if block.language == "python"]
    assert len(shown) >= 6
    assert all(text in MINE for text in shown if "@plugin" in text)
    (configuration,) = (block.text for block in blocks(PAGE) if block.language == "yaml")
    assert yaml.safe_load(configuration) == SETTINGS


# --------------------------------------------------------------------------------------------------
# what they do


def known(*places) -> None:
    plugins.use(map(str, places or [EXAMPLE / "mine.py"]))


def test_a_loss_is_that_of_both_kinds_of_tasks():
    known()
    for kind, shape in (("classification", (4,)), ("segmentation", (4, 5, 6))):
        settings = Training(loss="poly").batches(kind)
        labels = torch.randint(3, shape)
        logits = torch.randn(4, 3, *shape[1:])
        chances = logits.softmax(1).gather(1, labels[:, None])
        expected = (1 - chances - chances.log()).mean()
        torch.testing.assert_close(loss_of(kind, settings, None)(logits, labels), expected)


def test_a_loss_of_acll_still_leaves_classification_its_cross_entropy():
    assert Training(loss="dice").batches("classification").loss is None
    assert Training(loss="dice").batches("segmentation").loss == "dice"


def test_a_loss_gets_the_weights_of_the_classes(tmp_path):
    text = (
        "from acll.plugins import plugin\n\n@plugin('loss')\n"
        "def weighed(logits, labels, weights):\n    return logits.sum() * weights.sum()\n"
    )
    known(written(tmp_path, text))
    settings = Training(loss="weighed", class_weights="balanced").batches("classification")
    loss = loss_of("classification", settings, torch.tensor([1.0, 3.0]))
    assert loss(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64)) == 8


def test_a_metric_is_a_value_of_the_confusion_with_a_standard_error():
    known()
    cells = np.array([0, 0, 1, 3, 3, 3])  # of two classes: recalls of 2/3 and 1
    result = EvalResult("geometric_mean", 2, cells=cells)
    assert score(result) == pytest.approx((2 / 3) ** 0.5)
    assert 0 < standard_error(result, 0) < 1


def test_an_augmentation_comes_after_the_others_and_changes_training_alone():
    known()
    split, _, info = tiny_task("a", samples=8)

    def batch(*augmentation):
        given = training_batches(split, info, 8, augmentation, 0, 0, torch.device("cpu"))
        return next(iter(given))

    plain, erased, again = batch(), batch("erase"), batch("erase")
    assert torch.equal(erased[0], again[0])
    changed = (plain[0] != erased[0]).any(dim=1)
    assert (erased[0][changed.unsqueeze(1).expand_as(erased[0])] == 0).all()
    assert (changed.sum(dim=(1, 2)) == 16).all()  # a square of a quarter of 16 pixels
    assert torch.equal(plain[1], erased[1])


NPZ = """
from pathlib import Path
from typing import Literal

import numpy as np
import torch  # other plug-ins of the file may need it
from acll.data.arrays import manifest_of_arrays
from acll.data.task import RawData
from acll.plugins import plugin


@plugin("source")
class Npz(RawData):
    source: Literal["npz"]
    kind: Literal["classification"] = "classification"

    def raw_files(self, root):
        return [root / self.path]

    def manifest(self, root):
        with np.load(root / self.path) as known:
            images, labels = known["images"], known["labels"]
        ids = [f"{self.path}:{index:04d}" for index in range(len(images))]
        return manifest_of_arrays(images, labels, ids, ["dark", "light"])
"""


def test_a_source_reads_files_whose_content_is_the_identity_of_the_data(tmp_path):
    written(tmp_path, NPZ)
    task = {"source": "npz", "path": "scans.npz", "image_size": 8}
    changes = {
        "tasks": {"scans": task},
        "networks": {"small": {"backbone": "resnet_small"}},
        "sequences": {"one": {"network": "small", "tasks": ["scans"]}},
        "methods": {"half": {"ratio": 0.5}},
        "training": {},
    }
    (scans,) = parse(edited(changes), tmp_path).tasks.values()
    generator, labels = np.random.default_rng(0), np.arange(40) % 2
    images = generator.integers(0, 100, (40, 3, 8, 8), dtype=np.uint8)
    images[labels == 1] += 100
    identities = set()
    for given in (images, images + 1):
        np.savez(tmp_path / "scans.npz", images=given, labels=labels)
        identities.add(identity(scans, tmp_path, tmp_path / "cache.json"))
    assert len(identities) == 2
    made = prepare(scans, tmp_path, processes=2)
    assert made.summary["classes"] == ["dark", "light"]
    assert sum(made.summary["samples"].values()) == 40
    train = made.splits["train"]
    assert (train.images.mean(axis=(1, 2, 3)) > 100).tolist() == (train.labels == 1).tolist()


def test_a_network_with_named_parts_has_one_encoder_for_both_kinds():
    known()
    spec = PluginNetwork(plugin="tiny", options={"width": 4})
    masks, classes = (build(spec, kind, 3, 0) for kind in ("segmentation", "classification"))
    again = build(spec, "segmentation", 3, 0).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in masks.state_dict().items())
    assert masks(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 8, 8)
    assert classes(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    shared = partition(masks).shared
    assert set(partition(classes).shared) == {one for one in shared if one.startswith("encoder.")}


def test_of_a_classifier_the_last_layer_is_found():
    known()
    network = build(PluginNetwork(plugin="plain", channels=1), "classification", 3, 0)
    assert isinstance(network.head, torch.nn.Linear)
    assert network.head.out_features == 3
    assert set(partition(network).private) == {
        *("encoder.0.bias", "encoder.4.bias", "head.weight", "head.bias")
    }
    with pytest.raises(NetworkError, match="cannot learn a segmentation task"):
        build(PluginNetwork(plugin="plain"), "segmentation", 3, 0)


# --------------------------------------------------------------------------------------------------
# what is refused before any job


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training/loss": "polly"}, "training.loss = \"polly\": must be .* (did you mean poly?)"),
        ({"tasks/shapes/training": {"loss": "poli"}},
         "tasks.shapes.training.loss = \"poli\": must be .* (did you mean poly?)"),
        ({"tasks/stripes/metric": "geometric"}, "(did you mean geometric_mean?)"),
        ({"training/augmentation": ["eraze"]}, "(did you mean erase?)"),
        ({"tasks/stripes/source": "stripe"}, "tasks.stripes.source = .*(did you mean stripes?)"),
        ({"methods/near/type": "neer"}, "methods.near.type = .*(did you mean near"),
        ({"networks/tiny/plugin": "tyny"},
         "networks.tiny.plugin = 'tyny': there is no such plug-in (did you mean tiny?)"),
        ({"networks/tiny": {"backbone": "tiny"}}, "is a plug-in; write `plugin: tiny`"),
        ({"networks/tiny/options": {"with": 8}}, "networks.tiny.options = .*'with'; 'tiny' takes "
                                             "(kind, classes, channels, width=16)"),
        ({"methods/near/strenght": 1.0}, "methods.near.strenght: unknown key (did you mean stren"),
        ({"methods/near/strength": -1.0}, "methods.near.strength = -1.0: must be 0 or more"),
        ({"tasks/stripes/sample": 1}, "tasks.stripes.sample: unknown key (did you mean samples or"),
        ({"sequences/classify/tasks": ["textures", "shapes"]}, "needs a network that is marked"),
        ({"methods/adaptive/grow": 1.5}, "networks.tiny cannot become wider: a plug-in has no"),
        ({"plugins": ["mein.py"]}, "plugins = 'mein.py': there is no such file"),
        ({"plugins": ["mein"]}, "plugins = 'mein': neither a file (its name would end with .py)"),
        ({"plugins": "mine.py"}, "plugins = \"mine.py\": must be a list"),
        ({"plugins": []}, "networks.plain.plugin = 'plain': there is no such plug-in (name its"),
    ],
)  # fmt: skip
def test_a_name_or_a_key_that_is_wrong_is_told(tmp_path, changes, words):
    pattern = ".*".join(re.escape(part) for part in words.split(".*"))
    assert re.search(pattern, refused(tmp_path, **changes))


HEAD = "from acll.plugins import plugin\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = (", "line 1: SyntaxError: '(' was never closed"),
        (f"{HEAD}import nonesuch\n", "line 2: ModuleNotFoundError: No module named 'nonesuch'"),
        (f"{HEAD}\n\nraise SystemExit(3)\n", "line 4: SystemExit: 3"),
        (f"{HEAD}@plugin('loss')\ndef a(logits: int) -> int: ...\n",
         "line 2: the loss 'a' must take (logits, labels, weights), in this order, and all else "
         "with a default; it takes (logits)"),
        (f"{HEAD}@plugin('loss')\ndef a(labels, logits, weights=None): ...\n",
         "in this order, and all else with a default; it takes (labels, logits, weights=None)"),
        (f"{HEAD}@plugin('network')\ndef a(kind, classes, width=16): ...\n",
         "line 2: the network 'a' must take (kind, classes, channels), in this order, and all else "
         "with a default; it takes (kind, classes, width=16)"),
        (f"{HEAD}@plugin('network')\nclass A:\n    def __init__(self, classes, channels): ...\n",
         "line 2: the network 'A' must take (kind, classes, channels), in this order, and all else "
         "with a default; it takes (classes, channels)"),
        (f"{HEAD}@plugin('network')\ndef a(kind, classes, channels, width): ...\n",
         "it takes (kind, classes, channels, width)"),
        (f"{HEAD}@plugin('network')\nclass A(dict): ...\n",
         "line 2: the network 'A' must take (kind, classes, channels), in this order; it does not "
         "say what it takes"),
        (f"{HEAD}class A:\n    def __call__(self, a, b, c): ...\nplugin('loss', 'a')(A())\n",
         "line 4: the loss 'a' is an object of the class A and must be a function: write a `def` "
         "that calls it"),
        (f"{HEAD}@plugin('loss')\nclass A:\n    def forward(self, a, b, c): ...\n",
         "line 2: the loss 'A' is a class and must be a function: write a `def` that calls it"),
        (f"{HEAD}plugin('loss')(lambda a, b, c: a.sum())\n",
         "line 2: the loss is a lambda and must be a function: write it as a `def`"),
        (f"{HEAD}plugin('network', 'a')(A := 3)\n",
         "the network 'a' is an object of the class int and must be a function or a class: write"),
        (f"{HEAD}@plugin\ndef a(): ...\n", "line 2: write `@plugin(\"loss\")`, or"),
        (f"{HEAD}@plugin()\ndef a(): ...\n", "line 2: write `@plugin(\"loss\")`, or"),
        (f"{HEAD}@plugin('los')\ndef a(): ...\n",
         "line 2: there is no plug-in of the kind 'los' (did you mean loss?)"),
        (f"{HEAD}@plugin('backbone')\ndef a(): ...\n",
         "there is no plug-in of the kind 'backbone': source, network, loss, metric, augm"),
        (f"{HEAD}@plugin('poly', 'loss')\ndef a(): ...\n",
         "the kind 'poly': the kind comes first: `@plugin(\"loss\", \"poly\")`"),
        (f"{HEAD}@plugin('loss', 3)\ndef a(*given): ...\n",
         "line 2: the name of a plug-in must be text, and not 3"),
        (f"{HEAD}@plugin('source')\nclass A: ...\n",
         "a source is a class that derives from Task or RawData and whose key `source` has one"),
        (f"{HEAD}@plugin('method')\ndef a(): ...\n",
         "a method is a class that derives from Method and whose key `type` has one value: type: "),
        (MINE.replace("@plugin(\"method\")", "@plugin(\"method\", \"nearer\")"),
         "the method 'near' is called by its key: write `@plugin(\"method\")`"),
        (f"{HEAD}@plugin('network', tasks=['x'])\ndef a(*given): ...\n",
         "tasks = ['x']: must be a list of classification, segmentation, or both"),
        (f"{HEAD}@plugin('loss', tasks=['classification'])\ndef a(*given): ...\n",
         "a loss has no `tasks`; a network has"),
        ("", "plugins = 'mine.py': has no plug-in: it defines no function and no class"),
        ("import math\nfrom pathlib import Path\n", "it defines no function and no class"),
        ("f = lambda a: a\n", "it defines no function and no class"),
        (f"{HEAD}class A:\n    @plugin('metric')\n    def a(confusion): ...\n",
         "has no plug-in: move a out of the class A"),
        ("def a(): ...\nclass B: ...\n",
         "has no plug-in: write `@plugin(\"loss\")`, or another kind, above one of a, B; kinds: "),
        ("".join(f"def f{number}(): ...\n" for number in range(6)),
         "above one of f0, f1, f2, f3, f4, …; kinds: "),
        (f"{HEAD}@plugin('metric', 'accuracy')\ndef a(confusion): ...\n",
         "plugins = 'mine.py': the metric 'accuracy': acll has one of this name"),
        (f"{HEAD}@plugin('metric')\ndef Mine(confusion): ...\n",
         "the metric 'Mine': names are made of small letters"),
        (f"{HEAD}@plugin('loss')\ndef a(*given): ...\n@plugin('loss', 'a')\ndef b(*given): ...\n",
         "the loss 'a' is in"),
        (f"{HEAD}from typing import Literal\nfrom pydantic import BaseModel\n@plugin('method')\n"
         "class A(BaseModel):\n    type: Literal['a']\n",
         "the method 'a': must derive from acll.methods.base.Method"),
        (MINE.replace("    kind: Literal[\"classification\"] = Field(\"classification\", "
                      "description=\"always classification\")\n", ""),
         "the source 'stripes': must have the key `kind`"),
        (MINE.replace("    from_files: ClassVar[bool] = False\n", ""),
         "the source 'stripes': must have `raw_files`, or `from_files = False`"),
        (MINE.replace("def manifest", "def mani"), "the source 'stripes': must have a `manifest`"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_told_with_its_line(tmp_path, text, words):
    found = refused(tmp_path, text)
    assert words in found
    assert len(found.splitlines()) <= 2


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ("loss", "training.loss = \"poly\": .*(write `@plugin(\"loss\")` above poly of mine.py)"),
        ("metric", "(write `@plugin(\"metric\")` above geometric_mean of mine.py)"),
        ("augmentation", "(write `@plugin(\"augmentation\")` above erase of mine.py)"),
        ("network", "networks.plain.plugin = 'plain': there is no such plug-in (write "
                    "`@plugin(\"network\")` above plain of mine.py)"),
        ("source", "tasks.stripes.source = .*(write `@plugin(\"source\")` above Stripes of mine"),
        ("method", "methods.near.type = .*(write `@plugin(\"method\")` above Near of mine.py)"),
    ],
)  # fmt: skip
def test_a_decorator_that_was_forgotten_is_told(tmp_path, mark, words):
    pattern = ".*".join(re.escape(part) for part in words.split(".*"))
    line = refused(tmp_path, MINE.replace(f'@plugin("{mark}")\n', ""))
    assert re.search(pattern, line)
    assert "\n" not in line


def test_a_plug_in_of_another_kind_is_told(tmp_path):
    line = refused(tmp_path, MINE.replace('@plugin("loss")\n', '@plugin("augmentation")\n'))
    assert "(poly of mine.py is a plug-in of the kind augmentation)" in line


@pytest.mark.parametrize(
    "takes", ["kind, num_classes=10, in_chans=3", "task, n_out, n_in=3", "kind, classes, bands=3"]
)
def test_parameters_of_a_network_may_have_defaults_and_other_names(tmp_path, takes):
    place = written(tmp_path, f"{HEAD}@plugin('network')\ndef a({takes}): ...\n")
    plugins.use([str(place)])
    assert plugins.names("network") == ["a"]


def test_a_file_that_only_imports_plug_ins_says_where_they_are(tmp_path):
    written(tmp_path, f"{HEAD}@plugin('loss')\ndef a(*given): ...\n", "of_theirs.py")
    line = refused(tmp_path, "from of_theirs import a\n")
    assert line == (
        "plugins = 'mine.py': has no plug-in: it imports a from of_theirs; name that file or "
        "module in its place"
    )


@pytest.mark.parametrize("again", ["mine.py", "./mine.py", "../{folder}/mine.py", "json"])
def test_a_place_that_is_named_twice_is_told(tmp_path, again):
    again = again.format(folder=tmp_path.name)
    line = refused(tmp_path, plugins=["mine.py", "json", again])
    assert f"plugins = '{again}': stands there twice" in line.splitlines()


@pytest.mark.parametrize("place", [".", "json.", "a b", "json"])
def test_what_is_no_module_or_has_no_plug_ins_is_told(tmp_path, place):
    line = refused(tmp_path, plugins=[place])
    has_none = "has no plug-in: write `@plugin" if place == "json" else "neither a file (its name w"
    assert line.startswith(f"plugins = '{place}': {has_none}")


def test_a_network_whose_encoder_depends_on_the_kind_of_the_task_is_found(tmp_path):
    text = MINE.replace("2 * width, 3, stride=2", "2 * width, 3 + 2 * (kind == 'segmentation'), 2")
    known(written(tmp_path, text))
    kinds = ["classification", "segmentation"]
    wanted = {"mine": Wanted(PluginNetwork(plugin="tiny"), kinds, None, "none")}
    ((line,), _) = faults_and_notes(wanted, tmp_path / "networks.json")
    assert line == "networks.mine: its encoders for classification and for segmentation differ"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("nn.Linear(2, 2).weight", "gives Parameter float32 [2, 2] in place of a torch.nn.Module"),
        ("None", "gives None in place of a torch.nn.Module"),
        ("1 / 0", "fails: line 5: ZeroDivisionError: division by zero"),
        ("nn.Conv2d(3, 5, 1)", "neither the parts encoder and head (it has none), nor a last"),
        ("nn.ModuleDict({'enc': nn.Flatten(), 'head': nn.Linear(192, classes)})",
         "must have the parts encoder and head, or a `forward` of its own, for classification; it "
         "has enc, head"),
        ("nn.Sequential(nn.Flatten(), nn.Linear(192, 10))",
         "neither the parts encoder and head (it has parts without names), nor a last linear layer "
         "with an output a class: 1 has 10 outputs for 2 classes"),
        ("nn.Sequential(nn.Flatten(), nn.Linear(3, classes))", "fails: RuntimeError"),
        ("nn.Linear(192, classes)", "neither the parts encoder and head (it has none), nor a last"),
        ("nn.Sequential(nn.Flatten(), nn.Linear(192, classes), nn.Softmax(1))",
         "goes on after its last linear layer: it must end with it, and give logits"),
        ("nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(8, classes))", "gives [2, 4, 8, 2] in place"),
        ("nn.ModuleDict({'encoder': nn.Flatten(), 'head': nn.Linear(192, classes), "
         "'more': nn.Linear(1, 1)})", "has state outside of encoder, decoder and head: more"),
        ("nn.ModuleDict({'encoder': nn.Flatten(), 'decoder': nn.ReLU(), "
         "'head': nn.Linear(192, classes)})", "must have no decoder for classification"),
        ("nn.Sequential(nn.Flatten(), nn.PReLU(), nn.Linear(192, classes))",
         "is neither a weight that tasks can share nor a bias"),
    ],
)  # fmt: skip
def test_a_network_that_breaks_the_protocol_is_found_before_any_job(tmp_path, body, words):
    text = f"{HEAD}from torch import nn\n@plugin('network')\ndef odd(kind, classes, channels):\n"
    known(written(tmp_path, f"{text}    return {body}\n"))
    network = PluginNetwork(plugin="odd")
    wanted = {"mine": Wanted(network, ["classification"], None, "none", [(8, 8)])}
    ((line,), _) = faults_and_notes(wanted, tmp_path / "networks.json")
    assert line.startswith("networks.mine: ")
    assert words in line


@pytest.mark.parametrize(
    ("old", "new", "has"),
    [
        ("self.decoder", "self.dec", "encoder, dec, head"),
        ("self.encoder", "self.enc", "enc, decoder, head"),
        ("self.encoder = nn.Sequential(", "self.encoder = lambda images: nn.Sequential(",
         "decoder, head, encoder (no torch.nn.Module)"),
        ("self.decoder = nn.Sequential(", "self.decoder = lambda images: nn.Sequential(",
         "encoder, head, decoder (no torch.nn.Module)"),
        ("self.decoder = nn.Sequential(", "_ = nn.Sequential(", "encoder, head"),
    ],
)  # fmt: skip
def test_a_part_that_is_called_otherwise_is_told_with_those_that_there_are(tmp_path, old, new, has):
    known(written(tmp_path, MINE.replace(old, new)))
    with pytest.raises(NetworkError) as error:
        build(PluginNetwork(plugin="tiny"), "segmentation", 3, 0)
    assert str(error.value) == (
        "the plug-in 'tiny' must have the parts encoder, decoder and head for segmentation; it "
        f"has {has}"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("@plugin('loss')\ndef odd(a, b, c):\n    return a",
         "gives Tensor float32 [4, 3]: must be one finite number, a tensor of the shape []"),
        ("@plugin('loss')\ndef odd(a, b, c):\n    return 1.5", "gives the float 1.5: must be one"),
        ("@plugin('loss')\ndef odd(a, b, c):\n    a.sum()", "gives None: must be one finite"),
        ("@plugin('loss')\ndef odd(a, b, c):\n    return a.sum() / 0 * 0", "gives nan: must be"),
        ("@plugin('loss')\ndef odd(a, b, c):\n    return a.sum(), b", "gives (-4.14537, Tensor "),
        ("@plugin('loss')\ndef odd(a, b, c):\n    return a.detach().sum()", "has no gradient"),
        ("@plugin('loss')\ndef odd(a, b, c):\n    return a.mean(c)", "fails: line 5: TypeError: "),
        ("@plugin('metric')\ndef odd(a):\n    return a.sum()", "gives 9: must be a number in [0"),
        ("@plugin('metric')\ndef odd(a):\n    return torch.tensor([0.5, 1])",
         "gives Tensor float32 [2]: must be a number in [0, 1]; it was given the confusion matrix"),
        ("@plugin('metric')\ndef odd(a):\n    return a.trace() / a.sum()",
         "gives nan: must be a number in [0, 1]; it was given the confusion matrix [[0, 0, 0], "),
        ("@plugin('metric')\ndef odd(a):\n    return '0.5'", "gives an object of the class str: "),
        ("@plugin('metric')\ndef odd(a):\n    return None", "gives None: must be a number"),
        ("@plugin('metric')\ndef odd(a):\n    a[0, 0] = 0\n    return 1.0",
         "changes the confusion matrix that it gets: work on a copy"),
        ("@plugin('metric')\ndef odd(a):\n    return 1 // int(a.sum() - 9)",
         "fails: given the confusion matrix [[3, 1, 0], [0, 2, 2], [1, 0, 0]]: line 5: ZeroDiv"),
        ("@plugin('augmentation')\ndef odd(a, b, c):\n    return a[1:], b",
         "gives (Tensor float32 [3, 3, 16, 16], Tensor int64 [4]): must be images and labels, of "
         "the shapes and types that it gets: (Tensor float32 [4, 3, 16, 16], Tensor int64 [4])"),
        ("@plugin('augmentation')\ndef odd(a, b, c):\n    return a",
         "gives Tensor float32 [4, 3, 16, 16]: must be images and labels, of the shapes and"),
        ("@plugin('augmentation')\ndef odd(a, b, c):\n    return a, None",
         "gives (Tensor float32 [4, 3, 16, 16], None): must be images and labels"),
        ("@plugin('augmentation')\ndef odd(a, b, c):\n    return a.double(), b, c",
         "gives (Tensor float64 [4, 3, 16, 16], Tensor int64 [4], an object of the class Generat"),
        ("@plugin('augmentation')\ndef odd(a, b, c):\n    return a / 0, b", "are not finite"),
        ("@plugin('augmentation')\ndef odd(a, b, c):\n    return a, b + 1", "classes that there"),
        ("@plugin('loss')\ndef odd(a, b, c):\n    raise SystemExit", "fails: line 5: SystemExit"),
        ("@plugin('augmentation')\ndef odd(a, b, c):\n    return a * torch.rand(()), b",
         "draw from the generator"),
    ],
)  # fmt: skip
def test_a_function_that_breaks_the_protocol_is_found_before_any_job(tmp_path, text, words):
    path = written(tmp_path, f"{HEAD}import torch\n{text}\n")
    known(path)
    kind = re.search("'(.*)'", text)[1]
    key, value = kind, ["odd"] if kind == "augmentation" else "odd"
    batches = Training().batches("classification").model_copy(update={key: value})
    (line,) = faults_of_plugins([("classification", batches)], tmp_path / "plugins.json")
    assert line.startswith(f"mine.py: the {kind} 'odd', for classification: ")
    assert words in line


def test_a_loss_is_tried_with_shares_of_classes_where_they_are_mixed(tmp_path):
    known()
    batches = Training(loss="poly").batches("classification")
    mixed = batches.model_copy(update={"augmentation": ["flip", "mixup"]})
    cache = tmp_path / "plugins.json"
    assert faults_of_plugins([("classification", batches)], cache) == []
    (line,) = faults_of_plugins([("classification", mixed)], cache)
    assert "the loss 'poly', for classification with mixup or cutmix, where labels are sh" in line
    assert "fails: line 27: RuntimeError: ignore_index is not supported for floating" in line
    text = "@plugin('loss')\ndef poly(a, b, c):\n    return torch.nn.functional.cross_entropy(a, b)"
    known(written(tmp_path, f"{HEAD}import torch\n{text}\n"))
    assert faults_of_plugins([("classification", mixed)], cache) == []


def test_what_was_sound_is_not_tried_again_until_it_is_edited(tmp_path):
    used = [("segmentation", Training().batches("segmentation").model_copy(update={"loss": "a"}))]
    text = f"{HEAD}@plugin('loss')\ndef a(logits, labels, weights):\n    return logits.mean()\n"
    cache = tmp_path / "plugins.json"
    known(written(tmp_path, text))
    assert faults_of_plugins(used, cache) == []
    plugins.find("loss", "a").value.__code__ = (lambda logits, labels, weights: 1).__code__
    assert faults_of_plugins(used, cache) == []
    known(written(tmp_path, text.replace("logits.mean()", "1")))
    assert len(faults_of_plugins(used, cache)) == 1


# --------------------------------------------------------------------------------------------------
# packed files


@pytest.fixture
def packed(tmp_path) -> Path:
    """A packed file of the network of the example; the plug-ins are not known any more."""
    known()
    spec = PluginNetwork(plugin="tiny", options={"width": 4})
    whole = tiny_packed("a", "b: segmentation", spec=spec, size=8)
    named = replace(whole, network={**whole.network, PLUGIN_FILE: "their.py"})
    path = tmp_path / "network.safetensors"
    packed_file.write_packed(path, named)
    plugins.use([])
    return path


def test_a_packed_file_needs_its_plug_in_and_says_so(packed):
    opened = acll.load(packed)
    assert [task.name for task in opened.tasks] == ["a", "b"]
    with pytest.raises(PackingError) as error:
        opened.network("a")
    assert str(error.value) == (
        f"{packed}: its network is built by the plug-in 'tiny', which was in their.py: name your "
        "copy of that file (`--plugins FILE`, or `acll.load(path, plugins=[FILE])`)"
    )
    with_it = acll.load(packed, plugins=[EXAMPLE / "mine.py"])
    assert with_it.network("a")(torch.zeros(1, 3, 8, 8)).shape == (1, 3)
    with_it.switch(network := with_it.network("a"), "b")
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8, 8)


def test_a_packed_file_makes_nothing_run(packed, tmp_path, monkeypatch):
    """Neither where the file that it names lies here, nor where its name is that of a module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    written(tmp_path, "raise SystemExit('it ran')\n", "their.py")
    for named in ("their.py", str(tmp_path / "their.py"), "their"):
        whole = packed_file.read_packed(packed)
        other = replace(whole, network={**whole.network, PLUGIN_FILE: named})
        packed_file.write_packed(tmp_path / "other.safetensors", other)
        with pytest.raises(PackingError, match="built by the plug-in"):
            acll.load(tmp_path / "other.safetensors").network("a")
    assert "their" not in sys.modules


def test_code_that_is_not_that_of_the_network_is_told(packed, tmp_path):
    other = written(tmp_path, MINE.replace("width, 3, padding=1", "width, 5, padding=2"))
    with pytest.raises(PackingError, match="does not fit what it says it is built from"):
        acll.load(packed, plugins=[other]).network("a")


def run(*arguments: object) -> None:
    command_line.main([str(one) for one in arguments])


def test_commands_take_the_files(packed, tmp_path, capsys):
    image, out = tmp_path / "image.png", tmp_path / "a.onnx"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    given = ("--plugins", EXAMPLE / "mine.py")
    for command in (
        ("predict", packed, "--task", "a", image),
        ("export", packed, out, "--task", "a"),
    ):
        plugins.use([])
        with pytest.raises(SystemExit):
            run(*command)
        assert "name your copy of that file (`--plugins FILE`" in capsys.readouterr().err
        run(*command, *given)
        assert capsys.readouterr().err == ""
    plugins.use([])
    logits = OnnxSession(out)(torch.zeros(1, 3, 8, 8))  # needs none
    assert logits.shape == (1, 3)
    with pytest.raises(SystemExit):
        run("predict", packed, "--task", "a", image, "--plugins", tmp_path / "none.py")
    assert capsys.readouterr().err == f"error: {tmp_path}/none.py: there is no such file\n"
    other = written(tmp_path, f"{HEAD}@plugin('loss')\ndef a(*given): ...\n", "other.py")
    with pytest.raises(SystemExit):
        run("predict", packed, "--task", "a", image, "--plugins", other)
    assert f"{other} has no network of this name" in capsys.readouterr().err


def test_what_reads_the_header_alone_needs_no_plug_in(packed, tmp_path, capsys):
    run("inspect", packed)
    told = " ".join(capsys.readouterr().out.split())
    assert "plugin tiny, plugin_file their.py" in told
    assert "{" not in told
    run("card", packed)
    card = capsys.readouterr().out
    assert "`tiny`, code of its authors that is no part of acll" in card
    assert f'acll.load("{packed.name}", plugins=["their.py"])' in card
    assert f"acll predict {packed.name} --plugins their.py --task a image.png" in card
    run("drop", packed, "--task", "a", "--out", tmp_path / "b.safetensors")
    with pytest.raises(SystemExit):
        run("compare", packed, tmp_path / "b.safetensors")
    assert [task.name for task in acll.load(tmp_path / "b.safetensors").tasks] == ["b"]


def test_a_metric_that_is_not_here_is_needed_only_for_scores(tmp_path):
    whole = tiny_packed("a")
    record = replace(whole.tasks[0], metric="geometric_mean")
    path = tmp_path / "network.safetensors"
    packed_file.write_packed(path, replace(whole, tasks=(record,)))
    opened = acll.load(path)
    assert opened.tasks[0].metric == "geometric_mean"
    opened.network("a")
    result = EvalResult("geometric_mean", 2, cells=np.array([0, 3]))
    with pytest.raises(UserError, match="there is no metric 'geometric_mean' in acll: if it is"):
        score(result)
    odd = replace(record, metric="of another kind")
    with pytest.raises(ValueError, match="is no metric of classification"):
        packed_file.header_of(replace(whole, tasks=(odd,)))


# --------------------------------------------------------------------------------------------------
# what reruns


def jobs_after(folder: Path, text: str, **changes) -> dict[str, str]:
    """The parameter of each job, by its title, with this text as the file of plug-ins."""
    written(folder, text)
    return {job.title: job.text for job in plan(parse(edited(changes), folder))}


def changed(folder: Path, old: str, new: str) -> set[str]:
    assert MINE.count(old) == 1
    before, after = jobs_after(folder, MINE), jobs_after(folder, MINE.replace(old, new))
    assert before.keys() == after.keys()
    return {title for title in before if before[title] != after[title]}


def titles(pattern: str, folder: Path) -> set[str]:
    return {title for title in jobs_after(folder, MINE) if re.search(pattern, title)}


LEARNS = "train|search|prune|retrain|remember"


@pytest.mark.parametrize(
    ("old", "new", "jobs"),
    [
        ("(1 - likelihood", "2 * (1 - likelihood", f"^({LEARNS}) .*(stripes|textures)$"),
        ("shape[-1] // 4", "shape[-1] // 5", f"^({LEARNS}) .*/stripes$"),
        ("integers(0, 100", "integers(0, 90", "^prepare stripes$"),
        ("float(recalls", "float(1 * recalls", f"^({LEARNS}) .*/stripes$|^evaluate .*/stripes"),
        ("2 * width, 3, stride=2", "2 * width, 5, stride=2", f"^({LEARNS}|evaluate|commit) tiny/"),
        ("AdaptiveMaxPool2d(2)", "AdaptiveAvgPool2d(2)", f"^({LEARNS}|evaluate|commit) plain/"),
        ("total + self.strength", "total - self.strength", "^(train|commit) .*/near/"),
    ],
    ids=["loss", "augmentation", "source", "metric", "network", "classifier", "method"],
)
def test_an_edit_reruns_exactly_what_uses_what_was_edited(tmp_path, old, new, jobs):
    found = changed(tmp_path, old, new)
    assert found == titles(jobs, tmp_path)
    assert found


def test_a_comment_or_a_docstring_reruns_nothing(tmp_path):
    assert (
        changed(tmp_path, '"""Two convolutions;', '# tiny\n    """Three poly convolutions;')
        == set()
    )
    assert changed(tmp_path, "import torch\n", "# torch\n\nimport torch  # poly\n") == set()


def test_what_all_may_use_reruns_what_uses_any(tmp_path):
    more = changed(tmp_path, '@plugin("loss")', 'SHARE = 0.5\n\n\n@plugin("loss")')
    assert more == titles(f"^prepare stripes|^({LEARNS}|evaluate|commit) ", tmp_path)


def test_what_another_plug_in_mentions_counts(tmp_path):
    text = MINE + '\n\n@plugin("loss")\ndef twice(logits, labels, weights):\n'
    text += "    return 2 * poly(logits, labels, weights)\n"
    settings = {"training/loss": "twice"}
    before = jobs_after(tmp_path, text, **settings)
    after = jobs_after(tmp_path, text.replace("(1 - likelihood", "3 * (1 - likelihood"), **settings)
    assert {title for title in before if before[title] != after[title]} >= titles(
        "^train plain/.*/stripes$", tmp_path
    )


def test_a_step_refuses_code_that_was_edited_since_the_plan(tmp_path):
    text = jobs_after(tmp_path, MINE)["prepare stripes"]
    code = json.loads(text)["code"]
    assert set(code) > {"code", "plug-in source stripes"}
    refuse_edited_plugins(code)
    for edited_text, words in (
        (MINE.replace("integers(0, 100", "integers(0, 90"), "the source stripes was edited"),
        (MINE.replace('Literal["stripes"]', 'Literal["lines"]'), "there is no source stripes in"),
    ):
        known(written(tmp_path, edited_text))
        with pytest.raises(plugins.PluginError, match=words):
            refuse_edited_plugins(code)
    known(written(tmp_path, MINE.replace("shape[-1] // 4", "shape[-1] // 5")))
    refuse_edited_plugins(code)  # of which it makes no use


def test_what_has_changed_is_told_by_its_name(tmp_path):
    before, after = (
        json.loads(jobs_after(tmp_path, text)["train plain/near/seed0/textures/stripes"])
        for text in (MINE, MINE.replace("(1 - likelihood", "2 * (1 - likelihood"))
    )
    assert changes(before, after, "train") == ["the code of the loss poly has changed"]


def test_a_file_that_cannot_be_added_leaves_those_that_were_known(packed, tmp_path):
    acll.load(packed, plugins=EXAMPLE / "mine.py")
    with pytest.raises(UserError, match=r"the loss 'poly' is in .*, too"):
        acll.load(packed, plugins=[written(tmp_path, MINE, "other.py")])
    acll.load(packed).network("a")


def test_a_module_beside_the_file_counts(tmp_path):
    beside = "import math\nimport around_them.inner\nfrom beside_them import share\n"
    text = MINE.replace("import numpy as np\n", f"{beside}import numpy as np\n", 1)
    (tmp_path / "around_them").mkdir()
    for name in ("beside_them", "around_them/__init__", "around_them/inner"):
        (tmp_path / f"{name}.py").write_text("share = 1\n")
    before = jobs_after(tmp_path, text)
    (tmp_path / "beside_them.py").write_text("share = 1  # of all\n")
    assert jobs_after(tmp_path, text) == before
    for name in ("beside_them", "around_them/__init__", "around_them/inner"):
        (tmp_path / f"{name}.py").write_text("share = 2\n")
        after = jobs_after(tmp_path, text)
        assert after["prepare stripes"] != before["prepare stripes"]
        before = after


def test_files_are_read_in_the_encoding_that_they_name(tmp_path):
    text = f"{HEAD}@plugin('loss')\ndef a(*given):\n    import beside_it\n"

    def told(own: bytes, beside: bytes = b"x = 1\n") -> dict[str, str]:
        (tmp_path / "mine.py").write_bytes(own)
        (tmp_path / "beside_it.py").write_bytes(beside)
        known(tmp_path / "mine.py")
        origins = plugins.code_origins({"loss": ["a"]})
        return code_of("acll.training.losses", plugged=origins)

    mark, latin = b"\xef\xbb\xbf", b"# coding: latin-1\n# \xe9\n"
    expected = told(text.encode())
    for own, beside in ((mark, mark), (latin, latin)):
        assert told(own + text.encode(), beside + b"x = 1\n") == expected
    for beside in (b"x = (\n", b"# \xe9\n"):
        with pytest.raises(plugins.PluginError, match=r"beside_it\.py: is no sound Python: "):
            told(text.encode(), beside)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed package with a loss, an entry point for it, and a module that it imports."""
    package = tmp_path / "site/losses_of_theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from losses_of_theirs.poly import twice\n")
    text = "from acll.plugins import plugin\nfrom losses_of_theirs.parts import share\n\n\n"
    text += (
        "@plugin('loss')\ndef twice(logits, labels, weights):\n    return share * logits.mean()\n"
    )
    (package / "poly.py").write_text(text)
    (package / "parts.py").write_text("share = 2\n")
    about = tmp_path / "site/losses_of_theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: losses-of-theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[acll.plugins]\ntheirs = losses_of_theirs\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield package
    for name in [one for one in sys.modules if one.startswith("losses_of_theirs")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["theirs", "losses_of_theirs", "losses_of_theirs.poly"])
def test_an_installed_package_is_named_by_its_module_or_entry_point(tmp_path, installed, name):
    changes = {"plugins": ["mine.py", name], "training/loss": "twice"}
    before = jobs_after(tmp_path, MINE, **changes)
    assert plugins.find("loss", "twice").place == name
    (installed / "parts.py").write_text("share = 3\n")
    after = jobs_after(tmp_path, MINE, **changes)
    found = {title for title in before if before[title] != after[title]}
    assert found == titles(f"^({LEARNS}) .*(stripes|textures)$", tmp_path)


def test_where_the_files_lie_makes_no_difference(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = jobs_after(tmp_path / "one", MINE)
    assert jobs_after(tmp_path / "two", MINE) == one
    assert jobs_after(tmp_path / "two", MINE.replace("width: int = 16", "width: int = 8")) != one
    assert jobs_after(tmp_path / "one", MINE) == one


def test_jobs_without_plug_ins_have_the_code_that_they_have_without_any(tmp_path):
    (job,) = [one for one in plan(parse(SETTINGS, EXAMPLE)) if one.title == "prepare textures"]
    assert job.code == code_of("acll.steps.prepare", "acll.data.sources.generated")


# --------------------------------------------------------------------------------------------------
# the whole pipeline


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A checkout in whose `config` the example lies; it has run, with fewer epochs."""
    folder = tmp_path_factory.mktemp("plugins")
    made = checkout(folder / "checkout", folder)
    shutil.copy(EXAMPLE / "mine.py", made.folder / "config")
    made.write(edited({"training/epochs": 1}))
    made.commit("plug-ins")
    text = made.make("run", "plugins")
    assert "geometric mean" in text
    return made


@pytest.mark.slow
def test_the_example_runs_through_the_whole_pipeline(own):
    results = own.results("plugins")
    table = (results / "tables/scores.csv").read_text()
    for row in ("tiny,near,0,stripes+shapes,shapes", "plain,adaptive,0,textures+stripes,stripes"):
        assert row in table
    assert (results / "report.html").is_file()
    assert "all as this commit would make them" in own.make("verify", "plugins")
    assert "promised that no task changes, and none has" in own.make("prove", "plugins")


@pytest.mark.slow
def test_its_networks_are_loaded_and_exported_with_the_file_alone(own, tmp_path):
    results = own.results("plugins")
    path = results / "networks/both-adaptive-seed0.safetensors"
    packed = acll.load(path, plugins=[own.folder / "config/mine.py"])
    images = torch.rand(2, 3, 8, 8)
    for task, ending in (("stripes", "onnx"), ("shapes", "pt2")):
        out = tmp_path / f"{task}.{ending}"
        run("export", path, out, "--task", task)
        learned = packed.task(task)
        mean, std = (torch.tensor(of).view(3, 1, 1) for of in (learned.mean, learned.std))
        program = OnnxSession(out) if ending == "onnx" else torch.export.load(out).module()
        with torch.no_grad():
            expected = packed.network(task)((images - mean) / std) / learned.temperature
            torch.testing.assert_close(program(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_edit_of_its_file_reruns_what_uses_it_and_a_comment_nothing(own):
    path = own.folder / "config/mine.py"

    def planned(old: str, new: str) -> set[str]:
        assert MINE.count(old) == 1
        path.write_text(MINE.replace(old, new), encoding="utf-8")
        return own.planned(name="plugins")

    assert planned('"""Cutout', '"""A Cutout') == set()
    chain = ("train", "search", "prune", "retrain", "evaluate", "commit", "remember")
    found = planned("shape[-1] // 4", "shape[-1] // 5")
    followed = {title for title in found if title.split()[0] in chain}
    assert found - followed == {"tables", "figures"}
    assert {title for title in followed if title.startswith("train ")} == {
        "train tiny/dense/seed0/stripes",
        "train tiny/learned/seed0/stripes",
        "train tiny/adaptive/seed0/stripes/shapes",
        "train tiny/near/seed0/stripes/shapes",
        "train plain/adaptive/seed0/textures/stripes",
        "train plain/near/seed0/textures/stripes",
    }
    path.write_text(MINE, encoding="utf-8")
    assert own.planned(name="plugins") == set()


@pytest.mark.slow
def test_without_its_file_nothing_is_begun(own):
    path = own.folder / "config/mine.py"
    path.rename(path.with_suffix(".away"))
    for target in ("check", "plan", "run"):
        text = own.make(target, "plugins", fails=True)
        assert "plugins = 'mine.py': there is no such file" in text
    path.with_suffix(".away").rename(path)

"""The configuration: what is wrong is said before anything runs, in one line a fault."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from acll.config.checks import ConfigurationError, load_configuration, parse
from acll.data.root import data_root

ROOT = Path(__file__).resolve().parent.parent
MISSING = object()
GOOD = """
name: tiny
tasks:
  easy: {source: generated, kind: classification, image_size: 16, classes: 3, samples: 60,
    difficulty: 0.1}
  digits: {source: digits, image_size: 16}
  shapes: {source: generated, kind: segmentation, image_size: [32, 64], classes: 3, samples: 60,
    difficulty: 0.1}
  birds: {source: image_folder, path: birds, image_size: 32}
  streets: {source: mask_folder, path: streets, image_size: 32, classes: [road, sky]}
networks:
  small: {backbone: resnet_small}
  unet: {decoder: unet, encoder: resnet_small}
  mlp: {hidden: [100, 100], image_size: 16}
sequences:
  classify: {network: small, tasks: [easy, digits]}
  segment: {network: unet, tasks: [shapes, digits]}
methods:
  adaptive: {ratio: {search: tpe}}
  half: {ratio: 0.5}
  finetune: {type: finetuning}
training: {epochs: 2}
"""


AUGMENTATION = (
    "must be 'flip', 'vertical_flip', 'shift', 'brightness', 'crop', 'affine', 'rotation', "
    "'colour', 'blur', 'erasing', 'trivialaugment', 'randaugment', 'mixup' or 'cutmix'"
)


def edited(**changes):
    """Return the good configuration with values put at some paths, or taken away."""
    content = yaml.safe_load(GOOD)
    for path, value in changes.items():
        *way, last = path.split("/")
        place = content
        for key in way:
            place = place[key]
        if value is MISSING:
            del place[last]
        else:
            place[last] = copy.deepcopy(value)
    return content


def faults(raw) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(raw)
    lines = str(caught.value).split("\n")
    for line in lines:
        assert re.match(r"[a-z_0-9.+ ]+(: | = )", line), line
        for jargon in (
            "Value error",
            "nput should",
            "type=",
            "http",
            "dictionary",
            "instance of",
            "constrained",
            "[key]",
        ):
            assert jargon not in line
    return lines


def fault(path, value) -> str:
    lines = faults(edited(**{path: value}))
    assert len(lines) == 1, lines
    return lines[0]


def faults_of_file(folder, text, name="tiny") -> list[str]:
    path = folder / f"{name}.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


# --------------------------------------------------------------------------------------------------
# good ones


@pytest.mark.parametrize(
    "path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_configuration_of_the_repository_loads(path):
    assert load_configuration(path).name == path.stem


def test_a_configuration_file_gives_what_its_content_gives(tmp_path):
    (tmp_path / "tiny.yaml").write_text(GOOD)
    assert load_configuration(tmp_path / "tiny.yaml") == parse(yaml.safe_load(GOOD))


def test_one_number_is_height_and_width():
    tasks = parse(edited()).tasks
    assert tasks["easy"].image_size == (16, 16)
    assert tasks["shapes"].image_size == (32, 64)


def test_a_method_without_a_type_is_packing():
    assert parse(edited()).methods["half"].type == "packing"


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("5E-1", 0.5), ("2.e-3", 2e-3), ("1.5e+0", 1.5)]
)
def test_scientific_notation_is_a_number(tmp_path, text, value):
    (tmp_path / "tiny.yaml").write_text(GOOD.replace("epochs: 2", f"learning_rate: {text}"))
    assert load_configuration(tmp_path / "tiny.yaml").training.learning_rate == value


def test_what_stands_in_quotes_is_text_whatever_it_looks_like(tmp_path):
    (tmp_path / "tiny.yaml").write_text(GOOD.replace("easy", "'1e5'"))
    assert load_configuration(tmp_path / "tiny.yaml").sequences["classify"].tasks == [
        "1e5",
        "digits",
    ]
    (tmp_path / "tiny.yaml").write_text(GOOD.replace("easy", "1e5"))
    with pytest.raises(
        ConfigurationError, match=r"the key 100000\.0 must be text; put it in quotes"
    ):
        load_configuration(tmp_path / "tiny.yaml")


@pytest.mark.parametrize("text", ["1e3", "-2E+05", "1.e3", "1.5e-3"])
def test_quoted_numbers_stay_text_in_classes_paths_and_networks(tmp_path, text):
    quoted = f"""
name: tiny
tasks:
  a: {{source: table, path: '{text}', kind: segmentation, image_size: 32, classes: ['{text}', b]}}
networks: {{unet: {{decoder: unet, encoder: resnet_small, weights: '{text}.safetensors'}}}}
sequences: {{one: {{network: unet, tasks: [a]}}}}
methods: {{half: {{ratio: 0.5}}}}
training: {{learning_rate: {text.lstrip("-")}}}
"""
    (tmp_path / "tiny.yaml").write_text(quoted)
    found = load_configuration(tmp_path / "tiny.yaml")
    assert found.tasks["a"].path == text
    assert found.tasks["a"].classes == [text, "b"]
    assert found.networks["unet"].weights == f"{text}.safetensors"
    assert found.training.learning_rate == abs(float(text))


@pytest.mark.parametrize(("count", "fits"), [(255, False), (100, True)])
def test_a_chain_whose_paths_would_be_too_long_is_refused_with_the_longest_that_fits(count, fits):
    long = edited()
    long["sequences"] = {"one": {"network": "tiny", "tasks": {"of": "digits", "permuted": count}}}
    long["networks"]["tiny"] = {"hidden": [8], "image_size": [16, 16]}
    if fits:
        assert len(parse(long).sequences["one"].tasks) == count
        return
    with pytest.raises(
        ConfigurationError, match=r"a chain of 255 tasks .* (\d+) of these tasks fit"
    ) as told:
        parse(long)
    longest = int(re.search(r"(\d+) of these", str(told.value)).group(1))
    long["sequences"]["one"]["tasks"]["permuted"] = longest
    assert len(parse(long).sequences["one"].tasks) == longest


def test_keys_can_be_merged_from_another_task(tmp_path):
    text = GOOD.replace("digits: {", "digits: &digits {").replace(
        "  birds:", "  again: {<<: *digits, split_seed: 3}\n  birds:"
    )
    (tmp_path / "tiny.yaml").write_text(text)
    tasks = load_configuration(tmp_path / "tiny.yaml").tasks
    assert tasks["again"] == tasks["digits"].model_copy(update={"split_seed": 3})


def test_training_of_a_task_is_the_common_one_with_its_overrides():
    configuration = parse(
        edited(**{"tasks/easy/training": {"epochs": 7, "augmentation": ["flip"]}})
    )
    assert configuration.training_of("digits") == configuration.training
    changed = {"epochs": 7, "augmentation": ["flip"]}
    assert (
        configuration.training_of("easy").model_dump()
        == configuration.training.model_dump() | changed
    )


def test_scientific_notation_is_a_number_in_overrides(tmp_path):
    text = GOOD.replace("digits: {", "digits: {training: {learning_rate: 3e-4}, ", 1)
    (tmp_path / "tiny.yaml").write_text(text)
    assert load_configuration(tmp_path / "tiny.yaml").training_of("digits").learning_rate == 3e-4


@pytest.mark.parametrize(
    "network",
    [
        {"backbone": "resnet18", "channels": 13},
        {"backbone": "lenet"},
        {"backbone": "conv_small"},
        {"decoder": "fpn", "encoder": "tu-resnet18", "channels": 4},
        {"hidden": [5], "image_size": [16, 32], "weights": "none", "channels": 3},
    ],
)
def test_networks_of_the_libraries_are_accepted(network):
    parse(edited(**{"networks/other": network}))


def test_channels_are_three_unless_they_are_named_and_one_for_a_perceptron():
    networks = parse(edited(**{"networks/unet/channels": 13})).networks
    assert {name: network.channels for name, network in networks.items()} == {
        "small": 3,
        "unet": 13,
        "mlp": 1,
    }


def test_raw_data_may_lie_in_the_home_of_who_runs_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me and you")
    monkeypatch.delenv("ACLL_DATA_ROOT", raising=False)
    root = parse(edited(data_root="~/raw data")).data_root
    assert data_root(root) == Path("/home/me and you/raw data")
    monkeypatch.setenv("ACLL_DATA_ROOT", "~/elsewhere")  # of DATA='~/elsewhere'
    assert data_root(root) == Path("/home/me and you/elsewhere")


def test_weights_may_be_a_file_below_the_data_root():
    for ending in ("safetensors", "pth", "pt", "pth.tar"):
        path = f"weights/mine.{ending}"
        assert parse(edited(**{"networks/small/weights": path})).networks["small"].weights == path


# --------------------------------------------------------------------------------------------------
# keys


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("seed", "seed: unknown key (did you mean seeds?)"),
        ("tasks/easy/clases", "tasks.easy.clases: unknown key (did you mean classes?)"),
        (
            "tasks/digits/imagesize",
            "tasks.digits.imagesize: unknown key (did you mean image_size?)",
        ),
        ("tasks/birds/grup", "tasks.birds.grup: unknown key (did you mean group?)"),
        ("tasks/streets/pth", "tasks.streets.pth: unknown key (did you mean path?)"),
        ("networks/small/weight", "networks.small.weight: unknown key (did you mean weights?)"),
        (
            "networks/unet/backbone",
            "networks.unet.backbone: unknown key (it belongs to `networks.<name>`, for "
            "classification)",
        ),
        ("networks/mlp/hiden", "networks.mlp.hiden: unknown key (did you mean hidden?)"),
        ("sequences/classify/task", "sequences.classify.task: unknown key (did you mean tasks?)"),
        ("methods/half/scop", "methods.half.scop: unknown key (did you mean scope?)"),
        (
            "methods/finetune/ratio",
            "methods.finetune.ratio: unknown key (it belongs to `methods.<name>`, type `packing`)",
        ),
        ("ema", "ema: unknown key (it belongs to `training`)"),
        (
            "networks/mlp/seed",  # which a generated task has
            "networks.mlp.seed: unknown key (allowed: hidden, image_size, weights, channels)",
        ),
        ("training/orders", "training.orders: unknown key (it belongs to the top level)"),
        (
            "methods/half/budget",
            "methods.half.budget: unknown key (it belongs to `methods.<name>.ratio`, a search)",
        ),
        (
            "sequences/classify/image_size",
            "sequences.classify.image_size: unknown key (it belongs to `tasks.<name>`, whatever "
            "the source; or to `networks.<name>`, a perceptron)",
        ),
        (
            "methods/adaptive/ratio/buget",
            "methods.adaptive.ratio.buget: unknown key (did you mean budget?)",
        ),
        ("training/epoch", "training.epoch: unknown key (did you mean epochs?)"),
        ("tasks/easy/training", "tasks.easy.training.epoch: unknown key (did you mean epochs?)"),
    ],
)
def test_an_unknown_key_is_named_with_the_likely_one(path, line):
    assert fault(path, {"epoch": 3} if path.endswith("/training") else 3) == line


def test_an_unknown_key_like_no_other_comes_with_all_that_are_allowed():
    assert fault("methods/adaptive/ratio/qqq", 1) == (
        "methods.adaptive.ratio.qqq: unknown key (allowed: search, budget, prefer, lower, z, "
        "min_tolerance, "
        "max_tolerance, ratio)"
    )


@pytest.mark.parametrize(
    "path",
    [
        "name",
        "tasks",
        "networks",
        "sequences",
        "methods",
        "tasks/easy/source",
        "tasks/easy/image_size",
        "tasks/birds/path",
        "networks/small/backbone",
        "networks/unet/encoder",
        "networks/unet/decoder",
        "networks/mlp/image_size",
        "sequences/segment/network",
        "methods/half/ratio",
        "methods/adaptive/ratio/search",
    ],
)
def test_a_missing_key_is_named(path):
    assert fault(path, MISSING) == f"{path.replace('/', '.')}: missing; it is required"


@pytest.mark.parametrize("path", ["tasks", "training", "tasks/easy/training"])
def test_a_key_that_is_a_number_is_named(path):
    value = {3: {"source": "digits", "image_size": 16}}
    assert (
        fault(path, value) == f"{path.replace('/', '.')}: the key 3 must be text; put it in quotes"
    )


# --------------------------------------------------------------------------------------------------
# types and values of one key


@pytest.mark.parametrize(
    ("path", "value", "shown", "must"),
    [
        # of the wrong type
        ("name", 3, "3", "must be text"),
        ("threads", True, "true", "must be a whole number"),
        ("threads", "2", '"2"', "must be a whole number"),
        ("seeds", 0, "0", "must be a list"),
        ("seeds", [True], "true", "must be a whole number"),
        ("tasks", [], "[]", "must be a mapping of keys to values"),
        ("tasks/easy", None, "null", "must be a mapping of keys to values"),
        ("tasks/easy/classes", 3.5, "3.5", "must be a whole number"),
        ("tasks/easy/difficulty", "hard", '"hard"', "must be a number"),
        ("tasks/easy/difficulty", float("nan"), "NaN", "must be a finite number"),
        ("tasks/easy/training", 3, "3", "must be a mapping of keys to values"),
        ("tasks/streets/classes", "road", '"road"', "must be a list"),
        ("tasks/streets/classes", ["road", False], "false", "must be text"),
        ("networks/small", None, "null", "must be a mapping of keys to values"),
        ("networks/small", "resnet18", '"resnet18"', "must be a mapping of keys to values"),
        ("networks/mlp/hidden", 100, "100", "must be a list"),
        ("networks/mlp/hidden", [10.5], "10.5", "must be a whole number"),
        ("networks/small/channels", "rgb", '"rgb"', "must be a whole number"),
        ("sequences/classify", ["easy"], '["easy"]', "must be a mapping of keys to values"),
        ("methods/half", None, "null", "must be a mapping of keys to values"),
        ("methods/half", 0.5, "0.5", "must be a mapping of keys to values"),
        ("methods/half/ratio", "half", '"half"', "must be a number, or the settings of a search"),
        ("methods/half/ratio", True, "true", "must be a number, or the settings of a search"),
        ("methods/half/cap", "yes", '"yes"', "must be true or false"),
        ("methods/adaptive/ratio/budget", "much", '"much"', "must be a number"),
        ("training", None, "null", "must be a mapping of keys to values"),
        ("training/epochs", True, "true", "must be a whole number"),
        ("training/mixed_precision", 1, "1", "must be true or false"),
        ("training/augmentation", "flip", '"flip"', "must be a list"),
        # out of bounds
        ("threads", 0, "0", "must be above 0"),
        ("seeds", [], "[]", "must have 1 or more entries"),
        ("seeds", [-1], "-1", "must be 0 or more"),
        ("tasks", {}, "{}", "must have 1 or more entries"),
        ("tasks/easy/classes", 1, "1", "must be 2 or more"),
        ("tasks/easy/difficulty", 1.5, "1.5", "must be 1 or less"),
        ("tasks/easy/validation_share", 0, "0", "must be above 0"),
        ("tasks/streets/classes", ["road"], '["road"]', "must have 2 or more entries"),
        ("networks/small/channels", 0, "0", "must be 1 or more"),
        ("networks/unet/channels", -3, "-3", "must be 1 or more"),
        ("networks/mlp/hidden", [], "[]", "must have 1 or more entries"),
        ("networks/mlp/hidden", [10, 0], "0", "must be above 0"),
        (
            "networks/mlp/image_size",
            0,
            "0",
            "must be a number of pixels above 0, or two: [height, width]",
        ),
        ("sequences/classify/tasks", [], "[]", "must have 1 or more entries"),
        ("methods/half/ratio", 1.0, "1.0", "must be below 1"),
        ("methods/half/ratio", -0.1, "-0.1", "must be 0 or more"),
        ("methods/adaptive/ratio/lower", 0, "0", "must be 1e-06 or more"),
        ("training/batch_size", 1, "1", "must be 2 or more"),
        ("training/learning_rate", 0, "0", "must be above 0"),
        # none of the words that are allowed
        (
            "tasks/easy/kind",
            "regression",
            '"regression"',
            "must be 'classification' or 'segmentation'",
        ),
        ("tasks/birds/kind", "segmentation", '"segmentation"', "must be 'classification'"),
        (
            "tasks/easy/source",
            "cifar",
            '"cifar"',
            "must be one of 'coco', 'cub200', 'digits', 'generated', "
            "'image_folder', 'mask_folder', 'table', 'torchvision'",
        ),
        (
            "tasks/easy/source",
            None,
            "null",
            "must be one of 'coco', 'cub200', 'digits', 'generated', "
            "'image_folder', 'mask_folder', 'table', 'torchvision'",
        ),
        ("networks/mlp/weights", "imagenet", '"imagenet"', "must be 'none'"),
        (
            "methods/half/type",
            "si",
            '"si"',
            "must be one of 'ewc', 'finetuning', 'frozen', 'individual', 'joint', 'lwf', "
            "'packing', 'piggyback', 'wsn'",
        ),
        (
            "methods/adaptive/ratio/search",
            "anneal",
            '"anneal"',
            "must be 'bayes', 'tpe', 'random', 'grid', 'decay' or 'fixed'",
        ),
        (
            "training/optimizer",
            "two\nlines",
            '"two\\nlines"',
            "must be 'sgd', 'adamw', 'adabelief' or another of the 26 in config/README.md",
        ),
        (
            "training/optimizer",
            "nadan",
            '"nadan"',
            "must be 'sgd', 'adamw', 'adabelief' or another of the 26 in config/README.md "
            "(did you mean adan or nadam or radam?)",
        ),
        (
            "training/augmentation",
            ["flop"],
            '"flop"',
            f"{AUGMENTATION} (did you mean flip?)",
        ),
        ("training/augmentation", [3], "3", AUGMENTATION),
        (
            "training/augmentation",
            [{"flop": 3}],
            '{"flop": 3}',
            f"{AUGMENTATION} (did you mean flip?)",
        ),
        (
            "training/augmentation",
            [{"shift": 0.1}],
            '{"shift": 0.1}',
            "has no strength to be set, as rotation and crop have; write shift",
        ),
        (
            "training/augmentation",
            [{"rotation": 200}],
            '{"rotation": 200}',
            "must be a number above 0, 180 at most: degrees",
        ),
        (
            "training/augmentation",
            [{"rotation": "30"}],
            '{"rotation": "30"}',
            "must be a number above 0, 180 at most: degrees",
        ),
        (
            "training/augmentation",
            [{"crop": 0}],
            '{"crop": 0}',
            "must be a number above 0, 1 at most: share of the area",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(path, value, shown, must):
    assert fault(path, value) == f"{path.replace('/', '.')} = {shown}: {must}"


MASKED = "mixes the labels of images, and {} has masks; leave it out"


def test_images_with_masks_are_not_mixed():
    own = "tasks.shapes.training.augmentation"
    assert fault("tasks/shapes/training", {"augmentation": ["flip", "cutmix"]}) == (
        f"{own}: cutmix {MASKED.format('shapes')}"
    )
    parse(edited(**{"tasks/easy/training": {"augmentation": ["mixup", "cutmix"]}}))
    everywhere = edited(**{"training/augmentation": ["mixup"]})
    assert faults(everywhere) == [
        f"training.augmentation: mixup {MASKED.format(name)}, or set "
        f"tasks.{name}.training.augmentation"
        for name in ("shapes", "streets")
    ]
    for name in ("shapes", "streets"):
        everywhere["tasks"][name]["training"] = {"augmentation": []}
    parse(everywhere)


def test_hues_are_changed_for_networks_of_three_channels_alone():
    of_five = {"networks/unet/channels": 5}
    assert faults(edited(**of_five, **{"training/augmentation": ["colour"]})) == [
        "training.augmentation: colour changes hues, of images of 3 channels, and networks.unet "
        f"takes 5; use brightness, or set tasks.{name}.training.augmentation"
        for name in ("digits", "shapes")
    ]
    parse(edited(**of_five, **{"tasks/easy/training": {"augmentation": ["colour"]}}))
    parse(edited(**of_five, **{"training/augmentation": ["trivialaugment", "brightness"]}))


def test_strengths_of_augmentation_arrive():
    given = ["flip", {"rotation": 30}, {"crop": 0.5}, "affine"]
    found = parse(edited(**{"training/augmentation": given})).training.augmentation
    assert found == ["flip", {"rotation": 30.0}, {"crop": 0.5}, "affine"]


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ({"type": "wsn", "capacity": 0}, "methods.half.capacity = 0: must be above 0"),
        ({"type": "wsn", "capacity": 1.5}, "methods.half.capacity = 1.5: must be 1 or less"),
        ({"type": "piggyback", "margin": 0.0}, "methods.half.margin = 0.0: must be above 0"),
        (
            {"type": "wsn", "ratio": 0.5},
            "methods.half.ratio: unknown key (it belongs to `methods.<name>`, type `packing`)",
        ),
        (
            {"type": "piggyback", "grow": 1.5},
            "methods.half.grow: unknown key (it belongs to `methods.<name>`, type `packing`)",
        ),
    ],
)
def test_what_masks_cannot_be_told_is_refused(method, line):
    assert fault("methods/half", method) == line


@pytest.mark.parametrize("criterion", [{}, {"criterion": "learned"}], ids=["default", "named"])
@pytest.mark.parametrize(
    ("key", "value"), [("scope", "global"), ("scope", "channel"), ("release", "once")]
)
def test_what_only_magnitudes_can_do_is_refused_where_scores_are_learned(criterion, key, value):
    method = {key: value, "ratio": 0.5} | criterion
    line = f'methods.half.{key} = "{value}": needs `criterion: magnitude`'
    assert fault("methods/half", method) == line
    allowed = parse(edited(**{"methods/half": method | {"criterion": "magnitude"}}))
    assert getattr(allowed.methods["half"], key) == value


def test_what_only_scores_can_do_is_refused_by_magnitude():
    method = {"reuse": "chosen", "criterion": "magnitude", "ratio": 0.5}
    assert fault("methods/half", method) == (
        'methods.half.reuse = "chosen": needs `criterion: learned`: a task chooses by scores'
    )
    allowed = parse(edited(**{"methods/half": method | {"criterion": "learned"}}))
    assert allowed.methods["half"].reads == "chosen"


def test_each_key_that_does_not_fit_the_criterion_has_a_line():
    found = faults(edited(**{"methods/half": {"ratio": 0.5, "scope": "global", "release": "once"}}))
    assert [line.split(" = ")[0] for line in found] == [
        "methods.half.scope",
        "methods.half.release",
    ]


def test_packing_learns_scores_and_by_magnitude_reads_all():
    packing = parse(edited()).methods["half"]
    assert (packing.criterion, packing.scope, packing.release) == ("learned", "layer", "gradual")
    assert packing.reads == "chosen"
    by_magnitude = parse(edited(**{"methods/half/criterion": "magnitude"})).methods["half"]
    assert (by_magnitude.scope, by_magnitude.release) == ("layer", "gradual")
    assert by_magnitude.reads == "all"


@pytest.mark.parametrize(
    "value", [0, -1, True, 16.0, "16", [16], [16, 16, 16], [16, "16"], [16, True], {}, None]
)
def test_a_bad_image_size_is_one_fault(value):
    line = fault("tasks/easy/image_size", value)
    assert line.startswith("tasks.easy.image_size = ")
    assert line.endswith(": must be a number of pixels above 0, or two: [height, width]")


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [("epochs", 0, "must be above 0"), ("epochs", True, "must be a whole number")],
)
def test_a_bad_override_is_named_at_its_task(key, value, must):
    shown = str(value).lower()
    assert (
        fault("tasks/digits/training", {key: value})
        == f"tasks.digits.training.{key} = {shown}: {must}"
    )


def test_bounds_of_the_tolerance_are_compared():
    line = fault("methods/adaptive/ratio", {"search": "tpe", "min_tolerance": 0.5})
    assert line.startswith("methods.adaptive.ratio = ")
    assert line.endswith(": min_tolerance must not be above max_tolerance (0.03)")


def test_long_values_are_shortened():
    assert len(fault("training/optimizer", "x" * 10_000)) < 170


# --------------------------------------------------------------------------------------------------
# names, and what must fit together


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("name", "Tiny run", "name = 'Tiny run': names are made of small letters, digits and _"),
        (
            "tasks/a-b",
            {"source": "digits", "image_size": 16},
            "tasks = 'a-b': names are made of small letters, digits and _",
        ),
        (
            "methods/dense",
            {"ratio": 0.5},
            "methods.dense: this name is taken by a training that methods share",
        ),
        (
            "tasks/auto",
            {"source": "digits", "image_size": 16},
            "tasks.auto: this name is taken: it stands for the most likely task",
        ),
        (
            "methods/learned",
            {"ratio": 0.5},
            "methods.learned: this name is taken by a training that methods share",
        ),
        (
            "sequences/classify/network",
            "smal",
            "sequences.classify.network = 'smal': there is no such network (did you mean small?)",
        ),
        (
            "sequences/classify/network",
            "vgg",
            "sequences.classify.network = 'vgg': there is no such network (there are: small, "
            "unet, mlp)",
        ),
        (
            "sequences/classify/tasks",
            ["digit"],
            "sequences.classify.tasks = 'digit': there is no such task (did you mean digits?)",
        ),
        (
            "sequences/classify/tasks",
            ["mnist_zz"],
            "sequences.classify.tasks = 'mnist_zz': there is no such task "
            "(there are: easy, digits, shapes, birds, streets)",
        ),
        (
            "sequences/classify/tasks",
            ["easy", "easy"],
            "sequences.classify.tasks = ['easy', 'easy']: a task stands there twice",
        ),
        ("seeds", [1, 0, 1], "seeds = [1, 0, 1]: a seed stands there twice"),
        (
            "training/augmentation",
            ["flip", "shift", "flip"],
            'training.augmentation = ["flip", "shift", "flip"]: flip may stand there once only',
        ),
        (
            "training/augmentation",
            ["crop", {"crop": 0.5}, {"rotation": 5}, {"rotation": 9}],
            'training.augmentation = ["crop", {"crop": 0.5}, {"rotation": 5}, {"rotation": 9}]: '
            "crop and rotation may stand there once only",
        ),
        (
            "training/augmentation",
            ["flip", {"crop": 0.5, "rotation": 9}],
            'training.augmentation = {"crop": 0.5, "rotation": 9}: each augmentation is an entry '
            "of its own: write {crop: 0.5}, {rotation: 9}",
        ),
        (
            "tasks/easy/training",
            {"augmentation": [{"crop": 0.5}, {"crop": 0.5}]},
            'tasks.easy.training.augmentation = [{"crop": 0.5}, {"crop": 0.5}]: crop may stand '
            "there once only",
        ),
        (
            "sequences/classify/tasks",
            ["shapes"],
            "sequences.classify.tasks = 'shapes': a segmentation task needs a network with a "
            "decoder",
        ),
        (
            "tasks/birds/path",
            "/data/birds",
            "tasks.birds.path = '/data/birds': must lie below data_root, which `DATA=…` can set",
        ),
        (
            "tasks/birds/path",
            "~/birds",
            "tasks.birds.path = '~/birds': must lie below data_root, which `DATA=…` can set",
        ),
        (
            "tasks/birds/path",
            "../birds",
            "tasks.birds.path = '../birds': must lie below data_root, which `DATA=…` can set",
        ),
        (
            "tasks/birds/group",
            "(",
            "tasks.birds.group = '(': not a regular expression: missing ), unterminated "
            "subpattern at position 0",
        ),
        (
            "tasks/easy/validation_share",
            0.75,
            "tasks.easy.validation_share + test_share: must leave a tenth for training",
        ),
    ],
)
def test_names_and_values_must_fit_together(path, value, line):
    assert fault(path, value) == line


def test_images_of_masks_are_not_drawn_by_class():
    own = faults(edited(**{"tasks/shapes/training": {"sampling": "balanced"}}))
    why = "an image of shapes has many classes; use `class_weights: balanced` or `loss: dice`"
    assert own == [f"tasks.shapes.training.sampling = 'balanced': {why}"]
    both = {"training/sampling": "balanced", "tasks/streets/training": {"sampling": "shuffled"}}
    leave = ", and in tasks.shapes `training: {sampling: shuffled}`"
    assert faults(edited(**both)) == [f"training.sampling = 'balanced': {why}{leave}"]
    parse(edited(**both, **{"tasks/shapes/training": {"sampling": "shuffled"}}))


def test_a_perceptron_is_refused_a_segmentation_task():
    lines = faults(edited(**{"sequences/segment": {"network": "mlp", "tasks": ["shapes"]}}))
    assert lines == [
        "sequences.segment.tasks = 'shapes': a segmentation task needs a network with a decoder"
    ]


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            "networks/small/backbone",
            "resnet19",
            "there is no such backbone (did you mean resnet18 or resnet152 or resnet101?)",
        ),
        (
            "networks/small/backbone",
            "convsmall",
            "there is no such backbone (did you mean conv_small or ",
        ),
        ("networks/small/backbone", "le_net", "there is no such backbone (did you mean lenet or "),
        ("networks/unet/encoder", "conv_small", "there is no such encoder ("),
        ("networks/unet/encoder", "lenet", "there is no such encoder ("),
        (
            "networks/small/backbone",
            "zzz",
            "there is no such backbone (known: resnet_small, lenet, conv_small, alexnet, ",
        ),
        ("networks/unet/decoder", "unett", "there is no such decoder (did you mean unet or "),
        ("networks/unet/decoder", "UNet", "there is no such decoder (did you mean unet?)"),
        (
            "networks/unet/decoder",
            "unet++",
            "there is no such decoder (did you mean unetplusplus?)",
        ),
        (
            "networks/unet/encoder",
            "resnet19",
            "there is no such encoder (did you mean resnet18 or ",
        ),
        (
            "networks/unet/decoder",
            "deeplabv3",
            "does not fit the three scales of resnet_small (these do: unet, ",
        ),
        (
            "networks/small/weights",
            "imagenet",
            "there are no ImageNet weights for it; use none or a file",
        ),
        (
            "networks/small/weights",
            "imagenette",
            "must be none, imagenet or the path of a file of weights (.safetensors, .pth, .pt, ",
        ),
        ("networks/small/weights", "../w.safetensors", "must lie below data_root"),
        ("networks/small/weights", "~/w.safetensors", "must lie below data_root"),
        ("networks/small/weights", "/nowhere/w.safetensors", "must lie below data_root"),
    ],
)
def test_networks_that_do_not_exist_or_fit_are_named_with_those_that_do(path, value, line):
    assert fault(path, value).startswith(f"{path.replace('/', '.')} = {value!r}: {line}")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"tasks/easy/image_size": 4},
            "tasks.easy.image_size = [4, 4]: resnet_small needs 8 or more",
        ),
        (
            {"tasks/shapes/image_size": [30, 64]},
            "tasks.shapes.image_size = [30, 64]: must be multiples of 8, such as [32, 64]",
        ),
        (
            {
                "networks/unet/encoder": "resnet18",
                "tasks/digits/image_size": 8,
                "tasks/easy/image_size": 8,
            },
            "tasks.digits.image_size = [8, 8]: must be multiples of 32, such as [32, 32]",
        ),
        (
            {"networks/small/backbone": "lenet", "tasks/easy/image_size": 8},
            "tasks.easy.image_size = [8, 8]: lenet needs 16 or more",
        ),
        (
            {"sequences/classify/network": "mlp", "tasks/easy/image_size": [16, 32]},
            "tasks.easy.image_size = [16, 32]: must be [16, 16], the image_size of its perceptron",
        ),
        (
            {"networks/small/backbone": "vit_b_16", "sequences/classify/tasks": ["birds"]},
            "tasks.birds.image_size = [32, 32]: vit_b_16 needs exactly 224",
        ),
    ],
)
def test_an_image_size_that_does_not_fit_the_network_comes_with_one_that_does(changes, line):
    assert faults(edited(**changes)) == [line]


def test_an_encoder_that_does_not_exist_has_no_size_to_fit():
    (line,) = faults(
        edited(**{"networks/unet/encoder": "resnet_smal", "tasks/digits/image_size": 24})
    )
    assert line.startswith(
        "networks.unet.encoder = 'resnet_smal': there is no such encoder (did you mean resnet_small"
    )


def test_a_size_that_is_offered_is_accepted():
    parse(edited(**{"tasks/shapes/image_size": [32, 64]}))
    parse(edited(**{"tasks/easy/image_size": 8}))


# --------------------------------------------------------------------------------------------------
# all at once


def test_all_faults_of_keys_and_values_are_reported_together():
    changes = {
        "tasks/easy/clases": 3,
        "tasks/digits/image_size": 0,
        "networks/small/backbone": MISSING,
        "methods/half/ratio": 1.5,
        "methods/finetune/type": "si",
        "training/epochs": "ten",
        "sedes": [1],
    }
    lines = faults(edited(**changes))
    assert len(lines) == len(changes)
    for path in changes:
        assert [line for line in lines if line.startswith(path.replace("/", "."))], path


def test_all_faults_of_names_and_fit_are_reported_together():
    changes = {
        "name": "Tiny",
        "seeds": [0, 0],
        "tasks/birds/path": "/birds",
        "tasks/birds/group": "[",
        "tasks/easy/training": {"epochs": 0, "epoch": 1},
        "networks/other": {"backbone": "resnet19"},
        "sequences/classify/network": "none",
        "sequences/segment/tasks": ["shapes", "unknown"],
    }
    keys = {line.split(" = ")[0].split(":")[0] for line in faults(edited(**changes))}
    assert keys == {
        "name",
        "seeds",
        "tasks.birds.path",
        "tasks.birds.group",
        "tasks.easy.training.epochs",
        "tasks.easy.training.epoch",
        "networks.other.backbone",
        "sequences.classify.network",
        "sequences.segment.tasks",
    }


def test_faults_of_keys_values_names_series_and_fit_are_reported_together():
    changes = {
        "tasks/easy/clases": 3,  # an unknown key
        "tasks/Bad": {"source": "digits", "image_size": 16},
        "tasks/birds/training": {"epoch": 1},
        "networks/small/backbone": "resnet19",
        "networks/unet/chanels": 3,
        "methods/finetune/type": "si",
        "seeds": ["one"],
        "sequences/classify/network": "smal",
        "sequences/segment/tasks": ["shapes", "didgits"],
        "sequences/series": {"network": "small", "tasks": {"of": "easi", "permuted": 2}},
        "sequences/wide": {"network": "unet", "tasks": ["streets"]},
        "tasks/streets/image_size": 30,
    }
    lines = faults(edited(**changes))
    assert sorted(re.split(" = |: ", line)[0] for line in lines) == [
        "methods.finetune.type",
        "networks.small.backbone",
        "networks.unet.chanels",
        "seeds",
        "sequences.classify.network",
        "sequences.segment.tasks",
        "sequences.series.tasks.of",
        "tasks",
        "tasks.birds.training.epoch",
        "tasks.easy.clases",
        "tasks.streets.image_size",
    ]


@pytest.mark.parametrize("section", ["tasks", "networks"])
def test_what_refers_to_a_faulty_entry_or_section_is_no_fault_of_its_own(section):
    names = {"tasks": ("easy", "image_size"), "networks": ("small", "backbone")}[section]
    path = "/".join((section, *names))
    (line,) = faults(edited(**{path: [[]]}))
    assert line.startswith(path.replace("/", "."))
    for value in ({}, [], None):
        (line,) = faults(edited(**{section: value}))
        assert line.startswith(f"{section} = ")


def test_a_fault_that_two_sequences_meet_is_reported_once():
    assert (
        len(
            faults(
                edited(
                    **{
                        "tasks/easy/image_size": 4,
                        "sequences/again": {"network": "small", "tasks": ["easy"]},
                    }
                )
            )
        )
        == 1
    )


# --------------------------------------------------------------------------------------------------
# files


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "empty, or not a mapping of keys to values"),
        ("# nothing\n", "empty, or not a mapping of keys to values"),
        ("- a\n- b\n", "empty, or not a mapping of keys to values"),
        ("name: [tiny\n", "not valid YAML: line 2: expected ',' or ']', but got '<stream end>'"),
        (
            "name: tiny\n\ttasks: 3\n",
            "not valid YAML: line 2: found character '\\t' that cannot start any token",
        ),
        (
            "name: !!python/name:os.system\n",
            "not valid YAML: line 1: could not determine a constructor for the tag",
        ),
        (
            "name: tiny\nseeds: [0]\nname: tiny\n",
            "not valid YAML: line 3: the key 'name' stands there twice",
        ),
        (b"name: tiny # \xfc\n", "not text in UTF-8: "),
    ],
)
def test_a_file_that_cannot_be_read_is_one_fault(tmp_path, text, line):
    (found,) = faults_of_file(tmp_path, text)
    assert found.startswith(line)


def test_a_key_that_stands_twice_deep_inside_is_found(tmp_path):
    text = GOOD.replace("classes: 3, samples: 60", "classes: 3, samples: 60, classes: 4", 1)
    assert faults_of_file(tmp_path, text) == [
        "not valid YAML: line 4: the key 'classes' stands there twice"
    ]


def test_a_name_that_is_not_the_files_is_refused(tmp_path):
    assert faults_of_file(tmp_path, GOOD, "other") == [
        "name = 'tiny': must be 'other', as the file is called"
    ]


def test_a_name_that_is_not_the_files_is_told_with_other_faults(tmp_path):
    text = GOOD.replace("{epochs: 2}", "{epochs: 2, epoch: 2}").replace(
        "network: small", "network: s"
    )
    lines = faults_of_file(tmp_path, text, "other")
    assert [re.split(" = |: ", line)[0] for line in lines] == [
        "training.epoch",
        "sequences.classify.network",
        "name",
    ]


def test_every_line_names_the_file(tmp_path):
    assert (
        len(
            faults_of_file(
                tmp_path, GOOD.replace("ratio: 0.5", "ratio: 5").replace("epochs: 2", "epochs: 0")
            )
        )
        == 2
    )


def test_a_missing_file_is_named_with_the_files_that_are_there(tmp_path):
    (tmp_path / "tiny.yaml").write_text(GOOD)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(tmp_path / "tini.yaml")
    assert str(caught.value) == f"{tmp_path}/tini.yaml: there is no such file (there are: tiny)"


def test_of_a_configuration_that_is_gone_it_is_said_what_is_left(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "results/mine").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"results/mine and its lines in dvc.yaml: delete"):
        load_configuration(tmp_path / "config/mine.yaml")


@pytest.mark.parametrize("typed", ["mine", "mine.yaml", "confg/mine.yaml"])
def test_a_configuration_that_is_named_without_its_folder_is_meant(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/mine.yaml").touch()
    with pytest.raises(ConfigurationError, match=r"did you mean config/mine\.yaml"):
        load_configuration(Path(typed))


def test_a_class_of_masks_that_stands_there_twice_is_reported():
    task = {
        "source": "mask_folder",
        "path": "x",
        "image_size": 32,
        "classes": ["sky", "road", "sky"],
    }
    networks = {"n": {"decoder": "unet", "encoder": "resnet18"}}
    raw = {
        "name": "x",
        "tasks": {"a": task},
        "networks": networks,
        "methods": {"m": {"ratio": 0.5}},
    }
    with pytest.raises(
        ConfigurationError, match=r"tasks\.a\.classes = .*: a class stands there twice"
    ):
        parse(raw | {"sequences": {"s": {"network": "n", "tasks": ["a"]}}})


def test_an_encoder_that_timm_does_not_have_is_named_with_what_is_close():
    with pytest.raises(
        ConfigurationError, match=r"encoder = 'tu-resnet19': timm has no such model \(did you mean"
    ):
        parse(edited(**{"networks/unet/encoder": "tu-resnet19"}))


# --------------------------------------------------------------------------------------------------
# series: the benchmarks of the field in one line


def with_series(**series) -> dict:
    return edited(**{"sequences/classify/tasks": series})


@pytest.mark.parametrize(
    ("series", "names", "changes"),
    [
        (
            {"permuted": 3},
            [f"easy_permuted_{number}" for number in (1, 2, 3)],
            [{"permute": 1}, {"permute": 2}, {"permute": 3}],
        ),
        (
            {"split": 2},
            ["easy_split_1_of_2", "easy_split_2_of_2"],
            [{"part": [1, 2]}, {"part": [2, 2]}],
        ),
        (
            {"rotated": [0.0, -22.5]},
            ["easy_rotated_0", "easy_rotated_minus_22_5"],
            [{"rotate": 0.0}, {"rotate": -22.5}],
        ),
        (
            {"noise": [0.0, 0.2]},
            ["easy_noise_0", "easy_noise_0_2"],
            [{"noise": 0.0}, {"noise": 0.2}],
        ),
        (
            {"train_samples": [5, 10]},
            ["easy_train_samples_5", "easy_train_samples_10"],
            [{"train_samples": 5}, {"train_samples": 10}],
        ),
    ],
)
def test_a_series_makes_tasks_that_differ_from_one_in_one_setting(series, names, changes):
    configuration = parse(with_series(of="easy", **series))
    assert configuration.sequences["classify"].tasks == names
    for name, change in zip(names, changes):
        assert configuration.tasks[name] == configuration.tasks["easy"].model_copy(update=change)


def test_two_sequences_share_the_tasks_of_one_series():
    raw = with_series(of="easy", permuted=2)
    raw["sequences"]["two"] = copy.deepcopy(raw["sequences"]["classify"])
    configuration = parse(raw)
    assert configuration.sequences["classify"] == configuration.sequences["two"]


@pytest.mark.parametrize(
    ("series", "line"),
    [
        (
            {"of": "easi", "permuted": 2},
            "sequences.classify.tasks.of = 'easi': there is no such task (did you mean easy?)",
        ),
        (
            {"of": "easy"},
            "must have `of` and exactly one of permuted, split, rotated, noise, train_samples",
        ),
        (
            {"of": "easy", "permuted": 2, "split": 2},
            "must have `of` and exactly one of permuted, split",
        ),
        ({"of": "easy", "permuted": 1}, "sequences.classify.tasks.permuted = 1: must be 2 or more"),
        (
            {"of": "easy", "permute": 2},
            "sequences.classify.tasks.permute: unknown key (did you mean permuted?)",
        ),
        ({"permuted": 2}, "sequences.classify.tasks.of: missing; it is required"),
        ({"of": "easy", "noise": [0.1, 0.1]}, "a value stands there twice"),
        ({"of": "easy", "noise": [0.1, 2.0]}, "tasks.easy_noise_2.noise = 2.0: must be 1 or less"),
    ],
)
def test_a_mistake_in_a_series_is_named_with_its_key(series, line):
    assert any(line in found for found in faults(with_series(**series)))


def test_a_series_does_not_replace_a_task_of_the_same_name():
    raw = with_series(of="easy", permuted=2)
    raw["tasks"]["easy_permuted_1"] = raw["tasks"]["easy"] | {"permute": 9}
    assert faults(raw) == [
        "sequences.classify.tasks: makes easy_permuted_1, but there is another task of that name"
    ]


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            "tasks/easy/tile_overlap",
            4,
            "tasks.easy.tile_overlap: only images with masks can be cut into tiles",
        ),
        (
            "tasks/shapes/tile_overlap",
            17,
            "tasks.shapes.tile_overlap = 17: must be half of image_size at most",
        ),
        (
            "tasks/easy/metric",
            "mean_iou",
            "tasks.easy.metric = 'mean_iou': classification has accuracy, balanced_accuracy, "
            "macro_f1",
        ),
        (
            "tasks/easy/part",
            [3, 2],
            "tasks.easy.part = [3, 2]: must be two numbers, [k, n] with 1 ≤ k ≤ n",
        ),
        ("tasks/easy/on_error", "go", "tasks.easy.on_error = \"go\": must be 'stop' or 'skip'"),
    ],
)
def test_what_does_not_go_with_a_task_is_named(path, value, line):
    assert fault(path, value) == line


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        (
            {"ratio": 0.5, "expected_tasks": 3, "cap": True},
            [
                f"methods.half.{key}: has no effect on a ratio that is a number; for one with "
                "a cap write "
                "`ratio: {search: fixed, ratio: 0.5}`"
                for key in ("cap", "expected_tasks")
            ],
        ),
        (
            {"ratio": 0.5, "grow": 2.0},
            ["methods.half.grow: needs a search of the ratio, which says what a task needs"],
        ),
        (
            {"ratio": {"search": "fixed", "ratio": 0.5}, "grow": 2.0},
            ["methods.half.grow: needs a search of the ratio, which says what a task needs"],
        ),
        (
            {"ratio": {"search": "bayes", "prefer": "score"}, "grow": 2.0},
            [
                "methods.half.grow: has no effect with `prefer: score`, whose goal is what the cap "
                "allows"
            ],
        ),
        (
            {"ratio": {"search": "tpe"}, "cap": False, "grow": 2.0},
            ["methods.half.grow: has no effect with `cap: false`, under which no task lacks room"],
        ),
        (
            {"ratio": {"search": "fixed", "ratio": 0.5, "budget": 2.0}, "expected_tasks": 3},
            ["methods.half.ratio.budget: has no effect with `search: fixed`"],
        ),
    ],
)
def test_settings_that_nothing_heeds_are_refused(method, lines):
    assert faults(edited(**{"methods/half": method})) == lines


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (
            {"backbone": "resnet18"},
            "resnet18 has one width only; resnet_small, lenet, conv_small have others",
        ),
        (
            {"decoder": "linknet", "encoder": "resnet_small"},
            "linknet has one width only; unet, unetplusplus, manet have others",
        ),
        ({"backbone": "lenet", "width": 4}, "it has the largest width, 4"),
        (
            {"backbone": "lenet", "weights": "lenet.safetensors"},
            "its weights are a file, for the width 1 alone",
        ),
        (
            {"hidden": [8], "image_size": 16},
            "a perceptron has no width; resnet_small, lenet, conv_small have one",
        ),
    ],
)
def test_a_method_that_grows_is_refused_a_network_that_cannot_with_the_reason(network, reason):
    grow = {"methods/half": {"ratio": {"search": "tpe"}, "grow": 1.5}}
    line = f"methods.half.grow: networks.small cannot become wider: {reason}"
    assert line in faults(edited(**{"networks/small": network} | grow))
    parse(edited(**{"networks/mlp": network} | grow))  # no sequence learns it

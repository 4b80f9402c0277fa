"""What steps depend on in code: what changes the digest of a step, and what does not."""

import ast
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acll import code as codes_module
from acll.code import closure, code_of, without_comments
from acll.libraries import WITH_EFFECT, WITHOUT_EFFECT
from acll.methods._free_weights import TrainFreeWeights

PACKAGE = Path(codes_module.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
STEPS = sorted(path.stem for path in (PACKAGE / "steps").glob("[a-z]*.py"))
PROPERTY = settings(max_examples=100, deadline=None)


# ----------------------------------------------------------------------------------------------
# the text that counts

SOURCE = '''"""A module."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

VALUES = ["a # b", """
  one

  two
"""]


class Thing:
    """A thing."""

    size = 3  # of it

    def name(self) -> str:
        """Return its name."""
        # so it is
        return f"{self.size}  # no comment"
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# of it", "# of something else"),
        ("  # of it", ""),
        ("        # so it is\n", ""),
        ('"""A module."""', '"""Another module.\n\nWith more to say.\n"""'),
        ('"""A module."""\n', ""),
        ('    """A thing."""\n\n', ""),
        ('"""Return its name."""', '"""Return é, its name."""'),
        ('"""Return its name."""', "'Return its name.'  # really"),
        ("\n\n\nclass", "\n\n\n\n\nclass"),
        ("import os\n", "import os   \n# and\n\n\t\n"),
        ("    from pathlib import Path\n", "    from pathlib import Path, PurePath\n"),
        ("    from pathlib import Path\n", "    import json\n\n    TEXT = '''a\n\n  b'''\n"),
        ("if TYPE_CHECKING:\n    from pathlib import Path\n", ""),
    ],
)
def test_what_does_not_run_does_not_count(old, new):
    assert old in SOURCE
    assert without_comments(SOURCE.replace(old, new)) == without_comments(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("size = 3", "size = 4"),
        ("import os", "import os as system"),
        ("# no comment", "# a comment"),
        ("a # b", "a # c"),
        ("{self.size}", "{self.size!r}"),
        ("  one\n", "  one \n"),
        ("  one\n\n", "  one\n"),
        ("  two", "two"),
        ("    def name(self)", "    def name(self, other=None)"),
        ("        return", "        if self.size:\n            return"),
    ],
)
def test_what_runs_counts(old, new):
    assert old in SOURCE
    assert without_comments(SOURCE.replace(old, new)) != without_comments(SOURCE)


def test_of_a_condition_with_an_alternative_only_what_is_for_type_checkers_is_left_out():
    text = "if TYPE_CHECKING:\n    @one\n    def a(): ...\nelse:\n    def a():\n        return 1\n"
    plain = without_comments(text)
    assert without_comments(text.replace("@one", "@two")) == plain
    assert without_comments(text.replace("a(): ...", "a(): 2")) == plain
    assert without_comments(text.replace("return 1", "return 2")) != plain
    assert without_comments(text.replace("TYPE_CHECKING", "CHECKED")) != plain


def test_a_text_that_is_no_docstring_counts():
    for before in ("x = 1\n", "import os\n"):
        one, other = (f'{before}"""{text}"""\n' for text in ("a", "b"))
        assert without_comments(one) != without_comments(other)
    one, other = (f"def a():\n    return '''{text}'''\n" for text in ("a", "b"))
    assert without_comments(one) != without_comments(other)


def statements(tree):
    """All statements but those for type checkers."""
    return [node for node in codes_module._statements(tree, run=True) if isinstance(node, ast.stmt)]


comments = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20)
lines_that_do_not_count = st.one_of(
    st.tuples(st.sampled_from(["", " ", "    ", "\t"]), comments).map("#".join),
    st.sampled_from(["", " ", "        "]),
)


@PROPERTY
@given(st.sampled_from(MODULES), st.data())
def test_comments_and_blank_lines_between_statements_of_the_package_do_not_count(name, data):
    source = (PACKAGE / name).read_text()
    lines = source.split("\n")
    found = statements(ast.parse(source))
    decorators = [getattr(node, "decorator_list", []) for node in found]
    firsts = {
        min(one.lineno for one in (node, *own)) - 1 for node, own in zip(found, decorators)
    } | {len(lines) - 1}
    ends = {
        node.end_lineno - 1
        for node in found
        if len(lines[node.end_lineno - 1].encode()) == node.end_col_offset
    }
    for number in data.draw(st.sets(st.sampled_from(sorted(firsts)), max_size=6)):
        lines[number] = f"{data.draw(lines_that_do_not_count)}\n{lines[number]}"
    for number in data.draw(st.sets(st.sampled_from(sorted(ends)), max_size=6)) if ends else ():
        lines[number] += f"  #{data.draw(comments)}"
    assert without_comments("\n".join(lines)) == without_comments(source)


class Bare(ast.NodeTransformer):
    """Take docstrings, and what is for type checkers, out of a tree; note bodies left empty."""

    def __init__(self):
        self.empty = False

    def generic_visit(self, node):
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            definitions = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            if isinstance(node, definitions) and ast.get_docstring(node) is not None:
                body = body[1:]
            node.body = body
            self.empty |= not body and not isinstance(node, ast.Module)
        return node

    def visit_If(self, node):
        if codes_module._is_for_checkers(node):
            self.empty |= bool(node.orelse)
            return None
        return self.generic_visit(node)


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_left_of_each_module_is_the_same_program(every):
    """Where no body had nothing else, which would be left empty."""
    compared = 0
    for name in MODULES[::every]:
        source = (PACKAGE / name).read_text()
        bare = Bare()
        expected = bare.visit(ast.parse(source))
        if not bare.empty:
            compared += 1
            assert ast.dump(ast.parse(without_comments(source))) == ast.dump(expected), name
    assert compared > 0.8 * len(MODULES[::every])


@PROPERTY
@given(st.sampled_from([name for name in MODULES if (PACKAGE / name).stat().st_size]), st.data())
def test_a_statement_more_anywhere_counts(name, data):
    source = (PACKAGE / name).read_text()
    lines = source.split("\n")
    simple = [
        node
        for node in statements(ast.parse(source))
        if not hasattr(node, "body")
        and not isinstance(node, ast.Expr)
        and len(lines[node.end_lineno - 1].encode()) == node.end_col_offset
    ]
    if simple:
        node = data.draw(st.sampled_from(simple))
        lines[node.end_lineno - 1] += "; added = 1"
        assert without_comments("\n".join(lines)) != without_comments(source)


# ----------------------------------------------------------------------------------------------
# what a step imports


def parts(step):
    files, libraries = closure(f"acll.steps.{step}")
    return {path.relative_to(PACKAGE).as_posix() for path in files}, libraries


@pytest.mark.parametrize("step", STEPS)
def test_a_step_depends_on_itself_and_on_what_all_steps_share(step):
    files, _ = parts(step)
    assert {f"steps/{step}.py", "steps/_run.py", "settings.py", "errors.py"} <= files


NETWORKS = {"torchvision", "segmentation_models_pytorch", "timm"}


@pytest.mark.parametrize(
    ("step", "without"),
    [
        ("tables", {"torch", *NETWORKS, "hyperopt", "matplotlib"}),
        ("figures", {"torch", *NETWORKS, "hyperopt"}),
        ("trace", {"torch", *NETWORKS, "hyperopt"}),
        ("masks", {"torch", *NETWORKS, "hyperopt", "pandas"}),
        ("mistakes", {"torch", *NETWORKS, "hyperopt", "pandas"}),
        ("prepare", {"torch", *NETWORKS, "hyperopt", "matplotlib"}),
        ("sheets", {"torch", *NETWORKS, "hyperopt", "scipy"}),
        ("prune", {"hyperopt", "matplotlib"}),
        ("train", {"hyperopt", "matplotlib", "scipy", "pandas"}),
        ("retrain", {"hyperopt", "matplotlib", "scipy", "pandas"}),
        ("commit", {"hyperopt", "matplotlib", "scipy", "pandas"}),
        ("evaluate", {"hyperopt", "matplotlib", "scipy", "pandas"}),
    ],
)
def test_steps_need_no_libraries_but_those_they_use(step, without):
    assert not parts(step)[1] & without
    assert not set(code_of(f"acll.steps.{step}")) & without


def test_libraries_of_a_step_go_with_their_versions():
    found = code_of("acll.steps.search")
    assert {"code", "torch", "hyperopt", "segmentation-models-pytorch", "timm"} <= set(found)
    assert found["torch"] == version("torch")


@pytest.mark.parametrize(
    ("step", "depends", "other"),
    [
        (
            "train",
            {"training/loop.py", "networks/build.py", "data/batches.py"},
            {"search/run.py", "data/sources/generated.py", "methods/ewc.py", "search/settings.py"},
        ),
        (
            "search",
            {"training/loop.py", "search/run.py", "search/strategies.py", "packing/prune.py"},
            {"data/sources/image_folder.py", "methods/base.py"},
        ),
        (
            "prune",
            {"packing/prune.py", "training/release.py", "training/distillation.py"},
            {"search/run.py", "search/strategies.py", "methods/packing.py"},
        ),
        (
            "evaluate",
            {"evaluation/score.py", "packing/packed_file.py"},
            {"search/run.py", "packing/prune.py", "evaluation/style.py"},
        ),
        (
            "prepare",
            {"data/splits.py", "data/task.py"},
            {"training/loop.py", "config/tree.py", "data/sources/coco.py", "networks/spec.py"},
        ),
        (
            "tables",
            {"evaluation/tables.py"},
            {"evaluation/score.py", "training/loop.py", "config/tree.py", "plan.py"},
        ),
    ],
)
def test_steps_depend_on_the_modules_that_they_use_and_no_others(step, depends, other):
    files, _ = parts(step)
    assert depends <= files
    assert not other & files


@pytest.mark.parametrize("step", ["tables", "prepare"])
def test_every_module_that_a_step_loads_is_among_those_it_depends_on(step):
    """Packages' `__init__` files are empty, but for the topmost, which no step takes from."""
    code = (
        f"import acll.steps.{step}, sys;"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('acll')))"
    )
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert len(loaded) > 4
    files, _ = closure(f"acll.steps.{step}")
    others = {path for path in map(Path, loaded) if path not in files}
    assert all(path.stat().st_size == 0 for path in others - {PACKAGE / "__init__.py"})


def test_what_is_known_of_modules_is_taken_from_a_file_while_they_are_as_they_were(
    copied, tmp_path, monkeypatch
):
    file = tmp_path / "known.json"

    def codes_read():
        """The code of a step, and how many modules were read for it."""
        read = []
        real = codes_module.without_comments
        with monkeypatch.context() as patched:
            patched.setattr(codes_module, "_KNOWN", {})
            patched.setattr(
                codes_module, "without_comments", lambda text: read.append(text) or real(text)
            )
            patched.setattr(codes_module, "_read", cache(READ))
            forget()
            with codes_module.remembering(file):
                found = code_of("acll.steps.prune")
        return found, len(read)

    first, count = codes_read()
    assert count > 10
    assert codes_read() == (first, 0)
    append(copied / "packing/prune.py", "\nMORE = 1\n")
    other, count = codes_read()
    assert count == 1
    assert other != first
    for damaged in ("", "[]", '{"code": 1}', '{"code": "x", "of": {"a": 1}}'):
        file.write_text(damaged)
        assert codes_read()[0] == other


def test_every_library_of_the_package_counts_or_is_known_to_have_no_effect():
    found = set()
    for name in MODULES:
        dotted = "acll." + name.removesuffix(".py").replace("/", ".")
        imported = codes_module._imports((PACKAGE / name).read_text(), PACKAGE / name, dotted)
        found |= {one.split(".")[0] for one in imported}
    found -= {*sys.stdlib_module_names, "acll"}
    assert found - WITH_EFFECT.keys() - set(WITHOUT_EFFECT) == set()
    assert not WITH_EFFECT.keys() & set(WITHOUT_EFFECT)
    for distributions in WITH_EFFECT.values():
        assert all(version(name) for name in distributions)


# ----------------------------------------------------------------------------------------------
# a package that is edited


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package to be edited."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "acll", ignore=ignored)
    monkeypatch.setattr(codes_module, "_root", lambda: tmp_path / "acll")
    monkeypatch.setattr(codes_module, "_read", known(READ))
    forget()
    yield tmp_path / "acll"
    forget()


RESULTS: dict = {}
READ = codes_module._read.__wrapped__


def known(function):
    """What a function makes of a file, as long as nobody edits that: one that is equal is known."""
    seen = {}

    def of(path, *arguments):
        status = path.stat()
        key = path, status.st_mtime_ns, status.st_size, arguments
        if key not in seen:
            same = path.name, path.read_bytes(), arguments
            if same not in RESULTS:
                RESULTS[same] = function(path, *arguments)
            seen[key] = RESULTS[same]
        return seen[key]

    return of


def forget():
    """Have all imports be followed again."""
    closure.cache_clear()
    codes_module._path.cache_clear()


# a step, and what it loads by name
LOADED = {
    **dict.fromkeys(STEPS, ()),
    "prepare of generated": ("acll.data.sources.generated",),
    "prepare of coco": ("acll.data.sources.coco",),
    "train of packing": (TrainFreeWeights.__module__,),
    "train of ewc": ("acll.methods.ewc",),
    "train of lwf": ("acll.methods.lwf",),
    "train of joint": ("acll.methods.joint",),
    "train of piggyback": ("acll.methods.piggyback",),
    "train of wsn": ("acll.methods.wsn",),
}
TRAIN = {name for name in LOADED if name.startswith("train")}
PICTURES = {"trace", "masks", "mistakes"}
PREPARE = {name for name in LOADED if name.startswith("prepare")}
BUILD = TRAIN | {"commit", "remember", "retrain", "search", "grow"}
LEARNED = {"train of packing", "prune", "retrain", "search", "grow"}
MASKED = LEARNED | {"train of piggyback", "train of wsn"}


def codes():
    return {
        name: code_of(f"acll.steps.{name.split()[0]}", *modules)["code"]
        for name, modules in LOADED.items()
    }


def changed(before):
    return {name for name, code in codes().items() if code != before[name]}


def append(path, text):
    path.write_text(path.read_text() + text)


def test_the_code_of_a_step_does_not_depend_on_where_the_package_lies(copied, monkeypatch):
    there = codes()
    monkeypatch.undo()
    forget()
    assert codes() == there


@pytest.mark.parametrize(
    ("module", "steps"),
    [
        ("training/learner.py", BUILD | {"prune"}),
        ("training/joint.py", {"train of joint"}),
        ("training/masking.py", MASKED),
        ("training/learned.py", LEARNED),
        ("training/loop.py", (BUILD | {"prune"}) - {"commit", "remember"}),
        ("training/process.py", BUILD | {"prune", "evaluate"}),
        ("training/release.py", LEARNED),
        ("training/distillation.py", {"prune", "retrain", "search", "grow"}),
        ("methods/base.py", TRAIN | {"commit", "remember", "grow"}),
        ("methods/lwf.py", {"train of lwf"}),
        ("methods/ewc.py", {"train of ewc"}),
        ("methods/_free_weights.py", {"train of packing"}),
        ("methods/packing.py", set()),
        ("search/strategies.py", {"search", "grow"}),
        ("data/preparation.py", PREPARE),
        ("data/sources/generated.py", {"prepare of generated"}),
        ("data/sources/coco.py", {"prepare of coco"}),
        ("evaluation/score.py", {"evaluate"}),
        ("evaluation/predicted.py", {"evaluate"}),
        ("evaluation/figures.py", {"figures", "trace"}),
        ("evaluation/style.py", {"figures", "sheets", *PICTURES}),
        ("evaluation/masks.py", {"masks"}),
        ("evaluation/mistakes.py", {"mistakes"}),
        ("packing/prune.py", MASKED),
        ("settings.py", set(LOADED)),
        ("config/checks.py", set()),
        ("config/configuration.py", set()),
        ("config/tree.py", set()),
        ("plan.py", set()),
        ("code.py", set()),
        ("cli/networks.py", set()),
        ("serving/model.py", set()),
        ("packing/load.py", {"adopt", "evaluate", "retrain", "commit"}),
    ],
)
def test_an_edited_module_changes_the_code_of_exactly_the_steps_that_use_it(copied, module, steps):
    before = codes()
    append(copied / module, "\n# edited\n")
    assert changed(before) == set()
    append(copied / module, "\nEDITED = 1\n")
    assert changed(before) == steps


def test_a_comment_in_any_module_changes_the_code_of_no_step(copied):
    before = codes()
    for name in MODULES:
        text = (copied / name).read_text()
        (copied / name).write_text(f"\n# edited\n\n{text}\n# edited\n")
    forget()
    assert changed(before) == set()


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_statement_in_any_module_changes_the_code_of_the_steps_that_import_it(copied, every):
    before = codes()
    files = {
        name: set().union(*(closure(one)[0] for one in (f"acll.steps.{name.split()[0]}", *modules)))
        for name, modules in LOADED.items()
    }
    for name in MODULES[::every]:
        text = (copied / name).read_text()
        append(copied / name, "\nEDITED = 1\n")
        assert changed(before) == {step for step, own in files.items() if copied / name in own}
        (copied / name).write_text(text)
    assert changed(before) == set()


def test_a_module_that_takes_anothers_name_counts(copied):
    before = codes()
    (copied / "evaluation/statistics.py").rename(copied / "evaluation/figures_of.py")
    forget()
    assert changed(before) == {"figures", "tables"}


def test_imports_within_functions_count(copied):
    (copied / "steps/late.py").write_text(
        "def late():\n    from acll.data.sources import generated\n    import torch.nn\n"
    )
    files, libraries = closure("acll.steps.late")
    assert copied / "data/sources/generated.py" in files
    assert libraries >= {"torch", "numpy"}


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("from . import prune", "steps/prune.py"),
        ("from .prune import main", "steps/prune.py"),
        ("from .. import plan", "plan.py"),
        ("from ..data import splits", "data/splits.py"),
        ("from ..data.splits import subset", "data/splits.py"),
        ("from ..data import *", "data/__init__.py"),
    ],
)
def test_relative_imports_are_followed(copied, line, file):
    (copied / "steps/near.py").write_text(f"{line}\n")
    assert copied / file in closure("acll.steps.near")[0]


def test_imports_for_type_checkers_are_not_followed_but_their_alternatives_are(copied):
    (copied / "one.py").write_text(
        "if TYPE_CHECKING:\n    import torch\n    from acll import plan\n"
        "else:\n    from acll import seeds\n"
    )
    files, libraries = closure("acll.one")
    assert "torch" not in libraries
    assert copied / "seeds.py" in files
    assert copied / "config/tree.py" not in files


def test_modules_that_import_each_other_are_no_trouble(copied):
    (copied / "one.py").write_text("import acll.two\n")
    (copied / "two.py").write_text("from acll import one\n")
    assert closure("acll.one")[0] >= {copied / "one.py", copied / "two.py"}

"""The command line: `acll check`, `acll predict`, ….

`make` has a target for most of the commands that belong to runs.
"""

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from acll.cli.interrupts import INTERRUPTED
from acll.errors import UserError, harmless
from acll.extras import advice_for
from acll.files import DISK_REFUSES, finished_path, free_space

EXAMPLES = """examples:
  acll check config/demo.yaml
  acll table results/demo
  acll inspect results/demo/nodes/small/adaptive/seed0/textures/digits/network.safetensors
  acll predict network.safetensors --task digits *.png
  acll predict --help
"""
_DATA_ROOT = """environment:
  ACLL_DATA_ROOT  another place of raw data than the configuration's data_root
"""
_CONFIGURATION = "config/<name>.yaml"
_RESULTS = "results/<name>"
_NETWORK = "network.safetensors"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run a command.

    Errors that the user can mend end with their message and exit code 1 (of `compare` 2, as of
    `diff`), an interrupt (Ctrl-C) with a line and exit code 130. arguments: None: those of the
    process.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # a letter that the terminal does not have ends no command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _run(_parser(), arguments)
    except KeyboardInterrupt as interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        print(f"interrupted{interrupt}", file=sys.stderr)
        sys.exit(INTERRUPTED)


class _Parser(argparse.ArgumentParser):
    """A parser that names the nearest option or command where there is none of a name."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments; end with the usage of this command where one is not known."""
        given = sys.argv[1:] if args is None else list(args)
        commands = [one for one in self._actions if isinstance(one, argparse._SubParsersAction)]
        for word in given:
            if word == "--":
                break
            if word.startswith("--"):
                self._require("option", word.partition("=")[0], self._option_string_actions)
            elif commands:  # what follows is for the command's own parser
                if not word.startswith("-"):
                    self._require("command", word, commands[0].choices)
                break
        found, unknown = super().parse_known_args(given, namespace)
        if unknown:
            self.error(f"not understood: {' '.join(unknown)}")
        return found, unknown

    def _require(self, what: str, name: str, known: Iterable[str]) -> None:
        """End where a name is not known, nor, of an option, the beginning of one that is."""
        if name in known or (what == "option" and any(one.startswith(name) for one in known)):
            return
        nearest = difflib.get_close_matches(name, known, 1)
        self.error(
            f"there is no {what} {name}" + "".join(f"; did you mean {one}?" for one in nearest)
        )


class _Version(argparse.Action):
    """Say which version this is, and end."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        import acll

        print(f"acll {acll.__version__}")
        parser.exit()


def _parser() -> _Parser:
    """Return the parser of all commands; what is parsed has `function`, and its arguments."""
    # here, since an interrupt meanwhile must not end in a traceback
    from acll.cli import board, networks, new, runs, shares

    parser = _Parser(
        prog="acll",
        description="Lifelong learning by adaptive compression.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        default=argparse.SUPPRESS,
        help="say which version this is",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(
        function: Callable[..., object], argument: str, words: str, examples: str = ""
    ) -> argparse.ArgumentParser:
        """Add a command, called as its function, whose argument is a path; return its parser.

        examples: for the end of its help.
        """
        own = commands.add_parser(
            function.__name__.removeprefix("list_").replace("_", "-"),
            help=words,
            description=words,
            epilog=_DATA_ROOT if argument == _CONFIGURATION else examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.add_argument("path", type=Path, metavar=argument)
        own.set_defaults(function=function)
        return own

    command(
        new.new,
        "FOLDER",
        "lay out a project of your own: a configuration with comments, a Makefile, a repository",
    )
    check = command(
        runs.check,
        _CONFIGURATION,
        "check a configuration and its raw data, without running anything",
    )
    check.add_argument(
        "--images", action="store_true", help="decode all images and masks, too, as a run would"
    )
    command(runs.list_plan, _CONFIGURATION, "say which jobs a run would run, and why")
    command(
        runs.download,
        _CONFIGURATION,
        "fetch and verify the datasets of torchvision that it names",
    )
    run = command(
        runs.run,
        _CONFIGURATION,
        "run it: only what has changed; print its tables and write its report",
    )
    run.add_argument("--verbose", "-v", action="store_true", help="show all that Snakemake says")
    run.add_argument(
        "--profile", metavar="NAME", help="profiles/NAME/config.yaml: where jobs run, such as slurm"
    )
    command(runs.snakemake, _CONFIGURATION, "run Snakemake alone, as `dvc repro` does")
    command(
        runs.ready,
        _CONFIGURATION,
        "check it, that no run is on, and that it has a stage in dvc.yaml: add one if not",
    )
    command(
        runs.finish,
        _CONFIGURATION,
        "record the results of a run for DVC, print its tables and write its report",
    )
    watch = command(
        board.board, _RESULTS, "show the curves of a run in TensorBoard, also while it goes on"
    )
    watch.add_argument("--port", type=int, default=6006, help="0: any that is free (default: 6006)")
    watch.add_argument(
        "--mlflow", action="store_true", help="show them in MLflow, at MLFLOW_TRACKING_URI, instead"
    )
    command(runs.table, _RESULTS, "print the tables of a run")
    report = command(
        runs.report,
        _CONFIGURATION,
        "write the report of a run: one HTML file with figures and tables",
    )
    report.add_argument(
        "--if-changed", action="store_true", help="only where it does not show what is there"
    )
    command(runs.prove, _RESULTS, "check in the packed files of a run that nothing was forgotten")
    inspect = command(
        networks.inspect,
        _NETWORK,
        "say what a packed network holds, and how many bytes its tasks need (reads the header "
        "alone)",
    )
    inspect.add_argument("--json", dest="as_json", action="store_true", help="for programs")
    compare = command(
        networks.compare,
        _NETWORK,
        "say what differs between two packed networks; exit code 1 if anything does",
    )
    compare.add_argument("other", type=Path, metavar="OTHER", help="the second one")
    compare.set_defaults(trouble=2)  # as of `diff`
    _add_predict(command)
    _add_export(command)
    _add_drop(command)
    card = command(
        networks.card,
        _NETWORK,
        "write a model card in Markdown from what a packed network knows (reads the header alone)",
    )
    card.add_argument("--out", type=Path, help="a name that ends with .md (default: print it)")
    command(
        shares.verify,
        _CONFIGURATION,
        "check by content that all results are what this commit would make",
    )
    command(
        shares.accept,
        _CONFIGURATION,
        "keep results that differ in code or versions of libraries alone from what it would make",
    )
    command(
        shares.repair,
        _CONFIGURATION,
        "put back, or make again, results that are damaged or missing",
    )
    command(shares.share, _CONFIGURATION, "verify results, commit them to DVC and push them")
    pull = command(shares.pull, _CONFIGURATION, "bring shared results and verify them")
    pull.add_argument(
        "--what", choices=["all", "tables"], default="all", help="`tables`: without the networks"
    )
    command(
        shares.list_leftovers, _CONFIGURATION, "list results that the configuration does not name"
    )
    command(
        shares.prune_results,
        _CONFIGURATION,
        "remove results that the configuration does not name",
    )
    return parser


def _run(parser: _Parser, arguments: Sequence[str] | None) -> None:
    """Run a command."""
    given = vars(parser.parse_args(arguments))
    function, trouble = given.pop("function"), given.pop("trouble", 1)
    del given["command"]
    _own_programs_first()
    try:
        function(**given)
        sys.stdout.flush()
    except BrokenPipeError:  # `acll table … | head` has read enough, which is no error
        sys.stdout = None
    except ModuleNotFoundError as error:
        advice = advice_for(error)
        if advice is None:
            raise
        print(f"error: {advice}", file=sys.stderr)
        sys.exit(trouble)
    except (UserError, OSError) as error:
        for line in _words(error).split("\n"):
            print(line if line.startswith(" ") else f"error: {line}", file=sys.stderr)
        if isinstance(error, OSError) and error.filename is None:
            sys.stdout = None  # at its end Python would try once more, and say so
        sys.exit(trouble)


def _own_programs_first() -> None:
    """Let programs such as `dvc` be those of this environment, also where it is not activated."""
    own, path = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != own:
        os.environ["PATH"] = f"{own}{os.pathsep}{path}"


def _words(error: Exception) -> str:
    """Return what an error says.

    Errors of the system name the file that was asked for, where files are written beside it first.
    Whatever writes a file names it: where none is named it was the output of this process.
    """
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) if isinstance(error, UserError) else harmless(error)
    if error.filename is None:
        return f"the output: {error.strerror}" if error.errno in DISK_REFUSES else harmless(error)
    path = finished_path(Path(str(error.filename2 or error.filename)))
    where = f"; {free_space(path)}" if error.errno in DISK_REFUSES else ""
    return f"{harmless(path)}: {error.strerror}{where}"


def _add_predict(command: Callable[..., argparse.ArgumentParser]) -> None:
    from acll.cli import networks

    examples = """examples:
  acll predict network.safetensors --task digits scans/*.png
  acll predict network.safetensors --task digits --top 1 --format csv scans > classes.csv
  acll predict network.safetensors --task streets --out masks photos
  find photos -name '*.jpg' | acll predict network.safetensors --task streets --out masks -
"""
    own = command(
        networks.predict,
        _NETWORK,
        "say what images show, or which class each of their pixels has",
        examples,
    )
    own.add_argument("images", nargs="+", metavar="IMAGE", help=networks.IMAGES_HELP)
    own.add_argument("--task", help="one of the tasks that the network has learned")
    own.add_argument(
        "--top", type=_positive, help="classification: how many classes are shown (default 3)"
    )
    own.add_argument(
        "--format",
        dest="form",
        choices=["table", "csv", "json"],
        help="of classes (default: table)",
    )
    own.add_argument("--out", type=Path, help="segmentation: the folder for masks and overlays")
    own.add_argument("--device", default="cpu", help="such as `cuda` (default: cpu)")
    _add_plugins(own)


def _add_export(command: Callable[..., argparse.ArgumentParser]) -> None:
    from acll.cli import networks

    examples = """examples:
  acll export network.safetensors digits.onnx --task digits
  acll export network.safetensors digits.onnx --task digits --precision int8 \\
      --data data/digits.train.safetensors
  acll export network.safetensors digits.pt2 --task digits --precision float16
  acll export network.safetensors digits.safetensors --task digits
"""
    own = command(
        networks.export,
        _NETWORK,
        "write one task for others: ONNX, torch.export, or a file of its own",
        examples,
    )
    own.add_argument(
        "out", type=Path, metavar="OUT", help="a name that ends with .onnx, .pt2 or .safetensors"
    )
    own.add_argument("--task", help="one of the tasks that the network has learned")
    own.add_argument(
        "--precision",
        choices=["float32", "float16", "int8"],
        default="float32",
        help="of its weights",
    )
    own.add_argument(
        "--data",
        type=Path,
        help="prepared images, data/<task>.train.safetensors of a run, to score it on",
    )
    _add_plugins(own)


def _add_plugins(own: argparse.ArgumentParser) -> None:
    own.add_argument(
        "--plugins",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file with the plug-ins that the network needs; it is run",
    )


def _add_drop(command: Callable[..., argparse.ArgumentParser]) -> None:
    from acll.cli import networks

    examples = """example:
  acll drop network.safetensors --task digits --out smaller.safetensors
"""
    own = command(
        networks.drop,
        _NETWORK,
        "write the network without one of its tasks; all others stay as they are, bit for bit",
        examples,
    )
    own.add_argument("--task", help="the task that goes, one of those that it has learned")
    own.add_argument("--out", type=Path, help="the file that gets the network without it")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number above 0")
    return int(text)

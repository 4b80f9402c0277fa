"""What a step's result depends on in code: its module, all modules of the package that it imports,
and libraries.

Workflow managers compare a rule's command, not the modules behind it. The digest made here goes
with the parameters of each job, so that an edited module reruns exactly the steps that import it,
directly or not. Comments, docstrings, blank lines and imports for type checkers make no difference
to a result, and none to the digest.
"""

import ast
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeGuard

from acll.errors import UserError
from acll.files import write_json
from acll.libraries import distributions, distributions_unlisted, versions
from acll.plugins import CodeOrigin, PluginError, origin_labelled

PACKAGE = "acll"


PLUG_IN = "plug-in "  # begins the keys of what `code_of` tells of plug-ins


def code_of(*modules: str, plugged: Iterable[CodeOrigin] = ()) -> dict[str, str]:
    """Return the digest of the import closure of some modules under `code`, one of each plug-in
    under its label, and the versions of libraries in all of them.

    modules: of the package. plugged: plug-ins, whose code is read as it is now.
    """
    files: set[Path] = set()
    libraries: set[str] = set()
    digests: dict[str, str] = {}
    waiting, unlisted = list(modules), set[str]()
    for origin in plugged:
        digests[PLUG_IN + origin.label], imported = _plugin_closure(origin)
        waiting += [one for one in imported if _is_own(one)]
        libraries |= {one.split(".")[0] for one in imported if not _is_own(one)}
        unlisted |= distributions_unlisted(libraries)
    for module in waiting:
        found, others = closure(module)
        files |= found
        libraries |= others
    total = hashlib.sha256()
    for path in sorted(files):
        digest, _ = _read(path, _dotted(path))
        total.update(f"{path.relative_to(_root()).as_posix()} {digest}\n".encode())
    found_versions = versions({*distributions(libraries), *unlisted})
    return {"code": total.hexdigest()[:16]} | digests | found_versions


def refuse_edited_plugins(code: Mapping[str, str]) -> None:
    """Raise PluginError where the code of a plug-in is not what `code_of` has told of it."""
    for key, told in code.items():
        if key.startswith(PLUG_IN):
            origin = origin_labelled(key.removeprefix(PLUG_IN))
            if _plugin_closure(origin)[0] != told:
                raise PluginError(
                    f"{origin.path}: the {origin.label} was edited after the run had begun; start "
                    "it again"
                )


def _is_own(module: str) -> bool:
    return module.split(".")[0] == PACKAGE


def _plugin_closure(origin: CodeOrigin) -> tuple[str, set[str]]:
    """Return a digest of the code of a plug-in, and the modules that it imports from elsewhere.

    Its code is its file, without other plug-ins that nothing there mentions, and all modules below
    its root that are imported, directly or not. Raises PluginError where one is no sound Python.
    """
    digests: dict[str, str] = {}
    others: set[str] = set()
    waiting = [(origin.module, origin.path)]
    while waiting:
        name, path = waiting.pop()
        place = path.relative_to(origin.root).as_posix()
        if place in digests:
            continue
        try:
            with tokenize.open(path) as file:  # in its own encoding
                source = file.read()
            if path == origin.path:
                source = _without_others(source, origin.others)
            digests[place], imports = _read_text(source, path, name)
        except (SyntaxError, tokenize.TokenError, UnicodeDecodeError) as error:
            raise PluginError(f"{path}: is no sound Python: {error}") from None
        for imported in imports:
            within = origin.package in ("", imported.split(".")[0]) and not _is_own(imported)
            own = _below(origin.root, imported) if within else None
            if own is None:
                others.add(imported)
                continue
            parts = imported.split(".")  # whoever imports a module runs the packages around it
            around = [".".join(parts[:count]) for count in range(1, len(parts))]
            files = [(one, _below(origin.root, one)) for one in around]
            waiting += [(one, file) for one, file in files if file is not None]
            waiting.append((imported, own))
    total = "".join(f"{place} {digest}\n" for place, digest in sorted(digests.items()))
    return hashlib.sha256(f"{origin.name}\n{total}".encode()).hexdigest()[:16], others


def _without_others(source: str, others: Iterable[str]) -> str:
    """Return the text of a module less some functions and classes that are marked as plug-ins.

    Each of them has one decorator, the mark, and is left where its name stands elsewhere, also
    within a text. Whatever else the module has may be of use to all that it defines.
    """
    lines, tree = source.split("\n"), _tree(source)
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name not in others:
            continue
        mentioned = any(_mentions(other, node.name) for other in tree.body if other is not node)
        if len(node.decorator_list) == 1 and not mentioned:
            for number in range(node.decorator_list[0].lineno - 1, node.end_lineno or 0):
                lines[number] = ""
    return "\n".join(lines)


def _mentions(statement: ast.AST, name: str) -> bool:
    """Return whether a name, or a text with it that is no docstring, stands in a statement."""
    word = re.compile(rf"\b{re.escape(name)}\b")
    nodes = list(ast.walk(statement))
    unread = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = (
        node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in unread
    )
    return any(isinstance(node, ast.Name) and node.id == name for node in nodes) or any(
        isinstance(text, str) and word.search(text) for text in texts
    )


@cache
def closure(module: str) -> tuple[frozenset[Path], frozenset[str]]:
    """Return what a module imports, transitively: (files of the package, itself included; other
    top-level modules)."""
    files: set[Path] = set()
    others: set[str] = set()
    waiting = [module]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        # the package itself hands on names to its users, and to no step
        if name in seen or name == PACKAGE:
            continue
        seen.add(name)
        path = _path(name)
        if path is None:  # `from package import name` where name is no module
            continue
        files.add(path)
        _, imports = _read(path, name)
        for imported in imports:
            if imported.split(".")[0] == PACKAGE:
                waiting.append(imported)
            else:
                others.add(imported.split(".")[0])
    return frozenset(files), frozenset(others)


# by the digest of a module's text: the digest of what counts in it, and what it imports
_KNOWN: dict[str, tuple[str, list[str]]] = {}


@contextmanager
def remembering(path: Path) -> Iterator[None]:
    """Take what is known of modules from a file, and keep in it what is new.

    To read modules takes as long as the rest of planning. Their content decides whether they are
    known, and that of this module.
    """
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["code"] == own:
            _KNOWN.update({key: (str(one), list(two)) for key, (one, two) in content["of"].items()})
    before = len(_KNOWN)
    yield
    if len(_KNOWN) != before:
        with suppress(OSError, UserError):  # a checkout that may only be read, or a full disk
            write_json(path, {"code": own, "of": _KNOWN})


@cache
def _read(path: Path, name: str) -> tuple[str, list[str]]:
    """Return what `_read_text` does of a module of the package, which stays as it is."""
    return _read_text(path.read_text(encoding="utf-8"), path, name)


def _read_text(source: str, path: Path, name: str) -> tuple[str, list[str]]:
    """Return the digest of what counts in a module, and what it imports. name: its dotted name."""
    key = hashlib.sha256(f"{name}\n{path.name}\n{source}".encode()).hexdigest()
    if key not in _KNOWN:
        digest = hashlib.sha256(without_comments(source).encode()).hexdigest()
        _KNOWN[key] = (digest, sorted(_imports(source, path, name)))
    return _KNOWN[key]


def without_comments(source: str) -> str:
    """Return a module's text less what never runs.

    That is comments, docstrings, blank lines, blanks at the ends of lines, and what type checkers
    alone read. All is cut out by its position in the text, so the result is the same under every
    version of Python. Lines inside other texts stay as they are. A body that had nothing else is
    left empty, so the result need not be a program.
    """
    lines, tokens = source.split("\n"), _tokens(source)
    docstrings, unread = _docstrings(source), _lines_for_checkers(source)
    for token in tokens:
        if token.type == tokenize.COMMENT:
            number, start, end = token.start[0] - 1, token.start[1], token.end[1]
            lines[number] = lines[number][:start] + " " * (end - start)
    for first, start, last, end in docstrings:
        for number in range(first, last + 1):
            begin = start if number == first else 0
            stop = end if number == last else len(lines[number])
            lines[number] = lines[number][:begin] + " " * (stop - begin) + lines[number][stop:]
    docstring_lines = {line for first, _, last, _ in docstrings for line in range(first, last + 1)}
    inside = _lines_inside_texts(tokens) - docstring_lines - unread
    lines = ["" if number in unread else line for number, line in enumerate(lines)]
    stripped = (line if number in inside else line.rstrip() for number, line in enumerate(lines))
    return (
        "\n".join(line for number, line in enumerate(stripped) if line or number in inside) + "\n"
    )


def _tokens(source: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(source).readline))


@cache
def _tree(source: str) -> ast.Module:
    return ast.parse(source)


def _statements(tree: ast.AST, run: bool = False) -> Iterator[ast.AST]:
    """Yield a module and its statements, at any depth; what lies in expressions is none of them.

    run: leave out `if TYPE_CHECKING:`, which never runs.
    """
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            if not (run and name == "body" and _is_for_checkers(node)):
                waiting += getattr(node, name, ())


def _docstrings(source: str) -> list[tuple[int, int, int, int]]:
    """Return (first line, its column, last line, end) of each docstring; lines from 0, columns in
    characters."""
    lines = source.split("\n")
    spans = []
    for node in _statements(_tree(source)):
        if (
            not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            or not node.body
        ):
            continue
        first = node.body[0]
        if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
            continue
        text = first.value
        if (
            isinstance(text.value, str)
            and text.end_lineno is not None
            and text.end_col_offset is not None
        ):
            begin, end = text.lineno - 1, text.end_lineno - 1
            # ast counts bytes
            start = len(lines[begin].encode()[: text.col_offset].decode())
            stop = len(lines[end].encode()[: text.end_col_offset].decode())
            spans.append((begin, start, end, stop))
    return spans


def _lines_inside_texts(tokens: Iterable[tokenize.TokenInfo]) -> set[int]:
    """Return the lines, from 0, whose end lies inside a text of several lines.

    Blanks there have a meaning.
    """
    # texts with values in them are one token before Python 3.12, then many
    opens = {getattr(tokenize, name, None) for name in ("FSTRING_START", "TSTRING_START")} - {None}
    closes = {getattr(tokenize, name, None) for name in ("FSTRING_END", "TSTRING_END")} - {None}
    inside: set[int] = set()
    begun: list[int] = []
    for token in tokens:
        if token.type == tokenize.STRING:
            inside |= set(range(token.start[0] - 1, token.end[0] - 1))
        elif token.type in opens:
            begun.append(token.start[0] - 1)
        elif token.type in closes:
            inside |= set(range(begun.pop(), token.end[0] - 1))
    return inside


def _lines_for_checkers(source: str) -> set[int]:
    """Return the lines, from 0, of `if TYPE_CHECKING:`; where it has an `else`, its body's."""
    lines: set[int] = set()
    for node in _statements(_tree(source)):
        if _is_for_checkers(node):
            first = node.lineno
            if node.orelse:
                decorators = getattr(node.body[0], "decorator_list", [])
                first = min(one.lineno for one in (node.body[0], *decorators))
            lines |= set(range(first - 1, node.body[-1].end_lineno or first))
    return lines


def _is_for_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    names = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    return isinstance(node, ast.If) and ast.unparse(node.test) in names


def _imports(source: str, path: Path, name: str) -> frozenset[str]:
    """Return the dotted names that a module imports, at any depth of its code; of `from a import b`
    both a and a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names = set()
    for node in _statements(_tree(source), run=True):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return frozenset(names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """Return the module that is imported from, of a relative import seen from its package."""
    if node.level == 0:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _dotted(path: Path) -> str:
    """Return the dotted name of a module of the package."""
    parts = path.relative_to(_root()).with_suffix("").parts
    return ".".join([PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)])


@cache
def _path(name: str) -> Path | None:
    return _below(_root(), name.removeprefix(PACKAGE).lstrip("."))


def _below(root: Path, name: str) -> Path | None:
    """Return the file of a module by its dotted name, seen from a folder; None where none is."""
    base = root.joinpath(*name.split("."))
    if name and base.with_suffix(".py").is_file():
        return base.with_suffix(".py")
    package = base / "__init__.py"
    return package if package.is_file() else None


@cache
def _root() -> Path:
    return Path(__file__).resolve().parent

"""Where files of raw data lie: in a folder, or in an archive that is read without unpacking it.

Members of an archive are only ever read into memory, under the name that the archive gives them,
so whatever a name says, nothing is written anywhere. That holds for compressed tar files, too (see
`acll.data.gzipped`): each task reads through one once, to find its members, and then reads these
where they lie. Nothing of it is left for other tasks, and nothing has to be cleaned up.
"""

import difflib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, TypeVar

from acll.data.errors import DataError
from acll.data.faults import DataFault, some
from acll.data.gzipped import Gzipped
from acll.data.names import difference, folded, split_meant
from acll.files import refuse_special, special

_COMPRESSED = (".tar.gz", ".tgz")  # as a whole
_ARCHIVES = (".zip", ".tar", *_COMPRESSED)
_OTHER_ARCHIVES = (
    ".rar", ".7z", ".tar.xz", ".txz", ".tar.bz2", ".tbz", ".tbz2", ".tar.zst", ".tzst", ".tar.lzma",
    ".tar.lz", ".tar.lz4", ".tar.z", ".cpio", ".iso",
)  # fmt: skip
LARGEST_MEMBER = 2**31  # bytes; larger ones, or those that say so, are not read into memory
SPLITS = ("train", "val", "test")
_CLUTTER = {
    ".git", ".svn", ".hg", ".dvc", ".venv", ".cache", ".thumbnails", ".ipynb_checkpoints",
    ".DS_Store", ".AppleDouble", ".Spotlight-V100", ".fseventsd", ".TemporaryItems",
    ".snapshot", ".snapshots", ".zfs",
}  # fmt: skip
_BLOCK = 512  # bytes of a tar file
_PIECE = 2**20  # bytes that are compared at once
_LARGEST_HEADER = 2**24  # bytes of a name or of attributes in a tar file


class Storage(Protocol):
    """Files by name, relative and with `/`.

    Names that begin with a dot are left out, and so is what is no regular file: pipes, devices.
    """

    def names(self) -> list[str]:
        """Return all names, sorted."""

    def folders(self) -> list[str]:
        """Return the names of all folders, sorted, also of those without a file."""

    def hidden(self) -> list[str]:
        """Return the names that begin with a dot, or lie in a folder that does, sorted."""

    def specials(self) -> list[str]:
        """Return the names of pipes, sockets and devices, sorted."""

    def special(self, name: str) -> str | None:
        """Return in words what a name is that is left out as no regular file; else None."""

    def near(self, name: str) -> str | None:
        """Return a name that differs by case, blanks, Unicode form or slashes alone."""

    def file_of(self, name: str) -> Hashable:
        """Return what is equal for all names of one file."""

    def open(self, name: str) -> Path | BytesIO:
        """Return what libraries can read the file from. Raises OSError."""


def is_archive(path: Path) -> bool:
    """Return whether a name is that of an archive that can be read, in upper or lower case."""
    return path.name.lower().endswith(_ARCHIVES)


def packed_name(name: str) -> str | None:
    """Return the name of an archive of any kind less its ending; None for other files."""
    endings = [end for end in (*_ARCHIVES, *_OTHER_ARCHIVES) if name.lower().endswith(end)]
    return name[: -len(max(endings, key=len))] if endings else None


def is_compressed(path: Path) -> bool:
    """Return whether a name is that of an archive that has to be read through to find anything."""
    return path.name.lower().endswith(_COMPRESSED)


def storage_of(path: Path) -> Storage:
    """Return the folder or the archive at `path`. Raises DataError."""
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise missing(path)
    if not is_archive(path):
        kinds = ", ".join(_ARCHIVES)
        if path.name.lower().endswith(_OTHER_ARCHIVES):
            raise DataError(f"{path}: an archive that is not read; pack it as one of {kinds}")
        raise DataError(f"{path}: neither a folder nor an archive ({kinds})")
    try:
        return _zip(path) if path.suffix.lower() == ".zip" else _tar(path)
    except DataError:
        raise
    except Exception as error:  # of three formats and their compression
        raise DataError(f"{path}: not a readable archive, or cut off: {error}") from None


def missing(path: Path) -> DataError:
    """Return the error for a path at which nothing lies; its message says what to do."""
    odd = special(path)
    if odd is not None:
        return DataError(f"{path}: {odd}")
    if path.with_name(f"{path.name}.dvc").is_file():
        return DataError(f"{path}: not here, but known to DVC; `dvc pull {path}.dvc` brings it")
    near = Folder(path.parent).near(path.name)
    close = difflib.get_close_matches(path.name, _names_in(path.parent), n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    if near is not None:
        hint = f"; {near} is, {difference(path.name, near)}"
    gone = next((folder for folder in reversed(path.parents) if not folder.exists()), None)
    if gone is not None:
        hint = f", nor a folder {gone}"
    return DataError(
        f"{path}: there is no such file or folder{hint}; mend the path, or where data lies: "
        "data_root, DATA=… with make, ACLL_DATA_ROOT=… without"
    )


def absent(storage: Storage, name: str, where: str) -> DataFault:
    """Return the fault of a file that is named in `where` and is not there."""
    words = f"named in {where}, but not there"
    near = storage.near(name)
    if near == name:
        words = f"named in {where}, but {storage.special(name) or 'a folder'}"
    elif near is not None:
        words += f"; {near} is, {difference(name, near)}"
    return DataFault("missing", name, words)


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def content_of(storage: Storage, name: str) -> bytes:
    """Return the whole content of a file. Raises OSError."""
    file = storage.open(name)
    if not isinstance(file, Path):
        return file.read()
    refuse_special(file)
    return file.read_bytes()


@dataclass(frozen=True)
class Folder:
    """A folder of the file system."""

    root: Path
    _folded: dict[Path, dict[str, str]] = field(default_factory=dict, compare=False, repr=False)

    def names(self) -> list[str]:
        """Return all names, sorted. Raises DataError."""
        return _lines([name for name in self._walked.files if _seen(name)], self.root)

    def folders(self) -> list[str]:
        """Return the names of all folders, sorted, also of those without a file."""
        return sorted(filter(_seen, self._walked.folders))

    def hidden(self) -> list[str]:
        """Return the names that begin with a dot, or lie in a folder that does, sorted."""
        return sorted(filter(_hidden, self._walked.files))

    def specials(self) -> list[str]:
        """Return the names of pipes, sockets and devices, sorted."""
        return _lines([name for name in self._walked.special if _seen(name)], self.root)

    def special(self, name: str) -> str | None:
        """Return in words what a name is that is left out as no regular file; else None."""
        return special(self.root / name)

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name, which may be one that no file can have."""
        try:
            return (self.root / name).is_file()
        except (OSError, ValueError):
            return False

    @cached_property
    def _walked(self) -> "Walk":
        try:
            return walk(self.root, hidden=True)
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None

    def near(self, name: str) -> str | None:
        """Return a name that differs by case, blanks, Unicode form or slashes alone."""
        found = PurePosixPath()
        parts = _parts(name)
        if "/" in parts or ".." in parts:
            return None
        for part in parts:
            if not os.path.lexists(self.root / found / part):
                if folded(part) not in self._inner(self.root / found):
                    return None
                part = self._inner(self.root / found)[folded(part)]
            found /= part
        return found.as_posix()

    def _inner(self, folder: Path) -> dict[str, str]:
        """Return what lies in a folder: folded names → names."""
        if folder not in self._folded:
            names = _names_in(folder)
            self._folded[folder] = {folded(name): name for name in names}
        return self._folded[folder]

    def file_of(self, name: str) -> Hashable:
        """Return what is equal for all names of one file."""
        try:
            return _inode(self.root / name)
        except OSError:  # a link to nothing
            return name

    def open(self, name: str) -> Path:
        """Return the path of the file."""
        return self.root / name


@dataclass
class Archive:
    """An archive, of which each process opens a handle of its own."""

    path: Path
    members: dict[str, tuple[str, int]]  # name → (name in the archive, bytes)
    opener: Callable[[], Callable[[str], bytes]]
    with_entry: Iterable[str] = ()  # names of folders that have an entry of their own
    _open: tuple[int, Callable[[str], bytes]] | None = None

    def names(self) -> list[str]:
        """Return all names, sorted, without a single folder around everything."""
        return _lines([name for name in self._inner if _seen(name)], self.path)

    def folders(self) -> list[str]:
        """Return the names of all folders, sorted, also of those without a file."""
        return self._folders

    @cached_property
    def _folders(self) -> list[str]:
        around = f"{self._around}/" if self._around else ""
        with_entry = {
            name.removeprefix(around) for name in self.with_entry if name.startswith(around)
        }
        found: set[str] = set()
        rest = with_entry | {name.rpartition("/")[0] for name in self._inner}
        while rest:  # up to the topmost
            found |= rest
            rest = {name.rpartition("/")[0] for name in rest} - found
        return sorted(name for name in found - {"", "."} if _seen(name))

    def hidden(self) -> list[str]:
        """Return the names that begin with a dot, or lie in a folder that does, sorted."""
        return sorted(filter(_hidden, self._inner))

    def specials(self) -> list[str]:
        """Return none: members that are no regular files have no names here."""
        return []

    def special(self, name: str) -> str | None:
        """Return None, as of `specials`."""

    def near(self, name: str) -> str | None:
        """Return a name that differs by case, blanks, Unicode form or slashes alone."""
        return self._folded.get("/".join(map(folded, _parts(name))))

    def file_of(self, name: str) -> Hashable:
        """Return what is equal for all names of one file."""
        return self.members[self._inner[name]][0] if name in self._inner else name

    def open(self, name: str) -> BytesIO:
        """Return the content of a member. Raises OSError."""
        if name not in self._inner:
            raise FileNotFoundError(f"the archive has no {name}")
        inner, size = self.members[self._inner[name]]
        if size > LARGEST_MEMBER:
            raise OSError(
                f"says that it has {size} bytes, more than the {LARGEST_MEMBER} that are read "
                "from an archive"
            )
        # a handle that was forked would share its position with the other process
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), self.opener()
        return BytesIO(self._open[1](inner))

    @cached_property
    def _around(self) -> str | None:
        """Return the single folder around everything, if there is one."""
        seen = [PurePosixPath(name).parts for name in self.members if _seen(name)]
        around = {parts[0] for parts in seen}
        if len(around) != 1 or any(len(parts) == 1 for parts in seen):
            return None
        (top,) = around
        # a folder `Train` is not around the data, but their only split, unless it holds the splits
        inside = {parts[1] for parts in seen} & set(SPLITS)
        return None if top in SPLITS or (split_meant(top) and not inside) else top

    @cached_property
    def _inner(self) -> dict[str, str]:
        """Return names without the single folder around everything → names of `members`."""
        top = self._around
        if top is None:
            return {name: name for name in self.members}
        # what lies beside that folder is hidden, and is named to be counted
        beside = {f"../{name}": name for name in self.members if not name.startswith(f"{top}/")}
        return beside | {
            name.removeprefix(f"{top}/"): name
            for name in self.members
            if name.startswith(f"{top}/")
        }

    @cached_property
    def _folded(self) -> dict[str, str]:
        return {folded(name): name for name in self._inner if _seen(name)}


def _zip(path: Path) -> Archive:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    infos = [info for info in entries if not info.is_dir()]
    folders = [_clean(info.filename) for info in entries if info.is_dir()]
    if any(info.flag_bits & 1 for info in infos):
        raise DataError(f"{path}: is encrypted; unpack it, or pack it without a password")
    # the upper half of the attributes is the mode of the file where Unix has packed
    links = [info.filename for info in infos if stat.S_ISLNK(info.external_attr >> 16)]
    _refuse_links(path, links, "pack it with `zip` without `-y`, which packs what they lead to")

    def opener() -> Callable[[str], bytes]:
        archive = zipfile.ZipFile(path)

        def read(name: str) -> bytes:
            try:
                return archive.read(name)
            except Exception as error:  # each compression has its own
                raise OSError(f"damaged in its archive: {error}") from None

        return read

    found = _by_name(
        path,
        [(info.filename, info) for info in infos],
        lambda one, other: (one.CRC, one.file_size) == (other.CRC, other.file_size),
    )
    members = {name: (info.filename, info.file_size) for name, info in found.items()}
    return Archive(path, members, opener, folders)


def _tar(path: Path) -> Archive:
    packed = Gzipped(path) if is_compressed(path) else None
    read_at = _reader(path) if packed is None else packed.read_at
    with tarfile.open(fileobj=_headers(read_at), mode="r:") as archive:
        members = archive.getmembers()
        # tarfile takes a damaged header for the end
        if read_at(_BLOCK, archive.offset) != bytes(_BLOCK):
            raise ValueError("no end, or a damaged header before it")
    if any(member.issparse() for member in members):
        raise DataError(f"{path}: has sparse members; pack it without --sparse")
    found = _by_name(path, _places(path, members), partial(_same_content, read_at))
    if packed is not None:
        packed.check_rest()

    def opener() -> Callable[[str], bytes]:
        def read(name: str) -> bytes:  # reading at a position needs no handle of one's own
            offset, size = found[name]
            try:
                content = read_at(size, offset)
            except (zlib.error, EOFError) as error:
                raise OSError(f"damaged in its archive: {error}") from None
            if len(content) < size:
                raise OSError("cut off in its archive")
            return content

        return read

    first: dict[_Place, str] = {}  # a hard link is another name of one file
    for name, place in found.items():
        first.setdefault(place, name)
    files = {name: (first[place], place[1]) for name, place in found.items()}
    return Archive(path, files, opener, [_clean(one.name) for one in members if one.isdir()])


_Place = tuple[int, int]  # position and bytes of a member of a tar file


def _places(path: Path, members: list[tarfile.TarInfo]) -> list[tuple[str, _Place]]:
    """Return the names of files in a tar file and where they lie, in no order.

    A hard link has the content of another member. Raises DataError for other links.
    """
    places = [(one.name, (one.offset_data, one.size)) for one in members if one.isreg()]
    contents = dict(places)
    hard = [(member.name, member.linkname) for member in members if member.islnk()]
    links = [member.name for member in members if member.issym()]
    links += [name for name, target in hard if target not in contents]
    _refuse_links(path, links, "pack it with `tar --dereference`, which packs what they lead to")
    return places + [(name, contents[target]) for name, target in hard if target in contents]


_Member = TypeVar("_Member")


def _by_name(
    path: Path, members: Iterable[tuple[str, _Member]], same: Callable[[_Member, _Member], bool]
) -> dict[str, _Member]:
    """Return the members of an archive that are files to look at, by name.

    same: whether two have the same content. Raises DataError for a name with two contents.
    """
    found: dict[str, _Member] = {}
    differing = set()
    for inner, member in members:
        name = _clean(inner)
        if not (_seen(name) or _hidden(name)):
            continue
        if name in found and not same(found[name], member):
            differing.add(name)
        found[name] = member
    if differing:
        raise DataError(
            f"{path}: has several files of one name: {some(sorted(differing))}; pack it anew, with "
            "one file of each name"
        )
    return found


def _same_content(read_at: "ReadAt", one: _Place, other: _Place) -> bool:
    """Return whether two members of a tar file have the same content."""
    (start, size), (start_of_other, size_of_other) = one, other
    if one == other or size != size_of_other:
        return one == other
    return all(
        read_at(piece, start + at) == read_at(piece, start_of_other + at)
        for at in range(0, size, _PIECE)
        for piece in [min(_PIECE, size - at)]
    )


def _refuse_links(path: Path, names: list[str], remedy: str) -> None:
    """Raise DataError for links among what would be read: they may lead anywhere."""
    links = sorted(filter(_seen, map(_clean, names)))
    if links:
        count = "a link" if len(links) == 1 else f"{len(links)} links"
        raise DataError(f"{path}: has {count} in place of files ({links[0]}); {remedy}")


ReadAt = Callable[[int, int], bytes]  # how many bytes, from which position on


def _reader(path: Path) -> ReadAt:
    """Return a function that reads bytes of a file at a position."""
    file = path.open("rb")
    return lambda size, position: os.pread(file.fileno(), size, position)


class _Headers:
    """A file from which tarfile reads headers; it refuses to read one of any size into memory."""

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, size: int) -> bytes:
        if size > _LARGEST_HEADER:
            raise ValueError(f"a header of {size} bytes")
        content = self._read_at(size, self._position)
        self._position += len(content)
        return content


def _headers(read_at: ReadAt) -> Any:
    return _Headers(read_at)


class Walk(NamedTuple):
    """The names of what lies below a folder, relative and with `/`, in no order."""

    files: list[str]
    special: list[str]  # pipes, sockets and devices
    folders: list[str]


def walk(folder: Path, hidden: bool = False, unreadable: list[str] | None = None) -> Walk:
    """Return the names of all that lies below a folder.

    Hidden files are named. hidden: those in hidden folders, too, except in folders that systems and
    programs make, in those that cannot be read and behind links. Links to folders are followed, but
    not to one that they lie in, and of the links that are found by way of a link one to each
    folder, so that links in circles end. unreadable: gets a line for each folder below that cannot
    be read; without it, as for `folder` itself, OSError is raised.
    """
    found = Walk([], [], [])
    # each with its name, the folders that it lies in, and what its links have led to; None: no link
    # has led to it
    folders: list[tuple[str, list[_Inode], set[_Inode] | None]] = [("", [_inode(folder)], None)]
    while folders:
        inner, above, linked = folders.pop()
        try:
            entries = _entries(folder, inner)
        except OSError as error:
            if unreadable is None or not inner:
                raise
            unreadable.append(f"{folder / inner}: {error.strerror}")
            continue
        for entry in entries:
            name = f"{inner}{entry.name}"
            if not _is_folder(entry):
                odd = not _is_file(entry) and special(folder / name) is not None
                (found.special if odd else found.files).append(name)
            elif _seen(name) or (hidden and _hidden(name) and not entry.is_symlink()):
                own, by_link = _inode(folder / name), linked
                if own in above:  # a link has led out of the folder, and this back into it
                    continue
                if entry.is_symlink():
                    if linked is not None and own in linked:
                        continue
                    by_link = set() if linked is None else linked
                    by_link.add(own)
                found.folders.append(name)
                folders.append((f"{name}/", [*above, own], by_link))
    return found


_Inode = tuple[int, int]


def _entries(folder: Path, inner: str) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, sorted; nothing for a hidden one that cannot be read."""
    try:
        with os.scandir(folder / inner) as listed:
            return sorted(listed, key=lambda entry: entry.name)
    except PermissionError:
        if _seen(inner):
            raise
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _inode(path: Path) -> _Inode:
    status = path.stat()
    return status.st_dev, status.st_ino


def _lines(names: Collection[str], path: Path) -> list[str]:
    """Return names sorted. Raises DataError for one that is no line of UTF-8, as ids have to be."""
    odd = [ascii(name) for name in names if "\n" in name or not _is_text(name)]
    if odd:
        raise DataError(
            f"{path}: names that are not UTF-8, or of more than one line: {some(odd)}; rename "
            "these files"
        )
    return sorted(names)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clean(name: str) -> str:
    return PurePosixPath(name).as_posix().lstrip("/")


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a name, which may be written with backslashes."""
    return PurePosixPath(name.replace("\\", "/")).parts


def _seen(name: str) -> bool:
    """Return whether a file is read: it is not hidden, and not one that macOS adds."""
    return not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _hidden(name: str) -> bool:
    """Return whether a file or a folder around it is hidden, but not made by a program."""
    return not _seen(name) and not any(map(_is_clutter, PurePosixPath(name).parts))


def _is_clutter(part: str) -> bool:
    """Return whether systems and programs give such a name to a file or folder of their own."""
    return part in _CLUTTER or part.startswith(("._", "__MACOSX", ".Trash"))

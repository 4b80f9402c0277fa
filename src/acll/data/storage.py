"""Where files of raw data lie: in a folder, or in an archive that is read without unpacking it.

Members of an archive are only ever read into memory, under the name that the archive gives them,
so whatever a name says, nothing is written anywhere. That holds for compressed tar files, too (see
`acll.data.gzipped`): each task reads through one once, to find its members, and then reads these
where they lie. Nothing of it is left for other tasks, and nothing has to be cleaned up.
"""

import difflib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from acll.data.errors import DataError
from acll.data.faults import some
from acll.data.gzipped import Gzipped

COMPRESSED = (".tar.gz", ".tgz")  # as a whole
ARCHIVES = (".zip", ".tar", *COMPRESSED)
LARGEST_MEMBER = 2**31  # bytes; larger ones, or those that say so, are not read into memory
SPLITS = ("train", "val", "test")
_BLOCK = 512  # bytes of a tar file
_LARGEST_HEADER = 2**24  # bytes of a name or of attributes in a tar file


class Storage(Protocol):
    """Files by name, relative and with `/`; names that begin with a dot are left out."""

    def names(self) -> list[str]:
        """Return all names, sorted."""

    def open(self, name: str) -> Path | BytesIO:
        """Return what libraries can read the file from. Raises OSError."""


def storage_of(path: Path) -> Storage:
    """Return the folder or the archive at `path`. Raises DataError."""
    if path.is_dir():
        return Folder(path)
    if path.is_file() and path.name.endswith(ARCHIVES):
        try:
            return _zip(path) if path.name.endswith(".zip") else _tar(path)
        except DataError:
            raise
        except Exception as error:  # of three formats and their compression
            raise DataError(f"{path}: not a readable archive, or cut off: {error}") from None
    if path.is_file():
        raise DataError(f"{path}: neither a folder nor an archive ({', '.join(ARCHIVES)})")
    raise missing(path)


def missing(path: Path) -> DataError:
    """Return the error for a path at which nothing lies; its message says what to do."""
    if path.with_name(f"{path.name}.dvc").is_file():
        return DataError(f"{path}: not here, but known to DVC; `dvc pull {path}.dvc` brings it")
    what = "file" if path.name.endswith((*ARCHIVES, ".csv", ".parquet", ".json")) else "folder"
    near = difflib.get_close_matches(path.name, _names_in(path.parent), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return DataError(
        f"{path}: there is no such {what}{hint}; set data_root, or say where it is with DATA=…"
    )


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def content_of(storage: Storage, name: str) -> bytes:
    """Return the whole content of a file. Raises OSError."""
    file = storage.open(name)
    return file.read_bytes() if isinstance(file, Path) else file.read()


@dataclass(frozen=True)
class Folder:
    """A folder of the file system."""

    root: Path

    def names(self) -> list[str]:
        """Return all names, sorted."""
        found: list[str] = []
        for folder, folders, files in os.walk(self.root, followlinks=True):
            here = Path(folder)
            # in place: this is how os.walk is told where not to go
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".") and not _leads_back(here / name)
            ]
            inner = here.relative_to(self.root)
            found += [(inner / name).as_posix() for name in files if not name.startswith(".")]
        return _lines(found, self.root)

    def open(self, name: str) -> Path:
        """Return the path of the file."""
        return self.root / name


@dataclass
class Archive:
    """An archive, of which each process opens a handle of its own."""

    path: Path
    members: dict[str, tuple[str, int]]  # name → (name in the archive, bytes)
    opener: Callable[[], Callable[[str], bytes]]
    _open: tuple[int, Callable[[str], bytes]] | None = None

    def names(self) -> list[str]:
        """Return all names, sorted, without a single folder around everything."""
        return _lines(self._inner, self.path)

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
    def _inner(self) -> dict[str, str]:
        """Return names without the single folder around everything → names of `members`."""
        around = {PurePosixPath(name).parts[0] for name in self.members}
        inside = all("/" in name for name in self.members)
        if inside and len(around) == 1 and not around & set(SPLITS):
            return {name.partition("/")[2]: name for name in self.members}
        return {name: name for name in self.members}


def _zip(path: Path) -> Archive:
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    if any(info.flag_bits & 1 for info in infos):
        raise DataError(f"{path}: is encrypted; unpack it, or pack it without a password")

    def opener() -> Callable[[str], bytes]:
        archive = zipfile.ZipFile(path)

        def read(name: str) -> bytes:
            try:
                return archive.read(name)
            except Exception as error:  # each compression has its own
                raise OSError(f"damaged in its archive: {error}") from None

        return read

    members = {
        _clean(info.filename): (info.filename, info.file_size)
        for info in infos
        if _seen(info.filename)
    }
    return Archive(path, members, opener)


def _tar(path: Path) -> Archive:
    packed = None if path.name.endswith(".tar") else Gzipped(path)
    read_at = _reader(path) if packed is None else packed.read_at
    with tarfile.open(fileobj=_headers(read_at), mode="r:") as archive:
        members = archive.getmembers()
        if any(member.issparse() for member in members):
            raise DataError(f"{path}: has sparse members; pack it without --sparse")
        found = {
            member.name: (member.offset_data, member.size) for member in members if member.isreg()
        }
        # a hard link has the content of another member
        found |= {
            member.name: found[member.linkname]
            for member in archive
            if member.islnk() and member.linkname in found
        }
        # tarfile takes a damaged header for the end
        if read_at(_BLOCK, archive.offset) != bytes(_BLOCK):
            raise ValueError("no end, or a damaged header before it")
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

    sizes = {_clean(name): (name, size) for name, (_, size) in found.items() if _seen(name)}
    return Archive(path, sizes, opener)


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


def _leads_back(folder: Path) -> bool:
    """Return whether a folder is a link to one that it lies in, so that walking would not end."""
    return folder.is_symlink() and folder.resolve() in [
        parent.resolve() for parent in folder.parents
    ]


def _lines(names: Iterable[str], path: Path) -> list[str]:
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
    return PurePosixPath(name).as_posix().removeprefix("/")


def _seen(name: str) -> bool:
    """Return whether a member is read: it is not hidden, and not one that macOS adds."""
    return not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)

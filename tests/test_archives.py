"""Raw data in archives: the same as in a folder, read without unpacking, refused where they are
damaged."""

import gzip
import io
import os
import random
import stat
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
import zlib

import pytest

from acll.data import gzipped
from acll.data.errors import DataError
from acll.data.gzipped import Gzipped
from acll.data.identity import identity
from acll.data.sources.coco import Coco
from acll.data.storage import storage_of
from datasets import PETS, STREETS, changed, cut_off, fault, faults, pack, pets, prepare, streets


@pytest.fixture
def images(tmp_path):
    return pets(tmp_path)


ENDINGS = ["zip", "tar", "tar.gz", "tgz"]


@pytest.mark.parametrize(
    ("ending", "around"),
    [
        *((ending, "./") for ending in ENDINGS),
        *(("zip", around) for around in ("", "pets/", "./some folder/")),
        *(("tar", around) for around in ("", "pets/", "./some folder/")),
    ],
)
def test_an_archive_gives_the_same_bytes_as_its_folder(images, ending, around):
    folder = prepare(PETS, images)
    archive = pack(images / "pets", images / f"pets.{ending}", around)
    made = prepare(changed(PETS, path=archive.name), images, processes=2, into="from_archive")
    assert made.bytes() == folder.bytes()
    assert made.summary == folder.summary


@pytest.mark.parametrize("ending", ENDINGS)
def test_masks_are_read_from_an_archive_too(tmp_path, ending):
    masks = streets(tmp_path)
    folder = prepare(STREETS, masks)
    archive = pack(masks / "streets", masks / f"streets.{ending}")
    assert (
        prepare(changed(STREETS, path=archive.name), masks, into="from_archive").bytes()
        == folder.bytes()
    )


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_nothing_in_an_archive_is_ever_written_anywhere(tmp_path, ending):
    root = pets(tmp_path / "a/b")
    before = prepare(PETS, root)
    archive = pack(root / "pets", root / f"pets.{ending}")
    names = [
        "../evil.png",
        "../../train/cat/evil.png",
        f"{tmp_path}/abs/evil.png",
        "/evil/abs.png",
        ".evil/x.png",
    ]
    content = (root / "pets/train/cat/0.png").read_bytes()
    (tmp_path / "x").write_bytes(content)
    if ending == "zip":
        with zipfile.ZipFile(archive, "a") as packed:
            for name in names:
                packed.writestr(name, content)
    else:
        with tarfile.open(archive, "w:gz" if ending == "tar.gz" else "w") as packed:
            packed.add(root / "pets", "")
            for name in names:
                member = packed.gettarinfo(tmp_path / "x")
                member.name = name
                with (tmp_path / "x").open("rb") as file:
                    packed.addfile(member, file)
    made = prepare(changed(PETS, path=archive.name), root, into="from_archive")
    assert made.bytes() == before.bytes()
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "abs").exists()
    assert not os.path.lexists("/evil")


def test_hard_links_in_a_tar_are_files(images):
    os.link(images / "pets/train/cat/0.png", images / "pets/train/cat/link.png")
    before = prepare(PETS, images)
    archive = pack(images / "pets", images / "pets.tar")
    with tarfile.open(archive) as packed:
        assert sum(member.islnk() for member in packed) == 1
    assert (
        prepare(changed(PETS, path=archive.name), images, into="from_archive").bytes()
        == before.bytes()
    )


def with_links(archive, folder, links):
    """An archive of a folder and of links: name → target."""
    pack(folder, archive)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "a") as made:
            for name, target in links.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                made.writestr(info, target)
        return archive
    with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as made:
        made.add(folder, "")
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            made.addfile(member)
    return archive


REMEDY = {"zip": "pack it with `zip` without `-y`"} | dict.fromkeys(
    ("tar", "tar.gz"), "pack it with `tar --dereference`"
)


@pytest.mark.parametrize("ending", REMEDY)
@pytest.mark.parametrize(
    ("links", "words"),
    [
        ({"train/cat/y.png": "0.png"}, "a link in place of files (train/cat/y.png)"),
        ({"test": "train"}, "a link in place of files (test)"),
        (
            {f"train/dog/{number:02}.png": "../../elsewhere.png" for number in range(12)},
            "12 links in place of files (train/dog/00.png)",
        ),
    ],
)
def test_symbolic_links_in_an_archive_are_refused(images, ending, links, words):
    path = with_links(images / f"x.{ending}", images / "pets", links)
    message = fault(changed(PETS, path=path.name), images)
    assert message == f"{path}: has {words}; {REMEDY[ending]}, which packs what they lead to"


@pytest.mark.parametrize("ending", REMEDY)
def test_links_that_are_not_looked_at_do_no_harm(images, ending):
    path = with_links(images / f"x.{ending}", images / "pets", {".git/x": "y", "a/._b.png": "c"})
    assert len(prepare(changed(PETS, path=path.name), images).every()) == 16


def test_a_hard_link_to_nothing_in_a_tar_is_refused(images):
    path = images / "x.tar"
    with tarfile.open(path, "w") as made:
        made.add(images / "pets", "")
        member = tarfile.TarInfo("train/cat/y.png")
        member.type, member.linkname = tarfile.LNKTYPE, "train/cat/gone.png"
        made.addfile(member)
    assert "has a link in place of files (train/cat/y.png); pack it with `tar --der" in fault(
        changed(PETS, path=path.name), images
    )


def several(path, members):
    """An archive of these members: (name, content)."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as made, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a name stands there twice
            for name, content in members:
                made.writestr(name, content)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as made:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def members_of(folder):
    return [
        (f"ds/{path.relative_to(folder).as_posix()}", path.read_bytes())
        for path in sorted(folder.rglob("*.*"))
    ]


TWICE = ["ds/train/cat/0.png", "./ds/train/cat/0.png", "/ds/train/cat/0.png",
         "//ds/./train//cat/0.png"]  # fmt: skip


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("first", [False, True])
def test_a_name_with_two_contents_is_refused(images, ending, name, first):
    members = members_of(images / "pets")
    other = [(name, (images / "pets/train/cat/1.png").read_bytes())]
    path = several(images / f"x.{ending}", other + members if first else members + other)
    task = changed(PETS, path=path.name)
    words = (
        f"{path}: has several files of one name: ds/train/cat/0.png; pack it anew, with one file "
        "of each name"
    )
    assert fault(task, images) == words
    if ending != "tar.gz":
        with pytest.raises(DataError, match="has several files of one name"):
            identity(task, images, images / "cache.json")


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_contents_of_one_size_that_differ_at_their_end_differ(tmp_path, ending):
    contents = [bytes(2**20 + 5), bytes(2**20 + 4) + b"x"]
    path = several(tmp_path / f"x.{ending}", [("a/b", content) for content in contents])
    with pytest.raises(DataError, match="has several files of one name: a/b"):
        storage_of(path)


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", TWICE)
def test_a_name_that_stands_there_twice_with_one_content_is_one_file(images, ending, name):
    before = prepare(PETS, images)
    members = members_of(images / "pets")
    again = [(name, dict(members)["ds/train/cat/0.png"])]
    path = several(images / f"x.{ending}", members + again)
    made = prepare(changed(PETS, path=path.name), images, into="from_archive")
    assert made.bytes() == before.bytes()


@pytest.mark.parametrize("ending", ["ZIP", "Zip", "TAR", "TAR.GZ", "Tar.gz", "TGZ"])
def test_an_ending_in_another_case_is_read(images, ending):
    before = prepare(PETS, images)
    path = pack(images / "pets", images / f"x.{ending.lower()}")
    path = path.rename(images / f"pets.{ending}")
    task = changed(PETS, path=path.name)
    assert prepare(task, images, into="from_archive").bytes() == before.bytes()
    assert task.raw_files(images) == [path]


@pytest.mark.parametrize("ending", ["rar", "7z", "tar.xz", "tar.bz2", "TAR.BZ2", "tar.zst", "txz"])
def test_an_archive_that_is_not_read_comes_with_what_to_do(images, ending):
    path = images / f"pets.{ending}"
    path.write_bytes(b"x")
    words = f"{path}: an archive that is not read; pack it as one of .zip, .tar, .tar.gz, .tgz"
    task = changed(PETS, path=path.name)
    assert fault(task, images) == words
    with pytest.raises(DataError) as caught:
        identity(task, images, images / "cache.json")
    assert str(caught.value) == words


def set_flag_bits(path):
    """What makes a zip an encrypted one, in the heads of its first member and in its directory."""
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)


def damage_header(path):
    """Of a member in the middle of a tar."""
    with tarfile.open(path) as packed:
        offset = packed.getmembers()[7].offset
    content = bytearray(path.read_bytes())
    content[offset + 10] ^= 0x55
    path.write_bytes(content)


def cut_at_header(path):
    """A tar that ends exactly where a member would begin."""
    with tarfile.open(path) as packed:
        offset = packed.getmembers()[7].offset
    path.write_bytes(path.read_bytes()[:offset])


def flip_in_the_middle(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("ending", "damage", "words"),
    [
        ("zip", cut_off, "not a readable archive, or cut off"),
        ("zip", lambda path: path.write_bytes(b""), "not a readable archive, or cut off"),
        ("zip", set_flag_bits, "is encrypted; unpack it, or pack it without a password"),
        ("tar", cut_off, "not a readable archive, or cut off"),
        ("tar", cut_at_header, "not a readable archive, or cut off"),
        ("tar", damage_header, "not a readable archive, or cut off"),
        (
            "tar",
            lambda path: path.write_bytes(b"rubbish" * 500),
            "not a readable archive, or cut off",
        ),
        ("tar.gz", cut_off, "not a readable archive, or cut off"),
        ("tar.gz", flip_in_the_middle, "not a readable archive, or cut off"),
        (
            "tgz",
            lambda path: path.write_bytes(b"rubbish" * 500),
            "not a readable archive, or cut off",
        ),
    ],
)
def test_a_damaged_archive_is_refused_as_a_whole(images, ending, damage, words):
    path = pack(images / "pets", images / f"pets.{ending}")
    damage(path)
    assert fault(changed(PETS, path=path.name), images).startswith(f"{path}: {words}")


@pytest.mark.parametrize(
    "packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize("position", [2, 20, 50])
def test_a_damaged_member_of_a_zip_is_a_fault_of_that_file_alone(images, packing, position):
    archive = images / "pets.zip"
    with zipfile.ZipFile(archive, "w", packing) as packed:
        for path in sorted((images / "pets").rglob("*.*")):
            packed.write(path, path.relative_to(images / "pets"))
        info = packed.getinfo("train/cat/3.png")
    content = bytearray(archive.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + position] ^= 0xFF
    archive.write_bytes(content)
    (line,) = faults(changed(PETS, path="pets.zip"), images)
    assert line.startswith("train/cat/3.png: cannot be read: damaged in its archive: ")
    made = prepare(changed(PETS, path="pets.zip", on_error="skip"), images)
    assert made.summary["left_out"] == {"unreadable": 1}
    assert len(made.every()) == 15


# --------------------------------------------------------------------------------------------------
# compressed tar files


def packed(path, **members):
    """A compressed tar file of these contents."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def no_scratch(monkeypatch):
    """Nothing can be written to the temporary folder."""

    def refused(*_, **__):
        raise AssertionError("written to the temporary folder")

    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refused)


def test_a_compressed_tar_takes_no_room_on_disk_and_little_in_memory(tmp_path, no_scratch):
    path = packed(tmp_path / "a.tgz", before=b"1", large=bytes(2**26), after=b"2")
    tracemalloc.start()
    try:
        place = storage_of(path)
        assert [place.open(name).getvalue() for name in ("after", "before")] == [b"2", b"1"]
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert place.open("large").getvalue() == bytes(2**26)


@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_a_header_that_says_it_is_larger_than_memory_is_refused(tmp_path, kind):
    path = tmp_path / ("a.tar" if kind == "w" else "a.tar.gz")
    with tarfile.open(path, kind, format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a")
        member.pax_headers = {"comment": "x" * 2**25}
        archive.addfile(member)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"not a readable archive, .*: a header of \d+ b"):
            storage_of(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def member_of(content, seed):
    """A gzip member, more or less compressed."""
    return gzip.compress(content, compresslevel=seed % 3 * 4)


@pytest.mark.parametrize("seed", range(6))
def test_any_part_of_a_gzip_file_is_what_it_expands_to(tmp_path, monkeypatch, seed):
    generator = random.Random(seed)
    for name, most in (("_PIECE", 300), ("_AT_ONCE", 2000), ("_SPACING", 1000), ("_POINTS", 7)):
        monkeypatch.setattr(gzipped, name, generator.randint(2, most))
    parts = [generator.randbytes(generator.randint(0, 3000)) + b"ab" * 2000 for _ in range(4)]
    whole = b"".join(parts)
    path = tmp_path / "a.gz"
    path.write_bytes(b"".join(member_of(part, seed) for part in parts) + bytes(seed * 100))
    file = Gzipped(path)
    if seed % 2:
        file.check_rest()
    for _ in range(60):
        start, size = generator.randint(0, len(whole) + 50), generator.randint(0, 4000)
        assert file.read_at(size, start) == whole[start : start + size]
    file.check_rest()
    assert len(file._points) <= gzipped._POINTS
    assert file.read_at(len(whole) + 1, 0) == whole


@pytest.mark.parametrize("where", ["begin", "middle", "checksum", "cut", "rubbish behind"])
def test_damage_anywhere_in_a_gzip_file_is_found(tmp_path, where):
    content = bytearray(gzip.compress(random.Random(0).randbytes(10_000)))
    if where in ("begin", "middle", "checksum"):
        content[{"begin": 1, "middle": len(content) // 2, "checksum": -6}[where]] ^= 1
    path = tmp_path / "a.gz"
    path.write_bytes(content[:-3] if where == "cut" else bytes(content) + b"x" * (where[0] == "r"))
    with pytest.raises((zlib.error, EOFError)):
        Gzipped(path).check_rest()


def test_a_compressed_tar_that_is_cut_while_it_is_read_is_a_fault_of_its_files(tmp_path):
    content = random.Random(0).randbytes(10**6)
    path = packed(tmp_path / "a.tgz", a=b"1", b=content, c=content)
    place = storage_of(path)
    os.truncate(path, 1000)
    with pytest.raises(OSError, match="damaged in its archive: it ends before"):
        place.open("b")


def test_the_identity_of_annotations_in_a_compressed_tar_needs_no_reading_through(tmp_path):
    train = {"images": "a", "annotations": "a.json"}
    task = Coco(source="coco", path="a.tgz", image_size=16, train=train)
    (tmp_path / "a.tgz").write_bytes(b"not looked into")
    assert identity(task, tmp_path, tmp_path / "cache.json")

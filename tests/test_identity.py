"""The identity of raw data."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from acll.data.errors import DataError
from acll.data.identity import identity
from acll.data.sources.digits import Digits
from datasets import PETS, changed, generated, pack, pets


@pytest.fixture
def images(tmp_path):
    return pets(tmp_path)


def own(root, cache="cache.json"):
    return identity(PETS, root, root / cache)


def later(path, seconds=10):
    status = path.stat()
    os.utime(path, (status.st_atime, status.st_mtime + seconds))


def test_the_identity_of_data_without_files_is_empty(tmp_path):
    for task in (generated(), Digits(source="digits", image_size=8)):
        assert identity(task, tmp_path, tmp_path / "cache.json") == ""
    assert not (tmp_path / "cache.json").exists()


def test_the_identity_is_the_same_with_and_without_a_cache(images):
    first = own(images)
    assert own(images) == first
    assert own(images, "other.json") == first
    (images / "cache.json").write_text('{"cut off')
    assert own(images) == first


def test_a_touched_file_does_not_change_the_own(images):
    first = own(images)
    for path in images.rglob("*.png"):
        later(path)
    assert own(images) == first


@pytest.mark.parametrize("seconds", [10, -10_000])
def test_a_changed_file_of_the_same_size_changes_the_identity(images, seconds):
    first, path = own(images), images / "pets/train/cat/0.png"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    stamp = path.stat()
    path.write_bytes(content)
    os.utime(path, (stamp.st_atime, stamp.st_mtime + seconds))
    assert own(images) != first


def test_a_changed_file_of_another_size_changes_the_identity_though_its_time_is_the_same(images):
    first, path = own(images), images / "pets/train/cat/0.png"
    stamp = path.stat()
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert own(images) != first


def test_files_added_removed_and_renamed_change_the_own(images):
    folder = images / "pets/train/cat"
    found = [own(images)]
    shutil.copy(folder / "0.png", folder / "new.png")
    found.append(own(images))
    (folder / "new.png").rename(folder / "newer.png")
    found.append(own(images))
    (folder / "newer.png").unlink()
    assert len(set(found)) == 3
    assert own(images) == found[0]


def test_a_moved_root_does_not_change_the_identity(images, tmp_path_factory):
    first, elsewhere = own(images), tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(images / "pets", elsewhere / "pets")
    assert own(elsewhere) == first
    assert identity(PETS, elsewhere, images / "cache.json") == first


def test_files_that_are_known_are_not_read_again_unless_that_is_asked_for(images, monkeypatch):
    first, read = own(images), []

    def digest(file, how, real=hashlib.file_digest):
        read.append(Path(file.name).name)
        return real(file, how)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert own(images) == first
    assert read == []
    assert identity(PETS, images, images / "cache.json", anew=True) == first
    assert len(read) == len([path for path in (images / "pets").rglob("*") if path.is_file()])


def test_another_file_of_the_same_size_and_time_is_another(images):
    first, path = own(images), images / "pets/train/cat/0.png"
    stamp = path.stat()
    path.write_bytes(b"x" * stamp.st_size)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert own(images) != first


def test_a_cache_that_cannot_be_written_saves_no_time_and_that_is_all(images, tmp_path):
    (tmp_path / "file").touch()
    assert identity(PETS, images, tmp_path / "file/cache.json") == own(images)


def test_a_missing_folder_has_no_own(tmp_path):
    with pytest.raises(DataError, match="there is no such file or folder"):
        own(tmp_path)


def test_a_link_to_nothing_has_an_identity_which_changes_when_there_is_something(images):
    path = images / "pets/train/cat/link.png"
    path.symlink_to(images / "elsewhere.png")
    first = own(images)
    shutil.copy(images / "pets/train/cat/0.png", images / "elsewhere.png")
    assert own(images) != first


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_the_identity_of_an_archive_is_that_of_its_content(images, ending):
    path = pack(images / "pets", images / f"pets.{ending}")
    task = changed(PETS, path=path.name)
    first = identity(task, images, images / "cache.json")
    shutil.copy(path, images / "copy")
    assert identity(task, images, images / "other.json") == first
    (images / "pets/train/cat/0.png").unlink()
    pack(images / "pets", path)
    assert identity(task, images, images / "cache.json") != first


def known_to(cache):
    """The names of the files whose digests a cache has."""
    return {Path(name).name for name in json.loads(cache.read_text())}


def test_what_was_read_is_kept_where_data_are_not_what_their_dvc_file_says(images):
    (images / "pets.dvc").write_text("outs:\n- md5: 0123.dir\n  path: pets\n")
    with pytest.raises(DataError, match=r"is not what pets\.dvc says"):
        own(images)
    files = {path.name for path in (images / "pets").rglob("*") if path.is_file()}
    assert known_to(images / "cache.json") == files


@pytest.mark.parametrize("stop", [OSError, KeyboardInterrupt])
def test_what_was_read_is_kept_where_reading_ends_early(images, monkeypatch, stop):
    read = []

    def digest(file, how, real=hashlib.file_digest):
        if len(read) == 3:
            raise stop
        read.append(Path(file.name).name)
        return real(file, how)

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", digest)
        with pytest.raises(stop):
            own(images)
    assert known_to(images / "cache.json") == set(read)
    assert own(images) == own(images, "other.json")


@pytest.mark.parametrize("content", ["null", "3", "[1]"])
def test_a_cache_that_is_none_is_none(images, content):
    (images / "cache.json").write_text(content)
    assert own(images) == own(images, "other.json")

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paramrob.errors import InputError
from paramrob.files import discard, replacing, write_whole


def test_what_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def broken() -> None:
        with replacing(path, "the text") as (file, _):
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert path.read_bytes() == b"old"
    write_whole(path, b"new", "the text")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_may_be_read_by_whom_the_mask_lets(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"new", "the text")
    (tmp_path / "b").write_bytes(b"new")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_link_keeps_pointing_at_its_file(tmp_path: Path) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(b"old")
    link.symlink_to(path)
    write_whole(link, b"new", "the text")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"


def test_only_regular_files_are_replaced_or_removed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(InputError, match="no regular file; give another name for the text"):
            write_whole(path, b"new", "the text")
        with pytest.raises(InputError, match="no regular file; give another name for the text"):
            discard(path, "the text")
    assert pipe.exists()


def test_what_is_not_there_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert not discard(path, "the text")
    path.write_bytes(b"old")
    assert discard(path, "the text")
    assert not path.exists()


@pytest.mark.parametrize("name", ["gone/a", "a\0b"])
def test_names_that_cannot_be_written_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / name, b"new", "the text")

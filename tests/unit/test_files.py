import errno
import os
import time

import pytest
from likeness.trainers import files


def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace

    def fsync(handle):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", lambda a, b: (done.append("name"), replace(a, b)))
    files.write_atomic(tmp_path / "a", "text")
    assert done == ["file", "name", "folder"]
    done.clear()
    files.write_atomic(tmp_path / "b", b"bytes", durable=False)
    assert done == ["file", "name"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    files.write_atomic(tmp_path / "a", "old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError) as caught:
        files.write_atomic(tmp_path / "a", "new")
    assert files.is_disk_full(caught.value)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_whose_check_fails_does_not_get_its_name(tmp_path):
    files.write_atomic(tmp_path / "a", "old")

    def refuse(partial):
        assert partial.read_text() == "new"  # closed, so all of it can be read
        raise ValueError("other bytes")

    with (
        pytest.raises(ValueError, match="other bytes"),
        files.atomic_file(tmp_path / "a", check=refuse) as file,
    ):
        file.write(b"new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_what_a_killed_process_left_of_a_large_file_is_replaced(tmp_path):
    killed = [files.atomic_file(tmp_path / "a", exclusive=True) for _ in range(2)]
    for one in killed:
        one.__enter__().write(b"half")  # and never goes on
    assert len(list(tmp_path.iterdir())) == 1
    with files.atomic_file(tmp_path / "a", exclusive=True) as file:
        file.write(b"3")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"3"]


def test_what_killed_processes_left_of_small_files_stayed_for_ever(tmp_path):
    def leave(name, days):
        (tmp_path / name).write_text("half")
        moment = time.time() - days * 24 * 3600
        os.utime(tmp_path / name, (moment, moment))

    leave(".a[1].json.0123abcd.partial", days=2)
    leave(".a[1].json.deadbeef.partial", days=0.5)  # perhaps being written
    leave(".a1.json.0123abcd.partial", days=2)  # of another file
    leave(".a[1].json.partial", days=2)  # of a file that one process writes
    files.write_atomic(tmp_path / "a[1].json", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".a1.json.0123abcd.partial", ".a[1].json.deadbeef.partial", ".a[1].json.partial",
        "a[1].json",
    ]  # fmt: skip


def test_a_file_that_another_program_has_open_is_replaced_when_it_is_let_go(tmp_path, monkeypatch):
    held, real = [1, 2, 3], os.replace

    def replace(source, target):
        if held:
            held.pop()
            raise PermissionError(13, "in use")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(PermissionError):
        files.write_atomic(tmp_path / "a", "1")  # elsewhere than on Windows it will not change
    monkeypatch.setattr(files, "_RETRY_SECONDS", 5.0)
    files.write_atomic(tmp_path / "a", "2")
    assert (tmp_path / "a").read_text() == "2" and not held
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_drive_that_is_gone_is_an_error_of_the_disk(monkeypatch):
    """Its root has no parent but itself."""
    monkeypatch.setattr(files.Path, "is_dir", lambda path: False)
    with pytest.raises(OSError):
        files.make_folder(files.Path("/gone/folder"))


def test_a_folder_takes_the_place_of_another_whole(tmp_path):
    for name in ("partial", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "from").write_text(name)
    files.move_folder(tmp_path / "partial", tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target" / "from").read_text() == "partial"
    files.remove_folder(tmp_path / "target")
    assert not list(tmp_path.iterdir())


def test_what_says_that_a_disk_is_full():
    assert files.is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert files.is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not files.is_disk_full(OSError(errno.EACCES, "no space left"))
    assert not files.is_disk_full(ValueError("os error 2"))


def test_a_section_of_a_page_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- a: begin -->\nold\n<!-- a: end -->\nbelow\n", encoding="utf-8")
    files.replace_between_markers(page, "a", "new\n")
    assert page.read_text() == "above\n<!-- a: begin -->\nnew\n<!-- a: end -->\nbelow\n"
    with pytest.raises(ValueError, match="b: begin"):
        files.replace_between_markers(page, "b", "new")

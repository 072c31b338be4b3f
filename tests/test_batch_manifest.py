"""The manifest: nothing that was known is lost by a kill, and no row is in it twice."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from joyimage import JoyImageError
from joyimage.scale import manifest as manifest_file
from joyimage.scale.manifest import FAILED, Manifest, Record


def rows(path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_records_come_back_by_the_numbers_of_rows(tmp_path):
    records = [Record(f"row {i}", i, "edit", seed=2**64 - 1, encode_seconds=0.5, answer="a\nb") for i in (3, 1, 2)]
    with Manifest(tmp_path / "out") as manifest:
        for record in records:
            manifest.add(record)
        path = manifest.finish()
    assert [Record(**row) for row in rows(path)] == [records[1], records[2], records[0]]
    assert [file.name for file in (tmp_path / "out/.batch").iterdir()] == ["journal.jsonl"]
    assert (tmp_path / "out/.batch/journal.jsonl").read_bytes() == b""


def test_of_a_name_the_last_record_counts_in_any_run(tmp_path):
    for status in (FAILED, "done"):
        with Manifest(tmp_path) as manifest:
            manifest.add(Record("a", 1, status="running"))
            manifest.add(Record("a", 1, status=status))
            manifest.add(Record(status, 2))
            path = manifest.finish()
    assert [(row["name"], row["status"]) for row in rows(path)] == [("a", "done"), (FAILED, "done"), ("done", "done")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_disk_that_is_full_is_told_with_the_file(tmp_path):
    with Manifest(tmp_path) as manifest:
        manifest.add(Record("a", 1))
        manifest._journal.close()
        with Path("/dev/full").open("w", encoding="utf-8") as manifest._journal:
            with pytest.raises(
                JoyImageError, match=r"cannot write .*journal\.jsonl: No space left on device; the same"
            ):
                manifest.add(Record("b", 2))
            manifest.__exit__()
    with Manifest(tmp_path) as manifest:
        assert [record["name"] for record in manifest.records()] == ["a"]


def test_long_journals_become_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_file, "PART_RECORDS", 3)
    with Manifest(tmp_path) as manifest:
        for i in range(8):
            manifest.add(Record(f"{i}", i))
        assert sorted(file.name for file in manifest.inner.glob("part-*")) == [
            "part-000001.parquet",
            "part-000002.parquet",
        ]
        assert len((manifest.inner / "journal.jsonl").read_text().splitlines()) == 2
        assert [record["row"] for record in manifest.records()] == list(range(8))
        assert [row["row"] for row in rows(manifest.finish())] == list(range(8))


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_a_kill_has_cut_is_dropped_and_the_others_stay(tmp_path, cut):
    with Manifest(tmp_path) as manifest:
        for i in range(3):
            manifest.add(Record(f"{i}", i))
    journal = tmp_path / ".batch/journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])
    with Manifest(tmp_path) as manifest:
        assert [record["row"] for record in manifest.records()] == [0, 1]
        manifest.add(Record("3", 3))
        assert [row["row"] for row in rows(manifest.finish())] == [0, 1, 3]


def test_a_kill_between_a_part_and_the_journals_end_doubles_nothing(tmp_path, monkeypatch):
    with Manifest(tmp_path) as manifest:
        for i in range(3):
            manifest.add(Record(f"{i}", i))
        journal = (tmp_path / ".batch/journal.jsonl").read_bytes()
        manifest._seal()
    (tmp_path / ".batch/journal.jsonl").write_bytes(journal)
    with Manifest(tmp_path) as manifest:
        assert [row["row"] for row in rows(manifest.finish())] == [0, 1, 2]


def test_names_that_are_no_utf_8_are_spelt(tmp_path):
    with Manifest(tmp_path) as manifest:
        manifest.add(Record("a", 1, reason="there is no picture caf\udce9.png"))
        assert rows(manifest.finish())[0]["reason"] == r"there is no picture caf\udce9.png"


@pytest.mark.parametrize("name", [".batch/journal.jsonl", "manifest.parquet"])
def test_files_that_are_something_else_are_named(tmp_path, name):
    (tmp_path / ".batch").mkdir()
    (tmp_path / name).write_text(json.dumps({"no": "record"}) + "\n")
    with pytest.raises(JoyImageError, match=f"{name}.*move it away"), Manifest(tmp_path) as manifest:
        list(manifest.records())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JoyImageError, match="nothing can be written into"), Manifest(tmp_path / "file"):
        pass

"""Files in folders: those that are meant, once they are finished being written."""

from __future__ import annotations

import os
from pathlib import Path

from omi_edge.cli.folders import Watched, found


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def names(watched: Watched) -> list[str]:
    ready = watched.look()
    for path, mark in ready:
        watched.done(path, mark)
    return [path.name for path, _ in ready]


def test_a_folder_means_what_is_in_it_and_below(tmp_path: Path) -> None:
    for name in ("b.wav", "a.bin", "deep/er/c.mp3", ".hidden.wav", ".git/d.wav", "e.wav.part", "f.TMP", "g.crdownload",
                 "h.wav~", "data/vault.db"):  # fmt: skip
        write(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.wav")
    meant = [str(path.relative_to(tmp_path)) for path in found([tmp_path], tmp_path / "data")]
    assert meant == ["a.bin", "b.wav", "deep/er/c.mp3"]
    named = [tmp_path / ".hidden.wav", tmp_path / "nowhere.wav"]
    assert list(found(named)) == named  # what is named is meant


def test_a_file_is_ready_when_two_looks_find_it_the_same(tmp_path: Path) -> None:
    watched = Watched([tmp_path])
    old = write(tmp_path / "old.wav")
    assert names(watched) == []
    assert names(watched) == ["old.wav"]
    growing = write(tmp_path / "growing.wav", "12")
    assert names(watched) == []
    write(growing, "1234")
    assert names(watched) == []
    assert names(watched) == ["growing.wav"]
    assert names(watched) == []
    write(old, "other words")  # it is another one now
    assert names(watched) == []
    assert names(watched) == ["old.wav"]


def test_what_is_renamed_goes_away_or_is_empty(tmp_path: Path) -> None:
    watched = Watched([tmp_path])
    part = write(tmp_path / "talk.wav.part")
    empty = write(tmp_path / "empty.wav", "")
    assert [names(watched) for _ in range(2)] == [[], []]
    part.rename(tmp_path / "talk.wav")
    assert [names(watched) for _ in range(2)] == [[], ["talk.wav"]]
    (tmp_path / "talk.wav").unlink()
    assert names(watched) == []
    write(empty, "no longer")
    assert [names(watched) for _ in range(3)] == [[], ["empty.wav"], []]
    empty.unlink()
    tmp_path.rename(tmp_path.with_name("away"))
    assert names(watched) == []
    tmp_path.with_name("away").rename(tmp_path)

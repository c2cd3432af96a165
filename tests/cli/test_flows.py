"""The main flows as a person types them: without a terminal, with and without a daemon, and what bad input gets."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from omi_edge.clock import SystemClock
from omi_edge.store import keys
from omi_edge.store.database import Database
from omi_edge.virtual.script import recording_path
from omi_edge.web import wire
from tests.cli.conftest import Done, Place, Started, cheapen, contents, free_port

PATIENCE_SECONDS = 30.0
"""How long something that must happen is waited for."""
STOP_SECONDS = 15.0
"""A generous bound for the end of `run`; the aim is 5 s, and the time it took is printed."""
D = ("--data", "D", "--passphrase-file", "F")


def until(happened: Callable[[], bool], what: str) -> None:
    """Wait until something has happened."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < give_up, f"{what} did not happen"
        threading.Event().wait(0.05)


def is_one_sentence(done: Done, code: int, *words: str) -> None:
    """A failure is told in one line on standard error, with its cause and cure, and the documented code."""
    assert done.code == code, done
    assert done.out == "", done
    assert done.err.startswith("omi-edge: "), done
    assert done.err.count("\n") == 1, done
    for word in words:
        assert word in done.err, done


class Flow(NamedTuple):
    """One folder's life: what was answered without a daemon, and with one."""

    place: Place
    init: Done
    taken: wire.ImportState
    conversation_id: str
    token: str
    alone: dict[str, Any]
    together: dict[str, Any]
    texts: dict[str, Done]
    served: Served


class Served(NamedTuple):
    """What happened while a daemon ran."""

    answers: dict[str, Any]
    over_tcp: Any
    second: Done
    taken_port: Done
    without_passphrase: Done
    no_wait: Done
    due_after_hup: str
    stop_code: int
    stop_seconds: float
    log: str


def questions(conversation_id: str) -> dict[str, tuple[str, ...]]:
    """Every verb that reads, by a name of its own."""
    return {
        "list": ("list",),
        "by-source": ("list", "--by-source"),
        "since": ("list", "--since", "2099-01-01"),
        "show": ("show", conversation_id),
        "search": ("search", "the doctor"),
        "tasks": ("tasks",),
        "memories": ("memories",),
        "notices": ("notices",),
        "tokens": ("token", "list"),
        "status": ("status",),
        "config": ("config", "show"),
        "export": ("export", "--with-audio"),
    }


def answers(place: Place, asked: dict[str, tuple[str, ...]], *options: str) -> dict[str, Any]:
    """Ask with --json; what cannot be the same twice, such as the start of the daemon, is taken out."""
    done = place.each((*options, *call, "--json") for call in asked.values())
    found = {name: one.json for name, one in zip(asked, done, strict=True)}
    assert all(one.out.count("\n") == 1 for name, one in zip(asked, done, strict=True) if name != "export")
    for changing in ("state", "since", "web", "engines", "speeds"):
        del found["status"][changing]
    del found["export"]["audit"]  # each question adds to it
    return found


@pytest.fixture(scope="module")
def flow(place: Place) -> Iterator[Flow]:
    init = place(*D, "init", "--yes", fresh=True)
    cheapen(place.home / "D")
    item = place(*D, "import", "talk.wav", "--start", "2026-03-04 10:00", "--json").json["items"][0]
    taken = msgspec.convert(item["state"], wire.ImportState)
    token = place(*D, "token", "create", "laptop", "--json").json["token"]
    asked = questions(taken.conversations[0])
    alone = answers(place, asked, *D)
    shown = ("list", "since", "show", "search", "tasks", "memories", "status")
    words = {name: asked[name] for name in shown} | {"doctor": ("doctor",), "check": ("config", "check")}
    texts = dict(zip(words, place.each((*D, *call) for call in words.values()), strict=True))
    served = serve(place, asked, token)
    yield Flow(place, init, taken, taken.conversations[0], token, alone, served.answers, texts, served)


def serve(place: Place, asked: dict[str, tuple[str, ...]], token: str) -> Served:
    """Run a daemon, ask it everything, stop it; whatever happens, it is gone afterwards."""
    port, settings, log = free_port(), place.home / "config.toml", place.home / "run.log"
    settings.write_text("", encoding="utf-8")
    environment = {"OMI_EDGE_WEB_PORT": str(port)}
    with log.open("w", encoding="utf-8") as stderr:
        process = place.start("--config", "config.toml", *D, "run", environment=environment, stderr=stderr, fresh=True)
        try:
            return asked_of(place, process, asked, port, token, settings, log)
        finally:
            process.kill()
            process.communicate()


def asked_of(
    place: Place,
    process: Started,
    asked: dict[str, tuple[str, ...]],
    port: int,
    token: str,
    settings: Path,
    log: Path,
) -> Served:
    until(lambda: process.poll() is not None or ready(port), "readiness")
    assert process.poll() is None, log.read_text(encoding="utf-8")
    found = answers(place, asked, "--data", "D")  # a daemon that runs needs no passphrase of its verbs
    over_tcp = fetched(port, "/v1/conversations", token)
    place("--data", "E", "--passphrase-file", "F", "init", "--yes")
    environment = {"OMI_EDGE_WEB_PORT": str(port)}
    second = place(*D, "run")
    taken_port = place("--data", "E", "--passphrase-file", "F", "run", environment=environment)
    without_passphrase = place("--data", "D", "tasks", "add", "water", "the", "plants", "--json")

    settings.write_text("[conversation]\nsilense = 3\n", encoding="utf-8")
    process.send_signal(signal.SIGHUP)
    until(lambda: "stays as it was" in log.read_text(encoding="utf-8"), "the refusal of a bad setting")
    settings.write_text("[wearer]\ntime_zone = 'Asia/Tokyo'\n", encoding="utf-8")
    process.send_signal(signal.SIGHUP)
    until(lambda: "re-read" in log.read_text(encoding="utf-8"), "a change of the settings")
    due = place("--data", "D", "tasks", "add", "call mum", "--due", "2026-03-06", "--json").json["due"]

    no_wait = place(
        "--data", "D", "import", "--no-wait", "--again", "talk.wav", "--start", "2026-03-05 10:00", "--json"
    )
    before = time.monotonic()
    process.send_signal(signal.SIGTERM)  # while the recording is being understood
    code = process.wait(PATIENCE_SECONDS)
    seconds = time.monotonic() - before
    told = log.read_text(encoding="utf-8")
    return Served(found, over_tcp, second, taken_port, without_passphrase, no_wait, due, code, seconds, told)


def ready(port: int) -> bool:
    try:
        return bool(fetched(port, "/readiness", "")["ready"])
    except OSError:
        return False


def fetched(port: int, path: str, token: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
        return json.loads(response.read())


# --- what a recording becomes ---------------------------------------------------------------------------------------


def test_init_says_what_must_not_be_lost(flow: Flow) -> None:
    assert flow.init.code == 0
    assert flow.init.out == ""
    assert "keyslots.json" in flow.init.err
    assert "back up" in flow.init.err


def test_import_returns_when_every_stage_is_done(flow: Flow) -> None:
    assert flow.taken.state == "done"
    assert (flow.taken.jobs_left, flow.taken.jobs_failed) == (0, 0)
    assert flow.taken.seconds == pytest.approx(4.09, abs=0.1)
    assert flow.taken.start == "2026-03-04T10:00:00.000Z"
    jobs = flow.alone["status"]["jobs"]
    assert {stage for stage, counts in jobs.items() if counts.get("done")} == {
        "transcribe",
        "diarize",
        "assemble",
        "extract",
        "embed",
    }


def test_what_was_said_is_found_again(flow: Flow) -> None:
    [conversation] = flow.alone["list"]["items"]
    assert conversation["id"] == flow.conversation_id
    assert conversation["state"] == "completed"
    shown = flow.alone["show"]
    text = " ".join(utterance["text"] for utterance in shown["transcript"]["utterances"])
    assert "call the doctor on monday" in text
    [task] = flow.alone["tasks"]["items"]
    assert "doctor" in task["description"]
    assert task["due"].startswith("2026-03-09")  # the Monday after the Wednesday on which it was said
    spans = [hit["span"] for hit in flow.alone["search"]["hits"] if hit["kind"] == "utterance"]
    assert spans[0]["conversation_id"] == flow.conversation_id
    # "remind me …" begins 0.8 s into the recording (tests/recordings/short.toml)
    assert "2026-03-04T10:00:00.5" < spans[0]["start"] < "2026-03-04T10:00:01.5"
    assert flow.alone["since"]["items"] == []
    [group] = flow.alone["by-source"]["items"]
    assert group["source"]["id"] == flow.taken.source_id
    assert group["conversations"] == 1


def test_export_is_one_document_with_everything(flow: Flow) -> None:
    document = flow.alone["export"]
    assert document["schema"] == "omi-edge.export"
    assert document["version"] == 1
    assert [row["id"] for row in document["conversations"]] == [flow.conversation_id]
    assert [row["id"] for row in document["sources"]] == [flow.taken.source_id]
    assert flow.token not in json.dumps(document)


def _without(document: Any, *keys: str) -> Any:
    return (
        {key: value for key, value in document.items() if key not in keys} if isinstance(document, dict) else document
    )


def test_the_same_with_and_without_a_daemon(flow: Flow) -> None:
    for name, answer in flow.alone.items():
        # a daemon's own life is in the ledger's tables: the only thing that it is allowed to add by being there
        assert _without(flow.together[name], "ledger_life", "ledger_anchors") == _without(
            answer, "ledger_life", "ledger_anchors"
        ), name
    assert flow.served.over_tcp == flow.alone["list"]
    assert flow.served.without_passphrase.json["description"] == "water the plants"


def test_in_a_pipe_text_is_plain_and_says_what_json_says(flow: Flow) -> None:
    for name, done in flow.texts.items():
        assert done.code == 0, (name, done)
        assert done.out.endswith("\n"), name
        assert "\x1b" not in done.out + done.err, name
        assert not any(line != line.rstrip() for line in done.out.splitlines()), name
        assert done.err == "", name
    assert flow.conversation_id in flow.texts["list"].out
    assert "remind me to call the doctor on monday" in flow.texts["show"].out
    assert "Mon 2026-03-09" in flow.texts["tasks"].out
    assert flow.texts["memories"].out == "No memory yet.\n"
    assert flow.texts["since"].out == "Nothing matches.\n"
    assert "no daemon runs" in flow.texts["status"].out
    assert "the settings are good" in flow.texts["check"].out
    assert "failed" not in flow.texts["doctor"].out


# --- the daemon -----------------------------------------------------------------------------------------------------


def test_sigterm_ends_run_cleanly_while_it_works(flow: Flow, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nrun ended {flow.served.stop_seconds:.2f} s after SIGTERM")
    assert flow.served.stop_code == 0
    assert flow.served.stop_seconds < STOP_SECONDS
    assert "Traceback" not in flow.served.log
    assert "state=stopped" in flow.served.log


def test_what_a_daemon_left_waits_and_has_not_failed(flow: Flow) -> None:
    [item] = flow.served.no_wait.json["items"]
    assert item["state"]["state"] == "processing"
    assert item["state"]["jobs_left"] > 0
    status = flow.place(*D, "status", "--json").json
    assert item["state"]["source_id"] in [source["id"] for source in status["sources"]]
    assert status["failed_jobs"] == []


def test_sighup_takes_good_settings_and_leaves_bad_ones(flow: Flow) -> None:
    assert "did you mean silence?" in flow.served.log
    assert flow.served.due_after_hup == "2026-03-06T14:59:59.999Z"  # the end of that day in Tokyo


def test_a_second_daemon_on_the_same_folder_is_refused(flow: Flow) -> None:
    assert flow.served.second.code == 9
    last = flow.served.second.err.splitlines()[-1]
    assert last.startswith("omi-edge: another omi-edge works on ")
    assert "--data" in last
    assert "Traceback" not in flow.served.second.err


def test_a_port_in_use_is_refused_by_number(flow: Flow) -> None:
    assert flow.served.taken_port.code == 9
    last = flow.served.taken_port.err.splitlines()[-1]
    assert last.startswith("omi-edge: port ")
    assert "OMI_EDGE_WEB_PORT" in last
    assert "Traceback" not in flow.served.taken_port.err


# --- bad input: a sentence, a code, and nothing lost or changed -------------------------------------------------------


@pytest.fixture(scope="module")
def vault(place: Place) -> Path:
    """A vault that is only looked at."""
    assert place("--data", "V", "--passphrase-file", "F", "init", "--yes").code == 0
    return place.home / "V"


def test_what_cannot_open_the_vault(place: Place, vault: Path) -> None:
    place.secret("WRONG", "correct horse battery maple\n")
    place.secret("OPEN", "correct horse battery staple\n", mode=0o644)
    before = contents(vault)
    calls = [
        ("--data", "V", "--passphrase-file", "WRONG", "list"),
        ("--data", "V", "list"),
        ("--data", "V", "--passphrase-file", "OPEN", "list"),
        ("--data", "V", "--passphrase-file", "F", "init", "--yes"),
        ("--data", "NONE", "--passphrase-file", "F", "list"),
        ("--data", "F", "--passphrase-file", "F", "init", "--yes"),
    ]
    wrong, missing, readable, again, none, no_folder = place.each(calls)
    is_one_sentence(wrong, 3, "wrong passphrase", "Nothing was changed")
    wrong_run = place("--data", "V", "--passphrase-file", "WRONG", "run")
    assert wrong_run.code == 3
    assert wrong_run.err.splitlines()[-1] == wrong.err.rstrip()
    is_one_sentence(missing, 3, "no terminal", "--passphrase-file", "--passphrase-fd", "--passphrase-command")
    is_one_sentence(readable, 3, "chmod 600 OPEN")
    is_one_sentence(again, 5, "a vault", "already", "nothing was changed")
    is_one_sentence(none, 5, "no vault", "omi-edge init")
    is_one_sentence(no_folder, 2, "is a file", "--data")
    assert not (place.home / "NONE").exists()
    assert contents(vault).items() - {("lock", (0o600, b""))} == before.items() - {("lock", (0o600, b""))}


def test_init_never_takes_the_place_of_keys_or_closes_a_folder_of_others(place: Place, vault: Path) -> None:
    moved, foreign = place.home / "MOVED", place.home / "FOREIGN"
    shutil.copytree(vault, moved)
    (moved / "vault.db").unlink()
    foreign.mkdir(mode=0o755)
    (foreign / "letter.txt").write_text("dear", encoding="utf-8")
    before = contents(moved), contents(foreign), foreign.stat().st_mode
    options = ("--passphrase-file", "F", "init", "--yes")
    keys_alone, others = place.each([("--data", "MOVED", *options), ("--data", "FOREIGN", *options)])
    is_one_sentence(keys_alone, 5, "key slots", "put the vault back")
    is_one_sentence(others, 2, "other files", "empty folder")
    assert (contents(moved), contents(foreign), foreign.stat().st_mode) == before


def test_a_file_newer_than_the_program(place: Place, vault: Path) -> None:
    database, slots = place.home / "NEWER", place.home / "NEWER-KEYS"
    shutil.copytree(vault, database)
    shutil.copytree(vault, slots)
    asyncio.run(_make_newer(database))
    for name in (keys.NAME, keys.SECOND_NAME):
        path = slots / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"version": 99}), encoding="utf-8")
    before = contents(database), contents(slots)
    calls = [("--data", name, "--passphrase-file", "F", "list") for name in ("NEWER", "NEWER-KEYS")]
    of_database, of_slots = place.each(calls)
    is_one_sentence(of_database, 5, "version 99", "Update omi-edge")
    is_one_sentence(of_slots, 5, "newer omi-edge", "Update")
    for folder, was in zip((database, slots), before, strict=True):
        now = contents(folder)
        now.pop("lock", None)
        was.pop("lock", None)
        assert now == was


async def _make_newer(folder: Path) -> None:
    vault = await asyncio.to_thread(Database.open, folder, "correct horse battery staple", SystemClock())
    await vault.write(lambda conn: conn.execute("PRAGMA user_version = 99"))
    await vault.close()


def test_settings_that_cannot_be_used(place: Place) -> None:
    (place.home / "bad.toml").write_text("[conversation]\nsilense = 3\n", encoding="utf-8")
    (place.home / "range.toml").write_text("[audio]\nchunk = 60.0\n", encoding="utf-8")
    calls = [
        ("--config", "bad.toml", "config", "check"),
        ("--config", "bad.toml", *D, "run"),
        ("--config", "range.toml", "config", "check"),
        ("--config", "nowhere.toml", "config", "show"),
        ("--config", "bad.toml", "config", "check", "--json"),
    ]
    check, run, outside, nowhere, as_json = place.each(calls)
    is_one_sentence(check, 2, "bad.toml", "conversation.silense", "did you mean silence?")
    assert run == check
    is_one_sentence(outside, 2, "audio.chunk", "2.0")
    is_one_sentence(nowhere, 2, "nowhere.toml", "--config")
    problem = msgspec.json.decode(as_json.err, type=wire.Problem)
    assert (as_json.code, as_json.out, problem.status) == (2, "", 400)
    assert f"omi-edge: {problem.detail}\n" == check.err
    variable = place("config", "check", environment={"OMI_EDGE_WEB_PROT": "1"})
    is_one_sentence(variable, 2, "OMI_EDGE_WEB_PROT", "did you mean OMI_EDGE_WEB_PORT?")


@pytest.mark.full
def test_recordings_that_are_none_or_not_whole(place: Place, vault: Path) -> None:
    home = place.home
    (home / "text.wav").write_text("These are words, and no sound.\n", encoding="utf-8")
    (home / "empty.wav").write_bytes(b"")
    (home / "cut.wav").write_bytes((home / "talk.wav").read_bytes()[:70_000])
    options = ("--data", "V", "--passphrase-file", "F")
    bad = place(*options, "--quiet", "import", "text.wav", "empty.wav", "nowhere.wav")
    assert (bad.code, bad.out) == (6, "")
    told = dict(line.split(": ", 1) for line in bad.err.splitlines())
    assert told.keys() == {"text.wav", "empty.wav", "nowhere.wav"}
    assert "not audio" in told["text.wav"]
    assert "WAV" in told["text.wav"]
    assert "empty" in told["empty.wav"]
    assert "no such recording" in told["nowhere.wav"]

    cut = place(*options, "--json", "import", "text.wav", "cut.wav")
    assert cut.code == 6
    none, some = json.loads(cut.out)["items"]
    assert none["state"] is None
    assert none["problem"] == told["text.wav"]
    assert some["state"]["state"] == "done"
    assert some["state"]["seconds"] == pytest.approx(2.19, abs=0.05)  # (70 000 - 44) bytes of 32 000 a second
    assert "2.19 s" in some["damage"]
    assert "What could be read was kept" in cut.err
    shown = place(*options, "show", some["state"]["conversations"][0])
    assert "remind me to" in shown.out
    [source] = place(*options, "status", "--json").json["sources"]
    assert source["name"] == "cut.wav"
    assert sorted(path.name for path in home.glob("*.wav")) == ["cut.wav", "empty.wav", "talk.wav", "text.wav"]


@pytest.mark.full
def test_what_is_not_there_is_named_and_nothing_is_done(flow: Flow) -> None:
    calls = [
        ("show", "con_nope"),
        ("close", flow.conversation_id),
        ("list", "--since", "yesterday"),
        ("tasks", "delete", flow.alone["tasks"]["items"][0]["id"]),
        ("serach", "doctor"),
    ]
    show, close, since, delete, verb = flow.place.each((*D, *call) for call in calls)
    is_one_sentence(show, 4, "no such conversation")
    is_one_sentence(close, 2, "ended already")
    is_one_sentence(since, 2, "'yesterday'", "2026-03-02 10:00")
    assert delete.code == 2
    assert "--yes" in delete.err
    is_one_sentence(verb, 2, "'serach'", "did you mean search?", "omi-edge --help")
    left = [task["id"] for task in flow.place(*D, "tasks", "--json").json["items"]]
    assert flow.alone["tasks"]["items"][0]["id"] in left


def test_an_interrupted_import_keeps_what_was_taken(place: Place, vault: Path) -> None:
    long = str(recording_path())  # two minutes: it cannot be done before the signal comes
    with place.start("--data", "V", "--passphrase-file", "F", "import", long) as process:
        assert process.stderr is not None
        assert "began" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (130, "")
    assert err.startswith(f"{long}: stopped; what was taken in of it is kept")
    after = place("--data", "V", "--passphrase-file", "F", "status", "--json").json
    assert after["failed_jobs"] == []

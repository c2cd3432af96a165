"""The export holds every row, and is one JSON document; the counts are those of the file."""

from __future__ import annotations

import base64
import json
from typing import Any

from omi_edge.domain import AudioChunk, Codec
from omi_edge.store import audio, clients, export, inspect, settings
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from tests.helpers import START_US
from tests.store.filling import CONVERSATIONS, PACKET, SENTENCES, SOURCES

DERIVED = {"documents", "vectors"}
"""What is made of the rest, and can be made again."""


def told(conn: Connection, *, include_audio: bool = False) -> dict[str, Any]:
    document = json.loads("".join(export.document(conn, include_audio=include_audio)))
    assert isinstance(document, dict)
    return document


def test_it_names_its_schema_and_version(full_conn: Connection) -> None:
    document = told(full_conn)
    assert (document["schema"], document["version"]) == ("omi-edge.export", 1)
    assert document["vault_version"] == full_conn.execute("PRAGMA user_version").fetchone()[0]


def test_it_holds_every_row_of_every_table(full_conn: Connection) -> None:
    document = told(full_conn)
    rows = {name: len(value) for name, value in document.items() if isinstance(value, list)}
    counts = inspect.counts(full_conn)
    assert rows == {name: count for name, count in counts.items() if name not in DERIVED}
    assert all(counts.values()), "a table is empty: nothing is proved for it"


def test_no_table_of_the_schema_is_forgotten(full_conn: Connection) -> None:
    tables = {
        row[0]
        for row in full_conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if not row[0].startswith(("sqlite_", "documents_fts"))
    }
    assert tables - {"job_counts"} == set(inspect.TABLES)


def test_it_holds_every_column_but_secrets_and_inner_numbers(full_conn: Connection) -> None:
    document = told(full_conn, include_audio=True)
    renamed = {
        "source_n": "source_id",
        "conversation_n": "conversation_id",
        "version_n": "version_id",
        "correction_n": "correction_id",
        "upload_n": "upload_id",
        "data": "packets",
        "device_n": "address",
    }
    inner = {"n", "token_hash", "again", "not_before_us", "after"}
    for table, rows in document.items():
        if isinstance(rows, list):
            columns = {row[1] for row in full_conn.execute(f"PRAGMA table_info ({table})")}
            wanted = {renamed.get(column, column) for column in columns - inner}
            if table == "jobs":
                wanted -= {"source_id"}  # follows from the subject
            assert set(rows[0]) - {"n"} == wanted, table


def test_what_was_said_comes_out_with_its_words_and_proof(full_conn: Connection) -> None:
    document = told(full_conn)
    said = document["utterances"][0]
    assert (said["text"], said["start_us"], said["speaker"]) == (SENTENCES[0], START_US, "SPEAKER_00")
    assert [word["text"] for word in said["words"]] == SENTENCES[0].split()
    assert said["words"][0] == {"text": "the", "start_us": START_US, "end_us": START_US + 200_000, "confidence": 0.5}
    assert {row["conversation_id"] for row in document["segments"]} == set(CONVERSATIONS)
    things = {row["id"] for name in ("tasks", "memories") for row in document[name]}
    assert {row["thing_id"] for row in document["evidence"]} < things
    assert document["audit"][0]["ids"] == [CONVERSATIONS[0]]
    assert document["notices"][0]["subjects"] == ["seg_0"]
    assert document["people"][0]["is_user"] is True
    assert document["conversations"][0]["source_id"] == SOURCES[0]
    assert document["gaps"][0]["causes"] == ["out_of_range", "pendant_off"]
    assert [row["charging"] for row in document["device_battery"]] == [True, False, False]
    assert document["device_connections"][0]["address"] == document["devices"][0]["address"] == "AA:BB"
    assert {row["source_id"] for row in document["bookmarks"]} == {SOURCES[0]}
    assert document["withheld"][0]["kind"] == "muted"


def test_audio_is_listed_and_comes_along_when_asked_for(full_conn: Connection) -> None:
    packets = (b"\x00\xff", b"", bytes(range(200)))
    put = audio.put(full_conn, AudioChunk(SOURCES[0], START_US, Codec.OPUS_20MS, packets))
    without = told(full_conn)["audio_chunks"][-1]
    assert without["id"] == f"chk_{put.id}"
    assert (without["kind"], without["lost"], without["duration_us"]) == ("heard", 1, 60_000)
    assert "packets" not in without
    chunks = told(full_conn, include_audio=True)["audio_chunks"]
    assert tuple(base64.b64decode(text) for text in chunks[-1]["packets"]) == packets
    assert base64.b64decode(chunks[0]["packets"][0]) == PACKET


def test_no_token_nor_its_hash_comes_out(conn: Connection) -> None:
    _, token = clients.add(conn, "phone", "owner", START_US)
    text = "".join(export.document(conn))
    digest = conn.execute("SELECT token_hash FROM clients").fetchone()[0]
    assert token not in text
    assert digest.hex() not in text
    assert base64.b64encode(digest).decode() not in text


def test_any_text_stays_valid_json(conn: Connection) -> None:
    nasty = '"\\\n\r\t\0\x1b\u2028\u2029</script>🧠é'
    settings.put(conn, nasty, nasty)
    assert {row["key"]: row["value"] for row in told(conn)["settings"]}[nasty] == nasty


def test_an_empty_vault_is_a_whole_document(conn: Connection) -> None:
    document = told(conn, include_audio=True)
    assert [row["key"] for row in document["settings"]] == ["created_us"]
    assert document["audio_chunks"] == document["conversations"] == []


async def test_it_comes_in_pieces_and_a_reader_may_make_it(full: Database) -> None:
    pieces = await full.read(lambda conn: list(export.document(conn, include_audio=True)))
    assert len(pieces) > 50
    assert max(map(len, pieces)) < 20_000  # a chunk of audio is the largest
    assert json.loads("".join(pieces))["schema"] == export.SCHEMA

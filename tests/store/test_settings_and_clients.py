"""The small tables: settings, tokens of clients, people, notices."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from omi_edge.domain import Severity
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import clients, notices, people, settings
from omi_edge.store.connection import Connection
from tests.helpers import START_US
from tests.store.filling import undone

# --- settings -----------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.lists(st.tuples(texts, texts), max_size=8))
@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_settings_are_a_dictionary(conn: Connection, puts: list[tuple[str, str]]) -> None:
    with undone(conn):
        for key, value in puts:
            settings.put(conn, key, value)
        assert {key: settings.get(conn, key) for key, _ in puts} == dict(puts)
    assert settings.get(conn, "never put") is None


# --- clients ------------------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_only_its_hash_is_kept(conn: Connection) -> None:
    row, token = clients.add(conn, " phone ", "owner", START_US)
    assert (row.name, row.role, row.created_us, row.revoked_us) == ("phone", "owner", START_US, None)
    assert token.startswith("oe_")
    assert len(token) == len("oe_") + 43  # 32 bytes in base64
    stored = conn.execute("SELECT * FROM clients").fetchone()
    assert token not in map(str, stored)
    assert token.encode() not in stored
    assert clients.by_token(conn, token) == row
    for other in ("", "oe_", token[:-1], token + "x", token.upper(), row.id, "é"):
        assert clients.by_token(conn, other) is None


def test_tokens_differ(conn: Connection) -> None:
    tokens = {clients.add(conn, f"client {n}", "owner", START_US)[1] for n in range(10)}
    assert len(tokens) == 10


def test_a_revoked_token_is_dead_and_its_name_is_not_used_again(conn: Connection) -> None:
    row, token = clients.add(conn, "phone", "owner", START_US)
    _, other = clients.add(conn, "tablet", "owner", START_US + 1)
    clients.revoke(conn, row.id, START_US + 5)
    clients.revoke(conn, row.id, START_US + 9)
    assert clients.by_token(conn, token) is None
    assert clients.get(conn, row.id).revoked_us == START_US + 5
    assert clients.by_token(conn, other) is not None
    assert [one.name for one in clients.list_all(conn)] == ["phone", "tablet"]
    with pytest.raises(BadInput, match="not used again"):
        clients.add(conn, "Phone", "owner", START_US)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\0b", "\x1b[31m"])
def test_a_name_that_cannot_be_shown_is_refused(conn: Connection, name: str) -> None:
    with pytest.raises(BadInput) as refused:
        clients.add(conn, name, "owner", START_US)
    assert refused.value.field == "name"


def test_an_unknown_role_or_client_is_refused(conn: Connection) -> None:
    with pytest.raises(BadInput) as refused:
        clients.add(conn, "phone", "root", START_US)
    assert refused.value.field == "role"
    with pytest.raises(NotFound):
        clients.get(conn, "cli_x")
    with pytest.raises(NotFound):
        clients.revoke(conn, "cli_x", START_US)


# --- people -------------------------------------------------------------------------------------------------------


def test_people_are_known_by_one_name_each(conn: Connection) -> None:
    ada = people.add(conn, " Ada ", now_us=START_US, is_user=True)
    grace = people.add(conn, "Grace", now_us=START_US)
    assert (ada.name, ada.is_user, grace.is_user) == ("Ada", True, False)
    assert people.list_all(conn) == [ada, grace]
    for name in ("ada", " GRACE ", "", "  "):
        with pytest.raises(BadInput):
            people.add(conn, name, now_us=START_US)
        with pytest.raises(BadInput):
            people.rename(conn, ada.id, name if name != "ada" else "grace")
    assert people.rename(conn, ada.id, "ADA").name == "ADA"  # one's own name in another case is no clash
    assert people.rename(conn, ada.id, "Lovelace").name == "Lovelace"
    with pytest.raises(NotFound):
        people.get(conn, "per_x")
    with pytest.raises(NotFound):
        people.rename(conn, "per_x", "New")


# --- notices ------------------------------------------------------------------------------------------------------


def raised(conn: Connection, *subjects: str, code: str = "disk.low", at: int = 0, message: str = "m") -> str:
    notice = notices.raise_notice(
        conn, code=code, severity=Severity.WARNING, subject_ids=subjects, message=message, now_us=START_US + at
    )
    return notice.id


def test_the_same_notice_is_counted_not_repeated(conn: Connection) -> None:
    first = raised(conn, "src_b", "src_a")
    assert raised(conn, "src_a", "src_b", at=5, message="newer") == first
    (notice,) = notices.active(conn)
    assert (notice.count, notice.since_us, notice.last_us, notice.message) == (2, START_US, START_US + 5, "newer")
    assert notice.subject_ids == ("src_a", "src_b")
    assert notice.severity is Severity.WARNING
    assert raised(conn, "src_a") != first
    assert raised(conn, "src_a", "src_b", code="other") != first


def test_a_cleared_notice_is_gone_and_comes_back_as_a_new_one(conn: Connection) -> None:
    first = raised(conn, "src_a")
    other = raised(conn, at=1)
    notices.clear(conn, "disk.low", ["src_a"], START_US + 2)
    notices.clear(conn, "never raised", [], START_US + 2)
    assert [notice.id for notice in notices.active(conn)] == [other]
    again = raised(conn, "src_a", at=3)
    assert again != first
    assert [notice.id for notice in notices.active(conn)] == [other, again]  # the oldest first


def test_an_acknowledged_notice_stands_with_the_first_moment(conn: Connection) -> None:
    notice_id = raised(conn)
    assert notices.acknowledge(conn, notice_id, START_US + 5).acknowledged_us == START_US + 5
    assert notices.acknowledge(conn, notice_id, START_US + 9).acknowledged_us == START_US + 5
    assert [notice.id for notice in notices.active(conn)] == [notice_id]
    with pytest.raises(NotFound):
        notices.acknowledge(conn, "ntc_x", START_US)

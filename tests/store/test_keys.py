"""The key slots: one passphrase, two copies, no surprise."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.errors import OmiEdgeError, PassphraseError, VaultDamaged, VaultError, VaultMissing, VaultNewer
from omi_edge.store import keys
from tests.helpers import PASSPHRASE

BOTH = (keys.NAME, keys.SECOND_NAME)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def change(path: Path, **fields: Any) -> None:
    """Change fields of a slot file; ``slot_NAME`` changes one of the slot."""
    document = json.loads(path.read_bytes())
    for name, value in fields.items():
        if name.startswith("slot_"):
            document["slots"][0][name.removeprefix("slot_")] = value
        else:
            document[name] = value
    path.write_text(json.dumps(document))


def test_a_new_key_is_wrapped_at_the_documented_cost(tmp_path: Path) -> None:
    made = keys.create(tmp_path, PASSPHRASE)
    slot = keys.read(tmp_path)[0].slots[0]
    assert (slot.memory_kib, slot.rounds, slot.lanes) == (65536, 3, 4)  # RFC 9106 §4
    assert keys.unlock(tmp_path, PASSPHRASE) == made
    assert len(made.key) == 32
    assert len(made.raw) == len("x''") + 2 * (32 + 16)


def test_both_copies_are_alike_the_owner_s_alone_and_hold_neither_key_nor_passphrase(folder: Path) -> None:
    first, second = ((folder / name) for name in BOTH)
    assert first.read_bytes() == second.read_bytes()
    assert {path.stat().st_mode & 0o777 for path in (first, second)} == {0o600}
    key = keys.unlock(folder, PASSPHRASE).key
    for secret in (key, key.hex().encode(), base64.b64encode(key), PASSPHRASE.encode()):
        assert secret not in first.read_bytes()


def test_keys_and_salts_of_two_vaults_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "ARGON2_MEMORY_KIB", 32)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = keys.create(tmp_path / "a", PASSPHRASE), keys.create(tmp_path / "b", PASSPHRASE)
    assert a.key != b.key
    assert a.salt != b.salt
    assert keys.read(tmp_path / "a")[0].slots[0].nonce != keys.read(tmp_path / "b")[0].slots[0].nonce


@given(st.text(st.characters(codec=None), max_size=40).filter(lambda text: text != PASSPHRASE))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_passphrase_is_refused_in_one_sentence_and_changes_nothing(folder: Path, wrong: str) -> None:
    before = contents(folder)
    with pytest.raises(PassphraseError) as refused:
        keys.unlock(folder, wrong)
    assert str(refused.value) == "wrong passphrase. Nothing was changed; try again."
    assert contents(folder) == before


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage", "binary"])
def test_one_damaged_copy_is_mended_from_the_other(
    folder: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = (folder / name).read_bytes()
    path = folder / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "garbage": b'{"version": "x"}',
                          "binary": b"\xff\xfe\0"}[damage])  # fmt: skip
    before = contents(folder)
    with pytest.raises(PassphraseError):
        keys.unlock(folder, "wrong")
    assert contents(folder) == before
    with caplog.at_level(logging.WARNING, logger=keys.log.name):
        key = keys.unlock(folder, PASSPHRASE)
    assert len(key.key) == 32
    assert path.read_bytes() == whole
    assert "mended" in caplog.text
    assert keys.read(folder)[1] == ""


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("field", ["salt", "slot_salt", "slot_nonce", "slot_wrapped"])
def test_a_copy_that_reads_well_but_holds_a_flipped_bit_does_not_lock_the_owner_out(
    folder: Path, name: str, field: str
) -> None:
    whole = (folder / name).read_bytes()
    if field == "salt":
        change(folder / name, salt="00" * 16)
    else:
        length = {"slot_salt": 16, "slot_nonce": 12, "slot_wrapped": 48}[field]
        change(folder / name, **{field: base64.b64encode(bytes(length)).decode()})
    keys.unlock(folder, PASSPHRASE)
    assert (folder / name).read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        {"salt": "00"},
        {"salt": "zz" * 16},
        {"slots": []},
        {"slot_salt": "!!!"},
        {"slot_nonce": ""},
        {"slot_wrapped": base64.b64encode(bytes(47)).decode()},
        {"slot_memory_kib": 0},
        {"slot_memory_kib": 1 << 40},
        {"slot_rounds": 0},
        {"slot_rounds": 1 << 31},
        {"slot_lanes": 0},
        {"slot_lanes": 1 << 20},
        {"slots": [{"kind": "other"}]},
        {"surprise": 1},
    ],
)
def test_damage_in_both_copies_is_one_of_our_errors_and_nothing_is_written(
    folder: Path, damage: dict[str, Any]
) -> None:
    for name in BOTH:
        change(folder / name, **damage)
    before = contents(folder)
    with pytest.raises((VaultDamaged, PassphraseError)):
        keys.unlock(folder, PASSPHRASE)
    assert contents(folder) == before


@given(st.integers(min_value=0), st.integers(0, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_of_both_copies_ends_in_our_errors_or_in_the_right_key(
    folder: Path, empty_vault: Path, where: int, value: int
) -> None:
    whole = (empty_vault / keys.NAME).read_bytes()
    changed = bytearray(whole)
    changed[where % len(whole)] = value
    for name in BOTH:
        (folder / name).write_bytes(changed)
    try:
        found = keys.unlock(folder, PASSPHRASE)
    except OmiEdgeError:
        return
    assert found == keys.unlock(empty_vault, PASSPHRASE)


@given(st.binary(max_size=200))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_both_copies_end_in_our_errors(folder: Path, data: bytes) -> None:
    for name in BOTH:
        (folder / name).write_bytes(data)
    with pytest.raises(VaultError):
        keys.unlock(folder, PASSPHRASE)


def test_both_copies_damaged_names_the_cure(folder: Path) -> None:
    for name in BOTH:
        (folder / name).write_bytes(b"{")
    with pytest.raises(VaultDamaged, match=r"keyslots\.json back from a backup"):
        keys.unlock(folder, PASSPHRASE)


@pytest.mark.parametrize("extra", [{}, {"a_field_of_the_future": {"x": 1}}])
@pytest.mark.parametrize("names", [BOTH, BOTH[:1], BOTH[1:]])
def test_slots_of_a_newer_program_are_refused_and_left_alone(
    folder: Path, names: tuple[str, ...], extra: dict[str, Any]
) -> None:
    for name in names:
        change(folder / name, version=keys.VERSION + 1, **extra)
    before = contents(folder)
    with pytest.raises(VaultNewer, match="Update this one"):
        keys.unlock(folder, PASSPHRASE)
    assert contents(folder) == before


def test_a_slot_of_another_kind_is_passed_over(folder: Path) -> None:
    slots = keys.read(folder)[0]
    other = keys.Slot("keychain", slots.slots[0].salt, 8, 1, 1, slots.slots[0].nonce, slots.slots[0].wrapped)
    keys.write(folder, keys.Keyslots(slots.version, slots.vault, slots.salt, slots.cipher, (other, *slots.slots)))
    assert len(keys.unlock(folder, PASSPHRASE).key) == 32


def test_the_cipher_settings_cannot_be_weakened_unseen(folder: Path) -> None:
    for name in BOTH:
        change(folder / name, cipher={"page_size": 4096, "hmac_algorithm": "HMAC_SHA1", "kdf_algorithm": "x"})
    with pytest.raises(PassphraseError):
        keys.unlock(folder, PASSPHRASE)


def test_no_slots_at_all_is_a_missing_vault(tmp_path: Path) -> None:
    with pytest.raises(VaultMissing, match="omi-edge init"):
        keys.unlock(tmp_path, PASSPHRASE)


def test_a_copy_that_cannot_be_mended_does_not_keep_the_owner_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / keys.SECOND_NAME).unlink()
    (folder / (keys.NAME + ".new")).mkdir()  # so that the mending write fails
    with caplog.at_level(logging.WARNING, logger=keys.log.name):
        assert len(keys.unlock(folder, PASSPHRASE).key) == 32
    assert "could not be mended" in caplog.text


def test_key_slots_of_another_vault_never_take_the_place_of_the_right_ones(tmp_path: Path) -> None:
    """Put back from the wrong backup; the passphrase is the same."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    right = keys.create(mine, PASSPHRASE)
    keys.create(other, PASSPHRASE)
    kept = (mine / keys.SECOND_NAME).read_bytes()
    (mine / keys.NAME).write_bytes((other / keys.NAME).read_bytes())
    with pytest.raises(VaultDamaged, match="of another vault"):
        keys.unlock(mine, PASSPHRASE, lambda _: False)
    assert (mine / keys.SECOND_NAME).read_bytes() == kept
    assert keys.unlock(mine, PASSPHRASE, lambda key: key == right) == right
    assert (mine / keys.NAME).read_bytes() == kept

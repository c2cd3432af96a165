"""The key of the vault: a random data key, wrapped by a passphrase, in a small authenticated file kept twice.

``keyslots.json`` and ``keyslots.bak.json`` hold no secret that can be used without the passphrase, but without one of
them the vault can never be opened again. They also keep the file's salt and cipher settings: one flipped bit in the
salt inside the database would otherwise make the whole file unreadable.
"""

from __future__ import annotations

import base64
import logging
import os
import secrets
from pathlib import Path

import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from omi_edge.errors import PassphraseError, VaultDamaged, VaultMissing, VaultNewer

log = logging.getLogger(__name__)

NAME, SECOND_NAME = "keyslots.json", "keyslots.bak.json"
VERSION = 1
ARGON2_MEMORY_KIB = 64 * 1024
ARGON2_ROUNDS = 3
ARGON2_LANES = 4
"""RFC 9106 §4, second recommended option: Argon2id, 64 MiB, t=3, p=4."""
KEY_BYTES, SALT_BYTES, NONCE_BYTES = 32, 16, 12


class Cipher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SQLCipher settings of the file, pinned at its creation (SQLCipher 4 defaults, but for the page size)."""

    page_size: int = 4096
    hmac_algorithm: str = "HMAC_SHA512"
    kdf_algorithm: str = "PBKDF2_HMAC_SHA512"


class Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to the data key."""

    kind: str
    salt: str
    memory_kib: int
    rounds: int
    lanes: int
    nonce: str
    wrapped: str


class Keyslots(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; what the slots authenticate is everything but themselves."""

    version: int
    vault: str
    salt: str
    """Salt of the database file."""
    cipher: Cipher
    slots: tuple[Slot, ...]


class VaultKey(msgspec.Struct, frozen=True):
    """What opens the database."""

    key: bytes
    salt: bytes
    cipher: Cipher

    @property
    def raw(self) -> str:
        """The key and salt as SQLCipher takes them."""
        return f"x'{self.key.hex()}{self.salt.hex()}'"


def create(folder: Path, passphrase: str) -> VaultKey:
    """Make a data key and write both copies of the slot file."""
    slots = Keyslots(VERSION, secrets.token_hex(16), secrets.token_hex(SALT_BYTES), Cipher(), ())
    key = secrets.token_bytes(KEY_BYTES)
    write(folder, msgspec.structs.replace(slots, slots=(_wrap(slots, key, passphrase),)))
    return VaultKey(key, bytes.fromhex(slots.salt), slots.cipher)


def unlock(folder: Path, passphrase: str) -> VaultKey:
    """Return the data key. Raises PassphraseError, VaultMissing, VaultDamaged or VaultNewer; changes nothing."""
    slots, damaged = read(folder)
    for slot in slots.slots:
        if slot.kind != "passphrase":
            continue
        try:
            key = AESGCM(_stretch(passphrase, slot)).decrypt(
                _bytes(slot.nonce), _bytes(slot.wrapped), _authenticated(slots)
            )
        except InvalidTag:
            continue
        if damaged:
            log.warning("a damaged copy of the key slots was mended", extra={"file": damaged})
            write(folder, slots)
        return VaultKey(key, bytes.fromhex(slots.salt), slots.cipher)
    raise PassphraseError("wrong passphrase. Nothing was changed; try again.")


def read(folder: Path) -> tuple[Keyslots, str]:
    """Return the slots from the first readable copy, and the name of a copy that could not be read or differs."""
    found: dict[str, Keyslots] = {}
    problems: dict[str, Exception] = {}
    for name in (NAME, SECOND_NAME):
        try:
            found[name] = _parse((folder / name).read_bytes())
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            problems[name] = error
    if not found:
        if all(isinstance(error, FileNotFoundError) for error in problems.values()):
            raise VaultMissing(f"there is no vault in {folder}. `omi-edge init` makes one.")
        raise VaultDamaged(
            f"both copies of the key slots in {folder} are damaged. Put {NAME} back from a backup; "
            "without it the vault cannot be opened."
        )
    newest = next(iter(found.values()))
    if newest.version > VERSION:
        raise VaultNewer(f"the key slots in {folder} were written by a newer omi-edge. Update this one.")
    differing = [name for name in (NAME, SECOND_NAME) if found.get(name) != newest]
    return newest, differing[0] if differing else ""


def write(folder: Path, slots: Keyslots) -> None:
    """Write both copies, each by rename, so that a whole one exists at any moment."""
    data = msgspec.json.format(msgspec.json.encode(slots), indent=1)
    for name in (NAME, SECOND_NAME):
        new = folder / (name + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / name)
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse(data: bytes) -> Keyslots:
    slots = msgspec.json.decode(data, type=Keyslots)
    if len(bytes.fromhex(slots.salt)) != SALT_BYTES:
        raise ValueError("salt")
    return slots


def _wrap(slots: Keyslots, key: bytes, passphrase: str) -> Slot:
    nonce = secrets.token_bytes(NONCE_BYTES)
    slot = Slot(
        "passphrase", _text(secrets.token_bytes(SALT_BYTES)), ARGON2_MEMORY_KIB, ARGON2_ROUNDS, ARGON2_LANES,
        _text(nonce), "",
    )  # fmt: skip
    wrapped = AESGCM(_stretch(passphrase, slot)).encrypt(nonce, key, _authenticated(slots))
    return msgspec.structs.replace(slot, wrapped=_text(wrapped))


def _authenticated(slots: Keyslots) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(slots, slots=()))


def _stretch(passphrase: str, slot: Slot) -> bytes:
    return hash_secret_raw(
        passphrase.encode(), _bytes(slot.salt), time_cost=slot.rounds, memory_cost=slot.memory_kib,
        parallelism=slot.lanes, hash_len=KEY_BYTES, type=Type.ID,
    )  # fmt: skip


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)

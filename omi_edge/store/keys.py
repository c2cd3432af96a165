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
from collections.abc import Callable
from pathlib import Path

import msgspec
from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from omi_edge.errors import PassphraseError, VaultDamaged, VaultError, VaultMissing, VaultNewer

log = logging.getLogger(__name__)

NAME, SECOND_NAME = "keyslots.json", "keyslots.bak.json"
VERSION = 1
ARGON2_MEMORY_KIB = 64 * 1024
ARGON2_ROUNDS = 3
ARGON2_LANES = 4
"""RFC 9106 §4, second recommended option: Argon2id, 64 MiB, t=3, p=4."""
KEY_BYTES, SALT_BYTES, NONCE_BYTES = 32, 16, 12
TAG_BYTES = 16
MOST_MEMORY_KIB, MOST_ROUNDS, MOST_LANES = 4 * 1024 * 1024, 1000, 64
"""A slot that asks for more is damaged: nobody waits for hours, or for memory that is not there, on a flipped bit."""


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


class _Version(msgspec.Struct, frozen=True):
    """The one field that every version of the file has."""

    version: int


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


def unlock(folder: Path, passphrase: str, fits: Callable[[VaultKey], bool] = lambda _: True) -> VaultKey:
    """Return the data key. Raises PassphraseError, VaultMissing, VaultDamaged or VaultNewer; changes nothing then.

    ``fits`` says whether a key opens the vault: one of the copies may be of another vault with the same passphrase. A
    copy of the slots that is damaged, or does not open while the other does, is written anew.
    """
    found = _copies(folder)
    misfits = 0
    for slots in dict.fromkeys(found.values()):
        unwrapped = _unwrap(slots, passphrase)
        if unwrapped is None:
            continue
        key = VaultKey(unwrapped, bytes.fromhex(slots.salt), slots.cipher)
        if not fits(key):
            misfits += 1
            continue
        damaged = [name for name in (NAME, SECOND_NAME) if found.get(name) != slots]
        if damaged:
            _mend(folder, slots, damaged)
        return key
    if misfits:
        raise VaultDamaged(
            f"the vault in {folder} does not open with its key slots: either vault.db is damaged, or {NAME} is of "
            "another vault. Put both back from the same backup; nothing was changed."
        )
    raise PassphraseError("wrong passphrase. Nothing was changed; try again.")


def read(folder: Path) -> tuple[Keyslots, str]:
    """Return the slots from the first readable copy, and the name of a copy that could not be read or differs."""
    found = _copies(folder)
    first = next(iter(found.values()))
    differing = [name for name in (NAME, SECOND_NAME) if found.get(name) != first]
    return first, differing[0] if differing else ""


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


def _copies(folder: Path) -> dict[str, Keyslots]:
    """Return the copies that can be read, at least one."""
    found: dict[str, Keyslots] = {}
    problems: list[Exception] = []
    for name in (NAME, SECOND_NAME):
        try:
            data = (folder / name).read_bytes()
            newer = msgspec.json.decode(data, type=_Version).version > VERSION
            if not newer:
                found[name] = _parse(data)
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            problems.append(error)
        else:
            if newer:  # even beside an older copy: that one may be what the newer program left behind
                raise VaultNewer(f"the key slots in {folder} were written by a newer omi-edge. Update this one.")
    if found:
        return found
    if all(isinstance(error, FileNotFoundError | NotADirectoryError) for error in problems):
        raise VaultMissing(f"there is no vault in {folder}. `omi-edge init` makes one.")
    for problem in problems:
        if isinstance(problem, PermissionError):
            raise VaultError(f"the key slots in {folder} may not be read: {problem.strerror}. Check who owns them.")
    raise VaultDamaged(
        f"both copies of the key slots in {folder} are damaged. Put {NAME} back from a backup; "
        "without it the vault cannot be opened."
    )


def _parse(data: bytes) -> Keyslots:
    """Return the slots. Raises ValueError or msgspec.MsgspecError for what this program cannot have written."""
    slots = msgspec.json.decode(data, type=Keyslots)
    if len(bytes.fromhex(slots.salt)) != SALT_BYTES:
        raise ValueError("salt")
    for slot in slots.slots:
        lengths = len(_bytes(slot.salt)), len(_bytes(slot.nonce)), len(_bytes(slot.wrapped))
        if lengths != (SALT_BYTES, NONCE_BYTES, KEY_BYTES + TAG_BYTES):
            raise ValueError("slot")
        if not (
            1 <= slot.lanes <= MOST_LANES
            and 1 <= slot.rounds <= MOST_ROUNDS
            and 8 * slot.lanes <= slot.memory_kib <= MOST_MEMORY_KIB  # RFC 9106 §3.1: at least 8 KiB a lane
        ):
            raise ValueError("cost")
    return slots


def _mend(folder: Path, slots: Keyslots, damaged: list[str]) -> None:
    try:
        write(folder, slots)
    except OSError:  # a full or read-only disk must not keep the owner out
        log.warning("a damaged copy of the key slots could not be mended", extra={"file": damaged[0]})
    else:
        log.warning("a damaged copy of the key slots was mended", extra={"file": damaged[0]})


def _unwrap(slots: Keyslots, passphrase: str) -> bytes | None:
    """Return the data key, None when no slot opens."""
    for slot in slots.slots:
        if slot.kind == "passphrase":
            try:
                return AESGCM(_stretch(passphrase, slot)).decrypt(
                    _bytes(slot.nonce), _bytes(slot.wrapped), _authenticated(slots)
                )
            except InvalidTag:
                continue
            except HashingError as error:
                raise VaultError(
                    f"the passphrase could not be tried: it takes {slot.memory_kib // 1024} MiB of memory."
                ) from error
    return None


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
        passphrase.encode("utf-8", "surrogatepass"), _bytes(slot.salt), time_cost=slot.rounds,
        memory_cost=slot.memory_kib, parallelism=slot.lanes, hash_len=KEY_BYTES, type=Type.ID,
    )  # fmt: skip


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)

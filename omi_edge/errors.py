"""Every error of omi-edge, each with a sentence a person can act on, an exit code and an HTTP status.

OmiEdgeError
├─ UsageError               the call itself is off
│  ├─ ConfigError           config.toml or an OMI_EDGE_ variable
│  ├─ BadInput              a value, query or body that cannot be used
│  │  └─ Conflict           it cannot be done as things stand
│  │     └─ AudioReleased   what it needs to hear is no longer kept
│  ├─ TooLarge              a body beyond the limit
│  └─ NotFound              no such conversation, task, …
├─ AccessError              who may do what
│  ├─ PassphraseError       missing, wrong or unsafe passphrase
│  ├─ Unauthorized          no valid token
│  ├─ Forbidden             a valid token without the right
│  ├─ AuditUnavailable      the act could not be audited, so it was refused
│  ├─ LicenceNotAccepted    of a model
│  └─ HubTokenNeeded        a model that its owner gives to known accounts only
├─ VaultError               the encrypted file
│  ├─ VaultMissing
│  ├─ VaultExists
│  ├─ VaultDamaged
│  ├─ VaultNewer            written by a newer program
│  ├─ VaultBusy             another process holds it
│  └─ DiskFull
├─ AudioError               audio that cannot be read
├─ EngineError              a model process
│  ├─ EngineTransient       try again soon: crashed, hung, out of memory
│  └─ EnginePermanent       trying again cannot help
│     └─ ModelError         the files of a model
│        ├─ ModelMissing    not installed, or a file of it is gone
│        ├─ ModelTruncated  a file of it is too short
│        ├─ ModelAltered    a file of it is not what it was
│        ├─ ModelRefused    what a hub or an archive brought is not what it should be
│        ├─ ModelSpace      no room on the disk for it
│        └─ HubError        the model hub cannot be reached, or refused
├─ LinkError                the pendant
│  ├─ LinkLost
│  ├─ PendantAbsent         nobody advertises under this address
│  ├─ BondLost              the pendant forgot the pairing
│  ├─ PairingFailed
│  ├─ NotEncrypted          the pendant, or the owner's policy, wants an encrypted link
│  ├─ AttRefused            the pendant refused a read or a write
│  ├─ BadPeripheral         it does not speak as a pendant does
│  └─ LinkUnavailable       Bluetooth cannot be used on this machine
│     ├─ BluetoothOff
│     ├─ NoAdapter
│     ├─ NoBluetoothService
│     └─ NoBluetoothPermission
├─ MicrophoneError          a microphone of this machine: no library, no sound system
│  └─ MicrophoneAbsent      unplugged, held by another program, or none of this name
└─ DaemonError              the daemon itself
   ├─ AlreadyRunning
   ├─ NotReady              starting, locked or stopping
   └─ PortInUse

Exit codes: 0 done, 1 failed, 2 wrong call, 3 access refused, 4 not found, 5 vault, 6 input audio, 7 engine,
8 device, 9 daemon, 130 interrupted.
"""

from __future__ import annotations

from typing import ClassVar


class OmiEdgeError(Exception):
    """Base of all errors; ``str(error)`` names cause and cure and never holds content."""

    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    """Stable last part of the problem type in API answers."""


class UsageError(OmiEdgeError):
    """The call itself is off."""

    exit_code, status, slug = 2, 400, "usage"


class ConfigError(UsageError):
    """A setting that is unknown or cannot be used."""

    slug = "config"


class BadInput(UsageError):
    """A value, query or body that cannot be used; ``field`` names it when it is one."""

    slug = "bad-input"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Conflict(BadInput):
    """It cannot be done as things stand; later, or after something else, it can."""

    status, slug = 409, "conflict"


class AudioReleased(Conflict):
    """The audio that would have to be heard is no longer kept."""

    exit_code, slug = 6, "audio-released"


class TooLarge(UsageError):
    """A body that is longer than what is taken."""

    status, slug = 413, "too-large"


class NotFound(UsageError):
    """No such thing, or not for this client."""

    exit_code, status, slug = 4, 404, "not-found"


class AccessError(OmiEdgeError):
    """Somebody may not do this."""

    exit_code, status, slug = 3, 403, "access"


class PassphraseError(AccessError):
    """The passphrase is missing, wrong or kept unsafely."""

    slug = "passphrase"


class Unauthorized(AccessError):
    """No valid token came with the request."""

    status, slug = 401, "unauthorized"


class Forbidden(AccessError):
    """The token is valid but does not carry this right."""

    slug = "forbidden"


class AuditUnavailable(AccessError):
    """The audit row could not be written, so the act was refused."""

    status, slug = 503, "audit-unavailable"


class LicenceNotAccepted(AccessError):
    """The licence of a model was not accepted."""

    slug = "licence"


class HubTokenNeeded(AccessError):
    """The owner of a model gives it to known accounts only."""

    slug = "hub-token"


class VaultError(OmiEdgeError):
    """The encrypted file cannot be used."""

    exit_code, status, slug = 5, 503, "vault"


class VaultMissing(VaultError):
    """There is no vault in this data folder."""

    slug = "vault-missing"


class VaultExists(VaultError):
    """There is a vault in this data folder already."""

    status, slug = 409, "vault-exists"


class VaultDamaged(VaultError):
    """The file, or its key slots, do not pass their checks."""

    slug = "vault-damaged"


class VaultNewer(VaultError):
    """The file was written by a newer program."""

    slug = "vault-newer"


class VaultBusy(VaultError):
    """Another process holds the vault."""

    slug = "vault-busy"


class DiskFull(VaultError):
    """No space for a write; what was to be written is kept in memory and tried again."""

    status, slug = 507, "disk-full"


class AudioError(OmiEdgeError):
    """Audio that cannot be read."""

    exit_code, status, slug = 6, 422, "audio"


class EngineError(OmiEdgeError):
    """A model process failed."""

    exit_code, status, slug = 7, 503, "engine"


class EngineTransient(EngineError):
    """It crashed, hung or ran out of memory: trying again can help."""

    slug = "engine-transient"


class EnginePermanent(EngineError):
    """Trying again cannot help."""

    slug = "engine-permanent"


class ModelError(EnginePermanent):
    """The files of a model: the base of what can be wrong with them."""

    slug = "model"


class ModelMissing(ModelError):
    """The model is not installed, or a file of it is gone."""

    slug = "model-missing"


class ModelTruncated(ModelError):
    """A file of the model is shorter than it should be."""

    slug = "model-truncated"


class ModelAltered(ModelError):
    """A file of the model is not what was installed, or does not belong there."""

    slug = "model-altered"


class ModelRefused(ModelError):
    """What a hub or an archive brought is not what it should be; nothing was installed."""

    slug = "model-refused"


class ModelSpace(ModelError):
    """The disk has no room for the model."""

    status, slug = 507, "model-space"


class HubError(ModelError):
    """The model hub cannot be reached, is not who it says it is, or refused."""

    slug = "hub"


class LinkError(OmiEdgeError):
    """The Bluetooth link failed."""

    exit_code, status, slug = 8, 503, "link"


class LinkLost(LinkError):
    """The link to the pendant is gone."""

    slug = "link-lost"


class PendantAbsent(LinkError):
    """No pendant advertises, or not the one that was meant."""

    slug = "pendant-absent"


class BondLost(LinkError):
    """This side has keys that the pendant no longer knows."""

    slug = "bond-lost"


class PairingFailed(LinkError):
    """Pairing was refused, timed out or cannot be done by a program here."""

    slug = "pairing-failed"


class NotEncrypted(LinkError):
    """The pendant, or the owner's policy, wants an encrypted link and this one is open."""

    slug = "not-encrypted"


class AttRefused(LinkError):
    """The pendant answered a read or a write with an ATT error."""

    slug = "att-refused"

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        """ATT error code (Bluetooth Core specification, Vol 3, Part F, §3.4.1.1)."""


class BadPeripheral(LinkError):
    """What answers does not speak as a pendant does: wrong services, absurd values."""

    slug = "bad-peripheral"


class LinkUnavailable(LinkError):
    """Bluetooth cannot be used on this machine now."""

    slug = "link-unavailable"


class BluetoothOff(LinkUnavailable):
    """The adapter is there but switched off."""

    slug = "bluetooth-off"


class NoAdapter(LinkUnavailable):
    """There is no Bluetooth adapter, or not the configured one."""

    slug = "no-adapter"


class NoBluetoothService(LinkUnavailable):
    """bluetoothd does not run."""

    slug = "no-bluetooth-service"


class NoBluetoothPermission(LinkUnavailable):
    """The system does not let this program use Bluetooth."""

    slug = "no-bluetooth-permission"


class MicrophoneError(OmiEdgeError):
    """The microphones of this machine cannot be used."""

    exit_code, status, slug = 8, 503, "microphone"


class MicrophoneAbsent(MicrophoneError):
    """The microphone is not there, or cannot be opened now."""

    slug = "microphone-absent"


class DaemonError(OmiEdgeError):
    """The daemon cannot do this now."""

    exit_code, status, slug = 9, 503, "daemon"


class AlreadyRunning(DaemonError):
    """Another daemon, or another command, holds this data folder."""

    status, slug = 409, "already-running"


class NotReady(DaemonError):
    """Starting, locked or stopping."""

    slug = "not-ready"


class PortInUse(DaemonError):
    """The configured port is taken."""

    slug = "port-in-use"

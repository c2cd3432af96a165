"""config.toml: every setting with its default, read strictly.

Order of precedence: built-in default, then the file, then ``OMI_EDGE_SECTION_KEY`` in the environment. Secrets are
never settings; only where to find the passphrase is.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from omi_edge.errors import ConfigError
from omi_edge.validation import explained
from omi_edge.wyoming import DEFAULT_PORT, IpAddress, address_of, is_near, place_of

PREFIX = "OMI_EDGE_"
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
HAPTIC_PATTERN = "^(bookmark|mute|resume|conversation|off_record|battery_low):[1-3]$"
"""An event and how strongly the pendant vibrates for it (protocol dossier §4.5)."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the sections: an unknown key is an error."""


class VaultConfig(Section, frozen=True):
    """[vault]"""

    passphrase_file: str = ""
    passphrase_command: str = ""


class AudioConfig(Section, frozen=True):
    """[audio]"""

    keep_silence: Annotated[float, Meta(ge=0)] = 0.0
    chunk: Annotated[float, Meta(ge=0.2, le=2.0)] = 2.0
    crop_padding: Annotated[float, Meta(ge=0, le=2)] = 0.1
    crop_minimum: Annotated[float, Meta(ge=0, le=30)] = 1.0


Act = Annotated[str, Meta(pattern="^(nothing|bookmark|mute|conversation|off_record)$")]


class DeviceConfig(Section, frozen=True):
    """[device]"""

    bluetooth: bool = True
    adapter: str = ""
    require_encryption: Annotated[str, Meta(pattern="^(off|prefer|require)$")] = "prefer"
    single_tap: Act = "nothing"
    double_tap: Act = "bookmark"
    long_press: Act = "nothing"
    haptics: tuple[Annotated[str, Meta(pattern=HAPTIC_PATTERN)], ...] = ()
    battery_low: Annotated[int, Meta(ge=1, le=99)] = 20
    battery_critical: Annotated[int, Meta(ge=1, le=99)] = 8
    off_record: Annotated[float, Meta(ge=10, le=86_400)] = 1800.0


class MicrophoneConfig(Section, frozen=True):
    """[microphone]"""

    device: str = ""


class ListenConfig(Section, frozen=True):
    """[listen]"""

    recognizer: str = "pocketsphinx"
    model: str = "whisper-small"
    language: Annotated[str, Meta(pattern="^([a-z]{2,3})?$")] = ""
    beam: Annotated[int, Meta(ge=1, le=10)] = 5
    compute_type: Annotated[str, Meta(pattern="^(int8|int8_float32|int16|float32|auto)$")] = "int8"
    final: str = ""
    batch: Annotated[int, Meta(ge=1, le=32)] = 1
    diarizer: str = "builtin"
    vad_open: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    vad_close: Annotated[float, Meta(gt=0, lt=1)] = 0.35

    @property
    def best(self) -> str:
        """The recogniser that hears best of those that are configured: what transcribes anew."""
        return self.final or self.recognizer


class ConversationConfig(Section, frozen=True):
    """[conversation]"""

    silence: Annotated[float, Meta(ge=2, le=14_400)] = 120.0
    max_length: Annotated[float, Meta(ge=60, le=86_400)] = 14_400.0


class MemoryConfig(Section, frozen=True):
    """[memory]"""

    extractor: str = "builtin"
    embedder: str = "builtin"
    trigger_phrases: tuple[str, ...] = ("remind me to", "note to self", "add a task")


class WearerConfig(Section, frozen=True):
    """[wearer]"""

    name: str = ""
    time_zone: str = ""


class EngineConfig(Section, frozen=True):
    """[engine]"""

    idle: Annotated[float, Meta(ge=1)] = 300.0
    call_limit: Annotated[float, Meta(ge=1)] = 300.0
    threads: Annotated[int, Meta(ge=1, le=64)] = 2
    when: Annotated[str, Meta(pattern="^(idle|always|schedule)$")] = "idle"
    hours: str = "22:00-06:00"
    quiet: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    cool: Annotated[float, Meta(ge=0, le=150)] = 0.0
    on_battery: bool = False


class ModelsConfig(Section, frozen=True):
    """[models]"""

    folder: str = ""
    endpoint: str = "https://huggingface.co"
    proxy: str = ""
    ca_file: str = ""
    token_file: str = ""


class WebConfig(Section, frozen=True):
    """[web]"""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8460


class WyomingConfig(Section, frozen=True):
    """[wyoming]"""

    uri: str = ""
    model: str = ""
    timeout: Annotated[float, Meta(ge=1, le=300)] = 30.0
    serve: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = DEFAULT_PORT
    lan: bool = False
    announce: bool = True


class LogConfig(Section, frozen=True):
    """[log]"""

    format: Annotated[str, Meta(pattern="^(text|json)$")] = "text"
    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"


class Config(Section, frozen=True):
    """The whole file."""

    vault: VaultConfig = VaultConfig()
    device: DeviceConfig = DeviceConfig()
    microphone: MicrophoneConfig = MicrophoneConfig()
    audio: AudioConfig = AudioConfig()
    listen: ListenConfig = ListenConfig()
    conversation: ConversationConfig = ConversationConfig()
    memory: MemoryConfig = MemoryConfig()
    wearer: WearerConfig = WearerConfig()
    engine: EngineConfig = EngineConfig()
    models: ModelsConfig = ModelsConfig()
    web: WebConfig = WebConfig()
    wyoming: WyomingConfig = WyomingConfig()
    log: LogConfig = LogConfig()


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> Config:
    """Return the settings in force.

    Raises ConfigError with the nearest known name for an unknown key, and with the allowed range for a bad value.
    """
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}. Check --config.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}.") from error
        _check_names(document, str(path))
    _overlay(document, os.environ if environment is None else environment)
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        key, wanted = explained(error)
        raise ConfigError(
            f"{key or 'a setting'} must be {wanted}; `omi-edge config show` lists all settings."
        ) from error
    if config.listen.vad_close > config.listen.vad_open:
        raise ConfigError("listen.vad_close must not be above listen.vad_open.")
    if config.device.battery_critical > config.device.battery_low:
        raise ConfigError("device.battery_critical must not be above device.battery_low.")
    if config.device.require_encryption == "require" and sys.platform == "darwin":
        raise ConfigError(
            'device.require_encryption = "require" cannot be kept on macOS: the system does not tell a program whether '
            'a link is encrypted. Use "prefer".'
        )
    _check_models(config.models)
    night(config.engine)
    zone(config)
    loopback(config.web.host)
    _check_wyoming(config)
    return config


def zone(config: Config) -> ZoneInfo:
    """Return the wearer's time zone: ``wearer.time_zone``, else the machine's, else UTC."""
    name = config.wearer.time_zone or _machine_zone()
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(f"wearer.time_zone {name!r} is not known; use a name like Europe/Berlin.") from error


def night(engine: EngineConfig) -> tuple[int, int]:
    """Return from when until when heavy work may run, in minutes of the wearer's day. Raises ConfigError.

    The second is before the first where the hours cross midnight.
    """
    found = _HOURS.fullmatch(engine.hours)
    if found is None:
        raise ConfigError('engine.hours must be two times of the day like "22:00-06:00".')
    first, last = (int(found[n]) * 60 + int(found[n + 1]) for n in (1, 3))
    if first == last:
        raise ConfigError('engine.hours must be two different times; for the whole day set engine.when = "idle".')
    return first, last


def loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address that ``web.host`` names. Raises ConfigError for one that is not this machine's own."""
    name = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ConfigError("web.host must be an address of this machine alone, 127.0.0.1 or ::1.")
    return address


def serves_at(settings: WyomingConfig) -> IpAddress:
    """Return the address of this machine that the Wyoming server takes connections at.

    Raises ConfigError for one that is none, and for one beyond loopback unless ``wyoming.lan`` allows that.
    """
    address = address_of(settings.host.strip("[]"))
    if address is None or not (is_near(address) or address.is_unspecified):
        raise ConfigError(
            "wyoming.host must be a private address of this machine, 127.0.0.1 for this machine alone, or 0.0.0.0 for "
            "all of its addresses."
        )
    if not address.is_loopback and not settings.lan:
        raise ConfigError(
            f"wyoming.host = {settings.host!r} opens speech recognition to everybody on the LAN, for Wyoming knows no "
            "passwords. If that is meant, set wyoming.lan = true."
        )
    return address


def _check_wyoming(config: Config) -> None:
    settings = config.wyoming
    if config.listen.recognizer == "wyoming" and not settings.uri:
        raise ConfigError("wyoming.uri must name the server that listen.recognizer asks for, tcp://192.168.1.20:10300.")
    serving = serves_at(settings) if settings.serve else None
    if not settings.uri:
        return
    place = place_of(settings.uri)
    other = address_of(place.host)
    if serving is None or other is None or place.port != settings.port:
        return
    if other == serving or (other.is_loopback and (serving.is_loopback or serving.is_unspecified)):
        raise ConfigError("wyoming.uri names this omi-edge itself; name another server, or another wyoming.port.")


def _check_models(models: ModelsConfig) -> None:
    for key, text, schemes in (("endpoint", models.endpoint, ("https",)), ("proxy", models.proxy, ("http", "https"))):
        if not text and key == "proxy":
            continue
        try:
            parts = urlsplit(text)
            whole = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            whole = False
        if not whole or parts.query or parts.fragment:
            raise ConfigError(f"models.{key} must be an address like {schemes[0]}://host or {schemes[0]}://host:port.")
        if parts.username or parts.password:
            raise ConfigError(f"models.{key} must not hold a name or password: secrets never stand in the settings.")


def known_keys() -> dict[str, Any]:
    """Return every ``section.key`` with its default."""
    return {
        f"{section.name}.{field.name}": field.default
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    }


def _check_names(document: dict[str, Any], where: str) -> None:
    known = known_keys()
    sections = {key.split(".")[0] for key in known}
    for section, table in document.items():
        if section not in sections:
            raise ConfigError(f"{where}: unknown section [{section}]{_nearest(section, sections)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: {section} must be a section, written as [{section}].")
        for key in table:
            if f"{section}.{key}" not in known:
                names = {name.split(".")[1] for name in known if name.startswith(section + ".")}
                raise ConfigError(f"{where}: unknown key {section}.{key}{_nearest(key, names)}")


def _overlay(document: dict[str, Any], environment: Mapping[str, str]) -> None:
    variables = {PREFIX + key.upper().replace(".", "_"): key for key in known_keys()}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        if variable not in variables:
            raise ConfigError(f"unknown environment variable {variable}{_nearest(variable, variables)}")
        section, key = variables[variable].split(".")
        document.setdefault(section, {})[key] = _parse(text, known_keys()[variables[variable]])


def _parse(text: str, default: object) -> object:
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(default, int | float):
        try:
            return int(text) if isinstance(default, int) else float(text)
        except ValueError:
            return text
    return text


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(known))}."


def _machine_zone() -> str:
    target = str(Path("/etc/localtime").resolve())
    return target.split("zoneinfo/", 1)[1] if "zoneinfo/" in target else "UTC"

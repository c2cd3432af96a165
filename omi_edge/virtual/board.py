"""What a pendant answers: its GATT table (dossier §3) and the values behind it. Knows neither links nor audio."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

from omi_edge import gatt
from omi_edge.virtual.attributes import INVALID_LENGTH, UNLIKELY, AttError, Characteristic
from omi_edge.virtual.device_clock import DeviceClock
from omi_edge.virtual.profiles import Profile
from omi_edge.virtual.storage import Storage

SPEAKER_ANSWER = (400).to_bytes(2, "little")
"""What each write to the speaker is answered with (dossier §4.6)."""
LED_DEFAULT, LED_MOST = 50, 100
GAIN_DEFAULT, GAIN_MOST = 6, 8
"""Dossier §3, settings."""
HAPTIC_LEVELS = (1, 2, 3)
NAME_BYTES = 20
"""Longest device name (dossier §4.9)."""
PHOTO_DATA = gatt.AUDIO_DATA.replace("19b10001", "19b10005")
PHOTO_CONTROL = gatt.AUDIO_DATA.replace("19b10001", "19b10006")
"""Images of OMI Glass (dossier §3); nothing else knows them."""

Services = dict[str, tuple[Characteristic, ...]]


class Board:
    """``notify`` sends a value to whoever subscribed; ``to_bootloader`` restarts the pendant without its firmware.

    What concerns stored audio is asked of ``storage``.
    """

    def __init__(
        self,
        profile: Profile,
        clock: DeviceClock,
        notify: Callable[[str, bytes], None],
        to_bootloader: Callable[[], None],
        storage: Storage,
    ) -> None:
        self.profile = profile
        self.clock = clock
        self.battery = 82
        """Charge in percent."""
        self.charging = False
        self.led = LED_DEFAULT
        self.mic_gain = GAIN_DEFAULT
        self.name = profile.device.name
        self.buzzes: list[int] = []
        """Haptic feedback that was felt, by level."""
        self.writes: list[tuple[str, bytes]] = []
        """Every value that was written to it, refused or not."""
        self._pressed = 0
        self._notify = notify
        self._to_bootloader = to_bootloader
        self._storage = storage
        self.services: Services = dict(self._table())
        self.characteristics = {each.uuid: each for group in self.services.values() for each in group}

    def press(self, code: int) -> None:
        """Feel the button; a read answers with the last code from then on (dossier §4.4)."""
        self._pressed = code
        self._notify(gatt.BUTTON, self._button())

    def charge(self, percent: int | None = None, *, charging: bool | None = None) -> None:
        """Change the charge, or plug the charger in or out."""
        if percent is not None:
            self.battery = percent
        if charging is not None and charging != self.charging:
            self.charging = charging
            self._notify(gatt.CHARGING, bytes([charging]))

    def _table(self) -> Iterator[tuple[str, tuple[Characteristic, ...]]]:
        profile = self.profile
        yield gatt.AUDIO_SERVICE, tuple(self._audio())
        if profile.glass:
            yield gatt.SETTINGS_SERVICE, (self._one(gatt.LED_DIM_RATIO, "write"), self._one(gatt.MIC_GAIN, "notify"))
        if profile.settings:
            yield gatt.SETTINGS_SERVICE, tuple(self._settings())
        if profile.features is not None:
            mask = profile.features.to_bytes(4, "little")
            yield gatt.FEATURES_SERVICE, (self._one(gatt.FEATURES, "read", read=lambda: mask, protected=False),)
        if profile.keeps_time:
            yield (
                gatt.TIME_SERVICE,
                (
                    self._one(gatt.TIME_SET, "write", write=self._set_time),
                    self._one(gatt.TIME_GET, "read", read=self._time),
                ),
            )
        if profile.button:
            yield gatt.BUTTON_SERVICE, (self._one(gatt.BUTTON, "read notify", read=self._button),)
        if profile.haptic:
            yield gatt.HAPTIC_SERVICE, (self._one(gatt.HAPTIC, profile.haptic, write=self._buzz),)
        if self._storage.present:
            yield gatt.STORAGE_SERVICE, tuple(self._stored())
        level = self._one(gatt.BATTERY_LEVEL, "read notify", read=lambda: bytes([self.battery]), protected=False)
        yield gatt.BATTERY_SERVICE, (level,)
        yield gatt.DEVICE_INFORMATION_SERVICE, tuple(self._information())
        if profile.legacy_dfu:
            control = self._one(gatt.LEGACY_DFU_CONTROL, "write notify", write=self._dfu, protected=False)
            yield gatt.LEGACY_DFU_SERVICE, (control,)
        if profile.smp:
            yield gatt.SMP_SERVICE, (self._one(gatt.SMP, "write-without-response notify", protected=False),)

    def _audio(self) -> Iterator[Characteristic]:
        yield self._one(gatt.AUDIO_DATA, "read notify")
        yield self._one(gatt.AUDIO_CODEC, "read", read=lambda: bytes([int(self.profile.codec)]))
        if self.profile.speaker:
            yield self._one(gatt.SPEAKER, "write notify", write=lambda _: self._notify(gatt.SPEAKER, SPEAKER_ANSWER))
        if self.profile.glass:
            yield self._one(PHOTO_DATA, "notify")
            yield self._one(PHOTO_CONTROL, "write")

    def _settings(self) -> Iterator[Characteristic]:
        def set_led(value: bytes) -> None:
            self.led = min(_one_byte(value), LED_MOST)

        def set_gain(value: bytes) -> None:
            self.mic_gain = min(_one_byte(value), GAIN_MOST)

        yield self._one(gatt.LED_DIM_RATIO, "read write", read=lambda: bytes([self.led]), write=set_led)
        yield self._one(gatt.MIC_GAIN, "read write", read=lambda: bytes([self.mic_gain]), write=set_gain)
        if self.profile.charging:
            yield self._one(
                gatt.CHARGING, "read notify", read=lambda: bytes([self.charging]),
                subscribed=lambda: self._notify(gatt.CHARGING, bytes([self.charging])),
            )  # fmt: skip
        if self.profile.keeps_name:
            yield self._one(gatt.DEVICE_NAME, "read write", read=lambda: self.name.encode(), write=self._set_name)

    def _stored(self) -> Iterator[Characteristic]:
        yield self._one(gatt.STORAGE_CONTROL, "write notify", write=self._storage.command)
        yield self._one(gatt.STORAGE_STATUS, "read notify", read=self._storage.status)
        if self.profile.wifi:
            yield self._one(
                gatt.STORAGE_WIFI, "write notify",
                write=lambda _: self._notify(gatt.STORAGE_WIFI, b"\xfe"),  # no Wi-Fi hardware (dossier §6.3)
            )  # fmt: skip

    def _information(self) -> Iterator[Characteristic]:
        device = self.profile.device
        for uuid, text in (
            (gatt.MODEL_NUMBER, device.model),
            (gatt.FIRMWARE_REVISION, device.firmware),
            (gatt.HARDWARE_REVISION, device.hardware),
            (gatt.MANUFACTURER_NAME, device.manufacturer),
        ):
            if text:
                yield self._one(uuid, "read", read=text.encode, protected=False)

    def _one(
        self,
        uuid: str,
        properties: str,
        *,
        read: Callable[[], bytes] = bytes,
        write: Callable[[bytes], None] = lambda _: None,
        subscribed: Callable[[], None] = lambda: None,
        protected: bool = True,
    ) -> Characteristic:
        def noted(value: bytes) -> None:
            self.writes.append((uuid, value))
            write(value)

        return Characteristic(
            uuid, properties, read=read, write=noted, subscribed=subscribed, protected=protected
        )  # fmt: skip

    def _time(self) -> bytes:
        return int(self.clock.now() or 0).to_bytes(4, "little")

    def _set_time(self, value: bytes) -> None:
        if len(value) != 4:
            raise AttError(INVALID_LENGTH)
        if not self.clock.write(int.from_bytes(value, "little")):
            raise AttError(UNLIKELY)
        self._storage.clock_set()

    def _set_name(self, value: bytes) -> None:
        if not 1 <= len(value) <= NAME_BYTES:
            raise AttError(INVALID_LENGTH)
        try:
            name = value.decode()
        except UnicodeDecodeError:
            raise AttError(UNLIKELY) from None
        if name != name.strip() or any(unicodedata.category(each) == "Cc" for each in name):
            raise AttError(UNLIKELY)
        self.name = name

    def _button(self) -> bytes:
        return self._pressed.to_bytes(4, "little") + bytes(4)

    def _buzz(self, value: bytes) -> None:
        level = _one_byte(value)
        if level in HAPTIC_LEVELS:  # others are ignored, and the write succeeds all the same (dossier §4.5)
            self.buzzes.append(level)

    def _dfu(self, value: bytes) -> None:
        if value == b"\x06" or (len(value) == 2 and value[0] == 1):
            self._to_bootloader()


def _one_byte(value: bytes) -> int:
    if len(value) != 1:
        raise AttError(INVALID_LENGTH)
    return value[0]

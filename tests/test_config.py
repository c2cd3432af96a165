"""config.toml: precedence, strictness, and the file that ships."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from omi_edge.config import Config, known_keys, load, zone
from omi_edge.errors import ConfigError

ROOT = Path(__file__).parents[1]


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_without_file_and_environment() -> None:
    assert load(None, {}) == Config()


def test_file_beats_default_and_environment_beats_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[web]\nport = 8099\nhost = '::1'\n")
    config = load(path, {"OMI_EDGE_WEB_PORT": "8100"})
    assert (config.web.port, config.web.host) == (8100, "::1")
    assert load(path, {}).web.port == 8099


def test_environment_values_take_the_type_of_the_default() -> None:
    environment = {
        "OMI_EDGE_CONVERSATION_SILENCE": "8",
        "OMI_EDGE_MEMORY_TRIGGER_PHRASES": "remember, do not forget ,",
        "OMI_EDGE_ENGINE_THREADS": "3",
    }
    config = load(None, environment)
    assert config.conversation.silence == 8.0
    assert config.memory.trigger_phrases == ("remember", "do not forget")
    assert config.engine.threads == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[conversation]\nsilense = 3\n", "did you mean silence?"),
        ("[conversatoin]\nsilence = 3\n", "did you mean conversation?"),
        ("web = 3\n", "written as [web]"),
        ("[listen]\nlanguage = 'German'\n", "listen.language must be a code of two or three letters like de"),
        ("[web]\nport = 99999\n", "web.port must be at most 65535;"),
        ("[conversation]\nsilence = 1\n", "conversation.silence"),
        ("[log]\nlevel = 'loud'\n", "log.level must be one of debug, info, warning, error;"),
        ("[web]\nport = '8460'\n", "web.port"),
        ("[listen]\nvad_open = 0.3\nvad_close = 0.4\n", "vad_close"),
        ("[wearer]\ntime_zone = 'Mars/Olympus'\n", "Europe/Berlin"),
        ("[wearer]\ntime_zone = '../../etc/passwd'\n", "Europe/Berlin"),
        ("[models]\nendpoint = 'http://hub.example'\n", "models.endpoint must be an address like https://host"),
        ("[models]\nendpoint = ''\n", "models.endpoint"),
        ("[models]\nproxy = 'socks5://host:1'\n", "models.proxy must be an address like http://host"),
        ("[models]\nproxy = 'http://me@host:1'\n", "models.proxy must not hold a name or password"),
        ("[models]\nproxy = 'http://host:99999'\n", "models.proxy"),
        ("[engine]\nwhen = 'never'\n", "engine.when must be one of idle, always, schedule;"),
        ("[engine]\nhours = '22-6'\n", 'engine.hours must be two times of the day like "22:00-06:00"'),
        ("[engine]\nhours = '24:00-06:00'\n", "engine.hours"),
        ("[engine]\nhours = '06:00-06:00'\n", "two different times"),
        ("[engine]\ncool = -1\n", "engine.cool must be at least 0"),
        ("[engine]\non_batery = true\n", "did you mean on_battery?"),
        ("[listen]\nbatch = 0\n", "listen.batch must be at least 1;"),
        ("[web\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        load(written(tmp_path, text), {})


def test_an_unknown_variable_is_an_error() -> None:
    with pytest.raises(ConfigError, match="OMI_EDGE_WEB_PORT"):
        load(None, {"OMI_EDGE_WEB_PROT": "1"})
    with pytest.raises(ConfigError, match=r"web\.port"):
        load(None, {"OMI_EDGE_WEB_PORT": "many"})


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load(tmp_path / "none.toml", {})


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(path, {})


def test_zone_is_the_wearers_else_the_machines() -> None:
    assert zone(load(None, {"OMI_EDGE_WEARER_TIME_ZONE": "Asia/Tokyo"})).key == "Asia/Tokyo"
    assert zone(Config()).key


def test_the_shipped_file_shows_every_setting_with_its_default() -> None:
    path = ROOT / "config.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    active = "\n".join(re.sub(r"^# ?(\w+ = )", r"\1", line) for line in lines)
    shown = {
        f"{section}.{key}": tuple(value) if isinstance(value, list) else value
        for section, table in tomllib.loads(active).items()
        for key, value in table.items()
    }
    assert shown == known_keys()
    assert load(path, {}) == Config()


def test_the_shipped_file_explains_every_setting() -> None:
    before = ""
    for line in (ROOT / "config.toml").read_text(encoding="utf-8").splitlines():
        if re.match(r"# ?\w+ = ", line):
            assert re.match(r"# [A-Z]", before), f"no comment above: {line}"
        else:
            before = line or before if line.startswith("#") else before


def test_an_address_that_others_reach_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"web\.host must be an address of this machine"):
        load(written(tmp_path, "[web]\nhost = '0.0.0.0'\n"), {})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[listen]\nrecognizer = 'wyoming'\n", r"wyoming\.uri must name the server"),
        ("[wyoming]\nuri = 'tcp://8.8.8.8:10300'\n", "not on your LAN"),
        ("[wyoming]\nuri = 'tcp://name:10300'\n", "by its address"),
        ("[wyoming]\nserve = true\nhost = '0.0.0.0'\n", r"wyoming\.lan = true"),
        ("[wyoming]\nserve = true\nhost = '192.168.1.2'\n", r"wyoming\.lan = true"),
        ("[wyoming]\nserve = true\nlan = true\nhost = '8.8.8.8'\n", "must be a private address"),
        ("[wyoming]\nserve = true\nhost = 'name'\n", "must be a private address"),
        ("[wyoming]\nserve = true\nuri = 'tcp://localhost:10300'\n", "names this omi-edge itself"),
        ("[wyoming]\nserve = true\nlan = true\nhost = '0.0.0.0'\nuri = 'tcp://127.0.0.1'\n", "this omi-edge itself"),
        ("[wyoming]\nserve = true\nlan = true\nhost = '10.0.0.1'\nuri = 'tcp://10.0.0.1'\n", "this omi-edge itself"),
    ],
)
def test_wyoming_that_cannot_be_meant(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load(written(tmp_path, text), {})


@pytest.mark.parametrize(
    "text",
    [
        "[listen]\nrecognizer = 'wyoming'\n[wyoming]\nuri = 'unix:///run/w.sock'\nserve = true\n",
        "[wyoming]\nserve = true\nuri = 'tcp://192.168.1.2:10300'\n",
        "[wyoming]\nserve = true\nlan = true\nhost = '::'\nuri = 'tcp://localhost:10301'\n",
        "[wyoming]\nhost = '0.0.0.0'\n",
    ],
)
def test_wyoming_that_can(tmp_path: Path, text: str) -> None:
    load(written(tmp_path, text), {})

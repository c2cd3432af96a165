"""The shape of the tree: who may import whom, and what only one module may do."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "omi_edge"

LEVELS = {
    "": 0,  # omi_edge/__init__.py: the version
    "domain": 0,
    "errors": 0,
    "ids": 0,
    "clock": 1,
    "config": 1,
    "events": 1,
    "observe": 1,
    "paths": 1,
    "validation": 1,
    "sandbox": 1,
    "engine": 1,
    "worker": 1,
    "opus": 1,
    "gatt": 1,
    "ogg": 1,
    "models": 1,
    "wording": 1,
    "stretches": 1,
    "wyoming": 1,
    "rewrite": 1,
    "capture": 2,
    "listen": 2,
    "memory": 2,
    "store": 2,
    "virtual": 2,
    "pipeline": 3,
    "web": 3,
    "health": 4,
    "daemon": 4,
    "evaluation": 4,
    "cli": 5,
}
SIDE_BY_SIDE = {2, 3}
"""Levels whose packages never import one another."""

TIME_CALLS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "asyncio": {"timeout", "timeout_at", "wait_for"},
    "loop": {"time", "call_later", "call_at"},
}
TIME_ALLOWED = {
    "omi_edge/clock.py": "it is the clock",
}
CONNECTS_ALLOWED = {"omi_edge/store/connection.py"}

CONNECTS_OUT = {
    "omi_edge/models/hub.py": "fetches models, for `omi-edge models` alone",
    "omi_edge/models/certificates.py": "reads the certificate that such a download refused",
    "omi_edge/listen/wyoming.py": "a recogniser on the LAN, when the owner names one",
    "omi_edge/web/client.py": "the daemon's own API",
    "omi_edge/cli/stream.py": "a daemon's socket, at the address that was typed",
}
CONNECTING = {"ClientSession", "open_connection", "create_connection", "urlopen", "HTTPSConnection", "HTTPConnection"}
FETCHERS = {f"omi_edge/cli/{name}.py" for name in ("models", "updates", "fetching")}
FETCHING = {"omi_edge.models.hub", "omi_edge.models.pull", "omi_edge.models.certificates"}

MODEL_LIBRARIES = {
    "onnxruntime", "faster_whisper", "ctranslate2", "pocketsphinx", "av", "numpy", "dateparser", "sqlcipher3",
    "bleak", "aiohttp", "opuslib", "cryptography", "sounddevice",
}  # fmt: skip
"""What `omi-edge --help` does without: models above all, and whatever else takes long to load."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.fixture(scope="module", params=modules(), ids=lambda path: str(path.relative_to(ROOT)))
def path(request: pytest.FixtureRequest) -> Path:
    """Each module in turn, and all tests of one before the next."""
    return Path(request.param)


@functools.lru_cache(maxsize=1)
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a module."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))))


def part(module: str) -> str:
    """The name in LEVELS of a dotted module of ours."""
    return module.split(".")[1] if "." in module else ""


def own_imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of our own among ``nodes``."""
    for found in nodes:
        if isinstance(found, ast.Import):
            names = [alias.name for alias in found.names]
        elif isinstance(found, ast.ImportFrom):
            assert found.level == 0, "relative imports hide where they lead"
            names = [found.module or ""]
            if found.module == "omi_edge":  # from omi_edge import paths
                names = [f"omi_edge.{alias.name}" if alias.name in LEVELS else "omi_edge" for alias in found.names]
        else:
            continue
        yield from ((found.lineno, name) for name in names if name.split(".")[0] == "omi_edge")


def test_imports_lead_down(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    here = "" if here == "__init__" else here
    for line, name in own_imports(nodes(path)):
        there = part(name)
        assert there in LEVELS, f"{path}:{line} {name} has no level"
        if there == here:
            continue
        assert LEVELS[there] <= LEVELS[here], f"{path}:{line} imports upwards: {name}"
        if LEVELS[there] == LEVELS[here] and LEVELS[here] in SIDE_BY_SIDE:
            pytest.fail(f"{path}:{line} {here} and {there} never import one another")
        if here == "web":
            assert LEVELS[there] < 2 or there == "store", f"{path}:{line} web knows the store alone"


def test_every_part_has_a_level() -> None:
    parts = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert parts == set(LEVELS) - {""}


def test_no_own_import_hides_inside_a_function(path: Path) -> None:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert not list(own_imports(ast.walk(node))), f"{path}:{node.lineno} {node.name}"


def test_level_0_needs_the_standard_library_and_msgspec_alone() -> None:
    for name in ("domain", "errors", "ids"):
        for node in nodes(PACKAGE / f"{name}.py"):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for found in names:
                top = found.split(".")[0]
                assert top in sys.stdlib_module_names or top in ("msgspec", "omi_edge"), f"{name}: {found}"


def test_only_the_clock_reads_time_and_sleeps(path: Path) -> None:
    if str(path.relative_to(ROOT)) in TIME_ALLOWED:
        return
    for line, call in time_calls(nodes(path)):
        pytest.fail(f"{path}:{line} {call}: use the Clock that is handed in")


def time_calls(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    for found in nodes:
        if is_nap(found):
            yield found.lineno, "asyncio.sleep"
        if isinstance(found, ast.ImportFrom) and found.module == "time":
            yield found.lineno, "from time import"
        if not isinstance(found, ast.Attribute):
            continue
        owner = found.value
        name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
        if isinstance(owner, ast.Call) and "loop" in ast.unparse(owner.func):
            name = "loop"
        if found.attr in TIME_CALLS.get(name.lstrip("_"), ()):
            yield found.lineno, f"{name}.{found.attr}"


def is_nap(node: ast.AST) -> TypeGuard[ast.Call]:
    """``asyncio.sleep`` of anything but 0, which only lets others run."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep"):
        return False
    argument = node.args[0] if node.args else None
    return ast.unparse(node.func) == "asyncio.sleep" and not (
        isinstance(argument, ast.Constant) and argument.value == 0
    )


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.monotonic()",
        "from time import time",
        "import datetime\ndatetime.datetime.now()",
        "asyncio.sleep(1)",
        "asyncio.get_running_loop().call_later(1, f)",
        "self._loop.time()",
        "asyncio.timeout(3)",
    ],
)
def test_the_search_for_readers_of_time_finds_them(code: str) -> None:
    assert list(time_calls(ast.walk(ast.parse(code))))


def test_the_search_for_readers_of_time_leaves_others_alone() -> None:
    assert not list(
        time_calls(ast.walk(ast.parse("asyncio.sleep(0)\nclock.sleep(3)\nself._clock.call_later(1, f)\ntime(9, 30)")))
    )


def test_only_the_database_module_opens_connections(path: Path) -> None:
    if str(path.relative_to(ROOT)) in CONNECTS_ALLOWED:
        return
    for node in nodes(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "connect":
            owner = ast.unparse(node.func.value)
            assert "sql" not in owner and "dbapi" not in owner, f"{path}:{node.lineno}"
        if isinstance(node, ast.Import):
            assert "sqlite3" not in [alias.name for alias in node.names], (
                f"{path}:{node.lineno} an unencrypted database"
            )


def test_nothing_else_opens_connections(path: Path) -> None:
    where = str(path.relative_to(ROOT))
    names = {found.attr for found in nodes(path) if isinstance(found, ast.Attribute)}
    names |= {found.id for found in nodes(path) if isinstance(found, ast.Name)}
    assert bool(names & CONNECTING) == (where in CONNECTS_OUT), where
    imports = [node for node in nodes(path) if isinstance(node, ast.ImportFrom) and node.module]
    fetching = {node.module for node in imports} & FETCHING
    fetching |= {f"{node.module}.{alias.name}" for node in imports for alias in node.names} & FETCHING
    if fetching:
        assert where.startswith("omi_edge/models/") or where in FETCHERS, f"{where} can fetch models"


def loaded(*arguments: str) -> set[str]:
    """Top-level modules that ``omi-edge ARGUMENTS`` loads."""
    code = (
        "import sys\nfrom omi_edge.cli.main import run\n"
        f"code = run({list(arguments)!r})\n"
        "print('\\n' + ' '.join(sorted({name.split('.')[0] for name in sys.modules})))\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_no_model_library() -> None:
    assert not loaded("--help") & MODEL_LIBRARIES


def test_verbs_load_no_model_in_the_main_process() -> None:
    models = {"onnxruntime", "faster_whisper", "ctranslate2", "pocketsphinx", "av", "torch"}
    for verb in ("list", "import", "run"):
        assert not loaded(verb, "--help") & models, verb

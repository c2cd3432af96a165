"""Log lines: key=value and JSON, never the text of an exception."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from omi_edge import observe

log = logging.getLogger("omi_edge.test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]


def test_key_value_lines() -> None:
    stream = io.StringIO()
    observe.set_up(style="text", level="info", stream=stream)
    log.info("job ended", extra={"job": "job_1", "seconds": 1.5, "cause": 'said "no" twice', "empty": ""})
    log.debug("not this")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith('info omi_edge.test "job ended" job=job_1 seconds=1.5 cause="said \\"no\\" twice" empty=""')


def test_json_lines() -> None:
    stream = io.StringIO()
    observe.set_up(style="json", level="warning", stream=stream)
    log.warning("job again", extra={"job": "job_1", "attempt": 2})
    log.info("not this")
    document = json.loads(stream.getvalue())
    assert document["message"] == "job again"
    assert (document["level"], document["job"], document["attempt"]) == ("warning", "job_1", 2)


@pytest.mark.parametrize("style", ["text", "json"])
def test_the_text_of_an_exception_stays_out(style: str) -> None:
    stream = io.StringIO()
    observe.set_up(style=style, level="info", stream=stream)
    try:
        raise ValueError("the password is swordfish")
    except ValueError:
        log.exception("stage failed")
    assert "swordfish" not in stream.getvalue()
    assert "ValueError" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_libraries_that_quote_addresses_are_kept_quiet() -> None:
    stream = io.StringIO()
    observe.set_up(style="text", level="debug", stream=stream)
    logging.getLogger("aiohttp.access").info("GET /v1/search?q=secret")
    assert stream.getvalue() == ""

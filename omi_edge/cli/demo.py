"""`omi-edge demo`: the main job from a pendant's notifications to proven search hits, on a vault that is thrown away."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from omi_edge.capture.replay import read_pcm
from omi_edge.clock import DrivenClock, SystemClock
from omi_edge.config import Config, ConversationConfig, WebConfig, load, zone
from omi_edge.daemon import Daemon
from omi_edge.domain import SAMPLE_RATE
from omi_edge.errors import AudioError, OmiEdgeError
from omi_edge.paths import socket_path
from omi_edge.store.database import Database
from omi_edge.virtual.loopback import LoopbackLink
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.script import Script, load_script, recording_path
from omi_edge.web import wire
from omi_edge.web.client import ApiClient

SILENCE_SECONDS = 8.0
"""Silence that ends a conversation in the demo: the shipped recording pauses longer once."""
SETTLE_SECONDS = 90.0
"""Simulated time given to the last conversation to end and to be understood."""
STEP_SECONDS = 0.5


class DemoFailed(OmiEdgeError):
    """Something that the demo promises did not happen."""

    slug = "demo-failed"

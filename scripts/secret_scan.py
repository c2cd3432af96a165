"""Looks for secrets in the tree and in every commit: keys, tokens, passwords, and text too random to be anything else.

A line that only looks like one says so: ``not a secret: REASON`` in a comment on it.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
HERE = "scripts/secret_scan.py"
EXCUSE = "not a secret:"

PATTERNS = {
    "private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----"),
    "AWS key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,})"),
    "GitLab token": re.compile(r"\bglpat-[\w-]{20,}"),
    "Slack token": re.compile(r"\bxox[abeoprs]-[\w-]{10,}"),
    "Google key": re.compile(r"\bAIza[\w-]{35}\b"),
    "Hugging Face token": re.compile(r"\bhf_[A-Za-z]{30,}\b"),
    "OpenAI key": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}"),
    "token of omi-edge": re.compile(r"\boe_[\w-]{43}"),
    "password in a URL": re.compile(r"://[^\s/:@\"']+:[^\s/:@\"'{}$<]{3,}@"),
    "password in code": re.compile(
        r"(?i)\b(passw(or)?d|passphrase|secret|api_?key|auth_?token)\s*[:=]\s*"
        r"[rbuf]?[\"'](?=[^\"' ]*\d)[^\"' ]{12,}[\"']"
    ),
}
RANDOM = re.compile(r"(?<![\w+/=-])[A-Za-z0-9+/_-]{32,}={0,2}(?![\w+/=-])")
RANDOM_BITS = 4.5
"""Shannon entropy per character: random base 64 of 32 characters and more has above this, names in code below 4.3."""
NO_RANDOM_SEARCH = ("locks/", "tests/", "docs/openapi.json")
"""Hashes of packages and made-up data are random by nature; the patterns above are searched there all the same."""


def main() -> int:
    found = sorted({*in_tree(), *in_history()})
    for where, kind in found:
        print(f"{where}: {kind}")
    print(f"Secrets in tree and history: {len(found)}")
    return 1 if found else 0


def in_tree() -> Iterator[tuple[str, str]]:
    for name in git("ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0"):
        path = ROOT / name
        if name and path.is_file():
            for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), 1):
                yield from ((f"{name}:{number}", kind) for kind in kinds(name, line))


def in_history() -> Iterator[tuple[str, str]]:
    name = commit = ""
    for line in git("log", "--all", "--patch", "--unified=0", "--no-color", "--format=commit %h").splitlines():
        if line.startswith("commit "):
            commit = line[7:]
        elif line.startswith("+++ "):
            name = line[4:].removeprefix("b/")
        elif line.startswith("+"):
            yield from ((f"{commit} {name}", kind) for kind in kinds(name, line[1:]))


def kinds(name: str, line: str) -> Iterator[str]:
    """Yield what ``line`` of file ``name`` looks like."""
    if EXCUSE in line or name == HERE:
        return
    yield from (kind for kind, pattern in PATTERNS.items() if pattern.search(line))
    if not name.startswith(NO_RANDOM_SEARCH):
        yield from ("random text" for match in RANDOM.finditer(line) if is_random(match.group()))


def is_random(text: str) -> bool:
    """Say whether text is random; an alphabet, which has no character twice, is not: 32 random ones repeat some."""
    return entropy(text) > RANDOM_BITS and len(set(text)) < len(text)


def entropy(text: str) -> float:
    """Return bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())

"""Asks the public advisory service about every package in locks/full.txt.

Exit code 1 when it knows of a vulnerability, 0 when it knows of none or cannot be reached; which of them is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

LOCK = Path(__file__).parents[1] / "locks" / "full.txt"


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--disable-pip", "--format", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False)
    asked = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        lines = done.stderr.strip().splitlines()
        print(
            f"NOT CHECKED: the advisory service gave no answer on {asked}: {lines[-1] if lines else 'no reason given'}"
        )
        return 0
    found = [(package, flaw) for package in packages for flaw in package.get("vulns", [])]
    print(f"Asked about {len(packages)} packages on {asked}; the service answers from its data of that moment.")
    for package, flaw in found:
        fixed = ", ".join(flaw["fix_versions"]) or "nowhere yet"
        print(f"{package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}")
    print(f"Known vulnerabilities: {len(found)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

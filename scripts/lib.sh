# Shared by the scripts beside it: finds a Python, fills .venv from the lock files, names the cure when it cannot.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONDONTWRITEBYTECODE # container images set it: every process would compile the whole package anew
# program or library:Debian package, what the tests need beside Python; a pendant's bus is Linux's alone, and so is
# PortAudio that does not come with its Python package
BUS_TOOLS=""; [ "$(uname)" != Linux ] || BUS_TOOLS="dbus-daemon:dbus libportaudio.so.2:libportaudio2"
SYSTEM_TOOLS="git:git flite:flite $BUS_TOOLS"

fail() { echo "${0##*/}: $*" >&2; exit 1; }

find_python() { # 3.11 to 3.14: what the wheels in the lock files cover
    local candidate
    for candidate in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11 python3.14; do
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null || continue
        "$candidate" -c 'import ensurepip, venv' 2>/dev/null && { echo "$candidate"; return; }
        VENV_MISSING=$("$candidate" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    done
    [ -z "${VENV_MISSING-}" ] || fail "this Python lacks venv. Cure: sudo apt install $VENV_MISSING (or python3-venv)."
    fail "no Python from 3.11 to 3.14 was found. Install one, or name it: PYTHON=/path/to/python3.12 $0"
}

use() { # light, dev or full: have what that lock file names in .venv; a second time this takes no time
    local stamp level=$1 covered
    stamp=$(cat pyproject.toml locks/*.txt scripts/lib.sh | cksum)
    if [ "$(cat ".venv/stamp-$level" 2>/dev/null)" != "$stamp" ] || ! .venv/bin/python -c '' 2>/dev/null; then
        echo "Installing the $level set into .venv, from the lock files (once, about a minute) …" >&2
        local python
        python=$(find_python)
        rm -f .venv/stamp-*
        .venv/bin/python -c '' 2>/dev/null || "$python" -m venv --clear .venv
        install_into_venv --require-hashes -r locks/build.txt
        install_into_venv --require-hashes --no-build-isolation -r "locks/$level.txt"
        install_into_venv --no-build-isolation --no-deps --editable .
        for covered in light dev full; do
            echo "$stamp" >".venv/stamp-$covered"
            [ "$covered" != "$level" ] || break
        done
    fi
    export PATH="$PWD/.venv/bin:$PATH" VIRTUAL_ENV="$PWD/.venv"
}

install_into_venv() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "$@" >&2 ||
        fail "the packages could not be installed; see above. A package index must be reachable once."
}

have() { # a program, or a library by its file's name
    case $1 in
        *.so*) case $(/sbin/ldconfig -p) in *"$1"*) ;; *) false ;; esac ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

system_tools() { # have these programs and libraries, each with its package, through apt where that is allowed
    local pair packages=""
    for pair in "$@"; do have "${pair%%:*}" || packages+=" ${pair##*:}"; done
    [ -n "$packages" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $packages; } >&2
    else
        echo "Missing system packages:$packages. Cure: sudo apt install$packages" >&2
        [ "${CI-}" != true ]  # by hand, what needs them says so and is left out; in CI nothing is left out
    fi
}

PARTS="" FAILED=0
part() { # a name, then a command: run it, note how long it took and whether it worked, go on
    local name=$1 began=$SECONDS outcome=ok
    shift
    echo "── $name" >&2
    "$@" || { outcome=FAILED; FAILED=1; }
    PARTS+=$(printf '\n  %-28s %5d s  %s' "$name" "$((SECONDS - began))" "$outcome")
}
summary() { echo "$PARTS" >&2; exit "$FAILED"; }

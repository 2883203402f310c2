# Sourced by the scripts beside it: make .venv and install what is missing, saying so.
#
#   need_venv EXTRAS     .venv with this checkout installed (editable), with the extras named, such as dev
#   need_commands CMD=PACKAGE …   system commands; installed with apt-get when we are root and it exists
# shellcheck shell=bash

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*" >&2; }

die() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

install_packages() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        return 1
    fi
    say "installing system packages: $*"
    # A new machine's package lists may be missing or stale: refresh them once, when a first try fails.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 || {
        apt-get update -qq >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    }
}

need_commands() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair##*=}")
    done
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}" ||
        say "missing and not installable here (not root, or no apt-get): ${missing[*]}; what needs them is skipped"
}

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer found" "install python3 (Debian: apt-get install python3 python3-venv)"
}

# Whether something that the installation was made from is newer than its stamp.
outdated() {
    local source
    for source in pyproject.toml setup.py masque_client/netio/offload/*.[ch]; do
        [ "$1" -nt "$source" ] || return 0
    done
    return 1
}

# Whether the optional compiled part can be built for the Python in .venv.
can_compile() {
    command -v cc >/dev/null &&
        [ -e "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
}

need_venv() {
    local extras=$1 stamp python
    stamp=.venv/installed-$(echo "$extras" | tr ',' '-')
    if [ -x .venv/bin/masque-connect ] && ! outdated "$stamp"; then
        return
    fi
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        say "creating .venv with $("$python" --version)"
        "$python" -m venv .venv 2>/dev/null || {
            rm -rf .venv
            install_packages python3-venv || die "this Python cannot make virtual environments" "install python3-venv"
            "$python" -m venv .venv
        }
    fi
    can_compile || { install_packages gcc libc6-dev python3-dev && can_compile; } ||
        say "no C compiler or no Python.h, and not installable here: TUN offload is left out"
    say "installing masque-connect[$extras] into .venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
    touch "$stamp"
}

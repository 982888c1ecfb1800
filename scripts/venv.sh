#!/bin/sh
# Makes the environment in .venv, or mends it: the pinned packages of requirements.lock, each
# checked against its hash, then this project itself, editable.
#
# An environment that stands elsewhere than where it was made, whose Python is gone or too old,
# or that was left half-made is thrown away and made anew. The stamp .venv/.stamp holds the
# folder's path and is written last, so that its presence means "whole".
set -eu

cd "$(dirname "$0")/.."
here=$(pwd -P)
unset PYTHONHOME PYTHONPATH

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# python3 comes first, since it is what the user chose; then the newest that has a name of its own.
find_python() {
    for name in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if recent "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

usable() {
    [ -x .venv/bin/python ] && recent .venv/bin/python || return 1
    # The scripts in bin/ name the folder that the environment was made in, as this file does.
    case $(sed -n 's/^command = //p' .venv/pyvenv.cfg 2>/dev/null) in
        *" $here/.venv") ;;
        *) return 1 ;;
    esac
    .venv/bin/python -m pip --version >/dev/null 2>&1
}

if ! usable; then
    if ! python=$(find_python); then
        found=$("${PYTHON:-python3}" --version 2>&1) || found="no ${PYTHON:-python3}"
        fail "Python 3.11 or newer is needed, and there is $found: install it, or name it: make .venv PYTHON=/path/to/python3"
    fi
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "$python has no venv module: install it (on Debian and Ubuntu the package python3-venv)"
    if [ -e .venv ]; then
        say "The environment in .venv is not whole, or was moved: making it anew"
        rm -rf .venv
    fi
    say "Making .venv with $("$python" --version) ($python)"
    "$python" -m venv "$here/.venv" || fail "$python could not make $here/.venv: see the lines above"
fi

rm -f .venv/.stamp
pip() { .venv/bin/python -m pip --quiet --disable-pip-version-check --no-input "$@"; }

say "Installing the pinned packages of requirements.lock"
pip install --require-hashes -r requirements.lock ||
    fail "the packages could not be installed: see the lines above, then run make .venv again"
say "Installing zephyr itself, editable"
pip install --no-deps --no-build-isolation -e . ||
    fail "zephyr could not be installed: see the lines above"
say "Compiling the hot modules (half a minute)"
.venv/bin/python -m zephyr accelerator build ||
    say "Going on without: everything works, only slower. Later: make accelerator"
printf '%s\n' "$here" >.venv/.stamp

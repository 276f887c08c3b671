#!/usr/bin/env bash
# Creates .venv beside pyproject.toml with the hash-locked dependencies and the project itself.
#
# The demo, the tests and the benchmarks share it. If it is up to date, the script does nothing. PYTHON
# names the interpreter (default: python3).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PYTHON=${PYTHON:-python3}
REQUIREMENTS=deploy/requirements/dev.txt
STAMP=.venv/.smtpfeeds-set-up

# These would install packages outside .venv, or import modules from elsewhere.
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_HASHES PIP_NO_DEPS

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

# What .venv is made from. If the first line changes, it must be created again, because its scripts
# contain the checkout's path.
state() {
    printf '%s in %s\n' "$("$PYTHON" -c 'import sys; print(sys.version, sys.executable)')" "$PWD" |
        tr '\n' ' '
    echo
    sha256sum "$REQUIREMENTS" pyproject.toml deploy/setup/python-environment.sh
}

check_interpreter() {
    command -v "$PYTHON" >/dev/null ||
        fail "$PYTHON is missing: install Python 3.11 or newer (Debian package python3), or set PYTHON"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$PYTHON is $("$PYTHON" -V 2>&1): Python 3.11 or newer is needed; set PYTHON to one"
}

# pyasn is built from source, which needs a C compiler and Python's headers.
check_prerequisites() {
    local missing=() version headers
    version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
        missing+=("Python's venv module (Debian package python3-venv, or python$version-venv)")
    command -v "${CC:-cc}" >/dev/null || command -v gcc >/dev/null ||
        missing+=("a C compiler (Debian package gcc)")
    headers=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] ||
        missing+=("Python's headers (Debian package python3-dev, or python$version-dev)")
    printf '#include <limits.h>\n' | "${CC:-cc}" -E - >/dev/null 2>&1 ||
        missing+=("the C library's headers (Debian package libc6-dev)")
    [ -w . ] || missing+=("the right to write into $PWD, where .venv is made")
    [ ${#missing[@]} -eq 0 ] || fail "the set-up needs:" "${missing[@]/#/  - }"
}

works() {
    .venv/bin/python -c 'import smtpfeeds_common' 2>/dev/null
}

# Prints one line per stage of pip's output.
tell_stages() {
    local line
    while IFS= read -r line; do
        case $line in
        *"Building wheel for "*started)
            line=${line#*Building wheel for }
            echo "  building ${line%% *} from source ..."
            ;;
        "Installing collected packages:"*) echo "  installing them ..." ;;
        esac
    done
}

# Drops warnings, which come from the host's pip configuration.
only_errors() {
    sed -E '/^(WARNING|DEPRECATION):/d' >&2
}

# The shell waits for both pipes, so that pip's last lines come before the next message.
pip_install() {
    { { .venv/bin/python -m pip --disable-pip-version-check --no-input --no-color install \
        --progress-bar off "$@" 2>&3 | tell_stages; } 3>&1 1>&4 | only_errors; } 4>&1
}

install_everything() {
    if ! { [ -f "$STAMP" ] && [ "$(head -n 1 "$STAMP")" = "$1" ] && works; }; then
        echo "Setting up .venv: about a minute the first time, longer over a slow network."
        echo "Creating the environment with $("$PYTHON" -V) ..."
        "$PYTHON" -m venv --clear .venv
    fi
    echo "Fetching $(grep -c '==' "$REQUIREMENTS") locked packages ..."
    pip_install --require-hashes -r "$REQUIREMENTS" ||
        fail "pip could not install $REQUIREMENTS; its output is above"
    # With hashes pip refuses a local project, so it is a second call; its build backend is locked.
    echo "Installing smtpfeeds ..."
    pip_install --no-deps --no-build-isolation --editable . >/dev/null ||
        fail "pip could not install the project itself; its output is above"
}

main() {
    local now
    check_interpreter
    now=$(state)
    if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$now" ] && works; then
        return 0
    fi
    check_prerequisites
    install_everything "${now%%$'\n'*}"
    printf '%s\n' "$now" >"$STAMP"
}

main "$@"

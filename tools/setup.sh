#!/usr/bin/env bash
# Sets hotlap up in a virtual environment, with everything that `make demo` and `make test` need.
#
#   tools/setup.sh [VENV]          default .venv, in the current folder
#   PYTHON=python3.12 tools/setup.sh    the Python that the environment is made from
#   PIP_FLAGS="--index-url URL" tools/setup.sh    further options of `pip install`
#
# System libraries are tried, not guessed: only where OpenCV does not import or MuJoCo cannot render without a
# screen are packages installed, and that only as root; otherwise it says what to type.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${1:-.venv}
python=${PYTHON:-python3}
log=$(mktemp -t hotlap-setup.XXXXXX)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$1"; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; exit 1; }

# install_packages WHY PACKAGE...: with apt-get as root; otherwise the sentence that would do it.
install_packages() {
    local why=$1; shift
    if ! command -v apt-get >/dev/null; then
        fail "$why" "likely cause: system packages are missing, and this is no Debian or Ubuntu" \
            "next: install what your system calls $*"
    elif [ "$(id -u)" -ne 0 ]; then
        fail "$why" "likely cause: system packages are missing, and only root may install them" \
            "next: sudo apt-get update && sudo apt-get install --no-install-recommends $*"
    fi
    say "$why: installing $*"
    quietly apt-get update -qq
    DEBIAN_FRONTEND=noninteractive quietly apt-get install -y -qq --no-install-recommends "$@"
}

# quietly COMMAND...: its output goes to the log, and is shown if it fails.
quietly() {
    "$@" </dev/null >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "failed: $*" "the whole output is in $log"; }
}

imports_opencv() { "$venv/bin/python" -c 'import cv2' 2>"$log"; }

renders() {
    MUJOCO_GL=${MUJOCO_GL:-egl} "$venv/bin/python" - >"$log" 2>&1 <<'PYTHON'
import mujoco

model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 2'/><geom size='.2'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 48, 64) as renderer:
    renderer.update_scene(data)
    assert renderer.render().max() > 0, "the picture is black"
PYTHON
}

if ! command -v "$python" >/dev/null; then
    [ "$python" = python3 ] || fail "no $python" "next: make setup PYTHON=python3"
    install_packages "no $python" python3 python3-venv
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$python is $("$python" -c 'import platform; print(platform.python_version())'): 3.10 or newer is needed" \
        "next: make setup PYTHON=python3.11"

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        install_packages "$python cannot make virtual environments" \
            "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    say "making $venv"
    quietly "$python" -m venv "$venv"
fi

say "installing hotlap with its train and dev extras into $venv (some minutes the first time)"
# PIP_FLAGS is a list of words on purpose.
# shellcheck disable=SC2086
quietly "$venv/bin/python" -m pip install --disable-pip-version-check -q ${PIP_FLAGS:-} -e '.[train,dev]'

if [ "$(uname -s)" = Linux ]; then
    imports_opencv || install_packages "OpenCV does not import: $(tail -n 1 "$log")" libgl1 libglib2.0-0
    imports_opencv || fail "OpenCV does not import: $(tail -n 1 "$log")" "next: $venv/bin/python -c 'import cv2'"
    renders || install_packages "MuJoCo cannot render without a screen" libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri
    renders || fail "MuJoCo cannot render without a screen: $(tail -n 1 "$log")" \
        "next: read $log; MUJOCO_GL=osmesa make setup renders in software, with libosmesa6 installed"
fi
# For tests only: the units are checked by systemd's own tools, the installer by shellcheck, the console's pages by a
# Chromium, rollout workers (and make demo-scale) by a Redis server. Without them tests skip.
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    for tool in systemd-analyze:systemd udevadm:udev shellcheck:shellcheck; do
        command -v "${tool%%:*}" >/dev/null || missing="${missing:-} ${tool##*:}"
    done
    command -v redis-server >/dev/null || missing="${missing:-} redis-server"
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
        missing="${missing:-} chromium fonts-dejavu-core"
    # The microcontroller's firmware, and the simulator that it is tried in.
    if ! command -v avr-gcc >/dev/null || ! command -v pkg-config >/dev/null || ! pkg-config --exists simavr; then
        missing="${missing:-} gcc-avr avr-libc binutils-avr libsimavr-dev libelf-dev gcc libc6-dev make pkg-config"
    fi
    # A list of words on purpose.
    # shellcheck disable=SC2086
    [ -z "${missing:-}" ] || install_packages "tools that tests use are missing" $missing
fi
say "compiling the simulator's inner loops"
quietly "$venv/bin/python" -m sim.precompile
rm -f "$log"
say "done"

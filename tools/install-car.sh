#!/usr/bin/env bash
# Installs hotlap as a service on the computer of a car: 64-bit Raspberry Pi OS, JetPack 6, any Debian or Ubuntu with systemd.
#
#   sudo tools/install-car.sh              install, or bring up to date; enables the service, does not start it
#        tools/install-car.sh --dry-run    say what would be done, and do nothing
#   sudo tools/install-car.sh --start      and start it
#
#   --prefix DIR    install into DIR as if it were /, to look at it: no users, no packages, nothing is started.
#                   DESTDIR=DIR says the same
#   --wheel FILE    install this wheel; without it, the checkout that this script is in
#   --extra NAME    rpi, rpi5, jetson or none; without it, what /proc/device-tree/model says
#   --python FILE   the Python of the virtual environment (default python3)
#   PIP_FLAGS       further options of `pip install`
#
# It may be run again at any time: what is right is left alone, /etc/hotlap/car.toml is never overwritten.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
root=${DESTDIR:-}
python=python3
wheel='' extra='' board='' model=''
dry_run=false start=false
work='' log=/dev/null

# --- words

say() { printf '%s\n' "$*"; }
warn() { printf 'install-car: %s\n' "$*" >&2; }
fail() { warn "$1"; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; exit 1; }
# step TITLE LINE...: what comes next, and why, before it is done.
step() { printf '\n==> %s\n' "$1"; shift; for line in "$@"; do printf '    %s\n' "$line"; done; }

# --- hands

# run COMMAND...: says it and does it; --dry-run only says it. Its output is shown only if it fails.
run() {
    if $dry_run; then printf '    would run: %s\n' "$*"; return; fi
    printf '    running: %s\n' "$*"
    "$@" </dev/null >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "failed: $*"; }
}

# put SOURCE TARGET [MODE]: copy a file where it is new or differs.
put() {
    local source=$1 target=$root$2 mode=${3:-0644}
    if cmp -s "$source" "$target"; then say "    unchanged: $target"; return; fi
    if $dry_run; then say "    would write: $target"; return; fi
    install -D -m "$mode" "$source" "$target"
    say "    wrote: $target"
}

# folder PATH
folder() {
    if [ -d "$root$1" ]; then say "    unchanged: $root$1"; else run mkdir -p "$root$1"; fi
}

packages() {
    if [ -n "$root" ]; then warn "with --prefix no packages are installed; missing here: $*"; return; fi
    command -v apt-get >/dev/null || fail "missing: $*" "likely cause: this is no Debian or Ubuntu" \
        "next: install what your system calls $*, then run this again"
    run apt-get update -qq
    run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

in_system() { [ -z "$root" ]; }

# --- the steps

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
            --dry-run) dry_run=true ;;
            --start) start=true ;;
            --prefix|--wheel|--extra|--python)
                [ $# -ge 2 ] || fail "$1 needs a value" "next: tools/install-car.sh --help"
                case $1 in
                    --prefix) root=$2 ;;
                    --wheel) wheel=$2 ;;
                    --extra) extra=$2 ;;
                    --python) python=$2 ;;
                esac
                shift ;;
            -h|--help) sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
            *) fail "unknown option $1" "next: tools/install-car.sh --help" ;;
        esac
        shift
    done
    root=${root%/}
    case $root in
        ''|/*) ;;
        *) root=$PWD/$root ;;
    esac
    [ -z "$wheel" ] || [ -f "$wheel" ] || fail "there is no wheel $wheel" "next: pip wheel --no-deps -w . $checkout"
    case $extra in
        ''|rpi|rpi5|jetson|none) ;;
        *) fail "--extra $extra is not one of rpi, rpi5, jetson, none" ;;
    esac
}

check_machine() {
    step "Checking this machine" "Nothing is changed before all of this is right."
    [ "$(uname -s)" = Linux ] || fail "this is $(uname -s): the car's computer runs Linux"
    command -v "$python" >/dev/null || fail "there is no $python" "next: sudo apt-get install python3 python3-venv"

    local bits version
    # The kernel's word (uname -m) does not count: 32-bit Raspberry Pi OS runs on a 64-bit kernel.
    bits=$("$python" -c 'import struct; print(8 * struct.calcsize("P"))')
    if [ "$(getconf LONG_BIT)" != 64 ] || [ "$bits" != 64 ]; then
        fail "this system is 32-bit (uname -m says $(uname -m)): refused" \
            "likely cause: the 32-bit Raspberry Pi OS; ONNX Runtime, which runs the model, does not exist for it" \
            "next: write Raspberry Pi OS (64-bit) to the card with Raspberry Pi Imager"
    fi
    version=$("$python" -c 'import platform; print(platform.python_version())')
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$python is Python $version: 3.10 or newer is needed" \
            "likely cause: an old system: JetPack 5 and Raspberry Pi OS Bullseye bring 3.8 and 3.9" \
            "next: install JetPack 6 or Raspberry Pi OS Bookworm or newer, or name one with --python"

    model=$(tr -d '\0' 2>/dev/null <"$root/proc/device-tree/model" || true)
    case $model in
        *"Raspberry Pi 5"*|*"Raspberry Pi Compute Module 5"*) board=rpi5 ;;
        *"Raspberry Pi"*) board=rpi ;;
        *NVIDIA*|*Jetson*) board=jetson ;;
        *) board=none ;;
    esac
    extra=${extra:-$board}
    say "    machine: ${model:-no device tree, so a PC}, $(uname -m), Python $version; extra: $extra"

    if in_system && ! $dry_run; then
        [ "$(id -u)" -eq 0 ] || fail "only root may install services" "next: sudo $0, or $0 --dry-run to look first"
        command -v systemctl >/dev/null || fail "there is no systemd here" "next: hotlap drive starts gate and pilot"
        case $("$python" -c 'import os, sys; print(os.path.realpath(sys.base_prefix))') in
            /home/*|/root|/root[/]*)
                fail "$python is in somebody's home folder, which services cannot see" \
                    "likely cause: pyenv, conda or uv made it" "next: --python /usr/bin/python3" ;;
        esac
        if systemctl is-active --quiet hotlap-gate.service; then
            fail "the gate is running: its program is not replaced while it may move a car" \
                "next: sudo systemctl stop hotlap.target, then this again"
        fi
    fi
}

make_users() {
    step "User and groups" \
        "The services run as the user hotlap, which may open GPIO, I2C, serial and camera devices and nothing else." \
        "Whoever is in the group hotlap may arm the car, and stop it."
    put "$checkout/vehicle/services/hotlap-sysusers.conf" /etc/sysusers.d/hotlap.conf
    if ! in_system; then say "    no users are made with --prefix"; return; fi
    run systemd-sysusers /etc/sysusers.d/hotlap.conf
    if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
        say "    $SUDO_USER may use hotlap without sudo, from the next login on:"
        run usermod -aG hotlap "$SUDO_USER"
    fi
}

make_folders() {
    step "Folders" \
        "/opt/hotlap is the program, /etc/hotlap the settings, /var/lib/hotlap models, calibration and logs."
    folder /opt/hotlap
    folder /etc/hotlap
    # The console replaces car.toml in it when somebody changes it on the Settings page.
    if in_system; then run chgrp hotlap /etc/hotlap; run chmod 2775 /etc/hotlap; fi
    put "$checkout/vehicle/services/hotlap-tmpfiles.conf" /etc/tmpfiles.d/hotlap.conf
    if in_system; then
        run systemd-tmpfiles --create /etc/tmpfiles.d/hotlap.conf
    else
        folder /var/lib/hotlap/models
        folder /var/lib/hotlap/logs
    fi
}

# The template of car.toml. Its camera and actuator are guesses that move nothing: kind = "none".
car_toml() {
    local camera=v4l2 bus=1
    case $board in
        rpi|rpi5) camera=picamera2 ;;
        jetson) bus=7 ;;
    esac
    cat <<TOML
# The car. Every key that is not here has its default; an unknown key is an error that names the nearest.
# After a change: sudo systemctl restart hotlap.target, then hotlap doctor

name = "hotlap"
state_dir = "/var/lib/hotlap"       # models, calibration, logs

[camera]
kind = "$camera"                    # v4l2 (USB), picamera2 (Pi), csi (Jetson), http, video, folder
# source = "/dev/video0"            # device, URL, file or folder
width = 640
height = 480
rate_hz = 30.0
# rotate_180 = true                 # mounted upside down
horizontal_fov_deg = 64.7           # of the lens, and how it is mounted: compared with what a model was trained for
pitch_down_deg = 15.0
height_m = 0.127

[actuator]
kind = "none"                       # choose: sysfs_pwm, pca9685, rpi_gpio, bridge; docs/actuators.md has the wiring
steering_channel = 1                # of the PWM chip
throttle_channel = 0
i2c_bus = $bus                         # pca9685
i2c_address = 0x40

[drive]
control_hz = 10.0
speed_cap_percent = 50.0            # begin slow
TOML
}

write_settings() {
    step "Settings: /etc/hotlap/car.toml" "Which camera, which actuator, which limits. One that is there is kept as it is."
    local target=$root/etc/hotlap/car.toml
    if [ -e "$target" ]; then say "    kept: $target"; return; fi
    if $dry_run; then say "    would write: $target"; return; fi
    car_toml >"$work/car.toml"
    # Readable for the group only: the address of a network camera may hold a password.
    install -D -m 0640 "$work/car.toml" "$target"
    if in_system; then chgrp hotlap "$target"; fi
    say "    wrote: $target"
}

install_program() {
    local venv=$root/opt/hotlap/venv target=$wheel options=()
    step "Program: $venv" \
        "A virtual environment of its own: nothing of the system's Python is changed." \
        "It takes minutes the first time; OpenCV and ONNX Runtime are large."
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        packages "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    if [ "$board" = rpi ] && [ "$extra" = rpi ] && ! "$python" -c 'import RPi' 2>/dev/null; then
        # RPi.GPIO is compiled when it is installed.
        if ! command -v gcc >/dev/null || ! "$python" -c 'import os, sys, sysconfig as s
sys.exit(not os.path.exists(os.path.join(s.get_paths()["include"], "Python.h")))'; then packages gcc libc6-dev python3-dev; fi
    fi
    case $board in
        # Camera libraries of the system (picamera2; OpenCV with GStreamer on a Jetson) are on no package index.
        rpi|rpi5|jetson) options+=(--system-site-packages) ;;
    esac
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        say "    unchanged: $venv"
    else
        run "$python" -m venv ${options[@]+"${options[@]}"} "$venv"
    fi
    if [ -z "$target" ]; then
        target=$checkout
        if ! $dry_run; then
            # A copy: building leaves files behind, and in a checkout they would be root's.
            mkdir "$work/checkout"
            tar -C "$checkout" --exclude=./.git --exclude=./.venv --exclude=./runs --exclude=./demo-run --exclude=./build \
                --exclude=./.mypy_cache --exclude=./.hypothesis --exclude="./.lgd-*" --exclude="*.egg-info" -cf - . | tar -C "$work/checkout" --no-same-owner -xf -
            target=$work/checkout
        fi
    fi
    local wanted=$target
    [ "$extra" = none ] || wanted="${target}[$extra]"
    # PIP_FLAGS is a list of words on purpose.
    # shellcheck disable=SC2086
    run "$venv/bin/python" -m pip install --disable-pip-version-check -q ${PIP_FLAGS:-} "$wanted"
    if [ -n "$wheel" ]; then
        # pip takes a wheel with the version that is installed for the same, and leaves the old one.
        # shellcheck disable=SC2086
        run "$venv/bin/python" -m pip install --disable-pip-version-check -q ${PIP_FLAGS:-} --no-deps --force-reinstall "$wheel"
    fi
    $dry_run || check_imports "$venv/bin/python"
    link_command
}

check_imports() {
    local venv_python=$1
    if ! "$venv_python" -c 'import cv2' 2>"$log"; then
        warn "OpenCV does not import: $(tail -n 1 "$log")"
        packages libgl1 libglib2.0-0
        "$venv_python" -c 'import cv2' 2>"$log" || ! in_system || fail "OpenCV does not import: $(tail -n 1 "$log")"
    fi
    # The system's picamera2 brings a simplejpeg that was compiled for numpy 1 (raspberrypi/picamera2 issue 1211).
    if "$python" -c 'import picamera2' 2>/dev/null && ! "$venv_python" -c 'import picamera2' 2>"$log"; then
        say "    picamera2 does not import beside the newer numpy: a newer simplejpeg helps"
        # shellcheck disable=SC2086
        run "$venv_python" -m pip install --disable-pip-version-check -q ${PIP_FLAGS:-} --no-deps --force-reinstall simplejpeg
        "$venv_python" -c 'import picamera2' 2>"$log" ||
            warn "picamera2 does not import: $(tail -n 1 "$log"). USB cameras (kind = \"v4l2\") do not need it"
    fi
}

link_command() {
    local link=$root/usr/local/bin/hotlap wanted=/opt/hotlap/venv/bin/hotlap
    if [ "$(readlink "$link" 2>/dev/null)" = "$wanted" ]; then say "    unchanged: $link"; return; fi
    if [ -e "$link" ] || [ -L "$link" ]; then warn "$link is another program, and is kept: use $wanted"; return; fi
    run mkdir -p "$root/usr/local/bin"
    run ln -s "$wanted" "$link"
}

install_services() {
    step "Services" \
        "hotlap-gate moves the car, hotlap-pilot drives it, hotlap-console is its web page, on the ports 443 and 80." \
        "All are closed in (systemd-analyze security hotlap-gate)." \
        "Your own changes belong into /etc/systemd/system/hotlap-gate.service.d/NAME.conf, and stay."
    local name
    for name in hotlap-gate.service hotlap-pilot.service hotlap-console.service hotlap.target; do
        put "$checkout/vehicle/services/$name" "/etc/systemd/system/$name"
    done
    if [ "$board" = jetson ]; then
        put "$checkout/vehicle/services/hotlap-pilot-jetson.conf" /etc/systemd/system/hotlap-pilot.service.d/jetson.conf
    fi
    if in_system; then run systemctl daemon-reload; fi
    say "    They start with the computer from now on, disarmed. To undo: sudo systemctl disable hotlap.target"
    if command -v systemctl >/dev/null; then
        run systemctl --root="${root:-/}" enable \
            hotlap-gate.service hotlap-pilot.service hotlap-console.service hotlap.target
    fi
}

install_rules() {
    step "Devices" "udev gives GPIO, I2C, PWM, serial and camera devices to the groups that the services are in."
    put "$checkout/vehicle/services/70-hotlap.rules" /etc/udev/rules.d/70-hotlap.rules
    if ! in_system; then return; fi
    if ! $dry_run && ! [ -S /run/udev/control ]; then
        warn "udev does not run here (a container, or an image?): the rules hold from the next start on"
        return
    fi
    run udevadm control --reload
    local name options=()
    for name in gpio i2c-dev pwm tty video4linux media dma_heap; do options+=("--subsystem-match=$name"); done
    run udevadm trigger --action=add "${options[@]}"
}

explain_boot() {
    case $board in
        rpi|rpi5)
            step "What only you can decide: /boot/firmware/config.txt" \
                "Not changed here, because it depends on how the car is wired. Each needs a reboot." \
                "  PCA9685 board:      sudo raspi-config nonint do_i2c 0" \
                "  GPIO 18 and 19:     add the line dtoverlay=pwm-2chan   (up to Pi 4 it takes the analog sound's hardware)" \
                "  memory limit of the pilot: add cgroup_enable=memory to the one line of /boot/firmware/cmdline.txt" ;;
        jetson)
            step "What only you can decide: the 40-pin header" \
                "I2C of pins 3 and 5 is on as it comes: bus 7 on an Orin, bus 1 on older boards. A CSI camera is chosen with" \
                "  sudo /opt/nvidia/jetson-io/jetson-io.py" \
                "and needs JetPack's OpenCV: sudo /opt/hotlap/venv/bin/pip uninstall opencv-python" ;;
        *)
            step "Boot settings" "None are known for this machine: hotlap doctor shows which devices are there." ;;
    esac
}

finish() {
    if $start && in_system; then
        step "Starting" "The car is disarmed, and stays so until somebody arms it."
        run systemctl start hotlap.target
    fi
    step "Next" \
        "1. choose camera and actuator:  sudo nano /etc/hotlap/car.toml" \
        "2. wheels in the air:           sudo systemctl restart hotlap.target" \
        "3. what is missing still:       sudo -u hotlap hotlap doctor" \
        "4. the password of the page:    sudo -u hotlap hotlap console --show-password" \
        "5. the page, from a phone:      https://hotlap.local, after the name in car.toml; or https:// and the car's address" \
        "                                (its certificate is the car's own: the browser warns once)" \
        "6. calibrate, there or here:    sudo -u hotlap hotlap calibrate" \
        "7. a model:                     sudo -u hotlap hotlap models install /tmp/bundle.tar.gz --activate" \
        "8. drive:                       hotlap arm; hotlap stop"
    if $dry_run; then say; say "This was a dry run: nothing was changed."; fi
}

main() {
    read_options "$@"
    if ! $dry_run; then
        work=$(mktemp -d -t hotlap-install.XXXXXX)
        log=$work/log
        trap 'rm -rf "$work"' EXIT
    fi
    check_machine
    make_users
    make_folders
    write_settings
    install_program
    install_services
    install_rules
    explain_boot
    finish
}

main "$@"

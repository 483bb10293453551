# `make demo`, `make demo-scale` and `make test` set everything up by themselves; a second time they find it done.
#
# PYTHON     the Python that the environment is made from (make setup PYTHON=python3.12)
# PIP_FLAGS  further options of pip install (README.md says where the CPU build of torch is)

PYTHON ?= python3
PIP_FLAGS ?=
DEMO_TRACK ?= first_oval
CAR_FLAGS ?=

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.hotlap-ready
DEMO := demo-run
# Says that the demo-run that stands here is make's own and may be replaced.
DEMO_MARK := $(VENV)/.made-demo-run

# MuJoCo's own renderer needs no screen with EGL.
ifeq ($(shell uname -s),Linux)
export MUJOCO_GL ?= egl
endif
export PYTHON PIP_FLAGS

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lint unit check test demo demo-scale bench mutants test-firmware test-pages test-kernel test-systemd test-arm test-machines install-car clean

help: ## say what there is
	@printf 'make TARGET, with TARGET one of:\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1 \2/p' Makefile | while read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

setup: $(READY) ## make .venv with all that is needed (demo and test do it by themselves)

$(READY): setup.cfg pyproject.toml tools/setup.sh
	@tools/setup.sh $(VENV)
	@touch $(READY)

lint: $(READY)
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@layers=$$($(VENV)/bin/lint-imports 2>&1) || { printf '%s\n' "$$layers"; exit 1; }; printf '%s\n' "$$layers" | tail -n 1

unit: $(READY)
	@$(VENV)/bin/pytest -q -n 2 -m "not slow and not learning and not firmware"

check: lint unit ## ruff, mypy, import layers and the quick tests, under 90 s

# Rooms whose slow tests time no real process, so that two may run at once; the others have the machine to themselves.
# On a shared machine another tenant can take it away for a moment; one that fails is tried once more, and pytest says so.
SLOW := (slow or learning) and not (firmware or pages or kernel or systemd or arm) or firmware and not slow
UNTIMED := sim trainer calibration firmware firmware_bridge browser
TIMED := tests/browser/test_lost.py

test: check ## check, the slow and the learning tests, and the quick ones of the firmware
	@$(VENV)/bin/pytest -q -n 2 --reruns 1 -m "$(SLOW)" $(UNTIMED:%=tests/%) $(TIMED:%=--ignore=%)
	@$(VENV)/bin/pytest --reruns 1 -m "$(SLOW)" tests $(TIMED) $(UNTIMED:%=--ignore=tests/%)

demo: $(READY) ## train about 90 s, export, five time trials, video and plot, then three laps through gate and pilot
	@if [ -e $(DEMO) ] && [ ! -e $(DEMO_MARK) ]; then \
	    printf 'make demo: %s was not made by make demo\n  next: move it away\n' $(DEMO) >&2; exit 2; fi
	@rm -rf $(DEMO)
	@touch $(DEMO_MARK)
	@$(VENV)/bin/hotlap train --track $(DEMO_TRACK) --out $(DEMO) --time-limit 90s --seed 1
	@$(VENV)/bin/hotlap evaluate $(DEMO)/bundle.tar.gz --track $(DEMO_TRACK) --trials 5 \
	    --video $(DEMO)/laps.mp4 --plot $(DEMO)/laps.png --require-lap
	@printf 'state_dir = "%s/car"\n' $(DEMO) > $(DEMO)/car.toml
	@$(VENV)/bin/hotlap drive --config $(DEMO)/car.toml --model $(DEMO)/bundle.tar.gz --track $(DEMO_TRACK) --arm \
	    --laps 3 --duration 300s --trace $(DEMO)/pulses.csv

demo-scale: $(READY) ## three worker processes, Redis and S3 servers; a worker and Redis are killed on purpose (3 minutes)
	@$(PY) -m tools.demo_scale

bench: $(READY) ## camera steps per second and core, against the bound and CarRacing
	@$(VENV)/bin/hotlap bench sim

FIRMWARE_TOOLS := gcc-avr avr-libc binutils-avr libsimavr-dev libelf-dev gcc libc6-dev make pkg-config

test-firmware: $(READY) ## build the microcontroller's firmware and try it in simavr (as root it installs the tools)
	@command -v avr-gcc >/dev/null && command -v pkg-config >/dev/null && pkg-config --exists simavr || \
	    { [ "$$(id -u)" -eq 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends $(FIRMWARE_TOOLS); } || \
	    { printf 'next: sudo apt-get install --no-install-recommends %s\n' "$(FIRMWARE_TOOLS)" >&2; exit 1; }
	@$(MAKE) --no-print-directory -C firmware_bridge/firmware
	@$(VENV)/bin/pytest -m firmware

test-pages: $(READY) ## three wrong calibrations, with which the car leaves the road, put right in a browser
	@$(VENV)/bin/pytest -m pages --reruns 1

# As root only: they install tools with apt-get, and keep Debian roots in ~/.cache/hotlap (docs/hardware-tests.md).
MACHINE_TEST = @$(PY) -m tests.machine.needs $(1) && $(VENV)/bin/pytest -m $(1) tests/machine

test-kernel: $(READY) ## as root: I2C, PWM and camera back-ends on a stock Debian kernel in QEMU
	$(call MACHINE_TEST,kernel)

test-systemd: $(READY) ## as root: the services under a real systemd, in a container
	$(call MACHINE_TEST,systemd)

test-arm: $(READY) ## as root: the base install as aarch64 programs, under qemu-user
	$(call MACHINE_TEST,arm)

# What CI does: all three kinds, where their tools install; elsewhere they are skipped, and pytest says why.
test-machines: $(READY)
	@for kind in kernel systemd arm; do $(PY) -m tests.machine.needs $$kind || true; done
	@$(VENV)/bin/pytest -n 2 --dist loadfile -m "kernel or systemd or arm" tests/machine

mutants: $(READY) ## change the gate's code in 1200 ways and see the tests fail (half an hour)
	@nice -n 10 $(PY) tools/mutate_gate.py

install-car: ## install hotlap as a service on this Pi, Jetson or PC, as root (CAR_FLAGS=--dry-run only says what)
	@tools/install-car.sh $(CAR_FLAGS)

clean: ## remove what make made, .venv included
	@if [ -e $(DEMO_MARK) ]; then rm -rf $(DEMO); fi
	@rm -rf $(VENV) hotlap.egg-info build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

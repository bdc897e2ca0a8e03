# Every target sets up what it needs. On a fresh Debian 12 or 13:  make test  or  make demo

PYTHON := .venv/bin/python
KERNEL := $(PYTHON) tests/rig/testkernel.py run
EXAMPLES := 1000
# Where the environment says that no bytecode is kept, every daemon and command would be compiled anew when it starts:
# that takes longer than all the rest of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup base python demo test test-kernels test-install check lint man laws fuzz bench soak deb clean distclean

help: ## say what can be made (the default)
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## install what is missing: packages, .venv, the test kernel, Consul
	@tests/rig/setup.sh

base: # what the demo runs
	@tests/rig/setup.sh demo

python: # only .venv
	@tests/rig/setup.sh python

demo: base ## a two-node anycast lab that tells its story; HOLD=1 leaves it up to play with
	@$(KERNEL) $(if $(HOLD),--shell) -- $(PYTHON) -m tests.lab.demo $(if $(HOLD),--hold)

test: setup ## every test, the real ones on a kernel with IPVS; ARGS='-k name' goes to pytest
	@$(PYTHON) tests/rig/suite.py $(ARGS)

test-kernels: setup ## what a kernel decides, on Debian 12's and Debian 13's own, under QEMU; hours if it emulates
	@$(PYTHON) tests/rig/virtual.py debian-12 debian-13
	@broken=0; \
	$(PYTHON) tests/rig/suite.py --kernels $(ARGS) || broken=1; \
	for kernel in debian-12 debian-13; do \
		echo "##### what programming costs on $$kernel"; \
		$(KERNEL) --kernel $$kernel -- $(PYTHON) -m tests.bench --report --services 100 --rounds 3 || broken=1; \
	done; \
	exit $$broken

test-install: setup ## docs/INSTALL.md by the book, on two bare machines: a Debian 12 and a Debian 13 in one cluster
	@export ANYCASTLB_RELEASES="bookworm trixie"; \
	$(PYTHON) -m pytest -q tests/packaging/test_package.py -k debian && $(KERNEL) -- $(PYTHON) -m pytest tests/machine $(ARGS)

check: lint ## format, lint, types, import contracts, unit tests and laws
	$(PYTHON) -m pytest -q tests/unit tests/laws

lint: python # what looks at the code without running it
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy anycastlb tests/rig
	.venv/bin/lint-imports

man: python ## write the manual pages anew, from the commands' own help
	@$(PYTHON) docs/man/generate.py

laws: setup ## the laws and random histories with many more examples than in test: EXAMPLES=1000
	ANYCASTLB_EXAMPLES=$(EXAMPLES) $(PYTHON) -m pytest -q tests/laws tests/scenario/test_model.py
	@ANYCASTLB_EXAMPLES=$(EXAMPLES) $(KERNEL) -- $(PYTHON) -m pytest -q tests/kernel/test_histories.py
	ANYCASTLB_EXAMPLES=200 $(PYTHON) -m pytest -q tests/contract/test_haproxy_faults.py -k many_reloads
	ANYCASTLB_EXAMPLES=$(EXAMPLES) $(PYTHON) -m pytest -q tests/contract/test_haproxy_differential.py
	$(PYTHON) -m tests.fuzz.haproxy --documents $(EXAMPLES)00

fuzz: python ## mutants of documents, requests, answers, messages and files for SECONDS=300; again with SEED=1 ARGS='--only 7'
	@$(PYTHON) -m tests.fuzz --seconds $(or $(SECONDS),300) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: setup ## what a node costs, beside what was promised and beside ipvsadm (ALL=1: 10,000 services and routes too)
	@broken=0; \
	$(KERNEL) -- $(PYTHON) -m tests.bench || broken=1; \
	$(KERNEL) -- $(PYTHON) -m tests.bench.node $(if $(ALL),--all) || broken=1; \
	$(PYTHON) -m tests.bench.cycles $(if $(ALL),--all) || broken=1; \
	$(PYTHON) -m tests.bench.readers $(if $(ALL),--all) || broken=1; \
	$(PYTHON) -m tests.bench.busy || broken=1; \
	$(KERNEL) -- $(PYTHON) -m tests.bench.checks || broken=1; \
	$(PYTHON) -m tests.bench.checks --plain || broken=1; \
	$(PYTHON) -m tests.bench.catalog $(if $(ALL),--all) || broken=1; \
	$(PYTHON) -m tests.bench.routes $(if $(ALL),--all) || broken=1; \
	$(PYTHON) -m tests.bench.sizing $(if $(ALL),--all) || broken=1; \
	$(PYTHON) -m tests.bench.http || broken=1; \
	$(PYTHON) -m tests.bench.rules $(if $(ALL),,--release haproxy-13) || broken=1; \
	$(PYTHON) -m tests.bench.gateways $(if $(ALL),,--release haproxy-13) || broken=1; \
	$(KERNEL) -- $(PYTHON) -m tests.bench.effects || broken=1; \
	$(if $(ALL),$(KERNEL) -- $(PYTHON) -m tests.bench.tiers || broken=1;) \
	exit $$broken

soak: setup ## what checks leave behind after a hundred thousand, and a node of 10,000 services after an hour
	@$(PYTHON) -m tests.soak
	@$(KERNEL) --memory 8G -- $(PYTHON) -m tests.soak.hour

deb: ## a Debian package, in dist/, for the Debian it is built on
	@tests/rig/setup.sh deb
	@configs/debian/build.sh

clean: ## remove what tools and tests leave behind; keeps .venv and downloads
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache/reports build dist
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv and downloads too
	rm -rf .venv .cache *.egg-info

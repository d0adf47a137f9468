# FedWard. `make` alone says what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

# The first interpreter that is new enough; 3.11 is the one that the pinned versions were tried with.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: help demo test lint locks bench aggregation reproductions pages soak docs fuzz defences translations screenshots roles molecule audit site site-down clean packages docker

help: ## Say what there is
	@echo "FedWard: make TARGET"
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do printf '  %-13s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.demo ## Train one model on four hospitals' data, on this machine, as an ordinary user
	$(VENV)/bin/fedward demo

test: packages $(VENV)/.dev ## Run every suite that this machine can run, and print one table
	$(VENV)/bin/python tests/run_suites.py

lint: $(VENV)/.dev ## Style, types, and which room may import which
	$(VENV)/bin/python tests/run_suites.py lint

locks: $(VENV)/.dev ## Resolve what the images and hosts install anew, with the hash of every file
	$(VENV)/bin/fedward images lock

docs: $(VENV)/.dev ## Build the documentation into docs/_build/html; a warning is an error
	$(VENV)/bin/python tests/run_suites.py docs

bench: $(VENV)/.dev ## Measure what a round costs beside a bare TCP loop, and its memory
	$(VENV)/bin/python -m tests.benchmarks

aggregation: $(VENV)/.dev ## Measure each aggregator beside a numpy add, and the researcher's memory with 3 to 100 nodes (minutes, 5 GB)
	$(VENV)/bin/python -m tests.benchmarks.aggregation

reproductions: $(VENV)/.dev ## Run the published studies again and write their tables and figures (an hour); SIZE=whole for all of their data
	for study in mnist_vae brain_quality segmentation label_skew; do \
		OMP_NUM_THREADS=1 $(VENV)/bin/python -m docs.reproductions.$$study --size $(or $(SIZE),small) || exit 1; done

pages: $(VENV)/.dev ## Measure how long the GUI's pages take at a hospital of many years
	$(VENV)/bin/python -m tests.benchmarks.gui

soak: packages $(VENV)/.dev ## Run 500 rounds while every part is killed in turn; SOAK="--seed 7 --rounds 60" for another
	$(VENV)/bin/python -m tests.soak $(SOAK)

fuzz: $(VENV)/.dev ## Look for inputs that break a promise: thousands of new ones for each property
	FEDWARD_HYPOTHESIS=fuzz $(VENV)/bin/python -m pytest -q -m hypothesis --timeout 0 -o faulthandler_timeout=0 tests/unit

defences: $(VENV)/.dev ## Take each defence out of the code in turn, and see its test fail (an hour)
	$(VENV)/bin/python -m tests.defences

translations: $(VENV)/.dev ## Bring new texts of the GUI into its catalogues, and list those without a translation
	$(VENV)/bin/python -m tests.translations

screenshots: packages $(VENV)/.dev ## Make a picture of every page of the GUI, in both themes and two widths, into screenshots/
	$(VENV)/bin/python -m tests.browser.screenshots

site: docker $(VENV)/.dev ## Deploy a consortium on test hosts of this machine and train through its VPN, needs root; SUITE=bookworm for Debian 12
	$(VENV)/bin/python -m tests.site up

site-down: $(VENV)/.dev ## Take the test hosts of 'make site' away again
	$(VENV)/bin/python -m tests.site down

roles: $(VENV)/.dev ## Write the roles' READMEs from their argument specs
	$(VENV)/bin/python -m tests.roles_readme

molecule: docker $(VENV)/.dev ## Try every role on test hosts, needs root; SUITE=trixie for Debian 13, ROLES="firewall" for some
	$(VENV)/bin/python -m tests.molecule.run $(ROLES)

audit: $(VENV)/.dev ## Examine the hosts of 'make site': OpenSCAP, Lynis, our units, Docker; HOSTS="NAME NAME" for others
	$(VENV)/bin/python -m tests.site.audit $(HOSTS)

clean: ## Remove what was built here; the virtual environment as well
	rm -rf $(VENV) build dist docs/_build demo-run site-run artifacts screenshots .cache bench-results.json bench-gui-results.json bench-aggregation-results.json .pytest_cache \
		.mypy_cache .ruff_cache .import_linter_cache .hypothesis fedward.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages:
	@.ci/packages

docker:
	@.ci/docker

$(VENV)/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "FedWard needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "This Python cannot make a virtual environment (Debian: apt install python3-venv)."; exit 1; }

# torch first and by itself: pinned, so that no machine without a GPU fetches gigabytes of CUDA libraries.
$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt torch
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.demo $@

# Every target sets up what it needs by itself; the second time that takes no time.
# PYTHON=python3.12 make ... chooses the interpreter.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
unexport PYTHONPATH PYTHONHOME

PYTEST := .venv/bin/pytest
BENCH := PYTHONPATH=tests .venv/bin/python tests/benchmarks

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## make .venv with everything in it (no root needed)
	@deploy/setup/python-environment.sh

.PHONY: demo
demo: setup ## the whole pipeline on this host, with simulated clients
	@.venv/bin/smtpfeeds demo

.PHONY: test
test: setup test-programs lint ## lint and all tests; as root installs RabbitMQ and SMTP clients, starting nothing
	$(PYTEST) -m "not large" $(ARGS)

.PHONY: test-programs
test-programs: ## see to the programs that tests drive (RabbitMQ, swaks, nmap, smtp-source)
	@deploy/setup/test-programs.sh

.PHONY: lint
lint: setup ## ruff, mypy, basedpyright, import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/basedpyright
	.venv/bin/lint-imports

.PHONY: bench-sensor
bench-sensor: setup test-programs ## sessions per CPU-second, beside others; BENCH_OUT=FILE writes JSON
	$(BENCH)/bench_sensor.py

.PHONY: bench-ingest
bench-ingest: setup test-programs ## rows per second from broker to database; BENCH_OUT=FILE writes JSON
	$(BENCH)/bench_ingest.py

.PHONY: bench-origin
bench-origin: setup ## look-ups, conversion, swap of origin tables; BENCH_OUT=FILE writes JSON
	$(BENCH)/bench_origin.py

.PHONY: bench-small-host
bench-small-host: setup test-programs ## a sensor's memory, CPU and writes at rest and under attack; BENCH_OUT=FILE
	$(BENCH)/bench_small_host.py

.PHONY: bench-query
bench-query: setup ## one address, ten thousand, a mail log; beside psql, awk, grep; BENCH_LARGE=1: 10 M rows
	$(BENCH)/bench_query.py

.PHONY: bench-publish
bench-publish: setup test-programs ## a publication of a million entries beside a bare COPY; BENCH_LARGE=1: ten million
	$(BENCH)/bench_publish.py

.PHONY: bench-page
bench-page: setup test-programs ## the page in a browser: time to show, to the first answer; BENCH_OUT=FILE
	$(BENCH)/bench_page.py

.PHONY: faults
faults: setup test-programs ## the long fault runs (about 50 minutes): kills and cuts under load
	$(PYTEST) -s -m large tests/faults $(ARGS)

.PHONY: readers
readers: setup test-programs ## a million rows with hostile names through every consumer's own reader (about half an hour)
	$(PYTEST) -s -m large tests/contract $(ARGS)

.PHONY: truth
truth: setup test-programs ## how right the classes are: known clients against real sensors (4 minutes)
	@deploy/setup/truth-clients.sh build/truth
	PYTHONPATH=tests .venv/bin/python -m truth.run docs/explanation/how-right.md

.PHONY: acceptance
acceptance: setup test-programs ## acceptance with the large origin tables: ASN_DATA=FOLDER
	SMTPFEEDS_ASN_DATA="$(ASN_DATA)" $(PYTEST) -m large --timeout=3600 tests/acceptance tests/integration $(ARGS)

.PHONY: test-debian13
test-debian13: ## as root: all tests in a fresh Debian 13, with user namespaces and without (an hour); WHO=user
	deploy/setup/test-debian13.sh

.PHONY: acceptance-two-hosts
acceptance-two-hosts: setup ## as root: docs/how-to/two-hosts.md on freshly booted machines; SUITE=bookworm
	PYTHONPATH=tests .venv/bin/python tests/acceptance/fresh_debian.py $(SUITE)

.PHONY: docs
docs: setup ## the reference pages, from the code
	.venv/bin/python docs/make_reference.py
	.venv/bin/python docs/make_licences.py

.PHONY: pictures
pictures: setup ## the README's pictures, from the demo's data (needs chromium)
	.venv/bin/python docs/make_pictures.py

.PHONY: clean
clean: ## remove what was made here, .venv and the demo's folder included
	rm -rf .venv .cache build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything sets itself up: Python 3.11 or newer, make and a shell are all it takes.
SHELL := /bin/sh
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test setup lint checkov format bench bench-cursors bench-verify soak audit clean

help:
	@echo "make demo           ingest a sample database on this machine and show it"
	@echo "make test           run the tests"
	@echo "make lint           ruff, mypy, cfn-lint, sam validate"
	@echo "make checkov        checkov over the template (installed to .tidelog; a minute, once)"
	@echo "make setup          only make .venv with .venv/bin/tidelog"
	@echo "make format         format the code"
	@echo "make bench          measure beside dlt, sling, tap-postgres, duckdb, … (installed to .tidelog); half an hour"
	@echo "                    (BENCH=full for 20 million rows; hours)"
	@echo "make bench-cursors  what tools with a timestamp cursor lose: dlt, tap-postgres; two minutes"
	@echo "make bench-verify   prove that a lake of ten million rows is right: time and memory; five minutes"
	@echo "make soak           an hour of steps in any order: writers, DDL, ticks, sweeps, crashes (SOAK=60 for a minute)"
	@echo "make audit          ask for known vulnerabilities of the pinned packages (pip-audit; needs the internet)"
	@echo "make clean          remove what the others made"

demo: $(READY)
	@$(BIN)/tidelog demo

test: $(READY)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

setup: $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint template.yaml
	AWS_DEFAULT_REGION=eu-west-2 SAM_CLI_TELEMETRY=0 $(BIN)/sam validate --lint

# An environment of its own: its pins are not ours.
CHECKOV := .tidelog/checkov
checkov: $(CHECKOV)/.ready
	$(CHECKOV)/bin/checkov --file template.yaml --framework cloudformation --compact --quiet --skip-download

$(CHECKOV)/.ready: tools/checkov.txt tools/make-venv
	@mkdir -p $(CHECKOV)
	@sh tools/make-venv $(CHECKOV) --requirement tools/checkov.txt
	@touch $@

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

BENCH :=
bench: $(READY)
	$(BIN)/python -m benchmarks $(if $(BENCH),--$(BENCH))

bench-cursors: $(READY)
	$(BIN)/python -m benchmarks.cursors

bench-verify: $(READY)
	$(BIN)/python -m benchmarks.verifying

audit: $(READY)
	@test -x .tidelog/audit/bin/pip-audit || { $(BIN)/python -m venv .tidelog/audit && \
		.tidelog/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	.tidelog/audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement shared/requirements.txt
	.tidelog/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

SOAK := 3600
soak: $(READY)
	TIDELOG_CHAOS_SECONDS=$(SOAK) $(BIN)/python -m pytest -s tests/integration/test_machine.py

$(READY): pyproject.toml constraints.txt tools/make-venv
	@sh tools/make-venv .venv
	@touch $@

clean:
	rm -rf .venv .aws-sam .tidelog .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

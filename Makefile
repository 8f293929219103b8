# `make` lists what there is. Everything runs in .venv, which `make install` makes and every target checks first.
# PYTHON=/path/to/python3.12 chooses the interpreter; MAUTO_HOME=folder another home than ./.mauto.

PY := .venv/bin/python
STACK := $(PY) -m mautolib.stack
UV := $(if $(shell command -v uv),uv,.venv/bin/uv)
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
# A file of tests stays together: its tests may share what they set up.
CORES := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help install install-dev up down status logs psql dev migrate demo recipe reset test test-thorough test-all lint fmt bench contract \
	openapi docs fuzz-api bench-security floors \
	check-ledger check-real chaos chaos-ops planted-bugs lock scale-check upgrade-check

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## Make .venv with everything pinned; does nothing when it is up to date
	@$(or $(PYTHON),python3) mautolib/stack/bootstrap.py

install-dev:
	@$(or $(PYTHON),python3) mautolib/stack/bootstrap.py --dev

up: install  ## Start PostgreSQL, Airflow, the API and the mail sink; repair what is half dead
	@$(STACK) up

down: install  ## Stop them; data stays
	@$(STACK) down

status: install  ## Show health, memory, addresses and where the password is
	@$(STACK) status

logs: install  ## Follow the logs (PART=api for one of them)
	@$(STACK) logs --follow $(PART)

psql: install  ## Open psql as the read-only analyst
	@$(STACK) psql

dev: install  ## Run a second API that restarts on changes, on the databases of `make up` (PORT=8001)
	@$(STACK) run -- env MAUTO_API_PORT=$(or $(PORT),8001) .venv/bin/watchfiles --filter python \
		"$(PY) -m api" api mautolib

migrate: install  ## Bring the warehouse to the newest schema
	@$(STACK) migrate

demo: install  ## Show the whole main job on generated data (CONTACTS=10000)
	@$(PY) -m mautolib.demo $(if $(CONTACTS),--contacts $(CONTACTS))

recipe: install  ## Load a ready-made workflow (NAME=welcome-series ACTIVE=1 switches it on)
	@$(STACK) run -- $(PY) -m mautolib.recipes $(if $(NAME),load $(NAME) $(if $(ACTIVE),--activate),list)

reset: install  ## Stop the demo and remove its data
	@$(STACK) reset

lint: install-dev  ## Check style and types
	@.venv/bin/ruff check .
	@.venv/bin/mypy

fmt: install-dev  ## Correct what can be corrected by itself
	@.venv/bin/ruff check --fix .

test: lint  ## Lint, then every test but the long ones, on all cores (ARGS="-k name -n 0" narrows)
	@.venv/bin/pytest -m "not slow and not thorough" $(CORES) $(ARGS)

test-thorough: install-dev  ## The tests that `make test` leaves out and that take less than a minute each
	@.venv/bin/pytest -m "thorough and not slow" $(CORES) $(ARGS)

test-all: lint  ## Lint, then every test
	@.venv/bin/pytest $(CORES) $(ARGS)

bench: install-dev  ## Run one benchmark (NAME=sending)
	@$(PY) -m benchmarks.$(or $(NAME),$(error say which: make bench NAME=... ($(basename $(notdir $(wildcard benchmarks/[a-z]*.py))))))

bench-security: install-dev  ## Time what must not take long, or must take equally long, under attack
	@$(PY) -m benchmarks.security

contract: install-dev  ## List the operations of the HTTP contract: served, not yet
	@$(PY) -m tests.api.contract

openapi: install-dev  ## Write docs/openapi.json anew
	@$(PY) -m tests.api.contract --write

docs: install  ## Write docs/analytics.md anew from the comments of the running warehouse
	@$(STACK) run -- $(PY) -m mautolib.analytics.documentation docs/analytics.md

fuzz-api: install-dev  ## Fuzz every operation of the API (CASES=10000 SEED=1 ONLY=/api/v1/tags/)
	@$(PY) -m tests.fuzz.api --cases $(or $(CASES),10000) --seed $(or $(SEED),1) $(if $(ONLY),--only '$(ONLY)')

floors: install-dev  ## Run a part of the tests with the oldest packages that requirements.in allows
	@$(PY) -m tests.floors $(ARGS)

chaos: install-dev  ## Kill senders 650 times, freeze them, restart the database: nobody lost, nobody mailed twice (ARGS=--help)
	@$(PY) -m tests.chaos $(ARGS)
	@$(if $(ARGS),,$(PY) -m tests.chaos --fail-points 50)
	@$(if $(ARGS),,$(PY) -m tests.chaos.airflow)
	@$(if $(ARGS),,$(PY) -m tests.chaos.webhooks)

scale-check: install  ## Run the main job on Redis and two Celery workers, and on one machine: equal figures (ARGS=--help)
	@test -x .venv-scale/bin/airflow || $(UV) venv --quiet --python .venv/bin/python .venv-scale
	@$(UV) pip install --quiet --python .venv-scale/bin/python --compile-bytecode --require-hashes --no-deps \
		-r requirements.txt -r requirements-scale.txt
	@$(UV) pip install --quiet --python .venv-scale/bin/python --no-deps --no-build-isolation -e .
	@.venv-scale/bin/python -m tests.scale $(ARGS)

upgrade-check: install-dev  ## Move a warehouse with data from an older PostgreSQL to the embedded one (ARGS=--help)
	@$(PY) -m tests.upgrade_check $(ARGS)

chaos-ops: install-dev  ## Restart the database three times under load on the API: only 503s, nothing lost (ARGS=--help)
	@$(PY) -m tests.chaos.operations $(ARGS)

planted-bugs: install-dev  ## Put known faults into a copy, one after the other: each must turn a test red
	@$(PY) -m tests.planted_bugs $(ARGS)

check-ledger: install  ## Check the send ledger of the running stack (SINK=folder also compares a mail sink)
	@$(STACK) run -- $(PY) -m mautolib.ledger.check $(if $(SINK),--sink-log $(SINK))

check-real: install-dev  ## Import real files and compare with their golden numbers (DATA=folder)
	@MAUTO_REAL_DATA=$(or $(DATA),$(error say where the files are: make check-real DATA=folder)) \
		.venv/bin/pytest tests/real $(ARGS)

lock: install  ## Resolve requirements.in and requirements-dev.in again
	@$(COMPILE) --upgrade requirements.in -o requirements.txt
	@$(COMPILE) --upgrade requirements-dev.in -o requirements-dev.txt
	@$(COMPILE) --upgrade requirements-scale.in -o requirements-scale.txt

# Two commands do all the set-up: `make demo` and `make test`. `make` alone lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo up test lint format lock bench bench-drift bench-clone bench-crash bench-crash-kafka bench-outage bench-postgres bench-day bench-vault bench-bucket bench-prove bench-reconcile adversary damage fuzz screenshots clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml scripts/make_venv.sh
	@PYTHON="$(PYTHON)" sh scripts/make_venv.sh $(VENV)
	@touch $@

demo: $(STAMP) ## run the main job on the embedded estate: capture, crash, restore, reconcile
	@$(BIN)/dr-assets demo

up: $(STAMP) ## keep the embedded estate and the Dagster UI running until Ctrl-C
	@$(BIN)/dr-assets up

test: $(STAMP) ## run lint and every test, on real engines
	@sh scripts/lint.sh $(BIN)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	@sh scripts/lint.sh $(BIN)

format: $(STAMP) ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: ## compile requirements.lock anew (wants uv)
	uv pip compile pyproject.toml --extra engines --extra hsm --extra openbao --extra timestamp --extra anchor \
		--group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header -o requirements.lock
	grep -oE '^[a-zA-Z0-9_.-]+==[^ ;\\]+' requirements.lock | sort -u >build-pins.txt
	uv pip compile pyproject.toml --extra hsm --extra openbao --extra timestamp --universal --python-version 3.11 \
		--constraints build-pins.txt --no-annotate \
		--generate-hashes --no-emit-index-url --no-header -o infra/image/requirements.lock
	rm build-pins.txt

bench: bench-crash bench-postgres bench-day bench-vault bench-kafka damage ## every measurement of this release

bench-crash: $(STAMP) ## 100 kill -9 rounds, loss counted from acknowledged ids; goes on where it was stopped
	@$(BIN)/python scripts/crash_rounds.py --rounds 100 --output benchmarks/results/crash.json

bench-crash-kafka: $(STAMP) ## 20 kill -9 rounds of broker, capture and store; loss and duplicates counted from acknowledged records
	@$(BIN)/python scripts/kafka_crash_rounds.py --rounds 20 --output benchmarks/results/kafka_crash.json

bench-postgres: $(STAMP) ## beside pgBackRest and barman-cloud: backup, restore, PITR, archiving, lag, cost, memory
	@sh scripts/install_bench_tools.sh >/dev/null
	@$(BIN)/python -m benchmarks.postgres

bench-day: $(STAMP) ## a day of WAL at one micro-segment a second: roll-up, and restore against full segments
	@$(BIN)/python -m benchmarks.day_of_wal

bench-vault: $(STAMP) ## 2 GB verified, a million leaves appended and proven: MB/s, leaves/s, ms
	@$(BIN)/python -m benchmarks.vault

bench-bucket: $(STAMP) ## 100,000 documents copied through two kills and restored; a million listed: objects/s, MB/s, memory
	@$(BIN)/python -m benchmarks.bucket

bench-prove: $(STAMP) ## the prover beside a capture under 500 transfers a second: replayed and reconciled lag, cost
	@$(BIN)/python -m benchmarks.prover

bench-drift: $(STAMP) ## 90 simulated days of backups' statistics: false ambers, and how soon planted damage is named
	@$(BIN)/python -m benchmarks.drift

bench-clone: $(STAMP) ## copies of a 2 GB ledger at random moments of a day: seconds until they answer
	@$(BIN)/python -m benchmarks.clone --prover

bench-kafka: $(STAMP) ## 1M records of 300 B on Apache Kafka: export, live capture, restore, pads: MB/s, CPU, lag
	@$(BIN)/python -m benchmarks.kafka

bench-reconcile: $(STAMP) ## 10M postings in Postgres against 10M lines in a file, 100M by spilling, Spark, beside reladiff
	@sh scripts/install_reladiff.sh >/dev/null
	@$(BIN)/python -m benchmarks.reconcile

bench-outage: $(STAMP) ## the object store hung, then slow, for ten minutes each: memory, spool, slot, alarms, catching up
	@$(BIN)/python scripts/outage.py --how hung --spool-mib 24 --slot-mib 192 --output benchmarks/results/outage.json
	@$(BIN)/python scripts/outage.py --how slow --spool-mib 24 --slot-mib 192 --output benchmarks/results/outage.json

damage: $(STAMP) ## 200 seeded trials of every kind of damage, beneath the lock
	@$(BIN)/python scripts/damage_trials.py --seeds 200

adversary: $(STAMP) ## 50 seeds of every attack that S3 lets a thief of keys make; a restore has to stay the same
	@$(BIN)/python scripts/adversary.py --seeds 50

fuzz: $(STAMP) ## feed the format's parser with damaged and hostile bytes
	@$(BIN)/python scripts/fuzz_parser.py --seconds 60

screenshots: $(STAMP) ## take docs/images anew from a running UI (wants chromium)
	@$(BIN)/python scripts/screenshots.py

clean: ## remove what the demo, the tests and the set-up made
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m dr_assets.engines.placement --remove; fi
	rm -rf .demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist $(VENV)
	find dr_assets dr_assets_tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# Two commands for a fresh machine with Python >= 3.11, a C compiler and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
NATIVE := $(wildcard native/*.c native/*.h)
SAMPLE := data_samples/big
RUN := runs/demo
# Processes that share the everyday tests.
JOBS ?= 2
# What is installed for them; EXTRAS=dev leaves torch out, and the tests that need it are not collected.
EXTRAS ?= dev,train

.PHONY: demo test lint types bench sanitize proof soak train-kills fuzz clean

demo: $(VENV)/.core
	@$(BIN)/python data_samples/make_sample.py $(SAMPLE)
	@echo; echo '$$ curate run demo'
	@$(BIN)/curate run demo --run $(RUN) --quiet
	@$(BIN)/curate sql $(RUN) "SELECT stage, reason, sum(documents)::BIGINT AS documents, round(sum(bytes) / 1e6, 2) AS MB FROM funnel GROUP BY position, stage, reason ORDER BY position, reason"
	@echo; echo 'the ten best:'
	@$(BIN)/curate sql $(RUN) "SELECT round(dsir, 1) AS dsir, source, left(text, 70) AS text FROM docs JOIN texts USING (doc) WHERE dsir IS NOT NULL ORDER BY dsir DESC, docs.curate_identity LIMIT 10"
	@echo; echo 'the ten worst:'
	@$(BIN)/curate sql $(RUN) "SELECT round(dsir, 1) AS dsir, source, left(text, 70) AS text FROM docs JOIN texts USING (doc) WHERE dsir IS NOT NULL ORDER BY dsir, docs.curate_identity LIMIT 10"
	@echo; echo '$$ curate compare demo --judge ngram'
	@$(BIN)/curate compare demo --run $(RUN) --quiet
	@echo; echo 'next:'
	@echo '  $(BIN)/curate explain $(RUN) $$($(BIN)/curate sql $(RUN) "SELECT curate_identity FROM selected ORDER BY select_rank LIMIT 1" --format csv | tail -1)'
	@echo '  $(BIN)/curate sql $(RUN) "SELECT source, count(*) AS documents FROM selected GROUP BY 1 ORDER BY 2 DESC"'
	@echo '  $(BIN)/curate run demo --run $(RUN) --set stages.select.budget=1MB     # only the choice is made again'
	@echo '  $(BIN)/curate --help; docs/ explains each method'

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run_all.py

# The longer proofs: many kills, large random pools. `make test` has a short form of each.
proof: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# Runs killed at random moments, compared byte for byte with undisturbed ones: SOAK=10000 for a night.
SOAK ?= 200
soak: $(VENV)/.dev
	$(BIN)/python tests/soak.py --kills $(SOAK) --out benchmarks/results/soak.json

# Trainings killed at random moments, bit for bit as undisturbed ones.
train-kills: $(VENV)/.dev
	$(BIN)/python tests/train_kills.py --kills 20 --out benchmarks/results/train_kills.json

# Damaged files at random: each is read with every row accounted for, or refused by name; the outcome in benchmarks/results/fuzz.json.
FUZZ ?= 3000
fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzzing.py proof $(FUZZ) benchmarks/results/fuzz.json

# The kernels' tests once more under the address and undefined-behaviour sanitizers.
sanitize: $(VENV)/.dev
	bash native/sanitize.sh $(BIN)/python

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "curate needs Python 3.11 or newer; make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python pyproject.toml .ci/constraints.txt $(NATIVE)
	$(PIP) install -c .ci/constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml .ci/constraints.txt $(NATIVE)
	$(PIP) install -c .ci/constraints.txt -e '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) build dist *.egg-info curate/*.so runs $(SAMPLE)

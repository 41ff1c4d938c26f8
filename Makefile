# See CONTRIBUTING.md. `make demo` and `make test` also set up a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN := OMP_NUM_THREADS=1
PYTEST := $(RUN) $(BIN)/python -m pytest
JOBS ?= 2
STUDY ?= study

.PHONY: bench bench-report report-assets fuzz demo study test test-slow soak check format clean help

help:
	@echo "make demo       set up and run the demonstration"
	@echo "make test       set up and run the tests (make test-slow: slow tests; make soak: long tests, never in CI)"
	@echo "make bench      measure this machine"
	@echo "make bench-report    a report of 170,000 scans in Chromium (make report-assets: bundle its script; needs Node.js)"
	@echo "make fuzz       100,000 mutated inputs for every reader"
	@echo "make study      the few-shot studies of docs/foundation.md, hours; goes on where it stopped (folder: STUDY=...)"
	@echo "make check      lint, types, import contracts (make format: format the code)"

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) -e ".[test]"
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(PIP) -e ".[test,check]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/ukb-infer demo

test: $(VENV)/.test
	$(PYTEST) -n $(JOBS)

test-slow: $(VENV)/.test
	$(PYTEST) -m "slow and not gpu and not soak" -n $(JOBS)

soak: $(VENV)/.test
	$(PYTEST) -m soak -s

fuzz: $(VENV)/.test
	$(RUN) $(BIN)/python tests/fuzz/fuzz.py

study: $(VENV)/.test
	$(RUN) $(BIN)/python examples/fewshot_study.py --work $(STUDY)/heads --seeds 5 --shots 24,8,24,24 --many 120 --test 120 \
		--pool 500 --pretrain-steps 6000 --batch-size 8 --steps 0 --folds 2 --arms mae,hybrid,contrastive,untrained,scratch,in-domain --jobs $(JOBS)
	$(RUN) $(BIN)/python examples/body_fewshot_study.py --work $(STUDY)/bodies --tasks all --labels 20,50,200 --seeds 3 \
		--labelled 250 --test 250 --local 50 --pool 1000 --pretrain-steps 1000 --batch-size 24 --steps 0 --folds 2 --jobs $(JOBS)

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) -e ".[bench]"
	@touch $@

bench: $(VENV)/.bench
	$(BIN)/ukb-infer bench --out bench

# The report's script, bundled from versions pinned in package.json; the result is committed.
report-assets:
	cd ukb_infer/report/page && npm install --no-package-lock --no-audit --no-fund && npm run build

bench-report: $(VENV)/.test
	$(RUN) $(BIN)/python tests/report/bench.py

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist ukb-infer-demo .pytest_cache .mypy_cache .ruff_cache

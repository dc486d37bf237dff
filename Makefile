# Everything runs in an environment of its own, made on first use from the known-good set of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# Tests start hundreds of processes: each would compile the package anew where bytecode is not kept.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-core slow coverage check docs bench models

demo: $(VENV)/.ready
	$(BIN)/tsmzoo demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest -q -n 3 --dist loadfile

# Real conversions, trainings and environments of their own: some twenty minutes.
slow: $(VENV)/.ready
	$(BIN)/python -m pytest -q -m slow -n 2 --dist worksteal --durations 15

# The tests without a converter library, or with those of one extra: `make test-core EXTRA=onnx`.
comma = ,
CORE = $(VENV)-core$(addprefix -,$(EXTRA))
test-core:
	$(PYTHON) -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[test$(addprefix $(comma),$(EXTRA))]'
	$(CORE)/bin/python -m pytest -q -n 3 --dist loadfile

# The tests once more, and which lines they ran: a summary, and htmlcov/.
coverage: $(VENV)/.ready
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --cov --cov-report term:skip-covered --cov-report html

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(COG) --check $(PAGES)
	$(MKDOCS)

# Rewrites the generated tables and the schema of registries, and builds the documentation in site/.
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean
PAGES = README.md docs/*.md docs/tutorials/*.md
COG = $(BIN)/cog -P -I docs -p "import notebook, results, tables" --verbosity 1
docs: $(VENV)/.ready
	$(BIN)/python -m tsmzoo.registry.json_schema > schema.json.part
	mv schema.json.part tsmzoo/registry/schema.json
	$(COG) -r $(PAGES)
	$(MKDOCS)

# Measures, and rewrites BENCHMARKS.md: some twenty minutes. ONNX2TF may name onnx2tf's program, which is compared with.
bench: $(VENV)/.ready
	$(BIN)/python tests/bench/write.py

# Trains the bundled models as they were trained, in models/: an hour or two, two at a time, one thread each,
# which is faster than two threads for one. A run that was stopped goes on.
MODELS = tsm_mbv2_motion tsm_mbv2_motion_online tsn_mbv2_motion
models: $(VENV)/.ready
	test -d models/train || $(BIN)/tsmzoo data motion models/train --videos 16800 --seed 1
	test -d models/val || $(BIN)/tsmzoo data motion models/val --videos 1400 --seed 2
	printf '%s\n' $(MODELS) | OMP_NUM_THREADS=1 xargs -P 2 -I{} \
		$(BIN)/tsmzoo train {} --data models/train --val models/val -o models/{}

$(VENV)/.ready: pyproject.toml constraints.txt
	@# Compiling all that is installed takes longer than compiling what is imported.
	@echo "Installing into $(VENV): some 2.5 GB, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	touch $@

# Everything runs in an environment of its own, made on first use from the known-good set of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test slow check readme

demo: $(VENV)/.ready
	mkdir -p demo
	$(BIN)/tsmzoo list --mode online
	$(BIN)/tsmzoo flops tsm_mbv2_online
	$(BIN)/python .ci/moving_square.py demo/clip.mp4
	$(BIN)/tsmzoo export tsm_mbv2_online --to tflite --weights random -o demo/tsm_mbv2_online.tflite
	$(BIN)/tsmzoo run demo/tsm_mbv2_online.tflite demo/clip.mp4

test: $(VENV)/.ready
	$(BIN)/python -m pytest -q

# Real conversions and environments of their own: some ten minutes.
slow: $(VENV)/.ready
	$(BIN)/python -m pytest -q -m slow

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/cog -P --check README.md

# Rewrites the generated parts of README.md.
readme: $(VENV)/.ready
	$(BIN)/cog -P -r README.md

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some 2.5 GB, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

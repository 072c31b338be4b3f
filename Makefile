# Two commands do all the set-up: `make demo` and `make test`. `make comfyui` brings what the tests of nodes need.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
OLD := $(VENV)/transformers-4.57
# Not what compares with Diffusers, which does not import beside it.
OLD_TESTS := tests/test_encoder.py tests/test_checkpoints.py tests/test_checkpoint_errors.py tests/test_formats.py \
	tests/test_loads.py tests/test_precision.py tests/test_download.py tests/test_headers.py tests/test_shift.py tests/test_transformers.py \
	tests/test_tiny_model.py::test_the_demo tests/test_tiny_model.py::test_they_load_as_any_files_do \
	tests/test_tiny_model.py::test_converted_they_make_the_same_picture \
	tests/test_cli.py::test_edit_saves_a_png_with_its_parameters tests/test_cli.py::test_generate_ask_and_rewrite
NEWEST := .venv-newest
BOTH := -n 2 --dist loadfile  # cores, one thread each; a file keeps its fixtures
PIP := -m pip install --quiet --constraint constraints.txt
# Which tests did not run, if any: tests/conftest.py writes it.
UNRUN := $(VENV)/unrun
# The version that the tests of nodes run in, as it is tagged.
COMFYUI := v0.33.0
TORCH_COMFY ?= torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0

.PHONY: web types demo quick test check-model comfyui test-browser test-newest matrix mutants constraints bench fuzz malformed soak \
	kills scale replicas tiny eval-tiny format clean

demo: $(VENV)/.installed
	$(BIN)/joyimage demo -o demo

# Under a minute on two cores: neither what takes over two seconds nor what needs a ComfyUI.
quick: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest $(BOTH) -m "not slow and not comfy and not browser" --ignore=tests/model --ignore=tests/comfy

# All but the widgets and the sixteen example scenes, which take a minute and a half of a processor: check-model has those.
test: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) types
	UNRUN=$(UNRUN) $(BIN)/pytest $(BOTH) --ignore=tests/comfy/browser --ignore=tests/browser --ignore=tests/model/test_example_scenes.py
	PYTHONPATH=$(OLD) $(BIN)/pytest $(BOTH) $(OLD_TESTS) -k "not (test_loads and (mmdit or vae))"
	@if command -v npm >/dev/null; then $(MAKE) web; else echo 'web/ is not linted: there is no npm'; fi
	@cat $(UNRUN)

# What holds for the bundled weights alone. New ones edit nothing outside tests/model and web/examples.
check-model: $(VENV)/.tested
	$(BIN)/pytest $(BOTH) -m "model and not browser"

# The ComfyUI of the tests of nodes, in $COMFYUI_PATH or ~/comfy/ComfyUI. SOURCE names a clone to take where there is no network.
comfyui:
	$(PYTHON) -m tools.comfyui $(COMFYUI) $(TORCH_COMFY) $(if $(SOURCE),--source "$(SOURCE)")

# The server's page by hand, and the widgets in two frontends and both renderers: over half an hour, with ComfyUI and Chromium.
test-browser: $(VENV)/.tested
	$(BIN)/pytest tests/browser tests/comfy/browser

# The suite with the newest release of everything that is not pinned in pyproject.toml, in an environment of its own.
test-newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade pip
	$(NEWEST)/bin/python -m pip install --quiet --upgrade "$(TORCH)" --editable ".[test]"
	$(NEWEST)/bin/pytest $(BOTH) --ignore=tests/comfy

# Least and newest of Python, torch and transformers, one environment after the other; tools/matrix.py lists them. It takes
# gigabytes of downloads and half an hour, and each `python3.N` from PATH.
matrix:
	$(PYTHON) -m tools.matrix $(ROWS)

# Change the library in 300 small ways and see which of them the tests let pass: an hour on one core. Killed, it goes on.
mutants: $(VENV)/.mutants
	$(BIN)/python -m tools.mutants $(MUTANTS)

constraints:
	{ grep '^#' constraints.txt; $(NEWEST)/bin/pip freeze --exclude-editable --exclude torch | sed 's/$$/ ; python_version >= "3.11"/'; } > constraints.part
	mv constraints.part constraints.txt

# With the types of ComfyUI where there is one, and all the rest without.
types: $(VENV)/.tested
	$(BIN)/python -m tools.typecheck

# What checks the widgets; they need none of it to run.
web: node_modules
	npm run --silent lint
	npm run --silent types

node_modules: package.json
	npm install --silent --no-package-lock --no-audit --no-fund
	touch $@

# Beside Diffusers, and beside ComfyUI's own model where there is one; each option of a step. Under nine minutes on two cores.
bench: $(VENV)/.tested
	$(BIN)/python -m tools.bench

# 20,000 damaged files of every kind on all that reads files: some twenty minutes on two cores. SEED=2 takes others.
fuzz: $(VENV)/.tested
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.fuzz --count 700 --seed $(or $(SEED),0)

# 1,000 malformed requests to a server: is each answered with a reason?
malformed: $(VENV)/.tested
	$(BIN)/python -m tools.malformed --seed $(or $(SEED),0)

# 500 mixed prompts through one ComfyUI, 20 of them interrupted: is each answered, and does its memory stay where it was?
soak: $(VENV)/.tested
	$(BIN)/python -m tools.soak

# Thirty runs killed at random moments, alone and two in a folder: is anything lost, replaced or left lying about?
kills: $(VENV)/.tested
	$(BIN)/python -m tools.kills

# 2,000 edits by one worker and by two, then with kills: their rate, and whether each row has its picture once. Half an hour.
scale: $(VENV)/.tested
	$(BIN)/python -m tools.scale_batch

# The server on a local Ray, under load and without: does a second replica come, and go again? Some three minutes.
replicas: $(VENV)/.tested
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.replicas

# Train the bundled model anew: four to five hours on two cores. Killed, it goes on from its last checkpoint.
tiny: $(VENV)/.installed
	$(BIN)/python -m tools.tiny --folder build/tiny

# Judge it on held-out scenes and on the examples, and compare schedules, solvers and guidance: half an hour on two cores.
eval-tiny: $(VENV)/.installed
	$(BIN)/python -m tools.tiny.evaluate --compare 60
	$(BIN)/python -m tools.tiny.examples --check
	$(BIN)/python -m tools.tiny.shortcuts --anew --docs

format: $(VENV)/.tested
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python $(PIP) --editable .
	touch $@

# The newest transformers is installed beside the oldest supported one, which lives in a folder of its own.
$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python $(PIP) --editable ".[test]"
	$(BIN)/python -m pip install --quiet --upgrade --target $(OLD) --no-deps "transformers==4.57.6" "huggingface-hub==0.36.2" "tokenizers==0.22.2"
	touch $@

$(VENV)/.mutants: $(VENV)/.tested
	$(BIN)/python $(PIP) --editable ".[test,mutants]"
	touch $@

clean:
	rm -rf $(VENV) $(NEWEST) demo

# One verb each. `make demo` and `make test` install all they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo install test lint bench gpu docs clean

demo: install
	$(BIN)/fastdraw demo --out demo

install: $(INSTALLED)

# torch comes first: the extension is then built against it, with no second copy of torch for the build.
$(INSTALLED): pyproject.toml setup.py $(wildcard csrc/*.* csrc/*/*.*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "fastdraw needs Python 3.10 or newer: make PYTHON=python3.12 demo")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip 'setuptools>=77' wheel ninja
	$(BIN)/pip install --quiet 'torch>=2.11' torchvision numpy
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

test: install lint
	$(BIN)/python -m pytest tests
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/ops -k triton

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu

bench: install
	$(BIN)/python -m pytest benchmarks --benchmark-only

# For a machine with a GPU and perhaps no network: uses the Python that is there, and installs nothing from outside.
gpu:
	$(PYTHON) -m benchmarks.gpu.run

# Register, spill and shared-memory figures of every GPU kernel; needs no GPU.
docs: install
	$(BIN)/python -m fastdraw.kernels.compile

clean:
	rm -rf $(VENV) build demo fastdraw/_C.abi3.so fastdraw/_build.json *.egg-info

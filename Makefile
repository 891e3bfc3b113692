# dlnotes: every command that a reader, a teacher or an author needs.
# The environment .venv is made at the first use, with the versions of constraints.txt.

# The newest Python that the pinned versions were tested on; `make PYTHON=… lab` names another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo "$$p" && break; done)
RUN = .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help lab test gpu env notebooks exercises lint format clean distclean

help:  ## show this list
	@echo "make lab        open the book in JupyterLab (the first time it installs it)"
	@echo "make test       run every test"
	@echo "make gpu        test and measure the CUDA kernels on this machine's GPU, if it has one"
	@echo "                (8 minutes; longer: make gpu MINUTES=60)"
	@echo "make notebooks  run the chapters' text again and store what changed"
	@echo "                (one chapter: make notebooks CHAPTER=02_mlp)"
	@echo "make exercises  build the exercises and solutions from their master texts"
	@echo "make lint       check the code's style, and that all built files are in step"
	@echo "make format     lay the code out"
	@echo "make env        only make the environment .venv"
	@echo "make clean      remove caches and builds (make distclean: .venv too)"

env:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Install one," \
	"or name it: make PYTHON=/path/to/python3 lab"; exit 1; }
	@"$(PYTHON)" tools/setup_env.py

lab: env
	@$(RUN) tools/lab.py

test: env
	@$(RUN) tools/run_tests.py

# Without a GPU: says so, and exits with 69 (which make reports as an error of its own, 2).
gpu: env
	@$(RUN) tools/gpu.py $(if $(MINUTES),--minutes $(MINUTES))

notebooks: env
	$(RUN) tools/notebooks.py build $(CHAPTER)

exercises: env
	.venv/bin/dlnotes build-exercises

lint: env
	@$(RUN) tools/run_tests.py lint

# The notebooks' code is laid out where they are built from their texts.
format: env
	$(RUN) -m ruff check --fix $$(git ls-files -co --exclude-standard '*.py')
	$(RUN) -m ruff format $$(git ls-files -co --exclude-standard '*.py')

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv

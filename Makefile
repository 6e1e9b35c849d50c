# `make` alone lists the targets. Needs make, Python 3.11 or newer, and git if there is to be any.

PYTHON ?= python3.11 python3
ARGS ?=

# In .venv, written last: where the environment was made and from which lock file. No such file, no environment.
STAMP := .venv/made-from
PLOTS := .venv/dvc-plots.html
NO_GIT := Without git: dvc repro, dvc dag, dvc metrics show and dvc plots show work; dvc exp and every dvc ... diff do \
not. To have them: git init, git add ., git commit -m start, make setup.
NO_NAME := git does not know your name and e-mail; dvc exp run needs them once a tracked file has changed: \
git config user.name "...", git config user.email "...".
# For the commands in dvc.yaml, which say plain python.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# An environment does not work from another folder than the one it was made in.
ifneq ($(shell head -n 1 $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

.PHONY: help
help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1 - /p' Makefile | awk -F ' - ' '{ printf "make %-10s %s\n", $$1, $$2 }'

.PHONY: setup
setup: $(PLOTS) scm  ## the environment in .venv, from requirements.lock; nothing to do if that has not changed

.PHONY: repro
repro: setup  ## everything from an empty folder to reports/index.html; later only what changed
	@.venv/bin/python -m stages.common.config
	@.venv/bin/dvc repro
	@echo "The report: $(CURDIR)/reports/index.html"
	@if grep -qs 'no_scm = true' .dvc/config.local; then echo "$(NO_GIT)"; fi

.PHONY: full
full: setup  ## the same on MiniMind-V's own weights and data, fetched from the Hugging Face Hub; for a GPU
	@.venv/bin/python -m stages.common.config.preset presets/full.args
	@$(MAKE) --no-print-directory repro

.PHONY: preset
preset: setup  ## write a size of run into params.yaml: make preset PRESET=smoke
	@.venv/bin/python -m stages.common.config.preset presets/$(PRESET).args

.PHONY: test
test: setup  ## the tests; some of them: make test ARGS="-k preset"
	@.venv/bin/python -m pytest $(ARGS)

.PHONY: bench
bench: setup  ## speed of training beside two other ways to do it, 5 to 8 minutes; more rounds: make bench ARGS="--rounds 9"
	@.venv/bin/python -m benchmarks.training $(ARGS)

.PHONY: wandb-sync
wandb-sync: setup  ## upload the W&B runs that were kept in wandb/; needs a W&B account
	@.venv/bin/python -m stages.common.tracking.upload

.PHONY: lint
lint: setup  ## ruff: rules and layout
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check

.PHONY: lock
lock:  ## requirements.lock anew, from pyproject.toml
	@$(find_python); \
	rm -rf .venv-lock; "$$python" -m venv .venv-lock; cd .venv-lock; \
	bin/python -c 'import tomllib; p = tomllib.load(open("../pyproject.toml", "rb")); \
print(*p["project"]["dependencies"], *p["dependency-groups"]["dev"], sep="\n")' > wanted.txt; \
	bin/python -m pip install --upgrade setuptools -r wanted.txt; \
	bin/python -m pip freeze --all --exclude pip > frozen.txt; \
	if grep -n ' @ ' frozen.txt; then echo "error: no version to lock" >&2; exit 2; fi; \
	{ echo "# Exact versions of everything, written by make lock from pyproject.toml. Made with a torch for CPUs only: pip"; \
	  echo "# adds the CUDA packages where the build of torch that it picks asks for them."; \
	  sed 's/+.*//' frozen.txt; } > lock.txt; \
	mv lock.txt ../requirements.lock; cd ..; rm -rf .venv-lock

.PHONY: clean
clean:  ## remove the environment and what tools left behind; outputs, DVC's cache and W&B's runs stay
	rm -rf .venv .venv-lock .resume .pytest_cache .ruff_cache .hypothesis dvc_plots
	find stages model tests -name __pycache__ -prune -exec rm -rf {} +

# Shell: sets $python to the first of $(PYTHON) that is new enough, or ends with code 2.
define find_python
set -e; python=; for name in $(PYTHON); do \
  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
done; \
if [ -z "$$python" ]; then \
  echo "error: Python 3.11 or newer not found (looked for: $(PYTHON)); name one: make PYTHON=/path/to/python3" >&2; exit 2; \
fi
endef

# Always from nothing: what an interrupted or older set-up left would look complete to pip.
$(STAMP): requirements.lock
	@{ echo "$(CURDIR)"; cat requirements.lock; } | cmp -s - $@ && exec touch $@; \
	$(find_python); \
	echo "Setting up .venv with $$("$$python" --version) from requirements.lock; torch is large, so this takes minutes."; \
	rm -rf .venv; "$$python" -m venv .venv; \
	if [ -t 1 ]; then quiet=; else quiet=--quiet; fi; \
	.venv/bin/python -m pip install $$quiet --disable-pip-version-check -r requirements.lock; \
	{ echo "$(CURDIR)"; cat requirements.lock; } > $@.partial; mv $@.partial $@

# `dvc plots show` loads its drawing library from the network unless its page brings it along. The setting is local
# because DVC fails on a page that is not there.
$(PLOTS): stages/report/plots_template.py $(STAMP)
	@.venv/bin/python -m stages.report.plots_template $@.partial
	@.venv/bin/dvc config --local --quiet plots.html_template ../$@
	@mv $@.partial $@

# DVC goes with git where git tracks this folder. Unpacked without git, or inside somebody else's repository (which
# DVC would write its experiments into), it has to be told to go without.
.PHONY: scm
scm: $(PLOTS)
	@told() { grep -qs 'no_scm = true' .dvc/config.local; }; \
	if git --version >/dev/null 2>&1 && { [ -e .git ] || git ls-files --error-unmatch Makefile >/dev/null 2>&1; }; then \
	  ! told || dvc config --local --quiet --unset core.no_scm; \
	  { git config user.name && git config user.email; } >/dev/null || echo '$(NO_NAME)'; \
	else \
	  told || dvc config --local --quiet core.no_scm true; \
	  echo "$(NO_GIT)"; \
	fi

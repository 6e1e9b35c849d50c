# `make` alone lists the targets. Needs make and Python 3.11 or newer; git for experiments and comparisons.

PYTHON ?= python3.11 python3
ARGS ?=

# In .venv, written last: the folder in which the environment was made, and the lock file that it was made from.
STAMP := .venv/made-from
PLOTS := .venv/dvc-plots.html
NO_GIT := This folder is not in a git repository of its own. dvc repro, dvc dag, dvc metrics show and dvc plots show \
work; dvc exp and dvc metrics, params and plots diff need git: git init, git add ., git commit -m start, make setup.
NO_NAME := git has no name and e-mail of yours; dvc exp run needs them as soon as a tracked file has changed: \
git config user.name "...", git config user.email "...".
# The commands in dvc.yaml call plain `python`: that of the environment.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# An environment works only in the folder in which it was made; after a move it is made again.
ifneq ($(shell head -n 1 $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

.PHONY: help
help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1 - /p' Makefile | awk -F ' - ' '{ printf "make %-10s %s\n", $$1, $$2 }'

.PHONY: setup
setup: $(PLOTS) scm  ## make the environment in .venv from requirements.lock, unless it is up to date

.PHONY: repro
repro: setup  ## check params.yaml and run the pipeline up to reports/index.html; later only what changed
	@.venv/bin/python -m stages.common.config
	@.venv/bin/dvc repro
	@echo "The report: $(CURDIR)/reports/index.html"
	@if grep -qs 'no_scm = true' .dvc/config.local; then echo "$(NO_GIT)"; fi

.PHONY: full
full: setup  ## the same on MiniMind-V's own weights and data, downloaded from the Hugging Face Hub; needs a GPU
	@.venv/bin/python -m stages.common.config.preset presets/full.args
	@$(MAKE) --no-print-directory repro

.PHONY: preset
preset: setup  ## write the values of a preset into params.yaml: make preset PRESET=smoke
	@.venv/bin/python -m stages.common.config.preset presets/$(PRESET).args

.PHONY: test
test: setup  ## run the tests; some of them: make test ARGS="-k preset"
	@.venv/bin/python -m pytest $(ARGS)

.PHONY: bench
bench: setup  ## compare training speed with two other implementations, 5 to 8 minutes; make bench ARGS="--rounds 9"
	@.venv/bin/python -m benchmarks.training $(ARGS)

.PHONY: wandb-sync
wandb-sync: setup  ## upload the W&B runs recorded offline in wandb/; needs a W&B account
	@.venv/bin/python -m stages.common.tracking.upload

.PHONY: lint
lint: setup  ## check the code with ruff: rules and formatting
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check

.PHONY: lock
lock:  ## write requirements.lock anew from pyproject.toml, with the newest versions that it allows
	@$(find_python); \
	rm -rf .venv-lock; "$$python" -m venv .venv-lock; cd .venv-lock; \
	bin/python -c 'import tomllib; p = tomllib.load(open("../pyproject.toml", "rb")); \
print(*p["project"]["dependencies"], *p["dependency-groups"]["dev"], sep="\n")' > requirements.txt; \
	bin/python -m pip install --upgrade setuptools -r requirements.txt; \
	bin/python -m pip freeze --all --exclude pip > frozen.txt; \
	if grep -n ' @ ' frozen.txt; then echo "error: these packages have no version number to lock" >&2; exit 2; fi; \
	{ echo "# Exact versions of all packages, from pyproject.toml by make lock. Made with a torch for CPUs only: pip"; \
	  echo "# adds the CUDA packages where the build of torch that it picks requires them."; \
	  sed 's/+.*//' frozen.txt; } > lock.txt; \
	mv lock.txt ../requirements.lock; cd ..; rm -rf .venv-lock

.PHONY: clean
clean:  ## remove the environment and caches of tools; keeps outputs, DVC's cache and W&B's runs
	rm -rf .venv .venv-lock .resume .pytest_cache .ruff_cache .hypothesis dvc_plots
	find stages model tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Shell code: set $python to the first of $(PYTHON) that is new enough, or end with code 2.
define find_python
set -e; python=; for name in $(PYTHON); do \
  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
done; \
if [ -z "$$python" ]; then \
  echo "error: Python 3.11 or newer not found (tried: $(PYTHON)); name one: make PYTHON=/path/to/python3" >&2; exit 2; \
fi
endef

# Always from an empty folder: pip would take the remains of an interrupted or older set-up for complete.
$(STAMP): requirements.lock
	@{ echo "$(CURDIR)"; cat requirements.lock; } | cmp -s - $@ && exec touch $@; \
	$(find_python); \
	echo "Setting up .venv with $$("$$python" --version) from requirements.lock; torch is large, so this takes minutes."; \
	rm -rf .venv; "$$python" -m venv .venv; \
	if [ -t 1 ]; then quiet=; else quiet=--quiet; fi; \
	.venv/bin/python -m pip install $$quiet --disable-pip-version-check -r requirements.lock; \
	{ echo "$(CURDIR)"; cat requirements.lock; } > $@.partial; mv $@.partial $@

# `dvc plots show` loads its drawing library from the network unless the template of its page contains it. The setting
# is local because DVC fails where the template is missing.
$(PLOTS): stages/report/plots_template.py $(STAMP)
	@.venv/bin/python -m stages.report.plots_template $@.partial
	@.venv/bin/dvc config --local --quiet plots.html_template ../$@
	@mv $@.partial $@

# DVC uses git where this folder is a git repository or tracked by one. Unpacked without git, or inside somebody else's
# repository (into which DVC would write its experiments), its setting core.no_scm turns git off.
.PHONY: scm
scm: $(PLOTS)
	@is_off() { grep -qs 'no_scm = true' .dvc/config.local; }; \
	if git --version >/dev/null 2>&1 && { [ -e .git ] || git ls-files --error-unmatch Makefile >/dev/null 2>&1; }; then \
	  ! is_off || dvc config --local --quiet --unset core.no_scm; \
	  { git config user.name && git config user.email; } >/dev/null || echo '$(NO_NAME)'; \
	else \
	  is_off || dvc config --local --quiet core.no_scm true; \
	  echo "$(NO_GIT)"; \
	fi

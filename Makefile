# `make help` lists what there is. Needs git, make and Python >= 3.11 with venv; everything else
# goes into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Without this, make takes no note of other names: `make run config=mine` would run the demo.
VARIABLES := CONFIG DATA IMAGES PROFILE PYTHON V WHAT
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
UNKNOWN := $(firstword $(filter-out $(VARIABLES) SHELL MAKEFLAGS,$(GIVEN)))
ifneq ($(UNKNOWN),)
MEANT := $(filter $(VARIABLES),$(shell printf %s '$(subst ','\'',$(UNKNOWN))' | tr a-z A-Z))
$(error $(UNKNOWN)=…: there is no such variable; $(if $(MEANT),write $(MEANT)=…,there are: \
$(VARIABLES)))
endif
ODD := $(firstword $(foreach name,IMAGES V,$(if $(filter-out 1,$($(name))),$(name))))
ifneq ($(ODD),)
$(error $(ODD)=$($(ODD)): write $(ODD)=1, or leave it out)
endif

PYTHON ?= python3
CONFIG ?= demo
override CONFIG := $(notdir $(basename $(value CONFIG)))
QUOTED := '$(subst ','\'',$(CONFIG))'
ifneq ($(shell printf %s $(QUOTED) | tr -d 'a-z0-9_'),)
$(error CONFIG=$(CONFIG): a configuration is called by small letters, digits and _, such as demo)
endif
REQUIRED := requirements/uv.txt requirements/lock.txt pyproject.toml
RESULTS := results/$(CONFIG)
WHAT ?= all
# Where it is interrupted make ends as of Ctrl-C, too, with exit code 130 and no words of its own;
# where it was started deaf to that (`&` in a script), it fails.
RUN = acll run config/$(CONFIG).yaml $(if $(V),--verbose) \
    $(if $(PROFILE),--profile '$(subst ','\'',$(PROFILE))') \
    || { [ $$? -eq 130 ] && kill -INT $$PPID && [ -z "$$(trap -p INT)" ] || exit 1; }

export PATH := $(CURDIR)/.venv/bin:$(value PATH)
export PYTHONPATH := $(CURDIR)/src
ifdef DATA
export ACLL_DATA_ROOT := $(value DATA)
endif

TARGETS := help install run board report prove plan check download verify accept repair share pull \
    leftovers prune-results test test-slow test-faults fuzz lint format docs site registry \
    wheel lock clean
STRANGE := $(firstword $(filter-out $(TARGETS) .git .venv/installed .venv/slurm/installed \
    .venv/board/installed,$(MAKECMDGOALS)))
ifneq ($(STRANGE),)
$(error $(STRANGE): there is no such target, see `make help`; a configuration is named by \
CONFIG=<name>)
endif
.PHONY: $(TARGETS)

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) \
	    | sed -E -e 's/^([a-z-]+):.*## /\1\t/' -e 's/\$$\(CONFIG\)/$(CONFIG)/g' | expand -t 16
	@echo
	@echo "V=1          show all that Snakemake says"
	@echo "CONFIG=name  another configuration: config/name.yaml (default: demo)"
	@echo "IMAGES=1     with check: decode all images and masks"
	@echo "WHAT=tables  with pull: without the networks"
	@echo "PROFILE=slurm with run: on a cluster; see profiles/slurm/config.yaml"
	@echo "DATA=folder  another place of raw data than the configuration's data_root"

ifdef PROFILE
run: .venv/slurm/installed
endif
run: .git .venv/installed  ## run config/$(CONFIG).yaml; only what has changed is run
	@$(RUN)

board: .venv/board/installed  ## watch a run in TensorBoard, also while it goes on; Ctrl-C ends it
	@PYTHONPATH="$$PYTHONPATH:.venv/board" acll board $(RESULTS)

report: .venv/installed  ## write results/$(CONFIG)/report.html: all that came out on one page
	@acll report config/$(CONFIG).yaml

prove: .venv/installed  ## check, in the packed files alone, that no task was forgotten
	@acll prove $(RESULTS)

plan: .venv/installed  ## say which jobs `make run` would run, and why
	@acll plan config/$(CONFIG).yaml

check: .venv/installed  ## check config/$(CONFIG).yaml and its raw data; IMAGES=1: decode them, too
	@acll check config/$(CONFIG).yaml$(if $(IMAGES), --images)

download: .venv/installed  ## fetch the datasets of torchvision that config/$(CONFIG).yaml names
	@acll download config/$(CONFIG).yaml

verify: .venv/installed  ## check by content that all results are what this commit would make
	@acll verify config/$(CONFIG).yaml

accept: .git .venv/installed  ## keep results that were made with other code or libraries
	@acll accept config/$(CONFIG).yaml

repair: .git .venv/installed  ## put back damaged or missing results from DVC, or make them again
	@acll ready config/$(CONFIG).yaml
	@acll repair config/$(CONFIG).yaml
	@$(RUN)
	@acll verify config/$(CONFIG).yaml

share: .git .venv/installed  ## verify the results, commit them to DVC, push them to its remote
	@acll ready config/$(CONFIG).yaml
	@acll share config/$(CONFIG).yaml

pull: .git .venv/installed  ## bring shared results; WHAT=tables: without the networks, to look at
	@acll pull config/$(CONFIG).yaml --what $(WHAT)

leftovers: .venv/installed  ## list results that the configuration no longer names
	@acll leftovers config/$(CONFIG).yaml

prune-results: .venv/installed  ## remove them, and say which
	@acll prune-results config/$(CONFIG).yaml

test: .venv/installed  ## run the tests, less those that are marked slow
	@# tests of a file share what is costly to make
	@pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests

test-slow: .venv/installed  ## run the slow tests: networks, reruns, colleagues, killed runs
	@# one more than cores: those of a cluster mostly wait
	@pytest -n 3 --dist loadfile --no-loadscope-reorder -m slow tests

test-faults: .venv/installed  ## kill runs at twenty random moments and compare what comes out
	@pytest tests/test_faults.py --faults 20

fuzz: .venv/installed  ## damage 100,000 raw files and prepare them; goes on where it was stopped
	@cd tests && python -m fuzz

lint: .venv/installed  ## ruff, mypy, snakefmt, snakemake --lint
	@ruff check .
	@ruff format --check .
	@mypy
	@snakefmt --check Snakefile workflow
	@python .ci/lint_workflow.py

format: .venv/installed  ## format Python and Snakemake files
	@ruff check --fix .
	@ruff format .
	@snakefmt Snakefile workflow

docs: .venv/installed  ## write config/README.md, and the tables in README.md and docs/
	@python -m acll.config.reference > config/README.md
	@python benchmarks/docs_tables.py

site: .venv/installed  ## make a site of the documentation, site/index.html; warnings are errors
	@rm -rf site
	@sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -d .cache/site -c docs/site . site
	@echo "site/index.html"

registry: .venv/installed  ## list the architectures of the installed libraries (takes minutes)
	@python -m acll.networks.make_registry

wheel: .venv/installed  ## build dist/acll-….whl, which can be installed anywhere
	@uv build --quiet --wheel --no-build-isolation --out-dir dist
	@ls dist/*.whl

lock: .venv/installed  ## choose versions: pyproject.toml, pins.in -> lock.txt, with hashes
	@# of each library one version for all versions of Python: results depend on it
	@uv pip compile --quiet --no-header --no-emit-index-url --universal --python-version 3.11 \
	    --fork-strategy fewest --generate-hashes --extra dev --constraint requirements/pins.in \
	    pyproject.toml -o requirements/lock.txt
	@for name in slurm board; do uv pip compile --quiet --no-header --no-emit-index-url \
	    --python-version 3.11 --no-deps --generate-hashes --constraint requirements/pins.in \
	    requirements/$$name.in -o requirements/$$name.txt; done
	@mkdir -p .cache
	@uv pip compile --quiet --no-header --format pylock.toml --python-version 3.11 \
	    --python-platform x86_64-unknown-linux-gnu --extra dev pyproject.toml \
	    --constraint requirements/lock.txt -o .cache/pylock.toml
	@python requirements/download_size.py .cache/pylock.toml > requirements/download_size.txt

clean:  ## remove the environment and caches; results stay
	@rm -rf .venv .cache dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Before gigabytes are installed.
.git:
	@echo 'error: this folder is no git repository, which DVC needs: `git clone` the project' >&2
	@echo '  instead of downloading it, or make one of it: `git init && git add . && git commit`' >&2
	@exit 1

# Installed again when what is required has another content than was installed, whatever its time.
# uv installs in parallel; byte code is compiled now, since steps are short processes and would
# otherwise spend their time on it (UV_COMPILE_BYTECODE=0 leaves that out).
# Scripts name the place in which they were installed: where the folder was moved, none would run.
.venv/installed: .FORCE
	@test ! -e .venv/bin/acll || head -n 2 .venv/bin/acll | grep -qF "$$(cd .venv && pwd -P)/" || { \
	    echo "this folder was moved or copied; .venv runs in its old place only: it is made anew"; \
	    rm -rf .venv; }
	@cat $(REQUIRED) | cmp --silent - $@ || $(MAKE) --no-print-directory install

# What not all need, apart: Snakemake imports each executor that it finds, used or not.
.venv/%/installed: .venv/installed .FORCE
	@cmp --silent requirements/$*.txt $@ || { rm -rf .venv/$* \
	    && uv pip install --quiet --python .venv --no-deps --require-hashes --target .venv/$* \
	        -r requirements/$*.txt \
	    && cp requirements/$*.txt $@; }

.FORCE:

install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) \
	    and "Python 3.11 or newer is needed; name one with PYTHON=…")'
	@echo "installing into .venv: $$(cat requirements/download_size.txt) to download at most; what has"
	@echo "come stays in uv's cache, so that another try goes on where one has broken off"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	    -r requirements/uv.txt
	@UV_COMPILE_BYTECODE=$${UV_COMPILE_BYTECODE:-1} .venv/bin/uv pip sync --quiet --python .venv \
	    --require-hashes requirements/lock.txt requirements/uv.txt
	@.venv/bin/uv pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	@cat $(REQUIRED) > .venv/installed

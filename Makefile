# `make check` is what .ci/run runs in a fresh virtual environment, and what the README tells people to type.
# Two test workers with one thread each: torch's own threads would fight over the same cores.
PYTHON ?= python
WORKERS ?= 2

.PHONY: check format lint types layers cards test docs dist audit

check: lint types layers cards test

lint:
	ruff check .
	ruff format --check .

types:
	mypy

layers:
	lint-imports --no-cache

cards:
	$(PYTHON) -c "from pointzoo.cli import main; main()" card check

test:
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n $(WORKERS) --durations 10 \
		--cov --cov-report term --cov-report json:.coverage.json
	$(PYTHON) scripts/branch_coverage.py .coverage.json

# Known vulnerabilities of the pinned versions; asks PyPI, so that it is no part of check. Needs pip-audit.
audit:
	$(PYTHON) -m pip_audit --requirement constraints.txt --no-deps --disable-pip --strict

# What is published, in dist/. Built twice in two places: the bytes must be the same. Needs twine.
dist:
	rm -rf dist
	$(PYTHON) -m build --no-isolation
	again=$$(mktemp -d) && tar -xzf dist/*.tar.gz -C "$$again" && $(PYTHON) -m build --no-isolation \
		--outdir "$$again" "$$again"/pointzoo-* && for file in dist/*; do cmp "$$file" "$$again/$$(basename "$$file")"; done && \
		rm -r "$$again"
	$(PYTHON) -m twine check --strict dist/*

# Everything below changes files.
format:
	ruff check --fix .
	ruff format .

docs:
	cog -r -I scripts README.md docs/architecture.md docs/cli.md docs/running_elsewhere.md

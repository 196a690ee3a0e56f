.DEFAULT_GOAL := help
.PHONY: help env demo test check clean
ARGS :=

help:
	@echo 'make env     the environment in .venv: Python packages and the system libraries they load'
	@echo 'make demo    the whole story on generated shapes (on a CPU: minutes)'
	@echo 'make test    the fast tests;  make test ARGS="-m slow"  the slow ones'
	@echo 'make check   ruff: style and format'
	@echo 'make clean   remove what demo, tests and tools left behind; .venv stays'

env:
	@./environment.sh

demo: env
	.venv/bin/python -m jobs demo $(ARGS)

test: env
	.venv/bin/python -m pytest $(ARGS)

check: env
	.venv/bin/ruff check
	.venv/bin/ruff format --check

clean:
	rm -rf demo .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

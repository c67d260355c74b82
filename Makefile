# `make demo` and `make test` work from nothing but Python 3.11 (3.11.4 or newer), git and make.
PYTHON ?= python3.11
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# The demo uses its own store, whatever else is configured on the machine.
DEMO_MODEL := models:/dual-hrnet@production
TEST_SCENE = $(firstword $(wildcard data/sample/test/images/*hurricane*_pre_disaster.png))

.DEFAULT_GOAL := help
.PHONY: help install demo demo-predict demo-assess experiment ui clean test test-endurance test-kernels check check-static \
    bench pictures kube-check image lock

help: ## show this help
	@awk -F ':.*## ' '/^##@/ { print "\n" substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-16s%s\n", $$1, $$2 }' \
	    $(MAKEFILE_LIST)

##@ Start here

install: .venv/installed ## create .venv with the locked packages

# First, one line where this Python is too old.
.venv/installed: requirements.txt
	@$(PYTHON) -m base.errors
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --no-deps -r requirements.txt
	touch $@

demo: install ## the whole way on a synthetic sample, from data to a promoted model and a prediction
	dvc repro
	python -m components.promote --data data/prepared
	$(MAKE) --no-print-directory demo-predict

demo-predict:
	python -m components.predict --model $(DEMO_MODEL) --pre $(TEST_SCENE) \
	    --post $(TEST_SCENE:_pre_disaster.png=_post_disaster.png) --out output/predict
	@echo
	@echo "Score on the held-out test scenes:"
	@python -c 'import json; \
	    [print(f"    {key:32}{value:.4f}") for key, value in json.load(open("output/evaluate/metrics.json")).items() \
	    if isinstance(value, float)]'
	@echo "Prediction:        output/predict/picture.png"
	@echo "Report:            output/evaluate/report.html"
	@echo "Registered model:  $$(python -c 'import json; print(json.load(open("output/register/version.json"))["uri"])')" \
	    "(alias production); make ui shows it"

demo-assess: install ## after demo: judge its map by the labels, estimate, and hold the estimate against the truth
	python -m benchmarks.demo_assess --model $(DEMO_MODEL) --out output/demo-assess

RECIPE ?= cpu

experiment: install ## your own xBD by recipes/RECIPE.yaml, through DVC: make experiment RECIPE=paper; of several the last wins
	python -m components.params $(foreach recipe,$(RECIPE),--recipe "recipes/$(recipe).yaml")

ui: install ## open the MLflow UI on the local store
	mlflow ui --backend-store-uri sqlite:///mlflow.db

clean: ## remove what runs produce; data, cache and .venv stay
	rm -rf output dvc_plots mlruns mlflow.db* .pytest_cache .mypy_cache .ruff_cache .hypothesis

##@ Check

check: check-static ## what every commit passes: lint, types, fast tests
	pytest -n 2 --dist loadfile -m "not slow and not endurance"

check-static: install
	ruff check .
	ruff format --check .
	mypy

# In the order of their names: xdist would leave the few long ones of a file for the end, where one core waits. More
# processes than the two cores of a small machine, as tests also wait: for servers, and in outages above all.
test: install ## all tests but those of endurance
	pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not endurance"

test-endurance: install ## tests of whole graphs and jobs in processes of their own, lost nodes and outages
	pytest -n 4 --dist loadfile --no-loadscope-reorder -m endurance

# A CPU's instructions decide which kernels compute, and so the last digits; results must not depend on them.
OLD_CPU = ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 \
    NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4"
AVX2_CPU = ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 NPY_DISABLE_CPU_FEATURES=X86_V4
NUMERIC = tests/test_earlier.py tests/xbd tests/model tests/imagery tests/components/test_evaluate.py

test-kernels: install ## the numeric tests as older CPUs compute, with one thread and with two; takes about two hours
	$(OLD_CPU) OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile $(NUMERIC)
	$(AVX2_CPU) OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile $(NUMERIC)
	$(OLD_CPU) OMP_NUM_THREADS=2 pytest $(NUMERIC)
	$(AVX2_CPU) OMP_NUM_THREADS=2 pytest $(NUMERIC)

##@ Measure

bench: install ## the measurements of docs/benchmarks.md, about 15 minutes on two quiet cores
	python -m benchmarks.inference
	python -m benchmarks.training_step
	python -m benchmarks.loss_and_metric
	python -m benchmarks.loader

pictures: install ## the pictures of the README and docs/assess.md, from what `make demo` left; needs Chromium
	python -m benchmarks.pictures

##@ Cluster

kube-check: install ## whether a cluster has what a run needs: make kube-check CHECK="--namespace NS --mlflow-uri URL"
	@python -m components.cluster.readiness $(CHECK)

##@ Image and lock

# An image holds the commit that its tag and label name, and nothing that is not committed: Kubeflow's cache trusts the
# tag. A remote's address may hold a password, which stays out.
DOCKER ?= docker
IMAGE ?= dual-hrnet
REVISION = $(shell test -e .git && git describe --always --abbrev=12 --exclude '*' 2>/dev/null)
SOURCE = $(shell git remote get-url origin 2>/dev/null | sed 's|//[^/@]*@|//|')
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

image: ## build the image IMAGE:REVISION of all steps from the current commit; IMAGE_ARGUMENTS go to `docker build`
	@test -n "$(REVISION)" || { echo "make image: $(CURDIR) is no git repository with a commit, which an image is built" \
	    "from and named by. Clone the repository." >&2; exit 1; }
	@test -z "$$(git status --porcelain)" || echo "make image: the image holds commit $(REVISION), and not the changes" \
	    "that are not committed: git status shows them." >&2
	folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && \
	git archive --output "$$folder/commit.tar" HEAD && tar -x -f "$$folder/commit.tar" -C "$$folder" && \
	DOCKER_BUILDKIT=1 $(DOCKER) build --tag "$(IMAGE):$(REVISION)" --build-arg REVISION="$(REVISION)" \
	    --build-arg SOURCE="$(SOURCE)" --build-arg VERSION="$(VERSION)" $(IMAGE_ARGUMENTS) "$$folder"

lock: install ## resolve requirements.txt anew from pyproject.toml
	pip install --quiet uv
	uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-header --quiet \
	    --output-file requirements.txt
	uv pip compile pyproject.toml --constraint requirements.txt --generate-hashes --no-emit-index-url --no-header --quiet \
	    --output-file requirements-image.txt

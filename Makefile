# Everything sets itself up: `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
# GPU=1 installs JAX for NVIDIA GPUs: `make GPU=1 nw-ucla-full SOURCE=nw_ucla.tar.xz`. CUDA=13 is for newer drivers.
PYTHON ?= python3
GPU ?=
CUDA ?= 12
comma := ,
VENV := .venv
VENV_YOLO := .venv-yolo
RUN := $(VENV)/bin/python
DATA ?= data
WORKDIR ?= workdir
GOLDEN ?= tests/golden
SEED ?= 1
INPUTS ?= 5000
KILLS ?= 20

.DEFAULT_GOAL := help
.PHONY: help setup setup-text setup-video setup-yolo setup-tests demo demo-skeleton-only backbones parity test test-yolo test-hosts test-long test-browser test-install fuzz kill lint docs \
	nw-ucla nw-ucla-short nw-ucla-full \
	utd-mhad-short clean

help:
	@echo "make demo                 synthetic records, MMCL training, evaluation from only the skeleton"
	@echo "make demo-skeleton-only   the same without images and text"
	@echo "make backbones            the demo with each other backbone"
	@echo "make parity               our models against PyTorch's: reference outputs (in $(GOLDEN)), and experiments/pytorch_baselines"
	@echo "make test                 lint and tests; test-yolo: only those that need ultralytics"
	@echo "make test-browser         tests of the web pages in Chromium ('apt-get install chromium'); make test runs them too"
	@echo "make test-hosts           slow tests of runs of two processes: killed, stopped, resumed, failing"
	@echo "make test-long            the rehearsal of experiments/gpu_day.sh, an installed package's first run, PyTorch beside us, a notebook"
	@echo "make fuzz SEED=1 INPUTS=5000   damaged inputs for every reader of files, with a verdict for each; READERS=pyskl_2d,scores"
	@echo "make kill SEED=1 KILLS=20      kills commands at random moments, starts them again and compares the results"
	@echo "make test-install         install into an empty environment, with the newest packages, and train there; PYTHON=python3.13"
	@echo "make docs                 the documentation as a web site in site/; a broken link is an error"
	@echo "make setup                .venv for training and preparation; make GPU=1 setup, after make clean: for NVIDIA GPUs"
	@echo "make setup-text           PyTorch and transformers too, for data_prep.text_features"
	@echo "make setup-video          the pose estimator's model files, for videos and cameras; MODELS='lite heavy' for others than full"
	@echo "make setup-yolo           .venv-yolo, which adds ultralytics to .venv, for --boxes yolo of data_prep"
	@echo "make clean                removes .venv, .venv-yolo, site and what building left"
	@echo "make nw-ucla SOURCE=nw_ucla.tar.xz        records of NW-UCLA in $(DATA)/nw_ucla"
	@echo "make nw-ucla-short        NW-UCLA, joint stream, 9 epochs"
	@echo "make nw-ucla-full         NW-UCLA, four streams, 65 epochs, seeds 0, 1, 2: make GPU=1 nw-ucla-full SOURCE=..."
	@echo "make utd-mhad-short       (records first: data_prep.utd_mhad, see docs/datasets.md) UTD-MHAD, joint stream, with and without FAM, short schedule"

# One environment, in which this repository is installed in place: first what training and preparation need, then, for
# the targets that need them, PyTorch and the tools of tests and lint. pyproject.toml names the packages and
# requirements.txt their versions; when one of the two changes, pip runs again.
INSTALL := -m pip install --quiet -c requirements.txt

$(VENV)/.ready: pyproject.toml setup.py requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) $(INSTALL) -e '.[video$(if $(GPU),$(comma)cuda$(CUDA))]'
	touch $@

$(VENV)/.ready-text: $(VENV)/.ready
	$(RUN) $(INSTALL) -e '.[text]'
	touch $@

$(VENV)/.ready-tests: $(VENV)/.ready-text
	$(RUN) $(INSTALL) -e '.[tests]'
	touch $@

# Beside .venv, whose packages it sees: ultralytics' torchvision, where it does not load, would break transformers.
$(VENV_YOLO)/.ready: $(VENV)/.ready
	$(PYTHON) -m venv $(VENV_YOLO)
	packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
		$(RUN) -c "$$packages" > "$$($(VENV_YOLO)/bin/python -c "$$packages")/venv.pth"
	$(VENV_YOLO)/bin/python $(INSTALL) -e '.[yolo]'
	touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(RUN) $(INSTALL) -e '.[docs]'
	touch $@

setup: $(VENV)/.ready

setup-text: $(VENV)/.ready-text

# Outside of the repository: a cache folder of the user, or the folder that MMCL_POSE_MODELS names.
setup-video: $(VENV)/.ready
	$(RUN) -m mmcl_jax.poses.download $(MODELS)

setup-yolo: $(VENV_YOLO)/.ready

setup-tests: $(VENV)/.ready-tests

$(DATA)/synthetic/info.json: | setup
	$(RUN) -m data_prep.synthetic --out=$(DATA)/synthetic

demo: setup $(DATA)/synthetic/info.json
	$(RUN) -m mmcl_jax.main --config=configs/demo.py --workdir=$(WORKDIR)/demo --config.data.records=$(DATA)/synthetic
	$(RUN) -m mmcl_jax.main --config=configs/demo.py --workdir=$(WORKDIR)/demo --config.data.records=$(DATA)/synthetic --mode=eval

demo-skeleton-only: setup $(DATA)/synthetic/info.json
	$(RUN) -m mmcl_jax.main --config=configs/demo.py:joint,skeleton_only --workdir=$(WORKDIR)/demo_skeleton_only \
		--config.data.records=$(DATA)/synthetic

backbones: setup $(DATA)/synthetic/info.json
	for backbone in ctrsgcn hdgcn; do \
		$(RUN) -m mmcl_jax.main --config=configs/demo.py --config.model.backbone=$$backbone \
			--workdir=$(WORKDIR)/demo_$$backbone --config.data.records=$(DATA)/synthetic || exit 1; \
	done
	$(RUN) -m mmcl_jax.main --config=configs/demo.py --config.model.backbone=infogcn --config.learning_rate=0.003 \
		--config.drop_epochs='(11,14)' --workdir=$(WORKDIR)/demo_infogcn \
		--config.data.records=$(DATA)/synthetic
	$(RUN) -m experiments.summarise $(WORKDIR)/demo_ctrsgcn $(WORKDIR)/demo_hdgcn $(WORKDIR)/demo_infogcn

parity: setup-tests
	$(RUN) -m experiments.parity $(GOLDEN)
	$(RUN) -m experiments.parity --torch

test: setup-tests lint test-yolo
	$(RUN) -m pytest -n 2 --dist worksteal -rs --durations=10

test-yolo: setup-tests setup-yolo
	$(VENV_YOLO)/bin/python -m pytest tests/data_prep/images/test_yolo.py tests/poses/test_yolo.py

test-browser: setup-tests
	$(RUN) -m pytest -m browser -rs --durations=5

test-long: setup-tests
	$(RUN) -m pytest -m long --durations=10

test-hosts: setup-tests
	$(RUN) -m pytest -m hosts --durations=10

# Failing inputs are made small and kept in tests/fuzz/kept, where make test tries them again.
fuzz: setup-tests
	$(RUN) -m tests.fuzz --seed=$(SEED) --inputs=$(INPUTS) $(if $(READERS),--readers=$(READERS)) --keep=tests/fuzz/kept

kill: setup-tests
	$(RUN) -m tests.fuzz.kill --seed=$(SEED) --kills=$(KILLS)

# Needs no environment: it makes one, elsewhere. OPTIONS are pip's; those in requirements.txt: OPTIONS='-c requirements.txt'
test-install:
	$(PYTHON) -m tests.helpers.installation $(OPTIONS)

lint: setup-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/pyright

docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

nw-ucla: setup
	@test -n "$(SOURCE)" || { echo "name the archive or folder: make nw-ucla SOURCE=nw_ucla.tar.xz"; exit 2; }
	$(RUN) -m data_prep.nw_ucla --source=$(SOURCE) --out=$(DATA)/nw_ucla

nw-ucla-short: setup
	$(RUN) -m mmcl_jax.main --config=configs/nw_ucla.py:joint,short --workdir=$(WORKDIR)/nw_ucla_joint_short \
		--config.data.records=$(DATA)/nw_ucla

# One go on a GPU: set-up, records, four streams and their ensemble with three seeds, summaries. On a CPU it would take days: ANYWAY=1 insists.
nw-ucla-full: setup
	@test -n "$(ANYWAY)" || $(RUN) -c 'import jax, sys; sys.exit(jax.default_backend() == "cpu" and "no GPU found: make GPU=1 nw-ucla-full in a fresh $(VENV), or add ANYWAY=1")'
	test -f $(DATA)/nw_ucla/info.json || $(MAKE) nw-ucla SOURCE=$(SOURCE)
	for seed in 0 1 2; do \
		$(RUN) -m experiments.streams --config=configs/nw_ucla.py:joint --config.seed=$$seed \
			--workdir=$(WORKDIR)/nw_ucla_seed$$seed --config.data.records=$(DATA)/nw_ucla || exit 1; \
	done
	for stream in joint bone joint_motion bone_motion; do $(RUN) -m experiments.summarise $(WORKDIR)/nw_ucla_seed*/$$stream; done

utd-mhad-short: setup
	$(RUN) -m mmcl_jax.main --config=configs/utd_mhad.py:joint,short --workdir=$(WORKDIR)/utd_mhad_fam \
		--config.data.records=$(DATA)/utd_mhad
	$(RUN) -m mmcl_jax.main --config=configs/utd_mhad.py:joint,short --config.loss.contrastive_weight=0 \
		--workdir=$(WORKDIR)/utd_mhad_skeleton_only --config.data.records=$(DATA)/utd_mhad
	$(RUN) -m experiments.summarise $(WORKDIR)/utd_mhad_fam $(WORKDIR)/utd_mhad_skeleton_only

clean:
	rm -rf $(VENV) $(VENV_YOLO) site .pytest_cache .ruff_cache build dist *.egg-info

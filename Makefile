# A new user needs make demo and make test. They require Python 3.11 or later, and no GPU.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo poc test check check-all test-slow bench bench-lgg bench-ham wheel clean

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# Three hospitals fine-tune the small SAM together; about 4 minutes on 2 cores.
demo: $(INSTALLED)
	rm -rf runs/demo
	$(BIN)/fedpeft data phantom --out data/phantom --register
	$(BIN)/fedpeft compare --data data/phantom --methods flap_sam --settings local,federated --out runs/demo
	@echo
	@echo "Open runs/demo/compare.png. Then try, with $(BIN) on your PATH:"
	@echo "  fedpeft evaluate --run runs/demo/flap_sam/seed-0/federated --data data/phantom"
	@echo "  fedpeft infer --run runs/demo/flap_sam/seed-0/federated \\"
	@echo "      --image data/phantom/site-1/case-12/image.nii.gz --out runs/demo/mask.nii.gz"
	@echo "  nvflare simulator jobs/flap_sam_phantom -w poc/simulator -n 3 -t 3"
	@echo "  fedpeft methods --backbone sam_vit_b --classes 1"

# FLARE's proof of concept: a server and three sites, each in its own process, run one job and end; some minutes.
poc: $(INSTALLED)
	$(BIN)/python poc/run.py

# Two workers, each with a file at a time, since tests often wait for FLARE.
TESTS := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(TESTS)

test-slow: $(INSTALLED)
	$(TESTS) -m "slow or not slow"

# Checks style, types, the order of the layers, and the committed jobs against their registry entries; half a minute.
check: $(INSTALLED)
	$(BIN)/ruff check custom poc tests
	$(BIN)/ruff format --check custom poc tests
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/config

check-all: check test-slow

# Benchmarks against a reference implementation, which are not part of the tests; they need an otherwise idle machine.
bench: $(INSTALLED)
	$(BIN)/python tests/benchmarks/bench.py

# A study of tumours of four institutions, hours on 2 cores: make bench-lgg LGG=folder. The script's docstring has the
# folder's layout.
bench-lgg: $(INSTALLED)
	$(BIN)/python tests/experiments/bench_lgg.py --source $(LGG) --out runs/lgg

# A study of skin lesions of three centres, hours on 2 cores: make bench-ham HAM=folder.
bench-ham: $(INSTALLED)
	$(BIN)/python tests/experiments/bench_ham10000.py --source $(HAM) --out runs/ham10000

# The wheel that hospitals install, built from the last commit, with its SHA-256.
wheel: $(INSTALLED)
	PYTHON=$(BIN)/python admin/wheels.sh

# Keeps data, runs and kits, which took time to make.
clean:
	rm -rf poc/state .pytest_cache .ruff_cache .mypy_cache .hypothesis build custom/fedpeft.egg-info
	find custom poc tests -name __pycache__ -type d -prune -exec rm -rf {} +

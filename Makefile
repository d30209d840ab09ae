# The two commands: `make demo` runs the main job, `make test` passes the tests.
# Each makes what it needs in .venv/ and reuses it the next time.

PYTHON ?= python3.11
# For Blender's module from 5.1 on.
PYTHON313 ?= python3.13
BLENDER := .venv/blender
RUNTIME := .venv/runtime
FARM := .venv/farm
RUNTIME_PYTHON := $(RUNTIME)/venv/bin/python

.PHONY: demo test test-blender test-runtime test-gui picture test-large test-slurm test-versions fuzz lock setup clean benchmark

demo: setup
	$(BLENDER)/bin/python tests/demo/run.py --runtime $(RUNTIME) --out out

test: setup $(FARM)/ready
	$(BLENDER)/bin/ruff check .
	$(BLENDER)/bin/ruff format --check .
	$(BLENDER)/bin/mypy
	@# Blender's half is typed as a package, as Blender loads it.
	@mkdir -p build/typing && ln -sfn ../.. build/typing/xray
	cd build/typing && ../../$(BLENDER)/bin/mypy --config-file ../../pyproject.toml -p xray.operators -p xray.panels
	@echo "The tests run in two lots side by side; each lot prints at its end, after some minutes."
	@$(MAKE) --no-print-directory --jobs 2 --keep-going --output-sync=target test-blender test-runtime

test-blender: setup
	XRAY_RUNTIME_DIR=$(abspath $(RUNTIME)) $(BLENDER)/bin/python -m pytest tests --ignore tests/runtime --ignore tests/farm --ignore tests/gui --junitxml build/blender.xml

test-runtime: setup $(FARM)/ready
	$(RUNTIME_PYTHON) -m pytest tests/runtime -m "not large" --junitxml build/runtime.xml
	$(FARM)/bin/python -m pytest tests/farm -m "not slurm" --junitxml build/farm.xml

# 10,000 mutations of each file for each reader (`make test` tries 200); figures go to build/fuzz.md.
fuzz: setup
	@mkdir -p build && printf '| reader | inputs | refused | raw exceptions | memory | slowest |\n|---|---|---|---|---|---|\n' >build/fuzz.md
	XRAY_FUZZ=10000 $(BLENDER)/bin/python -m pytest tests/core/test_fuzz.py -q
	XRAY_FUZZ=10000 $(RUNTIME_PYTHON) -m pytest tests/runtime/test_fuzz.py -q
	cat build/fuzz.md

# The hashes of what is installed into the runtime, anew; see runtime/lock.py.
lock: setup
	$(RUNTIME_PYTHON) -m runtime.lock

# The extension in a Blender with a window, in a chroot that is built once (2 minutes, 1.4 GB; needs
# root and mmdebstrap). Screenshots and figures are left in build/gui.
test-gui: setup
	$(BLENDER)/bin/python -m pytest tests/gui -v --numprocesses 2 --junitxml build/gui.xml

# Blender's half in 4.2, 4.5, 5.0 and the newest Blender, each with the NumPy that it brings and with
# the newest (5 GB, and 10 minutes a Blender); the table is left in build/versions/table.md.
test-versions: setup
	$(PYTHON) tests/versions.py --python $(PYTHON) --python313 $(PYTHON313)

# README's picture of Blender's window, anew: after the weights that ship have changed. Needs what
# test-gui needs.
picture: setup
	$(RUNTIME_PYTHON) tests/gui/readme_picture.py

# Networks in their published sizes: 8 GB of memory and some minutes; needs XRAY_GOLDEN.
test-large: setup
	$(RUNTIME_PYTHON) -m pytest tests/runtime -m large -v --durations 0

# The farm on a real SLURM, which it starts on this machine (Debian: slurm-wlm and munge).
test-slurm: $(FARM)/ready
	$(FARM)/bin/python -m pytest tests/farm -m slurm -v

# cast, a whole dataset and reconstruct beside other libraries, as ratios from one run; needs the
# meshes in XRAY_ASSETS and writes docs/benchmarks.md. Open3D (which loads libusb-1.0) and matplotlib
# are no dependencies of the project, so they have an environment of their own.
benchmark: setup .venv/benchmark/ready
	OMP_NUM_THREADS=1 .venv/benchmark/bin/python tests/benchmarks/cast.py
	OMP_NUM_THREADS=1 .venv/benchmark/bin/python tests/benchmarks/dataset.py
	OMP_NUM_THREADS=1 .venv/benchmark/bin/python tests/benchmarks/reconstruct.py

.venv/benchmark/ready: tests/requirements.txt
	$(PYTHON) -m venv .venv/benchmark
	.venv/benchmark/bin/pip install --quiet --disable-pip-version-check open3d==0.20.0 matplotlib==3.11.2 $$(grep -E '^(trimesh|embreex|scipy|numpy|numba|deflate)==' tests/requirements.txt)
	touch $@

setup: $(BLENDER)/ready $(RUNTIME)/installed.json $(RUNTIME)/tests-ready

$(BLENDER)/ready: tests/requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; say where it is with PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) tests/system.py
	$(PYTHON) -m venv $(BLENDER)
	$(BLENDER)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

# The same installer as the extension's "Install Runtime". Tests and demo run on the CPU.
$(RUNTIME)/installed.json: runtime/requirements.txt | $(BLENDER)/ready
	$(BLENDER)/bin/python -m xray_addon.process install --folder $(RUNTIME) --device cpu

$(RUNTIME)/tests-ready: $(RUNTIME)/installed.json tests/requirements.txt
	$(RUNTIME_PYTHON) -m pip install --quiet --disable-pip-version-check $$(grep -E '^(pytest|hypothesis)==' tests/requirements.txt)
	touch $@

# The .pth file makes `python -m farm` work from any folder.
$(FARM)/ready: farm/requirements.txt tests/requirements.txt
	$(PYTHON) -m venv $(FARM)
	$(FARM)/bin/pip install --quiet --disable-pip-version-check -r farm/requirements.txt $$(grep -E '^pytest==' tests/requirements.txt)
	echo "$(CURDIR)" >$$($(FARM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/xray.pth
	touch $@

clean:
	rm -rf .venv build out

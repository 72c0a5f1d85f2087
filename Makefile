# Every target sets up .venv by itself: plain venv and pip with the tested versions.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

# Real motion: the CMU database as one HDF5 file, or a folder of its BVH conversion (docs/data.md says where to get it),
# and a detector's poses with triangulated joints, whose residuals are the noise of studies/noise.yaml.
DATA ?= $(firstword $(wildcard data/cmu_subjects_17.h5 ../shared/data/cmu_subjects_17.h5) data/cmu-bvh)
DETECTIONS ?= $(firstword $(wildcard data/openpose_4_cameras.npz ../shared/data/openpose_4_cameras.npz) data/detections.npz)
FORMAT = $(if $(wildcard $(DATA)/.),bvh,cmu)
CMU := data/cmu
RESULTS := runs/results
ON_CLEAN := parts prior representations bone_prior stabilisers search freezing default papers
NO_MOTION = "$(DATA): no motion there; docs/data.md says how to get it, then: make $(MAKECMDGOALS) DATA=FILE or FOLDER"

.PHONY: study study-results peers test chaos recipes attack audit hashes licences soak bench bench-recipe bench-study bench-packs gpu fuzz
.PHONY: lint format clean scorecard bank mutants mutants-sample docs schema
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

## study: the quickstart, from data to summary (some 80 s on two cores after installation)
study: $(STAMP)
	$(BIN)/tips-dist data generate --cameras 4 -o data/quickstart
	$(BIN)/tips-dist run studies/quickstart.yaml --truth data/quickstart.truth3d.h5

## study-results: the published studies from nothing, some four hours on two cores; interrupted, call it again.
## DATA=FILE or FOLDER is the motion (docs/data.md), DETECTIONS=FILE a detector's. Tables and figures go into studies/results/
study-results: $(foreach s,$(ON_CLEAN) noise,$(RESULTS)/$(s)/done) peers
	$(BIN)/python -m studies.answers $(RESULTS) --data $(CMU) --noisy $(CMU)-noisy

$(ON_CLEAN:%=$(RESULTS)/%/done): $(RESULTS)/%/done: $(CMU).truth3d.h5
	$(BIN)/tips-dist run studies/$*.yaml --runs $(@D) --continue --truth $<
	touch $@

$(RESULTS)/noise/done: $(CMU)-noisy.truth3d.h5
	$(BIN)/tips-dist run studies/noise.yaml --runs $(@D) --continue --truth $<
	touch $@

$(CMU)-noisy.truth3d.h5: $(CMU).truth3d.h5
	@test -e '$(DETECTIONS)' || { echo "$(DETECTIONS): no detections there; docs/data.md says how to get them"; exit 2; }
	$(BIN)/python -m studies.noise $(CMU) $(DETECTIONS) -o $(CMU)-noisy

$(CMU).truth3d.h5: | $(STAMP)
	@test -e '$(DATA)' || { echo $(NO_MOTION); exit 2; }
	$(BIN)/tips-dist data import $(FORMAT) $(DATA) -o $(CMU)

## peers: our lifter trained in other ways on the same poses (benchmarks/peers/peers.md), some forty minutes of two cores
peers: $(CMU).flow.safetensors
	$(BIN)/python -m benchmarks.peers.compare train --part 0/2 & first=$$!; \
		$(BIN)/python -m benchmarks.peers.compare train --part 1/2 && wait $$first
	$(BIN)/python -m benchmarks.peers.compare table

$(CMU).flow.safetensors: $(CMU).truth3d.h5
	$(BIN)/python -m benchmarks.peers.flow $(CMU).pose2d.h5 -o $@

## test: the test suite; bytecode is kept, whatever the environment says: its many processes would compile all of it again
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadgroup

## chaos: kill workers, nodes, drivers and heads, fill disks; the whole path from a wheel; the examples that start a Ray of
## their own (notebook, Tune script); some half an hour
chaos: $(STAMP)
	$(BIN)/python -m pytest tests/chaos tests/test_start.py tests/test_examples.py tests/study/test_tune_script.py -m "chaos or not chaos"

## recipes: every check of cluster/, those too that want a provider's library, Slurm, sshd or a container engine; what is
## not there is skipped with a word. Some ten minutes with Slurm. CRDS=FILE: KubeRay's own definitions (cluster/README.md)
recipes: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[recipes]'
	CRDS='$(CRDS)' $(BIN)/python -m pytest tests/cluster -m "recipes or not recipes" -rs

## attack: hostile files and command lines, aimed kills, damage between kill and resume; prints counts, some minutes
attack: $(STAMP)
	$(BIN)/python -m tests.attack --cases 1200 --kills 100

## audit: known holes in what an install brings; asks the advisory service, so it needs a network
audit: $(STAMP)
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --require-hashes --disable-pip -r requirements.lock

## hashes: requirements.lock, the files of the published install with their SHA-256 (for this platform)
hashes: $(STAMP)
	$(BIN)/python tools/supply.py hashes

## licences: docs/licences.md, what each of them says about its licence
licences: $(STAMP)
	$(BIN)/python tools/supply.py licences

## soak: fifty random kills of one study, at most twenty minutes
soak: $(STAMP)
	$(BIN)/python -m tests.chaos.soak

## bench: what the training engine reaches; the table goes into benchmarks/README.md
bench: $(STAMP)
	$(BIN)/python -m benchmarks.engine

## gpu: everything that wants a card, proven and measured in five minutes; bench-results/gpu.json. Without one: a line
gpu: $(STAMP)
	$(BIN)/python -m benchmarks.gpu

## bench-recipe: which recipe reaches an error soonest, on real bodies (DATA=FILE or FOLDER as for study-results); some
## 50 minutes on two cores, interrupted, call it again; the tables go into benchmarks/README.md
bench-recipe: $(CMU).truth3d.h5
	$(BIN)/python -m benchmarks.recipe train --part 0/2 & first=$$!; \
		$(BIN)/python -m benchmarks.recipe train --part 1/2 && wait $$first
	$(BIN)/python -m benchmarks.recipe table

## bench-study: what Ray and the records cost beside training
bench-study: $(STAMP)
	$(BIN)/python -m benchmarks.study_overhead

## bench-packs: what trials gain that take their steps as one program, by width; the table goes into benchmarks/README.md
bench-packs: $(STAMP)
	$(BIN)/python -m benchmarks.packs

## scorecard: how well stopping and selection do without truth, replayed from the committed bank
scorecard: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.stability.scorecard

## bank: train what is missing of the bank of labelled histories (all of it: some two hours), fit the risk and the goals to it,
## and write the tables where they are quoted; afterwards: python -m tests.golden.regenerate
bank: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.stability.bank
	$(BIN)/python -m benchmarks.stability.calibrate
	$(BIN)/python -m benchmarks.stability.goals
	$(BIN)/python -m benchmarks.stability.scorecard --refresh

## fuzz: thousands of damaged files against every reader; prints how many ended how
fuzz: $(STAMP)
	TIPS_DIST_FUZZ_CASES=1000 $(BIN)/python -m pytest tests/data/test_fuzz.py -s

## mutants: small changes of the code that decides, which the tests must notice; hours (docs/mutants.md)
mutants: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run --max-children 1 $(MUTANTS)

## mutants-sample: the same of a random sample, with a 95 % interval: some 40 minutes of one core. SAMPLE='--sample 60 --seed 2'
mutants-sample: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python tools/mutants.py $(SAMPLE)

## lint: style, types, and the walls between floors
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## docs: the documentation as a site in site/, which opens from disk; a broken link or anchor is an error
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

## schema: the JSON Schema of study files, after a change of a knob
schema: $(STAMP)
	$(BIN)/python -m tips_dist.study_schema > studies/study.schema.json

## format: rewrite the code in the project's style
format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build site *.egg-info

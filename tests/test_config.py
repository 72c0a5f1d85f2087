from pathlib import Path

import pytest

from tips_dist.config import Study
from tips_dist.files import UserError
from tips_dist.sections import digest
from tips_dist.study_file import load_study, parse_study

MINIMAL = "name: a\nrepresentations: [solo, torso_legs]\n"


def study(more: str = "", overrides: list[str] | None = None) -> Study:
    return parse_study(MINIMAL + more, "study.yaml", overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainin: {}\n", "study.yaml: trainin: unknown key (did you mean 'training'?)"),
        ("training: {step: 3}\n", "study.yaml: training.step: unknown key (did you mean 'steps'?)"),
        ("training: {steps: many}\n", "training.steps: input should be a valid integer, got 'many'"),
        ("training: {steps: 100, evaluate_every: 30}\n", "not a multiple of evaluate_every (30); try 90"),
        ("training: {generator_lr: -1.0}\n", "training.generator_lr: input should be greater than 0, got -1.0"),
        ("training: {generator_lr: .nan}\n", "generator_lr"),
        ("seeds: 0\n", "seeds: input should be greater than or equal to 1, got 0"),
        ("seeds: '4'\n", "seeds: input should be a valid integer, got '4'"),
        ("space: {training.generator_l: {uniform: [0.1, 1]}}\n", "did you mean 'generator_lr'?"),
        ("space: {training.generator_lr: {unifrm: [0.1, 1]}}\n", "space.training.generator_lr: expected one of"),
        ("space: {training.generator_lr: {uniform: [1, 0.1]}}\n", "the lower end 1.0 is not below the upper end 0.1"),
        ("space: {training.batch_size: {uniform: [1.5, 9]}}\n", "does not fit"),
        ("space: {seeds: {int: [1, 2]}}\n", "space.seeds: only model, training and losses can be searched"),
        ("space: {training.rotation: {choice: []}}\n", "space.training.rotation"),
        ("search: {trials: 3}\n", "space: empty, so all 3 trials of search.trials would be the same"),
        ("name: b\n", "the key 'name' stands twice"),
        ("training: [\n", "not valid YAML"),
        ("stopping: {divergence: no}\n", "stopping.divergence: input should be 'default' or 'off', got 'no'"),
    ],
)
def test_bad_study_files_say_what_is_wrong_and_where(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        study(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("study.yaml:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("representations: [solo]\n", "name: this key is required"),
        ("name: a\nrepresentations: []\n", "representations"),
        ("name: a\nrepresentations: [sollo]\n", "no representation 'sollo' (did you mean 'solo'?)"),
        ("name: a\nrepresentations: [solo, solo]\n", "a name stands twice"),
        ("name: ../up\nrepresentations: [solo]\n", "name"),
        ("- a\n- b\n", "a study file is a mapping"),
        ("", "a study file is a mapping"),
    ],
)
def test_bad_whole_files(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_study(text, "study.yaml")
    assert message in str(caught.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: no such study file"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a study file"):
        load_study(tmp_path / "binary.yaml")


def test_numbers_in_scientific_notation_and_off_are_what_people_mean() -> None:
    parsed = study("training: {generator_lr: 1e-3}\nstopping: {plateau: off}\n")
    assert parsed.training.generator_lr == 1e-3
    assert parsed.stopping.plateau == "off"


def test_overrides_win_and_are_checked() -> None:
    assert study(overrides=["training.steps=100", "seeds=2"]).training.steps == 100
    with pytest.raises(UserError, match="expected key=value"):
        study(overrides=["training.steps"])
    with pytest.raises(UserError, match="did you mean 'steps'"):
        study(overrides=["training.stepz=1"])


def test_the_digest_is_of_the_resolved_values() -> None:
    """Writing a default out changes nothing; changing any value does."""
    assert digest(study()) == digest(study("seeds: 4\n")) == digest(study("training: {steps: 6000}\n"))
    assert digest(study()) != digest(study("training: {steps: 6050}\n"))


def test_a_point_of_the_space_makes_a_configuration() -> None:
    parsed = study("space: {training.generator_lr: {log_uniform: [1e-4, 1e-2]}}\n")
    chosen = parsed.configuration("torso_legs", {"training.generator_lr": 5e-4, "losses.cycle_2d": 2.0})
    assert (chosen.representation, chosen.training.generator_lr, chosen.losses.cycle_2d) == ("torso_legs", 5e-4, 2.0)
    with pytest.raises(UserError, match=r"losses\.cycle"):
        parsed.configuration("solo", {"losses.cycle": 1.0})


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_published_study_file_is_valid(path: Path) -> None:
    assert load_study(path).representations
    assert path.read_text().startswith("#"), "each study file begins with a comment on what it shows"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 99999999999999999999999999\n", "seed: input should be less than or equal to 9007199254740992"),
        ("data: {procedural: {poses: 1000000000000}}\n", "data.procedural.poses: input should be less than or equal"),
        ("seeds: 100000\n", "seeds: input should be less than or equal to 4096"),
        ("model: {student_blocks: 1000}\n", "model.student_blocks: input should be less than or equal to 64"),
        (
            "space: {training.generator_lr: {log_uniform: [0, 1.0e-3]}}\n",
            "space.training.generator_lr.log_uniform: a logarithm needs ends above 0, got 0",
        ),
        (
            "space: {training.generator_lr: {log_uniform: [a, 1]}}\n",
            "space.training.generator_lr.log_uniform: input should be a valid number, got 'a'",
        ),
        ("'" + "k" * 900 + "': 1\n", "unknown key"),
        ('"\\e[31m": 1\n', "unknown key"),
        ('"\\ud800": 1\n', "invalid JSON"),
    ],
)
def test_hostile_and_unlucky_values_are_one_short_line(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        study(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 800
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "search: {storage: 'postgresql://me:hunter2@host/db'}\n",
        "search: {storage: 'sqlite:////tmp/x.db'}\n",
        "data: {poses: 's3://AKIA:hunter2@bucket/x.pose2d.h5'}\n",
        "data: {poses: 'https://host/x.pose2d.h5?sig=hunter2'}\n",
        "data: 's3://AKIA:hunter2@bucket/x.pose2d.h5'\n",
        "seeds: 'postgresql://me:hunter2@host/db?password=hunter2'\n",
    ],
)
def test_addresses_with_credentials_are_refused_unseen(text: str) -> None:
    with pytest.raises(UserError) as caught:
        study(text)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UserError) as caught:
        study(overrides=[f"data.poses={text.partition(': ')[2].strip()}", "data=s3://a:hunter2@b/x"])
    assert "hunter2" not in str(caught.value)


def test_a_date_may_be_a_name() -> None:
    assert parse_study("name: 2026-11-25\nrepresentations: [solo]\n", "study.yaml").name == "2026-11-25"


def test_an_override_of_a_thousand_sections() -> None:
    with pytest.raises(UserError, match="no section is that deep"):
        study(overrides=["a." * 1000 + "b=1"])

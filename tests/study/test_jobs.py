"""Studies as jobs: what is packed, submitted, shown and kept quiet; against a fake of Ray's client.

A real head, with token authentication, stands in tests/chaos/test_cluster.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from typer.testing import CliRunner

from tests.fakes import fake_poses
from tests.study.conftest import study_text
from tips_dist.cli import app
from tips_dist.config import Study
from tips_dist.data.writer import write_poses
from tips_dist.files import UserError
from tips_dist.study import jobs, packing
from tips_dist.study.jobs import Announcer, Jobs, heard
from tips_dist.study.packing import FORWARDED, Order, arrive, pack, submission_id
from tips_dist.study.records import StudyEvent
from tips_dist.study_file import load_study

ADDRESS = "http://127.0.0.1:8265"


@dataclass
class FakeClient:
    """A cluster's jobs; submitting looks into the package as Ray would."""

    known: dict[str, Any] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    packages: list[dict[str, tuple[bytes, int]]] = field(default_factory=list)
    tails: list[list[str]] = field(default_factory=list)  # what each connection gives before it breaks
    busy: int = 0
    race: bool = False

    def submit_job(self, **request: Any) -> str:
        if self.busy:
            self.busy -= 1
            raise RuntimeError("Request failed with status code 500: No available agent to submit job")
        identity = request["submission_id"]
        if self.race or identity in self.known:
            self.put(identity, "RUNNING")
            raise RuntimeError(f"Job with submission_id {identity} already exists")
        self.requests.append(request)
        folder = Path(request["runtime_env"]["working_dir"])
        files = {
            str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mode) for p in folder.rglob("*") if p.is_file()
        }
        self.packages.append(files)
        self.put(identity, "PENDING", request["metadata"])
        return str(identity)

    def put(self, identity: str, status: str, metadata: Any = None, code: int | None = None) -> None:
        self.known[identity] = SimpleNamespace(
            submission_id=identity,
            status=Status(status),
            metadata=metadata,
            message="",
            start_time=1_700_000_000_000 + len(self.known),
            end_time=None,
            driver_exit_code=code,
            runtime_env={"env_vars": {"SECRET": "value"}},
        )

    def get_job_info(self, identity: str) -> Any:
        if identity not in self.known:
            raise RuntimeError("Request failed with status code 404: Job does not exist")
        return self.known[identity]

    def list_jobs(self) -> list[Any]:
        return list(self.known.values())

    def stop_job(self, identity: str) -> bool:
        return bool(self.known[identity].status == "RUNNING")

    async def tail_job_logs(self, identity: str) -> AsyncIterator[str]:
        last = len(self.tails) == 1
        for text in self.tails[0] if last else self.tails.pop(0):
            await asyncio.sleep(0)
            yield text
        if last:
            self.put(identity, "SUCCEEDED", code=0)


class Status(str):
    @property
    def value(self) -> str:
        return str(self)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda address: fake)
    monkeypatch.setattr("tips_dist.study.jobs.time.sleep", lambda seconds: None)
    return fake


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A study beside its data, as in this repository: studies/ and data/."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "data").mkdir()
    path = tmp_path / "studies" / "test.yaml"
    path.write_text(study_text(data={"poses": "../data/fake.pose2d.h5"}))
    write_poses(tmp_path / "data" / "fake.pose2d.h5", fake_poses())
    return path


def beside(path: Path) -> Path:
    return path.parents[1] / "data" / "fake.pose2d.h5"


def submit(path: Path, order: Order = Order()) -> jobs.Submission:  # noqa: B008 (frozen)
    order = dataclasses.replace(order, poses=order.poses or beside(path))
    return Jobs(ADDRESS).submit(load_study(path, list(order.overrides)), path, order)


def test_what_travels(client: FakeClient, place: Path) -> None:
    found = submit(place, Order(overrides=["training.steps=80"]))
    assert found.fresh
    assert set(client.packages[0]) == {"studies/test.yaml", "data/fake.pose2d.h5"}
    assert client.packages[0]["data/fake.pose2d.h5"][0] == (place.parents[1] / "data" / "fake.pose2d.h5").read_bytes()
    line = client.requests[0]["entrypoint"]
    words = "-m tips_dist.cli run studies/test.yaml --job --address auto --set training.steps=80"
    assert f'{words} --runs "$HOME"/tips-dist-runs' in line
    assert client.requests[0]["metadata"]["trials"] == "4"
    assert "py_modules" not in client.requests[0]["runtime_env"]


def test_the_package_opens_as_the_study_did(place: Path, tmp_path: Path) -> None:
    from tips_dist.runfolder.poses import study_poses

    study = load_study(place)
    inside = tmp_path / "package" / pack(study, place, tmp_path / "package", beside(place))
    assert study_poses(load_study(inside).data, inside.parent).digest == fake_poses().digest


@pytest.mark.parametrize("named", ["/shared/x.pose2d.h5", "s3://bucket/x.pose2d.h5", None])
def test_data_that_lies_on_the_cluster_stays_there(named: str | None, client: FakeClient, place: Path) -> None:
    place.write_text(study_text(data={"poses": named} if named else {}))
    submit(place)
    assert set(client.packages[0]) == {"test.yaml"}


def test_large_data_does_not_travel(client: FakeClient, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="put it on storage that the cluster reads"):
        submit(place)
    (place.parents[1] / "data" / "fake.pose2d.h5").unlink()
    with pytest.raises(UserError, match=r"data\.poses: \.\./data/fake\.pose2d\.h5: no such file"):
        submit(place)


def test_only_a_pose_file_within_reach_travels(client: FakeClient, place: Path, tmp_path: Path) -> None:
    """A study of somebody else cannot make a file of ours leave this machine."""
    plain = Jobs(ADDRESS)
    with pytest.raises(UserError, match=r"lies outside of the study's folder.*--poses"):
        plain.submit(load_study(place), place, Order())
    key = tmp_path / "id_rsa"
    key.write_text("PRIVATE KEY")
    inside = place.parent / "inside.pose2d.h5"
    for told in ("../id_rsa", "inside.pose2d.h5"):  # by .. and by a link
        inside.unlink(missing_ok=True)
        inside.symlink_to(key)
        place.write_text(study_text(data={"poses": told}))
        with pytest.raises(UserError, match="lies outside of the study's folder"):
            plain.submit(load_study(place), place, Order())
        with pytest.raises(UserError, match="not an HDF5 file"):
            plain.submit(load_study(place), place, Order(poses=key))
        with pytest.raises(UserError, match="is not the file that the study names"):
            plain.submit(load_study(place), place, Order(poses=beside(place)))
    inside.unlink()
    inside.write_text("PRIVATE KEY")
    with pytest.raises(UserError, match="not an HDF5 file"):
        plain.submit(load_study(place), place, Order())
    assert not client.requests
    inside.write_bytes(beside(place).read_bytes())
    assert plain.submit(load_study(place), place, Order()).fresh
    place.write_text(study_text(data={"poses": "../id_rsa"}))
    told = "data.poses=../data/fake.pose2d.h5"
    assert plain.submit(load_study(place, [told]), place, Order(overrides=[told])).fresh


def test_no_secret_travels_in_an_address(client: FakeClient, place: Path) -> None:
    for address in ("s3://AKIA:hunter2@bucket/runs", "https://host/runs?sig=hunter2", "s3://bucket/runs?token=hunter2"):
        with pytest.raises(UserError, match="--storage") as caught:
            submit(place, Order(storage=address))
        assert "hunter2" not in str(caught.value)
    with pytest.raises(UserError, match="--address") as caught:
        Jobs("http://me:hunter2@127.0.0.1:8265")
    assert "hunter2" not in str(caught.value)
    assert not client.requests


def test_the_same_study_twice_is_one_job(client: FakeClient, place: Path) -> None:
    first = submit(place)
    assert submit(place) == jobs.Submission(first.id, "PENDING", fresh=False)
    client.put(first.id, "SUCCEEDED")
    assert submit(place) == jobs.Submission(first.id, "SUCCEEDED", fresh=False)
    assert submit(place, Order(again=True)) == jobs.Submission(f"{first.id}-2", "PENDING", fresh=True)
    client.put(f"{first.id}-2", "FAILED")
    assert submit(place, Order(again=True)).id == f"{first.id}-3"
    assert len(client.requests) == 3


def test_a_failed_or_stopped_job_is_taken_up_again(client: FakeClient, place: Path) -> None:
    first = submit(place)
    for number, state in enumerate(("FAILED", "STOPPED"), start=2):
        client.put(first.id if number == 2 else f"{first.id}-2", state)
        assert submit(place) == jobs.Submission(f"{first.id}-{number}", "PENDING", fresh=True)


def test_two_who_submit_at_once(client: FakeClient, place: Path) -> None:
    client.race = True
    assert not submit(place).fresh


def test_the_id_tells_studies_data_and_places_apart(place: Path) -> None:
    def identity(study: Study, order: Order = Order()) -> str:  # noqa: B008 (frozen)
        return submission_id(study, place, dataclasses.replace(order, poses=beside(place)))

    study = load_study(place)
    ids = {
        identity(study),
        identity(load_study(place, ["training.steps=80"])),
        identity(study, Order(runs="/shared")),
        identity(study, Order(storage="s3://bucket/x")),
    }
    write_poses(place.parents[1] / "data" / "fake.pose2d.h5", fake_poses(128))
    ids.add(identity(study))
    assert len(ids) == 5
    assert all(name.startswith("test-") for name in ids)


def test_only_named_variables_travel_and_never_in_the_request(
    client: FakeClient, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "very-secret")
    monkeypatch.setenv("OTHER_KEY", "also-secret")
    submit(place, Order(forward=["MY_KEY"]))
    content, mode = client.packages[0].pop(FORWARDED)
    assert json.loads(content)["variables"] == {"MY_KEY": "very-secret"}
    assert stat.S_IMODE(mode) == 0o600
    everything = json.dumps(client.requests[0], default=str) + str(client.packages[0])
    assert "secret" not in everything
    assert "secret" not in json.dumps([asdict(job) for job in Jobs(ADDRESS).list()])
    with pytest.raises(UserError, match="--env NOT_SET: no such environment variable"):
        submit(place, Order(forward=["NOT_SET"]))
    with pytest.raises(UserError, match="name the variable only") as refused:
        submit(place, Order(forward=["MY_KEY=very-secret"]))
    assert "secret" not in str(refused.value)


def test_on_arrival_variables_are_taken_and_the_package_goes_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", "")
    config = {"runtime_env": {"working_dir": "gcs://x.zip", "env_vars": {"A": "B"}}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    Path(FORWARDED).write_text(json.dumps({"variables": {"MY_KEY": "very-secret"}, "nonce": "x"}))
    arrive()
    assert os.environ["MY_KEY"] == "very-secret"
    assert not Path(FORWARDED).exists()
    assert json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["runtime_env"] == {"env_vars": {"A": "B"}}
    arrive()  # nothing left to take: nothing happens


def test_tune_does_not_put_cloud_keys_into_its_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray logs the ``env_vars`` of its workers, and Tune puts AWS keys there unless told otherwise."""
    from ray.tune.execution.class_cache import _ActorClassCache

    import tips_dist.study.tuning  # noqa: F401 (what it does to Tune on import)

    class Trainable: ...

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    actor = _ActorClassCache().get(Trainable)
    assert "very-secret" not in str(actor._default_options)
    assert "env_vars" in str(actor._default_options)  # so this looks at the right place


def test_a_head_that_has_just_started_is_waited_for(client: FakeClient, place: Path) -> None:
    client.busy = 3
    assert submit(place).fresh


def test_following_survives_broken_connections(client: FakeClient) -> None:
    client.put("job", "RUNNING")
    client.tails = [["one\ntw"], ["one\ntwo\nthr"], ["one\ntwo\nthree\nfour"], ["one\ntwo\nthree\nfour\nfive\n"]]
    assert list(Jobs(ADDRESS).follow("job")) == ["one", "two", "three", "four", "five"]


def test_a_cut_line_is_not_taken_for_a_whole_one(client: FakeClient) -> None:
    client.put("job", "RUNNING")
    client.tails = [["one\ntw"], ["one\ntwo"]]
    assert list(Jobs(ADDRESS).follow("job")) == ["one", "two"]


@pytest.mark.parametrize(
    ("status", "code", "ours"), [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", -15, 130)]
)
def test_exit_codes(status: str, code: int | None, ours: int, client: FakeClient) -> None:
    client.put("job", status, code=code)
    assert Jobs(ADDRESS).wait("job") == ours


def test_other_peoples_jobs_are_not_listed(client: FakeClient, place: Path) -> None:
    client.put("theirs", "RUNNING", metadata={"job": "theirs"})
    ours = submit(place).id
    assert [job.id for job in Jobs(ADDRESS).list()] == [ours]
    with pytest.raises(UserError, match="nobody: no such job"):
        Jobs(ADDRESS).status("nobody")


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "ray://head:10001", "auto"])
def test_an_address_that_is_no_dashboard(address: str) -> None:
    with pytest.raises(UserError, match="expected the URL of the cluster's dashboard"):
        Jobs(address)


@pytest.mark.parametrize(("told", "said"), [("Invalid token", "another token"), ("Missing", "asks for a token")])
def test_a_cluster_that_refuses_us(told: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise AuthenticationError(told)

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", refuse)
    with pytest.raises(UserError, match=said):
        Jobs(ADDRESS)


def test_nobody_answers() -> None:
    with pytest.raises(UserError, match="no answer as a Ray cluster's dashboard would give"):
        Jobs("http://127.0.0.1:9")


def test_events_travel_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    announce = Announcer(seconds=5.0, clock=lambda: now)
    event = StudyEvent("solo-000", "solo", "running", 10, 100, 0.5, {"healthy": 2}, 30.0)
    announce(event)
    announce(event)  # too soon
    now = 106.0
    announce(event)
    announce(StudyEvent("solo-000", "solo", "finished", 100, 100))  # a change is told at once
    lines = capsys.readouterr().out.splitlines()
    assert [found.state for line in lines if (found := heard(line))] == ["running", "running", "finished"]
    assert heard(lines[0]) == event
    assert heard("Wrote student.json") is None
    assert heard(jobs.EVENT + "{broken") is None


def test_the_command_line(client: FakeClient, place: Path) -> None:
    run = CliRunner()
    result = run.invoke(app, ["submit", str(place), "--poses", str(beside(place)), "--address", ADDRESS, "--json"])
    found = json.loads(result.output)
    assert found["fresh"] is True
    client.put(found["id"], "FAILED", metadata={jobs.MARK: "test"}, code=2)
    assert found["id"] in run.invoke(app, ["jobs", "list", "--address", ADDRESS]).output
    assert "FAILED" in run.invoke(app, ["jobs", "status", found["id"], "--address", ADDRESS]).output
    client.put(f"{found['id']}-2", "RUNNING")
    client.tails = [["hello\n"], ["hello\n"]]
    result = run.invoke(app, ["submit", str(place), "--poses", str(beside(place)), "--address", ADDRESS, "--follow"])
    assert result.exit_code == 0
    assert "hello" in result.output
    client.put(f"{found['id']}-2", "SUCCEEDED", code=0)
    assert run.invoke(app, ["jobs", "stop", found["id"], "--address", ADDRESS]).output.endswith("had ended already\n")

"""docs/cluster: what a cluster is told to run is what jaxcnn understands."""

import re
import shlex
import tomllib

import pytest

from jaxcnn.commands._main import parser_of
from jaxcnn.commands._processes import launch_of
from jaxcnn.runs.launch import divided, together
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "cluster"


def test_the_pods_of_the_job_set_make_train_and_end_one_sweep():
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((FOLDER / "jobset.yaml").read_text())["spec"]["replicatedJobs"]
    assert [job["name"] for job in jobs] == ["make", "parts", "table"]
    assert [job.get("dependsOn") for job in jobs] == [
        None,
        [{"name": "make", "status": "Complete"}],
        [{"name": "parts", "status": "Complete"}],
    ]
    pods = [job["template"]["spec"]["template"]["spec"] for job in jobs]
    made, part, table = (pod["containers"][0]["args"] for pod in pods)
    words = shlex.split(made[0])
    assert words[:5] == ["test", "-f", "/runs/rates/run.json", "||", "jaxcnn"]
    parser = parser_of(["train"])
    new = parser.parse_args(words[5:])
    assert launch_of(new).on == "commands"
    points = 4 * 4
    assert new.sweep == ["seed=0..3", "optimizer.learning_rate=0.001,0.002,0.004,0.008"]
    size = together(points, new.workers, way=None, halving=None)
    parts = jobs[1]["template"]["spec"]
    assert len(divided(list(range(points)), size)) == parts["completions"] == parts["parallelism"]
    assert part[-1] == "$(JOB_COMPLETION_INDEX)"
    worker = parser.parse_args([*part[:-1], "3"])
    assert (worker.resume, worker.part) == (new.run_dir, 3)
    assert parser.parse_args(table).resume == new.run_dir
    assert all(pod["restartPolicy"] == "Never" for pod in pods), "as podFailurePolicy demands"


def test_the_image_is_made_of_what_is_there():
    text = (FOLDER / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for word in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = ",".join(re.findall(r"EXTRAS=(\S+)", text)).split(",")
    assert set(asked) <= set(extras["optional-dependencies"])
    assert 'ENTRYPOINT ["jaxcnn"]' in text, "in brackets: no shell keeps the signal to itself"

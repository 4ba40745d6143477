"""What a driver passes on to the processes of a remote cluster."""

from cluster.session import _worker_variables
from cluster.storage.s3_settings import ANSWERED


def test_workers_receive_the_settings_of_storage_and_tracker_without_passwords(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://user:secret@storage:9000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret@tracker/api")
    variables = _worker_variables()
    assert variables["AWS_ENDPOINT_URL_S3"] == "http://storage:9000"
    assert variables["MLFLOW_TRACKING_URI"] == "https://tracker/api"
    assert ANSWERED in variables
    assert "secret" not in str(variables)


def test_variables_that_the_job_sets_are_left_out(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {"env_vars": {"AWS_REGION": "us-east-1"}}}')
    assert "AWS_REGION" not in _worker_variables()

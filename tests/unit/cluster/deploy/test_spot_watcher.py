"""The watcher goes on after failures; a real metadata service and real raylets are in tests/cluster."""

import http.client
import json

import pytest

from cluster.deploy import spot_watcher
from cluster.deploy.spot_watcher import Notice, aws_notice, watch

NOTICE = Notice("AWS: terminate", 100.0)


@pytest.mark.parametrize(
    "failure",
    [
        OSError("no answer"),
        http.client.IncompleteRead(b""),
        http.client.BadStatusLine("<html>"),
        json.JSONDecodeError("Expecting value", "<html>", 0),
        KeyError("time"),
        RuntimeError("the cluster is not there yet"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_the_watcher_survives_any_failure_of_polling_and_draining(failure, caplog):
    polls, drains = iter([failure, NOTICE, NOTICE]), iter([failure, None])

    def following(results):
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    assert watch(lambda: following(polls), lambda _: following(drains), poll_s=0.001) == NOTICE
    assert next(polls, None) is next(drains, None) is None
    assert caplog.text.count(type(failure).__name__) >= 2


@pytest.mark.parametrize("answer", ["<html>", "{}", '{"action": "terminate", "time": "soon"}'])
def test_an_answer_that_is_no_notice_does_not_end_the_watcher(answer, monkeypatch):
    answers = iter(["token", answer, "token", '{"action": "stop", "time": "2030-01-01T00:00:00Z"}'])
    monkeypatch.setattr(spot_watcher, "_fetch", lambda *_: next(answers))
    assert watch(aws_notice, lambda _: None, poll_s=0.001).message == "AWS: stop at 2030-01-01T00:00:00Z"

"""Served endpoints, against a server of this process that speaks TensorFlow Serving's REST API."""

import http.server
import json
import threading

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.attacks import FGSM, Square
from keras_robust.evaluation import evaluate
from keras_robust.evaluation._endpoint import Endpoint, is_url

pytestmark = pytest.mark.once


class Handler(http.server.BaseHTTPRequestHandler):
    """`POST /v1/models/m:predict` through the SavedModel of the server; other paths as stubs."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.removesuffix(":predict").rsplit("/", 1)[-1]
        self.server.asked.append((self.path, len(body["instances"])))
        if path == "flaky" and len(self.server.asked) < 3:
            self.close_connection = True
            return
        if path == "slow":  # Until the test is over, and then as it should be.
            self.server.over.wait(10)
            path = "m"
        if path == "page":
            self._answer(200, b"<html>")
            return
        if path not in ("m", "7", "flaky", "dicts", "scores"):
            self._answer(404, json.dumps({"error": f"Servable not found: {path}"}).encode())
            return
        x = tf.constant(body["instances"], tf.float32)
        try:
            logits = self.server.call(x)["logits"].numpy().tolist()
        except (ValueError, tf.errors.OpError) as error:
            self._answer(400, json.dumps({"error": str(error)}).encode())
            return
        if path == "dicts":
            logits = [{"logits": row, "probabilities": row, "class": "a"} for row in logits]
        if path == "scores":
            logits = [0.5] * len(logits)
        self._answer(200, json.dumps({"predictions": logits}).encode())

    def _answer(self, code, body):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(saved_model, inside):
    """Address of a server of a linear model, and the requests that it got."""
    model, x, y, radius = inside(count=30)
    loaded = tf.saved_model.load(str(saved_model(model, 12)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.call = lambda x: loaded.signatures["serving_default"](images=x)
    server.asked, server.model, server.data = [], model, (x, y, radius)
    server.over = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/v1/models/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["m", "m:predict", "m/versions/7", "dicts", "flaky"])
def test_answers_are_the_models_logits(server, name):
    x = np.tile(server.data[0], (4, 1))
    logits = Endpoint(server.url + name)(x)
    np.testing.assert_allclose(logits, server.model(x), rtol=1e-5)
    assert logits.dtype == np.float32
    rows = [count for _, count in server.asked]
    assert rows == ([64] * 3 + [56] if name == "flaky" else [64, 56])


def test_evaluation_of_an_endpoint(server):
    x, y, radius = server.data
    report = evaluate(
        {"served": server.url + "m", "model": server.model},
        x,
        y,
        [FGSM(0.02), Square(0.02, queries=50)],
        black_box=False,
        eps_sweep=(),
        latency_runs=2,
        progress=False,
    )
    found = report.to_dict()["artifacts"]["served"]
    assert found["kind"] == "endpoint" and found["bytes"] is None
    assert found["robust_accuracy"]["FGSM"] == (radius > 0.02).mean()
    assert found["latency_ms"] > 0 and found["queries"]["Square-50"] > 30
    # Only `x`, the twin's examples and what Square asked was sent, and a few for the latency.
    rows = sum(count for _, count in server.asked)
    assert found["queries"]["Square-50"] < rows < found["queries"]["Square-50"] + 5 * 30
    assert "served endpoint" in report.table()


def test_wrong_address_is_refused_before_it_is_asked():
    assert is_url("https://a/v1/models/m") and not is_url("models/m") and not is_url(3)
    for url in ("http://localhost:8501", "http://localhost/v1/models/", "http://a/v2/models/m"):
        with pytest.raises(ValueError, match="is no address of a served model. Give http://host"):
            Endpoint(url)


def test_refusals_name_address_and_fix(server):
    with pytest.raises(ValueError, match="/absent:predict answered 404: Servable not found.*name"):
        Endpoint(server.url + "absent")(server.data[0])
    with pytest.raises(ValueError, match="/m:predict answered 400: .*takes one input of the shape"):
        Endpoint(server.url + "m")(server.data[0][:, :5])
    with pytest.raises(ValueError, match="/page:predict did not answer in JSON"):
        Endpoint(server.url + "page")(server.data[0])
    with pytest.raises(ValueError, match="/scores:predict answered without a table of logits"):
        Endpoint(server.url + "scores")(server.data[0])
    with pytest.raises(ValueError, match=r"`artifacts\['m'\]` fails on a batch .*answered 404"):
        evaluate({"m": server.url + "no"}, *server.data[:2], [FGSM(0.1)], progress=False)


def test_silence_is_a_connection_error_that_says_what_to_do(server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=r"does not answer \(.*refused.*Start the server"):
        Endpoint(server.url + "m")(server.data[0])


def test_an_answer_is_not_waited_for_longer_than_asked(server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(ConnectionError, match=r"timed out; 3 tries of at most 0.1 s"):
        Endpoint(server.url + "slow", timeout=0.1)(server.data[0][:2])
    assert [count for _, count in server.asked] == [2, 2, 2]

"""A model behind TensorFlow Serving's REST interface, as a function from images to logits."""

import http.client
import json
import re
import time
import urllib.error
import urllib.request

import numpy as np

_PREDICT = ":predict"
# Rows of one request: servers limit the bytes of a message.
_ROWS = 64
_TRIES = 3
_SHAPE = re.compile(r"https?://[^/\s]+(/\S*)?/v1/models/[^/:?#\s]+(/(versions|labels)/[^/:?#\s]+)?")


def is_url(value) -> bool:
    """Whether `value` is the address of an endpoint and no path."""
    return isinstance(value, str) and value.startswith(("http://", "https://"))


class Endpoint:
    """A served classifier as a callable: images `(n, ...)` to logits `(n, classes)`.

    Speaks the row format of the predict API, https://www.tensorflow.org/tfx/serving/api_rest:
    `{"instances": [...]}` gives `{"predictions": [...]}`. Where a prediction is a dict, its
    entry "logits" counts, or the only one that is a list of numbers. A request that breaks off is
    sent again: asking changes nothing on the server.

    Args:
        url: `http://host:port/v1/models/NAME`, with `/versions/N` and `:predict` or without.
        timeout: seconds to wait for an answer.

    Raises:
        ValueError: `url` has another form, or, when asked, the server refuses or its answer is
            no table of logits.
        ConnectionError: when asked: no answer, even after trying again.
    """

    def __init__(self, url: str, timeout: float = 60.0):
        base = url.removesuffix(_PREDICT).rstrip("/")
        if not _SHAPE.fullmatch(base):
            raise ValueError(
                f"{url!r} is no address of a served model. Give "
                "http://host:port/v1/models/NAME, with /versions/N behind it for one version."
            )
        self.url = base + _PREDICT
        self._timeout = timeout

    def __call__(self, images) -> np.ndarray:
        """Logits `(n, classes)` float32 of images `(n, ...)` float32."""
        images = np.asarray(images, np.float32)
        parts = [self._ask(images[k : k + _ROWS]) for k in range(0, len(images), _ROWS)]
        return np.concatenate(parts)

    def _ask(self, images) -> np.ndarray:
        body = json.dumps({"instances": images.tolist()}).encode()
        try:
            answer = json.loads(self._send(body))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{self.url} did not answer in JSON. Is it the REST port of TensorFlow Serving?"
            ) from error
        return self._logits(answer, len(images))

    def _send(self, body: bytes) -> bytes:
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        for attempt in range(_TRIES):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:
                raise self._refused(error) from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == _TRIES - 1:
                    reason = getattr(error, "reason", error)
                    raise ConnectionError(
                        f"{self.url} does not answer ({reason}; {_TRIES} tries of at most "
                        f"{self._timeout:g} s). Start the server, or correct host and port."
                    ) from error
                time.sleep(0.2 * 5**attempt)
        raise AssertionError  # the loop returns or raises

    def _refused(self, error) -> ValueError:
        text = error.read().decode("utf-8", "replace").strip()
        try:
            text = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            pass
        fix = (
            "Check the model's name and version in the address."
            if error.code == 404
            else "Check that the model takes one input of the shape of `x`."
        )
        text = " ".join(str(text).split())[:300]
        return ValueError(f"{self.url} answered {error.code}: {text}. {fix}")

    def _logits(self, answer, count) -> np.ndarray:
        rows = answer.get("predictions") if isinstance(answer, dict) else None
        if rows and isinstance(rows[0], dict):
            keys = sorted(k for k, v in rows[0].items() if _is_numbers(v))
            key = "logits" if "logits" in keys else keys[0] if len(keys) == 1 else None
            rows = [row.get(key) for row in rows]
        try:
            logits = np.asarray(rows, np.float32)
        except (TypeError, ValueError):
            logits = np.zeros(0, np.float32)
        if logits.ndim != 2 or len(logits) != count:
            raise ValueError(
                f"{self.url} answered without a table of logits for {count} images: "
                f"{json.dumps(answer)[:200]}. Serve a signature with one output (batch, classes), "
                "or one called 'logits'."
            )
        return logits


def _is_numbers(value) -> bool:
    return isinstance(value, list) and all(isinstance(n, (int, float)) for n in value)

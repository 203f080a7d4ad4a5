"""What tests of `pith serve` share: a server with a model of its own, requests, streams."""
import http.client
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import unittest

PITH, BIN = os.environ["PITH_PROGRAM"], os.environ["PITH_TEST_BIN"]
DEADLINE = 120  # seconds after which a test has failed
FOLDER = tempfile.TemporaryDirectory()
MODEL = os.path.join(FOLDER.name, "tiny.gguf")
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WHY = [{"role": "user", "content": "Why?"}]
# An answer that only its client or the server's end can end: it would take minutes, and holds few rows.
ENDLESS = {"max_tokens": 1000000, "ignore_eos": True, "cache_policy": "window:budget=64"}
ENDLESS_CTX = ("--ctx", "2000000")  # of a model that can give one


def make_model(path, *more):
    subprocess.run([os.path.join(BIN, "tiny_model_main"), "--arch", "qwen2", "--type", "q8_0", "--out", path, *more],
                   check=True)


class Reply:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    def json(self):
        return json.loads(self.body.decode())


class Server:
    """`pith serve` on a free port, until `stop`."""

    def __init__(self, model, *args):
        self.child = subprocess.Popen([PITH, "serve", "-m", model, "--port", "0", *args], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.url = self.child.stdout.readline().decode().strip()  # it answers when the line is there
        if not self.url:
            raise AssertionError(self.child.stderr.read().decode())
        self.ending = False
        self.host, self.port = "127.0.0.1", int(self.url.rsplit(":", 1)[1])

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE)

    def ask(self, method, path, body=None, headers={}):
        """One request on a connection of its own. A body that is no bytes goes as JSON."""
        connection = self.connect()
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json", **headers})
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def post(self, path, **body):
        return self.ask("POST", path, body)

    def answer(self, path, **body):
        reply = self.post(path, **body)
        assert reply.status == 200, reply.body
        return reply.json()

    def chat(self, content="Why?", **body):
        return self.answer("/v1/chat/completions", messages=[{"role": "user", "content": content}], **body)

    def complete(self, prompt="Why?", **body):
        return self.answer("/v1/completions", prompt=prompt, **body)

    def open_stream(self, path, **body):
        connection = self.connect()
        connection.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
        return Stream(connection)

    def stream(self, path, **body):
        """All events of a stream that ends well."""
        stream = self.open_stream(path, **body)
        try:
            return list(stream)
        finally:
            stream.close()

    def metrics(self):
        text = self.ask("GET", "/metrics").body.decode()
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

    def metric(self, name):
        return float(self.metrics().get("pith_" + name, 0))

    def wait_for(self, **wanted):
        """Asks for metrics until they have these values."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            now = self.metrics()
            if all(float(now["pith_" + name]) == value for name, value in wanted.items()):
                return
        raise AssertionError((wanted, now))

    def n_files(self):
        return len(os.listdir("/proc/%d/fd" % self.child.pid))

    def end(self, how=signal.SIGTERM):
        if not self.ending and self.child.poll() is None:  # a second signal would end it at once
            self.child.send_signal(how)
        self.ending = True

    def stop(self):
        """Ends it. (exit code, what it said on stderr)."""
        self.end()
        err = self.child.stderr.read().decode()
        self.child.stdout.close()
        self.child.stderr.close()
        return self.child.wait(DEADLINE), err


class Stream:
    """Server-sent events of one answer, as objects. Raises what is no event; `done` tells whether [DONE] came."""

    def __init__(self, connection):
        self.connection = connection
        self.response = connection.getresponse()
        self.status = self.response.status
        self.done = False
        assert self.status == 200, self.response.read()
        assert self.response.headers["Content-Type"] == "text/event-stream"

    def __iter__(self):
        for line in self.response:
            line = line.decode()  # UTF-8, always
            if line == "\n":
                continue
            assert line.startswith("data: ") and not self.done, line
            if line == "data: [DONE]\n":
                self.done = True
                continue
            yield json.loads(line[6:])

    def close(self):
        self.response.close()
        self.connection.close()


def joined(events, index=0):
    """(reasoning, content, finish reason) of a choice whose stream these events are."""
    reasoning, content, finish = "", "", None
    for event in events:
        for choice in event["choices"]:
            if choice["index"] != index:
                continue
            said = choice.get("delta", {"content": choice.get("text")})
            reasoning += said.get("reasoning_content") or ""
            content += said.get("content") or ""
            finish = choice["finish_reason"] or finish
    return reasoning, content, finish


def together(*calls):
    """Results of calls that run at the same time."""
    results = [None] * len(calls)

    def call(i):
        results[i] = calls[i]()
    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    return results


class Shared(unittest.TestCase):
    """Tests that one server serves."""
    model = MODEL
    args = ("--alias", "tiny", "--max-sequences", "8", "--policy", "full")

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.model, *cls.args)

    @classmethod
    def tearDownClass(cls):
        code, err = cls.server.stop()
        assert code == 0, err

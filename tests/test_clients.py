"""Clients that people use: the openai package for Node, curl, and the page in Chromium."""
import json
import os
import shutil
import subprocess
import tempfile
import unittest

from serving import DEADLINE, ENDLESS_CTX, Server, make_model

CLIENTS = os.path.join(os.environ["PITH_ROOT"], "tests", "clients")
PACKAGES = os.path.join(os.environ["PITH_ROOT"], "build", "clients")
FOLDER = tempfile.TemporaryDirectory()
MODEL = os.path.join(FOLDER.name, "thinker.gguf")


class Clients(unittest.TestCase):
    def setUp(self):
        self.server = Server(MODEL, "--max-sequences", "4")

    def tearDown(self):
        code, err = self.server.stop()
        self.assertEqual(code, 0, err)

    def node(self, script, *args):
        chromium = shutil.which("chromium") or "chromium"
        done = subprocess.run(["node", os.path.join(CLIENTS, script), self.server.url, *args], capture_output=True,
                              env={**os.environ, "PITH_CLIENTS": PACKAGES, "PITH_CHROMIUM": chromium}, timeout=4 * DEADLINE)
        self.assertEqual(done.returncode, 0, done.stderr.decode())

    def test_the_openai_package(self):
        self.node("api.mjs")

    def test_the_page(self):
        shots = os.path.abspath("page")  # kept, to be looked at
        os.makedirs(shots, exist_ok=True)
        self.node("page.mjs", shots)
        for name in ("thinking", "compressed", "dark"):
            self.assertGreater(os.path.getsize(os.path.join(shots, name + ".png")), 10000)

    def test_curl(self):
        def curl(*args):
            return subprocess.run(["curl", "-sS", "-m", str(DEADLINE), *args], capture_output=True, check=True).stdout.decode()
        body = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 20, "seed": 1, "ignore_eos": True}
        url = self.server.url + "/v1/chat/completions"
        whole = json.loads(curl(url, "-d", json.dumps(body)))  # as a form, which is what curl says it is
        events = curl("-N", url, "-H", "Content-Type: application/json", "-d", json.dumps({**body, "stream": True}))
        lines = [line for line in events.splitlines() if line]
        self.assertEqual(lines[-1], "data: [DONE]")
        said = "".join(json.loads(line[6:])["choices"][0]["delta"].get("reasoning_content", "") for line in lines[:-1])
        self.assertEqual(said, whole["choices"][0]["message"]["reasoning_content"])


if __name__ == "__main__":
    make_model(MODEL, "--thinks", *ENDLESS_CTX)
    unittest.main()

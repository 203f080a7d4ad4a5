"""pith serve as its clients meet it: answers, streams, neighbours, limits, bad input, the end."""
import json
import os
import signal
import socket
import subprocess
import time
import unittest

from serving import (CHAT, DEADLINE, ENDLESS, ENDLESS_CTX, FOLDER, MODEL, PITH, TEXT, WHY, Server, Shared, joined,
                     make_model, together)

SHORT = os.path.join(FOLDER.name, "short.gguf")  # a model of 4096 tokens

RPC = "rpc:p=32,r=8,c=4"


def run(*args):
    """Standard output of pith run: the answer's bytes."""
    return subprocess.run([PITH, "run", "-m", MODEL, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=True, timeout=DEADLINE).stdout


class Answers(Shared):
    def test_a_chat_completion_has_openais_shape(self):
        a = self.server.chat(max_tokens=20, seed=1, model="tiny")
        self.assertEqual(a["object"], "chat.completion")
        self.assertTrue(a["id"].startswith("chatcmpl-"))
        self.assertLess(abs(a["created"] - time.time()), 1000)
        self.assertEqual(a["model"], "tiny")
        (choice,) = a["choices"]
        self.assertEqual(choice["index"], 0)
        self.assertEqual(choice["message"]["role"], "assistant")
        self.assertIsInstance(choice["message"]["content"], str)
        self.assertIsNone(choice["logprobs"])
        self.assertIn(choice["finish_reason"], ("stop", "length"))
        usage = a["usage"]
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])
        self.assertTrue(1 <= usage["completion_tokens"] <= 20)

    def test_text_is_what_pith_run_prints(self):
        for seed in range(3):
            a = self.server.complete(max_tokens=150, seed=seed, ignore_eos=True)
            printed = run("--raw", "-p", "Why?", "-n", "150", "--seed", str(seed), "--ignore-eos", "--policy", "full")
            self.assertEqual(a["choices"][0]["text"] + "\n", printed.decode(errors="replace"))
            self.assertEqual(a["choices"][0]["finish_reason"], "length")

    def test_streams_say_what_whole_answers_say(self):
        body = dict(messages=WHY, max_tokens=200, seed=4, ignore_eos=True)
        message = self.server.answer(CHAT, **body)["choices"][0]["message"]
        events = self.server.stream(CHAT, **body, stream_options={"include_usage": True})
        reasoning, content, finish = joined(events)
        self.assertEqual(reasoning, message.get("reasoning_content", ""))
        self.assertEqual(content, message["content"])
        self.assertEqual(finish, "length")
        self.assertEqual(events[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertTrue(all("role" not in e["choices"][0]["delta"] for e in events[1:-1]))
        self.assertTrue(all(e["usage"] is None for e in events[:-1]))
        self.assertEqual(events[-1]["choices"], [])
        self.assertEqual(events[-1]["usage"]["completion_tokens"], 200)
        self.assertEqual({e["object"] for e in events}, {"chat.completion.chunk"})
        self.assertEqual(len({e["id"] for e in events}), 1)
        text = self.server.complete(max_tokens=100, seed=2, ignore_eos=True)["choices"][0]["text"]
        events = self.server.stream(TEXT, prompt="Why?", max_tokens=100, seed=2, ignore_eos=True)
        self.assertEqual(joined(events)[1], text)
        self.assertTrue(all("usage" not in e for e in events))

    def test_a_stream_ends_with_its_mark(self):
        stream = self.server.open_stream(CHAT, messages=WHY, max_tokens=3)
        list(stream)
        self.assertTrue(stream.done)
        stream.close()

    def test_choices_are_samples_of_one_prompt(self):
        body = dict(prompt="Why?", max_tokens=60, seed=9, ignore_eos=True, cache_policy="rpc:p=16,r=4,c=4")
        one = self.server.answer(TEXT, **body)["choices"][0]["text"]
        three = self.server.answer(TEXT, **body, n=3)
        texts = [c["text"] for c in three["choices"]]
        self.assertEqual([c["index"] for c in three["choices"]], [0, 1, 2])
        self.assertEqual(texts[0], one)
        self.assertEqual(len(set(texts)), 3)
        self.assertEqual(three["usage"]["completion_tokens"], 180)
        events = self.server.stream(TEXT, **body, n=3)
        self.assertEqual([joined(events, i)[1] for i in range(3)], texts)

    def test_the_seed_decides(self):
        texts = [self.server.complete(max_tokens=40, seed=s)["choices"][0]["text"] for s in (5, 5, 6)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])
        self.assertNotEqual(*[self.server.complete(max_tokens=40, ignore_eos=True)["choices"][0]["text"] for _ in "ab"])
        greedy = [self.server.complete(max_tokens=40, temperature=0, seed=s)["choices"][0]["text"] for s in (1, 2)]
        self.assertEqual(*greedy)
        self.assertEqual(greedy[0], self.server.complete(max_tokens=40, top_p=0, seed=3)["choices"][0]["text"])
        self.assertEqual(greedy[0], self.server.complete(max_tokens=40, top_k=1, seed=4)["choices"][0]["text"])

    def test_stop_strings_end_an_answer(self):
        body = dict(prompt="Why?", max_tokens=200, seed=3, ignore_eos=True)
        text = self.server.answer(TEXT, **body)["choices"][0]["text"]
        for length in (1, 2, 5):  # a token of this model is a byte or two: most of these lie across borders
            for at in (0, 40, 77):
                stop = text[at:at + length]
                a = self.server.answer(TEXT, **body, stop=[stop, "never"])
                self.assertEqual(a["choices"][0]["text"], text[:text.index(stop)])
                self.assertEqual(a["choices"][0]["finish_reason"], "stop")
                self.assertEqual(joined(self.server.stream(TEXT, **body, stop=stop))[1], text[:text.index(stop)])

    def test_tokens_there_and_back(self):
        text = "Why? \u00e4\u20ac\U0001f600 <|im_end|>"
        tokens = self.server.answer("/tokenize", content=text)["tokens"]
        self.assertEqual(self.server.answer("/detokenize", tokens=tokens)["content"], text)
        apart = self.server.answer("/tokenize", content=text, parse_special=False)["tokens"]
        self.assertGreater(len(apart), len(tokens))
        a = self.server.complete(prompt=tokens, max_tokens=5, seed=1)
        self.assertEqual(a["usage"]["prompt_tokens"], len(tokens))
        self.assertEqual(a["choices"][0]["text"], self.server.complete(text, max_tokens=5, seed=1)["choices"][0]["text"])

    def test_models_and_health(self):
        listed = self.server.ask("GET", "/v1/models").json()
        self.assertEqual([m["id"] for m in listed["data"]], ["tiny"])
        self.assertEqual(self.server.ask("GET", "/v1/models/tiny").json(), listed["data"][0])
        self.assertEqual(self.server.ask("GET", "/v1/models/other").status, 404)
        self.assertEqual(self.server.ask("GET", "/health").json(), {"status": "ok"})
        self.assertEqual(self.server.ask("HEAD", "/health").body, b"")

    def test_metrics_count(self):
        before = self.server.metrics()
        self.server.complete(max_tokens=70, ignore_eos=True, cache_policy=RPC)
        after = self.server.metrics()
        grown = {name: float(after[name]) - float(before.get(name, 0)) for name in after}
        self.assertEqual(grown["pith_generated_tokens_total"], 70)
        self.assertEqual(grown["pith_compressions_total"], 1)  # after 40 tokens in the cache, next after 72
        self.assertEqual(grown["pith_next_token_seconds_count"], 69)
        self.assertEqual(grown["pith_first_token_seconds_count"], 1)
        self.assertEqual(after['pith_next_token_seconds_bucket{le="+Inf"}'], after["pith_next_token_seconds_count"])

    def test_the_page_is_served_and_no_file_of_the_machine(self):
        page = self.server.ask("GET", "/")
        self.assertEqual(page.status, 200)
        self.assertIn("text/html", page.headers["Content-Type"])
        self.assertIn("default-src 'self'", page.headers["Content-Security-Policy"])
        for path in ("/page.css", "/page.js"):
            self.assertEqual(self.server.ask("GET", path).status, 200)
        for path in ("/../etc/passwd", "/page.js/..", "//etc/passwd", "/%2e%2e/etc/passwd"):
            self.assertEqual(self.server.ask("GET", path).status, 404)


class Thinking(Shared):
    def test_marks_tell_thoughts_from_answers(self):
        open_, close = (self.server.answer("/tokenize", content=m)["tokens"] for m in ("<think>", "</think>"))
        body = dict(messages=WHY, max_tokens=3, ignore_eos=True)
        opens = self.server.answer(CHAT, **body, logit_bias={open_[0]: 100})  # nothing but "<think>", three times
        self.assertEqual(opens["choices"][0]["message"],
                         {"role": "assistant", "content": "", "reasoning_content": "<think><think>"})
        self.assertEqual(opens["usage"]["completion_tokens_details"]["reasoning_tokens"], 2)
        closes = self.server.answer(CHAT, **body, logit_bias={close[0]: 100})  # there is no thought to close
        self.assertEqual(closes["choices"][0]["message"], {"role": "assistant", "content": "</think>" * 3})
        raw = self.server.complete(max_tokens=3, ignore_eos=True, logit_bias={open_[0]: 100})
        self.assertEqual(raw["choices"][0]["text"], "<think>" * 3)

    def test_a_thought_ends_with_its_budget(self):
        thinker = os.path.join(FOLDER.name, "thinker.gguf")
        make_model(thinker, "--thinks")
        server = Server(thinker, "--policy", "full")
        try:
            for budget in (0, 1, 25):
                a = server.chat(max_tokens=100, seed=1, ignore_eos=True, thinking_budget=budget)
                usage = a["usage"]
                closing = len(server.answer("/tokenize", content="\n</think>\n\n")["tokens"])
                self.assertLessEqual(usage["completion_tokens_details"]["reasoning_tokens"], budget + closing)
                self.assertGreater(len(a["choices"][0]["message"]["content"]), 0)
                self.assertEqual("reasoning_content" in a["choices"][0]["message"], budget > 0)
            none = server.chat(max_tokens=100, seed=1, ignore_eos=True, reasoning_effort="none")
            self.assertEqual(none["choices"][0]["message"],
                             server.chat(max_tokens=100, seed=1, ignore_eos=True, thinking_budget=0)["choices"][0]["message"])
            # Up to the budget the thought is what it would have been.
            free = server.chat(max_tokens=100, seed=1, ignore_eos=True)["choices"][0]["message"]["reasoning_content"]
            bound = server.chat(max_tokens=100, seed=1, ignore_eos=True, thinking_budget=25)
            thought = bound["choices"][0]["message"]["reasoning_content"]
            self.assertTrue(free.startswith(thought.rstrip("\ufffd")), (free, thought))
            body = dict(messages=WHY, max_tokens=100, seed=1, ignore_eos=True, thinking_budget=25)
            self.assertEqual(joined(server.stream(CHAT, **body))[0], thought)
        finally:
            self.assertEqual(server.stop()[0], 0)


class Sampling(Shared):
    def test_a_bias_of_nothing_changes_nothing(self):
        # The server's own drawing takes the place of the engine's, and draws the same.
        for more in ({}, {"temperature": 1.5, "top_p": 1}, {"top_k": 5}, {"min_p": 0.1, "top_p": 1}, {"temperature": 0}):
            body = dict(prompt="Why?", max_tokens=80, seed=8, ignore_eos=True, **more)
            self.assertEqual(self.server.answer(TEXT, **body)["choices"][0]["text"],
                             self.server.answer(TEXT, **body, logit_bias={"7": 0})["choices"][0]["text"])

    def test_biases_and_penalties(self):
        a, b = (self.server.answer("/tokenize", content=c)["tokens"][0] for c in "ab")
        body = dict(prompt="Why?", max_tokens=40, seed=1, logit_bias={a: 100})
        self.assertEqual(self.server.answer(TEXT, **body)["choices"][0]["text"], "a" * 40)
        body["logit_bias"] = {a: 100, b: 100}
        body["temperature"] = 0
        text = self.server.answer(TEXT, **body, frequency_penalty=2)["choices"][0]["text"]
        self.assertEqual(set(text), {"a", "b"})
        self.assertLess(abs(text.count("a") - text.count("b")), 12)  # each use costs 2, and logits differ by less than 20
        body["logit_bias"] = {a: 100, b: 99.9}
        alone = self.server.answer(TEXT, **{**body, "max_tokens": 1})["choices"][0]["text"]
        self.assertEqual(len(alone), 1)

    def test_logprobs_of_a_chat(self):
        body = dict(messages=WHY, max_tokens=30, seed=2, ignore_eos=True)
        plain = self.server.answer(CHAT, **body)["choices"][0]["message"]
        a = self.server.answer(CHAT, **body, logprobs=True, top_logprobs=3)["choices"][0]
        self.assertEqual(a["message"], plain)  # asking changes nothing
        entries = a["logprobs"]["content"]
        self.assertEqual(len(entries), 30)
        self.assertEqual(bytes(sum((e["bytes"] for e in entries), [])).decode(errors="replace"), plain["content"])
        for e in entries:
            tops = [t["logprob"] for t in e["top_logprobs"]]
            self.assertEqual(len(tops), 3)
            self.assertEqual(tops, sorted(tops, reverse=True))
            self.assertLessEqual(e["logprob"], tops[0])
            self.assertLess(sum(2.718281828 ** t for t in tops), 1.000001)
        greedy = self.server.answer(CHAT, messages=WHY, max_tokens=20, temperature=0, logprobs=True, top_logprobs=1)
        for e in greedy["choices"][0]["logprobs"]["content"]:
            self.assertEqual(e["logprob"], e["top_logprobs"][0]["logprob"])
        streamed = self.server.stream(CHAT, **body, logprobs=True, top_logprobs=3)
        self.assertEqual([e for s in streamed for c in s["choices"] if c["logprobs"] for e in c["logprobs"]["content"]],
                         entries)

    def test_logprobs_of_a_text(self):
        a = self.server.complete(max_tokens=20, seed=2, ignore_eos=True, logprobs=2)["choices"][0]
        p = a["logprobs"]
        self.assertEqual({len(p[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}, {20})
        self.assertEqual(p["text_offset"][0], 0)
        self.assertEqual(p["text_offset"], sorted(p["text_offset"]))
        before = ""
        for token, at in zip(p["tokens"], p["text_offset"]):  # in characters; one that is begun does not count yet
            before, last = token, before
            if token.isascii() and last.isascii():
                self.assertEqual(a["text"][at:at + len(token)], token)


class Neighbours(Shared):
    args = ("--max-sequences", "6", "--queue", "64", "--policy", "full")

    def test_an_answer_is_the_same_alone_and_in_a_crowd(self):
        mine = dict(prompt="The same, always. " * 30, max_tokens=120, seed=11, ignore_eos=True, cache_policy=RPC)
        alone = self.server.answer(TEXT, **mine)["choices"][0]["text"]
        policies = ("full", RPC, "window:budget=64", "random:p=32,r=8,c=4")

        def other(i):
            return lambda: self.server.answer(TEXT, prompt="Neighbour %d " % i * (1 + 7 * i), max_tokens=20 + 9 * i, seed=i,
                                              ignore_eos=True, cache_policy=policies[i % 4], n=1 + i % 2)
        calls = [other(i) for i in range(24)]
        for at in (2, 9, 17):
            calls.insert(at, lambda: self.server.answer(TEXT, **mine))
        results = together(*calls)
        for at in (2, 9, 17):
            self.assertEqual(results[at]["choices"][0]["text"], alone)
        self.assertTrue(all(r["choices"] for r in results))
        self.server.wait_for(running=0, waiting=0, cache_used_bytes=0, cache_promised_bytes=0)

    def test_prompts_that_begin_alike_are_read_once(self):
        system = "You are a careful counter of things. " * 40

        def ask(question, **more):
            messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
            return self.server.answer(CHAT, messages=messages, max_tokens=40, seed=3, ignore_eos=True, **more)
        other = Server(MODEL, "--policy", "full", "--no-prefixes")
        self.addCleanup(other.stop)
        first, second, third = ask("One?"), ask("Two?", n=2), ask("Two?", cache_policy=RPC)
        self.assertEqual(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.assertGreater(cached, 256)
        self.assertEqual(cached % 256, 0)
        self.assertEqual(third["usage"]["prompt_tokens_details"]["cached_tokens"], cached)
        self.assertGreater(self.server.metric("cache_prefix_bytes"), 0)
        self.assertGreaterEqual(self.server.metric("shared_tokens_total"), 2 * cached)
        self.server, mine = other, self.server
        self.assertEqual(ask("Two?", n=2)["choices"], second["choices"])  # the same as without
        self.assertEqual(other.metric("cache_prefix_bytes"), 0)
        self.server = mine

    def test_policies_side_by_side(self):
        def ask(policy):
            return lambda: self.server.complete(max_tokens=200, seed=1, ignore_eos=True, cache_policy=policy)["usage"]
        full, rpc = together(ask("full"), ask(RPC))
        prompt = full["prompt_tokens"]
        self.assertEqual(full["cache"]["compressions"], 0)
        self.assertEqual(full["cache"]["rows_peak"], prompt + 199)
        self.assertEqual(full["cache"]["bytes_peak"], full["cache"]["bytes_full"])
        self.assertTrue(rpc["cache"]["policy"].startswith(RPC))
        self.assertEqual(rpc["cache"]["compressions"], 5)
        self.assertEqual(rpc["cache"]["rows_full"], prompt + 199)
        self.assertEqual(rpc["cache"]["rows_peak"], prompt + 5 * 8 + (199 - 5 * 32))
        self.assertLess(rpc["cache"]["bytes_peak"], rpc["cache"]["bytes_full"])

    def test_compressions_can_be_watched(self):
        body = dict(prompt="Why?", max_tokens=120, seed=1, ignore_eos=True, cache_policy=RPC)
        events = self.server.stream(TEXT, **body, cache_events=True)
        self.assertEqual(joined(events)[1], self.server.answer(TEXT, **body)["choices"][0]["text"])
        seen = [e["cache"] for e in events if "kept" in e["cache"]]
        prompt = self.server.answer(TEXT, **body)["usage"]["prompt_tokens"]
        self.assertEqual([len(s["kept"]) for s in seen], [40, 72, 104])
        for k, s in enumerate(seen, 1):
            self.assertEqual(s["rows_before"], prompt + (k - 1) * 8 + 32 + 8)
            self.assertEqual(s["rows_after"], prompt + k * 8 + 8)
            self.assertEqual(s["kept"][-8:], "9" * 8)  # the window stays, everywhere
            self.assertIn("0", s["kept"])
        rows = [e["cache"]["rows"] for e in events]
        self.assertEqual(rows[-1], prompt + 3 * 8 + (119 - 3 * 32))

    def test_a_client_that_goes_away_leaves_its_pages(self):
        before = self.server.metric("cancelled_total")
        files = self.server.n_files()
        for close in (lambda s: s.close(), lambda s: s.connection.sock.shutdown(socket.SHUT_WR)):
            stream = self.server.open_stream(TEXT, prompt="Why?", **ENDLESS)
            next(iter(stream))
            close(stream)
            self.server.wait_for(running=0, cache_used_bytes=0, cache_promised_bytes=0)
            stream.close()
        whole = self.server.connect()  # one that waits for a whole answer
        whole.request("POST", TEXT, json.dumps({"prompt": "Why?", "n": 2, **ENDLESS}))
        self.server.wait_for(running=2)
        whole.close()
        self.server.wait_for(running=0, cache_used_bytes=0)
        self.assertEqual(self.server.metric("cancelled_total"), before + 3)
        end = time.monotonic() + DEADLINE
        while self.server.n_files() > files:
            self.assertLess(time.monotonic(), end)


class Limits(unittest.TestCase):
    def server(self, *args):
        server = Server(MODEL, "--policy", "full", *args)
        self.addCleanup(server.stop)
        return server

    def test_the_queue_has_an_end(self):
        server = self.server("--max-sequences", "1", "--queue", "1")
        first = server.open_stream(TEXT, prompt="a", **ENDLESS)
        next(iter(first))
        second = server.connect()
        second.request("POST", TEXT, json.dumps({"prompt": "b", "max_tokens": 2}))
        server.wait_for(running=1, waiting=1)
        refused = server.post(TEXT, prompt="c", max_tokens=2)
        self.assertEqual(refused.status, 429)
        self.assertEqual(refused.json()["error"]["code"], "queue_full")
        self.assertGreater(int(refused.headers["Retry-After"]), 0)
        first.close()
        self.assertEqual(second.getresponse().status, 200)
        second.close()
        self.assertEqual(server.post(TEXT, prompt="c", max_tokens=2).status, 200)

    def test_a_queued_client_may_go_away(self):
        server = self.server("--max-sequences", "1")
        first = server.open_stream(TEXT, prompt="a", **ENDLESS)
        next(iter(first))
        second = server.connect()
        second.request("POST", TEXT, json.dumps({"prompt": "b", "max_tokens": 2}))
        server.wait_for(running=1, waiting=1)
        second.close()
        server.wait_for(running=1, waiting=0)
        first.close()

    def test_memory_is_promised_before_it_is_needed(self):
        # Room for one long answer: the second waits for its end, nobody fails.
        server = self.server("--kv-budget", "1M", "--max-sequences", "4")
        sizes = dict(prompt="Why?", ignore_eos=True)
        too_long = server.post(TEXT, **sizes, max_tokens=4000)
        self.assertEqual(too_long.status, 400)
        self.assertIn("bytes of cache", too_long.json()["error"]["message"])
        self.assertEqual(server.post(TEXT, **sizes, max_tokens=4000, cache_policy="rpc:p=64,r=8,c=8").status, 200)
        n = 1000
        while server.post(TEXT, **sizes, max_tokens=n, stop=["never"], n=2).status == 400:
            n -= 100
        answers = together(*[lambda: server.post(TEXT, **sizes, max_tokens=n, n=2).status] * 4)
        self.assertEqual(answers, [200] * 4)
        server.wait_for(cache_used_bytes=0, cache_promised_bytes=0)

    def test_keys(self):
        path = os.path.join(FOLDER.name, "keys")
        with open(path, "w") as f:
            f.write("# two clients\nsecret-one\n\nsecret-two  \n")
        server = self.server("--api-key-file", path)
        ask = dict(prompt="a", max_tokens=1)
        for header, status in ((None, 401), ("Bearer secret-one", 200), ("Bearer secret-two", 200), ("Bearer secret", 401),
                               ("Bearer secret-one1", 401), ("secret-one", 401), ("Bearer ", 401), ("Bearer " + "x" * 999, 401),
                               ("Basic secret-one", 401)):
            reply = server.ask("POST", TEXT, ask, {"Authorization": header} if header else {})
            self.assertEqual(reply.status, status, header)
        self.assertEqual(server.ask("GET", "/metrics").status, 401)
        self.assertEqual(server.ask("GET", "/health").status, 200)
        self.assertEqual(server.ask("GET", "/").status, 200)

    def test_origins(self):
        server = self.server()
        foreign = {"Origin": "https://elsewhere.example"}
        self.assertEqual(server.ask("POST", TEXT, {"prompt": "a", "max_tokens": 1}, foreign).status, 403)
        own = {"Origin": "http://127.0.0.1:%d" % server.port}
        reply = server.ask("POST", TEXT, {"prompt": "a", "max_tokens": 1}, own)
        self.assertEqual(reply.status, 200)
        self.assertNotIn("Access-Control-Allow-Origin", reply.headers)
        open_ = self.server("--cors", "https://elsewhere.example")
        reply = open_.ask("POST", TEXT, {"prompt": "a", "max_tokens": 1}, foreign)
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.headers["Access-Control-Allow-Origin"], "https://elsewhere.example")
        self.assertEqual(open_.ask("OPTIONS", TEXT, None, foreign).status, 204)
        self.assertEqual(open_.ask("POST", TEXT, {"prompt": "a"}, {"Origin": "https://other.example"}).status, 403)

    def test_slow_clients_are_hung_up_on(self):
        server = self.server("--timeout", "1")
        for part in (b"", b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"):
            with socket.create_connection((server.host, server.port), timeout=DEADLINE) as s:
                s.sendall(part)
                self.assertEqual(s.recv(100)[:12] in (b"", b"HTTP/1.1 408"), True)
        # A long wait for an answer is not slowness: nobody is hung up on while the server is at work.
        self.assertEqual(server.post(TEXT, prompt="a", max_tokens=4000, ignore_eos=True, n=4).status, 200)

    def drip(self, server, sent, drops):
        """Sends a request a byte at a time until the server hangs up or says something: what it said."""
        with socket.create_connection((server.host, server.port), timeout=DEADLINE) as s:
            s.sendall(sent)
            s.settimeout(0.05)  # the pace: nothing is read before the end
            for i in range(len(drops)):
                try:
                    s.send(drops[i:i + 1])
                    return s.recv(100)
                except TimeoutError:
                    continue
                except ConnectionError:
                    return b""

    def test_a_request_must_be_whole_in_time(self):
        server = self.server("--request-time", "1")
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
        body = head + b"Content-Length: 9999\r\n\r\n"
        health = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"

        def after_an_answer():
            with socket.create_connection((server.host, server.port), timeout=DEADLINE) as s:
                for _ in range(3):
                    s.sendall(health)
                    self.assertTrue(s.recv(1000).startswith(b"HTTP/1.1 200"))
                s.sendall(health[:-2])  # one more, not whole
                return s.recv(100)
        # A stream that has more to send than sockets hold, and is not read until the others have been hung up on.
        stream = server.open_stream(TEXT, prompt="a", max_tokens=4000, ignore_eos=True, n=8, seed=1)
        endless = b"x" * 9000
        ends = together(lambda: self.drip(server, head + b"X-Slow: ", endless), lambda: self.drip(server, body, endless),
                        lambda: self.drip(server, b"", endless), after_an_answer)
        self.assertEqual(ends, [b""] * 4)
        events = list(stream)
        self.assertTrue(stream.done)
        self.assertEqual([joined(events, i)[2] for i in range(8)], ["length"] * 8)
        stream.close()

    def test_a_slow_request_that_is_whole_in_time_is_answered(self):
        server = self.server("--request-time", "100")
        data = json.dumps({"prompt": "a", "max_tokens": 1, "user": "u" * 100000}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data)
        with socket.create_connection((server.host, server.port), timeout=0.05) as s:
            s.sendall(head + data[:-30])
            for i in range(len(data) - 30, len(data)):
                self.assertRaises(TimeoutError, s.recv, 100)
                s.sendall(data[i:i + 1])
            s.settimeout(DEADLINE)
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 200"))

    def test_bodies_have_a_limit(self):
        server = self.server("--max-body", "1")
        large = server.ask("POST", TEXT, json.dumps({"prompt": "a" * (1 << 20)}).encode())
        self.assertEqual(large.status, 413)
        self.assertEqual(large.json()["error"]["code"], "body_too_large")
        fits = server.ask("POST", TEXT, json.dumps({"prompt": "a", "user": "u" * ((1 << 20) - 100), "max_tokens": 1}).encode())
        self.assertEqual(fits.status, 200)

    def test_headers_have_a_limit(self):
        server = self.server()
        flood = {"X-%d" % i: "y" * 1000 for i in range(90)}
        self.assertEqual(server.ask("GET", "/health", None, flood).status, 431)
        self.assertEqual(server.ask("GET", "/health").status, 200)


class BadInput(Shared):
    model = SHORT

    def refused(self, status, part, body, path=TEXT, method="POST"):
        reply = self.server.ask(method, path, body)
        self.assertEqual(reply.status, status, reply.body)
        error = reply.json()["error"]
        self.assertIn(part, error["message"])
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(self.server.ask("GET", "/health").status, 200)
        return error

    def test_requests_that_make_no_sense(self):
        self.refused(400, "not JSON", b"")
        self.refused(400, "not JSON", b"{")
        self.refused(400, "not JSON", b'{"prompt": "\xff"}')
        self.refused(400, "not JSON", b"[" * 100000)
        self.refused(400, "expected an object", b"7")
        self.refused(400, "one string", {})
        self.refused(400, "1 to 4096", {"messages": []}, CHAT)
        self.refused(400, "wizard", {"messages": [{"role": "wizard", "content": "a"}]}, CHAT)
        self.refused(400, "1 to 8", {"prompt": "a", "n": 9})
        self.refused(400, "temperature", {"prompt": "a", "temperature": 1e300})
        self.refused(400, "full, rpc, window, random", {"prompt": "a", "cache_policy": "best"})
        self.refused(400, "token id below", {"prompt": [1 << 40]})
        self.refused(400, "content: expected a string", {}, "/tokenize")
        self.refused(400, "array of token ids", {}, "/detokenize")
        self.assertEqual(self.refused(404, "tiny", {"prompt": "a", "model": "gpt"})["code"], "model_not_found")
        long = self.refused(400, "4095", {"prompt": "word " * 3000})
        self.assertEqual(long["code"], "context_length_exceeded")

    def test_requests_to_nowhere(self):
        self.refused(404, "unknown path", {}, "/v1/embeddings")
        self.refused(405, "another method", None, TEXT, "GET")
        self.refused(405, "another method", {}, "/health")
        self.refused(405, "another method", None, TEXT, "DELETE")

    def test_what_is_no_http(self):
        # The end of a request that never was one may pass libmicrohttpd unseen when it comes together with its last bytes:
        # then the connection ends with its time.
        server = Server(SHORT, *self.args, "--timeout", "1")
        for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\0" * 100, b"POST / HTTP/9.9\r\n\r\n",
                     b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n" % TEXT.encode(),
                     b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n" % TEXT.encode()):
            with socket.create_connection((server.host, server.port), timeout=DEADLINE) as s:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                reply = s.recv(1000)
                self.assertTrue(not reply or reply.startswith(b"HTTP/1.1 4") or reply.startswith(b"HTTP/1.0 4") or
                                reply.startswith(b"HTTP/1.1 5"), reply)
        self.assertEqual(server.ask("GET", "/health").status, 200)
        code, err = server.stop()
        self.assertEqual(code, 0, err)

    def test_usage(self):
        for part, args in {"--model": (), "unknown option": ("-m", MODEL, "--bogus"), "0 to 65535": ("-m", MODEL, "--port", "70000"),
                           "full, rpc": ("-m", MODEL, "--policy", "best"), "auto, f16": ("-m", MODEL, "--kv", "q3"),
                           "expected cpu": ("-m", MODEL, "--device", "abacus")}.items():
            done = subprocess.run([PITH, "serve", *args], capture_output=True, timeout=DEADLINE)
            self.assertIn(done.returncode, (1, 2))
            self.assertIn(part, done.stderr.decode())
            self.assertEqual(done.stderr.count(b"\n"), 1)
        taken = subprocess.run([PITH, "serve", "-m", MODEL, "--port", str(self.server.port)], capture_output=True,
                               timeout=DEADLINE)
        self.assertEqual(taken.returncode, 1)
        self.assertIn(b"in use", taken.stderr)


class Endings(unittest.TestCase):
    def test_running_answers_are_finished(self):
        for how in (signal.SIGTERM, signal.SIGINT):
            server = Server(MODEL, "--policy", "full", "--grace", "100")
            stream = server.open_stream(TEXT, prompt="Why?", **{**ENDLESS, "max_tokens": 10000})
            events = iter(stream)
            got = [next(events)]
            server.end(how)
            while True:  # from some moment on there are 503s
                reply = server.post(TEXT, prompt="late", max_tokens=1)
                if reply.status == 503:
                    break
                self.assertEqual(reply.status, 200)
            self.assertEqual(server.ask("GET", "/health").status, 503)
            got += list(events)
            self.assertTrue(stream.done)
            self.assertEqual(joined(got)[2], "length")
            stream.close()
            code, err = server.stop()
            self.assertEqual(code, 0, err)

    def test_after_the_grace_time_answers_are_cut_off(self):
        server = Server(MODEL, "--policy", "full", "--grace", "0", "--max-sequences", "1")
        stream = server.open_stream(TEXT, prompt="Why?", **ENDLESS)
        events = iter(stream)
        next(events)
        waiting = server.connect()
        waiting.request("POST", TEXT, json.dumps({"prompt": "b", "max_tokens": 2}))
        server.wait_for(waiting=1)
        server.end()
        rest = list(events)
        self.assertEqual(rest[-1]["error"]["code"], "shutting_down")
        self.assertFalse(stream.done)
        reply = waiting.getresponse()
        self.assertEqual(reply.status, 503)
        reply.read()
        waiting.close()
        stream.close()
        code, err = server.stop()
        self.assertEqual(code, 1)
        self.assertIn("cut off", err)

    def test_it_says_what_it_does(self):
        server = Server(MODEL, "--policy", "rpc", "--kv-budget", "64M")
        self.assertRegex(server.url, r"^http://127\.0\.0\.1:\d+$")
        code, err = server.stop()
        self.assertEqual(code, 0)
        for part in ("weights", "cache    ", "rpc:p=1024", "at most 16 at once", "no API key"):
            self.assertIn(part, err)


if __name__ == "__main__":
    make_model(MODEL, *ENDLESS_CTX)
    make_model(SHORT, "--ctx", "4096")
    unittest.main()

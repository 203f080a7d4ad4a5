"""pith serve and answers that keep to a schema."""
import json
import os
import unittest

from serving import CHAT, FOLDER, MODEL, WHY, Server, Shared, joined, make_model, together

PERSON = {"type": "object", "additionalProperties": False, "required": ["name", "age", "tags"], "properties": {
    "name": {"type": "string", "minLength": 1, "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "tags": {"type": "array", "items": {"enum": ["a", "b", "\u00e4"]}, "minItems": 1, "maxItems": 3}, "old": {"type": "boolean"}}}


def schema(s):
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": s}}


class Structured(Shared):
    """Answers of a model with random weights, which has never seen JSON."""

    def check(self, choice):
        """The choice's content is a person."""
        self.assertEqual(choice["finish_reason"], "stop")
        person = json.loads(choice["message"]["content"])
        self.assertLessEqual(set(person), set(PERSON["properties"]))
        self.assertGreaterEqual(set(person), set(PERSON["required"]))
        self.assertTrue(1 <= len(person["name"]) <= 6)
        self.assertTrue(0 <= person["age"] <= 150 and isinstance(person["age"], int))
        self.assertTrue(1 <= len(person["tags"]) <= 3 and set(person["tags"]) <= {"a", "b", "\u00e4"})
        self.assertIsInstance(person.get("old", True), bool)
        return person

    def test_answers_satisfy_their_schema_whatever_the_weights(self):
        for more in ({}, {"temperature": 2, "top_p": 1}, {"temperature": 0}, {"top_k": 3}, {"min_p": 0.2}, {"ignore_eos": True},
                     {"frequency_penalty": 1}, {"reasoning_effort": "none"}):
            for seed in range(4):
                a = self.server.chat(seed=seed, max_tokens=400, response_format=schema(PERSON), **more)
                self.check(a["choices"][0])
        a = self.server.complete(seed=1, max_tokens=400, response_format=schema({"enum": ["yes", "no"]}))
        self.assertIn(a["choices"][0]["text"], ('"yes"', '"no"'))

    def test_any_object(self):
        # The model would go on for long: a bias to closing brackets makes it end.
        close, quote = (self.server.answer("/tokenize", content=c)["tokens"][0] for c in '}"')
        ended = 0
        for seed in range(6):
            choice = self.server.chat(seed=seed, max_tokens=800, response_format={"type": "json_object"},
                                      logit_bias={close: 6, quote: 6})["choices"][0]
            if choice["finish_reason"] == "stop":
                self.assertIsInstance(json.loads(choice["message"]["content"]), dict)
                ended += 1
        self.assertGreater(ended, 2)

    def test_text_is_text(self):
        body = dict(messages=WHY, max_tokens=60, seed=5)
        plain = self.server.answer(CHAT, **body)["choices"]
        self.assertEqual(self.server.answer(CHAT, **body, response_format={"type": "text"})["choices"], plain)

    def test_the_seed_decides_alone_and_in_a_crowd(self):
        body = dict(messages=WHY, max_tokens=400, seed=7, response_format=schema(PERSON))
        alone = self.server.answer(CHAT, **body)["choices"][0]["message"]["content"]
        crowd = [lambda i=i: self.server.answer(CHAT, messages=WHY, max_tokens=100 + i, seed=i, ignore_eos=True,
                                                response_format=schema(PERSON) if i % 2 else {"type": "text"})
                 for i in range(12)]
        mine = [4, 9]
        for at in mine:
            crowd.insert(at, lambda: self.server.answer(CHAT, **body))
        results = together(*crowd)
        for at in mine:
            self.assertEqual(results[at]["choices"][0]["message"]["content"], alone)
        other = self.server.answer(CHAT, **{**body, "seed": 8})["choices"][0]["message"]["content"]
        self.assertNotEqual(other, alone)

    def test_choices_and_streams(self):
        body = dict(messages=WHY, max_tokens=400, seed=2, n=3, response_format=schema(PERSON))
        whole = self.server.answer(CHAT, **body)["choices"]
        people = [self.check(c) for c in whole]
        self.assertEqual(len({json.dumps(p) for p in people}), 3)
        self.assertEqual(whole[0]["message"], self.server.answer(CHAT, **{**body, "n": 1})["choices"][0]["message"])
        events = self.server.stream(CHAT, **body)
        for i in range(3):
            self.assertEqual(joined(events, i)[1:], (whole[i]["message"]["content"], "stop"))

    def test_log_probabilities_are_the_models(self):
        body = dict(messages=WHY, max_tokens=400, seed=2, logprobs=True, top_logprobs=2, response_format=schema(PERSON))
        a = self.server.answer(CHAT, **body)["choices"][0]
        self.check(a)
        entries = a["logprobs"]["content"]
        self.assertEqual("".join(bytes(e["bytes"]).decode("latin-1") for e in entries).encode("latin-1").decode(),
                         a["message"]["content"])
        self.assertTrue(all(e["logprob"] <= e["top_logprobs"][0]["logprob"] for e in entries))
        self.assertTrue(any(e["logprob"] < e["top_logprobs"][1]["logprob"] for e in entries))  # what came was improbable

    def test_limits_and_stops_hold(self):
        body = dict(messages=WHY, seed=3, response_format=schema({"type": "string", "minLength": 50}))
        short = self.server.answer(CHAT, **body, max_tokens=20)["choices"][0]
        self.assertEqual(short["finish_reason"], "length")
        self.assertTrue(short["message"]["content"].startswith('"'))
        names = dict(messages=WHY, seed=3, max_tokens=400, response_format=schema(PERSON))
        stopped = self.server.answer(CHAT, **names, stop=['"age"'])["choices"][0]
        self.assertEqual(stopped["finish_reason"], "stop")
        whole = self.server.answer(CHAT, **names)["choices"][0]["message"]["content"]
        self.assertEqual(stopped["message"]["content"], whole[:whole.index('"age"')])

    def test_thoughts_are_free_and_end_with_an_answer(self):
        thinker = os.path.join(FOLDER.name, "thoughtful.gguf")
        make_model(thinker, "--thinks")
        server = Server(thinker, "--policy", "full")
        try:
            free = server.chat(seed=1, max_tokens=60, ignore_eos=True)["choices"][0]["message"]["reasoning_content"]
            for budget in (0, 1, 40):
                a = server.chat(seed=1, max_tokens=600, thinking_budget=budget, response_format=schema(PERSON))["choices"][0]
                self.check(a)
                thought = a["message"].get("reasoning_content", "")
                self.assertEqual(bool(thought), budget > 0)
                self.assertTrue(free.startswith(thought.rstrip("\ufffd")), (free, thought))
            # A thought that would end with the end of the generation, or with its mark, ends with an answer.
            end, close = (server.answer("/tokenize", content=c)["tokens"][0] for c in ("<|im_end|>", "</think>"))
            for token in (end, close):
                a = server.chat(seed=1, max_tokens=600, logit_bias={token: 100}, response_format=schema(PERSON))["choices"][0]
                self.check(a)
            body = dict(messages=WHY, seed=1, max_tokens=600, thinking_budget=20, n=2, response_format=schema(PERSON))
            whole = server.answer(CHAT, **body)["choices"]
            events = server.stream(CHAT, **body)
            for i in range(2):
                self.check(whole[i])
                self.assertEqual(joined(events, i)[1], whole[i]["message"]["content"])
        finally:
            self.assertEqual(server.stop()[0], 0)
        # A model may also open a thought by itself.
        open_ = self.server.answer("/tokenize", content="<think>")["tokens"][0]
        a = self.server.chat(seed=1, max_tokens=600, thinking_budget=15, logit_bias={open_: 100}, response_format=schema(PERSON))
        self.check(a["choices"][0])
        self.assertGreater(a["usage"]["completion_tokens_details"]["reasoning_tokens"], 0)

    def test_schemas_that_cannot_be_followed(self):
        def refused(part, s):
            reply = self.server.post(CHAT, messages=WHY, response_format=schema(s))
            self.assertEqual(reply.status, 400, reply.body)
            error = reply.json()["error"]
            self.assertEqual((error["type"], error["param"]), ("invalid_request_error", "response_format"))
            self.assertIn(part, error["message"])
            self.assertNotIn("\n", error["message"])
        refused("#/properties/a: \"multipleOf\" is not supported", {"properties": {"a": {"type": "integer", "multipleOf": 2}}})
        refused("points to nothing", {"$ref": "#/$defs/none"})
        refused("does not point into the schema", {"$ref": "https://example.com/a"})
        refused("leads to itself", {"$ref": "#"})
        refused("pattern: it ends too early", {"type": "string", "pattern": "(a"})
        refused("up to 2000", {"type": "array", "minItems": 10 ** 9})
        deep = {}
        for _ in range(500):
            deep = {"items": deep}
        refused("brackets inside each other", deep)
        twice = {"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 1}, {"type": "array", "items": {"$ref": "#"}, "minItems": 2}]}
        for stream in (False, True):  # cannot be told apart: the answer ends, the server goes on
            reply = self.server.post(CHAT, messages=WHY, max_tokens=100, stream=stream, response_format=schema(twice))
            self.assertEqual(reply.status, 200 if stream else 500)
            self.assertIn(b"no_token_fits", reply.body)
        self.server.wait_for(running=0, waiting=0, cache_used_bytes=0)


if __name__ == "__main__":
    make_model(MODEL)
    unittest.main()

"""pith bench as a person or a script meets it: the table, its files, what does not fit, bad input. No time is judged."""
import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

PITH, BIN = os.environ["PITH_PROGRAM"], os.environ["PITH_TEST_BIN"]
FOLDER = tempfile.TemporaryDirectory()
KEYS = ["tokens_per_second", "speedup", "seconds", "prefill_tokens_per_second", "cache_bytes", "memory_bytes", "step_bytes",
        "bandwidth_share", "p50_ms", "p99_ms", "max_ms", "max_to_p50", "quiet_p50_ms", "quiet_p99_ms", "quiet_max_ms",
        "compress_p50_ms", "compress_p99_ms", "compress_max_ms", "compressions", "event_ms", "event_max_ms",
        "event_allowed_ms", "event_within", "needed_bytes"]
PROMPT, LANES, PAGE = 40, 2 * 2, 64 * (2 * 64 * 2 + 4)  # of the tiny shape, in f16
POLICIES = "full; rpc:p=32,r=4,c=4"


def path(name):
    return os.path.join(FOLDER.name, name)


def pith(*args, **more):
    """(exit code, stdout, stderr) of pith bench with these arguments."""
    done = subprocess.run([PITH, "bench", *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=300, **more)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def tiny(*more):
    # A given bandwidth: nobody needs to measure it here.
    return ("--shape", "tiny", "--type", "q8_0", "--threads", "1", "--prompt", str(PROMPT), "--bandwidth", "10G", *more)


def rows(*more):
    """The rows of the JSON file, by (label, batch, length, staggered)."""
    out = path("rows.json")
    code, _, err = pith(*tiny("--json", out, *more))
    assert code == 0, err
    with open(out) as f:
        found = json.load(f)["rows"]
    return {(r["spec"], r["batch"], r["length"], r["staggered"]): r for r in found}


def pages(n_rows):
    return -(-n_rows // 64) * LANES * PAGE


class Rows(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.files = {kind: path("all." + kind) for kind in ("json", "csv", "svg")}
        code, cls.table, cls.talk = pith(*tiny("--policy", POLICIES, "--batch", "1,3", "--lengths", "200,100", "--stagger",
                                               "on", *(w for k, f in cls.files.items() for w in ("--" + k, f))))
        assert code == 0, cls.talk
        with open(cls.files["json"]) as f:
            cls.json = json.load(f)

    def row(self, spec, batch, length, staggered=False):
        return next(r for r in self.json["rows"] if (r["spec"], r["batch"], r["length"], r["staggered"]) ==
                    (spec, batch, length, staggered))

    def test_every_combination_has_its_row(self):
        keys = ["policy", "spec", "batch", "length", "staggered", "extrapolated", "outcome", "why", *KEYS]
        expected = [(b, s, n, p) for b in (1, 3) for s in (False, True) for n in (100, 200)
                    for p in ("full", "rpc:p=32,r=4,c=4")]
        self.assertEqual([(r["batch"], r["staggered"], r["length"], r["spec"]) for r in self.json["rows"]], expected)
        for r in self.json["rows"]:
            self.assertEqual(list(r), keys)
            self.assertFalse(r["extrapolated"])
            if r["staggered"] and r["batch"] == 1:
                self.assertEqual(r["outcome"], "not run")
                continue
            self.assertEqual(r["outcome"], "ok")
            for key in ("tokens_per_second", "seconds", "prefill_tokens_per_second", "cache_bytes", "memory_bytes",
                        "bandwidth_share", "speedup"):
                self.assertGreater(r[key], 0)
            self.assertLessEqual(r["p50_ms"], r["p99_ms"])
            self.assertLessEqual(r["p99_ms"], r["max_ms"])
            self.assertEqual(r["max_ms"], max(x for x in (r["quiet_max_ms"], r["compress_max_ms"]) if x is not None))

    def test_settings(self):
        s = self.json["settings"]
        self.assertEqual((s["model"], s["type"], s["kv"], s["device"], s["threads"], s["prompt"]),
                         ("tiny", "q8_0", "f16", "cpu", 1, PROMPT))
        self.assertEqual(s["read_bytes_per_second"], 10 * 2 ** 30)
        self.assertLess(s["weight_step_bytes"], s["weight_bytes"])  # the embedding is not the output matrix

    def test_rates_are_tokens_over_seconds(self):
        for r in self.json["rows"]:
            if r["outcome"] == "ok" and not r["staggered"]:
                self.assertAlmostEqual(r["tokens_per_second"] * r["seconds"], r["batch"] * r["length"], places=3)
                full = self.row("full", r["batch"], r["length"])
                self.assertAlmostEqual(r["speedup"], r["tokens_per_second"] / full["tokens_per_second"], places=6)

    def test_a_step_reads_weights_and_rows(self):
        weights = self.json["settings"]["weight_step_bytes"]
        for length in (100, 200):
            mean_rows = PROMPT + (length + 1) / 2  # a step's own row is read too
            for batch in (1, 3):
                r = self.row("full", batch, length)
                self.assertAlmostEqual(r["step_bytes"], weights + batch * mean_rows * LANES * (2 * 64 * 2 + 4), places=1)
                self.assertLess(self.row("rpc:p=32,r=4,c=4", batch, length)["step_bytes"], r["step_bytes"])

    def test_cache_is_what_was_held(self):
        self.assertEqual(self.row("full", 1, 100)["cache_bytes"], pages(PROMPT + 100))
        self.assertEqual(self.row("full", 3, 200)["cache_bytes"], 3 * pages(PROMPT + 200))
        # Compression k comes with 32 k + 4 generated rows, at 8 (k - 1) + 32 + 4 of them, and leaves 8 k + 4: the sixth at
        # 196 tokens is the highest point.
        self.assertEqual(self.row("rpc:p=32,r=4,c=4", 1, 200)["cache_bytes"], pages(PROMPT + 8 * 5 + 36))
        for r in self.json["rows"]:
            if r["outcome"] == "ok":
                self.assertGreaterEqual(r["needed_bytes"], r["cache_bytes"])

    def test_steps_at_so_many_rows(self):
        weights, n = self.json["settings"]["weight_step_bytes"], 20
        found = rows("--batch", "3,1", "--rows", "200,65", "--sample-steps", str(n))
        self.assertEqual(list(found), [("full", b, r, False) for b in (3, 1) for r in (65, 200)])
        for (_, batch, at, _), r in found.items():
            self.assertFalse(r["extrapolated"])
            self.assertEqual(r["outcome"], "ok")
            self.assertAlmostEqual(r["tokens_per_second"] * r["seconds"], batch * n, places=6)
            # One step is not measured, and the sequences begin one step after the other. Nothing is shared.
            first = [at + 2 + ahead for ahead in range(batch)]
            read = sum(rows + (n - 1) / 2 for rows in first)
            self.assertAlmostEqual(r["step_bytes"], weights + read * LANES * (2 * 64 * 2 + 4), places=1)
            self.assertEqual(r["cache_bytes"], sum(pages(rows + n - 1) for rows in first))
        code, table, err = pith(*tiny("--batch", "1", "--rows", "5", "--sample-steps", "2", "--svg", path("at.svg")))
        self.assertEqual(code, 0, err)
        self.assertRegex(table.splitlines()[2], r"^policy +batch +rows ")
        with open(path("at.svg")) as f:
            self.assertIn("cached rows", f.read())

    def test_compressions_are_counted(self):
        for batch in (1, 3):
            self.assertEqual(self.row("rpc:p=32,r=4,c=4", batch, 200)["compressions"], 6 * batch)
            self.assertEqual(self.row("rpc:p=32,r=4,c=4", batch, 100)["compressions"], 3 * batch)
            full = self.row("full", batch, 200)
            self.assertEqual(full["compressions"], 0)
            for key in ("compress_p50_ms", "event_ms", "event_within"):
                self.assertIsNone(full[key])
        events = self.row("rpc:p=32,r=4,c=4", 3, 200)
        # 0.5 ms and 1.5 x (keys of the generated rows before, K, V and positions of those behind, read and written).
        keys, row = LANES * 64 * 2, LANES * (2 * 64 * 2 + 4)
        allowed = sorted(500 + 1.5e6 * ((8 * (k - 1) + 36) * keys + 2 * (8 * k + 4) * row) / (10 * 2 ** 30)
                         for k in range(1, 7))
        self.assertAlmostEqual(1e3 * events["event_allowed_ms"], (allowed[2] + allowed[3]) / 2, places=3)
        self.assertTrue(0 <= events["event_within"] <= 1)

    def test_staggered_sequences_are_measured_while_all_generate(self):
        for spec in ("full", "rpc:p=32,r=4,c=4"):
            r = self.row(spec, 3, 200, True)
            steps = round(r["tokens_per_second"] * r["seconds"] / 3)
            self.assertEqual(steps, 200 - 2 * 10)  # two more starts, each a third of a period (10 steps) later

    def test_csv_has_the_same_numbers(self):
        with open(self.files["csv"], newline="") as f:
            table = list(csv.DictReader(f))
        self.assertEqual(len(table), len(self.json["rows"]))
        for line, r in zip(table, self.json["rows"]):
            self.assertEqual((line["policy"], int(line["batch"]), line["staggered"]),
                             (r["policy"], r["batch"], str(r["staggered"]).lower()))
            for key in KEYS:
                self.assertEqual(float(line[key]) if line[key] else None, r[key])

    def test_the_table(self):
        lines = self.table.splitlines()
        self.assertIn("tiny (random weights) in q8_0, 1 thread of a CPU", lines[0])
        head = next(i for i, line in enumerate(lines) if line.startswith("policy"))
        for name in ("tok/s", "to full", "cache", "memory", "read/step", "bandwidth", "p99", "event ms", "in bound"):
            self.assertIn(name, lines[head])
        body = [line for line in lines[head + 1:] if line and "not run" not in line]
        self.assertEqual(len(body), 12)
        self.assertEqual({len(line) for line in body}, {len(lines[head])})
        self.assertNotIn("extrapolated", self.table)

    def test_the_figure(self):
        svg = xml.etree.ElementTree.parse(self.files["svg"]).getroot()
        space = "{http://www.w3.org/2000/svg}"
        self.assertEqual(svg.tag, space + "svg")
        panels = [e for e in svg.iter(space + "svg") if e.get("role") == "img"]
        self.assertEqual(len(panels), 2 * 2 * 2)
        ids = [e.get("id") for e in svg.iter() if e.get("id")]
        self.assertEqual(len(ids), len(set(ids)))
        for panel in panels[:2]:
            self.assertEqual(len([e for e in panel.iter(space + "circle")]), 4)  # two lengths, two policies
        self.assertIn("prefers-color-scheme:dark", svg.find(space + "style").text)

    def test_nothing_else_is_left(self):
        self.assertEqual([f for f in os.listdir(FOLDER.name) if re.search(r"\.\d+$", f)], [])


class Outcomes(unittest.TestCase):
    def test_what_does_not_fit_is_a_row(self):
        found = rows("--policy", POLICIES, "--batch", "3", "--lengths", "100,600", "--kv-budget", str(3 * pages(260)))
        self.assertEqual(found["full", 3, 100, False]["outcome"], "ok")
        lost = found["full", 3, 600, False]
        self.assertEqual(lost["outcome"], "out of memory")
        self.assertRegex(lost["why"], r"needs \S+ MB, \S+ MB are there")
        self.assertIsNone(lost["tokens_per_second"])
        self.assertGreater(lost["needed_bytes"], 3 * pages(600))
        self.assertEqual(found["rpc:p=32,r=4,c=4", 3, 600, False]["outcome"], "ok")
        self.assertIsNone(found["rpc:p=32,r=4,c=4", 3, 600, False]["speedup"])

    def test_a_model_that_does_not_fit_is_rows_too(self):
        with open("/proc/meminfo") as f:
            if int(re.search(r"MemAvailable: +(\d+)", f.read()).group(1)) * 1024 > 120e9:
                self.skipTest("the largest model there is fits into this machine")
        code, out, err = pith("--shape", "r1-distill-qwen-32b", "--type", "f32", "--bandwidth", "1G", "--lengths", "10",
                              "--batch", "1", "--svg", path("none.svg"), "--json", path("none.json"))
        self.assertEqual(code, 0, err)
        self.assertEqual(out.count("out of memory"), 3)
        self.assertIn("the weights need 131.06 GB", out)
        xml.etree.ElementTree.parse(path("none.svg"))

    def test_sampled_steps_say_so_everywhere(self):
        svg, out = path("sampled.svg"), path("sampled.csv")
        code, table, err = pith(*tiny("--policy", POLICIES, "--batch", "2", "--lengths", "300", "--sample-steps", "3", "--svg",
                                      svg, "--csv", out))
        self.assertEqual(code, 0, err)
        self.assertEqual(table.count("extrapolated"), 3)  # the note, two rows
        with open(svg) as f:
            self.assertIn("extrapolated", f.read())
        with open(out, newline="") as f:
            for line in csv.DictReader(f):
                self.assertEqual(line["extrapolated"], "true")
                self.assertGreater(float(line["tokens_per_second"]), 0)
                self.assertEqual(line["max_ms"] + line["event_ms"] + line["compressions"], "")

    def test_sampled_rows_are_those_of_the_policy(self):
        whole = rows("--policy", POLICIES, "--batch", "2", "--lengths", "300")
        sampled = rows("--policy", POLICIES, "--batch", "2", "--lengths", "300", "--sample-steps", "2")
        for key, r in whole.items():
            self.assertAlmostEqual(sampled[key]["step_bytes"], r["step_bytes"], places=1)
            self.assertEqual(sampled[key]["cache_bytes"], r["cache_bytes"])

    def test_a_file_is_measured_as_well(self):
        model = path("tiny.gguf")
        subprocess.run([os.path.join(BIN, "tiny_model_main"), "--arch", "qwen3", "--type", "f32", "--out", model], check=True, capture_output=True)
        code, out, err = pith("-m", model, "--batch", "2", "--lengths", "50", "--bandwidth", "1G", "--policy", "full")
        self.assertEqual(code, 0, err)
        self.assertTrue(out.startswith("tiny, "), out)

    def test_the_bandwidth_is_measured_when_it_is_not_given(self):
        code, out, err = pith("--shape", "tiny", "--batch", "1", "--lengths", "5", "--threads", "1", "--policy", "full")
        self.assertEqual(code, 0, err)
        self.assertRegex(out.splitlines()[0], r"reads [1-9][0-9.]* GB/s")

    def test_an_interrupt_ends_it_with_what_is_there(self):
        for sent in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(sent), tempfile.TemporaryDirectory() as folder:
                self.interrupt(sent, folder)

    def interrupt(self, sent, folder):
        main, side = pty.openpty()
        table = os.path.join(folder, "rows.csv")
        child = subprocess.Popen([PITH, "bench", *tiny("--batch", "1", "--lengths", "20,100000", "--policy", "full;rpc",
                                                       "--csv", table)],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=side)
        os.close(side)
        seen = b""
        while b"tokens/s" not in seen:  # it is at work
            self.assertTrue(select.select([main], [], [], 60)[0])
            seen += os.read(main, 4096)
        child.send_signal(sent)
        try:
            while os.read(main, 4096):
                pass
        except OSError:  # the terminal's other side is closed
            pass
        out = child.stdout.read().decode()
        child.stdout.close()
        self.assertEqual(child.wait(60), 130)
        os.close(main)
        self.assertIn("not run", out)
        self.assertEqual(os.listdir(folder), ["rows.csv"])  # and nothing unfinished
        with open(table) as rows:
            self.assertEqual(len(rows.readlines()), 5)


class Refused(unittest.TestCase):
    def expect(self, code, part, *args):
        got, out, err = pith(*args)
        self.assertEqual((got, out), (code, ""), err)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertIn(part, err)

    def test_usage(self):
        short = ("--lengths", "10", "--batch", "1", "--bandwidth", "1G")
        self.expect(2, "expected --model FILE or --shape NAME")
        self.expect(2, "expected --model FILE or --shape NAME", "--shape", "tiny", "-m", "x")
        self.expect(2, "r1-distill-qwen-7b, ", "--shape", "gpt-2", *short)
        self.expect(2, 'found "gpt-2"', "--shape", "gpt-2", *short)
        self.expect(2, "q4_k_m, found 'q9'", "--shape", "tiny", "--type", "q9", *short)
        self.expect(2, "--type goes with --shape", "-m", "x", "--type", "f32")
        for bad in ("", "0", "1,", ",1", "1,x", "1 2", "513", "-1"):
            self.expect(2, "--batch: expected", "--shape", "tiny", "--batch", bad)
        self.expect(2, "--lengths: expected", "--shape", "tiny", "--lengths", "10;20")
        self.expect(2, "--stagger: expected on or off", "--shape", "tiny", "--stagger", "maybe")
        self.expect(2, "--sample-steps goes with", "--shape", "tiny", "--stagger", "on", "--sample-steps", "1")
        self.expect(2, "--rows goes with", "--shape", "tiny", "--stagger", "on", "--rows", "10")
        self.expect(2, "--rows: expected", "--shape", "tiny", "--rows", "10;20")
        self.expect(2, "--rows 131000 needs", "--shape", "tiny", "--rows", "131000", "--bandwidth", "1G")
        self.expect(2, "unknown policy", "--shape", "tiny", "--policy", "full;best")
        self.expect(2, "found an empty one", "--shape", "tiny", "--policy", "full;")
        self.expect(2, "--kv: expected", "--shape", "tiny", "--kv", "q4_0")
        self.expect(2, "the model has 131072", "--shape", "tiny", "--lengths", "131000", "--bandwidth", "1G")
        self.expect(2, "device: expected cpu, cuda", "--shape", "tiny", "--device", "tpu", *short)
        self.expect(2, "unknown option", "--shape", "tiny", "--fast")

    def test_files(self):
        self.expect(1, "/nowhere/model.gguf: No such file", "-m", "/nowhere/model.gguf", "--bandwidth", "1G")
        for kind in ("json", "csv", "svg"):
            self.expect(1, "/nowhere/out", "--shape", "tiny", "--" + kind, "/nowhere/out")
            self.expect(1, "this is a folder", "--shape", "tiny", "--" + kind, FOLDER.name)

    def test_help(self):
        done = subprocess.run([PITH, "help", "bench"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        for word in ("--shape", "--rows", "--sample-steps", "--stagger", "r1-distill-qwen-7b", "qwq-32b"):
            self.assertIn(word, done.stdout)


if __name__ == "__main__":
    unittest.main()

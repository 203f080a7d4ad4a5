"""pith eval as a person or a script meets it: the same samples however they are made, resuming, tables, bad input."""
import fcntl
import glob
import json
import os
import pty
import resource
import select
import signal
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree

PITH, BIN = os.environ["PITH_PROGRAM"], os.environ["PITH_TEST_BIN"]
FOLDER = tempfile.TemporaryDirectory()
MODEL = os.path.join(FOLDER.name, "tiny.gguf")
TASK = os.path.join(FOLDER.name, "puzzles.jsonl")
POLICIES = "full; rpc:p=16,r=4,c=4"
N_PROBLEMS, SAMPLES = 7, 3


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    return path


def problem(i):
    p = {"prompt": f"What is {i} plus {i}? " + "Think. " * (11 * i), "answer": 2 * i if i % 2 else str(2 * i),
         "band": "short" if i < 4 else "long", "kind": "sum"}
    if i == 2:
        p["system"] = "You are a calculator."
    if i != 3:
        p["id"] = f"sum-{i}"
    return p


def pith(*args, **more):
    """(exit code, stdout, stderr) of pith eval with these arguments."""
    done = subprocess.run([PITH, "eval", *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=300, **more)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def common(out, *more):
    return (TASK, "-m", MODEL, "--out", out, "--policy", POLICIES, "--samples", str(SAMPLES), "--max-tokens", "50",
            "--seed", "5", "--threads", "1", *more)


def evaluate(out, *more):
    code, text, err = pith(*common(out, *more))
    assert code == 0, err
    return text


def folder():
    return tempfile.mkdtemp(dir=FOLDER.name)


def lines(out):
    """All samples of a folder, by (policy, problem, sample); fails when one is there twice."""
    found = {}
    for path in sorted(glob.glob(os.path.join(out, "*.jsonl"))):
        with open(path) as f:
            for line in f:
                sample = json.loads(line)
                key = sample["policy"], sample["problem"], sample["sample"]
                assert key not in found, key
                found[key] = sample
    return found


class Evaluations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.out = os.path.join(FOLDER.name, "reference")
        cls.table = evaluate(cls.out)
        cls.samples = lines(cls.out)

    def test_samples_tell_everything(self):
        self.assertEqual(len(self.samples), 2 * N_PROBLEMS * SAMPLES)
        fields = ["task", "problem", "band", "sample", "policy", "prompt", "generation", "prompt_tokens",
                  "completion_tokens", "finish_reason", "answer", "expected", "correct", "rows_peak", "rows_full",
                  "bytes_peak", "bytes_full", "rows_mean", "rows_full_mean", "bytes_mean", "bytes_full_mean",
                  "compressions", "rows_over_time", "fields"]
        for s in self.samples.values():
            self.assertEqual(list(s), fields)
            self.assertEqual(s["fields"], {"kind": "sum"})
            self.assertEqual(s["task"], "puzzles")
            self.assertIn(s["finish_reason"], ("stop", "length"))
            self.assertLessEqual(s["completion_tokens"], 50)
            self.assertIn("<|im_start|>user", s["prompt"])
            self.assertEqual(s["rows_full"], s["prompt_tokens"] + s["completion_tokens"] - 1)
            if s["policy"] == "full":
                self.assertEqual((s["rows_peak"], s["compressions"]), (s["rows_full"], 0))
            elif s["completion_tokens"] == 50:
                self.assertEqual(s["compressions"], 2)  # at 20 and 36 generated rows
                self.assertLess(s["rows_peak"], s["rows_full"])
        self.assertEqual({s["expected"] for s in self.samples.values()}, {str(2 * i) for i in range(N_PROBLEMS)})
        self.assertIn("calculator", self.samples["full", "sum-2", 0]["prompt"])
        self.assertIn(("full", "3", 0), self.samples)  # a problem without an id has its number
        self.assertGreater(len({s["generation"] for s in self.samples.values()}), len(self.samples) // 3)

    def test_the_batch_changes_nothing(self):
        for batch in ("1", "5"):
            out = folder()
            evaluate(out, "--batch", batch)
            self.assertEqual(lines(out), self.samples)
        out = folder()
        evaluate(out, "--batch", "4", "--kv-budget", "400K")
        self.assertEqual(lines(out), self.samples)

    def test_shards_are_parts_of_the_whole(self):
        out = folder()
        for shard in ("1/2", "2/2"):
            table = evaluate(out, "--shard", shard)
            self.assertIn("shard " + shard, table)
        self.assertEqual(lines(out), self.samples)
        whole = evaluate(out)  # reads both, makes nothing
        self.assertEqual(lines(out), self.samples)
        self.assertEqual(without_speed(whole), without_speed(self.table))
        self.assertEqual(sum(os.path.getsize(p) for p in glob.glob(out + "/*.jsonl") if ".shard-" not in p), 0)

    def test_a_shard_may_be_empty(self):
        out = folder()
        path = os.path.join(folder(), "page.html")
        table = evaluate(out, "--shard", "9/9", "--html", path)
        self.assertIn("puzzles: 0 of 7 problems", table)
        xml.etree.ElementTree.parse(path)
        self.assertEqual(lines(out), {})

    def test_a_limit_and_fewer_samples_are_parts_too(self):
        out = folder()
        code, _, err = pith(*[a if a != str(SAMPLES) else "1" for a in common(out, "--limit", "4")])
        self.assertEqual(code, 0, err)
        part = lines(out)
        self.assertEqual(len(part), 2 * 4)
        for key, sample in part.items():
            self.assertEqual(sample, self.samples[key])
        evaluate(out)  # the rest
        self.assertEqual(lines(out), self.samples)

    def test_a_killed_run_goes_on(self):
        out = folder()
        child = subprocess.Popen([PITH, "eval", *common(out, "--batch", "2")], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not any(os.path.getsize(p) for p in glob.glob(out + "/*.jsonl")) and time.monotonic() < deadline:
            select.select([], [], [], 0.002)
        child.kill()
        child.wait()
        for path in glob.glob(out + "/full.jsonl"):
            with open(path, "rb+") as f:  # as if the last line had been on its way to the disk
                data = f.read()
                self.assertGreater(len(data), 20)
                f.truncate(len(data) - 20)
        evaluate(out)
        self.assertEqual(lines(out), self.samples)

    def test_an_interrupt_ends_it_and_the_bar_is_removed(self):
        out = folder()
        main, side = pty.openpty()
        args = (TASK, "-m", MODEL, "-o", out, "--policy", "full", "-n", "3000", "--samples", "1000")
        child = subprocess.Popen([PITH, "eval", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=side)
        os.close(side)
        seen = b""
        while b"tokens/s" not in seen:
            self.assertTrue(select.select([main], [], [], 60)[0])
            seen += os.read(main, 4096)
        self.assertIn(b"\r[", seen)
        self.assertIn(b"of 7000", seen)
        child.send_signal(signal.SIGINT)
        rest = b""
        try:
            while select.select([main], [], [], 20)[0]:
                piece = os.read(main, 4096)
                if not piece:
                    break
                rest += piece
        except OSError:
            pass
        os.close(main)
        self.assertEqual(child.wait(60), 130)
        self.assertEqual(child.stdout.read(), b"")
        child.stdout.close()
        self.assertIn(b"\r\x1b[K", rest)
        self.assertIn(b"interrupted: ", rest)

    def test_a_full_disk_ends_it_and_it_goes_on(self):
        out = folder()
        half = os.path.getsize(os.path.join(self.out, "full.jsonl")) // 2
        code, text, err = pith(*common(out), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (half, half)))
        self.assertEqual((code, text), (1, ""))
        self.assertEqual(err.count("\n"), 1, err)
        self.assertIn("full.jsonl: cannot write", err)
        there = lines(out)  # whole lines only
        self.assertGreater(len(there), 3)
        evaluate(out)
        self.assertEqual(lines(out), self.samples)

    def test_what_was_read_back_is_not_made_again(self):
        files = sorted(glob.glob(self.out + "/*"))
        before = [(f, os.stat(f).st_mtime_ns) for f in files]
        again = evaluate(self.out)
        self.assertEqual(before, [(f, os.stat(f).st_mtime_ns) for f in files])
        self.assertEqual(without_speed(again), without_speed(self.table))
        for row in again.splitlines():
            if row.startswith(("full ", "rpc")):
                self.assertTrue(row.endswith(" -"), row)

    def test_the_table(self):
        rows = self.table.splitlines()
        self.assertTrue(rows[0].startswith("puzzles: 7 of 7 problems, 3 samples each, "), rows[0])
        self.assertEqual([r.split()[0] for r in rows if r and r.split()[0] in ("all", "short", "long")],
                         ["all", "short", "long"])
        self.assertEqual(sum(r.startswith("full ") for r in rows), 3)
        self.assertEqual(sum(r.startswith("rpc:p=16,r=4,c=4 ") for r in rows), 3)
        self.assertEqual(len({len(r) for r in rows[1:] if r}), 1)  # aligned

    def test_json_has_the_same_numbers(self):
        out = folder()
        code, text, err = pith(*common(out, "--json"))
        self.assertEqual((code, err), (0, ""))
        j = json.loads(text)
        self.assertEqual(j["settings"]["seed"], 5)
        self.assertEqual(j["settings"]["temperature"], 0.6)
        self.assertEqual(j["settings"]["max_tokens"], 50)
        with open(os.path.join(out, "run.json")) as f:
            self.assertEqual({k: j["settings"][k] for k in json.load(f)}.keys() - j["settings"].keys(), set())
        full, rpc = j["policies"]
        self.assertEqual((full["spec"], rpc["spec"]), ("full", "rpc:p=16,r=4,c=4"))
        self.assertEqual(list(full["groups"]), ["short", "long"])
        for p in (full, rpc):
            mine = [s for s in self.samples.values() if s["policy"] == p["policy"]]
            row = p["all"]
            self.assertEqual((row["samples"], row["problems"]), (21, 7))
            self.assertAlmostEqual(row["pass_at_1"]["mean"], mean(s["correct"] for s in mine))
            self.assertLess(row["pass_at_1"]["low"], row["pass_at_1"]["high"])
            self.assertAlmostEqual(row["finished"], mean(s["finish_reason"] == "stop" for s in mine))
            for name in ("completion_tokens", "rows_mean", "rows_peak", "bytes_mean", "bytes_peak"):
                self.assertAlmostEqual(row[name], mean(s[name] for s in mine), delta=1e-6 * row[name])
            self.assertAlmostEqual(row["rows_mean_share"], mean(s["rows_mean"] for s in mine) /
                                   mean(s["rows_full_mean"] for s in mine), delta=1e-7)
            self.assertGreater(row["tokens_per_second"], 0)
            self.assertIsNone(p["groups"]["long"]["tokens_per_second"])
            self.assertEqual(p["groups"]["short"]["samples"], 12)
        self.assertIsNone(full["all"]["difference"])
        self.assertEqual(rpc["all"]["pairs"], 21)
        self.assertEqual(full["all"]["rows_mean_share"], 1)
        self.assertLess(rpc["all"]["rows_mean_share"], 1)

    def test_groups_by_another_field(self):
        text = evaluate(self.out, "--by", "id", "--json")
        policies = json.loads(text)["policies"]
        self.assertEqual(list(policies[0]["groups"]), ["sum-%d" % i for i in range(N_PROBLEMS) if i != 3])
        for p in policies:
            mine = [s["correct"] for s in self.samples.values() if (s["policy"], s["problem"]) == (p["policy"], "sum-5")]
            self.assertEqual(p["groups"]["sum-5"]["samples"], SAMPLES)
            self.assertAlmostEqual(p["groups"]["sum-5"]["pass_at_1"]["mean"], mean(mine))
        code, text, err = pith(*common(folder(), "--by", "colour"))
        self.assertEqual((code, text), (1, ""))
        self.assertEqual(err, 'pith: --by: expected a field with text in a problem of puzzles, found no "colour"\n')

    def test_markdown_has_the_same_numbers(self):
        rows = evaluate(self.out, "--markdown").splitlines()
        self.assertEqual((rows[0], rows[1]), (self.table.splitlines()[0], ""))
        cells = [[c.strip() for c in r.strip("|").split(" | ")] for r in rows[2:]]
        self.assertEqual({len(c) for c in cells}, {12})
        self.assertEqual(cells[0][:3], ["band", "policy", "samples"])
        self.assertEqual([c[0] for c in cells[2:]], ["short", "", "long", "", "all", ""])
        plain = {" ".join(r.split()) for r in without_speed(self.table)}
        for c in cells[2:]:
            self.assertIn(" ".join([c[1].strip("`")] + c[2:-1]), plain)
        code, text, err = pith(*common(folder(), "--markdown", "--json"))
        self.assertEqual((code, text), (2, ""))

    def test_the_page_is_whole(self):
        path = os.path.join(folder(), "page.html")
        evaluate(self.out, "--html", path)
        page = xml.etree.ElementTree.parse(path).getroot()
        self.assertEqual(os.listdir(os.path.dirname(path)), ["page.html"])
        figures = page.findall(".//svg")
        self.assertEqual(len(figures), 3)
        for svg in figures:
            self.assertEqual(svg.get("role"), "img")
            ids = {e.get("id") for e in svg.iter() if e.get("id")}
            self.assertEqual(set(svg.get("aria-labelledby").split()), ids)
            self.assertTrue(svg.find("title").text and svg.find("desc").text)
        self.assertEqual(len(page.findall(".//table")), 4)  # all, two bands, settings
        with open(path) as f:
            text = f.read()
        for word in ("http", "<script", "nan", "inf,"):
            self.assertNotIn(word, text.lower())
        self.assertIn("prefers-color-scheme:dark", text)
        for label in ("generated tokens", "pass@1", "(MB)", "rows of the longest lane", "share of samples"):
            self.assertIn(label, text)

    def test_answers_are_judged(self):
        # A model that knows nothing is right about what it says itself: the expected answer is read from a first run.
        out = folder()
        task = os.path.join(out, "own.jsonl")
        write(task, '{"prompt": "x", "answer": "\\\\boxed"}\n')
        code, _, err = pith(task, "-m", MODEL, "-o", os.path.join(out, "r"), "--policy", "full", "-n", "5")
        self.assertEqual(code, 0, err)
        sample = lines(os.path.join(out, "r"))["full", "0", 0]
        self.assertIsNone(sample["answer"])
        self.assertFalse(sample["correct"])

    def test_tasks_by_name(self):
        data = folder()
        os.mkdir(data + "/pebble")
        for name in ("2-long", "1-short"):
            line = json.dumps({"prompt": name, "answer": 1, "id": name, "band": name})
            write(f"{data}/pebble/{name}.jsonl", line + "\n")
        more = ("-m", MODEL, "--policy", "full", "-n", "5")
        code, table, err = pith("pebble", *more, "-o", data + "/a", env={**os.environ, "PITH_DATA": data})
        self.assertEqual(code, 0, err)
        self.assertLess(table.index("1-short"), table.index("2-long"))
        code, again, err = pith("pebble", *more, "-o", data + "/b", "--data", data)
        self.assertEqual(without_speed(again), without_speed(table))
        code, _, err = pith("aime25", *more, "-o", data + "/c", "--data", data + "/pebble/1-short.jsonl")
        self.assertEqual(code, 0, err)
        self.assertEqual(list(lines(data + "/c").values())[0]["task"], "aime25")


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def without_speed(table):
    return [row.rsplit(None, 1)[0] for row in table.splitlines() if row]


class BadInput(unittest.TestCase):
    def refused(self, code, part, *args, made=False, **more):
        out = os.path.join(folder(), "out")
        got, text, err = pith(*args, "--out", out, **more)
        self.assertEqual(got, code, (args, err))
        self.assertEqual(err.count("\n"), 1, err)  # one line
        self.assertTrue(err.startswith("pith: "), err)
        self.assertIn(part, err)
        self.assertEqual(text, "")
        self.assertEqual(os.path.exists(out), made)
        return err

    def test_usage(self):
        model = ("-m", MODEL)
        for part, args in {
            "expected a task": model,
            "--model": (TASK,),
            "pebble, aime24": ("chess", *model),
            "full, rpc": (TASK, *model, "--policy", "foo"),
            "an empty one": (TASK, *model, "--policy", "full;;rpc"),
            "given twice": (TASK, *model, "--policy", "rpc;full;rpc:p=1024"),
            "I/N": (TASK, *model, "--shard", "3/2"),
            "found \"0/2\"": (TASK, *model, "--shard", "0/2"),
            "found \"1/2x\"": (TASK, *model, "--shard", "1/2x"),
            "1 to 512": (TASK, *model, "--batch", "0"),
            "--samples": (TASK, *model, "--samples", "0"),
            "goes with a task's name": (TASK, *model, "--data", "x"),
            "positions": (TASK, *model, "--context", "8192"),
        }.items():
            self.refused(2, part, *args)
        code, _, err = pith(TASK, *model)
        self.assertEqual(code, 2)
        self.assertIn("--out", err)

    def test_problems(self):
        def task(*problems):
            return write(os.path.join(folder(), "bad.jsonl"), "".join(problems))
        good = json.dumps(problem(1)) + "\n"
        for part, path in {
            "bad.jsonl:2: ": task(good, '{"prompt": "x", "ans\n', good),
            "bad.jsonl:3: expected \"answer\"": task(good, "\n", '{"prompt": "x"}\n'),
            "that of ": task(good, good),
            "found none": task(),
            "No such file": "./none.jsonl",
        }.items():
            self.refused(1, part, path, "-m", MODEL)
        self.refused(1, "not shipped; pass --data FILE", "aime24", "-m", MODEL, "--data", FOLDER.name)
        long = task(good, json.dumps({"prompt": "word " * 500, "answer": 1}) + "\n")
        self.refused(1, "bad.jsonl:2: expected a prompt of fewer tokens than the context's 256", long, "-m", MODEL,
                     "--context", "256")
        self.refused(1, "--kv-budget", TASK, "-m", MODEL, "--kv-budget", "64K")
        # Problems that a run is not about need not fit.
        code, _, err = pith(long, "-m", MODEL, "--context", "256", "--limit", "1", "-n", "5", "-o", folder())
        self.assertEqual(code, 0, err)

    def test_models(self):
        self.refused(1, "No such file", TASK, "-m", "none.gguf")
        with open(MODEL, "rb") as f:
            data = f.read()
        self.assertEqual(data.count(b"tokenizer.chat_template"), 1)
        bare = os.path.join(FOLDER.name, "bare.gguf")
        with open(bare, "wb") as f:
            f.write(data.replace(b"tokenizer.chat_template", b"tokenizer.chat_nonesuch"))
        self.refused(1, "chat template", TASK, "-m", bare)

    def test_folders(self):
        out = folder()
        args = (TASK, "-m", MODEL, "--limit", "1", "-n", "5", "--policy", "full")
        code, _, err = pith(*args, "-o", out)
        self.assertEqual(code, 0, err)
        code, text, err = pith(*args, "-o", out, "--seed", "1")
        self.assertEqual((code, text), (1, ""))
        self.assertIn("run.json: its samples were made with seed 0, this run has 1", err)
        self.assertEqual(err.count("\n"), 1)
        for more, word in ((("--temperature", "0.7"), "temperature 0.6, this run has 0.7"), (("--top-p", "1"), "top_p"),
                           (("--context", "512"), "context")):
            code, _, err = pith(*args, "-o", out, *more)
            self.assertEqual(code, 1)
            self.assertIn(word, err)
        with open(out + "/full.jsonl", "r+") as f:
            text = f.read()
            f.seek(0)
            f.write("{broken}\n" + text)
        code, _, err = pith(*args, "-o", out)
        self.assertEqual(code, 1)
        self.assertIn("full.jsonl:1: expected a sample", err)
        code, _, err = pith(*args, "-o", "/nowhere/out")
        self.assertIn("cannot make the folder", err)
        self.refused(1, "No such file", *args, "--html", "/nowhere/page.html")
        self.refused(1, "this is a folder", *args, "--html", out)

    def test_two_runs_do_not_write_one_file(self):
        out = folder()
        with open(out + "/full.jsonl", "a") as f:
            fcntl.flock(f, fcntl.LOCK_EX)  # as another run does
            code, _, err = pith(TASK, "-m", MODEL, "--policy", "full", "-n", "5", "-o", out)
        self.assertEqual(code, 1)
        self.assertIn("full.jsonl: another run is writing it", err)

    def test_a_table_that_cannot_be_written(self):
        out = folder()
        code, _, err = pith(*common(out))
        self.assertEqual(code, 0, err)
        if os.path.exists("/dev/full"):
            done = subprocess.run(["sh", "-c", 'exec "$0" "$@" > /dev/full', PITH, "eval", *common(out)],
                                  stderr=subprocess.PIPE, timeout=60)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"standard output: No space left", done.stderr)


if __name__ == "__main__":
    tiny = os.path.join(BIN, "tiny_model_main")
    subprocess.run([tiny, "--arch", "qwen2", "--type", "q8_0", "--out", MODEL], check=True)
    write(TASK, "".join(json.dumps(problem(i)) + "\n" for i in range(N_PROBLEMS)))
    unittest.main()

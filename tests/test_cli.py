"""The program as a person or a script meets it: answers, JSON, traces, a terminal, interrupts, and bad input."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import tty
import unittest

PITH, BIN = os.environ["PITH_PROGRAM"], os.environ["PITH_TEST_BIN"]
FOLDER = tempfile.TemporaryDirectory()
MODEL = os.path.join(FOLDER.name, "tiny.gguf")
THINKER = os.path.join(FOLDER.name, "thinker.gguf")  # its template opens a thought, and drops old ones

TEMPLATE = (b"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
            b"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
            b"{% if add_generation_prompt %}<think>\n{% endif %}")
DROPPING = (b"{% for m in messages %}<|im_start|>{{ m.role }}\n"
            b"{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
            b"{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}")


def make_models():
    maker = os.path.join(BIN, "tiny_model_main")
    subprocess.run([maker, "--arch", "qwen2", "--type", "q8_0", "--out", MODEL], check=True)
    subprocess.run([maker, "--arch", "qwen2", "--type", "q8_0", "--thinks", "--out", THINKER], check=True)
    with open(THINKER, "rb") as f:
        data = f.read()
    assert data.count(TEMPLATE) == 1 and len(DROPPING) <= len(TEMPLATE)
    padded = DROPPING.replace(b"{% endif", b"{%" + b" " * (len(TEMPLATE) - len(DROPPING) + 1) + b"endif")
    with open(THINKER, "wb") as f:
        f.write(data.replace(TEMPLATE, padded))


def said(role, text):
    """A message as the tiny models' templates write it."""
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def run(*args, text=None, raw=None):
    """(exit code, stdout, stderr) of pith with these arguments."""
    data = raw if raw is not None else (text or "").encode()
    done = subprocess.run([PITH, *args], input=data, capture_output=True, timeout=120)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def answer(*args, **more):
    model = () if "-m" in args else ("-m", MODEL)
    code, out, err = run("run", *model, *args, **more)
    assert code == 0, err
    return out, err


def as_json(*args, **more):
    return json.loads(answer("--json", *args, **more)[0])


def first_seed(accepts):
    """Options whose answer is accepted: models of random weights seldom do what a test is about."""
    for seed in range(300):
        option = ("--seed", str(seed))
        if accepts(option):
            return option
    raise AssertionError("no seed's answer is accepted")


def has_one_thought(text):
    thought, mark, rest = text.partition("</think>")
    return mark and rest.strip() and "think>" not in thought + rest


class Answers(unittest.TestCase):
    def test_prompt_from_flag_file_and_standard_input_is_one_prompt(self):
        path = os.path.join(FOLDER.name, "question.txt")
        with open(path, "w") as f:
            f.write("Why?")
        common = ("-n", "30", "--seed", "3", "--ignore-eos")
        texts = {as_json("-p", "Why?", *common)["text"], as_json("-f", path, *common)["text"],
                 as_json("-f", "-", *common, text="Why?")["text"], as_json(*common, text="Why?")["text"]}
        self.assertEqual(len(texts), 1)

    def test_raw_differs_from_the_template(self):
        self.assertGreater(as_json("-p", "Why?", "-n", "1")["prompt_tokens"],
                           as_json("-p", "Why?", "-n", "1", "--raw")["prompt_tokens"])

    def test_json_has_the_promised_fields(self):
        j = as_json("-p", "Why?", "-n", "200", "--ignore-eos", "--policy", "rpc:p=32,r=8,c=4")
        self.assertTrue(j["policy"].startswith("rpc:p=32,r=8,c=4"))
        self.assertEqual(j["finish_reason"], "length")
        self.assertEqual(j["completion_tokens"], 200)
        kv, prompt = j["kv"], j["prompt_tokens"]
        self.assertEqual(kv["rows_full"], prompt + 199)  # the last token is drawn and not read
        self.assertEqual(kv["compressions"], 5)
        self.assertEqual(kv["rows_peak"], prompt + 5 * 8 + (199 - 5 * 32))  # at the end, past the last event's 4*8 + 32 + 8
        self.assertLess(kv["bytes_peak"], kv["bytes_full"])
        self.assertGreater(j["timing"]["tokens_per_second"], 0)

    def test_trace_tells_what_was_kept(self):
        path = os.path.join(FOLDER.name, "trace")
        j = as_json("-p", "Why?", "-n", "100", "--ignore-eos", "--policy", "rpc:p=32,r=8,c=4", "--trace", path)
        with open(path) as f:
            lines = [json.loads(line) for line in f]
        self.assertEqual(len(lines), 2 * j["kv"]["compressions"])  # two layers
        for event in lines:
            k = (event["step"] - 8) // 32
            self.assertEqual(event["step"], 32 * k + 8)
            self.assertEqual(event["rows_before"], j["prompt_tokens"] + (k - 1) * 8 + 32 + 8)
            self.assertEqual(event["rows_after"], len(event["kept"]))
            self.assertEqual(event["rows_after"], j["prompt_tokens"] + k * 8 + 8)
            self.assertEqual(event["kept"], sorted(set(event["kept"])))
            self.assertEqual(event["kept"][:j["prompt_tokens"]], list(range(j["prompt_tokens"])))
            self.assertIsNone(event["head"])

    def test_the_seed_decides_and_the_threads_do_not(self):
        one = as_json("-p", "Why?", "-n", "60", "--seed", "1", "--threads", "1")["text"]
        self.assertEqual(one, as_json("-p", "Why?", "-n", "60", "--seed", "1", "--threads", "2")["text"])
        self.assertNotEqual(one, as_json("-p", "Why?", "-n", "60", "--seed", "2")["text"])
        greedy = as_json("-p", "Why?", "-n", "60", "--greedy", "--seed", "1")["text"]
        self.assertEqual(greedy, as_json("-p", "Why?", "-n", "60", "--greedy", "--seed", "2")["text"])

    def test_samples_are_what_each_would_be_alone(self):
        common = ("-p", "Why?", "-n", "80", "--ignore-eos", "--policy", "rpc:p=16,r=4,c=4")
        samples = as_json(*common, "--samples", "3")["samples"]
        self.assertEqual(len({s["text"] for s in samples}), 3)
        self.assertEqual(samples[0]["text"], as_json(*common)["text"])
        out, err = answer(*common, "--samples", "3")
        self.assertEqual(out.count("--- sample"), 3)
        self.assertEqual(err.count("compressions"), 3)

    def test_the_summary_goes_to_stderr(self):
        out, err = answer("-p", "Why?", "-n", "40", "--policy", "rpc:p=16,r=4")
        for word in ("rows: peak", "bytes: peak", "compression", "tokens/s"):
            self.assertIn(word, err)
            self.assertNotIn(word, out)

    def test_a_conversation_goes_on(self):
        out, err = answer("-i", "-n", "20", "--policy", "rpc:p=16,r=4", text="one\n\ntwo\nthree\n")
        self.assertEqual(err.count("prefill"), 3)
        prompts = [int(n) for n in re.findall(r"tokens +(\d+) prompt", err)]
        self.assertEqual(prompts, sorted(prompts))

    def test_old_thinking_is_no_part_of_the_next_prompt(self):
        common = ("-m", THINKER, "-n", "100", "--ignore-eos", "--policy", "full", "--threads", "1")
        seed = first_seed(lambda option: has_one_thought(as_json(*common, *option, "-p", "one")["text"]))
        code, out, err = run("run", *common, *seed, "-i", "--json", text="one\ntwo\n")
        self.assertEqual(code, 0, err)
        first, second = [json.loads(line) for line in out.splitlines()]

        def fresh(remembered):
            prompt = said("user", "one") + said("assistant", remembered) + said("user", "two")
            return as_json(*common, *seed, "--raw", "-p", prompt + "<|im_start|>assistant\n<think>\n")
        want, other = fresh(first["text"].split("</think>")[1]), fresh(first["text"])
        self.assertEqual(second["text"], want["text"])
        self.assertEqual(second["kv"]["rows_full"], want["kv"]["rows_full"])
        self.assertNotEqual(second["text"], other["text"])

    def test_the_system_message_is_in_front(self):
        common = ("-n", "30", "--ignore-eos")
        rendered = said("system", "Be brief.") + said("user", "Why?") + "<|im_start|>assistant\n"
        want = as_json(*common, "--raw", "-p", rendered)
        got = as_json(*common, "--system", "Be brief.", "-p", "Why?")
        self.assertEqual((got["text"], got["prompt_tokens"]), (want["text"], want["prompt_tokens"]))
        talk = as_json(*common, "--system", "Be brief.", "-i", text="Why?\n")
        self.assertEqual((talk["text"], talk["prompt_tokens"]), (want["text"], want["prompt_tokens"]))
        without = as_json(*common, "-p", "Why?")
        self.assertNotEqual(got["text"], without["text"])
        self.assertGreater(got["prompt_tokens"], without["prompt_tokens"])

    def test_help(self):
        code, out, _ = run("help", "run")
        self.assertEqual(code, 0)
        for flag in ("--policy", "--samples", "--kv", "--trace", "--ignore-eos"):
            self.assertIn(flag, out)
        self.assertEqual(run("--version")[0], 0)


def to_a_pipe(*args):
    return subprocess.run([PITH, "run", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True, timeout=60).stdout


def to_a_terminal(*args):
    """What the same writes to a terminal that changes no byte."""
    main, side = pty.openpty()
    tty.setraw(side)
    child = subprocess.Popen([PITH, "run", *args], stdin=subprocess.DEVNULL, stdout=side, stderr=subprocess.DEVNULL)
    os.close(side)
    seen = b""
    try:
        while select.select([main], [], [], 60)[0]:
            seen += os.read(main, 4096)
    except OSError:  # nobody has it open any more
        pass
    os.close(main)
    assert child.wait(60) == 0
    return seen


class Terminal(unittest.TestCase):
    DIM, PLAIN = b"\033[2m", b"\033[0m"

    def test_a_thought_is_dimmed(self):
        args = ("-m", THINKER, "-n", "100", "--ignore-eos", "-p", "one", "--threads", "1")
        args += first_seed(lambda option: has_one_thought(to_a_pipe(*args, *option).decode("latin-1")))
        thought, mark, rest = to_a_pipe(*args).partition(b"</think>")
        self.assertNotIn(self.DIM, thought + rest)
        self.assertEqual(to_a_terminal(*args), self.DIM + thought + mark + self.PLAIN + rest)

    def test_a_thought_without_an_end_is_dimmed_to_the_end(self):
        args = ("-m", THINKER, "-n", "5", "--ignore-eos", "-p", "one", "--threads", "1")
        args += first_seed(lambda option: b"think>" not in to_a_pipe(*args, *option))
        thought = to_a_pipe(*args).removesuffix(b"\n")
        self.assertEqual(to_a_terminal(*args), self.DIM + thought + self.PLAIN + b"\n")

    def test_an_answer_without_a_thought_is_plain(self):
        args = ("-m", MODEL, "-n", "20", "--ignore-eos", "-p", "one", "--threads", "1")
        args += first_seed(lambda option: b"think>" not in to_a_pipe(*args, *option))
        self.assertEqual(to_a_terminal(*args), to_a_pipe(*args))

    def test_an_interrupt_ends_with_the_summary(self):
        main, side = pty.openpty()
        child = subprocess.Popen([PITH, "run", "-m", MODEL, "-p", "Why?", "-n", "1000000", "--ignore-eos"],
                                 stdin=subprocess.DEVNULL, stdout=side, stderr=subprocess.PIPE)
        os.close(side)
        seen = b""
        while len(seen) < 200:  # it is answering
            self.assertTrue(select.select([main], [], [], 60)[0])
            seen += os.read(main, 4096)
        child.send_signal(signal.SIGINT)
        drained = bytearray()

        def drain():
            try:
                while select.select([main], [], [], 0.05)[0]:
                    drained.extend(os.read(main, 4096))
            except OSError:
                pass
        while child.poll() is None:
            drain()
        err = child.stderr.read().decode()
        child.stderr.close()
        os.close(main)
        self.assertEqual(child.returncode, 0, err)
        self.assertIn("tokens/s", err)


    def test_an_interrupt_while_reading_forgets_nothing(self):
        # A conversation whose first prompt is interrupted half read: the next turn has all of it again.
        child = subprocess.Popen([PITH, "run", "-m", MODEL, "-i", "-n", "4", "--ignore-eos", "--threads", "1"],
                                 stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        child.stdin.write(b"word " * 1100 + b"\n")
        child.stdin.flush()
        first = child.stderr.readline()  # "reading the prompt": the first chunk is done
        self.assertIn(b"reading the prompt", first)
        child.send_signal(signal.SIGINT)
        child.stdin.write(b"again\n")
        child.stdin.close()
        err = (first + child.stderr.read()).decode()
        child.stderr.close()
        self.assertEqual(child.wait(60), 0, err)
        prompts = [int(n) for n in re.findall(r"tokens +(\d+) prompt", err)]
        self.assertEqual(len(prompts), 2, err)
        self.assertIn("interrupted", err)
        self.assertGreater(prompts[1], 3300)

    def test_interrupted_samples_are_shown(self):
        child = subprocess.Popen([PITH, "run", "-m", MODEL, "-p", "x", "-n", "3000", "--ignore-eos", "--samples", "2",
                                  "--trace", os.path.join(FOLDER.name, "t"), "--policy", "rpc:p=16,r=4"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not os.path.exists(os.path.join(FOLDER.name, "t")) and child.poll() is None:
            select.select([], [], [], 0.005)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 0, err)
        self.assertIn(b"--- sample 0", out)
        self.assertIn(b"interrupted", err)


    def test_a_sample_that_ended_before_the_interrupt_says_so(self):
        # The trace is a pipe, so the program runs no further ahead than it holds; long lines fill it after a few steps.
        common = ("-m", MODEL, "-p", "word " * 200, "--policy", "rpc:p=4,r=1,c=4", "--samples", "2", "--threads", "1")

        def samples_of(option):
            return as_json(*common, "-n", "350", *option)["samples"]

        def differ(option):
            ends = {s["finish_reason"]: s["completion_tokens"] for s in samples_of(option)}
            return len(ends) == 2 and ends["stop"] < 150
        seed = first_seed(differ)
        alone = samples_of(seed)
        ended = [s["finish_reason"] for s in alone].index("stop")
        reader, writer = os.pipe()
        child = subprocess.Popen([PITH, "run", "--json", *common, *seed, "-n", "3000", "--trace", f"/dev/fd/{writer}"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 pass_fds=(writer,))
        os.close(writer)
        with open(reader) as trace:
            for line in trace:
                event = json.loads(line)
                if event["seq"] != ended and event["step"] > alone[ended]["completion_tokens"] + 8:
                    child.send_signal(signal.SIGINT)
                    break
            for line in trace:
                pass
        out, err = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 0, err)
        samples = json.loads(out)["samples"]
        self.assertEqual(samples[ended]["finish_reason"], "stop")
        self.assertEqual(samples[ended]["text"], alone[ended]["text"])
        self.assertEqual(samples[1 - ended]["finish_reason"], "interrupted")
        self.assertLess(samples[1 - ended]["completion_tokens"], 350)


class BadInput(unittest.TestCase):
    def refused(self, code, part, *args, **more):
        got, out, err = run(*args, **more)
        self.assertEqual(got, code, (args, err))
        self.assertEqual(err.count("\n"), 1, err)  # one line
        self.assertTrue(err.startswith("pith: "), err)
        self.assertIn(part, err)
        self.assertEqual(out, "")

    def test_usage(self):
        for part, args in {
            "--model": ("run",),
            "unknown option": ("run", "-m", MODEL, "--bogus"),
            "no such verb": ("walk",),
            "given twice": ("run", "-m", MODEL, "-m", MODEL),
            "whole number": ("run", "-m", MODEL, "-p", "x", "-n", "-3"),
            "1 to 256": ("run", "-m", MODEL, "-p", "x", "--samples", "0"),
            "\"1.5x\"": ("run", "-m", MODEL, "-p", "x", "--temperature", "1.5x"),
            "found \"nan\"": ("run", "-m", MODEL, "-p", "x", "--top-p", "nan"),
            "auto, f16, f32 or bf16": ("run", "-m", MODEL, "-p", "x", "--kv", "q3"),
            "512M": ("run", "-m", MODEL, "-p", "x", "--kv-budget", "lots"),
            "full, rpc": ("run", "-m", MODEL, "-p", "x", "--policy", "foo"),
            "odd": ("run", "-m", MODEL, "-p", "x", "--policy", "rpc:pool=avg4"),
            "p=0": ("run", "-m", MODEL, "-p", "x", "--policy", "rpc:p=0"),
            "one of --prompt": ("run", "-m", MODEL, "-p", "x", "-f", "y"),
            "--interactive": ("run", "-m", MODEL, "-i", "--samples", "2"),
            "takes no value": ("run", "-m", MODEL, "--raw=1"),
            "behind it": ("run", "-m"),
        }.items():
            self.refused(2, part, *args)

    def test_prompts(self):
        self.refused(1, "empty", "run", "-m", MODEL, "-p", "")
        self.refused(1, "empty", "run", "-m", MODEL)
        self.refused(1, "byte 0x00 at 1", "run", "-m", MODEL, raw=b"a\0b")
        self.refused(1, "byte 0xff at 3", "run", "-m", MODEL, raw=b"abc\xff")
        self.refused(1, "No such file", "run", "-m", MODEL, "-f", os.path.join(FOLDER.name, "none"))
        self.refused(1, "context", "run", "-m", MODEL, "--context", "64", text="word " * 500)

    def test_memory(self):
        self.refused(1, "bytes", "run", "-m", MODEL, "-p", "x", "--kv-budget", "64K")

    def test_models(self):
        self.refused(1, "No such file", "run", "-m", "none.gguf", "-p", "x")
        self.refused(1, "directory", "run", "-m", FOLDER.name, "-p", "x")
        with open(MODEL, "rb") as f:
            data = f.read()
        path = os.path.join(FOLDER.name, "cut.gguf")
        for length in (0, 3, 20, 500, len(data) // 2, len(data) - 1):
            with open(path, "wb") as f:
                f.write(data[:length])
            self.refused(1, "cut.gguf", "run", "-m", path, "-p", "x")

    def test_a_trace_that_cannot_be_written(self):
        self.refused(1, "No such file", "run", "-m", MODEL, "-p", "x", "--trace", "/nowhere/trace")
        if os.path.exists("/dev/full"):
            code, _, err = run("run", "-m", MODEL, "-p", "x", "-n", "100", "--ignore-eos", "--policy", "rpc:p=16,r=4",
                               "--trace", "/dev/full")
            self.assertEqual(code, 1)
            self.assertIn("cannot write", err)

    def test_a_refused_run_leaves_an_older_trace_alone(self):
        path = os.path.join(FOLDER.name, "old")
        with open(path, "w") as f:
            f.write("kept")
        self.refused(1, "context", "run", "-m", MODEL, "--context", "64", "--trace", path, text="word " * 500)
        with open(path) as f:
            self.assertEqual(f.read(), "kept")

    def test_a_closed_standard_output_is_no_other_file(self):
        path = os.path.join(FOLDER.name, "closed")
        subprocess.run(["sh", "-c", '"$0" "$@" >&- 2>/dev/null </dev/null', PITH, "run", "-m", MODEL, "-p", "x", "-n", "60",
                        "--ignore-eos", "--policy", "rpc:p=16,r=4", "--trace", path], timeout=60)
        with open(path) as f:
            for line in f:
                json.loads(line)

    def test_a_reader_that_goes_away(self):
        child = subprocess.Popen([PITH, "run", "-m", MODEL, "-p", "x", "-n", "100000", "--ignore-eos"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.read(1)
        child.stdout.close()
        err = child.stderr.read().decode()
        child.stderr.close()
        self.assertEqual(child.wait(60), 1)
        self.assertEqual(err.count("\n"), 1)
        self.assertIn("Broken pipe", err)

    def test_json_that_nobody_reads(self):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([PITH, "run", "-m", MODEL, "-p", "x", "-n", "4", "--json"], stdin=subprocess.DEVNULL,
                              stdout=writer, stderr=subprocess.PIPE, timeout=60)
        os.close(writer)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.decode(), "pith: standard output: Broken pipe\n")


if __name__ == "__main__":
    make_models()
    unittest.main()

"""What a GPU is needed for, in parts that each know their time. `run.sh` starts this; `run.sh --help` says how.

Every result is appended to results.jsonl in the results folder as one line of JSON, the moment it exists: a run that is cut
loses nothing. `table.py` makes the tables from that file. Standard library only; PyTorch is a peer, used where it is.
"""

import argparse
import csv
import gzip
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
LIMITS = {"A": 240, "B": 420, "C": 300}
MODELS = "mlp,lenet,resnet32,wrn28-10"
# Test programs, and where there is no card a quick test of each as a stand-in.
TESTS = {
    "cuda_kernels": "simulator_beyond_the_table",
    "convolutions": "simulator_shared_by_all_precisions",
    "backends": "simulator_f32_one_odd_image",
    "cuda_steps": "simulator_f32_mlp",
}
# What stands in for the slow ones in a dry run.
QUICK = ("backends", TESTS["backends"])
PRECISIONS = ["f32", "tf32", "bf16"]
# The most telling first: what is cut is cut from the end.
TORCH = (
    [f"{model}/official:f32" for model in ("resnet32", "wrn28-10")]
    + [f"{model}/{mode}:{p}:graph" for mode in ("jvp", "official") for p in PRECISIONS for model in ("resnet32", "wrn28-10")]
    + [f"{model}/{run}" for run in ("jvp:f32", "official:tf32", "official:bf16") for model in ("resnet32", "wrn28-10")]
)


class Kit:
    """A run of one letter: its clock, its results, its commands."""

    def __init__(self, args):
        self.args, self.dry, self.letter = args, args.dry, args.letter
        self.began = time.monotonic()
        # Stand-ins are slow: what a dry run shows is that every step is gone through.
        self.patience = 5 if args.dry else 1
        self.until = self.began + self.patience * (args.limit or LIMITS[args.letter])
        self.folder = pathlib.Path(args.out).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results = open(self.folder / "results.jsonl", "a", encoding="utf-8")
        self.failed = False
        self.part, self.part_until = "start", self.until
        self.environment = dict(os.environ)
        self.python = args.python or sys.executable
        self.unpacked = tempfile.TemporaryDirectory()
        if (packed := HERE / "cache.tar.gz").is_file():
            shutil.unpack_archive(packed, self.unpacked.name)
            self.environment["METATAPE_CACHE_DIR"] = str(pathlib.Path(self.unpacked.name) / "cache")

    # ---- results ---------------------------------------------------------------------------------

    def record(self, **fields):
        line = {"run": self.letter, "dry": self.dry, "part": self.part, "at": round(time.monotonic() - self.began, 1), **fields}
        self.results.write(json.dumps(line) + "\n")
        self.results.flush()
        os.fsync(self.results.fileno())

    def say(self, text):
        print(f"[{time.monotonic() - self.began:5.1f} s] {self.part}: {text}", flush=True)

    def fail(self, text, **fields):
        self.failed = True
        self.record(outcome="failed", reason=text, **fields)
        self.say(f"failed: {text}")

    def leave_out(self, text):
        self.record(outcome="left out", reason=text)
        self.say(f"left out: {text}")

    def begin(self, part, seconds, least=5):
        """A part of so many seconds at most; False where not even `least` are left, or others were asked for."""
        if self.args.only and not any(part.startswith(only) for only in [*self.args.only.split(","), "machine"]):
            return False
        self.part, seconds = part, self.patience * seconds
        left = self.until - time.monotonic()
        self.part_until = min(self.until, time.monotonic() + seconds)
        if left < least:
            self.leave_out(f"{left:.0f} s were left, it needs {least}")
            return False
        self.say(f"begins, {min(seconds, left):.0f} s at most")
        return True

    # ---- commands --------------------------------------------------------------------------------

    def lines(self, command, name, stdin=None):
        """The lines a command prints, as they come, with 0; then None and the exit code. At the part's end it is stopped: None
        and None.

        What it says on standard error goes to NAME.log in the results folder.
        """
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen([str(c) for c in command], stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                       env=self.environment, start_new_session=True, text=True, errors="replace")
            lines = queue.Queue()

            def read():
                for line in process.stdout:
                    lines.put(line.rstrip("\n"))
                lines.put(None)

            threading.Thread(target=read, daemon=True).start()
            try:
                while True:
                    try:
                        line = lines.get(timeout=max(0.0, self.part_until - time.monotonic()))
                    except queue.Empty:
                        yield None, None
                        return
                    if line is None:
                        yield None, process.wait()
                        return
                    yield line, 0
            finally:
                self.stop(process)

    @staticmethod
    def stop(process):
        """Ends a command and all it has started: first with a request, which lets a run write what it has."""
        for sign, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            if process.poll() is not None:
                return
            try:
                os.killpg(process.pid, sign)
                process.wait(patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass

    def last_words(self, name):
        """The end of what a command said on standard error."""
        said = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return said[-1][:300] if said else "it said nothing"

    def json_lines(self, command, name, **fields):
        """Records each line of JSON that a command prints; the lines. A line that has an `error` makes the run fail."""
        got = []
        for text, code in self.lines(command, name):
            if text is not None:
                try:
                    line = json.loads(text)
                except json.JSONDecodeError:
                    continue
                got.append(line)
                self.record(**fields, **line)
                if "error" in line:
                    self.failed = True
                    self.say(f"{line}")
            elif code is None:
                self.leave_out(f"the rest, after {len(got)} results: its time was over")
            elif code != 0 and not any("error" in line for line in got):
                self.fail(f"exit code {code}: {self.last_words(name)}")
        self.say(f"{len(got)} results")
        return got

    def binary(self, name):
        """The program of that name, unpacked if it is packed; None where there is none."""
        path, packed = HERE / "bin" / name, HERE / "bin" / f"{name}.gz"
        if path.is_file():
            return path
        if not packed.is_file():
            self.fail(f"{path} is not there; pack.sh puts it there")
            return None
        unpacked = pathlib.Path(self.unpacked.name) / name
        if not unpacked.exists():
            with gzip.open(packed) as source, open(unpacked, "wb") as target:
                shutil.copyfileobj(source, target)
            unpacked.chmod(0o755)
        return unpacked

    # ---- parts -----------------------------------------------------------------------------------

    def machine(self):
        """What this is: card, driver, library versions. False where there is no card and none is stood in for."""
        self.begin("machine", 30)
        torch = None
        if not self.dry:
            find = ("import importlib.util as u; s = u.find_spec('torch'); "
                    "print(s.submodule_search_locations[0] if s else '')")
            answer = subprocess.run([self.python, "-c", find], capture_output=True, text=True)
            torch = pathlib.Path(answer.stdout.strip()) if answer.returncode == 0 and answer.stdout.strip() else None
            if torch:
                # CUDA's libraries are looked for among PyTorch's own, if the loader knows no
                # others.
                self.environment.setdefault("CUDA_HOME", str(torch.parent / "nvidia"))
        metatape = self.binary("metatape")
        if metatape is None:
            return False
        info = subprocess.run([metatape, "info", "--json"], capture_output=True, text=True, env=self.environment)
        about = json.loads(info.stdout) if info.returncode == 0 else {}
        driver = "none"
        if shutil.which("nvidia-smi"):
            ask = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
            driver = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
        version = None
        if torch and (torch / "version.py").is_file():
            found = re.search(r"__version__ = ['\"]([^'\"]+)", (torch / "version.py").read_text())
            version = found and found[1]
        self.torch = version
        self.card = card = "a stand-in" if self.dry else (about.get("gpus") or [None])[0]
        self.record(card=card, driver=driver, torch=version, metatape=about.get("version"), threads=about.get("threads"))
        if not card:
            self.fail("metatape sees no GPU; `run.sh --dry` goes through the steps without one")
            return False
        self.say(f"{card}; driver {driver}; PyTorch {version}")
        if version:
            # The disk's cache is warm, and the driver initialised, before PyTorch is wanted.
            warm = "import torch, time; torch.zeros(1, device='cuda'); time.sleep(600)"
            self.warm = subprocess.Popen([self.python, "-c", warm], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                         start_new_session=True)
        return True

    def test(self, program, filter_, name=None):
        """A test program; a result for each of its tests, with the deviations that it prints."""
        path = self.binary(program)
        if path is None:
            return False
        ignored = [] if self.dry else ["--ignored"]
        command = [path, filter_, *ignored, "--nocapture", "--test-threads=1"]
        test, said, passed, asked = None, [], 0, None
        for text, code in self.lines(command, name or program):
            if text is None:
                if code is None:
                    self.leave_out(f"{program}: the tests after the {passed} that passed: its time was over")
                elif code != 0:
                    reason = f"exit code {code}: {self.last_words(name or program)}"
                    self.fail(reason, program=program, test=test, errors=said[-100:])
                    return False
                elif passed != asked:
                    self.fail(f"{passed} tests passed of {asked}", program=program)
                break
            if found := re.match(r"running (\d+) test", text):
                asked = int(found[1])
            if found := re.match(r"test (\S+)(?: - \S+)? \.\.\. ?(.*)", text):
                test, said, text = found[1], [], found[2]
            if text in ("ok", "FAILED") and test:
                errors = [s for s in said if re.search(r"error|limit|wrong", s)]
                self.record(program=program, test=test, outcome="passed" if text == "ok" else "failed", errors=errors[-400:])
                self.say(f"{program} {test}: {text}")
                passed += text == "ok"
                test = None
            elif text and test:
                said.append(text[:300])
        if passed == 0:
            self.fail(f"{program} has no test `{filter_}`")
        return passed > 0

    def correctness(self, seconds):
        """Every operation, every kernel, whole steps, in every precision."""
        if self.begin("correctness", seconds):
            for program, stand_in in TESTS.items():
                if time.monotonic() < self.part_until:
                    self.test(program, stand_in if self.dry else "card")
                else:
                    self.leave_out(program)

    def bench(self):
        """All models, precisions, graph on and off, in one process."""
        if self.begin("bench", 80):
            machine = ["--device", "cpu", "--models", "mlp,lenet", "--precisions", "f32"] if self.dry else [
                "--device", "cuda", "--models", MODELS, "--precisions", ",".join(PRECISIONS), "--graphs", "both"]
            self.json_lines([self.binary("metatape"), "bench", "--batch", "100", "--steps", "5" if self.dry else "20", *machine,
                             "--json-lines"], "bench")

    def ungated(self):
        """ResNet-32 once more, without launches whose blocks wait for each other."""
        if self.begin("ungated", 25):
            machine = ["--device", "cpu", "--models", "mlp", "--precisions", "f32"] if self.dry else [
                "--device", "cuda", "--models", "resnet32", "--precisions", "bf16,f32"]
            self.json_lines(["env", "METATAPE_NO_GATES=1", self.binary("metatape"), "bench", "--batch", "100", "--steps",
                             "5" if self.dry else "20", *machine, "--json-lines"], "ungated")

    def profile(self):
        if self.begin("profile", 50):
            machine = ["--device", "cpu", "--models", "mlp", "--precisions", "f32"] if self.dry else [
                "--device", "cuda", "--models", "resnet32,wrn28-10", "--precisions", "bf16,f32"]
            self.json_lines([self.binary("metatape"), "bench", "--batch", "100", "--steps", "5", *machine, "--profile", "--json-lines"],
                            "profile")

    def peer(self):
        """PyTorch: the official step eager and captured, its own jvp step captured."""
        runs = [run for run in TORCH if run not in self.torch_done()]
        if not runs or not self.begin("torch", 130, 10):
            return
        if self.dry:
            command = [sys.executable, HERE / "stand_in.py", "torch", *runs]
        elif self.torch:
            command = [self.python, HERE / "torch_meta.py", "--device", "cuda", "--batch", "100", "--steps", "10", "--json", "--fork",
                       "--runs", *runs]
        else:
            return self.leave_out(f"{self.python} has no PyTorch; name one that has it with --python")
        got = self.json_lines(command, "torch")
        missing = len(runs) - len(got)
        if missing:
            self.leave_out(f"{missing} runs, the last of {', '.join(runs[len(got):])}")

    def torch_done(self):
        """What PyTorch has run already on this card, by the results folder."""
        done, card = set(), None
        for text in (self.folder / "results.jsonl").read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            card = line.get("card", card)
            if line["part"] == "torch" and "ms" in line and card == self.card:
                mode, *graph = line["mode"].split("+")
                done.add(":".join([f"{line['model']}/{mode}", line["precision"], *graph]))
        return done

    def convolutions(self):
        """Ours, then cuDNN's beside them."""
        if not self.begin("convolutions", 150, 20):
            return
        file = self.folder / "convolutions.jsonl"
        if self.dry:
            command = [sys.executable, HERE / "stand_in.py", "convolutions"]
        else:
            command = [self.binary("cuda_convolutions")]
        if None in command:
            return
        lines = self.json_lines(command, "convolutions")
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.part = "cudnn"
        if self.dry:
            command = [sys.executable, HERE / "stand_in.py", "cudnn"]
        elif self.torch:
            command = [self.python, HERE / "cudnn_convolutions.py"]
        else:
            return self.leave_out(f"{self.python} has no PyTorch; name one that has it with --python")
        self.json_lines([*command, file], "cudnn")

    def methods(self):
        if self.begin("methods", 60, 15):
            # Each simulated method takes seconds, and the tests have gone through all of them.
            self.test(*QUICK if self.dry else ("methods", "card"))

    def train(self):
        if not self.begin("train", 40, 10):
            return
        machine = ["--device", "cpu", "--model", "mlp", "--epochs", "1"] if self.dry else [
            "--device", "cuda", "--model", "lenet", "--epochs", "2"]
        out = tempfile.mkdtemp(dir=self.folder)
        self.run_with_summary([self.binary("metatape"), "train", *machine, "--no-baseline", "--out", out, "--json"], "train",
                              ["final_test_accuracy"], lambda: self.times(out))
        shutil.rmtree(out, ignore_errors=True)

    @staticmethod
    def times(out):
        with open(pathlib.Path(out) / "times.json") as file:
            own = json.load(file)["methods"][0]
        return {"meta_steps_per_second": own["steps_per_second"], "seconds": own["seconds"]}

    @staticmethod
    def times_of_study(out):
        with open(out / "times.csv", newline="") as file:
            return {"ms_per_step": {row["method"]: float(row["ms_per_step"]) for row in csv.DictReader(file)}}

    def run_with_summary(self, command, name, fields, more=dict):
        """A command that prints one JSON text at its end: those fields of it, and what else there is then."""
        printed = []
        for text, code in self.lines(command, name):
            if text is not None:
                printed.append(text)
            elif code is None:
                self.leave_out(f"its time was over; it said last: {self.last_words(name)}")
            elif code != 0:
                self.fail(f"exit code {code}: {self.last_words(name)}")
            else:
                summary = json.loads("\n".join(printed))
                self.record(**{field: summary[field] for field in fields}, **more())
                shown = [f"{field} {summary[field]}" for field in fields if not isinstance(summary[field], list)]
                self.say(", ".join(shown) or "done")
                return summary
        return None

    def sanitizer(self):
        sanitizer = [sys.executable, HERE / "stand_in.py", "sanitizer"] if self.dry else ["compute-sanitizer"]
        for tool in ("memcheck", "racecheck", "initcheck"):
            if not self.begin(f"sanitizer {tool}", 100, 30):
                continue
            if not self.dry and not shutil.which("compute-sanitizer"):
                return self.leave_out("compute-sanitizer is not on the PATH")
            path = self.binary(QUICK[0] if self.dry else "cuda_steps")
            if path is None:
                return
            test = [QUICK[1]] if self.dry else ["card_one_small_step", "--ignored", "--exact"]
            # An error that cuBLAS meets and handles inside is none of ours.
            command = [*sanitizer, "--tool", tool, "--report-api-errors", "no", "--error-exitcode", "9", path, *test]
            for text, code in self.lines(command, f"sanitizer-{tool}"):
                if text is None and code is None:
                    self.leave_out("its time was over")
                elif text is None and code != 0:
                    self.fail(f"exit code {code}; see sanitizer-{tool}.log", tool=tool)
                elif text is None:
                    self.record(tool=tool, outcome="clean")
                    self.say("clean")
                else:
                    with open(self.folder / f"sanitizer-{tool}.log", "a", encoding="utf-8") as log:
                        log.write(text + "\n")
            if self.dry:
                return

    def cell(self):
        """The paper's cell flip2-40 on CIFAR-10: method and baseline, one seed."""
        out = self.folder / "paper-flip2-40"
        data = self.args.data and pathlib.Path(self.args.data).resolve()
        if not self.begin("data", 60):
            return
        if not self.dry and data is None:
            return self.fail("C needs CIFAR-10 as an image folder or an archive of one: --data DIR or --data FILE.tar.xz")
        if data and not data.exists():
            return self.fail(f"{data} is not there")
        if data and data.is_file():
            # It stays: a run that was cut goes on with the same folder.
            to = self.folder / "data"
            if not to.exists():
                partial = self.folder / "data.partial"
                partial.mkdir(exist_ok=True)
                subprocess.run(["tar", "-xf", data, "-C", partial], check=True)
                partial.rename(to)
                self.say(f"unpacked {self.args.data}")
            data = next((p.parent for p in sorted(to.glob("**/train"))), None)
            if data is None:
                return self.fail(f"{self.args.data} holds no folder `train`")
        if not self.begin("paper-flip2-40", LIMITS["C"]):
            return
        command = [self.binary("metatape"), "compare", "--preset", "paper-flip2-40", "--methods", "uniform,mwnet", "--seeds", "1",
                   "--out", out, "--json"]
        if data:
            command += ["--dataset", "folder", "--data-dir", data]
        if self.dry:
            command += ["--device", "cpu", "--model", "mlp", "--epochs", "2"] + ([] if data else ["--dataset", "fashion-mnist-mini"])
        else:
            command += ["--device", "cuda", "--precision", self.args.precision]
        if out.exists():
            command.append("--resume")
        summary = self.run_with_summary(command, "paper-flip2-40", ["departures", "methods"], lambda: self.times_of_study(out))
        if summary:
            for method in summary["methods"]:
                percent = ", ".join(f"{what} {method[key]}" for what, key in (("final", "final_mean"), ("best", "best_mean"), ("paper", "paper")))
                self.say(f"{method['name']}: {percent}")

    def everything(self):
        if not self.machine():
            return
        if self.letter == "C":
            return self.cell()
        self.correctness(100)
        if self.letter == "A":
            self.bench()
            self.ungated()
            self.profile()
            self.peer()
        else:
            self.convolutions()
            self.methods()
            self.train()
            self.sanitizer()

    def close(self):
        for process in [getattr(self, "warm", None)]:
            if process:
                self.stop(process)
        self.part = "end"
        self.record(outcome="failed" if self.failed else "passed")
        self.results.close()


def main():
    parser = argparse.ArgumentParser(prog="run.sh", description="""
        A (240 s): every operation and whole steps in every precision; times of all models; PyTorch beside.
        B (420 s): the same tests; convolutions beside cuDNN's; all methods; a training run; the sanitizer.
        C (300 s): the paper's cell flip2-40 on CIFAR-10, method and baseline, from an image folder.""")
    parser.add_argument("letter", choices=LIMITS, metavar="A|B|C")
    parser.add_argument("--out", default="gpu-results", help="the results folder; results.jsonl in it is appended to [default: gpu-results]")
    parser.add_argument("--dry", action="store_true", help="go through every step with stand-ins, on a machine without a card")
    parser.add_argument("--data", help="for C: CIFAR-10 as an image folder (train/<class>/*.jpg, test/…), or a tar archive of one")
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS, help="for C [default: bf16]")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="another limit than the letter's")
    parser.add_argument("--only", metavar="PART,…", help="these parts of it only, as they are called in its output: correctness, bench, profile, …")
    parser.add_argument("--python", help="the interpreter that has PyTorch [default: the one that runs this]")
    args = parser.parse_args()

    # A request to stop ends what runs, and the results stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kit = Kit(args)
    try:
        kit.everything()
    finally:
        kit.close()
        subprocess.run([sys.executable, HERE / "table.py", kit.folder / "results.jsonl"], check=False)
    sys.exit(1 if kit.failed else 0)


if __name__ == "__main__":
    main()

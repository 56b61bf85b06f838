#!/usr/bin/env python3
"""Abuses of the command `metatape`: wrong flags, damaged files, outputs that cannot be written, readers
that leave, kills at any moment, odd names. After each, what must hold is checked: no panic, abort or hang;
an error is one clear line that names the thing; nothing goes on silently to another result.

    tests/abuse/abuse.py --count 2000 --seed 1
    tests/abuse/abuse.py --only flags,files --count 200
    tests/abuse/abuse.py --seed 1 --case 137 --keep        # one of them again, its folder kept

Needs only Python's standard library. A case depends on the seed and its number alone.
"""

import argparse
import concurrent.futures
import csv
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

import makers

ROOT = Path(__file__).resolve().parents[2]
# A command on the data here takes less than a second where nothing else runs.
HANGS_AFTER = 60
COMMANDS = ["train", "evaluate", "predict", "compare", "hypergrad", "ablate", "bench", "kernels", "info"]
# No path of the system is among these: with --force, some commands replace what they are told to.
NASTY = [
    "", "-1", "-0", "0", "0.0", "1.5", "1e308", "-1e308", "1e-400", "nan", "NaN", "inf", "-inf", "1e9999", "9" * 30,
    "18446744073709551616", "0x10", "1,2,3", "3,2,1", ",", "1,,2", "a", "ä", "中", "\x07", "\x1b[31m", "a\nb", "%s", "a" * 5000,
    "no/such/place", "--", "-", "none", "uniform:", "uniform:2", "flip:-1", "flip2:nan", "mwnet.x=1", "gce.q=nan", "=", "gce.q=",
    "jvp:3", "neumann:0", "implicit-cg:-1", "cuda:99999999999999999999", "cuda:-1", "sm_0", "file.toml", "x.npy", "\udcff",
]
# What a run writes about time, and so differently every time.
TIMES = {"seconds", "steps_per_second", "meta_steps_per_second", "plain_steps_per_second"}


class Wrong(Exception):
    """What did not hold."""


class Case:
    """One abuse: its number, its chance, its folder, and how the command is called in it."""

    def __init__(self, stage, number, seed):
        self.stage, self.rng = stage, random.Random(f"{seed}/{number}")
        self.folder = stage.folder / f"case-{number}"
        self.log = []

    def run(self, *words, **how):
        """The command's end: exit code, standard output and error. Hanging is wrong."""
        words = [os.fsencode(str(word)) for word in words]
        self.log.append(b" ".join(words).decode(errors="replace"))
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        process = subprocess.Popen([self.stage.binary, *words], cwd=self.folder, **how)
        try:
            out, err = process.communicate(timeout=HANGS_AFTER)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Wrong(f"still at work after {HANGS_AFTER} s") from None
        return process.returncode, out or b"", (err or b"").decode(errors="replace")

    def check(self, ended, names=(), may_succeed=True):
        """That an end is a success, or an error that names one of the things."""
        code, _, err = ended
        self.log.append(f"exit {code}: {err.strip()[-600:]}")
        if code not in (0, 1, 2):
            raise Wrong(f"exit code {code}")
        if "panicked" in err or "RUST_BACKTRACE" in err or "overflow" in err:
            raise Wrong("a panic")
        if code == 0:
            if not may_succeed:
                raise Wrong("success, where there is none")
            return code
        complaints = [line for line in err.splitlines() if line.startswith("metatape: ") and "warning: " not in line]
        if not complaints:
            raise Wrong("an error without a sentence")
        if code == 2 and len(complaints) != 1:
            raise Wrong("a usage error of several sentences")
        if names and not any(name.lower() in err.lower() for name in names if name):
            raise Wrong(f"the error names none of {list(names)}")
        return code


# --- The kinds of abuse. -------------------------------------------------------------------------


def flags(case):
    """A subcommand with a flag, or two, of values that mean nothing."""
    rng, stage = case.rng, case.stage
    command = rng.choice(COMMANDS)
    words, names = [command], []
    for _ in range(rng.choice([1, 1, 2])):
        flag = rng.choice(stage.flags[command])
        if flag in ("--help", "--version"):
            flag = rng.choice(["--bath", "--" + flag[2:5]])
        value = rng.choice(NASTY)
        # What is right and large takes long, and is no abuse.
        words += rng.choice([[flag, value], [f"{flag}={value}"], [flag]])
        names += [flag.lstrip("-"), value.strip()]
    study, run = [*stage.small(rng), "--seeds", "1"], ["--run", stage.finished]
    small = {"train": stage.small(rng), "compare": [*study, "--methods", "mwnet,uniform"], "ablate": study, "evaluate": run,
             "predict": run, "hypergrad": ["--batch", "4", "--route", "jvp"], "bench": ["--steps", "1", "--batch", "2"]}
    # A flag may stand only once.
    given = [str(word).split("=")[0] for word in words]
    pairs = zip(small.get(command, [])[::2], small.get(command, [])[1::2])
    words += [word for pair in pairs if pair[0] not in given for word in pair]
    words += [stage.data / "folder/test"] if command == "predict" else []
    case.check(case.run(*words), [*names, "--", "<PATH>"])


def words(case):
    """Words of any kind, in any order."""
    rng, stage = case.rng, case.stage
    pool = COMMANDS[-2:] + NASTY + [flag for flags in stage.flags.values() for flag in flags]
    chosen = [rng.choice(pool) for _ in range(rng.randint(1, 6))]
    ended = case.run(*chosen)
    # `metatape --` is `metatape`: no command, so the help.
    if set(chosen) != {"--"} or ended[0] != 2 or "metatape train" not in ended[2]:
        case.check(ended)


def damage(path, rng):
    """Breaks a file in one of the ways in which files break; what was done."""
    content = bytearray(path.read_bytes())
    n = len(content)
    how = rng.choice(["flip", "flip", "cut", "zeroes", "header", "nan", "more", "empty", "folder", "pipe", "dangling", "loop", "endless"])
    at = rng.randrange(n) if n else 0
    if how == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del content[at:]
    elif how == "zeroes":
        content[at:at + 4096] = bytes(len(content[at:at + 4096]))
    elif how == "header":
        at = rng.randrange(min(n, 64))
        content[at:at + 8] = b"\xff" * len(content[at:at + 8])
    elif how == "nan":
        content[at - at % 4:at - at % 4 + 4] = rng.choice([b"\x00\x00\xc0\x7f", b"nan ", b"-inf"])
    elif how == "more":
        content += bytes(rng.randrange(256) for _ in range(rng.randint(1, 50)))
    elif how == "empty":
        content.clear()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "dangling":
        path.symlink_to("not here")
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "endless":
        # A terabyte of nothing, which takes no room on the disk and all of the memory.
        path.write_bytes(content)
        os.truncate(path, 1 << 40)
    else:
        path.write_bytes(content)
    return f"{how} at {at} of {n}"


# Data whose formats have checksums: damage is an error, or harms nothing.
CHECKED = (".png", ".npz", ".gz")


def files(case):
    """A damaged file of a data set of each kind. What the format can tell is told."""
    rng, stage = case.rng, case.stage
    kind = rng.choice(list(makers.KINDS))
    data = case.folder / "data"
    shutil.copytree(stage.data / kind, data)
    path = rng.choice(sorted(p for p in data.rglob("*") if p.is_file()))
    case.log.append(f"{path.relative_to(data)}: {damage(path, rng)}")
    ended = case.run("train", *stage.how(kind, data), "--out", "run", "--json")
    names = [path.name, path.parent.name, "test set", "training set"]
    code = case.check(ended, names)
    # An empty folder in an image's place leaves nothing out.
    if code == 0 and path.suffix in CHECKED and not path.is_dir():
        same = without_times(json.loads(ended[1])) == stage.results[kind]
        # An image that is left out is said, as is one that is no image any more.
        if not same and "passed over" not in ended[2]:
            raise Wrong("another result than of the undamaged data")


def run_files(case):
    """A damaged file of a finished run, a stopped one, or a study."""
    rng, stage = case.rng, case.stage
    which = rng.choice(["finished", "stopped", "study"])
    run = case.folder / "run"
    shutil.copytree(getattr(stage, which), run)
    read = {"finished": ["model.safetensors", "config.toml"], "stopped": ["checkpoint.safetensors", "config.toml"],
            "study": ["config.toml", *[str(p.relative_to(run)) for p in run.rglob("*.json")]]}[which]
    path = run / rng.choice([name for name in read if (run / name).is_file()])
    case.log.append(f"{which} {path.relative_to(run)}: {damage(path, rng)}")
    ended = {"finished": lambda: case.run("evaluate", "--run", run, "--json"),
             "stopped": lambda: case.run("train", "--out", run, "--resume", "--json"),
             "study": lambda: case.run("compare", "--out", run, "--resume", "--json")}[which]()
    code = case.check(ended, [path.name, path.stem, "--out", "--run", "config", "seed"])
    if code == 0 and without_times(json.loads(ended[1])) != getattr(stage, f"{which}_result"):
        raise Wrong("another result than of the undamaged run")


def outputs(case):
    """Outputs that are full, missing, in the way, or have no reader."""
    rng, stage = case.rng, case.stage
    how = rng.choice(["full", "gone", "closed", "limit", "taken", "parent"])
    commands = [["info"], ["train", *stage.small(rng), "--out", "run"], ["evaluate", "--run", stage.finished],
                ["predict", "--run", stage.finished, stage.data / "folder/test", "--csv", rng.choice(["-", "rows.csv"])],
                ["bench", "--plan"], ["hypergrad", "--batch", "4", "--route", "jvp", "--dump", "step.safetensors"]]
    words = rng.choice(commands) + rng.choice([[], ["--json"]])
    if "-" in words and "--json" in words:
        words.remove("--json")
    if how == "full":
        with open("/dev/full", "wb") as full:
            case.check(case.run(*words, **{rng.choice(["stdout", "stderr"]): full}), ["standard output"])
    elif how == "gone":
        reader, writer = os.pipe()
        os.close(reader)
        case.check(case.run(*words, **{rng.choice(["stdout", "stderr"]): writer}))
        os.close(writer)
    elif how == "closed":
        number = rng.choice([0, 1, 2])
        code, _, err = case.run(*words, preexec_fn=lambda: os.close(number))
        if code not in (0, 1, 2) or "panicked" in err:
            raise Wrong(f"exit code {code}: {err}")
    elif how == "limit":
        most = rng.choice([0, 10, 1000, 5000, 50_000])

        def limited():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        case.check(case.run(*words, preexec_fn=limited), ["write", "create"])
    elif how == "taken":
        (case.folder / "run").write_text("a file in the way")
        (case.folder / "step.safetensors").mkdir()
        (case.folder / "rows.csv").mkdir()
        case.check(case.run(*words), ["run", "step.safetensors", "rows.csv"])
    else:
        case.check(case.run(*[str(word).replace("rows.csv", "no/rows.csv").replace("step.", "no/step.") for word in words]), ["no"])


def kills(case):
    """A run that is killed at any moment, once or more often, and resumed: the bytes are those of one that
    never stopped."""
    rng, stage = case.rng, case.stage
    words = ["train", *stage.long, "--out", "run"]
    resumed, took = [], stage.long_took
    for _ in range(rng.randint(1, 3)):
        process = subprocess.Popen([stage.binary, *[str(word) for word in words + resumed]], cwd=case.folder,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * took)
        process.kill()
        process.wait()
        started = (case.folder / "run/config.toml").exists()
        resumed = ["--resume"] if started else []
        if (case.folder / "run").exists() and not started:
            shutil.rmtree(case.folder / "run")
    if (case.folder / "run/model.safetensors").exists():
        resumed = ["--resume"]
    case.check(case.run(*words, *resumed), may_succeed=True)
    same_bytes(case.folder / "run", stage.long_run)


def names(case):
    """Classes and files of odd names."""
    rng, stage = case.rng, case.stage
    odd = [b"\x07bell", b"\x1b[31mred", b"line\nbreak", "中国".encode(), "😀".encode(), b"\"quoted\"", b"<script>alert(1)</script>",
           b"&amp;", b"a,b;c", "עברית".encode(), "\u202eback".encode(), b"x" * 200, b"-dash", b"sp  ace ", b"\xff\xfe", b"...x",
           b"{{ title }}", b"]]>", b"'", b"\\", b"%d", b"$(id)", b"\t", b"=1+1", b"null", b"1e999"]
    classes = rng.sample(odd, 3)
    data = os.fsencode(case.folder / "data")
    for part in (b"train", b"test"):
        for i, name in enumerate(classes):
            folder = os.path.join(data, part, name)
            os.makedirs(folder)
            for j in range(6 if part == b"train" else 2):
                file = os.path.join(folder, rng.choice([b"", b"\n", b"\xfe", "é".encode()]) + f"{j}.png".encode())
                Path(os.fsdecode(file)).write_bytes(makers.png(6, 6, lambda x, y: 30 * i + 3 * x + y))
    if case.check(case.run("train", *makers.SMALL, "--dataset", "folder", "--data-dir", "data", "--out", "run", "--json")) != 0:
        return
    run = case.folder / "run"
    for path in run.rglob("*"):
        if path.suffix == ".svg":
            xml.etree.ElementTree.parse(path)
        elif path.suffix == ".csv":
            with open(path, newline="", encoding="utf-8") as file:
                if len({len(row) for row in csv.reader(file)}) != 1:
                    raise Wrong(f"{path.name} has rows of different lengths")
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".html" and re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|<script>alert", path.read_text(encoding="utf-8")):
            raise Wrong(f"{path.name} holds what a page must not")
        elif path.suffix == ".png" and path.read_bytes()[:4] != b"\x89PNG":
            raise Wrong(f"{path.name} is no picture")
    case.check(case.run("evaluate", "--run", "run"), may_succeed=True)
    case.check(case.run("predict", "--run", "run", "data/test", "--csv", "-"), may_succeed=True)


def contents(case):
    """Whole files with content that makes no sense."""
    rng, stage = case.rng, case.stage
    name, words, parts = rng.choice(makers.NONSENSE)(rng, case.folder)
    case.log.append(name)
    case.check(case.run("train", *makers.SMALL, *words, "--out", "run"), parts, may_succeed=False)


def surroundings(case):
    """A place without what one is used to."""
    rng = case.rng
    environment = rng.choice([{}, {"HOME": "/nowhere"}, {"TMPDIR": "/nowhere"}, {"LANG": "xx_YY"}, {"TERM": ""}, {"COLUMNS": "0"},
                              {"CUDA_HOME": "/nowhere"}, {"RAYON_NUM_THREADS": "0"}, {"RUST_LOG": "trace"}, {"NO_COLOR": "1"}])
    words = rng.choice([["info"], ["bench", "--plan"], ["train", *case.stage.small(rng), "--out", "run"]])
    lost = case.folder / "lost"
    lost.mkdir()

    def leave():
        os.chdir(lost)
        if rng.random() < 0.3:
            os.rmdir(lost)

    case.check(case.run(*words, env=environment, preexec_fn=leave))


def others(case):
    """Files of somebody else where a command writes: they are as before, or it does not begin."""
    rng, stage = case.rng, case.stage
    study = ["--seeds", "1", *stage.small(rng), "--out", "run"]
    words = rng.choice([["train", *stage.small(rng), "--out", "run"], ["compare", "--methods", "uniform,mwnet", *study],
                        ["ablate", "--variants", "every-3", *study]])
    theirs = rng.choice(["accuracy.png", "epochs.csv", "names.json", "cosines.csv", "summary.json", "report.html", "notes.txt",
                         "metrics.csv", "model.safetensors", "checkpoint.safetensors", "times.json", "config.toml", "cells",
                         "tensorboard", "confusion.svg", "compare.csv", "differences.csv"])
    run = case.folder / "run"
    makers.put(run / theirs, "somebody's")
    case.check(case.run(*words), [theirs, "--out"])
    if (run / theirs).read_bytes() != b"somebody's":
        raise Wrong(f"{theirs} of somebody else is lost")


def changed(case):
    """Data that are not the same any more when a run goes on: refused by name. Those that have moved are the same."""
    rng, stage = case.rng, case.stage
    shutil.copytree(stage.stopped, case.folder / "run")
    data = case.folder / "data"
    shutil.copytree(stage.data / "csv", data)
    path = data / rng.choice(["train.csv", "test.csv"])
    rows = path.read_text().splitlines()
    at, other = rng.sample(range(1, len(rows)), 2)
    how = rng.choice(["moved", "fewer", "more", "label", "number", "order", "column"])
    if how == "fewer":
        del rows[at]
    elif how == "more":
        rows.append(rows[at])
    elif how == "label":
        rows[at] = rows[at][:-1] + rng.choice("abc".replace(rows[at][-1], ""))
    elif how == "number":
        rows[at] = "7" + rows[at]
    elif how == "order":
        rows[at], rows[other] = rows[other], rows[at]
    elif how == "column":
        rows[0] = rows[0].replace("one", "uno")
    path.write_text("\n".join([*rows, ""]))
    case.log.append(f"{path.name}: {how}")
    same = path.read_text() == (stage.data / "csv" / path.name).read_text()
    ended = case.run("train", "--out", "run", "--resume", "--data-dir", "data", "--json")
    code = case.check(ended, ["changed", "data", "column"], may_succeed=same)
    if same and (code != 0 or without_times(json.loads(ended[1])) != stage.stopped_result):
        raise Wrong("another result of the same data in another place")


def signals(case):
    """Ctrl-C or SIGTERM at any moment: the exit code says so, the last line how to go on, and that leads to the
    same bytes."""
    rng, stage = case.rng, case.stage
    run, number = case.folder / "run", rng.choice([signal.SIGINT, signal.SIGTERM])
    words, resumed = [str(word) for word in ["train", *stage.long, "--out", run]], []
    for _ in range(rng.randint(1, 2)):
        process = subprocess.Popen([stage.binary, *words, *resumed], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and not (run / "config.toml").exists():
            time.sleep(0.001)
        wait = rng.random() * stage.long_took
        time.sleep(wait)
        process.send_signal(number)
        err = process.communicate(timeout=HANGS_AFTER)[1].decode()
        case.log.append(f"exit {process.returncode}: {err[-300:]}")
        if process.returncode == 0:
            break
        # A continued run is not waited for: it may not have begun when the signal comes.
        if resumed and process.returncode == -number and not err and wait < 0.3:
            break
        if process.returncode != 128 + number or "--resume --out" not in err:
            raise Wrong(f"exit code {process.returncode} after {number.name}")
        resumed = ["--resume"]
    case.check(case.run("train", "--out", run, "--resume"), may_succeed=True)
    same_bytes(run, stage.long_run)


def memory(case):
    """Little memory: what there is none for is an error that says so."""
    rng = case.rng
    most = rng.randint(48, 600) << 20
    case.log.append(f"{most >> 20} MiB")

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    kind, bomb = rng.choice([(kind, None) for kind in makers.KINDS] + [(name.split("/")[0], name) for name in case.stage.bombs])
    if bomb:
        most = min(most, 400 << 20)
        shutil.copytree(case.stage.data / kind, case.folder / "data")
        (case.folder / "data" / Path(bomb).name).write_bytes(case.stage.bombs[bomb])
        words = ["train", *case.stage.how(kind, "data"), "--out", "run"]
        case.check(case.run(*words, preexec_fn=limited), [Path(bomb).name], may_succeed=False)
        return
    words = rng.choice([["train", *case.stage.how(kind, case.stage.data / kind), "--out", "run"], ["evaluate", "--run", case.stage.finished],
                        ["predict", "--run", case.stage.finished, case.stage.data / "folder/test"],
                        ["bench", "--steps", "1", "--batch", rng.choice(["2", "2000", "200000"]), "--model", rng.choice(["mlp", "lenet"])]])
    case.check(case.run(*words, preexec_fn=limited), ["memory", "threads"])


def pipes(case):
    """A pipe that nobody writes to, under the name of every file that a flag may name."""
    rng, stage = case.rng, case.stage
    table = ["train", *stage.how("csv", stage.data / "csv"), "--out", "run"]
    name, words = rng.choice([
        ("net.toml", [*("net.toml" if word == "mlp" else word for word in table)]), ("first.safetensors", [*table, "--init", "first.safetensors"]),
        ("labels.txt", [*table, "--train-labels", "labels.txt"]), ("labels.npy", [*table, "--train-labels", "labels.npy"]),
        ("meta/meta.csv", [*table, "--meta-dir", "meta"]), ("rates.toml", ["bench", "--plan", "--rates", "rates.toml"]),
        ("one.cu", ["kernels", "--arch", "sm_80", "--out", "kernels", "one.cu"]), ("net.toml", ["info", "--model", "net.toml"]),
        ("x.png", ["predict", "--run", stage.finished, "x.png"]), ("rows.csv", ["predict", "--run", stage.finished, "x", "--csv", "rows.csv", "--force"]),
        ("step.safetensors", ["hypergrad", "--batch", "4", "--dump", "step.safetensors", "--force"]),
    ])
    (case.folder / name).parent.mkdir(exist_ok=True)
    os.mkfifo(case.folder / name)
    case.check(case.run(*words), [Path(name).name, *(["NVRTC"] if "kernels" in words else [])], may_succeed=False)
    if not (case.folder / name).is_fifo():
        raise Wrong(f"{name} is no pipe any more")


def left_out(case):
    """Files that are not read are counted, and said."""
    rng, stage = case.rng, case.stage
    data = case.folder / "data"
    shutil.copytree(stage.data / "folder", data)
    ending, count = rng.choice(["heic", "mov", "txt", "avif", "psd"]), rng.randint(1, 30)
    place = rng.choice(["train/a", "test/b", "train/a/deeper", "train"])
    for i in range(count):
        makers.put(data / place / f"{i}.{ending}", "x")
    ended = case.run("train", *stage.how("folder", data), "--out", "run", "--json")
    case.check(ended, may_succeed=True)
    if f"{count} .{ending}" not in ended[2]:
        raise Wrong(f"{count} files {place}/*.{ending} were left out without a word")


KINDS = {flags: 6, words: 2, files: 8, run_files: 4, outputs: 3, kills: 2, names: 2, contents: 4, surroundings: 1, others: 2,
         changed: 2, signals: 1, memory: 2, pipes: 1, left_out: 1}

# --- What the cases share. -----------------------------------------------------------------------


def without_times(value):
    """JSON without what tells of time or place."""
    if isinstance(value, dict):
        gone = TIMES | {"out", "path", "data", "config", "files", "run"}
        return {key: without_times(item) for key, item in value.items() if key not in gone}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def comparable(path):
    """A file's bytes, or a table's rows without the columns that tell of time."""
    if path.name == "summary.json":
        return without_times(json.loads(path.read_bytes()))
    if path.suffix != ".csv":
        return path.read_bytes()
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def same_bytes(run, other):
    """That two runs have left the same in every file but the one that is about time, and the two that tell of it."""
    names = [{path.name for path in folder.iterdir()} for folder in (run, other)]
    if names[0] != names[1]:
        raise Wrong(f"not the same files: {names[0] ^ names[1]}")
    for name in sorted(names[0] - {"times.json", "report.html"}):
        ours, theirs = (comparable(folder / name) for folder in (run, other))
        if ours != theirs:
            raise Wrong(f"{name} is another than of a run that was left alone")


class Stage:
    """Data, runs and studies that are whole, once for all cases."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.data = binary, folder, folder / "data"
        self.flags = {command: re.findall(r"^ +(?:-\w, )?(--[\w-]+)", self.call(command, "--help").decode(), re.M) for command in COMMANDS}
        makers.make_all(self.data)
        self.bombs = makers.bombs()
        self.results = {}
        for kind in makers.KINDS:
            out = self.call("train", *self.how(kind, self.data / kind), "--out", folder / f"run-{kind}", "--json")
            self.results[kind] = without_times(json.loads(out))
        self.finished = folder / "run-folder"
        self.finished_result = without_times(json.loads(self.call("evaluate", "--run", self.finished, "--json")))
        self.long = [*makers.SMALL[:-2], "--epochs", "12", "--dataset", "csv", "--data-dir", self.data / "csv"]
        self.long_run, start = folder / "run-long", time.monotonic()
        out = self.call("train", *self.long, "--out", self.long_run, "--json")
        self.stopped_result, self.long_took = without_times(json.loads(out)), time.monotonic() - start
        self.stopped = self.stop(folder / "run-stopped")
        self.study, how = folder / "study", [*makers.SMALL, "--dataset", "csv", "--data-dir", self.data / "csv"]
        self.call("compare", *how, "--methods", "uniform,mwnet", "--seeds", "2", "--out", self.study)
        self.study_result = without_times(json.loads(self.call("compare", "--out", self.study, "--resume", "--json")))

    def call(self, *words):
        words = [str(word) for word in words]
        done = subprocess.run([self.binary, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)} does not work at all: {done.stderr.decode()}")
        return done.stdout

    def stop(self, out):
        """A run that was killed behind its first checkpoint."""
        words = [str(word) for word in ["train", *self.long, "--out", out]]
        while True:
            process = subprocess.Popen([self.binary, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and not (out / "checkpoint.safetensors").exists():
                time.sleep(0.001)
            process.kill()
            process.wait()
            if not (out / "model.safetensors").exists():
                return out
            shutil.rmtree(out)

    def how(self, kind, data):
        return [*makers.SMALL, "--dataset", makers.KINDS[kind], "--data-dir", data]

    def small(self, rng):
        kind = rng.choice(["folder", "csv"])
        return self.how(kind, self.data / kind)


def try_one(stage, number, seed, kinds, keep):
    """Whether a case holds; what it did, otherwise."""
    case = Case(stage, number, seed)
    kind = case.rng.choices(list(kinds), list(kinds.values()))[0]
    case.folder.mkdir()
    try:
        kind(case)
        return number, kind.__name__, None
    except Exception as wrong:  # A check that cannot be made has failed.
        what = str(wrong) if isinstance(wrong, Wrong) else repr(wrong)
        return number, kind.__name__, "\n    ".join([what, *case.log])
    finally:
        if not keep:
            shutil.rmtree(case.folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/metatape")
    parser.add_argument("--count", type=int, default=2000, help="how many [2000]")
    parser.add_argument("--seconds", type=float, help="no further ones after this time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="only the one of this number")
    parser.add_argument("--only", help="kinds, separated by commas: " + ", ".join(kind.__name__ for kind in KINDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true", help="leave all folders, and say where")
    args = parser.parse_args()
    only = args.only.split(",") if args.only else [kind.__name__ for kind in KINDS]
    kinds = {kind: weight for kind, weight in KINDS.items() if kind.__name__ in only}
    folder, start, found, tried = Path(tempfile.mkdtemp(prefix="abuse-")), time.monotonic(), [], {}
    try:
        stage = Stage(args.binary.resolve(), folder)
        numbers = [args.case] if args.case is not None else range(args.count)
        late = lambda: args.seconds is not None and time.monotonic() - start > args.seconds
        one = lambda number: None if late() else try_one(stage, number, args.seed, kinds, args.keep)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for result in filter(None, pool.map(one, numbers)):
                number, kind, wrong = result
                tried[kind] = tried.get(kind, 0) + 1
                if wrong:
                    found.append(number)
                    print(f"case {number} ({kind}): {wrong}", flush=True)
    finally:
        print(f"kept: {folder}") if args.keep else shutil.rmtree(folder, ignore_errors=True)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(tried.items()))
    print(f"{sum(tried.values())} abuses in {time.monotonic() - start:.0f} s ({kinds}): {len(found)} went wrong")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

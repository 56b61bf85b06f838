//! The fuzz targets on the stable compiler, without libFuzzer's eyes: each corpus, and what becomes
//! of it by random damage, for a few seconds. `METATAPE_FUZZ_SECONDS` is for each target;
//! `METATAPE_FUZZ_SEED` decides the damage. A finding is kept in `target/fuzz-findings`.

#![allow(clippy::print_stdout)]
#![cfg(unix)]

#[path = "fuzz/targets.rs"]
mod targets;

use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use targets::{TAKEN, TARGETS, Target, of_runs};

/// Longer inputs take time, and find nothing more.
const LONGEST: usize = 1 << 17;

/// What formats and parsers are touchy about.
const WORDS: [&[u8]; 24] = [
    b"\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\0\0\xc0\x7f",
    b"\n",
    b"\r\n",
    b"\"",
    b"\0",
    b",",
    b"../",
    b"-1",
    b"1e308",
    b"nan",
    b"inf",
    b"99999999999999999999",
    b"True",
    b"'shape': (",
    b"[[layers]]\n",
    b"=",
    b"label",
    b"--lr",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x98\x80",
    b"{}",
];

fn damaged(seeds: &[Vec<u8>], rng: &mut Pcg64) -> Vec<u8> {
    let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..1 << rng.random_range(0..5) {
        let at = rng.random_range(0..=bytes.len());
        let end = (at + rng.random_range(1..32)).min(bytes.len());
        match rng.random_range(0..9) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 if at < bytes.len() => bytes[at] = rng.random(),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            6 => drop(bytes.splice(at..at, WORDS[rng.random_range(0..WORDS.len())].iter().copied())),
            7 => {
                let word = WORDS[rng.random_range(0..WORDS.len())];
                let end = (at + word.len()).min(bytes.len());
                bytes.splice(at..end, word.iter().copied());
            }
            _ => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                let from = rng.random_range(0..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn hold((name, target): (&str, Target), seeds: &[Vec<u8>], seconds: u64, seed: u64) {
    let findings = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz-findings");
    let run = |bytes: &[u8]| {
        if catch_unwind(|| target(bytes)).is_err() {
            fs::create_dir_all(&findings).unwrap();
            let kept = findings.join(format!("{name}-{seed}"));
            fs::write(&kept, bytes).unwrap();
            panic!("{name}: a panic; the input is {}", kept.display());
        }
    };
    TAKEN.set(0);
    seeds.iter().for_each(|bytes| run(bytes));
    // Where nothing whole is damaged, only the reader's first lines are tried.
    assert!(TAKEN.get() > 0, "{name}: every seed is refused; write them anew");
    let (mut rng, start, mut runs) = (Pcg64::seed_from_u64(seed), Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        run(&damaged(seeds, &mut rng));
        runs += 1;
    }
    println!("{name}: {} seeds, {runs} inputs made of them", seeds.len());
}

#[test]
fn no_input_makes_a_reader_panic() {
    let (seconds, seed) = (number("METATAPE_FUZZ_SECONDS", 2), number("METATAPE_FUZZ_SEED", 1));
    let only = env::var("METATAPE_FUZZ_ONLY").ok();
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let [checkpoint, network] = of_runs();
    for (name, target) in TARGETS.into_iter().filter(|target| only.as_ref().is_none_or(|o| o == target.0)) {
        let mut files: Vec<_> = fs::read_dir(corpora.join(name))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let mut seeds: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
        match name {
            "checkpoint" => seeds.push(checkpoint.clone()),
            "network" => seeds.push(network.clone()),
            _ => {}
        }
        assert!(!seeds.is_empty(), "{name} has no corpus");
        hold((name, target), &seeds, seconds, seed);
    }
}

/// The runner sees a panic, and keeps its input.
#[test]
#[should_panic(expected = "no target: a panic")]
fn a_panic_is_a_finding() {
    let target = |bytes: &[u8]| {
        TAKEN.set(1);
        assert!(bytes.len() != 3);
    };
    hold(("no target", target), &[vec![1, 2, 3, 4, 5, 6]], 5, 1);
}

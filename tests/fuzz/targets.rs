//! What is fuzzed: every reader of what others wrote, each a function of bytes. They must come
//! back, with an error or without one: a panic is a finding.
//!
//! The targets in `fuzz_targets/` hand them to libFuzzer; `tests/fuzzing.rs` runs them on the
//! stable compiler.
//!
//! Where files end with a checksum, random damage would be all that is ever tried. So the targets
//! put the right one in: what is behind it is reached, too.
#![allow(dead_code)] // each target uses its part

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches};
use metatape::backend::cpu::Cpu;
use metatape::data::{DatasetKind, Loose, Reading};
use metatape::meta::schemes::Set;
use metatape::models::ModelFile;
use metatape::nn::Summary;
use metatape::program::Session;
use metatape::tape::Shape;
use metatape::train::study::{Plan, Study};
use metatape::train::{
    Comparison, Config, EpochRow, Finished, Method, Observer, Predictor, Run, StepReport, Then, setting,
};

pub type Target = fn(&[u8]);

/// By name, as their corpora and libFuzzer's targets are called.
pub const TARGETS: [(&str, Target); 16] = [
    ("idx", idx),
    ("cifar", cifar),
    ("npy", npy),
    ("npz", npz),
    ("safetensors", safetensors),
    ("table", table),
    ("image", image),
    ("names", names),
    ("metadata", metadata),
    ("labels", labels),
    ("layers", layers),
    ("network", network),
    ("config", config),
    ("checkpoint", checkpoint),
    ("cell", cell),
    ("flags", flags),
];

thread_local! {
    /// How often a reader of this thread has taken what it was given.
    pub static TAKEN: Cell<u64> = const { Cell::new(0) };
}

fn taken<T, E>(read: Result<T, E>) -> Option<T> {
    TAKEN.set(TAKEN.get() + u64::from(read.is_ok()));
    read.ok()
}

/// A folder of this thread's own, with `name` in it anew.
fn folder(name: &str) -> PathBuf {
    thread_local! {
        static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
    }
    let memory = Path::new("/dev/shm");
    let made = || if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = FOLDER.with(|folder| folder.get_or_init(|| made().unwrap()).path().join(name));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn put(folder: &Path, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    // A name that the system refuses is no case.
    if path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok()) {
        let _ = fs::write(path, bytes);
    }
}

fn read(kind: DatasetKind, dir: &Path) {
    taken(Reading { kind, dir: Some(dir.to_path_buf()), ..Reading::default() }.load());
}

/// An IDX file of these dimensions.
fn idx_file(dims: &[u32], content: &[u8]) -> Vec<u8> {
    let magic = 0x0800 + dims.len() as u32;
    [magic].iter().chain(dims).flat_map(|n| n.to_be_bytes()).chain(content.iter().copied()).collect()
}

/// The first byte says which of the files these are, and whether packed.
pub fn idx(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let dir = folder("idx");
    let labels: Vec<u8> = (0..10).collect();
    for part in ["train", "t10k"] {
        put(&dir, format!("{part}-images-idx3-ubyte"), idx_file(&[10, 2, 2], &[7; 40]));
        put(&dir, format!("{part}-labels-idx1-ubyte"), idx_file(&[10], &labels));
    }
    let name =
        ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"][*which as usize % 3];
    if which & 4 == 0 {
        put(&dir, name, bytes);
    } else {
        fs::remove_file(dir.join(name)).unwrap();
        put(&dir, format!("{name}.gz"), bytes);
    }
    read(DatasetKind::Mnist, &dir);
}

pub fn cifar(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let dir = folder("cifar");
    let whole: Vec<u8> = (0..10u8).flat_map(|label| [label].into_iter().chain([label; 3072])).collect();
    for i in 1..6 {
        put(&dir, format!("data_batch_{i}.bin"), &whole);
    }
    put(&dir, "test_batch.bin", &whole);
    put(&dir, ["data_batch_1.bin", "batches.meta.txt", "test_batch.bin"][*which as usize % 3], bytes);
    read(DatasetKind::Cifar10, &dir);
}

/// A `.npy` file of a kind.
fn array(kind: &str, shape: &str, content: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    header += &" ".repeat(63 - (header.len() + 10) % 64);
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), content].concat()
}

pub fn npy(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let dir = folder("npy");
    let labels: Vec<u8> = [0i64, 1].iter().flat_map(|l| l.to_le_bytes()).collect();
    for part in ["train", "test"] {
        put(&dir, format!("{part}_x.npy"), array("<f4", "2, 2", &[0; 16]));
        put(&dir, format!("{part}_y.npy"), array("<i8", "2,", &labels));
    }
    put(&dir, ["train_x.npy", "train_y.npy"][*which as usize % 2], bytes);
    read(DatasetKind::Arrays, &dir);
    let loose = Loose {
        shape: [2].into(),
        image_size: None,
        label_column: "label".into(),
        columns: vec!["a".into(), "b".into()],
        threads: None,
    };
    let _ = loose.read(&[dir.join("train_x.npy")], &mut Vec::new());
}

pub fn npz(bytes: &[u8]) {
    let dir = folder("npz");
    put(&dir, "train.npz", bytes);
    put(&dir, "test.npz", bytes);
    read(DatasetKind::Arrays, &dir);
}

pub fn safetensors(bytes: &[u8]) {
    let dir = folder("safetensors");
    put(&dir, "train.safetensors", bytes);
    put(&dir, "test.safetensors", bytes);
    read(DatasetKind::Arrays, &dir);
}

pub fn table(bytes: &[u8]) {
    let dir = folder("table");
    put(&dir, "train.csv", bytes);
    put(&dir, "test.csv", bytes);
    read(DatasetKind::Csv, &dir);
}

fn grey(side: u32) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(side, side).write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

pub fn image(bytes: &[u8]) {
    let dir = folder("image");
    put(&dir, "train/a/0.png", bytes);
    put(&dir, "train/b/1.png", grey(6));
    put(&dir, "test/a/1.png", grey(6));
    let reading = Reading { kind: DatasetKind::Folder, dir: Some(dir), ..Reading::default() };
    taken(reading.load());
    let _ = Reading { image_size: Some(5), skip_unreadable: true, ..reading }.load();
}

/// Names of files, one a line, with `/` between those of folders.
pub fn names(bytes: &[u8]) {
    let dir = folder("names");
    for name in bytes.split(|byte| *byte == b'\n').take(20) {
        let plain: PathBuf = Path::new(OsStr::from_bytes(name))
            .components()
            .filter(|c| matches!(c, std::path::Component::Normal(_)))
            .collect();
        put(&dir, plain, grey(6));
    }
    let reading =
        Reading { kind: DatasetKind::Folder, dir: Some(dir), test_size: Some(2), ..Reading::default() };
    if let Some(data) = taken(reading.load()) {
        let names = data.class_names.iter().chain(&data.names);
        assert!(names.flat_map(|name| name.chars()).all(|c| !c.is_control()), "a name that is no line");
    }
}

pub fn metadata(bytes: &[u8]) {
    let dir = folder("metadata");
    for i in 0..4 {
        put(&dir, format!("{i}.png"), grey(6));
    }
    put(&dir, "metadata.csv", bytes);
    read(DatasetKind::Folder, &dir);
}

/// The first byte says of which kind the file is.
pub fn labels(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let dir = folder("labels");
    put(&dir, "train.csv", "a,label\n1,x\n2,y\n3,x\n");
    put(&dir, "test.csv", "a,label\n1,x\n2,y\n");
    let ending = ["txt", "csv", "npy", "safetensors"][*which as usize % 4];
    put(&dir, format!("labels.{ending}"), bytes);
    let labels = Some(dir.join(format!("labels.{ending}")));
    let reading =
        Reading { kind: DatasetKind::Csv, dir: Some(dir), train_labels: labels, ..Reading::default() };
    taken(reading.load());
}

/// A network's file of layers.
pub fn layers(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(file) = taken(ModelFile::parse("fuzzed.toml", text)) {
        let net = file.network(3);
        for shape in [Shape::from([12, 12, 3]), [4].into()] {
            let _ = Summary::of(net.as_ref(), &shape);
        }
    }
}

/// A text as its reader wants it: with its checksum.
fn sealed(text: &[u8], [before, after]: [&str; 2]) -> Vec<u8> {
    format!("{}{before}{:08x}{after}", String::from_utf8_lossy(text), crc32c::crc32c(text)).into_bytes()
}

fn sealed_toml(text: &[u8]) -> Vec<u8> {
    sealed(text, ["# crc32c: ", "\n"])
}

/// An object, whose last field the checksum is.
fn sealed_json(text: &[u8]) -> Vec<u8> {
    let text = text.trim_ascii_end();
    sealed(text.strip_suffix(b"}").unwrap_or(text).trim_ascii_end(), [",\n  \"crc32c\": \"", "\"\n}\n"])
}

/// A file of tensors with the checksum of what it has become, if it has a place for one.
fn sealed_tensors(mut file: Vec<u8>) -> Vec<u8> {
    const FIELD: &[u8] = b"\"crc32c\":\"";
    if let Some(at) = file.windows(FIELD.len()).position(|part| part == FIELD).map(|at| at + FIELD.len())
        && at + 8 <= file.len()
    {
        file[at..at + 8].copy_from_slice(b"00000000");
        let sum = format!("{:08x}", crc32c::crc32c(&file));
        file[at..at + 8].copy_from_slice(sum.as_bytes());
    }
    file
}

/// What the bytes stand for: a file of tensors; or, if they are a JSON object, that in the place of
/// the field `field` of `whole`'s metadata.
fn tensors(bytes: &[u8], whole: &[u8], field: &str) -> Vec<u8> {
    if bytes.first() != Some(&b'{') {
        return sealed_tensors(bytes.to_vec());
    }
    let (length, rest) = whole.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    header["__metadata__"][field] = String::from_utf8_lossy(bytes).into();
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    sealed_tensors([&(header.len() as u64).to_le_bytes()[..], &header, data].concat())
}

/// Asks a run to stop behind its next steps.
struct Steps(usize);

impl Observer for Steps {
    fn begin(&mut self, _: &Run, _: usize) {}
    fn step(&mut self, _: Method, _: usize, _: StepReport) {}
    fn epoch(&mut self, _: &EpochRow) {}
    fn then(&mut self) -> Then {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 0 { Then::Stop } else { Then::GoOn }
    }
}

fn session() -> metatape::Result<Session> {
    Ok(Session::new(Box::new(Cpu::<f32>::new(1)?)))
}

/// A run of two epochs on a little table.
fn little_run() -> Config {
    Config {
        dataset: DatasetKind::Csv,
        data_dir: Some(little_data()),
        noise: metatape::data::Noise::None,
        baseline: false,
        batch: 4,
        epochs: 2,
        milestones: Vec::new(),
        ..Config::default()
    }
}

fn little_data() -> PathBuf {
    let data = folder("data");
    let rows: String = (0..24).map(|i| format!("{},{},{}\n", i % 5, i % 7, i % 2)).collect();
    for part in ["train", "test"] {
        put(&data, format!("{part}.csv"), format!("a,b,label\n{rows}"));
    }
    data
}

/// Files of runs, as seeds: the checkpoint of a stopped one, the network of a finished one.
pub fn of_runs() -> [Vec<u8>; 2] {
    let out = folder("whole");
    let mut run = Run::start(little_run(), &out, &session).unwrap();
    assert!(run.train(&mut Steps(8)).is_err(), "it was to stop");
    let checkpoint = fs::read(out.join("checkpoint.safetensors")).unwrap();
    run.train(&mut ()).unwrap();
    [checkpoint, fs::read(out.join("model.safetensors")).unwrap()]
}

/// The folders of a stopped run and a finished one, the seeds, and a study.
struct Whole {
    stopped: PathBuf,
    finished: PathBuf,
    checkpoint: Vec<u8>,
    network: Vec<u8>,
    study: Study<Method>,
}

/// Made once.
fn whole<T>(use_it: impl FnOnce(&Whole) -> T) -> T {
    thread_local! {
        static WHOLE: RefCell<Option<Whole>> = const { RefCell::new(None) };
    }
    WHOLE.with_borrow_mut(|kept| {
        use_it(kept.get_or_insert_with(|| {
            let [checkpoint, network] = of_runs();
            let [stopped, finished] = ["stopped", "finished"].map(|name| {
                let out = folder(name);
                drop(Run::start(little_run(), &out, &session).unwrap());
                out
            });
            let config = Config { epochs: 1, ..little_run() };
            let plan = Plan { arms: vec![Method::MwNet], seeds: vec![1], preset: None, config };
            let study = Study::start(plan, &folder("study")).unwrap();
            Whole { stopped, finished, checkpoint, network, study }
        }))
    })
}

/// The network of a finished run: the file, or what stands beside its tensors.
pub fn network(bytes: &[u8]) {
    whole(|whole| {
        put(&whole.finished, "model.safetensors", tensors(bytes, &whole.network, "metatape"));
        if let Some(finished) = taken(Finished::read(&whole.finished))
            && finished
                .file
                .input()
                .iter()
                .try_fold(1, |all: usize, n| all.checked_mul(*n))
                .is_some_and(|n| n < 4096)
            && let Ok(mut predictor) = session().and_then(|session| Predictor::new(&finished, session))
            && let Ok((data, labelled)) = finished.own(Set::Test)
        {
            let _ = predictor.see(&data, &labelled);
        }
    });
}

/// A run's configuration.
pub fn config(bytes: &[u8]) {
    whole(|whole| {
        let dir = folder("config");
        put(&dir, "config.toml", sealed_toml(bytes));
        put(&dir, "model.safetensors", &whole.network);
        let (_, stored) = (Finished::read(&dir), Run::stored_config(&dir));
        if let Some(config) = taken(stored) {
            let _ = (config.check(), config.network(3).is_ok(), config.lr_at(config.method, 3));
        }
    });
}

/// A checkpoint: the file, or what stands beside its tensors. The run goes on from it.
pub fn checkpoint(bytes: &[u8]) {
    whole(|whole| {
        put(&whole.stopped, "checkpoint.safetensors", tensors(bytes, &whole.checkpoint, "progress"));
        if let Some(mut run) = taken(Run::resume(&whole.stopped, &session)) {
            let _ = run.train(&mut Steps(2));
        }
    });
}

/// A finished cell of a study, and the table that is made of it.
pub fn cell(bytes: &[u8]) {
    whole(|whole| {
        put(&whole.study.out, "cells/mwnet-seed1/cell.json", sealed_json(bytes));
        if let Some(Some(cell)) = taken(whole.study.finished(Method::MwNet, 1)) {
            let _ = Comparison::write(&whole.study, &[cell]);
        }
    });
}

/// Words of a command line, one a line.
pub fn flags(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let command = Config::augment_args(clap::Command::new("metatape").no_binary_name(true));
    if let Ok(matches) = command.try_get_matches_from(words)
        && let Some(config) = taken(Config::from_arg_matches(&matches))
    {
        let _ = config.check();
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (setting(text), text.parse::<Method>(), text.parse::<metatape::data::Noise>());
        let _ = (text.parse::<metatape::meta::Route>(), metatape::train::values::rate(text));
    }
}

//! Arrays as NumPy and its kin write them: `x`, images `[n, h, w, c]` (or `[n, h, w]`) of bytes or
//! features `[n, d]` of numbers, and `y`, the labels `[n]`. In one file (`.npz`, `.safetensors`) or
//! in two (`_x.npy`, `_y.npy`).

use std::io::BufReader;
use std::path::Path;

use half::{bf16, f16};
use npyz::{DType, NpyFile, Order};
use safetensors::{Dtype, SafeTensors};

use super::reading::Tables;
use super::table::told_apart;
use super::{DatasetKind, Table, missing_file};
use crate::{Error, Result, file, room};

/// Numbers of an array, in the widest type of their kind.
pub(super) enum Numbers {
    Bytes(Vec<u8>),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
}

/// An array, row-major.
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub numbers: Numbers,
}

/// Reads the parts that a folder has.
pub(super) fn load(dir: &Path) -> Result<Tables> {
    let part = |which: &str, title: &str| part(dir, which, &format!("{title} set of {}", dir.display()));
    let missing = || missing_file(DatasetKind::Arrays, dir, "train.npz, train.safetensors or train_x.npy");
    let train = part("train", "training")?.ok_or_else(missing)?;
    let (meta, test) = (part("meta", "meta")?, part("test", "test")?);
    if train.labels.is_empty() {
        return Err(Error::Data(format!("the {} holds no samples: add some", train.name)));
    }
    let classes = 1 + train.labels.iter().copied().max().unwrap_or(0);
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = (0..classes).map(|class| class.to_string()).collect();
    Ok(Tables { meta, ..Tables::new(name, train, test, names) })
}

/// The meta set in a folder of its own: files called `meta`, or `train`.
pub(super) fn meta(dir: &Path) -> Result<Table> {
    let title = format!("meta set of {}", dir.display());
    let found = match part(dir, "meta", &title)? {
        None => part(dir, "train", &title)?,
        found => found,
    };
    found.ok_or_else(|| {
        Error::Data(format!(
            "{} has no meta.npz, meta.safetensors or meta_x.npy and meta_y.npy",
            dir.display()
        ))
    })
}

/// One part by its name; `None` if the folder has no such files.
pub(super) fn one(dir: &Path, which: &str) -> Result<Option<Table>> {
    part(dir, which, &format!("{which} set of {}", dir.display()))
}

/// The samples of a `.npy` file, which has no labels.
pub(super) fn unlabelled(path: &Path) -> Result<Table> {
    let x = npy(path)?;
    let labels = vec![0; x.shape.first().copied().unwrap_or(0)];
    table(path, &path.display().to_string(), x, labels, false)
}

/// One part; `None` if the folder has no such files.
fn part(dir: &Path, which: &str, title: &str) -> Result<Option<Table>> {
    let found = |name: String| Some(dir.join(name)).filter(|path| file::named(path));
    let ([path, labelled], x, y) = if let Some(path) = found(format!("{which}.npz")) {
        let (x, y) = (npz(&path, "x")?, npz(&path, "y")?);
        ([path.clone(), path], x, y)
    } else if let Some(path) = found(format!("{which}.safetensors")) {
        let (x, y) = (tensor(&path, Some("x"))?, tensor(&path, Some("y"))?);
        ([path.clone(), path], x, y)
    } else if let Some(path) = found(format!("{which}_x.npy")) {
        let labels = dir.join(format!("{which}_y.npy"));
        let (x, y) = (npy(&path)?, npy(&labels)?);
        ([path, labels], x, y)
    } else {
        return Ok(None);
    };
    let bad = |detail: String| Error::Data(format!("{}: y {detail}", labelled.display()));
    let labels = labels(&y).map_err(bad)?;
    if x.shape.first() != Some(&labels.len()) {
        let (shape, count) = (&x.shape, labels.len());
        return Err(bad(format!("has {count} labels and x is {shape:?}: one for each is needed")));
    }
    table(&path, title, x, labels, which == "train").map(Some)
}

/// Images or features with their labels; `trains`: mean and deviation are those of these features.
fn table(path: &Path, title: &str, x: Array, labels: Vec<i32>, trains: bool) -> Result<Table> {
    let bad = |detail: String| Error::Data(format!("{}: {detail}", path.display()));
    let title = title.to_owned();
    let numbers = match x.numbers {
        Numbers::Ints(values) => Numbers::Doubles(narrow(values, |v| v as f64)),
        others => others,
    };
    Ok(match (numbers, &x.shape[1..]) {
        (Numbers::Bytes(pixels), &[h, w]) => Table::images(title, [h, w, 1], pixels, labels),
        (Numbers::Bytes(pixels), &[h, w, c @ (1 | 3)]) => Table::images(title, [h, w, c], pixels, labels),
        (Numbers::Bytes(values), &[d]) => {
            Table::features(title, d, values.into_iter().map(f32::from).collect(), labels)
        }
        (Numbers::Doubles(values), &[d]) => {
            if let Some(at) = values.iter().position(|v| !(*v as f32).is_finite()) {
                let value = values[at];
                return Err(bad(format!(
                    "x[{}, {}] is {value:e}, no finite number of 32 bits",
                    at / d,
                    at % d
                )));
            }
            if trains {
                told_apart(path, d, &values, &|at| format!("x[:, {at}]"))?;
            }
            Table::features(title, d, narrow(values, |v| v as f32), labels)
        }
        (Numbers::Floats(values), &[d]) => {
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return Err(bad(format!("x[{}, {}] is {}, no finite number", at / d, at % d, values[at])));
            }
            Table::features(title, d, values, labels)
        }
        (_, rest) => {
            return Err(bad(format!(
                "x is [n{}]: images are [n, h, w, c] of uint8 with 1 or 3 channels, features are [n, d] of numbers",
                rest.iter().map(|d| format!(", {d}")).collect::<String>()
            )));
        }
    })
}

/// Labels of an array of whole numbers `[n]`.
pub(super) fn labels(array: &Array) -> std::result::Result<Vec<i32>, String> {
    if array.shape.len() != 1 {
        return Err(format!("is {:?}, expected [n] labels", array.shape));
    }
    let label = |value: i64| {
        let label = i32::try_from(value).ok().filter(|label| (0..1_000_000).contains(label));
        label.ok_or_else(|| format!("has the label {value}; labels are whole numbers from 0"))
    };
    let whole = |v: f64| match v.fract() == 0.0 {
        true => label(v as i64),
        false => Err(format!("has the label {v}; labels are whole numbers from 0")),
    };
    match &array.numbers {
        Numbers::Bytes(values) => Ok(values.iter().map(|v| i32::from(*v)).collect()),
        Numbers::Ints(values) => values.iter().map(|v| label(*v)).collect(),
        Numbers::Floats(values) => values.iter().map(|v| whole(f64::from(*v))).collect(),
        Numbers::Doubles(values) => values.iter().map(|v| whole(*v)).collect(),
    }
}

/// A `.npy` file.
pub(super) fn npy(path: &Path) -> Result<Array> {
    let file = file::open(path, "read the array")?;
    let size = file.metadata().map_err(Error::io(path, "read the array"))?.len();
    array(path, NpyFile::new(BufReader::new(file)), size)
}

fn npz(path: &Path, name: &str) -> Result<Array> {
    let bad = |detail: String| Error::Data(format!("{}: {detail}", path.display()));
    let file = file::open(path, "read the arrays")?;
    let mut archive =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|e| bad(format!("is no npz file ({e})")))?;
    let found = archive.by_name(&format!("{name}.npy"));
    let mut found =
        found.map_err(|e| bad(format!("array `{name}` cannot be read ({e}); it needs x and y")))?;
    let size = found.size();
    let array = array(path, NpyFile::new(&mut found), size).map_err(|e| match e {
        Error::Data(text) => Error::Data(format!("array `{name}` of {text}")),
        other => other,
    })?;
    // Its checksum is looked at behind its last byte.
    let rest = std::io::copy(&mut found, &mut std::io::sink());
    rest.map_err(|e| bad(format!("array `{name}` is damaged ({e})")))?;
    Ok(array)
}

/// The numbers behind a header. A header that announces more than the file has is refused before
/// memory is asked for.
fn array<R: std::io::Read>(path: &Path, file: std::io::Result<NpyFile<R>>, size: u64) -> Result<Array> {
    let bad = |detail: String| Error::Data(format!("{}: {detail}", path.display()));
    let cut = |e: std::io::Error| bad(format!("is no whole .npy file ({e})"));
    let file = file.map_err(cut)?;
    let shape: Vec<usize> = file.shape().iter().map(|d| *d as usize).collect();
    let by_column = file.order() == Order::Fortran && shape.len() > 1;
    let DType::Plain(kind) = file.dtype() else {
        return Err(bad("is an array of records, expected numbers".into()));
    };
    let kind = kind.to_string();
    let announced = file.shape().iter().try_fold(1, |all: u64, d| all.checked_mul(*d));
    if shape.is_empty() || announced.is_none_or(|announced| announced > size) {
        return Err(bad(format!("is a single number or cut short: it announces {shape:?} numbers")));
    }
    // Of either byte order.
    let kind = kind.trim_start_matches(['<', '>', '|', '=']);
    // Packed, an archive may announce what no memory has. Others than these are read and widened.
    let each = [("u1", 1), ("f4", 4)].iter().find(|own| own.0 == kind).map_or(16, |own| own.1);
    let all = usize::try_from(announced.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let all = all.saturating_mul(if by_column { 2 * each } else { each });
    room::check(all, &format!("reading {}", path.display()), "name a smaller file")?;
    let numbers = match kind {
        "u1" => Numbers::Bytes(file.into_vec().map_err(cut)?),
        "b1" => Numbers::Ints(narrow(file.into_vec::<bool>().map_err(cut)?, i64::from)),
        "f2" => Numbers::Floats(narrow(file.into_vec::<f16>().map_err(cut)?, f16::to_f32)),
        "f4" => Numbers::Floats(file.into_vec().map_err(cut)?),
        "f8" => Numbers::Doubles(file.into_vec().map_err(cut)?),
        "i1" => Numbers::Ints(narrow(file.into_vec::<i8>().map_err(cut)?, i64::from)),
        "i2" => Numbers::Ints(narrow(file.into_vec::<i16>().map_err(cut)?, i64::from)),
        "u2" => Numbers::Ints(narrow(file.into_vec::<u16>().map_err(cut)?, i64::from)),
        "i4" => Numbers::Ints(narrow(file.into_vec::<i32>().map_err(cut)?, i64::from)),
        "u4" => Numbers::Ints(narrow(file.into_vec::<u32>().map_err(cut)?, i64::from)),
        "i8" => Numbers::Ints(file.into_vec().map_err(cut)?),
        "u8" => Numbers::Ints(narrow(file.into_vec::<u64>().map_err(cut)?, |v| {
            i64::try_from(v).unwrap_or(i64::MAX)
        })),
        _ => {
            return Err(bad(format!("is of type {kind}; save it as uint8, float32 or, for labels, int64")));
        }
    };
    let numbers = match numbers {
        numbers if !by_column => numbers,
        Numbers::Bytes(values) => Numbers::Bytes(by_row(values, &shape)),
        Numbers::Ints(values) => Numbers::Ints(by_row(values, &shape)),
        Numbers::Floats(values) => Numbers::Floats(by_row(values, &shape)),
        Numbers::Doubles(values) => Numbers::Doubles(by_row(values, &shape)),
    };
    Ok(Array { shape, numbers })
}

/// From Fortran's order, in which the first index runs fastest, to C's, in which the last one does.
fn by_row<T: Copy>(values: Vec<T>, shape: &[usize]) -> Vec<T> {
    let from = |mut at: usize| {
        let mut place = 0;
        for (axis, extent) in shape.iter().enumerate().rev() {
            place += at % extent * shape[..axis].iter().product::<usize>();
            at /= extent;
        }
        values[place]
    };
    (0..values.len()).map(from).collect()
}

/// A tensor of a safetensors file, by name, or the only one.
pub(super) fn tensor(path: &Path, name: Option<&str>) -> Result<Array> {
    let bad = |detail: String| Error::Data(format!("{}: {detail}", path.display()));
    let bytes = file::read(path, "read the tensors")?;
    let tensors =
        SafeTensors::deserialize(&bytes).map_err(|e| bad(format!("is no safetensors file ({e})")))?;
    let names = tensors.names();
    let name = match (name, &names[..]) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, _) => return Err(bad(format!("has {} tensors, expected one", names.len()))),
    };
    let view = tensors.tensor(name).map_err(|_| bad(format!("has no tensor `{name}`; it needs x and y")))?;
    let data = view.data();
    let numbers = match view.dtype() {
        Dtype::U8 => Numbers::Bytes(data.to_vec()),
        Dtype::F32 => Numbers::Floats(of(data, f32::from_le_bytes)),
        Dtype::F64 => Numbers::Doubles(of(data, f64::from_le_bytes)),
        Dtype::F16 => Numbers::Floats(of(data, |b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Numbers::Floats(of(data, |b| bf16::from_le_bytes(b).to_f32())),
        Dtype::I32 => Numbers::Ints(of(data, |b| i64::from(i32::from_le_bytes(b)))),
        Dtype::I64 => Numbers::Ints(of(data, i64::from_le_bytes)),
        other => {
            return Err(bad(format!(
                "`{name}` is of type {other:?}, expected U8, F16, BF16, F32, F64, I32 or I64"
            )));
        }
    };
    Ok(Array { shape: view.shape().to_vec(), numbers })
}

fn of<const N: usize, T>(bytes: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| f(*chunk)).collect()
}

fn narrow<T: Copy, U>(values: Vec<T>, f: impl Fn(T) -> U) -> Vec<U> {
    values.into_iter().map(f).collect()
}

//! A folder of images: which there are is `listing.rs`, what is in them `decode.rs`; here they
//! become tables. Images are grey if all are, else colour.

use std::ffi::OsStr;
use std::path::Path;

use super::decode::{Decoded, decode_all};
use super::listing::{Entry, PassedOver, entries, parts};
use super::reading::{Reading, Tables, classes, unknown};
use super::{DatasetKind, Table, missing_file};
use crate::meta::schemes::Set;
use crate::tape::Shape;
use crate::words::{counted, visible};
use crate::{Error, Result, room};

/// Reads the whole folder.
pub(super) fn load(how: &Reading, dir: &Path) -> Result<Tables> {
    let mut over = PassedOver::default();
    let [train, meta, test] = parts(dir, &mut over)?;
    if train.is_empty() {
        let (lacking, what) = match dir.join("train").is_dir() {
            true => (dir.join("train"), "folder for any class"),
            false => (dir.to_path_buf(), "folder `train`"),
        };
        return Err(missing_file(DatasetKind::Folder, &lacking, what));
    }
    let mut remarks = Vec::from_iter(over.remark(dir));
    let names = classes(train.iter().map(|entry| &entry.label));
    let of = |title: &str, part: Read| -> Result<Option<Table>> {
        let title = format!("{title} set of {}", dir.display());
        if part.entries.is_empty() { Ok(None) } else { table(title, dir, part, &names).map(Some) }
    };
    let [train, meta, test] = read(how, [train, meta, test], None, &mut remarks)?;
    let (train, meta, test) = (of("training", train)?, of("meta", meta)?, of("test", test)?);
    // Only training has labels that may be wrong.
    let [meta, test] = [meta, test].map(|part| part.map(Table::right));
    let none = || Error::Data(format!("{} has no training image that can be read", dir.display()));
    let train = train.ok_or_else(none)?;
    let name = visible(&dir.file_name().unwrap_or(OsStr::new("folder")).to_string_lossy());
    Ok(Tables { meta, remarks, ..Tables::new(name, train, test, names) })
}

/// The images of a folder apart, for a data set of images of this shape and these classes.
pub(super) fn meta(
    how: &Reading,
    dir: &Path,
    shape: &Shape,
    names: &[String],
) -> Result<(Table, Vec<String>)> {
    if !dir.is_dir() {
        return Err(Error::Data(format!("--meta-dir {} is no folder", dir.display())));
    }
    let mut over = PassedOver::default();
    let all = entries(dir, &mut over)?;
    apart(how, ("meta", dir), all, over, shape, names)
}

/// One part of a folder; all of it, where it has no parts.
pub(super) fn part(
    how: &Reading,
    dir: &Path,
    set: Set,
    shape: &Shape,
    names: &[String],
) -> Result<(Table, Vec<String>)> {
    let mut over = PassedOver::default();
    let [train, meta, test] = parts(dir, &mut over)?;
    let undivided = [&train, &meta, &test].iter().all(|part| part.is_empty());
    let (which, part) = match set {
        Set::Train => ("training", train),
        Set::Meta => ("meta", meta),
        Set::Test => ("test", test),
    };
    let all = if undivided { entries(dir, &mut over)? } else { part };
    if all.is_empty() {
        let dir = dir.display();
        return Err(Error::Data(format!("{dir} has no {which} images; --part names another part")));
    }
    apart(how, (which, dir), all, over, shape, names)
}

/// Images as a table of their own.
fn apart(
    how: &Reading,
    (which, dir): (&str, &Path),
    all: Vec<Entry>,
    over: PassedOver,
    shape: &Shape,
    names: &[String],
) -> Result<(Table, Vec<String>)> {
    let mut remarks = Vec::from_iter(over.remark(dir));
    let [read] = read(how, [all], shape.last().map(|channels| (*channels, dir)), &mut remarks)?;
    if read.entries.is_empty() {
        return Err(Error::Data(format!("{} has no {which} image that can be read", dir.display())));
    }
    if let Some(Entry { path, label, .. }) = read.entries.iter().find(|e| !names.contains(&e.label)) {
        return Err(unknown(&path.display().to_string(), label, names));
    }
    let table = table(format!("{which} set of {}", dir.display()), dir, read, names)?;
    Ok((if which == "training" { table } else { table.right() }, remarks))
}

/// Images are decoded so many at a time, or as many as take so many bytes, so that there is never a
/// second copy of all; at first so many, as nobody knows how large they are.
const AT_ONCE: usize = 4096;
const BYTES_AT_ONCE: usize = 1 << 28;
const FIRST: usize = 16;
const SMALLER: &str = "give --image-size, or a smaller one";

/// The images of a part, in one piece.
#[derive(Default)]
struct Read {
    entries: Vec<Entry>,
    /// Rows, columns, channels.
    shape: [usize; 3],
    pixels: Vec<u8>,
}

impl Read {
    /// Adds an image of the size of those before it; the first with colour makes all colour.
    fn add(&mut self, entry: Entry, image: Decoded) -> Result<()> {
        let [height, width, channels] = image.shape;
        if let Some(first) = self.entries.first() {
            if (height, width) != (self.shape[0], self.shape[1]) {
                return Err(Error::Data(format!(
                    "{} is {width}×{height} but {} is {}×{}: give --image-size N to resize and crop all to one size",
                    entry.path.display(),
                    first.path.display(),
                    self.shape[1],
                    self.shape[0]
                )));
            }
        } else {
            self.shape = image.shape;
        }
        let most = channels.max(self.shape[2]);
        if most > self.shape[2] {
            room::check(most * self.pixels.len(), "making grey images colour", SMALLER)?;
        }
        self.widen(most);
        self.pixels.extend(widened(image.pixels, channels, most));
        self.entries.push(entry);
        Ok(())
    }

    /// With as many channels.
    fn widen(&mut self, channels: usize) {
        self.pixels = widened(std::mem::take(&mut self.pixels), self.shape[2], channels);
        self.shape[2] = channels;
    }
}

/// Pixels of `from` channels with as many as `to`: grey becomes colour.
pub(super) fn widened(pixels: Vec<u8>, from: usize, to: usize) -> Vec<u8> {
    if from == to { pixels } else { pixels.iter().flat_map(|&grey| [grey; 3]).collect() }
}

/// Decodes all parts; their images have as many channels as the most have, or, in a folder of their
/// own, as training has.
fn read<const N: usize>(
    how: &Reading,
    parts: [Vec<Entry>; N],
    channels: Option<(usize, &Path)>,
    remarks: &mut Vec<String>,
) -> Result<[Read; N]> {
    let mut unreadable = Vec::new();
    let mut all = Vec::with_capacity(N);
    for part in parts {
        let mut read = Read::default();
        let (count, mut rest) = (part.len(), &part[..]);
        while !rest.is_empty() {
            let bytes: usize = read.shape.iter().product();
            let most = BYTES_AT_ONCE.checked_div(bytes).map_or(FIRST, |most| most.clamp(1, AT_ONCE));
            let (entries, behind) = rest.split_at(most.min(rest.len()));
            rest = behind;
            let decoded = decode_all(entries.iter().map(|entry| &entry.path), how.image_size, how.threads)?;
            for (entry, image) in entries.iter().zip(decoded) {
                match image {
                    Ok(image) => {
                        // All are as large as the first.
                        if read.entries.is_empty() {
                            let all = count.saturating_mul(image.pixels.len());
                            room::check(
                                all,
                                &format!("reading {} into memory", counted(count, "image")),
                                SMALLER,
                            )?;
                            read.pixels.reserve_exact(all);
                        }
                        read.add(entry.clone(), image)?;
                    }
                    Err(error) => unreadable.push(error.to_string()),
                }
            }
        }
        all.push(read);
    }
    if !unreadable.is_empty() {
        let (count, list) = (counted(unreadable.len(), "image"), unreadable.join("\n  "));
        if let ([only], false) = (&unreadable[..], how.skip_unreadable) {
            return Err(Error::Data(format!(
                "{only}; put a whole one in its place, remove it, or leave it out with --skip-unreadable"
            )));
        }
        if !how.skip_unreadable {
            return Err(Error::Data(format!(
                "{count} cannot be read:\n  {list}\nput whole ones in their place, remove them, or leave them out with \
                 --skip-unreadable"
            )));
        }
        remarks.push(format!("left out {count} that cannot be read:\n  {list}"));
    }
    let most = all.iter().map(|read| read.shape[2]).max().unwrap_or(1);
    if let (Some((1, dir)), 3) = (channels, most) {
        let dir = dir.display();
        return Err(Error::Data(format!("images of {dir} are colour, and the training images grey")));
    }
    all.iter_mut()
        .filter(|read| !read.entries.is_empty())
        .for_each(|read| read.widen(channels.map_or(most, |c| c.0)));
    all.try_into().map_err(|_| Error::Program("as many parts as there were".into()))
}

/// The images of a part as a table.
fn table(name: String, dir: &Path, part: Read, names: &[String]) -> Result<Table> {
    let Read { entries, shape, pixels } = part;
    let label = |entry: &Entry, label: &str| {
        let place = names.iter().position(|name| name == label).map(|place| place as i32);
        place.ok_or_else(|| {
            Error::Data(format!(
                "{} is of the class `{label}`, which has no training images: add some, or remove it",
                entry.path.display()
            ))
        })
    };
    let labels = entries.iter().map(|entry| label(entry, &entry.label)).collect::<Result<_>>()?;
    let truth = match entries.iter().filter(|entry| entry.clean.is_some()).count() {
        0 => None,
        n if n == entries.len() => {
            let clean = |entry: &Entry| label(entry, entry.clean.as_deref().unwrap_or_default());
            Some(entries.iter().map(clean).collect::<Result<_>>()?)
        }
        n => {
            return Err(Error::Data(format!(
                "the {name} has a clean_label for {n} of {}: give one for each, or leave the column out",
                counted(entries.len(), "image")
            )));
        }
    };
    let shown = |path: &Path| visible(&path.strip_prefix(dir).unwrap_or(path).to_string_lossy());
    let files = entries.iter().map(|entry| shown(&entry.path)).collect();
    Ok(Table { truth, names: files, ..Table::images(name, shape, pixels, labels) })
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage};

    use super::super::Dataset;

    use super::*;

    fn colour(dir: &Path, name: &str, value: [u8; 3], (width, height): (u32, u32)) {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        RgbImage::from_pixel(width, height, Rgb(value)).save(dir.join(name)).unwrap();
    }

    fn grey(dir: &Path, name: &str, value: u8) {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        let ramp = |x: u32, y: u32| Luma([value + (y * 6 + x) as u8]);
        GrayImage::from_fn(6, 5, ramp).save(dir.join(name)).unwrap();
    }

    fn read(dir: &Path) -> Result<Dataset> {
        super::super::load(DatasetKind::Folder, Some(dir))
    }

    #[test]
    fn grey_folder_golden() {
        let dir = tempfile::tempdir().unwrap();
        for (i, name) in ["b/2.PNG", "b/10.png", "a/x.png", "c/y.png"].iter().enumerate() {
            grey(dir.path(), &format!("train/{name}"), 10 * i as u8);
        }
        grey(dir.path(), "test/c/z.png", 90);
        std::fs::write(dir.path().join("train/a/notes.txt"), "not an image").unwrap();
        std::fs::write(dir.path().join("train/.hidden.png"), "not an image").unwrap();
        let data = read(dir.path()).unwrap();
        assert_eq!(data.class_names, ["a", "b", "c"]);
        assert_eq!(data.train.labels, [0, 1, 1, 2]);
        assert_eq!(&data.shape[..], [5, 6, 1]);
        // a/x, b/10, b/2, c/y.
        let first: Vec<u8> = (0..4).map(|i| data.image(i)[0]).collect();
        assert_eq!(first, [20, 10, 0, 30]);
        assert_eq!(data.image(0)[..7], [20, 21, 22, 23, 24, 25, 26]);
        assert_eq!((data.test.labels[0], data.image(data.test.indices[0])[29]), (2, 119));
        assert_eq!(data.augment, None);
    }

    #[test]
    fn colour_with_some_grey_is_colour() {
        let dir = tempfile::tempdir().unwrap();
        colour(dir.path(), "train/a/1.png", [1, 2, 3], (6, 5));
        grey(dir.path(), "train/b/1.png", 40);
        colour(dir.path(), "test/a/1.jpg", [200, 200, 200], (6, 5));
        let data = read(dir.path()).unwrap();
        assert_eq!(data.shape[2], 3);
        assert_eq!(data.image(0)[..6], [1, 2, 3, 1, 2, 3]);
        assert_eq!(data.image(1)[..6], [40, 40, 40, 41, 41, 41]);
        assert_eq!(data.image(data.test.indices[0])[..3], [200, 200, 200]);
        assert_eq!(data.augment, Some(super::super::Augment { pad: 4, flip: true }));
    }

    #[test]
    fn every_fault_names_the_file() {
        let base = || {
            let dir = tempfile::tempdir().unwrap();
            colour(dir.path(), "train/a/1.png", [1, 2, 3], (6, 5));
            colour(dir.path(), "train/b/1.png", [1, 2, 3], (6, 5));
            colour(dir.path(), "test/a/1.png", [1, 2, 3], (6, 5));
            dir
        };
        let fault = |dir: &Path, expected: &[&str]| {
            let error = read(dir).unwrap_err();
            assert_eq!(error.exit_code(), 1);
            let message = error.to_string();
            assert!(expected.iter().all(|text| message.contains(text)), "{message}");
        };
        let dir = base();
        colour(dir.path(), "train/b/0.png", [0; 3], (7, 5));
        fault(dir.path(), &["train/b/0.png is 7×5", "train/a/1.png is 6×5", "--image-size"]);

        let dir = base();
        colour(dir.path(), "train/b/2.jpg", [10, 200, 90], (6, 5));
        let whole = std::fs::read(dir.path().join("train/b/2.jpg")).unwrap();
        assert!(read(dir.path()).is_ok());
        for cut in [1, 2, 10, whole.len() / 2] {
            std::fs::write(dir.path().join("train/b/2.jpg"), &whole[..whole.len() - cut]).unwrap();
            fault(dir.path(), &["train/b/2.jpg: the image is truncated", "remove it"]);
        }

        let dir = base();
        std::fs::create_dir(dir.path().join("train/zebra")).unwrap();
        fault(dir.path(), &["train/zebra is an empty class"]);

        let dir = base();
        colour(dir.path(), "test/new/1.png", [0; 3], (6, 5));
        fault(dir.path(), &["test/new/1.png is of the class `new`, which has no training images"]);

        let dir = base();
        let path = dir.path().join("test/a/1.png");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        fault(dir.path(), &["test/a/1.png: the image cannot be decoded"]);

        let dir = base();
        std::fs::remove_dir_all(dir.path().join("test")).unwrap();
        fault(dir.path(), &["has no test set", "train/<class>/", "--test-size N"]);

        let dir = base();
        std::fs::remove_dir_all(dir.path().join("test/a")).unwrap();
        fault(dir.path(), &["has no test set"]);

        let dir = base();
        std::fs::remove_dir_all(dir.path().join("train/a")).unwrap();
        std::fs::remove_dir_all(dir.path().join("train/b")).unwrap();
        fault(dir.path(), &["train has no folder for any class"]);
    }
}

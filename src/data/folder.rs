//! A folder of images: `train/<class>/*.jpg|jpeg|png` and `test/<class>/…`.
//!
//! Classes are the folders of `train`, sorted by name; images are sorted by name within their
//! class. Files with other endings and hidden files are passed over. Images are grey if all are,
//! else colour; an alpha channel is dropped, 16 bits become 8. Mean and deviation are computed from
//! the training images, whatever their size.

use std::ffi::OsStr;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ColorType, DynamicImage, ImageFormat, ImageReader};
use rayon::prelude::*;

use super::{Dataset, DatasetKind, Images, missing_file};
use crate::{Error, Result};

/// An image file and its class.
struct Entry {
    path: PathBuf,
    label: i32,
}

/// A decoded image: rows, columns, 1 or 3 channels.
struct Decoded {
    shape: [usize; 3],
    pixels: Vec<u8>,
}

/// Reads the whole folder; decoding is spread over rayon's threads.
pub(super) fn load(dir: &Path) -> Result<Dataset> {
    for part in ["train", "test"] {
        if !dir.join(part).is_dir() {
            return Err(missing_file(DatasetKind::Folder, dir, &format!("folder `{part}`")));
        }
    }
    let classes = subfolders(&dir.join("train"))?;
    if classes.is_empty() {
        return Err(missing_file(DatasetKind::Folder, &dir.join("train"), "folder for any class"));
    }
    let mut train = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        entries(&dir.join("train").join(class), label as i32, &mut train)?;
    }
    let mut test = Vec::new();
    for class in subfolders(&dir.join("test"))? {
        let Some(label) = classes.iter().position(|known| *known == class) else {
            return Err(Error::Data(format!(
                "{} is a class without training images: add {} or remove it",
                dir.join("test").join(&class).display(),
                dir.join("train").join(&class).display()
            )));
        };
        entries(&dir.join("test").join(&class), label as i32, &mut test)?;
    }
    let name = dir.file_name().unwrap_or(OsStr::new("folder")).to_string_lossy().into_owned();
    let all: Vec<&Entry> = train.iter().chain(&test).collect();
    let decoded = decode_all(&all)?;
    let channels = decoded.iter().map(|image| image.shape[2]).max().unwrap_or(1);
    let assemble = |title: &str, entries: &[Entry], decoded: &[Decoded]| {
        let [height, width, _] = decoded.first().map_or([0; 3], |image| image.shape);
        let mut pixels = Vec::with_capacity(decoded.len() * height * width * channels);
        for image in decoded {
            if image.shape[2] == channels {
                pixels.extend_from_slice(&image.pixels);
            } else {
                pixels.extend(image.pixels.iter().flat_map(|&grey| [grey; 3]));
            }
        }
        let labels = entries.iter().map(|entry| entry.label).collect();
        Images { name: format!("{title} set of {}", dir.display()), height, width, channels, pixels, labels }
    };
    let (first, second) = decoded.split_at(train.len());
    let (train, test) = (assemble("training", &train, first), assemble("test", &test, second));
    let class_names = classes.iter().map(|class| class.to_string_lossy().into_owned()).collect();
    Dataset::new(name, train, test, class_names, None)
}

/// All entries of a folder except hidden ones, sorted by name.
fn sorted_names(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir, "list the folder"))?;
    let names: std::io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(Error::io(dir, "list the folder"))?;
    names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
    names.sort();
    Ok(names)
}

fn subfolders(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let mut names = sorted_names(dir)?;
    names.retain(|name| dir.join(name).is_dir());
    Ok(names)
}

/// Appends the images of one class; there must be some.
fn entries(dir: &Path, label: i32, into: &mut Vec<Entry>) -> Result<()> {
    let before = into.len();
    let is_image = |name: &OsStr| {
        let ending = Path::new(name).extension().map(|ending| ending.to_ascii_lowercase());
        ending.is_some_and(|ending| ["jpg", "jpeg", "png"].iter().any(|known| ending == *known))
    };
    let names = sorted_names(dir)?.into_iter().filter(|name| is_image(name));
    into.extend(names.map(|name| Entry { path: dir.join(name), label }));
    if into.len() == before {
        return Err(Error::Data(format!(
            "{} is an empty class: it holds no .jpg, .jpeg or .png file; add images or remove the folder",
            dir.display()
        )));
    }
    Ok(())
}

/// Decodes all images and checks that they have one size; of several wrong ones the first in order
/// is reported.
fn decode_all(entries: &[&Entry]) -> Result<Vec<Decoded>> {
    let decoded: Vec<Result<Decoded>> = entries.par_iter().map(|entry| decode(&entry.path)).collect();
    let decoded = decoded.into_iter().collect::<Result<Vec<Decoded>>>()?;
    let size = |image: &Decoded| (image.shape[0], image.shape[1]);
    if let Some(odd) = decoded.iter().position(|image| size(image) != size(&decoded[0])) {
        let [(height, width), (odd_height, odd_width)] = [size(&decoded[0]), size(&decoded[odd])];
        return Err(Error::Data(format!(
            "{} is {odd_width}×{odd_height} but {} is {width}×{height}: scale them all to one size",
            entries[odd].path.display(),
            entries[0].path.display()
        )));
    }
    Ok(decoded)
}

fn decode(path: &Path) -> Result<Decoded> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read the image"))?;
    let bad = |detail: String| {
        Error::Data(format!("{}: {detail}; put a whole one in its place, or remove it", path.display()))
    };
    // By content, since a PNG named .jpg is common and harmless.
    let reader = ImageReader::new(Cursor::new(&bytes));
    let reader = reader.with_guessed_format().map_err(Error::io(path, "read the image"))?;
    // The decoder fills what a cut JPEG lacks with grey.
    if reader.format() == Some(ImageFormat::Jpeg) && !ends(&bytes) {
        return Err(bad("the image is truncated: its JPEG data have no end".into()));
    }
    let image = reader
        .decode()
        .map_err(|error| bad(format!("the image cannot be decoded ({})", error.to_string().trim_end())))?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let (channels, pixels) = match image.color() {
        ColorType::L8 | ColorType::L16 | ColorType::La8 | ColorType::La16 => {
            (1, image.into_luma8().into_raw())
        }
        _ => (3, DynamicImage::into_rgb8(image).into_raw()),
    };
    Ok(Decoded { shape: [height, width, channels], pixels })
}

/// Whether a JPEG has its end marker after its last scan's beginning. In the scan's data no other
/// marker but those of restarts can occur.
fn ends(jpeg: &[u8]) -> bool {
    let last = |marker: [u8; 2]| jpeg.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage};

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
        assert_eq!((data.train.height, data.train.width, data.train.channels), (5, 6, 1));
        // a/x, b/10, b/2, c/y.
        let first: Vec<u8> = (0..4).map(|i| data.train.image(i)[0]).collect();
        assert_eq!(first, [20, 10, 0, 30]);
        assert_eq!(data.train.image(0)[..7], [20, 21, 22, 23, 24, 25, 26]);
        assert_eq!((data.test.labels[0], data.test.image(0)[29]), (2, 119));
        assert_eq!(data.augment, None);
    }

    #[test]
    fn colour_with_some_grey_is_colour() {
        let dir = tempfile::tempdir().unwrap();
        colour(dir.path(), "train/a/1.png", [1, 2, 3], (6, 5));
        grey(dir.path(), "train/b/1.png", 40);
        colour(dir.path(), "test/a/1.jpg", [200, 200, 200], (6, 5));
        let data = read(dir.path()).unwrap();
        assert_eq!(data.train.channels, 3);
        assert_eq!(data.train.image(0)[..6], [1, 2, 3, 1, 2, 3]);
        assert_eq!(data.train.image(1)[..6], [40, 40, 40, 41, 41, 41]);
        assert_eq!(data.test.image(0)[..3], [200, 200, 200]);
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
        fault(dir.path(), &["train/b/0.png is 7×5", "train/a/1.png is 6×5"]);

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
        fault(dir.path(), &["test/new is a class without training images"]);

        let dir = base();
        let path = dir.path().join("test/a/1.png");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        fault(dir.path(), &["test/a/1.png: the image cannot be decoded"]);

        let dir = base();
        std::fs::remove_dir_all(dir.path().join("test")).unwrap();
        fault(dir.path(), &["has no folder `test`", "train/<class>/"]);

        let dir = base();
        std::fs::remove_dir_all(dir.path().join("test/a")).unwrap();
        fault(dir.path(), &["test set of", "holds no images"]);

        let dir = base();
        std::fs::remove_dir_all(dir.path().join("train/a")).unwrap();
        std::fs::remove_dir_all(dir.path().join("train/b")).unwrap();
        fault(dir.path(), &["train has no folder for any class"]);
    }
}

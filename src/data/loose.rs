//! Samples without labels, in files that are named one by one: images, arrays, tables.

use std::path::{Path, PathBuf};

use super::decode::{Decoded, decode_all};
use super::folder::widened;
use super::listing::images;
use super::{Samples, Table, arrays, table};
use crate::tape::Shape;
use crate::{Error, Result};

/// What a network takes, and how files become that.
#[derive(Clone, Debug)]
pub struct Loose {
    /// `[h,w,c]` of an image, `[d]` of features.
    pub shape: Shape,
    /// As [`super::Reading::image_size`].
    pub image_size: Option<usize>,
    /// A column of tables that is no feature.
    pub label_column: String,
    /// As [`super::Dataset::columns`].
    pub columns: Vec<String>,
    /// As [`super::Reading::threads`].
    pub threads: Option<usize>,
}

impl Loose {
    /// The files that paths stand for: each file itself, and all images below a folder; and what
    /// was passed over there. What cannot be found goes to `faults`.
    pub fn files(&self, paths: &[PathBuf], faults: &mut Vec<Error>) -> (Vec<PathBuf>, Vec<String>) {
        let (mut files, mut remarks) = (Vec::new(), Vec::new());
        for path in paths {
            let shown = path.display();
            match path.is_dir() {
                false => files.push(path.clone()),
                true if self.shape.len() == 1 => faults.push(Error::Data(format!(
                    "{shown} is a folder, and the network takes features: name .npy or .csv files"
                ))),
                true => match images(path) {
                    Ok((found, over)) => {
                        if found.is_empty() {
                            faults.push(Error::Data(format!("{shown} holds no images; name another folder")));
                        }
                        files.extend(found);
                        remarks.extend(over);
                    }
                    Err(error) => faults.push(error),
                },
            }
        }
        (files, remarks)
    }

    /// The samples of files, all labelled 0; `None` if there are none. Files that cannot be read go
    /// to `faults`.
    ///
    /// # Errors
    /// If the system refuses the threads to decode with.
    pub fn read(&self, files: &[PathBuf], faults: &mut Vec<Error>) -> Result<Option<Table>> {
        let array =
            |path: &Path| ["npy", "csv"].iter().any(|e| path.extension().is_some_and(|own| own == *e));
        let (mut bytes, mut floats, mut names) = (Vec::new(), Vec::new(), Vec::new());
        let pictures = files.iter().filter(|path| self.shape.len() == 3 && !array(path));
        let mut decoded = decode_all(pictures, self.image_size, self.threads)?.into_iter();
        for path in files {
            let read = match array(path) {
                true => self.array(path),
                false if self.shape.len() == 3 => match decoded.next() {
                    Some(image) => image.and_then(|image| self.image(path, image)),
                    None => Err(Error::Program("as many images as files".into())),
                },
                false if path.exists() => {
                    Err(self.misfit(path, "no array: name .npy or .csv files of features"))
                }
                false => Err(Error::Data(format!("{}: there is no such file", path.display()))),
            };
            let name = path.display().to_string();
            let samples = match read {
                Ok(samples) => samples,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            let entries = match samples {
                Samples::Bytes(new) => {
                    bytes.extend_from_slice(&new);
                    new.len()
                }
                Samples::Floats(new) => {
                    floats.extend_from_slice(&new);
                    new.len()
                }
            };
            match (array(path), entries / self.shape.count()) {
                (_, 0) => faults.push(Error::Data(format!("{name} holds no samples; name another file"))),
                (true, rows) => names.extend((0..rows).map(|row| format!("{name}[{row}]"))),
                (false, _) => names.push(name),
            }
        }
        let shape = self.shape.clone();
        let samples = if shape.len() == 3 { Samples::bytes(bytes) } else { Samples::floats(floats) };
        let (name, labels) = ("files".to_owned(), vec![0; names.len()]);
        let (truth, columns) = (None, Vec::new());
        Ok((!names.is_empty()).then_some(Table { name, shape, samples, labels, truth, names, columns }))
    }

    /// An image with as many channels as the network takes.
    fn image(&self, path: &Path, image: Decoded) -> Result<Samples> {
        let ([h, w, c], wanted) = (image.shape, &self.shape);
        if [h, w] != wanted[..2] {
            return Err(self.misfit(path, &format!("{w}×{h}; scale it")));
        }
        if c > wanted[2] {
            return Err(self.misfit(path, "colour; save it as grey"));
        }
        Ok(Samples::bytes(widened(image.pixels, c, wanted[2])))
    }

    fn array(&self, path: &Path) -> Result<Samples> {
        let (shape, samples) = if path.extension().is_some_and(|ending| ending == "csv") {
            let (d, values) = table::unlabelled(path, &self.label_column, &self.columns)?;
            (Shape::from([d]), Samples::floats(values))
        } else {
            let table = arrays::unlabelled(path)?;
            (table.shape, table.samples)
        };
        match shape == self.shape {
            true => Ok(samples),
            false => Err(self.misfit(path, &format!("of samples {shape}"))),
        }
    }

    fn misfit(&self, path: &Path, what: &str) -> Error {
        let takes = match self.shape[..] {
            [h, w, c] => format!("{w}×{h} {} images", if c == 1 { "grey" } else { "colour" }),
            _ => format!("{} features", self.shape.count()),
        };
        Error::Data(format!("{}: the network takes {takes}, and this is {what}", path.display()))
    }
}

//! How long 60,000 small images in a folder take to read: six times the built-in 10,000, as PNG.
//!
//! `cargo bench --bench reading`, or `-- DIR` for a folder of one's own.

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use image::GrayImage;
use metatape::data::{DatasetKind, Reading};

const COPIES: usize = 6;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).map(PathBuf::from);
    let own = tempfile::tempdir()?;
    let dir = match given {
        Some(dir) => dir,
        None => {
            write(own.path())?;
            own.path().to_path_buf()
        }
    };
    for _ in 0..3 {
        let began = Instant::now();
        let reading = Reading { kind: DatasetKind::Folder, dir: Some(dir.clone()), ..Reading::default() };
        let data = reading.load()?;
        let (seconds, train, test) = (began.elapsed().as_secs_f64(), data.train.len(), data.test.len());
        println!("{train} training and {test} test images of {}: {seconds:.2} s", data.shape);
    }
    Ok(())
}

fn write(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let data = Reading::default().load()?;
    for (part, copies, which) in [("train", COPIES, &data.train), ("test", 1, &data.test)] {
        for class in 0..data.classes() {
            std::fs::create_dir_all(dir.join(part).join(class.to_string()))?;
        }
        for (index, label) in which.indices.iter().zip(&which.labels) {
            let image = GrayImage::from_raw(28, 28, data.image(*index).to_vec()).ok_or("28 by 28 pixels")?;
            for copy in 0..copies {
                image.save(dir.join(part).join(label.to_string()).join(format!("{index}-{copy}.png")))?;
            }
        }
    }
    Ok(())
}

//! Small data sets in the formats of the large ones. Classes differ in what their images show, and
//! no two images are the same.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Training images of each class of [`mnist`].
pub const EACH: usize = 30;

/// A configuration's text that was changed, with the checksum of what it is now.
pub fn sealed_toml(text: &str) -> String {
    let text = &text[..text.find("# crc32c: ").unwrap_or(text.len())];
    format!("{text}# crc32c: {:08x}\n", crc32c::crc32c(text.as_bytes()))
}

/// Likewise a safetensors file.
pub fn sealed_tensors(mut file: Vec<u8>) -> Vec<u8> {
    let field = b"\"crc32c\":\"";
    let at = file.windows(field.len()).position(|w| w == field).unwrap() + field.len();
    file[at..at + 8].fill(b'0');
    let sum = format!("{:08x}", crc32c::crc32c(&file));
    file[at..at + 8].copy_from_slice(sum.as_bytes());
    file
}

/// Byte `at` of image `i` of a class: stripes of a width of the class's own, and speckles.
fn pixel(class: usize, i: usize, at: usize) -> u8 {
    let speckle = (at * 31 + i * 17 + at * at / 7 + i * at) % 64;
    let stripe = at / (class + 2) % 2;
    (stripe * 160 + speckle) as u8
}

fn write(path: &Path, bytes: &[u8], gz: bool) {
    if gz {
        let file = fs::File::create(format!("{}.gz", path.display())).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap();
    } else {
        fs::write(path, bytes).unwrap();
    }
}

/// The four files of MNIST and of Fashion-MNIST: ten classes, 28×28, [`EACH`] training images a
/// class.
pub fn mnist(dir: &Path, gz: bool) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    for (part, each, first) in [("train", EACH, 0), ("t10k", 5, EACH)] {
        let n = 10 * each;
        let header = |magic: u32, dims: &[u32]| -> Vec<u8> {
            [&[magic, n as u32], dims].concat().iter().flat_map(|v| v.to_be_bytes()).collect()
        };
        let (mut images, mut labels) = (header(0x803, &[28, 28]), header(0x801, &[]));
        for i in 0..n {
            images.extend((0..784).map(|at| pixel(i % 10, first + i, at)));
            labels.push((i % 10) as u8);
        }
        write(&dir.join(format!("{part}-images-idx3-ubyte")), &images, gz);
        write(&dir.join(format!("{part}-labels-idx1-ubyte")), &labels, gz);
    }
    dir.to_path_buf()
}

/// Records of CIFAR: the labels that `label` gives to a class, then 3072 bytes.
fn cifar(path: &Path, classes: usize, each: usize, first: usize, label: impl Fn(usize) -> Vec<u8>) {
    let mut bytes = Vec::new();
    for i in 0..classes * each {
        bytes.extend(label(i % classes));
        bytes.extend((0..3072).map(|at| pixel(i % classes, first + i, at)));
    }
    fs::write(path, bytes).unwrap();
}

/// CIFAR-10's six files, two images a class each.
pub fn cifar10(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    for batch in 1..=5 {
        let path = dir.join(format!("data_batch_{batch}.bin"));
        cifar(&path, 10, 2, 100 * batch, |class| vec![class as u8]);
    }
    cifar(&dir.join("test_batch.bin"), 10, 2, 0, |class| vec![class as u8]);
    dir.to_path_buf()
}

/// CIFAR-100's two files, three training images a class.
pub fn cifar100(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    for (file, each, first) in [("train.bin", 3, 0), ("test.bin", 1, 1000)] {
        cifar(&dir.join(file), 100, each, first, |class| vec![(class / 5) as u8, class as u8]);
    }
    dir.to_path_buf()
}

/// A folder of PNGs: three classes, `side`×`side`, twelve training images a class.
pub fn folder(dir: &Path, side: u32, colour: bool) -> PathBuf {
    for (class, name) in ["ant", "bee", "cat"].into_iter().enumerate() {
        for (part, images) in [("train", 0..12), ("test", 12..15)] {
            let dir = dir.join(part).join(name);
            fs::create_dir_all(&dir).unwrap();
            for i in images {
                let path = dir.join(format!("{i}.png"));
                if colour {
                    let at = |x, y, c| pixel(class, i, (3 * (y * side + x) + c) as usize);
                    let rgb = |x, y| image::Rgb([at(x, y, 0), at(x, y, 1), at(x, y, 2)]);
                    image::RgbImage::from_fn(side, side, rgb).save(path).unwrap();
                } else {
                    let grey = |x, y| image::Luma([pixel(class, i, (y * side + x) as usize)]);
                    image::GrayImage::from_fn(side, side, grey).save(path).unwrap();
                }
            }
        }
    }
    dir.to_path_buf()
}

//! Image files to pixels, as the field's usual libraries do it: turned as EXIF says, alpha on
//! white, 16 bits to 8, the first frame of several.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;

use crate::{Error, Result, file, room};

/// Endings of the files that are read as images.
pub(super) const ENDINGS: [&str; 11] =
    ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm"];

/// A decoded image: rows, columns, 1 or 3 channels.
pub(super) struct Decoded {
    pub shape: [usize; 3],
    pub pixels: Vec<u8>,
}

/// Decodes all files on so many threads (none: as many as the machine has), and names those that
/// cannot be read. `size`: to resize the shorter side to, and to crop the other from the middle.
///
/// # Errors
/// If the system refuses the threads.
pub(super) fn decode_all<'a>(
    paths: impl Iterator<Item = &'a PathBuf>,
    size: Option<usize>,
    threads: Option<usize>,
) -> Result<Vec<Result<Decoded>>> {
    let paths: Vec<&PathBuf> = paths.collect();
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if let Some(size) = size {
        // Of each image that is on its way, three channels as they are, and as they are scaled in
        // floating point.
        let all = size.saturating_mul(size).saturating_mul(3 * 5 * threads + 3 * paths.len());
        room::check(all, &format!("resizing images to --image-size {size}"), "take a smaller one")?;
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| Error::Device(format!("no threads to decode images with: {e}")))?;
    #[expect(clippy::disallowed_methods, reason = "on the pool that is started here")]
    Ok(pool.install(|| paths.par_iter().map(|path| decode(path, size)).collect()))
}

fn decode(path: &Path, size: Option<usize>) -> Result<Decoded> {
    let bad = |detail: String| Error::Data(format!("{}: {detail}", path.display()));
    let bytes = file::read(path, "read the image")?;
    // By content, since a PNG named .jpg is common and harmless.
    let reader = ImageReader::new(Cursor::new(&bytes));
    let reader = reader.with_guessed_format().map_err(Error::io(path, "read the image"))?;
    // The decoder fills what a cut JPEG lacks with grey.
    if reader.format() == Some(ImageFormat::Jpeg) && !ends(&bytes) {
        return Err(bad("the image is truncated: its JPEG data have no end".into()));
    }
    let decoder = reader.into_decoder().and_then(|decoder| {
        // Some decoders leave that to their callers.
        Limits::default().reserve(decoder.total_bytes())?;
        Ok(decoder)
    });
    if let Ok(decoder) = &decoder {
        // As it is, turned, and in 8 bits.
        let all = 3 * decoder.total_bytes() as usize;
        room::check(all, &format!("decoding {}", path.display()), "take a smaller one")?;
    }
    let decoded = decoder.and_then(|mut decoder| {
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    });
    let image =
        decoded.map_err(|e| bad(format!("the image cannot be decoded ({})", e.to_string().trim_end())))?;
    let image = on_white(image);
    let image = match size.map(|size| size as u32) {
        Some(n) if (image.width(), image.height()) != (n, n) => {
            // Its rows in floating point, and all of it before it is cropped: a line becomes very
            // long.
            let [w, h, short] = [image.width(), image.height(), n].map(|extent| extent as usize);
            let long = short.saturating_mul(w.max(h)).div_ceil(w.min(h).max(1));
            let (width, height) = if w < h { (short, long) } else { (long, short) };
            let all = height.saturating_mul(width.saturating_mul(3).saturating_add(16 * w));
            room::check(all, &format!("resizing {}", path.display()), "take a smaller --image-size")?;
            image.resize_to_fill(n, n, FilterType::Triangle)
        }
        _ => image,
    };
    let (height, width) = (image.height() as usize, image.width() as usize);
    Ok(match image {
        DynamicImage::ImageLuma8(grey) => Decoded { shape: [height, width, 1], pixels: grey.into_raw() },
        colour => Decoded { shape: [height, width, 3], pixels: colour.into_rgb8().into_raw() },
    })
}

/// The image in 8 bits, grey or colour, what is transparent over white.
fn on_white(image: DynamicImage) -> DynamicImage {
    let over = |value: u8, alpha: u8| {
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    match (image.color().has_color(), image.color().has_alpha()) {
        (false, false) => DynamicImage::ImageLuma8(image.into_luma8()),
        (true, false) => DynamicImage::ImageRgb8(image.into_rgb8()),
        (false, true) => {
            let mut image = image.into_luma_alpha8();
            image.pixels_mut().for_each(|p| p.0 = [over(p.0[0], p.0[1]), 255]);
            DynamicImage::ImageLuma8(DynamicImage::ImageLumaA8(image).into_luma8())
        }
        (true, true) => {
            let mut image = image.into_rgba8();
            image.pixels_mut().for_each(|p| {
                let [r, g, b, a] = p.0;
                p.0 = [over(r, a), over(g, a), over(b, a), 255];
            });
            DynamicImage::ImageRgb8(DynamicImage::ImageRgba8(image).into_rgb8())
        }
    }
}

/// Whether a JPEG is whole: its segments up to the end marker. What lies behind that, such as a
/// motion photo's film, is none of its business.
fn ends(jpeg: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // The next marker; a scan's own data have none but 0xff00 and the restarts.
        let Some(found) = jpeg.get(at..).and_then(|rest| {
            rest.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff | 0xd0..=0xd7))
        }) else {
            return false;
        };
        at += found;
        match jpeg[at + 1] {
            0xd9 => return true,
            0x01 => at += 2,
            _ => match jpeg.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
        }
    }
}

//! The files of `kernels/`: the one list of what is compiled.

use std::borrow::Cow;
use std::ffi::CStr;

use super::driver::Source;

/// A constant for each file, and all of them in [`ALL`].
macro_rules! sources {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(
            #[doc = concat!("`kernels/", $file, "`.")]
            pub static $name: Source = Source {
                name: Cow::Borrowed($file),
                text: Cow::Borrowed(include_str!(concat!("../../../kernels/", $file))),
            };
        )+

        /// Every file that has kernels.
        pub static ALL: &[&Source] = &[$(&$name),+];
    };
}

// The longest to compile come first, so that no processor waits for them in the end.
sources! {
    CONV_F32 = "conv_f32.cu",
    CONV_TF32 = "conv_tf32.cu",
    CONV_BF16 = "conv_bf16.cu",
    CONV_WGMMA = "conv_wgmma.cu",
    POOL = "pool.cu",
    REDUCE = "reduce.cu",
    STRUCTURE = "structure.cu",
    XENT = "xent.cu",
}

/// What they include, by name.
pub(super) const HEADERS: [(&CStr, &str); 11] = [
    (c"common.cuh", include_str!("../../../kernels/common.cuh")),
    (c"tensor.cuh", include_str!("../../../kernels/tensor.cuh")),
    (c"norm.cuh", include_str!("../../../kernels/norm.cuh")),
    (c"entrywise.cuh", include_str!("../../../kernels/entrywise.cuh")),
    (c"conv.cuh", include_str!("../../../kernels/conv.cuh")),
    (c"conv_roles.cuh", include_str!("../../../kernels/conv_roles.cuh")),
    (c"conv_wgmma.cuh", include_str!("../../../kernels/conv_wgmma.cuh")),
    (c"wgmma.cuh", include_str!("../../../kernels/wgmma.cuh")),
    (c"conv_small.cuh", include_str!("../../../kernels/conv_small.cuh")),
    (c"conv_small_weights.cuh", include_str!("../../../kernels/conv_small_weights.cuh")),
    (c"conv_small_f32.cuh", include_str!("../../../kernels/conv_small_f32.cuh")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_of_the_folder_is_left_out() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels");
        let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = files.filter(|f| f.ends_with(".cu") || f.ends_with(".cuh")).collect();
        let headers = HEADERS.iter().map(|h| h.0.to_str().unwrap());
        let mut listed: Vec<&str> = ALL.iter().map(|s| &*s.name).chain(headers).collect();
        files.sort();
        listed.sort_unstable();
        assert_eq!(files, listed);
    }
}

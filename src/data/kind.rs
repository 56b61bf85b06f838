use crate::{Error, Result};

/// The data sets that can be named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetKind {
    /// The part of Fashion-MNIST that is compiled into this program: 10,000 + 5,000 grey images of
    /// 28×28.
    FashionMnistMini,
    /// MNIST from IDX files.
    Mnist,
    /// Fashion-MNIST from IDX files.
    FashionMnist,
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version, by fine label.
    Cifar100,
    /// Images in folders: `train/<class>/*`, `meta/<class>/*`, `test/<class>/*`, or named in a
    /// `metadata.csv`.
    Folder,
    /// Arrays: `train.npz`, `train.safetensors`, or `train_x.npy` and `train_y.npy`; likewise
    /// `meta` and `test`.
    Arrays,
    /// Tables of numbers: `train.csv`, and `meta.csv` and `test.csv`.
    Csv,
}

impl DatasetKind {
    /// All of them, in the order of the command's help.
    pub const ALL: [DatasetKind; 8] = [
        DatasetKind::FashionMnistMini,
        DatasetKind::Mnist,
        DatasetKind::FashionMnist,
        DatasetKind::Cifar10,
        DatasetKind::Cifar100,
        DatasetKind::Folder,
        DatasetKind::Arrays,
        DatasetKind::Csv,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            DatasetKind::FashionMnistMini => "fashion-mnist-mini",
            DatasetKind::Mnist => "mnist",
            DatasetKind::FashionMnist => "fashion-mnist",
            DatasetKind::Cifar10 => "cifar10",
            DatasetKind::Cifar100 => "cifar100",
            DatasetKind::Folder => "folder",
            DatasetKind::Arrays => "arrays",
            DatasetKind::Csv => "csv",
        }
    }

    /// The files that are looked for in `--data-dir`; `None` where none are needed.
    pub fn expected_files(self) -> Option<&'static str> {
        match self {
            DatasetKind::FashionMnistMini => None,
            DatasetKind::Mnist | DatasetKind::FashionMnist => Some(
                "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                 t10k-labels-idx1-ubyte, each plain or with .gz",
            ),
            DatasetKind::Cifar10 => Some(
                "data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version of CIFAR-10), there or \
                 in cifar-10-batches-bin",
            ),
            DatasetKind::Cifar100 => {
                Some("train.bin and test.bin (the binary version of CIFAR-100), there or in cifar-100-binary")
            }
            DatasetKind::Folder => Some(
                "train/<class>/ and test/<class>/ with images, or a metadata.csv with the columns file_name and label",
            ),
            DatasetKind::Arrays => Some(
                "train.npz or train.safetensors (with x and y), or train_x.npy and train_y.npy, and the same of test",
            ),
            DatasetKind::Csv => Some("train.csv and test.csv, of numbers and a column `label`"),
        }
    }
}

impl std::fmt::Display for DatasetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for DatasetKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<DatasetKind> {
        let found = DatasetKind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| Error::unknown("data set", text, &DatasetKind::ALL.map(DatasetKind::name)))
    }
}

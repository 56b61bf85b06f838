/// Accuracy in percent, of counts `[true class][predicted class]`.
pub fn accuracy(confusion: &[Vec<u32>]) -> f64 {
    let hits: u32 = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
    let all: u32 = confusion.iter().flatten().sum();
    100.0 * f64::from(hits) / f64::from(all.max(1))
}

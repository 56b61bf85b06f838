/// Accuracy in percent, of counts `[true class][predicted class]`.
pub fn accuracy(confusion: &[Vec<u32>]) -> f64 {
    let hits: u32 = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
    let all: u32 = confusion.iter().flatten().sum();
    100.0 * f64::from(hits) / f64::from(all.max(1))
}

/// The place of the largest number, the first of equal ones.
pub fn argmax(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, v)| if *v > values[best] { i } else { best })
}

/// Probabilities of one image's logits.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|z| (z - top).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

//! FP16 and BF16 to and from FP32, rounded to nearest even.

/// The FP16 bits nearest to `value`.
pub(super) fn f16_bits(value: f64) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return sign | 0x7e00;
    }
    if magnitude >= 65_520.0 {
        return sign | 0x7c00;
    }
    // Units in the last place: 2^-24 below the smallest normal number, else 2^(exponent - 10).
    let exponent = if magnitude < 6.103_515_625e-5 { -14 } else { magnitude.log2_floor() };
    let unit = (f64::from(exponent) - 10.0).exp2();
    let units = (magnitude / unit).round_ties_even() as u32;
    let bits = if units < 1024 && exponent == -14 { units } else { ((exponent + 15) as u32) * 1024 + (units - 1024) };
    sign | bits as u16
}

trait Log2Floor {
    fn log2_floor(self) -> i32;
}

impl Log2Floor for f64 {
    /// The exponent of a normal number.
    fn log2_floor(self) -> i32 {
        ((self.to_bits() >> 52) & 0x7ff) as i32 - 1023
    }
}

/// The value of FP16 bits.
pub(crate) fn f16_value(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f32::from(bits & 0x3ff);
    match (bits >> 10) & 0x1f {
        0 => sign * fraction * (-24f32).exp2(),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        exponent => sign * (1024.0 + fraction) * (f32::from(exponent) - 25.0).exp2(),
    }
}

/// The BF16 bits nearest to `value`.
pub(super) fn bf16_bits(value: f64) -> u16 {
    let bits = to_odd(value).to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    let rounding = 0x7fff + ((bits >> 16) & 1);
    (bits.wrapping_add(rounding) >> 16) as u16
}

/// `value` cut to an f32 whose last bit says that something was cut, so that a second rounding comes out right.
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near).to_bits() == value.to_bits() || value.is_nan() {
        return near;
    }
    let above = f64::from(near).abs() > value.abs();
    f32::from_bits((near.to_bits() - u32::from(above)) | 1)
}

/// The value of BF16 bits.
pub(crate) fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The shortest decimal that reads back to the same FP16 or BF16 bits, by `back`.
pub(super) fn shortest(value: f32, bits: u16, back: impl Fn(f64) -> u16) -> String {
    for digits in 0..8 {
        let text = format!("{value:.digits$e}");
        if text.parse::<f64>().is_ok_and(|read| back(read) == bits) {
            let plain = text.parse::<f64>().map(|read| format!("{read:?}"));
            return plain.unwrap_or(text);
        }
    }
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_reads_back() {
        for bits in 0..=u16::MAX {
            let value = f16_value(bits);
            if !value.is_nan() {
                assert_eq!(f16_bits(f64::from(value)), bits, "{bits:#x} {value}");
            }
        }
        assert_eq!(f16_bits(65_519.9), 0x7bff);
        assert_eq!(f16_bits(65_520.0), 0x7c00);
        assert_eq!(f16_bits(1.0 + 1.0 / 2048.0), 0x3c00);
    }

    #[test]
    fn every_bf16_reads_back_from_its_shortest_text() {
        for bits in (0..=u16::MAX).step_by(7) {
            let value = bf16_value(bits);
            if value.is_finite() {
                let text = shortest(value, bits, bf16_bits);
                assert_eq!(bf16_bits(text.parse().unwrap()), bits, "{text}");
            }
        }
        assert_eq!(shortest(f16_value(0x2e66), 0x2e66, f16_bits), "0.1");
    }

    #[test]
    fn bf16_is_rounded_once() {
        // Just above the middle between 1.0 and its neighbour; an f32 in between would fall on the middle.
        let middle = 1.0 + 1.0 / 256.0;
        assert_eq!(bf16_bits(middle), 0x3f80);
        assert_eq!(bf16_bits(middle + 1e-10), 0x3f81);
        assert_eq!(bf16_bits(-middle - 1e-10), 0xbf81);
        assert_eq!(bf16_bits(1e300), 0x7f80);
        assert_eq!(bf16_bits(f64::NAN) & 0x7fc0, 0x7fc0);
    }
}

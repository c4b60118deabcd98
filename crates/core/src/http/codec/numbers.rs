//! Decimal text to floats and integers: eight digits at a time, correctly rounded, the standard parser where unsure.

#![expect(clippy::inline_always, reason = "measured: calls instead cost a third of the loop over elements")]

use super::Fault;

pub(super) const TOO_BIG: &str = "Number too big to be stored in double.";

/// Exact powers of ten in an f64.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A decimal number in parts: `(-1)^negative * mantissa * 10^exponent`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal {
    negative: bool,
    mantissa: u64,
    exponent: i32,
    /// The mantissa holds every digit (at most 19).
    exact: bool,
    /// It was written without fraction and exponent.
    pub(super) integer: bool,
    /// Bytes of its text.
    pub(super) length: usize,
}

#[inline(always)]
fn eight_digits(bytes: &[u8]) -> Option<u64> {
    let chunk = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    // Each byte is '0'..='9': its high nibble is 3, and adding 6 does not change that.
    let all = ((chunk & 0xf0f0_f0f0_f0f0_f0f0)
        | ((chunk.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0) >> 4))
        == 0x3333_3333_3333_3333;
    if !all {
        return None;
    }
    let value = chunk.wrapping_sub(0x3030_3030_3030_3030);
    let pairs = value.wrapping_mul(10).wrapping_add(value >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some(low.wrapping_add(high) >> 32)
}

/// Reads digits into `mantissa`; how many there were. Stops being exact after 19 significant ones.
#[inline(always)]
fn digits(bytes: &[u8], mantissa: &mut u64, exact: &mut bool) -> usize {
    let mut at = 0;
    while *mantissa < 10_000_000_000 {
        let Some(value) = eight_digits(&bytes[at..]) else { break };
        *mantissa = *mantissa * 100_000_000 + value;
        at += 8;
    }
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        if *mantissa < 1_000_000_000_000_000_000 {
            *mantissa = *mantissa * 10 + u64::from(digit);
        } else {
            *exact = false;
        }
        at += 1;
    }
    at
}

/// The number at the start of `bytes`; `None` if JSON's grammar has none there.
#[inline(always)]
pub(super) fn decimal(bytes: &[u8]) -> Option<Decimal> {
    let negative = bytes.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let (mut mantissa, mut exact, mut exponent, mut integer) = (0, true, 0i32, true);
    let whole = digits(&bytes[at..], &mut mantissa, &mut exact);
    if whole == 0 || (whole > 1 && bytes[at] == b'0') {
        return None;
    }
    at += whole;
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(&bytes[at + 1..], &mut mantissa, &mut exact);
        if fraction == 0 {
            return None;
        }
        exponent = -i32::try_from(fraction).ok()?;
        integer = false;
        at += 1 + fraction;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        let down = bytes.get(at) == Some(&b'-');
        at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
        let (mut written, mut ignored) = (0, true);
        let count = digits(&bytes[at..], &mut written, &mut ignored);
        if count == 0 {
            return None;
        }
        let written = i32::try_from(written.min(100_000)).expect("it was bounded just now");
        exponent += if down { -written } else { written };
        integer = false;
        at += count;
    }
    Some(Decimal { negative, mantissa, exponent, exact, integer, length: at })
}

impl Decimal {
    /// The value and whether it is the correctly rounded one; else it is off by at most two units in the last place.
    #[inline(always)]
    fn approximate(self) -> Option<(f64, bool)> {
        if !self.exact || !(-22..=22).contains(&self.exponent) {
            return None;
        }
        let power = POWERS[self.exponent.unsigned_abs() as usize];
        let mantissa = self.mantissa as f64;
        let value = if self.exponent < 0 { mantissa / power } else { mantissa * power };
        Some((if self.negative { -value } else { value }, self.mantissa <= 1 << 53))
    }

    /// The correctly rounded f64; `None` = too big. `text` is what it was read from.
    #[inline]
    pub(super) fn to_f64(self, text: &[u8]) -> Option<f64> {
        match self.approximate() {
            Some((value, true)) => Some(value),
            _ => slow_f64(std::str::from_utf8(&text[..self.length]).ok()?),
        }
    }

    /// The correctly rounded f32 (above its range: infinity); `None` = too big even for an f64.
    #[inline(always)]
    pub(super) fn to_f32(self, text: &[u8]) -> Option<f32> {
        if let Some((value, _)) = self.approximate() {
            // The 29 bits that an f32 drops: unless they lie beside the middle between two f32s, rounding the
            // approximation gives what rounding the exact value would.
            let dropped = value.to_bits() & 0x1fff_ffff;
            let clear = dropped.abs_diff(0x1000_0000) > 4;
            let magnitude = value.abs();
            if clear && (magnitude >= f64::from(f32::MIN_POSITIVE) || self.mantissa == 0) && magnitude < 3.4e38 {
                return Some(value as f32);
            }
        }
        let text = std::str::from_utf8(&text[..self.length]).ok()?;
        slow_f64(text)?;
        text.parse().ok()
    }

    /// As a signed integer; `None` if it is none of 64 bits.
    #[inline]
    pub(super) fn to_i64(self, text: &[u8]) -> Option<i64> {
        if !self.integer {
            return None;
        }
        if self.exact
            && let Ok(value) = i64::try_from(self.mantissa)
        {
            return Some(if self.negative { -value } else { value });
        }
        std::str::from_utf8(&text[..self.length]).ok()?.parse().ok()
    }

    /// As an unsigned integer; `None` if it is none of 64 bits.
    #[inline]
    pub(super) fn to_u64(self, text: &[u8]) -> Option<u64> {
        if !self.integer || (self.negative && self.mantissa != 0) {
            return None;
        }
        if self.exact {
            return Some(self.mantissa);
        }
        std::str::from_utf8(&text[..self.length]).ok()?.parse().ok()
    }
}

/// The standard parser; `None` where a finite text has no finite value.
pub(super) fn slow_f64(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    (value.is_finite() || text.contains(['N', 'I'])).then_some(value)
}

/// Refuses a number of which an f64 holds no finite value; only a long or exponential text can be one.
pub(super) fn check_range(text: &str, at: usize) -> Result<(), Fault> {
    if (text.len() > 300 || text.contains(['e', 'E'])) && slow_f64(text).is_none() {
        return Err(Fault { message: TOO_BIG, at });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marsaglia's xorshift64, so that the cases are the same in every run.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn case(state: &mut u64) -> String {
        let sign = if random(state).is_multiple_of(2) { "" } else { "-" };
        match random(state) % 5 {
            0 => format!("{sign}{}", f32::from_bits(random(state) as u32 & 0x7f7f_ffff)),
            1 => format!("{sign}{:e}", f64::from_bits(random(state) & 0x7fdf_ffff_ffff_ffff)),
            2 => format!("{sign}{}.{:09}", random(state) % 1000, random(state) % 1_000_000_000),
            3 => format!("{sign}{}e{}", random(state), random(state) as i64 % 40),
            _ => format!("{sign}0.{:018}", random(state) % 1_000_000_000_000_000_000),
        }
    }

    #[test]
    fn rounds_like_the_standard_parser() {
        let mut state = 88_172_645_463_325_252;
        for _ in 0..300_000 {
            let text = case(&mut state);
            let parsed = decimal(text.as_bytes()).unwrap();
            assert_eq!(parsed.length, text.len(), "{text}");
            let wide: f64 = text.parse().unwrap();
            assert_eq!(parsed.to_f64(text.as_bytes()).map(f64::to_bits), Some(wide.to_bits()), "{text}");
            let narrow: f32 = text.parse().unwrap();
            assert_eq!(parsed.to_f32(text.as_bytes()).map(f32::to_bits), Some(narrow.to_bits()), "{text}");
        }
    }

    #[test]
    fn middles_between_two_f32_round_to_even() {
        for text in ["16777217", "16777219", "16777217.0000000001", "0.1000000014901161193847656250000000001"] {
            let parsed = decimal(text.as_bytes()).unwrap();
            assert_eq!(parsed.to_f32(text.as_bytes()), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for bad in ["", "-", "01", ".5", "1.", "1e", "1e+", "--1", "+1", "x"] {
            assert!(decimal(bad.as_bytes()).is_none(), "{bad}");
        }
        let text = b"1e309";
        assert_eq!(decimal(text).unwrap().to_f64(text), None);
        assert_eq!(decimal(b"18446744073709551615").unwrap().to_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"1.0").unwrap().to_i64(b"1.0"), None);
    }
}

//! JSON's rows of numbers, straight from bytes into columns.
//!
//! A reader of any JSON makes a tree of values first, which costs more than the numbers themselves (that is what makes
//! Python slow here). The rows of a `.rec` file are lists of numbers and little else, so a scanner over the bytes is
//! enough; whatever else stands in a cell is stepped over, however deep it nests, without recursion.

/// Powers of ten that a double holds exactly.
pub(crate) const EXACT: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
/// Powers of ten that a `u64` holds.
pub(crate) const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};
/// Digits that a `u64` always holds.
const DIGITS: usize = 19;

/// A number as it is written: `± mantissa · 10^exponent`, and its text for what that cannot hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'a> {
    mantissa: u64,
    exponent: i32,
    negative: bool,
    /// Every digit is in the mantissa.
    exact: bool,
    text: &'a [u8],
}

impl Number<'_> {
    /// The nearest double; infinite where it is too large for one.
    pub(crate) fn to_f64(self) -> f64 {
        if self.exact && self.mantissa <= 1 << 53 && self.exponent.unsigned_abs() < EXACT.len() as u32 {
            let (m, power) = (self.mantissa as f64, EXACT[self.exponent.unsigned_abs() as usize]);
            let value = if self.exponent < 0 { m / power } else { m * power };
            return if self.negative { -value } else { value };
        }
        // With one bit for all that a division leaves, 55 bits round as the infinite quotient would.
        if self.exact && (-18..0).contains(&self.exponent) && self.mantissa > 1 << 53 {
            let divisor = u128::from(POWERS[self.exponent.unsigned_abs() as usize]);
            let wide = u128::from(self.mantissa) << 64;
            let (quotient, rest) = (wide / divisor, wide % divisor);
            let value = (quotient | u128::from(rest > 0)) as f64 * 2f64.powi(-64);
            return if self.negative { -value } else { value };
        }
        std::str::from_utf8(self.text).ok().and_then(|t| t.parse().ok()).unwrap_or(f64::NAN)
    }

    /// The number times `10^power`, rounded to the nearest integer (halves away from zero); `None` where that is beyond
    /// 64 bits.
    pub(crate) fn scaled(self, power: i32) -> Option<i64> {
        let exponent = self.exponent.saturating_add(power);
        let size = match exponent {
            0 => self.mantissa,
            1.. if self.mantissa == 0 => 0,
            1..=19 => self.mantissa.checked_mul(POWERS[exponent as usize])?,
            -19..=-1 => {
                let divisor = POWERS[exponent.unsigned_abs() as usize];
                self.mantissa / divisor + u64::from(self.mantissa % divisor >= divisor.div_ceil(2))
            }
            20.. => return None,
            _ => 0,
        };
        if self.negative { 0i64.checked_sub_unsigned(size) } else { i64::try_from(size).ok() }
    }

    /// The number where it is a whole one within 64 bits.
    pub(crate) fn integer(self) -> Option<i64> {
        let value = self.scaled(0)?;
        let whole = self.exact
            && (self.exponent >= 0
                || self.mantissa == 0
                || (self.exponent >= -19
                    && self.mantissa.is_multiple_of(POWERS[self.exponent.unsigned_abs() as usize])));
        whole.then_some(value)
    }

    /// Written with a point or an exponent.
    pub(crate) fn is_fractional(self) -> bool {
        self.text.iter().any(|b| matches!(b, b'.' | b'e' | b'E'))
    }
}

/// What stands in a cell.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Number(Number<'a>),
    Bool(bool),
    Null,
    /// `NaN`, `Infinity`, `-Infinity`: not JSON, but Python writes it.
    NotFinite,
    Text,
    Nested,
}

/// See the module.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is no white space, not taken.
    #[inline(always)]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte()? {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// Takes this byte if it is next.
    #[inline(always)]
    pub(crate) fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Takes a comma, which a space follows nearly always.
    #[inline(always)]
    pub(crate) fn comma(&mut self) -> bool {
        if self.byte() != Some(b',') {
            return self.take(b',');
        }
        self.at += 1;
        self.at += usize::from(self.byte() == Some(b' '));
        true
    }

    /// Takes a number of at most 19 digits, without sign or exponent, that a comma or bracket follows at once: its digits,
    /// and how many of them stand behind the point. Takes nothing where it is anything else.
    #[inline(always)]
    pub(crate) fn plain(&mut self) -> Option<(u64, usize)> {
        let (mut mantissa, mut end) = take_digits(self.bytes, self.at, 0);
        let mut digits = end - self.at;
        let mut fraction = 0;
        if self.bytes.get(end) == Some(&b'.') && digits > 0 {
            let point = end + 1;
            (mantissa, end) = take_digits(self.bytes, point, mantissa);
            fraction = end - point;
            digits += fraction;
            if fraction == 0 {
                return None;
            }
        }
        if !(1..=DIGITS).contains(&digits) || !matches!(self.bytes.get(end), Some(b',' | b']')) {
            return None;
        }
        self.at = end;
        Some((mantissa, fraction))
    }

    /// Takes one value; `None` where there is none, or its end is missing.
    #[inline(always)]
    pub(crate) fn cell(&mut self) -> Option<Cell<'a>> {
        match self.peek()? {
            b'0'..=b'9' => self.number().map(Cell::Number),
            b'-' if self.bytes[self.at..].starts_with(b"-I") => {
                self.word(b"-Infinity").then_some(Cell::NotFinite)
            }
            b'-' => self.number().map(Cell::Number),
            b'n' => self.word(b"null").then_some(Cell::Null),
            b't' => self.word(b"true").then_some(Cell::Bool(true)),
            b'f' => self.word(b"false").then_some(Cell::Bool(false)),
            b'N' => self.word(b"NaN").then_some(Cell::NotFinite),
            b'I' => self.word(b"Infinity").then_some(Cell::NotFinite),
            b'"' => self.skip_text().then_some(Cell::Text),
            b'[' | b'{' => self.skip_nested().then_some(Cell::Nested),
            _ => None,
        }
    }

    /// Takes digits into `mantissa`, as long as it holds them, and gives how many it took in and how many there were.
    fn digits(&mut self, mantissa: &mut u64, mut held: usize) -> (usize, usize) {
        let start = self.at;
        while let Some(digit) = self.byte().map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
            // Zeros before the first digit take no room.
            if held < DIGITS {
                *mantissa = *mantissa * 10 + u64::from(digit);
                held += usize::from(*mantissa > 0);
            }
            self.at += 1;
        }
        (held, self.at - start)
    }

    /// Takes a number. Nearly all have at most 19 digits and no exponent: for these nothing has to be counted.
    #[inline(always)]
    pub(crate) fn number(&mut self) -> Option<Number<'a>> {
        let start = self.at;
        let negative = self.byte() == Some(b'-');
        let from = start + usize::from(negative);
        let (mut mantissa, mut end) = take_digits(self.bytes, from, 0);
        let mut digits = end - from;
        let mut exponent = 0;
        if self.bytes.get(end) == Some(&b'.') {
            let point = end + 1;
            (mantissa, end) = take_digits(self.bytes, point, mantissa);
            exponent = -((end - point) as i64);
            digits += end - point;
        }
        if !(1..=DIGITS).contains(&digits) || matches!(self.bytes.get(end), Some(b'e' | b'E')) {
            return self.any_number();
        }
        self.at = end;
        let exponent = exponent as i32;
        Some(Number { mantissa, exponent, negative, exact: true, text: &self.bytes[start..end] })
    }

    /// As [`Scanner::number`], whatever its length.
    #[cold]
    fn any_number(&mut self) -> Option<Number<'a>> {
        let start = self.at;
        let negative = self.byte() == Some(b'-');
        self.at += usize::from(negative);
        let (mut mantissa, mut exponent) = (0u64, 0i64);
        let (held, whole) = self.digits(&mut mantissa, 0);
        // Digits that did not fit move the point.
        let mut lost = if held == DIGITS {
            whole - leading_zeros(self.bytes, start + usize::from(negative), whole) - DIGITS
        } else {
            0
        };
        exponent += lost as i64;
        let mut any = whole;
        if self.byte() == Some(b'.') {
            self.at += 1;
            let before = held;
            let from = self.at;
            let (held, fraction) = self.digits(&mut mantissa, before);
            let zeros = if before == 0 { leading_zeros(self.bytes, from, fraction) } else { 0 };
            let taken = if held < DIGITS { fraction } else { (zeros + DIGITS - before).min(fraction) };
            exponent -= taken as i64;
            lost += fraction - taken;
            any += fraction;
        }
        if any == 0 {
            return None;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            let minus = self.byte() == Some(b'-');
            self.at += usize::from(minus || self.byte() == Some(b'+'));
            let mut power = 0u64;
            if self.digits(&mut power, 0).1 == 0 {
                return None;
            }
            let power = i64::try_from(power).unwrap_or(i64::MAX).min(1 << 40);
            exponent += if minus { -power } else { power };
        }
        Some(Number {
            mantissa,
            exponent: exponent.clamp(-1_000_000, 1_000_000) as i32,
            negative,
            exact: lost == 0,
            text: &self.bytes[start..self.at],
        })
    }

    fn skip_text(&mut self) -> bool {
        self.at += 1;
        while let Some(found) = memchr::memchr2(b'"', b'\\', &self.bytes[self.at..]) {
            self.at += found + 1;
            if self.bytes[self.at - 1] == b'"' {
                return true;
            }
            self.at += usize::from(self.at < self.bytes.len());
        }
        self.at = self.bytes.len();
        false
    }

    /// Steps over a list or an object, whatever it holds.
    pub(crate) fn skip_nested(&mut self) -> bool {
        let mut depth = 0usize;
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => {
                    if !self.skip_text() {
                        return false;
                    }
                    continue;
                }
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return true;
            }
        }
        false
    }
}

/// Digits from `at` on, put behind `mantissa` (modulo 2^64), and where they end.
#[inline(always)]
fn take_digits(bytes: &[u8], mut at: usize, mut mantissa: u64) -> (u64, usize) {
    // Eight at once: a number of a recording has about sixteen.
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        // No byte below '0', and none above '9'.
        let below = word.wrapping_sub(0x3030_3030_3030_3030);
        let above = word.wrapping_add(0x4646_4646_4646_4646);
        if (below | above) & 0x8080_8080_8080_8080 != 0 {
            break;
        }
        let pairs = (below.wrapping_mul(10).wrapping_add(below >> 8)) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs.wrapping_mul(100).wrapping_add(pairs >> 16)) & 0x0000_ffff_0000_ffff;
        let all = (fours.wrapping_mul(10_000).wrapping_add(fours >> 32)) & 0xffff_ffff;
        mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(all);
        at += 8;
    }
    while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(digit.into());
        at += 1;
    }
    (mantissa, at)
}

fn leading_zeros(bytes: &[u8], from: usize, count: usize) -> usize {
    bytes[from..from + count].iter().take_while(|b| **b == b'0').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Option<Number<'_>> {
        let mut scanner = Scanner::new(text.as_bytes());
        match scanner.cell() {
            Some(Cell::Number(n)) if scanner.at == text.len() => Some(n),
            _ => None,
        }
    }

    #[test]
    fn numbers_become_doubles_and_scaled_integers() {
        for (text, double, nanos) in [
            ("0", 0.0, Some(0)),
            ("-0.5", -0.5, Some(-500_000_000)),
            ("1578412126.888426", 1578412126.888426, Some(1_578_412_126_888_426_000)),
            ("24.651092851600506", 24.651092851600506, Some(24_651_092_852)),
            ("0.00000000049", 4.9e-10, Some(0)),
            ("0.0000000005", 5e-10, Some(1)),
            ("1e3", 1000.0, Some(1_000_000_000_000)),
            ("1E-2", 0.01, Some(10_000_000)),
            ("123456789012345678901234", 1.2345678901234568e23, None),
            ("0.1234567890123456789012345", 0.12345678901234568, Some(123_456_789)),
            ("1e400", f64::INFINITY, None),
            ("1e-99999999999999999999", 0.0, Some(0)),
            ("0e99999", 0.0, Some(0)),
        ] {
            let n = number(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((n.to_f64(), n.scaled(9)), (double, nanos), "{text}");
        }
    }

    #[test]
    fn only_whole_numbers_are_integers() {
        for (text, expected) in [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("7.5", None),
            ("70e-1", Some(7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
        ] {
            assert_eq!(number(text).and_then(Number::integer), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_told_apart() {
        for text in ["", "-", ".", "1e", "+1", "x", "nul", "\"open", "[1, [2"] {
            assert!(Scanner::new(text.as_bytes()).cell().is_none(), "{text}");
        }
        assert!(matches!(Scanner::new(b"NaN").cell(), Some(Cell::NotFinite)));
        assert!(matches!(Scanner::new(b"-Infinity").cell(), Some(Cell::NotFinite)));
        assert!(matches!(Scanner::new(b" null").cell(), Some(Cell::Null)));
        let mut text = Scanner::new(br#""a\"]" , 1"#);
        assert!(matches!(text.cell(), Some(Cell::Text)) && text.take(b','));
        let bomb = "[".repeat(1 << 20);
        assert!(Scanner::new(bomb.as_bytes()).cell().is_none());
    }

    proptest! {
        #[test]
        fn every_double_reads_as_the_standard_library_reads_it(bits: u64, digits in 0usize..25) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format!("{value:?}"), format!("{value:e}"), format!("{:.digits$}", value % 1e20)] {
                let ours = number(&text).map(Number::to_f64);
                prop_assert_eq!(ours, Some(text.parse::<f64>().unwrap()), "{}", text);
            }
        }

        #[test]
        fn nanoseconds_are_exact_to_the_last_digit(seconds in -4_000_000_000i64..4_000_000_000, ns in 0u32..1_000_000_000) {
            let text = format!("{seconds}.{ns:09}");
            let size = seconds.abs() * 1_000_000_000 + i64::from(ns);
            let expected = if text.starts_with('-') { -size } else { size };
            prop_assert_eq!(number(&text).and_then(|n| n.scaled(9)), Some(expected));
        }
    }
}

//! Reading the kernel's texts, as bytes and without allocation. Nothing here panics, whatever the bytes are.

use probe::MAX_NAME;

/// The lines.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

/// What stands between blanks.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// A decimal number without a sign; `None` for anything else, and beyond 64 bits.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { sum.checked_mul(10)?.checked_add(digit.into()) }
    })
}

/// A finite number with or without a decimal point.
pub(super) fn decimal(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The first word of the text, as a number.
pub(super) fn first(text: &[u8]) -> Option<u64> {
    words(text).next().and_then(number)
}

/// The numbers at the beginning of a line, up to `N`; those that are missing are 0. Also how many there were.
pub(super) fn numbers<const N: usize>(line: &[u8]) -> ([u64; N], usize) {
    let (mut out, mut count) = ([0; N], 0);
    for (slot, word) in out.iter_mut().zip(words(line)) {
        let Some(value) = number(word) else { break };
        *slot = value;
        count += 1;
    }
    (out, count)
}

/// Reads lines of the form `key value` or `key: value unit` into `found`, one slot a key; slots whose key is not there
/// become `None`. Gives how many were there, and where the last of them ends. Quickest with the keys in the order of the text.
pub(super) fn keyed<'k>(
    text: &[u8],
    keys: impl Iterator<Item = &'k str> + Clone,
    found: &mut [Option<u64>],
) -> (usize, usize) {
    found.fill(None);
    let (mut rest, mut slot, mut wanted) = (text, 0, keys.clone().peekable());
    while let Some(key) = wanted.peek()
        && !rest.is_empty()
    {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        if let (Some(value), Some(found)) = (value_on(&rest[..end], key.as_bytes()), found.get_mut(slot)) {
            *found = first(value);
            slot += 1;
            wanted.next();
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    let mut end = text.len() - rest.len();
    // What the text has in another order, if at all.
    for (key, found) in wanted.zip(found.iter_mut().skip(slot)) {
        *found = lines(text).find_map(|line| value_on(line, key.as_bytes())).and_then(first);
        end = text.len();
    }
    (found.iter().flatten().count(), end)
}

/// What stands behind `key` on a line that begins with it.
fn value_on<'l>(line: &'l [u8], key: &[u8]) -> Option<&'l [u8]> {
    let value = line.strip_prefix(key)?;
    matches!(value.first()?, b' ' | b':' | b'\t').then(|| &value[1..])
}

/// One name of a table out of a prefix and a name that the kernel or a person gave (`disk`, `cciss!c0d0`). What a table
/// may not have becomes `-`, and then a hash of the whole name follows, so that two names never become one.
pub(super) fn table_name(prefix: &str, name: &str) -> String {
    let mut out = String::with_capacity(MAX_NAME);
    let (mut changed, room) = (name.is_empty(), MAX_NAME - prefix.len() - 7);
    for byte in name.bytes() {
        let kept = byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        changed |= !kept;
        let byte = if kept { byte } else { byte.to_ascii_lowercase() };
        if byte.is_ascii_lowercase() || kept {
            out.push(char::from(byte));
        } else if !out.ends_with('-') {
            out.push('-');
        }
    }
    if out.len() > room {
        out.truncate(room);
        changed = true;
    }
    if changed {
        // FNV-1a, 32 bits folded to 20.
        let hash = name
            .bytes()
            .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let out = out.trim_end_matches('-');
        return format!(
            "{prefix}-{out}{}{:05x}",
            if out.is_empty() { "" } else { "-" },
            (hash >> 20) ^ (hash & 0xf_ffff)
        );
    }
    format!("{prefix}-{out}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_exact_or_none() {
        for (text, expected) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-1", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(numbers::<3>(b" 1 2 x 4"), ([1, 2, 0], 2));
        assert_eq!((decimal(b"1.5"), decimal(b"nan"), decimal(b"1,5")), (Some(1.5), None, None));
    }

    #[test]
    fn keys_are_found_whatever_separates_them() {
        let mut found = [Some(7); 4];
        let text = b"MemTotal:  12 kB\nHuge: x\npgfault 9\nbroken\nMemTotalX: 3\n\n";
        assert_eq!(
            keyed(text, ["MemTotal", "Huge", "pgfault", "none"].into_iter(), &mut found),
            (2, text.len())
        );
        assert_eq!(found, [Some(12), None, Some(9), None]);
        assert_eq!(keyed(b"", ["MemTotal"].into_iter(), &mut found), (0, 0));
        assert_eq!(keyed(b"a 1\nb 2\nc 3\n", ["b"].into_iter(), &mut found), (1, 8));
        let mut found = [None; 3];
        assert_eq!(keyed(b"xa 1\nb: 2\nab 3\na 4", ["b", "a", "x"].into_iter(), &mut found).0, 2);
        assert_eq!(found, [Some(2), Some(4), None], "whole keys, in any order");
    }

    #[test]
    fn names_become_names_of_tables_and_stay_apart() {
        for (name, expected) in [("vda", "disk-vda"), ("dm-0", "disk-dm-0"), ("nvme0n1", "disk-nvme0n1")] {
            assert_eq!(table_name("disk", name), expected);
        }
        let odd = ["Vda", "VDA", "cciss!c0d0", "cciss/c0d0", "", "!", &"x".repeat(100), &"x".repeat(101)];
        let mut names: Vec<String> = odd.iter().map(|name| table_name("disk", name)).collect();
        for name in &names {
            probe::Table::new(name.as_str(), "").check().unwrap();
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), odd.len(), "{names:?}");
    }

    proptest! {
        #[test]
        fn any_name_becomes_a_valid_one(name in ".{0,200}") {
            prop_assert!(probe::Table::new(table_name("process-pattern", &name), "").check().is_ok());
        }

        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut found = [None; 2];
            keyed(&text, ["a", "b"].into_iter(), &mut found);
            numbers::<4>(&text);
            decimal(&text);
            first(&text);
        }
    }
}

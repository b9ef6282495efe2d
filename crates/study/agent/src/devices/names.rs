//! Names that devices and peers give, made fit for tables and columns.

/// `raw` in the characters of a table's name (a-z, 0-9, `_`, `-`), at most `longest` of them; others become `-`.
pub(crate) fn table_part(raw: &str, longest: usize) -> String {
    let fit = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_' | '-') => c,
        _ => '-',
    };
    let part: String = raw.trim_start_matches(['#', '/']).chars().take(longest).map(fit).collect();
    if part.is_empty() { "unnamed".into() } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_valid_one() {
        assert_eq!(table_part("drive-Virtio_disk0", 40), "drive-virtio_disk0");
        assert_eq!(table_part("#block171", 40), "block171");
        assert_eq!(table_part("/machine/x y\u{e4}", 40), "machine-x-y-");
        assert_eq!(table_part("abcdef", 3), "abc");
        assert_eq!(table_part("###", 3), "unnamed");
    }
}

//! Which processes are meant: `pid:1234`, `name:qemu-system-x86`, `pattern:REGEX`, each also as `tree:…`.

use regex_lite::Regex;

use super::super::text::table_name;

/// What the kernel keeps of a process's name.
const COMM: usize = 15;

/// How processes are recognised.
#[derive(Clone, Debug)]
pub(super) enum Means {
    /// This one, as long as it runs; a later process of the same number is another.
    Pid(u32),
    /// All of this name: the kernel's (`comm`, at most 15 bytes) or the executable's file name.
    Name(String),
    /// All whose command line, its arguments joined by blanks, contains a match.
    Pattern(Regex),
}

/// Which processes are meant.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) means: Means,
    /// Their descendants too.
    pub(super) tree: bool,
    /// The table's name.
    pub(super) table: String,
}

impl Target {
    /// Reads a target as a person writes it.
    ///
    /// # Errors
    /// What is wrong with it and what would be right.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (tree, rest) = text.strip_prefix("tree:").map_or((false, text), |rest| (true, rest));
        let (kind, value) = rest.split_once(':').unwrap_or(("", rest));
        if value.is_empty() {
            return Err("nothing stands behind the ':'".into());
        }
        let means = match kind {
            "pid" => {
                Means::Pid(value.parse().ok().filter(|pid| *pid > 0).ok_or("a PID is a positive number")?)
            }
            "name" => Means::Name(value.into()),
            "pattern" => Means::Pattern(Regex::new(value).map_err(|error| error.to_string())?),
            _ => return Err("use pid:NUMBER, name:NAME or pattern:REGEX, or tree: and one of them".into()),
        };
        let table = match (tree, &means) {
            (false, Means::Name(name)) => table_name("process", name),
            (true, Means::Name(name)) => table_name("process-tree", name),
            (false, _) => table_name(&format!("process-{kind}"), value),
            (true, _) => table_name(&format!("process-tree-{kind}"), value),
        };
        Ok(Self { means, tree, table })
    }

    /// True if a process of this kernel's name, executable's file name and command line is meant. The latter two are
    /// only asked for if they matter.
    pub(super) fn matches(
        &self,
        comm: &[u8],
        executable: impl FnOnce() -> Option<Vec<u8>>,
        command_line: impl FnOnce() -> Option<Vec<u8>>,
    ) -> bool {
        match &self.means {
            Means::Pid(_) => false,
            Means::Name(name) => {
                let name = name.as_bytes();
                // A name that the kernel has cut short may be of another program.
                let same = comm == name && name.len() < COMM;
                same || executable().map_or(comm == &name[..name.len().min(COMM)], |executable| {
                    executable == name || (comm == name && executable.starts_with(name))
                })
            }
            Means::Pattern(regex) => command_line().is_some_and(|line| {
                let mut line = line;
                line.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
                regex.is_match(String::from_utf8_lossy(&line).trim_end())
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_wrong_ones_refused_with_the_remedy() {
        for (text, table) in [
            ("pid:12", "process-pid-12"),
            ("name:qemu-system-x86", "process-qemu-system-x86"),
            ("tree:name:make", "process-tree-make"),
            ("tree:pid:7", "process-tree-pid-7"),
        ] {
            assert_eq!(Target::parse(text).unwrap().table, table);
        }
        let pattern = Target::parse("pattern:qemu.*-name vm1").unwrap();
        assert!(pattern.table.starts_with("process-pattern-qemu-"), "{}", pattern.table);
        assert_ne!(pattern.table, Target::parse("pattern:qemu.*-name-vm1").unwrap().table);
        for (text, said) in [
            ("", "behind the ':'"),
            ("qemu", "pid:NUMBER"),
            ("pid:0", "positive"),
            ("pid:x", "positive"),
            ("name:", "behind the ':'"),
            ("pattern:(", ""),
            ("comm:x", "pattern:REGEX"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_is_the_kernels_or_the_executables() {
        let check = |target: &str, comm: &str, executable: Option<&str>, line: &str| {
            let bytes = |text: &str| text.as_bytes().to_vec();
            let target = Target::parse(target).unwrap();
            target.matches(comm.as_bytes(), || executable.map(bytes), || Some(bytes(line)))
        };
        assert!(check("name:cat", "cat", None, ""));
        assert!(check("name:python3.11", "worker", Some("python3.11"), ""));
        assert!(check("name:qemu-system-x86_64", "qemu-system-x86", Some("qemu-system-x86_64"), ""));
        assert!(
            check("name:qemu-system-x86_64", "qemu-system-x86", None, ""),
            "not readable: as far as known"
        );
        assert!(check("name:qemu-system-x86", "qemu-system-x86", Some("qemu-system-x86_64"), ""));
        assert!(!check("name:qemu-system-x86_64", "qemu-system-x86", Some("qemu-system-x86_old"), ""));
        assert!(!check("name:cat", "bat", Some("bat"), "cat"));
        assert!(check("pattern:-name vm[12]$", "qemu", None, "qemu\0-name\0vm1\0"));
        assert!(!check("pattern:-name vm[12]$", "qemu", None, "qemu\0-name\0vm3\0"));
    }
}

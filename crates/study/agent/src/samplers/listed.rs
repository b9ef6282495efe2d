//! What the kernel lists by name, a line each (disks, interfaces, interrupts): found again at the same place mostly.

/// The items of a list by name, in the order in which they were first seen.
pub(super) struct Listed<T> {
    entries: Vec<Entry<T>>,
    expected: usize,
    cap: usize,
}

pub(super) struct Entry<T> {
    name: Box<[u8]>,
    pub(super) item: T,
    seen: bool,
    there: bool,
}

impl<T> Listed<T> {
    /// An empty list that takes no more than `cap` names.
    pub(super) fn new(cap: usize) -> Self {
        Self { entries: Vec::new(), expected: 0, cap }
    }

    /// A new reading begins.
    pub(super) fn begin(&mut self) {
        self.expected = 0;
        self.entries.iter_mut().for_each(|entry| entry.seen = false);
    }

    /// The item of this name, made by `make` if it is new; `None` when the list is full.
    pub(super) fn seen(&mut self, name: &[u8], make: impl FnOnce(&[u8]) -> T) -> Option<&mut T> {
        let at = match self.entries.get(self.expected) {
            Some(entry) if *entry.name == *name => self.expected,
            _ => match self.entries.iter().position(|entry| *entry.name == *name) {
                Some(at) => at,
                None if self.entries.len() < self.cap => {
                    let item = make(name);
                    self.entries.push(Entry { name: name.into(), item, seen: false, there: false });
                    self.entries.len() - 1
                }
                None => return None,
            },
        };
        self.expected = at + 1;
        let entry = &mut self.entries[at];
        entry.seen = true;
        entry.there = true;
        Some(&mut entry.item)
    }

    /// The reading is over: calls `gone` for each item that was there before and is not now.
    pub(super) fn end(&mut self, mut gone: impl FnMut(&[u8], &mut T)) {
        for entry in self.entries.iter_mut().filter(|entry| entry.there && !entry.seen) {
            entry.there = false;
            gone(&entry.name, &mut entry.item);
        }
    }

    pub(super) fn items_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|entry| &mut entry.item)
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_again_in_any_order_and_missed_when_they_go() {
        let mut list = Listed::new(3);
        let (mut made, mut read) = (0, Vec::new());
        for names in [&["a", "b"][..], &["b", "a"], &["b", "c", "d"], &["b", "c"], &["a", "b", "c"]] {
            let mut gone = String::new();
            list.begin();
            let known = |name: &&&str| {
                let make = |_: &[u8]| made += 1;
                list.seen(name.as_bytes(), make).is_some()
            };
            let found = names.iter().filter(known).count();
            list.end(|name, ()| gone.push_str(&String::from_utf8_lossy(name)));
            read.push((found, gone));
        }
        let expected = [(2, ""), (2, ""), (2, "a"), (2, ""), (3, "")];
        assert_eq!(read, expected.map(|(found, gone)| (found, gone.to_owned())));
        assert_eq!(made, 3, "'d' found the list full");
    }
}

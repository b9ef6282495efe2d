//! One producer, one consumer, fixed rows of 64-bit words, all in safe code: the words are relaxed atomics, and the
//! indices carry the ordering (`RING-PUBLISH`: the producer's Release of `head` to the consumer's Acquire;
//! `RING-FREE`: the consumer's Release of `tail` to the producer's Acquire).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use units::Nanos;

use crate::schema::{Table, Value};

pub(crate) struct Ring {
    table: Table,
    words: Box<[AtomicU64]>,
    capacity: usize,
    /// Rows written since the start. Only the producer stores it.
    head: AtomicUsize,
    /// Rows read since the start. Only the consumer stores it.
    tail: AtomicUsize,
    lost: AtomicU64,
}

impl Ring {
    pub(crate) fn new(table: Table, capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let words = (0..capacity * (table.columns.len() + 1)).map(|_| AtomicU64::new(0)).collect();
        Self { table, words, capacity, head: 0.into(), tail: 0.into(), lost: 0.into() }
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Producer side; the caller holds the only emitter (`&mut`).
    #[inline]
    pub(crate) fn push(&self, at: Nanos, values: &[Value]) {
        debug_assert!(
            values.len() == self.table.columns.len()
                && values.iter().zip(&self.table.columns).all(|(v, c)| v.column_type() == c.column_type),
            "row does not fit table {}",
            self.table.name
        );
        let head = self.head.load(Ordering::Relaxed);
        // RING-FREE
        if head.wrapping_sub(self.tail.load(Ordering::Acquire)) >= self.capacity {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let width = self.table.columns.len() + 1;
        let start = head % self.capacity * width;
        let Some((stamp, cells)) = self.words[start..start + width].split_first() else { return };
        stamp.store(at.0 as u64, Ordering::Relaxed);
        for (i, cell) in cells.iter().enumerate() {
            cell.store(values.get(i).map_or(0, |v| v.to_bits()), Ordering::Relaxed);
        }
        // RING-PUBLISH
        self.head.store(head.wrapping_add(1), Ordering::Release);
    }

    /// Consumer side: appends all waiting rows.
    pub(crate) fn pop_into(&self, out: &mut Vec<u64>) {
        let tail = self.tail.load(Ordering::Relaxed);
        // RING-PUBLISH
        let waiting = self.head.load(Ordering::Acquire).wrapping_sub(tail);
        let width = self.table.columns.len() + 1;
        out.reserve(waiting * width);
        for row in 0..waiting {
            let start = tail.wrapping_add(row) % self.capacity * width;
            out.extend(self.words[start..start + width].iter().map(|w| w.load(Ordering::Relaxed)));
        }
        // RING-FREE
        self.tail.store(tail.wrapping_add(waiting), Ordering::Release);
    }
}

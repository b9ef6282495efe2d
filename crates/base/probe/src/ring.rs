//! One producer, one consumer, fixed rows of 64-bit words. The words are relaxed atomics, and the indices carry the
//! ordering (`RING-PUBLISH`: the producer's Release of `head` to the consumer's Acquire; `RING-FREE`: the consumer's
//! Release of `tail` to the producer's Acquire).
//!
//! The words lie on this program's heap, or in a file that the machine's agent reads ([`crate::layout`]).

use std::sync::atomic::{AtomicU64, Ordering};

use units::Nanos;

use crate::layout::{COLUMN, COLUMNS, HEAD, LOST, TAIL, TAIL_CHECK};
use crate::mapped::Mapped;
use crate::schema::{Table, Value};

enum Memory {
    Heap(Box<[AtomicU64]>),
    Mapped(Mapped),
}

pub(crate) struct Ring {
    table: Table,
    memory: Memory,
    /// Rows; a power of two.
    capacity: u64,
    /// Word at which the rows begin.
    rows: usize,
}

/// What only the producer knows: its own index, and the last it saw of the consumer's.
#[derive(Default)]
pub(crate) struct Producer {
    head: u64,
    tail: u64,
}

impl Ring {
    /// On the heap; `capacity` is rounded up to a power of two.
    pub(crate) fn new(table: Table, capacity: usize) -> Self {
        let capacity = capacity.max(1).next_power_of_two() as u64;
        let rows = COLUMNS / 8;
        let words = rows + capacity as usize * (table.columns.len() + 1);
        let memory = Memory::Heap((0..words).map(|_| AtomicU64::new(0)).collect());
        Self { table, memory, capacity, rows }
    }

    /// In a file that is laid out for `table` and `capacity`.
    pub(crate) fn mapped(table: Table, capacity: u32, mapped: Mapped) -> Self {
        let rows = (COLUMNS + table.columns.len() * COLUMN) / 8;
        Self { table, memory: Memory::Mapped(mapped), capacity: capacity.into(), rows }
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    fn words(&self) -> &[AtomicU64] {
        match &self.memory {
            Memory::Heap(words) => words,
            Memory::Mapped(mapped) => mapped.words(),
        }
    }

    pub(crate) fn lost(&self) -> u64 {
        self.words()[LOST].load(Ordering::Relaxed)
    }

    /// Rows that are read by now, or `None` while that changes under the producer's eyes.
    fn freed(&self, words: &[AtomicU64]) -> Option<u64> {
        // RING-FREE
        let tail = words[TAIL].load(Ordering::Acquire);
        match self.memory {
            Memory::Heap(_) => Some(tail),
            // The agent writes both with one system call, which need not be one store.
            Memory::Mapped(_) => (words[TAIL_CHECK].load(Ordering::Acquire) == !tail).then_some(tail),
        }
    }

    /// Producer side; `producer` is the only one of this ring.
    #[inline]
    pub(crate) fn push(&self, producer: &mut Producer, at: Nanos, values: &[Value]) {
        debug_assert!(
            values.len() == self.table.columns.len()
                && values.iter().zip(&self.table.columns).all(|(v, c)| v.column_type() == c.column_type),
            "row does not fit table {}",
            self.table.name
        );
        let words = self.words();
        if producer.head.wrapping_sub(producer.tail) >= self.capacity {
            producer.tail = self.freed(words).unwrap_or(producer.tail);
            // A reader that claims more than was written is none to believe.
            if producer.head.wrapping_sub(producer.tail) >= self.capacity {
                words[LOST].fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let width = self.table.columns.len() + 1;
        let start = self.rows + (producer.head & (self.capacity - 1)) as usize * width;
        let Some((stamp, cells)) = words.get(start..start + width).and_then(<[_]>::split_first) else {
            return;
        };
        stamp.store(at.0 as u64, Ordering::Relaxed);
        for (i, cell) in cells.iter().enumerate() {
            cell.store(values.get(i).map_or(0, |v| v.to_bits()), Ordering::Relaxed);
        }
        producer.head = producer.head.wrapping_add(1);
        // RING-PUBLISH
        words[HEAD].store(producer.head, Ordering::Release);
    }

    /// Consumer side, for rings on the heap: appends all waiting rows.
    pub(crate) fn pop_into(&self, out: &mut Vec<u64>) {
        let words = self.words();
        let tail = words[TAIL].load(Ordering::Relaxed);
        // RING-PUBLISH
        let waiting = words[HEAD].load(Ordering::Acquire).wrapping_sub(tail).min(self.capacity);
        let width = self.table.columns.len() + 1;
        out.reserve(waiting as usize * width);
        for row in 0..waiting {
            let start = self.rows + (tail.wrapping_add(row) & (self.capacity - 1)) as usize * width;
            out.extend(words[start..start + width].iter().map(|w| w.load(Ordering::Relaxed)));
        }
        // RING-FREE
        words[TAIL].store(tail.wrapping_add(waiting), Ordering::Release);
    }
}

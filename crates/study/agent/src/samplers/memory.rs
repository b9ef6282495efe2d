//! What memory is used for, from `/proc/meminfo`.

use super::keyed::Scale::Kibi;
use super::keyed::{Keyed, What};
use super::{Kind, Target};

/// How it is chosen and opened.
pub(super) const KIND: Kind = Kind {
    name: "memory",
    default: true,
    target: Target::None,
    open: |root, _| Ok(Box::new(Keyed::new(&WHAT, root))),
};

static WHAT: What = What {
    kind: KIND,
    description: "what the machine's memory is used for now",
    path: "meminfo",
    whole: true,
    fields: &[
        ("MemTotal", Kibi, "total_bytes", "memory that the kernel manages"),
        ("MemFree", Kibi, "free_bytes", "memory that nobody uses"),
        ("MemAvailable", Kibi, "available_bytes", "memory that could be had without swapping, estimated"),
        ("Buffers", Kibi, "buffers_bytes", "cache of block devices"),
        ("Cached", Kibi, "cached_bytes", "cache of files, shared memory included"),
        ("SwapCached", Kibi, "swap_cached_bytes", "swapped-in memory that still has its place in swap"),
        ("Unevictable", Kibi, "unevictable_bytes", "memory that cannot be reclaimed, locked memory included"),
        ("SwapTotal", Kibi, "swap_total_bytes", "swap space"),
        ("SwapFree", Kibi, "swap_free_bytes", "swap space that nobody uses"),
        ("Dirty", Kibi, "dirty_bytes", "cache that waits to be written"),
        ("Writeback", Kibi, "writeback_bytes", "cache that is being written"),
        ("AnonPages", Kibi, "anonymous_bytes", "programs' own memory that is mapped"),
        ("Mapped", Kibi, "mapped_bytes", "files that programs have mapped"),
        ("Shmem", Kibi, "shared_bytes", "shared memory and tmpfs"),
        ("SReclaimable", Kibi, "slab_reclaimable_bytes", "the kernel's caches that can be reclaimed"),
        ("SUnreclaim", Kibi, "slab_unreclaimable_bytes", "the kernel's objects that cannot be reclaimed"),
        ("KernelStack", Kibi, "kernel_stack_bytes", "stacks of threads within the kernel"),
        ("PageTables", Kibi, "page_tables_bytes", "page tables"),
        ("Committed_AS", Kibi, "committed_bytes", "memory that programs were promised"),
        ("AnonHugePages", Kibi, "anonymous_huge_bytes", "programs' own memory in transparent huge pages"),
        ("Hugetlb", Kibi, "huge_pages_bytes", "memory set aside as huge pages, of all sizes"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Sampler;
    use crate::samplers::testing::{Taken, fixture, write};

    #[test]
    fn kibibytes_become_bytes_and_what_the_kernel_lacks_is_no_column() {
        let text = "MemTotal:       24683656 kB\nMemFree:        12893356 kB\nDirty:  x kB\nOdd\n";
        let (dir, root) = fixture(&[("proc/meminfo", text)]);
        let mut memory = Keyed::new(&WHAT, &root);
        let taken = Taken::of(&mut memory);
        assert_eq!(taken.count("memory", "total_bytes"), 24_683_656 * 1024);
        assert_eq!(taken.rows[0].0.columns.len(), 2, "dirty_bytes is no number and left out");
        write(dir.path(), "proc/meminfo", "MemFree: 5 kB\n");
        let taken = Taken::of(&mut memory);
        assert_eq!(taken.count("memory", "total_bytes"), 24_683_656 * 1024);
        assert_eq!(taken.count("memory", "free_bytes"), 5 * 1024);
        write(dir.path(), "proc/meminfo", "nothing of it\n");
        assert_eq!(Taken::of(&mut memory).kinds(), ["source_gone"]);
        assert_eq!(memory.info().tables.len(), 1);
    }
}

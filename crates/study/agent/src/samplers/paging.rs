//! Page faults, swapping and reclaim, from `/proc/vmstat`.

use super::keyed::Scale::{Kibi, One, Pages};
use super::keyed::{Keyed, What};
use super::{Kind, Target};

/// How it is chosen and opened.
pub(super) const KIND: Kind = Kind {
    name: "paging",
    default: true,
    target: Target::None,
    open: |root, _| Ok(Box::new(Keyed::new(&WHAT, root))),
};

static WHAT: What = What {
    kind: KIND,
    description: "page faults, swapping and reclaim since boot",
    path: "vmstat",
    whole: false,
    fields: &[
        ("pgpgin", Kibi, "paged_in_bytes", "read from block devices since boot"),
        ("pgpgout", Kibi, "paged_out_bytes", "written to block devices since boot"),
        ("pswpin", Pages, "swapped_in_bytes", "read from swap since boot"),
        ("pswpout", Pages, "swapped_out_bytes", "written to swap since boot"),
        ("pgfault", One, "faults", "page faults since boot, major ones included"),
        ("pgmajfault", One, "major_faults", "page faults since boot that had to wait for a disk"),
        (
            "pgscan_direct",
            One,
            "direct_reclaim_pages",
            "pages that programs scanned to get memory, since boot",
        ),
        ("oom_kill", One, "oom_kills", "processes killed for lack of memory since boot"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture};

    #[test]
    fn each_counter_is_in_its_own_unit() {
        let text = "nr_free_pages 2415348\npgpgin 10\npgpgout 20\npswpin 3\npgfault 25330544\noom_kill 1\n";
        let (_dir, root) = fixture(&[("proc/vmstat", text)]);
        let taken = Taken::of(&mut Keyed::new(&WHAT, &root));
        assert_eq!(taken.count("paging", "paged_in_bytes"), 10 * 1024);
        assert_eq!(taken.count("paging", "swapped_in_bytes"), 3 * rustix::param::page_size() as u64);
        assert_eq!(taken.count("paging", "faults"), 25_330_544);
        assert_eq!(taken.count("paging", "oom_kills"), 1);
        assert_eq!(taken.rows[0].0.columns.len(), 5);
    }
}

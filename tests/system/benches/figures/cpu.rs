//! CPU time of a process and its descendants, in nanoseconds of the scheduler's own accounting.

use std::fs;

/// CPU time of the process and all its descendants so far: the sum over their threads of `/proc/PID/task/TID/schedstat`.
/// Threads that ended since are not in it.
pub(crate) fn tree_ns(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    tasks
        .flatten()
        .map(|task| {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let own: u64 =
                read("schedstat").split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let below: u64 =
                read("children").split_whitespace().filter_map(|p| p.parse().ok()).map(tree_ns).sum();
            own + below
        })
        .sum()
}

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::devices::testing::Collected;

/// A copy of a fixture, to change.
struct Machine(tempfile::TempDir);

impl Machine {
    fn of(name: &str) -> Self {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/drm").join(name), copy.path());
        Self(copy)
    }

    fn sampler(&self) -> DrmGpus {
        DrmGpus::new(self.0.path())
    }

    fn fdinfo(&self, pid: u32, fd: u32) -> PathBuf {
        self.0.path().join(format!("proc/{pid}/fdinfo/{fd}"))
    }

    /// Replaces in a client's fdinfo.
    fn set(&self, pid: u32, fd: u32, from: &str, to: &str) {
        let path = self.fdinfo(pid, fd);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    fn client(&self, pid: u32, fd: u32, text: &str) {
        let process = self.0.path().join(format!("proc/{pid}"));
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::create_dir_all(process.join("fdinfo")).unwrap();
        symlink("/dev/dri/renderD128", process.join(format!("fd/{fd}"))).unwrap();
        fs::write(self.fdinfo(pid, fd), text).unwrap();
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.0.path().join(format!("proc/{pid}"))).unwrap();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn seconds(rows: &Collected) -> f64 {
    let [.., (_, a, _), (_, b, _)] = rows.rows.as_slice() else { panic!("two rows") };
    Nanos(b.0 - a.0).as_secs_f64()
}

/// The time since the last search, as if it had passed.
fn search_again(sampler: &mut DrmGpus) {
    sampler.search = Search::new(sampler.search_root());
}

impl DrmGpus {
    fn search_root(&self) -> PathBuf {
        self.search.proc().to_owned()
    }
}

#[test]
fn a_client_that_shows_through_several_descriptors_counts_once() {
    let machine = Machine::of("i915");
    let mut sampler = machine.sampler();
    assert_eq!(sampler.info().unavailable, "");
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    for (pid, fd) in [(1200, 5), (1200, 9), (1310, 4)] {
        machine.set(pid, fd, "render:\t9288864723", "render:\t9288964723");
        machine.set(pid, fd, "video:\t500000000", "video:\t500200000");
    }
    sampler.sample(&mut rows);
    assert_eq!(rows.tables(), ["gpu-drm-0"]);
    assert_eq!(rows.u64("gpu-drm-0", "clients"), [2, 2]);
    assert_eq!(rows.u64("gpu-drm-0", "render_busy_ns"), [0, 100_000]);
    assert_eq!(rows.u64("gpu-drm-0", "memory_system_bytes"), [3 << 20, 3 << 20]);
    let (render, video) = (rows.f64("gpu-drm-0", "render_percent"), rows.f64("gpu-drm-0", "video_percent"));
    assert!(render[0].is_nan());
    assert!((render[1] - 100.0 * 1e-4 / seconds(&rows)).abs() < 1e-6, "{render:?}");
    assert!((video[1] - render[1]).abs() < 1e-6, "twice the time on two engines is the same share");
    assert_eq!(rows.f64("gpu-drm-0", "clock_hz"), [1.3e9, 1.3e9]);
    assert_eq!(rows.f64("gpu-drm-0", "energy_joules"), [7250.0, 7250.0]);
    assert_eq!(rows.f64("gpu-drm-0", "power_watts")[1], 0.0);
    assert_eq!(rows.facts["gpu-drm-0.driver"], "i915");
    assert_eq!(rows.facts["gpu-drm.scope"], "all processes");
}

#[test]
fn xe_gives_shares_of_cycles() {
    let machine = Machine::of("xe");
    let mut sampler = machine.sampler();
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    // A quarter of a million cycles of a million, on one 3D engine and on four compute engines.
    machine.set(900, 26, "total-cycles-rcs:\t7655183225", "total-cycles-rcs:\t7656183225");
    machine.set(900, 26, "drm-cycles-rcs:\t28257900", "drm-cycles-rcs:\t28507900");
    machine.set(900, 26, "total-cycles-ccs:\t7655183225", "total-cycles-ccs:\t7656183225");
    machine.set(900, 26, "drm-cycles-ccs:\t0", "drm-cycles-ccs:\t250000");
    sampler.sample(&mut rows);
    assert!((rows.f64("gpu-drm-1", "render_percent")[1] - 25.0).abs() < 1e-9);
    assert!((rows.f64("gpu-drm-1", "compute_percent")[1] - 6.25).abs() < 1e-9);
    let busy = rows.u64("gpu-drm-1", "render_busy_ns");
    assert_eq!((busy[0], busy[1]), (0, (0.25 * seconds(&rows) * 1e9) as u64));
    assert_eq!(rows.u64("gpu-drm-1", "memory_local_bytes")[0], 23992 << 10);
    assert_eq!(rows.f64("gpu-drm-1", "clock_requested_hz")[0], 2.4e9);
}

#[test]
fn amdgpu_has_decoders_and_encoders_and_what_its_driver_tells() {
    let machine = Machine::of("amdgpu");
    let mut sampler = machine.sampler();
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    machine.set(4242, 11, "drm-engine-enc:\t300000000", "drm-engine-enc:\t300030000");
    machine.set(4242, 11, "drm-engine-enc_1:\t100000000", "drm-engine-enc_1:\t100010000");
    sampler.sample(&mut rows);
    assert_eq!(rows.u64("gpu-drm-0", "encode_busy_ns"), [0, 40_000]);
    assert_eq!(rows.u64("gpu-drm-0", "decode_busy_ns"), [0, 0]);
    for (column, expected) in [
        ("gpu_percent", 63.0),
        ("memory_controller_percent", 21.0),
        ("vram_used_bytes", 3221225472.0),
        ("vram_total_bytes", 17163091968.0),
        ("power_watts", 142.0),
        ("clock_hz", 1.825e9),
        ("temperature_celsius", 61.0),
    ] {
        assert!((rows.f64("gpu-drm-0", column)[1] - expected).abs() < 1e-6, "{column}");
    }
}

#[test]
fn a_gpu_that_sleeps_is_not_asked() {
    let machine = Machine::of("amdgpu");
    let status = machine.0.path().join("sys/class/drm/card0/device/power/runtime_status");
    fs::write(status, "suspended\n").unwrap();
    let mut rows = Collected::default();
    machine.sampler().sample(&mut rows);
    assert!(rows.f64("gpu-drm-0", "power_watts")[0].is_nan());
    assert_eq!(rows.u64("gpu-drm-0", "clients"), [1]);
}

#[test]
fn sums_never_go_back_when_clients_end_and_new_ones_count_whole() {
    let machine = Machine::of("i915");
    let mut sampler = machine.sampler();
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    machine.set(1310, 6, "render:\t1000000000", "render:\t1000000500");
    sampler.sample(&mut rows);
    // Client 12 ends; client 7 still shows through process 1200.
    machine.end(1310);
    sampler.sample(&mut rows);
    // A new client is found in a later search.
    machine.client(
        1400,
        3,
        "drm-driver: i915\ndrm-pdev: 0000:00:02.0\ndrm-client-id: 30\ndrm-engine-render: 7000 ns\n",
    );
    search_again(&mut sampler);
    sampler.sample(&mut rows);
    // All end.
    machine.end(1200);
    machine.end(1400);
    sampler.sample(&mut rows);
    assert_eq!(rows.u64("gpu-drm-0", "render_busy_ns"), [0, 500, 500, 7500, 7500]);
    assert_eq!(rows.u64("gpu-drm-0", "clients"), [2, 2, 1, 2, 0]);
    assert_eq!(rows.f64("gpu-drm-0", "render_percent")[3], 0.0, "what it did before is not of this time");
}

#[test]
fn a_client_lost_from_sight_goes_on_where_it_was() {
    let machine = Machine::of("amdgpu");
    let mut sampler = machine.sampler();
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    let text = fs::read_to_string(machine.fdinfo(4242, 11)).unwrap();
    machine.end(4242);
    sampler.sample(&mut rows);
    // The descriptor had been given to another process.
    machine.client(5000, 8, &text.replace("gfx:\t4000000000", "gfx:\t4000000900"));
    search_again(&mut sampler);
    sampler.sample(&mut rows);
    assert_eq!(rows.u64("gpu-drm-0", "render_busy_ns"), [0, 0, 900]);
}

#[test]
fn a_counter_that_goes_back_stays_and_a_reused_descriptor_is_another_client() {
    let machine = Machine::of("amdgpu");
    let mut sampler = machine.sampler();
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    machine.set(4242, 11, "gfx:\t4000000000", "gfx:\t3999999000");
    sampler.sample(&mut rows);
    machine.set(4242, 11, "gfx:\t3999999000", "gfx:\t4000000100");
    sampler.sample(&mut rows);
    machine.set(4242, 11, "client-id:\t104", "client-id:\t105");
    machine.set(4242, 11, "gfx:\t4000000100", "gfx:\t50");
    sampler.sample(&mut rows);
    let busy = rows.u64("gpu-drm-0", "render_busy_ns");
    assert_eq!(busy, [0, 0, 100, 150]);
    assert_eq!(rows.u64("gpu-drm-0", "clients"), [1; 4]);
}

#[test]
fn a_machine_without_such_a_gpu_says_so_and_gives_nothing() {
    let empty = tempfile::tempdir().unwrap();
    let mut sampler = DrmGpus::new(empty.path());
    assert!(sampler.info().unavailable.contains("i915, xe, amdgpu"));
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    assert!(rows.rows.is_empty());
}

#[test]
fn a_gpu_of_another_driver_is_taken_once_a_client_tells() {
    let machine = Machine::of("amdgpu");
    let uevent = machine.0.path().join("sys/class/drm/card0/device/uevent");
    fs::write(uevent, "DRIVER=novel\nPCI_SLOT_NAME=0000:0b:00.0\n").unwrap();
    machine.set(4242, 11, "drm-driver:\tamdgpu", "drm-driver:\tnovel");
    let mut sampler = machine.sampler();
    assert!(!sampler.info().unavailable.is_empty());
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    assert_eq!(rows.tables(), ["gpu-drm-0"]);
    assert_eq!(sampler.info().unavailable, "");
}

#[test]
fn a_card_that_is_unplugged_is_marked_once_and_comes_back() {
    let machine = Machine::of("amdgpu");
    let card = machine.0.path().join("sys/class/drm/card0");
    let away = machine.0.path().join("away");
    let mut sampler = machine.sampler();
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    fs::rename(&card, &away).unwrap();
    search_again(&mut sampler);
    sampler.sample(&mut rows);
    sampler.sample(&mut rows);
    fs::rename(&away, &card).unwrap();
    search_again(&mut sampler);
    sampler.sample(&mut rows);
    let kinds: Vec<&str> = rows.marks.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["source_gone", "source_back"]);
    assert_eq!(rows.f64("gpu-drm-0", "gpu_percent"), [63.0, 63.0]);
}

//! What a driver tells of one client of a GPU: `/proc/PID/fdinfo/FD`, the kernel's `Documentation/gpu/drm-usage-stats.rst`.

/// Engines by the names that drivers give them; the last stands for all others.
pub(super) const ENGINES: [(&str, Class); 18] = [
    // i915, v3d
    ("render", Class::Render),
    ("copy", Class::Copy),
    ("video", Class::Video),
    ("video-enhance", Class::VideoEnhance),
    ("compute", Class::Compute),
    // xe
    ("rcs", Class::Render),
    ("bcs", Class::Copy),
    ("vcs", Class::Video),
    ("vecs", Class::VideoEnhance),
    ("ccs", Class::Compute),
    // amdgpu, with "compute" above
    ("gfx", Class::Render),
    ("dma", Class::Copy),
    ("dec", Class::Decode),
    ("jpeg", Class::Decode),
    ("enc", Class::Encode),
    ("enc_1", Class::Encode),
    ("vpe", Class::VideoEnhance),
    ("", Class::Other),
];
const OTHER: usize = ENGINES.len() - 1;
/// A group of more engines than this is nonsense.
const MAX_CAPACITY: u64 = 1024;

/// What engines are for, over all drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Render,
    Copy,
    /// Decoding and encoding, where the driver does not tell them apart.
    Video,
    VideoEnhance,
    Compute,
    Decode,
    Encode,
    Other,
}

/// Counters of one engine, or of a group of like ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Engine {
    pub(super) busy_ns: Option<u64>,
    pub(super) cycles: Option<u64>,
    /// Where that of [`Engine::cycles`] would be had the engine never rested.
    pub(super) total_cycles: Option<u64>,
    /// How many engines the group has; 0 where the driver does not say, which means 1.
    pub(super) capacity: u64,
}

/// Which client: unique in its device.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) driver: String,
    /// PCI address, empty for a GPU that is no PCI device.
    pub(super) pdev: String,
    pub(super) client: u64,
}

/// One client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) key: Key,
    pub(super) engines: [Engine; ENGINES.len()],
    /// Resident in the GPU's own memory.
    pub(super) local_bytes: u64,
    /// Resident in the machine's memory.
    pub(super) system_bytes: u64,
}

impl Client {
    /// Reads an fdinfo; `None` when it is not that of a GPU's client that can be told from others.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut client = Self::default();
        let mut id = None;
        // An older kernel names a region under `drm-memory-`, a newer one under `drm-resident-`, some under both.
        let (mut resident, mut memory) = ([0u64; 2], [0u64; 2]);
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let Some(key) = key.strip_prefix("drm-") else { continue };
            let value = value.trim();
            match key {
                "driver" => client.key.driver = short(value),
                "pdev" => client.key.pdev = short(value),
                "client-id" => id = value.parse().ok(),
                _ => {
                    if let Some(region) = key.strip_prefix("resident-") {
                        add(&mut resident, region, value);
                    } else if let Some(region) = key.strip_prefix("memory-") {
                        add(&mut memory, region, value);
                    } else {
                        client.engine(key, value);
                    }
                }
            }
        }
        let [local, system] = if resident == [0; 2] { memory } else { resident };
        (client.local_bytes, client.system_bytes) = (local, system);
        client.key.client = id?;
        (!client.key.driver.is_empty()).then_some(client)
    }

    fn engine(&mut self, key: &str, value: &str) {
        let number = || value.split_whitespace().next()?.parse::<u64>().ok();
        let sum = |own: &mut Option<u64>| {
            if let Some(more) = number() {
                *own = Some(own.unwrap_or(0).saturating_add(more));
            }
        };
        if let Some(name) = key.strip_prefix("engine-capacity-") {
            self.engines[place(name)].capacity = number().unwrap_or(0).min(MAX_CAPACITY);
        } else if let Some(name) = key.strip_prefix("engine-") {
            sum(&mut self.engines[place(name)].busy_ns);
        } else if let Some(name) = key.strip_prefix("total-cycles-") {
            // One clock for all that fall into one place: the greatest, not the sum.
            let own = &mut self.engines[place(name)].total_cycles;
            *own = (*own).max(number());
        } else if let Some(name) = key.strip_prefix("cycles-") {
            sum(&mut self.engines[place(name)].cycles);
        }
    }
}

fn place(name: &str) -> usize {
    ENGINES[..OTHER].iter().position(|(known, _)| *known == name).unwrap_or(OTHER)
}

fn short(value: &str) -> String {
    value.chars().take(64).collect()
}

/// Adds to `[local, system]` what a region holds.
fn add(sums: &mut [u64; 2], region: &str, value: &str) {
    let mut words = value.split_whitespace();
    let number: u64 = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let unit = match words.next() {
        None => 1,
        Some("KiB") => 1 << 10,
        Some("MiB") => 1 << 20,
        Some(_) => 0,
    };
    let local = region.starts_with("vram") || region.starts_with("local");
    let sum = &mut sums[usize::from(!local)];
    *sum = sum.saturating_add(number.saturating_mul(unit));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(client: &Client, name: &str) -> Engine {
        client.engines[place(name)]
    }

    #[test]
    fn i915_tells_nanoseconds_and_capacity() {
        let client =
            Client::parse(include_str!("../../../tests/fixtures/drm/i915/proc/1200/fdinfo/5")).unwrap();
        assert_eq!(client.key, Key { driver: "i915".into(), pdev: "0000:00:02.0".into(), client: 7 });
        assert_eq!(of(&client, "render").busy_ns, Some(9288864723));
        let video = of(&client, "video");
        assert_eq!((video.busy_ns, video.capacity), (Some(500000000), 2));
        assert_eq!((client.local_bytes, client.system_bytes), (0, 1 << 20));
    }

    #[test]
    fn xe_tells_cycles_and_memory_of_its_own() {
        let client =
            Client::parse(include_str!("../../../tests/fixtures/drm/xe/proc/900/fdinfo/26")).unwrap();
        let render = of(&client, "rcs");
        assert_eq!((render.cycles, render.total_cycles), (Some(28257900), Some(7655183225)));
        assert_eq!(render.busy_ns, None);
        assert_eq!(of(&client, "ccs").capacity, 4);
        assert_eq!((client.local_bytes, client.system_bytes), (23992 << 10, 192 << 10));
    }

    #[test]
    fn amdgpu_tells_decoders_from_encoders() {
        let client =
            Client::parse(include_str!("../../../tests/fixtures/drm/amdgpu/proc/4242/fdinfo/11")).unwrap();
        assert_eq!(of(&client, "gfx").busy_ns, Some(4_000_000_000));
        assert_eq!(of(&client, "enc_1").busy_ns, Some(100_000_000));
        assert_eq!(of(&client, "compute").busy_ns, None);
        assert_eq!((client.local_bytes, client.system_bytes), (512 << 20, 3 << 20));
    }

    #[test]
    fn what_is_no_client_is_none() {
        for text in ["", "pos:\t0\nflags:\t02\n", "drm-driver:\ti915\n", "drm-client-id:\t7\n"] {
            assert_eq!(Client::parse(text), None, "{text}");
        }
        let odd = Client::parse("drm-driver: x\ndrm-client-id: 1\ndrm-memory-vram: 9 PiB\ndrm-engine-: ns")
            .unwrap();
        assert_eq!((odd.local_bytes, odd.engines), (0, [Engine::default(); ENGINES.len()]));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(lines in proptest::collection::vec(
            "(drm-(engine|cycles|total-cycles|engine-capacity|memory|resident|client-id|driver)-?(vcs|vram|\\PC*)):\\PC*([0-9]{1,25})?( KiB)?", 0..20)) {
            Client::parse(&lines.join("\n"));
        }
    }
}

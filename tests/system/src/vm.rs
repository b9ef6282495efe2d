//! An unmodified QEMU whose guest runs `triptych-guest` and nothing else.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use qemu::image::{self, Contents, ImageError};
use qemu::{Config, Qemu, QemuError, StreamPort};
use tempfile::TempDir;

use crate::{program, target_folder};

/// A guest boots in some ten seconds under TCG on a free machine.
const BOOT: Duration = Duration::from_secs(150);
/// GStreamer's plugins that a guest with JPEG needs, and their packages.
const PLUGINS: [(&str, &str); 4] = [
    ("libgstcoreelements.so", "libgstreamer1.0-0"),
    ("libgstapp.so", "gstreamer1.0-plugins-base"),
    ("libgstvideoconvertscale.so", "gstreamer1.0-plugins-base"),
    ("libgstjpeg.so", "gstreamer1.0-plugins-good"),
];

/// A running virtual machine with a streaming guest.
pub struct Vm {
    /// The machine.
    pub qemu: Qemu,
    _folder: TempDir,
}

impl Vm {
    /// Boots a guest that streams a scene as JPEG (320 × 180, 15 frames a second) into its stream port; `None` with
    /// the reason on stderr when the machine lacks what it needs.
    ///
    /// # Errors
    /// It did not boot.
    pub fn start(spice: bool, stream: StreamPort) -> anyhow::Result<Option<Self>> {
        let image = match image::build(&target_folder().join("guest-images"), "streaming", &contents()?) {
            Ok(image) => image,
            Err(error @ (ImageError::NoKernel(_) | ImageError::Missing { .. })) => {
                eprintln!("SKIPPED: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let folder = tempfile::tempdir()?;
        let config = Config {
            memory_mib: 512,
            cpus: 1,
            kernel: image.kernel,
            initrd: image.initrd,
            append: String::new(),
            spice,
            stream,
            log: folder.path().join("qemu.log"),
        };
        match Qemu::launch(&config) {
            Ok(qemu) => Ok(Some(Self { qemu, _folder: folder })),
            Err(error @ QemuError::Missing) => {
                eprintln!("SKIPPED: {error}");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the guest program has opened its stream port.
    ///
    /// # Errors
    /// It did not in time; the end of the guest's console tells more.
    pub fn port_opened(&mut self) -> anyhow::Result<()> {
        let opened = |e: &qemu::Event| e.event == "VSERPORT_CHANGE" && e.data["open"] == true;
        let result = self.qemu.qmp().wait_event("the guest to open its port", Instant::now() + BOOT, opened);
        result.map(drop).with_context(|| format!("the guest's console:\n{}", self.qemu.log_tail()))
    }
}

fn contents() -> anyhow::Result<Contents> {
    let asked = Command::new("pkg-config").args(["--variable=pluginsdir", "gstreamer-1.0"]).output()?;
    let plugins = PathBuf::from(String::from_utf8(asked.stdout)?.trim());
    let environment = [
        ("GST_PLUGIN_SYSTEM_PATH_1_0", plugins.to_string_lossy().into_owned()),
        ("GST_REGISTRY_FORK", "no".into()),
        ("RUST_LOG", "info".into()),
    ];
    Ok(Contents {
        programs: vec![(program("triptych-guest"), "/bin/triptych-guest".into())],
        plugins: PLUGINS.iter().map(|(file, package)| (plugins.join(file), (*package).into())).collect(),
        environment: environment.map(|(name, value)| (name.into(), value)).to_vec(),
        command: "triptych-guest --port virtio --source scene:scroll --size 320x180 --codec mjpeg --fps 15"
            .into(),
    })
}

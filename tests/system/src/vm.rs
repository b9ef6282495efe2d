//! An unmodified QEMU whose guest runs one program of ours and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use qemu::image::{self, Contents, ImageError};
use qemu::{Config, Qemu, QemuError, SerialPort, StreamPort};
use tempfile::TempDir;

use crate::{program, target_folder};

/// Name of the port on which a guest with an agent takes commands.
pub const SHELL_PORT: &str = "org.triptych.shell";
/// The port comes a moment after its driver, and the host's end of it a moment later.
const SHELL: &str = "\
while :; do
  for port in /sys/class/virtio-ports/*; do
    [ \"$(cat $port/name)\" = NAME ] && exec 3<>/dev/${port##*/} && sh <&3 >&3 && exec 3>&-
  done
  sleep 0.1
done";
/// A guest boots in some ten seconds under TCG on a free machine.
const BOOT: Duration = Duration::from_secs(150);
/// GStreamer's plugins that a guest with JPEG needs, and their packages.
const PLUGINS: [(&str, &str); 4] = [
    ("libgstcoreelements.so", "libgstreamer1.0-0"),
    ("libgstapp.so", "gstreamer1.0-plugins-base"),
    ("libgstvideoconvertscale.so", "gstreamer1.0-plugins-base"),
    ("libgstjpeg.so", "gstreamer1.0-plugins-good"),
];

/// A running virtual machine.
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
        Self::boot("streaming", &streaming()?, |config| Config { memory_mib: 512, spice, stream, ..config })
    }

    /// Boots a guest without a network, with an agent in it and these ports; its purpose is a shell on the port
    /// [`SHELL_PORT`], which must be one of them. `None` as for [`Vm::start`].
    ///
    /// # Errors
    /// It did not boot.
    pub fn start_with_agent(agent: &Path, ports: Vec<SerialPort>) -> anyhow::Result<Option<Self>> {
        let contents = Contents {
            programs: vec![(agent.to_owned(), "/bin/triptych-agent".into())],
            command: SHELL.replace("NAME", SHELL_PORT),
            ..Contents::default()
        };
        Self::boot("agent", &contents, |config| Config { ports, ..config })
    }

    fn boot(
        name: &str,
        contents: &Contents,
        configure: impl FnOnce(Config) -> Config,
    ) -> anyhow::Result<Option<Self>> {
        let image = match image::build(&target_folder().join("guest-images"), name, contents) {
            Ok(image) => image,
            Err(error @ (ImageError::NoKernel(_) | ImageError::Missing { .. })) => {
                eprintln!("SKIPPED: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let folder = tempfile::tempdir()?;
        let config = configure(Config {
            memory_mib: 256,
            cpus: 1,
            kernel: image.kernel,
            initrd: image.initrd,
            append: String::new(),
            spice: false,
            stream: StreamPort::None,
            ports: Vec::new(),
            log: folder.path().join("qemu.log"),
        });
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

fn streaming() -> anyhow::Result<Contents> {
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

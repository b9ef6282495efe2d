//! Starts QEMU, speaks QMP, and makes guest images; the only place that starts QEMU.
//!
//! [`Qemu::launch`] starts a virtual machine from a kernel and an initial file system, under TCG (no hardware
//! virtualisation is asked for, so that it runs anywhere), with nothing in it but what [`Config`] names.
//! [`image`] makes the two files from Debian packages. Knows no study and no guest program.

mod config;
mod cpio;
pub mod image;
mod machine;
mod process;
mod qmp;

pub use config::{Config, SerialPort, StreamPort};
pub use machine::{Qemu, QemuError};
pub use qmp::{Event, Qmp, QmpError, SpiceChannel, SpiceInfo, Version};

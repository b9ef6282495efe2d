//! Starts QEMU, speaks QMP, and makes guest images; the only place that starts QEMU.

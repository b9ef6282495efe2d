//! Guest images: Debian's kernel for virtual machines, and an initial file system around one program.
//!
//! Everything is taken from Debian packages: those installed here (busybox-static, libraries, plugins) and the kernel,
//! which is fetched with `apt-get download` and unpacked with `dpkg -x`, without root, once per version.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use thiserror::Error;

use crate::cpio::Archive;

/// The package whose only dependency is the present kernel.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// Modules for a virtio serial port over PCI, in the order in which they must be loaded.
pub const VIRTIO_SERIAL: [&str; 6] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
];
/// Where Debian puts it.
const BUSYBOX: &str = "/bin/busybox";

/// An image cannot be made.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A program of the distribution is missing or fails.
    #[error("{program} failed: {reason}")]
    Tool {
        /// Which, with its arguments.
        program: String,
        /// What it said.
        reason: String,
    },
    /// Something that is to go into the image is missing.
    #[error("{} is missing: install the Debian package {package}", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
        /// The package that brings it.
        package: String,
    },
    /// The kernel cannot be fetched and none was fetched before.
    #[error("no kernel for the guest: {0} (apt-get update may help)")]
    NoKernel(Box<ImageError>),
    /// A package without what it should have.
    #[error("package {package} has no {what}")]
    Package {
        /// Which.
        package: String,
        /// What was looked for.
        what: String,
    },
    /// A file.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::Io { what, path: path.to_owned(), source }
}

/// What goes into the initial file system besides busybox and the kernel's modules.
#[derive(Clone, Debug, Default, Hash)]
pub struct Contents {
    /// Programs: file here, path there. The libraries that they are linked with come along.
    pub programs: Vec<(PathBuf, String)>,
    /// Libraries that programs load while they run (plugins), each with the package that brings it; they keep their
    /// paths, and what they are linked with comes along.
    pub plugins: Vec<(PathBuf, String)>,
    /// Environment of the command.
    pub environment: Vec<(String, String)>,
    /// The shell command that is the guest's purpose. When it ends, the machine does.
    pub command: String,
}

/// The two files that a machine boots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial file system.
    pub initrd: PathBuf,
}

/// Makes an image, or takes it from the folder `cache` when nothing has changed. `name` tells images apart.
///
/// # Errors
/// See [`ImageError`].
pub fn build(cache: &Path, name: &str, contents: &Contents) -> Result<Image, ImageError> {
    fs::create_dir_all(cache).map_err(at("cannot make", cache))?;
    let kernel = kernel(cache)?;
    let mut files = vec![(PathBuf::from(BUSYBOX), BUSYBOX.to_owned())];
    if !Path::new(BUSYBOX).is_file() {
        return Err(ImageError::Missing { path: BUSYBOX.into(), package: "busybox-static".into() });
    }
    files.extend(with_libraries(contents)?);
    let init = init_script(contents);
    let initrd = cache.join(format!("{name}-{:016x}.cpio", fingerprint(&kernel, &files, &init)?));
    if !initrd.is_file() {
        remove_older(cache, name)?;
        write_initrd(&initrd, &kernel, &files, &init)?;
    }
    Ok(Image { kernel: kernel.join("vmlinuz"), initrd })
}

fn init_script(contents: &Contents) -> String {
    let mut script = format!(
        "#!{BUSYBOX} sh\n\
         {BUSYBOX} --install -s /bin\n\
         export PATH=/bin:/usr/bin HOME=/tmp\n\
         mount -t proc proc /proc\nmount -t sysfs sysfs /sys\nmount -t devtmpfs dev /dev\n\
         mkdir -p /dev/shm\nmount -t tmpfs tmpfs /dev/shm\nmount -t tmpfs tmpfs /tmp\n\
         for module in {}; do insmod /modules/$module.ko || echo \"init: module $module failed\"; done\n",
        VIRTIO_SERIAL.join(" ")
    );
    for (name, value) in &contents.environment {
        script.push_str(&format!("export {name}='{}'\n", value.replace('\'', "'\\''")));
    }
    // The kernel panics when its first process ends, and QEMU ends with a guest that powers off or reboots.
    script.push_str(&format!(
        "{}\necho \"init: the command ended with $?\"\nsync\nreboot -f\n",
        contents.command
    ));
    script
}

/// Programs and plugins with all that they are linked with: file here, path there.
fn with_libraries(contents: &Contents) -> Result<Vec<(PathBuf, String)>, ImageError> {
    let mut files = Vec::new();
    for (path, guest) in &contents.programs {
        if !path.is_file() {
            return Err(ImageError::Io {
                what: "cannot find",
                path: path.clone(),
                source: io::ErrorKind::NotFound.into(),
            });
        }
        files.push((path.clone(), guest.clone()));
    }
    for (path, package) in &contents.plugins {
        if !path.is_file() {
            return Err(ImageError::Missing { path: path.clone(), package: package.clone() });
        }
        files.push((path.clone(), path.to_string_lossy().into_owned()));
    }
    let mut libraries = BTreeSet::new();
    for (path, _) in &files {
        libraries.extend(linked(path)?);
    }
    files.extend(libraries.into_iter().map(|l| (PathBuf::from(&l), l)));
    Ok(files)
}

/// Paths of the libraries that the loader would load, as ldd(1) tells them.
fn linked(path: &Path) -> Result<Vec<String>, ImageError> {
    let text = output(Command::new("ldd").arg(path))?;
    parse_ldd(&text).map_err(|library| ImageError::Tool {
        program: format!("ldd {}", path.display()),
        reason: format!("{library} is not installed"),
    })
}

fn parse_ldd(text: &str) -> Result<Vec<String>, String> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        let (name, rest) = line.split_once(" => ").unwrap_or((line, line));
        if rest.starts_with("not found") {
            return Err(name.to_owned());
        }
        if let Some((path, _)) = rest.split_once(" (0x").filter(|(path, _)| path.starts_with('/')) {
            paths.push(path.to_owned());
        }
    }
    Ok(paths)
}

/// Changes when anything that goes into the image does.
fn fingerprint(kernel: &Path, files: &[(PathBuf, String)], init: &str) -> Result<u64, ImageError> {
    let mut hasher = DefaultHasher::new();
    (kernel, files, init).hash(&mut hasher);
    for (path, _) in files {
        let facts = fs::metadata(path).map_err(at("cannot look at", path))?;
        let changed = facts.modified().map_err(at("cannot look at", path))?;
        (facts.len(), changed.duration_since(SystemTime::UNIX_EPOCH).ok()).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn remove_older(cache: &Path, name: &str) -> Result<(), ImageError> {
    for entry in fs::read_dir(cache).map_err(at("cannot read", cache))? {
        let path = entry.map_err(at("cannot read", cache))?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let hash =
            file.strip_prefix(name).and_then(|f| f.strip_prefix('-')).and_then(|f| f.strip_suffix(".cpio"));
        if hash.is_some_and(|h| h.len() == 16 && h.bytes().all(|b| b.is_ascii_hexdigit())) {
            fs::remove_file(&path).map_err(at("cannot remove", &path))?;
        }
    }
    Ok(())
}

fn write_initrd(to: &Path, kernel: &Path, files: &[(PathBuf, String)], init: &str) -> Result<(), ImageError> {
    // Under another name first: a file of the right name is whole.
    let draft = to.with_extension(format!("{}.draft", std::process::id()));
    let write = || -> Result<(), ImageError> {
        let out = File::create(&draft).map_err(at("cannot write", &draft))?;
        let mut archive = Archive::new(BufWriter::new(out));
        let wrong = || at("cannot write", &draft);
        for directory in ["/proc", "/sys", "/dev", "/tmp", "/run", "/usr/bin"] {
            archive.directory(directory).map_err(wrong())?;
        }
        // The kernel opens it for the first process, before anything is mounted.
        archive.device("/dev/console", 5, 1).map_err(wrong())?;
        archive.file("/init", 0o755, init.as_bytes()).map_err(wrong())?;
        archive.link("/bin/sh", "busybox").map_err(wrong())?;
        for module in VIRTIO_SERIAL {
            let path = kernel.join(format!("{module}.ko"));
            let content = fs::read(&path).map_err(at("cannot read", &path))?;
            archive.file(&format!("/modules/{module}.ko"), 0o644, &content).map_err(wrong())?;
        }
        for (path, guest) in files {
            let content = fs::read(path).map_err(at("cannot read", path))?;
            archive.file(guest, 0o755, &content).map_err(wrong())?;
        }
        archive.finish().map_err(wrong())?;
        fs::rename(&draft, to).map_err(at("cannot write", to))
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })
}

/// Folder with `vmlinuz` and the modules of the present kernel, or, when the package lists do not tell one or it
/// cannot be fetched, of the last one that was.
fn kernel(cache: &Path) -> Result<PathBuf, ImageError> {
    match present_kernel() {
        Ok(version) => {
            let folder = cache.join(format!("kernel-{version}"));
            if folder.is_dir() {
                return Ok(folder);
            }
            fetch_kernel(&version, cache, &folder)
                .map(|()| folder)
                .or_else(|error| cached_kernel(cache).ok_or(error))
        }
        Err(error) => cached_kernel(cache).ok_or(error),
    }
    .map_err(|error| ImageError::NoKernel(Box::new(error)))
}

/// `PACKAGE=VERSION` of the kernel that the package lists offer.
fn present_kernel() -> Result<String, ImageError> {
    let lacks =
        |package: &str, what: &str| ImageError::Package { package: package.into(), what: what.into() };
    let depends = output(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]))?;
    let package = depends
        .lines()
        .filter_map(|l| l.trim().strip_prefix("Depends: "))
        .find(|p| p.starts_with("linux-image-"))
        .ok_or_else(|| lacks(KERNEL_PACKAGE, "kernel in the package lists"))?;
    let shown = output(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
    let version = shown.lines().find_map(|l| l.strip_prefix("Version: "));
    Ok(format!("{package}={}", version.ok_or_else(|| lacks(package, "version"))?))
}

fn cached_kernel(cache: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(cache).ok()?.filter_map(Result::ok).map(|e| e.path());
    let kernels = folders.filter(|p| p.join("vmlinuz").is_file());
    kernels.max_by_key(|p| fs::metadata(p).and_then(|m| m.modified()).ok())
}

fn fetch_kernel(version: &str, cache: &Path, folder: &Path) -> Result<(), ImageError> {
    let work = tempfile::Builder::new()
        .prefix("fetch-")
        .tempdir_in(cache)
        .map_err(at("cannot make a folder in", cache))?;
    tracing::info!("fetching {version} for guests");
    output(Command::new("apt-get").args(["download", "-q", version]).current_dir(work.path()))?;
    let package = find(work.path(), &|p| p.extension().is_some_and(|e| e == "deb"))?;
    let package =
        package.ok_or_else(|| ImageError::Package { package: version.into(), what: "file".into() })?;
    let (unpacked, ready) = (work.path().join("unpacked"), work.path().join("ready"));
    output(Command::new("dpkg").arg("-x").arg(&package).arg(&unpacked))?;
    fs::create_dir(&ready).map_err(at("cannot make", &ready))?;
    let mut wanted: Vec<String> = VIRTIO_SERIAL.iter().map(|m| format!("{m}.ko")).collect();
    wanted.push("vmlinuz".into());
    for name in wanted {
        let is = |p: &Path| {
            let file = p.file_name().unwrap_or_default().to_string_lossy();
            file == name.as_str() || (name == "vmlinuz" && file.starts_with("vmlinuz-"))
        };
        let found = find(&unpacked, &is)?;
        let found =
            found.ok_or_else(|| ImageError::Package { package: version.into(), what: name.clone() })?;
        let to = ready.join(&name);
        fs::copy(&found, &to).map_err(at("cannot write", &to))?;
    }
    match fs::rename(&ready, folder) {
        // Somebody else was faster: theirs is as good.
        Err(_) if folder.is_dir() => Ok(()),
        result => result.map_err(at("cannot write", folder)),
    }
}

/// The first file below `folder` that `is` wanted.
fn find(folder: &Path, is: &dyn Fn(&Path) -> bool) -> Result<Option<PathBuf>, ImageError> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at("cannot read", &folder))? {
            let entry = entry.map_err(at("cannot read", &folder))?;
            let kind = entry.file_type().map_err(at("cannot read", &folder))?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is(&entry.path()) {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

/// What a program writes on stdout; an error with its stderr when it fails.
fn output(command: &mut Command) -> Result<String, ImageError> {
    let program = format!("{command:?}").replace('"', "");
    let failed = |reason: String| ImageError::Tool { program: program.clone(), reason };
    let output =
        command.stdin(Stdio::null()).env("LC_ALL", "C").output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read_with_and_without_arrows() {
        let text = "\tlinux-vdso.so.1 (0x00007fb2)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007fb2)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007fb2)\n";
        assert_eq!(
            parse_ldd(text).unwrap(),
            ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert_eq!(parse_ldd("\tstatically linked\n").unwrap(), Vec::<String>::new());
        assert_eq!(parse_ldd("\tlibno.so => not found\n").unwrap_err(), "libno.so");
    }

    #[test]
    fn only_older_images_of_the_same_name_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = ["guest-x.cpio", "guest-two-0123456789abcdef.cpio", "other-0123456789abcdef.cpio"];
        for file in kept.iter().chain(&["guest-0123456789abcdef.cpio"]) {
            fs::write(dir.path().join(file), "").unwrap();
        }
        remove_older(dir.path(), "guest").unwrap();
        assert!(!dir.path().join("guest-0123456789abcdef.cpio").exists());
        assert!(kept.iter().all(|f| dir.path().join(f).exists()));
    }

    #[test]
    fn the_environment_survives_quotes() {
        let contents = Contents { environment: vec![("A".into(), "it's".into())], ..Contents::default() };
        assert!(init_script(&contents).contains("export A='it'\\''s'\n"));
    }

    #[test]
    fn a_missing_plugin_names_its_package() {
        let plugins = vec![(PathBuf::from("/nowhere/libgstx.so"), "gstreamer1.0-x".to_owned())];
        let error = with_libraries(&Contents { plugins, ..Contents::default() }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nowhere/libgstx.so is missing: install the Debian package gstreamer1.0-x"
        );
    }
}

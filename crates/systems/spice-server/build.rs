//! Links the system's libspice-server, and GLib, whose log handler the library writes to.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for (module, version, package) in
        [("spice-server", "0.15.0", "libspice-server-dev"), ("glib-2.0", "2.56", "libglib2.0-dev")]
    {
        if let Err(error) = pkg_config::Config::new().atleast_version(version).probe(module) {
            eprintln!(
                "{module} >= {version} is needed to build spice-server: install the Debian package {package}"
            );
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

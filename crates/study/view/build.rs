//! Files that are added to `ui/` are embedded too.

fn main() {
    println!("cargo::rerun-if-changed=ui");
    println!("cargo::rerun-if-changed=build.rs");
}

//! Serves a study's page: `cargo run -p view --example serve -- STUDY [ADDRESS]`; without a study, a made-up one.

use std::path::PathBuf;
use std::sync::Arc;

use view::{ViewOptions, serve};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let made_up = tempfile::tempdir()?;
    let study = match arguments.next() {
        Some(study) => PathBuf::from(study),
        None => {
            store::synthetic::write(made_up.path(), store::synthetic::Recipe::default())?;
            made_up.path().to_owned()
        }
    };
    let listen = arguments.next().as_deref().unwrap_or("127.0.0.1:0").parse()?;
    serve(ViewOptions { study, listen, token: None, stop: Arc::default() }, |address| {
        println!("http://{address}/");
    })?;
    Ok(())
}

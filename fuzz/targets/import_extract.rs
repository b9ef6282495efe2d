//! What extractors read: their own file, answers of Prometheus, and a run's files. The first byte chooses.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use recording::import::extract::Extractors;
use recording::import::prometheus;

const ALL: &str = r#"
[[extract]]
name = "a"
file = "f"
regex = 't=(?<t>\S+) v=(?<v>\S+)'
time = "t"
[[extract]]
name = "b"
file = "f"
json = "$..v"
type = "int"
each = true
[[extract]]
name = "c"
file = "f"
csv = "v"
time = "t"
time_unit = "rfc3339"
[[extract]]
name = "d"
file = "f"
prometheus = true
"#;

fuzz_target!(|data: &[u8]| {
    static EXTRACTORS: OnceLock<Extractors> = OnceLock::new();
    let Some((choice, body)) = data.split_first() else { return };
    match choice % 3 {
        0 => drop(Extractors::parse(&String::from_utf8_lossy(body), Path::new("x.toml"))),
        1 => drop(prometheus::parse(body)),
        _ => {
            let all = EXTRACTORS.get_or_init(|| Extractors::parse(ALL, Path::new("x.toml")).expect("they are valid"));
            for table in all.look_into(body) {
                table.table.check().expect("names and width are those of a record");
                assert!(table.columns.iter().all(|c| c.len() == table.t_ns.len()));
            }
        }
    }
});

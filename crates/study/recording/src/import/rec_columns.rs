//! What the columns of `.rec` files mean. Their names changed between versions of the toolbox, so a table is understood
//! column by column, by its header alone: `guest.frame_size` is bytes wherever it stands.

use probe::{Column, ColumnType};

use super::table::{Kind, name};

/// A column of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// What it becomes.
    pub(crate) column: Column,
    pub(crate) kind: Kind,
    /// False where nothing is known of its unit.
    pub(crate) understood: bool,
}

/// Instants that rows can be stamped with: by preference, then power of ten into nanoseconds.
const STAMPS: [(&str, i32); 2] = [("msg_ts", 3), ("time", 9)];

/// Position of the column that stamps the rows of a header, and the power of ten that makes nanoseconds of it.
pub(crate) fn stamp(fields: &[&str]) -> Option<(usize, i32)> {
    STAMPS.iter().find_map(|(wanted, power)| {
        let at = fields.iter().position(|f| split(f).1 == *wanted)?;
        Some((at, *power))
    })
}

/// `gpu.render` is `render` of `gpu`; a name without a point is of nothing.
fn split(field: &str) -> (&str, &str) {
    field.rsplit_once('.').unwrap_or(("", field))
}

/// What a column of a header means.
pub(crate) fn known(field: &str) -> Known {
    let (of, what) = split(field);
    let make = |name: &str, kind: Kind, unit: &str, description: String| Known {
        column: Column { name: name.into(), column_type: ColumnType::F64, unit: unit.into(), description },
        kind,
        understood: true,
    };
    let of_the_source = |said: &str| format!("{said}; '{field}' of the source");
    match what {
        "msg_ts" => make("msg_ns", Kind::Scaled(3), "ns", of_the_source("Instant of the message")),
        "time" => {
            make("time_ns", Kind::Scaled(9), "ns", of_the_source("Instant at which the work on it began"))
        }
        "creation_time" => {
            let said = of_the_source("When it was made, on a clock that is not that of t_ns");
            make("creation_ns", Kind::Scaled(9), "ns", said)
        }
        "in_queue_time" => make("in_queue_ns", Kind::Scaled(3), "ns", of_the_source("Time in the queue")),
        "frame_size" | "packet_size" => {
            make("size_bytes", Kind::Count(1), "B", of_the_source("Size of the encoded frame"))
        }
        "mm_time" => {
            make("mm_time_ms", Kind::Count(1), "ms", of_the_source("The server's multimedia clock, 32 bits"))
        }
        "keyframe" => make("keyframe", Kind::Flag, "", of_the_source("Whether it is a key frame")),
        "framerate_actual" => {
            make("actual_fps", Kind::Float, "Hz", of_the_source("Frames a second, sliding"))
        }
        "framerate_requested" => {
            make("requested_fps", Kind::Float, "Hz", of_the_source("Frames a second asked for"))
        }
        "queue" | "queue_before" | "queue_after" | "count" | "total" => {
            make(what, Kind::Count(1), "1", of_the_source("Count"))
        }
        _ => match what.strip_suffix("_duration") {
            Some(stem) => {
                let said = of_the_source(&format!("Duration of '{}'", name(stem)));
                make(&name(&format!("{stem}_ns")), Kind::Scaled(9), "ns", said)
            }
            None if of == "mem" => {
                let said = of_the_source("Memory, kB there (of 1024 bytes)");
                make(&name(&format!("{what}_bytes")), Kind::Count(1024), "B", said)
            }
            None if ["cpu", "gpu"].contains(&of) || of.ends_with("-pid") => {
                let said = of_the_source(if of.ends_with("-pid") {
                    "CPU time of the process, percent of a core"
                } else {
                    "Share of the time"
                });
                make(&name(&format!("{what}_percent")), Kind::Float, "%", said)
            }
            None => Known {
                understood: false,
                ..make(&name(what), Kind::Auto, "", of_the_source("Meaning and unit unknown"))
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_known_by_their_names_alone() {
        for (field, name, unit, kind) in [
            ("guest.frame_size", "size_bytes", "B", Kind::Count(1)),
            ("frame_size", "size_bytes", "B", Kind::Count(1)),
            ("guest.encode_duration", "encode_ns", "ns", Kind::Scaled(9)),
            ("frames_time_to_drop.in_queue_time", "in_queue_ns", "ns", Kind::Scaled(3)),
            ("mem.free", "free_bytes", "B", Kind::Count(1024)),
            ("guest-pid.cpu_user", "cpu_user_percent", "%", Kind::Float),
            ("gpu.videoenhance", "videoenhance_percent", "%", Kind::Float),
            ("host.mm_time", "mm_time_ms", "ms", Kind::Count(1)),
            ("client.keyframe", "keyframe", "", Kind::Flag),
            ("new.thing", "thing", "", Kind::Auto),
        ] {
            let known = known(field);
            assert_eq!(
                (known.column.name.as_str(), known.column.unit.as_str(), known.kind),
                (name, unit, kind)
            );
        }
    }

    #[test]
    fn messages_stamp_rows_before_times_do() {
        assert_eq!(stamp(&["guest.time", "guest.msg_ts"]), Some((1, 3)));
        assert_eq!(stamp(&["gpu.time", "gpu.render"]), Some((0, 9)));
        assert_eq!(stamp(&["a", "b"]), None);
    }
}

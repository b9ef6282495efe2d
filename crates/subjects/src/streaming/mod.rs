//! A SPICE video stream as a subject: `triptych-host`, `triptych-guest` and `triptych-client` in fresh processes for
//! each run, and with `source = "x11"` an Xvfb with a painted window for the guest to capture.
//!
//! Order: display, painter, host; when the host says on which port it listens, client and guest; when all are ready,
//! warm-up and window; then client, guest and host are asked to finish, in this order. A program that did not answer
//! during the window, does not end or leaves without a good-bye fails the run. Nothing waits for a time to pass except
//! warm-up and window.

mod network;
mod spec;
mod xvfb;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench::{Conflict, EventSink, Outcome, Point, Subject, SubjectError};
use recording::spec::{Level, Levels, Panel, SubjectSpec};
use rustix::process::Signal;
pub use spec::{conflicts, spec};

use crate::process::Program;
use network::{NetworkPath, Wanted};
use xvfb::Display;

/// Time that programs have to become ready: encoders load plug-ins from a cold disk.
const READY: Duration = Duration::from_secs(30);
/// Time that a panel has to send its last rows after it was asked to finish.
/// The collector may take five seconds to sync them to a slow disk.
const FINISH: Duration = Duration::from_secs(8);
/// Time between the end of a program and that of its connection: the collector has synced the last rows then, which takes
/// up to five seconds.
const FAREWELL: Duration = Duration::from_secs(8);
/// Time given to a program whose connection ended to end too, so that its exit status is the reason.
const EXIT: Duration = Duration::from_secs(2);

/// Between the end of a process's connections and its own lie some milliseconds.
const SETTLE: Duration = Duration::from_millis(50);

/// Names of the programs of the three panels, in order of flow.
pub const PROGRAMS: [&str; 3] = ["triptych-guest", "triptych-host", "triptych-client"];

/// The subject. Holds the processes of the run under way.
pub struct Streaming {
    programs: PathBuf,
    settings: Option<Settings>,
    running: Running,
    /// Runs so far: each has chance of its own in its network.
    runs: u64,
}

/// Processes of a run; those started later are ended earlier.
#[derive(Default)]
struct Running {
    client: Option<Program>,
    guest: Option<Program>,
    host: Option<Program>,
    painter: Option<Program>,
    display: Option<Display>,
    // Behind the programs in it.
    network: Option<NetworkPath>,
    sockets: Option<tempfile::TempDir>,
}

/// The folder of the three programs: `$TRIPTYCH_PROGRAMS`, or where this executable is.
pub fn programs_folder() -> PathBuf {
    env::var_os("TRIPTYCH_PROGRAMS").map(PathBuf::from).unwrap_or_else(|| {
        env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_default()
    })
}

impl Streaming {
    /// The subject with its programs in the folder `programs`.
    pub fn new(programs: PathBuf) -> Self {
        Self { programs, settings: None, running: Running::default(), runs: 0 }
    }

    fn program(&self, name: &str) -> Result<Command, SubjectError> {
        let path = self.programs.join(name);
        if !path.is_file() {
            return Err(SubjectError::Missing {
                what: path.display().to_string(),
                remedy:
                    "build it with `cargo build --release --bins`, or set TRIPTYCH_PROGRAMS to its folder"
                        .into(),
            });
        }
        let mut command = Command::new(path);
        // Logs go to files, and a display of the person's is none of a run's business.
        command.env("NO_COLOR", "1").env_remove("DISPLAY");
        Ok(command)
    }

    fn panel(&self, panel: Panel, sink: &dyn EventSink) -> Result<Command, SubjectError> {
        let mut command = self.program(&format!("triptych-{panel}"))?;
        command.args(["--collector", &sink.collector().to_string(), "--panel", panel.name()]);
        Ok(command)
    }

    /// Starts everything and waits until all panels are ready.
    fn start(&mut self, settings: &Settings, sink: &mut dyn EventSink) -> Result<(), SubjectError> {
        let dir = sink.run_dir().to_owned();
        let sockets = tempfile::Builder::new()
            .prefix("triptych-")
            .tempdir()
            .map_err(|source| SubjectError::Io { what: "cannot make a folder for sockets".into(), source })?;
        let stream = format!("unix:{}", sockets.path().join("stream").display());
        if let Some(wanted) = &settings.network {
            self.running.network = Some(NetworkPath::start(wanted, self.runs, sockets.path())?);
        }
        self.running.sockets = Some(sockets);
        let source = self.picture(settings, &dir)?;

        let mut host = self.panel(Panel::Host, sink)?;
        let network = self.running.network.as_ref();
        let listen =
            network.map_or(format!("127.0.0.1:{}", settings.port), |path| path.listen(settings.port));
        host.args(["--stream", &stream, "--spice", &listen, "--machine"]);
        if let Some(path) = network {
            path.enter(Panel::Host, &mut host);
        }
        self.running.host = Some(start(Panel::Host, host, &dir)?);
        let ready = self.until_ready(&[Panel::Host], sink)?;
        let port = ready.get(&Panel::Host).and_then(|r| r.facts.get("spice_port")).cloned();
        let port = port.ok_or_else(|| SubjectError::Fault {
            panel: Panel::Host,
            reason: "it did not say on which port it serves SPICE".into(),
        })?;

        let mut client = self.panel(Panel::Client, sink)?;
        let server = match &mut self.running.network {
            Some(path) => path.connect(&port)?,
            None => format!("127.0.0.1:{port}"),
        };
        client.args(["--connect", &server, "--headless"]);
        if let Some(path) = &self.running.network {
            path.enter(Panel::Client, &mut client);
        }
        self.running.client = Some(start(Panel::Client, client, &dir)?);

        let mut guest = self.panel(Panel::Guest, sink)?;
        guest.args(["--port", &stream, "--source", &source]).args(settings.guest_arguments());
        self.running.guest = Some(start(Panel::Guest, guest, &dir)?);
        self.until_ready(&Panel::ALL, sink)?;
        Ok(())
    }

    /// The guest's source; with X11 a display of its own with a painted window.
    fn picture(&mut self, settings: &Settings, dir: &Path) -> Result<String, SubjectError> {
        if !settings.x11 {
            return Ok(format!("scene:{}", settings.scene));
        }
        let display = Display::start(&settings.size(), &dir.join("xvfb.log"))?;
        let name = display.name.clone();
        self.running.display = Some(display);
        let mut paint = self.program("triptych-guest")?;
        paint.args(["paint", "--display", &name, "--scene", &settings.scene, "--size", &settings.size()]);
        // Twice the rate asked for would be captured anyway; a picture that changes at the rate is what a screen does.
        paint.args(["--fps", &settings.fps.to_string()]);
        let (painter, _) = Program::start("painter", paint, &dir.join("painter.log"), Signal::KILL, false)?;
        self.running.painter = Some(painter);
        Ok(format!("x11:{name}"))
    }

    fn until_ready(
        &mut self,
        panels: &[Panel],
        sink: &mut dyn EventSink,
    ) -> Result<std::collections::BTreeMap<Panel, recording::wire::Ready>, SubjectError> {
        let running = &mut self.running;
        sink.wait_ready(panels, READY, &mut || running.check())
    }

    fn record(&mut self, sink: &mut dyn EventSink) -> Result<(), SubjectError> {
        let running = &mut self.running;
        let (warmup, record) = (sink.warmup(), sink.record());
        sink.watch(warmup, &mut || running.check())?;
        sink.begin_window();
        sink.watch(record, &mut || running.check())?;
        sink.end_window();
        if let Some(path) = &running.network {
            path.report(sink)?;
        }
        sink.wait_answers(&Panel::ALL, &mut || running.check())
    }

    /// Ends all programs; the first error says which one did not end in order.
    fn finish(&mut self, sink: &mut dyn EventSink) -> Result<(), SubjectError> {
        let mut outcome = Ok(());
        for panel in [Panel::Client, Panel::Guest, Panel::Host] {
            sink.stop(panel);
            let Some(mut program) = self.running.take(panel) else { continue };
            let ended = if !program.stop(FINISH) {
                Err(SubjectError::Killed { panel })
            } else if let Some(crash) = program.crash(Duration::ZERO) {
                Err(crash)
            } else {
                sink.wait_farewell(panel, FAREWELL)
            };
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl Subject for Streaming {
    fn spec(&self) -> Result<SubjectSpec, SubjectError> {
        Ok(spec())
    }

    fn conflicts(&self, settings: &Levels) -> Vec<Conflict> {
        conflicts(settings)
    }

    fn prepare(&mut self, point: &Point) -> Result<(), SubjectError> {
        self.teardown()?;
        self.settings = Some(Settings::read(&point.settings)?);
        self.runs += 1;
        Ok(())
    }

    fn run(&mut self, sink: &mut dyn EventSink) -> Result<Outcome, SubjectError> {
        let settings =
            self.settings.take().ok_or_else(|| SubjectError::Setting("run without prepare".into()))?;
        match self.start(&settings, sink).and_then(|()| self.record(sink)) {
            Ok(()) => {
                self.finish(sink)?;
                Ok(Outcome::Complete)
            }
            Err(SubjectError::Cancelled) => {
                // It is no measurement anyway, however the programs end.
                let _ = self.finish(sink);
                Ok(Outcome::Cancelled)
            }
            Err(error) => Err(self.running.explain(error)),
        }
    }

    fn teardown(&mut self) -> Result<(), SubjectError> {
        self.settings = None;
        self.running = Running::default();
        Ok(())
    }
}

impl Running {
    fn take(&mut self, panel: Panel) -> Option<Program> {
        match panel {
            Panel::Guest => self.guest.take(),
            Panel::Host => self.host.take(),
            Panel::Client => self.client.take(),
        }
    }

    /// The first program that has ended. The display first: its end is the cause of others' ends.
    fn check(&mut self) -> Result<(), SubjectError> {
        if let Some(display) = &mut self.display {
            display.check()?;
        }
        let programs = [&mut self.painter, &mut self.host, &mut self.guest, &mut self.client];
        programs.into_iter().flatten().try_for_each(Program::check)
    }

    /// The cause behind what was seen first: who crashed comes before who only lost a partner, and the exit status and
    /// last words of a panel whose connection ended before the bare fact.
    fn explain(&mut self, error: SubjectError) -> SubjectError {
        let programs = [&mut self.painter, &mut self.host, &mut self.guest, &mut self.client];
        if let Some(crash) = programs.into_iter().flatten().find_map(|p| p.crash(SETTLE)) {
            return crash;
        }
        let SubjectError::Gone { panel } = error else { return error };
        let program = match panel {
            Panel::Guest => &mut self.guest,
            Panel::Host => &mut self.host,
            Panel::Client => &mut self.client,
        };
        match program.as_mut().map(|p| p.check_within(EXIT)) {
            Some(Err(why)) => why,
            _ => error,
        }
    }
}

fn start(panel: Panel, command: Command, dir: &Path) -> Result<Program, SubjectError> {
    let log = dir.join(format!("{panel}.log"));
    Program::start(panel.name(), command, &log, Signal::KILL, false).map(|(program, _)| program)
}

/// A point, typed. The study file was checked against [`spec`]; a plan from elsewhere is checked here.
#[derive(Clone, Debug, PartialEq)]
struct Settings {
    codec: String,
    encoder: String,
    fps: i64,
    bitrate_kbps: i64,
    gop: i64,
    width: i64,
    height: i64,
    x11: bool,
    scene: String,
    port: i64,
    /// The path between host and client; `None`: loopback.
    network: Option<Wanted>,
}

impl Settings {
    fn read(levels: &Levels) -> Result<Self, SubjectError> {
        let spec = spec();
        for name in levels.keys() {
            if spec.factors.iter().all(|f| f.name != *name) {
                return Err(SubjectError::Setting(format!("streaming takes no setting '{name}'")));
            }
        }
        let level = |name: &str| {
            let factor = spec.factors.iter().find(|f| f.name == name);
            let level = levels.get(name).or(factor.map(|f| &f.default));
            match (factor, level) {
                (Some(factor), Some(level)) if bench::is_level(factor, level) => Ok(level.clone()),
                _ => Err(SubjectError::Setting(format!("'{name}' has no valid level"))),
            }
        };
        let text = |name| level(name).map(|l| l.to_string());
        let int = |name| match level(name)? {
            Level::Int(n) => Ok(n),
            other => Err(SubjectError::Setting(format!("'{name}' is {other}, not a whole number"))),
        };
        let megabits = level("bitrate")?.as_f64().unwrap_or(f64::NAN);
        let settings = Self {
            codec: text("codec")?,
            encoder: text("encoder")?,
            fps: int("fps")?,
            bitrate_kbps: (megabits * 1000.0).round() as i64,
            gop: int("gop")?,
            width: int("width")?,
            height: int("height")?,
            x11: text("source")? == "x11",
            scene: text("scene")?,
            port: int("port")?,
            network: Wanted::read(levels),
        };
        let mut whole = levels.clone();
        whole.entry("codec".into()).or_insert_with(|| Level::Text(settings.codec.clone()));
        match conflicts(&whole).into_iter().next() {
            Some(Conflict { setting, wrong, expected, .. }) => {
                Err(SubjectError::Setting(format!("'{setting}': {wrong}, expected {expected}")))
            }
            None => Ok(settings),
        }
    }

    fn size(&self) -> String {
        format!("{}x{}", self.width, self.height)
    }

    fn guest_arguments(&self) -> Vec<String> {
        let numbers = [("--fps", self.fps), ("--bitrate-kbps", self.bitrate_kbps), ("--gop", self.gop)];
        let mut arguments = vec!["--codec".to_owned(), self.codec.clone(), "--size".to_owned(), self.size()];
        arguments.extend(numbers.into_iter().flat_map(|(flag, n)| [flag.to_owned(), n.to_string()]));
        if !self.encoder.is_empty() {
            // One word with '=', so that a name can never be taken for another flag.
            arguments.push(format!("--encoder={}", self.encoder));
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(pairs: &[(&str, Level)]) -> Levels {
        pairs.iter().map(|(name, level)| ((*name).to_owned(), level.clone())).collect()
    }

    #[test]
    fn a_point_becomes_arguments_of_the_guest() {
        let settings = Settings::read(&levels(&[
            ("codec", Level::Text("vp8".into())),
            ("bitrate", Level::Float(0.5)),
            ("encoder", Level::Text("vp8enc".into())),
        ]))
        .unwrap();
        assert_eq!(
            settings.guest_arguments().join(" "),
            "--codec vp8 --size 640x360 --fps 30 --bitrate-kbps 500 --gop 60 --encoder=vp8enc"
        );
    }

    #[test]
    fn what_can_only_fail_is_told_with_the_nearest_that_works() {
        let text = |word: &str| Level::Text(word.into());
        for (codec, encoder, expected) in [
            ("vp8", "x264enc", Some(("`x264enc` makes h264, not vp8", "\"vp8enc\""))),
            ("h264", "x246enc", Some(("`x246enc` is unknown", "\"x264enc\""))),
            ("h264", "--help", Some(("`--help` is unknown", "\"x264enc\""))),
            ("h264", "openh264enc", None),
            ("h264", "", None),
        ] {
            let found = conflicts(&levels(&[("codec", text(codec)), ("encoder", text(encoder))]));
            let found: Vec<_> =
                found.iter().map(|c| (c.wrong.as_str(), c.nearest.as_deref().unwrap_or(""))).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{codec} by {encoder}");
        }
    }

    #[test]
    fn levels_outside_their_domain_are_refused() {
        for (name, level, expected) in [
            ("codec", Level::Text("av1".into()), "'codec' has no valid level"),
            ("fps", Level::Int(0), "'fps' has no valid level"),
            ("fsp", Level::Int(30), "no setting 'fsp'"),
            ("width", Level::Int(641), "'width': 641 is odd"),
            ("encoder", Level::Text("vp8enc".into()), "'encoder': `vp8enc` makes vp8, not h264"),
        ] {
            let error = Settings::read(&levels(&[(name, level)])).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
